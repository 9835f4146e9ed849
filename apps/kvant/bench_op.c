// SPDX-License-Identifier: MIT
/* bench_op.c: kvant bench --op: what attending to pages, and filling them, costs in libkvant, through its public header alone.
 *
 * Every group of figures (a part, a head_dim, a number of threads) has one cache a format with the same random tokens in all of
 * them. The formats take turns within every repetition, and so does a plain sum over a buffer as large as f16 pages, which tells
 * the read bandwidth of that minute and leaves nothing of a cache in the processor. Medians count.
 *
 * Not here: quality (kvant eval), tokens a second of a model (cmd_bench.c). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <threads.h>
#include <time.h>

#include "bench_op.h"
#include "interrupt.h"
#include "json_output.h"
#include "kv_list.h"
#include "options.h"
#include "report.h"

#define DEFAULT_KV "f16,i8,bc5,bc4,bc4.bare,bc4:16,bz4/bc4,affine4:64,bc3,bc2"
#define MAX_REPS 99
#define MAX_DIMS 8
#define HEAD_DIM_MAX 512 /* that may be typed; each format says what it can store */
#define MAX_GROUPS (MAX_DIMS * 6)
#define MAX_THREADS 256
#define L2_BYTES (256 << 10) /* of f16 pages: fits beside the queries in the 512 KiB and more of today's cores */
#define L2_PASSES 128        /* a few milliseconds together */
#define MEMORY_KV_HEADS 8    /* a layer as in models of today */
#define MEMORY_TOKENS 4096   /* of each of its layers */
#define CALIBRATION_TOKENS 128
#define ENCODE_TOKENS 2048
#define BUFFER_MAX (1 << 30)
#define TILE_TOKENS 512 /* random tokens that are appended again and again */
#define FILL_WEIGHT 8   /* of a cache that is filled in the progress bar, against one measurement */

static const char usage[] =
    "kvant bench --op [--kv FORMAT,…] [--head-dim N,…] [--group N] [-t N] [--memory SIZE] [--json | --csv]";
static const char about[] =
    "Measures the packed path of libkvant alone, on random keys and values, without a model:\n"
    "  decode, L2      one query token against pages that stay in the second-level cache, one thread. Nanoseconds a\n"
    "                  token-head: K and V of one cached token and one KV head, all its query heads (--group) together.\n"
    "  decode, memory  the same against layers of 8 KV heads and 4096 tokens, attended in turn, that come from memory:\n"
    "                  with one thread and with -t. GB/s are bytes of pages a second; \"of read\" is their share of the read\n"
    "                  bandwidth, which a plain sum over a buffer of --memory measures in every repetition.\n"
    "  prefill         --prefill query tokens behind --depth others: milliseconds for one layer and KV head.\n"
    "  encode          appending tokens: microseconds a token-head, K and V together, one thread.\n"
    "\"vs\" is speed: 2.00 takes half the time of f16 (of the first format where f16 is not among them). Formats take turns in\n"
    "every repetition and the median counts, so a busy machine shifts all rows alike: trust ratios more than times,\n"
    "and where others work on it, too, count processor time instead: -t 1 --cpu-time.\n"
    "bc4 beside bc4.bare (no centring) shows what subtracting the rotating mean of the keys costs. Centred formats get a\n"
    "calibration made from random keys with a mean, turned by RoPE (NEOX, base 10000).";

typedef enum op_part { PART_L2, PART_MEMORY, PART_PREFILL, PART_ENCODE, N_PARTS } op_part;

static const struct {
    const char *name, *title, *unit;
    double per_second; /* units in a second */
} parts[N_PARTS] = {
    {"decode-l2", "decode, pages in L2", "ns/token-head", 1e9},
    {"decode-memory", "decode, pages from memory", "ns/token-head", 1e9},
    {"prefill", "prefill", "ms/layer-KV-head", 1e3},
    {"encode", "encode", "us/token-head", 1e6},
};

typedef struct op_cell {
    double time[MAX_REPS]; /* in the part's unit; sorted before they are shown */
    double bytes;          /* of the pages that one pass reads, or that encoding made */
    double seconds;        /* of a pass, the median */
} op_cell;

/* Rows that are compared with each other. */
typedef struct op_group {
    op_part part;
    int head_dim, threads, n_reps;
    double bandwidth[MAX_REPS]; /* bytes a second; only from memory */
    op_cell *cells;             /* [list.n] */
} op_group;

typedef struct op_bench {
    kv_list list;
    int base; /* the format that others are compared with */
    int head_dims[MAX_DIMS], n_dims, group, threads, reps, depth, n_prefill;
    bool cpu_time;
    int64_t memory;
    kvant_isa isa;
    kvant_precision precision;
    op_group groups[MAX_GROUPS];
    int n_groups;
    uint64_t *buffer; /* [buffer_bytes / 8], for the read bandwidth */
    size_t buffer_bytes;
    progress bar;
    double done, total;
} op_bench;

/* The caches of a group, one a format, with the same dimensions and tokens. */
typedef struct fixture {
    kvant_context *ctx;
    kvant_calibration *calibration;
    kvant_cache *caches[KV_LIST_MAX];
    kvant_sequence *sequences[KV_LIST_MAX];
    int n_layer, n_kv_head, head_dim, n_head, n_query, tokens;
    float *k, *v;   /* [TILE_TOKENS][n_kv_head][head_dim] */
    float *q, *out; /* [n_query][n_head][head_dim] */
} fixture;

static void step(op_bench *b, double weight) {
    b->done += weight;
    progress_update(&b->bar, b->done, b->total);
}

/* Seconds of the clock that counts: the wall's, or this process's processor time. */
static double clock_seconds(const op_bench *b) { return b->cpu_time ? (double)clock() / CLOCKS_PER_SEC : kvant_time_seconds(); }

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(const double *sorted, int n) { return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2; }

/* ---- random tokens ---- */

static float random_unit(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (float)(*state >> 40) / (float)(1 << 24);
}

/* About normal, variance 1. */
static float random_normal(uint64_t *state) {
    float sum = 0;
    for (int i = 0; i < 6; i++)
        sum += random_unit(state);
    return (sum - 3) * 1.41421356f;
}

static void fill_normal(float *x, size_t n, uint64_t *state) {
    for (size_t i = 0; i < n; i++)
        x[i] = random_normal(state);
}

/* Turns one vector as RoPE does at a position. */
static void rotate(float *x, int head_dim, const double *frequency, int position) {
    for (int i = 0, half = head_dim / 2; i < half; i++) {
        float c = (float)cos(position * frequency[i]), s = (float)sin(position * frequency[i]), a = x[i], b = x[i + half];
        x[i] = a * c - b * s;
        x[i + half] = a * s + b * c;
    }
}

/* Keys with a mean of several standard deviations, as models have them; values without. */
static void make_tokens(fixture *f, const double *frequency) {
    uint64_t state = 0x9E3779B97F4A7C15u;
    size_t d = (size_t)f->head_dim, heads = (size_t)f->n_kv_head;
    fill_normal(f->k, TILE_TOKENS * heads * d, &state);
    fill_normal(f->v, TILE_TOKENS * heads * d, &state);
    fill_normal(f->q, (size_t)f->n_query * (size_t)f->n_head * d, &state);
    for (int t = 0; t < TILE_TOKENS; t++) {
        uint64_t mean = 7; /* the same in every token */
        for (size_t h = 0; h < heads; h++) {
            float *k = f->k + ((size_t)t * heads + h) * d;
            for (size_t i = 0; i < d; i++)
                k[i] += 3 * random_normal(&mean);
            rotate(k, f->head_dim, frequency, t);
        }
    }
}

static kvant_status calibrate(fixture *f, const double *frequency, kvant_error *err) {
    kvant_rope_config rope = {.n_rot = f->head_dim, .magnitude = 1, .frequency = frequency};
    kvant_calibration_config config = {.n_layer = f->n_layer,
                                       .n_head = f->n_head,
                                       .n_kv_head = f->n_kv_head,
                                       .head_dim = f->head_dim,
                                       .n_rope = 1,
                                       .ropes = &rope};
    uint64_t state = 11;
    size_t n = (size_t)CALIBRATION_TOKENS * (size_t)f->n_head * (size_t)f->head_dim;
    float *q = malloc(n * sizeof *q);
    if (!q) return KVANT_ENOMEM;
    fill_normal(q, n, &state);
    kvant_status st = kvant_calibration_create(&config, &f->calibration, err);
    for (int layer = 0; layer < f->n_layer && st == KVANT_OK; layer++)
        st = kvant_calibration_add(f->calibration, layer, 0, f->k, q, CALIBRATION_TOKENS);
    free(q);
    return st == KVANT_OK ? kvant_calibration_finish(f->calibration, err) : st;
}

/* ---- fixtures ---- */

static void destroy_fixture(fixture *f) {
    for (int i = 0; i < KV_LIST_MAX; i++) {
        kvant_sequence_destroy(f->sequences[i]);
        if (f->caches[i]) kvant_cache_destroy(f->caches[i]);
    }
    kvant_calibration_destroy(f->calibration);
    kvant_context_destroy(f->ctx);
    free(f->k);
    free(f->v);
    free(f->q);
    free(f->out);
}

static int fail_format(const op_bench *b, int i, kvant_status st, const kvant_error *err) {
    return fail_with(1, "%s: %s%s", b->list.items[i].name, err->message[0] ? err->message : kvant_status_name(st),
                     st == KVANT_ENOMEM && !err->message[0] ? ": a smaller --memory takes less" : "");
}

/* Appends until every layer of a format's cache has the fixture's tokens. */
static kvant_status fill(fixture *f, int i) {
    kvant_status st = KVANT_OK;
    for (int layer = 0; layer < f->n_layer && st == KVANT_OK && !interrupted; layer++) {
        for (int t = 0; t < f->tokens && st == KVANT_OK; t += TILE_TOKENS) {
            int n = f->tokens - t < TILE_TOKENS ? f->tokens - t : TILE_TOKENS;
            st = kvant_sequence_append(f->sequences[i], layer, f->k, f->v, n);
        }
    }
    return st;
}

static int create_caches(op_bench *b, fixture *f) {
    for (int i = 0; i < b->list.n && !interrupted; i++) {
        kvant_error err = {0};
        kvant_cache_config config;
        kvant_cache_config_default(&config);
        config.n_layer = f->n_layer;
        config.n_kv_head = f->n_kv_head;
        config.head_dim = f->head_dim;
        config.k = b->list.items[i].k;
        config.v = b->list.items[i].v;
        config.calibration = f->calibration;
        kvant_status st = kvant_cache_create(f->ctx, &config, &f->caches[i], &err);
        if (st == KVANT_OK) st = kvant_sequence_create(f->caches[i], &f->sequences[i]);
        if (st == KVANT_OK) st = fill(f, i);
        if (st != KVANT_OK) return fail_format(b, i, st, &err);
        step(b, FILL_WEIGHT);
    }
    return 0;
}

/* The dimensions of f are set by the caller. */
static int create_fixture(op_bench *b, int threads, fixture *f) {
    size_t d = (size_t)f->head_dim, kv = TILE_TOKENS * (size_t)f->n_kv_head * d;
    size_t q = (size_t)f->n_query * (size_t)f->n_head * d;
    double frequency[HEAD_DIM_MAX / 2];
    kvant_error err = {0};
    for (int i = 0; i < f->head_dim / 2; i++)
        frequency[i] = pow(10000, -2.0 * i / f->head_dim);
    if (kvant_context_create(threads, b->isa, &f->ctx, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    f->k = malloc(kv * sizeof *f->k);
    f->v = malloc(kv * sizeof *f->v);
    f->q = malloc(q * sizeof *f->q);
    f->out = malloc(q * sizeof *f->out);
    if (!f->k || !f->v || !f->q || !f->out) return fail_with(1, "out of memory");
    make_tokens(f, frequency);
    kvant_status st = calibrate(f, frequency, &err);
    if (st != KVANT_OK)
        return fail_with(1, "calibration for head_dim %d: %s", f->head_dim, err.message[0] ? err.message : kvant_status_name(st));
    return create_caches(b, f);
}

/* ---- the read bandwidth of memory ---- */

typedef struct reader {
    const uint64_t *at;
    size_t n;
    uint64_t sum;
} reader;

/* Eight sums at once, each over its own eighth: a core needs many streams of loads on the way to reach what its memory gives. */
static int read_slice(void *arg) {
    reader *r = arg;
    size_t n = r->n / 64 * 8;
    const uint64_t *p[8];
    uint64_t sum[8] = {0};
    for (size_t s = 0; s < 8; s++)
        p[s] = r->at + s * n;
    for (size_t i = 0; i < n; i += 8) {
        for (size_t s = 0; s < 8; s++) {
            const uint64_t *x = p[s] + i;
            sum[s] += (x[0] + x[1]) + (x[2] + x[3]) + ((x[4] + x[5]) + (x[6] + x[7]));
        }
    }
    for (size_t s = 0; s < 8; s++)
        r->sum += sum[s];
    return 0;
}

static volatile uint64_t read_sum; /* keeps the sums from being left out */

/* Bytes a second of n threads; 0 where threads are out. */
static double measure_bandwidth(const op_bench *b, int n) {
    reader readers[MAX_THREADS];
    thrd_t threads[MAX_THREADS];
    size_t words = b->buffer_bytes / sizeof *b->buffer / (size_t)n / 64 * 64;
    int started = 1;
    double start = clock_seconds(b);
    for (int i = 0; i < n; i++)
        readers[i] = (reader){b->buffer + (size_t)i * words, words, 0};
    while (started < n && thrd_create(&threads[started], read_slice, &readers[started]) == thrd_success)
        started++;
    read_slice(&readers[0]);
    for (int i = 1; i < started; i++)
        thrd_join(threads[i], NULL);
    double seconds = clock_seconds(b) - start;
    for (int i = 0; i < started; i++)
        read_sum = readers[i].sum;
    return started == n ? (double)words * 8 * n / seconds : 0;
}

/* ---- measurements ---- */

/* One query token (or n_query) against every layer. */
static kvant_status attend_all(const op_bench *b, fixture *f, int i) {
    kvant_attend_params params = {.n_head = f->n_head, .scale = 1 / sqrtf((float)f->head_dim), .precision = b->precision};
    kvant_status st = KVANT_OK;
    for (int layer = 0; layer < f->n_layer && st == KVANT_OK; layer++)
        st = kvant_attend(f->sequences[i], layer, &params, f->q, f->n_query, f->out);
    return st;
}

static kvant_status encode_all(fixture *f, int i) {
    kvant_status st = kvant_sequence_truncate(f->sequences[i], 0);
    return st == KVANT_OK ? fill(f, i) : st;
}

/* One pass over the cache; where its pages are meant to be in L2 many, after one that is not counted and brings them there. */
static int measure(op_bench *b, op_group *g, fixture *f, int i, int rep) {
    kvant_error err = {0};
    kvant_status st = KVANT_OK;
    int passes = 1;
    if (g->part == PART_L2) {
        st = attend_all(b, f, i);
        passes = L2_PASSES;
    }
    double start = clock_seconds(b);
    for (int p = 0; p < passes && st == KVANT_OK; p++)
        st = g->part == PART_ENCODE ? encode_all(f, i) : attend_all(b, f, i);
    double seconds = (clock_seconds(b) - start) / passes;
    if (st != KVANT_OK) return fail_format(b, i, st, &err);
    double count = g->part == PART_PREFILL ? f->n_layer * f->n_kv_head : (double)f->tokens * f->n_layer * f->n_kv_head;
    g->cells[i].time[rep] = seconds / count * parts[g->part].per_second;
    g->cells[i].bytes = (double)kvant_cache_bytes(f->caches[i]);
    g->cells[i].seconds = count / parts[g->part].per_second; /* times the median: see finish_group */
    step(b, 1);
    return 0;
}

static void finish_group(op_bench *b, op_group *g) {
    if (g->n_reps == 0) return;
    qsort(g->bandwidth, (size_t)g->n_reps, sizeof *g->bandwidth, compare_doubles);
    for (int i = 0; i < b->list.n; i++) {
        qsort(g->cells[i].time, (size_t)g->n_reps, sizeof *g->cells[i].time, compare_doubles);
        g->cells[i].seconds *= median(g->cells[i].time, g->n_reps);
    }
}

static void set_dimensions(const op_bench *b, op_group *g, fixture *f) {
    int token_bytes = 2 * 2 * g->head_dim; /* K and V in f16, a KV head */
    *f = (fixture){.n_layer = 1, .n_kv_head = 1, .n_query = 1, .head_dim = g->head_dim};
    if (g->part == PART_L2) f->tokens = L2_BYTES / token_bytes;
    if (g->part == PART_ENCODE) f->tokens = ENCODE_TOKENS;
    if (g->part == PART_PREFILL) {
        f->tokens = b->depth + b->n_prefill;
        f->n_query = b->n_prefill;
    }
    if (g->part == PART_MEMORY) {
        f->tokens = MEMORY_TOKENS;
        f->n_kv_head = MEMORY_KV_HEADS;
        int64_t layer_bytes = (int64_t)token_bytes * MEMORY_KV_HEADS * MEMORY_TOKENS;
        f->n_layer = (int)((b->memory + layer_bytes - 1) / layer_bytes);
    }
    f->n_head = f->n_kv_head * b->group;
}

static int measure_group(op_bench *b, op_part part, int head_dim, int threads) {
    op_group *g = &b->groups[b->n_groups++];
    fixture f;
    *g = (op_group){.part = part, .head_dim = head_dim, .threads = threads};
    g->cells = calloc((size_t)b->list.n, sizeof *g->cells);
    if (!g->cells) return fail_with(1, "out of memory");
    set_dimensions(b, g, &f);
    int code = create_fixture(b, threads, &f);
    for (int r = 0; r < b->reps && !code && !interrupted; r++) {
        if (part == PART_MEMORY && !((g->bandwidth[r] = measure_bandwidth(b, threads)) > 0))
            code = fail_with(1, "%d threads could not be started", threads);
        for (int i = 0; i < b->list.n && !code && !interrupted; i++)
            code = measure(b, g, &f, i, r);
        if (!code && !interrupted) g->n_reps++;
    }
    destroy_fixture(&f);
    finish_group(b, g);
    return code;
}

/* The number of threads that a part is measured with: 1, and -t where that says something. */
static int thread_counts(const op_bench *b, op_part part) {
    return b->threads > 1 && (part == PART_MEMORY || part == PART_PREFILL) ? 2 : 1;
}

static int measure_all(op_bench *b) {
    int code = 0, n_groups = 0;
    b->buffer_bytes = (size_t)(b->memory < BUFFER_MAX ? b->memory : BUFFER_MAX);
    b->buffer = malloc(b->buffer_bytes);
    if (!b->buffer) return fail_with(1, "out of memory: a smaller --memory takes less");
    memset(b->buffer, 1, b->buffer_bytes);
    for (op_part p = PART_L2; p < N_PARTS; p++)
        n_groups += b->n_dims * thread_counts(b, p);
    b->total = (double)n_groups * b->list.n * (b->reps + FILL_WEIGHT);
    progress_begin(&b->bar, "bench --op");
    for (op_part p = PART_L2; p < N_PARTS; p++) {
        for (int d = 0; d < b->n_dims; d++) {
            for (int t = 0; t < thread_counts(b, p) && !code && !interrupted; t++)
                code = measure_group(b, p, b->head_dims[d], t ? b->threads : 1);
        }
    }
    progress_end(&b->bar);
    return code;
}

/* ---- output ---- */

/* How many times as fast as the base format. */
static double speed(const op_bench *b, const op_group *g, int i) {
    return median(g->cells[b->base].time, g->n_reps) / median(g->cells[i].time, g->n_reps);
}

static bool same_codec(const kvant_format *a, const kvant_format *b) {
    return a->codec == b->codec && a->bits == b->bits && a->group == b->group;
}

/* What centring costs, where a format and its bare twin were both measured. */
static void print_centring(const op_bench *b, const op_group *g) {
    for (int i = 0; i < b->list.n; i++) {
        for (int k = 0; k < b->list.n; k++) {
            const kv_item *centred = &b->list.items[i], *bare = &b->list.items[k];
            if (!kvant_format_is_centred(&centred->k) || !bare->k.bare) continue;
            if (!same_codec(&centred->k, &bare->k) || !same_codec(&centred->v, &bare->v)) continue;
            printf("centring, head_dim %d, %d thread%s: %s takes %.2f x the time of %s\n", g->head_dim, g->threads,
                   g->threads > 1 ? "s" : "", centred->name, speed(b, g, k) / speed(b, g, i), bare->name);
        }
    }
}

static void add_rows(const op_bench *b, const op_group *g, table *t) {
    char bytes[32];
    for (int i = 0; i < b->list.n; i++) {
        const op_cell *c = &g->cells[i];
        double m = median(c->time, g->n_reps);
        table_cell(t, "%d", g->head_dim);
        table_cell(t, "%d", g->threads);
        table_cell(t, "%s", b->list.items[i].name);
        table_cell(t, "%.3g", kv_item_bits(&b->list.items[i], g->head_dim));
        table_cell(t, "%s", format_bytes(c->bytes, bytes, sizeof bytes));
        table_cell(t, m < 10 ? "%.2f" : "%.1f", m);
        table_cell(t, "%.2f", speed(b, g, i));
        table_cell(t, "%.0f", 100 * (c->time[g->n_reps - 1] - c->time[0]) / m);
        if (g->part != PART_MEMORY) continue;
        double rate = c->bytes / c->seconds;
        table_cell(t, "%.1f", rate / 1e9);
        table_cell(t, "%.0f", 100 * rate / median(g->bandwidth, g->n_reps));
    }
}

static int print_part(const op_bench *b, op_part part) {
    int n_columns = part == PART_MEMORY ? 10 : 8;
    bool any = false;
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    table_cell(t, "head_dim");
    table_cell(t, "threads");
    table_cell(t, "kv");
    table_cell(t, "bits");
    table_cell(t, "pages");
    table_cell(t, "%s", parts[part].unit);
    table_cell(t, "vs %s", b->list.items[b->base].name);
    table_cell(t, "range %%");
    if (part == PART_MEMORY) {
        table_cell(t, "GB/s");
        table_cell(t, "%% of read");
    }
    for (int i = 0; i < b->n_groups; i++) {
        const op_group *g = &b->groups[i];
        if (g->part != part || g->n_reps == 0) continue;
        add_rows(b, g, t);
        any = true;
    }
    if (any) {
        if (part == PART_PREFILL)
            printf("%s: %d query tokens at depth %d\n", parts[part].title, b->n_prefill, b->depth);
        else
            printf("%s\n", parts[part].title);
        table_print(t, stdout);
    }
    table_destroy(t);
    for (int i = 0; i < b->n_groups && part <= PART_MEMORY; i++)
        if (b->groups[i].part == part && b->groups[i].n_reps > 0) print_centring(b, &b->groups[i]);
    if (any) printf("\n");
    return 0;
}

static int print_tables(const op_bench *b) {
    for (op_part p = PART_L2; p < N_PARTS; p++) {
        int code = print_part(b, p);
        if (code) return code;
    }
    printf("%s kernels, %s arithmetic, %d query heads a KV head", kvant_isa_name(b->isa),
           b->precision == KVANT_EXACT ? "float32" : "fast", b->group);
    const char *before = "; read bandwidth of memory: ";
    for (int i = 0; i < b->n_groups; i++) {
        const op_group *g = &b->groups[i];
        if (g->part != PART_MEMORY || g->n_reps == 0) continue;
        printf("%s%.1f GB/s (%d thread%s, beside head_dim %d)", before, median(g->bandwidth, g->n_reps) / 1e9, g->threads,
               g->threads > 1 ? "s" : "", g->head_dim);
        before = ", ";
    }
    printf("\nmedians of %d in %s time, formats in turn; range: (slowest - fastest) / median\n", b->reps,
           b->cpu_time ? "processor" : "wall");
    return 0;
}

static void print_csv(const op_bench *b) {
    printf("part,head_dim,threads,kv,bits,unit,time,time_min,time_max,speed,bytes,bytes_per_second,read_bandwidth,reps,isa\n");
    for (int k = 0; k < b->n_groups; k++) {
        const op_group *g = &b->groups[k];
        for (int i = 0; i < b->list.n && g->n_reps > 0; i++) {
            const op_cell *c = &g->cells[i];
            printf("%s,%d,%d,%s,%g,%s,%.5g,%.5g,%.5g,%.4f,%.0f,", parts[g->part].name, g->head_dim, g->threads,
                   b->list.items[i].name, kv_item_bits(&b->list.items[i], g->head_dim), parts[g->part].unit,
                   median(c->time, g->n_reps), c->time[0], c->time[g->n_reps - 1], speed(b, g, i), c->bytes);
            if (g->part == PART_MEMORY)
                printf("%.0f,%.0f", c->bytes / c->seconds, median(g->bandwidth, g->n_reps));
            else
                printf(",");
            printf(",%d,%s\n", g->n_reps, kvant_isa_name(b->isa));
        }
    }
}

static json_t *json_row(const op_bench *b, const op_group *g, int i) {
    const op_cell *c = &g->cells[i];
    json_t *row = json_object(), *time = json_object();
    json_object_set_new(row, "part", json_string(parts[g->part].name));
    json_object_set_new(row, "head_dim", json_integer(g->head_dim));
    json_object_set_new(row, "threads", json_integer(g->threads));
    json_object_set_new(row, "kv", json_string(b->list.items[i].name));
    json_object_set_new(row, "bits", json_real(kv_item_bits(&b->list.items[i], g->head_dim)));
    json_object_set_new(row, "bytes", json_real(c->bytes));
    json_object_set_new(row, "unit", json_string(parts[g->part].unit));
    json_object_set_new(time, "median", json_real(median(c->time, g->n_reps)));
    json_object_set_new(time, "min", json_real(c->time[0]));
    json_object_set_new(time, "max", json_real(c->time[g->n_reps - 1]));
    json_object_set_new(row, "time", time);
    json_object_set_new(row, "speed", json_real(speed(b, g, i)));
    if (g->part == PART_MEMORY) {
        double read = median(g->bandwidth, g->n_reps);
        json_object_set_new(row, "bytes_per_second", json_real(c->bytes / c->seconds));
        json_object_set_new(row, "read_bandwidth", json_real(read));
        json_object_set_new(row, "read_share", json_real(c->bytes / c->seconds / read));
    }
    json_object_set_new(row, "reps", json_integer(g->n_reps));
    return row;
}

static int print_json(const op_bench *b) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "isa", json_string(kvant_isa_name(b->isa)));
    json_object_set_new(root, "precision", json_string(b->precision == KVANT_EXACT ? "exact" : "fast"));
    json_object_set_new(root, "clock", json_string(b->cpu_time ? "cpu" : "wall"));
    json_object_set_new(root, "speed_relative_to", json_string(b->list.items[b->base].name));
    json_object_set_new(root, "group", json_integer(b->group));
    json_object_set_new(root, "memory_bytes", json_integer(b->memory));
    json_object_set_new(root, "prefill_tokens", json_integer(b->n_prefill));
    json_object_set_new(root, "prefill_depth", json_integer(b->depth));
    json_object_set_new(root, "complete", json_boolean(!interrupted));
    for (int k = 0; k < b->n_groups; k++) {
        for (int i = 0; i < b->list.n && b->groups[k].n_reps > 0; i++)
            json_array_append_new(rows, json_row(b, &b->groups[k], i));
    }
    json_object_set_new(root, "rows", rows);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

bool bench_op_asked(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--op") == 0) return true;
    }
    return false;
}

/* "512M", "2G", "65536K": bytes. 0, or 2 with a sentence. */
static int parse_memory(const char *text, int64_t *out) {
    static const char units[] = "KMG";
    char *end;
    long long n = strtoll(text, &end, 10);
    const char *unit = *end ? strchr(units, *end) : NULL;
    int shift = unit ? 10 * (int)(unit - units + 1) : 0;
    bool whole = text[0] >= '0' && text[0] <= '9' && unit && end[1] == '\0';
    if (!whole || n < 1 || n > INT64_C(1) << (38 - shift) || n << shift < 1 << 20)
        return fail_with(2, "--memory %.40s: expected a size from 1M to 256G, such as 512M", text);
    *out = (int64_t)n << shift;
    return 0;
}

static int check_formats(op_bench *b, const char *head_dims) {
    int64_t dims[MAX_DIMS];
    b->n_dims = parse_numbers("--head-dim", head_dims, 2, HEAD_DIM_MAX, dims, MAX_DIMS);
    if (b->n_dims < 0) return 2;
    for (int d = 0; d < b->n_dims; d++) {
        b->head_dims[d] = (int)dims[d];
        int code = kv_list_check(&b->list, b->head_dims[d]);
        if (code) return code;
        if (b->head_dims[d] % 2) return fail_with(2, "--head-dim %d: RoPE turns pairs, so it must be even", b->head_dims[d]);
    }
    for (int i = 0; i < b->list.n; i++)
        if (strcmp(b->list.items[i].name, "f16") == 0) b->base = i;
    return 0;
}

static int run(op_bench *b) {
    kvant_error err = {0};
    kvant_context *ctx;
    if (kvant_context_create(b->threads, b->isa, &ctx, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    b->threads = kvant_context_threads(ctx);
    b->isa = kvant_context_isa(ctx);
    kvant_context_destroy(ctx);
    if (b->threads > MAX_THREADS) b->threads = MAX_THREADS;
    interrupt_watch();
    int code = measure_all(b);
    interrupt_unwatch();
    return code;
}

int bench_op(int argc, char **argv) {
    static op_bench b; /* too large for some stacks */
    model_options options = {0};
    const char *head_dims = "64,128", *memory = NULL;
    bool op = false, quick = false, csv = false, json = false;
    kvant_load_params_default(&options.load);
    b = (op_bench){.group = 4};
    const option flags[] = {
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "what is measured"},
        {"--op", NULL, OPTION_FLAG, &op, 0, 0, NULL, "libkvant alone, without a model"},
        {"--kv", NULL, OPTION_STRING, &options.load.kv.kv, 0, 0, "K[/V],…", "formats (" DEFAULT_KV ")"},
        {"--head-dim", NULL, OPTION_STRING, &head_dims, 0, 0, "N,…", "elements of a head (64,128)"},
        {"--group", NULL, OPTION_INT, &b.group, 1, 64, "N", "query heads that share a KV head (4)"},
        {"--memory", NULL, OPTION_STRING, &memory, 0, 0, "SIZE",
         "of the f16 pages that come from memory (256M); all formats together take about four times as much"},
        {"--depth", NULL, OPTION_INT, &b.depth, 1, 1 << 20, "N", "tokens in the cache before a prefill (8192)"},
        {"--prefill", NULL, OPTION_INT, &b.n_prefill, 1, 8192, "N", "query tokens of a prefill (512)"},
        {"--reps", NULL, OPTION_INT, &b.reps, 1, MAX_REPS, "N", "repetitions, of which the median counts (9)"},
        {"--quick", NULL, OPTION_FLAG, &quick, 0, 0, NULL, "a first look: --memory 32M --depth 1024 --prefill 128 --reps 3"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "machine"},
        {"--threads", "-t", OPTION_INT, &options.load.n_threads, 1, MAX_THREADS, "N", "threads, beside one (the physical cores)"},
        {"--cpu-time", NULL, OPTION_FLAG, &b.cpu_time, 0, 0, NULL, "count processor time, for busy machines; needs --threads 1"},
        {"--isa", NULL, OPTION_STRING, &options.isa, 0, 0, "LEVEL", "the highest kernel level: ref, avx2, avx512, best (best)"},
        {"--exact", NULL, OPTION_FLAG, &options.exact, 0, 0, NULL, "float32 arithmetic instead of integer products"},
        {NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "output"},
        {"--csv", NULL, OPTION_FLAG, &csv, 0, 0, NULL, "comma-separated values instead of tables"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON instead of tables"},
    };
    int code = options_parse(usage, about, flags, (int)(sizeof flags / sizeof *flags), argc, argv, NULL, 0, NULL);
    if (code) return code < 0 ? 0 : code;
    if (csv && json) return fail_with(2, "--csv and --json exclude each other");
    if (b.cpu_time && options.load.n_threads != 1)
        return fail_with(2, "--cpu-time needs --threads 1: it adds up what threads take");
    if (!b.depth) b.depth = quick ? 1024 : 8192;
    if (!b.n_prefill) b.n_prefill = quick ? 128 : 512;
    if (!b.reps) b.reps = quick ? 3 : 9;
    if ((code = parse_memory(memory ? memory : quick ? "32M" : "256M", &b.memory)) != 0) return code;
    if ((code = kv_list_take(&b.list, &options, DEFAULT_KV)) != 0) return code;
    b.list.default_group = !b.list.typed;
    if ((code = check_formats(&b, head_dims)) != 0) return code;
    b.precision = options.exact ? KVANT_EXACT : KVANT_FAST;
    b.threads = options.load.n_threads;
    b.isa = options.load.isa;
    code = run(&b);
    if (!code) {
        if (interrupted) fprintf(stderr, "kvant: interrupted; what was measured so far:\n");
        if (csv)
            print_csv(&b);
        else
            code = json ? print_json(&b) : print_tables(&b);
        if (interrupted) code = 1;
    }
    for (int i = 0; i < b.n_groups; i++)
        free(b.groups[i].cells);
    free(b.buffer);
    return code;
}

// SPDX-License-Identifier: MIT
/* cmd_bench.c: kvant bench: tokens a second of prefill and decode at several depths, for several cache formats.
 *
 * Formats take turns within every repetition and the median of the repetitions is shown, so that a machine that slows down
 * slows all of them. A depth is reached by prefilling pseudo-random tokens once; after a measurement the session is cut back.
 * Where a sliding window has dropped what that needs, the session is filled again. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_op.h"
#include "bench_parallel.h"
#include "commands.h"
#include "interrupt.h"
#include "json_output.h"
#include "kv_list.h"
#include "options.h"
#include "report.h"

#define DEFAULT_KV "f16,i8,i6,bc5,bc4,bc3,bc2,affine4:64"
#define MAX_DEPTHS 16
#define MAX_REPS 99
#define DECODE_WEIGHT 8 /* of a decoded token in the progress bar, against a prefilled one */

static const char usage[] =
    "kvant bench -m MODEL [--depths N,…] [--kv FORMAT,…] [-n N] [--prefill N] [--reps N] [--csv | --json]";
static const char about[] =
    "Measures tokens a second of prefill (appending --prefill tokens at a depth) and of decode (-n single tokens at that depth)\n"
    "for every cache format: the median of --reps repetitions in which the formats take turns. Tokens are pseudo-random. The\n"
    "cache column is what the session's cache takes at that depth; the peak under the table is the whole process, with weights\n"
    "and the caches of all formats together: name one format to see what it takes alone.\n"
    "kvant bench --parallel N,… measures conversations that decode together: see kvant bench --parallel 1 --help.\n"
    "kvant bench --op measures libkvant's attention and encoding alone, without a model: see kvant bench --op --help.";

typedef struct bench_cell {
    int n_reps;
    double prefill[MAX_REPS], decode[MAX_REPS]; /* tokens a second; sorted before they are shown */
    size_t cache_bytes;
} bench_cell;

typedef struct bench {
    kvant_model *model;
    kvant_model_info info;
    kv_list list;
    kvant_session *sessions[KV_LIST_MAX];
    kvant_precision precision;
    bool cpu_time;
    int64_t depths[MAX_DEPTHS], n_context;
    int n_depths, n_decode, n_prefill, reps;
    int32_t *ids;                     /* [n_context], the token at each position */
    bench_cell (*cells)[KV_LIST_MAX]; /* [n_depths] */
    progress bar;
    double done, total; /* in prefilled tokens */
} bench;

static int create_session(bench *b, int f) {
    kvant_session_params p;
    kvant_error err = {0};
    kvant_session_params_default(&p);
    p.n_context = b->n_context;
    p.precision = b->precision;
    p.kv = b->list.items[f].name;
    kvant_session_destroy(b->sessions[f]);
    b->sessions[f] = NULL;
    if (kvant_session_create(b->model, &p, &b->sessions[f], &err) != KVANT_OK)
        return fail_with(1, "%s: %s", b->list.items[f].name, err.message);
    return 0;
}

static bool show_progress(void *user, int64_t done, int64_t total) {
    bench *b = user;
    (void)total;
    progress_update(&b->bar, b->done + (double)done, b->total);
    return !interrupted;
}

/* Seconds of the clock that counts: the wall's, or this process's processor time. */
static double clock_seconds(const bench *b) { return b->cpu_time ? (double)clock() / CLOCKS_PER_SEC : kvant_time_seconds(); }

/* Brings the session to exactly `depth` tokens. */
static int reach(bench *b, int f, int64_t depth) {
    kvant_error err = {0};
    int64_t length = kvant_session_length(b->sessions[f]);
    if (length > depth && kvant_session_truncate(b->sessions[f], depth, &err) != KVANT_OK) {
        int code = create_session(b, f);
        if (code) return code;
    }
    length = kvant_session_length(b->sessions[f]);
    if (length == depth) return 0;
    kvant_status st = kvant_session_prefill(b->sessions[f], b->ids + length, depth - length, show_progress, b, &err);
    if (st == KVANT_ECANCELLED) return 0;
    return st == KVANT_OK ? 0 : fail_with(1, "%s at depth %" PRId64 ": %s", b->list.items[f].name, depth, err.message);
}

/* One repetition of one format at one depth. Decode first: cutting back few tokens works with sliding windows, too. */
static int measure(bench *b, int d, int f) {
    kvant_error err = {0};
    kvant_status st = KVANT_OK;
    bench_cell *cell = &b->cells[d][f];
    int64_t depth = b->depths[d];
    int code = reach(b, f, depth);
    if (code || interrupted) return code;
    kvant_session *s = b->sessions[f];
    cell->cache_bytes = kvant_session_cache_bytes(s);
    double start = clock_seconds(b);
    for (int i = 0; i < b->n_decode && st == KVANT_OK; i++)
        st = kvant_session_decode(s, b->ids[depth + i], &err);
    double decoded = clock_seconds(b);
    if (st != KVANT_OK) return fail_with(1, "%s: %s", b->list.items[f].name, err.message);
    if ((code = reach(b, f, depth)) != 0 || interrupted) return code;
    s = b->sessions[f];
    double prefill_start = clock_seconds(b);
    st = kvant_session_prefill(s, b->ids + depth, b->n_prefill, show_progress, b, &err);
    double end = clock_seconds(b);
    if (st == KVANT_ECANCELLED) return 0;
    if (st != KVANT_OK) return fail_with(1, "%s: %s", b->list.items[f].name, err.message);
    cell->decode[cell->n_reps] = b->n_decode / (decoded - start);
    cell->prefill[cell->n_reps] = b->n_prefill / (end - prefill_start);
    cell->n_reps++;
    b->done += b->n_prefill + (double)DECODE_WEIGHT * b->n_decode;
    return 0;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_all(bench *b) {
    int code = 0;
    progress_begin(&b->bar, "bench");
    for (int d = 0; d < b->n_depths && !code && !interrupted; d++) {
        for (int f = 0; f < b->list.n && !code && !interrupted; f++) {
            int64_t length = kvant_session_length(b->sessions[f]);
            code = reach(b, f, b->depths[d]);
            if (b->depths[d] > length) b->done += (double)(b->depths[d] - length);
        }
        for (int r = 0; r < b->reps; r++) {
            for (int f = 0; f < b->list.n && !code && !interrupted; f++)
                code = measure(b, d, f);
        }
    }
    progress_end(&b->bar);
    for (int d = 0; d < b->n_depths; d++) {
        for (int f = 0; f < b->list.n; f++) {
            bench_cell *cell = &b->cells[d][f];
            qsort(cell->decode, (size_t)cell->n_reps, sizeof *cell->decode, compare_doubles);
            qsort(cell->prefill, (size_t)cell->n_reps, sizeof *cell->prefill, compare_doubles);
        }
    }
    return code;
}

/* ---- output ---- */

static double median(const double *sorted, int n) { return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2; }

static int print_table(const bench *b) {
    static const char *const header[] = {"depth",      "kv",      "bits",       "cache",      "prefill t/s",
                                         "vs 1st row", "range %", "decode t/s", "vs 1st row", "range %"};
    int n_columns = (int)(sizeof header / sizeof *header);
    char bytes[32];
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    for (int c = 0; c < n_columns; c++)
        table_cell(t, "%s", header[c]);
    for (int d = 0; d < b->n_depths; d++) {
        const bench_cell *first = &b->cells[d][0];
        for (int f = 0; f < b->list.n; f++) {
            const bench_cell *cell = &b->cells[d][f];
            int n = cell->n_reps;
            if (n == 0) continue;
            double prefill = median(cell->prefill, n), decode = median(cell->decode, n);
            table_cell(t, "%" PRId64, b->depths[d]);
            table_cell(t, "%s", b->list.items[f].name);
            table_cell(t, "%.3g", kv_item_bits(&b->list.items[f], b->info.head_dim));
            table_cell(t, "%s", format_bytes((double)cell->cache_bytes, bytes, sizeof bytes));
            table_cell(t, "%.1f", prefill);
            table_cell(t, "%.2f", prefill / median(first->prefill, first->n_reps));
            table_cell(t, "%.0f", 100 * (cell->prefill[n - 1] - cell->prefill[0]) / prefill);
            table_cell(t, "%.1f", decode);
            table_cell(t, "%.2f", decode / median(first->decode, first->n_reps));
            table_cell(t, "%.0f", 100 * (cell->decode[n - 1] - cell->decode[0]) / decode);
        }
    }
    table_print(t, stdout);
    table_destroy(t);
    printf("medians of %d: prefill of %d tokens, decode of %d, a second of %s; range: (fastest - slowest) / median\n", b->reps,
           b->n_prefill, b->n_decode, b->cpu_time ? "processor time" : "wall time");
    printf("%s; peak memory %s, with weights\n", b->precision == KVANT_EXACT ? "float32 arithmetic" : "fast kernels",
           format_bytes((double)kvant_peak_memory(), bytes, sizeof bytes));
    return 0;
}

static void print_csv(const bench *b) {
    printf("kv,bits,depth,cache_bytes,prefill_tokens,prefill_tps,prefill_tps_min,prefill_tps_max,decode_tokens,decode_tps,"
           "decode_tps_min,decode_tps_max,reps,threads,peak_bytes\n");
    for (int d = 0; d < b->n_depths; d++) {
        for (int f = 0; f < b->list.n; f++) {
            const bench_cell *c = &b->cells[d][f];
            int n = c->n_reps;
            if (n == 0) continue;
            printf("%s,%g,%" PRId64 ",%zu,%d,%.3f,%.3f,%.3f,%d,%.3f,%.3f,%.3f,%d,%d,%zu\n", b->list.items[f].name,
                   kv_item_bits(&b->list.items[f], b->info.head_dim), b->depths[d], c->cache_bytes, b->n_prefill,
                   median(c->prefill, n), c->prefill[0], c->prefill[n - 1], b->n_decode, median(c->decode, n), c->decode[0],
                   c->decode[n - 1], n, b->info.n_threads, kvant_peak_memory());
        }
    }
}

static json_t *json_speed(const double *sorted, int n) {
    json_t *speed = json_object();
    json_object_set_new(speed, "median", json_real(median(sorted, n)));
    json_object_set_new(speed, "min", json_real(sorted[0]));
    json_object_set_new(speed, "max", json_real(sorted[n - 1]));
    return speed;
}

static int print_json(const bench *b) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "model", json_text(b->info.name));
    json_object_set_new(root, "threads", json_integer(b->info.n_threads));
    json_object_set_new(root, "isa", json_string(kvant_isa_name(b->info.isa)));
    json_object_set_new(root, "clock", json_string(b->cpu_time ? "cpu" : "wall"));
    json_object_set_new(root, "precision", json_string(b->precision == KVANT_EXACT ? "exact" : "fast"));
    json_object_set_new(root, "prefill_tokens", json_integer(b->n_prefill));
    json_object_set_new(root, "decode_tokens", json_integer(b->n_decode));
    json_object_set_new(root, "peak_bytes", json_integer((json_int_t)kvant_peak_memory()));
    for (int d = 0; d < b->n_depths; d++) {
        for (int f = 0; f < b->list.n; f++) {
            const bench_cell *c = &b->cells[d][f];
            if (c->n_reps == 0) continue;
            json_t *row = json_object();
            json_object_set_new(row, "kv", json_string(b->list.items[f].name));
            json_object_set_new(row, "bits", json_real(kv_item_bits(&b->list.items[f], b->info.head_dim)));
            json_object_set_new(row, "depth", json_integer(b->depths[d]));
            json_object_set_new(row, "cache_bytes", json_integer((json_int_t)c->cache_bytes));
            json_object_set_new(row, "prefill_tps", json_speed(c->prefill, c->n_reps));
            json_object_set_new(row, "decode_tps", json_speed(c->decode, c->n_reps));
            json_object_set_new(row, "reps", json_integer(c->n_reps));
            json_array_append_new(rows, row);
        }
    }
    json_object_set_new(root, "rows", rows);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

/* The depths in ascending order, each once: a session only has to grow. */
static void sort_depths(bench *b) {
    for (int i = 1; i < b->n_depths; i++) {
        for (int k = i; k > 0 && b->depths[k] < b->depths[k - 1]; k--) {
            int64_t swap = b->depths[k];
            b->depths[k] = b->depths[k - 1];
            b->depths[k - 1] = swap;
        }
    }
    int n = 0;
    for (int i = 0; i < b->n_depths; i++) {
        if (n == 0 || b->depths[i] != b->depths[n - 1]) b->depths[n++] = b->depths[i];
    }
    b->n_depths = n;
}

static int make_ids(bench *b) {
    uint64_t state = 0x9E3779B97F4A7C15u;
    b->ids = malloc((size_t)b->n_context * sizeof *b->ids);
    b->cells = calloc((size_t)b->n_depths, sizeof *b->cells);
    if (!b->ids || !b->cells) return fail_with(1, "out of memory");
    for (int64_t i = 0; i < b->n_context; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        b->ids[i] = (int32_t)((state >> 33) % (uint64_t)b->info.n_vocab);
    }
    return 0;
}

static int run_bench(bench *b, const model_options *options) {
    kvant_error err = {0};
    if (kvant_model_open(options->model, &options->load, &b->model, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(b->model, &b->info);
    int code = kv_list_check(&b->list, b->info.head_dim);
    if (!code) code = kv_list_calibrate(&b->list, &options->load, b->model);
    if (code) return code;
    print_model_line(b->model);
    if (b->n_context > b->info.n_context_train)
        fprintf(stderr,
                "kvant: depths up to %" PRId64 " tokens exceed the %" PRId64 " that the model was trained for; speed only\n",
                b->n_context, b->info.n_context_train);
    if ((code = make_ids(b)) != 0) return code;
    for (int f = 0; f < b->list.n && !code; f++)
        code = create_session(b, f);
    if (code) return code;
    b->total = b->list.n * ((double)b->depths[b->n_depths - 1] +
                            (double)b->n_depths * b->reps * (b->n_prefill + (double)DECODE_WEIGHT * b->n_decode));
    interrupt_watch();
    code = measure_all(b);
    interrupt_unwatch();
    return code;
}

static void free_bench(bench *b) {
    for (int f = 0; f < b->list.n; f++)
        kvant_session_destroy(b->sessions[f]);
    free(b->ids);
    free(b->cells);
    kvant_model_close(b->model);
}

int cmd_bench(int argc, char **argv) {
    if (bench_op_asked(argc, argv)) return bench_op(argc, argv);
    if (bench_parallel_asked(argc, argv)) return bench_parallel(argc, argv);
    bench b = {.n_decode = 32, .n_prefill = 512, .reps = 3};
    model_options options = {0};
    const char *depths = "0,2048,8192";
    bool csv = false, json = false;
    option flags[64];
    int n = options_add_model(flags, 0, 64, &options);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "measurement"};
    flags[n++] = (option){"--depths", NULL, OPTION_STRING, &depths, 0, 0, "N,…", "tokens in the cache (0,2048,8192)"};
    flags[n++] = (option){"--tokens", "-n", OPTION_INT, &b.n_decode, 1, 65536, "N", "decode N tokens at each depth (32)"};
    flags[n++] = (option){"--prefill", NULL, OPTION_INT, &b.n_prefill, 1, 65536, "N", "append N tokens at each depth (512)"};
    flags[n++] = (option){"--reps", NULL, OPTION_INT, &b.reps, 1, MAX_REPS, "N", "repetitions, of which the median counts (3)"};
    flags[n++] = (option){
        "--cpu-time", NULL, OPTION_FLAG, &b.cpu_time, 0, 0, NULL, "count processor time, for busy machines; needs --threads 1"};
    flags[n++] = (option){"--csv", NULL, OPTION_FLAG, &csv, 0, 0, NULL, "comma-separated values instead of a table"};
    flags[n++] = (option){"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON instead of a table"};
    const char *rest[1];
    int n_rest = 0;
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = kv_list_take(&b.list, &options, DEFAULT_KV)) != 0) return code;
    if ((code = options_need_model(&options.model, rest, n_rest)) != 0) return code;
    if (csv && json) return fail_with(2, "--csv and --json exclude each other");
    if (b.cpu_time && options.load.n_threads != 1)
        return fail_with(2, "--cpu-time needs --threads 1: it adds up what threads take");
    b.n_depths = parse_numbers("--depths", depths, 0, 1 << 24, b.depths, MAX_DEPTHS);
    if (b.n_depths < 0) return 2;
    sort_depths(&b);
    b.precision = options.exact ? KVANT_EXACT : KVANT_FAST;
    int64_t needed = b.depths[b.n_depths - 1] + (b.n_prefill > b.n_decode ? b.n_prefill : b.n_decode);
    if (options.n_context && options.n_context < needed)
        return fail_with(2, "-c %" PRId64 " is less than the %" PRId64 " tokens that these depths take", options.n_context,
                         needed);
    b.n_context = options.n_context ? options.n_context : needed;
    code = run_bench(&b, &options);
    if (!code) {
        if (interrupted) fprintf(stderr, "kvant: interrupted; what was measured so far:\n");
        if (csv)
            print_csv(&b);
        else
            code = json ? print_json(&b) : print_table(&b);
        if (interrupted) code = 1;
    }
    free_bench(&b);
    return code;
}

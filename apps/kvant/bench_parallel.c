// SPDX-License-Identifier: MIT
/* bench_parallel.c: kvant bench --parallel: tokens a second of several conversations that decode together, each with a beginning of
 * its own or all with the same, and what their caches take.
 *
 * Beside every figure stands what the same conversations do one after the other, in the same repetition. Formats, counts and kinds
 * of beginning take turns within a repetition and medians count. Beginnings are read once; after a measurement the sessions are cut
 * back, and their sequences hold what that needs where a window would drop it. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "bench_parallel.h"
#include "interrupt.h"
#include "json_output.h"
#include "kv_list.h"
#include "options.h"
#include "report.h"

#define DEFAULT_KV "f16,bz4/bc4"
#define DEFAULT_COUNTS "1,2,4,8,16"
#define MAX_COUNTS 16
#define MAX_SESSIONS 512
#define MAX_REPS 99
#define SOME_TOKENS 100003u /* a prime: ids of a conversation begin somewhere else than the others' */

static const char usage[] = "kvant bench -m MODEL --parallel N,… [-p DEPTH] [--kv FORMAT,…] [-n N] [--reps N] [--json]";
static const char about[] =
    "Measures conversations that decode together: a step computes one token of each, so that weights are read once for all of them,\n"
    "and attention is each conversation's own. \"own\" beginnings: each has read -p tokens by itself. \"shared\": all go on from the\n"
    "same -p tokens, whose pages are in memory once. \"one by one\" is what the same conversations do when each takes a step alone.\n"
    "The answers are the same, bit for bit. Tokens are pseudo-random; the median of --reps repetitions counts.";

typedef enum beginning { OWN, SHARED, N_BEGINNINGS } beginning;

typedef struct parallel_cell {
    int n_reps;
    double together[MAX_REPS], alone[MAX_REPS]; /* tokens a second of all; sorted before they are shown */
    double own_bytes;                           /* of a conversation, their mean */
    size_t shared_bytes, all_bytes;             /* of pages that several refer to; of all pages, each counted once */
} parallel_cell;

typedef struct parallel {
    kvant_model *model;
    kvant_model_info info;
    kv_list list;
    kvant_precision precision;
    bool cpu_time;
    int64_t counts[MAX_COUNTS], n_context;
    int n_counts, depth, n_decode, reps, most; /* most: the largest count */
    kvant_session **own;                       /* [list.n][most], at `depth` tokens between measurements */
    kvant_session **now;                       /* [most]: those that are measured */
    kvant_batch_item *items;                   /* [most] */
    int32_t *ids;                              /* [most] */
    parallel_cell (*cells)[MAX_COUNTS][N_BEGINNINGS]; /* [list.n] */
    progress bar;
    double done, total; /* in tokens */
} parallel;

static int32_t token_at(const parallel *p, int conversation, int64_t position) {
    uint64_t x = ((uint64_t)conversation * SOME_TOKENS + (uint64_t)position + 1) * 0x9E3779B97F4A7C15u;
    x ^= x >> 31;
    x *= 0xBF58476D1CE4E5B9u;
    return (int32_t)((x >> 33) % (uint64_t)p->info.n_vocab);
}

/* Seconds of the clock that counts: the wall's, or this process's processor time. */
static double clock_seconds(const parallel *p) { return p->cpu_time ? (double)clock() / CLOCKS_PER_SEC : kvant_time_seconds(); }

static bool show_progress(void *user, int64_t done, int64_t total) {
    parallel *p = user;
    (void)total;
    progress_update(&p->bar, p->done + (double)done, p->total);
    return !interrupted;
}

/* A conversation of one format with its own beginning. */
static int begin_conversation(parallel *p, int f, int index) {
    kvant_session_params params;
    kvant_error err = {0};
    kvant_session **s = &p->own[f * p->most + index];
    kvant_session_params_default(&params);
    params.n_context = p->n_context;
    params.precision = p->precision;
    params.kv = p->list.items[f].name;
    kvant_status st = kvant_session_create(p->model, &params, s, &err);
    int32_t *ids = malloc(((size_t)p->depth + 1) * sizeof *ids);
    if (!ids) return fail_with(1, "out of memory");
    for (int i = 0; i < p->depth; i++)
        ids[i] = token_at(p, index, i);
    if (st == KVANT_OK && p->depth > 0) st = kvant_session_prefill(*s, ids, p->depth, show_progress, p, &err);
    free(ids);
    p->done += p->depth;
    if (st != KVANT_OK && st != KVANT_ECANCELLED) return fail_with(1, "%s: %s", p->list.items[f].name, err.message);
    kvant_sequence_hold(kvant_session_sequence(*s), p->depth);
    return 0;
}

/* ---- one measurement ---- */

/* Pages that only one session refers to, and others. */
static void count_bytes(const parallel *p, int n, parallel_cell *cell) {
    kvant_page_info info;
    size_t own = 0;
    cell->shared_bytes = 0;
    for (int i = 0; i < n; i++) {
        const kvant_sequence *s = kvant_session_sequence(p->now[i]);
        size_t shared = 0;
        for (int layer = 0; layer < p->info.n_layer; layer++) {
            for (int k = 0; kvant_sequence_page_info(s, layer, k, &info) == KVANT_OK; k++)
                *(info.n_references > 1 ? &shared : &own) += info.bytes;
        }
        if (shared > cell->shared_bytes) cell->shared_bytes = shared;
    }
    cell->own_bytes = (double)own / n;
    cell->all_bytes = own + cell->shared_bytes;
}

static kvant_status decode_together(parallel *p, int n, int steps, kvant_error *err) {
    kvant_status st = KVANT_OK;
    for (int step = 0; step < steps && st == KVANT_OK; step++) {
        for (int i = 0; i < n; i++) {
            p->ids[i] = token_at(p, i, p->depth + step);
            p->items[i] = (kvant_batch_item){p->now[i], &p->ids[i], 1, NULL};
        }
        st = kvant_batch_decode(p->model, p->items, n, err);
    }
    return st;
}

static kvant_status decode_one_by_one(parallel *p, int n, int steps, kvant_error *err) {
    kvant_status st = KVANT_OK;
    for (int step = 0; step < steps && st == KVANT_OK; step++)
        for (int i = 0; i < n && st == KVANT_OK; i++)
            st = kvant_session_decode(p->now[i], token_at(p, i, p->depth + step), err);
    return st;
}

static kvant_status cut_back(const parallel *p, int n, kvant_error *err) {
    kvant_status st = KVANT_OK;
    for (int i = 0; i < n && st == KVANT_OK; i++)
        st = kvant_session_truncate(p->now[i], p->depth, err);
    return st;
}

/* The sessions that go on from the first one's beginning, or those with their own. */
static kvant_status choose_sessions(parallel *p, int f, int n, beginning from, kvant_error *err) {
    kvant_session **own = p->own + f * p->most;
    kvant_status st = KVANT_OK;
    p->now[0] = own[0];
    for (int i = 1; i < n; i++)
        p->now[i] = from == OWN ? own[i] : NULL;
    for (int i = 1; i < n && from == SHARED && st == KVANT_OK; i++)
        st = kvant_session_fork(own[0], &p->now[i], err);
    return st;
}

static int measure(parallel *p, int f, int c, beginning from) {
    kvant_error err = {0};
    parallel_cell *cell = &p->cells[f][c][from];
    int n = (int)p->counts[c], rounds = (p->n_decode + n - 1) / n;
    kvant_status st = choose_sessions(p, f, n, from, &err);
    double start = clock_seconds(p);
    if (st == KVANT_OK) st = decode_together(p, n, p->n_decode, &err);
    double end = clock_seconds(p);
    if (st == KVANT_OK) count_bytes(p, n, cell);
    if (st == KVANT_OK) st = cut_back(p, n, &err);
    double alone_start = clock_seconds(p);
    if (st == KVANT_OK) st = decode_one_by_one(p, n, rounds, &err);
    double alone_end = clock_seconds(p);
    if (st == KVANT_OK) st = cut_back(p, n, &err);
    for (int i = 1; i < n && from == SHARED; i++)
        kvant_session_destroy(p->now[i]);
    if (st != KVANT_OK) return fail_with(1, "%s: %s", p->list.items[f].name, err.message);
    cell->together[cell->n_reps] = (double)n * p->n_decode / (end - start);
    cell->alone[cell->n_reps] = (double)n * rounds / (alone_end - alone_start);
    cell->n_reps++;
    p->done += (double)n * (p->n_decode + rounds);
    progress_update(&p->bar, p->done, p->total);
    return 0;
}

static int compare_doubles(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static int measure_all(parallel *p) {
    int code = 0, n_cells = p->list.n * p->n_counts * N_BEGINNINGS;
    double tokens = 0;
    for (int c = 0; c < p->n_counts; c++)
        tokens += (double)p->counts[c] * (p->n_decode + (p->n_decode + (double)p->counts[c] - 1) / (double)p->counts[c]);
    p->total = p->list.n * ((double)p->most * p->depth + N_BEGINNINGS * p->reps * tokens);
    progress_begin(&p->bar, "bench");
    for (int i = 0; i < p->list.n * p->most && !code && !interrupted; i++)
        code = begin_conversation(p, i / p->most, i % p->most);
    for (int i = 0; i < p->reps * n_cells && !code && !interrupted; i++) {
        int f = i % p->list.n, c = i / p->list.n % p->n_counts, from = i / (p->list.n * p->n_counts) % N_BEGINNINGS;
        if (from == OWN || p->counts[c] > 1) code = measure(p, f, c, (beginning)from); /* one conversation shares nothing */
    }
    progress_end(&p->bar);
    for (int i = 0; i < n_cells; i++) {
        parallel_cell *cell = &p->cells[0][0][0] + (i / (p->n_counts * N_BEGINNINGS)) * MAX_COUNTS * N_BEGINNINGS +
                              i % (p->n_counts * N_BEGINNINGS);
        qsort(cell->together, (size_t)cell->n_reps, sizeof(double), compare_doubles);
        qsort(cell->alone, (size_t)cell->n_reps, sizeof(double), compare_doubles);
    }
    return code;
}

/* ---- output ---- */

static const char *const beginning_names[N_BEGINNINGS] = {"own", "shared"};

static double median(const double *sorted, int n) { return n % 2 ? sorted[n / 2] : (sorted[n / 2 - 1] + sorted[n / 2]) / 2; }

static void print_row(const parallel *p, table *t, int f, int c, beginning from) {
    const parallel_cell *cell = &p->cells[f][c][from];
    char bytes[32];
    if (cell->n_reps == 0) return;
    double together = median(cell->together, cell->n_reps), alone = median(cell->alone, cell->n_reps);
    table_cell(t, "%s", p->list.items[f].name);
    table_cell(t, "%" PRId64, p->counts[c]);
    table_cell(t, "%s", beginning_names[from]);
    table_cell(t, "%.1f", together);
    table_cell(t, "%.0f", 100 * (cell->together[cell->n_reps - 1] - cell->together[0]) / together);
    table_cell(t, "%.1f", together / (double)p->counts[c]);
    table_cell(t, "%.1f", alone);
    table_cell(t, "%.2f", together / alone);
    table_cell(t, "%s", format_bytes(cell->own_bytes, bytes, sizeof bytes));
    table_cell(t, "%s", format_bytes((double)cell->shared_bytes, bytes, sizeof bytes));
    table_cell(t, "%s", format_bytes((double)cell->all_bytes, bytes, sizeof bytes));
}

static int print_table(const parallel *p) {
    static const char *const header[] = {"kv",         "conversations", "beginning", "all t/s",      "range %", "each t/s",
                                         "one by one", "gain",          "own cache", "shared cache", "all caches"};
    int n_columns = (int)(sizeof header / sizeof *header);
    char bytes[32];
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    for (int i = 0; i < n_columns; i++)
        table_cell(t, "%s", header[i]);
    for (int f = 0; f < p->list.n; f++)
        for (int c = 0; c < p->n_counts; c++)
            for (int from = 0; from < N_BEGINNINGS; from++)
                print_row(p, t, f, c, (beginning)from);
    table_print(t, stdout);
    table_destroy(t);
    printf("decoding %d tokens each after %d, medians of %d; all t/s: tokens a second of %s time, of all together, against one by one;\n"
           "own cache: bytes of a conversation that no other refers to\n", p->n_decode, p->depth, p->reps,
           p->cpu_time ? "processor" : "wall");
    printf("%s; peak memory %s, with weights\n", p->precision == KVANT_EXACT ? "float32 arithmetic" : "fast kernels",
           format_bytes((double)kvant_peak_memory(), bytes, sizeof bytes));
    return 0;
}

static json_t *json_speed(const double *sorted, int n) {
    return json_pack("{s:f, s:f, s:f}", "median", median(sorted, n), "min", sorted[0], "max", sorted[n - 1]);
}

static int print_json(const parallel *p) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "model", json_text(p->info.name));
    json_object_set_new(root, "threads", json_integer(p->info.n_threads));
    json_object_set_new(root, "isa", json_string(kvant_isa_name(p->info.isa)));
    json_object_set_new(root, "clock", json_string(p->cpu_time ? "cpu" : "wall"));
    json_object_set_new(root, "precision", json_string(p->precision == KVANT_EXACT ? "exact" : "fast"));
    json_object_set_new(root, "depth", json_integer(p->depth));
    json_object_set_new(root, "decode_tokens", json_integer(p->n_decode));
    json_object_set_new(root, "peak_bytes", json_integer((json_int_t)kvant_peak_memory()));
    for (int i = 0; i < p->list.n * p->n_counts * N_BEGINNINGS; i++) {
        int from = i % N_BEGINNINGS, c = i / N_BEGINNINGS % p->n_counts, f = i / (N_BEGINNINGS * p->n_counts);
        const parallel_cell *cell = &p->cells[f][c][from];
        if (cell->n_reps == 0) continue;
        json_t *row = json_object();
        json_object_set_new(row, "kv", json_string(p->list.items[f].name));
        json_object_set_new(row, "bits", json_real(kv_item_bits(&p->list.items[f], p->info.head_dim)));
        json_object_set_new(row, "conversations", json_integer(p->counts[c]));
        json_object_set_new(row, "beginning", json_string(beginning_names[from]));
        json_object_set_new(row, "together_tps", json_speed(cell->together, cell->n_reps));
        json_object_set_new(row, "one_by_one_tps", json_speed(cell->alone, cell->n_reps));
        json_object_set_new(row, "own_cache_bytes", json_real(cell->own_bytes));
        json_object_set_new(row, "shared_cache_bytes", json_integer((json_int_t)cell->shared_bytes));
        json_object_set_new(row, "all_cache_bytes", json_integer((json_int_t)cell->all_bytes));
        json_object_set_new(row, "reps", json_integer(cell->n_reps));
        json_array_append_new(rows, row);
    }
    json_object_set_new(root, "rows", rows);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

bool bench_parallel_asked(int argc, char **argv) {
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++) {
        if (strcmp(argv[i], "--parallel") == 0 || strncmp(argv[i], "--parallel=", 11) == 0) return true;
    }
    return false;
}

static int run(parallel *p, const model_options *options) {
    kvant_error err = {0};
    if (kvant_model_open(options->model, &options->load, &p->model, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(p->model, &p->info);
    int code = kv_list_check(&p->list, p->info.head_dim);
    if (!code) code = kv_list_calibrate(&p->list, &options->load, p->model);
    if (code) return code;
    print_model_line(p->model);
    size_t n = (size_t)p->most;
    p->own = calloc((size_t)p->list.n * n, sizeof(kvant_session *));
    p->now = calloc(n, sizeof(kvant_session *));
    p->items = calloc(n, sizeof *p->items);
    p->ids = calloc(n, sizeof *p->ids);
    p->cells = calloc((size_t)p->list.n, sizeof *p->cells);
    if (!p->own || !p->now || !p->items || !p->ids || !p->cells) return fail_with(1, "out of memory");
    interrupt_watch();
    code = measure_all(p);
    interrupt_unwatch();
    return code;
}

static void free_all(parallel *p) {
    for (int i = 0; p->own && i < p->list.n * p->most; i++)
        kvant_session_destroy(p->own[i]);
    free(p->own);
    free(p->now);
    free(p->items);
    free(p->ids);
    free(p->cells);
    kvant_model_close(p->model);
}

int bench_parallel(int argc, char **argv) {
    parallel p = {.n_decode = 32, .depth = 512, .reps = 3};
    model_options options = {0};
    const char *counts = DEFAULT_COUNTS;
    bool json = false;
    option flags[64];
    int n = options_add_model(flags, 0, 64, &options);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "measurement"};
    flags[n++] = (option){"--parallel", NULL, OPTION_STRING, &counts, 0, 0, "N,…", "conversations that decode together"};
    flags[n++] = (option){"--depth", "-p", OPTION_INT, &p.depth, 0, 1 << 24, "N", "tokens each has read before (512)"};
    flags[n++] = (option){"--tokens", "-n", OPTION_INT, &p.n_decode, 1, 65536, "N", "decode N tokens of each (32)"};
    flags[n++] = (option){"--reps", NULL, OPTION_INT, &p.reps, 1, MAX_REPS, "N", "repetitions, of which the median counts (3)"};
    flags[n++] = (option){
        "--cpu-time", NULL, OPTION_FLAG, &p.cpu_time, 0, 0, NULL, "count processor time, for busy machines; needs --threads 1"};
    flags[n++] = (option){"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON instead of a table"};
    const char *rest[1];
    int n_rest = 0;
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = kv_list_take(&p.list, &options, DEFAULT_KV)) != 0) return code;
    if ((code = options_need_model(&options.model, rest, n_rest)) != 0) return code;
    if (p.cpu_time && options.load.n_threads != 1)
        return fail_with(2, "--cpu-time needs --threads 1: it adds up what threads take");
    p.n_counts = parse_numbers("--parallel", counts, 1, MAX_SESSIONS, p.counts, MAX_COUNTS);
    if (p.n_counts < 0) return 2;
    for (int i = 0; i < p.n_counts; i++)
        if (p.counts[i] > p.most) p.most = (int)p.counts[i];
    p.precision = options.exact ? KVANT_EXACT : KVANT_FAST;
    int64_t needed = (int64_t)p.depth + p.n_decode;
    if (options.n_context && options.n_context < needed)
        return fail_with(2, "-c %" PRId64 " is less than the %" PRId64 " tokens that each conversation takes", options.n_context, needed);
    p.n_context = options.n_context ? options.n_context : needed;
    code = run(&p, &options);
    if (!code) {
        if (interrupted) fprintf(stderr, "kvant: interrupted; what was measured so far:\n");
        code = json ? print_json(&p) : print_table(&p);
        if (interrupted) code = 1;
    }
    free_all(&p);
    return code;
}

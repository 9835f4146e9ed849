// SPDX-License-Identifier: MIT
/* cmd_eval.c: kvant eval: what a cache format costs, measured on a text.
 *
 * Every format reads the same tokens in lockstep with an f16 cache, and each next-token distribution is compared with the
 * f16 one. The first row compares an f32 cache: what is not above it is rounding, not quantization. Both references compute in
 * float32; --fast lets the formats' own rows use the fast kernels, whose rounding then is part of the figure. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "interrupt.h"
#include "json_output.h"
#include "divergence.h"
#include "kv_list.h"
#include "options.h"
#include "report.h"

#define MAX_TEXT ((size_t)256 << 20)
#define MAX_STEP 256
#define STEP_BYTES ((size_t)128 << 20) /* of one buffer of logits; there are three */
#define DEFAULT_KV "affine8:64,affine6:64,affine5:64,affine4:64,affine3:64,affine2:64"
#define MAX_ROWS (KV_LIST_MAX + 3)

static const char usage[] = "kvant eval -m MODEL -f TEXT [-c N] [--tokens N] [--kv FORMAT,…] [--csv | --json]";
static const char about[] =
    "Measures what cache formats cost: the divergence (KL, in nats) of every next-token distribution from the one with an f16\n"
    "cache, on the same tokens, every past token read from the quantized cache. The row f32 is the noise floor: f16 against an\n"
    "f32 cache. The text is tokenized whole and cut into chunks of -c tokens; every chunk starts with an empty cache and, where\n"
    "the vocabulary begins texts with BOS, its first token is replaced by BOS. All positions of a chunk are scored. Formats are\n"
    "compared in float32 arithmetic; --fast shows what the fast kernels add. Ctrl-C prints what has been scored so far.";

typedef struct eval_row {
    char name[KV_NAME_MAX + 8];
    char kv[KV_NAME_MAX];
    double k_bits, v_bits;
    kvant_precision precision;
    kvant_session *session;
    divergence_sample sample;
    divergence_summary summary;
} eval_row;

/* rows[0] is the f16 reference, rows[1] the noise floor. */
typedef struct evaluation {
    kvant_model *model;
    kvant_model_info info;
    const char *text_path;
    int32_t *ids, *own_ids, *chunk_ids; /* [n_ids]; own_ids: from --ids, else the tokenizer's; [chunk] */
    bool text_is_ids;
    int n_ids, chunk, step;
    bool has_bos, fast;
    int64_t n_scored;                    /* tokens that will be scored */
    float *reference, *weights, *logits; /* [step][n_vocab] */
    softmax_row *softmax;                /* [step], of the reference */
    int n_rows;
    eval_row rows[MAX_ROWS];
} evaluation;

static void add_row(evaluation *e, const char *label, const kv_item *item, kvant_precision precision) {
    eval_row *r = &e->rows[e->n_rows++];
    snprintf(r->name, sizeof r->name, "%s", label ? label : item->name);
    snprintf(r->kv, sizeof r->kv, "%s", item->name);
    r->k_bits = kvant_format_bits(&item->k, e->info.head_dim);
    r->v_bits = kvant_format_bits(&item->v, e->info.head_dim);
    r->precision = precision;
}

static void add_rows(evaluation *e, const kv_list *list) {
    static const kv_item f16 = {"f16", {KVANT_CODEC_F16, 0, 0}, {KVANT_CODEC_F16, 0, 0}};
    static const kv_item f32 = {"f32", {KVANT_CODEC_F32, 0, 0}, {KVANT_CODEC_F32, 0, 0}};
    add_row(e, NULL, &f16, KVANT_EXACT);
    add_row(e, NULL, &f32, KVANT_EXACT);
    if (e->fast) add_row(e, "f16 (fast)", &f16, KVANT_FAST);
    for (int i = 0; i < list->n; i++) {
        bool there = strcmp(list->items[i].name, "f16") == 0 || strcmp(list->items[i].name, "f32") == 0;
        if (!there) add_row(e, NULL, &list->items[i], e->fast ? KVANT_FAST : KVANT_EXACT);
    }
}

/* Whether the vocabulary begins texts with BOS: that shows on any text. */
static int find_bos(evaluation *e) {
    int32_t *with = NULL, *without = NULL;
    int n_with = 0, n_without = 0;
    kvant_error err = {0};
    kvant_status st = kvant_tokenize(e->model, "a", 1, true, false, &with, &n_with, &err);
    if (st == KVANT_OK) st = kvant_tokenize(e->model, "a", 1, false, false, &without, &n_without, &err);
    e->has_bos = st == KVANT_OK && n_with > n_without && (n_without == 0 || with[0] != without[0]);
    kvant_ids_free(with);
    kvant_ids_free(without);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

static int read_ids(evaluation *e, int64_t tokens) {
    char *text;
    size_t size;
    kvant_error err = {0};
    int code = read_text(e->text_path, MAX_TEXT, &text, &size);
    if (code) return code;
    if (e->text_is_ids) {
        code = parse_token_ids(e->text_path, text, size, e->info.n_vocab, &e->own_ids, &e->n_ids);
        e->ids = e->own_ids;
    } else {
        int32_t *ids = NULL;
        if (kvant_tokenize(e->model, text, size, true, false, &ids, &e->n_ids, &err) != KVANT_OK)
            code = fail_with(1, "%s: %s", e->text_path, err.message);
        else
            code = find_bos(e);
        e->ids = ids;
    }
    free(text);
    if (code) return code;
    int64_t whole = (tokens + e->chunk - 1) / e->chunk * e->chunk;
    e->n_scored = e->n_ids < whole ? e->n_ids : whole;
    if (e->n_scored % e->chunk == 1) e->n_scored--; /* one token predicts nothing */
    if (e->n_scored < 2) return fail_with(1, "%s: %d tokens are too few: a chunk needs at least 2", e->text_path, e->n_ids);
    return 0;
}

static int create_sessions(evaluation *e) {
    kvant_error err = {0};
    for (int i = 0; i < e->n_rows; i++) {
        kvant_session_params p;
        kvant_session_params_default(&p);
        p.n_context = e->chunk;
        p.precision = e->rows[i].precision;
        p.kv = e->rows[i].kv;
        kvant_session_destroy(e->rows[i].session);
        e->rows[i].session = NULL;
        if (kvant_session_create(e->model, &p, &e->rows[i].session, &err) != KVANT_OK)
            return fail_with(1, "%s: %s", e->rows[i].name, err.message);
    }
    return 0;
}

/* Starts the next chunk with empty caches; a window that cannot go back to its start takes new sessions. */
static int empty_sessions(evaluation *e) {
    kvant_error err = {0};
    for (int i = 0; i < e->n_rows; i++) {
        if (!e->rows[i].session || kvant_session_truncate(e->rows[i].session, 0, &err) != KVANT_OK) return create_sessions(e);
    }
    return 0;
}

static bool score_rows(evaluation *e, eval_row *r, const float *logits, int first, int n, int chunk_length) {
    size_t n_vocab = (size_t)e->info.n_vocab;
    bool is_reference = r == &e->rows[0];
    for (int i = 0; i < n; i++) {
        const float *x = logits + (size_t)i * n_vocab;
        softmax_row row, *reference = &e->softmax[i];
        double kl = 0;
        softmax_row_init(&row, x, e->info.n_vocab, is_reference ? e->weights + (size_t)i * n_vocab : NULL);
        if (is_reference)
            *reference = row;
        else
            kl = divergence_kl(reference, e->reference + (size_t)i * n_vocab, e->weights + (size_t)i * n_vocab, &row, x,
                               e->info.n_vocab);
        if (!divergence_sample_add(&r->sample, kl, row.top == reference->top)) return false;
        if (first + i + 1 < chunk_length) {
            r->sample.nll += softmax_row_nll(&row, x, e->chunk_ids[first + i + 1]);
            r->sample.n_nll++;
        }
    }
    return true;
}

/* A step of n tokens through every session. An interrupted step is forgotten, so all rows have scored the same positions. */
static int score_step(evaluation *e, int first, int n, int chunk_length, progress *bar, double done, double total) {
    divergence_sample before[MAX_ROWS];
    kvant_error err = {0};
    for (int i = 0; i < e->n_rows; i++)
        before[i] = e->rows[i].sample;
    for (int i = 0; i < e->n_rows; i++) {
        eval_row *r = &e->rows[i];
        float *logits = i == 0 ? e->reference : e->logits;
        if (!interrupted && kvant_session_step(r->session, e->chunk_ids + first, n, logits, &err) != KVANT_OK)
            return fail_with(1, "%s: %s", r->name, err.message);
        if (interrupted) {
            for (int k = 0; k <= i; k++) {
                before[k].kl = e->rows[k].sample.kl;
                before[k].capacity = e->rows[k].sample.capacity;
                e->rows[k].sample = before[k];
            }
            return 0;
        }
        if (!score_rows(e, r, logits, first, n, chunk_length)) return fail_with(1, "out of memory");
        progress_update(bar, done + (double)n * (i + 1) / e->n_rows, total);
    }
    return 0;
}

static int score_text(evaluation *e) {
    progress bar;
    int code = 0;
    progress_begin(&bar, "eval");
    for (int64_t start = 0; start < e->n_scored && !code && !interrupted; start += e->chunk) {
        int length = e->n_scored - start < e->chunk ? (int)(e->n_scored - start) : e->chunk;
        memcpy(e->chunk_ids, e->ids + start, (size_t)length * sizeof *e->ids);
        if (e->has_bos) e->chunk_ids[0] = e->ids[0];
        code = empty_sessions(e);
        for (int first = 0; first < length && !code && !interrupted; first += e->step) {
            int n = length - first < e->step ? length - first : e->step;
            code = score_step(e, first, n, length, &bar, (double)(start + first), (double)e->n_scored);
        }
    }
    progress_end(&bar);
    for (int i = 0; i < e->n_rows && !code; i++) {
        if (!divergence_summarize(&e->rows[i].sample, &e->rows[i].summary)) code = fail_with(1, "out of memory");
    }
    return code;
}

/* ---- output ---- */

/* The i-th row to show: the noise floor, the reference, then the rest. */
static const eval_row *shown_row(const evaluation *e, int i) { return &e->rows[i == 0 ? 1 : i == 1 ? 0 : i]; }

static void value_cell(table *t, double value, const char *fmt) {
    char text[32];
    if (isnan(value))
        snprintf(text, sizeof text, "-");
    else
        snprintf(text, sizeof text, fmt, value);
    table_cell(t, "%s", text);
}

static int print_table(const evaluation *e) {
    static const char *const header[] = {"kv", "bits", "KL mean", "± se", "median", "99 %", "99.9 %", "max", "top-1 %", "ppl"};
    int n_columns = (int)(sizeof header / sizeof *header);
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    for (int c = 0; c < n_columns; c++)
        table_cell(t, "%s", header[c]);
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = shown_row(e, i);
        const divergence_summary *s = &r->summary;
        table_cell(t, "%s", r->name);
        table_cell(t, "%.3g", (r->k_bits + r->v_bits) / 2);
        const double kl[] = {s->mean, s->se, s->median, s->p99, s->p999, s->max};
        for (int c = 0; c < 6; c++)
            value_cell(t, kl[c], "%.3g");
        value_cell(t, 100 * s->top1, "%.2f");
        value_cell(t, s->perplexity, "%.4f");
    }
    table_print(t, stdout);
    table_destroy(t);
    printf("%" PRId64 " positions in chunks of %d, %s; KL in nats against the f16 cache, f32: the noise floor\n",
           e->rows[0].sample.n, e->chunk, e->fast ? "fast kernels" : "float32 arithmetic");
    return 0;
}

static void print_csv(const evaluation *e) {
    printf("kv,k_bits,v_bits,bits,kl_mean,kl_se,kl_median,kl_p99,kl_p999,kl_max,top1,ppl,tokens\n");
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = shown_row(e, i);
        const divergence_summary *s = &r->summary;
        printf("%s,%g,%g,%g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6g,%.6f,%" PRId64 "\n", r->name, r->k_bits, r->v_bits,
               (r->k_bits + r->v_bits) / 2, s->mean, s->se, s->median, s->p99, s->p999, s->max, s->top1, s->perplexity,
               r->sample.n);
    }
}

static int print_json(const evaluation *e) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "model", json_text(e->info.name));
    json_object_set_new(root, "context", json_integer(e->chunk));
    json_object_set_new(root, "bos", json_boolean(e->has_bos));
    json_object_set_new(root, "precision", json_string(e->fast ? "fast" : "exact"));
    json_object_set_new(root, "complete", json_boolean(e->rows[0].sample.n == e->n_scored));
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = shown_row(e, i);
        const divergence_summary *s = &r->summary;
        json_t *row = json_object();
        json_object_set_new(row, "kv", json_string(r->name));
        json_object_set_new(row, "k_bits", json_real(r->k_bits));
        json_object_set_new(row, "v_bits", json_real(r->v_bits));
        json_object_set_new(row, "bits", json_real((r->k_bits + r->v_bits) / 2));
        json_object_set_new(row, "kl_mean", json_number_or_null(s->mean));
        json_object_set_new(row, "kl_se", json_number_or_null(s->se));
        json_object_set_new(row, "kl_median", json_number_or_null(s->median));
        json_object_set_new(row, "kl_p99", json_number_or_null(s->p99));
        json_object_set_new(row, "kl_p999", json_number_or_null(s->p999));
        json_object_set_new(row, "kl_max", json_number_or_null(s->max));
        json_object_set_new(row, "top1", json_number_or_null(s->top1));
        json_object_set_new(row, "ppl", json_number_or_null(s->perplexity));
        json_object_set_new(row, "tokens", json_integer(r->sample.n));
        json_array_append_new(rows, row);
    }
    json_object_set_new(root, "rows", rows);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

/* ---- the command ---- */

static void free_evaluation(evaluation *e) {
    for (int i = 0; i < e->n_rows; i++) {
        kvant_session_destroy(e->rows[i].session);
        divergence_sample_free(&e->rows[i].sample);
    }
    if (!e->own_ids) kvant_ids_free(e->ids);
    free(e->own_ids);
    free(e->chunk_ids);
    free(e->reference);
    free(e->weights);
    free(e->logits);
    free(e->softmax);
    kvant_model_close(e->model);
}

static int allocate_buffers(evaluation *e) {
    size_t cells = (size_t)e->step * (size_t)e->info.n_vocab;
    e->chunk_ids = malloc((size_t)e->chunk * sizeof *e->chunk_ids);
    e->reference = malloc(cells * sizeof(float));
    e->weights = malloc(cells * sizeof(float));
    e->logits = malloc(cells * sizeof(float));
    e->softmax = malloc((size_t)e->step * sizeof *e->softmax);
    if (!e->chunk_ids || !e->reference || !e->weights || !e->logits || !e->softmax) return fail_with(1, "out of memory");
    return 0;
}

/* Logits of a whole step are kept: a step is as long as they fit, and not longer than the prefill step that was asked for. */
static int choose_step(int n_vocab, int prefill_step_size) {
    size_t rows = STEP_BYTES / ((size_t)n_vocab * sizeof(float));
    int step = rows > MAX_STEP ? MAX_STEP : (int)rows & ~15;
    if (step < 1) step = 1;
    return prefill_step_size > 0 && prefill_step_size < step ? prefill_step_size : step;
}

static int run_eval(evaluation *e, const model_options *options, kv_list *list, int64_t tokens) {
    kvant_error err = {0};
    if (kvant_model_open(options->model, &options->load, &e->model, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(e->model, &e->info);
    int code = kv_list_check(list, e->info.head_dim);
    if (code) return code;
    print_model_line(e->model);
    if (e->chunk > e->info.n_context_train)
        fprintf(stderr, "kvant: -c %d is longer than the %" PRId64 " tokens that the model was trained for\n", e->chunk,
                e->info.n_context_train);
    e->step = choose_step(e->info.n_vocab, options->load.prefill_step_size);
    if (e->step > e->chunk) e->step = e->chunk;
    add_rows(e, list);
    code = read_ids(e, tokens);
    if (!code) code = allocate_buffers(e);
    if (code) return code;
    interrupt_watch();
    code = score_text(e);
    interrupt_unwatch();
    return code;
}

int cmd_eval(int argc, char **argv) {
    static evaluation e;
    model_options options = {0};
    kv_list list;
    int64_t tokens = 8192;
    bool csv = false, json = false;
    option flags[64];
    int n = options_add_model(flags, 0, 64, &options);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "evaluation"};
    flags[n++] = (option){"--file", "-f", OPTION_STRING, &e.text_path, 0, 0, "FILE", "the text, - for stdin"};
    flags[n++] = (option){"--ids", NULL, OPTION_FLAG, &e.text_is_ids, 0, 0, NULL, "the file holds token ids, scored as they are"};
    flags[n++] = (option){"--tokens", NULL, OPTION_INT64, &tokens, 2, 1e9, "N", "score the first N tokens, whole chunks (8192)"};
    flags[n++] = (option){"--csv", NULL, OPTION_FLAG, &csv, 0, 0, NULL, "comma-separated values instead of a table"};
    flags[n++] = (option){"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON instead of a table"};
    const char *rest[1];
    int n_rest = 0;
    int code = options_parse(usage, about, flags, n, argc, argv, rest, 1, &n_rest);
    if (code) return code < 0 ? 0 : code;
    if ((code = kv_list_take(&list, &options, DEFAULT_KV)) != 0) return code;
    if ((code = options_need_model(&options.model, rest, n_rest)) != 0) return code;
    if (!e.text_path) return fail_with(2, "eval needs a text: -f FILE");
    if (csv && json) return fail_with(2, "--csv and --json exclude each other");
    if (options.n_context == 0) options.n_context = 2048;
    if (options.n_context < 2 || options.n_context > 1 << 24) return fail_with(2, "-c must be from 2 to %d tokens", 1 << 24);
    e.chunk = (int)options.n_context;
    e.fast = options.fast;
    code = run_eval(&e, &options, &list, tokens);
    if (!code && interrupted)
        fprintf(stderr, "kvant: interrupted after %" PRId64 " of %" PRId64 " tokens\n", e.rows[0].sample.n, e.n_scored);
    if (!code) {
        if (csv)
            print_csv(&e);
        else
            code = json ? print_json(&e) : print_table(&e);
        if (interrupted) code = 1;
    }
    free_evaluation(&e);
    return code;
}

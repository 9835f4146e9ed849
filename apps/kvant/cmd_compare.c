// SPDX-License-Identifier: MIT
/* cmd_compare.c: one prompt answered with several cache formats, and what each saved and cost.
 *
 * The first format is the reference. Every format answers greedily; then all read the prompt once more in lockstep and their
 * next-token distributions are compared, position by position, every past token read from its own cache.
 *
 * Not here: measuring formats on long texts (cmd_eval.c). */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "divergence.h"
#include "kv_list.h"
#include "options.h"
#include "report.h"

#define MAX_PROMPT ((size_t)16 << 20)
#define STEP 64 /* positions compared at a time: their logits are kept */
#define COMPARED_MAX 1024 /* positions of the prompt, so that a long one does not take minutes */

typedef struct answer {
    kvant_session *session;
    const kv_item *kv;
    size_t cache_bytes;
    double prefill_seconds, decode_seconds;
    int n_decoded;
    divergence_sample sample;
    divergence_summary summary;
} answer;

typedef struct comparison {
    kvant_model *model;
    kvant_model_info info;
    kv_list list;
    answer answers[KV_LIST_MAX];
    int32_t *ids;
    int n_ids, n_predict, n_compared;
    kvant_precision precision;
    float *reference, *weights, *logits; /* [STEP][n_vocab] */
    progress bar;
} comparison;

static bool show_progress(void *user, int64_t done, int64_t total) {
    progress_update(&((comparison *)user)->bar, (double)done, (double)total);
    return true;
}

static int make_prompt(comparison *c, const char *path, const char *question, bool raw) {
    char *text, *prompt = NULL;
    size_t size;
    kvant_error err = {0};
    int code = read_text(path, MAX_PROMPT, &text, &size);
    if (code) return code;
    size_t room = size + strlen(question) + 16;
    char *content = malloc(room);
    if (!content) {
        free(text);
        return fail_with(1, "out of memory");
    }
    snprintf(content, room, "%s%s%s", text, *question ? "\n\n" : "", question);
    free(text);
    kvant_message message = {"user", content};
    kvant_status st = raw ? KVANT_OK : kvant_chat_prompt(c->model, NULL, &message, 1, &prompt, &err);
    const char *whole = raw ? content : prompt;
    if (st == KVANT_OK) st = kvant_tokenize(c->model, whole, strlen(whole), true, !raw, &c->ids, &c->n_ids, &err);
    kvant_string_free(prompt);
    free(content);
    if (st == KVANT_OK && c->n_ids == 0) return fail_with(1, "%s: the prompt is empty", path);
    return st == KVANT_OK ? 0 : fail_with(1, "%s", err.message);
}

static int open_session(comparison *c, answer *a, kvant_precision precision) {
    kvant_session_params p;
    kvant_error err = {0};
    kvant_session_destroy(a->session);
    a->session = NULL;
    kvant_session_params_default(&p);
    p.n_context = c->n_ids + c->n_predict;
    p.precision = precision;
    p.kv = a->kv->name;
    if (kvant_session_create(c->model, &p, &a->session, &err) != KVANT_OK) return fail_with(1, "%s: %s", a->kv->name, err.message);
    return 0;
}

static int32_t most_probable(const float *logits, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* Streams the greedy answer to stdout. */
static int generate(comparison *c, answer *a, kvant_text_stream *stream, kvant_error *err) {
    const char *text;
    size_t size;
    double start = kvant_time_seconds();
    for (int i = 0; i < c->n_predict; i++) {
        int32_t id = most_probable(kvant_session_logits(a->session), c->info.n_vocab);
        if (kvant_token_is_end(c->model, id)) break;
        if (kvant_text_stream_push(stream, id, &text, &size) == KVANT_OK) fwrite(text, 1, size, stdout);
        fflush(stdout);
        if (kvant_session_decode(a->session, id, err) != KVANT_OK) return 1;
        a->n_decoded++;
    }
    a->decode_seconds = kvant_time_seconds() - start;
    if (kvant_text_stream_finish(stream, &text, &size) == KVANT_OK) fwrite(text, 1, size, stdout);
    puts("\n");
    return 0;
}

static int answer_prompt(comparison *c, answer *a) {
    kvant_error err = {0};
    kvant_text_stream *stream = NULL;
    int code = open_session(c, a, c->precision);
    if (code) return code;
    printf("--- answer with cache %s (%.2f bits a value) ---\n", a->kv->name, kv_item_bits(a->kv, c->info.head_dim));
    fflush(stdout);
    progress_begin(&c->bar, "prefill");
    double start = kvant_time_seconds();
    kvant_status st = kvant_session_prefill(a->session, c->ids, c->n_ids, show_progress, c, &err);
    a->prefill_seconds = kvant_time_seconds() - start;
    progress_end(&c->bar);
    if (st == KVANT_OK) st = kvant_text_stream_create(c->model, false, &stream);
    if (st != KVANT_OK) return fail_with(1, "%s: %s", a->kv->name, err.message[0] ? err.message : kvant_status_name(st));
    code = generate(c, a, stream, &err);
    kvant_text_stream_destroy(stream);
    a->cache_bytes = kvant_session_cache_bytes(a->session);
    return code ? fail_with(1, "%s: %s", a->kv->name, err.message) : 0;
}

/* One step of the prompt through every session, against the first one's distributions. */
static int compare_step(comparison *c, int first, int n) {
    size_t n_vocab = (size_t)c->info.n_vocab;
    softmax_row reference[STEP], row;
    kvant_error err = {0};
    for (int f = 0; f < c->list.n; f++) {
        answer *a = &c->answers[f];
        float *logits = f == 0 ? c->reference : c->logits;
        if (kvant_session_step(a->session, c->ids + first, n, logits, &err) != KVANT_OK) return fail_with(1, "%s: %s", a->kv->name, err.message);
        for (int i = 0; i < n; i++) {
            const float *x = logits + (size_t)i * n_vocab;
            float *w = c->weights + (size_t)i * n_vocab;
            softmax_row_init(&row, x, c->info.n_vocab, f == 0 ? w : NULL);
            if (f == 0) reference[i] = row;
            double kl = f == 0 ? 0 : divergence_kl(&reference[i], c->reference + (size_t)i * n_vocab, w, &row, x, c->info.n_vocab);
            if (!divergence_sample_add(&a->sample, kl, row.top == reference[i].top)) return fail_with(1, "out of memory");
        }
    }
    return 0;
}

/* In float32 arithmetic: the rounding of the fast kernels would drown what a good cache costs. */
static int compare_distributions(comparison *c) {
    size_t cells = (size_t)STEP * (size_t)c->info.n_vocab;
    int code = 0;
    c->reference = malloc(cells * sizeof(float));
    c->weights = malloc(cells * sizeof(float));
    c->logits = malloc(cells * sizeof(float));
    if (!c->reference || !c->weights || !c->logits) return fail_with(1, "out of memory");
    for (int f = 0; f < c->list.n && !code; f++)
        code = open_session(c, &c->answers[f], KVANT_EXACT);
    c->n_compared = c->n_ids < COMPARED_MAX ? c->n_ids : COMPARED_MAX;
    progress_begin(&c->bar, "comparing");
    for (int first = 0; first < c->n_compared && !code; first += STEP) {
        code = compare_step(c, first, c->n_compared - first < STEP ? c->n_compared - first : STEP);
        progress_update(&c->bar, first, c->n_compared);
    }
    progress_end(&c->bar);
    for (int f = 0; f < c->list.n && !code; f++)
        if (!divergence_summarize(&c->answers[f].sample, &c->answers[f].summary)) code = fail_with(1, "out of memory");
    return code;
}

static int print_result(const comparison *c) {
    static const char *const header[] = {"cache", "bits a value", "bytes a token", "bytes of cache", "KL divergence", "top-1 agreement",
                                         "prefill tok/s", "decode tok/s"};
    char bytes[32];
    int n_columns = (int)(sizeof header / sizeof *header);
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    for (int i = 0; i < n_columns; i++) table_cell(t, "%s", header[i]);
    for (int f = 0; f < c->list.n; f++) {
        const answer *a = &c->answers[f];
        double bits = kv_item_bits(a->kv, c->info.head_dim);
        table_cell(t, "%s", a->kv->name);
        table_cell(t, "%.2f", bits);
        table_cell(t, "%.0f", bits / 8 * 2 * c->info.n_layer * c->info.n_kv_head * c->info.head_dim);
        table_cell(t, "%s", format_bytes((double)a->cache_bytes, bytes, sizeof bytes));
        if (f == 0) {
            table_cell(t, "reference");
            table_cell(t, "reference");
        } else {
            table_cell(t, "%.3g", a->summary.mean);
            table_cell(t, "%.1f %%", 100 * a->summary.top1);
        }
        table_cell(t, "%.1f", c->n_ids / a->prefill_seconds);
        table_cell(t, "%.1f", a->n_decoded > 0 ? a->n_decoded / a->decode_seconds : 0.0);
    }
    table_print(t, stdout);
    table_destroy(t);
    printf("%d tokens of prompt; divergence (KL, nats, mean) from cache %s at each of the first %d, in float32 arithmetic\n", c->n_ids,
           c->list.items[0].name, c->n_compared);
    return 0;
}

static int run_comparison(comparison *c, const model_options *m, const char *path, const char *question, bool raw) {
    kvant_error err = {0};
    if (kvant_model_open(m->model, &m->load, &c->model, &err) != KVANT_OK) return fail_with(1, "%s", err.message);
    kvant_model_get_info(c->model, &c->info);
    int code = kv_list_check(&c->list, c->info.head_dim);
    if (!code) code = kv_list_calibrate(&c->list, &m->load, c->model);
    if (code) return code;
    print_model_line(c->model);
    code = make_prompt(c, path, question, raw);
    if (code) return code;
    if (c->n_ids + c->n_predict > c->info.n_context_train)
        fprintf(stderr, "kvant: %d tokens of prompt and %d of answer are more than the %" PRId64 " that the model was trained for\n", c->n_ids,
                c->n_predict, c->info.n_context_train);
    for (int f = 0; f < c->list.n && !code; f++) {
        c->answers[f].kv = &c->list.items[f];
        code = answer_prompt(c, &c->answers[f]);
    }
    if (!code) code = compare_distributions(c);
    return code ? code : print_result(c);
}

int cmd_compare(int argc, char **argv) {
    static comparison c;
    model_options m = {0};
    const char *path = NULL, *question = "";
    bool raw = false;
    option flags[64];
    c.n_predict = 96;
    int n = options_add_model(flags, 0, 64, &m);
    flags[n++] = (option){NULL, NULL, OPTION_FLAG, NULL, 0, 0, NULL, "prompt"};
    flags[n++] = (option){"--file", "-f", OPTION_STRING, &path, 0, 0, "FILE", "the text of the prompt, - for stdin"};
    flags[n++] = (option){"--prompt", "-p", OPTION_STRING, &question, 0, 0, "TEXT", "a question that follows the text"};
    flags[n++] = (option){"--raw", NULL, OPTION_FLAG, &raw, 0, 0, NULL, "no chat template"};
    flags[n++] = (option){"--n-predict", "-n", OPTION_INT, &c.n_predict, 1, 1 << 20, "N", "most tokens of an answer (96)"};
    int code = options_parse("kvant compare -m MODEL -f FILE [-p QUESTION] [--kv f16,affine4:64,...]",
                             "Answers one prompt with several cache formats, one after another, and prints what each saved and cost\n"
                             "against the first: bytes, bits, KL divergence, top-1 agreement, speed.",
                             flags, n, argc, argv, NULL, 0, NULL);
    if (code) return code < 0 ? 0 : code;
    if ((code = kv_list_take(&c.list, &m, "f16,small")) != 0) return code;
    if (!m.model) return fail_with(2, "compare needs a model: -m MODEL");
    if (!path) return fail_with(2, "compare needs a text: -f FILE");
    c.precision = m.exact ? KVANT_EXACT : KVANT_FAST;
    code = run_comparison(&c, &m, path, question, raw);
    for (int f = 0; f < c.list.n; f++) {
        kvant_session_destroy(c.answers[f].session);
        divergence_sample_free(&c.answers[f].sample);
    }
    kvant_ids_free(c.ids);
    free(c.reference);
    free(c.weights);
    free(c.logits);
    kvant_model_close(c.model);
    return code;
}

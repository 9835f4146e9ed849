// SPDX-License-Identifier: MIT
/* kv_check.c: see kv_check.h.
 *
 * The session that is checked computes what it would compute without a check: how a prompt is cut into steps changes no bit of
 * its answers. Only the first N tokens cost twice; then the shadow is gone. */
#include "kv_check.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_output.h"
#include "options.h"

#define MAX_STEP 64
#define STEP_BYTES ((size_t)32 << 20) /* of one buffer of logits; there are three */

static int choose_step(int n_vocab, int64_t n_tokens) {
    size_t rows = STEP_BYTES / ((size_t)n_vocab * sizeof(float));
    int step = rows < 1 ? 1 : rows > MAX_STEP ? MAX_STEP : (int)rows;
    return n_tokens < step ? (int)n_tokens : step;
}

int kv_check_begin(kv_check *c, kvant_model *m, kvant_session *session, int64_t n_tokens, kvant_precision precision) {
    kvant_model_info info;
    kvant_session_params p;
    kvant_error err = {0};
    char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
    kvant_model_get_info(m, &info);
    kvant_session_params_default(&p);
    p.n_context = kvant_session_context(session);
    p.precision = precision;
    p.kv = "f16";
    *c = (kv_check){
        .n_wished = n_tokens, .session = session, .n_vocab = info.n_vocab, .step = choose_step(info.n_vocab, n_tokens)};
    kvant_format_name(&info.k, k);
    kvant_format_name(&info.v, v);
    snprintf(c->formats, sizeof c->formats, "%s%s/%s", info.layer_k ? "mostly " : "", k, v);
    if (kvant_session_create(m, &p, &c->shadow, &err) != KVANT_OK) return fail_with(1, "--kv-check: %s", err.message);
    size_t cells = (size_t)c->step * (size_t)c->n_vocab;
    c->logits = malloc(cells * sizeof *c->logits);
    c->reference = malloc(cells * sizeof *c->reference);
    c->weights = malloc((size_t)c->n_vocab * sizeof *c->weights);
    return c->logits && c->reference && c->weights ? 0 : fail_with(1, "--kv-check: out of memory");
}

static void end(kv_check *c) {
    kvant_session_destroy(c->shadow);
    free(c->logits);
    free(c->reference);
    free(c->weights);
    c->shadow = NULL;
    c->logits = c->reference = c->weights = NULL;
}

void kv_check_free(kv_check *c) {
    end(c);
    divergence_sample_free(&c->sample);
}

static int compare(kv_check *c, const float *logits, const float *reference) {
    softmax_row real, shadow;
    softmax_row_init(&shadow, reference, c->n_vocab, c->weights);
    softmax_row_init(&real, logits, c->n_vocab, NULL);
    double kl = divergence_kl(&shadow, reference, c->weights, &real, logits, c->n_vocab);
    if (!divergence_sample_add(&c->sample, kl, real.top == shadow.top)) return fail_with(1, "--kv-check: out of memory");
    return 0;
}

int kv_check_prompt(kv_check *c, const int32_t *ids, int64_t n, kv_check_progress progress, void *user, int64_t *done) {
    kvant_error err = {0};
    int64_t most = n < c->n_wished ? n : c->n_wished;
    *done = 0;
    while (*done < most) {
        int step = most - *done < c->step ? (int)(most - *done) : c->step, code = 0;
        kvant_status st = kvant_session_step(c->session, ids + *done, step, c->logits, &err);
        if (st == KVANT_OK) st = kvant_session_step(c->shadow, ids + *done, step, c->reference, &err);
        if (st != KVANT_OK) return fail_with(1, "%s", err.message);
        for (int i = 0; i < step && !code; i++)
            code = compare(c, c->logits + (size_t)i * (size_t)c->n_vocab, c->reference + (size_t)i * (size_t)c->n_vocab);
        if (code) return code;
        *done += step;
        c->n_prompt = *done;
        if (progress && !progress(user, *done, n) && *done < n)
            return fail_with(1, "interrupted after %" PRId64 " of %" PRId64 " prompt tokens", *done, n);
    }
    if (c->sample.n >= c->n_wished) end(c);
    return 0;
}

int kv_check_token(kv_check *c, int32_t id) {
    kvant_error err = {0};
    if (!c->shadow) return 0;
    if (kvant_session_decode(c->shadow, id, &err) != KVANT_OK) return fail_with(1, "--kv-check: %s", err.message);
    int code = compare(c, kvant_session_logits(c->session), kvant_session_logits(c->shadow));
    if (c->sample.n >= c->n_wished) end(c);
    return code;
}

/* ---- what was found ---- */

int kv_check_print(const kv_check *c, FILE *out) {
    divergence_summary found;
    if (!divergence_summarize(&c->sample, &found)) return fail_with(1, "--kv-check: out of memory");
    if (c->sample.n == 0) return 0;
    fprintf(out,
            "kvant: --kv-check: %s against f16 over %" PRId64 " tokens (%" PRId64 " of the prompt, %" PRId64
            " of the answer): KL divergence %.3g on average, %.3g at most; the most probable token is the same for %.2f %%\n",
            c->formats, c->sample.n, c->n_prompt, c->sample.n - c->n_prompt, found.mean, found.max, 100 * found.top1);
    fputs("kvant: the speeds include the f16 shadow, and float32 arithmetic unless --fast was given\n", out);
    return 0;
}

json_t *kv_check_json(const kv_check *c) {
    divergence_summary found;
    if (!divergence_summarize(&c->sample, &found)) return NULL;
    json_t *root = json_object();
    json_object_set_new(root, "reference", json_string("f16"));
    json_object_set_new(root, "formats", json_text(c->formats));
    json_object_set_new(root, "tokens", json_integer(c->sample.n));
    json_object_set_new(root, "prompt_tokens", json_integer(c->n_prompt));
    json_object_set_new(root, "kl_mean", json_number_or_null(found.mean));
    json_object_set_new(root, "kl_max", json_number_or_null(found.max));
    json_object_set_new(root, "top1", json_number_or_null(found.top1));
    return root;
}

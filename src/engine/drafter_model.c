// SPDX-License-Identifier: MIT
/* drafter_model.c: a smaller model guesses: its most probable tokens, one after the other, in a session of its own.
 *
 * Before each guess its session is brought to the tokens so far: what differs is taken back, what is missing is read. It stops early
 * where it is unsure itself: such a guess is wrong more often than it is worth a row. */
#include <math.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/drafter.h"
#include "engine/session.h"

#define SURE 0.5      /* the least probability of a guess in the draft's own eyes: on code, a 0.5B model's guesses for a 1.5B one were
                       * right in 94 of 100 cases above it and in 47 below; from 0.3 to 0.5 speeds are about the same */
#define NEGLIGIBLE 16 /* a logit so far below the largest has no weight */
#define USUALLY_NEW 2 /* tokens that are read before a guess even where nothing was missed: all were right, or one was not */

typedef struct model_drafter {
    kvant_drafter base;
    kvant_session *session;
    int n_vocab;
    double token_seconds; /* of reading one token among several, smoothed; 0: not known */
} model_drafter;

/* ---- the vocabulary ---- */

static const kvant_gguf_value *tokens_of(const kvant_model *m) {
    const kvant_gguf_value *v = kvant_gguf_find(m->file, "tokenizer.ggml.tokens");
    return v && v->type == KVANT_GGUF_ARRAY && v->element_type == KVANT_GGUF_STRING ? v : NULL;
}

#define SHOWN_MAX 48
/* A token's text for a sentence: cut, without bytes that would spoil a line. */
static const char *show_token(const kvant_gguf_value *v, uint64_t id, char out[SHOWN_MAX + 3]) {
    kvant_text t = kvant_gguf_array_string(v, id);
    size_t n = 0;
    out[n++] = '"';
    for (size_t i = 0; i < t.size && n < SHOWN_MAX; i++) out[n++] = (unsigned char)t.data[i] < 32 ? '?' : t.data[i];
    while (t.size >= SHOWN_MAX && n > 1 && (unsigned char)out[n - 1] >= 0x80) n--; /* no half characters */
    out[n++] = '"';
    out[n] = '\0';
    return out;
}

static bool same_text(kvant_text a, kvant_text b) {
    if (a.size != b.size) return false;
    for (size_t i = 0; i < a.size; i++)
        if (a.data[i] != b.data[i]) return false;
    return true;
}

/* Guesses are ids: every id must mean the same text to both. */
static kvant_status compare_vocabularies(const kvant_model *m, const kvant_model *draft, kvant_error *err) {
    const kvant_gguf_value *a = tokens_of(m), *b = tokens_of(draft);
    char text_a[SHOWN_MAX + 3], text_b[SHOWN_MAX + 3];
    if (!a != !b)
        return kvant_fail(err, KVANT_EINVAL, "draft: %s has a vocabulary and %s has none; a draft needs the vocabulary of the model",
                          a ? m->path : draft->path, a ? draft->path : m->path);
    for (uint64_t i = 0; a && i < a->n_elements && i < b->n_elements; i++)
        if (!same_text(kvant_gguf_array_string(a, i), kvant_gguf_array_string(b, i)))
            return kvant_fail(err, KVANT_EINVAL, "draft: token %llu is %s in %s, but %s in %s; a draft needs the vocabulary of the model",
                              (unsigned long long)i, show_token(b, i, text_b), draft->path, show_token(a, i, text_a), m->path);
    long long n_a = a ? (long long)a->n_elements : m->info.n_vocab, n_b = b ? (long long)b->n_elements : draft->info.n_vocab;
    if (n_a == n_b) n_a = m->info.n_vocab, n_b = draft->info.n_vocab;
    if (n_a == n_b) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "draft: %s has %lld tokens, but %s has %lld: token %lld is the first that only one of them has; "
                      "a draft needs the vocabulary of the model", draft->path, n_b, m->path, n_a, n_a < n_b ? n_a : n_b);
}

/* ---- guessing ---- */

/* The tokens at the beginning that its session has of the tokens so far. */
static int64_t in_common(const kvant_session *s, kvant_draft_text t) {
    const int32_t *own = kvant_session_tokens(s);
    int64_t n = kvant_session_length(s), same = 0;
    while (same < n && same < t.n && own[same] == t.ids[same]) same++;
    if (same == t.n && same < n && own[same] == t.last) same++;
    return same;
}

/* Takes back what is not, or no longer, among the tokens so far. */
static kvant_status take_back(model_drafter *d, kvant_draft_text t, int64_t *same, kvant_error *err) {
    if (*same == t.n + 1) --*same; /* the last token is read again: its logits are needed */
    if (*same == kvant_session_length(d->session)) return KVANT_OK;
    if (kvant_session_truncate(d->session, *same, NULL) == KVANT_OK) return KVANT_OK;
    *same = 0; /* a window has dropped what they would see */
    return kvant_session_truncate(d->session, 0, err);
}

/* Afterwards the session has all tokens so far, and can be brought back to here whatever it guesses. */
static kvant_status catch_up(model_drafter *d, kvant_draft_text t, kvant_error *err) {
    int64_t same = in_common(d->session, t);
    if (same == t.n + 1 && same == kvant_session_length(d->session) && kvant_session_logits(d->session)) return KVANT_OK;
    double started = kvant_clock_seconds();
    KVANT_TRY(take_back(d, t, &same, err));
    kvant_sequence_hold(kvant_session_sequence(d->session), t.n);
    int64_t n = t.n + 1 - same;
    if (n > 1) KVANT_TRY(kvant_session_prefill(d->session, t.ids + same, n - 1, NULL, NULL, err));
    KVANT_TRY(kvant_session_decode(d->session, t.last, err));
    if (n > 4 * USUALLY_NEW) d->token_seconds = (kvant_clock_seconds() - started) / (double)n;
    return KVANT_OK;
}

static kvant_status prepare(kvant_drafter *base, kvant_draft_text t, kvant_error *err) {
    model_drafter *d = (model_drafter *)(void *)base;
    return catch_up(d, t, err);
}

static double expect(const kvant_drafter *base, kvant_draft_text t) {
    const model_drafter *d = (const model_drafter *)(const void *)base;
    int64_t n = t.n + 1 - in_common(d->session, t);
    return n > USUALLY_NEW ? (double)(n - USUALLY_NEW) * d->token_seconds : 0;
}

/* The most probable token, or -1 when it is not probable enough. */
static int32_t most_probable(const float *logits, int n, bool even_unsure) {
    int32_t best = 0;
    double sum = 0;
    for (int32_t i = 1; i < n; i++)
        if (logits[i] > logits[best]) best = i;
    if (even_unsure) return best;
    for (int32_t i = 0; i < n; i++)
        if (logits[i] > logits[best] - NEGLIGIBLE) sum += exp((double)logits[i] - (double)logits[best]);
    return sum > 0 && 1 / sum >= SURE ? best : -1;
}

static kvant_status guess(kvant_drafter *base, kvant_draft_text t, int n_most, int32_t *ids, int *n, kvant_error *err) {
    model_drafter *d = (model_drafter *)(void *)base;
    *n = 0;
    KVANT_TRY(catch_up(d, t, err));
    while (*n < n_most) {
        int32_t id = most_probable(kvant_session_logits(d->session), d->n_vocab, base->even_unsure);
        if (id < 0) break;
        ids[(*n)++] = id;
        if (*n == n_most || kvant_token_is_end(d->session->model, id)) break;
        KVANT_TRY(kvant_session_decode(d->session, id, err));
    }
    return KVANT_OK;
}

static void destroy(kvant_drafter *base) {
    model_drafter *d = (model_drafter *)(void *)base;
    kvant_session_destroy(d->session);
    kvant_free(d);
}

kvant_status kvant_drafter_model_create(const kvant_model *target, kvant_model *model, const char *kv, int64_t n_context,
                                        kvant_drafter **out, kvant_error *err) {
    KVANT_TRY(compare_vocabularies(target, model, err));
    model_drafter *d = kvant_alloc(1, sizeof *d);
    if (!d) return kvant_fail(err, KVANT_ENOMEM, "draft: out of memory");
    *d = (model_drafter){.base = {prepare, expect, guess, destroy, false}, .n_vocab = model->info.n_vocab};
    kvant_session_params params;
    kvant_session_params_default(&params);
    params.n_context = n_context;
    params.kv = kv;
    kvant_status st = kvant_session_create(model, &params, &d->session, err);
    if (st != KVANT_OK) {
        kvant_free(d);
        return st;
    }
    *out = &d->base;
    return KVANT_OK;
}

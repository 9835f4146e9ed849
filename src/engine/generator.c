// SPDX-License-Identifier: MIT
/* generator.c: a session and a sampler -> the tokens of an answer, several a step where a draft guesses them.
 *
 * The last token that was handed out is pending: it is read with the next call, so a token that ends the answer is never read for
 * nothing. With a draft a call is a round: one step reads the pending token and the guesses, d[1..k], and gives k + 1 rows. The first
 * row is sampled; when that gives d[1], the second row is what a step of one token would have computed after it, and is sampled too,
 * and so on. The first token that is no guess ends the round, and what was read beyond is taken back. The sampler is called once a
 * token, on the same rows as without a draft, so the answer is the same.
 *
 * Where taking back is not possible, nothing is guessed: see guesses_allowed. How much is guessed: drafter_pace.c. */
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "cache/page.h"
#include "engine/drafter.h"
#include "engine/generator.h"
#include "engine/session.h"

struct kvant_generator {
    kvant_session *session;
    kvant_sampler *sampler;
    bool has_pending;
    int32_t pending;        /* sampled and handed out, not yet in the session */
    kvant_drafter *drafter; /* NULL: none */
    bool prepared;          /* the drafter has read the prompt of this answer */
    bool always;            /* guesses need not pay */
    kvant_draft_pace pace;
    kvant_draft_stats stats;
    float *rows;                        /* [pace.n_most + 1][n_vocab] */
    int32_t step[KVANT_DRAFT_MAX + 1];  /* what a round reads: the pending token, then guesses */
    int32_t next[KVANT_DRAFT_MAX + 1];  /* what a call hands out */
    kvant_token_report reports[KVANT_DRAFT_MAX + 1]; /* of these, where the sampler keeps reports */
};

/* ---- creating ---- */

static kvant_status create_draft(kvant_generator *g, const kvant_draft_params *draft, kvant_error *err) {
    kvant_session *s = g->session;
    const kvant_cache *cache = s->sequence->cache;
    if (draft->n_draft < 1 || draft->n_draft > KVANT_DRAFT_MAX)
        return kvant_fail(err, KVANT_EINVAL, "n_draft: found %d, expected 1 to %d", draft->n_draft, KVANT_DRAFT_MAX);
    if (cache->quantizes && cache->config.quantize_after_step && cache->config.quantized_kv_start == 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "draft: with mlx's order a quantized cache depends on how tokens are divided into "
                          "steps, so a draft would change the answer; leave one of them out");
    int n = draft->n_draft < s->model->prefill_step_size ? draft->n_draft : s->model->prefill_step_size - 1;
    kvant_draft_pace_init(&g->pace, n);
    g->rows = kvant_alloc_aligned((size_t)(n + 1), (size_t)s->model->info.n_vocab * sizeof *g->rows);
    if (!g->rows) return kvant_fail(err, KVANT_ENOMEM, "generator: out of memory");
    if (!draft->model) return kvant_drafter_ngram_create(&g->drafter, err);
    return kvant_drafter_model_create(s->model, draft->model, draft->kv, s->n_context, &g->drafter, err);
}

kvant_status kvant_generator_create(kvant_session *s, kvant_sampler *sampler, const kvant_draft_params *draft, kvant_generator **out,
                                    kvant_error *err) {
    kvant_generator *g = kvant_alloc(1, sizeof *g);
    if (!g) return kvant_fail(err, KVANT_ENOMEM, "generator: out of memory");
    g->session = s;
    g->sampler = sampler;
    kvant_status st = draft ? create_draft(g, draft, err) : KVANT_OK;
    if (st != KVANT_OK) {
        kvant_generator_destroy(g);
        return st;
    }
    *out = g;
    return KVANT_OK;
}

void kvant_generator_destroy(kvant_generator *g) {
    if (!g) return;
    if (g->drafter) g->drafter->destroy(g->drafter);
    kvant_free_aligned(g->rows);
    kvant_free(g);
}

/* ---- a round ---- */

/* How many guesses can be read after the pending token so that a call hands out at most `room` tokens, and all can be taken back. */
static int64_t guesses_allowed(const kvant_generator *g, int64_t room) {
    const kvant_session *s = g->session;
    const kvant_cache *cache = s->sequence->cache;
    int64_t length = kvant_session_length(s), most = room - 1, start = cache->config.quantized_kv_start;
    if (most > s->n_context - length - 1) most = s->n_context - length - 1;
    if (most > g->pace.n_most) most = g->pace.n_most;
    if (!cache->quantizes) return most;
    /* A conversion at quantized_kv_start cannot be taken back. Behind it all is as before, except in mlx's order, where the tokens
     * of a step see each other in full precision. */
    if (length >= start && !cache->config.quantize_after_step) return most;
    int64_t below = start - length - 2; /* with the pending token the step stays one short of start */
    return most < below ? most : below;
}

/* The tokens of the next step, the pending one first: *n of them. *seconds: what guessing took. */
static kvant_status guess(kvant_generator *g, int64_t room, int *asked, int *n, double *seconds, kvant_error *err) {
    kvant_draft_text t = {kvant_session_tokens(g->session), kvant_session_length(g->session), g->pending};
    g->step[0] = g->pending;
    *n = 1;
    *asked = 0;
    *seconds = 0;
    if (!g->drafter) return KVANT_OK;
    int64_t allowed = guesses_allowed(g, room);
    if (allowed < 1) return KVANT_OK;
    if (!g->prepared && g->drafter->prepare) KVANT_TRY(g->drafter->prepare(g->drafter, t, err));
    g->prepared = true;
    double extra = g->drafter->expect ? g->drafter->expect(g->drafter, t) : 0;
    int wanted = g->always ? g->pace.n_most : kvant_draft_pace_choose(&g->pace, extra), n_guess = 0;
    if (wanted > allowed) wanted = (int)allowed;
    if (wanted < 1) return KVANT_OK;
    double started = kvant_clock_seconds();
    KVANT_TRY(g->drafter->guess(g->drafter, t, wanted, g->step + 1, &n_guess, err));
    *seconds = kvant_clock_seconds() - started;
    *asked = wanted;
    /* Nothing is answered after an end token, and no patches of pictures. */
    for (int i = 1; i <= n_guess && *n == i && g->step[i] >= 0; i++)
        if (i == 1 || !kvant_token_is_end(g->session->model, g->step[i - 1])) *n = i + 1;
    return KVANT_OK;
}

static int32_t sample(kvant_generator *g, int index, const float *row) {
    g->next[index] = kvant_sampler_next(g->sampler, row);
    const kvant_token_report *report = kvant_sampler_last_report(g->sampler);
    if (report) g->reports[index] = *report;
    return g->next[index];
}

const kvant_token_report *kvant_generator_report(const kvant_generator *g, int index) {
    return kvant_sampler_last_report(g->sampler) ? &g->reports[index] : NULL;
}

/* The tokens that the rows of a step give, while they are the guesses: how many; the last one is not read. */
static int sample_rows(kvant_generator *g, int n_rows, int *n_right) {
    size_t n_vocab = (size_t)g->session->model->info.n_vocab;
    *n_right = 0;
    for (int i = 0;; i++) {
        int32_t id = sample(g, i, g->rows + (size_t)i * n_vocab);
        if (i + 1 == n_rows || id != g->step[i + 1]) return i + 1;
        ++*n_right;
        if (kvant_token_is_end(g->session->model, id)) return i + 1;
    }
}

/* The session goes back to n_tokens, whose last row of logits is `row`. */
static kvant_status take_back(kvant_session *s, int64_t n_tokens, const float *row, kvant_error *err) {
    if (n_tokens == kvant_session_length(s)) return KVANT_OK;
    KVANT_TRY(kvant_session_truncate(s, n_tokens, err));
    memcpy(s->logits, row, (size_t)s->model->info.n_vocab * sizeof *row);
    s->has_logits = true;
    return KVANT_OK;
}

/* Reads step [n] and samples: *made tokens in g->next; 0 where there is no room for all of them. */
static kvant_status check_guesses(kvant_generator *g, int n, int *made, int *n_right, kvant_error *err) {
    kvant_session *s = g->session;
    int64_t length = kvant_session_length(s);
    *made = 0;
    kvant_sequence_hold(s->sequence, length);
    s->sequence->one_by_one = true;
    kvant_status st = kvant_session_step(s, g->step, n, g->rows, err);
    s->sequence->one_by_one = false;
    if (st == KVANT_OK) {
        *made = sample_rows(g, n, n_right);
        st = take_back(s, length + *made, g->rows + (size_t)(*made - 1) * (size_t)s->model->info.n_vocab, err);
    } else if (st == KVANT_EFULL || st == KVANT_ENOMEM) {
        st = KVANT_OK; /* one may fit */
    }
    kvant_sequence_hold(s->sequence, -1);
    return st;
}

static kvant_status sample_one(kvant_generator *g, kvant_error *err) {
    const float *logits = kvant_session_logits(g->session);
    if (!logits) return kvant_fail(err, KVANT_EINVAL, "generator: the session has read no prompt, or was truncated since");
    (void)sample(g, 0, logits);
    return KVANT_OK;
}

static kvant_status run_round(kvant_generator *g, int64_t room, int *made, kvant_error *err) {
    int asked, n, n_right = 0;
    double guessing, started;
    KVANT_TRY(guess(g, room, &asked, &n, &guessing, err));
    started = kvant_clock_seconds();
    *made = 0;
    if (n > 1) KVANT_TRY(check_guesses(g, n, made, &n_right, err));
    if (*made > 0) {
        g->stats.n_rounds++;
        g->stats.n_drafted += n - 1;
        g->stats.n_accepted += n_right;
    } else {
        KVANT_TRY(kvant_session_decode(g->session, g->pending, err));
        KVANT_TRY(sample_one(g, err));
        *made = n = 1;
    }
    if (g->drafter) kvant_draft_pace_round(&g->pace, asked, n - 1, n_right, guessing, kvant_clock_seconds() - started);
    return KVANT_OK;
}

kvant_status kvant_generator_next(kvant_generator *g, int64_t room, const int32_t **ids, int *n, kvant_error *err) {
    if (room < 1) return kvant_fail(err, KVANT_EINVAL, "generator: found room for %lld tokens, expected 1 or more", (long long)room);
    *n = 1;
    KVANT_TRY(g->has_pending ? run_round(g, room, n, err) : sample_one(g, err));
    g->pending = g->next[*n - 1];
    g->has_pending = true;
    *ids = g->next;
    return KVANT_OK;
}

kvant_status kvant_generator_finish(kvant_generator *g, kvant_error *err) {
    if (!g->has_pending) return KVANT_OK;
    KVANT_TRY(kvant_session_decode(g->session, g->pending, err));
    g->has_pending = g->prepared = false;
    return KVANT_OK;
}

kvant_draft_stats kvant_generator_get_stats(const kvant_generator *g) { return g->stats; }

void kvant_generator_guess_always(kvant_generator *g) {
    g->always = true;
    if (g->drafter) g->drafter->even_unsure = true;
}

// SPDX-License-Identifier: MIT
/* sampler.c: logits -> the next token.
 *
 * Order: repeat penalty; temperature 0 takes the most probable token; else top_p, min_p, top_k, temperature, and one draw
 * (mlx-lm's order). Candidates are found by partial selection: a heap gives tokens in falling order only as far as needed. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "base/status.h"
#include "engine/sampler.h"

#define LAST_N_MAX 65536

typedef struct candidate {
    float logit;
    int32_t id;
} candidate;

struct kvant_sampler {
    kvant_sampler_params params;
    int n_vocab;
    uint64_t state;        /* splitmix64 */
    candidate *candidates; /* [n_vocab] */
    double *weights;       /* [n_vocab] */
    int32_t *recent;       /* ring of repeat_last_n ids */
    int n_recent, next_recent;
    int n_top;             /* of the report; -1: none */
    kvant_token_report report;
};

void kvant_sampler_params_default(kvant_sampler_params *p) {
    *p = (kvant_sampler_params){.top_p = 1.0f, .repeat_penalty = 1.0f, .repeat_last_n = 64};
}

static kvant_status check_range(const char *field, double found, double min, double max, kvant_error *err) {
    if (found >= min && found <= max) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "%s: found %g, expected %g to %g", field, found, min, max);
}

kvant_status kvant_sampler_create(const kvant_sampler_params *params, int n_vocab, kvant_sampler **out, kvant_error *err) {
    KVANT_TRY(check_range("n_vocab", n_vocab, 1, 1 << 26, err));
    KVANT_TRY(check_range("temperature", params->temperature, 0, 100, err));
    KVANT_TRY(check_range("top_k", params->top_k, 0, 1 << 26, err));
    KVANT_TRY(check_range("top_p", params->top_p, 0, 1, err));
    KVANT_TRY(check_range("min_p", params->min_p, 0, 1, err));
    KVANT_TRY(check_range("repeat_penalty", params->repeat_penalty, 0.01, 100, err));
    KVANT_TRY(check_range("repeat_last_n", params->repeat_last_n, 0, LAST_N_MAX, err));
    kvant_sampler *s = kvant_alloc(1, sizeof *s);
    if (!s) return kvant_fail(err, KVANT_ENOMEM, "sampler: out of memory");
    *s = (kvant_sampler){.params = *params, .n_vocab = n_vocab, .state = params->seed, .n_top = -1};
    s->candidates = kvant_alloc((size_t)n_vocab, sizeof *s->candidates);
    s->weights = kvant_alloc((size_t)n_vocab, sizeof *s->weights);
    s->recent = kvant_alloc((size_t)params->repeat_last_n, sizeof *s->recent);
    if (!s->candidates || !s->weights || !s->recent) {
        kvant_sampler_destroy(s);
        return kvant_fail(err, KVANT_ENOMEM, "sampler: out of memory");
    }
    *out = s;
    return KVANT_OK;
}

void kvant_sampler_destroy(kvant_sampler *s) {
    if (!s) return;
    kvant_free(s->candidates);
    kvant_free(s->weights);
    kvant_free(s->recent);
    kvant_free(s);
}

void kvant_sampler_accept(kvant_sampler *s, int32_t id) {
    int n = s->params.repeat_last_n;
    if (n == 0) return;
    s->recent[s->next_recent] = id;
    s->next_recent = (s->next_recent + 1) % n;
    if (s->n_recent < n) s->n_recent++;
}

/* Uniform in [0, 1): splitmix64 (Steele, Lea, Flood 2014). */
static double draw(kvant_sampler *s) {
    uint64_t z = s->state += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

static bool before(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

static void sift_down(candidate *heap, int n, int i) {
    candidate moved = heap[i];
    for (int child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child + 1], heap[child])) child++;
        if (!before(heap[child], moved)) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

/* Logits as candidates, what is not a number last; a token among the recent ones is penalised once. */
static void fill_candidates(kvant_sampler *s, const float *logits) {
    for (int i = 0; i < s->n_vocab; i++) s->candidates[i] = (candidate){isnan(logits[i]) ? -INFINITY : logits[i], i};
    if (s->params.repeat_penalty == 1.0f) return;
    for (int i = 0; i < s->n_recent; i++) {
        int32_t id = s->recent[i];
        if (id < 0 || id >= s->n_vocab) continue;
        float logit = isnan(logits[id]) ? -INFINITY : logits[id];
        s->candidates[id].logit = logit > 0 ? logit / s->params.repeat_penalty : logit * s->params.repeat_penalty;
    }
}

static int32_t most_probable(const kvant_sampler *s) {
    candidate best = s->candidates[0];
    for (int i = 1; i < s->n_vocab; i++)
        if (before(s->candidates[i], best)) best = s->candidates[i];
    return best.id;
}

/* Takes candidates in falling order until one of the limits ends the list; they end up at candidates[n_vocab - 1], [n_vocab - 2], ...
 * and their number is returned, at least 1. */
static int take_nucleus(kvant_sampler *s) {
    const kvant_sampler_params *p = &s->params;
    candidate *c = s->candidates;
    int n = s->n_vocab, limit = p->top_k > 0 && p->top_k < n ? p->top_k : n, taken = 0;
    for (int i = n / 2 - 1; i >= 0; i--) sift_down(c, n, i);
    double max = c[0].logit, total = 0, sum = 0;
    for (int i = 0; i < n; i++) total += exp(c[i].logit - max);
    while (taken < limit) {
        candidate top = c[0];
        double p_top = exp(top.logit - max);
        if (taken > 0 && ((p->top_p < 1.0f && sum >= p->top_p * total) || p_top < p->min_p)) break;
        int last = n - 1 - taken;
        c[0] = c[last];
        c[last] = top;
        taken++;
        sum += p_top;
        if (last > 0) sift_down(c, last, 0);
    }
    return taken;
}

static int32_t sample(kvant_sampler *s) {
    int n = s->n_vocab, taken = n;
    bool limited = s->params.top_k > 0 || s->params.top_p < 1.0f || s->params.min_p > 0;
    if (limited) taken = take_nucleus(s);
    const candidate *last = &s->candidates[n - 1];
    float max = last->logit;
    for (int i = 0; !limited && i < n; i++)
        if (s->candidates[i].logit > max) max = s->candidates[i].logit;
    if (isinf(max)) return most_probable(s); /* nothing to compare with, or nothing at all */
    double total = 0;
    for (int i = 0; i < taken; i++) total += s->weights[i] = exp(((double)last[-i].logit - max) / s->params.temperature);
    double target = draw(s) * total;
    for (int i = 0; i < taken; i++) {
        target -= s->weights[i];
        if (target < 0) return last[-i].id;
    }
    for (int i = taken - 1; i > 0; i--) /* rounding left a little of the total: the last token that has any weight */
        if (s->weights[i] > 0) return last[-i].id;
    return last->id;
}

/* ---- the report ---- */

static void insert_top(kvant_token_report *r, int n_top, candidate c) {
    if (r->n_top == n_top && (n_top == 0 || c.logit <= r->top[n_top - 1].logprob)) return;
    int at = r->n_top < n_top ? r->n_top++ : n_top - 1;
    for (; at > 0 && r->top[at - 1].logprob < c.logit; at--)
        r->top[at] = r->top[at - 1];
    r->top[at] = (kvant_token_logprob){c.id, c.logit};
}

/* Before candidates are moved; logits, until their logarithm of the sum is known. */
static double report_top(kvant_sampler *s) {
    kvant_token_report *r = &s->report;
    float max = s->candidates[most_probable(s)].logit;
    double total = 0;
    r->n_top = 0;
    for (int i = 0; i < s->n_vocab; i++) {
        total += exp((double)s->candidates[i].logit - max);
        insert_top(r, s->n_top, s->candidates[i]);
    }
    double log_total = max + log(total);
    for (int i = 0; i < r->n_top; i++)
        r->top[i].logprob = (float)(r->top[i].logprob - log_total);
    return log_total;
}

void kvant_sampler_keep_report(kvant_sampler *s, int n_top) { s->n_top = n_top; }

const kvant_token_report *kvant_sampler_last_report(const kvant_sampler *s) { return s->n_top >= 0 ? &s->report : NULL; }

static float penalised(const kvant_sampler *s, const float *logits, int32_t id) {
    float logit = isnan(logits[id]) ? -INFINITY : logits[id];
    if (s->params.repeat_penalty == 1.0f) return logit;
    for (int i = 0; i < s->n_recent; i++)
        if (s->recent[i] == id) return logit > 0 ? logit / s->params.repeat_penalty : logit * s->params.repeat_penalty;
    return logit;
}

int32_t kvant_sampler_next(kvant_sampler *s, const float *logits) {
    fill_candidates(s, logits);
    double log_total = s->n_top >= 0 ? report_top(s) : 0;
    int32_t id = s->params.temperature > 0 ? sample(s) : most_probable(s);
    if (s->n_top >= 0) s->report.logprob = (float)(penalised(s, logits, id) - log_total);
    kvant_sampler_accept(s, id);
    return id;
}

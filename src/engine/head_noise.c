// SPDX-License-Identifier: MIT
/* head_noise.c: the noise that a format adds to the logits of attention, and to its output, KV head by KV head.
 *
 * Attention's divergence is about half the variance of the noise of its logits; a shift of all of them cancels in the softmax, so
 * the variance over keys is what counts. One KV head with a variance of tens answers at random, whatever the rest of the model
 * does: that is what the check of a session looks for. Figures are of this text and these queries, in float32, without what the
 * fast kernels round. */
#include "engine/head_noise.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"

#define KEYS_MIN 8 /* a variance of fewer says little */

struct kvant_head_noise {
    int n_layer, n_head, n_kv_head, head_dim;
    int n_tokens, stride;
    float scale, softcap;
    int *window;                /* [n_layer] */
    float *k, *v;               /* [n_layer][n_tokens][n_kv_head][head_dim]; v NULL: not kept */
    float *q;                   /* [n_layer][n_tokens / stride][n_head][head_dim] */
    float *k_stored, *v_stored; /* [n_tokens][head_dim]: of the head that is measured */
    float *exact, *noisy;       /* [n_tokens]: logits of one query */
    float *out, *difference;    /* [head_dim]: of attention */
    bool *is_stored;            /* [n_tokens] */
};

static float *floats(size_t a, size_t b, size_t c) {
    size_t n;
    return kvant_mul_size(a, b, &n) && kvant_mul_size(n, c, &n) ? kvant_alloc(n, sizeof(float)) : NULL;
}

kvant_status kvant_head_noise_create(const kvant_decoder_info *model, int n_tokens, int query_stride, bool values,
                                     kvant_head_noise **out, kvant_error *err) {
    if (n_tokens < 1 || n_tokens > KVANT_HEAD_NOISE_TOKENS_MAX)
        return kvant_fail(err, KVANT_EINVAL, "head noise: found %d tokens, expected 1 to %d", n_tokens,
                          KVANT_HEAD_NOISE_TOKENS_MAX);
    size_t layers = (size_t)model->n_layer, n = (size_t)n_tokens, d = (size_t)model->head_dim,
           n_kv = (size_t)model->n_kv_head * d;
    size_t n_queries = (size_t)(n_tokens / query_stride) + 1;
    kvant_head_noise *h = kvant_alloc(1, sizeof *h);
    if (!h) return kvant_fail(err, KVANT_ENOMEM, "head noise: out of memory");
    *h = (kvant_head_noise){.n_layer = model->n_layer,
                            .n_head = model->n_head,
                            .n_kv_head = model->n_kv_head,
                            .head_dim = model->head_dim,
                            .n_tokens = n_tokens,
                            .stride = query_stride,
                            .scale = model->attention_scale,
                            .softcap = model->attention_softcap,
                            .window = kvant_alloc(layers, sizeof(int)),
                            .k = floats(layers, n, n_kv),
                            .v = values ? floats(layers, n, n_kv) : NULL,
                            .q = floats(layers, n_queries, (size_t)model->n_head * d),
                            .k_stored = floats(n, d, 1),
                            .v_stored = floats(n, d, 1),
                            .exact = floats(n, 1, 1),
                            .noisy = floats(n, 1, 1),
                            .out = floats(d, 1, 1),
                            .difference = floats(d, 1, 1),
                            .is_stored = kvant_alloc(n, sizeof(bool))};
    bool failed = !h->window || !h->k || (values && !h->v) || !h->q || !h->k_stored || !h->v_stored || !h->exact || !h->noisy ||
                  !h->out || !h->difference || !h->is_stored;
    if (failed) {
        kvant_head_noise_destroy(h);
        return kvant_fail(err, KVANT_ENOMEM, "head noise: not enough memory for the keys of %d tokens", n_tokens);
    }
    for (int i = 0; i < model->n_layer; i++)
        h->window[i] = model->layer_window ? model->layer_window[i] : 0;
    *out = h;
    return KVANT_OK;
}

void kvant_head_noise_destroy(kvant_head_noise *h) {
    if (!h) return;
    float *parts[] = {h->k, h->v, h->q, h->k_stored, h->v_stored, h->exact, h->noisy, h->out, h->difference};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        kvant_free(parts[i]);
    kvant_free(h->window);
    kvant_free(h->is_stored);
    kvant_free(h);
}

int kvant_head_noise_tokens(const kvant_head_noise *h) { return h->n_tokens; }

/* ---- recording ---- */

static size_t n_queries(const kvant_head_noise *h) { return (size_t)(h->n_tokens / h->stride); }

kvant_status kvant_head_noise_observe(void *recorder, int layer, int64_t first_position, const float *k, const float *v,
                                      const float *q, int n) {
    kvant_head_noise *h = recorder;
    if (layer < 0 || layer >= h->n_layer || first_position < 0) return KVANT_EINVAL;
    if (first_position >= h->n_tokens) return KVANT_OK;
    if (n > h->n_tokens - first_position) n = (int)(h->n_tokens - first_position);
    size_t n_kv = (size_t)h->n_kv_head * (size_t)h->head_dim, n_q = (size_t)h->n_head * (size_t)h->head_dim;
    size_t at = ((size_t)layer * (size_t)h->n_tokens + (size_t)first_position) * n_kv;
    memcpy(h->k + at, k, (size_t)n * n_kv * sizeof *k);
    if (h->v) memcpy(h->v + at, v, (size_t)n * n_kv * sizeof *v);
    for (int i = 0; i < n; i++) {
        int64_t next = first_position + i + 1;
        if (next % h->stride != 0) continue;
        size_t row = (size_t)layer * n_queries(h) + (size_t)(next / h->stride - 1);
        memcpy(h->q + row * n_q, q + (size_t)i * n_q, n_q * sizeof *q);
    }
    return KVANT_OK;
}

/* ---- measuring ---- */

/* A KV head while it is measured. */
typedef struct head {
    kvant_head_noise *h;
    int layer, kv_head, n;    /* n: tokens that are there */
    int key_stride, keys_min; /* of which every so many are looked at; queries that see fewer say nothing */
    double variance;          /* summed over n_query queries */
    int64_t n_query;
    double out, difference; /* energies of attention's output, and of what is wrong with it */
} head;

static const float *row_of(const head *t, const float *x, int token) {
    const kvant_head_noise *h = t->h;
    size_t row = ((size_t)t->layer * (size_t)h->n_tokens + (size_t)token) * (size_t)h->n_kv_head + (size_t)t->kv_head;
    return x + row * (size_t)h->head_dim;
}

static float dot(const float *a, const float *b, int n) {
    float lane[8] = {0}; /* sums that a compiler can keep in one register */
    int i = 0;
    for (; i + 8 <= n; i += 8)
        for (int j = 0; j < 8; j++)
            lane[j] += a[i + j] * b[i + j];
    float sum = (lane[0] + lane[4]) + (lane[1] + lane[5]) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
    for (; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static float logit(const kvant_head_noise *h, const float *q, const float *k) {
    float x = h->scale * dot(q, k, h->head_dim);
    return h->softcap > 0 ? h->softcap * tanhf(x / h->softcap) : x;
}

/* Tokens [first, p] of one query: logits of exact and of stored keys, and the variance of their difference. The first tokens are
 * left out of the variance: they look like no others, and most formats keep them. false: too few keys to say anything. */
static bool compare_logits(head *t, const float *q, int first, int p) {
    kvant_head_noise *h = t->h;
    double sum = 0, square = 0;
    int n = 0;
    for (int i = first; i <= p; i++) {
        if (!h->is_stored[i]) continue;
        h->exact[i] = logit(h, q, row_of(t, h->k, i));
        h->noisy[i] = logit(h, q, h->k_stored + (size_t)i * (size_t)h->head_dim);
        if (i < KVANT_SINK_TOKENS) continue;
        double noise = (double)h->noisy[i] - h->exact[i];
        sum += noise;
        square += noise * noise;
        n++;
    }
    if (n < t->keys_min) return false;
    double variance = square / n - sum / n * (sum / n);
    t->variance += variance < 0 ? 0 : variance; /* what is not a number stays so */
    t->n_query++;
    return true;
}

/* One query attends with the weights of exact keys to exact and to stored values. */
static void compare_outputs(head *t, int first, int p) {
    kvant_head_noise *h = t->h;
    int d = h->head_dim;
    float most = -INFINITY;
    double total = 0, out = 0, difference = 0;
    for (int i = first; i <= p; i++)
        if (h->is_stored[i] && h->exact[i] > most) most = h->exact[i];
    memset(h->out, 0, (size_t)d * sizeof *h->out);
    memset(h->difference, 0, (size_t)d * sizeof *h->difference);
    for (int i = first; i <= p; i++) {
        if (!h->is_stored[i]) continue;
        float weight = expf(h->exact[i] - most);
        const float *v = row_of(t, h->v, i), *stored = h->v_stored + (size_t)i * (size_t)d;
        total += (double)weight;
        for (int e = 0; e < d; e++) {
            h->out[e] += weight * v[e];
            h->difference[e] += weight * (stored[e] - v[e]);
        }
    }
    if (!(total > 0)) return;
    for (int e = 0; e < d; e++) {
        out += (double)h->out[e] * h->out[e];
        difference += (double)h->difference[e] * h->difference[e];
    }
    t->out += out / (total * total);
    t->difference += difference / (total * total);
}

static int decode_stored(const head *t, const kvant_sequence *s) {
    kvant_head_noise *h = t->h;
    size_t d = (size_t)h->head_dim;
    int n = 0;
    memset(h->is_stored, 0, (size_t)h->n_tokens * sizeof *h->is_stored);
    for (int i = t->key_stride - 1; i < t->n; i += t->key_stride) {
        kvant_status st =
            kvant_sequence_decode(s, t->layer, i, t->kv_head, h->k_stored + (size_t)i * d, h->v_stored + (size_t)i * d);
        h->is_stored[i] = st == KVANT_OK; /* a window may have dropped it */
        n += h->is_stored[i];
    }
    return n;
}

/* *t names the head and how its keys are chosen. */
static kvant_status measure(head *t, const kvant_sequence *s, double *sigma2, double *v_error) {
    kvant_head_noise *h = t->h;
    int64_t length = kvant_sequence_length(s);
    int group = h->n_head / h->n_kv_head, window = h->window[t->layer];
    t->n = length < h->n_tokens ? (int)length : h->n_tokens;
    if (decode_stored(t, s) < t->keys_min) return KVANT_EINVAL;
    for (int j = 0; (j + 1) * h->stride <= t->n; j++) {
        int p = (j + 1) * h->stride - 1, first = window > 0 && p >= window ? p - window + 1 : 0;
        for (int g = 0; g < group; g++) {
            size_t row = ((size_t)t->layer * n_queries(h) + (size_t)j) * (size_t)h->n_head + (size_t)(t->kv_head * group + g);
            bool says_something = compare_logits(t, h->q + row * (size_t)h->head_dim, first, p);
            if (says_something && v_error) compare_outputs(t, first, p);
        }
    }
    if (t->n_query == 0) return KVANT_EINVAL;
    *sigma2 = t->variance / (double)t->n_query;
    if (v_error) *v_error = t->difference == 0 ? 0 : sqrt(t->difference / t->out);
    return KVANT_OK;
}

kvant_status kvant_head_noise_measure(kvant_head_noise *h, const kvant_sequence *s, int layer, int kv_head, double *sigma2,
                                      double *v_error) {
    if (layer < 0 || layer >= h->n_layer || kv_head < 0 || kv_head >= h->n_kv_head || (v_error && !h->v)) return KVANT_EINVAL;
    head t = {.h = h, .layer = layer, .kv_head = kv_head, .key_stride = 1, .keys_min = KEYS_MIN};
    return measure(&t, s, sigma2, v_error);
}

/* ---- the check ---- */

/* Above it, answers are broken. Qwen2.5-Coder 0.5B and 1.5B in affine4, which answer nonsense, have heads of 80 to 500; formats
 * that answer, heads of at most 11 (the 1.5B in affine8, KL divergence 0.03), and most stay below 1. */
#define SIGMA2_BROKEN 30.0
/* The same on average of all heads, for formats that are too coarse everywhere: affine2 in SmolLM2 135M has 4 to 6 (KL divergence 4),
 * affine3 1.3 (0.6), which is bad, but an answer. */
#define SIGMA2_BROKEN_MEAN 2.5
/* Four keys tell heads that are far from it: one of 80 looks like less than 3 once in a hundred times. */
#define GLANCE_STRIDE 16
#define GLANCE_KEYS 4
#define GLANCE_SUSPECT (SIGMA2_BROKEN / 10)

/* sigma^2 of a head, of a few keys where these leave no doubt; 0: nothing is there to measure. */
static double look_at(kvant_head_noise *h, const kvant_sequence *s, int layer, int kv_head) {
    double sigma2 = 0;
    head t = {.h = h, .layer = layer, .kv_head = kv_head, .key_stride = GLANCE_STRIDE, .keys_min = GLANCE_KEYS};
    if (measure(&t, s, &sigma2, NULL) == KVANT_OK && sigma2 < GLANCE_SUSPECT) return sigma2;
    if (kvant_head_noise_measure(h, s, layer, kv_head, &sigma2, NULL) != KVANT_OK) return 0;
    return isnan(sigma2) ? INFINITY : sigma2;
}

/* What to choose instead of a format of K. */
static const char *advice(const kvant_format *k) {
    if (k->bare || !kvant_format_is_centred(k)) return "bc4 and i8 centre keys, which spares them this";
    return "choose more bits for K: bc5, i8 or f16";
}

bool kvant_head_noise_warn(kvant_head_noise *h, const kvant_sequence *s) {
    double worst = -1, sum = 0;
    int layer = 0, kv_head = 0, n_broken = 0, n_heads = h->n_layer * h->n_kv_head;
    for (int l = 0; l < h->n_layer; l++)
        for (int k = 0; k < h->n_kv_head; k++) {
            double sigma2 = look_at(h, s, l, k);
            n_broken += sigma2 > SIGMA2_BROKEN;
            sum += sigma2;
            if (sigma2 <= worst) continue;
            worst = sigma2;
            layer = l;
            kv_head = k;
        }
    kvant_page_info page;
    bool everywhere = n_broken == 0 && sum > SIGMA2_BROKEN_MEAN * n_heads;
    if ((n_broken == 0 && !everywhere) || kvant_sequence_page_info(s, layer, 0, &page) != KVANT_OK) return false;
    char name[KVANT_FORMAT_NAME_MAX], how[160];
    kvant_format_name(&page.k, name);
    if (everywhere)
        snprintf(how, sizeof how,
                 "its noise in the logits of attention has a variance of %.3g on average of all KV heads (above %g: broken), "
                 "%.3g",
                 sum / n_heads, SIGMA2_BROKEN_MEAN, worst);
    else
        snprintf(how, sizeof how, "its noise in the logits of attention has a variance above %g in %d of %d KV heads, %.3g",
                 SIGMA2_BROKEN, n_broken, n_heads, worst);
    kvant_log(KVANT_LOG_WARNING, "K in %s breaks this model: %s in layer %d, KV head %d; %s", name, how, layer, kv_head,
              advice(&page.k));
    return true;
}

// SPDX-License-Identifier: MIT
/* divergence.c: Kullback-Leibler divergence of next-token distributions, and its statistics.
 *
 * KL(p || q) = sum p (x - y) - (lse(x) - lse(y)) for logits x and y: the differences are taken before anything is rounded and
 * summed in double, so that two caches that agree to 1e-6 are told apart. A vocabulary has up to 262,144 tokens and each is
 * one exp per row and format: loops run over blocks of fixed length with one sum a lane, which compilers turn into vectors
 * without being allowed to reorder floating-point sums. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "divergence.h"

#define LANES 16

/* exp(x) for x <= 0 to about 1e-7 (relative); below -87 it stays at 1.6e-38, which no sum notices.
 * e^x = 2^n e^r with |r| <= ln(2) / 2: the Taylor series to r^7 leaves less than a float can show. */
static void exp_block(const float x[LANES], float out[LANES]) {
    float r[LANES], scale[LANES];
    uint32_t bits[LANES];
    for (int i = 0; i < LANES; i++) {
        float v = x[i] < -87.0f ? -87.0f : x[i];
        float n = (v * 1.44269504f + 12582912.0f) - 12582912.0f; /* adding 1.5 * 2^23 rounds to an integer */
        bits[i] = (uint32_t)((int32_t)n + 127) << 23;
        r[i] = (v - n * 0.693145752f) - n * 1.42860677e-6f; /* ln 2 in two parts: n times the first is exact */
    }
    memcpy(scale, bits, sizeof scale);
    for (int i = 0; i < LANES; i++) {
        float p = 1.0f / 5040;
        p = p * r[i] + 1.0f / 720;
        p = p * r[i] + 1.0f / 120;
        p = p * r[i] + 1.0f / 24;
        p = p * r[i] + 1.0f / 6;
        p = p * r[i] + 0.5f;
        p = p * r[i] + 1.0f;
        p = p * r[i] + 1.0f;
        out[i] = p * scale[i];
    }
}

static double sum_lanes(const double lanes[LANES]) {
    double sum = 0;
    for (int i = 0; i < LANES; i++)
        sum += lanes[i];
    return sum;
}

/* The largest of the row; NaN only where all are. */
static float row_max(const float *x, int n) {
    float lanes[LANES];
    for (int i = 0; i < LANES; i++)
        lanes[i] = -INFINITY;
    int at = 0;
    for (; at + LANES <= n; at += LANES) {
        for (int i = 0; i < LANES; i++)
            lanes[i] = x[at + i] > lanes[i] ? x[at + i] : lanes[i];
    }
    float max = -INFINITY;
    for (; at < n; at++)
        max = x[at] > max ? x[at] : max;
    for (int i = 0; i < LANES; i++)
        max = lanes[i] > max ? lanes[i] : max;
    return max;
}

void softmax_row_init(softmax_row *row, const float *logits, int n, float *weights) {
    float max = row_max(logits, n), block[LANES], w[LANES];
    double lanes[LANES] = {0};
    row->max = max;
    row->top = 0;
    while (row->top + 1 < n && logits[row->top] != max)
        row->top++;
    int at = 0;
    for (; at + LANES <= n; at += LANES) {
        for (int i = 0; i < LANES; i++)
            block[i] = logits[at + i] - max;
        exp_block(block, w);
        for (int i = 0; i < LANES; i++)
            lanes[i] += (double)w[i];
        if (weights) memcpy(weights + at, w, sizeof w);
    }
    if (at < n) {
        size_t rest = (size_t)(n - at);
        for (int i = 0; i < LANES; i++)
            block[i] = at + i < n ? logits[at + i] - max : 0;
        exp_block(block, w);
        for (int i = 0; at + i < n; i++)
            lanes[i] += (double)w[i];
        if (weights) memcpy(weights + at, w, rest * sizeof *w);
    }
    row->log_sum = log(sum_lanes(lanes));
}

double softmax_row_nll(const softmax_row *row, const float *logits, int token) {
    return row->log_sum - ((double)logits[token] - (double)row->max);
}

double divergence_kl(const softmax_row *reference, const float *reference_logits, const float *weights, const softmax_row *other,
                     const float *other_logits, int n) {
    double lanes[LANES] = {0};
    double shift = (double)reference->max - (double)other->max;
    int at = 0;
    for (; at + LANES <= n; at += LANES) {
        for (int i = 0; i < LANES; i++)
            lanes[i] += (double)weights[at + i] * ((double)reference_logits[at + i] - (double)other_logits[at + i]);
    }
    for (int i = 0; at + i < n; i++)
        lanes[i] += (double)weights[at + i] * ((double)reference_logits[at + i] - (double)other_logits[at + i]);
    double mean = sum_lanes(lanes) / exp(reference->log_sum);
    double kl = (mean - shift) - (reference->log_sum - other->log_sum);
    if (!isfinite(kl)) return INFINITY;
    return kl > 0 ? kl : 0;
}

bool divergence_sample_add(divergence_sample *s, double kl, bool same_top) {
    if (s->n == s->capacity) {
        int64_t capacity = s->capacity ? 2 * s->capacity : 1024;
        float *grown = realloc(s->kl, (size_t)capacity * sizeof *grown);
        if (!grown) return false;
        s->kl = grown;
        s->capacity = capacity;
    }
    s->kl[s->n++] = (float)kl;
    s->same_top += same_top;
    return true;
}

void divergence_sample_free(divergence_sample *s) {
    free(s->kl);
    *s = (divergence_sample){0};
}

double divergence_quantile(const float *sorted, int64_t n, double q) {
    double position = q * (double)(n - 1);
    int64_t low = (int64_t)position;
    if (low >= n - 1) return (double)sorted[n - 1];
    double part = position - (double)low;
    if (part == 0 || sorted[low] == sorted[low + 1]) return (double)sorted[low];
    return (double)sorted[low] * (1 - part) + (double)sorted[low + 1] * part;
}

static int compare_floats(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* The standard error of the mean from the spread of the means of blocks; the last block may be shorter and weighs less. */
static double block_error(const float *kl, int64_t n, double mean) {
    int64_t blocks = (n + DIVERGENCE_BLOCK - 1) / DIVERGENCE_BLOCK;
    if (blocks < 2) return NAN;
    double sum = 0;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t first = b * DIVERGENCE_BLOCK, end = first + DIVERGENCE_BLOCK < n ? first + DIVERGENCE_BLOCK : n;
        double deviation = 0;
        for (int64_t i = first; i < end; i++)
            deviation += (double)kl[i] - mean;
        sum += deviation * deviation;
    }
    return sqrt(sum * (double)blocks / (double)(blocks - 1)) / (double)n;
}

bool divergence_summarize(const divergence_sample *s, divergence_summary *out) {
    *out = (divergence_summary){NAN, NAN, NAN, NAN, NAN, NAN, NAN, NAN};
    if (s->n == 0) return true;
    float *sorted = malloc((size_t)s->n * sizeof *sorted);
    if (!sorted) return false;
    memcpy(sorted, s->kl, (size_t)s->n * sizeof *sorted);
    qsort(sorted, (size_t)s->n, sizeof *sorted, compare_floats);
    double sum = 0;
    for (int64_t i = 0; i < s->n; i++)
        sum += (double)s->kl[i];
    out->mean = sum / (double)s->n;
    out->se = block_error(s->kl, s->n, out->mean);
    out->median = divergence_quantile(sorted, s->n, 0.5);
    out->p99 = divergence_quantile(sorted, s->n, 0.99);
    out->p999 = divergence_quantile(sorted, s->n, 0.999);
    out->max = (double)sorted[s->n - 1];
    out->top1 = (double)s->same_top / (double)s->n;
    if (s->n_nll > 0) out->perplexity = exp(s->nll / (double)s->n_nll);
    free(sorted);
    return true;
}

// SPDX-License-Identifier: MIT
/* calibration.c: the mean of a model's keys before RoPE, and the scales that balance keys and queries, from a few hundred tokens.
 *
 * Sums are float64, so that the order of tokens hardly matters. The mean of pair i is the average of the keys turned back; the
 * scale of pair i is (E|q|^2 / E|k - mean|^2)^(1/4): after k * scale and q / scale both have the same energy in each pair, which
 * makes the least noise of a score for a given number of bits. Elements without RoPE are balanced one by one.
 *
 * Not here: bytes of a calibration (calibration_bytes.c), where its file lives (engine). */
#include "cache/calibration_internal.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "cache/transform.h"

static kvant_status check_range(const char *field, int found, int min, int max, kvant_error *err) {
    if (found >= min && found <= max) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "calibration: %s: found %d, expected %d to %d", field, found, min, max);
}

static kvant_status check_rope(const kvant_rope_config *r, int head_dim, kvant_error *err) {
    KVANT_TRY(check_range("n_rot", r->n_rot, 0, head_dim, err));
    if (r->n_rot % 2) return kvant_fail(err, KVANT_EINVAL, "calibration: n_rot: found %d, expected an even number", r->n_rot);
    if (!(r->magnitude > 0.0f) || !isfinite(r->magnitude))
        return kvant_fail(err, KVANT_EINVAL, "calibration: magnitude: found %g, expected more than 0", (double)r->magnitude);
    if (r->n_rot > 0 && !r->frequency)
        return kvant_fail(err, KVANT_EINVAL, "calibration: frequency: found NULL, expected %d", r->n_rot / 2);
    for (int i = 0; i < r->n_rot / 2; i++)
        if (!isfinite(r->frequency[i]))
            return kvant_fail(err, KVANT_EINVAL, "calibration: frequency: pair %d: found %g, expected a finite number", i,
                              r->frequency[i]);
    return KVANT_OK;
}

static kvant_status check_config(const kvant_calibration_config *c, kvant_error *err) {
    KVANT_TRY(check_range("n_layer", c->n_layer, 1, 4096, err));
    KVANT_TRY(check_range("n_kv_head", c->n_kv_head, 1, 4096, err));
    KVANT_TRY(check_range("head_dim", c->head_dim, 1, KVANT_HEAD_DIM_MAX, err));
    KVANT_TRY(check_range("n_head", c->n_head, 1, 65536, err));
    if (c->n_head % c->n_kv_head != 0)
        return kvant_fail(err, KVANT_EINVAL, "calibration: n_head: found %d, expected a multiple of n_kv_head, %d", c->n_head,
                          c->n_kv_head);
    KVANT_TRY(check_range("n_rope", c->n_rope, 0, KVANT_CALIBRATION_ROPES, err));
    if (c->n_rope > 0 && !c->ropes)
        return kvant_fail(err, KVANT_EINVAL, "calibration: ropes: found NULL, expected %d of them", c->n_rope);
    for (int r = 0; r < c->n_rope; r++)
        KVANT_TRY(check_rope(&c->ropes[r], c->head_dim, err));
    for (int i = 0; i < c->n_layer; i++)
        KVANT_TRY(check_range("layer_rope", c->layer_rope ? c->layer_rope[i] : c->n_rope ? 0 : -1, -1, c->n_rope - 1, err));
    return KVANT_OK;
}

kvant_status kvant_calibration_create(const kvant_calibration_config *config, kvant_calibration **out, kvant_error *err) {
    KVANT_TRY(check_config(config, err));
    size_t cells = (size_t)config->n_layer * (size_t)config->n_kv_head * (size_t)config->head_dim;
    kvant_calibration *c = kvant_alloc(1, sizeof *c);
    kvant_status st = c ? KVANT_OK : KVANT_ENOMEM;
    if (c) {
        *c = (kvant_calibration){config->n_layer,
                                 config->n_head,
                                 config->n_kv_head,
                                 config->head_dim,
                                 config->n_rope,
                                 {{0}},
                                 NULL,
                                 NULL,
                                 NULL,
                                 NULL,
                                 NULL,
                                 NULL,
                                 NULL,
                                 NULL,
                                 false};
        c->layer_rope = kvant_alloc((size_t)c->n_layer, sizeof *c->layer_rope);
        c->n_token = kvant_alloc((size_t)c->n_layer, sizeof *c->n_token);
        c->key_sum = kvant_alloc(cells, sizeof *c->key_sum);
        c->key_energy = kvant_alloc(cells, sizeof *c->key_energy);
        c->query_energy = kvant_alloc(cells, sizeof *c->query_energy);
        c->mean = kvant_alloc(cells, sizeof *c->mean);
        c->scale = kvant_alloc(cells, sizeof *c->scale);
        c->energy = kvant_alloc(cells, sizeof *c->energy);
        bool sums = c->layer_rope && c->n_token && c->key_sum && c->key_energy && c->query_energy;
        if (!sums || !c->mean || !c->scale || !c->energy) st = KVANT_ENOMEM;
    }
    for (int r = 0; r < config->n_rope && st == KVANT_OK; r++) {
        size_t half = (size_t)config->ropes[r].n_rot / 2;
        double *frequency = kvant_alloc(half + 1, sizeof *frequency);
        c->ropes[r] = config->ropes[r];
        c->ropes[r].frequency = frequency;
        if (!frequency)
            st = KVANT_ENOMEM;
        else if (half)
            memcpy(frequency, config->ropes[r].frequency, half * sizeof *frequency);
    }
    for (int i = 0; i < config->n_layer && st == KVANT_OK; i++)
        c->layer_rope[i] = config->layer_rope ? config->layer_rope[i] : config->n_rope ? 0 : -1;
    if (st != KVANT_OK) {
        kvant_calibration_destroy(c);
        return kvant_fail(err, st, "calibration: out of memory");
    }
    *out = c;
    return KVANT_OK;
}

void kvant_calibration_destroy(kvant_calibration *c) {
    if (!c) return;
    for (int r = 0; r < c->n_rope; r++)
        kvant_free((double *)(uintptr_t)c->ropes[r].frequency);
    kvant_free(c->layer_rope);
    kvant_free(c->n_token);
    kvant_free(c->key_sum);
    kvant_free(c->key_energy);
    kvant_free(c->query_energy);
    kvant_free(c->mean);
    kvant_free(c->scale);
    kvant_free(c->energy);
    kvant_free(c);
}

static void add_key(kvant_calibration *c, const kvant_rope_config *rope, int64_t position, const float *k, size_t at) {
    double *sum = c->key_sum + at, *energy = c->key_energy + at;
    int n_rot = rope ? rope->n_rot : 0;
    for (int i = 0; i < n_rot / 2; i++) {
        int a, b;
        double angle = (double)position * rope->frequency[i], re = cos(angle) / (double)rope->magnitude,
               im = -sin(angle) / (double)rope->magnitude;
        kvant_rope_pair(rope->n_rot, rope->interleaved, i, &a, &b);
        double x = (double)k[a] * re - (double)k[b] * im, y = (double)k[a] * im + (double)k[b] * re;
        sum[a] += x;
        sum[b] += y;
        energy[a] += x * x;
        energy[b] += y * y;
    }
    for (int i = n_rot; i < c->head_dim; i++) {
        sum[i] += (double)k[i];
        energy[i] += (double)k[i] * (double)k[i];
    }
}

kvant_status kvant_calibration_add(kvant_calibration *c, int layer, int64_t first_position, const float *k, const float *q,
                                   int n) {
    if (layer < 0 || layer >= c->n_layer || first_position < 0 || n < 0 || c->finished) return KVANT_EINVAL;
    const kvant_rope_config *rope = c->layer_rope[layer] >= 0 ? &c->ropes[c->layer_rope[layer]] : NULL;
    size_t d = (size_t)c->head_dim, n_kv = (size_t)c->n_kv_head, group = (size_t)(c->n_head / c->n_kv_head);
    for (int t = 0; t < n; t++, k += n_kv * d, q += n_kv * group * d) {
        if (first_position + t < KVANT_SINK_TOKENS) continue;
        c->n_token[layer]++;
        for (size_t h = 0; h < n_kv; h++) {
            size_t at = ((size_t)layer * n_kv + h) * d;
            add_key(c, rope, first_position + t, k + h * d, at);
            for (size_t g = 0; g < group; g++)
                for (size_t i = 0; i < d; i++)
                    c->query_energy[at + i] += (double)q[(h * group + g) * d + i] * (double)q[(h * group + g) * d + i];
        }
    }
    return KVANT_OK;
}

/* A scale that balances two energies; 1 where either is nothing or not a number. */
static float balance(double query, double key) {
    double scale = sqrt(sqrt(query / key));
    if (!(query > 0.0) || !(key > 0.0) || !(scale > 1e-4) || !(scale < 1e4)) return 1.0f;
    return (float)scale;
}

/* What both have once they are balanced; 0 where it is not a number. */
static float together(double query, double key) {
    double energy = sqrt(query * key);
    return energy > 0 && energy < 1e30 ? (float)energy : 0.0f;
}

/* How much of a mean's energy its average over a block keeps when it turns by `frequency` a token: what is left over stays in the
 * keys, and for the fastest pairs that is all of it. */
static double kept_of_mean(double frequency) {
    double re = 0, im = 0;
    for (int u = 0; u < KVANT_MEAN_BLOCK; u++) {
        re += cos(u * frequency) / KVANT_MEAN_BLOCK;
        im += sin(u * frequency) / KVANT_MEAN_BLOCK;
    }
    return re * re + im * im;
}

static void finish_head(kvant_calibration *c, const kvant_rope_config *rope, double n, size_t at) {
    int n_rot = rope ? rope->n_rot : 0;
    double variance[KVANT_HEAD_DIM_MAX], mean[KVANT_HEAD_DIM_MAX];
    const double *query = c->query_energy + at;
    double group = (double)(c->n_head / c->n_kv_head);
    for (int i = 0; i < c->head_dim; i++) {
        mean[i] = c->key_sum[at + (size_t)i] / n;
        c->mean[at + (size_t)i] = fabs(mean[i]) < 1e30 ? (float)mean[i] : 0.0f; /* a NaN is 0 too */
        variance[i] = c->key_energy[at + (size_t)i] / n - mean[i] * mean[i];
    }
    for (int i = 0; i < n_rot / 2; i++) {
        int a, b;
        kvant_rope_pair(rope->n_rot, rope->interleaved, i, &a, &b);
        double left = i < KVANT_FAST_PAIRS ? 0.0 : 1.0 - kept_of_mean(rope->frequency[i]);
        left *= mean[a] * mean[a] + mean[b] * mean[b];
        double q = (query[a] + query[b]) / (2 * n * group), k = (variance[a] + variance[b] + left) / 2;
        c->scale[at + (size_t)a] = c->scale[at + (size_t)b] = balance(q, k);
        c->energy[at + (size_t)a] = c->energy[at + (size_t)b] = together(q, k);
    }
    for (int i = n_rot; i < c->head_dim; i++) {
        c->scale[at + (size_t)i] = balance(query[i] / (n * group), variance[i]);
        c->energy[at + (size_t)i] = together(query[i] / (n * group), variance[i]);
    }
}

kvant_status kvant_calibration_finish(kvant_calibration *c, kvant_error *err) {
    if (c->finished) return KVANT_OK;
    for (int i = 0; i < c->n_layer; i++)
        if (c->n_token[i] < 1)
            return kvant_fail(err, KVANT_EINVAL, "calibration: layer %d has seen no token after the first %d", i,
                              KVANT_SINK_TOKENS);
    for (int i = 0; i < c->n_layer; i++)
        for (int h = 0; h < c->n_kv_head; h++)
            finish_head(c, c->layer_rope[i] >= 0 ? &c->ropes[c->layer_rope[i]] : NULL, (double)c->n_token[i],
                        ((size_t)i * (size_t)c->n_kv_head + (size_t)h) * (size_t)c->head_dim);
    c->finished = true;
    return KVANT_OK;
}

int64_t kvant_calibration_tokens(const kvant_calibration *c) {
    int64_t n = c->n_token[0];
    for (int i = 1; i < c->n_layer; i++)
        if (c->n_token[i] < n) n = c->n_token[i];
    return n;
}

kvant_status kvant_calibration_get(const kvant_calibration *c, int layer, int kv_head, const float **mean, const float **scale) {
    if (!c->finished || layer < 0 || layer >= c->n_layer || kv_head < 0 || kv_head >= c->n_kv_head) return KVANT_EINVAL;
    size_t at = ((size_t)layer * (size_t)c->n_kv_head + (size_t)kv_head) * (size_t)c->head_dim;
    *mean = c->mean + at;
    *scale = c->scale + at;
    return KVANT_OK;
}

const float *kvant_calibration_energy(const kvant_calibration *c, int layer, int kv_head) {
    return c->energy + ((size_t)layer * (size_t)c->n_kv_head + (size_t)kv_head) * (size_t)c->head_dim;
}

double kvant_calibration_mean_share(const kvant_calibration *c, int layer, int kv_head) {
    if (!c->finished || layer < 0 || layer >= c->n_layer || kv_head < 0 || kv_head >= c->n_kv_head) return -1;
    size_t at = ((size_t)layer * (size_t)c->n_kv_head + (size_t)kv_head) * (size_t)c->head_dim;
    double mean = 0, all = 0;
    for (size_t i = at; i < at + (size_t)c->head_dim; i++) {
        mean += (double)c->mean[i] * (double)c->mean[i] * (double)c->n_token[layer];
        all += c->key_energy[i];
    }
    return !(all > 0) ? -1 : mean < all ? mean / all : 1;
}

int kvant_calibration_ropes(const kvant_calibration *c) { return c->n_rope; }

const kvant_rope_config *kvant_calibration_rope(const kvant_calibration *c, int index) { return &c->ropes[index]; }

int kvant_calibration_layer_rope(const kvant_calibration *c, int layer) { return c->layer_rope[layer]; }

kvant_status kvant_calibration_check(const kvant_calibration *c, int n_layer, int n_kv_head, int head_dim, kvant_error *err) {
    if (!c->finished) return kvant_fail(err, KVANT_EINVAL, "calibration: it is not finished");
    if (c->n_layer == n_layer && c->n_kv_head == n_kv_head && c->head_dim == head_dim) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "calibration: found %d layers, %d KV heads, head_dim %d; the cache has %d, %d, %d",
                      c->n_layer, c->n_kv_head, c->head_dim, n_layer, n_kv_head, head_dim);
}

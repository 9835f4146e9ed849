// SPDX-License-Identifier: MIT
/* transform.c: centring, scaling and rotating the vectors of a cache: see transform.h. */
#include "cache/transform.h"

#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "cache/calibration.h"

/* The largest power of two that divides n. */
static int even_part(int n) { return n & -n; }

/* The orthonormal rotation of n = m * 2^k elements, times sqrt(n): Walsh-Hadamard over each 2^k, then, for an odd m > 1 (head_dim
 * 80 or 96), a discrete Hartley transform across: symmetric as well, so the whole is its own inverse. */
static void rotate_block(float *x, int n, const kvant_kernels *k) {
    const double turn = 6.283185307179586;
    int even = even_part(n), m = n / even;
    for (int i = 0; i < m; i++)
        k->hadamard(x + i * even, even);
    if (m == 1) return;
    float cas[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX];
    for (int i = 0; i < m; i++)
        cas[i] = (float)(cos(turn * i / m) + sin(turn * i / m));
    for (int c = 0; c < even; c++) {
        for (int i = 0; i < m; i++) {
            y[i] = 0.0f;
            for (int j = 0; j < m; j++)
                y[i] += cas[i * j % m] * x[j * even + c];
        }
        for (int i = 0; i < m; i++)
            x[i * even + c] = y[i];
    }
}

static void rotate(float *x, int d, kvant_rotation r, const kvant_kernels *k) {
    for (int z = 0, at = 0; z < r.n_zone; at += r.zone[z++])
        rotate_block(x + at, r.zone[z], k);
    for (int i = 0; r.block && !r.n_zone && i < d; i += r.block)
        rotate_block(x + i, r.block, k);
}

/* The fixed random sign of element i, the same in every head, layer and model: the lowest bit of a SplitMix64 hash. */
static float sign_of(int i) {
    uint64_t z = ((uint64_t)i + 1) * 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    return (z ^ z >> 31) & 1 ? -1.0f : 1.0f;
}

/* Sign and normalisation of element i of a rotation. */
static float factor_of(kvant_rotation r, int i) {
    if (!r.block) return 1.0f;
    int block = r.block;
    for (int z = 0, at = 0; z < r.n_zone; at += r.zone[z++])
        if (i >= at && i < at + r.zone[z]) block = r.zone[z];
    return (r.signs ? sign_of(i) : 1.0f) / sqrtf((float)block);
}

/* Elements by falling energy; the two of a pair, which have the same, stay together. */
static void order_elements(const float *energy, int d, uint16_t *order) {
    for (int i = 0; i < d; i++) {
        int at = i;
        for (; at > 0 && energy[order[at - 1]] < energy[i]; at--)
            order[at] = order[at - 1];
        order[at] = (uint16_t)i;
    }
}

/* A factor for each zone, after which its elements are as large, beside those of the middle zone, as the zones' levels are. */
static void zone_gains(kvant_rotation r, const float *energy, const uint16_t *order, float gain[KVANT_ZONES]) {
    double mean[KVANT_ZONES], middle;
    for (int z = 0, at = 0; z < r.n_zone; at += r.zone[z++]) {
        mean[z] = 0;
        for (int i = at; i < at + r.zone[z]; i++)
            mean[z] += (double)energy[order[i]] / r.zone[z];
    }
    middle = mean[r.n_zone / 2];
    for (int z = 0; z < r.n_zone; z++) {
        double ratio = sqrt(middle / mean[z]);
        gain[z] = r.zone_units[z] * (ratio > 1e-3 && ratio < 1e3 ? (float)ratio : 1.0f);
    }
}

/* ---- tables ---- */

/* cos and -sin of 0, `step`, 2 * `step`, .. tokens for pairs [first, end) as panels of 16 rows whose columns begin at pair 0. */
static void fill_panels(float *panels, int n_row, int step, int n_column, int first, int end, const double *frequency) {
    for (int row = 0; row < n_row; row++)
        for (int i = first; i < end; i++) {
            double angle = (double)(row * step) * frequency[i];
            float *at = panels + ((size_t)(row / 16) * (size_t)n_column + (size_t)(2 * i)) * 16 + row % 16;
            at[0] = (float)cos(angle);
            at[16] = (float)-sin(angle);
        }
}

/* cos and sin of n pairs at `token` of each page of a run. */
static void fill_turns(float *turns, double token, int n, const double *frequency) {
    for (int page = 0; page < KVANT_RUN_PAGES; page++)
        for (int i = 0; i < n; i++) {
            double angle = (page * KVANT_PAGE_TOKENS + token) * frequency[i];
            *turns++ = (float)cos(angle);
            *turns++ = (float)sin(angle);
        }
}

static void fill_sides(float *sides, int n, const double *frequency) {
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < n; i++, sides += 32)
            for (int u = 0; u < 16; u++) {
                double angle = (16 * half + u + 0.5) * frequency[i];
                sides[u] = (float)cos(angle);
                sides[16 + u] = (float)-sin(angle);
            }
}

static kvant_status create_rope(const kvant_rope_config *config, kvant_rope_table *out) {
    int half = config->n_rot / 2, n_fast = half < KVANT_FAST_PAIRS ? half : KVANT_FAST_PAIRS;
    size_t n_rot = (size_t)config->n_rot, fast = 2 * (size_t)n_fast;
    *out = (kvant_rope_table){.n_rot = config->n_rot, .interleaved = config->interleaved, .n_fast = n_fast};
    out->frequency = kvant_alloc((size_t)half + 1, sizeof *out->frequency);
    out->within = kvant_alloc_aligned(KVANT_RUN_BLOCKS * (n_rot + 1), sizeof *out->within);
    out->tokens = kvant_alloc_aligned(KVANT_PAGE_TOKENS * (fast + 1), sizeof *out->tokens);
    out->pages = kvant_alloc(KVANT_RUN_PAGES * (fast + 1), sizeof *out->pages);
    out->centres = kvant_alloc(KVANT_RUN_PAGES * (fast + 1), sizeof *out->centres);
    out->sides = kvant_alloc(KVANT_PAGE_TOKENS / 2 * (fast + 1), sizeof *out->sides);
    if (!out->frequency || !out->within || !out->tokens || !out->pages || !out->centres || !out->sides) return KVANT_ENOMEM;
    for (int i = 0; i < half; i++)
        out->frequency[i] = config->frequency[i];
    memset(out->within, 0, KVANT_RUN_BLOCKS * n_rot * sizeof *out->within);
    fill_panels(out->within, KVANT_RUN_BLOCKS, KVANT_MEAN_BLOCK, config->n_rot, n_fast, half, out->frequency);
    fill_panels(out->tokens, KVANT_PAGE_TOKENS, 1, 2 * n_fast, 0, n_fast, out->frequency);
    fill_turns(out->pages, 0.0, n_fast, out->frequency);
    fill_turns(out->centres, KVANT_PAGE_TOKENS / 2 - 0.5, n_fast, out->frequency);
    fill_sides(out->sides, n_fast, out->frequency);
    return KVANT_OK;
}

kvant_status kvant_transforms_reserve(kvant_transforms *t, int64_t n_tokens) {
    int n_run = (int)((n_tokens + KVANT_RUN_TOKENS - 1) / KVANT_RUN_TOKENS);
    for (int r = 0; r < t->n_rope; r++) {
        kvant_rope_table *rope = &t->ropes[r];
        if (rope->n_run >= n_run) continue;
        if (rope->room < n_run) {
            int room = rope->room ? rope->room : 16;
            while (room < n_run)
                room *= 2;
            float *runs = kvant_realloc(rope->runs, (size_t)room, (size_t)(rope->n_rot + 1) * sizeof *runs);
            if (!runs) return KVANT_ENOMEM;
            rope->runs = runs;
            rope->room = room;
        }
        for (; rope->n_run < n_run; rope->n_run++) {
            float *row = rope->runs + (size_t)rope->n_run * (size_t)rope->n_rot;
            for (int i = 0; i < rope->n_rot / 2; i++) {
                double angle = (double)rope->n_run * KVANT_RUN_TOKENS * rope->frequency[i];
                row[2 * i] = (float)cos(angle);
                row[2 * i + 1] = (float)sin(angle);
            }
        }
    }
    return KVANT_OK;
}

/* The mean times magnitude times the average of e^(j u f) over the tokens of a block; that of fast pairs is not averaged. */
static void average_mean(const kvant_rope_table *rope, float magnitude, const float *mean, int d, float *m) {
    memcpy(m, mean, (size_t)d * sizeof *m);
    for (int i = 0; rope && i < rope->n_rot / 2; i++) {
        double re = 0, im = 0;
        int a, b;
        int n = i < rope->n_fast ? 1 : KVANT_MEAN_BLOCK;
        for (int u = 0; u < n; u++) {
            re += cos(u * rope->frequency[i]);
            im += sin(u * rope->frequency[i]);
        }
        re *= (double)magnitude / n;
        im *= (double)magnitude / n;
        kvant_rope_pair(rope->n_rot, rope->interleaved, i, &a, &b);
        m[a] = (float)((double)mean[a] * re - (double)mean[b] * im);
        m[b] = (float)((double)mean[a] * im + (double)mean[b] * re);
    }
}

static void fill_layer(const kvant_calibration *c, kvant_transforms *t, int layer, float *k_in, float *k_out, float *mean,
                       uint16_t *order) {
    kvant_layer_transform *l = &t->layers[layer];
    const kvant_rope_table *rope = l->rope >= 0 ? &t->ropes[l->rope] : NULL;
    float magnitude = rope ? kvant_calibration_rope(c, l->rope)->magnitude : 1.0f;
    int d = t->head_dim;
    for (int h = 0; h < t->n_kv_head; h++, k_in += d, k_out += d, mean += d) {
        const float *mu = NULL, *scale = NULL;
        if (l->centred) {
            (void)kvant_calibration_get(c, layer, h, &mu, &scale);
            average_mean(rope, magnitude, mu, d, mean);
        }
        float gain[KVANT_ZONES] = {1.0f, 1.0f, 1.0f};
        if (order) order_elements(kvant_calibration_energy(c, layer, h), d, order);
        if (order) zone_gains(l->k, kvant_calibration_energy(c, layer, h), order, gain);
        for (int i = 0; i < d; i++) {
            int from = order ? order[i] : i, zone = !order || i < l->k.zone[0] ? 0 : i < l->k.zone[0] + l->k.zone[1] ? 1 : 2;
            k_in[i] = factor_of(l->k, i) * (scale ? scale[from] : 1.0f) * gain[zone];
            k_out[i] = factor_of(l->k, i) / ((scale ? scale[from] : 1.0f) * gain[zone]);
        }
        if (order) order += d;
    }
}

/* Whether some layer's keys are put in order. */
static bool has_zones(const kvant_cache_config *config, const kvant_format *k) {
    for (int i = 0; i < config->n_layer; i++)
        if (kvant_codec_find(k[i].codec)->rotation(&k[i], KVANT_SIDE_K, config->head_dim).n_zone) return true;
    return false;
}

kvant_status kvant_transforms_create(const kvant_cache_config *config, const kvant_format *k, const kvant_format *v,
                                     kvant_transforms *out) {
    size_t n_layer = (size_t)config->n_layer, d = (size_t)config->head_dim, heads = (size_t)config->n_kv_head * d;
    const kvant_calibration *c = config->calibration;
    kvant_transforms t = {
        config->n_layer, config->n_kv_head, config->head_dim, c ? kvant_calibration_ropes(c) : 0, NULL, NULL, NULL, NULL};
    t.layers = kvant_alloc(n_layer, sizeof *t.layers);
    t.ropes = kvant_alloc((size_t)t.n_rope + 1, sizeof *t.ropes);
    t.memory = kvant_alloc_aligned(n_layer, (3 * heads + d) * sizeof *t.memory);
    kvant_status st = t.layers && t.ropes && t.memory ? KVANT_OK : KVANT_ENOMEM;
    if (has_zones(config, k)) {
        t.orders = kvant_alloc(n_layer * heads, sizeof *t.orders);
        if (!t.orders) st = KVANT_ENOMEM;
    }
    for (int r = 0; r < t.n_rope && st == KVANT_OK; r++)
        st = create_rope(kvant_calibration_rope(c, r), &t.ropes[r]);
    for (int i = 0; i < config->n_layer && st == KVANT_OK; i++) {
        kvant_layer_transform *l = &t.layers[i];
        float *p = t.memory + (size_t)i * (3 * heads + d);
        l->k = kvant_codec_find(k[i].codec)->rotation(&k[i], KVANT_SIDE_K, config->head_dim);
        l->v = kvant_codec_find(v[i].codec)->rotation(&v[i], KVANT_SIDE_V, config->head_dim);
        bool is_float = k[i].codec == KVANT_CODEC_F16 || k[i].codec == KVANT_CODEC_F32;
        l->centred = kvant_format_is_centred(&k[i]) || (is_float && config->center_floats);
        l->rope = c ? kvant_calibration_layer_rope(c, i) : -1;
        uint16_t *order = l->k.n_zone ? t.orders + (size_t)i * heads : NULL;
        fill_layer(c, &t, i, p, p + heads, p + 2 * heads, order);
        l->k_order = order;
        for (size_t j = 0; j < d; j++)
            p[3 * heads + j] = factor_of(l->v, (int)j);
        if (l->centred || l->k.block) {
            l->k_in = p;
            l->k_out = p + heads;
        }
        if (l->centred) l->mean = p + 2 * heads;
        if (l->v.block) l->v_sign = p + 3 * heads;
    }
    if (st != KVANT_OK) {
        kvant_transforms_destroy(&t);
        return st;
    }
    *out = t;
    return KVANT_OK;
}

void kvant_transforms_destroy(kvant_transforms *t) {
    for (int r = 0; t->ropes && r < t->n_rope; r++) {
        kvant_free(t->ropes[r].frequency);
        kvant_free_aligned(t->ropes[r].within);
        kvant_free_aligned(t->ropes[r].tokens);
        kvant_free(t->ropes[r].pages);
        kvant_free(t->ropes[r].centres);
        kvant_free(t->ropes[r].sides);
        kvant_free(t->ropes[r].runs);
    }
    kvant_free(t->ropes);
    kvant_free(t->layers);
    kvant_free_aligned(t->memory);
    kvant_free(t->orders);
    *t = (kvant_transforms){0};
}

/* ---- vectors ---- */

typedef struct turn {
    float re, im;
} turn;

static turn times(turn a, turn b) { return (turn){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }

/* The entry of a panel table: cos, -sin of a pair in a row. */
static turn panel_turn(const float *panels, int n_column, int row, int pair) {
    const float *at = panels + ((size_t)(row / 16) * (size_t)n_column + (size_t)(2 * pair)) * 16 + row % 16;
    return (turn){at[0], -at[16]};
}

/* Pairs [first, end) of the mean at a position. */
static void turn_pairs(const kvant_rope_table *rope, const float *m, int64_t position, int first, int end, float *mean) {
    int in_run = (int)(position % KVANT_RUN_TOKENS), page = in_run / KVANT_PAGE_TOKENS;
    const float *run = rope->runs + (size_t)(position / KVANT_RUN_TOKENS) * (size_t)rope->n_rot;
    for (int i = first; i < end; i++) {
        int a, b;
        turn e = {run[2 * i], run[2 * i + 1]};
        if (i < rope->n_fast) {
            const float *p = rope->pages + (size_t)page * 2 * (size_t)rope->n_fast + 2 * i;
            e = times(e, (turn){p[0], p[1]});
            e = times(e, panel_turn(rope->tokens, 2 * rope->n_fast, in_run % KVANT_PAGE_TOKENS, i));
        } else {
            e = times(e, panel_turn(rope->within, rope->n_rot, in_run / KVANT_MEAN_BLOCK, i));
        }
        kvant_rope_pair(rope->n_rot, rope->interleaved, i, &a, &b);
        mean[a] = m[a] * e.re - m[b] * e.im;
        mean[b] = m[a] * e.im + m[b] * e.re;
    }
}

static const float *mean_of(const kvant_transforms *t, int layer, int kv_head) {
    return t->layers[layer].mean + (size_t)kv_head * (size_t)t->head_dim;
}

void kvant_transform_mean(const kvant_transforms *t, int layer, int kv_head, int64_t position, float *mean) {
    int rope = t->layers[layer].rope;
    const float *m = mean_of(t, layer, kv_head);
    memcpy(mean, m, (size_t)t->head_dim * sizeof *mean);
    if (rope >= 0) turn_pairs(&t->ropes[rope], m, position, 0, t->ropes[rope].n_rot / 2, mean);
}

void kvant_transform_mean_next(const kvant_transforms *t, int layer, int kv_head, int64_t position, float *mean) {
    int rope = t->layers[layer].rope;
    if (rope >= 0) turn_pairs(&t->ropes[rope], mean_of(t, layer, kv_head), position, 0, t->ropes[rope].n_fast, mean);
}

/* Loops of a fixed length inside are turned into vectors by compilers that are not asked to. */
#define CHUNK 16

static void multiply(float *restrict x, const float *restrict a, int n) {
    for (; n >= CHUNK; n -= CHUNK, x += CHUNK, a += CHUNK)
        for (int i = 0; i < CHUNK; i++)
            x[i] *= a[i];
    for (int i = 0; i < n; i++)
        x[i] *= a[i];
}

/* y = (x - mean) * a */
static void centre(float *restrict y, const float *restrict x, const float *restrict mean, const float *restrict a, int n) {
    for (; n >= CHUNK; n -= CHUNK, y += CHUNK, x += CHUNK, mean += CHUNK, a += CHUNK)
        for (int i = 0; i < CHUNK; i++)
            y[i] = (x[i] - mean[i]) * a[i];
    for (int i = 0; i < n; i++)
        y[i] = (x[i] - mean[i]) * a[i];
}

/* y = x - a */
static void subtract(float *restrict y, const float *restrict x, const float *restrict a, int n) {
    for (; n >= CHUNK; n -= CHUNK, y += CHUNK, x += CHUNK, a += CHUNK)
        for (int i = 0; i < CHUNK; i++)
            y[i] = x[i] - a[i];
    for (int i = 0; i < n; i++)
        y[i] = x[i] - a[i];
}

/* y = x * e for n / 2 complex numbers: re, im, re, .. */
static void turn_all(float *restrict y, const float *restrict x, const float *restrict e, int n) {
    for (; n >= CHUNK; n -= CHUNK, y += CHUNK, x += CHUNK, e += CHUNK)
        for (int i = 0; i < CHUNK; i += 2) {
            y[i] = x[i] * e[i] - x[i + 1] * e[i + 1];
            y[i + 1] = x[i] * e[i + 1] + x[i + 1] * e[i];
        }
    for (int i = 0; i < n; i += 2) {
        y[i] = x[i] * e[i] - x[i + 1] * e[i + 1];
        y[i + 1] = x[i] * e[i + 1] + x[i + 1] * e[i];
    }
}

/* The element that comes at each place, of one head; NULL: as they are. */
static const uint16_t *order_of(const kvant_transforms *t, int layer, int kv_head) {
    const uint16_t *order = t->layers[layer].k_order;
    return order ? order + (size_t)kv_head * (size_t)t->head_dim : NULL;
}

void kvant_transform_key(const kvant_transforms *t, int layer, int kv_head, const float *x, const float *mean, float *y,
                         const kvant_kernels *k) {
    const kvant_layer_transform *l = &t->layers[layer];
    const float *in = l->k_in ? l->k_in + (size_t)kv_head * (size_t)t->head_dim : NULL;
    const uint16_t *order = order_of(t, layer, kv_head);
    if (l->centred && !order) { /* then k_in is set, too */
        centre(y, x, mean, in, t->head_dim);
    } else {
        float moved[KVANT_HEAD_DIM_MAX];
        size_t bytes = (size_t)t->head_dim * sizeof *y;
        if (l->centred)
            subtract(moved, x, mean, t->head_dim);
        else
            memcpy(moved, x, bytes);
        if (!order) memcpy(y, moved, bytes);
        for (int i = 0; order && i < t->head_dim; i++)
            y[i] = moved[order[i]];
        if (in) multiply(y, in, t->head_dim);
    }
    rotate(y, t->head_dim, l->k, k);
}

void kvant_transform_key_back(const kvant_transforms *t, int layer, int kv_head, const float *y, const float *mean, float *x,
                              const kvant_kernels *k) {
    const kvant_layer_transform *l = &t->layers[layer];
    const float *out = l->k_out ? l->k_out + (size_t)kv_head * (size_t)t->head_dim : NULL;
    const uint16_t *order = order_of(t, layer, kv_head);
    float turned[KVANT_HEAD_DIM_MAX];
    memcpy(turned, y, (size_t)t->head_dim * sizeof *turned);
    rotate(turned, t->head_dim, l->k, k);
    for (int i = 0; i < t->head_dim; i++) {
        int to = order ? order[i] : i;
        x[to] = turned[i] * (out ? out[i] : 1.0f) + (l->centred ? mean[to] : 0.0f);
    }
}

void kvant_transform_query(const kvant_transforms *t, int layer, int kv_head, float *q, const kvant_kernels *k) {
    const kvant_layer_transform *l = &t->layers[layer];
    const uint16_t *order = order_of(t, layer, kv_head);
    if (order) {
        float x[KVANT_HEAD_DIM_MAX];
        memcpy(x, q, (size_t)t->head_dim * sizeof *x);
        for (int i = 0; i < t->head_dim; i++)
            q[i] = x[order[i]];
    }
    if (l->k_out) multiply(q, l->k_out + (size_t)kv_head * (size_t)t->head_dim, t->head_dim);
    rotate(q, t->head_dim, l->k, k);
}

void kvant_transform_value(const kvant_transforms *t, int layer, float *v, const kvant_kernels *k) {
    const kvant_layer_transform *l = &t->layers[layer];
    if (l->v_sign) multiply(v, l->v_sign, t->head_dim);
    rotate(v, t->head_dim, l->v, k);
}

void kvant_transform_value_back(const kvant_transforms *t, int layer, float *v, const kvant_kernels *k) {
    const kvant_layer_transform *l = &t->layers[layer];
    rotate(v, t->head_dim, l->v, k);
    if (l->v_sign) multiply(v, l->v_sign, t->head_dim);
}

/* ---- the mean's part of a score ---- */

/* CHUNK pairs whose elements lie apart: qa[i] and qb[i] against ma[i] and mb[i]. */
static void pairs_of_halves(float *restrict out, const float *restrict qa, const float *restrict qb, const float *restrict ma,
                            const float *restrict mb) {
    for (int i = 0; i < CHUNK; i++) {
        out[2 * i] = qa[i] * ma[i] + qb[i] * mb[i];
        out[2 * i + 1] = qa[i] * mb[i] - qb[i] * ma[i];
    }
}

float kvant_transform_mean_query(const kvant_transforms *t, int layer, int kv_head, const float *q, float *query) {
    const kvant_layer_transform *l = &t->layers[layer];
    const float *m = mean_of(t, layer, kv_head);
    const kvant_rope_table *rope = l->rope >= 0 ? &t->ropes[l->rope] : NULL;
    int n_rot = rope ? rope->n_rot : 0;
    float still = 0.0f;
    for (int i = n_rot; i < t->head_dim; i++)
        still += q[i] * m[i];
    int i = 0, half = n_rot / 2;
    if (rope && !rope->interleaved)
        for (; i + CHUNK <= half; i += CHUNK)
            pairs_of_halves(query + 2 * i, q + i, q + half + i, m + i, m + half + i);
    for (; i < half; i++) {
        int a, b;
        kvant_rope_pair(rope->n_rot, rope->interleaved, i, &a, &b);
        query[2 * i] = q[a] * m[a] + q[b] * m[b];
        query[2 * i + 1] = q[a] * m[b] - q[b] * m[a];
    }
    return still;
}

void kvant_transform_turn_run(const kvant_transforms *t, int layer, int64_t run, const float *query, float *turned) {
    const kvant_layer_transform *l = &t->layers[layer];
    const kvant_rope_table *rope = &t->ropes[l->rope];
    turn_all(turned, query, rope->runs + (size_t)run * (size_t)rope->n_rot, rope->n_rot);
}

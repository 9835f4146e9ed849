// SPDX-License-Identifier: MIT
/* test_attend_mlx.c: MLX's order. max_kv_size attends as a rotating buffer that is kept here token by token; affine with float32
 * scales attends as values that are quantized here by MLX's rule. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "kvant/kvant.h"

#define DIM 64
#define MOST 700
#define KEEP KVANT_SINK_TOKENS

static uint64_t seed = 20261124;

static int draw(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static float k[MOST][DIM], v[MOST][DIM], q[MOST][DIM], out[MOST][DIM];

static void fill(float x[MOST][DIM]) {
    for (int t = 0; t < MOST; t++)
        for (int i = 0; i < DIM; i++)
            x[t][i] = (float)(draw(2000) - 1000) / 500.0f;
}

/* Softmax attention of one query with the n tokens of a list. */
static void attend_naively(const float *query, float keys[MOST][DIM], float values[MOST][DIM], const int *tokens, int n,
                           double *result) {
    double weight[MOST], sum = 0, max = -1e300;
    for (int j = 0; j < n; j++) {
        weight[j] = 0;
        for (int i = 0; i < DIM; i++)
            weight[j] += (double)query[i] * (double)keys[tokens[j]][i] * 0.125;
        if (weight[j] > max) max = weight[j];
    }
    for (int j = 0; j < n; j++)
        sum += weight[j] = exp(weight[j] - max);
    for (int i = 0; i < DIM; i++) {
        result[i] = 0;
        for (int j = 0; j < n; j++)
            result[i] += weight[j] / sum * (double)values[tokens[j]][i];
    }
}

static void expect_row(const double *want, const float *found, const char *what, int position) {
    for (int i = 0; i < DIM; i++)
        if (!(fabs(want[i] - (double)found[i]) < 2e-5))
            fail_msg("%s, position %d, element %d: found %.7g, expected %.7g", what, position, i, (double)found[i], want[i]);
}

typedef struct world {
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_sequence *s;
} world;

static world make_world(const char *format, int max_kv_size, int start) {
    world w;
    kvant_cache_config c;
    kvant_error err;
    assert_int_equal(kvant_context_create(2, KVANT_ISA_BEST, &w.ctx, NULL), KVANT_OK);
    kvant_cache_config_default(&c);
    c.n_layer = c.n_kv_head = 1;
    c.head_dim = DIM;
    c.max_kv_size = max_kv_size;
    c.quantize_after_step = true;
    c.quantized_kv_start = start;
    if (kvant_format_parse_pair(format, &c.k, &c.v, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (kvant_cache_create(w.ctx, &c, &w.cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    assert_int_equal(kvant_sequence_create(w.cache, &w.s), KVANT_OK);
    return w;
}

static void destroy_world(world *w) {
    kvant_sequence_destroy(w->s);
    kvant_cache_destroy(w->cache);
    kvant_context_destroy(w->ctx);
}

/* Appends n tokens after `length` and attends with the last n_rows of them. */
static void step(world *w, int length, int n, int n_rows) {
    kvant_attend_params params = {1, 0.125f, 0, NULL, KVANT_EXACT};
    assert_int_equal(kvant_sequence_append(w->s, 0, k[length], v[length], n), KVANT_OK);
    int first = length + n - n_rows;
    assert_int_equal(kvant_attend(w->s, 0, &params, q[first], n_rows, out[first]), KVANT_OK);
    assert_int_equal(kvant_maybe_quantize_kv_cache(w->s, NULL), KVANT_OK);
}

/* ---- the rotating buffer ---- */

typedef struct buffer {
    int tokens[2 * MOST], n, size, length; /* in the order of their positions */
} buffer;

static void drop_oldest(buffer *b, int n) {
    if (n <= 0) return;
    memmove(b->tokens + KEEP, b->tokens + KEEP + n, (size_t)(b->n - KEEP - n) * sizeof *b->tokens);
    b->n -= n;
}

/* Appends n tokens; offset: what the mask counts as places before them. */
static int rotate(buffer *b, int n) {
    int offset = b->length < b->size - 1 ? b->length : b->size - 1;
    drop_oldest(b, n > 1 ? b->n - b->size + 1 : b->n - b->size);
    if (n == 1 && b->n == b->size) drop_oldest(b, 1);
    for (int i = 0; i < n; i++)
        b->tokens[b->n++] = b->length++;
    return offset;
}

static void expect_rotation(world *w, buffer *b, int n, int n_rows) {
    int before = b->length, offset = rotate(b, n);
    double want[DIM];
    step(w, before, n, n_rows);
    for (int j = n - n_rows; j < n; j++) {
        int last = n > 1 ? offset + j : b->n - 1, first = n > 1 && last - b->size + 1 > 0 ? last - b->size + 1 : 0;
        attend_naively(q[before + j], k, v, b->tokens + first, last - first + 1, want);
        expect_row(want, out[before + j], "window", before + j);
    }
}

static void max_kv_size_is_a_rotating_buffer(void **state) {
    (void)state;
    fill(k);
    fill(v);
    fill(q);
    for (int round = 0; round < 30; round++) {
        buffer b = {.size = round < 3 ? 128 : KEEP + 1 + draw(150)};
        world w = make_world("f32", b.size, 0);
        while (b.length < MOST - 200) {
            int n = draw(3) == 0 ? 1 : 1 + draw(round % 2 ? 10 : 180);
            expect_rotation(&w, &b, n, draw(2) ? n : 1 + draw(n));
        }
        destroy_world(&w);
    }
}

/* ---- float32 scales ---- */

/* x as MLX's group quantization gives it back, in float32. */
static void quantize(float *x, int group, int bits) {
    float levels = (float)((1 << bits) - 1);
    for (int g = 0; g < DIM; g += group) {
        float min = x[g], max = x[g], bias = 0;
        for (int i = g; i < g + group; i++) {
            min = x[i] < min ? x[i] : min;
            max = x[i] > max ? x[i] : max;
        }
        float scale = (max - min) / levels;
        bool from_min = fabsf(min) > fabsf(max);
        if (!(scale > 1e-7f)) scale = 1e-7f;
        if (!from_min) scale = -scale;
        float edge = from_min ? min : max, steps = rintf(edge / scale);
        if (steps != 0) {
            scale = edge / steps;
            bias = edge;
        }
        for (int i = g; i < g + group; i++) {
            float code = rintf((x[i] - bias) / scale);
            x[i] = scale * (code < 0 ? 0 : code > levels ? levels : code) + bias;
        }
    }
}

static void float_scales_attend_as_mlx_does(void **state) {
    (void)state;
    static float dk[MOST][DIM], dv[MOST][DIM];
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64};
    int all[MOST];
    double want[DIM];
    fill(k);
    fill(v);
    fill(q);
    for (int t = 0; t < MOST; t++)
        all[t] = t;
    for (int b = 0; b < 12; b++) {
        int n_bits = bits[b / 2], group = groups[b % 2], first = 1 + draw(150), second = 1 + draw(150);
        char name[32];
        snprintf(name, sizeof name, "affine%d:%d.f32", n_bits, group);
        world w = make_world(name, 0, 0);
        /* The first chunk sees what was not quantized; all later ones see codes, their own too. */
        step(&w, 0, first, first);
        for (int t = 0; t < first; t++) {
            attend_naively(q[t], k, v, all, t + 1, want);
            expect_row(want, out[t], name, t);
        }
        memcpy(dk, k, sizeof dk);
        memcpy(dv, v, sizeof dv);
        for (int t = 0; t < first + second; t++) {
            quantize(dk[t], group, n_bits);
            quantize(dv[t], group, n_bits);
        }
        step(&w, first, second, second);
        for (int t = first; t < first + second; t++) {
            attend_naively(q[t], dk, dv, all, t + 1, want);
            expect_row(want, out[t], name, t);
        }
        destroy_world(&w);
    }
}

/* What a half float could not hold: neither the values, nor the scales. */
static void large_and_wrong_values_do_not_spoil_others(void **state) {
    (void)state;
    world w = make_world("affine4:32.f32", 0, 0);
    fill(k);
    fill(v);
    fill(q);
    k[0][0] = 1e6f;
    v[3][40] = 1e9f;
    v[4][1] = INFINITY;
    v[5][2] = NAN;
    step(&w, 0, 1, 1);
    step(&w, 1, 20, 20);
    for (int t = 1; t < 3; t++)
        for (int i = 0; i < DIM; i++)
            assert_true(isfinite(out[t][i]));
    for (int t = 6; t < 21; t++)
        for (int i = 0; i < DIM; i++)
            assert_true(!isnan(out[t][i]));
    destroy_world(&w);
}

int main(void) {
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_kv_size_is_a_rotating_buffer),
        cmocka_unit_test(float_scales_attend_as_mlx_does),
        cmocka_unit_test(large_and_wrong_values_do_not_spoil_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

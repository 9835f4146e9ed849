// SPDX-License-Identifier: MIT
/* test_transform.c: the rotation of every head_dim is orthonormal and its own inverse, transformed queries and keys keep their
 * products, and the mean of a block is the turned mean averaged over 16 tokens, at any position and under every kind of RoPE. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/calibration_internal.h"
#include "cache/transform.h"
#include "kernel/kernel_table.h"

#define SEED 314u

static uint64_t seed = SEED;

static double random_unit(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static float random_normal(void) {
    double u = random_unit() + 1e-300;
    return (float)(sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit()));
}

static const int dims[] = {16, 32, 48, 64, 80, 96, 112, 128, 160, 192, 256, 512};
#define N_DIM (sizeof dims / sizeof *dims)
#define N_KV_HEAD 2

typedef enum rope_kind { NO_ROPE, HALVES, NEIGHBOURS, PART_HALVES, PART_NEIGHBOURS, EMPTY, N_KIND } rope_kind;

typedef struct fixture {
    kvant_calibration *c;
    kvant_transforms t;
    kvant_rope_config rope;
    double frequency[KVANT_HEAD_DIM_MAX / 2];
    bool turns;
} fixture;

/* One layer with a calibration of random means (of `mean` deviations) and scales from 1/16 to 16. */
static void make(fixture *f, const char *kv, int d, rope_kind kind, float mean, bool center_floats) {
    bool part = kind == PART_HALVES || kind == PART_NEIGHBOURS;
    int n_rot = kind == EMPTY ? 0 : part ? d / 2 : d;
    for (int i = 0; i < n_rot / 2; i++)
        f->frequency[i] = pow(10000, -2.0 * i / n_rot);
    f->turns = kind != NO_ROPE;
    f->rope = (kvant_rope_config){n_rot, kind == NEIGHBOURS || kind == PART_NEIGHBOURS, part ? 1.5f : 1.0f, f->frequency};
    kvant_calibration_config config = {1, 2 * N_KV_HEAD, N_KV_HEAD, d, f->turns, &f->rope, NULL};
    assert_int_equal(kvant_calibration_create(&config, &f->c, NULL), KVANT_OK);
    float *row = calloc((size_t)(2 * N_KV_HEAD * d), sizeof *row);
    assert_int_equal(kvant_calibration_add(f->c, 0, 4, row, row, 1), KVANT_OK);
    free(row);
    assert_int_equal(kvant_calibration_finish(f->c, NULL), KVANT_OK);
    for (int i = 0; i < N_KV_HEAD * d; i++) {
        f->c->mean[i] = mean * random_normal();
        f->c->scale[i] = (float)exp2(8 * random_unit() - 4);
    }
    for (int h = 0; h < N_KV_HEAD; h++) /* the two elements of a pair share a scale */
        for (int i = 0; i < n_rot / 2; i++) {
            float *s = f->c->scale + h * d;
            if (f->rope.interleaved)
                s[2 * i + 1] = s[2 * i];
            else
                s[n_rot / 2 + i] = s[i];
        }
    kvant_cache_config cache;
    kvant_cache_config_default(&cache);
    cache.n_layer = 1;
    cache.n_kv_head = N_KV_HEAD;
    cache.head_dim = d;
    cache.calibration = f->c;
    cache.center_floats = center_floats;
    assert_int_equal(kvant_format_parse_pair(kv, &cache.k, &cache.v, NULL), KVANT_OK);
    assert_int_equal(kvant_transforms_create(&cache, &cache.k, &cache.v, &f->t), KVANT_OK);
    assert_int_equal(kvant_transforms_reserve(&f->t, 70000), KVANT_OK);
}

static void drop(fixture *f) {
    kvant_transforms_destroy(&f->t);
    kvant_calibration_destroy(f->c);
}

static double dot(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += (double)a[i] * b[i];
    return sum;
}

/* The images of all unit vectors are orthonormal, and each lies on all elements: none is larger than its share allows. */
static void the_rotation_is_orthonormal_and_spreads(void **state) {
    (void)state;
    static float image[512][512];
    for (size_t j = 0; j < N_DIM; j++)
        for (int level = 0; level < 2; level++) {
            const kvant_kernels *k = kvant_kernels_for(level ? KVANT_ISA_BEST : KVANT_ISA_REF);
            int d = dims[j];
            fixture f;
            double off = 0, largest = 0;
            make(&f, "bc4.bare/bc4", d, HALVES, 0, false);
            for (int i = 0; i < d; i++) {
                memset(image[i], 0, sizeof image[i]);
                image[i][i] = 1;
                kvant_transform_value(&f.t, 0, image[i], k);
                for (int e = 0; e < d; e++)
                    largest = fmax(largest, fabs(image[i][e]) * sqrt(d));
            }
            for (int a = 0; a < d; a++)
                for (int b = 0; b <= a; b++)
                    off = fmax(off, fabs(dot(image[a], image[b], d) - (a == b)));
            if (!(off < 1e-6)) fail_msg("head_dim %d: off by %g", d, off);
            /* A Hadamard matrix has 1 everywhere; the Hartley part of odd factors up to sqrt(2). */
            if (!(largest < 1.415)) fail_msg("head_dim %d: an element gets %g of its share", d, largest);
            drop(&f);
        }
}

static double distance(const float *a, const float *b, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
    return sqrt(sum);
}

static void keys_and_values_come_back(void **state) {
    (void)state;
    static const char *const formats[] = {"bc4", "i8", "lm4", "bc4.bare/bc4", "f16", "f32"};
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    double worst = 0;
    for (size_t j = 0; j < N_DIM; j++)
        for (int kind = 0; kind < N_KIND; kind++)
            for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
                int d = dims[j];
                fixture f;
                float x[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX], z[KVANT_HEAD_DIM_MAX], mean[KVANT_HEAD_DIM_MAX] = {0};
                make(&f, formats[i], d, (rope_kind)kind, 10, i % 2);
                for (int e = 0; e < d; e++)
                    x[e] = random_normal();
                if (f.t.layers[0].centred) kvant_transform_mean(&f.t, 0, 1, 12345, mean);
                kvant_transform_key(&f.t, 0, 1, x, mean, y, k);
                kvant_transform_key_back(&f.t, 0, 1, y, mean, z, k);
                worst = fmax(worst, distance(x, z, d) / sqrt(dot(x, x, d) + dot(mean, mean, d)));
                memcpy(y, x, sizeof y);
                kvant_transform_value(&f.t, 0, y, k);
                kvant_transform_value_back(&f.t, 0, y, k);
                worst = fmax(worst, distance(x, y, d) / sqrt(dot(x, x, d)));
                drop(&f);
            }
    print_message("forth and back: relative error %.1e\n", worst);
    assert_true(worst < 2e-5); /* scales from 1/16 to 16 amplify what a rotation rounds */
}

/* q . k = (transformed q) . (transformed k) + q . mean: with random scales, whose pairs RoPE turns together. */
static void products_of_queries_and_keys_are_kept(void **state) {
    (void)state;
    static const char *const formats[] = {"bc3", "i8", "bc4.bare/bc4", "f32", "f16"};
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    double worst = 0;
    for (size_t j = 0; j < N_DIM; j++)
        for (int kind = 0; kind < N_KIND; kind++)
            for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
                for (int head = 0; head < N_KV_HEAD; head++) {
                    int d = dims[j];
                    fixture f;
                    float x[KVANT_HEAD_DIM_MAX], q[KVANT_HEAD_DIM_MAX], y[KVANT_HEAD_DIM_MAX], mean[KVANT_HEAD_DIM_MAX] = {0};
                    make(&f, formats[i], d, (rope_kind)kind, 3, i >= 3);
                    for (int e = 0; e < d; e++) {
                        x[e] = random_normal();
                        q[e] = random_normal();
                    }
                    if (f.t.layers[0].centred) kvant_transform_mean(&f.t, 0, head, 777, mean);
                    double expected = dot(q, x, d), bound = 0;
                    kvant_transform_key(&f.t, 0, head, x, mean, y, k);
                    double still = dot(q, mean, d);
                    kvant_transform_query(&f.t, 0, head, q, k);
                    bound = sqrt(dot(q, q, d) * dot(y, y, d)) + fabs(still);
                    worst = fmax(worst, fabs(dot(q, y, d) + still - expected) / bound);
                    drop(&f);
                }
    print_message("products: relative error %.1e\n", worst);
    assert_true(worst < 1e-6);
}

/* The definition, in float64: the mean turned to each of the 16 positions of a block, averaged. */
static void mean_of_block(const fixture *f, int head, int64_t position, double *out) {
    const float *mean = f->c->mean + head * f->t.head_dim;
    int64_t first = position / 16 * 16;
    int n_rot = f->turns ? f->rope.n_rot : 0;
    for (int i = 0; i < f->t.head_dim; i++)
        out[i] = mean[i];
    for (int i = 0; i < n_rot / 2; i++) {
        int a = f->rope.interleaved ? 2 * i : i, b = f->rope.interleaved ? 2 * i + 1 : n_rot / 2 + i;
        out[a] = out[b] = 0;
        bool fast = i < KVANT_FAST_PAIRS; /* turned at every token, not averaged */
        for (int u = 0; u < (fast ? 1 : 16); u++) {
            double angle = (double)(fast ? position : first + u) * f->frequency[i], n = fast ? 1 : 16,
                   c = cos(angle) * f->rope.magnitude / n, s = sin(angle) * f->rope.magnitude / n;
            out[a] += mean[a] * c - mean[b] * s;
            out[b] += mean[a] * s + mean[b] * c;
        }
    }
}

static void the_mean_of_a_block_is_the_turned_mean_averaged(void **state) {
    (void)state;
    static const int64_t positions[] = {0, 3, 15, 16, 17, 63, 64, 255, 256, 1023, 1024, 1039, 1040, 4999, 5000, 65535, 69999};
    double worst = 0;
    for (int kind = 0; kind < N_KIND; kind++)
        for (size_t j = 0; j < 6; j++) {
            int d = dims[j];
            fixture f;
            make(&f, "bc4", d, (rope_kind)kind, 1, false);
            for (size_t p = 0; p < sizeof positions / sizeof *positions; p++)
                for (int head = 0; head < N_KV_HEAD; head++) {
                    float mean[KVANT_HEAD_DIM_MAX];
                    double expected[KVANT_HEAD_DIM_MAX], error = 0, norm = 0;
                    kvant_transform_mean(&f.t, 0, head, positions[p], mean);
                    mean_of_block(&f, head, positions[p], expected);
                    for (int i = 0; i < d; i++) {
                        error += (mean[i] - expected[i]) * (mean[i] - expected[i]);
                        norm += expected[i] * expected[i];
                    }
                    worst = fmax(worst, sqrt(error / norm));
                }
            drop(&f);
        }
    print_message("mean of a block: relative error %.1e\n", worst);
    assert_true(worst < 1e-6);
}

/* What attention adds to a score is the product of the query and the very mean that was subtracted. */
static void queries_meet_the_mean_that_was_subtracted(void **state) {
    (void)state;
    double worst = 0;
    for (int kind = 0; kind < N_KIND; kind++)
        for (size_t j = 0; j < 6; j++) {
            int d = dims[j];
            fixture f;
            make(&f, "bc4", d, (rope_kind)kind, 1, false);
            for (int64_t position = 0; position < 70000; position += 1237)
                for (int head = 0; head < N_KV_HEAD; head++) {
                    float mean[KVANT_HEAD_DIM_MAX], q[KVANT_HEAD_DIM_MAX], turn[KVANT_HEAD_DIM_MAX], turned[KVANT_HEAD_DIM_MAX];
                    for (int i = 0; i < d; i++)
                        q[i] = random_normal();
                    kvant_transform_mean(&f.t, 0, head, position, mean);
                    double found = kvant_transform_mean_query(&f.t, 0, head, q, turn);
                    if (f.turns) {
                        const kvant_rope_table *r = &f.t.ropes[0];
                        int block = (int)(position % KVANT_RUN_TOKENS / KVANT_MEAN_BLOCK);
                        kvant_transform_turn_run(&f.t, 0, position / KVANT_RUN_TOKENS, turn, turned);
                        for (int i = 0; i < r->n_rot; i++)
                            found += (double)turned[i] * r->within[(block / 16 * r->n_rot + i) * 16 + block % 16];
                        int in_page = (int)(position % KVANT_PAGE_TOKENS), u = in_page < 32 ? 31 - in_page : in_page - 32;
                        int page = (int)(position % KVANT_RUN_TOKENS / KVANT_PAGE_TOKENS), n_fast = r->n_fast;
                        for (int i = 0; i < n_fast; i++) {
                            const float *e = r->centres + 2 * (page * n_fast + i), *p = turned + 2 * i;
                            const float *side = r->sides + 32 * (u / 16 * n_fast + i) + u % 16;
                            double re = (double)p[0] * e[0] - (double)p[1] * e[1], im = (double)p[0] * e[1] + (double)p[1] * e[0];
                            found += re * side[0] + (in_page < 32 ? -im : im) * side[16];
                        }
                    }
                    worst = fmax(worst, fabs(found - dot(q, mean, d)) / sqrt(dot(q, q, d) * dot(mean, mean, d)));
                }
            drop(&f);
        }
    print_message("query times mean: relative error %.1e\n", worst);
    assert_true(worst < 1e-6);
}

/* Rows made later, a few tokens at a time, are those of one call. */
static void reserving_in_steps_makes_the_same_tables(void **state) {
    (void)state;
    fixture a, b;
    seed = 5;
    make(&a, "bc4", 96, PART_NEIGHBOURS, 1, false);
    seed = 5;
    make(&b, "bc4", 96, PART_NEIGHBOURS, 1, false);
    assert_int_equal(kvant_transforms_reserve(&a.t, 300000), KVANT_OK);
    for (int n = 70000; n <= 300000; n += 777)
        assert_int_equal(kvant_transforms_reserve(&b.t, n), KVANT_OK);
    assert_int_equal(kvant_transforms_reserve(&b.t, 300000), KVANT_OK);
    assert_int_equal(kvant_transforms_reserve(&b.t, 10), KVANT_OK);
    for (int64_t p = 0; p < 300000; p += 997) {
        float x[96], y[96];
        kvant_transform_mean(&a.t, 0, 1, p, x);
        kvant_transform_mean(&b.t, 0, 1, p, y);
        assert_memory_equal(x, y, sizeof x);
    }
    drop(&a);
    drop(&b);
}

/* Bit-exact formats and plain floats are not touched at all. */
static void formats_of_others_are_left_alone(void **state) {
    (void)state;
    static const char *const formats[] = {"f16", "f32", "affine4:32", "affine8:32"};
    const kvant_kernels *k = kvant_kernels_for(KVANT_ISA_BEST);
    for (size_t i = 0; i < 4; i++) {
        fixture f;
        float x[96], y[96], z[96];
        make(&f, formats[i], 96, HALVES, 5, false);
        assert_false(f.t.layers[0].centred);
        for (int e = 0; e < 96; e++)
            x[e] = z[e] = random_normal();
        kvant_transform_key(&f.t, 0, 0, x, NULL, y, k);
        assert_memory_equal(x, y, sizeof x);
        kvant_transform_query(&f.t, 0, 0, z, k);
        kvant_transform_value(&f.t, 0, z, k);
        assert_memory_equal(x, z, sizeof x);
        drop(&f);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_rotation_is_orthonormal_and_spreads),
        cmocka_unit_test(keys_and_values_come_back),
        cmocka_unit_test(products_of_queries_and_keys_are_kept),
        cmocka_unit_test(the_mean_of_a_block_is_the_turned_mean_averaged),
        cmocka_unit_test(queries_meet_the_mean_that_was_subtracted),
        cmocka_unit_test(reserving_in_steps_makes_the_same_tables),
        cmocka_unit_test(formats_of_others_are_left_alone),
    };
    print_message("seed %u\n", SEED);
    return cmocka_run_group_tests_name("transform", tests, NULL, NULL);
}

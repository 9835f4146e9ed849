// SPDX-License-Identifier: MIT
/* test_attend.c: attention over pages equals a plain double-precision computation on the decoded vectors, in every format, with
 * windows, first tokens, soft-caps and sinks; and its bits do not depend on how the tokens were split or on the threads. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/memory.h"
#include "kvant/kvant.h"

typedef struct setup {
    const char *kv;
    int n_head, n_kv_head, head_dim, window, max_kv_size;
    float softcap;
    bool sinks;
    int n;             /* tokens in all */
    double fast_bound; /* of a row's error when queries and weights are integers; a 4-bit format itself loses about 0.16 */
} setup;

static uint64_t seed;

static float random_normal(void) {
    float sum = 0;
    for (int i = 0; i < 4; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        sum += (float)(seed >> 40) / 16777216.0f - 0.5f;
    }
    return sum * 1.7f;
}

static float *random_rows(size_t n) {
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = random_normal();
    return x;
}

static kvant_cache *make_cache(kvant_context *ctx, const setup *t, const int *window) {
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    config.n_layer = 1;
    config.n_kv_head = t->n_kv_head;
    config.head_dim = t->head_dim;
    config.layer_window = window;
    config.max_kv_size = t->max_kv_size;
    assert_int_equal(kvant_format_parse_pair(t->kv, &config.k, &config.v, NULL), KVANT_OK);
    kvant_cache *cache = NULL;
    kvant_error err = {0};
    if (kvant_cache_create(ctx, &config, &cache, &err) != KVANT_OK) fail_msg("%s", err.message);
    return cache;
}

/* Appends and attends in steps of `step` tokens. */
static float *run(const setup *t, int threads, kvant_isa isa, kvant_precision precision, int step, const float *q, const float *k,
                  const float *v, const float *sinks) {
    kvant_context *ctx = NULL;
    assert_int_equal(kvant_context_create(threads, isa, &ctx, NULL), KVANT_OK);
    kvant_cache *cache = make_cache(ctx, t, &t->window);
    kvant_sequence *s = NULL;
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    size_t kv_row = (size_t)t->n_kv_head * (size_t)t->head_dim, q_row = (size_t)t->n_head * (size_t)t->head_dim;
    float *out = calloc((size_t)t->n * q_row, sizeof *out);
    kvant_attend_params params = {t->n_head, 1.0f / sqrtf((float)t->head_dim), t->softcap, t->sinks ? sinks : NULL, precision};
    for (int at = 0; at < t->n; at += step) {
        int n = t->n - at < step ? t->n - at : step;
        assert_int_equal(kvant_sequence_append(s, 0, k + (size_t)at * kv_row, v + (size_t)at * kv_row, n), KVANT_OK);
        assert_int_equal(kvant_attend(s, 0, &params, q + (size_t)at * q_row, n, out + (size_t)at * q_row), KVANT_OK);
        assert_int_equal(kvant_maybe_quantize_kv_cache(s, NULL), KVANT_OK);
    }
    kvant_sequence_destroy(s);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
    return out;
}

static bool visible(const setup *t, int token, int position) {
    int size = t->window, keep = 0;
    if (t->max_kv_size && (!size || size > t->max_kv_size - KVANT_SINK_TOKENS)) {
        size = t->max_kv_size - KVANT_SINK_TOKENS;
        keep = KVANT_SINK_TOKENS;
    }
    return token <= position && (!size || position - token < size || token < keep);
}

/* What one row must be, in double precision, from vectors that went through the format once. */
static void reference_row(const setup *t, const float *q, const float *k, const float *v, const float *sinks, int position,
                          int head, double *out) {
    int d = t->head_dim, kv = head / (t->n_head / t->n_kv_head);
    double *p = malloc((size_t)(position + 1) * sizeof *p), max = t->sinks ? sinks[head] : -INFINITY, sum = 0;
    const float *query = q + ((size_t)position * (size_t)t->n_head + (size_t)head) * (size_t)d;
    for (int j = 0; j <= position; j++) {
        const float *key = k + ((size_t)j * (size_t)t->n_kv_head + (size_t)kv) * (size_t)d;
        double dot = 0;
        for (int i = 0; i < d; i++)
            dot += (double)query[i] * key[i];
        p[j] = dot / sqrt(d);
        if (t->softcap > 0) p[j] = t->softcap * tanh(p[j] / t->softcap);
        if (!visible(t, j, position)) p[j] = -INFINITY;
        if (p[j] > max) max = p[j];
    }
    for (int i = 0; i < d; i++)
        out[i] = 0;
    if (t->sinks) sum += exp(sinks[head] - max);
    for (int j = 0; j <= position; j++) {
        double w = exp(p[j] - max);
        sum += w;
        const float *value = v + ((size_t)j * (size_t)t->n_kv_head + (size_t)kv) * (size_t)d;
        for (int i = 0; i < d; i++)
            out[i] += w * value[i];
    }
    for (int i = 0; i < d; i++)
        out[i] /= sum;
    free(p);
}

/* Sends k and v through the format of a cache without windows. */
static void through_format(const setup *t, float *k, float *v) {
    setup plain = *t;
    plain.window = plain.max_kv_size = 0;
    kvant_context *ctx = NULL;
    assert_int_equal(kvant_context_create(1, KVANT_ISA_REF, &ctx, NULL), KVANT_OK);
    kvant_cache *cache = make_cache(ctx, &plain, NULL);
    kvant_sequence *s = NULL;
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_sequence_append(s, 0, k, v, t->n), KVANT_OK);
    for (int j = 0; j < t->n; j++)
        for (int h = 0; h < t->n_kv_head; h++) {
            size_t at = ((size_t)j * (size_t)t->n_kv_head + (size_t)h) * (size_t)t->head_dim;
            assert_int_equal(kvant_sequence_decode(s, 0, j, h, k + at, v + at), KVANT_OK);
        }
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
}

static double worst_error(const setup *t, const float *out, const float *q, const float *k, const float *v, const float *sinks) {
    double worst = 0, *row = malloc((size_t)t->head_dim * sizeof *row);
    for (int p = 0; p < t->n; p += p < 8 || t->n - p < 70 ? 1 : 37)
        for (int h = 0; h < t->n_head; h++) {
            reference_row(t, q, k, v, sinks, p, h, row);
            const float *got = out + ((size_t)p * (size_t)t->n_head + (size_t)h) * (size_t)t->head_dim;
            double error = 0, norm = 0;
            for (int i = 0; i < t->head_dim; i++) {
                error += (got[i] - row[i]) * (got[i] - row[i]);
                norm += row[i] * row[i];
            }
            error = sqrt(error / (norm + 1e-12));
            if (!(error <= worst)) worst = error;
        }
    free(row);
    return worst;
}

static const setup setups[] = {
    {"f32", 4, 2, 8, 0, 0, 0, false, 200, 3e-5},
    {"f16", 3, 1, 80, 0, 0, 0, false, 150, 3e-5},
    {"f16", 4, 2, 64, 50, 0, 0, true, 300, 3e-5},
    {"affine4:64", 6, 2, 64, 0, 0, 0, false, 1100, 0.03},
    {"affine2:32", 4, 4, 96, 0, 0, 0, false, 130, 0.03},
    {"affine3:64", 2, 1, 128, 70, 0, 0, true, 400, 0.03},
    {"affine5:32", 8, 2, 64, 0, 100, 0, false, 400, 3e-5},
    {"affine6:128", 6, 2, 128, 0, 0, 30, false, 200, 3e-5},
    {"affine8:64", 4, 1, 256, 0, 0, 0, false, 300, 3e-5},
    {"affine8:32/affine4:32", 2, 2, 32, 0, 64, 0, true, 500, 0.03},
    {"f16/affine6:64", 3, 3, 64, 130, 100, 0, false, 600, 3e-5},
    {"affine4:64", 2, 2, 64, 0, 0, 0, false, 5200, 0.03},
};

static void attention_equals_the_definition_in_every_format(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++) {
        const setup *t = &setups[i];
        seed = 1234 + i;
        size_t kv = (size_t)t->n * (size_t)t->n_kv_head * (size_t)t->head_dim,
               qn = (size_t)t->n * (size_t)t->n_head * (size_t)t->head_dim;
        float *q = random_rows(qn), *k = random_rows(kv), *v = random_rows(kv), sinks[16];
        for (int h = 0; h < 16; h++)
            sinks[h] = random_normal();
        int step = t->n > 5000 ? 512 : 61;
        float *exact = run(t, 2, KVANT_ISA_BEST, KVANT_EXACT, step, q, k, v, sinks);
        float *fast = run(t, 2, KVANT_ISA_BEST, KVANT_FAST, step, q, k, v, sinks);
        if (t->n <= 2000) {
            int split = t->n > 1000 ? t->n : 1;
            float *again = run(t, 1, KVANT_ISA_REF, KVANT_EXACT, split, q, k, v, sinks);
            float *fast_again = run(t, 3, KVANT_ISA_REF, KVANT_FAST, 7, q, k, v, sinks);
            assert_memory_equal(exact, again, qn * sizeof(float));
            assert_memory_equal(fast, fast_again, qn * sizeof(float));
            free(again);
            free(fast_again);
        }
        through_format(t, k, v);
        double e = worst_error(t, exact, q, k, v, sinks), f = worst_error(t, fast, q, k, v, sinks);
        print_message("%s, head_dim %d: relative error of a row, exact %.1e, fast %.1e\n", t->kv, t->head_dim, e, f);
        assert_true(e < 3e-5);
        assert_true(f < t->fast_bound);
        free(q);
        free(k);
        free(v);
        free(exact);
        free(fast);
    }
}

/* Decode steps at a depth of several runs give the bits of one prefill. */
static void a_token_alone_has_the_bits_of_its_row_in_a_prefill(void **state) {
    (void)state;
    const setup t = {"affine4:64", 3, 1, 64, 0, 0, 0, false, 1300, 0};
    seed = 77;
    size_t kv = (size_t)t.n * 64, qn = (size_t)t.n * 192;
    float *q = random_rows(qn), *k = random_rows(kv), *v = random_rows(kv);
    float *one = run(&t, 2, KVANT_ISA_BEST, KVANT_FAST, 1, q, k, v, NULL);
    float *all = run(&t, 1, KVANT_ISA_BEST, KVANT_FAST, 1300, q, k, v, NULL);
    assert_memory_equal(one, all, qn * sizeof(float));
    free(q);
    free(k);
    free(v);
    free(one);
    free(all);
}

/* Decoding allocates a page each 64 tokens, and nothing between. */
static void a_decoded_token_allocates_nothing_between_pages(void **state) {
    (void)state;
    static const char *const kv[] = {"f16", "affine8:64", "affine4:64", "affine2:32"};
    seed = 5;
    float *q = random_rows(192), *k = random_rows(1100 * 64), out[192];
    for (size_t i = 0; i < sizeof kv / sizeof kv[0]; i++)
        for (int threads = 1; threads <= 2; threads++) {
            const setup t = {kv[i], 3, 1, 64, 0, 0, 0, false, 0, 0};
            kvant_context *ctx = NULL;
            kvant_sequence *s = NULL;
            kvant_attend_params params = {3, 0.125f, 0, NULL, KVANT_FAST};
            assert_int_equal(kvant_context_create(threads, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
            kvant_cache *cache = make_cache(ctx, &t, NULL);
            assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
            assert_int_equal(kvant_sequence_append(s, 0, k, k, 1089), KVANT_OK);
            assert_int_equal(kvant_attend(s, 0, &params, q, 1, out), KVANT_OK);
            uint64_t before = kvant_alloc_count();
            for (int token = 1089; token < 1152; token++) {
                assert_int_equal(kvant_sequence_append(s, 0, k, k, 1), KVANT_OK);
                assert_int_equal(kvant_attend(s, 0, &params, q, 1, out), KVANT_OK);
                assert_int_equal(kvant_maybe_quantize_kv_cache(s, NULL), KVANT_OK);
            }
            assert_int_equal(kvant_alloc_count(), before);
            kvant_sequence_destroy(s);
            kvant_cache_destroy(cache);
            kvant_context_destroy(ctx);
        }
    free(q);
    free(k);
}

static void rows_whose_window_was_dropped_are_refused(void **state) {
    (void)state;
    const int window = 64;
    const setup t = {"affine4:32", 2, 1, 32, 0, 0, 0, false, 0, 0};
    kvant_context *ctx = NULL;
    kvant_sequence *s = NULL;
    kvant_attend_params params = {2, 0.2f, 0, NULL, KVANT_FAST};
    float *x = random_rows(400 * 64), *out = malloc(400 * 64 * sizeof *out);
    assert_int_equal(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    kvant_cache *cache = make_cache(ctx, &t, &window);
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_sequence_append(s, 0, x, x, 200), KVANT_OK);
    assert_int_equal(kvant_attend(s, 0, &params, x, 200, out), KVANT_OK); /* nothing is dropped before they were attended to */
    assert_int_equal(kvant_sequence_append(s, 0, x, x, 100), KVANT_OK);
    assert_int_equal(kvant_attend(s, 0, &params, x, 300, out), KVANT_EINVAL);
    assert_int_equal(kvant_attend(s, 0, &params, x, 301, out), KVANT_EINVAL);
    assert_int_equal(kvant_attend(s, 0, &params, x, 100, out), KVANT_OK);
    params.n_head = 0;
    assert_int_equal(kvant_attend(s, 0, &params, x, 1, out), KVANT_EINVAL);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
    free(x);
    free(out);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(attention_equals_the_definition_in_every_format),
                                       cmocka_unit_test(a_token_alone_has_the_bits_of_its_row_in_a_prefill),
                                       cmocka_unit_test(a_decoded_token_allocates_nothing_between_pages),
                                       cmocka_unit_test(rows_whose_window_was_dropped_are_refused)};
    return cmocka_run_group_tests_name("attend", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_attend_batch.c: sequences that are attended to together have the bits that each has alone with one thread: short beside long
 * (several runs of pages), one token beside many, with windows, in caches of several formats, for any number of threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "attn/attend.h"

#define N_MOST 6
#define N_KV_HEAD 3
#define N_HEAD 9
#define HEAD_DIM 64
#define KV_ROW (N_KV_HEAD * HEAD_DIM)
#define Q_ROW (N_HEAD * HEAD_DIM)
#define LONGEST 3000
#define MOST_ROWS 40

static uint64_t seed = 11;

static int draw(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static void random_floats(float *x, size_t n) {
    for (size_t i = 0; i < n; i++)
        x[i] = (float)(draw(2000) - 1000) / 500.0f;
}

static const char *const formats[] = {"f16", "affine4:64", "i8.bare", "bc4.bare"};
#define N_FORMATS 4

/* One context with a cache for each format, and the sequences of a case. */
typedef struct world {
    kvant_context *ctx;
    kvant_cache *caches[N_FORMATS];
    kvant_sequence *s[N_MOST];
} world;

static world make_world(int threads, int window) {
    world w = {0};
    assert_int_equal(kvant_context_create(threads, KVANT_ISA_BEST, &w.ctx, NULL), KVANT_OK);
    for (int f = 0; f < N_FORMATS; f++) {
        kvant_cache_config config;
        kvant_error err = {0};
        kvant_cache_config_default(&config);
        config.n_layer = 1;
        config.n_kv_head = N_KV_HEAD;
        config.head_dim = HEAD_DIM;
        config.layer_window = &window;
        if (kvant_format_parse_pair(formats[f], &config.k, &config.v, &err) != KVANT_OK) fail_msg("%s", err.message);
        if (kvant_cache_create(w.ctx, &config, &w.caches[f], &err) != KVANT_OK) fail_msg("%s", err.message);
    }
    return w;
}

static void destroy_world(world *w) {
    for (int i = 0; i < N_MOST; i++)
        kvant_sequence_destroy(w->s[i]);
    for (int f = 0; f < N_FORMATS; f++)
        kvant_cache_destroy(w->caches[f]);
    kvant_context_destroy(w->ctx);
}

static float *k, *v, *q, *expected, *out; /* [LONGEST] rows, [N_MOST][MOST_ROWS] rows */

static void check_case(int threads, int n_items, int window) {
    kvant_attend_params params = {N_HEAD, 0.125f, 0, NULL, draw(3) == 0 ? KVANT_EXACT : KVANT_FAST};
    kvant_attend_item items[N_MOST];
    world one = make_world(1, window), many = make_world(threads, window);
    memset(out, 0, N_MOST * MOST_ROWS * Q_ROW * sizeof *out);
    memset(expected, 0, N_MOST * MOST_ROWS * Q_ROW * sizeof *out);
    for (int i = 0; i < n_items; i++) {
        int f = draw(N_FORMATS), n = draw(3) == 0 ? draw(MOST_ROWS + 1) : 1, before = draw(2) ? draw(LONGEST - n) : draw(200);
        float *x = expected + (size_t)i * MOST_ROWS * Q_ROW;
        const float *query = q + (size_t)i * MOST_ROWS * Q_ROW;
        world *worlds[] = {&one, &many};
        for (int j = 0; j < 2; j++) {
            assert_int_equal(kvant_sequence_create(worlds[j]->caches[f], &worlds[j]->s[i]), KVANT_OK);
            assert_int_equal(kvant_sequence_append(worlds[j]->s[i], 0, k, v, before), KVANT_OK);
            assert_int_equal(kvant_sequence_append(worlds[j]->s[i], 0, k + (size_t)before * KV_ROW, v + (size_t)before * KV_ROW, n), KVANT_OK);
        }
        assert_int_equal(kvant_attend(one.s[i], 0, &params, query, n, x), KVANT_OK);
        items[i] = (kvant_attend_item){many.s[i], query, n, out + (size_t)i * MOST_ROWS * Q_ROW};
    }
    assert_int_equal(kvant_attend_batch(items, n_items, 0, &params), KVANT_OK);
    for (int i = 0; i < n_items; i++)
        if (memcmp(out + (size_t)i * MOST_ROWS * Q_ROW, expected + (size_t)i * MOST_ROWS * Q_ROW, MOST_ROWS * Q_ROW * sizeof *out) != 0)
            fail_msg("item %d of %d (%d rows at %lld), %d threads, window %d: bits differ", i, n_items, items[i].n,
                     (long long)kvant_sequence_length(items[i].s), threads, window);
    destroy_world(&one);
    destroy_world(&many);
}

static void sequences_together_have_the_bits_of_each_alone(void **state) {
    (void)state;
    for (int i = 0; i < 24; i++)
        check_case(1 + draw(4), 1 + i % N_MOST, draw(3) == 0 ? 1 + draw(1500) : 0);
}

static void a_batch_with_an_impossible_item_writes_nothing(void **state) {
    (void)state;
    kvant_attend_params params = {N_HEAD, 0.125f, 0, NULL, KVANT_FAST};
    world w = make_world(2, 0), other = make_world(1, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(kvant_sequence_create(w.caches[i], &w.s[i]), KVANT_OK);
        assert_int_equal(kvant_sequence_append(w.s[i], 0, k, v, 5), KVANT_OK);
    }
    assert_int_equal(kvant_sequence_create(other.caches[0], &other.s[0]), KVANT_OK);
    assert_int_equal(kvant_sequence_append(other.s[0], 0, k, v, 5), KVANT_OK);
    out[0] = 12345;
    kvant_attend_item bad[2] = {{w.s[0], q, 1, out}, {w.s[1], q, 6, out + Q_ROW}};
    assert_int_equal(kvant_attend_batch(bad, 2, 0, &params), KVANT_EINVAL);
    bad[1] = (kvant_attend_item){other.s[0], q, 1, out + Q_ROW};
    assert_int_equal(kvant_attend_batch(bad, 2, 0, &params), KVANT_EINVAL); /* of another context */
    bad[1].s = w.s[1];
    assert_int_equal(kvant_attend_batch(bad, 2, 1, &params), KVANT_EINVAL);
    assert_int_equal(kvant_attend_batch(bad, -1, 0, &params), KVANT_EINVAL);
    assert_true(out[0] == 12345);
    assert_int_equal(kvant_attend_batch(bad, 0, 0, &params), KVANT_OK);
    assert_int_equal(kvant_attend_batch(bad, 2, 0, &params), KVANT_OK);
    assert_true(out[0] != 12345);
    destroy_world(&w);
    destroy_world(&other);
}

/* test_attend_batch [SEED] */
int main(int argc, char **argv) {
    if (argc > 1) seed = strtoull(argv[1], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    k = malloc(LONGEST * KV_ROW * sizeof *k);
    v = malloc(LONGEST * KV_ROW * sizeof *v);
    q = malloc(N_MOST * MOST_ROWS * Q_ROW * sizeof *q);
    out = malloc(N_MOST * MOST_ROWS * Q_ROW * sizeof *out);
    expected = malloc(N_MOST * MOST_ROWS * Q_ROW * sizeof *out);
    if (!k || !v || !q || !out || !expected) return 1;
    random_floats(k, LONGEST * KV_ROW);
    random_floats(v, LONGEST * KV_ROW);
    random_floats(q, N_MOST * MOST_ROWS * Q_ROW);
    const struct CMUnitTest tests[] = {cmocka_unit_test(sequences_together_have_the_bits_of_each_alone),
                                       cmocka_unit_test(a_batch_with_an_impossible_item_writes_nothing)};
    int failed = cmocka_run_group_tests_name("attend batch", tests, NULL, NULL);
    free(k);
    free(v);
    free(q);
    free(out);
    free(expected);
    return failed;
}

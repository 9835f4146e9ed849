// SPDX-License-Identifier: MIT
/* test_calibration.c: a calibration finds the mean of turned keys and the scales that its rule states, whatever pairs RoPE turns;
 * it refuses what it cannot use by naming it; its bytes come back as they were, and not at all when one of them changed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/hash.h"
#include "kvant/kvant.h"

#define SEED 4711u
#define N_HEAD 6
#define N_KV_HEAD 2
#define DIM 24
#define CHECKSUM_AT 48
#define HEADER 64

static uint64_t seed;

static double random_unit(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static double random_normal(void) {
    double u = random_unit() + 1e-300;
    return sqrt(-2 * log(u)) * cos(6.283185307179586 * random_unit());
}

static double frequency[2][DIM / 2];

/* Three layers: whole RoPE in halves, part of the elements in neighbours with a magnitude, none. */
static kvant_calibration_config config_of(kvant_rope_config ropes[2]) {
    static const int layer_rope[3] = {0, 1, -1};
    for (int i = 0; i < DIM / 2; i++) {
        frequency[0][i] = pow(20, -2.0 * i / DIM); /* pairs of middle speed, whose mean a block keeps in part */
        frequency[1][i] = pow(500, -2.0 * i / 16);
    }
    ropes[0] = (kvant_rope_config){DIM, false, 1.0f, frequency[0]};
    ropes[1] = (kvant_rope_config){16, true, 1.25f, frequency[1]};
    return (kvant_calibration_config){3, N_HEAD, N_KV_HEAD, DIM, 2, ropes, layer_rope};
}

static kvant_calibration *make(void) {
    kvant_rope_config ropes[2];
    kvant_calibration_config config = config_of(ropes);
    kvant_calibration *c = NULL;
    assert_int_equal(kvant_calibration_create(&config, &c, NULL), KVANT_OK);
    return c;
}

static void places(const kvant_rope_config *r, int i, int *a, int *b) {
    *a = r->interleaved ? 2 * i : i;
    *b = r->interleaved ? 2 * i + 1 : r->n_rot / 2 + i;
}

static void turn(const kvant_rope_config *r, int64_t position, float *x) {
    for (int i = 0; r && i < r->n_rot / 2; i++) {
        int a, b;
        places(r, i, &a, &b);
        double angle = (double)position * r->frequency[i], c = cos(angle) * r->magnitude, s = sin(angle) * r->magnitude,
               re = x[a], im = x[b];
        x[a] = (float)(re * c - im * s);
        x[b] = (float)(re * s + im * c);
    }
}

#define N_TOKEN 2000

/* Keys of mean i % 7 - 3 and a deviation that grows with i; queries that shrink with i; 4 tokens that look like no others. */
static void make_rows(const kvant_rope_config *r, float *k, float *q) {
    for (int t = 0; t < N_TOKEN; t++, k += N_KV_HEAD * DIM, q += N_HEAD * DIM) {
        for (int h = 0; h < N_KV_HEAD; h++) {
            for (int i = 0; i < DIM; i++)
                k[h * DIM + i] = t < 4 ? 1000.0f : (float)(i % 7 - 3 + h + (1 + i) * 0.1 * random_normal());
            turn(r, t, k + h * DIM);
        }
        for (int h = 0; h < N_HEAD; h++) {
            for (int i = 0; i < DIM; i++)
                q[h * DIM + i] = t < 4 ? 1000.0f : (float)((1 + h % 3) * 3.0 / (1 + i) * random_normal());
            turn(r, t, q + h * DIM);
        }
    }
}

static void add_all(kvant_calibration *c, int step) {
    kvant_rope_config ropes[2];
    kvant_calibration_config config = config_of(ropes);
    float *k = malloc(sizeof(float) * N_TOKEN * N_KV_HEAD * DIM), *q = malloc(sizeof(float) * N_TOKEN * N_HEAD * DIM);
    seed = SEED;
    for (int layer = 0; layer < 3; layer++) {
        make_rows(config.layer_rope[layer] < 0 ? NULL : &ropes[config.layer_rope[layer]], k, q);
        for (int t = 0; t < N_TOKEN; t += step) {
            int n = N_TOKEN - t < step ? N_TOKEN - t : step;
            assert_int_equal(kvant_calibration_add(c, layer, t, k + t * N_KV_HEAD * DIM, q + t * N_HEAD * DIM, n), KVANT_OK);
        }
    }
    free(k);
    free(q);
}

static kvant_calibration *make_finished(void) {
    kvant_calibration *c = make();
    add_all(c, 250);
    assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK);
    return c;
}

static void the_mean_is_found_under_every_way_of_turning(void **state) {
    (void)state;
    kvant_calibration *c = make_finished();
    assert_int_equal(kvant_calibration_tokens(c), N_TOKEN - 4);
    for (int layer = 0; layer < 3; layer++)
        for (int h = 0; h < N_KV_HEAD; h++) {
            const float *mean, *scale;
            assert_int_equal(kvant_calibration_get(c, layer, h, &mean, &scale), KVANT_OK);
            for (int i = 0; i < DIM; i++) {
                double error = fabs(mean[i] - (i % 7 - 3 + h)), bound = 5 * (1 + i) * 0.1 / sqrt(N_TOKEN);
                if (!(error < bound)) fail_msg("layer %d, head %d, element %d: off by %g, bound %g", layer, h, i, error, bound);
            }
        }
    kvant_calibration_destroy(c);
}

/* After scaling, keys and queries have the same energy in each pair; of the keys counts what a block's mean leaves. */
static void keys_and_queries_have_equal_energy_after_scaling(void **state) {
    (void)state;
    kvant_rope_config ropes[2];
    kvant_calibration_config config = config_of(ropes);
    kvant_calibration *c = make_finished();
    for (int layer = 0; layer < 3; layer++) {
        const kvant_rope_config *r = config.layer_rope[layer] < 0 ? NULL : &ropes[config.layer_rope[layer]];
        for (int h = 0; h < N_KV_HEAD; h++) {
            const float *mean, *scale;
            assert_int_equal(kvant_calibration_get(c, layer, h, &mean, &scale), KVANT_OK);
            for (int i = 0; i < DIM; i++) {
                int a = i, b = i;
                double left = 0, magnitude = 1;
                for (int p = 0; r && p < r->n_rot / 2; p++) {
                    int x, y;
                    places(r, p, &x, &y);
                    if (x != i && y != i) continue;
                    a = x;
                    b = y;
                    magnitude = r->magnitude;
                    double re = 0, im = 0;
                    for (int u = 0; u < 16; u++) {
                        re += cos(u * r->frequency[p]) / 16;
                        im += sin(u * r->frequency[p]) / 16;
                    }
                    /* The mean of the fast pairs is subtracted at every token: nothing of it is left. */
                    left = p < 8 ? 0 : (1 - re * re - im * im) * (pow(a % 7 - 3 + h, 2) + pow(b % 7 - 3 + h, 2));
                }
                /* Keys are measured before RoPE, queries with its magnitude. */
                double key = pow((1 + a) * 0.1, 2) + (a != b ? pow((1 + b) * 0.1, 2) : 0) + left;
                double query =
                    14.0 / 3 * 9 * (pow(1.0 / (1 + a), 2) + (a != b ? pow(1.0 / (1 + b), 2) : 0)) * magnitude * magnitude;
                double expected = pow(query / key, 0.25);
                assert_true(scale[a] == scale[b]);
                if (!(fabs(scale[i] / expected - 1) < 0.05)) /* five deviations of the sampling */
                    fail_msg("layer %d, head %d, element %d: scale %g, expected %g", layer, h, i, (double)scale[i], expected);
            }
        }
    }
    kvant_calibration_destroy(c);
}

static void steps_do_not_matter(void **state) {
    (void)state;
    kvant_calibration *a = make(), *b = make();
    const uint8_t print[KVANT_FINGERPRINT_BYTES] = {1, 2, 3};
    uint8_t *x, *y;
    size_t n, m;
    add_all(a, N_TOKEN);
    add_all(b, 1);
    assert_int_equal(kvant_calibration_finish(a, NULL), KVANT_OK);
    assert_int_equal(kvant_calibration_finish(b, NULL), KVANT_OK);
    assert_int_equal(kvant_calibration_write(a, print, &x, &n), KVANT_OK);
    assert_int_equal(kvant_calibration_write(b, print, &y, &m), KVANT_OK);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
    kvant_calibration_bytes_free(x);
    kvant_calibration_bytes_free(y);
    kvant_calibration_destroy(a);
    kvant_calibration_destroy(b);
}

static void nothing_is_added_after_the_end_or_outside(void **state) {
    (void)state;
    float k[N_KV_HEAD * DIM] = {0}, q[N_HEAD * DIM] = {0};
    const float *mean, *scale;
    kvant_calibration *c = make_finished();
    assert_int_equal(kvant_calibration_add(c, 0, 9, k, q, 1), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK); /* again: nothing happens */
    assert_int_equal(kvant_calibration_tokens(c), N_TOKEN - 4);
    assert_int_equal(kvant_calibration_get(c, 3, 0, &mean, &scale), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_get(c, -1, 0, &mean, &scale), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_get(c, 0, N_KV_HEAD, &mean, &scale), KVANT_EINVAL);
    kvant_calibration_destroy(c);
    c = make();
    assert_int_equal(kvant_calibration_add(c, 3, 9, k, q, 1), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_add(c, -1, 9, k, q, 1), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_add(c, 0, -1, k, q, 1), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_add(c, 0, 9, k, q, -1), KVANT_EINVAL);
    assert_int_equal(kvant_calibration_get(c, 0, 0, &mean, &scale), KVANT_EINVAL); /* not finished */
    uint8_t *bytes;
    size_t size;
    assert_int_equal(kvant_calibration_write(c, (const uint8_t[16]){0}, &bytes, &size), KVANT_EINVAL);
    kvant_calibration_destroy(c);
}

/* A layer that has seen no token, or only first ones, is named. */
static void an_unseen_layer_is_named(void **state) {
    (void)state;
    float k[4 * N_KV_HEAD * DIM] = {0}, q[4 * N_HEAD * DIM] = {0};
    kvant_error err = {0};
    kvant_calibration *c = make();
    assert_int_equal(kvant_calibration_add(c, 0, 4, k, q, 1), KVANT_OK);
    assert_int_equal(kvant_calibration_add(c, 1, 0, k, q, 4), KVANT_OK);
    assert_int_equal(kvant_calibration_tokens(c), 0);
    assert_int_equal(kvant_calibration_finish(c, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "layer 1"));
    assert_int_equal(kvant_calibration_add(c, 1, 4, k, q, 1), KVANT_OK); /* it goes on */
    assert_int_equal(kvant_calibration_finish(c, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "layer 2"));
    assert_int_equal(kvant_calibration_add(c, 2, 4, k, q, 1), KVANT_OK);
    assert_int_equal(kvant_calibration_finish(c, &err), KVANT_OK);
    kvant_calibration_destroy(c);
}

static void values_that_are_no_numbers_leave_finite_ones(void **state) {
    (void)state;
    const float hostile[] = {NAN, INFINITY, -INFINITY, 3e38f, 1e-40f, 0};
    for (size_t j = 0; j < 6; j++)
        for (int where = 1; where <= 3; where++) {
            float k[N_KV_HEAD * DIM], q[N_HEAD * DIM];
            kvant_calibration *c = make();
            for (int t = 4; t < 40; t++)
                for (int layer = 0; layer < 3; layer++) {
                    for (int i = 0; i < N_KV_HEAD * DIM; i++)
                        k[i] = where & 1 && (i + t) % 5 == 0 ? hostile[j] : (float)random_normal();
                    for (int i = 0; i < N_HEAD * DIM; i++)
                        q[i] = where & 2 && (i + t) % 5 == 0 ? hostile[j] : (float)random_normal();
                    assert_int_equal(kvant_calibration_add(c, layer, t, k, q, 1), KVANT_OK);
                }
            assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK);
            for (int layer = 0; layer < 3; layer++)
                for (int h = 0; h < N_KV_HEAD; h++) {
                    const float *mean, *scale;
                    assert_int_equal(kvant_calibration_get(c, layer, h, &mean, &scale), KVANT_OK);
                    for (int i = 0; i < DIM; i++)
                        assert_true(isfinite(mean[i]) && scale[i] >= 1e-4f && scale[i] <= 1e4f);
                }
            kvant_calibration_destroy(c);
        }
}

/* ---- configurations ---- */

static void expect_refused(const kvant_calibration_config *config, const char *word) {
    kvant_calibration *c = NULL;
    kvant_error err = {0};
    assert_int_equal(kvant_calibration_create(config, &c, &err), KVANT_EINVAL);
    assert_null(c);
    if (!strstr(err.message, word)) fail_msg("the sentence does not name %s: %s", word, err.message);
}

static void wrong_configurations_are_refused_by_name(void **state) {
    (void)state;
    kvant_rope_config ropes[2], wrong[2];
    kvant_calibration_config good = config_of(ropes), c;
#define REFUSED(field, value, word)                                                                                              \
    do {                                                                                                                         \
        c = good;                                                                                                                \
        c.field = (value);                                                                                                       \
        expect_refused(&c, word);                                                                                                \
    } while (0)
    REFUSED(n_layer, 0, "n_layer");
    REFUSED(n_layer, 100000, "n_layer");
    REFUSED(n_kv_head, 0, "n_kv_head");
    REFUSED(n_kv_head, 4, "n_head"); /* 6 is no multiple */
    REFUSED(n_head, 0, "n_head");
    REFUSED(n_head, 7, "n_head");
    REFUSED(head_dim, 0, "head_dim");
    REFUSED(head_dim, 1024, "head_dim");
    REFUSED(head_dim, 16, "n_rot"); /* less than what turns */
    REFUSED(n_rope, -1, "n_rope");
    REFUSED(n_rope, 5, "n_rope");
    REFUSED(n_rope, 1, "layer_rope"); /* a layer uses the second */
    REFUSED(layer_rope, ((const int[]){0, 2, -1}), "layer_rope");
    REFUSED(layer_rope, ((const int[]){0, -2, -1}), "layer_rope");
    REFUSED(ropes, NULL, "ropes");
#undef REFUSED
    const struct {
        int n_rot;
        float magnitude;
        double first;
        const char *word;
    } cases[] = {{15, 1, 1, "n_rot"},       {-2, 1, 1, "n_rot"},           {16, 0, 1, "magnitude"},
                 {16, -1, 1, "magnitude"},  {16, NAN, 1, "magnitude"},     {16, INFINITY, 1, "magnitude"},
                 {16, 1, NAN, "frequency"}, {16, 1, INFINITY, "frequency"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        double turns[8] = {1, 1, 1, 1, 1, 1, 1, 1};
        memcpy(wrong, ropes, sizeof wrong);
        turns[5] = cases[i].first;
        wrong[1] = (kvant_rope_config){cases[i].n_rot, true, cases[i].magnitude, turns};
        c = good;
        c.ropes = wrong;
        expect_refused(&c, cases[i].word);
    }
    memcpy(wrong, ropes, sizeof wrong);
    wrong[0].frequency = NULL;
    c = good;
    c.ropes = wrong;
    expect_refused(&c, "frequency");
}

static void a_cache_refuses_what_does_not_fit_it(void **state) {
    (void)state;
    kvant_context *ctx;
    kvant_cache *cache = NULL;
    kvant_error err = {0};
    assert_int_equal(kvant_context_create(1, KVANT_ISA_REF, &ctx, NULL), KVANT_OK);
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    config.n_layer = 3;
    config.n_kv_head = N_KV_HEAD;
    config.head_dim = DIM;
    config.center_floats = true;
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, &err), KVANT_EINVAL); /* without any */
    assert_non_null(strstr(err.message, "calibration"));
    kvant_calibration *unfinished = make(), *c = make_finished();
    config.calibration = unfinished;
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "finished"));
    config.calibration = c;
    for (int field = 0; field < 3; field++) {
        kvant_cache_config other = config;
        *(field == 0 ? &other.n_layer : field == 1 ? &other.n_kv_head : &other.head_dim) += 16;
        assert_int_equal(kvant_cache_create(ctx, &other, &cache, &err), KVANT_EINVAL);
        assert_non_null(strstr(err.message, "3 layers, 2 KV heads, head_dim 24"));
    }
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, &err), KVANT_OK);
    kvant_calibration_destroy(c); /* a cache keeps what it needs */
    kvant_sequence *s;
    float x[N_KV_HEAD * DIM] = {1};
    assert_int_equal(kvant_sequence_create(cache, &s), KVANT_OK);
    assert_int_equal(kvant_sequence_append(s, 0, x, x, 1), KVANT_OK);
    kvant_sequence_destroy(s);
    kvant_cache_destroy(cache);
    kvant_calibration_destroy(unfinished);
    cache = NULL;
    config = (kvant_cache_config){.n_layer = 1, .n_kv_head = 1, .head_dim = 64};
    assert_int_equal(kvant_format_parse_pair("bc4", &config.k, &config.v, NULL), KVANT_OK);
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "bc4.bare"));
    config.k.bare = true;
    assert_int_equal(kvant_cache_create(ctx, &config, &cache, &err), KVANT_OK);
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
}

/* ---- bytes ---- */

static const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES] = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 11, 12, 13, 14, 15, 16};

static kvant_status read_bytes(const uint8_t *bytes, size_t size, kvant_calibration **out, kvant_error *err) {
    kvant_rope_config ropes[2];
    kvant_calibration_config config = config_of(ropes);
    /* A copy of exactly this size, so that a sanitizer sees a read past its end. */
    uint8_t *copy = malloc(size ? size : 1);
    memcpy(copy, bytes, size);
    kvant_status st = kvant_calibration_read(&config, fingerprint, copy, size, "some.file", out, err);
    free(copy);
    return st;
}

static void bytes_come_back_as_they_were(void **state) {
    (void)state;
    kvant_calibration *c = make_finished(), *again = NULL;
    uint8_t *bytes, *second;
    size_t size, n;
    assert_int_equal(kvant_calibration_write(c, fingerprint, &bytes, &size), KVANT_OK);
    assert_int_equal(size, HEADER + 12 * 3 * N_KV_HEAD * DIM);
    assert_int_equal(read_bytes(bytes, size, &again, NULL), KVANT_OK);
    assert_int_equal(kvant_calibration_tokens(again), N_TOKEN - 4);
    for (int layer = 0; layer < 3; layer++)
        for (int h = 0; h < N_KV_HEAD; h++) {
            const float *mean, *scale, *m, *s;
            assert_int_equal(kvant_calibration_get(c, layer, h, &mean, &scale), KVANT_OK);
            assert_int_equal(kvant_calibration_get(again, layer, h, &m, &s), KVANT_OK);
            assert_memory_equal(mean, m, DIM * sizeof *m);
            assert_memory_equal(scale, s, DIM * sizeof *s);
        }
    assert_int_equal(kvant_calibration_write(again, fingerprint, &second, &n), KVANT_OK);
    assert_int_equal(n, size);
    assert_memory_equal(bytes, second, size);
    kvant_calibration_bytes_free(bytes);
    kvant_calibration_bytes_free(second);
    kvant_calibration_destroy(c);
    kvant_calibration_destroy(again);
}

static void every_changed_or_missing_byte_is_refused(void **state) {
    (void)state;
    kvant_calibration *c = make_finished(), *none = NULL;
    kvant_error err = {0};
    uint8_t *bytes;
    size_t size;
    assert_int_equal(kvant_calibration_write(c, fingerprint, &bytes, &size), KVANT_OK);
    for (size_t i = 0; i < size; i++)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            kvant_status st = read_bytes(bytes, size, &none, &err);
            if (st != KVANT_EFORMAT || none) fail_msg("byte %zu, bit %d: status %d", i, bit, st);
            assert_ptr_equal(strstr(err.message, "some.file"), err.message);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    for (size_t n = 0; n < size; n++)
        assert_int_equal(read_bytes(bytes, n, &none, &err), KVANT_EFORMAT);
    uint8_t *longer = calloc(size + 8, 1);
    memcpy(longer, bytes, size);
    for (size_t n = 1; n <= 8; n++)
        assert_int_equal(read_bytes(longer, size + n, &none, &err), KVANT_EFORMAT);
    free(longer);
    kvant_calibration_bytes_free(bytes);
    kvant_calibration_destroy(c);
}

static void another_models_calibration_is_refused_by_name(void **state) {
    (void)state;
    kvant_rope_config ropes[2];
    kvant_calibration_config config = config_of(ropes);
    kvant_calibration *c = make_finished(), *none = NULL;
    kvant_error err = {0};
    uint8_t *bytes, other[KVANT_FINGERPRINT_BYTES];
    size_t size;
    assert_int_equal(kvant_calibration_write(c, fingerprint, &bytes, &size), KVANT_OK);
    for (int i = 0; i < KVANT_FINGERPRINT_BYTES; i++) {
        memcpy(other, fingerprint, sizeof other);
        other[i] ^= 128;
        assert_int_equal(kvant_calibration_read(&config, other, bytes, size, "some.file", &none, &err), KVANT_EINVAL);
        assert_non_null(strstr(err.message, "some.file: is the calibration of another model"));
    }
    for (int field = 0; field < 3; field++) {
        kvant_calibration_config wrong = config;
        if (field == 0) wrong.n_layer = 2;
        if (field == 1) wrong.n_kv_head = 3;
        if (field == 2) wrong.head_dim = 32;
        assert_int_equal(kvant_calibration_read(&wrong, fingerprint, bytes, size, "some.file", &none, &err), KVANT_EINVAL);
        assert_non_null(strstr(err.message, "some.file: is the calibration of another model"));
        assert_non_null(strstr(err.message, "found 3 layers, 2 KV heads, head_dim 24"));
    }
    assert_null(none);
    kvant_calibration_bytes_free(bytes);
    kvant_calibration_destroy(c);
}

/* The checksum of docs/FORMAT.md, XXH3 over all bytes but its own, so that a checksum can be made to fit. */
static void sign_bytes(uint8_t *bytes, size_t size) {
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, bytes, CHECKSUM_AT);
    kvant_hash_add(&h, bytes + HEADER, size - HEADER);
    kvant_hash_get(&h, bytes + CHECKSUM_AT);
}

static void numbers_out_of_range_are_refused_though_the_checksum_fits(void **state) {
    (void)state;
    kvant_calibration *c = make_finished(), *got = NULL;
    kvant_error err = {0};
    uint8_t *bytes;
    size_t size, cells = 3 * N_KV_HEAD * DIM;
    const float means[] = {NAN, INFINITY, -INFINITY, 2e30f}, scales[] = {NAN, INFINITY, 0, -1, 1e-6f, 1e6f};
    assert_int_equal(kvant_calibration_write(c, fingerprint, &bytes, &size), KVANT_OK);
    sign_bytes(bytes, size);
    assert_int_equal(read_bytes(bytes, size, &got, &err), KVANT_OK); /* the rule is this one */
    kvant_calibration_destroy(got);
    got = NULL;
    for (size_t i = 0; i < 10; i++) {
        uint8_t *at = bytes + HEADER + 4 * (i < 4 ? 5 : cells + 5), before[4];
        memcpy(before, at, 4);
        memcpy(at, i < 4 ? &means[i] : &scales[i - 4], 4);
        sign_bytes(bytes, size);
        assert_int_equal(read_bytes(bytes, size, &got, &err), KVANT_EFORMAT);
        assert_null(got);
        assert_non_null(strstr(err.message, "out of range"));
        memcpy(at, before, 4);
    }
    kvant_calibration_bytes_free(bytes);
    kvant_calibration_destroy(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_mean_is_found_under_every_way_of_turning),
        cmocka_unit_test(keys_and_queries_have_equal_energy_after_scaling),
        cmocka_unit_test(steps_do_not_matter),
        cmocka_unit_test(nothing_is_added_after_the_end_or_outside),
        cmocka_unit_test(an_unseen_layer_is_named),
        cmocka_unit_test(values_that_are_no_numbers_leave_finite_ones),
        cmocka_unit_test(wrong_configurations_are_refused_by_name),
        cmocka_unit_test(a_cache_refuses_what_does_not_fit_it),
        cmocka_unit_test(bytes_come_back_as_they_were),
        cmocka_unit_test(every_changed_or_missing_byte_is_refused),
        cmocka_unit_test(another_models_calibration_is_refused_by_name),
        cmocka_unit_test(numbers_out_of_range_are_refused_though_the_checksum_fits),
    };
    print_message("seed %u\n", SEED);
    return cmocka_run_group_tests_name("calibration", tests, NULL, NULL);
}

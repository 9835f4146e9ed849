// SPDX-License-Identifier: MIT
/* test_kv_budget.c: bytes are never exceeded, go where they spare the most, and more of them never make it worse. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/kv_budget.h"

#define LAYERS 12
#define SEED 20261

static uint64_t state_of_random = SEED;

static double random_unit(void) { /* xorshift64 */
    state_of_random ^= state_of_random << 13;
    state_of_random ^= state_of_random >> 7;
    state_of_random ^= state_of_random << 17;
    return (double)(state_of_random >> 11) / 0x1p53;
}

static kvant_cache_config shape_of(int n_layer, int n_kv_head, int head_dim) {
    kvant_cache_config c;
    kvant_cache_config_default(&c);
    c.n_layer = n_layer;
    c.n_kv_head = n_kv_head;
    c.head_dim = head_dim;
    return c;
}

static void fill_sensitivities(double *k, double *v, int n) {
    for (int i = 0; i < n; i++) {
        k[i] = exp(6 * random_unit() - 6);
        v[i] = exp(6 * random_unit() - 6);
    }
}

static size_t bytes_with(const kvant_cache_config *shape, const kvant_format *k, const kvant_format *v, int64_t n_tokens) {
    kvant_cache_config c = *shape;
    c.layer_k = k;
    c.layer_v = v;
    return kvant_cache_bytes_for(&c, n_tokens);
}

static size_t uniform(const kvant_cache_config *shape, const char *name, int64_t n_tokens) {
    kvant_cache_config c = *shape;
    assert_int_equal(kvant_format_parse_pair(name, &c.k, &c.v, NULL), KVANT_OK);
    return kvant_cache_bytes_for(&c, n_tokens);
}

static void no_budget_is_ever_exceeded(void **state) {
    (void)state;
    static const int dims[] = {64, 80, 128, 256};
    int windows[LAYERS];
    double k_s[LAYERS], v_s[LAYERS];
    kvant_format k[LAYERS], v[LAYERS];
    print_message("seed %d\n", SEED);
    for (int i = 0; i < 300; i++) {
        kvant_cache_config shape = shape_of(1 + (int)(random_unit() * LAYERS), 1 + (int)(random_unit() * 4), dims[i % 4]);
        for (int l = 0; l < shape.n_layer; l++)
            windows[l] = l % 3 ? 512 : 0;
        if (i % 2) shape.layer_window = windows;
        if (i % 5 == 0) shape.max_kv_size = 300;
        int64_t n_tokens = 1 + (int64_t)(random_unit() * 5000);
        fill_sensitivities(k_s, v_s, shape.n_layer);
        size_t least = uniform(&shape, "bc2", n_tokens), most = uniform(&shape, "f16", n_tokens);
        size_t budget = least + (size_t)(random_unit() * (double)(most - least));
        kvant_budget_choice c;
        kvant_error err = {0};
        if (kvant_budget_choose(&shape, k_s, v_s, i % 7 == 0, n_tokens, budget, k, v, &c, &err) != KVANT_OK) fail_msg("%s", err.message);
        assert_true(c.bytes <= budget);
        assert_int_equal(bytes_with(&shape, k, v, n_tokens), c.bytes);
        for (int l = 0; l < shape.n_layer; l++)
            assert_true(!v[l].bare && k[l].bare == (i % 7 == 0 && k[l].codec != KVANT_CODEC_F16));
    }
}

static void a_larger_budget_never_costs_answers(void **state) {
    (void)state;
    double k_s[LAYERS], v_s[LAYERS];
    kvant_format k[LAYERS], v[LAYERS];
    for (int round = 0; round < 20; round++) {
        kvant_cache_config shape = shape_of(LAYERS, 2, 64);
        int windows[LAYERS];
        for (int l = 0; l < LAYERS; l++)
            windows[l] = l % 4 ? 128 : 0; /* items of very different size */
        shape.layer_window = windows;
        fill_sensitivities(k_s, v_s, LAYERS);
        size_t least = uniform(&shape, "bc2", 2048), most = uniform(&shape, "i8", 2048);
        double before = INFINITY;
        for (int i = 0; i <= 200; i++) {
            kvant_budget_choice c;
            size_t budget = least + (most - least) / 200 * (size_t)i;
            assert_int_equal(kvant_budget_choose(&shape, k_s, v_s, false, 2048, budget, k, v, &c, NULL), KVANT_OK);
            if (c.kl > before * (1 + 1e-12)) fail_msg("round %d: %zu bytes cost %g, fewer cost %g", round, budget, c.kl, before);
            before = c.kl;
        }
    }
}

static void the_sensitive_layer_gets_more_bits(void **state) {
    (void)state;
    double k_s[LAYERS], v_s[LAYERS];
    kvant_format k[LAYERS], v[LAYERS];
    kvant_cache_config shape = shape_of(LAYERS, 2, 64);
    for (int sensitive = 0; sensitive < LAYERS; sensitive++) {
        for (int side = 0; side < 2; side++) {
            for (int i = 0; i < LAYERS; i++)
                k_s[i] = v_s[i] = 0.02;
            (side ? v_s : k_s)[sensitive] = 1;
            kvant_budget_choice c;
            assert_int_equal(kvant_budget_choose(&shape, k_s, v_s, false, 1024, uniform(&shape, "bc4", 1024), k, v, &c, NULL), KVANT_OK);
            int bits = (side ? v : k)[sensitive].bits;
            for (int i = 0; i < LAYERS; i++) {
                if (i != sensitive || side == 1) assert_true(k[i].bits < bits);
                if (i != sensitive || side == 0) assert_true(v[i].bits < bits);
            }
        }
    }
}

static const char *const names[] = {"bc2",    "bc3", "bc3:16", "bc4", "bc4:16", "bc5", "bc5:16",
                                    "i6",     "i8",  "f16",    "bz2", "bz3",    "bz4"};
static const double noises[] = {0.0711, 0.0213, 0.0171, 0.00527, 0.00422, 0.00135, 0.00107, 0.00071, 0.000045, 0, 0.0427, 0.0125, 0.00308};
#define NAMES 13 /* the last three for K only */

/* All choices of two layers: the chosen one is no worse than the best of a budget that is a step smaller. */
static void the_choice_is_the_best_up_to_a_step(void **state) {
    (void)state;
    kvant_cache_config shape = shape_of(2, 2, 128);
    kvant_format f[NAMES];
    for (int i = 0; i < NAMES; i++)
        assert_int_equal(kvant_format_parse(names[i], &f[i], NULL), KVANT_OK);
    size_t step = (uniform(&shape, "i8", 512) - uniform(&shape, "bc5", 512)) / 4; /* a side's largest below lossless */
    for (int round = 0; round < 30; round++) {
        double s[4];
        kvant_format k[2], v[2];
        kvant_budget_choice c;
        fill_sensitivities(s, s + 2, 2);
        size_t budget = uniform(&shape, "bc2", 512) + (size_t)(random_unit() * (double)(uniform(&shape, "i6", 512) - uniform(&shape, "bc2", 512)));
        assert_int_equal(kvant_budget_choose(&shape, s, s + 2, false, 512, budget, k, v, &c, NULL), KVANT_OK);
        double best = INFINITY, best_smaller = INFINITY;
        for (int n = 0; n < NAMES * NAMES * NAMES * NAMES; n++) {
            int r[4] = {n % NAMES, n / NAMES % NAMES, n / NAMES / NAMES % NAMES, n / NAMES / NAMES / NAMES};
            if (r[2] >= NAMES - 3 || r[3] >= NAMES - 3) continue;
            kvant_format ks[2] = {f[r[0]], f[r[1]]}, vs[2] = {f[r[2]], f[r[3]]};
            size_t bytes = bytes_with(&shape, ks, vs, 512);
            double kl = 0;
            for (int i = 0; i < 4; i++)
                kl += s[i] * noises[r[i]];
            if (bytes <= budget && kl < best) best = kl;
            if (bytes + step <= budget && kl < best_smaller) best_smaller = kl;
        }
        assert_true(c.kl >= best * (1 - 1e-9));
        if (c.kl > best_smaller * (1 + 1e-9)) fail_msg("round %d: %g, but a smaller budget allows %g", round, c.kl, best_smaller);
    }
}

static void too_few_bytes_say_which_context_fits(void **state) {
    (void)state;
    double s[LAYERS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};
    kvant_format k[LAYERS], v[LAYERS];
    kvant_cache_config shape = shape_of(LAYERS, 2, 64);
    kvant_budget_choice c;
    kvant_error err = {0};
    size_t least = uniform(&shape, "bc2", 4096);
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 4096, least, k, v, &c, NULL), KVANT_OK);
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 4096, least - 1, k, v, &c, &err), KVANT_EFULL);
    const char *at = strstr(err.message, "a context of ");
    assert_non_null(at);
    long long fits = strtoll(at + sizeof "a context of " - 1, NULL, 10);
    assert_true(uniform(&shape, "bc2", fits) < least && uniform(&shape, "bc2", fits + 1) > least - 1);
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 4096, 100, k, v, &c, &err), KVANT_EFULL);
    assert_non_null(strstr(err.message, "no page"));
}

static void enough_bytes_are_lossless_and_said(void **state) {
    (void)state;
    double s[LAYERS] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
    kvant_format k[LAYERS], v[LAYERS];
    kvant_cache_config shape = shape_of(LAYERS, 2, 64);
    kvant_budget_choice c;
    size_t enough = uniform(&shape, "lossless", 1000);
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 1000, 100 * enough, k, v, &c, NULL), KVANT_OK);
    assert_true(c.is_lossless && c.bytes == enough);
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 1000, enough - 1, k, v, &c, NULL), KVANT_OK);
    assert_false(c.is_lossless);
}

static void heads_that_no_format_can_store_are_refused(void **state) {
    (void)state;
    double s[2] = {1, 1};
    kvant_format k[2], v[2];
    kvant_cache_config shape = shape_of(2, 1, 8);
    kvant_budget_choice c;
    assert_int_equal(kvant_budget_choose(&shape, s, s, false, 64, 1 << 20, k, v, &c, NULL), KVANT_EUNSUPPORTED);
}

static void a_budget_is_bytes_bits_or_a_format(void **state) {
    (void)state;
    static const struct {
        const char *text;
        size_t bytes;
        double bits;
    } good[] = {{"300M", 300000000, 0}, {"1.5G", 1500000000, 0}, {"1.5GiB", 1610612736, 0}, {"64KiB", 65536, 0}, {"5000B", 5000, 0}, {"4.3", 0, 4.3}, {"16", 0, 16}};
    static const char *const bad[] = {"", "M", "300Q", "300 M", "-3M", "0M", "17", "0.5", "nan", "inf", "0x10", "0x1M", "1e300G", "bc9", "4.3x", "bc4/bc9"};
    char kv[64];
    kvant_budget b;
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        snprintf(kv, sizeof kv, "budget:%s", good[i].text);
        assert_true(kvant_budget_is(kv));
        assert_int_equal(kvant_budget_parse(kv, &b, NULL), KVANT_OK);
        assert_int_equal(b.bytes, good[i].bytes);
        assert_true(b.bits == good[i].bits);
    }
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        snprintf(kv, sizeof kv, "budget:%s", bad[i]);
        if (kvant_budget_parse(kv, &b, NULL) != KVANT_EINVAL) fail_msg("%s was accepted", kv);
    }
    kvant_cache_config shape = shape_of(4, 2, 64);
    size_t bytes;
    assert_int_equal(kvant_budget_parse("budget:bc5/bc4:16", &b, NULL), KVANT_OK);
    assert_int_equal(kvant_budget_bytes(&b, &shape, 700, &bytes, NULL), KVANT_OK);
    assert_int_equal(bytes, uniform(&shape, "balanced", 700));
    assert_false(kvant_budget_is("bc4") || kvant_budget_is(NULL));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_budget_is_ever_exceeded),
        cmocka_unit_test(a_larger_budget_never_costs_answers),
        cmocka_unit_test(the_sensitive_layer_gets_more_bits),
        cmocka_unit_test(the_choice_is_the_best_up_to_a_step),
        cmocka_unit_test(too_few_bytes_say_which_context_fits),
        cmocka_unit_test(enough_bytes_are_lossless_and_said),
        cmocka_unit_test(heads_that_no_format_can_store_are_refused),
        cmocka_unit_test(a_budget_is_bytes_bits_or_a_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

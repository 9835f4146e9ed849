// SPDX-License-Identifier: MIT
/* test_divergence.c: the statistics of kvant eval, against closed forms and straightforward double arithmetic. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "divergence.h"

#define N_MAX 50000
static float ref[N_MAX], other[N_MAX], weights[N_MAX];

static uint64_t seed = 20261124;
static double uniform(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}
static double normal(void) { return sqrt(-2 * log(1 - uniform())) * cos(6.283185307179586 * uniform()); }

/* Everything in double, with the C library's exp. */
static double plain_lse(const float *x, int n) {
    double max = -INFINITY, sum = 0;
    for (int i = 0; i < n; i++)
        max = (double)x[i] > max ? (double)x[i] : max;
    for (int i = 0; i < n; i++)
        sum += exp((double)x[i] - max);
    return max + log(sum);
}
static double plain_kl(const float *x, const float *y, int n) {
    double lx = plain_lse(x, n), ly = plain_lse(y, n), kl = 0;
    for (int i = 0; i < n; i++)
        kl += exp((double)x[i] - lx) * (((double)x[i] - lx) - ((double)y[i] - ly));
    return kl;
}
static double measured_kl(const float *x, const float *y, int n) {
    softmax_row a, b;
    softmax_row_init(&a, x, n, weights);
    softmax_row_init(&b, y, n, NULL);
    return divergence_kl(&a, x, weights, &b, y, n);
}

static void divergence_of_two_tokens_is_the_closed_form(void **state) {
    (void)state;
    ref[0] = logf(0.9f), ref[1] = logf(0.1f);
    other[0] = logf(0.5f) + 3, other[1] = logf(0.5f) + 3; /* a constant does not matter */
    double expected = 0.9 * log(0.9 / 0.5) + 0.1 * log(0.1 / 0.5);
    assert_true(fabs(measured_kl(ref, other, 2) - expected) < 1e-6);
    assert_true(fabs(measured_kl(ref, other, 2) - measured_kl(other, ref, 2)) > 0.1); /* it is not symmetric */
}

static void divergence_agrees_with_double_arithmetic_to_a_ten_millionth(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 15, 16, 17, 31, 1000, 32003, N_MAX};
    static const double noises[] = {1e-4, 1e-3, 0.03, 0.5, 5};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        for (size_t k = 0; k < sizeof noises / sizeof *noises; k++) {
            int n = sizes[s];
            for (int i = 0; i < n; i++) {
                ref[i] = (float)(4 * normal() - 10);
                other[i] = (float)((double)ref[i] + noises[k] * normal());
            }
            if (n > 100) ref[n / 2] = 12; /* one probable token */
            double expected = plain_kl(ref, other, n), got = measured_kl(ref, other, n);
            if (!(fabs(got - expected) <= 1e-7 + 1e-6 * expected))
                fail_msg("n %d noise %g: %.10g, expected %.10g", n, noises[k], got, expected);
        }
    }
}

static void equal_rows_diverge_by_exactly_nothing(void **state) {
    (void)state;
    for (int i = 0; i < 1001; i++)
        ref[i] = (float)(6 * normal());
    assert_true(measured_kl(ref, ref, 1001) == 0);
}

static void extreme_logits_stay_finite_and_nan_is_infinite(void **state) {
    (void)state;
    for (int i = 0; i < 64; i++)
        ref[i] = -1e6f, other[i] = 1e6f;
    ref[3] = 1e6f, other[3] = -1e6f;
    double kl = measured_kl(ref, other, 64);
    assert_true(isfinite(kl) && kl > 1e6);
    other[5] = NAN;
    assert_true(isinf(measured_kl(ref, other, 64)));
}

static void row_knows_its_first_largest_token_and_the_cost_of_each(void **state) {
    (void)state;
    for (int i = 0; i < 40; i++)
        ref[i] = 0;
    ref[17] = ref[33] = 2;
    softmax_row row;
    softmax_row_init(&row, ref, 40, NULL);
    assert_int_equal(row.top, 17);
    double sum = 38 + 2 * exp(2);
    assert_true(fabs(softmax_row_nll(&row, ref, 17) - (log(sum) - 2)) < 1e-6);
    assert_true(fabs(softmax_row_nll(&row, ref, 0) - log(sum)) < 1e-6);
}

static void quantiles_are_linear_between_neighbours(void **state) {
    (void)state;
    static const float v[] = {1, 2, 4, 8};
    assert_true(divergence_quantile(v, 4, 0) == 1);
    assert_true(divergence_quantile(v, 4, 0.5) == 3);
    assert_true(fabs(divergence_quantile(v, 4, 0.9) - (4 * 0.3 + 8 * 0.7)) < 1e-12);
    assert_true(divergence_quantile(v, 4, 1) == 8);
    assert_true(divergence_quantile(v, 1, 0.999) == 1);
}

static void summary_of_a_known_sample(void **state) {
    (void)state;
    divergence_sample s = {0};
    /* four blocks with means 1, 2, 3, 4: mean 2.5, variance of the means 5/3, standard error sqrt(5/3/4) */
    for (int i = 0; i < 4 * DIVERGENCE_BLOCK; i++)
        assert_true(divergence_sample_add(&s, 1 + i / DIVERGENCE_BLOCK, i % 4 != 0));
    s.nll = 10 * log(20.0);
    s.n_nll = 10;
    divergence_summary u;
    assert_true(divergence_summarize(&s, &u));
    assert_true(fabs(u.mean - 2.5) < 1e-12);
    assert_true(fabs(u.se - sqrt(5.0 / 12)) < 1e-12);
    assert_true(u.median == 2.5 && u.max == 4 && u.p999 == 4);
    assert_true(u.top1 == 0.75);
    assert_true(fabs(u.perplexity - 20) < 1e-9);
    divergence_sample_free(&s);
}

static void blocks_tell_correlated_positions_from_independent_ones(void **state) {
    (void)state;
    divergence_sample correlated = {0}, independent = {0};
    double level = 0;
    for (int i = 0; i < 64 * DIVERGENCE_BLOCK; i++) {
        if (i % DIVERGENCE_BLOCK == 0) level = uniform();
        divergence_sample_add(&correlated, level, true);
        divergence_sample_add(&independent, uniform(), true);
    }
    divergence_summary c, d;
    assert_true(divergence_summarize(&correlated, &c) && divergence_summarize(&independent, &d));
    assert_true(c.se > 5 * d.se); /* 8 times in theory */
    divergence_sample_free(&correlated);
    divergence_sample_free(&independent);
}

static void one_block_has_no_standard_error_and_no_position_has_nothing(void **state) {
    (void)state;
    divergence_sample s = {0};
    divergence_summary u;
    assert_true(divergence_summarize(&s, &u));
    assert_true(isnan(u.mean) && isnan(u.perplexity));
    divergence_sample_add(&s, 0.5, true);
    assert_true(divergence_summarize(&s, &u));
    assert_true(u.mean == 0.5 && u.median == 0.5 && u.max == 0.5 && isnan(u.se) && isnan(u.perplexity));
    divergence_sample_free(&s);
}

int main(void) {
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(divergence_of_two_tokens_is_the_closed_form),
        cmocka_unit_test(divergence_agrees_with_double_arithmetic_to_a_ten_millionth),
        cmocka_unit_test(equal_rows_diverge_by_exactly_nothing),
        cmocka_unit_test(extreme_logits_stay_finite_and_nan_is_infinite),
        cmocka_unit_test(row_knows_its_first_largest_token_and_the_cost_of_each),
        cmocka_unit_test(quantiles_are_linear_between_neighbours),
        cmocka_unit_test(summary_of_a_known_sample),
        cmocka_unit_test(blocks_tell_correlated_positions_from_independent_ones),
        cmocka_unit_test(one_block_has_no_standard_error_and_no_position_has_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_sampler.c: the sampler draws what it promises: the distribution, its cuts, the penalty, one answer for one seed. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kvant/engine.h"

#define N 8
#define DRAWS 40000

static kvant_sampler *make(kvant_sampler_params p, int n_vocab) {
    kvant_sampler *s = NULL;
    kvant_error err = {0};
    if (kvant_sampler_create(&p, n_vocab, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

static kvant_sampler_params warm(uint64_t seed) {
    kvant_sampler_params p;
    kvant_sampler_params_default(&p);
    p.temperature = 1;
    p.seed = seed;
    return p;
}

/* log p, shuffled so that order by id is not order by probability. */
static const double p_of[N] = {0.05, 0.30, 0.02, 0.20, 0.10, 0.25, 0.01, 0.07};

static void fill(float *logits) {
    for (int i = 0; i < N; i++)
        logits[i] = (float)(log(p_of[i]) + 3);
}

/* Chi-square of DRAWS draws against p, over the ids with p > 0; others must never come. 99.99 % points stay under 35 for 7 degrees. */
static void assert_distribution(kvant_sampler_params params, const double *p) {
    float logits[N];
    int count[N] = {0};
    double chi = 0;
    fill(logits);
    kvant_sampler *s = make(params, N);
    for (int i = 0; i < DRAWS; i++) {
        int32_t id = kvant_sampler_next(s, logits);
        assert_in_range(id, 0, N - 1);
        count[id]++;
    }
    kvant_sampler_destroy(s);
    for (int i = 0; i < N; i++) {
        if (p[i] == 0 && count[i] != 0) fail_msg("token %d was drawn %d times", i, count[i]);
        if (p[i] > 0) chi += pow(count[i] - DRAWS * p[i], 2) / (DRAWS * p[i]);
    }
    if (chi > 35) fail_msg("chi-square %g, seed %llu", chi, (unsigned long long)params.seed);
}

/* Keeps the ids of `kept` and gives them their probabilities at a temperature. */
static void cut(double *p, double temperature, const char *kept) {
    double sum = 0;
    for (int i = 0; i < N; i++) {
        p[i] = strchr(kept, '0' + i) ? pow(p_of[i], 1 / temperature) : 0;
        sum += p[i];
    }
    for (int i = 0; i < N; i++)
        p[i] /= sum;
}

static void draws_follow_the_distribution_at_every_temperature(void **state) {
    (void)state;
    static const float temperatures[] = {0.5f, 1, 2};
    for (int i = 0; i < 3; i++) {
        double p[N];
        kvant_sampler_params params = warm(7 + (uint64_t)i);
        params.temperature = temperatures[i];
        cut(p, temperatures[i], "01234567");
        assert_distribution(params, p);
    }
}

static void cuts_keep_the_most_probable(void **state) {
    (void)state;
    double p[N];
    kvant_sampler_params params = warm(1);
    params.top_k = 3;
    cut(p, 1, "135");
    assert_distribution(params, p);

    params = warm(2);
    params.top_p = 0.76f; /* .30 + .25 + .20 = .75 is not enough: the fourth, .10, comes in */
    cut(p, 1, "1354");
    assert_distribution(params, p);
    params.top_p = 0.74f;
    cut(p, 1, "135");
    assert_distribution(params, p);

    params = warm(3);
    params.min_p = 0.3f; /* of .30 */
    cut(p, 1, "1354");
    assert_distribution(params, p);

    params = warm(4); /* the shortest of three counts, and top_p looks before the temperature */
    params.top_k = 5;
    params.top_p = 0.74f;
    params.min_p = 0.01f;
    params.temperature = 2;
    cut(p, 2, "135");
    assert_distribution(params, p);
}

static void temperature_0_takes_the_first_of_the_largest(void **state) {
    (void)state;
    float logits[N] = {1, 5, 2, 5, -INFINITY, 4, 5, 0};
    kvant_sampler_params p;
    kvant_sampler_params_default(&p);
    kvant_sampler *s = make(p, N);
    assert_int_equal(kvant_sampler_next(s, logits), 1);
    logits[1] = NAN;
    assert_int_equal(kvant_sampler_next(s, logits), 3);
    kvant_sampler_destroy(s);
}

static void the_penalty_sees_the_prompt_once_a_token_and_forgets(void **state) {
    (void)state;
    float logits[N] = {0, 10, 9, -8, 7, 0, 0, 0};
    kvant_sampler_params p;
    kvant_sampler_params_default(&p);
    p.repeat_penalty = 1.2f;
    p.repeat_last_n = 4;
    kvant_sampler *s = make(p, N);
    for (int i = 0; i < 3; i++)
        kvant_sampler_accept(s, 1);
    assert_int_equal(kvant_sampler_next(s, logits), 2); /* 10 / 1.2 < 9; applied thrice it would be under 7 too */
    assert_int_equal(kvant_sampler_next(s, logits), 1); /* 8.33 > 9 / 1.2 = 7.5 */
    for (int i = 0; i < 4; i++)
        kvant_sampler_accept(s, 5); /* pushes the others out */
    assert_int_equal(kvant_sampler_next(s, logits), 1);
    kvant_sampler_destroy(s);

    float negative[2] = {-1, -1.1f}; /* negative logits fall as well */
    s = make(p, 2);
    kvant_sampler_accept(s, 0);
    assert_int_equal(kvant_sampler_next(s, negative), 1);
    kvant_sampler_destroy(s);
}

static void what_is_no_number_is_never_drawn(void **state) {
    (void)state;
    float logits[N] = {NAN, 1, -INFINITY, NAN, 1, NAN, -INFINITY, NAN}, none[N];
    for (int i = 0; i < N; i++)
        none[i] = NAN;
    for (int variant = 0; variant < 4; variant++) {
        kvant_sampler_params p = warm(5);
        if (variant == 1) p.top_p = 0.99f;
        if (variant == 2) p.top_k = 6;
        if (variant == 3) p.min_p = 0.1f;
        kvant_sampler *s = make(p, N);
        for (int i = 0; i < 200; i++) {
            int32_t id = kvant_sampler_next(s, logits);
            if (id != 1 && id != 4) fail_msg("variant %d drew %d", variant, id);
        }
        assert_in_range(kvant_sampler_next(s, none), 0, N - 1);
        logits[4] = INFINITY;
        assert_int_equal(kvant_sampler_next(s, logits), 4);
        logits[4] = 1;
        kvant_sampler_destroy(s);
    }
}

static void one_seed_gives_one_answer_and_another_another(void **state) {
    (void)state;
    static float logits[4096];
    int32_t ids[3][64];
    for (int i = 0; i < 4096; i++)
        logits[i] = (float)((i * 2654435761u) >> 22) / 512;
    for (int k = 0; k < 3; k++) {
        kvant_sampler_params p = warm(k == 2 ? 2 : 1);
        p.top_p = 0.9f;
        kvant_sampler *s = make(p, 4096);
        for (int i = 0; i < 64; i++)
            ids[k][i] = kvant_sampler_next(s, logits);
        kvant_sampler_destroy(s);
    }
    assert_memory_equal(ids[0], ids[1], sizeof ids[0]);
    assert_memory_not_equal(ids[0], ids[2], sizeof ids[0]);
}

static void sampling_allocates_nothing(void **state) {
    (void)state;
    float logits[N];
    fill(logits);
    kvant_sampler_params p = warm(9);
    p.top_p = 0.9f;
    p.repeat_penalty = 1.1f;
    kvant_sampler *s = make(p, N);
    uint64_t before = kvant_alloc_count();
    for (int i = 0; i < 100; i++)
        kvant_sampler_next(s, logits);
    assert_int_equal(kvant_alloc_count(), before);
    kvant_sampler_destroy(s);
}

static void values_outside_their_range_are_refused_by_name(void **state) {
    (void)state;
    static const struct {
        const char *field;
        float temperature, top_p, min_p, penalty;
        int top_k, last_n;
    } wrong[] = {{"temperature", -1, 1, 0, 1, 0, 64}, {"temperature", NAN, 1, 0, 1, 0, 64}, {"top_p", 1, 1.5f, 0, 1, 0, 64},
                 {"min_p", 1, 1, -0.1f, 1, 0, 64},    {"repeat_penalty", 1, 1, 0, 0, 0, 64}, {"top_k", 1, 1, 0, 1, -1, 64},
                 {"repeat_last_n", 1, 1, 0, 1, 0, -1}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        kvant_sampler_params p = {wrong[i].temperature, wrong[i].top_k, wrong[i].top_p, wrong[i].min_p, wrong[i].penalty, wrong[i].last_n, 0};
        kvant_sampler *s = NULL;
        kvant_error err = {0};
        assert_int_equal(kvant_sampler_create(&p, N, &s, &err), KVANT_EINVAL);
        if (!strstr(err.message, wrong[i].field)) fail_msg("%s is not named: %s", wrong[i].field, err.message);
        assert_null(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(draws_follow_the_distribution_at_every_temperature),
        cmocka_unit_test(cuts_keep_the_most_probable),
        cmocka_unit_test(temperature_0_takes_the_first_of_the_largest),
        cmocka_unit_test(the_penalty_sees_the_prompt_once_a_token_and_forgets),
        cmocka_unit_test(what_is_no_number_is_never_drawn),
        cmocka_unit_test(one_seed_gives_one_answer_and_another_another),
        cmocka_unit_test(sampling_allocates_nothing),
        cmocka_unit_test(values_outside_their_range_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

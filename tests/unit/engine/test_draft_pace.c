// SPDX-License-Identifier: MIT
/* test_draft_pace.c: a draft that never fits costs next to nothing, one that fits is used fully, and one that begins to fit is found. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "engine/drafter.h"

/* A machine on which a step of one token takes a second. */
typedef struct machine {
    double row;      /* seconds that a step takes more for every guess */
    double guessing; /* seconds of a guess */
    double missed;   /* seconds of reading a token that was not guessed at */
} machine;

/* Of n_most guesses those that are right, for the tokens made so far. */
typedef int (*right_fn)(int made, int n_guess);

static int none(int made, int n_guess) { return (void)made, (void)n_guess, 0; }
static int all(int made, int n_guess) { return (void)made, n_guess; }
static int none_then_all(int made, int n_guess) { return made < 500 ? 0 : n_guess; }
static int half(int made, int n_guess) { return made % 2 ? n_guess : n_guess / 2; }

/* The seconds of n_tokens. */
static double simulate(machine m, right_fn right, int n_most, int n_tokens) {
    kvant_draft_pace p;
    double seconds = 0;
    int missed = 0;
    kvant_draft_pace_init(&p, n_most);
    for (int made = 0; made < n_tokens;) {
        int n = kvant_draft_pace_choose(&p, missed * m.missed);
        assert_true(n >= 0 && n <= n_most);
        int n_right = n > 0 ? right(made, n) : 0;
        double guessing = n > 0 ? n * m.guessing + missed * m.missed : 0, step = 1 + n * m.row;
        kvant_draft_pace_round(&p, n, n, n_right, guessing, step);
        missed = n > 0 ? 0 : missed + 1;
        made += n_right + 1;
        seconds += guessing + step;
    }
    return seconds;
}

static const machine machines[] = {{0, 0, 0}, {0.1, 0, 0}, {0.9, 0, 0}, {0.3, 0.3, 0.1}, {0.1, 1, 1}, {0.5, 0.1, 0.02}};
#define N_MACHINES (sizeof machines / sizeof *machines)

static void a_useless_draft_costs_less_than_3_percent(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MACHINES; i++)
        for (int n_most = 1; n_most <= 16; n_most *= 2) {
            double seconds = simulate(machines[i], none, n_most, 1000);
            if (seconds > 1030) fail_msg("machine %zu, at most %d guesses: %.1f seconds for 1000", i, n_most, seconds);
        }
}

static void a_perfect_draft_is_used_fully(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MACHINES; i++)
        for (int n_most = 1; n_most <= 16; n_most *= 2) {
            const machine *m = &machines[i];
            double best = 1000 * (1 + n_most * (m->row + m->guessing)) / (n_most + 1), found = simulate(*m, all, n_most, 1000);
            if (best < 970 && found > 1.03 * best + 5) fail_msg("machine %zu, %d guesses: %.1f seconds, not %.1f", i, n_most, found, best);
        }
}

static void a_draft_that_begins_to_fit_is_found(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MACHINES; i++) {
        double found = simulate(machines[i], none_then_all, 4, 1000), step = 1 + 4 * (machines[i].row + machines[i].guessing);
        double best = 500 + 500 * step / 5;
        if (step < 4 && machines[i].missed == 0 && found > best + 100) fail_msg("machine %zu: %.1f seconds, not %.1f", i, found, best);
        if (found > 1030) fail_msg("machine %zu: %.1f seconds for 1000", i, found);
    }
}

static void wins_and_losses_together_are_no_loss(void **state) {
    (void)state;
    for (size_t i = 0; i < N_MACHINES; i++)
        for (int n_most = 1; n_most <= 16; n_most *= 2) {
            double seconds = simulate(machines[i], half, n_most, 1000);
            if (seconds > 1030) fail_msg("machine %zu, at most %d guesses: %.1f seconds for 1000", i, n_most, seconds);
        }
}

static void one_slow_step_does_not_end_the_guessing(void **state) {
    (void)state;
    kvant_draft_pace p;
    kvant_draft_pace_init(&p, 4);
    assert_int_equal(kvant_draft_pace_choose(&p, 0), 0); /* what a step takes is not known yet */
    kvant_draft_pace_round(&p, 0, 0, 0, 0, 1);
    assert_int_equal(kvant_draft_pace_choose(&p, 0), 4);
    kvant_draft_pace_round(&p, 4, 4, 4, 0, 1000); /* another program had the machine */
    assert_int_equal(kvant_draft_pace_choose(&p, 0), 4);
    kvant_draft_pace_round(&p, 4, 4, 2, 0, 1.2);
    assert_int_equal(kvant_draft_pace_choose(&p, 0), 2);
    assert_int_equal(kvant_draft_pace_choose(&p, 100), 0); /* catching up would take too long */
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_useless_draft_costs_less_than_3_percent), cmocka_unit_test(a_perfect_draft_is_used_fully),
        cmocka_unit_test(a_draft_that_begins_to_fit_is_found),       cmocka_unit_test(wins_and_losses_together_are_no_loss),
        cmocka_unit_test(one_slow_step_does_not_end_the_guessing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

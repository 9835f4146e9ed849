// SPDX-License-Identifier: MIT
/* test_eval_state.c: what an evaluation keeps comes back exactly, and nothing else is taken for it. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_state.h"

#define PATH "test_eval_state.json"
#define N_ROWS 3
#define SCORED 40
#define PROMPTS 5

typedef struct run {
    eval_state state;
    eval_result rows[N_ROWS];
} run;

static char why[1024], file[1 << 16];
static size_t file_size;

static void begin(run *r, int context) {
    static const char *const names[N_ROWS] = {"f16", "f32", "bc5/bc4"};
    r->state = (eval_state){.n_scored = 64, .n_prompts = PROMPTS, .n_gen = 16, .n_results = N_ROWS};
    r->state.settings = json_pack("{s:s, s:i, s:b, s:[s,s]}", "model", "m", "context", context, "passkey", 1, "rows", "a", "b");
    assert_non_null(r->state.settings);
    for (int i = 0; i < N_ROWS; i++) {
        assert_true(eval_result_init(&r->rows[i], names[i], PROMPTS));
        r->state.results[i] = &r->rows[i];
    }
}

static void end(run *r) {
    json_decref(r->state.settings);
    for (int i = 0; i < N_ROWS; i++)
        eval_result_free(&r->rows[i]);
}

/* Values that text loses easily, an infinite one among them. */
static void fill(run *r) {
    r->state.scored = SCORED;
    r->state.n_passkey = 3;
    r->state.n_greedy = 2;
    for (int i = 0; i < N_ROWS; i++) {
        eval_result *row = &r->rows[i];
        for (int k = 0; k < SCORED; k++)
            assert_true(divergence_sample_add(&row->sample, k == 7 && i == 2 ? INFINITY : i * exp(-k) / 3, k % 3 != 0));
        row->sample.nll = 100.0 / 3 + i;
        row->sample.n_nll = SCORED - 1;
        row->bits = i == 0 ? NAN : 16 / 3.0;
        for (int k = 0; k < 3; k++)
            row->found[k] = (k + i) % 2;
        for (int k = 0; k < 2; k++)
            row->differs[k] = 16 - 8 * k * i;
    }
}

static void save_filled(void) {
    run r;
    begin(&r, 512);
    fill(&r);
    if (!eval_state_save(&r.state, PATH, why, sizeof why)) fail_msg("%s", why);
    end(&r);
    FILE *f = fopen(PATH, "rb");
    assert_non_null(f);
    file_size = fread(file, 1, sizeof file - 1, f);
    file[file_size] = '\0';
    fclose(f);
    assert_true(file_size > 1000 && file_size < sizeof file - 1);
}

static void write_file(const char *data, size_t n) {
    FILE *f = fopen(PATH, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    fclose(f);
}

/* Whether the file is taken by a run of the context; a refusal leaves nothing behind and has a sentence. */
static bool loads(int context) {
    run r;
    bool found;
    begin(&r, context);
    why[0] = '\0';
    bool ok = eval_state_load(&r.state, PATH, &found, why, sizeof why);
    if (ok) {
        assert_true(found && r.state.scored >= 0 && r.state.scored <= 64);
        for (int i = 0; i < N_ROWS; i++) {
            assert_true(r.rows[i].sample.n == r.state.scored && r.rows[i].sample.same_top <= r.state.scored);
            for (int k = 0; k < r.state.n_greedy; k++)
                assert_in_range(r.rows[i].differs[k], 0, 16);
        }
    } else {
        assert_true(strlen(why) > 20 && strstr(why, PATH));
        assert_true(!found && r.state.scored == 0 && r.state.n_passkey == 0);
        for (int i = 0; i < N_ROWS; i++)
            assert_true(r.rows[i].sample.n == 0);
    }
    end(&r);
    return ok;
}

static void what_is_saved_comes_back_to_the_bit(void **state) {
    (void)state;
    run a, b;
    bool found;
    save_filled();
    begin(&a, 512);
    fill(&a);
    begin(&b, 512);
    if (!eval_state_load(&b.state, PATH, &found, why, sizeof why)) fail_msg("%s", why);
    assert_true(found && b.state.scored == SCORED && b.state.n_passkey == 3 && b.state.n_greedy == 2);
    for (int i = 0; i < N_ROWS; i++) {
        const divergence_sample *x = &a.rows[i].sample, *y = &b.rows[i].sample;
        assert_int_equal(y->n, x->n);
        assert_memory_equal(y->kl, x->kl, (size_t)x->n * sizeof *x->kl);
        assert_true(y->same_top == x->same_top && y->n_nll == x->n_nll && y->nll == x->nll);
        assert_true(isnan(a.rows[i].bits) ? isnan(b.rows[i].bits) : a.rows[i].bits == b.rows[i].bits);
        assert_memory_equal(b.rows[i].found, a.rows[i].found, 3 * sizeof(int));
        assert_memory_equal(b.rows[i].differs, a.rows[i].differs, 2 * sizeof(int));
    }
    end(&a);
    end(&b);
}

static void no_file_is_a_beginning(void **state) {
    (void)state;
    run r;
    bool found = true;
    remove(PATH);
    begin(&r, 512);
    assert_true(eval_state_load(&r.state, PATH, &found, why, sizeof why));
    assert_true(!found && r.state.scored == 0);
    end(&r);
}

static void other_settings_are_refused_by_the_field_that_differs(void **state) {
    (void)state;
    save_filled();
    assert_true(loads(512));
    assert_false(loads(2048));
    assert_non_null(strstr(why, "context is 512 there and 2048 now"));
}

static void other_versions_are_refused(void **state) {
    (void)state;
    save_filled();
    char *version = strstr(file, "\"kvant_eval_state\": 1");
    assert_non_null(version);
    version[strlen("\"kvant_eval_state\": ")] = '2';
    write_file(file, file_size);
    assert_false(loads(512));
    assert_non_null(strstr(why, "kvant_eval_state is 2"));
}

static void a_file_that_was_cut_is_refused(void **state) {
    (void)state;
    save_filled();
    for (size_t n = 0; n + 2 < file_size; n += n < 300 ? 1 : 37) { /* the last two bytes are "}\n" */
        write_file(file, n);
        if (loads(512)) fail_msg("the first %zu of %zu bytes were taken", n, file_size);
    }
}

static void changed_bytes_never_lead_outside(void **state) {
    (void)state;
    static const char bytes[] = "0-9{}[]\",x\xff";
    save_filled();
    int refused = 0, n = 0;
    for (size_t at = 0; at < file_size; at += 3, n++) {
        char before = file[at];
        file[at] = bytes[at % (sizeof bytes - 1)];
        write_file(file, file_size);
        refused += !loads(512); /* checks what it takes */
        file[at] = before;
    }
    assert_true(refused > n / 4);
}

static void replace(const char *from, const char *to) {
    static char changed[sizeof file + 64];
    char *at = strstr(file, from);
    assert_non_null(at);
    int n = snprintf(changed, sizeof changed, "%.*s%s%s", (int)(at - file), file, to, at + strlen(from));
    write_file(changed, (size_t)n);
}

static void numbers_outside_their_range_are_refused(void **state) {
    (void)state;
    static const char *const changes[][2] = {
        {"\"scored\": 40", "\"scored\": 65"},
        {"\"scored\": 40", "\"scored\": -1"},
        {"\"scored\": 40", "\"scored\": 39"},
        {"\"passkey_prompts\": 3", "\"passkey_prompts\": 6"},
        {"\"greedy_prompts\": 2", "\"greedy_prompts\": 1"},
        {"\"same_top\": 26", "\"same_top\": 41"},
        {"\"predicted\": 39", "\"predicted\": 4.5"},
        {"\"kl\": \"00", "\"kl\": \"bf"},
        {"\"kl\": \"00", "\"kl\": \"00000000"},
        {"\"kv\": \"f32\"", "\"kv\": \"f64\""},
        {"\"bits\": null", "\"bits\": -2"},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        save_filled();
        replace(changes[i][0], changes[i][1]);
        if (loads(512)) fail_msg("%s was taken", changes[i][1]);
        assert_non_null(strstr(why, "damaged"));
    }
}

static void saving_replaces_the_file_or_says_why_not(void **state) {
    (void)state;
    run r;
    save_filled();
    begin(&r, 1024);
    assert_true(eval_state_save(&r.state, PATH, why, sizeof why));
    assert_true(loads(1024));
    assert_null(fopen(PATH ".new", "rb"));
    assert_false(eval_state_save(&r.state, "/nowhere/state.json", why, sizeof why));
    assert_non_null(strstr(why, "/nowhere/state.json"));
    end(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_saved_comes_back_to_the_bit),
        cmocka_unit_test(no_file_is_a_beginning),
        cmocka_unit_test(other_settings_are_refused_by_the_field_that_differs),
        cmocka_unit_test(other_versions_are_refused),
        cmocka_unit_test(a_file_that_was_cut_is_refused),
        cmocka_unit_test(changed_bytes_never_lead_outside),
        cmocka_unit_test(numbers_outside_their_range_are_refused),
        cmocka_unit_test(saving_replaces_the_file_or_says_why_not),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    remove(PATH);
    return failed;
}

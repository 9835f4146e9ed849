// SPDX-License-Identifier: MIT
/* test_answer.c: answers as text: what is shown never holds a stop string or a part of one, log-probabilities are those of the logits,
 * reasons, and that a draft changes none of it. On a real model of 260,000 parameters that tells stories. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvant/engine.h"

#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define N_TOKEN 60

typedef struct fixture {
    kvant_model *model;
    kvant_session *session;
    kvant_sampler *sampler;
    int32_t *ids;
    int n;
    kvant_error err;
} fixture;

typedef struct told {
    char text[4096];
    int32_t ids[N_TOKEN];
    float logprobs[N_TOKEN];
    kvant_token_logprob top[N_TOKEN][3];
    int n;
    kvant_stop_reason reason;
} told;

static void check(fixture *f, kvant_status st) {
    if (st != KVANT_OK) fail_msg("%s", f->err.message);
}

static void open_fixture(fixture *f, float temperature, float penalty) {
    kvant_load_params load;
    kvant_session_params params;
    kvant_sampler_params sampling;
    const char prompt[] = "One day, Tom and Sam went to the park. Tom and Sam";
    FILE *file = fopen(STORIES, "rb");
    if (!file) {
        print_message("%s is not there: skipped\n", STORIES);
        skip();
    }
    fclose(file);
    *f = (fixture){0};
    kvant_load_params_default(&load);
    kvant_session_params_default(&params);
    load.seed = 11;
    check(f, kvant_model_open(STORIES, &load, &f->model, &f->err));
    kvant_model_info info;
    kvant_model_get_info(f->model, &info);
    kvant_model_sampler_params(f->model, &sampling);
    assert_int_equal(sampling.seed, 11);
    sampling.temperature = temperature;
    sampling.repeat_penalty = penalty;
    check(f, kvant_session_create(f->model, &params, &f->session, &f->err));
    check(f, kvant_sampler_create(&sampling, info.n_vocab, &f->sampler, &f->err));
    check(f, kvant_tokenize(f->model, prompt, strlen(prompt), true, false, &f->ids, &f->n, &f->err));
    check(f, kvant_session_prefill(f->session, f->ids, f->n, NULL, NULL, &f->err));
}

static void close_fixture(fixture *f) {
    kvant_ids_free(f->ids);
    kvant_sampler_destroy(f->sampler);
    kvant_session_destroy(f->session);
    kvant_model_close(f->model);
}

/* One answer of at most `most` tokens. */
static void tell(const kvant_answer_params *params, float temperature, float penalty, int most, told *out) {
    fixture f;
    kvant_answer *a;
    kvant_answer_piece piece = {0};
    open_fixture(&f, temperature, penalty);
    memset(out, 0, sizeof *out);
    check(&f, kvant_answer_create(f.session, f.sampler, params, &a, &f.err));
    check(&f, kvant_answer_begin(a, f.ids, f.n, most, &f.err));
    while (piece.reason == KVANT_STOP_NONE) {
        check(&f, kvant_answer_next(a, &piece, &f.err));
        assert_int_equal(strlen(piece.text), piece.text_size);
        strncat(out->text, piece.text, sizeof out->text - strlen(out->text) - 1);
        if (piece.id < 0) continue;
        out->logprobs[out->n] = piece.logprob;
        for (int i = 0; i < piece.n_top && i < 3; i++)
            out->top[out->n][i] = piece.top[i];
        out->ids[out->n++] = piece.id;
    }
    out->reason = piece.reason;
    assert_int_equal(kvant_answer_next(a, &piece, &f.err), KVANT_EINVAL);
    kvant_answer_destroy(a);
    close_fixture(&f);
}

/* Every piece of the story, from and to anywhere, as a stop string: tokens cut it in every way. */
static void no_part_of_a_stop_string_is_ever_shown(void **state) {
    (void)state;
    static told whole, stopped;
    kvant_answer_params plain = {0};
    tell(&plain, 0, 1, 40, &whole);
    assert_int_equal(whole.reason, KVANT_STOP_LIMIT);
    assert_int_equal(whole.n, 40);
    size_t length = strlen(whole.text);
    assert_true(length > 60);
    for (size_t from = 0; from < 50; from += 7) {
        for (size_t size = 1; size < 12; size += 2) {
            char stop[16] = {0}, never[] = "ZZZ";
            const char *stops[] = {never, stop};
            memcpy(stop, whole.text + from, size);
            kvant_answer_params params = {.stops = stops, .n_stops = 2};
            tell(&params, 0, 1, 40, &stopped);
            size_t expected = (size_t)(strstr(whole.text, stop) - whole.text);
            assert_int_equal(stopped.reason, KVANT_STOP_TEXT);
            assert_int_equal(strlen(stopped.text), expected);
            assert_memory_equal(stopped.text, whole.text, expected);
        }
    }
}

/* What might have become a stop string is shown in the end. */
static void held_text_is_shown_when_the_answer_ends(void **state) {
    (void)state;
    static told whole, held;
    static char stop[sizeof whole.text + 16];
    const char *stops[] = {stop};
    kvant_answer_params plain = {0}, params = {.stops = stops, .n_stops = 1};
    tell(&plain, 0, 1, 20, &whole);
    snprintf(stop, sizeof stop, "%s and more", whole.text);
    tell(&params, 0, 1, 20, &held);
    assert_int_equal(held.reason, KVANT_STOP_LIMIT);
    assert_string_equal(held.text, whole.text);

    fixture f;
    kvant_answer *a;
    kvant_answer_piece piece;
    const char *rest;
    size_t size;
    open_fixture(&f, 0, 1);
    check(&f, kvant_answer_create(f.session, f.sampler, &params, &a, &f.err));
    check(&f, kvant_answer_begin(a, f.ids, f.n, 20, &f.err));
    for (int i = 0; i < 5; i++) {
        check(&f, kvant_answer_next(a, &piece, &f.err));
        assert_int_equal(piece.text_size, 0);
    }
    check(&f, kvant_answer_flush(a, &rest, &size, &f.err));
    assert_true(size > 5 && memcmp(rest, whole.text, size) == 0);
    kvant_answer_destroy(a);
    close_fixture(&f);
}

/* The same from the logits, in the simplest way. */
static void log_probabilities_are_those_of_the_logits(void **state) {
    (void)state;
    static told t;
    kvant_answer_params params = {.logprobs = true, .top_logprobs = 3};
    fixture f;
    tell(&params, 0.9f, 1, 30, &t);
    open_fixture(&f, 0, 1);
    kvant_model_info info;
    kvant_model_get_info(f.model, &info);
    for (int i = 0; i < t.n; i++) {
        const float *row = kvant_session_logits(f.session);
        double total = 0;
        int best = 0, above = 0;
        for (int v = 0; v < info.n_vocab; v++) {
            total += exp((double)row[v]);
            if (row[v] > row[best]) best = v;
            above += row[v] > row[t.top[i][2].id];
        }
        assert_true(fabs(row[t.ids[i]] - log(total) - t.logprobs[i]) < 1e-4);
        assert_int_equal(t.top[i][0].id, best);
        assert_int_equal(above, 2);
        for (int k = 0; k < 3; k++)
            assert_true(fabs(row[t.top[i][k].id] - log(total) - t.top[i][k].logprob) < 1e-4);
        check(&f, kvant_session_decode(f.session, t.ids[i], &f.err));
    }
    close_fixture(&f);
}

static void a_draft_changes_nothing_that_is_told(void **state) {
    (void)state;
    static told plain, drafted;
    const char *stops[] = {" said,"};
    kvant_draft_params draft = {.n_draft = 6};
    for (int sampled = 0; sampled < 2; sampled++) {
        float temperature = sampled ? 0.7f : 0, penalty = sampled ? 1.1f : 1;
        kvant_answer_params params = {.stops = stops, .n_stops = 1, .logprobs = true, .top_logprobs = 3};
        tell(&params, temperature, penalty, N_TOKEN, &plain);
        params.draft = &draft;
        tell(&params, temperature, penalty, N_TOKEN, &drafted);
        assert_memory_equal(&plain, &drafted, sizeof plain);
    }
}

static void wrong_wishes_are_refused(void **state) {
    (void)state;
    fixture f;
    kvant_answer *a = NULL;
    const char *stops[] = {"fine", ""};
    open_fixture(&f, 0, 1);
    kvant_answer_params params = {.stops = stops, .n_stops = 2};
    assert_int_equal(kvant_answer_create(f.session, f.sampler, &params, &a, &f.err), KVANT_EINVAL);
    assert_non_null(strstr(f.err.message, "stop string 1"));
    params = (kvant_answer_params){.logprobs = true, .top_logprobs = KVANT_TOP_LOGPROBS_MAX + 1};
    assert_int_equal(kvant_answer_create(f.session, f.sampler, &params, &a, &f.err), KVANT_EINVAL);
    params = (kvant_answer_params){.top_logprobs = 2};
    assert_int_equal(kvant_answer_create(f.session, f.sampler, &params, &a, &f.err), KVANT_EINVAL);
    params = (kvant_answer_params){0};
    check(&f, kvant_answer_create(f.session, f.sampler, &params, &a, &f.err));
    assert_int_equal(kvant_answer_begin(a, f.ids, f.n, 0, &f.err), KVANT_EINVAL);
    kvant_answer_destroy(a);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_part_of_a_stop_string_is_ever_shown),
        cmocka_unit_test(held_text_is_shown_when_the_answer_ends),
        cmocka_unit_test(log_probabilities_are_those_of_the_logits),
        cmocka_unit_test(a_draft_changes_nothing_that_is_told),
        cmocka_unit_test(wrong_wishes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_session.c: what a session promises: the same answers however a prompt is cut, quantization at the token that the settings
 * name, truncation, cancelling, contexts that end. Pages are inspected, logits compared bit for bit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "kvant/engine.h"

#define MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define N_VOCAB 128 /* of MODEL */
#define N_PROMPT 300
#define N_ANSWER 24

static int32_t prompt[N_PROMPT];

static bool is_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    fclose(f);
    return true;
}

static int set_up(void **state) {
    (void)state;
    uint64_t x = 20;
    for (int i = 0; i < N_PROMPT; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        prompt[i] = (int32_t)((x >> 33) % N_VOCAB);
    }
    return 0;
}

typedef struct fixture {
    kvant_model *model;
    kvant_session *session;
    kvant_error err;
} fixture;

/* kv: a format or NULL; start: quantized_kv_start. */
static fixture open_fixture(const char *path, const char *kv, int start, int step, int threads, bool mlx) {
    fixture f = {0};
    kvant_load_params load;
    kvant_session_params params;
    kvant_load_params_default(&load);
    kvant_session_params_default(&params);
    load.kv.kv = kv;
    load.kv.quantized_kv_start = start;
    load.kv.compat_mlx = mlx;
    load.prefill_step_size = step;
    load.n_threads = threads;
    params.n_context = 1024;
    if (kvant_model_open(path, &load, &f.model, &f.err) != KVANT_OK) fail_msg("%s", f.err.message);
    if (kvant_session_create(f.model, &params, &f.session, &f.err) != KVANT_OK) fail_msg("%s", f.err.message);
    return f;
}

static void close_fixture(fixture *f) {
    kvant_session_destroy(f->session);
    kvant_model_close(f->model);
}

static void prefill(fixture *f, const int32_t *ids, int64_t n) {
    if (kvant_session_prefill(f->session, ids, n, NULL, NULL, &f->err) != KVANT_OK) fail_msg("%s", f->err.message);
}

static int32_t best(const float *logits, int n) {
    int32_t id = 0;
    for (int i = 1; i < n; i++)
        if (logits[i] > logits[id]) id = i;
    return id;
}

/* The prompt's last row, and N_ANSWER greedy tokens. */
typedef struct outcome {
    float row[N_VOCAB];
    int32_t ids[N_ANSWER];
} outcome;

static void answer(fixture *f, outcome *out) {
    memcpy(out->row, kvant_session_logits(f->session), sizeof out->row);
    for (int i = 0; i < N_ANSWER; i++) {
        out->ids[i] = best(kvant_session_logits(f->session), N_VOCAB);
        if (kvant_session_decode(f->session, out->ids[i], &f->err) != KVANT_OK) fail_msg("%s", f->err.message);
    }
}

static void run(const char *kv, int start, int step, int threads, outcome *out) {
    fixture f = open_fixture(MODEL, kv, start, step, threads, false);
    prefill(&f, prompt, N_PROMPT);
    answer(&f, out);
    close_fixture(&f);
}

static void assert_same(const outcome *a, const outcome *b, const char *what) {
    if (memcmp(a->row, b->row, sizeof a->row) != 0) fail_msg("%s: the logits of the prompt differ", what);
    if (memcmp(a->ids, b->ids, sizeof a->ids) != 0) fail_msg("%s: the answers differ", what);
}

/* The formats of K of all pages: 'f' all f16, 'q' all quantized, 'm' mixed. */
static char pages_of(kvant_session *s) {
    const kvant_sequence *q = kvant_session_sequence(s);
    int n = kvant_sequence_page_count(q, 0), plain = 0;
    for (int i = 0; i < n; i++) {
        kvant_page_info info;
        assert_int_equal(kvant_sequence_page_info(q, 1, i, &info), KVANT_OK);
        assert_int_equal(info.k.codec, info.v.codec);
        plain += info.k.codec == KVANT_CODEC_F16;
    }
    return plain == n ? 'f' : plain == 0 ? 'q' : 'm';
}

/* ---- the same answers ---- */

static void answers_do_not_depend_on_chunks_or_threads(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static const char *const formats[] = {"f16", "affine4:64", "affine8:32/affine3:128"};
    static const int starts[] = {0, 100}, steps[] = {1, 7, 64, 150};
    for (size_t f = 0; f < 3; f++) {
        for (size_t t = 0; t < 2; t++) {
            outcome whole, other;
            if (f == 0 && t == 1) continue;
            run(formats[f], starts[t], 512, 1, &whole);
            for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
                char what[96];
                snprintf(what, sizeof what, "%s from %d in chunks of %d", formats[f], starts[t], steps[s]);
                run(formats[f], starts[t], steps[s], 1 + (int)(s % 3), &other);
                assert_same(&whole, &other, what);
            }
        }
    }
}

static void steps_give_the_rows_of_a_prefill(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static float rows[150 * N_VOCAB];
    fixture f = open_fixture(MODEL, "affine4:64", 100, 150, 2, false), g = open_fixture(MODEL, "affine4:64", 100, 512, 2, false);
    assert_int_equal(kvant_session_step(f.session, prompt, 150, rows, &f.err), KVANT_OK);
    for (int i = 0; i < 150; i += 7) {
        assert_int_equal(kvant_session_truncate(g.session, 0, &g.err), KVANT_OK);
        prefill(&g, prompt, i + 1);
        if (memcmp(kvant_session_logits(g.session), rows + i * N_VOCAB, N_VOCAB * sizeof(float)) != 0) fail_msg("row %d differs", i);
    }
    assert_memory_equal(kvant_session_logits(f.session), rows + 149 * N_VOCAB, N_VOCAB * sizeof(float));
    assert_int_equal(kvant_session_step(f.session, prompt, 151, rows, &f.err), KVANT_EINVAL);
    close_fixture(&f);
    close_fixture(&g);
}

/* ---- quantized_kv_start ---- */

static void start_in_the_middle_of_a_chunk_quantizes_there(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, "affine4:64", 100, 512, 2, false);
    prefill(&f, prompt, 99);
    assert_int_equal(pages_of(f.session), 'f');
    close_fixture(&f);
    f = open_fixture(MODEL, "affine4:64", 100, 512, 2, false);
    prefill(&f, prompt, N_PROMPT);
    assert_int_equal(pages_of(f.session), 'q');
    assert_int_equal(kvant_session_cache_bytes(f.session), kvant_model_cache_bytes(f.model, N_PROMPT));
    outcome mixed, plain;
    answer(&f, &mixed);
    close_fixture(&f);
    run("affine4:64", 0, 512, 2, &plain);
    /* The first 100 tokens saw each other in f16, so this is not the cache that was quantized from the beginning. */
    assert_memory_not_equal(mixed.row, plain.row, sizeof mixed.row);
}

static void start_during_generation_quantizes_there(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, "affine4:64", 105, 32, 2, false);
    prefill(&f, prompt, 100);
    for (int i = 100; i < 110; i++) {
        assert_int_equal(pages_of(f.session), i < 105 ? 'f' : 'q');
        assert_int_equal(kvant_session_decode(f.session, prompt[i], &f.err), KVANT_OK);
    }
    close_fixture(&f);
}

static void start_never_reached_never_quantizes(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    outcome late, plain;
    fixture f = open_fixture(MODEL, "affine4:64", 1000, 64, 2, false);
    prefill(&f, prompt, N_PROMPT);
    answer(&f, &late);
    assert_int_equal(pages_of(f.session), 'f');
    close_fixture(&f);
    run("f16", 0, 512, 2, &plain);
    assert_same(&late, &plain, "a start that is not reached");
}

/* In mlx-lm's order a chunk attends before it is quantized, and the last token of a prompt is a chunk of its own. */
static void mlx_order_quantizes_after_the_chunk(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, "affine4:64", 0, 512, 2, true), g = open_fixture(MODEL, "f16", 0, 512, 2, false);
    float whole[N_VOCAB], plain[N_VOCAB], again[N_VOCAB];
    static float rows[N_PROMPT * N_VOCAB];
    assert_int_equal(kvant_session_step(f.session, prompt, 200, rows, &f.err), KVANT_OK);
    assert_int_equal(pages_of(f.session), 'q');
    prefill(&g, prompt, 200);
    memcpy(plain, kvant_session_logits(g.session), sizeof plain);
    assert_memory_equal(plain, rows + 199 * N_VOCAB, sizeof plain); /* nothing was quantized yet */
    assert_int_equal(kvant_session_step(f.session, prompt + 200, 1, rows, &f.err), KVANT_OK);
    assert_int_equal(kvant_session_truncate(f.session, 0, &f.err), KVANT_OK);
    prefill(&f, prompt, 201);
    memcpy(whole, kvant_session_logits(f.session), sizeof whole);
    assert_memory_equal(whole, rows, sizeof whole);
    assert_int_equal(kvant_session_decode(g.session, prompt[200], &g.err), KVANT_OK);
    memcpy(again, kvant_session_logits(g.session), sizeof again);
    assert_memory_not_equal(whole, again, sizeof whole);
    close_fixture(&f);
    close_fixture(&g);
}

/* ---- truncation, cancelling, limits ---- */

static void truncating_and_going_on_equals_a_fresh_session(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static const char *const formats[] = {"f16", "affine4:64"};
    for (int i = 0; i < 2; i++) {
        outcome fresh, again;
        run(formats[i], 0, 512, 2, &fresh);
        for (int at = 0; at <= 290; at += 58) { /* 0, inside pages, and 290 */
            fixture f = open_fixture(MODEL, formats[i], 0, 512, 2, false);
            prefill(&f, prompt, N_PROMPT);
            assert_int_equal(kvant_session_decode(f.session, 3, &f.err), KVANT_OK);
            assert_int_equal(kvant_session_truncate(f.session, at, &f.err), KVANT_OK);
            assert_null(kvant_session_logits(f.session));
            assert_int_equal(kvant_session_length(f.session), at);
            prefill(&f, prompt + at, N_PROMPT - at);
            answer(&f, &again);
            assert_same(&fresh, &again, formats[i]);
            assert_int_equal(kvant_session_truncate(f.session, 1000, &f.err), KVANT_EINVAL);
            close_fixture(&f);
        }
    }
}

static bool cancel_at_64(void *user, int64_t done, int64_t total) {
    (void)total;
    *(int64_t *)user = done;
    return done < 64;
}

static void a_cancelled_prefill_keeps_what_was_computed(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, "affine4:64", 0, 32, 2, false);
    int64_t done = 0;
    assert_int_equal(kvant_session_prefill(f.session, prompt, N_PROMPT, cancel_at_64, &done, &f.err), KVANT_ECANCELLED);
    assert_int_equal(done, 64);
    assert_int_equal(kvant_session_length(f.session), 64);
    assert_null(kvant_session_logits(f.session));
    outcome resumed, fresh;
    prefill(&f, prompt + 64, N_PROMPT - 64);
    answer(&f, &resumed);
    close_fixture(&f);
    run("affine4:64", 0, 512, 2, &fresh);
    assert_same(&fresh, &resumed, "a prefill that was cancelled and resumed");
}

static void what_does_not_fit_changes_nothing(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, "affine4:64", 0, 512, 2, false);
    int32_t wrong[3] = {1, 2, N_VOCAB}, negative = -1;
    static int32_t many[1025];
    assert_int_equal(kvant_session_prefill(f.session, many, 1025, NULL, NULL, &f.err), KVANT_EFULL);
    assert_non_null(strstr(f.err.message, "1025"));
    assert_non_null(strstr(f.err.message, "1024"));
    assert_int_equal(kvant_session_prefill(f.session, wrong, 3, NULL, NULL, &f.err), KVANT_EINVAL);
    assert_int_equal(kvant_session_decode(f.session, negative, &f.err), KVANT_EINVAL);
    assert_int_equal(kvant_session_length(f.session), 0);
    assert_null(kvant_session_logits(f.session));
    prefill(&f, many, 1024);
    assert_int_equal(kvant_session_decode(f.session, 1, &f.err), KVANT_EFULL);
    assert_int_equal(kvant_session_length(f.session), 1024);
    close_fixture(&f);
}

/* ---- bytes and allocations ---- */

static void the_cache_takes_the_bytes_of_the_formula(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static const char *const formats[] = {"f16", "f32", "affine8:64", "affine5:32", "affine4:64/affine2:128"};
    size_t previous = 0;
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        fixture f = open_fixture(MODEL, formats[i], 0, 512, 2, false);
        size_t formula = 0;
        prefill(&f, prompt, N_PROMPT);
        size_t real = kvant_session_cache_bytes(f.session);
        assert_int_equal(real, kvant_model_cache_bytes(f.model, N_PROMPT));
        assert_int_equal(kvant_model_cache_bytes_for(f.model, formats[i], N_PROMPT, &formula, &f.err), KVANT_OK);
        assert_int_equal(real, formula);
        assert_int_not_equal(real, previous);
        /* bits an element times elements of whole pages, and little more */
        kvant_model_info info;
        kvant_model_get_info(f.model, &info);
        double bits = info.kv_bits_total * 2 * info.n_layer * info.n_kv_head * info.head_dim * 320;
        assert_true((double)real >= bits / 8 && (double)real < 1.03 * bits / 8);
        previous = real;
        close_fixture(&f);
    }
}

static void decoding_inside_a_page_allocates_nothing(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    static const char *const formats[] = {"f16", "affine4:64"};
    for (int i = 0; i < 2; i++) {
        fixture f = open_fixture(MODEL, formats[i], 0, 512, 2, false);
        prefill(&f, prompt, 66);
        assert_int_equal(kvant_session_decode(f.session, 5, &f.err), KVANT_OK);
        uint64_t before = kvant_alloc_count();
        while (kvant_session_length(f.session) < 128)
            assert_int_equal(kvant_session_decode(f.session, 5, &f.err), KVANT_OK);
        assert_int_equal(kvant_alloc_count() - before, 0);
        assert_int_equal(kvant_session_decode(f.session, 5, &f.err), KVANT_OK);
        assert_true(kvant_alloc_count() > before); /* the count counts: a new page */
        close_fixture(&f);
    }
}

/* ---- text ---- */

static void stories_are_told_as_expected(void **state) {
    (void)state;
    static char expected[4096], told[4096];
    FILE *file = fopen(KVANT_DATA "/models/expected_greedy_200.txt", "rb");
    if (!file || !is_there(STORIES)) skip();
    size_t n = fread(expected, 1, sizeof expected, file), at = 0;
    fclose(file);
    for (int threads = 1; threads <= 3; threads++) {
        fixture f = open_fixture(STORIES, NULL, 0, 0, threads, false);
        kvant_text_stream *stream;
        const char *text;
        size_t size;
        int32_t *ids;
        int n_ids;
        at = 0;
        assert_int_equal(kvant_tokenize(f.model, "", 0, true, false, &ids, &n_ids, &f.err), KVANT_OK);
        assert_int_equal(n_ids, 1); /* BOS */
        prefill(&f, ids, n_ids);
        assert_int_equal(kvant_text_stream_create(f.model, false, &stream), KVANT_OK);
        for (int i = 0; i < 200; i++) {
            int32_t id = best(kvant_session_logits(f.session), 512);
            assert_int_equal(kvant_text_stream_push(stream, id, &text, &size), KVANT_OK);
            assert_true(at + size < sizeof told);
            memcpy(told + at, text, size);
            at += size;
            assert_int_equal(kvant_session_decode(f.session, id, &f.err), KVANT_OK);
        }
        assert_int_equal(at, n);
        assert_memory_equal(told, expected, n);
        kvant_text_stream_destroy(stream);
        kvant_ids_free(ids);
        close_fixture(&f);
    }
}

static void a_model_without_its_tokenizer_computes_and_says_why_it_has_no_text(void **state) {
    (void)state;
    if (!is_there(MODEL)) skip();
    fixture f = open_fixture(MODEL, NULL, 0, 0, 1, false);
    int32_t *ids;
    int n;
    kvant_text_stream *stream;
    prefill(&f, prompt, 3);
    assert_non_null(kvant_session_logits(f.session));
    assert_int_equal(kvant_tokenize(f.model, "a", 1, true, true, &ids, &n, &f.err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(f.err.message, "tokenizer"));
    assert_int_not_equal(kvant_text_stream_create(f.model, false, &stream), KVANT_OK);
    close_fixture(&f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_do_not_depend_on_chunks_or_threads),
        cmocka_unit_test(steps_give_the_rows_of_a_prefill),
        cmocka_unit_test(start_in_the_middle_of_a_chunk_quantizes_there),
        cmocka_unit_test(start_during_generation_quantizes_there),
        cmocka_unit_test(start_never_reached_never_quantizes),
        cmocka_unit_test(mlx_order_quantizes_after_the_chunk),
        cmocka_unit_test(truncating_and_going_on_equals_a_fresh_session),
        cmocka_unit_test(a_cancelled_prefill_keeps_what_was_computed),
        cmocka_unit_test(what_does_not_fit_changes_nothing),
        cmocka_unit_test(the_cache_takes_the_bytes_of_the_formula),
        cmocka_unit_test(decoding_inside_a_page_allocates_nothing),
        cmocka_unit_test(stories_are_told_as_expected),
        cmocka_unit_test(a_model_without_its_tokenizer_computes_and_says_why_it_has_no_text),
    };
    if (!is_there(MODEL)) printf("skipped: %s is not there\n", MODEL);
    return cmocka_run_group_tests(tests, set_up, NULL);
}

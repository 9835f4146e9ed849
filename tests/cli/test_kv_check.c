// SPDX-License-Identifier: MIT
/* test_kv_check.c: what kvant run --kv-check measures and leaves alone, and what kvant eval --by-layer prints.
 *
 * The random models have no vocabulary, so the check itself is tested on ids; the program, on a tiny model that tells stories,
 * whose heads of 8 elements are too narrow for any format but floats. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/program_test.h"
#include "kv_check.h"

#define MODEL KVANT_DATA "/models/random-qwen3-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define IDS "test_kv_check_ids.txt"
#define N_VOCAB 128
#define N_PROMPT 90
#define N_TEXT 130
#define HEADS KVANT_DATA "/models/random-llama-dense.gguf"
#define N_HEADS 4 /* of HEADS: 2 layers of 2 KV heads */

static int32_t text[N_TEXT];

static int set_up(void **state) {
    (void)state;
    uint64_t x = 11;
    FILE *f = fopen(IDS, "w");
    assert_non_null(f);
    for (int i = 0; i < N_TEXT; i++) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        text[i] = (int32_t)((x >> 33) % N_VOCAB);
        fprintf(f, "%d ", text[i]);
    }
    assert_int_equal(fclose(f), 0);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    remove(IDS);
    return 0;
}

/* ---- the check ---- */

static kvant_model *open_model(const char *kv, int max_kv_size) {
    kvant_model *m;
    kvant_error err = {0};
    kvant_load_params load;
    kvant_load_params_default(&load);
    load.kv.kv = kv;
    load.kv.max_kv_size = max_kv_size;
    load.n_threads = 2;
    if (kvant_model_open(MODEL, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    return m;
}

static kvant_session *open_session(kvant_model *m, const char *kv) {
    kvant_session *s;
    kvant_error err = {0};
    kvant_session_params p;
    kvant_session_params_default(&p);
    p.kv = kv;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

/* KL(p || q) by its definition. */
static double divergence(const float *p, const float *q) {
    double sum_p = 0, sum_q = 0, kl = 0;
    for (int i = 0; i < N_VOCAB; i++) {
        sum_p += exp(p[i]);
        sum_q += exp(q[i]);
    }
    for (int i = 0; i < N_VOCAB; i++)
        kl += exp(p[i]) / sum_p * (p[i] - log(sum_p) - q[i] + log(sum_q));
    return kl;
}

/* The same by hand: a token at a time through two sessions. */
static void measure(kvant_model *m, int n, double *mean, double *most) {
    kvant_session *a = open_session(m, NULL), *b = open_session(m, "f16");
    *mean = *most = 0;
    for (int i = 0; i < n; i++) {
        assert_int_equal(kvant_session_decode(a, text[i], NULL), KVANT_OK);
        assert_int_equal(kvant_session_decode(b, text[i], NULL), KVANT_OK);
        double kl = divergence(kvant_session_logits(b), kvant_session_logits(a));
        *mean += kl / n;
        if (kl > *most) *most = kl;
    }
    kvant_session_destroy(a);
    kvant_session_destroy(b);
}

static double number(const json_t *object, const char *key) {
    const json_t *x = json_object_get(object, key);
    if (!json_is_number(x)) fail_msg("there is no number %s", key);
    return json_number_value(x);
}

/* A prompt of N_PROMPT tokens and the rest of the text as its answer, checked over n tokens. */
static void check(const char *kv, int window, int n) {
    kvant_model *m = open_model(kv, window);
    kvant_session *s = open_session(m, NULL), *plain = open_session(m, NULL);
    kv_check c;
    int64_t done = -1;
    double mean, most;
    assert_int_equal(kv_check_begin(&c, m, s, n, KVANT_FAST), 0);
    assert_int_equal(kv_check_prompt(&c, text, N_PROMPT, NULL, NULL, &done), 0);
    assert_int_equal(done, n < N_PROMPT ? n : N_PROMPT);
    assert_int_equal(kvant_session_prefill(s, text + done, N_PROMPT - done, NULL, NULL, NULL), KVANT_OK);
    assert_int_equal(kvant_session_prefill(plain, text, N_PROMPT, NULL, NULL, NULL), KVANT_OK);
    for (int i = N_PROMPT; i < N_TEXT; i++) {
        assert_memory_equal(kvant_session_logits(s), kvant_session_logits(plain), N_VOCAB * sizeof(float)); /* nothing changes */
        assert_int_equal(kvant_session_decode(s, text[i], NULL), KVANT_OK);
        assert_int_equal(kvant_session_decode(plain, text[i], NULL), KVANT_OK);
        assert_int_equal(kv_check_token(&c, text[i]), 0);
    }
    int compared = n < N_TEXT ? n : N_TEXT;
    measure(m, compared, &mean, &most);
    assert_true((c.shadow == NULL) == (n <= N_TEXT)); /* its bytes are free again */
    json_t *found = kv_check_json(&c);
    print_message("  %s, window %d, %d tokens: KL %.4g, at most %.4g (by hand %.4g, %.4g), top-1 %.3f\n", kv, window, compared,
                  number(found, "kl_mean"), number(found, "kl_max"), mean, most, number(found, "top1"));
    assert_int_equal((int)number(found, "tokens"), compared);
    assert_int_equal((int)number(found, "prompt_tokens"), compared < N_PROMPT ? compared : N_PROMPT);
    assert_true(fabs(number(found, "kl_mean") - mean) <= 1e-8 + 1e-3 * mean);
    assert_true(fabs(number(found, "kl_max") - most) <= 1e-8 + 1e-3 * most);
    if (strcmp(kv, "f16") == 0)
        assert_true(number(found, "kl_max") == 0 && number(found, "top1") == 1);
    else
        assert_true(number(found, "kl_mean") > 1e-7);
    json_decref(found);
    kv_check_free(&c);
    kvant_session_destroy(s);
    kvant_session_destroy(plain);
    kvant_model_close(m);
}

static void the_divergence_is_that_of_two_sessions_and_the_answer_stays(void **state) {
    (void)state;
    if (!is_there_or_said(MODEL)) skip();
    check("affine2:32", 0, 1);
    check("affine2:32", 0, 70);
    check("affine3:32/affine4:64", 0, 110);
    check("bc3", 0, 1000);
    check("f16", 0, 110);
}

static void windows_are_checked_against_the_same_window(void **state) {
    (void)state;
    if (!is_there_or_said(MODEL)) skip();
    check("affine2:32", 40, 120);
    check("f16", 40, 120);
}

static bool stop_at_once(void *user, int64_t done, int64_t total) {
    (void)total;
    *(int64_t *)user = done;
    return false;
}

static void a_check_can_be_interrupted(void **state) {
    (void)state;
    if (!is_there_or_said(MODEL)) skip();
    kvant_model *m = open_model("affine4:32", 0);
    kvant_session *s = open_session(m, NULL);
    kv_check c;
    int64_t done, shown = 0;
    assert_int_equal(kv_check_begin(&c, m, s, 80, KVANT_FAST), 0);
    assert_int_equal(kv_check_prompt(&c, text, N_PROMPT, stop_at_once, &shown, &done), 1);
    assert_true(shown > 0 && shown < 80);
    kv_check_free(&c);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

/* ---- the program ---- */

static json_t *read_json(void) {
    json_error_t error;
    json_t *root = json_loads(output, 0, &error);
    if (!root) fail_msg("%s: %s", error.text, output);
    return root;
}

static void run_says_what_it_found(void **state) {
    (void)state;
    if (!is_there_or_said(STORIES)) skip();
    static const char command[] = "run -m " STORIES " --raw -p 'Once upon a time' -n 30 --kv f32 --json";
    char checked[256];
    snprintf(checked, sizeof checked, "%s --kv-check 20", command);
    assert_int_equal(run(false, command), 0);
    json_t *plain = read_json();
    assert_int_equal(run(false, checked), 0);
    json_t *root = read_json(), *found = json_object_get(root, "kv_check");
    assert_true(json_equal(json_object_get(plain, "ids"), json_object_get(root, "ids")));
    assert_null(json_object_get(plain, "kv_check"));
    assert_int_equal((int)number(found, "tokens"), 20);
    assert_string_equal(json_string_value(json_object_get(found, "formats")), "f32/f32");
    assert_true(number(found, "kl_max") > 0 && number(found, "kl_max") < 1e-4);
    json_decref(plain);
    json_decref(root);
    assert_int_equal(run(true, "run -m " STORIES " --raw -p 'Once upon a time' -n 30 --kv f32 --kv-check 20"), 0);
    assert_non_null(strstr(output, "f32/f32 against f16 over 20 tokens"));
    assert_says(2, "run -m " STORIES " --raw -p a --compat mlx --kv-check 20", "--compat mlx");
    assert_says(2, "run -m " STORIES " --raw -p a --kv-check many", "--kv-check");
}

static void eval_shows_every_head_of_every_format(void **state) {
    (void)state;
    if (!is_there_or_said(HEADS)) skip();
    assert_int_equal(run(false, "eval -m " HEADS " -f " IDS " --ids --by-layer --json --kv bc4,affine8:32,affine3:32"), 0);
    json_t *root = read_json(), *formats = json_object_get(root, "formats");
    assert_int_equal((int)number(root, "tokens"), N_TEXT);
    assert_int_equal(json_array_size(formats), 3);
    for (size_t i = 0; i < N_HEADS; i++) {
        double sigma2[3], v_error[3];
        for (size_t f = 0; f < 3; f++) {
            json_t *heads = json_object_get(json_array_get(formats, f), "heads"), *head = json_array_get(heads, i);
            assert_int_equal(json_array_size(heads), N_HEADS);
            assert_int_equal((int)number(head, "layer"), (int)i / 2);
            assert_int_equal((int)number(head, "kv_head"), (int)i % 2);
            sigma2[f] = number(head, "sigma2");
            v_error[f] = number(head, "v_error");
        }
        assert_true(0 < sigma2[1] && sigma2[1] < sigma2[0] && sigma2[0] < sigma2[2]);
        assert_true(0 < v_error[1] && v_error[1] < v_error[0] && v_error[0] < v_error[2]);
    }
    json_decref(root);
    assert_int_equal(run(false, "eval -m " HEADS " -f " IDS " --ids --by-layer --csv --tokens 64 --kv bc4,affine8:32"), 0);
    int n_lines = 0;
    for (const char *at = output; (at = strchr(at, '\n')); at++)
        n_lines++;
    assert_int_equal(n_lines, 1 + 2 * N_HEADS);
    assert_memory_equal(output, "kv,layer,kv_head,sigma2,v_error,tokens\nbc4,0,0,", 47);
    assert_non_null(strstr(output, ",64\n"));
    assert_int_equal(run(false, "eval -m " HEADS " -f " IDS " --ids --by-layer --kv affine3:32"), 0);
    const char *worst = strstr(output, "worst"), *all = strstr(output, "sigma2 of K, by KV head");
    assert_true(worst && all && worst < all);
    assert_says(2, "eval -m " HEADS " -f " IDS " --ids --by-layer --greedy --kv f16", "--by-layer is a report of its own");
    assert_says(2, "eval -m " HEADS " -f " IDS " --ids --by-layer -c 64 --kv f16", "leave out -c");
    assert_says(2, "eval -m " HEADS " -f " IDS " --ids --by-layer --tokens 15 --kv f16", "16 to");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_divergence_is_that_of_two_sessions_and_the_answer_stays),
        cmocka_unit_test(windows_are_checked_against_the_same_window),
        cmocka_unit_test(a_check_can_be_interrupted),
        cmocka_unit_test(run_says_what_it_found),
        cmocka_unit_test(eval_shows_every_head_of_every_format),
    };
    print_message("seed 11\n");
    return cmocka_run_group_tests_name("kv check", tests, set_up, tear_down);
}

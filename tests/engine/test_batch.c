// SPDX-License-Identifier: MIT
/* test_batch.c: sessions that compute together answer as each would alone, bit for bit: over families, formats, windows and points of
 * quantization, with any number of sessions, tokens and threads, and with pages that they share. A batch that fails changes nothing. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kvant/engine.h"

#define N_MOST 8     /* sessions */
#define N_CONTEXT 400
#define N_STEP_MOST 5 /* tokens of a session in one batch */
#define N_VOCAB_MOST 1024

static uint64_t seed = 1;

static int draw(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static const char *const models[] = {
    KVANT_SOURCE "/tests/golden/models/gemma2-window.gguf", KVANT_SOURCE "/tests/golden/models/gemma3-window.gguf",
    KVANT_SOURCE "/tests/golden/models/glm4.gguf",          KVANT_SOURCE "/tests/golden/models/gpt-oss-yarn.gguf",
    KVANT_SOURCE "/tests/golden/models/granite.gguf",       KVANT_SOURCE "/tests/golden/models/llama-experts.gguf",
    KVANT_SOURCE "/tests/golden/models/mistral3-yarn.gguf", KVANT_SOURCE "/tests/golden/models/olmo2-window.gguf",
    KVANT_SOURCE "/tests/golden/models/qwen2.gguf",         KVANT_SOURCE "/tests/golden/models/qwen3moe.gguf",
    KVANT_SOURCE "/tests/golden/models/smollm3.gguf",       KVANT_SOURCE "/tests/golden/models/starcoder2.gguf",
    KVANT_DATA "/models/random-llama-dense.gguf",           KVANT_DATA "/models/random-gpt-oss-moe.gguf",
    KVANT_DATA "/models/random-gemma3-dense.gguf",          KVANT_DATA "/models/random-qwen3-dense.gguf",
    KVANT_DATA "/models/random-llama-moe.gguf",             KVANT_DATA "/models/random-gemma2-dense.gguf"};
#define N_MODELS ((int)(sizeof models / sizeof *models))

typedef struct settings {
    const char *kv;
    int start, window, threads;
    bool mlx;
} settings;

/* NULL: absent, or its heads are too narrow for the format. */
static kvant_model *open_model(const char *path, const settings *t, int step) {
    kvant_load_params load;
    kvant_model *m = NULL;
    kvant_error err = {0};
    FILE *f = fopen(path, "rb");
    if (!f) {
        printf("  skipped: %s is absent\n", path);
        return NULL;
    }
    fclose(f);
    kvant_load_params_default(&load);
    load.kv.kv = t->kv;
    load.kv.quantized_kv_start = t->start;
    load.kv.max_kv_size = t->window;
    load.kv.compat_mlx = t->mlx;
    load.n_threads = t->threads;
    load.prefill_step_size = step;
    kvant_status st = kvant_model_open(path, &load, &m, &err);
    if (st != KVANT_OK && st != KVANT_EUNSUPPORTED && st != KVANT_EINVAL) fail_msg("%s: %s", path, err.message);
    return st == KVANT_OK ? m : NULL;
}

static kvant_session *new_session(kvant_model *m, kvant_precision precision, int64_t n_context) {
    kvant_session_params p;
    kvant_session *s = NULL;
    kvant_error err = {0};
    kvant_session_params_default(&p);
    p.n_context = n_context;
    p.precision = precision;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

static void random_ids(int32_t *ids, int n, int n_vocab) {
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)draw(n_vocab);
}

static void prefill(kvant_session *s, const int32_t *ids, int n) {
    kvant_error err = {0};
    if (n > 0 && kvant_session_prefill(s, ids, n, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
}

/* Sessions in pairs: those of `together` compute in batches, those of `alone` one by one. */
typedef struct pairs {
    kvant_model *m;
    int n, n_vocab;
    kvant_session *together[N_MOST], *alone[N_MOST];
} pairs;

/* Some begin with tokens of their own, the others with those of session 0, whose pages they share. */
static pairs make_pairs(kvant_model *m, int n, kvant_precision precision) {
    kvant_model_info info;
    kvant_error err = {0};
    int32_t first[N_CONTEXT], own[N_CONTEXT];
    kvant_model_get_info(m, &info);
    assert_in_range(info.n_vocab, 1, N_VOCAB_MOST);
    pairs p = {m, n, info.n_vocab, {0}, {0}};
    int n_first = draw(200);
    random_ids(first, n_first, p.n_vocab);
    for (int i = 0; i < n; i++) {
        int n_own = draw(3) == 0 ? draw(100) : draw(8), shared = i == 0 || draw(2);
        if (i > 0 && shared) {
            if (kvant_session_fork(p.together[0], &p.together[i], &err) != KVANT_OK) fail_msg("%s", err.message);
        } else {
            p.together[i] = new_session(m, precision, N_CONTEXT);
        }
        p.alone[i] = new_session(m, precision, N_CONTEXT);
        if (i == 0) prefill(p.together[0], first, n_first);
        if (shared) prefill(p.alone[i], first, n_first);
        if (i == 0) continue; /* the others are made of it */
        random_ids(own, n_own, p.n_vocab);
        prefill(p.together[i], own, n_own);
        prefill(p.alone[i], own, n_own);
    }
    return p;
}

static void destroy_pairs(pairs *p) {
    for (int i = 0; i < p->n; i++) {
        kvant_session_destroy(p->together[i]);
        kvant_session_destroy(p->alone[i]);
    }
}

static bool same_row(const float *a, const float *b, int n) { return a && b && memcmp(a, b, (size_t)n * sizeof *a) == 0; }

/* One batch of some of the sessions, and the same tokens one session after the other. */
static void step_pairs(pairs *p, const char *what) {
    static float rows[N_MOST][N_STEP_MOST * N_VOCAB_MOST], expected[N_STEP_MOST * N_VOCAB_MOST];
    int32_t ids[N_MOST][N_STEP_MOST];
    int which[N_MOST], n = 0, first = draw(p->n);
    kvant_batch_item items[N_MOST] = {0};
    kvant_error err = {0};
    for (int k = 0; k < p->n; k++) {
        int i = (first + k) % p->n;
        if (n > 0 && draw(4) == 0) continue;
        items[n] = (kvant_batch_item){p->together[i], ids[n], 1 + draw(N_STEP_MOST), draw(2) ? rows[n] : NULL};
        random_ids(ids[n], items[n].n, p->n_vocab);
        which[n++] = i;
    }
    if (kvant_batch_decode(p->m, items, n, &err) != KVANT_OK) fail_msg("%s: %s", what, err.message);
    for (int k = 0; k < n; k++) {
        kvant_session *alone = p->alone[which[k]], *together = p->together[which[k]];
        if (items[k].logits) {
            if (kvant_session_step(alone, ids[k], items[k].n, expected, &err) != KVANT_OK) fail_msg("%s", err.message);
            if (!same_row(items[k].logits, expected, items[k].n * p->n_vocab)) fail_msg("%s: item %d: rows differ", what, k);
        } else {
            prefill(alone, ids[k], items[k].n);
        }
        if (!same_row(kvant_session_logits(together), kvant_session_logits(alone), p->n_vocab))
            fail_msg("%s: item %d of %d, %d tokens: the last row differs", what, k, n, items[k].n);
        assert_int_equal(kvant_session_length(together), kvant_session_length(alone));
        assert_int_equal(kvant_session_cache_bytes(together), kvant_session_cache_bytes(alone));
        assert_memory_equal(kvant_session_tokens(together), kvant_session_tokens(alone),
                            (size_t)kvant_session_length(alone) * sizeof(int32_t));
    }
}

static int check_model(const char *path, const settings *t, int n_rounds) {
    char what[512];
    kvant_model *m = open_model(path, t, 64);
    if (!m) return 0;
    for (int round = 0; round < n_rounds; round++) {
        kvant_precision precision = draw(4) == 0 ? KVANT_EXACT : KVANT_FAST;
        pairs p = make_pairs(m, 1 + draw(N_MOST), precision);
        for (int step = 0; step < 6; step++) {
            snprintf(what, sizeof what, "%s, %s from %d, window %d, %d threads, %s, step %d", strrchr(path, '/') + 1, t->kv, t->start,
                     t->window, t->threads, precision == KVANT_EXACT ? "exact" : "fast", step);
            step_pairs(&p, what);
        }
        destroy_pairs(&p);
    }
    kvant_model_close(m);
    return 1;
}

static void sessions_together_answer_as_each_alone(void **state) {
    (void)state;
    static const char *const formats[] = {"f16", "affine4:32", "affine4:64", "i8", "bz4/bc4"};
    int n_run = 0;
    for (int i = 0; i < N_MODELS; i++) {
        for (int f = 0; f < 5; f++) {
            settings t = {formats[f], draw(3) == 0 ? 20 + draw(100) : 0, draw(4) == 0 ? 70 + draw(80) : 0, 1 + draw(3), false};
            n_run += check_model(models[i], &t, 2);
        }
    }
    printf("  %d models and formats\n", n_run);
    assert_true(n_run > 20);
}

/* Tokens that cross the point are one chunk before and one after it, alone and together. */
static void a_batch_stops_where_quantization_begins(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i += 3) {
        settings t = {"affine4:32", 60, 0, 2, false};
        kvant_model *m = open_model(models[i], &t, 64);
        if (!m) continue;
        pairs p = {m, 4, 0, {0}, {0}};
        kvant_model_info info;
        kvant_model_get_info(m, &info);
        p.n_vocab = info.n_vocab;
        for (int k = 0; k < p.n; k++) {
            int32_t ids[64];
            random_ids(ids, 57 + k, p.n_vocab);
            p.together[k] = new_session(m, KVANT_FAST, N_CONTEXT);
            p.alone[k] = new_session(m, KVANT_FAST, N_CONTEXT);
            prefill(p.together[k], ids, 57 + k);
            prefill(p.alone[k], ids, 57 + k);
        }
        for (int step = 0; step < 4; step++)
            step_pairs(&p, "across quantized_kv_start");
        destroy_pairs(&p);
        kvant_model_close(m);
    }
}

static void the_rules_of_mlx_hold_in_a_batch(void **state) {
    (void)state;
    for (int i = 0; i < N_MODELS; i += 5) {
        settings t = {"affine4:32", draw(2) ? 0 : 40, 0, 2, true};
        check_model(models[i], &t, 2);
    }
}

/* ---- failures ---- */

static void assert_refused(kvant_model *m, const kvant_batch_item *items, int n, kvant_status expected, const char *part) {
    kvant_error err = {0};
    assert_int_equal(kvant_batch_decode(m, items, n, &err), expected);
    if (!strstr(err.message, part)) fail_msg("found \"%s\", expected it to say \"%s\"", err.message, part);
}

static void a_batch_that_fails_changes_nothing(void **state) {
    (void)state;
    settings t = {"f16", 0, 0, 2, false};
    const char *path = KVANT_SOURCE "/tests/golden/models/gemma3-window.gguf";
    kvant_model *m = open_model(path, &t, 16), *other = open_model(path, &t, 16);
    assert_non_null(m);
    assert_non_null(other);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    int32_t ids[40];
    random_ids(ids, 40, info.n_vocab);
    pairs p = {m, 2, info.n_vocab, {0}, {0}};
    for (int k = 0; k < 2; k++) {
        p.together[k] = new_session(m, KVANT_FAST, 40);
        p.alone[k] = new_session(m, KVANT_FAST, 40);
        prefill(p.together[k], ids + k, 36);
        prefill(p.alone[k], ids + k, 36);
    }
    kvant_session *exact = new_session(m, KVANT_EXACT, 40), *strange = new_session(other, KVANT_FAST, 40);
    int32_t high[2] = {0, info.n_vocab}, negative[1] = {-1};
    kvant_session *a = p.together[0], *b = p.together[1];
    assert_refused(m, (kvant_batch_item[]){{a, ids, 4, NULL}, {b, ids, 5, NULL}}, 2, KVANT_EFULL, "session 1: context");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {b, ids, 1, NULL}, {a, ids, 1, NULL}}, 3, KVANT_EINVAL, "session 2 is session 0");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {strange, ids, 1, NULL}}, 2, KVANT_EINVAL, "another model");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {exact, ids, 1, NULL}}, 2, KVANT_EINVAL, "another precision");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {b, ids, 0, NULL}}, 2, KVANT_EINVAL, "found 0 tokens");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {b, ids, 16, NULL}}, 2, KVANT_EINVAL, "found 17 tokens");
    assert_refused(m, (kvant_batch_item[]){{a, ids, 1, NULL}, {b, high, 2, NULL}}, 2, KVANT_EINVAL, "token 1: found id");
    assert_refused(m, (kvant_batch_item[]){{a, negative, 1, NULL}, {b, ids, 1, NULL}}, 2, KVANT_EINVAL, "session 0: token 0");
    assert_refused(m, NULL, -1, KVANT_EINVAL, "found -1 sessions");
    assert_int_equal(kvant_batch_decode(m, NULL, 0, NULL), KVANT_OK);
    for (int k = 0; k < 2; k++) {
        assert_int_equal(kvant_session_length(p.together[k]), 36);
        assert_true(same_row(kvant_session_logits(p.together[k]), kvant_session_logits(p.alone[k]), info.n_vocab));
    }
    kvant_error err = {0};
    if (kvant_batch_decode(m, (kvant_batch_item[]){{a, ids, 4, NULL}, {b, ids, 2, NULL}}, 2, &err) != KVANT_OK) fail_msg("%s", err.message);
    prefill(p.alone[0], ids, 4);
    prefill(p.alone[1], ids, 2);
    for (int k = 0; k < 2; k++)
        assert_true(same_row(kvant_session_logits(p.together[k]), kvant_session_logits(p.alone[k]), info.n_vocab));
    destroy_pairs(&p);
    kvant_session_destroy(exact);
    kvant_session_destroy(strange);
    kvant_model_close(m);
    kvant_model_close(other);
}

/* test_batch [SEED] */
int main(int argc, char **argv) {
    if (argc > 1) seed = strtoull(argv[1], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(sessions_together_answer_as_each_alone),
                                       cmocka_unit_test(a_batch_stops_where_quantization_begins),
                                       cmocka_unit_test(the_rules_of_mlx_hold_in_a_batch),
                                       cmocka_unit_test(a_batch_that_fails_changes_nothing)};
    return cmocka_run_group_tests_name("batch", tests, NULL, NULL);
}

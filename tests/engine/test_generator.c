// SPDX-License-Identifier: MIT
/* test_generator.c: a draft never changes an answer: token for token, and the logits behind it bit for bit, greedy and sampled, with
 * every kind of cache. Also: what guesses cost, what they are, and when there are none. */
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
#include "engine/drafter.h"

#define LLAMA KVANT_DATA "/models/random-llama-dense.gguf"
#define QWEN KVANT_DATA "/models/random-qwen2-dense.gguf"
#define GEMMA2 KVANT_DATA "/models/random-gemma2-dense.gguf"
#define GEMMA3 KVANT_DATA "/models/random-gemma3-dense.gguf"
#define GPT_OSS KVANT_DATA "/models/random-gpt-oss-moe.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define N_PROMPTS 50
#define N_ANSWER 26
#define PROMPT_MAX 300
#define VOCAB_MAX 512

static bool is_there(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) return false;
    fclose(f);
    return true;
}

static uint64_t random_state;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

/* ---- one model, one answer ---- */

/* What a cache is: fields of kvant_kv_params. */
typedef struct cache_case {
    const char *path, *kv;
    int start, window;
    bool mlx;
    int n_prompt; /* 0: from 20 to 219 tokens */
    kvant_precision precision;
} cache_case;

static kvant_model *open_model(const char *path, const cache_case *c) {
    kvant_load_params load;
    kvant_error err = {0};
    kvant_model *m = NULL;
    kvant_load_params_default(&load);
    load.n_threads = 1;
    load.kv.kv = c->kv;
    load.kv.quantized_kv_start = c->start;
    load.kv.max_kv_size = c->window;
    load.kv.compat_mlx = c->mlx;
    if (kvant_model_open(path, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    return m;
}

static int vocabulary_of(const kvant_model *m) {
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    assert_true(info.n_vocab <= VOCAB_MAX);
    return info.n_vocab;
}

/* Tokens of which many come again in the same order, so that there is something to guess. */
static int make_prompt(int index, int n, int n_vocab, int32_t *ids) {
    random_state = 1000 + (uint64_t)index;
    if (n == 0) n = 20 + (int)random_below(200);
    for (int i = 0; i < n; i++)
        ids[i] = i > 10 && random_below(4) ? ids[i - 1 - (int)(random_below(2) * 9)] : (int32_t)random_below((uint32_t)n_vocab);
    return n;
}

typedef struct outcome {
    int n;
    int32_t ids[N_ANSWER];
    float rows[N_ANSWER][VOCAB_MAX]; /* the session's logits after the call that gave token i; only for the last of a call */
    bool has_row[N_ANSWER];
    kvant_draft_stats stats;
} outcome;

typedef enum sampling { GREEDY, SAMPLED } sampling;

static kvant_sampler *make_sampler(sampling how, int n_vocab, uint64_t seed) {
    kvant_sampler_params p;
    kvant_sampler *s = NULL;
    kvant_error err = {0};
    kvant_sampler_params_default(&p);
    if (how == SAMPLED) p.temperature = 0.3f, p.top_p = 0.9f, p.repeat_penalty = 1.05f, p.seed = seed;
    assert_int_equal(kvant_sampler_create(&p, n_vocab, &s, &err), KVANT_OK);
    return s;
}

static kvant_session *make_session(kvant_model *m, kvant_precision precision) {
    kvant_session_params p;
    kvant_session *s = NULL;
    kvant_error err = {0};
    kvant_session_params_default(&p);
    p.n_context = 400;
    p.precision = precision;
    if (kvant_session_create(m, &p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

static kvant_generator *make_generator(kvant_session *s, kvant_sampler *sampler, const kvant_draft_params *draft, bool always) {
    kvant_generator *g = NULL;
    kvant_error err = {0};
    if (kvant_generator_create(s, sampler, draft, &g, &err) != KVANT_OK) fail_msg("%s", err.message);
    if (draft && always) kvant_generator_guess_always(g);
    return g;
}

/* N_ANSWER tokens after a prompt, with guesses in every round. */
static void answer(kvant_model *m, kvant_precision precision, const int32_t *ids, int n_ids, sampling how, const kvant_draft_params *draft,
                   outcome *out) {
    kvant_error err = {0};
    int n_vocab = vocabulary_of(m);
    kvant_session *s = make_session(m, precision);
    if (kvant_session_prefill(s, ids, n_ids, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_sampler *sampler = make_sampler(how, n_vocab, 7 + (uint64_t)n_ids);
    kvant_generator *g = make_generator(s, sampler, draft, true);
    out->n = 0;
    memset(out->has_row, 0, sizeof out->has_row);
    while (out->n < N_ANSWER) {
        const int32_t *made;
        int n;
        if (kvant_generator_next(g, N_ANSWER - out->n, &made, &n, &err) != KVANT_OK) fail_msg("%s", err.message);
        assert_true(n >= 1 && n <= N_ANSWER - out->n);
        memcpy(out->ids + out->n, made, (size_t)n * sizeof *made);
        out->n += n;
        assert_int_equal(kvant_session_length(s), n_ids + out->n - 1);
        memcpy(out->rows[out->n - 1], kvant_session_logits(s), (size_t)n_vocab * sizeof(float));
        out->has_row[out->n - 1] = true;
    }
    out->stats = kvant_generator_get_stats(g);
    assert_int_equal(kvant_generator_finish(g, &err), KVANT_OK);
    assert_int_equal(kvant_session_length(s), n_ids + N_ANSWER);
    assert_memory_equal(kvant_session_tokens(s), ids, (size_t)n_ids * sizeof *ids);
    assert_memory_equal(kvant_session_tokens(s) + n_ids, out->ids, sizeof out->ids);
    kvant_generator_destroy(g);
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
}

static void assert_same(const outcome *plain, const outcome *drafted, int n_vocab, const char *what) {
    for (int i = 0; i < N_ANSWER; i++) {
        if (plain->ids[i] != drafted->ids[i]) fail_msg("%s: token %d is %d, not %d", what, i, drafted->ids[i], plain->ids[i]);
        if (!drafted->has_row[i]) continue;
        if (memcmp(plain->rows[i], drafted->rows[i], (size_t)n_vocab * sizeof(float)) != 0)
            fail_msg("%s: the logits behind token %d differ", what, i);
    }
}

/* ---- answers are the same ---- */

static void add_stats(kvant_draft_stats *sum, kvant_draft_stats one) {
    sum->n_rounds += one.n_rounds;
    sum->n_drafted += one.n_drafted;
    sum->n_accepted += one.n_accepted;
}

/* 50 prompts, every other one sampled, with one draft each: n-grams, the model itself, another one (NULL: none has its vocabulary). */
static void check_case(const cache_case *c, const char *other) {
    static outcome plain, drafted;
    static const char *const names[] = {"n-grams", "the model itself", "another model"};
    if (!is_there(c->path) || (other && !is_there(other))) skip();
    cache_case small = {.kv = "f16"};
    kvant_model *m = open_model(c->path, c), *o = other ? open_model(other, &small) : NULL;
    kvant_draft_stats sums[3] = {{0}};
    int32_t ids[PROMPT_MAX];
    int n_vocab = vocabulary_of(m);
    for (int i = 0; i < N_PROMPTS; i++) {
        int n = make_prompt(i, c->n_prompt, n_vocab, ids);
        sampling how = i % 2 ? SAMPLED : GREEDY;
        int d = i / 2 % (o ? 3 : 2);
        kvant_draft_params draft = {.model = d == 0 ? NULL : d == 1 ? m : o, .n_draft = 1 + i % 7};
        char what[256];
        snprintf(what, sizeof what, "%s, %s from %d, window %d, prompt %d (%s), drafts of %d by %s", c->path, c->kv, c->start, c->window,
                 i, how == SAMPLED ? "sampled" : "greedy", draft.n_draft, names[d]);
        answer(m, c->precision, ids, n, how, NULL, &plain);
        answer(m, c->precision, ids, n, how, &draft, &drafted);
        assert_same(&plain, &drafted, n_vocab, what);
        add_stats(&sums[d], drafted.stats);
    }
    for (int d = 0; d < (o ? 3 : 2); d++) {
        printf("%s, %s, start %d, window %d: %s: %lld of %lld accepted in %lld rounds\n", strrchr(c->path, '/') + 1, c->kv,
               c->start, c->window, names[d], (long long)sums[d].n_accepted, (long long)sums[d].n_drafted, (long long)sums[d].n_rounds);
        assert_true(sums[d].n_drafted > 0);
    }
    assert_true(sums[0].n_accepted > 0 && sums[1].n_accepted > 0);
    assert_true(sums[0].n_accepted < sums[0].n_drafted); /* wrong guesses are what can go wrong */
    kvant_model_close(m);
    kvant_model_close(o);
}

static void formats_answer_the_same_with_any_draft(void **state) {
    (void)state;
    static const char *const formats[] = {"f16", "f32", "i8", "bz4/bc4", "affine4:64", "q4_0", "lossless"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        check_case(&(cache_case){.path = LLAMA, .kv = formats[i]}, i == 0 || i == 3 ? QWEN : NULL);
}

static void exact_arithmetic_answers_the_same(void **state) {
    (void)state;
    check_case(&(cache_case){.path = LLAMA, .kv = "affine4:64", .precision = KVANT_EXACT}, NULL);
}

static void windows_answer_the_same_with_any_draft(void **state) {
    (void)state;
    check_case(&(cache_case){.path = LLAMA, .kv = "f16", .window = 80}, NULL);
    check_case(&(cache_case){.path = LLAMA, .kv = "bz4/bc4", .window = 70}, NULL);
}

static void sliding_windows_answer_the_same_with_any_draft(void **state) {
    (void)state;
    check_case(&(cache_case){.path = GEMMA2, .kv = "f16"}, NULL);
    check_case(&(cache_case){.path = GEMMA3, .kv = "affine4:64"}, NULL);
    check_case(&(cache_case){.path = GPT_OSS, .kv = "f16"}, NULL);
}

static void a_start_inside_the_answer_is_never_crossed_by_guesses(void **state) {
    (void)state;
    check_case(&(cache_case){.path = LLAMA, .kv = "affine4:64", .start = 110, .n_prompt = 100}, NULL);
    check_case(&(cache_case){.path = LLAMA, .kv = "bz4/bc4", .start = 128, .n_prompt = 100}, NULL);
    check_case(&(cache_case){.path = LLAMA, .kv = "affine4:64", .start = 100}, NULL);
}

/* In mlx's order tokens of one step see each other in full precision: guesses end where the cache is quantized. */
static void in_mlx_order_guesses_end_where_quantization_begins(void **state) {
    (void)state;
    check_case(&(cache_case){.path = LLAMA, .kv = "affine4:64", .start = 120, .n_prompt = 100, .mlx = true}, NULL);
    check_case(&(cache_case){.path = LLAMA, .kv = "f16", .window = 80, .mlx = true}, NULL);
    if (!is_there(LLAMA)) skip();
    cache_case c = {.path = LLAMA, .kv = "affine4:64", .mlx = true};
    kvant_model *m = open_model(LLAMA, &c);
    kvant_session *s = make_session(m, KVANT_FAST);
    kvant_sampler *sampler = make_sampler(GREEDY, vocabulary_of(m), 0);
    kvant_draft_params draft = {.n_draft = 4};
    kvant_generator *g = NULL;
    kvant_error err = {0};
    assert_int_equal(kvant_generator_create(s, sampler, &draft, &g, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "mlx"));
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

/* The model as its own draft guesses what it will say itself. */
static void greedy_guesses_of_the_model_itself_are_all_right(void **state) {
    (void)state;
    static outcome out;
    if (!is_there(LLAMA)) skip();
    cache_case c = {.path = LLAMA, .kv = "i8"};
    kvant_model *m = open_model(LLAMA, &c);
    int32_t ids[PROMPT_MAX];
    for (int i = 0; i < 10; i++) {
        int n = make_prompt(i, 0, vocabulary_of(m), ids);
        kvant_draft_params draft = {.model = m, .n_draft = 5};
        answer(m, KVANT_FAST, ids, n, GREEDY, &draft, &out);
        assert_int_equal(out.stats.n_accepted, out.stats.n_drafted);
        assert_int_equal(out.stats.n_rounds, (N_ANSWER - 1) / 6); /* a round gives its guesses and one more */
        assert_int_equal(out.stats.n_drafted, 5 * out.stats.n_rounds);
    }
    kvant_model_close(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(formats_answer_the_same_with_any_draft),
        cmocka_unit_test(exact_arithmetic_answers_the_same),
        cmocka_unit_test(windows_answer_the_same_with_any_draft),
        cmocka_unit_test(sliding_windows_answer_the_same_with_any_draft),
        cmocka_unit_test(a_start_inside_the_answer_is_never_crossed_by_guesses),
        cmocka_unit_test(in_mlx_order_guesses_end_where_quantization_begins),
        cmocka_unit_test(greedy_guesses_of_the_model_itself_are_all_right),
    };
    if (!is_there(LLAMA)) printf("skipped: %s is not there\n", LLAMA);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

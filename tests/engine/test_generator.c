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
    if (how == SAMPLED) p.temperature = 0.08f, p.top_p = 0.95f, p.repeat_penalty = 1.05f, p.seed = seed;
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
    static const char *const formats[] = {"f16", "i8", "bz4/bc4", "affine4:64", "q4_0"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        check_case(&(cache_case){.path = LLAMA, .kv = formats[i]}, i == 0 || i == 2 ? QWEN : NULL);
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

/* ---- the distribution ---- */

#define N_DEEP 4           /* tokens of an answer */
#define N_WIDE 2           /* top_k */
#define N_OUTCOMES 16      /* N_WIDE to the power of N_DEEP */
#define N_SAMPLES 30000
#define TEMPERATURE 2.0
#define CHI_SQUARE_15 44.26 /* exceeded by chance once in 10000 times */

/* The two most probable tokens after what the session has read, and the probability of the first. */
static double two_best(kvant_session *s, int n_vocab, int32_t best[N_WIDE]) {
    const float *logits = kvant_session_logits(s);
    best[0] = best[1] = -1;
    for (int32_t i = 0; i < n_vocab; i++) {
        if (best[0] < 0 || logits[i] > logits[best[0]]) best[1] = best[0], best[0] = i;
        else if (best[1] < 0 || logits[i] > logits[best[1]]) best[1] = i;
    }
    return 1 / (1 + exp(((double)logits[best[1]] - (double)logits[best[0]]) / TEMPERATURE));
}

/* Every answer and its probability, from the model without a generator. */
static void expect_outcomes(kvant_session *s, int n_vocab, int32_t ids[N_OUTCOMES][N_DEEP], double p[N_OUTCOMES]) {
    kvant_error err = {0};
    int64_t length = kvant_session_length(s);
    int32_t last = kvant_session_tokens(s)[length - 1];
    for (int o = 0; o < N_OUTCOMES; o++) {
        assert_int_equal(kvant_session_truncate(s, length - 1, &err), KVANT_OK);
        p[o] = 1;
        for (int i = 0; i < N_DEEP; i++) {
            int32_t best[N_WIDE];
            assert_int_equal(kvant_session_decode(s, i == 0 ? last : ids[o][i - 1], &err), KVANT_OK);
            double first = two_best(s, n_vocab, best);
            ids[o][i] = best[o >> i & 1];
            p[o] *= o >> i & 1 ? 1 - first : first;
        }
    }
    assert_int_equal(kvant_session_truncate(s, length, &err), KVANT_OK);
}

static int outcome_of(const int32_t *ids, int32_t known[N_OUTCOMES][N_DEEP]) {
    for (int o = 0; o < N_OUTCOMES; o++)
        if (memcmp(ids, known[o], sizeof known[o]) == 0) return o;
    fail_msg("an answer that cannot be: %d %d %d %d", ids[0], ids[1], ids[2], ids[3]);
    return 0;
}

static double chi_square(const int *counts, const double *p) {
    double sum = 0;
    for (int o = 0; o < N_OUTCOMES; o++) sum += pow(counts[o] - N_SAMPLES * p[o], 2) / (N_SAMPLES * p[o]);
    return sum;
}

static void count_answers(kvant_model *m, kvant_session *s, int32_t known[N_OUTCOMES][N_DEEP], int counts[N_OUTCOMES]) {
    kvant_sampler_params p;
    kvant_sampler *sampler = NULL;
    kvant_error err = {0};
    kvant_draft_params draft = {.model = m, .n_draft = 2};
    int64_t length = kvant_session_length(s);
    int32_t last = kvant_session_tokens(s)[length - 1];
    kvant_sampler_params_default(&p);
    p.temperature = (float)TEMPERATURE, p.top_k = N_WIDE, p.seed = 11;
    assert_int_equal(kvant_sampler_create(&p, vocabulary_of(m), &sampler, &err), KVANT_OK);
    kvant_generator *g = make_generator(s, sampler, &draft, true);
    for (int i = 0; i < N_SAMPLES; i++) {
        int32_t ids[N_DEEP];
        for (int n = 0, made; n < N_DEEP; n += made) {
            const int32_t *next;
            if (kvant_generator_next(g, N_DEEP - n, &next, &made, &err) != KVANT_OK) fail_msg("%s", err.message);
            memcpy(ids + n, next, (size_t)made * sizeof *next);
        }
        counts[outcome_of(ids, known)]++;
        assert_int_equal(kvant_generator_finish(g, &err), KVANT_OK);
        assert_int_equal(kvant_session_truncate(s, length - 1, &err), KVANT_OK);
        assert_int_equal(kvant_session_decode(s, last, &err), KVANT_OK);
    }
    kvant_draft_stats stats = kvant_generator_get_stats(g);
    printf("%d answers: %lld of %lld guesses accepted\n", N_SAMPLES, (long long)stats.n_accepted, (long long)stats.n_drafted);
    assert_true(stats.n_accepted > N_SAMPLES / 4 && stats.n_accepted < stats.n_drafted - N_SAMPLES / 4);
    kvant_generator_destroy(g);
    kvant_sampler_destroy(sampler);
}

/* Also from counts alone, without believing that the sampler sees the right rows in the right order. */
static void drafts_do_not_change_what_is_probable(void **state) {
    (void)state;
    if (!is_there(STORIES)) skip();
    cache_case c = {.kv = "f16"};
    kvant_error err = {0};
    kvant_model *m = open_model(STORIES, &c);
    kvant_session *s = make_session(m, KVANT_FAST);
    int32_t *ids, known[N_OUTCOMES][N_DEEP];
    int n, counts[N_OUTCOMES] = {0};
    double p[N_OUTCOMES], wrong[N_OUTCOMES];
    static const char text[] = "Once upon a time, there was a little";
    assert_int_equal(kvant_tokenize(m, text, sizeof text - 1, true, false, &ids, &n, &err), KVANT_OK);
    assert_int_equal(kvant_session_prefill(s, ids, n, NULL, NULL, &err), KVANT_OK);
    expect_outcomes(s, vocabulary_of(m), known, p);
    assert_int_equal(kvant_session_truncate(s, n - 1, &err), KVANT_OK);
    assert_int_equal(kvant_session_decode(s, ids[n - 1], &err), KVANT_OK);
    count_answers(m, s, known, counts);
    double found = chi_square(counts, p);
    /* The same counts would show it if 2 % of the probability lay with the next answer. */
    int most = 0, second = 1;
    for (int o = 0; o < N_OUTCOMES; o++) {
        printf("%d %d %d %d: %.4f, expected %.4f\n", known[o][0], known[o][1], known[o][2], known[o][3], (double)counts[o] / N_SAMPLES, p[o]);
        if (p[o] > p[most]) second = most, most = o;
        else if (o != most && p[o] > p[second]) second = o;
        wrong[o] = p[o];
    }
    wrong[most] -= 0.02;
    wrong[second] += 0.02;
    printf("chi-square %.1f; of probabilities that are 2 %% off %.1f\n", found, chi_square(counts, wrong));
    assert_true(found < CHI_SQUARE_15);
    assert_true(chi_square(counts, wrong) > CHI_SQUARE_15);
    kvant_ids_free(ids);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

/* ---- what is guessed ---- */

static void check_ngram(const int32_t *ids, int n, int n_most, const int32_t *expected, int n_expected) {
    kvant_drafter *d = NULL;
    kvant_error err = {0};
    int32_t found[KVANT_DRAFT_MAX];
    int n_found = -1;
    assert_int_equal(kvant_drafter_ngram_create(&d, &err), KVANT_OK);
    assert_int_equal(d->guess(d, (kvant_draft_text){ids, n - 1, ids[n - 1]}, n_most, found, &n_found, &err), KVANT_OK);
    assert_int_equal(n_found, n_expected);
    assert_memory_equal(found, expected, (size_t)n_expected * sizeof *expected);
    d->destroy(d);
}
#define IDS(...) (const int32_t[]){__VA_ARGS__}, (int)(sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t))
#define GUESSES(...) (int)(sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t)), IDS(__VA_ARGS__)

static void ngrams_guess_what_followed_the_longest_and_latest_match(void **state) {
    (void)state;
    check_ngram(IDS(1, 2, 7, 8, 9, 1, 2), GUESSES(7, 8, 9));
    check_ngram(IDS(1, 2, 7, 1, 2, 8, 1, 2), GUESSES(8));             /* the latest */
    check_ngram(IDS(3, 1, 2, 7, 4, 1, 2, 8, 3, 1, 2), GUESSES(7, 4)); /* the longest */
    check_ngram(IDS(5, 6, 5, 6), GUESSES(5, 6, 5, 6, 5, 6));          /* a loop goes on */
    check_ngram(IDS(4, 4, 4), GUESSES(4, 4, 4));
    check_ngram(IDS(1, 2, 3, 2), 4, NULL, 0); /* one token is no match */
    check_ngram(IDS(1), 4, NULL, 0);
    check_ngram(IDS(1, 1), 4, NULL, 0);
}

static void another_vocabulary_is_refused_with_its_first_difference(void **state) {
    (void)state;
    if (!is_there(LLAMA) || !is_there(STORIES)) skip();
    cache_case c = {.kv = "f16"};
    kvant_model *m = open_model(LLAMA, &c), *stories = open_model(STORIES, &c);
    kvant_session *s = make_session(m, KVANT_FAST), *t = make_session(stories, KVANT_FAST);
    kvant_sampler *sampler = make_sampler(GREEDY, vocabulary_of(m), 0);
    kvant_draft_params draft = {.model = stories, .n_draft = 4};
    kvant_generator *g = NULL;
    kvant_error err = {0};
    assert_int_equal(kvant_generator_create(s, sampler, &draft, &g, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "vocabulary"));
    assert_non_null(strstr(err.message, "stories260K.gguf"));
    draft = (kvant_draft_params){.n_draft = 65};
    assert_int_equal(kvant_generator_create(t, sampler, &draft, &g, &err), KVANT_EINVAL);
    assert_non_null(strstr(err.message, "65"));
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
    kvant_session_destroy(t);
    kvant_model_close(m);
    kvant_model_close(stories);
}

/* ---- a generator over several answers, and at its limits ---- */

static void a_generator_goes_on_after_the_session_has_changed(void **state) {
    (void)state;
    if (!is_there(LLAMA)) skip();
    static outcome plain;
    cache_case c = {.kv = "i8"};
    kvant_model *m = open_model(LLAMA, &c);
    kvant_session *s = make_session(m, KVANT_FAST);
    kvant_sampler *sampler = make_sampler(GREEDY, vocabulary_of(m), 0);
    kvant_draft_params draft = {.model = m, .n_draft = 3};
    kvant_generator *g = make_generator(s, sampler, &draft, true);
    kvant_error err = {0};
    for (int i = 0; i < 5; i++) {
        int32_t ids[PROMPT_MAX], made[N_ANSWER];
        int n = make_prompt(i / 2, i % 2 ? 150 : 0, vocabulary_of(m), ids);
        answer(m, KVANT_FAST, ids, n, GREEDY, NULL, &plain);
        assert_int_equal(kvant_session_sync(s, ids, n, NULL, NULL, NULL, &err), KVANT_OK);
        for (int done = 0, one; done < N_ANSWER; done += one) {
            const int32_t *next;
            if (kvant_generator_next(g, N_ANSWER - done, &next, &one, &err) != KVANT_OK) fail_msg("%s", err.message);
            memcpy(made + done, next, (size_t)one * sizeof *next);
        }
        assert_memory_equal(made, plain.ids, sizeof made);
        assert_int_equal(kvant_generator_finish(g, &err), KVANT_OK);
    }
    kvant_generator_destroy(g);
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

static void the_context_fills_to_its_last_token_and_no_more(void **state) {
    (void)state;
    if (!is_there(LLAMA)) skip();
    cache_case c = {.kv = "f16"};
    kvant_model *m = open_model(LLAMA, &c);
    kvant_session *s = make_session(m, KVANT_FAST);
    kvant_sampler *sampler = make_sampler(GREEDY, vocabulary_of(m), 0);
    kvant_draft_params draft = {.n_draft = 8};
    kvant_generator *g = make_generator(s, sampler, &draft, true);
    kvant_error err = {0};
    const int32_t *ids;
    int32_t prompt[380];
    int n;
    make_prompt(3, 380, vocabulary_of(m), prompt);
    assert_int_equal(kvant_generator_next(g, 1, &ids, &n, &err), KVANT_EINVAL); /* no prompt yet */
    assert_int_equal(kvant_session_prefill(s, prompt, 380, NULL, NULL, &err), KVANT_OK);
    assert_int_equal(kvant_generator_next(g, 0, &ids, &n, &err), KVANT_EINVAL);
    int made = 0;
    kvant_status st;
    while ((st = kvant_generator_next(g, 1000, &ids, &n, &err)) == KVANT_OK) made += n;
    assert_int_equal(st, KVANT_EFULL);
    assert_int_equal(made, 21); /* 20 are in the context, the last one is not */
    assert_int_equal(kvant_session_length(s), 400);
    kvant_generator_destroy(g);
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

static void rounds_inside_a_page_allocate_nothing(void **state) {
    (void)state;
    if (!is_there(LLAMA)) skip();
    cache_case c = {.kv = "i8"};
    kvant_model *m = open_model(LLAMA, &c);
    kvant_session *s = make_session(m, KVANT_FAST);
    kvant_sampler *sampler = make_sampler(SAMPLED, vocabulary_of(m), 0);
    kvant_draft_params draft = {.model = m, .n_draft = 4};
    kvant_generator *g = make_generator(s, sampler, &draft, true);
    kvant_error err = {0};
    const int32_t *ids;
    int32_t prompt[130];
    int n;
    make_prompt(3, 130, vocabulary_of(m), prompt);
    assert_int_equal(kvant_session_prefill(s, prompt, 130, NULL, NULL, &err), KVANT_OK);
    for (int i = 0; i < 3; i++) assert_int_equal(kvant_generator_next(g, 100, &ids, &n, &err), KVANT_OK);
    uint64_t before = kvant_alloc_count();
    while (kvant_session_length(s) < 180) assert_int_equal(kvant_generator_next(g, 100, &ids, &n, &err), KVANT_OK);
    assert_int_equal(kvant_alloc_count() - before, 0);
    kvant_generator_destroy(g);
    kvant_sampler_destroy(sampler);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

/* ---- real models ---- */

/* Prompts that quote themselves, cut from a text. */
static void check_real_model(const char *path) {
    static char text[1 << 17];
    cache_case c = {.kv = "lossless"};
    kvant_error err = {0};
    FILE *f = fopen(KVANT_SOURCE "/scripts/text/loomings.txt", "rb");
    assert_non_null(f);
    size_t size = fread(text, 1, sizeof text, f);
    fclose(f);
    kvant_load_params load;
    kvant_model *m = NULL;
    kvant_load_params_default(&load);
    load.kv.kv = c.kv;
    if (kvant_model_open(path, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    int32_t *ids;
    int n;
    assert_int_equal(kvant_tokenize(m, text, size, false, false, &ids, &n, &err), KVANT_OK);
    kvant_draft_stats sum = {0};
    kvant_session *s = make_session(m, KVANT_FAST);
    for (int i = 0; i < N_PROMPTS; i++) {
        int32_t prompt[100], made[2][N_ANSWER];
        int start = (i * 37) % (n - 64);
        memcpy(prompt, ids + start, 64 * sizeof *ids);
        memcpy(prompt + 64, ids + start, 36 * sizeof *ids);
        for (int drafted = 0; drafted < 2; drafted++) {
            kvant_sampler *sampler = make_sampler(i % 2 ? SAMPLED : GREEDY, info.n_vocab, (uint64_t)i);
            kvant_draft_params draft = {.n_draft = 4};
            kvant_generator *g = make_generator(s, sampler, drafted ? &draft : NULL, true);
            if (kvant_session_sync(s, prompt, 100, NULL, NULL, NULL, &err) != KVANT_OK) fail_msg("%s", err.message);
            for (int done = 0, one; done < N_ANSWER; done += one) {
                const int32_t *next;
                if (kvant_generator_next(g, N_ANSWER - done, &next, &one, &err) != KVANT_OK) fail_msg("%s", err.message);
                memcpy(made[drafted] + done, next, (size_t)one * sizeof *next);
            }
            add_stats(&sum, kvant_generator_get_stats(g));
            kvant_generator_destroy(g);
            kvant_sampler_destroy(sampler);
        }
        if (memcmp(made[0], made[1], sizeof made[0]) != 0) fail_msg("%s: prompt %d: the answers differ", path, i);
    }
    printf("%s: %lld of %lld n-gram guesses accepted, %d answers the same\n", path, (long long)sum.n_accepted, (long long)sum.n_drafted,
           N_PROMPTS);
    assert_true(sum.n_accepted > 0 && sum.n_accepted < sum.n_drafted);
    kvant_ids_free(ids);
    kvant_session_destroy(s);
    kvant_model_close(m);
}

static void a_real_model_answers_the_same_with_ngrams(void **state) {
    (void)state;
    const char *path = getenv("KVANT_TEST_MODEL");
    if (!path) {
        printf("skipped: KVANT_TEST_MODEL names no real model\n");
        skip();
    }
    check_real_model(path);
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
        cmocka_unit_test(drafts_do_not_change_what_is_probable),
        cmocka_unit_test(ngrams_guess_what_followed_the_longest_and_latest_match),
        cmocka_unit_test(another_vocabulary_is_refused_with_its_first_difference),
        cmocka_unit_test(a_generator_goes_on_after_the_session_has_changed),
        cmocka_unit_test(the_context_fills_to_its_last_token_and_no_more),
        cmocka_unit_test(rounds_inside_a_page_allocate_nothing),
        cmocka_unit_test(a_real_model_answers_the_same_with_ngrams),
    };
    if (!is_there(LLAMA)) printf("skipped: %s is not there\n", LLAMA);
    return cmocka_run_group_tests(tests, NULL, NULL);
}

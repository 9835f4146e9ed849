// SPDX-License-Identifier: MIT
/* test_eval_bench.c: kvant eval and kvant bench as a person or a script meets them: output, exit codes, sentences.
 *
 * The models are tiny and random; what the figures are is not tested here but that they are in the right order. */
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
#include <sys/wait.h>

#include "cli/program_test.h"

#define MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define IDS "test_eval_ids.txt"
#define TEXT "test_eval_text.txt"
#define SENSITIVE KVANT_DATA "/models/random-qwen3-dense.gguf" /* the others answer all prompts alike, whatever the cache */
#define LONG_IDS "test_eval_long_ids.txt"
#define STATE "test_eval_state_file.json"
#define PLOT "test_eval_plot.svg"
#define N_IDS 400
#define N_LONG_IDS 4000

typedef struct csv_row {
    char kv[64];
    double value[12]; /* the columns after kv */
} csv_row;

static int read_csv(csv_row *rows, int max) {
    int n = 0;
    for (char *line = strchr(output, '\n'); line && line[1] && n < max; line = strchr(line + 1, '\n'), n++) {
        char *at = strchr(line, ',');
        assert_non_null(at);
        snprintf(rows[n].kv, sizeof rows[n].kv, "%.*s", (int)(at - line - 1), line + 1);
        for (int c = 0; c < 12 && at; c++) {
            rows[n].value[c] = strtod(at + 1, NULL);
            at = strchr(at + 1, ',');
        }
    }
    return n;
}

enum { K_BITS, V_BITS, BITS, KL_MEAN, KL_SE, KL_MEDIAN, KL_P99, KL_P999, KL_MAX, TOP1, PPL, TOKENS };

static void csv_has_the_columns_and_more_bits_diverge_less(void **state) {
    (void)state;
    csv_row r[8];
    assert_int_equal(
        run(false, "eval -m " MODEL " -f " IDS " --ids -c 200 --csv --kv affine8:32,affine4:32,affine2:32/affine4:32"), 0);
    static const char header[] = "kv,k_bits,v_bits,bits,kl_mean,kl_se,kl_median,kl_p99,kl_p999,kl_max,top1,ppl,tokens,passkey,"
                                 "differs_mean,differs_median,identical,passkey_prompts,greedy_prompts\n";
    assert_int_equal(strncmp(output, header, sizeof header - 1), 0);
    assert_int_equal(read_csv(r, 8), 5);
    assert_string_equal(r[0].kv, "f32");
    assert_string_equal(r[1].kv, "f16");
    assert_string_equal(r[4].kv, "affine2:32/affine4:32");
    assert_true(r[0].value[KL_MEAN] < 1e-5);
    for (int c = KL_MEAN; c <= KL_MAX; c++)
        assert_true(r[1].value[c] == 0);
    assert_true(r[1].value[TOP1] == 1);
    assert_true(r[2].value[KL_MEAN] > r[0].value[KL_MEAN] && r[3].value[KL_MEAN] > 4 * r[2].value[KL_MEAN] &&
                r[4].value[KL_MEAN] > r[3].value[KL_MEAN]);
    assert_true(r[4].value[K_BITS] == 3 && r[4].value[V_BITS] == 5 && r[4].value[BITS] == 4);
    for (int i = 0; i < 5; i++) {
        assert_true(r[i].value[TOKENS] == N_IDS);
        assert_true(r[i].value[KL_MEDIAN] <= r[i].value[KL_P99] && r[i].value[KL_P999] <= r[i].value[KL_MAX]);
        assert_true(fabs(r[i].value[PPL] / r[1].value[PPL] - 1) < 0.5);
    }
}

static void scoring_does_not_depend_on_the_step(void **state) {
    (void)state;
    static char whole[sizeof output];
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 200 --csv --kv affine4:32"), 0);
    strcpy(whole, output);
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 200 --csv --kv affine4:32 --prefill-step-size 7"), 0);
    csv_row a[3], b[3];
    assert_int_equal(read_csv(b, 3), 3);
    strcpy(output, whole);
    assert_int_equal(read_csv(a, 3), 3);
    for (int i = 0; i < 3; i++) {
        assert_true(fabs(a[i].value[PPL] / b[i].value[PPL] - 1) < 1e-5);
        assert_true(fabs(a[i].value[KL_MEAN] - b[i].value[KL_MEAN]) < 1e-5);
    }
}

static void short_texts_give_a_partial_chunk_and_tokens_whole_ones(void **state) {
    (void)state;
    csv_row r[4];
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 256 --csv --kv f16"), 0);
    assert_int_equal(read_csv(r, 4), 2); /* f16 is the reference, not a row of its own */
    assert_true(r[0].value[TOKENS] == N_IDS);
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 100 --tokens 150 --csv --kv f16"), 0);
    assert_int_equal(read_csv(r, 4), 2);
    assert_true(r[0].value[TOKENS] == 200);
}

static void json_says_the_same(void **state) {
    (void)state;
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 200 --json --kv affine4:64"), 0);
    json_error_t err;
    json_t *root = json_loads(output, 0, &err);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "complete")));
    json_t *rows = json_object_get(root, "rows");
    assert_int_equal(json_array_size(rows), 3);
    json_t *row = json_array_get(rows, 2);
    assert_string_equal(json_string_value(json_object_get(row, "kv")), "affine4:64");
    assert_true(json_real_value(json_object_get(row, "bits")) == 4.5);
    assert_true(json_real_value(json_object_get(row, "kl_mean")) > 0);
    json_decref(root);
}

static void text_is_tokenized_and_chunks_begin_with_bos(void **state) {
    (void)state;
    assert_int_equal(run(false, "eval -m " STORIES " -f " TEXT " -c 64 --json --kv f16"), 0);
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    assert_true(json_is_true(json_object_get(root, "bos")));
    json_t *f16 = json_array_get(json_object_get(root, "rows"), 1);
    double perplexity = json_real_value(json_object_get(f16, "ppl"));
    assert_true(perplexity > 1 && perplexity < 60); /* of 512 tokens: it knows stories */
    json_decref(root);
}

/* The row of JSON output whose kv is that; *root is released by the caller. */
static json_t *json_row(json_t **root, const char *kv) {
    *root = json_loads(output, 0, NULL);
    assert_non_null(*root);
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(*root, "rows"), i, row) {
        if (strcmp(json_string_value(json_object_get(row, "kv")), kv) == 0) return row;
    }
    fail_msg("no row %s", kv);
    return NULL;
}

static double number(const json_t *row, const char *key) {
    const json_t *j = json_object_get(row, key);
    if (!json_is_number(j)) fail_msg("%s is not a number", key);
    return json_number_value(j);
}

static void bits_are_those_that_the_cache_holds_where_chunks_are_whole_pages(void **state) {
    (void)state;
    json_t *root, *row;
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 128 --json --kv affine4:32/affine8:32"), 0);
    row = json_row(&root, "affine4:32/affine8:32");
    assert_true(json_is_true(json_object_get(row, "bits_measured")));
    assert_true(number(row, "k_bits") == 5 && number(row, "v_bits") == 9);
    assert_true(number(row, "bits") >= 7 && number(row, "bits") < 7.2); /* pages have a head */
    json_decref(root);
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 100 --json --kv affine4:32"), 0);
    row = json_row(&root, "affine4:32");
    assert_true(json_is_false(json_object_get(row, "bits_measured")) && number(row, "bits") == 5);
    json_decref(root);
}

static void plot_is_a_picture_of_the_rows(void **state) {
    (void)state;
    static char svg[1 << 16];
    remove(PLOT);
    assert_int_equal(
        run(false, "eval -m " MODEL " -f " IDS " --ids -c 128 --csv --kv affine8:32,affine4:32,affine4:32/f16 --plot " PLOT), 0);
    FILE *f = fopen(PLOT, "rb");
    assert_non_null(f);
    svg[fread(svg, 1, sizeof svg - 1, f)] = '\0';
    fclose(f);
    static const char *const pieces[] = {"<svg ",           ">affine8:32<", ">affine4:32<",   ">affine4:32/f16<",
                                         ">affine<",        "<polyline",    "noise floor",    "nats",
                                         "bits per stored", "context 128",  "400 positions,", "</svg>"};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        if (!strstr(svg, pieces[i])) fail_msg("no %s in the picture", pieces[i]);
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv f16 --plot /nowhere/plot.svg", "/nowhere/plot.svg");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv f16 --tokens 0 --greedy --plot " PLOT, "--plot");
}

static void suite_is_the_standard_set(void **state) {
    (void)state;
    csv_row r[40];
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 64 --tokens 64 --csv --suite"), 0);
    int n = read_csv(r, 40);
    assert_true(n >= 8);
    assert_string_equal(r[2].kv, "i8");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --suite --kv f16", "--suite");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --suite --kv-bits 4", "--suite");
}

static void greedy_continuations_differ_later_with_more_bits(void **state) {
    (void)state;
    json_t *root, *row;
    assert_int_equal(run(false, "eval -m " SENSITIVE " -f " IDS " --ids -c 96 --tokens 0 --greedy --prompts 6 --gen 32 --json "
                                "--kv affine8:32,affine2:32"),
                     0);
    row = json_row(&root, "f16");
    assert_null(json_object_get(row, "kl_mean")); /* not asked for */
    assert_true(number(row, "differs_mean") == 32 && number(row, "differs_median") == 32 && number(row, "identical") == 1);
    assert_true(json_is_true(json_object_get(root, "complete")) && number(root, "greedy_prompts") == 6);
    json_decref(root);
    row = json_row(&root, "affine8:32");
    double eight = number(row, "differs_mean");
    json_decref(root);
    row = json_row(&root, "affine2:32");
    assert_true(number(row, "differs_mean") < eight && number(row, "identical") < 1);
    json_decref(root);
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids -c 32 --greedy --kv f16", "--gen 64");
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 440 --greedy --gen 8 --kv f16", "too few");
}

/* The model is too small to find anything again; what counts is that every cache reads the same prompts. */
static void passkey_rates_are_shares_of_the_same_prompts(void **state) {
    (void)state;
    static char first[sizeof output];
    json_t *root, *row;
    static const char command[] = "eval -m " STORIES " -f " TEXT " -c 256 --tokens 0 --passkey --prompts 3 --json --kv f32";
    assert_int_equal(run(false, command), 0);
    strcpy(first, output);
    row = json_row(&root, "f16");
    double rate = number(row, "passkey");
    assert_true(rate >= 0 && rate <= 1 && fabs(rate * 3 - round(rate * 3)) < 1e-4);
    assert_true(number(root, "passkey_prompts") == 3 && number(root, "tokens") == 0);
    json_decref(root);
    row = json_row(&root, "f32");
    assert_true(number(row, "passkey") == rate); /* rounding alone does not make it forget */
    json_decref(root);
    assert_int_equal(run(false, command), 0);
    assert_string_equal(output, first);
    assert_says(2, "eval -m " STORIES " -f " TEXT " -c 40 --passkey --kv f16", "too short for --passkey");
    assert_says(2, "eval -m " STORIES " -f " TEXT " --tokens 0 --kv f16", "nothing to measure");
    assert_says(2, "eval -m " STORIES " -f " TEXT " --tokens 1 --kv f16", "--tokens 1");
}

#define RESUMED "eval -m " MODEL " -f " LONG_IDS " --ids -c 100 --tokens 4000 --csv --greedy --prompts 4 --gen 16 --kv affine4:32"

static void an_interrupted_run_goes_on_to_the_same_figures(void **state) {
    (void)state;
    static char whole[sizeof output];
    remove(STATE);
    assert_int_equal(run(false, RESUMED), 0);
    strcpy(whole, output);
    /* Ctrl-C after the first chunk that was saved. */
    int status = system("'" KVANT_PROGRAM "' " RESUMED " --state " STATE " >test_eval_part.csv 2>test_eval_part.txt & pid=$!; "
                        "for i in $(seq 3000); do [ -s " STATE " ] && break; sleep 0.01; done; kill -INT $pid; wait $pid");
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    json_t *saved = json_load_file(STATE, 0, NULL);
    assert_non_null(saved);
    json_int_t scored = json_integer_value(json_object_get(saved, "scored"));
    assert_true(scored >= 100 && scored % 100 == 0);
    json_decref(saved);
    assert_int_equal(run(true, RESUMED " --state " STATE), 0);
    assert_non_null(strstr(output, "going on from " STATE));
    assert_int_equal(run(false, RESUMED " --state " STATE), 0); /* nothing is left to do */
    assert_string_equal(output, whole);
}

static void a_state_of_another_run_is_refused_by_what_differs(void **state) {
    (void)state;
    remove(STATE);
    assert_int_equal(run(false, "eval -m " MODEL " -f " IDS " --ids -c 128 --csv --kv affine4:32 --state " STATE), 0);
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 64 --kv affine4:32 --state " STATE, "context is 128 there and 64 now");
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv affine2:32 --state " STATE, "rows is ");
    assert_says(1, "eval -m " MODEL " -f " LONG_IDS " --ids -c 128 --kv affine4:32 --state " STATE, "text_tokens is 400 there");
    assert_says(1, "eval -m " STORIES " -f " IDS " --ids -c 128 --kv f16 --state " STATE, "model is ");
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv affine4:32 --fast --state " STATE, "precision is \"exact\"");
    static char half[2000];
    FILE *f = fopen(STATE, "rb");
    assert_non_null(f);
    assert_int_equal(fread(half, 1, sizeof half, f), sizeof half);
    fclose(f);
    f = fopen(STATE, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(half, 1, sizeof half, f), sizeof half);
    fclose(f);
    assert_says(1, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv affine4:32 --state " STATE, "damaged");
}

static void wrong_formats_and_texts_are_refused_with_a_sentence(void **state) {
    (void)state;
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --kv affine7:64", "affine7:64");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --kv affine4:64,nonsense", "nonsense");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --kv-bits 8,7", "8,7");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --kv-bits 8 --kv affine4:64", "not both");
    assert_says(2, "eval -m " STORIES " -f " TEXT " --kv affine4:32", "affine4:32");
    assert_says(1, "eval -m " MODEL " -f /nowhere/text --ids --kv f16", "/nowhere/text");
    assert_says(1, "eval -m " MODEL " -f /dev/null --ids --kv f16", "too few");
    assert_says(2, "eval -m " MODEL " -f " IDS " --ids --csv --json", "exclude");
    assert_says(2, "eval -f " IDS, "-m");
    assert_says(2, "eval -m " MODEL, "-f");
}

static void bench_gives_every_depth_and_format(void **state) {
    (void)state;
    csv_row r[8];
    assert_int_equal(
        run(false, "bench -m " MODEL " --depths 64,0 --kv-bits none,4 --kv-group-size 32 -n 4 --prefill 16 --reps 2 --csv"), 0);
    assert_int_equal(read_csv(r, 8), 4);
    static const char *const kv[] = {"f16", "affine4:32", "f16", "affine4:32"};
    for (int i = 0; i < 4; i++) {
        assert_string_equal(r[i].kv, kv[i]);
        assert_true(r[i].value[1] == (i < 2 ? 0 : 64));      /* depth */
        assert_true(r[i].value[4] > 0 && r[i].value[8] > 0); /* tokens a second */
    }
    assert_true(r[3].value[2] < r[2].value[2]); /* bytes of cache */
    assert_int_equal(run(false,
                         "bench -m " KVANT_DATA "/models/random-gemma3-dense.gguf --depths 0,200 --kv f16 -n 4 --prefill 100 "
                         "--reps 2 --json"),
                     0); /* its windows have to be filled again */
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    assert_int_equal(json_array_size(json_object_get(root, "rows")), 2);
    json_decref(root);
}

static void bench_refuses_what_it_cannot_measure(void **state) {
    (void)state;
    assert_says(2, "bench -m " MODEL " --depths 0,x --kv f16", "0,x");
    assert_says(2, "bench -m " MODEL " --depths 10 --kv f16 -c 20", "-c 20");
    assert_says(2, "bench --depths 10", "-m");
    assert_says(2, "bench -m " MODEL " --depths 0 --cpu-time --threads 2", "--threads 1");
}

static double number_of(const json_t *row, const char *name) { return json_number_value(json_object_get(row, name)); }

/* Two formats, three counts; one conversation alone shares nothing. */
static void bench_parallel_tells_speed_and_what_is_shared(void **state) {
    (void)state;
    assert_int_equal(run(false, "bench -m " KVANT_DATA "/models/random-gemma3-dense.gguf --parallel 1,2,5 -p 150 -n 4 --reps 2 "
                                "--kv f16,affine4:64 --json"),
                     0);
    json_t *root = json_loads(output, 0, NULL), *rows = json_object_get(root, "rows");
    assert_non_null(root);
    assert_int_equal(json_array_size(rows), 10);
    for (size_t i = 0; i < 10; i++) {
        const json_t *row = json_array_get(rows, i);
        bool shared = strcmp(json_string_value(json_object_get(row, "beginning")), "shared") == 0;
        double n = number_of(row, "conversations"), own = number_of(row, "own_cache_bytes"),
               all = number_of(row, "all_cache_bytes"), together = number_of(row, "shared_cache_bytes");
        assert_true(number_of(json_object_get(row, "together_tps"), "median") > 0);
        assert_true(number_of(json_object_get(row, "one_by_one_tps"), "median") > 0);
        assert_true(shared ? together > 0 && n > 1 : together == 0);
        assert_true(own > 0 && all == n * own + together);
    }
    json_decref(root);
    assert_int_equal(run(false, "bench -m " MODEL " --parallel 3 -p 0 -n 2 --reps 1 --kv f16"), 0);
    assert_non_null(strstr(output, "conversations"));
    assert_int_equal(run(false, "bench -m " MODEL " --parallel 2 -p 0 -n 2 --reps 1 --kv f16 --cpu-time --threads 1"), 0);
    assert_non_null(strstr(output, "processor time"));
    assert_says(2, "bench -m " MODEL " --parallel 1,0 --kv f16", "1,0");
    assert_says(2, "bench -m " MODEL " --parallel 1 --cpu-time --threads 2", "--threads 1");
    assert_says(2, "bench -m " MODEL " --parallel 2 --kv f16 -p 100 -n 30 -c 120", "-c 120");
    assert_says(1, "bench -m " MODEL " --parallel 9 --kv f16 -p 0 --prefill-step-size 8", "prefill_step_size");
}

int main(void) {
    FILE *probe = fopen(MODEL, "rb");
    if (!probe) {
        printf("skipped: no %s\n", MODEL);
        return 77;
    }
    fclose(probe);
    uint64_t seed = 1;
    FILE *ids = fopen(IDS, "w"), *long_ids = fopen(LONG_IDS, "w"), *text = fopen(TEXT, "w");
    if (!ids || !long_ids || !text) return 1;
    for (int i = 0; i < N_LONG_IDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        fprintf(long_ids, "%d\n", (int)((seed >> 33) % 128));
        if (i < N_IDS) fprintf(ids, "%d\n", (int)((seed >> 33) % 128));
    }
    for (int i = 0; i < 8; i++)
        fputs("Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. ",
              text);
    fclose(ids);
    fclose(long_ids);
    fclose(text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_has_the_columns_and_more_bits_diverge_less),
        cmocka_unit_test(scoring_does_not_depend_on_the_step),
        cmocka_unit_test(short_texts_give_a_partial_chunk_and_tokens_whole_ones),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(text_is_tokenized_and_chunks_begin_with_bos),
        cmocka_unit_test(bits_are_those_that_the_cache_holds_where_chunks_are_whole_pages),
        cmocka_unit_test(plot_is_a_picture_of_the_rows),
        cmocka_unit_test(suite_is_the_standard_set),
        cmocka_unit_test(greedy_continuations_differ_later_with_more_bits),
        cmocka_unit_test(passkey_rates_are_shares_of_the_same_prompts),
        cmocka_unit_test(an_interrupted_run_goes_on_to_the_same_figures),
        cmocka_unit_test(a_state_of_another_run_is_refused_by_what_differs),
        cmocka_unit_test(wrong_formats_and_texts_are_refused_with_a_sentence),
        cmocka_unit_test(bench_gives_every_depth_and_format),
        cmocka_unit_test(bench_refuses_what_it_cannot_measure),
        cmocka_unit_test(bench_parallel_tells_speed_and_what_is_shared),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

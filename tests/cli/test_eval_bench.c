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

#define MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define IDS "test_eval_ids.txt"
#define TEXT "test_eval_text.txt"
#define N_IDS 400

static char output[1 << 18];

/* Runs the program with stdout in `output`, or with stderr there, and gives its exit code. */
static int run(bool errors, const char *arguments) {
    char command[2048];
    snprintf(command, sizeof command, "'%s' %s %s", KVANT_PROGRAM, arguments, errors ? "2>&1 >/dev/null" : "2>/dev/null");
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    size_t n = fread(output, 1, sizeof output - 1, pipe);
    output[n] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

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
                                 "differs_mean,differs_median,identical,prompts\n";
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

/* Exit code and a piece of the one sentence on stderr. */
static void refuses(const char *arguments, int code, const char *piece) {
    int got = run(true, arguments);
    if (got != code || !strstr(output, piece)) fail_msg("%s: exit %d, said: %s", arguments, got, output);
}

static void wrong_formats_and_texts_are_refused_with_a_sentence(void **state) {
    (void)state;
    refuses("eval -m " MODEL " -f " IDS " --ids --kv affine7:64", 2, "affine7:64");
    refuses("eval -m " MODEL " -f " IDS " --ids --kv affine4:64,nonsense", 2, "nonsense");
    refuses("eval -m " MODEL " -f " IDS " --ids --kv-bits 8,7", 2, "8,7");
    refuses("eval -m " MODEL " -f " IDS " --ids --kv-bits 8 --kv affine4:64", 2, "not both");
    refuses("eval -m " STORIES " -f " TEXT " --kv affine4:32", 2, "affine4:32");
    refuses("eval -m " MODEL " -f /nowhere/text --ids --kv f16", 1, "/nowhere/text");
    refuses("eval -m " MODEL " -f /dev/null --ids --kv f16", 1, "too few");
    refuses("eval -m " MODEL " -f " IDS " --ids --csv --json", 2, "exclude");
    refuses("eval -f " IDS, 2, "-m");
    refuses("eval -m " MODEL, 2, "-f");
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
    refuses("bench -m " MODEL " --depths 0,x --kv f16", 2, "0,x");
    refuses("bench -m " MODEL " --depths 10 --kv f16 -c 20", 2, "-c 20");
    refuses("bench --depths 10", 2, "-m");
    refuses("bench -m " MODEL " --depths 0 --cpu-time --threads 2", 2, "--threads 1");
}

int main(void) {
    FILE *probe = fopen(MODEL, "rb");
    if (!probe) {
        printf("skipped: no %s\n", MODEL);
        return 77;
    }
    fclose(probe);
    uint64_t seed = 1;
    FILE *ids = fopen(IDS, "w"), *text = fopen(TEXT, "w");
    if (!ids || !text) return 1;
    for (int i = 0; i < N_IDS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        fprintf(ids, "%d\n", (int)((seed >> 33) % 128));
    }
    for (int i = 0; i < 8; i++)
        fputs("Once upon a time, there was a little girl named Lily. She loved to play outside in the park with her friends. ",
              text);
    fclose(ids);
    fclose(text);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(csv_has_the_columns_and_more_bits_diverge_less),
        cmocka_unit_test(scoring_does_not_depend_on_the_step),
        cmocka_unit_test(short_texts_give_a_partial_chunk_and_tokens_whole_ones),
        cmocka_unit_test(json_says_the_same),
        cmocka_unit_test(text_is_tokenized_and_chunks_begin_with_bos),
        cmocka_unit_test(wrong_formats_and_texts_are_refused_with_a_sentence),
        cmocka_unit_test(bench_gives_every_depth_and_format),
        cmocka_unit_test(bench_refuses_what_it_cannot_measure),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

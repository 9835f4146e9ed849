// SPDX-License-Identifier: MIT
/* test_budget.c: --kv-budget and what inspect lists of the cache, as a person or a script meets them. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/program_test.h"

#define MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define FOLDER "test_budget_cache"
#define IDS "test_budget_ids.txt"
#define OUT "test_budget_out.logits"
#define READ "logits -m " MODEL " --ids " IDS " -o " OUT " "

static int clean(void **state) {
    (void)state;
    return system("rm -rf " FOLDER " " IDS " " OUT);
}

static int set_up(void **state) {
    FILE *f = fopen(MODEL, "rb");
    if (!f) {
        printf("SKIPPED: %s is absent\n", MODEL);
        exit(77);
    }
    fclose(f);
    if (clean(state) || !(f = fopen(IDS, "w"))) return 1;
    for (int i = 0; i < 192; i++)
        fprintf(f, "%d ", (i * i + 7 * i) % 128);
    return fclose(f);
}

/* The number before " bits a value" of the first line. */
static double said_bits(void) {
    const char *at = strstr(output, " bits a value");
    assert_non_null(at);
    while (at > output && at[-1] != ' ')
        at--;
    return strtod(at, NULL);
}

static void a_budget_chooses_formats_and_says_them(void **state) {
    (void)state;
    /* 192 tokens of 2 layers with 2 KV heads of 128: 393 kB in f16 */
    assert_says_with(0, FOLDER, READ "-c 192 --kv-budget 130K", "measuring how sensitive each layer is");
    assert_says_with(0, FOLDER, READ "-c 192 --kv-budget 130K", " by layer, ");
    assert_non_null(strstr(output, "cache budget 0.13 MB for 192 tokens: bits by layer K "));
    assert_null(strstr(output, "measuring"));
    double bits = said_bits();
    assert_true(bits > 2.3 && bits <= 16 * 130e3 / 393216);
    assert_says_with(0, FOLDER, READ "-c 192 --kv-budget 170K", " by layer, ");
    assert_true(said_bits() > bits);
    assert_says_with(0, FOLDER, READ "-c 192 --kv budget:4", " by layer, ");
    assert_true(said_bits() > 3 && said_bits() <= 4);
}

static void enough_bytes_are_lossless(void **state) {
    (void)state;
    assert_says_with(0, FOLDER, READ "-c 192 --kv-budget 1M", "lossless takes");
    assert_non_null(strstr(output, "K i8 V i8,"));
}

static void too_few_bytes_name_the_least_and_a_context(void **state) {
    (void)state;
    assert_says_with(1, FOLDER, READ "-c 192 --kv-budget 60K", "a context of ");
    assert_says_with(1, FOLDER, READ "-c 192 --kv-budget 100B", "no page");
}

static void what_makes_no_sense_is_refused(void **state) {
    (void)state;
    assert_says_with(2, FOLDER, READ "--kv-budget 1M", "-c N");
    assert_says_with(2, FOLDER, READ "--kv budget:4", "-c N");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M --kv bc4", "--kv-budget");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M --kv-bits 4", "--kv-budget");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M --kv-preset small", "--kv-budget");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M -ctk q8_0", "--kv-budget");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget much", "expected a size");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M --quantized-kv-start 64", "quantized_kv_start");
    assert_says_with(2, FOLDER, READ "-c 192 --kv-budget 1M --compat mlx", "mlx");
    assert_says_with(2, FOLDER, "eval -m " MODEL " -f " IDS " --ids -c 128 --kv-budget 1M", "budget:4.3");
}

static void eval_compares_a_budget_with_the_format_of_its_size(void **state) {
    (void)state;
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "eval -m " MODEL " -f " IDS " --ids -c 128 --tokens 128 --kv bc4,budget:bc4,budget:5 --json"), 0);
    json_t *j = json_loads(output, 0, NULL), *rows = json_object_get(j, "rows");
    double bits[2] = {0};
    assert_true(json_is_array(rows));
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const char *name = json_string_value(json_object_get(json_array_get(rows, i), "kv"));
        assert_non_null(name);
        if (strcmp(name, "bc4") == 0) bits[0] = json_number_value(json_object_get(json_array_get(rows, i), "bits"));
        if (strcmp(name, "budget:bc4") == 0) bits[1] = json_number_value(json_object_get(json_array_get(rows, i), "bits"));
    }
    assert_true(bits[0] > 4 && bits[1] > 3 && bits[1] <= bits[0]);
    json_decref(j);
}

/* The bytes at 4k tokens of a row by its choice; 0: there is none. */
static double row_bytes(const json_t *rows, const char *choice) {
    for (size_t i = 0; i < json_array_size(rows); i++) {
        const json_t *row = json_array_get(rows, i);
        if (strcmp(json_string_value(json_object_get(row, "choice")), choice) != 0) continue;
        assert_true(json_string_length(json_object_get(row, "format")) > 0);
        double n = json_number_value(json_object_get(json_object_get(row, "bytes"), "4096"));
        assert_true(n > 0 && json_number_value(json_object_get(json_object_get(row, "bytes"), "131072")) > 30 * n);
        return n;
    }
    return 0;
}

static void inspect_lists_what_every_choice_takes(void **state) {
    (void)state;
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "inspect " MODEL " --json"), 0);
    json_t *j = json_loads(output, 0, NULL), *rows = json_object_get(j, "cache");
    double lossless = row_bytes(rows, "--kv-preset lossless"), small = row_bytes(rows, "--kv-preset small");
    assert_true(lossless > small && small > row_bytes(rows, "--kv-preset tiny"));
    assert_true(row_bytes(rows, "--kv-preset balanced") > small);
    assert_true(row_bytes(rows, "--kv-bits 8") == lossless && row_bytes(rows, "--kv-bits 4") == small);
    assert_true(row_bytes(rows, "--kv-bits 2") > 0 && row_bytes(rows, "--kv f16") > 1.9 * lossless);
    assert_true(row_bytes(rows, "--kv affine4:64") > small && row_bytes(rows, "--kv q4_0") > small);
    assert_true(row_bytes(rows, "--kv q8_0") > lossless);
    json_decref(j);
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "inspect " MODEL), 0);
    assert_non_null(strstr(output, "\n--kv-preset balanced  "));
}

/* Heads of 8: nothing but f16 can store them. */
static void inspect_leaves_out_what_the_heads_do_not_allow(void **state) {
    (void)state;
    FILE *f = fopen(STORIES, "rb");
    if (!f) skip();
    fclose(f);
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "inspect " STORIES " --json"), 0);
    json_t *j = json_loads(output, 0, NULL), *rows = json_object_get(j, "cache");
    assert_int_equal(json_array_size(rows), 1);
    assert_true(row_bytes(rows, "--kv f16") > 0);
    json_decref(j);
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "inspect " STORIES), 0);
    assert_non_null(strstr(output, "cannot store heads of 8"));
    assert_says_with(1, FOLDER, "run -m " STORIES " --raw -p abc -n 4 -c 64 --kv-budget 1M", "head_dim");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_budget_chooses_formats_and_says_them),
        cmocka_unit_test(enough_bytes_are_lossless),
        cmocka_unit_test(too_few_bytes_name_the_least_and_a_context),
        cmocka_unit_test(what_makes_no_sense_is_refused),
        cmocka_unit_test(eval_compares_a_budget_with_the_format_of_its_size),
        cmocka_unit_test(inspect_lists_what_every_choice_takes),
        cmocka_unit_test(inspect_leaves_out_what_the_heads_do_not_allow),
    };
    return cmocka_run_group_tests(tests, set_up, clean);
}

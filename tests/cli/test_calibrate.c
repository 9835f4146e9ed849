// SPDX-License-Identifier: MIT
/* test_calibrate.c: kvant calibrate and --kv-calibration as a person or a script meets them: what is told, kept and refused. */
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
#define OTHER KVANT_DATA "/models/random-qwen2-dense.gguf"
#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define FOLDER "test_calibrate_cache"
#define OWN "test_calibrate_own.kvcalib"
#define TEXT "test_calibrate_text.txt"
#define IDS "test_calibrate_ids.txt"
#define OUT "test_calibrate_out.logits"
#define LOGITS "logits -m " MODEL " --ids " IDS " -o " OUT " "

static int clean(void) { return system("rm -rf " FOLDER " " OWN); }

static int set_up(void **state) {
    (void)state;
    FILE *f = fopen(MODEL, "rb");
    if (!f) {
        printf("SKIPPED: %s is absent\n", MODEL);
        exit(77);
    }
    fclose(f);
    f = fopen(TEXT, "w");
    if (!f) return 1;
    for (int i = 0; i < 60; i++)
        fprintf(f, "Once upon a time there was a dog number %d. ", i);
    fclose(f);
    f = fopen(IDS, "w");
    if (!f) return 1;
    for (int i = 0; i < 100; i++)
        fprintf(f, "%d ", (i * i + 3 * i) % 128);
    fclose(f);
    return clean();
}

static int each(void **state) {
    (void)state;
    return clean();
}

static void the_first_run_calibrates_and_says_so_the_second_names_what_it_found(void **state) {
    (void)state;
    assert_says_with(0, FOLDER, LOGITS "--kv bc4", "kvant: calibrating: reading 512 tokens of ");
    assert_non_null(strstr(output, "kept in " FOLDER "/"));
    assert_non_null(strstr(output, "calibration: "));
    assert_says_with(0, FOLDER, LOGITS "--kv bc4", "508 tokens, " FOLDER "/");
    assert_null(strstr(output, "calibrating"));
    assert_says_with(0, FOLDER, "bench -m " MODEL " --kv i8,f16 --depths 0 -n 1 --prefill 8 --reps 1", "508 tokens, " FOLDER "/");
    assert_says_with(0, FOLDER, LOGITS "--kv f16", NULL);
    assert_null(strstr(output, "calibration"));
}

static void many_at_once_do_no_harm(void **state) {
    (void)state;
    char one[1024], all[4096 + 256];
    snprintf(one, sizeof one, "KVANT_CACHE=" FOLDER " '%s' logits -m " MODEL " --kv bc4 --ids " IDS " -o " OUT, KVANT_PROGRAM);
    snprintf(all, sizeof all, "{ %s.1 & a=$!; %s.2 & b=$!; %s.3 & c=$!; wait $a && wait $b && wait $c; } 2>/dev/null", one, one, one);
    assert_int_equal(system(all), 0);
    assert_int_equal(system("cmp -s " OUT ".1 " OUT ".2 && cmp -s " OUT ".2 " OUT ".3"), 0);
    assert_int_equal(system("test \"$(ls " FOLDER " | wc -l)\" -eq 1"), 0); /* nothing half written is left */
    assert_says_with(0, FOLDER, LOGITS "--kv bc4", "508 tokens, " FOLDER "/");
    assert_null(strstr(output, "calibrating"));
}

static void a_folder_that_cannot_be_written_is_a_warning(void **state) {
    (void)state;
    assert_says_with(0, "/proc/kvant", LOGITS "--kv bc4", "kvant: warning: /proc/kvant");
    assert_says_with(0, "", LOGITS "--kv bc4", "calibrating");
    assert_null(strstr(output, "warning"));
    assert_null(strstr(output, "kept in"));
}

static void the_folder_is_kvants_own_else_the_users_caches(void **state) {
    (void)state;
    static const struct {
        const char *environment, *expected;
    } cases[] = {{"-u KVANT_CACHE HOME=\"$PWD\" XDG_CACHE_HOME=\"$PWD/" FOLDER "\"", "/" FOLDER "/kvant/"},
                 {"-u KVANT_CACHE HOME=\"$PWD/" FOLDER "\" XDG_CACHE_HOME=relative", "/" FOLDER "/.cache/kvant/"},
                 {"-u KVANT_CACHE -u XDG_CACHE_HOME HOME=\"$PWD/" FOLDER "\"", "/" FOLDER "/.cache/kvant/"},
                 {"KVANT_CACHE=" FOLDER "/own HOME=\"$PWD\" XDG_CACHE_HOME=\"$PWD\"", FOLDER "/own/"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char command[2048];
        assert_int_equal(clean(), 0);
        snprintf(command, sizeof command, "env %s '%s' calibrate -m " MODEL " --json 2>&1", cases[i].environment, KVANT_PROGRAM);
        if (run_shell(command, output, sizeof output, &n_output) != 0 || !strstr(output, cases[i].expected)) fail_msg("%s: %s", cases[i].environment, output);
    }
}

static void one_from_a_file_is_used_and_of_another_model_refused(void **state) {
    (void)state;
    assert_int_equal(run_program("", ONLY_STDOUT, "calibrate -m " MODEL " -o " OWN), 0);
    assert_non_null(strstr(output, OWN));
    assert_says_with(0, "", LOGITS "--kv bc4 --kv-calibration " OWN, "calibration: 508 tokens, " OWN);
    assert_null(strstr(output, "calibrating"));
    assert_says_with(2, "", "logits -m " OTHER " --ids " IDS " -o " OUT " --kv bc4 --kv-calibration " OWN, OWN ": is the calibration of another model");
    assert_says_with(2, "", "logits -m " OTHER " --ids " IDS " -o " OUT " --kv f16 --kv-calibration " OWN, OWN ": is the calibration of another model");
    assert_says_with(1, "", LOGITS "--kv-calibration " TEXT, TEXT ": is not a calibration");
    assert_says_with(1, "", LOGITS "--kv-calibration nothing.kvcalib", "nothing.kvcalib: cannot be opened");
}

static void text_of_ones_own_is_read_and_json_says_what_was_found(void **state) {
    (void)state;
    json_error_t error;
    if (run_program(FOLDER, ONLY_STDOUT, "calibrate -m " STORIES " -f " TEXT " --tokens 300 --json") != 0) fail_msg("%s", output);
    json_t *root = json_loads(output, 0, &error);
    if (!root) fail_msg("%s: %s", error.text, output);
    assert_int_equal(json_integer_value(json_object_get(root, "tokens")), 296);
    double median = json_real_value(json_object_get(json_object_get(root, "mean_share"), "median")),
           max = json_real_value(json_object_get(json_object_get(root, "mean_share"), "max"));
    assert_true(median > 0 && median <= max && max <= 1);
    long long layers = json_integer_value(json_object_get(root, "layers")), heads = json_integer_value(json_object_get(root, "kv_heads")),
              head_dim = json_integer_value(json_object_get(root, "head_dim"));
    assert_int_equal(json_integer_value(json_object_get(root, "bytes")), 64 + 12 * layers * heads * head_dim);
    const char *file = json_string_value(json_object_get(root, "file"));
    assert_non_null(file);
    assert_int_equal(strncmp(file, FOLDER "/", sizeof FOLDER), 0);
    json_decref(root);
    assert_int_equal(run_program(FOLDER, ONLY_STDOUT, "calibrate -m " STORIES), 0);
    assert_non_null(strstr(output, "largest"));
}

static void wishes_that_cannot_be_met_are_refused(void **state) {
    (void)state;
    assert_says_with(2, FOLDER, "calibrate", "a model is needed");
    assert_says_with(2, FOLDER, "calibrate -m " MODEL " --tokens 15", "--tokens 15");
    assert_says_with(2, "", "calibrate -m " MODEL, "-o FILE");
    assert_says_with(2, FOLDER, "calibrate -m " STORIES " -f " TEXT " --tokens 100000", "--tokens 100000");
    assert_says_with(1, FOLDER, "calibrate -m " STORIES " -f /dev/null", "tokens");
    assert_says_with(1, FOLDER, "calibrate -m " STORIES " -f nothing.txt", "nothing.txt");
    assert_says_with(1, FOLDER, "calibrate -m " MODEL " -o /proc/kvant.kvcalib", "/proc/kvant.kvcalib: cannot be written");
    assert_says_with(1, FOLDER, "calibrate -m " MODEL " -o /dev/null", "/dev/null: is a device");
    assert_says_with(1, FOLDER, "calibrate -m " KVANT_DATA "/tokenizers/ggml-vocab-llama-bpe.gguf -o " OWN, "kvant: ");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_first_run_calibrates_and_says_so_the_second_names_what_it_found, each),
        cmocka_unit_test_setup(many_at_once_do_no_harm, each),
        cmocka_unit_test_setup(a_folder_that_cannot_be_written_is_a_warning, each),
        cmocka_unit_test_setup(the_folder_is_kvants_own_else_the_users_caches, each),
        cmocka_unit_test_setup(one_from_a_file_is_used_and_of_another_model_refused, each),
        cmocka_unit_test_setup(text_of_ones_own_is_read_and_json_says_what_was_found, each),
        cmocka_unit_test_setup(wishes_that_cannot_be_met_are_refused, each),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}

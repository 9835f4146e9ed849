// SPDX-License-Identifier: MIT
/* test_cache_prompt.c: kvant cache export and import: a prompt cache goes out as mlx-lm's file, comes back into a folder, and kvant run
 * reads on from there with the same answer; files and prompts that do not fit are named. */
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
#include <sys/stat.h>

#include "cli/program_test.h"

#define MODEL KVANT_DATA "/mlx/text/llama-f16"
#define WORK "test_cache_prompt_work"
#define PROMPT                                                                                                                         \
    "'Hello world, this is a prompt that is long enough for two pages of tokens, because the vocabulary of this model is small and "   \
    "words are cut into letters. Hello world, this is it.'"

static int begin(void **state) {
    (void)state;
    (void)!system("rm -rf " WORK);
    return mkdir(WORK, 0777);
}

static void skip_without_model(void) {
    struct stat st;
    if (stat(MODEL, &st) == 0) return;
    print_message("%s is not there: skipped\n", MODEL);
    skip();
}

/* The ids of an answer, and how many tokens of the prompt were kept. */
static json_t *answer(const char *flags, long *kept) {
    char arguments[2048];
    snprintf(arguments, sizeof arguments, "run -m " MODEL " --raw -p " PROMPT " -n 12 --json %s", flags);
    if (run(false, arguments) != 0) {
        run(true, arguments);
        fail_msg("%s: %s", arguments, output);
    }
    json_t *root = json_loads(output, 0, NULL);
    assert_non_null(root);
    *kept = (long)json_integer_value(json_object_get(root, "prompt_tokens_kept"));
    json_t *ids = json_incref(json_object_get(root, "ids"));
    json_decref(root);
    return ids;
}

static void a_prompt_goes_out_and_comes_back(void **state) {
    (void)state;
    skip_without_model();
    static const char *const formats[] = {"affine4:64", "affine8:32", "f16", "f32"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        char arguments[2048];
        long kept;
        snprintf(arguments, sizeof arguments, "cache export " WORK "/%zu.safetensors -m " MODEL " -p " PROMPT " --kv %s", i, formats[i]);
        assert_int_equal(run(false, arguments), 0);
        snprintf(arguments, sizeof arguments, "cache import " WORK "/%zu.safetensors -m " MODEL " -p " PROMPT " --kv %s --cache-dir " WORK
                 "/kept%zu", i, formats[i], i);
        assert_int_equal(run(false, arguments), 0);
        assert_non_null(strstr(output, "64, in blocks of 64, are kept"));
        snprintf(arguments, sizeof arguments, "--kv %s", formats[i]);
        json_t *alone = answer(arguments, &kept);
        assert_int_equal(kept, 0);
        snprintf(arguments, sizeof arguments, "--kv %s --cache-dir " WORK "/kept%zu", formats[i], i);
        json_t *read_on = answer(arguments, &kept);
        assert_int_equal(kept, 64);
        if (!json_equal(alone, read_on)) fail_msg("%s: another answer", formats[i]);
        json_decref(alone);
        json_decref(read_on);
    }
}

static void what_does_not_fit_is_named(void **state) {
    (void)state;
    skip_without_model();
    assert_int_equal(run(false, "cache export " WORK "/file.safetensors -m " MODEL " -p " PROMPT " --kv affine4:64"), 0);
    assert_says(1, "cache import " WORK "/file.safetensors -m " MODEL " -p Hello --kv affine4:64 --cache-dir " WORK "/d",
                   "holds 115 tokens, but the prompt has");
    assert_says(1, "cache import " WORK "/none.safetensors -m " MODEL " -p Hello --cache-dir " WORK "/d", "cannot be opened");
    assert_says(1, "cache import " MODEL "/config.json -m " MODEL " -p Hello --cache-dir " WORK "/d", "not a safetensors file");
    assert_says(1, "cache import " MODEL "/model.safetensors -m " MODEL " -p Hello --cache-dir " WORK "/d", "model.safetensors");
    assert_says(2, "cache import " WORK "/file.safetensors -m " MODEL " -p Hello", "--cache-dir");
    assert_says(2, "cache export " WORK "/other.safetensors -m " MODEL, "which prompt?");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_prompt_goes_out_and_comes_back, begin),
        cmocka_unit_test_setup(what_does_not_fit_is_named, begin),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)!system("rm -rf " WORK);
    return failed;
}

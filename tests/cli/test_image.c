// SPDX-License-Identifier: MIT
/* test_image.c: kvant run with pictures, as a person meets it: output, exit codes, sentences. Skipped where the model is absent.
 */
#define _POSIX_C_SOURCE 200809L
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/program_test.h"

#define PIXTRAL KVANT_DATA "/mlx/pixtral-f16"
#define TEXT_MODEL KVANT_DATA "/models/random-llama-dense.gguf"
#define IMAGE_A " --image " PIXTRAL "/image_a.png"
#define IMAGE_B " --image " PIXTRAL "/image_b.png"
#define RUN "run --exact -n 8 -m " PIXTRAL

/* The ids of an answer, as text; its prompt tokens in *n. */
static char *answer_of(const char *arguments, json_int_t *n) {
    int code = run(false, arguments);
    if (code != 0) {
        run(true, arguments);
        fail_msg("%s: exit %d: %s", arguments, code, output);
    }
    json_t *root = json_loads(output, JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    char *ids = json_dumps(json_object_get(root, "ids"), JSON_COMPACT);
    *n = json_integer_value(json_object_get(root, "prompt_tokens"));
    json_decref(root);
    return ids;
}

static void pictures_change_the_answer_and_are_as_long_as_their_patches(void **state) {
    (void)state;
    json_int_t n_text, n_a, n_b, n_both;
    char *text = answer_of(RUN " --json -p 'what is it?'", &n_text);
    char *a = answer_of(RUN IMAGE_A " --json -p 'what is it?'", &n_a),
         *b = answer_of(RUN IMAGE_B " --json -p 'what is it?'", &n_b);
    char *both = answer_of(RUN IMAGE_A IMAGE_B " --json -p '[IMG]what[IMG] is it?'", &n_both);
    assert_int_equal(n_a, n_text + 6 * 9); /* 6 rows of 8 patches, a token after each */
    assert_int_equal(n_b, n_a);
    assert_true(n_both > n_a + 48);
    assert_string_not_equal(text, a);
    assert_string_not_equal(a, b);
    assert_string_not_equal(a, both);
    char *placed = answer_of(RUN IMAGE_A " --json -p '[IMG]what is it?'", &n_a); /* where it is put anyway */
    assert_string_equal(a, placed);
    free(text);
    free(a);
    free(b);
    free(both);
    free(placed);
}

static void a_later_run_finds_the_picture_in_the_folder(void **state) {
    (void)state;
    json_int_t n;
    const char *question =
        RUN IMAGE_A " --cache-dir test_image_kept --json -p 'What is in the picture that is shown above, and why?'";
    if (system("rm -rf test_image_kept") != 0) fail_msg("the folder cannot be removed");
    char *first = answer_of(question, &n), *second = answer_of(question, &n);
    assert_string_equal(first, second);
    assert_int_equal(run(true, question), 0);
    assert_non_null(strstr(output, "64 kept from before"));
    assert_int_equal(
        run(true, RUN IMAGE_B " --cache-dir test_image_kept -p 'What is in the picture that is shown above, and why?'"), 0);
    assert_null(strstr(output, "kept from before")); /* another picture, the same words */
    free(first);
    free(second);
    if (system("rm -rf test_image_kept") != 0) fail_msg("the folder cannot be removed");
}

static void what_cannot_be_is_said(void **state) {
    (void)state;
    assert_says(2, "run -m " TEXT_MODEL IMAGE_A " -p hi", "is a text model, which reads no pictures");
    assert_says(2, RUN IMAGE_A " -p '[IMG] and [IMG]'", "found 2 places for pictures ([IMG]), expected as many as pictures, 1");
    assert_says(1, RUN " --image " PIXTRAL "/config.json -p hi", "is no picture that Kvant reads: PNG, JPEG or WebP");
    assert_says(1, RUN " --image /no/such/file -p hi", "/no/such/file");
    assert_says(2, RUN IMAGE_A " --draft-model " PIXTRAL " -p hi", "--draft-model");
    assert_says(2, RUN " --mmproj " TEXT_MODEL " -p hi", "has no vision model");
}

int main(void) {
    FILE *f = fopen(PIXTRAL "/config.json", "rb");
    if (!f) {
        printf("skipped: %s is absent\n", PIXTRAL);
        return 77;
    }
    fclose(f);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_change_the_answer_and_are_as_long_as_their_patches),
        cmocka_unit_test(a_later_run_finds_the_picture_in_the_folder),
        cmocka_unit_test(what_cannot_be_is_said),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

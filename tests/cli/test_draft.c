// SPDX-License-Identifier: MIT
/* test_draft.c: kvant run with a draft says the same as without, tells how the guesses fared, and names what is wrong with a draft. */
#define _POSIX_C_SOURCE 200809L
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <jansson.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "cli/program_test.h"

#define STORIES KVANT_DATA "/models/stories260K.gguf"
#define LLAMA KVANT_DATA "/models/random-llama-dense.gguf"
#define LOOP "run -m " STORIES " --raw -p 'One day, Tom and Sam and Tom and Sam and Tom and' -n 60 "

static void the_answer_is_the_same_with_any_draft(void **state) {
    (void)state;
    if (!is_there_or_said(STORIES)) skip();
    static const char *const answers[] = {"", "--temp 0.8 --seed 5", "--repeat-penalty 1.2 --temp 0.5", "--max-kv-size 32", "--stop ' the'"};
    static const char *const drafts[] = {"--draft ngram", "--draft ngram --num-draft-tokens 16", "--draft-model " STORIES " --draft-kv f16",
                                         "--draft-model " STORIES " --draft-kv f32/f16 --num-draft-tokens 2"};
    for (size_t a = 0; a < sizeof answers / sizeof *answers; a++) {
        char arguments[1024];
        static char plain[sizeof output];
        snprintf(arguments, sizeof arguments, LOOP "%s", answers[a]);
        assert_runs(arguments);
        memcpy(plain, output, sizeof plain);
        for (size_t d = 0; d < sizeof drafts / sizeof *drafts; d++) {
            snprintf(arguments, sizeof arguments, LOOP "%s %s", answers[a], drafts[d]);
            assert_runs(arguments);
            if (strcmp(plain, output) != 0) fail_msg("%s: \"%s\", not \"%s\"", arguments, output, plain);
        }
    }
}

static void what_became_of_the_guesses_is_said_at_the_end(void **state) {
    (void)state;
    json_error_t err;
    long long accepted, drafted, rounds;
    double share;
    if (!is_there_or_said(STORIES)) skip();
    assert_int_equal(run(true, LOOP "--draft ngram"), 0);
    const char *line = strstr(output, "draft: ");
    assert_non_null(line);
    assert_int_equal(sscanf(line, "draft: %lld of %lld tokens accepted (%lf %%), in %lld rounds", &accepted, &drafted, &share, &rounds), 4);
    assert_true(accepted <= drafted && rounds <= drafted);
    assert_int_equal(run(true, LOOP), 0);
    assert_null(strstr(output, "draft"));
    assert_runs(LOOP "--draft-model " STORIES " --json");
    json_t *root = json_loads(output, 0, &err), *draft = json_object_get(root, "draft");
    assert_non_null(draft);
    drafted = json_integer_value(json_object_get(draft, "drafted"));
    accepted = json_integer_value(json_object_get(draft, "accepted"));
    assert_true(accepted <= drafted && json_is_integer(json_object_get(draft, "rounds")));
    json_decref(root);
}

static void mistakes_are_named(void **state) {
    (void)state;
    if (!is_there_or_said(STORIES) || !is_there_or_said(LLAMA)) skip();
    assert_says(2, LOOP "--draft bigram", "expected ngram");
    assert_says(2, LOOP "--draft ngram --draft-model " STORIES, "exclude each other");
    assert_says(2, LOOP "--num-draft-tokens 3", "needs a draft");
    assert_says(2, LOOP "--draft ngram --num-draft-tokens 65", "64");
    assert_says(2, LOOP "--draft ngram --draft-kv f16", "--draft-model");
    assert_says(2, LOOP "--draft-kv-bits 4", "--draft-model");
    assert_says(2, LOOP "--draft-model " STORIES " --draft-kv f16 --draft-kv-bits 4", "exclude each other");
    assert_says(2, LOOP "--draft-model " STORIES " --draft-kv nonsense", "nonsense");
    assert_says(1, LOOP "--draft-model /nonexistent.gguf", "/nonexistent.gguf");
    assert_says(2, LOOP "--draft-model " LLAMA, "vocabulary");
    assert_says(2, LOOP "--draft ngram --kv-check 10", "--kv-check");
    /* its own cache, and its own head_dim */
    assert_says(1, LOOP "--draft-model " STORIES " --draft-kv-bits 8", "draft: format i8: head_dim 8");
}

/* A copy of the model whose token "\u2581little" says "\u2581littlf". */
static void write_other_vocabulary(const char *path) {
    static char bytes[4 << 20];
    const char token[] = "\xE2\x96\x81little";
    FILE *f = fopen(STORIES, "rb");
    assert_non_null(f);
    size_t n = fread(bytes, 1, sizeof bytes, f), at = 0, length = sizeof token - 1;
    fclose(f);
    while (at + length < n && (memcmp(bytes + at, token, length) != 0 || bytes[at - 8] != (char)length)) at++;
    assert_true(at + length < n);
    bytes[at + length - 1] = 'f';
    f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void the_first_token_that_differs_is_shown_in_both_texts(void **state) {
    (void)state;
    if (!is_there_or_said(STORIES)) skip();
    write_other_vocabulary("test_draft_vocabulary.gguf");
    assert_says(2, LOOP "--draft-model test_draft_vocabulary.gguf", "littlf\" in test_draft_vocabulary.gguf, but \"");
    assert_non_null(strstr(output, "little\" in"));
    remove("test_draft_vocabulary.gguf");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_answer_is_the_same_with_any_draft),
        cmocka_unit_test(what_became_of_the_guesses_is_said_at_the_end),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(the_first_token_that_differs_is_shown_in_both_texts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_pretokenizer.c: the table of pre-tokenizers: every row compiles, cuts known texts as it should, and takes time in
 * proportion to the text on the inputs that are worst for expressions. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "text/pretokenizer.h"

static kvant_splitter *make(const kvant_pretokenizer *p) {
    kvant_splitter *s;
    kvant_error err = {0};
    if (kvant_splitter_create(p, &s, &err) != KVANT_OK) fail_msg("%s", err.message);
    return s;
}

/* Pieces of text joined with '|'. */
static void check_split(const char *name, const char *text, const char *expected) {
    const kvant_pretokenizer *p = kvant_pretokenizer_find(name);
    assert_non_null(p);
    kvant_splitter *s = make(p);
    uint32_t *sizes;
    size_t n, at = 0;
    kvant_error err = {0};
    kvant_buffer out;
    kvant_buffer_init(&out, 4096);
    if (kvant_splitter_run(s, text, strlen(text), &sizes, &n, &err) != KVANT_OK) fail_msg("%s", err.message);
    for (size_t i = 0; i < n; at += sizes[i++]) {
        if (i) kvant_buffer_append_str(&out, "|");
        kvant_buffer_append(&out, text + at, sizes[i]);
    }
    if (strcmp(out.data, expected) != 0) fail_msg("%s: \"%s\" is cut \"%s\", expected \"%s\"", name, text, out.data, expected);
    kvant_buffer_free(&out);
    kvant_free(sizes);
    kvant_splitter_destroy(s);
}

static void names_are_unique_and_found(void **state) {
    (void)state;
    int n = 0;
    for (int i = 0; i < kvant_n_pretokenizers; i++) {
        for (const char *const *name = kvant_pretokenizers[i].names; *name; name++, n++)
            assert_ptr_equal(kvant_pretokenizer_find(*name), &kvant_pretokenizers[i]);
        assert_non_null(kvant_pretokenizers[i].names[0]);
        assert_non_null(kvant_pretokenizers[i].expressions[0]);
    }
    assert_true(n > 80);
    assert_null(kvant_pretokenizer_find("no-such-name"));
    assert_null(kvant_pretokenizer_find(""));
}

static void nearest_names_are_close(void **state) {
    (void)state;
    char text[128];
    kvant_pretokenizer_nearest("qwen-2", text, sizeof text);
    assert_non_null(strstr(text, "'qwen2'"));
    kvant_pretokenizer_nearest("a-very-long-name-that-no-file-has-and-that-goes-on-and-on", text, sizeof text);
    assert_true(strlen(text) > 10);
}

static void known_texts_are_cut_as_the_models_cut_them(void **state) {
    (void)state;
    check_split("gpt-2", "Hello world's  12345 x", "Hello| world|'s| | 12345| x");
    check_split("gpt-2", "it'S a\xE1\xA0\x8E" "b", "it|'|S| a|\xE1\xA0\x8E|b"); /* U+180E is not white space */
    check_split("starcoder", "ab 123", "ab| |1|2|3");
    check_split("llama-bpe", "I'LL pay 12345 \n\n now", "I|'LL| pay| |123|45| \n\n| now");
    check_split("qwen2", "x=12;\r\n  y", "x|=|1|2|;\r\n| | y");
    check_split("qwen2", "a\xC2\xA0" "b\xE3\x80\x80\xE3\x80\x80", "a|\xC2\xA0" "b|\xE3\x80\x80\xE3\x80\x80");
    check_split("gpt-4o", "camelCase HTMLPage's 1234", "camel|Case| HTMLPage's| |123|4");
    check_split("tekken", "camelCase it's", "camel|Case| it|'s");
    check_split("deepseek-v3", "\xE4\xB8\xAD\xE6\x96\x87 1234 #foo a", "\xE4\xB8\xAD\xE6\x96\x87| |123|4| #|foo| a");
    check_split("deepseek-llm", "ab 12\ncd  ", "ab| |12|\n|cd|  ");
    check_split("falcon", "x+1234", "x|+|123|4");
    check_split("default", "n 1234.", "n| |123|4|.");
    check_split("bloom", "one,two three", "one|,|two| three");
    check_split("tiny_aya", "a1234567 12a 12", "a|1|234|567| |12|a| |12");
    check_split("superbpe", "of 1234567 and 12", "of |1|234|567| and |12");
    check_split("afmoe", "a 1234567b", "a| |1|234|567|b");
    check_split("kimi-k2", "\xE4\xBD\xA0\xE5\xA5\xBD" "abc DEFg's", "\xE4\xBD\xA0\xE5\xA5\xBD|abc| DEFg's");
    check_split("chameleon", "a  b\tc 12", "a|  |b|\t|c| |1|2");
    check_split("gemma4", "a b\n\nc", "a b|\n\n|c");
    check_split("jais-2", "a  \n  b \n!\n c", "a|  \n| | b| \n|!\n| c");
    check_split("exaone-moe", "one two, three", "one two|,| three");
}

#define BIG ((size_t)1 << 20)

/* Texts of a mebibyte that make a careless expression look at the rest of the text again and again. */
static void fill(char *text, int kind) {
    static const char *const units[] = {" ",        "a",    "A",  "7",     "\n", "!", "\xE6\x97\xA5",
                                        "\xCC\x81", " \t",  "a ", "\r\n ", "1a", "'", "\xD0\x9F\xD0\xBF",
                                        "_7",       "a A\n"};
    size_t n = strlen(units[kind]), whole = (BIG - 1) / n * n;
    for (size_t i = 0; i < BIG; i++) text[i] = i < whole ? units[kind][i % n] : 'x';
}
#define N_KINDS 16

static void time_grows_with_the_text_and_not_with_its_square(void **state) {
    (void)state;
    char *text = malloc(BIG);
    for (int i = 0; i < kvant_n_pretokenizers; i++) {
        kvant_splitter *s = make(&kvant_pretokenizers[i]);
        for (int kind = 0; kind < N_KINDS; kind++) {
            fill(text, kind);
            uint32_t *sizes;
            size_t n, sum = 0;
            kvant_error err = {0};
            clock_t begin = clock();
            if (kvant_splitter_run(s, text, BIG, &sizes, &n, &err) != KVANT_OK)
                fail_msg("%s, text %d: %s", kvant_pretokenizers[i].names[0], kind, err.message);
            double seconds = (double)(clock() - begin) / CLOCKS_PER_SEC;
            for (size_t k = 0; k < n; k++) sum += sizes[k];
            assert_int_equal(sum, BIG);
            if (seconds > 20) fail_msg("%s, text %d: %.1f s", kvant_pretokenizers[i].names[0], kind, seconds);
            if (seconds > 1) print_message("%s, text %d: %.1f s\n", kvant_pretokenizers[i].names[0], kind, seconds);
            kvant_free(sizes);
        }
        kvant_splitter_destroy(s);
    }
    free(text);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_unique_and_found),
        cmocka_unit_test(nearest_names_are_close),
        cmocka_unit_test(known_texts_are_cut_as_the_models_cut_them),
        cmocka_unit_test(time_grows_with_the_text_and_not_with_its_square),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

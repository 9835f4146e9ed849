// SPDX-License-Identifier: MIT
/* jinja_case.c: upper and lower case and kinds of characters, by utf8proc. One letter becomes one letter, but for the German ß,
 * which is the only one of Python's longer pairs that prompts are likely to have. */
#include <utf8proc.h>

#include "text/jinja_run.h"
#include "text/utf8.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_builder builder;

static void add_changed(builder *b, uint32_t code, const char *bytes, size_t n, kvant_jinja_case to) {
    char text[4];
    if (code == 0xDF && to != CASE_LOWER) {
        kvant_jinja_add_str(b, to == CASE_UPPER ? "SS" : "Ss");
        return;
    }
    int32_t c = (int32_t)code;
    int32_t changed = to == CASE_LOWER ? utf8proc_tolower(c) : to == CASE_UPPER ? utf8proc_toupper(c) : utf8proc_totitle(c);
    if (changed == c || changed < 0) /* also what is not UTF-8 */
        kvant_jinja_add(b, bytes, n);
    else
        kvant_jinja_add(b, text, kvant_utf8_write((uint32_t)changed, text));
}

/* Whether the sigma at a place ends a word: a letter stands before it and none behind it. */
static bool ends_word(const char *s, size_t n, size_t at, bool letter_before) {
    uint32_t next = ' ';
    if (at + 2 < n) kvant_utf8_read((const uint8_t *)s + at + 2, n - at - 2, &next);
    return letter_before && !kvant_jinja_is_letter(next);
}

/* The characters from `from` on; those before it are there to be looked at. */
static void convert(builder *b, const char *s, size_t from, size_t n, kvant_jinja_case to) {
    bool letter_before = from > 0;
    for (size_t i = from; i < n;) {
        uint32_t code;
        size_t size = kvant_utf8_read((const uint8_t *)s + i, n - i, &code);
        if (code == 0x3A3 && to == CASE_LOWER && ends_word(s, n, i, letter_before))
            kvant_jinja_add_str(b, "\xCF\x82");
        else
            add_changed(b, code, s + i, size, to);
        letter_before = kvant_jinja_is_letter(code);
        i += size;
    }
}

static void capitalize(builder *b, const char *s, size_t n, kvant_jinja_case first_letter) {
    uint32_t code;
    size_t first = n ? kvant_utf8_read((const uint8_t *)s, n, &code) : 0;
    convert(b, s, 0, first, first_letter);
    convert(b, s, first, n, CASE_LOWER);
}

bool kvant_jinja_is_letter(uint32_t code) {
    utf8proc_category_t c = utf8proc_category((int32_t)code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool kvant_jinja_is_digit(uint32_t code) { return utf8proc_category((int32_t)code) == UTF8PROC_CATEGORY_ND; }

static bool has_case(uint32_t code) {
    utf8proc_category_t c = utf8proc_category((int32_t)code);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LT;
}

bool kvant_jinja_is_printable(uint32_t code) {
    utf8proc_category_t c = utf8proc_category((int32_t)code);
    return code == ' ' || (c != UTF8PROC_CATEGORY_CN && c < UTF8PROC_CATEGORY_ZS);
}

/* The filter title breaks words at spaces and some signs; the method of that name at everything without case. */
static void title(builder *b, const char *s, size_t n, bool method) {
    kvant_jinja_case first_letter = method ? CASE_CAPITALIZE : CASE_UPPER;
    size_t start = 0;
    bool in_word = false;
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t size = kvant_utf8_read((const uint8_t *)s + i, n - i, &code);
        bool word = method ? has_case(code) : !kvant_jinja_is_space(code) && !(code && code < 0x80 && strchr("-({[<", (int)code));
        if (word != in_word) {
            capitalize(b, s + start, i - start, first_letter);
            start = i;
            in_word = word;
        }
        i += size;
    }
    capitalize(b, s + start, n - start, first_letter);
}

kvant_status kvant_jinja_change_case(run *r, const kvant_jinja_text *t, kvant_jinja_case to, kvant_jinja_value *out) {
    builder b;
    kvant_jinja_builder_init(&b, r->heap);
    switch (to) {
    case CASE_UPPER:
    case CASE_LOWER:
        convert(&b, t->bytes, 0, t->size, to);
        break;
    case CASE_CAPITALIZE:
        capitalize(&b, t->bytes, t->size, to);
        break;
    default:
        title(&b, t->bytes, t->size, to == CASE_TITLE_METHOD);
        break;
    }
    return kvant_jinja_finish(r, &b, out);
}

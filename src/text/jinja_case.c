// SPDX-License-Identifier: MIT
/* jinja_case.c: upper and lower case. ASCII is done here, other letters by PCRE2, which knows Unicode's pairs of one letter each
 * (not those where one letter becomes two). */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include "text/jinja_run.h"
#include "text/utf8.h"

typedef kvant_jinja_run run;
typedef kvant_jinja_builder builder;

static bool is_ascii(const char *s, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)s[i] >= 0x80) return false;
    return true;
}

static char ascii_case(char c, bool upper) {
    if (upper) return c >= 'a' && c <= 'z' ? (char)(c - 32) : c;
    return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
}

/* The other letters, by a substitution of everything with itself in the case asked for. */
static kvant_status convert_unicode(run *r, builder *b, const char *s, size_t n, bool upper) {
    int code;
    PCRE2_SIZE where, size = 2 * n + 16;
    pcre2_code *re = pcre2_compile((PCRE2_SPTR) "(?s).+", PCRE2_ZERO_TERMINATED, PCRE2_UTF | PCRE2_UCP, &code, &where, NULL);
    char *out = kvant_jinja_alloc(r->heap, size, 1);
    if (!re || !out) {
        pcre2_code_free(re);
        return kvant_jinja_out_of_memory(r, out ? KVANT_ENOMEM : r->heap->failure);
    }
    code = pcre2_substitute(re, (PCRE2_SPTR)s, n, 0, PCRE2_SUBSTITUTE_EXTENDED, NULL, NULL,
                            (PCRE2_SPTR)(upper ? "\\U$0" : "\\L$0"), PCRE2_ZERO_TERMINATED, (PCRE2_UCHAR *)out, &size);
    pcre2_code_free(re);
    if (code >= 0)
        kvant_jinja_add(b, out, size);
    else /* not UTF-8: as it is */
        kvant_jinja_add(b, s, n);
    return KVANT_OK;
}

static kvant_status convert(run *r, builder *b, const char *s, size_t n, bool upper) {
    if (!is_ascii(s, n)) return convert_unicode(r, b, s, n, upper);
    for (size_t i = 0; i < n; i++) {
        char c = ascii_case(s[i], upper);
        kvant_jinja_add(b, &c, 1);
    }
    return KVANT_OK;
}

static kvant_status capitalize(run *r, builder *b, const char *s, size_t n) {
    if (n == 0) return KVANT_OK;
    uint32_t code;
    size_t first = kvant_utf8_read((const uint8_t *)s, n, &code);
    KVANT_TRY(convert(r, b, s, first, true));
    return convert(r, b, s + first, n - first, false);
}

static bool begins_word_behind(char c) { return c == '-' || c == '(' || c == '{' || c == '[' || c == '<'; }

static bool is_letter(uint32_t code) { return (code | 32) - 'a' < 26u || code >= 0xC0; }

/* The filter title breaks words at spaces and some signs; the method of that name at everything that is no letter. */
static kvant_status title(run *r, builder *b, const char *s, size_t n, bool method) {
    size_t start = 0;
    bool in_word = false;
    for (size_t i = 0; i < n;) {
        uint32_t code;
        size_t size = kvant_utf8_read((const uint8_t *)s + i, n - i, &code);
        bool word = method ? is_letter(code) : !kvant_jinja_is_space(code) && !(code < 0x80 && begins_word_behind((char)code));
        if (word != in_word) {
            KVANT_TRY(kvant_jinja_step(r, 1));
            KVANT_TRY(capitalize(r, b, s + start, i - start));
            start = i;
            in_word = word;
        }
        i += size;
    }
    return capitalize(r, b, s + start, n - start);
}

kvant_status kvant_jinja_change_case(run *r, const kvant_jinja_text *t, kvant_jinja_case to, kvant_jinja_value *out) {
    builder b;
    kvant_jinja_builder_init(&b, r->heap);
    switch (to) {
    case CASE_UPPER:
    case CASE_LOWER:
        KVANT_TRY(convert(r, &b, t->bytes, t->size, to == CASE_UPPER));
        break;
    case CASE_CAPITALIZE:
        KVANT_TRY(capitalize(r, &b, t->bytes, t->size));
        break;
    default:
        KVANT_TRY(title(r, &b, t->bytes, t->size, to == CASE_TITLE_METHOD));
        break;
    }
    return kvant_jinja_finish(r, &b, out);
}

bool kvant_jinja_is_printable(uint32_t c) {
    /* controls, spaces but the common one, marks of direction, private and unassigned characters */
    static const struct {
        uint32_t first, last;
    } HIDDEN[] = {{0x0, 0x1F},        {0x7F, 0xA0},       {0xAD, 0xAD},       {0x600, 0x605},     {0x61C, 0x61C},
                  {0x6DD, 0x6DD},     {0x70F, 0x70F},     {0x1680, 0x1680},   {0x180E, 0x180E},   {0x2000, 0x200F},
                  {0x2028, 0x202F},   {0x205F, 0x206F},   {0x3000, 0x3000},   {0xD800, 0xF8FF},   {0xFEFF, 0xFEFF},
                  {0xFFF0, 0xFFFB},   {0xFFFE, 0xFFFF},   {0x110BD, 0x110BD}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
                  {0xE0000, 0xE00FF}, {0xE01F0, 0x10FFFF}};
    for (size_t i = 0; i < sizeof HIDDEN / sizeof *HIDDEN; i++)
        if (c >= HIDDEN[i].first && c <= HIDDEN[i].last) return false;
    return true;
}

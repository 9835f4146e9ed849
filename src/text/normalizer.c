// SPDX-License-Identifier: MIT
/* normalizer.c: steps that rewrite a text: Unicode's normal forms, case, white space, replacing.
 *
 * Normal forms take utf8proc's tables; the order of combining marks is ours, since a run of them may be as long as a text and must
 * not take quadratic time. */
#include <stdlib.h>

#include <utf8proc.h>

#include "text/tokenizer_rules.h"
#include "text/utf8.h"

/* ---- characters ---- */

bool kvant_is_white_space(uint32_t c) {
    return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
           c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

bool kvant_is_word_character(uint32_t c) {
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT: case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO: case UTF8PROC_CATEGORY_MN: case UTF8PROC_CATEGORY_MC: case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_PC: return true;
    default: break;
    }
    return c == 0x200C || c == 0x200D || (c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
           (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189);
}

static kvant_status append_code(kvant_buffer *out, uint32_t code) {
    char bytes[4];
    return kvant_buffer_append(out, bytes, kvant_utf8_write(code, bytes));
}

static bool is_ascii(const char *text, size_t size) {
    for (size_t i = 0; i < size; i++)
        if ((uint8_t)text[i] >= 0x80) return false;
    return true;
}

/* ---- normal forms ---- */

typedef struct mark {
    int class;
    size_t index; /* keeps the order of equal classes */
    int32_t code;
} mark;

static int compare_marks(const void *a, const void *b) {
    const mark *x = a, *y = b;
    if (x->class != y->class) return x->class < y->class ? -1 : 1;
    return x->index < y->index ? -1 : x->index > y->index;
}

static int combining_class(int32_t code) { return utf8proc_get_property(code)->combining_class; }

/* Sorts each run of combining marks by class. */
static kvant_status order_marks(int32_t *codes, size_t n) {
    mark *marks = NULL;
    size_t room = 0;
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && combining_class(codes[end]) > 0) end++;
        if (end - i > 1) {
            if (end - i > room) {
                mark *more = kvant_realloc(marks, end - i, sizeof *more);
                if (!more) {
                    kvant_free(marks);
                    return KVANT_ENOMEM;
                }
                marks = more;
                room = end - i;
            }
            for (size_t k = i; k < end; k++) marks[k - i] = (mark){combining_class(codes[k]), k, codes[k]};
            qsort(marks, end - i, sizeof *marks, compare_marks);
            for (size_t k = i; k < end; k++) codes[k] = marks[k - i].code;
        }
        i = end == i ? i + 1 : end;
    }
    kvant_free(marks);
    return KVANT_OK;
}

/* Most characters that one decomposes into. */
#define MAX_DECOMPOSITION 32

static kvant_status decompose(const char *text, size_t size, utf8proc_option_t options, int32_t **out, size_t *n) {
    int32_t *codes = NULL;
    size_t room = 0, k = 0;
    int boundary = 0;
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        if (room - k < MAX_DECOMPOSITION + 1) {
            room = room ? room * 2 : size + 2 * MAX_DECOMPOSITION;
            int32_t *more = kvant_realloc(codes, room, sizeof *more);
            if (!more) {
                kvant_free(codes);
                return KVANT_ENOMEM;
            }
            codes = more;
        }
        utf8proc_ssize_t got = utf8proc_decompose_char((utf8proc_int32_t)code, codes + k, MAX_DECOMPOSITION, options, &boundary);
        if (got < 0 || got > MAX_DECOMPOSITION) codes[k++] = (int32_t)code; /* no valid character: stays as it is */
        else k += (size_t)got;
    }
    *out = codes;
    *n = k;
    return KVANT_OK;
}

static kvant_status normal_form(const char *text, size_t size, bool compatible, bool composed, kvant_buffer *out) {
    if (is_ascii(text, size)) return kvant_buffer_append(out, text, size);
    int options = UTF8PROC_STABLE | (composed ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE) | (compatible ? UTF8PROC_COMPAT : 0);
    int32_t *codes;
    size_t n;
    KVANT_TRY(decompose(text, size, (utf8proc_option_t)(options | UTF8PROC_DECOMPOSE), &codes, &n));
    kvant_status st = order_marks(codes, n);
    if (st == KVANT_OK) {
        utf8proc_ssize_t left = utf8proc_normalize_utf32(codes, (utf8proc_ssize_t)n, (utf8proc_option_t)options);
        for (utf8proc_ssize_t i = 0; i < left && st == KVANT_OK; i++) st = append_code(out, (uint32_t)codes[i]);
    }
    kvant_free(codes);
    return st;
}

/* ---- case, white space ---- */

static kvant_status lowercase(const char *text, size_t size, kvant_buffer *out) {
    for (size_t i = 0; i < size;) {
        uint32_t code;
        i += kvant_utf8_read((const uint8_t *)text + i, size - i, &code);
        if (code == 0x130) KVANT_TRY(kvant_buffer_append_str(out, "i\xCC\x87")); /* the one that becomes two characters */
        else KVANT_TRY(append_code(out, (uint32_t)utf8proc_tolower((utf8proc_int32_t)code)));
    }
    return KVANT_OK;
}

static kvant_status strip(const kvant_step *s, const char *text, size_t size, kvant_buffer *out) {
    size_t begin = 0, end = size;
    uint32_t code;
    while (s->left && begin < end) {
        size_t n = kvant_utf8_read((const uint8_t *)text + begin, end - begin, &code);
        if (!kvant_is_white_space(code)) break;
        begin += n;
    }
    while (s->right && end > begin) {
        size_t at = end - 1;
        while (at > begin && ((uint8_t)text[at] & 0xC0) == 0x80) at--;
        kvant_utf8_read((const uint8_t *)text + at, end - at, &code);
        if (!kvant_is_white_space(code)) break;
        end = at;
    }
    return kvant_buffer_append(out, text + begin, end - begin);
}

/* ---- replacing ---- */

/* Where `find` is next, or size. */
static size_t find_literal(const kvant_step *s, const char *text, size_t size, size_t at) {
    while (at + s->find_size <= size) {
        const char *p = memchr(text + at, s->find[0], size - at - s->find_size + 1);
        if (!p) break;
        at = (size_t)(p - text);
        if (memcmp(p, s->find, s->find_size) == 0) return at;
        at++;
    }
    return size;
}

static kvant_status replace(const kvant_step *s, kvant_matcher *m, const char *text, size_t size, kvant_buffer *out) {
    size_t done = 0, at = 0;
    if (!s->expression) {
        if (s->find_size == 0) return kvant_buffer_append(out, text, size);
        while ((at = find_literal(s, text, size, done)) < size) {
            KVANT_TRY(kvant_buffer_append(out, text + done, at - done));
            KVANT_TRY(kvant_buffer_append(out, s->text, s->text_size));
            done = at + s->find_size;
        }
        return kvant_buffer_append(out, text + done, size - done);
    }
    bool any = false; /* an empty match right behind another one does not count */
    while (at <= size) {
        kvant_span match;
        bool found;
        KVANT_TRY(kvant_expression_find(s->expression, m, text, size, at, false, &match, &found));
        if (!found) break;
        if (match.begin == match.end && any && match.begin == done) {
            at++;
            while (at < size && ((uint8_t)text[at] & 0xC0) == 0x80) at++;
            continue;
        }
        KVANT_TRY(kvant_buffer_append(out, text + done, match.begin - done));
        KVANT_TRY(kvant_buffer_append(out, s->text, s->text_size));
        done = at = match.end;
        any = true;
    }
    return kvant_buffer_append(out, text + done, size - done);
}

static kvant_status byte_letters(const char *text, size_t size, kvant_buffer *out) {
    for (size_t i = 0; i < size; i++) KVANT_TRY(append_code(out, kvant_byte_letter((uint8_t)text[i])));
    return KVANT_OK;
}

static kvant_status prepend(const kvant_step *s, bool wanted, const char *text, size_t size, kvant_buffer *out) {
    if (wanted && size) KVANT_TRY(kvant_buffer_append(out, s->text, s->text_size));
    return kvant_buffer_append(out, text, size);
}

kvant_status kvant_step_rewrite(const kvant_step *s, kvant_matcher *m, const char *text, size_t size, bool at_start,
                                kvant_buffer *out) {
    switch (s->kind) {
    case KVANT_STEP_NFC: return normal_form(text, size, false, true, out);
    case KVANT_STEP_NFD: return normal_form(text, size, false, false, out);
    case KVANT_STEP_NFKC: return normal_form(text, size, true, true, out);
    case KVANT_STEP_NFKD: return normal_form(text, size, true, false, out);
    case KVANT_STEP_LOWERCASE: return lowercase(text, size, out);
    case KVANT_STEP_STRIP: return strip(s, text, size, out);
    case KVANT_STEP_PREPEND: return prepend(s, true, text, size, out);
    case KVANT_STEP_PREPEND_ONCE: {
        bool there = size >= s->text_size && memcmp(text, s->text, s->text_size) == 0;
        return prepend(s, !there && (at_start || !s->first_only), text, size, out);
    }
    case KVANT_STEP_REPLACE: return replace(s, m, text, size, out);
    case KVANT_STEP_BYTE_LETTERS: return byte_letters(text, size, out);
    case KVANT_STEP_SPLIT: break;
    }
    return kvant_buffer_append(out, text, size);
}

kvant_status kvant_steps_rewrite(const kvant_steps *s, kvant_matcher *m, bool at_start, kvant_buffer *text, kvant_buffer *spare) {
    for (int i = 0; i < s->n; i++) {
        spare->size = 0;
        KVANT_TRY(kvant_step_rewrite(&s->steps[i], m, text->data ? text->data : "", text->size, at_start, spare));
        kvant_buffer swap = *text;
        *text = *spare;
        *spare = swap;
    }
    return KVANT_OK;
}

/* ---- lists of steps ---- */

kvant_step *kvant_steps_add(kvant_steps *s) {
    if (s->n == KVANT_RULES_MAX_STEPS) return NULL;
    if (!s->steps) s->steps = kvant_alloc(KVANT_RULES_MAX_STEPS, sizeof *s->steps);
    return s->steps ? &s->steps[s->n++] : NULL;
}

void kvant_steps_free(kvant_steps *s) {
    for (int i = 0; i < s->n; i++) {
        kvant_free(s->steps[i].text);
        kvant_free(s->steps[i].find);
        kvant_expression_destroy(s->steps[i].expression);
    }
    kvant_free(s->steps);
    *s = (kvant_steps){0};
}

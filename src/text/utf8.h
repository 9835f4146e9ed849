// SPDX-License-Identifier: MIT
/* utf8.h: one character at a time, in and out of UTF-8. */
#ifndef KVANT_TEXT_UTF8_H
#define KVANT_TEXT_UTF8_H

#include <stddef.h>
#include <stdint.h>

#define KVANT_REPLACEMENT 0xFFFDu

/* The length of the character that a first byte announces; 1 for bytes that begin none. */
static inline size_t kvant_utf8_length(uint8_t first) { return first < 0xC0 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4; }

/* Reads by structure alone, as the tokenizers of the field do: overlong forms and surrogates pass, anything else that is not a
 * character up to U+10FFFF gives U+FFFD and one byte. n >= 1; returns the bytes read. */
static inline size_t kvant_utf8_read(const uint8_t *p, size_t n, uint32_t *code) {
    uint32_t c = p[0];
    *code = c;
    if (c < 0x80) return 1;
    size_t length = kvant_utf8_length(p[0]);
    *code = KVANT_REPLACEMENT;
    if (length == 1 || c >= 0xF8 || length > n) return 1;
    c &= 0x7Fu >> length;
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xC0) != 0x80) return 1;
        c = c << 6 | (p[i] & 0x3Fu);
    }
    if (c > 0x10FFFF) return 1;
    *code = c;
    return length;
}

/* Writes 1 to 4 bytes. code <= 0x10FFFF. */
static inline size_t kvant_utf8_write(uint32_t code, char out[4]) {
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i > 0; i--, code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00u >> n & 0xFF) | code);
    return n;
}

#endif

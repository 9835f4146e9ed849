// SPDX-License-Identifier: MIT
/* byte_letters.c: the letters that byte-level vocabularies write for bytes, so that every token is printable text.
 *
 * Bytes 0x21-0x7E, 0xA1-0xAC and 0xAE-0xFF are written as the characters with those codes; the other 68, in order, as U+0100 to
 * U+0143. */
#include "text/tokenizer_internal.h"

uint32_t kvant_byte_letter(uint8_t b) {
    if (b <= 0x20) return 0x100u + b;
    if (b >= 0x7F && b <= 0xA0) return 0x121u + (b - 0x7Fu);
    return b == 0xAD ? 0x143u : b;
}

int kvant_letter_byte(uint32_t code) {
    if (code >= 0x100 && code <= 0x120) return (int)(code - 0x100);
    if (code >= 0x121 && code <= 0x142) return (int)(code - 0x121 + 0x7F);
    if (code == 0x143) return 0xAD;
    return code > 0x20 && code <= 0xFF && !(code >= 0x7F && code <= 0xA0) && code != 0xAD ? (int)code : -1;
}

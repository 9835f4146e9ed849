// SPDX-License-Identifier: MIT
/* weight_legacy.c: the formats with blocks of 32: Q4_0, Q4_1, Q5_0, Q5_1, Q8_0.
 *
 * A block is a half-float scale (and minimum), then the codes: nibble i holds element i (low) and i + 16 (high); a fifth bit
 * stands in a 32-bit mask before them. */
#include <string.h>

#include "base/bytes.h"
#include "weight/weight_formats.h"

static void split_nibbles(const uint8_t *restrict qs, uint8_t *restrict codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = qs[i] & 15;
        codes[i + 16] = qs[i] >> 4;
    }
}

static void add_fifth_bits(const uint8_t *restrict mask, uint8_t *restrict codes) {
    static const uint8_t bit[8] = {1, 2, 4, 8, 16, 32, 64, 128};
    for (int byte = 0; byte < 4; byte++, codes += 8)
        for (int i = 0; i < 8; i++) codes[i] |= (mask[byte] & bit[i]) ? 16 : 0;
}

void kvant_split_q4_0(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    split_nibbles(src + 2, out->codes);
}

void kvant_split_q4_1(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    out->m = kvant_read_u16(src + 2);
    split_nibbles(src + 4, out->codes);
}

void kvant_split_q5_0(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    split_nibbles(src + 6, out->codes);
    add_fifth_bits(src + 2, out->codes);
}

void kvant_split_q5_1(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    out->m = kvant_read_u16(src + 2);
    split_nibbles(src + 8, out->codes);
    add_fifth_bits(src + 4, out->codes);
}

void kvant_split_q8_0(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    memcpy(out->codes, src + 2, 32);
}

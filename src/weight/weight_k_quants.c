// SPDX-License-Identifier: MIT
/* weight_k_quants.c: the formats with super-blocks of 256: Q2_K, Q3_K, Q4_K, Q5_K, Q6_K.
 *
 * A super-block has one half-float scale (and one for the minima) and small integer scales for its sub-blocks of 16 or 32. */
#include <string.h>

#include "base/bytes.h"
#include "weight/weight_formats.h"

/* 2-bit fields: 64 bytes hold two halves of 128 elements; bits 2s of byte l of a half belong to its element 32 s + l. */
static void split_two_bits(const uint8_t *restrict qs, uint8_t *restrict codes) {
    for (int half = 0; half < 2; half++, qs += 32)
        for (int s = 0; s < 4; s++, codes += 32)
            for (int l = 0; l < 32; l++) codes[l] = qs[l] >> (2 * s) & 3;
}

/* 1-bit fields: bit s of byte l belongs to element 32 s + l; it becomes the bit of value `worth` in the code. */
static void add_one_bit(const uint8_t *restrict mask, uint8_t worth, uint8_t *restrict codes) {
    for (int s = 0; s < 8; s++, codes += 32)
        for (int l = 0; l < 32; l++) codes[l] |= (mask[l] >> s & 1) ? worth : 0;
}

/* scales[16] (low nibble scale, high nibble minimum), qs[64], d, dmin */
void kvant_split_q2_k(const uint8_t *src, kvant_weight_block *out) {
    memcpy(out->sub_scale, src, 16);
    split_two_bits(src + 16, out->codes);
    out->d = kvant_read_u16(src + 80);
    out->m = kvant_read_u16(src + 82);
}

/* hmask[32], qs[64], scales[12] (sixteen of 6 bits, biased by 32), d; the third bit adds 4 */
void kvant_split_q3_k(const uint8_t *src, kvant_weight_block *out) {
    const uint8_t *hmask = src, *scales = src + 96;
    split_two_bits(src + 32, out->codes);
    add_one_bit(hmask, 4, out->codes);
    for (int i = 0; i < 16; i++) {
        int low = i < 8 ? scales[i] & 15 : scales[i - 8] >> 4;
        int high = scales[8 + i % 4] >> (2 * (i / 4)) & 3;
        out->sub_scale[i] = (uint8_t)((low | high << 4) - 32);
    }
    out->d = kvant_read_u16(src + 108);
}

/* Twelve bytes hold eight 6-bit scales and eight 6-bit minima: the first four of each plainly, the low nibbles of the others
 * in the last four bytes and their upper two bits above the first four. */
static void split_six_bit_scales(const uint8_t *s, kvant_weight_block *out) {
    for (int i = 0; i < 4; i++) {
        out->sub_scale[i] = s[i] & 63;
        out->sub_min[i] = s[i + 4] & 63;
        out->sub_scale[i + 4] = (uint8_t)((s[i + 8] & 15) | s[i] >> 6 << 4);
        out->sub_min[i + 4] = (uint8_t)(s[i + 8] >> 4 | s[i + 4] >> 6 << 4);
    }
}

/* 32 bytes hold 64 elements: low nibbles the first 32, high nibbles the next. */
static void split_four_bits(const uint8_t *restrict qs, uint8_t *restrict codes) {
    for (int group = 0; group < 4; group++, qs += 32, codes += 64)
        for (int l = 0; l < 32; l++) {
            codes[l] = qs[l] & 15;
            codes[l + 32] = qs[l] >> 4;
        }
}

/* d, dmin, scales[12], qs[128] */
void kvant_split_q4_k(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    out->m = kvant_read_u16(src + 2);
    split_six_bit_scales(src + 4, out);
    split_four_bits(src + 16, out->codes);
}

/* d, dmin, scales[12], qh[32], qs[128]; bit i / 32 of qh[i % 32] is the fifth bit */
void kvant_split_q5_k(const uint8_t *src, kvant_weight_block *out) {
    const uint8_t *qh = src + 16;
    out->d = kvant_read_u16(src);
    out->m = kvant_read_u16(src + 2);
    split_six_bit_scales(src + 4, out);
    split_four_bits(src + 48, out->codes);
    add_one_bit(qh, 16, out->codes);
}

/* ql[128], qh[64], scales[16] (int8), d; halves of 128 elements */
void kvant_split_q6_k(const uint8_t *src, kvant_weight_block *out) {
    uint8_t *codes = out->codes;
    for (int half = 0; half < 2; half++, codes += 128) {
        const uint8_t *ql = src + 64 * half, *qh = src + 128 + 32 * half;
        for (int l = 0; l < 32; l++) {
            codes[l] = (uint8_t)((ql[l] & 15) | (qh[l] & 3) << 4);
            codes[l + 32] = (uint8_t)((ql[l + 32] & 15) | (qh[l] >> 2 & 3) << 4);
            codes[l + 64] = (uint8_t)(ql[l] >> 4 | (qh[l] >> 4 & 3) << 4);
            codes[l + 96] = (uint8_t)(ql[l + 32] >> 4 | qh[l] >> 6 << 4);
        }
    }
    memcpy(out->sub_scale, src + 192, 16);
    out->d = kvant_read_u16(src + 208);
}

// SPDX-License-Identifier: MIT
/* weight_tables.c: the formats whose codes are looked up in a table of 16 levels (IQ4_NL, IQ4_XS, MXFP4), and the list of
 * ggml's formats. */
#include "base/bytes.h"
#include "base/mlx_type.h"
#include "weight/weight_formats.h"

static const int8_t iq4_levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
/* Twice the values of FP4 (E2M1), OCP Microscaling Formats 1.0; the scale is halved instead. */
const int8_t kvant_fp4_levels[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

static void split_halves(const uint8_t *restrict qs, uint8_t *restrict codes) {
    for (int i = 0; i < 16; i++) {
        codes[i] = qs[i] & 15;
        codes[i + 16] = qs[i] >> 4;
    }
}

void kvant_split_iq4_nl(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    split_halves(src + 2, out->codes);
}

/* d, scales_h (two bits each), scales_l[4] (nibbles), qs[128]; scales are biased by 32 */
void kvant_split_iq4_xs(const uint8_t *src, kvant_weight_block *out) {
    out->d = kvant_read_u16(src);
    uint16_t high = kvant_read_u16(src + 2);
    for (int i = 0; i < 8; i++) {
        int low = src[4 + i / 2] >> (4 * (i % 2)) & 15;
        out->sub_scale[i] = (uint8_t)((low | (high >> (2 * i) & 3) << 4) - 32);
        split_halves(src + 8 + 16 * i, out->codes + 32 * i);
    }
}

void kvant_split_mxfp4(const uint8_t *src, kvant_weight_block *out) {
    out->sub_scale[0] = src[0];
    split_halves(src + 1, out->codes);
}

#define NONE KVANT_SUB_NONE
#define F16 KVANT_SCALE_F16
static const kvant_weight_format formats[] = {
    {KVANT_W_F32, "F32", 1, 4, 0, 0, 0, false, NONE, NULL, NULL, F16, false},
    {KVANT_W_F16, "F16", 1, 2, 0, 0, 0, false, NONE, NULL, NULL, F16, false},
    {KVANT_W_BF16, "BF16", 1, 2, 0, 0, 0, false, NONE, NULL, NULL, F16, false},
    {KVANT_W_Q4_0, "Q4_0", 32, 18, 4, 32, 8, false, NONE, NULL, kvant_split_q4_0, F16, false},
    {KVANT_W_Q4_1, "Q4_1", 32, 20, 4, 32, 0, true, NONE, NULL, kvant_split_q4_1, F16, false},
    {KVANT_W_Q5_0, "Q5_0", 32, 22, 5, 32, 16, false, NONE, NULL, kvant_split_q5_0, F16, false},
    {KVANT_W_Q5_1, "Q5_1", 32, 24, 5, 32, 0, true, NONE, NULL, kvant_split_q5_1, F16, false},
    {KVANT_W_Q8_0, "Q8_0", 32, 34, 8, 32, 0, false, NONE, NULL, kvant_split_q8_0, F16, false},
    {KVANT_W_Q2_K, "Q2_K", 256, 84, 2, 16, 0, true, KVANT_SUB_U4, NULL, kvant_split_q2_k, F16, false},
    {KVANT_W_Q3_K, "Q3_K", 256, 110, 3, 16, 4, false, KVANT_SUB_I8, NULL, kvant_split_q3_k, F16, false},
    {KVANT_W_Q4_K, "Q4_K", 256, 144, 4, 32, 0, true, KVANT_SUB_U8, NULL, kvant_split_q4_k, F16, false},
    {KVANT_W_Q5_K, "Q5_K", 256, 176, 5, 32, 0, true, KVANT_SUB_U8, NULL, kvant_split_q5_k, F16, false},
    {KVANT_W_Q6_K, "Q6_K", 256, 210, 6, 16, 32, false, KVANT_SUB_I8, NULL, kvant_split_q6_k, F16, false},
    {KVANT_W_IQ4_NL, "IQ4_NL", 32, 18, 4, 32, 0, false, NONE, iq4_levels, kvant_split_iq4_nl, F16, false},
    {KVANT_W_IQ4_XS, "IQ4_XS", 256, 136, 4, 32, 0, false, KVANT_SUB_I8, iq4_levels, kvant_split_iq4_xs, F16, false},
    {KVANT_W_MXFP4, "MXFP4", 32, 17, 4, 32, 0, false, KVANT_SUB_E8M0, kvant_fp4_levels, kvant_split_mxfp4, F16, false},
};

const kvant_weight_format *kvant_weight_format_find(uint32_t type) {
    if (kvant_mlx_is(type)) return kvant_weight_format_find_mlx(type);
    for (size_t i = 0; i < sizeof formats / sizeof formats[0]; i++)
        if (formats[i].type == type) return &formats[i];
    return NULL;
}

// SPDX-License-Identifier: MIT
/* weight_formats.h: the table of weight formats, and what one block of a file holds once it is taken apart.
 *
 * Every quantized format of GGUF says: value = scale * code + bias, for sub-blocks of 16 or 32 neighbours, where scale and bias
 * come from small integers times a half float of the block. So a format is a row of traits and one function `split`;
 * decoding (weight_decode.c) and repacking (weight_repack.c) are derived from it.
 * Layouts: ggml's quantization formats, as GGUF stores them. */
#ifndef KVANT_WEIGHT_WEIGHT_FORMATS_H
#define KVANT_WEIGHT_WEIGHT_FORMATS_H

#include "weight/weight.h"

#define KVANT_WEIGHT_BLOCK_MAX 256
#define KVANT_WEIGHT_SUBS_MAX 16

/* One block: d and m are binary16; sub_scale and sub_min are the integers that multiply them (unused ones: see the traits). */
typedef struct kvant_weight_block {
    uint8_t codes[KVANT_WEIGHT_BLOCK_MAX];
    uint16_t d, m;
    uint8_t sub_scale[KVANT_WEIGHT_SUBS_MAX]; /* int8 where the traits say signed; an exponent for KVANT_SUB_E8M0 */
    uint8_t sub_min[KVANT_WEIGHT_SUBS_MAX];
} kvant_weight_block;

typedef enum kvant_sub_kind {
    KVANT_SUB_NONE, /* scale = d */
    KVANT_SUB_U8,   /* scale = d * sub_scale, bias = -m * sub_min */
    KVANT_SUB_U4,   /* scale = d * (sub_scale & 15), bias = -m * (sub_scale >> 4); sub_min is unused */
    KVANT_SUB_I8,   /* scale = d * (int8) sub_scale */
    KVANT_SUB_E8M0  /* scale = 2^(sub_scale - 128); d is unused */
} kvant_sub_kind;

typedef struct kvant_weight_format {
    kvant_weight_type type;
    const char *name;
    int block_elements, block_bytes;
    int code_bits;       /* 2..6, 8 (codes are int8 then), 0 for the float types */
    int sub_elements;    /* neighbours that share a scale: 16 or 32 */
    int zero_point;      /* subtracted from the code: bias = -zero_point * scale */
    bool has_min;        /* bias from m: + m without subs, - m * sub_min with them */
    kvant_sub_kind sub;
    const int8_t *table; /* NULL, or the 16 levels that codes stand for */
    void (*split)(const uint8_t *src, kvant_weight_block *out);
} kvant_weight_format;

/* NULL: a type that Kvant does not read. */
const kvant_weight_format *kvant_weight_format_find(uint32_t type);

void kvant_split_q4_0(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q4_1(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q5_0(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q5_1(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q8_0(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q2_k(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q3_k(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q4_k(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q5_k(const uint8_t *src, kvant_weight_block *out);
void kvant_split_q6_k(const uint8_t *src, kvant_weight_block *out);
void kvant_split_iq4_nl(const uint8_t *src, kvant_weight_block *out);
void kvant_split_iq4_xs(const uint8_t *src, kvant_weight_block *out);
void kvant_split_mxfp4(const uint8_t *src, kvant_weight_block *out);

#endif

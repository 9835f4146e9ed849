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

/* One block: d and m are the bits of a binary16 (or of the format's `scale` type); sub_scale and sub_min are the integers that
 * multiply them (unused ones: see the traits). */
typedef struct kvant_weight_block {
    uint8_t codes[KVANT_WEIGHT_BLOCK_MAX];
    uint32_t d, m;
    uint8_t sub_scale[KVANT_WEIGHT_SUBS_MAX]; /* int8 where the traits say signed; an exponent for KVANT_SUB_E8M0 */
    uint8_t sub_min[KVANT_WEIGHT_SUBS_MAX];
} kvant_weight_block;

/* How d and m are stored. */
typedef enum kvant_scale_kind { KVANT_SCALE_F16, KVANT_SCALE_BF16, KVANT_SCALE_F32 } kvant_scale_kind;

typedef enum kvant_sub_kind {
    KVANT_SUB_NONE, /* scale = d */
    KVANT_SUB_U8,   /* scale = d * sub_scale, bias = -m * sub_min */
    KVANT_SUB_U4,   /* scale = d * (sub_scale & 15), bias = -m * (sub_scale >> 4); sub_min is unused */
    KVANT_SUB_I8,   /* scale = d * (int8) sub_scale */
    KVANT_SUB_E8M0  /* scale = 2^(sub_scale - 128); d is unused */
} kvant_sub_kind;

typedef struct kvant_weight_format {
    uint32_t type;
    const char *name;
    int block_elements, block_bytes;
    int code_bits;       /* 2..6, 8 (codes are int8 then), 0 for the float types */
    int sub_elements;    /* neighbours that share a scale: 16 or 32 */
    int zero_point;      /* subtracted from the code: bias = -zero_point * scale (+ m where has_min) */
    bool has_min;        /* bias from m: + m without subs, - m * sub_min with them */
    kvant_sub_kind sub;
    const int8_t *table; /* NULL, or the 16 levels that codes stand for */
    void (*split)(const uint8_t *src, kvant_weight_block *out);
    kvant_scale_kind scale;
    bool apart;          /* scales lie apart from the codes (MLX, weight_mlx.c) */
} kvant_weight_format;

/* NULL: a type that Kvant does not read. */
const kvant_weight_format *kvant_weight_format_find(uint32_t type);
/* The same for the numbers of base/mlx_type.h. */
const kvant_weight_format *kvant_weight_format_find_mlx(uint32_t type);

extern const int8_t kvant_fp4_levels[16];

static inline size_t kvant_scale_bytes(kvant_scale_kind kind) { return kind == KVANT_SCALE_F32 ? 4 : 2; }

/* Block `index` of row `row`. */
void kvant_split_source(const kvant_weight_format *f, const kvant_weight_source *source, int64_t row, int64_t index,
                        kvant_weight_block *out);

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

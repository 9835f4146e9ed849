// SPDX-License-Identifier: MIT
/* codec_ggml.c: the cache formats of llama.cpp: q8_0, q5_1, q5_0, q4_1, q4_0, for comparisons.
 *
 * A part is 64 rows, one for each token, of ggml's own blocks of 32 elements, byte for byte (all numbers little-endian):
 *   binary16 scale; q5_1, q4_1: binary16 minimum; q5_1, q5_0: 32-bit mask, bit i = bit 4 of code i;
 *   codes: byte i = code i (low nibble) and code i + 16 (high nibble); q8_0: one signed byte an element.
 * A value is scale * (code - zero), zero the middle of the codes, or scale * code + minimum. Codes and scales are those of ggml's
 * reference quantizers for any vector of finite binary16 range; what lies beyond is limited to it, so that nothing stored is
 * infinite.
 *
 * Attention expands halves of blocks into float panels: right before fast. Not here: the rotation itself (cache/transform.h). */
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "codec/codec.h"

#define ROWS KVANT_PANEL_ROWS
#define TOKENS KVANT_PAGE_TOKENS
#define BLOCK 32
#define HALF 16
#define MASK_BYTES 4
#define ROTATION 64 /* llama.cpp rotates vectors that blocks of 64 divide */

static bool has_minimum(const kvant_format *f) { return f->group == 1; }

/* Where the mask and the codes of a block begin, and where it ends. */
static size_t mask_at(const kvant_format *f) { return has_minimum(f) ? 4 : 2; }

static size_t codes_at(const kvant_format *f) { return mask_at(f) + (f->bits == 5 ? MASK_BYTES : 0); }

static size_t block_bytes(const kvant_format *f) { return codes_at(f) + (f->bits == 8 ? BLOCK : BLOCK / 2); }

static size_t row_bytes(const kvant_part *part) { return (size_t)(part->head_dim / BLOCK) * block_bytes(&part->format); }

static kvant_status check_ggml(const kvant_format *f, int head_dim, kvant_error *err) {
    char name[KVANT_FORMAT_NAME_MAX];
    if (head_dim > 0 && head_dim <= KVANT_HEAD_DIM_MAX && head_dim % BLOCK == 0) return KVANT_OK;
    kvant_format_name(f, name);
    return kvant_fail(err, KVANT_EUNSUPPORTED, "format %s: head_dim %d is not a multiple of 32 up to %d; the nearest format is f16", name,
                      head_dim, KVANT_HEAD_DIM_MAX);
}

static size_t part_bytes(const kvant_format *f, kvant_side side, int head_dim) {
    (void)side;
    return TOKENS * (size_t)(head_dim / BLOCK) * block_bytes(f);
}

static kvant_query_form form(const kvant_format *f) {
    (void)f;
    return KVANT_QUERY_FLOAT;
}

/* llama.cpp's: where 64 divides head_dim, keys by its largest power of two, values by 64. */
static kvant_rotation rotation(const kvant_format *f, kvant_side side, int head_dim) {
    (void)f;
    if (head_dim % ROTATION != 0) return (kvant_rotation){0};
    return (kvant_rotation){.block = side == KVANT_SIDE_K ? head_dim & -head_dim : ROTATION};
}

/* ---- encoding ---- */

/* 1 / scale, 0 where there is none: below 2^-128 it would be infinite, and the scale is stored as 0 anyway. */
static float inverse_of(float scale) { return fabsf(scale) > 0x1p-128f ? 1.0f / scale : 0.0f; }

static int limit(int code, int most) { return code < 0 ? 0 : code > most ? most : code; }

/* The whole range of codes between the least and the largest value. */
static void encode_between(const kvant_format *f, const float *x, uint8_t *block, uint8_t *code) {
    int most = (1 << f->bits) - 1;
    float low = x[0], high = x[0];
    for (int i = 1; i < BLOCK; i++) {
        if (x[i] < low) low = x[i];
        if (x[i] > high) high = x[i];
    }
    float scale = (high - low) / (float)most, inverse = inverse_of(scale);
    for (int i = 0; i < BLOCK; i++)
        code[i] = (uint8_t)limit((int)((x[i] - low) * inverse + 0.5f), most);
    kvant_write_u16(block, kvant_f32_to_f16(scale));
    kvant_write_u16(block + 2, kvant_f32_to_f16(low));
}

/* The value that is largest in magnitude, the first of equals, gets code 0: it is exact but for the rounding of the scale. */
static void encode_around(const kvant_format *f, const float *x, uint8_t *block, uint8_t *code) {
    int zero = 1 << (f->bits - 1);
    float largest = 0.0f;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > fabsf(largest)) largest = x[i];
    float scale = largest / (float)-zero, inverse = inverse_of(scale);
    for (int i = 0; i < BLOCK; i++)
        code[i] = (uint8_t)limit((int)(x[i] * inverse + ((float)zero + 0.5f)), 2 * zero - 1);
    kvant_write_u16(block, kvant_f32_to_f16(scale));
}

/* Ties round away from zero. */
static void encode_bytes(const float *x, uint8_t *block, uint8_t *code) {
    float largest = 0.0f;
    for (int i = 0; i < BLOCK; i++)
        if (fabsf(x[i]) > largest) largest = fabsf(x[i]);
    float scale = largest / 127.0f, inverse = inverse_of(scale);
    for (int i = 0; i < BLOCK; i++)
        code[i] = (uint8_t)(int)roundf(x[i] * inverse);
    kvant_write_u16(block, kvant_f32_to_f16(scale));
}

static void put_codes(const kvant_format *f, uint8_t *block, const uint8_t *code) {
    uint8_t *at = block + codes_at(f);
    uint32_t mask = 0;
    if (f->bits == 8) {
        memcpy(at, code, BLOCK);
        return;
    }
    for (int i = 0; i < HALF; i++)
        at[i] = (uint8_t)((code[i] & 15) | code[HALF + i] << 4);
    for (int i = 0; i < BLOCK; i++)
        mask |= (uint32_t)(code[i] >> 4) << i;
    if (f->bits == 5) kvant_write_u32(block + mask_at(f), mask);
}

static void encode(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    (void)k;
    const kvant_format *f = &part->format;
    uint8_t *block = bytes + (size_t)slot * row_bytes(part), code[BLOCK];
    float y[BLOCK];
    for (int b = 0; b < part->head_dim; b += BLOCK, block += block_bytes(f)) {
        for (int i = 0; i < BLOCK; i++) {
            y[i] = x[b + i] < 65504.0f ? x[b + i] : 65504.0f;
            y[i] = y[i] > -65504.0f ? y[i] : -65504.0f;
            if (isnan(x[b + i])) y[i] = 0.0f;
        }
        if (f->bits == 8)
            encode_bytes(y, block, code);
        else if (has_minimum(f))
            encode_between(f, y, block, code);
        else
            encode_around(f, y, block, code);
        put_codes(f, block, code);
    }
}

/* ---- reading ---- */

/* Elements 0..15 (half 0) or 16..31 (half 1) of a block. */
static void expand_half(const kvant_format *f, const uint8_t *block, int half, float *restrict y) {
    const uint8_t *code = block + codes_at(f);
    float scale = kvant_f16_to_f32(kvant_read_u16(block)), minimum = 0.0f;
    if (f->bits == 8) {
        for (int i = 0; i < HALF; i++)
            y[i] = scale * (float)(int8_t)code[HALF * half + i];
        return;
    }
    uint32_t mask = f->bits == 5 ? kvant_read_u32(block + mask_at(f)) >> (HALF * half) : 0;
    int zero = has_minimum(f) ? 0 : 1 << (f->bits - 1);
    if (has_minimum(f)) minimum = kvant_f16_to_f32(kvant_read_u16(block + 2));
    for (int i = 0; i < HALF; i++)
        y[i] = scale * (float)((int)((code[i] >> 4 * half & 15u) | (mask >> i & 1u) << 4) - zero);
    for (int i = 0; i < HALF && has_minimum(f); i++)
        y[i] += minimum;
}

static const uint8_t *block_of(const kvant_part *part, const uint8_t *bytes, int slot, int half) {
    return bytes + (size_t)slot * row_bytes(part) + (size_t)(half / 2) * block_bytes(&part->format);
}

static void decode(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    (void)k;
    for (int h = 0; h * HALF < part->head_dim; h++)
        expand_half(&part->format, block_of(part, bytes, slot, h), h % 2, x + h * HALF);
}

static void score(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s) {
    float y[HALF];
    kvant_fetch_next(s);
    memset(scores, 0, (size_t)q->n * TOKENS * sizeof(float));
    for (int first = 0; first < TOKENS; first += ROWS) {
        for (int r = 0; r < ROWS; r++)
            for (int h = 0; h * HALF < part->head_dim; h++) {
                expand_half(&part->format, block_of(part, bytes, first + r, h), h % 2, y);
                for (int i = 0; i < HALF; i++)
                    s->tile_f32[(h * HALF + i) * ROWS + r] = y[i];
            }
        kvant_product_f32 args = {s->tile_f32, part->head_dim, q->n, q->x, (size_t)q->head_dim, scores + first, TOKENS};
        k->product_f32(&args);
    }
}

static void mix(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc, size_t acc_stride,
                const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact; /* floats always */
    kvant_fetch_next(s);
    for (int h = 0; h * HALF < part->head_dim; h++) {
        for (int t = 0; t < TOKENS; t++)
            expand_half(&part->format, block_of(part, bytes, t, h), h % 2, s->tile_f32 + t * ROWS);
        kvant_product_f32 args = {s->tile_f32, TOKENS, n, weights, TOKENS, acc + h * HALF, acc_stride};
        k->product_f32(&args);
    }
}

const kvant_codec kvant_codec_ggml = {KVANT_CODEC_GGML, "q", check_ggml, part_bytes, form, rotation, encode, decode, score, mix};

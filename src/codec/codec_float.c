// SPDX-License-Identifier: MIT
/* codec_float.c: f16 and f32: vectors stored as floats, for reference and for tokens that are not quantized yet.
 *
 * K: four panels [head_dim][16 tokens]. V: panels [64 tokens][16 elements], head_dim rounded up to 16. */
#include <string.h>

#include "base/half.h"
#include "codec/codec.h"

#define ROWS KVANT_PANEL_ROWS

static kvant_status check_float(const kvant_format *f, int head_dim, kvant_error *err) {
    (void)f;
    if (head_dim >= 1 && head_dim <= KVANT_HEAD_DIM_MAX) return KVANT_OK;
    return kvant_fail(err, KVANT_EUNSUPPORTED, "head_dim: found %d, expected 1 to %d", head_dim, KVANT_HEAD_DIM_MAX);
}

static size_t part_elements(kvant_side side, int head_dim) {
    size_t d = (size_t)head_dim;
    return KVANT_PAGE_TOKENS * (side == KVANT_SIDE_K ? d : (d + ROWS - 1) / ROWS * ROWS);
}

static size_t part_bytes_f16(const kvant_format *f, kvant_side side, int head_dim) {
    (void)f;
    return 2 * part_elements(side, head_dim);
}

static size_t part_bytes_f32(const kvant_format *f, kvant_side side, int head_dim) {
    (void)f;
    return 4 * part_elements(side, head_dim);
}

static kvant_query_form float_form(const kvant_format *f) {
    (void)f;
    return KVANT_QUERY_FLOAT;
}

/* Where element i of a slot lies, counted in elements. */
static size_t element_at(const kvant_part *part, int slot, int i) {
    size_t s = (size_t)slot, e = (size_t)i;
    if (part->side == KVANT_SIDE_K) return (s / ROWS * (size_t)part->head_dim + e) * ROWS + s % ROWS;
    return (e / ROWS * KVANT_PAGE_TOKENS + s) * ROWS + e % ROWS;
}

/* A half float cannot hold more than 65504; an infinity would turn whole rows of scores into NaN. */
void kvant_round_to_half(uint16_t *y, const float *x, int n, const kvant_kernels *k) {
    uint32_t top = 0;
    k->f32_to_f16(y, x, n);
    for (int i = 0; i < n; i++)
        top |= (y[i] & 0x7FFFu) + 0x400u; /* bit 15: the exponent is that of infinity and NaN */
    for (int i = 0; i < n && (top & 0x8000u); i++)
        if ((y[i] & 0x7FFFu) >= 0x7C00u) y[i] = (y[i] & 0x7FFFu) == 0x7C00u ? (uint16_t)(y[i] - 1) : 0;
}

static void encode_f16(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    uint16_t *y = (uint16_t *)(void *)bytes, half[KVANT_HEAD_DIM_MAX];
    kvant_round_to_half(half, x, part->head_dim, k);
    for (int i = 0; i < part->head_dim; i++)
        y[element_at(part, slot, i)] = half[i];
}

static void decode_f16(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    (void)k;
    const uint16_t *y = (const uint16_t *)(const void *)bytes;
    for (int i = 0; i < part->head_dim; i++)
        x[i] = kvant_f16_to_f32(y[element_at(part, slot, i)]);
}

static void encode_f32(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k) {
    (void)k;
    float *y = (float *)(void *)bytes;
    for (int i = 0; i < part->head_dim; i++)
        y[element_at(part, slot, i)] = x[i];
}

static void decode_f32(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k) {
    (void)k;
    const float *y = (const float *)(const void *)bytes;
    for (int i = 0; i < part->head_dim; i++)
        x[i] = y[element_at(part, slot, i)];
}

typedef void (*product_fn)(const kvant_product_f32 *p);

static void score_float(const kvant_part *part, const uint8_t *bytes, size_t size, const kvant_query *q, float *scores,
                        product_fn product) {
    memset(scores, 0, (size_t)q->n * KVANT_PAGE_TOKENS * sizeof(float));
    size_t panel = (size_t)part->head_dim * ROWS * size;
    for (int p = 0; p < KVANT_PAGE_TOKENS / ROWS; p++) {
        kvant_product_f32 args = {bytes + (size_t)p * panel, part->head_dim,   q->n, q->x, (size_t)q->head_dim,
                                  scores + p * ROWS,         KVANT_PAGE_TOKENS};
        product(&args);
    }
}

static void mix_float(const kvant_part *part, const uint8_t *bytes, size_t size, const float *weights, int n, float *acc,
                      size_t acc_stride, product_fn product) {
    size_t panel = KVANT_PAGE_TOKENS * ROWS * size;
    for (int p = 0; p * ROWS < part->head_dim; p++) {
        kvant_product_f32 args = {bytes + (size_t)p * panel, KVANT_PAGE_TOKENS, n,         weights,
                                  KVANT_PAGE_TOKENS,         acc + p * ROWS,    acc_stride};
        product(&args);
    }
}

static void score_f16(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                      kvant_codec_scratch *s) {
    (void)s;
    score_float(part, bytes, 2, q, scores, k->product_f16);
}

static void score_f32(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                      kvant_codec_scratch *s) {
    (void)s;
    score_float(part, bytes, 4, q, scores, k->product_f32);
}

static void mix_f16(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                    size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact;
    (void)s;
    mix_float(part, bytes, 2, weights, n, acc, acc_stride, k->product_f16);
}

static void mix_f32(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                    size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s) {
    (void)exact;
    (void)s;
    mix_float(part, bytes, 4, weights, n, acc, acc_stride, k->product_f32);
}

const kvant_codec kvant_codec_f16 = {KVANT_CODEC_F16,     "f16",      check_float, part_bytes_f16, float_form,
                                     kvant_rotation_none, encode_f16, decode_f16,  score_f16,      mix_f16};
const kvant_codec kvant_codec_f32 = {KVANT_CODEC_F32,     "f32",      check_float, part_bytes_f32, float_form,
                                     kvant_rotation_none, encode_f32, decode_f32,  score_f32,      mix_f32};

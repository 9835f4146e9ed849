// SPDX-License-Identifier: MIT
/* codec_list.c: the list of codecs, the scratch they share, and the rounding of queries to integers. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "codec/codec.h"

static const kvant_codec *const codecs[] = {&kvant_codec_f32, &kvant_codec_f16, &kvant_codec_affine};

const kvant_codec *kvant_codec_find(kvant_codec_id id) {
    for (size_t i = 0; i < sizeof codecs / sizeof codecs[0]; i++)
        if (codecs[i]->id == id) return codecs[i];
    return NULL;
}

kvant_part kvant_part_make(const kvant_format *f, kvant_side side, int head_dim) {
    const kvant_codec *codec = kvant_codec_find(f->codec);
    size_t bytes = codec->part_bytes(f, side, head_dim);
    return (kvant_part){codec, *f, side, head_dim, (bytes + 63) / 64 * 64};
}

kvant_status kvant_codec_scratch_create(int head_dim, kvant_codec_scratch *out) {
    size_t d = ((size_t)head_dim + 31) / 32 * 32, tokens = KVANT_PAGE_TOKENS, n = KVANT_QUERY_MAX;
    size_t longest = d > tokens ? d : tokens;
    size_t sizes[] = {tokens * d, longest * 16 * 4, tokens * d / 32 * 4, tokens * d / 32 * 4, n * tokens * 4, longest * 4,
                      2 * n * tokens, 2 * n * 2 * 4, 2 * n * 4 * 2};
    size_t at[sizeof sizes / sizeof sizes[0]], total = 0;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        at[i] = total;
        total += (sizes[i] + 63) / 64 * 64;
    }
    uint8_t *p = kvant_alloc_aligned(total, 1);
    if (!p) return KVANT_ENOMEM;
    *out = (kvant_codec_scratch){.tile = p + at[0], .tile_f32 = (float *)(void *)(p + at[1]), .scale = (float *)(void *)(p + at[2]),
                                 .bias = (float *)(void *)(p + at[3]), .w = (float *)(void *)(p + at[4]),
                                 .residual = (float *)(void *)(p + at[5]), .wq = (int8_t *)(p + at[6]),
                                 .wq_scale = (float *)(void *)(p + at[7]), .wq_sum = (int16_t *)(void *)(p + at[8]), .memory = p};
    return KVANT_OK;
}

void kvant_codec_scratch_destroy(kvant_codec_scratch *s) {
    kvant_free_aligned(s->memory);
    *s = (kvant_codec_scratch){0};
}

void kvant_quantize_halves(const kvant_kernels *k, const float *x, int n, int n_half, int8_t *q[2], float *scale[2],
                           int16_t *sum[2], float *residual) {
    k->quantize_q8(q[0], scale[0], sum[0], x, n);
    if (n_half < 2) return;
    for (int b = 0; b < n; b += KVANT_BLOCK)
        for (int i = b; i < b + KVANT_BLOCK; i++) residual[i] = x[i] - scale[0][b / KVANT_BLOCK] * (float)q[0][i];
    k->quantize_q8(q[1], scale[1], sum[1], residual, n);
}

void kvant_query_prepare(kvant_query *q, const kvant_kernels *k, float *residual) {
    if (q->n_half == 0) return;
    size_t d = (size_t)q->head_dim, n = (size_t)q->n;
    for (size_t i = 0; i < n; i++) {
        int8_t *codes[2] = {q->q + i * d, q->q + (n + i) * d};
        float *scale[2] = {q->q_scale + i * (d / 32), q->q_scale + (n + i) * (d / 32)};
        int16_t *sum[2] = {q->q_sum + i * (d / 16), q->q_sum + (n + i) * (d / 16)};
        kvant_quantize_halves(k, q->x + i * d, q->head_dim, q->n_half, codes, scale, sum, residual);
    }
}

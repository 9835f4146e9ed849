// SPDX-License-Identifier: MIT
/* kernel_product_avx512.c: products of panels with AVX-512 F, BW, VL and VNNI.
 *
 * A register holds a chunk of a tile (4 columns of all 16 rows), and vpdpbusd adds its product with 4 bytes of x to 16 sums.
 * It takes unsigned codes: signed ones get 128 added, and 128 times the sum of x is subtracted beforehand.
 *
 * Not here: unpacking (kernel_unpack_avx512.c). */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <stdbool.h>
#include <string.h>

#include "kernel/x86/kernel_avx512.h"

#define ROWS KVANT_PANEL_ROWS
#define CHUNK 64 /* bytes of a tile for 4 columns: [16 rows][4 columns] */
#define MAX_COLUMNS 8
#define MAX_SPLIT 4

static const float ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

AVX512_INLINE __m512i broadcast_4_bytes(const int8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm512_set1_epi32(v);
}

/* The product of the whole tile with `columns` vectors from vector `first_column` on. Few vectors split each integer sum into
 * `split`, so that an addition need not wait for the one before it; integers add up to the same in any order. */
AVX512_INLINE void product_columns(const kvant_product_q8 *p, int first_column, int per_block, bool is_signed, int columns,
                                   int split) {
    const size_t x_stride = p->x_stride, scale_stride = p->x_scale_stride, acc_stride = p->acc_stride;
    const int8_t *x = p->x + (size_t)first_column * x_stride;
    const float *x_scale = p->x_scale + (size_t)first_column * scale_stride;
    const int16_t *x_sum = p->x_sum + (size_t)first_column * 2 * scale_stride;
    float *acc = p->acc + (size_t)first_column * acc_stride;
    const uint8_t *tile = p->tile;
    const float *scale = p->scale ? p->scale : ones, *bias = p->bias;
    const size_t scale_step = p->scale ? ROWS : 0;
    const int n_scale = p->n_block * (KVANT_BLOCK / per_block);
    const __m512i offset = _mm512_set1_epi8((char)0x80);
    __m512 total[MAX_COLUMNS];
    UNROLL for (int c = 0; c < columns; c++) total[c] = _mm512_loadu_ps(acc + (size_t)c * acc_stride);
    for (int b = 0; b < n_scale; b++) {
        __m512i sum[MAX_COLUMNS][MAX_SPLIT];
        int sum_x[MAX_COLUMNS];
        UNROLL for (int c = 0; c < columns; c++) {
            const int16_t *sums = x_sum + (size_t)c * 2 * scale_stride;
            sum_x[c] = per_block == 16 ? sums[b] : sums[2 * b] + sums[2 * b + 1];
            sum[c][0] = is_signed ? _mm512_set1_epi32(-128 * sum_x[c]) : _mm512_setzero_si512();
            UNROLL for (int s = 1; s < split; s++) sum[c][s] = _mm512_setzero_si512();
        }
        UNROLL for (int i = 0; i < per_block / 4; i++) {
            __m512i codes = _mm512_load_si512((const void *)(tile + (size_t)i * CHUNK));
            if (is_signed) codes = _mm512_xor_si512(codes, offset);
            UNROLL for (int c = 0; c < columns; c++) {
                __m512i v = broadcast_4_bytes(x + (size_t)c * x_stride + i * 4);
                sum[c][i % split] = _mm512_dpbusd_epi32(sum[c][i % split], codes, v);
            }
        }
        __m512 s = _mm512_loadu_ps(scale);
        const int b32 = per_block == 16 ? b / 2 : b;
        UNROLL for (int c = 0; c < columns; c++) {
            UNROLL for (int i = 1; i < split; i++) sum[c][0] = _mm512_add_epi32(sum[c][0], sum[c][i]);
            __m512 factor = _mm512_mul_ps(s, _mm512_set1_ps(x_scale[(size_t)c * scale_stride + (size_t)b32]));
            total[c] = _mm512_fmadd_ps(factor, _mm512_cvtepi32_ps(sum[c][0]), total[c]);
        }
        if (bias) {
            __m512 v = _mm512_loadu_ps(bias);
            UNROLL for (int c = 0; c < columns; c++) {
                float bias_x = x_scale[(size_t)c * scale_stride + (size_t)b32] * (float)sum_x[c];
                total[c] = _mm512_fmadd_ps(v, _mm512_set1_ps(bias_x), total[c]);
            }
            bias += ROWS;
        }
        tile += (size_t)per_block / 4 * CHUNK;
        x += per_block;
        scale += scale_step;
    }
    UNROLL for (int c = 0; c < columns; c++) _mm512_storeu_ps(acc + (size_t)c * acc_stride, total[c]);
}

AVX512_INLINE void product_all_columns(const kvant_product_q8 *p, int per_block, bool is_signed) {
    int c = 0;
    for (; c + 8 <= p->n; c += 8)
        product_columns(p, c, per_block, is_signed, 8, 1);
    if (c + 4 <= p->n) {
        product_columns(p, c, per_block, is_signed, 4, 2);
        c += 4;
    }
    if (c + 2 <= p->n) {
        product_columns(p, c, per_block, is_signed, 2, 4);
        c += 2;
    }
    if (c < p->n) product_columns(p, c, per_block, is_signed, 1, 4);
}

AVX512 static void product_u16(const kvant_product_q8 *p) { product_all_columns(p, 16, false); }
AVX512 static void product_u32(const kvant_product_q8 *p) { product_all_columns(p, 32, false); }
AVX512 static void product_s16(const kvant_product_q8 *p) { product_all_columns(p, 16, true); }
AVX512 static void product_s32(const kvant_product_q8 *p) { product_all_columns(p, 32, true); }

static void avx512_product_u(const kvant_product_q8 *p) {
    if (p->scale_block == 16)
        product_u16(p);
    else
        product_u32(p);
}

static void avx512_product_s(const kvant_product_q8 *p) {
    if (p->scale_block == 16)
        product_s16(p);
    else
        product_s32(p);
}

/* ---- float products ---- */

#define FLOAT_COLUMNS 12

AVX512_INLINE void float_columns(const kvant_product_f32 *p, bool is_half, int first_column, int columns) {
    const size_t x_stride = p->x_stride, acc_stride = p->acc_stride;
    const float *x = p->x + (size_t)first_column * x_stride, *t = p->tile;
    const uint16_t *half = p->tile;
    float *acc = p->acc + (size_t)first_column * acc_stride;
    __m512 total[FLOAT_COLUMNS];
    UNROLL for (int c = 0; c < columns; c++) total[c] = _mm512_loadu_ps(acc + (size_t)c * acc_stride);
    for (size_t j = 0; j < (size_t)p->k; j++) {
        __m512 v = is_half ? _mm512_cvtph_ps(_mm256_load_si256((const __m256i *)(half + j * ROWS)))
                           : _mm512_load_ps(t + j * ROWS);
        UNROLL for (int c = 0; c < columns; c++)
            total[c] = _mm512_fmadd_ps(v, _mm512_set1_ps(x[(size_t)c * x_stride + j]), total[c]);
    }
    UNROLL for (int c = 0; c < columns; c++) _mm512_storeu_ps(acc + (size_t)c * acc_stride, total[c]);
}

AVX512_INLINE void float_product(const kvant_product_f32 *p, bool is_half) {
    int c = 0;
    for (; c + FLOAT_COLUMNS <= p->n; c += FLOAT_COLUMNS)
        float_columns(p, is_half, c, FLOAT_COLUMNS);
    for (; c + 4 <= p->n; c += 4)
        float_columns(p, is_half, c, 4);
    switch (p->n - c) {
    case 3: float_columns(p, is_half, c, 3); break;
    case 2: float_columns(p, is_half, c, 2); break;
    case 1: float_columns(p, is_half, c, 1); break;
    default: break;
    }
}

AVX512 static void avx512_product_f32(const kvant_product_f32 *p) { float_product(p, false); }
AVX512 static void avx512_product_f16(const kvant_product_f32 *p) { float_product(p, true); }

/* ---- tiles to floats ---- */

AVX512_INLINE void tile_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                               int n_block, bool is_signed) {
    const int chunks_a_scale = scale_block / 4, n_chunk = n_block * 8;
    __m512 s = _mm512_set1_ps(1.0f), b = _mm512_setzero_ps();
    for (int i = 0; i < n_chunk; i++) {
        size_t at = (size_t)(i / chunks_a_scale) * ROWS;
        if (scale) s = _mm512_loadu_ps(scale + at);
        if (bias) b = _mm512_loadu_ps(bias + at);
        __m512i codes = _mm512_load_si512((const void *)(tile + (size_t)i * CHUNK));
        UNROLL for (int j = 0; j < 4; j++) {
            __m512i top = _mm512_slli_epi32(codes, (unsigned)(24 - 8 * j));
            __m512i code = is_signed ? _mm512_srai_epi32(top, 24) : _mm512_srli_epi32(top, 24);
            _mm512_storeu_ps(out + ((size_t)i * 4 + (size_t)j) * ROWS, _mm512_fmadd_ps(s, _mm512_cvtepi32_ps(code), b));
        }
    }
}

AVX512 static void avx512_tile_u_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                                        int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, false);
}

AVX512 static void avx512_tile_s_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                                        int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, true);
}

void kvant_kernels_set_avx512_product(kvant_kernels *k) {
    k->product_u = avx512_product_u;
    k->product_s = avx512_product_s;
    k->product_f32 = avx512_product_f32;
    k->product_f16 = avx512_product_f16;
    k->tile_u_to_f32 = avx512_tile_u_to_f32;
    k->tile_s_to_f32 = avx512_tile_s_to_f32;
}

void kvant_kernels_set_avx512(kvant_kernels *k) {
    kvant_kernels_set_avx512_product(k);
    kvant_kernels_set_avx512_unpack(k);
    kvant_kernels_set_avx512_vector(k);
    kvant_kernels_set_avx512_levels(k);
}

#else
typedef int kvant_kernel_product_avx512_unused; /* a translation unit must not be empty */
#endif

// SPDX-License-Identifier: MIT
/* kernel_product_avx2.c: products of panels with AVX2, FMA and F16C.
 *
 * Bytes are multiplied by vpmaddubsw, which leaves sums of two products in 16 bits; how many of those may be added before
 * 16 bits overflow depends on the largest code, so the inner loop exists at four depths. A tile is read once for 4 vectors.
 *
 * Not here: unpacking (kernel_unpack_avx2.c). */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernel/x86/kernel_avx2.h"

#define ROWS KVANT_PANEL_ROWS
#define CHUNK 64 /* bytes of a tile for 4 columns: [16 rows][4 columns] */
#define TILE_BLOCK 512
#define MAX_COLUMNS 4
#define BIAS_BLOCKS 32 /* scale blocks whose bias factors are computed together, before they are needed */

static const float ones[ROWS] = {1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1};

AVX2_INLINE __m256i broadcast_4_bytes(const int8_t *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

/* sum[c][h] = the 32-bit sums of 8 rows (half h of the panel) over n_chunk chunks of 4 columns, for `columns` vectors.
 * depth: how many 16-bit pair sums may be added up without overflow; it divides n_chunk. */
AVX2_INLINE void sum_chunks(__m256i sum[MAX_COLUMNS][2], const uint8_t *tile, const int8_t *x, size_t x_stride, int n_chunk,
                            int depth, bool is_signed, int columns) {
    const __m256i one = _mm256_set1_epi16(1);
    UNROLL for (int first = 0; first < n_chunk; first += depth) {
        __m256i pairs[MAX_COLUMNS][2];
        UNROLL for (int i = 0; i < depth; i++) {
            const uint8_t *chunk = tile + (size_t)(first + i) * CHUNK;
            __m256i t0 = _mm256_load_si256((const __m256i *)chunk), t1 = _mm256_load_si256((const __m256i *)(chunk + 32));
            __m256i a0 = is_signed ? _mm256_abs_epi8(t0) : t0, a1 = is_signed ? _mm256_abs_epi8(t1) : t1;
            UNROLL for (int c = 0; c < columns; c++) {
                __m256i v = broadcast_4_bytes(x + (size_t)c * x_stride + (first + i) * 4);
                __m256i m0 = _mm256_maddubs_epi16(a0, is_signed ? _mm256_sign_epi8(v, t0) : v);
                __m256i m1 = _mm256_maddubs_epi16(a1, is_signed ? _mm256_sign_epi8(v, t1) : v);
                pairs[c][0] = i ? _mm256_add_epi16(pairs[c][0], m0) : m0;
                pairs[c][1] = i ? _mm256_add_epi16(pairs[c][1], m1) : m1;
                IN_THIS_ORDER(pairs[c][0]);
                IN_THIS_ORDER(pairs[c][1]);
            }
        }
        UNROLL for (int c = 0; c < columns; c++)
            UNROLL for (int h = 0; h < 2; h++) {
                __m256i wide = _mm256_madd_epi16(pairs[c][h], one);
                sum[c][h] = first ? _mm256_add_epi32(sum[c][h], wide) : wide;
                IN_THIS_ORDER(sum[c][h]);
            }
    }
}

/* out[i] = x_scale * (the sum of x) for n scale blocks from block `first` on, what their biases are multiplied by. */
AVX2 static void bias_factors(float *out, const float *x_scale, const int16_t *x_sum, int first, int n, int per_block) {
    int i = 0;
    if (per_block == 32) {
        for (; i + 8 <= n; i += 8) {
            __m256i pairs = _mm256_loadu_si256((const __m256i *)(x_sum + 2 * (first + i)));
            __m256 sum = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
            _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_loadu_ps(x_scale + first + i), sum));
        }
        for (; i < n; i++)
            out[i] = x_scale[first + i] * (float)(x_sum[2 * (first + i)] + x_sum[2 * (first + i) + 1]);
        return;
    }
    const __m256i twice = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
    for (; i + 8 <= n; i += 8) {
        __m256 sum = _mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128((const __m128i *)(x_sum + first + i))));
        __m256 four = _mm256_castps128_ps256(_mm_loadu_ps(x_scale + (first + i) / 2));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(_mm256_permutevar8x32_ps(four, twice), sum));
    }
    for (; i < n; i++)
        out[i] = x_scale[(first + i) / 2] * (float)x_sum[first + i];
}

/* The product of the whole tile with `columns` vectors from vector `first_column` on. */
AVX2_INLINE void product_columns(const kvant_product_q8 *p, int first_column, int per_block, int depth, bool is_signed,
                                 bool has_bias, int columns) {
    const size_t x_stride = p->x_stride, scale_stride = p->x_scale_stride, acc_stride = p->acc_stride;
    const int8_t *x = p->x + (size_t)first_column * x_stride;
    const float *x_scale = p->x_scale + (size_t)first_column * scale_stride;
    const int16_t *x_sum = p->x_sum + (size_t)first_column * 2 * scale_stride;
    float *acc = p->acc + (size_t)first_column * acc_stride;
    const uint8_t *tile = p->tile;
    const float *scale = p->scale ? p->scale : ones, *bias = p->bias;
    const size_t scale_step = p->scale ? ROWS : 0;
    const int n_scale = p->n_block * (KVANT_BLOCK / per_block);
    __m256 total[MAX_COLUMNS][2];
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int h = 0; h < 2; h++) total[c][h] = _mm256_loadu_ps(acc + (size_t)c * acc_stride + 8 * h);
    float bias_x[MAX_COLUMNS][BIAS_BLOCKS];
    for (int b = 0; b < n_scale; b++) {
        if (has_bias && b % BIAS_BLOCKS == 0)
            for (int c = 0; c < columns; c++)
                bias_factors(bias_x[c], x_scale + (size_t)c * scale_stride, x_sum + (size_t)c * 2 * scale_stride, b,
                             n_scale - b < BIAS_BLOCKS ? n_scale - b : BIAS_BLOCKS, per_block);
        __m256i sum[MAX_COLUMNS][2];
        sum_chunks(sum, tile, x, x_stride, per_block / 4, depth, is_signed, columns);
        __m256 s0 = _mm256_loadu_ps(scale), s1 = _mm256_loadu_ps(scale + 8), b0 = s0, b1 = s1;
        if (has_bias) {
            b0 = _mm256_loadu_ps(bias);
            b1 = _mm256_loadu_ps(bias + 8);
            bias += ROWS;
        }
        const int b32 = per_block == 16 ? b / 2 : b;
        UNROLL for (int c = 0; c < columns; c++) {
            __m256 xs = _mm256_broadcast_ss(x_scale + (size_t)c * scale_stride + b32);
            total[c][0] = _mm256_fmadd_ps(_mm256_mul_ps(s0, xs), _mm256_cvtepi32_ps(sum[c][0]), total[c][0]);
            total[c][1] = _mm256_fmadd_ps(_mm256_mul_ps(s1, xs), _mm256_cvtepi32_ps(sum[c][1]), total[c][1]);
            if (!has_bias) continue;
            __m256 xb = _mm256_broadcast_ss(&bias_x[c][b % BIAS_BLOCKS]);
            total[c][0] = _mm256_fmadd_ps(b0, xb, total[c][0]);
            total[c][1] = _mm256_fmadd_ps(b1, xb, total[c][1]);
        }
        tile += (size_t)per_block / 4 * CHUNK;
        x += per_block;
        scale += scale_step;
    }
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int h = 0; h < 2; h++) _mm256_storeu_ps(acc + (size_t)c * acc_stride + 8 * h, total[c][h]);
}

AVX2_INLINE void product_groups(const kvant_product_q8 *p, int per_block, int depth, bool is_signed, bool has_bias) {
    int c = 0;
    for (; c + 4 <= p->n; c += 4)
        product_columns(p, c, per_block, depth, is_signed, has_bias, 4);
    if (c + 2 <= p->n) {
        product_columns(p, c, per_block, depth, is_signed, has_bias, 2);
        c += 2;
    }
    if (c < p->n) product_columns(p, c, per_block, depth, is_signed, has_bias, 1);
}

AVX2_INLINE void product_all_columns(const kvant_product_q8 *p, int per_block, int depth, bool is_signed) {
    if (p->bias)
        product_groups(p, per_block, depth, is_signed, true);
    else
        product_groups(p, per_block, depth, is_signed, false);
}

AVX2 static void product_u16_deep(const kvant_product_q8 *p) { product_all_columns(p, 16, 4, false); }
AVX2 static void product_u16_two(const kvant_product_q8 *p) { product_all_columns(p, 16, 2, false); }
AVX2 static void product_u32_deep(const kvant_product_q8 *p) { product_all_columns(p, 32, 8, false); }
AVX2 static void product_u32_four(const kvant_product_q8 *p) { product_all_columns(p, 32, 4, false); }
AVX2 static void product_u32_two(const kvant_product_q8 *p) { product_all_columns(p, 32, 2, false); }
AVX2 static void product_s16_deep(const kvant_product_q8 *p) { product_all_columns(p, 16, 4, true); }
AVX2 static void product_s16_one(const kvant_product_q8 *p) { product_all_columns(p, 16, 1, true); }
AVX2 static void product_s32_deep(const kvant_product_q8 *p) { product_all_columns(p, 32, 8, true); }
AVX2 static void product_s32_one(const kvant_product_q8 *p) { product_all_columns(p, 32, 1, true); }

/* A pair sum is at most 254 * code in magnitude, and 16 bits hold 32767: 8 of them up to code 16, 4 to 32, 2 to 64, 1 to 128. */
static void avx2_product_u(const kvant_product_q8 *p) {
    int max_code = p->max_code ? p->max_code : 63;
    if (p->scale_block == 16) {
        if (max_code <= 32)
            product_u16_deep(p);
        else
            product_u16_two(p);
    } else if (max_code <= 16) {
        product_u32_deep(p);
    } else if (max_code <= 32) {
        product_u32_four(p);
    } else {
        product_u32_two(p);
    }
}

static void avx2_product_s(const kvant_product_q8 *p) {
    int max_code = p->max_code ? p->max_code : 128;
    if (p->scale_block == 16) {
        if (max_code <= 32)
            product_s16_deep(p);
        else
            product_s16_one(p);
    } else if (max_code <= 16) {
        product_s32_deep(p);
    } else {
        product_s32_one(p);
    }
}

/* ---- float products ---- */

#define FLOAT_COLUMNS 6 /* 12 sums, 2 registers of the tile and one of x: 15 of 16 registers */

AVX2_INLINE void float_columns(const void *tile, bool is_half, int k, const float *x, size_t x_stride, float *acc,
                               size_t acc_stride, int columns) {
    __m256 total[FLOAT_COLUMNS][2];
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int h = 0; h < 2; h++) total[c][h] = _mm256_loadu_ps(acc + (size_t)c * acc_stride + 8 * h);
    const float *t = tile;
    const uint16_t *half = tile;
    for (int j = 0; j < k; j++) {
        __m256 t0, t1;
        if (is_half) {
            t0 = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)half));
            t1 = _mm256_cvtph_ps(_mm_load_si128((const __m128i *)(half + 8)));
            half += ROWS;
        } else {
            t0 = _mm256_load_ps(t);
            t1 = _mm256_load_ps(t + 8);
            t += ROWS;
        }
        UNROLL for (int c = 0; c < columns; c++) {
            __m256 v = _mm256_broadcast_ss(x + (size_t)c * x_stride + j);
            total[c][0] = _mm256_fmadd_ps(t0, v, total[c][0]);
            total[c][1] = _mm256_fmadd_ps(t1, v, total[c][1]);
        }
    }
    UNROLL for (int c = 0; c < columns; c++)
        UNROLL for (int h = 0; h < 2; h++) _mm256_storeu_ps(acc + (size_t)c * acc_stride + 8 * h, total[c][h]);
}

AVX2_INLINE void float_product(const kvant_product_f32 *p, bool is_half) {
    int c = 0;
    for (; c + FLOAT_COLUMNS <= p->n; c += FLOAT_COLUMNS)
        float_columns(p->tile, is_half, p->k, p->x + (size_t)c * p->x_stride, p->x_stride, p->acc + (size_t)c * p->acc_stride,
                      p->acc_stride, FLOAT_COLUMNS);
    const float *x = p->x + (size_t)c * p->x_stride;
    float *acc = p->acc + (size_t)c * p->acc_stride;
    switch (p->n - c) {
    case 5: float_columns(p->tile, is_half, p->k, x, p->x_stride, acc, p->acc_stride, 5); break;
    case 4: float_columns(p->tile, is_half, p->k, x, p->x_stride, acc, p->acc_stride, 4); break;
    case 3: float_columns(p->tile, is_half, p->k, x, p->x_stride, acc, p->acc_stride, 3); break;
    case 2: float_columns(p->tile, is_half, p->k, x, p->x_stride, acc, p->acc_stride, 2); break;
    case 1: float_columns(p->tile, is_half, p->k, x, p->x_stride, acc, p->acc_stride, 1); break;
    default: break;
    }
}

AVX2 static void avx2_product_f32(const kvant_product_f32 *p) { float_product(p, false); }
AVX2 static void avx2_product_f16(const kvant_product_f32 *p) { float_product(p, true); }

/* ---- tiles to floats ---- */

AVX2_INLINE void tile_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block, int n_block,
                             bool is_signed) {
    const int chunks_a_scale = scale_block / 4, n_chunk = n_block * 8;
    __m256 s[2] = {_mm256_set1_ps(1.0f), _mm256_set1_ps(1.0f)}, b[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int i = 0; i < n_chunk; i++) {
        size_t at = (size_t)(i / chunks_a_scale) * ROWS;
        UNROLL for (int h = 0; h < 2; h++) {
            if (scale) s[h] = _mm256_loadu_ps(scale + at + 8 * h);
            if (bias) b[h] = _mm256_loadu_ps(bias + at + 8 * h);
            __m256i codes = _mm256_load_si256((const __m256i *)(tile + (size_t)i * CHUNK + 32 * h));
            UNROLL for (int j = 0; j < 4; j++) {
                __m256i top = _mm256_slli_epi32(codes, 24 - 8 * j);
                __m256i code = is_signed ? _mm256_srai_epi32(top, 24) : _mm256_srli_epi32(top, 24);
                _mm256_storeu_ps(out + ((size_t)i * 4 + j) * ROWS + 8 * h, _mm256_fmadd_ps(s[h], _mm256_cvtepi32_ps(code), b[h]));
            }
        }
    }
}

AVX2 static void avx2_tile_u_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                                    int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, false);
}

AVX2 static void avx2_tile_s_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                                    int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, true);
}

void kvant_kernels_set_avx2_product(kvant_kernels *k) {
    k->product_u = avx2_product_u;
    k->product_s = avx2_product_s;
    k->product_f32 = avx2_product_f32;
    k->product_f16 = avx2_product_f16;
    k->tile_u_to_f32 = avx2_tile_u_to_f32;
    k->tile_s_to_f32 = avx2_tile_s_to_f32;
}

void kvant_kernels_set_avx2(kvant_kernels *k) {
    kvant_kernels_set_avx2_product(k);
    kvant_kernels_set_avx2_unpack(k);
    kvant_kernels_set_avx2_vector(k);
    kvant_kernels_set_avx2_levels(k);
    kvant_kernels_set_avx2_bytes(k);
    kvant_kernels_set_avx2_attend(k);
}

#else
typedef int kvant_kernel_product_avx2_unused; /* a translation unit must not be empty */
#endif

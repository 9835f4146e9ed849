// SPDX-License-Identifier: MIT
/* kernel_attend_avx2.c: what attention does between its two products, with AVX2 and FMA: the mean's part of scores, and weights
 * in 16 bits. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <string.h>

#include "kernel/x86/kernel_avx2.h"

#define ROWS 64
#define SIDE 32
#define MAX_COLUMNS 3 /* their 12 sums, 2 registers of the table and one of a pair are 15 of 16 registers */

/* Pairs times complex numbers, as the contract rounds them. */
AVX2_INLINE void turn_pairs(float *out, const float *x, const float *e, int n) {
    int i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i), t = _mm256_loadu_ps(e + i);
        __m256 straight = _mm256_mul_ps(v, _mm256_moveldup_ps(t));
        __m256 crossed = _mm256_mul_ps(_mm256_permute_ps(v, 0xB1), _mm256_movehdup_ps(t));
        _mm256_storeu_ps(out + i, _mm256_addsub_ps(straight, crossed));
    }
    for (; i < n; i += 2) {
        out[i] = x[i] * e[i] - x[i + 1] * e[i + 1];
        out[i + 1] = x[i] * e[i + 1] + x[i + 1] * e[i];
    }
}

AVX2_INLINE void add_to(float *scores, __m256 v, float mean) {
    _mm256_storeu_ps(scores, _mm256_add_ps(_mm256_loadu_ps(scores), _mm256_add_ps(v, _mm256_set1_ps(mean))));
}

AVX2_INLINE void mean_columns(const kvant_mean_scores *p, int first, int columns) {
    const __m256i backwards = _mm256_setr_epi32(7, 6, 5, 4, 3, 2, 1, 0);
    const float *side = p->sides;
    float turned[MAX_COLUMNS][2 * KVANT_MEAN_PAIRS];
    for (int c = 0; c < columns; c++)
        turn_pairs(turned[c], p->x + (size_t)(first + c) * p->x_stride, p->centre, 2 * p->n_pair);
    for (int h = 0; h < 2; h++) {
        __m256 even[MAX_COLUMNS][2], odd[MAX_COLUMNS][2];
        UNROLL for (int c = 0; c < columns; c++)
            UNROLL for (int j = 0; j < 2; j++) even[c][j] = odd[c][j] = _mm256_setzero_ps();
        for (int i = 0; i < p->n_pair; i++, side += 32) {
            __m256 t0 = _mm256_loadu_ps(side), t1 = _mm256_loadu_ps(side + 8);
            UNROLL for (int c = 0; c < columns; c++) {
                __m256 re = _mm256_broadcast_ss(&turned[c][2 * i]);
                even[c][0] = _mm256_fmadd_ps(t0, re, even[c][0]);
                even[c][1] = _mm256_fmadd_ps(t1, re, even[c][1]);
            }
            t0 = _mm256_loadu_ps(side + 16);
            t1 = _mm256_loadu_ps(side + 24);
            UNROLL for (int c = 0; c < columns; c++) {
                __m256 im = _mm256_broadcast_ss(&turned[c][2 * i + 1]);
                odd[c][0] = _mm256_fmadd_ps(t0, im, odd[c][0]);
                odd[c][1] = _mm256_fmadd_ps(t1, im, odd[c][1]);
            }
        }
        UNROLL for (int c = 0; c < columns; c++) {
            const float *mean = p->mean + (size_t)(first + c) * p->mean_stride;
            float *after = p->scores + (size_t)(first + c) * ROWS + SIDE + 16 * h, *before = after - 32 * h;
            UNROLL for (int j = 0; j < 2; j++) {
                add_to(after + 8 * j, _mm256_add_ps(even[c][j], odd[c][j]), mean[2 + h]);
                __m256 left = _mm256_permutevar8x32_ps(_mm256_sub_ps(even[c][j], odd[c][j]), backwards);
                add_to(before - 8 * (j + 1), left, mean[1 - h]);
            }
        }
    }
}

AVX2 static void avx2_mean_scores(const kvant_mean_scores *p) {
    int c = 0;
    for (; c + MAX_COLUMNS <= p->n; c += MAX_COLUMNS)
        mean_columns(p, c, MAX_COLUMNS);
    switch (p->n - c) {
    case 2: mean_columns(p, c, 2); break;
    case 1: mean_columns(p, c, 1); break;
    default: break;
    }
}

/* ---- weights ---- */

/* The products stay in registers: one pass finds the largest, the next one divides by it. A NaN in the first operand of a minimum or
 * maximum gives the second. Nothing that is a number is beyond -32767 when it has been rounded. */
AVX2_INLINE float weigh_64(int16_t *q, const float *x, const float *a) {
    const __m256 sign = _mm256_set1_ps(-0.0f), most = _mm256_set1_ps(32767.0f);
    __m256 v[8], m[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    UNROLL for (int i = 0; i < 8; i++) {
        v[i] = _mm256_mul_ps(_mm256_loadu_ps(x + 8 * i), _mm256_loadu_ps(a + 8 * i));
        m[i % 2] = _mm256_max_ps(_mm256_andnot_ps(sign, v[i]), m[i % 2]);
    }
    m[0] = _mm256_max_ps(m[0], m[1]);
    __m128 four = _mm_max_ps(_mm256_castps256_ps128(m[0]), _mm256_extractf128_ps(m[0], 1));
    four = _mm_max_ps(four, _mm_movehl_ps(four, four));
    float largest = _mm_cvtss_f32(_mm_max_ss(four, _mm_movehdup_ps(four)));
    __m256 inverse = _mm256_set1_ps(largest < KVANT_Q8_SMALLEST ? 0.0f : 32767.0f / largest);
    UNROLL for (int i = 0; i < 8; i += 2) {
        __m256i low = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(v[i], inverse), most));
        __m256i high = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_mul_ps(v[i + 1], inverse), most));
        _mm256_storeu_si256((__m256i *)(q + 8 * i), _mm256_permute4x64_epi64(_mm256_packs_epi32(low, high), 0xD8));
    }
    return largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 32767.0f;
}

AVX2 static float avx2_weigh_q16(int16_t *q, const float *x, const float *a, int n) {
    if (n == ROWS) return weigh_64(q, x, a);
    float some_x[ROWS] = {0}, some_a[ROWS] = {0};
    int16_t some[ROWS];
    memcpy(some_x, x, (size_t)n * sizeof *x);
    memcpy(some_a, a, (size_t)n * sizeof *a);
    float scale = weigh_64(some, some_x, some_a);
    memcpy(q, some, (size_t)n * sizeof *q);
    return scale;
}

void kvant_kernels_set_avx2_attend(kvant_kernels *k) {
    k->mean_scores = avx2_mean_scores;
    k->weigh_q16 = avx2_weigh_q16;
}

#else
typedef int kvant_kernel_attend_avx2_unused; /* a translation unit must not be empty */
#endif

// SPDX-License-Identifier: MIT
/* kernel_bytes_avx2.c: rows of levels times queries and weights of 8 bits, with AVX2.
 *
 * vpmaddubsw multiplies 32 bytes at once, those of one operand without sign: levels plus 128, or weights. Neighbours among the
 * queries and weights are so small that no pair of products leaves 16 bits (quantize_pairs, weigh_pairs). What the 128 add is
 * taken away from the sums. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernel/kernel_ref.h"
#include "kernel/x86/kernel_avx2.h"
#include "kernel/x86/kernel_prefetch.h"

#define ROWS 64
#define HALF 16
#define STEP 32 /* levels a register */
#define MAX_D 512

/* ---- queries ---- */

AVX2_INLINE __m256i byte_of(__m256 x, __m256 inverse) {
    __m256 v = _mm256_mul_ps(x, inverse);
    return _mm256_cvtps_epi32(_mm256_and_ps(v, _mm256_cmp_ps(v, v, _CMP_ORD_Q)));
}

/* The positive parts of neighbours, added; a NaN in the first operand of the maximum gives the second. */
AVX2_INLINE __m256 pair_sums(__m256 x) {
    __m256 part = _mm256_max_ps(x, _mm256_setzero_ps());
    return _mm256_add_ps(part, _mm256_permute_ps(part, 0xB1));
}

AVX2 static float avx2_quantize_pairs(int8_t *q, const float *x, int n) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 most = _mm256_setzero_ps();
    for (int i = 0; i < n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        most = _mm256_max_ps(_mm256_max_ps(pair_sums(v), pair_sums(_mm256_xor_ps(v, sign))), most);
    }
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(most), _mm256_extractf128_ps(most, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    float largest = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    __m256 inverse = _mm256_set1_ps(largest < KVANT_Q8_SMALLEST ? 0.0f : 127.0f / largest);
    for (int i = 0; i < n; i += HALF) {
        __m256i a = byte_of(_mm256_loadu_ps(x + i), inverse), b = byte_of(_mm256_loadu_ps(x + i + 8), inverse);
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
        __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(q + i), bytes);
    }
    return largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 127.0f;
}

/* e - 1 = 8 times an exponent of two and the number of an eighth: one is a shift, the other a permutation of the eight. */
AVX2 static void avx2_level_scales(float *scale, const uint8_t *e) {
    const __m256 eighths = _mm256_setr_ps(KVANT_EIGHTHS);
    for (int i = 0; i < ROWS; i += 8) {
        __m256i v = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(e + i)));
        __m256i m = _mm256_sub_epi32(v, _mm256_set1_epi32(1));
        __m256i power = _mm256_slli_epi32(_mm256_sub_epi32(_mm256_srli_epi32(m, 3), _mm256_set1_epi32(20)), 23);
        __m256i bits = _mm256_add_epi32(_mm256_castps_si256(_mm256_permutevar8x32_ps(eighths, m)), power);
        bits = _mm256_andnot_si256(_mm256_cmpeq_epi32(v, _mm256_setzero_si256()), bits);
        _mm256_storeu_ps(scale + i, _mm256_castsi256_ps(bits));
    }
}

/* ---- sums ---- */

/* 32 bytes, or 16 and zeros: nothing beyond them is read. */
AVX2_INLINE __m256i load_bytes(const int8_t *p, bool is_rest) {
    if (!is_rest) return _mm256_loadu_si256((const __m256i *)p);
    return _mm256_inserti128_si256(_mm256_setzero_si256(), _mm_loadu_si128((const __m128i *)p), 0);
}

AVX2_INLINE __m256i plus_128(__m256i levels) { return _mm256_xor_si256(levels, _mm256_set1_epi8(-128)); }

/* Sums of four products in each 32 bits. */
AVX2_INLINE __m256i products_of(__m256i u, __m256i q) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(u, q), _mm256_set1_epi16(1));
}

/* 128 times the sum of each query. */
AVX2 static void sum_queries(int32_t *sum, const kvant_score_bytes *p) {
    const size_t d = (size_t)p->d;
    for (int c = 0; c < p->n; c++) {
        const int8_t *q = p->q + (size_t)c * d;
        __m256i total = _mm256_setzero_si256();
        for (size_t k = 0; k < d; k += STEP)
            total = _mm256_add_epi32(total, products_of(_mm256_set1_epi8(-128), load_bytes(q + k, k + STEP > d)));
        __m128i s = _mm_add_epi32(_mm256_castsi256_si128(total), _mm256_extracti128_si256(total, 1));
        s = _mm_add_epi32(s, _mm_unpackhi_epi64(s, s));
        sum[c] = _mm_cvtsi128_si32(_mm_add_epi32(s, _mm_shuffle_epi32(s, 0x55)));
    }
}

/* 8 sums of lanes, those of v[0] first. */
AVX2_INLINE __m256i add_lanes_of_8(const __m256i v[8]) {
    __m256i two[4], four[2];
    UNROLL for (int i = 0; i < 4; i++)
        two[i] = _mm256_add_epi32(_mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]), _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]));
    UNROLL for (int i = 0; i < 2; i++)
        four[i] = _mm256_add_epi32(_mm256_unpacklo_epi64(two[2 * i], two[2 * i + 1]),
                                   _mm256_unpackhi_epi64(two[2 * i], two[2 * i + 1]));
    return _mm256_add_epi32(_mm256_blend_epi32(four[0], four[1], 0xF0), _mm256_permute2x128_si256(four[0], four[1], 0x21));
}

AVX2_INLINE void store_scores(const kvant_score_bytes *p, const int32_t *too_much, int c, int r, __m256i sum) {
    __m256 scale = _mm256_mul_ps(_mm256_broadcast_ss(p->q_scale + c), _mm256_loadu_ps(p->row_scale + r));
    __m256 exact = _mm256_cvtepi32_ps(_mm256_sub_epi32(sum, _mm256_set1_epi32(too_much[c])));
    _mm256_storeu_ps(p->scores + (size_t)c * ROWS + r, _mm256_mul_ps(exact, scale));
}

/* ---- few queries: rows as they lie ---- */

#define FEW_COLUMNS 5

AVX2_INLINE void score_step(__m256i sum[FEW_COLUMNS][8], const int8_t *levels, const int8_t *q, size_t d, bool is_rest, int rows,
                            int columns) {
    __m256i u[8];
    UNROLL for (int i = 0; i < rows; i++) u[i] = plus_128(load_bytes(levels + (size_t)i * d, is_rest));
    UNROLL for (int j = 0; j < columns; j++) {
        __m256i x = load_bytes(q + (size_t)j * d, is_rest);
        IN_THIS_ORDER(x); /* one load for all rows */
        UNROLL for (int i = 0; i < rows; i++) {
            sum[j][i] = _mm256_add_epi32(sum[j][i], products_of(u[i], x));
            IN_THIS_ORDER(sum[j][i]);
        }
    }
}

/* Scores of 8 rows, `rows` at a time, with `columns` queries from query c on: rows * columns sums in registers, at most 10. */
AVX2_INLINE void score_8_rows(const kvant_score_bytes *p, const int32_t *too_much, int r, int c, int rows, int columns) {
    const size_t d = (size_t)p->d;
    const int8_t *q = p->q + (size_t)c * d;
    __m256i v[FEW_COLUMNS][8]; /* [column][row] */
    for (int first = 0; first < 8; first += rows) {
        const int8_t *levels = p->levels + (size_t)(r + first) * d;
        __m256i sum[FEW_COLUMNS][8];
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) sum[j][i] = _mm256_setzero_si256();
        size_t k = 0;
        for (; k + STEP <= d; k += STEP)
            score_step(sum, levels + k, q + k, d, false, rows, columns);
        if (k < d) score_step(sum, levels + k, q + k, d, true, rows, columns);
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) v[j][first + i] = sum[j][i];
    }
    UNROLL for (int j = 0; j < columns; j++) store_scores(p, too_much, c + j, r, add_lanes_of_8(v[j]));
}

AVX2 static void score_few(const kvant_score_bytes *p, const int32_t *too_much) {
    for (int r = 0; r < ROWS; r += 8) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / 8, ROWS / 8);
        int c = 0;
        for (; c + 6 <= p->n; c += 4)
            score_8_rows(p, too_much, r, c, 2, 4);
        switch (p->n - c) {
        case 5: score_8_rows(p, too_much, r, c, 2, 5); break;
        case 4: score_8_rows(p, too_much, r, c, 2, 4); break;
        case 3: score_8_rows(p, too_much, r, c, 2, 3); break;
        case 2: score_8_rows(p, too_much, r, c, 4, 2); break;
        case 1: score_8_rows(p, too_much, r, c, 8, 1); break;
        default: break;
        }
    }
}

/* ---- many queries: a lane is a row ---- */

#define MANY_COLUMNS 6

/* fours[k / 4][h]: elements k..k + 3, plus 128, of rows 8h..8h + 7. */
AVX2_INLINE void interleave_16_rows(__m256i *fours, const int8_t *levels, size_t d, size_t k, bool is_rest) {
    UNROLL for (size_t h = 0; h < 2; h++) {
        __m256i v[8], two[8], four[8];
        UNROLL for (size_t i = 0; i < 8; i++) v[i] = plus_128(load_bytes(levels + (8 * h + i) * d + k, is_rest));
        UNROLL for (int i = 0; i < 8; i += 2) {
            two[i] = _mm256_unpacklo_epi32(v[i], v[i + 1]);
            two[i + 1] = _mm256_unpackhi_epi32(v[i], v[i + 1]);
        }
        UNROLL for (int i = 0; i < 8; i += 4)
            UNROLL for (int j = 0; j < 2; j++) {
                four[i + 2 * j] = _mm256_unpacklo_epi64(two[i + j], two[i + 2 + j]);
                four[i + 2 * j + 1] = _mm256_unpackhi_epi64(two[i + j], two[i + 2 + j]);
            }
        UNROLL for (size_t j = 0; j < 4; j++) {
            fours[k / 2 + 2 * j + h] = _mm256_permute2x128_si256(four[j], four[j + 4], 0x20);
            if (!is_rest) fours[k / 2 + 8 + 2 * j + h] = _mm256_permute2x128_si256(four[j], four[j + 4], 0x31);
        }
    }
}

AVX2_INLINE void score_columns(const kvant_score_bytes *p, const int32_t *too_much, const __m256i *fours, int r, int c,
                               int columns) {
    const size_t d = (size_t)p->d;
    const int8_t *q = p->q + (size_t)c * d;
    __m256i sum[MANY_COLUMNS][2];
    UNROLL for (int j = 0; j < columns; j++) sum[j][0] = sum[j][1] = _mm256_setzero_si256();
    for (size_t k = 0; k < d; k += 4) {
        __m256i u[2] = {_mm256_load_si256(fours + k / 2), _mm256_load_si256(fours + k / 2 + 1)};
        UNROLL for (int j = 0; j < columns; j++) {
            int32_t four;
            memcpy(&four, q + (size_t)j * d + k, sizeof four);
            __m256i x = _mm256_set1_epi32(four);
            UNROLL for (int h = 0; h < 2; h++) {
                sum[j][h] = _mm256_add_epi32(sum[j][h], products_of(u[h], x));
                IN_THIS_ORDER(sum[j][h]);
            }
        }
    }
    UNROLL for (int j = 0; j < columns; j++)
        UNROLL for (int h = 0; h < 2; h++) store_scores(p, too_much, c + j, r + 8 * h, sum[j][h]);
}

AVX2 static void score_many(const kvant_score_bytes *p, const int32_t *too_much) {
    const size_t d = (size_t)p->d;
    __m256i fours[MAX_D / 2];
    for (int r = 0; r < ROWS; r += 16) {
        const int8_t *levels = p->levels + (size_t)r * d;
        prefetch_part(p->next, p->next_bytes, (size_t)r / 16, ROWS / 16);
        size_t k = 0;
        for (; k + STEP <= d; k += STEP)
            interleave_16_rows(fours, levels, d, k, false);
        if (k < d) interleave_16_rows(fours, levels, d, k, true);
        int c = 0;
        for (; c + MANY_COLUMNS <= p->n; c += MANY_COLUMNS)
            score_columns(p, too_much, fours, r, c, MANY_COLUMNS);
        switch (p->n - c) {
        case 5: score_columns(p, too_much, fours, r, c, 5); break;
        case 4: score_columns(p, too_much, fours, r, c, 4); break;
        case 3: score_columns(p, too_much, fours, r, c, 3); break;
        case 2: score_columns(p, too_much, fours, r, c, 2); break;
        case 1: score_columns(p, too_much, fours, r, c, 1); break;
        default: break;
        }
    }
}

/* Interleaving costs about as much as adding up the lanes of d / 16 sums a row. */
static void avx2_score_bytes(const kvant_score_bytes *p) {
    int32_t too_much[KVANT_COLUMNS_MAX];
    sum_queries(too_much, p);
    if (p->n <= 4 || p->n <= p->d / HALF)
        score_few(p, too_much);
    else
        score_many(p, too_much);
}

/* ---- few queries: straight from the codes ---- */

/* Two blocks of 32 are 32 bytes of codes: their low nibbles are elements 0..7 of each half, the high ones the others. */
#define TWO_BLOCKS 64

/* A query in that order. */
AVX2_INLINE void order_query(int8_t *to, const int8_t *q, size_t d) {
    for (size_t k = 0; k < d; k += TWO_BLOCKS) {
        __m256i a = load_bytes(q + k, false), b = load_bytes(q + k + STEP, false);
        _mm256_storeu_si256((__m256i *)(to + k), _mm256_permute4x64_epi64(_mm256_unpacklo_epi64(a, b), 0xD8));
        _mm256_storeu_si256((__m256i *)(to + k + STEP), _mm256_permute4x64_epi64(_mm256_unpackhi_epi64(a, b), 0xD8));
    }
}

typedef struct code_rows {
    const uint8_t *codes, *selectors; /* [64][d / 2], [64][d / 2 / block] */
    size_t d;
    _Alignas(32) int8_t books[256]; /* plus 128 */
    _Alignas(32) int8_t q[FEW_COLUMNS][MAX_D];
    int32_t too_much[FEW_COLUMNS];
} code_rows;

/* u[0], u[1]: levels of two blocks of 32, plus 128, in the order of order_query. */
AVX2_INLINE void levels_of_blocks(__m256i u[2], const code_rows *t, const uint8_t *codes, size_t selectors) {
    const __m256i nibble = _mm256_set1_epi8(15);
    const __m128i *one = (const __m128i *)(t->books + (selectors << 4 & 0xF0)), *two = (const __m128i *)(t->books + (selectors & 0xF0));
    __m256i table = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(one)), _mm_loadu_si128(two), 1);
    __m256i both = _mm256_loadu_si256((const __m256i *)codes);
    u[0] = _mm256_shuffle_epi8(table, _mm256_and_si256(both, nibble));
    u[1] = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(both, 4), nibble));
}

/* The same of four blocks of 16, each with its book, in their own order. */
AVX2_INLINE void levels_of_halves(__m256i u[2], const code_rows *t, const uint8_t *codes, const uint8_t *selectors) {
    UNROLL for (size_t h = 0; h < 2; h++) {
        const size_t s = selectors[h];
        const __m128i *one = (const __m128i *)(t->books + (s << 4 & 0xF0)), *two = (const __m128i *)(t->books + (s & 0xF0));
        __m256i table = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(one)), _mm_loadu_si128(two), 1);
        __m256i both = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(codes + HALF * h)));
        __m256i split = _mm256_castpd_si256(_mm256_permute_pd(_mm256_castsi256_pd(both), 12));
        __m256i code = _mm256_srlv_epi64(split, _mm256_setr_epi64x(0, 4, 0, 4));
        u[h] = _mm256_shuffle_epi8(table, _mm256_and_si256(code, _mm256_set1_epi8(15)));
    }
}

AVX2_INLINE void score_8_code_rows(const kvant_score_bytes *p, const code_rows *t, int r, int block, int rows, int columns) {
    const size_t d = t->d, n_step = d / TWO_BLOCKS, n_byte = d / (size_t)block / 2, a_step = TWO_BLOCKS / (size_t)block / 2;
    const uint8_t *codes = t->codes + (size_t)r * (d / 2), *selectors = t->selectors + (size_t)r * n_byte;
    __m256i v[FEW_COLUMNS][8]; /* [column][row] */
    for (int first = 0; first < 8; first += rows) {
        __m256i sum[FEW_COLUMNS][8];
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) sum[j][i] = _mm256_setzero_si256();
        for (size_t k = 0; k < n_step; k++) {
            __m256i u[8][2];
            UNROLL for (int i = 0; i < rows; i++) {
                const uint8_t *row = codes + (size_t)i * (d / 2) + STEP * k, *s = selectors + (size_t)i * n_byte + a_step * k;
                if (block == HALF)
                    levels_of_halves(u[i], t, row, s);
                else
                    levels_of_blocks(u[i], t, row, *s);
            }
            UNROLL for (int h = 0; h < 2; h++)
                UNROLL for (int j = 0; j < columns; j++) {
                    __m256i x = _mm256_loadu_si256((const __m256i *)(t->q[j] + TWO_BLOCKS * k + STEP * (size_t)h));
                    IN_THIS_ORDER(x); /* one load for all rows */
                    UNROLL for (int i = 0; i < rows; i++) {
                        sum[j][i] = _mm256_add_epi32(sum[j][i], products_of(u[i][h], x));
                        IN_THIS_ORDER(sum[j][i]);
                    }
                }
        }
        codes += (size_t)rows * (d / 2);
        selectors += (size_t)rows * n_byte;
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) v[j][first + i] = sum[j][i];
    }
    UNROLL for (int j = 0; j < columns; j++) store_scores(p, t->too_much, j, r, add_lanes_of_8(v[j]));
}

AVX2_INLINE void score_code_rows(const kvant_score_bytes *p, const code_rows *t, int block) {
    for (int r = 0; r < ROWS; r += 8) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / 8, ROWS / 8);
        switch (p->n) {
        case 5: score_8_code_rows(p, t, r, block, 2, 5); break;
        case 4: score_8_code_rows(p, t, r, block, 2, 4); break;
        case 3: score_8_code_rows(p, t, r, block, 2, 3); break;
        case 2: score_8_code_rows(p, t, r, block, 2, 2); break;
        case 1: score_8_code_rows(p, t, r, block, 4, 1); break;
        default: break;
        }
    }
}

AVX2 static void score_blocks_of_32(const kvant_score_bytes *p, const code_rows *t) { score_code_rows(p, t, 2 * HALF); }
AVX2 static void score_blocks_of_16(const kvant_score_bytes *p, const code_rows *t) { score_code_rows(p, t, HALF); }

AVX2 static void avx2_score_rows4(int8_t *room, const kvant_level_rows *rows, const kvant_score_bytes *p) {
    const size_t d = (size_t)p->d;
    if (!rows->selectors || d % TWO_BLOCKS || p->n > FEW_COLUMNS) {
        kvant_score_bytes args = *p;
        args.levels = room;
        kvant_kernels_avx2_levels4(room, rows);
        avx2_score_bytes(&args);
        return;
    }
    code_rows t; /* an initialiser would clear all of it */
    t.codes = rows->plane4;
    t.selectors = rows->selectors;
    t.d = d;
    for (size_t i = 0; i < sizeof t.books; i += STEP)
        _mm256_storeu_si256((__m256i *)(t.books + i), plus_128(load_bytes(rows->books + i, false)));
    sum_queries(t.too_much, p);
    for (int c = 0; c < p->n; c++)
        if (rows->block == HALF)
            memcpy(t.q[c], p->q + (size_t)c * d, d);
        else
            order_query(t.q[c], p->q + (size_t)c * d, d);
    if (rows->block == HALF)
        score_blocks_of_16(p, &t);
    else
        score_blocks_of_32(p, &t);
}

void kvant_kernels_set_avx2_bytes(kvant_kernels *k) {
    k->quantize_pairs = avx2_quantize_pairs;
    k->level_scales = avx2_level_scales;
    k->score_bytes = avx2_score_bytes;
    k->score_rows4 = avx2_score_rows4;
}

#else
typedef int kvant_kernel_bytes_avx2_unused; /* a translation unit must not be empty */
#endif

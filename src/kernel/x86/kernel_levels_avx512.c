// SPDX-License-Identifier: MIT
/* kernel_levels_avx512.c: rows of codes and products with levels with AVX-512 F, BW, VL and VNNI: kernel_levels_avx2.c with four
 * halves, or 32 levels of 16 bits, a register, and vpdpwssd to multiply and add.
 *
 * Not here: the search for books, whose rows are 256 bits wide, and rows of floats, which stay those of AVX2. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <stdbool.h>
#include <string.h>

#include "kernel/x86/kernel_avx512.h"
#include "kernel/x86/kernel_prefetch.h"

#define HALF 16
#define PAGE_ROWS 64
#define MAX_D 512

/* ---- rows of codes ---- */

enum { BOOK_A_HALF, BOOK_A_PAIR }; /* the book changes with each half, or with each two */

/* Both 128-bit lanes hold 16 entries of a book, which vpshufb indexes; a book of fewer entries is repeated. part: which 16. */
AVX512_INLINE __m256i book_table(const int8_t *book, int bits, int part) {
    if (bits == 1) return _mm256_set1_epi16((short)((uint8_t)book[0] | (uint8_t)book[1] << 8));
    if (bits == 2) {
        int32_t four;
        memcpy(&four, book, sizeof four);
        return _mm256_set1_epi32(four);
    }
    if (bits == 3) {
        int64_t eight;
        memcpy(&eight, book, sizeof eight);
        return _mm256_set1_epi64x(eight);
    }
    return _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(book + 16 * part)));
}

/* The tables of four halves with the selectors s: one for each half, or s[0] and s[1] for each two. */
AVX512_INLINE __m512i quad_table(const int8_t *books, const int s[4], int bits, int part, int change) {
    __m256i t[4];
    UNROLL for (int i = 0; i < 4; i++) t[i] = book_table(books + ((size_t)s[i] << bits), bits, part);
    __m256i low = change == BOOK_A_PAIR ? t[0] : _mm256_blend_epi32(t[0], t[1], 0xF0);
    __m256i high = change == BOOK_A_PAIR ? t[1] : _mm256_blend_epi32(t[2], t[3], 0xF0);
    return _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
}

/* Bits 0..3 of the codes of `halves` (4, 2 or 1) halves, one in each 128-bit lane. */
AVX512_INLINE __m512i plane4_codes(const uint8_t *p, int halves) {
    __m512i v;
    if (halves == 4)
        v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p));
    else
        v = _mm512_castsi128_si512(halves == 2 ? _mm_loadu_si128((const __m128i *)p) : _mm_loadl_epi64((const __m128i *)p));
    v = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 0, 1, 1, 2, 2, 3, 3), v);
    return _mm512_and_si512(_mm512_srlv_epi64(v, _mm512_setr_epi64(0, 4, 0, 4, 0, 4, 0, 4)), _mm512_set1_epi8(15));
}

AVX512_INLINE __m512i plane2_codes(const uint8_t *p, int halves) {
    const __m512i lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
    const __m512i shift = _mm512_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6, 0, 2, 4, 6);
    __m128i v;
    if (halves == 4) {
        v = _mm_loadu_si128((const __m128i *)p);
    } else if (halves == 2) {
        v = _mm_loadl_epi64((const __m128i *)p);
    } else {
        int32_t four;
        memcpy(&four, p, sizeof four);
        v = _mm_cvtsi32_si128(four);
    }
    __m512i spread = _mm512_permutexvar_epi32(lane, _mm512_castsi128_si512(v));
    return _mm512_and_si512(_mm512_srlv_epi32(spread, shift), _mm512_set1_epi8(3));
}

/* The highest bits: bit i for element i, as they lie in the plane. */
AVX512_INLINE __mmask64 plane1_bits(const uint8_t *p, int halves) {
    uint64_t bits = 0;
    memcpy(&bits, p, (size_t)(2 * halves));
    return bits;
}

AVX512_INLINE void store_levels(int8_t *levels, __m512i v, int halves) {
    if (halves == 4)
        _mm512_storeu_si512(levels, v);
    else if (halves == 2)
        _mm256_storeu_si256((__m256i *)levels, _mm512_castsi512_si256(v));
    else
        _mm_storeu_si128((__m128i *)levels, _mm512_castsi512_si128(v));
}

/* The levels of `halves` halves from half `half` of all rows on. table[1]: codes 16 and up, at 5 bits. */
AVX512_INLINE void halves_to_levels(int8_t *levels, const kvant_level_rows *r, size_t half, const __m512i table[2], int bits,
                                    int halves) {
    __m512i v, code;
    if (bits == 1) {
        code = _mm512_maskz_set1_epi8(plane1_bits(r->plane1 + 2 * half, halves), 1);
        v = _mm512_shuffle_epi8(table[0], code);
    } else if (bits <= 3) {
        code = plane2_codes(r->plane2 + 4 * half, halves);
        if (bits == 3) code = _mm512_mask_add_epi8(code, plane1_bits(r->plane1 + 2 * half, halves), code, _mm512_set1_epi8(4));
        v = _mm512_shuffle_epi8(table[0], code);
    } else {
        code = plane4_codes(r->plane4 + 8 * half, halves);
        v = _mm512_shuffle_epi8(table[0], code);
        if (bits == 5)
            v = _mm512_mask_shuffle_epi8(v, plane1_bits(r->plane1 + 2 * half, halves), table[1], code);
        if (bits == 6) {
            const __m512i parts = _mm512_set1_epi32((int)0x1000F0E0u); /* 16 * code - 32 */
            v = _mm512_add_epi8(code, _mm512_shuffle_epi8(parts, plane2_codes(r->plane2 + 4 * half, halves)));
        }
    }
    store_levels(levels + half * HALF, v, halves);
}

/* The same with the books that `selectors`, at its next byte, names; `skip` nibbles of it are used already. */
AVX512_INLINE void halves_with_books(int8_t *levels, const kvant_level_rows *r, size_t half, const uint8_t *selectors, int skip,
                                     int bits, int change, int halves) {
    int s[4];
    s[0] = skip ? selectors[0] >> 4 : selectors[0] & 15;
    s[1] = halves > 1 ? selectors[0] >> 4 : s[0];
    s[2] = halves == 4 && change == BOOK_A_HALF ? selectors[1] & 15 : s[1];
    s[3] = halves == 4 && change == BOOK_A_HALF ? selectors[1] >> 4 : s[1];
    __m512i table[2];
    table[0] = table[1] = quad_table(r->books, s, bits, 0, change);
    if (bits == 5) table[1] = quad_table(r->books, s, bits, 1, change);
    halves_to_levels(levels, r, half, table, bits, halves);
}

AVX512_INLINE void rows_with_books(int8_t *levels, const kvant_level_rows *rows, int bits, int change) {
    kvant_level_rows r = *rows; /* stores of levels cannot change it, which a compiler sees only here */
    const int bytes_a_quad = change == BOOK_A_PAIR ? 1 : 2;
    if (r.d % (4 * HALF) == 0) { /* rows end with their bytes of selectors: one long row */
        r.d *= r.n;
        r.n = 1;
    }
    const int n_half = r.d / HALF;
    const uint8_t *selectors = r.selectors;
    size_t half = 0;
    for (int row = 0; row < r.n; row++) {
        for (int i = 0; i + 4 <= n_half; i += 4, half += 4, selectors += bytes_a_quad)
            halves_with_books(levels, &r, half, selectors, 0, bits, change, 4);
        if (n_half % 4 == 0) continue;
        int skip = 0;
        if (n_half & 2) {
            halves_with_books(levels, &r, half, selectors, 0, bits, change, 2);
            half += 2;
            if (change == BOOK_A_HALF)
                selectors += n_half & 1; /* its byte is used up; else half of it is */
            else
                skip = 1;
        }
        if (n_half & 1) halves_with_books(levels, &r, half++, selectors, skip, bits, change, 1);
        selectors++;
    }
}

/* Rows with one book for all, or none at 6 bits: one long row. */
AVX512_INLINE void rows_with_one_book(int8_t *levels, const kvant_level_rows *rows, int bits) {
    const kvant_level_rows r = *rows;
    const size_t n_half = (size_t)r.n * (size_t)r.d / HALF;
    const int none[4] = {0, 0, 0, 0};
    __m512i table[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (bits != 6) table[0] = quad_table(r.books, none, bits, 0, BOOK_A_PAIR);
    if (bits == 5) table[1] = quad_table(r.books, none, bits, 1, BOOK_A_PAIR);
    size_t half = 0;
    for (; half + 4 <= n_half; half += 4)
        halves_to_levels(levels, &r, half, table, bits, 4);
    if (n_half & 2) {
        halves_to_levels(levels, &r, half, table, bits, 2);
        half += 2;
    }
    if (n_half & 1) halves_to_levels(levels, &r, half, table, bits, 1);
}

AVX512_INLINE void any_books(int8_t *levels, const kvant_level_rows *r, int bits) {
    if (!r->selectors)
        rows_with_one_book(levels, r, bits);
    else if (r->block == HALF)
        rows_with_books(levels, r, bits, BOOK_A_HALF);
    else
        rows_with_books(levels, r, bits, BOOK_A_PAIR);
}

AVX512 static void avx512_levels1(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 1); }
AVX512 static void avx512_levels2(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 2); }
AVX512 static void avx512_levels3(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 3); }
AVX512 static void avx512_levels4(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 4); }
AVX512 static void avx512_levels5(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 5); }
AVX512 static void avx512_levels6(int8_t *levels, const kvant_level_rows *r) { rows_with_one_book(levels, r, 6); }

/* ---- levels times queries ---- */

#define FEW_COLUMNS 7   /* up to here rows are multiplied as they lie */
#define SCORE_COLUMNS 4 /* with 4 rows 16 sums, 4 registers of levels and one of x */
#define MANY_COLUMNS 12 /* vpdpwssd takes about 5 cycles, and two may begin in each */

/* 32 levels, or the 16 that are left and zeros. */
AVX512_INLINE __m512i load_levels(const int8_t *p, bool is_rest) {
    if (!is_rest) return _mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i *)p));
    return _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 0);
}

AVX512_INLINE __m512i load_words(const int16_t *p, bool is_rest) {
    if (!is_rest) return _mm512_loadu_si512((const void *)p);
    return _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_loadu_si256((const __m256i *)p), 0);
}

AVX512_INLINE __m512i broadcast_pair(const int16_t *p) {
    int32_t pair;
    memcpy(&pair, p, sizeof pair);
    return _mm512_set1_epi32(pair);
}

AVX512_INLINE void score_step(__m512i sum[SCORE_COLUMNS][4], const int8_t *levels, const int16_t *q, size_t d, bool is_rest,
                              int columns) {
    __m512i level[4];
    UNROLL for (size_t i = 0; i < 4; i++) level[i] = load_levels(levels + i * d, is_rest);
    UNROLL for (int j = 0; j < columns; j++) {
        __m512i x = load_words(q + (size_t)j * d, is_rest);
        UNROLL for (int i = 0; i < 4; i++) sum[j][i] = _mm512_dpwssd_epi32(sum[j][i], level[i], x);
    }
}

/* In each 128-bit lane the sums of the four lanes of v[0], v[1], v[2] and v[3]. */
AVX512_INLINE __m512i add_within_lanes(const __m512i v[4]) {
    __m512i a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
    __m512i b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Lane i of the result is the sum of the 128-bit lanes of v[i]. */
AVX512_INLINE __m512i add_lanes(const __m512i v[4]) {
    __m512i a = _mm512_add_epi32(_mm512_shuffle_i32x4(v[0], v[1], 0x88), _mm512_shuffle_i32x4(v[0], v[1], 0xDD));
    __m512i b = _mm512_add_epi32(_mm512_shuffle_i32x4(v[2], v[3], 0x88), _mm512_shuffle_i32x4(v[2], v[3], 0xDD));
    return _mm512_add_epi32(_mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xDD));
}

AVX512_INLINE void store_scores(const kvant_score_levels *p, int c, int r, __m512i sum) {
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(p->q_scale[c]), _mm512_loadu_ps(p->row_scale + r));
    _mm512_storeu_ps(p->scores + (size_t)c * PAGE_ROWS + (size_t)r, _mm512_mul_ps(_mm512_cvtepi32_ps(sum), scale));
}

AVX512_INLINE void score_16_rows(const kvant_score_levels *p, int r, int c, int columns) {
    const size_t d = (size_t)p->d;
    const int16_t *q = p->q + (size_t)c * d;
    __m512i four[SCORE_COLUMNS][4]; /* [column][4 rows] */
    for (int g = 0; g < 4; g++) {
        const int8_t *levels = p->levels + (size_t)(r + 4 * g) * d;
        __m512i sum[SCORE_COLUMNS][4];
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < 4; i++) sum[j][i] = _mm512_setzero_si512();
        size_t k = 0;
        for (; k + 2 * HALF <= d; k += 2 * HALF)
            score_step(sum, levels + k, q + k, d, false, columns);
        if (k < d) score_step(sum, levels + k, q + k, d, true, columns);
        UNROLL for (int j = 0; j < columns; j++) four[j][g] = add_within_lanes(sum[j]);
    }
    UNROLL for (int j = 0; j < columns; j++) store_scores(p, c + j, r, add_lanes(four[j]));
}

AVX512 static void score_few(const kvant_score_levels *p) {
    for (int r = 0; r < PAGE_ROWS; r += 16) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / 16, PAGE_ROWS / 16);
        int c = 0;
        for (; c + 4 <= p->n; c += 4)
            score_16_rows(p, r, c, 4);
        switch (p->n - c) {
        case 3: score_16_rows(p, r, c, 3); break;
        case 2: score_16_rows(p, r, c, 2); break;
        case 1: score_16_rows(p, r, c, 1); break;
        default: break;
        }
    }
}

/* pairs[i] = the 32 bits number i of each of 16 rows v. */
AVX512_INLINE void turn_16_rows(__m512i *pairs, const __m512i v[16]) {
    __m512i two[16], four[16];
    UNROLL for (int i = 0; i < 16; i += 2) {
        two[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
        two[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
    }
    UNROLL for (int i = 0; i < 16; i += 4)
        UNROLL for (int j = 0; j < 2; j++) {
            four[i + 2 * j] = _mm512_unpacklo_epi64(two[i + j], two[i + 2 + j]);
            four[i + 2 * j + 1] = _mm512_unpackhi_epi64(two[i + j], two[i + 2 + j]);
        }
    UNROLL for (int i = 0; i < 4; i++) { /* lane l of four[4g + i]: pair 4l + i of rows 4g..4g + 3 */
        __m512i a = _mm512_shuffle_i32x4(four[i], four[4 + i], 0x88), b = _mm512_shuffle_i32x4(four[8 + i], four[12 + i], 0x88);
        pairs[i] = _mm512_shuffle_i32x4(a, b, 0x88);
        pairs[8 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
        a = _mm512_shuffle_i32x4(four[i], four[4 + i], 0xDD);
        b = _mm512_shuffle_i32x4(four[8 + i], four[12 + i], 0xDD);
        pairs[4 + i] = _mm512_shuffle_i32x4(a, b, 0x88);
        pairs[12 + i] = _mm512_shuffle_i32x4(a, b, 0xDD);
    }
}

/* pairs[i] = elements 2i and 2i + 1 of each of 16 rows, for 32 elements. */
AVX512_INLINE void interleave_16_rows(__m512i *pairs, const int8_t *levels, size_t d, bool is_rest) {
    __m512i v[16];
    UNROLL for (size_t i = 0; i < 16; i++) v[i] = load_levels(levels + i * d, is_rest);
    turn_16_rows(pairs, v);
}

AVX512_INLINE void score_columns(const kvant_score_levels *p, const __m512i *pairs, int r, int c, int columns) {
    const size_t d = (size_t)p->d;
    const int16_t *q = p->q + (size_t)c * d;
    __m512i sum[MANY_COLUMNS];
    UNROLL for (int j = 0; j < columns; j++) sum[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < d / 2; i++)
        UNROLL for (int j = 0; j < columns; j++)
            sum[j] = _mm512_dpwssd_epi32(sum[j], pairs[i], broadcast_pair(q + (size_t)j * d + 2 * i));
    UNROLL for (int j = 0; j < columns; j++) store_scores(p, c + j, r, sum[j]);
}

AVX512 static void score_many(const kvant_score_levels *p) {
    __m512i pairs[MAX_D / 2]; /* a last 16 elements fill 16 of them too, and 8 are used: at most 248 + 8 */
    const size_t d = (size_t)p->d;
    for (int r = 0; r < PAGE_ROWS; r += 16) {
        const int8_t *levels = p->levels + (size_t)r * d;
        prefetch_part(p->next, p->next_bytes, (size_t)r / 16, PAGE_ROWS / 16);
        size_t k = 0;
        for (; k + 2 * HALF <= d; k += 2 * HALF)
            interleave_16_rows(pairs + k / 2, levels + k, d, false);
        if (k < d) interleave_16_rows(pairs + k / 2, levels + k, d, true);
        int c = 0;
        for (; c + MANY_COLUMNS <= p->n; c += MANY_COLUMNS)
            score_columns(p, pairs, r, c, MANY_COLUMNS);
        for (; c + 4 <= p->n; c += 4)
            score_columns(p, pairs, r, c, 4);
        for (; c < p->n; c++)
            score_columns(p, pairs, r, c, 1);
    }
}

static void avx512_score_levels(const kvant_score_levels *p) {
    if (p->n <= FEW_COLUMNS)
        score_few(p);
    else
        score_many(p);
}

/* ---- levels times queries of 8 bits ---- */

#define STEP 64 /* levels a register */

/* Levels plus 128 are bytes without sign, as vpdpbusd wants them; it cannot overflow. What that adds to the sum of a query: */
AVX512 static int32_t too_much(const int8_t *q, size_t d) {
    int32_t sum = 0;
    for (size_t i = 0; i < d; i++)
        sum += q[i];
    return 128 * sum;
}

/* n <= 64 bytes, and zeros. */
AVX512_INLINE __m512i load_bytes(const int8_t *p, size_t n) {
    if (n >= STEP) return _mm512_loadu_si512((const void *)p);
    int8_t some[STEP] = {0};
    memcpy(some, p, n);
    return _mm512_loadu_si512((const void *)some);
}

AVX512_INLINE __m512i plus_128(__m512i levels) { return _mm512_xor_si512(levels, _mm512_set1_epi8(-128)); }

AVX512_INLINE void store_byte_scores(const kvant_score_bytes *p, int c, int r, __m512i sum, int32_t excess) {
    __m512 scale = _mm512_mul_ps(_mm512_set1_ps(p->q_scale[c]), _mm512_loadu_ps(p->row_scale + r));
    __m512 exact = _mm512_cvtepi32_ps(_mm512_sub_epi32(sum, _mm512_set1_epi32(excess)));
    _mm512_storeu_ps(p->scores + (size_t)c * PAGE_ROWS + (size_t)r, _mm512_mul_ps(exact, scale));
}

AVX512_INLINE void score_16_byte_rows(const kvant_score_bytes *p, const int32_t *excess, int r, int c, int columns) {
    const size_t d = (size_t)p->d;
    const int8_t *q = p->q + (size_t)c * d;
    __m512i four[SCORE_COLUMNS][4]; /* [column][4 rows] */
    for (int g = 0; g < 4; g++) {
        const int8_t *levels = p->levels + (size_t)(r + 4 * g) * d;
        __m512i sum[SCORE_COLUMNS][4];
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < 4; i++) sum[j][i] = _mm512_setzero_si512();
        for (size_t k = 0; k < d; k += STEP) {
            __m512i u[4];
            UNROLL for (size_t i = 0; i < 4; i++) u[i] = plus_128(load_bytes(levels + i * d + k, d - k));
            UNROLL for (int j = 0; j < columns; j++) {
                __m512i x = load_bytes(q + (size_t)j * d + k, d - k);
                UNROLL for (int i = 0; i < 4; i++) sum[j][i] = _mm512_dpbusd_epi32(sum[j][i], u[i], x);
            }
        }
        UNROLL for (int j = 0; j < columns; j++) four[j][g] = add_within_lanes(sum[j]);
    }
    UNROLL for (int j = 0; j < columns; j++) store_byte_scores(p, c + j, r, add_lanes(four[j]), excess[c + j]);
}

AVX512_INLINE void score_byte_columns(const kvant_score_bytes *p, const int32_t *excess, const __m512i *fours, int r, int c,
                                      int columns) {
    const size_t d = (size_t)p->d;
    __m512i sum[MANY_COLUMNS];
    UNROLL for (int j = 0; j < columns; j++) sum[j] = _mm512_setzero_si512();
    for (size_t i = 0; i < d / 4; i++)
        UNROLL for (int j = 0; j < columns; j++) {
            int32_t four;
            memcpy(&four, p->q + (size_t)(c + j) * d + 4 * i, sizeof four);
            sum[j] = _mm512_dpbusd_epi32(sum[j], fours[i], _mm512_set1_epi32(four));
        }
    UNROLL for (int j = 0; j < columns; j++) store_byte_scores(p, c + j, r, sum[j], excess[c + j]);
}

AVX512 static void score_many_bytes(const kvant_score_bytes *p, const int32_t *excess, int r) {
    __m512i fours[MAX_D / 4], v[16];
    const size_t d = (size_t)p->d;
    const int8_t *levels = p->levels + (size_t)r * d;
    for (size_t k = 0; k < d; k += STEP) {
        UNROLL for (size_t i = 0; i < 16; i++) v[i] = plus_128(load_bytes(levels + i * d + k, d - k));
        turn_16_rows(fours + k / 4, v);
    }
    int c = 0;
    for (; c + MANY_COLUMNS <= p->n; c += MANY_COLUMNS)
        score_byte_columns(p, excess, fours, r, c, MANY_COLUMNS);
    for (; c + 4 <= p->n; c += 4)
        score_byte_columns(p, excess, fours, r, c, 4);
    for (; c < p->n; c++)
        score_byte_columns(p, excess, fours, r, c, 1);
}

AVX512 static void avx512_score_bytes(const kvant_score_bytes *p) {
    int32_t excess[KVANT_COLUMNS_MAX];
    for (int c = 0; c < p->n; c++)
        excess[c] = too_much(p->q + (size_t)c * (size_t)p->d, (size_t)p->d);
    for (int r = 0; r < PAGE_ROWS; r += 16) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / 16, PAGE_ROWS / 16);
        if (p->n > FEW_COLUMNS) {
            score_many_bytes(p, excess, r);
            continue;
        }
        int c = 0;
        for (; c + 4 <= p->n; c += 4)
            score_16_byte_rows(p, excess, r, c, 4);
        for (; c < p->n; c++)
            score_16_byte_rows(p, excess, r, c, 1);
    }
}

static void avx512_score_rows4(int8_t *room, const kvant_level_rows *rows, const kvant_score_bytes *p) {
    kvant_score_bytes args = *p;
    args.levels = room;
    avx512_levels4(room, rows);
    avx512_score_bytes(&args);
}

/* ---- weights times levels ---- */

#define MIX_COLUMNS 6

/* Pairs (a[i], b[i]): two registers for 32 elements, i = 0..3, 8..11, 16..19, 24..27 first; or one for 16 in order. */
AVX512_INLINE void interleave_levels(__m512i pair[2], const int8_t *a, const int8_t *b, int halves) {
    if (halves == 2) {
        __m512i x = load_levels(a, false), y = load_levels(b, false);
        pair[0] = _mm512_unpacklo_epi16(x, y);
        pair[1] = _mm512_unpackhi_epi16(x, y);
        return;
    }
    __m128i x = _mm_loadu_si128((const __m128i *)a), y = _mm_loadu_si128((const __m128i *)b);
    __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi8(x, y)), _mm_unpackhi_epi8(x, y), 1);
    pair[0] = pair[1] = _mm512_cvtepi8_epi16(both);
}

AVX512_INLINE void add_to(float *acc, __m512i sum, __m512 scale) {
    _mm512_storeu_ps(acc, _mm512_fmadd_ps(_mm512_cvtepi32_ps(sum), scale, _mm512_loadu_ps(acc)));
}

/* 32 (two halves) or 16 elements from element `at` on, for `columns` vectors of weights from vector c on. */
AVX512_INLINE void mix_columns(const kvant_mix_levels *p, size_t at, int c, int halves, int columns) {
    const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
    const __m512i second = _mm512_setr_epi32(8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31);
    const size_t d = (size_t)p->d;
    const int16_t *w = p->w + (size_t)c * PAGE_ROWS;
    const int8_t *levels = p->levels + at;
    __m512i sum[MIX_COLUMNS][2];
    UNROLL for (int j = 0; j < columns; j++) sum[j][0] = sum[j][1] = _mm512_setzero_si512();
    for (int r = 0; r < PAGE_ROWS; r += 2, levels += 2 * d) {
        __m512i pair[2];
        interleave_levels(pair, levels, levels + d, halves);
        UNROLL for (int j = 0; j < columns; j++) {
            __m512i x = broadcast_pair(w + j * PAGE_ROWS + r);
            sum[j][0] = _mm512_dpwssd_epi32(sum[j][0], pair[0], x);
            if (halves == 2) sum[j][1] = _mm512_dpwssd_epi32(sum[j][1], pair[1], x);
        }
    }
    UNROLL for (int j = 0; j < columns; j++) {
        float *acc = p->acc + (size_t)(c + j) * p->acc_stride + at;
        __m512 scale = _mm512_set1_ps(p->w_scale[c + j]);
        if (halves == 1) {
            add_to(acc, sum[j][0], scale);
        } else {
            add_to(acc, _mm512_permutex2var_epi32(sum[j][0], first, sum[j][1]), scale);
            add_to(acc + HALF, _mm512_permutex2var_epi32(sum[j][0], second, sum[j][1]), scale);
        }
    }
}

AVX512_INLINE void mix_elements(const kvant_mix_levels *p, size_t at, int halves) {
    int c = 0;
    for (; c + MIX_COLUMNS <= p->n; c += MIX_COLUMNS)
        mix_columns(p, at, c, halves, MIX_COLUMNS);
    switch (p->n - c) {
    case 5: mix_columns(p, at, c, halves, 5); break;
    case 4: mix_columns(p, at, c, halves, 4); break;
    case 3: mix_columns(p, at, c, halves, 3); break;
    case 2: mix_columns(p, at, c, halves, 2); break;
    case 1: mix_columns(p, at, c, halves, 1); break;
    default: break;
    }
}

AVX512 static void avx512_mix_levels(const kvant_mix_levels *p) {
    size_t at = 0;
    for (; at + 2 * HALF <= (size_t)p->d; at += 2 * HALF) {
        prefetch_part(p->next, p->next_bytes, at / (2 * HALF), ((size_t)p->d + HALF) / (2 * HALF));
        mix_elements(p, at, 2);
    }
    if (at < (size_t)p->d) mix_elements(p, at, 1);
}

void kvant_kernels_set_avx512_levels(kvant_kernels *k) {
    k->levels1 = avx512_levels1;
    k->levels2 = avx512_levels2;
    k->levels3 = avx512_levels3;
    k->levels4 = avx512_levels4;
    k->levels5 = avx512_levels5;
    k->levels6 = avx512_levels6;
    k->score_levels = avx512_score_levels;
    k->score_bytes = avx512_score_bytes;
    k->score_rows4 = avx512_score_rows4;
    k->mix_levels = avx512_mix_levels;
}

#else
typedef int kvant_kernel_levels_avx512_unused; /* a translation unit must not be empty */
#endif

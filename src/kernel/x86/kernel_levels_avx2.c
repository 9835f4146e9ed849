// SPDX-License-Identifier: MIT
/* kernel_levels_avx2.c: rows of codes, products with levels, 16-bit vectors, the rotation and the search for books with AVX2.
 *
 * Codes become levels 32 elements, two halves, at a time: a book is a table of vpshufb. Products take pairs of 16-bit values by
 * vpmaddwd. Few queries meet the rows as they lie, and the lanes of each sum are added up at the end; for many queries 16 rows
 * are interleaved first, so that a lane is a row, as a lane is an element when weights are multiplied.
 *
 * Tails of rows of floats go through a zero-filled register. */
#include "kernel/kernel_table.h"

#if defined(__x86_64__)

#include <immintrin.h>
#include <stdbool.h>
#include <string.h>

#include "kernel/x86/kernel_avx2.h"
#include "kernel/x86/kernel_prefetch.h"

#define ROWS 64
#define HALF 16
#define MAX_D 512

/* ---- rows of codes ---- */

enum { BOOK_A_HALF, BOOK_A_PAIR }; /* the book changes with each half, or with each two */

AVX2_INLINE __m256i broadcast_32(const void *p) {
    int32_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi32(v);
}

AVX2_INLINE __m256i broadcast_64(const void *p) {
    int64_t v;
    memcpy(&v, p, sizeof v);
    return _mm256_set1_epi64x(v);
}

AVX2_INLINE __m256i broadcast_128(const void *p) { return _mm256_broadcastsi128_si256(_mm_loadu_si128(p)); }

/* Both 128-bit lanes hold 16 entries of a book, which vpshufb indexes; a book of fewer entries is repeated. part: which 16. */
AVX2_INLINE __m256i book_table(const int8_t *book, int bits, int part) {
    if (bits == 1) return _mm256_set1_epi16((short)((uint8_t)book[0] | (uint8_t)book[1] << 8));
    if (bits == 2) return broadcast_32(book);
    if (bits == 3) return broadcast_64(book);
    return broadcast_128(book + 16 * part);
}

/* Bits 0..3 of the codes of two halves, given both in each lane: the first half in the low lane, the second in the high one. */
AVX2_INLINE __m256i plane4_pair(__m256i both) {
    __m256i split = _mm256_castpd_si256(_mm256_permute_pd(_mm256_castsi256_pd(both), 12));
    return _mm256_and_si256(_mm256_srlv_epi64(split, _mm256_setr_epi64x(0, 4, 0, 4)), _mm256_set1_epi8(15));
}

AVX2_INLINE __m256i plane2_pair(__m256i both) {
    const __m256i first_second = _mm256_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1);
    __m256i split = _mm256_castps_si256(_mm256_permutevar_ps(_mm256_castsi256_ps(both), first_second));
    return _mm256_and_si256(_mm256_srlv_epi32(split, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6)), _mm256_set1_epi8(3));
}

/* -1 where the bit is set. */
AVX2_INLINE __m256i plane1_pair(__m256i both) {
    const __m256i spread = _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3,
                                            3, 3, 3);
    const __m256i bit = _mm256_set1_epi64x((long long)0x8040201008040201u);
    return _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(both, spread), bit), bit);
}

/* What the planes of two halves hold, each in both lanes. */
typedef struct planes {
    __m256i p4, p2, p1;
} planes;

AVX2_INLINE planes load_pair(const kvant_level_rows *r, size_t half, int bits) {
    planes p = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    if (bits >= 4) p.p4 = broadcast_128(r->plane4 + 8 * half);
    if (bits == 2 || bits == 3 || bits == 6) p.p2 = broadcast_64(r->plane2 + 4 * half);
    if (bits % 2 == 1) p.p1 = broadcast_32(r->plane1 + 2 * half);
    return p;
}

/* The last half of a row, in place of a pair: nothing beyond it is read. */
AVX2_INLINE planes load_half(const kvant_level_rows *r, size_t half, int bits) {
    planes p = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256()};
    if (bits >= 4) p.p4 = broadcast_64(r->plane4 + 8 * half);
    if (bits == 2 || bits == 3 || bits == 6) p.p2 = broadcast_32(r->plane2 + 4 * half);
    if (bits % 2 == 1) p.p1 = _mm256_set1_epi16((short)(r->plane1[2 * half] | r->plane1[2 * half + 1] << 8));
    return p;
}

AVX2_INLINE __m256i levels_of(planes p, const __m256i table[2], int bits) {
    if (bits == 1) return _mm256_shuffle_epi8(table[0], _mm256_and_si256(plane1_pair(p.p1), _mm256_set1_epi8(1)));
    if (bits == 2) return _mm256_shuffle_epi8(table[0], plane2_pair(p.p2));
    if (bits == 3) {
        __m256i highest = _mm256_and_si256(plane1_pair(p.p1), _mm256_set1_epi8(4));
        return _mm256_shuffle_epi8(table[0], _mm256_or_si256(plane2_pair(p.p2), highest));
    }
    __m256i low = plane4_pair(p.p4);
    if (bits == 4) return _mm256_shuffle_epi8(table[0], low);
    if (bits == 5)
        return _mm256_blendv_epi8(_mm256_shuffle_epi8(table[0], low), _mm256_shuffle_epi8(table[1], low), plane1_pair(p.p1));
    const __m256i parts = _mm256_set1_epi32((int)0x1000F0E0u); /* 16 * code - 32 */
    return _mm256_add_epi8(low, _mm256_shuffle_epi8(parts, plane2_pair(p.p2)));
}

/* 16 entries of the books of a pair of halves that have the selectors `first` and `second`. */
AVX2_INLINE __m256i pair_table(const int8_t *books, int first, int second, int bits, int part, int change) {
    __m256i table = book_table(books + ((size_t)first << bits), bits, part);
    if (change == BOOK_A_PAIR) return table;
    return _mm256_blend_epi32(table, book_table(books + ((size_t)second << bits), bits, part), 0xF0);
}

AVX2_INLINE __m256i levels_of_pair(const kvant_level_rows *r, planes p, int first, int second, int bits, int change) {
    __m256i table[2];
    table[0] = table[1] = pair_table(r->books, first, second, bits, 0, change);
    if (bits == 5) table[1] = pair_table(r->books, first, second, bits, 1, change);
    return levels_of(p, table, bits);
}

/* Rows whose blocks have books. A byte of selectors is for two pairs of halves, or for one where each half has its book. */
AVX2_INLINE void rows_with_books(int8_t *levels, const kvant_level_rows *rows, int bits, int change) {
    kvant_level_rows r = *rows; /* stores of levels cannot change it, which a compiler sees only here */
    const int pairs_a_byte = change == BOOK_A_PAIR ? 2 : 1;
    if (r.d % (2 * HALF * pairs_a_byte) == 0) { /* rows end with their bytes of selectors: one long row */
        r.d *= r.n;
        r.n = 1;
    }
    const int n_pair = r.d / (2 * HALF);
    const bool has_half = r.d % (2 * HALF) != 0;
    const uint8_t *selectors = r.selectors;
    size_t half = 0;
    for (int row = 0; row < r.n; row++) {
        int p = 0;
        for (; p + pairs_a_byte <= n_pair; p += pairs_a_byte, selectors++) {
            int first = *selectors & 15, second = *selectors >> 4;
            __m256i pair = levels_of_pair(&r, load_pair(&r, half, bits), first, second, bits, change);
            _mm256_storeu_si256((__m256i *)levels, pair);
            half += 2;
            levels += 2 * HALF;
            if (change == BOOK_A_HALF) continue;
            pair = levels_of_pair(&r, load_pair(&r, half, bits), second, second, bits, change);
            _mm256_storeu_si256((__m256i *)levels, pair);
            half += 2;
            levels += 2 * HALF;
        }
        if (p == n_pair && !has_half) continue;
        int first = *selectors & 15, last = p < n_pair ? *selectors >> 4 : first;
        selectors++;
        if (p < n_pair) {
            __m256i pair = levels_of_pair(&r, load_pair(&r, half, bits), first, first, bits, change);
            _mm256_storeu_si256((__m256i *)levels, pair);
            half += 2;
            levels += 2 * HALF;
        }
        if (!has_half) continue;
        __m256i rest = levels_of_pair(&r, load_half(&r, half, bits), last, last, bits, change);
        _mm_storeu_si128((__m128i *)levels, _mm256_castsi256_si128(rest));
        half++;
        levels += HALF;
    }
}

/* Rows with one book for all, or none at 6 bits: one long row. */
AVX2_INLINE void rows_with_one_book(int8_t *levels, const kvant_level_rows *rows, int bits) {
    const kvant_level_rows r = *rows;
    const size_t n_half = (size_t)r.n * (size_t)r.d / HALF;
    __m256i table[2] = {_mm256_setzero_si256(), _mm256_setzero_si256()};
    if (bits != 6) table[0] = book_table(r.books, bits, 0);
    if (bits == 5) table[1] = book_table(r.books, bits, 1);
    size_t half = 0;
    for (; half + 2 <= n_half; half += 2)
        _mm256_storeu_si256((__m256i *)(levels + half * HALF), levels_of(load_pair(&r, half, bits), table, bits));
    if (half == n_half) return;
    __m256i rest = levels_of(load_half(&r, half, bits), table, bits);
    _mm_storeu_si128((__m128i *)(levels + half * HALF), _mm256_castsi256_si128(rest));
}

AVX2_INLINE void any_books(int8_t *levels, const kvant_level_rows *r, int bits) {
    if (!r->selectors)
        rows_with_one_book(levels, r, bits);
    else if (r->block == HALF)
        rows_with_books(levels, r, bits, BOOK_A_HALF);
    else
        rows_with_books(levels, r, bits, BOOK_A_PAIR);
}

AVX2 static void avx2_levels1(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 1); }
AVX2 static void avx2_levels2(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 2); }
AVX2 static void avx2_levels3(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 3); }
AVX2 static void avx2_levels4(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 4); }
AVX2 static void avx2_levels5(int8_t *levels, const kvant_level_rows *r) { any_books(levels, r, 5); }
AVX2 static void avx2_levels6(int8_t *levels, const kvant_level_rows *r) { rows_with_one_book(levels, r, 6); }

/* ---- products of interleaved pairs ---- */

#define LANES 16        /* rows or elements at a time: two registers of sums */
#define MAX_COLUMNS 6   /* 12 sums, 2 registers of pairs and one of x: 15 of 16 registers */

/* 16 levels in 16 bits. */
AVX2_INLINE __m256i load_levels(const int8_t *p) { return _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)); }

/* Two registers of 8 pairs: (a[i], b[i]) for i = 0..3, 8..11, and for i = 4..7, 12..15. */
AVX2_INLINE void interleave(__m256i pair[2], const int8_t *a, const int8_t *b) {
    __m256i x = load_levels(a), y = load_levels(b);
    pair[0] = _mm256_unpacklo_epi16(x, y);
    pair[1] = _mm256_unpackhi_epi16(x, y);
}

/* sum[c][h] += pairs times x, over n_pair pairs: from `pairs` [n_pair][2 registers], or, where it is NULL, straight from rows of
 * levels of d elements. */
AVX2_INLINE void sum_pairs(__m256i sum[MAX_COLUMNS][2], const __m256i *pairs, const int8_t *levels, size_t d, const int16_t *x,
                           size_t x_stride, int n_pair, int columns) {
    UNROLL for (int c = 0; c < columns; c++) sum[c][0] = sum[c][1] = _mm256_setzero_si256();
    for (int p = 0; p < n_pair; p++) {
        __m256i pair[2];
        if (pairs) {
            pair[0] = _mm256_load_si256(pairs + 2 * p);
            pair[1] = _mm256_load_si256(pairs + 2 * p + 1);
        } else {
            interleave(pair, levels, levels + d);
            levels += 2 * d;
        }
        UNROLL for (int c = 0; c < columns; c++) {
            __m256i v = broadcast_32(x + (size_t)c * x_stride + 2 * p);
            UNROLL for (int h = 0; h < 2; h++) {
                sum[c][h] = _mm256_add_epi32(sum[c][h], _mm256_madd_epi16(pair[h], v));
                IN_THIS_ORDER(sum[c][h]);
            }
        }
    }
}

/* ---- weights times levels ---- */

/* 16 elements from element `at` on, for `columns` vectors of weights from vector c on. */
AVX2_INLINE void mix_columns(const kvant_mix_levels *p, size_t at, int c, int columns) {
    __m256i sum[MAX_COLUMNS][2];
    sum_pairs(sum, NULL, p->levels + at, (size_t)p->d, p->w + (size_t)c * ROWS, ROWS, ROWS / 2, columns);
    UNROLL for (int i = 0; i < columns; i++) {
        float *acc = p->acc + (size_t)(c + i) * p->acc_stride + at;
        __m256 scale = _mm256_broadcast_ss(p->w_scale + c + i);
        __m256i first = _mm256_permute2x128_si256(sum[i][0], sum[i][1], 0x20);
        __m256i second = _mm256_permute2x128_si256(sum[i][0], sum[i][1], 0x31);
        _mm256_storeu_ps(acc, _mm256_fmadd_ps(_mm256_cvtepi32_ps(first), scale, _mm256_loadu_ps(acc)));
        _mm256_storeu_ps(acc + 8, _mm256_fmadd_ps(_mm256_cvtepi32_ps(second), scale, _mm256_loadu_ps(acc + 8)));
    }
}

/* Interleaving again for each group of vectors costs less than keeping the pairs. */
AVX2 static void mix_elements(const kvant_mix_levels *p, size_t at) {
    int c = 0;
    for (; c + 10 <= p->n; c += 6)
        mix_columns(p, at, c, 6);
    for (; c + 7 <= p->n; c += 4)
        mix_columns(p, at, c, 4);
    switch (p->n - c) {
    case 6: mix_columns(p, at, c, 6); break;
    case 5: mix_columns(p, at, c, 5); break;
    case 4: mix_columns(p, at, c, 4); break;
    case 3: mix_columns(p, at, c, 3); break;
    case 2: mix_columns(p, at, c, 2); break;
    case 1: mix_columns(p, at, c, 1); break;
    default: break;
    }
}

static void avx2_mix_levels(const kvant_mix_levels *p) {
    for (size_t at = 0; at < (size_t)p->d; at += LANES) {
        prefetch_part(p->next, p->next_bytes, at / LANES, (size_t)p->d / LANES);
        mix_elements(p, at);
    }
}

/* ---- levels times queries ---- */

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

AVX2_INLINE void store_scores(const kvant_score_levels *p, int c, int r, __m256i sum) {
    __m256 scale = _mm256_mul_ps(_mm256_broadcast_ss(p->q_scale + c), _mm256_loadu_ps(p->row_scale + r));
    _mm256_storeu_ps(p->scores + (size_t)c * ROWS + r, _mm256_mul_ps(_mm256_cvtepi32_ps(sum), scale));
}

#define SCORE_COLUMNS 5

/* Scores of 8 rows, `rows` at a time, with `columns` queries from query c on: rows * columns sums in registers, at most 10. */
AVX2_INLINE void score_8_rows(const kvant_score_levels *p, int r, int c, int rows, int columns) {
    const size_t d = (size_t)p->d;
    const int16_t *q = p->q + (size_t)c * d;
    __m256i v[SCORE_COLUMNS][8]; /* [column][row] */
    for (int first = 0; first < 8; first += rows) {
        const int8_t *levels = p->levels + (size_t)(r + first) * d;
        __m256i sum[SCORE_COLUMNS][8];
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) sum[j][i] = _mm256_setzero_si256();
        for (size_t k = 0; k < d; k += HALF) {
            __m256i level[8];
            UNROLL for (int i = 0; i < rows; i++) level[i] = load_levels(levels + (size_t)i * d + k);
            UNROLL for (int j = 0; j < columns; j++) {
                __m256i x = _mm256_loadu_si256((const __m256i *)(q + (size_t)j * d + k));
                IN_THIS_ORDER(x); /* one load for all rows */
                UNROLL for (int i = 0; i < rows; i++) {
                    sum[j][i] = _mm256_add_epi32(sum[j][i], _mm256_madd_epi16(level[i], x));
                    IN_THIS_ORDER(sum[j][i]);
                }
            }
        }
        UNROLL for (int j = 0; j < columns; j++)
            UNROLL for (int i = 0; i < rows; i++) v[j][first + i] = sum[j][i];
    }
    UNROLL for (int j = 0; j < columns; j++) store_scores(p, c + j, r, add_lanes_of_8(v[j]));
}

AVX2 static void score_few(const kvant_score_levels *p) {
    for (int r = 0; r < ROWS; r += 8) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / 8, ROWS / 8);
        int c = 0;
        for (; c + 6 <= p->n; c += 4)
            score_8_rows(p, r, c, 2, 4);
        switch (p->n - c) {
        case 5: score_8_rows(p, r, c, 2, 5); break;
        case 4: score_8_rows(p, r, c, 2, 4); break;
        case 3: score_8_rows(p, r, c, 2, 3); break;
        case 2: score_8_rows(p, r, c, 4, 2); break;
        case 1: score_8_rows(p, r, c, 8, 1); break;
        default: break;
        }
    }
}

/* pairs[k][row] = elements 2k and 2k + 1 of each of 16 rows. */
AVX2_INLINE void interleave_16_rows(__m256i *pairs, const int8_t *levels, size_t d) {
    for (size_t k = 0; k < d; k += HALF)
        UNROLL for (size_t h = 0; h < 2; h++) {
            __m256i v[8], two[8], four[8];
            UNROLL for (size_t i = 0; i < 8; i++)
                v[i] = load_levels(levels + (8 * h + i) * d + k);
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
                pairs[k + 2 * j + h] = _mm256_permute2x128_si256(four[j], four[j + 4], 0x20);
                pairs[k + 8 + 2 * j + h] = _mm256_permute2x128_si256(four[j], four[j + 4], 0x31);
            }
        }
}

AVX2_INLINE void score_columns(const kvant_score_levels *p, const __m256i *pairs, int r, int c, int columns) {
    __m256i sum[MAX_COLUMNS][2];
    sum_pairs(sum, pairs, NULL, 0, p->q + (size_t)c * (size_t)p->d, (size_t)p->d, p->d / 2, columns);
    UNROLL for (int i = 0; i < columns; i++)
        UNROLL for (int h = 0; h < 2; h++) store_scores(p, c + i, r + 8 * h, sum[i][h]);
}

AVX2 static void score_many(const kvant_score_levels *p) {
    __m256i pairs[MAX_D];
    for (int r = 0; r < ROWS; r += LANES) {
        prefetch_part(p->next, p->next_bytes, (size_t)r / LANES, ROWS / LANES);
        interleave_16_rows(pairs, p->levels + (size_t)r * (size_t)p->d, (size_t)p->d);
        int c = 0;
        for (; c + MAX_COLUMNS <= p->n; c += MAX_COLUMNS)
            score_columns(p, pairs, r, c, MAX_COLUMNS);
        switch (p->n - c) {
        case 5: score_columns(p, pairs, r, c, 5); break;
        case 4: score_columns(p, pairs, r, c, 4); break;
        case 3: score_columns(p, pairs, r, c, 3); break;
        case 2: score_columns(p, pairs, r, c, 2); break;
        case 1: score_columns(p, pairs, r, c, 1); break;
        default: break;
        }
    }
}

/* Interleaving costs about as much as adding up the lanes of d / 16 sums a row. */
static void avx2_score_levels(const kvant_score_levels *p) {
    if (p->n <= 4 || p->n <= p->d / HALF)
        score_few(p);
    else
        score_many(p);
}

/* ---- vectors of 16 bits ---- */

AVX2_INLINE __m256 load_some(const float *p, int n) {
    float v[8] = {0};
    memcpy(v, p, (size_t)n * sizeof *p);
    return _mm256_loadu_ps(v);
}

/* Stores n <= 16 numbers of 16 bits, packed from two registers of 32 bits. */
AVX2_INLINE void store_words(int16_t *p, __m256i a, __m256i b, int n) {
    __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xD8);
    if (n >= 16) {
        _mm256_storeu_si256((__m256i *)p, words);
        return;
    }
    int16_t some[16];
    _mm256_storeu_si256((__m256i *)some, words);
    memcpy(p, some, (size_t)n * sizeof *p);
}

AVX2_INLINE __m256 load_up_to_8(const float *p, int n) {
    if (n >= 8) return _mm256_loadu_ps(p);
    return n > 0 ? load_some(p, n) : _mm256_setzero_ps();
}

AVX2_INLINE __m256i word_of(__m256 v, __m256 inverse) {
    v = _mm256_min_ps(_mm256_mul_ps(v, inverse), _mm256_set1_ps(32767.0f)); /* a NaN in the first operand gives the second */
    return _mm256_cvtps_epi32(_mm256_max_ps(v, _mm256_set1_ps(-32767.0f)));
}

AVX2 static float avx2_quantize_q16(int16_t *q, const float *x, int n) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    __m256 m0 = _mm256_setzero_ps(), m1 = m0;
    for (int i = 0; i < n; i += 16) {
        m0 = _mm256_max_ps(_mm256_andnot_ps(sign, load_up_to_8(x + i, n - i)), m0);
        m1 = _mm256_max_ps(_mm256_andnot_ps(sign, load_up_to_8(x + i + 8, n - i - 8)), m1);
    }
    m0 = _mm256_max_ps(m0, m1);
    __m128 m = _mm_max_ps(_mm256_castps256_ps128(m0), _mm256_extractf128_ps(m0, 1));
    m = _mm_max_ps(m, _mm_movehl_ps(m, m));
    float largest = _mm_cvtss_f32(_mm_max_ss(m, _mm_movehdup_ps(m)));
    __m256 inverse = _mm256_set1_ps(largest < KVANT_Q8_SMALLEST ? 0.0f : 32767.0f / largest);
    for (int i = 0; i < n; i += 16)
        store_words(q + i, word_of(load_up_to_8(x + i, n - i), inverse), word_of(load_up_to_8(x + i + 8, n - i - 8), inverse),
                    n - i);
    return largest < KVANT_Q8_SMALLEST ? 0.0f : largest / 32767.0f;
}

/* ---- the rotation ---- */

AVX2_INLINE __m256 negate(__m256 v, int lanes) {
    const int m = (int)0x80000000u;
    return _mm256_xor_ps(v, _mm256_castsi256_ps(_mm256_setr_epi32(0, lanes & 2 ? m : 0, lanes & 4 ? m : 0, lanes & 8 ? m : 0,
                                                                  lanes & 16 ? m : 0, lanes & 32 ? m : 0, lanes & 64 ? m : 0,
                                                                  lanes & 128 ? m : 0)));
}

/* h = 1, 2 and 4 within a register: each lane's partner plus the lane itself, negated where it is the second of the pair. */
AVX2_INLINE __m256 rotate_8(__m256 v) {
    v = _mm256_add_ps(_mm256_permute_ps(v, 0xB1), negate(v, 0xAA));
    v = _mm256_add_ps(_mm256_permute_ps(v, 0x4E), negate(v, 0xCC));
    return _mm256_add_ps(_mm256_permute2f128_ps(v, v, 1), negate(v, 0xF0));
}

AVX2_INLINE void rotate_pairs(__m256 v[8], int h, int count) {
    UNROLL for (int i = 0; i < count / 2; i++) {
        const int j = i / h * 2 * h + i % h;
        __m256 a = v[j], b = v[j + h];
        v[j] = _mm256_add_ps(a, b);
        v[j + h] = _mm256_sub_ps(a, b);
    }
}

/* `count` registers (1, 2, 4 or 8), `step` floats apart: the pairs h = step, 2 * step .. of them; h = 1, 2, 4 before where
 * is_first. */
AVX2_INLINE void rotate_registers(float *x, int step, int count, bool is_first) {
    __m256 v[8];
    UNROLL for (int i = 0; i < count; i++) {
        v[i] = _mm256_loadu_ps(x + i * step);
        if (is_first) v[i] = rotate_8(v[i]);
    }
    if (count >= 2) rotate_pairs(v, 1, count);
    if (count >= 4) rotate_pairs(v, 2, count);
    if (count >= 8) rotate_pairs(v, 4, count);
    UNROLL for (int i = 0; i < count; i++) _mm256_storeu_ps(x + i * step, v[i]);
}

AVX2 static void avx2_hadamard(float *x, int n) {
    if (n < 8) {
        for (int h = 1; h < n; h *= 2)
            for (int j = 0; j < n; j++) {
                if (j & h) continue;
                float a = x[j], b = x[j + h];
                x[j] = a + b;
                x[j + h] = a - b;
            }
        return;
    }
    switch (n) {
    case 8: rotate_registers(x, 8, 1, true); return;
    case 16: rotate_registers(x, 8, 2, true); return;
    case 32: rotate_registers(x, 8, 4, true); return;
    default: break;
    }
    for (int i = 0; i < n; i += 64)
        rotate_registers(x + i, 8, 8, true);
    for (int i = 0; i < 64 && n > 64; i += 8)
        switch (n) {
        case 128: rotate_registers(x + i, 64, 2, false); break;
        case 256: rotate_registers(x + i, 64, 4, false); break;
        default: rotate_registers(x + i, 64, 8, false); break;
        }
}

/* ---- the search for books ---- */

AVX2_INLINE __m256i cell_of(__m256 v, __m256 factor) {
    v = _mm256_floor_ps(_mm256_mul_ps(v, factor));
    v = _mm256_max_ps(v, _mm256_set1_ps(-KVANT_BOOK_CELLS / 2)); /* a NaN in the first operand gives the second */
    v = _mm256_min_ps(v, _mm256_set1_ps(KVANT_BOOK_CELLS / 2 - 1));
    return _mm256_add_epi32(_mm256_cvtps_epi32(v), _mm256_set1_epi32(KVANT_BOOK_CELLS / 2));
}

AVX2 static void avx2_book_cells(int16_t *cell, const float *x, float factor, int n) {
    const __m256 f = _mm256_set1_ps(factor);
    for (int i = 0; i < n; i += 16)
        store_words(cell + i, cell_of(load_up_to_8(x + i, n - i), f), cell_of(load_up_to_8(x + i + 8, n - i - 8), f), n - i);
}

/* A saturating sum of numbers that are not negative is the saturated sum, in any order. */
AVX2 static uint32_t avx2_search_books(uint8_t *book, const uint16_t (*errors)[KVANT_BOOKS], const int16_t *cell, int block,
                                       int n_block) {
    uint32_t total = 0;
    for (int b = 0; b < n_block; b++, cell += block) {
        __m256i sum[4];
        UNROLL for (int j = 0; j < 4; j++) sum[j] = _mm256_setzero_si256();
        for (int i = 0; i < block; i += 8) /* 16 or 32 */
            UNROLL for (int j = 0; j < 8; j++)
                sum[j % 4] = _mm256_adds_epu16(sum[j % 4], _mm256_loadu_si256((const __m256i *)errors[cell[i + j]]));
        sum[0] = _mm256_adds_epu16(_mm256_adds_epu16(sum[0], sum[1]), _mm256_adds_epu16(sum[2], sum[3]));
        uint32_t low = (uint32_t)_mm_cvtsi128_si32(_mm_minpos_epu16(_mm256_castsi256_si128(sum[0])));
        uint32_t high = (uint32_t)_mm_cvtsi128_si32(_mm_minpos_epu16(_mm256_extracti128_si256(sum[0], 1)));
        bool is_low = (low & 65535) <= (high & 65535);
        book[b] = (uint8_t)(is_low ? low >> 16 : (high >> 16) + 8);
        total += (is_low ? low : high) & 65535;
    }
    return total;
}

void kvant_kernels_avx2_levels4(int8_t *levels, const kvant_level_rows *rows) { avx2_levels4(levels, rows); }

void kvant_kernels_set_avx2_levels(kvant_kernels *k) {
    k->levels1 = avx2_levels1;
    k->levels2 = avx2_levels2;
    k->levels3 = avx2_levels3;
    k->levels4 = avx2_levels4;
    k->levels5 = avx2_levels5;
    k->levels6 = avx2_levels6;
    k->score_levels = avx2_score_levels;
    k->mix_levels = avx2_mix_levels;
    k->quantize_q16 = avx2_quantize_q16;
    k->hadamard = avx2_hadamard;
    k->book_cells = avx2_book_cells;
    k->search_books = avx2_search_books;
}

#else
typedef int kvant_kernel_levels_avx2_unused; /* a translation unit must not be empty */
#endif

// SPDX-License-Identifier: MIT
/* kernels.h: the contract of the hot loops.
 *
 * Everything that is multiplied in Kvant, weights and cache pages alike, is a *panel*: 16 rows (output features of a weight,
 * tokens of K, or elements of V) by k columns (the reduction), k a multiple of 32, interleaved so that a vector register holds
 * the same columns of all rows:
 *
 *   tile   expanded codes, one byte each: [k/4][16 rows][4 columns]. "u" tiles hold 0..63, "s" tiles hold -128..127.
 *   packed the same at b bits, 64*b bytes for each 32 columns (a block32), planes one after another inside the block32:
 *     8 bits       the tile itself (an "s" tile: code - 128, or a signed level)
 *     4-bit plane  256 B: [4][16][4]; byte (i, r, j): low nibble = column 8i + j, high nibble = column 8i + 4 + j
 *     2-bit plane  128 B: [2][16][4]; byte (i, r, j), bits 2m..2m+1 = column 16i + 4m + j, m = 0..3
 *     1-bit plane   64 B: [16][4];    byte (r, j), bit m = column 4m + j, m = 0..7
 *     b = 2: 2-bit plane. 3: 2-bit plane, then 1-bit plane (bit 2 of the code). 4: 4-bit plane. 5: 4-bit, then 1-bit (bit 4).
 *     6: 4-bit, then 2-bit (bits 4 and 5).
 *
 * A row's value is scale[row][block] * code + bias[row][block]; blocks are 16 or 32 columns (scale_block); scales and biases are
 * float [k/scale_block][16].
 * The other operand x is [n] vectors of k: float, or int8 in blocks of 32 with a float scale and the integer sums of each 16.
 *
 * Sums of integers are exact, and floats are added in one fixed order (block after block, fused multiply-add), so every
 * product below has the same bits at every level and for any n. Sizes are validated above; kernels cannot fail.
 * Pointers to tiles and packed panels are 64-byte aligned. */
#ifndef KVANT_KERNEL_KERNELS_H
#define KVANT_KERNEL_KERNELS_H

#include <stddef.h>
#include <stdint.h>

#define KVANT_PANEL_ROWS 16
#define KVANT_BLOCK 32
#define KVANT_Q8_SMALLEST 1e-36f /* below it 127 / max|x| would not be a float */

/* One product of a tile with n int8 vectors:
 * acc[c*acc_stride + r] = fma chain over blocks b in order of
 *     fma(scale[b][r] * x_scale[c][b32], (float)(sum over the block's columns of code * x), acc), then
 *     fma(bias[b][r], x_scale[c][b32] * (float)(sum of x over the block), acc)   (left out where bias is NULL).
 * scale NULL: all scales are 1 (then scale[b][r] * x_scale is x_scale). scale_block 16 or 32. */
typedef struct kvant_product_q8 {
    const uint8_t *tile;  /* [n_block*8][16][4] */
    const float *scale;   /* [n_block*32/scale_block][16] or NULL */
    const float *bias;    /* the same shape or NULL */
    int scale_block;      /* 16 or 32 */
    int n_block;          /* columns / 32 */
    int n;                /* vectors */
    const int8_t *x;      /* [n][x_stride], each in -127..127 */
    size_t x_stride;
    const float *x_scale; /* [n][x_scale_stride], one a block of 32 */
    size_t x_scale_stride;
    const int16_t *x_sum; /* [n][2*x_scale_stride], the sum of x over each 16 columns; needed without a bias too */
    float *acc;           /* [n][acc_stride], 16 used: read, added to, written */
    size_t acc_stride;
    int max_code;         /* the largest magnitude of a code, e.g. 15 for 4-bit u tiles; 0: unknown (63, s tiles 128). Smaller
                             codes can be summed longer in 16 bits, which is faster; the result is the same */
} kvant_product_q8;

/* One product of a float tile with n float vectors: acc[c][r] = fma(tile[j][r], x[c][j], acc[c][r]), j = 0..k-1 in order. */
typedef struct kvant_product_f32 {
    const void *tile; /* float or binary16 [k][16] */
    int k;            /* any value >= 0 */
    int n;
    const float *x;   /* [n][x_stride] */
    size_t x_stride;
    float *acc;       /* [n][acc_stride] */
    size_t acc_stride;
} kvant_product_f32;

/* ---- rows of levels: the vectors of a cache page in Kvant's own formats ----
 *
 * A vector of d elements (d a multiple of 16, at most 512) is a row of codes, in planes; each *half*, 16 elements, takes in
 *   plane4  8 bytes: byte j, low nibble = element j, high nibble = element 8 + j: bits 0..3 of the codes
 *   plane2  4 bytes: byte j, bits 2m..2m+1 = element 4m + j: the next two bits
 *   plane1  2 bytes, a little-endian 16-bit number: bit j = element j: the highest bit
 * so that a row of plane4 has d/2 bytes, of plane2 d/4, of plane1 d/8; rows lie one after another. The widths:
 *   1 bit: plane1. 2: plane2. 3: plane2, plane1. 4: plane4. 5: plane4, plane1. 6: plane4, plane2. 8: one byte an element, code - 128.
 * A *level* is the int8 that a code stands for: books[book][code] at 1 to 5 bits, code - 32 at 6. A block of `block` elements
 * (16 or 32; the last one of a row may be half as long) uses one of 16 books; its number, the selector, is 4 bits: row after row
 * of (blocks + 1) / 2 bytes, the low nibble first. selectors NULL: book 0. */
typedef struct kvant_level_rows {
    const uint8_t *plane4, *plane2, *plane1; /* NULL where the width has none */
    const uint8_t *selectors;                /* NULL: all blocks use book 0 */
    const int8_t *books;                     /* [16][1 << bits], or [1][1 << bits] without selectors; NULL at 6 bits */
    int block, d, n;                         /* n rows, 1..64 */
} kvant_level_rows;

/* Rows of levels times queries of 16 bits: scores[c*64 + r] = (float)(sum over i of levels[r][i] * q[c][i]) * (q_scale[c] *
 * row_scale[r]), r = 0..63, written. No sum leaves 32 bits. */
typedef struct kvant_score_levels {
    const int8_t *levels;   /* [64][d] */
    const float *row_scale; /* [64] */
    int d, n;
    const int16_t *q;       /* [n][d] */
    const float *q_scale;   /* [n] */
    float *scores;          /* [n][64] */
    const void *next;       /* a hint, or NULL: what is read next, e.g. the codes of the next page, is fetched meanwhile */
    size_t next_bytes;
} kvant_score_levels;

/* Rows of levels times queries of 8 bits, as quantize_pairs makes them: scores as above. At most KVANT_COLUMNS_MAX queries. */
#define KVANT_COLUMNS_MAX 96
typedef struct kvant_score_bytes {
    const int8_t *levels;   /* [64][d] */
    const float *row_scale; /* [64] */
    int d, n;
    const int8_t *q;        /* [n][d] */
    const float *q_scale;   /* [n] */
    float *scores;          /* [n][64] */
    const void *next;       /* as above */
    size_t next_bytes;
} kvant_score_bytes;

/* Weights of 16 bits times rows of levels: acc[c*acc_stride + i] = fma((float)(sum over r of w[c][r] * levels[r][i]), w_scale[c],
 * acc[c*acc_stride + i]), i = 0..d-1. */
typedef struct kvant_mix_levels {
    const int8_t *levels; /* [64][d] */
    int d, n;
    const int16_t *w;     /* [n][64] */
    const float *w_scale; /* [n] */
    float *acc;           /* [n][acc_stride] */
    size_t acc_stride;
    const void *next; /* as above */
    size_t next_bytes;
} kvant_mix_levels;

/* What the mean of the keys adds to the scores of a page. The numbers x of column c are pairs, re and im, that turn from token to
 * token: for each pair i
 *   re = x[2i] * centre[2i] - x[2i+1] * centre[2i+1], im = x[2i] * centre[2i+1] + x[2i+1] * centre[2i] (each product rounded)
 * and for u = 0..31, h = u / 16, sums over i in order, fused, from 0:
 *   even = sum of sides[h][i][0][u % 16] * re, odd = sum of sides[h][i][1][u % 16] * im
 *   scores[c*64 + 32 + u] += (even + odd) + mean[2 + h],  scores[c*64 + 31 - u] += (even - odd) + mean[1 - h]. */
#define KVANT_MEAN_PAIRS 8 /* most pairs */
typedef struct kvant_mean_scores {
    const float *centre; /* [2 n_pair]: cos, sin of the turn to the middle of the page */
    const float *sides;  /* [2][n_pair][2][16]: cos, -sin of the turn by u + 1/2 tokens */
    int n_pair, n;       /* n_pair may be 0 */
    const float *x;      /* [n][x_stride] */
    size_t x_stride;
    const float *mean;   /* [n][mean_stride], 4 used: what does not turn so fast, one number for each 16 tokens */
    size_t mean_stride;
    float *scores;       /* [n][64] */
} kvant_mean_scores;

/* The squared errors of a value under each of 16 books, on a grid: errors[cell][book] for the cells of book_cells, a cell being
 * half a unit of the levels wide. */
#define KVANT_BOOK_CELLS 768
#define KVANT_BOOKS 16

/* The list: KERNEL(return type, name, (parameters)). From it come the table, its reference initialisation, and the test loop:
 * tests/kernels must define check_<name> for each entry or it does not link. The contract of each: */

/* unpack_b: packed -> "u" tile of n_block block32s.
 * unpack_table4: 4-bit codes -> "s" tile through a table of 16 levels (IQ4_NL, MXFP4, block codebooks).
 * product_u: u tile. product_s: s tile. product_f32, product_f16: float and binary16 tiles.
 * tile_u_to_f32, tile_s_to_f32: out[k][16] = fma(scale, code, bias) per block (scale NULL: 1, bias NULL: 0).
 * quantize_q8: x[n] (n a multiple of 32) -> q, scale per 32 = max|x| / 127 (0 gives q = 0, scale 0), q = rint(x * (127 / max|x|)),
 *   in -127..127, x_sum per 16. Byte-identical at every level. max|x| under KVANT_Q8_SMALLEST counts as 0. x should be finite:
 *   an infinity makes the scale infinite, a NaN is quantized as 127.
 * weigh_q8: quantize_q8 of w[i] = x[i] * a[i]; returns dot_f32 of x and b. For weights of tokens times the scales and biases of V.
 * f16_to_f32, f32_to_f16: rows, as base/half.h.
 * levels1, levels2, levels3, levels4, levels5, levels6: rows of codes -> levels [n][d].
 * level_scales: 64 bytes e -> 2^((e - 161) / 8), and 0 for 0.
 * score_rows4: levels4, to `room` [64][d] if need be, then score_bytes with them (p->levels is not read). Few queries meet levels
 *   as they come from the codes.
 * score_levels, score_bytes, mix_levels, mean_scores: above.
 * quantize_q16: q = rint(x * (32767 / max|x|)) in -32767..32767; returns the scale, max|x| / 32767 (0 when max|x| is below
 *   KVANT_Q8_SMALLEST; then all q are 0). Byte-identical at every level; x should be finite: a NaN is quantized as 32767.
 * quantize_pairs: q = rint(x * (127 / m)), n a multiple of 16, m being the largest sum of the positive parts of x[2i] and x[2i+1],
 *   or of their negative parts: those of q add up to at most 128, so that products with bytes of 0..255 fit into 16 bits in pairs.
 *   Returns the scale, m / 127 (0 when m is below KVANT_Q8_SMALLEST; then all q are 0). Byte-identical at every level; x should
 *   be finite: a NaN gives 0, an infinity an infinite scale.
 * weigh_q16: quantize_q16 of x[i] * a[i], n <= 64.
 * hadamard: the unnormalised Walsh-Hadamard transform in place, n a power of two up to 512: for h = 1, 2, 4 .. n/2 every pair
 *   (x[j], x[j+h]) with j & h = 0 becomes (x[j] + x[j+h], x[j] - x[j+h]).
 * book_cells: cell[i] = 384 + floor(x[i] * factor), limited to 0..767 (a NaN is 0).
 * search_books: for each of n_block blocks of `block` cells: the book with the least sum of errors[cell][book], sums saturating at
 *   65535, the first one among equals -> book[b]; returns the total of those least sums.
 * dot_f32: sum of a*b in 8 interleaved partial sums (lane i sums j % 8 == i in order, fused), added as ((0+4)+(2+6))+((1+5)+(3+7)).
 * rms_norm: y = x / sqrt(mean(x^2) + eps) * weight (weight NULL: 1); the mean by dot_f32's order, and
 *   y = (x * r) * weight with r = 1 / sqrt(dot / n + eps). y may be x.
 * exp_sum: x[i] = exp(x[i] - max) for n values x <= max, max finite; returns their sum (dot_f32's order). Relative error under
 *   3e-7; exp of less than -87 and of -inf gives exactly 0; NaN stays NaN.
 * max_f32: the largest of n values, -inf for n = 0; NaN is passed over; -0 counts as 0.
 * scale_f32: x *= a.  add_f32: y += x.  add_scaled_f32: y = fma(a, x, y).
 * silu_mul: gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i].
 * gelu_mul: gate[i] = 0.5 g (1 + tanh(sqrt(2/pi) (g + 0.044715 g^3))) * up[i], computed as g * sigmoid.
 *   Both have relative error under 1e-6 of the float64 value, absolute under 1e-7 near 0. up NULL: 1. */
#define KVANT_KERNEL_LIST(KERNEL)                                                                                       \
    KERNEL(void, unpack2, (uint8_t * tile, const uint8_t *packed, int n_block))                                         \
    KERNEL(void, unpack3, (uint8_t * tile, const uint8_t *packed, int n_block))                                         \
    KERNEL(void, unpack4, (uint8_t * tile, const uint8_t *packed, int n_block))                                         \
    KERNEL(void, unpack5, (uint8_t * tile, const uint8_t *packed, int n_block))                                         \
    KERNEL(void, unpack6, (uint8_t * tile, const uint8_t *packed, int n_block))                                         \
    KERNEL(void, unpack_table4, (uint8_t * tile, const uint8_t *packed, int n_block, const int8_t *table))              \
    KERNEL(void, product_u, (const kvant_product_q8 *p))                                                                \
    KERNEL(void, product_s, (const kvant_product_q8 *p))                                                                \
    KERNEL(void, product_f32, (const kvant_product_f32 *p))                                                             \
    KERNEL(void, product_f16, (const kvant_product_f32 *p))                                                             \
    KERNEL(void, tile_u_to_f32,                                                                                         \
           (float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block, int n_block))      \
    KERNEL(void, tile_s_to_f32,                                                                                         \
           (float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block, int n_block))      \
    KERNEL(void, quantize_q8, (int8_t * q, float *scale, int16_t *sum, const float *x, int n))                          \
    KERNEL(float, weigh_q8,                                                                                             \
           (int8_t * q, float *scale, int16_t *sum, const float *x, const float *a, const float *b, int n))             \
    KERNEL(void, levels1, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, levels2, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, levels3, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, levels4, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, levels5, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, levels6, (int8_t * levels, const kvant_level_rows *rows))                                              \
    KERNEL(void, level_scales, (float *scale, const uint8_t *e))                                                        \
    KERNEL(void, score_levels, (const kvant_score_levels *p))                                                           \
    KERNEL(void, score_bytes, (const kvant_score_bytes *p))                                                             \
    KERNEL(void, score_rows4, (int8_t * room, const kvant_level_rows *rows, const kvant_score_bytes *p))                \
    KERNEL(void, mix_levels, (const kvant_mix_levels *p))                                                               \
    KERNEL(void, mean_scores, (const kvant_mean_scores *p))                                                             \
    KERNEL(float, quantize_q16, (int16_t * q, const float *x, int n))                                                   \
    KERNEL(float, quantize_pairs, (int8_t * q, const float *x, int n))                                                  \
    KERNEL(float, weigh_q16, (int16_t * q, const float *x, const float *a, int n))                                      \
    KERNEL(void, hadamard, (float *x, int n))                                                                           \
    KERNEL(void, book_cells, (int16_t * cell, const float *x, float factor, int n))                                     \
    KERNEL(uint32_t, search_books,                                                                                      \
           (uint8_t * book, const uint16_t (*errors)[KVANT_BOOKS], const int16_t *cell, int block, int n_block))        \
    KERNEL(void, f16_to_f32, (float *y, const uint16_t *x, int n))                                                      \
    KERNEL(void, f32_to_f16, (uint16_t * y, const float *x, int n))                                                     \
    KERNEL(float, dot_f32, (const float *a, const float *b, int n))                                                     \
    KERNEL(void, rms_norm, (float *y, const float *x, const float *weight, int n, float eps))                           \
    KERNEL(float, exp_sum, (float *x, int n, float max))                                                                \
    KERNEL(float, max_f32, (const float *x, int n))                                                                     \
    KERNEL(void, scale_f32, (float *x, float a, int n))                                                                 \
    KERNEL(void, add_f32, (float *y, const float *x, int n))                                                            \
    KERNEL(void, add_scaled_f32, (float *y, const float *x, float a, int n))                                            \
    KERNEL(void, silu_mul, (float *gate, const float *up, int n))                                                       \
    KERNEL(void, gelu_mul, (float *gate, const float *up, int n))

typedef struct kvant_kernels {
#define KVANT_KERNEL_FIELD(type, name, params) type(*name) params;
    KVANT_KERNEL_LIST(KVANT_KERNEL_FIELD)
#undef KVANT_KERNEL_FIELD
} kvant_kernels;

#endif

// SPDX-License-Identifier: MIT
/* weight.h: weight matrices in the formats of GGUF and of MLX, and the product of activations with them.
 *
 * A weight is repacked once, when it is loaded, into panels of 16 rows (kernel/kernels.h) at its own number of bits; nothing
 * is expanded to float as a whole. All formats share one product; a format is a row of traits and a function that takes one
 * block apart (weight_formats.h). */
#ifndef KVANT_WEIGHT_WEIGHT_H
#define KVANT_WEIGHT_WEIGHT_H

#include "base/context.h"
#include "base/status.h"

/* GGUF's tensor type numbers (ggml_type). MLX's quantized types are numbered in base/mlx_type.h; their codes alone count as the
 * bytes of a row. */
typedef enum kvant_weight_type {
    KVANT_W_F32 = 0, KVANT_W_F16 = 1, KVANT_W_Q4_0 = 2, KVANT_W_Q4_1 = 3, KVANT_W_Q5_0 = 6, KVANT_W_Q5_1 = 7, KVANT_W_Q8_0 = 8,
    KVANT_W_Q2_K = 10, KVANT_W_Q3_K = 11, KVANT_W_Q4_K = 12, KVANT_W_Q5_K = 13, KVANT_W_Q6_K = 14,
    KVANT_W_IQ4_NL = 20, KVANT_W_IQ4_XS = 23, KVANT_W_BF16 = 30, KVANT_W_MXFP4 = 39
} kvant_weight_type;

/* Elements and bytes of one block; false: a type that Kvant does not read. name is never NULL on success. */
typedef struct kvant_weight_traits {
    const char *name;
    int block_elements, block_bytes;
} kvant_weight_traits;
bool kvant_weight_type_traits(uint32_t type, kvant_weight_traits *out);

/* The bytes of a row of n elements, or KVANT_EFORMAT when n is not a multiple of the block. */
kvant_status kvant_weight_row_bytes(uint32_t type, int64_t n, size_t *out);

/* Decodes n elements (whole blocks) as they stand in a GGUF file. The reference of every format. */
void kvant_weight_decode_row(uint32_t type, const uint8_t *src, int64_t n, float *out);

/* Where the rows of a matrix lie: row_bytes apart (a multiple of the row's own bytes where rows of two matrices alternate). */
typedef struct kvant_weight_source {
    uint32_t type;
    const uint8_t *data;
    size_t row_bytes;
    const uint8_t *scales, *biases; /* MLX's types: of the groups of row 0; biases NULL for MXFP4 */
    size_t scale_row_bytes;         /* from the scales of a row to those of the next */
} kvant_weight_source;

/* The first n elements of a row (whole blocks) as floats. */
void kvant_weight_decode_source(const kvant_weight_source *source, int64_t row, int64_t n, float *out);

typedef struct kvant_weight kvant_weight;

/* Repacks rows x cols (cols is the reduction; src: rows of row_bytes each, as in the file) on the context's threads.
 * KVANT_ENOMEM; KVANT_EFORMAT when cols is not a multiple of the type's block. src is not needed afterwards. */
kvant_status kvant_weight_create(kvant_context *ctx, uint32_t type, const uint8_t *src, int64_t rows, int64_t cols,
                                 kvant_weight **out, kvant_error *err);
/* The same from any source. */
kvant_status kvant_weight_create_from(kvant_context *ctx, const kvant_weight_source *source, int64_t rows, int64_t cols,
                                      kvant_weight **out, kvant_error *err);
void kvant_weight_destroy(kvant_weight *w);
int64_t kvant_weight_rows(const kvant_weight *w);
int64_t kvant_weight_cols(const kvant_weight *w);
size_t kvant_weight_bytes(const kvant_weight *w);

/* Activations prepared for products: quantized once, used by every weight that reads the same x (wq, wk, wv). */
typedef struct kvant_activations kvant_activations;
/* Room for n_max rows of at most k_max columns. */
kvant_status kvant_activations_create(kvant_context *ctx, int n_max, int64_t k_max, kvant_activations **out);
void kvant_activations_destroy(kvant_activations *a);
/* x [n][k], kept as a pointer until the next set (KVANT_EXACT and float weights read it); quantized to int8 in blocks of 32
 * on the threads when precision is KVANT_FAST. k is padded with zeros to the next multiple of 32 (256 for K-quants never
 * needs more: their cols are multiples of 256). */
void kvant_activations_set(kvant_activations *a, const float *x, int n, int64_t k, kvant_precision precision);

/* out[i][row] = w[row] . x[i] (+ bias[row] where bias is not NULL) for the activations set last; out rows are out_stride
 * floats apart. F32, F16 and BF16 weights always multiply in float32. Runs on the context's threads; a row of out has the
 * same bits for any n and any number of threads. */
void kvant_weight_product(const kvant_weight *w, const kvant_activations *a, const float *bias, float *out, size_t out_stride);

#endif

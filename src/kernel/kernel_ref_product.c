// SPDX-License-Identifier: MIT
/* kernel_ref_product.c: unpacking and products of panels in portable C.
 *
 * This is the definition that every instruction level must equal bit for bit, so it is written to be read: one loop for each
 * index of the contract, no blocking, no vectors.
 *
 * Not here: kernels on plain float rows (kernel_ref_vector.c). */
#include <math.h>
#include <stdbool.h>

#include "base/half.h"
#include "kernel/kernel_ref.h"

#define ROWS KVANT_PANEL_ROWS
#define CHUNK 64                     /* bytes of a tile for 4 columns: [16 rows][4 columns] */
#define CHUNKS_A_BLOCK 8             /* 32 columns */
#define TILE_BLOCK (CHUNKS_A_BLOCK * CHUNK)
#define PLANE1 64
#define PLANE2 128
#define PLANE4 256

/* The bits that a plane holds for byte e of chunk c (columns 4c..4c+3) of a block. */
static uint8_t plane4_bits(const uint8_t *plane, int c, int e) { return (plane[c / 2 * CHUNK + e] >> (4 * (c % 2))) & 15; }
static uint8_t plane2_bits(const uint8_t *plane, int c, int e) { return (plane[c / 4 * CHUNK + e] >> (2 * (c % 4))) & 3; }
static uint8_t plane1_bits(const uint8_t *plane, int c, int e) { return (plane[e] >> c) & 1; }

static void ref_unpack2(uint8_t *tile, const uint8_t *packed, int n_block) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE2)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = plane2_bits(packed, c, e);
}

static void ref_unpack3(uint8_t *tile, const uint8_t *packed, int n_block) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE2 + PLANE1)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = (uint8_t)(plane2_bits(packed, c, e) | plane1_bits(packed + PLANE2, c, e) << 2);
}

static void ref_unpack4(uint8_t *tile, const uint8_t *packed, int n_block) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = plane4_bits(packed, c, e);
}

static void ref_unpack5(uint8_t *tile, const uint8_t *packed, int n_block) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4 + PLANE1)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = (uint8_t)(plane4_bits(packed, c, e) | plane1_bits(packed + PLANE4, c, e) << 4);
}

static void ref_unpack6(uint8_t *tile, const uint8_t *packed, int n_block) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4 + PLANE2)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = (uint8_t)(plane4_bits(packed, c, e) | plane2_bits(packed + PLANE4, c, e) << 4);
}

static void ref_unpack_table4(uint8_t *tile, const uint8_t *packed, int n_block, const int8_t *table) {
    for (int b = 0; b < n_block; b++, tile += TILE_BLOCK, packed += PLANE4)
        for (int c = 0; c < CHUNKS_A_BLOCK; c++)
            for (int e = 0; e < CHUNK; e++)
                tile[c * CHUNK + e] = (uint8_t)table[plane4_bits(packed, c, e)];
}

static int tile_code(const uint8_t *tile, int row, int column, bool is_signed) {
    uint8_t code = tile[column / 4 * CHUNK + row * 4 + column % 4];
    return is_signed ? (int8_t)code : code;
}

static void product_q8(const kvant_product_q8 *p, bool is_signed) {
    int per_block = p->scale_block, n_scale = p->n_block * KVANT_BLOCK / per_block;
    for (int c = 0; c < p->n; c++) {
        const int8_t *x = p->x + (size_t)c * p->x_stride;
        const float *x_scale = p->x_scale + (size_t)c * p->x_scale_stride;
        const int16_t *x_sum = p->x_sum + (size_t)c * 2 * p->x_scale_stride;
        float *acc = p->acc + (size_t)c * p->acc_stride;
        for (int b = 0; b < n_scale; b++) {
            float xs = x_scale[b * per_block / KVANT_BLOCK];
            int sum_x = per_block == 16 ? x_sum[b] : x_sum[2 * b] + x_sum[2 * b + 1];
            float bias_x = xs * (float)sum_x;
            for (int r = 0; r < ROWS; r++) {
                int sum = 0;
                for (int j = b * per_block; j < (b + 1) * per_block; j++)
                    sum += tile_code(p->tile, r, j, is_signed) * x[j];
                float factor = p->scale ? p->scale[b * ROWS + r] * xs : xs;
                acc[r] = fmaf(factor, (float)sum, acc[r]);
                if (p->bias) acc[r] = fmaf(p->bias[b * ROWS + r], bias_x, acc[r]);
            }
        }
    }
}

static void ref_product_u(const kvant_product_q8 *p) { product_q8(p, false); }
static void ref_product_s(const kvant_product_q8 *p) { product_q8(p, true); }

static void ref_product_f32(const kvant_product_f32 *p) {
    const float *tile = p->tile;
    for (int c = 0; c < p->n; c++) {
        const float *x = p->x + (size_t)c * p->x_stride;
        float *acc = p->acc + (size_t)c * p->acc_stride;
        for (int j = 0; j < p->k; j++)
            for (int r = 0; r < ROWS; r++)
                acc[r] = fmaf(tile[(size_t)j * ROWS + r], x[j], acc[r]);
    }
}

static void ref_product_f16(const kvant_product_f32 *p) {
    const uint16_t *tile = p->tile;
    for (int c = 0; c < p->n; c++) {
        const float *x = p->x + (size_t)c * p->x_stride;
        float *acc = p->acc + (size_t)c * p->acc_stride;
        for (int j = 0; j < p->k; j++)
            for (int r = 0; r < ROWS; r++)
                acc[r] = fmaf(kvant_f16_to_f32(tile[(size_t)j * ROWS + r]), x[j], acc[r]);
    }
}

static void tile_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block, int n_block,
                        bool is_signed) {
    for (int j = 0; j < n_block * KVANT_BLOCK; j++)
        for (int r = 0; r < ROWS; r++) {
            size_t at = (size_t)(j / scale_block) * ROWS + r;
            out[(size_t)j * ROWS + r] =
                fmaf(scale ? scale[at] : 1.0f, (float)tile_code(tile, r, j, is_signed), bias ? bias[at] : 0.0f);
        }
}

static void ref_tile_u_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                              int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, false);
}

static void ref_tile_s_to_f32(float *out, const uint8_t *tile, const float *scale, const float *bias, int scale_block,
                              int n_block) {
    tile_to_f32(out, tile, scale, bias, scale_block, n_block, true);
}

void kvant_kernels_set_ref_product(kvant_kernels *k) {
    k->unpack2 = ref_unpack2;
    k->unpack3 = ref_unpack3;
    k->unpack4 = ref_unpack4;
    k->unpack5 = ref_unpack5;
    k->unpack6 = ref_unpack6;
    k->unpack_table4 = ref_unpack_table4;
    k->product_u = ref_product_u;
    k->product_s = ref_product_s;
    k->product_f32 = ref_product_f32;
    k->product_f16 = ref_product_f16;
    k->tile_u_to_f32 = ref_tile_u_to_f32;
    k->tile_s_to_f32 = ref_tile_s_to_f32;
}

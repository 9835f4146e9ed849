// SPDX-License-Identifier: MIT
/* check_product.c: checks of the kernels that work on panels. */
#include <stdlib.h>
#include <string.h>

#include "base/half.h"
#include "kernel_test.h"

#define ROWS KVANT_PANEL_ROWS
#define TILE_BLOCK 512
#define COUNT(a) ((int)(sizeof(a) / sizeof((a)[0])))

/* ---- unpacking ---- */

static void check_unpack(void (*ref)(uint8_t *, const uint8_t *, int), void (*got)(uint8_t *, const uint8_t *, int), int bits) {
    for (int n_block = 0; n_block <= 9; n_block++) {
        const uint8_t *packed = guarded_random(SLOT_TILE, (size_t)n_block * 64 * (size_t)bits);
        size_t size = (size_t)n_block * TILE_BLOCK;
        uint8_t *a = guarded_random(SLOT_REF, size), *b = guarded_random(SLOT_GOT, size);
        ref(a, packed, n_block);
        got(b, packed, n_block);
        expect_same_bytes(a, b, size, "unpack%d, n_block %d", bits, n_block);
    }
}

void check_unpack2(const kvant_kernels *ref, const kvant_kernels *k) { check_unpack(ref->unpack2, k->unpack2, 2); }
void check_unpack3(const kvant_kernels *ref, const kvant_kernels *k) { check_unpack(ref->unpack3, k->unpack3, 3); }
void check_unpack4(const kvant_kernels *ref, const kvant_kernels *k) { check_unpack(ref->unpack4, k->unpack4, 4); }
void check_unpack5(const kvant_kernels *ref, const kvant_kernels *k) { check_unpack(ref->unpack5, k->unpack5, 5); }
void check_unpack6(const kvant_kernels *ref, const kvant_kernels *k) { check_unpack(ref->unpack6, k->unpack6, 6); }

void check_unpack_table4(const kvant_kernels *ref, const kvant_kernels *k) {
    for (int n_block = 0; n_block <= 9; n_block++) {
        const uint8_t *packed = guarded_random(SLOT_TILE, (size_t)n_block * 256);
        const int8_t *table = guarded_random(SLOT_SCALE, 16);
        size_t size = (size_t)n_block * TILE_BLOCK;
        uint8_t *a = guarded_random(SLOT_REF, size), *b = guarded_random(SLOT_GOT, size);
        ref->unpack_table4(a, packed, n_block, table);
        k->unpack_table4(b, packed, n_block, table);
        expect_same_bytes(a, b, size, "unpack_table4, n_block %d", n_block);
    }
}

/* ---- integer products ---- */

enum { RANDOM, ALL_LARGEST, ALL_LOWEST, ALTERNATING, N_FILLS };

typedef struct product_case {
    int n, n_block, scale_block, max_code, fill;
    bool is_signed, has_scale, has_bias, hard_floats;
} product_case;

static uint8_t case_code(const product_case *t, size_t i) {
    int largest = t->max_code ? t->max_code : t->is_signed ? 128 : 63;
    int highest = largest > 127 ? 127 : largest, lowest = t->is_signed ? -largest : 0;
    switch (t->fill) {
    case ALL_LARGEST: return (uint8_t)highest;
    case ALL_LOWEST: return (uint8_t)lowest;
    case ALTERNATING: return (uint8_t)(i % 2 ? highest : lowest);
    default: return (uint8_t)random_between(lowest, highest);
    }
}

static int8_t case_x(const product_case *t, int c, int j) {
    switch (t->fill) {
    case ALL_LARGEST: return c % 2 ? -127 : 127;
    case ALL_LOWEST: return c % 2 ? 127 : -127;
    case ALTERNATING: return (j + c) % 2 ? 127 : -127;
    default: return (int8_t)random_between(-127, 127);
    }
}

static float *random_scales(int slot, size_t n, bool hard) {
    float *s = guarded(slot, n * sizeof *s);
    for (size_t i = 0; i < n; i++)
        s[i] = hard ? random_hard_float() : random_float(0.1f);
    return s;
}

typedef void (*product_q8_fn)(const kvant_product_q8 *p);

static void check_product_case(product_q8_fn ref, product_q8_fn got, const product_case *t) {
    const int columns = t->n_block * KVANT_BLOCK, n_scale = t->n_block * KVANT_BLOCK / t->scale_block;
    const size_t n = (size_t)t->n, pad = (size_t)random_between(0, 1);
    uint8_t *tile = guarded(SLOT_TILE, (size_t)t->n_block * TILE_BLOCK);
    for (size_t i = 0; i < (size_t)t->n_block * TILE_BLOCK; i++)
        tile[i] = case_code(t, i);
    /* strides may be wider than what is used; the last vector need not have the gap after it */
    const size_t x_stride = (size_t)columns + 4 * pad, scale_stride = (size_t)t->n_block + pad, acc_stride = ROWS + 3 * pad;
    int8_t *x = guarded(SLOT_X, (n - 1) * x_stride + (size_t)columns);
    int16_t *x_sum = guarded(SLOT_X_SUM, ((n - 1) * 2 * scale_stride + 2 * (size_t)t->n_block) * sizeof *x_sum);
    for (int c = 0; c < t->n; c++)
        for (int h = 0; h < 2 * t->n_block; h++) {
            int sum = 0;
            for (int j = h * 16; j < h * 16 + 16; j++)
                sum += x[(size_t)c * x_stride + (size_t)j] = case_x(t, c, j);
            x_sum[(size_t)c * 2 * scale_stride + (size_t)h] = (int16_t)sum;
        }
    const size_t n_acc = (n - 1) * acc_stride + ROWS;
    float *a = guarded(SLOT_REF, n_acc * sizeof *a), *b = guarded(SLOT_GOT, n_acc * sizeof *b);
    for (size_t i = 0; i < n_acc; i++)
        a[i] = b[i] = t->hard_floats ? random_hard_float() : random_float(100.0f);
    kvant_product_q8 p = {
        .tile = tile,
        .scale = t->has_scale ? random_scales(SLOT_SCALE, (size_t)n_scale * ROWS, t->hard_floats) : NULL,
        .bias = t->has_bias ? random_scales(SLOT_BIAS, (size_t)n_scale * ROWS, t->hard_floats) : NULL,
        .scale_block = t->scale_block,
        .n_block = t->n_block,
        .n = t->n,
        .x = x,
        .x_stride = x_stride,
        .x_scale = random_scales(SLOT_X_SCALE, (n - 1) * scale_stride + (size_t)t->n_block, t->hard_floats),
        .x_scale_stride = scale_stride,
        .x_sum = x_sum,
        .acc = a,
        .acc_stride = acc_stride,
        .max_code = t->max_code,
    };
    ref(&p);
    p.acc = b;
    got(&p);
    expect_same_floats(a, b, n_acc,
                       "product_%s: n %d, n_block %d, scale_block %d, max_code %d, fill %d, scale %d, bias %d, hard %d",
                       t->is_signed ? "s" : "u", t->n, t->n_block, t->scale_block, t->max_code, t->fill, t->has_scale,
                       t->has_bias, t->hard_floats);
}

static void check_product_q8(product_q8_fn ref, product_q8_fn got, bool is_signed) {
    static const int counts[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 17, 33}, blocks[] = {1, 2, 3, 5, 8, 12, 33, 41};
    static const int codes_u[] = {0, 1, 3, 15, 16, 17, 31, 32, 33, 63}, codes_s[] = {0, 7, 12, 16, 17, 32, 33, 64, 65, 127, 128};
    const int *codes = is_signed ? codes_s : codes_u, n_codes = is_signed ? COUNT(codes_s) : COUNT(codes_u);
    for (int scale_block = 16; scale_block <= 32; scale_block += 16)
        for (int i = 0; i < COUNT(counts); i++)
            for (int m = 0; m < n_codes; m++)
                for (int fill = 0; fill < N_FILLS; fill++) {
                    uint32_t flags = random_u32();
                    product_case t = {.n = counts[i], .n_block = blocks[flags % COUNT(blocks)], .scale_block = scale_block,
                                      .max_code = codes[m], .fill = fill, .is_signed = is_signed, .has_scale = flags >> 8 & 1,
                                      .has_bias = flags >> 9 & 1, .hard_floats = (flags >> 10 & 3) == 0};
                    check_product_case(ref, got, &t);
                }
}

void check_product_u(const kvant_kernels *ref, const kvant_kernels *k) { check_product_q8(ref->product_u, k->product_u, false); }
void check_product_s(const kvant_kernels *ref, const kvant_kernels *k) { check_product_q8(ref->product_s, k->product_s, true); }

/* ---- float products ---- */

static void check_product_float(void (*ref)(const kvant_product_f32 *), void (*got)(const kvant_product_f32 *), bool is_half) {
    static const int ks[] = {0, 1, 2, 3, 7, 31, 64, 65};
    for (int n = 0; n <= 34; n = n < 20 ? n + 1 : n + 7)
        for (int i = 0; i < COUNT(ks); i++) {
            const size_t k = (size_t)ks[i], pad = (size_t)random_between(0, 3), x_stride = k + pad, acc_stride = ROWS + pad;
            const size_t n_x = n ? (size_t)(n - 1) * x_stride + k : 0, n_acc = n ? (size_t)(n - 1) * acc_stride + ROWS : 0;
            const bool hard = random_u32() % 3 == 0;
            float *x = random_scales(SLOT_X, n_x, hard), *tile = NULL;
            uint16_t *half = NULL;
            if (is_half) {
                half = guarded_random(SLOT_TILE, k * ROWS * sizeof *half);
                for (size_t j = 0; j < k * ROWS; j++) /* all binary16 values but NaN and infinity */
                    if ((half[j] & 0x7C00) == 0x7C00) half[j] &= 0x83FF;
            } else {
                tile = random_scales(SLOT_TILE, k * ROWS, hard);
            }
            float *a = random_scales(SLOT_REF, n_acc, hard), *b = guarded(SLOT_GOT, n_acc * sizeof *b);
            memcpy(b, a, n_acc * sizeof *b);
            kvant_product_f32 p = {.tile = is_half ? (const void *)half : tile, .k = ks[i], .n = n, .x = x, .x_stride = x_stride,
                                   .acc = a, .acc_stride = acc_stride};
            ref(&p);
            p.acc = b;
            got(&p);
            expect_same_floats(a, b, n_acc, "product_%s: n %d, k %d, hard %d", is_half ? "f16" : "f32", n, ks[i], hard);
        }
}

void check_product_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    check_product_float(ref->product_f32, k->product_f32, false);
}
void check_product_f16(const kvant_kernels *ref, const kvant_kernels *k) {
    check_product_float(ref->product_f16, k->product_f16, true);
}

/* ---- tiles to floats ---- */

typedef void (*tile_to_f32_fn)(float *, const uint8_t *, const float *, const float *, int, int);

static void check_tile_to_f32(tile_to_f32_fn ref, tile_to_f32_fn got, bool is_signed) {
    for (int n_block = 0; n_block <= 5; n_block++)
        for (int variant = 0; variant < 16; variant++) {
            const int scale_block = variant & 1 ? 16 : 32;
            const bool hard = variant & 2, has_scale = variant & 4, has_bias = variant & 8;
            const size_t n_scale = (size_t)(n_block * KVANT_BLOCK / scale_block * ROWS), n = (size_t)n_block * TILE_BLOCK;
            uint8_t *tile = guarded_random(SLOT_TILE, n);
            for (size_t i = 0; i < n && !is_signed; i++)
                tile[i] &= 63;
            const float *scale = has_scale ? random_scales(SLOT_SCALE, n_scale, hard) : NULL;
            const float *bias = has_bias ? random_scales(SLOT_BIAS, n_scale, hard) : NULL;
            float *a = guarded_random(SLOT_REF, n * sizeof *a), *b = guarded_random(SLOT_GOT, n * sizeof *b);
            ref(a, tile, scale, bias, scale_block, n_block);
            got(b, tile, scale, bias, scale_block, n_block);
            expect_same_floats(a, b, n, "tile_%s_to_f32: n_block %d, variant %d", is_signed ? "s" : "u", n_block, variant);
        }
}

void check_tile_u_to_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    check_tile_to_f32(ref->tile_u_to_f32, k->tile_u_to_f32, false);
}
void check_tile_s_to_f32(const kvant_kernels *ref, const kvant_kernels *k) {
    check_tile_to_f32(ref->tile_s_to_f32, k->tile_s_to_f32, true);
}

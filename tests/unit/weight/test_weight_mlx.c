// SPDX-License-Identifier: MIT
/* test_weight_mlx.c: MLX's quantized matrices: decoded as MLX defines them, multiplied as they decode, in all bits, groups and
 * types of scales, from rows that lie apart too. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/bytes.h"
#include "base/mlx_type.h"
#include "weight_test.h"

#define SEED 20261124
#define ROWS 21
#define COLS 640 /* a whole chunk of 512 columns and a part of one */
#define GAP 12   /* bytes between rows that are none of theirs */

typedef struct matrix {
    uint32_t type;
    kvant_weight_source source;
    uint8_t *memory;
    float *value; /* [ROWS][COLS], by the definition */
} matrix;

static const float fp4[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static void put_number(kvant_mlx_scale kind, uint8_t *p, float x) {
    if (kind == KVANT_MLX_F32) kvant_write_u32(p, kvant_f32_bits(x));
    if (kind == KVANT_MLX_F16) put_half(p, x);
    if (kind == KVANT_MLX_BF16) kvant_write_u16(p, (uint16_t)(kvant_f32_bits(x) >> 16));
}

static float get_number(kvant_mlx_scale kind, const uint8_t *p) {
    if (kind == KVANT_MLX_F32) return kvant_bits_f32(kvant_read_u32(p));
    return kind == KVANT_MLX_F16 ? kvant_f16_to_f32(kvant_read_u16(p)) : kvant_bf16_to_f32(kvant_read_u16(p));
}

/* Random codes; size: of the scales. */
static matrix make(int bits, int group, kvant_mlx_scale kind, float size, uint64_t *seed) {
    size_t row = COLS * (size_t)bits / 8 + GAP, number = (size_t)kvant_mlx_scale_bytes(kind),
           scale_row = COLS / (size_t)group * number + GAP;
    matrix m = {.type = KVANT_MLX_TYPE(bits, group, kind), .memory = malloc(ROWS * (row + 2 * scale_row))};
    m.value = malloc(ROWS * COLS * sizeof(float));
    assert_true(m.memory && m.value);
    uint8_t *scales = m.memory + ROWS * row, *biases = scales + ROWS * scale_row;
    for (size_t i = 0; i < ROWS * row; i++)
        m.memory[i] = (uint8_t)(next_random(seed) >> 32);
    for (size_t r = 0; r < ROWS; r++)
        for (int c = 0; c < COLS; c++) {
            size_t bit = (size_t)c * (size_t)bits, at = r * scale_row + (size_t)(c / group) * number;
            unsigned code = 0;
            for (size_t b = 0; b < (size_t)bits; b++)
                code |= (m.memory[r * row + (bit + b) / 8] >> ((bit + b) % 8) & 1u) << b;
            float *value = &m.value[r * COLS + (size_t)c];
            if (kind == KVANT_MLX_E8M0) {
                if (c % group == 0) scales[at] = (uint8_t)(120 + next_random(seed) % 12);
                *value = fp4[code] * ldexpf(1, scales[at] - 127);
                continue;
            }
            float scale = next_float(seed) * size, bias = next_float(seed) * size * (float)(1 << bits);
            if (c % group == 0) {
                put_number(kind, scales + at, scale);
                put_number(kind, biases + at, bias);
            }
            *value = get_number(kind, scales + at) * (float)code + get_number(kind, biases + at);
        }
    m.source = (kvant_weight_source){m.type, m.memory, row, scales, kind == KVANT_MLX_E8M0 ? NULL : biases, scale_row};
    return m;
}

static void destroy(matrix *m) {
    free(m->memory);
    free(m->value);
}

static void check_decode(const matrix *m, float size) {
    float x[COLS];
    for (int r = 0; r < ROWS; r++) {
        kvant_weight_decode_source(&m->source, r, COLS, x);
        for (int c = 0; c < COLS; c++) {
            float want = m->value[r * COLS + c];
            /* 8-bit codes are read as signed ones with a bias that makes up for it */
            if (!(fabsf(x[c] - want) <= 1e-5f * size * 256))
                fail_msg("type %x, row %d, column %d: found %.9g, expected %.9g", (unsigned)m->type, r, c, (double)x[c],
                         (double)want);
        }
    }
}

/* |found - exact| <= rounding of floats + (fast) half a step of x for each weight. */
static void check_product(const matrix *m, const float *x, const float *out, kvant_precision precision) {
    for (int r = 0; r < ROWS; r++) {
        double sum = 0, w2 = 0, x2 = 0, rounding = 0;
        for (int first = 0; first < COLS; first += 32) {
            double largest = 0, weight = 0;
            for (int c = first; c < first + 32; c++) {
                double w = (double)m->value[r * COLS + c];
                sum += w * (double)x[c];
                w2 += w * w;
                x2 += (double)x[c] * (double)x[c];
                weight += fabs(w);
                largest = fmax(largest, fabs((double)x[c]));
            }
            rounding += weight * largest / 127 * 0.5001;
        }
        double bound = 4e-5 * sqrt(w2) * sqrt(x2) + (precision == KVANT_FAST ? rounding : 0);
        if (!(fabs((double)out[r] - sum) <= bound))
            fail_msg("type %x, row %d, %s: found %.9g, expected %.9g within %.3g", (unsigned)m->type, r,
                     precision == KVANT_EXACT ? "exact" : "fast", (double)out[r], sum, bound);
    }
}

static void check_matrix(const matrix *m, float size, uint64_t *seed) {
    static const kvant_isa levels[] = {KVANT_ISA_REF, KVANT_ISA_BEST};
    float x[COLS], out[ROWS];
    check_decode(m, size);
    for (int c = 0; c < COLS; c++)
        x[c] = next_float(seed);
    for (int l = 0; l < 2; l++)
        for (int precision = KVANT_FAST; precision <= KVANT_EXACT; precision++) {
            kvant_context *ctx;
            kvant_weight *w;
            kvant_activations *a;
            kvant_error err;
            assert_int_equal(kvant_context_create(2, levels[l], &ctx, &err), KVANT_OK);
            if (kvant_weight_create_from(ctx, &m->source, ROWS, COLS, &w, &err) != KVANT_OK) fail_msg("%s", err.message);
            assert_int_equal(kvant_activations_create(ctx, 1, COLS, &a), KVANT_OK);
            kvant_activations_set(a, x, 1, COLS, (kvant_precision)precision);
            kvant_weight_product(w, a, NULL, out, ROWS);
            check_product(m, x, out, (kvant_precision)precision);
            kvant_activations_destroy(a);
            kvant_weight_destroy(w);
            kvant_context_destroy(ctx);
        }
}

static void affine_matrices_of_every_kind(void **state) {
    (void)state;
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    uint64_t seed = SEED;
    for (int b = 0; b < 6; b++)
        for (int g = 0; g < 3; g++)
            for (int kind = KVANT_MLX_F32; kind <= KVANT_MLX_BF16; kind++) {
                matrix m = make(bits[b], groups[g], (kvant_mlx_scale)kind, 0.01f, &seed);
                check_matrix(&m, 0.01f, &seed);
                destroy(&m);
            }
}

static void scales_beyond_half_precision_are_kept(void **state) {
    (void)state;
    uint64_t seed = SEED + 1;
    static const float sizes[] = {1e8f, 1e-12f};
    for (int kind = KVANT_MLX_F32; kind <= KVANT_MLX_BF16; kind += KVANT_MLX_BF16 - KVANT_MLX_F32)
        for (int i = 0; i < 2; i++) {
            matrix m = make(4, 64, (kvant_mlx_scale)kind, sizes[i], &seed);
            check_matrix(&m, sizes[i], &seed);
            destroy(&m);
        }
}

static void mxfp4_as_mlx_packs_it(void **state) {
    (void)state;
    uint64_t seed = SEED + 2;
    matrix m = make(4, 32, KVANT_MLX_E8M0, 1, &seed);
    check_matrix(&m, 0, &seed);
    destroy(&m);
}

static void columns_that_are_no_whole_groups_are_refused(void **state) {
    (void)state;
    uint64_t seed = SEED + 3;
    matrix m = make(4, 128, KVANT_MLX_F16, 1, &seed);
    kvant_context *ctx;
    kvant_weight *w = NULL;
    kvant_error err;
    assert_int_equal(kvant_context_create(1, KVANT_ISA_BEST, &ctx, &err), KVANT_OK);
    assert_int_equal(kvant_weight_create_from(ctx, &m.source, ROWS, 64, &w, &err), KVANT_EFORMAT);
    assert_non_null(strstr(err.message, "AFFINE4_G128"));
    m.source.type = KVANT_MLX_TYPE(7, 64, KVANT_MLX_F16);
    assert_int_equal(kvant_weight_create_from(ctx, &m.source, ROWS, COLS, &w, &err), KVANT_EUNSUPPORTED);
    kvant_context_destroy(ctx);
    destroy(&m);
}

int main(void) {
    printf("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(affine_matrices_of_every_kind),
        cmocka_unit_test(scales_beyond_half_precision_are_kept),
        cmocka_unit_test(mxfp4_as_mlx_packs_it),
        cmocka_unit_test(columns_that_are_no_whole_groups_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

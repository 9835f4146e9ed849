// SPDX-License-Identifier: MIT
/* test_weight_product.c: products of repacked weights against products of decoded rows in double precision, for every format;
 * the same bits for any number of vectors and threads; memory within a few per cent of the file's. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/memory.h"
#include "weight_test.h"

#define SEED 20240607
#define SPARE 5 /* floats between rows of the result: they must stay as they are */
#define UNTOUCHED 12345.0f

static const kvant_isa levels[] = {KVANT_ISA_REF, KVANT_ISA_BEST};

typedef struct product_case {
    uint32_t type;
    int rows, cols, n;
    size_t row_bytes, stride;
    uint8_t *data;
    float *x, *bias, *out;
} product_case;

static void make_case(product_case *c, uint32_t type, int rows, int cols, int n, uint64_t *seed) {
    *c = (product_case){.type = type, .rows = rows, .cols = cols, .n = n, .stride = (size_t)rows + SPARE};
    c->data = random_weight(type, rows, cols, &c->row_bytes, seed);
    c->x = malloc((size_t)n * (size_t)cols * sizeof(float));
    c->bias = malloc((size_t)rows * sizeof(float));
    c->out = malloc((size_t)n * c->stride * sizeof(float));
    assert_true(c->data && c->x && c->bias && c->out);
    for (int i = 0; i < n * cols; i++)
        c->x[i] = next_float(seed) * (1.0f + (float)(i % 7));
    for (int i = 0; i < rows; i++)
        c->bias[i] = next_float(seed);
}

static void free_case(product_case *c) {
    free(c->data);
    free(c->x);
    free(c->bias);
    free(c->out);
}

/* out = the product of the first n vectors of the case. */
static void run_case(product_case *c, kvant_isa isa, int threads, int n, kvant_precision precision, bool with_bias) {
    kvant_context *ctx;
    kvant_weight *w;
    kvant_activations *a;
    kvant_error err;
    assert_int_equal(kvant_context_create(threads, isa, &ctx, &err), KVANT_OK);
    assert_int_equal(kvant_weight_create(ctx, c->type, c->data, c->rows, c->cols, &w, &err), KVANT_OK);
    assert_int_equal(kvant_activations_create(ctx, c->n, c->cols, &a), KVANT_OK);
    for (size_t i = 0; i < (size_t)c->n * c->stride; i++)
        c->out[i] = UNTOUCHED;
    uint64_t before = kvant_alloc_count();
    kvant_activations_set(a, c->x, n, c->cols, precision);
    kvant_weight_product(w, a, with_bias ? c->bias : NULL, c->out, c->stride);
    assert_int_equal(kvant_alloc_count(), before);
    for (int i = 0; i < c->n; i++)
        for (size_t r = i < n ? (size_t)c->rows : 0; r < c->stride; r++)
            assert_true(c->out[(size_t)i * c->stride + r] == UNTOUCHED);
    kvant_activations_destroy(a);
    kvant_weight_destroy(w);
    kvant_context_destroy(ctx);
}

/* |out - exact| <= rounding of floats + (where integers are used) half a step of x for each weight. */
static void check_case(const product_case *c, kvant_precision precision, bool with_bias) {
    bool integers = precision == KVANT_FAST && !type_is_float(c->type);
    float *w = malloc((size_t)c->cols * sizeof(float));
    assert_non_null(w);
    for (int r = 0; r < c->rows; r++) {
        kvant_weight_decode_row(c->type, c->data + (size_t)r * c->row_bytes, c->cols, w);
        for (int i = 0; i < c->n; i++) {
            const float *x = c->x + (size_t)i * (size_t)c->cols;
            double sum = with_bias ? c->bias[r] : 0, w2 = 0, x2 = 0, rounding = 0;
            for (int first = 0; first < c->cols; first += 32) {
                double largest = 0, weight = 0;
                for (int j = first; j < first + 32 && j < c->cols; j++) {
                    sum += (double)w[j] * x[j];
                    w2 += (double)w[j] * w[j];
                    x2 += (double)x[j] * x[j];
                    weight += fabs((double)w[j]);
                    largest = fmax(largest, fabs((double)x[j]));
                }
                rounding += weight * largest / 127 * 0.5001;
            }
            double bound = (1e-5 * sqrt(w2) + 1e-6) * sqrt(x2) + (integers ? rounding : 0);
            double got = c->out[(size_t)i * c->stride + (size_t)r];
            if (!(fabs(got - sum) <= bound))
                fail_msg("%s %dx%d, row %d, vector %d of %d, %s: found %.9g, expected %.9g within %.3g", type_name(c->type),
                         c->rows, c->cols, r, i, c->n, precision == KVANT_EXACT ? "exact" : "fast", got, sum, bound);
        }
    }
    free(w);
}

static void products_equal_those_of_decoded_rows(void **state) {
    (void)state;
    static const struct {
        int rows, cols, n;
    } shapes[] = {{1, 256, 1}, {16, 512, 3}, {17, 1280, 5}, {50, 256, 2}, {33, 2304, 1}, {5, 1024, 140}};
    uint64_t seed = SEED;
    for (int t = 0; t < N_TYPES; t++)
        for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++)
            for (size_t l = 0; l < 2; l++) {
                product_case c;
                bool with_bias = s % 2 == 1;
                make_case(&c, all_types[t], shapes[s].rows, shapes[s].cols, shapes[s].n, &seed);
                for (int precision = KVANT_FAST; precision <= KVANT_EXACT; precision++) {
                    run_case(&c, levels[l], 2, c.n, (kvant_precision)precision, with_bias);
                    check_case(&c, (kvant_precision)precision, with_bias);
                }
                free_case(&c);
            }
}

static void formats_with_short_blocks_take_any_multiple_of_them(void **state) {
    (void)state;
    uint64_t seed = SEED + 1;
    for (int t = 0; t < N_TYPES; t++) {
        kvant_weight_traits traits;
        assert_true(kvant_weight_type_traits(all_types[t], &traits));
        if (traits.block_elements == 256) continue;
        int few = traits.block_elements, odd = traits.block_elements == 1 ? 1037 : 1056;
        for (int cols = few; cols <= odd; cols += odd - few) {
            product_case c;
            make_case(&c, all_types[t], 19, cols, 7, &seed);
            for (int precision = KVANT_FAST; precision <= KVANT_EXACT; precision++) {
                run_case(&c, KVANT_ISA_BEST, 2, c.n, (kvant_precision)precision, true);
                check_case(&c, (kvant_precision)precision, true);
            }
            free_case(&c);
        }
    }
}

static void bits_depend_neither_on_vectors_nor_on_threads_nor_on_level(void **state) {
    (void)state;
    enum { N = 64, ROWS = 37, COLS = 1536 };
    static const int counts[] = {1, 3, 7, N};
    uint64_t seed = SEED + 2;
    for (int t = 0; t < N_TYPES; t++)
        for (int precision = KVANT_FAST; precision <= KVANT_EXACT; precision++) {
            product_case c;
            make_case(&c, all_types[t], ROWS, COLS, N, &seed);
            run_case(&c, KVANT_ISA_REF, 1, N, (kvant_precision)precision, true);
            size_t bytes = (size_t)N * c.stride * sizeof(float);
            float *want = malloc(bytes);
            assert_non_null(want);
            memcpy(want, c.out, bytes);
            for (int threads = 1; threads <= 3; threads++)
                for (int i = 0; i < 4; i++) {
                    run_case(&c, KVANT_ISA_BEST, threads, counts[i], (kvant_precision)precision, true);
                    for (int v = 0; v < counts[i]; v++)
                        if (memcmp(want + (size_t)v * c.stride, c.out + (size_t)v * c.stride, ROWS * sizeof(float)) != 0)
                            fail_msg("%s: vector %d of %d on %d threads has other bits", type_name(c.type), v, counts[i],
                                     threads);
                }
            free(want);
            free_case(&c);
        }
}

/* wq, wk, wv read the same x, and one workspace serves layers of different widths. */
static void activations_serve_many_weights_and_widths(void **state) {
    (void)state;
    uint64_t seed = SEED + 3;
    kvant_context *ctx;
    kvant_activations *a;
    assert_int_equal(kvant_context_create(2, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    assert_int_equal(kvant_activations_create(ctx, 9, 1536, &a), KVANT_OK);
    for (int round = 0; round < 6; round++) {
        product_case c;
        make_case(&c, all_types[3 + round], 20, round % 2 ? 512 : 1536, 1 + round, &seed);
        kvant_activations_set(a, c.x, c.n, c.cols, round == 4 ? KVANT_EXACT : KVANT_FAST);
        for (int repeat = 0; repeat < 2; repeat++) {
            kvant_weight *w;
            assert_int_equal(kvant_weight_create(ctx, c.type, c.data, c.rows, c.cols, &w, NULL), KVANT_OK);
            assert_int_equal(kvant_weight_rows(w), c.rows);
            assert_int_equal(kvant_weight_cols(w), c.cols);
            kvant_weight_product(w, a, NULL, c.out, c.stride);
            check_case(&c, round == 4 ? KVANT_EXACT : KVANT_FAST, false);
            kvant_weight_destroy(w);
        }
        free_case(&c);
    }
    kvant_activations_destroy(a);
    kvant_context_destroy(ctx);
}

static void weights_stay_at_the_size_of_the_file(void **state) {
    (void)state;
    uint64_t seed = SEED + 4;
    kvant_context *ctx;
    assert_int_equal(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL), KVANT_OK);
    for (int t = 0; t < N_TYPES; t++) {
        size_t row_bytes;
        kvant_weight *w;
        uint8_t *data = random_weight(all_types[t], 64, 1024, &row_bytes, &seed);
        assert_int_equal(kvant_weight_create(ctx, all_types[t], data, 64, 1024, &w, NULL), KVANT_OK);
        double ratio = (double)kvant_weight_bytes(w) / (64.0 * (double)row_bytes);
        if (!(ratio >= 1.0 && ratio <= 1.06)) fail_msg("%s: %.4f times the bytes of the file", type_name(all_types[t]), ratio);
        kvant_weight_destroy(w);
        free(data);
    }
    kvant_context_destroy(ctx);
}

static void wrong_shapes_and_types_are_refused_with_a_sentence(void **state) {
    (void)state;
    static const struct {
        uint32_t type;
        int64_t rows, cols;
        kvant_status want;
    } cases[] = {{KVANT_W_Q4_0, 16, 48, KVANT_EFORMAT},      {KVANT_W_Q4_K, 16, 128, KVANT_EFORMAT},
                 {KVANT_W_Q4_0, 0, 32, KVANT_EFORMAT},       {KVANT_W_Q4_0, 16, 0, KVANT_EFORMAT},
                 {KVANT_W_F32, -1, 32, KVANT_EFORMAT},       {KVANT_W_F32, 16, -32, KVANT_EFORMAT},
                 {KVANT_W_F32, INT64_MAX, 1, KVANT_EFORMAT}, {KVANT_W_F32, 1, INT64_C(1) << 32, KVANT_EFORMAT},
                 {4, 16, 32, KVANT_EUNSUPPORTED},            {9999, 16, 32, KVANT_EUNSUPPORTED}};
    static const uint8_t data[64];
    kvant_context *ctx;
    assert_int_equal(kvant_context_create(1, KVANT_ISA_REF, &ctx, NULL), KVANT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        kvant_weight *w = NULL;
        kvant_error err = {.message = ""};
        assert_int_equal(kvant_weight_create(ctx, cases[i].type, data, cases[i].rows, cases[i].cols, &w, &err), cases[i].want);
        assert_null(w);
        assert_int_equal(err.status, cases[i].want);
        assert_true(strlen(err.message) > 10);
    }
    kvant_activations *a = NULL;
    assert_int_equal(kvant_activations_create(ctx, 0, 32, &a), KVANT_EINVAL);
    assert_int_equal(kvant_activations_create(ctx, 1, 0, &a), KVANT_EINVAL);
    assert_null(a);
    kvant_context_destroy(ctx);
}

int main(void) {
    printf("seed %d\n", SEED);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_equal_those_of_decoded_rows),
        cmocka_unit_test(formats_with_short_blocks_take_any_multiple_of_them),
        cmocka_unit_test(bits_depend_neither_on_vectors_nor_on_threads_nor_on_level),
        cmocka_unit_test(activations_serve_many_weights_and_widths),
        cmocka_unit_test(weights_stay_at_the_size_of_the_file),
        cmocka_unit_test(wrong_shapes_and_types_are_refused_with_a_sentence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

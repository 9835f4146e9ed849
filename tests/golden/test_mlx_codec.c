// SPDX-License-Identifier: MIT
/* test_mlx_codec.c: kvant_affine_quantize gives the codes, scales and biases of mx.quantize, bit for bit.
 *
 * Two sources: tests/golden/affine/affine.bin (scripts/make_affine_golden.py, a second implementation of the rule), and arrays
 * that MLX itself wrote (KVANT_DATA/mlx/codec/codec.safetensors; skipped where it is absent). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "base/bytes.h"
#include "base/half.h"
#include "kvant/kvant.h"

#define COLUMNS 128

static const int all_bits[] = {2, 3, 4, 5, 6, 8}, all_groups[] = {32, 64, 128};

typedef struct blob {
    uint8_t *data;
    size_t size;
} blob;

static blob read_file(const char *path) {
    blob b = {NULL, 0};
    FILE *f = fopen(path, "rb");
    if (!f) return b;
    fseek(f, 0, SEEK_END);
    b.size = (size_t)ftell(f);
    rewind(f);
    b.data = malloc(b.size + 1);
    if (!b.data || fread(b.data, 1, b.size, f) != b.size) fail_msg("%s: cannot be read", path);
    fclose(f);
    return b;
}

/* Codes, scales and biases of x [rows][COLUMNS]; the caller frees codes. */
static void quantize(const float *x, int rows, int bits, int group, uint8_t **codes, uint16_t **scales, uint16_t **biases) {
    size_t n = (size_t)rows * COLUMNS;
    *codes = malloc(n);
    *scales = malloc(n / (size_t)group * 2);
    *biases = malloc(n / (size_t)group * 2);
    assert_int_equal(kvant_affine_quantize(x, (int)(n / (size_t)group), bits, group, *codes, *scales, *biases), KVANT_OK);
}

static void expect_halves(const char *what, const uint16_t *found, const uint8_t *expected, int n) {
    for (int i = 0; i < n; i++)
        if (found[i] != kvant_read_u16(expected + 2 * i))
            fail_msg("%s %d: found %04x, expected %04x", what, i, found[i], kvant_read_u16(expected + 2 * i));
}

static void codes_are_those_of_a_second_implementation(void **state) {
    (void)state;
    blob b = read_file(KVANT_SOURCE "/tests/golden/affine/affine.bin");
    assert_non_null(b.data);
    int rows = (int)kvant_read_u32(b.data);
    size_t n = (size_t)rows * COLUMNS;
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = kvant_bits_f32(kvant_read_u32(b.data + 4 + 4 * i));
    const uint8_t *p = b.data + 4 + 4 * n;
    for (size_t i = 0; i < 6; i++)
        for (size_t j = 0; j < 3; j++) {
            uint8_t *codes;
            uint16_t *scales, *biases;
            int groups = (int)n / all_groups[j];
            quantize(x, rows, all_bits[i], all_groups[j], &codes, &scales, &biases);
            print_message("%d bits, groups of %d\n", all_bits[i], all_groups[j]);
            assert_memory_equal(codes, p, n);
            expect_halves("scale", scales, p + n, groups);
            expect_halves("bias", biases, p + n + 2 * (size_t)groups, groups);
            p += n + 4 * (size_t)groups;
            free(codes);
            free(scales);
            free(biases);
        }
    assert_ptr_equal(p, b.data + b.size);
    free(x);
    free(b.data);
}

/* The bytes of a tensor, and its rows. */
static const uint8_t *tensor(const json_t *header, const blob *b, size_t base, const char *name, int *rows) {
    json_int_t begin, end, n;
    json_t *t = json_object_get(header, name);
    if (!t || json_unpack(t, "{s:[I,I], s:[I]}", "data_offsets", &begin, &end, "shape", &n) != 0) fail_msg("%s: not there", name);
    assert_true(begin >= 0 && begin <= end && base + (size_t)end <= b->size);
    *rows = (int)n;
    return b->data + base + begin;
}

/* Code i of a row: a little-endian stream of bits in 32-bit words. */
static int code_at(const uint8_t *row, int bits, int i) {
    int at = i * bits, code = row[at / 8] >> at % 8;
    if (at % 8 + bits > 8) code |= row[at / 8 + 1] << (8 - at % 8);
    return code & ((1 << bits) - 1);
}

static void compare_set(const json_t *header, const blob *b, size_t base, bool is_half) {
    char name[64];
    int rows;
    const char *set = is_half ? "f16" : "f32";
    snprintf(name, sizeof name, "%s.x", set);
    const uint8_t *raw = tensor(header, b, base, name, &rows);
    size_t n = (size_t)rows * COLUMNS;
    float *x = malloc(n * sizeof *x);
    for (size_t i = 0; i < n; i++)
        x[i] = is_half ? kvant_f16_to_f32(kvant_read_u16(raw + 2 * i)) : kvant_bits_f32(kvant_read_u32(raw + 4 * i));
    for (size_t i = 0; i < 6 * 3; i++) {
        int bits = all_bits[i / 3], group = all_groups[i % 3], groups = (int)n / group;
        uint8_t *codes;
        uint16_t *found[2];
        quantize(x, rows, bits, group, &codes, &found[0], &found[1]);
        snprintf(name, sizeof name, "%s.b%d.g%d.w", set, bits, group);
        const uint8_t *w = tensor(header, b, base, name, &rows);
        for (size_t c = 0; c < n; c++) {
            int expected = code_at(w + c / COLUMNS * (size_t)(COLUMNS * bits / 8), bits, (int)(c % COLUMNS));
            if (codes[c] != expected)
                fail_msg("%s, row %zu, column %zu: found %d, expected %d", name, c / COLUMNS, c % COLUMNS, codes[c], expected);
        }
        for (int side = 0; side < 2; side++) {
            snprintf(name, sizeof name, "%s.b%d.g%d.%s", set, bits, group, side ? "biases" : "scales");
            const uint8_t *p = tensor(header, b, base, name, &rows);
            for (int g = 0; g < groups; g++) {
                uint16_t expected =
                    is_half ? kvant_read_u16(p + 2 * g) : kvant_f32_to_f16(kvant_bits_f32(kvant_read_u32(p + 4 * g)));
                if (found[side][g] != expected) fail_msg("%s %d: found %04x, expected %04x", name, g, found[side][g], expected);
            }
        }
        free(codes);
        free(found[0]);
        free(found[1]);
    }
    free(x);
}

static void codes_are_those_of_mlx(void **state) {
    (void)state;
    const char *path = KVANT_DATA "/mlx/codec/codec.safetensors";
    blob b = read_file(path);
    if (!b.data) {
        print_message("skipped: %s is absent\n", path);
        skip();
    }
    size_t header_size = kvant_read_u64(b.data);
    assert_true(header_size < b.size - 8);
    json_t *header = json_loadb((const char *)b.data + 8, header_size, 0, NULL);
    assert_non_null(header);
    compare_set(header, &b, 8 + header_size, true);
    compare_set(header, &b, 8 + header_size, false);
    json_decref(header);
    free(b.data);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(codes_are_those_of_a_second_implementation),
                                       cmocka_unit_test(codes_are_those_of_mlx)};
    return cmocka_run_group_tests_name("mlx codec", tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_weight_decode.c: rows of every format decode to what gguf-py decodes them to (scripts/make_weight_golden.py), and sizes of
 * rows are what the formats say. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "base/bytes.h"
#include "weight_test.h"

#define GOLDEN KVANT_SOURCE "/tests/golden/weights/weights.bin"
#define MAX_GOLDEN (1 << 20)

static uint8_t golden[MAX_GOLDEN];

static void every_format_decodes_as_gguf_does(void **state) {
    (void)state;
    FILE *f = fopen(GOLDEN, "rb");
    if (!f) fail_msg("%s cannot be opened", GOLDEN);
    size_t size = fread(golden, 1, sizeof golden, f);
    fclose(f);
    bool seen[64] = {false};
    for (size_t at = 0; at < size;) {
        assert_true(at + 12 <= size);
        uint32_t type = kvant_read_u32(golden + at), n = kvant_read_u32(golden + at + 4), bytes = kvant_read_u32(golden + at + 8);
        size_t row_bytes;
        assert_true(type < 64 && at + 12 + bytes + 4 * (size_t)n <= size);
        assert_int_equal(kvant_weight_row_bytes(type, n, &row_bytes), KVANT_OK);
        assert_int_equal(row_bytes, bytes);
        const uint8_t *row = golden + at + 12, *want = row + bytes;
        float *got = malloc(n * sizeof(float));
        assert_non_null(got);
        kvant_weight_decode_row(type, row, n, got);
        for (uint32_t i = 0; i < n; i++) {
            float w = kvant_bits_f32(kvant_read_u32(want + 4 * i));
            if (!(fabsf(got[i] - w) <= 1e-6f * fabsf(w)))
                fail_msg("%s element %u: found %.9g, expected %.9g", type_name(type), i, (double)got[i], (double)w);
        }
        free(got);
        seen[type] = true;
        at += 12 + bytes + 4 * (size_t)n;
    }
    for (int i = 0; i < N_TYPES; i++)
        if (!seen[all_types[i]]) fail_msg("no golden row of %s", type_name(all_types[i]));
}

static void decoding_reads_nothing_beyond_the_row(void **state) {
    (void)state;
    uint64_t seed = 3;
    for (int i = 0; i < N_TYPES; i++) {
        size_t row_bytes;
        uint8_t *data = random_weight(all_types[i], 1, 512, &row_bytes, &seed);
        float whole[512], half[256];
        assert_non_null(data);
        kvant_weight_decode_row(all_types[i], data, 512, whole);
        uint8_t *exact = malloc(row_bytes / 2); /* sanitizers see a byte too many */
        assert_non_null(exact);
        memcpy(exact, data, row_bytes / 2);
        kvant_weight_decode_row(all_types[i], exact, 256, half);
        assert_memory_equal(whole, half, sizeof half);
        free(exact);
        free(data);
    }
}

static void unknown_types_and_broken_blocks_are_refused(void **state) {
    (void)state;
    kvant_weight_traits t;
    size_t bytes = 77;
    assert_false(kvant_weight_type_traits(4, &t));
    assert_false(kvant_weight_type_traits(UINT32_MAX, &t));
    assert_int_not_equal(kvant_weight_row_bytes(4, 32, &bytes), KVANT_OK);
    assert_int_equal(kvant_weight_row_bytes(KVANT_W_Q4_0, 31, &bytes), KVANT_EFORMAT);
    assert_int_equal(kvant_weight_row_bytes(KVANT_W_Q4_K, 32, &bytes), KVANT_EFORMAT);
    assert_int_equal(kvant_weight_row_bytes(KVANT_W_Q4_0, -32, &bytes), KVANT_EFORMAT);
    assert_int_equal(kvant_weight_row_bytes(KVANT_W_F32, INT64_MAX, &bytes), KVANT_EFORMAT);
    assert_int_equal(bytes, 77);
    assert_int_equal(kvant_weight_row_bytes(KVANT_W_Q6_K, 512, &bytes), KVANT_OK);
    assert_int_equal(bytes, 420);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_format_decodes_as_gguf_does),
        cmocka_unit_test(decoding_reads_nothing_beyond_the_row),
        cmocka_unit_test(unknown_types_and_broken_blocks_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

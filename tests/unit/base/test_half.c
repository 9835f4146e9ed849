// SPDX-License-Identifier: MIT
/* test_half.c: the 16-bit floats agree with IEEE 754 for every value, at every border between two of them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>

#include "base/half.h"

/* The value by the definition, in double. */
static double half_value(uint16_t h) {
    int exponent = (h >> 10) & 31, mantissa = h & 0x3FF;
    double magnitude = exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h & 0x8000 ? -magnitude : magnitude;
}

static int is_nan(uint16_t h) { return (h & 0x7C00) == 0x7C00 && (h & 0x3FF) != 0; }

static void all_65536_values_come_back(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 65536; i++) {
        uint16_t h = (uint16_t)i;
        float f = kvant_f16_to_f32(h);
        uint16_t back = kvant_f32_to_f16(f);
        uint16_t want = is_nan(h) ? h | 0x200 : h; /* NaNs become quiet and keep sign and payload */
        if (back != want) fail_msg("0x%04x came back as 0x%04x, expected 0x%04x", h, back, want);
        if ((h & 0x7C00) != 0x7C00 && (double)f != half_value(h))
            fail_msg("0x%04x is %.9g, expected %.9g", h, (double)f, half_value(h));
        if (is_nan(h) != (isnan(f) != 0)) fail_msg("0x%04x: NaN is lost or made", h);
    }
    assert_true(isinf(kvant_f16_to_f32(0x7C00)) && kvant_f16_to_f32(0xFC00) < 0);
    assert_true(signbit(kvant_f16_to_f32(0x8000)));
}

/* The value halfway between two neighbours goes to the even one; one float to either side goes to that side. */
static void ties_go_to_even_and_neighbours_to_the_nearer(void **state) {
    (void)state;
    for (uint32_t low = 0; low < 0x7BFF; low++) {
        uint16_t high = (uint16_t)(low + 1), even = low % 2 ? high : (uint16_t)low;
        float middle = (float)((half_value((uint16_t)low) + half_value(high)) / 2); /* exact */
        for (int negative = 0; negative < 2; negative++) {
            uint16_t sign = negative ? 0x8000 : 0;
            float s = negative ? -1.0f : 1.0f;
            if (kvant_f32_to_f16(s * middle) != (sign | even)) fail_msg("the tie above 0x%04x is not even", low);
            if (kvant_f32_to_f16(s * nextafterf(middle, 0)) != (sign | low)) fail_msg("just below the tie above 0x%04x", low);
            if (kvant_f32_to_f16(s * nextafterf(middle, INFINITY)) != (sign | high))
                fail_msg("just above the tie above 0x%04x", low);
        }
    }
}

static void what_is_too_large_becomes_infinity(void **state) {
    (void)state;
    assert_int_equal(kvant_f32_to_f16(65504.0f), 0x7BFF);
    assert_int_equal(kvant_f32_to_f16(nextafterf(65520.0f, 0)), 0x7BFF);
    assert_int_equal(kvant_f32_to_f16(65520.0f), 0x7C00);
    assert_int_equal(kvant_f32_to_f16(-65520.0f), 0xFC00);
    assert_int_equal(kvant_f32_to_f16(0x1p127f), 0x7C00);
    assert_int_equal(kvant_f32_to_f16(INFINITY), 0x7C00);
    assert_int_equal(kvant_f32_to_f16(0x1p-25f), 0); /* a tie with zero */
    assert_int_equal(kvant_f32_to_f16(-0x1p-149f), 0x8000);
    assert_int_equal(kvant_f32_to_f16(nextafterf(0x1p-25f, 1)), 1);
}

static void bfloat16_is_the_upper_half(void **state) {
    (void)state;
    assert_true(kvant_bf16_to_f32(0x3F80) == 1.0f);
    assert_true(kvant_bf16_to_f32(0xC049) == -3.140625f);
    for (uint32_t i = 0; i < 65536; i++)
        assert_true(kvant_f32_bits(kvant_bf16_to_f32((uint16_t)i)) == i << 16);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_65536_values_come_back),
        cmocka_unit_test(ties_go_to_even_and_neighbours_to_the_nearer),
        cmocka_unit_test(what_is_too_large_becomes_infinity),
        cmocka_unit_test(bfloat16_is_the_upper_half),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* test_pixtral_image.c: the grid of patches for any picture, and the arithmetic of resizing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "base/memory.h"
#include "vision/pixtral_image.h"

static const kvant_pixtral_rules rules = {
    .longest_edge = 1024, .patch = 16, .mean = {0.5f, 0.5f, 0.5f}, .deviation = {0.5f, 0.25f, 1.0f}};

static void check_grid(int width, int height, int columns, int rows) {
    int c, r;
    kvant_pixtral_grid(&rules, width, height, &c, &r);
    assert_int_equal(c, columns);
    assert_int_equal(r, rows);
}

static void sides_are_rounded_up_to_patches_within_the_longest_edge(void **state) {
    (void)state;
    check_grid(1, 1, 1, 1);
    check_grid(16, 16, 1, 1);
    check_grid(17, 16, 2, 1);
    check_grid(1024, 1024, 64, 64);
    check_grid(1025, 1025, 64, 64);
    check_grid(2048, 1024, 64, 32);
    check_grid(1024, 2048, 32, 64);
    check_grid(65535, 1, 64, 1); /* no side vanishes */
    check_grid(10000, 10000, 64, 64);
    check_grid(3000, 2000, 64, 43); /* 1024 x 682.67 */
}

static void one_colour_stays_one_colour(void **state) {
    (void)state;
    static const int sizes[][4] = {{1, 1, 16, 16}, {100, 7, 16, 32}, {33, 65, 48, 16}, {300, 200, 7, 5}, {1000, 1, 64, 16}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        int width = sizes[s][0], height = sizes[s][1], to_width = sizes[s][2], to_height = sizes[s][3];
        kvant_pixels p = {width, height, calloc((size_t)width * (size_t)height, 3)};
        uint8_t *out;
        for (int i = 0; i < width * height; i++)
            memcpy(p.rgb + 3 * i, (uint8_t[]){255, 0, 77}, 3);
        assert_int_equal(kvant_pixels_resize(&p, to_width, to_height, &out), KVANT_OK);
        for (int i = 0; i < to_width * to_height; i++)
            assert_memory_equal(out + 3 * i, ((uint8_t[]){255, 0, 77}), 3);
        kvant_free(out);
        free(p.rgb);
    }
}

/* A picture of its own size is not touched; the numbers are (x / 255 - mean) / deviation, colour after colour. */
static void numbers_are_scaled_by_the_rules(void **state) {
    (void)state;
    kvant_pixels p = {16, 16, calloc(256, 3)};
    float *x;
    for (int i = 0; i < 768; i++)
        p.rgb[i] = (uint8_t)(i % 251);
    assert_int_equal(kvant_pixtral_prepare(&rules, &p, &x), KVANT_OK);
    for (int c = 0; c < 3; c++)
        for (int i = 0; i < 256; i++) {
            double expected = (p.rgb[3 * i + c] / 255.0 - (double)rules.mean[c]) / (double)rules.deviation[c];
            assert_true(fabs((double)x[256 * c + i] - expected) < 1e-6);
        }
    kvant_free_aligned(x);
    free(p.rgb);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sides_are_rounded_up_to_patches_within_the_longest_edge),
        cmocka_unit_test(one_colour_stays_one_colour),
        cmocka_unit_test(numbers_are_scaled_by_the_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

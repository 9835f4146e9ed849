// SPDX-License-Identifier: MIT
/* test_image_file.c: pixels of every kind of picture file, and sentences for what is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "picture_builder.h"
#include "vision/image_file.h"

#define W 5
#define H 3

static kvant_pixels read_built(built *b) {
    kvant_pixels p;
    kvant_error err;
    if (kvant_pixels_read("test", b->bytes, b->size, KVANT_IMAGE_MAX_PIXELS, &p, &err) != KVANT_OK) fail_msg("%s", err.message);
    free(b->bytes);
    return p;
}

/* Pixels that all differ. */
static void fill(uint8_t *rgb, int n) {
    for (int i = 0; i < n; i++) {
        rgb[3 * i] = (uint8_t)(7 * i + 1);
        rgb[3 * i + 1] = (uint8_t)(250 - 5 * i);
        rgb[3 * i + 2] = (uint8_t)(40 * i);
    }
}

static void with_alpha(uint8_t *rgba, const uint8_t *rgb, int n) {
    for (int i = 0; i < n; i++) {
        memcpy(rgba + 4 * i, rgb + 3 * i, 3);
        rgba[4 * i + 3] = (uint8_t)(i % 3 * 127);
    }
}

static void colours_of_a_png_are_exact_and_alpha_is_left_out(void **state) {
    (void)state;
    uint8_t rgb[W * H * 3], rgba[W * H * 4];
    fill(rgb, W * H);
    with_alpha(rgba, rgb, W * H);
    for (int interlace = 0; interlace < 2; interlace++) {
        built plain = build_png((png_kind){PNG_COLOR_TYPE_RGB, 8, interlace, 0}, W, H, rgb, W * 3);
        built alpha = build_png((png_kind){PNG_COLOR_TYPE_RGB_ALPHA, 8, interlace, 0}, W, H, rgba, W * 4);
        kvant_pixels a = read_built(&plain), b = read_built(&alpha);
        assert_int_equal(a.width, W);
        assert_int_equal(a.height, H);
        assert_memory_equal(a.rgb, rgb, sizeof rgb);
        assert_memory_equal(b.rgb, rgb, sizeof rgb);
        kvant_pixels_free(&a);
        kvant_pixels_free(&b);
    }
}

static void check_grey(kvant_pixels p, const uint8_t *expected) {
    for (int i = 0; i < p.width * p.height; i++)
        for (int c = 0; c < 3; c++)
            assert_int_equal(p.rgb[3 * i + c], expected[i]);
    kvant_pixels_free(&p);
}

static void grey_png_of_any_depth_becomes_rgb(void **state) {
    (void)state;
    static const uint8_t eight[4] = {0, 17, 130, 255}, sixteen[8] = {0, 255, 17, 1, 130, 0, 255, 255},
                         alpha[8] = {0, 9, 17, 0, 130, 255, 255, 1};
    static const uint8_t one[1] = {0x50}, one_expected[4] = {0, 255, 0, 255}, four[2] = {0x01, 0xF8},
                         four_expected[4] = {0, 17, 255, 136};
    built b = build_png((png_kind){PNG_COLOR_TYPE_GRAY, 8, 0, 0}, 4, 1, eight, 4);
    check_grey(read_built(&b), eight);
    b = build_png((png_kind){PNG_COLOR_TYPE_GRAY, 16, 0, 0}, 4, 1, sixteen, 8); /* the upper byte counts */
    check_grey(read_built(&b), eight);
    b = build_png((png_kind){PNG_COLOR_TYPE_GRAY_ALPHA, 8, 0, 0}, 4, 1, alpha, 8);
    check_grey(read_built(&b), eight);
    b = build_png((png_kind){PNG_COLOR_TYPE_GRAY, 1, 0, 0}, 4, 1, one, 1);
    check_grey(read_built(&b), one_expected);
    b = build_png((png_kind){PNG_COLOR_TYPE_GRAY, 4, 0, 0}, 4, 1, four, 2);
    check_grey(read_built(&b), four_expected);
}

static void palettes_become_their_colours(void **state) {
    (void)state;
    static const uint8_t indexes[1] = {0x1B}; /* 0 1 2 3 of 2 bits each */
    static const uint8_t expected[12] = {0, 0, 0, 10, 20, 30, 20, 40, 60, 30, 60, 90};
    built b = build_png((png_kind){PNG_COLOR_TYPE_PALETTE, 2, 0, 0}, 4, 1, indexes, 1);
    kvant_pixels p = read_built(&b);
    assert_memory_equal(p.rgb, expected, sizeof expected);
    kvant_pixels_free(&p);
}

static void check_near(kvant_pixels p, const uint8_t *rgb) {
    for (int i = 0; i < p.width * p.height * 3; i++)
        assert_true(abs(p.rgb[i] - rgb[i]) <= 4);
    kvant_pixels_free(&p);
}

static void jpegs_of_grey_colour_and_inks_are_read(void **state) {
    (void)state;
    enum { N = 16 };
    static uint8_t rgb[N * N * 3], grey[N * N], inks[N * N * 4], grey_rgb[N * N * 3], dark[N * N * 3];
    for (int i = 0; i < N * N; i++) {
        uint8_t colour[3] = {(uint8_t)(60 + i % N * 5), (uint8_t)(60 + i % N * 5), (uint8_t)(200 - i % N * 5)};
        memcpy(rgb + 3 * i, colour, 3);
        grey[i] = (uint8_t)(3 * (i / N) + 100);
        memset(grey_rgb + 3 * i, grey[i], 3);
        memcpy(inks + 4 * i, colour, 3);
        inks[4 * i + 3] = 128; /* half of it black */
        for (int c = 0; c < 3; c++)
            dark[3 * i + c] = (uint8_t)(colour[c] * 128 / 255);
    }
    for (int progressive = 0; progressive < 2; progressive++) {
        built b = build_jpeg(1, progressive, 0, N, N, grey);
        check_near(read_built(&b), grey_rgb);
        b = build_jpeg(4, progressive, 0, N, N, inks);
        check_near(read_built(&b), dark);
    }
    built b = build_jpeg(3, 1, 0, N, N, rgb); /* colours at half the resolution: compare one in the middle */
    kvant_pixels p = read_built(&b);
    for (int c = 0; c < 3; c++)
        assert_true(abs(p.rgb[3 * (8 * N + 8) + c] - rgb[3 * (8 * N + 8) + c]) <= 8);
    kvant_pixels_free(&p);
}

static void webp_is_exact_and_an_animation_is_refused(void **state) {
    (void)state;
    uint8_t rgb[W * H * 3], rgba[W * H * 4];
    kvant_pixels p;
    kvant_error err;
    fill(rgb, W * H);
    with_alpha(rgba, rgb, W * H);
    for (int i = 0; i < W * H; i++)
        rgba[4 * i + 3] |= 1; /* the writer forgets colours that nobody sees */
    built b = build_webp(3, W, H, rgb);
    p = read_built(&b);
    assert_memory_equal(p.rgb, rgb, sizeof rgb);
    kvant_pixels_free(&p);
    b = build_webp(4, W, H, rgba);
    p = read_built(&b);
    assert_memory_equal(p.rgb, rgb, sizeof rgb);
    kvant_pixels_free(&p);
    b = build_webp_animation();
    assert_int_equal(kvant_pixels_read("test", b.bytes, b.size, 1000, &p, &err), KVANT_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "animation"));
    free(b.bytes);
}

/* Where EXIF says that the stored pixel (x, y) is seen. */
static void seen_at(int orientation, int x, int y, int *sx, int *sy) {
    int right = W - 1 - x, below = H - 1 - y;
    const int to[9][2] = {{x, y}, {x, y}, {right, y}, {right, below}, {x, below}, {y, x}, {below, x}, {below, right}, {y, right}};
    *sx = to[orientation][0];
    *sy = to[orientation][1];
}

static void pictures_are_turned_as_exif_says(void **state) {
    (void)state;
    uint8_t rgb[W * H * 3];
    fill(rgb, W * H);
    for (int o = 0; o <= 8; o++) {
        built b = build_png((png_kind){PNG_COLOR_TYPE_RGB, 8, 0, o}, W, H, rgb, W * 3);
        kvant_pixels p = read_built(&b);
        assert_int_equal(p.width, o >= 5 ? H : W);
        assert_int_equal(p.height, o >= 5 ? W : H);
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                int sx, sy;
                seen_at(o, x, y, &sx, &sy);
                assert_memory_equal(p.rgb + 3 * (sy * p.width + sx), rgb + 3 * (y * W + x), 3);
            }
        kvant_pixels_free(&p);
    }
    /* And JPEG's block: a picture that is wider than high is seen higher than wide. */
    built b = build_jpeg(1, 0, 6, W, H, rgb);
    kvant_pixels p = read_built(&b);
    assert_int_equal(p.width, H);
    assert_int_equal(p.height, W);
    kvant_pixels_free(&p);
}

/* ---- what is refused ---- */

static kvant_status read_bytes(const uint8_t *bytes, size_t size, int64_t max_pixels) {
    kvant_pixels p;
    kvant_error err = {0};
    uint8_t *copy = malloc(size ? size : 1); /* of its own size, so that a sanitizer sees what is read behind it */
    memcpy(copy, bytes, size);
    kvant_status st = kvant_pixels_read("test.png", copy, size, max_pixels, &p, &err);
    free(copy);
    if (st == KVANT_OK) {
        kvant_pixels_free(&p);
        return st;
    }
    assert_null(p.rgb);
    assert_non_null(strstr(err.message, "test.png: "));
    assert_null(strchr(err.message, '\n'));
    return st;
}

static built build_any(int kind) {
    enum { N = 24 };
    static uint8_t rgb[N * N * 3];
    fill(rgb, N * N);
    if (kind == 0) return build_png((png_kind){PNG_COLOR_TYPE_RGB, 8, 0, 6}, N, N, rgb, N * 3);
    if (kind == 1) return build_jpeg(3, 0, 6, N, N, rgb);
    if (kind == 2) return build_jpeg(3, 1, 0, N, N, rgb);
    return build_webp(3, N, N, rgb);
}

static void cut_files_are_refused_wherever_they_end(void **state) {
    (void)state;
    for (int kind = 0; kind < 4; kind++) {
        built b = build_any(kind);
        /* The last bytes of a JPEG say only that it ends. */
        size_t tail = kind == 1 || kind == 2 ? 2 : 1;
        for (size_t n = 0; n + tail <= b.size; n++)
            if (read_bytes(b.bytes, n, KVANT_IMAGE_MAX_PIXELS) == KVANT_OK)
                fail_msg("kind %d cut to %zu of %zu bytes is read", kind, n, b.size);
        assert_int_equal(read_bytes(b.bytes, b.size, KVANT_IMAGE_MAX_PIXELS), KVANT_OK);
        free(b.bytes);
    }
}

static void damaged_bytes_never_crash(void **state) {
    (void)state;
    unsigned seed = 20250401;
    printf("seed %u\n", seed);
    for (int kind = 0; kind < 4; kind++) {
        built b = build_any(kind);
        for (int round = 0; round < 400; round++) {
            uint8_t *copy = malloc(b.size);
            memcpy(copy, b.bytes, b.size);
            for (int k = 0; k <= round % 4; k++) {
                seed = seed * 1664525u + 1013904223u;
                copy[(seed >> 8) % b.size] = (uint8_t)seed;
            }
            (void)read_bytes(copy, b.size, 1000000);
            free(copy);
        }
        free(b.bytes);
    }
}

static void sizes_are_limited(void **state) {
    (void)state;
    static uint8_t row[10000 * 3];
    built b = build_png((png_kind){PNG_COLOR_TYPE_RGB, 8, 0, 0}, 10000, 1, row, sizeof row);
    assert_int_equal(read_bytes(b.bytes, b.size, 10000), KVANT_OK);
    assert_int_equal(read_bytes(b.bytes, b.size, 9999), KVANT_EUNSUPPORTED);
    free(b.bytes);
    b = build_png((png_kind){PNG_COLOR_TYPE_RGB, 8, 0, 0}, 1, 1, row, 3);
    assert_int_equal(read_bytes(b.bytes, b.size, 1), KVANT_OK);
    free(b.bytes);
    assert_int_equal(read_bytes((const uint8_t *)"", 0, 1), KVANT_EFORMAT);
    assert_int_equal(read_bytes((const uint8_t *)"GIF89a and so on", 16, 1), KVANT_EFORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(colours_of_a_png_are_exact_and_alpha_is_left_out),
        cmocka_unit_test(grey_png_of_any_depth_becomes_rgb),
        cmocka_unit_test(palettes_become_their_colours),
        cmocka_unit_test(jpegs_of_grey_colour_and_inks_are_read),
        cmocka_unit_test(webp_is_exact_and_an_animation_is_refused),
        cmocka_unit_test(pictures_are_turned_as_exif_says),
        cmocka_unit_test(cut_files_are_refused_wherever_they_end),
        cmocka_unit_test(damaged_bytes_never_crash),
        cmocka_unit_test(sizes_are_limited),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

// SPDX-License-Identifier: MIT
/* picture_builder.h: picture files in memory, of every kind that tests need, made by the libraries' own writers. */
#ifndef KVANT_TESTS_PICTURE_BUILDER_H
#define KVANT_TESTS_PICTURE_BUILDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>
#include <webp/encode.h>

typedef struct built {
    uint8_t *bytes;
    size_t size;
} built;

static inline void built_append(built *b, const void *p, size_t n) {
    b->bytes = realloc(b->bytes, b->size + n + 1);
    memcpy(b->bytes + b->size, p, n);
    b->size += n;
}

static inline void png_append(png_structp png, png_bytep p, size_t n) { built_append(png_get_io_ptr(png), p, n); }

static inline void png_flush_nothing(png_structp png) { (void)png; }

/* An EXIF block that says the orientation and nothing else. */
static inline size_t build_exif(uint8_t out[32], int orientation, int big) {
    static const uint8_t little[] = {'I', 'I', 42, 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
    static const uint8_t motorola[] = {'M', 'M', 0, 42, 0, 0, 0, 8, 0, 1, 1, 0x12, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0};
    memcpy(out, big ? motorola : little, sizeof little);
    out[big ? 19 : 18] = (uint8_t)orientation;
    return sizeof little;
}

typedef struct png_kind {
    int color_type, depth, interlace, orientation;
} png_kind;

/* rows: as PNG has them for that kind, packed; a palette of 4 colours (10i, 20i, 30i), entry 1 transparent. */
static inline built build_png(png_kind kind, int width, int height, const uint8_t *rows, size_t row_bytes) {
    built out = {0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, png_append, png_flush_nothing);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, kind.depth, kind.color_type,
                 kind.interlace ? PNG_INTERLACE_ADAM7 : PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT,
                 PNG_FILTER_TYPE_DEFAULT);
    if (kind.color_type == PNG_COLOR_TYPE_PALETTE) {
        static const png_color palette[4] = {{0, 0, 0}, {10, 20, 30}, {20, 40, 60}, {30, 60, 90}};
        static const png_byte alpha[2] = {255, 0};
        png_set_PLTE(png, info, palette, 4);
        png_set_tRNS(png, info, alpha, 2, NULL);
    }
    uint8_t exif[32];
    if (kind.orientation) png_set_eXIf_1(png, info, (png_uint_32)build_exif(exif, kind.orientation, 1), exif);
    png_write_info(png, info);
    uint8_t **pointers = calloc((size_t)height, sizeof *pointers);
    for (int i = 0; i < height; i++)
        pointers[i] = (uint8_t *)rows + (size_t)i * row_bytes;
    png_write_image(png, pointers);
    png_write_end(png, info);
    png_destroy_write_struct(&png, &info);
    free(pointers);
    return out;
}

/* channels 1: grey, 3: RGB, 4: CMYK as Adobe stores it (255 is no ink). */
static inline built build_jpeg(int channels, int progressive, int orientation, int width, int height, const uint8_t *pixels) {
    struct jpeg_compress_struct jpeg;
    struct jpeg_error_mgr errors;
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = (JDIMENSION)width;
    jpeg.image_height = (JDIMENSION)height;
    jpeg.input_components = channels;
    jpeg.in_color_space = channels == 1 ? JCS_GRAYSCALE : channels == 3 ? JCS_RGB : JCS_CMYK;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 100, TRUE);
    if (progressive) jpeg_simple_progression(&jpeg);
    jpeg_start_compress(&jpeg, TRUE);
    if (orientation) {
        uint8_t marker[40] = "Exif\0";
        size_t n = 6 + build_exif(marker + 6, orientation, 0);
        jpeg_write_marker(&jpeg, JPEG_APP0 + 1, marker, (unsigned)n);
    }
    for (int y = 0; y < height; y++) {
        JSAMPROW row = (JSAMPROW)pixels + (size_t)y * (size_t)width * (size_t)channels;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    built out = {0};
    built_append(&out, bytes, size);
    free(bytes);
    return out;
}

/* channels 3 or 4; without loss. */
static inline built build_webp(int channels, int width, int height, const uint8_t *pixels) {
    uint8_t *bytes = NULL;
    size_t size = channels == 3 ? WebPEncodeLosslessRGB(pixels, width, height, 3 * width, &bytes)
                                : WebPEncodeLosslessRGBA(pixels, width, height, 4 * width, &bytes);
    built out = {0};
    built_append(&out, bytes, size);
    WebPFree(bytes);
    return out;
}

/* The header of an animation. */
static inline built build_webp_animation(void) {
    static const uint8_t bytes[] = {'R', 'I', 'F', 'F', 36, 0, 0, 0, 'W', 'E', 'B', 'P', 'V', 'P', '8', 'X', 10, 0, 0, 0, 2, 0,
                                    0,   0,   7,   0,   0,  7, 0, 0, 'A', 'N', 'I', 'M', 6,   0,   0,   0,   0,  0, 0, 0, 0, 0};
    built out = {0};
    built_append(&out, bytes, sizeof bytes);
    return out;
}

#endif

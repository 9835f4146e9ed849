// SPDX-License-Identifier: MIT
/* image_codecs.h: what the readers of one file format share (private to src/vision). */
#ifndef KVANT_VISION_IMAGE_CODECS_H
#define KVANT_VISION_IMAGE_CODECS_H

#include "vision/image_file.h"

/* A file that is being read. */
typedef struct kvant_image_source {
    const char *name;
    const uint8_t *bytes;
    size_t size;
    int64_t max_pixels;
    int orientation; /* of the EXIF block, 1 to 8; set by the reader */
} kvant_image_source;

/* Checks the size against the caps and makes room for the pixels. */
kvant_status kvant_pixels_create(const kvant_image_source *s, int64_t width, int64_t height, kvant_pixels *out, kvant_error *err);
/* The orientation that an EXIF block (from its byte order on) has, or 1. */
int kvant_exif_orientation(const uint8_t *exif, size_t size);

/* The readers; *out is empty where they fail. */
kvant_status kvant_png_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err);
kvant_status kvant_jpeg_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err);
kvant_status kvant_webp_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err);

#endif

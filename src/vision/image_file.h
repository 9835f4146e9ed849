// SPDX-License-Identifier: MIT
/* image_file.h: the pixels of a PNG, JPEG or WebP file.
 *
 * Which of the three it is, is seen from its bytes. Pixels come out as their author sees them (the orientation that cameras write
 * down is applied) and as 8-bit RGB: what is behind transparent pixels stays as it is stored, as the processors of vision models
 * have it, of 16 bits the upper 8 count, grey and palettes become colours, CMYK is multiplied out, and no colour profile is
 * applied. */
#ifndef KVANT_VISION_IMAGE_FILE_H
#define KVANT_VISION_IMAGE_FILE_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

#define KVANT_IMAGE_MAX_BYTES ((size_t)256 << 20)
#define KVANT_IMAGE_MAX_PIXELS INT64_C(100000000)
#define KVANT_IMAGE_MAX_SIDE 65535

typedef struct kvant_pixels {
    int width, height;
    uint8_t *rgb; /* [height][width][3]; owned */
} kvant_pixels;

/* name stands in the sentences. KVANT_EFORMAT: damaged, cut, or none of the three. KVANT_EUNSUPPORTED: more than max_pixels, an
 * animation, or a colour space without RGB. KVANT_ENOMEM. */
kvant_status kvant_pixels_read(const char *name, const uint8_t *bytes, size_t size, int64_t max_pixels, kvant_pixels *out,
                               kvant_error *err);
void kvant_pixels_free(kvant_pixels *p);

#endif

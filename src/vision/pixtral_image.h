// SPDX-License-Identifier: MIT
/* pixtral_image.h: from the pixels of a file to what Pixtral's tower reads. */
#ifndef KVANT_VISION_PIXTRAL_IMAGE_H
#define KVANT_VISION_PIXTRAL_IMAGE_H

#include "vision/image_file.h"

typedef struct kvant_pixtral_rules {
    int longest_edge, patch; /* pixels */
    float mean[3], deviation[3];
} kvant_pixtral_rules;

/* Patches in a row and in a column, for a picture of this size: it is made smaller until no side is longer than longest_edge, and
 * each side is rounded up to whole patches. */
void kvant_pixtral_grid(const kvant_pixtral_rules *r, int width, int height, int *columns, int *rows);
/* The picture at the size of its grid, normalised: *out [3][rows * patch][columns * patch], freed with kvant_free_aligned.
 * KVANT_ENOMEM. */
kvant_status kvant_pixtral_prepare(const kvant_pixtral_rules *r, const kvant_pixels *p, float **out);

/* RGB pixels at another size, as Pillow's bicubic filter has them to the last bit: [to_height][to_width][3] -> *out, freed with
 * kvant_free. KVANT_ENOMEM. */
kvant_status kvant_pixels_resize(const kvant_pixels *p, int to_width, int to_height, uint8_t **out);

#endif

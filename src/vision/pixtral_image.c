// SPDX-License-Identifier: MIT
/* pixtral_image.c: the size that a picture gets, and its numbers, by the rules of Pixtral's image processor. */
#include "vision/pixtral_image.h"

#include <math.h>

#include "base/memory.h"

static int patches(double pixels, int patch) {
    int n = (int)floor(pixels);
    return n < 1 ? 1 : (n - 1) / patch + 1;
}

void kvant_pixtral_grid(const kvant_pixtral_rules *r, int width, int height, int *columns, int *rows) {
    double x = (double)width / r->longest_edge, y = (double)height / r->longest_edge, ratio = x > y ? x : y;
    if (ratio < 1) ratio = 1;
    *columns = patches(width / ratio, r->patch);
    *rows = patches(height / ratio, r->patch);
}

kvant_status kvant_pixtral_prepare(const kvant_pixtral_rules *r, const kvant_pixels *p, float **out) {
    int columns, rows;
    uint8_t *rgb;
    kvant_pixtral_grid(r, p->width, p->height, &columns, &rows);
    size_t n = (size_t)columns * (size_t)rows * (size_t)r->patch * (size_t)r->patch;
    KVANT_TRY(kvant_pixels_resize(p, columns * r->patch, rows * r->patch, &rgb));
    float *x = kvant_alloc_aligned(3 * n, sizeof *x);
    if (x) {
        for (size_t i = 0; i < n; i++)
            for (size_t c = 0; c < 3; c++)
                x[c * n + i] = ((float)rgb[3 * i + c] * (1.0f / 255) - r->mean[c]) / r->deviation[c];
    }
    kvant_free(rgb);
    *out = x;
    return x ? KVANT_OK : KVANT_ENOMEM;
}

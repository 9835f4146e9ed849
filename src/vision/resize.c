// SPDX-License-Identifier: MIT
/* resize.c: bicubic interpolation of 8-bit pixels, widened where a picture gets smaller, so that no pixel is passed over.
 *
 * First along the rows, then along the columns, in whole numbers with 22 bits behind the point, rounded to 8 bits after each: the
 * arithmetic of Pillow (https://pillow.readthedocs.io), by which models saw their pictures in training. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "vision/pixtral_image.h"

#define FRACTION_BITS 22
#define CUBIC_SUPPORT 2.0

/* Of one direction: the weights of the `size` (at most) source pixels from first[i] on that make pixel i. */
typedef struct taps {
    int room;
    int *first, *size;
    int32_t *weight; /* [n][room] */
} taps;

/* Keys' cubic with a = -1/2. */
static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void taps_free(taps *t) {
    kvant_free(t->first);
    kvant_free(t->size);
    kvant_free(t->weight);
}

static kvant_status taps_create(int from, int to, taps *t) {
    double scale = (double)from / to, stretch = scale < 1.0 ? 1.0 : scale, support = CUBIC_SUPPORT * stretch;
    *t = (taps){.room = (int)ceil(support) * 2 + 1};
    t->first = kvant_alloc((size_t)to, sizeof *t->first);
    t->size = kvant_alloc((size_t)to, sizeof *t->size);
    t->weight = kvant_alloc((size_t)to * (size_t)t->room, sizeof *t->weight);
    double *w = kvant_alloc((size_t)t->room, sizeof *w);
    if (!t->first || !t->size || !t->weight || !w) {
        taps_free(t);
        kvant_free(w);
        return KVANT_ENOMEM;
    }
    for (int i = 0; i < to; i++) {
        double center = (i + 0.5) * scale, sum = 0;
        int begin = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        if (begin < 0) begin = 0;
        if (end > from) end = from;
        int n = end - begin < t->room ? end - begin : t->room;
        for (int k = 0; k < n; k++) {
            w[k] = cubic((k + begin - center + 0.5) * (1.0 / stretch));
            sum += w[k];
        }
        for (int k = 0; k < n; k++) {
            double exact = (sum != 0.0 ? w[k] / sum : w[k]) * (1 << FRACTION_BITS);
            t->weight[(size_t)i * (size_t)t->room + (size_t)k] = (int32_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
        }
        t->first[i] = begin;
        t->size[i] = n;
    }
    kvant_free(w);
    return KVANT_OK;
}

static uint8_t round_to_byte(int64_t sum) {
    sum += INT64_C(1) << (FRACTION_BITS - 1);
    if (sum < 0) return 0;
    sum >>= FRACTION_BITS;
    return sum > 255 ? 255 : (uint8_t)sum;
}

static void resize_rows(const taps *t, const uint8_t *from, int from_width, uint8_t *to, int to_width, int height) {
    for (int y = 0; y < height; y++, from += (size_t)from_width * 3)
        for (int x = 0; x < to_width; x++) {
            const int32_t *w = t->weight + (size_t)x * (size_t)t->room;
            const uint8_t *p = from + (size_t)t->first[x] * 3;
            int64_t r = 0, g = 0, b = 0;
            for (int k = 0; k < t->size[x]; k++, p += 3) {
                r += (int64_t)w[k] * p[0];
                g += (int64_t)w[k] * p[1];
                b += (int64_t)w[k] * p[2];
            }
            *to++ = round_to_byte(r);
            *to++ = round_to_byte(g);
            *to++ = round_to_byte(b);
        }
}

static void resize_columns(const taps *t, const uint8_t *from, int width, uint8_t *to, int to_height) {
    size_t stride = (size_t)width * 3;
    for (int y = 0; y < to_height; y++)
        for (size_t x = 0; x < stride; x++) {
            const int32_t *w = t->weight + (size_t)y * (size_t)t->room;
            const uint8_t *p = from + (size_t)t->first[y] * stride + x;
            int64_t sum = 0;
            for (int k = 0; k < t->size[y]; k++)
                sum += (int64_t)w[k] * p[(size_t)k * stride];
            *to++ = round_to_byte(sum);
        }
}

/* One direction alone changes nothing where the size stays. */
kvant_status kvant_pixels_resize(const kvant_pixels *p, int to_width, int to_height, uint8_t **out) {
    taps across = {0}, down = {0};
    uint8_t *narrow = kvant_alloc((size_t)to_width * (size_t)p->height, 3);
    *out = kvant_alloc((size_t)to_width * (size_t)to_height, 3);
    kvant_status st = narrow && *out ? KVANT_OK : KVANT_ENOMEM;
    if (st == KVANT_OK) st = taps_create(p->width, to_width, &across);
    if (st == KVANT_OK) st = taps_create(p->height, to_height, &down);
    if (st == KVANT_OK) {
        if (to_width != p->width)
            resize_rows(&across, p->rgb, p->width, narrow, to_width, p->height);
        else
            memcpy(narrow, p->rgb, (size_t)to_width * (size_t)p->height * 3);
        if (to_height != p->height)
            resize_columns(&down, narrow, to_width, *out, to_height);
        else
            memcpy(*out, narrow, (size_t)to_width * (size_t)to_height * 3);
        taps_free(&down);
    } else {
        kvant_free(*out);
        *out = NULL;
    }
    if (across.first) taps_free(&across);
    kvant_free(narrow);
    return st;
}

// SPDX-License-Identifier: MIT
/* image_file.c: chooses the reader by the first bytes, and turns what it read as the EXIF block says. */
#include "vision/image_file.h"

#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "vision/image_codecs.h"

#define ORIENTATION_TAG 0x0112
#define SHORT_TYPE 3

void kvant_pixels_free(kvant_pixels *p) {
    kvant_free(p->rgb);
    *p = (kvant_pixels){0};
}

kvant_status kvant_pixels_create(const kvant_image_source *s, int64_t width, int64_t height, kvant_pixels *out,
                                 kvant_error *err) {
    if (width < 1 || height < 1) return kvant_fail(err, KVANT_EFORMAT, "%s: the picture has no pixels", s->name);
    if (width > KVANT_IMAGE_MAX_SIDE || height > KVANT_IMAGE_MAX_SIDE || width * height > s->max_pixels)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: found a picture of %lld x %lld pixels, expected at most %lld, none of its sides "
                          "longer than %d",
                          s->name, (long long)width, (long long)height, (long long)s->max_pixels, KVANT_IMAGE_MAX_SIDE);
    out->rgb = kvant_alloc((size_t)(width * height), 3);
    if (!out->rgb)
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for %lld x %lld pixels", s->name, (long long)width,
                          (long long)height);
    out->width = (int)width;
    out->height = (int)height;
    return KVANT_OK;
}

/* ---- EXIF ---- */

static unsigned read_number(const uint8_t *p, int n, bool big) {
    unsigned value = 0;
    for (int i = 0; i < n; i++)
        value |= (unsigned)p[big ? n - 1 - i : i] << 8 * i;
    return value;
}

int kvant_exif_orientation(const uint8_t *exif, size_t size) {
    if (size < 8) return 1;
    bool big = exif[0] == 'M';
    if (memcmp(exif, big ? "MM" : "II", 2) != 0 || read_number(exif + 2, 2, big) != 42) return 1;
    size_t at = read_number(exif + 4, 4, big);
    if (at > size - 2) return 1;
    unsigned n = read_number(exif + at, 2, big);
    at += 2;
    for (unsigned i = 0; i < n && size - at >= 12; i++, at += 12) {
        const uint8_t *entry = exif + at;
        if (read_number(entry, 2, big) != ORIENTATION_TAG) continue;
        unsigned value = read_number(entry + 8, 2, big);
        return read_number(entry + 2, 2, big) == SHORT_TYPE && value >= 1 && value <= 8 ? (int)value : 1;
    }
    return 1;
}

/* 2 mirrored, 3 turned by 180 degrees, 4 upside down, 5 to 8 with width and height exchanged. */
static kvant_status turn(const kvant_image_source *s, kvant_pixels *p, kvant_error *err) {
    int o = s->orientation;
    if (o <= 1) return KVANT_OK;
    bool swaps = o >= 5, from_right = o == 2 || o == 3 || o == 7 || o == 8, from_bottom = o == 3 || o == 4 || o == 6 || o == 7;
    int width = swaps ? p->height : p->width, height = swaps ? p->width : p->height;
    uint8_t *turned = kvant_alloc((size_t)width * (size_t)height, 3);
    if (!turned) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to turn the picture", s->name);
    uint8_t *to = turned;
    for (int y = 0; y < height; y++)
        for (int x = 0; x < width; x++, to += 3) {
            int sx = swaps ? y : x, sy = swaps ? x : y;
            if (from_right) sx = p->width - 1 - sx;
            if (from_bottom) sy = p->height - 1 - sy;
            memcpy(to, p->rgb + ((size_t)sy * (size_t)p->width + (size_t)sx) * 3, 3);
        }
    kvant_free(p->rgb);
    *p = (kvant_pixels){width, height, turned};
    return KVANT_OK;
}

kvant_status kvant_pixels_read(const char *name, const uint8_t *bytes, size_t size, int64_t max_pixels, kvant_pixels *out,
                               kvant_error *err) {
    kvant_image_source s = {.name = name, .bytes = bytes, .size = size, .max_pixels = max_pixels, .orientation = 1};
    kvant_status st;
    *out = (kvant_pixels){0};
    if (size > KVANT_IMAGE_MAX_BYTES)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: found %zu bytes, expected at most %zu", name, size,
                          KVANT_IMAGE_MAX_BYTES);
    if (size >= 8 && memcmp(bytes, "\x89PNG\r\n\x1A\n", 8) == 0)
        st = kvant_png_read(&s, out, err);
    else if (size >= 3 && memcmp(bytes, "\xFF\xD8\xFF", 3) == 0)
        st = kvant_jpeg_read(&s, out, err);
    else if (size >= 12 && memcmp(bytes, "RIFF", 4) == 0 && memcmp(bytes + 8, "WEBP", 4) == 0)
        st = kvant_webp_read(&s, out, err);
    else
        return kvant_fail(err, KVANT_EFORMAT, "%s: is no picture that Kvant reads: PNG, JPEG or WebP", name);
    if (st == KVANT_OK) st = turn(&s, out, err);
    if (st != KVANT_OK) kvant_pixels_free(out);
    return st;
}

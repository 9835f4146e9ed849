// SPDX-License-Identifier: MIT
/* fuzz_image.c: any bytes as a picture file: PNG, JPEG or WebP, as their first bytes say.
 *
 * What must hold: no crash; a picture within the limits whose pixels can all be read and prepared, or one sentence. Checksums of
 * PNG chunks are made to fit first, so that what lies behind them is reached. */
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "fuzz_target.h"
#include "vision/pixtral_image.h"

#define MAX_PIXELS 65536

static void expect(bool ok) {
    if (!ok) abort();
}

static uint32_t crc_of(const uint8_t *p, size_t n) {
    uint32_t crc = 0xFFFFFFFF;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

static uint32_t big(const uint8_t *p) { return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]; }

static void make_fit(uint8_t *bytes, size_t size) {
    if (size < 8 || memcmp(bytes, "\x89PNG", 4) != 0) return;
    for (size_t at = 8; size - at >= 12;) {
        size_t n = big(bytes + at);
        if (n > size - at - 12) return;
        uint32_t crc = crc_of(bytes + at + 4, n + 4);
        for (int i = 0; i < 4; i++)
            bytes[at + 8 + n + (size_t)i] = (uint8_t)(crc >> (24 - 8 * i));
        at += n + 12;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const kvant_pixtral_rules rules = {
        .longest_edge = 64, .patch = 16, .mean = {0.5f, 0.5f, 0.5f}, .deviation = {0.5f, 0.5f, 0.5f}};
    kvant_pixels p;
    kvant_error err = {0};
    uint8_t *bytes = malloc(size ? size : 1);
    expect(bytes != NULL);
    if (size) memcpy(bytes, data, size);
    make_fit(bytes, size);
    kvant_status st = kvant_pixels_read("fuzz", bytes, size, MAX_PIXELS, &p, &err);
    free(bytes);
    if (st != KVANT_OK) {
        expect(err.status == st && err.message[0] && !strchr(err.message, '\n') && !p.rgb);
        return 0;
    }
    expect(p.width >= 1 && p.height >= 1 && (int64_t)p.width * p.height <= MAX_PIXELS);
    int columns, rows;
    float *x, sum = 0;
    kvant_pixtral_grid(&rules, p.width, p.height, &columns, &rows);
    expect(columns >= 1 && rows >= 1 && columns <= 4 && rows <= 4);
    expect(kvant_pixtral_prepare(&rules, &p, &x) == KVANT_OK);
    for (int i = 0; i < 3 * 256 * columns * rows; i++)
        sum += x[i];
    expect(sum == sum);
    kvant_free_aligned(x);
    kvant_pixels_free(&p);
    return 0;
}

// SPDX-License-Identifier: MIT
/* image_webp.c: reads a WebP of one picture with libwebp. */
#include <string.h>
#include <webp/decode.h>

#include "base/bytes.h"
#include "vision/image_codecs.h"

/* The file is a list of chunks; the one with EXIF's numbers may follow the picture. Some writers put JPEG's prefix before them.
 */
static void read_exif(kvant_image_source *s) {
    size_t at = 12;
    while (s->size - at >= 8) {
        const uint8_t *chunk = s->bytes + at;
        size_t n = kvant_read_u32(chunk + 4), room = s->size - at - 8;
        if (n > room) return;
        if (memcmp(chunk, "EXIF", 4) == 0) {
            size_t prefix = n >= 6 && memcmp(chunk + 8, "Exif\0", 6) == 0 ? 6 : 0;
            s->orientation = kvant_exif_orientation(chunk + 8 + prefix, n - prefix);
            return;
        }
        n += n & 1;
        if (n > room) return;
        at += 8 + n;
    }
}

kvant_status kvant_webp_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err) {
    WebPBitstreamFeatures features;
    if (WebPGetFeatures(s->bytes, s->size, &features) != VP8_STATUS_OK)
        return kvant_fail(err, KVANT_EFORMAT, "%s: is a damaged WebP: its header cannot be read", s->name);
    if (features.has_animation)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: is an animation; Kvant reads WebP files of one picture", s->name);
    KVANT_TRY(kvant_pixels_create(s, features.width, features.height, out, err));
    size_t stride = (size_t)out->width * 3;
    if (!WebPDecodeRGBInto(s->bytes, s->size, out->rgb, stride * (size_t)out->height, (int)stride))
        return kvant_fail(err, KVANT_EFORMAT, "%s: is a damaged WebP: its pixels cannot be read", s->name);
    read_exif(s);
    return KVANT_OK;
}

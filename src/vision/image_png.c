// SPDX-License-Identifier: MIT
/* image_png.c: reads a PNG with libpng, whose errors jump out of it into a sentence. */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "base/memory.h"
#include "vision/image_codecs.h"

#define CHUNK_BYTES_MAX ((png_alloc_size_t)32 << 20)
#define CHUNKS_MAX 1000

typedef struct reader {
    kvant_image_source *s;
    size_t at;
    kvant_pixels *out;
    uint8_t **rows; /* [height] */
    kvant_status status;
    kvant_error *err;
    jmp_buf jump;
} reader;

_Noreturn static void on_error(png_structp png, png_const_charp message) {
    reader *r = png_get_error_ptr(png);
    r->status = kvant_fail(r->err, KVANT_EFORMAT, "%s: is a damaged PNG: %.100s", r->s->name, message);
    longjmp(r->jump, 1);
}

static void on_warning(png_structp png, png_const_charp message) {
    (void)png;
    (void)message;
}

static void read_bytes(png_structp png, png_bytep to, size_t n) {
    reader *r = png_get_io_ptr(png);
    if (n > r->s->size - r->at) png_error(png, "the file ends early");
    memcpy(to, r->s->bytes + r->at, n);
    r->at += n;
}

/* Whatever is stored, three bytes a pixel. */
static void ask_for_rgb(png_structp png) {
    png_set_expand(png);
    png_set_strip_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    (void)png_set_interlace_handling(png);
}

static void read_exif(reader *r, png_structp png, png_infop info) {
    png_bytep exif = NULL;
    png_uint_32 n = 0;
    if (png_get_eXIf_1(png, info, &n, &exif) != 0 && exif) r->s->orientation = kvant_exif_orientation(exif, n);
}

static void read_all(reader *r, png_structp png, png_infop info) {
    png_set_read_fn(png, r, read_bytes);
    png_set_user_limits(png, KVANT_IMAGE_MAX_SIDE, KVANT_IMAGE_MAX_SIDE);
    png_set_chunk_malloc_max(png, CHUNK_BYTES_MAX);
    png_set_chunk_cache_max(png, CHUNKS_MAX);
    png_read_info(png, info);
    int64_t width = png_get_image_width(png, info), height = png_get_image_height(png, info);
    r->status = kvant_pixels_create(r->s, width, height, r->out, r->err);
    if (r->status != KVANT_OK) return;
    ask_for_rgb(png);
    png_read_update_info(png, info);
    if (png_get_rowbytes(png, info) != (size_t)width * 3) png_error(png, "its rows are not of RGB");
    r->rows = kvant_alloc((size_t)height, sizeof *r->rows);
    if (!r->rows) {
        r->status = kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for %lld rows", r->s->name, (long long)height);
        return;
    }
    for (int64_t i = 0; i < height; i++)
        r->rows[i] = r->out->rgb + (size_t)i * (size_t)width * 3;
    png_read_image(png, r->rows);
    png_read_end(png, info);
    read_exif(r, png, info);
}

/* In a function of its own: what a jump leaves behind are then no local variables that changed. */
static void read_guarded(reader *r, png_structp png, png_infop info) {
    if (setjmp(r->jump) == 0) read_all(r, png, info);
}

kvant_status kvant_png_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err) {
    reader r = {.s = s, .out = out, .status = KVANT_OK, .err = err};
    png_structp png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    if (info)
        read_guarded(&r, png, info);
    else
        r.status = kvant_fail(err, KVANT_ENOMEM, "%s: no memory to read a PNG", s->name);
    png_destroy_read_struct(&png, &info, NULL);
    kvant_free(r.rows);
    return r.status;
}

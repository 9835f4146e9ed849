// SPDX-License-Identifier: MIT
/* image_jpeg.c: reads a JPEG with libjpeg-turbo, whose errors jump out of it into a sentence. */
#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jerror.h>
#include <jpeglib.h>

#include "base/memory.h"
#include "vision/image_codecs.h"

#define EXIF_MARKER (JPEG_APP0 + 1)
#define SCANS_MAX 200 /* a progressive picture has about ten */

typedef struct reader {
    struct jpeg_error_mgr errors; /* first: libjpeg hands out a pointer to it */
    struct jpeg_progress_mgr progress;
    kvant_image_source *s;
    kvant_pixels *out;
    uint8_t *row; /* CMYK */
    kvant_status status;
    kvant_error *err;
    jmp_buf jump;
} reader;

_Noreturn static void on_error(j_common_ptr jpeg) {
    reader *r = (reader *)jpeg->err;
    char text[JMSG_LENGTH_MAX];
    jpeg->err->format_message(jpeg, text);
    r->status = kvant_fail(r->err, KVANT_EFORMAT, "%s: is a damaged JPEG: %.120s", r->s->name, text);
    longjmp(r->jump, 1);
}

/* Of the warnings, only the one that a picture ends early is taken seriously. */
static void on_message(j_common_ptr jpeg, int level) {
    if (level < 0 && jpeg->err->msg_code == JWRN_JPEG_EOF) on_error(jpeg);
}

static void on_progress(j_common_ptr jpeg) {
    reader *r = (reader *)jpeg->err;
    if (((j_decompress_ptr)jpeg)->input_scan_number <= SCANS_MAX) return;
    r->status = kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: is a JPEG of more than %d scans", r->s->name, SCANS_MAX);
    longjmp(r->jump, 1);
}

/* x * k / 255, rounded. */
static unsigned scaled(unsigned x, unsigned k) {
    unsigned t = x * k + 128;
    return ((t >> 8) + t) >> 8;
}

/* Inks are stored inverted, as Adobe does it: 255 is no ink. */
static void cmyk_to_rgb(uint8_t *rgb, const uint8_t *cmyk, int n) {
    for (int i = 0; i < n; i++, rgb += 3, cmyk += 4) {
        unsigned k = cmyk[3];
        for (int c = 0; c < 3; c++)
            rgb[c] = (uint8_t)(k - scaled(255u - cmyk[c], k));
    }
}

static void read_exif(reader *r, const struct jpeg_decompress_struct *jpeg) {
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next) {
        if (m->marker != EXIF_MARKER || m->data_length < 6 || memcmp(m->data, "Exif\0", 6) != 0) continue;
        r->s->orientation = kvant_exif_orientation(m->data + 6, m->data_length - 6);
        return;
    }
}

static void read_all(reader *r, struct jpeg_decompress_struct *jpeg) {
    jpeg_create_decompress(jpeg);
    jpeg->progress = &r->progress;
    jpeg_mem_src(jpeg, r->s->bytes, (unsigned long)r->s->size);
    jpeg_save_markers(jpeg, EXIF_MARKER, 0xFFFF);
    (void)jpeg_read_header(jpeg, TRUE);
    read_exif(r, jpeg);
    r->status = kvant_pixels_create(r->s, jpeg->image_width, jpeg->image_height, r->out, r->err);
    if (r->status != KVANT_OK) return;
    bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    (void)jpeg_start_decompress(jpeg);
    size_t stride = (size_t)r->out->width * 3;
    r->row = cmyk ? kvant_alloc((size_t)r->out->width, 4) : NULL;
    if (cmyk && !r->row) {
        r->status = kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for a row of pixels", r->s->name);
        return;
    }
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *to = r->out->rgb + jpeg->output_scanline * stride, *row = cmyk ? r->row : to;
        (void)jpeg_read_scanlines(jpeg, &row, 1);
        if (cmyk) cmyk_to_rgb(to, r->row, r->out->width);
    }
    (void)jpeg_finish_decompress(jpeg);
}

/* In a function of its own: what a jump leaves behind are then no local variables that changed. */
static void read_guarded(reader *r, struct jpeg_decompress_struct *jpeg) {
    if (setjmp(r->jump) == 0) read_all(r, jpeg);
}

kvant_status kvant_jpeg_read(kvant_image_source *s, kvant_pixels *out, kvant_error *err) {
    struct jpeg_decompress_struct jpeg;
    reader r = {.s = s, .out = out, .status = KVANT_OK, .err = err};
    memset(&jpeg, 0, sizeof jpeg);
    jpeg.err = jpeg_std_error(&r.errors);
    r.errors.error_exit = on_error;
    r.errors.emit_message = on_message;
    r.progress.progress_monitor = on_progress;
    read_guarded(&r, &jpeg);
    jpeg_destroy_decompress(&jpeg);
    kvant_free(r.row);
    return r.status;
}

// SPDX-License-Identifier: MIT
/* convert_weights.c: the numbers of a tensor, row by row, from the type they have to the one that is wanted.
 *
 * q8_0 and q4_0 are made by ggml's rule, affine by MLX's. Not here: which tensors there are, and their names. */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/mlx_type.h"
#include "engine/convert.h"
#include "model/tensor_rows.h"

#define BLOCK 32
#define HALF_MAX 65504.0f
#define CHUNK ((size_t)1 << 20) /* bytes of rows that are written at once, about */

/* ---- choosing ---- */

static bool is_float(uint32_t type) { return type == KVANT_W_F32 || type == KVANT_W_F16 || type == KVANT_W_BF16; }

static kvant_convert_form float_form(uint32_t type) {
    return type == KVANT_W_F16 ? KVANT_CONVERT_F16 : type == KVANT_W_BF16 ? KVANT_CONVERT_BF16 : KVANT_CONVERT_F32;
}

/* What becomes of a matrix when nothing was asked for. */
static kvant_convert_form usual_form(uint32_t type, bool to_folder, int64_t cols) {
    if (is_float(type)) return float_form(type);
    if (!kvant_mlx_is(type)) return to_folder ? KVANT_CONVERT_F16 : KVANT_CONVERT_COPY;
    if (to_folder) return KVANT_CONVERT_COPY;
    if (kvant_mlx_scale_of(type) == KVANT_MLX_E8M0 || cols % BLOCK != 0) return KVANT_CONVERT_F16;
    return kvant_mlx_bits(type) <= 4 ? KVANT_CONVERT_Q4_0 : KVANT_CONVERT_Q8_0;
}

static uint64_t row_bytes(const kvant_convert_item *item) {
    uint64_t n = (uint64_t)item->cols;
    size_t bytes = 0;
    switch (item->form) {
    case KVANT_CONVERT_F32:
        return 4 * n;
    case KVANT_CONVERT_F16:
    case KVANT_CONVERT_BF16:
        return 2 * n;
    case KVANT_CONVERT_Q8_0:
        return n / BLOCK * 34;
    case KVANT_CONVERT_Q4_0:
        return n / BLOCK * 18;
    case KVANT_CONVERT_AFFINE:
        return n * (uint64_t)item->bits / 8 + n / (uint64_t)item->group * 4;
    case KVANT_CONVERT_COPY:
        break;
    }
    if (!kvant_mlx_is(item->from->type)) {
        (void)kvant_weight_row_bytes(item->from->type, item->cols, &bytes); /* was checked */
        return bytes;
    }
    kvant_mlx_scale scale = kvant_mlx_scale_of(item->from->type);
    uint64_t scales = n / (uint64_t)item->group * (uint64_t)kvant_mlx_scale_bytes(scale);
    return n * (uint64_t)item->bits / 8 + (scale == KVANT_MLX_E8M0 ? scales : 2 * scales);
}

kvant_status kvant_convert_choose(const kvant_gguf *f, const kvant_gguf_tensor *t, const kvant_convert_weights *w, bool to_folder,
                                  kvant_convert_item *out, kvant_error *err) {
    kvant_weight_traits traits;
    size_t bytes;
    bool known = kvant_mlx_is(t->type) ||
                 (kvant_weight_type_traits(t->type, &traits) && kvant_weight_row_bytes(t->type, t->dims[0], &bytes) == KVANT_OK);
    if (!known || t->bytes == 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: %.*s is of a type that Kvant does not read, so it cannot be converted",
                          f->path, t->name.size > 128 ? 128 : (int)t->name.size, t->name.data);
    *out = (kvant_convert_item){.from = t, .cols = t->dims[0], .rows = t->dims[1] * t->dims[2] * t->dims[3]};
    bool is_vector = t->n_dims < 2 || (t->name.size > 5 && memcmp(t->name.data + t->name.size - 5, ".bias", 5) == 0);
    int block = w->form == KVANT_CONVERT_AFFINE                                  ? w->group
                : w->form == KVANT_CONVERT_Q8_0 || w->form == KVANT_CONVERT_Q4_0 ? BLOCK
                                                                                 : 1;
    out->form = w->form;
    out->bits = w->bits;
    out->group = w->group;
    if (is_vector)
        out->form = to_folder ? float_form(t->type) : KVANT_CONVERT_F32;
    else if (w->form == KVANT_CONVERT_COPY)
        out->form = usual_form(t->type, to_folder, t->dims[0]);
    else if (t->dims[0] % block != 0)
        out->form = is_float(t->type) ? float_form(t->type) : KVANT_CONVERT_F16;
    if (out->form == KVANT_CONVERT_COPY && kvant_mlx_is(t->type)) {
        out->bits = kvant_mlx_bits(t->type);
        out->group = kvant_mlx_group(t->type);
    }
    out->bytes = row_bytes(out) * (uint64_t)out->rows;
    return KVANT_OK;
}

uint32_t kvant_convert_ggml_type(const kvant_convert_item *item) {
    switch (item->form) {
    case KVANT_CONVERT_F32:
        return KVANT_W_F32;
    case KVANT_CONVERT_F16:
        return KVANT_W_F16;
    case KVANT_CONVERT_BF16:
        return KVANT_W_BF16;
    case KVANT_CONVERT_Q8_0:
        return KVANT_W_Q8_0;
    case KVANT_CONVERT_Q4_0:
        return KVANT_W_Q4_0;
    case KVANT_CONVERT_COPY:
    case KVANT_CONVERT_AFFINE:
        break;
    }
    return item->from->type;
}

bool kvant_convert_changes(const kvant_convert_item *item) {
    if (item->form == KVANT_CONVERT_COPY || (is_float(item->from->type) && item->form == float_form(item->from->type)))
        return false;
    return item->form != KVANT_CONVERT_F32; /* float32 holds all others */
}

/* ---- one row ---- */

/* The row of the source that becomes row r. */
static int64_t source_row(const kvant_convert_item *item, int64_t r) {
    if (item->half == 0) return r;
    int64_t head = r / (2 * item->half), i = r % (2 * item->half);
    int64_t from = item->to_pairs ? i / 2 + i % 2 * item->half : i % item->half * 2 + i / item->half;
    return head * 2 * item->half + from;
}

/* A vector's elements are rearranged as the rows of a matrix are. */
static void read_row(const kvant_convert_item *item, int64_t r, float *x, float *spare) {
    bool is_vector = item->from->n_dims < 2;
    kvant_weight_source source = kvant_tensor_rows(item->from, is_vector ? 0 : source_row(item, r));
    kvant_weight_decode_source(&source, 0, item->cols, is_vector && item->half ? spare : x);
    for (int64_t i = 0; is_vector && item->half && i < item->cols; i++)
        x[i] = spare[source_row(item, i)];
    for (int64_t i = 0; item->plus != 0 && i < item->cols; i++)
        x[i] += item->plus;
}

static void put_q8_0(uint8_t *to, const float *x, int64_t n) {
    for (int64_t b = 0; b < n; b += BLOCK, to += 2 + BLOCK) {
        float largest = 0;
        for (int i = 0; i < BLOCK; i++)
            largest = fmaxf(largest, fabsf(x[b + i]));
        float scale = largest / 127.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
        kvant_write_u16(to, kvant_f32_to_f16(scale));
        for (int i = 0; i < BLOCK; i++)
            to[2 + i] = (uint8_t)(int8_t)roundf(x[b + i] * inverse);
    }
}

static unsigned nibble(float x) {
    int code = (int)(x + 8.5f);
    return code > 15 ? 15u : (unsigned)code;
}

/* The element that is largest in magnitude becomes -8, exactly. */
static void put_q4_0(uint8_t *to, const float *x, int64_t n) {
    for (int64_t b = 0; b < n; b += BLOCK, to += 2 + BLOCK / 2) {
        float largest = 0;
        for (int i = 0; i < BLOCK; i++)
            if (fabsf(x[b + i]) > fabsf(largest)) largest = x[b + i];
        float scale = largest / -8.0f, inverse = scale != 0 ? 1.0f / scale : 0.0f;
        kvant_write_u16(to, kvant_f32_to_f16(scale));
        for (int i = 0; i < BLOCK / 2; i++)
            to[2 + i] = (uint8_t)(nibble(x[b + i] * inverse) | nibble(x[b + BLOCK / 2 + i] * inverse) << 4);
    }
}

static uint16_t to_bf16(float x) {
    uint32_t bits = kvant_f32_bits(x);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

/* Floats in a form with one number an element, or in ggml's blocks. */
static void put_row(const kvant_convert_item *item, uint8_t *to, const float *x) {
    int64_t n = item->cols;
    switch (item->form) {
    case KVANT_CONVERT_F32:
        for (int64_t i = 0; i < n; i++)
            kvant_write_u32(to + 4 * i, kvant_f32_bits(x[i]));
        break;
    case KVANT_CONVERT_F16:
        for (int64_t i = 0; i < n; i++)
            kvant_write_u16(to + 2 * i, kvant_f32_to_f16(x[i]));
        break;
    case KVANT_CONVERT_BF16:
        for (int64_t i = 0; i < n; i++)
            kvant_write_u16(to + 2 * i, to_bf16(x[i]));
        break;
    case KVANT_CONVERT_Q8_0:
        put_q8_0(to, x, n);
        break;
    case KVANT_CONVERT_Q4_0:
        put_q4_0(to, x, n);
        break;
    case KVANT_CONVERT_COPY:
    case KVANT_CONVERT_AFFINE:
        break;
    }
}

/* A number that the form cannot hold would silently become infinite. */
static kvant_status check_row(const kvant_convert_plan *plan, const kvant_convert_item *item, const float *x, kvant_error *err) {
    bool halves = item->form == KVANT_CONVERT_F16 || item->form == KVANT_CONVERT_AFFINE;
    float limit = item->form == KVANT_CONVERT_F32 || item->form == KVANT_CONVERT_BF16 ? INFINITY
                  : halves                                                            ? HALF_MAX
                                                                                      : 8 * HALF_MAX;
    for (int64_t i = 0; i < item->cols; i++) {
        if (isfinite(x[i]) && fabsf(x[i]) <= limit) continue;
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: %.*s has the number %g, which the type it was to have cannot hold",
                          plan->source, item->from->name.size > 128 ? 128 : (int)item->from->name.size, item->from->name.data,
                          (double)x[i]);
    }
    return KVANT_OK;
}

/* ---- all rows ---- */

typedef struct writer {
    const kvant_convert_plan *plan;
    const kvant_convert_item *item;
    kvant_os_output *out;
    kvant_convert_tick tick;
    void *user;
    float *x, *spare;          /* [cols] */
    uint8_t *bytes;            /* a chunk of rows */
    uint8_t *codes;            /* [cols] */
    uint16_t *scales, *biases; /* AFFINE: of all rows */
    int64_t chunk_rows;
    kvant_error *err;
} writer;

static kvant_status put(writer *w, const void *bytes, uint64_t size) {
    KVANT_TRY(kvant_os_output_write(w->out, bytes, (size_t)size, w->err));
    return w->tick(w->user, size) ? KVANT_OK
                                  : kvant_fail(w->err, KVANT_ECANCELLED, "convert: cancelled; a second run goes on from here");
}

static kvant_status write_floats(writer *w) {
    const kvant_convert_item *item = w->item;
    size_t size = (size_t)row_bytes(item);
    for (int64_t r = 0; r < item->rows; r += w->chunk_rows) {
        int64_t n = item->rows - r < w->chunk_rows ? item->rows - r : w->chunk_rows;
        for (int64_t i = 0; i < n; i++) {
            read_row(item, r + i, w->x, w->spare);
            KVANT_TRY(check_row(w->plan, item, w->x, w->err));
            put_row(item, w->bytes + (size_t)i * size, w->x);
        }
        KVANT_TRY(put(w, w->bytes, (uint64_t)n * size));
    }
    return KVANT_OK;
}

/* part 0: rows; 1, 2: scales and biases. */
static kvant_status copy_part(writer *w, int part) {
    const kvant_convert_item *item = w->item;
    bool is_mlx = kvant_mlx_is(item->from->type);
    uint64_t codes = (uint64_t)item->cols * (uint64_t)item->bits / 8;
    size_t size = (size_t)(is_mlx ? codes : row_bytes(item));
    if (part) size = (size_t)(item->cols / item->group) * (size_t)kvant_mlx_scale_bytes(kvant_mlx_scale_of(item->from->type));
    for (int64_t r = 0; r < item->rows; r += w->chunk_rows) {
        int64_t n = item->rows - r < w->chunk_rows ? item->rows - r : w->chunk_rows;
        for (int64_t i = 0; i < n; i++) {
            kvant_weight_source s = kvant_tensor_rows(item->from, source_row(item, r + i));
            memcpy(w->bytes + (size_t)i * size, part == 0 ? s.data : part == 1 ? s.scales : s.biases, size);
        }
        KVANT_TRY(put(w, w->bytes, (uint64_t)n * size));
    }
    return KVANT_OK;
}

static void put_stream(uint8_t *to, const uint8_t *codes, int64_t n, int bits) {
    memset(to, 0, (size_t)n * (size_t)bits / 8);
    for (size_t i = 0; i < (size_t)n; i++) {
        size_t bit = i * (size_t)bits;
        unsigned two = (unsigned)codes[i] << bit % 8;
        to[bit / 8] |= (uint8_t)two;
        if (two > 255) to[bit / 8 + 1] |= (uint8_t)(two >> 8);
    }
}

static kvant_status put_halves(writer *w, const uint16_t *halves, size_t n) {
    for (size_t done = 0, part; done < n; done += part) {
        part = n - done < CHUNK / 2 ? n - done : CHUNK / 2;
        for (size_t i = 0; i < part; i++)
            kvant_write_u16(w->bytes + 2 * i, halves[done + i]);
        KVANT_TRY(put(w, w->bytes, 2 * part));
    }
    return KVANT_OK;
}

static kvant_status write_affine(writer *w) {
    const kvant_convert_item *item = w->item;
    size_t size = (size_t)item->cols * (size_t)item->bits / 8, groups = (size_t)(item->cols / item->group);
    for (int64_t r = 0; r < item->rows; r += w->chunk_rows) {
        int64_t n = item->rows - r < w->chunk_rows ? item->rows - r : w->chunk_rows;
        for (int64_t i = 0; i < n; i++) {
            size_t at = (size_t)(r + i) * groups;
            read_row(item, r + i, w->x, w->spare);
            KVANT_TRY(check_row(w->plan, item, w->x, w->err));
            for (int64_t k = 0; k < item->cols; k++)
                w->x[k] = kvant_f16_to_f32(kvant_f32_to_f16(w->x[k])); /* as scales are */
            KVANT_TRY(
                kvant_affine_quantize(w->x, (int)groups, item->bits, item->group, w->codes, w->scales + at, w->biases + at));
            put_stream(w->bytes + (size_t)i * size, w->codes, item->cols, item->bits);
        }
        KVANT_TRY(put(w, w->bytes, (uint64_t)n * size));
    }
    KVANT_TRY(put_halves(w, w->scales, groups * (size_t)item->rows));
    return put_halves(w, w->biases, groups * (size_t)item->rows);
}

static kvant_status write_rows(writer *w) {
    static const uint8_t zeros[KVANT_GGUF_ALIGNMENT];
    const kvant_convert_item *item = w->item;
    if (item->form == KVANT_CONVERT_AFFINE) {
        KVANT_TRY(write_affine(w));
    } else if (item->form != KVANT_CONVERT_COPY) {
        KVANT_TRY(write_floats(w));
    } else {
        bool is_mlx = kvant_mlx_is(item->from->type);
        KVANT_TRY(copy_part(w, 0));
        if (is_mlx) KVANT_TRY(copy_part(w, 1));
        if (is_mlx && kvant_mlx_scale_of(item->from->type) != KVANT_MLX_E8M0) KVANT_TRY(copy_part(w, 2));
    }
    return put(w, zeros, item->padding);
}

kvant_status kvant_convert_write(const kvant_convert_plan *plan, const kvant_convert_item *item, kvant_os_output *out,
                                 kvant_convert_tick tick, void *user, kvant_error *err) {
    writer w = {.plan = plan, .item = item, .out = out, .tick = tick, .user = user, .err = err};
    uint64_t size = row_bytes(item);
    size_t groups = item->form == KVANT_CONVERT_AFFINE ? (size_t)(item->cols / item->group) * (size_t)item->rows : 0;
    w.chunk_rows = (int64_t)(CHUNK / size);
    if (w.chunk_rows < 1) w.chunk_rows = 1;
    w.x = kvant_alloc((size_t)item->cols, sizeof *w.x);
    w.spare = kvant_alloc((size_t)item->cols, sizeof *w.spare);
    w.codes = kvant_alloc((size_t)item->cols, 1);
    w.bytes = kvant_alloc((size_t)w.chunk_rows * (size_t)size + CHUNK, 1);
    w.scales = kvant_alloc(groups + 1, sizeof *w.scales);
    w.biases = kvant_alloc(groups + 1, sizeof *w.biases);
    bool made = w.x && w.spare && w.codes && w.bytes && w.scales && w.biases;
    kvant_status st = made ? write_rows(&w) : kvant_fail(err, KVANT_ENOMEM, "convert: out of memory");
    kvant_free(w.x);
    kvant_free(w.spare);
    kvant_free(w.codes);
    kvant_free(w.bytes);
    kvant_free(w.scales);
    kvant_free(w.biases);
    return st;
}

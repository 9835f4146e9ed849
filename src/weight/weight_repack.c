// SPDX-License-Identifier: MIT
/* weight_repack.c: rows of a file -> panels of 16 interleaved rows at the same number of bits, once, when a model is loaded.
 *
 * Rows are interleaved so that a product needs no sum across a vector register, and so that weights and cache pages share
 * their kernels. Sub-block scales stay the small integers that they are in the file. */
#include <string.h>

#include "base/memory.h"
#include "weight/weight_panel.h"

#define ROWS KVANT_PANEL_ROWS
#define WORDS (KVANT_BLOCK / 4) /* of a row in a block32: 4 codes each */

static kvant_chunk_layout plan_chunk(const kvant_weight_format *f, size_t cols) {
    size_t n_block = cols / (size_t)f->block_elements, n_sub = cols / (size_t)f->sub_elements, at = 0;
    kvant_chunk_layout c;
    if (f->sub != KVANT_SUB_E8M0) at += n_block * ROWS * kvant_scale_bytes(f->scale);
    c.m = at;
    if (f->has_min) at += n_block * ROWS * kvant_scale_bytes(f->scale);
    c.sub_scale = at;
    if (f->sub != KVANT_SUB_NONE) at += n_sub * ROWS;
    c.sub_min = at;
    if (f->sub == KVANT_SUB_U8) at += n_sub * ROWS;
    c.codes = (at + 63) / 64 * 64;
    c.bytes = c.codes + cols * ROWS * (size_t)f->code_bits / 8;
    return c;
}

static int largest_code(const kvant_weight_format *f) {
    if (!f->table) return f->code_bits == 8 ? 128 : (1 << f->code_bits) - 1;
    int largest = 0;
    for (int i = 0; i < 16; i++) {
        int magnitude = f->table[i] < 0 ? -f->table[i] : f->table[i];
        if (magnitude > largest) largest = magnitude;
    }
    return largest;
}

static void plan_panel(kvant_weight *w) {
    size_t cols = (size_t)w->cols;
    if (w->format->code_bits == 0) {
        w->panel_bytes = (cols * ROWS * (size_t)w->format->block_bytes + 63) / 64 * 64;
        return;
    }
    w->max_code = largest_code(w->format);
    w->whole = plan_chunk(w->format, KVANT_CHUNK_COLS);
    w->last = plan_chunk(w->format, cols % KVANT_CHUNK_COLS);
    w->panel_bytes = cols / KVANT_CHUNK_COLS * w->whole.bytes + w->last.bytes;
}

/* The planes of kernel/kernels.h, four codes of a row at once: no code leaves its byte of a word. w[i][r] holds columns
 * 4i .. 4i + 3 of row r. */
static void pack_4_bits(uint32_t *restrict out, uint32_t w[2][ROWS]) {
    for (int r = 0; r < ROWS; r++)
        out[r] = (w[0][r] & 0x0F0F0F0Fu) | (w[1][r] & 0x0F0F0F0Fu) << 4;
}

static void pack_2_bits(uint32_t *restrict out, uint32_t w[4][ROWS], int from) {
    for (int r = 0; r < ROWS; r++)
        out[r] = (w[0][r] >> from & 0x03030303u) | (w[1][r] >> from & 0x03030303u) << 2 | (w[2][r] >> from & 0x03030303u) << 4 |
                 (w[3][r] >> from & 0x03030303u) << 6;
}

static void pack_1_bit(uint32_t *restrict out, uint32_t w[WORDS][ROWS], int from) {
    for (int r = 0; r < ROWS; r++)
        out[r] = w[0][r] >> from & 0x01010101u;
    for (int m = 1; m < WORDS; m++)
        for (int r = 0; r < ROWS; r++)
            out[r] |= (w[m][r] >> from & 0x01010101u) << m;
}

static void pack_block32(int bits, uint32_t w[WORDS][ROWS], uint8_t *packed) {
    uint32_t *out = (uint32_t *)(void *)packed;
    if (bits == 8) {
        memcpy(out, w, WORDS * ROWS * sizeof(uint32_t));
        return;
    }
    if (bits >= 4)
        for (int i = 0; i < 4; i++, out += ROWS) pack_4_bits(out, w + 2 * i);
    if (bits % 4 >= 2)
        for (int i = 0; i < 2; i++, out += ROWS) pack_2_bits(out, w + 4 * i, bits / 4 * 4);
    if (bits % 2 == 1) pack_1_bit(out, w, bits - 1);
}

/* Block `index` of a chunk, 16 rows of it. */
static void pack_scales(const kvant_weight_format *f, const kvant_chunk_layout *c, const kvant_weight_block *b, size_t index,
                        uint8_t *chunk) {
    size_t n_sub = (size_t)(f->block_elements / f->sub_elements);
    uint8_t *sub_scale = chunk + c->sub_scale + index * n_sub * ROWS, *sub_min = chunk + c->sub_min + index * n_sub * ROWS;
    if (f->scale == KVANT_SCALE_F32) {
        uint32_t *d = (uint32_t *)(void *)chunk + index * ROWS, *m = (uint32_t *)(void *)(chunk + c->m) + index * ROWS;
        for (int r = 0; r < ROWS; r++) d[r] = b[r].d;
        for (int r = 0; r < ROWS && f->has_min; r++) m[r] = b[r].m;
    } else if (f->sub != KVANT_SUB_E8M0) {
        uint16_t *d = (uint16_t *)(void *)chunk + index * ROWS, *m = (uint16_t *)(void *)(chunk + c->m) + index * ROWS;
        for (int r = 0; r < ROWS; r++) d[r] = (uint16_t)b[r].d;
        for (int r = 0; r < ROWS && f->has_min; r++) m[r] = (uint16_t)b[r].m;
    }
    if (f->sub == KVANT_SUB_NONE) return;
    for (size_t s = 0; s < n_sub; s++)
        for (size_t r = 0; r < ROWS; r++) {
            sub_scale[s * ROWS + r] = b[r].sub_scale[s];
            if (f->sub == KVANT_SUB_U8) sub_min[s * ROWS + r] = b[r].sub_min[s];
        }
}

static void pack_codes(const kvant_weight_format *f, const kvant_weight_block *b, uint8_t *codes) {
    uint32_t w[WORDS][ROWS];
    for (int k = 0; k < f->block_elements; k += KVANT_BLOCK, codes += 64 * f->code_bits) {
        for (int r = 0; r < ROWS; r++)
            for (int i = 0; i < WORDS; i++) memcpy(&w[i][r], b[r].codes + k + 4 * i, 4);
        pack_block32(f->code_bits, w, codes);
    }
}

/* n_row rows of the source; one block of each is in scratch at a time. */
static void pack_panel(const kvant_weight *w, const kvant_weight_source *src, int64_t first_row, int n_row, uint8_t *panel) {
    const kvant_weight_format *f = w->format;
    const int64_t block = f->block_elements;
    kvant_weight_block b[ROWS];
    memset(b, 0, sizeof b);
    for (int64_t first = 0; first < w->cols; first += KVANT_CHUNK_COLS) {
        const kvant_chunk_layout *c = kvant_weight_chunk_layout(w, first);
        int64_t end = first + KVANT_CHUNK_COLS < w->cols ? first + KVANT_CHUNK_COLS : w->cols;
        memset(panel, 0, c->codes); /* what is between the scales and the codes */
        for (int64_t k = first; k < end; k += block) {
            size_t index = (size_t)((k - first) / block);
            for (int r = 0; r < n_row; r++) kvant_split_source(f, src, first_row + r, k / block, &b[r]);
            pack_scales(f, c, b, index, panel);
            pack_codes(f, b, panel + c->codes + (size_t)(k - first) * ROWS * (size_t)f->code_bits / 8);
        }
        panel += c->bytes;
    }
}

#define FLOAT_COLS 32 /* transposed at once: what 16 rows write to stays in the first cache level */

static void pack_float_panel(const kvant_weight *w, const uint8_t *src, size_t row_bytes, int n_row, uint8_t *panel) {
    size_t size = (size_t)w->format->block_bytes, cols = (size_t)w->cols;
    memset(panel, 0, w->panel_bytes);
    for (size_t first = 0; first < cols; first += FLOAT_COLS) {
        size_t end = first + FLOAT_COLS < cols ? first + FLOAT_COLS : cols;
        for (int r = 0; r < n_row; r++) {
            const uint8_t *row = src + (size_t)r * row_bytes;
            uint8_t *to = panel + (size_t)r * size;
            if (size == 4)
                for (size_t k = first; k < end; k++) memcpy(to + k * ROWS * 4, row + k * 4, 4);
            else
                for (size_t k = first; k < end; k++) memcpy(to + k * ROWS * 2, row + k * 2, 2);
        }
    }
}

typedef struct repack_job {
    const kvant_weight *w;
    const kvant_weight_source *src;
} repack_job;

static void repack_panel(void *arg, int task, int worker) {
    (void)worker;
    const repack_job *job = arg;
    const kvant_weight *w = job->w;
    int64_t first_row = (int64_t)task * ROWS;
    int n_row = w->rows - first_row < ROWS ? (int)(w->rows - first_row) : ROWS;
    uint8_t *panel = w->panels + (size_t)task * w->panel_bytes;
    if (w->format->code_bits) pack_panel(w, job->src, first_row, n_row, panel);
    else pack_float_panel(w, job->src->data + (size_t)first_row * job->src->row_bytes, job->src->row_bytes, n_row, panel);
}

kvant_status kvant_weight_create_from(kvant_context *ctx, const kvant_weight_source *source, int64_t rows, int64_t cols,
                                      kvant_weight **out, kvant_error *err) {
    const kvant_weight_format *f = kvant_weight_format_find(source->type);
    if (!f) return kvant_fail(err, KVANT_EUNSUPPORTED, "weight: tensor type %u is not one that Kvant reads", source->type);
    if (rows < 1 || cols < 1 || rows > INT32_MAX || cols > INT32_MAX)
        return kvant_fail(err, KVANT_EFORMAT, "weight: found %lld rows of %lld, expected 1 to %d of each", (long long)rows,
                          (long long)cols, INT32_MAX);
    if (cols % f->block_elements != 0)
        return kvant_fail(err, KVANT_EFORMAT, "weight: rows of %lld elements are not whole blocks of %s (%d)", (long long)cols,
                          f->name, f->block_elements);
    kvant_weight *w = kvant_alloc(1, sizeof *w);
    if (!w) return kvant_fail(err, KVANT_ENOMEM, "weight: out of memory");
    *w = (kvant_weight){.ctx = ctx, .format = f, .rows = rows, .cols = cols, .n_panel = (rows + ROWS - 1) / ROWS};
    plan_panel(w);
    w->panels = kvant_alloc_aligned((size_t)w->n_panel, w->panel_bytes);
    if (!w->panels) {
        kvant_free(w);
        return kvant_fail(err, KVANT_ENOMEM, "weight: out of memory for %lld x %lld %s", (long long)rows, (long long)cols,
                          f->name);
    }
    repack_job job = {w, source};
    kvant_pool_run(ctx->pool, (int)w->n_panel, repack_panel, &job);
    *out = w;
    return KVANT_OK;
}

kvant_status kvant_weight_create(kvant_context *ctx, uint32_t type, const uint8_t *src, int64_t rows, int64_t cols,
                                 kvant_weight **out, kvant_error *err) {
    kvant_weight_source source = {.type = type, .data = src};
    (void)kvant_weight_row_bytes(type, cols, &source.row_bytes); /* what is wrong is said by the function below */
    return kvant_weight_create_from(ctx, &source, rows, cols, out, err);
}

void kvant_weight_destroy(kvant_weight *w) {
    if (!w) return;
    kvant_free_aligned(w->panels);
    kvant_free(w);
}

int64_t kvant_weight_rows(const kvant_weight *w) { return w->rows; }

int64_t kvant_weight_cols(const kvant_weight *w) { return w->cols; }

size_t kvant_weight_bytes(const kvant_weight *w) { return (size_t)w->n_panel * w->panel_bytes; }

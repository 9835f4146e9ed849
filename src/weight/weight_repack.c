// SPDX-License-Identifier: MIT
/* weight_repack.c: rows of a file -> panels of 16 interleaved rows at the same number of bits, once, when a model is loaded.
 *
 * Rows are interleaved so that a product needs no sum across a vector register, and so that weights and cache pages share
 * their kernels. Sub-block scales stay the small integers that they are in the file. */
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "weight/weight_panel.h"

#define ROWS KVANT_PANEL_ROWS
#define MAX_DIM (INT64_C(1) << 31)

static void plan_panel(kvant_weight *w) {
    const kvant_weight_format *f = w->format;
    size_t cols = (size_t)w->cols, at = 0;
    if (!f->split) {
        w->panel_bytes = (cols * ROWS * (size_t)f->block_bytes + 63) / 64 * 64;
        return;
    }
    size_t n_block = cols / (size_t)f->block_elements, n_sub = cols / (size_t)f->sub_elements;
    at += cols * ROWS * (size_t)f->code_bits / 8;
    w->d_offset = at;
    if (f->sub != KVANT_SUB_E8M0) at += n_block * ROWS * 2;
    w->m_offset = at;
    if (f->has_min) at += n_block * ROWS * 2;
    w->sub_scale_offset = at;
    if (f->sub != KVANT_SUB_NONE) at += n_sub * ROWS;
    w->sub_min_offset = at;
    if (f->sub == KVANT_SUB_U8) at += n_sub * ROWS;
    w->panel_bytes = (at + 63) / 64 * 64;
}

/* Writes 32 codes of one row into its block32: see the planes in kernel/kernels.h. */
static void pack_codes(int bits, const uint8_t *codes, int row, uint8_t *block) {
    if (bits == 8) {
        for (int i = 0; i < 8; i++) memcpy(block + 64 * i + 4 * row, codes + 4 * i, 4);
        return;
    }
    uint8_t *at = block + 4 * row;
    int shift = 0;
    if (bits >= 4) {
        for (int i = 0; i < 4; i++, at += 64)
            for (int j = 0; j < 4; j++) at[j] = (uint8_t)((codes[8 * i + j] & 15) | codes[8 * i + 4 + j] << 4);
        shift = 4;
    }
    int rest = bits - shift;
    if (rest >= 2) {
        for (int i = 0; i < 2; i++, at += 64)
            for (int j = 0; j < 4; j++) {
                uint8_t byte = 0;
                for (int m = 0; m < 4; m++) byte |= (uint8_t)((codes[16 * i + 4 * m + j] >> shift & 3) << (2 * m));
                at[j] = byte;
            }
        shift += 2;
        rest -= 2;
    }
    if (rest == 0) return;
    for (int j = 0; j < 4; j++) {
        uint8_t byte = 0;
        for (int m = 0; m < 8; m++) byte |= (uint8_t)((codes[4 * m + j] >> shift & 1) << m);
        at[j] = byte;
    }
}

static void pack_scales(const kvant_weight *w, const kvant_weight_block *b, size_t index, int row, uint8_t *panel) {
    const kvant_weight_format *f = w->format;
    size_t at = index * ROWS + (size_t)row, n_sub = (size_t)(f->block_elements / f->sub_elements);
    if (f->sub != KVANT_SUB_E8M0) memcpy(panel + w->d_offset + 2 * at, &b->d, 2);
    if (f->has_min) memcpy(panel + w->m_offset + 2 * at, &b->m, 2);
    if (f->sub == KVANT_SUB_NONE) return;
    for (size_t s = 0; s < n_sub; s++) {
        size_t sub_at = (index * n_sub + s) * ROWS + (size_t)row;
        panel[w->sub_scale_offset + sub_at] = b->sub_scale[s];
        if (f->sub == KVANT_SUB_U8) panel[w->sub_min_offset + sub_at] = b->sub_min[s];
    }
}

static void pack_row(const kvant_weight *w, const uint8_t *src, int row, uint8_t *panel) {
    const kvant_weight_format *f = w->format;
    size_t block32_bytes = 64 * (size_t)f->code_bits, n_block = (size_t)(w->cols / f->block_elements);
    for (size_t i = 0; i < n_block; i++, src += f->block_bytes) {
        kvant_weight_block b;
        f->split(src, &b);
        uint8_t *codes = panel + i * (size_t)(f->block_elements / 32) * block32_bytes;
        for (int k = 0; k < f->block_elements; k += 32, codes += block32_bytes) pack_codes(f->code_bits, b.codes + k, row, codes);
        pack_scales(w, &b, i, row, panel);
    }
}

static void pack_float_row(const kvant_weight *w, const uint8_t *src, int row, uint8_t *panel) {
    size_t size = (size_t)w->format->block_bytes;
    for (size_t k = 0; k < (size_t)w->cols; k++) memcpy(panel + (k * ROWS + (size_t)row) * size, src + k * size, size);
}

typedef struct repack_job {
    const kvant_weight *w;
    const uint8_t *src;
    size_t row_bytes;
} repack_job;

static void repack_panel(void *arg, int task, int worker) {
    (void)worker;
    const repack_job *job = arg;
    const kvant_weight *w = job->w;
    uint8_t *panel = w->panels + (size_t)task * w->panel_bytes;
    memset(panel, 0, w->panel_bytes);
    for (int r = 0; r < ROWS; r++) {
        int64_t row = (int64_t)task * ROWS + r;
        if (row >= w->rows) break;
        const uint8_t *src = job->src + (size_t)row * job->row_bytes;
        if (w->format->split) pack_row(w, src, r, panel);
        else pack_float_row(w, src, r, panel);
    }
}

kvant_status kvant_weight_create(kvant_context *ctx, uint32_t type, const uint8_t *src, int64_t rows, int64_t cols,
                                 kvant_weight **out, kvant_error *err) {
    const kvant_weight_format *f = kvant_weight_format_find(type);
    if (!f) return kvant_fail(err, KVANT_EUNSUPPORTED, "weight: tensor type %u is not one that Kvant reads", type);
    if (rows < 1 || cols < 1 || rows > MAX_DIM || cols > MAX_DIM)
        return kvant_fail(err, KVANT_EFORMAT, "weight: found %lld rows of %lld, expected 1 to 2^31 of each", (long long)rows,
                          (long long)cols);
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
        return kvant_fail(err, KVANT_ENOMEM, "weight: out of memory for %lld x %lld %s", (long long)rows, (long long)cols, f->name);
    }
    repack_job job = {w, src, (size_t)(cols / f->block_elements) * (size_t)f->block_bytes};
    kvant_pool_run(ctx->pool, (int)w->n_panel, repack_panel, &job);
    *out = w;
    return KVANT_OK;
}

void kvant_weight_destroy(kvant_weight *w) {
    if (!w) return;
    kvant_free_aligned(w->panels);
    kvant_free(w);
}

int64_t kvant_weight_rows(const kvant_weight *w) { return w->rows; }

int64_t kvant_weight_cols(const kvant_weight *w) { return w->cols; }

size_t kvant_weight_bytes(const kvant_weight *w) { return (size_t)w->n_panel * w->panel_bytes; }

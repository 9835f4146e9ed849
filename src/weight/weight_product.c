// SPDX-License-Identifier: MIT
/* weight_product.c: activations times a repacked weight.
 *
 * A task takes some panels. For each, a run of columns is expanded into a tile that fits the nearest caches, and that tile
 * multiplies all vectors; partial sums wait in the output itself. Every output is one chain of additions in the order of the
 * columns, so it has the same bits whatever the number of vectors, tasks and threads.
 *
 * Not here: the formats (weight_formats.h), the loops themselves (kernel/). */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "weight/weight_panel.h"

#define ROWS KVANT_PANEL_ROWS
#define FAST_COLS 1024               /* columns of a byte tile: 16 KiB */
#define EXACT_COLS 512               /* columns of a float tile: 32 KiB */
#define TASK_BYTES ((size_t)48 << 10) /* packed weight a task reads at least when there are few vectors */

/* Scratch of one worker. */
typedef struct product_scratch {
    uint8_t tile[FAST_COLS * ROWS];
    float tile_f32[EXACT_COLS * ROWS];
    float scale[FAST_COLS / 16 * ROWS], bias[FAST_COLS / 16 * ROWS];
    float d[FAST_COLS / 32 * ROWS], m[FAST_COLS / 32 * ROWS];
} product_scratch;

struct kvant_activations {
    kvant_context *ctx;
    int n_max, n;
    int64_t k_max, k;
    size_t k_padded; /* k_max rounded up to a block: the stride of q */
    kvant_precision precision;
    const float *x;          /* [n][k], borrowed until the next set */
    int8_t *q;               /* [n_max][k_padded] */
    float *q_scale;          /* [n_max][k_padded / 32] */
    int16_t *q_sum;          /* [n_max][k_padded / 16] */
    product_scratch *scratch; /* [workers] */
    float *edge;             /* [workers][n_max][16]: results of the last panel when it has fewer than 16 rows */
};

kvant_status kvant_activations_create(kvant_context *ctx, int n_max, int64_t k_max, kvant_activations **out) {
    if (n_max < 1 || k_max < 1 || k_max > (INT64_C(1) << 31)) return KVANT_EINVAL;
    kvant_activations *a = kvant_alloc(1, sizeof *a);
    if (!a) return KVANT_ENOMEM;
    size_t n = (size_t)n_max, workers = (size_t)kvant_pool_size(ctx->pool);
    *a = (kvant_activations){.ctx = ctx, .n_max = n_max, .k_max = k_max};
    a->k_padded = ((size_t)k_max + KVANT_BLOCK - 1) / KVANT_BLOCK * KVANT_BLOCK;
    a->q = kvant_alloc_aligned(n, a->k_padded);
    a->q_scale = kvant_alloc_aligned(n * (a->k_padded / KVANT_BLOCK), sizeof(float));
    a->q_sum = kvant_alloc_aligned(n * (a->k_padded / 16), sizeof(int16_t));
    a->scratch = kvant_alloc_aligned(workers, sizeof(product_scratch));
    a->edge = kvant_alloc_aligned(workers * n * ROWS, sizeof(float));
    if (!a->q || !a->q_scale || !a->q_sum || !a->scratch || !a->edge) {
        kvant_activations_destroy(a);
        return KVANT_ENOMEM;
    }
    *out = a;
    return KVANT_OK;
}

void kvant_activations_destroy(kvant_activations *a) {
    if (!a) return;
    kvant_free_aligned(a->q);
    kvant_free_aligned(a->q_scale);
    kvant_free_aligned(a->q_sum);
    kvant_free_aligned(a->scratch);
    kvant_free_aligned(a->edge);
    kvant_free(a);
}

static void quantize_row(void *arg, int row, int worker) {
    (void)worker;
    kvant_activations *a = arg;
    size_t r = (size_t)row;
    a->ctx->kernels->quantize_q8(a->q + r * a->k_padded, a->q_scale + r * (a->k_padded / KVANT_BLOCK),
                                 a->q_sum + r * (a->k_padded / 16), a->x + r * (size_t)a->k, (int)a->k);
}

void kvant_activations_set(kvant_activations *a, const float *x, int n, int64_t k, kvant_precision precision) {
    a->x = x;
    a->n = n;
    a->k = k;
    a->precision = precision;
    /* Rows that are not whole blocks meet float weights only. */
    if (precision != KVANT_FAST || k % KVANT_BLOCK != 0) return;
    if (n < 4) {
        for (int i = 0; i < n; i++) quantize_row(a, i, 0);
    } else {
        kvant_pool_run(a->ctx->pool, n, quantize_row, a);
    }
}

/* Scales and biases of columns [first, first + n) of a panel as floats, [n / sub_elements][16] each. */
static void expand_scales(const kvant_weight *w, const uint8_t *panel, size_t first, size_t n, product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const kvant_kernels *k = w->ctx->kernels;
    size_t block = (size_t)f->block_elements, sub = (size_t)f->sub_elements;
    size_t n_d = n / block * ROWS, n_sub = n / sub, subs_a_block = block / sub;
    const uint16_t *d = (const uint16_t *)(const void *)(panel + w->d_offset) + first / block * ROWS;
    const uint16_t *m = (const uint16_t *)(const void *)(panel + w->m_offset) + first / block * ROWS;
    const uint8_t *sub_scale = panel + w->sub_scale_offset + first / sub * ROWS;
    const uint8_t *sub_min = panel + w->sub_min_offset + first / sub * ROWS;
    if (f->sub == KVANT_SUB_NONE) {
        k->f16_to_f32(s->scale, d, (int)n_d);
        if (f->has_min) k->f16_to_f32(s->bias, m, (int)n_d);
    } else if (f->sub == KVANT_SUB_E8M0) {
        for (size_t i = 0; i < n_sub * ROWS; i++) s->scale[i] = ldexpf(1.0f, sub_scale[i] - 128);
    } else {
        k->f16_to_f32(s->d, d, (int)n_d);
        if (f->has_min) k->f16_to_f32(s->m, m, (int)n_d);
        for (size_t b = 0; b < n_sub; b++, sub_scale += ROWS, sub_min += ROWS) {
            const float *bd = s->d + b / subs_a_block * ROWS, *bm = s->m + b / subs_a_block * ROWS;
            float *scale = s->scale + b * ROWS, *bias = s->bias + b * ROWS;
            if (f->sub == KVANT_SUB_U4)
                for (int r = 0; r < ROWS; r++) {
                    scale[r] = bd[r] * (float)(sub_scale[r] & 15);
                    bias[r] = -(bm[r] * (float)(sub_scale[r] >> 4));
                }
            else if (f->sub == KVANT_SUB_U8)
                for (int r = 0; r < ROWS; r++) {
                    scale[r] = bd[r] * (float)sub_scale[r];
                    bias[r] = -(bm[r] * (float)sub_min[r]);
                }
            else
                for (int r = 0; r < ROWS; r++) scale[r] = bd[r] * (float)(int8_t)sub_scale[r];
        }
    }
    if (!f->has_min && f->zero_point != 0)
        for (size_t i = 0; i < n_sub * ROWS; i++) s->bias[i] = -(float)f->zero_point * s->scale[i];
}

/* The codes of n_block block32s as a byte tile; 8-bit codes need no expansion. */
static const uint8_t *expand_codes(const kvant_weight *w, const uint8_t *packed, int n_block, uint8_t *tile) {
    const kvant_kernels *k = w->ctx->kernels;
    const kvant_weight_format *f = w->format;
    if (f->table) {
        k->unpack_table4(tile, packed, n_block, f->table);
        return tile;
    }
    switch (f->code_bits) {
    case 2: k->unpack2(tile, packed, n_block); break;
    case 3: k->unpack3(tile, packed, n_block); break;
    case 4: k->unpack4(tile, packed, n_block); break;
    case 5: k->unpack5(tile, packed, n_block); break;
    case 6: k->unpack6(tile, packed, n_block); break;
    default: return packed;
    }
    return tile;
}

static void product_quantized(const kvant_weight *w, const kvant_activations *a, const uint8_t *panel, float *acc,
                              size_t acc_stride, product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const kvant_kernels *k = w->ctx->kernels;
    bool is_signed = f->table || f->code_bits == 8, exact = a->precision == KVANT_EXACT;
    const float *bias = f->has_min || f->zero_point ? s->bias : NULL;
    size_t cols = (size_t)w->cols, step = exact ? EXACT_COLS : FAST_COLS;
    for (size_t first = 0; first < cols; first += step) {
        size_t n = cols - first < step ? cols - first : step;
        int n_block = (int)(n / KVANT_BLOCK);
        expand_scales(w, panel, first, n, s);
        const uint8_t *tile = expand_codes(w, panel + first / KVANT_BLOCK * 64 * (size_t)f->code_bits, n_block, s->tile);
        if (exact) {
            (is_signed ? k->tile_s_to_f32 : k->tile_u_to_f32)(s->tile_f32, tile, s->scale, bias, f->sub_elements, n_block);
            kvant_product_f32 p = {s->tile_f32, (int)n, a->n, a->x + first, (size_t)a->k, acc, acc_stride};
            k->product_f32(&p);
            continue;
        }
        kvant_product_q8 p = {.tile = tile, .scale = s->scale, .bias = bias, .scale_block = f->sub_elements,
                              .n_block = n_block, .n = a->n, .x = a->q + first, .x_stride = a->k_padded,
                              .x_scale = a->q_scale + first / KVANT_BLOCK, .x_scale_stride = a->k_padded / KVANT_BLOCK,
                              .x_sum = a->q_sum + first / 16, .acc = acc, .acc_stride = acc_stride,
                              .max_code = is_signed ? 0 : (1 << f->code_bits) - 1};
        (is_signed ? k->product_s : k->product_u)(&p);
    }
}

static void product_float(const kvant_weight *w, const kvant_activations *a, const uint8_t *panel, float *acc,
                          size_t acc_stride, product_scratch *s) {
    const kvant_kernels *k = w->ctx->kernels;
    size_t cols = (size_t)w->cols;
    kvant_product_f32 p = {panel, (int)cols, a->n, a->x, (size_t)a->k, acc, acc_stride};
    if (w->format->type == KVANT_W_F32) {
        k->product_f32(&p);
    } else if (w->format->type == KVANT_W_F16) {
        k->product_f16(&p);
    } else { /* bfloat16 is the upper half of a float */
        const uint16_t *half = (const uint16_t *)(const void *)panel;
        for (size_t first = 0; first < cols; first += EXACT_COLS) {
            size_t n = cols - first < EXACT_COLS ? cols - first : EXACT_COLS;
            for (size_t i = 0; i < n * ROWS; i++) {
                uint32_t bits = (uint32_t)half[first * ROWS + i] << 16;
                memcpy(&s->tile_f32[i], &bits, sizeof bits);
            }
            p.tile = s->tile_f32;
            p.k = (int)n;
            p.x = a->x + first;
            k->product_f32(&p);
        }
    }
}

typedef struct product_job {
    const kvant_weight *w;
    const kvant_activations *a;
    const float *bias;
    float *out;
    size_t out_stride;
    int64_t panels_a_task;
} product_job;

static void product_panel(const product_job *job, int64_t index, int worker) {
    const kvant_weight *w = job->w;
    const kvant_activations *a = job->a;
    int64_t first_row = index * ROWS;
    size_t n_row = (size_t)(w->rows - first_row < ROWS ? w->rows - first_row : ROWS);
    bool whole = n_row == ROWS;
    float *acc = whole ? job->out + first_row : a->edge + (size_t)worker * (size_t)a->n_max * ROWS;
    size_t stride = whole ? job->out_stride : ROWS;
    for (int i = 0; i < a->n; i++) {
        float *row = acc + (size_t)i * stride;
        memset(row, 0, ROWS * sizeof(float));
        if (job->bias) memcpy(row, job->bias + first_row, n_row * sizeof(float));
    }
    const uint8_t *panel = w->panels + (size_t)index * w->panel_bytes;
    if (w->format->split) product_quantized(w, a, panel, acc, stride, &a->scratch[worker]);
    else product_float(w, a, panel, acc, stride, &a->scratch[worker]);
    if (whole) return;
    for (int i = 0; i < a->n; i++)
        memcpy(job->out + (size_t)i * job->out_stride + first_row, acc + (size_t)i * stride, n_row * sizeof(float));
}

static void product_task(void *arg, int task, int worker) {
    const product_job *job = arg;
    int64_t first = task * job->panels_a_task, end = first + job->panels_a_task;
    if (end > job->w->n_panel) end = job->w->n_panel;
    for (int64_t i = first; i < end; i++) product_panel(job, i, worker);
}

void kvant_weight_product(const kvant_weight *w, const kvant_activations *a, const float *bias, float *out, size_t out_stride) {
    product_job job = {w, a, bias, out, out_stride, 1};
    if (a->n == 0) return;
    size_t task_bytes = TASK_BYTES / (size_t)(a->n < 16 ? a->n : 16);
    int64_t per = (int64_t)(task_bytes / w->panel_bytes), workers = kvant_pool_size(a->ctx->pool);
    if (per > w->n_panel / workers) per = w->n_panel / workers;
    job.panels_a_task = per > 0 ? per : 1;
    kvant_pool_run(a->ctx->pool, (int)((w->n_panel + job.panels_a_task - 1) / job.panels_a_task), product_task, &job);
}

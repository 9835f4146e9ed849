// SPDX-License-Identifier: MIT
/* weight_product.c: activations times a repacked weight.
 *
 * A task takes some panels and a group of vectors. Of each panel a chunk of columns is expanded into a tile that stays in the
 * nearest caches, and that tile multiplies the vectors of the group. Every output is one chain of additions in the order of the
 * columns, so it has the same bits whatever the number of vectors, tasks and threads.
 *
 * Not here: the formats (weight_formats.h), the loops themselves (kernel/). */
#include <assert.h>
#include <string.h>

#include "base/memory.h"
#include "kernel/panel.h"
#include "weight/weight_panel.h"

#define ROWS KVANT_PANEL_ROWS
#define FLOAT_COLS 256                /* columns of a float tile: 16 KiB */
#define TASK_BYTES ((size_t)48 << 10) /* packed weight a task reads at most when there are few vectors */
#define TASKS_A_WORKER 4              /* at least, so that a worker that comes late finds some left */
#define GROUP_BYTES ((size_t)256 << 10) /* vectors of a group: half of a usual second cache level */
#define GROUP_MIN 60                  /* vectors that pay for expanding a tile once more */
#define GROUP_MAX 120                 /* all are multiples of 12, because kernels take 4 or 6 vectors at once */
#define QUANTIZE_FLOATS 16384         /* of activations, for one task */

/* Scratch of one worker. */
typedef struct product_scratch {
    uint8_t tile[KVANT_CHUNK_COLS * ROWS];
    float tile_f32[FLOAT_COLS * ROWS];
    float scale[KVANT_CHUNK_COLS / 16 * ROWS], bias[KVANT_CHUNK_COLS / 16 * ROWS];
    float d[KVANT_CHUNK_COLS / 32 * ROWS], m[KVANT_CHUNK_COLS / 32 * ROWS];
    float acc[GROUP_MAX * ROWS]; /* sums of the group's vectors */
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
};

kvant_status kvant_activations_create(kvant_context *ctx, int n_max, int64_t k_max, kvant_activations **out) {
    if (n_max < 1 || k_max < 1 || k_max > INT32_MAX - KVANT_BLOCK) return KVANT_EINVAL;
    kvant_activations *a = kvant_alloc(1, sizeof *a);
    if (!a) return KVANT_ENOMEM;
    size_t n = (size_t)n_max, workers = (size_t)kvant_pool_size(ctx->pool);
    *a = (kvant_activations){.ctx = ctx, .n_max = n_max, .k_max = k_max};
    a->k_padded = ((size_t)k_max + KVANT_BLOCK - 1) / KVANT_BLOCK * KVANT_BLOCK;
    a->q = kvant_alloc_aligned(n, a->k_padded);
    a->q_scale = kvant_alloc_aligned(n * (a->k_padded / KVANT_BLOCK), sizeof(float));
    a->q_sum = kvant_alloc_aligned(n * (a->k_padded / 16), sizeof(int16_t));
    a->scratch = kvant_alloc_aligned(workers, sizeof(product_scratch));
    if (!a->q || !a->q_scale || !a->q_sum || !a->scratch) {
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
    kvant_free(a);
}

typedef struct quantize_job {
    const kvant_activations *a;
    int rows_a_task;
} quantize_job;

static void quantize_rows(void *arg, int task, int worker) {
    (void)worker;
    const quantize_job *job = arg;
    const kvant_activations *a = job->a;
    int first = task * job->rows_a_task, end = a->n - first < job->rows_a_task ? a->n : first + job->rows_a_task;
    for (size_t r = (size_t)first; r < (size_t)end; r++)
        a->ctx->kernels->quantize_q8(a->q + r * a->k_padded, a->q_scale + r * (a->k_padded / KVANT_BLOCK),
                                     a->q_sum + r * (a->k_padded / 16), a->x + r * (size_t)a->k, (int)a->k);
}

void kvant_activations_set(kvant_activations *a, const float *x, int n, int64_t k, kvant_precision precision) {
    assert(n >= 0 && n <= a->n_max && k >= 1 && k <= a->k_max);
    a->x = x;
    a->n = n;
    a->k = k;
    a->precision = precision;
    /* Rows that are not whole blocks meet float weights only. */
    if (precision != KVANT_FAST || k % KVANT_BLOCK != 0 || n == 0) return;
    quantize_job job = {a, (int)((QUANTIZE_FLOATS + k - 1) / k)};
    kvant_pool_run(a->ctx->pool, (n + job.rows_a_task - 1) / job.rows_a_task, quantize_rows, &job);
}

/* Loops over the 16 rows of a panel: of a known length and without aliases, so that any compiler makes vectors of them. */
static void scale_u8(float *restrict out, const float *restrict d, const uint8_t *restrict sub) {
    for (int r = 0; r < ROWS; r++) out[r] = d[r] * (float)sub[r];
}
static void scale_i8(float *restrict out, const float *restrict d, const uint8_t *restrict sub) {
    for (int r = 0; r < ROWS; r++) out[r] = d[r] * (float)(int8_t)sub[r];
}
static void scale_low_4_bits(float *restrict out, const float *restrict d, const uint8_t *restrict sub) {
    for (int r = 0; r < ROWS; r++) out[r] = d[r] * (float)(sub[r] & 15);
}
static void scale_high_4_bits(float *restrict out, const float *restrict d, const uint8_t *restrict sub) {
    for (int r = 0; r < ROWS; r++) out[r] = d[r] * (float)(sub[r] >> 4);
}
static void multiply(float *restrict out, const float *restrict x, float factor) {
    for (int r = 0; r < ROWS; r++) out[r] = x[r] * factor;
}
/* 2^(e - 128); the two smallest are subnormal floats. */
static void scale_e8m0(uint32_t *restrict bits, const uint8_t *restrict exponents) {
    for (int r = 0; r < ROWS; r++) {
        uint32_t e = exponents[r], normal = (e - 1) << 23, subnormal = (e + 1) << 21;
        bits[r] = e < 2 ? subnormal : normal;
    }
}
static void widen_bf16(uint32_t *restrict bits, const uint16_t *restrict half) {
    for (int r = 0; r < ROWS; r++) bits[r] = (uint32_t)half[r] << 16;
}

static void expand_sub_scales(const kvant_weight *w, const kvant_chunk_layout *c, const uint8_t *chunk, size_t n_sub,
                              product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const uint8_t *sub_scale = chunk + c->sub_scale, *sub_min = chunk + c->sub_min;
    size_t subs_a_block = (size_t)(f->block_elements / f->sub_elements);
    for (size_t b = 0; b < n_sub; b++, sub_scale += ROWS, sub_min += ROWS) {
        const float *d = s->d + b / subs_a_block * ROWS, *m = s->m + b / subs_a_block * ROWS;
        float *scale = s->scale + b * ROWS, *bias = s->bias + b * ROWS;
        if (f->sub == KVANT_SUB_U8) {
            scale_u8(scale, d, sub_scale);
            scale_u8(bias, m, sub_min);
        } else if (f->sub == KVANT_SUB_U4) {
            scale_low_4_bits(scale, d, sub_scale);
            scale_high_4_bits(bias, m, sub_scale);
        } else {
            scale_i8(scale, d, sub_scale);
        }
    }
}

/* The scales and biases of blocks that have no scales of their own inside: n numbers of the format's kind at `from` -> out, each
 * row of 16 `copies` times. */
static void expand_numbers(const kvant_weight *w, const uint8_t *from, size_t n, size_t copies, float *out) {
    const kvant_weight_format *f = w->format;
    if (f->scale == KVANT_SCALE_F16 && copies == 1) {
        w->ctx->kernels->f16_to_f32(out, (const uint16_t *)(const void *)from, (int)n);
        return;
    }
    for (size_t i = 0; i < n; i += ROWS, from += ROWS * kvant_scale_bytes(f->scale)) {
        float row[ROWS];
        if (f->scale == KVANT_SCALE_F32) memcpy(row, from, sizeof row);
        else if (f->scale == KVANT_SCALE_F16) w->ctx->kernels->f16_to_f32(row, (const uint16_t *)(const void *)from, ROWS);
        else {
            uint32_t bits[ROWS];
            widen_bf16(bits, (const uint16_t *)(const void *)from);
            memcpy(row, bits, sizeof row);
        }
        for (size_t c = 0; c < copies; c++, out += ROWS) memcpy(out, row, sizeof row);
    }
}

/* Scales and biases of a chunk of n columns as floats, [n / sub_elements][16] each. */
static void expand_scales(const kvant_weight *w, const kvant_chunk_layout *c, const uint8_t *chunk, size_t n,
                          product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const kvant_kernels *k = w->ctx->kernels;
    size_t n_d = n / (size_t)f->block_elements * ROWS, n_sub = n / (size_t)f->sub_elements;
    const uint16_t *d = (const uint16_t *)(const void *)chunk, *m = (const uint16_t *)(const void *)(chunk + c->m);
    if (f->sub == KVANT_SUB_NONE) {
        size_t copies = (size_t)(f->block_elements / f->sub_elements);
        expand_numbers(w, chunk, n_d, copies, s->scale);
        if (f->has_min) expand_numbers(w, chunk + c->m, n_d, copies, s->bias);
    } else if (f->sub == KVANT_SUB_E8M0) {
        for (size_t b = 0; b < n_sub; b++) {
            uint32_t bits[ROWS];
            scale_e8m0(bits, chunk + c->sub_scale + b * ROWS);
            memcpy(s->scale + b * ROWS, bits, sizeof bits);
        }
    } else {
        k->f16_to_f32(s->d, d, (int)n_d);
        if (f->has_min) {
            k->f16_to_f32(s->m, m, (int)n_d);
            for (size_t i = 0; i < n_d; i++) s->m[i] = -s->m[i];
        }
        expand_sub_scales(w, c, chunk, n_sub, s);
    }
    if (f->zero_point == 0) return;
    for (size_t b = 0; b < n_sub; b++) {
        if (f->has_min) k->add_scaled_f32(s->bias + b * ROWS, s->scale + b * ROWS, -(float)f->zero_point, ROWS);
        else multiply(s->bias + b * ROWS, s->scale + b * ROWS, -(float)f->zero_point);
    }
}

/* The codes of n_block block32s as a byte tile; 8-bit codes need no expansion. */
static const uint8_t *expand_codes(const kvant_weight *w, const uint8_t *packed, int n_block, uint8_t *tile) {
    const kvant_kernels *k = w->ctx->kernels;
    if (!w->format->table) return kvant_panel_unpack(k, w->format->code_bits, packed, n_block, tile);
    k->unpack_table4(tile, packed, n_block, w->format->table);
    return tile;
}

/* The vectors [first, first + n) of a product: what a task multiplies. */
typedef struct vector_group {
    const kvant_activations *a;
    size_t first;
    int n;
} vector_group;

static void product_integers(const kvant_weight *w, const vector_group *g, size_t first, int n_block, const uint8_t *tile,
                             const float *bias, product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const kvant_activations *a = g->a;
    bool is_signed = f->table || f->code_bits == 8;
    size_t scale_stride = a->k_padded / KVANT_BLOCK, block = g->first * scale_stride + first / KVANT_BLOCK;
    kvant_product_q8 p = {.tile = tile, .scale = s->scale, .bias = bias, .scale_block = f->sub_elements, .n_block = n_block,
                          .n = g->n, .x = a->q + g->first * a->k_padded + first, .x_stride = a->k_padded,
                          .x_scale = a->q_scale + block, .x_scale_stride = scale_stride, .x_sum = a->q_sum + 2 * block,
                          .acc = s->acc, .acc_stride = ROWS, .max_code = w->max_code};
    (is_signed ? w->ctx->kernels->product_s : w->ctx->kernels->product_u)(&p);
}

static kvant_product_f32 float_product(const vector_group *g, const void *tile, size_t first, size_t n, product_scratch *s) {
    const kvant_activations *a = g->a;
    return (kvant_product_f32){tile, (int)n, g->n, a->x + g->first * (size_t)a->k + first, (size_t)a->k, s->acc, ROWS};
}

static void product_expanded(const kvant_weight *w, const vector_group *g, size_t first, size_t n, const uint8_t *tile,
                             const float *bias, product_scratch *s) {
    const kvant_weight_format *f = w->format;
    const kvant_kernels *k = w->ctx->kernels;
    bool is_signed = f->table || f->code_bits == 8;
    for (size_t at = 0; at < n; at += FLOAT_COLS) {
        size_t width = n - at < FLOAT_COLS ? n - at : FLOAT_COLS, sub_at = at / (size_t)f->sub_elements * ROWS;
        const float *sub_bias = bias ? bias + sub_at : NULL;
        (is_signed ? k->tile_s_to_f32 : k->tile_u_to_f32)(s->tile_f32, tile + at * ROWS, s->scale + sub_at, sub_bias,
                                                          f->sub_elements, (int)(width / KVANT_BLOCK));
        kvant_product_f32 p = float_product(g, s->tile_f32, first + at, width, s);
        k->product_f32(&p);
    }
}

static void product_quantized(const kvant_weight *w, const vector_group *g, const uint8_t *panel, product_scratch *s) {
    const float *bias = w->format->has_min || w->format->zero_point ? s->bias : NULL;
    size_t cols = (size_t)w->cols;
    for (size_t first = 0; first < cols; first += KVANT_CHUNK_COLS) {
        const kvant_chunk_layout *c = kvant_weight_chunk_layout(w, (int64_t)first);
        size_t n = cols - first < KVANT_CHUNK_COLS ? cols - first : KVANT_CHUNK_COLS;
        expand_scales(w, c, panel, n, s);
        const uint8_t *tile = expand_codes(w, panel + c->codes, (int)(n / KVANT_BLOCK), s->tile);
        if (g->a->precision == KVANT_EXACT) product_expanded(w, g, first, n, tile, bias, s);
        else product_integers(w, g, first, (int)(n / KVANT_BLOCK), tile, bias, s);
        panel += c->bytes;
    }
}

static void product_floats(const kvant_weight *w, const vector_group *g, const uint8_t *panel, product_scratch *s) {
    const kvant_kernels *k = w->ctx->kernels;
    size_t cols = (size_t)w->cols;
    for (size_t first = 0; first < cols; first += FLOAT_COLS) {
        size_t n = cols - first < FLOAT_COLS ? cols - first : FLOAT_COLS;
        const uint8_t *tile = panel + first * ROWS * (size_t)w->format->block_bytes;
        kvant_product_f32 p = float_product(g, tile, first, n, s);
        if (w->format->type == KVANT_W_F16) {
            k->product_f16(&p);
            continue;
        }
        if (w->format->type == KVANT_W_BF16) { /* the upper half of a float */
            for (size_t i = 0; i < n; i++) {
                uint32_t bits[ROWS];
                widen_bf16(bits, (const uint16_t *)(const void *)tile + i * ROWS);
                memcpy(s->tile_f32 + i * ROWS, bits, sizeof bits);
            }
            p.tile = s->tile_f32;
        }
        k->product_f32(&p);
    }
}

typedef struct product_job {
    const kvant_weight *w;
    const kvant_activations *a;
    const float *bias;
    float *out;
    size_t out_stride;
    int panels_a_task, n_panel_task, vectors_a_group;
} product_job;

static void product_panel(const product_job *job, int64_t index, const vector_group *g, product_scratch *s) {
    const kvant_weight *w = job->w;
    int64_t first_row = index * ROWS;
    size_t n_row = (size_t)(w->rows - first_row < ROWS ? w->rows - first_row : ROWS);
    float start[ROWS] = {0};
    if (job->bias) memcpy(start, job->bias + first_row, n_row * sizeof(float));
    for (int i = 0; i < g->n; i++) memcpy(s->acc + i * ROWS, start, sizeof start);
    const uint8_t *panel = w->panels + (size_t)index * w->panel_bytes;
    if (w->format->code_bits) product_quantized(w, g, panel, s);
    else product_floats(w, g, panel, s);
    float *out = job->out + g->first * job->out_stride + first_row;
    for (int i = 0; i < g->n; i++) memcpy(out + (size_t)i * job->out_stride, s->acc + i * ROWS, n_row * sizeof(float));
}

static void product_task(void *arg, int task, int worker) {
    const product_job *job = arg;
    vector_group g = {.a = job->a, .first = (size_t)(task / job->n_panel_task) * (size_t)job->vectors_a_group};
    int rest = job->a->n - (int)g.first;
    g.n = rest < job->vectors_a_group ? rest : job->vectors_a_group;
    int64_t first = (int64_t)(task % job->n_panel_task) * job->panels_a_task, end = first + job->panels_a_task;
    if (end > job->w->n_panel) end = job->w->n_panel;
    for (int64_t i = first; i < end; i++) product_panel(job, i, &g, &job->a->scratch[worker]);
}

/* The number of tasks. A task's vectors stay in the second cache level while its panels pass by. */
static int plan_tasks(product_job *job) {
    const kvant_weight *w = job->w;
    bool floats = w->format->code_bits == 0 || job->a->precision == KVANT_EXACT;
    size_t vectors = GROUP_BYTES / ((size_t)w->cols * (floats ? sizeof(float) : 1)) / 12 * 12;
    job->vectors_a_group = vectors < GROUP_MIN ? GROUP_MIN : vectors > GROUP_MAX ? GROUP_MAX : (int)vectors;
    size_t task_bytes = TASK_BYTES / (size_t)(job->a->n < 16 ? job->a->n : 16);
    int64_t panels = (int64_t)(task_bytes / w->panel_bytes), workers = kvant_pool_size(job->a->ctx->pool);
    int64_t fair = w->n_panel / (TASKS_A_WORKER * workers);
    if (panels > fair) panels = fair;
    job->panels_a_task = panels > 0 ? (int)panels : 1;
    job->n_panel_task = (int)((w->n_panel + job->panels_a_task - 1) / job->panels_a_task);
    return job->n_panel_task * ((job->a->n + job->vectors_a_group - 1) / job->vectors_a_group);
}

void kvant_weight_product(const kvant_weight *w, const kvant_activations *a, const float *bias, float *out, size_t out_stride) {
    assert(w->cols == a->k && (a->n <= 1 || out_stride >= (size_t)w->rows));
    product_job job = {.w = w, .a = a, .bias = bias, .out = out, .out_stride = out_stride};
    if (a->n == 0) return;
    kvant_pool_run(a->ctx->pool, plan_tasks(&job), product_task, &job);
}

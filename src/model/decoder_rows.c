// SPDX-License-Identifier: MIT
/* decoder_rows.c: what happens to each row of activations on its own: norms, RoPE, the MLP's activation, scales.
 *
 * Rows go to the threads in blocks when there is enough work to pay for waking them. Which thread takes a row, and how many
 * rows there are, cannot change its bits. */
#include <math.h>

#include "model/decoder_internal.h"

#define ROW_WORK_MIN 32768 /* elements below which one thread is faster */

typedef struct rows_job {
    const kvant_decoder *d;
    void (*row)(const struct rows_job *job, int i);
    float *y;
    const float *x, *weight, *bias, *cosine, *sine;
    const kvant_rope *rope;
    float a;
    int n, width, n_head, head_dim, n_block;
    size_t stride;
} rows_job;

static void run_block(void *arg, int task, int worker) {
    const rows_job *job = arg;
    (void)worker;
    int first = (int)((int64_t)job->n * task / job->n_block), last = (int)((int64_t)job->n * (task + 1) / job->n_block);
    for (int i = first; i < last; i++)
        job->row(job, i);
}

static void run_rows(rows_job *job) {
    int n_threads = kvant_pool_size(job->d->ctx->pool);
    if (n_threads == 1 || (int64_t)job->n * job->width < ROW_WORK_MIN) {
        for (int i = 0; i < job->n; i++)
            job->row(job, i);
        return;
    }
    job->n_block = job->n < 4 * n_threads ? job->n : 4 * n_threads;
    kvant_pool_run(job->d->ctx->pool, job->n_block, run_block, job);
}

static void layer_norm_row(float *y, const float *x, const float *weight, const float *bias, int n, float eps) {
    double sum = 0, squares = 0;
    for (int j = 0; j < n; j++)
        sum += (double)x[j];
    float mean = (float)(sum / n);
    for (int j = 0; j < n; j++)
        squares += (double)(x[j] - mean) * (double)(x[j] - mean);
    float r = 1.0f / sqrtf((float)(squares / n) + eps);
    for (int j = 0; j < n; j++)
        y[j] = (x[j] - mean) * r * weight[j] + (bias ? bias[j] : 0.0f);
}

static void norm_row(const rows_job *job, int i) {
    const float *x = job->x + (size_t)i * (size_t)job->width;
    float *y = job->y + (size_t)i * (size_t)job->width;
    if (job->d->hp.traits->layer_norm)
        layer_norm_row(y, x, job->weight, job->bias, job->width, job->d->hp.norm_eps);
    else
        job->d->ctx->kernels->rms_norm(y, x, job->weight, job->width, job->d->hp.norm_eps);
}

void kvant_rows_norm(const kvant_decoder *d, float *y, const float *x, const kvant_norm *norm, int n, int width) {
    run_rows(
        &(rows_job){.d = d, .row = norm_row, .y = y, .x = x, .weight = norm->weight, .bias = norm->bias, .n = n, .width = width});
}

static void norm_heads_row(const rows_job *job, int i) {
    float *y = job->y + (size_t)i * (size_t)job->width;
    for (int h = 0; h < job->n_head; h++, y += job->head_dim)
        job->d->ctx->kernels->rms_norm(y, y, job->weight, job->head_dim, job->d->hp.norm_eps);
}

void kvant_rows_norm_heads(const kvant_decoder *d, float *x, const float *weight, int n, int n_head, int head_dim) {
    run_rows(&(rows_job){.d = d,
                         .row = norm_heads_row,
                         .y = x,
                         .weight = weight,
                         .n = n,
                         .width = n_head * head_dim,
                         .n_head = n_head,
                         .head_dim = head_dim});
}

static void rope_row(const rows_job *job, int i) {
    size_t at = (size_t)i * (size_t)(job->rope->n_rot / 2);
    kvant_rope_apply(job->rope, job->cosine + at, job->sine + at, job->n_head, job->head_dim,
                     job->y + (size_t)i * (size_t)job->width);
}

void kvant_rows_rope(const kvant_decoder *d, const kvant_rope *r, const float *cosine, const float *sine, float *x, int n,
                     int n_head) {
    run_rows(&(rows_job){.d = d,
                         .row = rope_row,
                         .y = x,
                         .rope = r,
                         .cosine = cosine,
                         .sine = sine,
                         .n = n,
                         .width = n_head * d->hp.head_dim,
                         .n_head = n_head,
                         .head_dim = d->hp.head_dim});
}

/* gpt-oss: both halves clamped, the sigmoid sharpened, and the linear half shifted by 1. */
static void swiglu_oai(float *gate, const float *up, int n) {
    const float alpha = 1.702f, limit = 7.0f;
    for (int j = 0; j < n; j++) {
        float g = gate[j] > limit ? limit : gate[j];
        float u = up[j] > limit ? limit : up[j] < -limit ? -limit : up[j];
        gate[j] = g / (1.0f + expf(-alpha * g)) * (u + 1.0f);
    }
}

static void activate_row(const rows_job *job, int i) {
    const kvant_kernels *k = job->d->ctx->kernels;
    size_t at = (size_t)i * (size_t)job->width;
    float *gate = job->y + at;
    const float *up = job->x ? job->x + at : NULL;
    switch (job->d->hp.traits->activation) {
    case KVANT_ACT_SILU:
        k->silu_mul(gate, up, job->width);
        break;
    case KVANT_ACT_GELU:
        k->gelu_mul(gate, up, job->width);
        break;
    case KVANT_ACT_SWIGLU_OAI:
        swiglu_oai(gate, up, job->width);
        break;
    }
}

void kvant_rows_activate(const kvant_decoder *d, float *gate, const float *up, int n, int width) {
    run_rows(&(rows_job){.d = d, .row = activate_row, .y = gate, .x = up, .n = n, .width = width});
}

static void scale_add_bias_row(const rows_job *job, int i) {
    float *y = job->y + (size_t)i * job->stride;
    if (job->a != 1.0f) job->d->ctx->kernels->scale_f32(y, job->a, job->width);
    if (job->bias) job->d->ctx->kernels->add_f32(y, job->bias, job->width);
}

void kvant_rows_scale_add_bias(const kvant_decoder *d, float *x, float scale, const float *bias, int n, int width,
                               size_t stride) {
    run_rows(&(rows_job){
        .d = d, .row = scale_add_bias_row, .y = x, .a = scale, .bias = bias, .n = n, .width = width, .stride = stride});
}

static void add_scaled_row(const rows_job *job, int i) {
    size_t at = (size_t)i * (size_t)job->width;
    if (job->a == 1.0f)
        job->d->ctx->kernels->add_f32(job->y + at, job->x + at, job->width);
    else
        job->d->ctx->kernels->add_scaled_f32(job->y + at, job->x + at, job->a, job->width);
}

void kvant_rows_add_scaled(const kvant_decoder *d, float *y, const float *x, float a, int n, int width) {
    run_rows(&(rows_job){.d = d, .row = add_scaled_row, .y = y, .x = x, .a = a, .n = n, .width = width});
}

static void softcap_row(const rows_job *job, int i) {
    float *y = job->y + (size_t)i * (size_t)job->width;
    for (int j = 0; j < job->width; j++)
        y[j] = job->a * tanhf(y[j] / job->a);
}

void kvant_rows_softcap(const kvant_decoder *d, float *x, float cap, int n, int width) {
    run_rows(&(rows_job){.d = d, .row = softcap_row, .y = x, .a = cap, .n = n, .width = width});
}

void kvant_linear_apply(const kvant_decoder *d, const kvant_linear *l, const kvant_activations *a, int n, float *out,
                        size_t stride) {
    if (l->scale == 1.0f) {
        kvant_weight_product(l->w, a, l->bias, out, stride);
        return;
    }
    kvant_weight_product(l->w, a, NULL, out, stride);
    kvant_rows_scale_add_bias(d, out, l->scale, l->bias, n, (int)kvant_weight_rows(l->w), stride);
}

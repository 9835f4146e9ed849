// SPDX-License-Identifier: MIT
/* pixtral_tower.c: the forward pass of Pixtral's vision model: every patch attends to all patches of its picture.
 *
 * Positions are two: of a head's pairs, the first half turns with the row, the second with the column, with every second
 * frequency each. Attention reads keys and values that were laid out anew for each head, so that its loops run over memory in
 * order. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernel/kernels.h"
#include "vision/pixtral_internal.h"

#define ROWS_A_TASK 16

typedef struct pass {
    const kvant_pixtral *t;
    int n, columns, rows;
    kvant_activations *a;
    float *x, *h;             /* [n][n_embd] */
    float *q, *k, *v, *mixed; /* [n][n_head * head_dim] */
    float *gate, *up;         /* [n][widest] */
    float *cosine, *sine;     /* [n][head_dim / 2] */
    float *keys;              /* [n_head][head_dim][n] */
    float *scores;            /* [workers][n] */
    kvant_pixtral_watch_fn watch;
    void *user;
} pass;

static int width_of(const kvant_pixtral *t) { return t->n_head * t->head_dim; }

static int max_of(int a, int b) { return a > b ? a : b; }

static int n_tasks(int n) { return (n + ROWS_A_TASK - 1) / ROWS_A_TASK; }

static int task_end(int task, int n) { return (task + 1) * ROWS_A_TASK < n ? (task + 1) * ROWS_A_TASK : n; }

static float *floats(size_t n, size_t width, bool *ok) {
    size_t total;
    float *p = kvant_mul_size(n, width, &total) ? kvant_alloc_aligned(total, sizeof *p) : NULL;
    *ok = *ok && p;
    return p;
}

static void pass_free(pass *p) {
    float *all[] = {p->x, p->h, p->q, p->k, p->v, p->mixed, p->gate, p->up, p->cosine, p->sine, p->keys, p->scores};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        kvant_free_aligned(all[i]);
    kvant_activations_destroy(p->a);
}

static kvant_status pass_create(const kvant_pixtral *t, int columns, int rows, pass *p) {
    bool ok = true;
    size_t n = (size_t)columns * (size_t)rows, width = (size_t)width_of(t), workers = (size_t)kvant_pool_size(t->ctx->pool);
    int patch = 3 * t->rules.patch * t->rules.patch, widest = max_of(max_of(t->n_ff, t->n_projector), patch);
    *p = (pass){.t = t, .n = (int)n, .columns = columns, .rows = rows};
    p->x = floats(n, (size_t)t->n_embd, &ok);
    p->h = floats(n, (size_t)t->n_embd, &ok);
    p->q = floats(n, width, &ok);
    p->k = floats(n, width, &ok);
    p->v = floats(n, width, &ok);
    p->mixed = floats(n, width, &ok);
    p->gate = floats(n, (size_t)widest, &ok);
    p->up = floats(n, (size_t)t->n_ff, &ok);
    p->cosine = floats(n, (size_t)t->head_dim / 2, &ok);
    p->sine = floats(n, (size_t)t->head_dim / 2, &ok);
    p->keys = floats(n, width, &ok);
    p->scores = floats(workers, n, &ok);
    int reduced = max_of(max_of(widest, t->n_embd), (int)width);
    if (ok && kvant_activations_create(t->ctx, (int)n, reduced, &p->a) == KVANT_OK) return KVANT_OK;
    pass_free(p);
    return KVANT_ENOMEM;
}

static void show(const pass *p, const char *stage, const float *x, int width) {
    if (p->watch) p->watch(p->user, stage, x, p->n, width);
}

static void product(const pass *p, const kvant_weight *w, const float *x, const float *bias, float *out) {
    kvant_activations_set(p->a, x, p->n, kvant_weight_cols(w), KVANT_EXACT);
    kvant_weight_product(w, p->a, bias, out, (size_t)kvant_weight_rows(w));
}

/* ---- rows on the threads ---- */

typedef struct row_job {
    const pass *p;
    float *y;
    const float *x, *weight;
} row_job;

static void norm_task(void *arg, int task, int worker) {
    const row_job *job = arg;
    const kvant_pixtral *t = job->p->t;
    size_t width = (size_t)t->n_embd;
    (void)worker;
    for (int i = task * ROWS_A_TASK; i < task_end(task, job->p->n); i++)
        t->ctx->kernels->rms_norm(job->y + (size_t)i * width, job->x + (size_t)i * width, job->weight, t->n_embd, t->eps);
}

static void norm(const pass *p, float *y, const float *x, const float *weight) {
    row_job job = {p, y, x, weight};
    kvant_pool_run(p->t->ctx->pool, n_tasks(p->n), norm_task, &job);
}

static void silu_task(void *arg, int task, int worker) {
    const pass *p = arg;
    size_t width = (size_t)p->t->n_ff;
    (void)worker;
    for (int i = task * ROWS_A_TASK; i < task_end(task, p->n); i++)
        p->t->ctx->kernels->silu_mul(p->gate + (size_t)i * width, p->up + (size_t)i * width, p->t->n_ff);
}

static void gelu_task(void *arg, int task, int worker) {
    const pass *p = arg;
    size_t width = (size_t)p->t->n_projector;
    (void)worker;
    for (int i = task * ROWS_A_TASK; i < task_end(task, p->n); i++) {
        float *g = p->gate + (size_t)i * width;
        for (size_t k = 0; k < width; k++)
            g[k] = 0.5f * g[k] * (1.0f + erff(g[k] * 0.70710678f));
    }
}

/* ---- patches and positions ---- */

/* The pixels of every patch as a row, in the order of the weights. */
static void cut_patches(const pass *p, const float *picture) {
    const kvant_pixtral *t = p->t;
    size_t side = (size_t)t->rules.patch, width = (size_t)p->columns * side, plane = width * (size_t)p->rows * side;
    float *to = p->gate;
    for (size_t i = 0; i < (size_t)p->n; i++) {
        const float *corner = picture + i / (size_t)p->columns * side * width + i % (size_t)p->columns * side;
        for (size_t a = 0; a < 3 * side * side; a++) {
            size_t c = t->channels_last ? a % 3 : a / (side * side), rest = t->channels_last ? a / 3 : a % (side * side);
            *to++ = corner[c * plane + rest / side * width + rest % side];
        }
    }
}

static void prepare_positions(const pass *p) {
    const kvant_pixtral *t = p->t;
    int half = t->head_dim / 2, quarter = t->head_dim / 4;
    for (int i = 0; i < p->n; i++)
        for (int k = 0; k < half; k++) {
            int position = k < quarter ? i / p->columns : i % p->columns, index = k < quarter ? 2 * k : 2 * (k - quarter) + 1;
            double angle = position * pow(t->rope_base, -2.0 * index / t->head_dim);
            p->cosine[(size_t)i * (size_t)half + (size_t)k] = (float)cos(angle);
            p->sine[(size_t)i * (size_t)half + (size_t)k] = (float)sin(angle);
        }
}

static void turn_head(const pass *p, int row, float *x) {
    int half = p->t->head_dim / 2, first = p->t->halves ? 1 : 2, apart = p->t->halves ? half : 1;
    const float *c = p->cosine + (size_t)row * (size_t)half, *s = p->sine + (size_t)row * (size_t)half;
    for (int k = 0; k < half; k++) {
        float a = x[k * first], b = x[k * first + apart];
        x[k * first] = a * c[k] - b * s[k];
        x[k * first + apart] = b * c[k] + a * s[k];
    }
}

static void turn_task(void *arg, int task, int worker) {
    const pass *p = arg;
    size_t width = (size_t)width_of(p->t), head_dim = (size_t)p->t->head_dim;
    (void)worker;
    for (int i = task * ROWS_A_TASK; i < task_end(task, p->n); i++)
        for (size_t h = 0; h < (size_t)p->t->n_head; h++) {
            turn_head(p, i, p->q + (size_t)i * width + h * head_dim);
            turn_head(p, i, p->k + (size_t)i * width + h * head_dim);
        }
}

/* ---- attention ---- */

static void lay_out_task(void *arg, int head, int worker) {
    const pass *p = arg;
    size_t n = (size_t)p->n, head_dim = (size_t)p->t->head_dim, width = (size_t)width_of(p->t), at = (size_t)head * head_dim;
    (void)worker;
    for (size_t i = 0; i < n; i++)
        for (size_t d = 0; d < head_dim; d++)
            p->keys[(at + d) * n + i] = p->k[i * width + at + d];
}

/* One query against all keys. */
static void attend_row(const pass *p, size_t head, size_t row, float *scores) {
    const kvant_pixtral *t = p->t;
    const kvant_kernels *k = t->ctx->kernels;
    size_t n = (size_t)p->n, head_dim = (size_t)t->head_dim, width = (size_t)width_of(t), at = head * head_dim;
    const float *q = p->q + row * width + at;
    float *out = p->mixed + row * width + at, scale = 1.0f / sqrtf((float)t->head_dim);
    memset(scores, 0, n * sizeof *scores);
    for (size_t d = 0; d < head_dim; d++)
        k->add_scaled_f32(scores, p->keys + (at + d) * n, q[d] * scale, p->n);
    float sum = k->exp_sum(scores, p->n, k->max_f32(scores, p->n));
    memset(out, 0, head_dim * sizeof *out);
    for (size_t i = 0; i < n; i++)
        k->add_scaled_f32(out, p->v + i * width + at, scores[i], t->head_dim);
    k->scale_f32(out, 1.0f / sum, t->head_dim);
}

static void attend_task(void *arg, int task, int worker) {
    const pass *p = arg;
    int blocks = n_tasks(p->n), head = task / blocks, block = task % blocks;
    float *scores = p->scores + (size_t)worker * (size_t)p->n;
    for (int i = block * ROWS_A_TASK; i < task_end(block, p->n); i++)
        attend_row(p, (size_t)head, (size_t)i, scores);
}

static void run_layer(const pass *p, const kvant_pixtral_layer *y) {
    const kvant_pixtral *t = p->t;
    kvant_pool *pool = t->ctx->pool;
    size_t total = (size_t)p->n * (size_t)t->n_embd;
    norm(p, p->h, p->x, y->attn_norm);
    product(p, y->q, p->h, NULL, p->q);
    product(p, y->k, p->h, NULL, p->k);
    product(p, y->v, p->h, NULL, p->v);
    kvant_pool_run(pool, n_tasks(p->n), turn_task, (void *)p);
    kvant_pool_run(pool, t->n_head, lay_out_task, (void *)p);
    kvant_pool_run(pool, t->n_head * n_tasks(p->n), attend_task, (void *)p);
    product(p, y->o, p->mixed, NULL, p->h);
    for (size_t i = 0; i < total; i++)
        p->x[i] += p->h[i];
    norm(p, p->h, p->x, y->ffn_norm);
    product(p, y->gate, p->h, NULL, p->gate);
    product(p, y->up, p->h, NULL, p->up);
    kvant_pool_run(pool, n_tasks(p->n), silu_task, (void *)p);
    product(p, y->down, p->gate, NULL, p->h);
    for (size_t i = 0; i < total; i++)
        p->x[i] += p->h[i];
}

kvant_status kvant_pixtral_encode(const kvant_pixtral *t, const float *picture, int columns, int rows, float *features,
                                  kvant_pixtral_watch_fn watch, void *user) {
    pass p;
    KVANT_TRY(pass_create(t, columns, rows, &p));
    p.watch = watch;
    p.user = user;
    cut_patches(&p, picture);
    product(&p, t->patch, p.gate, NULL, p.x);
    show(&p, "patch_conv", p.x, t->n_embd);
    norm(&p, p.x, p.x, t->pre_norm);
    show(&p, "ln_pre", p.x, t->n_embd);
    prepare_positions(&p);
    for (int i = 0; i < t->n_layer; i++)
        run_layer(&p, &t->layers[i]);
    show(&p, "hidden", p.x, t->n_embd);
    product(&p, t->in, p.x, t->in_bias, p.gate);
    kvant_pool_run(t->ctx->pool, n_tasks(p.n), gelu_task, &p);
    product(&p, t->out, p.gate, t->out_bias, features);
    show(&p, "features", features, t->n_text);
    pass_free(&p);
    return KVANT_OK;
}

// SPDX-License-Identifier: MIT
/* pixtral_tower.c: the forward pass of Pixtral's vision model: every patch attends to all patches of its picture.
 *
 * Positions are two: of a head's pairs, the first half turns with the row, the second with the column, with every second
 * frequency each. Attention multiplies panels as everything else does (kernel/kernels.h): keys and values are laid out anew for
 * each head. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "kernel/kernels.h"
#include "vision/pixtral_internal.h"

#define ROWS_A_TASK 16
#define ROWS KVANT_PANEL_ROWS
#define QUERIES 24       /* of one head, for one task */
#define KEYS_AT_ONCE 256 /* whose values stay in the nearest cache */

typedef struct pass {
    const kvant_pixtral *t;
    int n, columns, rows;
    kvant_activations *a;
    float *x, *h;              /* [n][n_embd] */
    float *q, *k, *v, *mixed;  /* [n][n_head * head_dim] */
    float *gate, *up;          /* [n][widest] */
    float *cosine, *sine;      /* [n][head_dim / 2] */
    size_t n_padded, d_padded; /* patches, and elements of a head, in whole panels */
    float *keys;               /* [n_head][n_padded / 16][head_dim][16] */
    float *values;             /* [n_head][d_padded / 16][n][16] */
    float *scores;             /* [workers][QUERIES][n_padded] */
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
    float *all[] = {p->x, p->h, p->q, p->k, p->v, p->mixed, p->gate, p->up, p->cosine, p->sine, p->keys, p->values, p->scores};
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
    p->n_padded = (n + ROWS - 1) / ROWS * ROWS;
    p->d_padded = ((size_t)t->head_dim + ROWS - 1) / ROWS * ROWS;
    p->keys = floats(p->n_padded, width, &ok);
    p->values = floats(n, p->d_padded * (size_t)t->n_head, &ok);
    p->scores = floats(workers * QUERIES, p->n_padded, &ok);
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

/* A head's keys as panels of 16 patches, its values as panels of 16 elements; what is missing to a panel is 0. */
static void lay_out_task(void *arg, int head, int worker) {
    const pass *p = arg;
    size_t n = (size_t)p->n, head_dim = (size_t)p->t->head_dim, width = (size_t)width_of(p->t), at = (size_t)head * head_dim;
    float *keys = p->keys + (size_t)head * p->n_padded * head_dim, *values = p->values + (size_t)head * p->d_padded * n;
    (void)worker;
    memset(keys, 0, p->n_padded * head_dim * sizeof *keys);
    memset(values, 0, p->d_padded * n * sizeof *values);
    for (size_t i = 0; i < n; i++) {
        const float *k = p->k + i * width + at, *v = p->v + i * width + at;
        for (size_t d = 0; d < head_dim; d++) {
            keys[(i / ROWS * head_dim + d) * ROWS + i % ROWS] = k[d];
            values[(d / ROWS * n + i) * ROWS + d % ROWS] = v[d];
        }
    }
}

/* Some queries against all keys: scores [n][n_padded], from which their weights become. */
static void weigh(const pass *p, int head, int first, int n, float *scores, float *sums) {
    const kvant_kernels *k = p->t->ctx->kernels;
    size_t head_dim = (size_t)p->t->head_dim, width = (size_t)width_of(p->t);
    float scale = 1.0f / sqrtf((float)p->t->head_dim);
    const float *keys = p->keys + (size_t)head * p->n_padded * head_dim;
    memset(scores, 0, (size_t)n * p->n_padded * sizeof *scores);
    for (size_t panel = 0; panel < p->n_padded / ROWS; panel++) {
        kvant_product_f32 product = {.tile = keys + panel * head_dim * ROWS,
                                     .k = p->t->head_dim,
                                     .n = n,
                                     .x = p->q + (size_t)first * width + (size_t)head * head_dim,
                                     .x_stride = width,
                                     .acc = scores + panel * ROWS,
                                     .acc_stride = p->n_padded};
        k->product_f32(&product);
    }
    for (int i = 0; i < n; i++) {
        float *row = scores + (size_t)i * p->n_padded;
        k->scale_f32(row, scale, p->n);
        sums[i] = k->exp_sum(row, p->n, k->max_f32(row, p->n));
    }
}

static void mix(const pass *p, int head, int first, int n, const float *weights, const float *sums) {
    const kvant_kernels *k = p->t->ctx->kernels;
    size_t head_dim = (size_t)p->t->head_dim, width = (size_t)width_of(p->t);
    const float *values = p->values + (size_t)head * p->d_padded * (size_t)p->n;
    float *out = p->mixed + (size_t)first * width + (size_t)head * head_dim, acc[QUERIES * ROWS];
    for (size_t panel = 0; panel < p->d_padded / ROWS; panel++) {
        memset(acc, 0, sizeof acc);
        for (int done = 0; done < p->n; done += KEYS_AT_ONCE) {
            kvant_product_f32 product = {.tile = values + (panel * (size_t)p->n + (size_t)done) * ROWS,
                                         .k = p->n - done < KEYS_AT_ONCE ? p->n - done : KEYS_AT_ONCE,
                                         .n = n,
                                         .x = weights + done,
                                         .x_stride = p->n_padded,
                                         .acc = acc,
                                         .acc_stride = ROWS};
            k->product_f32(&product);
        }
        size_t used = head_dim - panel * ROWS < ROWS ? head_dim - panel * ROWS : ROWS;
        for (int i = 0; i < n; i++)
            for (size_t d = 0; d < used; d++)
                out[(size_t)i * width + panel * ROWS + d] = acc[(size_t)i * ROWS + d] / sums[i];
    }
}

static int query_blocks(const pass *p) { return (p->n + QUERIES - 1) / QUERIES; }

static void attend_task(void *arg, int task, int worker) {
    const pass *p = arg;
    int head = task / query_blocks(p), first = task % query_blocks(p) * QUERIES,
        n = p->n - first < QUERIES ? p->n - first : QUERIES;
    float *scores = p->scores + (size_t)worker * QUERIES * p->n_padded, sums[QUERIES];
    weigh(p, head, first, n, scores, sums);
    mix(p, head, first, n, scores, sums);
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
    kvant_pool_run(pool, t->n_head * query_blocks(p), attend_task, (void *)p);
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

// SPDX-License-Identifier: MIT
/* workspace.c: the scratch of a step, allocated once for the largest step. */
#include <string.h>

#include "base/memory.h"
#include "model/decoder_internal.h"

typedef struct plan {
    size_t n_max;
    bool failed;
} plan;

/* [n_max][width] floats. */
static float *rows(plan *p, size_t width) {
    size_t n;
    if (p->failed || !kvant_mul_size(p->n_max, width ? width : 1, &n)) {
        p->failed = true;
        return NULL;
    }
    float *x = kvant_alloc_aligned(n, sizeof *x);
    if (x)
        memset(x, 0, n * sizeof *x);
    else
        p->failed = true;
    return x;
}

static void *zeroed(plan *p, size_t width, size_t size) {
    size_t n;
    void *x = kvant_mul_size(p->n_max, width, &n) ? kvant_alloc(n, size) : NULL;
    p->failed |= x == NULL;
    return x;
}

static void plan_experts(plan *p, const kvant_hparams *hp, kvant_workspace *w) {
    w->router = rows(p, (size_t)hp->n_expert);
    w->gathered = rows(p, (size_t)hp->n_embd);
    w->expert_out = rows(p, (size_t)hp->n_embd);
    w->mixture = rows(p, (size_t)hp->n_embd);
    w->chosen_weight = rows(p, (size_t)hp->n_expert_used);
    w->member_weight = rows(p, 1);
    w->chosen = zeroed(p, (size_t)hp->n_expert_used, sizeof *w->chosen);
    w->members = zeroed(p, 1, sizeof *w->members);
}

static kvant_status plan_all(const kvant_decoder *d, kvant_workspace *w) {
    const kvant_hparams *hp = &d->hp;
    size_t n_q = (size_t)hp->n_head * (size_t)hp->head_dim, n_kv = (size_t)hp->n_kv_head * (size_t)hp->head_dim;
    plan p = {.n_max = (size_t)w->n_max};
    w->x = rows(&p, (size_t)hp->n_embd);
    w->h = rows(&p, (size_t)hp->n_embd);
    w->q = rows(&p, n_q);
    w->attended = rows(&p, n_q);
    w->k = rows(&p, n_kv);
    w->v = rows(&p, n_kv);
    w->gate = rows(&p, (size_t)hp->n_ff);
    w->up = rows(&p, (size_t)hp->n_ff);
    for (int i = 0; i < 2; i++) {
        w->cosine[i] = rows(&p, (size_t)hp->n_rot / 2);
        w->sine[i] = rows(&p, (size_t)hp->n_rot / 2);
    }
    w->temperature = rows(&p, 1);
    w->starts = zeroed(&p, 1, sizeof *w->starts);
    w->appends = zeroed(&p, 1, sizeof *w->appends);
    w->items = zeroed(&p, 1, sizeof *w->items);
    if (hp->n_expert > 0) plan_experts(&p, hp, w);
    if (p.failed) return KVANT_ENOMEM;
    int64_t widest = (int64_t)n_q > hp->n_embd ? (int64_t)n_q : hp->n_embd;
    KVANT_TRY(kvant_activations_create(d->ctx, w->n_max, widest, &w->wide));
    return kvant_activations_create(d->ctx, w->n_max, hp->n_ff, &w->narrow);
}

kvant_status kvant_workspace_create(const kvant_decoder *d, int n_max, kvant_workspace **out, kvant_error *err) {
    if (n_max < 1) return kvant_fail(err, KVANT_EINVAL, "a workspace should hold at least 1 token a step, not %d", n_max);
    kvant_workspace *w = kvant_alloc(1, sizeof *w);
    if (!w) return kvant_fail(err, KVANT_ENOMEM, "not enough memory for a workspace");
    w->d = d;
    w->n_max = n_max;
    kvant_status st = plan_all(d, w);
    if (st != KVANT_OK) {
        kvant_workspace_destroy(w);
        return kvant_fail(err, st, "not enough memory for a workspace of %d tokens a step", n_max);
    }
    *out = w;
    return KVANT_OK;
}

void kvant_workspace_destroy(kvant_workspace *w) {
    if (!w) return;
    float *buffers[] = {w->x,
                        w->h,
                        w->q,
                        w->attended,
                        w->k,
                        w->v,
                        w->gate,
                        w->up,
                        w->cosine[0],
                        w->cosine[1],
                        w->sine[0],
                        w->sine[1],
                        w->temperature,
                        w->logits,
                        w->router,
                        w->gathered,
                        w->expert_out,
                        w->mixture,
                        w->chosen_weight,
                        w->member_weight};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        kvant_free_aligned(buffers[i]);
    kvant_free(w->starts);
    kvant_free(w->appends);
    kvant_free(w->items);
    kvant_free(w->chosen);
    kvant_free(w->members);
    if (w->wide) kvant_activations_destroy(w->wide);
    if (w->narrow) kvant_activations_destroy(w->narrow);
    kvant_free(w);
}

void kvant_workspace_observe(kvant_workspace *w, kvant_observe_fn fn, void *user) {
    w->observe = fn;
    w->observer = user;
}

kvant_status kvant_observe_for_calibration(void *calibration, int layer, int64_t first_position, const float *k, const float *v,
                                           const float *q, int n) {
    (void)v;
    return kvant_calibration_add(calibration, layer, first_position, k, q, n);
}

// SPDX-License-Identifier: MIT
/* decoder_forward.c: one step: n tokens appended to a sequence and computed.
 *
 * One pass serves all families; the traits say which norms, biases, scales and pairs it meets. After the keys and values of the
 * last layer are stored, only the rows whose logits were asked for are computed further. */
#include <math.h>
#include <string.h>

#include "model/decoder_internal.h"

typedef struct step {
    const kvant_decoder *d;
    kvant_workspace *w;
    kvant_sequence *s;
    int n;         /* tokens */
    int64_t start; /* position of the first */
    kvant_precision precision;
} step;

static void embed(const step *t, const int32_t *ids) {
    const kvant_decoder *d = t->d;
    size_t n_embd = (size_t)d->hp.n_embd;
    for (int i = 0; i < t->n; i++) {
        float *x = t->w->x + (size_t)i * n_embd;
        kvant_weight_decode_row(d->embedding->type, d->embedding->data + (size_t)ids[i] * d->embedding_row_bytes, d->hp.n_embd,
                                x);
        if (d->hp.embedding_scale != 1.0f) d->ctx->kernels->scale_f32(x, d->hp.embedding_scale, d->hp.n_embd);
    }
}

/* cos and sin of every position, once a step. */
static void prepare_positions(const step *t) {
    const kvant_hparams *hp = &t->d->hp;
    size_t half = (size_t)hp->n_rot / 2;
    int n_rope = hp->window > 0 ? t->d->n_rope : t->d->n_rope > 0;
    for (int r = 0; r < n_rope; r++) {
        for (int i = 0; i < t->n; i++)
            kvant_rope_angles(&t->d->ropes[r], t->start + i, t->w->cosine[r] + (size_t)i * half,
                              t->w->sine[r] + (size_t)i * half);
    }
    if (hp->temperature_scale == 0) return;
    for (int i = 0; i < t->n; i++) {
        double above = floor((double)(t->start + i) / hp->temperature_floor);
        t->w->temperature[i] = (float)(log(above + 1.0) * (double)hp->temperature_scale + 1.0);
    }
}

/* q, k and v of all rows: products, norms, positions. h [n][n_embd] is the layer's normed input. */
static void project(const step *t, const kvant_layer *layer, const float *h) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    kvant_workspace *w = t->w;
    size_t n_q = (size_t)hp->n_head * (size_t)hp->head_dim, n_kv = (size_t)hp->n_kv_head * (size_t)hp->head_dim;
    kvant_activations_set(w->wide, h, t->n, hp->n_embd, t->precision);
    kvant_linear_apply(d, &layer->q, w->wide, t->n, w->q, n_q);
    kvant_linear_apply(d, &layer->k, w->wide, t->n, w->k, n_kv);
    kvant_linear_apply(d, &layer->v, w->wide, t->n, w->v, n_kv);
    if (hp->traits->qk_norm == KVANT_QK_NORM_HEAD) {
        kvant_rows_norm_heads(d, w->q, layer->q_norm, t->n, hp->n_head, hp->head_dim);
        kvant_rows_norm_heads(d, w->k, layer->k_norm, t->n, hp->n_kv_head, hp->head_dim);
    } else if (hp->traits->qk_norm == KVANT_QK_NORM_WHOLE) {
        kvant_rows_norm_heads(d, w->q, layer->q_norm, t->n, 1, (int)n_q);
        kvant_rows_norm_heads(d, w->k, layer->k_norm, t->n, 1, (int)n_kv);
    }
    if (layer->rope >= 0) {
        const kvant_rope *rope = &d->ropes[layer->rope];
        kvant_rows_rope(d, rope, w->cosine[layer->rope], w->sine[layer->rope], w->q, t->n, hp->n_head);
        kvant_rows_rope(d, rope, w->cosine[layer->rope], w->sine[layer->rope], w->k, t->n, hp->n_kv_head);
    }
    if (hp->temperature_scale != 0) {
        for (int i = 0; i < t->n; i++)
            d->ctx->kernels->scale_f32(w->q + (size_t)i * n_q, w->temperature[i], (int)n_q);
    }
}

static kvant_status attend(const step *t, const kvant_layer *layer, int index) {
    const kvant_hparams *hp = &t->d->hp;
    kvant_workspace *w = t->w;
    if (w->observe) KVANT_TRY(w->observe(w->observer, index, t->start, w->k, w->v, w->q, t->n));
    KVANT_TRY(kvant_sequence_append(t->s, index, w->k, w->v, t->n));
    kvant_attend_params params = {.n_head = hp->n_head,
                                  .scale = hp->attention_scale,
                                  .softcap = hp->attn_softcap,
                                  .sinks = layer->sinks,
                                  .precision = t->precision};
    return kvant_attend(t->s, index, &params, w->q, t->n, w->attended);
}

/* Adds a branch h to the residual stream x, both [n][n_embd]. */
static void add_branch(const step *t, float *x, float *h, const kvant_norm *post, int n) {
    const kvant_decoder *d = t->d;
    if (post->weight) kvant_rows_norm(d, h, h, post, n, d->hp.n_embd);
    kvant_rows_add_scaled(d, x, h, d->hp.residual_scale, n, d->hp.n_embd);
}

static void feed_forward(const step *t, const kvant_layer *layer, float *h, int n) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    kvant_workspace *w = t->w;
    if (hp->n_expert > 0) {
        kvant_experts_apply(d, w, layer, h, n, t->precision);
        return;
    }
    kvant_activations_set(w->wide, h, n, hp->n_embd, t->precision);
    size_t n_ff = (size_t)hp->n_ff;
    if (hp->traits->gated) kvant_linear_apply(d, &layer->gate, w->wide, n, w->gate, n_ff);
    kvant_linear_apply(d, &layer->up, w->wide, n, hp->traits->gated ? w->up : w->gate, n_ff);
    kvant_rows_activate(d, w->gate, hp->traits->gated ? w->up : NULL, n, hp->n_ff);
    kvant_activations_set(w->narrow, w->gate, n, hp->n_ff, t->precision);
    kvant_linear_apply(d, &layer->down, w->narrow, n, h, (size_t)hp->n_embd);
}

/* The input of a block: normed into h, or x itself copied where the family norms only afterwards. */
static void enter_block(const step *t, float *h, const float *x, const kvant_norm *norm, int n) {
    if (norm->weight)
        kvant_rows_norm(t->d, h, x, norm, n, t->d->hp.n_embd);
    else
        memcpy(h, x, (size_t)n * (size_t)t->d->hp.n_embd * sizeof *h);
}

/* One layer; the rows before `first` need only their keys and values. */
static kvant_status run_layer(const step *t, int index, int first) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    const kvant_layer *layer = &d->layers[index];
    kvant_workspace *w = t->w;
    int n_q = hp->n_head * hp->head_dim, n = t->n - first;
    enter_block(t, w->h, w->x, &layer->attn_norm, t->n);
    project(t, layer, w->h);
    KVANT_TRY(attend(t, layer, index));
    if (n == 0) return KVANT_OK;
    float *x = w->x + (size_t)first * (size_t)hp->n_embd;
    kvant_activations_set(w->wide, w->attended + (size_t)first * (size_t)n_q, n, n_q, t->precision);
    kvant_linear_apply(d, &layer->o, w->wide, n, w->h, (size_t)hp->n_embd);
    add_branch(t, x, w->h, &layer->attn_post_norm, n);
    enter_block(t, w->h, x, &layer->ffn_norm, n);
    feed_forward(t, layer, w->h, n);
    add_branch(t, x, w->h, &layer->ffn_post_norm, n);
    return KVANT_OK;
}

static void compute_logits(const step *t, float *logits, int n_logits) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    const float *x = t->w->x + (size_t)(t->n - n_logits) * (size_t)hp->n_embd;
    kvant_rows_norm(d, t->w->h, x, &d->output_norm, n_logits, hp->n_embd);
    kvant_activations_set(t->w->wide, t->w->h, n_logits, hp->n_embd, t->precision);
    kvant_linear_apply(d, &d->output, t->w->wide, n_logits, logits, (size_t)hp->n_vocab);
    if (hp->logit_scale != 1.0f)
        kvant_rows_scale_add_bias(d, logits, hp->logit_scale, NULL, n_logits, hp->n_vocab, (size_t)hp->n_vocab);
    if (hp->final_softcap > 0) kvant_rows_softcap(d, logits, hp->final_softcap, n_logits, hp->n_vocab);
}

kvant_status kvant_decoder_forward_layers(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                          kvant_precision precision, int first, int end, float *x, float *logits, int n_logits) {
    size_t x_bytes = (size_t)n * (size_t)d->hp.n_embd * sizeof *x;
    int n_layer = d->hp.n_layer;
    if (n < 1 || n > w->n_max || n_logits < 0 || n_logits > n || w->d != d || first < 0 || end > n_layer) return KVANT_EINVAL;
    if (!logits) n_logits = 0;
    for (int i = 0; i < n; i++) {
        if (ids[i] < 0 || ids[i] >= d->hp.n_vocab) return KVANT_EINVAL;
    }
    step t = {.d = d, .w = w, .s = s, .n = n, .start = kvant_sequence_length(s), .precision = precision};
    if (first > 0) memcpy(w->x, x, x_bytes);
    else embed(&t, ids);
    prepare_positions(&t);
    for (int i = first; i < end; i++) {
        kvant_status st = run_layer(&t, i, i == n_layer - 1 ? n - n_logits : 0);
        if (st == KVANT_OK) continue;
        (void)kvant_sequence_truncate(s, t.start); /* nothing better can be done when this fails as well */
        return st;
    }
    if (end < n_layer) memcpy(x, w->x, x_bytes);
    else if (n_logits > 0) compute_logits(&t, logits, n_logits);
    return KVANT_OK;
}

kvant_status kvant_decoder_forward(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                   kvant_precision precision, float *logits, int n_logits) {
    return kvant_decoder_forward_layers(d, w, s, ids, n, precision, 0, d->hp.n_layer, NULL, logits, n_logits);
}

// SPDX-License-Identifier: MIT
/* decoder_forward.c: one step: tokens appended to one sequence or several, and computed.
 *
 * One pass serves all families; the traits say which norms, biases, scales and pairs it meets. The rows of all sequences lie one
 * after the other and go through every product together; only positions, the cache and attention know whose they are. After the
 * keys and values of the last layer are stored, only the rows whose logits were asked for are computed further: they move to the
 * front. */
#include <math.h>
#include <string.h>

#include "base/memory.h"
#include "model/decoder_internal.h"

#define LOGIT_ROWS 32 /* rows of logits that are made at once when they do not lie together */

typedef struct step {
    const kvant_decoder *d;
    kvant_workspace *w;
    const kvant_segment *segments;
    int n_segments;
    int n, n_logits; /* rows of all segments, and those whose logits were asked for */
    kvant_precision precision;
} step;

/* The position of a segment's first token. */
static int64_t start_of(const step *t, int segment) { return t->w->starts[segment]; }

static void embed(const step *t) {
    const kvant_decoder *d = t->d;
    float *x = t->w->x;
    for (int s = 0; s < t->n_segments; s++) {
        for (int i = 0; i < t->segments[s].n; i++, x += d->hp.n_embd) {
            const float *row = t->segments[s].rows ? t->segments[s].rows[i] : NULL;
            if (row) {
                memcpy(x, row, (size_t)d->hp.n_embd * sizeof *x);
                continue;
            }
            kvant_weight_decode_source(&d->embedding_rows, t->segments[s].ids[i], d->hp.n_embd, x);
            if (d->hp.embedding_scale != 1.0f) d->ctx->kernels->scale_f32(x, d->hp.embedding_scale, d->hp.n_embd);
        }
    }
}

/* cos and sin of the position of row `row`, and the factor of its queries. */
static void prepare_position(const step *t, int64_t position, int row) {
    const kvant_hparams *hp = &t->d->hp;
    size_t at = (size_t)row * ((size_t)hp->n_rot / 2);
    int n_rope = hp->window > 0 ? t->d->n_rope : t->d->n_rope > 0;
    for (int r = 0; r < n_rope; r++)
        kvant_rope_angles(&t->d->ropes[r], position, t->w->cosine[r] + at, t->w->sine[r] + at);
    if (hp->temperature_scale == 0) return;
    double above = floor((double)position / hp->temperature_floor);
    t->w->temperature[row] = (float)(log(above + 1.0) * (double)hp->temperature_scale + 1.0);
}

/* Once a step. */
static void prepare_positions(const step *t) {
    for (int s = 0, row = 0; s < t->n_segments; s++)
        for (int i = 0; i < t->segments[s].n; i++)
            prepare_position(t, start_of(t, s) + i, row++);
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

/* Stores keys and values of every segment; then attends with all rows, or with the last ones of each segment, whose results come
 * to the front. */
static kvant_status attend(const step *t, const kvant_layer *layer, int index, bool all_rows) {
    const kvant_hparams *hp = &t->d->hp;
    kvant_workspace *w = t->w;
    size_t n_q = (size_t)hp->n_head * (size_t)hp->head_dim, n_kv = (size_t)hp->n_kv_head * (size_t)hp->head_dim;
    size_t row = 0, out_row = 0;
    for (int i = 0; i < t->n_segments; i++) {
        const kvant_segment *g = &t->segments[i];
        int n = all_rows ? g->n : g->n_logits;
        const float *k = w->k + row * n_kv, *v = w->v + row * n_kv, *q = w->q + row * n_q;
        if (g->observe) KVANT_TRY(g->observe(g->observer, index, start_of(t, i), k, v, q, g->n));
        w->appends[i] = (kvant_append_item){.s = g->s, .k = k, .v = v, .n = g->n};
        w->items[i] = (kvant_attend_item){g->s, q + (size_t)(g->n - n) * n_q, n, w->attended + out_row * n_q};
        row += (size_t)g->n;
        out_row += (size_t)n;
    }
    kvant_attend_params params = {.n_head = hp->n_head,
                                  .scale = hp->attention_scale,
                                  .softcap = hp->attn_softcap,
                                  .sinks = layer->sinks,
                                  .precision = t->precision};
    KVANT_TRY(kvant_sequence_append_batch(w->appends, t->n_segments, index));
    return kvant_attend_batch(w->items, t->n_segments, index, &params);
}

/* The rows of x whose logits were asked for, to the front. */
static void gather_rows(const step *t) {
    size_t n_embd = (size_t)t->d->hp.n_embd, row = 0, to = 0;
    for (int i = 0; i < t->n_segments; i++) {
        size_t n = (size_t)t->segments[i].n_logits;
        row += (size_t)t->segments[i].n;
        memmove(t->w->x + to * n_embd, t->w->x + (row - n) * n_embd, n * n_embd * sizeof(float));
        to += n;
    }
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

/* One layer. all_rows: false in the last layer, where the others need only their keys and values. */
static kvant_status run_layer(const step *t, int index, bool all_rows) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    const kvant_layer *layer = &d->layers[index];
    kvant_workspace *w = t->w;
    int n_q = hp->n_head * hp->head_dim, n = all_rows ? t->n : t->n_logits;
    enter_block(t, w->h, w->x, &layer->attn_norm, t->n);
    project(t, layer, w->h);
    KVANT_TRY(attend(t, layer, index, all_rows));
    if (n == 0) return KVANT_OK;
    if (!all_rows) gather_rows(t);
    kvant_activations_set(w->wide, w->attended, n, n_q, t->precision);
    kvant_linear_apply(d, &layer->o, w->wide, n, w->h, (size_t)hp->n_embd);
    add_branch(t, w->x, w->h, &layer->attn_post_norm, n);
    enter_block(t, w->h, w->x, &layer->ffn_norm, n);
    feed_forward(t, layer, w->h, n);
    add_branch(t, w->x, w->h, &layer->ffn_post_norm, n);
    return KVANT_OK;
}

/* The logits of n rows of x. */
static void compute_logits(const step *t, const float *x, float *logits, int n) {
    const kvant_decoder *d = t->d;
    const kvant_hparams *hp = &d->hp;
    kvant_rows_norm(d, t->w->h, x, &d->output_norm, n, hp->n_embd);
    kvant_activations_set(t->w->wide, t->w->h, n, hp->n_embd, t->precision);
    kvant_linear_apply(d, &d->output, t->w->wide, n, logits, (size_t)hp->n_vocab);
    if (hp->logit_scale != 1.0f)
        kvant_rows_scale_add_bias(d, logits, hp->logit_scale, NULL, n, hp->n_vocab, (size_t)hp->n_vocab);
    if (hp->final_softcap > 0) kvant_rows_softcap(d, logits, hp->final_softcap, n, hp->n_vocab);
}

/* Where the logits of all segments lie one after the other, or NULL. */
static float *logits_together(const step *t) {
    float *first = NULL;
    const float *next = NULL;
    for (int i = 0; i < t->n_segments; i++) {
        const kvant_segment *g = &t->segments[i];
        if (g->n_logits == 0) continue;
        if (first && g->logits != next) return NULL;
        if (!first) first = g->logits;
        next = g->logits + (size_t)g->n_logits * (size_t)t->d->hp.n_vocab;
    }
    return first;
}

/* So that computing them cannot fail. */
static kvant_status reserve_logits(const step *t) {
    int n = t->n_logits < LOGIT_ROWS ? t->n_logits : LOGIT_ROWS;
    if (n <= t->w->logit_rows || logits_together(t)) return KVANT_OK;
    float *logits = kvant_alloc_aligned((size_t)n * (size_t)t->d->hp.n_vocab, sizeof *logits);
    if (!logits) return KVANT_ENOMEM;
    kvant_free_aligned(t->w->logits);
    t->w->logits = logits;
    t->w->logit_rows = n;
    return KVANT_OK;
}

/* Where they do not lie together, the output's weights are read once for LOGIT_ROWS rows, and these are copied. */
static void finish_step(const step *t) {
    size_t n_vocab = (size_t)t->d->hp.n_vocab, n_embd = (size_t)t->d->hp.n_embd;
    float *together = logits_together(t);
    if (together) {
        compute_logits(t, t->w->x, together, t->n_logits);
        return;
    }
    for (int i = 0, row = 0, n_ready = 0, at = 0; i < t->n_segments; i++) {
        const kvant_segment *g = &t->segments[i];
        for (int r = 0; r < g->n_logits; r++, row++, at++) {
            if (at == n_ready) {
                n_ready = t->n_logits - row < t->w->logit_rows ? t->n_logits - row : t->w->logit_rows;
                at = 0;
                compute_logits(t, t->w->x + (size_t)row * n_embd, t->w->logits, n_ready);
            }
            memcpy(g->logits + (size_t)r * n_vocab, t->w->logits + (size_t)at * n_vocab, n_vocab * sizeof(float));
        }
    }
}

/* Fills in what the segments add up to. */
static kvant_status begin_step(step *t) {
    kvant_workspace *w = t->w;
    if (t->n_segments < 1 || t->n_segments > w->n_max || w->d != t->d) return KVANT_EINVAL;
    for (int i = 0; i < t->n_segments; i++) {
        const kvant_segment *g = &t->segments[i];
        if (g->n < 1 || g->n > w->n_max - t->n || g->n_logits < 0 || g->n_logits > g->n) return KVANT_EINVAL;
        if (g->n_logits > 0 && !g->logits) return KVANT_EINVAL;
        for (int k = 0; k < g->n; k++)
            if (!(g->rows && g->rows[k]) && (g->ids[k] < 0 || g->ids[k] >= t->d->hp.n_vocab)) return KVANT_EINVAL;
        for (int k = 0; k < i; k++)
            if (t->segments[k].s == g->s) return KVANT_EINVAL;
        w->starts[i] = kvant_sequence_length(g->s);
        t->n += g->n;
        t->n_logits += g->n_logits;
    }
    return reserve_logits(t);
}

/* The layers [first, end); x as kvant_decoder_forward_layers has it. */
static kvant_status run_step(step *t, int first, int end, float *x) {
    kvant_workspace *w = t->w;
    int n_layer = t->d->hp.n_layer;
    KVANT_TRY(begin_step(t));
    size_t x_bytes = (size_t)t->n * (size_t)t->d->hp.n_embd * sizeof *x;
    if (first > 0) memcpy(w->x, x, x_bytes);
    else embed(t);
    prepare_positions(t);
    for (int i = first; i < end; i++) {
        kvant_status st = run_layer(t, i, i < n_layer - 1);
        if (st == KVANT_OK) continue;
        for (int g = 0; g < t->n_segments; g++) /* nothing better can be done when this fails as well */
            (void)kvant_sequence_truncate(t->segments[g].s, start_of(t, g));
        return st;
    }
    if (end < n_layer) memcpy(x, w->x, x_bytes);
    else if (t->n_logits > 0) finish_step(t);
    return KVANT_OK;
}

kvant_status kvant_decoder_forward_batch(const kvant_decoder *d, kvant_workspace *w, const kvant_segment *segments, int n_segments,
                                         kvant_precision precision) {
    step t = {.d = d, .w = w, .segments = segments, .n_segments = n_segments, .precision = precision};
    return run_step(&t, 0, d->hp.n_layer, NULL);
}

kvant_status kvant_decoder_forward_layers(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                          kvant_precision precision, int first, int end, float *x, float *logits, int n_logits) {
    if (first < 0 || end > d->hp.n_layer || n_logits < 0 || n_logits > n) return KVANT_EINVAL;
    kvant_segment segment = {s, ids, n, logits, logits ? n_logits : 0, w->observe, w->observer, NULL};
    step t = {.d = d, .w = w, .segments = &segment, .n_segments = 1, .precision = precision};
    return run_step(&t, first, end, x);
}

kvant_status kvant_decoder_forward(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                   kvant_precision precision, float *logits, int n_logits) {
    return kvant_decoder_forward_layers(d, w, s, ids, n, precision, 0, d->hp.n_layer, NULL, logits, n_logits);
}

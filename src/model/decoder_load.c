// SPDX-License-Identifier: MIT
/* decoder_load.c: the weights of a decoder: every tensor found by name, checked for shape and type, and repacked.
 *
 * A tensor that holds several matrices (q, k and v; gate and up; all experts of a layer) is cut into them here, row ranges being
 * contiguous, so that the forward pass knows one kind of matrix only. The bytes of the file are dropped from memory once they
 * are repacked; the embedding alone is read from the map, row by row, while running. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/decoder_internal.h"
#include "model/tensor_rows.h"

typedef struct loader {
    kvant_context *ctx;
    const kvant_gguf *f;
    kvant_decoder *d;
    kvant_error *err;
    int layer; /* -1: outside the layers */
    char name[96];
} loader;

static const char *name_of(loader *l, const char *what, const char *suffix) {
    if (l->layer < 0)
        snprintf(l->name, sizeof l->name, "%s.%s", what, suffix);
    else
        snprintf(l->name, sizeof l->name, "blk.%d.%s.%s", l->layer, what, suffix);
    return l->name;
}

static kvant_status check_type(loader *l, const kvant_gguf_tensor *t, kvant_weight_traits *traits) {
    if (kvant_weight_type_traits(t->type, traits)) {
        if (t->dims[0] % traits->block_elements == 0) return KVANT_OK;
        return kvant_fail(l->err, KVANT_EFORMAT,
                          "%s: %s is %s, whose rows are multiples of %d elements, but it has rows of %" PRId64, l->f->path,
                          l->name, traits->name, traits->block_elements, t->dims[0]);
    }
    const char *type = kvant_gguf_tensor_type_name(t->type);
    return kvant_fail(
        l->err, KVANT_EUNSUPPORTED,
        "%s: %s is stored as %s (type %u), which Kvant does not read; it reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, "
        "Q2_K to Q6_K, IQ4_NL, IQ4_XS, MXFP4 and MLX's affine formats",
        l->f->path, l->name, type ? type : "an unknown type", (unsigned)t->type);
}

/* The tensor l->name with exactly these dimensions (dims[0] first); *out NULL when it is absent and not required. */
static kvant_status find_tensor(loader *l, int64_t d0, int64_t d1, int64_t d2, bool required, const kvant_gguf_tensor **out) {
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(l->f, l->name);
    *out = t;
    if (!t) {
        if (!required) return KVANT_OK;
        return kvant_fail(l->err, KVANT_EFORMAT,
                          "%s: %s is missing: a %s model needs it (%" PRId64 " x %" PRId64 " x %" PRId64 ")", l->f->path, l->name,
                          l->d->hp.traits->name, d0, d1, d2);
    }
    if (t->dims[0] != d0 || t->dims[1] != d1 || t->dims[2] != d2 || t->dims[3] != 1)
        return kvant_fail(l->err, KVANT_EFORMAT,
                          "%s: %s should be %" PRId64 " x %" PRId64 " x %" PRId64 ", found %" PRId64 " x %" PRId64 " x %" PRId64,
                          l->f->path, l->name, d0, d1, d2, t->dims[0], t->dims[1], t->dims[2]);
    kvant_weight_traits traits;
    KVANT_TRY(check_type(l, t, &traits));
    size_t row;
    KVANT_TRY(kvant_weight_row_bytes(t->type, d0, &row));
    if (t->bytes / row < (size_t)(d1 * d2))
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: %s needs %" PRId64 " rows of %zu bytes, the file holds %zu bytes",
                          l->f->path, l->name, d1 * d2, row, t->bytes);
    return KVANT_OK;
}

static kvant_status no_memory(loader *l) {
    return kvant_fail(l->err, KVANT_ENOMEM, "%s: not enough memory for %s", l->f->path, l->name);
}

/* n floats of a tensor of shape n x n_row, from row on. */
static kvant_status decode_floats(loader *l, const kvant_gguf_tensor *t, int64_t row, int64_t n, float **out) {
    float *x = kvant_alloc_aligned((size_t)n, sizeof *x);
    if (!x) return no_memory(l);
    kvant_weight_source source = kvant_tensor_rows(t, row);
    kvant_weight_decode_source(&source, 0, n, x);
    for (int64_t i = 0; i < n; i++) {
        if (isfinite(x[i])) continue;
        kvant_free_aligned(x);
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: element %" PRId64 " of %s is not a finite number", l->f->path, i, l->name);
    }
    l->d->weight_bytes += (size_t)n * sizeof *x;
    *out = x;
    return KVANT_OK;
}

/* A vector of n floats, or NULL when it is absent and not required. */
static kvant_status load_vector(loader *l, const char *what, const char *suffix, int64_t n, bool required, float **out) {
    const kvant_gguf_tensor *t;
    name_of(l, what, suffix);
    KVANT_TRY(find_tensor(l, n, 1, 1, required, &t));
    return t ? decode_floats(l, t, 0, n, out) : KVANT_OK;
}

static kvant_status load_norm(loader *l, const char *what, int64_t n, kvant_norm *out) {
    KVANT_TRY(load_vector(l, what, "weight", n, true, &out->weight));
    if (!l->d->hp.traits->layer_norm) return KVANT_OK;
    return load_vector(l, what, "bias", n, true, &out->bias);
}

/* The scale of one of n_scale matrices that the tensor `what` holds; 1 when the file has none or the family ignores it. */
static kvant_status load_scale(loader *l, const char *what, unsigned kind, int64_t n_scale, int64_t index, float *out) {
    *out = 1.0f;
    if (!(l->d->hp.traits->scales & kind)) return KVANT_OK;
    float *scales = NULL;
    KVANT_TRY(load_vector(l, what, "scale", n_scale, false, &scales));
    if (!scales) return KVANT_OK;
    *out = scales[index];
    kvant_free_aligned(scales);
    l->d->weight_bytes -= (size_t)n_scale * sizeof *scales;
    return KVANT_OK;
}

/* Which rows of which tensor make a matrix. */
typedef struct slice {
    const char *what;
    unsigned scale_kind;
    int64_t cols, rows;      /* of the matrix */
    int64_t first, all_rows; /* its first row, and the rows of one 2-D plane of the tensor */
    int64_t plane, n_plane;  /* expert */
    bool bias, bias_required;
} slice;

static kvant_status load_linear(loader *l, const slice *s, kvant_linear *out) {
    const kvant_gguf_tensor *t;
    name_of(l, s->what, "weight");
    KVANT_TRY(find_tensor(l, s->cols, s->all_rows, s->n_plane, true, &t));
    kvant_weight_source source = kvant_tensor_rows(t, s->plane * s->all_rows + s->first);
    KVANT_TRY(kvant_weight_create_from(l->ctx, &source, s->rows, s->cols, &out->w, l->err));
    l->d->weight_bytes += kvant_weight_bytes(out->w);
    if (t != l->d->embedding && s->first + s->rows == s->all_rows && s->plane == s->n_plane - 1) kvant_gguf_drop(l->f, t);
    KVANT_TRY(load_scale(l, s->what, s->scale_kind, s->n_plane, s->plane, &out->scale));
    if (!s->bias) return KVANT_OK;
    name_of(l, s->what, "bias");
    KVANT_TRY(find_tensor(l, s->all_rows, s->n_plane, 1, s->bias_required, &t));
    if (!t) return KVANT_OK;
    float *all = NULL;
    if (s->first == 0 && s->rows == s->all_rows) {
        KVANT_TRY(decode_floats(l, t, s->plane, s->rows, &out->bias));
        for (int64_t i = 0; s->scale_kind == KVANT_SCALE_FFN && i < s->rows; i++)
            out->bias[i] *= out->scale;
        return KVANT_OK;
    }
    KVANT_TRY(decode_floats(l, t, s->plane, s->all_rows, &all));
    l->d->weight_bytes -= (size_t)(s->all_rows - s->rows) * sizeof *all;
    out->bias = kvant_alloc_aligned((size_t)s->rows, sizeof *all);
    if (out->bias) memcpy(out->bias, all + s->first, (size_t)s->rows * sizeof *all);
    kvant_free_aligned(all);
    return out->bias ? KVANT_OK : no_memory(l);
}

static kvant_status load_attention(loader *l, kvant_layer *layer) {
    const kvant_hparams *hp = &l->d->hp;
    int64_t n_q = (int64_t)hp->n_head * hp->head_dim, n_kv = (int64_t)hp->n_kv_head * hp->head_dim;
    bool fused = kvant_gguf_find_tensor(l->f, name_of(l, "attn_qkv", "weight")) != NULL;
    slice q = {.what = "attn_q",
               .scale_kind = KVANT_SCALE_QKV,
               .cols = hp->n_embd,
               .rows = n_q,
               .all_rows = n_q,
               .n_plane = 1,
               .bias = true};
    slice k = q, v;
    k.what = "attn_k";
    k.rows = k.all_rows = n_kv;
    v = k;
    v.what = "attn_v";
    if (fused) {
        q.what = k.what = v.what = "attn_qkv";
        q.all_rows = k.all_rows = v.all_rows = n_q + 2 * n_kv;
        k.first = n_q;
        v.first = n_q + n_kv;
    }
    KVANT_TRY(load_linear(l, &q, &layer->q));
    KVANT_TRY(load_linear(l, &k, &layer->k));
    KVANT_TRY(load_linear(l, &v, &layer->v));
    slice o = {.what = "attn_output",
               .scale_kind = KVANT_SCALE_O,
               .cols = n_q,
               .rows = hp->n_embd,
               .all_rows = hp->n_embd,
               .n_plane = 1,
               .bias = true};
    KVANT_TRY(load_linear(l, &o, &layer->o));
    if (hp->traits->qk_norm != KVANT_QK_NORM_NONE) {
        bool whole = hp->traits->qk_norm == KVANT_QK_NORM_WHOLE;
        KVANT_TRY(load_vector(l, "attn_q_norm", "weight", whole ? n_q : hp->head_dim, true, &layer->q_norm));
        KVANT_TRY(load_vector(l, "attn_k_norm", "weight", whole ? n_kv : hp->head_dim, true, &layer->k_norm));
    }
    if (hp->traits->sinks) KVANT_TRY(load_vector(l, "attn_sinks", "weight", hp->n_head, true, &layer->sinks));
    return KVANT_OK;
}

static kvant_status load_dense(loader *l, kvant_layer *layer) {
    const kvant_hparams *hp = &l->d->hp;
    int64_t n_ff = hp->n_ff;
    slice up = {.what = "ffn_up",
                .scale_kind = KVANT_SCALE_FFN,
                .cols = hp->n_embd,
                .rows = n_ff,
                .all_rows = n_ff,
                .n_plane = 1,
                .bias = true};
    slice gate = up, down = up;
    gate.what = "ffn_gate";
    if (hp->traits->fused_gate_up) {
        gate.what = "ffn_up";
        gate.all_rows = up.all_rows = 2 * n_ff;
        up.first = n_ff;
    }
    if (hp->traits->gated) KVANT_TRY(load_linear(l, &gate, &layer->gate));
    KVANT_TRY(load_linear(l, &up, &layer->up));
    down.what = "ffn_down";
    down.cols = n_ff;
    down.rows = down.all_rows = hp->n_embd;
    return load_linear(l, &down, &layer->down);
}

static kvant_status load_experts(loader *l, kvant_layer *layer) {
    const kvant_hparams *hp = &l->d->hp;
    slice router = {
        .what = "ffn_gate_inp", .cols = hp->n_embd, .rows = hp->n_expert, .all_rows = hp->n_expert, .n_plane = 1, .bias = true};
    KVANT_TRY(load_linear(l, &router, &layer->router));
    kvant_linear **lists[3] = {&layer->gate_experts, &layer->up_experts, &layer->down_experts};
    for (int i = 0; i < 3; i++) {
        *lists[i] = kvant_alloc((size_t)hp->n_expert, sizeof **lists[i]);
        if (!*lists[i]) return no_memory(l);
    }
    for (int e = 0; e < hp->n_expert; e++) {
        slice gate = {.what = "ffn_gate_exps",
                      .scale_kind = KVANT_SCALE_EXPERTS,
                      .cols = hp->n_embd,
                      .rows = hp->n_ff,
                      .all_rows = hp->n_ff,
                      .plane = e,
                      .n_plane = hp->n_expert,
                      .bias = true};
        slice up = gate, down = gate;
        up.what = "ffn_up_exps";
        down.what = "ffn_down_exps";
        down.cols = hp->n_ff;
        down.rows = down.all_rows = hp->n_embd;
        KVANT_TRY(load_linear(l, &gate, &layer->gate_experts[e]));
        KVANT_TRY(load_linear(l, &up, &layer->up_experts[e]));
        KVANT_TRY(load_linear(l, &down, &layer->down_experts[e]));
    }
    return KVANT_OK;
}

static kvant_status load_layer(loader *l, int index) {
    kvant_decoder *d = l->d;
    const kvant_arch_traits *t = d->hp.traits;
    kvant_layer *layer = &d->layers[index];
    l->layer = index;
    layer->rope = !d->hp.use_rope || d->hp.no_rope[index] ? -1 : d->hp.windowed[index];
    if (t->pre_norm) {
        KVANT_TRY(load_norm(l, "attn_norm", d->hp.n_embd, &layer->attn_norm));
        KVANT_TRY(load_norm(l, t->ffn_norm_name, d->hp.n_embd, &layer->ffn_norm));
    }
    if (t->post_norm) {
        KVANT_TRY(load_norm(l, "post_attention_norm", d->hp.n_embd, &layer->attn_post_norm));
        KVANT_TRY(load_norm(l, "post_ffw_norm", d->hp.n_embd, &layer->ffn_post_norm));
    }
    KVANT_TRY(load_attention(l, layer));
    KVANT_TRY(d->hp.n_expert > 0 ? load_experts(l, layer) : load_dense(l, layer));
    l->layer = -1;
    return KVANT_OK;
}

/* Frequencies divided by factors from the file, where it has them. */
static kvant_status load_ropes(loader *l) {
    kvant_hparams *hp = &l->d->hp;
    float *factors = NULL;
    const char *which = NULL;
    if (hp->traits->rope_long_short && (hp->longrope_type || !hp->traits->rope_freqs))
        which = hp->rope_long ? "rope_factors_long" : "rope_factors_short";
    else if (hp->traits->rope_freqs)
        which = "rope_freqs";
    if (which && hp->n_rot > 0) KVANT_TRY(load_vector(l, which, "weight", hp->n_rot / 2, false, &factors));
    for (int i = 0; factors && i < hp->n_rot / 2; i++) {
        if (factors[i] != 0) continue;
        kvant_free_aligned(factors);
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: element %d of %s is 0, and frequencies are divided by it", l->f->path, i,
                          l->name);
    }
    hp->rope.factors = hp->local_rope.factors = factors;
    kvant_status st = kvant_rope_create(&hp->rope, &l->d->ropes[0]);
    if (st == KVANT_OK) st = kvant_rope_create(&hp->local_rope, &l->d->ropes[1]);
    l->d->n_rope = hp->use_rope ? 2 : 0;
    hp->rope.factors = hp->local_rope.factors = NULL;
    kvant_free_aligned(factors);
    return st == KVANT_OK ? KVANT_OK : no_memory(l);
}

static kvant_status load_output(loader *l) {
    kvant_decoder *d = l->d;
    name_of(l, "token_embd", "weight");
    KVANT_TRY(find_tensor(l, d->hp.n_embd, d->hp.n_vocab, 1, true, &d->embedding));
    d->embedding_rows = kvant_tensor_rows(d->embedding, 0);
    KVANT_TRY(load_norm(l, "output_norm", d->hp.n_embd, &d->output_norm));
    bool own = !d->hp.traits->tied && kvant_gguf_find_tensor(l->f, name_of(l, "output", "weight")) != NULL;
    if (!own && d->hp.traits->output_required)
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: output.weight is missing: a %s model needs it", l->f->path,
                          d->hp.traits->name);
    slice s = {.what = own ? "output" : "token_embd",
               .cols = d->hp.n_embd,
               .rows = d->hp.n_vocab,
               .all_rows = d->hp.n_vocab,
               .n_plane = 1};
    KVANT_TRY(load_linear(l, &s, &d->output));
    if (d->hp.traits->tied) return KVANT_OK;
    return load_vector(l, "output", "bias", d->hp.n_vocab, false, &d->output.bias);
}

static kvant_status load_all(loader *l) {
    kvant_decoder *d = l->d;
    KVANT_TRY(kvant_hparams_read(l->f, &d->hp, l->err));
    d->n_parameters = kvant_count_parameters(l->f);
    d->layers = kvant_alloc((size_t)d->hp.n_layer, sizeof *d->layers);
    d->layer_window = kvant_alloc((size_t)d->hp.n_layer, sizeof *d->layer_window);
    d->layer_rope = kvant_alloc((size_t)d->hp.n_layer, sizeof *d->layer_rope);
    if (!d->layers || !d->layer_window || !d->layer_rope) return kvant_fail(l->err, KVANT_ENOMEM, "%s: not enough memory", l->f->path);
    for (int i = 0; i < d->hp.n_layer; i++)
        d->layer_window[i] = d->hp.windowed[i] ? d->hp.window : 0;
    KVANT_TRY(load_ropes(l));
    KVANT_TRY(load_output(l));
    for (int i = 0; i < d->hp.n_layer; i++)
        KVANT_TRY(load_layer(l, i));
    for (int i = 0; i < d->hp.n_layer; i++)
        d->layer_rope[i] = d->layers[i].rope;
    return KVANT_OK;
}

kvant_status kvant_decoder_load(kvant_context *ctx, const kvant_gguf *f, kvant_decoder **out, kvant_error *err) {
    kvant_decoder *d = kvant_alloc(1, sizeof *d);
    if (!d) return kvant_fail(err, KVANT_ENOMEM, "%s: not enough memory", f->path);
    d->ctx = ctx;
    loader l = {.ctx = ctx, .f = f, .d = d, .err = err, .layer = -1};
    kvant_status st = load_all(&l);
    if (st != KVANT_OK) {
        kvant_decoder_destroy(d);
        return st;
    }
    *out = d;
    return KVANT_OK;
}

static void free_linear(kvant_linear *l) {
    if (l->w) kvant_weight_destroy(l->w);
    kvant_free_aligned(l->bias);
}

static void free_norm(kvant_norm *n) {
    kvant_free_aligned(n->weight);
    kvant_free_aligned(n->bias);
}

static void free_layer(kvant_layer *layer, int n_expert) {
    kvant_norm *norms[] = {&layer->attn_norm, &layer->attn_post_norm, &layer->ffn_norm, &layer->ffn_post_norm};
    for (size_t i = 0; i < sizeof norms / sizeof norms[0]; i++)
        free_norm(norms[i]);
    kvant_linear *linears[] = {&layer->q,    &layer->k,  &layer->v,    &layer->o,
                               &layer->gate, &layer->up, &layer->down, &layer->router};
    for (size_t i = 0; i < sizeof linears / sizeof linears[0]; i++)
        free_linear(linears[i]);
    kvant_linear *lists[] = {layer->gate_experts, layer->up_experts, layer->down_experts};
    for (size_t i = 0; i < 3; i++) {
        for (int e = 0; lists[i] && e < n_expert; e++)
            free_linear(&lists[i][e]);
        kvant_free(lists[i]);
    }
    kvant_free_aligned(layer->q_norm);
    kvant_free_aligned(layer->k_norm);
    kvant_free_aligned(layer->sinks);
}

void kvant_decoder_destroy(kvant_decoder *d) {
    if (!d) return;
    for (int i = 0; d->layers && i < d->hp.n_layer; i++)
        free_layer(&d->layers[i], d->hp.n_expert);
    kvant_free(d->layers);
    kvant_free(d->layer_window);
    kvant_free(d->layer_rope);
    free_norm(&d->output_norm);
    free_linear(&d->output);
    kvant_rope_destroy(&d->ropes[0]);
    kvant_rope_destroy(&d->ropes[1]);
    kvant_free(d);
}

void kvant_decoder_get_info(const kvant_decoder *d, kvant_decoder_info *out) {
    const kvant_hparams *hp = &d->hp;
    *out = (kvant_decoder_info){.n_layer = hp->n_layer,
                                .n_head = hp->n_head,
                                .n_kv_head = hp->n_kv_head,
                                .head_dim = hp->head_dim,
                                .n_embd = hp->n_embd,
                                .n_vocab = hp->n_vocab,
                                .n_context = hp->n_context,
                                .mlx_own_cache = hp->mlx_own_cache,
                                .layer_window = d->layer_window,
                                .attention_scale = hp->attention_scale,
                                .attention_softcap = hp->attn_softcap,
                                .weight_bytes = d->weight_bytes,
                                .n_parameters = d->n_parameters};
    snprintf(out->architecture, sizeof out->architecture, "%s", hp->traits->name);
}

void kvant_decoder_calibration_config(const kvant_decoder *d, kvant_rope_config ropes[KVANT_DECODER_ROPES],
                                      kvant_calibration_config *out) {
    const kvant_hparams *hp = &d->hp;
    for (int r = 0; r < d->n_rope; r++)
        ropes[r] = (kvant_rope_config){.n_rot = d->ropes[r].n_rot,
                                       .interleaved = d->ropes[r].pairs == KVANT_ROPE_INTERLEAVED,
                                       .magnitude = d->ropes[r].magnitude,
                                       .frequency = d->ropes[r].frequency};
    *out = (kvant_calibration_config){.n_layer = hp->n_layer,
                                      .n_head = hp->n_head,
                                      .n_kv_head = hp->n_kv_head,
                                      .head_dim = hp->head_dim,
                                      .n_rope = d->n_rope,
                                      .ropes = ropes,
                                      .layer_rope = d->layer_rope};
}

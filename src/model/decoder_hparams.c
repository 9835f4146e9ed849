// SPDX-License-Identifier: MIT
/* decoder_hparams.c: the numbers of a model from a GGUF file's metadata, each checked against a range.
 *
 * Keys are the architecture's name and a suffix, e.g. llama.block_count. Tensors are not looked at, except the embedding,
 * whose rows are the vocabulary. */
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "model/decoder_internal.h"

#define PAIRS_KEY "kvant.rope.pairs" /* model folders only (file/folder.h) */

typedef struct reader {
    const kvant_gguf *f;
    const kvant_arch_traits *traits;
    kvant_error *err;
    char key[128];
} reader;

static const char *key_of(reader *r, const char *suffix) {
    snprintf(r->key, sizeof r->key, "%s.%s", r->traits->name, suffix);
    return r->key;
}

/* An integer within [low, high]. Arrays (one value a layer) count when all elements agree. fallback < 0: required. */
static kvant_status read_int(reader *r, const char *suffix, int64_t low, int64_t high, int64_t fallback, int64_t *out) {
    const char *key = key_of(r, suffix);
    const kvant_gguf_value *v = kvant_gguf_find(r->f, key);
    int64_t value;
    if (!v && fallback >= 0) {
        *out = fallback;
        return KVANT_OK;
    }
    if (v && v->type == KVANT_GGUF_ARRAY) {
        if (v->n_elements == 0 || v->element_type == KVANT_GGUF_STRING)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be an integer, found an array without numbers", r->f->path,
                              key);
        value = kvant_gguf_array_int(v, 0);
        for (uint64_t i = 1; i < v->n_elements; i++) {
            if (kvant_gguf_array_int(v, i) != value)
                return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: %s differs between layers, which Kvant does not support",
                                  r->f->path, key);
        }
    } else {
        uint32_t u;
        KVANT_TRY(kvant_gguf_u32(r->f, key, &u, r->err));
        value = u;
    }
    if (value < low || value > high)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be within %lld..%lld, found %lld", r->f->path, key,
                          (long long)low, (long long)high, (long long)value);
    *out = value;
    return KVANT_OK;
}

static kvant_status read_float(reader *r, const char *suffix, float fallback, float *out) {
    const char *key = key_of(r, suffix);
    float value;
    KVANT_TRY(kvant_gguf_f32_or(r->f, key, fallback, &value, r->err));
    if (!isfinite(value)) return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s is not a finite number", r->f->path, key);
    *out = value;
    return KVANT_OK;
}

static kvant_status read_float_within(reader *r, const char *suffix, float low, float high, float fallback, float *out) {
    float value;
    KVANT_TRY(read_float(r, suffix, fallback, &value));
    if (value < low || value > high)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be within %g..%g, found %g", r->f->path, key_of(r, suffix),
                          (double)low, (double)high, (double)value);
    *out = value;
    return KVANT_OK;
}

static kvant_status read_sizes(reader *r, kvant_hparams *hp) {
    int64_t v;
    KVANT_TRY(read_int(r, "block_count", 1, KVANT_MAX_LAYERS, -1, &v));
    hp->n_layer = (int)v;
    KVANT_TRY(read_int(r, "nextn_predict_layers", 0, hp->n_layer - 1, 0, &v));
    hp->n_layer -= (int)v; /* the last blocks guess further tokens ahead; they are no part of the decoder */
    KVANT_TRY(read_int(r, "embedding_length", 1, 1 << 17, -1, &v));
    hp->n_embd = (int)v;
    KVANT_TRY(read_int(r, "context_length", 1, INT_MAX, -1, &v));
    hp->n_context = v;
    KVANT_TRY(read_int(r, "attention.head_count", 1, 4096, -1, &v));
    hp->n_head = (int)v;
    KVANT_TRY(read_int(r, "attention.head_count_kv", 1, 4096, hp->n_head, &v));
    hp->n_kv_head = (int)v;
    if (hp->n_head % hp->n_kv_head)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: attention.head_count should be a multiple of attention.head_count_kv, found %d and %d", r->f->path,
                          hp->n_head, hp->n_kv_head);
    int64_t usual = hp->n_embd / hp->n_head;
    KVANT_TRY(read_int(r, "attention.key_length", 1, 4096, usual > 0 ? usual : 1, &v));
    hp->head_dim = (int)v;
    KVANT_TRY(read_int(r, "attention.value_length", 1, 4096, hp->head_dim, &v));
    if (v != hp->head_dim)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: keys of %d elements and values of %lld: Kvant supports equal lengths only", r->f->path,
                          hp->head_dim, (long long)v);
    KVANT_TRY(read_int(r, "rope.dimension_count", 0, hp->head_dim, hp->head_dim, &v));
    hp->n_rot = (int)v;
    if (hp->n_rot % 2)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: rope.dimension_count should be even, found %d", r->f->path, hp->n_rot);
    const kvant_gguf_tensor *embedding = kvant_gguf_find_tensor(r->f, "token_embd.weight");
    if (!embedding) return kvant_fail(r->err, KVANT_EFORMAT, "%s: token_embd.weight is missing", r->f->path);
    if (embedding->dims[1] < 1 || embedding->dims[1] > 1 << 24)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: token_embd.weight should have 1..%d rows, found %lld", r->f->path, 1 << 24,
                          (long long)embedding->dims[1]);
    hp->n_vocab = (int)embedding->dims[1];
    return KVANT_OK;
}

static kvant_status read_mlp(reader *r, kvant_hparams *hp) {
    int64_t v, n_ff;
    KVANT_TRY(read_int(r, "expert_count", 0, KVANT_MAX_EXPERTS, 0, &v));
    hp->n_expert = (int)v;
    KVANT_TRY(read_int(r, "expert_used_count", 0, KVANT_MAX_EXPERTS_USED, 0, &v));
    hp->n_expert_used = (int)v;
    KVANT_TRY(read_int(r, "feed_forward_length", 0, 1 << 20, 0, &n_ff));
    if (hp->n_expert == 0) {
        if (r->traits->gate == KVANT_GATE_TOPK_SOFTMAX)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be at least 1 for this architecture", r->f->path,
                              key_of(r, "expert_count"));
        if (n_ff < 1)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s is missing or 0", r->f->path, key_of(r, "feed_forward_length"));
        hp->n_ff = (int)n_ff;
        return KVANT_OK;
    }
    if (r->traits->gate == KVANT_GATE_NONE)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: %d experts, but Kvant knows the architecture %s only without them",
                          r->f->path, hp->n_expert, r->traits->name);
    if (hp->n_expert_used < 1 || hp->n_expert_used > hp->n_expert)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: expert_used_count should be within 1..%d (expert_count), found %d",
                          r->f->path, hp->n_expert, hp->n_expert_used);
    KVANT_TRY(read_int(r, "expert_shared_feed_forward_length", 0, INT_MAX, 0, &v));
    if (v > 0)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: a shared expert (%s = %lld), which Kvant does not support", r->f->path,
                          r->key, (long long)v);
    KVANT_TRY(read_int(r, "expert_feed_forward_length", 0, 1 << 20, 0, &v));
    hp->n_ff = (int)(v > 0 ? v : r->traits->expert_ff_shared_out ? n_ff / hp->n_expert_used : n_ff);
    if (hp->n_ff < 1)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: neither expert_feed_forward_length nor feed_forward_length is set",
                          r->f->path);
    return KVANT_OK;
}

/* A period p (all layers but each p-th have the window), or one flag a layer. */
static kvant_status read_windows(reader *r, kvant_hparams *hp) {
    const kvant_arch_traits *t = r->traits;
    if (t->window_period == 0) return KVANT_OK;
    int64_t window;
    KVANT_TRY(read_int(r, "attention.sliding_window", 0, INT_MAX, t->window_default, &window));
    hp->window = (int)window;
    if (window == 0) return KVANT_OK;
    const char *key = key_of(r, "attention.sliding_window_pattern");
    const kvant_gguf_value *v = kvant_gguf_find(r->f, key);
    if (v && v->type == KVANT_GGUF_ARRAY) {
        if (v->n_elements < (uint64_t)hp->n_layer || v->element_type == KVANT_GGUF_STRING)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should have %d flags, found %llu elements", r->f->path, key,
                              hp->n_layer, (unsigned long long)v->n_elements);
        for (int i = 0; i < hp->n_layer; i++)
            hp->windowed[i] = kvant_gguf_array_int(v, (uint64_t)i) != 0;
        return KVANT_OK;
    }
    uint32_t period;
    KVANT_TRY(kvant_gguf_u32_or(r->f, key, (uint32_t)t->window_period, &period, r->err));
    for (int i = 0; i < hp->n_layer; i++)
        hp->windowed[i] = t->window_period == 1 || period == 0 || (uint32_t)i % period < period - 1;
    return KVANT_OK;
}

/* A model folder stores queries and keys as they were trained; GGUF's converters rearrange their rows for some families. */
static kvant_status read_pairs(reader *r, kvant_rope_pairs *pairs) {
    uint32_t value;
    if (!kvant_gguf_find(r->f, PAIRS_KEY)) return KVANT_OK;
    KVANT_TRY(kvant_gguf_u32(r->f, PAIRS_KEY, &value, r->err));
    *pairs = value ? KVANT_ROPE_HALVES : KVANT_ROPE_INTERLEAVED;
    return KVANT_OK;
}

/* Layers whose keys are not turned: each n-th one of a family, or as a folder says. */
static kvant_status read_rope_layers(reader *r, kvant_hparams *hp) {
    const kvant_gguf_value *v = kvant_gguf_find(r->f, "kvant.rope.layers");
    int step = r->traits->no_rope_step;
    if (v && (v->type != KVANT_GGUF_ARRAY || v->element_type == KVANT_GGUF_STRING || v->n_elements < (uint64_t)hp->n_layer))
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: kvant.rope.layers should have %d flags", r->f->path, hp->n_layer);
    for (int i = 0; i < hp->n_layer; i++)
        hp->no_rope[i] = v ? kvant_gguf_array_int(v, (uint64_t)i) == 0 : step > 0 && (i + 1) % step == 0;
    return KVANT_OK;
}

static double yarn_magnitude(double factor, double mscale) { return factor <= 1.0 ? 1.0 : 0.1 * mscale * log(factor) + 1.0; }

static kvant_status read_scaling_type(reader *r, bool *yarn, bool *longrope, bool *none) {
    const char *key = key_of(r, "rope.scaling.type");
    *yarn = *longrope = *none = false;
    if (!kvant_gguf_find(r->f, key)) return KVANT_OK;
    kvant_text type;
    KVANT_TRY(kvant_gguf_string(r->f, key, &type, r->err));
    static const char *const names[] = {"linear", "none", "yarn", "longrope"};
    for (int i = 0; i < 4; i++) {
        if (type.size != strlen(names[i]) || memcmp(type.data, names[i], type.size) != 0) continue;
        *none = i == 1;
        *yarn = i == 2;
        *longrope = i == 3;
        return KVANT_OK;
    }
    return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: %s is %.*s; Kvant knows none, linear, yarn and longrope", r->f->path, key,
                      type.size > 32 ? 32 : (int)type.size, type.data);
}

static kvant_status read_yarn(reader *r, kvant_rope_params *rope) {
    float value, log_multiplier = 0;
    if (r->traits->yarn_keys || kvant_gguf_find(r->f, PAIRS_KEY)) { /* a folder's are always meant */
        KVANT_TRY(read_float_within(r, "rope.scaling.yarn_beta_fast", 1e-3f, 1e6f, 32, &value));
        rope->beta_fast = (double)value;
        KVANT_TRY(read_float_within(r, "rope.scaling.yarn_beta_slow", 1e-3f, 1e6f, 1, &value));
        rope->beta_slow = (double)value;
        KVANT_TRY(read_float_within(r, "rope.scaling.yarn_log_multiplier", 0, 1e6f, 0, &log_multiplier));
    }
    double stretch = 1.0 / rope->freq_scale;
    rope->attn_factor = yarn_magnitude(stretch, 1.0);
    if (log_multiplier != 0) rope->attn_factor /= yarn_magnitude(stretch, (double)log_multiplier);
    rope->attn_factor /= 1.0 + 0.1 * log(stretch); /* kvant_rope_create multiplies by this */
    return KVANT_OK;
}

static kvant_status read_rope_scaling(reader *r, kvant_hparams *hp, kvant_rope_params *rope) {
    bool yarn, none;
    float factor, value;
    int64_t original;
    KVANT_TRY(read_scaling_type(r, &yarn, &hp->longrope_type, &none));
    KVANT_TRY(read_float_within(r, "rope.scale_linear", 0, 1e6f, 0, &factor));
    KVANT_TRY(read_float_within(r, "rope.scaling.factor", 0, 1e6f, factor, &factor));
    if (factor != 0 && factor < 1e-3f)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be 0 or within 0.001..1000000, found %g", r->f->path, r->key,
                          (double)factor);
    rope->freq_scale = factor == 0 || none ? 1.0 : 1.0 / (double)factor;
    KVANT_TRY(read_int(r, "rope.scaling.original_context_length", 0, INT_MAX, hp->n_context, &original));
    rope->n_ctx_orig = original > 0 ? (double)original : (double)hp->n_context;
    /* LongRoPE's two sets of factors do not mix within one sequence, and how long it will get is not known: a model trained for
     * more than the original context gets the long set for all positions, as llama.cpp does when its context is as long. */
    hp->rope_long = (double)hp->n_context > rope->n_ctx_orig;
    hp->temperature_floor = rope->n_ctx_orig;
    rope->yarn_mix = yarn ? 1.0 : 0.0;
    rope->beta_fast = 32.0;
    rope->beta_slow = 1.0;
    rope->attn_factor = 1.0;
    if (yarn) KVANT_TRY(read_yarn(r, rope));
    KVANT_TRY(read_float(r, "rope.scaling.attn_factor", 1, &value));
    rope->attn_factor *= (double)value;
    return KVANT_OK;
}

/* How many pairs turn by each dimension of an image position, in cycles of the whole. A text has one position, which stands in
 * the first three, and 0 in the fourth: so nothing but the pairing changes, as long as no pair belongs to the fourth. */
static kvant_status read_sections(reader *r, kvant_rope_params *rope) {
    const char *key = key_of(r, "rope.dimension_sections");
    const kvant_gguf_value *v = kvant_gguf_find(r->f, key);
    int64_t section[4] = {0};
    if (!v || v->type != KVANT_GGUF_ARRAY || v->element_type == KVANT_GGUF_STRING) return KVANT_OK;
    for (uint64_t i = 0; i < v->n_elements && i < 4; i++) {
        section[i] = kvant_gguf_array_int(v, i);
        if (section[i] < 0 || section[i] > 4096)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s should be within 0..4096, found %lld", r->f->path, key,
                              (long long)section[i]);
        if (section[i] != 0 && !r->traits->rope_sections)
            return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                              "%s: %s: positions in several dimensions (image models), which Kvant does not support for %s",
                              r->f->path, key, r->traits->name);
    }
    if (section[0] == 0 || section[1] == 0) return KVANT_OK;
    int64_t of_text = section[0] + section[1] + section[2];
    if (section[3] > 0 && rope->n_rot / 2 > of_text)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED,
                          "%s: %s should cover %d pairs by its first three numbers, which Kvant supports alone, found %lld",
                          r->f->path, key, rope->n_rot / 2, (long long)of_text);
    rope->pairs = KVANT_ROPE_HALVES;
    return KVANT_OK;
}

static kvant_status read_rope(reader *r, kvant_hparams *hp) {
    kvant_rope_params *rope = &hp->rope;
    float base, local_base;
    bool finetuned;
    rope->n_rot = hp->n_rot;
    rope->pairs = r->traits->rope_pairs;
    KVANT_TRY(read_pairs(r, &rope->pairs));
    KVANT_TRY(read_float_within(r, "rope.freq_base", 1.001f, 1e12f, 10000, &base));
    rope->base = (double)base;
    KVANT_TRY(read_rope_scaling(r, hp, rope));
    KVANT_TRY(kvant_gguf_bool_or(r->f, key_of(r, "rope.scaling.finetuned"), true, &finetuned, r->err));
    hp->use_rope = hp->n_rot > 0 && !(r->traits->rope_finetuned_switch && !finetuned);
    KVANT_TRY(read_sections(r, rope));
    KVANT_TRY(read_rope_layers(r, hp));
    hp->local_rope = *rope;
    if (r->traits->local_rope != KVANT_LOCAL_ROPE_SAME) hp->local_rope.freq_scale = 1.0;
    if (r->traits->local_rope == KVANT_LOCAL_ROPE_PLAIN) {
        hp->local_rope.yarn_mix = 0.0;
        hp->local_rope.attn_factor = 1.0;
        return KVANT_OK;
    }
    float usual = r->traits->local_rope == KVANT_LOCAL_ROPE_10000 ? 10000.0f : base;
    KVANT_TRY(read_float_within(r, "rope.freq_base_swa", 1.001f, 1e12f, usual, &local_base));
    hp->local_rope.base = (double)local_base;
    return KVANT_OK;
}

static kvant_status read_scales(reader *r, kvant_hparams *hp) {
    const kvant_arch_traits *t = r->traits;
    float value;
    const char *epsilon = t->layer_norm ? "attention.layer_norm_epsilon" : "attention.layer_norm_rms_epsilon";
    if (!kvant_gguf_find(r->f, key_of(r, epsilon)))
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: %s is missing", r->f->path, r->key);
    KVANT_TRY(read_float_within(r, epsilon, 0, 1, 0, &hp->norm_eps));
    int per_head = t->wide_query_layers == hp->n_layer ? hp->n_embd / hp->n_head : hp->head_dim;
    hp->attention_scale = 1.0f / sqrtf((float)per_head);
    KVANT_TRY(kvant_gguf_f32_or(r->f, "kvant.attention.scale", hp->attention_scale, &hp->attention_scale, r->err));
    hp->embedding_scale = t->embedding_sqrt ? sqrtf((float)hp->n_embd) : 1.0f;
    hp->residual_scale = hp->logit_scale = 1.0f;
    if (t->granite_scales) {
        KVANT_TRY(read_float(r, "attention.scale", 0, &value));
        if (value != 0) hp->attention_scale = value;
        KVANT_TRY(read_float(r, "embedding_scale", 0, &value));
        if (value != 0) hp->embedding_scale = value;
        KVANT_TRY(read_float(r, "residual_scale", 0, &value));
        if (value != 0) hp->residual_scale = value;
        KVANT_TRY(read_float(r, "logit_scale", 0, &value));
        if (value != 0) hp->logit_scale = 1.0f / value;
    }
    if (t->attn_softcap)
        KVANT_TRY(read_float_within(r, "attn_logit_softcapping", 0, 1e6f, t->attn_softcap_default, &hp->attn_softcap));
    if (t->final_softcap)
        KVANT_TRY(read_float_within(r, "final_logit_softcapping", 0, 1e6f, t->final_softcap_default, &hp->final_softcap));
    if (t->position_temperature) KVANT_TRY(read_float(r, "attention.temperature_scale", 0, &hp->temperature_scale));
    return KVANT_OK;
}

static bool makes_own_cache(const reader *r, const kvant_hparams *hp) {
    switch (r->traits->own_cache) {
    case KVANT_OWN_CACHE_ALL: return true;
    case KVANT_OWN_CACHE_DENSE: return hp->n_expert == 0 && !kvant_gguf_find(r->f, "kvant.vision.head_dim"); /* a folder's tower */
    case KVANT_OWN_CACHE_WINDOWED: return hp->window > 0;
    case KVANT_OWN_CACHE_NONE: break;
    }
    return false;
}

kvant_status kvant_hparams_read(const kvant_gguf *f, kvant_hparams *out, kvant_error *err) {
    kvant_hparams hp = {0};
    KVANT_TRY(kvant_arch_of_file(f, &hp.traits, err));
    reader r = {.f = f, .traits = hp.traits, .err = err};
    KVANT_TRY(read_sizes(&r, &hp));
    KVANT_TRY(read_mlp(&r, &hp));
    KVANT_TRY(read_windows(&r, &hp));
    KVANT_TRY(read_rope(&r, &hp));
    KVANT_TRY(read_scales(&r, &hp));
    hp.mlx_own_cache = makes_own_cache(&r, &hp);
    *out = hp;
    return KVANT_OK;
}

int64_t kvant_count_parameters(const kvant_gguf *f) {
    int64_t n = 0;
    for (int i = 0; i < f->n_tensors; i++) {
        const int64_t *dims = f->tensors[i].dims;
        if (f->tensors[i].bytes > 0) n += dims[0] * dims[1] * dims[2] * dims[3];
    }
    return n;
}

kvant_status kvant_decoder_peek(const kvant_gguf *f, kvant_decoder_info *out, kvant_error *err) {
    kvant_hparams hp;
    KVANT_TRY(kvant_hparams_read(f, &hp, err));
    kvant_decoder_info info = {.n_layer = hp.n_layer,
                               .n_head = hp.n_head,
                               .n_kv_head = hp.n_kv_head,
                               .head_dim = hp.head_dim,
                               .n_embd = hp.n_embd,
                               .n_vocab = hp.n_vocab,
                               .n_context = hp.n_context,
                               .mlx_own_cache = hp.mlx_own_cache};
    snprintf(info.architecture, sizeof info.architecture, "%s", hp.traits->name);
    info.n_parameters = kvant_count_parameters(f);
    *out = info;
    return KVANT_OK;
}

kvant_status kvant_decoder_peek_windows(const kvant_gguf *f, int **out, kvant_error *err) {
    kvant_hparams hp;
    KVANT_TRY(kvant_hparams_read(f, &hp, err));
    int *windows = kvant_alloc((size_t)hp.n_layer, sizeof *windows);
    if (!windows) return kvant_fail(err, KVANT_ENOMEM, "not enough memory for the windows of %d layers", hp.n_layer);
    for (int i = 0; i < hp.n_layer; i++)
        windows[i] = hp.windowed[i] ? hp.window : 0;
    *out = windows;
    return KVANT_OK;
}

// SPDX-License-Identifier: MIT
/* folder_config.c: config.json -> metadata under GGUF's keys.
 *
 * Numbers are copied by a table; what needs a thought (heads, windows, what the decoder cannot do) has a function. Ranges are the
 * decoder's business, which checks a GGUF file's numbers in the same way. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "file/folder_internal.h"

/* ---- entries as a GGUF file has them: key, type, value ---- */

static kvant_status put(kvant_folder *f, const void *p, size_t n) {
    return kvant_buffer_append(&f->metadata, p, n) == KVANT_OK ? KVANT_OK : kvant_folder_no_memory(f);
}

static kvant_status put_size(kvant_folder *f, uint64_t n) {
    uint8_t bytes[8];
    kvant_write_u32(bytes, (uint32_t)n);
    kvant_write_u32(bytes + 4, (uint32_t)(n >> 32));
    return put(f, bytes, 8);
}

static kvant_status put_word(kvant_folder *f, uint32_t value) {
    uint8_t bytes[4];
    kvant_write_u32(bytes, value);
    return put(f, bytes, 4);
}

/* The architecture's name and the suffix, or the suffix alone where it names its own group. */
static kvant_status put_key(kvant_folder *f, const char *suffix, kvant_gguf_type type) {
    char key[128];
    bool whole = strncmp(suffix, "general.", 8) == 0 || strncmp(suffix, "kvant.", 6) == 0 || strncmp(suffix, "clip.", 5) == 0;
    int n = whole ? snprintf(key, sizeof key, "%s", suffix) : snprintf(key, sizeof key, "%s.%s", f->architecture, suffix);
    f->n_metadata++;
    KVANT_TRY(put_size(f, (uint64_t)n));
    KVANT_TRY(put(f, key, (size_t)n));
    return put_word(f, type);
}

kvant_status kvant_folder_put_u32(kvant_folder *f, const char *suffix, uint32_t value) {
    KVANT_TRY(put_key(f, suffix, KVANT_GGUF_U32));
    return put_word(f, value);
}

kvant_status kvant_folder_put_f32(kvant_folder *f, const char *suffix, float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    KVANT_TRY(put_key(f, suffix, KVANT_GGUF_F32));
    return put_word(f, bits);
}

kvant_status kvant_folder_put_string(kvant_folder *f, const char *suffix, const char *value) {
    KVANT_TRY(put_key(f, suffix, KVANT_GGUF_STRING));
    KVANT_TRY(put_size(f, strlen(value)));
    return put(f, value, strlen(value));
}

kvant_status kvant_folder_put_flags(kvant_folder *f, const char *suffix, const uint8_t *flags, int n) {
    KVANT_TRY(put_key(f, suffix, KVANT_GGUF_ARRAY));
    KVANT_TRY(put_word(f, KVANT_GGUF_BOOL));
    KVANT_TRY(put_size(f, (uint64_t)n));
    return put(f, flags, (size_t)n);
}

kvant_status kvant_folder_put_floats(kvant_folder *f, const char *suffix, const float *x, int n) {
    KVANT_TRY(put_key(f, suffix, KVANT_GGUF_ARRAY));
    KVANT_TRY(put_word(f, KVANT_GGUF_F32));
    KVANT_TRY(put_size(f, (uint64_t)n));
    for (int i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        KVANT_TRY(put_word(f, bits));
    }
    return KVANT_OK;
}

/* ---- numbers ---- */

bool kvant_folder_number(const kvant_folder *f, const char *key, double *out) {
    const json_t *v = json_object_get(f->config, key);
    if (json_is_number(v)) {
        *out = json_number_value(v);
        return true;
    }
    for (const kvant_folder_default *d = f->family->defaults; d && d->key; d++)
        if (strcmp(d->key, key) == 0) {
            *out = d->value;
            return true;
        }
    return false;
}

static const struct {
    const char *from, *to;
    bool real;
} numbers[] = {
    {"num_hidden_layers", "block_count", false},
    {"hidden_size", "embedding_length", false},
    {"intermediate_size", "feed_forward_length", false},
    {"num_attention_heads", "attention.head_count", false},
    {"num_key_value_heads", "attention.head_count_kv", false},
    {"num_local_experts", "expert_count", false},
    {"num_experts", "expert_count", false},
    {"num_experts_per_tok", "expert_used_count", false},
    {"moe_intermediate_size", "expert_feed_forward_length", false},
    {"sliding_window", "attention.sliding_window", false},
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", true},
    {"norm_epsilon", "attention.layer_norm_epsilon", true},
    {"attn_logit_softcapping", "attn_logit_softcapping", true},
    {"final_logit_softcapping", "final_logit_softcapping", true},
    {"embedding_multiplier", "embedding_scale", true},
    {"residual_multiplier", "residual_scale", true},
    {"attention_multiplier", "attention.scale", true},
    {"logits_scaling", "logit_scale", true},
};

static kvant_status check_whole(const kvant_folder *f, const char *key, double value) {
    if (value >= 0 && value <= (double)UINT32_MAX && value == floor(value)) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s is %g, expected a whole number from 0 to %u", f->path, key,
                      value, UINT32_MAX);
}

static kvant_status put_numbers(kvant_folder *f) {
    bool has_experts = false;
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        double value;
        bool is_experts = strcmp(numbers[i].to, "expert_count") == 0;
        const json_t *v = json_object_get(f->config, numbers[i].from);
        if (v && !json_is_number(v) && !json_is_null(v))
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s is not a number", f->path, numbers[i].from);
        if (!kvant_folder_number(f, numbers[i].from, &value) || (is_experts && has_experts)) continue;
        has_experts |= is_experts;
        if (numbers[i].real) {
            KVANT_TRY(kvant_folder_put_f32(f, numbers[i].to, (float)value));
            continue;
        }
        KVANT_TRY(check_whole(f, numbers[i].from, value));
        KVANT_TRY(kvant_folder_put_u32(f, numbers[i].to, (uint32_t)value));
    }
    return KVANT_OK;
}

static kvant_status need(const kvant_folder *f, const char *key, double low, double high, double *out) {
    if (!kvant_folder_number(f, key, out)) return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json has no %s", f->path, key);
    KVANT_TRY(check_whole(f, key, *out));
    if (*out < low || *out > high)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s is %g, expected %g to %g", f->path, key, *out, low, high);
    return KVANT_OK;
}

/* head_dim, what RoPE turns of it, and the scale of the scores. */
static kvant_status put_heads(kvant_folder *f) {
    double hidden, heads, head_dim, value, part;
    KVANT_TRY(need(f, "hidden_size", 1, 1 << 24, &hidden));
    KVANT_TRY(need(f, "num_attention_heads", 1, 1 << 16, &heads));
    if (!kvant_folder_number(f, "head_dim", &head_dim)) head_dim = floor(hidden / heads);
    KVANT_TRY(check_whole(f, "head_dim", head_dim));
    KVANT_TRY(kvant_folder_put_u32(f, "attention.key_length", (uint32_t)head_dim));
    KVANT_TRY(kvant_folder_put_u32(f, "attention.value_length", (uint32_t)head_dim));
    const json_t *parameters = json_object_get(f->config, "rope_parameters");
    const json_t *nested = json_object_get(parameters, "partial_rotary_factor");
    if (json_is_number(nested))
        part = json_number_value(nested);
    else if (!kvant_folder_number(f, "partial_rotary_factor", &part))
        part = 1;
    if (!(part >= 0 && part <= 1))
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: partial_rotary_factor is %g, expected 0 to 1", f->path, part);
    KVANT_TRY(kvant_folder_put_u32(f, "rope.dimension_count", (uint32_t)(head_dim * part)));
    if (!kvant_folder_number(f, "query_pre_attn_scalar", &value)) return KVANT_OK;
    if (!(value > 0 && value < 1e9))
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: query_pre_attn_scalar is %g, expected more than 0", f->path,
                          value);
    return kvant_folder_put_f32(f, "kvant.attention.scale", (float)(1 / sqrt(value)));
}

/* ---- which layers have a window, or no RoPE ---- */

static kvant_status check_list(const kvant_folder *f, const char *key, const json_t *list) {
    if (json_is_array(list) && json_array_size(list) == (size_t)f->n_layer) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s is not a list of one entry for each of %d layers", f->path, key,
                      f->n_layer);
}

static kvant_status put_windows(kvant_folder *f, const uint8_t *windowed) {
    double period;
    if (windowed) return kvant_folder_put_flags(f, "attention.sliding_window_pattern", windowed, f->n_layer);
    if (!kvant_folder_number(f, "sliding_window_pattern", &period)) return KVANT_OK;
    KVANT_TRY(check_whole(f, "sliding_window_pattern", period));
    return kvant_folder_put_u32(f, "attention.sliding_window_pattern", (uint32_t)period);
}

/* NULL in *out: config.json does not say. */
static kvant_status read_layer_types(kvant_folder *f, uint8_t **out, bool *any) {
    const json_t *list = json_object_get(f->config, "layer_types");
    *out = NULL;
    *any = false;
    if (!list || json_is_null(list)) return KVANT_OK;
    KVANT_TRY(check_list(f, "layer_types", list));
    uint8_t *flags = kvant_folder_own(f, (size_t)f->n_layer, 1);
    if (!flags) return kvant_folder_no_memory(f);
    for (int i = 0; i < f->n_layer; i++) {
        const char *type = json_string_value(json_array_get(list, (size_t)i));
        flags[i] = type && strcmp(type, "sliding_attention") == 0;
        if (!flags[i] && (!type || strcmp(type, "full_attention") != 0))
            return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                              "%s: config.json: layer_types: layer %d is neither full_attention nor "
                              "sliding_attention, the kinds of layers that Kvant runs",
                              f->path, i);
        *any |= flags[i];
    }
    *out = flags;
    return KVANT_OK;
}

/* SmolLM 3: 1 where a layer turns its keys. */
static kvant_status put_rope_layers(kvant_folder *f) {
    const json_t *list = json_object_get(f->config, "no_rope_layers");
    double interval;
    bool named = list && !json_is_null(list);
    if (strcmp(f->family->model_type, "smollm3") != 0) return KVANT_OK;
    if (!kvant_folder_number(f, "no_rope_layer_interval", &interval)) interval = 4;
    KVANT_TRY(check_whole(f, "no_rope_layer_interval", interval));
    if (named) KVANT_TRY(check_list(f, "no_rope_layers", list));
    uint8_t *flags = kvant_folder_own(f, (size_t)f->n_layer, 1);
    if (!flags) return kvant_folder_no_memory(f);
    for (int i = 0; i < f->n_layer; i++)
        flags[i] =
            named ? json_integer_value(json_array_get(list, (size_t)i)) != 0 : interval < 1 || (i + 1) % (int64_t)interval != 0;
    return kvant_folder_put_flags(f, "kvant.rope.layers", flags, f->n_layer);
}

/* ---- what would give other answers without notice ---- */

static kvant_status check_activation(kvant_folder *f) {
    static const char *const names[] = {"", "silu", "gelu_pytorch_tanh"};
    const char *act = json_string_value(json_object_get(f->config, "hidden_act")), *expected = names[f->family->act];
    if (!act || f->family->act == KVANT_FOLDER_ACT_ANY || strcmp(act, expected) == 0 ||
        (f->family->act == KVANT_FOLDER_ACT_SILU && strcmp(act, "swish") == 0))
        return KVANT_OK;
    return kvant_fail(f->err, KVANT_EUNSUPPORTED, "%s: config.json: hidden_act is %s; Kvant runs %s models with %s", f->path,
                      kvant_folder_show(f, act), f->family->model_type, expected);
}

static kvant_status check_experts(const kvant_folder *f) {
    double step = 1;
    const json_t *dense = json_object_get(f->config, "mlp_only_layers");
    kvant_folder_number(f, "decoder_sparse_step", &step);
    if (json_array_size(dense) > 0 || step != 1)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: config.json: some layers have experts and some do not, which Kvant does not "
                          "support",
                          f->path);
    if (json_is_false(json_object_get(f->config, "norm_topk_prob")))
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: config.json: norm_topk_prob is false; Kvant runs experts whose weights add up "
                          "to 1",
                          f->path);
    return KVANT_OK;
}

kvant_status kvant_folder_read_config(kvant_folder *f) {
    double n_layer, context;
    uint8_t *windowed;
    bool any_window;
    f->architecture = f->family->architecture;
    KVANT_TRY(need(f, "num_hidden_layers", 1, 1024, &n_layer));
    f->n_layer = (int)n_layer;
    KVANT_TRY(check_activation(f));
    KVANT_TRY(check_experts(f));
    KVANT_TRY(read_layer_types(f, &windowed, &any_window));
    if (any_window && f->family->windowed) f->architecture = f->family->windowed;
    KVANT_TRY(kvant_folder_put_string(f, "general.architecture", f->architecture));
    KVANT_TRY(kvant_folder_put_string(f, "general.name", f->name));
    if (!kvant_folder_number(f, "max_position_embeddings", &context)) context = 4096;
    KVANT_TRY(check_whole(f, "max_position_embeddings", context));
    KVANT_TRY(kvant_folder_put_u32(f, "context_length", (uint32_t)context));
    KVANT_TRY(put_numbers(f));
    KVANT_TRY(put_heads(f));
    KVANT_TRY(put_windows(f, windowed));
    KVANT_TRY(put_rope_layers(f));
    if (f->whole) KVANT_TRY(kvant_folder_read_vision_config(f));
    return kvant_folder_read_rope(f);
}

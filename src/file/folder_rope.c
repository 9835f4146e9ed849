// SPDX-License-Identifier: MIT
/* folder_rope.c: rotary positions of config.json -> metadata, and the vectors of factors that GGUF stores as tensors.
 *
 * rope_theta and rope_scaling, or both in rope_parameters (newer files; there perhaps once for each kind of layer). */
#include <math.h>
#include <string.h>

#include "file/folder_internal.h"

/* Where the scaling is described: *local is the description for layers with a window, NULL when there is none of their own. */
static const json_t *find_scaling(const kvant_folder *f, const json_t **local) {
    const json_t *parameters = json_object_get(f->config, "rope_parameters");
    const json_t *full = json_object_get(parameters, "full_attention");
    *local = json_object_get(parameters, "sliding_attention");
    if (json_is_object(full)) return full;
    if (json_is_object(parameters)) return parameters;
    const json_t *scaling = json_object_get(f->config, "rope_scaling");
    return json_is_object(scaling) ? scaling : NULL;
}

static double number_or(const json_t *object, const char *key, double fallback) {
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

static kvant_status check_range(const kvant_folder *f, const char *key, double value, double low, double high) {
    if (value >= low && value <= high) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s of RoPE is %g, expected %g to %g", f->path, key, value, low,
                      high);
}

static kvant_status put_base(kvant_folder *f, const json_t *scaling, const json_t *local) {
    double base, value;
    if (!kvant_folder_number(f, "rope_theta", &base)) base = 10000;
    base = number_or(scaling, "rope_theta", base);
    KVANT_TRY(check_range(f, "rope_theta", base, 1.001, 1e12));
    KVANT_TRY(kvant_folder_put_f32(f, "rope.freq_base", (float)base));
    bool has_local = kvant_folder_number(f, "rope_local_base_freq", &value);
    value = number_or(local, "rope_theta", has_local ? value : 0);
    if (value == 0) return KVANT_OK;
    KVANT_TRY(check_range(f, "the base of layers with a window", value, 1.001, 1e12));
    return kvant_folder_put_f32(f, "rope.freq_base_swa", (float)value);
}

static kvant_status put_factor(kvant_folder *f, const json_t *scaling, double *out) {
    *out = number_or(scaling, "factor", -1);
    KVANT_TRY(check_range(f, "the scaling factor", *out, 1e-3, 1e6));
    return kvant_folder_put_f32(f, "rope.scaling.factor", (float)*out);
}

static kvant_status put_linear(kvant_folder *f, const json_t *scaling) {
    double factor;
    KVANT_TRY(kvant_folder_put_string(f, "rope.scaling.type", "linear"));
    return put_factor(f, scaling, &factor);
}

static kvant_status put_original_context(kvant_folder *f, const json_t *scaling, double *out) {
    double context;
    if (!kvant_folder_number(f, "original_max_position_embeddings", &context) &&
        !kvant_folder_number(f, "max_position_embeddings", &context))
        context = 4096;
    *out = number_or(scaling, "original_max_position_embeddings", context);
    KVANT_TRY(check_range(f, "original_max_position_embeddings", *out, 1, 1e9));
    return kvant_folder_put_u32(f, "rope.scaling.original_context_length", (uint32_t)*out);
}

static double yarn_magnitude(double factor, double mscale) { return factor <= 1 ? 1 : 0.1 * mscale * log(factor) + 1; }

static kvant_status put_yarn(kvant_folder *f, const json_t *scaling) {
    double factor, context;
    KVANT_TRY(kvant_folder_put_string(f, "rope.scaling.type", "yarn"));
    KVANT_TRY(put_factor(f, scaling, &factor));
    KVANT_TRY(put_original_context(f, scaling, &context));
    double fast = number_or(scaling, "beta_fast", 32), slow = number_or(scaling, "beta_slow", 1);
    KVANT_TRY(check_range(f, "beta_fast", fast, 1e-3, 1e6));
    KVANT_TRY(check_range(f, "beta_slow", slow, 1e-3, 1e6));
    KVANT_TRY(kvant_folder_put_f32(f, "rope.scaling.yarn_beta_fast", (float)fast));
    KVANT_TRY(kvant_folder_put_f32(f, "rope.scaling.yarn_beta_slow", (float)slow));
    double usual = yarn_magnitude(factor, 1);
    double magnitude =
        yarn_magnitude(factor, number_or(scaling, "mscale", 1)) / yarn_magnitude(factor, number_or(scaling, "mscale_all_dim", 0));
    magnitude = number_or(scaling, "attention_factor", magnitude);
    KVANT_TRY(check_range(f, "the magnitude", magnitude, 1e-3, 1e3));
    return kvant_folder_put_f32(f, "rope.scaling.attn_factor", (float)(magnitude / usual));
}

/* How many frequencies there are. */
static kvant_status count_pairs(const kvant_folder *f, int *out) {
    double hidden = 0, heads = 1, head_dim, part;
    kvant_folder_number(f, "hidden_size", &hidden);
    kvant_folder_number(f, "num_attention_heads", &heads);
    if (!kvant_folder_number(f, "head_dim", &head_dim)) head_dim = floor(hidden / heads);
    if (!kvant_folder_number(f, "partial_rotary_factor", &part)) part = 1;
    part = number_or(json_object_get(f->config, "rope_parameters"), "partial_rotary_factor", part);
    KVANT_TRY(check_range(f, "the part of a head that turns", head_dim * part, 2, 4096));
    *out = (int)(head_dim * part) / 2;
    return KVANT_OK;
}

/* Llama 3: slow frequencies are divided by the factor, fast ones are not, with a ramp between. */
static kvant_status put_llama3(kvant_folder *f, const json_t *scaling, double base) {
    int n;
    KVANT_TRY(count_pairs(f, &n));
    double factor = number_or(scaling, "factor", -1), low = number_or(scaling, "low_freq_factor", 1);
    double high = number_or(scaling, "high_freq_factor", 4),
           context = number_or(scaling, "original_max_position_embeddings", 8192);
    KVANT_TRY(check_range(f, "the scaling factor", factor, 1e-3, 1e6));
    KVANT_TRY(check_range(f, "low_freq_factor", low, 1e-6, 1e6));
    KVANT_TRY(check_range(f, "high_freq_factor", high, low * 1.0001, 1e7));
    KVANT_TRY(check_range(f, "original_max_position_embeddings", context, 1, 1e9));
    float *x = kvant_folder_own(f, (size_t)n, sizeof *x);
    if (!x) return kvant_folder_no_memory(f);
    for (int i = 0; i < n; i++) {
        double wave = 2 * 3.14159265358979323846 * pow(base, (double)i / n), divisor = 1;
        double smooth = (context / wave - low) / (high - low);
        if (wave > context / low)
            divisor = factor;
        else if (wave > context / high)
            divisor = 1 / ((1 - smooth) / factor + smooth);
        x[i] = (float)divisor;
    }
    return kvant_folder_add_floats(f, "rope_freqs.weight", x, n);
}

static kvant_status put_factors(kvant_folder *f, const json_t *scaling, const char *key, const char *name) {
    const json_t *list = json_object_get(scaling, key);
    int n;
    KVANT_TRY(count_pairs(f, &n));
    if (json_array_size(list) != (size_t)n)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json: %s of RoPE has %zu numbers, expected %d", f->path, key,
                          json_array_size(list), n);
    float *x = kvant_folder_own(f, (size_t)n, sizeof *x);
    if (!x) return kvant_folder_no_memory(f);
    for (int i = 0; i < n; i++) {
        x[i] = (float)json_number_value(json_array_get(list, (size_t)i));
        KVANT_TRY(check_range(f, key, (double)x[i], 1e-6, 1e6));
    }
    return kvant_folder_add_floats(f, name, x, n);
}

static kvant_status put_long_rope(kvant_folder *f, const json_t *scaling) {
    double original, longest = 0, magnitude = 1;
    KVANT_TRY(kvant_folder_put_string(f, "rope.scaling.type", "longrope"));
    KVANT_TRY(put_original_context(f, scaling, &original));
    kvant_folder_number(f, "max_position_embeddings", &longest);
    if (longest > original && original > 1) magnitude = sqrt(1 + log(longest / original) / log(original));
    magnitude = number_or(scaling, "attention_factor", number_or(scaling, "long_mscale", magnitude));
    KVANT_TRY(check_range(f, "the magnitude", magnitude, 1e-3, 1e3));
    KVANT_TRY(kvant_folder_put_f32(f, "rope.scaling.attn_factor", (float)magnitude));
    KVANT_TRY(put_factors(f, scaling, "long_factor", "rope_factors_long.weight"));
    return put_factors(f, scaling, "short_factor", "rope_factors_short.weight");
}

static kvant_status put_scaling(kvant_folder *f, const json_t *scaling) {
    const char *type = json_string_value(json_object_get(scaling, "rope_type"));
    if (!type) type = json_string_value(json_object_get(scaling, "type"));
    double base;
    if (!type || strcmp(type, "default") == 0 || strcmp(type, "none") == 0) return KVANT_OK;
    if (strcmp(type, "linear") == 0) return put_linear(f, scaling);
    if (strcmp(type, "yarn") == 0) return put_yarn(f, scaling);
    if (strcmp(type, "llama3") == 0 && f->family->rope_freqs) {
        if (!kvant_folder_number(f, "rope_theta", &base)) base = 10000;
        return put_llama3(f, scaling, number_or(scaling, "rope_theta", base));
    }
    if ((strcmp(type, "longrope") == 0 || strcmp(type, "su") == 0) && f->family->long_rope) return put_long_rope(f, scaling);
    return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                      "%s: config.json: RoPE is scaled by %s, which Kvant does not support for %s models", f->path,
                      kvant_folder_show(f, type), f->family->model_type);
}

kvant_status kvant_folder_read_rope(kvant_folder *f) {
    const json_t *local, *scaling = find_scaling(f, &local);
    bool traditional = json_is_true(json_object_get(f->config, "rope_traditional"));
    KVANT_TRY(kvant_folder_put_u32(f, "kvant.rope.pairs", f->family->interleaved || traditional ? 0 : 1));
    KVANT_TRY(put_base(f, scaling, local));
    return scaling ? put_scaling(f, scaling) : KVANT_OK;
}

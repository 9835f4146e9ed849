// SPDX-License-Identifier: MIT
/* folder_vision.c: the part of a model folder that reads pictures: Pixtral's tower and projector, beside a text model of their
 * own names.
 *
 * Metadata and tensors get the names that a GGUF file of a vision model has, so that src/vision reads both. The text model inside
 * is read by the other folder_*.c as if it were alone. Other vision models are only recognized. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "file/folder_internal.h"

#define NAME_ROOM 256

/* The first two go together: where hidden_size is given, head_dim follows from it. */
static const kvant_folder_default text_defaults[] = {
    {"hidden_size", 5120},        {"head_dim", 128},      {"num_attention_heads", 32},
    {"num_key_value_heads", 8},   {"rms_norm_eps", 1e-5}, {"num_hidden_layers", 40},
    {"intermediate_size", 14336}, {"rope_theta", 1e9},    {NULL, 0}};

/* What the whole says for the text model as well. */
static kvant_status inherit(kvant_folder *f, const char *key) {
    json_t *value = json_object_get(f->whole, key);
    if (!value || json_object_get(f->config, key)) return KVANT_OK;
    return json_object_set(f->config, key, value) == 0 ? KVANT_OK : kvant_folder_no_memory(f);
}

static bool text_is(const json_t *object, const char *key, const char *expected) {
    const char *text = json_string_value(json_object_get(object, key));
    return text && strcmp(text, expected) == 0;
}

kvant_status kvant_folder_enter_vision(kvant_folder *f, bool *is_other) {
    static const char *const inherited[] = {"tie_word_embeddings", "quantization", "quantization_config"};
    const json_t *vision = json_object_get(f->config, "vision_config");
    json_t *text = json_object_get(f->config, "text_config");
    *is_other = json_is_object(vision);
    bool named = text_is(f->config, "model_type", "pixtral") || text_is(f->config, "model_type", "llava");
    const char *type = json_string_value(json_object_get(text, "model_type"));
    if (!*is_other || !named || !text_is(vision, "model_type", "pixtral") || !json_is_object(text)) return KVANT_OK;
    if (!type) type = "mistral";
    const kvant_folder_family *family = kvant_folder_find_family(type);
    if (!family || (strcmp(type, "mistral") != 0 && strcmp(type, "llama") != 0))
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: the text model of this pixtral model is of the type %s; Kvant runs those of mistral "
                          "and llama",
                          f->path, kvant_folder_show(f, type));
    f->own_family = *family;
    f->own_family.defaults = json_object_get(text, "hidden_size") ? text_defaults + 2 : text_defaults;
    f->family = &f->own_family;
    f->whole = f->config;
    f->config = json_incref(text);
    f->prefix = "language_model.";
    *is_other = false;
    for (size_t i = 0; i < sizeof inherited / sizeof *inherited; i++)
        KVANT_TRY(inherit(f, inherited[i]));
    return KVANT_OK;
}

/* ---- metadata ---- */

static double number_or(const json_t *object, const char *key, double fallback) {
    const json_t *v = json_object_get(object, key);
    return json_is_number(v) ? json_number_value(v) : fallback;
}

static kvant_status put_whole(kvant_folder *f, const json_t *object, const char *from, double fallback, const char *to) {
    double value = number_or(object, from, fallback);
    if (!(value >= 1 && value <= 1 << 24) || value != floor(value))
        return kvant_fail(f->err, KVANT_EFORMAT,
                          "%s: config.json: the vision model's %s is %g, expected a whole number from 1 to %d", f->path, from,
                          value, 1 << 24);
    return kvant_folder_put_u32(f, to, (uint32_t)value);
}

/* Three numbers, one a colour; missing ones are the fallback's. */
static kvant_status put_colours(kvant_folder *f, const char *from, const float fallback[3], const char *to) {
    const json_t *list = json_object_get(f->processor, from);
    float x[3];
    for (size_t i = 0; i < 3; i++) {
        const json_t *v = json_array_get(list, i);
        x[i] = json_is_number(v) ? (float)json_number_value(v) : fallback[i];
    }
    return kvant_folder_put_floats(f, to, x, 3);
}

/* Steps of the processor that are always done, and by this kind of interpolation. */
static kvant_status check_processor(const kvant_folder *f) {
    static const char *const steps[] = {"do_resize", "do_rescale", "do_normalize"};
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (json_is_false(json_object_get(f->processor, steps[i])))
            return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                              "%s: preprocessor_config.json: %s is false, which Kvant does not support", f->path, steps[i]);
    double resample = number_or(f->processor, "resample", 3), factor = number_or(f->processor, "rescale_factor", 1.0 / 255);
    if (resample != 3 || fabs(factor * 255 - 1) > 1e-6)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: preprocessor_config.json: resample is %g and rescale_factor %g; Kvant prepares "
                          "pictures with 3 (bicubic) and 1/255",
                          f->path, resample, factor);
    return KVANT_OK;
}

kvant_status kvant_folder_read_vision_config(kvant_folder *f) {
    static const float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f}, deviation[3] = {0.26862954f, 0.26130258f, 0.27577711f};
    const json_t *v = json_object_get(f->whole, "vision_config"), *size = json_object_get(f->processor, "size");
    const char *act = json_string_value(json_object_get(f->whole, "projector_hidden_act"));
    KVANT_TRY(check_processor(f));
    if (act && strcmp(act, "gelu") != 0)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: config.json: projector_hidden_act is %s; Kvant runs pixtral models with gelu", f->path,
                          kvant_folder_show(f, act));
    double layer = number_or(f->whole, "vision_feature_layer", -1), channels = number_or(v, "num_channels", 3);
    if (layer != -1 || channels != 3)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: config.json: vision_feature_layer is %g and num_channels %g; Kvant runs pixtral "
                          "models with the last layer (-1) and 3",
                          f->path, layer, channels);
    if (number_or(f->whole, "spatial_merge_size", 1) != 1)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: config.json: patches are merged (spatial_merge_size), which Kvant does not support", f->path);
    double heads = number_or(v, "num_attention_heads", 16), hidden = number_or(v, "hidden_size", 1024);
    KVANT_TRY(kvant_folder_put_string(f, "clip.projector_type", "pixtral"));
    KVANT_TRY(put_whole(f, v, "num_hidden_layers", 24, "clip.vision.block_count"));
    KVANT_TRY(put_whole(f, v, "hidden_size", 1024, "clip.vision.embedding_length"));
    KVANT_TRY(put_whole(f, v, "intermediate_size", 4096, "clip.vision.feed_forward_length"));
    KVANT_TRY(put_whole(f, v, "num_attention_heads", 16, "clip.vision.attention.head_count"));
    KVANT_TRY(put_whole(f, v, "head_dim", heads >= 1 ? floor(hidden / heads) : 0, "kvant.vision.head_dim"));
    KVANT_TRY(put_whole(f, v, "patch_size", 16, "clip.vision.patch_size"));
    KVANT_TRY(put_whole(f, size, "longest_edge", number_or(v, "image_size", 1024), "clip.vision.image_size"));
    KVANT_TRY(put_whole(f, f->whole, "image_token_index", number_or(f->whole, "image_token_id", 10), "kvant.vision.image_token"));
    const json_t *rope = json_object_get(v, "rope_parameters");
    KVANT_TRY(kvant_folder_put_f32(f, "kvant.vision.rope.freq_base",
                                   (float)number_or(v, "rope_theta", number_or(rope, "rope_theta", 1e4))));
    KVANT_TRY(kvant_folder_put_u32(f, "kvant.vision.rope.pairs", 1));
    KVANT_TRY(kvant_folder_put_f32(f, "clip.vision.attention.layer_norm_epsilon", (float)number_or(v, "rms_norm_eps", 1e-5)));
    KVANT_TRY(put_colours(f, "image_mean", mean, "clip.vision.image_mean"));
    return put_colours(f, "image_std", deviation, "clip.vision.image_std");
}

/* ---- tensors ---- */

static const struct {
    const char *from, *to;
} layer_names[] = {{"attention_norm", "ln1"},
                   {"ffn_norm", "ln2"},
                   {"attention.q_proj", "attn_q"},
                   {"attention.k_proj", "attn_k"},
                   {"attention.v_proj", "attn_v"},
                   {"attention.o_proj", "attn_out"},
                   {"feed_forward.gate_proj", "ffn_gate"},
                   {"feed_forward.up_proj", "ffn_up"},
                   {"feed_forward.down_proj", "ffn_down"}};

/* A tensor of the tower, as MLX saves it or as Hugging Face does. */
static kvant_status add_tower(kvant_folder *f, const char *from, const char *to) {
    static const char *const towers[] = {"vision_tower.vision_model.", "vision_tower."};
    for (size_t i = 0; i < sizeof towers / sizeof *towers; i++) {
        char name[NAME_ROOM];
        snprintf(name, sizeof name, "%s%s", towers[i], from);
        KVANT_TRY(kvant_folder_add_linear(f, name, to));
    }
    return KVANT_OK;
}

static kvant_status read_tower(kvant_folder *f) {
    int n_layer = (int)number_or(json_object_get(f->whole, "vision_config"), "num_hidden_layers", 24);
    KVANT_TRY(add_tower(f, "patch_conv", "v.patch_embd"));
    KVANT_TRY(add_tower(f, "ln_pre", "v.pre_ln"));
    for (int l = 0; l < n_layer && l < 1024; l++)
        for (size_t i = 0; i < sizeof layer_names / sizeof *layer_names; i++) {
            char from[NAME_ROOM / 2], to[NAME_ROOM / 2];
            snprintf(from, sizeof from, "transformer.layers.%d.%s", l, layer_names[i].from);
            snprintf(to, sizeof to, "v.blk.%d.%s", l, layer_names[i].to);
            KVANT_TRY(add_tower(f, from, to));
        }
    KVANT_TRY(kvant_folder_add_linear(f, "multi_modal_projector.linear_1", "mm.1"));
    return kvant_folder_add_linear(f, "multi_modal_projector.linear_2", "mm.2");
}

kvant_status kvant_folder_read_vision_tensors(kvant_folder *f) {
    const char *prefix = f->prefix;
    f->prefix = NULL;
    kvant_status st = read_tower(f);
    f->prefix = prefix;
    return st;
}

// SPDX-License-Identifier: MIT
/* folder_tensors.c: tensors of the shards -> tensors under GGUF's names.
 *
 * A family's name map says what to look for in each layer; what is there becomes a tensor that points into the shards, what is
 * not is the decoder's business. Last, a tensor that no name asked for is an error: it would have changed the answers. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/mlx_type.h"
#include "file/folder_internal.h"

#define NAME_ROOM 256
#define GGML_F32 0
#define GGML_F16 1
#define GGML_BF16 30
#define EXPERTS_MAX 1024
#define VECTOR_MAX (1 << 24) /* elements of what is copied */

/* The matrix or vector of that name, behind the prefix that a text model inside a larger one has. */
static const kvant_safetensor *find(kvant_folder *f, const char *inner) {
    char name[2 * NAME_ROOM];
    snprintf(name, sizeof name, "%s%s", f->prefix ? f->prefix : "", inner);
    for (int s = 0; s < f->n_shards; s++) {
        const kvant_safetensor *t = kvant_safetensors_find(f->shards[s], name);
        if (!t) continue;
        f->used[s][t - f->shards[s]->tensors] = 1;
        return t;
    }
    return NULL;
}

static const kvant_safetensor *find_suffix(kvant_folder *f, const char *name, const char *suffix) {
    char whole[NAME_ROOM + 16];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    return find(f, whole);
}

/* A new tensor named TO.SUFFIX (or TO where suffix is NULL); its parts are owned. */
static kvant_status add(kvant_folder *f, const char *to, const char *suffix, int n_parts, kvant_gguf_tensor **out,
                        kvant_gguf_part **parts) {
    if (f->n_tensors == f->room) {
        int room = f->room ? 2 * f->room : 256;
        kvant_gguf_tensor *grown = kvant_realloc(f->tensors, (size_t)room, sizeof *grown);
        if (!grown) return kvant_folder_no_memory(f);
        f->tensors = grown;
        f->room = room;
    }
    size_t size = strlen(to) + (suffix ? strlen(suffix) + 1 : 0);
    char *name = kvant_folder_own(f, size + 1, 1);
    *parts = kvant_folder_own(f, (size_t)n_parts, sizeof **parts);
    if (!name || !*parts) return kvant_folder_no_memory(f);
    snprintf(name, size + 1, "%s%s%s", to, suffix ? "." : "", suffix ? suffix : "");
    *out = &f->tensors[f->n_tensors++];
    **out = (kvant_gguf_tensor){.name = {name, size}, .parts = *parts, .n_parts = n_parts};
    return KVANT_OK;
}

kvant_status kvant_folder_add_floats(kvant_folder *f, const char *name, const float *x, int64_t n) {
    kvant_gguf_tensor *t;
    kvant_gguf_part *part;
    KVANT_TRY(add(f, name, NULL, 1, &t, &part));
    t->data = part->data = (const uint8_t *)x;
    t->type = GGML_F32;
    t->n_dims = 1;
    t->dims[0] = n;
    t->dims[1] = t->dims[2] = t->dims[3] = 1;
    t->part_rows = 1;
    t->bytes = t->part_bytes = t->row_bytes = (size_t)n * sizeof *x;
    return KVANT_OK;
}

static kvant_status read_float_type(kvant_folder *f, const kvant_safetensor *t, uint32_t *type) {
    if (t->type == KVANT_ST_F32)
        *type = GGML_F32;
    else if (t->type == KVANT_ST_F16)
        *type = GGML_F16;
    else if (t->type == KVANT_ST_BF16)
        *type = GGML_BF16;
    else
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: %s is stored as %s; Kvant reads F32, F16, BF16 and what MLX quantizes (with "
                          "scales beside it)",
                          f->path, t->name, kvant_safetensors_type_name(t->type));
    return KVANT_OK;
}

/* ---- quantized ---- */

typedef struct quantization {
    double bits, group;
    bool mxfp4, given; /* given: config.json says something for this tensor or for all */
} quantization;

static kvant_status read_quantization_of(kvant_folder *f, const json_t *object, quantization *q) {
    const json_t *bits = json_object_get(object, "bits"), *group = json_object_get(object, "group_size");
    const char *mode = json_string_value(json_object_get(object, "mode")),
               *method = json_string_value(json_object_get(object, "quant_method"));
    if (json_is_number(bits)) q->bits = json_number_value(bits);
    if (json_is_number(group)) q->group = json_number_value(group);
    if (!mode) mode = method && strcmp(method, "mxfp4") == 0 ? "mxfp4" : "affine";
    q->mxfp4 = strcmp(mode, "mxfp4") == 0;
    q->given = true;
    if (q->mxfp4 || strcmp(mode, "affine") == 0) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EUNSUPPORTED, "%s: config.json: the quantization mode %s; Kvant reads affine and mxfp4",
                      f->path, kvant_folder_show(f, mode));
}

/* What config.json says of the matrix `name`: for all, and of its own. */
static kvant_status read_quantization(kvant_folder *f, const char *name, quantization *q) {
    const json_t *all = json_object_get(f->config, "quantization");
    if (!json_is_object(all)) all = json_object_get(f->config, "quantization_config");
    *q = (quantization){.bits = 4, .group = 64};
    if (json_is_object(all)) KVANT_TRY(read_quantization_of(f, all, q));
    if (q->mxfp4 && !json_object_get(all, "group_size")) q->group = 32;
    const json_t *own = json_object_get(all, name);
    char whole[2 * NAME_ROOM];
    snprintf(whole, sizeof whole, "%s%s", f->prefix ? f->prefix : "", name);
    if (!own) own = json_object_get(all, whole);
    if (json_is_object(own)) KVANT_TRY(read_quantization_of(f, own, q));
    return KVANT_OK;
}

static kvant_status check_scale_shape(kvant_folder *f, const kvant_safetensor *w, const kvant_safetensor *s) {
    bool same = w->n_dims == s->n_dims && w->n_dims >= 1;
    for (int i = 0; same && i + 1 < w->n_dims; i++)
        same = w->dims[i] == s->dims[i];
    return same ? KVANT_OK
                : kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has another shape than %s but for the last dimension", f->path,
                             s->name, w->name);
}

/* The type and the columns of the matrix w with these scales (and biases). */
static kvant_status read_mlx_type(kvant_folder *f, const char *name, const kvant_safetensor *w, const kvant_safetensor *scales,
                                  const kvant_safetensor *biases, uint32_t *type, int64_t *cols) {
    quantization q;
    KVANT_TRY(read_quantization(f, name, &q));
    if (!q.given)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has scales, but config.json has no quantization", f->path, w->name);
    int bits = q.bits == 2 || q.bits == 3 || q.bits == 4 || q.bits == 5 || q.bits == 6 || q.bits == 8 ? (int)q.bits : 0;
    int group = q.group == 32 || q.group == 64 || q.group == 128 ? (int)q.group : 0;
    if (!bits || !group || (q.mxfp4 && (bits != 4 || group != 32)))
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: %s has %g bits in groups of %g%s; Kvant reads 2, 3, 4, 5, 6 and 8 bits in groups "
                          "of 32, 64 and 128, and MXFP4 of 4 bits in groups of 32",
                          f->path, w->name, q.bits, q.group, q.mxfp4 ? " (mxfp4)" : "");
    KVANT_TRY(check_scale_shape(f, w, scales));
    kvant_mlx_scale kind = KVANT_MLX_E8M0;
    if (!q.mxfp4) {
        uint32_t scale_type;
        KVANT_TRY(read_float_type(f, scales, &scale_type));
        if (!biases || biases->type != scales->type)
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has no biases of the type of its scales beside it", f->path,
                              w->name);
        KVANT_TRY(check_scale_shape(f, scales, biases));
        if (biases->bytes != scales->bytes)
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s and %s differ in size", f->path, scales->name, biases->name);
        kind = scale_type == GGML_F32 ? KVANT_MLX_F32 : scale_type == GGML_F16 ? KVANT_MLX_F16 : KVANT_MLX_BF16;
    } else if (scales->type != KVANT_ST_U8) {
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s is stored as %s, expected U8 (mxfp4)", f->path, scales->name,
                          kvant_safetensors_type_name(scales->type));
    }
    int64_t words = w->dims[w->n_dims - 1], groups = scales->dims[scales->n_dims - 1];
    if (groups > INT32_MAX || words != groups * group * bits / 32)
        return kvant_fail(f->err, KVANT_EFORMAT,
                          "%s: a row of %s has %" PRId64 " words for %" PRId64 " groups, but %d bits in groups of %d "
                          "need %" PRId64,
                          f->path, w->name, words, groups, bits, group, groups > INT32_MAX ? 0 : groups * group * bits / 32);
    *type = KVANT_MLX_TYPE(bits, group, kind);
    *cols = groups * group;
    return KVANT_OK;
}

/* ---- shapes ---- */

/* GGUF counts dimensions from the contiguous one on. */
static kvant_status set_dims(kvant_folder *f, const kvant_safetensor *w, int64_t cols, kvant_gguf_tensor *t) {
    if (w->n_dims < 1 || w->n_dims > KVANT_GGUF_MAX_DIMS)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has %d dimensions, expected 1 to %d", f->path, w->name, w->n_dims,
                          KVANT_GGUF_MAX_DIMS);
    t->n_dims = w->n_dims;
    for (int i = 0; i < KVANT_GGUF_MAX_DIMS; i++)
        t->dims[i] = i < w->n_dims ? w->dims[w->n_dims - 1 - i] : 1;
    t->dims[0] = cols;
    return KVANT_OK;
}

static void set_part(kvant_gguf_part *part, const kvant_safetensor *w, const kvant_safetensor *scales,
                     const kvant_safetensor *biases) {
    *part = (kvant_gguf_part){w->data, scales ? scales->data : NULL, biases ? biases->data : NULL};
}

/* Tightly packed parts like w (and its scales), which is one of them. */
static void set_strides(kvant_gguf_tensor *t, const kvant_safetensor *w, const kvant_safetensor *scales,
                        const kvant_safetensor *biases) {
    t->data = t->parts[0].data;
    t->part_rows = t->dims[1] * t->dims[2] * t->dims[3];
    t->part_bytes = w->bytes;
    t->row_bytes = w->bytes / (size_t)t->part_rows;
    t->part_scale_bytes = scales ? scales->bytes : 0;
    t->scale_row_bytes = t->part_scale_bytes / (size_t)t->part_rows;
    t->bytes = (w->bytes + (scales ? scales->bytes : 0) + (biases ? biases->bytes : 0)) * (size_t)t->n_parts;
}

/* ---- the forms ---- */

kvant_status kvant_folder_add_linear(kvant_folder *f, const char *from, const char *to) {
    const kvant_safetensor *w = find_suffix(f, from, ".weight"), *bias = find_suffix(f, from, ".bias");
    kvant_gguf_tensor *t;
    kvant_gguf_part *part;
    if (w) {
        const kvant_safetensor *scales = w->type == KVANT_ST_U32 ? find_suffix(f, from, ".scales") : NULL;
        const kvant_safetensor *biases = scales ? find_suffix(f, from, ".biases") : NULL;
        uint32_t type = 0;
        int64_t cols = w->dims[w->n_dims > 0 ? w->n_dims - 1 : 0];
        if (scales)
            KVANT_TRY(read_mlx_type(f, from, w, scales, biases, &type, &cols));
        else
            KVANT_TRY(read_float_type(f, w, &type));
        KVANT_TRY(add(f, to, "weight", 1, &t, &part));
        t->type = type;
        set_part(part, w, scales, biases);
        KVANT_TRY(set_dims(f, w, cols, t));
        set_strides(t, w, scales, biases);
    }
    if (!bias) return KVANT_OK;
    KVANT_TRY(add(f, to, "bias", 1, &t, &part));
    KVANT_TRY(read_float_type(f, bias, &t->type));
    set_part(part, bias, NULL, NULL);
    KVANT_TRY(set_dims(f, bias, bias->dims[bias->n_dims > 0 ? bias->n_dims - 1 : 0], t));
    set_strides(t, bias, NULL, NULL);
    return KVANT_OK;
}

static float read_float(const kvant_safetensor *t, size_t i) {
    if (t->type == KVANT_ST_F32) return kvant_bits_f32(kvant_read_u32(t->data + 4 * i));
    uint16_t half = kvant_read_u16(t->data + 2 * i);
    return t->type == KVANT_ST_F16 ? kvant_f16_to_f32(half) : kvant_bf16_to_f32(half);
}

/* Every step-th element from `first` on, plus `plus`, as floats of our own. */
static kvant_status copy_floats(kvant_folder *f, const kvant_safetensor *t, size_t first, size_t step, float plus, float **out,
                                int64_t *n) {
    uint32_t type;
    KVANT_TRY(read_float_type(f, t, &type));
    size_t total = t->bytes / (t->type == KVANT_ST_F32 ? 4 : 2);
    if (total > VECTOR_MAX)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has %zu elements, expected a vector", f->path, t->name, total);
    *n = (int64_t)((total - first + step - 1) / step);
    *out = kvant_folder_own(f, (size_t)*n, sizeof **out);
    if (!*out) return kvant_folder_no_memory(f);
    for (int64_t i = 0; i < *n; i++)
        (*out)[i] = read_float(t, first + (size_t)i * step) + plus;
    return KVANT_OK;
}

static kvant_status add_norm(kvant_folder *f, const char *from, const char *to) {
    const kvant_safetensor *w = find_suffix(f, from, ".weight");
    char name[NAME_ROOM];
    float *x;
    int64_t n;
    if (!w || !f->family->norm_plus_one) return kvant_folder_add_linear(f, from, to);
    KVANT_TRY(copy_floats(f, w, 0, 1, 1.0f, &x, &n));
    snprintf(name, sizeof name, "%s.weight", to);
    return kvant_folder_add_floats(f, name, x, n);
}

static kvant_status add_bare(kvant_folder *f, const char *from, const char *to) {
    const kvant_safetensor *w = find(f, from);
    char name[NAME_ROOM];
    float *x;
    int64_t n;
    if (!w) return KVANT_OK;
    KVANT_TRY(copy_floats(f, w, 0, 1, 0.0f, &x, &n));
    snprintf(name, sizeof name, "%s.weight", to);
    return kvant_folder_add_floats(f, name, x, n);
}

/* The name of an expert: `from` has one %d. */
static void expert_name(char out[NAME_ROOM], const char *from, int expert) {
    const char *mark = strstr(from, "%d");
    snprintf(out, NAME_ROOM, "%.*s%d%s", (int)(mark - from), from, expert, mark + 2);
}

static kvant_status add_experts(kvant_folder *f, const char *from, const char *to) {
    char name[NAME_ROOM];
    int n = 0;
    for (; n < EXPERTS_MAX; n++) {
        expert_name(name, from, n);
        if (!find_suffix(f, name, ".weight")) break;
    }
    if (n == 0) return KVANT_OK;
    kvant_gguf_tensor *t;
    kvant_gguf_part *parts;
    KVANT_TRY(add(f, to, "weight", n, &t, &parts));
    const kvant_safetensor *first = NULL, *first_scales = NULL, *first_biases = NULL;
    for (int e = 0; e < n; e++) {
        expert_name(name, from, e);
        const kvant_safetensor *w = find_suffix(f, name, ".weight"), *scales = NULL, *biases = NULL;
        uint32_t type = 0;
        int64_t cols = w->dims[w->n_dims > 0 ? w->n_dims - 1 : 0];
        if (w->type == KVANT_ST_U32) scales = find_suffix(f, name, ".scales");
        if (scales) biases = find_suffix(f, name, ".biases");
        if (scales)
            KVANT_TRY(read_mlx_type(f, name, w, scales, biases, &type, &cols));
        else
            KVANT_TRY(read_float_type(f, w, &type));
        set_part(&parts[e], w, scales, biases);
        if (e == 0) {
            first = w;
            first_scales = scales;
            first_biases = biases;
            t->type = type;
            KVANT_TRY(set_dims(f, w, cols, t));
        }
        if (w->n_dims != 2 || type != t->type || cols != t->dims[0] || w->dims[0] != first->dims[0])
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s is not a matrix of the shape and type of %s", f->path, w->name,
                              first->name);
    }
    set_strides(t, first, first_scales, first_biases);
    t->n_dims = 3;
    t->dims[2] = n;
    return KVANT_OK;
}

/* OpenAI's MXFP4: blocks [experts][rows][blocks a row][16 bytes]; step 2: every second row, from `first` on. */
static kvant_status add_blocks(kvant_folder *f, const char *from, const char *to, size_t first, size_t step) {
    const kvant_safetensor *w = find_suffix(f, from, "_blocks"), *scales = find_suffix(f, from, "_scales"),
                           *bias = find_suffix(f, from, "_bias");
    if (!w && !bias) return KVANT_OK;
    if (!w || !scales || w->type != KVANT_ST_U8 || scales->type != KVANT_ST_U8 || w->n_dims != 4 || w->dims[3] != 16 ||
        scales->n_dims != 3 || w->dims[0] != scales->dims[0] || w->dims[1] != scales->dims[1] || w->dims[2] != scales->dims[2] ||
        w->dims[1] % (int64_t)step != 0 || w->dims[0] > EXPERTS_MAX || w->dims[2] > INT32_MAX)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s_blocks and %s_scales are not MXFP4 blocks of 16 bytes with a scale each",
                          f->path, from, from);
    kvant_gguf_tensor *t;
    kvant_gguf_part *parts;
    int n = (int)w->dims[0];
    size_t row = (size_t)w->dims[2] * 16, scale_row = (size_t)w->dims[2], rows = (size_t)w->dims[1];
    KVANT_TRY(add(f, to, "weight", n, &t, &parts));
    t->type = KVANT_MLX_TYPE(4, 32, KVANT_MLX_E8M0);
    t->n_dims = 3;
    t->dims[0] = w->dims[2] * 32;
    t->dims[1] = t->part_rows = w->dims[1] / (int64_t)step;
    t->dims[2] = n;
    t->dims[3] = 1;
    for (size_t e = 0; e < (size_t)n; e++)
        parts[e] = (kvant_gguf_part){w->data + (e * rows + first) * row, scales->data + (e * rows + first) * scale_row, NULL};
    t->data = parts[0].data;
    t->row_bytes = step * row;
    t->scale_row_bytes = step * scale_row;
    t->part_bytes = (rows - step) * row + row;
    t->part_scale_bytes = (rows - step) * scale_row + scale_row;
    t->bytes = (w->bytes + scales->bytes) / step;
    if (!bias) return KVANT_OK;
    char name[NAME_ROOM];
    float *x;
    int64_t n_bias;
    if (bias->n_dims != 2 || bias->dims[0] != n || bias->dims[1] != w->dims[1])
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: %s has not one number for each row of %s", f->path, bias->name, w->name);
    KVANT_TRY(copy_floats(f, bias, first, step, 0.0f, &x, &n_bias));
    snprintf(name, sizeof name, "%s.bias", to);
    KVANT_TRY(kvant_folder_add_floats(f, name, x, n_bias));
    t = &f->tensors[f->n_tensors - 1];
    t->n_dims = 2;
    t->dims[0] = w->dims[1] / (int64_t)step;
    t->dims[1] = t->part_rows = n;
    t->row_bytes = (size_t)t->dims[0] * sizeof *x;
    return KVANT_OK;
}

static kvant_status add_form(kvant_folder *f, kvant_folder_form form, const char *from, const char *to) {
    switch (form) {
    case KVANT_FORM_LINEAR:
        return kvant_folder_add_linear(f, from, to);
    case KVANT_FORM_NORM:
        return add_norm(f, from, to);
    case KVANT_FORM_BARE:
        return add_bare(f, from, to);
    case KVANT_FORM_EXPERTS:
        return add_experts(f, from, to);
    case KVANT_FORM_BLOCKS:
        return add_blocks(f, from, to, 0, 1);
    case KVANT_FORM_BLOCKS_EVEN:
        return add_blocks(f, from, to, 0, 2);
    case KVANT_FORM_BLOCKS_ODD:
        return add_blocks(f, from, to, 1, 2);
    }
    return KVANT_OK;
}

static kvant_status add_layer(kvant_folder *f, int layer) {
    for (int l = 0; l < KVANT_FOLDER_LISTS && f->family->lists[l]; l++)
        for (const kvant_folder_name *n = f->family->lists[l]; n->from; n++) {
            char from[NAME_ROOM], to[NAME_ROOM];
            snprintf(from, sizeof from, "model.layers.%d.%s", layer, n->from);
            snprintf(to, sizeof to, "blk.%d.%s", layer, n->to);
            KVANT_TRY(add_form(f, n->form, from, to));
        }
    return KVANT_OK;
}

/* Weights of the output that the model does not use: it reads the embedding. */
static bool is_tied(const kvant_folder *f) { return json_is_true(json_object_get(f->config, "tie_word_embeddings")); }

static bool is_ignored(const kvant_folder *f, const char *name) {
    const char *inverse = "rotary_emb.inv_freq";
    size_t n = strlen(name), m = strlen(inverse);
    if (n >= m && strcmp(name + n - m, inverse) == 0) return true; /* follows from the config */
    size_t prefix = f->prefix ? strlen(f->prefix) : 0;
    if (prefix && strncmp(name, f->prefix, prefix) == 0) name += prefix;
    return is_tied(f) && strncmp(name, "lm_head.", 8) == 0;
}

static kvant_status check_all_used(kvant_folder *f) {
    for (int s = 0; s < f->n_shards; s++)
        for (int i = 0; i < f->shards[s]->n_tensors; i++) {
            const char *name = f->shards[s]->tensors[i].name;
            if (f->used[s][i] || is_ignored(f, name)) continue;
            return kvant_fail(f->err, KVANT_EUNSUPPORTED, "%s: the tensor %s has no place in a %s model as Kvant runs it",
                              f->path, name, f->family->model_type);
        }
    return KVANT_OK;
}

kvant_status kvant_folder_read_tensors(kvant_folder *f) {
    for (const kvant_folder_name *n = kvant_folder_top_names; n->from; n++) {
        if (strcmp(n->from, "lm_head") == 0 && is_tied(f)) continue;
        KVANT_TRY(add_form(f, n->form, n->from, n->to));
    }
    if (json_is_false(json_object_get(f->config, "tie_word_embeddings")) && !find(f, "lm_head.weight"))
        return kvant_fail(f->err, KVANT_EFORMAT,
                          "%s: lm_head.weight is missing, and config.json says that the embedding is not used for it", f->path);
    for (int i = 0; i < f->n_layer; i++)
        KVANT_TRY(add_layer(f, i));
    if (f->whole) KVANT_TRY(kvant_folder_read_vision_tensors(f));
    return check_all_used(f);
}

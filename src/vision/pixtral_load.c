// SPDX-License-Identifier: MIT
/* pixtral_load.c: the numbers and weights of a Pixtral tower, every one checked. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "vision/pixtral_internal.h"

typedef struct loader {
    const kvant_gguf *f;
    kvant_pixtral *t;
    kvant_error *err;
} loader;

bool kvant_vision_is_there(const kvant_gguf *f) {
    return kvant_gguf_find(f, "clip.projector_type") || kvant_gguf_find(f, "clip.vision.projector_type") ||
           kvant_gguf_find(f, "clip.has_vision_encoder") || kvant_gguf_find_tensor(f, "v.patch_embd.weight");
}

/* ---- numbers ---- */

static kvant_status read_whole(const loader *l, const char *key, uint32_t low, uint32_t high, int *out) {
    uint32_t value;
    KVANT_TRY(kvant_gguf_u32(l->f, key, &value, l->err));
    if (value < low || value > high)
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: %s is %u, expected %u to %u", l->f->path, key, value, low, high);
    *out = (int)value;
    return KVANT_OK;
}

static kvant_status read_colours(const loader *l, const char *key, float low, float out[3]) {
    const kvant_gguf_value *v = kvant_gguf_find(l->f, key);
    if (!v || v->type != KVANT_GGUF_ARRAY || v->n_elements != 3 ||
        (v->element_type != KVANT_GGUF_F32 && v->element_type != KVANT_GGUF_F64))
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: %s is not an array of three floats", l->f->path, key);
    for (int i = 0; i < 3; i++) {
        out[i] = kvant_gguf_array_f32(v, (uint64_t)i);
        if (!(out[i] >= low && out[i] <= 1e3f))
            return kvant_fail(l->err, KVANT_EFORMAT, "%s: %s has %g, expected %g to 1000", l->f->path, key, (double)out[i],
                              (double)low);
    }
    return KVANT_OK;
}

static kvant_status check_projector(const loader *l) {
    const char *key = kvant_gguf_find(l->f, "clip.vision.projector_type") ? "clip.vision.projector_type" : "clip.projector_type";
    kvant_text type;
    uint32_t merge;
    KVANT_TRY(kvant_gguf_string(l->f, key, &type, l->err));
    char shown[40];
    size_t n = type.size < sizeof shown ? type.size : sizeof shown - 1;
    for (size_t i = 0; i < n; i++)
        shown[i] = type.data[i] >= 0x20 && type.data[i] < 0x7F ? type.data[i] : '?';
    shown[n] = '\0';
    if (strcmp(shown, "pixtral") != 0)
        return kvant_fail(l->err, KVANT_EUNSUPPORTED,
                          "%s: its pictures are read by %s; Kvant runs vision models of the kind pixtral", l->f->path, shown);
    KVANT_TRY(kvant_gguf_u32_or(l->f, "clip.vision.spatial_merge_size", 1, &merge, l->err));
    if (merge > 1 || kvant_gguf_find_tensor(l->f, "mm.patch_merger.weight"))
        return kvant_fail(l->err, KVANT_EUNSUPPORTED,
                          "%s: patches are merged (clip.vision.spatial_merge_size, %u, or mm.patch_merger), which Kvant does not "
                          "support",
                          l->f->path, merge);
    return KVANT_OK;
}

static kvant_status read_numbers(const loader *l) {
    kvant_pixtral *t = l->t;
    float base;
    uint32_t pairs, head_dim;
    KVANT_TRY(check_projector(l));
    KVANT_TRY(read_whole(l, "clip.vision.block_count", 1, 512, &t->n_layer));
    KVANT_TRY(read_whole(l, "clip.vision.embedding_length", 1, 1 << 16, &t->n_embd));
    KVANT_TRY(read_whole(l, "clip.vision.feed_forward_length", 1, 1 << 18, &t->n_ff));
    KVANT_TRY(read_whole(l, "clip.vision.attention.head_count", 1, 1024, &t->n_head));
    KVANT_TRY(read_whole(l, "clip.vision.patch_size", 1, 256, &t->rules.patch));
    KVANT_TRY(read_whole(l, "clip.vision.image_size", 1, 1 << 14, &t->rules.longest_edge));
    KVANT_TRY(kvant_gguf_u32_or(l->f, "kvant.vision.head_dim", (uint32_t)(t->n_embd / t->n_head), &head_dim, l->err));
    KVANT_TRY(kvant_gguf_f32_or(l->f, "clip.vision.attention.layer_norm_epsilon", 1e-5f, &t->eps, l->err));
    KVANT_TRY(kvant_gguf_f32_or(l->f, "kvant.vision.rope.freq_base", 1e4f, &base, l->err));
    KVANT_TRY(kvant_gguf_u32_or(l->f, "kvant.vision.rope.pairs", 0, &pairs, l->err));
    KVANT_TRY(read_colours(l, "clip.vision.image_mean", -1e3f, t->rules.mean));
    KVANT_TRY(read_colours(l, "clip.vision.image_std", 1e-6f, t->rules.deviation));
    if (head_dim < 4 || head_dim > 512 || head_dim % 4 != 0)
        return kvant_fail(l->err, KVANT_EFORMAT,
                          "%s: the vision model's heads have %u elements, expected a multiple of 4 up to 512", l->f->path,
                          head_dim);
    if (!(t->eps >= 0 && t->eps < 1) || !(base > 1 && base < 1e12f))
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: the vision model's epsilon is %g and its RoPE's base %g", l->f->path,
                          (double)t->eps, (double)base);
    int side = (t->rules.longest_edge - 1) / t->rules.patch + 1;
    if (side * side > KVANT_PIXTRAL_MAX_PATCHES)
        return kvant_fail(l->err, KVANT_EUNSUPPORTED, "%s: pictures of %d pixels have %d patches of %d, expected at most %d",
                          l->f->path, t->rules.longest_edge, side * side, t->rules.patch, KVANT_PIXTRAL_MAX_PATCHES);
    t->head_dim = (int)head_dim;
    t->rope_base = (double)base;
    t->halves = pairs != 0;
    return KVANT_OK;
}

/* ---- weights ---- */

static kvant_status find(const loader *l, const char *name, const kvant_gguf_tensor **out) {
    *out = kvant_gguf_find_tensor(l->f, name);
    if (*out) return KVANT_OK;
    return kvant_fail(l->err, KVANT_EFORMAT, "%s: the tensor %s is missing, which a pixtral vision model has", l->f->path, name);
}

/* rows x cols of a tensor of one part; its shape was checked. */
static kvant_status source_of(const loader *l, const kvant_gguf_tensor *t, const char *name, int64_t rows, int64_t cols,
                              kvant_weight_source *out) {
    kvant_weight_traits traits;
    size_t row;
    if (!kvant_weight_type_traits(t->type, &traits))
        return kvant_fail(l->err, KVANT_EUNSUPPORTED, "%s: %s is stored as type %u, which Kvant does not read", l->f->path, name,
                          t->type);
    if (kvant_weight_row_bytes(t->type, cols, &row) != KVANT_OK)
        return kvant_fail(l->err, KVANT_EFORMAT,
                          "%s: %s is %s, whose rows are multiples of %d elements, but it has rows of %" PRId64, l->f->path, name,
                          traits.name, traits.block_elements, cols);
    if (t->n_parts > 1 || t->bytes / row < (size_t)rows)
        return kvant_fail(l->err, KVANT_EFORMAT, "%s: %s needs %" PRId64 " rows of %zu bytes, the file holds %zu bytes",
                          l->f->path, name, rows, row, t->bytes);
    *out = (kvant_weight_source){.type = t->type, .data = t->data, .row_bytes = row};
    if (t->parts) {
        out->data = t->parts[0].data;
        out->scales = t->parts[0].scales;
        out->biases = t->parts[0].biases;
        out->scale_row_bytes = t->scale_row_bytes;
    }
    return KVANT_OK;
}

static kvant_status wrong_shape(const loader *l, const kvant_gguf_tensor *t, const char *name, int64_t cols, int64_t rows) {
    return kvant_fail(l->err, KVANT_EFORMAT,
                      "%s: %s should be %" PRId64 " x %" PRId64 ", found %" PRId64 " x %" PRId64 " x %" PRId64 " x %" PRId64,
                      l->f->path, name, cols, rows, t->dims[0], t->dims[1], t->dims[2], t->dims[3]);
}

static kvant_status repack(const loader *l, const kvant_gguf_tensor *t, const char *name, int64_t rows, int64_t cols,
                           kvant_weight **out) {
    kvant_weight_source source;
    KVANT_TRY(source_of(l, t, name, rows, cols, &source));
    KVANT_TRY(kvant_weight_create_from(l->t->ctx, &source, rows, cols, out, l->err));
    l->t->bytes += kvant_weight_bytes(*out);
    kvant_gguf_drop(l->f, t);
    return KVANT_OK;
}

static kvant_status load_matrix(const loader *l, const char *name, int64_t rows, int64_t cols, kvant_weight **out) {
    const kvant_gguf_tensor *t;
    KVANT_TRY(find(l, name, &t));
    if (t->dims[0] != cols || t->dims[1] != rows || t->dims[2] != 1 || t->dims[3] != 1)
        return wrong_shape(l, t, name, cols, rows);
    return repack(l, t, name, rows, cols, out);
}

static kvant_status load_vector(const loader *l, const char *name, int64_t n, bool required, float **out) {
    const kvant_gguf_tensor *t = kvant_gguf_find_tensor(l->f, name);
    kvant_weight_source source;
    if (!t && !required) return KVANT_OK;
    KVANT_TRY(find(l, name, &t));
    if (t->dims[0] != n || t->dims[1] != 1 || t->dims[2] != 1 || t->dims[3] != 1) return wrong_shape(l, t, name, n, 1);
    KVANT_TRY(source_of(l, t, name, 1, n, &source));
    float *x = kvant_alloc_aligned((size_t)n, sizeof *x);
    if (!x) return kvant_fail(l->err, KVANT_ENOMEM, "%s: no memory for %s", l->f->path, name);
    *out = x;
    l->t->bytes += (size_t)n * sizeof *x;
    kvant_weight_decode_source(&source, 0, n, x);
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]))
            return kvant_fail(l->err, KVANT_EFORMAT, "%s: element %" PRId64 " of %s is not a finite number", l->f->path, i, name);
    return KVANT_OK;
}

/* [out][y][x][colour] (MLX) or [out][colour][y][x]: a row of numbers for each output, either way. */
static kvant_status load_patch(const loader *l) {
    static const char *const name = "v.patch_embd.weight";
    const kvant_gguf_tensor *t;
    kvant_pixtral *p = l->t;
    int64_t side = p->rules.patch, out = p->n_embd;
    KVANT_TRY(find(l, name, &t));
    bool first = t->dims[0] == side && t->dims[1] == side && t->dims[2] == 3,
         last = t->dims[0] == 3 && t->dims[1] == side && t->dims[2] == side;
    if ((!first && !last) || t->dims[3] != out || t->type >= 0x10000) return wrong_shape(l, t, name, side * side * 3, out);
    p->channels_last = !first;
    return repack(l, t, name, out, side * side * 3, &p->patch);
}

static const char *layer_name(char name[64], int layer, const char *what) {
    snprintf(name, 64, "v.blk.%d.%s.weight", layer, what);
    return name;
}

static kvant_status load_layer(const loader *l, int i) {
    kvant_pixtral *t = l->t;
    kvant_pixtral_layer *y = &t->layers[i];
    int64_t n = t->n_embd, width = (int64_t)t->n_head * t->head_dim, ff = t->n_ff;
    char s[64];
    KVANT_TRY(load_vector(l, layer_name(s, i, "ln1"), n, true, &y->attn_norm));
    KVANT_TRY(load_vector(l, layer_name(s, i, "ln2"), n, true, &y->ffn_norm));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "attn_q"), width, n, &y->q));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "attn_k"), width, n, &y->k));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "attn_v"), width, n, &y->v));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "attn_out"), n, width, &y->o));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "ffn_gate"), ff, n, &y->gate));
    KVANT_TRY(load_matrix(l, layer_name(s, i, "ffn_up"), ff, n, &y->up));
    return load_matrix(l, layer_name(s, i, "ffn_down"), n, ff, &y->down);
}

static kvant_status load_projector(const loader *l) {
    kvant_pixtral *t = l->t;
    const kvant_gguf_tensor *first;
    KVANT_TRY(find(l, "mm.1.weight", &first));
    if (first->dims[1] < 1 || first->dims[1] > 1 << 18) return wrong_shape(l, first, "mm.1.weight", t->n_embd, t->n_text);
    t->n_projector = (int)first->dims[1];
    KVANT_TRY(load_matrix(l, "mm.1.weight", t->n_projector, t->n_embd, &t->in));
    KVANT_TRY(load_matrix(l, "mm.2.weight", t->n_text, t->n_projector, &t->out));
    KVANT_TRY(load_vector(l, "mm.1.bias", t->n_projector, false, &t->in_bias));
    return load_vector(l, "mm.2.bias", t->n_text, false, &t->out_bias);
}

static kvant_status load_all(const loader *l) {
    kvant_pixtral *t = l->t;
    KVANT_TRY(read_numbers(l));
    t->layers = kvant_alloc((size_t)t->n_layer, sizeof *t->layers);
    if (!t->layers) return kvant_fail(l->err, KVANT_ENOMEM, "%s: no memory for its vision model", l->f->path);
    KVANT_TRY(load_patch(l));
    KVANT_TRY(load_vector(l, "v.pre_ln.weight", t->n_embd, true, &t->pre_norm));
    for (int i = 0; i < t->n_layer; i++)
        KVANT_TRY(load_layer(l, i));
    return load_projector(l);
}

kvant_status kvant_pixtral_load(kvant_context *ctx, const kvant_gguf *f, int n_text, kvant_pixtral **out, kvant_error *err) {
    kvant_pixtral *t = kvant_alloc(1, sizeof *t);
    if (!t) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for its vision model", f->path);
    t->ctx = ctx;
    t->n_text = n_text;
    loader l = {f, t, err};
    kvant_status st = load_all(&l);
    if (st != KVANT_OK) {
        kvant_pixtral_destroy(t);
        return st;
    }
    *out = t;
    return KVANT_OK;
}

void kvant_pixtral_destroy(kvant_pixtral *t) {
    if (!t) return;
    for (int i = 0; t->layers && i < t->n_layer; i++) {
        kvant_pixtral_layer *y = &t->layers[i];
        kvant_weight *all[] = {y->q, y->k, y->v, y->o, y->gate, y->up, y->down};
        for (size_t k = 0; k < sizeof all / sizeof *all; k++)
            kvant_weight_destroy(all[k]);
        kvant_free_aligned(y->attn_norm);
        kvant_free_aligned(y->ffn_norm);
    }
    kvant_weight_destroy(t->patch);
    kvant_weight_destroy(t->in);
    kvant_weight_destroy(t->out);
    kvant_free_aligned(t->pre_norm);
    kvant_free_aligned(t->in_bias);
    kvant_free_aligned(t->out_bias);
    kvant_free(t->layers);
    kvant_free(t);
}

const kvant_pixtral_rules *kvant_pixtral_get_rules(const kvant_pixtral *t) { return &t->rules; }

size_t kvant_pixtral_bytes(const kvant_pixtral *t) { return t->bytes; }

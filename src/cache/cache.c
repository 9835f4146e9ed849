// SPDX-License-Identifier: MIT
/* cache.c: a cache: the layers of a model, the formats of K and V, and the bytes they take. */
#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "cache/calibration.h"
#include "cache/page.h"

#define LAYERS_MAX 4096
#define KV_HEADS_MAX 4096
#define TOKENS KVANT_PAGE_TOKENS

void kvant_cache_config_default(kvant_cache_config *config) {
    *config = (kvant_cache_config){.k = {KVANT_CODEC_F16, 0, 0, false}, .v = {KVANT_CODEC_F16, 0, 0, false}};
}

static kvant_page_layout make_layout(const kvant_format *k, const kvant_format *v, int n_kv_head, int head_dim, int n_exact) {
    kvant_page_layout l = {kvant_part_make(k, KVANT_SIDE_K, head_dim), kvant_part_make(v, KVANT_SIDE_V, head_dim), n_kv_head,
                           n_exact, 0};
    l.bytes = KVANT_PAGE_HEADER + (size_t)n_kv_head * (l.k.bytes + l.v.bytes + 4 * (size_t)n_exact * (size_t)head_dim);
    return l;
}

static const kvant_format *layer_k(const kvant_cache_config *c, int layer) { return c->layer_k ? &c->layer_k[layer] : &c->k; }

static const kvant_format *layer_v(const kvant_cache_config *c, int layer) { return c->layer_v ? &c->layer_v[layer] : &c->v; }

/* The layouts of a layer's first page and of its others. */
static void make_layouts(const kvant_cache_config *c, int layer, kvant_page_layout out[2]) {
    const kvant_format *k = layer_k(c, layer), *v = layer_v(c, layer);
    bool keeps = kvant_format_is_own(k) || kvant_format_is_own(v) || kvant_format_is_centred(k);
    out[0] = make_layout(k, v, c->n_kv_head, c->head_dim, keeps ? KVANT_SINK_TOKENS : 0);
    out[1] = make_layout(k, v, c->n_kv_head, c->head_dim, 0);
}

/* A layer's own window and max_kv_size both limit what a query sees; the smaller one counts. */
static kvant_window layer_window(const kvant_cache_config *c, int layer) {
    kvant_window w = {c->layer_window ? c->layer_window[layer] : 0, 0};
    if (c->max_kv_size > 0 && (w.size == 0 || w.size > c->max_kv_size - KVANT_SINK_TOKENS))
        w = (kvant_window){c->max_kv_size - KVANT_SINK_TOKENS, KVANT_SINK_TOKENS};
    return w;
}

static kvant_status check_range(const char *field, int64_t found, int64_t min, int64_t max, kvant_error *err) {
    if (found >= min && found <= max) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "%s: found %lld, expected %lld to %lld", field, (long long)found, (long long)min,
                      (long long)max);
}

static kvant_status check_config(const kvant_cache_config *c, kvant_error *err) {
    KVANT_TRY(check_range("n_layer", c->n_layer, 1, LAYERS_MAX, err));
    KVANT_TRY(check_range("n_kv_head", c->n_kv_head, 1, KV_HEADS_MAX, err));
    KVANT_TRY(check_range("head_dim", c->head_dim, 1, KVANT_HEAD_DIM_MAX, err));
    KVANT_TRY(check_range("quantized_kv_start", c->quantized_kv_start, 0, INT_MAX, err));
    if (c->max_kv_size != 0) KVANT_TRY(check_range("max_kv_size", c->max_kv_size, KVANT_SINK_TOKENS + 1, INT_MAX, err));
    for (int i = 0; c->layer_window && i < c->n_layer; i++)
        KVANT_TRY(check_range("layer_window", c->layer_window[i], 0, INT_MAX, err));
    bool centred = c->center_floats;
    for (int i = 0; i < c->n_layer; i++) {
        const kvant_format *k = layer_k(c, i), *v = layer_v(c, i);
        char name[KVANT_FORMAT_NAME_MAX];
        kvant_format_name(v, name);
        KVANT_TRY(kvant_format_check(k, c->head_dim, err));
        KVANT_TRY(kvant_format_check(v, c->head_dim, err));
        if (v->codec == KVANT_CODEC_ZONE)
            return kvant_fail(err, KVANT_EUNSUPPORTED, "format %s: is for K only; the nearest format of V is bc%d", name,
                              v->bits);
        if (v->bare) return kvant_fail(err, KVANT_EINVAL, "format %s: only K can be .bare; V is never centred", name);
        centred = centred || kvant_format_is_centred(k);
    }
    if (centred && c->calibration) return kvant_calibration_check(c->calibration, c->n_layer, c->n_kv_head, c->head_dim, err);
    return KVANT_OK;
}

/* A centred format without a calibration would store keys as badly as any other. */
static kvant_status require_calibration(const kvant_cache_config *c, kvant_error *err) {
    for (int i = 0; i < c->n_layer && !c->calibration; i++) {
        char name[KVANT_FORMAT_NAME_MAX], nearest[KVANT_FORMAT_NAME_MAX];
        kvant_format bare = *layer_k(c, i);
        kvant_format_name(&bare, name);
        if (!kvant_format_is_centred(&bare)) continue;
        if (bare.codec == KVANT_CODEC_ZONE) bare.codec = KVANT_CODEC_BOOK;
        bare.bare = true;
        kvant_format_name(&bare, nearest);
        return kvant_fail(err, KVANT_EINVAL,
                          "format %s: K is stored without its mean, which a calibration of the model tells; give one "
                          "(kvant_calibration_create), or choose %s",
                          name, nearest);
    }
    if (c->center_floats && !c->calibration) return kvant_fail(err, KVANT_EINVAL, "center_floats: needs a calibration");
    return KVANT_OK;
}

/* Formats for which values must not be rounded to half precision before they are converted. */
static bool keeps_floats(const kvant_format *f) { return f->codec == KVANT_CODEC_F32 || f->codec == KVANT_CODEC_AFFINE_F32; }

static bool is_f16(const kvant_format *f) { return f->codec == KVANT_CODEC_F16; }

kvant_status kvant_cache_create(kvant_context *ctx, const kvant_cache_config *config, kvant_cache **out, kvant_error *err) {
    KVANT_TRY(check_config(config, err));
    KVANT_TRY(require_calibration(config, err));
    size_t n_layer = (size_t)config->n_layer;
    bool wants_floats = false;
    kvant_cache *c = kvant_alloc(1, sizeof *c);
    if (!c) return kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
    c->windows = kvant_alloc(n_layer, sizeof *c->windows);
    c->packed = kvant_alloc(n_layer, 2 * sizeof *c->packed);
    kvant_format *k = kvant_alloc(n_layer, 2 * sizeof *k), *v = k ? k + n_layer : NULL;
    kvant_status st = c->windows && c->packed && k ? KVANT_OK : KVANT_ENOMEM;
    for (int i = 0; i < config->n_layer && st == KVANT_OK; i++) {
        k[i] = *layer_k(config, i);
        v[i] = *layer_v(config, i);
        c->windows[i] = layer_window(config, i);
        make_layouts(config, i, &c->packed[2 * i]);
        c->quantizes = c->quantizes || !is_f16(&k[i]) || !is_f16(&v[i]);
        wants_floats = wants_floats || keeps_floats(&k[i]) || keeps_floats(&v[i]);
    }
    if (st == KVANT_OK) st = kvant_transforms_create(config, k, v, &c->transforms);
    kvant_free(k);
    if (st != KVANT_OK) {
        kvant_cache_destroy(c);
        return kvant_fail(err, st, "cache: out of memory");
    }
    const kvant_format plain = {config->quantize_after_step && wants_floats ? KVANT_CODEC_F32 : KVANT_CODEC_F16, 0, 0, false};
    c->ctx = ctx;
    c->config = *config;
    c->config.layer_window = NULL;
    c->config.layer_k = c->config.layer_v = NULL;
    c->config.calibration = NULL;
    c->plain = make_layout(&plain, &plain, config->n_kv_head, config->head_dim, 0);
    *out = c;
    return KVANT_OK;
}

void kvant_cache_destroy(kvant_cache *c) {
    if (!c) return;
    assert(c->n_sequences == 0);
    if (c->attend_scratch) c->attend_scratch_destroy(c->attend_scratch);
    kvant_transforms_destroy(&c->transforms);
    kvant_free(c->windows);
    kvant_free(c->packed);
    kvant_free(c);
}

size_t kvant_cache_bytes(const kvant_cache *c) { return c->bytes; }

size_t kvant_cache_bytes_for(const kvant_cache_config *config, int64_t n_tokens) {
    if (check_config(config, NULL) != KVANT_OK || n_tokens <= 0) return 0;
    size_t bytes = 0;
    for (int i = 0; i < config->n_layer; i++) {
        kvant_window w = layer_window(config, i);
        int64_t n = (n_tokens + TOKENS - 1) / TOKENS, dropped = 0;
        if (w.size > 0 && n_tokens > w.size) dropped = (n_tokens - w.size) / TOKENS;
        if (w.keep > 0 && dropped > 0) dropped--;
        kvant_page_layout l[2];
        make_layouts(config, i, l);
        bool has_first = dropped == 0 || w.keep > 0;
        bytes += (size_t)(n - dropped - has_first) * l[1].bytes + (has_first ? l[0].bytes : 0);
    }
    return bytes;
}

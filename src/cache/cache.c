// SPDX-License-Identifier: MIT
/* cache.c: a cache: the layers of a model, the formats of K and V, and the bytes they take. */
#include <assert.h>
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "cache/page.h"

#define LAYERS_MAX 4096
#define KV_HEADS_MAX 4096
#define TOKENS KVANT_PAGE_TOKENS

void kvant_cache_config_default(kvant_cache_config *config) {
    *config = (kvant_cache_config){.k = {KVANT_CODEC_F16, 0, 0}, .v = {KVANT_CODEC_F16, 0, 0}};
}

static kvant_page_layout make_layout(const kvant_format *k, const kvant_format *v, int n_kv_head, int head_dim) {
    kvant_page_layout l = {kvant_part_make(k, KVANT_SIDE_K, head_dim), kvant_part_make(v, KVANT_SIDE_V, head_dim), n_kv_head, 0};
    l.bytes = KVANT_PAGE_HEADER + (size_t)n_kv_head * (l.k.bytes + l.v.bytes);
    return l;
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
    KVANT_TRY(kvant_format_check(&c->k, c->head_dim, err));
    return kvant_format_check(&c->v, c->head_dim, err);
}

kvant_status kvant_cache_create(kvant_context *ctx, const kvant_cache_config *config, kvant_cache **out, kvant_error *err) {
    KVANT_TRY(check_config(config, err));
    kvant_cache *c = kvant_alloc(1, sizeof *c);
    kvant_window *windows = kvant_alloc((size_t)config->n_layer, sizeof *windows);
    if (!c || !windows) {
        kvant_free(c);
        kvant_free(windows);
        return kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
    }
    const kvant_format f16 = {KVANT_CODEC_F16, 0, 0};
    c->ctx = ctx;
    c->config = *config;
    c->config.layer_window = NULL;
    c->windows = windows;
    for (int i = 0; i < config->n_layer; i++)
        windows[i] = layer_window(config, i);
    c->plain = make_layout(&f16, &f16, config->n_kv_head, config->head_dim);
    c->packed = make_layout(&config->k, &config->v, config->n_kv_head, config->head_dim);
    c->quantizes = config->k.codec != KVANT_CODEC_F16 || config->v.codec != KVANT_CODEC_F16;
    *out = c;
    return KVANT_OK;
}

void kvant_cache_destroy(kvant_cache *c) {
    if (!c) return;
    assert(c->n_sequences == 0);
    if (c->attend_scratch) c->attend_scratch_destroy(c->attend_scratch);
    kvant_free(c->windows);
    kvant_free(c);
}

size_t kvant_cache_bytes(const kvant_cache *c) { return c->bytes; }

size_t kvant_cache_bytes_for(const kvant_cache_config *config, int64_t n_tokens) {
    if (check_config(config, NULL) != KVANT_OK || n_tokens <= 0) return 0;
    kvant_page_layout l = make_layout(&config->k, &config->v, config->n_kv_head, config->head_dim);
    size_t pages = 0;
    for (int i = 0; i < config->n_layer; i++) {
        kvant_window w = layer_window(config, i);
        int64_t n = (n_tokens + TOKENS - 1) / TOKENS, dropped = 0;
        if (w.size > 0 && n_tokens > w.size) dropped = (n_tokens - w.size) / TOKENS;
        if (w.keep > 0 && dropped > 0) dropped--;
        pages += (size_t)(n - dropped);
    }
    return pages * l.bytes;
}

// SPDX-License-Identifier: MIT
/* store_test.h: what the tests of the store share: caches of many kinds, sequences whose content follows from their tokens alone,
 * and comparing pages bit by bit. */
#ifndef KVANT_STORE_TEST_H
#define KVANT_STORE_TEST_H

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/page.h"
#include "kvant/kvant.h"

#define ROW_MAX 512
#define TOKENS_MAX 4096

/* What a cache is made of. */
typedef struct rig {
    kvant_context *ctx;
    kvant_calibration *calibration;
    kvant_cache *cache;
    kvant_store *store;
    kvant_cache_config config;
    int n_layer, n_kv_head, head_dim;
    int windows[32];
    kvant_format k[32], v[32];
} rig;

static inline void expect_ok(kvant_status st, const kvant_error *err) {
    if (st != KVANT_OK) fail_msg("%s: %s", kvant_status_name(st), err->message);
}

static inline float noise(uint64_t x) {
    x = (x + 1) * 0x9E3779B97F4A7C15u;
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
    x = (x ^ x >> 27) * 0x94D049BB133111EBu;
    return (float)((x >> 40) & 0xFFFF) / 32768.0f - 1.0f;
}

static inline void make_row(int32_t id, int64_t position, int layer, int n, float *k, float *v) {
    for (int i = 0; i < n; i++) {
        uint64_t at = ((uint64_t)(uint32_t)id << 32) + (uint64_t)position * 8192 + (uint64_t)layer * 1024 + (uint64_t)i;
        k[i] = noise(at) + (float)(i % 5);
        v[i] = noise(~at);
    }
}

static inline kvant_calibration *make_calibration(int n_layer, int n_kv_head, int head_dim) {
    static double frequency[128];
    static float k[300 * ROW_MAX], v[ROW_MAX];
    for (int i = 0; i < head_dim / 2; i++)
        frequency[i] = pow(10000, -2.0 * i / head_dim);
    kvant_rope_config rope = {head_dim, false, 1.0f, frequency};
    kvant_calibration_config config = {n_layer, n_kv_head, n_kv_head, head_dim, 1, &rope, NULL};
    kvant_calibration *c = NULL;
    assert_int_equal(kvant_calibration_create(&config, &c, NULL), KVANT_OK);
    for (int layer = 0; layer < n_layer; layer++) {
        for (int t = 0; t < 300; t++)
            make_row(t, t, layer, n_kv_head * head_dim, k + t * n_kv_head * head_dim, v);
        assert_int_equal(kvant_calibration_add(c, layer, 0, k, k, 300), KVANT_OK);
    }
    assert_int_equal(kvant_calibration_finish(c, NULL), KVANT_OK);
    return c;
}

/* kv: a pair for all layers, or several with spaces between them, which the layers take in turn. */
static inline void rig_create(rig *r, const char *kv, int n_layer, int n_kv_head, int head_dim) {
    char names[256], *rest = names;
    int n = 0;
    kvant_error err = {0};
    *r = (rig){.n_layer = n_layer, .n_kv_head = n_kv_head, .head_dim = head_dim};
    expect_ok(kvant_context_create(2, KVANT_ISA_BEST, &r->ctx, &err), &err);
    r->calibration = make_calibration(n_layer, n_kv_head, head_dim);
    kvant_cache_config_default(&r->config);
    snprintf(names, sizeof names, "%s", kv);
    for (char *name; (name = strtok(rest, " ")) != NULL; rest = NULL, n++)
        expect_ok(kvant_format_parse_pair(name, &r->k[n], &r->v[n], &err), &err);
    for (int i = n; i < n_layer; i++) {
        r->k[i] = r->k[i % n];
        r->v[i] = r->v[i % n];
    }
    r->config.n_layer = n_layer;
    r->config.n_kv_head = n_kv_head;
    r->config.head_dim = head_dim;
    r->config.k = r->k[0];
    r->config.v = r->v[0];
    r->config.layer_k = r->k;
    r->config.layer_v = r->v;
    r->config.layer_window = r->windows;
    r->config.calibration = r->calibration;
}

/* After windows and the rest of the configuration were set. */
static inline void rig_open(rig *r, const char *folder, uint64_t max_bytes) {
    kvant_error err = {0};
    kvant_store_config config = {.folder = folder, .max_bytes = max_bytes, .fingerprint = {1, 2, 3}, .label = "test model, test formats"};
    if (!r->cache) expect_ok(kvant_cache_create(r->ctx, &r->config, &r->cache, &err), &err);
    expect_ok(kvant_store_open(r->cache, &config, &r->store, &err), &err);
}

static inline void rig_close(rig *r) {
    kvant_store_close(r->store);
    assert_int_equal(kvant_cache_bytes(r->cache), 0);
    kvant_cache_destroy(r->cache);
    kvant_calibration_destroy(r->calibration);
    kvant_context_destroy(r->ctx);
}

/* Windows keep what the last full block needs, as whoever wants to put a sequence must ask for. */
static inline void append_tokens(const rig *r, kvant_sequence *s, const int32_t *ids, int64_t n) {
    static float k[64 * ROW_MAX], v[64 * ROW_MAX];
    int row = r->n_kv_head * r->head_dim;
    for (int64_t at = kvant_sequence_length(s); at < n;) {
        int step = n - at < 64 ? (int)(n - at) : 64;
        kvant_sequence_hold(s, (at + step) / 64 * 64);
        for (int layer = 0; layer < r->n_layer; layer++) {
            for (int t = 0; t < step; t++)
                make_row(ids[at + t], at + t, layer, row, k + t * row, v + t * row);
            assert_int_equal(kvant_sequence_append(s, layer, k, v, step), KVANT_OK);
        }
        at += step;
        assert_int_equal(kvant_maybe_quantize_kv_cache(s, NULL), KVANT_OK);
    }
}

static inline kvant_sequence *make_sequence(const rig *r, const int32_t *ids, int64_t n) {
    kvant_sequence *s = NULL;
    assert_int_equal(kvant_sequence_create(r->cache, &s), KVANT_OK);
    append_tokens(r, s, ids, n);
    return s;
}

/* Tokens of conversation `which`: all have the first n_common in common. */
static inline void make_ids(int32_t *ids, int n, int which, int n_common) {
    for (int i = 0; i < n; i++)
        ids[i] = i < n_common ? i * 31 % 1000 : (i * 17 + which * 7919) % 50000;
}

/* Slots behind the last token hold whatever was truncated. */
static inline bool same_page(const kvant_cache *cache, const kvant_page *x, const kvant_page *y, int n) {
    if (!x || !y || x->layout->bytes != y->layout->bytes) return false;
    if (n >= KVANT_PAGE_TOKENS)
        return memcmp((const uint8_t *)x + KVANT_PAGE_HEADER, (const uint8_t *)y + KVANT_PAGE_HEADER,
                      x->layout->bytes - KVANT_PAGE_HEADER) == 0;
    for (int slot = 0; slot < n; slot++) {
        for (int head = 0; head < x->layout->n_kv_head; head++) {
            float a[2][KVANT_HEAD_DIM_MAX] = {{0}}, b[2][KVANT_HEAD_DIM_MAX] = {{0}};
            kvant_page_get(x, head, slot, a[0], a[1], cache->ctx->kernels);
            kvant_page_get(y, head, slot, b[0], b[1], cache->ctx->kernels);
            if (memcmp(a, b, sizeof a) != 0) return false;
        }
    }
    return true;
}

/* Whether a sequence that was taken holds what the same tokens give when they are appended, bit for bit. */
static inline bool is_right(const rig *r, const kvant_sequence *got, const int32_t *ids) {
    int64_t n = kvant_sequence_length(got);
    kvant_sequence *want = make_sequence(r, ids, n);
    bool same = true;
    for (int layer = 0; layer < r->n_layer; layer++) {
        const kvant_page_list *a = &got->layers[layer], *b = &want->layers[layer];
        same = same && a->n_pages == b->n_pages && a->length == b->length;
        for (int i = 0; same && i < a->n_pages; i++) {
            if (!kvant_cache_needs(r->cache, layer, i, n)) continue;
            same = same_page(r->cache, a->pages[i], b->pages[i], n - i * 64 < 64 ? (int)(n - i * 64) : 64);
        }
    }
    kvant_sequence_destroy(want);
    return same;
}

/* Takes ids [n] and checks that exactly `expected` tokens come, and that they and all that follows them are right. */
static inline void expect_take(rig *r, const int32_t *ids, int64_t n, int64_t expected) {
    kvant_sequence *s = NULL;
    kvant_prefix_match match;
    kvant_error err = {0};
    expect_ok(kvant_store_take(r->store, NULL, 0, ids, n, &s, &match, &err), &err);
    assert_int_equal(kvant_sequence_length(s), expected);
    assert_int_equal(match.n_usable, expected);
    assert_true(is_right(r, s, ids));
    append_tokens(r, s, ids, n);
    assert_true(is_right(r, s, ids));
    kvant_sequence_destroy(s);
}

static inline void put(rig *r, const int32_t *ids, int64_t n) {
    kvant_error err = {0};
    kvant_sequence *s = make_sequence(r, ids, n);
    expect_ok(kvant_store_put(r->store, s, ids, &err), &err);
    kvant_sequence_destroy(s);
}

#endif

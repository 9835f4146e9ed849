// SPDX-License-Identifier: MIT
/* page.h: pages and sequences, as src/cache keeps them and src/attn reads them (private to Kvant).
 *
 * Invariants: a full page never changes; a page with more than one reference is never written; pages[i] of a layer holds the
 * tokens [64 i, 64 i + 64), or is NULL when a window dropped it. */
#ifndef KVANT_CACHE_PAGE_H
#define KVANT_CACHE_PAGE_H

#include "base/context.h"
#include "cache/transform.h"

/* Where the parts of a page lie: K of every KV head, then V of every KV head, after a header of 64 bytes; then, in the first page of
 * a sequence, the first n_exact tokens in full precision, binary16: for every KV head K [n_exact][head_dim], then V. Their slots in
 * the parts stay zero. */
typedef struct kvant_page_layout {
    kvant_part k, v;
    int n_kv_head, n_exact;
    size_t bytes; /* of the whole allocation */
} kvant_page_layout;

typedef struct kvant_page {
    const kvant_page_layout *layout;
    int n_references;
} kvant_page;

#define KVANT_PAGE_HEADER 64

static inline uint8_t *kvant_page_k(const kvant_page *p, int kv_head) {
    return (uint8_t *)(uintptr_t)p + KVANT_PAGE_HEADER + (size_t)kv_head * p->layout->k.bytes;
}

static inline uint8_t *kvant_page_v(const kvant_page *p, int kv_head) {
    return kvant_page_k(p, p->layout->n_kv_head) + (size_t)kv_head * p->layout->v.bytes;
}

/* The tokens in full precision: [n_exact][head_dim]. */
static inline uint16_t *kvant_page_exact_k(const kvant_page *p, int kv_head) {
    const kvant_page_layout *l = p->layout;
    uint8_t *at = kvant_page_v(p, 0) + (size_t)l->n_kv_head * l->v.bytes;
    return (uint16_t *)(void *)at + 2 * (size_t)kv_head * (size_t)l->n_exact * (size_t)l->k.head_dim;
}

static inline uint16_t *kvant_page_exact_v(const kvant_page *p, int kv_head) {
    return kvant_page_exact_k(p, kv_head) + (size_t)p->layout->n_exact * (size_t)p->layout->k.head_dim;
}

/* Which tokens a query at position p sees: t <= p and (t < keep or p - t < size); size 0: all up to p. */
typedef struct kvant_window {
    int64_t size, keep;
} kvant_window;

/* What attention plans once: see attn/attend.c, which makes and frees it through these. */
typedef struct kvant_attend_scratch kvant_attend_scratch;

struct kvant_cache {
    kvant_context *ctx;
    kvant_cache_config config;       /* layer_window is NULL here: see windows */
    kvant_window *windows;           /* [n_layer] */
    kvant_page_layout plain;         /* f16; f32 where values must not be rounded before they are converted */
    kvant_page_layout *packed;       /* [n_layer][2]: the formats of a layer, in its first page and in the others */
    kvant_transforms transforms;
    bool quantizes;                  /* packed differs from plain in some layer */
    size_t bytes;                    /* of all pages in use */
    int n_sequences;
    kvant_attend_scratch *attend_scratch; /* NULL until the first attention */
    void (*attend_scratch_destroy)(kvant_attend_scratch *);
};

typedef struct kvant_page_list {
    kvant_page **pages; /* [room], absolute page index */
    int n_pages, room;
    int first_kept; /* pages [1 or 0 .. first_kept) were dropped by the window (page 0 stays where first tokens do) */
    int64_t length;
    int n_appended; /* by the last append, while they are there */
} kvant_page_list;

struct kvant_sequence {
    kvant_cache *cache;
    bool packed;         /* new tokens are stored in the cache's formats */
    int64_t hold;        /* pages that a query from here on can see stay, so that it can be truncated to here */
    kvant_page_list *layers; /* [n_layer] */
    bool one_by_one;     /* tokens that are appended together are guesses at single ones: each sees what it would alone (attention by
                            MLX's rules tells them apart) */
};

/* The layout of page `index` of a layer in the cache's formats. */
static inline const kvant_page_layout *kvant_cache_packed(const kvant_cache *c, int layer, int64_t index) {
    return &c->packed[2 * layer + (index > 0)];
}

/* Whether a sequence of n_tokens needs this page of a layer: its next query can see it, or it holds kept first tokens. */
bool kvant_cache_needs(const kvant_cache *c, int layer, int64_t page, int64_t n_tokens);
/* Whether the sequence's pages are in the form they keep: not in full precision, waiting for quantized_kv_start. */
bool kvant_sequence_is_settled(const kvant_sequence *s);
/* Whether kvant_sequence_truncate to n_tokens, at most its length, would succeed. */
bool kvant_sequence_can_truncate(const kvant_sequence *s, int64_t n_tokens);
/* Appends the next page of every layer, with n_tokens of its tokens; the sequence's length is a multiple of 64. pages [n_layer]: one
 * reference each is taken over on success; NULL: a page that no query to come needs (kvant_cache_needs for the final length), as are
 * all before it. settled: as above, for all pages of a sequence. */
kvant_status kvant_sequence_adopt(kvant_sequence *s, kvant_page *const *pages, int n_tokens, bool settled);

/* kvant_sequence_append to one layer of several sequences, each of them once, as one piece of work for the threads. Their caches
 * share a context. On failure nothing was appended to any. */
typedef struct kvant_append_item {
    kvant_sequence *s;
    const float *k, *v; /* [n][n_kv_head][head_dim] */
    int n;
    int first_task;     /* filled in by the call */
} kvant_append_item;
kvant_status kvant_sequence_append_batch(kvant_append_item *items, int n_items, int layer);

/* Stores one token in slot 0..63 of a page (in its full-precision part where it has one); k and v are transformed. */
void kvant_page_put(kvant_page *page, int kv_head, int slot, const float *k, const float *v, const kvant_kernels *kernels);
/* The opposite. */
void kvant_page_get(const kvant_page *page, int kv_head, int slot, float *k, float *v, const kvant_kernels *kernels);

/* A zeroed page with one reference, counted in cache->bytes. KVANT_EFULL: the budget. */
kvant_status kvant_page_create(kvant_cache *cache, const kvant_page_layout *layout, kvant_page **out);
kvant_page *kvant_page_share(kvant_page *page);
void kvant_page_release(kvant_cache *cache, kvant_page *page);
/* A copy of a page in a layout: byte for byte in its own, else its first n tokens decoded and encoded again. A page with one
 * reference is expected to be released next: its bytes do not count against the budget. */
kvant_status kvant_page_convert(kvant_cache *cache, const kvant_page *page, int n, const kvant_page_layout *layout,
                                kvant_page **out);

#endif

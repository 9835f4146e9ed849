// SPDX-License-Identifier: MIT
/* prefix_tree.h: what a prefix tree is made of, for prefix_tree.c and for the test that counts it again (private to Kvant).
 *
 * A node stands for one block of tokens after those of its parent, and holds the block's page of every layer. Only leaves have
 * fewer than KVANT_PAGE_TOKENS tokens. No block is the beginning of a sibling: the shorter one becomes the longer one.
 * Invariants: the list of use has every node but the roots, each parent before its children, so that its end is a leaf. */
#ifndef KVANT_CACHE_PREFIX_TREE_H
#define KVANT_CACHE_PREFIX_TREE_H

#include "cache/page.h"

typedef struct kvant_prefix_node kvant_prefix_node;

struct kvant_prefix_node {
    kvant_prefix_node *parent;
    kvant_prefix_node *children;         /* the top of a binary tree of them: by ids, and as a heap by priority (a treap) */
    kvant_prefix_node *lesser, *greater; /* in the tree of the siblings */
    kvant_prefix_node *previous, *next;  /* siblings in the order of their ids */
    kvant_prefix_node *newer, *older;    /* in the list of use */
    kvant_prefix_node *below;            /* the next node of the path that is being taken */
    uint32_t priority;
    int n_ids;
    int32_t ids[KVANT_PAGE_TOKENS];
    kvant_page *pages[]; /* [n_layer]; NULL: a window dropped it. Then uint8_t [n_layer]: see kvant_prefix_node_held */
};

struct kvant_prefix_tree {
    kvant_cache *cache;
    size_t bytes, max_bytes;
    int64_t n_nodes, n_tokens, n_evicted;
    kvant_prefix_node *roots[2]; /* of sequences that wait for quantized_kv_start, and of settled ones; no tokens, no pages */
    kvant_prefix_node *newest, *oldest;
    int64_t *run;     /* [n_layer]: while a path is walked, where the run of whole pages that ends here began */
    kvant_page **row; /* [n_layer]: the pages that a sequence takes over */
    uint32_t random;
};

/* How many of the block's tokens the page of each layer has, 0 without a page. Fewer than n_ids where a window dropped the page
 * of the longer sequence and that of a shorter one is there. */
static inline uint8_t *kvant_prefix_node_held(kvant_prefix_node *n, int n_layer) {
    return (uint8_t *)(void *)(n->pages + n_layer);
}

#endif

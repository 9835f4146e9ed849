// SPDX-License-Identifier: MIT
/* prefix_tree.c: past sequences in memory, found by their tokens.
 *
 * Children are kept in the order of their ids, so the one that has most tokens in common with a block stands beside the place
 * where the block would be; nothing rests on hashes. The list of use has parents before their children (a path is moved to the
 * front from its end to its beginning), so the end of the list is always a leaf and can go.
 *
 * Where windows drop pages, a node may lack some. A length can be taken when every page that its next query sees is there: one
 * walk keeps, for each layer, where the run of pages that ends here began.
 *
 * A page that two nodes hold counts in both. That takes windows: a block is known to one node as the beginning of a longer one
 * that lacks some of its pages, and to another as a whole.
 *
 * Not here: choosing what to keep beyond the order of use, and files (see the store). */
#include "cache/prefix_tree.h"

#include <string.h>

#include "base/memory.h"

#define TOKENS KVANT_PAGE_TOKENS
#define TWINS_MAX 16 /* siblings on either side that are tried where a block ends alike in several */

typedef kvant_prefix_node node;

static int n_layer(const kvant_prefix_tree *t) { return t->cache->config.n_layer; }

static size_t node_bytes(const kvant_prefix_tree *t) {
    return sizeof(node) + (size_t)n_layer(t) * (sizeof(kvant_page *) + sizeof(uint8_t));
}

/* ---- blocks and siblings ---- */

static int common_length(const int32_t *a, const int32_t *b, int n) {
    int i = 0;
    while (i < n && a[i] == b[i])
        i++;
    return i;
}

static int common_with(const node *n, const int32_t *ids, int n_ids) {
    return common_length(n->ids, ids, n->n_ids < n_ids ? n->n_ids : n_ids);
}

/* The order of words in a dictionary. */
static bool is_before(const node *n, const int32_t *ids, int n_ids) {
    int i = common_with(n, ids, n_ids);
    return i < n->n_ids && i < n_ids ? n->ids[i] < ids[i] : n->n_ids < n_ids;
}

/* The children between which a block belongs: *before < ids <= *after; NULL at the ends. */
static void find_place(const node *parent, const int32_t *ids, int n_ids, node **before, node **after) {
    *before = *after = NULL;
    for (node *n = parent->children; n;) {
        if (is_before(n, ids, n_ids)) {
            *before = n;
            n = n->greater;
        } else {
            *after = n;
            n = n->lesser;
        }
    }
}

static void link_child(node *parent, node *n, node *before, node *after) {
    node **at = &parent->children, **lesser = &n->lesser, **greater = &n->greater;
    while (*at && (*at)->priority >= n->priority)
        at = is_before(*at, n->ids, n->n_ids) ? &(*at)->greater : &(*at)->lesser;
    node *rest = *at;
    *at = n;
    while (rest) {
        if (is_before(rest, n->ids, n->n_ids)) {
            *lesser = rest;
            lesser = &rest->greater;
            rest = rest->greater;
        } else {
            *greater = rest;
            greater = &rest->lesser;
            rest = rest->lesser;
        }
    }
    *lesser = *greater = NULL;
    n->parent = parent;
    n->previous = before;
    n->next = after;
    if (before) before->next = n;
    if (after) after->previous = n;
}

static void unlink_child(node *n) {
    node **at = &n->parent->children, *lesser = n->lesser, *greater = n->greater;
    while (*at != n)
        at = is_before(*at, n->ids, n->n_ids) ? &(*at)->greater : &(*at)->lesser;
    while (lesser && greater) {
        if (lesser->priority > greater->priority) {
            *at = lesser;
            at = &lesser->greater;
            lesser = lesser->greater;
        } else {
            *at = greater;
            at = &greater->lesser;
            greater = greater->lesser;
        }
    }
    *at = lesser ? lesser : greater;
    if (n->previous) n->previous->next = n->next;
    if (n->next) n->next->previous = n->previous;
}

/* ---- the list of use ---- */

static void leave_list(kvant_prefix_tree *t, node *n) {
    *(n->newer ? &n->newer->older : &t->newest) = n->older;
    *(n->older ? &n->older->newer : &t->oldest) = n->newer;
    n->newer = n->older = NULL;
}

static void put_first(kvant_prefix_tree *t, node *n) {
    n->newer = NULL;
    n->older = t->newest;
    *(n->older ? &n->older->newer : &t->oldest) = n;
    t->newest = n;
}

/* ---- nodes ---- */

static node *create_node(const kvant_prefix_tree *t) { return kvant_alloc(1, node_bytes(t)); }

/* Takes a leaf out of the tree. */
static void remove_leaf(kvant_prefix_tree *t, node *n) {
    for (int i = 0; i < n_layer(t); i++) {
        if (!n->pages[i]) continue;
        t->bytes -= n->pages[i]->layout->bytes;
        kvant_page_release(t->cache, n->pages[i]);
    }
    leave_list(t, n);
    unlink_child(n);
    t->bytes -= node_bytes(t);
    t->n_tokens -= n->n_ids;
    t->n_nodes--;
    kvant_free(n);
}

/* False when the bytes do not fit even without all that may go: what is in the list of use. */
static bool make_room(kvant_prefix_tree *t, size_t added, size_t removed) {
    if (added > t->max_bytes) return false;
    while (t->bytes - removed + added > t->max_bytes) {
        if (!t->oldest) return false;
        remove_leaf(t, t->oldest);
        t->n_evicted++;
    }
    return true;
}

/* Whether a node, of which a sequence has the first n_ids tokens, is to have the sequence's page of a layer. */
static bool wants_page(const kvant_prefix_tree *t, node *n, int layer, const kvant_page *page, int n_ids) {
    return page && kvant_prefix_node_held(n, n_layer(t))[layer] < n_ids;
}

/* Brings a node, which is not in the list of use, to the first n_ids tokens of a block and to the pages that it lacks.
 * False: there is no room; it stays as it was. own: bytes of the node itself, when it is new. */
static bool fill_node(kvant_prefix_tree *t, node *n, const kvant_sequence *s, int64_t page, const int32_t *ids, int n_ids,
                      size_t own) {
    size_t added = own, removed = 0;
    uint8_t *held = kvant_prefix_node_held(n, n_layer(t));
    for (int i = 0; i < n_layer(t); i++) {
        if (!wants_page(t, n, i, s->layers[i].pages[page], n_ids)) continue;
        added += s->layers[i].pages[page]->layout->bytes;
        removed += n->pages[i] ? n->pages[i]->layout->bytes : 0;
    }
    if (!make_room(t, added, removed)) return false;
    for (int i = 0; i < n_layer(t); i++) {
        if (!wants_page(t, n, i, s->layers[i].pages[page], n_ids)) continue;
        kvant_page *fuller = kvant_page_share(s->layers[i].pages[page]);
        kvant_page_release(t->cache, n->pages[i]);
        n->pages[i] = fuller;
        held[i] = (uint8_t)n_ids;
    }
    t->bytes += added - removed;
    if (n_ids > n->n_ids) {
        memcpy(n->ids + n->n_ids, ids + n->n_ids, (size_t)(n_ids - n->n_ids) * sizeof *ids);
        t->n_tokens += n_ids - n->n_ids;
        n->n_ids = n_ids;
    }
    return true;
}

/* ---- keeping ---- */

/* The tokens of a sequence that could ever be taken: those of quantized pages serve sequences that have reached
 * quantized_kv_start, those of others serve sequences that have not. */
static int64_t worth_keeping(const kvant_sequence *s) {
    int64_t n = kvant_sequence_length(s), start = s->cache->config.quantized_kv_start;
    if (!s->cache->quantizes) return n;
    if (kvant_sequence_is_settled(s)) return n >= start ? n : 0;
    return n < start ? n : start - 1;
}

/* A conversion that failed half-way leaves quantized pages in a sequence that is not settled. */
static bool has_converted_page(const kvant_sequence *s, int64_t page) {
    for (int i = 0; i < s->cache->config.n_layer; i++) {
        const kvant_page *p = s->layers[i].pages[page];
        if (p && p->layout != &s->cache->plain) return true;
    }
    return false;
}

/* The child of `parent` that has a block of a sequence, out of the list of use: found, prolonged or made. It has fewer tokens
 * than the block where there is no room for more. NULL: no room for a new one, or (*st) no memory. */
static node *enter_block(kvant_prefix_tree *t, node *parent, const kvant_sequence *s, int64_t page, const int32_t *ids, int n_ids,
                         kvant_status *st) {
    node *before, *after;
    find_place(parent, ids, n_ids, &before, &after);
    node *n = after && common_with(after, ids, n_ids) == n_ids ? after : NULL;
    if (!n && before && common_with(before, ids, n_ids) == before->n_ids) n = before;
    if (n) {
        leave_list(t, n);
        fill_node(t, n, s, page, ids, n_ids, 0);
        return n;
    }
    n = create_node(t);
    if (!n) {
        *st = KVANT_ENOMEM;
        return NULL;
    }
    if (!fill_node(t, n, s, page, ids, n_ids, node_bytes(t))) {
        kvant_free(n);
        return NULL;
    }
    t->random = t->random * 1664525u + 1013904223u;
    n->priority = t->random;
    find_place(parent, ids, n_ids, &before, &after); /* what made room may have stood there */
    link_child(parent, n, before, after);
    t->n_nodes++;
    return n;
}

kvant_status kvant_prefix_tree_insert(kvant_prefix_tree *t, const kvant_sequence *s, const int32_t *ids) {
    if (s->cache != t->cache) return KVANT_EINVAL;
    bool settled = kvant_sequence_is_settled(s);
    int64_t n = worth_keeping(s);
    kvant_status st = KVANT_OK;
    node *at = t->roots[settled];
    /* What is on the path is out of the list, so that making room for the rest cannot take it. */
    for (int64_t first = 0; first < n; first += TOKENS) {
        int n_ids = n - first < TOKENS ? (int)(n - first) : TOKENS;
        if (!settled && has_converted_page(s, first / TOKENS)) break;
        node *child = enter_block(t, at, s, first / TOKENS, ids + first, n_ids, &st);
        if (!child) break;
        at = child;
        if (child->n_ids < n_ids) break;
    }
    for (; at->parent; at = at->parent)
        put_first(t, at);
    return st;
}

/* ---- finding ---- */

typedef struct found {
    kvant_prefix_match match;
    node *last; /* has the last of the usable tokens; NULL: there are none */
    bool settled;
} found;

/* The first page of the run of whole pages that ends with the first n_last tokens of block `page`. */
static int64_t run_through(const kvant_prefix_tree *t, int layer, node *n, int64_t page, int n_last) {
    return kvant_prefix_node_held(n, n_layer(t))[layer] >= n_last ? t->run[layer] : page + 1;
}

/* Whether the tokens up to the first n_last of block `page`, whose node is `last`, have all pages that their next query sees. */
static bool has_pages(const kvant_prefix_tree *t, node *first, node *last, int64_t page, int n_last) {
    int64_t n = page * TOKENS + n_last;
    for (int i = 0; i < n_layer(t); i++) {
        int64_t run = run_through(t, i, last, page, n_last);
        if (run == 0) continue;
        /* What is needed is the latest pages and perhaps the first one. */
        if (kvant_cache_needs(t->cache, i, run - 1, n)) return false;
        if (kvant_prefix_node_held(first, n_layer(t))[i] < (page > 0 ? TOKENS : n_last) && kvant_cache_needs(t->cache, i, 0, n))
            return false;
    }
    return true;
}

static bool is_on_time(const kvant_prefix_tree *t, bool settled, int64_t n) {
    return !t->cache->quantizes || (n >= t->cache->config.quantized_kv_start) == settled;
}

/* The child that has most tokens in common with a block, and how many. */
static node *nearest_child(const node *parent, const int32_t *ids, int n_ids, int *common) {
    node *before, *after;
    find_place(parent, ids, n_ids, &before, &after);
    int with_before = before ? common_with(before, ids, n_ids) : 0, with_after = after ? common_with(after, ids, n_ids) : 0;
    *common = with_before > with_after ? with_before : with_after;
    return *common == 0 ? NULL : with_before > with_after ? before : after;
}

/* Of the siblings of n that have the same first n_last tokens, one with the pages that are needed; NULL: none was found. */
static node *usable_twin(const kvant_prefix_tree *t, node *first, node *n, int64_t page, int n_last) {
    if (has_pages(t, first ? first : n, n, page, n_last)) return n;
    for (int way = 0; way < 2; way++) {
        node *twin = n;
        for (int i = 0; i < TWINS_MAX; i++) {
            twin = way ? twin->next : twin->previous;
            if (!twin || common_with(twin, n->ids, n_last) < n_last) break;
            if (has_pages(t, first ? first : twin, twin, page, n_last)) return twin;
        }
    }
    return NULL;
}

/* How many tokens of a block are those of a shorter sequence whose pages were there before a longer one came without them. */
static int shorter_block(const kvant_prefix_tree *t, node *n) {
    int least = n->n_ids;
    for (int i = 0; i < n_layer(t); i++) {
        uint8_t held = kvant_prefix_node_held(n, n_layer(t))[i];
        if (held > 0 && held < least) least = held;
    }
    return least;
}

/* Records that the tokens up to the first n_last of block `page` can be taken, where they can. */
static bool try_end(const kvant_prefix_tree *t, found *f, node *first, node *n, int64_t page, int n_last) {
    int64_t end = page * TOKENS + n_last;
    node *last = is_on_time(t, f->settled, end) ? usable_twin(t, first, n, page, n_last) : NULL;
    if (!last) return false;
    f->match.n_usable = end;
    f->last = last;
    return true;
}

static found find_in(const kvant_prefix_tree *t, bool settled, const int32_t *ids, int64_t n) {
    found f = {.settled = settled};
    node *at = t->roots[settled], *first = NULL;
    memset(t->run, 0, (size_t)n_layer(t) * sizeof *t->run);
    while (f.match.n_known < n) {
        int64_t at_token = f.match.n_known, rest = n - at_token, page = at_token / TOKENS;
        int common;
        node *child = nearest_child(at, ids + at_token, rest < TOKENS ? (int)rest : TOKENS, &common);
        if (!child) break;
        f.match.n_known += common;
        if (!try_end(t, &f, first, child, page, common)) {
            int shorter = shorter_block(t, child);
            if (shorter < common) try_end(t, &f, first, child, page, shorter);
        }
        if (common < TOKENS) break;
        for (int i = 0; i < n_layer(t); i++)
            t->run[i] = run_through(t, i, child, page, TOKENS);
        if (!first) first = child;
        at = child;
    }
    return f;
}

static found find(const kvant_prefix_tree *t, const int32_t *ids, int64_t n) {
    found early = find_in(t, false, ids, n), settled = find_in(t, true, ids, n);
    found f = settled.match.n_usable >= early.match.n_usable ? settled : early;
    if (early.match.n_known > f.match.n_known) f.match.n_known = early.match.n_known;
    if (settled.match.n_known > f.match.n_known) f.match.n_known = settled.match.n_known;
    return f;
}

kvant_prefix_match kvant_prefix_tree_match(const kvant_prefix_tree *t, const int32_t *ids, int64_t n) {
    return find(t, ids, n).match;
}

static kvant_status adopt_block(kvant_prefix_tree *t, kvant_sequence *s, node *n, const found *f) {
    int64_t first = kvant_sequence_length(s), rest = f->match.n_usable - first;
    for (int i = 0; i < n_layer(t); i++)
        t->row[i] = kvant_cache_needs(t->cache, i, first / TOKENS, f->match.n_usable) ? kvant_page_share(n->pages[i]) : NULL;
    kvant_status st = kvant_sequence_adopt(s, t->row, rest < TOKENS ? (int)rest : TOKENS, f->settled);
    for (int i = 0; i < n_layer(t) && st != KVANT_OK; i++)
        kvant_page_release(t->cache, t->row[i]);
    return st;
}

kvant_status kvant_prefix_tree_take(kvant_prefix_tree *t, const int32_t *ids, int64_t n, kvant_sequence **out,
                                    kvant_prefix_match *match) {
    found f = find(t, ids, n);
    kvant_sequence *s;
    KVANT_TRY(kvant_sequence_create(t->cache, &s));
    node *at = f.last, *root = t->roots[f.settled];
    root->below = NULL;
    for (; at && at->parent; at = at->parent) {
        at->parent->below = at;
        leave_list(t, at);
        put_first(t, at);
    }
    if (f.last) f.last->below = NULL;
    for (at = root->below; at; at = at->below) {
        kvant_status st = adopt_block(t, s, at, &f);
        if (st == KVANT_OK) continue;
        kvant_sequence_destroy(s);
        return st;
    }
    *out = s;
    *match = f.match;
    return KVANT_OK;
}

/* ---- the tree ---- */

void kvant_prefix_tree_clear(kvant_prefix_tree *t) {
    while (t->oldest)
        remove_leaf(t, t->oldest);
}

void kvant_prefix_tree_destroy(kvant_prefix_tree *t) {
    if (!t) return;
    kvant_prefix_tree_clear(t);
    kvant_free(t->roots[0]);
    kvant_free(t->roots[1]);
    kvant_free(t->run);
    kvant_free(t->row);
    kvant_free(t);
}

kvant_status kvant_prefix_tree_create(kvant_cache *cache, size_t max_bytes, kvant_prefix_tree **out) {
    kvant_prefix_tree *t = kvant_alloc(1, sizeof *t);
    if (!t) return KVANT_ENOMEM;
    t->cache = cache;
    t->max_bytes = max_bytes;
    t->roots[0] = create_node(t);
    t->roots[1] = create_node(t);
    t->run = kvant_alloc((size_t)n_layer(t), sizeof *t->run);
    t->row = kvant_alloc((size_t)n_layer(t), sizeof *t->row);
    if (!t->roots[0] || !t->roots[1] || !t->run || !t->row) {
        kvant_prefix_tree_destroy(t);
        return KVANT_ENOMEM;
    }
    *out = t;
    return KVANT_OK;
}

kvant_prefix_tree_stats kvant_prefix_tree_get_stats(const kvant_prefix_tree *t) {
    return (kvant_prefix_tree_stats){t->bytes, t->max_bytes, t->n_nodes, t->n_tokens, t->n_evicted};
}

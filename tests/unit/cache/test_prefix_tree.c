// SPDX-License-Identifier: MIT
/* test_prefix_tree.c: a prefix tree finds what a list of all kept sequences would find, gives back the bits that were kept,
 * counts its bytes and stays within its budget.
 *
 * Keys and values are made from all tokens up to their own, so a page in the wrong place shows. What every prefix decodes to
 * is remembered when it is appended, and compared wherever it turns up again. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cache/prefix_tree.h"

#define D 64
#define LAYERS 2
#define MAX_TOKENS 600
#define CHUNK 40
#define SEQUENCES 6
#define LISTS 160
#define WORLDS 2 /* of each setup */
#define SEED 20261124u

static kvant_context *ctx;
static uint64_t seed;

static int random_below(int n) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (int)((seed >> 33) % (uint64_t)n);
}

static uint64_t mix(uint64_t h, uint64_t x) {
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
    return h ^ h >> 32;
}

static int setup_context(void **state) {
    (void)state;
    print_message("seed %u\n", SEED);
    return kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL) == KVANT_OK ? 0 : -1;
}

static int destroy_context(void **state) {
    (void)state;
    kvant_context_destroy(ctx);
    return 0;
}

/* ---- what every prefix decodes to, since the last cache was made ---- */

typedef struct memo {
    uint64_t key; /* 0: free */
    float k[LAYERS][D], v[LAYERS][D];
    bool known[LAYERS];
} memo;

#define MEMOS (1u << 16)
static memo *memos;

/* ---- caches ---- */

typedef struct setup {
    const char *kv;
    int window, max_kv_size, start; /* the window is that of layer 1 */
    bool after_step;
    double budget; /* of the tree: pages of so many tokens; 0: all it wants */
} setup;

static kvant_calibration *calibration;

static void make_calibration(void) {
    static double frequency[D / 2];
    static float k[64 * D], q[64 * D];
    for (int i = 0; i < D / 2; i++)
        frequency[i] = pow(10000, -2.0 * i / D);
    const kvant_rope_config rope = {D, false, 1.0f, frequency};
    const kvant_calibration_config config = {LAYERS, 1, 1, D, 1, &rope, NULL};
    for (int i = 0; i < 64 * D; i++) {
        k[i] = (float)(random_below(2001) - 700) / 500;
        q[i] = (float)(random_below(2001) - 1000) / 500;
    }
    assert_int_equal(kvant_calibration_create(&config, &calibration, NULL), KVANT_OK);
    for (int layer = 0; layer < LAYERS; layer++)
        assert_int_equal(kvant_calibration_add(calibration, layer, 0, k, q, 64), KVANT_OK);
    assert_int_equal(kvant_calibration_finish(calibration, NULL), KVANT_OK);
}

static kvant_cache *open_cache(const setup *u) {
    kvant_cache_config c;
    kvant_cache *cache = NULL;
    kvant_error err = {0};
    const int windows[LAYERS] = {0, u->window};
    memset(memos, 0, MEMOS * sizeof *memos);
    kvant_cache_config_default(&c);
    assert_int_equal(kvant_format_parse_pair(u->kv, &c.k, &c.v, NULL), KVANT_OK);
    c.n_layer = LAYERS;
    c.n_kv_head = 1;
    c.head_dim = D;
    c.layer_window = windows;
    c.max_kv_size = u->max_kv_size;
    c.quantized_kv_start = u->start;
    c.quantize_after_step = u->after_step;
    c.calibration = calibration;
    if (kvant_cache_create(ctx, &c, &cache, &err) != KVANT_OK) fail_msg("%s: %s", u->kv, err.message);
    return cache;
}

static void check_ok(kvant_status st) { assert_int_equal(st, KVANT_OK); }

/* ---- sequences with their tokens ---- */

static memo *find_memo(uint64_t key) {
    uint32_t at = (uint32_t)key % MEMOS, tries = 0;
    while (memos[at].key != 0 && memos[at].key != key) {
        at = (at + 1) % MEMOS;
        assert_true(++tries < MEMOS);
    }
    memos[at].key = key;
    return &memos[at];
}

/* A sequence with its tokens, and the hash of each beginning. */
typedef struct line {
    kvant_sequence *s;
    int n;
    int32_t ids[MAX_TOKENS];
    uint64_t hash[MAX_TOKENS];
} line;

static void set_id(line *l, int t, int32_t id) {
    l->ids[t] = id;
    l->hash[t] = mix(t > 0 ? l->hash[t - 1] : 1, (uint64_t)(uint32_t)id + 1);
}

/* Every token that the sequence still has must be what it was when it was first seen; the last `must` tokens must be there. */
static void compare(const line *l, int from, int must) {
    uint64_t settled = kvant_sequence_is_settled(l->s);
    for (int t = from; t < l->n; t++)
        for (int layer = 0; layer < LAYERS; layer++) {
            float k[D], v[D];
            memo *m = find_memo(mix(l->hash[t], 77 + settled));
            if (kvant_sequence_decode(l->s, layer, t, 0, k, v) != KVANT_OK) {
                if (t >= l->n - must) fail_msg("token %d of %d is not there in layer %d", t, l->n, layer);
                continue;
            }
            if (m->known[layer] && (memcmp(m->k[layer], k, sizeof k) != 0 || memcmp(m->v[layer], v, sizeof v) != 0))
                fail_msg("token %d of %d in layer %d is not what was appended", t, l->n, layer);
            memcpy(m->k[layer], k, sizeof k);
            memcpy(m->v[layer], v, sizeof v);
            m->known[layer] = true;
        }
}

/* Brings a sequence to n tokens; conversion comes exactly at quantized_kv_start, so that bits depend on the tokens alone. */
static void append_to(line *l, int n, int start) {
    static float rows[2][CHUNK * D];
    int have = (int)kvant_sequence_length(l->s);
    while (have < n) {
        int step = n - have < CHUNK ? n - have : CHUNK;
        if (have < start && have + step > start) step = start - have;
        bool was_settled = kvant_sequence_is_settled(l->s);
        for (int layer = 0; layer < LAYERS; layer++) {
            for (int i = 0; i < 2 * step * D; i++) {
                uint64_t h = mix(l->hash[have + i / 2 / D], (uint64_t)(i % (2 * D) * LAYERS + layer));
                rows[i % 2][i / 2] = (float)(h % 4096) / 1024 - 1.5f;
            }
            check_ok(kvant_sequence_append(l->s, layer, rows[0], rows[1], step));
        }
        have += step;
        check_ok(kvant_maybe_quantize_kv_cache(l->s, NULL));
        l->n = have;
        compare(l, kvant_sequence_is_settled(l->s) == was_settled ? have - step : 0, 1);
    }
}

/* ---- counting again ---- */

typedef struct count {
    size_t bytes, page_bytes, distinct_bytes;
    int64_t n_nodes, n_tokens;
    const kvant_page *pages[MAX_TOKENS * 40];
    int n_pages;
} count;

static int by_address(const void *a, const void *b) {
    uintptr_t x = (uintptr_t) * (kvant_page *const *)a, y = (uintptr_t) * (kvant_page *const *)b;
    return (x > y) - (x < y);
}

static void count_children(kvant_prefix_node *parent, kvant_prefix_node *n, count *c, kvant_prefix_node **last) {
    if (!n) return;
    count_children(parent, n->lesser, c, last);
    assert_ptr_equal(n->parent, parent);
    assert_ptr_equal(n->previous, *last);
    if (*last) {
        int i = 0;
        assert_ptr_equal((*last)->next, n);
        while (i < n->n_ids && i < (*last)->n_ids && n->ids[i] == (*last)->ids[i])
            i++;
        if (i == n->n_ids || i == (*last)->n_ids || n->ids[i] < (*last)->ids[i]) fail_msg("siblings are not in order");
    }
    *last = n;
    assert_true(n->n_ids > 0 && n->n_ids <= KVANT_PAGE_TOKENS);
    if (n->children) assert_int_equal(n->n_ids, KVANT_PAGE_TOKENS);
    c->n_nodes++;
    c->n_tokens += n->n_ids;
    c->bytes += sizeof *n + LAYERS * (sizeof(void *) + 1);
    for (int i = 0; i < LAYERS; i++) {
        uint8_t held = kvant_prefix_node_held(n, LAYERS)[i];
        assert_true((held > 0) == (n->pages[i] != NULL) && held <= n->n_ids);
        assert_true(c->n_pages < (int)(sizeof c->pages / sizeof c->pages[0]));
        if (!n->pages[i]) continue;
        c->pages[c->n_pages++] = n->pages[i];
        c->page_bytes += n->pages[i]->layout->bytes;
    }
    kvant_prefix_node *last_child = NULL;
    count_children(n, n->children, c, &last_child);
    if (last_child) assert_null(last_child->next);
    count_children(parent, n->greater, c, last);
}

static bool is_listed_before(const kvant_prefix_node *a, const kvant_prefix_node *b) {
    while (a && a != b)
        a = a->older;
    return a != NULL;
}

static bool has_windows(const kvant_cache *c) { return c->windows[0].size > 0 || c->windows[1].size > 0; }

/* The tree's figures against what is really in it, and its invariants. */
static void check_tree(const kvant_prefix_tree *t) {
    static count c;
    kvant_prefix_tree_stats stats = kvant_prefix_tree_get_stats(t);
    memset(&c, 0, sizeof c);
    for (int root = 0; root < 2; root++) {
        kvant_prefix_node *last = NULL;
        count_children(t->roots[root], t->roots[root]->children, &c, &last);
        if (last) assert_null(last->next);
    }
    qsort(c.pages, (size_t)c.n_pages, sizeof c.pages[0], by_address);
    for (int i = 0; i < c.n_pages; i++)
        if (i == 0 || c.pages[i] != c.pages[i - 1]) c.distinct_bytes += c.pages[i]->layout->bytes;
    assert_int_equal(stats.bytes, c.bytes + c.page_bytes);
    if (!has_windows(t->cache)) assert_int_equal(c.page_bytes, c.distinct_bytes);
    assert_int_equal(stats.n_nodes, c.n_nodes);
    assert_int_equal(stats.n_tokens, c.n_tokens);
    assert_true(stats.bytes <= stats.max_bytes);
    int64_t listed = 0;
    for (kvant_prefix_node *n = t->newest; n; n = n->older) {
        listed++;
        assert_ptr_equal(n->older ? n->older->newer : t->oldest, n);
        if (n->parent->parent) assert_true(is_listed_before(n->parent, n));
    }
    assert_int_equal(listed, c.n_nodes);
}

/* ---- a tree against a list ---- */

typedef struct kept {
    int32_t ids[MAX_TOKENS];
    int n;
    bool settled;
} kept;

typedef struct world {
    const setup *u;
    kvant_cache *cache;
    kvant_prefix_tree *tree;
    line lines[SEQUENCES];
    kept lists[LISTS];
    int n_lists;
    int64_t n_found, n_full; /* tokens that were taken, takes of all that is known */
} world;

static int common(const int32_t *a, int n_a, const int32_t *b, int n_b) {
    int i = 0;
    while (i < n_a && i < n_b && a[i] == b[i])
        i++;
    return i;
}

static kvant_prefix_match expected_match(const world *w, const int32_t *ids, int n) {
    kvant_prefix_match m = {0, 0};
    for (int i = 0; i < w->n_lists; i++) {
        const kept *k = &w->lists[i];
        int c = common(k->ids, k->n, ids, n);
        bool usable = !w->cache->quantizes || (c >= w->u->start) == k->settled;
        if (c > m.n_known) m.n_known = c;
        if (usable && c > m.n_usable) m.n_usable = c;
    }
    return m;
}

static void insert(world *w, line *l) {
    bool settled = kvant_sequence_is_settled(l->s);
    int n = l->n;
    check_ok(kvant_prefix_tree_insert(w->tree, l->s, l->ids));
    if (w->cache->quantizes && !settled && n >= w->u->start) n = w->u->start - 1;
    if (w->cache->quantizes && settled && n < w->u->start) n = 0;
    if (n <= 0 || w->n_lists == LISTS) return;
    kept *k = &w->lists[w->n_lists++];
    k->n = n;
    k->settled = settled;
    memcpy(k->ids, l->ids, sizeof k->ids);
}

/* Tokens that begin like something that was seen before, mostly. */
static void invent(world *w, line *l) {
    int shared = 0, n = 1 + random_below(random_below(3) ? 200 : MAX_TOKENS);
    if (w->n_lists > 0 && random_below(8) > 0) {
        const kept *k = &w->lists[random_below(w->n_lists)];
        shared = random_below(3) ? k->n : random_below(k->n + 1);
        if (random_below(4) == 0) shared = shared / KVANT_PAGE_TOKENS * KVANT_PAGE_TOKENS;
        if (random_below(4) > 0 && n < shared) n = shared + random_below(MAX_TOKENS - shared + 1);
        if (n == 0) n = 1;
        if (shared > n) shared = n;
        for (int t = 0; t < shared; t++)
            set_id(l, t, k->ids[t]);
    }
    for (int t = shared; t < n; t++)
        set_id(l, t, random_below(3) ? 5 : random_below(3) - 1);
    l->n = n;
}

/* Takes what is known of invented tokens, appends the rest. */
static void take_and_go_on(world *w, line *l) {
    invent(w, l);
    int n = l->n;
    kvant_prefix_match m = kvant_prefix_tree_match(w->tree, l->ids, n), taken, expected = expected_match(w, l->ids, n);
    bool exact = w->u->budget == 0 && w->n_lists < LISTS;
    bool windows = w->u->window > 0 || w->u->max_kv_size > 0;
    if (exact && m.n_known != expected.n_known)
        fail_msg("%lld tokens are known, the tree says %lld", (long long)expected.n_known, (long long)m.n_known);
    if (exact && !windows && m.n_usable != expected.n_usable)
        fail_msg("%lld tokens are usable, the tree says %lld", (long long)expected.n_usable, (long long)m.n_usable);
    assert_true(m.n_usable <= m.n_known && m.n_known <= n);
    if (w->n_lists < LISTS) assert_true(m.n_known <= expected.n_known && m.n_usable <= expected.n_usable);
    check_ok(kvant_prefix_tree_take(w->tree, l->ids, n, &l->s, &taken));
    assert_memory_equal(&taken, &m, sizeof m);
    assert_int_equal(kvant_sequence_length(l->s), m.n_usable);
    w->n_found += m.n_usable;
    w->n_full += m.n_usable == m.n_known;
    l->n = (int)m.n_usable;
    if (l->n > 0 && w->cache->quantizes) assert_int_equal(kvant_sequence_is_settled(l->s), l->n >= w->u->start);
    int must = l->n;
    if (w->u->max_kv_size > 0 && must >= w->u->max_kv_size - KVANT_SINK_TOKENS) must = w->u->max_kv_size - KVANT_SINK_TOKENS - 1;
    if (w->u->window > 0 && must >= w->u->window) must = w->u->window - 1;
    compare(l, 0, must);
    append_to(l, n, w->u->start);
}

static void random_step(world *w) {
    line *l = &w->lines[random_below(SEQUENCES)], *other = &w->lines[random_below(SEQUENCES)];
    int what = random_below(12);
    if (!l->s) {
        if (other->s && what < 3) {
            *l = *other;
            check_ok(kvant_sequence_fork(other->s, &l->s));
        } else {
            take_and_go_on(w, l);
        }
    } else if (what < 5) {
        insert(w, l);
    } else if (what < 7 && l->n < MAX_TOKENS) {
        int n = l->n + 1 + random_below(MAX_TOKENS - l->n < 90 ? MAX_TOKENS - l->n : 90);
        for (int t = l->n; t < n; t++)
            set_id(l, t, random_below(3) ? 5 : random_below(3) - 1);
        append_to(l, n, w->u->start);
    } else if (what < 8) {
        int n = random_below(l->n + 1);
        bool goes_back = w->cache->quantizes && kvant_sequence_is_settled(l->s) && n < w->u->start;
        if (!goes_back && kvant_sequence_truncate(l->s, n) == KVANT_OK) l->n = n;
    } else if (what == 8 && random_below(60) == 0) {
        kvant_prefix_tree_clear(w->tree);
        assert_int_equal(kvant_prefix_tree_get_stats(w->tree).bytes, 0);
        w->n_lists = 0;
    } else if (what > 8) {
        insert(w, l);
        kvant_sequence_destroy(l->s);
        l->s = NULL;
    }
}

static void run_world(const setup *u, uint64_t number, int steps) {
    static world w;
    memset(&w, 0, sizeof w);
    w.u = u;
    w.cache = open_cache(u);
    size_t page = w.cache->packed[1].bytes, budget = u->budget > 0 ? (size_t)(u->budget * (double)page) : SIZE_MAX / 4;
    check_ok(kvant_prefix_tree_create(w.cache, budget, &w.tree));
    seed = number;
    for (int i = 0; i < steps; i++) {
        random_step(&w);
        if (i % 4 == 0 || i > steps - 20) check_tree(w.tree);
    }
    /* All that is kept, once more; then the tree without sequences, and sequences without the tree. */
    for (int i = 0; i < SEQUENCES; i++)
        if (w.lines[i].s) compare(&w.lines[i], 0, w.lines[i].n > 0);
    if (number % 2) kvant_prefix_tree_destroy(w.tree);
    for (int i = 0; i < SEQUENCES; i++)
        kvant_sequence_destroy(w.lines[i].s);
    if (number % 2 == 0) {
        check_tree(w.tree);
        assert_true(kvant_cache_bytes(w.cache) <= kvant_prefix_tree_get_stats(w.tree).bytes);
        kvant_prefix_tree_destroy(w.tree);
    }
    assert_int_equal(kvant_cache_bytes(w.cache), 0);
    kvant_cache_destroy(w.cache);
    assert_true(w.n_found > 0 && w.n_full > 0); /* the test would prove nothing otherwise */
}

static void a_tree_finds_what_a_list_finds_and_gives_back_the_same_bits(void **state) {
    (void)state;
    static const setup setups[] = {
        {"f16", 0, 0, 0, false, 0},          {"affine4:64", 0, 0, 0, false, 0},   {"bc4", 0, 0, 0, false, 0},
        {"f16", 0, 0, 0, false, 30},         {"affine4:64", 0, 0, 0, false, 12},  {"bc4", 0, 0, 0, false, 20},
        {"f16", 100, 0, 0, false, 0},        {"affine4:64", 70, 0, 0, false, 0},  {"bc4", 130, 0, 0, false, 25},
        {"affine4:64", 0, 200, 0, false, 0}, {"bc4", 70, 150, 0, false, 0},       {"f16", 0, 200, 0, false, 18},
        {"affine4:64", 0, 0, 1, false, 0},   {"affine4:64", 0, 0, 100, false, 0}, {"bc4", 0, 0, 192, false, 0},
        {"bc4", 0, 0, 150, true, 0},         {"affine4:64", 0, 0, 0, true, 0},    {"affine4:64", 90, 0, 100, false, 30},
        {"bc4", 100, 250, 128, true, 40},    {"bc4/f16", 0, 0, 64, false, 0},
    };
    for (size_t i = 0; i < sizeof setups / sizeof setups[0]; i++)
        for (uint64_t number = 0; number < WORLDS; number++) {
            print_message("%s window %d max %d start %d budget %g: seed %llu\n", setups[i].kv, setups[i].window,
                          setups[i].max_kv_size, setups[i].start, setups[i].budget, (unsigned long long)(SEED + number));
            run_world(&setups[i], SEED + number, 400);
        }
}

/* ---- one thing at a time ---- */

static void make_ids(line *l, int from, int n, int32_t first) {
    for (int t = from; t < n; t++)
        set_id(l, t, first + t);
}

/* A new sequence of n tokens is kept; its ids stay in *l. */
static void keep_new(kvant_prefix_tree *t, line *l, int n, int32_t first) {
    make_ids(l, 0, n, first);
    check_ok(kvant_sequence_create(t->cache, &l->s));
    append_to(l, n, 0);
    check_ok(kvant_prefix_tree_insert(t, l->s, l->ids));
    kvant_sequence_destroy(l->s);
    l->s = NULL;
    check_tree(t);
}

static int known(const kvant_prefix_tree *t, const line *l) { return (int)kvant_prefix_tree_match(t, l->ids, l->n).n_known; }

static void the_least_recently_used_end_goes_first(void **state) {
    (void)state;
    static line a, b, c, d, e;
    const setup u = {.kv = "f16"};
    kvant_cache *cache = open_cache(&u);
    kvant_prefix_tree *t;
    kvant_sequence *s;
    kvant_prefix_match m;
    size_t block = LAYERS * cache->plain.bytes + sizeof(kvant_prefix_node) + LAYERS * (sizeof(void *) + 1);
    check_ok(kvant_prefix_tree_create(cache, 7 * block - 1, &t));
    keep_new(t, &a, 128, 1000);
    keep_new(t, &b, 128, 2000);
    keep_new(t, &c, 128, 3000);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_nodes, 6);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_evicted, 0);
    assert_int_equal(known(t, &b), 128); /* looking is not using */
    check_ok(kvant_prefix_tree_take(t, a.ids, 128, &s, &m));
    assert_int_equal(m.n_usable, 128);
    kvant_sequence_destroy(s);
    keep_new(t, &d, 64, 4000); /* b's end goes, its beginning stays */
    assert_int_equal(known(t, &a), 128);
    assert_int_equal(known(t, &b), 64);
    assert_int_equal(known(t, &c), 128);
    keep_new(t, &e, 192, 5000); /* the rest of b, then c from its end */
    assert_int_equal(known(t, &a), 128);
    assert_int_equal(known(t, &b), 0);
    assert_int_equal(known(t, &c), 0);
    assert_int_equal(known(t, &d), 64);
    assert_int_equal(known(t, &e), 192);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_evicted, 4);
    keep_new(t, &b, 600, 6000); /* more than fits: its beginning */
    assert_int_equal(known(t, &b), 6 * 64);
    assert_int_equal(known(t, &a), 0);
    keep_new(t, &b, 600, 6000);
    assert_int_equal(known(t, &b), 6 * 64);
    kvant_prefix_tree_destroy(t);
    check_ok(kvant_prefix_tree_create(cache, block - 1, &t));
    keep_new(t, &a, 128, 1000); /* nothing fits */
    assert_int_equal(known(t, &a), 0);
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

/* Blocks that differ in one token, at every place. */
static void make_twig(int32_t ids[KVANT_PAGE_TOKENS], int i, int n) {
    memset(ids, 0, KVANT_PAGE_TOKENS * sizeof *ids);
    ids[i % KVANT_PAGE_TOKENS] = 1 + (int)((int64_t)i * 7919 % n);
}

static void thousands_of_siblings_are_told_apart(void **state) {
    (void)state;
    enum { N = 3000, ROOM = 2000 };
    static const float zeros[KVANT_PAGE_TOKENS * D];
    const setup u = {.kv = "affine2:64"};
    kvant_cache *cache = open_cache(&u);
    kvant_prefix_tree *t;
    kvant_sequence *s;
    int32_t ids[KVANT_PAGE_TOKENS];
    size_t block = LAYERS * cache->packed[0].bytes + sizeof(kvant_prefix_node) + LAYERS * (sizeof(void *) + 1);
    check_ok(kvant_prefix_tree_create(cache, ROOM * block, &t));
    for (int i = 0; i < N; i++) {
        make_twig(ids, i, N);
        check_ok(kvant_sequence_create(cache, &s));
        for (int layer = 0; layer < LAYERS; layer++)
            check_ok(kvant_sequence_append(s, layer, zeros, zeros, KVANT_PAGE_TOKENS));
        check_ok(kvant_prefix_tree_insert(t, s, ids));
        kvant_sequence_destroy(s);
    }
    check_tree(t);
    for (int i = 0; i < N; i++) {
        make_twig(ids, i, N);
        int64_t n = kvant_prefix_tree_match(t, ids, KVANT_PAGE_TOKENS).n_usable;
        assert_true(i < N - ROOM ? n < KVANT_PAGE_TOKENS : n == KVANT_PAGE_TOKENS);
    }
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_nodes, ROOM);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_evicted, N - ROOM);
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

static void a_short_end_becomes_a_longer_one(void **state) {
    (void)state;
    static line a, b, c;
    const setup u = {.kv = "affine4:64"};
    kvant_cache *cache = open_cache(&u);
    kvant_prefix_tree *t;
    check_ok(kvant_prefix_tree_create(cache, SIZE_MAX, &t));
    keep_new(t, &a, 70, 1000);
    size_t bytes = kvant_prefix_tree_get_stats(t).bytes;
    keep_new(t, &a, 100, 1000);
    keep_new(t, &a, 80, 1000);
    assert_int_equal(kvant_prefix_tree_get_stats(t).bytes, bytes);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_nodes, 2);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_tokens, 100);
    make_ids(&b, 0, 90, 1000); /* another end after 90 tokens */
    make_ids(&b, 90, 200, 7000);
    check_ok(kvant_sequence_create(cache, &b.s));
    append_to(&b, 200, 0);
    check_ok(kvant_prefix_tree_insert(t, b.s, b.ids));
    check_tree(t);
    assert_int_equal(kvant_prefix_tree_get_stats(t).n_nodes, 5);
    /* Whoever takes a beginning and goes on differently changes nothing for the others. */
    make_ids(&c, 0, 85, 1000);
    make_ids(&c, 85, 120, 9000);
    kvant_prefix_match m;
    check_ok(kvant_prefix_tree_take(t, c.ids, 120, &c.s, &m));
    assert_int_equal(m.n_usable, 85);
    c.n = 85;
    append_to(&c, 120, 0);
    kvant_sequence_destroy(b.s);
    check_ok(kvant_prefix_tree_take(t, b.ids, 200, &b.s, &m));
    assert_int_equal(m.n_usable, 200);
    compare(&b, 0, 200);
    compare(&c, 0, 120);
    kvant_sequence_destroy(b.s);
    kvant_sequence_destroy(c.s);
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

static void a_beginning_stays_usable_when_windows_have_left_it(void **state) {
    (void)state;
    static line prompt, talk, other;
    const setup u = {.kv = "affine4:64", .window = 70};
    kvant_cache *cache = open_cache(&u);
    kvant_prefix_tree *t;
    kvant_prefix_match m;
    check_ok(kvant_prefix_tree_create(cache, SIZE_MAX, &t));
    keep_new(t, &talk, 500, 1000);
    assert_int_equal(kvant_prefix_tree_match(t, talk.ids, 500).n_usable, 500);
    m = kvant_prefix_tree_match(t, talk.ids, 300);
    assert_int_equal(m.n_known, 300);
    assert_int_equal(m.n_usable, 0); /* its window has gone on */
    keep_new(t, &prompt, 200, 1000); /* the same beginning alone brings its pages */
    m = kvant_prefix_tree_match(t, talk.ids, 200);
    assert_int_equal(m.n_usable, 200);
    keep_new(t, &talk, 500, 1000); /* and they stay when the talk comes by again */
    m = kvant_prefix_tree_match(t, talk.ids, 300);
    assert_int_equal(m.n_known, 300);
    assert_int_equal(m.n_usable, 200);
    make_ids(&other, 0, 200, 1000);
    make_ids(&other, 200, 260, 8000);
    check_ok(kvant_prefix_tree_take(t, other.ids, 260, &other.s, &m));
    assert_int_equal(m.n_usable, 200);
    other.n = 200;
    compare(&other, 0, 69);
    append_to(&other, 260, 0);
    check_ok(kvant_prefix_tree_insert(t, other.s, other.ids));
    check_tree(t);
    assert_int_equal(kvant_prefix_tree_match(t, other.ids, 260).n_usable, 260);
    assert_int_equal(kvant_prefix_tree_match(t, talk.ids, 500).n_usable, 500);
    kvant_sequence_destroy(other.s);
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

static void any_of_many_with_the_same_beginning_may_have_its_pages(void **state) {
    (void)state;
    static line prompt, talk[6];
    const setup u = {.kv = "affine4:64", .window = 100};
    kvant_cache *cache = open_cache(&u);
    kvant_prefix_tree *t;
    check_ok(kvant_prefix_tree_create(cache, SIZE_MAX, &t));
    for (int i = 0; i < 6; i++) { /* all long but one; the one has all pages of the common beginning */
        make_ids(&talk[i], 0, 100, 1000);
        make_ids(&talk[i], 100, 400, 2000 + 1000 * i);
        check_ok(kvant_sequence_create(cache, &talk[i].s));
        append_to(&talk[i], i == 3 ? 150 : 400, 0);
        check_ok(kvant_prefix_tree_insert(t, talk[i].s, talk[i].ids));
        check_tree(t);
        kvant_sequence_destroy(talk[i].s);
        make_ids(&prompt, 0, 100, 1000);
        prompt.n = 100;
        kvant_prefix_match m = kvant_prefix_tree_match(t, prompt.ids, 100);
        assert_int_equal(m.n_known, 100);
        assert_int_equal(m.n_usable, i < 3 ? 0 : 100);
    }
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
}

/* ---- memory ---- */

static int64_t allocations_left = INT64_MAX; /* the one after them fails */

#ifdef KVANT_WRAPS_ALLOC
void *__real_kvant_alloc(size_t n, size_t size);
void *__wrap_kvant_alloc(size_t n, size_t size);
void *__real_kvant_realloc(void *p, size_t n, size_t size);
void *__wrap_kvant_realloc(void *p, size_t n, size_t size);
void *__real_kvant_alloc_aligned(size_t n, size_t size);
void *__wrap_kvant_alloc_aligned(size_t n, size_t size);

void *__wrap_kvant_alloc(size_t n, size_t size) { return allocations_left-- == 0 ? NULL : __real_kvant_alloc(n, size); }
void *__wrap_kvant_realloc(void *p, size_t n, size_t size) {
    return allocations_left-- == 0 ? NULL : __real_kvant_realloc(p, n, size);
}
void *__wrap_kvant_alloc_aligned(size_t n, size_t size) {
    return allocations_left-- == 0 ? NULL : __real_kvant_alloc_aligned(n, size);
}
#endif

/* Keeps a and b, which have a beginning in common, and takes both; the allocation after `n` others fails. Whether one did. */
static bool use_with_little_memory(const setup *u, line *a, line *b, int n) {
    kvant_cache *cache = open_cache(u);
    kvant_prefix_tree *t = NULL;
    kvant_sequence *taken[2] = {NULL, NULL};
    line *lines[2] = {a, b};
    for (int i = 0; i < 2; i++) {
        int length = lines[i]->n;
        check_ok(kvant_sequence_create(cache, &lines[i]->s));
        append_to(lines[i], length, u->start);
    }
    allocations_left = n;
    kvant_status st = kvant_prefix_tree_create(cache, SIZE_MAX, &t);
    for (int i = 0; i < 2 && t; i++) {
        kvant_prefix_match m;
        kvant_status stored = kvant_prefix_tree_insert(t, lines[i]->s, lines[i]->ids);
        check_tree(t);
        kvant_status took = kvant_prefix_tree_take(t, lines[i]->ids, lines[i]->n, &taken[i], &m);
        check_tree(t);
        if (stored == KVANT_OK && took == KVANT_OK) assert_int_equal(m.n_usable, lines[i]->n);
        if (stored != KVANT_OK) st = stored;
        if (took != KVANT_OK) st = took;
    }
    bool failed = allocations_left < 0;
    allocations_left = INT64_MAX;
    assert_int_equal(st, failed ? KVANT_ENOMEM : KVANT_OK);
    for (int i = 0; i < 2; i++) {
        if (t) check_ok(kvant_prefix_tree_insert(t, lines[i]->s, lines[i]->ids)); /* all is well once there is memory again */
        if (t) assert_int_equal(kvant_prefix_tree_match(t, lines[i]->ids, lines[i]->n).n_usable, lines[i]->n);
        kvant_sequence_destroy(lines[i]->s);
        kvant_sequence_destroy(taken[i]);
    }
    kvant_prefix_tree_destroy(t);
    assert_int_equal(kvant_cache_bytes(cache), 0);
    kvant_cache_destroy(cache);
    return failed;
}

static void whatever_memory_is_missing_for_the_tree_stays_whole(void **state) {
    (void)state;
#ifdef KVANT_WRAPS_ALLOC
    static line a, b;
    const setup setups[] = {{.kv = "f16"}, {.kv = "affine4:64", .window = 100, .start = 128}};
    make_ids(&a, 0, 300, 1000);
    make_ids(&b, 0, 150, 1000);
    make_ids(&b, 150, 250, 5000);
    a.n = 300;
    b.n = 250;
    for (int i = 0; i < 2; i++) {
        int n = 0;
        while (use_with_little_memory(&setups[i], &a, &b, n))
            n++;
        assert_true(n > 10);
    }
#else
    print_message("skipped: the linker cannot put a failing allocation in place\n");
    skip();
#endif
}

static void sequences_of_other_caches_and_of_no_tokens_are_no_matter(void **state) {
    (void)state;
    const setup u = {.kv = "f16"};
    kvant_cache *cache = open_cache(&u), *stranger = open_cache(&u);
    kvant_prefix_tree *t;
    kvant_sequence *s, *empty;
    kvant_prefix_match m = {9, 9};
    const int32_t ids[3] = {1, 2, 3};
    check_ok(kvant_prefix_tree_create(cache, 1 << 20, &t));
    check_ok(kvant_sequence_create(stranger, &s));
    assert_int_equal(kvant_prefix_tree_insert(t, s, ids), KVANT_EINVAL);
    kvant_sequence_destroy(s);
    check_ok(kvant_sequence_create(cache, &s));
    check_ok(kvant_prefix_tree_insert(t, s, NULL));
    check_ok(kvant_prefix_tree_take(t, ids, 3, &empty, &m));
    assert_int_equal(m.n_known + m.n_usable + kvant_sequence_length(empty), 0);
    kvant_sequence_destroy(empty);
    kvant_sequence_destroy(s);
    kvant_prefix_tree_destroy(t);
    kvant_prefix_tree_destroy(NULL);
    kvant_cache_destroy(cache);
    kvant_cache_destroy(stranger);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_tree_finds_what_a_list_finds_and_gives_back_the_same_bits),
        cmocka_unit_test(the_least_recently_used_end_goes_first),
        cmocka_unit_test(thousands_of_siblings_are_told_apart),
        cmocka_unit_test(a_short_end_becomes_a_longer_one),
        cmocka_unit_test(a_beginning_stays_usable_when_windows_have_left_it),
        cmocka_unit_test(any_of_many_with_the_same_beginning_may_have_its_pages),
        cmocka_unit_test(whatever_memory_is_missing_for_the_tree_stays_whole),
        cmocka_unit_test(sequences_of_other_caches_and_of_no_tokens_are_no_matter),
    };
    seed = SEED;
    memos = calloc(MEMOS, sizeof *memos);
    if (!memos) return 1;
    make_calibration();
    int failed = cmocka_run_group_tests(tests, setup_context, destroy_context);
    kvant_calibration_destroy(calibration);
    free(memos);
    return failed;
}

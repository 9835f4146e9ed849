// SPDX-License-Identifier: MIT
/* replay_trace.c: how much of the prompts of a recorded service a prefix tree finds again, by its budget, and how long it takes.
 *
 * A trace has one JSON object a line: hash_ids, one number for each block of 512 tokens that stands for these tokens and all
 * before them, and input_length, in tokens (Mooncake's published traces). Everything is scaled 8 to 1: a block becomes one page
 * of 64 tokens whose ids are made from its number. Each request takes what the tree has, appends the rest and is kept; the cache
 * is a very small one, so that the whole trace fits into memory. Beside the hit rate stands that of an optimum that knows the
 * future and removes the block that is used again last (simulated, for as many blocks as the budget pays for). Times are those of
 * the processor. Not built by default:
 *
 *     cc -O2 -std=c17 -Isrc -Iinclude bench/replay_trace.c BUILD/libpart_cache.a BUILD/libpart_codec.a BUILD/libpart_kernel.a \
 *        BUILD/libpart_base.a -ljansson -lm -lpthread -o replay_trace
 *     ./replay_trace trace.jsonl [percent of the unbounded tree's bytes ...] */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <jansson.h>

#include "kvant/kvant.h"

#define BLOCK 512
#define PAGE KVANT_PAGE_TOKENS
#define SCALE (BLOCK / PAGE)
#define HEAD_DIM 32
#define LINE_MAX_BYTES (1 << 20)
#define REQUESTS_MAX (1 << 20)
#define BLOCKS_MAX (1 << 14)               /* of a request */
#define NUMBERS_MAX (INT32_MAX / PAGE / 2) /* of a block */
#define NEVER INT32_MAX

typedef struct request {
    int n_blocks, n_tokens; /* scaled */
    int *blocks;            /* [n_blocks] */
    int *next_use;          /* [n_blocks]: the next request that has this block */
} request;

typedef struct trace {
    request *requests;
    int n, n_numbers; /* all block numbers are below */
    int64_t n_tokens, n_blocks;
} trace;

static void fail(const char *what, const char *why) {
    fprintf(stderr, "replay_trace: %s: %s\n", what, why);
    exit(1);
}

static void check(kvant_status st, const char *what) {
    if (st != KVANT_OK) fail(what, kvant_status_name(st));
}

static void *allocate(size_t n, size_t size) {
    void *p = calloc(n ? n : 1, size);
    if (!p) fail("memory", "out");
    return p;
}

static double seconds(void) { return (double)clock() / CLOCKS_PER_SEC; }

/* ---- the trace ---- */

static bool read_request(const char *line, trace *t, request *r) {
    json_t *o = json_loads(line, 0, NULL), *ids = json_object_get(o, "hash_ids");
    json_int_t length = json_integer_value(json_object_get(o, "input_length"));
    size_t n = json_array_size(ids);
    bool good = n > 0 && n <= BLOCKS_MAX && length > (json_int_t)(n - 1) * BLOCK && length <= (json_int_t)n * BLOCK;
    if (good) {
        int last = (int)(length - (json_int_t)(n - 1) * BLOCK);
        r->n_blocks = (int)n;
        r->n_tokens = (int)(n - 1) * PAGE + (last + SCALE - 1) / SCALE;
        r->blocks = allocate(2 * n, sizeof *r->blocks);
        r->next_use = r->blocks + n;
    }
    for (size_t i = 0; good && i < n; i++) {
        json_t *id = json_array_get(ids, i);
        json_int_t number = json_integer_value(id);
        good = json_is_integer(id) && number >= 0 && number < NUMBERS_MAX;
        r->blocks[i] = good ? (int)number : 0;
        if (good && number >= t->n_numbers) t->n_numbers = (int)number + 1;
    }
    json_decref(o);
    return good;
}

static trace read_trace(const char *path) {
    trace t = {allocate(REQUESTS_MAX, sizeof *t.requests), 0, 0, 0, 0};
    char *line = allocate(LINE_MAX_BYTES, 1);
    FILE *f = fopen(path, "rb");
    if (!f) fail(path, "cannot be opened");
    while (fgets(line, LINE_MAX_BYTES, f)) {
        char place[64];
        snprintf(place, sizeof place, "line %d", t.n + 1);
        if (t.n == REQUESTS_MAX) fail(place, "more requests than expected");
        if (!read_request(line, &t, &t.requests[t.n]))
            fail(place, "expected hash_ids, small whole numbers, and the input_length that goes with so many");
        t.n_tokens += t.requests[t.n].n_tokens;
        t.n_blocks += t.requests[t.n].n_blocks;
        t.n++;
    }
    fclose(f);
    free(line);
    if (t.n == 0) fail(path, "has no request");
    int *next = allocate((size_t)t.n_numbers, sizeof *next);
    for (int i = 0; i < t.n_numbers; i++)
        next[i] = NEVER;
    for (int i = t.n - 1; i >= 0; i--)
        for (int b = 0; b < t.requests[i].n_blocks; b++) {
            int *at = &next[t.requests[i].blocks[b]];
            t.requests[i].next_use[b] = *at;
            *at = i;
        }
    free(next);
    return t;
}

static void free_trace(trace *t) {
    for (int i = 0; i < t->n; i++)
        free(t->requests[i].blocks);
    free(t->requests);
}

static int tokens_of(const request *r, int blocks) { return blocks == r->n_blocks ? r->n_tokens : blocks * PAGE; }

/* ---- the optimum ---- */

typedef struct entry {
    int next_use, depth, block;
} entry;

typedef struct heap {
    entry *entries;
    int64_t n;
} heap;

/* The later it is used again, the earlier it goes; of a request's blocks the last ones. */
static bool goes_before(const entry *a, const entry *b) {
    return a->next_use != b->next_use ? a->next_use > b->next_use : a->depth > b->depth;
}

static void push(heap *h, entry e) {
    int64_t i = h->n++;
    for (; i > 0 && goes_before(&e, &h->entries[(i - 1) / 2]); i = (i - 1) / 2)
        h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = e;
}

static entry pop(heap *h) {
    entry top = h->entries[0], e = h->entries[--h->n];
    int64_t i = 0;
    for (int64_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && goes_before(&h->entries[child + 1], &h->entries[child])) child++;
        if (!goes_before(&h->entries[child], &e)) break;
        h->entries[i] = h->entries[child];
    }
    h->entries[i] = e;
    return top;
}

/* The part of all tokens that is found when room for `room` blocks is used as well as anyone could. */
static double optimum(const trace *t, int64_t room) {
    heap h = {allocate((size_t)t->n_blocks, sizeof *h.entries), 0};
    int *held = allocate((size_t)t->n_numbers, sizeof *held); /* the next use of what is held, 0: not held */
    int64_t hits = 0, n_held = 0;
    for (int i = 0; i < t->n; i++) {
        const request *r = &t->requests[i];
        int found = 0;
        while (found < r->n_blocks && held[r->blocks[found]] != 0)
            found++;
        hits += tokens_of(r, found);
        for (int b = 0; b < r->n_blocks; b++) {
            n_held += held[r->blocks[b]] == 0;
            held[r->blocks[b]] = r->next_use[b];
            push(&h, (entry){r->next_use[b], b, r->blocks[b]});
        }
        while (n_held > room) {
            entry e = pop(&h);
            if (held[e.block] != e.next_use) continue; /* it was used again since, or is gone */
            held[e.block] = 0;
            n_held--;
        }
    }
    free(h.entries);
    free(held);
    return (double)hits / (double)t->n_tokens;
}

/* ---- the tree ---- */

typedef struct result {
    double hit_rate, match, take, insert; /* seconds in all */
    kvant_prefix_tree_stats stats;
} result;

static result replay(const trace *t, kvant_cache *cache, size_t max_bytes) {
    static float zeros[PAGE * HEAD_DIM];
    int32_t *ids = allocate((size_t)BLOCKS_MAX * PAGE, sizeof *ids);
    result sum = {0};
    int64_t hits = 0;
    kvant_prefix_tree *tree;
    check(kvant_prefix_tree_create(cache, max_bytes, &tree), "tree");
    for (int i = 0; i < t->n; i++) {
        const request *r = &t->requests[i];
        kvant_sequence *s;
        kvant_prefix_match m;
        for (int k = 0; k < r->n_tokens; k++)
            ids[k] = r->blocks[k / PAGE] * PAGE + k % PAGE;
        double start = seconds();
        m = kvant_prefix_tree_match(tree, ids, r->n_tokens);
        double matched = seconds();
        check(kvant_prefix_tree_take(tree, ids, r->n_tokens, &s, &m), "take");
        double taken = seconds();
        hits += m.n_usable;
        for (int64_t k = m.n_usable, step; k < r->n_tokens; k += step) {
            step = r->n_tokens - k < PAGE ? r->n_tokens - k : PAGE;
            check(kvant_sequence_append(s, 0, zeros, zeros, (int)step), "append");
        }
        double appended = seconds();
        check(kvant_prefix_tree_insert(tree, s, ids), "insert");
        sum.insert += seconds() - appended;
        sum.match += matched - start;
        sum.take += taken - matched;
        kvant_sequence_destroy(s);
    }
    sum.hit_rate = (double)hits / (double)t->n_tokens;
    sum.stats = kvant_prefix_tree_get_stats(tree);
    kvant_prefix_tree_destroy(tree);
    free(ids);
    return sum;
}

static void print_row(const trace *t, const char *budget, const result *r, double best) {
    double us = 1e6 / t->n;
    printf("| %s | %.1f MiB | %lld | %.2f %% | %.2f %% | %lld | %.1f | %.1f | %.1f |\n", budget, (double)r->stats.bytes / 1048576,
           (long long)r->stats.n_nodes, 100 * r->hit_rate, 100 * best, (long long)r->stats.n_evicted, r->match * us, r->take * us,
           r->insert * us);
    fflush(stdout);
}

int main(int argc, char **argv) {
    static const double standard[] = {1, 5, 10, 25, 50};
    if (argc < 2) {
        fprintf(stderr, "usage: replay_trace trace.jsonl [percent ...]\n");
        return 1;
    }
    trace t = read_trace(argv[1]);
    kvant_context *ctx;
    kvant_cache *cache;
    kvant_cache_config config;
    kvant_cache_config_default(&config);
    check(kvant_format_parse_pair("affine2:32", &config.k, &config.v, NULL), "format");
    config.n_layer = config.n_kv_head = 1;
    config.head_dim = HEAD_DIM;
    check(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL), "context");
    check(kvant_cache_create(ctx, &config, &cache, NULL), "cache");
    printf("%d requests, %lld blocks, %lld tokens (scaled); microseconds per request\n\n", t.n, (long long)t.n_blocks,
           (long long)t.n_tokens);
    printf("| budget | bytes | nodes | hits | optimum | evicted | match us | take us | insert us |\n");
    printf("|---|---|---|---|---|---|---|---|---|\n");
    result all = replay(&t, cache, SIZE_MAX);
    size_t node = all.stats.bytes / (size_t)all.stats.n_nodes;
    int n = argc > 2 ? argc - 2 : (int)(sizeof standard / sizeof standard[0]);
    for (int i = 0; i < n; i++) {
        double percent = argc > 2 ? atof(argv[i + 2]) : standard[i];
        char name[32];
        if (!(percent > 0 && percent <= 100)) fail(argv[i + 2], "expected a percentage");
        snprintf(name, sizeof name, "%g %%", percent);
        size_t budget = (size_t)(percent / 100 * (double)all.stats.bytes);
        result r = replay(&t, cache, budget);
        print_row(&t, name, &r, optimum(&t, (int64_t)(budget / node)));
    }
    print_row(&t, "unbounded", &all, optimum(&t, t.n_blocks));
    kvant_cache_destroy(cache);
    kvant_context_destroy(ctx);
    free_trace(&t);
    return 0;
}

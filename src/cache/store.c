// SPDX-License-Identifier: MIT
/* store.c: past sequences on disk: which blocks of a list of tokens a folder has, writing them, reading them.
 *
 * A block's name is a hash of all tokens up to its end, so finding a prefix is opening files until one is missing: there is no index
 * that could disagree with the files. Blocks of a sequence get times of use that fall from the first to the last, so that the
 * oldest file of a folder is never one that another needs.
 *
 * Reading decides by heads how many tokens can be had, makes room for the pages, and reads them, several files at a time; where a
 * file turns out to be damaged, it goes and the shorter length is decided anew. Pages that were read by then are kept.
 *
 * Not here: the bytes of a file (store_file.c), limits and tools (store_folder.c). */
#include <string.h>

#include "base/memory.h"
#include "cache/store.h"

#define TOKENS KVANT_PAGE_TOKENS
#define TOLD 16
#define STEP INT64_C(1000) /* nanoseconds between the times of two blocks */
#define BLOCKS_MAX (INT64_C(1) << 24)

struct kvant_store {
    kvant_cache *cache;
    char *folder;
    uint64_t max_bytes;
    uint64_t n_bytes, n_new; /* in the folder when it was listed last, and what was written since */
    kvant_store_head head;  /* of every block, but for tokens, names and pages */
    uint8_t told[TOLD][KVANT_HASH_BYTES]; /* damaged files that could not be removed */
    int n_told;
};

static int n_layer(const kvant_store *st) { return st->cache->config.n_layer; }

/* ---- opening ---- */

/* A flag that a format has no use for has no name either. */
static kvant_format plain_format(kvant_format f) {
    char name[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(&f, name);
    kvant_format_parse(name, &f, NULL);
    return f;
}

static kvant_status make_head(kvant_store *st, const kvant_store_config *config) {
    const kvant_cache *c = st->cache;
    kvant_store_head *h = &st->head;
    h->n_layer = c->config.n_layer;
    h->n_kv_head = c->config.n_kv_head;
    h->head_dim = c->config.head_dim;
    h->quantized_kv_start = c->config.quantized_kv_start;
    h->flags = (c->config.quantize_after_step ? KVANT_STORE_AFTER_STEP : 0u) | (c->config.center_floats ? KVANT_STORE_CENTER_FLOATS : 0u);
    memcpy(h->fingerprint, config->fingerprint, KVANT_FINGERPRINT_BYTES);
    kvant_store_copy_text(h->label, sizeof h->label, config->label ? config->label : "");
    h->layers = kvant_alloc((size_t)h->n_layer, sizeof *h->layers);
    if (!h->layers) return KVANT_ENOMEM;
    for (int i = 0; i < h->n_layer; i++) {
        const kvant_page_layout *l = kvant_cache_packed(c, i, 0);
        h->layers[i] = (kvant_store_layer){.k = plain_format(l->k.format), .v = plain_format(l->v.format),
                                           .window = c->windows[i], .n_exact = l->n_exact};
    }
    kvant_store_head_settings(h, h->settings);
    return KVANT_OK;
}

/* The folder as it is now, within its limit. */
static kvant_status take_stock(kvant_store *st, uint64_t max_bytes, kvant_error *err) {
    kvant_store_counts counts = {0};
    KVANT_TRY(kvant_store_shrink(st->folder, max_bytes, INT64_MIN, &counts, err));
    st->n_bytes = counts.bytes - counts.removed_bytes;
    st->n_new = 0;
    return KVANT_OK;
}

kvant_status kvant_store_open(kvant_cache *cache, const kvant_store_config *config, kvant_store **out, kvant_error *err) {
    if (!config->folder || !config->folder[0] || strlen(config->folder) > KVANT_STORE_FOLDER_MAX)
        return kvant_fail(err, KVANT_EINVAL, "store: the name of the folder has %zu bytes, expected 1 to %d",
                          config->folder ? strlen(config->folder) : 0, KVANT_STORE_FOLDER_MAX);
    KVANT_TRY(kvant_os_make_folder(config->folder, err));
    kvant_store *st = kvant_alloc(1, sizeof *st);
    if (!st) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", config->folder);
    st->cache = cache;
    st->max_bytes = config->max_bytes;
    st->folder = kvant_strdup(config->folder);
    kvant_status status = st->folder ? make_head(st, config) : KVANT_ENOMEM;
    if (status != KVANT_OK)
        kvant_fail(err, status, "%s: out of memory", config->folder);
    else
        status = take_stock(st, UINT64_MAX, err);
    if (status == KVANT_OK)
        *out = st;
    else
        kvant_store_close(st);
    return status;
}

void kvant_store_close(kvant_store *st) {
    if (!st) return;
    kvant_store_head_free(&st->head);
    kvant_free(st->folder);
    kvant_free(st);
}

/* ---- one block ---- */

/* What is not as it was written goes; where it cannot, or cannot even be read, it is told once. */
static void drop_damaged(kvant_store *st, const char *path, const uint8_t name[KVANT_HASH_BYTES], const kvant_error *err) {
    for (int i = 0; i < TOLD && i < st->n_told; i++)
        if (memcmp(st->told[i], name, KVANT_HASH_BYTES) == 0) return;
    if (err->status != KVANT_EIO && kvant_os_remove_file(path)) {
        kvant_log(KVANT_LOG_WARNING, "%s; it was removed, its tokens are computed again", err->message);
        return;
    }
    memcpy(st->told[st->n_told++ % TOLD], name, KVANT_HASH_BYTES);
    kvant_log(KVANT_LOG_WARNING, "%s; it stays there, its tokens are computed again", err->message);
}

static kvant_status check_head(const kvant_store *st, const char *path, const kvant_store_head *h, const uint8_t name[KVANT_HASH_BYTES],
                               int64_t position, const int32_t *ids, kvant_error *err) {
    KVANT_TRY(kvant_store_head_compare(path, h, &st->head, err));
    if (memcmp(h->name, name, KVANT_HASH_BYTES) != 0 || h->position != position || memcmp(h->ids, ids, sizeof h->ids) != 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: holds other tokens than its name says", path);
    return KVANT_OK;
}

/* The file of a block, open, with its head. False: it is not there, or it was not good and has been told. */
static bool open_block(kvant_store *st, const uint8_t name[KVANT_HASH_BYTES], int64_t block, const int32_t *ids, char *path,
                       kvant_os_file *f, kvant_store_head *h) {
    kvant_error err;
    bool absent;
    kvant_store_block_path(st->folder, name, path);
    kvant_status status = kvant_os_file_open(path, f, &absent, &err);
    if (status != KVANT_OK) {
        if (!absent) drop_damaged(st, path, name, &err);
        return false;
    }
    status = kvant_store_head_read(path, f, h, &err);
    if (status == KVANT_OK) {
        status = check_head(st, path, h, name, block * TOKENS, ids + block * TOKENS, &err);
        if (status != KVANT_OK) kvant_store_head_free(h);
    }
    if (status == KVANT_OK) return true;
    kvant_os_file_close(f);
    if (status != KVANT_ENOMEM) drop_damaged(st, path, name, &err);
    return false;
}

static void close_block(kvant_os_file *f, kvant_store_head *h) {
    kvant_store_head_free(h);
    kvant_os_file_close(f);
}

/* Names of the first n blocks -> [n][KVANT_HASH_BYTES]. */
static void name_blocks(const kvant_store *st, const int32_t *ids, int64_t n, uint8_t *names) {
    const uint8_t *parent = st->head.settings;
    for (int64_t i = 0; i < n; i++) {
        kvant_store_chain(parent, ids + i * TOKENS, names + i * KVANT_HASH_BYTES);
        parent = names + i * KVANT_HASH_BYTES;
    }
}

static void touch_blocks(const kvant_store *st, const uint8_t *names, int64_t n) {
    char path[KVANT_STORE_PATH_MAX];
    int64_t now = kvant_os_now();
    for (int64_t i = n - 1; i >= 0; i--) { /* whoever lists meanwhile sees no parent that is older than its child for long */
        kvant_store_block_path(st->folder, names + i * KVANT_HASH_BYTES, path);
        kvant_os_touch_file(path, now - i * STEP);
    }
}

/* ---- what can be had ---- */

/* A list of tokens against the folder. */
typedef struct search {
    kvant_store *st;
    const int32_t *ids;
    int64_t n_blocks;     /* of the list */
    int64_t n_known;      /* blocks whose heads are good, from the first on */
    uint8_t *names;       /* [n_blocks][KVANT_HASH_BYTES] */
    bool *present;        /* [n_blocks][n_layer] */
    int64_t *run;         /* [n_layer]: the first block of the run of pages that ends with the one before */
    kvant_page **pages;   /* [n_blocks][n_layer]: what was read or shared so far; NULL in a search by heads alone */
    bool *wanted, *bad;   /* [n_blocks]: files to be read, and those that could not be */
    kvant_error *reasons; /* [n_workers]: the sentence of the last bad file that a worker met */
    int64_t *blamed;      /* [n_workers]: which file that was, -1: none */
} search;

static void end_search(search *s) {
    for (int64_t i = 0; s->pages && i < s->n_blocks * n_layer(s->st); i++)
        kvant_page_release(s->st->cache, s->pages[i]);
    kvant_free(s->names);
    kvant_free(s->present);
    kvant_free(s->run);
    kvant_free(s->pages);
    kvant_free(s->wanted);
    kvant_free(s->bad);
    kvant_free(s->reasons);
    kvant_free(s->blamed);
}

static kvant_status begin_search(kvant_store *st, const int32_t *ids, int64_t n, bool reads, search *s) {
    size_t layers = (size_t)n_layer(st), workers = (size_t)kvant_pool_size(st->cache->ctx->pool);
    *s = (search){.st = st, .ids = ids, .n_blocks = n / TOKENS < BLOCKS_MAX ? n / TOKENS : BLOCKS_MAX};
    if (s->n_blocks < 0) s->n_blocks = 0;
    size_t blocks = (size_t)s->n_blocks;
    s->names = kvant_alloc(blocks, KVANT_HASH_BYTES);
    s->present = kvant_alloc(blocks, layers * sizeof *s->present);
    s->run = kvant_alloc(layers, sizeof *s->run);
    bool ok = s->names && s->present && s->run;
    if (reads) {
        s->pages = kvant_alloc(blocks, layers * sizeof *s->pages);
        s->wanted = kvant_alloc(blocks, sizeof *s->wanted);
        s->bad = kvant_alloc(blocks, sizeof *s->bad);
        s->reasons = kvant_alloc(workers, sizeof *s->reasons);
        s->blamed = kvant_alloc(workers, sizeof *s->blamed);
        ok = ok && s->pages && s->wanted && s->bad && s->reasons && s->blamed;
    }
    if (!ok) {
        end_search(s);
        return KVANT_ENOMEM;
    }
    name_blocks(st, ids, s->n_blocks, s->names);
    return KVANT_OK;
}

static void read_heads(search *s) {
    char path[KVANT_STORE_PATH_MAX];
    for (; s->n_known < s->n_blocks; s->n_known++) {
        kvant_os_file f;
        kvant_store_head h;
        if (!open_block(s->st, s->names + s->n_known * KVANT_HASH_BYTES, s->n_known, s->ids, path, &f, &h)) break;
        for (int i = 0; i < h.n_layer; i++)
            s->present[s->n_known * h.n_layer + i] = h.layers[i].offset != 0;
        close_block(&f, &h);
    }
}

/* Whether all pages that the query after block `last` sees are there; s->run is that of the blocks before. */
static bool has_pages(const search *s, int64_t last) {
    int layers = n_layer(s->st);
    for (int i = 0; i < layers; i++) {
        int64_t run = s->present[last * layers + i] ? s->run[i] : last + 1;
        if (run == 0) continue;
        if (kvant_cache_needs(s->st->cache, i, run - 1, (last + 1) * TOKENS)) return false;
        if (!s->present[i] && kvant_cache_needs(s->st->cache, i, 0, (last + 1) * TOKENS)) return false;
    }
    return true;
}

/* The most blocks of the known ones that make a sequence. */
static int64_t usable_blocks(search *s) {
    int64_t usable = 0;
    const kvant_cache *c = s->st->cache;
    memset(s->run, 0, (size_t)n_layer(s->st) * sizeof *s->run);
    for (int64_t b = 0; b < s->n_known; b++) {
        bool is_early = c->quantizes && (b + 1) * TOKENS < c->config.quantized_kv_start;
        if (!is_early && has_pages(s, b)) usable = b + 1;
        for (int i = 0; i < n_layer(s->st); i++)
            if (!s->present[b * n_layer(s->st) + i]) s->run[i] = b + 1;
    }
    return usable;
}

kvant_prefix_match kvant_store_match(kvant_store *st, const int32_t *ids, int64_t n) {
    kvant_prefix_match match = {0};
    search s;
    if (begin_search(st, ids, n, false, &s) != KVANT_OK) return match;
    read_heads(&s);
    match = (kvant_prefix_match){s.n_known * TOKENS, usable_blocks(&s) * TOKENS};
    end_search(&s);
    return match;
}

/* ---- reading ---- */

static bool is_needed(const search *s, int64_t block, int layer, int64_t usable) {
    return kvant_cache_needs(s->st->cache, layer, block, usable * TOKENS);
}

/* Pages of the base count as there, whatever the files have. */
static void share_base(search *s, const kvant_sequence *base, int64_t n_base) {
    int layers = n_layer(s->st);
    for (int64_t b = 0; b < n_base / TOKENS && b < s->n_known; b++) {
        for (int i = 0; i < layers; i++) {
            kvant_page *page = base->layers[i].pages[b];
            if (!page || page->layout != kvant_cache_packed(s->st->cache, i, b)) continue;
            s->pages[b * layers + i] = kvant_page_share(page);
            s->present[b * layers + i] = true;
        }
    }
}

/* Room for the pages of the first `usable` blocks that are not there yet. */
static kvant_status make_pages(search *s, int64_t usable) {
    int layers = n_layer(s->st);
    memset(s->wanted, 0, (size_t)s->n_blocks * sizeof *s->wanted);
    memset(s->bad, 0, (size_t)s->n_blocks * sizeof *s->bad);
    for (int64_t b = 0; b < usable; b++) {
        for (int i = 0; i < layers; i++) {
            kvant_page **page = &s->pages[b * layers + i];
            if (*page || !is_needed(s, b, i, usable)) continue;
            KVANT_TRY(kvant_page_create(s->st->cache, kvant_cache_packed(s->st->cache, i, b), page));
            /* Whether it was read is seen from its references: see read_block. */
            (*page)->n_references = 0;
            s->wanted[b] = true;
        }
    }
    return KVANT_OK;
}

static kvant_status read_pages(search *s, int64_t b, kvant_error *err) {
    char path[KVANT_STORE_PATH_MAX];
    kvant_os_file f;
    kvant_store_head h;
    const uint8_t *name = s->names + b * KVANT_HASH_BYTES;
    kvant_store_block_path(s->st->folder, name, path);
    bool absent;
    kvant_status st = kvant_os_file_open(path, &f, &absent, err);
    if (st != KVANT_OK) return absent ? KVANT_ECANCELLED : st; /* someone else removed it */
    st = kvant_store_head_read(path, &f, &h, err);
    if (st != KVANT_OK) {
        kvant_os_file_close(&f);
        return st;
    }
    st = check_head(s->st, path, &h, name, b * TOKENS, s->ids + b * TOKENS, err);
    for (int i = 0; i < h.n_layer && st == KVANT_OK; i++) {
        kvant_page *page = s->pages[b * h.n_layer + i];
        if (!page || page->n_references > 0) continue;
        if (h.layers[i].offset == 0 || h.layers[i].bytes != page->layout->bytes - KVANT_PAGE_HEADER)
            st = KVANT_ECANCELLED; /* another file has taken its place since */
        else
            st = kvant_store_page_read(path, &f, &h, i, (uint8_t *)page + KVANT_PAGE_HEADER, err);
        if (st == KVANT_OK) page->n_references = 1;
    }
    close_block(&f, &h);
    return st;
}

static void read_task(void *arg, int task, int worker) {
    search *s = arg;
    if (!s->wanted[task]) return;
    kvant_error err;
    kvant_status st = read_pages(s, task, &err);
    s->bad[task] = st != KVANT_OK;
    if (st == KVANT_OK || st == KVANT_ECANCELLED || st == KVANT_ENOMEM) return;
    if (s->blamed[worker] >= 0 && s->blamed[worker] < task) return; /* the first one ends the sequence */
    s->blamed[worker] = task;
    s->reasons[worker] = err;
}

/* Pages that were made but not read go, and what the files of bad blocks had is not there any more. */
static void clear_unread(search *s) {
    int layers = n_layer(s->st);
    for (int64_t i = 0; i < s->n_blocks * layers; i++) {
        if (!s->pages[i] || s->pages[i]->n_references > 0) continue;
        s->pages[i]->n_references = 1;
        kvant_page_release(s->st->cache, s->pages[i]);
        s->pages[i] = NULL;
    }
}

/* Reads what the first `usable` blocks need. False: a file was not good; s->n_known says which. */
static bool read_blocks(search *s, int64_t usable) {
    int n_workers = kvant_pool_size(s->st->cache->ctx->pool);
    for (int w = 0; w < n_workers; w++)
        s->blamed[w] = -1;
    kvant_pool_run(s->st->cache->ctx->pool, (int)usable, read_task, s);
    for (int w = 0; w < n_workers; w++) {
        if (s->blamed[w] < 0) continue;
        char path[KVANT_STORE_PATH_MAX];
        const uint8_t *name = s->names + s->blamed[w] * KVANT_HASH_BYTES;
        kvant_store_block_path(s->st->folder, name, path);
        drop_damaged(s->st, path, name, &s->reasons[w]);
    }
    for (int64_t b = 0; b < usable; b++) {
        if (!s->bad[b]) continue;
        s->n_known = b;
        return false;
    }
    return true;
}

static kvant_status adopt_blocks(search *s, int64_t usable, kvant_sequence **out) {
    int layers = n_layer(s->st);
    kvant_sequence *q;
    KVANT_TRY(kvant_sequence_create(s->st->cache, &q));
    for (int64_t b = 0; b < usable; b++) {
        kvant_page **row = s->pages + b * layers;
        for (int i = 0; i < layers; i++) {
            if (is_needed(s, b, i, usable)) continue;
            kvant_page_release(s->st->cache, row[i]);
            row[i] = NULL;
        }
        kvant_status st = kvant_sequence_adopt(q, row, TOKENS, true);
        if (st != KVANT_OK) {
            kvant_sequence_destroy(q);
            return st;
        }
        memset(row, 0, (size_t)layers * sizeof *row);
    }
    *out = q;
    return KVANT_OK;
}

/* The base itself, where it is as good as the folder. */
static bool fork_base(const kvant_sequence *base, int64_t n_base, kvant_sequence **out) {
    if (kvant_sequence_fork(base, out) != KVANT_OK) return false;
    kvant_sequence_hold(*out, -1);
    if (kvant_sequence_truncate(*out, n_base) == KVANT_OK) return true;
    kvant_sequence_destroy(*out);
    return false;
}

static kvant_status fail_take(const kvant_store *st, kvant_status status, kvant_error *err) {
    return kvant_fail(err, status, "%s: a kept sequence does not fit: %s", st->folder,
                      status == KVANT_EFULL ? "the byte budget of the cache is used up" : "out of memory");
}

kvant_status kvant_store_take(kvant_store *st, const kvant_sequence *base, int64_t n_base, const int32_t *ids, int64_t n,
                              kvant_sequence **out, kvant_prefix_match *match, kvant_error *err) {
    search s;
    if (base && (base->cache != st->cache || n_base < 0 || n_base > n || n_base > kvant_sequence_length(base)))
        return kvant_fail(err, KVANT_EINVAL, "store: the base has %lld tokens of %lld", (long long)kvant_sequence_length(base), (long long)n_base);
    if (begin_search(st, ids, n, true, &s) != KVANT_OK) return fail_take(st, KVANT_ENOMEM, err);
    read_heads(&s);
    if (base && kvant_sequence_is_settled(base)) share_base(&s, base, n_base);
    kvant_status status = KVANT_OK;
    kvant_sequence *q = NULL;
    int64_t usable = usable_blocks(&s);
    while (status == KVANT_OK && !q) {
        if (base && usable * TOKENS <= n_base) {
            if (fork_base(base, n_base, &q)) break;
            base = NULL;
        }
        status = make_pages(&s, usable);
        bool whole = status == KVANT_OK && read_blocks(&s, usable);
        clear_unread(&s);
        if (whole) status = adopt_blocks(&s, usable, &q);
        if (status == KVANT_OK && !whole) usable = usable_blocks(&s);
    }
    if (status == KVANT_OK) {
        int64_t n_usable = kvant_sequence_length(q), n_known = s.n_known * TOKENS;
        *match = (kvant_prefix_match){n_known > n_usable ? n_known : n_usable, n_usable};
        touch_blocks(st, s.names, usable);
        *out = q;
    }
    end_search(&s);
    return status == KVANT_OK ? KVANT_OK : fail_take(st, status, err);
}

/* ---- writing ---- */

/* One block of a sequence on its way to its file. */
typedef struct block_write {
    kvant_store_head head;  /* with rows of its own */
    kvant_os_piece *pieces; /* [1 + n_layer] */
    uint8_t **read;         /* [n_layer]: pages that only the file had */
    uint8_t *bytes;         /* of the head */
} block_write;

static void end_write(block_write *w, int layers) {
    for (int i = 0; w->read && i < layers; i++)
        kvant_free(w->read[i]);
    kvant_free(w->head.layers);
    kvant_free(w->pieces);
    kvant_free(w->read);
    kvant_free(w->bytes);
}

static kvant_status begin_write(const kvant_store *st, block_write *w) {
    size_t layers = (size_t)n_layer(st);
    *w = (block_write){.head = st->head};
    w->head.layers = kvant_alloc(layers, sizeof *w->head.layers);
    w->pieces = kvant_alloc(layers + 1, sizeof *w->pieces);
    w->read = kvant_alloc(layers, sizeof *w->read);
    w->bytes = kvant_alloc(kvant_store_head_bytes((int)layers, strlen(st->head.label)), 1);
    if (w->head.layers && w->pieces && w->read && w->bytes) return KVANT_OK;
    end_write(w, (int)layers);
    return KVANT_ENOMEM;
}

/* Whether the page is in the form that the head says. */
static bool has_form(const kvant_store_head *h, int layer, const kvant_page *page) {
    const kvant_page_layout *l = page->layout;
    const kvant_store_layer *row = &h->layers[layer];
    kvant_format k = plain_format(l->k.format), v = plain_format(l->v.format);
    return kvant_format_equal(&k, &row->k) && kvant_format_equal(&v, &row->v) && l->bytes - KVANT_PAGE_HEADER == row->bytes;
}

/* Reads what the file has beyond the sequence; what cannot be read is left out. */
static void read_others(block_write *w, const kvant_sequence *s, int64_t b, const char *path, const kvant_os_file *f,
                        const kvant_store_head *old) {
    for (int i = 0; i < old->n_layer; i++) {
        if (s->layers[i].pages[b] || old->layers[i].offset == 0) continue;
        w->read[i] = kvant_alloc((size_t)old->layers[i].bytes, 1);
        if (w->read[i] && kvant_store_page_read(path, f, old, i, w->read[i], NULL) == KVANT_OK) continue;
        kvant_free(w->read[i]);
        w->read[i] = NULL;
    }
}

/* The rows of the head and the pieces of the file. False: a page is in another form, which is not kept. */
static bool plan_block(const kvant_store *st, block_write *w, const kvant_sequence *s, int64_t b, int *n_pieces) {
    uint64_t at = kvant_store_head_bytes(n_layer(st), strlen(st->head.label));
    *n_pieces = 1;
    w->pieces[0] = (kvant_os_piece){w->bytes, (size_t)at};
    for (int i = 0; i < n_layer(st); i++) {
        const kvant_page *page = s->layers[i].pages[b];
        kvant_store_layer *row = &w->head.layers[i];
        const uint8_t *bytes = page ? (const uint8_t *)page + KVANT_PAGE_HEADER : w->read[i];
        row->bytes = kvant_store_page_bytes(&w->head, i);
        if (page && !has_form(&w->head, i, page)) return false;
        if (!bytes) continue;
        row->offset = at;
        kvant_hash_of(bytes, (size_t)row->bytes, row->checksum);
        w->pieces[(*n_pieces)++] = (kvant_os_piece){bytes, (size_t)row->bytes};
        at += row->bytes;
    }
    w->head.file_bytes = at;
    return true;
}

/* *went_on: false where the sequence cannot be kept from this block on. */
static kvant_status put_block(kvant_store *st, const kvant_sequence *s, const int32_t *ids, const uint8_t *names, int64_t b, bool *went_on,
                              bool *wrote, kvant_error *err) {
    char path[KVANT_STORE_PATH_MAX];
    kvant_os_file f;
    kvant_store_head old;
    block_write w;
    int n_pieces;
    *went_on = true;
    bool exists = open_block(st, names + b * KVANT_HASH_BYTES, b, ids, path, &f, &old), lacks = false;
    for (int i = 0; exists && i < old.n_layer; i++)
        lacks = lacks || (s->layers[i].pages[b] && old.layers[i].offset == 0);
    if (exists && !lacks) {
        close_block(&f, &old);
        return KVANT_OK;
    }
    kvant_status status = begin_write(st, &w);
    if (status == KVANT_OK && exists) read_others(&w, s, b, path, &f, &old);
    uint64_t replaced = exists ? old.file_bytes : 0;
    if (exists) close_block(&f, &old);
    if (status != KVANT_OK) return kvant_fail(err, status, "%s: out of memory", path);
    memcpy(w.head.layers, st->head.layers, (size_t)n_layer(st) * sizeof *w.head.layers);
    memcpy(w.head.name, names + b * KVANT_HASH_BYTES, KVANT_HASH_BYTES);
    memcpy(w.head.parent, b > 0 ? names + (b - 1) * KVANT_HASH_BYTES : st->head.settings, KVANT_HASH_BYTES);
    memcpy(w.head.ids, ids + b * TOKENS, sizeof w.head.ids);
    w.head.position = b * TOKENS;
    *went_on = plan_block(st, &w, s, b, &n_pieces);
    if (*went_on) {
        kvant_store_head_write(&w.head, w.bytes);
        status = kvant_os_write_pieces(path, w.pieces, n_pieces, err);
        if (status == KVANT_OK) {
            *wrote = true;
            st->n_bytes += w.head.file_bytes - (replaced < st->n_bytes ? replaced : 0);
            st->n_new += w.head.file_bytes;
        }
    }
    end_write(&w, n_layer(st));
    return status;
}

static kvant_status fail_put(const kvant_store *st, kvant_status status, int64_t done, int64_t n, const kvant_error *why, kvant_error *err) {
    if (status == KVANT_EFULL)
        return kvant_fail(err, KVANT_EIO, "%.700s (%lld of %lld blocks are kept): free some space, limit the size of %.100s, or keep "
                          "prefixes elsewhere", why->message, (long long)done, (long long)n, st->folder);
    return kvant_fail(err, status, "%.900s (%lld of %lld blocks are kept)", why->message, (long long)done, (long long)n);
}

/* Down to a little below the limit, so that the folder is not listed at every block from then on. */
static kvant_status keep_limit(kvant_store *st, kvant_error *err) {
    uint64_t slack = st->max_bytes / 16;
    if (st->max_bytes == 0 || (st->n_bytes <= st->max_bytes && st->n_new <= slack)) return KVANT_OK;
    KVANT_TRY(take_stock(st, UINT64_MAX, err)); /* others write too, and remove */
    return st->n_bytes > st->max_bytes ? take_stock(st, st->max_bytes - slack, err) : KVANT_OK;
}

kvant_status kvant_store_put(kvant_store *st, const kvant_sequence *s, const int32_t *ids, kvant_error *err) {
    if (s->cache != st->cache) return kvant_fail(err, KVANT_EINVAL, "store: the sequence is of another cache");
    int64_t length = kvant_sequence_length(s), n = length / TOKENS < BLOCKS_MAX ? length / TOKENS : BLOCKS_MAX, b = 0;
    bool is_early = st->cache->quantizes && length < st->cache->config.quantized_kv_start;
    if (!kvant_sequence_is_settled(s) || is_early || n == 0) return KVANT_OK;
    uint8_t *names = kvant_alloc((size_t)n, KVANT_HASH_BYTES);
    if (!names) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", st->folder);
    kvant_status status = KVANT_OK;
    kvant_error why = {0};
    bool wrote = false, went_on = true;
    name_blocks(st, ids, n, names);
    while (b < n && status == KVANT_OK && went_on) {
        status = put_block(st, s, ids, names, b, &went_on, &wrote, &why);
        if (status == KVANT_OK && went_on) b++;
    }
    touch_blocks(st, names, b);
    if (wrote) kvant_os_sync_folder(st->folder);
    kvant_free(names);
    if (status != KVANT_OK) return fail_put(st, status, b, n, &why, err);
    return wrote ? keep_limit(st, err) : KVANT_OK;
}

// SPDX-License-Identifier: MIT
/* store_folder.c: a store's folder as a whole: what is in it, whether it reads back, and how it is made smaller. Needs no model.
 *
 * Other processes write and remove files meanwhile: one that is gone when its turn comes is passed over. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/memory.h"
#include "cache/store.h"

#define FILES_MAX ((size_t)1 << 26)

typedef struct block_file {
    uint8_t name[KVANT_HASH_BYTES];
    uint64_t bytes;
    int64_t when, position;
} block_file;

typedef struct block_files {
    const char *folder;
    block_file *files;
    size_t n, room;
    int64_t stale; /* temporary files that were last written before this are removed */
    bool out_of_memory;
} block_files;

/* ---- listing ---- */

static int digit_value(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; }

static bool parse_name(const char *name, uint8_t hash[KVANT_HASH_BYTES]) {
    for (int i = 0; i < KVANT_HASH_BYTES; i++) {
        int high = digit_value(name[2 * i]), low = high < 0 ? -1 : digit_value(name[2 * i + 1]);
        if (low < 0) return false;
        hash[i] = (uint8_t)(16 * high + low);
    }
    return strcmp(name + 2 * KVANT_HASH_BYTES, KVANT_STORE_SUFFIX) == 0;
}

static bool is_temporary(const char *name) {
    size_t n = strlen(name), n_block = 2 * KVANT_HASH_BYTES + strlen(KVANT_STORE_SUFFIX);
    return n > n_block + 4 && memcmp(name + 2 * KVANT_HASH_BYTES, KVANT_STORE_SUFFIX ".", 5) == 0 && strcmp(name + n - 4, ".tmp") == 0;
}

static bool collect(void *arg, const char *name, uint64_t bytes, int64_t when) {
    block_files *l = arg;
    block_file f = {.bytes = bytes, .when = when};
    if (is_temporary(name) && when < l->stale) {
        char path[KVANT_STORE_PATH_MAX];
        snprintf(path, sizeof path, "%.*s/%.300s", KVANT_STORE_FOLDER_MAX - 300, l->folder, name);
        kvant_os_remove_file(path);
    }
    if (!parse_name(name, f.name)) return true;
    if (l->n == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        block_file *files = room <= FILES_MAX ? kvant_realloc(l->files, room, sizeof *files) : NULL;
        l->out_of_memory = !files;
        if (!files) return false;
        l->files = files;
        l->room = room;
    }
    l->files[l->n++] = f;
    return true;
}

/* l->files is freed by the caller, also after a failure. */
static kvant_status collect_files(const char *folder, block_files *l, bool sweeps, kvant_error *err) {
    *l = (block_files){.folder = folder, .stale = sweeps ? kvant_os_now() - KVANT_STORE_STALE : INT64_MIN};
    if (strlen(folder) > KVANT_STORE_FOLDER_MAX - 300) return kvant_fail(err, KVANT_EINVAL, "%.100s...: the name of the folder is too long", folder);
    KVANT_TRY(kvant_os_list_folder(folder, KVANT_STORE_SUFFIX, collect, l, err));
    return l->out_of_memory ? kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", folder) : KVANT_OK;
}

/* ---- making room ---- */

static int compare_use(const void *a, const void *b) {
    const block_file *x = a, *y = b;
    if (x->when != y->when) return x->when < y->when ? -1 : 1;
    if (x->position != y->position) return x->position > y->position ? -1 : 1;
    return memcmp(x->name, y->name, sizeof x->name);
}

/* Where a file system keeps times too coarsely to tell the blocks of a sequence apart, their positions do: the last ones come first. */
static void order_equal_times(const char *folder, block_file *files, size_t n) {
    char path[KVANT_STORE_PATH_MAX];
    for (size_t i = 0; i < n; i++) {
        kvant_os_file f;
        kvant_store_head h;
        kvant_store_block_path(folder, files[i].name, path);
        if (kvant_os_file_open(path, &f, NULL, NULL) != KVANT_OK) continue;
        if (kvant_store_head_read(path, &f, &h, NULL) == KVANT_OK) {
            files[i].position = h.position;
            kvant_store_head_free(&h);
        }
        kvant_os_file_close(&f);
    }
    qsort(files, n, sizeof *files, compare_use);
}

/* How many files from the first on have its time. */
static size_t count_equal_times(const block_file *files, size_t n) {
    size_t i = 1;
    while (i < n && files[i].when == files[0].when)
        i++;
    return i;
}

kvant_status kvant_store_shrink(const char *folder, uint64_t max_bytes, int64_t not_used_since, kvant_store_counts *counts,
                                kvant_error *err) {
    block_files l;
    char path[KVANT_STORE_PATH_MAX];
    kvant_store_counts c = {0};
    kvant_status st = collect_files(folder, &l, true, err);
    if (st == KVANT_OK && l.n > 0) qsort(l.files, l.n, sizeof *l.files, compare_use);
    c.n_files = (int64_t)l.n;
    for (size_t i = 0; i < l.n; i++)
        c.bytes += l.files[i].bytes;
    for (size_t i = 0, ordered = 0; i < l.n && st == KVANT_OK; i++) {
        if (c.bytes - c.removed_bytes <= max_bytes && l.files[i].when >= not_used_since) break;
        if (i == ordered) {
            ordered += count_equal_times(l.files + i, l.n - i);
            if (ordered - i > 1) order_equal_times(folder, l.files + i, ordered - i);
        }
        kvant_store_block_path(folder, l.files[i].name, path);
        if (!kvant_os_remove_file(path)) continue; /* read-only, or another process was faster */
        c.n_removed++;
        c.removed_bytes += l.files[i].bytes;
    }
    kvant_free(l.files);
    if (st == KVANT_OK) *counts = c;
    return st;
}

kvant_status kvant_store_prune(const char *folder, uint64_t max_bytes, double max_age, kvant_store_counts *counts, kvant_error *err) {
    int64_t since = INT64_MIN;
    if (!(max_age >= 0)) return kvant_fail(err, KVANT_EINVAL, "store: the age is negative");
    if (max_age > 0 && max_age < 9e9) since = kvant_os_now() - (int64_t)(max_age * 1e9);
    return kvant_store_shrink(folder, max_bytes, since, counts, err);
}

/* ---- looking at files ---- */


static void describe(const kvant_store_head *h, kvant_store_entry *e) {
    kvant_store_hex(h->name, e->name);
    kvant_store_hex(h->parent, e->parent);
    kvant_store_hex(h->settings, e->family);
    kvant_store_copy_text(e->label, sizeof e->label, h->label);
    e->first_token = h->position;
    e->bytes = h->file_bytes;
    e->n_layer = h->n_layer;
    e->n_present = 0;
    for (int i = 0; i < h->n_layer; i++)
        e->n_present += h->layers[i].offset != 0;
}

static kvant_status check_pages(const char *path, const kvant_os_file *f, const kvant_store_head *h, kvant_error *err) {
    kvant_status st = KVANT_OK;
    for (int i = 0; i < h->n_layer && st == KVANT_OK; i++) {
        if (h->layers[i].offset == 0) continue;
        uint8_t *bytes = kvant_alloc_aligned((size_t)h->layers[i].bytes, 1);
        st = bytes ? kvant_store_page_read(path, f, h, i, bytes, err) : kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
        kvant_free_aligned(bytes);
    }
    return st;
}

/* KVANT_ECANCELLED: the file is gone. Other failures are of this file alone. */
static kvant_status look(const char *folder, const block_file *f, bool pages, kvant_store_entry *e, kvant_error *err) {
    char path[KVANT_STORE_PATH_MAX];
    kvant_os_file file;
    kvant_store_head h;
    bool absent;
    kvant_store_block_path(folder, f->name, path);
    kvant_status st = kvant_os_file_open(path, &file, &absent, err);
    if (st != KVANT_OK) return absent ? KVANT_ECANCELLED : st;
    st = kvant_store_head_read(path, &file, &h, err);
    if (st == KVANT_OK) {
        if (memcmp(h.name, f->name, sizeof h.name) != 0)
            st = kvant_fail(err, KVANT_EFORMAT, "%s: holds other tokens than its name says", path);
        if (st == KVANT_OK && pages) st = check_pages(path, &file, &h, err);
        if (st == KVANT_OK) describe(&h, e);
        kvant_store_head_free(&h);
    }
    kvant_os_file_close(&file);
    return st;
}

/* The part of a sentence behind the file's name, cut where it must be. */
static void copy_reason(char *out, size_t size, const char *message) {
    const char *at = strstr(message, KVANT_STORE_SUFFIX ": ");
    kvant_store_copy_text(out, size, at ? at + strlen(KVANT_STORE_SUFFIX ": ") : message);
}

static kvant_status walk(const char *folder, bool pages, bool remove, kvant_store_entry_fn fn, void *user, kvant_store_counts *counts,
                         kvant_error *err) {
    block_files l;
    kvant_store_counts c = {0};
    kvant_status status = collect_files(folder, &l, false, err);
    int64_t now = kvant_os_now();
    for (size_t i = 0; i < l.n && status == KVANT_OK; i++) {
        kvant_error why = {0};
        kvant_store_entry e = {.bytes = l.files[i].bytes, .age = (double)(now - l.files[i].when) / 1e9};
        kvant_store_hex(l.files[i].name, e.name);
        kvant_status st = look(folder, &l.files[i], pages, &e, &why);
        if (st == KVANT_ECANCELLED) continue;
        e.damaged = st != KVANT_OK;
        if (e.damaged) copy_reason(e.reason, sizeof e.reason, why.message);
        c.n_files++;
        c.bytes += e.bytes;
        c.n_damaged += e.damaged;
        if (e.damaged && remove && st == KVANT_EFORMAT) {
            char path[KVANT_STORE_PATH_MAX];
            kvant_store_block_path(folder, l.files[i].name, path);
            if (kvant_os_remove_file(path)) {
                c.n_removed++;
                c.removed_bytes += e.bytes;
            }
        }
        if (fn && !fn(user, &e)) status = kvant_fail(err, KVANT_ECANCELLED, "%s: stopped", folder);
    }
    kvant_free(l.files);
    if (counts) *counts = c;
    return status;
}

kvant_status kvant_store_list(const char *folder, kvant_store_entry_fn fn, void *user, kvant_error *err) {
    return walk(folder, false, false, fn, user, NULL, err);
}

kvant_status kvant_store_verify(const char *folder, bool remove, kvant_store_entry_fn fn, void *user, kvant_store_counts *counts,
                                kvant_error *err) {
    return walk(folder, true, remove, fn, user, counts, err);
}

/* ---- one file in full ---- */

kvant_status kvant_store_block_read(const char *path, kvant_store_block **out, kvant_error *err) {
    kvant_os_file f;
    kvant_store_head h;
    KVANT_TRY(kvant_os_file_open(path, &f, NULL, err));
    kvant_status st = kvant_store_head_read(path, &f, &h, err);
    kvant_os_file_close(&f);
    if (st != KVANT_OK) return st;
    kvant_store_block *b = kvant_alloc(1, sizeof *b);
    kvant_store_page *pages = kvant_alloc((size_t)h.n_layer, sizeof *pages);
    if (!b || !pages) {
        kvant_free(b);
        kvant_free(pages);
        kvant_store_head_free(&h);
        return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    }
    describe(&h, &b->entry);
    kvant_store_hex(h.fingerprint, b->fingerprint);
    b->n_kv_head = h.n_kv_head;
    b->head_dim = h.head_dim;
    b->quantized_kv_start = h.quantized_kv_start;
    memcpy(b->ids, h.ids, sizeof b->ids);
    for (int i = 0; i < h.n_layer; i++) {
        const kvant_store_layer *l = &h.layers[i];
        pages[i] = (kvant_store_page){l->k, l->v, l->window.size, h.position == 0 ? l->n_exact : 0, l->bytes, l->offset != 0};
    }
    b->pages = pages;
    kvant_store_head_free(&h);
    *out = b;
    return KVANT_OK;
}

void kvant_store_block_free(kvant_store_block *b) {
    if (!b) return;
    kvant_free(b->pages);
    kvant_free(b);
}

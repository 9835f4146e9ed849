// SPDX-License-Identifier: MIT
/* store.h: one file of the store: its head, and how the parts of the store share it (private to Kvant). docs/FORMAT.md,
 * "Kept prefixes", has the bytes. */
#ifndef KVANT_CACHE_STORE_H
#define KVANT_CACHE_STORE_H

#include "base/hash.h"
#include "base/os.h"
#include "cache/page.h"

#define KVANT_STORE_SUFFIX ".kvp"
#define KVANT_STORE_LABEL_MAX 200
#define KVANT_STORE_PATH_MAX 4096
#define KVANT_STORE_FOLDER_MAX (KVANT_STORE_PATH_MAX - 128)
#define KVANT_STORE_STALE (INT64_C(600) * 1000000000) /* a temporary file of this age, in nanoseconds, belongs to nobody */

enum { KVANT_STORE_AFTER_STEP = 1, KVANT_STORE_CENTER_FLOATS = 2 };

typedef struct kvant_store_layer {
    uint64_t offset, bytes; /* of the page in the file, without the 64 bytes that are private to a process; offset 0: it is not there */
    kvant_format k, v;
    kvant_window window;
    int n_exact; /* tokens of the first block that are kept in full precision */
    uint8_t checksum[KVANT_HASH_BYTES];
} kvant_store_layer;

typedef struct kvant_store_head {
    uint8_t name[KVANT_HASH_BYTES], parent[KVANT_HASH_BYTES], settings[KVANT_HASH_BYTES], fingerprint[KVANT_FINGERPRINT_BYTES];
    int64_t position; /* of the first token */
    uint64_t file_bytes;
    int n_layer, n_kv_head, head_dim, quantized_kv_start;
    uint32_t flags;
    int32_t ids[KVANT_PAGE_TOKENS];
    char label[KVANT_STORE_LABEL_MAX + 1];
    kvant_store_layer *layers; /* [n_layer], owned */
} kvant_store_head;

void kvant_store_head_free(kvant_store_head *h);
/* The hash of all that decides what the bytes of a block mean and what is in them, but the tokens. */
void kvant_store_head_settings(const kvant_store_head *h, uint8_t out[KVANT_HASH_BYTES]);
/* The name of the block of these 64 tokens after the block `parent` (the settings before the first one). */
void kvant_store_chain(const uint8_t parent[KVANT_HASH_BYTES], const int32_t *ids, uint8_t out[KVANT_HASH_BYTES]);
size_t kvant_store_head_bytes(int n_layer, size_t label_length);
/* The content of a page of the block. */
uint64_t kvant_store_page_bytes(const kvant_store_head *h, int layer);
/* bytes [kvant_store_head_bytes] */
void kvant_store_head_write(const kvant_store_head *h, uint8_t *bytes);
/* The first `size` bytes of a file that has file_bytes in all. KVANT_EFORMAT: it is no block, damaged, or not whole; `path` begins the
 * sentence. KVANT_EUNSUPPORTED: of another version. *out is freed with kvant_store_head_free. */
kvant_status kvant_store_head_parse(const char *path, const uint8_t *bytes, size_t size, uint64_t file_bytes, kvant_store_head *out,
                                    kvant_error *err);
/* The head of an open file. KVANT_EIO too: it cannot be read. */
kvant_status kvant_store_head_read(const char *path, const kvant_os_file *f, kvant_store_head *out, kvant_error *err);
/* A page of an open file into bytes [h->layers[layer].bytes], checked. */
kvant_status kvant_store_page_read(const char *path, const kvant_os_file *f, const kvant_store_head *h, int layer, uint8_t *bytes,
                                   kvant_error *err);
/* KVANT_EINVAL: the two are of different models or settings; the sentence says in what. */
kvant_status kvant_store_head_compare(const char *path, const kvant_store_head *found, const kvant_store_head *expected,
                                      kvant_error *err);

void kvant_store_hex(const uint8_t hash[KVANT_HASH_BYTES], char out[2 * KVANT_HASH_BYTES + 1]);
/* As much of a text as fits. */
void kvant_store_copy_text(char *out, size_t size, const char *text);
/* out [KVANT_STORE_PATH_MAX]; the folder has at most KVANT_STORE_FOLDER_MAX bytes. */
void kvant_store_block_path(const char *folder, const uint8_t hash[KVANT_HASH_BYTES], char *out);
/* Removes the least recently used blocks until those that stay have at most max_bytes, and temporary files that were left behind. */
kvant_status kvant_store_shrink(const char *folder, uint64_t max_bytes, int64_t not_used_since, kvant_store_counts *counts,
                                kvant_error *err);

#endif

// SPDX-License-Identifier: MIT
/* fuzz_store.c: any bytes as a file of a kept prefix. The first byte says whether the head's checksum, the hash of the settings and the
 * name are made to fit, so that what lies behind these checks is reached as well; the rest is the file.
 *
 * What must hold: no crash; a head that is accepted can be written again, to the same bytes; a file of the right tokens that lies in the
 * folder is taken, or is not, and never gives more tokens than it has. */
#define _XOPEN_SOURCE 700
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cache/store.h"
#include "fuzz_target.h"

#define FIXED 448
#define CHECKSUM_AT 400

static void expect(bool ok) {
    if (!ok) abort();
}

static kvant_cache *cache;
static kvant_store *store;
static char folder[64];
static int32_t ids[2 * KVANT_PAGE_TOKENS];

static void remove_folder(void) {
    kvant_store_counts counts;
    kvant_store_prune(folder, 0, 0, &counts, NULL);
    rmdir(folder);
}

static void set_up(void) {
    static kvant_context *ctx;
    kvant_cache_config config;
    if (store) return;
    snprintf(folder, sizeof folder, "/tmp/kvant_fuzz_store_%ld", (long)getpid());
    kvant_cache_config_default(&config);
    config.n_layer = config.n_kv_head = 1;
    config.head_dim = 32;
    expect(kvant_format_parse_pair("affine2:32", &config.k, &config.v, NULL) == KVANT_OK);
    expect(kvant_context_create(1, KVANT_ISA_BEST, &ctx, NULL) == KVANT_OK);
    expect(kvant_cache_create(ctx, &config, &cache, NULL) == KVANT_OK);
    kvant_store_config s = {.folder = folder, .label = "fuzz"};
    expect(kvant_store_open(cache, &s, &store, NULL) == KVANT_OK);
    for (int i = 0; i < 2 * KVANT_PAGE_TOKENS; i++)
        ids[i] = i;
    atexit(remove_folder);
}

/* Lets the checks of hashes pass where the sizes allow it: the rules of docs/FORMAT.md. */
static void make_fit(uint8_t *bytes, size_t size) {
    if (size < 512) return;
    kvant_store_head h;
    size_t head = (size_t)bytes[12] | (size_t)bytes[13] << 8 | (size_t)bytes[14] << 16;
    if (head < FIXED || head > size) return;
    for (int i = 0; i < 8; i++)
        bytes[88 + i] = (uint8_t)(i < 4 ? size >> 8 * i : 0);
    for (int pass = 0; pass < 2; pass++) {
        kvant_hash sum;
        kvant_hash_begin(&sum);
        kvant_hash_add(&sum, bytes, CHECKSUM_AT);
        kvant_hash_add(&sum, bytes + CHECKSUM_AT + KVANT_HASH_BYTES, head - CHECKSUM_AT - KVANT_HASH_BYTES);
        kvant_hash_get(&sum, bytes + CHECKSUM_AT);
        if (pass == 0 && kvant_store_head_parse("fit", bytes, size, size, &h, NULL) == KVANT_OK) {
            kvant_store_head_free(&h);
            return;
        }
        int32_t own[KVANT_PAGE_TOKENS];
        for (int i = 0; i < KVANT_PAGE_TOKENS; i++)
            own[i] = (int32_t)((uint32_t)bytes[128 + 4 * i] | (uint32_t)bytes[129 + 4 * i] << 8 | (uint32_t)bytes[130 + 4 * i] << 16 |
                               (uint32_t)bytes[131 + 4 * i] << 24);
        kvant_store_chain(bytes + 32, own, bytes + 16);
    }
}

static void parse(const uint8_t *bytes, size_t size) {
    kvant_store_head h;
    kvant_error err = {0};
    kvant_status st = kvant_store_head_parse("fuzz.kvp", bytes, size, size, &h, &err);
    if (st != KVANT_OK) {
        expect(err.status == st && err.message[0] && !strchr(err.message, '\n'));
        return;
    }
    size_t n = kvant_store_head_bytes(h.n_layer, strlen(h.label));
    uint8_t *again = malloc(n);
    kvant_store_head second;
    expect(again != NULL);
    kvant_store_head_write(&h, again);
    if (n == kvant_store_head_bytes(h.n_layer, bytes[108])) { /* the label has no NUL inside */
        expect(kvant_store_head_parse("again", again, n, size, &second, &err) == KVANT_OK);
        expect(kvant_store_head_compare("again", &second, &h, &err) == KVANT_OK);
        kvant_store_head_free(&second);
    }
    free(again);
    kvant_store_head_free(&h);
}

static void write_file(const char *path, const uint8_t *bytes, size_t size) {
    FILE *f = fopen(path, "wb");
    expect(f && fwrite(bytes, 1, size, f) == size);
    fclose(f);
}

/* As the first block of these tokens. */
static void take(const uint8_t *bytes, size_t size) {
    char path[KVANT_STORE_PATH_MAX];
    uint8_t name[KVANT_HASH_BYTES] = {0};
    kvant_sequence *s;
    kvant_prefix_match match;
    kvant_store_block *block;
    kvant_store_counts counts;
    kvant_store_chain(size >= 80 ? bytes + 64 : name, ids, name);
    kvant_store_block_path(folder, name, path);
    write_file(path, bytes, size);
    match = kvant_store_match(store, ids, 2 * KVANT_PAGE_TOKENS);
    expect(match.n_usable <= match.n_known && match.n_known <= KVANT_PAGE_TOKENS);
    expect(kvant_store_take(store, NULL, 0, ids, 2 * KVANT_PAGE_TOKENS, &s, &match, NULL) == KVANT_OK);
    expect(kvant_sequence_length(s) == match.n_usable);
    kvant_sequence_destroy(s);
    write_file(path, bytes, size);
    if (kvant_store_block_read(path, &block, NULL) == KVANT_OK) kvant_store_block_free(block);
    expect(kvant_store_verify(folder, true, NULL, NULL, &counts, NULL) == KVANT_OK);
    expect(kvant_store_prune(folder, 0, 0, &counts, NULL) == KVANT_OK);
    expect(kvant_cache_bytes(cache) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    set_up();
    if (size < 1) return 0;
    uint8_t *bytes = malloc(size);
    expect(bytes != NULL);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & 1) make_fit(bytes, size - 1);
    parse(bytes, size - 1);
    take(bytes, size - 1);
    free(bytes);
    return 0;
}

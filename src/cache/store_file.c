// SPDX-License-Identifier: MIT
/* store_file.c: the bytes of one block of a kept prefix: docs/FORMAT.md, "Kept prefixes".
 *
 * The head says all that decides what the pages mean, so that its hash, and the file's own name, can be computed again from it: a
 * head is believed only where they agree. Nothing of a file is used as a size before it has been checked.
 *
 * Not here: which files there are (store.c), what a person is shown of them (store_folder.c). */
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "cache/store.h"

#define MAGIC "KVPREFIX"
#define VERSION 2
#define FIXED 448
#define ROW 64
#define CHECKSUM_AT 400
#define IDS_AT 128
#define LAYERS_MAX 4096
#define POSITION_MAX (INT64_C(1) << 36)

static void put_u64(uint8_t *p, uint64_t v) {
    kvant_write_u32(p, (uint32_t)v);
    kvant_write_u32(p + 4, (uint32_t)(v >> 32));
}

void kvant_store_hex(const uint8_t hash[KVANT_HASH_BYTES], char out[2 * KVANT_HASH_BYTES + 1]) {
    for (int i = 0; i < KVANT_HASH_BYTES; i++)
        snprintf(out + 2 * i, 3, "%02x", hash[i]);
}

void kvant_store_block_path(const char *folder, const uint8_t hash[KVANT_HASH_BYTES], char *out) {
    char name[2 * KVANT_HASH_BYTES + 1];
    kvant_store_hex(hash, name);
    snprintf(out, KVANT_STORE_PATH_MAX, "%.*s/%s" KVANT_STORE_SUFFIX, KVANT_STORE_FOLDER_MAX, folder, name);
}

void kvant_store_copy_text(char *out, size_t size, const char *text) {
    size_t n = strlen(text);
    if (n >= size) {
        n = size - 1;
        while (n > 0 && ((uint8_t)text[n] & 0xC0) == 0x80) /* no half of a character */
            n--;
    }
    memcpy(out, text, n);
    out[n] = '\0';
}

void kvant_store_head_free(kvant_store_head *h) {
    kvant_free(h->layers);
    h->layers = NULL;
}

/* ---- hashes and sizes ---- */

static void add_format(kvant_hash *h, const kvant_format *f) {
    kvant_hash_add_u64(h, (uint64_t)f->codec | (uint64_t)f->bits << 8 | (uint64_t)f->group << 16 | (uint64_t)f->bare << 32);
}

void kvant_store_head_settings(const kvant_store_head *s, uint8_t out[KVANT_HASH_BYTES]) {
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add(&h, MAGIC, 8);
    kvant_hash_add_u64(&h, VERSION);
    kvant_hash_add(&h, s->fingerprint, KVANT_FINGERPRINT_BYTES);
    const int64_t numbers[] = {s->n_layer, s->n_kv_head, s->head_dim, s->quantized_kv_start, s->flags};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        kvant_hash_add_u64(&h, (uint64_t)numbers[i]);
    for (int i = 0; i < s->n_layer; i++) {
        const kvant_store_layer *l = &s->layers[i];
        add_format(&h, &l->k);
        add_format(&h, &l->v);
        kvant_hash_add_u64(&h, (uint64_t)l->window.size);
        kvant_hash_add_u64(&h, (uint64_t)l->window.keep);
        kvant_hash_add_u64(&h, (uint64_t)l->n_exact);
    }
    kvant_hash_get(&h, out);
}

void kvant_store_chain(const uint8_t parent[KVANT_HASH_BYTES], const int32_t *ids, uint8_t out[KVANT_HASH_BYTES]) {
    uint8_t bytes[KVANT_HASH_BYTES + 4 * KVANT_PAGE_TOKENS];
    memcpy(bytes, parent, KVANT_HASH_BYTES);
    for (int i = 0; i < KVANT_PAGE_TOKENS; i++)
        kvant_write_u32(bytes + KVANT_HASH_BYTES + 4 * i, (uint32_t)ids[i]);
    kvant_hash_of(bytes, sizeof bytes, out);
}

static size_t label_room(size_t length) { return (length + 63) / 64 * 64; }

size_t kvant_store_head_bytes(int n_layer, size_t label_length) {
    return FIXED + label_room(label_length) + (size_t)n_layer * ROW;
}

/* The formats have been checked. */
uint64_t kvant_store_page_bytes(const kvant_store_head *h, int layer) {
    const kvant_store_layer *l = &h->layers[layer];
    kvant_part k = kvant_part_make(&l->k, KVANT_SIDE_K, h->head_dim), v = kvant_part_make(&l->v, KVANT_SIDE_V, h->head_dim);
    uint64_t exact = h->position == 0 ? 4 * (uint64_t)l->n_exact * (uint64_t)h->head_dim : 0;
    return (uint64_t)h->n_kv_head * (k.bytes + v.bytes + exact);
}

/* ---- writing ---- */

static void write_format(uint8_t *p, const kvant_format *f) {
    p[0] = (uint8_t)f->codec;
    p[1] = (uint8_t)f->bits;
    p[2] = (uint8_t)f->group;
    p[3] = f->bare;
}

void kvant_store_head_write(const kvant_store_head *h, uint8_t *bytes) {
    size_t label = strlen(h->label), size = kvant_store_head_bytes(h->n_layer, label);
    memset(bytes, 0, size);
    memcpy(bytes, MAGIC, 8);
    kvant_write_u32(bytes + 8, VERSION);
    kvant_write_u32(bytes + 12, (uint32_t)size);
    memcpy(bytes + 16, h->name, KVANT_HASH_BYTES);
    memcpy(bytes + 32, h->parent, KVANT_HASH_BYTES);
    memcpy(bytes + 48, h->fingerprint, KVANT_FINGERPRINT_BYTES);
    memcpy(bytes + 64, h->settings, KVANT_HASH_BYTES);
    put_u64(bytes + 80, (uint64_t)h->position);
    put_u64(bytes + 88, h->file_bytes);
    const uint32_t numbers[] = {(uint32_t)h->n_layer, (uint32_t)h->n_kv_head,          (uint32_t)h->head_dim,
                                (uint32_t)label,      (uint32_t)h->quantized_kv_start, h->flags};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        kvant_write_u32(bytes + 96 + 4 * i, numbers[i]);
    for (int i = 0; i < KVANT_PAGE_TOKENS; i++)
        kvant_write_u32(bytes + IDS_AT + 4 * i, (uint32_t)h->ids[i]);
    memcpy(bytes + FIXED, h->label, label);
    for (int i = 0; i < h->n_layer; i++) {
        const kvant_store_layer *l = &h->layers[i];
        uint8_t *row = bytes + FIXED + label_room(label) + (size_t)i * ROW;
        put_u64(row, l->offset);
        put_u64(row + 8, l->bytes);
        write_format(row + 16, &l->k);
        write_format(row + 20, &l->v);
        put_u64(row + 24, (uint64_t)l->window.size);
        put_u64(row + 32, (uint64_t)l->window.keep);
        kvant_write_u32(row + 56, (uint32_t)l->n_exact);
        if (l->offset) memcpy(row + 40, l->checksum, KVANT_HASH_BYTES);
    }
    kvant_hash_around(bytes, size, CHECKSUM_AT, bytes + CHECKSUM_AT);
}

/* ---- reading ---- */

static kvant_status damaged(const char *path, const char *what, kvant_error *err) {
    return kvant_fail(err, KVANT_EFORMAT, "%s: %s; the file is damaged", path, what);
}

/* The first bytes -> how long the head is, which is not believed further than for reading it. */
static kvant_status check_start(const char *path, const uint8_t *bytes, size_t size, uint64_t file_bytes, size_t *head, kvant_error *err) {
    if (size < 16 || memcmp(bytes, MAGIC, 8) != 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: is no block of a kept prefix: it does not begin with " MAGIC, path);
    uint32_t version = kvant_read_u32(bytes + 8), length = kvant_read_u32(bytes + 12);
    if (version != VERSION)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: found version %u, expected %d (written by another version of Kvant)", path, version,
                          VERSION);
    if (length < FIXED + ROW || length > kvant_store_head_bytes(LAYERS_MAX, KVANT_STORE_LABEL_MAX))
        return damaged(path, "the length of the head is out of range", err);
    if (length > file_bytes)
        return kvant_fail(err, KVANT_EFORMAT, "%s: the head has %u bytes, but the file ends at %llu; it was not written whole", path, length,
                          (unsigned long long)file_bytes);
    *head = length;
    return KVANT_OK;
}

static bool read_format(const uint8_t *p, int head_dim, kvant_side side, kvant_format *out) {
    *out = (kvant_format){(kvant_codec_id)p[0], p[1], p[2], p[3] != 0};
    kvant_format again;
    char name[KVANT_FORMAT_NAME_MAX];
    if (p[3] > 1 || !kvant_codec_find(out->codec)) return false;
    if (side == KVANT_SIDE_V && (out->bare || out->codec == KVANT_CODEC_ZONE)) return false;
    /* Every format has a name, and a name is read as a format that exists. */
    kvant_format_name(out, name);
    return kvant_format_parse(name, &again, NULL) == KVANT_OK && kvant_format_equal(out, &again) &&
           kvant_format_check(out, head_dim, NULL) == KVANT_OK;
}

/* A number of 8 bytes from 0 to max. */
static bool read_number(const uint8_t *p, int64_t max, int64_t *out) {
    uint64_t v = kvant_read_u64(p);
    *out = (int64_t)v;
    return v <= (uint64_t)max;
}

static kvant_status read_rows(const char *path, const uint8_t *rows, kvant_store_head *h, size_t head, kvant_error *err) {
    uint64_t at = head;
    for (int i = 0; i < h->n_layer; i++) {
        const uint8_t *row = rows + (size_t)i * ROW;
        kvant_store_layer *l = &h->layers[i];
        l->offset = kvant_read_u64(row);
        l->bytes = kvant_read_u64(row + 8);
        memcpy(l->checksum, row + 40, KVANT_HASH_BYTES);
        uint32_t n_exact = kvant_read_u32(row + 56);
        if (n_exact > KVANT_SINK_TOKENS) return damaged(path, "a number of tokens in full precision is out of range", err);
        l->n_exact = (int)n_exact;
        if (!read_format(row + 16, h->head_dim, KVANT_SIDE_K, &l->k) || !read_format(row + 20, h->head_dim, KVANT_SIDE_V, &l->v))
            return damaged(path, "a layer has a format that does not exist", err);
        if (!read_number(row + 24, INT32_MAX, &l->window.size) || !read_number(row + 32, KVANT_SINK_TOKENS, &l->window.keep))
            return damaged(path, "a window is out of range", err);
        if (l->bytes != kvant_store_page_bytes(h, i)) return damaged(path, "a page has not the size of its formats", err);
        if (l->offset != 0 && l->offset != at) return damaged(path, "a page is not where it should be", err);
        if (l->offset != 0) at += l->bytes;
    }
    if (at != h->file_bytes) return damaged(path, "the pages do not end where the file should", err);
    return KVANT_OK;
}

static kvant_status read_fields(const char *path, const uint8_t *bytes, size_t size, kvant_store_head *h, kvant_error *err) {
    uint32_t numbers[6];
    static const uint32_t least[] = {1, 1, 1, 0, 0, 0};
    static const uint32_t most[] = {LAYERS_MAX, 4096, KVANT_HEAD_DIM_MAX, KVANT_STORE_LABEL_MAX, INT32_MAX, 3};
    for (size_t i = 0; i < 6; i++) {
        numbers[i] = kvant_read_u32(bytes + 96 + 4 * i);
        if (numbers[i] < least[i] || numbers[i] > most[i]) return damaged(path, "a number of the head is out of range", err);
    }
    h->n_layer = (int)numbers[0];
    h->n_kv_head = (int)numbers[1];
    h->head_dim = (int)numbers[2];
    h->quantized_kv_start = (int)numbers[4];
    h->flags = numbers[5];
    if (size != kvant_store_head_bytes(h->n_layer, numbers[3])) return damaged(path, "the head has not the length of its layers", err);
    memcpy(h->name, bytes + 16, KVANT_HASH_BYTES);
    memcpy(h->parent, bytes + 32, KVANT_HASH_BYTES);
    memcpy(h->fingerprint, bytes + 48, KVANT_FINGERPRINT_BYTES);
    memcpy(h->settings, bytes + 64, KVANT_HASH_BYTES);
    if (!read_number(bytes + 80, POSITION_MAX, &h->position) || h->position % KVANT_PAGE_TOKENS != 0)
        return damaged(path, "the position is out of range", err);
    for (int i = 0; i < KVANT_PAGE_TOKENS; i++)
        h->ids[i] = (int32_t)kvant_read_u32(bytes + IDS_AT + 4 * i);
    memcpy(h->label, bytes + FIXED, numbers[3]);
    h->label[numbers[3]] = '\0';
    h->layers = kvant_alloc((size_t)h->n_layer, sizeof *h->layers);
    if (!h->layers) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    KVANT_TRY(read_rows(path, bytes + FIXED + label_room(numbers[3]), h, size, err));
    uint8_t hash[KVANT_HASH_BYTES];
    kvant_store_head_settings(h, hash);
    if (memcmp(hash, h->settings, sizeof hash) != 0) return damaged(path, "the hash of the settings does not match", err);
    if (h->position == 0 && memcmp(h->parent, h->settings, sizeof hash) != 0) return damaged(path, "the first block has a parent", err);
    kvant_store_chain(h->parent, h->ids, hash);
    if (memcmp(hash, h->name, sizeof hash) != 0) return damaged(path, "the hash of the tokens does not match", err);
    return KVANT_OK;
}

kvant_status kvant_store_head_parse(const char *path, const uint8_t *bytes, size_t size, uint64_t file_bytes, kvant_store_head *out,
                                    kvant_error *err) {
    size_t head = 0;
    uint8_t sum[KVANT_HASH_BYTES];
    KVANT_TRY(check_start(path, bytes, size, file_bytes, &head, err));
    if (head > size) return damaged(path, "the head is cut", err);
    kvant_hash_around(bytes, head, CHECKSUM_AT, sum);
    if (memcmp(bytes + CHECKSUM_AT, sum, sizeof sum) != 0) return damaged(path, "the checksum of the head does not match", err);
    kvant_store_head h = {.file_bytes = kvant_read_u64(bytes + 88)};
    if (h.file_bytes != file_bytes)
        return kvant_fail(err, KVANT_EFORMAT, "%s: has %llu bytes, expected %llu; it was not written whole, or changed since", path,
                          (unsigned long long)file_bytes, (unsigned long long)h.file_bytes);
    kvant_status st = read_fields(path, bytes, head, &h, err);
    if (st == KVANT_OK)
        *out = h;
    else
        kvant_store_head_free(&h);
    return st;
}

kvant_status kvant_store_head_read(const char *path, const kvant_os_file *f, kvant_store_head *out, kvant_error *err) {
    uint8_t start[16];
    size_t size = 0;
    if (f->size < sizeof start)
        return kvant_fail(err, KVANT_EFORMAT, "%s: has %llu bytes; it was not written whole", path, (unsigned long long)f->size);
    if (!kvant_os_file_read(f, 0, start, sizeof start)) return kvant_fail(err, KVANT_EIO, "%s: cannot be read", path);
    KVANT_TRY(check_start(path, start, sizeof start, f->size, &size, err));
    uint8_t *bytes = kvant_alloc(size, 1);
    if (!bytes) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    kvant_status st = kvant_os_file_read(f, 0, bytes, size) ? kvant_store_head_parse(path, bytes, size, f->size, out, err)
                                                            : kvant_fail(err, KVANT_EIO, "%s: cannot be read", path);
    kvant_free(bytes);
    return st;
}

kvant_status kvant_store_page_read(const char *path, const kvant_os_file *f, const kvant_store_head *h, int layer, uint8_t *bytes,
                                   kvant_error *err) {
    const kvant_store_layer *l = &h->layers[layer];
    uint8_t sum[KVANT_HASH_BYTES];
    if (!kvant_os_file_read(f, l->offset, bytes, (size_t)l->bytes))
        return kvant_fail(err, KVANT_EIO, "%s: the page of layer %d cannot be read", path, layer);
    kvant_hash_of(bytes, (size_t)l->bytes, sum);
    if (memcmp(sum, l->checksum, sizeof sum) != 0)
        return kvant_fail(err, KVANT_EFORMAT, "%s: the checksum of the page of layer %d does not match; the file is damaged", path, layer);
    return KVANT_OK;
}

/* ---- comparing ---- */

static kvant_status differ(const char *path, const char *field, int64_t found, int64_t expected, kvant_error *err) {
    return kvant_fail(err, KVANT_EINVAL, "%s: is of another model or other settings: %s: found %lld, expected %lld", path, field,
                      (long long)found, (long long)expected);
}

static kvant_status differ_in_format(const char *path, int layer, char side, const kvant_format *found, const kvant_format *expected,
                                     kvant_error *err) {
    char names[2][KVANT_FORMAT_NAME_MAX];
    kvant_format_name(found, names[0]);
    kvant_format_name(expected, names[1]);
    return kvant_fail(err, KVANT_EINVAL, "%s: is of other settings: format of %c in layer %d: found %s, expected %s", path, side, layer,
                      names[0], names[1]);
}

kvant_status kvant_store_head_compare(const char *path, const kvant_store_head *a, const kvant_store_head *b, kvant_error *err) {
    const struct {
        const char *name;
        int64_t found, expected;
    } fields[] = {{"layers", a->n_layer, b->n_layer},
                  {"KV heads", a->n_kv_head, b->n_kv_head},
                  {"head_dim", a->head_dim, b->head_dim},
                  {"quantized_kv_start", a->quantized_kv_start, b->quantized_kv_start},
                  {"quantize_after_step", a->flags & KVANT_STORE_AFTER_STEP, b->flags & KVANT_STORE_AFTER_STEP},
                  {"center_floats", a->flags & KVANT_STORE_CENTER_FLOATS, b->flags & KVANT_STORE_CENTER_FLOATS}};
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++)
        if (fields[i].found != fields[i].expected) return differ(path, fields[i].name, fields[i].found, fields[i].expected, err);
    for (int i = 0; i < a->n_layer; i++) {
        const kvant_store_layer *x = &a->layers[i], *y = &b->layers[i];
        if (!kvant_format_equal(&x->k, &y->k)) return differ_in_format(path, i, 'K', &x->k, &y->k, err);
        if (!kvant_format_equal(&x->v, &y->v)) return differ_in_format(path, i, 'V', &x->v, &y->v, err);
        if (x->window.size != y->window.size) return differ(path, "window of a layer", x->window.size, y->window.size, err);
        if (x->window.keep != y->window.keep) return differ(path, "first tokens that a window keeps", x->window.keep, y->window.keep, err);
    }
    if (memcmp(a->fingerprint, b->fingerprint, KVANT_FINGERPRINT_BYTES) != 0)
        return kvant_fail(err, KVANT_EINVAL, "%s: is of another model, calibration or precision (it says \"%s\"): the fingerprints differ", path,
                          a->label);
    return KVANT_OK;
}

// SPDX-License-Identifier: MIT
/* safetensors.c: opens a safetensors file and checks all of it but the numbers themselves.
 *
 * The header is read by a JSON parser that refuses repeated names; each entry is then checked on its own, and last, in the order
 * of their offsets, that no two share bytes. */
#include "file/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"

#define NAME_MAX_BYTES 512

static const struct {
    const char *name;
    int bytes;
} types[] = {{"BOOL", 1}, {"U8", 1},  {"I8", 1},  {"F8_E5M2", 1}, {"F8_E4M3", 1}, {"U16", 2}, {"I16", 2}, {"F16", 2},
             {"BF16", 2}, {"U32", 4}, {"I32", 4}, {"F32", 4},     {"U64", 8},     {"I64", 8}, {"F64", 8}};

const char *kvant_safetensors_type_name(kvant_safetensors_type type) { return types[type].name; }

typedef struct reader {
    kvant_safetensors *f;
    size_t data_begin;
    kvant_error *err;
} reader;

/* A name that may stand in a sentence. */
static kvant_status check_name(const reader *r, const char *name, size_t size) {
    if (size == 0) return kvant_fail(r->err, KVANT_EFORMAT, "%s: a tensor has an empty name", r->f->path);
    if (size > NAME_MAX_BYTES)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: a tensor has a name of %zu bytes, expected at most %d", r->f->path, size,
                          NAME_MAX_BYTES);
    for (size_t i = 0; i < size; i++)
        if ((unsigned char)name[i] < 0x20 || name[i] == 0x7F)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: a tensor has a name with the control character 0x%02x", r->f->path,
                              (unsigned char)name[i]);
    return KVANT_OK;
}

static kvant_status read_type(const reader *r, const json_t *entry, kvant_safetensor *t) {
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    if (!dtype) return kvant_fail(r->err, KVANT_EFORMAT, "%s: tensor %s has no dtype", r->f->path, t->name);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(dtype, types[i].name) == 0) {
            t->type = (kvant_safetensors_type)i;
            return KVANT_OK;
        }
    bool plain = strlen(dtype) <= 16;
    for (const char *p = dtype; *p; p++)
        plain = plain && *p > 0x20 && *p < 0x7F;
    return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: tensor %s has the dtype %s, which Kvant does not know", r->f->path,
                      t->name, plain ? dtype : "(not printable)");
}

static kvant_status read_shape(const reader *r, const json_t *entry, kvant_safetensor *t) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return kvant_fail(r->err, KVANT_EFORMAT, "%s: tensor %s has no shape", r->f->path, t->name);
    size_t n = json_array_size(shape), bytes = (size_t)types[t->type].bytes;
    if (n > KVANT_SAFETENSORS_MAX_DIMS)
        return kvant_fail(r->err, KVANT_EUNSUPPORTED, "%s: tensor %s has %zu dimensions, expected at most %d", r->f->path,
                          t->name, n, KVANT_SAFETENSORS_MAX_DIMS);
    t->n_dims = (int)n;
    for (size_t i = 0; i < KVANT_SAFETENSORS_MAX_DIMS; i++)
        t->dims[i] = 1;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(shape, i);
        json_int_t d = json_integer_value(dim);
        if (!json_is_integer(dim) || d < 1)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: dimension %zu of tensor %s is not a whole number from 1 on", r->f->path,
                              i, t->name);
        if ((uint64_t)d > SIZE_MAX / bytes)
            return kvant_fail(r->err, KVANT_EFORMAT, "%s: the shape of tensor %s needs more bytes than there can be", r->f->path,
                              t->name);
        bytes *= (size_t)d;
        t->dims[i] = (int64_t)d;
    }
    t->bytes = bytes;
    return KVANT_OK;
}

static kvant_status read_place(const reader *r, const json_t *entry, kvant_safetensor *t) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *second = json_array_get(offsets, 1);
    json_int_t begin = json_integer_value(first), end = json_integer_value(second);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(second) || begin < 0 || end < begin)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: the data_offsets of tensor %s are not two whole numbers, the second one not less", r->f->path,
                          t->name);
    uint64_t room = r->f->map.size - r->data_begin;
    if ((uint64_t)end > room)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: tensor %s ends at byte %" PRId64 " of the data, but there are %" PRIu64 " (truncated download?)",
                          r->f->path, t->name, (int64_t)end, room);
    if ((uint64_t)(end - begin) != t->bytes)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: tensor %s has %" PRId64 " bytes, but its shape in %s needs %zu", r->f->path,
                          t->name, (int64_t)(end - begin), types[t->type].name, t->bytes);
    t->data = r->f->map.data + r->data_begin + (size_t)begin;
    return KVANT_OK;
}

static kvant_status read_entry(const reader *r, const json_t *entry, kvant_safetensor *t) {
    if (!json_is_object(entry))
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: the entry of tensor %s is not an object", r->f->path, t->name);
    KVANT_TRY(read_type(r, entry, t));
    KVANT_TRY(read_shape(r, entry, t));
    return read_place(r, entry, t);
}

static int compare_names(const void *a, const void *b) {
    return strcmp(((const kvant_safetensor *)a)->name, ((const kvant_safetensor *)b)->name);
}

static int compare_places(const void *a, const void *b) {
    const uint8_t *pa = (*(const kvant_safetensor *const *)a)->data, *pb = (*(const kvant_safetensor *const *)b)->data;
    return (pa > pb) - (pa < pb);
}

/* Two tensors that share bytes: a file that repeats the same bytes a million times would unfold on loading. */
static kvant_status check_overlaps(const reader *r) {
    size_t n = (size_t)r->f->n_tensors;
    const kvant_safetensor **order = kvant_alloc(n + 1, sizeof *order);
    if (!order) return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for the places of %zu tensors", r->f->path, n);
    for (size_t i = 0; i < n; i++)
        order[i] = &r->f->tensors[i];
    qsort(order, n, sizeof *order, compare_places);
    kvant_status st = KVANT_OK;
    for (size_t i = 1; i < n && st == KVANT_OK; i++)
        if (order[i - 1]->data + order[i - 1]->bytes > order[i]->data)
            st = kvant_fail(r->err, KVANT_EFORMAT, "%s: the tensors %s and %s share bytes", r->f->path, order[i - 1]->name,
                            order[i]->name);
    kvant_free(order);
    return st;
}

static kvant_status read_entries(reader *r, json_t *header) {
    kvant_safetensors *f = r->f;
    size_t n_entries = json_object_size(header), name_bytes = 0, at = 0;
    const char *key;
    json_t *entry;
    json_object_foreach(header, key, entry) name_bytes += strlen(key) + 1;
    f->tensors = kvant_alloc(n_entries + 1, sizeof *f->tensors);
    f->names = kvant_alloc(name_bytes + 1, 1);
    if (!f->tensors || !f->names || n_entries > INT32_MAX)
        return kvant_fail(r->err, KVANT_ENOMEM, "%s: no memory for %zu tensors", f->path, n_entries);
    json_object_foreach(header, key, entry) {
        if (strcmp(key, "__metadata__") == 0) continue;
        size_t size = strlen(key);
        KVANT_TRY(check_name(r, key, size));
        kvant_safetensor *t = &f->tensors[f->n_tensors];
        t->name = memcpy(f->names + at, key, size + 1);
        at += size + 1;
        KVANT_TRY(read_entry(r, entry, t));
        f->n_tensors++;
    }
    qsort(f->tensors, (size_t)f->n_tensors, sizeof *f->tensors, compare_names);
    return check_overlaps(r);
}

static kvant_status read_file(reader *r) {
    kvant_safetensors *f = r->f;
    if (f->map.size < 8)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: has %zu bytes, too few for a safetensors file", f->path, f->map.size);
    uint64_t size = kvant_read_u64(f->map.data);
    if (size > KVANT_SAFETENSORS_MAX_HEADER)
        return kvant_fail(r->err, KVANT_EFORMAT,
                          "%s: claims a header of %" PRIu64 " bytes, expected at most %zu: not a safetensors file", f->path, size,
                          KVANT_SAFETENSORS_MAX_HEADER);
    if (size > f->map.size - 8)
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: claims a header of %" PRIu64 " bytes, but has %zu (truncated download?)",
                          f->path, size, f->map.size);
    r->data_begin = 8 + (size_t)size;
    json_error_t problem;
    json_t *header = json_loadb((const char *)f->map.data + 8, (size_t)size, JSON_REJECT_DUPLICATES, &problem);
    if (!header || !json_is_object(header)) {
        json_decref(header);
        return kvant_fail(r->err, KVANT_EFORMAT, "%s: its header is not a JSON object of unique names (byte %d)", f->path,
                          header ? 0 : problem.position + 8);
    }
    kvant_status st = read_entries(r, header);
    json_decref(header);
    return st;
}

static kvant_status parse(const char *name, kvant_map map, bool borrowed, kvant_safetensors **out, kvant_error *err) {
    kvant_safetensors *f = kvant_alloc(1, sizeof *f);
    if (f) f->path = kvant_strdup(name);
    if (!f || !f->path) {
        kvant_free(f);
        if (!borrowed) kvant_map_close(&map);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to open it", name);
    }
    f->map = map;
    f->borrowed = borrowed;
    reader r = {.f = f, .err = err};
    kvant_status st = read_file(&r);
    if (st != KVANT_OK) {
        kvant_safetensors_close(f);
        return st;
    }
    *out = f;
    return KVANT_OK;
}

kvant_status kvant_safetensors_open(const char *path, kvant_safetensors **out, kvant_error *err) {
    kvant_map map;
    KVANT_TRY(kvant_map_open(path, &map, err));
    return parse(path, map, false, out, err);
}

kvant_status kvant_safetensors_parse(const char *name, const uint8_t *data, size_t size, kvant_safetensors **out,
                                     kvant_error *err) {
    return parse(name, (kvant_map){data, size}, true, out, err);
}

void kvant_safetensors_close(kvant_safetensors *f) {
    if (!f) return;
    if (!f->borrowed) kvant_map_close(&f->map);
    kvant_free(f->tensors);
    kvant_free(f->names);
    kvant_free(f->path);
    kvant_free(f);
}

const kvant_safetensor *kvant_safetensors_find(const kvant_safetensors *f, const char *name) {
    kvant_safetensor key = {.name = name};
    return f->n_tensors ? bsearch(&key, f->tensors, (size_t)f->n_tensors, sizeof key, compare_names) : NULL;
}

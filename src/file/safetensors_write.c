// SPDX-License-Identifier: MIT
/* safetensors_write.c: the header of a safetensors file, from announcements to bytes, and the texts of one that was opened. */
#include "file/safetensors_write.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"

#define HEADER_PREFIX 8

int kvant_safetensors_type_bytes(kvant_safetensors_type type) {
    switch (type) {
    case KVANT_ST_BOOL:
    case KVANT_ST_U8:
    case KVANT_ST_I8:
    case KVANT_ST_F8_E5M2:
    case KVANT_ST_F8_E4M3:
        return 1;
    case KVANT_ST_U16:
    case KVANT_ST_I16:
    case KVANT_ST_F16:
    case KVANT_ST_BF16:
        return 2;
    case KVANT_ST_U32:
    case KVANT_ST_I32:
    case KVANT_ST_F32:
        return 4;
    case KVANT_ST_U64:
    case KVANT_ST_I64:
    case KVANT_ST_F64:
        return 8;
    }
    return 0;
}

/* ---- writing ---- */

void kvant_safetensors_writer_init(kvant_safetensors_writer *w) {
    *w = (kvant_safetensors_writer){.status = KVANT_OK};
    kvant_buffer_init(&w->metadata, KVANT_SAFETENSORS_MAX_HEADER / 2);
    kvant_buffer_init(&w->tensors, KVANT_SAFETENSORS_MAX_HEADER / 2);
}

void kvant_safetensors_writer_free(kvant_safetensors_writer *w) {
    kvant_buffer_free(&w->metadata);
    kvant_buffer_free(&w->tensors);
}

static void put(kvant_safetensors_writer *w, kvant_buffer *b, const char *text) {
    if (w->status == KVANT_OK) w->status = kvant_buffer_append_str(b, text);
}

/* A JSON string; bytes that are not UTF-8 are refused. */
static void put_string(kvant_safetensors_writer *w, kvant_buffer *b, const char *text) {
    json_t *string = json_string(text);
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    if (quoted)
        put(w, b, quoted);
    else
        w->status = KVANT_EINVAL;
    free(quoted);
    json_decref(string);
}

void kvant_safetensors_writer_text(kvant_safetensors_writer *w, const char *key, const char *value) {
    if (w->metadata.size > 0) put(w, &w->metadata, ",");
    put_string(w, &w->metadata, key);
    put(w, &w->metadata, ":");
    put_string(w, &w->metadata, value);
}

void kvant_safetensors_writer_tensor(kvant_safetensors_writer *w, const char *name, kvant_safetensors_type type, int n_dims,
                                     const int64_t *dims) {
    char text[96];
    uint64_t bytes = (uint64_t)kvant_safetensors_type_bytes(type);
    if (w->tensors.size > 0) put(w, &w->tensors, ",");
    put_string(w, &w->tensors, name);
    put(w, &w->tensors, ":{\"dtype\":\"");
    put(w, &w->tensors, kvant_safetensors_type_name(type));
    put(w, &w->tensors, "\",\"shape\":[");
    for (int i = 0; i < n_dims; i++) {
        snprintf(text, sizeof text, "%s%" PRId64, i ? "," : "", dims[i]);
        put(w, &w->tensors, text);
        if (dims[i] < 1 || bytes > INT64_MAX / (uint64_t)dims[i])
            w->status = KVANT_EINVAL;
        else
            bytes *= (uint64_t)dims[i];
    }
    snprintf(text, sizeof text, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", w->data_bytes, w->data_bytes + bytes);
    put(w, &w->tensors, text);
    w->data_bytes += bytes;
}

kvant_status kvant_safetensors_writer_header(kvant_safetensors_writer *w, kvant_buffer *out, kvant_error *err) {
    uint8_t prefix[HEADER_PREFIX] = {0};
    size_t begin = out->size;
    if (w->status == KVANT_OK) w->status = kvant_buffer_append(out, prefix, sizeof prefix);
    put(w, out, "{");
    if (w->metadata.size > 0) {
        put(w, out, "\"__metadata__\":{");
        put(w, out, w->metadata.data);
        put(w, out, w->tensors.size > 0 ? "}," : "}");
    }
    if (w->tensors.size > 0) put(w, out, w->tensors.data);
    put(w, out, "}");
    while (w->status == KVANT_OK && (out->size - begin) % 8 != 0)
        put(w, out, " ");
    if (w->status != KVANT_OK)
        return kvant_fail(err, w->status,
                          w->status == KVANT_ENOMEM ? "safetensors: out of memory for the header"
                                                    : "safetensors: the header is too long, or a name is not UTF-8");
    kvant_write_u32((uint8_t *)out->data + begin, (uint32_t)(out->size - begin - HEADER_PREFIX));
    return KVANT_OK;
}

/* ---- reading ---- */

typedef struct pair {
    const char *key, *value;
} pair;

static int compare_pairs(const void *a, const void *b) { return strcmp(((const pair *)a)->key, ((const pair *)b)->key); }

/* Keys and values are copied one behind the other. */
static kvant_status copy_texts(const kvant_safetensors *f, json_t *metadata, kvant_safetensors_texts *out, kvant_error *err) {
    size_t n = json_object_size(metadata), bytes = 0, at = 0, i = 0;
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return kvant_fail(err, KVANT_EFORMAT, "%s: an entry of __metadata__ is not a string", f->path);
        bytes += strlen(key) + strlen(json_string_value(value)) + 2;
    }
    pair *pairs = kvant_alloc(n + 1, sizeof *pairs);
    out->keys = kvant_alloc(n + 1, sizeof *out->keys);
    out->values = kvant_alloc(n + 1, sizeof *out->values);
    out->memory = kvant_alloc(bytes + 1, 1);
    if (!pairs || !out->keys || !out->values || !out->memory) {
        kvant_free(pairs);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for its __metadata__", f->path);
    }
    json_object_foreach(metadata, key, value) {
        size_t key_bytes = strlen(key) + 1, value_bytes = strlen(json_string_value(value)) + 1;
        pairs[i].key = memcpy(out->memory + at, key, key_bytes);
        pairs[i++].value = memcpy(out->memory + at + key_bytes, json_string_value(value), value_bytes);
        at += key_bytes + value_bytes;
    }
    qsort(pairs, n, sizeof *pairs, compare_pairs);
    for (i = 0; i < n; i++) {
        out->keys[i] = pairs[i].key;
        out->values[i] = pairs[i].value;
    }
    out->n = (int)n;
    kvant_free(pairs);
    return KVANT_OK;
}

kvant_status kvant_safetensors_texts_read(const kvant_safetensors *f, kvant_safetensors_texts *out, kvant_error *err) {
    *out = (kvant_safetensors_texts){0};
    size_t size = (size_t)kvant_read_u64(f->map.data); /* checked when the file was opened, as is the JSON */
    json_t *header = json_loadb((const char *)f->map.data + HEADER_PREFIX, size, JSON_REJECT_DUPLICATES, NULL);
    json_t *metadata = json_object_get(header, "__metadata__");
    kvant_status st = header ? KVANT_OK : kvant_fail(err, KVANT_ENOMEM, "%s: no memory for its header", f->path);
    if (metadata && !json_is_object(metadata))
        st = kvant_fail(err, KVANT_EFORMAT, "%s: its __metadata__ is not an object", f->path);
    if (st == KVANT_OK && metadata) st = copy_texts(f, metadata, out, err);
    json_decref(header);
    if (st != KVANT_OK) kvant_safetensors_texts_free(out);
    return st;
}

void kvant_safetensors_texts_free(kvant_safetensors_texts *t) {
    kvant_free(t->keys);
    kvant_free(t->values);
    kvant_free(t->memory);
    *t = (kvant_safetensors_texts){0};
}

const char *kvant_safetensors_texts_find(const kvant_safetensors_texts *t, const char *key) {
    int low = 0, high = t->n;
    while (low < high) {
        int middle = low + (high - low) / 2, order = strcmp(key, t->keys[middle]);
        if (order == 0) return t->values[middle];
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

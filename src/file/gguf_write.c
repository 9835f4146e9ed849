// SPDX-License-Identifier: MIT
/* gguf_write.c: the head of a GGUF file, from announcements to bytes. */
#include "file/gguf_write.h"

#include <string.h>

#include "base/bytes.h"

#define VERSION 3

void kvant_gguf_writer_init(kvant_gguf_writer *w) {
    *w = (kvant_gguf_writer){.status = KVANT_OK};
    kvant_buffer_init(&w->values, KVANT_GGUF_HEAD_MAX / 2);
    kvant_buffer_init(&w->tensors, KVANT_GGUF_HEAD_MAX / 2);
}

void kvant_gguf_writer_free(kvant_gguf_writer *w) {
    kvant_buffer_free(&w->values);
    kvant_buffer_free(&w->tensors);
}

static void append(kvant_buffer *b, const void *bytes, size_t size, kvant_status *status) {
    if (*status == KVANT_OK) *status = kvant_buffer_append(b, bytes, size);
}

static void append_u32(kvant_buffer *b, uint32_t value, kvant_status *status) {
    uint8_t bytes[4];
    kvant_write_u32(bytes, value);
    append(b, bytes, sizeof bytes, status);
}

static void append_u64(kvant_buffer *b, uint64_t value, kvant_status *status) {
    append_u32(b, (uint32_t)value, status);
    append_u32(b, (uint32_t)(value >> 32), status);
}

void kvant_gguf_append_string(kvant_buffer *b, const char *text, size_t size, kvant_status *status) {
    append_u64(b, size, status);
    append(b, text, size, status);
}

static void begin_value(kvant_gguf_writer *w, const char *key, size_t size, kvant_gguf_type type) {
    kvant_gguf_append_string(&w->values, key, size, &w->status);
    append_u32(&w->values, type, &w->status);
    w->n_values++;
}

void kvant_gguf_put_u32(kvant_gguf_writer *w, const char *key, uint32_t value) {
    begin_value(w, key, strlen(key), KVANT_GGUF_U32);
    append_u32(&w->values, value, &w->status);
}

void kvant_gguf_put_bool(kvant_gguf_writer *w, const char *key, bool value) {
    uint8_t byte = value;
    begin_value(w, key, strlen(key), KVANT_GGUF_BOOL);
    append(&w->values, &byte, 1, &w->status);
}

void kvant_gguf_put_string(kvant_gguf_writer *w, const char *key, const char *text, size_t size) {
    begin_value(w, key, strlen(key), KVANT_GGUF_STRING);
    kvant_gguf_append_string(&w->values, text, size, &w->status);
}

void kvant_gguf_put_array(kvant_gguf_writer *w, const char *key, kvant_gguf_type type, uint64_t n, const void *bytes,
                          size_t size) {
    begin_value(w, key, strlen(key), KVANT_GGUF_ARRAY);
    append_u32(&w->values, type, &w->status);
    append_u64(&w->values, n, &w->status);
    append(&w->values, bytes, size, &w->status);
}

static size_t scalar_bytes(kvant_gguf_type type) {
    switch (type) {
    case KVANT_GGUF_U8:
    case KVANT_GGUF_I8:
    case KVANT_GGUF_BOOL:
        return 1;
    case KVANT_GGUF_U16:
    case KVANT_GGUF_I16:
        return 2;
    case KVANT_GGUF_U32:
    case KVANT_GGUF_I32:
    case KVANT_GGUF_F32:
        return 4;
    case KVANT_GGUF_U64:
    case KVANT_GGUF_I64:
    case KVANT_GGUF_F64:
        return 8;
    case KVANT_GGUF_STRING:
    case KVANT_GGUF_ARRAY:
        break;
    }
    return 0;
}

/* The bytes of a value behind its type (of an array: of its elements); checked when the file was opened. */
static size_t value_bytes(const kvant_gguf_value *v) {
    if (v->type != KVANT_GGUF_ARRAY)
        return v->type == KVANT_GGUF_STRING ? 8 + (size_t)kvant_read_u64(v->data) : scalar_bytes(v->type);
    if (v->element_type != KVANT_GGUF_STRING) return scalar_bytes(v->element_type) * (size_t)v->n_elements;
    size_t at = 0;
    for (uint64_t i = 0; i < v->n_elements; i++)
        at += 8 + (size_t)kvant_read_u64(v->data + at);
    return at;
}

void kvant_gguf_put_value(kvant_gguf_writer *w, const kvant_gguf_value *v) {
    begin_value(w, v->key.data, v->key.size, v->type);
    if (v->type == KVANT_GGUF_ARRAY) {
        append_u32(&w->values, v->element_type, &w->status);
        append_u64(&w->values, v->n_elements, &w->status);
    }
    append(&w->values, v->data, value_bytes(v), &w->status);
}

void kvant_gguf_put_tensor(kvant_gguf_writer *w, const char *name, size_t name_size, uint32_t type, int n_dims,
                           const int64_t *dims, uint64_t bytes, uint64_t *offset) {
    kvant_gguf_append_string(&w->tensors, name, name_size, &w->status);
    append_u32(&w->tensors, (uint32_t)n_dims, &w->status);
    for (int i = 0; i < n_dims; i++)
        append_u64(&w->tensors, (uint64_t)dims[i], &w->status);
    append_u32(&w->tensors, type, &w->status);
    append_u64(&w->tensors, w->data_bytes, &w->status);
    *offset = w->data_bytes;
    w->data_bytes += (bytes + KVANT_GGUF_ALIGNMENT - 1) / KVANT_GGUF_ALIGNMENT * KVANT_GGUF_ALIGNMENT;
    w->n_tensors++;
}

kvant_status kvant_gguf_writer_head(kvant_gguf_writer *w, kvant_buffer *out, kvant_error *err) {
    static const char zeros[KVANT_GGUF_ALIGNMENT];
    append(out, "GGUF", 4, &w->status);
    append_u32(out, VERSION, &w->status);
    append_u64(out, w->n_tensors, &w->status);
    append_u64(out, w->n_values, &w->status);
    append(out, w->values.data, w->values.size, &w->status);
    append(out, w->tensors.data, w->tensors.size, &w->status);
    append(out, zeros, (KVANT_GGUF_ALIGNMENT - out->size % KVANT_GGUF_ALIGNMENT) % KVANT_GGUF_ALIGNMENT, &w->status);
    if (w->status == KVANT_OK) return KVANT_OK;
    return kvant_fail(err, w->status,
                      w->status == KVANT_EFULL ? "GGUF: the metadata are longer than 1 GiB" : "GGUF: out of memory");
}

// SPDX-License-Identifier: MIT
/* gguf_builder.h: writes GGUF bytes into memory for tests, good ones and broken ones: every field is written as it is told,
 * nothing is checked. */
#ifndef KVANT_TESTS_GGUF_BUILDER_H
#define KVANT_TESTS_GGUF_BUILDER_H

#include <stdint.h>
#include <string.h>

#include "file/gguf.h"

#define GGUF_BUILDER_ROOM 65536

typedef struct gguf_builder {
    uint8_t data[GGUF_BUILDER_ROOM];
    size_t size;
} gguf_builder;

static inline void put_bytes(gguf_builder *b, const void *p, size_t n) {
    if (n > GGUF_BUILDER_ROOM - b->size) n = GGUF_BUILDER_ROOM - b->size;
    memcpy(b->data + b->size, p, n);
    b->size += n;
}

/* Little-endian; more than 8 bytes end in zeros. */
static inline void put_uint(gguf_builder *b, uint64_t v, int n_bytes) {
    for (int i = 0; i < n_bytes; i++) {
        uint8_t byte = i < 8 ? (uint8_t)(v >> (8 * i)) : 0;
        put_bytes(b, &byte, 1);
    }
}

static inline void put_text(gguf_builder *b, const char *s) {
    put_uint(b, strlen(s), 8);
    put_bytes(b, s, strlen(s));
}

static inline void put_header(gguf_builder *b, uint32_t version, uint64_t n_tensors, uint64_t n_values) {
    b->size = 0;
    put_bytes(b, "GGUF", 4);
    put_uint(b, version, 4);
    put_uint(b, n_tensors, 8);
    put_uint(b, n_values, 8);
}

static inline void put_key(gguf_builder *b, const char *key, uint32_t type) {
    put_text(b, key);
    put_uint(b, type, 4);
}

static inline void put_scalar(gguf_builder *b, const char *key, uint32_t type, uint64_t bits, int n_bytes) {
    put_key(b, key, type);
    put_uint(b, bits, n_bytes);
}

static inline void put_u32(gguf_builder *b, const char *key, uint32_t v) { put_scalar(b, key, KVANT_GGUF_U32, v, 4); }

static inline void put_string(gguf_builder *b, const char *key, const char *s) {
    put_key(b, key, KVANT_GGUF_STRING);
    put_text(b, s);
}

static inline void put_array(gguf_builder *b, const char *key, uint32_t element_type, uint64_t n) {
    put_key(b, key, KVANT_GGUF_ARRAY);
    put_uint(b, element_type, 4);
    put_uint(b, n, 8);
}

static inline void put_tensor(gguf_builder *b, const char *name, uint32_t n_dims, const uint64_t *dims, uint32_t type,
                              uint64_t offset) {
    put_text(b, name);
    put_uint(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put_uint(b, dims[i], 8);
    put_uint(b, type, 4);
    put_uint(b, offset, 8);
}

static inline void put_padding(gguf_builder *b, size_t alignment) {
    while (b->size % alignment != 0)
        put_uint(b, 0, 1);
}

#endif

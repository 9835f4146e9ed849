// SPDX-License-Identifier: MIT
/* safetensors_builder.h: safetensors files in memory, for tests. */
#ifndef SAFETENSORS_BUILDER_H
#define SAFETENSORS_BUILDER_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct st_file {
    uint8_t *bytes;
    size_t size;
} st_file;

/* A file of this header and so many bytes of data, 0, 1, 2, ... */
static inline st_file st_make(const char *header, size_t data_bytes) {
    size_t n = strlen(header);
    st_file f = {malloc(8 + n + data_bytes), 8 + n + data_bytes};
    for (int i = 0; i < 8; i++)
        f.bytes[i] = (uint8_t)((uint64_t)n >> (8 * i));
    memcpy(f.bytes + 8, header, n);
    for (size_t i = 0; i < data_bytes; i++)
        f.bytes[8 + n + i] = (uint8_t)i;
    return f;
}

/* A header that grows tensor by tensor. */
typedef struct st_header {
    char text[16384];
    size_t at, offset;
} st_header;

/* shape: "2,3"; bytes: of its data, which follow those of the tensor before. */
static inline void st_add(st_header *h, const char *name, const char *dtype, const char *shape, size_t bytes) {
    h->at += (size_t)snprintf(h->text + h->at, sizeof h->text - h->at,
                              "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%zu,%zu]}", h->at ? "," : "{", name,
                              dtype, shape, h->offset, h->offset + bytes);
    h->offset += bytes;
}

static inline st_file st_finish(st_header *h) {
    snprintf(h->text + h->at, sizeof h->text - h->at, "}");
    return st_make(h->text, h->offset);
}

#endif

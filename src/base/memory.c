// SPDX-License-Identifier: MIT
/* memory.c: checked allocation, counted; a growing buffer with a cap. */
#include "base/memory.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64

static _Atomic uint64_t n_allocations;

static void count_allocation(void) { atomic_fetch_add_explicit(&n_allocations, 1, memory_order_relaxed); }

uint64_t kvant_alloc_count(void) { return atomic_load_explicit(&n_allocations, memory_order_relaxed); }

void *kvant_alloc(size_t n, size_t size) {
    size_t bytes;
    if (!kvant_mul_size(n, size, &bytes)) return NULL; /* calloc checks too, but sanitizers end the program there */
    count_allocation();
    return calloc(n ? n : 1, size ? size : 1);
}

void *kvant_realloc(void *p, size_t n, size_t size) {
    size_t bytes;
    if (!kvant_mul_size(n, size, &bytes)) return NULL;
    count_allocation();
    return realloc(p, bytes ? bytes : 1);
}

void *kvant_alloc_aligned(size_t n, size_t size) {
    size_t bytes;
    if (!kvant_mul_size(n, size, &bytes) || bytes > SIZE_MAX - ALIGNMENT) return NULL;
    count_allocation();
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, bytes ? bytes : ALIGNMENT);
}

void kvant_free(void *p) { free(p); }

void kvant_free_aligned(void *p) { free(p); }

char *kvant_strdup(const char *s) {
    size_t n = strlen(s) + 1;
    char *copy = kvant_alloc(n, 1);
    if (copy) memcpy(copy, s, n);
    return copy;
}

void kvant_buffer_init(kvant_buffer *b, size_t cap) { *b = (kvant_buffer){.cap = cap}; }

void kvant_buffer_free(kvant_buffer *b) {
    kvant_free(b->data);
    *b = (kvant_buffer){.cap = b->cap};
}

kvant_status kvant_buffer_append(kvant_buffer *b, const void *p, size_t n) {
    if (n > b->cap || b->size > b->cap - n) return KVANT_EFULL;
    size_t need = b->size + n + 1;
    if (need > b->room) {
        size_t room = b->room ? b->room : 64;
        while (room < need) room *= 2;
        char *data = kvant_realloc(b->data, room, 1);
        if (!data) return KVANT_ENOMEM;
        b->data = data;
        b->room = room;
    }
    if (n) memcpy(b->data + b->size, p, n);
    b->size += n;
    b->data[b->size] = '\0';
    return KVANT_OK;
}

kvant_status kvant_buffer_append_str(kvant_buffer *b, const char *s) { return kvant_buffer_append(b, s, strlen(s)); }

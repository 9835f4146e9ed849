// SPDX-License-Identifier: MIT
/* memory.h: checked allocation and a growing byte buffer with a cap.
 *
 * All heap memory of Kvant comes from these functions, so that a test can count allocations and bytes. */
#ifndef KVANT_BASE_MEMORY_H
#define KVANT_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* All return NULL on overflow of n * size or when memory is out. kvant_alloc: zeroed, for malloc-sized objects.
 * kvant_alloc_aligned: 64-byte aligned, not zeroed, for data that kernels read. Freed by kvant_free / kvant_free_aligned. */
void *kvant_alloc(size_t n, size_t size);
void *kvant_realloc(void *p, size_t n, size_t size);
void *kvant_alloc_aligned(size_t n, size_t size);
void kvant_free(void *p);
void kvant_free_aligned(void *p);
char *kvant_strdup(const char *s);

/* The number of calls to the allocating functions above since the process began (tests assert that decoding adds none). */
uint64_t kvant_alloc_count(void);

/* a * b in size_t, or false when it does not fit. */
static inline bool kvant_mul_size(size_t a, size_t b, size_t *out) {
    if (b != 0 && a > SIZE_MAX / b) return false;
    *out = a * b;
    return true;
}

/* A growing array of bytes that never exceeds `cap`. data is NUL-terminated after every append. */
typedef struct kvant_buffer {
    char *data;
    size_t size, room, cap;
} kvant_buffer;

void kvant_buffer_init(kvant_buffer *b, size_t cap);
void kvant_buffer_free(kvant_buffer *b);
/* KVANT_EFULL beyond the cap, KVANT_ENOMEM without memory; nothing is appended then. */
kvant_status kvant_buffer_append(kvant_buffer *b, const void *p, size_t n);
kvant_status kvant_buffer_append_str(kvant_buffer *b, const char *s);

#endif

// SPDX-License-Identifier: MIT
/* kernel_prefetch.h: reading ahead. What is read at the start of the next call comes from memory while this one computes. */
#ifndef KVANT_KERNEL_X86_KERNEL_PREFETCH_H
#define KVANT_KERNEL_X86_KERNEL_PREFETCH_H

#include <stddef.h>

/* Asks for part i of n of `bytes` bytes: few requests at a time, or a kernel waits for them to be taken.
 * always_inline: GCC drops calls of a function that does nothing but prefetch. */
static inline __attribute__((always_inline)) void prefetch_part(const void *next, size_t bytes, size_t i, size_t n) {
    const size_t lines = (bytes + 63) / 64;
    for (size_t line = lines * i / n; line < lines * (i + 1) / n; line++)
        __builtin_prefetch((const char *)next + line * 64);
}

#endif

// SPDX-License-Identifier: MIT
/* kernel_inline.h: how the kernels ask for specialised, unrolled code.
 *
 * Loops over registers must be unrolled, or the arrays of registers stay in memory. Under a sanitizer every access of every copy
 * would be instrumented, and compiling takes many minutes; there the same code stays in plain functions and loops. */
#ifndef KVANT_KERNEL_X86_KERNEL_INLINE_H
#define KVANT_KERNEL_X86_KERNEL_INLINE_H

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define KERNEL_SANITIZED
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || __has_feature(memory_sanitizer) || \
    __has_feature(undefined_behavior_sanitizer) || __has_feature(coverage_sanitizer)
#define KERNEL_SANITIZED
#endif
#endif

#if defined(KERNEL_SANITIZED)
#define UNROLL
#define KERNEL_INLINE(features) static __attribute__((noinline, target(features)))
#else
#define KERNEL_INLINE(features) static inline __attribute__((always_inline, target(features)))
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif
#endif

#endif

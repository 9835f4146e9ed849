// SPDX-License-Identifier: MIT
/* context.h: what computation needs, passed down by pointer: the kernel table of one instruction level and the threads.
 * The table's type is known to kernel/ and above only; base carries the pointer. */
#ifndef KVANT_BASE_CONTEXT_H
#define KVANT_BASE_CONTEXT_H

#include "base/threads.h"

struct kvant_kernels;

struct kvant_context {
    const struct kvant_kernels *kernels;
    kvant_pool *pool;
    kvant_isa isa;
};

#endif

// SPDX-License-Identifier: MIT
/* context.c: a context is the kernel table of one instruction level and a pool of threads. */
#include "base/context.h"

#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "kernel/kernel_table.h"

#ifndef KVANT_VERSION
#define KVANT_VERSION "0.0.0"
#endif

#define MAX_THREADS 256

static const struct {
    kvant_isa isa;
    const char *name;
} isa_names[] = {
    {KVANT_ISA_REF, "ref"}, {KVANT_ISA_AVX2, "avx2"}, {KVANT_ISA_AVX512, "avx512"}, {KVANT_ISA_BEST, "best"}};

const char *kvant_version(void) { return KVANT_VERSION; }

const char *kvant_isa_name(kvant_isa isa) {
    for (size_t i = 0; i < sizeof isa_names / sizeof isa_names[0]; i++)
        if (isa_names[i].isa == isa) return isa_names[i].name;
    return "unknown";
}

kvant_status kvant_isa_parse(const char *name, kvant_isa *out) {
    for (size_t i = 0; i < sizeof isa_names / sizeof isa_names[0]; i++) {
        if (strcmp(isa_names[i].name, name) != 0) continue;
        *out = isa_names[i].isa;
        return KVANT_OK;
    }
    return KVANT_EINVAL;
}

kvant_status kvant_context_create(int n_threads, kvant_isa isa, kvant_context **out, kvant_error *err) {
    if (n_threads < 0 || n_threads > MAX_THREADS)
        return kvant_fail(err, KVANT_EINVAL, "threads: found %d, expected 0 (the physical cores) to %d", n_threads, MAX_THREADS);
    const kvant_kernels *kernels = kvant_kernels_for(isa);
    if (!kernels)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "instruction level %s: this machine has %s at most", kvant_isa_name(isa),
                          kvant_isa_name(kvant_isa_detect()));
    kvant_context *ctx = kvant_alloc(1, sizeof *ctx);
    if (!ctx) return kvant_fail(err, KVANT_ENOMEM, "context: out of memory");
    ctx->kernels = kernels;
    ctx->isa = isa == KVANT_ISA_BEST ? kvant_isa_detect() : isa;
    kvant_status st = kvant_pool_create(n_threads ? n_threads : kvant_os_cores(), &ctx->pool);
    if (st != KVANT_OK) {
        kvant_free(ctx);
        return kvant_fail(err, st, "context: %d threads could not be started", n_threads);
    }
    *out = ctx;
    return KVANT_OK;
}

void kvant_context_destroy(kvant_context *ctx) {
    if (!ctx) return;
    kvant_pool_destroy(ctx->pool);
    kvant_free(ctx);
}

int kvant_context_threads(const kvant_context *ctx) { return kvant_pool_size(ctx->pool); }

kvant_isa kvant_context_isa(const kvant_context *ctx) { return ctx->isa; }

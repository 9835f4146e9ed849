// SPDX-License-Identifier: MIT
/* page.c: one page: allocation against the budget, references, conversion from one layout to another. */
#include "cache/page.h"

#include <string.h>

#include "base/memory.h"

/* `leaving`: bytes of a page that this one replaces at once; they do not count against the budget. */
static kvant_status create_page(kvant_cache *cache, const kvant_page_layout *layout, size_t leaving, kvant_page **out) {
    size_t budget = cache->config.max_bytes;
    if (budget && cache->bytes - leaving + layout->bytes > budget) return KVANT_EFULL;
    kvant_page *page = kvant_alloc_aligned(layout->bytes, 1);
    if (!page) return KVANT_ENOMEM;
    /* Slots without a token are multiplied like the others and weighted with zero, so they must be finite. */
    memset(page, 0, layout->bytes);
    page->layout = layout;
    page->n_references = 1;
    cache->bytes += layout->bytes;
    *out = page;
    return KVANT_OK;
}

kvant_status kvant_page_create(kvant_cache *cache, const kvant_page_layout *layout, kvant_page **out) {
    return create_page(cache, layout, 0, out);
}

kvant_page *kvant_page_share(kvant_page *page) {
    if (page) page->n_references++;
    return page;
}

void kvant_page_release(kvant_cache *cache, kvant_page *page) {
    if (!page || --page->n_references > 0) return;
    cache->bytes -= page->layout->bytes;
    kvant_free_aligned(page);
}

void kvant_page_put(kvant_page *page, int kv_head, int slot, const float *k, const float *v, const kvant_kernels *kernels) {
    const kvant_page_layout *l = page->layout;
    size_t d = (size_t)l->k.head_dim, at = (size_t)slot * d;
    if (slot < l->n_exact) {
        kvant_round_to_half(kvant_page_exact_k(page, kv_head) + at, k, (int)d, kernels);
        kvant_round_to_half(kvant_page_exact_v(page, kv_head) + at, v, (int)d, kernels);
        return;
    }
    l->k.codec->encode(&l->k, kvant_page_k(page, kv_head), slot, k, kernels);
    l->v.codec->encode(&l->v, kvant_page_v(page, kv_head), slot, v, kernels);
}

void kvant_page_get(const kvant_page *page, int kv_head, int slot, float *k, float *v, const kvant_kernels *kernels) {
    const kvant_page_layout *l = page->layout;
    size_t d = (size_t)l->k.head_dim, at = (size_t)slot * d;
    if (slot < l->n_exact) {
        kernels->f16_to_f32(k, kvant_page_exact_k(page, kv_head) + at, (int)d);
        kernels->f16_to_f32(v, kvant_page_exact_v(page, kv_head) + at, (int)d);
        return;
    }
    l->k.codec->decode(&l->k, kvant_page_k(page, kv_head), slot, k, kernels);
    l->v.codec->decode(&l->v, kvant_page_v(page, kv_head), slot, v, kernels);
}

typedef struct convert_job {
    const kvant_page *from;
    kvant_page *to;
    int n; /* tokens */
    const kvant_kernels *k;
} convert_job;

static void convert_task(void *arg, int task, int worker) {
    (void)worker;
    const convert_job *job = arg;
    float k[KVANT_HEAD_DIM_MAX], v[KVANT_HEAD_DIM_MAX];
    for (int slot = 0; slot < job->n; slot++) {
        kvant_page_get(job->from, task, slot, k, v, job->k);
        kvant_page_put(job->to, task, slot, k, v, job->k);
    }
}

kvant_status kvant_page_convert(kvant_cache *cache, const kvant_page *page, int n, const kvant_page_layout *layout,
                                kvant_page **out) {
    kvant_page *copy;
    KVANT_TRY(create_page(cache, layout, page->n_references == 1 ? page->layout->bytes : 0, &copy));
    if (layout == page->layout) { /* encoding again would not give the same codes */
        memcpy((uint8_t *)copy + KVANT_PAGE_HEADER, (const uint8_t *)page + KVANT_PAGE_HEADER, layout->bytes - KVANT_PAGE_HEADER);
    } else {
        convert_job job = {page, copy, n, cache->ctx->kernels};
        kvant_pool_run(cache->ctx->pool, layout->n_kv_head, convert_task, &job);
    }
    *out = copy;
    return KVANT_OK;
}

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

static void convert_part(const kvant_part *from, const uint8_t *src, const kvant_part *to, uint8_t *dst, int n,
                         const kvant_kernels *k) {
    float x[KVANT_HEAD_DIM_MAX];
    for (int slot = 0; slot < n; slot++) {
        from->codec->decode(from, src, slot, x);
        to->codec->encode(to, dst, slot, x, k);
    }
}

kvant_status kvant_page_convert(kvant_cache *cache, const kvant_page *page, int n, const kvant_page_layout *layout,
                                kvant_page **out) {
    kvant_page *copy;
    KVANT_TRY(create_page(cache, layout, page->n_references == 1 ? page->layout->bytes : 0, &copy));
    if (layout == page->layout) { /* encoding again would not give the same codes */
        memcpy((uint8_t *)copy + KVANT_PAGE_HEADER, (const uint8_t *)page + KVANT_PAGE_HEADER, layout->bytes - KVANT_PAGE_HEADER);
        *out = copy;
        return KVANT_OK;
    }
    for (int h = 0; h < layout->n_kv_head; h++) {
        convert_part(&page->layout->k, kvant_page_k(page, h), &layout->k, kvant_page_k(copy, h), n, cache->ctx->kernels);
        convert_part(&page->layout->v, kvant_page_v(page, h), &layout->v, kvant_page_v(copy, h), n, cache->ctx->kernels);
    }
    *out = copy;
    return KVANT_OK;
}

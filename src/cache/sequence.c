// SPDX-License-Identifier: MIT
/* sequence.c: a sequence: for each layer a list of pages and a length. Appending, conversion, sharing, truncation, windows.
 *
 * The list is indexed by the absolute page number, so nothing moves when a window drops pages: 8 bytes a page stay behind.
 * All that can fail is done before the first byte of a token is written. */
#include <string.h>

#include "base/memory.h"
#include "cache/page.h"

#define TOKENS KVANT_PAGE_TOKENS
#define POOL_MIN 8 /* appends of fewer tokens are not worth waking the threads for */

static int n_layer(const kvant_sequence *s) { return s->cache->config.n_layer; }

/* Whether an empty sequence stores its first token quantized. */
static bool starts_packed(const kvant_cache *cache) {
    return cache->config.quantized_kv_start == 0 && !cache->config.quantize_after_step;
}

kvant_status kvant_sequence_create(kvant_cache *cache, kvant_sequence **out) {
    kvant_sequence *s = kvant_alloc(1, sizeof *s);
    kvant_page_list *layers = kvant_alloc((size_t)cache->config.n_layer, sizeof *layers);
    if (!s || !layers) {
        kvant_free(s);
        kvant_free(layers);
        return KVANT_ENOMEM;
    }
    *s = (kvant_sequence){cache, starts_packed(cache), INT64_MAX, layers, false};
    cache->n_sequences++;
    *out = s;
    return KVANT_OK;
}

static void release_pages(kvant_sequence *s, kvant_page_list *l, int from, int to) {
    for (int i = from; i < to; i++) {
        kvant_page_release(s->cache, l->pages[i]);
        l->pages[i] = NULL;
    }
}

void kvant_sequence_destroy(kvant_sequence *s) {
    if (!s) return;
    for (int i = 0; i < n_layer(s); i++) {
        release_pages(s, &s->layers[i], 0, s->layers[i].n_pages);
        kvant_free(s->layers[i].pages);
    }
    s->cache->n_sequences--;
    kvant_free(s->layers);
    kvant_free(s);
}

static kvant_status reserve_pages(kvant_page_list *l, int n) {
    if (n <= l->room) return KVANT_OK;
    int room = l->room ? l->room : 16;
    while (room < n)
        room *= 2;
    kvant_page **pages = kvant_realloc(l->pages, (size_t)room, sizeof *pages);
    if (!pages) return KVANT_ENOMEM;
    l->pages = pages;
    l->room = room;
    return KVANT_OK;
}

kvant_status kvant_sequence_fork(const kvant_sequence *s, kvant_sequence **out) {
    kvant_sequence *copy;
    KVANT_TRY(kvant_sequence_create(s->cache, &copy));
    copy->packed = s->packed;
    copy->hold = s->hold;
    for (int i = 0; i < n_layer(s); i++) {
        const kvant_page_list *from = &s->layers[i];
        kvant_page_list *to = &copy->layers[i];
        if (reserve_pages(to, from->n_pages) != KVANT_OK) {
            kvant_sequence_destroy(copy);
            return KVANT_ENOMEM;
        }
        for (int p = 0; p < from->n_pages; p++)
            to->pages[p] = kvant_page_share(from->pages[p]);
        to->n_pages = from->n_pages;
        to->first_kept = from->first_kept;
        to->length = from->length;
        to->n_appended = from->n_appended;
    }
    *out = copy;
    return KVANT_OK;
}

int64_t kvant_sequence_length(const kvant_sequence *s) {
    int64_t n = s->layers[0].length;
    for (int i = 1; i < n_layer(s); i++)
        if (s->layers[i].length < n) n = s->layers[i].length;
    return n;
}

/* The first page that a query at position p or later can still see, the kept first tokens apart. */
static int64_t first_visible_page(kvant_window w, int64_t p) { return w.size > 0 && p >= w.size ? (p - w.size + 1) / TOKENS : 0; }

bool kvant_cache_needs(const kvant_cache *c, int layer, int64_t page, int64_t n_tokens) {
    kvant_window w = c->windows[layer];
    return page >= first_visible_page(w, n_tokens) || (page == 0 && w.keep > 0);
}

/* Drops the pages that no query from position p on can see, nor from where the sequence is held. */
static void drop_unseen(kvant_sequence *s, int layer, int64_t p) {
    kvant_window w = s->cache->windows[layer];
    kvant_page_list *l = &s->layers[layer];
    int64_t first = first_visible_page(w, p < s->hold ? p : s->hold);
    if (first > l->n_pages) first = l->n_pages;
    if (first <= l->first_kept) return;
    int from = l->first_kept == 0 && w.keep > 0 ? 1 : l->first_kept;
    release_pages(s, l, from, (int)first);
    l->first_kept = (int)first;
}

bool kvant_sequence_can_truncate(const kvant_sequence *s, int64_t n_tokens) {
    for (int i = 0; i < n_layer(s); i++) {
        const kvant_page_list *l = &s->layers[i];
        int64_t needed = first_visible_page(s->cache->windows[i], n_tokens);
        bool all_dropped_is_unseen = needed >= l->first_kept;
        if (n_tokens > 0 && n_tokens < l->length && !all_dropped_is_unseen) return false;
    }
    return true;
}

kvant_status kvant_sequence_truncate(kvant_sequence *s, int64_t n_tokens) {
    if (n_tokens < 0) return KVANT_EINVAL;
    for (int i = 0; i < n_layer(s); i++)
        if (n_tokens > s->layers[i].length) return KVANT_EINVAL;
    if (!kvant_sequence_can_truncate(s, n_tokens)) return KVANT_EUNSUPPORTED;
    for (int i = 0; i < n_layer(s); i++) {
        kvant_page_list *l = &s->layers[i];
        int keep = (int)((n_tokens + TOKENS - 1) / TOKENS);
        release_pages(s, l, keep, l->n_pages);
        l->n_pages = keep;
        if (n_tokens < l->length) l->n_appended = 0;
        l->length = n_tokens;
        if (l->first_kept > keep) l->first_kept = keep;
    }
    if (n_tokens == 0) s->packed = starts_packed(s->cache);
    return KVANT_OK;
}

void kvant_sequence_hold(kvant_sequence *s, int64_t n_tokens) { s->hold = n_tokens < 0 ? INT64_MAX : n_tokens; }

size_t kvant_sequence_bytes(const kvant_sequence *s) {
    size_t bytes = 0;
    for (int i = 0; i < n_layer(s); i++)
        for (int p = 0; p < s->layers[i].n_pages; p++)
            if (s->layers[i].pages[p]) bytes += s->layers[i].pages[p]->layout->bytes;
    return bytes;
}

/* ---- taking over pages ---- */

bool kvant_sequence_is_settled(const kvant_sequence *s) { return s->packed || !s->cache->quantizes; }

kvant_status kvant_sequence_adopt(kvant_sequence *s, kvant_page *const *pages, int n_tokens, bool settled) {
    if (s->layers[0].length % TOKENS != 0 || n_tokens < 1 || n_tokens > TOKENS) return KVANT_EINVAL;
    int64_t length = s->layers[0].length + n_tokens;
    KVANT_TRY(kvant_transforms_reserve(&s->cache->transforms, length));
    for (int i = 0; i < n_layer(s); i++)
        KVANT_TRY(reserve_pages(&s->layers[i], s->layers[i].n_pages + 1));
    for (int i = 0; i < n_layer(s); i++) {
        kvant_page_list *l = &s->layers[i];
        l->pages[l->n_pages++] = pages[i];
        l->length = length;
        l->n_appended = 0;
        if (!pages[i]) l->first_kept = l->n_pages;
    }
    s->packed = settled && s->cache->quantizes ? true : starts_packed(s->cache);
    return KVANT_OK;
}

/* ---- appending ---- */

/* Makes the last page writable and adds pages for n more tokens; on failure nothing has changed. */
static kvant_status grow(kvant_sequence *s, int layer, int n) {
    kvant_cache *cache = s->cache;
    kvant_page_list *l = &s->layers[layer];
    KVANT_TRY(kvant_transforms_reserve(&cache->transforms, l->length + n));
    int n_pages = (int)((l->length + n + TOKENS - 1) / TOKENS), used = (int)(l->length % TOKENS), old = l->n_pages;
    KVANT_TRY(reserve_pages(l, n_pages));
    kvant_page *last = used > 0 ? l->pages[old - 1] : NULL, *copy = NULL;
    if (last && last->n_references > 1) KVANT_TRY(kvant_page_convert(cache, last, used, last->layout, &copy));
    for (int i = old; i < n_pages; i++) {
        const kvant_page_layout *layout = s->packed ? kvant_cache_packed(cache, layer, i) : &cache->plain;
        kvant_status st = kvant_page_create(cache, layout, &l->pages[i]);
        if (st == KVANT_OK) continue;
        release_pages(s, l, old, i);
        kvant_page_release(cache, copy);
        return st;
    }
    if (copy) {
        kvant_page_release(cache, last);
        l->pages[old - 1] = copy;
    }
    l->n_pages = n_pages;
    return KVANT_OK;
}

typedef struct append_job {
    const kvant_append_item *items;
    int n_items, layer;
} append_job;

/* One KV head of one page of one sequence, K and V: tokens of a page share bytes, so they are written by one task. */
static void append_task(void *arg, int task, int worker) {
    (void)worker;
    const append_job *job = arg;
    const kvant_append_item *item = job->items + job->n_items - 1;
    while (item->first_task > task)
        item--;
    const kvant_page_list *l = &item->s->layers[job->layer];
    const kvant_transforms *transforms = &item->s->cache->transforms;
    const kvant_kernels *kernels = item->s->cache->ctx->kernels;
    task -= item->first_task;
    int n_head = transforms->n_kv_head, head = task % n_head, index = (int)(l->length / TOKENS) + task / n_head;
    int64_t begin = (int64_t)index * TOKENS, end = begin + TOKENS;
    size_t d = (size_t)transforms->head_dim;
    float mean[KVANT_HEAD_DIM_MAX], k[KVANT_HEAD_DIM_MAX], v[KVANT_HEAD_DIM_MAX];
    if (begin < l->length) begin = l->length;
    if (end > l->length + item->n) end = l->length + item->n;
    for (int64_t t = begin; t < end; t++) {
        size_t at = ((size_t)(t - l->length) * (size_t)n_head + (size_t)head) * d;
        bool is_next = t > begin && t % KVANT_MEAN_BLOCK != 0;
        if (transforms->layers[job->layer].centred)
            (is_next ? kvant_transform_mean_next : kvant_transform_mean)(transforms, job->layer, head, t, mean);
        kvant_transform_key(transforms, job->layer, head, item->k + at, mean, k, kernels);
        memcpy(v, item->v + at, d * sizeof *v);
        kvant_transform_value(transforms, job->layer, v, kernels);
        kvant_page_put(l->pages[index], head, (int)(t % TOKENS), k, v, kernels);
    }
}

/* Takes away the pages that grow added for tokens that do not come. */
static void shrink(kvant_sequence *s, int layer) {
    kvant_page_list *l = &s->layers[layer];
    int n_pages = (int)((l->length + TOKENS - 1) / TOKENS);
    release_pages(s, l, n_pages, l->n_pages);
    l->n_pages = n_pages;
}

static kvant_status grow_item(const kvant_append_item *item, int layer) {
    kvant_page_list *l = &item->s->layers[layer];
    if (l->length > (INT64_C(1) << 36) - item->n) return KVANT_EFULL;
    drop_unseen(item->s, layer, l->length);
    return grow(item->s, layer, item->n);
}

kvant_status kvant_sequence_append_batch(kvant_append_item *items, int n_items, int layer) {
    int64_t n_tokens = 0;
    int n_task = 0;
    for (int i = 0; i < n_items; i++)
        if (layer < 0 || layer >= n_layer(items[i].s) || items[i].n < 0) return KVANT_EINVAL;
    for (int i = 0; i < n_items; i++) {
        const kvant_page_list *l = &items[i].s->layers[layer];
        kvant_status st = items[i].n > 0 ? grow_item(&items[i], layer) : KVANT_OK;
        if (st != KVANT_OK) {
            for (int k = 0; k < i; k++)
                shrink(items[k].s, layer);
            return st;
        }
        items[i].first_task = n_task;
        if (items[i].n == 0) continue;
        n_task += (l->n_pages - (int)(l->length / TOKENS)) * items[i].s->cache->config.n_kv_head;
        n_tokens += items[i].n;
    }
    append_job job = {items, n_items, layer};
    if (n_tokens < POOL_MIN) {
        for (int t = 0; t < n_task; t++)
            append_task(&job, t, 0);
    } else {
        kvant_pool_run(items[0].s->cache->ctx->pool, n_task, append_task, &job);
    }
    for (int i = 0; i < n_items; i++) {
        items[i].s->layers[layer].length += items[i].n;
        if (items[i].n > 0) items[i].s->layers[layer].n_appended = items[i].n;
    }
    return KVANT_OK;
}

kvant_status kvant_sequence_append(kvant_sequence *s, int layer, const float *k, const float *v, int n) {
    return kvant_sequence_append_batch(&(kvant_append_item){.s = s, .k = k, .v = v, .n = n}, 1, layer);
}

/* ---- conversion ---- */

/* Page after page, so that only one exists twice. What was converted when a later page fails stays so: pages of both kinds
 * can be attended to, and the next call goes on. */
static kvant_status convert_sequence(kvant_sequence *s) {
    for (int i = 0; i < n_layer(s); i++) {
        kvant_page_list *l = &s->layers[i];
        for (int p = 0; p < l->n_pages; p++) {
            const kvant_page_layout *packed = kvant_cache_packed(s->cache, i, p);
            kvant_page *old = l->pages[p], *new;
            int64_t rest = l->length - (int64_t)p * TOKENS;
            if (!old || old->layout == packed) continue;
            KVANT_TRY(kvant_page_convert(s->cache, old, rest < TOKENS ? (int)rest : TOKENS, packed, &new));
            l->pages[p] = new;
            kvant_page_release(s->cache, old);
        }
    }
    s->packed = true;
    return KVANT_OK;
}

kvant_status kvant_maybe_quantize_kv_cache(kvant_sequence *s, bool *converted) {
    bool due = !s->packed && s->cache->quantizes && kvant_sequence_length(s) >= s->cache->config.quantized_kv_start;
    if (converted) *converted = false;
    for (int i = 0; i < n_layer(s); i++)
        drop_unseen(s, i, s->layers[i].length);
    if (!due) return KVANT_OK;
    KVANT_TRY(convert_sequence(s));
    if (converted) *converted = true;
    return KVANT_OK;
}

/* ---- what tests and tools see ---- */

int kvant_sequence_page_count(const kvant_sequence *s, int layer) {
    int n = 0;
    if (layer < 0 || layer >= n_layer(s)) return 0;
    for (int i = 0; i < s->layers[layer].n_pages; i++)
        n += s->layers[layer].pages[i] != NULL;
    return n;
}

kvant_status kvant_sequence_page_info(const kvant_sequence *s, int layer, int index, kvant_page_info *out) {
    if (layer < 0 || layer >= n_layer(s) || index < 0) return KVANT_EINVAL;
    const kvant_page_list *l = &s->layers[layer];
    for (int i = 0; i < l->n_pages; i++) {
        const kvant_page *p = l->pages[i];
        if (!p || index-- > 0) continue;
        int64_t first = (int64_t)i * TOKENS, rest = l->length - first;
        *out = (kvant_page_info){
            first,          rest < TOKENS ? (int)rest : TOKENS, p->layout->k.format, p->layout->v.format, p->layout->bytes,
            p->n_references};
        return KVANT_OK;
    }
    return KVANT_EINVAL;
}

kvant_status kvant_sequence_decode(const kvant_sequence *s, int layer, int64_t token, int kv_head, float *k, float *v) {
    if (layer < 0 || layer >= n_layer(s) || kv_head < 0 || kv_head >= s->cache->config.n_kv_head) return KVANT_EINVAL;
    const kvant_page_list *l = &s->layers[layer];
    if (token < 0 || token >= l->length || !l->pages[token / TOKENS]) return KVANT_EINVAL;
    const kvant_transforms *t = &s->cache->transforms;
    const kvant_kernels *kernels = s->cache->ctx->kernels;
    float mean[KVANT_HEAD_DIM_MAX];
    kvant_page_get(l->pages[token / TOKENS], kv_head, (int)(token % TOKENS), k, v, kernels);
    if (t->layers[layer].centred) kvant_transform_mean(t, layer, kv_head, token, mean);
    kvant_transform_key_back(t, layer, kv_head, k, mean, k, kernels);
    kvant_transform_value_back(t, layer, v, kernels);
    return KVANT_OK;
}

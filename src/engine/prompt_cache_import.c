// SPDX-License-Identifier: MIT
/* prompt_cache_import.c: a prompt-cache file of mlx-lm -> the sequence of a session.
 *
 * Values go the way of computed ones, so that formats, means and windows are the cache's business; afterwards, where a page has
 * the affine format of the file, the file's codes take the place of those that were made from values. Tokens that the file's
 * rings have dropped are zeros in pages that are kept for others; nothing sees them as long as the session does not become
 * shorter. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/prompt_cache.h"

#define TOKENS KVANT_PAGE_TOKENS
#define HALF_MAX 65504.0f

typedef struct importer {
    kvant_session *s;
    kvant_sequence *sequence;
    const kvant_prompt_file *f;
    const char *path;
    int64_t n;
    uint16_t order[KVANT_HEAD_DIM_MAX];
    bool moves;   /* order is not 0, 1, .. */
    float *k, *v; /* [TOKENS][n_kv_head][head_dim] */
} importer;

/* ---- the ids ---- */

/* Those that Kvant wrote -> *out, freed with kvant_free. */
static kvant_status parse_ids(const kvant_prompt_file *f, const char *path, int64_t n, int32_t **out, kvant_error *err) {
    const char *text = kvant_prompt_file_text(f, KVANT_PROMPT_IDS);
    if (!text)
        return kvant_fail(err, KVANT_EINVAL,
                          "%s: does not say which %" PRId64 " tokens it holds; the ids, or the text, of its prompt are needed "
                          "beside it",
                          path, n);
    int32_t *ids = kvant_alloc((size_t)n + 1, sizeof *ids);
    if (!ids) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for %" PRId64 " ids", path, n);
    int64_t found = 0;
    for (char *end; *text && found <= n; text = end) {
        long long id = strtoll(text, &end, 10);
        if (end == text || id < 0 || id > INT32_MAX) break;
        if (found < n) ids[found] = (int32_t)id;
        found++;
        while (*end == ' ')
            end++;
    }
    if (found != n || *text) {
        kvant_free(ids);
        return kvant_fail(err, KVANT_EFORMAT, "%s: its %s are not %" PRId64 " ids, as many as it has tokens", path,
                          KVANT_PROMPT_IDS, n);
    }
    *out = ids;
    return KVANT_OK;
}

/* ---- what the session will see ---- */

/* Every token that a query at position n or later sees. */
static kvant_status check_windows(const importer *m, kvant_error *err) {
    for (int i = 0; i < m->f->n_layer; i++) {
        const kvant_prompt_layer *l = &m->f->layers[i];
        kvant_window w = m->s->shared->cache->windows[i];
        int64_t first_missing = l->n_first, end_missing = l->offset - l->n_last;
        int64_t seen = w.size > 0 && m->n >= w.size ? m->n - w.size + 1 : 0;
        bool keeps = w.size > 0 && w.keep > first_missing;
        if (first_missing >= end_missing || (end_missing <= seen && !keeps)) continue;
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: layer %d no longer has the tokens %" PRId64 " to %" PRId64 " of %" PRId64
                          " (its window is %" PRId64 ", with the first %" PRId64
                          "), which this session would see; a model opened with a "
                          "window of its own (max_kv_size %" PRId64 ") does not",
                          m->path, i, first_missing, end_missing - 1, l->offset, l->max_size, l->keep, l->max_size);
    }
    return KVANT_OK;
}

/* Whether a token that a page of the sequence has is missing. */
static bool has_gaps(const importer *m) {
    for (int i = 0; i < m->f->n_layer; i++) {
        const kvant_prompt_layer *l = &m->f->layers[i];
        if (l->n_first + l->n_last < l->offset) return true;
    }
    return false;
}

/* ---- values ---- */

static kvant_status read_values(const importer *m, int layer, int64_t first, int n, kvant_error *err) {
    const kvant_prompt_layer *l = &m->f->layers[layer];
    int n_head = m->s->model->info.n_kv_head, d = m->s->model->info.head_dim;
    float key[KVANT_HEAD_DIM_MAX];
    for (int t = 0; t < n; t++) {
        int64_t row = kvant_prompt_row(l, first + t);
        for (int head = 0; head < n_head; head++) {
            size_t at = ((size_t)t * (size_t)n_head + (size_t)head) * (size_t)d;
            float *k = m->k + at, *v = m->v + at;
            if (row < 0) {
                memset(k, 0, (size_t)d * sizeof *k);
                memset(v, 0, (size_t)d * sizeof *v);
                continue;
            }
            kvant_prompt_get(l, KVANT_SIDE_K, head, row, d, key);
            kvant_prompt_get(l, KVANT_SIDE_V, head, row, d, v);
            bool finite = true;
            for (int i = 0; i < d; i++)
                finite = finite && isfinite(key[i]) && isfinite(v[i]);
            if (!finite)
                return kvant_fail(err, KVANT_EFORMAT, "%s: layer %d, token %" PRId64 ", KV head %d: holds what is not a number",
                                  m->path, layer, first + t, head);
            for (int i = 0; i < d; i++)
                k[i] = key[m->order[i]];
        }
    }
    return KVANT_OK;
}

/* [first, end) of all layers, then the cache is quantized as far as its settings say. */
static kvant_status append_values(const importer *m, int64_t first, int64_t end, kvant_error *err) {
    kvant_status st = KVANT_OK;
    for (int64_t t = first; t < end; t += TOKENS) {
        int n = end - t < TOKENS ? (int)(end - t) : TOKENS;
        for (int i = 0; i < m->f->n_layer && st == KVANT_OK; i++) {
            KVANT_TRY(read_values(m, i, t, n, err));
            st = kvant_sequence_append(m->sequence, i, m->k, m->v, n);
        }
    }
    if (st == KVANT_OK) st = kvant_maybe_quantize_kv_cache(m->sequence, NULL);
    if (st == KVANT_OK) return KVANT_OK;
    return kvant_fail(err, st, "%s: %" PRId64 " tokens could not be added to the cache: %s", m->path, m->n,
                      kvant_status_name(st));
}

/* ---- codes ---- */

static bool is_same(const kvant_prompt_layer *l, const kvant_part *part) {
    return l->kind == KVANT_PROMPT_QUANTIZED && kvant_format_is_affine(&part->format) && part->format.bits == l->bits &&
           part->format.group == l->group;
}

/* Whether the scales are finite in the format. */
static bool fits(const kvant_part *part, const float *scales, const float *biases) {
    bool all = true;
    for (int g = 0; g * part->format.group < part->head_dim && part->format.codec == KVANT_CODEC_AFFINE; g++)
        all = all && fabsf(scales[g]) <= HALF_MAX && fabsf(biases[g]) <= HALF_MAX;
    return all;
}

static void copy_codes(const importer *m, int layer) {
    const kvant_prompt_layer *l = &m->f->layers[layer];
    const kvant_page_list *list = &m->sequence->layers[layer];
    int d = m->s->model->info.head_dim, n_head = m->s->model->info.n_kv_head;
    uint8_t codes[KVANT_HEAD_DIM_MAX];
    float scales[KVANT_HEAD_DIM_MAX / 32], biases[KVANT_HEAD_DIM_MAX / 32];
    for (int64_t t = 0; t < m->n; t++) {
        kvant_page *page = list->pages[t / TOKENS];
        int slot = (int)(t % TOKENS);
        if (!page || slot < page->layout->n_exact) continue;
        bool sides[2] = {is_same(l, &page->layout->k) && !m->moves, is_same(l, &page->layout->v)};
        for (int head = 0; head < n_head; head++)
            for (int side = 0; side < 2; side++) {
                if (!sides[side]) continue;
                const kvant_part *part = side == KVANT_SIDE_K ? &page->layout->k : &page->layout->v;
                uint8_t *bytes = side == KVANT_SIDE_K ? kvant_page_k(page, head) : kvant_page_v(page, head);
                kvant_prompt_get_codes(l, side, head, kvant_prompt_row(l, t), d, codes, scales, biases);
                if (!fits(part, scales, biases)) continue; /* the codes of values that were cut */
                kvant_affine_put_codes(part, bytes, slot, codes, scales, biases);
            }
    }
}

/* ---- what is told ---- */

static void describe(const kvant_prompt_layer *l, char *out, size_t size) {
    const kvant_safetensor *numbers = l->kind == KVANT_PROMPT_QUANTIZED ? l->sides[0].scales : l->sides[0].values;
    const char *type = numbers->type == KVANT_ST_F16 ? "float16" : numbers->type == KVANT_ST_BF16 ? "bfloat16" : "float32";
    if (l->kind == KVANT_PROMPT_QUANTIZED)
        snprintf(out, size, "affine%d:%d with %s scales", (int)l->bits, (int)l->group, type);
    else
        snprintf(out, size, "%s", type);
}

/* Whether a side of a page holds the file's numbers as they are. */
static bool is_exact(const importer *m, const kvant_prompt_layer *l, int side, const kvant_page_layout *layout) {
    const kvant_part *part = side == KVANT_SIDE_K ? &layout->k : &layout->v;
    const kvant_safetensor *numbers = l->sides[side].scales ? l->sides[side].scales : l->sides[side].values;
    if (l->kind != KVANT_PROMPT_QUANTIZED)
        return part->format.codec == KVANT_CODEC_F32 || (part->format.codec == KVANT_CODEC_F16 && numbers->type == KVANT_ST_F16);
    if (!is_same(l, part) || (side == KVANT_SIDE_K && m->moves)) return false;
    return part->format.codec == KVANT_CODEC_AFFINE_F32 || numbers->type == KVANT_ST_F16;
}

/* One line, of the first layer whose numbers change. */
static void tell_changes(const importer *m) {
    for (int i = 0; i < m->f->n_layer; i++) {
        const kvant_prompt_layer *l = &m->f->layers[i];
        const kvant_page_layout *layout = m->sequence->layers[i].pages[(m->n - 1) / TOKENS]->layout;
        if (is_exact(m, l, KVANT_SIDE_K, layout) && is_exact(m, l, KVANT_SIDE_V, layout)) continue;
        char from[64], k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
        describe(l, from, sizeof from);
        kvant_format_name(&layout->k.format, k);
        kvant_format_name(&layout->v.format, v);
        bool same_codes = is_same(l, &layout->k) && is_same(l, &layout->v) && !m->moves;
        if (same_codes)
            kvant_log(KVANT_LOG_INFO, "%s: its codes are taken over as they are; their scales, %s, are rounded to binary16",
                      m->path, from);
        else
            kvant_log(KVANT_LOG_INFO, "%s: its keys and values, %s, are stored as %s/%s%s", m->path, from, k, v,
                      m->moves && l->kind == KVANT_PROMPT_QUANTIZED ? " (keys have another order in this model file)" : "");
        return;
    }
}

/* ---- the whole ---- */

static kvant_status fill(importer *m, kvant_error *err) {
    const kvant_cache *cache = m->s->shared->cache;
    const kvant_decoder_info *info = &m->s->model->info;
    size_t vector = (size_t)info->n_kv_head * (size_t)info->head_dim;
    m->k = kvant_alloc_aligned(TOKENS * vector, sizeof *m->k);
    m->v = kvant_alloc_aligned(TOKENS * vector, sizeof *m->v);
    bool made = m->k && m->v && kvant_sequence_create(m->s->shared->cache, &m->sequence) == KVANT_OK;
    kvant_status st = made ? KVANT_OK : kvant_fail(err, KVANT_ENOMEM, "%s: no memory for its tokens", m->path);
    int64_t start = cache->config.quantize_after_step ? 0 : cache->config.quantized_kv_start;
    if (st == KVANT_OK && !has_gaps(m)) kvant_sequence_hold(m->sequence, m->n / TOKENS * TOKENS);
    if (st == KVANT_OK && start > 0) st = append_values(m, 0, start < m->n ? start : m->n, err);
    if (st == KVANT_OK && start < m->n) st = append_values(m, start, m->n, err);
    for (int i = 0; st == KVANT_OK && i < info->n_layer; i++)
        copy_codes(m, i);
    kvant_free_aligned(m->k);
    kvant_free_aligned(m->v);
    if (st != KVANT_OK) kvant_sequence_destroy(m->sequence);
    return st;
}

static void take_over(importer *m, const int32_t *ids) {
    kvant_session *s = m->s;
    tell_changes(m);
    kvant_sequence_destroy(s->sequence);
    s->sequence = m->sequence;
    memcpy(s->tokens, ids, (size_t)m->n * sizeof *ids);
    s->n_imported = has_gaps(m) ? m->n : 0;
    s->has_logits = false;
    kvant_session_end_check(s);
    kvant_sequence_hold(s->sequence, -1);
}

static kvant_status import_file(kvant_session *s, const char *path, const kvant_prompt_file *f, const int32_t *ids, int64_t n,
                                kvant_error *err) {
    importer m = {.s = s, .f = f, .path = path, .n = f->layers[0].offset};
    int32_t *own = NULL;
    if (m.n == 0) return kvant_fail(err, KVANT_EINVAL, "%s: holds no token", path);
    if (m.n > s->n_context)
        return kvant_fail(err, KVANT_EFULL,
                          "%s: holds %" PRId64 " tokens, but the context %" PRId64 "; a larger context (-c) fits", path, m.n,
                          s->n_context);
    if (ids && n != m.n)
        return kvant_fail(err, KVANT_EINVAL,
                          "%s: holds %" PRId64 " tokens, but the prompt has %" PRId64 "; it must be the one that the file "
                          "was made from, with the same special tokens",
                          path, m.n, n);
    if (!ids) KVANT_TRY(parse_ids(f, path, m.n, &own, err));
    m.moves = kvant_prompt_key_order(s->model, m.order);
    kvant_status st = kvant_session_check_tokens(s, ids ? ids : own, m.n, err);
    if (st == KVANT_OK) st = check_windows(&m, err);
    if (st == KVANT_OK) st = fill(&m, err);
    if (st == KVANT_OK) take_over(&m, ids ? ids : own);
    kvant_free(own);
    return st;
}

kvant_status kvant_session_import(kvant_session *s, const char *path, const int32_t *ids, int64_t n, kvant_error *err) {
    const kvant_decoder_info *info = &s->model->info;
    kvant_prompt_file f;
    if (s->heads) return kvant_fail(err, KVANT_EINVAL, "session: one with measure_tokens reads all of its tokens itself");
    KVANT_TRY(kvant_prompt_file_open(path, info->n_layer, info->n_kv_head, info->head_dim, &f, err));
    kvant_status st = import_file(s, path, &f, ids, n, err);
    kvant_prompt_file_close(&f);
    return st;
}

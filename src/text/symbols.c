// SPDX-License-Identifier: MIT
/* symbols.c: the two hash tables of a vocabulary: strings to ids, pairs of ids to merges.
 *
 * Open addressing with linear probing at a load of at most one half; sizes are powers of two. Nothing is ever removed. */
#include "text/tokenizer_internal.h"

#include <assert.h>

#define MIX 0x9E3779B97F4A7C15u

static uint64_t mix(uint64_t h) {
    h ^= h >> 32;
    h *= 0xD6E8FEB86659FD93u;
    return h ^ h >> 29;
}

static uint32_t hash_text(const char *text, size_t size) {
    uint64_t h = size * MIX, word;
    for (; size >= 8; size -= 8, text += 8) {
        memcpy(&word, text, 8);
        h = mix(h ^ word) * MIX;
    }
    word = 0;
    memcpy(&word, text, size);
    return (uint32_t)mix(h ^ word * MIX);
}

static uint32_t hash_pair(int32_t left, int32_t right) {
    return (uint32_t)mix(((uint64_t)(uint32_t)left << 32 | (uint32_t)right) * MIX);
}

/* The mask of a table that holds n entries at most half full. */
static uint32_t table_mask(size_t n) {
    uint32_t size = 16;
    while (size < n * 2 && size < 0x80000000u) size *= 2;
    return size - 1;
}

/* ---- strings ---- */

static kvant_status rehash(kvant_symbols *s, size_t n) {
    uint32_t mask = table_mask(n);
    int32_t *slots = kvant_alloc((size_t)mask + 1, sizeof *slots);
    if (!slots) return KVANT_ENOMEM;
    for (uint32_t i = 0; s->slots && i <= s->mask; i++) {
        if (!s->slots[i]) continue;
        size_t size;
        const char *text = kvant_symbol_text(s, s->slots[i] - 1, &size);
        uint32_t at = hash_text(text, size) & mask;
        while (slots[at]) at = (at + 1) & mask;
        slots[at] = s->slots[i];
    }
    kvant_free(s->slots);
    s->slots = slots;
    s->mask = mask;
    return KVANT_OK;
}

kvant_status kvant_symbols_init(kvant_symbols *s, int n_expected) {
    *s = (kvant_symbols){.room = n_expected > 16 ? n_expected : 16};
    s->offsets = kvant_alloc((size_t)s->room + 1, sizeof *s->offsets);
    if (!s->offsets) return KVANT_ENOMEM;
    return rehash(s, (size_t)s->room);
}

void kvant_symbols_free(kvant_symbols *s) {
    kvant_free(s->pool);
    kvant_free(s->offsets);
    kvant_free(s->slots);
    *s = (kvant_symbols){0};
}

/* The slot of a string, or the free slot where it would be. */
static uint32_t find_slot(const kvant_symbols *s, const char *text, size_t size) {
    uint32_t at = hash_text(text, size) & s->mask;
    for (; s->slots[at]; at = (at + 1) & s->mask) {
        size_t n;
        const char *other = kvant_symbol_text(s, s->slots[at] - 1, &n);
        if (n == size && memcmp(other, text, n) == 0) break;
    }
    return at;
}

int32_t kvant_symbols_find(const kvant_symbols *s, const char *text, size_t size) {
    if (size == 0 || size > (size_t)s->max_size) return KVANT_NO_SYMBOL;
    return s->slots[find_slot(s, text, size)] - 1;
}

static kvant_status make_room(kvant_symbols *s, size_t size) {
    if (size > INT32_MAX || s->pool_size + size > UINT32_MAX || s->n == INT32_MAX - 1) return KVANT_EFULL;
    if (s->pool_size + size > s->pool_room) {
        size_t room = s->pool_room ? s->pool_room : 4096;
        while (room < s->pool_size + size) room *= 2;
        char *pool = kvant_realloc(s->pool, room, 1);
        if (!pool) return KVANT_ENOMEM;
        s->pool = pool;
        s->pool_room = room;
    }
    if (s->n < s->room) return KVANT_OK;
    int room = s->room > INT32_MAX / 2 ? INT32_MAX - 1 : s->room * 2;
    uint32_t *offsets = kvant_realloc(s->offsets, (size_t)room + 1, sizeof *offsets);
    if (!offsets) return KVANT_ENOMEM;
    s->offsets = offsets;
    s->room = room;
    return rehash(s, (size_t)room);
}

kvant_status kvant_symbols_add(kvant_symbols *s, const char *text, size_t size, int32_t *id) {
    KVANT_TRY(make_room(s, size));
    if (size) {
        uint32_t at = find_slot(s, text, size);
        if (s->slots[at]) {
            *id = s->slots[at] - 1;
            return KVANT_EFORMAT;
        }
        s->slots[at] = s->n + 1;
        memcpy(s->pool + s->pool_size, text, size);
        s->pool_size += size;
        if ((int)size > s->max_size) s->max_size = (int)size;
    }
    *id = s->n++;
    s->offsets[s->n] = (uint32_t)s->pool_size;
    return KVANT_OK;
}

/* ---- merges ---- */

kvant_status kvant_merges_create(int n_merge, kvant_merge **table, uint32_t *mask) {
    *mask = table_mask((size_t)n_merge);
    kvant_merge *t = kvant_alloc((size_t)*mask + 1, sizeof *t);
    if (!t) return KVANT_ENOMEM;
    for (uint32_t i = 0; i <= *mask; i++) t[i].left = KVANT_NO_SYMBOL;
    *table = t;
    return KVANT_OK;
}

void kvant_merges_add(kvant_merge *table, uint32_t mask, kvant_merge merge) {
    assert(merge.left >= 0 && merge.right >= 0);
    uint32_t at = hash_pair(merge.left, merge.right) & mask;
    for (; table[at].left != KVANT_NO_SYMBOL; at = (at + 1) & mask)
        if (table[at].left == merge.left && table[at].right == merge.right) return;
    table[at] = merge;
}

const kvant_merge *kvant_merges_find(const kvant_merge *table, uint32_t mask, int32_t left, int32_t right) {
    if (left < 0 || right < 0) return NULL;
    uint32_t at = hash_pair(left, right) & mask;
    for (; table[at].left != KVANT_NO_SYMBOL; at = (at + 1) & mask)
        if (table[at].left == left && table[at].right == right) return &table[at];
    return NULL;
}

/* ---- ids ---- */

kvant_status kvant_id_list_add(kvant_id_list *list, int32_t id) {
    if (list->n == list->room) {
        size_t room = list->room ? list->room * 2 : 64;
        int32_t *ids = kvant_realloc(list->ids, room, sizeof *ids);
        if (!ids) return KVANT_ENOMEM;
        list->ids = ids;
        list->room = room;
    }
    list->ids[list->n++] = id;
    return KVANT_OK;
}

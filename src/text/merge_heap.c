// SPDX-License-Identifier: MIT
/* merge_heap.c: a binary heap of merges; see merge_heap.h for the order. */
#include "text/merge_heap.h"

#include "base/memory.h"

#define ROOM_MIN 256

static bool before(const kvant_merge_entry *a, const kvant_merge_entry *b) {
    return a->order != b->order ? a->order < b->order : a->left < b->left;
}

kvant_status kvant_merge_heap_push(kvant_merge_heap *h, kvant_merge_entry e) {
    if (h->n == h->room) {
        size_t room = h->room ? h->room * 2 : ROOM_MIN;
        kvant_merge_entry *entries = kvant_realloc(h->entries, room, sizeof *entries);
        if (!entries) return KVANT_ENOMEM;
        h->entries = entries;
        h->room = room;
    }
    size_t i = h->n++;
    for (; i > 0 && before(&e, &h->entries[(i - 1) / 2]); i = (i - 1) / 2) h->entries[i] = h->entries[(i - 1) / 2];
    h->entries[i] = e;
    return KVANT_OK;
}

kvant_merge_entry kvant_merge_heap_pop(kvant_merge_heap *h) {
    kvant_merge_entry top = h->entries[0], last = h->entries[--h->n];
    size_t i = 0;
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n) break;
        if (child + 1 < h->n && before(&h->entries[child + 1], &h->entries[child])) child++;
        if (!before(&h->entries[child], &last)) break;
        h->entries[i] = h->entries[child];
        i = child;
    }
    if (h->n) h->entries[i] = last;
    return top;
}

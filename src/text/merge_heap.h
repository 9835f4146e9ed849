// SPDX-License-Identifier: MIT
/* merge_heap.h: the possible merges of two neighbours, best first: what both kinds of byte-pair encoding choose from. */
#ifndef KVANT_TEXT_MERGE_HEAP_H
#define KVANT_TEXT_MERGE_HEAP_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* Lowest order first, then leftmost. An entry is stale once its symbols have changed; `check` and `result` are the caller's own to
 * tell that and to say what the merge gives. */
typedef struct kvant_merge_entry {
    double order; /* a rank, or a score with its sign turned */
    int32_t left, right;
    uint32_t check[2];
    int32_t result;
} kvant_merge_entry;

/* Zero-initialised: empty. Freed by kvant_free(entries). */
typedef struct kvant_merge_heap {
    kvant_merge_entry *entries;
    size_t n, room;
} kvant_merge_heap;

kvant_status kvant_merge_heap_push(kvant_merge_heap *h, kvant_merge_entry e); /* KVANT_ENOMEM */
kvant_merge_entry kvant_merge_heap_pop(kvant_merge_heap *h);                  /* h->n > 0 */

#endif

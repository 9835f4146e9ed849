// SPDX-License-Identifier: MIT
/* attend.h: attention of several sequences at once (private to Kvant; one sequence alone: kvant_attend in kvant.h). */
#ifndef KVANT_ATTN_ATTEND_H
#define KVANT_ATTN_ATTEND_H

#include "kvant/kvant.h"

typedef struct kvant_attend_item {
    kvant_sequence *s;
    const float *q; /* [n][n_head][head_dim] */
    int n;          /* 0: nothing to do */
    float *out;     /* [n][n_head][head_dim], not q */
} kvant_attend_item;

/* kvant_attend for each item, shared out to the threads as one piece of work. The sequences may be of several caches of one context
 * whose layers and heads agree; their formats may differ. The bits of a row do not depend on the other items.
 * KVANT_EINVAL: as kvant_attend for some item, or caches that do not agree; KVANT_ENOMEM. Nothing was written then. */
kvant_status kvant_attend_batch(const kvant_attend_item *items, int n_items, int layer, const kvant_attend_params *params);

#endif

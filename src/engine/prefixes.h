// SPDX-License-Identifier: MIT
/* prefixes.h: a cache with the past sequences that are kept beside it, in memory and on disk (private to src/engine).
 *
 * The sessions of a model that have its settings and one precision share one, so that each finds what the others have read; a session
 * with formats of its own has one alone. It lives as long as a session or the model refers to it. */
#ifndef KVANT_ENGINE_PREFIXES_H
#define KVANT_ENGINE_PREFIXES_H

#include "engine/model.h"

struct kvant_prefixes {
    kvant_cache *cache;
    kvant_prefix_tree *tree; /* NULL: nothing stays in memory */
    kvant_store *store;      /* NULL: nothing stays on disk */
    int n_references;
};

/* With the cache alone. The model's calibration must be there where the formats need one. */
kvant_status kvant_prefixes_create(kvant_model *m, const kvant_cache_config *config, kvant_prefixes **out, kvant_error *err);
/* Those of the model's settings, with a reference for the caller; made by the first call for a precision. */
kvant_status kvant_model_share_prefixes(kvant_model *m, kvant_precision precision, kvant_prefixes **out, kvant_error *err);
void kvant_prefixes_release(kvant_prefixes *p);
/* Sessions to come make new ones: after the calibration has changed. */
void kvant_model_drop_prefixes(kvant_model *m);

/* Keeps a sequence's pages; ids [its length]. on_disk: in the folder too. */
kvant_status kvant_prefixes_keep(kvant_prefixes *p, const kvant_sequence *s, const int32_t *ids, bool on_disk, kvant_error *err);

/* What is best reused for ids [n], beside a sequence whose first n_base tokens are theirs and can stay. */
typedef struct kvant_prefixes_found {
    kvant_sequence *sequence; /* NULL: nothing has more than n_base tokens */
    int64_t n_from_base, n_from_ram, n_from_disk;
    int64_t n_known;          /* the longest beginning that anything has, usable or not */
} kvant_prefixes_found;
kvant_status kvant_prefixes_find(kvant_prefixes *p, const kvant_sequence *base, int64_t n_base, const int32_t *ids, int64_t n,
                                 kvant_prefixes_found *out, kvant_error *err);

#endif

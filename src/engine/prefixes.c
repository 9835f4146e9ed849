// SPDX-License-Identifier: MIT
/* prefixes.c: where sessions look for the beginning of a prompt: another sequence in memory, then the folder.
 *
 * Memory is asked first because it costs nothing; the folder only for what lies beyond. */
#include "engine/prefixes.h"

#include "base/memory.h"


kvant_status kvant_prefixes_create(kvant_model *m, const kvant_cache_config *config, kvant_prefixes **out, kvant_error *err) {
    kvant_cache_config c = *config;
    c.calibration = m->calibration;
    kvant_prefixes *p = kvant_alloc(1, sizeof *p);
    if (!p) return kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
    p->n_references = 1;
    kvant_status st = kvant_cache_create(m->ctx, &c, &p->cache, err);
    if (st != KVANT_OK) {
        kvant_free(p);
        return st;
    }
    *out = p;
    return KVANT_OK;
}

void kvant_prefixes_release(kvant_prefixes *p) {
    if (!p || --p->n_references > 0) return;
    kvant_prefix_tree_destroy(p->tree);
    kvant_cache_destroy(p->cache);
    kvant_free(p);
}

void kvant_model_drop_prefixes(kvant_model *m) {
    for (int i = 0; i < KVANT_PRECISIONS; i++) {
        kvant_prefixes_release(m->prefixes[i]);
        m->prefixes[i] = NULL;
    }
}

kvant_status kvant_model_share_prefixes(kvant_model *m, kvant_precision precision, kvant_prefixes **out, kvant_error *err) {
    kvant_prefixes **shared = &m->prefixes[precision];
    if (!*shared) {
        kvant_prefixes *p;
        KVANT_TRY(kvant_prefixes_create(m, &m->cache, &p, err));
        kvant_status st = KVANT_OK;
        if (m->prefix_ram > 0 && kvant_prefix_tree_create(p->cache, m->prefix_ram, &p->tree) != KVANT_OK)
            st = kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
        if (st != KVANT_OK) {
            kvant_prefixes_release(p);
            return st;
        }
        *shared = p;
    }
    (*shared)->n_references++;
    *out = *shared;
    return KVANT_OK;
}

kvant_status kvant_prefixes_keep(kvant_prefixes *p, const kvant_sequence *s, const int32_t *ids, bool on_disk, kvant_error *err) {
    if (kvant_sequence_length(s) == 0) return KVANT_OK;
    if (p->tree && kvant_prefix_tree_insert(p->tree, s, ids) != KVANT_OK)
        return kvant_fail(err, KVANT_ENOMEM, "cache: out of memory for keeping a prefix");
    (void)on_disk;
    return KVANT_OK;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

kvant_status kvant_prefixes_find(kvant_prefixes *p, const kvant_sequence *base, int64_t n_base, const int32_t *ids, int64_t n,
                                 kvant_prefixes_found *out, kvant_error *err) {
    *out = (kvant_prefixes_found){.n_from_base = n_base, .n_known = n_base};
    if (p->tree) {
        kvant_prefix_match match = kvant_prefix_tree_match(p->tree, ids, n);
        out->n_known = larger(n_base, match.n_known);
        if (match.n_usable > n_base) {
            if (kvant_prefix_tree_take(p->tree, ids, n, &out->sequence, &match) != KVANT_OK)
                return kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
            out->n_from_base = 0;
            out->n_from_ram = match.n_usable;
        }
    }
    (void)base;
    return KVANT_OK;
}

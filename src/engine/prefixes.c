// SPDX-License-Identifier: MIT
/* prefixes.c: where sessions look for the beginning of a prompt: another sequence in memory, then the folder.
 *
 * Memory is asked first because it costs nothing; the folder only for what lies beyond. */
#include "engine/prefixes.h"

#include <stdio.h>

#include "base/hash.h"
#include "base/memory.h"
#include "engine/fingerprint.h"
#include "engine/kv_config.h"

#define TOKENS KVANT_PAGE_TOKENS
#define ARITHMETIC 1 /* of the forward pass: raised when its rounding changes, because pages keep what it made */

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
    kvant_store_close(p->store);
    kvant_cache_destroy(p->cache);
    kvant_free(p);
}

void kvant_model_drop_prefixes(kvant_model *m) {
    for (int i = 0; i < KVANT_PRECISIONS; i++) {
        kvant_prefixes_release(m->prefixes[i]);
        m->prefixes[i] = NULL;
    }
}

/* All that decides the bytes of a page and is not in the cache's settings: weights, calibration, rounding. */
static kvant_status fingerprint(const kvant_model *m, kvant_precision precision, uint8_t out[KVANT_FINGERPRINT_BYTES]) {
    kvant_hash h;
    kvant_hash_begin(&h);
    kvant_hash_add_u64(&h, ARITHMETIC);
    kvant_fingerprint_file(m->file, out);
    kvant_hash_add(&h, out, KVANT_FINGERPRINT_BYTES);
    kvant_hash_add_u64(&h, (uint64_t)precision);
    /* mlx-lm's order makes what a token attends to depend on the chunk it was in. */
    kvant_hash_add_u64(&h, m->compat_mlx ? (uint64_t)m->prefill_step_size : 0);
    if (m->calibration && kvant_kv_config_centres(&m->cache)) {
        uint8_t *bytes, none[KVANT_FINGERPRINT_BYTES] = {0};
        size_t size;
        KVANT_TRY(kvant_calibration_write(m->calibration, none, &bytes, &size));
        kvant_hash_add(&h, bytes, size);
        kvant_calibration_bytes_free(bytes);
    }
    kvant_hash_get(&h, out);
    return KVANT_OK;
}

static void label_of(const kvant_model *m, char *out, size_t size) {
    char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
    kvant_format_name(&m->cache.k, k);
    kvant_format_name(&m->cache.v, v);
    snprintf(out, size, "%.120s %s/%s%s", m->name, k, v, m->cache.layer_k ? " by layer" : "");
}

static kvant_status open_store(kvant_model *m, kvant_precision precision, kvant_prefixes *p, kvant_error *err) {
    char label[201];
    kvant_store_config c = {.folder = m->prefix_dir, .max_bytes = m->prefix_disk, .label = label};
    label_of(m, label, sizeof label);
    if (fingerprint(m, precision, c.fingerprint) != KVANT_OK) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", m->prefix_dir);
    return kvant_store_open(p->cache, &c, &p->store, err);
}

kvant_status kvant_model_share_prefixes(kvant_model *m, kvant_precision precision, kvant_prefixes **out, kvant_error *err) {
    kvant_prefixes **shared = &m->prefixes[precision];
    if (!*shared) {
        kvant_prefixes *p;
        KVANT_TRY(kvant_prefixes_create(m, &m->cache, &p, err));
        kvant_status st = KVANT_OK;
        if (m->prefix_ram > 0 && kvant_prefix_tree_create(p->cache, m->prefix_ram, &p->tree) != KVANT_OK)
            st = kvant_fail(err, KVANT_ENOMEM, "cache: out of memory");
        if (st == KVANT_OK && m->prefix_dir) st = open_store(m, precision, p, err);
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
    return p->store && on_disk ? kvant_store_put(p->store, s, ids, err) : KVANT_OK;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

/* What the folder has beyond *out, whose sequence, or base, begins it. */
static kvant_status find_on_disk(kvant_prefixes *p, const kvant_sequence *base, const int32_t *ids, int64_t n, kvant_prefixes_found *out,
                                 kvant_error *err) {
    int64_t have = out->n_from_base + out->n_from_ram;
    if (n / TOKENS * TOKENS <= have) return KVANT_OK;
    kvant_prefix_match match;
    kvant_sequence *sequence;
    const kvant_sequence *begin = out->sequence ? out->sequence : base;
    KVANT_TRY(kvant_store_take(p->store, begin, have, ids, n, &sequence, &match, err));
    out->n_known = larger(out->n_known, match.n_known);
    if (match.n_usable <= have) { /* no more than is there already */
        kvant_sequence_destroy(sequence);
        return KVANT_OK;
    }
    kvant_sequence_destroy(out->sequence);
    out->sequence = sequence;
    int64_t shared = have / TOKENS * TOKENS;
    if (out->n_from_ram > 0) out->n_from_ram = shared;
    else out->n_from_base = shared;
    out->n_from_disk = match.n_usable - shared;
    return KVANT_OK;
}

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
    kvant_status st = p->store ? find_on_disk(p, base, ids, n, out, err) : KVANT_OK;
    if (st != KVANT_OK) {
        kvant_sequence_destroy(out->sequence);
        out->sequence = NULL;
    }
    return st;
}

// SPDX-License-Identifier: MIT
/* calibrate.c: a model's calibration, made by reading a short text once with a full-precision cache. */
#include <string.h>

#include "base/memory.h"
#include "engine/calibration.h"
#include "engine/model.h"

#define TOKENS_MAX 1024 /* more tokens change nothing that can be measured */
#define TOKENS_WITHOUT_VOCABULARY 512

static kvant_status text_ids(const kvant_model *m, const char *text, int32_t **ids, int *n, kvant_error *err) {
    if (m->tokenizer) return kvant_tokenize(m, text, strlen(text), true, false, ids, n, err);
    /* A model without a vocabulary reads ids from everywhere in it. */
    *ids = kvant_alloc(TOKENS_WITHOUT_VOCABULARY, sizeof **ids);
    if (!*ids) return kvant_fail(err, KVANT_ENOMEM, "calibration: out of memory");
    for (*n = 0; *n < TOKENS_WITHOUT_VOCABULARY; ++*n)
        (*ids)[*n] = (int32_t)(((int64_t)*n * 7919 + 1) % m->info.n_vocab);
    return KVANT_OK;
}

static kvant_status observe(kvant_model *m, kvant_sequence *s, const int32_t *ids, int n, kvant_error *err) {
    for (int done = 0; done < n;) {
        int chunk = n - done < m->prefill_step_size ? n - done : m->prefill_step_size;
        kvant_status st = kvant_decoder_forward(m->decoder, m->workspace, s, ids + done, chunk, KVANT_FAST, NULL, 0);
        if (st != KVANT_OK) return kvant_fail(err, st, "calibration: token %d: %s", done, kvant_status_name(st));
        done += chunk;
    }
    return KVANT_OK;
}

/* Reads the ids with an f16 cache of its own. */
static kvant_status read_ids(kvant_model *m, kvant_calibration *c, const int32_t *ids, int n, kvant_error *err) {
    kvant_cache_config config;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_cache_config_default(&config);
    config.n_layer = m->info.n_layer;
    config.n_kv_head = m->info.n_kv_head;
    config.head_dim = m->info.head_dim;
    config.layer_window = m->info.layer_window;
    KVANT_TRY(kvant_cache_create(m->ctx, &config, &cache, err));
    kvant_status st = kvant_sequence_create(cache, &s);
    if (st == KVANT_OK) {
        kvant_workspace_observe(m->workspace, c);
        st = observe(m, s, ids, n, err);
        kvant_workspace_observe(m->workspace, NULL);
        kvant_sequence_destroy(s);
    } else {
        st = kvant_fail(err, st, "calibration: out of memory");
    }
    kvant_cache_destroy(cache);
    return st;
}

kvant_status kvant_model_need_calibration(kvant_model *m, kvant_error *err) {
    kvant_rope_config ropes[KVANT_DECODER_ROPES];
    kvant_calibration_config config;
    kvant_calibration *c;
    int32_t *ids = NULL;
    int n = 0;
    if (m->calibration) return KVANT_OK;
    kvant_decoder_calibration_config(m->decoder, ropes, &config);
    KVANT_TRY(text_ids(m, kvant_calibration_text, &ids, &n, err));
    kvant_status st = kvant_calibration_create(&config, &c, err);
    if (st == KVANT_OK) {
        st = read_ids(m, c, ids, n < TOKENS_MAX ? n : TOKENS_MAX, err);
        if (st == KVANT_OK) st = kvant_calibration_finish(c, err);
        if (st == KVANT_OK)
            m->calibration = c;
        else
            kvant_calibration_destroy(c);
    }
    kvant_ids_free(ids);
    return st;
}

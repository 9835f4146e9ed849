// SPDX-License-Identifier: MIT
/* calibrate.c: a model's calibration: found in the cache folder, read from a file, or made by reading a short text once with a
 * full-precision cache.
 *
 * A model that needs one always gets one. The cache folder only saves the few seconds that making it takes: a file that is missing,
 * damaged or cannot be written is told and costs these seconds again. Only a file that the user names can be refused. */
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/calibration_store.h"
#include "engine/fingerprint.h"
#include "engine/kv_config.h"
#include "engine/prefixes.h"

#define TOKENS_MAX 1024 /* more tokens change nothing that can be measured */
#define TOKENS_MIN 16
#define TOKENS_WITHOUT_VOCABULARY 512
#define WISHED "kvant calibrate" /* what people are told of one that kvant_model_calibrate kept */

kvant_status kvant_model_calibration_ids(const kvant_model *m, int32_t **ids, int *n, kvant_error *err) {
    if (m->tokenizer) {
        KVANT_TRY(kvant_tokenize(m, kvant_calibration_text, strlen(kvant_calibration_text), true, false, ids, n, err));
        if (*n > TOKENS_MAX) *n = TOKENS_MAX;
        return KVANT_OK;
    }
    /* A model without a vocabulary reads ids from everywhere in it. */
    *ids = kvant_alloc(TOKENS_WITHOUT_VOCABULARY, sizeof **ids);
    if (!*ids) return kvant_fail(err, KVANT_ENOMEM, "calibration: out of memory");
    for (*n = 0; *n < TOKENS_WITHOUT_VOCABULARY; ++*n)
        (*ids)[*n] = (int32_t)(((int64_t)*n * 7919 + 1) % m->info.n_vocab);
    return KVANT_OK;
}

/* What the ids of kvant_model_calibration_ids are, for people. */
static const char *text_name(const kvant_model *m) { return m->tokenizer ? "built-in text" : "ids in place of text"; }

/* ---- making one ---- */

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
    kvant_model_cache_shape(m, &config);
    KVANT_TRY(kvant_cache_create(m->ctx, &config, &cache, err));
    kvant_status st = kvant_sequence_create(cache, &s);
    if (st == KVANT_OK) {
        kvant_workspace_observe(m->workspace, kvant_observe_for_calibration, c);
        st = observe(m, s, ids, n, err);
        kvant_workspace_observe(m->workspace, NULL, NULL);
        kvant_sequence_destroy(s);
    } else {
        st = kvant_fail(err, st, "calibration: out of memory");
    }
    kvant_cache_destroy(cache);
    return st;
}

static kvant_status make(kvant_model *m, const kvant_calibration_config *config, const int32_t *ids, int n, kvant_calibration **out,
                         kvant_error *err) {
    kvant_calibration *c;
    KVANT_TRY(kvant_calibration_create(config, &c, err));
    kvant_status st = read_ids(m, c, ids, n, err);
    if (st == KVANT_OK) st = kvant_calibration_finish(c, err);
    if (st != KVANT_OK) {
        kvant_calibration_destroy(c);
        return st;
    }
    *out = c;
    return KVANT_OK;
}

/* ---- the model's own ---- */

/* The model takes `c` for itself: made from what `source` names (NULL: the path says enough), kept in path (NULL: nowhere). */
static kvant_status adopt(kvant_model *m, kvant_calibration *c, const char *source, const char *path, kvant_error *err) {
    size_t room = (source ? strlen(source) : 0) + (path ? strlen(path) : 0) + 64;
    char *name = kvant_alloc(room, 1), *file = path ? kvant_strdup(path) : NULL;
    if (!name || (path && !file)) {
        kvant_free(name);
        kvant_free(file);
        kvant_calibration_destroy(c);
        return kvant_fail(err, KVANT_ENOMEM, "calibration: out of memory");
    }
    snprintf(name, room, "%s%s%lld tokens%s%s", source ? source : "", source ? ", " : "", (long long)kvant_calibration_tokens(c),
             path ? ", " : "", path ? path : "");
    kvant_calibration_destroy(m->calibration);
    kvant_free(m->calibration_name);
    kvant_free(m->calibration_file);
    m->calibration = c;
    if (kvant_kv_config_centres(&m->cache)) kvant_model_drop_prefixes(m); /* made with the old one */
    m->calibration_name = name;
    m->calibration_file = file;
    return KVANT_OK;
}

/* Into the cache folder, which is made where it is missing. */
static kvant_status keep(const kvant_model *m, const kvant_calibration *c, const uint8_t *fingerprint, const char *path, kvant_error *err) {
    KVANT_TRY(kvant_os_make_folder(m->cache_dir, err));
    return kvant_calibration_store_write(path, c, fingerprint, err);
}

static kvant_status check_weights(const kvant_model *m, kvant_error *err) {
    if (m->decoder) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "%s: was opened for its vocabulary only; a calibration needs the weights", m->path);
}

/* Looks for a file of the cache folder; *found says whether it is the model's now. What is wrong with a file is told. */
static kvant_status find(kvant_model *m, const kvant_calibration_config *config, const uint8_t *fingerprint, const char *source,
                         const char *path, bool *found, kvant_error *err) {
    kvant_calibration *c;
    kvant_error why = {0};
    kvant_status st = kvant_calibration_store_read(path, config, fingerprint, &c, &why);
    *found = st == KVANT_OK;
    if (st == KVANT_OK) return adopt(m, c, source, path, err);
    if (st == KVANT_ENOMEM) return kvant_fail(err, st, "%s", why.message);
    if (st != KVANT_EIO) kvant_log(KVANT_LOG_INFO, "%s; it is made again", why.message);
    return KVANT_OK;
}

/* What the user calibrated comes first. */
static kvant_status find_own(kvant_model *m, const kvant_calibration_config *config, const uint8_t *fingerprint, bool *found,
                             kvant_error *err) {
    char *path;
    if (kvant_calibration_store_path(m->cache_dir, fingerprint, NULL, 0, &path) != KVANT_OK)
        return kvant_fail(err, KVANT_ENOMEM, "calibration: out of memory");
    kvant_status st = find(m, config, fingerprint, WISHED, path, found, err);
    kvant_free(path);
    return st;
}

static kvant_status make_and_keep(kvant_model *m, const kvant_calibration_config *config, const uint8_t *fingerprint, const int32_t *ids,
                                  int n, const char *path, kvant_error *err) {
    kvant_calibration *c;
    kvant_error why = {0};
    kvant_log(KVANT_LOG_INFO, "calibrating: reading %d tokens of %s once for this model%s%s", n, text_name(m), path ? ", kept in " : "",
              path ? path : "");
    KVANT_TRY(make(m, config, ids, n, &c, err));
    if (path && keep(m, c, fingerprint, path, &why) != KVANT_OK) {
        kvant_log(KVANT_LOG_WARNING, "%s; the next load calibrates again", why.message);
        path = NULL;
    }
    return adopt(m, c, text_name(m), path, err);
}

kvant_status kvant_model_need_calibration(kvant_model *m, kvant_error *err) {
    kvant_rope_config ropes[KVANT_DECODER_ROPES];
    kvant_calibration_config config;
    uint8_t fingerprint[KVANT_FINGERPRINT_BYTES];
    int32_t *ids = NULL;
    char *path = NULL;
    int n = 0;
    bool found = false;
    if (m->calibration) return KVANT_OK;
    KVANT_TRY(check_weights(m, err));
    kvant_decoder_calibration_config(m->decoder, ropes, &config);
    if (m->cache_dir) {
        kvant_fingerprint_file(m->file, fingerprint);
        KVANT_TRY(find_own(m, &config, fingerprint, &found, err));
        if (found) return KVANT_OK;
    }
    KVANT_TRY(kvant_model_calibration_ids(m, &ids, &n, err));
    kvant_status st = KVANT_OK;
    if (m->cache_dir) {
        st = kvant_calibration_store_path(m->cache_dir, fingerprint, ids, n, &path);
        if (st == KVANT_OK)
            st = find(m, &config, fingerprint, text_name(m), path, &found, err);
        else
            st = kvant_fail(err, st, "calibration: out of memory");
    }
    if (st == KVANT_OK && !found) st = make_and_keep(m, &config, fingerprint, ids, n, path, err);
    kvant_free(path);
    kvant_ids_free(ids);
    return st;
}

kvant_status kvant_model_load_calibration(kvant_model *m, const char *path, kvant_error *err) {
    kvant_rope_config ropes[KVANT_DECODER_ROPES];
    kvant_calibration_config config;
    uint8_t fingerprint[KVANT_FINGERPRINT_BYTES];
    kvant_calibration *c;
    kvant_decoder_calibration_config(m->decoder, ropes, &config);
    kvant_fingerprint_file(m->file, fingerprint);
    KVANT_TRY(kvant_calibration_store_read(path, &config, fingerprint, &c, err));
    return adopt(m, c, NULL, path, err);
}

/* ---- by wish ---- */

/* The place in the cache folder: of the built-in text (own: false), or the one that comes before it. */
static kvant_status choose_place(const kvant_model *m, const uint8_t *fingerprint, const int32_t *ids, int n, bool own, char **path,
                                 kvant_error *err) {
    kvant_status st = kvant_calibration_store_path(m->cache_dir, fingerprint, own ? NULL : ids, n, path);
    return st == KVANT_OK ? st : kvant_fail(err, st, "calibration: out of memory");
}

/* *kept is where it was written. The built-in text in the cache folder takes the place of what was wished there before. */
static kvant_status write_wished(const kvant_model *m, const kvant_calibration *c, const int32_t *ids, int n, bool own,
                                 const char *path, char **kept, kvant_error *err) {
    uint8_t fingerprint[KVANT_FINGERPRINT_BYTES];
    char *place = NULL, *before = NULL;
    kvant_fingerprint_file(m->file, fingerprint);
    if (path) {
        KVANT_TRY(kvant_calibration_store_write(path, c, fingerprint, err));
        *kept = kvant_strdup(path);
        return *kept ? KVANT_OK : kvant_fail(err, KVANT_ENOMEM, "calibration: out of memory");
    }
    KVANT_TRY(choose_place(m, fingerprint, ids, n, own, &place, err));
    kvant_status st = keep(m, c, fingerprint, place, err);
    if (st == KVANT_OK && !own) st = choose_place(m, fingerprint, NULL, 0, true, &before, err);
    if (st != KVANT_OK) {
        kvant_free(place);
        return st;
    }
    if (before) (void)kvant_os_remove_file(before); /* most often there is none */
    kvant_free(before);
    *kept = place;
    return KVANT_OK;
}

static kvant_status calibrate(kvant_model *m, const int32_t *ids, int n, bool own, const char *path, kvant_error *err) {
    kvant_rope_config ropes[KVANT_DECODER_ROPES];
    kvant_calibration_config config;
    kvant_calibration *c;
    char *kept = NULL;
    kvant_decoder_calibration_config(m->decoder, ropes, &config);
    KVANT_TRY(make(m, &config, ids, n, &c, err));
    if (path || m->cache_dir) {
        kvant_status st = write_wished(m, c, ids, n, own, path, &kept, err);
        if (st != KVANT_OK) {
            kvant_calibration_destroy(c);
            return st;
        }
    }
    kvant_status st = adopt(m, c, own ? WISHED : text_name(m), kept, err);
    kvant_free(kept);
    return st;
}

kvant_status kvant_model_calibrate(kvant_model *m, const int32_t *ids, int n, const char *path, kvant_error *err) {
    int32_t *built_in = NULL;
    int n_built_in = 0;
    KVANT_TRY(check_weights(m, err));
    if (!ids) KVANT_TRY(kvant_model_calibration_ids(m, &built_in, &n_built_in, err));
    bool own = ids || (n > 0 && n < n_built_in);
    if (!own) n = n_built_in;
    kvant_status st = KVANT_OK;
    if (n < TOKENS_MIN) st = kvant_fail(err, KVANT_EINVAL, "calibration: found %d tokens, expected %d or more", n, TOKENS_MIN);
    else if (ids && n > m->info.n_context && m->info.n_context > 0)
        st = kvant_fail(err, KVANT_EINVAL, "calibration: found %d tokens, but the model was trained for a context of %lld", n,
                        (long long)m->info.n_context);
    if (st == KVANT_OK) st = calibrate(m, ids ? ids : built_in, n, own, path, err);
    kvant_ids_free(built_in);
    return st;
}

const kvant_calibration *kvant_model_calibration(const kvant_model *m) { return m->calibration; }

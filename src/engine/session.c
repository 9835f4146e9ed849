// SPDX-License-Identifier: MIT
/* session.c: one timeline of tokens: prefill in chunks, decoding, truncation, and the moments when the cache is quantized. */
#include <string.h>

#include "base/memory.h"
#include "cache/page.h"
#include "engine/image.h"
#include "engine/kv_budget.h"
#include "engine/kv_config.h"
#include "engine/session.h"

#define CONTEXT_MAX (INT64_C(1) << 27)
#define TOKENS_ROOM 4096
#define MEASURE_STRIDE 8 /* the queries of every eighth token say as much as all */

void kvant_session_params_default(kvant_session_params *p) { *p = (kvant_session_params){.precision = KVANT_FAST}; }

static bool is_quantized(const kvant_format *f) { return f->codec != KVANT_CODEC_F16 && f->codec != KVANT_CODEC_F32; }

/* Recorders of the first tokens: one for the check of every session whose keys are quantized, one for who asked. */
static kvant_status create_recorders(kvant_session *s, const kvant_cache_config *c, int measure_tokens, kvant_error *err) {
    const kvant_decoder_info *info = &s->model->info;
    bool quantizes = !c->layer_k && is_quantized(&c->k);
    for (int i = 0; c->layer_k && i < c->n_layer; i++)
        quantizes = quantizes || is_quantized(&c->layer_k[i]);
    s->check_length = c->quantized_kv_start > KVANT_HEAD_CHECK_TOKENS ? c->quantized_kv_start : KVANT_HEAD_CHECK_TOKENS;
    if (measure_tokens != 0) KVANT_TRY(kvant_head_noise_create(info, measure_tokens, MEASURE_STRIDE, true, &s->heads, err));
    if (!quantizes || s->check_length > s->n_context) return KVANT_OK;
    return kvant_head_noise_create(info, KVANT_HEAD_CHECK_TOKENS, KVANT_HEAD_CHECK_STRIDE, false, &s->check, err);
}

/* The model's settings, or the session's own formats; *layers: where those of layers are, freed by the caller. */
static kvant_status configure(const kvant_session *s, const char *kv, kvant_cache_config *c, kvant_format **layers, kvant_error *err) {
    *c = s->model->cache;
    if (!kv) return KVANT_OK;
    c->layer_k = c->layer_v = NULL;
    if (kvant_budget_is(kv)) return kvant_model_apply_budget(s->model, kv, s->n_context, c, layers, err);
    KVANT_TRY(kvant_format_parse_pair(kv, &c->k, &c->v, err));
    if (s->model->kv_center_off) kvant_kv_config_bare(&c->k);
    return KVANT_OK;
}

/* Formats of its own, a cache of its own. */
static kvant_status create_cache_of(kvant_session *s, kvant_cache_config c, const kvant_session_params *params, kvant_error *err) {
    if (kvant_kv_config_centres(&c)) KVANT_TRY(kvant_model_need_calibration(s->model, err));
    KVANT_TRY(params->kv ? kvant_prefixes_create(s->model, &c, &s->shared, err)
                         : kvant_model_share_prefixes(s->model, s->precision, &s->shared, err));
    const kvant_cache *cache = s->shared->cache;
    if (cache->quantizes && !c.quantize_after_step) s->quantized_start = c.quantized_kv_start;
    if (kvant_sequence_create(s->shared->cache, &s->sequence) != KVANT_OK) return kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    return create_recorders(s, &c, params->measure_tokens, err);
}

static kvant_status create_cache(kvant_session *s, const kvant_session_params *params, kvant_error *err) {
    kvant_cache_config c;
    kvant_format *layers = NULL;
    KVANT_TRY(configure(s, params->kv, &c, &layers, err));
    kvant_status st = create_cache_of(s, c, params, err);
    kvant_free(layers);
    return st;
}

kvant_status kvant_session_create(kvant_model *m, const kvant_session_params *params, kvant_session **out, kvant_error *err) {
    if (!m->decoder)
        return kvant_fail(err, KVANT_EINVAL, "%s: was opened for its vocabulary only; a session needs the weights", m->path);
    if (params->precision != KVANT_FAST && params->precision != KVANT_EXACT)
        return kvant_fail(err, KVANT_EINVAL, "precision: found %d, expected KVANT_FAST or KVANT_EXACT", (int)params->precision);
    if (params->n_context < 0 || params->n_context > CONTEXT_MAX)
        return kvant_fail(err, KVANT_EINVAL, "context: found %lld, expected 1 to %lld tokens (0: what the model was trained for)",
                          (long long)params->n_context, (long long)CONTEXT_MAX);
    kvant_session *s = kvant_alloc(1, sizeof *s);
    if (!s) return kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    s->model = m;
    s->precision = params->precision;
    s->n_context = params->n_context ? params->n_context : m->info.n_context > 0 ? m->info.n_context : 2048;
    s->logits = kvant_alloc_aligned((size_t)m->info.n_vocab, sizeof(float));
    kvant_status st = s->logits ? create_cache(s, params, err) : kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    if (st != KVANT_OK) {
        kvant_session_destroy(s);
        return st;
    }
    *out = s;
    return KVANT_OK;
}

void kvant_session_destroy(kvant_session *s) {
    if (!s) return;
    if (s->sequence) (void)kvant_session_keep(s, NULL); /* nobody is left to be told */
    kvant_head_noise_destroy(s->check);
    kvant_head_noise_destroy(s->heads);
    kvant_sequence_destroy(s->sequence);
    kvant_prefixes_release(s->shared);
    kvant_free_aligned(s->logits);
    kvant_free(s->tokens);
    kvant_free(s);
}

static kvant_status reserve_tokens(kvant_session *s, int64_t n, kvant_error *err) {
    if (n <= s->n_tokens_room) return KVANT_OK;
    int64_t room = n < TOKENS_ROOM / 2 ? TOKENS_ROOM : 2 * n;
    if (room > s->n_context) room = s->n_context;
    int32_t *tokens = kvant_realloc(s->tokens, (size_t)room, sizeof *tokens);
    if (!tokens) return kvant_fail(err, KVANT_ENOMEM, "session: out of memory");
    s->tokens = tokens;
    s->n_tokens_room = room;
    return KVANT_OK;
}

static kvant_status check_ids(const kvant_session *s, const int32_t *ids, int64_t n, kvant_error *err) {
    for (int64_t i = 0; i < n; i++)
        if ((ids[i] < 0 && !s->model->vision) || ids[i] >= s->model->info.n_vocab)
            return kvant_fail(err, KVANT_EINVAL, "token %lld: found id %d, expected 0 to %d", (long long)i, ids[i],
                              s->model->info.n_vocab - 1);
    return KVANT_OK;
}

kvant_status kvant_session_check_tokens(kvant_session *s, const int32_t *ids, int64_t n, kvant_error *err) {
    if (n > s->n_context)
        return kvant_fail(err, KVANT_EFULL, "context: %lld tokens were to be read, but it holds %lld; a larger context (-c) or a shorter "
                          "prompt fits", (long long)n, (long long)s->n_context);
    KVANT_TRY(check_ids(s, ids, n, err));
    return reserve_tokens(s, n, err);
}

kvant_status kvant_session_check_room(kvant_session *s, const int32_t *ids, int64_t n, kvant_error *err) {
    int64_t length = kvant_session_length(s);
    if (n < 0) return kvant_fail(err, KVANT_EINVAL, "session: found %lld tokens, expected 0 or more", (long long)n);
    if (n > s->n_context - length)
        return kvant_fail(err, KVANT_EFULL, "context: %lld tokens are there and %lld were to be added, but it holds %lld; a larger context (-c) "
                          "or a shorter prompt fits", (long long)length, (long long)n, (long long)s->n_context);
    KVANT_TRY(check_ids(s, ids, n, err));
    return reserve_tokens(s, length + n, err);
}

static kvant_status observe(void *session, int layer, int64_t first, const float *k, const float *v, const float *q, int n) {
    kvant_session *s = session;
    if (s->check) KVANT_TRY(kvant_head_noise_observe(s->check, layer, first, k, v, q, n));
    return s->heads ? kvant_head_noise_observe(s->heads, layer, first, k, v, q, n) : KVANT_OK;
}

kvant_observe_fn kvant_session_observer(const kvant_session *s) { return s->check || s->heads ? observe : NULL; }

static kvant_status forward(kvant_session *s, const int32_t *ids, int n, bool has_pictures, float *logits, int n_logits) {
    const kvant_model *m = s->model;
    kvant_segment g = {.s = s->sequence,
                       .ids = ids,
                       .n = n,
                       .logits = logits,
                       .n_logits = logits ? n_logits : 0,
                       .observe = kvant_session_observer(s),
                       .observer = s,
                       .rows = has_pictures ? m->rows : NULL};
    return kvant_decoder_forward_batch(m->decoder, m->workspace, &g, 1, s->precision);
}

/* What is read in the places of negative ids. */
static kvant_status prepare_pictures(const kvant_session *s, const int32_t *ids, int n, bool *has_pictures, kvant_error *err) {
    *has_pictures = false;
    for (int i = 0; i < n; i++) *has_pictures = *has_pictures || ids[i] < 0;
    return *has_pictures ? kvant_model_find_rows(s->model, ids, n, s->model->rows, err) : KVANT_OK;
}

/* Once, when the first tokens are there and quantized. */
static void check_heads(kvant_session *s) {
    if (!s->check || kvant_session_length(s) < s->check_length) return;
    (void)kvant_head_noise_warn(s->check, s->sequence);
    kvant_session_end_check(s);
}

void kvant_session_end_check(kvant_session *s) {
    kvant_head_noise_destroy(s->check);
    s->check = NULL;
}

kvant_status kvant_session_finish_chunk(kvant_session *s, const int32_t *ids, int n) {
    int64_t length = kvant_session_length(s);
    memcpy(s->tokens + length - n, ids, (size_t)n * sizeof *ids);
    s->check_seen = length;
    kvant_status st = kvant_maybe_quantize_kv_cache(s->sequence, NULL);
    if (st == KVANT_OK) check_heads(s);
    /* Room for a conversion can be missing after the chunk was computed: then the chunk is taken back too. */
    else (void)kvant_sequence_truncate(s->sequence, length - n);
    return st;
}

/* One chunk through the model, then the cache is quantized as far as its settings say. */
static kvant_status run_chunk(kvant_session *s, const int32_t *ids, int n, float *logits, int n_logits, kvant_error *err) {
    int64_t length = kvant_session_length(s);
    bool has_pictures;
    KVANT_TRY(prepare_pictures(s, ids, n, &has_pictures, err));
    kvant_status st = forward(s, ids, n, has_pictures, logits, n_logits);
    if (st == KVANT_OK) st = kvant_session_finish_chunk(s, ids, n);
    if (st == KVANT_OK) return KVANT_OK;
    s->has_logits = false;
    return kvant_fail(err, st, "cache: %d tokens could not be added at %lld: %s", n, (long long)length, kvant_status_name(st));
}

/* The tokens of the next chunk: a step, but never across the point where quantization begins. mlx-lm leaves the last token of a
 * prompt to a chunk of its own, which then reads what was quantized before it. */
int kvant_session_chunk(const kvant_session *s, int64_t left) {
    int64_t length = kvant_session_length(s), n = s->model->prefill_step_size;
    if (s->model->compat_mlx && left > 1) left--;
    if (n > left) n = left;
    if (length < s->quantized_start && length + n > s->quantized_start) n = s->quantized_start - length;
    return (int)n;
}

kvant_status kvant_session_prefill(kvant_session *s, const int32_t *ids, int64_t n, kvant_progress_fn progress, void *user, kvant_error *err) {
    KVANT_TRY(kvant_session_check_room(s, ids, n, err));
    for (int64_t done = 0; done < n;) {
        int chunk = kvant_session_chunk(s, n - done);
        bool last = done + chunk == n;
        s->has_logits = false;
        KVANT_TRY(run_chunk(s, ids + done, chunk, last ? s->logits : NULL, last ? 1 : 0, err));
        done += chunk;
        s->has_logits = last;
        if (progress && !progress(user, done, n) && !last)
            return kvant_fail(err, KVANT_ECANCELLED, "prefill: cancelled after %lld of %lld tokens", (long long)done, (long long)n);
    }
    return KVANT_OK;
}

kvant_status kvant_session_step(kvant_session *s, const int32_t *ids, int n, float *logits, kvant_error *err) {
    if (n > s->model->prefill_step_size)
        return kvant_fail(err, KVANT_EINVAL, "step: found %d tokens, expected at most prefill_step_size, %d", n, s->model->prefill_step_size);
    KVANT_TRY(kvant_session_check_room(s, ids, n, err));
    size_t n_vocab = (size_t)s->model->info.n_vocab;
    s->has_logits = false;
    for (int done = 0; done < n;) {
        int chunk = s->model->compat_mlx ? n : kvant_session_chunk(s, n - done);
        KVANT_TRY(run_chunk(s, ids + done, chunk, logits + (size_t)done * n_vocab, chunk, err));
        done += chunk;
    }
    if (n > 0) memcpy(s->logits, logits + (size_t)(n - 1) * n_vocab, n_vocab * sizeof(float));
    s->has_logits = n > 0;
    return KVANT_OK;
}

kvant_status kvant_session_decode(kvant_session *s, int32_t id, kvant_error *err) {
    return kvant_session_prefill(s, &id, 1, NULL, NULL, err);
}

const float *kvant_session_logits(const kvant_session *s) { return s->has_logits ? s->logits : NULL; }

int64_t kvant_session_length(const kvant_session *s) { return kvant_sequence_length(s->sequence); }

int64_t kvant_session_context(const kvant_session *s) { return s->n_context; }

kvant_status kvant_session_truncate(kvant_session *s, int64_t n_tokens, kvant_error *err) {
    int64_t length = kvant_session_length(s);
    if (n_tokens < 0 || n_tokens > length)
        return kvant_fail(err, KVANT_EINVAL, "truncate: found %lld, expected 0 to %lld tokens", (long long)n_tokens, (long long)length);
    bool lacks = n_tokens > 0 && n_tokens < s->n_imported;
    kvant_status st = lacks ? KVANT_EUNSUPPORTED : kvant_sequence_truncate(s->sequence, n_tokens);
    if (st != KVANT_OK)
        return kvant_fail(err, st, "truncate: a window has dropped tokens that position %lld would see; begin again from 0", (long long)n_tokens);
    if (n_tokens < length) s->has_logits = false;
    if (n_tokens == 0) s->n_imported = 0;
    return KVANT_OK;
}

kvant_status kvant_session_head_noise(kvant_session *s, int layer, int kv_head, double *sigma2, double *v_error, kvant_error *err) {
    const kvant_decoder_info *info = &s->model->info;
    if (!s->heads) return kvant_fail(err, KVANT_EINVAL, "head noise: this session was created without measure_tokens");
    if (layer < 0 || layer >= info->n_layer || kv_head < 0 || kv_head >= info->n_kv_head)
        return kvant_fail(err, KVANT_EINVAL, "head noise: found layer %d, KV head %d, expected below %d and %d", layer, kv_head,
                          info->n_layer, info->n_kv_head);
    if (kvant_head_noise_measure(s->heads, s->sequence, layer, kv_head, sigma2, v_error) == KVANT_OK) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "head noise: layer %d: too few of the first %d tokens are in the cache", layer,
                      kvant_head_noise_tokens(s->heads));
}

const int32_t *kvant_session_tokens(const kvant_session *s) { return s->tokens; }

size_t kvant_session_cache_bytes(const kvant_session *s) { return kvant_sequence_bytes(s->sequence); }

kvant_sequence *kvant_session_sequence(kvant_session *s) { return s->sequence; }

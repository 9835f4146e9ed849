// SPDX-License-Identifier: MIT
/* sensitivity.c: measuring how much each layer's keys and values tolerate, and keeping the figures.
 *
 * A reference pass over a short text with an f16 cache gives next-token distributions; then one pass for every layer and side in
 * which that side of that layer alone is stored coarsely. The divergence over the coarse format's known error is the sensitivity.
 * A pass begins at its layer: what lies below is the reference's, which goes along a layer at a time. So all of it costs as much as
 * one pass a layer.
 *
 * The file is a cache like the calibration's: missing, damaged or impossible to write, it costs another measurement. */
#include "engine/sensitivity.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "base/os.h"
#include "engine/calibration_store.h"
#include "engine/fingerprint.h"
#include "engine/kv_budget.h"

#define TOKENS 256
#define SCORED 128   /* the later half: what sees the most of the cache, and half the memory of distributions */
#define FLOOR 1e-8   /* below what rounding makes of a divergence: a layer without any influence still has an order */
#define TELL_SECONDS 10.0

/* ---- comparing distributions ---- */

typedef struct comparison {
    int n_vocab, n_scored;
    float *p;        /* [n_scored][n_vocab] the reference's probabilities */
    double *entropy; /* [n_scored] the sum of p * log p */
    double *kl;      /* [n_scored] */
} comparison;

typedef struct rows_task {
    comparison *c;
    const float *logits;
    bool is_reference;
} rows_task;

static float row_max(const float *x, int n) {
    float max = x[0];
    for (int i = 1; i < n; i++)
        if (x[i] > max) max = x[i];
    return max;
}

/* The log of the sum of exp(x - max); what is 30 below the top is nothing. */
static double log_sum(const float *x, int n, float max) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        if (x[i] - max > -30) sum += expf(x[i] - max);
    return log(sum);
}

static void take_reference(comparison *c, int row, const float *x) {
    float *p = c->p + (size_t)row * (size_t)c->n_vocab, max = row_max(x, c->n_vocab);
    double log_z = log_sum(x, c->n_vocab, max), entropy = 0;
    for (int i = 0; i < c->n_vocab; i++) {
        p[i] = x[i] - max > -30 ? (float)exp(x[i] - max - log_z) : 0;
        if (p[i] > 0) entropy += (double)p[i] * (x[i] - max - log_z);
    }
    c->entropy[row] = entropy;
}

static void compare_row(comparison *c, int row, const float *x) {
    const float *p = c->p + (size_t)row * (size_t)c->n_vocab;
    float max = row_max(x, c->n_vocab);
    double log_z = log_sum(x, c->n_vocab, max), cross = 0;
    for (int i = 0; i < c->n_vocab; i++)
        if (p[i] > 0) cross += (double)p[i] * (x[i] - max - log_z);
    c->kl[row] = c->entropy[row] - cross;
}

static void run_row(void *arg, int task, int worker) {
    const rows_task *t = arg;
    const float *x = t->logits + (size_t)task * (size_t)t->c->n_vocab;
    (void)worker;
    if (t->is_reference) take_reference(t->c, task, x);
    else compare_row(t->c, task, x);
}

/* ---- passes ---- */

typedef struct measuring {
    kvant_model *m;
    const kvant_sensitivity_plan *plan;
    comparison compared;
    kvant_format *k, *v; /* [n_layer] f16 but for the one that is measured */
    float *x;            /* [n_tokens][n_embd] the reference's stream below the layer that is measured */
    float *logits;       /* [n_scored][n_vocab] */
    double started, told;
} measuring;

/* The layers [first, end) over all tokens; with the last of them distributions are taken or compared. */
static kvant_status read_tokens(measuring *x, kvant_sequence *s, int first, int end, bool is_reference, kvant_error *err) {
    const kvant_model *m = x->m;
    const kvant_sensitivity_plan *plan = x->plan;
    bool is_whole = end == m->info.n_layer;
    kvant_status st = kvant_decoder_forward_layers(m->decoder, m->workspace, s, plan->ids, plan->n_tokens, plan->precision, first, end, x->x,
                                                   is_whole ? x->logits : NULL, is_whole ? plan->n_scored : 0);
    if (st != KVANT_OK) return kvant_fail(err, st, "sensitivities: layer %d: %s", first, kvant_status_name(st));
    rows_task task = {&x->compared, x->logits, is_reference};
    if (is_whole) kvant_pool_run(m->ctx->pool, plan->n_scored, run_row, &task);
    return KVANT_OK;
}

static kvant_status run_pass(measuring *x, int first, int end, bool is_reference, kvant_error *err) {
    const kvant_model *m = x->m;
    kvant_cache_config c;
    kvant_cache *cache;
    kvant_sequence *s;
    kvant_model_cache_shape(m, &c);
    c.layer_k = x->k;
    c.layer_v = x->v;
    c.calibration = m->calibration;
    KVANT_TRY(kvant_cache_create(m->ctx, &c, &cache, err));
    kvant_status st = kvant_sequence_create(cache, &s);
    if (st == KVANT_OK) {
        st = read_tokens(x, s, first, end, is_reference, err);
        kvant_sequence_destroy(s);
    } else {
        st = kvant_fail(err, st, "sensitivities: out of memory");
    }
    kvant_cache_destroy(cache);
    return st;
}

/* A layer's two passes go through all layers from it on: what is left falls with the square. */
static void tell(measuring *x, int layer) {
    double now = kvant_clock_seconds(), n = x->m->info.n_layer, left = (n - layer) * (n - layer);
    if (now - x->told < TELL_SECONDS || layer == 0) return;
    x->told = now;
    kvant_log(KVANT_LOG_INFO, "sensitivities: %d of %d layers, %.0f s left", layer, x->m->info.n_layer,
              (now - x->started) * left / (n * n - left));
}

static double mean_kl(const comparison *c) {
    double sum = 0;
    for (int i = 0; i < c->n_scored; i++)
        sum += c->kl[i];
    return sum / c->n_scored;
}

/* Stores one side of one layer coarsely for a pass. */
static kvant_status measure_side(measuring *x, int layer, kvant_format *stored, const kvant_format *coarse, double noise, double *out,
                                 kvant_error *err) {
    kvant_format before = *stored;
    *stored = *coarse;
    kvant_status st = run_pass(x, layer, x->m->info.n_layer, false, err);
    *stored = before;
    if (st != KVANT_OK) return st;
    double kl = mean_kl(&x->compared);
    if (!isfinite(kl)) return kvant_fail(err, KVANT_EFORMAT, "sensitivities: the model gives logits that are not numbers");
    *out = (kl > FLOOR ? kl : FLOOR) / noise;
    return KVANT_OK;
}

static kvant_status measure_all(measuring *x, kvant_sensitivity *s, kvant_error *err) {
    const kvant_sensitivity_plan *plan = x->plan;
    KVANT_TRY(run_pass(x, 0, s->n_layer, true, err));
    for (int i = 0; i < s->n_layer; i++) {
        tell(x, i);
        KVANT_TRY(measure_side(x, i, &x->k[i], &plan->k, plan->k_noise, &s->k[i], err));
        KVANT_TRY(measure_side(x, i, &x->v[i], &plan->v, plan->v_noise, &s->v[i], err));
        if (i + 1 < s->n_layer) KVANT_TRY(run_pass(x, i, i + 1, false, err));
    }
    return KVANT_OK;
}

static kvant_sensitivity *create(int n_layer) {
    kvant_sensitivity *s = kvant_alloc(1, sizeof *s);
    if (!s) return NULL;
    s->n_layer = n_layer;
    s->k = kvant_alloc((size_t)n_layer, 2 * sizeof *s->k);
    s->v = s->k ? s->k + n_layer : NULL;
    if (s->k) return s;
    kvant_free(s);
    return NULL;
}

void kvant_sensitivity_destroy(kvant_sensitivity *s) {
    if (!s) return;
    kvant_free(s->k);
    kvant_free(s);
}

static void free_measuring(measuring *x) {
    kvant_free(x->compared.p);
    kvant_free(x->compared.entropy);
    kvant_free(x->logits);
    kvant_free(x->x);
    kvant_free(x->k);
}

kvant_status kvant_sensitivity_measure(kvant_model *m, const kvant_sensitivity_plan *plan, kvant_sensitivity **out, kvant_error *err) {
    size_t n_layer = (size_t)m->info.n_layer, n_vocab = (size_t)m->info.n_vocab, n = (size_t)plan->n_scored;
    measuring x = {.m = m, .plan = plan, .compared = {.n_vocab = m->info.n_vocab, .n_scored = plan->n_scored}};
    x.started = x.told = kvant_clock_seconds();
    x.compared.p = kvant_alloc(n * n_vocab, sizeof *x.compared.p);
    x.compared.entropy = kvant_alloc(n, 2 * sizeof *x.compared.entropy);
    x.compared.kl = x.compared.entropy ? x.compared.entropy + n : NULL;
    x.logits = kvant_alloc(n * n_vocab, sizeof *x.logits);
    x.x = kvant_alloc((size_t)plan->n_tokens * (size_t)m->info.n_embd, sizeof *x.x);
    x.k = kvant_alloc(n_layer, 2 * sizeof *x.k);
    x.v = x.k ? x.k + n_layer : NULL;
    kvant_sensitivity *s = create(m->info.n_layer);
    kvant_status st = KVANT_OK;
    if (!x.compared.p || !x.compared.entropy || !x.logits || !x.x || !x.k || !s) st = kvant_fail(err, KVANT_ENOMEM, "sensitivities: out of memory");
    for (size_t i = 0; i < 2 * n_layer && st == KVANT_OK; i++)
        x.k[i] = (kvant_format){KVANT_CODEC_F16, 0, 0, false};
    if (st == KVANT_OK) st = measure_all(&x, s, err);
    free_measuring(&x);
    if (st != KVANT_OK) {
        kvant_sensitivity_destroy(s);
        return st;
    }
    s->n_tokens = plan->n_tokens;
    *out = s;
    return KVANT_OK;
}

/* ---- bytes: docs/FORMAT.md, "Sensitivities" ---- */

#define MAGIC "KVSENS02"
#define HEADER 48 /* magic 8, key 16, n_layer 4, tokens 4, checksum 16 of all other bytes */
#define CHECKSUM_AT 32
#define LAYERS_MAX 4096

static size_t bytes_of(int n_layer) { return HEADER + 16 * (size_t)n_layer; }

kvant_status kvant_sensitivity_write(const kvant_sensitivity *s, uint8_t **bytes, size_t *size) {
    uint8_t *b = kvant_alloc(bytes_of(s->n_layer), 1);
    if (!b) return KVANT_ENOMEM;
    memcpy(b, MAGIC, 8);
    memcpy(b + 8, s->key, KVANT_HASH_BYTES);
    kvant_write_u32(b + 24, (uint32_t)s->n_layer);
    kvant_write_u32(b + 28, (uint32_t)s->n_tokens);
    for (int i = 0; i < 2 * s->n_layer; i++) {
        uint64_t word;
        memcpy(&word, &s->k[i], sizeof word);
        kvant_write_u32(b + HEADER + 8 * i, (uint32_t)word);
        kvant_write_u32(b + HEADER + 8 * i + 4, (uint32_t)(word >> 32));
    }
    kvant_hash_around(b, bytes_of(s->n_layer), CHECKSUM_AT, b + CHECKSUM_AT);
    *bytes = b;
    *size = bytes_of(s->n_layer);
    return KVANT_OK;
}

static kvant_status check_bytes(const uint8_t *bytes, size_t size, const uint8_t *key, int n_layer, const char *name, kvant_error *err) {
    uint8_t sum[KVANT_HASH_BYTES];
    if (n_layer < 1 || n_layer > LAYERS_MAX) return kvant_fail(err, KVANT_EINVAL, "%s: found %d layers, expected 1 to %d", name, n_layer, LAYERS_MAX);
    if (size != bytes_of(n_layer))
        return kvant_fail(err, KVANT_EFORMAT, "%s: found %zu bytes, expected %zu for %d layers", name, size, bytes_of(n_layer), n_layer);
    if (memcmp(bytes, MAGIC, 8) != 0) return kvant_fail(err, KVANT_EFORMAT, "%s: does not begin with %s", name, MAGIC);
    kvant_hash_around(bytes, size, CHECKSUM_AT, sum);
    if (memcmp(bytes + CHECKSUM_AT, sum, sizeof sum) != 0) return kvant_fail(err, KVANT_EFORMAT, "%s: is damaged, its checksum does not agree", name);
    if (memcmp(bytes + 8, key, KVANT_HASH_BYTES) != 0) return kvant_fail(err, KVANT_EFORMAT, "%s: was measured of another model", name);
    if (kvant_read_u32(bytes + 24) != (uint32_t)n_layer)
        return kvant_fail(err, KVANT_EFORMAT, "%s: found %lu layers, expected %d", name, (unsigned long)kvant_read_u32(bytes + 24), n_layer);
    return KVANT_OK;
}

kvant_status kvant_sensitivity_read(const uint8_t *bytes, size_t size, const uint8_t key[KVANT_HASH_BYTES], int n_layer, const char *name,
                                    kvant_sensitivity **out, kvant_error *err) {
    KVANT_TRY(check_bytes(bytes, size, key, n_layer, name, err));
    kvant_sensitivity *s = create(n_layer);
    if (!s) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", name);
    for (int i = 0; i < 2 * n_layer; i++) {
        uint64_t word = kvant_read_u64(bytes + HEADER + 8 * i);
        memcpy(&s->k[i], &word, sizeof word);
        if (s->k[i] > 0 && s->k[i] < 1e12) continue;
        kvant_sensitivity_destroy(s);
        return kvant_fail(err, KVANT_EFORMAT, "%s: number %d is out of range", name, i);
    }
    s->n_tokens = (int)(kvant_read_u32(bytes + 28) & INT32_MAX);
    memcpy(s->key, key, KVANT_HASH_BYTES);
    *out = s;
    return KVANT_OK;
}

/* ---- the model's own ---- */

/* All that the figures depend on: the model, how its keys are centred, the tokens and the way of measuring. */
static kvant_status make_key(const kvant_model *m, const kvant_sensitivity_plan *plan, uint8_t key[KVANT_HASH_BYTES], kvant_error *err) {
    uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], *bytes = NULL;
    size_t size = 0;
    kvant_hash h;
    kvant_fingerprint_file(m->file, fingerprint);
    if (m->calibration && kvant_calibration_write(m->calibration, fingerprint, &bytes, &size) != KVANT_OK)
        return kvant_fail(err, KVANT_ENOMEM, "sensitivities: out of memory");
    kvant_hash_begin(&h);
    kvant_hash_add(&h, MAGIC, 8);
    kvant_hash_add(&h, fingerprint, sizeof fingerprint);
    if (bytes) kvant_hash_add(&h, bytes, size);
    kvant_calibration_bytes_free(bytes);
    const kvant_format *formats[] = {&plan->k, &plan->v};
    for (int i = 0; i < 2; i++) {
        kvant_hash_add_u64(&h, (uint64_t)formats[i]->codec);
        kvant_hash_add_u64(&h, (uint64_t)formats[i]->bits << 1 | formats[i]->bare);
    }
    kvant_hash_add_u64(&h, (uint64_t)plan->n_scored);
    for (int i = 0; i < plan->n_tokens; i++)
        kvant_hash_add_u64(&h, (uint64_t)plan->ids[i]);
    kvant_hash_get(&h, key);
    return KVANT_OK;
}

static char *path_of(const kvant_model *m, const uint8_t key[KVANT_HASH_BYTES]) {
    return m->cache_dir ? kvant_store_path(m->cache_dir, key, "kvsens") : NULL; /* without memory for it they are not kept */
}

/* NULL: there is none that can be used; what is wrong with a file is told. */
static kvant_sensitivity *find(const kvant_model *m, const uint8_t *key, const char *path) {
    kvant_sensitivity *s = NULL;
    uint8_t *bytes;
    size_t size;
    kvant_error why = {0};
    if (!path || kvant_os_read_file(path, bytes_of(LAYERS_MAX), &bytes, &size, &why) != KVANT_OK) return NULL;
    if (kvant_sensitivity_read(bytes, size, key, m->info.n_layer, path, &s, &why) != KVANT_OK)
        kvant_log(KVANT_LOG_INFO, "%s; it is made again", why.message);
    kvant_free(bytes);
    return s;
}

static void keep(const kvant_model *m, const kvant_sensitivity *s, const char *path) {
    uint8_t *bytes;
    size_t size;
    kvant_error why = {0};
    if (!path || kvant_sensitivity_write(s, &bytes, &size) != KVANT_OK) return;
    kvant_status st = kvant_os_make_folder(m->cache_dir, &why);
    if (st == KVANT_OK) st = kvant_os_write_file(path, bytes, size, &why);
    if (st != KVANT_OK) kvant_log(KVANT_LOG_WARNING, "%s; the next load measures again", why.message);
    kvant_free(bytes);
}

static kvant_status need(kvant_model *m, kvant_sensitivity_plan *plan, kvant_error *err) {
    uint8_t key[KVANT_HASH_BYTES];
    KVANT_TRY(make_key(m, plan, key, err));
    if (m->sensitivity && memcmp(m->sensitivity->key, key, sizeof key) == 0) return KVANT_OK;
    char *path = path_of(m, key);
    kvant_sensitivity *s = find(m, key, path);
    kvant_status st = KVANT_OK;
    if (!s) {
        kvant_log(KVANT_LOG_INFO, "measuring how sensitive each layer is: %d tokens, once for every layer of this model%s%s",
                  plan->n_tokens, path ? ", kept in " : "", path ? path : "");
        st = kvant_sensitivity_measure(m, plan, &s, err);
        if (st == KVANT_OK) {
            memcpy(s->key, key, sizeof key);
            keep(m, s, path);
        }
    }
    kvant_free(path);
    if (st != KVANT_OK) return st;
    kvant_sensitivity_destroy(m->sensitivity);
    m->sensitivity = s;
    return KVANT_OK;
}

kvant_status kvant_model_need_sensitivity(kvant_model *m, const kvant_sensitivity **out, kvant_error *err) {
    kvant_sensitivity_plan plan = {.precision = KVANT_EXACT}; /* fast kernels round as coarsely as the formats */
    int32_t *ids = NULL;
    int n = 0;
    if (!m->decoder)
        return kvant_fail(err, KVANT_EINVAL, "%s: was opened for its vocabulary only; measuring sensitivities needs the weights", m->path);
    KVANT_TRY(kvant_budget_probe(&plan.k, &plan.k_noise, m->info.head_dim, err));
    plan.v = plan.k;
    plan.v_noise = plan.k_noise;
    plan.k.bare = m->kv_center_off;
    if (kvant_format_is_centred(&plan.k)) KVANT_TRY(kvant_model_need_calibration(m, err));
    KVANT_TRY(kvant_model_calibration_ids(m, &ids, &n, err));
    plan.ids = ids;
    plan.n_tokens = n < TOKENS ? n : TOKENS;
    if (plan.n_tokens > m->prefill_step_size) plan.n_tokens = m->prefill_step_size;
    plan.n_scored = plan.n_tokens < SCORED ? plan.n_tokens : SCORED;
    kvant_status st = plan.n_tokens > 0 ? need(m, &plan, err) : kvant_fail(err, KVANT_EINVAL, "sensitivities: the built-in text has no tokens");
    kvant_ids_free(ids);
    if (st == KVANT_OK) *out = m->sensitivity;
    return st;
}

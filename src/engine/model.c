// SPDX-License-Identifier: MIT
/* model.c: opening a model: the file, its vocabulary, its weights, and the cache settings that its sessions inherit. */
#include "engine/model.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/image.h"
#include "engine/kv_config.h"
#include "engine/model_file.h"
#include "engine/prefixes.h"
#include "engine/sensitivity.h"
#include "engine/vocab.h"
#include "file/folder.h"

#define PREFILL_STEP_DEFAULT 512
#define PREFILL_STEP_MAX 8192

void kvant_load_params_default(kvant_load_params *p) { *p = (kvant_load_params){.isa = KVANT_ISA_BEST}; }

static kvant_status check_params(const kvant_load_params *p, kvant_error *err) {
    if (p->prefill_step_size < 0 || p->prefill_step_size > PREFILL_STEP_MAX)
        return kvant_fail(err, KVANT_EINVAL, "prefill_step_size: found %d, expected 1 to %d tokens (0: the default, %d)",
                          p->prefill_step_size, PREFILL_STEP_MAX, PREFILL_STEP_DEFAULT);
    if (p->vocab_only && p->mmproj)
        return kvant_fail(err, KVANT_EINVAL, "%s: a vision model is of no use with the vocabulary only", p->mmproj);
    if (p->vocab_only && p->calibration_file)
        return kvant_fail(err, KVANT_EINVAL, "%s: a calibration is of no use with the vocabulary only", p->calibration_file);
    /* Before minutes of reading: what is wrong with any model is said at once. */
    kvant_cache_config scratch;
    kvant_cache_config_default(&scratch);
    kvant_kv_params quiet = p->kv;
    quiet.max_kv_size = 0;
    return kvant_kv_config_resolve(&quiet, 0, &scratch, err);
}

static kvant_status load_tokenizer(kvant_model *m, bool required, kvant_error *err) {
    kvant_status st = kvant_vocab_load(m->file, &m->tokenizer, &m->tokenizer_error);
    if (st == KVANT_OK) return KVANT_OK;
    m->tokenizer = NULL;
    /* A model can be computed without text; who asks for text is told. */
    if (st == KVANT_ENOMEM || required) {
        if (err) *err = m->tokenizer_error;
        return st;
    }
    return KVANT_OK;
}

static kvant_status apply_budget(kvant_model *m, const kvant_kv_params *kv, kvant_error *err) {
    char size[48];
    int64_t n_tokens = kv->kv_budget_tokens ? kv->kv_budget_tokens : m->info.n_context > 0 ? m->info.n_context : 2048;
    snprintf(size, sizeof size, "budget:%zuB", kv->kv_budget);
    return kvant_model_apply_budget(m, kv->kv_budget ? size : kv->kv, n_tokens, &m->cache, &m->layer_formats, err);
}

static void set_shape(const kvant_model *m, kvant_cache_config *c) {
    c->n_layer = m->info.n_layer;
    c->n_kv_head = m->info.n_kv_head;
    c->head_dim = m->info.head_dim;
    c->layer_window = m->info.layer_window;
}

void kvant_model_cache_shape(const kvant_model *m, kvant_cache_config *out) {
    kvant_cache_config_default(out);
    set_shape(m, out);
}

static kvant_status load_decoder(kvant_model *m, const kvant_load_params *p, kvant_error *err) {
    KVANT_TRY(kvant_model_file_check_kit(m->file, err));
    kvant_decoder_info peek;
    KVANT_TRY(kvant_decoder_peek(m->file, &peek, err));
    KVANT_TRY(kvant_kv_config_resolve(&p->kv, peek.head_dim, &m->cache, err));
    if (peek.mlx_own_cache && !p->mmproj) kvant_kv_config_own_cache(&p->kv, peek.architecture, &m->cache);
    KVANT_TRY(kvant_decoder_load(m->ctx, m->file, &m->decoder, err));
    kvant_decoder_get_info(m->decoder, &m->info);
    set_shape(m, &m->cache);
    KVANT_TRY(kvant_model_load_vision(m, p->mmproj, err));
    if (m->vision && !(m->rows = kvant_alloc((size_t)m->prefill_step_size, sizeof *m->rows)))
        return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", m->path);
    KVANT_TRY(kvant_workspace_create(m->decoder, m->prefill_step_size, &m->workspace, err));
    if (p->calibration_file) KVANT_TRY(kvant_model_load_calibration(m, p->calibration_file, err));
    if (kvant_kv_config_has_budget(&p->kv)) KVANT_TRY(apply_budget(m, &p->kv, err));
    return kvant_kv_config_centres(&m->cache) ? kvant_model_need_calibration(m, err) : KVANT_OK;
}

/* general.name, or the file's own name. */
static char *model_name(const kvant_gguf *f, const char *path) {
    kvant_text name = {0};
    if (kvant_gguf_string(f, "general.name", &name, NULL) != KVANT_OK || name.size == 0 || name.size > 256) {
        const char *slash = strrchr(path, '/');
        return kvant_strdup(slash ? slash + 1 : path);
    }
    char *copy = kvant_alloc(name.size + 1, 1);
    if (!copy) return NULL;
    for (size_t i = 0; i < name.size; i++) copy[i] = (unsigned char)name.data[i] < 32 || name.data[i] == 127 ? '?' : name.data[i];
    return copy;
}

kvant_status kvant_model_open(const char *path, const kvant_load_params *params, kvant_model **out, kvant_error *err) {
    KVANT_TRY(check_params(params, err));
    kvant_model *m = kvant_alloc(1, sizeof *m);
    if (!m) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    kvant_cache_config_default(&m->cache);
    m->prefill_step_size = params->prefill_step_size ? params->prefill_step_size : PREFILL_STEP_DEFAULT;
    m->seed = params->seed;
    m->prefix_ram = params->prefix_ram;
    m->prefix_disk = params->prefix_disk;
    m->compat_mlx = params->kv.compat_mlx;
    m->kv_center_off = params->kv.kv_center_off;
    kvant_status st = kvant_context_create(params->n_threads, params->isa, &m->ctx, err);
    if (st == KVANT_OK) st = kvant_model_file_open(path, &m->file, err);
    if (st == KVANT_OK) {
        m->path = kvant_strdup(path);
        m->name = model_name(m->file, path);
        m->cache_dir = params->cache_dir ? kvant_strdup(params->cache_dir) : NULL;
        m->prefix_dir = params->prefix_dir ? kvant_strdup(params->prefix_dir) : NULL;
        bool copied = (!params->cache_dir || m->cache_dir) && (!params->prefix_dir || m->prefix_dir);
        if (!m->path || !m->name || !copied) st = kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    }
    if (st == KVANT_OK) st = load_tokenizer(m, params->vocab_only, err);
    if (st == KVANT_OK && !params->vocab_only) st = load_decoder(m, params, err);
    if (st != KVANT_OK) {
        kvant_model_close(m);
        return st;
    }
    *out = m;
    return KVANT_OK;
}

void kvant_model_close(kvant_model *m) {
    if (!m) return;
    kvant_model_drop_prefixes(m);
    kvant_calibration_destroy(m->calibration);
    kvant_sensitivity_destroy(m->sensitivity);
    kvant_free(m->layer_formats);
    kvant_free(m->calibration_name);
    kvant_free(m->calibration_file);
    kvant_free(m->cache_dir);
    kvant_free(m->prefix_dir);
    kvant_model_free_vision(m);
    kvant_free(m->rows);
    kvant_workspace_destroy(m->workspace);
    kvant_decoder_destroy(m->decoder);
    kvant_tokenizer_destroy(m->tokenizer);
    kvant_gguf_close(m->file);
    kvant_context_destroy(m->ctx);
    kvant_free(m->name);
    kvant_free(m->path);
    kvant_free(m);
}

/* The mean over the layers. */
static double stored_bits(const kvant_cache_config *c) {
    double sum = 0;
    for (int i = 0; i < c->n_layer; i++) {
        sum += kvant_format_bits(c->layer_k ? &c->layer_k[i] : &c->k, c->head_dim);
        sum += kvant_format_bits(c->layer_v ? &c->layer_v[i] : &c->v, c->head_dim);
    }
    return sum / 2 / c->n_layer;
}

void kvant_model_get_info(const kvant_model *m, kvant_model_info *out) {
    const kvant_decoder_info *d = &m->info;
    *out = (kvant_model_info){
        .name = m->name, .architecture = d->architecture, .path = m->path, .kit = m->vision ? "text+vision" : "text", .n_layer = d->n_layer,
        .n_head = d->n_head, .n_kv_head = d->n_kv_head, .head_dim = d->head_dim, .n_embd = d->n_embd,
        .n_vocab = m->decoder ? d->n_vocab : kvant_tokenizer_n_token(m->tokenizer), .layer_window = d->layer_window,
        .n_context_train = d->n_context, .n_parameters = d->n_parameters, .weight_bytes = d->weight_bytes,
        .file_bytes = (size_t)m->file->file_bytes, .k = m->cache.k, .v = m->cache.v, .layer_k = m->cache.layer_k,
        .layer_v = m->cache.layer_v, .n_threads = kvant_context_threads(m->ctx),
        .isa = kvant_context_isa(m->ctx), .calibration = m->calibration_name,
        .calibration_file = m->calibration_file};
    if (!m->decoder) return;
    out->kv_bits_total = stored_bits(&m->cache);
    out->max_kv_size = m->cache.max_kv_size;
    out->quantized_kv_start = m->cache.quantized_kv_start;
}

size_t kvant_model_cache_bytes(const kvant_model *m, int64_t n_tokens) { return kvant_cache_bytes_for(&m->cache, n_tokens); }

kvant_status kvant_model_cache_bytes_for(const kvant_model *m, const char *kv, int64_t n_tokens, size_t *out, kvant_error *err) {
    kvant_cache_config c = m->cache;
    c.layer_k = c.layer_v = NULL;
    KVANT_TRY(kvant_format_parse_pair(kv, &c.k, &c.v, err));
    KVANT_TRY(kvant_format_check(&c.k, c.head_dim, err));
    KVANT_TRY(kvant_format_check(&c.v, c.head_dim, err));
    *out = kvant_cache_bytes_for(&c, n_tokens);
    return KVANT_OK;
}

void kvant_model_sampler_params(const kvant_model *m, kvant_sampler_params *p) {
    kvant_sampler_params_default(p);
    p->seed = m->seed;
}

double kvant_time_seconds(void) { return kvant_clock_seconds(); }

size_t kvant_peak_memory(void) { return kvant_os_peak_rss(); }

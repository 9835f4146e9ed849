// SPDX-License-Identifier: MIT
/* eval_resume.c: --state: which settings make two runs the same, and going on from what an earlier one saved.
 *
 * The settings name all that changes a figure: model, text, rows, context. The machine is not among them: threads and kernel
 * levels change a logit by rounding only. */
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>

#include "eval.h"
#include "json_output.h"

#define SAMPLES 64
#define SAMPLE_BYTES 4096

/* FNV-1a. */
static uint64_t hash_bytes(uint64_t hash, const void *data, size_t n) {
    const unsigned char *bytes = data;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* A number of the file's contents, from samples spread over it: reading all of a model would take longer than a chunk. */
static uint64_t hash_file(const char *path, size_t size) {
    unsigned char block[SAMPLE_BYTES];
    uint64_t hash = 0xcbf29ce484222325u;
    FILE *f = fopen(path, "rb");
    if (!f) return 0;
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t at = size / SAMPLES * i, n = 0;
        if (at <= LONG_MAX && fseek(f, (long)at, SEEK_SET) == 0) n = fread(block, 1, sizeof block, f);
        hash = hash_bytes(hash, block, n);
    }
    fclose(f);
    return hash;
}

static void set_hash(json_t *object, const char *key, uint64_t hash) {
    char text[24];
    snprintf(text, sizeof text, "%016" PRIx64, hash);
    json_object_set_new(object, key, json_string(text));
}

/* What centred formats subtract and scale by: 0 where no row needs it. */
static uint64_t hash_calibration(const evaluation *e) {
    const kvant_calibration *c = kvant_model_calibration(e->model);
    uint64_t hash = c ? 0xcbf29ce484222325u : 0;
    size_t bytes = (size_t)e->info.head_dim * sizeof(float);
    for (int layer = 0; c && layer < e->info.n_layer; layer++) {
        for (int head = 0; head < e->info.n_kv_head; head++) {
            const float *mean, *scale;
            if (kvant_calibration_get(c, layer, head, &mean, &scale) != KVANT_OK) continue;
            hash = hash_bytes(hash_bytes(hash, mean, bytes), scale, bytes);
        }
    }
    return hash;
}

static json_t *describe(const evaluation *e) {
    const kvant_kv_params *kv = &e->load->kv;
    json_t *s = json_object(), *rows = json_array();
    json_object_set_new(s, "kvant_version", json_string(kvant_version()));
    json_object_set_new(s, "model", json_text(e->info.name));
    json_object_set_new(s, "model_bytes", json_integer((json_int_t)e->info.file_bytes));
    set_hash(s, "model_hash", hash_file(e->info.path, e->info.file_bytes));
    json_object_set_new(s, "text_tokens", json_integer(e->n_ids));
    set_hash(s, "text_hash", eval_hash_ids(e->ids, e->n_ids));
    json_object_set_new(s, "context", json_integer(e->chunk));
    json_object_set_new(s, "tokens", json_integer(e->n_scored));
    json_object_set_new(s, "precision", json_string(e->fast ? "fast" : "exact"));
    json_object_set_new(s, "prefill_step_size", json_integer(e->load->prefill_step_size));
    json_object_set_new(s, "quantized_kv_start", json_integer(kv->quantized_kv_start));
    json_object_set_new(s, "max_kv_size", json_integer(kv->max_kv_size));
    json_object_set_new(s, "kv_center", json_boolean(!kv->kv_center_off));
    set_hash(s, "calibration_hash", hash_calibration(e));
    json_object_set_new(s, "compat_mlx", json_boolean(kv->compat_mlx));
    json_object_set_new(s, "passkey", json_boolean(e->passkey));
    json_object_set_new(s, "greedy", json_boolean(e->greedy));
    json_object_set_new(s, "prompts", json_integer(e->n_prompts));
    json_object_set_new(s, "gen", json_integer(e->n_gen));
    json_object_set_new(s, "seed", json_integer((json_int_t)e->seed));
    for (int i = 0; i < e->n_rows; i++)
        json_array_append_new(rows, json_string(e->rows[i].result.name));
    json_object_set_new(s, "rows", rows);
    return s;
}

const char *eval_progress(const evaluation *e, char *text, size_t size) {
    const struct {
        bool asked;
        int64_t done, all;
        const char *what;
    } parts[] = {{e->n_scored > 0, e->rows[0].result.sample.n, e->n_scored, "tokens"},
                 {e->passkey, e->state.n_passkey, e->n_prompts, "passkey prompts"},
                 {e->greedy, e->state.n_greedy, e->n_prompts, "greedy prompts"}};
    size_t n = 0;
    text[0] = '\0';
    for (size_t i = 0; i < sizeof parts / sizeof *parts && n < size; i++) {
        if (!parts[i].asked) continue;
        n += (size_t)snprintf(text + n, size - n, "%s%" PRId64 " of %" PRId64 " %s", n ? ", " : "", parts[i].done, parts[i].all,
                              parts[i].what);
    }
    return text;
}

int eval_resume(evaluation *e) {
    char why[1024];
    bool found;
    eval_state *s = &e->state;
    s->n_scored = e->n_scored;
    s->n_prompts = e->n_prompts;
    s->n_gen = e->n_gen;
    s->n_results = e->n_rows;
    for (int i = 0; i < e->n_rows; i++)
        s->results[i] = &e->rows[i].result;
    if (!e->state_path) return 0;
    s->settings = describe(e);
    if (!s->settings) return fail_with(1, "out of memory");
    if (!eval_state_load(s, e->state_path, &found, why, sizeof why)) return fail_with(1, "%s", why);
    if (found) fprintf(stderr, "kvant: going on from %s: %s\n", e->state_path, eval_progress(e, why, sizeof why));
    return 0;
}

int eval_save(evaluation *e) {
    char why[1024];
    if (!e->state_path || eval_state_save(&e->state, e->state_path, why, sizeof why)) return 0;
    return fail_with(1, "%s", why);
}

// SPDX-License-Identifier: MIT
/* test_mlx_models.c: model folders give the logits that mlx-lm gave for them.
 *
 * Every folder of KVANT_DATA/mlx/text is opened, whatever its name, and every configuration of its golden.json is run as mlx-lm
 * ran it: chunks of the prompt, the last token apart, then the golden tokens one by one. The rows of golden.safetensors are
 * compared by the length of the difference relative to the length of the row. "f32.*" are float32 throughout, so they bind
 * tightly; the others are of half precision and bind loosely. Skipped where the data are absent. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>
#include <math.h>

#include "base/bytes.h"
#include "file/safetensors.h"
#include "kvant/engine.h"

#define ROOT KVANT_DATA "/mlx/text"
#define N_PROMPT_ROWS 8

/* What golden.json says of one configuration. */
typedef struct config {
    const char *name;
    int bits, group, start, window, step;
    bool f32;
    double stated; /* of half precision: how far its prompt's logits are from those of the float32 run, at most; -1: not said */
} config;

typedef struct golden {
    const char *folder;
    kvant_safetensors *file;
    const kvant_safetensor *prompt, *ids, *prompt_logits, *gen_logits;
    int n_prompt, n_gen, n_vocab;
} golden;

typedef struct outcome {
    double worst;      /* relative, of all rows */
    double prompt_off; /* the largest difference of a logit, of the prompt's rows */
    int wrong_ids, n_ids;
} outcome;

static int int_of(const json_t *args, const char *key, int fallback) {
    const json_t *v = json_object_get(args, key);
    return json_is_integer(v) ? (int)json_integer_value(v) : fallback;
}

static double stated_difference(const json_t *configs, const char *name) {
    char of_f32[128];
    snprintf(of_f32, sizeof of_f32, "f32.%s", name);
    const json_t *v = json_object_get(json_object_get(configs, of_f32), "max_abs_vs_native_prompt_logits");
    return json_is_number(v) ? json_number_value(v) : -1;
}

static config config_of(const char *name, const json_t *entry, int step) {
    const json_t *args = json_object_get(entry, "args");
    return (config){.name = name,
                    .bits = int_of(args, "kv_bits", 0),
                    .group = int_of(args, "kv_group_size", 64),
                    .start = int_of(args, "quantized_kv_start", 0),
                    .window = int_of(args, "max_kv_size", 0),
                    .step = int_of(args, "prefill_step_size", step),
                    .f32 = strncmp(name, "f32.", 4) == 0};
}

static const kvant_safetensor *array_of(const golden *g, const char *config_name, const char *what) {
    char name[128];
    snprintf(name, sizeof name, "%s.%s", config_name, what);
    return kvant_safetensors_find(g->file, name);
}

/* Whether the configuration has rows. */
static bool select_config(golden *g, const char *name) {
    g->ids = array_of(g, name, "gen_ids");
    g->prompt_logits = array_of(g, name, "prompt_logits");
    g->gen_logits = array_of(g, name, "gen_logits");
    if (!g->ids || !g->prompt_logits || !g->gen_logits) return false;
    g->n_gen = (int)g->ids->dims[0];
    g->n_vocab = (int)g->prompt_logits->dims[1];
    return g->prompt_logits->dims[0] == N_PROMPT_ROWS && g->gen_logits->dims[0] == g->n_gen;
}

static int32_t id_at(const kvant_safetensor *t, int i) { return (int32_t)kvant_read_u32(t->data + 4 * (size_t)i); }

static float value_at(const kvant_safetensor *t, size_t i) {
    uint32_t bits = kvant_read_u32(t->data + 4 * i);
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void compare_row(const golden *g, const kvant_safetensor *expected, int row, const float *found, outcome *o) {
    double difference = 0, length = 0;
    for (int i = 0; i < g->n_vocab; i++) {
        double e = (double)value_at(expected, (size_t)row * (size_t)g->n_vocab + (size_t)i), d = (double)found[i] - e;
        difference += d * d;
        if (expected == g->prompt_logits && fabs(d) > o->prompt_off) o->prompt_off = fabs(d);
        length += e * e;
    }
    double relative = sqrt(difference / length);
    if (!(relative <= o->worst)) o->worst = relative;
}

static int largest(const float *x, int n) {
    int best = 0;
    for (int i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* Chunks as mlx-lm makes them, and every golden token after the golden one before it. */
static void follow(kvant_session *s, const golden *g, const config *c, outcome *o) {
    kvant_error err;
    int step = c->step < g->n_prompt ? c->step : g->n_prompt;
    int32_t *ids = malloc((size_t)g->n_prompt * sizeof *ids);
    float *rows = malloc((size_t)step * (size_t)g->n_vocab * sizeof *rows);
    for (int i = 0; i < g->n_prompt; i++)
        ids[i] = id_at(g->prompt, i);
    for (int done = 0; done < g->n_prompt;) {
        int left = g->n_prompt - done, n = left > 1 ? (left - 1 < step ? left - 1 : step) : 1;
        if (kvant_session_step(s, ids + done, n, rows, &err) != KVANT_OK) fail_msg("%s", err.message);
        for (int i = 0; i < n; i++) {
            int row = done + i - (g->n_prompt - N_PROMPT_ROWS);
            if (row >= 0) compare_row(g, g->prompt_logits, row, rows + (size_t)i * (size_t)g->n_vocab, o);
        }
        done += n;
    }
    for (int i = 0; i < g->n_gen; i++) {
        const float *logits = kvant_session_logits(s);
        compare_row(g, g->gen_logits, i, logits, o);
        o->wrong_ids += largest(logits, g->n_vocab) != id_at(g->ids, i);
        o->n_ids++;
        if (kvant_session_decode(s, id_at(g->ids, i), &err) != KVANT_OK) fail_msg("%s", err.message);
    }
    free(ids);
    free(rows);
}

static outcome run(const golden *g, const config *c, const char *format) {
    kvant_load_params load;
    kvant_session_params params;
    kvant_model *m = NULL;
    kvant_session *s = NULL;
    kvant_error err;
    outcome o = {0};
    kvant_load_params_default(&load);
    kvant_session_params_default(&params);
    load.n_threads = 2;
    load.prefill_step_size = c->step;
    load.kv.compat_mlx = true;
    load.kv.kv_bits = c->bits;
    load.kv.kv_group_size = c->bits ? c->group : 0;
    load.kv.quantized_kv_start = c->start;
    load.kv.max_kv_size = c->window;
    load.kv.kv = c->bits ? NULL : format;
    params.precision = KVANT_EXACT;
    if (kvant_model_open(g->folder, &load, &m, &err) != KVANT_OK) fail_msg("%s", err.message);
    kvant_model_info info;
    kvant_model_get_info(m, &info);
    assert_int_equal(info.n_vocab, g->n_vocab);
    if (kvant_session_create(m, &params, &s, &err) != KVANT_OK) fail_msg("%s: %s", g->folder, err.message);
    follow(s, g, c, &o);
    kvant_session_destroy(s);
    kvant_model_close(m);
    return o;
}

/* How far a row may be off, and whether tokens must agree. Half precision moves a quantized cache by whole codes. */
static double bound_of(const config *c) { return c->f32 ? (c->bits ? 1e-2 : 1e-3) : 0.5; }

static int check_config(golden *g, const config *c) {
    if (!select_config(g, c->name)) {
        printf("  %-22s no rows\n", c->name);
        return 0;
    }
    outcome o = run(g, c, c->f32 ? "f32" : NULL);
    /* Kvant computes in float32: it is as far from a run in half precision as mlx-lm's own float32 run is. */
    bool beyond = !c->f32 && c->stated >= 0 && o.prompt_off > 1.1 * c->stated + 1e-2;
    bool bad = !(o.worst <= bound_of(c)) || (c->f32 && o.wrong_ids > 0) || beyond;
    printf("  %-22s off by %.2e, %d of %d ids differ", c->name, o.worst, o.wrong_ids, o.n_ids);
    if (c->stated >= 0) printf(", prompt by %.3f (mlx-lm's own: %.3f)", o.prompt_off, c->stated);
    printf("%s\n", bad ? "  <-- TOO FAR" : "");
    return bad;
}

/* A setting that mlx-lm refuses for a model with windows or sinks runs here; it is held against the float32 cache. */
static int check_unsupported(golden *g, const char *name, int step) {
    config c = {.name = name, .group = 64, .step = step};
    if (sscanf(name, "kv%d_g%d", &c.bits, &c.group) != 2) return 0;
    const char *start = strstr(name, "_start"), *own_step = strstr(name, "_step");
    if (start) c.start = atoi(start + 6);
    if (own_step) c.step = atoi(own_step + 5);
    if (!select_config(g, "f32.none")) return 0;
    outcome o = run(g, &c, NULL);
    double bound = c.bits >= 6 ? 0.1 : c.bits >= 4 ? 0.5 : 2.0;
    bool bad = !(o.worst <= bound);
    printf("  %-22s differs from f32 by %.2e, %d of %d ids%s\n", name, o.worst, o.wrong_ids, o.n_ids, bad ? "  <-- TOO FAR" : "");
    return bad;
}

/* A model without a setting with a window is one whose cache mlx-lm makes itself: one that is asked for changes nothing. */
static int check_own_cache(golden *g, int step) {
    config c = {.name = "f32.none", .group = 64, .step = step, .window = 128, .f32 = true};
    if (!select_config(g, c.name)) return 0;
    outcome o = run(g, &c, "f32");
    bool bad = !(o.worst <= bound_of(&c)) || o.wrong_ids > 0;
    printf("  %-22s off by %.2e, %d of %d ids differ%s\n", "f32.none, max_kv_size", o.worst, o.wrong_ids, o.n_ids,
           bad ? "  <-- TOO FAR" : "");
    return bad;
}

static int check_folder(const char *name) {
    char path[512], json_path[640], array_path[640];
    kvant_error err;
    golden g = {.folder = path};
    int bad = 0, n_windows = 0;
    snprintf(path, sizeof path, "%s/%s", ROOT, name);
    snprintf(json_path, sizeof json_path, "%s/golden.json", path);
    snprintf(array_path, sizeof array_path, "%s/golden.safetensors", path);
    json_t *root = json_load_file(json_path, 0, NULL), *entry;
    if (!root) return 0;
    if (kvant_safetensors_open(array_path, &g.file, &err) != KVANT_OK) fail_msg("%s", err.message);
    g.prompt = kvant_safetensors_find(g.file, "prompt_ids");
    assert_non_null(g.prompt);
    g.n_prompt = (int)g.prompt->dims[0];
    printf("%s\n", name);
    const char *key;
    json_object_foreach(json_object_get(root, "configs"), key, entry) {
        config c = config_of(key, entry, int_of(root, "prefill_step_size", 128));
        c.stated = stated_difference(json_object_get(root, "configs"), key);
        bad += check_config(&g, &c);
        n_windows += c.window > 0;
    }
    if (n_windows == 0) bad += check_own_cache(&g, int_of(root, "prefill_step_size", 128));
    json_object_foreach(json_object_get(root, "unsupported"), key, entry) bad +=
        check_unsupported(&g, key, int_of(root, "prefill_step_size", 128));
    json_decref(root);
    kvant_safetensors_close(g.file);
    return bad;
}

static void folders_give_the_logits_of_mlx(void **state) {
    (void)state;
    DIR *folder = opendir(ROOT);
    struct dirent *e;
    int bad = 0;
    if (!folder) {
        printf("skipped: %s is not there\n", ROOT);
        skip();
    }
    while ((e = readdir(folder)))
        if (e->d_name[0] != '.') bad += check_folder(e->d_name);
    closedir(folder);
    if (bad) fail_msg("%d configurations are too far from mlx-lm", bad);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(folders_give_the_logits_of_mlx)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

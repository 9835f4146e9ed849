// SPDX-License-Identifier: MIT
/* eval_layers.c: what each format does to every KV head, so that a bad one is found by name.
 *
 * Every format reads the same tokens in a session of its own, which measures the noise of the logits from stored keys and the
 * error of attention's output from stored values (kvant_session_head_noise). Tables show the worst heads first, then all. */
#include "eval_layers.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interrupt.h"
#include "json_output.h"

#define N_WORST 8

typedef struct head_figures {
    int layer, kv_head;
    double sigma2, v_error;
} head_figures;

typedef struct layers_report {
    const evaluation *e;
    int n_tokens, n_heads; /* of all layers */
    head_figures *heads;   /* [n_heads], layer by layer */
    head_figures *sorted;  /* [n_heads] */
    json_t *formats;       /* with --json */
} layers_report;

/* ---- measuring ---- */

static int measure_heads(const layers_report *r, kvant_session *s, const char *name) {
    kvant_error err = {0};
    for (int i = 0; i < r->n_heads; i++) {
        head_figures *h = &r->heads[i];
        h->layer = i / r->e->info.n_kv_head;
        h->kv_head = i % r->e->info.n_kv_head;
        if (kvant_session_head_noise(s, h->layer, h->kv_head, &h->sigma2, &h->v_error, &err) != KVANT_OK)
            return fail_with(1, "%s: %s", name, err.message);
    }
    return 0;
}

typedef struct reading {
    progress *bar;
    int format, n_formats;
} reading;

static bool show_reading(void *user, int64_t done, int64_t total) {
    const reading *p = user;
    progress_update(p->bar, p->format + (double)done / (double)total, p->n_formats);
    return !interrupted;
}

static int measure_format(const layers_report *r, const kv_item *item, reading *reads) {
    const evaluation *e = r->e;
    kvant_session_params params;
    kvant_session *s = NULL;
    kvant_error err = {0};
    kvant_session_params_default(&params);
    params.n_context = r->n_tokens;
    params.precision = e->fast ? KVANT_FAST : KVANT_EXACT;
    params.kv = item->name;
    params.measure_tokens = r->n_tokens;
    kvant_status st = kvant_session_create(e->model, &params, &s, &err);
    if (st == KVANT_OK) st = kvant_session_prefill(s, e->ids, r->n_tokens, show_reading, reads, &err);
    int code = st == KVANT_OK ? measure_heads(r, s, item->name) : fail_with(1, "%s: %s", item->name, err.message);
    kvant_session_destroy(s);
    return code;
}

/* ---- tables ---- */

/* Descending; what is not a number is worst. */
static int compare_down(double a, double b) {
    if (isnan(a) || isnan(b)) return isnan(b) - isnan(a);
    return (a < b) - (a > b);
}

static int by_sigma2(const void *a, const void *b) {
    return compare_down(((const head_figures *)a)->sigma2, ((const head_figures *)b)->sigma2);
}

static int by_v_error(const void *a, const void *b) {
    return compare_down(((const head_figures *)a)->v_error, ((const head_figures *)b)->v_error);
}

static double mean_of(const layers_report *r, bool of_v) {
    double sum = 0;
    for (int i = 0; i < r->n_heads; i++)
        sum += of_v ? r->heads[i].v_error : r->heads[i].sigma2;
    return sum / r->n_heads;
}

static bool print_worst(const layers_report *r, const char *name) {
    int n = r->n_heads < N_WORST ? r->n_heads : N_WORST;
    head_figures keys[N_WORST];
    table *t = table_create(7);
    if (!t) return false;
    memcpy(r->sorted, r->heads, (size_t)r->n_heads * sizeof *r->heads);
    qsort(r->sorted, (size_t)r->n_heads, sizeof *r->sorted, by_sigma2);
    memcpy(keys, r->sorted, (size_t)n * sizeof *keys);
    qsort(r->sorted, (size_t)r->n_heads, sizeof *r->sorted, by_v_error);
    static const char *const headings[] = {"worst", "K: layer", "KV head", "sigma2", "V: layer", "KV head", "error %"};
    for (int i = 0; i < 7; i++)
        table_cell(t, "%s", headings[i]);
    for (int i = 0; i < n; i++) {
        table_cell(t, "%d", i + 1);
        table_cell(t, "%d", keys[i].layer);
        table_cell(t, "%d", keys[i].kv_head);
        table_cell(t, "%.3g", keys[i].sigma2);
        table_cell(t, "%d", r->sorted[i].layer);
        table_cell(t, "%d", r->sorted[i].kv_head);
        table_cell(t, "%.3g", 100 * r->sorted[i].v_error);
    }
    printf("%s: sigma2 of K %.3g, error of V %.3g %% on average of %d KV heads\n", name, mean_of(r, false),
           100 * mean_of(r, true), r->n_heads);
    table_print(t, stdout);
    table_destroy(t);
    return true;
}

/* All heads: a row a layer, a column a KV head. */
static bool print_all(const layers_report *r, bool of_v) {
    int n_kv = r->e->info.n_kv_head;
    table *t = table_create(1 + n_kv);
    if (!t) return false;
    table_cell(t, "layer");
    for (int k = 0; k < n_kv; k++)
        table_cell(t, "%s %d", of_v ? "V" : "K", k);
    for (int i = 0; i < r->n_heads; i++) {
        if (i % n_kv == 0) table_cell(t, "%d", i / n_kv);
        table_cell(t, "%.3g", of_v ? 100 * r->heads[i].v_error : r->heads[i].sigma2);
    }
    printf("%s\n", of_v ? "error of V, %, by KV head:" : "sigma2 of K, by KV head:");
    table_print(t, stdout);
    table_destroy(t);
    return true;
}

static int print_format(const layers_report *r, const kv_item *item) {
    const evaluation *e = r->e;
    if (e->csv) {
        for (int i = 0; i < r->n_heads; i++) {
            const head_figures *h = &r->heads[i];
            printf("%s,%d,%d,%.6g,%.6g,%d\n", item->name, h->layer, h->kv_head, h->sigma2, h->v_error, r->n_tokens);
        }
        return 0;
    }
    if (!e->json)
        return print_worst(r, item->name) && print_all(r, false) && print_all(r, true) ? 0 : fail_with(1, "out of memory");
    json_t *format = json_object(), *heads = json_array();
    for (int i = 0; i < r->n_heads; i++) {
        const head_figures *h = &r->heads[i];
        json_t *head = json_object();
        json_object_set_new(head, "layer", json_integer(h->layer));
        json_object_set_new(head, "kv_head", json_integer(h->kv_head));
        json_object_set_new(head, "sigma2", json_number_or_null(h->sigma2));
        json_object_set_new(head, "v_error", json_number_or_null(h->v_error));
        json_array_append_new(heads, head);
    }
    json_object_set_new(format, "kv", json_text(item->name));
    json_object_set_new(format, "sigma2_mean", json_number_or_null(mean_of(r, false)));
    json_object_set_new(format, "v_error_mean", json_number_or_null(mean_of(r, true)));
    json_object_set_new(format, "heads", heads);
    json_array_append_new(r->formats, format);
    return 0;
}

static int finish(const layers_report *r) {
    const evaluation *e = r->e;
    if (e->csv) return 0;
    if (!e->json) {
        printf(
            "%d tokens; sigma2: variance over keys of the error of attention's logits (attention's divergence is half of it);\n"
            "error: of attention's output, root mean square relative to that output\n",
            r->n_tokens);
        return 0;
    }
    json_t *root = json_object();
    json_object_set_new(root, "model", json_text(e->info.name));
    json_object_set_new(root, "tokens", json_integer(r->n_tokens));
    json_object_set_new(root, "precision", json_string(e->fast ? "fast" : "exact"));
    json_object_set(root, "formats", r->formats);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

int eval_by_layer(const evaluation *e) {
    layers_report r = {.e = e, .n_tokens = (int)e->n_scored, .n_heads = e->info.n_layer * e->info.n_kv_head};
    progress bar;
    reading reads = {.bar = &bar, .n_formats = e->formats.n};
    int code = 0;
    if (r.n_tokens < EVAL_LAYERS_MIN)
        return fail_with(1, "%s: %d tokens are too few for --by-layer, which needs %d", e->text_path, r.n_tokens,
                         EVAL_LAYERS_MIN);
    r.heads = calloc((size_t)r.n_heads, sizeof *r.heads);
    r.sorted = calloc((size_t)r.n_heads, sizeof *r.sorted);
    r.formats = json_array();
    if (!r.heads || !r.sorted || !r.formats) code = fail_with(1, "out of memory");
    if (!code && e->csv) puts("kv,layer,kv_head,sigma2,v_error,tokens");
    interrupt_watch();
    for (int i = 0; i < e->formats.n && !code; i++) {
        reads.format = i;
        progress_begin(&bar, "eval --by-layer");
        code = measure_format(&r, &e->formats.items[i], &reads);
        progress_end(&bar);
        if (!code) code = print_format(&r, &e->formats.items[i]);
    }
    interrupt_unwatch();
    if (!code) code = finish(&r);
    free(r.heads);
    free(r.sorted);
    json_decref(r.formats);
    return code;
}

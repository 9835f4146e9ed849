// SPDX-License-Identifier: MIT
/* eval_rows.c: the rows of an evaluation: which there are, their sessions, and the figures of what was measured. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval.h"

static int add_row(evaluation *e, const char *name, const kv_item *item, kvant_precision precision) {
    eval_row *r = &e->rows[e->n_rows++];
    r->kv = item->name;
    r->precision = precision;
    r->figures.k_bits = item->is_budget ? NAN : kvant_format_bits(&item->k, e->info.head_dim);
    r->figures.v_bits = item->is_budget ? NAN : kvant_format_bits(&item->v, e->info.head_dim);
    return eval_result_init(&r->result, name, e->n_prompts) ? 0 : fail_with(1, "out of memory");
}

int eval_create_rows(evaluation *e) {
    static const kv_item f16 = {.name = "f16", .k = {.codec = KVANT_CODEC_F16}, .v = {.codec = KVANT_CODEC_F16}};
    static const kv_item f32 = {.name = "f32", .k = {.codec = KVANT_CODEC_F32}, .v = {.codec = KVANT_CODEC_F32}};
    int code = add_row(e, "f16", &f16, KVANT_EXACT);
    if (!code) code = add_row(e, "f32", &f32, KVANT_EXACT);
    if (!code && e->fast) code = add_row(e, "f16 (fast)", &f16, KVANT_FAST);
    for (int i = 0; i < e->formats.n && !code; i++) {
        const kv_item *item = &e->formats.items[i];
        bool there = strcmp(item->name, "f16") == 0 || strcmp(item->name, "f32") == 0;
        if (!there) code = add_row(e, item->name, item, e->fast ? KVANT_FAST : KVANT_EXACT);
    }
    return code;
}

void eval_free_rows(evaluation *e) {
    for (int i = 0; i < e->n_rows; i++) {
        kvant_session_destroy(e->rows[i].session);
        eval_result_free(&e->rows[i].result);
    }
}

/* A window that cannot go back to its start takes a new session. */
int eval_empty_row(evaluation *e, eval_row *r) {
    kvant_error err = {0};
    if (r->session && kvant_session_truncate(r->session, 0, &err) == KVANT_OK) return 0;
    kvant_session_params p;
    kvant_session_params_default(&p);
    p.n_context = e->chunk;
    p.precision = r->precision;
    p.kv = r->kv;
    kvant_session_destroy(r->session);
    r->session = NULL;
    if (kvant_session_create(e->model, &p, &r->session, &err) != KVANT_OK)
        return fail_with(1, "%s: %s", r->result.name, err.message);
    return 0;
}

int eval_empty_rows(evaluation *e) {
    int code = 0;
    for (int i = 0; i < e->n_rows && !code; i++)
        code = eval_empty_row(e, &e->rows[i]);
    return code;
}

double eval_measure_bits(const evaluation *e, const eval_row *r) {
    int64_t tokens = kvant_session_length(r->session);
    bool whole = tokens > 0 && tokens % KVANT_PAGE_TOKENS == 0 && e->load->kv.max_kv_size == 0;
    for (int i = 0; i < e->info.n_layer && whole; i++)
        whole = e->info.layer_window[i] == 0 || e->info.layer_window[i] >= tokens;
    if (!whole) return NAN;
    double values = 2.0 * e->info.n_layer * e->info.n_kv_head * e->info.head_dim * (double)tokens;
    return (double)kvant_session_cache_bytes(r->session) * 8 / values;
}

static double mean_of(const int *x, int n) {
    double sum = 0;
    for (int i = 0; i < n; i++)
        sum += x[i];
    return n > 0 ? sum / n : NAN;
}

static int compare_ints(const void *a, const void *b) {
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

static bool fill_greedy(const evaluation *e, eval_row *r) {
    int n = e->state.n_greedy, same = 0;
    eval_figures *f = &r->figures;
    f->differs_mean = f->differs_median = f->identical = NAN;
    if (n == 0) return true;
    int *sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted) return false;
    memcpy(sorted, r->result.differs, (size_t)n * sizeof *sorted);
    qsort(sorted, (size_t)n, sizeof *sorted, compare_ints);
    for (int i = 0; i < n; i++)
        same += sorted[i] >= e->n_gen;
    f->differs_mean = mean_of(sorted, n);
    f->differs_median = (sorted[(n - 1) / 2] + sorted[n / 2]) / 2.0;
    f->identical = (double)same / n;
    free(sorted);
    return true;
}

/* Where the formats were chosen by layer: what they are on average. */
static void fill_layer_bits(const evaluation *e, eval_row *r) {
    double k = 0, v = 0;
    for (int i = 0; i < e->info.n_layer; i++) {
        kvant_page_info page;
        if (!r->session || kvant_sequence_page_info(kvant_session_sequence(r->session), i, 0, &page) != KVANT_OK) return;
        k += kvant_format_bits(&page.k, e->info.head_dim);
        v += kvant_format_bits(&page.v, e->info.head_dim);
    }
    r->figures.k_bits = k / e->info.n_layer;
    r->figures.v_bits = v / e->info.n_layer;
}

int eval_fill_figures(evaluation *e) {
    for (int i = 0; i < e->n_rows; i++) {
        eval_row *r = &e->rows[i];
        eval_figures *f = &r->figures;
        if (isnan(f->k_bits)) fill_layer_bits(e, r);
        f->bits = isnan(r->result.bits) ? (f->k_bits + f->v_bits) / 2 : r->result.bits;
        f->passkey = mean_of(r->result.found, e->state.n_passkey);
        if (!divergence_summarize(&r->result.sample, &f->kl) || !fill_greedy(e, r)) return fail_with(1, "out of memory");
    }
    return 0;
}

const eval_row *eval_shown_row(const evaluation *e, int i) { return &e->rows[i == 0 ? 1 : i == 1 ? 0 : i]; }

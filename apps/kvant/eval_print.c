// SPDX-License-Identifier: MIT
/* eval_print.c: the figures of an evaluation as a table for people, CSV for scripts and JSON for both.
 *
 * One list says what a figure is called in each of them. CSV has all columns always, empty where nothing was measured; a table
 * leaves out what was not asked for. */
#include <inttypes.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "eval.h"
#include "json_output.h"

typedef enum figure_kind { ALWAYS, DIVERGENCE, PASSKEY, GREEDY } figure_kind;

typedef struct figure {
    const char *key;     /* in CSV and JSON */
    const char *heading; /* in the table, NULL: not there */
    const char *cell;    /* in the table */
    double factor;       /* in the table: shares are shown in percent */
    const char *exact;   /* in CSV */
    figure_kind kind;
    size_t offset; /* of a double in eval_figures */
} figure;

#define FIGURE(member) offsetof(eval_figures, member)
static const figure figures[] = {
    {"k_bits", NULL, NULL, 1, "%g", ALWAYS, FIGURE(k_bits)},
    {"v_bits", NULL, NULL, 1, "%g", ALWAYS, FIGURE(v_bits)},
    {"bits", "bits", "%.3g", 1, "%.6g", ALWAYS, FIGURE(bits)},
    {"kl_mean", "KL mean", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.mean)},
    {"kl_se", "± se", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.se)},
    {"kl_median", "median", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.median)},
    {"kl_p99", "99 %", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.p99)},
    {"kl_p999", "99.9 %", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.p999)},
    {"kl_max", "max", "%.3g", 1, "%.6g", DIVERGENCE, FIGURE(kl.max)},
    {"top1", "top-1 %", "%.2f", 100, "%.6g", DIVERGENCE, FIGURE(kl.top1)},
    {"ppl", "ppl", "%.4f", 1, "%.6f", DIVERGENCE, FIGURE(kl.perplexity)},
    {"passkey", "passkey %", "%.1f", 100, "%.6g", PASSKEY, FIGURE(passkey)},
    {"differs_mean", "differs at", "%.1f", 1, "%.6g", GREEDY, FIGURE(differs_mean)},
    {"differs_median", "median", "%.1f", 1, "%.6g", GREEDY, FIGURE(differs_median)},
    {"identical", "same %", "%.1f", 100, "%.6g", GREEDY, FIGURE(identical)},
};
#define N_FIGURES (sizeof figures / sizeof *figures)
#define N_BEFORE_TOKENS 11 /* columns of CSV before `tokens`, which earlier versions ended with */

static double value_of(const eval_row *r, const figure *f) {
    double value;
    memcpy(&value, (const char *)&r->figures + f->offset, sizeof value);
    return value;
}

static bool was_asked(const evaluation *e, figure_kind kind) {
    return kind == DIVERGENCE ? e->n_scored > 0 : kind == PASSKEY ? e->passkey : kind == GREEDY ? e->greedy : true;
}

static int64_t positions(const evaluation *e) { return e->rows[0].result.sample.n; }

static bool is_complete(const evaluation *e) {
    return positions(e) == e->n_scored && (!e->passkey || e->state.n_passkey == e->n_prompts) &&
           (!e->greedy || e->state.n_greedy == e->n_prompts);
}

/* ---- table ---- */

static void put_cell(table *t, const figure *f, double value) {
    char text[48];
    if (isnan(value))
        snprintf(text, sizeof text, "-");
    else
        snprintf(text, sizeof text, f->cell, value * f->factor);
    table_cell(t, "%s", text);
}

/* What the columns mean, and over how many prompts. */
static void print_legend(const evaluation *e) {
    if (e->n_scored > 0)
        printf("%" PRId64 " positions in chunks of %d, %s; KL in nats against the f16 cache, f32: the noise floor\n",
               positions(e), e->chunk, e->fast ? "fast kernels" : "float32 arithmetic");
    if (e->passkey)
        printf(
            "passkey: %d prompts of %d tokens with a number hidden in them, share whose answer has it; f16 is what the model can "
            "do\n",
            e->state.n_passkey, e->chunk);
    if (e->greedy)
        printf(
            "differs at: %d prompts of %d tokens, first of %d greedy tokens that is not f16's (mean, median; %d where none is); "
            "same: none\n",
            e->state.n_greedy, e->chunk - e->n_gen, e->n_gen, e->n_gen);
}

static int print_table(const evaluation *e) {
    int n_columns = 1;
    for (size_t c = 0; c < N_FIGURES; c++)
        n_columns += figures[c].heading && was_asked(e, figures[c].kind);
    table *t = table_create(n_columns);
    if (!t) return fail_with(1, "out of memory");
    table_cell(t, "kv");
    for (size_t c = 0; c < N_FIGURES; c++)
        if (figures[c].heading && was_asked(e, figures[c].kind)) table_cell(t, "%s", figures[c].heading);
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = eval_shown_row(e, i);
        table_cell(t, "%s", r->result.name);
        for (size_t c = 0; c < N_FIGURES; c++)
            if (figures[c].heading && was_asked(e, figures[c].kind)) put_cell(t, &figures[c], value_of(r, &figures[c]));
    }
    table_print(t, stdout);
    table_destroy(t);
    print_legend(e);
    return 0;
}

/* ---- CSV ---- */

static void print_csv(const evaluation *e) {
    printf("kv");
    for (size_t c = 0; c < N_FIGURES; c++) {
        if (c == N_BEFORE_TOKENS) printf(",tokens");
        printf(",%s", figures[c].key);
    }
    printf(",passkey_prompts,greedy_prompts\n");
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = eval_shown_row(e, i);
        printf("%s", r->result.name);
        for (size_t c = 0; c < N_FIGURES; c++) {
            double value = value_of(r, &figures[c]);
            if (c == N_BEFORE_TOKENS) printf(",%" PRId64, positions(e));
            putchar(',');
            if (!isnan(value)) printf(figures[c].exact, value);
        }
        printf(",%d,%d\n", e->state.n_passkey, e->state.n_greedy);
    }
}

/* ---- JSON ---- */

static int print_json(const evaluation *e) {
    json_t *root = json_object(), *rows = json_array();
    json_object_set_new(root, "model", json_text(e->info.name));
    json_object_set_new(root, "context", json_integer(e->chunk));
    json_object_set_new(root, "bos", json_boolean(e->has_bos));
    json_object_set_new(root, "precision", json_string(e->fast ? "fast" : "exact"));
    json_object_set_new(root, "complete", json_boolean(is_complete(e)));
    json_object_set_new(root, "tokens", json_integer(positions(e)));
    if (e->passkey) json_object_set_new(root, "passkey_prompts", json_integer(e->state.n_passkey));
    if (e->greedy) {
        json_object_set_new(root, "greedy_prompts", json_integer(e->state.n_greedy));
        json_object_set_new(root, "gen", json_integer(e->n_gen));
    }
    for (int i = 0; i < e->n_rows; i++) {
        const eval_row *r = eval_shown_row(e, i);
        json_t *row = json_object();
        json_object_set_new(row, "kv", json_string(r->result.name));
        for (size_t c = 0; c < N_FIGURES; c++)
            if (was_asked(e, figures[c].kind))
                json_object_set_new(row, figures[c].key, json_number_or_null(value_of(r, &figures[c])));
        json_object_set_new(row, "bits_measured", json_boolean(!isnan(r->result.bits)));
        json_array_append_new(rows, row);
    }
    json_object_set_new(root, "rows", rows);
    return json_print(root, JSON_INDENT(2) | JSON_REAL_PRECISION(8));
}

int eval_print(const evaluation *e) {
    if (e->json) return print_json(e);
    if (!e->csv) return print_table(e);
    print_csv(e);
    return 0;
}

// SPDX-License-Identifier: MIT
/* eval.h: what the parts of kvant eval share: its rows, and the run that fills them.
 *
 * A row is one cache format (or a reference) with its own session; every row reads the same tokens in lockstep.
 * A result is what was measured of a row so far; it outlives sessions and is what --state keeps (eval_state.h).
 * rows[0] is the f16 reference, rows[1] an f32 cache, the noise floor.
 * Functions return 0, or an exit code with a sentence on stderr. */
#ifndef KVANT_APP_EVAL_H
#define KVANT_APP_EVAL_H

#include "divergence.h"
#include "eval_state.h"
#include "kv_list.h"
#include "report.h"

#define EVAL_MAX_ROWS (KV_LIST_MAX + 3)

/* What is printed of a row; NaN where it was not measured. */
typedef struct eval_figures {
    double k_bits, v_bits; /* by the definition of the format */
    double bits;           /* of K and V together: really held where result.bits is known, else by definition */
    divergence_summary kl;
    double passkey;                                 /* share of prompts whose number was found */
    double differs_mean, differs_median, identical; /* first token that differs from f16's; share without one */
} eval_figures;

typedef struct eval_row {
    const char *kv; /* for the session; in `formats` or a literal */
    kvant_precision precision;
    kvant_session *session;
    eval_result result;
    eval_figures figures;
} eval_row;

typedef struct evaluation {
    kvant_model *model;
    kvant_model_info info;
    const kvant_load_params *load;
    /* what was asked for */
    const char *text_path, *state_path, *plot_path;
    bool text_is_ids, fast, suite, passkey, greedy, by_layer, csv, json;
    int chunk;        /* -c */
    int64_t n_tokens; /* --tokens; 0: no divergence */
    int n_prompts, n_gen;
    uint64_t seed;
    /* the text */
    int32_t *ids, *own_ids; /* [n_ids]; own_ids: from --ids, else the tokenizer's */
    int n_ids;
    bool has_bos;
    int64_t n_scored; /* tokens that will be scored: whole chunks */
    /* the rows and the buffers that they share */
    kv_list formats;
    int n_rows, step;
    eval_row rows[EVAL_MAX_ROWS];
    int32_t *chunk_ids;                  /* [chunk] */
    float *reference, *weights, *logits; /* [step][n_vocab] */
    softmax_row *softmax;                /* [step], of the reference */
    eval_state state;
} evaluation;

/* eval_text.c */
int eval_read_text(evaluation *e);
void eval_free_text(evaluation *e);
/* A number that another text, or another order of it, almost surely does not have. */
uint64_t eval_hash_ids(const int32_t *ids, int n);

/* eval_rows.c: sessions, and figures from results */
int eval_create_rows(evaluation *e);
void eval_free_rows(evaluation *e);
/* An empty cache for every row (eval_empty_row: for one), its sessions made where there are none. */
int eval_empty_rows(evaluation *e);
int eval_empty_row(evaluation *e, eval_row *r);
/* Bits a value that the row's session holds now, NaN where pages or layers are not full. */
double eval_measure_bits(const evaluation *e, const eval_row *r);
int eval_fill_figures(evaluation *e);
/* The i-th row to show: the noise floor, the reference, then the rest. */
const eval_row *eval_shown_row(const evaluation *e, int i);

/* eval_score.c: the divergence of every position from the reference */
int eval_score(evaluation *e);

/* eval_prompts.c: --passkey and --greedy. eval_check_prompts: whether text and context are enough for them. */
int eval_check_prompts(evaluation *e);
int eval_passkey(evaluation *e);
int eval_greedy(evaluation *e);

/* eval_resume.c: what --state keeps of this run */
int eval_resume(evaluation *e);
/* How far it has come, "512 of 2048 tokens, 3 of 20 passkey prompts", into text; returns text. */
const char *eval_progress(const evaluation *e, char *text, size_t size);
/* Saves where --state was given. */
int eval_save(evaluation *e);

/* eval_print.c: table, CSV and JSON; eval_plot.c: the picture */
int eval_print(const evaluation *e);
int eval_plot(const evaluation *e);

#endif

// SPDX-License-Identifier: MIT
/* eval_state.h: what an evaluation has measured so far, in a file from which a later run goes on.
 *
 * A file is JSON with a version, the settings of the run (a flat object), how far it has come, and the results. It replaces the
 * earlier one at once: whoever reads it finds the old state or the new one. A file of other settings, or one that was cut or
 * edited, is refused with a sentence, and nothing is taken from it. */
#ifndef KVANT_APP_EVAL_STATE_H
#define KVANT_APP_EVAL_STATE_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "divergence.h"

#define EVAL_STATE_VERSION 1
#define EVAL_STATE_MAX_RESULTS 32
#define EVAL_NAME_MAX 80

/* What was measured of one row. The arrays belong to it. */
typedef struct eval_result {
    char name[EVAL_NAME_MAX];
    double bits; /* a value, that its cache really held; NaN: not measured */
    divergence_sample sample;
    int *found;   /* [n_passkey]: 1 where the answer had the number */
    int *differs; /* [n_greedy]: the first token that differs from the reference, n_gen where none does */
} eval_result;

typedef struct eval_state {
    json_t *settings; /* integers, booleans and strings by name; owned */
    int64_t n_scored; /* tokens of the whole run */
    int n_prompts, n_gen;
    int n_results;
    eval_result *results[EVAL_STATE_MAX_RESULTS]; /* borrowed */
    /* how far it has come */
    int64_t scored;
    int n_passkey, n_greedy;
} eval_state;

/* Room for the prompts of a result. false: out of memory. */
bool eval_result_init(eval_result *r, const char *name, int n_prompts);
void eval_result_free(eval_result *r);

/* false: a sentence is in why. */
bool eval_state_save(const eval_state *s, const char *path, char *why, size_t why_size);
/* Fills results and progress of a state whose settings and empty results are those of this run. No file: true, *found false. */
bool eval_state_load(eval_state *s, const char *path, bool *found, char *why, size_t why_size);

#endif

// SPDX-License-Identifier: MIT
/* draft_options.h: the flags that choose a draft, and the draft they choose. */
#ifndef KVANT_APP_DRAFT_OPTIONS_H
#define KVANT_APP_DRAFT_OPTIONS_H

#include "options.h"

#define DRAFT_TOKENS 4

typedef struct draft_options {
    const char *name;      /* "ngram", or NULL */
    const char *model, *kv;
    int n, kv_bits;        /* 0: not typed */
} draft_options;

/* Appends the flags to a table of room `max` at index n; returns the new count. */
int draft_options_add(option *table, int n, int max, draft_options *d);
/* After parsing: 0, or 2 with a sentence on stderr. */
int draft_options_check(const draft_options *d);

/* A draft that is ready; params NULL: none was asked for. */
typedef struct draft {
    kvant_model *model; /* NULL: n-grams */
    kvant_draft_params settings;
    const kvant_draft_params *params;
} draft;

/* Opens the draft's model, on the machine as the other's load parameters say. 0, or an exit code with a sentence on stderr. */
int draft_open(draft *out, const draft_options *d, const kvant_load_params *load);
void draft_close(draft *d);
/* Who guesses, and at the end how well: a line on stderr each; nothing without a draft. */
void draft_print_begin(const draft *d);
void draft_print_end(const draft *d, kvant_draft_stats stats);

#endif

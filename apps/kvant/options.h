// SPDX-License-Identifier: MIT
/* options.h: command-line flags as a table, and the flags that several commands share.
 *
 * A command lists its flags; options_parse fills the variables they point to and rejects what it does not know, naming the
 * nearest flag. Values are checked whole ("12x" is not a number) and against their range. */
#ifndef KVANT_APP_OPTIONS_H
#define KVANT_APP_OPTIONS_H

#include "kvant/engine.h"

typedef enum option_kind {
    OPTION_FLAG,   /* bool, no value */
    OPTION_INT,    /* int */
    OPTION_INT64,  /* int64_t */
    OPTION_UINT64, /* uint64_t */
    OPTION_FLOAT,  /* float */
    OPTION_SIZE,   /* uint64_t bytes: 300M, 1.5GiB */
    OPTION_STRING, /* const char *, last one wins */
    OPTION_LIST    /* option_list: may be given several times */
} option_kind;

#define OPTION_LIST_MAX 16
typedef struct option_list {
    int n;
    const char *items[OPTION_LIST_MAX];
} option_list;

typedef struct option {
    const char *name;  /* "--temp" */
    const char *alias; /* "-n" or NULL */
    option_kind kind;
    void *value;      /* what kind says */
    double min, max;  /* numbers: the allowed range; both 0: any */
    const char *arg;  /* how help names the value: "N", "FILE" */
    const char *help; /* one line; a NULL name makes this a heading */
} option;

/* The cache and model flags that run, eval, bench and logits share. */
typedef struct model_options {
    const char *model;
    const char *isa;
    kvant_load_params load; /* threads, prefill step, kv, calibration: filled from the flags */
    const char *kv_bits, *ctk,
        *ctv; /* as typed: "--kv-bits none" is f16; -ctk/-ctv take llama.cpp's names of formats that exist */
    const char *kv_preset, *kv_center, *kv_budget;
    int64_t n_context;
    bool exact, fast;
    uint64_t cache_ram; /* of options_add_prefixes */
    char kv_pair[64];   /* where -ctk/-ctv are joined, or a budget is spelled */
    const char *compat; /* "mlx" or NULL */
} model_options;

/* Appends the shared flags to a table of room `max` at index n; returns the new count. Sets the load parameters to their
 * defaults. */
int options_add_model(option *table, int n, int max, model_options *m);
/* The same of what is kept of past prompts: a folder, and, for a command that reads more than one prompt, memory (default_ram bytes;
 * 0: the command has no use for it, and there is no flag). */
int options_add_prefixes(option *table, int n, int max, model_options *m, uint64_t default_ram);
/* How tokens are chosen and what ends an answer: 8 flags. */
int options_add_sampling(option *table, int n, kvant_sampler_params *s, option_list *stops);
/* After parsing: turns what was typed into load parameters (kv_bits none, -ctk/-ctv, isa). 0, or 2 with a sentence on stderr. */
int options_finish_model(model_options *m);

/* The program's own default where nothing was said of the cache: the lossless preset. After options_finish_model. */
void options_default_lossless(model_options *m);

/* 0: parsed, the free arguments are argv_rest[0..*n_rest). 2: wrong (said on stderr). -1: help was asked for and printed.
 * usage: "kvant run -m MODEL [-p TEXT]"; about: what the command does, for --help. */
int options_parse(const char *usage, const char *about, const option *table, int n, int argc, char **argv, const char **argv_rest,
                  int max_rest, int *n_rest);

/* The model of commands that also take it as their only free argument: 0, or 2 when there is none, or two. */
int options_need_model(const char **model, const char *const *rest, int n_rest);

/* Prints "kvant: <sentence>" on stderr and returns code; for code 2 also how to get help. */
int fail_with(int code, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

/* The whole of a file or of stdin ("-"), at most max bytes; *data is freed by the caller with free(). 0 or 1 with a sentence on
 * stderr. A NUL follows the last byte. */
int read_text(const char *path, size_t max, char **data, size_t *size);

/* Token ids with white space, commas or brackets between them, each below n_vocab; *ids is freed with free().
 * 0, or 1 with a sentence that begins with `name`. */
int parse_token_ids(const char *name, const char *text, size_t size, int n_vocab, int32_t **ids, int *n);

/* The edit distance of two names, for "did you mean". */
int name_distance(const char *a, const char *b);

/* Prints what the library tells, and its warnings, on stderr from now on. */
void show_library_lines(void);

#endif

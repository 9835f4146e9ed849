// SPDX-License-Identifier: MIT
/* pretokenizer.h: cuts a text into the words inside which byte-pair merges happen.
 *
 * A pre-tokenizer is a row of a table (pretokenizer_table.c): names, a few expressions, and the flags that go with the names. The
 * expressions are applied one after the other, each inside the pieces that the one before left; what an expression matches
 * becomes a piece, and so does what lies between two matches. */
#ifndef KVANT_TEXT_PRETOKENIZER_H
#define KVANT_TEXT_PRETOKENIZER_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

/* In place of an expression: every piece that is only digits is cut into threes, counted from its right end. */
#define KVANT_DIGITS_IN_THREES "%3"
#define KVANT_PRETOKENIZER_MAX_EXPRESSIONS 6
#define KVANT_PRETOKENIZER_MAX_NAMES 12

typedef struct kvant_pretokenizer {
    const char *names[KVANT_PRETOKENIZER_MAX_NAMES]; /* as in tokenizer.ggml.pre; ends with NULL */
    const char *expressions[KVANT_PRETOKENIZER_MAX_EXPRESSIONS + 1];
    bool ignore_merges; /* a word that is a token is taken whole */
    bool add_bos;       /* unless the file says otherwise */
    bool raw;           /* tokens are UTF-8, with <0x..> for bytes, instead of GPT-2's byte letters */
    bool visible_spaces; /* ' ' becomes U+2581 before anything else */
    bool newline_runs;  /* a word of newlines that is a token is taken whole */
} kvant_pretokenizer;

extern const kvant_pretokenizer kvant_pretokenizers[];
extern const int kvant_n_pretokenizers;

/* NULL: no such name. */
const kvant_pretokenizer *kvant_pretokenizer_find(const char *name);
/* Up to three known names that look most like this one, as "'a', 'b' or 'c'". */
void kvant_pretokenizer_nearest(const char *name, char *out, size_t size);

/* The compiled expressions of a row; read-only once made, so one splitter serves any number of threads. */
typedef struct kvant_splitter kvant_splitter;
kvant_status kvant_splitter_create(const kvant_pretokenizer *p, kvant_splitter **out, kvant_error *err);
void kvant_splitter_destroy(kvant_splitter *s);

/* text is well-formed by structure (utf8.h). *sizes (kvant_free) receives the bytes of each piece in order, *n their number.
 * KVANT_EUNSUPPORTED: an expression hit its match or memory limit. */
kvant_status kvant_splitter_run(const kvant_splitter *s, const char *text, size_t size, uint32_t **sizes, size_t *n,
                                kvant_error *err);

#endif

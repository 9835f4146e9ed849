// SPDX-License-Identifier: MIT
/* expression.h: regular expressions over UTF-8, by PCRE2 with Unicode properties.
 *
 * \s and \S mean Unicode's White_Space. In the dialect of tokenizer.json (Oniguruma's, Ruby's syntax) \w, \b and [:names:] mean its
 * sets of characters, ^ and $ stand at lines, [a[bc]] is [abc], and [A&&B] is what is in both; what PCRE2 would read differently and
 * has no equal is refused. Without regard to case one character is never several: ss does not match U+00DF, as it does there. */
#ifndef KVANT_TEXT_EXPRESSION_H
#define KVANT_TEXT_EXPRESSION_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

/* Unicode's White_Space, for use inside brackets. */
#define KVANT_WHITE_SPACE "\\t-\\r \\x85\\xA0\\x{1680}\\x{2000}-\\x{200A}\\x{2028}\\x{2029}\\x{202F}\\x{205F}\\x{3000}"
/* Letters, marks, numbers and connectors: Unicode's word characters, but for the two joiners. */
#define KVANT_WORD_CHARACTERS \
    "\\p{L}\\p{M}\\p{Nd}\\p{Nl}\\p{Pc}\\x{24B6}-\\x{24E9}\\x{1F130}-\\x{1F149}\\x{1F150}-\\x{1F169}\\x{1F170}-\\x{1F189}"
#define KVANT_EXPRESSION_REASON 192

typedef enum kvant_dialect { KVANT_DIALECT_PCRE, KVANT_DIALECT_ONIGURUMA } kvant_dialect;

/* Read-only once made: any number of threads may use it, each with its own matcher. */
typedef struct kvant_expression kvant_expression;
/* reason says why it failed: KVANT_EUNSUPPORTED (does not compile), KVANT_ENOMEM, KVANT_EFULL (too long). */
kvant_status kvant_expression_create(const char *text, size_t size, kvant_dialect dialect, kvant_expression **out,
                                     char reason[KVANT_EXPRESSION_REASON]);
void kvant_expression_destroy(kvant_expression *e);

typedef struct kvant_matcher kvant_matcher;
kvant_status kvant_matcher_create(kvant_matcher **out); /* KVANT_ENOMEM */
void kvant_matcher_destroy(kvant_matcher *m);
/* Why the last find failed. */
void kvant_matcher_reason(const kvant_matcher *m, char reason[KVANT_EXPRESSION_REASON]);

typedef struct kvant_span {
    size_t begin, end;
} kvant_span;

/* The first match at or after `at` (anchored: exactly at it); *found false: there is none. text is well-formed by structure
 * (utf8.h). KVANT_EUNSUPPORTED: a match or memory limit was hit. */
kvant_status kvant_expression_find(const kvant_expression *e, kvant_matcher *m, const char *text, size_t size, size_t at,
                                   bool anchored, kvant_span *match, bool *found);

#endif

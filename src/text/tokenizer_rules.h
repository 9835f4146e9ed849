// SPDX-License-Identifier: MIT
/* tokenizer_rules.h: a tokenizer whose stages come from its file (tokenizer.json) instead of a table.
 *
 * A text goes through: added tokens out of it; in each stretch between them, steps that rewrite it, then steps that cut it into
 * pieces (which may rewrite pieces too); the model (merges, or Unigram) in each piece; the template around all of it. Back: each
 * token's text through the decoder's steps. The stages are filled by tokenizer_json_*.c and only read afterwards. */
#ifndef KVANT_TEXT_TOKENIZER_RULES_H
#define KVANT_TEXT_TOKENIZER_RULES_H

#include "text/expression.h"
#include "text/tokenizer_internal.h"

#define KVANT_RULES_MAX_STEPS 64
#define KVANT_RULES_MAX_TEMPLATE 64

typedef enum kvant_step_kind {
    /* rewrite a text, or each piece */
    KVANT_STEP_NFC, KVANT_STEP_NFD, KVANT_STEP_NFKC, KVANT_STEP_NFKD, KVANT_STEP_LOWERCASE, KVANT_STEP_STRIP,
    KVANT_STEP_PREPEND,      /* text, before what is not empty */
    KVANT_STEP_PREPEND_ONCE, /* text, unless it is there already; where `where` says */
    KVANT_STEP_REPLACE,      /* what find or expression matches, by text */
    KVANT_STEP_BYTE_LETTERS, /* GPT-2's letters for all bytes */
    /* cut pieces */
    KVANT_STEP_SPLIT
} kvant_step_kind;

typedef enum kvant_split_behavior {
    KVANT_SPLIT_ISOLATED, KVANT_SPLIT_REMOVED, KVANT_SPLIT_MERGED_WITH_PREVIOUS, KVANT_SPLIT_MERGED_WITH_NEXT, KVANT_SPLIT_CONTIGUOUS
} kvant_split_behavior;

typedef struct kvant_step {
    kvant_step_kind kind;
    char *text, *find; /* owned */
    size_t text_size, find_size;
    kvant_expression *expression; /* instead of find; owned */
    bool left, right;             /* KVANT_STEP_STRIP */
    bool first_only;              /* KVANT_STEP_PREPEND_ONCE: only where the whole text begins */
    kvant_split_behavior behavior;
    bool invert; /* what matches does not, and the other way round */
} kvant_step;

typedef struct kvant_steps {
    kvant_step *steps; /* [KVANT_RULES_MAX_STEPS] once there is one */
    int n;
} kvant_steps;

/* Room for one more, zeroed; NULL: no memory, or too many. */
kvant_step *kvant_steps_add(kvant_steps *s);
void kvant_steps_free(kvant_steps *s);

/* ---- rewriting (normalizer.c) ---- */

/* Appends text, rewritten by one step, to out. at_start: the whole text begins here. text is UTF-8.
 * KVANT_ENOMEM, KVANT_EFULL; KVANT_EUNSUPPORTED: an expression gave up. */
kvant_status kvant_step_rewrite(const kvant_step *s, kvant_matcher *m, const char *text, size_t size, bool at_start,
                                kvant_buffer *out);
/* All steps, on what is in *text; *spare is used on the way. */
kvant_status kvant_steps_rewrite(const kvant_steps *s, kvant_matcher *m, bool at_start, kvant_buffer *text, kvant_buffer *spare);
bool kvant_is_white_space(uint32_t code);
bool kvant_is_word_character(uint32_t code);

/* ---- cutting (piece_steps.c) ---- */

typedef struct kvant_pieces {
    kvant_buffer text;
    uint32_t *sizes; /* [n], in order, together text.size */
    size_t n, room;
    bool at_start; /* the first piece is where the whole text begins */
} kvant_pieces;

void kvant_pieces_free(kvant_pieces *p);
/* One piece, which is the text, cut by all steps into *out (its memory is used again). */
kvant_status kvant_pieces_cut(const kvant_steps *s, kvant_matcher *m, const char *text, size_t size, bool at_start,
                              kvant_pieces *out, kvant_pieces *spare);

/* ---- added tokens (added_tokens.c) ---- */

typedef struct kvant_added_token {
    int32_t id;
    bool special, left, right, single_word; /* left, right: takes the white space beside it */
} kvant_added_token;

/* Tokens that are looked for at once: the leftmost, then the longest, wins. */
typedef struct kvant_added_set {
    kvant_symbols texts;
    kvant_added_token *tokens; /* [texts.n] */
    int room;
    kvant_special_class *classes; /* longest first */
    int n_class;
} kvant_added_set;

/* The first one of a text stays. */
kvant_status kvant_added_add(kvant_added_set *s, const char *text, size_t size, kvant_added_token token);
kvant_status kvant_added_prepare(kvant_added_set *s);
void kvant_added_free(kvant_added_set *s);
kvant_status kvant_added_partition(const kvant_added_set *s, const char *text, size_t size, bool parse_special,
                                   kvant_fragment **out, size_t *n);

/* ---- back to text (token_decoder.c) ---- */

typedef enum kvant_decode_kind {
    KVANT_DECODE_REPLACE, KVANT_DECODE_BYTE_FALLBACK, KVANT_DECODE_STRIP, KVANT_DECODE_METASPACE, KVANT_DECODE_BYTE_LETTERS
} kvant_decode_kind;

typedef struct kvant_decode_step {
    kvant_decode_kind kind;
    char *find, *text; /* REPLACE: find by text; STRIP: the character; METASPACE: the replacement; owned */
    size_t find_size, text_size;
    int start, stop;     /* STRIP: how many at each end of a token */
    bool drops_at_first; /* METASPACE: the first token loses them instead */
} kvant_decode_step;

typedef struct kvant_token_decoder {
    kvant_decode_step steps[KVANT_RULES_MAX_STEPS];
    int n;
    bool spaced;      /* no decoder: a space between tokens */
    char strip[4];    /* dropped from the beginning of the whole text, at most strip_start times */
    size_t strip_size;
    int strip_start;
} kvant_token_decoder;

void kvant_token_decoder_free(kvant_token_decoder *d);
/* Appends what a token shows to out. first: it is the first that is shown. */
kvant_status kvant_token_decoder_spell(const kvant_token_decoder *d, const char *text, size_t size, bool first, kvant_buffer *out);

/* ---- all of it ---- */

typedef struct kvant_unigram {
    int32_t *order; /* [n]: the model's tokens by their bytes */
    double *scores; /* [n_token] */
    int n;
    double unknown_score;
} kvant_unigram;

struct kvant_tokenizer_rules {
    kvant_steps normalizer, pre_tokenizer;
    kvant_added_set raw, normalized; /* looked for before, and after, the normalizer */
    int32_t *shown_as;               /* [n_token]: the text in `normalized` that a token shows, plus one; 0: its own; NULL: all their own */
    uint8_t *in_model;               /* [n_token]: the model's own token, that text may become */
    bool is_unigram, byte_fallback, fuse_unk, ignore_merges;
    kvant_unigram unigram;
    int32_t before[KVANT_RULES_MAX_TEMPLATE], after[KVANT_RULES_MAX_TEMPLATE];
    int n_before, n_after;
    kvant_token_decoder decoder;
};

void kvant_rules_destroy(kvant_tokenizer_rules *r);
/* The model's token of a text, or KVANT_NO_SYMBOL. */
int32_t kvant_rules_find(const kvant_tokenizer *t, const char *text, size_t size);
kvant_status kvant_rules_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_tokenize_options options,
                                kvant_id_list *out, kvant_error *err);

/* The models, on the pieces of a stretch. */
kvant_status kvant_bpe_encode_pieces(const kvant_tokenizer *t, const kvant_pieces *p, kvant_id_list *out);
kvant_status kvant_unigram_prepare(kvant_tokenizer *t);
/* KVANT_EUNSUPPORTED: a character has no token and there is none for unknown ones. */
kvant_status kvant_unigram_encode(const kvant_tokenizer *t, const kvant_pieces *p, kvant_id_list *out);

#endif

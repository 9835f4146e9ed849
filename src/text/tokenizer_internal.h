// SPDX-License-Identifier: MIT
/* tokenizer_internal.h: what the files of src/text share of a tokenizer.
 *
 * A symbol is a string with an id: ids below n_token are the tokens of the vocabulary, those above are strings that only merges
 * speak of. All strings lie in one pool; one open-addressing table finds a symbol by its text, another a merge by its two
 * symbols. */
#ifndef KVANT_TEXT_TOKENIZER_INTERNAL_H
#define KVANT_TEXT_TOKENIZER_INTERNAL_H

#include <string.h>

#include "text/pretokenizer.h"
#include "text/tokenizer.h"

#define KVANT_NO_SYMBOL (-1)
#define KVANT_VISIBLE_SPACE "\xE2\x96\x81"

/* What a token is; a token can be several. */
enum {
    KVANT_IS_NORMAL = 1, KVANT_IS_UNKNOWN = 2, KVANT_IS_CONTROL = 4, KVANT_IS_USER_DEFINED = 8, KVANT_IS_UNUSED = 16,
    KVANT_IS_BYTE = 32, KVANT_SWALLOWS_LEFT = 64, KVANT_SWALLOWS_RIGHT = 128 /* white space beside it is dropped */
};

/* Strings by id and ids by string. */
typedef struct kvant_symbols {
    char *pool;
    size_t pool_size, pool_room;
    uint32_t *offsets; /* [n + 1]; symbol i is pool[offsets[i] .. offsets[i + 1]) */
    int n, room;
    int32_t *slots; /* [mask + 1]: id + 1, 0 is free */
    uint32_t mask;
    int max_size;
} kvant_symbols;

typedef struct kvant_merge {
    int32_t left, right; /* left == KVANT_NO_SYMBOL: a free slot */
    int32_t result, rank;
} kvant_merge;

/* The special tokens of one length, and which first bytes they have. */
typedef struct kvant_special_class {
    uint32_t size;
    uint64_t first[4];
} kvant_special_class;

/* What a tokenizer.json says instead of a table (tokenizer_rules.h). */
typedef struct kvant_tokenizer_rules kvant_tokenizer_rules;

struct kvant_tokenizer {
    kvant_tokenizer_rules *rules;  /* NULL: the vocabulary of a GGUF file */
    bool sentencepiece;            /* else byte-pair merges by rank */
    const kvant_pretokenizer *pre; /* NULL for sentencepiece */
    kvant_splitter *splitter;
    int n_token;
    kvant_symbols symbols;
    float *scores;  /* [n_token], sentencepiece */
    uint8_t *kinds; /* [n_token] */
    uint8_t *ends;  /* [n_token] */
    kvant_merge *merges; /* [merge_mask + 1] */
    uint32_t merge_mask;
    int32_t byte_ids[256]; /* the token or symbol of a byte, or KVANT_NO_SYMBOL */
    kvant_special_class *classes; /* longest first */
    int n_class;
    int bos, eos, unk;
    bool add_bos, add_eos, add_space_prefix;
};

/* ---- symbols (symbols.c) ---- */

kvant_status kvant_symbols_init(kvant_symbols *s, int n_expected);
void kvant_symbols_free(kvant_symbols *s);
/* Adds a string as the next id; findable unless it is empty. KVANT_EFORMAT: it is there already (*id tells where), nothing is
 * added. KVANT_ENOMEM, KVANT_EFULL: more than 4 GB of text. */
kvant_status kvant_symbols_add(kvant_symbols *s, const char *text, size_t size, int32_t *id);
int32_t kvant_symbols_find(const kvant_symbols *s, const char *text, size_t size);
static inline const char *kvant_symbol_text(const kvant_symbols *s, int32_t id, size_t *size) {
    *size = s->offsets[id + 1] - s->offsets[id];
    return s->pool ? s->pool + s->offsets[id] : ""; /* every symbol is empty */
}

kvant_status kvant_merges_create(int n_merge, kvant_merge **table, uint32_t *mask);
/* The first merge of a pair wins. */
void kvant_merges_add(kvant_merge *table, uint32_t mask, kvant_merge merge);
const kvant_merge *kvant_merges_find(const kvant_merge *table, uint32_t mask, int32_t left, int32_t right);

/* ---- ids being collected ---- */

typedef struct kvant_id_list {
    int32_t *ids;
    size_t n, room;
} kvant_id_list;

kvant_status kvant_id_list_add(kvant_id_list *list, int32_t id);

/* ---- the stages of encoding ---- */

/* A stretch of text, or a special token (id >= 0). */
typedef struct kvant_fragment {
    size_t offset, size;
    int32_t id;
} kvant_fragment;

/* Special tokens out of the text (special_tokens.c). *out (kvant_free), in order. */
kvant_status kvant_special_prepare(kvant_tokenizer *t);
kvant_status kvant_special_partition(const kvant_tokenizer *t, const char *text, size_t size, bool parse_special,
                                     kvant_fragment **out, size_t *n);

/* What is left between them. prefix_space: this fragment begins with the space that the vocabulary adds. */
kvant_status kvant_bpe_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_id_list *out, kvant_error *err);
kvant_status kvant_spm_encode(const kvant_tokenizer *t, const char *text, size_t size, bool prefix_space, kvant_id_list *out,
                              kvant_error *err);

/* <0x..> tokens; -1 for other texts. */
int kvant_byte_of_text(const char *text, size_t size);
/* Marks the tokens that models end turns with, of those that are special already (a tokenizer.json says which are). */
void kvant_tokenizer_mark_known_ends(kvant_tokenizer *t);

/* kvant_tokenizer_decode; first: no token of the text was shown before (a tokenizer.json may treat it differently). */
kvant_status kvant_tokenizer_decode_at(const kvant_tokenizer *t, int32_t id, bool special, bool first, kvant_buffer *out);
/* Whether decoding leaves out one space at the beginning of a text, because encoding put one there. */
bool kvant_tokenizer_drops_first_space(const kvant_tokenizer *t);

/* GPT-2's letters for bytes (byte_letters.c): the printable bytes of Latin-1 stand for themselves, the others for U+0100 and on.
 */
uint32_t kvant_byte_letter(uint8_t byte);
/* The byte of a letter, or -1. */
int kvant_letter_byte(uint32_t code);

#endif

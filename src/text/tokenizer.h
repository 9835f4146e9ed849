// SPDX-License-Identifier: MIT
/* tokenizer.h: UTF-8 text <-> token ids.
 *
 * A vocabulary is described by a kvant_vocab_source, whoever read it from whichever file, or by a tokenizer.json
 * (tokenizer_json.h). Kinds of the former: byte-level BPE ("gpt2", with pre-tokenizer expressions by name), BPE merges on text with
 * visible spaces ("gemma4"), and SentencePiece BPE with scores and byte fallback ("llama": Llama 2, Phi-3, Gemma). Not here: Unigram
 * ("t5"), WordPiece ("bert"), RWKV and PLaMo vocabularies of GGUF files; they are refused by name. */
#ifndef KVANT_TEXT_TOKENIZER_H
#define KVANT_TEXT_TOKENIZER_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

/* ggml's token types, as GGUF stores them in tokenizer.ggml.token_type. */
typedef enum kvant_token_type {
    KVANT_TOKEN_NORMAL = 1, KVANT_TOKEN_UNKNOWN = 2, KVANT_TOKEN_CONTROL = 3, KVANT_TOKEN_USER_DEFINED = 4,
    KVANT_TOKEN_UNUSED = 5, KVANT_TOKEN_BYTE = 6
} kvant_token_type;

typedef struct kvant_vocab_source {
    const char *name;       /* of the file, for error sentences */
    const char *model_name; /* general.name, or NULL: Phi-3's special tokens swallow the white space after them */
    const char *model;   /* tokenizer.ggml.model: "gpt2", "llama", "gemma4", ... */
    const char *pre;     /* tokenizer.ggml.pre, or NULL */
    int n_token;
    /* Borrowed during kvant_tokenizer_create only; calls return false when the index is bad. */
    void *user;
    const char *(*token)(void *user, int id, size_t *size);
    float (*score)(void *user, int id);                              /* NULL: the vocabulary has no scores */
    int (*type)(void *user, int id);                                 /* NULL: all normal */
    int n_merge;
    const char *(*merge)(void *user, int index, size_t *size);       /* "left right" */
    int bos_id, eos_id, eot_id, unk_id;                              /* -1: none */
    /* -1: not said (the tokenizer's own default), 0 or 1 */
    int add_bos, add_eos, add_space_prefix;
} kvant_vocab_source;

typedef struct kvant_tokenizer kvant_tokenizer;

/* KVANT_EUNSUPPORTED: the model or pre-tokenizer name is unknown (the sentence names the nearest known ones). KVANT_EFORMAT: two
 * tokens with one text, a merge without two parts, special ids out of range, ... Empty tokens are kept and match nothing.
 * A merge whose parts or result are no tokens takes part in merging, and what it leaves is spelled in bytes. Everything kept is
 * copied. */
kvant_status kvant_tokenizer_create(const kvant_vocab_source *source, kvant_tokenizer **out, kvant_error *err);
void kvant_tokenizer_destroy(kvant_tokenizer *t);

int kvant_tokenizer_n_token(const kvant_tokenizer *t);
int kvant_tokenizer_bos(const kvant_tokenizer *t); /* -1: none */
int kvant_tokenizer_eos(const kvant_tokenizer *t);
bool kvant_tokenizer_adds_bos(const kvant_tokenizer *t); /* whether add_special begins with BOS */
/* Ends a generation: eos, eot, and the control tokens that models end turns with (<|im_end|>, <|eot_id|>, <end_of_turn>, <|end|>,
 * ...). */
bool kvant_tokenizer_is_end(const kvant_tokenizer *t, int32_t id);
/* The id of a token by its exact text, or -1. */
int32_t kvant_tokenizer_find(const kvant_tokenizer *t, const char *text, size_t size);

typedef struct kvant_tokenize_options {
    bool add_special;   /* BOS (and EOS) as the vocabulary asks */
    bool parse_special; /* the text of special tokens becomes those tokens */
} kvant_tokenize_options;

/* *ids (kvant_free) and *n. Any bytes are accepted, NUL too; bytes that are not UTF-8 become byte tokens ("llama") or U+FFFD
 * (BPE). KVANT_ENOMEM. KVANT_EINVAL: more than KVANT_TOKENIZE_MAX_BYTES. KVANT_EUNSUPPORTED: the pre-tokenizer's expression gave
 * up. */
#define KVANT_TOKENIZE_MAX_BYTES ((size_t)INT32_MAX / 8)
kvant_status kvant_tokenizer_encode(const kvant_tokenizer *t, const char *text, size_t size, kvant_tokenize_options options,
                                    int32_t **ids, int *n, kvant_error *err);

/* Appends the bytes of one token to out (a buffer with room or a cap; nothing is appended when it is full).
 * special: whether control tokens show their text or nothing. KVANT_EINVAL: id out of range. */
kvant_status kvant_tokenizer_decode(const kvant_tokenizer *t, int32_t id, bool special, kvant_buffer *out);

/* A stream of tokens -> UTF-8 text that never ends in half a character: incomplete bytes are held until they are completed or
 * finished. The space that a SentencePiece vocabulary puts before a text is dropped from the first token that has text; who shows
 * the continuation of a prompt pushes the prompt's tokens first and ignores what they give. */
typedef struct kvant_detokenizer kvant_detokenizer;
kvant_status kvant_detokenizer_create(const kvant_tokenizer *t, bool special, kvant_detokenizer **out);
void kvant_detokenizer_destroy(kvant_detokenizer *d);
/* *text (owned by d, NUL-terminated, valid until the next call) receives what can be shown now, possibly "". */
kvant_status kvant_detokenizer_push(kvant_detokenizer *d, int32_t id, const char **text, size_t *size);
/* The rest: held bytes that never became a character turn into U+FFFD. */
kvant_status kvant_detokenizer_finish(kvant_detokenizer *d, const char **text, size_t *size);
void kvant_detokenizer_reset(kvant_detokenizer *d);

#endif

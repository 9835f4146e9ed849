// SPDX-License-Identifier: MIT
/* prompt_cache.h: the prompt-cache files of mlx-lm, as the files that read and write them see them (private to src/engine).
 *
 * Such a file holds, for each layer, the keys (after RoPE) and values of a prompt, and how many tokens there are; not which. A layer is
 *   KVCache           K and V [1][n_kv_head][rows][head_dim], rows from the first token on, more rows than tokens
 *   QuantizedKVCache  the same as codes (a little-endian bit stream in 32-bit words), scales and biases
 *   RotatingKVCache   as KVCache, rows in a ring: the first `keep` tokens, then the latest others */
#ifndef KVANT_ENGINE_PROMPT_CACHE_H
#define KVANT_ENGINE_PROMPT_CACHE_H

#include "cache/page.h"
#include "engine/session.h"
#include "file/safetensors_write.h"

typedef enum kvant_prompt_kind { KVANT_PROMPT_PLAIN, KVANT_PROMPT_QUANTIZED, KVANT_PROMPT_ROTATING } kvant_prompt_kind;

/* K or V of a layer. */
typedef struct kvant_prompt_side {
    const kvant_safetensor *values;          /* or codes */
    const kvant_safetensor *scales, *biases; /* QUANTIZED, else NULL */
} kvant_prompt_side;

typedef struct kvant_prompt_layer {
    kvant_prompt_kind kind;
    kvant_prompt_side sides[2]; /* K, V */
    int64_t offset;             /* tokens so far */
    int64_t rows;               /* of the arrays */
    int64_t group, bits;        /* QUANTIZED */
    int64_t keep, max_size, at; /* ROTATING; at: the row of the next token */
    int64_t n_first, n_last;    /* the tokens that are there: the first ones, and the latest ones */
} kvant_prompt_layer;

typedef struct kvant_prompt_file {
    kvant_safetensors *file;
    kvant_safetensors_texts texts;
    bool by_classes_last; /* the metadata of mlx-lm before it kept numbers as arrays: states, texts, classes */
    int n_layer;
    kvant_prompt_layer *layers; /* [n_layer] */
} kvant_prompt_file;

/* Reads a file and checks every field against n_layer layers of n_kv_head heads of head_dim elements.
 * KVANT_EIO, KVANT_EFORMAT; KVANT_EUNSUPPORTED: a kind of cache that is none of these; KVANT_EINVAL: of another model. */
kvant_status kvant_prompt_file_open(const char *path, int n_layer, int n_kv_head, int head_dim, kvant_prompt_file *out,
                                    kvant_error *err);
void kvant_prompt_file_close(kvant_prompt_file *f);
/* What the writer said under a name of its own; NULL: nothing. */
const char *kvant_prompt_file_text(const kvant_prompt_file *f, const char *name);
/* The row where a token's vectors are, -1: it is no longer there. */
int64_t kvant_prompt_row(const kvant_prompt_layer *l, int64_t token);
/* The values of a row of one head -> x [head_dim]. */
void kvant_prompt_get(const kvant_prompt_layer *l, int side, int kv_head, int64_t row, int head_dim, float *x);
/* QUANTIZED: its codes [head_dim], scales and biases [head_dim / group]. */
void kvant_prompt_get_codes(const kvant_prompt_layer *l, int side, int kv_head, int64_t row, int head_dim, uint8_t *codes,
                            float *scales, float *biases);

/* Where element i of a key is in a key of mlx-lm -> order [head_dim]. A GGUF file of the llama family has the elements of each half
 * next to each other; folders, and families that RoPE turns by halves, are as mlx-lm is. Returns whether any element moves. */
bool kvant_prompt_key_order(const kvant_model *m, uint16_t *order);

/* The name under which Kvant writes a prompt's ids: decimal, with spaces. */
#define KVANT_PROMPT_IDS "token_ids"

#endif

// SPDX-License-Identifier: MIT
/* convert.h: what the files share that write a model anew (private to src/engine).
 *
 * A GGUF file and the safetensors file of a folder are alike: a head that announces every tensor, then their numbers in that
 * order. A plan lists the tensors of the target, the head is made of it, and one loop writes the numbers (convert.c). */
#ifndef KVANT_ENGINE_CONVERT_H
#define KVANT_ENGINE_CONVERT_H

#include <jansson.h>

#include "base/os_output.h"
#include "file/gguf_write.h"
#include "file/safetensors_write.h"
#include "kvant/engine.h"
#include "text/pretokenizer.h"

/* How the numbers of a tensor are written. */
typedef enum kvant_convert_form {
    KVANT_CONVERT_COPY, /* the bytes of its rows, and of their scales and biases after all rows */
    KVANT_CONVERT_F32,
    KVANT_CONVERT_F16,
    KVANT_CONVERT_BF16,
    KVANT_CONVERT_Q8_0,
    KVANT_CONVERT_Q4_0,
    KVANT_CONVERT_AFFINE /* codes of all rows, then scales, then biases, binary16 */
} kvant_convert_form;

/* What was asked for: form COPY, everything as it is where the target can hold it. */
typedef struct kvant_convert_weights {
    kvant_convert_form form;
    int bits, group; /* AFFINE */
} kvant_convert_weights;

typedef struct kvant_convert_item {
    const kvant_gguf_tensor *from;
    kvant_convert_form form;
    int bits, group; /* AFFINE, and MLX's types that are copied */
    int64_t cols, rows;
    int half;                /* rows of a head that RoPE turns are rearranged: half a head; 0: they stay */
    bool to_pairs;           /* from halves to pairs; false: back */
    float plus;              /* added to every number */
    uint64_t bytes, padding; /* written for it, and zeros behind */
} kvant_convert_item;

typedef struct kvant_convert_plan {
    const char *source;        /* its path, for sentences */
    kvant_convert_item *items; /* [n] */
    int n;
    uint64_t bytes; /* of all items and paddings */
} kvant_convert_plan;

/* The form and the bytes of a tensor in a GGUF file, or in a folder. KVANT_EUNSUPPORTED: a type that is not read. */
kvant_status kvant_convert_choose(const kvant_gguf *f, const kvant_gguf_tensor *t, const kvant_convert_weights *w, bool to_folder,
                                  kvant_convert_item *out, kvant_error *err);
/* ggml's type of an item. */
uint32_t kvant_convert_ggml_type(const kvant_convert_item *item);
/* Writes the numbers of an item. tick is called with the bytes that were written since the last call, and ends the work with
 * false: KVANT_ECANCELLED. */
typedef bool (*kvant_convert_tick)(void *user, uint64_t bytes);
kvant_status kvant_convert_write(const kvant_convert_plan *plan, const kvant_convert_item *item, kvant_os_output *out,
                                 kvant_convert_tick tick, void *user, kvant_error *err);

/* The vocabulary of the folder f -> the values of a GGUF file (convert_vocab.c). KVANT_EUNSUPPORTED: GGUF cannot say it. */
kvant_status kvant_convert_put_vocab(const kvant_gguf *f, kvant_gguf_writer *w, kvant_error *err);
/* Whether two models of one vocabulary make the same ids of texts chosen to tell tokenizers apart. KVANT_EUNSUPPORTED: not. */
kvant_status kvant_convert_compare_vocabs(kvant_gguf *from, kvant_gguf *to, kvant_error *err);

/* The head of a GGUF file for the model f, and the plan of what follows it (convert_gguf.c). */
kvant_status kvant_convert_plan_gguf(kvant_gguf *f, const kvant_convert_weights *w, kvant_convert_plan *plan, kvant_buffer *head,
                                     kvant_error *err);

/* The same for the safetensors file of a folder, and the files beside it (convert_folder.c). */
kvant_status kvant_convert_plan_folder(kvant_gguf *f, const kvant_convert_weights *w, kvant_convert_plan *plan,
                                       kvant_buffer *head, kvant_error *err);
kvant_status kvant_convert_write_folder(kvant_gguf *f, const kvant_convert_weights *w, const char *folder, kvant_error *err);

/* Whether every key of the model is the same in both. KVANT_EUNSUPPORTED: the first that is not. */
kvant_status kvant_convert_compare_metadata(const kvant_gguf *from, const kvant_gguf *to, kvant_error *err);
/* The vocabulary of a GGUF file -> tokenizer.json and tokenizer_config.json (convert_tokenizer.c). KVANT_EUNSUPPORTED: another
 * kind. */
kvant_status kvant_convert_write_vocab(const kvant_gguf *f, const char *folder, kvant_error *err);
kvant_status kvant_convert_write_json(const char *folder, const char *name, const json_t *root, kvant_error *err);
/* How tokenizer.json spells the one expression of a pre-tokenizer; NULL: it is not known. */
const char *kvant_convert_expression(const kvant_pretokenizer *row);

/* NULL: COPY. KVANT_EINVAL: a name of no form. */
kvant_status kvant_convert_weights_parse(const char *name, kvant_convert_weights *out, kvant_error *err);
/* Whether an item has other numbers than the tensor it is made from. */
bool kvant_convert_changes(const kvant_convert_item *item);

/* Whether f is a folder. */
static inline bool kvant_convert_is_folder(const kvant_gguf *f) { return kvant_gguf_find(f, "kvant.rope.pairs") != NULL; }

#endif

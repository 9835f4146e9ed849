// SPDX-License-Identifier: MIT
/* tokenizer_json.h: the tokenizer of a model folder of Hugging Face or MLX: tokenizer.json and the files beside it.
 *
 * Models: BPE and Unigram. Everything the file asks for is done or refused by name. Not read: truncation and padding, which are for
 * training, and clean_up_tokenization_spaces, which changes a text after it was decoded. */
#ifndef KVANT_TEXT_TOKENIZER_JSON_H
#define KVANT_TEXT_TOKENIZER_JSON_H

#include "text/tokenizer.h"

#define KVANT_TOKENIZER_JSON_MAX ((size_t)256 << 20)

/* The bytes of a file; text NULL: there is none. */
typedef struct kvant_file_text {
    const char *text;
    size_t size;
} kvant_file_text;

typedef struct kvant_tokenizer_files {
    const char *name; /* of the folder, for sentences */
    kvant_file_text tokenizer;          /* tokenizer.json */
    kvant_file_text tokenizer_config;   /* tokenizer_config.json: names of special tokens, chat template */
    kvant_file_text special_tokens_map; /* special_tokens_map.json: the same names, in older folders */
    kvant_file_text generation_config;  /* generation_config.json: which tokens end a generation */
    kvant_file_text config;             /* config.json: the same, where it has them */
    kvant_file_text chat_template;      /* chat_template.jinja */
} kvant_tokenizer_files;

/* KVANT_EFORMAT: a field is missing or wrong; KVANT_EUNSUPPORTED: a kind of model, normalizer, ... that is not done here. Nothing of
 * the files is kept. */
kvant_status kvant_tokenizer_create_from_json(const kvant_tokenizer_files *files, kvant_tokenizer **out, kvant_error *err);

/* The chat template: the file of its own, else tokenizer_config.json's (of several, the one named "default"). *text (kvant_free) is
 * NULL when there is none. */
kvant_status kvant_tokenizer_json_template(const kvant_tokenizer_files *files, char **text, size_t *size, kvant_error *err);

#endif

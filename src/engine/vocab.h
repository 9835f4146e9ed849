// SPDX-License-Identifier: MIT
/* vocab.h: the tokenizer and the chat template of a GGUF file or a model folder. */
#ifndef KVANT_ENGINE_VOCAB_H
#define KVANT_ENGINE_VOCAB_H

#include "file/gguf.h"
#include "file/gguf_write.h"
#include "text/tokenizer.h"

/* Makes the tokenizer that the tokenizer.ggml.* values, or a folder's tokenizer.json and the files beside it, describe. A folder's
 * chat template becomes f's. KVANT_EFORMAT: values missing, of a wrong type, or arrays of different lengths. Nothing of the file is
 * kept. */
kvant_status kvant_vocab_load(kvant_gguf *f, kvant_tokenizer **out, kvant_error *err);
/* tokenizer.chat_template, or data NULL when there is none; points into the file. Of a folder: once the vocabulary was loaded. */
kvant_status kvant_vocab_chat_template(const kvant_gguf *f, kvant_text *out, kvant_error *err);

/* A folder's files of the tokenizer, whole, as values of a GGUF file, which kvant_vocab_load prefers to tokenizer.ggml.*: so any
 * tokenizer can go into one. */
kvant_status kvant_vocab_put_files(const char *folder, kvant_gguf_writer *w, kvant_error *err);
/* Writes them into a folder again where a GGUF file carries them. */
kvant_status kvant_vocab_write_files(const kvant_gguf *f, const char *folder, bool *carried, kvant_error *err);

#endif

// SPDX-License-Identifier: MIT
/* vocab.h: the tokenizer and the chat template of a GGUF file or a model folder. */
#ifndef KVANT_ENGINE_VOCAB_H
#define KVANT_ENGINE_VOCAB_H

#include "file/gguf.h"
#include "text/tokenizer.h"

/* Makes the tokenizer that the tokenizer.ggml.* values, or a folder's tokenizer.json and the files beside it, describe. A folder's
 * chat template becomes f's. KVANT_EFORMAT: values missing, of a wrong type, or arrays of different lengths. Nothing of the file is
 * kept. */
kvant_status kvant_vocab_load(kvant_gguf *f, kvant_tokenizer **out, kvant_error *err);
/* tokenizer.chat_template, or data NULL when there is none; points into the file. Of a folder: once the vocabulary was loaded. */
kvant_status kvant_vocab_chat_template(const kvant_gguf *f, kvant_text *out, kvant_error *err);

#endif

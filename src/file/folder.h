// SPDX-License-Identifier: MIT
/* folder.h: a model folder of MLX or Hugging Face (config.json and safetensors), opened as the structure of a GGUF file.
 *
 * Metadata get GGUF's keys and tensors GGUF's names; numbers stay in the mapped shards, except a few short vectors. What GGUF has
 * no key for, because its converters rearrange the weights, is under "kvant.": kvant.rope.pairs (0: pairs (2i, 2i + 1); 1:
 * halves), kvant.attention.scale, kvant.rope.layers (one flag a layer). The vocabulary is not read here. */
#ifndef KVANT_FILE_FOLDER_H
#define KVANT_FILE_FOLDER_H

#include "file/gguf.h"

/* The model of a GGUF file, or of a folder. Errors as kvant_gguf_open and kvant_folder_open; closed by kvant_gguf_close. */
kvant_status kvant_model_file_open(const char *path, kvant_gguf **out, kvant_error *err);

/* KVANT_EIO; KVANT_EFORMAT; KVANT_EUNSUPPORTED: another kind of model, which the sentence names, or another quantization. No
 * weights are read before that is known. */
kvant_status kvant_folder_open(const char *path, kvant_gguf **out, kvant_error *err);

/* The same for bytes in memory (tests, fuzzing): the config, and one file of tensors, borrowed until kvant_gguf_close. */
kvant_status kvant_folder_parse(const char *name, const char *config, size_t config_size, const uint8_t *tensors,
                                size_t tensors_size, kvant_gguf **out, kvant_error *err);

/* The model_types that run, for sentences. */
const char *kvant_folder_model_types(void);

#endif

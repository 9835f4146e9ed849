// SPDX-License-Identifier: MIT
/* gguf_write.h: writes the head of a GGUF v3 file: metadata, then names, shapes and places of tensors. The numbers follow it. */
#ifndef KVANT_FILE_GGUF_WRITE_H
#define KVANT_FILE_GGUF_WRITE_H

#include "base/memory.h"
#include "file/gguf.h"

#define KVANT_GGUF_ALIGNMENT 32
#define KVANT_GGUF_HEAD_MAX ((size_t)1 << 30)

typedef struct kvant_gguf_writer {
    kvant_buffer values, tensors;
    uint64_t n_values, n_tensors;
    uint64_t data_bytes;  /* of the tensors that were announced, each padded to the alignment */
    kvant_status status;  /* the first failure; later calls do nothing */
} kvant_gguf_writer;

void kvant_gguf_writer_init(kvant_gguf_writer *w);
void kvant_gguf_writer_free(kvant_gguf_writer *w);
/* Failures are told by kvant_gguf_writer_head. */
void kvant_gguf_put_value(kvant_gguf_writer *w, const kvant_gguf_value *v); /* as it is in its file */
void kvant_gguf_put_u32(kvant_gguf_writer *w, const char *key, uint32_t value);
void kvant_gguf_put_bool(kvant_gguf_writer *w, const char *key, bool value);
void kvant_gguf_put_string(kvant_gguf_writer *w, const char *key, const char *text, size_t size);
/* An array of n elements whose bytes are given: for strings, each one behind its length (kvant_gguf_append_string). */
void kvant_gguf_put_array(kvant_gguf_writer *w, const char *key, kvant_gguf_type type, uint64_t n, const void *bytes, size_t size);
void kvant_gguf_append_string(kvant_buffer *b, const char *text, size_t size, kvant_status *status);
/* *offset: where its data begin, from the end of the head on. */
void kvant_gguf_put_tensor(kvant_gguf_writer *w, const char *name, size_t name_size, uint32_t type, int n_dims, const int64_t *dims,
                           uint64_t bytes, uint64_t *offset);
/* All of it, padded to the alignment. KVANT_EFULL: longer than KVANT_GGUF_HEAD_MAX; KVANT_ENOMEM. */
kvant_status kvant_gguf_writer_head(kvant_gguf_writer *w, kvant_buffer *out, kvant_error *err);

#endif

// SPDX-License-Identifier: MIT
/* safetensors_write.h: writes a safetensors file: first the names, shapes and texts, then the numbers in the same order.
 *
 * The header of the file stands before the numbers, so everything is announced before the first byte is written. */
#ifndef KVANT_FILE_SAFETENSORS_WRITE_H
#define KVANT_FILE_SAFETENSORS_WRITE_H

#include "base/memory.h"
#include "base/os_output.h"
#include "file/safetensors.h"

typedef struct kvant_safetensors_writer {
    kvant_buffer metadata, tensors; /* the entries of the header as JSON */
    uint64_t data_bytes;            /* of the tensors that were announced */
    kvant_status status;            /* the first failure; later calls do nothing */
} kvant_safetensors_writer;

void kvant_safetensors_writer_init(kvant_safetensors_writer *w);
void kvant_safetensors_writer_free(kvant_safetensors_writer *w);
/* Failures are told by kvant_safetensors_writer_header. */
void kvant_safetensors_writer_text(kvant_safetensors_writer *w, const char *key, const char *value);
void kvant_safetensors_writer_tensor(kvant_safetensors_writer *w, const char *name, kvant_safetensors_type type, int n_dims,
                                     const int64_t *dims);
/* Bytes of the header, padded so that the numbers begin at a multiple of 8. */
kvant_status kvant_safetensors_writer_header(kvant_safetensors_writer *w, kvant_buffer *out, kvant_error *err);

/* Bytes of an element. */
int kvant_safetensors_type_bytes(kvant_safetensors_type type);

/* The texts of a file's __metadata__, sorted by key. */
typedef struct kvant_safetensors_texts {
    int n;
    const char **keys, **values; /* [n] */
    char *memory;
} kvant_safetensors_texts;
/* KVANT_EFORMAT: they are not strings. */
kvant_status kvant_safetensors_texts_read(const kvant_safetensors *f, kvant_safetensors_texts *out, kvant_error *err);
void kvant_safetensors_texts_free(kvant_safetensors_texts *t);
/* NULL: no such key. */
const char *kvant_safetensors_texts_find(const kvant_safetensors_texts *t, const char *key);

#endif

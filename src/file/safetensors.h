// SPDX-License-Identifier: MIT
/* safetensors.h: a safetensors file, mapped, every offset, shape and type checked when it is opened.
 *
 * A length, a JSON object of names, types, shapes and offsets, then the numbers. Names are owned by the file, data point into the
 * map. Format: https://github.com/huggingface/safetensors#format */
#ifndef KVANT_FILE_SAFETENSORS_H
#define KVANT_FILE_SAFETENSORS_H

#include "base/os.h"
#include "base/status.h"

typedef enum kvant_safetensors_type {
    KVANT_ST_BOOL,
    KVANT_ST_U8,
    KVANT_ST_I8,
    KVANT_ST_F8_E5M2,
    KVANT_ST_F8_E4M3,
    KVANT_ST_U16,
    KVANT_ST_I16,
    KVANT_ST_F16,
    KVANT_ST_BF16,
    KVANT_ST_U32,
    KVANT_ST_I32,
    KVANT_ST_F32,
    KVANT_ST_U64,
    KVANT_ST_I64,
    KVANT_ST_F64
} kvant_safetensors_type;

#define KVANT_SAFETENSORS_MAX_DIMS 8
#define KVANT_SAFETENSORS_MAX_HEADER ((size_t)100 << 20) /* as the format's own library has it */

typedef struct kvant_safetensor {
    const char *name; /* NUL-terminated UTF-8 without control characters */
    kvant_safetensors_type type;
    int n_dims;                               /* 0: one number */
    int64_t dims[KVANT_SAFETENSORS_MAX_DIMS]; /* dims[n_dims - 1] is the contiguous one; unused ones are 1 */
    const uint8_t *data;
    size_t bytes;
} kvant_safetensor;

typedef struct kvant_safetensors {
    char *path;
    kvant_map map;
    bool borrowed; /* map belongs to the caller */
    int n_tensors;
    kvant_safetensor *tensors; /* [n_tensors], sorted by name */
    char *names;               /* what the names point into */
} kvant_safetensors;

const char *kvant_safetensors_type_name(kvant_safetensors_type type);

/* KVANT_EIO, KVANT_EFORMAT, KVANT_EUNSUPPORTED (a type or a number of dimensions that is not known). */
kvant_status kvant_safetensors_open(const char *path, kvant_safetensors **out, kvant_error *err);
/* The same for bytes in memory, borrowed until kvant_safetensors_close. */
kvant_status kvant_safetensors_parse(const char *name, const uint8_t *data, size_t size, kvant_safetensors **out,
                                     kvant_error *err);
void kvant_safetensors_close(kvant_safetensors *f);
/* NULL: no such tensor. */
const kvant_safetensor *kvant_safetensors_find(const kvant_safetensors *f, const char *name);

#endif

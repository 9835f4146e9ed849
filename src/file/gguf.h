// SPDX-License-Identifier: MIT
/* gguf.h: what a model file holds: metadata and named tensors, every count, offset and size checked when it is opened.
 *
 * A GGUF v2 or v3 file is mapped and read here; a model folder (folder.h) is opened as the same structure, with GGUF's keys and names,
 * so that nothing above knows which it was. Strings and arrays point into the map and stay valid until kvant_gguf_close.
 * Little-endian files only.
 * Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md */
#ifndef KVANT_FILE_GGUF_H
#define KVANT_FILE_GGUF_H

#include "base/os.h"
#include "base/status.h"

typedef enum kvant_gguf_type {
    KVANT_GGUF_U8 = 0, KVANT_GGUF_I8 = 1, KVANT_GGUF_U16 = 2, KVANT_GGUF_I16 = 3, KVANT_GGUF_U32 = 4, KVANT_GGUF_I32 = 5,
    KVANT_GGUF_F32 = 6, KVANT_GGUF_BOOL = 7, KVANT_GGUF_STRING = 8, KVANT_GGUF_ARRAY = 9, KVANT_GGUF_U64 = 10,
    KVANT_GGUF_I64 = 11, KVANT_GGUF_F64 = 12
} kvant_gguf_type;

/* Bytes of text in the map; not NUL-terminated. */
typedef struct kvant_text {
    const char *data;
    size_t size;
} kvant_text;

typedef struct kvant_gguf_value {
    kvant_text key;
    kvant_gguf_type type;         /* KVANT_GGUF_ARRAY: element_type, n_elements */
    kvant_gguf_type element_type; /* of an array; never itself an array */
    uint64_t n_elements;
    const uint8_t *data;          /* the value, or the first element */
    uint32_t *string_offsets;     /* arrays of strings only, [n_elements]: where each one's length stands, from data on; read
                                     through kvant_gguf_array_string; owned by the file */
} kvant_gguf_value;

/* A run of rows of a tensor from a folder: one expert, or all. */
typedef struct kvant_gguf_part {
    const uint8_t *data;                   /* the first row */
    const uint8_t *scales, *biases;        /* MLX's quantized types (base/mlx_type.h), else NULL */
} kvant_gguf_part;

#define KVANT_GGUF_MAX_DIMS 4
typedef struct kvant_gguf_tensor {
    kvant_text name;
    uint32_t type;                         /* ggml type number, or one of base/mlx_type.h; may be one that src/weight does not read */
    int n_dims;
    int64_t dims[KVANT_GGUF_MAX_DIMS];     /* dims[0] is the contiguous one (columns); unused ones are 1 */
    const uint8_t *data;
    size_t bytes;                          /* 0 when the type is unknown: then data is only known to begin inside the file */
    uint64_t offset;                       /* as in the file, from the beginning of the data section */
    /* Folders only; parts NULL: all rows are at data, one behind the other. */
    const kvant_gguf_part *parts;          /* [n_parts], of part_rows rows each */
    int n_parts;
    int64_t part_rows;
    size_t row_bytes, scale_row_bytes;     /* from a row of a part to the next one, and of its scales */
    size_t part_bytes, part_scale_bytes;   /* of data, and of scales (biases), of a part, from the first row to the end of the last */
} kvant_gguf_tensor;

typedef struct kvant_gguf {
    kvant_map map;
    char *path;
    uint32_t version;
    uint64_t alignment;
    int n_values, n_tensors;
    kvant_gguf_value *values;   /* [n_values] */
    kvant_gguf_tensor *tensors; /* [n_tensors] */
    uint32_t *value_order, *tensor_order; /* both sorted by name, for lookups */
    bool borrowed;              /* map belongs to the caller */
    uint64_t file_bytes;        /* of all files together */
    kvant_map *shards;          /* folders: [n_shards], and n_owned pieces of memory that values and tensors point into */
    int n_shards;
    void **owned;
    int n_owned;
    kvant_text chat_template;   /* folders: set by who reads the vocabulary, among the owned pieces; else data NULL */
} kvant_gguf;

/* What ggml calls a tensor type, e.g. "Q4_K"; NULL for a number that it does not define. */
const char *kvant_gguf_tensor_type_name(uint32_t type);
/* What people call the type of a metadata value: "u32", "string", ...; never NULL. */
const char *kvant_gguf_value_type_name(kvant_gguf_type type);
/* A kvant_gguf_size_fn that knows every type of ggml, readable by src/weight or not. */
bool kvant_gguf_type_size(uint32_t type, int64_t n, size_t *bytes);

/* type_size gives the bytes of n elements of a tensor type (false: unknown type, or n is not a multiple of its block), so that
 * this layer needs no weight formats; NULL: kvant_gguf_type_size. Of an unknown type only the beginning of the data is checked.
 * KVANT_EIO, KVANT_EFORMAT; KVANT_EUNSUPPORTED for other versions, big-endian files and files that were split. */
typedef bool (*kvant_gguf_size_fn)(uint32_t type, int64_t n, size_t *bytes);
kvant_status kvant_gguf_open(const char *path, kvant_gguf_size_fn type_size, kvant_gguf **out, kvant_error *err);
/* The same for bytes in memory (fuzzing, tests); `name` stands in the sentences. data is borrowed until kvant_gguf_close. */
kvant_status kvant_gguf_parse(const char *name, const uint8_t *data, size_t size, kvant_gguf_size_fn type_size,
                              kvant_gguf **out, kvant_error *err);
void kvant_gguf_close(kvant_gguf *f);
/* The bytes of a tensor that was repacked will not be read again soon: their pages need not stay in memory. */
void kvant_gguf_drop(const kvant_gguf *f, const kvant_gguf_tensor *t);

/* NULL: no such key / tensor. */
const kvant_gguf_value *kvant_gguf_find(const kvant_gguf *f, const char *key);
const kvant_gguf_tensor *kvant_gguf_find_tensor(const kvant_gguf *f, const char *name);

/* Scalars of any numeric or bool type, converted; KVANT_EFORMAT when the value is absent, of another kind, or out of range.
 * The _or forms give the default when the key is absent, and still fail when its type is wrong. */
kvant_status kvant_gguf_u32(const kvant_gguf *f, const char *key, uint32_t *out, kvant_error *err);
kvant_status kvant_gguf_u32_or(const kvant_gguf *f, const char *key, uint32_t fallback, uint32_t *out, kvant_error *err);
kvant_status kvant_gguf_f32_or(const kvant_gguf *f, const char *key, float fallback, float *out, kvant_error *err);
kvant_status kvant_gguf_bool_or(const kvant_gguf *f, const char *key, bool fallback, bool *out, kvant_error *err);
kvant_status kvant_gguf_string(const kvant_gguf *f, const char *key, kvant_text *out, kvant_error *err);

/* Elements of arrays (index < n_elements, checked by assert): integers (floats and u64 saturate), floats, strings. */
int64_t kvant_gguf_array_int(const kvant_gguf_value *v, uint64_t index);
float kvant_gguf_array_f32(const kvant_gguf_value *v, uint64_t index);
double kvant_gguf_array_f64(const kvant_gguf_value *v, uint64_t index);
kvant_text kvant_gguf_array_string(const kvant_gguf_value *v, uint64_t index);

#endif

// SPDX-License-Identifier: MIT
/* folder_internal.h: what the files that open a folder share: the tables of families, and what is being built. */
#ifndef KVANT_FILE_FOLDER_INTERNAL_H
#define KVANT_FILE_FOLDER_INTERNAL_H

#include <jansson.h>

#include "base/memory.h"
#include "file/folder.h"
#include "file/safetensors.h"

/* How a matrix or vector of a family is stored under its name. */
typedef enum kvant_folder_form {
    KVANT_FORM_LINEAR,  /* NAME.weight, with NAME.scales and NAME.biases where it is quantized, and NAME.bias; experts stacked or
                           not */
    KVANT_FORM_NORM,    /* NAME.weight, NAME.bias: vectors */
    KVANT_FORM_BARE,    /* NAME itself, a vector */
    KVANT_FORM_EXPERTS, /* as LINEAR; NAME has %d, and there is one for each expert */
    KVANT_FORM_BLOCKS,  /* NAME_blocks, NAME_scales, NAME_bias: MXFP4 experts as OpenAI stores them */
    KVANT_FORM_BLOCKS_EVEN, /* the same, the even rows of each expert */
    KVANT_FORM_BLOCKS_ODD
} kvant_folder_form;

/* One row of a family's name map; `to` without .weight. */
typedef struct kvant_folder_name {
    const char *from, *to;
    kvant_folder_form form;
} kvant_folder_name;

typedef enum kvant_folder_act { KVANT_FOLDER_ACT_ANY, KVANT_FOLDER_ACT_SILU, KVANT_FOLDER_ACT_GELU } kvant_folder_act;

/* What config.json may leave out. */
typedef struct kvant_folder_default {
    const char *key;
    double value;
} kvant_folder_default;

#define KVANT_FOLDER_LISTS 4
typedef struct kvant_folder_family {
    const char *model_type, *architecture;              /* of config.json; of GGUF */
    const char *windowed;                               /* the architecture where layer_types has windows; NULL: the same */
    const kvant_folder_name *lists[KVANT_FOLDER_LISTS]; /* of a layer; each ends with {NULL}; NULL: no more lists */
    const kvant_folder_default *defaults;               /* ends with {NULL}; NULL: none */
    kvant_folder_act act;                               /* that hidden_act must name */
    bool norm_plus_one;                                 /* norms multiply by 1 + weight, which GGUF's converters fold */
    bool interleaved;                                   /* RoPE turns pairs (2i, 2i + 1) */
    bool rope_freqs;                                    /* frequencies of Llama 3 */
    bool long_rope;                                     /* LongRoPE */
} kvant_folder_family;

/* NULL: not in the table. */
const kvant_folder_family *kvant_folder_find_family(const char *model_type);
extern const kvant_folder_name kvant_folder_top_names[]; /* outside the layers; ends with {NULL} */

/* A folder on its way to a kvant_gguf. */
typedef struct kvant_folder {
    const char *path;         /* for sentences */
    char name[128];           /* of the model: the last part of the path */
    const char *architecture; /* GGUF's */
    json_t *config;           /* of the text model */
    const kvant_folder_family *family;
    json_t *whole;            /* the config around it, where pictures are read; NULL: a text model */
    json_t *processor;        /* how pictures are prepared; NULL: not said */
    const char *prefix;       /* of the text model's tensors; NULL: none */
    kvant_folder_family own_family;
    kvant_safetensors **shards; /* [n_shards] */
    int n_shards;
    uint8_t **used;        /* [n_shards][n_tensors]: mapped to a name */
    kvant_buffer metadata; /* entries as a GGUF file has them */
    int n_metadata;
    int n_layer;
    char shown[64];
    /* Tensors so far, moved into the result. */
    kvant_gguf_tensor *tensors;
    int n_tensors, room;
    void **owned;
    int n_owned, owned_room;
    kvant_error *err;
} kvant_folder;

/* Zeroed memory that lives as long as the result; NULL without memory. */
void *kvant_folder_own(kvant_folder *f, size_t n, size_t size);
kvant_status kvant_folder_no_memory(const kvant_folder *f);
/* A text of config.json fit to stand in a sentence: printable ASCII, cut. Valid until the next call. */
const char *kvant_folder_show(kvant_folder *f, const char *text);
/* A number of the config, or the family's default; false when there is neither. */
bool kvant_folder_number(const kvant_folder *f, const char *key, double *out);
/* Adds a tensor of our own: n floats (owned already) under a GGUF name. */
kvant_status kvant_folder_add_floats(kvant_folder *f, const char *name, const float *x, int64_t n);

/* Models that read pictures (folder_vision.c). Turns to the text model inside, where pictures are read as Kvant does it; *is_other:
 * by a model that Kvant does not run. Then the processor's config can be set, the metadata under "clip." and "kvant.vision.", and the
 * tensors under the names that GGUF files of vision models have. */
kvant_status kvant_folder_enter_vision(kvant_folder *f, bool *is_other);
kvant_status kvant_folder_read_vision_config(kvant_folder *f);
kvant_status kvant_folder_read_vision_tensors(kvant_folder *f);

/* The matrix (or vector) FROM.weight with what is beside it, and FROM.bias, under TO; nothing where neither is there. */
kvant_status kvant_folder_add_linear(kvant_folder *f, const char *from, const char *to);

/* config.json -> metadata (folder_config.c), and RoPE's part of it (folder_rope.c). */
kvant_status kvant_folder_read_config(kvant_folder *f);
kvant_status kvant_folder_read_rope(kvant_folder *f);
kvant_status kvant_folder_put_u32(kvant_folder *f, const char *suffix, uint32_t value);
kvant_status kvant_folder_put_f32(kvant_folder *f, const char *suffix, float value);
kvant_status kvant_folder_put_string(kvant_folder *f, const char *suffix, const char *value);
kvant_status kvant_folder_put_flags(kvant_folder *f, const char *suffix, const uint8_t *flags, int n);
kvant_status kvant_folder_put_floats(kvant_folder *f, const char *suffix, const float *x, int n);

/* Shards -> tensors (folder_tensors.c). */
kvant_status kvant_folder_read_tensors(kvant_folder *f);

#endif

// SPDX-License-Identifier: MIT
/* model.h: a loaded model, as sessions see it (private to src/engine). */
#ifndef KVANT_ENGINE_MODEL_H
#define KVANT_ENGINE_MODEL_H

#include "base/context.h"
#include "file/gguf.h"
#include "kvant/engine.h"
#include "model/decoder.h"
#include "text/tokenizer.h"

typedef struct kvant_sensitivity kvant_sensitivity;
typedef struct kvant_prefixes kvant_prefixes;
typedef struct kvant_pixtral kvant_pixtral;

#define KVANT_PRECISIONS 2

struct kvant_model {
    uint64_t seed;                 /* of samplers */
    kvant_gguf *file;
    kvant_context *ctx;
    kvant_tokenizer *tokenizer;    /* NULL: the file has none that Kvant reads */
    kvant_error tokenizer_error;   /* then: why */
    kvant_decoder *decoder;        /* NULL with vocab_only */
    kvant_workspace *workspace;    /* scratch of a step, shared by all sessions of the model */
    kvant_decoder_info info;
    kvant_cache_config cache;      /* what sessions inherit */
    kvant_calibration *calibration; /* NULL until one is needed */
    kvant_sensitivity *sensitivity; /* NULL until a budget needs it */
    kvant_format *layer_formats;   /* what cache.layer_k and layer_v point into; NULL: all layers have the same */
    char *calibration_name, *calibration_file; /* what people are told of it; the file NULL: not kept */
    char *cache_dir;               /* NULL: nothing is kept */
    kvant_prefixes *prefixes[KVANT_PRECISIONS]; /* NULL until a session of that precision is made */
    size_t prefix_ram;
    uint64_t prefix_disk;
    char *prefix_dir;              /* NULL: past sequences end with the process */
    kvant_pixtral *vision;         /* what reads pictures (image.c); NULL: a text model */
    kvant_gguf *projector;         /* its file; NULL: the model's own */
    uint8_t vision_fingerprint[KVANT_FINGERPRINT_BYTES];
    int32_t image_token, image_break, image_end; /* -1: unknown */
    kvant_image *images;           /* all that are open, and the last ones that were */
    int64_t n_images_computed;     /* so far, for tests */
    const float **rows;            /* [prefill_step_size]: of pictures, for the step that is made; NULL without vision */
    int prefill_step_size;
    bool compat_mlx, kv_center_off;
    char *name, *path;
};

/* KVANT_OK, or the sentence that says why the model has no tokenizer. */
kvant_status kvant_model_require_tokenizer(const kvant_model *m, kvant_error *err);

/* An f16 cache of the model's layers, heads and windows, which the caller changes as it needs. */
void kvant_model_cache_shape(const kvant_model *m, kvant_cache_config *out);

/* Takes the calibration from a file of the user's (calibrate.c). KVANT_EIO, KVANT_EFORMAT; KVANT_EINVAL: of another model. */
kvant_status kvant_model_load_calibration(kvant_model *m, const char *path, kvant_error *err);
/* The built-in text, or what stands for it without a vocabulary; *ids is freed with kvant_ids_free. */
kvant_status kvant_model_calibration_ids(const kvant_model *m, int32_t **ids, int *n, kvant_error *err);

/* Formats of "budget:SIZE" for n_tokens, into *c; they live in *layers, which is freed with kvant_free (choose_formats.c). */
kvant_status kvant_model_apply_budget(kvant_model *m, const char *kv, int64_t n_tokens, kvant_cache_config *c, kvant_format **layers,
                                      kvant_error *err);

#endif

// SPDX-License-Identifier: MIT
/* image.h: the pictures of a model, as its sessions see them (private to src/engine).
 *
 * A patch of a picture stands among the tokens as a negative id, made of a hash of the prepared pixels and of the vision model,
 * and of the patch's place: so sessions, kept prefixes and their files tell pictures apart as they tell tokens apart. What the
 * text model reads there is computed when a step first needs it. */
#ifndef KVANT_ENGINE_IMAGE_H
#define KVANT_ENGINE_IMAGE_H

#include "base/hash.h"
#include "engine/model.h"
#include "vision/pixtral_tower.h"

struct kvant_image {
    kvant_model *model;
    kvant_image *next; /* of the model's pictures, the one opened last first */
    uint8_t hash[KVANT_HASH_BYTES];
    int n_references;  /* 0: closed, and kept in case that it is opened again */
    int width, height; /* of the file */
    int columns, rows;
    int32_t *ids;    /* [columns * rows] */
    float *picture;  /* until the features are there */
    float *features; /* [columns * rows][n_embd]; NULL: not computed yet */
};

/* What a model has to read pictures: from its own file, or from one beside it. Nothing where there is neither. */
kvant_status kvant_model_load_vision(kvant_model *m, const char *projector, kvant_error *err);
void kvant_model_free_vision(kvant_model *m);

/* The rows of features that ids [n] stand for where they are negative, NULL where they are tokens; computes what is missing.
 * KVANT_EINVAL: a negative id that no known picture has. */
kvant_status kvant_model_find_rows(kvant_model *m, const int32_t *ids, int n, const float **rows, kvant_error *err);

#endif

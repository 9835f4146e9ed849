// SPDX-License-Identifier: MIT
/* pixtral_tower.h: Pixtral's vision model: the patches of a picture -> one vector each, as long as a token's of the text model.
 *
 * Its tensors have the names that GGUF files give them; a model folder is opened with the same ones (file/folder.h). Computed in
 * float32, whatever the weights are stored as. A tower is read-only once it is loaded; one picture is computed at a time. */
#ifndef KVANT_VISION_PIXTRAL_TOWER_H
#define KVANT_VISION_PIXTRAL_TOWER_H

#include "base/context.h"
#include "file/gguf.h"
#include "vision/pixtral_image.h"

typedef struct kvant_pixtral kvant_pixtral;

/* Whether the file has a vision model at all, of whatever kind. */
bool kvant_vision_is_there(const kvant_gguf *f);
/* f must stay open. n_text: the length of the text model's vectors. KVANT_EUNSUPPORTED: another vision model, named;
 * KVANT_EFORMAT: a tensor is missing or of the wrong shape. */
kvant_status kvant_pixtral_load(kvant_context *ctx, const kvant_gguf *f, int n_text, kvant_pixtral **out, kvant_error *err);
void kvant_pixtral_destroy(kvant_pixtral *t);
const kvant_pixtral_rules *kvant_pixtral_get_rules(const kvant_pixtral *t);
size_t kvant_pixtral_bytes(const kvant_pixtral *t);

/* Shown to who wants to see: "patch_conv", "ln_pre", "hidden" (after the last layer), "features"; x [n][width]. */
typedef void (*kvant_pixtral_watch_fn)(void *user, const char *stage, const float *x, int n, int width);
/* The picture (kvant_pixtral_prepare) of columns x rows patches -> features [columns * rows][n_text]. watch may be NULL.
 * KVANT_ENOMEM. */
kvant_status kvant_pixtral_encode(const kvant_pixtral *t, const float *picture, int columns, int rows, float *features,
                                  kvant_pixtral_watch_fn watch, void *user);

#endif

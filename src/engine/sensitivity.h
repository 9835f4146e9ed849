// SPDX-License-Identifier: MIT
/* sensitivity.h: how much noise in the keys or values of each layer costs a model's answers (private to src/engine).
 *
 * Noise of a format is small, so its parts add up: the divergence of a cache is about the sum over layers and sides of sensitivity
 * times the format's relative mean squared error. That is what a byte budget is spent by (kv_budget.h). */
#ifndef KVANT_ENGINE_SENSITIVITY_H
#define KVANT_ENGINE_SENSITIVITY_H

#include "base/hash.h"
#include "engine/model.h"

struct kvant_sensitivity {
    int n_layer, n_tokens;
    double *k, *v;                 /* [n_layer] mean KL divergence per unit of relative squared error */
    uint8_t key[KVANT_HASH_BYTES]; /* of the model, the tokens and everything else that the figures depend on */
};

/* How they are measured: a reference pass and one for every layer and side, whose K or V alone is stored coarsely. */
typedef struct kvant_sensitivity_plan {
    const int32_t *ids;
    int n_tokens, n_scored; /* the last n_scored positions are compared */
    kvant_format k, v;      /* the coarse formats */
    double k_noise, v_noise; /* their relative mean squared errors */
    kvant_precision precision;
} kvant_sensitivity_plan;

kvant_status kvant_sensitivity_measure(kvant_model *m, const kvant_sensitivity_plan *plan, kvant_sensitivity **out, kvant_error *err);
void kvant_sensitivity_destroy(kvant_sensitivity *s);

/* Finds the model's in its cache folder or measures it on the calibration's text, keeps it there, and lends it. One that another
 * calibration has made out of date is measured again. */
kvant_status kvant_model_need_sensitivity(kvant_model *m, const kvant_sensitivity **out, kvant_error *err);

/* As bytes with a checksum, freed with kvant_free; and back. KVANT_EFORMAT: damaged, of another key, or of other layers; the sentence
 * begins with name. */
kvant_status kvant_sensitivity_write(const kvant_sensitivity *s, uint8_t **bytes, size_t *size);
kvant_status kvant_sensitivity_read(const uint8_t *bytes, size_t size, const uint8_t key[KVANT_HASH_BYTES], int n_layer, const char *name,
                                    kvant_sensitivity **out, kvant_error *err);

#endif

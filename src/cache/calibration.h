// SPDX-License-Identifier: MIT
/* calibration.h: what transforms read of a calibration beside kvant.h's functions. */
#ifndef KVANT_CACHE_CALIBRATION_H
#define KVANT_CACHE_CALIBRATION_H

#include "base/status.h"
#include "kvant/kvant.h"

int kvant_calibration_ropes(const kvant_calibration *c);
const kvant_rope_config *kvant_calibration_rope(const kvant_calibration *c, int index);
int kvant_calibration_layer_rope(const kvant_calibration *c, int layer);
/* KVANT_EINVAL when it is not finished, or its dimensions are not those of the cache. */
kvant_status kvant_calibration_check(const kvant_calibration *c, int n_layer, int n_kv_head, int head_dim, kvant_error *err);

/* [head_dim]: what an element of a finished calibration's balanced keys, and queries, has in energy: (E|q|^2 E|k - mean|^2)^(1/2). */
const float *kvant_calibration_energy(const kvant_calibration *c, int layer, int kv_head);

#endif

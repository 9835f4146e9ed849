// SPDX-License-Identifier: MIT
/* kv_config.h: from the cache settings that a user gives to the formats and rules that a cache is made with. */
#ifndef KVANT_ENGINE_KV_CONFIG_H
#define KVANT_ENGINE_KV_CONFIG_H

#include "kvant/engine.h"

/* Formats, start, window and order into *out (dimensions and layer windows are left as they are). head_dim 0: not known, formats
 * are not checked against it. Settings that contradict each other are refused by a sentence that names them. */
kvant_status kvant_kv_config_resolve(const kvant_kv_params *p, int head_dim, kvant_cache_config *out, kvant_error *err);

/* By the rules of mlx-lm (compat_mlx) max_kv_size is nothing to a model whose cache it makes itself: takes it out of *c, and says so.
 * Without them *c stays as it is. */
void kvant_kv_config_own_cache(const kvant_kv_params *p, const char *architecture, kvant_cache_config *c);

/* Whether formats are to be chosen by bytes: resolving leaves them as they are. */
bool kvant_kv_config_has_budget(const kvant_kv_params *p);

/* The same format without centring, for a K that has it. */
void kvant_kv_config_bare(kvant_format *k);
/* Whether some K of the configuration is stored without its mean, which a calibration tells. */
bool kvant_kv_config_centres(const kvant_cache_config *c);

#endif

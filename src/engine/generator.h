// SPDX-License-Identifier: MIT
/* generator.h: what answers as text see of a generator besides engine.h (private to src/engine). */
#ifndef KVANT_ENGINE_GENERATOR_H
#define KVANT_ENGINE_GENERATOR_H

#include "engine/sampler.h"

/* Of ids[index] of the last kvant_generator_next; NULL: the sampler keeps none. */
const kvant_token_report *kvant_generator_report(const kvant_generator *g, int index);

#endif

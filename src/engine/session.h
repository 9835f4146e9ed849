// SPDX-License-Identifier: MIT
/* session.h: a session, as the files of src/engine that compute with it see it (private to src/engine). */
#ifndef KVANT_ENGINE_SESSION_H
#define KVANT_ENGINE_SESSION_H

#include "engine/head_noise.h"
#include "engine/model.h"

struct kvant_session {
    kvant_model *model;
    kvant_cache *cache;
    kvant_sequence *sequence;
    kvant_precision precision;
    int64_t n_context;
    int64_t quantized_start; /* where a chunk must end so that answers do not depend on its size; 0: nowhere */
    kvant_head_noise *check; /* NULL once the first tokens were looked at, or where keys are stored as they are */
    int64_t check_length;    /* when they are looked at: as soon as they are quantized */
    kvant_head_noise *heads; /* of measure_tokens; NULL: none */
    float *logits;           /* [n_vocab] */
    bool has_logits;
};

#endif

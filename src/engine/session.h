// SPDX-License-Identifier: MIT
/* session.h: a session, as the files of src/engine that compute with it see it (private to src/engine). */
#ifndef KVANT_ENGINE_SESSION_H
#define KVANT_ENGINE_SESSION_H

#include "engine/head_noise.h"
#include "engine/model.h"
#include "engine/prefixes.h"

struct kvant_session {
    kvant_model *model;
    kvant_prefixes *shared;  /* the cache that its pages are in, and what is kept of other sequences */
    kvant_sequence *sequence;
    int32_t *tokens;         /* [n_tokens_room], those of the sequence first */
    int64_t n_tokens_room;
    kvant_precision precision;
    int64_t n_context;
    int64_t quantized_start; /* where a chunk must end so that answers do not depend on its size; 0: nowhere */
    kvant_head_noise *check; /* NULL once the first tokens were looked at, or where keys are stored as they are */
    int64_t check_length;    /* when they are looked at: as soon as they are quantized */
    int64_t check_seen;      /* tokens that it has observed */
    kvant_head_noise *heads; /* of measure_tokens; NULL: none */
    int64_t n_imported;      /* of these tokens, read from a file, some are missing that fewer tokens would see; 0: none */
    float *logits;           /* [n_vocab] */
    bool has_logits;
};

/* Whether a context of this session could hold the ids, and all are tokens; reserves room for writing them down. */
kvant_status kvant_session_check_tokens(kvant_session *s, const int32_t *ids, int64_t n, kvant_error *err);
/* What every step of a session checks before: room in the context, known ids, room for what is written down of them. */
kvant_status kvant_session_check_room(kvant_session *s, const int32_t *ids, int64_t n, kvant_error *err);
/* Of n tokens to come, those that the next step may take: never across the point where quantization begins. */
int kvant_session_chunk(const kvant_session *s, int64_t n);
/* And after: the sequence has n more tokens, ids; the cache is quantized as far as its settings say. On failure (ENOMEM) the
 * tokens are taken back. */
kvant_status kvant_session_finish_chunk(kvant_session *s, const int32_t *ids, int n);
/* What looks at the first tokens as they are computed; NULL: nobody does. See kvant_workspace_observe; its user is the session. */
kvant_observe_fn kvant_session_observer(const kvant_session *s);
/* The first tokens are not looked at: they were not computed here. */
void kvant_session_end_check(kvant_session *s);

#endif

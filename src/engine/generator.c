// SPDX-License-Identifier: MIT
/* generator.c: a session and a sampler -> the tokens of an answer.
 *
 * The last token that was handed out is pending: it is read with the next call, so a token that ends the answer is never read for
 * nothing. */
#include "base/memory.h"
#include "engine/session.h"

struct kvant_generator {
    kvant_session *session;
    kvant_sampler *sampler;
    bool has_pending;
    int32_t pending; /* sampled and handed out, not yet in the session */
    int32_t next[1];
};

kvant_status kvant_generator_create(kvant_session *s, kvant_sampler *sampler, const kvant_draft_params *draft, kvant_generator **out,
                                    kvant_error *err) {
    if (draft) return kvant_fail(err, KVANT_EUNSUPPORTED, "draft: this build has none");
    kvant_generator *g = kvant_alloc(1, sizeof *g);
    if (!g) return kvant_fail(err, KVANT_ENOMEM, "generator: out of memory");
    *g = (kvant_generator){.session = s, .sampler = sampler};
    *out = g;
    return KVANT_OK;
}

void kvant_generator_destroy(kvant_generator *g) { kvant_free(g); }

kvant_status kvant_generator_finish(kvant_generator *g, kvant_error *err) {
    if (!g->has_pending) return KVANT_OK;
    KVANT_TRY(kvant_session_decode(g->session, g->pending, err));
    g->has_pending = false;
    return KVANT_OK;
}

kvant_status kvant_generator_next(kvant_generator *g, int64_t room, const int32_t **ids, int *n, kvant_error *err) {
    if (room < 1) return kvant_fail(err, KVANT_EINVAL, "generator: found room for %lld tokens, expected 1 or more", (long long)room);
    KVANT_TRY(kvant_generator_finish(g, err));
    const float *logits = kvant_session_logits(g->session);
    if (!logits) return kvant_fail(err, KVANT_EINVAL, "generator: the session has read no prompt, or was truncated since");
    g->next[0] = g->pending = kvant_sampler_next(g->sampler, logits);
    g->has_pending = true;
    *ids = g->next;
    *n = 1;
    return KVANT_OK;
}

kvant_draft_stats kvant_generator_get_stats(const kvant_generator *g) {
    (void)g;
    return (kvant_draft_stats){0};
}

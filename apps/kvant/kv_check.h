// SPDX-License-Identifier: MIT
/* kv_check.h: kvant run --kv-check N: an f16 shadow of the first N tokens, and how far the answers of the real cache are from
 * its.
 *
 * Both sessions read the same tokens, the shadow with an f16 cache (and the same window); every next-token distribution is
 * compared. Functions return 0, or an exit code with a sentence on stderr. */
#ifndef KVANT_APP_KV_CHECK_H
#define KVANT_APP_KV_CHECK_H

#include <jansson.h>
#include <stdio.h>

#include "divergence.h"
#include "kvant/engine.h"

typedef struct kv_check {
    int64_t n_wished;                    /* N; 0: no check, and nothing below is set */
    kvant_session *session;              /* the one that is checked; borrowed */
    kvant_session *shadow;               /* NULL once N tokens were compared */
    int n_vocab, step;                   /* tokens of a prompt that are read at once */
    float *logits, *reference, *weights; /* [step][n_vocab] */
    divergence_sample sample;
    int64_t n_prompt;                            /* tokens of the prompt among those compared */
    char formats[2 * KVANT_FORMAT_NAME_MAX + 9]; /* "K/V", or "mostly K/V" where layers differ */
} kv_check;

/* Called where both have read so many tokens; false stops after them. */
typedef bool (*kv_check_progress)(void *user, int64_t done, int64_t total);

/* A check of the first n_tokens of a session of this model that is still empty. */
int kv_check_begin(kv_check *c, kvant_model *m, kvant_session *session, int64_t n_tokens, kvant_precision precision);
void kv_check_free(kv_check *c);
/* Both read the first tokens of a prompt of n, as many as are to be compared: *done of them. */
int kv_check_prompt(kv_check *c, const int32_t *ids, int64_t n, kv_check_progress progress, void *user, int64_t *done);
/* The session has just appended this token. */
int kv_check_token(kv_check *c, int32_t id);
/* What was found, for people (one line) and for --json (a new object, NULL without memory). */
int kv_check_print(const kv_check *c, FILE *out);
json_t *kv_check_json(const kv_check *c);

#endif

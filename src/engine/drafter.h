// SPDX-License-Identifier: MIT
/* drafter.h: who guesses tokens, and how many are guessed (private to src/engine).
 *
 * A guess can be anything: it decides which rows of logits are computed, never what is answered. */
#ifndef KVANT_ENGINE_DRAFTER_H
#define KVANT_ENGINE_DRAFTER_H

#include "kvant/engine.h"

#define KVANT_DRAFT_MAX 64

/* The tokens so far: ids [n], then last. */
typedef struct kvant_draft_text {
    const int32_t *ids;
    int64_t n;
    int32_t last;
} kvant_draft_text;

typedef struct kvant_drafter kvant_drafter;
struct kvant_drafter {
    /* Reads the tokens so far, of which much may be new: a prompt. May be NULL. */
    kvant_status (*prepare)(kvant_drafter *d, kvant_draft_text t, kvant_error *err);
    /* The seconds that reading what is new of the tokens so far will take, beyond what guessing takes anyhow. May be NULL: none. */
    double (*expect)(const kvant_drafter *d, kvant_draft_text t);
    /* *n <= n_most guesses of what follows them. */
    kvant_status (*guess)(kvant_drafter *d, kvant_draft_text t, int n_most, int32_t *ids, int *n, kvant_error *err);
    void (*destroy)(kvant_drafter *d);
    bool even_unsure; /* guess what it does not believe itself, too */
};

/* What followed the latest earlier occurrence of the last tokens (drafter_ngram.c). */
kvant_status kvant_drafter_ngram_create(kvant_drafter **out, kvant_error *err);
/* A smaller model, for sessions of target with contexts of n_context tokens (drafter_model.c). KVANT_EINVAL: another vocabulary. */
kvant_status kvant_drafter_model_create(const kvant_model *target, kvant_model *model, const char *kv, int64_t n_context,
                                        kvant_drafter **out, kvant_error *err);

/* ---- how many (drafter_pace.c) ---- */

typedef struct kvant_draft_pace {
    int n_most, length; /* length: how many are guessed, when any are */
    double plain;       /* seconds of a step of one token, smoothed; 0: not known yet */
    double elapsed;     /* of all rounds */
    double lost;        /* by guesses, less what they won */
    int n_since_plain;  /* rounds with guesses since the last step of one token */
} kvant_draft_pace;

void kvant_draft_pace_init(kvant_draft_pace *p, int n_most);
/* How many tokens to guess now, 0: none. extra: seconds that guessing costs this time beyond what it costs always. */
int kvant_draft_pace_choose(const kvant_draft_pace *p, double extra);
/* What a round took: n_asked were asked for, n_guessed were given, the first n_right of them right; n_right + 1 tokens came of it. */
void kvant_draft_pace_round(kvant_draft_pace *p, int n_asked, int n_guessed, int n_right, double guess_seconds, double step_seconds);

/* For tests: from now on every round has as many guesses as fit, whatever they cost and however unsure they are. */
void kvant_generator_guess_always(kvant_generator *g);

#endif

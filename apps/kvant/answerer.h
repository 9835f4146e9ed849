// SPDX-License-Identifier: MIT
/* answerer.h: one answer of a model as text: sampling, text, stop strings, Ctrl-C.
 *
 * An answerer goes with a session for as long as it lives (a conversation has many answers); each answer continues what the session
 * holds at that time. Functions that can fail return 0, or an exit code with a sentence on stderr. */
#ifndef KVANT_APP_ANSWERER_H
#define KVANT_APP_ANSWERER_H

#include "kvant/engine.h"

/* The next token of the answer and what it adds to the text; the last one, of an end token or after Ctrl-C, has no id. */
typedef int (*answer_put_fn)(void *user, const kvant_answer_piece *piece);
/* The session has just read this token of the answer, and nothing after it. */
typedef int (*answer_read_fn)(void *user, int32_t id);

typedef struct answer_config {
    kvant_session *session;          /* borrowed, as the sampler */
    kvant_sampler *sampler;
    kvant_answer_params params;      /* borrowed for as long as the answerer */
    answer_put_fn put;
    answer_read_fn read;             /* NULL: nobody asks; not together with a draft */
    void *user;                      /* of put and read */
} answer_config;

typedef struct answerer {
    answer_config config;
    kvant_answer *answer;
    /* What the last answer was. */
    int32_t *ids;                    /* [n], without the end token */
    int64_t n, room;
    const char *ended;               /* end, stop, length, interrupted */
    double started, first, finished; /* kvant_time_seconds: when it began, after its first token and after its last */
    kvant_draft_stats draft;         /* of this answer */
} answerer;

/* KVANT_EINVAL of the generator (a draft of another vocabulary) is exit code 2. */
int answerer_begin(answerer *a, const answer_config *config);
void answerer_free(answerer *a);

/* Answers with at most n_most tokens. The session has read the prompt; prompt [n_prompt] are its ids, or the last of them: the sampler's
 * penalty sees them, and the text continues theirs. Ctrl-C (interrupt.h) ends the answer after the current token. */
int answerer_run(answerer *a, const int32_t *prompt, int64_t n_prompt, int64_t n_most);
/* Reads what the session has not read of the answer; afterwards the session may be changed. Only where it goes on. */
int answerer_finish(answerer *a);

#endif

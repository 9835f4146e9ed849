// SPDX-License-Identifier: MIT
/* answer.h: what a session answers: sampling, drafts, text. Included by engine.h, which says who owns what. */
#ifndef KVANT_ANSWER_H
#define KVANT_ANSWER_H

#include "kvant/engine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- sampling ---- */

typedef struct kvant_sampler_params {
    float temperature;     /* 0: the most probable token */
    int top_k;             /* 0: off */
    float top_p, min_p;    /* 1 and 0: off */
    float repeat_penalty;  /* 1: off */
    int repeat_last_n;     /* tokens the penalty sees */
    uint64_t seed;
} kvant_sampler_params;
void kvant_sampler_params_default(kvant_sampler_params *p); /* greedy */
/* The same, with the seed that the model was loaded with. */
void kvant_model_sampler_params(const kvant_model *m, kvant_sampler_params *p);
typedef struct kvant_sampler kvant_sampler;
kvant_status kvant_sampler_create(const kvant_sampler_params *params, int n_vocab, kvant_sampler **out, kvant_error *err);
void kvant_sampler_destroy(kvant_sampler *s);
/* Order: penalty, temperature 0 -> argmax; else top_p, min_p, top_k, temperature, one draw. Remembers the token for the penalty.
 * Logits that are not numbers are never chosen; when none is a number, the token is 0. */
int32_t kvant_sampler_next(kvant_sampler *s, const float *logits);
/* Makes the penalty see a token that was not sampled (the prompt). */
void kvant_sampler_accept(kvant_sampler *s, int32_t id);

/* ---- answers: sampling, with or without a draft ----
 *
 * A drafter guesses the next tokens cheaply; one step of the model checks all of them. Tokens are sampled from the model's own
 * logits, row by row, and the guesses only say which rows are worth computing: so the answer is the same, token for token, with any
 * draft and with none, greedy or sampled with the same seed. (Idea: Leviathan et al. 2023, arXiv:2211.17192.) */

typedef struct kvant_draft_params {
    kvant_model *model;      /* a smaller model with the same vocabulary; NULL: guesses come from the tokens so far (n-grams) */
    int n_draft;             /* the most tokens guessed at a time, 1..64; fewer when guesses fail */
    const char *kv;          /* the draft's cache, as kvant_session_params.kv */
} kvant_draft_params;

typedef struct kvant_draft_stats {
    int64_t n_rounds, n_drafted, n_accepted;
} kvant_draft_stats;

typedef struct kvant_generator kvant_generator;
/* Answers in a session whose prompt was read; it samples with the sampler (both borrowed). draft NULL: none.
 * KVANT_EINVAL: the draft's vocabulary differs: the sentence names the first differing token. */
kvant_status kvant_generator_create(kvant_session *s, kvant_sampler *sampler, const kvant_draft_params *draft, kvant_generator **out,
                                    kvant_error *err);
void kvant_generator_destroy(kvant_generator *g);
/* The next 1 or more tokens, at most room >= 1, the last of them not yet in the session: *ids [*n], until the next call. An end token
 * is the last of its call. KVANT_EFULL: the context. */
kvant_status kvant_generator_next(kvant_generator *g, int64_t room, const int32_t **ids, int *n, kvant_error *err);
/* Reads the last token as well, so that the session holds all that was answered; afterwards the session may be changed. */
kvant_status kvant_generator_finish(kvant_generator *g, kvant_error *err);
kvant_draft_stats kvant_generator_get_stats(const kvant_generator *g);

/* ---- answers as text ---- */

typedef struct kvant_token_logprob {
    int32_t id;
    float logprob; /* natural logarithm of the softmax over the vocabulary, after the penalty, before the temperature */
} kvant_token_logprob;
#define KVANT_TOP_LOGPROBS_MAX 10

typedef enum kvant_stop_reason {
    KVANT_STOP_NONE = 0,  /* the answer goes on */
    KVANT_STOP_END = 1,   /* an end token of the model */
    KVANT_STOP_TEXT = 2,  /* a stop string; the text ends before it */
    KVANT_STOP_LIMIT = 3  /* as many tokens as were wished */
} kvant_stop_reason;

/* What a token adds: text and numbers are valid until the next call. */
typedef struct kvant_answer_piece {
    int32_t id;                     /* -1: an end token, which belongs to no answer */
    const char *text;               /* what can be shown now, NUL-terminated: nothing while a character is half done or a stop string
                                       may have begun, else also what was held back before */
    size_t text_size;
    kvant_stop_reason reason;
    float logprob;                  /* of the token; 0 unless logprobs were wished */
    int n_top;
    const kvant_token_logprob *top; /* [n_top], the most probable first */
} kvant_answer_piece;

typedef struct kvant_answer_params {
    const kvant_draft_params *draft; /* NULL: none */
    const char *const *stops;        /* [n_stops], borrowed as long as the answer; none empty */
    int n_stops;
    bool logprobs;                   /* log-probabilities, and the top_logprobs most probable tokens: 0 to KVANT_TOP_LOGPROBS_MAX */
    int top_logprobs;
} kvant_answer_params;

typedef struct kvant_answer kvant_answer;
/* Answers in a session, one after another as long as it lives; session and sampler are borrowed. Errors as kvant_generator_create;
 * KVANT_EINVAL: an empty stop string, top_logprobs out of range. */
kvant_status kvant_answer_create(kvant_session *s, kvant_sampler *sampler, const kvant_answer_params *params, kvant_answer **out,
                                 kvant_error *err);
void kvant_answer_destroy(kvant_answer *a);
/* A new answer of at most max_tokens >= 1 tokens. The session has read the prompt; prompt [n] are its ids or the last of them: the
 * penalty sees them, and the text goes on where theirs ends. */
kvant_status kvant_answer_begin(kvant_answer *a, const int32_t *prompt, int64_t n, int64_t max_tokens, kvant_error *err);
/* The next token. After a piece with a reason the answer is over: KVANT_EINVAL until the next begin. What the session has read then
 * ends before the last token, or, with a draft, may go beyond a stop string. */
kvant_status kvant_answer_next(kvant_answer *a, kvant_answer_piece *piece, kvant_error *err);
/* What is still held back, when the caller ends the answer before its reason: *text, valid until the next call. */
kvant_status kvant_answer_flush(kvant_answer *a, const char **text, size_t *size, kvant_error *err);
/* The session reads the last token too; afterwards it may be changed. */
kvant_status kvant_answer_finish(kvant_answer *a, kvant_error *err);
kvant_draft_stats kvant_answer_get_stats(const kvant_answer *a);

#ifdef __cplusplus
}
#endif
#endif

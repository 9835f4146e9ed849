// SPDX-License-Identifier: MIT
/* chat.h: what the parts of kvant chat share: the model at work, the conversation, and what the last answer took.
 *
 * Answers go to stdout, everything else to stderr. Functions return 0, or 1 with a sentence on stderr. */
#ifndef KVANT_APP_CHAT_H
#define KVANT_APP_CHAT_H

#include "answerer.h"
#include "chat_conversation.h"
#include "chat_input.h"
#include "chat_transcript.h"
#include "draft_options.h"
#include "options.h"

#define CHAT_TEMPERATURE 0.7f
#define CHAT_TOP_P 0.9f
#define CHAT_TOKENS 2048

typedef struct chat_options {
    model_options model;
    const char *system, *chat_template;
    int64_t n_predict;
    kvant_sampler_params sampling;
    option_list stops;
    draft_options draft;
} chat_options;

/* What one answer took, or all of them together. */
typedef struct chat_figures {
    int n;                   /* answers */
    int64_t n_prompt;        /* tokens of the prompt: the whole conversation up to the answer */
    kvant_sync_result reuse; /* of them */
    int64_t n_answer;        /* tokens of the answer, without the end token */
    int64_t n_decoded;       /* the end token included, without the first, which the prompt gives */
    double prefill_seconds, decode_seconds, first_seconds;
    kvant_draft_stats draft;
} chat_figures;

typedef struct chat {
    const chat_options *options;
    kvant_model *model;
    kvant_model_info info;
    kvant_session *session;
    kvant_sampler_params sampling; /* of the sampler */
    kvant_sampler *sampler;
    draft draft;
    answerer answer;
    bool can_answer; /* sampler and answer are there */
    chat_input *input;
    chat_conversation talk;
    char *unanswered; /* a question that could not be answered: too long, or interrupted; /retry asks it again. NULL: none */
    chat_transcript transcript;
    char *text; /* of the answer that is being made */
    size_t text_size, text_room;
    chat_figures last, all;
    bool leave;  /* the user wants to, or stdout is gone */
    bool failed; /* something that was asked for was not done */
} chat;

/* chat_answer.c */
/* Later answers are sampled so. */
int chat_set_sampling(chat *c, const kvant_sampler_params *sampling);
/* Answers the last question, which has no answer, on stdout; what was said before Ctrl-C or an error is an answer too.
 * 1: there is none; the question stays as it is. */
int chat_answer(chat *c);
void chat_free(chat *c);

/* chat_commands.c */
/* A line that begins with a slash and is no message. */
void chat_command(chat *c, const char *line);
/* A question, which becomes part of the conversation with its answer, or not at all. */
void chat_ask(chat *c, const char *question);

#endif

// SPDX-License-Identifier: MIT
/* chat_transcript.h: the tokens of a chat, so that what was read or answered once is not tokenized anew.
 *
 * An answer's tokens are the model's own choice; its text, tokenized, may give others, and all that follows would be computed
 * again. So the ids stay, with the text that they are, and a later prompt that begins with this text goes on from them. It may go
 * on from marks only, which stand where a turn begins or ends: there a text falls into the same tokens in one piece or in two. */
#ifndef KVANT_APP_CHAT_TRANSCRIPT_H
#define KVANT_APP_CHAT_TRANSCRIPT_H

#include <stdbool.h>

#include "kvant/engine.h"

typedef struct chat_mark {
    size_t text_size;
    int64_t n;
} chat_mark;

typedef struct chat_transcript {
    char *text; /* what the ids say, special tokens included, but for a BOS */
    size_t text_size, text_room;
    int32_t *ids;
    int64_t n, room;
    chat_mark *marks; /* ascending */
    int n_marks, marks_room;
} chat_transcript;

void chat_transcript_free(chat_transcript *t);
/* Makes ids [n] those of a prompt: from the last mark up to which both texts are the same, the rest is tokenized. *n_kept: ids
 * that were there before. */
kvant_status chat_transcript_read(chat_transcript *t, const kvant_model *m, const char *prompt, int64_t *n_kept,
                                  kvant_error *err);
/* The answer's ids follow. Without memory they are left out, and a later prompt tokenizes them. */
void chat_transcript_add_answer(chat_transcript *t, const kvant_model *m, const int32_t *ids, int64_t n);

#endif

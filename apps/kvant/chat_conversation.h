// SPDX-License-Identifier: MIT
/* chat_conversation.h: what was said in a chat: a system message, and questions with their answers. Texts are UTF-8 and owned. */
#ifndef KVANT_APP_CHAT_CONVERSATION_H
#define KVANT_APP_CHAT_CONVERSATION_H

#include <stdbool.h>

#include "kvant/engine.h"

typedef struct chat_exchange {
    char *question, *answer; /* answer NULL: not yet, only in the last */
} chat_exchange;

typedef struct chat_conversation {
    char *system; /* NULL: none */
    chat_exchange *exchanges;
    int n, room;
} chat_conversation;

void chat_conversation_free(chat_conversation *c);
/* All but the system message. */
void chat_conversation_clear(chat_conversation *c);
/* false: out of memory, and nothing was changed. system NULL: none. */
bool chat_conversation_set_system(chat_conversation *c, const char *system);
bool chat_conversation_ask(chat_conversation *c, const char *question);
/* The last question's answer; an earlier one is replaced. */
bool chat_conversation_answer(chat_conversation *c, const char *answer);
/* Takes the last question back, with its answer. There must be one. */
void chat_conversation_undo(chat_conversation *c);
/* As kvant_chat_prompt takes it: *n messages that borrow the texts; the array is freed with free(). NULL: out of memory. */
kvant_message *chat_conversation_messages(const chat_conversation *c, int *n);

#endif

// SPDX-License-Identifier: MIT
/* chat_conversation.c: see chat_conversation.h. Questions and answers come in pairs, so that none can be missing. */
#include "chat_conversation.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    if (copy) memcpy(copy, text, size);
    return copy;
}

static bool replace(char **text, const char *by) {
    char *copy = by ? copy_text(by) : NULL;
    if (by && !copy) return false;
    free(*text);
    *text = copy;
    return true;
}

void chat_conversation_clear(chat_conversation *c) {
    while (c->n > 0)
        chat_conversation_undo(c);
}

void chat_conversation_free(chat_conversation *c) {
    chat_conversation_clear(c);
    free(c->exchanges);
    free(c->system);
    *c = (chat_conversation){0};
}

bool chat_conversation_set_system(chat_conversation *c, const char *system) { return replace(&c->system, system); }

bool chat_conversation_ask(chat_conversation *c, const char *question) {
    if (c->n == c->room) {
        int room = c->room ? 2 * c->room : 16;
        chat_exchange *grown = room < INT_MAX / 128 ? realloc(c->exchanges, (size_t)room * sizeof *grown) : NULL;
        if (!grown) return false;
        c->exchanges = grown;
        c->room = room;
    }
    char *copy = copy_text(question);
    if (!copy) return false;
    c->exchanges[c->n++] = (chat_exchange){copy, NULL};
    return true;
}

bool chat_conversation_answer(chat_conversation *c, const char *answer) {
    return replace(&c->exchanges[c->n - 1].answer, answer);
}

void chat_conversation_undo(chat_conversation *c) {
    chat_exchange *last = &c->exchanges[--c->n];
    free(last->question);
    free(last->answer);
}

kvant_message *chat_conversation_messages(const chat_conversation *c, int *n) {
    kvant_message *messages = malloc((2 * (size_t)c->n + 1) * sizeof *messages);
    *n = 0;
    if (!messages) return NULL;
    if (c->system) messages[(*n)++] = (kvant_message){"system", c->system};
    for (int i = 0; i < c->n; i++) {
        messages[(*n)++] = (kvant_message){"user", c->exchanges[i].question};
        if (c->exchanges[i].answer) messages[(*n)++] = (kvant_message){"assistant", c->exchanges[i].answer};
    }
    return messages;
}

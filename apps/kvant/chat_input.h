// SPDX-License-Identifier: MIT
/* chat_input.h: what a person or a script says in a chat, a message at a time.
 *
 * On a terminal a line is edited and remembered (history in the cache folder); from a pipe lines are read as they are and nothing
 * is shown. A message is one line, or several: a line that ends in \ goes on in the next, and """ begins and ends a block. */
#ifndef KVANT_APP_CHAT_INPUT_H
#define KVANT_APP_CHAT_INPUT_H

#include <stdbool.h>
#include <stddef.h>

#define CHAT_MESSAGE_MAX ((size_t)16 << 20)

typedef enum chat_input_kind {
    CHAT_INPUT_MESSAGE,
    CHAT_INPUT_CLEARED, /* Ctrl-C: what was typed is dropped */
    CHAT_INPUT_REFUSED, /* no text, too long, or no memory: said on stderr */
    CHAT_INPUT_END
} chat_input_kind;

typedef struct chat_input chat_input;

/* From stdin. history_folder: made where it is missing; NULL: nothing is remembered. NULL: out of memory. */
chat_input *chat_input_open(const char *history_folder);
void chat_input_close(chat_input *in);
bool chat_input_is_terminal(const chat_input *in);
/* Whether a line can be given to its reader to change (chat_input_preset). */
bool chat_input_can_edit(const chat_input *in);
/* The next line begins with this text, which must have one line. */
void chat_input_preset(chat_input *in, const char *text);
/* From now on Ctrl-C sets `interrupted` (interrupt.h) and ends a read; the third one in a row ends the program. On a terminal
 * chat_input_next does so too. */
void chat_input_watch(void);
/* *text, NUL-terminated UTF-8 without a NUL inside, is valid until the next call. */
chat_input_kind chat_input_next(chat_input *in, const char **text);

#endif

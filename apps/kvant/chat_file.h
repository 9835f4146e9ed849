// SPDX-License-Identifier: MIT
/* chat_file.h: a conversation in a file: JSON with a version, the model's name, the system message, the messages, how answers
 * were sampled. It replaces an earlier file at once. Every field is checked when it is read; a file that is not right changes
 * nothing.
 *
 * Functions return 0, or 1 with a sentence on stderr. */
#ifndef KVANT_APP_CHAT_FILE_H
#define KVANT_APP_CHAT_FILE_H

#include "chat_conversation.h"

#define CHAT_FILE_VERSION 1
#define CHAT_FILE_MAX ((size_t)64 << 20)

/* What is in it beside the conversation. */
typedef struct chat_file_info {
    char model[256]; /* its name, cut at the size */
    kvant_sampler_params sampling;
} chat_file_info;

int chat_file_save(const char *path, const chat_conversation *talk, const chat_file_info *info);
/* talk is empty before, and filled on success alone. */
int chat_file_load(const char *path, chat_conversation *talk, chat_file_info *info);

#endif

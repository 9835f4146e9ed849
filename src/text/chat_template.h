// SPDX-License-Identifier: MIT
/* chat_template.h: messages -> the text of a prompt, for the well-known families of templates.
 *
 * For models that carry no template: a family is chosen by its name. A template that is there is interpreted (jinja.h). */
#ifndef KVANT_TEXT_CHAT_TEMPLATE_H
#define KVANT_TEXT_CHAT_TEMPLATE_H

#include <stdbool.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct kvant_chat_message {
    const char *role;    /* "system", "user" or "assistant" */
    const char *content; /* UTF-8 */
} kvant_chat_message;

typedef struct kvant_chat_family kvant_chat_family; /* a row of the table; never freed */

/* By name ("chatml", "llama3", ...): NULL when there is none. kvant_chat_family_names: a comma-separated list for sentences. */
const kvant_chat_family *kvant_chat_family_by_name(const char *name);
const char *kvant_chat_family_names(void);

/* Appends the prompt text. KVANT_EINVAL: a role the family has no place for. The BOS token is not written here (the tokenizer
 * adds it), nor is today's date, which some templates mention. Tokenize the result with parse_special. */
kvant_status kvant_chat_render(const kvant_chat_family *f, const kvant_chat_message *messages, int n, bool add_generation_prompt,
                               kvant_buffer *out, kvant_error *err);

#endif

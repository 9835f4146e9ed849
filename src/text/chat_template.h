// SPDX-License-Identifier: MIT
/* chat_template.h: messages -> the text of a prompt, for the well-known families of templates.
 *
 * The family is recognised from marks in the model's own template text; each is a row of a table and a short writer. */
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
const char *kvant_chat_family_name(const kvant_chat_family *f);
/* By the template text in a model file. KVANT_EUNSUPPORTED: not recognised; the sentence suggests --raw or --chat-template NAME.
 */
kvant_status kvant_chat_family_detect(const char *file, const char *text, size_t size, const kvant_chat_family **out,
                                      kvant_error *err);

/* Appends the prompt text. KVANT_EINVAL: a role the family has no place for. The BOS token is not written here (the tokenizer
 * adds it), nor is today's date, which some templates mention. Tokenize the result with parse_special. */
kvant_status kvant_chat_render(const kvant_chat_family *f, const kvant_chat_message *messages, int n, bool add_generation_prompt,
                               kvant_buffer *out, kvant_error *err);
/* The same, with what a model's own template text adds to its family: the system message it writes when none is given, spacing,
 * what it begins an answer with. text NULL: kvant_chat_render. Use it whenever the family was recognised from this text. */
kvant_status kvant_chat_render_template(const kvant_chat_family *f, const char *text, size_t size,
                                        const kvant_chat_message *messages, int n, bool add_generation_prompt, kvant_buffer *out,
                                        kvant_error *err);

#endif

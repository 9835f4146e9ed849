// SPDX-License-Identifier: MIT
/* chat_template.c: prompts of chats, by families of templates.
 *
 * Nearly all templates write one thing before and one after the text of a turn, for each role, and a beginning of the answer at
 * the end; so a family is a row of such strings. Not here: what a model's own template adds to its family (jinja.h interprets
 * that one), tools and images. */
#include "text/chat_template.h"

#include <string.h>

/* DeepSeek's tokens are written with full-width bars and U+2581. */
#define DS_USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define DS_ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"
#define DS_END "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

/* What stands before [0] and after [1] a text. */
typedef const char *around[2];

struct kvant_chat_family {
    const char *name;
    const char *prefix;
    around system;         /* [0] NULL: the system text goes into the first user turn, between the strings of `inside` */
    around user, assistant, inside;
    const char *next_user; /* before user turns after the first; NULL: user[0] */
    const char *generation;
    bool trim, trim_assistant;
};

/* ---- the families ---- */

#define IM(role) "<|im_start|>" role "\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define ROLE(role) "<|start_of_role|>" role "<|end_of_role|>"

static const kvant_chat_family FAMILIES[] = {
    {.name = "phi4",
     .system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
     .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
     .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
     .generation = "<|im_start|>assistant<|im_sep|>"},
    {.name = "smollm3",
     .system =
         {IM("system") "## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: /think\n\n## Custom Instructions\n\n",
          "\n\n"},
     .user = {IM("user"), "<|im_end|>\n"},
     .assistant = {IM("assistant"), "<|im_end|>\n"},
     .generation = IM("assistant")},
    {.name = "chatml",
     .system = {IM("system"), "<|im_end|>\n"},
     .user = {IM("user"), "<|im_end|>\n"},
     .assistant = {IM("assistant"), "<|im_end|>\n"},
     .generation = IM("assistant")},
    {.name = "mistral-v7",
     .system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, .user = {"[INST] ", "[/INST]"}, .assistant = {" ", "</s>"}},
    {.name = "mistral-v7-tekken",
     .system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, .user = {"[INST]", "[/INST]"}, .assistant = {"", "</s>"}},
    {.name = "mistral-v3-tekken",
     .user = {"[INST]", "[/INST]"}, .assistant = {"", "</s>"}, .inside = {"", "\n\n"}},
    {.name = "mistral-v1",
     .user = {" [INST] ", " [/INST]"}, .assistant = {" ", "</s>"}, .inside = {"", "\n\n"}},
    {.name = "mistral-v3",
     .user = {"[INST] ", "[/INST]"}, .assistant = {" ", "</s>"}, .inside = {"", "\n\n"}, .trim_assistant = true},
    {.name = "llama2",
     .user = {"[INST] ", " [/INST]"},
     .assistant = {" ", " </s>"},
     .inside = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
     .next_user = "<s>[INST] ",
     .trim = true},
    {.name = "mistral",
     .user = {"[INST] ", " [/INST]"}, .assistant = {"", "</s>"}, .inside = {"", "\n\n"}},
    {.name = "glm4",
     .prefix = "[gMASK]<sop>",
     .system = {"<|system|>\n", ""},
     .user = {"<|user|>\n", ""},
     .assistant = {"<|assistant|>\n", ""},
     .generation = "<|assistant|>"},
    {.name = "phi3",
     .system = {"<|system|>\n", "<|end|>\n"},
     .user = {"<|user|>\n", "<|end|>\n"},
     .assistant = {"<|assistant|>\n", "<|end|>\n"},
     .generation = "<|assistant|>\n"},
    {.name = "gpt-oss",
     .prefix =
         "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\n"
         "Reasoning: medium\n\n# Valid channels: analysis, commentary, final. "
               "Channel must be included for every message.<|end|>",
     .system = {"<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"},
     .user = {"<|start|>user<|message|>", "<|end|>"},
     .assistant = {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"},
     .generation = "<|start|>assistant"},
    {.name = "gemma",
     .user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
     .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
     .inside = {"", "\n\n"},
     .generation = "<start_of_turn>model\n",
     .trim = true},
    {.name = "gemma4",
     .system = {"<|turn>system\n", "<turn|>\n"},
     .user = {"<|turn>user\n", "<turn|>\n"},
     .assistant = {"<|turn>model\n", "<turn|>\n"},
     .generation = "<|turn>model\n",
     .trim = true},
    {.name = "llama3",
     .system = {HEADER("system"), "<|eot_id|>"},
     .user = {HEADER("user"), "<|eot_id|>"},
     .assistant = {HEADER("assistant"), "<|eot_id|>"},
     .generation = HEADER("assistant"),
     .trim = true},
    {.name = "granite",
     .system = {ROLE("system"), "<|end_of_text|>\n"},
     .user = {ROLE("user"), "<|end_of_text|>\n"},
     .assistant = {ROLE("assistant"), "<|end_of_text|>\n"},
     .generation = ROLE("assistant")},
    {.name = "deepseek3",
     .system = {"", ""}, .user = {DS_USER, ""}, .assistant = {DS_ASSISTANT, DS_END}, .generation = DS_ASSISTANT},
    {.name = "deepseek2",
     .system = {"", "\n\n"}, .user = {"User: ", "\n\n"}, .assistant = {"Assistant: ", DS_END}, .generation = "Assistant:"},
};
#define N_FAMILIES ((int)(sizeof FAMILIES / sizeof *FAMILIES))

static const char NAMES[] =
    "chatml, llama2, llama3, gemma, gemma4, mistral, mistral-v1, mistral-v3, mistral-v3-tekken, mistral-v7, "
    "mistral-v7-tekken, phi3, phi4, granite, glm4, gpt-oss, deepseek2, deepseek3, smollm3";

const kvant_chat_family *kvant_chat_family_by_name(const char *name) {
    for (int i = 0; i < N_FAMILIES; i++)
        if (strcmp(FAMILIES[i].name, name) == 0) return &FAMILIES[i];
    return NULL;
}

const char *kvant_chat_family_names(void) { return NAMES; }

/* ---- writing ---- */

static bool is_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

static kvant_status append_text(const char *text, bool trim, kvant_buffer *out) {
    size_t n = strlen(text);
    while (trim && n && is_space(text[n - 1])) n--;
    for (; trim && n && is_space(*text); n--) text++;
    return kvant_buffer_append(out, text, n);
}

static kvant_status append_turn(const char *before, const char *text, bool trim, const char *after, kvant_buffer *out) {
    KVANT_TRY(kvant_buffer_append_str(out, before));
    KVANT_TRY(append_text(text, trim, out));
    return kvant_buffer_append_str(out, after);
}

/* A user turn, with the system text inside where it belongs there. */
static kvant_status append_user(const kvant_chat_family *f, const char *text, bool first, const char *system, kvant_buffer *out) {
    KVANT_TRY(kvant_buffer_append_str(out, first || !f->next_user ? f->user[0] : f->next_user));
    if (system) KVANT_TRY(append_turn(f->inside[0], system, f->trim, f->inside[1], out));
    return append_turn("", text, f->trim, f->user[1], out);
}

static kvant_status render(const kvant_chat_family *f, const kvant_chat_message *messages, int n, bool add_generation_prompt,
                           kvant_buffer *out, kvant_error *err) {
    bool given = n > 0 && strcmp(messages[0].role, "system") == 0;
    const char *system = given ? messages[0].content : NULL;
    int n_user = 0;
    if (f->prefix) KVANT_TRY(kvant_buffer_append_str(out, f->prefix));
    if (system && f->system[0]) KVANT_TRY(append_turn(f->system[0], system, f->trim, f->system[1], out));
    for (int i = given; i < n; i++) {
        const kvant_chat_message *m = &messages[i];
        if (strcmp(m->role, "user") == 0) {
            bool here = !f->system[0] && n_user == 0;
            KVANT_TRY(append_user(f, m->content, n_user++ == 0, here ? system : NULL, out));
        } else if (strcmp(m->role, "assistant") == 0) {
            KVANT_TRY(append_turn(f->assistant[0], m->content, f->trim || f->trim_assistant, f->assistant[1], out));
        } else if (strcmp(m->role, "system") == 0 && f->system[0]) {
            KVANT_TRY(append_turn(f->system[0], m->content, f->trim, f->system[1], out));
        } else {
            return kvant_fail(err, KVANT_EINVAL,
                              "message %d has the role '%.32s', for which the chat template '%s' has no place%s", i + 1, m->role,
                              f->name, strcmp(m->role, "system") == 0 ? " after the first message" : "");
        }
    }
    if (system && !f->system[0] && n_user == 0)
        return kvant_fail(err, KVANT_EINVAL,
                          "the chat template '%s' writes the system message into a user message, and there is none", f->name);
    return add_generation_prompt && f->generation ? kvant_buffer_append_str(out, f->generation) : KVANT_OK;
}

kvant_status kvant_chat_render(const kvant_chat_family *f, const kvant_chat_message *messages, int n, bool add_generation_prompt,
                               kvant_buffer *out, kvant_error *err) {
    size_t before = out->size;
    kvant_status st = render(f, messages, n, add_generation_prompt, out, err);
    if (st == KVANT_EFULL || st == KVANT_ENOMEM) kvant_fail(err, st, "the prompt does not fit %zu bytes", out->cap);
    if (st != KVANT_OK && out->data) {
        out->size = before;
        out->data[before] = '\0';
    }
    return st;
}

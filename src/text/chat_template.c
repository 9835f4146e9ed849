// SPDX-License-Identifier: MIT
/* chat_template.c: prompts of chats, by families of templates.
 *
 * Nearly all templates write one thing before and one after the text of a turn, for each role, and a beginning of the answer at
 * the end; so a family is a row of such strings (its style) with the marks that tell it in a template's text. What templates of
 * one family still do differently is read from the text by a few adapters. Not here: tools, images, and a template language. */
#include "text/chat_template.h"

#include <string.h>

/* DeepSeek's tokens are written with full-width bars and U+2581. */
#define DS_USER "<\xEF\xBD\x9CUser\xEF\xBD\x9C>"
#define DS_ASSISTANT "<\xEF\xBD\x9C" "Assistant\xEF\xBD\x9C>"
#define DS_END "<\xEF\xBD\x9C" "end\xE2\x96\x81of\xE2\x96\x81sentence\xEF\xBD\x9C>"

/* What stands before [0] and after [1] a text. */
typedef const char *around[2];

typedef struct style {
    const char *prefix;
    around system;         /* [0] NULL: the system text goes into a user turn, between the strings of `inside` */
    around user, assistant, inside;
    const char *next_user; /* before user turns after the first; NULL: user[0] */
    const char *generation;
    bool trim, trim_assistant;
    bool system_in_last;   /* into the last user turn, not the first */
    bool drop_thinking;    /* of earlier answers only what follows </think> ... */
    bool keep_newlines;    /* ... with the newlines that follow it */
} style;

/* Changes a style as a template's text asks. The default system message goes to *system, "" when there is none. */
typedef kvant_status adapter(style *s, const char *text, kvant_buffer *system);

struct kvant_chat_family {
    const char *name;
    const char *marks[4]; /* all of them in the text ... */
    const char *unless;   /* ... and not this */
    style style;
    adapter *adapt;
};

static bool has(const char *text, const char *mark) { return strstr(text, mark) != NULL; }

/* ---- adapters ---- */

/* Appends template source up to `end` as it would print: "\n", "\'" and "\"" are undone. */
static kvant_status append_unescaped(const char *from, const char *end, kvant_buffer *out) {
    while (from < end) {
        char c = *from++;
        if (c == '\\' && from < end) {
            c = *from++;
            if (c == 'n') c = '\n';
        }
        KVANT_TRY(kvant_buffer_append(out, &c, 1));
    }
    return KVANT_OK;
}

/* A newline of the template, written out or escaped; NULL when there is none at p. */
static const char *skip_newline(const char *p) { return *p == '\n' ? p + 1 : p[0] == '\\' && p[1] == 'n' ? p + 2 : NULL; }

/* A default system message is a constant between `begin` and `end`: no quote, brace or other code in between. */
static kvant_status find_default_system(const char *text, const char *begin, const char *end, kvant_buffer *system) {
    for (const char *at = strstr(text, begin); at; at = strstr(at + 1, begin)) {
        const char *from = skip_newline(at + strlen(begin)), *to = from ? strstr(from, end) : NULL;
        if (!to || to == from) continue;
        bool constant = true;
        for (const char *p = from; p < to && constant; p++) {
            if (*p == '\\' && p + 1 < to) p++;
            else constant = *p != '\'' && *p != '"' && *p != '{' && *p != '}';
        }
        if (constant) return append_unescaped(from, to, system);
    }
    return KVANT_OK;
}

static kvant_status adapt_chatml(style *s, const char *text, kvant_buffer *system) {
    s->drop_thinking = has(text, "split('</think>')");
    if (has(text, "<|im_start|>assistant\\n<think>\\n' }}") || has(text, "<|im_start|>assistant\\n<think>\\n\" }}"))
        s->generation = "<|im_start|>assistant\n<think>\n";
    return find_default_system(text, "<|im_start|>system", "<|im_end|>", system);
}

/* SmolLM3 puts the system text under a heading and closes the block only after a list of tools. */
static kvant_status adapt_smollm3(style *s, const char *text, kvant_buffer *system) {
    (void)s;
    const char *from = strstr(text, "You are a helpful AI assistant named SmolLM"), *to = from;
    if (!from || from == text) return KVANT_OK;
    while (*to && *to != from[-1]) to += to[0] == '\\' && to[1] ? 2 : 1;
    return append_unescaped(from, to, system);
}

static kvant_status adapt_llama3(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (has(text, "Cutting Knowledge Date")) /* 3.1 and later: a fixed date unless the caller of the template has another */
        s->prefix =
            "<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n";
    return KVANT_OK;
}

/* Mistral's later templates put the system text before the last question. */
static kvant_status adapt_mistral(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    s->system_in_last = has(text, "loop.last and system_message");
    return KVANT_OK;
}

/* The first ones, and what others made of them: a space before answers or not, system messages in a line of their own. */
static kvant_status adapt_mistral_plain(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (has(text, "{{ ' ' + m")) s->assistant[0] = " ";
    if (has(text, "eos_token + ' '")) s->assistant[1] = "</s> ";
    if (has(text, "['content'] + '\n\n'") || has(text, "['content'] + '\\n\\n'")) {
        s->system[0] = "";
        s->system[1] = "\n\n";
    }
    return KVANT_OK;
}

static kvant_status adapt_llama2(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    s->trim = has(text, "content.strip()") || has(text, "| trim");
    if (!has(text, "bos_token + '[INST]")) s->next_user = "[INST] ";
    return KVANT_OK;
}

static kvant_status adapt_gemma4(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (has(text, "<|channel>thought\\n<channel|>'")) s->generation = "<|turn>model\n<|channel>thought\n<channel|>";
    return KVANT_OK;
}

static kvant_status adapt_phi3(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (!has(text, "|>\\n") && !has(text, "|>\n") && !has(text, "'\\n'") && !has(text, "'\n'")) { /* Phi-4-mini: no newlines */
        s->system[0] = "<|system|>";
        s->user[0] = "<|user|>";
        s->assistant[0] = s->generation = "<|assistant|>";
        s->system[1] = s->user[1] = s->assistant[1] = "<|end|>";
    }
    return KVANT_OK;
}

static kvant_status adapt_glm4(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (has(text, "<think></think>")) { /* GLM-4.5 and later */
        s->assistant[0] = "<|assistant|>\n<think></think>\n";
        s->drop_thinking = s->trim_assistant = true;
    }
    const char *last = NULL;
    for (const char *p = strstr(text, "<|assistant|>"); p; p = strstr(p + 1, "<|assistant|>")) last = p;
    if (last && skip_newline(last + strlen("<|assistant|>"))) s->generation = "<|assistant|>\n";
    return KVANT_OK;
}

/* Templates that only join roles and texts, without OpenAI's system block. */
static kvant_status adapt_gpt_oss(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    if (has(text, "Valid channels")) return KVANT_OK;
    s->prefix = "";
    s->system[0] = "<|start|>system<|message|>";
    s->system[1] = "<|end|>";
    s->assistant[0] = "<|start|>assistant<|message|>";
    s->assistant[1] = has(text, "<|return|>") ? "<|return|>" : "<|end|>";
    return KVANT_OK;
}

static kvant_status adapt_deepseek3(style *s, const char *text, kvant_buffer *system) {
    (void)system;
    s->drop_thinking = s->keep_newlines = has(text, "split('</think>'");
    if (has(text, DS_ASSISTANT "<think>\\n'}}") || has(text, DS_ASSISTANT "<think>\\n' }}"))
        s->generation = DS_ASSISTANT "<think>\n";
    if (has(text, "{{'</think>'}}") && has(text, "thinking")) { /* V3.1 marks that it does not think */
        s->assistant[0] = s->generation = DS_ASSISTANT "</think>";
    }
    return KVANT_OK;
}

/* ---- the families; the first whose marks are all there is taken ---- */

#define IM(role) "<|im_start|>" role "\n"
#define HEADER(role) "<|start_header_id|>" role "<|end_header_id|>\n\n"
#define ROLE(role) "<|start_of_role|>" role "<|end_of_role|>"

static const kvant_chat_family FAMILIES[] = {
    {"phi4",
     {"<|im_start|>", "<|im_sep|>"},
     NULL,
     {.system = {"<|im_start|>system<|im_sep|>", "<|im_end|>"},
      .user = {"<|im_start|>user<|im_sep|>", "<|im_end|>"},
      .assistant = {"<|im_start|>assistant<|im_sep|>", "<|im_end|>"},
      .generation = "<|im_start|>assistant<|im_sep|>"},
     NULL},
    {"smollm3",
     {"<|im_start|>", "Reasoning Mode: "},
     NULL,
     {.system =
          {IM("system") "## Metadata\n\nKnowledge Cutoff Date: June 2025\nReasoning Mode: /think\n\n## Custom Instructions\n\n",
           "\n\n"},
      .user = {IM("user"), "<|im_end|>\n"},
      .assistant = {IM("assistant"), "<|im_end|>\n"},
      .generation = IM("assistant")},
     adapt_smollm3},
    {"chatml",
     {"<|im_start|>"},
     "<end_of_utterance>",
     {.system = {IM("system"), "<|im_end|>\n"},
      .user = {IM("user"), "<|im_end|>\n"},
      .assistant = {IM("assistant"), "<|im_end|>\n"},
      .generation = IM("assistant")},
     adapt_chatml},
    {"mistral-v7",
     {"[INST] ", "[SYSTEM_PROMPT] "},
     NULL,
     {.system = {"[SYSTEM_PROMPT] ", "[/SYSTEM_PROMPT]"}, .user = {"[INST] ", "[/INST]"}, .assistant = {" ", "</s>"}},
     NULL},
    {"mistral-v7-tekken",
     {"[INST]", "[SYSTEM_PROMPT]"},
     NULL,
     {.system = {"[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"}, .user = {"[INST]", "[/INST]"}, .assistant = {"", "</s>"}},
     NULL},
    {"mistral-v3-tekken",
     {"[AVAILABLE_TOOLS]", "\"[INST]\""},
     NULL,
     {.user = {"[INST]", "[/INST]"}, .assistant = {"", "</s>"}, .inside = {"", "\n\n"}},
     adapt_mistral},
    {"mistral-v1",
     {" [INST] "},
     "[AVAILABLE_TOOLS]",
     {.user = {" [INST] ", " [/INST]"}, .assistant = {" ", "</s>"}, .inside = {"", "\n\n"}},
     adapt_mistral},
    {"mistral-v3",
     {"[AVAILABLE_TOOLS]", "[INST] "},
     NULL,
     {.user = {"[INST] ", "[/INST]"}, .assistant = {" ", "</s>"}, .inside = {"", "\n\n"}, .trim_assistant = true},
     adapt_mistral},
    {"llama2",
     {"[INST]", "<<SYS>>"},
     NULL,
     {.user = {"[INST] ", " [/INST]"},
      .assistant = {" ", " </s>"},
      .inside = {"<<SYS>>\n", "\n<</SYS>>\n\n"},
      .next_user = "<s>[INST] ",
      .trim = true},
     adapt_llama2},
    {"mistral",
     {"[INST]"},
     NULL,
     {.user = {"[INST] ", " [/INST]"}, .assistant = {"", "</s>"}, .inside = {"", "\n\n"}},
     adapt_mistral_plain},
    {"glm4",
     {"[gMASK]<sop>"},
     NULL,
     {.prefix = "[gMASK]<sop>",
      .system = {"<|system|>\n", ""},
      .user = {"<|user|>\n", ""},
      .assistant = {"<|assistant|>\n", ""},
      .generation = "<|assistant|>"},
     adapt_glm4},
    {"phi3",
     {"<|assistant|>", "<|end|>"},
     "<|start|>",
     {.system = {"<|system|>\n", "<|end|>\n"},
      .user = {"<|user|>\n", "<|end|>\n"},
      .assistant = {"<|assistant|>\n", "<|end|>\n"},
      .generation = "<|assistant|>\n"},
     adapt_phi3},
    {"gpt-oss",
     {"<|start|>", "<|message|>"},
     NULL,
     {.prefix =
          "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\nKnowledge cutoff: 2024-06\n\n"
          "Reasoning: medium\n\n# Valid channels: analysis, commentary, final. "
                "Channel must be included for every message.<|end|>",
      .system = {"<|start|>developer<|message|># Instructions\n\n", "\n\n<|end|>"},
      .user = {"<|start|>user<|message|>", "<|end|>"},
      .assistant = {"<|start|>assistant<|channel|>final<|message|>", "<|end|>"},
      .generation = "<|start|>assistant"},
     adapt_gpt_oss},
    {"gemma",
     {"<start_of_turn>"},
     NULL,
     {.user = {"<start_of_turn>user\n", "<end_of_turn>\n"},
      .assistant = {"<start_of_turn>model\n", "<end_of_turn>\n"},
      .inside = {"", "\n\n"},
      .generation = "<start_of_turn>model\n",
      .trim = true},
     NULL},
    {"gemma4",
     {"<|turn>", "<turn|>"},
     NULL,
     {.system = {"<|turn>system\n", "<turn|>\n"},
      .user = {"<|turn>user\n", "<turn|>\n"},
      .assistant = {"<|turn>model\n", "<turn|>\n"},
      .generation = "<|turn>model\n",
      .trim = true},
     adapt_gemma4},
    {"llama3",
     {"<|start_header_id|>", "<|end_header_id|>"},
     NULL,
     {.system = {HEADER("system"), "<|eot_id|>"},
      .user = {HEADER("user"), "<|eot_id|>"},
      .assistant = {HEADER("assistant"), "<|eot_id|>"},
      .generation = HEADER("assistant"),
      .trim = true},
     adapt_llama3},
    {"granite",
     {"<|start_of_role|>", "<|end_of_role|>"},
     NULL,
     {.system = {ROLE("system"), "<|end_of_text|>\n"},
      .user = {ROLE("user"), "<|end_of_text|>\n"},
      .assistant = {ROLE("assistant"), "<|end_of_text|>\n"},
      .generation = ROLE("assistant")},
     NULL},
    {"deepseek3",
     {DS_USER, DS_ASSISTANT},
     NULL,
     {.system = {"", ""}, .user = {DS_USER, ""}, .assistant = {DS_ASSISTANT, DS_END}, .generation = DS_ASSISTANT},
     adapt_deepseek3},
    {"deepseek2",
     {"'User: '", "'Assistant: '"},
     NULL,
     {.system = {"", "\n\n"}, .user = {"User: ", "\n\n"}, .assistant = {"Assistant: ", DS_END}, .generation = "Assistant:"},
     NULL},
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
const char *kvant_chat_family_name(const kvant_chat_family *f) { return f->name; }

/* A NUL-terminated copy, without NULs inside, which would hide what follows them. */
static char *copy_text(const char *text, size_t size) {
    char *copy = kvant_alloc(size + 1, 1);
    for (size_t i = 0; copy && i < size; i++) copy[i] = text[i] ? text[i] : ' ';
    return copy;
}

static bool matches(const kvant_chat_family *f, const char *text) {
    for (int i = 0; i < 4 && f->marks[i]; i++)
        if (!has(text, f->marks[i])) return false;
    return !f->unless || !has(text, f->unless);
}

kvant_status kvant_chat_family_detect(const char *file, const char *text, size_t size, const kvant_chat_family **out,
                                      kvant_error *err) {
    char *copy = copy_text(text, size);
    if (!copy) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for a chat template of %zu bytes", file, size);
    const kvant_chat_family *f = NULL;
    for (int i = 0; i < N_FAMILIES && !f; i++)
        if (matches(&FAMILIES[i], copy)) f = &FAMILIES[i];
    kvant_free(copy);
    if (!f)
        return kvant_fail(
            err, KVANT_EUNSUPPORTED,
            "%s: its chat template is of no known family; use --raw to give the prompt as it is, or --chat-template NAME "
            "with one of %s",
            file, NAMES);
    *out = f;
    return KVANT_OK;
}

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

static const char *after_thinking(const char *text, bool keep_newlines) {
    const char *answer = text;
    for (const char *p = strstr(text, "</think>"); p; p = strstr(p + 1, "</think>")) answer = p + strlen("</think>");
    while (answer != text && *answer == '\n' && !keep_newlines) answer++;
    return answer;
}

/* A user turn, with the system text inside where it belongs there. */
static kvant_status append_user(const style *s, const char *text, bool first, const char *system, kvant_buffer *out) {
    KVANT_TRY(kvant_buffer_append_str(out, first || !s->next_user ? s->user[0] : s->next_user));
    if (system) KVANT_TRY(append_turn(s->inside[0], system, s->trim, s->inside[1], out));
    return append_turn("", text, s->trim, s->user[1], out);
}

/* The leading system message, or the template's own; NULL: none. */
static kvant_status append_system(const style *s, bool llama31, const char *system, kvant_buffer *out) {
    if (s->prefix) KVANT_TRY(kvant_buffer_append_str(out, s->prefix));
    if (llama31) return append_turn("", system ? system : "", s->trim, s->system[1], out); /* the prefix opened the turn */
    return system && s->system[0] ? append_turn(s->system[0], system, s->trim, s->system[1], out) : KVANT_OK;
}

static kvant_status render(const kvant_chat_family *f, const style *s, const char *default_system,
                           const kvant_chat_message *messages, int n, bool add_generation_prompt, kvant_buffer *out,
                           kvant_error *err) {
    bool given = n > 0 && strcmp(messages[0].role, "system") == 0;
    const char *system = given ? messages[0].content : *default_system ? default_system : NULL;
    bool opened = s->prefix && f->adapt == adapt_llama3;
    int last_user = -1, n_user = 0;
    for (int i = 0; i < n; i++)
        if (strcmp(messages[i].role, "user") == 0) last_user = i;
    KVANT_TRY(append_system(s, opened, system, out));
    for (int i = given; i < n; i++) {
        const kvant_chat_message *m = &messages[i];
        if (strcmp(m->role, "user") == 0) {
            bool here = !s->system[0] && (s->system_in_last ? i == last_user : n_user == 0);
            KVANT_TRY(append_user(s, m->content, n_user++ == 0, here ? system : NULL, out));
        } else if (strcmp(m->role, "assistant") == 0) {
            const char *answer = s->drop_thinking ? after_thinking(m->content, s->keep_newlines) : m->content;
            KVANT_TRY(append_turn(s->assistant[0], answer, s->trim || s->trim_assistant, s->assistant[1], out));
        } else if (strcmp(m->role, "system") == 0 && s->system[0] && !opened) {
            KVANT_TRY(append_turn(s->system[0], m->content, s->trim, s->system[1], out));
        } else {
            return kvant_fail(err, KVANT_EINVAL,
                              "message %d has the role '%.32s', for which the chat template '%s' has no place%s", i + 1, m->role,
                              f->name, strcmp(m->role, "system") == 0 ? " after the first message" : "");
        }
    }
    if (system && !s->system[0] && last_user < 0)
        return kvant_fail(err, KVANT_EINVAL,
                          "the chat template '%s' writes the system message into a user message, and there is none", f->name);
    return add_generation_prompt && s->generation ? kvant_buffer_append_str(out, s->generation) : KVANT_OK;
}

#define MAX_SYSTEM (1 << 16)

kvant_status kvant_chat_render_template(const kvant_chat_family *f, const char *text, size_t size,
                                        const kvant_chat_message *messages, int n, bool add_generation_prompt, kvant_buffer *out,
                                        kvant_error *err) {
    style s = f->style;
    kvant_buffer system;
    kvant_buffer_init(&system, MAX_SYSTEM);
    size_t before = out->size;
    kvant_status st = KVANT_OK;
    if (text && f->adapt) {
        char *copy = copy_text(text, size);
        st = copy ? f->adapt(&s, copy, &system) : KVANT_ENOMEM;
        kvant_free(copy);
        if (st != KVANT_OK)
            kvant_fail(err, st, "the chat template's own system message cannot be kept (%s)", kvant_status_name(st));
    }
    if (st == KVANT_OK) {
        st = render(f, &s, system.data ? system.data : "", messages, n, add_generation_prompt, out, err);
        if (st == KVANT_EFULL || st == KVANT_ENOMEM) kvant_fail(err, st, "the prompt does not fit %zu bytes", out->cap);
    }
    kvant_buffer_free(&system);
    if (st != KVANT_OK && out->data) {
        out->size = before;
        out->data[before] = '\0';
    }
    return st;
}

kvant_status kvant_chat_render(const kvant_chat_family *f, const kvant_chat_message *messages, int n, bool add_generation_prompt,
                               kvant_buffer *out, kvant_error *err) {
    return kvant_chat_render_template(f, NULL, 0, messages, n, add_generation_prompt, out, err);
}

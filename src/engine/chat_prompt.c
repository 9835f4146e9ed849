// SPDX-License-Identifier: MIT
/* chat_prompt.c: messages -> the text of a prompt.
 *
 * The template of the model's file is interpreted as it is written, with the names that templates are given everywhere: messages,
 * tools, documents, add_generation_prompt, bos_token, eos_token and what the caller adds. Families of templates by name remain
 * for files without one (text/chat_template.h). */
#include <limits.h>
#include <string.h>

#include "base/memory.h"
#include "base/os.h"
#include "engine/model.h"
#include "engine/vocab.h"
#include "text/chat_template.h"
#include "text/jinja.h"

#define MAX_PROMPT ((size_t)256 << 20)
#define MAX_VALUES ((size_t)1 << 30)
#define MAX_TOKEN 4096

static kvant_status out_of_memory(kvant_status st, kvant_error *err) {
    return kvant_fail(err, st, "chat: the messages and what is made of them need more memory than there is or may be used (%s)",
                      kvant_status_name(st));
}

/* ---- by a family ---- */

static kvant_status render_family(const char *name, const kvant_chat_message *messages, int n, bool answer, kvant_buffer *out,
                                  kvant_error *err) {
    const kvant_chat_family *f = kvant_chat_family_by_name(name);
    if (f) return kvant_chat_render(f, messages, n, answer, out, err);
    return kvant_fail(err, KVANT_EUNSUPPORTED, "chat template: found \"%.40s\", expected one of %s", name,
                      kvant_chat_family_names());
}

static kvant_status take_text(kvant_buffer *out, kvant_status st, char **text, kvant_error *err) {
    if (st == KVANT_OK && out->size && memchr(out->data, '\0', out->size))
        st = kvant_fail(err, KVANT_EFORMAT, "chat: the prompt has a NUL character, expected none");
    if (st == KVANT_OK && !out->data) st = kvant_buffer_append(out, "", 0); /* an empty prompt */
    if (st != KVANT_OK) {
        kvant_buffer_free(out);
        return st;
    }
    *text = out->data;
    return KVANT_OK;
}

/* ---- by the file's template ---- */

static kvant_status set_token(const kvant_model *m, int id, const char *name, kvant_jinja_heap *h, kvant_jinja_value *globals) {
    kvant_buffer b;
    kvant_jinja_value v;
    if (!m->tokenizer || id < 0) return KVANT_OK;
    kvant_buffer_init(&b, MAX_TOKEN);
    kvant_status st = kvant_tokenizer_decode(m->tokenizer, id, true, &b);
    if (st == KVANT_OK) st = kvant_jinja_string(h, b.data ? b.data : "", b.size, &v);
    if (st == KVANT_OK) st = kvant_jinja_dict_set(h, globals, name, v);
    kvant_buffer_free(&b);
    return st;
}

static kvant_status set_tokens(const kvant_model *m, kvant_jinja_heap *h, kvant_jinja_value *globals, kvant_error *err) {
    kvant_status st = m->tokenizer ? set_token(m, kvant_tokenizer_bos(m->tokenizer), "bos_token", h, globals) : KVANT_OK;
    if (st == KVANT_OK && m->tokenizer) st = set_token(m, kvant_tokenizer_eos(m->tokenizer), "eos_token", h, globals);
    return st == KVANT_OK ? st : out_of_memory(st, err);
}

/* A BOS that the tokenizer will add is not written too. */
static kvant_status drop_bos(const kvant_model *m, kvant_buffer *out) {
    kvant_buffer bos;
    if (!m->tokenizer || !kvant_tokenizer_adds_bos(m->tokenizer) || kvant_tokenizer_bos(m->tokenizer) < 0) return KVANT_OK;
    kvant_buffer_init(&bos, MAX_TOKEN);
    kvant_status st = kvant_tokenizer_decode(m->tokenizer, kvant_tokenizer_bos(m->tokenizer), true, &bos);
    if (st == KVANT_OK && bos.size && bos.size <= out->size && memcmp(out->data, bos.data, bos.size) == 0) {
        memmove(out->data, out->data + bos.size, out->size - bos.size + 1);
        out->size -= bos.size;
    }
    kvant_buffer_free(&bos);
    return st;
}

static kvant_status render_template(const kvant_model *m, const kvant_text *source, kvant_jinja_heap *h,
                                    const kvant_jinja_value *globals, kvant_buffer *out, kvant_error *err) {
    kvant_template *t;
    kvant_template_options options;
    kvant_os_date d = kvant_os_local_date();
    kvant_template_options_default(&options);
    options.now = (kvant_jinja_time){d.year, d.month, d.day, d.hour, d.minute, d.second};
    options.max_output = MAX_PROMPT;
    KVANT_TRY(kvant_template_parse(m->path, source->data, source->size, &t, err));
    kvant_status st = kvant_template_render(t, h, globals, &options, out, err);
    kvant_template_destroy(t);
    if (st != KVANT_OK) return st;
    st = drop_bos(m, out);
    return st == KVANT_OK ? st : out_of_memory(st, err);
}

static kvant_status find_template(const kvant_model *m, kvant_text *out, kvant_error *err) {
    KVANT_TRY(kvant_vocab_chat_template(m->file, out, err));
    if (out->data) return KVANT_OK;
    return kvant_fail(err, KVANT_EUNSUPPORTED,
                      "%s: holds no chat template (tokenizer.chat_template); continue the text as it is with --raw, or "
                      "name a family with --chat-template NAME (%s)",
                      m->path, kvant_chat_family_names());
}

/* What templates are given besides the messages: tools and documents are None when there are none. */
static kvant_status set_globals(const kvant_model *m, const kvant_chat_options *o, kvant_jinja_heap *h,
                                kvant_jinja_value *globals, kvant_error *err) {
    const struct {
        const char *name, *label, *json;
    } LISTS[] = {{"tools", "tools of a chat", o->tools}, {"documents", "documents of a chat", o->documents}};
    for (int i = 0; i < 2; i++) {
        kvant_jinja_value v = kvant_jinja_none();
        if (LISTS[i].json) KVANT_TRY(kvant_jinja_from_json(h, LISTS[i].label, LISTS[i].json, strlen(LISTS[i].json), &v, err));
        if (v.kind != JINJA_NONE && v.kind != JINJA_LIST)
            return kvant_fail(err, KVANT_EINVAL, "%s: found JSON of another kind, expected an array", LISTS[i].label);
        kvant_status st = kvant_jinja_dict_set(h, globals, LISTS[i].name, v);
        if (st != KVANT_OK) return out_of_memory(st, err);
    }
    kvant_status st = kvant_jinja_dict_set(h, globals, "add_generation_prompt", kvant_jinja_bool(!o->without_generation_prompt));
    return st == KVANT_OK ? set_tokens(m, h, globals, err) : out_of_memory(st, err);
}

/* The caller's own names, which come before ours. */
static kvant_status new_globals(const kvant_chat_options *o, kvant_jinja_heap *h, kvant_jinja_value *globals, kvant_error *err) {
    if (!o->variables) {
        kvant_status st = kvant_jinja_dict(h, globals);
        return st == KVANT_OK ? st : out_of_memory(st, err);
    }
    KVANT_TRY(kvant_jinja_from_json(h, "variables of a chat", o->variables, strlen(o->variables), globals, err));
    if (globals->kind == JINJA_DICT) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "variables of a chat: found JSON of another kind, expected an object");
}

static kvant_status prompt_by_template(const kvant_model *m, kvant_jinja_heap *h, kvant_jinja_value messages,
                                       const kvant_chat_options *o, kvant_buffer *out, kvant_error *err) {
    kvant_text source;
    kvant_jinja_value globals;
    KVANT_TRY(find_template(m, &source, err));
    KVANT_TRY(new_globals(o, h, &globals, err));
    KVANT_TRY(set_globals(m, o, h, &globals, err));
    kvant_status st = kvant_jinja_dict_set(h, &globals, "messages", messages);
    if (st != KVANT_OK) return out_of_memory(st, err);
    return render_template(m, &source, h, &globals, out, err);
}

/* ---- what is called ---- */

static kvant_status list_messages(kvant_jinja_heap *h, const kvant_message *messages, int n, kvant_jinja_value *out) {
    KVANT_TRY(kvant_jinja_list(h, out));
    for (int i = 0; i < n; i++) {
        kvant_jinja_value message, role, content;
        KVANT_TRY(kvant_jinja_dict(h, &message));
        KVANT_TRY(kvant_jinja_string(h, messages[i].role, strlen(messages[i].role), &role));
        KVANT_TRY(kvant_jinja_string(h, messages[i].content, strlen(messages[i].content), &content));
        KVANT_TRY(kvant_jinja_dict_set(h, &message, "role", role));
        KVANT_TRY(kvant_jinja_dict_set(h, &message, "content", content));
        KVANT_TRY(kvant_jinja_list_add(h, out, message));
    }
    return KVANT_OK;
}

static kvant_status plain_by_family(const char *family, const kvant_message *messages, int n, kvant_buffer *out,
                                    kvant_error *err) {
    kvant_chat_message *copy = kvant_alloc((size_t)n, sizeof *copy);
    if (!copy) return out_of_memory(KVANT_ENOMEM, err);
    for (int i = 0; i < n; i++)
        copy[i] = (kvant_chat_message){messages[i].role, messages[i].content};
    kvant_status st = render_family(family, copy, n, true, out, err);
    kvant_free(copy);
    return st;
}

kvant_status kvant_chat_prompt(const kvant_model *m, const char *family, const kvant_message *messages, int n, char **text,
                               kvant_error *err) {
    kvant_buffer out;
    kvant_jinja_heap *h;
    kvant_jinja_value list;
    const kvant_chat_options none = {0};
    if (n < 1 || n > INT_MAX / 64) return kvant_fail(err, KVANT_EINVAL, "chat: found %d messages, expected 1 or more", n);
    for (int i = 0; i < n; i++)
        if (!messages[i].role || !messages[i].content)
            return kvant_fail(err, KVANT_EINVAL, "chat, message %d: found no role or no content, expected texts", i + 1);
    kvant_buffer_init(&out, MAX_PROMPT);
    if (family) return take_text(&out, plain_by_family(family, messages, n, &out, err), text, err);
    kvant_status st = kvant_jinja_heap_create(MAX_VALUES, &h);
    if (st != KVANT_OK) return out_of_memory(st, err);
    st = list_messages(h, messages, n, &list);
    st = st == KVANT_OK ? prompt_by_template(m, h, list, &none, &out, err) : out_of_memory(st, err);
    kvant_jinja_heap_destroy(h);
    return take_text(&out, st, text, err);
}

static kvant_status json_by_family(const kvant_chat_options *o, kvant_jinja_heap *h, const kvant_jinja_value *list,
                                   kvant_buffer *out, kvant_error *err) {
    kvant_chat_message *messages;
    int n;
    if (o->tools || o->documents || o->variables)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "chat template %.40s: found tools, documents or variables for a family of templates, expected messages "
                          "alone; the file's own template may know them",
                          o->family);
    n = kvant_jinja_list_length(list);
    messages = kvant_alloc((size_t)n, sizeof *messages);
    if (!messages) return out_of_memory(KVANT_ENOMEM, err);
    kvant_status st = KVANT_OK;
    for (int i = 0; i < n && st == KVANT_OK; i++) {
        const char *role = kvant_jinja_member_text(h, list, i, "role"), *content = kvant_jinja_member_text(h, list, i, "content");
        messages[i] = (kvant_chat_message){role, content};
        if (!role || !content)
            st = kvant_fail(err, KVANT_EUNSUPPORTED,
                            "chat, message %d: found no text for its role or content, expected it for the family %.40s", i + 1,
                            o->family);
    }
    if (st == KVANT_OK) st = render_family(o->family, messages, n, !o->without_generation_prompt, out, err);
    kvant_free(messages);
    return st;
}

static kvant_status prompt_json(const kvant_model *m, const char *messages, const kvant_chat_options *o, kvant_jinja_heap *h,
                                kvant_buffer *out, kvant_error *err) {
    kvant_jinja_value list;
    KVANT_TRY(kvant_jinja_from_json(h, "messages of a chat", messages, strlen(messages), &list, err));
    if (list.kind != JINJA_LIST || kvant_jinja_list_length(&list) < 1)
        return kvant_fail(err, KVANT_EINVAL,
                          "messages of a chat: found JSON of another kind or no message, expected an array of messages");
    return o->family ? json_by_family(o, h, &list, out, err) : prompt_by_template(m, h, list, o, out, err);
}

kvant_status kvant_chat_prompt_json(const kvant_model *m, const char *messages, const kvant_chat_options *options, char **text,
                                    kvant_error *err) {
    const kvant_chat_options none = {0};
    kvant_buffer out;
    kvant_jinja_heap *h;
    kvant_buffer_init(&out, MAX_PROMPT);
    kvant_status st = kvant_jinja_heap_create(MAX_VALUES, &h);
    if (st != KVANT_OK) return out_of_memory(st, err);
    st = prompt_json(m, messages, options ? options : &none, h, &out, err);
    kvant_jinja_heap_destroy(h);
    return take_text(&out, st, text, err);
}

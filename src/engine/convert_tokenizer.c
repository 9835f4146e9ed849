// SPDX-License-Identifier: MIT
/* convert_tokenizer.c: the vocabulary of a GGUF file -> tokenizer.json and tokenizer_config.json.
 *
 * Byte-level BPE with a pre-tokenizer whose expression is known by name; anything else is refused. Afterwards the two are asked
 * the same (convert_vocab.c). */
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "engine/convert.h"
#include "engine/vocab.h"
#include "text/pretokenizer.h"
#include "text/tokenizer.h"

typedef struct converter {
    const kvant_gguf *f;
    const kvant_gguf_value *tokens, *types, *merges;
    json_t *root, *config;
    kvant_error *err;
} converter;

static kvant_status refuse(const converter *c, const char *what) {
    return kvant_fail(c->err, KVANT_EUNSUPPORTED,
                      "%s: %s, which Kvant cannot write as a tokenizer.json; it is not converted, for a wrong vocabulary "
                      "would change every answer",
                      c->f->path, what);
}

static json_t *string_of(kvant_text t) { return json_stringn(t.data, t.size); }

static int type_of(const converter *c, uint64_t i) {
    return c->types ? (int)kvant_gguf_array_int(c->types, i) : KVANT_TOKEN_NORMAL;
}

static bool text_is(kvant_text t, const char *s) { return t.size == strlen(s) && memcmp(t.data, s, t.size) == 0; }

/* ---- the model ---- */

static json_t *byte_level(bool words) {
    return json_pack("{s:s, s:b, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1, "use_regex", words);
}

static kvant_status set_pre_tokenizer(converter *c, json_t *model) {
    kvant_text text = {"", 0};
    char name[64];
    if (kvant_gguf_find(c->f, "tokenizer.ggml.pre")) KVANT_TRY(kvant_gguf_string(c->f, "tokenizer.ggml.pre", &text, c->err));
    snprintf(name, sizeof name, "%.*s", text.size > 60 ? 60 : (int)text.size, text.data);
    const kvant_pretokenizer *row = kvant_pretokenizer_find(name);
    const char *expression = NULL;
    if (row) expression = kvant_convert_expression(row);
    json_object_set_new(model, "ignore_merges", json_boolean(row && row->ignore_merges));
    if (row && row == kvant_pretokenizer_find("gpt-2")) {
        json_object_set_new(c->root, "pre_tokenizer", byte_level(true));
    } else if (row && row == kvant_pretokenizer_find("smollm")) {
        json_object_set_new(c->root, "pre_tokenizer",
                            json_pack("{s:s, s:[{s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type", "Digits",
                                      "individual_digits", 1, byte_level(true)));
    } else if (expression) {
        json_object_set_new(c->root, "pre_tokenizer",
                            json_pack("{s:s, s:[{s:s, s:{s:s}, s:s, s:b}, o]}", "type", "Sequence", "pretokenizers", "type",
                                      "Split", "pattern", "Regex", expression, "behavior", "Isolated", "invert", 0,
                                      byte_level(false)));
    } else {
        return refuse(c, "its pre-tokenizer has no expression that is known");
    }
    return KVANT_OK;
}

static kvant_status set_tokens(converter *c, json_t *model) {
    json_t *vocab = json_object(), *added = json_array();
    json_object_set_new(model, "vocab", vocab);
    json_object_set_new(c->root, "added_tokens", added);
    for (uint64_t i = 0; i < c->tokens->n_elements; i++) {
        kvant_text t = kvant_gguf_array_string(c->tokens, i);
        int type = type_of(c, i);
        bool is_added = type == KVANT_TOKEN_CONTROL || type == KVANT_TOKEN_USER_DEFINED;
        if (type == KVANT_TOKEN_UNUSED) continue;
        if (type != KVANT_TOKEN_NORMAL && !is_added) return refuse(c, "it has tokens of bytes, or an unknown one");
        json_t *text = string_of(t);
        if (!text || strlen(json_string_value(text)) != t.size) {
            json_decref(text);
            return refuse(c, "a token is not UTF-8, or has a NUL in it");
        }
        if (!is_added) {
            json_object_set_new(vocab, json_string_value(text), json_integer((json_int_t)i));
            json_decref(text);
            continue;
        }
        json_array_append_new(added, json_pack("{s:I, s:o, s:b, s:b, s:b, s:b, s:b}", "id", (json_int_t)i, "content", text,
                                               "single_word", 0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special",
                                               type == KVANT_TOKEN_CONTROL));
    }
    return KVANT_OK;
}

static kvant_status set_merges(converter *c, json_t *model) {
    json_t *merges = json_array();
    json_object_set_new(model, "merges", merges);
    for (uint64_t i = 0; i < c->merges->n_elements; i++) {
        kvant_text t = kvant_gguf_array_string(c->merges, i);
        const char *space = t.size > 1 ? memchr(t.data + 1, ' ', t.size - 1) : NULL;
        size_t left = space ? (size_t)(space - t.data) : 0;
        json_t *pair = space ? json_pack("[o, o]", json_stringn(t.data, left), json_stringn(space + 1, t.size - left - 1)) : NULL;
        if (!pair) return refuse(c, "a merge is not two texts");
        json_array_append_new(merges, pair);
    }
    return KVANT_OK;
}

/* ---- special tokens ---- */

static kvant_status token_text(const converter *c, const char *key, uint32_t *id, kvant_text *out) {
    *out = (kvant_text){NULL, 0};
    KVANT_TRY(kvant_gguf_u32_or(c->f, key, UINT32_MAX, id, c->err));
    if (*id < c->tokens->n_elements) *out = kvant_gguf_array_string(c->tokens, *id);
    return KVANT_OK;
}

static json_t *special_part(kvant_text t) {
    return json_pack("{s:{s:o, s:i}}", "SpecialToken", "id", string_of(t), "type_id", 0);
}

static kvant_status set_special(converter *c) {
    uint32_t bos_id, eos_id;
    kvant_text bos, eos, chat;
    bool add_bos, add_eos;
    KVANT_TRY(token_text(c, "tokenizer.ggml.bos_token_id", &bos_id, &bos));
    KVANT_TRY(token_text(c, "tokenizer.ggml.eos_token_id", &eos_id, &eos));
    const kvant_pretokenizer *row = NULL;
    if (kvant_gguf_find(c->f, "tokenizer.ggml.pre")) {
        KVANT_TRY(kvant_gguf_string(c->f, "tokenizer.ggml.pre", &chat, c->err));
        char name[64];
        snprintf(name, sizeof name, "%.*s", chat.size > 60 ? 60 : (int)chat.size, chat.data);
        row = kvant_pretokenizer_find(name);
    }
    KVANT_TRY(kvant_gguf_bool_or(c->f, "tokenizer.ggml.add_bos_token", row && row->add_bos, &add_bos, c->err));
    KVANT_TRY(kvant_gguf_bool_or(c->f, "tokenizer.ggml.add_eos_token", false, &add_eos, c->err));
    c->config = json_pack("{s:s, s:b}", "tokenizer_class", "PreTrainedTokenizerFast", "clean_up_tokenization_spaces", 0);
    if (bos.data) json_object_set_new(c->config, "bos_token", string_of(bos));
    if (eos.data) json_object_set_new(c->config, "eos_token", string_of(eos));
    if (kvant_gguf_find(c->f, "tokenizer.chat_template")) {
        KVANT_TRY(kvant_gguf_string(c->f, "tokenizer.chat_template", &chat, c->err));
        json_object_set_new(c->config, "chat_template", string_of(chat));
    }
    add_bos = add_bos && bos.data;
    add_eos = add_eos && eos.data;
    if (!add_bos && !add_eos) return KVANT_OK;
    json_t *single = json_array(), *tokens = json_object();
    if (add_bos) json_array_append_new(single, special_part(bos));
    json_array_append_new(single, json_pack("{s:{s:s, s:i}}", "Sequence", "id", "A", "type_id", 0));
    if (add_eos) json_array_append_new(single, special_part(eos));
    for (int i = 0; i < 2; i++) {
        kvant_text t = i ? eos : bos;
        if (!(i ? add_eos : add_bos)) continue;
        json_t *text = string_of(t);
        json_object_set_new(
            tokens, json_string_value(text),
            json_pack("{s:O, s:[I], s:[O]}", "id", text, "ids", (json_int_t)(i ? eos_id : bos_id), "tokens", text));
        json_decref(text);
    }
    json_object_set_new(c->root, "post_processor",
                        json_pack("{s:s, s:o, s:[{s:{s:s, s:i}}, {s:{s:s, s:i}}], s:o}", "type", "TemplateProcessing", "single",
                                  single, "pair", "Sequence", "id", "A", "type_id", 0, "Sequence", "id", "B", "type_id", 1,
                                  "special_tokens", tokens));
    return KVANT_OK;
}

static kvant_status write_all(converter *c, const char *folder) {
    kvant_text kind;
    KVANT_TRY(kvant_gguf_string(c->f, "tokenizer.ggml.model", &kind, c->err));
    c->tokens = kvant_gguf_find(c->f, "tokenizer.ggml.tokens");
    c->types = kvant_gguf_find(c->f, "tokenizer.ggml.token_type");
    c->merges = kvant_gguf_find(c->f, "tokenizer.ggml.merges");
    if (!text_is(kind, "gpt2")) return refuse(c, "its vocabulary is not byte-level BPE");
    bool types_fit = !c->types || (c->types->type == KVANT_GGUF_ARRAY && c->types->element_type != KVANT_GGUF_STRING);
    if (!c->tokens || !c->merges || c->tokens->element_type != KVANT_GGUF_STRING ||
        c->merges->element_type != KVANT_GGUF_STRING || !types_fit || (c->types && c->types->n_elements < c->tokens->n_elements))
        return kvant_fail(c->err, KVANT_EFORMAT, "%s: its vocabulary lacks tokens, merges or types", c->f->path);
    json_t *model = json_pack("{s:s, s:n, s:n, s:n, s:n, s:b, s:b}", "type", "BPE", "dropout", "unk_token",
                              "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0, "byte_fallback", 0);
    c->root = json_pack("{s:s, s:n, s:n, s:n}", "version", "1.0", "truncation", "padding", "normalizer");
    if (!c->root || !model) return kvant_fail(c->err, KVANT_ENOMEM, "%s: out of memory", c->f->path);
    json_object_set_new(c->root, "model", model);
    json_object_set_new(c->root, "decoder", byte_level(true));
    json_object_set_new(c->root, "post_processor", json_null());
    KVANT_TRY(set_pre_tokenizer(c, model));
    KVANT_TRY(set_tokens(c, model));
    KVANT_TRY(set_merges(c, model));
    KVANT_TRY(set_special(c));
    KVANT_TRY(kvant_convert_write_json(folder, "tokenizer.json", c->root, c->err));
    return kvant_convert_write_json(folder, "tokenizer_config.json", c->config, c->err);
}

kvant_status kvant_convert_write_vocab(const kvant_gguf *f, const char *folder, kvant_error *err) {
    bool carried;
    KVANT_TRY(kvant_vocab_write_files(f, folder, &carried, err));
    if (carried) return KVANT_OK;
    converter c = {.f = f, .err = err};
    kvant_status st = write_all(&c, folder);
    json_decref(c.root);
    json_decref(c.config);
    return st;
}

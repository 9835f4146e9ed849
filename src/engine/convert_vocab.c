// SPDX-License-Identifier: MIT
/* convert_vocab.c: the vocabulary of a folder (tokenizer.json) -> the values of a GGUF file.
 *
 * The folder's files go along whole, so Kvant reads any tokenizer back exactly. GGUF's own values, for other programs, are written
 * only where they can say the same: byte-level BPE with a pre-tokenizer that a name stands for; a vocabulary that cuts some texts in
 * another way is none. Last, both tokenizers are asked the same. */
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/calibration_store.h"
#include "engine/convert.h"
#include "engine/vocab.h"

#define JSON_MAX ((size_t)256 << 20)
#define PATH_ROOM 4096
#define TOKENS_MAX (1 << 24)

typedef struct token {
    const char *text; /* NULL: none has this id */
    uint32_t type;
} token;

typedef struct converter {
    const char *folder;
    json_t *root, *config, *model_config;
    token *tokens; /* [n] */
    int n;
    kvant_gguf_writer *w;
    kvant_error *err;
} converter;

static kvant_status refuse(const converter *c, const char *what) {
    return kvant_fail(c->err, KVANT_EUNSUPPORTED,
                      "%s/tokenizer.json: %s, which GGUF's own values cannot say: Kvant reads it from the file's copy of tokenizer.json, "
                      "other programs will find no vocabulary",
                      c->folder, what);
}

/* ---- files ---- */

static kvant_status load_json(const converter *c, const char *name, bool required, json_t **out) {
    char path[PATH_ROOM];
    uint8_t *text;
    size_t size;
    kvant_os_file probe;
    bool absent = false;
    int n = snprintf(path, sizeof path, "%s/%s", c->folder, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return kvant_fail(c->err, KVANT_EINVAL, "%.64s...: the path is longer than %d bytes", c->folder, PATH_ROOM);
    *out = NULL;
    if (kvant_os_file_open(path, &probe, &absent, NULL) == KVANT_OK)
        kvant_os_file_close(&probe);
    else if (absent && !required)
        return KVANT_OK;
    KVANT_TRY(kvant_os_read_file(path, JSON_MAX, &text, &size, c->err));
    *out = json_loadb((const char *)text, size, 0, NULL);
    kvant_free(text);
    if (json_is_object(*out)) return KVANT_OK;
    json_decref(*out);
    *out = NULL;
    return kvant_fail(c->err, KVANT_EFORMAT, "%s: is not a JSON object", path);
}

static const char *text_of(const json_t *object, const char *key) {
    const char *s = json_string_value(json_object_get(object, key));
    return s ? s : "";
}

static bool is_type(const json_t *object, const char *type) { return strcmp(text_of(object, "type"), type) == 0; }

/* ---- the stages ---- */

#define CL100K(digits)                                                                                                           \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits                                                         \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define CASED "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define O200K                                                                                                                    \
    CASED "*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|" CASED                                                  \
          "+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"                                                         \
          "|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

static const struct {
    const char *expression, *name;
    bool ignore_merges;
} expressions[] = {
    {CL100K("\\p{N}{1,3}"), "llama-bpe", true},
    {CL100K("\\p{N}{1,3}"), "dbrx", false},
    {CL100K("\\p{N}"), "qwen2", false},
    {O200K, "gpt-4o", false},
};

const char *kvant_convert_expression(const kvant_pretokenizer *row) {
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++)
        if (kvant_pretokenizer_find(expressions[i].name) == row) return expressions[i].expression;
    return NULL;
}

/* The name of a pre-tokenizer that ends in the letters of bytes; NULL: there is none. */
static const char *find_name(const json_t *pre, bool ignore_merges) {
    bool is_list = is_type(pre, "Sequence");
    const json_t *list = json_object_get(pre, "pretokenizers");
    const json_t *bytes = is_list ? json_array_get(list, 1) : pre, *first = is_list ? json_array_get(list, 0) : NULL;
    if ((is_list && json_array_size(list) != 2) || !is_type(bytes, "ByteLevel") ||
        json_is_true(json_object_get(bytes, "add_prefix_space")))
        return NULL;
    bool words = !json_is_false(json_object_get(bytes, "use_regex"));
    if (!first) return words && !ignore_merges ? "gpt-2" : NULL;
    if (is_type(first, "Digits"))
        return words && !ignore_merges && json_is_true(json_object_get(first, "individual_digits")) ? "smollm" : NULL;
    if (words || !is_type(first, "Split") || strcmp(text_of(first, "behavior"), "Isolated") != 0 ||
        json_is_true(json_object_get(first, "invert")))
        return NULL;
    const char *expression = text_of(json_object_get(first, "pattern"), "Regex");
    for (size_t i = 0; i < sizeof expressions / sizeof *expressions; i++)
        if (strcmp(expression, expressions[i].expression) == 0 && expressions[i].ignore_merges == ignore_merges)
            return expressions[i].name;
    return NULL;
}

static kvant_status put_stages(converter *c) {
    const json_t *model = json_object_get(c->root, "model"), *normalizer = json_object_get(c->root, "normalizer");
    const json_t *pre = json_object_get(c->root, "pre_tokenizer"), *decoder = json_object_get(c->root, "decoder");
    if (!is_type(model, "BPE")) return refuse(c, "its model is not BPE");
    bool suffixes = *text_of(model, "continuing_subword_prefix") || *text_of(model, "end_of_word_suffix");
    if (suffixes || json_real_value(json_object_get(model, "dropout")) != 0)
        return refuse(c, "its BPE has prefixes, suffixes or a dropout");
    if (json_is_true(json_object_get(model, "byte_fallback"))) return refuse(c, "its BPE falls back to bytes (SentencePiece)");
    const char *name = find_name(pre, json_is_true(json_object_get(model, "ignore_merges")));
    if (!name) return refuse(c, "its pre_tokenizer is none that has a name there");
    if (!is_type(decoder, "ByteLevel")) return refuse(c, "its decoder is not ByteLevel");
    if (json_is_object(normalizer) && !is_type(normalizer, "NFC")) return refuse(c, "it has a normalizer");
    if (json_is_object(normalizer))
        kvant_log(KVANT_LOG_WARNING,
                  "%s: the tokenizer composes characters first (NFC), which GGUF's own values cannot say: texts that are not composed "
                  "get other tokens in other programs than Kvant",
                  c->folder);
    kvant_gguf_put_string(c->w, "tokenizer.ggml.model", "gpt2", 4);
    kvant_gguf_put_string(c->w, "tokenizer.ggml.pre", name, strlen(name));
    return KVANT_OK;
}

/* ---- tokens ---- */

static kvant_status set_token(converter *c, const char *text, json_int_t id, uint32_t type) {
    if (id < 0 || id >= c->n)
        return kvant_fail(c->err, KVANT_EFORMAT,
                          "%s/tokenizer.json: the id %" PRId64 " is outside of the %d rows of the model's embedding", c->folder,
                          (int64_t)id, c->n);
    if (c->tokens[id].text && strcmp(c->tokens[id].text, text) != 0)
        return kvant_fail(c->err, KVANT_EFORMAT, "%s/tokenizer.json: two tokens have the id %" PRId64, c->folder, (int64_t)id);
    c->tokens[id].text = text;
    c->tokens[id].type = type;
    return KVANT_OK;
}

static kvant_status read_tokens(converter *c) {
    json_t *vocab = json_object_get(json_object_get(c->root, "model"), "vocab"),
           *added = json_object_get(c->root, "added_tokens"), *value;
    const char *text;
    size_t i;
    json_object_foreach(vocab, text, value)
        KVANT_TRY(set_token(c, text, json_is_integer(value) ? json_integer_value(value) : -1, KVANT_TOKEN_NORMAL));
    json_array_foreach(added, i, value) {
        bool trims = json_is_true(json_object_get(value, "lstrip")) || json_is_true(json_object_get(value, "rstrip")) ||
                     json_is_true(json_object_get(value, "single_word"));
        if (trims) return refuse(c, "an added token takes the white space beside it, or only whole words");
        KVANT_TRY(set_token(c, text_of(value, "content"), json_integer_value(json_object_get(value, "id")),
                            json_is_true(json_object_get(value, "special")) ? KVANT_TOKEN_CONTROL : KVANT_TOKEN_USER_DEFINED));
    }
    return KVANT_OK;
}

static kvant_status put_tokens(converter *c) {
    kvant_buffer texts, types;
    char name[32];
    kvant_status st = KVANT_OK;
    kvant_buffer_init(&texts, KVANT_GGUF_HEAD_MAX / 4);
    kvant_buffer_init(&types, KVANT_GGUF_HEAD_MAX / 4);
    for (int i = 0; i < c->n; i++) {
        const token *t = &c->tokens[i];
        uint32_t type = t->text ? t->type : KVANT_TOKEN_UNUSED;
        uint8_t bytes[4] = {(uint8_t)type, 0, 0, 0};
        snprintf(name, sizeof name, "[PAD%d]", i);
        kvant_gguf_append_string(&texts, t->text ? t->text : name, strlen(t->text ? t->text : name), &st);
        if (st == KVANT_OK) st = kvant_buffer_append(&types, bytes, sizeof bytes);
    }
    if (st == KVANT_OK) {
        kvant_gguf_put_array(c->w, "tokenizer.ggml.tokens", KVANT_GGUF_STRING, (uint64_t)c->n, texts.data, texts.size);
        kvant_gguf_put_array(c->w, "tokenizer.ggml.token_type", KVANT_GGUF_I32, (uint64_t)c->n, types.data, types.size);
    }
    kvant_buffer_free(&texts);
    kvant_buffer_free(&types);
    return st == KVANT_OK ? st : kvant_fail(c->err, st, "%s: no memory for its vocabulary", c->folder);
}

/* "left right", or a pair of strings. */
static kvant_status put_merges(converter *c) {
    const json_t *merges = json_object_get(json_object_get(c->root, "model"), "merges"), *merge;
    kvant_buffer texts;
    kvant_status st = KVANT_OK;
    size_t i;
    kvant_buffer_init(&texts, KVANT_GGUF_HEAD_MAX / 4);
    json_array_foreach(merges, i, merge) {
        const char *left = json_string_value(json_array_get(merge, 0)), *right = json_string_value(json_array_get(merge, 1));
        const char *whole = json_string_value(merge);
        bool spaced = left && right && (strchr(left, ' ') || strchr(right, ' '));
        size_t size = left && right ? strlen(left) + strlen(right) + 1 : 0;
        char *joined = size ? kvant_alloc(size + 1, 1) : NULL;
        if (joined) snprintf(joined, size + 1, "%s %s", left, right);
        if (joined || whole) kvant_gguf_append_string(&texts, joined ? joined : whole, joined ? size : strlen(whole), &st);
        bool bad = (!joined && !whole) || spaced;
        kvant_free(joined);
        if (!bad && st == KVANT_OK) continue;
        kvant_buffer_free(&texts);
        return bad ? refuse(c, "a merge is not two texts without spaces")
                   : kvant_fail(c->err, st, "%s: no memory for its merges", c->folder);
    }
    kvant_gguf_put_array(c->w, "tokenizer.ggml.merges", KVANT_GGUF_STRING, json_array_size(merges), texts.data ? texts.data : "",
                         texts.size);
    kvant_buffer_free(&texts);
    return KVANT_OK;
}

/* ---- special tokens ---- */

static int find_token(const converter *c, const char *text) {
    for (int i = 0; text && *text && i < c->n; i++)
        if (c->tokens[i].text && strcmp(c->tokens[i].text, text) == 0) return i;
    return -1;
}

/* By tokenizer_config.json's name, else by config.json's id, of several the first. */
static int special_id(const converter *c, const char *name, const char *id_name) {
    const json_t *entry = json_object_get(c->config, name), *id = json_object_get(c->model_config, id_name);
    int found = find_token(c, json_is_object(entry) ? text_of(entry, "content") : json_string_value(entry));
    if (found >= 0) return found;
    if (json_is_array(id)) id = json_array_get(id, 0);
    json_int_t value = json_is_integer(id) ? json_integer_value(id) : -1;
    return value >= 0 && value < c->n && c->tokens[value].text ? (int)value : -1;
}

/* What the template puts around a text: -1 where it puts nothing. */
static kvant_status read_template(const converter *c, int *before, int *after) {
    const json_t *post = json_object_get(c->root, "post_processor"), *list = json_object_get(post, "processors"), *part;
    const json_t *single = NULL;
    size_t i;
    bool seen = false;
    *before = *after = -1;
    if (!json_is_object(post) || is_type(post, "ByteLevel")) return KVANT_OK;
    if (is_type(post, "TemplateProcessing")) single = json_object_get(post, "single");
    for (i = 0; is_type(post, "Sequence") && i < json_array_size(list); i++) {
        const json_t *p = json_array_get(list, i);
        if (is_type(p, "TemplateProcessing") && !single)
            single = json_object_get(p, "single");
        else if (!is_type(p, "ByteLevel"))
            return refuse(c, "its post_processor is another than a template");
    }
    if (!single) return refuse(c, "its post_processor is another than a template");
    json_array_foreach(single, i, part) {
        const json_t *special = json_object_get(part, "SpecialToken");
        int *where = seen ? after : before;
        if (json_object_get(part, "Sequence")) {
            seen = true;
            continue;
        }
        if (!special || *where >= 0) return refuse(c, "its post_processor adds more than one token at an end of a text");
        *where = find_token(c, text_of(special, "id"));
        if (*where < 0) return refuse(c, "its post_processor adds a token that is not there");
    }
    return KVANT_OK;
}

static kvant_status put_special(converter *c) {
    int before, after, bos = special_id(c, "bos_token", "bos_token_id"), eos = special_id(c, "eos_token", "eos_token_id");
    int pad = special_id(c, "pad_token", "pad_token_id");
    KVANT_TRY(read_template(c, &before, &after));
    if ((before >= 0 && bos >= 0 && before != bos) || (after >= 0 && after != eos))
        return refuse(c, "it adds other tokens to a text than BOS and EOS");
    if (before >= 0) bos = before;
    if (bos >= 0) kvant_gguf_put_u32(c->w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    if (eos >= 0) kvant_gguf_put_u32(c->w, "tokenizer.ggml.eos_token_id", (uint32_t)eos);
    if (pad >= 0) kvant_gguf_put_u32(c->w, "tokenizer.ggml.padding_token_id", (uint32_t)pad);
    kvant_gguf_put_bool(c->w, "tokenizer.ggml.add_bos_token", before >= 0);
    kvant_gguf_put_bool(c->w, "tokenizer.ggml.add_eos_token", after >= 0);
    return KVANT_OK;
}

static kvant_status put_all(converter *c) {
    KVANT_TRY(load_json(c, "tokenizer.json", true, &c->root));
    KVANT_TRY(load_json(c, "tokenizer_config.json", false, &c->config));
    KVANT_TRY(load_json(c, "config.json", true, &c->model_config));
    c->tokens = kvant_alloc((size_t)c->n, sizeof *c->tokens);
    if (!c->tokens) return kvant_fail(c->err, KVANT_ENOMEM, "%s: no memory for %d tokens", c->folder, c->n);
    KVANT_TRY(put_stages(c));
    KVANT_TRY(read_tokens(c));
    KVANT_TRY(put_tokens(c));
    KVANT_TRY(put_merges(c));
    return put_special(c);
}

kvant_status kvant_convert_put_vocab(const kvant_gguf *f, kvant_gguf_writer *w, kvant_error *err) {
    const kvant_gguf_tensor *embedding = kvant_gguf_find_tensor(f, "token_embd.weight");
    if (!embedding || embedding->dims[1] < 1 || embedding->dims[1] > TOKENS_MAX)
        return kvant_fail(err, KVANT_EFORMAT, "%s: there is no embedding of tokens", f->path);
    converter c = {.folder = f->path, .n = (int)embedding->dims[1], .w = w, .err = err};
    size_t size = w->values.size;
    uint64_t n_values = w->n_values;
    kvant_error why = {0};
    c.err = &why;
    kvant_status st = put_all(&c);
    if (st == KVANT_EUNSUPPORTED) { /* half a vocabulary is none */
        kvant_log(KVANT_LOG_WARNING, "%s", why.message);
        w->values.size = size;
        w->n_values = n_values;
        st = KVANT_OK;
    } else if (st != KVANT_OK && err) {
        *err = why;
    }
    if (st == KVANT_OK) st = kvant_vocab_put_files(f->path, w, err);
    json_decref(c.root);
    json_decref(c.config);
    json_decref(c.model_config);
    kvant_free(c.tokens);
    return st;
}

/* ---- the proof ---- */

static const char *const probes[] = {
    "",
    " ",
    "  ",
    "a",
    " a",
    "Hello, world!",
    "It's what they've said; I'LL see, WE'RE done.",
    "1234567890 12 345 6,789.01",
    "\n\n  \t\tindented\r\n",
    "trailing  ",
    "x=y+z; f(a)[0] -> {b}",
    "naïve café, Ærøskøbing",
    "日本語のテキスト",
    "Привет, мир",
    "👩‍👩‍👧 ok",
    "<|im_start|>user\nhi<|im_end|>",
    "<s>[INST] x [/INST]</s>",
    "<|begin_of_text|>a<|eot_id|>",
    "snake_case camelCase HTTPServer",
    "...!!!???",
};

static kvant_status compare_ids(const kvant_tokenizer *a, const kvant_tokenizer *b, const char *text, size_t size, bool special,
                                bool *same, kvant_error *err) {
    int32_t *ids[2];
    int n[2];
    kvant_tokenize_options o = {.add_special = special, .parse_special = special};
    KVANT_TRY(kvant_tokenizer_encode(a, text, size, o, &ids[0], &n[0], err));
    kvant_status st = kvant_tokenizer_encode(b, text, size, o, &ids[1], &n[1], err);
    if (st == KVANT_OK) {
        *same = n[0] == n[1] && (n[0] == 0 || memcmp(ids[0], ids[1], (size_t)n[0] * sizeof **ids) == 0);
        kvant_free(ids[1]);
    }
    kvant_free(ids[0]);
    return st;
}

static kvant_status compare_all(const kvant_tokenizer *a, const kvant_tokenizer *b, const char *name, kvant_error *err) {
    size_t n = sizeof probes / sizeof *probes;
    for (size_t i = 0; i <= n; i++)
        for (int special = 0; special < 2; special++) {
            const char *text = i < n ? probes[i] : kvant_calibration_text;
            bool same = false;
            KVANT_TRY(compare_ids(a, b, text, strlen(text), special, &same, err));
            if (!same)
                return kvant_fail(err, KVANT_EUNSUPPORTED,
                                  "%s: its tokenizer would cut some texts in another way in the other kind of file (a text "
                                  "beginning with \"%.24s\"), so it is not converted",
                                  name, text);
        }
    return KVANT_OK;
}

kvant_status kvant_convert_compare_vocabs(kvant_gguf *from, kvant_gguf *to, kvant_error *err) {
    kvant_tokenizer *a = NULL, *b = NULL;
    KVANT_TRY(kvant_vocab_load(from, &a, err));
    kvant_status st = kvant_vocab_load(to, &b, err);
    if (st == KVANT_OK) st = compare_all(a, b, from->path, err);
    kvant_tokenizer_destroy(a);
    kvant_tokenizer_destroy(b);
    return st;
}

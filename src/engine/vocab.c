// SPDX-License-Identifier: MIT
/* vocab.c: hands the vocabulary of a GGUF file or a model folder to src/text, which knows no files. */
#include "engine/vocab.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "base/memory.h"
#include "text/tokenizer_json.h"

/* The arrays of a vocabulary, NULL where the file has none. */
typedef struct arrays {
    const kvant_gguf_value *tokens, *scores, *types, *merges;
} arrays;

static const char *token_at(void *user, int id, size_t *size) {
    kvant_text t = kvant_gguf_array_string(((const arrays *)user)->tokens, (uint64_t)id);
    *size = t.size;
    return t.data;
}

static const char *merge_at(void *user, int index, size_t *size) {
    kvant_text t = kvant_gguf_array_string(((const arrays *)user)->merges, (uint64_t)index);
    *size = t.size;
    return t.data;
}

static float score_at(void *user, int id) {
    const kvant_gguf_value *v = ((const arrays *)user)->scores;
    return v->element_type == KVANT_GGUF_F32 ? kvant_gguf_array_f32(v, (uint64_t)id)
                                             : (float)kvant_gguf_array_int(v, (uint64_t)id);
}

static int type_at(void *user, int id) { return (int)kvant_gguf_array_int(((const arrays *)user)->types, (uint64_t)id); }

static bool is_integer(kvant_gguf_type type) {
    return type <= KVANT_GGUF_I32 || type == KVANT_GGUF_U64 || type == KVANT_GGUF_I64;
}

/* The array of a key, or NULL when there is none. what: 's' strings, 'f' floats or integers, 'i' integers. At least n elements.
 */
static kvant_status find_array(const kvant_gguf *f, const char *key, char what, uint64_t n, const kvant_gguf_value **out,
                               kvant_error *err) {
    const kvant_gguf_value *v = kvant_gguf_find(f, key);
    *out = NULL;
    if (!v) return KVANT_OK;
    bool fits = v->type == KVANT_GGUF_ARRAY &&
                (what == 's' ? v->element_type == KVANT_GGUF_STRING
                             : is_integer(v->element_type) || (what == 'f' && v->element_type == KVANT_GGUF_F32));
    if (!fits)
        return kvant_fail(err, KVANT_EFORMAT, "%s: %s is not an array of %s", f->path, key,
                          what == 's' ? "strings" : what == 'f' ? "floats" : "integers");
    if (v->n_elements < n || v->n_elements > INT_MAX)
        return kvant_fail(err, KVANT_EFORMAT, "%s: %s has %llu elements for %llu tokens", f->path, key,
                          (unsigned long long)v->n_elements, (unsigned long long)n);
    *out = v;
    return KVANT_OK;
}

/* A string value as a C string in *out (kvant_free); NULL when the key is absent. */
static kvant_status copy_string(const kvant_gguf *f, const char *key, char **out, kvant_error *err) {
    kvant_text text;
    *out = NULL;
    if (!kvant_gguf_find(f, key)) return KVANT_OK;
    KVANT_TRY(kvant_gguf_string(f, key, &text, err));
    char *copy = kvant_alloc(text.size + 1, 1);
    if (!copy) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for %s", f->path, key);
    for (size_t i = 0; i < text.size; i++) copy[i] = text.data[i];
    *out = copy;
    return KVANT_OK;
}

/* A special token's id, -1 when the file names none (0xFFFFFFFF is how some files say so). */
static kvant_status special_id(const kvant_gguf *f, const char *key, int *out, kvant_error *err) {
    uint32_t id;
    KVANT_TRY(kvant_gguf_u32_or(f, key, UINT32_MAX, &id, err));
    if (id != UINT32_MAX && id > INT_MAX) return kvant_fail(err, KVANT_EFORMAT, "%s: %s is %u, no token id", f->path, key, id);
    *out = id == UINT32_MAX ? -1 : (int)id;
    return KVANT_OK;
}

/* 0, 1, or -1 when the file does not say. */
static kvant_status flag(const kvant_gguf *f, const char *key, int *out, kvant_error *err) {
    bool value;
    *out = -1;
    if (!kvant_gguf_find(f, key)) return KVANT_OK;
    KVANT_TRY(kvant_gguf_bool_or(f, key, false, &value, err));
    *out = value;
    return KVANT_OK;
}

static kvant_status fill_source(const kvant_gguf *f, arrays *a, kvant_vocab_source *v, kvant_error *err) {
    KVANT_TRY(find_array(f, "tokenizer.ggml.tokens", 's', 1, &a->tokens, err));
    if (!a->tokens)
        return kvant_fail(err, KVANT_EFORMAT, "%s: there is no vocabulary (tokenizer.ggml.tokens is missing)", f->path);
    uint64_t n = a->tokens->n_elements;
    KVANT_TRY(find_array(f, "tokenizer.ggml.scores", 'f', n, &a->scores, err));
    KVANT_TRY(find_array(f, "tokenizer.ggml.token_type", 'i', n, &a->types, err));
    KVANT_TRY(find_array(f, "tokenizer.ggml.merges", 's', 0, &a->merges, err));
    v->user = a;
    v->n_token = (int)n;
    v->token = token_at;
    v->score = a->scores ? score_at : NULL;
    v->type = a->types ? type_at : NULL;
    v->n_merge = a->merges ? (int)a->merges->n_elements : 0;
    v->merge = merge_at;
    KVANT_TRY(special_id(f, "tokenizer.ggml.bos_token_id", &v->bos_id, err));
    KVANT_TRY(special_id(f, "tokenizer.ggml.eos_token_id", &v->eos_id, err));
    KVANT_TRY(special_id(f, "tokenizer.ggml.eot_token_id", &v->eot_id, err));
    KVANT_TRY(special_id(f, "tokenizer.ggml.unknown_token_id", &v->unk_id, err));
    KVANT_TRY(flag(f, "tokenizer.ggml.add_bos_token", &v->add_bos, err));
    KVANT_TRY(flag(f, "tokenizer.ggml.add_eos_token", &v->add_eos, err));
    return flag(f, "tokenizer.ggml.add_space_prefix", &v->add_space_prefix, err);
}

/* ---- folders ---- */

#define SMALL_FILE_MAX ((size_t)16 << 20)
#define FOLDER_PATH_MAX 4096

enum { TOKENIZER, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, GENERATION_CONFIG, CONFIG, CHAT_TEMPLATE, N_FILES };
static const char *const file_names[N_FILES] = {"tokenizer.json",         "tokenizer_config.json", "special_tokens_map.json",
                                                "generation_config.json", "config.json",           "chat_template.jinja"};
/* Under which keys a GGUF file carries them whole. The first is GGUF's own name for it; for the others it has none. */
static const char *const file_keys[N_FILES] = {"tokenizer.huggingface.json",
                                               "tokenizer.huggingface.tokenizer_config",
                                               "tokenizer.huggingface.special_tokens_map",
                                               "tokenizer.huggingface.generation_config",
                                               "tokenizer.huggingface.config",
                                               "tokenizer.huggingface.chat_template"};

/* A file of the folder; *text stays NULL when it is not there, which only tokenizer.json may not be. */
static kvant_status read_folder_file(const char *folder, const char *name, size_t max, bool required, uint8_t **text, size_t *size,
                                     kvant_error *err) {
    char path[FOLDER_PATH_MAX];
    size_t n = strlen(folder);
    int length = snprintf(path, sizeof path, "%s%s%s", folder, n && folder[n - 1] == '/' ? "" : "/", name);
    if (length < 0 || (size_t)length >= sizeof path)
        return kvant_fail(err, KVANT_EINVAL, "%.64s...: the path is longer than %d bytes", folder, FOLDER_PATH_MAX);
    kvant_os_file probe;
    bool absent;
    if (kvant_os_file_open(path, &probe, &absent, NULL) == KVANT_OK) kvant_os_file_close(&probe);
    else if (absent && !required) return KVANT_OK;
    return kvant_os_read_file(path, max, text, size, err);
}

/* The template lives as long as the file. */
static kvant_status keep_template(kvant_gguf *f, const kvant_tokenizer_files *files, kvant_error *err) {
    char *text;
    size_t size;
    KVANT_TRY(kvant_tokenizer_json_template(files, &text, &size, err));
    if (!text || f->chat_template.data) {
        kvant_free(text);
        return KVANT_OK;
    }
    void **owned = kvant_realloc(f->owned, (size_t)f->n_owned + 1, sizeof *owned);
    if (!owned) {
        kvant_free(text);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for the chat template", f->path);
    }
    f->owned = owned;
    f->owned[f->n_owned++] = text;
    f->chat_template = (kvant_text){text, size};
    return KVANT_OK;
}

static kvant_tokenizer_files name_files(const char *name, const kvant_file_text files[N_FILES]) {
    return (kvant_tokenizer_files){.name = name,
                                   .tokenizer = files[TOKENIZER],
                                   .tokenizer_config = files[TOKENIZER_CONFIG],
                                   .special_tokens_map = files[SPECIAL_TOKENS_MAP],
                                   .generation_config = files[GENERATION_CONFIG],
                                   .config = files[CONFIG],
                                   .chat_template = files[CHAT_TEMPLATE]};
}

/* texts [N_FILES] are freed by the caller, also after a failure. */
static kvant_status read_files(const char *folder, uint8_t **texts, kvant_file_text *files, kvant_error *err) {
    for (int i = 0; i < N_FILES; i++) {
        size_t size = 0, max = i == TOKENIZER ? KVANT_TOKENIZER_JSON_MAX : SMALL_FILE_MAX;
        KVANT_TRY(read_folder_file(folder, file_names[i], max, i == TOKENIZER, &texts[i], &size, err));
        files[i] = (kvant_file_text){(const char *)texts[i], size};
    }
    return KVANT_OK;
}

static kvant_status load_folder(kvant_gguf *f, kvant_tokenizer **out, kvant_error *err) {
    uint8_t *texts[N_FILES] = {0};
    kvant_file_text files[N_FILES] = {{0}};
    kvant_status st = read_files(f->path, texts, files, err);
    kvant_tokenizer_files all = name_files(f->path, files);
    if (st == KVANT_OK) st = keep_template(f, &all, err);
    if (st == KVANT_OK) st = kvant_tokenizer_create_from_json(&all, out, err);
    for (int i = 0; i < N_FILES; i++) kvant_free(texts[i]);
    return st;
}

/* ---- the same files, carried by a GGUF file ---- */

/* What Kvant wrote says more than GGUF's own values, which stand beside it for other programs where they can say the same. */
static bool carries_files(const kvant_gguf *f) {
    return kvant_gguf_find(f, file_keys[TOKENIZER]) &&
           (kvant_gguf_find(f, file_keys[CONFIG]) || !kvant_gguf_find(f, "tokenizer.ggml.tokens"));
}

static kvant_status find_carried(const kvant_gguf *f, kvant_file_text *files, kvant_error *err) {
    for (int i = 0; i < N_FILES; i++) {
        kvant_text text;
        if (!kvant_gguf_find(f, file_keys[i])) continue;
        KVANT_TRY(kvant_gguf_string(f, file_keys[i], &text, err));
        files[i] = (kvant_file_text){text.data, text.size};
    }
    return KVANT_OK;
}

static kvant_status load_carried(const kvant_gguf *f, kvant_tokenizer **out, kvant_error *err) {
    kvant_file_text files[N_FILES] = {{0}};
    KVANT_TRY(find_carried(f, files, err));
    kvant_tokenizer_files all = name_files(f->path, files);
    return kvant_tokenizer_create_from_json(&all, out, err);
}

kvant_status kvant_vocab_put_files(const char *folder, kvant_gguf_writer *w, kvant_error *err) {
    uint8_t *texts[N_FILES] = {0};
    kvant_file_text files[N_FILES] = {{0}};
    kvant_status st = read_files(folder, texts, files, err);
    for (int i = 0; i < N_FILES; i++) {
        if (st == KVANT_OK && files[i].text) kvant_gguf_put_string(w, file_keys[i], files[i].text, files[i].size);
        kvant_free(texts[i]);
    }
    return st;
}

kvant_status kvant_vocab_write_files(const kvant_gguf *f, const char *folder, bool *carried, kvant_error *err) {
    kvant_file_text files[N_FILES] = {{0}};
    *carried = carries_files(f);
    if (!*carried) return KVANT_OK;
    KVANT_TRY(find_carried(f, files, err));
    for (int i = 0; i < N_FILES; i++) {
        char path[FOLDER_PATH_MAX];
        if (!files[i].text || i == CONFIG) continue; /* the model's config.json is written anew */
        int n = snprintf(path, sizeof path, "%s/%s", folder, file_names[i]);
        if (n < 0 || (size_t)n >= sizeof path)
            return kvant_fail(err, KVANT_EINVAL, "%.64s...: the path is longer than %d bytes", folder, FOLDER_PATH_MAX);
        KVANT_TRY(kvant_os_write_file(path, files[i].text, files[i].size, err));
    }
    return KVANT_OK;
}

kvant_status kvant_vocab_load(kvant_gguf *f, kvant_tokenizer **out, kvant_error *err) {
    if (f->path && kvant_os_is_folder(f->path)) return load_folder(f, out, err);
    if (carries_files(f)) return load_carried(f, out, err);
    arrays a = {0};
    kvant_vocab_source v = {.name = f->path};
    char *model = NULL, *pre = NULL, *name = NULL;
    kvant_status st = copy_string(f, "tokenizer.ggml.model", &model, err);
    if (st == KVANT_OK) st = copy_string(f, "tokenizer.ggml.pre", &pre, err);
    if (st == KVANT_OK) st = copy_string(f, "general.name", &name, err);
    if (st == KVANT_OK) st = fill_source(f, &a, &v, err);
    if (st == KVANT_OK) {
        v.model = model;
        v.pre = pre;
        v.model_name = name;
        st = kvant_tokenizer_create(&v, out, err);
    }
    kvant_free(model);
    kvant_free(pre);
    kvant_free(name);
    return st;
}

kvant_status kvant_vocab_chat_template(const kvant_gguf *f, kvant_text *out, kvant_error *err) {
    *out = f->chat_template;
    if (out->data) return KVANT_OK;
    return kvant_gguf_find(f, "tokenizer.chat_template") ? kvant_gguf_string(f, "tokenizer.chat_template", out, err) : KVANT_OK;
}

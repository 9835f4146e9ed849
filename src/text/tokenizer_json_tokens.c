// SPDX-License-Identifier: MIT
/* tokenizer_json_tokens.c: added tokens, and which tokens begin, end and are unknown.
 *
 * tokenizer.json lists added tokens; tokenizer_config.json may add to them and change how they are looked for; names there
 * (bos_token, ...) make tokens of the vocabulary special. */
#include <stdlib.h>

#include "text/tokenizer_json_internal.h"

static const char *const NAMES[] = {"bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"};
static const char *const LISTS[] = {"additional_special_tokens", "extra_special_tokens"};

#define COUNT(a) (sizeof(a) / sizeof *(a))

static kvant_json_added *find_added(kvant_json_reader *j, int32_t id) {
    int32_t index = j->tokens[id].added;
    return index ? &j->added[index - 1] : NULL;
}

static kvant_status add(kvant_json_reader *j, kvant_json_added x) {
    if (j->n_added == j->added_room) {
        int room = j->added_room ? j->added_room * 2 : 64;
        kvant_json_added *added = kvant_realloc(j->added, (size_t)room, sizeof *added);
        if (!added) return kvant_json_no_memory(j);
        j->added = added;
        j->added_room = room;
    }
    j->added[j->n_added++] = x;
    j->tokens[x.token.id].added = j->n_added;
    return KVANT_OK;
}

/* The fields of a token but its id. special_by_default: where the file does not say. */
static kvant_status read_fields(const kvant_json_reader *j, const json_t *x, const char *where, bool special_by_default,
                                kvant_json_added *out) {
    *out = (kvant_json_added){0};
    if (!json_is_object(x)) return kvant_json_wrong(j, where, x, "an object");
    KVANT_TRY(kvant_json_string(j, x, where, "content", &out->text, &out->size));
    if (!out->text) return kvant_json_wrong(j, where, x, "an object with a content");
    KVANT_TRY(kvant_json_flag(j, x, where, "special", special_by_default, &out->token.special));
    KVANT_TRY(kvant_json_flag(j, x, where, "lstrip", false, &out->token.left));
    KVANT_TRY(kvant_json_flag(j, x, where, "rstrip", false, &out->token.right));
    KVANT_TRY(kvant_json_flag(j, x, where, "single_word", false, &out->token.single_word));
    return kvant_json_flag(j, x, where, "normalized", !out->token.special, &out->normalized);
}

/* A token with an id: the vocabulary's own id where it has the text already. */
static kvant_status take(kvant_json_reader *j, kvant_json_added x, json_int_t id) {
    int32_t known = kvant_json_find(j, x.text, x.size);
    if (x.size == 0) return KVANT_OK; /* matches nothing */
    if (known >= 0 && known != id)
        kvant_log(KVANT_LOG_WARNING, "%s/%s: an added token has the id %lld, but the vocabulary has its text as %d, which is used",
                  j->name, j->file, (long long)id, (int)known);
    if (known < 0) {
        KVANT_TRY(kvant_json_add_token(j, x.text, x.size, id, false));
        known = (int32_t)id;
    }
    x.token.id = known;
    kvant_json_added *old = find_added(j, known);
    if (!old) return add(j, x);
    *old = x;
    return KVANT_OK;
}

static kvant_status read_list(kvant_json_reader *j) {
    const json_t *list = json_object_get(j->root, "added_tokens"), *x;
    size_t i;
    if (!list || json_is_null(list)) return KVANT_OK;
    if (!json_is_array(list)) return kvant_json_wrong(j, "added_tokens", list, "an array");
    json_array_foreach(list, i, x) {
        kvant_json_added token;
        KVANT_TRY(read_fields(j, x, "added_tokens[]", false, &token));
        const json_t *id = json_object_get(x, "id");
        if (!json_is_integer(id)) return kvant_json_wrong(j, "added_tokens[].id", id, "an integer");
        KVANT_TRY(take(j, token, json_integer_value(id)));
    }
    return KVANT_OK;
}

static kvant_status read_config_list(kvant_json_reader *j) {
    json_t *list = json_object_get(j->config, "added_tokens_decoder"), *x;
    const char *key;
    if (!list || json_is_null(list)) return KVANT_OK;
    if (!json_is_object(list)) return kvant_json_wrong(j, "added_tokens_decoder", list, "an object");
    json_object_foreach(list, key, x) {
        kvant_json_added token;
        char *end;
        long id = strtol(key, &end, 10);
        if (end == key || *end) return kvant_json_wrong(j, "added_tokens_decoder", list, "an object whose keys are token ids");
        KVANT_TRY(read_fields(j, x, "added_tokens_decoder", false, &token));
        KVANT_TRY(take(j, token, id));
    }
    return KVANT_OK;
}

/* A name that makes a token of the vocabulary special; a text that is no token is nothing. */
static kvant_status read_name(kvant_json_reader *j, const json_t *x, const char *where) {
    kvant_json_added token = {0};
    if (!x || json_is_null(x)) return KVANT_OK;
    if (json_is_object(x)) {
        KVANT_TRY(read_fields(j, x, where, true, &token));
        token.token.special = true;
    } else {
        if (!json_is_string(x)) return kvant_json_wrong(j, where, x, "a string or an object");
        token.text = json_string_value(x);
        token.size = json_string_length(x);
        token.token.special = true;
    }
    int32_t id = kvant_json_find(j, token.text, token.size);
    if (id < 0 || token.size == 0 || find_added(j, id)) return KVANT_OK;
    token.token.id = id;
    return add(j, token);
}

static kvant_status read_names(kvant_json_reader *j, const json_t *from) {
    for (size_t i = 0; i < COUNT(NAMES); i++) KVANT_TRY(read_name(j, json_object_get(from, NAMES[i]), NAMES[i]));
    for (size_t i = 0; i < COUNT(LISTS); i++) {
        const json_t *list = json_object_get(from, LISTS[i]), *x;
        size_t k;
        if (!json_is_array(list)) continue; /* newer files have an object of names here, with other uses */
        json_array_foreach(list, k, x) KVANT_TRY(read_name(j, x, LISTS[i]));
    }
    return KVANT_OK;
}

kvant_status kvant_json_read_added(kvant_json_reader *j) {
    KVANT_TRY(read_list(j));
    j->file = "tokenizer_config.json";
    KVANT_TRY(read_config_list(j));
    KVANT_TRY(read_names(j, j->config));
    j->file = "special_tokens_map.json";
    KVANT_TRY(read_names(j, j->special_map));
    j->file = "tokenizer.json";
    return KVANT_OK;
}

static kvant_status place(kvant_json_reader *j, const kvant_json_added *x, kvant_matcher *m) {
    kvant_tokenizer *t = j->t;
    t->kinds[x->token.id] = x->token.special ? KVANT_IS_CONTROL : KVANT_IS_USER_DEFINED;
    if (!x->normalized) return kvant_added_add(&j->r->raw, x->text, x->size, x->token);
    kvant_buffer text, spare;
    kvant_buffer_init(&text, KVANT_TOKENIZER_JSON_MAX);
    kvant_buffer_init(&spare, KVANT_TOKENIZER_JSON_MAX);
    kvant_status st = kvant_buffer_append(&text, x->text, x->size);
    if (st == KVANT_OK) st = kvant_steps_rewrite(&j->r->normalizer, m, true, &text, &spare);
    if (st == KVANT_OK) st = kvant_added_add(&j->r->normalized, text.data, text.size, x->token);
    bool differs = st == KVANT_OK && text.size && (text.size != x->size || memcmp(text.data, x->text, x->size) != 0);
    if (differs && !j->r->shown_as) {
        j->r->shown_as = kvant_alloc((size_t)j->n, sizeof *j->r->shown_as);
        if (!j->r->shown_as) st = KVANT_ENOMEM;
    }
    if (differs && st == KVANT_OK) /* the library shows such a token as it is looked for */
        j->r->shown_as[x->token.id] = kvant_symbols_find(&j->r->normalized.texts, text.data, text.size) + 1;
    kvant_buffer_free(&text);
    kvant_buffer_free(&spare);
    return st;
}

kvant_status kvant_json_place_added(kvant_json_reader *j) {
    kvant_matcher *m = NULL;
    kvant_status st = kvant_matcher_create(&m);
    for (int special = 1; special >= 0; special--) /* of two with one text the special one counts */
        for (int i = 0; i < j->n_added && st == KVANT_OK; i++)
            if (j->added[i].token.special == (special == 1)) st = place(j, &j->added[i], m);
    kvant_matcher_destroy(m);
    if (st == KVANT_OK) st = kvant_added_prepare(&j->r->raw);
    if (st == KVANT_OK) st = kvant_added_prepare(&j->r->normalized);
    if (st == KVANT_OK) return st;
    return kvant_fail(j->err, st, "%s/%s: an added token cannot be normalized", j->name, j->file);
}

/* ---- begin and end ---- */

/* The token that a name stands for, -1: none. */
static kvant_status named_token(const kvant_json_reader *j, const char *name, int *out) {
    const json_t *x = json_object_get(j->config, name);
    *out = -1;
    if (!x || json_is_null(x)) x = json_object_get(j->special_map, name);
    if (json_is_object(x)) x = json_object_get(x, "content");
    if (!x || json_is_null(x)) return KVANT_OK;
    if (!json_is_string(x)) return kvant_json_wrong(j, name, x, "a string or an object with a content");
    *out = kvant_json_find(j, json_string_value(x), json_string_length(x));
    return KVANT_OK;
}

static void mark_end(kvant_json_reader *j, const json_t *id, int *first) {
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= j->n) return;
    j->t->ends[json_integer_value(id)] = 1;
    if (*first < 0) *first = (int)json_integer_value(id);
}

/* A number or a list of numbers; ids beyond the vocabulary have no text and end nothing. */
static kvant_status mark_ends(kvant_json_reader *j, const json_t *from, const char *file, int *first) {
    const json_t *ids = json_object_get(from, "eos_token_id"), *x;
    size_t i;
    j->file = file;
    if (!ids || json_is_null(ids)) return KVANT_OK;
    if (!json_is_array(ids) && !json_is_integer(ids)) return kvant_json_wrong(j, "eos_token_id", ids, "a token id or an array of them");
    mark_end(j, ids, first);
    json_array_foreach(ids, i, x) {
        if (!json_is_integer(x)) return kvant_json_wrong(j, "eos_token_id[]", x, "a token id");
        mark_end(j, x, first);
    }
    return KVANT_OK;
}

/* Whether the class of the tokenizer builds its template from add_bos_token and add_eos_token, whatever tokenizer.json has. */
static bool class_makes_template(const json_t *config) {
    static const char *const classes[] = {"Llama", "CodeLlama", "Gemma", "Cohere"};
    const char *name = json_string_value(json_object_get(config, "tokenizer_class"));
    for (size_t i = 0; name && i < COUNT(classes); i++) {
        size_t n = strlen(classes[i]);
        if (strncmp(name, classes[i], n) != 0) continue;
        if (strcmp(name + n, "Tokenizer") == 0 || strcmp(name + n, "TokenizerFast") == 0) return true;
    }
    return false;
}

static kvant_status apply_add_flags(kvant_json_reader *j) {
    bool own = class_makes_template(j->config), bos, eos;
    const json_t *says_bos = json_object_get(j->config, "add_bos_token"), *says_eos = json_object_get(j->config, "add_eos_token");
    if (!own && !json_is_boolean(says_bos) && !json_is_boolean(says_eos)) return KVANT_OK;
    j->file = "tokenizer_config.json";
    KVANT_TRY(kvant_json_flag(j, j->config, "the file", "add_bos_token", own, &bos));
    KVANT_TRY(kvant_json_flag(j, j->config, "the file", "add_eos_token", false, &eos));
    kvant_tokenizer_rules *r = j->r;
    r->n_before = r->n_after = 0;
    if (bos && j->t->bos >= 0) r->before[r->n_before++] = j->t->bos;
    if (eos && j->t->eos >= 0) r->after[r->n_after++] = j->t->eos;
    return KVANT_OK;
}

kvant_status kvant_json_read_special(kvant_json_reader *j) {
    kvant_tokenizer *t = j->t;
    int first = -1;
    j->file = "tokenizer_config.json";
    KVANT_TRY(named_token(j, "bos_token", &t->bos));
    KVANT_TRY(named_token(j, "eos_token", &t->eos));
    KVANT_TRY(mark_ends(j, j->generation, "generation_config.json", &first));
    KVANT_TRY(mark_ends(j, j->model_config, "config.json", &first));
    KVANT_TRY(mark_ends(j, json_object_get(j->model_config, "text_config"), "config.json", &first));
    if (t->eos < 0) t->eos = first;
    if (t->eos >= 0) t->ends[t->eos] = 1;
    kvant_tokenizer_mark_known_ends(t);
    KVANT_TRY(apply_add_flags(j));
    t->add_bos = t->bos >= 0 && j->r->n_before > 0 && j->r->before[0] == t->bos;
    t->add_eos = t->eos >= 0 && j->r->n_after > 0 && j->r->after[j->r->n_after - 1] == t->eos;
    return KVANT_OK;
}

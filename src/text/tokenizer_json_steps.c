// SPDX-License-Identifier: MIT
/* tokenizer_json_steps.c: the normalizer and the pre_tokenizer of a tokenizer.json as lists of steps. */
#include <stdio.h>

#include "text/tokenizer_json_internal.h"

#define MAX_DEPTH 8
#define NORMALIZERS "NFC, NFD, NFKC, NFKD, Lowercase, Strip, Prepend, Replace, ByteLevel and Sequence"
#define PRE_TOKENIZERS                                                                                                            \
    "ByteLevel, Split, Digits, Punctuation, Whitespace, WhitespaceSplit, CharDelimiterSplit, Metaspace and Sequence"

/* What Unicode calls word characters. */
#define WORD KVANT_WORD_CHARACTERS "\\x{200C}\\x{200D}"
/* GPT-2's words. */
#define GPT_2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

static kvant_status new_step(const kvant_json_reader *j, kvant_steps *to, const char *where, kvant_step_kind kind, kvant_step **out) {
    if (to->n == KVANT_RULES_MAX_STEPS)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: %s has more than %d steps", j->name, j->file, where, KVANT_RULES_MAX_STEPS);
    kvant_step *s = kvant_steps_add(to);
    if (!s) return kvant_json_no_memory(j);
    s->kind = kind;
    *out = s;
    return KVANT_OK;
}

static kvant_status set_text(const kvant_json_reader *j, const char *text, size_t size, char **to, size_t *to_size) {
    *to = kvant_json_copy(text, size);
    *to_size = size;
    return *to ? KVANT_OK : kvant_json_no_memory(j);
}

/* A field that must be there. */
static kvant_status need_string(const kvant_json_reader *j, const json_t *x, const char *where, const char *key, const char **text,
                                size_t *size) {
    char field[128];
    KVANT_TRY(kvant_json_string(j, x, where, key, text, size));
    if (*text) return KVANT_OK;
    snprintf(field, sizeof field, "%s.%s", where, key);
    return kvant_json_wrong(j, field, NULL, "a string");
}

static kvant_status set_expression(const kvant_json_reader *j, const char *text, size_t size, const char *where, kvant_step *s) {
    char reason[KVANT_EXPRESSION_REASON], shown[48];
    kvant_status st = kvant_expression_create(text, size, KVANT_DIALECT_ONIGURUMA, &s->expression, reason);
    if (st == KVANT_OK) return st;
    return kvant_fail(j->err, st, "%s/%s: %s: the expression '%s' cannot be used: %s", j->name, j->file, where,
                      kvant_json_show(text, shown), reason);
}

/* {"String": ...} or {"Regex": ...}; a bare string is the former. */
static kvant_status read_pattern(const kvant_json_reader *j, const json_t *x, const char *where, kvant_step *s) {
    const json_t *pattern = json_object_get(x, "pattern");
    const char *text;
    size_t size;
    if (json_is_string(pattern)) return set_text(j, json_string_value(pattern), json_string_length(pattern), &s->find, &s->find_size);
    if (!json_is_object(pattern)) return kvant_json_wrong(j, where, pattern, "a pattern, {\"String\": ...} or {\"Regex\": ...}");
    KVANT_TRY(kvant_json_string(j, pattern, where, "Regex", &text, &size));
    if (text) return set_expression(j, text, size, where, s);
    KVANT_TRY(need_string(j, pattern, where, "String", &text, &size));
    return set_text(j, text, size, &s->find, &s->find_size);
}

/* ---- normalizers ---- */

static const struct {
    const char *name;
    kvant_step_kind kind;
} plain_normalizers[] = {{"NFC", KVANT_STEP_NFC},   {"NFD", KVANT_STEP_NFD},             {"NFKC", KVANT_STEP_NFKC},
                         {"NFKD", KVANT_STEP_NFKD}, {"Lowercase", KVANT_STEP_LOWERCASE}, {"ByteLevel", KVANT_STEP_BYTE_LETTERS}};

static const char *type_of(const json_t *x) { return json_string_value(json_object_get(x, "type")); }

static kvant_status read_normalizer(kvant_json_reader *j, const json_t *x, int depth) {
    const char *where = "normalizer", *type = type_of(x), *text;
    kvant_steps *to = &j->r->normalizer;
    kvant_step *s;
    size_t size;
    if (!type) return kvant_json_wrong(j, where, x, "an object with a type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(x, "normalizers"), *entry;
        size_t i;
        if (!json_is_array(list) || depth == MAX_DEPTH) return kvant_json_wrong(j, "normalizer.normalizers", list, "an array, not nested deeply");
        json_array_foreach(list, i, entry) KVANT_TRY(read_normalizer(j, entry, depth + 1));
        return KVANT_OK;
    }
    for (size_t i = 0; i < sizeof plain_normalizers / sizeof *plain_normalizers; i++)
        if (strcmp(type, plain_normalizers[i].name) == 0) return new_step(j, to, where, plain_normalizers[i].kind, &s);
    if (strcmp(type, "Strip") == 0) {
        KVANT_TRY(new_step(j, to, where, KVANT_STEP_STRIP, &s));
        KVANT_TRY(kvant_json_flag(j, x, where, "strip_left", true, &s->left));
        return kvant_json_flag(j, x, where, "strip_right", true, &s->right);
    }
    if (strcmp(type, "Prepend") == 0) {
        KVANT_TRY(need_string(j, x, where, "prepend", &text, &size));
        KVANT_TRY(new_step(j, to, where, KVANT_STEP_PREPEND, &s));
        return set_text(j, text, size, &s->text, &s->text_size);
    }
    if (strcmp(type, "Replace") == 0) {
        KVANT_TRY(need_string(j, x, where, "content", &text, &size));
        KVANT_TRY(new_step(j, to, where, KVANT_STEP_REPLACE, &s));
        KVANT_TRY(set_text(j, text, size, &s->text, &s->text_size));
        return read_pattern(j, x, "normalizer.pattern", s);
    }
    return kvant_json_refuse(j, where, type, NORMALIZERS);
}

/* ---- pre-tokenizers ---- */

static kvant_status add_split(kvant_json_reader *j, const char *expression, kvant_split_behavior behavior, kvant_step **out) {
    KVANT_TRY(new_step(j, &j->r->pre_tokenizer, "pre_tokenizer", KVANT_STEP_SPLIT, out));
    (*out)->behavior = behavior;
    return expression ? set_expression(j, expression, strlen(expression), "pre_tokenizer", *out) : KVANT_OK;
}

static kvant_status read_behavior(const kvant_json_reader *j, const json_t *x, kvant_split_behavior fallback, kvant_split_behavior *out) {
    static const char *const names[] = {"Isolated", "Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"};
    const json_t *name = json_object_get(x, "behavior");
    *out = fallback;
    if (!name) return KVANT_OK;
    for (int i = 0; json_is_string(name) && i < 5; i++) {
        if (strcmp(json_string_value(name), names[i]) != 0) continue;
        *out = (kvant_split_behavior)i;
        return KVANT_OK;
    }
    return kvant_json_wrong(j, "pre_tokenizer.behavior", name, "Isolated, Removed, MergedWithPrevious, MergedWithNext or Contiguous");
}

static kvant_status read_byte_level(kvant_json_reader *j, const json_t *x) {
    bool prefix, words;
    kvant_step *s;
    KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "add_prefix_space", true, &prefix));
    KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "use_regex", true, &words));
    if (prefix) {
        KVANT_TRY(new_step(j, &j->r->pre_tokenizer, "pre_tokenizer", KVANT_STEP_PREPEND_ONCE, &s));
        KVANT_TRY(set_text(j, " ", 1, &s->text, &s->text_size));
    }
    if (words) KVANT_TRY(add_split(j, GPT_2, KVANT_SPLIT_ISOLATED, &s));
    return new_step(j, &j->r->pre_tokenizer, "pre_tokenizer", KVANT_STEP_BYTE_LETTERS, &s);
}

static kvant_status read_metaspace(kvant_json_reader *j, const json_t *x) {
    kvant_steps *to = &j->r->pre_tokenizer;
    const char *mark, *scheme;
    size_t size, scheme_size;
    bool prefix, split;
    kvant_step *s;
    KVANT_TRY(need_string(j, x, "pre_tokenizer", "replacement", &mark, &size));
    KVANT_TRY(kvant_json_string(j, x, "pre_tokenizer", "prepend_scheme", &scheme, &scheme_size));
    KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "add_prefix_space", true, &prefix));
    KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "split", true, &split));
    if (!scheme) scheme = prefix ? "always" : "never";
    bool first = strcmp(scheme, "first") == 0, never = strcmp(scheme, "never") == 0;
    if (!first && !never && strcmp(scheme, "always") != 0)
        return kvant_json_wrong(j, "pre_tokenizer.prepend_scheme", json_object_get(x, "prepend_scheme"), "first, always or never");
    if (!prefix && !never) return kvant_json_wrong(j, "pre_tokenizer.prepend_scheme", json_object_get(x, "prepend_scheme"),
                                                   "never, as add_prefix_space is false");
    KVANT_TRY(new_step(j, to, "pre_tokenizer", KVANT_STEP_REPLACE, &s));
    KVANT_TRY(set_text(j, " ", 1, &s->find, &s->find_size));
    KVANT_TRY(set_text(j, mark, size, &s->text, &s->text_size));
    if (!never) {
        KVANT_TRY(new_step(j, to, "pre_tokenizer", KVANT_STEP_PREPEND_ONCE, &s));
        KVANT_TRY(set_text(j, mark, size, &s->text, &s->text_size));
        s->first_only = first;
    }
    if (!split) return KVANT_OK;
    KVANT_TRY(add_split(j, NULL, KVANT_SPLIT_MERGED_WITH_NEXT, &s));
    return set_text(j, mark, size, &s->find, &s->find_size);
}

static kvant_status read_other(kvant_json_reader *j, const json_t *x, const char *type) {
    kvant_split_behavior behavior;
    kvant_step *s;
    if (strcmp(type, "Digits") == 0) {
        bool single;
        KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "individual_digits", false, &single));
        return add_split(j, "\\p{N}", single ? KVANT_SPLIT_ISOLATED : KVANT_SPLIT_CONTIGUOUS, &s);
    }
    if (strcmp(type, "Punctuation") == 0) {
        KVANT_TRY(read_behavior(j, x, KVANT_SPLIT_ISOLATED, &behavior));
        return add_split(j, "[\\p{P}$+<=>^`|~]", behavior, &s);
    }
    if (strcmp(type, "WhitespaceSplit") == 0) return add_split(j, "\\s", KVANT_SPLIT_REMOVED, &s);
    if (strcmp(type, "Whitespace") == 0) {
        KVANT_TRY(add_split(j, "[" WORD "]+|[^" WORD "\\s]+", KVANT_SPLIT_REMOVED, &s));
        s->invert = true;
        return KVANT_OK;
    }
    if (strcmp(type, "CharDelimiterSplit") == 0) {
        const char *text;
        size_t size;
        KVANT_TRY(need_string(j, x, "pre_tokenizer", "delimiter", &text, &size));
        KVANT_TRY(add_split(j, NULL, KVANT_SPLIT_REMOVED, &s));
        return set_text(j, text, size, &s->find, &s->find_size);
    }
    return kvant_json_refuse(j, "pre_tokenizer", type, PRE_TOKENIZERS);
}

static kvant_status read_pre_tokenizer(kvant_json_reader *j, const json_t *x, int depth) {
    const char *type = type_of(x);
    kvant_step *s;
    if (!type) return kvant_json_wrong(j, "pre_tokenizer", x, "an object with a type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(x, "pretokenizers"), *entry;
        size_t i;
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return kvant_json_wrong(j, "pre_tokenizer.pretokenizers", list, "an array, not nested deeply");
        json_array_foreach(list, i, entry) KVANT_TRY(read_pre_tokenizer(j, entry, depth + 1));
        return KVANT_OK;
    }
    if (strcmp(type, "ByteLevel") == 0) return read_byte_level(j, x);
    if (strcmp(type, "Metaspace") == 0) return read_metaspace(j, x);
    if (strcmp(type, "Split") != 0) return read_other(j, x, type);
    KVANT_TRY(add_split(j, NULL, KVANT_SPLIT_ISOLATED, &s));
    KVANT_TRY(read_behavior(j, x, KVANT_SPLIT_ISOLATED, &s->behavior));
    KVANT_TRY(kvant_json_flag(j, x, "pre_tokenizer", "invert", false, &s->invert));
    return read_pattern(j, x, "pre_tokenizer.pattern", s);
}

kvant_status kvant_json_read_steps(kvant_json_reader *j) {
    const json_t *x = json_object_get(j->root, "normalizer");
    if (x && !json_is_null(x)) KVANT_TRY(read_normalizer(j, x, 0));
    x = json_object_get(j->root, "pre_tokenizer");
    return x && !json_is_null(x) ? read_pre_tokenizer(j, x, 0) : KVANT_OK;
}

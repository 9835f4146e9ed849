// SPDX-License-Identifier: MIT
/* tokenizer_json_decoder.c: the decoder and the post_processor of a tokenizer.json: how tokens become text again, and which tokens
 * stand before and after a text. */
#include <stdio.h>

#include "text/tokenizer_json_internal.h"
#include "text/utf8.h"

#define MAX_DEPTH 8
#define MAX_STRIP 65536

/* ---- decoder ---- */

typedef struct decoder_state {
    bool fused; /* what follows sees the whole text */
} decoder_state;

static kvant_status new_step(kvant_json_reader *j, kvant_decode_kind kind, kvant_decode_step **out) {
    kvant_token_decoder *d = &j->r->decoder;
    if (d->n == KVANT_RULES_MAX_STEPS)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: the decoder has more than %d steps", j->name, j->file, d->n);
    *out = &d->steps[d->n++];
    **out = (kvant_decode_step){.kind = kind};
    return KVANT_OK;
}

static kvant_status copy(const kvant_json_reader *j, const json_t *x, const char *key, char **text, size_t *size) {
    const char *from;
    char where[64];
    KVANT_TRY(kvant_json_string(j, x, "decoder", key, &from, size));
    snprintf(where, sizeof where, "decoder.%s", key);
    if (!from) return kvant_json_wrong(j, where, NULL, "a string");
    *text = kvant_json_copy(from, *size);
    return *text ? KVANT_OK : kvant_json_no_memory(j);
}

static kvant_status read_strip(kvant_json_reader *j, const json_t *x, const decoder_state *state) {
    const char *text;
    size_t size;
    int start, stop;
    KVANT_TRY(kvant_json_string(j, x, "decoder", "content", &text, &size));
    if (!text || size == 0 || size > 4 || kvant_utf8_length((uint8_t)text[0]) != size)
        return kvant_json_wrong(j, "decoder.content", json_object_get(x, "content"), "one character");
    KVANT_TRY(kvant_json_int(j, x, "decoder", "start", 0, MAX_STRIP, 0, &start));
    KVANT_TRY(kvant_json_int(j, x, "decoder", "stop", 0, MAX_STRIP, 0, &stop));
    if (!state->fused) {
        kvant_decode_step *s;
        KVANT_TRY(new_step(j, KVANT_DECODE_STRIP, &s));
        s->start = start;
        s->stop = stop;
        return copy(j, x, "content", &s->find, &s->find_size);
    }
    kvant_token_decoder *d = &j->r->decoder;
    if (stop > 0 || d->strip_start > 0)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED,
                          "%s/%s: the decoder strips the end of a text, or its beginning twice, which cannot be done in a stream", j->name,
                          j->file);
    memcpy(d->strip, text, size);
    d->strip_size = size;
    d->strip_start = start;
    return KVANT_OK;
}

static kvant_status read_metaspace(kvant_json_reader *j, const json_t *x) {
    const char *scheme;
    size_t size;
    bool prefix;
    kvant_decode_step *s;
    KVANT_TRY(new_step(j, KVANT_DECODE_METASPACE, &s));
    KVANT_TRY(copy(j, x, "replacement", &s->find, &s->find_size));
    s->text = kvant_json_copy(" ", 1);
    s->text_size = 1;
    if (!s->text) return kvant_json_no_memory(j);
    KVANT_TRY(kvant_json_string(j, x, "decoder", "prepend_scheme", &scheme, &size));
    KVANT_TRY(kvant_json_flag(j, x, "decoder", "add_prefix_space", true, &prefix));
    s->drops_at_first = prefix && (!scheme || strcmp(scheme, "never") != 0);
    return KVANT_OK;
}

static kvant_status read_replace(kvant_json_reader *j, const json_t *x) {
    const json_t *pattern = json_object_get(x, "pattern");
    kvant_decode_step *s;
    if (json_object_get(pattern, "Regex")) return kvant_json_refuse(j, "decoder.pattern", "Regex", "replacements of a string");
    if (!json_is_object(pattern)) return kvant_json_wrong(j, "decoder.pattern", pattern, "an object with a String");
    KVANT_TRY(new_step(j, KVANT_DECODE_REPLACE, &s));
    KVANT_TRY(copy(j, pattern, "String", &s->find, &s->find_size));
    return copy(j, x, "content", &s->text, &s->text_size);
}

static kvant_status read_decoder(kvant_json_reader *j, const json_t *x, int depth, decoder_state *state) {
    const char *type = json_string_value(json_object_get(x, "type"));
    kvant_decode_step *s;
    if (!type) return kvant_json_wrong(j, "decoder", x, "an object with a type");
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(x, "decoders"), *entry;
        size_t i;
        if (!json_is_array(list) || depth == MAX_DEPTH) return kvant_json_wrong(j, "decoder.decoders", list, "an array, not nested deeply");
        json_array_foreach(list, i, entry) KVANT_TRY(read_decoder(j, entry, depth + 1, state));
        return KVANT_OK;
    }
    if (strcmp(type, "Strip") == 0) return read_strip(j, x, state);
    if (strcmp(type, "Fuse") == 0) {
        state->fused = true;
        return KVANT_OK;
    }
    bool known = strcmp(type, "Replace") == 0 || strcmp(type, "ByteFallback") == 0 || strcmp(type, "Metaspace") == 0 ||
                 strcmp(type, "ByteLevel") == 0;
    if (!known) return kvant_json_refuse(j, "decoder", type, "ByteLevel, Metaspace, Replace, ByteFallback, Fuse, Strip and Sequence");
    if (state->fused) return kvant_json_refuse(j, "decoder: behind Fuse or ByteLevel", type, "Strip and Fuse");
    if (type[0] == 'R') return read_replace(j, x);
    if (type[0] == 'M') return read_metaspace(j, x);
    state->fused = strcmp(type, "ByteLevel") == 0;
    return new_step(j, state->fused ? KVANT_DECODE_BYTE_LETTERS : KVANT_DECODE_BYTE_FALLBACK, &s);
}

kvant_status kvant_json_read_decoder(kvant_json_reader *j) {
    const json_t *x = json_object_get(j->root, "decoder");
    decoder_state state = {0};
    if (x && !json_is_null(x)) return read_decoder(j, x, 0, &state);
    j->r->decoder.spaced = true;
    return KVANT_OK;
}

/* ---- post_processor ---- */

typedef struct around {
    int32_t before[KVANT_RULES_MAX_TEMPLATE], after[KVANT_RULES_MAX_TEMPLATE];
    int n_before, n_after;
    bool seen_text;
} around;

static kvant_status add_id(const kvant_json_reader *j, around *a, const json_t *id) {
    if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= j->n)
        return kvant_json_wrong(j, "post_processor: a token", id, "the id of a token");
    int *n = a->seen_text ? &a->n_after : &a->n_before;
    if (*n == KVANT_RULES_MAX_TEMPLATE)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: post_processor puts more than %d tokens around a text", j->name, j->file, *n);
    (a->seen_text ? a->after : a->before)[(*n)++] = (int32_t)json_integer_value(id);
    return KVANT_OK;
}

/* One entry of a template: the text, or special tokens by name. */
static kvant_status read_entry(const kvant_json_reader *j, const json_t *x, const json_t *special, around *a) {
    const json_t *token = json_object_get(x, "SpecialToken"), *text = json_object_get(x, "Sequence"), *id;
    size_t i;
    if (json_is_object(text)) {
        const char *which = json_string_value(json_object_get(text, "id"));
        if (!which || strcmp(which, "A") != 0 || a->seen_text)
            return kvant_json_wrong(j, "post_processor.single", text, "the text A, once");
        a->seen_text = true;
        return KVANT_OK;
    }
    const char *name = json_string_value(json_object_get(token, "id"));
    if (!name) return kvant_json_wrong(j, "post_processor.single: an entry", x, "a SpecialToken or a Sequence");
    const json_t *ids = json_object_get(json_object_get(special, name), "ids");
    if (!json_is_array(ids)) return kvant_json_wrong(j, "post_processor.special_tokens: the ids of a token", ids, "an array");
    json_array_foreach(ids, i, id) KVANT_TRY(add_id(j, a, id));
    return KVANT_OK;
}

static kvant_status read_single(const kvant_json_reader *j, const json_t *x, around *a) {
    const json_t *single = json_object_get(x, "single"), *entry;
    size_t i;
    if (!json_is_array(single)) return kvant_json_wrong(j, "post_processor.single", single, "an array");
    json_array_foreach(single, i, entry) KVANT_TRY(read_entry(j, entry, json_object_get(x, "special_tokens"), a));
    if (a->seen_text) return KVANT_OK;
    return kvant_json_wrong(j, "post_processor.single", single, "an array with the text A in it");
}

/* [text, id] pairs of BERT's and RoBERTa's. */
static kvant_status read_pair(const kvant_json_reader *j, const json_t *x, around *a) {
    KVANT_TRY(add_id(j, a, json_array_get(json_object_get(x, "cls"), 1)));
    a->seen_text = true;
    return add_id(j, a, json_array_get(json_object_get(x, "sep"), 1));
}

/* Puts these tokens around what is there already. */
static kvant_status wrap(const kvant_json_reader *j, const around *a) {
    kvant_tokenizer_rules *r = j->r;
    if (r->n_before + a->n_before > KVANT_RULES_MAX_TEMPLATE || r->n_after + a->n_after > KVANT_RULES_MAX_TEMPLATE)
        return kvant_fail(j->err, KVANT_EUNSUPPORTED, "%s/%s: post_processor puts more than %d tokens around a text", j->name, j->file,
                          KVANT_RULES_MAX_TEMPLATE);
    memmove(r->before + a->n_before, r->before, (size_t)r->n_before * sizeof *r->before);
    memcpy(r->before, a->before, (size_t)a->n_before * sizeof *a->before);
    memcpy(r->after + r->n_after, a->after, (size_t)a->n_after * sizeof *a->after);
    r->n_before += a->n_before;
    r->n_after += a->n_after;
    return KVANT_OK;
}

static kvant_status read_processor(kvant_json_reader *j, const json_t *x, int depth) {
    const char *type = json_string_value(json_object_get(x, "type"));
    around a = {0};
    if (!type) return kvant_json_wrong(j, "post_processor", x, "an object with a type");
    if (strcmp(type, "ByteLevel") == 0) return KVANT_OK; /* moves offsets only */
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(x, "processors"), *entry;
        size_t i;
        if (!json_is_array(list) || depth == MAX_DEPTH)
            return kvant_json_wrong(j, "post_processor.processors", list, "an array, not nested deeply");
        json_array_foreach(list, i, entry) KVANT_TRY(read_processor(j, entry, depth + 1));
        return KVANT_OK;
    }
    if (strcmp(type, "TemplateProcessing") == 0) KVANT_TRY(read_single(j, x, &a));
    else if (strcmp(type, "BertProcessing") == 0 || strcmp(type, "RobertaProcessing") == 0) KVANT_TRY(read_pair(j, x, &a));
    else return kvant_json_refuse(j, "post_processor", type, "TemplateProcessing, ByteLevel, BertProcessing, RobertaProcessing and Sequence");
    return wrap(j, &a);
}

kvant_status kvant_json_read_template(kvant_json_reader *j) {
    const json_t *x = json_object_get(j->root, "post_processor");
    return x && !json_is_null(x) ? read_processor(j, x, 0) : KVANT_OK;
}

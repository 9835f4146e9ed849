// SPDX-License-Identifier: MIT
/* tokenizer_json_internal.h: what the files that read a tokenizer.json share. */
#ifndef KVANT_TEXT_TOKENIZER_JSON_INTERNAL_H
#define KVANT_TEXT_TOKENIZER_JSON_INTERNAL_H

#include <jansson.h>

#include "text/tokenizer_json.h"
#include "text/tokenizer_rules.h"

/* A token of the file, by id; text is jansson's. */
typedef struct kvant_json_token {
    const char *text; /* NULL: no token has this id */
    size_t size;
    int32_t added; /* where it is in the list of added tokens, plus one; 0: it is none */
    bool in_model;
} kvant_json_token;

typedef struct kvant_json_added {
    const char *text;
    size_t size;
    bool normalized; /* looked for behind the normalizer */
    kvant_added_token token;
} kvant_json_added;

typedef struct kvant_json_reader {
    const char *name, *file; /* the folder, and the file that is being read */
    kvant_error *err;
    json_t *root, *config, *special_map, *generation, *model_config; /* config...: NULL when there is no such file */
    json_t *model, *vocab;
    kvant_tokenizer *t;
    kvant_tokenizer_rules *r;
    kvant_json_token *tokens; /* [room], of which [0 .. n) may be set */
    int n, room, n_named;
    kvant_symbols names;  /* the texts of all tokens in the order they were read */
    int32_t *name_ids;    /* [name_room] */
    int name_room;
    kvant_json_added *added;
    int n_added, added_room;
} kvant_json_reader;

/* "FILE: where is FOUND, expected EXPECTED" */
kvant_status kvant_json_wrong(const kvant_json_reader *j, const char *where, const json_t *found, const char *expected);
kvant_status kvant_json_refuse(const kvant_json_reader *j, const char *where, const char *what, const char *supported);
kvant_status kvant_json_no_memory(const kvant_json_reader *j);
/* Fields of an object; null is as good as absent. _string: *out NULL when absent. */
kvant_status kvant_json_flag(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, bool fallback,
                             bool *out);
kvant_status kvant_json_string(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, const char **out,
                               size_t *size);
kvant_status kvant_json_int(const kvant_json_reader *j, const json_t *object, const char *where, const char *key, int low, int high,
                            int fallback, int *out);
char *kvant_json_copy(const char *text, size_t size); /* NULL without memory */
/* Part of a file's text fit to stand in a sentence. */
const char *kvant_json_show(const char *text, char out[48]);

/* The id of a text, or -1. */
int32_t kvant_json_find(const kvant_json_reader *j, const char *text, size_t size);
kvant_status kvant_json_add_token(kvant_json_reader *j, const char *text, size_t size, json_int_t id, bool in_model);

kvant_status kvant_json_read_vocabulary(kvant_json_reader *j); /* tokenizer_json_model.c */
kvant_status kvant_json_read_model(kvant_json_reader *j);      /* once the tokens are in place */
kvant_status kvant_json_read_added(kvant_json_reader *j);      /* tokenizer_json_tokens.c */
kvant_status kvant_json_place_added(kvant_json_reader *j);
kvant_status kvant_json_read_special(kvant_json_reader *j);
kvant_status kvant_json_read_steps(kvant_json_reader *j);      /* tokenizer_json_steps.c: normalizer, pre_tokenizer */
kvant_status kvant_json_read_decoder(kvant_json_reader *j);    /* tokenizer_json_decoder.c */
kvant_status kvant_json_read_template(kvant_json_reader *j);   /* post_processor */

#endif

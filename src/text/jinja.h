// SPDX-License-Identifier: MIT
/* jinja.h: chat templates as models carry them: the part of the Jinja2 language that they use, with Python's ideas of values.
 *
 * A template is parsed once and rendered many times. A heap owns all values of a rendering, given and computed; they end with it.
 * Nothing of a template is trusted: steps, depth, memory and output have caps, and every breach and every construct that is not
 * known is a sentence with file and line.
 *
 * Not here: what a chat hands to its template (engine/text.c). */
#ifndef KVANT_TEXT_JINJA_H
#define KVANT_TEXT_JINJA_H

#include <stdbool.h>
#include <stdint.h>

#include "base/memory.h"
#include "base/status.h"

typedef struct kvant_template kvant_template;
typedef struct kvant_jinja_heap kvant_jinja_heap;

typedef enum kvant_jinja_kind {
    JINJA_UNDEFINED,
    JINJA_NONE,
    JINJA_BOOL,
    JINJA_INT,
    JINJA_FLOAT,
    JINJA_STRING,
    JINJA_LIST,
    JINJA_TUPLE,
    JINJA_ITERATOR, /* what a filter such as map gives: can be gone through once */
    JINJA_DICT,
    JINJA_NAMESPACE,
    JINJA_LOOP,
    JINJA_MACRO,
    JINJA_FUNCTION,
    JINJA_METHOD,
    JINJA_CYCLER,
    JINJA_JOINER,
    JINJA_MISSING /* an argument that was not given; never seen by a template */
} kvant_jinja_kind;

typedef struct kvant_jinja_value {
    kvant_jinja_kind kind;
    union {
        bool boolean;
        int64_t integer;
        double real;
        const char *hint; /* of what is undefined: its name, or NULL */
        const struct kvant_jinja_text *text;
        struct kvant_jinja_items *items;
        struct kvant_jinja_map *map;
        struct kvant_jinja_loop *loop;
        const struct kvant_jinja_macro *macro;
        const struct kvant_jinja_builtin *builtin;
        const struct kvant_jinja_method *method;
    } as;
} kvant_jinja_value;

/* A heap that holds at most max_bytes. */
kvant_status kvant_jinja_heap_create(size_t max_bytes, kvant_jinja_heap **out);
void kvant_jinja_heap_destroy(kvant_jinja_heap *h);

/* Values from outside. KVANT_EFULL: the heap's cap; KVANT_ENOMEM. Strings are UTF-8 and copied; keys of a dict keep their order.
 */
kvant_status kvant_jinja_string(kvant_jinja_heap *h, const char *bytes, size_t size, kvant_jinja_value *out);
kvant_status kvant_jinja_list(kvant_jinja_heap *h, kvant_jinja_value *out);
kvant_status kvant_jinja_list_add(kvant_jinja_heap *h, kvant_jinja_value *list, kvant_jinja_value v);
kvant_status kvant_jinja_dict(kvant_jinja_heap *h, kvant_jinja_value *out);
kvant_status kvant_jinja_dict_set(kvant_jinja_heap *h, kvant_jinja_value *dict, const char *key, kvant_jinja_value v);
int kvant_jinja_list_length(const kvant_jinja_value *list);
/* The text of list[index][key], NUL-terminated in the heap; NULL: it is no text or has a NUL, or memory is out. */
const char *kvant_jinja_member_text(kvant_jinja_heap *h, const kvant_jinja_value *list, int index, const char *key);
static inline kvant_jinja_value kvant_jinja_none(void) { return (kvant_jinja_value){.kind = JINJA_NONE}; }
static inline kvant_jinja_value kvant_jinja_bool(bool b) { return (kvant_jinja_value){.kind = JINJA_BOOL, .as.boolean = b}; }
/* A JSON text as a value; `name` begins the sentence. KVANT_EINVAL: not JSON. */
kvant_status kvant_jinja_from_json(kvant_jinja_heap *h, const char *name, const char *text, size_t size, kvant_jinja_value *out,
                                   kvant_error *err);

/* Local time, as strftime_now tells it. */
typedef struct kvant_jinja_time {
    int year, month, day, hour, minute, second; /* month and day from 1 */
} kvant_jinja_time;

typedef struct kvant_template_options {
    kvant_jinja_time now;
    uint64_t max_steps; /* expressions and statements; work on long values counts as more */
    size_t max_output;  /* bytes */
} kvant_template_options;
void kvant_template_options_default(kvant_template_options *o); /* the first second of 2000 */

/* `name` begins every sentence; it and the text are copied. KVANT_EFORMAT: not well-formed; KVANT_EUNSUPPORTED: a construct that
 * Kvant does not know. */
kvant_status kvant_template_parse(const char *name, const char *text, size_t size, kvant_template **out, kvant_error *err);
void kvant_template_destroy(kvant_template *t);
/* Appends what the template writes. globals: a dict in h; the template may change what is in it. KVANT_EINVAL: the template
 * refuses (raise_exception), in its own words; KVANT_EFORMAT: it failed; KVANT_EUNSUPPORTED: a filter, test or method that Kvant
 * does not know; KVANT_EFULL: a cap. Nothing is appended then. */
kvant_status kvant_template_render(const kvant_template *t, kvant_jinja_heap *h, const kvant_jinja_value *globals,
                                   const kvant_template_options *options, kvant_buffer *out, kvant_error *err);

#endif

// SPDX-License-Identifier: MIT
/* cmd_inspect.c: kvant inspect MODEL: what is in a model file, and what its cache would take.
 *
 * Nothing from the file reaches the terminal as a control character, and the JSON is valid whatever the file holds: the
 * library hands out valid UTF-8, this file escapes. A file that Kvant cannot run is shown all the same, with the reason. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "commands.h"
#include "json_output.h"
#include "kvant/engine.h"
#include "options.h"
#include "report.h"

#define KEY_SIZE 256
#define TYPE_SIZE 48
#define VALUE_SIZE (1 << 20) /* of JSON: the longest chat templates are some ten thousand bytes */
#define LINE_WIDTH 96        /* of a value on the terminal */
#define MAX_TYPES 64

static const int64_t depths[] = {4096, 32768, 131072};
static const char *const depth_names[] = {"4k tokens", "32k tokens", "128k tokens"};
static const int all_bits[] = {8, 6, 5, 4, 3, 2};
/* Formats for comparison: several names are tried in turn, for the head's size. */
static const char *const others[][3] = {{"f16"}, {"affine4:64", "affine4:32", "affine4:128"}, {"q8_0"}, {"q4_0"}};
#define N_DEPTHS 3
#define N_BITS (int)(sizeof all_bits / sizeof *all_bits)
#define N_OTHERS (int)(sizeof others / sizeof *others)
#define MAX_ROWS (KVANT_PRESETS + sizeof all_bits / sizeof *all_bits + sizeof others / sizeof *others)

typedef struct type_total {
    char name[16];
    int n;
    double bytes;
} type_total;

typedef struct cache_row {
    char choice[48];                     /* the flag */
    char format[2 * KVANT_FORMAT_NAME_MAX]; /* what it is */
    int bits;                            /* of --kv-bits, else 0 */
    double bits_total;
    size_t bytes[N_DEPTHS];
} cache_row;

/* What both kinds of output show. */
typedef struct inspection {
    kvant_file *file;
    kvant_model_info info; /* when runs */
    bool runs;
    kvant_error why; /* when not */
    int n_types;
    type_total types[MAX_TYPES];
    double tensor_bytes;
    int n_rows;
    cache_row rows[MAX_ROWS];
} inspection;

/* ---- gathering ---- */

static void count_types(inspection *x) {
    for (int i = 0; i < kvant_file_n_tensors(x->file); i++) {
        kvant_file_tensor t;
        if (kvant_file_tensor_at(x->file, i, &t) != KVANT_OK) continue;
        int k = 0;
        while (k < x->n_types && strcmp(x->types[k].name, t.type) != 0)
            k++;
        if (k == MAX_TYPES) k = MAX_TYPES - 1; /* types that nobody knows, by the dozen */
        if (k == x->n_types) {
            memcpy(x->types[k].name, t.type, sizeof t.type);
            if (k == MAX_TYPES - 1) strcpy(x->types[k].name, "other types");
            x->n_types++;
        }
        x->types[k].n++;
        x->types[k].bytes += (double)t.bytes;
        x->tensor_bytes += (double)t.bytes;
    }
}

/* A row for a format or pair, unless the head's size does not allow it. */
static bool add_cache_row(inspection *x, const char *flag, const char *value, const char *format, int bits) {
    cache_row *row = &x->rows[x->n_rows];
    kvant_format k, v;
    *row = (cache_row){.bits = bits};
    if (kvant_format_parse_pair(format, &k, &v, NULL) != KVANT_OK) return false;
    for (int d = 0; d < N_DEPTHS; d++)
        if (kvant_file_cache_bytes(x->file, format, depths[d], &row->bytes[d], NULL) != KVANT_OK) return false;
    snprintf(row->choice, sizeof row->choice, "%s %s", flag, value);
    snprintf(row->format, sizeof row->format, "%s", format);
    row->bits_total = (kvant_format_bits(&k, x->info.head_dim) + kvant_format_bits(&v, x->info.head_dim)) / 2;
    x->n_rows++;
    return true;
}

/* Presets, then bits, then formats that they compare with. */
static void fill_cache_rows(inspection *x) {
    for (int i = 0; i < KVANT_PRESETS; i++)
        add_cache_row(x, "--kv-preset", kvant_preset_at(i)->name, kvant_preset_at(i)->pair, 0);
    for (int i = 0; i < N_BITS; i++) {
        char k_name[KVANT_FORMAT_NAME_MAX], v_name[KVANT_FORMAT_NAME_MAX], format[2 * KVANT_FORMAT_NAME_MAX], bits[16];
        kvant_format k, v;
        if (kvant_format_for_bits(all_bits[i], x->info.head_dim, &k, &v) != KVANT_OK) continue;
        kvant_format_name(&k, k_name);
        kvant_format_name(&v, v_name);
        snprintf(format, sizeof format, strcmp(k_name, v_name) == 0 ? "%s" : "%s/%s", k_name, v_name);
        snprintf(bits, sizeof bits, "%d", all_bits[i]);
        add_cache_row(x, "--kv-bits", bits, format, all_bits[i]);
    }
    for (int i = 0; i < N_OTHERS; i++)
        for (int k = 0; k < 3 && others[i][k]; k++)
            if (add_cache_row(x, "--kv", others[i][k], others[i][k], 0)) break;
}

/* ---- text ---- */

/* Prints UTF-8 on one line: control characters and those that reorder text as escapes, cut at width characters. */
static void print_escaped(const char *s, int width) {
    const unsigned char *p = (const unsigned char *)s;
    for (int column = 0; *p; column++) {
        if (column >= width) {
            printf("...");
            return;
        }
        size_t n = *p < 0x80 ? 1 : *p < 0xE0 ? 2 : *p < 0xF0 ? 3 : 4;
        if (n > strlen((const char *)p)) n = 1; /* not from the library, whose UTF-8 is whole */
        uint32_t c = n == 1 ? *p : *p & (0xFFu >> (n + 1));
        for (size_t i = 1; i < n; i++)
            c = c << 6 | (p[i] & 0x3Fu);
        bool reorders = c == 0x200E || c == 0x200F || (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069);
        if (c == '\n')
            printf("\\n");
        else if (c == '\t')
            printf("\\t");
        else if (c < 0x20 || (c >= 0x7F && c < 0xA0))
            printf("\\x%02x", (unsigned)c);
        else if (reorders)
            printf("\\u%04x", (unsigned)c);
        else
            fwrite(p, 1, n, stdout);
        p += n;
    }
}

static void print_summary(const inspection *x, const char *path) {
    char bytes[32];
    print_escaped(path, 1000);
    if (x->runs) {
        const kvant_model_info *m = &x->info;
        printf(": ");
        print_escaped(m->name, 200);
        printf("\nkit %s, architecture ", m->kit);
        print_escaped(m->architecture, 64);
        printf(", %.1f M parameters", (double)m->n_parameters / 1e6);
        printf(", %s\n", format_bytes((double)m->file_bytes, bytes, sizeof bytes));
        printf("%d layers, %d heads and %d KV heads of %d, embedding %d, vocabulary %d, context %" PRId64 "\n", m->n_layer,
               m->n_head, m->n_kv_head, m->head_dim, m->n_embd, m->n_vocab, m->n_context_train);
    } else {
        printf("\nKvant cannot run this file: ");
        print_escaped(x->why.message, 1000);
        printf("\n");
    }
}

/* Spaces from the end of s to the column `width`; only a matter of looks where s is not ASCII. */
static void print_padded(const char *s, int width) {
    print_escaped(s, KEY_SIZE);
    printf("%*s", (int)strlen(s) < width ? width - (int)strlen(s) : 0, "");
}

static void print_metadata(const inspection *x, char *value) {
    int n = kvant_file_n_metadata(x->file), width = 0;
    char key[KEY_SIZE], type[TYPE_SIZE];
    for (int i = 0; i < n; i++) {
        if (kvant_file_metadata(x->file, i, key, sizeof key, type, sizeof type, value, LINE_WIDTH) != KVANT_OK) continue;
        int length = (int)strlen(key);
        if (length > width && length <= 48) width = length;
    }
    printf("\n%d metadata entries\n", n);
    for (int i = 0; i < n; i++) {
        if (kvant_file_metadata(x->file, i, key, sizeof key, type, sizeof type, value, LINE_WIDTH) != KVANT_OK) continue;
        printf("  ");
        print_padded(key, width + 2);
        print_padded(type, 16);
        printf(" ");
        print_escaped(value, LINE_WIDTH);
        printf("\n");
    }
}

static void print_tensors(const inspection *x, bool each) {
    char bytes[32];
    int n = kvant_file_n_tensors(x->file);
    printf("\n%d tensors, %s\n", n, format_bytes(x->tensor_bytes, bytes, sizeof bytes));
    table *t = table_create(3);
    if (t && x->n_types > 0) {
        table_cell(t, "type");
        table_cell(t, "tensors");
        table_cell(t, "bytes");
        for (int i = 0; i < x->n_types; i++) {
            table_cell(t, "%s", x->types[i].name);
            table_cell(t, "%d", x->types[i].n);
            table_cell(t, "%s", format_bytes(x->types[i].bytes, bytes, sizeof bytes));
        }
        table_print(t, stdout);
    }
    table_destroy(t);
    if (!each) return;
    printf("\n");
    for (int i = 0; i < n; i++) {
        kvant_file_tensor f;
        if (kvant_file_tensor_at(x->file, i, &f) != KVANT_OK) continue;
        printf("  ");
        print_escaped(f.name, 128);
        printf("  %s  %" PRId64, f.type, f.dims[0]);
        for (int d = 1; d < f.n_dims; d++)
            printf(" x %" PRId64, f.dims[d]);
        printf("  %zu bytes\n", f.bytes);
    }
}

static void print_cache(const inspection *x) {
    char bytes[32];
    printf("\ncache of one sequence\n");
    table *t = table_create(3 + N_DEPTHS);
    if (!t) return;
    table_cell(t, "choice");
    table_cell(t, "format");
    table_cell(t, "bits/value");
    for (int d = 0; d < N_DEPTHS; d++)
        table_cell(t, "%s", depth_names[d]);
    for (int i = 0; i < x->n_rows; i++) {
        const cache_row *r = &x->rows[i];
        table_cell(t, "%s", r->choice);
        table_cell(t, "%s", r->format);
        table_cell(t, "%.2f", r->bits_total);
        for (int d = 0; d < N_DEPTHS; d++)
            table_cell(t, "%s", format_bytes((double)r->bytes[d], bytes, sizeof bytes));
    }
    table_print(t, stdout);
    table_destroy(t);
    if (x->n_rows < (int)MAX_ROWS) printf("the other formats of Kvant cannot store heads of %d elements\n", x->info.head_dim);
    printf("--kv-budget 300M -c N chooses formats by layer that fit\n");
}

/* ---- JSON ---- */

/* A value as the library writes it: numbers and bools become JSON's, arrays are JSON already (with the rest cut). */
static json_t *json_value(const char *type, const char *value) {
    if (strcmp(type, "string") == 0) return json_text(value);
    if (strchr(type, '[')) {
        json_t *array = json_loads(value, JSON_DISABLE_EOF_CHECK, NULL);
        return array ? array : json_text(value);
    }
    if (strcmp(type, "bool") == 0) return json_boolean(strcmp(value, "true") == 0);
    json_t *number = json_loads(value, JSON_DECODE_ANY, NULL);
    if (json_is_number(number)) return number;
    json_decref(number);
    return json_text(value); /* nan, inf, or beyond 63 bits */
}

static json_t *json_metadata(const inspection *x, char *value) {
    json_t *all = json_object();
    for (int i = 0; i < kvant_file_n_metadata(x->file); i++) {
        char key[KEY_SIZE + 32], type[TYPE_SIZE];
        if (kvant_file_metadata(x->file, i, key, KEY_SIZE, type, sizeof type, value, VALUE_SIZE) != KVANT_OK) continue;
        /* keys that differ only in bytes that are not UTF-8, or behind the cut */
        if (json_object_get(all, key)) snprintf(key + strlen(key), 32, " (entry %d)", i);
        json_t *entry = json_object();
        char *bracket = strchr(type, '[');
        json_object_set_new(entry, "type", json_text(type));
        if (bracket) json_object_set_new(entry, "length", json_integer(strtoll(bracket + 1, NULL, 10)));
        json_object_set_new(entry, "value", json_value(type, value));
        json_object_set_new(all, key, entry);
    }
    return all;
}

static json_t *json_tensors(const inspection *x, bool each) {
    json_t *tensors = json_object(), *types = json_array();
    json_object_set_new(tensors, "count", json_integer(kvant_file_n_tensors(x->file)));
    json_object_set_new(tensors, "bytes", json_integer((json_int_t)x->tensor_bytes));
    for (int i = 0; i < x->n_types; i++) {
        json_t *t = json_object();
        json_object_set_new(t, "type", json_text(x->types[i].name));
        json_object_set_new(t, "count", json_integer(x->types[i].n));
        json_object_set_new(t, "bytes", json_integer((json_int_t)x->types[i].bytes));
        json_array_append_new(types, t);
    }
    json_object_set_new(tensors, "by_type", types);
    if (!each) return tensors;
    json_t *list = json_array();
    for (int i = 0; i < kvant_file_n_tensors(x->file); i++) {
        kvant_file_tensor f;
        if (kvant_file_tensor_at(x->file, i, &f) != KVANT_OK) continue;
        json_t *t = json_object(), *shape = json_array();
        json_object_set_new(t, "name", json_text(f.name));
        json_object_set_new(t, "type", json_text(f.type));
        for (int d = 0; d < f.n_dims; d++)
            json_array_append_new(shape, json_integer(f.dims[d]));
        json_object_set_new(t, "shape", shape);
        json_object_set_new(t, "bytes", json_integer((json_int_t)f.bytes));
        json_array_append_new(list, t);
    }
    json_object_set_new(tensors, "list", list);
    return tensors;
}

static json_t *json_model(const kvant_model_info *m) {
    json_t *j = json_object();
    json_object_set_new(j, "name", json_text(m->name));
    json_object_set_new(j, "architecture", json_text(m->architecture));
    json_object_set_new(j, "n_layer", json_integer(m->n_layer));
    json_object_set_new(j, "n_head", json_integer(m->n_head));
    json_object_set_new(j, "n_kv_head", json_integer(m->n_kv_head));
    json_object_set_new(j, "head_dim", json_integer(m->head_dim));
    json_object_set_new(j, "n_embd", json_integer(m->n_embd));
    json_object_set_new(j, "n_vocab", json_integer(m->n_vocab));
    json_object_set_new(j, "n_context_train", json_integer(m->n_context_train));
    json_object_set_new(j, "n_parameters", json_integer(m->n_parameters));
    json_object_set_new(j, "file_bytes", json_integer((json_int_t)m->file_bytes));
    return j;
}

static json_t *json_cache(const inspection *x) {
    json_t *rows = json_array();
    for (int i = 0; i < x->n_rows; i++) {
        const cache_row *r = &x->rows[i];
        json_t *row = json_object(), *bytes = json_object();
        json_object_set_new(row, "choice", json_text(r->choice));
        json_object_set_new(row, "kv_bits", r->bits ? json_integer(r->bits) : json_null());
        json_object_set_new(row, "format", json_text(r->format));
        json_object_set_new(row, "bits_per_value", json_real(r->bits_total));
        for (int d = 0; d < N_DEPTHS; d++) {
            char name[24];
            snprintf(name, sizeof name, "%" PRId64, depths[d]);
            json_object_set_new(bytes, name, json_integer((json_int_t)r->bytes[d]));
        }
        json_object_set_new(row, "bytes", bytes);
        json_array_append_new(rows, row);
    }
    return rows;
}

static int print_json(const inspection *x, const char *path, bool each, char *value) {
    json_t *j = json_object();
    json_object_set_new(j, "path", json_text(path));
    json_object_set_new(j, "runs", json_boolean(x->runs));
    json_object_set_new(j, "kit", x->runs ? json_text(x->info.kit) : json_null());
    if (!x->runs) json_object_set_new(j, "reason", json_text(x->why.message));
    json_object_set_new(j, "model", x->runs ? json_model(&x->info) : json_null());
    json_object_set_new(j, "metadata", json_metadata(x, value));
    json_object_set_new(j, "tensors", json_tensors(x, each));
    json_object_set_new(j, "cache", x->runs ? json_cache(x) : json_null());
    return json_print(j, JSON_INDENT(2) | JSON_REAL_PRECISION(15));
}

static int print_text(const inspection *x, const char *path, bool each, char *value) {
    print_summary(x, path);
    print_metadata(x, value);
    print_tensors(x, each);
    if (x->runs) print_cache(x);
    return 0;
}

static int inspect(const char *path, bool json, bool each) {
    static inspection x;
    kvant_error err;
    char *value = malloc(VALUE_SIZE);
    if (!value) return fail_with(1, "no memory for %d bytes", VALUE_SIZE);
    if (kvant_file_open(path, &x.file, &err) != KVANT_OK) {
        free(value);
        return fail_with(1, "%s", err.message);
    }
    x.runs = kvant_file_model_info(x.file, &x.info, &x.why) == KVANT_OK;
    count_types(&x);
    if (x.runs) fill_cache_rows(&x);
    int rc = json ? print_json(&x, path, each, value) : print_text(&x, path, each, value);
    kvant_file_close(x.file);
    free(value);
    if (fflush(stdout) != 0 || ferror(stdout)) return fail_with(1, "the output could not be written");
    return rc;
}

int cmd_inspect(int argc, char **argv) {
    bool json = false, each = false;
    const char *model = NULL, *rest[1];
    int n_rest = 0;
    const option flags[] = {
        {"--model", "-m", OPTION_STRING, &model, 0, 0, "FILE", "the model file, instead of the free argument"},
        {"--json", NULL, OPTION_FLAG, &json, 0, 0, NULL, "JSON on stdout"},
        {"--tensors", NULL, OPTION_FLAG, &each, 0, 0, NULL, "list every tensor"},
    };
    int rc = options_parse(
        "kvant inspect MODEL [--json] [--tensors]",
        "Shows what is in a model file: metadata, tensors by type, what kind of model it is, and the bytes its cache takes.",
        flags, (int)(sizeof flags / sizeof *flags), argc, argv, rest, 1, &n_rest);
    if (rc != 0) return rc < 0 ? 0 : rc;
    if (n_rest == 1 && !model)
        model = rest[0];
    else if (n_rest == 1)
        return fail_with(2, "inspect takes one model, found %s and %s", model, rest[0]);
    if (!model) return fail_with(2, "inspect needs a model file");
    return inspect(model, json, each);
}

// SPDX-License-Identifier: MIT
/* model_file.c: what is in a model file, without reading its weights: for people (kvant inspect) and for the check of the
 * model kit that comes before loading.
 *
 * Text from the file leaves this code as valid UTF-8 without NULs, whatever the file holds; what a terminal must not see
 * (control characters) is the business of who prints. Arrays are written as JSON, so that a program can read them too. */
#include "engine/model_file.h"

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/memory.h"
#include "file/folder.h"
#include "kvant/engine.h"
#include "model/arch_traits.h"
#include "model/decoder.h"
#include "vision/pixtral_tower.h"

#define MAX_SHOWN 64 /* elements of an array */

struct kvant_file {
    kvant_gguf *gguf;
    char name[256], architecture[64];
    size_t tensor_bytes;
    int64_t n_elements;
    int *layer_window; /* [n_layer], NULL when the file describes no model that runs */
};

/* ---- text in a caller's buffer ---- */

typedef struct writer {
    char *out;
    size_t size, at; /* at < size; out[at] is NUL */
    bool full;
} writer;

static writer writer_begin(char *out, size_t size) {
    if (size > 0) out[0] = '\0';
    return (writer){out, size, 0, size == 0};
}

/* All of it or nothing, and then nothing any more. */
static void write_bytes(writer *w, const char *p, size_t n) {
    if (w->full || n >= w->size - w->at) {
        w->full = true;
        return;
    }
    memcpy(w->out + w->at, p, n);
    w->at += n;
    w->out[w->at] = '\0';
}

static void write_format(writer *w, const char *fmt, ...) KVANT_PRINTF(2, 3);
static void write_format(writer *w, const char *fmt, ...) {
    char text[128];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (n > 0) write_bytes(w, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

/* The bytes of the UTF-8 character at p (n bytes are there), or 0: overlong, surrogate, too large, cut or stray. */
static size_t utf8_length(const unsigned char *p, size_t n) {
    if (p[0] < 0x80) return p[0] ? 1 : 0;
    size_t length = p[0] >= 0xC2 && p[0] < 0xE0 ? 2 : p[0] >= 0xE0 && p[0] < 0xF0 ? 3 : p[0] >= 0xF0 && p[0] < 0xF5 ? 4 : 0;
    if (length == 0 || length > n) return 0;
    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80) return 0;
    if ((p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0)) return 0;
    if ((p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] >= 0x90)) return 0;
    return length;
}

/* A text with every byte that is not UTF-8 replaced by U+FFFD; in_json: as the inside of a JSON string. */
static void write_text(writer *w, kvant_text t, bool in_json) {
    const unsigned char *p = (const unsigned char *)t.data;
    for (size_t i = 0; i < t.size && !w->full;) {
        size_t n = utf8_length(p + i, t.size - i);
        if (n == 0) {
            write_bytes(w, "\xEF\xBF\xBD", 3);
            i++;
            continue;
        }
        if (in_json && p[i] < 0x20)
            write_format(w, "\\u%04x", p[i]);
        else if (in_json && (p[i] == '"' || p[i] == '\\'))
            write_format(w, "\\%c", p[i]);
        else
            write_bytes(w, t.data + i, n);
        i += n;
    }
}

/* A string value: whole, or cut and ended by its length. */
static void write_string(writer *w, kvant_text t) {
    writer whole = *w;
    write_text(&whole, t, false);
    if (!whole.full) {
        *w = whole;
        return;
    }
    char tail[48];
    int n = snprintf(tail, sizeof tail, "... (%zu bytes)", t.size);
    size_t size = w->size;
    if (size - w->at > (size_t)n + 1) {
        w->size -= (size_t)n;
        write_text(w, t, false);
        w->size = size;
        w->full = false;
        write_bytes(w, tail, (size_t)n);
    } else {
        write_text(w, t, false);
    }
}

/* The shortest decimal that reads back as the same float (or double). */
static void write_real(writer *w, double d, bool single) {
    char text[40];
    for (int digits = single ? 6 : 15; digits <= (single ? 9 : 17); digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        double back = strtod(text, NULL);
        if (single ? (float)back == (float)d : back == d) break;
    }
    write_bytes(w, text, strlen(text));
}

static bool is_real(kvant_gguf_type type) { return type == KVANT_GGUF_F32 || type == KVANT_GGUF_F64; }

static const char *not_finite(double x) { return isnan(x) ? "nan" : x > 0 ? "inf" : "-inf"; }

/* One element of an array, as JSON (a number that JSON lacks stands in quotes). */
static void write_element(writer *w, const kvant_gguf_value *v, uint64_t i) {
    kvant_gguf_type type = v->element_type;
    if (type == KVANT_GGUF_STRING) {
        write_bytes(w, "\"", 1);
        write_text(w, kvant_gguf_array_string(v, i), true);
        write_bytes(w, "\"", 1);
    } else if (is_real(type)) {
        double x = kvant_gguf_array_f64(v, i);
        if (isfinite(x))
            write_real(w, x, type == KVANT_GGUF_F32);
        else
            write_format(w, "\"%s\"", not_finite(x));
    } else if (type == KVANT_GGUF_BOOL) {
        write_format(w, "%s", kvant_gguf_array_int(v, i) ? "true" : "false");
    } else if (type == KVANT_GGUF_U64) {
        write_format(w, "%" PRIu64, kvant_read_u64(v->data + 8 * i));
    } else {
        write_format(w, "%" PRId64, kvant_gguf_array_int(v, i));
    }
}

/* "[1, 2, 3]", or as many as fit and are worth showing, then " and N more". */
static void write_array(writer *w, const kvant_gguf_value *v) {
    const size_t tail = 40;
    uint64_t shown = 0;
    write_bytes(w, "[", 1);
    while (shown < v->n_elements && shown < MAX_SHOWN) {
        writer next = *w;
        if (next.size - next.at > tail) next.size -= tail;
        if (shown > 0) write_bytes(&next, ", ", 2);
        write_element(&next, v, shown);
        if (next.full) break;
        w->at = next.at;
        shown++;
    }
    if (!w->full && w->at < w->size) w->out[w->at] = '\0';
    write_bytes(w, "]", 1);
    if (shown < v->n_elements) write_format(w, " and %" PRIu64 " more", v->n_elements - shown);
}

/* A scalar is an array of one element to the functions that read elements. */
static void write_value(writer *w, const kvant_gguf_value *v) {
    kvant_gguf_value one = {.type = KVANT_GGUF_ARRAY, .element_type = v->type, .n_elements = 1, .data = v->data};
    uint32_t zero = 0;
    if (v->type == KVANT_GGUF_ARRAY) {
        write_array(w, v);
    } else if (v->type == KVANT_GGUF_STRING) {
        one.string_offsets = &zero;
        write_string(w, kvant_gguf_array_string(&one, 0));
    } else if (is_real(v->type) && !isfinite(kvant_gguf_array_f64(&one, 0))) {
        write_format(w, "%s", not_finite(kvant_gguf_array_f64(&one, 0)));
    } else {
        write_element(w, &one, 0);
    }
}

/* ---- the model kit ---- */

/* Architectures whose decoder cannot work without images or another modality, as llama.cpp and Ollama name them. */
static const struct {
    const char *name, *what;
} other_kits[] = {
    {"clip", "a vision or audio projector, which goes beside a language model (--mmproj)"},
    {"mmproj", "a vision or audio projector, which goes beside a language model (--mmproj)"},
    {"mllama", "a vision model whose decoder attends to image features by cross-attention"},
    {"qwen2vl", "a vision model whose decoder places image tokens by three coordinates"},
    {"qwen25vl", "a vision model whose decoder places image tokens by three coordinates"},
    {"qwen3vl", "a vision model whose decoder adds image features inside its layers"},
    {"qwen3vlmoe", "a vision model whose decoder adds image features inside its layers"},
    {"cogvlm", "a vision model whose decoder has separate weights for image tokens"},
    {"chameleon", "a model of mixed text and image tokens"},
    {"paddleocr", "a vision model whose decoder places image tokens by three coordinates"},
    {"deepseek2-ocr", "a vision model for reading documents"},
    {"hunyuan_vl", "a vision model whose decoder places image tokens by several coordinates"},
};

static void copy_text(char *out, size_t size, const kvant_gguf *f, const char *key, const char *fallback) {
    kvant_text t;
    writer w = writer_begin(out, size);
    if (kvant_gguf_string(f, key, &t, NULL) == KVANT_OK)
        write_text(&w, t, false);
    else
        write_bytes(&w, fallback, strlen(fallback));
}

/* For sentences: control characters do not belong into them. */
static void make_printable(char *s) {
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7F) *s = '?';
}

kvant_status kvant_model_file_check_kit(const kvant_gguf *f, kvant_error *err) {
    char architecture[64], type[32];
    copy_text(architecture, sizeof architecture, f, "general.architecture", "");
    copy_text(type, sizeof type, f, "general.type", "model");
    make_printable(architecture);
    make_printable(type);
    for (size_t i = 0; i < sizeof other_kits / sizeof *other_kits; i++) {
        if (strcmp(architecture, other_kits[i].name) != 0) continue;
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: architecture %s is %s; Kvant runs text models of the architectures %s",
                          f->path, architecture, other_kits[i].what, kvant_decoder_architectures());
    }
    if (strcmp(type, "model") != 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: general.type is %s (architecture %s), expected model; Kvant runs text models of the "
                          "architectures %s",
                          f->path, type, architecture[0] ? architecture : "unknown", kvant_decoder_architectures());
    return KVANT_OK;
}

/* ---- the public functions ---- */

kvant_status kvant_file_open(const char *path, kvant_file **out, kvant_error *err) {
    if (!path || !out) return kvant_fail(err, KVANT_EINVAL, "kvant_file_open: path and out must not be NULL");
    kvant_file *f = kvant_alloc(1, sizeof *f);
    if (!f) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to open it", path);
    kvant_status st = kvant_model_file_open(path, &f->gguf, err);
    if (st != KVANT_OK) {
        kvant_free(f);
        return st;
    }
    const char *base = strrchr(path, '/');
    copy_text(f->name, sizeof f->name, f->gguf, "general.name", base ? base + 1 : path);
    copy_text(f->architecture, sizeof f->architecture, f->gguf, "general.architecture", "");
    for (int i = 0; i < f->gguf->n_tensors; i++) {
        const kvant_gguf_tensor *t = &f->gguf->tensors[i];
        int64_t n = 1; /* fits: checked when the file was opened */
        for (int d = 0; d < KVANT_GGUF_MAX_DIMS; d++)
            n *= t->dims[d];
        f->tensor_bytes += t->bytes;
        f->n_elements = n > INT64_MAX - f->n_elements ? INT64_MAX : f->n_elements + n;
    }
    /* A file that describes no model that runs has no windows; why is said when the model is asked for. */
    if (kvant_decoder_peek_windows(f->gguf, &f->layer_window, NULL) == KVANT_ENOMEM) {
        kvant_file_close(f);
        return kvant_fail(err, KVANT_ENOMEM, "%s: no memory to describe it", path);
    }
    *out = f;
    return KVANT_OK;
}

void kvant_file_close(kvant_file *f) {
    if (!f) return;
    kvant_free(f->layer_window);
    kvant_gguf_close(f->gguf);
    kvant_free(f);
}

int kvant_file_n_metadata(const kvant_file *f) { return f->gguf->n_values; }

kvant_status kvant_file_metadata(const kvant_file *f, int index, char *key, size_t key_size, char *type, size_t type_size,
                                 char *value, size_t value_size) {
    if (index < 0 || index >= f->gguf->n_values) return KVANT_EINVAL;
    const kvant_gguf_value *v = &f->gguf->values[index];
    writer w = writer_begin(key, key_size);
    write_string(&w, v->key);
    w = writer_begin(type, type_size);
    if (v->type == KVANT_GGUF_ARRAY)
        write_format(&w, "%s[%" PRIu64 "]", kvant_gguf_value_type_name(v->element_type), v->n_elements);
    else
        write_format(&w, "%s", kvant_gguf_value_type_name(v->type));
    w = writer_begin(value, value_size);
    write_value(&w, v);
    return KVANT_OK;
}

int kvant_file_n_tensors(const kvant_file *f) { return f->gguf->n_tensors; }

kvant_status kvant_file_tensor_at(const kvant_file *f, int index, kvant_file_tensor *out) {
    if (index < 0 || index >= f->gguf->n_tensors) return KVANT_EINVAL;
    const kvant_gguf_tensor *t = &f->gguf->tensors[index];
    kvant_file_tensor tensor = {.n_dims = t->n_dims, .bytes = t->bytes};
    writer w = writer_begin(tensor.name, sizeof tensor.name);
    write_string(&w, t->name);
    const char *type = kvant_gguf_tensor_type_name(t->type);
    if (type)
        snprintf(tensor.type, sizeof tensor.type, "%s", type);
    else
        snprintf(tensor.type, sizeof tensor.type, "type %" PRIu32, t->type);
    memcpy(tensor.dims, t->dims, sizeof tensor.dims);
    *out = tensor;
    return KVANT_OK;
}

kvant_status kvant_file_model_info(const kvant_file *f, kvant_model_info *out, kvant_error *err) {
    kvant_decoder_info d;
    const kvant_arch_traits *traits;
    KVANT_TRY(kvant_model_file_check_kit(f->gguf, err));
    KVANT_TRY(kvant_arch_of_file(f->gguf, &traits, err));
    if (f->gguf->n_tensors == 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: holds a vocabulary and no weights: only kvant tokenize and detokenize work with it",
                          f->gguf->path);
    KVANT_TRY(kvant_decoder_peek(f->gguf, &d, err));
    *out = (kvant_model_info){
        .name = f->name,
        .architecture = f->architecture,
        .path = f->gguf->path,
        .kit = kvant_vision_is_there(f->gguf) ? "text+vision" : "text",
        .n_layer = d.n_layer,
        .n_head = d.n_head,
        .n_kv_head = d.n_kv_head,
        .head_dim = d.head_dim,
        .n_embd = d.n_embd,
        .n_vocab = d.n_vocab,
        .layer_window = f->layer_window,
        .n_context_train = d.n_context,
        .n_parameters = f->n_elements,
        .weight_bytes = f->tensor_bytes,
        .file_bytes = (size_t)f->gguf->file_bytes,
    };
    return KVANT_OK;
}

kvant_status kvant_file_cache_bytes(const kvant_file *f, const char *kv, int64_t n_tokens, size_t *out, kvant_error *err) {
    kvant_model_info info;
    kvant_cache_config config;
    KVANT_TRY(kvant_file_model_info(f, &info, err));
    kvant_cache_config_default(&config);
    KVANT_TRY(kvant_format_parse_pair(kv, &config.k, &config.v, err));
    KVANT_TRY(kvant_format_check(&config.k, info.head_dim, err));
    KVANT_TRY(kvant_format_check(&config.v, info.head_dim, err));
    if (n_tokens < 0) return kvant_fail(err, KVANT_EINVAL, "the number of tokens is %" PRId64 ", expected 0 or more", n_tokens);
    config.n_layer = info.n_layer;
    config.n_kv_head = info.n_kv_head;
    config.head_dim = info.head_dim;
    config.layer_window = info.layer_window;
    *out = kvant_cache_bytes_for(&config, n_tokens);
    return KVANT_OK;
}

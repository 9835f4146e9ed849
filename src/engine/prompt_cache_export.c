// SPDX-License-Identifier: MIT
/* prompt_cache_export.c: the sequence of a session -> a prompt-cache file that mlx-lm loads.
 *
 * The layout is that of mlx-lm 0.32: the numbers of a layer are arrays behind its K and V, and its class is in the metadata.
 * Arrays are announced first and written in the same order, a page at a time. Rows are padded to a multiple of 256, as mlx-lm's
 * are. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/half.h"
#include "base/os.h"
#include "engine/prompt_cache.h"

#define STEP 256
#define TOKENS KVANT_PAGE_TOKENS

/* How a layer is written. */
typedef struct plan {
    kvant_prompt_kind kind;
    kvant_safetensors_type type[2];  /* of the numbers of K and of V: F16 or F32 */
    int64_t n, rows, keep, max_size; /* keep, max_size: ROTATING */
    int bits, group;                 /* QUANTIZED */
    bool decoded;                    /* from a format that mlx-lm does not have */
} plan;

typedef struct exporter {
    const kvant_session *s;
    const kvant_sequence *sequence;
    kvant_os_output out;
    uint16_t order[KVANT_HEAD_DIM_MAX];
    bool moves;
    plan *plans;    /* [n_layer] */
    uint8_t *chunk; /* [TOKENS][head_dim] floats */
    kvant_error *err;
} exporter;

/* ---- planning ---- */

static bool is_wide(const kvant_format *f) { return f->codec == KVANT_CODEC_F32 || f->codec == KVANT_CODEC_AFFINE_F32; }

static bool is_float(const kvant_format *f) { return f->codec == KVANT_CODEC_F32 || f->codec == KVANT_CODEC_F16; }

/* Whether all pages have codes that mlx-lm has: K and V of the same bits and groups. */
static bool has_codes(const exporter *e, const kvant_page_list *l) {
    bool all = !e->moves;
    for (int i = 0; i < l->n_pages && all; i++) {
        const kvant_page_layout *layout = l->pages[i] ? l->pages[i]->layout : NULL;
        const kvant_format *k = layout ? &layout->k.format : NULL, *v = layout ? &layout->v.format : NULL;
        all = layout && layout->n_exact == 0 && kvant_format_is_affine(k) && kvant_format_is_affine(v) && k->bits == v->bits &&
              k->group == v->group;
    }
    return all;
}

static void plan_layer(const exporter *e, int layer, plan *p) {
    const kvant_page_list *l = &e->sequence->layers[layer];
    kvant_window w = e->s->shared->cache->windows[layer];
    const kvant_page_layout *last = l->pages[l->n_pages - 1]->layout;
    *p = (plan){.n = l->length, .rows = (l->length + STEP - 1) / STEP * STEP};
    if (w.size > 0) {
        p->kind = KVANT_PROMPT_ROTATING;
        p->keep = w.keep;
        p->max_size = w.size + w.keep;
        p->rows = l->length < p->max_size ? l->length : p->max_size;
    } else if (has_codes(e, l)) {
        p->kind = KVANT_PROMPT_QUANTIZED;
        p->bits = last->k.format.bits;
        p->group = last->k.format.group;
    }
    p->type[0] = is_wide(&last->k.format) ? KVANT_ST_F32 : KVANT_ST_F16;
    p->type[1] = is_wide(&last->v.format) ? KVANT_ST_F32 : KVANT_ST_F16;
    if (p->kind != KVANT_PROMPT_QUANTIZED) /* one type for both */
        p->type[0] = p->type[1] = p->type[0] == KVANT_ST_F32 || p->type[1] == KVANT_ST_F32 ? KVANT_ST_F32 : KVANT_ST_F16;
    p->decoded = p->kind != KVANT_PROMPT_QUANTIZED && (!is_float(&last->k.format) || !is_float(&last->v.format));
}

static void tell_changes(const exporter *e, const char *path) {
    for (int i = 0; i < e->s->model->info.n_layer; i++) {
        if (!e->plans[i].decoded) continue;
        const kvant_page_list *l = &e->sequence->layers[i];
        char k[KVANT_FORMAT_NAME_MAX], v[KVANT_FORMAT_NAME_MAX];
        kvant_format_name(&l->pages[l->n_pages - 1]->layout->k.format, k);
        kvant_format_name(&l->pages[l->n_pages - 1]->layout->v.format, v);
        kvant_log(KVANT_LOG_INFO, "%s: keys and values that are stored as %s/%s are written as %s%s", path, k, v,
                  e->plans[i].type[0] == KVANT_ST_F32 ? "float32" : "float16",
                  e->plans[i].kind == KVANT_PROMPT_ROTATING ? ", for mlx-lm quantizes no windows" : "");
        return;
    }
}

/* ---- the header ---- */

static void announce_side(const exporter *e, kvant_safetensors_writer *w, int layer, int side) {
    const plan *p = &e->plans[layer];
    char name[48];
    int64_t d = e->s->model->info.head_dim, dims[4] = {1, e->s->model->info.n_kv_head, p->rows, d};
    if (p->kind != KVANT_PROMPT_QUANTIZED) {
        snprintf(name, sizeof name, "%d.%d", layer, side);
        kvant_safetensors_writer_tensor(w, name, p->type[side], 4, dims);
        return;
    }
    for (int part = 0; part < 3; part++) {
        snprintf(name, sizeof name, "%d.%d.%d", layer, side, part);
        dims[3] = part ? d / p->group : d * p->bits / 32;
        kvant_safetensors_writer_tensor(w, name, part ? p->type[side] : KVANT_ST_U32, 4, dims);
    }
}

/* The numbers of a layer, in mlx-lm's order; how many. */
static int numbers_of(const plan *p, int64_t out[4]) {
    out[0] = p->n;
    if (p->kind == KVANT_PROMPT_PLAIN) return 1;
    out[1] = p->kind == KVANT_PROMPT_QUANTIZED ? p->group : p->keep;
    out[2] = p->kind == KVANT_PROMPT_QUANTIZED ? p->bits : p->max_size;
    out[3] = p->rows; /* ROTATING: rows are in the order of time */
    return p->kind == KVANT_PROMPT_QUANTIZED ? 3 : 4;
}

static kvant_status write_ids(const exporter *e, kvant_safetensors_writer *w) {
    kvant_buffer text;
    char id[16];
    kvant_buffer_init(&text, KVANT_SAFETENSORS_MAX_HEADER / 4);
    kvant_status st = KVANT_OK;
    for (int64_t i = 0; i < e->plans[0].n && st == KVANT_OK; i++) {
        snprintf(id, sizeof id, "%s%" PRId32, i ? " " : "", e->s->tokens[i]);
        st = kvant_buffer_append_str(&text, id);
    }
    if (st == KVANT_OK) kvant_safetensors_writer_text(w, "0." KVANT_PROMPT_IDS, text.data);
    kvant_buffer_free(&text);
    return st;
}

static void announce(const exporter *e, kvant_safetensors_writer *w) {
    static const char *const classes[] = {"KVCache", "QuantizedKVCache", "RotatingKVCache"};
    int n_layer = e->s->model->info.n_layer, n_numbers = 0;
    char key[48], name[48];
    int64_t numbers[4];
    kvant_safetensors_writer_text(w, "0.model", e->s->model->path);
    kvant_safetensors_writer_text(w, "0.tokenizer_config", "{}");
    kvant_safetensors_writer_text(w, "0.kvant", kvant_version());
    kvant_safetensors_writer_text(w, "2.0", "");
    for (int i = 0; i < n_layer; i++) {
        snprintf(key, sizeof key, "1.%d", i);
        kvant_safetensors_writer_text(w, key, classes[e->plans[i].kind]);
        announce_side(e, w, i, 0);
        announce_side(e, w, i, 1);
    }
    for (int i = 0; i < n_layer; i++)
        for (int k = 0, n = numbers_of(&e->plans[i], numbers); k < n; k++) {
            n_numbers++;
            snprintf(name, sizeof name, "%d.%d", i, 2 + k);
            kvant_safetensors_writer_tensor(w, name, KVANT_ST_I32, 0, NULL);
            snprintf(key, sizeof key, "2.%d.0", n_numbers);
            kvant_safetensors_writer_text(w, key, name);
            snprintf(key, sizeof key, "2.%d.1", n_numbers);
            kvant_safetensors_writer_text(w, key, "scalar");
        }
}

static kvant_status write_header(exporter *e) {
    kvant_safetensors_writer w;
    kvant_buffer header;
    kvant_safetensors_writer_init(&w);
    kvant_buffer_init(&header, KVANT_SAFETENSORS_MAX_HEADER);
    announce(e, &w);
    if (write_ids(e, &w) != KVANT_OK) w.status = KVANT_ENOMEM;
    kvant_status st = kvant_safetensors_writer_header(&w, &header, e->err);
    if (st == KVANT_OK) st = kvant_os_output_write(&e->out, header.data, header.size, e->err);
    kvant_buffer_free(&header);
    kvant_safetensors_writer_free(&w);
    return st;
}

/* ---- the numbers ---- */

/* The token of a row, -1: none. */
static int64_t token_of(const plan *p, int64_t row) {
    if (p->kind != KVANT_PROMPT_ROTATING || p->rows == p->n) return row < p->n ? row : -1;
    return row < p->keep ? row : p->n - (p->rows - row);
}

/* n numbers in a type. */
static size_t put_numbers(uint8_t *to, kvant_safetensors_type type, const float *x, int n, const kvant_kernels *kernels) {
    uint16_t half[KVANT_HEAD_DIM_MAX];
    if (type == KVANT_ST_F32) {
        for (int i = 0; i < n; i++)
            kvant_write_u32(to + 4 * i, kvant_f32_bits(x[i]));
        return 4 * (size_t)n;
    }
    kvant_round_to_half(half, x, n, kernels);
    for (int i = 0; i < n; i++)
        kvant_write_u16(to + 2 * i, half[i]);
    return 2 * (size_t)n;
}

static size_t put_values(const exporter *e, int layer, int side, int kv_head, int64_t token, uint8_t *to) {
    const kvant_decoder_info *info = &e->s->model->info;
    float k[KVANT_HEAD_DIM_MAX] = {0}, v[KVANT_HEAD_DIM_MAX] = {0}, key[KVANT_HEAD_DIM_MAX];
    /* The oldest token of a full ring may be gone: the next one takes its row. */
    if (token >= 0) (void)kvant_sequence_decode(e->sequence, layer, token, kv_head, k, v);
    for (int i = 0; i < info->head_dim; i++)
        key[e->order[i]] = k[i];
    return put_numbers(to, e->plans[layer].type[side], side ? v : key, info->head_dim, e->s->shared->cache->ctx->kernels);
}

/* part 0: the stream of codes; 1: scales; 2: biases. */
static size_t put_codes(const exporter *e, int layer, int side, int kv_head, int64_t token, int part, uint8_t *to) {
    const plan *p = &e->plans[layer];
    int d = e->s->model->info.head_dim, n_group = d / p->group;
    uint8_t codes[KVANT_HEAD_DIM_MAX] = {0};
    float scales[KVANT_HEAD_DIM_MAX / 32] = {0}, biases[KVANT_HEAD_DIM_MAX / 32] = {0};
    if (token >= 0) {
        const kvant_page *page = e->sequence->layers[layer].pages[token / TOKENS];
        const kvant_part *of = side ? &page->layout->v : &page->layout->k;
        kvant_affine_get_codes(of, side ? kvant_page_v(page, kv_head) : kvant_page_k(page, kv_head), (int)(token % TOKENS), codes,
                               scales, biases);
    }
    if (part > 0) return put_numbers(to, p->type[side], part == 1 ? scales : biases, n_group, e->s->shared->cache->ctx->kernels);
    size_t n = (size_t)d * (size_t)p->bits / 8;
    memset(to, 0, n);
    for (size_t i = 0; i < (size_t)d; i++) {
        size_t bit = i * (size_t)p->bits;
        unsigned two = (unsigned)codes[i] << bit % 8;
        to[bit / 8] |= (uint8_t)two;
        if (two > 255) to[bit / 8 + 1] |= (uint8_t)(two >> 8);
    }
    return n;
}

static kvant_status write_side(exporter *e, int layer, int side, int part) {
    const plan *p = &e->plans[layer];
    for (int head = 0; head < e->s->model->info.n_kv_head; head++)
        for (int64_t row = 0; row < p->rows; row += TOKENS) {
            size_t used = 0;
            for (int64_t i = row; i < p->rows && i < row + TOKENS; i++) {
                int64_t token = token_of(p, i);
                used += p->kind == KVANT_PROMPT_QUANTIZED ? put_codes(e, layer, side, head, token, part, e->chunk + used)
                                                          : put_values(e, layer, side, head, token, e->chunk + used);
            }
            KVANT_TRY(kvant_os_output_write(&e->out, e->chunk, used, e->err));
        }
    return KVANT_OK;
}

static kvant_status write_numbers(exporter *e) {
    int64_t numbers[4];
    uint8_t bytes[4];
    for (int i = 0; i < e->s->model->info.n_layer; i++)
        for (int k = 0, n = numbers_of(&e->plans[i], numbers); k < n; k++) {
            kvant_write_u32(bytes, (uint32_t)numbers[k]);
            KVANT_TRY(kvant_os_output_write(&e->out, bytes, sizeof bytes, e->err));
        }
    return KVANT_OK;
}

/* ---- the whole ---- */

static kvant_status write_file(exporter *e) {
    KVANT_TRY(write_header(e));
    for (int i = 0; i < e->s->model->info.n_layer; i++)
        for (int side = 0; side < 2; side++)
            for (int part = 0; part < (e->plans[i].kind == KVANT_PROMPT_QUANTIZED ? 3 : 1); part++)
                KVANT_TRY(write_side(e, i, side, part));
    KVANT_TRY(write_numbers(e));
    return kvant_os_output_sync(&e->out, e->err);
}

static kvant_status write_beside(exporter *e, const char *part, const char *path) {
    KVANT_TRY(kvant_os_output_open(part, 0, &e->out, e->err));
    kvant_status st = write_file(e);
    kvant_status closed = kvant_os_output_close(&e->out, st == KVANT_OK ? e->err : NULL);
    if (st == KVANT_OK) st = closed;
    if (st == KVANT_OK) st = kvant_os_rename(part, path, e->err);
    if (st != KVANT_OK) (void)kvant_os_remove_file(part);
    return st;
}

kvant_status kvant_session_export(kvant_session *s, const char *path, kvant_error *err) {
    const kvant_decoder_info *info = &s->model->info;
    exporter e = {.s = s, .sequence = s->sequence, .err = err};
    if (kvant_session_length(s) == 0)
        return kvant_fail(err, KVANT_EINVAL, "%s: the session is empty: there is nothing to write", path);
    e.moves = kvant_prompt_key_order(s->model, e.order);
    e.plans = kvant_alloc((size_t)info->n_layer, sizeof *e.plans);
    e.chunk = kvant_alloc(TOKENS * (size_t)info->head_dim, sizeof(float));
    size_t length = strlen(path) + sizeof ".part";
    char *part = kvant_alloc(length, 1);
    kvant_status st = e.plans && e.chunk && part ? KVANT_OK : kvant_fail(err, KVANT_ENOMEM, "%s: no memory to write it", path);
    if (st == KVANT_OK) {
        snprintf(part, length, "%s.part", path);
        for (int i = 0; i < info->n_layer; i++)
            plan_layer(&e, i, &e.plans[i]);
        tell_changes(&e, path);
        st = write_beside(&e, part, path);
    }
    kvant_free(e.plans);
    kvant_free(e.chunk);
    kvant_free(part);
    return st;
}

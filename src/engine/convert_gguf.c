// SPDX-License-Identifier: MIT
/* convert_gguf.c: what a GGUF file says of a model before its numbers: metadata, vocabulary, tensors.
 *
 * A folder is read under GGUF's names already; what is left are the differences: rows that GGUF's converters rearrange for some
 * families, and a few keys that only Kvant's view of a folder has. Those that a GGUF file cannot say are refused. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/convert.h"
#include "engine/vocab.h"
#include "model/arch_traits.h"
#include "model/decoder.h"

typedef struct planner {
    kvant_gguf *f;
    const kvant_arch_traits *traits;
    kvant_decoder_info info;
    bool from_folder;
    int half; /* rows of queries and keys to rearrange: half a head; 0: none */
    kvant_gguf_writer writer;
    kvant_error *err;
} planner;

static bool text_is(kvant_text t, const char *s) { return t.size == strlen(s) && memcmp(t.data, s, t.size) == 0; }

static bool begins(kvant_text t, const char *s) { return t.size >= strlen(s) && memcmp(t.data, s, strlen(s)) == 0; }

static kvant_status refuse(const planner *p, const char *what) {
    return kvant_fail(p->err, KVANT_EUNSUPPORTED, "%s: %s, which a GGUF file cannot say; the folder runs as it is", p->f->path,
                      what);
}

/* ---- keys of a folder alone ---- */

/* GGUF's converters of these families put the elements of a pair next to each other. */
static kvant_status plan_pairs(planner *p) {
    uint32_t halves;
    KVANT_TRY(kvant_gguf_u32(p->f, "kvant.rope.pairs", &halves, p->err));
    bool wants_pairs = p->traits->rope_pairs == KVANT_ROPE_INTERLEAVED;
    if (halves && wants_pairs) p->half = p->info.head_dim / 2;
    return !halves && !wants_pairs ? refuse(p, "RoPE turns neighbours (rope_traditional) where its family turns halves")
                                   : KVANT_OK;
}

static kvant_status check_scale(const planner *p) {
    int per_head = p->traits->wide_query_layers == p->info.n_layer ? p->info.n_embd / p->info.n_head : p->info.head_dim;
    float usual = 1.0f / sqrtf((float)per_head), scale;
    KVANT_TRY(kvant_gguf_f32_or(p->f, "kvant.attention.scale", usual, &scale, p->err));
    return fabsf(scale - usual) <= 1e-6f * usual ? KVANT_OK : refuse(p, "query_pre_attn_scalar is not the one of its family");
}

static kvant_status check_rope_layers(const planner *p) {
    const kvant_gguf_value *v = kvant_gguf_find(p->f, "kvant.rope.layers");
    int step = p->traits->no_rope_step;
    for (int i = 0; v && i < p->info.n_layer; i++) {
        bool turned = !(step > 0 && (i + 1) % step == 0);
        if ((uint64_t)i >= v->n_elements || (kvant_gguf_array_int(v, (uint64_t)i) != 0) != turned)
            return refuse(p, "other layers have no RoPE than those of its family");
    }
    return KVANT_OK;
}

/* YaRN's corners and factors are read of some families only. */
static kvant_status check_yarn(const planner *p) {
    for (int i = 0; i < p->f->n_values; i++) {
        kvant_text key = p->f->values[i].key;
        const char *dot = memchr(key.data, '.', key.size);
        kvant_text rest = {dot, dot ? key.size - (size_t)(dot - key.data) : 0};
        if (rest.data && begins(rest, ".rope.scaling.yarn_") && !p->traits->yarn_keys)
            return refuse(p, "RoPE is scaled by YaRN with corners of its own");
        if (begins(key, "kvant.vision.") || begins(key, "clip."))
            return kvant_fail(p->err, KVANT_EUNSUPPORTED, "%s: is a model that reads pictures; Kvant converts text models",
                              p->f->path);
    }
    return KVANT_OK;
}

/* ---- metadata ---- */

static bool is_general(kvant_text key) {
    return text_is(key, "general.alignment") || text_is(key, "general.file_type") ||
           text_is(key, "general.quantization_version") || begins(key, "kvant.");
}

static kvant_status put_metadata(planner *p) {
    kvant_text chat = {0};
    kvant_tokenizer *t = NULL;
    for (int i = 0; i < p->f->n_values; i++)
        if (!is_general(p->f->values[i].key)) kvant_gguf_put_value(&p->writer, &p->f->values[i]);
    kvant_gguf_put_u32(&p->writer, "general.quantization_version", 2);
    if (!p->from_folder) return KVANT_OK;
    KVANT_TRY(kvant_convert_put_vocab(p->f, &p->writer, p->err));
    KVANT_TRY(kvant_vocab_load(p->f, &t, p->err)); /* only so that the template is read */
    kvant_tokenizer_destroy(t);
    KVANT_TRY(kvant_vocab_chat_template(p->f, &chat, p->err));
    if (chat.data) kvant_gguf_put_string(&p->writer, "tokenizer.chat_template", chat.data, chat.size);
    return KVANT_OK;
}

/* ---- tensors ---- */

/* "blk.N.attn_q.weight" and the like. */
static bool is_query_or_key(kvant_text name) {
    static const char *const ends[] = {".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"};
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (name.size > n && memcmp(name.data + name.size - n, ends[i], n) == 0) return true;
    }
    return false;
}

static kvant_status put_tensors(planner *p, const kvant_convert_weights *w, kvant_convert_plan *plan) {
    for (int i = 0; i < p->f->n_tensors; i++) {
        const kvant_gguf_tensor *t = &p->f->tensors[i];
        kvant_convert_item *item = &plan->items[plan->n];
        uint64_t offset;
        KVANT_TRY(kvant_convert_choose(p->f, t, w, false, item, p->err));
        if (p->half && is_query_or_key(t->name)) {
            item->half = p->half;
            item->to_pairs = true;
        }
        kvant_gguf_put_tensor(&p->writer, t->name.data, t->name.size, kvant_convert_ggml_type(item), t->n_dims, t->dims,
                              item->bytes, &offset);
        item->padding = p->writer.data_bytes - offset - item->bytes;
        plan->n++;
    }
    plan->bytes = p->writer.data_bytes;
    return KVANT_OK;
}

static kvant_status plan_all(planner *p, const kvant_convert_weights *w, kvant_convert_plan *plan, kvant_buffer *head) {
    KVANT_TRY(kvant_arch_of_file(p->f, &p->traits, p->err));
    KVANT_TRY(kvant_decoder_peek(p->f, &p->info, p->err));
    if (p->from_folder) {
        KVANT_TRY(plan_pairs(p));
        KVANT_TRY(check_scale(p));
        KVANT_TRY(check_rope_layers(p));
        KVANT_TRY(check_yarn(p));
    }
    KVANT_TRY(put_metadata(p));
    KVANT_TRY(put_tensors(p, w, plan));
    return kvant_gguf_writer_head(&p->writer, head, p->err);
}

kvant_status kvant_convert_plan_gguf(kvant_gguf *f, const kvant_convert_weights *w, kvant_convert_plan *plan, kvant_buffer *head,
                                     kvant_error *err) {
    planner p = {.f = f, .from_folder = kvant_convert_is_folder(f), .err = err};
    *plan = (kvant_convert_plan){.source = f->path, .items = kvant_alloc((size_t)f->n_tensors + 1, sizeof *plan->items)};
    if (!plan->items) return kvant_fail(err, KVANT_ENOMEM, "%s: no memory for the list of its tensors", f->path);
    kvant_gguf_writer_init(&p.writer);
    kvant_status st = plan_all(&p, w, plan, head);
    kvant_gguf_writer_free(&p.writer);
    return st;
}

// SPDX-License-Identifier: MIT
/* convert_folder.c: what a model folder says of a model: config.json, and the head of model.safetensors.
 *
 * Names come from the tables by which folders are read (file/folder_families.c), the other way round; config.json is made of the
 * keys that a decoder reads, or is a folder's own. Whether all of it says the same is found out by reading it back. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/mlx_type.h"
#include "base/os.h"
#include "engine/convert.h"
#include "file/folder_internal.h"
#include "model/arch_traits.h"
#include "model/decoder.h"

#define NAME_ROOM 256
#define PATH_ROOM 4096
#define FILE_MAX_BYTES ((size_t)256 << 20)

typedef struct planner {
    const kvant_gguf *f;
    const kvant_arch_traits *traits;
    const kvant_folder_family *family;
    kvant_decoder_info info;
    bool from_folder;
    json_t *config; /* what config.json becomes */
    kvant_error *err;
} planner;

static kvant_status refuse(const planner *p, const char *what) {
    return kvant_fail(p->err, KVANT_EUNSUPPORTED, "%s: %s, which Kvant cannot write into a folder; the file runs as it is",
                      p->f->path, what);
}

static kvant_status no_memory(const planner *p) { return kvant_fail(p->err, KVANT_ENOMEM, "%s: out of memory", p->f->path); }

static json_t *read_json(const char *folder, const char *name, kvant_error *err) {
    char path[PATH_ROOM];
    uint8_t *text;
    size_t size;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (kvant_os_read_file(path, FILE_MAX_BYTES, &text, &size, err) != KVANT_OK) return NULL;
    json_t *root = json_loadb((const char *)text, size, 0, NULL);
    kvant_free(text);
    if (!root) (void)kvant_fail(err, KVANT_EFORMAT, "%s: is not JSON", path);
    return root;
}

/* ---- config.json of a GGUF file ---- */

static const struct {
    const char *from, *to;
} numbers[] = {
    {"block_count", "num_hidden_layers"},
    {"embedding_length", "hidden_size"},
    {"feed_forward_length", "intermediate_size"},
    {"attention.head_count", "num_attention_heads"},
    {"attention.head_count_kv", "num_key_value_heads"},
    {"context_length", "max_position_embeddings"},
    {"expert_used_count", "num_experts_per_tok"},
    {"expert_feed_forward_length", "moe_intermediate_size"},
    {"attention.sliding_window", "sliding_window"},
    {"attention.layer_norm_rms_epsilon", "rms_norm_eps"},
    {"attention.layer_norm_epsilon", "norm_epsilon"},
    {"attn_logit_softcapping", "attn_logit_softcapping"},
    {"final_logit_softcapping", "final_logit_softcapping"},
    {"embedding_scale", "embedding_multiplier"},
    {"residual_scale", "residual_multiplier"},
    {"attention.scale", "attention_multiplier"},
    {"logit_scale", "logits_scaling"},
    {"rope.freq_base", "rope_theta"},
    {"rope.freq_base_swa", "rope_local_base_freq"},
};

static const kvant_gguf_value *find_value(const planner *p, const char *suffix) {
    char key[NAME_ROOM];
    snprintf(key, sizeof key, "%s.%s", p->info.architecture, suffix);
    return kvant_gguf_find(p->f, key);
}

static bool is_number(const kvant_gguf_value *v) { return v && v->type != KVANT_GGUF_ARRAY && v->type != KVANT_GGUF_STRING; }

static double number_of(const kvant_gguf_value *v) {
    kvant_gguf_value one = *v; /* a number is read as an array of one */
    one.element_type = v->type;
    one.type = KVANT_GGUF_ARRAY;
    one.n_elements = 1;
    return kvant_gguf_array_f64(&one, 0);
}

/* The shortest number that reads back as this float. */
static double shortest(double x) {
    char text[32];
    for (int digits = 6; digits < 10; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, x);
        if ((float)strtod(text, NULL) == (float)x) return strtod(text, NULL);
    }
    return x;
}

static void set_number(json_t *object, const char *key, double x) {
    json_object_set_new(object, key, x == floor(x) && fabs(x) < 1e15 ? json_integer((json_int_t)x) : json_real(shortest(x)));
}

static const char *model_type_of(const planner *p) {
    static const char *const types[][2] = {{"qwen3moe", "qwen3_moe"}, {"gemma3", "gemma3_text"}, {"gpt-oss", "gpt_oss"}};
    if (strcmp(p->info.architecture, "llama") == 0 && is_number(find_value(p, "expert_count")) &&
        number_of(find_value(p, "expert_count")) > 0)
        return "mixtral";
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcmp(p->info.architecture, types[i][0]) == 0) return types[i][1];
    return p->info.architecture;
}

/* The factors of Llama 3, which GGUF keeps as a vector: those that its usual settings make. */
static kvant_status set_rope_factors(planner *p, const kvant_gguf_tensor *t) {
    static const double factors[] = {8, 32, 4, 16};
    double base = is_number(find_value(p, "rope.freq_base")) ? number_of(find_value(p, "rope.freq_base")) : 10000;
    int n = (int)t->dims[0], n_rot = 2 * n;
    if (t->type != 0 || t->n_dims != 1 || t->bytes != 4 * (size_t)n)
        return refuse(p, "it has frequencies of RoPE of an unknown form");
    for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
        bool same = true;
        for (int i = 0; i < n && same; i++) {
            float found;
            memcpy(&found, t->data + 4 * (size_t)i, sizeof found);
            double wave = 2 * 3.14159265358979323846 * pow(base, 2.0 * i / n_rot), smooth = (8192 / wave - 1) / 3;
            double expected = wave < 8192.0 / 4 ? 1 : wave > 8192 ? factors[k] : 1 / ((1 - smooth) / factors[k] + smooth);
            same = fabs((double)found - expected) <= 1e-5 * expected;
        }
        if (!same) continue;
        json_object_set_new(p->config, "rope_scaling",
                            json_pack("{s:s, s:f, s:f, s:f, s:i}", "rope_type", "llama3", "factor", factors[k], "low_freq_factor",
                                      1.0, "high_freq_factor", 4.0, "original_max_position_embeddings", 8192));
        return KVANT_OK;
    }
    return refuse(p, "it has frequencies of RoPE that no usual setting makes");
}

static kvant_status set_rope(planner *p) {
    const kvant_gguf_value *type = find_value(p, "rope.scaling.type"), *factor = find_value(p, "rope.scaling.factor");
    const kvant_gguf_value *turned = find_value(p, "rope.dimension_count");
    const kvant_gguf_tensor *factors = kvant_gguf_find_tensor(p->f, "rope_freqs.weight");
    kvant_text text = {"", 0};
    char key[NAME_ROOM];
    snprintf(key, sizeof key, "%s.rope.scaling.type", p->info.architecture);
    if (type) KVANT_TRY(kvant_gguf_string(p->f, key, &text, p->err));
    bool linear = text.size == 6 && memcmp(text.data, "linear", 6) == 0,
         none = !type || (text.size == 4 && memcmp(text.data, "none", 4) == 0);
    if (!linear && !none) return refuse(p, "its RoPE is scaled in another way than linearly");
    if (linear && is_number(factor))
        json_object_set_new(p->config, "rope_scaling", json_pack("{s:s, s:f}", "type", "linear", "factor", number_of(factor)));
    if (is_number(turned) && number_of(turned) != p->info.head_dim)
        json_object_set_new(p->config, "partial_rotary_factor", json_real(number_of(turned) / p->info.head_dim));
    return factors ? set_rope_factors(p, factors) : KVANT_OK;
}

static kvant_status make_config(planner *p) {
    const kvant_gguf_tensor *embedding = kvant_gguf_find_tensor(p->f, "token_embd.weight");
    const kvant_gguf_value *experts = find_value(p, "expert_count");
    uint32_t bos, eos;
    p->config = json_object();
    if (!p->config) return no_memory(p);
    if (!embedding) return kvant_fail(p->err, KVANT_EFORMAT, "%s: there is no embedding of tokens", p->f->path);
    json_object_set_new(p->config, "model_type", json_string(p->family->model_type));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        const kvant_gguf_value *v = find_value(p, numbers[i].from);
        if (v && !is_number(v)) return refuse(p, "a number of its metadata is another for each layer");
        if (v) set_number(p->config, numbers[i].to, number_of(v));
    }
    if (!find_value(p, "attention.head_count_kv")) set_number(p->config, "num_key_value_heads", p->info.n_kv_head);
    set_number(p->config, "head_dim", p->info.head_dim);
    set_number(p->config, "vocab_size", (double)embedding->dims[1]);
    if (is_number(experts))
        set_number(p->config, p->traits->expert_ff_shared_out ? "num_experts" : "num_local_experts", number_of(experts));
    json_object_set_new(p->config, "hidden_act",
                        json_string(p->traits->activation == KVANT_ACT_GELU ? "gelu_pytorch_tanh" : "silu"));
    json_object_set_new(p->config, "tie_word_embeddings", json_boolean(!kvant_gguf_find_tensor(p->f, "output.weight")));
    int per_head = p->traits->wide_query_layers == p->info.n_layer ? p->info.n_embd / p->info.n_head : p->info.head_dim;
    if (p->family->norm_plus_one) set_number(p->config, "query_pre_attn_scalar", per_head);
    KVANT_TRY(kvant_gguf_u32_or(p->f, "tokenizer.ggml.bos_token_id", UINT32_MAX, &bos, p->err));
    KVANT_TRY(kvant_gguf_u32_or(p->f, "tokenizer.ggml.eos_token_id", UINT32_MAX, &eos, p->err));
    if (bos != UINT32_MAX) set_number(p->config, "bos_token_id", bos);
    if (eos != UINT32_MAX) set_number(p->config, "eos_token_id", eos);
    return set_rope(p);
}

static kvant_status read_model(planner *p) {
    KVANT_TRY(kvant_arch_of_file(p->f, &p->traits, p->err));
    KVANT_TRY(kvant_decoder_peek(p->f, &p->info, p->err));
    const char *type = model_type_of(p);
    if (p->from_folder) {
        p->config = read_json(p->f->path, "config.json", p->err);
        if (!p->config) return p->err ? p->err->status : KVANT_EIO;
        type = json_string_value(json_object_get(p->config, "model_type"));
    }
    p->family = type ? kvant_folder_find_family(type) : NULL;
    if (!p->family) return refuse(p, "it is of a family that has no folders here");
    return p->from_folder ? KVANT_OK : make_config(p);
}

/* ---- tensors ---- */

/* The name of a tensor without ".weight" and ".bias" -> its name in a folder; *form: how it is stored there. */
static bool find_name(const planner *p, const char *inner, int layer, char out[NAME_ROOM], kvant_folder_form *form) {
    const kvant_folder_name *top[] = {kvant_folder_top_names, NULL};
    const kvant_folder_name *const *lists = layer < 0 ? top : p->family->lists;
    for (int i = 0; i < KVANT_FOLDER_LISTS && (layer >= 0 || i < 1) && lists[i]; i++)
        for (const kvant_folder_name *n = lists[i]; n->from; n++) {
            bool whole = n->form == KVANT_FORM_LINEAR || n->form == KVANT_FORM_NORM || n->form == KVANT_FORM_BARE;
            if (!whole || strcmp(n->to, inner) != 0) continue;
            if (layer < 0)
                snprintf(out, NAME_ROOM, "%s", n->from);
            else
                snprintf(out, NAME_ROOM, "model.layers.%d.%s", layer, n->from);
            *form = n->form;
            return true;
        }
    return false;
}

/* "blk.3.attn_q.weight" -> "model.layers.3.self_attn.q_proj", ".weight". */
static bool map_name(const planner *p, kvant_text name, char out[NAME_ROOM], const char **suffix, kvant_folder_form *form) {
    char text[NAME_ROOM], *rest = text;
    int layer = -1;
    if (name.size >= sizeof text) return false;
    memcpy(text, name.data, name.size);
    text[name.size] = '\0';
    if (strncmp(text, "blk.", 4) == 0) {
        layer = (int)strtol(text + 4, &rest, 10);
        if (*rest++ != '.' || layer < 0) return false;
    }
    *suffix = NULL;
    char *dot = strrchr(rest, '.');
    if (dot && strcmp(dot, ".weight") == 0) *suffix = ".weight";
    if (dot && strcmp(dot, ".bias") == 0) *suffix = ".bias";
    if (*suffix)
        *dot = '\0';
    else
        *suffix = "";
    if (!find_name(p, rest, layer, out, form)) return false;
    if (*form == KVANT_FORM_BARE) *suffix = "";
    return true;
}

static void announce(kvant_safetensors_writer *w, const kvant_convert_item *item, const char *name, const char *suffix) {
    static const kvant_safetensors_type scale_types[] = {KVANT_ST_F32, KVANT_ST_F16, KVANT_ST_BF16, KVANT_ST_U8};
    char whole[NAME_ROOM + 16];
    int n = item->from->n_dims;
    int64_t dims[KVANT_GGUF_MAX_DIMS];
    for (int i = 0; i < n; i++)
        dims[i] = item->from->dims[n - 1 - i];
    snprintf(whole, sizeof whole, "%s%s", name, suffix);
    if (item->form != KVANT_CONVERT_COPY && item->form != KVANT_CONVERT_AFFINE) {
        kvant_safetensors_type type = item->form == KVANT_CONVERT_F32   ? KVANT_ST_F32
                                      : item->form == KVANT_CONVERT_F16 ? KVANT_ST_F16
                                                                        : KVANT_ST_BF16;
        kvant_safetensors_writer_tensor(w, whole, type, n, dims);
        return;
    }
    kvant_mlx_scale scale = item->form == KVANT_CONVERT_AFFINE ? KVANT_MLX_F16 : kvant_mlx_scale_of(item->from->type);
    dims[n - 1] = item->cols * item->bits / 32;
    kvant_safetensors_writer_tensor(w, whole, KVANT_ST_U32, n, dims);
    dims[n - 1] = item->cols / item->group;
    snprintf(whole, sizeof whole, "%s.scales", name);
    kvant_safetensors_writer_tensor(w, whole, scale_types[scale], n, dims);
    if (scale == KVANT_MLX_E8M0) return;
    snprintf(whole, sizeof whole, "%s.biases", name);
    kvant_safetensors_writer_tensor(w, whole, scale_types[scale], n, dims);
}

static bool is_rearranged(kvant_text name) {
    static const char *const inner[] = {".attn_q.weight", ".attn_k.weight", ".attn_q.bias", ".attn_k.bias"};
    bool is = false;
    for (size_t i = 0; i < sizeof inner / sizeof *inner; i++) {
        size_t n = strlen(inner[i]);
        is = is || (name.size > n && memcmp(name.data + name.size - n, inner[i], n) == 0);
    }
    return is;
}

static kvant_status plan_tensors(planner *p, const kvant_convert_weights *weights, kvant_convert_plan *plan,
                                 kvant_safetensors_writer *w) {
    bool rearranges = !p->from_folder && p->traits->rope_pairs == KVANT_ROPE_INTERLEAVED && !p->family->interleaved;
    for (int i = 0; i < p->f->n_tensors; i++) {
        const kvant_gguf_tensor *t = &p->f->tensors[i];
        kvant_convert_item *item = &plan->items[plan->n];
        char name[NAME_ROOM];
        const char *suffix;
        kvant_folder_form form;
        bool is_factors = t->name.size > 5 && memcmp(t->name.data, "rope_", 5) == 0;
        if (is_factors) continue; /* config.json says them */
        if (!map_name(p, t->name, name, &suffix, &form))
            return kvant_fail(p->err, KVANT_EUNSUPPORTED, "%s: %.*s has no name in a folder of %s models; the file runs as it is",
                              p->f->path, t->name.size > 128 ? 128 : (int)t->name.size, t->name.data, p->family->model_type);
        KVANT_TRY(kvant_convert_choose(p->f, t, weights, true, item, p->err));
        if (form == KVANT_FORM_NORM && p->family->norm_plus_one && strcmp(suffix, ".weight") == 0) item->plus = -1;
        if (rearranges && is_rearranged(t->name)) item->half = p->info.head_dim / 2;
        announce(w, item, name, suffix);
        plan->bytes += item->bytes;
        plan->n++;
    }
    return KVANT_OK;
}

kvant_status kvant_convert_plan_folder(kvant_gguf *f, const kvant_convert_weights *w, kvant_convert_plan *plan,
                                       kvant_buffer *head, kvant_error *err) {
    planner p = {.f = f, .from_folder = kvant_convert_is_folder(f), .err = err};
    kvant_safetensors_writer writer;
    *plan = (kvant_convert_plan){.source = f->path, .items = kvant_alloc((size_t)f->n_tensors + 1, sizeof *plan->items)};
    if (!plan->items) return no_memory(&p);
    kvant_safetensors_writer_init(&writer);
    kvant_safetensors_writer_text(&writer, "format", "mlx");
    kvant_status st = read_model(&p);
    if (st == KVANT_OK) st = plan_tensors(&p, w, plan, &writer);
    if (st == KVANT_OK) st = kvant_safetensors_writer_header(&writer, head, err);
    kvant_safetensors_writer_free(&writer);
    json_decref(p.config);
    return st;
}

/* ---- the files beside it ---- */

static kvant_status copy_file(const char *from, const char *to, const char *name, bool required, kvant_error *err) {
    char source[PATH_ROOM], target[PATH_ROOM];
    uint8_t *bytes;
    size_t size;
    bool absent = false;
    kvant_os_file probe;
    snprintf(source, sizeof source, "%s/%s", from, name);
    snprintf(target, sizeof target, "%s/%s", to, name);
    if (kvant_os_file_open(source, &probe, &absent, NULL) == KVANT_OK)
        kvant_os_file_close(&probe);
    else if (absent && !required)
        return KVANT_OK;
    KVANT_TRY(kvant_os_read_file(source, FILE_MAX_BYTES, &bytes, &size, err));
    kvant_status st = kvant_os_write_file(target, bytes, size, err);
    kvant_free(bytes);
    return st;
}

kvant_status kvant_convert_write_json(const char *folder, const char *name, const json_t *root, kvant_error *err) {
    char path[PATH_ROOM];
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(17));
    snprintf(path, sizeof path, "%s/%s", folder, name);
    if (!text) return kvant_fail(err, KVANT_ENOMEM, "%s: cannot be written as JSON: out of memory, or a text is not UTF-8", path);
    kvant_status st = kvant_os_write_file(path, text, strlen(text), err);
    free(text);
    return st;
}

static kvant_status write_files(planner *p, const kvant_convert_weights *w, const char *folder) {
    static const char *const names[] = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                                        "generation_config.json", "chat_template.jinja"};
    KVANT_TRY(read_model(p));
    if (p->from_folder && w->form != KVANT_CONVERT_COPY) {
        json_object_del(p->config, "quantization");
        json_object_del(p->config, "quantization_config");
    }
    if (w->form == KVANT_CONVERT_AFFINE)
        json_object_set_new(p->config, "quantization", json_pack("{s:i, s:i}", "group_size", w->group, "bits", w->bits));
    KVANT_TRY(kvant_convert_write_json(folder, "config.json", p->config, p->err));
    if (!p->from_folder) return kvant_convert_write_vocab(p->f, folder, p->err);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        KVANT_TRY(copy_file(p->f->path, folder, names[i], false, p->err));
    return KVANT_OK;
}

kvant_status kvant_convert_write_folder(kvant_gguf *f, const kvant_convert_weights *w, const char *folder, kvant_error *err) {
    kvant_error unwanted;
    planner p = {.f = f, .from_folder = kvant_convert_is_folder(f), .err = err ? err : &unwanted};
    kvant_status st = write_files(&p, w, folder);
    json_decref(p.config);
    return st;
}

/* ---- the proof ---- */

static bool is_same_value(const kvant_gguf_value *a, const kvant_gguf_value *b) {
    if (is_number(a) && is_number(b)) return fabs(number_of(a) - number_of(b)) <= 1e-6 * fabs(number_of(a));
    if (a->type != b->type) return false;
    if (a->type == KVANT_GGUF_STRING) /* its length, then its bytes */
        return memcmp(a->data, b->data, 8) == 0 && memcmp(a->data, b->data, 8 + (size_t)kvant_read_u64(a->data)) == 0;
    if (a->element_type == KVANT_GGUF_STRING || b->element_type == KVANT_GGUF_STRING || a->n_elements != b->n_elements)
        return false;
    for (uint64_t i = 0; i < a->n_elements; i++)
        if (kvant_gguf_array_f64(a, i) != kvant_gguf_array_f64(b, i)) return false;
    return true;
}

/* What one of the two may leave unsaid. */
static bool may_be_absent(kvant_text key) {
    static const char *const ends[] = {".vocab_size",
                                       ".attention.key_length",
                                       ".attention.value_length",
                                       ".rope.dimension_count",
                                       ".rope.freq_base",
                                       ".attention.head_count_kv",
                                       ".context_length",
                                       ".rope.scaling.original_context_length",
                                       ".attn_logit_softcapping",
                                       ".final_logit_softcapping"};
    bool may = false;
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++)
        may = may || (key.size > strlen(ends[i]) && memcmp(key.data + key.size - strlen(ends[i]), ends[i], strlen(ends[i])) == 0);
    return may;
}

/* Every key of the architecture in a is in b, and the same. */
static kvant_status compare_keys(const kvant_gguf *a, const kvant_gguf *b, const char *architecture, const char *name,
                                 kvant_error *err) {
    size_t n = strlen(architecture);
    for (int i = 0; i < a->n_values; i++) {
        kvant_text key = a->values[i].key;
        char text[NAME_ROOM];
        if (key.size <= n || memcmp(key.data, architecture, n) != 0 || key.data[n] != '.' || key.size >= sizeof text) continue;
        memcpy(text, key.data, key.size);
        text[key.size] = '\0';
        const kvant_gguf_value *other = kvant_gguf_find(b, text);
        if (other ? is_same_value(&a->values[i], other) : may_be_absent(key)) continue;
        return kvant_fail(err, KVANT_EUNSUPPORTED,
                          "%s: %s cannot be said in config.json so that it reads back the same; the file runs as it is", name,
                          text);
    }
    return KVANT_OK;
}

kvant_status kvant_convert_compare_metadata(const kvant_gguf *from, const kvant_gguf *to, kvant_error *err) {
    kvant_decoder_info a, b;
    KVANT_TRY(kvant_decoder_peek(from, &a, err));
    KVANT_TRY(kvant_decoder_peek(to, &b, err));
    if (strcmp(a.architecture, b.architecture) != 0)
        return kvant_fail(err, KVANT_EUNSUPPORTED, "%s: its architecture %s would read back as %s; the file runs as it is",
                          from->path, a.architecture, b.architecture);
    KVANT_TRY(compare_keys(from, to, a.architecture, from->path, err));
    return compare_keys(to, from, a.architecture, from->path, err);
}

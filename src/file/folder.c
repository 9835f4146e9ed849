// SPDX-License-Identifier: MIT
/* folder.c: opens a model folder: its config, its shards by their index, and what the other folder_*.c make of them.
 *
 * Metadata are written as the bytes of a GGUF file without tensors and read by the reader of GGUF files, so that lookups and
 * checks are one. Whether the model can run is said before a shard is opened. */
#include "file/folder_internal.h"

#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "file/gguf_internal.h"

#define PATH_ROOM 4096
#define CONFIG_MAX ((size_t)16 << 20)
#define INDEX_MAX ((size_t)256 << 20)
#define METADATA_MAX ((size_t)1 << 20)
#define SHARDS_MAX 4096

void *kvant_folder_own(kvant_folder *f, size_t n, size_t size) {
    if (f->n_owned == f->owned_room) {
        int room = f->owned_room ? 2 * f->owned_room : 256;
        void **grown = kvant_realloc(f->owned, (size_t)room, sizeof *grown);
        if (!grown) return NULL;
        f->owned = grown;
        f->owned_room = room;
    }
    void *p = kvant_alloc(n > 0 ? n : 1, size);
    if (p) f->owned[f->n_owned++] = p;
    return p;
}

kvant_status kvant_folder_no_memory(const kvant_folder *f) {
    return kvant_fail(f->err, KVANT_ENOMEM, "%s: no memory to open it", f->path);
}

const char *kvant_folder_show(kvant_folder *f, const char *text) {
    size_t n = 0;
    for (; text[n] && n + 4 < sizeof f->shown; n++)
        f->shown[n] = text[n] >= 0x20 && text[n] < 0x7F ? text[n] : '?';
    memcpy(f->shown + n, text[n] ? "..." : "", text[n] ? 4 : 1);
    return f->shown;
}

/* ---- JSON files ---- */

static kvant_status parse_json(const char *name, const char *text, size_t size, json_t **out, kvant_error *err) {
    json_error_t problem;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &problem);
    if (root && json_is_object(root)) {
        *out = root;
        return KVANT_OK;
    }
    json_decref(root);
    if (root) return kvant_fail(err, KVANT_EFORMAT, "%s: is not a JSON object", name);
    return kvant_fail(err, KVANT_EFORMAT, "%s: is not JSON: line %d, column %d cannot be read", name, problem.line,
                      problem.column);
}

static kvant_status join(const char *folder, const char *file, char out[PATH_ROOM], kvant_error *err) {
    size_t n = strlen(folder);
    const char *slash = n > 0 && folder[n - 1] == '/' ? "" : "/";
    int size = snprintf(out, PATH_ROOM, "%s%s%s", folder, slash, file);
    if (size > 0 && size < PATH_ROOM) return KVANT_OK;
    return kvant_fail(err, KVANT_EINVAL, "%.64s...: the path is longer than %d bytes", folder, PATH_ROOM);
}

static kvant_status load_json(const char *path, size_t max, json_t **out, kvant_error *err) {
    uint8_t *text;
    size_t size;
    KVANT_TRY(kvant_os_read_file(path, max, &text, &size, err));
    kvant_status st = parse_json(path, (const char *)text, size, out, err);
    kvant_free(text);
    return st;
}

/* ---- the model kit ---- */

/* Model types whose decoder needs images or sound, besides all with a vision_config. */
static const char *const other_kits[] = {
    "pixtral",  "mistral3",       "llava",      "llava_next", "llava_qwen2",  "mllama",        "gemma3",      "gemma3n",
    "gemma4",   "qwen2_vl",       "qwen2_5_vl", "qwen3_vl",   "qwen3_vl_moe", "qwen3_5",       "qwen3_5_moe", "idefics2",
    "idefics3", "smolvlm",        "paligemma",  "lfm2_vl",    "lfm2-vl",      "internvl_chat", "florence2",   "molmo",
    "kimi_vl",  "deepseek_vl_v2", "phi3_v",     "phi4mm",     "glm4v",        "glm4v_moe",     "aya_vision",  "llama4"};

/* Here a kit that reads images is let in. */
static kvant_status check_kit(kvant_folder *f) {
    bool other;
    KVANT_TRY(kvant_folder_enter_vision(f, &other));
    if (f->whole) return KVANT_OK;
    const char *type = json_string_value(json_object_get(f->config, "model_type"));
    if (!type) return kvant_fail(f->err, KVANT_EFORMAT, "%s: config.json has no model_type", f->path);
    other |= json_is_object(json_object_get(f->config, "audio_config"));
    for (size_t i = 0; i < sizeof other_kits / sizeof *other_kits; i++)
        other |= strcmp(type, other_kits[i]) == 0;
    if (other)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                          "%s: the model type %s is a model that reads images or sound as Kvant does not; it runs "
                          "pixtral, and text models of the types %s",
                          f->path, kvant_folder_show(f, type), kvant_folder_model_types());
    f->family = kvant_folder_find_family(type);
    if (f->family) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EUNSUPPORTED, "%s: the model type %s is not one that Kvant knows: %s", f->path,
                      kvant_folder_show(f, type), kvant_folder_model_types());
}

/* Quantized by a tool whose tensors mean something else. */
static kvant_status check_quantization(kvant_folder *f) {
    const json_t *q = json_object_get(f->config, "quantization_config");
    const char *method = json_string_value(json_object_get(q, "quant_method"));
    if (!method || strcmp(method, "mxfp4") == 0 || json_is_object(json_object_get(f->config, "quantization"))) return KVANT_OK;
    return kvant_fail(f->err, KVANT_EUNSUPPORTED,
                      "%s: the weights are quantized by %s; Kvant reads MLX's affine and MXFP4 quantization, and "
                      "weights that are not quantized",
                      f->path, kvant_folder_show(f, method));
}

/* ---- shards ---- */

static kvant_status add_shard(kvant_folder *f, kvant_safetensors *shard) {
    f->shards[f->n_shards] = shard;
    f->used[f->n_shards] = kvant_alloc((size_t)shard->n_tensors + 1, 1);
    f->n_shards++;
    return f->used[f->n_shards - 1] ? KVANT_OK : kvant_folder_no_memory(f);
}

static kvant_status make_room_for_shards(kvant_folder *f, size_t n) {
    f->shards = kvant_alloc(n, sizeof *f->shards);
    f->used = kvant_alloc(n, sizeof *f->used);
    return f->shards && f->used ? KVANT_OK : kvant_folder_no_memory(f);
}

static kvant_status open_shard(kvant_folder *f, const char *file, kvant_safetensors **out) {
    char path[PATH_ROOM];
    KVANT_TRY(join(f->path, file, path, f->err));
    KVANT_TRY(kvant_safetensors_open(path, out, f->err));
    return add_shard(f, *out);
}

static bool is_plain_name(const char *file) {
    size_t n = strlen(file);
    if (n == 0 || n > 255 || file[0] == '.') return false;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)file[i] < 0x20 || file[i] == 0x7F || file[i] == '/' || file[i] == '\\') return false;
    return true;
}

/* The shard of a file's name, opened when it is first named. files: name -> number of the shard. */
static kvant_status find_shard(kvant_folder *f, json_t *files, const char *file, kvant_safetensors **out) {
    const json_t *known = json_object_get(files, file);
    if (known) {
        *out = f->shards[json_integer_value(known)];
        return KVANT_OK;
    }
    if (!is_plain_name(file))
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: the index names a file that is not a plain name", f->path);
    if (f->n_shards == SHARDS_MAX)
        return kvant_fail(f->err, KVANT_EUNSUPPORTED, "%s: the index names more than %d files", f->path, SHARDS_MAX);
    KVANT_TRY(open_shard(f, file, out));
    return json_object_set_new(files, file, json_integer(f->n_shards - 1)) == 0 ? KVANT_OK : kvant_folder_no_memory(f);
}

static kvant_status open_indexed(kvant_folder *f, const json_t *index, json_t *files) {
    const char *name;
    json_t *file;
    json_t *map = json_object_get(index, "weight_map");
    if (!json_is_object(map) || json_object_size(map) == 0)
        return kvant_fail(f->err, KVANT_EFORMAT, "%s: model.safetensors.index.json has no weight_map", f->path);
    KVANT_TRY(make_room_for_shards(f, SHARDS_MAX));
    json_object_foreach(map, name, file) {
        kvant_safetensors *shard;
        if (!json_is_string(file))
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: model.safetensors.index.json names no file for the tensor %s", f->path,
                              kvant_folder_show(f, name));
        KVANT_TRY(find_shard(f, files, json_string_value(file), &shard));
        if (!kvant_safetensors_find(shard, name))
            return kvant_fail(f->err, KVANT_EFORMAT, "%s: lacks the tensor %s, which model.safetensors.index.json says is there",
                              shard->path, kvant_folder_show(f, name));
    }
    return KVANT_OK;
}

/* A tensor that two shards have: which one counts is not said anywhere. */
static kvant_status check_unique(kvant_folder *f) {
    for (int a = 0; a < f->n_shards; a++)
        for (int b = a + 1; b < f->n_shards; b++) {
            const kvant_safetensors *x = f->shards[a], *y = f->shards[b];
            for (int i = 0, j = 0; i < x->n_tensors && j < y->n_tensors;) {
                int c = strcmp(x->tensors[i].name, y->tensors[j].name);
                if (c == 0)
                    return kvant_fail(f->err, KVANT_EFORMAT, "%s: the tensor %s is in %s too", x->path, x->tensors[i].name,
                                      y->path);
                if (c < 0)
                    i++;
                else
                    j++;
            }
        }
    return KVANT_OK;
}

static kvant_status open_shards(kvant_folder *f) {
    char path[PATH_ROOM];
    json_t *index = NULL;
    kvant_safetensors *only;
    KVANT_TRY(join(f->path, "model.safetensors.index.json", path, f->err));
    kvant_error problem = {0};
    kvant_status st = load_json(path, INDEX_MAX, &index, &problem);
    if (st == KVANT_EIO) { /* no index: one file */
        KVANT_TRY(make_room_for_shards(f, 1));
        st = open_shard(f, "model.safetensors", &only);
        if (st != KVANT_EIO) return st;
        return kvant_fail(f->err, KVANT_EIO,
                          "%s: has neither model.safetensors nor model.safetensors.index.json that could be read", f->path);
    }
    if (st != KVANT_OK) {
        if (f->err) *f->err = problem;
        return st;
    }
    json_t *files = json_object();
    st = files ? open_indexed(f, index, files) : kvant_folder_no_memory(f);
    json_decref(files);
    json_decref(index);
    return st == KVANT_OK ? check_unique(f) : st;
}

/* ---- the result ---- */

/* The metadata as a GGUF file without tensors. */
static kvant_status read_metadata(kvant_folder *f, kvant_gguf **out) {
    size_t size = 24 + f->metadata.size;
    uint8_t *bytes = kvant_folder_own(f, size, 1);
    if (!bytes) return kvant_folder_no_memory(f);
    memcpy(bytes, "GGUF", 4);
    kvant_write_u32(bytes + 4, 3);
    kvant_write_u32(bytes + 16, (uint32_t)f->n_metadata);
    memcpy(bytes + 24, f->metadata.data, f->metadata.size);
    return kvant_gguf_parse(f->path, bytes, size, NULL, out, f->err);
}

/* Everything that was made or mapped goes over to the result. */
static kvant_status finish(kvant_folder *f, kvant_gguf **out) {
    kvant_gguf *g = NULL;
    kvant_map *maps = kvant_alloc((size_t)f->n_shards, sizeof *maps);
    if (!maps) return kvant_folder_no_memory(f);
    kvant_status st = read_metadata(f, &g);
    if (st != KVANT_OK) {
        kvant_free(maps);
        return st;
    }
    kvant_free(g->tensors);
    g->tensors = f->tensors;
    g->n_tensors = f->n_tensors;
    g->owned = f->owned;
    g->n_owned = f->n_owned;
    g->shards = maps;
    g->file_bytes = 0;
    f->tensors = NULL;
    f->owned = NULL;
    f->n_tensors = f->n_owned = 0;
    for (int i = 0; i < f->n_shards; i++) {
        g->file_bytes += f->shards[i]->map.size;
        if (f->shards[i]->borrowed) continue;
        g->shards[g->n_shards++] = f->shards[i]->map;
        f->shards[i]->borrowed = true;
    }
    st = kvant_gguf_index_tensors(g, f->err);
    if (st == KVANT_OK)
        *out = g;
    else
        kvant_gguf_close(g);
    return st;
}

static void destroy(kvant_folder *f) {
    for (int i = 0; i < f->n_shards; i++) {
        kvant_safetensors_close(f->shards[i]);
        kvant_free(f->used[i]);
    }
    kvant_free(f->shards);
    kvant_free(f->used);
    for (int i = 0; i < f->n_owned; i++)
        kvant_free(f->owned[i]);
    kvant_free(f->owned);
    kvant_free(f->tensors);
    kvant_buffer_free(&f->metadata);
    json_decref(f->config);
    json_decref(f->whole);
    json_decref(f->processor);
}

static void set_name(kvant_folder *f) {
    size_t end = strlen(f->path);
    while (end > 0 && f->path[end - 1] == '/')
        end--;
    size_t begin = end;
    while (begin > 0 && f->path[begin - 1] != '/')
        begin--;
    size_t n = end - begin < sizeof f->name ? end - begin : sizeof f->name - 1;
    memcpy(f->name, f->path + begin, n);
    f->name[n] = '\0';
}

/* config is there; shards are opened between the two halves. */
static kvant_status read_config(kvant_folder *f) {
    kvant_buffer_init(&f->metadata, METADATA_MAX);
    set_name(f);
    KVANT_TRY(check_kit(f));
    KVANT_TRY(check_quantization(f));
    return kvant_folder_read_config(f);
}

static kvant_status read_weights(kvant_folder *f, kvant_gguf **out) {
    KVANT_TRY(kvant_folder_read_tensors(f));
    return finish(f, out);
}

/* How pictures are prepared, where the folder says so. */
static kvant_status read_processor(kvant_folder *f) {
    char path[PATH_ROOM];
    kvant_error problem = {0};
    if (!json_is_object(json_object_get(f->config, "vision_config"))) return KVANT_OK;
    KVANT_TRY(join(f->path, "preprocessor_config.json", path, f->err));
    kvant_status st = load_json(path, CONFIG_MAX, &f->processor, &problem);
    if (st == KVANT_OK || st == KVANT_EIO) return KVANT_OK;
    if (f->err) *f->err = problem;
    return st;
}

static kvant_status open_folder(kvant_folder *f, kvant_gguf **out) {
    char path[PATH_ROOM];
    KVANT_TRY(join(f->path, "config.json", path, f->err));
    kvant_status st = load_json(path, CONFIG_MAX, &f->config, f->err);
    if (st == KVANT_EIO)
        return kvant_fail(f->err, st, "%s: is a folder without a config.json that can be read, so not a model", f->path);
    KVANT_TRY(st);
    KVANT_TRY(read_processor(f));
    KVANT_TRY(read_config(f));
    KVANT_TRY(open_shards(f));
    return read_weights(f, out);
}

kvant_status kvant_folder_open(const char *path, kvant_gguf **out, kvant_error *err) {
    kvant_folder f = {.path = path, .err = err};
    kvant_status st = open_folder(&f, out);
    destroy(&f);
    return st;
}

static kvant_status parse_folder(kvant_folder *f, const char *config, size_t config_size, const uint8_t *tensors,
                                 size_t tensors_size, kvant_gguf **out) {
    kvant_safetensors *shard;
    KVANT_TRY(parse_json("config.json", config, config_size, &f->config, f->err));
    KVANT_TRY(read_config(f));
    KVANT_TRY(make_room_for_shards(f, 1));
    KVANT_TRY(kvant_safetensors_parse("model.safetensors", tensors, tensors_size, &shard, f->err));
    KVANT_TRY(add_shard(f, shard));
    return read_weights(f, out);
}

kvant_status kvant_folder_parse(const char *name, const char *config, size_t config_size, const uint8_t *tensors,
                                size_t tensors_size, kvant_gguf **out, kvant_error *err) {
    kvant_folder f = {.path = name, .err = err};
    kvant_status st = parse_folder(&f, config, config_size, tensors, tensors_size, out);
    destroy(&f);
    return st;
}

kvant_status kvant_model_file_open(const char *path, kvant_gguf **out, kvant_error *err) {
    return kvant_os_is_folder(path) ? kvant_folder_open(path, out, err) : kvant_gguf_open(path, NULL, out, err);
}

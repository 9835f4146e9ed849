// SPDX-License-Identifier: MIT
/* engine.h: run a language model on a quantized key/value cache.
 *
 * A model is a loaded file: weights, vocabulary, chat template; read-only, shared by all its sessions.
 * A session is one timeline of tokens and its cache; it is where prefill, decoding and truncation happen.
 * A sampler turns logits into the next token, a generator into an answer: answer.h, which is part of this header.
 *
 * Ownership and errors as in kvant.h. A session and a sampler are used from one thread at a time; the sessions of one model share
 * its threads, so only one of them computes at a time. A model must outlive its sessions and text streams. */
#ifndef KVANT_ENGINE_H
#define KVANT_ENGINE_H

#include "kvant/kvant.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- model ---- */

typedef struct kvant_model kvant_model;

/* The cache settings of mlx-engine, and Kvant's. Given when a model is loaded; every session inherits them. */
typedef struct kvant_kv_params {
    const char *kv;          /* a format, a pair "K/V" or a preset (kvant.h, formats); "auto": lossless, or f16 with a warning where
                                the model's head_dim does not allow it; "budget:SIZE": as kv_budget, where SIZE is bytes ("300M",
                                "1.5GiB"), bits a value ("4.3"), or a format or pair whose bytes are meant ("bc4"); NULL: from the
                                fields below */
    size_t kv_budget;        /* bytes, 0: none. Every layer's K and V get formats of their own, such that kv_budget_tokens tokens fit
                                and the answers change the least: by the model's sensitivities, measured once (some minutes for a large
                                model) and kept in cache_dir. Too little is KVANT_EFULL, and the sentence says what fits */
    int64_t kv_budget_tokens; /* of one session, for kv_budget and "budget:SIZE"; 0: what the model was trained for */
    int kv_bits;             /* 0: unset. 2, 3, 4, 5, 6, 8 */
    int k_bits, v_bits;      /* 0: kv_bits */
    int kv_group_size;       /* 0: unset (64). 32, 64, 128; selects affine. Without bits: KVANT_EINVAL */
    const char *kv_codec;    /* NULL: the best at these bits ("kvant": block codebooks and integers on centred keys), or affine with
                                a group size or compat_mlx. "kvant", "affine", "f16", "f32" */
    bool kv_center_off;      /* keys keep their mean, whatever the format */
    int quantized_kv_start;  /* 0: from the first token */
    int max_kv_size;         /* 0: no window */
    bool compat_mlx;         /* mlx-lm's order and rules (attend first, quantize after the chunk; max_kv_size is ignored with a
                                warning while bits are set, and for models whose cache mlx-lm makes itself: llama and mistral
                                without experts, gemma3, gpt-oss, olmo3) */
} kvant_kv_params;

typedef struct kvant_load_params {
    uint64_t seed;           /* of the model's samplers: kvant_model_sampler_params */
    int n_threads;           /* 0: the physical cores */
    kvant_isa isa;           /* KVANT_ISA_BEST */
    bool vocab_only;         /* no weights are read: tokenizing only; also for files without weights */
    int prefill_step_size;   /* tokens a prefill chunk, 0: 512 */
    const char *mmproj;      /* the GGUF file of a vision model for a text model's GGUF file; NULL: what the model itself has */
    kvant_kv_params kv;
    const char *cache_dir;        /* the folder where calibrations are kept and found again, made where it is missing; NULL: none */
    size_t prefix_ram;            /* bytes of past sequences that stay in memory for later prompts; 0: none */
    const char *prefix_dir;       /* a folder where past sequences stay for later processes; NULL: none */
    uint64_t prefix_disk;         /* the most bytes of that folder, 0: no limit */
    const char *calibration_file; /* one of the user's own (kvant_model_calibrate): of another model or damaged, it is refused, even
                                     where no format needs it, and with vocab_only; NULL: found in cache_dir, or made from a built-in text */
} kvant_load_params;

void kvant_load_params_default(kvant_load_params *p);
kvant_status kvant_model_open(const char *path, const kvant_load_params *params, kvant_model **out, kvant_error *err);
void kvant_model_close(kvant_model *m);

/* What the first line of the program says. Strings live as long as the model. */
typedef struct kvant_model_info {
    const char *name, *architecture, *path;
    const char *kit;             /* "text", "text+vision" */
    int n_layer, n_head, n_kv_head, head_dim, n_embd, n_vocab;
    const int *layer_window;     /* [n_layer], 0: whole context; NULL where only the vocabulary is there */
    int64_t n_context_train, n_parameters;
    size_t weight_bytes, file_bytes;
    kvant_format k, v;           /* the formats really used; where layers differ, those of most layers */
    const kvant_format *layer_k, *layer_v; /* [n_layer] where layers differ (kv_budget), else NULL */
    int max_kv_size, quantized_kv_start; /* as in kvant_kv_params, 0 where they have no effect */
    double kv_bits_total;        /* per stored element, K and V of all layers together */
    const char *calibration;     /* NULL: none was needed yet. What it was made from, its tokens, its file: "built-in text, 571 tokens,
                                    /home/me/.cache/kvant/….kvcalib"; until kvant_model_calibrate. A session may make the first one */
    const char *calibration_file; /* NULL: none, or not kept */
    int n_threads;
    kvant_isa isa;
} kvant_model_info;
void kvant_model_get_info(const kvant_model *m, kvant_model_info *out);
/* Bytes of cache that n_tokens of one session take with the model's settings, or with other formats (kv as in kvant_kv_params). */
size_t kvant_model_cache_bytes(const kvant_model *m, int64_t n_tokens);
kvant_status kvant_model_cache_bytes_for(const kvant_model *m, const char *kv, int64_t n_tokens, size_t *out, kvant_error *err);

/* The formats k, v [n_layer] with which n_tokens of one session take at most max_bytes and that change the answers the least; at
 * least as many bytes as the preset lossless takes give lossless. The first call measures the model's sensitivities.
 * KVANT_EFULL: too few bytes; the sentence says the least, and the context that fits. KVANT_EUNSUPPORTED: the head_dim allows none. */
kvant_status kvant_model_choose_formats(kvant_model *m, int64_t n_tokens, size_t max_bytes, kvant_format *k, kvant_format *v,
                                        kvant_error *err);

/* A model whose keys are stored without their mean needs a calibration (kvant.h). It is found in cache_dir or made, in a few seconds,
 * when the model is opened, or by the first session that needs it; a folder that cannot be written costs the same seconds the next
 * time and a warning, a damaged file is made again.
 * kvant_model_calibrate makes one from n tokens of any text, which sessions use from now on. ids NULL: the built-in text, its first n
 * tokens, 0: all. path: the file it is written to, for calibration_file. NULL: cache_dir, where the next load finds it; the whole
 * built-in text there takes the place of any other. Existing sessions keep what they have.
 * KVANT_EINVAL: too few tokens, more than the model's context, or no weights; KVANT_EIO: it could not be written; nothing was changed. */
kvant_status kvant_model_calibrate(kvant_model *m, const int32_t *ids, int n, const char *path, kvant_error *err);
/* Finds or makes it now, unless it is there: for who wants to wait before, not with the first session. */
kvant_status kvant_model_need_calibration(kvant_model *m, kvant_error *err);
/* NULL: none was needed yet. Owned by the model, until kvant_model_calibrate. */
const kvant_calibration *kvant_model_calibration(const kvant_model *m);

/* ---- what is in a file, for people (kvant inspect) ---- */

typedef struct kvant_file kvant_file;
/* Opens without reading weights. */
kvant_status kvant_file_open(const char *path, kvant_file **out, kvant_error *err);
void kvant_file_close(kvant_file *f);
int kvant_file_n_metadata(const kvant_file *f);
/* key and a readable value (long arrays are cut with their length) into buffers of the caller, NUL-terminated, cut at their sizes. */
kvant_status kvant_file_metadata(const kvant_file *f, int index, char *key, size_t key_size, char *type, size_t type_size, char *value,
                                 size_t value_size);
typedef struct kvant_file_tensor {
    char name[128], type[16];
    int n_dims;
    int64_t dims[4];
    size_t bytes;
} kvant_file_tensor;
int kvant_file_n_tensors(const kvant_file *f);
kvant_status kvant_file_tensor_at(const kvant_file *f, int index, kvant_file_tensor *out);
/* The hyperparameters (as kvant_model_get_info, formats unset). KVANT_EUNSUPPORTED when Kvant cannot run the file: the sentence says why.
 * layer_window is owned by the file. */
kvant_status kvant_file_model_info(const kvant_file *f, kvant_model_info *out, kvant_error *err);
/* Bytes of cache for n_tokens with a format or pair. */
kvant_status kvant_file_cache_bytes(const kvant_file *f, const char *kv, int64_t n_tokens, size_t *out, kvant_error *err);

/* ---- text ---- */

void kvant_ids_free(int32_t *ids);
void kvant_string_free(char *text);
/* *ids is owned by the caller (kvant_ids_free). add_special: BOS as the vocabulary asks; parse_special: special tokens in the text count. */
kvant_status kvant_tokenize(const kvant_model *m, const char *text, size_t size, bool add_special, bool parse_special, int32_t **ids,
                            int *n, kvant_error *err);
/* All ids at once; *text is NUL-terminated and owned by the caller (kvant_string_free). */
kvant_status kvant_detokenize(const kvant_model *m, const int32_t *ids, int n, bool special, char **text, size_t *size, kvant_error *err);
bool kvant_token_is_end(const kvant_model *m, int32_t id);

/* One token at a time; never half a character. text is valid until the next call with the stream. */
typedef struct kvant_text_stream kvant_text_stream;
kvant_status kvant_text_stream_create(const kvant_model *m, bool special, kvant_text_stream **out);
void kvant_text_stream_destroy(kvant_text_stream *s);
kvant_status kvant_text_stream_push(kvant_text_stream *s, int32_t id, const char **text, size_t *size);
kvant_status kvant_text_stream_finish(kvant_text_stream *s, const char **text, size_t *size);

typedef struct kvant_message {
    const char *role, *content;
} kvant_message;
/* The prompt's text -> *text (kvant_string_free): by the chat template that the model's file carries, as it is written, with today's
 * date where it asks for one; or by a family of templates by name ("chatml", ...). Tokenize it with add_special and parse_special: a
 * BOS that the template writes is left to the tokenizer where that adds one, so that there is one of it.
 * KVANT_EINVAL: the template does not take this chat, in its own words. KVANT_EUNSUPPORTED: the file has no template, or it uses what
 * Kvant does not know; family: no such name. */
kvant_status kvant_chat_prompt(const kvant_model *m, const char *family, const kvant_message *messages, int n, char **text,
                               kvant_error *err);

/* What a chat can bring besides its messages. Texts are JSON; NULL: none. */
typedef struct kvant_chat_options {
    const char *family;            /* NULL: the file's own template; a family knows messages with text alone */
    const char *tools;             /* an array of functions that the model may call */
    const char *documents;         /* an array of documents it may look at */
    const char *variables;         /* an object of what else the template knows, e.g. {"enable_thinking": false} */
    bool without_generation_prompt; /* do not begin an answer */
} kvant_chat_options;
/* The same for messages in JSON: an array of {"role": ..., "content": ...} with whatever else the template knows (tool_calls,
 * reasoning_content, content in parts). options may be NULL. KVANT_EINVAL too: a text that is not the JSON expected. */
kvant_status kvant_chat_prompt_json(const kvant_model *m, const char *messages, const kvant_chat_options *options, char **text,
                                    kvant_error *err);

/* ---- session ---- */

typedef struct kvant_session kvant_session;

typedef struct kvant_session_params {
    int64_t n_context;         /* most tokens, 0: what the model was trained for */
    kvant_precision precision; /* KVANT_FAST; KVANT_EXACT for evaluation */
    const char *kv;            /* NULL: the model's settings; else a format or pair for this session alone (evaluation), or
                                  "budget:SIZE" for this session's n_context */
    int measure_tokens;        /* keep exact keys, values and queries of the first tokens, for kvant_session_head_noise; 0: none */
} kvant_session_params;
void kvant_session_params_default(kvant_session_params *p);
kvant_status kvant_session_create(kvant_model *m, const kvant_session_params *params, kvant_session **out, kvant_error *err);
void kvant_session_destroy(kvant_session *s);

/* Told after every chunk: done of total tokens. Returning false cancels: KVANT_ECANCELLED, the session keeps what was computed. */
typedef bool (*kvant_progress_fn)(void *user, int64_t done, int64_t total);

/* Appends n tokens in chunks of prefill_step_size; afterwards kvant_session_logits() is the row of the last one.
 * KVANT_EFULL: they do not fit the context; nothing was appended. KVANT_EINVAL: an id outside the vocabulary. */
kvant_status kvant_session_prefill(kvant_session *s, const int32_t *ids, int64_t n, kvant_progress_fn progress, void *user, kvant_error *err);
/* Appends n <= prefill_step_size tokens as one chunk and gives every row: logits [n][n_vocab]. For evaluation. */
kvant_status kvant_session_step(kvant_session *s, const int32_t *ids, int n, float *logits, kvant_error *err);
/* Appends one token. */
kvant_status kvant_session_decode(kvant_session *s, int32_t id, kvant_error *err);
/* Brings the session to exactly ids [n], n >= 1, with the logits of the last one: the longest beginning that this session, another
 * kept sequence of the model (kvant_load_params.prefix_ram) or the folder of prefixes holds is reused in the form it is stored in, and
 * the rest is computed as by kvant_session_prefill. What the session held before is kept for later, as far as the budget goes.
 * Answers are those of a new session, bit for bit (with compat_mlx: of its rules, by which they depend on where chunks began).
 * result (may be NULL) is filled on KVANT_OK and KVANT_ECANCELLED; errors as kvant_session_prefill. */
typedef struct kvant_sync_result {
    int64_t n_reused;                            /* tokens that were not computed; the sum of these three */
    int64_t n_from_session, n_from_ram, n_from_disk;
    int64_t n_lost;                              /* tokens that were known but whose pages a window has dropped, or quantized_kv_start
                                                    converted too early: computed again */
    int64_t n_computed;
} kvant_sync_result;
kvant_status kvant_session_sync(kvant_session *s, const int32_t *ids, int64_t n, kvant_progress_fn progress, void *user,
                                kvant_sync_result *result, kvant_error *err);
/* Keeps what the session holds now for later prompts; sync and destroy do so by themselves. */
kvant_status kvant_session_keep(kvant_session *s, kvant_error *err);
/* A new session with the same tokens and settings, which shares all pages. KVANT_EINVAL: of a session with measure_tokens. */
kvant_status kvant_session_fork(const kvant_session *s, kvant_session **out, kvant_error *err);
/* The ids it holds, [kvant_session_length]; owned by the session, until it changes. */
const int32_t *kvant_session_tokens(const kvant_session *s);
/* [n_vocab], of the last appended token; NULL when the session is empty or was truncated since. Owned by the session. */
const float *kvant_session_logits(const kvant_session *s);
int64_t kvant_session_length(const kvant_session *s);
int64_t kvant_session_context(const kvant_session *s);
/* The first n_tokens stay; a cache that was converted at quantized_kv_start stays converted unless n_tokens is 0.
 * KVANT_EINVAL: longer than the session. KVANT_EUNSUPPORTED: a window has dropped tokens that the rest would attend to. */
kvant_status kvant_session_truncate(kvant_session *s, int64_t n_tokens, kvant_error *err);
/* What the cache's format does to one KV head, measured on the tokens that the session has of its first measure_tokens:
 *   sigma2    the variance, over the keys that a query sees, of the error of its logits (scale * q . (stored k - k); with a soft-cap
 *             the difference of capped logits); averaged over the queries of every eighth token, in all query heads of the KV head.
 *             The first KVANT_SINK_TOKENS keys are left out. Attention's divergence is about sigma2 / 2.
 *   v_error   (may be NULL) the root of the mean square of what is wrong with attention's output, relative to that output's: the same
 *             queries, with the weights of exact keys, over stored and over exact values. Learned sinks are left out of the weights.
 * k and v are read from the cache as attention sees them, in float32; what fast kernels round is no part. Costs as much as a short
 * prefill when all heads are asked for.
 * KVANT_EINVAL: no such head, no measure_tokens, or fewer than 16 of them in the cache.
 *
 * Every session whose K is quantized makes a small form of it once, over its first 64 tokens, and warns through kvant_set_log where
 * sigma2 is as large as no working model shows. */
kvant_status kvant_session_head_noise(kvant_session *s, int layer, int kv_head, double *sigma2, double *v_error, kvant_error *err);
/* The bytes its cache really takes now, pages included that it shares with other sessions. */
size_t kvant_session_cache_bytes(const kvant_session *s);
/* The sequence under it, for tests and tools that look at pages; owned by the session. */
kvant_sequence *kvant_session_sequence(kvant_session *s);

/* ---- prompt caches of mlx-lm ----
 *
 * A file of mlx_lm's save_prompt_cache holds the keys and values of a prompt, layer by layer (KVCache, QuantizedKVCache or
 * RotatingKVCache), and how many tokens there are, but not which. */

/* The session holds the file's n tokens, ids, with its keys and values, whatever it held before; it has no logits until a token is
 * added. ids NULL, n 0: those that Kvant wrote into the file. That the ids are the file's own is the caller's word.
 * Codes of affine formats are taken over as they are where the session stores the same bits and groups (its scales are binary16, or
 * float32 in the .f32 formats); other values are stored in the session's formats, and a line to kvant_set_log says so.
 * KVANT_EIO, KVANT_EFORMAT, KVANT_EUNSUPPORTED, KVANT_EINVAL (of another model; another number of ids), KVANT_EFULL (the context),
 * KVANT_ENOMEM: the session is as it was. */
kvant_status kvant_session_import(kvant_session *s, const char *path, const int32_t *ids, int64_t n, kvant_error *err);
/* Writes what the session holds as such a file, whole or not at all, with the ids: layers in an affine format with their codes,
 * windows as rings, everything else as float16 (float32 where it is stored so). KVANT_EINVAL: an empty session; KVANT_EIO;
 * KVANT_EFULL: the disk; KVANT_ENOMEM. */
kvant_status kvant_session_export(kvant_session *s, const char *path, kvant_error *err);

/* ---- pictures ----
 *
 * A model of the kit "text+vision" reads PNG, JPEG and WebP pictures among its tokens. A picture takes one place ([IMG]) in a prompt;
 * kvant_image_expand puts there what the model reads: a negative id for each patch, row by row, [IMG_BREAK] after each row but the
 * last, [IMG_END] after that. Negative ids are made of the picture itself. Sessions take them as they take tokens, as long as the
 * picture is open, or tokens that they have already stand for it; so a second question on the same picture (kvant_session_sync)
 * computes neither the picture nor its tokens, from memory or from a folder of prefixes. kvant_batch_decode takes tokens only. */

typedef struct kvant_image kvant_image;
/* Reads a picture, which the caller closes before the model. Its features are computed by the first step that needs them, and kept
 * for a while after it is closed. Transparency is left out (colours stay as they are stored), the orientation of EXIF is applied.
 * KVANT_EIO; KVANT_EFORMAT: damaged, or none of the three; KVANT_EUNSUPPORTED: an animation, or more than 100 million pixels;
 * KVANT_EINVAL: a text model. */
kvant_status kvant_image_open(kvant_model *m, const char *path, kvant_image **out, kvant_error *err);
/* The same for the bytes of a file; name stands in the sentences. */
kvant_status kvant_image_parse(kvant_model *m, const char *name, const void *bytes, size_t size, kvant_image **out, kvant_error *err);
void kvant_image_close(kvant_image *image);

typedef struct kvant_image_info {
    int width, height;  /* pixels, as they are seen */
    int columns, rows;  /* patches */
    int n_tokens;       /* in a prompt */
} kvant_image_info;
kvant_image_info kvant_image_get_info(const kvant_image *image);

/* ids [n] with as many places as pictures, in their order -> *out (kvant_ids_free). KVANT_EINVAL: more or fewer places.
 * KVANT_EUNSUPPORTED: the vocabulary has no such tokens. */
kvant_status kvant_image_expand(const kvant_model *m, const int32_t *ids, int n, kvant_image *const *images, int n_images, int32_t **out,
                                int *n_out, kvant_error *err);
/* The id of a place, [IMG]; -1: the model has none. */
int32_t kvant_model_image_token(const kvant_model *m);

/* ---- several sessions at once ---- */

typedef struct kvant_batch_item {
    kvant_session *session; /* each session once */
    const int32_t *ids;
    int n;                  /* >= 1 */
    float *logits;          /* NULL: only the session's own last row; else [n][n_vocab], written */
} kvant_batch_item;
/* One step of the model for tokens of several sessions of it: weights are read once for all, attention is each session's own. Answers
 * have the same bits as each session would give alone. All n together are at most prefill_step_size.
 * KVANT_EINVAL: a session twice, of another model, of another precision, or too many tokens. KVANT_EFULL: some session's context.
 * KVANT_ENOMEM. On failure all sessions hold the tokens that they held, and nothing has changed, but for memory that was missing
 * where a session crosses quantized_kv_start: what was converted stays so, and kvant_session_logits may be NULL. */
kvant_status kvant_batch_decode(kvant_model *m, const kvant_batch_item *items, int n_items, kvant_error *err);

/* ---- the same model in another file ----
 *
 * A GGUF file or a model folder is written anew as the other kind, with other weights, or both. */

typedef struct kvant_convert_params {
    const char *weights; /* of all matrices: "f32", "f16", "bf16", "q8_0", "q4_0" (GGUF), "affineB:G" (folders); NULL: as they are where
                            the target has their type, else the nearest one that it has (folders: f16 for ggml's quantized types) */
    kvant_progress_fn progress; /* told of bytes; false: KVANT_ECANCELLED. NULL: nobody */
    void *user;
} kvant_convert_params;

typedef struct kvant_convert_result {
    int n_tensors, n_changed; /* n_changed: whose numbers were rounded */
    uint64_t bytes;           /* of the file with the weights */
} kvant_convert_result;

/* target: a name that ends in ".gguf", or a folder to be made; it appears whole, when everything was written and read back. Until then
 * it is TARGET.part, from which a second call with the same arguments goes on. params and result may be NULL.
 * KVANT_EINVAL: the target is there, or a type of weights that it cannot have. KVANT_EUNSUPPORTED: the target cannot say what the model
 * or its tokenizer does; the sentence says what. KVANT_EFULL: the disk; KVANT_EIO, KVANT_EFORMAT, KVANT_ENOMEM. */
kvant_status kvant_convert(const char *source, const char *target, const kvant_convert_params *params, kvant_convert_result *result,
                           kvant_error *err);

/* ---- this process ---- */

double kvant_time_seconds(void);
size_t kvant_peak_memory(void);

#ifdef __cplusplus
}
#endif

#include "kvant/answer.h"

#endif

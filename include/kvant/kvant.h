// SPDX-License-Identifier: MIT
/* kvant.h: a key/value cache that is stored quantized and attended to without unpacking it.
 *
 * A format names how the vectors of a cache are stored: `f16`, `f32`, `affine4:64` (codec, bits, group).
 * A context carries what computation needs: the kernels of this machine and a pool of threads.
 * A cache describes the layers of a model and the formats of K and V, and owns all pages of its sequences.
 * A page holds KVANT_PAGE_TOKENS tokens of one layer: the codes of K and of V for every KV head. A page that is full
 * never changes, so sequences share it freely; the last page of a shared sequence is copied before it is written.
 * A sequence is, for each layer, a list of page references and a length.
 *
 * Objects are not locked: use one object from one thread at a time. Different sequences of one cache share that cache.
 * Pointers to const are borrowed for the call. Results are written through out-pointers, and only on success. */
#ifndef KVANT_KVANT_H
#define KVANT_KVANT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status and errors ---- */

/* 0 is success; the negative values never change their meaning. */
typedef enum kvant_status {
    KVANT_OK = 0,
    KVANT_EINVAL = -1,       /* an argument is outside what its docstring allows */
    KVANT_ENOMEM = -2,       /* memory or threads are out */
    KVANT_EIO = -3,          /* the system could not open, read, write or map */
    KVANT_EFORMAT = -4,      /* a file is damaged, truncated or not what its name says */
    KVANT_EUNSUPPORTED = -5, /* well-formed, but Kvant cannot do it; the sentence names the nearest thing that works */
    KVANT_EFULL = -6,        /* the context, window or byte budget is used up */
    KVANT_ECANCELLED = -7    /* a callback asked to stop; what was computed is kept */
} kvant_status;

/* A status and one sentence for a person: file, field, expected, found. Filled only on failure. */
typedef struct kvant_error {
    kvant_status status;
    char message[1024];
} kvant_error;

/* A short lower-case name of the status, never NULL. */
const char *kvant_status_name(kvant_status st);

/* The version of the library, "MAJOR.MINOR.PATCH". */
const char *kvant_version(void);

typedef enum kvant_log_level { KVANT_LOG_INFO = 0, KVANT_LOG_WARNING = 1 } kvant_log_level;
typedef void (*kvant_log_fn)(void *user, kvant_log_level level, const char *line);
/* Sets who hears what is worth telling (a setting that was ignored, ...). NULL, the default: nobody. Set it before threads start. */
void kvant_set_log(kvant_log_fn fn, void *user);

/* ---- context: kernels and threads ---- */

typedef enum kvant_isa {
    KVANT_ISA_REF = 0,    /* portable C */
    KVANT_ISA_AVX2 = 1,   /* AVX2, FMA and F16C */
    KVANT_ISA_AVX512 = 2, /* AVX-512 F, BW, VL and VNNI */
    KVANT_ISA_BEST = 255  /* the best of this machine */
} kvant_isa;

typedef struct kvant_context kvant_context;

/* n_threads 0: the physical cores. isa: the highest level to use. KVANT_EUNSUPPORTED: this machine lacks that level.
 * *out is owned by the caller and must outlive every object made with it. */
kvant_status kvant_context_create(int n_threads, kvant_isa isa, kvant_context **out, kvant_error *err);
void kvant_context_destroy(kvant_context *ctx);
int kvant_context_threads(const kvant_context *ctx);
kvant_isa kvant_context_isa(const kvant_context *ctx);
/* "ref", "avx2", "avx512" or "best"; kvant_isa_parse gives KVANT_EINVAL for other names. */
const char *kvant_isa_name(kvant_isa isa);
kvant_status kvant_isa_parse(const char *name, kvant_isa *out);

/* ---- formats ---- */

typedef enum kvant_codec_id {
    KVANT_CODEC_F32 = 0,
    KVANT_CODEC_F16 = 1,
    KVANT_CODEC_AFFINE = 2, /* MLX's of a half precision model: bit for bit */
    KVANT_CODEC_AFFINE_F32 = 8, /* MLX's of a float32 model: values are not rounded before, scales and biases not after */
    KVANT_CODEC_BOOK = 3,   /* bc2..bc5: each block of a rotated vector uses the best of 16 codebooks */
    KVANT_CODEC_INT = 4,    /* i6, i8: integers with one scale a rotated vector */
    KVANT_CODEC_LLOYD = 5,  /* lm2..lm4: one Lloyd-Max codebook and one scale a rotated vector (TurboQuant's first stage) */
    KVANT_CODEC_ZONE = 7,   /* bz2..bz4: K only; bc, with a bit more for the elements that matter most and one less for the least */
    KVANT_CODEC_GGML = 6    /* q8_0, q5_1, q5_0, q4_1, q4_0: llama.cpp's blocks of 32, with its rotation */
} kvant_codec_id;

/* How one vector of head_dim elements is stored. Fields are 0 where the codec has none. */
typedef struct kvant_format {
    kvant_codec_id codec;
    int bits;  /* affine (both): 2, 3, 4, 5, 6, 8; bc: 2..5; bz: 2..4; i: 6, 8; lm: 2..4; q: 4, 5, 8 */
    int group; /* affine (both): 32, 64, 128 elements that share a scale and a bias; q: 0 or 1, the last digit of its name;
                  bc of 3 to 5 bits: 16 elements that share a codebook, or 0, which is 32 */
    bool bare; /* K only: keys are stored as they are, without subtracting their rotating mean */
} kvant_format;

#define KVANT_FORMAT_NAME_MAX 32

/* One format by its name: "f16", "f32", "affine4:64" ("affine4" means group 64), "affine4:64.f32", "bc4", "bc4:16", "i8", "lm4",
 * "q4_0".
 * ".bare" after the name of a format of K turns centring off ("bc4.bare"). KVANT_EINVAL with the list of what exists. */
kvant_status kvant_format_parse(const char *name, kvant_format *out, kvant_error *err);
/* A pair "K/V", one name for both, or a preset: "lossless" (i8/i8), "balanced" (bc5/bc4:16), "small" (bz4/bc4),
 * "tiny" (bz3/bc3:16). */
kvant_status kvant_format_parse_pair(const char *name, kvant_format *k, kvant_format *v, kvant_error *err);
/* The presets, best quality first: a name and the pair it stands for. */
typedef struct kvant_preset {
    const char *name, *pair;
} kvant_preset;
#define KVANT_PRESETS 4
const kvant_preset *kvant_preset_at(int index); /* NULL outside 0..KVANT_PRESETS-1 */
/* The best formats of K and of V (either may be NULL) that store a value in 2, 3, 4, 5, 6 or 8 bits, and a fraction for scales, in
 * vectors of head_dim elements (0: not known). KVANT_EINVAL: other bits. */
kvant_status kvant_format_for_bits(int bits, int head_dim, kvant_format *k, kvant_format *v);
/* Writes the canonical name, NUL-terminated. */
void kvant_format_name(const kvant_format *f, char out[KVANT_FORMAT_NAME_MAX]);
/* KVANT_OK when vectors of head_dim elements can be stored so; else KVANT_EUNSUPPORTED naming the nearest format that can. */
kvant_status kvant_format_check(const kvant_format *f, int head_dim, kvant_error *err);
bool kvant_format_equal(const kvant_format *a, const kvant_format *b);
/* Whether keys in this format are stored without their mean, which takes a calibration: all but f16, f32, affine and bare ones. */
bool kvant_format_is_centred(const kvant_format *f);
/* Total bits per stored element: codes, scales, biases, padding. */
double kvant_format_bits(const kvant_format *f, int head_dim);

/* Quantizes n groups' worth of values as MLX's mx.quantize does, bit for bit: x[n * group] -> codes[n * group] (one byte each),
 * scales[n] and biases[n] as IEEE binary16 (scale_f32 = false stores what mx.quantize gives for float16 input).
 * KVANT_EINVAL: bits or group outside the affine format. */
kvant_status kvant_affine_quantize(const float *x, int n_groups, int bits, int group, uint8_t *codes, uint16_t *scales,
                                   uint16_t *biases);

/* ---- calibration: what centring needs to know of a model ----
 *
 * Keys have a large mean that RoPE turns with the position: K at position t is R_t (mean + deviation). Formats that are not bare
 * store the deviation, with the pairs that RoPE turns scaled so that keys and queries have equal energy in each; attention adds the
 * mean's part of a score back exactly. A calibration holds, for every layer and KV head, the mean before RoPE and these scales:
 * a few hundred numbers, made once a model from a few hundred tokens of any text. A bad one costs quality, never correctness. */

/* How a layer turns its keys: pair i, elements (i, n_rot/2 + i), or (2i, 2i + 1) when interleaved, turns by position *
 * frequency[i] radians and is multiplied by magnitude; elements from n_rot on are left as they are. */
typedef struct kvant_rope_config {
    int n_rot; /* even, at most head_dim */
    bool interleaved;
    float magnitude;         /* 1 but for YaRN and LongRoPE */
    const double *frequency; /* [n_rot/2]; copied */
} kvant_rope_config;

typedef struct kvant_calibration_config {
    int n_layer, n_head, n_kv_head, head_dim;
    int n_rope;
    const kvant_rope_config *ropes; /* [n_rope]; copied */
    const int *layer_rope;          /* [n_layer]: index into ropes, -1: the layer has no positions; NULL: all 0; copied */
} kvant_calibration_config;

typedef struct kvant_calibration kvant_calibration;

/* KVANT_EINVAL: a field out of range, named. */
kvant_status kvant_calibration_create(const kvant_calibration_config *config, kvant_calibration **out, kvant_error *err);
void kvant_calibration_destroy(kvant_calibration *c);
/* Adds n tokens of one layer: k [n][n_kv_head][head_dim] and q [n][n_head][head_dim] as attention gets them, after RoPE. The first
 * KVANT_SINK_TOKENS positions are left out: they look like no others and are kept in full precision.
 * KVANT_EINVAL: no such layer, or the calibration is finished. */
kvant_status kvant_calibration_add(kvant_calibration *c, int layer, int64_t first_position, const float *k, const float *q, int n);
/* Computes means and scales; needed before a cache is made with it. KVANT_EINVAL: a layer has seen no token. */
kvant_status kvant_calibration_finish(kvant_calibration *c, kvant_error *err);
/* Tokens that every layer has seen. */
int64_t kvant_calibration_tokens(const kvant_calibration *c);
/* mean [head_dim] before RoPE and scale [head_dim] of one KV head of a finished calibration, borrowed. */
kvant_status kvant_calibration_get(const kvant_calibration *c, int layer, int kv_head, const float **mean, const float **scale);
/* Which part of the energy of a KV head's keys is their mean's, 0 to 1: how much centring can spare. A negative number where it is
 * not known: the calibration was read from bytes, or is not finished. */
double kvant_calibration_mean_share(const kvant_calibration *c, int layer, int kv_head);
/* A finished calibration as bytes (docs/FORMAT.md), with the fingerprint of its model; *bytes is freed with
 * kvant_calibration_bytes_free. */
#define KVANT_FINGERPRINT_BYTES 16
kvant_status kvant_calibration_write(const kvant_calibration *c, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES], uint8_t **bytes,
                                     size_t *size);
void kvant_calibration_bytes_free(uint8_t *bytes);
/* The opposite. KVANT_EFORMAT: damaged; KVANT_EINVAL: of another model (fingerprint or dimensions); `name` begins the sentence. */
kvant_status kvant_calibration_read(const kvant_calibration_config *config, const uint8_t fingerprint[KVANT_FINGERPRINT_BYTES],
                                    const uint8_t *bytes, size_t size, const char *name, kvant_calibration **out, kvant_error *err);

/* ---- cache ---- */

#define KVANT_PAGE_TOKENS 64
/* The first tokens: a max_kv_size window keeps them for ever; beside bc, bz, i and any centred K they stay f16. */
#define KVANT_SINK_TOKENS 4

typedef struct kvant_cache_config {
    int n_layer, n_kv_head, head_dim;
    const int *layer_window;  /* [n_layer] sliding window of each layer in tokens, 0 = whole context; NULL = all 0; copied */
    kvant_format k, v;        /* how quantized tokens are stored; f16 means never quantized */
    const kvant_format *layer_k, *layer_v; /* [n_layer] formats of each layer instead of k and v, or NULL; copied */
    const kvant_calibration *calibration; /* finished, of this model; NULL: only formats that need none (affine, bare ones, f16) */
    bool center_floats;       /* f16 and f32 keys are centred as well: for tests and comparisons */
    int quantized_kv_start;   /* the token count at which quantization begins; below it tokens are f16 */
    int max_kv_size;          /* 0: no limit. Else every layer keeps the first KVANT_SINK_TOKENS and the latest others, this many in all.
                                 With quantize_after_step as MLX's rotating buffer: tokens that are appended together see the last
                                 max_kv_size tokens, and the first ones only from the first rows */
    bool quantize_after_step; /* mlx-lm's order: tokens are appended as f16 while the cache is not quantized yet, and
                                 kvant_maybe_quantize_kv_cache converts after the chunk. false: Kvant's order: a token is
                                 encoded when it is appended (from quantized_kv_start on) */
    size_t max_bytes;         /* byte budget of all pages, 0: none */
} kvant_cache_config;

typedef struct kvant_cache kvant_cache;
typedef struct kvant_sequence kvant_sequence;

/* f16 for K and V, no windows; dimensions 0 (to be set by the caller). */
void kvant_cache_config_default(kvant_cache_config *config);
/* KVANT_EINVAL, KVANT_EUNSUPPORTED: the sentence names the field. The context must outlive the cache. */
kvant_status kvant_cache_create(kvant_context *ctx, const kvant_cache_config *config, kvant_cache **out, kvant_error *err);
/* All sequences must have been destroyed. */
void kvant_cache_destroy(kvant_cache *cache);
/* Bytes of all pages in use now. */
size_t kvant_cache_bytes(const kvant_cache *cache);
/* The bytes that n_tokens of one sequence take by the formula, windows and whole pages included, when all are quantized. */
size_t kvant_cache_bytes_for(const kvant_cache_config *config, int64_t n_tokens);

kvant_status kvant_sequence_create(kvant_cache *cache, kvant_sequence **out);
void kvant_sequence_destroy(kvant_sequence *s);
/* A new sequence with the same tokens that shares all pages. */
kvant_status kvant_sequence_fork(const kvant_sequence *s, kvant_sequence **out);
/* Tokens in the layer that has the fewest; equal in all layers between steps. */
int64_t kvant_sequence_length(const kvant_sequence *s);
/* The first n_tokens stay. KVANT_EINVAL: longer than the sequence. KVANT_EUNSUPPORTED: a window has already dropped tokens
 * that the shorter sequence would attend to; nothing was changed. */
kvant_status kvant_sequence_truncate(kvant_sequence *s, int64_t n_tokens);

/* Bytes of all pages that the sequence refers to, those included that it shares with others. */
size_t kvant_sequence_bytes(const kvant_sequence *s);
/* Windows drop no page from now on that truncating to n_tokens needs; -1: no longer held. For tokens that may be taken back. */
void kvant_sequence_hold(kvant_sequence *s, int64_t n_tokens);

/* Appends n tokens to one layer. k, v: [n][n_kv_head][head_dim], k after RoPE.
 * KVANT_ENOMEM, KVANT_EFULL (byte budget): nothing was appended. */
kvant_status kvant_sequence_append(kvant_sequence *s, int layer, const float *k, const float *v, int n);

/* Converts the whole sequence to the cache's formats when it has reached quantized_kv_start and is not converted yet;
 * otherwise does nothing. When it fails, every token is still there, some pages converted; the next call goes on.
 * To be called after every prefill chunk and every generated token, with all layers equally long.
 * *converted (may be NULL): whether this call converted. */
kvant_status kvant_maybe_quantize_kv_cache(kvant_sequence *s, bool *converted);

/* What a test or a tool may see of a page: the formats really used and how many tokens it holds. */
typedef struct kvant_page_info {
    int64_t first_token;
    int n_tokens;
    kvant_format k, v;
    size_t bytes;
    int n_references;
} kvant_page_info;
int kvant_sequence_page_count(const kvant_sequence *s, int layer);
kvant_status kvant_sequence_page_info(const kvant_sequence *s, int layer, int index, kvant_page_info *out);
/* Decodes one stored token of one KV head into k[head_dim] and v[head_dim]. KVANT_EINVAL: the token is not (or no longer) stored. */
kvant_status kvant_sequence_decode(const kvant_sequence *s, int layer, int64_t token, int kv_head, float *k, float *v);

/* ---- past sequences, by their tokens: in memory ----
 *
 * A tree of pages: each node has the pages of up to KVANT_PAGE_TOKENS tokens and is found by these tokens and all before them, so
 * that sequences with the same beginning have the same nodes. Pages are shared with the sequences that they came from and go to. */

typedef struct kvant_prefix_tree kvant_prefix_tree;

/* What is known of a list of tokens. */
typedef struct kvant_prefix_match {
    int64_t n_known;  /* so many tokens at its beginning are those of a kept sequence */
    int64_t n_usable; /* of these, so many can be taken; fewer where windows have dropped pages that the others would see, or
                         where the sequence was converted at quantized_kv_start */
} kvant_prefix_match;

/* max_bytes: of pages and nodes; the least recently used leaves go first. The cache must outlive the tree. */
kvant_status kvant_prefix_tree_create(kvant_cache *cache, size_t max_bytes, kvant_prefix_tree **out);
void kvant_prefix_tree_destroy(kvant_prefix_tree *t);
/* Keeps the pages of a sequence, which stays as it is; ids [length of s] are its tokens. KVANT_ENOMEM: some of them are kept. */
kvant_status kvant_prefix_tree_insert(kvant_prefix_tree *t, const kvant_sequence *s, const int32_t *ids);
kvant_prefix_match kvant_prefix_tree_match(const kvant_prefix_tree *t, const int32_t *ids, int64_t n);
/* A new sequence of the first match->n_usable tokens of ids [n], which count as used now; its pages are shared. */
kvant_status kvant_prefix_tree_take(kvant_prefix_tree *t, const int32_t *ids, int64_t n, kvant_sequence **out,
                                    kvant_prefix_match *match);
void kvant_prefix_tree_clear(kvant_prefix_tree *t);

typedef struct kvant_prefix_tree_stats {
    size_t bytes, max_bytes; /* of pages (those included that sequences share) and nodes */
    int64_t n_nodes, n_tokens;
    int64_t n_evicted;       /* nodes that the budget cost so far */
} kvant_prefix_tree_stats;
kvant_prefix_tree_stats kvant_prefix_tree_get_stats(const kvant_prefix_tree *t);

/* ---- past sequences, by their tokens: on disk (docs/FORMAT.md) ----
 *
 * A folder of files, one for each full block of KVANT_PAGE_TOKENS tokens, named by a hash of these tokens, of all before them and of
 * the fingerprint. Files are written whole or not at all, so several processes may use one folder at a time, and may be killed at any
 * time. A file that does not read back as it was written counts as not there. */

typedef struct kvant_store kvant_store;

typedef struct kvant_store_config {
    const char *folder;   /* made where it is missing */
    uint64_t max_bytes;   /* of all files in the folder, whoever wrote them; the least recently used go first; 0: no limit */
    uint8_t fingerprint[KVANT_FINGERPRINT_BYTES]; /* of all that decides the bytes and is not in the cache's settings: model,
                                                     calibration, precision; the store adds formats, shapes and windows itself */
    const char *label;    /* for people: which model and formats, at most 200 bytes */
} kvant_store_config;

/* KVANT_EIO: the folder cannot be made or read. Strings are copied; the cache must outlive the store. */
kvant_status kvant_store_open(kvant_cache *cache, const kvant_store_config *config, kvant_store **out, kvant_error *err);
void kvant_store_close(kvant_store *st);
/* Writes the full blocks of a sequence that the folder does not have; ids [length of s] are its tokens. What waits in full precision
 * for quantized_kv_start is not kept. Where layers have windows, a sequence is to be held (kvant_sequence_hold) at its last full block,
 * or windows may already have dropped what that block's end sees.
 * KVANT_EIO: the disk is full or read-only; what was there before is as it was, and blocks that were written stay. */
kvant_status kvant_store_put(kvant_store *st, const kvant_sequence *s, const int32_t *ids, kvant_error *err);
/* Which beginning of ids [n] it has, by the heads of the files alone. */
kvant_prefix_match kvant_store_match(kvant_store *st, const int32_t *ids, int64_t n);
/* A new sequence of as many tokens as can be read; match says how many. base: NULL, or a sequence whose first n_base tokens are those
 * of ids: its pages are shared instead of read. Damaged files are removed, told to the log, and end the sequence there. */
kvant_status kvant_store_take(kvant_store *st, const kvant_sequence *base, int64_t n_base, const int32_t *ids, int64_t n,
                              kvant_sequence **out, kvant_prefix_match *match, kvant_error *err);

/* ---- the folder of a store, for tools that have no model ---- */

/* One file of a folder: a block of KVANT_PAGE_TOKENS tokens. */
typedef struct kvant_store_entry {
    char name[33];            /* the file's, without ".kvp" */
    char parent[33];          /* of the block before it; of the first one: a name for model and settings, see family */
    char family[33];          /* the same for all blocks of one model, calibration and settings */
    char label[201];          /* for people: what the writer called model and formats */
    int64_t first_token;
    uint64_t bytes;
    double age;               /* seconds since it was used last */
    int n_layer, n_present;   /* pages that it should have and has; windows drop some */
    bool damaged;             /* the head does not read back; all above but name, bytes and age is empty */
    char reason[200];         /* where damaged */
} kvant_store_entry;

typedef bool (*kvant_store_entry_fn)(void *user, const kvant_store_entry *entry); /* false: stop, KVANT_ECANCELLED */
/* Every block of a folder in no order, by heads alone. KVANT_EIO: the folder cannot be read. */
kvant_status kvant_store_list(const char *folder, kvant_store_entry_fn fn, void *user, kvant_error *err);

typedef struct kvant_store_counts {
    int64_t n_files, n_damaged, n_removed;
    uint64_t bytes, removed_bytes; /* of all files; of those that were removed */
} kvant_store_counts;

/* Reads every block and checks every checksum; fn (may be NULL) hears of each. remove: damaged ones go. */
kvant_status kvant_store_verify(const char *folder, bool remove, kvant_store_entry_fn fn, void *user, kvant_store_counts *counts,
                                kvant_error *err);
/* Removes the blocks that were not used for max_age seconds (0: any age may stay), then the least recently used ones until max_bytes
 * are left (UINT64_MAX: any number may stay). */
kvant_status kvant_store_prune(const char *folder, uint64_t max_bytes, double max_age, kvant_store_counts *counts, kvant_error *err);

typedef struct kvant_store_page {
    kvant_format k, v;
    int64_t window;   /* tokens that the layer sees, 0: all */
    int n_exact;      /* of the block's tokens, so many lie in full precision */
    uint64_t bytes;
    bool is_present;
} kvant_store_page;

/* One file in full; KVANT_EFORMAT where its head is damaged. *out is freed with kvant_store_block_free. */
typedef struct kvant_store_block {
    kvant_store_entry entry;
    char fingerprint[33];
    int n_kv_head, head_dim, quantized_kv_start;
    int32_t ids[KVANT_PAGE_TOKENS];
    kvant_store_page *pages; /* [entry.n_layer] */
} kvant_store_block;
kvant_status kvant_store_block_read(const char *path, kvant_store_block **out, kvant_error *err);
void kvant_store_block_free(kvant_store_block *b);

/* ---- attention ---- */

typedef enum kvant_precision {
    KVANT_FAST = 0, /* queries rounded to 8 or 16 bits, a scale for each block or, with bc and lm, each vector; weights of V likewise */
    KVANT_EXACT = 1 /* float32; with bc, bz, i and lm formats 16-bit integers, whose rounding is far below the format's */
} kvant_precision;

typedef struct kvant_attend_params {
    int n_head;              /* query heads, a multiple of n_kv_head; head h reads KV head h / (n_head / n_kv_head) */
    float scale;             /* multiplies q.k, usually 1 / sqrt(head_dim) */
    float softcap;           /* 0, or c: scores become c * tanh(score / c) (Gemma 2) */
    const float *sinks;      /* NULL, or [n_head] learned logits that join the softmax and mix nothing (gpt-oss) */
    kvant_precision precision;
} kvant_attend_params;

/* Causal attention of the last n appended tokens of a layer: q, out [n][n_head][head_dim]; row i attends to the tokens up to
 * and including its own, within the layer's window. The bits of a row do not depend on n or on the number of threads.
 * KVANT_EINVAL: more rows than tokens, heads that are no multiple, or rows of an earlier append whose window has been dropped. */
kvant_status kvant_attend(kvant_sequence *s, int layer, const kvant_attend_params *params, const float *q, int n, float *out);

#ifdef __cplusplus
}
#endif
#endif

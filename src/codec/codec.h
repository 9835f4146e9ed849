// SPDX-License-Identifier: MIT
/* codec.h: what a cache format does. One file per codec, one row in codec_list.c.
 *
 * A *part* is the K or the V side of one KV head of a page: KVANT_PAGE_TOKENS vectors of head_dim elements. The codec owns its
 * bytes. Floats and affine lie as panels of 16 rows (kernel/kernels.h), so that the kernels which multiply weights attend as well:
 *   K: four panels, rows = tokens, columns = elements: scores are panel x query.
 *   V: head_dim/16 panels, rows = elements, columns = tokens: a mix is panel x weights of the tokens.
 * Kvant's own formats lie as rows, K and V alike: one row of codes for each token.
 * A codec sees vectors as the cache has turned them (cache/transform.h): centred, scaled, rotated.
 *
 * No function allocates or fails; formats are checked once, when a cache is made. */
#ifndef KVANT_CODEC_CODEC_H
#define KVANT_CODEC_CODEC_H

#include "base/status.h"
#include "kernel/kernels.h"

#define KVANT_HEAD_DIM_MAX 512
#define KVANT_QUERY_MAX KVANT_COLUMNS_MAX /* most query columns in one call of score or mix */

typedef enum kvant_side { KVANT_SIDE_K, KVANT_SIDE_V } kvant_side;

typedef struct kvant_codec kvant_codec;

typedef struct kvant_part {
    const kvant_codec *codec;
    kvant_format format;
    kvant_side side;
    int head_dim;
    size_t bytes; /* of the part, a multiple of 64 */
} kvant_part;

/* Scratch of one worker; see kvant_codec_scratch_create. */
typedef struct kvant_codec_scratch {
    uint8_t *tile;       /* [KVANT_PAGE_TOKENS][head_dim] bytes */
    float *tile_f32;     /* one panel: [max(head_dim, KVANT_PAGE_TOKENS)][16] */
    float *scale, *bias; /* [KVANT_PAGE_TOKENS][head_dim / 32] */
    float *w;            /* [KVANT_QUERY_MAX][KVANT_PAGE_TOKENS]: weights times scales */
    int8_t *wq;          /* [KVANT_QUERY_MAX][KVANT_PAGE_TOKENS] */
    float *wq_scale;     /* [KVANT_QUERY_MAX][2] */
    int16_t *wq_sum;     /* [KVANT_QUERY_MAX][4] */
    int16_t *w16;        /* [KVANT_QUERY_MAX][KVANT_PAGE_TOKENS] */
    float *w16_scale;    /* [KVANT_QUERY_MAX] */
    const uint8_t *next; /* the part that is read after this call, NULL: none; products fetch it meanwhile */
    size_t next_bytes;
    void *memory;
} kvant_codec_scratch;

/* Asks for the next part: it is a few kilobytes somewhere, so the machine cannot guess it from the last one. */
void kvant_fetch_next(const kvant_codec_scratch *s);

kvant_status kvant_codec_scratch_create(int head_dim, kvant_codec_scratch *out);
void kvant_codec_scratch_destroy(kvant_codec_scratch *s);

/* What a codec multiplies its codes with. Rounding of the query must stay well below the format's own error. */
typedef enum kvant_query_form {
    KVANT_QUERY_FLOAT,
    KVANT_QUERY_Q8,  /* blocks of 32 in 8 bits; with KVANT_EXACT the codec is given floats instead */
    KVANT_QUERY_PAIRS, /* one scale, 8 bits, for products with levels; with KVANT_EXACT the codec is given 16 bits instead */
    KVANT_QUERY_Q16  /* one scale, 16 bits: as good as floats for any of the formats */
} kvant_query_form;

/* Query vectors, already multiplied by the scale of attention, prepared once and used against every page. */
typedef struct kvant_query {
    int n, head_dim;
    const float *x; /* [n][head_dim] */
    kvant_query_form form; /* which of the arrays below to use */
    int8_t *q;       /* Q8: [n][head_dim], by quantize_q8 */
    float *q_scale;  /* [n][head_dim / 32] */
    int16_t *q_sum;  /* [n][head_dim / 16] */
    float *q_total;  /* [n][head_dim / 32], q_scale times the sum of q over each 32: what a bias is multiplied by */
    int8_t *pairs;   /* PAIRS: [n][head_dim], by quantize_pairs */
    float *pairs_scale; /* [n] */
    int16_t *q16;    /* Q16: [n][head_dim], by quantize_q16 */
    float *q16_scale; /* [n] */
} kvant_query;

/* The rotation that a format wants of its vectors: blocks of `block` elements, 0: none; or zones of these sizes, once the elements
 * are in the order of their energies, the largest first. */
#define KVANT_ZONES 3
typedef struct kvant_rotation {
    int block;
    bool signs; /* fixed random signs first */
    int n_zone, zone[KVANT_ZONES];
    float zone_units[KVANT_ZONES]; /* how large each zone's elements are to be, in units of the middle one's */
} kvant_rotation;

struct kvant_codec {
    kvant_codec_id id;
    const char *name;
    /* Whether vectors of head_dim fit; the sentence names the nearest format that does. */
    kvant_status (*check)(const kvant_format *f, int head_dim, kvant_error *err);
    /* Bytes of codes, scales and padding of a part. */
    size_t (*part_bytes)(const kvant_format *f, kvant_side side, int head_dim);
    kvant_query_form (*form)(const kvant_format *f);
    kvant_rotation (*rotation)(const kvant_format *f, kvant_side side, int head_dim);
    /* x [head_dim] -> slot 0..63; other slots are untouched. The bytes are the same with the kernels of any level. */
    void (*encode)(const kvant_part *part, uint8_t *bytes, int slot, const float *x, const kvant_kernels *k);
    void (*decode)(const kvant_part *part, const uint8_t *bytes, int slot, float *x, const kvant_kernels *k);
    /* scores [q->n][KVANT_PAGE_TOKENS] = K part . queries (written). */
    void (*score)(const kvant_part *part, const uint8_t *bytes, const kvant_query *q, float *scores, const kvant_kernels *k,
                  kvant_codec_scratch *s);
    /* acc [n][acc_stride] += weights [n][KVANT_PAGE_TOKENS] . V part; head_dim rounded up to 16 elements of acc are used.
     * exact: no weights in 8 bits. */
    void (*mix)(const kvant_part *part, const uint8_t *bytes, const float *weights, int n, bool exact, float *acc,
                size_t acc_stride, const kvant_kernels *k, kvant_codec_scratch *s);
};

const kvant_codec *kvant_codec_find(kvant_codec_id id);
/* bc, bz and i: they keep the first tokens of a sequence as f16, as any centred K does; the others only where K is centred. */
bool kvant_format_is_own(const kvant_format *f);
/* affine, whatever its scales are. */
bool kvant_format_is_affine(const kvant_format *f);
/* A slot of a part of an affine format as MLX has it: codes [head_dim], one byte each, scales and biases [head_dim / group] (rounded
 * to what the format stores when they are put). */
void kvant_affine_put_codes(const kvant_part *part, uint8_t *bytes, int slot, const uint8_t *codes, const float *scales,
                            const float *biases);
void kvant_affine_get_codes(const kvant_part *part, const uint8_t *bytes, int slot, uint8_t *codes, float *scales, float *biases);
/* For codecs that want none. */
kvant_rotation kvant_rotation_none(const kvant_format *f, kvant_side side, int head_dim);
/* A part of a checked format. */
kvant_part kvant_part_make(const kvant_format *f, kvant_side side, int head_dim);

/* x [n] as binary16, to nearest; magnitudes above 65504 become 65504 and what is not a number 0. n <= KVANT_HEAD_DIM_MAX. */
void kvant_round_to_half(uint16_t *y, const float *x, int n, const kvant_kernels *k);

extern const kvant_codec kvant_codec_f16, kvant_codec_f32, kvant_codec_affine, kvant_codec_book, kvant_codec_int, kvant_codec_lloyd,
    kvant_codec_ggml, kvant_codec_zone, kvant_codec_affine_f32;

#endif

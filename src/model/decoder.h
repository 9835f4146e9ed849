// SPDX-License-Identifier: MIT
/* decoder.h: a decoder-only transformer, as a model file describes it, and its forward pass.
 *
 * Families differ in traits (arch_traits.h); one forward pass reads them. Weights are shared and read-only; everything that
 * changes lives in a kvant_workspace (scratch) and a kvant_sequence (cache). */
#ifndef KVANT_MODEL_DECODER_H
#define KVANT_MODEL_DECODER_H

#include "base/context.h"
#include "file/gguf.h"
#include "kvant/kvant.h"

typedef struct kvant_decoder kvant_decoder;

typedef struct kvant_decoder_info {
    char architecture[32];
    int n_layer, n_head, n_kv_head, head_dim, n_embd, n_vocab;
    int64_t n_context;         /* the context the model was trained for */
    bool mlx_own_cache;        /* mlx-lm makes the cache of such a model without asking for max_kv_size */
    const int *layer_window;   /* [n_layer], 0 = whole context; owned by the decoder */
    float attention_scale, attention_softcap; /* as in kvant_attend_params; 0 from kvant_decoder_peek */
    size_t weight_bytes;       /* resident weights after repacking */
    int64_t n_parameters;
} kvant_decoder_info;

/* Reads hyperparameters, checks every tensor's shape and repacks the weights. `f` must stay open as long as the decoder (rows of
 * the token embedding are read from the map). KVANT_EUNSUPPORTED: the architecture is not in the table (named, with the list). */
kvant_status kvant_decoder_load(kvant_context *ctx, const kvant_gguf *f, kvant_decoder **out, kvant_error *err);
void kvant_decoder_destroy(kvant_decoder *d);
void kvant_decoder_get_info(const kvant_decoder *d, kvant_decoder_info *out);
/* The hyperparameters alone, without reading weights: for kvant inspect. layer_window is NULL then. */
kvant_status kvant_decoder_peek(const kvant_gguf *f, kvant_decoder_info *out, kvant_error *err);
/* The windows of its layers, [n_layer], 0 = whole context; *out is freed by the caller (kvant_free). */
kvant_status kvant_decoder_peek_windows(const kvant_gguf *f, int **out, kvant_error *err);
/* The names of all architectures, comma-separated. */
const char *kvant_decoder_architectures(void);

/* The layers and positions of a calibration of this decoder; arrays live as long as the decoder. */
#define KVANT_DECODER_ROPES 2
void kvant_decoder_calibration_config(const kvant_decoder *d, kvant_rope_config ropes[KVANT_DECODER_ROPES],
                                      kvant_calibration_config *out);

/* Scratch for at most n_max tokens a step; planned once, so a step allocates nothing. */
typedef struct kvant_workspace kvant_workspace;
kvant_status kvant_workspace_create(const kvant_decoder *d, int n_max, kvant_workspace **out, kvant_error *err);
void kvant_workspace_destroy(kvant_workspace *w);
/* Shown every layer of a step before its n tokens are stored: k, v [n][n_kv_head][head_dim] and q [n][n_head][head_dim] as the cache
 * and attention get them. A failure ends the step. */
typedef kvant_status (*kvant_observe_fn)(void *user, int layer, int64_t first_position, const float *k, const float *v, const float *q,
                                         int n);
/* All further steps are shown to fn; NULL: no longer. */
void kvant_workspace_observe(kvant_workspace *w, kvant_observe_fn fn, void *user);
/* An observer that adds keys and queries to its user, a kvant_calibration. */
kvant_status kvant_observe_for_calibration(void *calibration, int layer, int64_t first_position, const float *k, const float *v,
                                           const float *q, int n);

/* Appends n <= n_max tokens to the sequence and computes them: positions are the sequence's length and up. logits: NULL, or
 * [n_logits][n_vocab] for the last n_logits of the n positions.
 * KVANT_EINVAL: an id outside the vocabulary, or n or n_logits out of range. KVANT_ENOMEM, KVANT_EFULL: from the cache; the
 * sequence is truncated to where it was.
 * The bits of a row of logits do not depend on how tokens were split into steps, nor on the number of threads. */
kvant_status kvant_decoder_forward(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                   kvant_precision precision, float *logits, int n_logits);
/* A step for several sequences: what each adds to it. */
typedef struct kvant_segment {
    kvant_sequence *s;         /* each sequence once */
    const int32_t *ids;        /* [n] */
    int n;
    float *logits;             /* [n_logits][n_vocab], of the last n_logits of its n positions */
    int n_logits;
    kvant_observe_fn observe;  /* as kvant_workspace_observe, for this segment's rows alone; NULL: nobody */
    void *observer;
    const float *const *rows;  /* NULL, or [n]: where it is not NULL, what is read instead of the embedding of ids[i] ([n_embd], of a
                                  picture's patch); the id is not looked at */
} kvant_segment;
/* kvant_decoder_forward for all segments at once: weights are read once. All n together are at most n_max; the sequences may be of
 * several caches with the decoder's context, layers and heads. Rows have the same bits as alone. Errors as above, and KVANT_EINVAL
 * for a sequence that is there twice; every sequence is truncated to where it was. */
kvant_status kvant_decoder_forward_batch(const kvant_decoder *d, kvant_workspace *w, const kvant_segment *segments, int n_segments,
                                         kvant_precision precision);
/* The layers [first, end) of a step alone: x [n][n_embd], the stream between layers, is read where first > 0 and written where end is
 * not the last layer's; logits only with the last. For measuring what one layer does: the other layers of the sequence stay as they
 * are, so it must be empty (or hold as many tokens in every layer). */
kvant_status kvant_decoder_forward_layers(const kvant_decoder *d, kvant_workspace *w, kvant_sequence *s, const int32_t *ids, int n,
                                          kvant_precision precision, int first, int end, float *x, float *logits, int n_logits);

#endif

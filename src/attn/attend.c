// SPDX-License-Identifier: MIT
/* attend.c: causal attention of the last tokens of a layer, straight from the pages, for one sequence or several at once.
 *
 * The queries of one KV head (those of all tokens and of all heads that share it) are columns; every page is expanded once and
 * multiplies a whole block of columns. Softmax is online: page after page within a run of 16 pages, then run after run. The unit
 * of parallel work is a block of columns of one KV head of one sequence against all its pages; where there are too few of these to
 * keep the threads busy (decode of one long sequence), it is one run. Both ways add the same numbers in the same order, so a row
 * has the same bits however it was computed, and whatever else was.
 *
 * Not here: how a format scores and mixes (codec/), which pages exist (cache/). */
#include <math.h>
#include <string.h>

#include "attn/attend.h"
#include "base/memory.h"
#include "cache/page.h"

#define TOKENS KVANT_PAGE_TOKENS
#define JOBS_AN_ITEM (1 + KVANT_SINK_TOKENS)
#define RUN_PAGES KVANT_RUN_PAGES
#define RUN_BLOCKS KVANT_RUN_BLOCKS
#define RUNS_AT_ONCE 16 /* the most partial results that are kept for one KV head */
#define TASKS_A_THREAD 4 /* a task longer than this part of a thread's share is cut into runs */
#define PAGE_COLUMNS 8   /* expanding a page costs about as much as multiplying it with so many columns */
#define COLUMNS KVANT_QUERY_MAX

/* The softmax of some columns so far: the largest score, the sum of exponentials, the mixed values (not divided yet). */
typedef struct softmax_state {
    float *max, *sum; /* [columns] */
    float *acc;       /* [columns][stride] */
} softmax_state;

typedef struct worker_scratch {
    kvant_codec_scratch codec;
    float *x, *scores;         /* [COLUMNS][head_dim], [COLUMNS][64] */
    float *turn;               /* [COLUMNS][head_dim]: the queries' pairs against the mean of the keys */
    float *turned;             /* the same at the beginning of a run */
    float *still;              /* [COLUMNS]: what does not turn */
    float *mean;               /* [COLUMNS][RUN_BLOCKS]: query times mean, for each block of a run */
    kvant_query query;         /* its arrays belong to this worker */
    bool has_q8, has_q16, has_pairs; /* of the queries that are in query.x now */
    int64_t position[COLUMNS]; /* of these queries, rising */
    softmax_state run, total;
    void *memory;
} worker_scratch;

/* One sequence of a batch. */
typedef struct attend_job {
    kvant_sequence *s;
    const kvant_page_list *layer;
    kvant_window window;
    int64_t skip; /* of the first tokens that the window keeps, those before it are not seen */
    const kvant_attend_params *params;
    const float *q;
    float *out;
    int layer_index;
    const kvant_transforms *transforms;
    int n, group;         /* query tokens; query heads of a KV head */
    int64_t first;        /* position of the first query */
    int run_first, n_run; /* runs of pages before run_first lie before every window; with by_runs it moves from round to round */
    int n_block;          /* blocks of columns for each KV head */
    int block_columns;
    int64_t cost;         /* of one task that takes all runs */
    bool by_runs;         /* tasks are single runs, in rounds of n_slot at most */
    int n_slot, n_now;    /* n_now: runs of this round */
    int first_task;       /* of this round; tasks of the KV heads take turns */
    softmax_state *partial, *total; /* by_runs: [n_kv_head][n_slot], [n_kv_head] */
    struct kvant_attend_scratch *scratch;
    const kvant_kernels *k;
} attend_job;

struct kvant_attend_scratch {
    int n_worker;
    size_t stride;           /* floats of acc a column: head_dim rounded up to 16 */
    worker_scratch *workers; /* [n_worker] */
    attend_job *jobs;        /* [job_room] */
    int n_job, job_room;
    softmax_state *states;   /* [state_room]: of jobs by runs */
    void *state_memory;
    size_t state_room, float_room;
};

static size_t state_floats(size_t columns, size_t stride) { return columns * (stride + 2); }

static softmax_state state_at(float *p, size_t columns, size_t stride) {
    return (softmax_state){p + columns * stride, p + columns * (stride + 1), p};
}

static kvant_status worker_create(int head_dim, size_t stride, worker_scratch *w) {
    size_t d = (size_t)head_dim, n = COLUMNS, blocks = d / 32 + 1;
    size_t floats = 3 * n * d + n * TOKENS + 2 * state_floats(n, stride) + 2 * n * blocks + n * (RUN_BLOCKS + 3);
    size_t room = floats * sizeof(float) + n * (2 * blocks + d) * sizeof(int16_t) + 2 * n * d;
    KVANT_TRY(kvant_codec_scratch_create(head_dim, &w->codec));
    w->memory = kvant_alloc_aligned(room, 1);
    if (!w->memory) return KVANT_ENOMEM;
    float *p = w->memory;
    w->run = state_at(p, n, stride);
    p += state_floats(n, stride);
    w->total = state_at(p, n, stride);
    p += state_floats(n, stride);
    w->scores = p;
    p += n * TOKENS;
    w->x = p;
    p += n * d;
    w->query.q_scale = p;
    p += n * blocks;
    w->query.q_total = p;
    p += n * blocks;
    w->turn = p;
    p += n * d;
    w->turned = p;
    p += n * d;
    w->mean = p;
    p += n * RUN_BLOCKS;
    w->still = p;
    p += n;
    w->query.q16_scale = p;
    p += n;
    w->query.pairs_scale = p;
    p += n;
    w->query.q16 = (int16_t *)(void *)p;
    w->query.q_sum = w->query.q16 + n * d;
    w->query.q = (int8_t *)(w->query.q_sum + n * 2 * blocks);
    w->query.pairs = w->query.q + n * d;
    return KVANT_OK;
}

static void scratch_destroy(kvant_attend_scratch *s) {
    for (int i = 0; i < s->n_worker; i++) {
        kvant_codec_scratch_destroy(&s->workers[i].codec);
        kvant_free_aligned(s->workers[i].memory);
    }
    kvant_free(s->workers);
    kvant_free(s->jobs);
    kvant_free(s->states);
    kvant_free_aligned(s->state_memory);
    kvant_free(s);
}

static kvant_status scratch_create(const kvant_cache *cache, kvant_attend_scratch **out) {
    kvant_attend_scratch *s = kvant_alloc(1, sizeof *s);
    if (!s) return KVANT_ENOMEM;
    int head_dim = cache->config.head_dim;
    s->stride = ((size_t)head_dim + 15) / 16 * 16;
    s->n_worker = kvant_pool_size(cache->ctx->pool);
    s->workers = kvant_alloc((size_t)s->n_worker, sizeof *s->workers);
    kvant_status st = s->workers ? KVANT_OK : KVANT_ENOMEM;
    if (!s->workers) s->n_worker = 0;
    for (int i = 0; i < s->n_worker && st == KVANT_OK; i++)
        st = worker_create(head_dim, s->stride, &s->workers[i]);
    if (st != KVANT_OK) {
        scratch_destroy(s);
        return st;
    }
    *out = s;
    return KVANT_OK;
}

/* Room for n_item jobs. */
static kvant_status reserve_jobs(kvant_attend_scratch *s, int n_item) {
    if (n_item > s->job_room) {
        attend_job *jobs = kvant_realloc(s->jobs, (size_t)n_item, sizeof *jobs);
        if (!jobs) return KVANT_ENOMEM;
        s->jobs = jobs;
        s->job_room = n_item;
    }
    s->n_job = 0;
    return KVANT_OK;
}

static size_t job_states(const attend_job *j) { return (size_t)j->s->cache->config.n_kv_head * (size_t)(j->n_slot + 1); }

/* Floats of one state of a job, whole cache lines. */
static size_t job_state_floats(const attend_job *j) { return (state_floats((size_t)j->block_columns, j->scratch->stride) + 15) / 16 * 16; }

/* Gives the jobs by runs their partial states; room is made when so many are first seen. */
static kvant_status reserve_states(kvant_attend_scratch *s) {
    size_t n = 0, floats = 0;
    for (int i = 0; i < s->n_job; i++) {
        const attend_job *j = &s->jobs[i];
        if (!j->by_runs) continue;
        n += job_states(j);
        floats += job_states(j) * job_state_floats(j);
    }
    if (n > s->state_room) {
        softmax_state *states = kvant_realloc(s->states, n, sizeof *states);
        if (!states) return KVANT_ENOMEM;
        s->states = states;
        s->state_room = n;
    }
    if (floats > s->float_room) {
        void *memory = kvant_alloc_aligned(floats, sizeof(float));
        if (!memory) return KVANT_ENOMEM;
        kvant_free_aligned(s->state_memory);
        s->state_memory = memory;
        s->float_room = floats;
    }
    softmax_state *state = s->states;
    float *at = s->state_memory;
    for (int i = 0; i < s->n_job; i++) {
        attend_job *j = &s->jobs[i];
        if (!j->by_runs) continue;
        j->partial = state;
        j->total = state + j->s->cache->config.n_kv_head * j->n_slot;
        for (size_t k = job_states(j); k > 0; k--, at += job_state_floats(j))
            *state++ = state_at(at, (size_t)j->block_columns, s->stride);
    }
    return KVANT_OK;
}

/* ---- one block of columns ---- */

static int64_t column_position(const attend_job *j, int column) { return j->first + column / j->group; }

static int query_head(const attend_job *j, int kv_head, int column) { return kv_head * j->group + column % j->group; }

static const kvant_layer_transform *transform_of(const attend_job *j) { return &j->transforms->layers[j->layer_index]; }

/* Copies columns [c0, c0 + n) of a KV head, multiplied by the scale of attention and transformed like the keys; integers are made
 * when a format asks. */
static void gather_queries(const attend_job *j, int kv_head, int c0, int n, worker_scratch *w) {
    size_t d = (size_t)j->s->cache->config.head_dim, n_head = (size_t)j->params->n_head;
    for (int c = 0; c < n; c++) {
        size_t row = (size_t)((c0 + c) / j->group) * n_head + (size_t)query_head(j, kv_head, c0 + c);
        w->position[c] = column_position(j, c0 + c);
        float *x = w->x + (size_t)c * d;
        memcpy(x, j->q + row * d, d * sizeof(float));
        j->k->scale_f32(x, j->params->scale, (int)d);
        if (transform_of(j)->centred)
            w->still[c] = kvant_transform_mean_query(j->transforms, j->layer_index, kv_head, x, w->turn + (size_t)c * d);
        kvant_transform_query(j->transforms, j->layer_index, kv_head, x, j->k);
    }
    w->query.n = n;
    w->query.head_dim = (int)d;
    w->query.x = w->x;
    w->has_q8 = w->has_q16 = w->has_pairs = false;
}

/* Queries become integers when the first page asks for them; a sequence may hold pages of several formats. */
static void prepare_for(const attend_job *j, const kvant_part *part, worker_scratch *w) {
    kvant_query *q = &w->query;
    size_t d = (size_t)q->head_dim;
    q->form = part->codec->form(&part->format);
    if (q->form == KVANT_QUERY_Q8 && j->params->precision == KVANT_EXACT) q->form = KVANT_QUERY_FLOAT;
    if (q->form == KVANT_QUERY_PAIRS && j->params->precision == KVANT_EXACT) q->form = KVANT_QUERY_Q16;
    if (q->form == KVANT_QUERY_Q8 && !w->has_q8) {
        for (size_t c = 0; c < (size_t)q->n; c++)
            j->k->quantize_q8(q->q + c * d, q->q_scale + c * (d / 32), q->q_sum + c * (d / 16), q->x + c * d, (int)d);
        for (size_t i = 0; i < (size_t)q->n * (d / 32); i++)
            q->q_total[i] = q->q_scale[i] * (float)(q->q_sum[2 * i] + q->q_sum[2 * i + 1]);
        w->has_q8 = true;
    }
    if (q->form == KVANT_QUERY_PAIRS && !w->has_pairs) {
        for (size_t c = 0; c < (size_t)q->n; c++)
            q->pairs_scale[c] = j->k->quantize_pairs(q->pairs + c * d, q->x + c * d, (int)d);
        w->has_pairs = true;
    }
    if (q->form == KVANT_QUERY_Q16 && !w->has_q16) {
        for (size_t c = 0; c < (size_t)q->n; c++)
            q->q16_scale[c] = j->k->quantize_q16(q->q16 + c * d, q->x + c * d, (int)d);
        w->has_q16 = true;
    }
}

/* In a function of its own, so that compilers see a loop of known length. */
static void fill_run(float *to, float value) {
    for (int b = 0; b < RUN_BLOCKS; b++)
        to[b] = value;
}

/* What the mean of the keys adds to the scores, for every block of a run: one small product for 1,024 tokens. */
static void score_means(const attend_job *j, int run, worker_scratch *w) {
    const kvant_layer_transform *l = transform_of(j);
    size_t n = (size_t)w->query.n, d = (size_t)w->query.head_dim;
    for (size_t c = 0; c < n; c++)
        fill_run(w->mean + c * RUN_BLOCKS, w->still[c]);
    if (l->rope < 0) return;
    const kvant_rope_table *rope = &j->transforms->ropes[l->rope];
    size_t fast = 2 * (size_t)rope->n_fast; /* these columns are zero */
    for (size_t c = 0; c < n; c++)
        kvant_transform_turn_run(j->transforms, j->layer_index, run, w->turn + c * d, w->turned + c * d);
    for (int p = 0; p < RUN_BLOCKS / KVANT_PANEL_ROWS; p++) {
        const float *panel = rope->within + ((size_t)p * (size_t)rope->n_rot + fast) * KVANT_PANEL_ROWS;
        kvant_product_f32 args = {panel, rope->n_rot - (int)fast,        (int)n,    w->turned + fast,
                                  d,     w->mean + p * KVANT_PANEL_ROWS, RUN_BLOCKS};
        j->k->product_f32(&args);
    }
}

/* Adds it to the scores of columns [from, to) of a page: one number a block of tokens, and the pairs that turn fast, token by
 * token. */
static void add_means(const attend_job *j, int index, int from, int to, worker_scratch *w) {
    const kvant_layer_transform *l = transform_of(j);
    const kvant_rope_table *rope = l->rope < 0 ? NULL : &j->transforms->ropes[l->rope];
    int page = index % RUN_PAGES, n_fast = rope ? rope->n_fast : 0;
    kvant_mean_scores args = {rope ? rope->centres + (size_t)page * 2 * (size_t)n_fast : NULL,
                              rope ? rope->sides : NULL,
                              n_fast,
                              to - from,
                              w->turned + (size_t)from * (size_t)w->query.head_dim,
                              (size_t)w->query.head_dim,
                              w->mean + from * RUN_BLOCKS + page * (TOKENS / KVANT_MEAN_BLOCK),
                              RUN_BLOCKS,
                              w->scores + (size_t)from * TOKENS};
    j->k->mean_scores(&args);
}

/* The first tokens, which a page keeps in full precision beside its parts. */
static void score_exact(const attend_job *j, const kvant_page *page, int kv_head, worker_scratch *w) {
    float k[KVANT_HEAD_DIM_MAX];
    int d = w->query.head_dim;
    for (int t = 0; t < page->layout->n_exact; t++) {
        j->k->f16_to_f32(k, kvant_page_exact_k(page, kv_head) + (size_t)t * (size_t)d, d);
        for (int c = 0; c < w->query.n; c++)
            w->scores[(size_t)c * TOKENS + (size_t)t] = j->k->dot_f32(w->query.x + (size_t)c * (size_t)d, k, d);
    }
}

static void mix_exact(const attend_job *j, const kvant_page *page, int kv_head, const float *weights, int n, float *acc) {
    float v[KVANT_HEAD_DIM_MAX];
    int d = page->layout->v.head_dim;
    for (int t = 0; t < page->layout->n_exact; t++) {
        j->k->f16_to_f32(v, kvant_page_exact_v(page, kv_head) + (size_t)t * (size_t)d, d);
        for (int c = 0; c < n; c++)
            j->k->add_scaled_f32(acc + (size_t)c * j->scratch->stride, v, weights[(size_t)c * TOKENS + (size_t)t], d);
    }
}

static void reset_state(softmax_state *st, int n, size_t stride) {
    for (int c = 0; c < n; c++)
        st->max[c] = -INFINITY;
    memset(st->sum, 0, (size_t)n * sizeof(float));
    memset(st->acc, 0, (size_t)n * stride * sizeof(float));
}

/* Scores that the query at `position` may not see become -inf. */
static void mask_scores(float *scores, const attend_job *j, int64_t page_first, int64_t position) {
    kvant_window w = j->window;
    int64_t low = w.size > 0 ? position - w.size + 1 - page_first : 0, high = position + 1 - page_first,
            keep = w.keep - page_first, skip = j->skip - page_first;
    for (int64_t t = 0; t < TOKENS; t++)
        if (t >= high || (t < low && (t >= keep || t < skip))) scores[t] = -INFINITY;
}

/* Scores of one column and page -> weights in place; the state is rescaled to the new largest score. */
static void softmax_page(const attend_job *j, float *scores, softmax_state *st, int c, size_t stride) {
    float max = j->k->max_f32(scores, TOKENS);
    if (max == -INFINITY) {
        memset(scores, 0, TOKENS * sizeof(float));
        return;
    }
    if (max > st->max[c]) {
        float shrink = st->max[c] == -INFINITY ? 0.0f : expf(st->max[c] - max);
        st->sum[c] *= shrink;
        if (shrink != 0.0f)
            j->k->scale_f32(st->acc + (size_t)c * stride, shrink, (int)stride);
        else
            memset(st->acc + (size_t)c * stride, 0, stride * sizeof(float));
        st->max[c] = max;
    }
    st->sum[c] += j->k->exp_sum(scores, TOKENS, st->max[c]);
}

/* last_index: the last page of the run that is read. */
static void attend_page(const attend_job *j, int index, int last_index, int kv_head, softmax_state *st, worker_scratch *w) {
    const kvant_page *page = j->layer->pages[index], *next = index < last_index ? j->layer->pages[index + 1] : NULL;
    int64_t first = (int64_t)index * TOKENS, last = first + TOKENS - 1;
    size_t stride = j->scratch->stride;
    int n = w->query.n, from = 0, to = n;
    if (!page) return;
    /* Columns are in the order of their positions: those before the page, and those whose window has left it, see nothing. */
    while (from < n && w->position[from] < first)
        from++;
    if (j->window.size > 0 && first >= j->window.keep)
        while (to > from && w->position[to - 1] - last >= j->window.size)
            to--;
    if (from == to) return;
    const kvant_part *k = &page->layout->k, *v = &page->layout->v;
    prepare_for(j, k, w);
    w->codec.next = kvant_page_v(page, kv_head);
    w->codec.next_bytes = v->bytes;
    k->codec->score(k, kvant_page_k(page, kv_head), &w->query, w->scores, j->k, &w->codec);
    score_exact(j, page, kv_head, w);
    if (transform_of(j)->centred) add_means(j, index, from, to, w);
    for (int c = from; c < to; c++) {
        float *scores = w->scores + (size_t)c * TOKENS, cap = j->params->softcap;
        int64_t position = w->position[c];
        if (cap > 0.0f)
            for (int t = 0; t < TOKENS; t++)
                scores[t] = cap * tanhf(scores[t] / cap);
        bool whole = position >= last && (j->window.size == 0 || position - first < j->window.size);
        if (!whole) mask_scores(scores, j, first, position);
        softmax_page(j, scores, st, c, stride);
    }
    w->codec.next = next ? kvant_page_k(next, kv_head) : NULL;
    w->codec.next_bytes = next ? next->layout->k.bytes : 0;
    v->codec->mix(v, kvant_page_v(page, kv_head), w->scores + (size_t)from * TOKENS, to - from,
                  j->params->precision == KVANT_EXACT, st->acc + (size_t)from * stride, stride, j->k, &w->codec);
    mix_exact(j, page, kv_head, w->scores + (size_t)from * TOKENS, to - from, st->acc + (size_t)from * stride);
}

static void attend_run(const attend_job *j, int run, int kv_head, softmax_state *st, worker_scratch *w) {
    reset_state(st, w->query.n, j->scratch->stride);
    int64_t last = w->position[w->query.n - 1] / TOKENS, end = (int64_t)(run + 1) * RUN_PAGES - 1;
    if (last > end) last = end;
    if (transform_of(j)->centred && last >= (int64_t)run * RUN_PAGES) score_means(j, run, w);
    for (int64_t i = (int64_t)run * RUN_PAGES; i <= last; i++)
        attend_page(j, (int)i, (int)last, kv_head, st, w);
}

/* total += run, both relative to their own largest score. */
static void merge_run(const attend_job *j, softmax_state *total, const softmax_state *run, int n) {
    size_t stride = j->scratch->stride;
    for (int c = 0; c < n; c++) {
        float *acc = total->acc + (size_t)c * stride;
        const float *part = run->acc + (size_t)c * stride;
        if (run->max[c] == -INFINITY) continue;
        if (total->max[c] == -INFINITY) {
            total->max[c] = run->max[c];
            total->sum[c] = run->sum[c];
            memcpy(acc, part, stride * sizeof(float));
            continue;
        }
        float max = run->max[c] > total->max[c] ? run->max[c] : total->max[c];
        float a = expf(total->max[c] - max), b = expf(run->max[c] - max);
        total->sum[c] = total->sum[c] * a + run->sum[c] * b;
        j->k->scale_f32(acc, a, (int)stride);
        j->k->add_scaled_f32(acc, part, b, (int)stride);
        total->max[c] = max;
    }
}

/* Divides by the sum (a sink joins it and mixes nothing) and writes the rows of out. */
static void finish_columns(const attend_job *j, int kv_head, int c0, int n, softmax_state *total) {
    size_t d = (size_t)j->s->cache->config.head_dim, n_head = (size_t)j->params->n_head;
    for (int c = 0; c < n; c++) {
        int head = query_head(j, kv_head, c0 + c);
        float sum = total->sum[c], factor = 1.0f;
        if (j->params->sinks) {
            float sink = j->params->sinks[head], max = total->max[c] > sink ? total->max[c] : sink;
            factor = expf(total->max[c] - max);
            sum = sum * factor + expf(sink - max);
        }
        float *out = j->out + ((size_t)((c0 + c) / j->group) * n_head + (size_t)head) * d;
        memcpy(out, total->acc + (size_t)c * j->scratch->stride, d * sizeof(float));
        j->k->scale_f32(out, sum > 0 ? factor / sum : 0.0f, (int)d);
        kvant_transform_value_back(j->transforms, j->layer_index, out, j->k);
    }
}

/* One block of columns of one KV head against all runs. */
static void block_task(const attend_job *j, int task, worker_scratch *w) {
    int n_kv_head = j->s->cache->config.n_kv_head, kv_head = task % n_kv_head;
    /* Later blocks see more pages; they start first, so that the threads end together. */
    int block = j->n_block - 1 - task / n_kv_head, c0 = block * j->block_columns, n = j->n * j->group - c0;
    if (n > j->block_columns) n = j->block_columns;
    gather_queries(j, kv_head, c0, n, w);
    reset_state(&w->total, n, j->scratch->stride);
    for (int run = j->run_first; run < j->n_run; run++) {
        attend_run(j, run, kv_head, &w->run, w);
        merge_run(j, &w->total, &w->run, n);
    }
    finish_columns(j, kv_head, c0, n, &w->total);
}

/* All columns of one KV head against one run. */
static void run_task(const attend_job *j, int task, worker_scratch *w) {
    int n_kv_head = j->s->cache->config.n_kv_head, kv_head = task % n_kv_head, slot = task / n_kv_head;
    gather_queries(j, kv_head, 0, j->n * j->group, w);
    attend_run(j, j->run_first + slot, kv_head, &j->partial[kv_head * j->n_slot + slot], w);
}

/* ---- a batch ---- */

static void batch_task(void *arg, int task, int worker) {
    const kvant_attend_scratch *s = arg;
    int low = 0, high = s->n_job - 1; /* the last job that begins at this task or before */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (s->jobs[middle].first_task <= task)
            low = middle;
        else
            high = middle - 1;
    }
    const attend_job *j = &s->jobs[low];
    (j->by_runs ? run_task : block_task)(j, task - j->first_task, &s->workers[worker]);
}

/* Merges the runs of a round in their order, and ends a sequence after its last. */
static void merge_round(attend_job *j) {
    int n_kv_head = j->s->cache->config.n_kv_head, columns = j->n * j->group;
    for (int h = 0; h < n_kv_head; h++)
        for (int i = 0; i < j->n_now; i++)
            merge_run(j, &j->total[h], &j->partial[h * j->n_slot + i], columns);
    j->run_first += j->n_now;
    if (j->run_first < j->n_run) return;
    for (int h = 0; h < n_kv_head; h++)
        finish_columns(j, h, 0, columns, &j->total[h]);
}

/* The first round has all tasks of jobs that are not by runs; the others go on, n_slot runs a round. */
static void run_rounds(kvant_attend_scratch *s, kvant_pool *pool) {
    for (int i = 0; i < s->n_job; i++)
        for (int h = 0; s->jobs[i].by_runs && h < s->jobs[i].s->cache->config.n_kv_head; h++)
            reset_state(&s->jobs[i].total[h], s->jobs[i].block_columns, s->stride);
    for (bool first = true;; first = false) {
        int n_task = 0;
        for (int i = 0; i < s->n_job; i++) {
            attend_job *j = &s->jobs[i];
            int left = j->n_run - j->run_first;
            j->n_now = j->by_runs ? (left < j->n_slot ? left : j->n_slot) : first ? j->n_block : 0;
            j->first_task = n_task;
            n_task += j->n_now * j->s->cache->config.n_kv_head;
        }
        if (n_task == 0) return;
        kvant_pool_run(pool, n_task, batch_task, s);
        for (int i = 0; i < s->n_job; i++)
            if (s->jobs[i].by_runs && s->jobs[i].n_now > 0) merge_round(&s->jobs[i]);
    }
}

/* Rows of an item that share a window: n rows from row `from` on, and what they see. */
typedef struct row_range {
    int from, n;
    kvant_window window;
    int64_t skip;
} row_range;

/* KVANT_EINVAL: the item cannot be attended to. */
static kvant_status plan_job(const kvant_attend_item *item, const row_range *rows, int layer, const kvant_attend_params *params,
                             kvant_attend_scratch *scratch) {
    kvant_cache *cache = item->s->cache;
    const kvant_page_list *l = &item->s->layers[layer];
    size_t row = (size_t)rows->from * (size_t)params->n_head * (size_t)cache->config.head_dim;
    if (rows->n == 0) return KVANT_OK;
    attend_job *j = &scratch->jobs[scratch->n_job];
    *j = (attend_job){.s = item->s,
                      .layer = l,
                      .layer_index = layer,
                      .transforms = &cache->transforms,
                      .window = rows->window,
                      .skip = rows->skip,
                      .params = params,
                      .q = item->q + row,
                      .out = item->out + row,
                      .n = rows->n,
                      .group = params->n_head / cache->config.n_kv_head,
                      .first = l->length - item->n + rows->from,
                      .n_run = (l->n_pages + RUN_PAGES - 1) / RUN_PAGES,
                      .scratch = scratch,
                      .k = cache->ctx->kernels};
    /* Rows of an earlier append, whose window has been dropped since. */
    if (j->window.size > 0 && j->first - j->window.size + 1 < (int64_t)l->first_kept * TOKENS && l->first_kept > 0)
        return KVANT_EINVAL;
    if (j->window.size > 0 && j->window.keep == 0 && j->first >= j->window.size)
        j->run_first = (int)((j->first - j->window.size + 1) / (TOKENS * RUN_PAGES));
    int columns = j->n * j->group;
    j->block_columns = columns < COLUMNS ? columns : COLUMNS;
    j->n_block = (columns + COLUMNS - 1) / COLUMNS;
    j->cost = (int64_t)(l->n_pages - j->run_first * RUN_PAGES) * (j->block_columns + PAGE_COLUMNS);
    scratch->n_job++;
    return KVANT_OK;
}

/* What max_kv_size means by MLX's rules, where several tokens are appended at once: its buffer then holds the first tokens (keep) and
 * the newest ones before the append, max_kv_size - 1 in all, and a row sees max_kv_size places back in it. So the first rows still see
 * some of the first tokens, the others the last max_kv_size tokens and nothing else. A single token sees the cache's window. */
static kvant_status plan_mlx_window(const kvant_attend_item *item, int layer, const kvant_attend_params *params,
                                    kvant_attend_scratch *s) {
    const kvant_cache *cache = item->s->cache;
    const kvant_page_list *l = &item->s->layers[layer];
    int64_t size = cache->config.max_kv_size, keep = cache->windows[layer].keep, start = l->length - l->n_appended;
    int skipped = l->n_appended - item->n, row = skipped;
    for (; start >= size && row < keep && row < l->n_appended; row++) {
        row_range one = {row - skipped, 1, {size - keep + row, keep}, row};
        KVANT_TRY(plan_job(item, &one, layer, params, s));
    }
    row_range rest = {row - skipped, l->n_appended - row, {size, 0}, 0};
    return plan_job(item, &rest, layer, params, s);
}

static kvant_status plan_item(const kvant_attend_item *item, int layer, const kvant_attend_params *params, kvant_attend_scratch *s) {
    const kvant_cache *cache = item->s->cache;
    const kvant_page_list *l = &item->s->layers[layer];
    if (item->n < 0 || item->n > l->length) return KVANT_EINVAL;
    bool is_chunk = l->n_appended > 1 && item->n <= l->n_appended && !item->s->one_by_one;
    if (cache->config.quantize_after_step && cache->windows[layer].keep > 0 && is_chunk)
        return plan_mlx_window(item, layer, params, s);
    row_range all = {0, item->n, cache->windows[layer], 0};
    return plan_job(item, &all, layer, params, s);
}

/* Cuts long tasks into runs, unless tasks of one length fill the threads anyway. */
static void choose_runs(kvant_attend_scratch *s) {
    int64_t n_task = 0, total = 0, longest = 0;
    for (int i = 0; i < s->n_job; i++) {
        const attend_job *j = &s->jobs[i];
        int64_t n = (int64_t)j->n_block * j->s->cache->config.n_kv_head;
        n_task += n;
        total += n * j->cost;
        if (j->cost > longest) longest = j->cost;
    }
    if (s->n_worker == 1 || (n_task % s->n_worker == 0 && longest * n_task <= total + total / 8)) return;
    for (int i = 0; i < s->n_job; i++) {
        attend_job *j = &s->jobs[i];
        int n = j->n_run - j->run_first;
        j->by_runs = j->n_block == 1 && n > 1 && j->cost * s->n_worker * TASKS_A_THREAD > total;
        for (j->n_slot = 1; j->n_slot < n && j->n_slot < RUNS_AT_ONCE;)
            j->n_slot *= 2;
    }
}

static bool caches_agree(const kvant_cache *a, const kvant_cache *b) {
    return a == b || (a->ctx == b->ctx && a->config.n_layer == b->config.n_layer && a->config.n_kv_head == b->config.n_kv_head &&
                      a->config.head_dim == b->config.head_dim);
}

kvant_status kvant_attend_batch(const kvant_attend_item *items, int n_items, int layer, const kvant_attend_params *params) {
    if (n_items <= 0) return n_items == 0 ? KVANT_OK : KVANT_EINVAL;
    kvant_cache *cache = items[0].s->cache;
    if (layer < 0 || layer >= cache->config.n_layer) return KVANT_EINVAL;
    if (params->n_head < 1 || params->n_head % cache->config.n_kv_head != 0) return KVANT_EINVAL;
    if (!cache->attend_scratch) {
        KVANT_TRY(scratch_create(cache, &cache->attend_scratch));
        cache->attend_scratch_destroy = scratch_destroy;
    }
    kvant_attend_scratch *s = cache->attend_scratch;
    KVANT_TRY(reserve_jobs(s, JOBS_AN_ITEM * n_items));
    for (int i = 0; i < n_items; i++) {
        if (!caches_agree(items[i].s->cache, cache)) return KVANT_EINVAL;
        KVANT_TRY(plan_item(&items[i], layer, params, s));
    }
    choose_runs(s);
    KVANT_TRY(reserve_states(s));
    run_rounds(s, cache->ctx->pool);
    return KVANT_OK;
}

kvant_status kvant_attend(kvant_sequence *s, int layer, const kvant_attend_params *params, const float *q, int n, float *out) {
    return kvant_attend_batch(&(kvant_attend_item){s, q, n, out}, 1, layer, params);
}

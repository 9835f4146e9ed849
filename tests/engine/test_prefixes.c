// SPDX-License-Identifier: MIT
/* test_prefixes.c: what is reused never changes an answer. Random sequences of sync, generate, truncate, fork, batch, keep, reopen and
 * evict drive a model that keeps prefixes in memory and on disk; every row of logits is compared, bit for bit, with a new session
 * of a model that keeps nothing. The seed is printed; a failure names the operation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/os.h"
#include "kvant/engine.h"

#define MODELS KVANT_DATA "/models/"
#define N_SLOT 4
#define CONTEXT 700
#define N_OPERATION 70
#define N_LIST 6 /* token lists that prompts are made of */
#define STEP 96

typedef struct setting {
    const char *model, *kv;
    int quantized_kv_start, max_kv_size;
    size_t ram;
    bool disk;
} setting;

typedef struct list {
    int n;
    int32_t ids[CONTEXT];
} list;

typedef struct world {
    const setting *setting;
    char folder[64];
    kvant_model *model, *plain;
    kvant_session *slots[N_SLOT];
    list lists[N_LIST];
    int n_vocab, operation;
    uint64_t random;
    const char *doing;
    int64_t n_reused, n_from_ram, n_from_disk, n_compared;
    kvant_error err;
} world;

static int draw(world *w, int n) {
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (int)((w->random >> 33) % (uint64_t)n);
}

static void check(world *w, kvant_status st) {
    if (st != KVANT_OK)
        fail_msg("%s %s: operation %d, %s: %s", w->setting->model, w->setting->kv, w->operation, w->doing, w->err.message);
}

static kvant_model *open_model(world *w, bool keeps) {
    kvant_load_params load;
    kvant_model *m = NULL;
    char path[512];
    snprintf(path, sizeof path, MODELS "%s", w->setting->model);
    kvant_load_params_default(&load);
    load.n_threads = 2;
    load.prefill_step_size = STEP;
    load.kv.kv = w->setting->kv;
    load.kv.quantized_kv_start = w->setting->quantized_kv_start;
    load.kv.max_kv_size = w->setting->max_kv_size;
    if (keeps) {
        load.prefix_ram = w->setting->ram;
        load.prefix_dir = w->setting->disk ? w->folder : NULL;
    }
    check(w, kvant_model_open(path, &load, &m, &w->err));
    return m;
}

static kvant_session *new_session(world *w, kvant_model *m) {
    kvant_session_params p;
    kvant_session *s = NULL;
    kvant_session_params_default(&p);
    p.n_context = CONTEXT;
    check(w, kvant_session_create(m, &p, &s, &w->err));
    return s;
}

/* The logits of a session, if it has any, are those of a new one. */
static void compare(world *w, kvant_session *s) {
    const float *row = kvant_session_logits(s);
    int64_t n = kvant_session_length(s);
    if (!row || n == 0) return;
    kvant_session *fresh = new_session(w, w->plain);
    check(w, kvant_session_prefill(fresh, kvant_session_tokens(s), n, NULL, NULL, &w->err));
    if (memcmp(row, kvant_session_logits(fresh), (size_t)w->n_vocab * sizeof *row) != 0)
        fail_msg("%s %s: operation %d, %s: the logits after %lld tokens differ", w->setting->model, w->setting->kv, w->operation, w->doing,
                 (long long)n);
    kvant_session_destroy(fresh);
    w->n_compared++;
}

/* A prompt that shares a beginning with an earlier one, or with what a session holds, cut anywhere. */
static const list *make_list(world *w) {
    list made = {0};
    const list *from = &w->lists[draw(w, N_LIST)];
    const kvant_session *held = w->slots[draw(w, N_SLOT)];
    bool from_session = draw(w, 2) == 0 && kvant_session_length(held) > 0;
    int n = from_session ? (int)kvant_session_length(held) : from->n;
    if (n > CONTEXT - 60) n = CONTEXT - 60;
    memcpy(made.ids, from_session ? kvant_session_tokens(held) : from->ids, (size_t)n * sizeof *made.ids);
    made.n = draw(w, 2) == 0 ? n : draw(w, n + 1);
    if (draw(w, 3) == 0) made.n = made.n / 64 * 64; /* where blocks end is where errors are */
    int more = draw(w, 3) == 0 ? draw(w, 3) : draw(w, 150);
    for (int i = 0; i < more && made.n < CONTEXT - 60; i++)
        made.ids[made.n++] = draw(w, w->n_vocab);
    if (made.n == 0) made.ids[made.n++] = 1;
    list *l = &w->lists[draw(w, N_LIST)];
    *l = made;
    return l;
}

static void sync_slot(world *w, kvant_session *s) {
    const list *l = make_list(w);
    kvant_sync_result r;
    w->doing = "sync";
    check(w, kvant_session_sync(s, l->ids, l->n, NULL, NULL, &r, &w->err));
    assert_int_equal(kvant_session_length(s), l->n);
    assert_memory_equal(kvant_session_tokens(s), l->ids, (size_t)l->n * sizeof *l->ids);
    assert_int_equal(r.n_reused, r.n_from_session + r.n_from_ram + r.n_from_disk);
    assert_int_equal(r.n_reused + r.n_computed, l->n);
    assert_true(r.n_lost >= 0);
    w->n_reused += r.n_reused;
    w->n_from_ram += r.n_from_ram;
    w->n_from_disk += r.n_from_disk;
}

static int32_t best(const float *row, int n) {
    int32_t id = 0;
    for (int i = 1; i < n; i++)
        if (row[i] > row[id]) id = i;
    return id;
}

static void generate(world *w, kvant_session *s) {
    w->doing = "generate";
    if (!kvant_session_logits(s)) return;
    for (int i = draw(w, 20); i >= 0 && kvant_session_length(s) < CONTEXT - 40; i--)
        check(w, kvant_session_decode(s, best(kvant_session_logits(s), w->n_vocab), &w->err));
}

/* Back to anywhere, but not below the point where the cache was converted: that is what the session says it cannot undo. */
static void truncate_slot(world *w, kvant_session *s) {
    int64_t n = kvant_session_length(s), start = w->setting->quantized_kv_start, to = n > 0 ? draw(w, (int)n + 1) : 0;
    w->doing = "truncate";
    if (to < start && n >= start) to = 0;
    kvant_status st = kvant_session_truncate(s, to, &w->err);
    if (st == KVANT_EUNSUPPORTED && w->setting->max_kv_size + 1 > 0) return; /* a window has moved on */
    check(w, st);
    if (to == 0 || to == CONTEXT) return;
    int32_t id = draw(w, w->n_vocab);
    check(w, kvant_session_decode(s, id, &w->err));
}

static void fork_slot(world *w, int from) {
    int to = draw(w, N_SLOT);
    kvant_session *copy = NULL;
    w->doing = "fork";
    if (to == from) return;
    check(w, kvant_session_fork(w->slots[from], &copy, &w->err));
    kvant_session_destroy(w->slots[to]);
    w->slots[to] = copy;
}

static void batch(world *w) {
    kvant_batch_item items[N_SLOT];
    int32_t ids[N_SLOT];
    int n = 0;
    w->doing = "batch";
    for (int i = 0; i < N_SLOT; i++) {
        if (kvant_session_length(w->slots[i]) == 0 || kvant_session_length(w->slots[i]) > CONTEXT - 40) continue;
        ids[n] = draw(w, w->n_vocab);
        items[n] = (kvant_batch_item){w->slots[i], &ids[n], 1, NULL};
        n++;
    }
    if (n == 0) return;
    check(w, kvant_batch_decode(w->model, items, n, &w->err));
    for (int i = 0; i < n; i++)
        compare(w, items[i].session);
}

/* As a process that ends and another that begins. */
static void reopen(world *w) {
    w->doing = "reopen";
    for (int i = 0; i < N_SLOT; i++)
        kvant_session_destroy(w->slots[i]);
    kvant_model_close(w->model);
    w->model = open_model(w, true);
    for (int i = 0; i < N_SLOT; i++)
        w->slots[i] = new_session(w, w->model);
}

static void evict(world *w) {
    w->doing = "evict";
    if (!w->setting->disk) return;
    kvant_store_counts counts;
    check(w, kvant_store_prune(w->folder, 50000 + (uint64_t)draw(w, 1000000), 0, &counts, &w->err));
}

static void operate(world *w) {
    int slot = draw(w, N_SLOT), kind = draw(w, 20);
    kvant_session *s = w->slots[slot];
    if (kind < 8) sync_slot(w, s);
    else if (kind < 12) generate(w, s);
    else if (kind < 14) truncate_slot(w, s);
    else if (kind < 16) fork_slot(w, slot);
    else if (kind < 17) batch(w);
    else if (kind < 18) check(w, kvant_session_keep(s, &w->err));
    else if (kind < 19) evict(w);
    else reopen(w);
    if (kind < 14) compare(w, s);
}

static void run(const setting *t, uint64_t seed) {
    world w = {.setting = t, .random = seed};
    char path[512];
    snprintf(path, sizeof path, MODELS "%s", t->model);
    FILE *f = fopen(path, "rb");
    if (!f) {
        print_message("%s is not there: skipped\n", path);
        skip();
    }
    fclose(f);
    snprintf(w.folder, sizeof w.folder, "test_prefixes_folder_%u", (unsigned)(seed % 1000000));
    w.model = open_model(&w, true);
    w.plain = open_model(&w, false);
    kvant_model_info info;
    kvant_model_get_info(w.model, &info);
    w.n_vocab = info.n_vocab;
    for (int i = 0; i < N_SLOT; i++)
        w.slots[i] = new_session(&w, w.model);
    for (w.operation = 0; w.operation < N_OPERATION; w.operation++)
        operate(&w);
    for (int i = 0; i < N_SLOT; i++)
        kvant_session_destroy(w.slots[i]);
    kvant_model_close(w.model);
    kvant_model_close(w.plain);
    print_message("%s %s start %d window %d seed %llu: %lld rows equal; tokens reused: %lld, from memory %lld, from disk %lld\n", t->model,
                  t->kv, t->quantized_kv_start, t->max_kv_size, (unsigned long long)seed, (long long)w.n_compared, (long long)w.n_reused,
                  (long long)w.n_from_ram, (long long)w.n_from_disk);
    assert_true(w.n_compared > 0 && w.n_reused > 0);
    kvant_store_counts counts;
    if (t->disk) (void)kvant_store_prune(w.folder, 1, 0, &counts, NULL);
    (void)remove(w.folder);
}

static const setting settings[] = {
    {"random-llama-dense.gguf", "f16", 0, 0, 1 << 20, true},
    {"random-llama-dense.gguf", "i8", 0, 0, 1 << 18, false},
    {"random-llama-dense.gguf", "bc5/bc4", 0, 0, 1 << 20, true},
    {"random-llama-dense.gguf", "affine4:32", 100, 0, 1 << 20, true},
    {"random-llama-dense.gguf", "i8", 0, 150, 1 << 20, true},
    {"random-llama-dense.gguf", "bc4", 70, 200, 1 << 20, false},
    {"random-qwen3-dense.gguf", "bc4", 0, 0, 0, true},
    {"random-gemma3-dense.gguf", "i8", 0, 0, 1 << 20, true},
    {"random-gemma2-dense.gguf", "bc4", 0, 0, 1 << 19, false},
    {"random-gpt-oss-moe.gguf", "affine8:32", 0, 0, 1 << 20, true},
    {"random-llama-moe.gguf", "q8_0", 0, 0, 1 << 18, true},
};

static uint64_t first_seed = 2026;

static void reuse_never_changes_an_answer(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        run(&settings[i], first_seed + 31 * i);
}

/* An argument is another seed. */
int main(int argc, char **argv) {
    if (argc > 1) first_seed = strtoull(argv[1], NULL, 10);
    const struct CMUnitTest tests[] = {cmocka_unit_test(reuse_never_changes_an_answer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

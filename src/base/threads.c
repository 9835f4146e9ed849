// SPDX-License-Identifier: MIT
/* threads.c: the pool. Decoding a token makes hundreds of runs of some microseconds each, so an idle worker spins
 * for a short while before it sleeps.
 *
 * The caller waits only for workers that have entered its run: on a machine with more threads than cores a worker may not be
 * scheduled for milliseconds, and a run whose tasks are all done must not wait for it. A worker enters by counting itself in
 * and then looking whether the run is open; the caller closes the run and then looks whether anybody is inside. */
#include "base/threads.h"

#include <stdatomic.h>
#include <stdbool.h>

#include "base/memory.h"
#include "base/os.h"

#define SPINS 4000       /* of some ten nanoseconds each: longer than the gap between two products of one layer */
#define CALLER_SPINS 400 /* then the processor is offered to whoever holds the last task */

typedef struct worker_arg {
    kvant_pool *pool;
    int index;
} worker_arg;

struct kvant_pool {
    int n_threads;
    kvant_os_thread **threads; /* [n_threads - 1] */
    worker_arg *args;          /* [n_threads - 1] */
    kvant_os_gate *gate;
    _Atomic uint32_t run;      /* changes when work arrives or the pool stops */
    _Atomic int n_sleeping, n_inside, next_task;
    _Atomic bool open, stop;
    int n_tasks;
    void (*fn)(void *, int, int);
    void *arg;
};

static inline void spin_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static void work(kvant_pool *p, int worker) {
    for (;;) {
        int task = atomic_fetch_add_explicit(&p->next_task, 1, memory_order_relaxed);
        if (task >= p->n_tasks) return;
        p->fn(p->arg, task, worker);
    }
}

static void worker_main(void *a) {
    kvant_pool *p = ((worker_arg *)a)->pool;
    uint32_t seen = 0;
    for (;;) {
        int spins = 0;
        while (atomic_load_explicit(&p->run, memory_order_acquire) == seen) {
            if (++spins < SPINS) {
                spin_pause();
                continue;
            }
            atomic_fetch_add(&p->n_sleeping, 1);
            kvant_os_gate_wait(p->gate, &p->run, seen);
            atomic_fetch_sub(&p->n_sleeping, 1);
        }
        seen = atomic_load_explicit(&p->run, memory_order_acquire);
        if (atomic_load(&p->stop)) return;
        atomic_fetch_add(&p->n_inside, 1);
        if (atomic_load(&p->open)) work(p, ((worker_arg *)a)->index);
        atomic_fetch_sub(&p->n_inside, 1);
    }
}

static void announce(kvant_pool *p) {
    atomic_fetch_add(&p->run, 1);
    if (atomic_load(&p->n_sleeping) > 0) kvant_os_gate_wake(p->gate);
}

kvant_status kvant_pool_create(int n_threads, kvant_pool **out) {
    if (n_threads < 1 || n_threads > 1024) return KVANT_EINVAL;
    kvant_pool *p = kvant_alloc(1, sizeof *p);
    if (!p) return KVANT_ENOMEM;
    p->threads = kvant_alloc((size_t)n_threads, sizeof(kvant_os_thread *));
    p->args = kvant_alloc((size_t)n_threads, sizeof(worker_arg));
    p->gate = kvant_os_gate_create();
    p->n_threads = 1;
    if (!p->threads || !p->args || !p->gate) {
        kvant_pool_destroy(p);
        return KVANT_ENOMEM;
    }
    for (int i = 1; i < n_threads; i++) {
        p->args[i - 1] = (worker_arg){p, i};
        p->threads[i - 1] = kvant_os_thread_start(worker_main, &p->args[i - 1]);
        if (!p->threads[i - 1]) {
            kvant_pool_destroy(p);
            return KVANT_ENOMEM;
        }
        p->n_threads++;
    }
    *out = p;
    return KVANT_OK;
}

void kvant_pool_destroy(kvant_pool *p) {
    if (!p) return;
    atomic_store(&p->stop, true);
    if (p->gate) announce(p);
    for (int i = 1; i < p->n_threads; i++) kvant_os_thread_join(p->threads[i - 1]);
    kvant_os_gate_destroy(p->gate);
    kvant_free(p->threads);
    kvant_free(p->args);
    kvant_free(p);
}

int kvant_pool_size(const kvant_pool *p) { return p->n_threads; }

void kvant_pool_run(kvant_pool *p, int n_tasks, void (*fn)(void *, int, int), void *arg) {
    if (n_tasks <= 0) return;
    if (p->n_threads == 1 || n_tasks == 1) {
        for (int t = 0; t < n_tasks; t++) fn(arg, t, 0);
        return;
    }
    p->fn = fn;
    p->arg = arg;
    p->n_tasks = n_tasks;
    atomic_store_explicit(&p->next_task, 0, memory_order_relaxed);
    atomic_store(&p->open, true);
    announce(p);
    work(p, 0);
    atomic_store(&p->open, false);
    for (int spins = 0; atomic_load(&p->n_inside) > 0; spins++) {
        if (spins < CALLER_SPINS) spin_pause();
        else kvant_os_yield();
    }
}

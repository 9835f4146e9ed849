// SPDX-License-Identifier: MIT
/* threads.h: a pool of workers that runs numbered tasks.
 *
 * Results must not depend on which worker runs a task: a task writes only what belongs to its number (and scratch that
 * belongs to its worker). Then the output has the same bits for any number of threads. */
#ifndef KVANT_BASE_THREADS_H
#define KVANT_BASE_THREADS_H

#include "base/status.h"

typedef struct kvant_pool kvant_pool;

/* n_threads counts the caller: 1 makes no thread. KVANT_ENOMEM: memory or threads are out. */
kvant_status kvant_pool_create(int n_threads, kvant_pool **out);
void kvant_pool_destroy(kvant_pool *pool);
int kvant_pool_size(const kvant_pool *pool);

/* Runs fn(arg, task, worker) for every task in [0, n_tasks), worker in [0, kvant_pool_size); returns when all have ended.
 * The caller works too, as worker 0. One run at a time a pool; a task must not call kvant_pool_run. */
void kvant_pool_run(kvant_pool *pool, int n_tasks, void (*fn)(void *arg, int task, int worker), void *arg);

#endif

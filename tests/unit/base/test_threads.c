// SPDX-License-Identifier: MIT
/* test_threads.c: a pool runs every task exactly once, on one worker at a time, for any number of threads and runs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdatomic.h>

#include "base/os.h"
#include "base/threads.h"

#define MAX_TASKS 300
#define MAX_WORKERS 5

typedef struct count_job {
    int n_workers;
    _Atomic int runs[MAX_TASKS];
    _Atomic int busy[MAX_WORKERS];
    _Atomic int errors;
    double results[MAX_TASKS];
} count_job;

static void count_task(void *arg, int task, int worker) {
    count_job *job = arg;
    if (worker < 0 || worker >= job->n_workers || task < 0 || task >= MAX_TASKS) {
        atomic_fetch_add(&job->errors, 1);
        return;
    }
    if (atomic_fetch_add(&job->busy[worker], 1) != 0) atomic_fetch_add(&job->errors, 1);
    atomic_fetch_add(&job->runs[task], 1);
    double x = task;
    for (int i = 0; i < task % 50; i++)
        x = x * 1.000001 + 0.5;
    job->results[task] = x;
    atomic_fetch_sub(&job->busy[worker], 1);
}

static void every_task_runs_exactly_once(void **state) {
    (void)state;
    static const int sizes[] = {0, 1, 2, 3, 7, 64, MAX_TASKS};
    for (int threads = 1; threads <= MAX_WORKERS; threads++) {
        kvant_pool *pool;
        assert_int_equal(kvant_pool_create(threads, &pool), KVANT_OK);
        assert_int_equal(kvant_pool_size(pool), threads);
        for (int run = 0; run < 700; run++) {
            static count_job job;
            int n = sizes[run % 7];
            job.n_workers = threads;
            for (int t = 0; t < MAX_TASKS; t++)
                atomic_store(&job.runs[t], 0);
            kvant_pool_run(pool, n, count_task, &job);
            for (int t = 0; t < MAX_TASKS; t++) {
                int want = t < n;
                if (atomic_load(&job.runs[t]) != want)
                    fail_msg("%d threads, run %d: task %d of %d ran %d times", threads, run, t, n, atomic_load(&job.runs[t]));
            }
            assert_int_equal(atomic_load(&job.errors), 0);
        }
        kvant_pool_destroy(pool);
    }
}

/* Workers that went to sleep between two runs are woken. */
static void a_pool_that_slept_works_again(void **state) {
    (void)state;
    kvant_pool *pool;
    assert_int_equal(kvant_pool_create(3, &pool), KVANT_OK);
    for (int run = 0; run < 10; run++) {
        static count_job job;
        job.n_workers = 3;
        for (int t = 0; t < MAX_TASKS; t++)
            atomic_store(&job.runs[t], 0);
        double until = kvant_clock_seconds() + 0.01;
        while (kvant_clock_seconds() < until)
            continue;
        kvant_pool_run(pool, 64, count_task, &job);
        for (int t = 0; t < 64; t++)
            assert_int_equal(atomic_load(&job.runs[t]), 1);
    }
    kvant_pool_destroy(pool);
}

static void pools_come_and_go(void **state) {
    (void)state;
    for (int i = 0; i < 200; i++) {
        kvant_pool *pool;
        assert_int_equal(kvant_pool_create(1 + i % MAX_WORKERS, &pool), KVANT_OK);
        if (i % 3 == 0) {
            static count_job job;
            job.n_workers = MAX_WORKERS;
            kvant_pool_run(pool, 5, count_task, &job);
        }
        kvant_pool_destroy(pool);
    }
    kvant_pool_destroy(NULL);
}

static void a_senseless_number_of_threads_is_refused(void **state) {
    (void)state;
    kvant_pool *pool = NULL;
    assert_int_equal(kvant_pool_create(0, &pool), KVANT_EINVAL);
    assert_int_equal(kvant_pool_create(-1, &pool), KVANT_EINVAL);
    assert_int_equal(kvant_pool_create(1 << 20, &pool), KVANT_EINVAL);
    assert_null(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_runs_exactly_once),
        cmocka_unit_test(a_pool_that_slept_works_again),
        cmocka_unit_test(pools_come_and_go),
        cmocka_unit_test(a_senseless_number_of_threads_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

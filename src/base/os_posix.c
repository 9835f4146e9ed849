// SPDX-License-Identifier: MIT
/* os_posix.c: files, clock, memory and threads on Linux and other POSIX systems. */
#define _GNU_SOURCE
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

kvant_status kvant_map_open(const char *path, kvant_map *out, kvant_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return kvant_fail(err, KVANT_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    struct stat st;
    if (fstat(fd, &st) != 0) {
        int saved = errno;
        close(fd);
        return kvant_fail(err, KVANT_EIO, "%s: cannot be examined: %s", path, strerror(saved));
    }
    if (!S_ISREG(st.st_mode)) {
        close(fd);
        return kvant_fail(err, KVANT_EIO, "%s: is %s, expected a regular file", path,
                          S_ISDIR(st.st_mode) ? "a folder" : "not a regular file");
    }
    kvant_map m = {.size = (size_t)st.st_size};
    if (m.size > 0) {
        void *p = mmap(NULL, m.size, PROT_READ, MAP_PRIVATE, fd, 0);
        int saved = errno;
        if (p == MAP_FAILED) {
            close(fd);
            return kvant_fail(err, KVANT_EIO, "%s: its %zu bytes cannot be mapped: %s", path, m.size, strerror(saved));
        }
        m.data = p;
    }
    close(fd);
    *out = m;
    return KVANT_OK;
}

void kvant_map_close(kvant_map *m) {
    if (m->data) munmap((void *)(uintptr_t)m->data, m->size);
    *m = (kvant_map){0};
}

void kvant_map_drop(const kvant_map *m, size_t offset, size_t size) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    size_t begin = (offset + page - 1) / page * page, end = (offset + size) / page * page;
    if (!m->data || end <= begin || end > m->size) return;
    madvise((void *)(uintptr_t)(m->data + begin), end - begin, MADV_DONTNEED);
}

kvant_os_date kvant_os_local_date(void) {
    time_t now = time(NULL);
    struct tm t = {.tm_year = 70, .tm_mday = 1};
    localtime_r(&now, &t);
    return (kvant_os_date){t.tm_year + 1900, t.tm_mon + 1, t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec};
}

double kvant_clock_seconds(void) {
    struct timespec ts;
    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + 1e-9 * (double)ts.tv_nsec;
}

/* Counts the CPUs of the affinity mask that are the first of their core's siblings; without sysfs, all of them. */
int kvant_os_cores(void) {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) return 1;
    int n = 0;
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (!CPU_ISSET(cpu, &set)) continue;
        char path[96];
        snprintf(path, sizeof path, "/sys/devices/system/cpu/cpu%d/topology/thread_siblings_list", cpu);
        FILE *f = fopen(path, "re");
        int first = cpu;
        if (f) {
            if (fscanf(f, "%d", &first) != 1) first = cpu;
            fclose(f);
        }
        if (first == cpu || first < 0 || first >= CPU_SETSIZE || !CPU_ISSET(first, &set)) n++;
    }
    return n > 0 ? n : 1;
}

size_t kvant_os_peak_rss(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u) != 0) return 0;
    return (size_t)u.ru_maxrss * 1024;
}

void kvant_os_yield(void) { sched_yield(); }

struct kvant_os_thread {
    pthread_t id;
    void (*fn)(void *);
    void *arg;
};

static void *thread_main(void *p) {
    kvant_os_thread *t = p;
    t->fn(t->arg);
    return NULL;
}

kvant_os_thread *kvant_os_thread_start(void (*fn)(void *), void *arg) {
    kvant_os_thread *t = kvant_alloc(1, sizeof *t);
    if (!t) return NULL;
    t->fn = fn;
    t->arg = arg;
    if (pthread_create(&t->id, NULL, thread_main, t) != 0) {
        kvant_free(t);
        return NULL;
    }
    return t;
}

void kvant_os_thread_join(kvant_os_thread *t) {
    if (!t) return;
    pthread_join(t->id, NULL);
    kvant_free(t);
}

struct kvant_os_gate {
    pthread_mutex_t mutex;
    pthread_cond_t cond;
};

kvant_os_gate *kvant_os_gate_create(void) {
    kvant_os_gate *g = kvant_alloc(1, sizeof *g);
    if (!g) return NULL;
    pthread_mutex_init(&g->mutex, NULL);
    pthread_cond_init(&g->cond, NULL);
    return g;
}

void kvant_os_gate_destroy(kvant_os_gate *g) {
    if (!g) return;
    pthread_cond_destroy(&g->cond);
    pthread_mutex_destroy(&g->mutex);
    kvant_free(g);
}

void kvant_os_gate_wait(kvant_os_gate *g, const volatile _Atomic uint32_t *word, uint32_t seen) {
    pthread_mutex_lock(&g->mutex);
    while (atomic_load_explicit(word, memory_order_acquire) == seen) pthread_cond_wait(&g->cond, &g->mutex);
    pthread_mutex_unlock(&g->mutex);
}

void kvant_os_gate_wake(kvant_os_gate *g) {
    pthread_mutex_lock(&g->mutex);
    pthread_cond_broadcast(&g->cond);
    pthread_mutex_unlock(&g->mutex);
}

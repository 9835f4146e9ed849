// SPDX-License-Identifier: MIT
/* os.h: all that Kvant asks of the operating system. The only implementation files with system headers are os_*.c. */
#ifndef KVANT_BASE_OS_H
#define KVANT_BASE_OS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

/* A file mapped read-only. data is valid until kvant_map_close. */
typedef struct kvant_map {
    const uint8_t *data;
    size_t size;
} kvant_map;

/* KVANT_EIO: the file cannot be opened, is not a regular file, or cannot be mapped (the sentence says which). An empty file maps to size 0. */
kvant_status kvant_map_open(const char *path, kvant_map *out, kvant_error *err);
void kvant_map_close(kvant_map *m);
/* Tells the system that these bytes will not be read again soon, so that their pages do not count as resident. */
void kvant_map_drop(const kvant_map *m, size_t offset, size_t size);

/* A whole file in memory, at most max bytes; *bytes is freed with kvant_free (never NULL, also of an empty file).
 * KVANT_EIO: it is not there, is not a regular file, or cannot be read; KVANT_EFORMAT: it is longer than max. */
kvant_status kvant_os_read_file(const char *path, size_t max, uint8_t **bytes, size_t *size, kvant_error *err);
/* Writes a file such that others see the old one or the new one, whole, whatever happens: into a new file beside it, to the disk,
 * then renamed. KVANT_EFULL: no room on the disk or in a quota; KVANT_EIO: any other reason; nothing was changed.
 * A path that names something else than a file is refused. */
kvant_status kvant_os_write_file(const char *path, const void *bytes, size_t size, kvant_error *err);
/* A folder with those above it, for this user alone; it may be there already. */
kvant_status kvant_os_make_folder(const char *path, kvant_error *err);
/* Whether there is a folder (or a link to one) of that name. */
bool kvant_os_is_folder(const char *path);
/* Whether a file was there and is gone now. */
bool kvant_os_remove_file(const char *path);

/* A file that is read in pieces; nobody can make reading it end the process, as cutting a mapped file does. */
typedef struct kvant_os_file {
    int handle;
    uint64_t size;
} kvant_os_file;

/* KVANT_EIO with the sentence; *is_absent (may be NULL): whether it was that there is no such file. */
kvant_status kvant_os_file_open(const char *path, kvant_os_file *out, bool *is_absent, kvant_error *err);
void kvant_os_file_close(kvant_os_file *f);
/* Whether all of size bytes could be read. */
bool kvant_os_file_read(const kvant_os_file *f, uint64_t offset, void *bytes, size_t size);

typedef struct kvant_os_piece {
    const void *bytes;
    size_t size;
} kvant_os_piece;

/* Writes the pieces one after another as one file, as kvant_os_write_file does, under a name beside it that no other process uses and
 * that ends in ".tmp". KVANT_EFULL: no room on the disk or in a quota; KVANT_EIO: any other reason. Nothing was changed. */
kvant_status kvant_os_write_pieces(const char *path, const kvant_os_piece *pieces, int n, kvant_error *err);
/* Brings the names in a folder to the disk, as far as the file system can. */
void kvant_os_sync_folder(const char *path);
/* Nanoseconds since 1970, by the clock of files. */
int64_t kvant_os_now(void);
/* Sets when a file was used last, in nanoseconds since 1970. */
void kvant_os_touch_file(const char *path, int64_t when);
/* Calls fn for every file of a folder whose name has `part` in it, until it returns false. KVANT_EIO: the folder cannot be read. */
typedef bool (*kvant_os_entry_fn)(void *arg, const char *name, uint64_t bytes, int64_t when);
kvant_status kvant_os_list_folder(const char *path, const char *part, kvant_os_entry_fn fn, void *arg, kvant_error *err);

/* Seconds from an arbitrary start; never goes back. */
double kvant_clock_seconds(void);
/* The date and time of the place where the process runs. */
typedef struct kvant_os_date {
    int year, month, day, hour, minute, second; /* month and day from 1 */
} kvant_os_date;
kvant_os_date kvant_os_local_date(void);
/* The number of physical cores this process may run on, at least 1. */
int kvant_os_cores(void);
/* The largest resident set of this process so far, in bytes. */
size_t kvant_os_peak_rss(void);

/* Offers the processor to another thread. */
void kvant_os_yield(void);

/* Threads: what the pool (threads.c) is built from. */
typedef struct kvant_os_thread kvant_os_thread;
kvant_os_thread *kvant_os_thread_start(void (*fn)(void *), void *arg); /* NULL: no thread could be made */
void kvant_os_thread_join(kvant_os_thread *t);

/* A place to sleep until *word changes from `seen`, or `wake` is called; may return early. */
typedef struct kvant_os_gate kvant_os_gate;
kvant_os_gate *kvant_os_gate_create(void);
void kvant_os_gate_destroy(kvant_os_gate *g);
void kvant_os_gate_wait(kvant_os_gate *g, const volatile _Atomic uint32_t *word, uint32_t seen);
void kvant_os_gate_wake(kvant_os_gate *g);

#endif

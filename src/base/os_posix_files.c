// SPDX-License-Identifier: MIT
/* os_posix_files.c: small files read and written whole, on Linux and other POSIX systems. Large ones are mapped (os_posix.c). */
#define _GNU_SOURCE
#include "base/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/memory.h"

#define PATH_ROOM 4096
#define NAMES_TRIED 100
#define SECOND INT64_C(1000000000)

/* ---- reading ---- */

static kvant_status read_all(int fd, const char *path, size_t max, uint8_t **bytes, size_t *size, kvant_error *err) {
    struct stat st;
    if (fstat(fd, &st) != 0) return kvant_fail(err, KVANT_EIO, "%s: cannot be examined: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode))
        return kvant_fail(err, KVANT_EIO, "%s: is %s, expected a regular file", path, S_ISDIR(st.st_mode) ? "a folder" : "a device or a pipe");
    if ((uint64_t)st.st_size > max)
        return kvant_fail(err, KVANT_EFORMAT, "%s: has %lld bytes, expected at most %zu", path, (long long)st.st_size, max);
    size_t wanted = (size_t)st.st_size, got = 0;
    uint8_t *out = kvant_alloc(wanted + 1, 1);
    if (!out) return kvant_fail(err, KVANT_ENOMEM, "%s: out of memory", path);
    while (got < wanted) {
        ssize_t n = read(fd, out + got, wanted - got);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            int saved = errno;
            kvant_free(out);
            return kvant_fail(err, KVANT_EIO, "%s: cannot be read: %s", path, strerror(saved));
        }
        if (n == 0) break; /* cut short by someone else meanwhile */
        got += (size_t)n;
    }
    *bytes = out;
    *size = got;
    return KVANT_OK;
}

kvant_status kvant_os_read_file(const char *path, size_t max, uint8_t **bytes, size_t *size, kvant_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe waits for nobody */
    if (fd < 0) return kvant_fail(err, KVANT_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    kvant_status st = read_all(fd, path, max, bytes, size, err);
    close(fd);
    return st;
}

bool kvant_os_is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- writing ---- */

/* The process, how many it has made, and the clock: processes of two machines, or of two containers, may have one number. */
static int create_beside(const char *path, char name[PATH_ROOM]) {
    static _Atomic unsigned n_made;
    struct timespec ts;
    for (int i = 0; i < NAMES_TRIED; i++) {
        clock_gettime(CLOCK_REALTIME, &ts);
        uint64_t random = ((uint64_t)ts.tv_sec * (uint64_t)SECOND + (uint64_t)ts.tv_nsec + (uintptr_t)&ts) * 0x9E3779B97F4A7C15u;
        int n = snprintf(name, PATH_ROOM, "%s.%ld-%u-%08x.tmp", path, (long)getpid(), atomic_fetch_add(&n_made, 1u),
                         (unsigned)(random >> 32));
        if (n < 0 || n >= PATH_ROOM) {
            errno = ENAMETOOLONG;
            return -1;
        }
        int fd = open(name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

static bool write_piece(int fd, const uint8_t *p, size_t size) {
    while (size > 0) {
        ssize_t n = write(fd, p, size);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return false;
        p += n;
        size -= (size_t)n;
    }
    return true;
}

static bool write_all(int fd, const kvant_os_piece *pieces, int n) {
    for (int i = 0; i < n; i++)
        if (!write_piece(fd, pieces[i].bytes, pieces[i].size)) return false;
    return fsync(fd) == 0;
}

kvant_status kvant_os_write_pieces(const char *path, const kvant_os_piece *pieces, int n, kvant_error *err) {
    char name[PATH_ROOM];
    int fd = create_beside(path, name), reason = errno;
    bool done = false;
    if (fd >= 0) {
        done = write_all(fd, pieces, n);
        reason = errno;
        if (close(fd) != 0 && done) {
            done = false;
            reason = errno;
        }
        if (done && rename(name, path) != 0) {
            done = false;
            reason = errno;
        }
        if (!done) unlink(name);
    }
    if (done) return KVANT_OK;
    bool is_full = reason == ENOSPC || reason == EDQUOT || reason == EFBIG;
    return kvant_fail(err, is_full ? KVANT_EFULL : KVANT_EIO, "%s: cannot be written: %s", path, strerror(reason));
}

kvant_status kvant_os_write_file(const char *path, const void *bytes, size_t size, kvant_error *err) {
    struct stat st;
    /* Renaming would put a file in the place of a device. */
    if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return kvant_fail(err, KVANT_EIO, "%s: is %s, expected a regular file", path, S_ISDIR(st.st_mode) ? "a folder" : "a device or a pipe");
    const kvant_os_piece piece = {bytes, size};
    return kvant_os_write_pieces(path, &piece, 1, err);
}

/* ---- folders ---- */

kvant_status kvant_os_make_folder(const char *path, kvant_error *err) {
    char name[PATH_ROOM];
    size_t size = strlen(path);
    if (size == 0 || size >= sizeof name) return kvant_fail(err, KVANT_EIO, "%.100s: is no name of a folder", path);
    memcpy(name, path, size + 1);
    int reason = 0;
    for (size_t i = 1; i <= size; i++) {
        if (path[i] != '/' && path[i] != '\0') continue;
        name[i] = '\0';
        reason = mkdir(name, 0700) == 0 ? 0 : errno;
        name[i] = path[i];
    }
    /* One above may be there and closed to writers: only the last one counts. */
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) return KVANT_OK;
    return kvant_fail(err, KVANT_EIO, "%s: the folder cannot be made: %s", path, strerror(reason ? reason : ENOTDIR));
}

bool kvant_os_remove_file(const char *path) { return unlink(path) == 0; }

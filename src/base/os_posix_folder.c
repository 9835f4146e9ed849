// SPDX-License-Identifier: MIT
/* os_posix_folder.c: folders of files that several processes write, read and remove at a time, on Linux and other POSIX systems. */
#define _GNU_SOURCE
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PATH_ROOM 4096
#define SECOND INT64_C(1000000000)

/* ---- reading ---- */

kvant_status kvant_os_file_open(const char *path, kvant_os_file *out, bool *is_absent, kvant_error *err) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* opening a pipe waits for nobody */
    struct stat st;
    if (is_absent) *is_absent = fd < 0 && errno == ENOENT;
    if (fd < 0) return kvant_fail(err, KVANT_EIO, "%s: cannot be opened: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) {
        close(fd);
        return kvant_fail(err, KVANT_EIO, "%s: is not a regular file", path);
    }
    *out = (kvant_os_file){fd, (uint64_t)st.st_size};
    return KVANT_OK;
}

void kvant_os_file_close(kvant_os_file *f) { close(f->handle); }

bool kvant_os_file_read(const kvant_os_file *f, uint64_t offset, void *bytes, size_t size) {
    uint8_t *p = bytes;
    while (size > 0) {
        ssize_t n = pread(f->handle, p, size, (off_t)offset);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        offset += (uint64_t)n;
        size -= (size_t)n;
    }
    return true;
}

/* ---- writing ---- */

/* The process, how many it has made, and the clock: processes of two machines, or of two containers, may have one number. */
static int create_beside(const char *path, char name[PATH_ROOM]) {
    static _Atomic unsigned n_made;
    struct timespec ts;
    for (int i = 0; i < 100; i++) {
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

void kvant_os_sync_folder(const char *path) {
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

/* ---- when files were used ---- */

int64_t kvant_os_now(void) {
    struct timespec ts;
    clock_gettime(CLOCK_REALTIME, &ts);
    return (int64_t)ts.tv_sec * SECOND + ts.tv_nsec;
}

void kvant_os_touch_file(const char *path, int64_t when) {
    struct timespec ts = {(time_t)(when / SECOND), (long)(when % SECOND)}, both[2] = {ts, ts};
    utimensat(AT_FDCWD, path, both, 0);
}

kvant_status kvant_os_list_folder(const char *path, const char *part, kvant_os_entry_fn fn, void *arg, kvant_error *err) {
    DIR *folder = opendir(path);
    if (!folder) return kvant_fail(err, KVANT_EIO, "%s: the folder cannot be read: %s", path, strerror(errno));
    for (struct dirent *e; (e = readdir(folder));) {
        struct stat st;
        if (!strstr(e->d_name, part)) continue;
        if (fstatat(dirfd(folder), e->d_name, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode)) continue; /* gone since */
        if (!fn(arg, e->d_name, (uint64_t)st.st_size, (int64_t)st.st_mtim.tv_sec * SECOND + st.st_mtim.tv_nsec)) break;
    }
    closedir(folder);
    return KVANT_OK;
}

// SPDX-License-Identifier: MIT
/* os_posix_folder.c: folders of files that several processes write, read and remove at a time, on Linux and other POSIX systems. */
#define _GNU_SOURCE
#include "base/os.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
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

/* ---- names on the disk ---- */

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

// SPDX-License-Identifier: MIT
/* os_posix_output.c: a file that is written piece by piece, and may go on where an earlier process stopped. */
#define _GNU_SOURCE
#include "base/os_output.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define WRITE_MAX ((size_t)1 << 30) /* what one call of write takes on every system */

static kvant_status fail_write(const char *path, int reason, kvant_error *err) {
    bool is_full = reason == ENOSPC || reason == EDQUOT || reason == EFBIG;
    return kvant_fail(err, is_full ? KVANT_EFULL : KVANT_EIO, "%s: cannot be written: %s", path, strerror(reason));
}

kvant_status kvant_os_output_open(const char *path, uint64_t keep, kvant_os_output *out, kvant_error *err) {
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NONBLOCK, 0666);
    struct stat st;
    if (fd < 0) return kvant_fail(err, KVANT_EIO, "%s: cannot be made: %s", path, strerror(errno));
    kvant_status status = KVANT_OK;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        status = kvant_fail(err, KVANT_EIO, "%s: is not a regular file", path);
    else if ((uint64_t)st.st_size < keep)
        status = kvant_fail(err, KVANT_EIO, "%s: has %lld bytes, expected at least %llu of an earlier run", path,
                            (long long)st.st_size, (unsigned long long)keep);
    else if (ftruncate(fd, (off_t)keep) != 0 || lseek(fd, 0, SEEK_END) < 0)
        status = fail_write(path, errno, err);
    if (status != KVANT_OK) {
        close(fd);
        return status;
    }
    *out = (kvant_os_output){.path = path, .handle = fd, .size = keep};
    return KVANT_OK;
}

kvant_status kvant_os_output_write(kvant_os_output *o, const void *bytes, size_t size, kvant_error *err) {
    const uint8_t *p = bytes;
    while (size > 0) {
        ssize_t n = write(o->handle, p, size < WRITE_MAX ? size : WRITE_MAX);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return fail_write(o->path, n < 0 ? errno : ENOSPC, err);
        p += n;
        size -= (size_t)n;
        o->size += (uint64_t)n;
    }
    return KVANT_OK;
}

kvant_status kvant_os_output_sync(kvant_os_output *o, kvant_error *err) {
    return fsync(o->handle) == 0 ? KVANT_OK : fail_write(o->path, errno, err);
}

kvant_status kvant_os_output_close(kvant_os_output *o, kvant_error *err) {
    int result = close(o->handle);
    o->handle = -1;
    return result == 0 || errno == EINTR ? KVANT_OK : fail_write(o->path, errno, err);
}

kvant_status kvant_os_rename(const char *from, const char *to, kvant_error *err) {
    if (rename(from, to) == 0) return KVANT_OK;
    return kvant_fail(err, KVANT_EIO, "%s: cannot be renamed to %s: %s", from, to, strerror(errno));
}

// SPDX-License-Identifier: MIT
/* os_output.h: a file that is written piece by piece. It has its final name only when somebody renames it. */
#ifndef KVANT_BASE_OS_OUTPUT_H
#define KVANT_BASE_OS_OUTPUT_H

#include <stddef.h>
#include <stdint.h>

#include "base/status.h"

typedef struct kvant_os_output {
    const char *path; /* borrowed, for sentences */
    int handle;       /* -1: closed */
    uint64_t size;    /* bytes so far */
} kvant_os_output;

/* Opens for writing behind the first `keep` bytes, which are there already; 0: an empty file, made where it is missing.
 * KVANT_EIO: it cannot be, or has fewer bytes. */
kvant_status kvant_os_output_open(const char *path, uint64_t keep, kvant_os_output *out, kvant_error *err);
/* KVANT_EFULL: no room on the disk or in a quota; KVANT_EIO: any other reason. */
kvant_status kvant_os_output_write(kvant_os_output *o, const void *bytes, size_t size, kvant_error *err);
/* Brings what was written to the disk. */
kvant_status kvant_os_output_sync(kvant_os_output *o, kvant_error *err);
kvant_status kvant_os_output_close(kvant_os_output *o, kvant_error *err);
/* Takes the place of a file or of an empty folder of that name, in one step. KVANT_EIO. */
kvant_status kvant_os_rename(const char *from, const char *to, kvant_error *err);

#endif

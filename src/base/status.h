// SPDX-License-Identifier: MIT
/* status.h: how a function inside Kvant reports a failure.
 *
 * Every fallible function returns a kvant_status. Where a person needs the detail, its last parameter is a
 * `kvant_error *err` (may be NULL), filled by kvant_fail with one sentence that names file, field, expected and found. */
#ifndef KVANT_BASE_STATUS_H
#define KVANT_BASE_STATUS_H

#include "kvant/kvant.h"

#if defined(__GNUC__)
#define KVANT_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define KVANT_PRINTF(fmt, args)
#endif

/* Writes the sentence into err (if not NULL; cut at its size, never in the middle of a UTF-8 character) and returns st,
 * so that a check reads `return kvant_fail(err, KVANT_EFORMAT, "...", ...);`. */
kvant_status kvant_fail(kvant_error *err, kvant_status st, const char *fmt, ...) KVANT_PRINTF(3, 4);

/* Calls the log callback of the process, if one is set (kvant_set_log). */
void kvant_log(kvant_log_level level, const char *fmt, ...) KVANT_PRINTF(2, 3);

/* Returns from the calling function with the status of `call` unless it is KVANT_OK. */
#define KVANT_TRY(call)                          \
    do {                                         \
        kvant_status try_status_ = (call);       \
        if (try_status_ != KVANT_OK) return try_status_; \
    } while (0)

#endif

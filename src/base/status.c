// SPDX-License-Identifier: MIT
/* status.c: error sentences, status names and the log callback. */
#include "base/status.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

static kvant_log_fn log_fn;
static void *log_user;

/* A sentence that was cut must not end in half a UTF-8 character: drops a trailing incomplete sequence. */
static void trim_partial_utf8(char *s) {
    size_t n = strlen(s), i = n;
    while (i > 0 && n - i < 4 && ((unsigned char)s[i - 1] & 0xC0) == 0x80) i--;
    if (i == 0) return;
    unsigned char lead = (unsigned char)s[i - 1];
    size_t want = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : lead >= 0xC0 ? 2 : 1;
    if (n - (i - 1) < want) s[i - 1] = '\0';
}

kvant_status kvant_fail(kvant_error *err, kvant_status st, const char *fmt, ...) {
    if (err) {
        err->status = st;
        va_list ap;
        va_start(ap, fmt);
        int len = vsnprintf(err->message, sizeof err->message, fmt, ap);
        va_end(ap);
        if (len < 0) err->message[0] = '\0';
        if (len >= (int)sizeof err->message) trim_partial_utf8(err->message);
    }
    return st;
}

const char *kvant_status_name(kvant_status st) {
    switch (st) {
    case KVANT_OK: return "ok";
    case KVANT_EINVAL: return "invalid argument";
    case KVANT_ENOMEM: return "out of memory";
    case KVANT_EIO: return "input/output error";
    case KVANT_EFORMAT: return "malformed file";
    case KVANT_EUNSUPPORTED: return "unsupported";
    case KVANT_EFULL: return "full";
    case KVANT_ECANCELLED: return "cancelled";
    }
    return "unknown status";
}

void kvant_set_log(kvant_log_fn fn, void *user) {
    log_fn = fn;
    log_user = user;
}

void kvant_log(kvant_log_level level, const char *fmt, ...) {
    if (!log_fn) return;
    char line[512];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(line, sizeof line, fmt, ap);
    va_end(ap);
    trim_partial_utf8(line);
    log_fn(log_user, level, line);
}

// SPDX-License-Identifier: MIT
/* cache_folder.c: the user's cache folder, by the rules of https://specifications.freedesktop.org/basedir-spec/latest/ */
#include <stdio.h>
#include <stdlib.h>

#include "cache_folder.h"

const char *cache_folder(void) {
    static char path[4096];
    const char *own = getenv("KVANT_CACHE"), *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int n = -1;
    if (own)
        n = snprintf(path, sizeof path, "%s", own);
    else if (base && base[0] == '/') /* a relative one is to be ignored */
        n = snprintf(path, sizeof path, "%s/kvant", base);
    else if (home && home[0] == '/')
        n = snprintf(path, sizeof path, "%s/.cache/kvant", home);
    return n > 0 && (size_t)n < sizeof path ? path : NULL;
}

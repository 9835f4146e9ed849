// SPDX-License-Identifier: MIT
/* fuzz_replay_main.c: runs a fuzz target on every file of the folders named on the command line, so that what fuzzing once
 * found is tested in every build, with any compiler. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz_target.h"

#define MAX_FILE_BYTES (1 << 20)

static int run_file(const char *path) {
    FILE *f = fopen(path, "rb");
    if (!f) {
        fprintf(stderr, "%s: cannot be opened\n", path);
        return 1;
    }
    uint8_t *data = malloc(MAX_FILE_BYTES);
    size_t size = data ? fread(data, 1, MAX_FILE_BYTES, f) : 0;
    fclose(f);
    /* a copy of exactly its size: a sanitizer then sees the first byte read behind it */
    uint8_t *exact = malloc(size ? size : 1);
    for (size_t i = 0; exact && i < size; i++)
        exact[i] = data[i];
    free(data);
    if (!exact) return 1;
    LLVMFuzzerTestOneInput(exact, size);
    free(exact);
    return 0;
}

int main(int argc, char **argv) {
    int n = 0, failed = 0;
    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        if (!folder) {
            fprintf(stderr, "%s: is not a folder\n", argv[i]);
            return 1;
        }
        for (struct dirent *e; (e = readdir(folder));) {
            char path[4096];
            if (e->d_name[0] == '.') continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], e->d_name);
            failed += run_file(path);
            n++;
        }
        closedir(folder);
    }
    printf("%d inputs replayed\n", n);
    return n == 0 || failed != 0;
}

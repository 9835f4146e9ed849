// SPDX-License-Identifier: MIT
/* program_test.h: runs the program as a child process, for the tests of its command line. What it says is in `output`.
 *
 * Included after cmocka.h and a feature macro for popen. */
#ifndef PROGRAM_TEST_H
#define PROGRAM_TEST_H

#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Which streams of a command are read. */
#define ONLY_STDOUT "2>/dev/null"
#define ONLY_STDERR "2>&1 >/dev/null"
#define BOTH_STREAMS "2>&1"

static char output[1 << 20];
static size_t n_output;

/* Runs a command of the shell with its stdout in out, as a string: the exit code, or -1 where a signal ended it. */
static inline int run_shell(const char *command, char *out, size_t size, size_t *n) {
    FILE *pipe = popen(command, "r");
    assert_non_null(pipe);
    *n = fread(out, 1, size - 1, pipe);
    out[*n] = '\0';
    int status = pclose(pipe);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

/* cache: the folder of calibrations ("" as well); NULL: the one that all tests have. */
static inline int run_program(const char *cache, const char *streams, const char *arguments) {
    char command[8192];
    int n = cache ? snprintf(command, sizeof command, "KVANT_CACHE='%s' '%s' %s %s", cache, KVANT_PROGRAM, arguments, streams)
                  : snprintf(command, sizeof command, "'%s' %s %s", KVANT_PROGRAM, arguments, streams);
    assert_true(n > 0 && (size_t)n < sizeof command);
    return run_shell(command, output, sizeof output, &n_output);
}

static inline int run(bool errors, const char *arguments) {
    return run_program(NULL, errors ? ONLY_STDERR : ONLY_STDOUT, arguments);
}

static inline void assert_runs(const char *arguments) {
    int code = run(false, arguments);
    if (code == 0) return;
    run(true, arguments);
    fail_msg("%s: exit %d: %s", arguments, code, output);
}

/* Exit code, and a piece of what is said on stderr; NULL: whatever is said. */
static inline void assert_says_with(int code, const char *cache, const char *arguments, const char *piece) {
    int got = run_program(cache, ONLY_STDERR, arguments);
    if (got != code || (piece && !strstr(output, piece)))
        fail_msg("%s: exit %d, expected %d and \"%s\", said: %s", arguments, got, code, piece ? piece : "", output);
}

static inline void assert_says(int code, const char *arguments, const char *piece) {
    assert_says_with(code, NULL, arguments, piece);
}

/* A file or a folder. */
static inline bool is_there(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

static inline bool is_there_or_said(const char *path) {
    if (is_there(path)) return true;
    printf("skipped: %s is not there\n", path);
    return false;
}

static inline void write_bytes(const char *path, const char *text, size_t size) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

#endif

// SPDX-License-Identifier: MIT
/* bench_parallel.h: kvant bench --parallel: conversations that decode together. */
#ifndef KVANT_APP_BENCH_PARALLEL_H
#define KVANT_APP_BENCH_PARALLEL_H

#include <stdbool.h>

/* Whether the command line of `kvant bench` asks for it (--parallel before any "--"). */
bool bench_parallel_asked(int argc, char **argv);

/* Parses argv (argv[0] is "bench"), measures and prints; the exit code of the program. */
int bench_parallel(int argc, char **argv);

#endif

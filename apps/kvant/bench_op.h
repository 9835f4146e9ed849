// SPDX-License-Identifier: MIT
/* bench_op.h: kvant bench --op: the speed of libkvant's packed path alone, without a model. */
#ifndef KVANT_APP_BENCH_OP_H
#define KVANT_APP_BENCH_OP_H

#include <stdbool.h>

/* Whether the command line of `kvant bench` asks for it (--op before any "--"). */
bool bench_op_asked(int argc, char **argv);

/* Parses argv (argv[0] is "bench"), measures and prints; the exit code of the program. */
int bench_op(int argc, char **argv);

#endif

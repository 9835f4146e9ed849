// SPDX-License-Identifier: MIT
/* commands.h: the commands of the program. Each parses argv (argv[0] is the command's name) and returns the exit code:
 * 0 done, 1 failed (one sentence on stderr), 2 the command line is wrong (one sentence and how to get help). */
#ifndef KVANT_APP_COMMANDS_H
#define KVANT_APP_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_compare(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_calibrate(int argc, char **argv);
int cmd_convert(int argc, char **argv);
int cmd_cache(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);
int cmd_detokenize(int argc, char **argv);
int cmd_logits(int argc, char **argv);

#endif

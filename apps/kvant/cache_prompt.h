// SPDX-License-Identifier: MIT
/* cache_prompt.h: the actions of kvant cache that read and write prompt caches of mlx-lm; as a command of commands.h. */
#ifndef KVANT_APP_CACHE_PROMPT_H
#define KVANT_APP_CACHE_PROMPT_H

int cache_import(int argc, char **argv);
int cache_export(int argc, char **argv);

#endif

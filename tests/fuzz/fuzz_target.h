// SPDX-License-Identifier: MIT
/* fuzz_target.h: what every fuzz target defines, called by libFuzzer or by fuzz_replay_main.c. */
#ifndef KVANT_FUZZ_TARGET_H
#define KVANT_FUZZ_TARGET_H

#include <stddef.h>
#include <stdint.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif

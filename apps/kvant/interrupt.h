// SPDX-License-Identifier: MIT
/* interrupt.h: Ctrl-C ends long work in order; a second one ends the program at once. */
#ifndef KVANT_APP_INTERRUPT_H
#define KVANT_APP_INTERRUPT_H

#include <signal.h>

/* Set by Ctrl-C between interrupt_watch and interrupt_unwatch; cleared by the next interrupt_watch. */
extern volatile sig_atomic_t interrupted;
void interrupt_watch(void);
void interrupt_unwatch(void);

#endif

// SPDX-License-Identifier: MIT
/* interrupt.c: one flag and its signal handler. */
#include "interrupt.h"

volatile sig_atomic_t interrupted;

/* The next Ctrl-C finds the default action. */
static void on_interrupt(int sig) {
    interrupted = 1;
    signal(sig, SIG_DFL);
}

void interrupt_watch(void) {
    interrupted = 0;
    signal(SIGINT, on_interrupt);
}

void interrupt_unwatch(void) { signal(SIGINT, SIG_DFL); }

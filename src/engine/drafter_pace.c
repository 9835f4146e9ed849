// SPDX-License-Identifier: MIT
/* drafter_pace.c: how many tokens are guessed: as many as have paid.
 *
 * Two rules. The length doubles, up to the most allowed, when all guesses of a full round were right, and falls to what was right
 * when one was wrong, but not below 1. And a ledger says whether anything is guessed at all: every round writes down the seconds it
 * took less those that its tokens would have taken one by one. While the loss is more than START_LOSS steps and LOSS_SHARE of all
 * time, nothing is guessed; as time goes on a probe becomes affordable again, and when it wins, the ledger opens. So a draft that
 * never fits costs LOSS_SHARE of a long answer and a step and a half of a short one, whatever a guess costs on this machine; wins count
 * only up to CREDIT steps, so that a good beginning cannot pay for a bad end. */
#include "engine/drafter.h"

#define LOSS_SHARE 0.01
#define START_LOSS 1.5
#define CREDIT 8.0
#define ROUNDS_WITHOUT_PLAIN 64 /* then one step of one token is timed again: it becomes slower as the context grows */

void kvant_draft_pace_init(kvant_draft_pace *p, int n_most) {
    *p = (kvant_draft_pace){.n_most = n_most, .length = n_most < 4 ? n_most : 4};
}

int kvant_draft_pace_choose(const kvant_draft_pace *p, double extra) {
    if (p->plain <= 0 || p->n_since_plain >= ROUNDS_WITHOUT_PLAIN) return 0;
    return p->lost + extra <= START_LOSS * p->plain + LOSS_SHARE * p->elapsed ? p->length : 0;
}

void kvant_draft_pace_round(kvant_draft_pace *p, int n_asked, int n_guessed, int n_right, double guess_seconds, double step_seconds) {
    p->elapsed += guess_seconds + step_seconds;
    if (n_guessed == 0) {
        p->plain = p->plain > 0 ? p->plain + (step_seconds - p->plain) / 4 : step_seconds;
        p->n_since_plain = 0;
        p->lost += guess_seconds;
        return;
    }
    /* A step that took longer than its tokens one by one was interrupted by something else. */
    double most = (n_guessed + 1) * p->plain;
    if (step_seconds > most) step_seconds = most;
    p->lost += guess_seconds + step_seconds - (n_right + 1) * p->plain;
    if (p->lost < -CREDIT * p->plain) p->lost = -CREDIT * p->plain;
    p->n_since_plain++;
    if (n_right < n_guessed) p->length = n_right > 1 ? n_right : 1;
    else if (n_guessed == n_asked) p->length = 2 * p->length < p->n_most ? 2 * p->length : p->n_most;
}

// SPDX-License-Identifier: MIT
/* eval_plot.c: --plot: KL divergence over total bits, a line a family of formats. */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "eval.h"
#include "eval_family.h"
#include "plot_svg.h"

static void add_point(plot *p, const eval_row *r, char *missing, size_t size) {
    char family[EVAL_NAME_MAX];
    eval_family(r->result.name, family, sizeof family);
    if (strncmp(family, "q_", 2) == 0) strncat(family, " of llama.cpp", sizeof family - strlen(family) - 1);
    if (plot_add(p, family, r->result.name, r->figures.bits, r->figures.kl.mean)) return;
    size_t n = strlen(missing);
    snprintf(missing + n, size - n, "%s%s (%s)", n ? ", " : "not drawn: ", r->result.name,
             r->figures.kl.mean == 0     ? "no divergence"
             : isnan(r->figures.kl.mean) ? "nothing scored"
                                         : "not a finite divergence");
}

int eval_plot(const evaluation *e) {
    static plot p;
    char title[256], subtitle[256], missing[512] = "";
    p = (plot){.x_title = "bits per stored value, K and V together", .y_title = "mean KL divergence from the f16 cache (nats)"};
    snprintf(title, sizeof title, "%.100s: what cache formats cost", e->info.name ? e->info.name : e->info.path);
    snprintf(subtitle, sizeof subtitle, "context %d, %" PRId64 " positions, %s; lower and further left is better", e->chunk,
             e->rows[0].result.sample.n, e->fast ? "fast kernels" : "float32 arithmetic");
    p.title = title;
    p.subtitle = subtitle;
    p.floor = e->rows[1].figures.kl.mean > 0 ? e->rows[1].figures.kl.mean : 0; /* not where it is NaN */
    p.ringed = "preset";
    p.floor_name = "noise floor (f32 cache)";
    for (int i = 2; i < e->n_rows; i++)
        add_point(&p, &e->rows[i], missing, sizeof missing);
    p.note = missing;
    FILE *out = fopen(e->plot_path, "wb");
    if (!out) return fail_with(1, "%s: %s", e->plot_path, strerror(errno));
    plot_write(&p, out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0) failed = true;
    return failed ? fail_with(1, "%s: the picture cannot be written: %s", e->plot_path, strerror(errno)) : 0;
}

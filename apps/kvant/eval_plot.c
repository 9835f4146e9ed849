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

/* A line where it is near the points; far below them it would take their room. */
static void add_floor(plot *p, double floor, char *note, size_t size) {
    double lowest = INFINITY;
    for (int i = 0; i < p->n_points; i++)
        lowest = fmin(lowest, p->points[i].y);
    size_t n = strlen(note);
    if (!(floor > 0) || !isfinite(floor)) return;
    if (floor * 30 >= lowest || p->n_points == 0)
        p->floor = floor;
    else
        snprintf(note + n, size - n, "%snoise floor (f32 cache): %.2g nats, below the picture", n ? "; " : "", floor);
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
    p.ringed = "preset";
    p.floor_name = "noise floor (f32 cache)";
    for (int presets = 0; presets < 2; presets++) { /* in the legend, presets come last */
        for (int i = 2; i < e->n_rows; i++)
            if ((strpbrk(e->rows[i].result.name, "0123456789") == NULL) == presets)
                add_point(&p, &e->rows[i], missing, sizeof missing);
    }
    add_floor(&p, e->rows[1].figures.kl.mean, missing, sizeof missing);
    p.note = missing;
    FILE *out = fopen(e->plot_path, "wb");
    if (!out) return fail_with(1, "%s: %s", e->plot_path, strerror(errno));
    plot_write(&p, out);
    bool failed = ferror(out) != 0;
    if (fclose(out) != 0) failed = true;
    return failed ? fail_with(1, "%s: the picture cannot be written: %s", e->plot_path, strerror(errno)) : 0;
}

// SPDX-License-Identifier: MIT
/* plot_layout.c: scales, the legend's rows, and where labels go.
 *
 * A label goes where it covers least: places around its point are tried in order of how a reader would want them, and what lies
 * there already (labels, markers, lines) has a price; a few rounds let labels that came first make room. */
#include <math.h>
#include <string.h>

#include "plot_layout.h"

#define LEGEND_ROW 20.0
#define LETTER 6.7 /* width of a letter of a label, on the safe side */
#define ROUNDS 4

/* ---- scales ---- */

plot_scale plot_scale_linear(double min, double max, int max_ticks, double from, double to) {
    plot_scale s = {.from = from, .to = to};
    double span = max > min ? max - min : 1, step = pow(10, floor(log10(span / max_ticks)));
    static const double rounds[] = {1, 2, 5, 10, 20};
    for (size_t i = 0; i < sizeof rounds / sizeof *rounds; i++) {
        s.step = step * rounds[i];
        s.low = floor(min / s.step) * s.step;
        s.high = ceil(max / s.step) * s.step;
        if (s.high <= s.low) s.high = s.low + s.step;
        if ((s.high - s.low) / s.step <= max_ticks + 1e-9) break;
    }
    return s;
}

plot_scale plot_scale_decades(double min, double max, double from, double to) {
    plot_scale s = {.from = from, .to = to, .step = 1, .is_logarithmic = true};
    double low = floor(log10(min) + 1e-12), high = ceil(log10(max) - 1e-12);
    if (high <= low) high = low + 1;
    s.low = pow(10, low);
    s.high = pow(10, high);
    return s;
}

double plot_scale_at(const plot_scale *s, double value) {
    double part =
        s->is_logarithmic ? value > 0 ? log(value / s->low) / log(s->high / s->low) : 0 : (value - s->low) / (s->high - s->low);
    part = !(part > 0) ? 0 : part > 1 ? 1 : part;
    return s->from + part * (s->to - s->from);
}

/* ---- points ---- */

int plot_series(plot *p, const char *name) {
    for (int i = 0; i < p->n_series; i++)
        if (strcmp(p->series[i], name) == 0) return i;
    if (p->n_series == PLOT_MAX_SERIES) return -1;
    snprintf(p->series[p->n_series], PLOT_NAME_MAX, "%s", name);
    return p->n_series++;
}

bool plot_add(plot *p, const char *series, const char *label, double x, double y) {
    if (p->n_points == PLOT_MAX_POINTS || !isfinite(x) || !isfinite(y) || y <= 0) return false;
    plot_point *point = &p->points[p->n_points];
    *point = (plot_point){.x = x, .y = y, .series = plot_series(p, series)};
    if (point->series < 0) return false;
    snprintf(point->label, sizeof point->label, "%s", label);
    p->n_points++;
    return true;
}

static void sort_points(plot_layout *c) {
    const plot_point *points = c->p->points;
    for (int i = 0; i < c->p->n_points; i++) {
        int k = i;
        for (; k > 0; k--) {
            const plot_point *a = &points[c->order[k - 1]], *b = &points[i];
            if (a->series < b->series || (a->series == b->series && a->x <= b->x)) break;
            c->order[k] = c->order[k - 1];
        }
        c->order[k] = i;
    }
}

bool plot_is_ringed(const plot *p, int series) { return p->ringed && strcmp(p->series[series], p->ringed) == 0; }

/* Whether a line joins the k-th point in order to the one before it. */
bool plot_layout_joins(const plot_layout *c, int k) {
    if (k <= 0 || k >= c->p->n_points) return false;
    int series = c->p->points[c->order[k]].series;
    return c->p->points[c->order[k - 1]].series == series && !plot_is_ringed(c->p, series);
}

/* ---- where labels go ---- */

double plot_letters(const char *text) {
    double n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static plot_box box_of(const char *label, plot_place at) {
    double width = plot_letters(label) * LETTER, x = at.anchor == 's' ? at.x : at.anchor == 'm' ? at.x - width / 2 : at.x - width;
    return (plot_box){x, at.y - PLOT_LABEL_SIZE * 0.8, x + width, at.y + PLOT_LABEL_SIZE * 0.25};
}

static double overlap(plot_box a, plot_box b) {
    double w = fmin(a.x1, b.x1) - fmax(a.x0, b.x0), h = fmin(a.y1, b.y1) - fmax(a.y0, b.y0);
    return w > 0 && h > 0 ? w * h : 0;
}

/* The length of the part of a line that lies in the box. */
static double line_in_box(plot_box b, double x0, double y0, double x1, double y1) {
    double low = 0, high = 1, dx = x1 - x0, dy = y1 - y0;
    const double p[4] = {-dx, dx, -dy, dy}, q[4] = {x0 - b.x0, b.x1 - x0, y0 - b.y0, b.y1 - y0};
    for (int i = 0; i < 4; i++) {
        if (p[i] == 0) {
            if (q[i] < 0) return 0;
        } else if (p[i] < 0)
            low = fmax(low, q[i] / p[i]);
        else
            high = fmin(high, q[i] / p[i]);
    }
    return high > low ? (high - low) * hypot(dx, dy) : 0;
}

/* What it costs to put the label of point i into the box. */
static double cost_of(const plot_layout *c, int i, plot_box b) {
    const plot *p = c->p;
    double cost = 0;
    if (b.x0 < PLOT_LEFT + 2 || b.x1 > PLOT_RIGHT - 2 || b.y0 < c->top + 1 || b.y1 > PLOT_BOTTOM - 1) cost += 1e5;
    for (int k = 0; k < p->n_points; k++) {
        double reach = c->reach[k] + 1;
        plot_box marker = {c->px[k] - reach, c->py[k] - reach, c->px[k] + reach, c->py[k] + reach};
        if (k != i) cost += 12 * overlap(b, c->boxes[k]);
        cost += 12 * overlap(b, marker);
    }
    for (int k = 1; k < p->n_points; k++) {
        int from = c->order[k - 1], to = c->order[k];
        if (plot_layout_joins(c, k)) cost += 5 * line_in_box(b, c->px[from], c->py[from], c->px[to], c->py[to]);
    }
    if (p->floor > 0) {
        double y = plot_scale_at(&c->y, p->floor);
        cost += 3 * line_in_box(b, PLOT_LEFT, y, PLOT_RIGHT, y);
    }
    return cost;
}

static void place_label(plot_layout *c, int i) {
    /* Directions in the order of preference, then the same further out. */
    static const struct {
        double x, y;
        char anchor;
    } around[] = {{9, -5, 's'}, {9, 4, 's'},   {9, 14, 's'},  {-9, 14, 'e'},
                  {-9, 4, 'e'}, {-9, -5, 'e'}, {0, -10, 'm'}, {0, 19, 'm'}};
    double best = INFINITY;
    plot_place chosen = {0};
    for (int far = 0; far < 4; far++) {
        for (size_t d = 0; d < sizeof around / sizeof *around; d++) {
            double more = c->reach[i] - PLOT_MARKER, out = 1 + 0.8 * far;
            double dx = around[d].x * (1 + 0.4 * far) + (around[d].x > 0 ? more : around[d].x < 0 ? -more : 0);
            double dy = (around[d].y - 4) * out + (around[d].y > 4 ? more : around[d].y < 4 ? -more : 0);
            plot_place at = {c->px[i] + dx, c->py[i] + 4 + dy, around[d].anchor};
            double cost = cost_of(c, i, box_of(c->p->points[i].label, at)) + 40.0 * far + 2.0 * (double)d;
            if (cost < best) {
                best = cost;
                chosen = at;
            }
        }
    }
    c->places[i] = chosen;
    c->boxes[i] = box_of(c->p->points[i].label, chosen);
}

/* ---- all of it ---- */

/* Series in rows above the axes. */
static void place_legend(plot_layout *c) {
    double x = PLOT_LEFT, y = PLOT_LEGEND;
    for (int i = 0; i < c->p->n_series; i++) {
        double width = 44 + plot_letters(c->p->series[i]) * 7.2 + 18;
        if (x + width > PLOT_RIGHT + 18 && x > PLOT_LEFT) {
            x = PLOT_LEFT;
            y += LEGEND_ROW;
        }
        c->legend[i] = (plot_place){x, y, 's'};
        x += width;
    }
    c->top = y + 18;
}

void plot_layout_init(plot_layout *c, const plot *p) {
    *c = (plot_layout){.p = p};
    double x_min = INFINITY, x_max = -INFINITY, y_min = INFINITY, y_max = -INFINITY;
    for (int i = 0; i < p->n_points; i++) {
        x_min = fmin(x_min, p->points[i].x), x_max = fmax(x_max, p->points[i].x);
        y_min = fmin(y_min, p->points[i].y), y_max = fmax(y_max, p->points[i].y);
    }
    if (p->n_points == 0) x_min = 0, x_max = 1, y_min = y_max = 1;
    if (p->floor > 0) y_min = fmin(y_min, p->floor), y_max = fmax(y_max, p->floor);
    place_legend(c);
    double margin = 0.04 * (x_max - x_min);
    c->x = plot_scale_linear(fmax(0, x_min - margin), x_max + margin, 12, PLOT_LEFT, PLOT_RIGHT);
    c->y = plot_scale_decades(y_min / 1.1, y_max * 1.1, PLOT_BOTTOM, c->top);
    for (int i = 0; i < p->n_points; i++) {
        c->px[i] = plot_scale_at(&c->x, p->points[i].x);
        c->py[i] = plot_scale_at(&c->y, p->points[i].y);
        c->boxes[i] = (plot_box){0, 0, 0, 0};
    }
    sort_points(c);
    for (int i = 0; i < p->n_points; i++) {
        c->reach[i] = PLOT_MARKER;
        for (int k = 0; k < p->n_points; k++)
            if (plot_is_ringed(p, p->points[k].series) && hypot(c->px[k] - c->px[i], c->py[k] - c->py[i]) < PLOT_RING)
                c->reach[i] = PLOT_RING + 1;
    }
    for (int round = 0; round < ROUNDS; round++)
        for (int k = 0; k < p->n_points; k++)
            place_label(c, c->order[k]);
}

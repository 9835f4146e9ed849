// SPDX-License-Identifier: MIT
/* plot_svg.h: a picture of labelled points on a linear x and a logarithmic y axis, as an SVG file.
 *
 * A series is a line with a marker of its own; every point has a label beside it. Pure: points in, text out. */
#ifndef KVANT_APP_PLOT_SVG_H
#define KVANT_APP_PLOT_SVG_H

#include <stdbool.h>
#include <stdio.h>

#define PLOT_MAX_POINTS 32
#define PLOT_MAX_SERIES PLOT_MAX_POINTS
#define PLOT_NAME_MAX 80

/* A stretch of values and the pixels it is drawn on. */
typedef struct plot_scale {
    double low, high; /* linear: whole steps; logarithmic: whole decades, both positive */
    double from, to;  /* pixels of low and high */
    double step;      /* linear: between ticks */
    bool is_logarithmic;
} plot_scale;

/* The smallest scale of round ticks, at most max_ticks of them, or of whole decades, that holds min...max. Logarithmic: min > 0.
 */
plot_scale plot_scale_linear(double min, double max, int max_ticks, double from, double to);
plot_scale plot_scale_decades(double min, double max, double from, double to);
/* The pixel of a value; outside the scale its nearest end. */
double plot_scale_at(const plot_scale *s, double value);

typedef struct plot_point {
    double x, y; /* finite, y > 0 */
    int series;
    char label[PLOT_NAME_MAX];
} plot_point;

typedef struct plot {
    const char *title, *subtitle, *x_title, *y_title, *note; /* UTF-8 or any bytes; note below the axes, may be "" */
    double floor;                                            /* a dashed line across, 0: none */
    const char *floor_name;
    int n_series, n_points;
    const char *ringed; /* a series of this name is not a line: its points are rings around points of others. NULL: none */
    char series[PLOT_MAX_SERIES][PLOT_NAME_MAX];
    plot_point points[PLOT_MAX_POINTS]; /* a series' points are joined in order of x */
} plot;

/* The index of the series of that name, added where it is new. -1: there are too many. */
int plot_series(plot *p, const char *name);
/* false: it is not a point that can be drawn, or there are too many. */
bool plot_add(plot *p, const char *series, const char *label, double x, double y);
/* Writes the picture; errors show in ferror(out). */
void plot_write(const plot *p, FILE *out);

#endif

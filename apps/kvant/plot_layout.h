// SPDX-License-Identifier: MIT
/* plot_layout.h: where everything of a picture goes, before any of it is written. Sizes are in pixels of the SVG. */
#ifndef KVANT_APP_PLOT_LAYOUT_H
#define KVANT_APP_PLOT_LAYOUT_H

#include "plot_svg.h"

#define PLOT_WIDTH 900.0
#define PLOT_HEIGHT 620.0
#define PLOT_LEFT 84.0 /* of the axes */
#define PLOT_RIGHT 876.0
#define PLOT_BOTTOM 548.0
#define PLOT_LEGEND 76.0 /* the centre of its first row */
#define PLOT_LABEL_SIZE 12.0
#define PLOT_MARKER 5.0 /* half its width */
#define PLOT_RING 9.0   /* the radius of one around a marker */

typedef struct plot_box {
    double x0, y0, x1, y1;
} plot_box;

typedef struct plot_place {
    double x, y; /* where the text starts, middle or ends, on its base line */
    char anchor; /* s, m, e */
} plot_place;

typedef struct plot_layout {
    const plot *p;
    plot_scale x, y;
    double top;                         /* of the axes */
    int order[PLOT_MAX_POINTS];         /* points by series, then by x */
    plot_place legend[PLOT_MAX_SERIES]; /* of a series: the left end of its line */
    double px[PLOT_MAX_POINTS], py[PLOT_MAX_POINTS];
    double reach[PLOT_MAX_POINTS]; /* half the width of what is drawn there, a ring of another point included */
    plot_place places[PLOT_MAX_POINTS];
    plot_box boxes[PLOT_MAX_POINTS]; /* of the labels */
} plot_layout;

/* Everything of p. */
void plot_layout_init(plot_layout *c, const plot *p);
/* Whether a line joins the k-th point of c->order to the one before it. */
bool plot_layout_joins(const plot_layout *c, int k);
bool plot_is_ringed(const plot *p, int series);
/* Characters of UTF-8 text. */
double plot_letters(const char *text);

#endif

// SPDX-License-Identifier: MIT
/* plot_svg.c: axes, lines, markers and labels as SVG text, where plot_layout.c puts them.
 *
 * Series differ by marker and dash as well as by colour, so that the picture is read in black and white too. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "plot_layout.h"

/* Eight colours that stay apart for most colour-blind readers and in grey; then they repeat with other markers and dashes. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#a8417f", "#4d4d4d", "#b07d00", "#3b7fb0", "#7a1f1f"};
static const char *const dashes[] = {"", "7 4", "2 3", "10 3 2 3", "12 5", "4 2"};
#define N_COLOURS ((int)(sizeof colours / sizeof *colours))
#define N_DASHES ((int)(sizeof dashes / sizeof *dashes))
#define N_MARKERS 8

/* Text between tags: no markup, and ASCII where it is not UTF-8 that an XML reader must accept. */
static void write_text(FILE *out, const char *text) {
    for (const unsigned char *s = (const unsigned char *)text; *s; s++) {
        int more = *s >= 0xf0 && *s < 0xf5 ? 3 : *s >= 0xe0 && *s < 0xf0 ? 2 : *s >= 0xc2 && *s < 0xe0 ? 1 : 0, good = 0;
        while (good < more && (s[good + 1] & 0xc0) == 0x80)
            good++;
        bool rare = (*s == 0xe0 && s[1] < 0xa0) || (*s == 0xed && s[1] >= 0xa0) || (*s == 0xf0 && s[1] < 0x90) ||
                    (*s == 0xf4 && s[1] >= 0x90) || (*s == 0xef && s[1] == 0xbf && s[2] >= 0xbe);
        if (*s == '<')
            fputs("&lt;", out);
        else if (*s == '>')
            fputs("&gt;", out);
        else if (*s == '&')
            fputs("&amp;", out);
        else if (*s >= 0x80 && more > 0 && good == more && !rare) {
            fwrite(s, 1, (size_t)more + 1, out);
            s += more;
        } else
            fputc(*s < 0x20 || *s >= 0x7f ? '?' : *s, out);
    }
}

static void text_at(FILE *out, double x, double y, const char *attributes, const char *text) {
    fprintf(out, "<text x=\"%.1f\" y=\"%.1f\" %s>", x, y, attributes);
    write_text(out, text);
    fputs("</text>\n", out);
}

static void line_at(FILE *out, double x0, double y0, double x1, double y1, const char *attributes) {
    fprintf(out, "<line x1=\"%.1f\" y1=\"%.1f\" x2=\"%.1f\" y2=\"%.1f\" %s/>\n", x0, y0, x1, y1, attributes);
}

static void marker_at(FILE *out, const plot *p, int series, double x, double y) {
    if (plot_is_ringed(p, series)) {
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"none\" stroke=\"#111\" stroke-width=\"1.4\"/>\n", x, y,
                PLOT_RING);
        return;
    }
    const char *colour = colours[series % N_COLOURS], *fill = series / N_MARKERS % 2 == 0 ? colour : "#fff";
    static const char *const shapes[N_MARKERS] = {
        NULL, /* a disc */
        "M-4.5-4.5h9v9h-9z",
        "M0-6 5.5 4.5h-11z",
        "M0-6.2 6.2 0 0 6.2-6.2 0z",
        "M-5-5 5 5M-5 5 5-5",
        "M0 6 5.5-4.5h-11z",
        "M-6 0h12M0-6v12",
        NULL /* a ring */
    };
    int shape = series % N_MARKERS;
    if (shapes[shape])
        fprintf(out, "<path d=\"%s\" transform=\"translate(%.1f %.1f)\" fill=\"%s\" stroke=\"%s\" stroke-width=\"%s\"/>\n",
                shapes[shape], x, y, shape == 4 || shape == 6 ? "none" : fill, colour, shape == 4 || shape == 6 ? "2.4" : "1.4");
    else
        fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%g\" fill=\"%s\" stroke=\"%s\" stroke-width=\"2\"/>\n", x, y,
                PLOT_MARKER - 0.6, shape == 7 ? "#fff" : fill, colour);
}

static void write_axes(const plot_layout *c, FILE *out) {
    static const char grid[] = "stroke=\"#d0d0d0\" stroke-width=\"1\"", fine[] = "stroke=\"#efefef\" stroke-width=\"1\"";
    for (double decade = c->y.low; decade <= c->y.high * 1.001; decade *= 10) {
        double y = plot_scale_at(&c->y, decade);
        for (int k = 2; k < 10 && decade * k < c->y.high; k++) {
            double between = plot_scale_at(&c->y, decade * k);
            line_at(out, PLOT_LEFT, between, PLOT_RIGHT, between, fine);
        }
        line_at(out, PLOT_LEFT, y, PLOT_RIGHT, y, grid);
        fprintf(
            out,
            "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"end\" font-size=\"13\">10<tspan font-size=\"10\" dy=\"-6\">%s%d</tspan>"
            "</text>\n",
            PLOT_LEFT - 8, y + 5, decade < 0.999 ? "−" : "", abs((int)lround(log10(decade))));
    }
    int ticks = (int)lround((c->x.high - c->x.low) / c->x.step);
    for (int i = 0; i <= ticks; i++) {
        char number[32];
        double value = c->x.low + i * c->x.step, x = plot_scale_at(&c->x, value);
        line_at(out, x, c->top, x, PLOT_BOTTOM, grid);
        snprintf(number, sizeof number, "%.6g", fabs(value) < c->x.step * 1e-6 ? 0 : value);
        text_at(out, x, PLOT_BOTTOM + 19, "text-anchor=\"middle\" font-size=\"13\"", number);
    }
    fprintf(out, "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"none\" stroke=\"#444\"/>\n", PLOT_LEFT,
            c->top, PLOT_RIGHT - PLOT_LEFT, PLOT_BOTTOM - c->top);
    text_at(out, (PLOT_LEFT + PLOT_RIGHT) / 2, PLOT_BOTTOM + 42, "text-anchor=\"middle\" font-size=\"14\"", c->p->x_title);
    fprintf(out, "<text transform=\"translate(24 %.1f) rotate(-90)\" text-anchor=\"middle\" font-size=\"14\">",
            (c->top + PLOT_BOTTOM) / 2);
    write_text(out, c->p->y_title);
    fputs("</text>\n", out);
}

static void write_stroke(FILE *out, int series) {
    fprintf(out, " fill=\"none\" stroke=\"%s\" stroke-width=\"1.8\"", colours[series % N_COLOURS]);
    if (dashes[series % N_DASHES][0]) fprintf(out, " stroke-dasharray=\"%s\"", dashes[series % N_DASHES]);
    fputs("/>\n", out);
}

static void write_legend(const plot_layout *c, FILE *out) {
    for (int i = 0; i < c->p->n_series; i++) {
        double x = c->legend[i].x, y = c->legend[i].y;
        if (!plot_is_ringed(c->p, i)) {
            fprintf(out, "<path d=\"M%.1f %.1fh34\"", x, y);
            write_stroke(out, i);
        }
        marker_at(out, c->p, i, x + 17, y);
        text_at(out, x + 42, y + 4.5, "font-size=\"13\"", c->p->series[i]);
    }
}

static void write_lines(const plot_layout *c, FILE *out) {
    const plot *p = c->p;
    for (int k = 0; k < p->n_points; k++) {
        int i = c->order[k], series = p->points[i].series;
        bool first = !plot_layout_joins(c, k), last = !plot_layout_joins(c, k + 1);
        if (first && last) continue;
        if (first) fputs("<polyline points=\"", out);
        fprintf(out, "%.1f,%.1f ", c->px[i], c->py[i]);
        if (!last) continue;
        fputs("\"", out);
        write_stroke(out, series);
    }
}

static void write_labels(const plot_layout *c, FILE *out) {
    for (int i = 0; i < c->p->n_points; i++)
        marker_at(out, c->p, c->p->points[i].series, c->px[i], c->py[i]);
    for (int i = 0; i < c->p->n_points; i++) {
        char attributes[160];
        plot_place at = c->places[i];
        plot_box b = c->boxes[i];
        double x = fmin(fmax(c->px[i], b.x0), b.x1), y = fmin(fmax(c->py[i], b.y0), b.y1);
        if (hypot(x - c->px[i], y - c->py[i]) > 14)
            line_at(out, c->px[i], c->py[i], x, y, "stroke=\"#999\" stroke-width=\"0.8\"");
        snprintf(attributes, sizeof attributes,
                 "text-anchor=\"%s\" font-size=\"%g\" fill=\"%s\" stroke=\"#fff\" stroke-width=\"3\" paint-order=\"stroke\"",
                 at.anchor == 's'   ? "start"
                 : at.anchor == 'm' ? "middle"
                                    : "end",
                 PLOT_LABEL_SIZE, "#111");
        text_at(out, at.x, at.y, attributes, c->p->points[i].label);
    }
}

void plot_write(const plot *p, FILE *out) {
    plot_layout c;
    plot_layout_init(&c, p);
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %g %g\" width=\"%g\" height=\"%g\" "
            "font-family=\"DejaVu Sans, Verdana, Helvetica, Arial, sans-serif\" fill=\"#111\">\n"
            "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n",
            PLOT_WIDTH, PLOT_HEIGHT, PLOT_WIDTH, PLOT_HEIGHT);
    text_at(out, PLOT_LEFT, 30, "font-size=\"18\" font-weight=\"bold\"", p->title);
    text_at(out, PLOT_LEFT, 52, "font-size=\"13\" fill=\"#444\"", p->subtitle);
    write_legend(&c, out);
    write_axes(&c, out);
    if (p->floor > 0) {
        double y = plot_scale_at(&c.y, p->floor);
        line_at(out, PLOT_LEFT, y, PLOT_RIGHT, y, "stroke=\"#444\" stroke-width=\"1.4\" stroke-dasharray=\"3 3\"");
        text_at(out, PLOT_RIGHT - 6, y - 5, "text-anchor=\"end\" font-size=\"12\" fill=\"#444\"", p->floor_name);
    }
    write_lines(&c, out);
    write_labels(&c, out);
    if (p->note && p->note[0]) text_at(out, PLOT_LEFT, PLOT_HEIGHT - 10, "font-size=\"12\" fill=\"#444\"", p->note);
    fputs("</svg>\n", out);
}

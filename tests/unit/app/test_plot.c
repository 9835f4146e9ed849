// SPDX-License-Identifier: MIT
/* test_plot.c: the picture of kvant eval: its scales, its labels, and that it is SVG whatever the names are. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "eval_family.h"
#include "plot_layout.h"

static char svg[1 << 18];
static plot picture;

static uint64_t seed = 20261124;
static double uniform(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(seed >> 11) / 9007199254740992.0;
}

static void begin(void) {
    picture = (plot){.title = "title", .subtitle = "", .x_title = "x", .y_title = "y", .note = "", .floor_name = "floor"};
}

static void write_svg(void) {
    FILE *f = tmpfile();
    assert_non_null(f);
    plot_write(&picture, f);
    long n = ftell(f);
    assert_true(n > 0 && (size_t)n < sizeof svg);
    rewind(f);
    assert_int_equal(fread(svg, 1, (size_t)n, f), n);
    svg[n] = '\0';
    fclose(f);
}

static int count(const char *piece) {
    int n = 0;
    for (const char *at = svg; (at = strstr(at, piece)) != NULL; at++)
        n++;
    return n;
}

static void decades_are_whole_equally_high_and_hold_the_values(void **state) {
    (void)state;
    plot_scale s = plot_scale_decades(0.00034, 2.5, 500, 100);
    assert_true(fabs(log10(s.low) + 4) < 1e-9 && fabs(log10(s.high) - 1) < 1e-9);
    for (int d = 0; d <= 5; d++)
        assert_true(fabs(plot_scale_at(&s, pow(10, d - 4)) - (500 - 80.0 * d)) < 1e-6);
    assert_true(fabs(plot_scale_at(&s, sqrt(0.001 * 0.01)) - (500 - 80 * 1.5)) < 1e-6);
    s = plot_scale_decades(0.01, 0.01, 0, 1); /* a single value on a decade still has room */
    assert_true(s.high > s.low && s.low <= 0.01 * 1.0000001 && s.high >= 0.01);
    s = plot_scale_decades(0.001, 0.1, 0, 1); /* ends that are decades do not add others */
    assert_true(fabs(log10(s.low) + 3) < 1e-9 && fabs(log10(s.high) + 1) < 1e-9);
}

static void linear_scales_have_few_round_ticks_and_hold_the_values(void **state) {
    (void)state;
    printf("seed %llu\n", (unsigned long long)seed);
    for (int i = 0; i < 2000; i++) {
        double min = 40 * uniform(), max = min + pow(10, 4 * uniform() - 2);
        plot_scale s = plot_scale_linear(min, max, 12, 10, 20);
        double ticks = (s.high - s.low) / s.step, digit = s.step / pow(10, floor(log10(s.step) + 1e-9));
        assert_true(s.low <= min + 1e-9 && s.high >= max - 1e-9);
        if (!(ticks > 0.5 && ticks < 12.001)) fail_msg("%g...%g: %g ticks", min, max, ticks);
        assert_true(fabs(digit - 1) < 1e-6 || fabs(digit - 2) < 1e-6 || fabs(digit - 5) < 1e-6);
        assert_true(fabs(plot_scale_at(&s, (s.low + s.high) / 2) - 15) < 1e-9);
    }
    plot_scale s = plot_scale_linear(4, 4, 12, 0, 1);
    assert_true(s.high > s.low && s.low <= 4 && s.high >= 4);
}

static void values_outside_a_scale_stay_on_its_ends(void **state) {
    (void)state;
    plot_scale linear = plot_scale_linear(0, 10, 5, 100, 200), decades = plot_scale_decades(0.01, 1, 300, 100);
    assert_true(plot_scale_at(&linear, -5) == 100 && plot_scale_at(&linear, 1e9) == 200 && plot_scale_at(&linear, NAN) == 100);
    assert_true(plot_scale_at(&decades, 0) == 300 && plot_scale_at(&decades, -1) == 300 && plot_scale_at(&decades, 50) == 100);
}

static void what_a_logarithm_cannot_show_is_not_added(void **state) {
    (void)state;
    begin();
    assert_false(plot_add(&picture, "a", "zero", 4, 0));
    assert_false(plot_add(&picture, "a", "nan", 4, NAN));
    assert_false(plot_add(&picture, "a", "infinite", 4, INFINITY));
    assert_false(plot_add(&picture, "a", "nowhere", NAN, 1));
    assert_int_equal(picture.n_points, 0);
    for (int i = 0; i < PLOT_MAX_POINTS; i++)
        assert_true(plot_add(&picture, "a", "x", i, 1));
    assert_false(plot_add(&picture, "a", "one too many", 1, 1));
    begin();
    write_svg(); /* axes alone */
    assert_non_null(strstr(svg, "</svg>"));
}

/* A typical run: five families that lie close together, and presets on top of two of them. */
static void fill_suite(void) {
    static const struct {
        const char *name;
        double bits, kl;
    } rows[] = {{"affine8:64", 8.5, 2e-4}, {"affine6:64", 6.5, 2e-3}, {"affine5:64", 5.5, 8e-3}, {"affine4:64", 4.5, 4e-2},
                {"affine3:64", 3.5, 0.22}, {"affine2:64", 2.5, 3.1},  {"bc5", 5.3, 9e-4},        {"bc5/bc4", 4.8, 1.6e-3},
                {"bc4", 4.4, 3e-3},        {"bc3", 3.4, 1.8e-2},      {"bc2", 2.4, 0.19},        {"i8", 8.3, 4e-5},
                {"q8_0", 8.5, 1e-4},       {"q5_1", 6, 3e-3},         {"q4_0", 4.5, 2e-2},       {"lm4", 4.3, 2e-2},
                {"lm3", 3.3, 7e-2},        {"small", 4.4, 3e-3},      {"balanced", 4.8, 1.6e-3}};
    begin();
    picture.ringed = "preset";
    picture.floor = 3e-6;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char family[64];
        eval_family(rows[i].name, family, sizeof family);
        assert_true(plot_add(&picture, family, rows[i].name, rows[i].bits, rows[i].kl));
    }
}

static void labels_of_a_suite_lie_inside_and_do_not_overlap(void **state) {
    (void)state;
    plot_layout c;
    fill_suite();
    plot_layout_init(&c, &picture);
    for (int i = 0; i < picture.n_points; i++) {
        plot_box a = c.boxes[i];
        assert_true(a.x0 >= PLOT_LEFT && a.x1 <= PLOT_RIGHT && a.y0 >= c.top && a.y1 <= PLOT_BOTTOM);
        for (int k = 0; k < picture.n_points; k++) {
            plot_box b = c.boxes[k];
            double x = c.px[k], y = c.py[k];
            bool labels = k != i && a.x0 < b.x1 && b.x0 < a.x1 && a.y0 < b.y1 && b.y0 < a.y1;
            bool marker = x > a.x0 && x < a.x1 && y > a.y0 && y < a.y1;
            if (labels || marker)
                fail_msg("%s lies on %s of %s", picture.points[i].label, labels ? "the label" : "the marker",
                         picture.points[k].label);
        }
    }
}

static void a_line_joins_a_family_in_order_of_bits_and_no_presets(void **state) {
    (void)state;
    plot_layout c;
    fill_suite();
    plot_layout_init(&c, &picture);
    int joined = 0;
    for (int k = 0; k < picture.n_points; k++) {
        const plot_point *to = &picture.points[c.order[k]], *from = k > 0 ? &picture.points[c.order[k - 1]] : NULL;
        if (!plot_layout_joins(&c, k)) continue;
        joined++;
        assert_true(from && from->series == to->series && from->x <= to->x);
        assert_string_not_equal(picture.series[to->series], "preset");
    }
    assert_int_equal(joined, 5 + 4 + 1 + 1); /* affine, bc, q_0, lm */
    write_svg();
    assert_int_equal(count("<polyline"), 4);
}

/* What follows each name of the legend's row is its marker: without colours they must differ. */
static void series_differ_without_colours(void **state) {
    (void)state;
    static const char *const shapes[] = {"<circle", "M-4.5-4.5h9", "M0-6 5.5", "M0-6.2", "M-5-5", "M0 6", "M-6 0h12"};
    begin();
    for (int i = 0; i < 7; i++) {
        char name[32];
        snprintf(name, sizeof name, "family%d", i);
        plot_add(&picture, name, name, i, 1 + i);
    }
    write_svg();
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        assert_int_equal(count(shapes[i]), 2); /* in the legend and at the point */
}

static void any_name_gives_well_formed_svg(void **state) {
    (void)state;
    begin();
    picture.title = "<b>\"a\" & b</b> \xc3\xa4 \xff\xc3 \xed\xa0\x80\n end";
    plot_add(&picture, "a<b", "c&d", 1, 1);
    write_svg();
    assert_non_null(strstr(svg, "&lt;b&gt;\"a\" &amp; b&lt;/b&gt; \xc3\xa4 ?? ???? end"));
    assert_int_equal(count("<text"), count("</text>"));
    assert_non_null(strstr(svg, "c&amp;d"));
    assert_null(strstr(svg, "a<b"));
}

static void families_are_codecs_without_bits_and_group(void **state) {
    (void)state;
    static const char *const names[][2] = {
        {"affine4:64", "affine"},
        {"affine8:32/affine2:64", "affine"},
        {"affine4:64/f16", "affine"},
        {"bc5/bc4", "bc"},
        {"bc4", "bc"},
        {"bc4:16", "bc"},
        {"i8", "i"},
        {"q4_0", "q_0"},
        {"q8_0/q4_0", "q_0"},
        {"q5_1", "q_1"},
        {"lm4", "lm"},
        {"bc4.bare/bc4", "bc.bare"},
        {"small", "preset"},
        {"f16/bc4", "f16"},
        {"", "preset"},
        {"x12:128.y", "x.y"},
    };
    char family[64], cut[4];
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        eval_family(names[i][0], family, sizeof family);
        assert_string_equal(family, names[i][1]);
    }
    eval_family("affine4:64", cut, sizeof cut);
    assert_string_equal(cut, "aff");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decades_are_whole_equally_high_and_hold_the_values),
        cmocka_unit_test(linear_scales_have_few_round_ticks_and_hold_the_values),
        cmocka_unit_test(values_outside_a_scale_stay_on_its_ends),
        cmocka_unit_test(what_a_logarithm_cannot_show_is_not_added),
        cmocka_unit_test(labels_of_a_suite_lie_inside_and_do_not_overlap),
        cmocka_unit_test(a_line_joins_a_family_in_order_of_bits_and_no_presets),
        cmocka_unit_test(series_differ_without_colours),
        cmocka_unit_test(any_name_gives_well_formed_svg),
        cmocka_unit_test(families_are_codecs_without_bits_and_group),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the block codebooks of 1 to 5 bits and the scalar quantizers lm2 to lm4; writes src/codec/codebooks.c.

    python3 scripts/make_codebooks.py -o src/codec/codebooks.c      (numpy; a few minutes on one core; figures on stderr)

The data are vectors of 128 unit Gaussian elements divided by their rms. The encoder simulated here is close to the one in C,
which has scales in steps of an eighth of an octave and tries three of them: for each factor f, u = x * units / (rms * f) falls into the half-unit cell floor(2 u); each block takes the book with the least sum of
squared errors at the cells' centres and each element its nearest level, which is exact, as thresholds between integer levels
are borders of cells; the f with the largest (sum x y)^2 / sum y^2 wins, and sum x y / sum y^2 is the scale.

Training alternates between that encoder on fresh vectors and new levels for every book. Given which block uses which book, all
that counts is a histogram over the cells, for which dynamic programming finds the best int8 levels at once: rounding is part of
the optimum, not a loss afterwards. The first steps see few vectors, so their levels are noisy, and the number grows to the end:
this annealing ends 2 to 3 % below what the same steps reach with many vectors throughout.
"""
import argparse
import itertools
import multiprocessing
import sys
import textwrap
import time

import numpy as np

CELLS = 768  # floor(2 u) + 384
CENTRE = (np.arange(CELLS) - CELLS // 2 + 0.5) / 2
GRID = np.arange(-127, 128)
D = 128
# name, bits, block, books, int8 units per rms, half the span of the factors in training, noise to stay below
SETS = [
    ("bc1", 1, 16, 16, 56.0, 0.10, 0.30000),
    ("bc2", 2, 16, 16, 46.0, 0.10, 0.07266),
    ("bc3", 3, 32, 16, 40.0, 0.09, 0.02251),
    ("bc4", 4, 32, 16, 36.0, 0.07, 0.00569),
    ("bc5", 5, 32, 16, 33.0, 0.05, 0.00147),
    ("lm2", 2, 32, 1, 60.0, 0.10, 0.11858),
    ("lm3", 3, 32, 1, 48.0, 0.09, 0.03381),
    ("lm4", 4, 32, 1, 40.0, 0.07, 0.00923),
]


def gaussian(rng, n, d=D):
    """n vectors of d elements, each of rms 1."""
    x = rng.standard_normal((n, d))
    return (x / np.sqrt((x * x).mean(axis=1, keepdims=True))).astype(np.float32)


def tables(levels):
    """The encoder's tables [books][CELLS]: 4 e^2 at the centre, saturated to 16 bits, and the nearest level."""
    near = np.abs(CENTRE[None, :, None] - levels[:, None, :]).argmin(axis=2)
    value = np.take_along_axis(levels.astype(np.float64), near, axis=1)
    error = np.minimum(np.rint(4 * (CENTRE - value) ** 2), 65535).astype(np.uint16)
    return error, value.astype(np.float32)


def encode(x, levels, units, block, factors):
    """For the best factor of each vector: cells [n][d], books [n][d/block], scale [n], and the squared error [n]."""
    error, value = tables(levels)
    n, d = x.shape
    best = None
    for f in factors:
        cell = np.clip(np.floor(x * np.float32(2 * units / f)), -CELLS // 2, CELLS // 2 - 1).astype(np.int16) + CELLS // 2
        across = np.ascontiguousarray(cell.reshape(-1, block).T)
        book = np.array([e.take(across).sum(axis=0, dtype=np.uint32) for e in error]).argmin(axis=0).reshape(n, d // block)
        y = value.ravel().take(np.repeat(book * CELLS, block, axis=1) + cell)
        xy, yy = np.einsum("nd,nd->n", x, y), np.einsum("nd,nd->n", y, y)
        gain = xy * xy / yy
        if best is None:
            best = [cell, book, xy / yy, gain]
        else:
            w = gain > best[3]
            best = [np.where(w.reshape((-1,) + (1,) * (a.ndim - 1)), c, a) for a, c in zip(best, (cell, book, xy / yy, gain))]
    return best[0], best[1], best[2], np.einsum("nd,nd->n", x, x) - best[3]


def relative_mse(x, levels, units, block, factors):
    """What is left after decoding with the scale as binary16 (of a vector of rms 1, in units)."""
    cell, book, scale, _ = encode(x, levels, units, block, factors)
    y = tables(levels)[1].ravel().take(np.repeat(book * CELLS, block, axis=1) + cell)
    e = x.astype(np.float64) - y * scale.astype(np.float16).astype(np.float64)[:, None]
    return (e * e).mean()


def best_factors(x, levels, units, block):
    """[(noise, factors)] of the best one, two and three factors."""
    grid = np.round(np.arange(0.80, 1.205, 0.01), 2)
    err = np.array([encode(x, levels, units, block, (f,))[3] for f in grid])
    out = []
    for count in (1, 2, 3):
        noise = {c: err[list(c)].min(axis=0).sum() / x.size for c in itertools.combinations(range(len(grid)), count)}
        best = min(noise, key=noise.get)
        out.append((noise[best], tuple(float(grid[i]) for i in best)))
    return out


def best_levels(weight, moment, count):
    """The `count` int8 levels with the least sum of weight (moment / weight - level)^2 over the cells, by dynamic programming."""
    w, m = (np.concatenate(([0.0], np.cumsum(a))) for a in (weight, moment))
    below = GRID[:, None] + GRID[None, :] + CELLS // 2  # cells below the threshold between two levels
    ws, ms = w[below], m[below]
    # Cost of the cells below the threshold with the lower level, minus the same with the upper one (without their own energy).
    up, low = GRID[:, None], GRID[None, :]
    step = (low * low - up * up) * ws - 2 * (low - up) * ms
    step[low >= up] = np.inf
    cost, back = np.zeros(len(GRID)), []
    for _ in range(count - 1):
        total = step + cost
        back.append(total.argmin(axis=1))
        cost = total[np.arange(len(GRID)), back[-1]]
    path = [int((cost + GRID * GRID * w[-1] - 2 * GRID * m[-1]).argmin())]
    for b in reversed(back):
        path.append(int(b[path[-1]]))
    return GRID[path[::-1]]


def update(x, levels, units, block, factors):
    """One step: encode x, then the best levels of each book for the blocks that chose it."""
    cell, book, scale, _ = encode(x, levels, units, block, factors)
    at = (np.repeat(book, block, axis=1) * CELLS + cell).ravel()
    s = np.repeat(scale.astype(np.float64), x.shape[1])
    size = len(levels) * CELLS
    weight = np.bincount(at, s * s, size).reshape(-1, CELLS)
    moment = np.bincount(at, s * x.ravel(), size).reshape(-1, CELLS)
    return np.array([best_levels(w, m, levels.shape[1]) if w.sum() else l for w, m, l in zip(weight, moment, levels)])


def train(rng, bits, block, n_book, units, span, steps):
    """levels, units, factors; the first factor is 1."""
    cell = (np.floor(gaussian(rng, 4096) * 2 * units).clip(-CELLS // 2, CELLS // 2 - 1) + CELLS // 2).astype(int)
    weight = np.bincount(cell.ravel(), minlength=CELLS).astype(float)
    levels = best_levels(weight, weight * CENTRE, 1 << bits)[None]
    if n_book > 1:  # start from four widths in four places
        width, place = (a.reshape(-1, 1) for a in np.meshgrid([0.65, 0.8, 0.95, 1.15], [-0.5, -0.15, 0.15, 0.5]))
        levels = np.rint(levels * width + units * place * 2 ** (0.5 - bits / 2)).clip(-127, 127).astype(int)
    factors = (1.0, 1 - span, 1 + span)
    for n in np.geomspace(8 << bits if n_book > 1 else 4096, 8192, steps).astype(int):
        levels = update(gaussian(rng, n), levels, units, block, factors)
    low, middle, high = best_factors(gaussian(rng, 2048), levels, units, block)[2][1]
    units, factors = units / middle, (1.0, round(low / middle, 3), round(high / middle, 3))
    for _ in range(10):
        levels = update(gaussian(rng, 8192), levels, units, block, factors)
    return levels[np.lexsort((levels[:, 0], levels.sum(axis=1)))], units, factors  # from low to high books, to read well


def write(out, sets):
    line = lambda *a: print(*a, file=out)
    line("// SPDX-License-Identifier: MIT")
    line("/* codebooks.c: trained levels, see codebooks.h. Made by scripts/make_codebooks.py; do not edit.\n *")
    line(f" * Noise relative to the signal, for vectors of {D} unit Gaussian elements, three scales, by least squares (codec_levels.c")
    line(" * stores a byte in steps of an eighth of an octave, 1 to 2 % more noise and 8 bits less):")
    for name, bits, block, levels, units, factors, mse in sets:
        line(f" *   {name}  {total_bits(bits, block, len(levels), D):.3f} bits  {mse:.6f}  {snr(mse):.2f} dB")
    line(" */\n#include \"codec/codebooks.h\"\n\n#include <stddef.h>\n")
    rows = []
    for name, bits, block, levels, units, factors, mse in sets:
        text = [textwrap.fill(", ".join(map(str, book)), 120, subsequent_indent="     ") for book in levels]
        symbol = f"kvant_books{bits}" if len(levels) > 1 else f"kvant_lloyd{bits}"
        if len(levels) > 1:
            body = "".join(f"    {{{t}}},\n" for t in text)
            line(f"const int8_t {symbol}[{len(levels)}][{1 << bits}] = {{\n{body}}};\n")
            symbol += "[0]"
        else:
            line(f"const int8_t {symbol}[{1 << bits}] = {{{text[0]}}};\n")
        rows.append(f"    {{{bits}, {len(levels)}, {symbol}, {units:.3f}f}},")
    line("\n".join(["static const kvant_book_set sets[] = {", *rows, "};\n"]))
    line("const kvant_book_set *kvant_book_set_find(int bits, int n_book) {")
    line("    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)")
    line("        if (sets[i].bits == bits && sets[i].n_book == n_book) return &sets[i];")
    line("    return NULL;\n}")


def snr(mse):
    return -10 * np.log10(mse)


def total_bits(bits, block, n_book, d):
    return bits + (4 / block if n_book > 1 else 0) + 16 / d


def make(args):
    """Trains one row of SETS and measures it: a row for write() and the lines of a report."""
    (name, bits, block, n_book, units, span, reach), steps = args
    start = time.process_time()
    rng = np.random.RandomState(bits * 100 + n_book)
    levels, units, factors = train(rng, bits, block, n_book, units, span, steps if n_book > 1 else 40)
    units = round(units, 3)
    test, noise, report = np.random.RandomState(7), {}, []
    for d in (D, 64, 256):
        noise[d] = relative_mse(gaussian(test, 8192 * D // d, d), levels, units, block, factors)
        note = f"  {100 * (noise[d] / reach - 1):+.1f} % against {reach}" if d == D else ""
        bits_all = total_bits(bits, block, n_book, d)
        report.append(f"{name}  d {d:3}  {bits_all:.4f} bits  {noise[d]:.6f}  {snr(noise[d]):.2f} dB{note}")
    for mse, best in best_factors(gaussian(test, 2048), levels, units, block):
        report.append(f"{name}  best factors {best}  {mse:.6f}")
    report.append(f"{name}  units {units}  factors {factors}  {time.process_time() - start:.0f} s")
    return (name, bits, block, levels, units, factors, noise[D]), report


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("-o", "--output", help="file to write; default: standard output")
    args.add_argument("-j", "--jobs", type=int, default=1, help="sets trained at once; the result is the same")
    args.add_argument("--steps", type=int, default=300, help="training steps per set of books (default: 300)")
    args = args.parse_args()
    sets = []
    with multiprocessing.Pool(args.jobs) as pool:
        for row, report in pool.imap(make, [(s, args.steps) for s in SETS], 1):
            sets.append(row)
            print("\n".join(report), file=sys.stderr, flush=True)
    with (open(args.output, "w") if args.output else sys.stdout) as out:
        write(out, sets)


if __name__ == "__main__":
    main()

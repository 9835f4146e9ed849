#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains the block codebooks of bc2 to bc5 and the scalar quantizers lm2 to lm4; writes src/codec/codebooks.c.

    python3 scripts/make_codebooks.py -o src/codec/codebooks.c      (numpy; a few minutes on one core; figures on stderr)

The data are vectors of 128 unit Gaussian elements divided by their rms. The encoder simulated here is the one in C: for each
factor f, u = x * units / (rms * f) falls into the half-unit cell floor(2 u); each block takes the book with the least sum of
squared errors at the cells' centres and each element its nearest level, which is exact, as thresholds between integer levels
are borders of cells; the f with the largest (sum x y)^2 / sum y^2 wins, and sum x y / sum y^2 is the scale.

Training alternates between that encoder on fresh vectors and new levels for every book. Given which block uses which book, all
that counts is a histogram over the cells, for which dynamic programming finds the best int8 levels at once: rounding is part of
the optimum, not a loss afterwards.
"""
import argparse
import sys
import time

import numpy as np

CELLS = 768  # floor(2 u) + 384
CENTRE = (np.arange(CELLS) - CELLS // 2 + 0.5) / 2
D = 128
# bits, block, books, int8 units per rms, factors, vectors per step, steps
SETS = [
    ("bc2", 2, 16, 16, 46.0, (1.0, 0.92, 1.09)),
    ("bc3", 3, 32, 16, 36.0, (1.0, 0.94, 1.07)),
    ("bc4", 4, 32, 16, 36.0, (1.0, 0.96, 1.05)),
    ("bc5", 5, 32, 16, 38.0, (1.0, 0.97, 1.04)),
    ("lm2", 2, 32, 1, 60.0, (1.0, 0.92, 1.09)),
    ("lm3", 3, 32, 1, 48.0, (1.0, 0.94, 1.07)),
    ("lm4", 4, 32, 1, 40.0, (1.0, 0.96, 1.05)),
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
    return encode(x, levels, units, block, factors)[3].sum() / float((x.astype(np.float64) ** 2).sum())


def best_levels(weight, moment, count):
    """The `count` int8 levels with the least sum of weight (moment / weight - level)^2 over the cells, by dynamic programming."""
    grid = np.arange(-127, 128)
    # Prefix sums up to a threshold a + b of two levels, in half units: the cells below it belong to a.
    w, m = (np.concatenate(([0.0], np.cumsum(a))) for a in (weight, moment))
    at = np.clip(grid[:, None] + grid[None, :] + CELLS // 2, 0, CELLS)
    wa, ma = w[at], m[at]
    # Cost of cells below the threshold for level a, minus the same for level b (the cells' own energy is constant).
    step = grid[:, None] ** 2 * wa - 2 * grid[:, None] * ma - grid[None, :] ** 2 * wa + 2 * grid[None, :] * ma
    step[np.tril_indices(len(grid))] = np.inf
    cost, back = np.zeros(len(grid)), []
    for _ in range(count - 1):
        total = cost[:, None] + step
        back.append(total.argmin(axis=0))
        cost = total.min(axis=0)
    k = int((cost + grid ** 2 * w[-1] - 2 * grid * m[-1]).argmin())
    out = [k]
    for b in reversed(back):
        out.append(int(b[out[-1]]))
    return grid[out[::-1]]


def update(x, levels, units, block, factors):
    """One step: encode x, then the best levels of each book for the blocks that chose it."""
    cell, book, scale, err = encode(x, levels, units, block, factors)
    at = (np.repeat(book, block, axis=1) * CELLS + cell).ravel()
    s = np.repeat(scale.astype(np.float64), x.shape[1])
    size = len(levels) * CELLS
    weight = np.bincount(at, s * s, size).reshape(-1, CELLS)
    moment = np.bincount(at, s * x.ravel(), size).reshape(-1, CELLS)
    new = np.array([best_levels(w, m, levels.shape[1]) if w.sum() else l for w, m, l in zip(weight, moment, levels)])
    return new, err.sum() / x.size


def train(rng, bits, block, n_book, units, factors, n, steps):
    x = gaussian(rng, n)
    hist = np.bincount((np.floor(x * 2 * units).clip(-384, 383) + 384).astype(int).ravel(), minlength=CELLS).astype(float)
    one = best_levels(hist, hist * CENTRE, 1 << bits)
    if n_book == 1:
        levels = one[None]
    else:  # four widths, four places each
        width, place = np.meshgrid(np.array([0.65, 0.8, 0.95, 1.15]), np.array([-0.5, -0.15, 0.15, 0.5]))
        levels = np.rint(one * width.reshape(-1, 1) + units * (place * (2.0 / (1 << bits)) ** 0.5).reshape(-1, 1)).clip(-127, 127)
    levels = levels.astype(int)
    for _ in range(steps):
        levels, err = update(gaussian(rng, n), levels, units, block, factors)
    return levels


def order(levels):
    """From low to high books, so that the table reads well."""
    return levels[np.lexsort((levels[:, 0], levels.sum(axis=1)))]


def write(out, sets):
    p = lambda *a: print(*a, file=out)
    p("// SPDX-License-Identifier: MIT")
    p("/* codebooks.c: trained levels, see codebooks.h. Made by scripts/make_codebooks.py; do not edit.\n *")
    p(" * Noise relative to the signal, for vectors of 128 unit Gaussian elements with a binary16 scale:")
    for name, bits, block, units, factors, levels, mse in sets:
        p(f" *   {name}  {bits + (4 / block if len(levels) > 1 else 0) + 16 / D:.3f} bits  {mse:.5f}  {-10 * np.log10(mse):.2f} dB")
    p(" */\n#include \"codec/codebooks.h\"\n\n#include <stddef.h>\n")
    symbol = lambda bits, levels: f"kvant_books{bits}" if len(levels) > 1 else f"kvant_lloyd{bits}"
    for name, bits, block, units, factors, levels, mse in sets:
        rows = [", ".join(f"{v}" for v in row) for row in levels]
        if len(rows) > 1:
            p(f"const int8_t {symbol(bits, levels)}[16][{1 << bits}] = {{")
            for row in rows:
                p(f"    {{{row}}},")
            p("};\n")
        else:
            p(f"const int8_t {symbol(bits, levels)}[{1 << bits}] = {{{rows[0]}}};\n")
    p("static const kvant_book_set sets[] = {")
    for name, bits, block, units, factors, levels, mse in sets:
        first = symbol(bits, levels) + ("[0]" if len(levels) > 1 else "")
        f = ", ".join(f"{v:.4f}f" for v in factors)
        p(f"    {{{bits}, {block}, {len(levels)}, {first}, {units:.4f}f, {{{f}}}}},")
    p("};\n")
    p("const kvant_book_set *kvant_book_set_find(int bits, int n_book) {")
    p("    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++)")
    p("        if (sets[i].bits == bits && sets[i].n_book == n_book) return &sets[i];")
    p("    return NULL;\n}")


def main():
    args = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    args.add_argument("-o", "--output", help="file to write; default: standard output")
    args.add_argument("-n", type=int, default=4096)
    args.add_argument("-s", type=int, default=12)
    args = args.parse_args()
    result = []
    for name, bits, block, n_book, units, factors in SETS:
        start = time.time()
        rng = np.random.RandomState(bits * 100 + n_book)
        levels = order(train(rng, bits, block, n_book, units, factors, args.n, args.s))
        mse = relative_mse(gaussian(np.random.RandomState(7), 8192), levels, units, block, factors)
        result.append((name, bits, block, units, factors, levels, mse))
        print(f"{name} {mse:.5f} {-10 * np.log10(mse):.2f} dB  {time.time() - start:.0f} s", file=sys.stderr)
    with (open(args.output, "w") if args.output else sys.stdout) as out:
        write(out, result)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/affine/affine.bin: rows of 128 floats and what MLX's affine quantization gives for them.

Plain numpy, all arithmetic in float32, written from the rule in docs/CODECS.md; a second implementation of it, in other words.
Layout, little-endian: u32 rows; f32 x[rows][128]; then for bits in 2 3 4 5 6 8, for group in 32 64 128:
u8 codes[rows][128], u16 scales[rows][128/group] (binary16), u16 biases, the same.

    python3 scripts/make_affine_golden.py
"""
import pathlib

import numpy as np

f32 = np.float32


def rows():
    r = np.random.default_rng(20)
    n = 128
    outlier = r.normal(size=n) * 0.1
    outlier[77] = 40
    one = np.zeros(n)
    one[5] = -3
    return np.array(
        [
            r.normal(size=n),
            r.normal(size=n) * 0.01,
            r.normal(size=n) + 20,  # a mean 20 times the deviation, as keys have it
            r.normal(size=n) - 20,
            np.abs(r.normal(size=n)),
            -np.abs(r.normal(size=n)),
            outlier,
            one,
            np.zeros(n),
            np.full(n, 0.7),
            np.full(n, -0.0),
            r.normal(size=n) * 1e-7,
            r.normal(size=n) * 1e4,
            np.linspace(-1, 1, n),
            np.tile(np.arange(16) - 8, 8) / 2,  # ties
        ],
        dtype=f32,
    )


def quantize(x, bits, group):
    """x float32 [..., 128] -> codes uint8, scales and biases float16."""
    g = x.reshape(-1, group)
    levels = f32(2**bits - 1)
    low, high = g.min(axis=1), g.max(axis=1)
    scale = np.maximum((high - low) / levels, f32(1e-7))
    from_low = np.abs(low) > np.abs(high)
    edge = np.where(from_low, low, high)
    scale = np.where(from_low, scale, -scale)
    steps = np.rint(edge / scale)
    nonzero = steps != 0
    scale = np.where(nonzero, edge / np.where(nonzero, steps, f32(1)), scale)
    bias = np.where(nonzero, edge, f32(0))
    codes = np.clip(np.rint((g - bias[:, None]) / scale[:, None]), f32(0), levels)
    return codes.astype(np.uint8), scale.astype(np.float16), bias.astype(np.float16)


def main():
    x = rows()
    out = [np.uint32(len(x)).tobytes(), x.tobytes()]
    for bits in (2, 3, 4, 5, 6, 8):
        for group in (32, 64, 128):
            out += [a.tobytes() for a in quantize(x, bits, group)]
    path = pathlib.Path(__file__).parent.parent / "tests/golden/affine/affine.bin"
    path.write_bytes(b"".join(out))
    print(path, path.stat().st_size, "bytes")


if __name__ == "__main__":
    main()

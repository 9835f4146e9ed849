#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/ggml/ggml.bin: rows of 128 floats and the blocks that gguf-py quantizes them to, as llama.cpp does.

Layout, little-endian: u32 rows; f32 x[rows][128]; then for q8_0, q5_1, q5_0, q4_1, q4_0: the blocks of all rows as ggml stores
them, and f32 values[rows][128], what they stand for.

    python3 -m pip install gguf numpy && python3 scripts/make_ggml_golden.py
"""
import os
import struct

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

COLUMNS = 128
OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "ggml", "ggml.bin")
TYPES = [Type.Q8_0, Type.Q5_1, Type.Q5_0, Type.Q4_1, Type.Q4_0]


def rows():
    rng = np.random.default_rng(31)
    outlier = rng.normal(size=COLUMNS)
    outlier[[7, 70]] = 40, -60
    ties = np.resize([127.0, 0.5, -0.5, 1.5, -1.5, 2.5, -63.5, 126.5], COLUMNS)  # q8_0's scale is 1: halves away from zero
    twice = np.resize([-4.0, 4.0, 1.0, -1.25, 0.25], COLUMNS)  # the first of two largest magnitudes chooses the sign
    zeros = np.zeros(COLUMNS)
    zeros[100] = 1e-3
    return np.array(
        [
            rng.normal(size=COLUMNS),
            rng.normal(size=COLUMNS) * 0.02,
            rng.normal(size=COLUMNS) + 12,
            -np.abs(rng.normal(size=COLUMNS)),
            outlier,
            ties,
            twice,
            -twice,
            zeros,
            np.full(COLUMNS, -0.7),
            rng.normal(size=COLUMNS) * 1e-6,  # scales are subnormal halves
            rng.normal(size=COLUMNS) * 1e4,
        ],
        dtype=np.float32,
    )


def main():
    x = rows()
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "wb") as out:
        out.write(struct.pack("<I", len(x)) + x.astype("<f4").tobytes())
        for kind in TYPES:
            blocks = quantize(x, kind)
            out.write(blocks.tobytes() + dequantize(blocks, kind).astype("<f4").tobytes())
    print(OUT, os.path.getsize(OUT), "bytes")


if __name__ == "__main__":
    main()

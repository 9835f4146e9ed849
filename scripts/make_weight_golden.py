#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tests/golden/weights/weights.bin: rows of every weight format and what gguf-py decodes them to.

Formats that gguf-py can quantize hold quantized normal values; the others hold random bytes with finite binary16 scales, which
reach every bit of a block. The file is a list of records, all little-endian: uint32 type, uint32 elements, uint32 bytes, the
row, the elements as float32.

    python3 -m pip install gguf numpy && python3 scripts/make_weight_golden.py
"""
import os
import struct

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

ELEMENTS = 768
OUT = os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "weights", "weights.bin")

QUANTIZED = [Type.F32, Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
# type: where the binary16 numbers of a block stand
RANDOM = {
    Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q2_K: [80, 82], Type.Q3_K: [108], Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
    Type.IQ4_NL: [0], Type.IQ4_XS: [0], Type.MXFP4: [],
}


def random_row(rng, kind):
    elements, size = GGML_QUANT_SIZES[kind]
    blocks = rng.integers(0, 256, (ELEMENTS // elements, size), dtype=np.uint8)
    for at in RANDOM[kind]:
        half = rng.normal(0, 0.05, len(blocks)).astype(np.float16)
        half[0] = np.float16(-6e-6)  # a subnormal
        blocks[:, at : at + 2] = half.view(np.uint8).reshape(-1, 2)
    if kind == Type.MXFP4:
        blocks[:4, 0] = [0, 1, 2, 251]
    return blocks.reshape(1, -1)


def write_record(out, kind, row):
    values = dequantize(row, kind).astype("<f4").ravel()
    assert len(values) == ELEMENTS and np.isfinite(values).all()
    data = row.tobytes()
    out.write(struct.pack("<III", int(kind), len(values), len(data)) + data + values.tobytes())


def main():
    rng = np.random.default_rng(20240607)
    os.makedirs(os.path.dirname(OUT), exist_ok=True)
    with open(OUT, "wb") as out:
        for kind in QUANTIZED:
            write_record(out, kind, quantize(rng.normal(0, 0.02, (1, ELEMENTS)).astype(np.float32), kind).view(np.uint8))
        for kind in RANDOM:
            write_record(out, kind, random_row(rng, kind))
    print(OUT, os.path.getsize(OUT), "bytes")


if __name__ == "__main__":
    main()

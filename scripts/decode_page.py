#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decodes the pages of tests/golden/pages/pages.bin from what docs/FORMAT.md says, and from nothing else.

A second implementation: it shares no code and no table with src/ (codebooks and calibrations are in the file). Stored vectors
must have the same float32 bits as the library's; keys and values turned back to what they were (sines, and sums in another order)
must agree to 1e-6 of the largest element, and with the vectors that went in to within the noise of the format. How the file is
laid out: tests/golden/test_page_golden.c.

    python3 scripts/decode_page.py [FILE]
"""
import functools
import math
import os
import re
import struct
import sys

try:
    import xxhash  # for the checksums of calibrations alone
except ImportError:
    xxhash = None

DEFAULT = os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "pages", "pages.bin")
TOKENS, HEADER, EXACT, FAST_PAIRS, MEAN_BLOCK = 64, 64, 4, 8, 16


def f32(x):
    """To float32: after one operation in float64 on float32 numbers, this is the float32 operation."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def fnv1a(data):
    return functools.reduce(lambda h, byte: (h ^ byte) * 0x100000001B3 % 2**64, data, 0xCBF29CE484222325)


class Format:
    def __init__(self, name):
        family, bits, last, group, bare = re.fullmatch(r"([a-z]+)(\d+)(?:_(\d))?(?::(\d+))?(\.bare)?", name).groups()
        self.family, self.bits, self.minimum, self.group = family, int(bits), last == "1", int(group or 0)
        self.is_rows = family in ("bc", "bz", "i", "lm")
        self.is_own = family in ("bc", "bz", "i")
        self.block = 16 if self.group == 16 or self.bits == 2 or family == "bz" else 32  # elements that share a book
        self.is_centred = family not in ("f", "affine") and not bare

    def zones(self, d):
        """(elements, bits) of each run of elements that are stored alike."""
        if self.family != "bz":
            return [(d, self.bits)]
        quarter = d // 4 // 16 * 16
        return [(quarter, self.bits + 1), (d - 2 * quarter, self.bits), (quarter, self.bits - 1)]

    def rotation(self, d, is_key):
        """(sizes of the blocks that are rotated, whether there are signs)."""
        if self.is_rows:
            return [n for n, _ in self.zones(d)], True
        if self.family == "q" and d % 64 == 0:
            size = d & -d if is_key else 64
            return [size] * (d // size), False
        return [], False

    def part_bytes(self, d, is_key):
        if self.family == "f":
            return TOKENS * (d if is_key else (d + 15) // 16 * 16) * self.bits // 8
        if self.family == "affine":
            return TOKENS * (d * self.bits // 8 + 4 * d // self.group)
        if self.family == "q":
            return TOKENS * (d // 32) * self.block_bytes()
        return TOKENS * (sum(n * bits // 8 for n, bits in self.zones(d)) + (self.selectors(d) + 1) // 2 + 1)

    def block_bytes(self):
        return 2 + 2 * self.minimum + 4 * (self.bits == 5) + (32 if self.bits == 8 else 16)

    def selectors(self, d):
        return sum(-(-n // self.block) for n, _ in self.zones(d) if self.family in ("bc", "bz"))


# What a part holds: a vector as it is stored.
def panel_code(part, bits, row, column):
    """A code of a panel of 16 rows, 64 * bits bytes for each 32 columns."""
    at = column // 32 * 64 * bits + 4 * row + column % 4
    chunk, code, shift = column % 32 // 4, 0, 0
    if bits == 8:
        return part[at + 64 * chunk] ^ 0x80
    for width in (4, 2, 1):
        if bits - shift >= width:
            n = 8 // width
            code |= (part[at + 64 * (chunk // n)] >> width * (chunk % n) & (1 << width) - 1) << shift
            at, shift = at + 64 * width, shift + width
    return code


def decode_float(part, f, slot, d, is_key, _):
    places = [(slot // 16 * d + e) * 16 + slot % 16 if is_key else (e // 16 * 64 + slot) * 16 + e % 16 for e in range(d)]
    return [struct.unpack_from("<e" if f.bits == 16 else "<f", part, f.bits // 8 * i)[0] for i in places]


def decode_affine(part, f, slot, d, is_key, _):
    groups, scales, out = d // f.group, TOKENS * d * f.bits // 8, []
    for e in range(d):
        panel, row, column = (slot // 16, slot % 16, e) if is_key else (e // 16, e % 16, slot)
        code = panel_code(part[panel * (d if is_key else TOKENS) * 2 * f.bits :], f.bits, row, column)
        index = (slot // 16 * groups + e // f.group) * 16 + slot % 16 if is_key else e // f.group * 64 + slot
        scale, bias = (struct.unpack_from("<e", part, scales + 2 * i)[0] for i in (index, TOKENS * groups + index))
        out.append(f32(scale * code + bias))  # the product is exact
    return out


def decode_blocks(part, f, slot, d, _is_key, _):
    size, out = f.block_bytes(), []
    for b in range(d // 32):
        block = part[(slot * (d // 32) + b) * size :][:size]
        scale, low = struct.unpack_from("<2e", block)  # low: where there is a minimum
        at = 2 + 2 * f.minimum
        mask = struct.unpack_from("<I", block, at)[0] if f.bits == 5 else 0
        codes = block[at + 4 * (f.bits == 5) :]
        for i in range(32):
            if f.bits == 8:
                code = struct.unpack_from("<b", codes, i)[0] + 128
            else:
                code = (codes[i % 16] >> (4 * (i // 16)) & 15) | (mask >> i & 1) << 4
            out.append(f32(scale * code + low) if f.minimum else f32(scale * (code - (1 << (f.bits - 1)))))
    return out


def decode_rows(part, f, slot, d, _is_key, books):
    out, at, selector, n_selector = [], 0, 0, f.selectors(d)
    selectors = sum(TOKENS * n * bits // 8 for n, bits in f.zones(d))
    row = part[selectors + slot * ((n_selector + 1) // 2) :]
    e = part[selectors + TOKENS * ((n_selector + 1) // 2) + slot]
    scale = math.ldexp(f32(2.0 ** ((e - 161) % 8 / 8)), (e - 161) // 8) if e else 0.0
    for n, bits in f.zones(d):
        codes, shift = [0] * n, 0
        for width in {1: [1], 2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 8: [8]}[bits]:
            bytes_of = part[at + slot * n * width // 8 :]
            per = 2 * width  # bytes of 16 elements: byte k holds the elements k, k + per, .., or, of one bit, 8 k, 8 k + 1, ..
            for i in range(n):
                half, j = divmod(i, 16)
                byte, up = (j // 8, j % 8) if width == 1 else (j % per, width * (j // per))
                codes[i] |= (bytes_of[per * half + byte] >> up & ((1 << width) - 1)) << shift
            at, shift = at + TOKENS * n * width // 8, shift + width
        block, levels = f.block if n_selector else n, books.get((bits, 1 if f.family == "lm" else 16), (0, None))[1]
        for i, code in enumerate(codes):
            if f.family == "i":
                level = code - 32 if bits == 6 else code - 256 * (code > 127)
            else:
                s = selector + i // block
                book = row[s // 2] >> 4 * (s % 2) & 15 if n_selector else 0
                level = levels[(book << bits) + code]
            out.append(f32(scale * level))
        selector += -(-n // block)
    return out


DECODE = {"f": decode_float, "affine": decode_affine, "q": decode_blocks}  # others: decode_rows


def rotate(x):
    """Orthonormal: Walsh-Hadamard over 2^k elements, a discrete Hartley transform across an odd number of those."""
    even = len(x) & -len(x)
    m, x = len(x) // even, list(x)
    for h in (1 << b for b in range(even.bit_length() - 1)):
        for i in range(len(x)):
            if i & h == 0:
                x[i], x[i + h] = x[i] + x[i + h], x[i] - x[i + h]
    cas = [math.cos(2 * math.pi * i / m) + math.sin(2 * math.pi * i / m) for i in range(m)]
    return [sum(cas[i * j % m] * x[j * even + c] for j in range(m)) / math.sqrt(len(x)) for i in range(m) for c in range(even)]


def sign(i):
    z = (i + 1) * 0x9E3779B97F4A7C15 % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return -1 if (z ^ z >> 31) & 1 else 1


def rotate_back(x, rotation):
    blocks, signs = rotation
    out = []
    for n in blocks:
        out += rotate(x[len(out) :][:n])
    return [y * sign(i) if signs else y for i, y in enumerate(out or x)]


def mean_at(model, head, position):
    """What was subtracted from a key."""
    mean = list(model["mean"][head])
    for i, frequency in enumerate(model["frequency"]):
        a, b = (2 * i, 2 * i + 1) if model["interleaved"] else (i, len(model["frequency"]) + i)
        first = position // MEAN_BLOCK * MEAN_BLOCK
        tokens = [position] if i < FAST_PAIRS else range(first, first + MEAN_BLOCK)
        turned = complex(mean[a], mean[b]) * model["magnitude"]
        turned *= sum(complex(math.cos(t * frequency), math.sin(t * frequency)) for t in tokens) / len(tokens)
        mean[a], mean[b] = turned.real, turned.imag
    return mean


def key_back(x, f, d, model, head, position, books):
    order, gain, energy = list(range(d)), [1.0] * d, model["energy"][head]  # order and gain: by place
    if f.family == "bz":
        order.sort(key=lambda i: -energy[i])  # equal ones keep their order
        (first, up), (middle, _), (last, down) = f.zones(d)
        zones = [(range(first), up), (range(first, first + middle), f.bits), (range(d - last, d), down)]
        means = [sum(energy[order[p]] for p in places) / len(places) for places, _ in zones]
        for (places, bits), mean in zip(zones, means):
            ratio = math.sqrt(means[1] / mean) if mean > 0 else 0
            for p in places:
                gain[p] = (ratio if 1e-3 < ratio < 1e3 else 1.0) * books[bits, 16][0] / books[f.bits, 16][0]
    x = rotate_back(x, f.rotation(d, True))
    out = mean_at(model, head, position) if f.is_centred else [0.0] * d
    for place, i in enumerate(order):
        out[i] += x[place] / (gain[place] * (model["scale"][head][i] if f.is_centred else 1.0))
    return out


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def get(self, fmt):
        values = struct.unpack_from("<" + fmt, self.data, self.at)
        self.at += struct.calcsize("<" + fmt)
        return values[0] if len(values) == 1 else list(values)


def read_model(r):
    d, n_head, n_rot, interleaved, magnitude = r.get("4If")
    frequency = r.get("%dd" % (n_rot // 2))
    data = bytes(r.get("%dB" % r.get("I")))
    magic, *dims, zero, _tokens, checksum = struct.unpack_from("<8s16xIIIIQ16s", data)
    assert magic == b"KVCALIB2" and dims == [1, n_head, d] and zero == 0
    if xxhash:
        assert checksum == xxhash.xxh3_128_digest(data[:48] + data[64:]), "checksum of a calibration"
    x = struct.unpack_from("<%df" % (3 * n_head * d), data, 64)
    rows = [list(x[i : i + d]) for i in range(0, len(x), d)]
    model = {"mean": rows[:n_head], "scale": rows[n_head : 2 * n_head], "energy": rows[2 * n_head :]}
    model.update(d=d, n_head=n_head, interleaved=interleaved, magnitude=magnitude, frequency=frequency)
    model["position"] = r.get("%dI" % (n := r.get("I")))
    model["kv"] = [[[r.get("%df" % d) for _ in range(n_head)] for _ in range(n)] for _ in "kv"]
    return model


def check_record(r, models, books):
    name, model, page_index, originals, size, n_packed = r.get("32s5I")
    page, end = bytearray(), r.at + n_packed
    while r.at < end:
        zeros, n = r.get("2B")
        page += bytes(zeros) + r.data[r.at : r.at + n]
        r.at += n
    name, m = name.rstrip(b"\0").decode(), models[model]
    k, v = (Format(n) for n in name.split("/"))
    d, n_head = m["d"], m["n_head"]
    k_bytes, v_bytes = k.part_bytes(d, True), v.part_bytes(d, False)
    exact = EXACT if page_index == 0 and (k.is_own or v.is_own or k.is_centred) else 0
    assert len(page) == size == HEADER + n_head * (k_bytes + v_bytes + 4 * exact * d), name + ": bytes of the page"
    cells = [(i, p, h) for i, p in enumerate(m["position"]) if p // TOKENS == page_index for h in range(n_head)]
    stored = []
    for _, position, h in cells:
        slot, end = position % TOKENS, len(page) - 4 * exact * d * n_head
        if slot < exact:
            at = end + 4 * exact * d * h + 2 * slot * d
            pair = [list(struct.unpack_from("<%de" % d, page, at + side * 2 * exact * d)) for side in (0, 1)]
        else:
            k_part, v_part = page[HEADER + h * k_bytes :], page[HEADER + n_head * k_bytes + h * v_bytes :]
            parts = ((k_part, k, True), (v_part, v, False))
            pair = [DECODE.get(f.family, decode_rows)(part, f, slot, d, is_key, books) for part, f, is_key in parts]
        stored.append(pair)
        for side in (0, 1):
            assert r.get("Q") == fnv1a(struct.pack("<%df" % d, *pair[side])), "%s: the bits of %s" % (name, "kv"[side])
    assert model != 0 or r.get("%df" % d) == stored[0][0], name + ": the first vector"
    for (i, position, h), pair in zip(cells, stored):
        back = [key_back(pair[0], k, d, m, h, position, books), rotate_back(pair[1], v.rotation(d, False))]
        for side in (0, 1):
            given, f = m["kv"][side][i][h], (k, v)[side]
            noise = sum((a - b) ** 2 for a, b in zip(back[side], given)) / sum(b * b for b in given)
            assert noise < (1e-6 if position < exact or f.family == "f" else 6.0 * 4.0**-f.bits), "%s: noise %g" % (name, noise)
            expected = r.get("%df" % d) if originals else back[side]
            error = max(abs(a - b) for a, b in zip(back[side], expected)) / max(abs(b) for b in expected)
            assert error < 1e-6, "%s: what was stored, turned back, is off by %g" % (name, error)
    return 2 * len(cells), 2 * len(cells) * originals


def main():
    with open(sys.argv[1] if len(sys.argv) > 1 else DEFAULT, "rb") as file:
        r = Reader(file.read())
    assert bytes(r.get("8B")) == b"KVPAGES1"
    books = {}  # the units of one rms, the levels
    for _ in range(r.get("I")):
        bits, n_book, units = r.get("2If")
        books[bits, n_book] = (units, r.get("%db" % (n_book << bits)))
    models = [read_model(r) for _ in range(r.get("I"))]
    counts = [check_record(r, models, books) for _ in range(r.get("I"))]
    assert r.at == len(r.data), "bytes after the last page"
    sums = [sum(c) for c in zip(*counts)]
    print("%d pages: %d vectors have the same bits; %d, turned back, agree to 1e-6" % (len(counts), *sums))


if __name__ == "__main__":
    main()

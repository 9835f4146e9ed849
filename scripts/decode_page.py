#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Decodes the pages of tests/golden/pages/pages.bin from what docs/FORMAT.md says, and from nothing else.

A second implementation: it shares no code and no table with src/ (codebooks and calibrations are in the file). Stored vectors
must have the same float32 bits as the library's; keys and values turned back to what they were (sines, and sums in another order)
must agree to 1e-6 of the largest element, and with the vectors that went in to within the noise of the format. How the file is
laid out: tests/golden/test_page_golden.c.

    python3 scripts/decode_page.py [FILE]
"""
import math
import os
import re
import struct
import sys

DEFAULT = os.path.join(os.path.dirname(__file__), "..", "tests", "golden", "pages", "pages.bin")
TOKENS, HEADER, EXACT, FAST_PAIRS, MEAN_BLOCK = 64, 64, 4, 8, 16


def f32(x):
    """To float32: after one operation in float64 on float32 numbers, this is the float32 operation."""
    return struct.unpack("<f", struct.pack("<f", x))[0]


def fnv1a(data):
    h = 0xCBF29CE484222325
    for byte in data:
        h = (h ^ byte) * 0x100000001B3 % 2**64
    return h


XXH3_SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578825ad07dccff7221"
    "b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb"
    "170ddd51b7f0da49d316552629d4689e2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def xxh3_128(data):
    """XXH3 of 128 bits of more than 240 bytes, most significant byte first."""
    mask, p32_1, p32_2, p32_3 = 2**64 - 1, 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
    p64 = [0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5]
    acc = [p32_3, p64[0], p64[1], p64[2], p64[3], p32_2, p64[4], p32_1]
    size = len(data)
    assert size > 240

    def add(at, key_at):
        values, keys = struct.unpack_from("<8Q", data, at), struct.unpack_from("<8Q", XXH3_SECRET, key_at)
        for i in range(8):
            key = values[i] ^ keys[i]
            acc[i ^ 1] = (acc[i ^ 1] + values[i]) & mask
            acc[i] = (acc[i] + (key & 0xFFFFFFFF) * (key >> 32)) & mask

    for stripe in range((size - 1) // 64):
        add(64 * stripe, 8 * (stripe % 16))
        if stripe % 16 == 15:
            for i, key in enumerate(struct.unpack_from("<8Q", XXH3_SECRET, 128)):
                acc[i] = (acc[i] ^ acc[i] >> 47 ^ key) * p32_1 & mask
    add(size - 64, 121)

    def merge(start, key_at):
        keys = struct.unpack_from("<8Q", XXH3_SECRET, key_at)
        for i in range(0, 8, 2):
            product = (acc[i] ^ keys[i]) * (acc[i + 1] ^ keys[i + 1])
            start = (start + (product & mask ^ product >> 64)) & mask
        start = (start ^ start >> 37) * 0x165667919E3779F9 & mask
        return start ^ start >> 32

    low, high = merge(size * p64[0] & mask, 11), merge(~(size * p64[1]) & mask, 117)
    return struct.pack(">QQ", high, low)


class Format:
    def __init__(self, name):
        family, bits, last, group, bare = re.fullmatch(r"([a-z]+)(\d+)(?:_(\d))?(?::(\d+))?(\.bare)?", name).groups()
        self.family, self.bits, self.minimum, self.group = family, int(bits), last == "1", int(group or 0)
        self.is_rows = family in ("bc", "bz", "i", "lm")
        self.is_own = family in ("bc", "bz", "i")
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
        return sum(-(-n // (16 if bits == 2 else 32)) for n, bits in self.zones(d) if self.family in ("bc", "bz"))


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
                out.append(f32(scale * struct.unpack_from("<b", codes, i)[0]))
                continue
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
        for width in {2: [2], 3: [2, 1], 4: [4], 5: [4, 1], 6: [4, 2], 8: [8]}[bits]:
            bytes_of = part[at + slot * n * width // 8 :]
            for i in range(n):
                j, half = i % 16, i // 16
                if width == 1:
                    code = bytes_of[2 * half + j // 8] >> j % 8 & 1
                else:
                    per = 2 * width  # bytes of 16 elements: byte k holds the elements k, k + per, ..
                    code = bytes_of[per * half + j % per] >> width * (j // per) & ((1 << width) - 1)
                codes[i] |= code << shift
            at, shift = at + TOKENS * n * width // 8, shift + width
        block, _, levels = books.get((bits, 1 if f.family == "lm" else 16), (n, 0, None))
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


DECODE = {"f": decode_float, "affine": decode_affine, "q": decode_blocks}


# And as it was before.
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
                gain[p] = (ratio if 1e-3 < ratio < 1e3 else 1.0) * books[bits, 16][1] / books[f.bits, 16][1]
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
    assert checksum == xxh3_128(data[:48] + data[64:]), "checksum of a calibration"
    x = struct.unpack_from("<%df" % (3 * n_head * d), data, 64)
    rows = [list(x[i : i + d]) for i in range(0, len(x), d)]
    model = {"mean": rows[:n_head], "scale": rows[n_head : 2 * n_head], "energy": rows[2 * n_head :]}
    model.update(d=d, n_head=n_head, interleaved=interleaved, magnitude=magnitude, frequency=frequency)
    n = r.get("I")
    model["position"] = r.get("%dI" % n)
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
    books = {}  # the block, the units of one rms, the levels
    for _ in range(r.get("I")):
        bits, n_book, block, units = r.get("3If")
        books[bits, n_book] = (block, units, r.get("%db" % (n_book << bits)))
    models = [read_model(r) for _ in range(r.get("I"))]
    counts = [check_record(r, models, books) for _ in range(r.get("I"))]
    assert r.at == len(r.data), "bytes after the last page"
    n, n_same, n_back = len(counts), sum(c[0] for c in counts), sum(c[1] for c in counts)
    print("%d pages: %d vectors have the same bits; %d, turned back, agree to 1e-6" % (n, n_same, n_back))


if __name__ == "__main__":
    main()

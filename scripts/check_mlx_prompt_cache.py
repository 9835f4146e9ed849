#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Checks that mlx-lm continues from the prompt caches that Kvant writes as Kvant does itself.

By hand, in an environment with mlx and mlx-lm (neither is needed by Kvant):
    pip install 'mlx[cpu]' mlx-lm
    python scripts/check_mlx_prompt_cache.py build/kvant ../shared/data/mlx > tests/golden/mlx_prompt_cache_check.txt
The program writes a prompt's cache in several formats; mlx-lm loads each, reads a continuation token by token and answers greedily.
The program then gives the logits of the whole list of tokens: the largest of every row must be the token that mlx-lm chose, and the
rows must be near. Exits 1 when they are not."""
import os
import subprocess
import sys
import tempfile

import mlx.core as mx
import numpy as np
from mlx.utils import tree_map
from mlx_lm.models.cache import load_prompt_cache
from mlx_lm.utils import load_model
from pathlib import Path

# name, cache flags of kvant, bound of the relative difference of a row
CASES = [
    ("KVCache, float32", ["--kv", "f32"], 1e-4),
    ("KVCache, float16", ["--kv", "f16"], 5e-3),
    ("QuantizedKVCache, 4 bits, float32 scales", ["--kv", "affine4:64.f32"], 5e-3),
    ("QuantizedKVCache, 8 bits, float32 scales", ["--kv", "affine8:32.f32"], 5e-3),
    ("QuantizedKVCache, 4 bits, float16 scales", ["--kv", "affine4:64"], 5e-2),
    ("RotatingKVCache of 96, float32", ["--kv", "f32", "--max-kv-size", "96"], 1e-4),
]
N_ANSWER = 24


def run(program, *args):
    done = subprocess.run([program, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{program} {' '.join(args)}: exit {done.returncode}: {done.stderr.strip()}")
    return done


def logits_of(path):
    magic, version, n, n_vocab = np.fromfile(path, "<i4", 4)
    assert magic == 0x4C4F4754 and version == 1
    return np.fromfile(path, "<f4", n * n_vocab, offset=16 + 4 * int(n)).reshape(n, n_vocab)


def answer(model, path, continuation):
    """The continuation token by token, then N_ANSWER greedy tokens: the ids, and the rows of logits that chose them."""
    cache = load_prompt_cache(path)
    row = None
    for token in continuation:
        row = model(mx.array([[token]]), cache=cache)[0, -1]
    ids, rows = [], []
    for _ in range(N_ANSWER):
        rows.append(np.array(row.astype(mx.float32)))
        ids.append(int(np.argmax(rows[-1])))
        row = model(mx.array([[ids[-1]]]), cache=cache)[0, -1]
    return ids, np.stack(rows), type(cache[0]).__name__


def main():
    program, data = sys.argv[1], sys.argv[2]
    folder = os.path.join(data, "text", "llama-f16")
    golden = mx.load(os.path.join(data, "cache", "kv_f32.golden.safetensors"))
    prefix = [int(i) for i in golden["prefix_ids"]]
    continuation = [int(i) for i in golden["continuation_prompt_ids"]]
    model, _ = load_model(Path(folder))
    model.update(tree_map(lambda x: x.astype(mx.float32), model.parameters()))
    import importlib.metadata as metadata
    print(f"mlx {metadata.version('mlx')}, mlx-lm {metadata.version('mlx-lm')}, {mx.default_device()}; "
          f"{run(program, '--version').stdout.strip()}")
    print(f"llama-f16 in float32: {len(prefix)} tokens from Kvant's file, {len(continuation)} read and {N_ANSWER} chosen by mlx-lm")
    bad = 0
    with tempfile.TemporaryDirectory() as work:
        names = [os.path.join(work, n) for n in ("cache.safetensors", "prefix.txt", "all.txt", "logits")]
        open(names[1], "w").write(" ".join(map(str, prefix)))
        for name, flags, bound in CASES:
            # One token a step, so that a window means the same on both sides; mlx-lm itself makes none for a llama.
            rules = [] if "--max-kv-size" in flags else ["--compat", "mlx"]
            common = ["-m", folder, "--prefill-step-size", "1", "--exact", *rules, *flags]
            run(program, "cache", "export", names[0], "--ids", names[1], *common)
            ids, rows, kind = answer(model, names[0], continuation)
            open(names[2], "w").write(" ".join(map(str, prefix + continuation + ids)))
            run(program, "logits", "--ids", names[2], "-o", names[3], *common)
            ours = logits_of(names[3])[len(prefix) + len(continuation) - 1:-1]
            same = sum(int(np.argmax(o)) == i for o, i in zip(ours, ids))
            off = max(np.linalg.norm(o - r) / np.linalg.norm(r) for o, r in zip(ours, rows))
            wrong = same != N_ANSWER or off > bound or not name.startswith(kind)
            bad += wrong
            print(f"{name:42s} {same} of {N_ANSWER} ids equal, rows off by {off:.1e} at most{'  <-- WRONG' if wrong else ''}")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()

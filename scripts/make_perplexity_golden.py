#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes tests/golden/perplexity.csv: the perplexity that llama.cpp gives for the first 512 tokens of scripts/text/loomings.txt.

usage: make_perplexity_golden.py NAME=FILE.gguf ...      needs numpy and llama-cpp-python"""
import os
import sys

import llama_cpp
import numpy as np

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
TOKENS = 512


def perplexity(path, text):
    model = llama_cpp.Llama(path, n_ctx=TOKENS, n_batch=TOKENS, n_threads=2, logits_all=True, verbose=False)
    ids = model.tokenize(text, add_bos=True, special=False)[:TOKENS]
    model.eval(ids)
    rows = np.array(model.scores[:TOKENS - 1], dtype=np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    log_p = rows[np.arange(TOKENS - 1), ids[1:]] - np.log(np.exp(rows).sum(axis=1))
    return float(np.exp(-log_p.mean()))


def main():
    text = open(os.path.join(ROOT, "scripts/text/loomings.txt"), "rb").read()
    with open(os.path.join(ROOT, "tests/golden/perplexity.csv"), "w") as out:
        out.write("model,tokens,perplexity\n")
        for argument in sys.argv[1:]:
            name, path = argument.split("=", 1)
            out.write(f"{name},{TOKENS},{perplexity(path, text):.4f}\n")


if __name__ == "__main__":
    main()

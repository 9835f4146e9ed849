#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measures what every cache format costs on real models and writes tests/quality/results.csv, to be reviewed as a diff.

usage: make_quality_results.py --kvant build/kvant --models DIR [--only NAME[,NAME]] [--contexts 512,2048,8192] [--text FILE]

DIR holds the models under the names of scripts/fetch_model.py (smollm2-135m.gguf, ...); what is not there is fetched. Each model
and context is one run of `kvant eval` in float32 arithmetic: all formats read the same tokens, beside an f16 cache. Runs keep their
state beside the results of the build (DIR/*.state), so that an interrupted measurement goes on where it stopped. Rows of models
and contexts that were not asked for stay as they are. The picture for the README is that of the first model at 2048 tokens.
"""
import argparse
import csv
import io
import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
RESULTS = os.path.join(ROOT, "tests", "quality", "results.csv")
PICTURE = os.path.join(ROOT, "docs", "quality.svg")

SUITE = ["i8", "i6", "bc5", "bc5/bc4:16", "bc4:16", "bc4", "bz4/bc4:16", "bz4/bc4", "bc4/bc3", "bz3/bc3:16", "bz3/bc2", "bz2/bc2", "bc2",
         "q8_0.bare", "q5_1.bare", "q4_0.bare", "affine8:64", "affine6:64", "affine4:64"]
SHORT = ["i8", "bc5/bc4:16", "bc4", "bz4/bc4:16", "bz4/bc4", "bz3/bc3:16", "bz2/bc2", "bc2", "q8_0.bare", "q5_1.bare", "q4_0.bare",
         "affine4:64"]
LARGE = ["i8", "bc5/bc4:16", "bc4", "bz4/bc4:16", "bz4/bc4", "bz3/bc3:16", "bz2/bc2", "q8_0.bare", "q4_0.bare", "affine4:64"]
LONG = ["i8", "bc5/bc4:16", "bz4/bc4", "bz3/bc3:16", "q4_0.bare", "affine4:64"]

# Formats and scored tokens for each context: the large models would take hours with all of them.
MODELS = {
    "smollm2-135m": {512: (SHORT, 2048), 2048: (SUITE, 8192), 8192: (SHORT, 8192)},
    "gemma3-270m": {512: (SHORT, 2048), 2048: (SHORT, 8192), 8192: (SHORT, 8192)},
    "qwen25-coder-0.5b": {512: (SHORT, 2048), 2048: (SHORT, 8192), 8192: (SHORT, 8192)},
    "qwen25-coder-1.5b": {512: (LARGE, 2048), 2048: (LARGE, 2048), 8192: (LONG, 8192)},
}
PASSKEY = {512: 8}  # prompts; longer ones are beyond these models
FIELDS = ["model", "context", "kv", "bits", "kl_mean", "kl_se", "kl_p999", "top1", "ppl", "tokens", "passkey", "passkey_prompts"]


def read_results():
    if not os.path.exists(RESULTS):
        return []
    with open(RESULTS, newline="") as f:
        return list(csv.DictReader(f))


def write_results(rows):
    order = {name: i for i, name in enumerate(MODELS)}
    rows.sort(key=lambda r: (order.get(r["model"], 99), int(r["context"])))  # stable: formats stay in the order of the run
    os.makedirs(os.path.dirname(RESULTS), exist_ok=True)
    with open(RESULTS, "w", newline="") as f:
        writer = csv.DictWriter(f, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def measure(args, name, context, plot):
    formats, tokens = MODELS[name][context]
    model = os.path.join(args.models, name + ".gguf")
    if not os.path.exists(model):
        subprocess.run([sys.executable, os.path.join(HERE, "fetch_model.py"), name, model], check=True)
    command = [args.kvant, "eval", "-m", model, "-f", args.text, "-c", str(context), "--tokens", str(tokens), "--kv",
               ",".join(formats), "--csv", "--state", os.path.join(args.models, f"{name}-{context}.state")]
    if context in PASSKEY:
        command += ["--passkey", "--prompts", str(PASSKEY[context])]
    if plot:
        command += ["--plot", PICTURE]
    print("+", " ".join(command), file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    rows = []
    for r in csv.DictReader(io.StringIO(done.stdout)):
        rows.append({field: r.get(field, "") for field in FIELDS} | {"model": name, "context": context})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvant", required=True)
    parser.add_argument("--models", required=True)
    parser.add_argument("--only", default=",".join(MODELS))
    parser.add_argument("--contexts", default="512,2048,8192")
    parser.add_argument("--text", default=os.path.join(ROOT, "..", "shared", "data", "text", "wiki.test.raw"))
    args = parser.parse_args()
    contexts = [int(c) for c in args.contexts.split(",")]
    for name in args.only.split(","):
        if name not in MODELS:
            sys.exit(f"--only {name}: expected one of {', '.join(MODELS)}")
        for context in contexts:
            new = measure(args, name, context, plot=name == next(iter(MODELS)) and context == 2048)
            kept = [r for r in read_results() if (r["model"], int(r["context"])) != (name, context)]
            write_results(kept + new)


if __name__ == "__main__":
    main()

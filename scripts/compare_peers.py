#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the program with llama.cpp (through llama-cpp-python) on the same model file, tokens and threads.

quality: perplexity with an f16 cache, and the divergence of llama.cpp's own quantized caches from it, over the chunks that
         `kvant eval` scores (BOS first where the vocabulary has it, every position counted).
speed:   prefill and decode at several depths. Each repetition runs `kvant bench` and then every llama.cpp configuration; the
         medians of the repetitions are printed. Both append the same pseudo-random tokens.

    compare_peers.py quality --kvant build/kvant -m MODEL.gguf -f TEXT [-c 2048] [--tokens 8192]
    compare_peers.py speed   --kvant build/kvant -m MODEL.gguf [--depths 0,2048,8192] [--threads 2] [--reps 3]

The perplexities differ by more than the caches do when llama.cpp rounds activations to 8 bits, as it does for quantized weights.
--peer-model gives it the same weights stored as f32 (`compare_peers.py f32 -m MODEL.gguf --peer-model OUT.gguf` writes that
file): then both compute in float32 and must agree to 0.1 %.

Needs numpy and llama-cpp-python (f32: gguf); nothing of the program depends on either. This is not a test: a person reads the ratios.
"""
import argparse
import csv
import ctypes
import io
import json
import statistics
import subprocess
import sys
import time

import llama_cpp as L
import numpy as np

CACHES = {"f16": L.GGML_TYPE_F16, "q8_0": L.GGML_TYPE_Q8_0, "q4_0": L.GGML_TYPE_Q4_0}


@L.llama_log_callback
def be_quiet(level, text, user):
    pass


def load_model(path):
    L.llama_backend_init()
    L.llama_log_set(be_quiet, ctypes.c_void_p(0))
    params = L.llama_model_default_params()
    params.n_gpu_layers = 0
    model = L.llama_model_load_from_file(path.encode(), params)
    if not model:
        sys.exit(f"llama.cpp cannot load {path}")
    return model


class Context:
    """One llama.cpp context: a cache type and flash attention on or off."""

    def __init__(self, model, cache, flash, n_context, threads, all_logits=False):
        params = L.llama_context_default_params()
        params.n_ctx = n_context
        params.n_batch = params.n_ubatch = 512
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = CACHES[cache]
        params.flash_attn_type = L.LLAMA_FLASH_ATTN_TYPE_ENABLED if flash else L.LLAMA_FLASH_ATTN_TYPE_DISABLED
        params.swa_full = False
        params.n_outputs_max = 512 if all_logits else 1
        self.context = L.llama_init_from_model(model, params)
        if not self.context:
            raise RuntimeError(f"llama.cpp makes no context for cache {cache}, flash attention {'on' if flash else 'off'}")
        self.memory = L.llama_get_memory(self.context)
        self.batch = L.llama_batch_init(512, 0, 1)
        self.n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
        self.length = 0

    def append(self, ids, all_logits=False):
        """Appends at most 512 tokens; [n][n_vocab] logits where all are asked for."""
        batch = self.batch
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i] = int(token)
            batch.pos[i] = self.length + i
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = 0
            batch.logits[i] = all_logits or i + 1 == len(ids)
        status = L.llama_decode(self.context, batch)
        if status:
            raise RuntimeError(f"llama_decode gives {status} at {self.length}")
        self.length += len(ids)
        if not all_logits:
            return None
        rows = L.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, shape=(len(ids), self.n_vocab)).copy()

    def fill(self, ids):
        while self.length < len(ids):
            self.append(ids[self.length:min(self.length + 512, len(ids))])

    def truncate(self, length):
        """Speed does not depend on what the cells hold, so a window that has dropped cells is no matter here."""
        if not L.llama_memory_seq_rm(self.memory, 0, length, -1):
            L.llama_memory_clear(self.memory, False)
            self.length = 0
            return False
        self.length = length
        return True

    def close(self):
        L.llama_batch_free(self.batch)
        L.llama_free(self.context)


def run_kvant(arguments):
    done = subprocess.run(arguments, stdout=subprocess.PIPE, check=True, text=True)
    return list(csv.DictReader(io.StringIO(done.stdout)))


def parse_caches(text):
    """"f16,q8_0+fa" -> [("f16", False), ("q8_0", True)]"""
    return [(name.split("+")[0], name.endswith("+fa")) for name in text.split(",")]


def print_table(rows):
    columns = list(rows[0])
    cells = [columns] + [[f"{r[c]:.5g}" if isinstance(r[c], float) else str(r[c]) for c in columns] for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    for n, row in enumerate(cells):
        print("| " + " | ".join(c.ljust(w) for c, w in zip(row, widths)) + " |")
        if n == 0:
            print("|" + "|".join("-" * (w + 2) for w in widths) + "|")


# ---- quality ----

def tokenize(model, text):
    vocab = L.llama_model_get_vocab(model)
    data = text.encode()
    room = len(data) + 8
    out = (L.llama_token * room)()
    n = L.llama_tokenize(vocab, data, len(data), out, room, True, False)
    if n < 0:
        sys.exit("llama.cpp cannot tokenize the text")
    bos = L.llama_vocab_bos(vocab) if L.llama_vocab_get_add_bos(vocab) else None
    return np.array(out[:n]), bos


def log_softmax(rows):
    rows = rows.astype(np.float64)
    rows -= rows.max(axis=1, keepdims=True)
    rows -= np.log(np.exp(rows).sum(axis=1, keepdims=True))
    return rows


def quality(options):
    model = load_model(options.peer_model or options.model)
    with open(options.file, encoding="utf-8", errors="surrogateescape") as f:
        ids, bos = tokenize(model, f.read())
    total = min(len(ids), -(-options.tokens // options.context) * options.context)
    names = parse_caches(options.caches)
    contexts = [Context(model, cache, flash, options.context, options.threads, True) for cache, flash in names]
    nll = np.zeros(len(names))
    kl = [[] for _ in names]
    same = np.zeros(len(names))
    predicted = 0
    for start in range(0, total, options.context):
        chunk = ids[start:min(start + options.context, total)].copy()
        if bos is not None:
            chunk[0] = bos
        for context in contexts:
            context.truncate(0)
        for first in range(0, len(chunk), 128):
            part = chunk[first:first + 128]
            following = chunk[first + 1:first + 1 + len(part)]
            at = np.arange(len(following))
            predicted += len(following)
            reference = None
            for i, context in enumerate(contexts):
                rows = log_softmax(context.append(part, True))
                nll[i] -= rows[at, following].sum()
                if reference is None:
                    reference, weights = rows, np.exp(rows)
                kl[i].extend((weights * (reference - rows)).sum(axis=1))
                same[i] += (rows.argmax(axis=1) == reference.argmax(axis=1)).sum()
        print(f"{min(start + options.context, total)} of {total} tokens", file=sys.stderr)
    rows = []
    for i, (cache, flash) in enumerate(names):
        rows.append({"engine": "llama.cpp", "kv": cache + (" fa" if flash else ""), "ppl": float(np.exp(nll[i] / predicted)),
                     "kl_mean": float(np.mean(kl[i])), "kl_p999": float(np.quantile(kl[i], 0.999)),
                     "top1": float(same[i] / len(kl[i])), "tokens": len(kl[i])})
    if options.kvant == "none":
        print_table(rows)
        return rows
    for row in run_kvant([options.kvant, "eval", "-m", options.model, "-f", options.file, "-c", str(options.context),
                          "--tokens", str(options.tokens), "--threads", str(options.threads), "--csv", "--kv", options.kv]):
        rows.append({"engine": "kvant", "kv": row["kv"], "ppl": float(row["ppl"]), "kl_mean": float(row["kl_mean"]),
                     "kl_p999": float(row["kl_p999"]), "top1": float(row["top1"]), "tokens": int(row["tokens"])})
    print_table(rows)
    ours = next(r for r in rows if r["engine"] == "kvant" and r["kv"] == "f16")
    print(f"perplexity f16, kvant / llama.cpp: {ours['ppl'] / rows[0]['ppl']:.5f} (llama.cpp rounds activations to 8 bits unless "
          "its weights are f32)")
    return rows


# ---- speed ----

def random_ids(n, n_vocab):
    """The tokens of kvant bench."""
    state, ids = 0x9E3779B97F4A7C15, []
    for _ in range(n):
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        ids.append((state >> 33) % n_vocab)
    return ids


def measure(context, ids, depth, n_decode, n_prefill, clock):
    if context.length > depth and not context.truncate(depth):
        context.length = 0
    context.fill(ids[:depth])
    start = clock()
    for i in range(n_decode):
        context.append(ids[depth + i:depth + i + 1])
    decode = n_decode / (clock() - start)
    context.truncate(depth)
    context.fill(ids[:depth])
    start = clock()
    context.fill(ids[:depth + n_prefill])
    return n_prefill / (clock() - start), decode


def speed(options):
    depths = [int(d) for d in options.depths.split(",")]
    model = load_model(options.model)
    n_vocab = L.llama_vocab_n_tokens(L.llama_model_get_vocab(model))
    room = max(depths) + max(options.decode, options.prefill)
    ids = random_ids(room, n_vocab)
    contexts = {}
    for cache, flash in parse_caches(options.caches):
        contexts[cache, flash] = Context(model, cache, flash, -(-room // 256) * 256, options.threads)
    prefill, decode = {}, {}
    clock = time.process_time if options.cpu_time else time.perf_counter

    def note(engine, kv, depth, p, d):
        prefill.setdefault((depth, engine, kv), []).append(p)
        decode.setdefault((depth, engine, kv), []).append(d)

    for depth in depths:
        for context in contexts.values():
            context.fill(ids[:depth])
        # Processor time does not depend on what else the machine does: no alternation, the program fills its caches once.
        for repetition in range(1 if options.cpu_time else options.reps):
            for row in run_kvant([options.kvant, "bench", "-m", options.model, "--depths", str(depth), "--kv", options.kv, "-n",
                                  str(options.decode), "--prefill", str(options.prefill), "--reps",
                                  str(options.reps if options.cpu_time else 1), "--threads", str(options.threads), "--csv"]
                                 + ["--cpu-time"] * options.cpu_time):
                note("kvant", row["kv"], depth, float(row["prefill_tps"]), float(row["decode_tps"]))
            for (cache, flash), context in contexts.items():
                for _ in range(options.reps if options.cpu_time else 1):
                    p, d = measure(context, ids, depth, options.decode, options.prefill, clock)
                    note("llama.cpp", cache + (" fa" if flash else ""), depth, p, d)
            print(f"depth {depth}, repetition {repetition + 1}", file=sys.stderr)
    rows = []
    for key in prefill:
        depth, engine, kv = key
        p, d = statistics.median(prefill[key]), statistics.median(decode[key])
        best_p = max(statistics.median(prefill[k]) for k in prefill if k[0] == depth and k[1] == "llama.cpp")
        best_d = max(statistics.median(decode[k]) for k in decode if k[0] == depth and k[1] == "llama.cpp")
        rows.append({"depth": depth, "engine": engine, "kv": kv, "prefill t/s": p, "/ best llama.cpp": p / best_p, "decode t/s": d,
                     "/ best": d / best_d})
    print_table(rows)
    return rows


# ---- the same weights as float32 ----

def write_f32(options):
    import gguf
    reader = gguf.GGUFReader(options.model)
    writer = gguf.GGUFWriter(options.peer_model, reader.fields["general.architecture"].contents())
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":
            continue
        is_array = field.types[0] == gguf.GGUFValueType.ARRAY
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=field.types[-1] if is_array else None)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return []


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("command", choices=["quality", "speed", "f32"])
    parser.add_argument("--kvant", default="build/kvant", help="the program; none: llama.cpp alone (quality)")
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("--peer-model", help="quality: the file for llama.cpp, if not the same; f32: the file to write")
    parser.add_argument("--caches", default="f16,f16+fa,q8_0+fa,q4_0+fa", help="llama.cpp's caches; +fa: flash attention")
    parser.add_argument("-f", dest="file", help="quality: the text")
    parser.add_argument("-c", dest="context", type=int, default=2048)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv", default="f16,affine8:64,affine4:64", help="the program's formats")
    parser.add_argument("--depths", default="0,2048,8192")
    parser.add_argument("-n", dest="decode", type=int, default=32)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--reps", type=int, default=3)
    parser.add_argument("--json", help="also write the rows to this file")
    parser.add_argument("--cpu-time", action="store_true", help="speed: tokens a second of processor time, one thread; for busy machines")
    options = parser.parse_args()
    if options.cpu_time:
        options.threads = 1
    if options.command == "quality" and not options.file:
        parser.error("quality needs a text: -f FILE")
    if options.command == "f32" and not options.peer_model:
        parser.error("f32 needs a file to write: --peer-model FILE")
    rows = {"quality": quality, "speed": speed, "f32": write_f32}[options.command](options)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as f:
            json.dump({"version": L.__version__, "options": vars(options), "rows": rows}, f, indent=1)


if __name__ == "__main__":
    main()

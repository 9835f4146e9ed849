#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes tiny GGUF models with random weights and the logits that llama.cpp gives for them.

One pair NAME.gguf, NAME.logits for each entry of MODELS, for tests/engine/test_model_logits.c. Weights are float32 and seeded by
the name, so a file is the same each time. Needs numpy, gguf and llama-cpp-python; they are no dependency of Kvant.

    python3 scripts/make_random_models.py [--large] [--only NAME] OUTPUT_FOLDER
"""
import argparse
import ctypes
import os
import struct
import zlib

import gguf
import llama_cpp
import numpy as np

SMALL = dict(n_embd=16, n_head=2, n_kv=1, head_dim=8, n_ff=16, n_vocab=24, n_layer=2, n_context=256, n_tokens=20)
LARGE = dict(n_embd=192, n_head=6, n_kv=2, head_dim=32, n_ff=160, n_vocab=128, n_layer=4, n_context=256, n_tokens=100)

# Per model (those with large=True only with --large): arch, keys (without the prefix), and which tensors it has.
# qkv_bias, o_bias, ffn_bias, scales, own output, fused qkv, ... as the loader of llama.cpp allows them.
YARN = {'rope.scaling.type': 'yarn', 'rope.scaling.factor': 4.0, 'rope.scaling.original_context_length': 16}
LLAMA = dict(arch='llama', rope_norm=True, o_bias=True, ffn_bias=True)
MODELS = {
    'llama-rope-llama3': dict(LLAMA, rope_freqs=True, own_output=False, keys={'rope.freq_base': 500000.0}),
    'llama-rope-linear': dict(LLAMA, large=True, keys={'rope.scaling.type': 'linear', 'rope.scaling.factor': 4.0}),
    'llama-rope-yarn': dict(LLAMA, large=True, keys=YARN, plain=True),
    'llama-experts': dict(arch='llama', o_bias=True, experts=(3, 2)),
    'mistral3-yarn': dict(arch='mistral3', o_bias=True, ffn_bias=True, keys=dict(YARN, **{
        'rope.scaling.yarn_log_multiplier': 0.5, 'attention.temperature_scale': 0.1, 'rope.scaling.yarn_beta_fast': 16.0})),
    'qwen2': dict(arch='qwen2', output_bias=True),
    'qwen2-tied': dict(large=True, arch='qwen2', own_output=False, plain=True),
    'qwen3': dict(arch='qwen3', qk_norm='head', own_output=False),
    'qwen3moe': dict(arch='qwen3moe', qk_norm='head', experts=(4, 2), keys={'expert_feed_forward_length': 'n_ff'}),
    'gemma2-window': dict(arch='gemma2', post_norm=True, own_output=False, keys={
        'attention.sliding_window': 6, 'attn_logit_softcapping': 20.0, 'final_logit_softcapping': 10.0}),
    'gemma3-window': dict(arch='gemma3', post_norm=True, qk_norm='head', own_output=False, n_layer=3, keys={
        'attention.sliding_window': 5, 'attention.sliding_window_pattern': 3, 'rope.freq_base': 1000000.0,
        'rope.scaling.type': 'linear', 'rope.scaling.factor': 8.0}),
    'gemma3-usual-period': dict(large=True, arch='gemma3', post_norm=True, qk_norm='head', own_output=False, n_layer=7, keys={
        'attention.sliding_window': 5, 'rope.freq_base': 1000000.0, 'rope.scaling.type': 'linear', 'rope.scaling.factor': 8.0}),
    'phi3-longrope-short': dict(large=True, arch='phi3', fused_qkv=True, fused_gate_up=True, long_short=True, plain=True, keys={
        'rope.scaling.original_context_length': 'n_context', 'rope.scaling.attn_factor': 1.19, 'rope.scaling.type': 'longrope'}),
    'phi3-longrope-long': dict(arch='phi3', fused_qkv=True, fused_gate_up=True, long_short=True, plain=True,
                               own_output=False, keys={
        'rope.scaling.original_context_length': 12, 'rope.scaling.attn_factor': 1.19, 'rope.scaling.type': 'longrope'}),
    'gpt-oss-yarn': dict(arch='gpt-oss', ffn_norm='post_attention_norm', o_bias=True, experts=(3, 2), expert_bias=True,
                         sinks=True, keys=dict(YARN, **{'attention.sliding_window': 6, 'expert_feed_forward_length': 'n_ff',
                                            'rope.freq_base': 150000.0})),
    'glm4': dict(arch='glm4', post_norm=True, fused_gate_up=True, own_output=False, keys={'rope.dimension_count': 'half'}),
    'glm4-sections': dict(arch='glm4', post_norm=True, fused_gate_up=True, own_output=False, plain=True, n_layer=1, next_blocks=1,
                          keys={'rope.dimension_sections': [1, 2, 1, 0]}),
    'glm4-fused': dict(large=True, arch='glm4', post_norm=True, fused_gate_up=True, fused_qkv=True, plain=True,
                       keys={'rope.dimension_count': 'half'}),
    'granite': dict(arch='granite', o_bias=True, ffn_bias=True, keys={
        'logit_scale': 8.0, 'residual_scale': 0.22, 'embedding_scale': 12.0, 'attention.scale': 0.25}),
    'granite-no-rope': dict(large=True, arch='granite', own_output=False, plain=True, keys={
        'logit_scale': 4.0, 'rope.scaling.finetuned': False}),
    'olmo2': dict(large=True, arch='olmo2', pre_norm=False, post_norm=True, qk_norm='whole'),
    'olmo2-window': dict(arch='olmo2', pre_norm=False, post_norm=True, qk_norm='whole', plain=True, n_layer=4,
                         keys=dict(YARN, **{'attention.sliding_window': 6})),
    'smollm3': dict(arch='smollm3', n_layer=4, own_output=False),
    'starcoder2': dict(arch='starcoder2', layer_norm=True, gated=False, o_bias=True, ffn_bias=True),
    'starcoder2-tied': dict(large=True, arch='starcoder2', layer_norm=True, gated=False, o_bias=True, ffn_bias=True,
                            own_output=False, plain=True),
}


class Builder:
    """Writes one model. With plain=False it has biases of q, k, v and a scale for each matrix, as files made by llama.cpp do."""

    def __init__(self, path, name, spec, size):
        self.spec, self.size = spec, dict(size)
        if 'n_layer' in spec:
            self.size['n_layer'] = spec['n_layer']
        self.rng = np.random.default_rng(zlib.crc32(name.encode()))
        self.w = gguf.GGUFWriter(path, spec['arch'])

    def tensor(self, name, *shape, base=0.0, std=None):
        if std is None:
            std = 1.0 / np.sqrt(shape[-1])
        self.w.add_tensor(name, (base + std * self.rng.standard_normal(shape)).astype(np.float32))

    def norm(self, name, n):
        self.tensor(name + '.weight', n, base=1.0, std=0.2)
        if self.spec.get('layer_norm'):
            self.tensor(name + '.bias', n, std=0.2)

    def linear(self, name, rows, cols, bias=False, scale=True):
        self.tensor(name + '.weight', rows, cols)
        if bias:
            self.tensor(name + '.bias', rows, std=0.3)
        if scale and not self.spec.get('plain'):
            self.tensor(name + '.scale', 1, base=1.0, std=0.3)

    def experts(self, name, n, rows, cols):
        self.tensor(name + '.weight', n, rows, cols)
        if self.spec.get('expert_bias'):
            self.tensor(name + '.bias', n, rows, std=0.3)
        self.tensor(name + '.scale', n, base=1.0, std=0.3)

    def metadata(self):
        s, arch, spec = self.size, self.spec['arch'], self.spec
        ints = {'block_count': s['n_layer'], 'context_length': s['n_context'], 'embedding_length': s['n_embd'],
                'feed_forward_length': s['n_ff'], 'attention.head_count': s['n_head'], 'attention.head_count_kv': s['n_kv'],
                'attention.key_length': s['head_dim'], 'attention.value_length': s['head_dim'],
                'rope.dimension_count': s['head_dim'], 'vocab_size': s['n_vocab']}
        if 'experts' in spec:
            ints['expert_count'], ints['expert_used_count'] = spec['experts']
        for key, value in spec.get('keys', {}).items():
            value = s[value] if isinstance(value, str) and value in s else s['head_dim'] // 2 if value == 'half' else value
            ints[key] = value
        norm_key = 'attention.layer_norm_epsilon' if spec.get('layer_norm') else 'attention.layer_norm_rms_epsilon'
        ints[norm_key] = 1e-5
        if 'next_blocks' in spec:
            ints['block_count'] += spec['next_blocks']
            ints['nextn_predict_layers'] = spec['next_blocks']
        for key, value in ints.items():
            add = {int: self.w.add_uint32, float: self.w.add_float32, str: self.w.add_string, bool: self.w.add_bool,
                   list: self.w.add_array}[type(value)]
            add(f'{arch}.{key}', value)
        self.w.add_string('tokenizer.ggml.model', 'no_vocab')

    def attention(self, b):
        s, spec = self.size, self.spec
        n_q, n_kv, bias = s['n_head'] * s['head_dim'], s['n_kv'] * s['head_dim'], not spec.get('plain') or spec.get('layer_norm')
        if spec.get('fused_qkv'):
            self.linear(b + 'attn_qkv', n_q + 2 * n_kv, s['n_embd'], bias)
        else:
            for x, rows in (('q', n_q), ('k', n_kv), ('v', n_kv)):
                self.linear(b + 'attn_' + x, rows, s['n_embd'], bias)
        self.linear(b + 'attn_output', s['n_embd'], n_q, spec.get('o_bias'))
        if 'qk_norm' in spec:
            self.norm(b + 'attn_q_norm', n_q if spec['qk_norm'] == 'whole' else s['head_dim'])
            self.norm(b + 'attn_k_norm', n_kv if spec['qk_norm'] == 'whole' else s['head_dim'])
        if spec.get('sinks'):
            self.tensor(b + 'attn_sinks.weight', s['n_head'], std=1.0)

    def mlp(self, b):
        s, spec = self.size, self.spec
        n_ff, bias = s['n_ff'], spec.get('ffn_bias')
        if 'experts' in spec:
            n = spec['experts'][0]
            self.linear(b + 'ffn_gate_inp', n, s['n_embd'], spec.get('expert_bias'), scale=False)
            self.experts(b + 'ffn_gate_exps', n, n_ff, s['n_embd'])
            self.experts(b + 'ffn_up_exps', n, n_ff, s['n_embd'])
            self.experts(b + 'ffn_down_exps', n, s['n_embd'], n_ff)
            return
        if spec.get('gated', True) and not spec.get('fused_gate_up'):
            self.linear(b + 'ffn_gate', n_ff, s['n_embd'], bias)
        self.linear(b + 'ffn_up', 2 * n_ff if spec.get('fused_gate_up') else n_ff, s['n_embd'], bias)
        self.linear(b + 'ffn_down', s['n_embd'], n_ff, bias)

    def write(self):
        s, spec = self.size, self.spec
        self.metadata()
        self.tensor('token_embd.weight', s['n_vocab'], s['n_embd'], std=0.5)
        self.norm('output_norm', s['n_embd'])
        if spec.get('own_output', True):
            self.tensor('output.weight', s['n_vocab'], s['n_embd'])
        if spec.get('output_bias'):
            self.tensor('output.bias', s['n_vocab'], std=0.3)
        half = s['head_dim'] // 2
        if spec.get('rope_freqs'):
            self.tensor('rope_freqs.weight', half, base=3.0, std=1.0)
        if spec.get('long_short'):
            self.tensor('rope_factors_long.weight', half, base=6.0, std=1.0)
            self.tensor('rope_factors_short.weight', half, base=1.2, std=0.1)
        for i in range(s['n_layer'] + spec.get('next_blocks', 0)):
            b = f'blk.{i}.'
            if spec.get('pre_norm', True):
                self.norm(b + 'attn_norm', s['n_embd'])
                self.norm(b + spec.get('ffn_norm', 'ffn_norm'), s['n_embd'])
            if spec.get('post_norm'):
                self.norm(b + 'post_attention_norm', s['n_embd'])
                self.norm(b + 'post_ffw_norm', s['n_embd'])
            self.attention(b)
            self.mlp(b)
            if i >= s['n_layer']:  # guesses the token after the next one; no part of the decoder
                self.tensor(b + 'nextn.eh_proj.weight', s['n_embd'], 2 * s['n_embd'])
                self.norm(b + 'nextn.enorm', s['n_embd'])
                self.norm(b + 'nextn.hnorm', s['n_embd'])
        self.w.write_header_to_file()
        self.w.write_kv_data_to_file()
        self.w.write_tensors_to_file()
        self.w.close()


def reference_logits(path, ids, n_vocab, n_context):
    """[n][n_vocab] float32: one thread, float32 cache, no fused attention."""
    params = llama_cpp.llama_model_default_params()
    params.use_mmap = False
    model = llama_cpp.llama_model_load_from_file(path.encode(), params)
    if not model:
        raise RuntimeError('llama.cpp does not load ' + path)
    c = llama_cpp.llama_context_default_params()
    c.n_ctx, c.n_batch, c.n_ubatch, c.n_threads, c.n_threads_batch = n_context, n_context, n_context, 1, 1
    c.type_k = c.type_v = 0
    c.flash_attn_type = 0
    context = llama_cpp.llama_init_from_model(model, c)
    if not context:
        raise RuntimeError('llama.cpp makes no context for ' + path)
    n = len(ids)
    batch = llama_cpp.llama_batch_init(n, 0, 1)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.logits[i] = token, i, 1, 1
        batch.seq_id[i][0] = 0
    batch.n_tokens = n
    if llama_cpp.llama_decode(context, batch) != 0:
        raise RuntimeError('llama.cpp does not compute ' + path)
    rows = [np.ctypeslib.as_array(ctypes.cast(llama_cpp.llama_get_logits_ith(context, i), ctypes.POINTER(ctypes.c_float)),
                                  shape=(n_vocab,)).copy() for i in range(n)]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.stack(rows).astype(np.float32)


def make(folder, name, spec, size):
    path = os.path.join(folder, name + '.gguf')
    builder = Builder(path, name, spec, size)
    builder.write()
    s = builder.size
    ids = np.random.default_rng(zlib.crc32(name.encode()) + 1).integers(0, s['n_vocab'], s['n_tokens']).astype(np.int32)
    logits = reference_logits(path, [int(t) for t in ids], s['n_vocab'], s['n_context'])
    with open(os.path.join(folder, name + '.logits'), 'wb') as f:
        f.write(struct.pack('<4i', 0x4c4f4754, 1, len(ids), s['n_vocab']))
        f.write(ids.tobytes())
        f.write(logits.tobytes())
    print(f'{name}: {os.path.getsize(path)} bytes, logits within {logits.min():.3g}..{logits.max():.3g}')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('folder')
    parser.add_argument('--large', action='store_true', help='larger models and longer texts, not to be committed')
    parser.add_argument('--only', help='one model by its name')
    args = parser.parse_args()
    os.makedirs(args.folder, exist_ok=True)
    for name, spec in MODELS.items():
        if args.only in (None, name) and (args.large or not spec.get('large')):
            try:
                make(args.folder, name, spec, LARGE if args.large else SMALL)
            except RuntimeError as error:
                print(f'{name}: {error}')


if __name__ == '__main__':
    main()

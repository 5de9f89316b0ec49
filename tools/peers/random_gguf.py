#!/usr/bin/env python3
"""Writes a random GGUF of a DeepSeek-V3-family configuration, for timing llama.cpp beside bathysphere.

    pip install gguf numpy
    tools/peers/random_gguf.py models/configs/mid-size.json mid-size.gguf --type q8_0

Shapes, routing and metadata are the configuration's; values are random. Matrices are q8_0 (llama.cpp's 8.5-bit format, the
nearest it has to FP8 and INT8), f16 or f32; norms and the router are f32, as its converter writes them.
"""
import argparse
import json

import gguf
import numpy as np

TYPES = {
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
    "f16": gguf.GGMLQuantizationType.F16,
    "f32": gguf.GGMLQuantizationType.F32,
}


def write(config: dict, path: str, kind: str) -> None:
    random = np.random.default_rng(1)
    writer = gguf.GGUFWriter(path, "deepseek2")

    def vector(name: str, size: int, value: float) -> None:
        writer.add_tensor(name, np.full(size, value, np.float32))

    def matrix(name: str, *shape: int, kind: str = kind) -> None:
        values = random.standard_normal(shape, np.float32) / np.sqrt(shape[-1])
        quantised = gguf.quants.quantize(values, TYPES[kind])
        writer.add_tensor(name, quantised, raw_dtype=TYPES[kind])

    hidden, layers = config["hidden_size"], config["num_hidden_layers"]
    heads, q_rank, kv_rank = config["num_attention_heads"], config["q_lora_rank"], config["kv_lora_rank"]
    nope, rope, v = config["qk_nope_head_dim"], config["qk_rope_head_dim"], config["v_head_dim"]
    experts, width = config["n_routed_experts"], config["moe_intermediate_size"]
    shared, dense = config["n_shared_experts"], config["first_k_dense_replace"]

    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(hidden)
    writer.add_block_count(layers)
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_leading_dense_block_count(dense)
    writer.add_head_count(heads)
    writer.add_head_count_kv(1)
    writer.add_q_lora_rank(q_rank)
    writer.add_kv_lora_rank(kv_rank)
    writer.add_key_length(kv_rank + rope)
    writer.add_value_length(kv_rank)
    writer.add_key_length_mla(nope + rope)
    writer.add_value_length_mla(v)
    writer.add_rope_dimension_count(rope)
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(experts)
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_expert_shared_count(shared)
    writer.add_expert_feed_forward_length(width)
    writer.add_expert_weights_scale(config["routed_scaling_factor"])
    writer.add_expert_weights_norm(config["norm_topk_prob"])
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    writer.add_expert_group_count(config["n_group"])
    writer.add_expert_group_used_count(config["topk_group"])

    matrix("token_embd.weight", config["vocab_size"], hidden)
    matrix("output.weight", config["vocab_size"], hidden)
    vector("output_norm.weight", hidden, 1.0)
    for layer in range(layers):
        block = f"blk.{layer}."
        vector(block + "attn_norm.weight", hidden, 1.0)
        vector(block + "ffn_norm.weight", hidden, 1.0)
        vector(block + "attn_q_a_norm.weight", q_rank, 1.0)
        vector(block + "attn_kv_a_norm.weight", kv_rank, 1.0)
        matrix(block + "attn_q_a.weight", q_rank, hidden)
        matrix(block + "attn_q_b.weight", heads * (nope + rope), q_rank)
        matrix(block + "attn_kv_a_mqa.weight", kv_rank + rope, hidden)
        matrix(block + "attn_k_b.weight", heads, kv_rank, nope)
        matrix(block + "attn_v_b.weight", heads, v, kv_rank)
        matrix(block + "attn_output.weight", hidden, heads * v)
        if layer < dense:
            matrix(block + "ffn_gate.weight", config["intermediate_size"], hidden)
            matrix(block + "ffn_up.weight", config["intermediate_size"], hidden)
            matrix(block + "ffn_down.weight", hidden, config["intermediate_size"])
            continue
        matrix(block + "ffn_gate_inp.weight", experts, hidden, kind="f32")
        vector(block + "exp_probs_b.bias", experts, 0.0)
        matrix(block + "ffn_gate_exps.weight", experts, width, hidden)
        matrix(block + "ffn_up_exps.weight", experts, width, hidden)
        matrix(block + "ffn_down_exps.weight", experts, hidden, width)
        matrix(block + "ffn_gate_shexp.weight", shared * width, hidden)
        matrix(block + "ffn_up_shexp.weight", shared * width, hidden)
        matrix(block + "ffn_down_shexp.weight", hidden, shared * width)

    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file(progress=True)
    writer.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config.json of a DeepSeek-V3-family model")
    parser.add_argument("output", help="GGUF file to write")
    parser.add_argument("--type", choices=TYPES, default="q8_0", help="format of the matrices [default: q8_0]")
    arguments = parser.parse_args()
    with open(arguments.config, encoding="utf-8") as file:
        write(json.load(file), arguments.output, arguments.type)


if __name__ == "__main__":
    main()

"""Writes the golden files that crates/crisol-model/tests/golden.rs compares Crisol with.

    pip install -r requirements.txt && python generate.py [MODEL ...]

Each folder is a tiny random model as transformers saves it, with what PyTorch computes for it:
golden.json (documents, losses, gradient norms, optimizer) and golden.safetensors (logits,
gradients, weights after ten AdamW steps). Documents are computed one by one here and packed in
Crisol. The files are committed; run this again only to change what is tested.
"""

import copy
import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Ernie4_5Config,
    Ernie4_5ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForCausalLM,
    MixtralConfig,
    MixtralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

HERE = Path(__file__).parent
VOCAB = 64
OPTIMIZER = {"lr": 0.003, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 2.0}
STEPS = 10

SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
}

SMALL = {**SHAPE, "hidden_size": 16, "intermediate_size": 24, "max_position_embeddings": 128}


def stretched(**rope):
    """A small Llama whose rotary frequencies are scaled so that the scaling matters to the
    documents below."""
    positions = 16 if rope["rope_type"] in ("linear", "dynamic") else 128
    shape = {**SMALL, "head_dim": 12, "max_position_embeddings": positions}
    return LlamaForCausalLM, LlamaConfig(**shape, rope_parameters={"rope_theta": 1000.0, **rope}), torch.float32, "1GB"


def deepseek(**changes):
    """A small DeepSeek-V3: one dense layer and one mixture."""
    shape = {
        **SMALL,
        "num_key_value_heads": 4,
        "q_lora_rank": 12,
        "kv_lora_rank": 10,
        "qk_nope_head_dim": 6,
        "qk_rope_head_dim": 4,
        "v_head_dim": 7,
        "moe_intermediate_size": 12,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
    }
    return DeepseekV3ForCausalLM, DeepseekV3Config(**{**shape, **changes}), torch.float32, "1GB"


def llama4(**changes):
    """A small Llama 4 whose chunks are shorter than the longest document."""
    shape = {
        **SMALL,
        "head_dim": 8,
        "intermediate_size_mlp": 20,
        "num_hidden_layers": 3,
        "interleave_moe_layer_step": 2,
        "num_local_experts": 4,
        "num_experts_per_tok": 1,
        "no_rope_layer_interval": 3,
        "attention_chunk_size": 5,
        "floor_scale": 4,
        "attn_scale": 0.3,
        "pad_token_id": None,
    }
    return Llama4ForCausalLM, Llama4TextConfig(**{**shape, **changes}), torch.float32, "1GB"


def gpt_oss(**changes):
    """A small gpt-oss whose window is shorter than the documents."""
    shape = {
        **SMALL,
        "vocab_size": 37,
        "intermediate_size": 12,
        "head_dim": 6,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "sliding_window": 5,
        "pad_token_id": None,
        "rope_parameters": {
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 4.0,
            "truncate": False,
        },
    }
    return GptOssForCausalLM, GptOssConfig(**{**shape, **changes}), torch.bfloat16, "1GB"


# Sizes that are no multiples of anything, and one key and value for all heads.
ODD = {**SMALL, "vocab_size": 37, "hidden_size": 21, "intermediate_size": 13, "num_attention_heads": 3, "num_key_value_heads": 1}

# The defaults are tokens of published vocabularies, beyond those here.
NO_TOKENS = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
NO_DROPOUT = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}


# Between them: every architecture, tied and untied heads, grouped queries, biases, a head_dim of
# its own, another rope base, every scaling of it (with documents shorter and longer than what they
# were trained on), all three storage types, one file and several, config.json as transformers 4
# wrote it, odd sizes, and the scalar head. (random_configs.py tries more of all this.)
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig(**SHAPE, rms_norm_eps=1e-5), torch.float32, "1GB"),
    "llama-tied": (
        LlamaForCausalLM,
        LlamaConfig(
            **SHAPE,
            head_dim=12,
            tie_word_embeddings=True,
            attention_bias=True,
            mlp_bias=True,
            rope_parameters={"rope_type": "default", "rope_theta": 500000.0},
        ),
        torch.bfloat16,
        "1GB",
    ),
    "olmo2": (Olmo2ForCausalLM, Olmo2Config(**SHAPE, pad_token_id=None, eos_token_id=0), torch.float16, "20KB"),
    "llama-linear": stretched(rope_type="linear", factor=8.0),
    "llama-dynamic": stretched(rope_type="dynamic", factor=8.0),
    "llama-llama3": stretched(
        rope_type="llama3",
        factor=4.0,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=32,
    ),
    "llama-yarn": stretched(
        rope_type="yarn", factor=8.0, original_max_position_embeddings=16, beta_fast=4.0, mscale=1.0, mscale_all_dim=0.6
    ),
    "qwen3": (
        Qwen3ForCausalLM,
        Qwen3Config(**SMALL, head_dim=10, attention_bias=True, tie_word_embeddings=True),
        torch.bfloat16,
        "1GB",
    ),
    # A window in the second layer only.
    "qwen2": (
        Qwen2ForCausalLM,
        Qwen2Config(**SMALL, tie_word_embeddings=True, use_sliding_window=True, sliding_window=6, max_window_layers=1),
        torch.bfloat16,
        "1GB",
    ),
    "mistral": (MistralForCausalLM, MistralConfig(**ODD, head_dim=6, sliding_window=4), torch.float32, "1GB"),
    # Windows, both soft-caps, a scale of queries that is not the width of a head.
    "gemma2": (
        Gemma2ForCausalLM,
        Gemma2Config(
            **SMALL,
            head_dim=10,
            query_pre_attn_scalar=7,
            sliding_window=5,
            attn_logit_softcapping=1.5,
            final_logit_softcapping=2.5,
            attention_bias=True,
            pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        ),
        torch.bfloat16,
        "1GB",
    ),
    # Every third layer is global; two bases.
    "gemma3": (
        Gemma3ForCausalLM,
        Gemma3TextConfig(
            **{**ODD, "hidden_size": 15, "num_hidden_layers": 3},
            head_dim=6,
            query_pre_attn_scalar=9,
            sliding_window=4,
            sliding_window_pattern=3,
            tie_word_embeddings=False,
            pad_token_id=None,
            rope_parameters={
                "full_attention": {"rope_type": "default", "rope_theta": 5000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
            },
        ),
        torch.float32,
        "1GB",
    ),
    # Every second layer does not rotate, and has a window.
    "smollm3": (
        SmolLM3ForCausalLM,
        SmolLM3Config(**SMALL, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=5, **NO_TOKENS),
        torch.bfloat16,
        "1GB",
    ),
    "smollm3-odd": (
        SmolLM3ForCausalLM,
        SmolLM3Config(
            **ODD,
            head_dim=6,
            no_rope_layers=[0, 1],
            attention_bias=True,
            mlp_bias=True,
            tie_word_embeddings=False,
            **NO_TOKENS,
        ),
        torch.float32,
        "1GB",
    ),
    # The text part of a text-and-image model, and config.json as before transformers 5. Dynamic
    # scaling is for the global layer alone.
    "gemma3-within-older": (
        Gemma3ForCausalLM,
        Gemma3TextConfig(
            **{**SMALL, "max_position_embeddings": 16},
            head_dim=8,
            query_pre_attn_scalar=8,
            sliding_window=5,
            sliding_window_pattern=2,
            final_logit_softcapping=2.5,
            pad_token_id=None,
            rope_parameters={
                "full_attention": {"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 8.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
            },
        ),
        torch.bfloat16,
        "1GB",
    ),
    # A mixture, and a dense layer.
    "qwen3-moe": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(
            **{**SMALL, "vocab_size": 37, "intermediate_size": 12},
            head_dim=6,
            moe_intermediate_size=8,
            num_experts=5,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            mlp_only_layers=[1],
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
        "1GB",
    ),
    "qwen3-moe-odd": (
        Qwen3MoeForCausalLM,
        Qwen3MoeConfig(
            **ODD,
            head_dim=10,
            moe_intermediate_size=7,
            num_experts=3,
            num_experts_per_tok=2,
            decoder_sparse_step=2,
            attention_bias=True,
            use_sliding_window=True,
            sliding_window=4,
        ),
        torch.bfloat16,
        "1GB",
    ),
    "granite": (
        GraniteForCausalLM,
        GraniteConfig(
            **SMALL,
            embedding_multiplier=6.0,
            logits_scaling=0.5,
            residual_multiplier=0.7,
            attention_multiplier=0.4,
            attention_bias=True,
            tie_word_embeddings=True,
        ),
        torch.bfloat16,
        "1GB",
    ),
    "ernie4-5": (
        Ernie4_5ForCausalLM,
        Ernie4_5Config(
            **SMALL,
            head_dim=10,
            use_bias=True,
            tie_word_embeddings=False,
            pad_token_id=None,
            rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
        ),
        torch.bfloat16,
        "1GB",
    ),
    "olmo3": (
        Olmo3ForCausalLM,
        Olmo3Config(
            **SMALL,
            sliding_window=6,
            layer_types=["sliding_attention", "full_attention"],
            rope_parameters={
                "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 1000.0,
                    "factor": 8.0,
                    "original_max_position_embeddings": 16,
                    "beta_fast": 4.0,
                    "attention_factor": 1.2,
                },
            },
            pad_token_id=None,
            eos_token_id=0,
        ),
        torch.bfloat16,
        "1GB",
    ),
    # Rotary embeddings as transformers 4 wrote those of the published models; the last of four
    # layers has no window.
    "olmo3-older": (
        Olmo3ForCausalLM,
        Olmo3Config(
            **{**ODD, "hidden_size": 12, "num_hidden_layers": 4},
            sliding_window=3,
            attention_bias=True,
            tie_word_embeddings=True,
            rope_parameters={
                "full_attention": {
                    "rope_type": "yarn",
                    "rope_theta": 500000.0,
                    "factor": 4.0,
                    "original_max_position_embeddings": 32,
                    "beta_fast": 32,
                    "beta_slow": 1,
                    "attention_factor": 1.1,
                },
            },
            pad_token_id=None,
            eos_token_id=0,
        ),
        torch.float32,
        "1GB",
    ),
    "phi3": (
        Phi3ForCausalLM,
        Phi3Config(**SMALL, head_dim=8, partial_rotary_factor=0.5, sliding_window=5, tie_word_embeddings=True, **NO_TOKENS),
        torch.bfloat16,
        "1GB",
    ),
    # One document is short of the original context, one longer, and generation passes it.
    "phi3-longrope": (
        Phi3ForCausalLM,
        Phi3Config(
            **{**SMALL, "num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16},
            original_max_position_embeddings=16,
            rope_parameters={
                "rope_type": "longrope",
                "rope_theta": 1000.0,
                "partial_rotary_factor": 0.75,
                "short_factor": [1.0, 1.2, 1.5],
                "long_factor": [2.0, 3.5, 6.0],
            },
            **NO_TOKENS,
        ),
        torch.float32,
        "1GB",
    ),
    "gpt2": (
        GPT2LMHeadModel,
        GPT2Config(vocab_size=VOCAB, n_embd=12, n_head=2, n_layer=2, n_positions=128, **NO_DROPOUT, **NO_TOKENS),
        torch.bfloat16,
        "1GB",
    ),
    # Named as on the hub, with the masks that are stored there; a head of its own.
    "gpt2-hub": (
        GPT2LMHeadModel,
        GPT2Config(
            vocab_size=37,
            n_embd=21,
            n_head=3,
            n_layer=1,
            n_inner=13,
            n_positions=40,
            scale_attn_weights=False,
            tie_word_embeddings=False,
            **NO_DROPOUT,
            **NO_TOKENS,
        ),
        torch.float32,
        "1GB",
    ),
    "mixtral": (
        MixtralForCausalLM,
        MixtralConfig(**{**SMALL, "vocab_size": 37, "intermediate_size": 12}, num_local_experts=3, sliding_window=6),
        torch.bfloat16,
        "1GB",
    ),
    "gpt-oss": gpt_oss(swiglu_limit=0.3),
    "gpt-oss-mxfp4": gpt_oss(
        vocab_size=17,
        hidden_size=32,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_local_experts=2,
        num_experts_per_tok=1,
        attention_bias=False,
        layer_types=["full_attention"],
        rope_parameters={"rope_type": "default", "rope_theta": 1000.0},
    ),
    "llama4": llama4(),
    "llama4-plain": llama4(
        num_hidden_layers=2,
        interleave_moe_layer_step=1,
        num_experts_per_tok=2,
        use_qk_norm=False,
        attn_temperature_tuning=False,
        no_rope_layers=[0, 1],
        attention_chunk_size=30,
        attention_bias=True,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 1000.0,
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 1.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "deepseek-v3": deepseek(
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 4.0,
            "mscale": 1.0,
            "mscale_all_dim": 0.6,
        },
    ),
    "deepseek-v3-fp8": deepseek(
        num_hidden_layers=1, first_k_dense_replace=0, n_routed_experts=4, n_group=2, topk_group=1, num_experts_per_tok=2
    ),
    "deepseek-v3-plain": deepseek(
        q_lora_rank=None,
        rope_interleave=False,
        norm_topk_prob=False,
        routed_scaling_factor=1.5,
        n_group=1,
        topk_group=1,
        n_shared_experts=2,
        first_k_dense_replace=0,
        attention_bias=True,
        tie_word_embeddings=True,
    ),
    "llama-odd": (LlamaForCausalLM, LlamaConfig(**ODD, head_dim=10, mlp_bias=True), torch.float16, "1GB"),
    "olmo2-odd": (
        Olmo2ForCausalLM,
        Olmo2Config(
            **ODD,
            head_dim=10,
            attention_bias=True,
            tie_word_embeddings=True,
            pad_token_id=None,
            eos_token_id=0,
            rope_parameters={
                "rope_type": "yarn",
                "rope_theta": 1000.0,
                "factor": 4.0,
                "original_max_position_embeddings": 32,
                "beta_fast": 4.0,
                "beta_slow": 0.5,
                "truncate": False,
                "attention_factor": 0.8,
            },
        ),
        torch.bfloat16,
        "1GB",
    ),
    "qwen3-older": (
        Qwen3ForCausalLM,
        Qwen3Config(
            **{**ODD, "max_position_embeddings": 16},
            head_dim=6,
            rope_parameters={"rope_type": "dynamic", "rope_theta": 1000.0, "factor": 8.0},
        ),
        torch.float32,
        "1GB",
    ),
    "llama4-odd": llama4(
        **ODD,
        moe_layers=[0],
        no_rope_layers=[0, 1],
        layer_types=["chunked_attention", "full_attention"],
        num_local_experts=3,
        num_experts_per_tok=2,
        use_qk_norm=False,
        floor_scale=1,
        attn_scale=0.5,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "beta_fast": 4.0,
        },
    ),
    "llama4-dense": llama4(
        **ODD,
        moe_layers=[],
        no_rope_layer_interval=2,
        attention_chunk_size=2,
        attn_temperature_tuning=False,
        rope_parameters={"rope_type": "default", "rope_theta": 100.0},
    ),
    "deepseek-v3-odd": deepseek(
        **{**ODD, "num_key_value_heads": 3, "num_hidden_layers": 1, "max_position_embeddings": 16},
        first_k_dense_replace=0,
        q_lora_rank=None,
        kv_lora_rank=7,
        v_head_dim=11,
        moe_intermediate_size=5,
        n_routed_experts=9,
        n_group=3,
        topk_group=2,
        num_experts_per_tok=5,
        norm_topk_prob=False,
        rope_parameters={"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
    ),
    "deepseek-v3-dense": deepseek(
        **{**ODD, "num_key_value_heads": 3, "num_hidden_layers": 1},
        first_k_dense_replace=1,
        rope_interleave=False,
        tie_word_embeddings=True,
        rope_parameters={
            "rope_type": "yarn",
            "rope_theta": 1000.0,
            "factor": 8.0,
            "original_max_position_embeddings": 16,
            "mscale_all_dim": 0.5,
            "attention_factor": 1.1,
        },
    ),
    "llama-scalar": (
        LlamaForSequenceClassification,
        LlamaConfig(**{**SHAPE, "hidden_size": 16, "num_hidden_layers": 1}, num_labels=1),
        torch.float32,
        "1GB",
    ),
}


NORMS = ("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")


def plus_one(model):
    """1 where norms multiply by 1 + weight."""
    return float(type(model).__name__.startswith("Gemma"))


def randomise(model, dtype):
    """Weights large enough that every part of the model matters, and exact in the type they are
    stored in."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(NORMS):
                p.uniform_(0.5, 1.5).sub_(plus_one(model))
            elif p.dim() == 1:
                p.normal_(0, 0.1)
            else:
                p.normal_(0, 0.15)
            p.copy_(p.to(dtype).float())
        # What experts are chosen by, besides the router; large enough to matter.
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.uniform_(-0.2, 0.2)


def spread(scale, shape, block):
    """A block's scale for each of its numbers."""
    rows, cols = shape
    return scale.repeat_interleave(block[0], 0)[:rows].repeat_interleave(block[1], 1)[:, :cols]


def as_fp8(model, folder, block):
    """Stores the layers' matrices as DeepSeek-V3's are, FP8 with a scale for each block, and gives
    the model the stored values. A tensor of a layer behind the last one stands for those that
    predict a second token."""
    path = folder / "model.safetensors"
    stored = load_file(path)
    widened = dict(stored)
    for name, w in widened.items():
        if not name.startswith("model.layers.") or w.dim() != 2 or name.endswith("mlp.gate.weight"):
            continue
        scale = torch.stack(
            [torch.stack([b.abs().amax() for b in rows.split(block[1], 1)]) for rows in w.split(block[0])]
        ) / torch.finfo(torch.float8_e4m3fn).max
        stored[name] = (w / spread(scale, w.shape, block)).to(torch.float8_e4m3fn)
        stored[name + "_scale_inv"] = scale
        widened[name] = stored[name].float() * spread(scale, w.shape, block)
    save_file(widened, path, metadata={"format": "pt"})
    model.load_state_dict(type(model).from_pretrained(folder).state_dict())
    stored[f"model.layers.{model.config.num_hidden_layers}.eh_proj.weight"] = torch.zeros(2, 3)
    save_file(stored, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": list(block)}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def as_mxfp4(model, folder):
    """Stores the experts' matrices as gpt-oss's are, blocks of 32 numbers of 4 bits with an exponent
    each, and gives the model the stored values."""
    path = folder / "model.safetensors"
    stored = load_file(path)
    codes = torch.tensor([0.0, 0.5, 1, 1.5, 2, 3, 4, 6])
    widened = dict(stored)
    for name, w in widened.items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            continue
        blocks = w.transpose(1, 2).reshape(w.shape[0], w.shape[2], w.shape[1] // 32, 32)
        exponent = (blocks.abs().amax(-1) / 6).log2().ceil()
        scaled = blocks / exponent.exp2().unsqueeze(-1)
        nearest = (scaled.abs().unsqueeze(-1) - codes).abs().argmin(-1)
        code = nearest + 8 * (scaled < 0)
        del stored[name]
        stored[name + "_blocks"] = (code[..., ::2] + 16 * code[..., 1::2]).to(torch.uint8)
        stored[name + "_scales"] = (exponent + 127).to(torch.uint8)
        numbers = codes[nearest] * scaled.sign() * exponent.exp2().unsqueeze(-1)
        widened[name] = numbers.reshape(w.shape[0], w.shape[2], w.shape[1]).transpose(1, 2).contiguous()
    model.load_state_dict(widened)
    save_file(stored, path, metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router"]}
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")


def as_before(folder):
    """Rotary embeddings, and which layers have windows, where transformers 4 had them."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    if "sliding_attention" in rope:
        # Gemma 3's, by the kind of a layer.
        config["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        # They came when `type` had become `rope_type`.
        rope = rope["full_attention"]
        del config["layer_types"]
    elif "full_attention" in rope:
        # OLMo-3's, whose other layers are not scaled.
        rope = rope["full_attention"]
    else:
        rope["type"] = rope.pop("rope_type")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    path.write_text(json.dumps(config, indent=2) + "\n")


def as_within(folder):
    """Names of tensors, and a config.json, of a text-and-image model with this language model."""
    path = folder / "model.safetensors"
    within = {f"language_model.{name}": tensor for name, tensor in load_file(path).items()}
    save_file({**within, "vision_tower.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    path = folder / "config.json"
    text = json.loads(path.read_text())
    whole = {"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "text_config": text}
    path.write_text(json.dumps(whole, indent=2) + "\n")


def as_on_hub(folder):
    """GPT-2's names without what transformers puts before them, and the masks of attention."""
    path = folder / "model.safetensors"
    stored = {name.removeprefix("transformer."): w for name, w in load_file(path).items()}
    positions = stored["wpe.weight"].shape[0]
    stored["h.0.attn.bias"] = torch.ones(positions, positions).tril()[None, None]
    save_file(stored, path, metadata={"format": "pt"})


def forward(model, documents):
    """Logits of every document, and the mean cross-entropy over all tokens that have a
    predecessor."""
    logits = [model(torch.tensor([d])).logits[0] for d in documents]
    total = sum(
        torch.nn.functional.cross_entropy(x[:-1], torch.tensor(d[1:]), reduction="sum")
        for x, d in zip(logits, documents)
    )
    return logits, total / sum(len(d) - 1 for d in documents)


def is_matrix(name, p):
    """gpt-oss has the biases of all experts in one matrix."""
    return p.dim() > 1 and not name.endswith("bias")


def train(model, documents):
    """Loss and gradient norm before each of ten AdamW steps; norms and biases are not decayed."""
    o = OPTIMIZER
    groups = [
        {"params": [p for n, p in model.named_parameters() if is_matrix(n, p)], "weight_decay": o["weight_decay"]},
        {"params": [p for n, p in model.named_parameters() if not is_matrix(n, p)], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=o["lr"], betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    losses, norms = [], []
    for _ in range(STEPS):
        optimizer.zero_grad()
        _, loss = forward(model, documents)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(model.parameters(), o["max_grad_norm"]).item())
        losses.append(loss.item())
        optimizer.step()
    return losses, norms


CONV1D = ("c_attn.weight", "c_proj.weight", "c_fc.weight")


def as_saved(model, name, tensor):
    """Names and tensors of every expert by itself, `[out, in]`. Llama 4, gpt-oss and GPT-2 have
    them transposed, and gpt-oss has gate and up in turns."""
    kind = model.config.model_type
    if name.endswith(CONV1D):
        yield name, tensor.t().contiguous()
        return
    if ".experts." not in name:
        yield name.replace(".mlp.gate.", ".block_sparse_moe.gate.") if kind == "mixtral" else name, tensor
        return
    layer, part = name.split(".experts.")
    names = {"gate": "gate_proj", "up": "up_proj", "down": "down_proj"}
    if kind == "mixtral":
        layer, names = layer.replace(".mlp", ".block_sparse_moe"), {"gate": "w1", "up": "w3", "down": "w2"}
    end = "bias" if part.endswith("bias") else "weight"
    if kind in ("llama4_text", "gpt_oss") and end == "weight":
        tensor = tensor.transpose(1, 2)
    for expert, both in enumerate(tensor):
        if part.startswith("gate_up"):
            gate, up = (both[::2], both[1::2]) if kind == "gpt_oss" else both.chunk(2)
            yield f"{layer}.experts.{expert}.{names['gate']}.{end}", gate.contiguous()
            yield f"{layer}.experts.{expert}.{names['up']}.{end}", up.contiguous()
        else:
            yield f"{layer}.experts.{expert}.{names['down']}.{end}", both.clone(memory_format=torch.contiguous_format)


def greedy(model, prompt):
    """What greedy generation with a cache appends: 100 tokens, or as many as the context holds."""
    room = model.config.max_position_embeddings
    rope = getattr(model.config, "rope_parameters", {})
    rope = rope.get("full_attention", rope)
    if rope.get("rope_type") in ("linear", "dynamic"):
        room *= int(rope["factor"])
    new = min(100, room - len(prompt))
    model.generation_config.eos_token_id = model.generation_config.pad_token_id = None
    ids = model.generate(torch.tensor([prompt]), max_new_tokens=new, do_sample=False)
    return ids[0, len(prompt) :].tolist()


def write(model_name):
    model_class, config, dtype, shard_size = MODELS[model_name]
    torch.manual_seed(len(model_name))
    folder = HERE / model_name
    shutil.rmtree(folder, ignore_errors=True)
    model = model_class(config).float().train()
    if config.hidden_size % 4:
        # The other way wants multiples of 16 bytes.
        model.set_experts_implementation("eager")
    randomise(model, dtype)
    copy.deepcopy(model).to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if model_name.endswith("fp8"):
        as_fp8(model, folder, (8, 6))
    if model_name.endswith("mxfp4"):
        as_mxfp4(model, folder)
    if model_name.endswith("older"):
        as_before(folder)
    if "within" in model_name:
        as_within(folder)
    if model_name.endswith("hub"):
        as_on_hub(folder)

    documents = [torch.randint(config.vocab_size, (length,)).tolist() for length in (13, 7, 21)]
    golden = {"torch": torch.__version__, "transformers": transformers.__version__, "documents": documents}
    tensors = {}
    if "Sequence" in model_class.__name__:
        golden["scalars"] = [model(torch.tensor([d])).logits.item() for d in documents]
    else:
        logits, loss = forward(model, documents)
        loss.backward()
        tensors["logits"] = torch.cat(logits).detach()
        for name, p in model.named_parameters():
            tensors |= {f"gradient.{n}": g for n, g in as_saved(model, name, p.grad.clone())}
        fresh = copy.deepcopy(model).eval()
        first = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item()
        # Some steps shall be clipped and some not; norms fall.
        OPTIMIZER["max_grad_norm"] = 2.0 if model.config.hidden_size == SHAPE["hidden_size"] else round(0.9 * first, 2)
        losses, norms = train(model, documents)
        assert max(norms) > OPTIMIZER["max_grad_norm"], "no step is clipped"
        assert min(norms) < OPTIMIZER["max_grad_norm"], "every step is clipped"
        golden |= {"greedy": greedy(fresh, documents[0])}
        golden |= {"loss": loss.item(), "optimizer": OPTIMIZER, "losses": losses, "gradient_norms": norms}
        for name, p in model.named_parameters():
            tensors |= {f"final.{n}": w for n, w in as_saved(model, name, p.detach())}
        save_file(tensors, folder / "golden.safetensors")
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(model_name, {k: v for k, v in golden.items() if k in ("loss", "losses", "gradient_norms", "scalars")})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name in sys.argv[1:] or MODELS:
        write(name)

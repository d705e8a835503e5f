"""Checks GGUF files of architectures with dense layers beyond Llama's, on tiny models with random
weights.

    python check_gguf_dense.py CRISOL TOKENIZER [NAME ...]

What is compared, and what is needed: as in `check_gguf_mixtures.py`.
"""

import sys

from transformers import (
    Ernie4_5Config,
    Ernie4_5ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

import check_gguf_mixtures
from check_gguf_mixtures import LLAMA3, SHARED, yarn

DENSE = {**SHARED, "num_hidden_layers": 5, "num_key_value_heads": 2, "intermediate_size": 96}


def mistral(**changes):
    return MistralForCausalLM, MistralConfig(**{**DENSE, **changes})


def qwen2(**changes):
    return Qwen2ForCausalLM, Qwen2Config(**{**DENSE, **changes})


def granite(**changes):
    factors = {"embedding_multiplier": 6.0, "logits_scaling": 2.0, "residual_multiplier": 0.7, "attention_multiplier": 0.2}
    return GraniteForCausalLM, GraniteConfig(**{**DENSE, **factors, **changes})


def olmo3(**changes):
    return Olmo3ForCausalLM, Olmo3Config(**{**DENSE, "sliding_window": 6, **changes})


def phi3(**changes):
    return Phi3ForCausalLM, Phi3Config(**{**DENSE, **changes})


def long(original, **more):
    """llama.cpp takes the longer factors if its context is longer, 256 tokens here."""
    factors = {"short_factor": [1.0, 1.1, 1.2, 1.3, 1.4, 1.5], "long_factor": [1.0, 2.0, 3.5, 5.0, 6.5, 8.0]}
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 0.75, **factors, **more}
    return phi3(rope_parameters=rope, original_max_position_embeddings=original, max_position_embeddings=512)


MODELS = {
    "qwen2": qwen2(),
    "qwen2-yarn": qwen2(tie_word_embeddings=True, num_key_value_heads=1, rope_parameters=yarn()),
    # Its window of 4,096 is longer than the context.
    "mistral": mistral(),
    "mistral-llama3": mistral(sliding_window=None, head_dim=24, rope_parameters={**LLAMA3, "high_freq_factor": 4.0}),
    "smollm3": (SmolLM3ForCausalLM, SmolLM3Config(**DENSE)),
    "smollm3-yarn": (SmolLM3ForCausalLM, SmolLM3Config(**DENSE, tie_word_embeddings=False, rope_parameters=yarn())),
    "granite": granite(),
    "granite-biases": granite(attention_bias=True, mlp_bias=True, tie_word_embeddings=True, rope_parameters=LLAMA3),
    "ernie4_5": (Ernie4_5ForCausalLM, Ernie4_5Config(**DENSE, head_dim=24)),
    "ernie4_5-yarn": (Ernie4_5ForCausalLM, Ernie4_5Config(**DENSE, tie_word_embeddings=False, rope_parameters=yarn())),
    "olmo3": olmo3(),
    "olmo3-yarn": olmo3(
        layer_types=["full_attention", "sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
        rope_parameters={
            "full_attention": {**yarn(attention_factor=1.3), "rope_theta": 500000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 500000.0},
        },
    ),
    # Not "phi3": llama.cpp wants certain tokens in models of that name.
    "phi": phi3(),
    "phi-partial": phi3(tie_word_embeddings=True, rope_parameters={"rope_type": "default", "rope_theta": 1000.0, "partial_rotary_factor": 0.5}),
    "phi-short": long(256),
    "phi-long": long(4, attention_factor=1.2),
    "gpt2": (GPT2LMHeadModel, GPT2Config(n_embd=64, n_head=4, n_layer=3, n_positions=256, eos_token_id=2)),
    "gpt2-untied": (
        GPT2LMHeadModel,
        GPT2Config(n_embd=64, n_head=2, n_layer=2, n_positions=256, n_inner=96, eos_token_id=2, tie_word_embeddings=False),
    ),
}

if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    check_gguf_mixtures.main(MODELS, *sys.argv[1:])

"""Checks GGUF files of the families that differ most from Llama, on tiny models with random weights:
mixtures of experts, and Gemma 2 and 3.

    python check_gguf_mixtures.py CRISOL TOKENIZER [NAME ...]

TOKENIZER is a folder with a tokenizer that GGUF files have a name for (SmolLM2's). Each model is
made by transformers; Crisol writes it as it as a GGUF file (F32), whose log-probabilities must be
those of transformers (2e-5), those of llama.cpp and its greedy tokens those of Crisol
(`check_gguf.py`; 5e-3 for Gemma). Those called like their family are compared in Q8_0, too, where
llama.cpp rounds activations and so sends some tokens to other experts: there, and with experts in
MXFP4, the average must be below 0.3. Needs what `check_gguf.py` needs.
"""

import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import (
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    GptOssConfig,
    GptOssForCausalLM,
    Llama4ForCausalLM,
    Llama4TextConfig,
    MixtralConfig,
    MixtralForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
)

import check_gguf
import generate
from random_configs import crisol, randomise

SHARED = {
    "hidden_size": 64,
    "intermediate_size": 32,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}


def llama4(**changes):
    shape = {
        **SHARED,
        "num_hidden_layers": 5,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "intermediate_size_mlp": 96,
        "interleave_moe_layer_step": 2,
        "num_local_experts": 6,
        "num_experts_per_tok": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return Llama4ForCausalLM, Llama4TextConfig(**{**shape, **changes})


def deepseek(**changes):
    shape = {
        **SHARED,
        "num_hidden_layers": 3,
        "num_key_value_heads": 4,
        "rms_norm_eps": 1e-6,
        "q_lora_rank": 32,
        "kv_lora_rank": 32,
        "qk_nope_head_dim": 32,
        "qk_rope_head_dim": 16,
        "v_head_dim": 24,
        "intermediate_size": 96,
        "moe_intermediate_size": 32,
        "n_routed_experts": 8,
        "num_experts_per_tok": 3,
        "n_shared_experts": 2,
        "n_group": 4,
        "topk_group": 2,
        "first_k_dense_replace": 1,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return DeepseekV3ForCausalLM, DeepseekV3Config(**{**shape, **changes})


def qwen3_moe(**changes):
    shape = {
        **SHARED,
        "num_hidden_layers": 3,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "moe_intermediate_size": 32,
        "num_experts": 8,
        "num_experts_per_tok": 3,
        "norm_topk_prob": True,
    }
    return Qwen3MoeForCausalLM, Qwen3MoeConfig(**{**shape, **changes})


def mixtral(**changes):
    shape = {**SHARED, "num_hidden_layers": 3, "num_key_value_heads": 2, "num_local_experts": 4}
    return MixtralForCausalLM, MixtralConfig(**{**shape, **changes})


def gpt_oss(**changes):
    shape = {
        **SHARED,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "num_local_experts": 6,
        "num_experts_per_tok": 3,
        # Shorter than the prompts and what follows them.
        "sliding_window": 12,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }
    return GptOssForCausalLM, GptOssConfig(**{**shape, **changes})


def gemma(**changes):
    return {
        **SHARED,
        "num_hidden_layers": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "query_pre_attn_scalar": 16,
        "intermediate_size": 96,
        "sliding_window": 8,
        **changes,
    }


def gemma2(**changes):
    caps = {"attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0}
    return Gemma2ForCausalLM, Gemma2Config(**gemma(**caps, **changes))


def gemma3(rope=None, local=10000.0, **changes):
    both = {
        "full_attention": rope or {"rope_type": "default", "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": local},
    }
    return Gemma3ForCausalLM, Gemma3TextConfig(**gemma(rope_parameters=both, **changes))


def yarn(factor=8.0, **more):
    return {"rope_type": "yarn", "rope_theta": 10000.0, "factor": factor, "original_max_position_embeddings": 32, **more}


LLAMA3 = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 16.0, "low_freq_factor": 1.0, "high_freq_factor": 1.0, "original_max_position_embeddings": 32}
MODELS = {
    "llama4": llama4(),
    "llama4-tied": llama4(tie_word_embeddings=True, interleave_moe_layer_step=1, num_experts_per_tok=3),
    # 128 experts: queries and keys are not normed.
    "llama4-many": llama4(num_local_experts=128, use_qk_norm=False, num_hidden_layers=4, num_experts_per_tok=2),
    "llama4-llama3": llama4(rope_parameters=LLAMA3),
    "llama4-linear": llama4(rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "llama4-yarn": llama4(rope_parameters=yarn()),
    "qwen3-moe": qwen3_moe(),
    "qwen3-moe-yarn": qwen3_moe(tie_word_embeddings=True, num_experts_per_tok=1, rope_parameters=yarn()),
    "mixtral": mixtral(),
    "mixtral-llama3": mixtral(num_local_experts=3, num_experts_per_tok=3, rope_parameters={**LLAMA3, "high_freq_factor": 4.0}),
    "gpt-oss": gpt_oss(),
    # Every pair is beyond the bounds, which llama.cpp rounds and the model does not.
    "gpt-oss-yarn": gpt_oss(rope_parameters={**yarn(truncate=False), "rope_theta": 6.0, "original_max_position_embeddings": 200}),
    "gpt-oss-mxfp4": gpt_oss(),
    "gemma2": gemma2(),
    # The scale of queries of the 27B models.
    "gemma2-27b": gemma2(num_hidden_layers=46, head_dim=24, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}),
    "gemma2-thirds": gemma2(layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"]),
    "gemma3": gemma3(num_hidden_layers=7),
    "gemma3-linear": gemma3({"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}, 100.0, final_logit_softcapping=5.0, sliding_window_pattern=2),
    "gemma3-local": gemma3(layer_types=["sliding_attention"] * 4, tie_word_embeddings=False),
    "gemma3-global": gemma3(yarn(), layer_types=["full_attention"] * 4),
    "deepseek": deepseek(),
    "deepseek-plain": deepseek(q_lora_rank=None, n_group=1, topk_group=1, norm_topk_prob=False, tie_word_embeddings=True),
    "deepseek-odd": deepseek(kv_lora_rank=26, qk_nope_head_dim=14, qk_rope_head_dim=6, n_group=2, topk_group=2, n_shared_experts=1),
    "deepseek-yarn": deepseek(rope_parameters=yarn(mscale=1.0, mscale_all_dim=1.0)),
    "deepseek-yarn-less": deepseek(rope_parameters=yarn(factor=40.0, mscale=0.707, mscale_all_dim=0.707)),
    "deepseek-yarn-two": deepseek(rope_parameters=yarn(mscale=1.0, mscale_all_dim=0.4)),
    "deepseek-yarn-cold": deepseek(rope_parameters=yarn()),
    "deepseek-yarn-given": deepseek(rope_parameters=yarn(attention_factor=0.8, mscale_all_dim=0.6)),
}


def crisol(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments), "--json"], check=True, capture_output=True)
    return json.loads(done.stdout)


def check(binary, tokenizer, name, made, place, tolerance=2e-5):
    """`made`: class and config of the model."""
    torch.manual_seed(1)
    cls, config = made
    config.vocab_size = json.loads((tokenizer / "config.json").read_text())["vocab_size"]
    model = cls(config).eval()
    randomise(model)
    folder, file = place / name, place / f"{name}.gguf"
    model.save_pretrained(folder)
    quantised = name.endswith("mxfp4")
    if quantised:
        generate.as_mxfp4(model, folder)
    for part in ["tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "generation_config.json"]:
        if (tokenizer / part).exists():
            shutil.copy(tokenizer / part, folder)
    subprocess.run([binary, "export", folder, "--to", "gguf", "--dtype", "f32", "--out", file], check=True)
    ids = torch.randint(0, config.vocab_size, (1, 50), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        logits = model(ids).logits[0].log_softmax(-1)
    expected = [logits[i, token].item() for i, token in enumerate(ids[0, 1:])]
    ours = crisol(binary, "score", file, "--ids", ",".join(map(str, ids[0].tolist())))["logprobs"][1:]
    difference = max(abs(a - b) for a, b in zip(ours, expected, strict=True))
    print(f"{name}: log-probabilities differ from transformers' by {difference:.1e}")
    assert difference < tolerance, "too much"
    # llama.cpp rounds what it multiplies with experts in MXFP4, and its GELU is a table for inputs
    # in half precision.
    gelu = {"gemma": 5e-3, "gpt2": 1e-2}.get(re.match("gemma|gpt2|", name)[0], 1e-3)
    allowed = float("inf") if quantised else gelu
    average = check_gguf.main(binary, str(file), allowed)
    assert average < 0.3, "too much"
    if name in ("llama4", "deepseek"):
        narrow = place / f"{name}-q8_0.gguf"
        subprocess.run([binary, "export", folder, "--to", "gguf", "--dtype", "q8_0", "--out", narrow], check=True)
        assert check_gguf.main(binary, str(narrow), float("inf")) < 0.3, "too much"


def main(models, binary, tokenizer, *names):
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    for name in names or models:
        with tempfile.TemporaryDirectory() as place:
            check(binary, Path(tokenizer), name, models[name], Path(place))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(MODELS, *sys.argv[1:])

"""Checks GGUF files of the two families with mixtures of experts, Llama 4 and DeepSeek-V3, on tiny
models with random weights.

    python check_gguf_mixtures.py CRISOL TOKENIZER [NAME ...]

TOKENIZER is a folder with a tokenizer that GGUF files have a name for (SmolLM2's). Each model is
made by transformers; Crisol writes it as it as a GGUF file (F32), whose log-probabilities must be
those of transformers (2e-5), those of llama.cpp and its greedy tokens those of Crisol
(`check_gguf.py`). Those called like their family are compared in Q8_0, too, where llama.cpp rounds
activations and so sends some tokens to other experts: there the average must be below 0.3. Needs
what `check_gguf.py` needs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import DeepseekV3Config, DeepseekV3ForCausalLM, Llama4ForCausalLM, Llama4TextConfig

import check_gguf
from random_configs import randomise

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
    # ggml takes GELU from a table in f16.
    check_gguf.main(binary, str(file), 1e-2 if name.startswith("gpt2") else 1e-3)
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

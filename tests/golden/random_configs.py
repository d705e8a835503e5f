"""Compares Crisol with transformers on tiny models whose configurations are drawn at random.

    cargo build -p crisol && python random_configs.py ../../target/debug/crisol [COUNT [SEED [FAMILY ...]]]

COUNT models (40) of each family: sizes that are no multiples of anything, shared keys and values,
biases, tied heads, every scaling of rotary embeddings in the newer and the older place of
config.json, keys that are left to their defaults, and all that only a family has. transformers
saves each in one of three types, in one file or several. What Crisol scores must be within 1e-4 of
the largest logit, what it generates the same tokens. The first failure of each kind is printed with
its config.json; the exit code is 1 if there is any. Some models magnify rounding: where transformers
itself is far from its own results in f64, Crisol must be within ten times its distance from them,
and generated tokens are not compared. Needs the packages of requirements.txt.
"""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM

TOLERANCE = 1e-4
NEW = 24


def rope(r, longest, positions):
    """Rotary embeddings, and `max_position_embeddings` with which `longest` tokens fit."""
    kind = r.choice(["default", "linear", "dynamic", "llama3", "yarn"])
    rope = {"rope_type": kind, "rope_theta": r.choice([100.0, 1000.0, 10000.0, 500000.0])}
    if kind in ("linear", "dynamic"):
        # Some texts are longer than what the model is said to be trained on.
        positions = r.choice([positions, longest // 3 + 1])
        return {**rope, "factor": r.choice([3.0, 4.5, 8])}, positions
    original = r.choice([positions // 4, positions // 2])
    if kind == "llama3":
        low = r.choice([1.0, 1.5])
        rope |= {"factor": r.choice([2.0, 8.0, 32]), "low_freq_factor": low, "high_freq_factor": low * r.choice([1.5, 4])}
        rope |= r.choice([{}, {"original_max_position_embeddings": original}])
    if kind == "yarn":
        rope |= {"factor": r.choice([1.0, 2.5, 8.0, 40]), "original_max_position_embeddings": original}
        some = {
            "beta_fast": r.choice([4.0, 16]),
            "beta_slow": r.choice([1, 0.5, 2.0]),
            "truncate": r.random() < 0.5,
            "attention_factor": r.choice([0.7, 1.3]),
            "mscale": r.choice([1.0, 0.707]),
            "mscale_all_dim": r.choice([1.0, 0.4]),
        }
        rope |= {key: value for key, value in some.items() if r.random() < 0.5}
    return rope, positions


def common(r, longest):
    """What all families have."""
    heads = r.choice([1, 2, 3, 4, 5, 6, 8])
    parameters, positions = rope(r, longest, r.choice([longest, longest + 37, 256]))
    return {
        "vocab_size": r.randint(17, 150),
        "hidden_size": heads * r.choice([2, 5, 6, 8, 11]),
        "intermediate_size": r.randint(5, 70),
        "num_hidden_layers": r.randint(1, 4),
        "num_attention_heads": heads,
        "num_key_value_heads": r.choice([n for n in range(1, heads + 1) if heads % n == 0]),
        "head_dim": r.choice([4, 6, 8, 10, 14, 22]),
        "max_position_embeddings": positions,
        "rms_norm_eps": r.choice([1e-6, 1e-5, 1e-3]),
        "tie_word_embeddings": r.random() < 0.5,
        "attention_bias": r.random() < 0.5,
        "rope_parameters": parameters,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


def halved(r, shape):
    """Some leave the width of heads to what they share of the hidden size."""
    width = shape["hidden_size"] // shape["num_attention_heads"]
    if width % 2 == 0 and width > 2 and r.random() < 0.5:
        del shape["head_dim"]
    return shape


def llama(r, longest):
    return halved(r, {**common(r, longest), "mlp_bias": r.random() < 0.5})


def olmo2(r, longest):
    return halved(r, common(r, longest))


def qwen3(r, longest):
    shape = {**common(r, longest), "hidden_size": r.randint(9, 60)}
    return shape | windows(r, longest, shape["num_hidden_layers"])


def qwen2(r, longest):
    shape = common(r, longest)
    del shape["head_dim"]
    # Wider than 2: transformers' dynamic scaling divides by `width - 2`, and Crisol refuses it.
    shape["hidden_size"] = shape["num_attention_heads"] * r.choice([4, 6, 8])
    return shape | windows(r, longest, shape["num_hidden_layers"])


# Windows are 2 or more: with 1, transformers' cache keeps everything, and generation differs from a
# forward pass.
def windows(r, longest, layers):
    """Qwen's: in layers from one on."""
    return {
        "use_sliding_window": r.random() < 0.7,
        "sliding_window": r.choice([2, 3, 10, longest // 2, longest * 2]),
        "max_window_layers": r.randint(0, layers),
    }


def mistral(r, longest):
    return halved(r, {**common(r, longest), "sliding_window": r.choice([None, 2, 3, 10, longest // 2, longest * 2])})


def gemma2(r, longest):
    shape = common(r, longest)
    kinds = ["sliding_attention", "full_attention"]
    shape |= {
        "query_pre_attn_scalar": r.choice([1, 4, 7, 256]),
        # Not 1: transformers' cache then keeps everything, and generation differs from a forward
        # pass.
        "sliding_window": r.choice([2, 3, 10, longest // 2, longest * 2]),
        "attn_logit_softcapping": r.choice([None, 0.5, 3.0, 50.0]),
        "final_logit_softcapping": r.choice([None, 0.7, 3.0, 30.0]),
    }
    if r.random() < 0.5:
        shape["layer_types"] = [r.choice(kinds) for _ in range(shape["num_hidden_layers"])]
    return shape


def gemma3(r, longest):
    shape = gemma2(r, longest)
    local = {"rope_type": "default", "rope_theta": r.choice([10.0, 300.0, 10000.0])}
    shape["rope_parameters"] = {"full_attention": shape["rope_parameters"], "sliding_attention": local}
    # Where transformers looks for it there is nothing: Crisol refuses false.
    shape["rope_parameters"]["full_attention"].pop("truncate", None)
    # Read by no one.
    shape["attn_logit_softcapping"] = r.choice([None, 0.5])
    if "layer_types" not in shape:
        shape["sliding_window_pattern"] = r.randint(1, 4)
    return shape


def llama4(r, longest):
    shape = common(r, longest)
    layers, experts = shape["num_hidden_layers"], r.randint(1, 6)
    shape |= {
        "hidden_size": r.randint(9, 60),
        "intermediate_size_mlp": r.randint(5, 70),
        "num_local_experts": experts,
        "num_experts_per_tok": r.randint(1, experts),
        "interleave_moe_layer_step": r.randint(1, 3),
        "no_rope_layer_interval": r.randint(1, 4),
        # Not 1: transformers' cache then keeps everything, and generation differs from a forward
        # pass.
        "attention_chunk_size": r.choice([2, 7, longest // 2, longest, longest * 3]),
        "use_qk_norm": r.random() < 0.5,
        "attn_temperature_tuning": r.random() < 0.5,
        "floor_scale": r.choice([1, 4, 9, 8192]),
        "attn_scale": r.choice([0.1, 0.5, 1.0]),
    }
    some = {
        "moe_layers": [layer for layer in range(layers) if r.random() < 0.5],
        "no_rope_layers": [r.randint(0, 1) for _ in range(layers)],
        "layer_types": [r.choice(["chunked_attention", "full_attention"]) for _ in range(layers)],
    }
    return shape | {key: value for key, value in some.items() if r.random() < 0.5}


def deepseek_v3(r, longest):
    shape = common(r, longest)
    del shape["head_dim"]
    groups, group = r.randint(1, 4), r.randint(2, 4)
    kept = r.randint(1, groups)
    return shape | {
        "hidden_size": r.randint(9, 60),
        "num_key_value_heads": shape["num_attention_heads"],
        "q_lora_rank": r.choice([None, 5, 12]),
        "kv_lora_rank": r.choice([3, 8, 13]),
        "qk_nope_head_dim": r.choice([1, 5, 8]),
        "qk_rope_head_dim": r.choice([4, 6, 10]),
        "v_head_dim": r.choice([1, 7, 16]),
        "rope_interleave": r.random() < 0.5,
        "first_k_dense_replace": r.randint(0, shape["num_hidden_layers"]),
        "moe_intermediate_size": r.randint(1, 30),
        "n_routed_experts": groups * group,
        "n_group": groups,
        "topk_group": kept,
        "num_experts_per_tok": r.randint(1, kept * group),
        "n_shared_experts": r.randint(1, 3),
        "norm_topk_prob": r.random() < 0.5,
        "routed_scaling_factor": r.choice([1.0, 2.5]),
    }


def qwen3_moe(r, longest):
    shape = common(r, longest)
    layers, experts = shape["num_hidden_layers"], r.randint(1, 9)
    return shape | {
        "hidden_size": shape["num_attention_heads"] * r.choice([3, 5, 8]),
        "num_experts": experts,
        "num_experts_per_tok": r.randint(1, experts),
        "moe_intermediate_size": r.randint(1, 30),
        "norm_topk_prob": r.random() < 0.5,
        "decoder_sparse_step": r.randint(1, 3),
        "mlp_only_layers": [layer for layer in range(layers) if r.random() < 0.3],
        "use_sliding_window": r.random() < 0.5,
        "sliding_window": r.choice([2, 3, 10, longest // 2, longest * 2]),
    }


def mixtral(r, longest):
    experts = r.randint(1, 9)
    return common(r, longest) | {
        "num_local_experts": experts,
        "num_experts_per_tok": r.randint(1, experts),
        "sliding_window": r.choice([None, 2, 3, 10, longest // 2, longest * 2]),
    }


def gpt_oss(r, longest):
    shape = common(r, longest)
    layers, experts = shape["num_hidden_layers"], r.randint(1, 9)
    shape |= {
        "hidden_size": r.randint(9, 60),
        "num_local_experts": experts,
        "num_experts_per_tok": r.randint(1, experts),
        "sliding_window": r.choice([2, 3, 10, longest // 2, longest * 2]),
        "swiglu_limit": r.choice([7.0, 0.2, 1.0]),
    }
    some = {"layer_types": [r.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]}
    return shape | {key: value for key, value in some.items() if r.random() < 0.5}


def smollm3(r, longest):
    shape = halved(r, {**common(r, longest), "mlp_bias": r.random() < 0.5})
    layers = shape["num_hidden_layers"]
    some = {
        "no_rope_layers": [r.randint(0, 1) for _ in range(layers + r.randint(0, 1))],
        "no_rope_layer_interval": r.randint(1, 4),
        "layer_types": layer_types(r, layers),
    }
    window = {"use_sliding_window": True, "sliding_window": r.choice([2, 3, 10, longest // 2, longest * 2])}
    shape |= {key: value for key, value in some.items() if r.random() < 0.5}
    return shape | r.choice([{}, window]) if "layer_types" not in shape else shape | window


def layer_types(r, layers):
    return [r.choice(["sliding_attention", "full_attention"]) for _ in range(layers)]


def granite(r, longest):
    return halved(
        r,
        {
            **common(r, longest),
            "mlp_bias": r.random() < 0.5,
            "embedding_multiplier": r.choice([1.0, 3, 12.0]),
            "logits_scaling": r.choice([1.0, 0.5, 3.0]),
            "residual_multiplier": r.choice([1.0, 0.22, 0.7]),
            "attention_multiplier": r.choice([1.0, 0.1, 0.5]),
        },
    )


def ernie4_5(r, longest):
    shape = {**common(r, longest), "use_bias": r.random() < 0.5}
    del shape["attention_bias"]
    return shape


def olmo3(r, longest):
    # No dynamic scaling: what was longest before is kept for each kind of layer.
    shape = common(r, longest)
    while shape["rope_parameters"]["rope_type"] == "dynamic":
        shape = common(r, longest)
    sliding = {"rope_type": "default", "rope_theta": r.choice([100.0, 10000.0])}
    shape["rope_parameters"] = {"full_attention": shape["rope_parameters"], "sliding_attention": sliding}
    shape["sliding_window"] = r.choice([2, 3, 10, longest // 2, longest * 2])
    return halved(r, shape | r.choice([{}, {"layer_types": layer_types(r, shape["num_hidden_layers"])}]))


def phi3(r, longest):
    shape = common(r, longest)
    del shape["head_dim"], shape["attention_bias"]
    shape["hidden_size"] = shape["num_attention_heads"] * r.choice([4, 8, 12, 16])
    width = shape["hidden_size"] // shape["num_attention_heads"]
    shape["max_position_embeddings"] = max(shape["max_position_embeddings"], longest)
    rope = {"rope_type": "default", "rope_theta": r.choice([100.0, 10000.0]), "partial_rotary_factor": r.choice([1.0, 0.5])}
    pairs = int(width * rope["partial_rotary_factor"]) // 2
    if r.random() < 0.6:
        factors = lambda: [r.choice([1, 1.25, 2.5, 7.0]) for _ in range(pairs)]
        rope |= {"rope_type": "longrope", "short_factor": factors(), "long_factor": factors()}
        rope |= {key: value for key, value in {"factor": 4.0, "attention_factor": 0.8}.items() if r.random() < 0.3}
        shape["original_max_position_embeddings"] = r.choice([2, longest // 3 + 1, longest - NEW // 2, longest])
    shape["rope_parameters"] = rope
    return shape | {"sliding_window": r.choice([None, None, 2, 10, longest // 2, longest * 2])}


def gpt2(r, longest):
    heads = r.choice([1, 2, 3, 4, 6])
    return {
        "vocab_size": r.randint(17, 150),
        "n_embd": heads * r.choice([2, 5, 6, 8, 11]),
        "n_inner": r.choice([None, r.randint(5, 70)]),
        "n_layer": r.randint(1, 4),
        "n_head": heads,
        "n_positions": r.choice([longest, longest + 37]),
        "layer_norm_epsilon": r.choice([1e-6, 1e-5, 1e-3]),
        "activation_function": r.choice(["gelu_new", "gelu_pytorch_tanh"]),
        "scale_attn_weights": r.random() < 0.7,
        "tie_word_embeddings": r.random() < 0.5,
        "bos_token_id": None,
        "eos_token_id": None,
        "pad_token_id": None,
    }


FAMILIES = {
    "Llama": llama,
    "Olmo2": olmo2,
    "Olmo3": olmo3,
    "Qwen2": qwen2,
    "Qwen3": qwen3,
    "Mistral": mistral,
    "Gemma2": gemma2,
    "Gemma3": gemma3,
    "SmolLM3": smollm3,
    "Granite": granite,
    "Ernie4_5": ernie4_5,
    "Phi3": phi3,
    "GPT2": gpt2,
    "Llama4": llama4,
    "DeepseekV3": deepseek_v3,
    "Qwen3Moe": qwen3_moe,
    "Mixtral": mixtral,
    "GptOss": gpt_oss,
}


def randomise(model):
    """Weights with which logits are of order 1 and no part of the model is without effect."""
    with torch.no_grad():
        for name, p in model.named_parameters():
            if name.endswith(("norm.weight", "ln_1.weight", "ln_2.weight", "ln_f.weight")):
                # Gemma's are factors 1 + weight.
                p.uniform_(0.5, 1.5).sub_(float(type(model).__name__.startswith("Gemma")))
            elif p.dim() == 1:
                p.normal_(0, 0.3)
            else:
                # Experts of Llama 4 and gpt-oss are transposed, and GPT-2's matrices.
                experts = ".experts." in name and model.config.model_type in ("llama4_text", "gpt_oss")
                transposed = experts or ".c_" in name
                fan_in = p.shape[-2] if transposed else p.shape[-1]
                p.normal_(0, 1.5 * fan_in**-0.5)
        for name, b in model.named_buffers():
            if name.endswith("e_score_correction_bias"):
                b.uniform_(-0.2, 0.2)


def rewrite(r, path, config):
    """Says the same in another way: rotary embeddings where transformers 4 had them, defaults left
    out."""
    written = json.loads(path.read_text())
    if "rope_parameters" in written and r.random() < 0.5:
        parameters = written.pop("rope_parameters")
        if "full_attention" in parameters:
            # OLMo-3 reads only the newer name of the type, and has the default in other layers.
            if "rope_theta" in parameters.get("sliding_attention", {}) and written["model_type"].startswith("gemma3"):
                written["rope_local_base_freq"] = parameters["sliding_attention"]["rope_theta"]
            parameters = parameters["full_attention"]
        elif r.random() < 0.5:
            parameters["type"] = parameters.pop("rope_type")
        written["rope_theta"] = parameters.pop("rope_theta")
        if (part := parameters.pop("partial_rotary_factor", None)) is not None:
            written["partial_rotary_factor"] = part
        written["rope_scaling"] = None if "default" in parameters.values() else parameters
    needed = ("architectures", "model_type", "rope_parameters", "rope_scaling", "rope_theta", "rope_local_base_freq")
    defaults = type(config)().to_dict()
    for key in list(written):
        if key not in needed and key in defaults and written[key] == defaults[key] and r.random() < 0.5:
            del written[key]
    path.write_text(json.dumps(written, indent=2) + "\n")


def crisol(binary, *arguments):
    done = subprocess.run([binary, *map(str, arguments), "--json", "--threads", "1"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip()
    return json.loads(done.stdout)


def logprobs_of(logits, ids):
    """Those of the ids after the first."""
    return [logits.log_softmax(-1)[i, token].item() for i, token in enumerate(ids[1:])]


def distance(a, b):
    return max((abs(a - b) for a, b in zip(a, b, strict=True)), default=0.0)


def check(binary, family, seed, folder):
    """Nothing, or what is wrong."""
    r = random.Random(f"{family} {seed}")
    torch.manual_seed(seed)
    length = r.randint(2, 60)
    shape = FAMILIES[family](r, length + NEW)
    name = family + ("TextConfig" if family in ("Llama4", "Gemma3") else "Config")
    config = getattr(transformers, name)(**shape)
    task = "LMHeadModel" if family == "GPT2" else "ForCausalLM"
    model = getattr(transformers, family + task)(config)
    randomise(model)
    dtype = r.choice([torch.float32, torch.bfloat16, torch.float16])
    model.to(dtype).save_pretrained(folder, max_shard_size=r.choice(["1GB", "20KB"]))
    (folder / "generation_config.json").unlink(missing_ok=True)
    rewrite(r, folder / "config.json", config)

    ids = [r.randrange(config.vocab_size) for _ in range(length)]
    # One for each computation: frequencies of dynamic scaling are kept between them. ("eager": the
    # other way wants multiples of 16 bytes.)
    scoring, generating = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, experts_implementation="eager").eval() for _ in range(2)
    )
    generating.generation_config.eos_token_id = generating.generation_config.pad_token_id = None
    with torch.no_grad():
        logits = scoring(torch.tensor([ids])).logits[0]
        new = generating.generate(torch.tensor([ids]), max_new_tokens=NEW, do_sample=False)[0, length:].tolist()
    expected = logprobs_of(logits, ids)

    listed = ",".join(map(str, ids))
    logprobs = crisol(binary, "score", folder, "--ids", listed)["logprobs"][1:]
    difference = distance(logprobs, expected)
    tolerance = TOLERANCE * logits.abs().max().item()
    if not difference <= tolerance:
        exact = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64, experts_implementation="eager").eval()
        with torch.no_grad():
            exact = logprobs_of(exact(torch.tensor([ids])).logits[0], ids)
        rounding = distance(expected, exact)
        if rounding > tolerance / 10 and distance(logprobs, exact) <= 10 * rounding:
            print(f"{family} {seed}: magnifies rounding: transformers is {rounding:.1e} from f64, Crisol {distance(logprobs, exact):.1e}")
            return None
        return f"log-probabilities differ by {difference}, the largest logit being {logits.abs().max().item()}"
    generated = crisol(binary, "generate", folder, "--ids", listed, "--max-new-tokens", NEW)["ids"]
    return None if generated == new else f"generated {generated}, transformers {new}"


def main(binary, count=40, seed=0, *families):
    failures = 0
    for family in families or FAMILIES:
        kinds = set()
        for index in range(int(seed), int(seed) + int(count)):
            with tempfile.TemporaryDirectory() as folder:
                try:
                    problem = check(binary, family, index, Path(folder))
                except AssertionError as error:
                    problem = str(error)
                if problem is None:
                    continue
                failures += 1
                kind = problem.replace(folder, "")[:40]
                print(f"{family} {index}: {problem}")
                if kind not in kinds:
                    kinds.add(kind)
                    print((Path(folder) / "config.json").read_text())
        print(f"{family}: {count} configurations, {failures} failures so far", flush=True)
    sys.exit(failures > 0)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(1)
    main(*sys.argv[1:])

"""Writes the adapters that crates/crisol-model/tests/golden_adapters.rs compares Crisol with.

    pip install -r requirements.txt && python adapters.py [ADAPTER ...]

Each folder of adapters/ is a random adapter over one of the models of generate.py, as PEFT saves
it, with what PEFT computes: golden.json (documents, losses, gradient norms, optimizer) and
golden.safetensors (logits, gradients of what is trained). PEFT cannot adapt the experts of
mixtures, which transformers holds in one tensor for all: they are left out there. The files are
committed; run this again only to change what is tested.
"""

import json
import shutil
import sys

import peft
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM

import generate

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
FEED_FORWARD = ["gate_proj", "up_proj", "down_proj"]
LATENT = ["q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj", "o_proj"]

# The base, and what differs from rank 4 and alpha 8 on all linear layers.
ADAPTERS = {
    "llama": ("llama", {}),
    "olmo2": ("olmo2", {}),
    "qwen3": ("qwen3", {}),
    "ernie4-5": ("ernie4-5", {}),
    # Fused projections, and matrices that files hold transposed.
    "phi3": ("phi3", {}),
    "gpt2": ("gpt2", {"fan_in_fan_out": True}),
    "gpt2-dora": ("gpt2-hub", {"target_modules": ["c_attn"], "use_dora": True, "fan_in_fan_out": True}),
    "gemma3": ("gemma3", {}),
    # Without the router, which PEFT takes for a linear layer like others.
    "llama4": ("llama4", {"target_modules": ATTENTION + FEED_FORWARD}),
    # PEFT takes names of feed-forward layers for those of the experts, and leaves the others out.
    "deepseek-v3": ("deepseek-v3", {"target_modules": LATENT}),
    # Of the mixtures: sinks, windows, and biases beside adapters.
    "gpt-oss": ("gpt-oss", {"target_modules": ATTENTION}),
    "rslora": ("qwen3", {"use_rslora": True}),
    "patterns": (
        "llama",
        {
            "target_modules": ["q_proj", "v_proj", "mlp.down_proj"],
            # The first that fits counts. PEFT sorts them in the file.
            "rank_pattern": {"down_proj": 6, "layers.1.self_attn.q_proj": 2, "q_proj": 3},
            "alpha_pattern": {"layers.0.self_attn.v_proj": 1, "v_proj": 16},
        },
    ),
    "dora": ("llama", {"use_dora": True}),
    "dora-patterns": (
        "deepseek-v3",
        {"target_modules": LATENT, "use_dora": True, "use_rslora": True, "rank_pattern": {"kv_b_proj": 2}},
    ),
    # The head and all norms, trained whole.
    "whole": ("llama", {"target_modules": ["o_proj"], "modules_to_save": ["lm_head", "norm"]}),
}


def name(parameter):
    """As in the file, without what is before every name."""
    parameter = parameter.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    for part in (".default", ".modules_to_save"):
        parameter = parameter.replace(part, "")
    return parameter.removeprefix("base_model.model.")


def write(adapter):
    base, changes = ADAPTERS[adapter]
    torch.manual_seed(len(adapter))
    folder = generate.HERE / "adapters" / adapter
    shutil.rmtree(folder, ignore_errors=True)
    model = AutoModelForCausalLM.from_pretrained(generate.HERE / base, dtype=torch.float32)
    config = LoraConfig(**{"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM", **changes})
    model = get_peft_model(model, config).train()
    trained = {name(n): p for n, p in model.named_parameters() if p.requires_grad}
    with torch.no_grad():
        for n, p in trained.items():
            if ".lora_B." in n:
                p.normal_(0, 0.1)
            elif ".lora_A." not in n:
                p.mul_(torch.empty_like(p).uniform_(0.7, 1.3))
    model.peft_config["default"].base_model_name_or_path = f"../{base}"
    model.save_pretrained(folder, save_embedding_layers=False)
    (folder / "README.md").unlink()

    documents = json.loads((generate.HERE / base / "golden.json").read_text())["documents"]
    logits, loss = generate.forward(model, documents)
    loss.backward()
    tensors = {f"gradient.{n}": p.grad.clone() for n, p in trained.items()}
    tensors["logits"] = torch.cat(logits).detach()
    save_file(tensors, folder / "golden.safetensors")
    first = torch.nn.utils.get_total_norm([p.grad for p in trained.values()]).item()
    generate.OPTIMIZER |= {"lr": 0.01, "max_grad_norm": round(0.9 * first, 2)}
    losses, norms = generate.train(model, documents)
    golden = {"peft": peft.__version__, "torch": torch.__version__, "documents": documents}
    golden |= {"loss": loss.item(), "optimizer": generate.OPTIMIZER, "losses": losses, "gradient_norms": norms}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(adapter, len(trained), {k: v for k, v in golden.items() if k in ("loss", "losses", "gradient_norms")})


if __name__ == "__main__":
    torch.set_num_threads(1)
    for adapter in sys.argv[1:] or ADAPTERS:
        write(adapter)

"""Checks that transformers loads a checkpoint of Crisol and computes the same log-probabilities. An
adapter's folder is loaded by PEFT, over the base that it names.

    crisol score MODEL --ids 1,2,3 --json > SCORES.json
    python check_saved.py MODEL SCORES.json

SCORES.json holds {"ids": [...], "logprobs": [null, ...]}. If it also holds "text", the tokenizers
are compared too. A folder without tokenizer is checked without. Weights in f16 or bf16 are widened,
as Crisol does, before anything is computed. Needs the packages of requirements.txt.
"""

import json
import os
import sys

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

TOLERANCE = 1e-4


def with_adapter(model, folder):
    """Every tensor of the file must have a place in the model, and every place its tensor."""
    from peft import PeftConfig, get_peft_model, load_peft_weights, set_peft_model_state_dict

    config = PeftConfig.from_pretrained(folder)
    model = get_peft_model(model, config).eval()
    loading = set_peft_model_state_dict(model, load_peft_weights(folder))
    missing = [name for name in loading.missing_keys if "lora_" in name or "modules_to_save" in name]
    assert not missing and not loading.unexpected_keys, f"missing: {missing}, unexpected: {loading.unexpected_keys}"
    return model


def main(folder, scores_file):
    with open(scores_file) as file:
        scores = json.load(file)
    ids = scores["ids"]

    adapter = os.path.join(folder, "adapter_config.json")
    base = folder
    if os.path.exists(adapter):
        with open(adapter) as file:
            base = json.load(file)["base_model_name_or_path"]
    model, loading = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not loading[kind], f"{kind}: {loading[kind]}"
    stored = AutoModelForCausalLM.from_pretrained(base, dtype="auto").dtype
    if base != folder:
        model = with_adapter(model, folder)
    with torch.no_grad():
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [logprobs[i, token].item() for i, token in enumerate(ids[1:])]
    assert scores["logprobs"][0] is None, "the first token has no log-probability"
    assert len(scores["logprobs"]) == len(ids), "one entry per token"
    difference = max(abs(a - b) for a, b in zip(scores["logprobs"][1:], expected))
    assert difference < TOLERANCE, f"log-probabilities differ by {difference}"

    print(f"ok: {folder}: {stored}, {len(ids)} tokens, largest difference of log-probabilities {difference:.1e}")
    if not os.path.exists(os.path.join(folder, "tokenizer.json")):
        return
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert len(tokenizer) <= model.config.vocab_size, "the tokenizer has more tokens than the model"
    assert tokenizer.eos_token_id is not None, "no end-of-text token"
    if "text" in scores:
        encoded = tokenizer(scores["text"], add_special_tokens=False)["input_ids"]
        assert encoded == ids, f"transformers encodes {encoded}, Crisol {ids}"
    if tokenizer.chat_template is not None:
        chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True)
        assert "Hi" in chat, "the chat template loses the message"


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])

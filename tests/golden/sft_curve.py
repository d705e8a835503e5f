"""Compares the loss curve of `crisol sft` on a real model with PyTorch's on the same batches.

    cargo build --release
    python sft_curve.py [--lora] ../../target/release/crisol MODEL.gguf INSTRUCTIONS.json [STEPS]

MODEL.gguf is a Llama with a chat template (SmolLM2-135M-Instruct), INSTRUCTIONS.json a list of
{"instruction", "input", "output"}. Crisol fine-tunes on the first records, four to a batch;
transformers loads the same file, renders and masks the same conversations, and torch.optim.AdamW
makes as many steps. Both curves are printed; the exit code is 1 if they are 2 % apart anywhere.

With --lora, PEFT draws an adapter of rank 16 on all linear layers. Crisol trains it over the file's
quantised weights, PEFT over what they stand for; ten records to a batch, and 1 % is the limit.
Needs the packages of requirements.txt.

Crisol shuffles records by its own random numbers, which depend on their count only. So the order is
found by a run on a tiny model, with rates near zero and a record to a step: its losses tell the
records.
"""

import json
import math
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

# Records of a batch, learning rate, largest relative difference of losses.
FULL = (4, 1e-4, 0.02)
LORA = (10, 5e-4, 0.01)
OPTIMIZER = {"beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1, "max_grad_norm": 1.0, "warmup": 0.2}


def conversation(record):
    asked = "\n\n".join(part for part in (record["instruction"], record["input"]) if part)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": record["output"]}]


def encode(tokenizer, messages):
    """Ids up to the last that is trained, and which are: the answer and the token that ends its turn.
    The line end behind it is no part of Crisol's document."""
    render = lambda messages, **more: tokenizer.apply_chat_template(messages, tokenize=False, **more)
    encoded = lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]
    prompt, whole = render(messages[:1], add_generation_prompt=True), render(messages)
    assert whole.startswith(prompt) and whole.endswith("\n")
    first, last = len(encoded(prompt)), len(encoded(whole.removesuffix("\n")))
    return encoded(whole)[:last], range(first, last)


def own_tokenizer(binary, gguf):
    """The file's tokenizer as Crisol exports it. transformers 5.23 reads SmolLM2's from GGUF without
    its splitting of digits, which joins the line ends before them."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model"
        subprocess.run([binary, "export", gguf, "--to", "hf", "--out", out], check=True, stdout=subprocess.DEVNULL)
        return AutoTokenizer.from_pretrained(out)


def negative_logprobs(model, example):
    ids, trained = example
    logits = model(torch.tensor([ids])).logits[0, trained.start - 1 : trained.stop - 1]
    return torch.nn.functional.cross_entropy(logits, torch.tensor(ids)[trained.start : trained.stop], reduction="sum")


def crisol(binary, model, data, out, batch_tokens, optimizer):
    """What Crisol logs of every step."""
    settings = {"epochs": 1, "batch_tokens": batch_tokens} | {f"optimizer.{key}": value for key, value in optimizer.items()}
    settings |= {"optimizer.schedule": '"cosine"'}
    flags = [flag for key, value in settings.items() for flag in ("--set", f"{key}={value}")]
    subprocess.run([binary, "sft", model, "--data", data, "--out", out, *flags], check=True, stdout=subprocess.DEVNULL)
    (metrics,) = Path(out).glob("**/metrics.jsonl")
    return [json.loads(line) for line in metrics.read_text().splitlines()]


def order(binary, tokenizer, examples, data, folder):
    """The order in which Crisol trains the records."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
    )
    torch.manual_seed(0)
    tiny = LlamaForCausalLM(config)
    with torch.no_grad():
        for p in tiny.parameters():
            p.normal_(0, 1)
        losses = [(negative_logprobs(tiny, e) / len(e[1])).item() for e in examples]
    tiny.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    steps = crisol(binary, folder / "tiny", data, folder / "order", 1, {"lr": 1e-12})
    found = [min(range(len(losses)), key=lambda i: abs(losses[i] - step["loss"])) for step in steps]
    assert sorted(found) == list(range(len(examples))), "losses do not tell the records"
    return found


def with_new_adapter(model, gguf, folder):
    """The model with a new adapter, which is saved in this folder too."""
    from peft import LoraConfig, get_peft_model

    # What PEFT writes down as the base.
    model.name_or_path = str(gguf.absolute())
    config = LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules="all-linear")
    torch.manual_seed(0)
    adapted = get_peft_model(model, config)
    adapted.save_pretrained(folder)
    return adapted


def pack(examples, order, budget):
    """Batches of records in this order, none of more than `budget` tokens."""
    batches, room = [], 0
    for i in order:
        length = len(examples[i][0])
        if length > room:
            batches.append([])
            room = budget
        batches[-1].append(i)
        room -= length
    return batches


def pytorch(model, examples, batches, rates):
    """The loss before each step of AdamW."""
    o = OPTIMIZER
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": o["weight_decay"]},
        {"params": [p for p in trained if p.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(o["beta1"], o["beta2"]), eps=o["eps"])
    for batch, rate in zip(batches, rates, strict=True):
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.zero_grad()
        targets = sum(len(examples[i][1]) for i in batch)
        loss = 0.0
        for i in batch:
            part = negative_logprobs(model, examples[i]) / targets
            part.backward()
            loss += part.item()
        norm = torch.nn.utils.clip_grad_norm_(trained, o["max_grad_norm"]).item()
        optimizer.step()
        yield loss, norm


def main(lora, binary, gguf, instructions, steps=20):
    count, rate, tolerance = LORA if lora else FULL
    gguf = Path(gguf)
    tokenizer = own_tokenizer(binary, gguf)
    records = json.loads(Path(instructions).read_text())[: count * int(steps)]
    examples = [encode(tokenizer, conversation(record)) for record in records]
    budget = math.ceil((count + 0.5) * sum(len(ids) for ids, _ in examples) / len(examples))
    model = AutoModelForCausalLM.from_pretrained(gguf.parent, gguf_file=gguf.name, dtype=torch.float32).train()
    # PyTorch would give the embedding of the token for padding, which also ends every turn here, no
    # gradient.
    model.get_input_embeddings().padding_idx = None
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        data = folder / "chats.jsonl"
        data.write_text("".join(json.dumps({"messages": conversation(record)}) + "\n" for record in records))
        batches = pack(examples, order(binary, tokenizer, examples, data, folder), budget)
        start = gguf
        if lora:
            start = folder / "adapter"
            model = with_new_adapter(model, gguf, start)
        logged = crisol(binary, start, data, folder / "tuned", budget, OPTIMIZER | {"lr": rate})
    furthest = 0.0
    print(f"at most {budget} tokens a step")
    print("step  records  Crisol    PyTorch   difference  gradient norms")
    for step, (expected, norm) in enumerate(pytorch(model, examples, batches, [line["lr"] for line in logged])):
        loss = logged[step]["loss"]
        difference = abs(loss / expected - 1)
        furthest = max(furthest, difference)
        norms = f"{logged[step]['grad_norm']:.4f} {norm:.4f}"
        print(f"{step + 1:4}  {len(batches[step]):7}  {loss:.6f}  {expected:.6f}  {difference:10.1e}  {norms}", flush=True)
    print(f"largest relative difference {furthest:.1e}")
    sys.exit(furthest > tolerance)


if __name__ == "__main__":
    lora = "--lora" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--lora"]
    if len(arguments) not in (3, 4):
        sys.exit(__doc__)
    transformers.logging.set_verbosity_error()
    main(lora, *arguments)

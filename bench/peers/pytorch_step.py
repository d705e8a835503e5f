"""The training step of `crisol bench train` in PyTorch: the same shapes, the same model, the same
optimizer.

    python pytorch_step.py --shape XS --threads 2 [--dtype bf16] [--compile] [--seconds 10]

Prints one JSON object: tokens_per_second (median of the steps) and peak_memory_bytes. Needs the
package of requirements.txt.

A Llama with a causal mask and documents of equal length, one row of the batch each; attention by
scaled_dot_product_attention, cross-entropy over the flattened logits, clip_grad_norm_, AdamW
(fused). With --dtype bf16 the forward pass is in torch.autocast; weights and moments stay f32.
"""

import argparse
import json
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

SHAPES = {
    "XS": dict(d=128, L=4, H=4, ff=352, V=2048, T=128, B=32, tied=True),
    "S": dict(d=256, L=6, H=8, ff=704, V=4096, T=256, B=16, tied=True),
    "M": dict(d=768, L=12, H=12, ff=2048, V=32000, T=512, B=2, tied=False),
}
WARM_UP = 2
LEAST_STEPS = 3


def shape(text):
    """XS, S, M, or changes to one of them, as in `crisol bench`; a list without a name changes
    XS."""
    parts = text.split(",")
    named = "=" not in parts[0]
    result = dict(SHAPES[parts[0]] if named else SHAPES["XS"])
    changes = dict(part.split("=") for part in parts[named:])
    result["tied"] = {"tied": True, "untied": False}.get(changes.pop("head", ""), result["tied"])
    result.update({key: int(value) for key, value in changes.items()})
    result.setdefault("kv", result["H"])
    return result


class Norm(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(d))

    def forward(self, x):
        return F.rms_norm(x, self.weight.shape, self.weight, 1e-5)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), dim=-1)


class Block(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.heads, self.kv, self.head_dim = s["H"], s["kv"], s["d"] // s["H"]
        self.norm1, self.norm2 = Norm(s["d"]), Norm(s["d"])
        linear = lambda i, o: nn.Linear(i, o, bias=False)
        self.q, self.o = linear(s["d"], s["d"]), linear(s["d"], s["d"])
        self.k, self.v = (linear(s["d"], self.kv * self.head_dim) for _ in range(2))
        self.gate, self.up, self.down = linear(s["d"], s["ff"]), linear(s["d"], s["ff"]), linear(s["ff"], s["d"])

    def forward(self, x, cos, sin):
        b, t, d = x.shape
        h = self.norm1(x)
        heads = lambda y, n: y.view(b, t, n, self.head_dim).transpose(1, 2)
        q = rotate(heads(self.q(h), self.heads), cos, sin)
        k, v = rotate(heads(self.k(h), self.kv), cos, sin), heads(self.v(h), self.kv)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=self.kv < self.heads)
        x = x + self.o(y.transpose(1, 2).reshape(b, t, d))
        h = self.norm2(x)
        return x + self.down(F.silu(self.gate(h)) * self.up(h))


class Llama(nn.Module):
    def __init__(self, s):
        super().__init__()
        self.embedding = nn.Embedding(s["V"], s["d"])
        self.blocks = nn.ModuleList(Block(s) for _ in range(s["L"]))
        self.norm = Norm(s["d"])
        self.head = nn.Linear(s["d"], s["V"], bias=False)
        for parameter in self.parameters():
            if parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
        if s["tied"]:
            self.head.weight = self.embedding.weight
        half = s["d"] // s["H"] // 2
        angles = torch.outer(torch.arange(s["T"]), 10_000.0 ** (-torch.arange(half) / half))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, ids, targets):
        x = self.embedding(ids)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        logits = self.head(self.norm(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--shape", default="XS")
    arguments.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments.add_argument("--seconds", type=float, default=10.0)
    arguments.add_argument("--dtype", choices=["f32", "bf16"], default="f32")
    arguments.add_argument("--compile", action="store_true")
    options = arguments.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    s = shape(options.shape)
    model = Llama(s)
    step_model = torch.compile(model) if options.compile else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(s["V"], (s["B"], s["T"]))
    targets = torch.cat((ids[:, 1:], torch.full((s["B"], 1), -100)), dim=1)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=options.dtype == "bf16"):
            loss = step_model(ids, targets)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    for _ in range(WARM_UP):
        step()
    times = []
    while len(times) < LEAST_STEPS or sum(times) < options.seconds:
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(json.dumps({
        "torch": torch.__version__,
        "threads": options.threads,
        "shape": s,
        "dtype": options.dtype,
        "compile": options.compile,
        "steps": len(times),
        "tokens_per_second": s["B"] * s["T"] / statistics.median(times),
        # Kibibytes on Linux.
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }))


if __name__ == "__main__":
    main()

"""Writes the files that crates/crisol-hub/tests/pickle.rs reads: tiny checkpoints as torch.save
writes them, with the same values as safetensors beside them, and pickles that would run code.

    pip install -r requirements.txt && python torch_files.py

The files are committed; run this again only to change what is tested.
"""

import collections
import json
import os
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

FOLDER = Path(__file__).parents[2] / "crates" / "crisol-hub" / "tests" / "torch"


def numbers(*shape, dtype=torch.float32):
    """Small numbers, different ones each time, that f16 and bf16 round differently."""
    return (torch.randn(shape, generator=GENERATOR) * 3).to(dtype)


def expected(tensors, path):
    """The floats of `tensors` as PyTorch widens them."""
    save_file(
        {
            name: tensor.detach().to(torch.float32).contiguous().clone()
            for name, tensor in tensors.items()
            if tensor.is_floating_point()
        },
        path,
    )


class Model(torch.nn.Module):
    """Buffers, an integer among them, and two names for one weight."""

    def __init__(self):
        super().__init__()
        self.embed = torch.nn.Embedding(5, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 5, bias=False)
        self.head.weight = self.embed.weight


def views():
    """Every type, and every way to lie in a storage."""
    base = numbers(4, 6)
    cube = numbers(2, 3, 4)
    return collections.OrderedDict(
        f32=numbers(2, 3),
        f16=numbers(2, 3, dtype=torch.float16),
        bf16=numbers(2, 3, dtype=torch.bfloat16),
        f64=numbers(2, 3, dtype=torch.float64),
        e4m3=numbers(2, 3).to(torch.float8_e4m3fn),
        e5m2=numbers(2, 3).to(torch.float8_e5m2),
        i64=torch.arange(3),
        u32=torch.arange(3).to(torch.uint32),
        flags=torch.tensor([True, False]),
        c64=torch.tensor([1 + 2j]),
        scalar=torch.tensor(-0.75),
        empty=torch.zeros(0, 3),
        parameter=torch.nn.Parameter(numbers(3)),
        whole=base,
        transposed=base.t(),
        transposed_half=numbers(3, 2, dtype=torch.bfloat16).t(),
        rows=base[1:3],
        columns=base[:, 1:6:2],
        permuted=cube.permute(2, 0, 1),
        one_row=base[2:3].expand(1, 6),
        tied=base,
    )


class Evil:
    def __reduce__(self):
        return os.system, ("true",)


def fp8():
    """All values of both types, and weights with a scale for each block of 128 × 128."""
    every = torch.arange(256).to(torch.uint8)
    tensors = {
        "e4m3": every.view(torch.float8_e4m3fn),
        "e5m2": every.clone().view(torch.float8_e5m2),
        "tall.weight": numbers(130, 3).to(torch.float8_e4m3fn),
        "tall.weight_scale_inv": numbers(2, 1),
        "wide.weight": numbers(3, 257).to(torch.float8_e4m3fn),
        "wide.weight_scale_inv": numbers(1, 3),
        "plain.weight": numbers(2, 2).to(torch.float8_e4m3fn),
    }
    save_file(tensors, FOLDER / "fp8.safetensors")
    values = {name: tensor.float() for name, tensor in tensors.items() if not name.endswith("_scale_inv")}
    for name in ("tall.weight", "wide.weight"):
        scales = tensors[name + "_scale_inv"].repeat_interleave(128, 0).repeat_interleave(128, 1)
        rows, columns = values[name].shape
        values[name] = values[name] * scales[:rows, :columns]
    expected(values, FOLDER / "fp8.expected.safetensors")


def main():
    global GENERATOR
    GENERATOR = torch.Generator().manual_seed(1)
    torch.manual_seed(1)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)

    (FOLDER / "plain").mkdir()
    model = Model().state_dict()
    torch.save(model, FOLDER / "plain" / "pytorch_model.bin")
    expected(model, FOLDER / "plain.expected.safetensors")

    tensors = views()
    for protocol in (2, 3, 4, 5):
        torch.save(tensors, FOLDER / f"views-{protocol}.bin", pickle_protocol=protocol)
    expected(tensors, FOLDER / "views.expected.safetensors")

    sharded = FOLDER / "sharded"
    sharded.mkdir()
    weight_map = {}
    for number, names in enumerate((("f32", "bf16"), ("transposed", "scalar")), 1):
        name = f"pytorch_model-{number:05}-of-00002.bin"
        torch.save({key: tensors[key].clone() for key in names}, sharded / name)
        weight_map |= dict.fromkeys(names, name)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2) + "\n")

    torch.save({"a": numbers(2)}, FOLDER / "legacy.bin", _use_new_zipfile_serialization=False)
    torch.save({"epoch": 3, "model": {"a": numbers(2)}}, FOLDER / "training.bin")
    torch.save({"a": numbers(1).expand(1000)}, FOLDER / "expanded.bin")
    # A view whose values are negated when they are used.
    torch.save({"a": torch.view_as_complex(numbers(2, 2)).conj().imag}, FOLDER / "negated.bin")
    for protocol in (2, 4):
        torch.save({"a": numbers(2), "b": Evil()}, FOLDER / f"hostile-{protocol}.bin", pickle_protocol=protocol)
    # A whole model instead of its state dict, which is a common mistake.
    torch.save(torch.nn.Linear(2, 2), FOLDER / "module.bin")
    fp8()


if __name__ == "__main__":
    main()

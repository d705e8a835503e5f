"""Writes the golden files that crates/crisol-hub/tests/gguf.rs compares Crisol with.

    pip install -r requirements.txt && python gguf_files.py

gguf/blocks.gguf has metadata of every type, one tensor of each type that Crisol reads and one that
it does not. gguf/values.safetensors has, under the same names, the f32 values that the gguf package
(by the authors of ggml) gives for their blocks, and what F16, BF16 and Q8_0 were made from
(`source`). The files are committed; run this again only to change what is tested.
"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Kind
from gguf import GGUFWriter
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize
from safetensors.numpy import save_file

OUT = Path(__file__).parent / "gguf"
QUANTISED = [Type.F32, Type.F16, Type.BF16, Type.Q8_0, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1]
# The package reads these but cannot make them, so they are random bytes, with scales at the given
# places that are ordinary numbers.
RANDOM = {Type.Q4_K: (0, 2), Type.Q5_K: (0, 2), Type.Q6_K: (208,)}

rng = np.random.default_rng(17)


def source() -> np.ndarray:
    """Weights as they are, with a row of zeros and one of hard cases for rounding."""
    values = rng.normal(0, 0.05, (4, 32)).astype(np.float32)
    values[1] = 0
    # Ties in Q8_0 (the scale is 1), in F16 (half of the last place) and in BF16; subnormals of F16;
    # negative zero.
    values[2] = np.arange(32) - 15.5
    values[2, :9] = [127, -126.5, 1 + 2**-11, 1 + 3 * 2**-11, 1 + 2**-8, 1 + 3 * 2**-8, 2**-25, 3 * 2**-25, -0.0]
    return values


def random_blocks(kind: Type, scales: tuple[int, ...]) -> np.ndarray:
    blocks = rng.integers(0, 256, (2, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for at in scales:
        blocks[:, at : at + 2] = rng.normal(0, 0.01, 2).astype(np.float16).view(np.uint8).reshape(2, 2)
    return blocks


def add_metadata(writer: GGUFWriter) -> None:
    writer.add_key_value("test.u8", 200, Kind.UINT8)
    writer.add_key_value("test.i8", -100, Kind.INT8)
    writer.add_key_value("test.u16", 60000, Kind.UINT16)
    writer.add_key_value("test.i16", -30000, Kind.INT16)
    writer.add_key_value("test.u32", 4000000000, Kind.UINT32)
    writer.add_key_value("test.i32", -2000000000, Kind.INT32)
    writer.add_key_value("test.f32", 0.1, Kind.FLOAT32)
    writer.add_key_value("test.bool", True, Kind.BOOL)
    writer.add_key_value("test.string", "crisol 🔥", Kind.STRING)
    writer.add_key_value("test.u64", 2**63 + 1, Kind.UINT64)
    writer.add_key_value("test.i64", -(2**62), Kind.INT64)
    writer.add_key_value("test.f64", 0.1, Kind.FLOAT64)
    writer.add_array("test.strings", ["a", "", "ñ"])
    writer.add_array("test.f32s", [0.5, -1.25])
    writer.add_array("test.i32s", [1, -2, 3])
    writer.add_array("test.bools", [True, False])


def main() -> None:
    OUT.mkdir(exist_ok=True)
    writer = GGUFWriter(OUT / "blocks.gguf", "llama")
    add_metadata(writer)
    values = {"source": source()}
    for kind in QUANTISED:
        data = quantize(values["source"], kind)
        values[kind.name] = dequantize(data, kind)
        raw = None if kind in (Type.F32, Type.F16) else kind
        writer.add_tensor(kind.name, data, raw_dtype=raw)
    for kind, scales in RANDOM.items():
        data = random_blocks(kind, scales)
        values[kind.name] = dequantize(data, kind)
        writer.add_tensor(kind.name, data, raw_dtype=kind)
    writer.add_tensor("IQ2_XXS", random_blocks(Type.IQ2_XXS, (0,)), raw_dtype=Type.IQ2_XXS)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save_file({name: np.ascontiguousarray(array) for name, array in values.items()}, OUT / "values.safetensors")


main()

"""Times training steps of Crisol and of its peers by turns, and prints the ratios of their medians.

    cargo build --release
    pip install -r requirements.txt
    python compare.py ../../target/release/crisol [--shapes "XS;S;M"] [--threads 2] [--rounds 5] [--seconds 5]
                      [--precision bf16] [--peers pytorch,compiled,pytorch-bf16,compiled-bf16,burn,candle]

PyTorch eager is the default peer; `compiled` is PyTorch with torch.compile; `-bf16` is either under
autocast. The peers in Rust are built first (minutes). Each round runs one after the other, and turns their order round, so that a
machine that gets slower does so to all.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent
PYTORCH = [sys.executable, str(HERE / "pytorch_step.py")]
PYTORCH_PEERS = {
    "pytorch": [],
    "compiled": ["--compile"],
    "pytorch-bf16": ["--dtype", "bf16"],
    "compiled-bf16": ["--dtype", "bf16", "--compile"],
}


def command(peer):
    """The command that times a peer's step, built if need be."""
    if peer in PYTORCH_PEERS:
        return PYTORCH + PYTORCH_PEERS[peer]
    target = HERE / peer / "target"
    build = ["cargo", "build", "--release", "--locked", "--manifest-path", str(HERE / peer / "Cargo.toml")]
    subprocess.run([*build, "--target-dir", str(target)], check=True)
    return [str(target / "release" / f"{peer}-step")]


def measure(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("crisol")
    arguments.add_argument("--shapes", default="XS;S;M", help="separated by semicolons")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--peers", default="pytorch", help=f"some of {', '.join(PYTORCH_PEERS)}, burn, candle; separated by commas")
    arguments.add_argument("--precision", choices=["f32", "bf16"], default="f32", help="Crisol's")
    options = arguments.parse_args()
    commands = {"crisol": [options.crisol, "bench", "train", "--json", "--precision", options.precision]}
    commands |= {peer: command(peer) for peer in options.peers.split(",")}
    for shape in options.shapes.split(";"):
        common = ["--shape", shape, "--threads", str(options.threads), "--seconds", str(options.seconds)]
        rates = {name: [] for name in commands}
        memory = dict.fromkeys(commands, 0)
        for turn in range(options.rounds):
            for name in list(commands)[:: -1 if turn % 2 else 1]:
                result = measure([*commands[name], *common])
                rates[name].append(result["tokens_per_second"])
                memory[name] = max(memory[name], result["peak_memory_bytes"])
        medians = {name: statistics.median(values) for name, values in rates.items()}
        print(f"{shape}, {options.threads} threads, {options.rounds} rounds, Crisol in {options.precision}")
        for name, values in rates.items():
            line = f"  {name:<13} {medians[name]:>10,.0f} tokens/s ({min(values):,.0f} to {max(values):,.0f}), {memory[name] / 1e6:,.0f} MB"
            if name != "crisol":
                line += (f"; crisol has {medians['crisol'] / medians[name]:.2f} x its speed, "
                         f"{memory['crisol'] / memory[name]:.2f} x its memory")
            print(line, flush=True)
        best = max(medians[name] for name in medians if name != "crisol")
        print(f"  crisol has {medians['crisol'] / best:.2f} x the speed of the best peer", flush=True)


if __name__ == "__main__":
    main()

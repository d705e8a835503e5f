"""Times training steps of Crisol and of PyTorch by turns, and prints the ratios of their medians.

    cargo build --release
    pip install -r requirements.txt
    python compare.py ../../target/release/crisol [--shapes "XS;S;M"] [--threads 2] [--rounds 5] [--seconds 5] [--compile]

Each round runs one after the other, and turns their order round, so that a machine that gets slower does so to both.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).parent


def measure(command):
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("crisol")
    arguments.add_argument("--shapes", default="XS;S;M", help="separated by semicolons")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--seconds", type=float, default=5.0)
    arguments.add_argument("--compile", action="store_true", help="PyTorch compiled as well as eager; the better counts")
    options = arguments.parse_args()
    for shape in options.shapes.split(";"):
        common = ["--shape", shape, "--threads", str(options.threads), "--seconds", str(options.seconds)]
        pytorch = [sys.executable, str(HERE / "pytorch_step.py"), *common]
        commands = {"crisol": [options.crisol, "bench", "train", *common, "--json"], "pytorch": pytorch}
        if options.compile:
            commands["pytorch compiled"] = [*pytorch, "--compile"]
        rates = {name: [] for name in commands}
        memory = dict.fromkeys(commands, 0)
        for turn in range(options.rounds):
            for name in list(commands)[:: -1 if turn % 2 else 1]:
                result = measure(commands[name])
                rates[name].append(result["tokens_per_second"])
                memory[name] = max(memory[name], result["peak_memory_bytes"])
        medians = {name: statistics.median(values) for name, values in rates.items()}
        best = max((name for name in commands if name != "crisol"), key=medians.get)
        print(f"{shape}, {options.threads} threads, {options.rounds} rounds")
        for name, values in rates.items():
            spread = f"{min(values):,.0f} to {max(values):,.0f}"
            print(f"  {name:<17} {medians[name]:>10,.0f} tokens/s ({spread}), {memory[name] / 1e6:,.0f} MB")
        print(f"  crisol / {best}: {medians['crisol'] / medians[best]:.2f} x the speed, "
              f"{memory['crisol'] / memory[best]:.2f} x the memory", flush=True)


if __name__ == "__main__":
    main()

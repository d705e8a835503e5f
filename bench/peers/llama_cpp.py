"""Times prompts and generation of Crisol and llama.cpp by turns on the same GGUF file, and prints
the ratios of their medians.

    cargo build --release
    pip install -r requirements.txt
    python llama_cpp.py ../../target/release/crisol MODEL.gguf [--threads 2] [--rounds 5] [--prompt-tokens 438] [--new-tokens 128]

llama.cpp is the build that the package xllamacpp ships; it reports its own rates. Both get one
prompt of as many tokens (of numbers without a pattern), keep nothing of the prompt before, and
generate as many tokens.
"""

import argparse
import json
import statistics
import subprocess
import sys

WORKER = """
import json, sys
import xllamacpp
model, threads, prompt, new = sys.argv[1], *map(int, sys.argv[2:])
params = xllamacpp.CommonParams()
params.model.path = model
params.n_ctx = prompt + new + 16
params.n_batch = params.n_ubatch = 512
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
params.n_parallel = 1
params.warmup = True
server = xllamacpp.Server(params)
request = {
    "prompt": [i * 2654435761 % 2**32 % 30000 + 100 for i in range(prompt)],
    "n_predict": new, "temperature": 0.8, "ignore_eos": True, "cache_prompt": False,
}
result = []
for _ in range(3):
    answer = server.handle_completions(request)
    answer = json.loads(answer) if isinstance(answer, (str, bytes)) else answer
    timings = answer["timings"]
    result.append((timings["prompt_per_second"], timings["predicted_per_second"]))
print(json.dumps(result[1:]))
"""


def crisol(options):
    command = [options.crisol, "bench", "decode", "--model", options.model, "--batch", "1", "--json", "--seconds", "2"]
    command += ["--threads", str(options.threads), "--prompt-tokens", str(options.prompt_tokens)]
    command += ["--new-tokens", str(options.new_tokens)]
    result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return [(result["prompt_tokens_per_second"], result["tokens_per_second"])]


def llama_cpp(options):
    numbers = [options.threads, options.prompt_tokens, options.new_tokens]
    command = [sys.executable, "-c", WORKER, options.model, *map(str, numbers)]
    output = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
    return json.loads(output.splitlines()[-1])


def main():
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("crisol")
    arguments.add_argument("model")
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=5)
    arguments.add_argument("--prompt-tokens", type=int, default=438)
    arguments.add_argument("--new-tokens", type=int, default=128)
    options = arguments.parse_args()
    peers = {"crisol": crisol, "llama.cpp": llama_cpp}
    rates = {name: [] for name in peers}
    for turn in range(options.rounds):
        for name in list(peers)[:: -1 if turn % 2 else 1]:
            rates[name] += peers[name](options)
    for what, index in (("prompt", 0), ("generation", 1)):
        medians = {name: statistics.median(rate[index] for rate in all_rates) for name, all_rates in rates.items()}
        line = ", ".join(
            f"{name} {medians[name]:,.1f} ({min(r[index] for r in rates[name]):,.1f} to {max(r[index] for r in rates[name]):,.1f})"
            for name in rates
        )
        print(f"{what}, tokens/s: {line}; ratio {medians['crisol'] / medians['llama.cpp']:.2f}")


if __name__ == "__main__":
    main()

"""Compares the log-probabilities that Crisol and llama.cpp give to the tokens of a page.

    python check_gguf_page.py CRISOL FILE.gguf TEXT [TOKENS [TOLERANCE]]

TEXT is a text file, of which the first TOKENS tokens (600) count: make it longer than the model's
windows. The mean difference must be below TOLERANCE (0.001). llama.cpp tells the most probable 2,000
tokens only; others are left out, and counted. It rounds activations where weights are narrower than
F32, so write those as F32 first (`crisol export FILE.gguf --to gguf --dtype f32 --out …`). Needs
what `check_gguf.py` needs.
"""

import json
import subprocess
import sys
from pathlib import Path

import check_gguf

LISTED = 2000


def main(binary, file, text, tokens=600, tolerance=1e-3):
    line = [binary, "score", file, "--text", Path(text).read_text(), "--json"]
    ids = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)["ids"][: int(tokens)]
    line = [binary, "score", file, "--ids", ",".join(map(str, ids)), "--json"]
    ours = json.loads(subprocess.run(line, check=True, capture_output=True).stdout)["logprobs"]
    ask = check_gguf.serve(file, len(ids) + 8)
    differences = []
    for index in range(1, len(ids)):
        body = {"prompt": ids[:index], "n_predict": 1, "temperature": 0, "n_probs": LISTED, "cache_prompt": True}
        [step] = ask("/completion", body)["completion_probabilities"]
        listed = {top["id"]: top["logprob"] for top in step["top_logprobs"]}
        if ids[index] in listed:
            differences.append(abs(listed[ids[index]] - ours[index]))
    mean, left_out = sum(differences) / len(differences), len(ids) - 1 - len(differences)
    print(f"{file}: log-probabilities of {len(differences)} tokens differ by {mean:.1e} on average, {max(differences):.1e} at most; {left_out} left out")
    assert mean < float(tolerance), "too much"


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5, 6):
        sys.exit(__doc__)
    main(*sys.argv[1:])

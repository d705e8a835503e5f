"""Checks that llama.cpp loads a GGUF file of Crisol, reads the same tokens and says the same.

    python check_gguf.py CRISOL FILE.gguf [TOLERANCE [ADAPTER ADAPTER.gguf]]

CRISOL is the binary, which reads the same file; with an adapter, its folder for Crisol and its file
for llama.cpp. Compared are the ids of some texts, 24 greedily
chosen tokens after each of some prompts, and the log-probabilities of those of llama.cpp
(TOLERANCE: 0.001). llama.cpp rounds activations to the type of F16, BF16 and Q8_0 weights, where
Crisol computes in f32: there more is to be allowed, and the tokens part where two are almost
equally probable, which is then told. Needs xllamacpp 2026.10 beside the packages of
requirements.txt.
"""

import json
import subprocess
import sys
import urllib.request

import xllamacpp

TEXTS = [
    "The capital of France is Paris.",
    "It's 12345 o'clock, and they'LL say:  two spaces\n\n\tand a tab ",
    "naïve café, 日本語, Привет, 😀!",
    "for i in range(10):\n    print(i, end='')",
]
PROMPTS = [
    "Monday, Tuesday, Wednesday, Thursday,",
    "The sky is blue because",
    "1 + 1 = 2, 2 + 2 = 4, 3 + 3 = 6,",
    "The opposite of hot is cold. The opposite of up is",
]
NEW = 24


def serve(file, context, adapter_file=None):
    """A function that asks llama.cpp about a model: a route of its server, and the body."""
    params = xllamacpp.CommonParams()
    params.model.path = file
    params.n_parallel = 1
    params.n_ctx = context
    params.warmup = False
    params.n_gpu_layers = 0
    # Several wait for each other in a loop, which is slow where cores are shared.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # A window's keys are kept when the context goes on from an earlier token.
    params.swa_full = True
    # Threads that wait for one another are slow beside other work, and these models are small.
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1
    # Attention in f32 too.
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    if adapter_file is not None:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter_file, 1.0)]
    server = xllamacpp.Server(params)

    def ask(route, body):
        request = urllib.request.Request(server.listening_address + route, json.dumps(body).encode(), {"Content-Type": "application/json"})
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    return ask


def main(binary, file, tolerance=1e-3, adapter=None, adapter_file=None):
    def crisol(command, *arguments):
        over = [] if adapter is None else ["--adapter", adapter]
        line = [binary, command, file, *over, *arguments, "--json"]
        return json.loads(subprocess.run(line, check=True, capture_output=True).stdout)

    ask = serve(file, 64, adapter_file)
    for text in TEXTS:
        ours = crisol("score", "--text", text)["ids"]
        theirs = ask("/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
        assert ours == theirs, f"{text!r}: Crisol reads {ours}, llama.cpp {theirs}"
    same, largest, sum_of, count = 0, 0.0, 0.0, 0
    for prompt in PROMPTS:
        generated = crisol("generate", "--prompt", prompt, "--max-new-tokens", str(NEW))
        # From ids, so that only the models are compared.
        body = {"prompt": generated["prompt_ids"], "n_predict": NEW, "temperature": 0, "n_probs": 1, "return_tokens": True, "cache_prompt": False}
        answer = ask("/completion", body)
        theirs = answer["tokens"]
        ours = generated["ids"][: len(theirs)]

        def score(ids):
            ids = ",".join(map(str, generated["prompt_ids"] + ids))
            return crisol("score", "--ids", ids)["logprobs"][len(generated["prompt_ids"]) :]

        scores = score(theirs)
        # Tokens that end within a character have none there: then only what is there once can be
        # told apart.
        steps = [(step["id"], step["logprob"]) for step in answer["completion_probabilities"]]
        if len(steps) == len(theirs):
            differences = [abs(own - logprob) for own, (_, logprob) in zip(scores, steps)]
        else:
            once = {id: logprob for id, logprob in steps if theirs.count(id) == 1}
            differences = [abs(own - once[id]) for own, id in zip(scores, theirs) if id in once]
        largest, sum_of, count = max(largest, *differences), sum_of + sum(differences) / len(differences) * len(theirs), count + len(theirs)
        parted = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), None)
        same += len(theirs) if parted is None else parted
        if parted is not None:
            gap = score(ours[: parted + 1])[-1] - scores[parted]
            print(f"  {prompt!r}: token {parted} differs; to Crisol, its own is more probable by {gap:.3f} (log)")
            assert gap < 2 * float(tolerance), "that is no tie"
    print(f"{file}: {len(TEXTS)} texts tokenised alike; {same} of {count} tokens before the first other one the same; log-probabilities differ by {largest:.1e} at most, {sum_of / count:.1e} on average")
    assert largest < float(tolerance), "too much"
    return sum_of / count


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4, 6):
        sys.exit(__doc__)
    main(*sys.argv[1:])

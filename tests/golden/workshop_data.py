"""Samples of rasbt's, oasst's and hh-rlhf's data: python workshop_data.py MATERIAL OUT

MATERIAL holds `rasbt`, `oasst` and `hh-rlhf`. Long records are left out: the samples are made for
minutes on a CPU. Every fifth record is held out, for rasbt's the same in SFT and DPO.
"""

import gzip
import json
import pathlib
import sys

material, out = map(pathlib.Path, sys.argv[1:])
out.mkdir(parents=True, exist_ok=True)


def save(name, records):
    lines = (json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (out / name).write_text("".join(lines), encoding="utf-8")


def best_path(tree):
    """Messages from the prompt to a leaf, the reply of the best rank each time."""
    messages, node = [], tree["prompt"]
    while node:
        role = "user" if node["role"] == "prompter" else "assistant"
        messages.append({"role": role, "content": node["text"]})
        replies = [reply for reply in node["replies"] if not reply["deleted"]]
        node = min(replies, key=lambda r: (r.get("rank") is None, r.get("rank")), default=None)
    while messages and messages[-1]["role"] == "user":
        messages.pop()
    return {"messages": messages, "kind": "oasst"}


instructions = json.loads((material / "rasbt/instruction-data.json").read_text())
pairs = json.loads((material / "rasbt/instruction-data-with-preference.json").read_text())
trees = [json.loads(line) for line in open(material / "oasst/en_100_tree.jsonl", encoding="utf-8")]
chats = [chat for chat in map(best_path, trees) if chat["messages"]]
chats = [c for c in chats if sum(len(m["content"]) for m in c["messages"]) < 2000]
with gzip.open(material / "hh-rlhf/harmless-base_test.jsonl.gz", "rt", encoding="utf-8") as file:
    harmless = [json.loads(line) for line in file]
harmless = [p for p in harmless if max(len(p["chosen"]), len(p["rejected"])) < 700]

for name, records in [("instructions", instructions), ("chats", chats), ("pairs", pairs),
                      ("harmless", harmless)]:
    save(f"{name}-heldout.jsonl", records[::5])
    save(f"{name}-train.jsonl", [r for i, r in enumerate(records) if i % 5])
    print(name, len(records), len(records[::5]))

"""Writes data/: one small data set in every format that Crisol reads, by other programs' writers.

    pip install pyarrow zstandard
    python data_files.py
"""

import csv
import gzip
import json
import pathlib

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

OUT = pathlib.Path(__file__).parent / "data"

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Sucre", "unit": None}}}
CHAT = [
    {
        "messages": [
            {"role": "user", "content": "¿Qué hora es?\n\"Ahora\"", "weight": None, "tool_calls": None},
            {"role": "assistant", "content": "Las 3, no?", "weight": 0, "tool_calls": None},
            {"role": "user", "content": "No.", "weight": None, "tool_calls": None},
            {"role": "assistant", "content": "Las 4. 😀", "weight": 1, "tool_calls": None},
        ],
        "prompt": None,
        "completion": None,
        "tools": None,
        "id": 1,
    },
    {
        "messages": [
            {"role": "user", "content": "Weather?", "weight": None, "tool_calls": None},
            {"role": "assistant", "content": None, "weight": None, "tool_calls": [CALL]},
        ],
        "prompt": None,
        "completion": None,
        "tools": json.dumps([{"name": "weather"}]),
        "id": None,
    },
    {"messages": None, "prompt": "2+2=", "completion": " 4", "tools": None, "id": 3},
]
PAIRS = [
    {"prompt": "Hi, \"you\"", "completion": "Hello,\nthere."},
    {"prompt": "ñ\t;,", "completion": "日本 😀"},
    {"prompt": "a", "completion": "b" * 300},
]
TEXTS = [
    {"text": f"Document {i}: the sky is blue.\r\nAnd {i * i}.", "score": i / 4, "good": i % 2 == 0} for i in range(150)
]

MESSAGE = pa.struct(
    [
        ("role", pa.string()),
        ("content", pa.string()),
        ("weight", pa.int64()),
        (
            "tool_calls",
            pa.list_(
                pa.struct(
                    [
                        ("type", pa.string()),
                        (
                            "function",
                            pa.struct(
                                [
                                    ("name", pa.string()),
                                    ("arguments", pa.struct([("city", pa.string()), ("unit", pa.string())])),
                                ]
                            ),
                        ),
                    ]
                )
            ),
        ),
    ]
)
SCHEMAS = {
    "chat": pa.schema(
        [
            ("messages", pa.list_(MESSAGE)),
            ("prompt", pa.string()),
            ("completion", pa.string()),
            ("tools", pa.string()),
            ("id", pa.int64()),
        ]
    ),
    "pairs": pa.schema([("prompt", pa.large_string()), ("completion", pa.string())]),
    "texts": pa.schema([("text", pa.string()), ("score", pa.float32()), ("good", pa.bool_())]),
}
CODECS = {"chat": "snappy", "pairs": "zstd", "texts": "gzip"}


def main():
    OUT.mkdir(exist_ok=True)
    for name, rows in [("chat", CHAT), ("pairs", PAIRS), ("texts", TEXTS)]:
        lines = "".join(json.dumps(row, ensure_ascii=name == "chat") + "\n" for row in rows).encode()
        (OUT / f"{name}.jsonl").write_bytes(lines)
        table = pa.Table.from_pylist(rows, schema=SCHEMAS[name])
        # Groups and pages are so small that there are several.
        pq.write_table(table, OUT / f"{name}.parquet", compression=CODECS[name], row_group_size=70, data_page_size=500)
        if name == "texts":
            continue
        (OUT / f"{name}.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
        (OUT / f"{name}.jsonl.zst").write_bytes(zstandard.compress(lines))
        (OUT / f"{name}.json").write_text(json.dumps(rows, ensure_ascii=False))
        (OUT / f"{name}.indented.json").write_text(json.dumps(rows, indent=2))
        (OUT / f"{name}.loose.json").write_text("\n".join(json.dumps(row, indent=1) for row in rows))
        (OUT / f"{name}.concatenated.jsonl").write_text("".join(json.dumps(row) for row in rows))
    for delimiter, suffix in [(",", "csv"), ("\t", "tsv"), (";", "semicolons.csv")]:
        with (OUT / f"pairs.{suffix}").open("w", newline="") as file:
            writer = csv.DictWriter(file, ["prompt", "completion"], delimiter=delimiter)
            writer.writeheader()
            writer.writerows(PAIRS)
    with (OUT / "chat.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["messages", "prompt", "completion", "tools", "id"])
        writer.writeheader()
        cell = lambda value: json.dumps(value) if isinstance(value, list) else value
        writer.writerows([{key: cell(value) for key, value in row.items()} for row in CHAT])


main()

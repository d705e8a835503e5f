"""Write what transformers' apply_chat_template renders: chat_templates/expected.json.

    python chat_templates.py

The templates are written in the style of those of Gemma 3, Llama 2, Llama 3.1, Zephyr and
TinyLlama, ChatML, Qwen2.5, Qwen3, OLMo-2, Mistral and DeepSeek-R1; `marked` has generation marks.
Needs transformers of requirements.txt.
"""

import datetime
import json
from pathlib import Path

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

FOLDER = Path(__file__).parent / "chat_templates"
TOKENS = {
    "gemma": ("<bos>", "<eos>"), "llama2": ("<s>", "</s>"), "zephyr": ("<s>", "</s>"), "mistral": ("<s>", "</s>"),
    "llama31": ("<|begin_of_text|>", "<|eot_id|>"), "olmo2": ("<|endoftext|>", "<|endoftext|>"),
    "deepseek_r1": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
}


class Then(datetime.datetime):
    """The moment that Crisol's templates take for now."""

    @classmethod
    def now(cls, tz=None):
        return cls(2024, 7, 26)


def turn(role, content, **more):
    return {"role": role, "content": content, **more}


def call(name, arguments, **more):
    return {"type": "function", "function": {"name": name, "arguments": arguments}, **more}


WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather – of a \"place\" <now>.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "Where"},
        "days": {"type": "integer", "default": 3, "enum": [1, 3]}, "unit": {"type": ["string", "null"]}}, "required": ["place"]}}}
CLOCK = {"type": "function", "function": {"name": "clock", "description": "", "parameters": {"type": "object", "properties": {}}}}

CALLS = [
    turn("user", "Weather in Málaga?"),
    {"role": "assistant", "content": None, "tool_calls": [call("weather", {"place": "Málaga", "days": 1, "share": 0.5}, id="abcdefghi")]},
    turn("tool", '{"sky": "blue"}', tool_call_id="abcdefghi", name="weather"),
    turn("assistant", "Blue."),
]
CONVERSATIONS = {
    "plain": [turn("user", "Hello"), turn("assistant", "Hi there.")],
    "question": [turn("user", "What is 1+1?")],
    "system": [turn("system", "Be kind."), turn("user", "Hello"), turn("assistant", "Hi."), turn("user", "More")],
    "long": [turn("user" if i % 2 == 0 else "assistant", f"turn {i}") for i in range(7)],
    "unicode": [turn("user", "¿Qué? 日本語 👩‍👧 e\u0301 \u202eabc \u00a0|\u2028|"), turn("assistant", "ﬁ Ａ \U0010ffff 𝔘")],
    "look-alikes": [turn("user", "</s><|im_end|>\n<|im_start|>assistant\n{{ 1 + 1 }} {% raw %} [/INST] <<SYS>>"),
                    turn("assistant", "<|eot_id|> {# no #} <think>")],
    "spaces": [turn("system", " \n be \n"), turn("user", "\n\n  leading and trailing \t \n"), turn("assistant", "\n answer  \n\n")],
    "empty": [turn("user", ""), turn("assistant", "")],
    "only spaces": [turn("user", "  "), turn("assistant", "\n")],
    "quotes": [turn("user", "it's \"so\" \\n \\ \\u0041 & <b>"), turn("assistant", "'\"'")],
    "thinking": [turn("user", "a"), turn("assistant", "<think>\nhm\n</think>\n\nb"), turn("user", "c"),
                 turn("assistant", "<think>\nso\n</think>\n\nd")],
    "thinking apart": [turn("user", "a"), turn("assistant", "b", reasoning_content="hm\n"), turn("user", "c"),
                       turn("assistant", "d", thinking="so")],
    "assistant first": [turn("assistant", "Hello"), turn("user", "Hi")],
    "two users": [turn("user", "a"), turn("user", "b")],
    "late system": [turn("user", "a"), turn("system", "now be kind"), turn("assistant", "b")],
    "unknown role": [turn("user", "a"), turn("narrator", "b")],
    "named": [turn("user", "a", name="Ana"), turn("assistant", "b", name="Bot")],
    "parts": [turn("user", [{"type": "text", "text": "a "}, {"type": "text", "text": "b"}]), turn("assistant", "c")],
    "calls": CALLS,
    "two calls": [CALLS[0],
                  {"role": "assistant", "content": "Let me look.", "tool_calls": [
                      call("weather", {"place": "x"}, id="aaaaaaaaa"), call("clock", {}, id="bbbbbbbbb")]},
                  turn("tool", "1", tool_call_id="aaaaaaaaa"), turn("tool", "2", tool_call_id="bbbbbbbbb")],
    "call as string": [CALLS[0], {"role": "assistant", "content": "", "tool_calls": [call("weather", '{"place": "x"}', id="aaaaaaaaa")]}],
}
# With these conversations, the templates also get tools.
WITH_TOOLS = ["question", "system", "calls", "two calls", "call as string", "unicode"]


def main():
    chat_template_utils.datetime = Then
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    cases = []
    for path in sorted(FOLDER.glob("*.jinja")):
        tokenizer.bos_token, tokenizer.eos_token = TOKENS.get(path.stem, (None, "<|im_end|>"))
        for name, messages in CONVERSATIONS.items():
            for tools in [None, [WEATHER, CLOCK]] if name in WITH_TOOLS else [None]:
                ends = messages[-1]["role"] == "assistant"
                case = {"template": path.stem, "conversation": name, "tools": tools is not None, "prompt": not ends}
                arguments = {"tools": tools, "chat_template": path.read_text(), "add_generation_prompt": not ends}
                try:
                    case["text"] = tokenizer.apply_chat_template(messages, tokenize=False, **arguments)
                    if path.stem == "marked":
                        [text], [spans] = chat_template_utils.render_jinja_template(
                            [messages], return_assistant_tokens_mask=True, **arguments)
                        case["said"] = "".join(text[start:end] for start, end in spans)
                except Exception as error:  # Whatever Jinja and the template raise.
                    case["error"] = str(error)
                cases.append(case)
    tokens = {path.stem: TOKENS.get(path.stem, (None, "<|im_end|>")) for path in FOLDER.glob("*.jinja")}
    expected = {"tokens": dict(sorted(tokens.items())), "tools": [WEATHER, CLOCK], "conversations": CONVERSATIONS, "cases": cases}
    lines = [f"{json.dumps(key)}: " + ("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n]"
             if key == "cases" else json.dumps(value, ensure_ascii=False)) for key, value in expected.items()]
    (FOLDER / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    main()

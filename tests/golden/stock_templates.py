"""Write what transformers' apply_chat_template renders with published chat templates:
chat_templates/stock/expected.json.

    python stock_templates.py [FOLDER]

The templates and their sources are in chat_templates/stock/SOURCES.md. FOLDER is another folder of
templates, for those that must not be committed, such as Gemma's (gemma2.jinja, gemma3.jinja); the
test reads it as CRISOL_TEMPLATES. Needs transformers of requirements.txt.
"""

import json
import sys
from pathlib import Path

from chat_templates import CLOCK, FOLDER, Then, call, turn
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils import chat_template_utils

STOCK = Path(sys.argv[1]) if sys.argv[1:] else FOLDER / "stock"
# bos_token and eos_token of tokenizer_config.json.
CHATML, MISTRAL, GRANITE = (None, "<|im_end|>"), ("<s>", "</s>"), (None, "<|end_of_text|>")
TOKENS = {
    "deepseek_r1_distill": ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "gemma2": ("<bos>", "<eos>"), "gemma3": ("<bos>", "<eos>"), "gptoss": ("<|startoftext|>", "<|return|>"),
    "granite_3_0": GRANITE, "granite_3_1": GRANITE, "granite_3_2": GRANITE, "granite_3_3": GRANITE,
    "olmo3_1_instruct": (None, "<|endoftext|>"), "olmo3_instruct": (None, "<|endoftext|>"),
    "olmo3_think": (None, "<|endoftext|>"), "phi3": ("<s>", "<|endoftext|>"), "phi3_5": ("<s>", "<|endoftext|>"),
    "phi4_mini": ("<|endoftext|>", "<|endoftext|>"),
}
# Variables that a template reads, beside the defaults.
ARGUMENTS = {
    "qwen3": {"enable_thinking": False}, "smollm3": {"enable_thinking": False}, "granite_3_2": {"thinking": True},
    "granite_3_3": {"thinking": True}, "gptoss": {"reasoning_effort": "low", "model_identity": "You are Crisol."},
}

# Without numbers as defaults, with which gpt-oss's template fails.
WEATHER = {"type": "function", "function": {
    "name": "weather", "description": "The weather \u2013 of a \"place\" <now>.",
    "parameters": {"type": "object", "properties": {
        "place": {"type": "string", "description": "Where"}, "days": {"type": "integer"}, "now": {"type": "boolean"},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c"}}, "required": ["place"]}}}
CALL = [call("weather", {"place": "Málaga", "days": 1, "share": 0.5, "now": True}, id="abcdefghi")]
RESULT = turn("tool", '{"sky": "blue"}', tool_call_id="abcdefghi", name="weather")
CONVERSATIONS = {
    "plain": [turn("user", "Hello"), turn("assistant", "Hi there.")],
    "system": [turn("system", "Be kind."), turn("user", "Hello"), turn("assistant", "Hi."), turn("user", "More")],
    "many": [turn("system", "Be brief."), turn("user", "One <b> & \"two\"?"), turn("assistant", "Ñandú – 日本.\n\n- a\n"),
             turn("user", " three "), turn("assistant", "Four"), turn("user", "five"), turn("assistant", "Six.")],
    "calls": [turn("user", "Weather?"), {"role": "assistant", "content": None, "tool_calls": CALL}, RESULT, turn("assistant", "Blue.")],
    "calls, text": [turn("system", "Be kind."), turn("user", "Weather?"), turn("assistant", "", tool_calls=CALL), RESULT,
                    turn("assistant", "Blue."), turn("user", "Thanks"), turn("assistant", "Gladly.")],
    "thought": [turn("user", "a?"), turn("assistant", "<think>\nhm\n</think>\n\nb"), turn("user", "c?"),
                turn("assistant", "<think>\nso\n</think>\n\nd")],
    "thought apart": [turn("user", "a?"), turn("assistant", "b", reasoning_content="hm"), turn("user", "c?"),
                      turn("assistant", "d", reasoning_content="so")],
    # Only Mistral's reasoning models.
    "thought as part": [turn("user", "a?"), turn("assistant", [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]),
                        turn("user", "c?"), turn("assistant", [{"type": "thinking", "thinking": "so"}, {"type": "text", "text": "d"}])],
    "thought, calls": [turn("user", "Weather?"), turn("assistant", "", reasoning_content="hm", tool_calls=CALL), RESULT,
                       turn("assistant", "Blue.", reasoning_content="so")],
}
TOOLS = {"system": [None, [WEATHER, CLOCK]], "calls": [[WEATHER]], "calls, text": [[WEATHER]], "thought, calls": [[WEATHER]]}


def main():
    chat_template_utils.datetime = Then
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    cases, tokens = [], {}
    for path in sorted(STOCK.glob("*.jinja")):
        default = MISTRAL if path.stem.startswith(("mi", "mixtral")) else CHATML
        tokens[path.stem] = TOKENS.get(path.stem, default)
        tokenizer.bos_token, tokenizer.eos_token = tokens[path.stem]
        for name, messages in CONVERSATIONS.items():
            for tools in TOOLS.get(name, [None]):
                if name == "thought as part" and path.stem != "ministral3_reasoning":
                    continue
                for arguments in [{}, ARGUMENTS.get(path.stem)] if name in ("plain", "system") and tools is None else [{}]:
                    if arguments is None:
                        continue
                    prompt = messages[-1]["role"] != "assistant"
                    case = {"template": path.stem, "conversation": name, "tools": len(tools or []), "arguments": arguments}
                    try:
                        case["text"] = tokenizer.apply_chat_template(
                            messages, tools=tools, chat_template=path.read_text(), tokenize=False,
                            add_generation_prompt=prompt, **arguments)
                    except Exception as error:  # Whatever Jinja and the template raise.
                        case["error"] = str(error)
                    cases.append(case)
    expected = {"tokens": tokens, "tools": [WEATHER, CLOCK], "conversations": CONVERSATIONS, "cases": cases}
    lines = [f"{json.dumps(key)}: " + ("[\n" + ",\n".join(json.dumps(v, ensure_ascii=False) for v in value) + "\n]"
             if key == "cases" else json.dumps(value, ensure_ascii=False)) for key, value in expected.items()]
    (STOCK / "expected.json").write_text("{\n" + ",\n".join(lines) + "\n}\n")
    print(f"{len(cases)} cases, {sum('error' in case for case in cases)} of them errors")


if __name__ == "__main__":
    main()

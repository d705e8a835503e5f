//! Published chat templates: the text of transformers (`tests/golden/stock_templates.py`), and the
//! trained tokens. `CRISOL_TEMPLATES` names another folder that the script has written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crisol_text::{Body, ChatTemplate, Example, Message, TextError, Tokenizer, parse_jsonl};
use serde_json::{Map, Value, json};

use crate::fixture::{special, train};

/// How a template writes an assistant's turn: after one of `opens`, up to one of `ends`.
struct Turns {
    /// Start of the names of these templates.
    templates: &'static str,
    opens: &'static [&'static str],
    ends: &'static [&'static str],
}

const TURNS: [Turns; 14] = [
    turns(
        "deepseek_r1_distill",
        &["<｜Assistant｜>", "<｜tool▁outputs▁end｜>"],
        &["<｜end▁of▁sentence｜>"],
    ),
    turns("gemma", &["<start_of_turn>model\n"], &["<end_of_turn>"]),
    turns("gptoss", &["<|start|>assistant"], &["<|return|>", "<|call|>"]),
    turns("granite", &["<|start_of_role|>assistant<|end_of_role|>"], &["<|end_of_text|>"]),
    turns("mistral_v0_3", &["[/INST]", "[/TOOL_RESULTS] "], &["</s>"]),
    turns("mi", &["[/INST]", "[/TOOL_RESULTS]"], &["</s>"]),
    turns("olmo3", &["<|im_start|>assistant\n"], &["<|endoftext|>"]),
    turns("phi3", &["<|assistant|>\n"], &["<|end|>"]),
    turns("phi4_mini", &["<|assistant|>"], &["<|end|>"]),
    turns("phi4", &["<|im_start|>assistant<|im_sep|>"], &["<|im_end|>"]),
    turns("qwen2", &["<|im_start|>assistant\n"], &["<|im_end|>"]),
    turns("qwen3", &["<|im_start|>assistant\n"], &["<|im_end|>"]),
    // Its generation tags include the line's end.
    turns("smollm3", &["<|im_start|>assistant\n"], &["<|im_end|>\n"]),
    turns("", &[], &[]),
];

const fn turns(
    templates: &'static str,
    opens: &'static [&'static str],
    ends: &'static [&'static str],
) -> Turns {
    Turns { templates, opens, ends }
}

struct Stock {
    expected: Value,
    templates: BTreeMap<String, ChatTemplate>,
}

/// A conversation and a template with its tools and arguments.
struct Case<'a> {
    name: &'a str,
    conversation: &'a str,
    arguments: &'a Map<String, Value>,
    text: Option<&'a str>,
    error: Option<&'a str>,
    template: ChatTemplate,
    messages: Vec<Message>,
}

fn stock() -> Stock {
    let committed = "../../tests/golden/chat_templates/stock";
    let folder = std::env::var_os("CRISOL_TEMPLATES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join(committed), PathBuf::from);
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let template = |(name, tokens): (&String, &Value)| {
        let token = |i: usize, key: &str| Some((key.to_owned(), tokens[i].as_str()?.to_owned()));
        let named = [token(0, "bos_token"), token(1, "eos_token")].into_iter().flatten().collect();
        let template = ChatTemplate::new(&read(&format!("{name}.jinja")), named);
        (name.clone(), template.unwrap_or_else(|e| panic!("{name}: {e}")))
    };
    let templates = expected["tokens"].as_object().unwrap().iter().map(template).collect();
    Stock { expected, templates }
}

impl Stock {
    fn cases(&self) -> impl Iterator<Item = Case<'_>> {
        let cases = self.expected["cases"].as_array().unwrap();
        assert!(!cases.is_empty());
        cases.iter().map(|case| {
            let (name, conversation) =
                (case["template"].as_str().unwrap(), case["conversation"].as_str().unwrap());
            let tools = self.expected["tools"].as_array().unwrap();
            let count = usize::try_from(case["tools"].as_u64().unwrap()).unwrap();
            let messages = json!({"messages": self.expected["conversations"][conversation]});
            let record = parse_jsonl("stock", &messages.to_string()).unwrap().remove(0);
            let Body::Chat { messages } = record.body else { panic!("{conversation}") };
            let template = self.templates[name]
                .with_tools(tools[..count].to_vec())
                .with_arguments(case["arguments"].as_object().unwrap().clone());
            let (text, error) = (case["text"].as_str(), case["error"].as_str());
            let arguments = case["arguments"].as_object().unwrap();
            Case { name, conversation, arguments, text, error, template, messages }
        })
    }
}

#[test]
fn published_templates_render_as_in_transformers() {
    let mut differences = vec![];
    for case in stock().cases() {
        // Parts with thoughts become the field of thoughts when they are read.
        if case.conversation == "thought as part" {
            continue;
        }
        let prompt = !case.messages.last().unwrap().is_assistant();
        let rendered = case.template.render(&case.messages, prompt);
        let same = match (&rendered, case.text, case.error) {
            (Ok(ours), Some(theirs), _) => ours == theirs,
            // A template's own error message is kept; the text of type errors differs.
            (Err(TextError::Template(ours)), _, Some(theirs)) => {
                ours.contains(theirs) || theirs.contains("has no attribute")
            }
            _ => false,
        };
        if !same {
            let theirs = case.text.or(case.error);
            differences.push(format!(
                "{} {:?}\nours   {rendered:?}\ntheirs {theirs:?}",
                case.name, case.conversation
            ));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

/// The text of each trained run of an example.
fn trained_texts(tokenizer: &Tokenizer, example: &Example) -> Vec<String> {
    let runs = example.trained.chunk_by(|a, b| a == b);
    let mut at = 0;
    let mut texts = vec![];
    for run in runs {
        if run[0] {
            texts.push(tokenizer.decode(&example.ids[at..at + run.len()], false));
        }
        at += run.len();
    }
    texts
}

/// The last turn of a rendered conversation: from where the assistant's part opens to its end.
fn last_turn<'a>(case: &Case, text: &'a str) -> &'a str {
    let Turns { opens, ends, .. } =
        TURNS.iter().find(|turns| case.name.starts_with(turns.templates)).unwrap();
    // A turn of gpt-oss may have several parts.
    let from = if case.name == "gptoss" {
        ["<|start|>user", "<|start|>functions."].iter().filter_map(|s| text.rfind(s)).max().unwrap()
    } else {
        opens.iter().filter_map(|open| text.rfind(open)).max().unwrap()
    };
    let start = opens
        .iter()
        .filter_map(|open| Some(from + text[from..].find(open)? + open.len()))
        .min()
        .unwrap();
    let ended = |end: &&str| Some(start + text[start..].find(end)? + end.len());
    &text[start..ends.iter().filter_map(ended).min().unwrap()]
}

/// Trained turns that differ from those of the template with all messages: conversation, whether
/// the template has arguments, turns.
const OTHER_TURNS: [(&str, &str, bool, &[&str]); 11] = [
    // The prompt starts the thought, or has an empty one.
    (
        "deepseek_r1_distill",
        "thought",
        false,
        &["hm\n</think>\n\nb<｜end▁of▁sentence｜>", "so\n</think>\n\nd<｜end▁of▁sentence｜>"],
    ),
    (
        "deepseek_r1_distill",
        "thought apart",
        false,
        &["hm\n</think>\n\nb<｜end▁of▁sentence｜>", "so\n</think>\n\nd<｜end▁of▁sentence｜>"],
    ),
    (
        "olmo3_think",
        "thought",
        false,
        &["\nhm\n</think>\n\nb<|endoftext|>", "\nso\n</think>\n\nd<|endoftext|>"],
    ),
    (
        "olmo3_think",
        "thought apart",
        false,
        &["\nhm\n</think>\n\nb<|endoftext|>", "\nso\n</think>\n\nd<|endoftext|>"],
    ),
    ("qwen3", "plain", true, &["Hi there.<|im_end|>"]),
    ("smollm3", "plain", true, &["Hi there.<|im_end|>\n"]),
    // The template reads thoughts in another form.
    (
        "granite_3_3",
        "thought apart",
        false,
        &[
            "<think>hm</think><response>b</response><|end_of_text|>",
            "<think>so</think><response>d</response><|end_of_text|>",
        ],
    ),
    (
        "smollm3",
        "thought apart",
        false,
        &["<think>\nhm\n</think>\n\nb<|im_end|>\n", "<think>\nso\n</think>\n\nd<|im_end|>\n"],
    ),
    (
        "ministral3_reasoning",
        "thought apart",
        false,
        &["[THINK]hm[/THINK]b</s>", "[THINK]so[/THINK]d</s>"],
    ),
    (
        "ministral3_reasoning",
        "thought as part",
        false,
        &["[THINK]hm[/THINK]b</s>", "[THINK]so[/THINK]d</s>"],
    ),
    (
        "ministral3_reasoning",
        "thought, calls",
        false,
        &[
            "[THINK]hm[/THINK][TOOL_CALLS]weather[ARGS]{\"place\": \"Málaga\", \"days\": 1, \
             \"share\": 0.5, \"now\": true}</s>",
            "[THINK]so[/THINK]Blue.</s>",
        ],
    ),
];

/// Templates whose prompt starts a thought, so that an answer without one cannot follow.
const PROMPTS_WITH_THOUGHT: [&str; 2] = ["deepseek_r1_distill", "olmo3_think"];

/// What must be trained.
enum Expected {
    /// These turns.
    Turns(Vec<String>),
    /// Nothing: an error with these words.
    Error(&'static str),
}

/// The turns of the assistant as transformers renders them, unless one lacks a thought or a call.
fn expected(case: &Case) -> Expected {
    let has_arguments = !case.arguments.is_empty();
    let listed = OTHER_TURNS.iter().find(|(name, conversation, arguments, _)| {
        (*name, *conversation, *arguments) == (case.name, case.conversation, has_arguments)
    });
    if let Some((.., turns)) = listed {
        return Expected::Turns(turns.iter().map(|&turn| turn.to_owned()).collect());
    }
    let answers = || case.messages.iter().enumerate().filter(|(_, m)| m.is_assistant());
    let turns: Vec<String> = answers()
        .map(|(i, _)| {
            let text = case.template.render(&case.messages[..=i], false).unwrap();
            last_turn(case, &text).to_owned()
        })
        .collect();
    let (thoughts, calls) =
        (case.conversation.contains("thought"), case.conversation.contains("calls"));
    let thought = ["hm", "so"].iter().zip(&turns).find(|(thought, turn)| !turn.contains(**thought));
    match thought {
        Some((thought, _)) if thoughts => Expected::Error(thought),
        _ if calls && !turns[0].contains("weather") => Expected::Error("weather"),
        _ if PROMPTS_WITH_THOUGHT.contains(&case.name) && !thoughts => {
            Expected::Error("continues with \"<think>")
        }
        _ => Expected::Turns(turns),
    }
}

/// Each turn that transformers renders is trained, with its end and nothing else. A thought or call
/// that a template does not write is an error.
#[test]
fn exactly_the_assistants_tokens_are_trained() {
    let stock = stock();
    let mut named: Vec<&str> = vec![
        "<think>",
        "</think>",
        "<|start|>",
        "<|message|>",
        "<|channel|>",
        "<|im_sep|>",
        "[INST]",
        "[/INST]",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[THINK]",
        "[/THINK]",
        "[TOOL_RESULTS]",
        "[/TOOL_RESULTS]",
        "<|assistant|>",
        "<|user|>",
        "<|im_start|>",
    ];
    named.extend(TURNS.iter().flat_map(|turns| turns.ends).map(|end| end.trim()));
    named.sort_unstable();
    named.dedup();
    let tokenizer = train(&special(&named));
    let (mut trained, mut refused, mut wrong) = (0, 0, vec![]);
    for case in stock.cases() {
        if case.error.is_some() || !case.messages.last().unwrap().is_assistant() {
            continue;
        }
        let encoded = case.template.encode(&tokenizer, &case.messages);
        let case_name = format!("{} {:?} {:?}", case.name, case.conversation, case.arguments);
        match (encoded, expected(&case)) {
            (Ok(examples), Expected::Turns(turns)) => {
                let texts: Vec<String> = examples
                    .iter()
                    .flat_map(|example| trained_texts(&tokenizer, example))
                    .collect();
                // The untrained tokens are those of the rendered conversation. Thoughts may be in
                // the prompts only; with turns apart, each has its own prompt.
                let whole = match examples.as_slice() {
                    [example] => tokenizer.decode(&example.ids, false),
                    _ => String::new(),
                };
                let rendered = case.text.unwrap().starts_with(&whole);
                if texts != turns || !rendered && !case.conversation.starts_with("thought") {
                    wrong.push(format!("{case_name}\nours   {texts:?}\nexpect {turns:?}"));
                }
                trained += 1;
            }
            (Err(error), Expected::Error(words)) => {
                if !error.to_string().contains(words) {
                    wrong.push(format!("{case_name}: {error}\nwithout {words:?}"));
                }
                refused += 1;
            }
            (Ok(_), Expected::Error(words)) => wrong.push(format!("{case_name}: no {words:?}")),
            (Err(error), Expected::Turns(_)) => wrong.push(format!("{case_name}: {error}")),
        }
    }
    assert!(trained > 0 && wrong.is_empty(), "{trained} {refused}\n{}", wrong.join("\n\n"));
    println!("{trained} conversations trained, {refused} refused");
}

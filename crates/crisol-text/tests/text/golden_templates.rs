//! Templates like those of well-known models, compared with transformers
//! (`tests/golden/chat_templates.py`).

use std::collections::BTreeMap;
use std::path::Path;

use crisol_text::{Body, ChatTemplate, Message, Record, TextError, parse_jsonl};
use serde_json::{Value, json};

use crate::fixture::{special, train};

struct Golden {
    expected: Value,
    templates: BTreeMap<String, ChatTemplate>,
}

fn golden() -> Golden {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat_templates");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let expected: Value = serde_json::from_str(&read("expected.json")).unwrap();
    let template = |(name, tokens): (&String, &Value)| {
        let token = |i: usize, key: &str| Some((key.to_owned(), tokens[i].as_str()?.to_owned()));
        let named = [token(0, "bos_token"), token(1, "eos_token")].into_iter().flatten().collect();
        (name.clone(), ChatTemplate::new(&read(&format!("{name}.jinja")), named).unwrap())
    };
    let templates = expected["tokens"].as_object().unwrap().iter().map(template).collect();
    Golden { expected, templates }
}

fn record(messages: &Value) -> Record {
    parse_jsonl("golden", &json!({ "messages": messages }).to_string()).unwrap().remove(0)
}

fn messages(record: &Record) -> &[Message] {
    let Body::Chat { messages } = &record.body else { panic!("{record:?}") };
    messages
}

impl Golden {
    fn cases(&self) -> impl Iterator<Item = (&Value, ChatTemplate, Record)> {
        let cases = self.expected["cases"].as_array().unwrap();
        assert!(cases.len() > 200);
        // Arguments in a string are parsed here, but not by transformers.
        cases.iter().filter(|case| case["conversation"] != "call as string").map(|case| {
            let template = &self.templates[case["template"].as_str().unwrap()];
            let tools = if case["tools"] == true {
                self.expected["tools"].as_array().unwrap().clone()
            } else {
                vec![]
            };
            let conversation =
                &self.expected["conversations"][case["conversation"].as_str().unwrap()];
            (case, template.with_tools(tools), record(conversation))
        })
    }
}

#[test]
fn templates_render_as_in_transformers() {
    let mut differences = vec![];
    for (case, template, record) in golden().cases() {
        let rendered = template.render(messages(&record), case["prompt"] == true);
        let same = match (&rendered, case["text"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            // A template's own error message is kept; the text of type errors differs.
            (Err(TextError::Template(ours)), None) => {
                let theirs = case["error"].as_str().unwrap();
                ours.contains(theirs)
                    || theirs.contains("has no attribute")
                    || theirs.contains("can only concatenate")
            }
            _ => false,
        };
        if !same {
            differences.push(format!("{case}\n{rendered:?}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n\n"));
}

#[test]
fn generation_tags_train_what_they_train_in_transformers() {
    let tokenizer = train(&special(&["<|im_start|>", "<|im_end|>"]));
    let mut checked = 0;
    for (case, template, record) in golden().cases() {
        let (Some(expected), false) = (case["said"].as_str(), case["prompt"] == true) else {
            continue;
        };
        // Text that the template drops is an error here.
        let Ok(examples) = template.encode(&tokenizer, messages(&record)) else { continue };
        let tokens = examples.iter().flat_map(|example| example.ids.iter().zip(&example.trained));
        let ids: Vec<u32> = tokens.filter(|(_, trained)| **trained).map(|(&id, _)| id).collect();
        assert_eq!(tokenizer.decode(&ids, false), expected, "{case}");
        checked += 1;
    }
    assert!(checked > 10);
}

/// Trained is what the last assistant message adds to the rendered conversation.
#[test]
fn without_generation_tags_the_last_answer_is_trained() {
    let named = [
        "<s>",
        "</s>",
        "<|im_end|>",
        "<|eot_id|>",
        "<|endoftext|>",
        "<｜end▁of▁sentence｜>",
        "<eos>",
        "<end_of_turn>",
    ];
    let tokenizer = train(&special(&named));
    let (mut checked, mut separate, mut dropped) = (0, 0, 0);
    for (case, template, record) in golden().cases() {
        let turns = messages(&record);
        if case["template"] == "marked" || case["text"].is_null() || case["prompt"] == true {
            continue;
        }
        // These templates get content in parts as one string.
        if case["conversation"] == "parts" {
            continue;
        }
        let (before, answered) = (
            template.render(&turns[..turns.len() - 1], true).unwrap(),
            case["text"].as_str().unwrap(),
        );
        match template.encode(&tokenizer, turns) {
            Ok(examples) => {
                let example = examples.last().unwrap();
                let last = example.trained.iter().rposition(|&trained| trained).unwrap();
                let first = (0..=last).rev().take_while(|&t| example.trained[t]).last().unwrap();
                let trained = tokenizer.decode(&example.ids[first..=last], false);
                match answered.strip_prefix(&before) {
                    Some(answer) => {
                        assert!(answer.trim_end() == trained.trim_end(), "{case} {trained:?}");
                    }
                    // Mistral's moves the system message once the user message is answered.
                    None if case["template"] == "mistral" => {
                        assert!(answered.ends_with(&trained), "{case}");
                    }
                    // DeepSeek-R1's prompt starts a thought, but rendered answers have none.
                    None => {
                        assert!(case["template"] == "deepseek_r1", "{case} {trained:?}");
                        let (_, answer) = trained.split_once("</think>").unwrap();
                        assert!(answered.ends_with(answer.trim_start()), "{case} {trained:?}");
                    }
                }
                checked += 1;
                separate += usize::from(examples.len() > 1);
            }
            // Templates without separate thoughts, or that render only the tool call.
            Err(TextError::DroppedText { words, .. }) => {
                assert!(
                    ["hm", "so", "Let me look.", "weather"].contains(&words.as_str()),
                    "{case} {words}"
                );
                dropped += 1;
            }
            // DeepSeek-R1's prompt starts a thought, but this answer has none.
            Err(TextError::PromptNotPrefix { .. }) => {
                assert!(case["template"] == "deepseek_r1", "{case}");
            }
            Err(error) => panic!("{case} {error}"),
        }
    }
    let counts = (checked, separate, dropped);
    assert!(checked > 60 && separate > 2 && dropped > 2, "{counts:?}");
}

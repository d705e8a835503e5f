//! Templates in the style of well-known models: what transformers renders of them (`tests/golden/chat_templates.py`).

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
        // transformers leaves arguments as the data has them; here a string becomes the object that it holds.
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
fn templates_write_what_transformers_writes() {
    let mut differ = vec![];
    for (case, template, record) in golden().cases() {
        let rendered = template.render(messages(&record), case["prompt"] == true);
        let same = match (&rendered, case["text"].as_str()) {
            (Ok(ours), Some(theirs)) => ours == theirs,
            // What a template itself objects to is said in its words; of type errors each Jinja speaks in its own.
            (Err(TextError::Template(ours)), None) => {
                let theirs = case["error"].as_str().unwrap();
                ours.contains(theirs)
                    || theirs.contains("has no attribute")
                    || theirs.contains("can only concatenate")
            }
            _ => false,
        };
        if !same {
            differ.push(format!("{case}\n{rendered:?}"));
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n\n"));
}

#[test]
fn marks_say_what_they_say_in_transformers() {
    let tokenizer = train(&special(&["<|im_start|>", "<|im_end|>"]));
    let mut seen = 0;
    for (case, template, record) in golden().cases() {
        let (Some(said), false) = (case["said"].as_str(), case["prompt"] == true) else { continue };
        // Words that the template leaves out are refused.
        let Ok(examples) = template.encode(&tokenizer, messages(&record)) else { continue };
        let tokens = examples.iter().flat_map(|example| example.ids.iter().zip(&example.trained));
        let ids: Vec<u32> = tokens.filter(|(_, trained)| **trained).map(|(&id, _)| id).collect();
        assert_eq!(tokenizer.decode(&ids, false), said, "{case}");
        seen += 1;
    }
    assert!(seen > 10);
}

/// Of templates without marks, what the assistant's last message adds to the conversation before it.
#[test]
fn without_marks_the_last_answer_is_what_it_adds() {
    let named =
        ["<s>", "</s>", "<|im_end|>", "<|eot_id|>", "<|endoftext|>", "<｜end▁of▁sentence｜>"];
    let tokenizer = train(&special(&named));
    let (mut found, mut apart, mut lost) = (0, 0, 0);
    for (case, template, record) in golden().cases() {
        let turns = messages(&record);
        if case["template"] == "marked" || case["text"].is_null() || case["prompt"] == true {
            continue;
        }
        // Content in parts is given to this test's templates as strings.
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
                let said = tokenizer.decode(&example.ids[first..=last], false);
                match answered.strip_prefix(&before) {
                    Some(answer) => {
                        assert!(answer.trim_end() == said.trim_end(), "{case} {said:?}")
                    }
                    // Mistral's moves the system message once the last message of the user's is answered.
                    None if case["template"] == "mistral" => {
                        assert!(answered.ends_with(&said), "{case}")
                    }
                    // DeepSeek-R1's prompt begins the thought that its answers are written without.
                    None => {
                        assert!(case["template"] == "deepseek_r1", "{case} {said:?}");
                        let (_, answer) = said.split_once("</think>").unwrap();
                        assert!(answered.ends_with(answer.trim_start()), "{case} {said:?}");
                    }
                }
                found += 1;
                apart += usize::from(examples.len() > 1);
            }
            // Templates that know no thoughts apart, or that write a call alone.
            Err(TextError::LostWords { words, .. }) => {
                assert!(
                    ["hm", "so", "Let me look.", "weather"].contains(&words.as_str()),
                    "{case} {words}"
                );
                lost += 1;
            }
            // DeepSeek-R1's prompt begins to think where its answer does not.
            Err(TextError::OtherAnswer { .. }) => {
                assert!(case["template"] == "deepseek_r1", "{case}");
            }
            Err(error) => panic!("{case} {error}"),
        }
    }
    assert!(found > 60 && apart > 2 && lost > 2, "{found} {apart} {lost}");
}

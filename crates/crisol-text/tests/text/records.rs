//! Parsing of JSON records, and their errors.

use crisol_text::{
    Body, Message, ReadOptions, TextError, Turns, jsonl_records, parse_jsonl, records,
};

use crate::fixture;

fn body(line: &str) -> Body {
    let mut records = parse_jsonl("f.jsonl", line).unwrap();
    assert_eq!(records.len(), 1);
    records.remove(0).body
}

fn error(line: &str) -> String {
    // The malformed line is the third, after a valid record and a blank line.
    let text = format!("{{\"text\": \"good\"}}\n\n{line}\n{{\"text\": \"good\"}}\n");
    let message = parse_jsonl("data/f.jsonl", &text).unwrap_err().to_string();
    assert!(message.starts_with("data/f.jsonl:3: "), "{message}");
    message
}

fn plain(text: &str) -> Turns {
    Turns::Plain(text.to_owned())
}

#[test]
fn every_shape_is_read() {
    let (hi, yo) = (Message::user("hi"), Message::assistant("yo"));
    let (m_hi, m_yo) =
        (r#"{"role": "user", "content": "hi"}"#, r#"{"role": "assistant", "content": "yo"}"#);
    assert_eq!(body(r#"{"text": "a\nb"}"#), Body::Text { text: "a\nb".to_owned() });
    let chat = Body::Chat { messages: vec![hi.clone(), yo.clone()] };
    assert_eq!(body(&format!(r#"{{"messages": [{m_hi}, {m_yo}]}}"#)), chat);
    let completion = Body::Completion { prompt: plain("1+1="), completion: plain("2") };
    assert_eq!(body(r#"{"completion": "2", "prompt": "1+1="}"#), completion);
    let problem = Body::Problem { prompt: plain("1+1?"), answer: "2".to_owned(), solution: None };
    assert_eq!(body(r#"{"prompt": "1+1?", "answer": "2"}"#), problem);
    assert_eq!(body(r#"{"prompt": "1+1?", "answer": 2}"#), problem);
    let preference = Body::Preference {
        prompt: Turns::Chat(vec![hi]),
        chosen: Turns::Chat(vec![yo]),
        rejected: Turns::Chat(vec![Message::assistant("no")]),
    };
    let m_no = r#"{"role": "assistant", "content": "no"}"#;
    assert_eq!(
        body(&format!(r#"{{"prompt": [{m_hi}], "chosen": [{m_yo}], "rejected": [{m_no}]}}"#)),
        preference
    );
    // Without `prompt`, the prompt is the common first messages.
    assert_eq!(
        body(&format!(r#"{{"chosen": [{m_hi}, {m_yo}], "rejected": [{m_hi}, {m_no}]}}"#)),
        preference
    );
}

#[test]
fn the_prompt_of_a_text_pair_is_the_common_prefix() {
    // It ends neither inside a word nor inside a character.
    let expected = Body::Preference {
        prompt: plain("The day was"),
        chosen: plain(" cálido"),
        rejected: plain(" cèlido"),
    };
    assert_eq!(
        body(r#"{"chosen": "The day was cálido", "rejected": "The day was cèlido"}"#),
        expected
    );
}

#[test]
fn other_string_fields_are_kept() {
    let line = r#"{"kind": "fact", "text": "x", "source": "world", "weight": 2, "tags": ["a"]}"#;
    let record = parse_jsonl("f", line).unwrap().remove(0);
    assert_eq!(record.kind(), Some("fact"));
    let extra: Vec<_> = record.extra.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(extra, [("kind", "fact"), ("source", "world")]);
    assert_eq!(record.location, "f:1");
}

#[test]
fn blank_lines_byte_order_mark_and_line_ends_are_ignored() {
    let text = "\u{FEFF}{\"text\": \"a\"}\r\n\r\n  \t\n{\"text\": \"b\"}";
    let records = parse_jsonl("f", text).unwrap();
    let locations: Vec<_> = records.iter().map(|record| record.location.as_str()).collect();
    assert_eq!(locations, ["f:1", "f:4"]);
}

#[test]
fn files_without_records_are_errors() {
    for text in ["", "\n\n", "  \n", "\u{FEFF}"] {
        assert!(matches!(parse_jsonl("f", text), Err(TextError::NoRecords { .. })), "{text:?}");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("empty.jsonl");
    let read = || records(path.to_str().unwrap(), &ReadOptions::default()).unwrap().next().unwrap();
    assert!(matches!(read(), Err(TextError::Read { .. })));
    std::fs::write(&path, "").unwrap();
    let message = read().unwrap_err().to_string();
    assert!(message.contains("empty.jsonl") && message.contains("no records"), "{message}");
}

#[test]
fn errors_name_line_cause_and_remedy() {
    let message = error(r#"{"text": "cut off"#);
    assert!(message.contains("not JSON: EOF while parsing a string at column 17"), "{message}");
    assert!(error("[1, 2]").contains("not an object"));
    assert!(error("null").contains("not an object"));
    assert!(error("[").contains("not JSON: EOF while parsing a list"));
    let message = error(r#"{"query": "q", "reply": 3, "tags": null}"#);
    assert!(message.contains("`query`, `reply`, `tags` (null)"), "{message}");
    assert!(message.contains("text, messages, prompt + completion"), "{message}");
    assert!(error("{}").contains("(none)"));
    assert!(error(r#"{"text": null}"#).contains("`text` (null)"));
    assert!(error(r#"{"text": 3}"#).contains("`text` is a number; make it a string"));
    assert!(error(r#"{"messages": "hi"}"#).contains("`messages` is a string; make it a list of"));
    assert!(
        error(r#"{"messages": [{"role": "user"}]}"#)
            .contains("message 0 (from 0), whose `content` is missing")
    );
    assert!(
        error(r#"{"messages": [{"role": 1, "content": ""}]}"#).contains("whose `role` is a number")
    );
    assert!(error(r#"{"messages": ["hi"]}"#).contains("which is a string"));
    let mixed = error(
        r#"{"prompt": "p", "chosen": "a", "rejected": [{"role": "assistant", "content": "b"}]}"#,
    );
    assert!(mixed.contains("use one form for both"), "{mixed}");
    assert!(
        error(r#"{"chosen": "a", "rejected": "a"}"#)
            .contains("are the same; such pairs are left out")
    );
    let hi = r#"{"role": "user", "content": "hi"}"#;
    let yo = r#"{"role": "assistant", "content": "yo"}"#;
    assert!(
        error(&format!(r#"{{"chosen": [{hi}], "rejected": [{yo}]}}"#))
            .contains("has no first message in common")
    );
    assert!(
        error(&format!(r#"{{"chosen": [{hi}, {yo}], "rejected": [{hi}]}}"#))
            .contains("only the beginning")
    );
}

#[test]
fn records_without_trained_tokens_are_errors() {
    assert!(error(r#"{"text": ""}"#).contains("no token is trained"));
    assert!(error(r#"{"messages": []}"#).contains("no token is trained"));
}

#[test]
fn invalid_utf8_is_named_by_line_and_byte() {
    let mut bytes = b"{\"text\": \"a\"}\n{\"text\": \"".to_vec();
    bytes.extend([b'x', 0xFF, b'"', b'}', b'\n']);
    bytes.extend(b"{\"text\": \"b\"}\n");
    let lines: Vec<_> = jsonl_records("f", &bytes).collect();
    assert_eq!(lines.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true]);
    let message = lines[1].as_ref().unwrap_err().to_string();
    assert!(message.starts_with("f:2: invalid UTF-8 at byte 12"), "{message}");
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let text = format!("{{\"text\": {}}}", "[".repeat(200_000));
    assert!(matches!(parse_jsonl("f", &text), Err(TextError::Malformed { .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200),
    ) {
        let _ = jsonl_records("f", &bytes).count();
    }

    #[test]
    fn no_json_makes_the_reader_panic(
        first in r#""(text|messages|prompt|chosen)": [\[\]{}",:a1éx -]{0,20}"#,
        second in r#""(rejected|completion|answer)": ("a"|\[\]|1|\{\})"#,
    ) {
        let text = format!("{{{first}, {second}}}");
        let _ = parse_jsonl("f", &text);
    }
}

#[test]
fn messages_keep_all_fields_for_the_template() {
    let parts = r#"[{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]"#;
    let user = format!(r#"{{"role": "user", "content": {parts}, "name": "Ana"}}"#);
    let call = r#"{"role": "assistant", "content": null, "tool_calls": [{"id": 1}], "name": null}"#;
    let answer = r#"{"role": "assistant", "content": "c", "name": null}"#;
    let clock = r#"[{"name": "clock"}]"#;
    let lines = [
        format!(r#"{{"messages": [{user}, {call}, {answer}], "tools": {clock}}}"#),
        format!(r#"{{"messages": [{answer}], "tools": {clock:?}}}"#),
        format!(r#"{{"messages": [{answer}], "tools": null}}"#),
    ];
    let records = parse_jsonl("x", &lines.join("\n")).unwrap();
    let tools = |i: usize| serde_json::to_string(&records[i].tools).unwrap();
    assert_eq!(
        (tools(0), tools(1), tools(2)),
        (r#"[{"name":"clock"}]"#.into(), r#"[{"name":"clock"}]"#.into(), "[]".into())
    );
    let Body::Chat { messages } = &records[0].body else { panic!() };
    let contents: Vec<&str> = messages.iter().map(|message| message.content.as_str()).collect();
    assert_eq!(contents, ["ab", "", "c"]);
    // A null field is an absent one.
    assert_eq!(messages[2], Message::assistant("c"));
    let source = "{% for m in messages %}{{ m|tojson }}{% endfor %}{{ tools|tojson }}";
    let template = fixture::template(source, "", "").with_tools(records[0].tools.clone());
    let call = r#"{"role": "assistant", "tool_calls": [{"id": 1}]}"#;
    let answer = r#"{"role": "assistant", "content": "c"}"#;
    assert_eq!(template.render(messages, false).unwrap(), format!("{user}{call}{answer}{clock}"));
    let error = |line: &str| parse_jsonl("x", line).unwrap_err().to_string();
    let image =
        error(r#"{"messages": [{"role": "user", "content": [{"type": "image", "url": "x"}]}]}"#);
    assert!(
        image.contains("message 0 (from 0), whose `content` has a part of type \"image\""),
        "{image}"
    );
    assert!(
        error(r#"{"messages": [{"role": "user", "content": [{}]}]}"#)
            .contains("a part without text")
    );
    assert!(
        error(r#"{"messages": [{"role": "user", "content": null}]}"#)
            .contains("whose `content` is missing")
    );
    let prompt = |tools: &str| error(&format!(r#"{{"prompt": "a", "tools": {tools}}}"#));
    assert!(prompt("3").contains("`tools` is a number; make it a list of JSON schemas"));
    assert!(
        prompt("[3]").contains("`tools` has an entry that is not an object")
            && prompt("\"x\"").contains("`tools` is a string")
    );
}

/// In every shape of record.
#[test]
fn tools_of_a_record_reach_the_template() {
    let mut setup = fixture::setup();
    let source = "{% for t in tools or [] %}{{ t.name }};{% endfor %}".to_owned()
        + setup.template.as_ref().unwrap().source();
    setup.template = Some(fixture::template(&source, "", "<|eos|>"));
    let encode = |line: &str| {
        let record = parse_jsonl("x", line).unwrap().remove(0);
        let ids = match record.body {
            Body::Prompt { .. } => setup.prompt(&record).unwrap(),
            Body::Preference { .. } => {
                fixture::single(setup.preference(&record, 99).unwrap().examples).chosen.ids
            }
            _ => fixture::single(setup.supervised(&record, 99).unwrap().examples).ids,
        };
        setup.tokenizer.decode(&ids, false)
    };
    let tools = r#""tools": [{"name": "clock"}]"#;
    let turn = |role: &str| format!(r#"[{{"role": "{role}", "content": "a"}}]"#);
    for (line, text) in [
        (
            format!(r#"{{"prompt": {}, {tools}}}"#, turn("user")),
            "clock;<|user|>a<|end|><|assistant|>",
        ),
        (
            format!(r#"{{"messages": {}, {tools}}}"#, turn("assistant")),
            "clock;<|assistant|>a<|end|>",
        ),
        (
            format!(r#"{{"prompt": {}, "completion": "b", {tools}}}"#, turn("user")),
            "clock;<|user|>a<|end|><|assistant|>b<|end|>",
        ),
        (
            format!(r#"{{"prompt": {}, "chosen": "b", "rejected": "c", {tools}}}"#, turn("user")),
            "clock;<|user|>a<|end|><|assistant|>b<|end|>",
        ),
        (format!(r#"{{"prompt": {}}}"#, turn("user")), "<|user|>a<|end|><|assistant|>"),
    ] {
        assert_eq!(encode(&line), text);
    }
}

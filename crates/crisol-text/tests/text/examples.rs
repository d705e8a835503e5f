//! Records encoded as examples.

use crisol_text::{
    Example, OverlongPolicy, ProblemExample, Record, StringFormat, TextError, TextOptions,
    TextSetup, encode_chunks, encode_records, parse_jsonl,
};

use crate::fixture::{self, single};

fn record(line: &str) -> Record {
    parse_jsonl("f.jsonl", line).unwrap().remove(0)
}

#[test]
fn every_token_of_a_split_text_is_a_target_once() {
    let setup = fixture::setup();
    let texts = ["The capital of Peru is Lima, and 12345 more.", "hello", "Who says so? 日本語 😀"];
    let unsplit = setup.text_documents(&texts, 1000).unwrap();
    assert_eq!(unsplit.len(), 3);
    for (text, document) in texts.iter().zip(&unsplit) {
        let expected = [setup.tokenizer.encode(text).unwrap(), vec![setup.eos]].concat();
        assert_eq!(*document, Example { trained: vec![true; expected.len()], ids: expected });
    }
    for context in 2..30 {
        let mut pieces = setup.text_documents(&texts, context).unwrap().into_iter();
        for document in &unsplit {
            let mut targets = vec![];
            while targets.len() + 1 < document.ids.len() {
                let piece = pieces.next().unwrap();
                assert!((2..=context).contains(&piece.ids.len()));
                assert_eq!(
                    piece.ids[0],
                    document.ids[targets.len()],
                    "a piece starts with the last token of the previous"
                );
                targets.extend_from_slice(&piece.ids[1..]);
            }
            assert_eq!(targets, document.ids[1..]);
        }
        assert!(pieces.next().is_none());
    }
}

#[test]
fn an_empty_text_gives_no_document() {
    assert!(fixture::setup().text_documents(&["", ""], 8).unwrap().is_empty());
}

#[test]
fn a_text_completion_trains_the_completion_and_an_end_of_text() {
    let setup = fixture::setup();
    // Joined, "is Lima" has no token for the space alone with which the second prompt ends.
    for (prompt, completion) in
        [("The capital of Peru is", " Lima"), ("The capital of Peru is ", "Lima")]
    {
        let line = serde_json::json!({"prompt": prompt, "completion": completion}).to_string();
        let example = single(setup.supervised(&record(&line), 100).unwrap().examples);
        let expected = fixture::example_of(
            &setup.tokenizer,
            &[(prompt, false), (completion, true), ("<|eos|>", true)],
        );
        assert_eq!(example, expected);
    }
}

#[test]
fn a_conversational_completion_trains_only_the_completion() {
    let setup = fixture::setup();
    let line = r#"{"prompt": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hello"}, {"role": "user", "content": "who?"}],
        "completion": [{"role": "assistant", "content": "world"}]}"#;
    let expected = fixture::example_of(
        &setup.tokenizer,
        &[
            ("<|user|>hi<|end|><|assistant|>hello<|end|><|user|>who?<|end|><|assistant|>", false),
            ("world<|end|>", true),
        ],
    );
    let line = line.replace('\n', "");
    assert_eq!(single(setup.supervised(&record(&line), 100).unwrap().examples), expected);
    let plain = line.replace(r#"[{"role": "assistant", "content": "world"}]"#, r#""world""#);
    assert_eq!(single(setup.supervised(&record(&plain), 100).unwrap().examples), expected);
}

#[test]
fn an_answer_is_trained_if_the_template_renders_earlier_turns_differently() {
    // Like Qwen 3's: only the last turn keeps its thought.
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content if loop.last else \
        m.content.split('</think>')[-1]) + '<|end|>' }}{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";
    let mut setup = fixture::setup();
    setup.template = Some(fixture::template(source, "", ""));
    let line = r#"{"prompt": [{"role": "user", "content": "hi"},
        {"role": "assistant", "content": "<think>a</think>hello"},
        {"role": "user", "content": "who?"}], "completion": "<think>b</think>world"}"#;
    let expected = fixture::example_of(
        &setup.tokenizer,
        &[
            ("<|user|>hi<|end|><|assistant|>hello<|end|><|user|>who?<|end|><|assistant|>", false),
            ("<think>b</think>world<|end|>", true),
        ],
    );
    assert_eq!(
        single(setup.supervised(&record(&line.replace('\n', "")), 100).unwrap().examples),
        expected
    );
}

#[test]
fn both_examples_of_a_preference_start_with_the_prompt() {
    let setup = fixture::setup();
    let line = serde_json::json!({
        "prompt": "Who says so?",
        "chosen": [{"role": "assistant", "content": "The user"}],
        "rejected": [{"role": "assistant", "content": "nobody"}],
    });
    let pair = single(setup.preference(&record(&line.to_string()), 100).unwrap().examples);
    let prompt = "<|user|>Who says so?<|end|><|assistant|>";
    assert_eq!(pair.prompt, setup.tokenizer.encode(prompt).unwrap());
    let side =
        |answer: &str| fixture::example_of(&setup.tokenizer, &[(prompt, false), (answer, true)]);
    assert_eq!(pair.chosen, side("The user<|end|>"));
    assert_eq!(pair.rejected, side("nobody<|end|>"));

    let plain = single(
        setup
            .preference(&record(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#), 100)
            .unwrap()
            .examples,
    );
    assert_eq!(plain.prompt, setup.tokenizer.encode("a").unwrap());
    let side = |answer| {
        fixture::example_of(&setup.tokenizer, &[("a", false), (answer, true), ("<|eos|>", true)])
    };
    assert_eq!((plain.chosen, plain.rejected), (side("b"), side("c")));
}

/// In all phases, a string is raw text, and messages are rendered by the template.
#[test]
fn a_string_is_raw_text_unless_the_options_make_it_a_message() {
    let setup = fixture::setup();
    let prompt = "<|user|>2+2?<|end|><|assistant|>";
    let ids = |text: &str| setup.tokenizer.encode(text).unwrap();
    let string = record(r#"{"prompt": "2+2?", "answer": "4"}"#);
    let message = record(r#"{"prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"}"#);
    let problem =
        |setup: &TextSetup, record: &Record| single(setup.problem(record, 100).unwrap().examples);
    assert_eq!(
        problem(&setup, &string),
        ProblemExample { prompt: ids("2+2?"), answer: "4".to_owned() }
    );
    assert_eq!(problem(&setup, &message).prompt, ids(prompt));
    assert_eq!(setup.problem(&string, 100).unwrap().summary.raw_prompts, 1);
    assert_eq!(setup.problem(&message, 100).unwrap().summary.raw_prompts, 0);

    let mut as_messages = fixture::setup();
    as_messages
        .set_options(TextOptions { strings: StringFormat::Message, ..TextOptions::default() });
    assert_eq!(problem(&as_messages, &string).prompt, ids(prompt));
    assert_eq!(as_messages.problem(&string, 100).unwrap().summary.raw_prompts, 0);
    let completion = record(r#"{"prompt": "2+2?", "completion": "4"}"#);
    let expected = fixture::example_of(&setup.tokenizer, &[(prompt, false), ("4<|end|>", true)]);
    assert_eq!(single(as_messages.supervised(&completion, 100).unwrap().examples), expected);
    let pair = record(r#"{"prompt": "2+2?", "chosen": "4", "rejected": "5"}"#);
    assert_eq!(single(as_messages.preference(&pair, 100).unwrap().examples).chosen, expected);
    assert_eq!(setup.preference(&pair, 100).unwrap().summary.raw_prompts, 1);

    let mut base = setup;
    base.template = None;
    assert_eq!(base.problem(&string, 100).unwrap().summary.raw_prompts, 0);
    let chat = record(r#"{"messages": [{"role": "user", "content": "a"}]}"#);
    let error = base.supervised(&chat, 9).unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl:1: ") && error.contains("chat template"), "{error}");
}

fn setup_with(too_long: OverlongPolicy) -> TextSetup {
    let mut setup = fixture::setup();
    setup.set_options(TextOptions { too_long, ..TextOptions::default() });
    setup
}

/// Regression test of report 34.
#[test]
fn overlong_records_are_cut_dropped_or_refused_and_counted() {
    let setup = fixture::setup();
    let line = record(r#"{"prompt": "12345", "completion": "678"}"#);
    let at = |context| setup.supervised(&line, context).unwrap();
    assert_eq!((single(at(9).examples).ids.len(), at(9).summary.truncated), (9, 0));
    let cut = single(at(6).examples);
    assert_eq!(setup.tokenizer.decode(&cut.ids, false), "123456");
    assert_eq!(cut.trained, [false, false, false, false, false, true]);
    assert_eq!((at(6).summary.truncated, at(6).summary.dropped), (1, 0));
    // No trained token is left.
    assert!(at(5).examples.is_empty());
    assert_eq!((at(5).summary.truncated, at(5).summary.dropped), (0, 1));
    let skipped = setup_with(OverlongPolicy::Skip).supervised(&line, 6).unwrap();
    assert_eq!((skipped.examples.len(), skipped.summary.dropped), (0, 1));
    let error = setup_with(OverlongPolicy::Error).supervised(&line, 6).unwrap_err().to_string();
    assert!(
        error.starts_with("f.jsonl:1: longer than the context of 6 tokens (its prompt has 5)"),
        "{error}"
    );
    assert_eq!(setup_with(OverlongPolicy::Error).supervised(&line, 9).unwrap().examples.len(), 1);

    let pair = record(r#"{"prompt": "12345", "chosen": "6", "rejected": "7"}"#);
    let dropped = setup.preference(&pair, 5).unwrap();
    assert_eq!((dropped.examples.len(), dropped.summary.dropped), (0, 1));
    let problem = record(r#"{"prompt": "12345", "answer": "6"}"#);
    assert_eq!(setup.problem(&problem, 6).unwrap().examples.len(), 1);
    assert_eq!(setup.problem(&problem, 5).unwrap().summary.dropped, 1);
    assert!(matches!(
        setup_with(OverlongPolicy::Error).problem(&problem, 5),
        Err(TextError::TooLong { .. })
    ));

    // Remaining examples keep the index of their record; it is an error if none remains.
    let records =
        parse_jsonl("f", "{\"prompt\": \"123456789\"}\n{\"prompt\": \"1\"}\n{\"prompt\": \"2\"}")
            .unwrap();
    let left = encode_records(&records, |record| setup.rollout_prompt(record, 5)).unwrap();
    assert_eq!((left.records, left.summary.records, left.summary.dropped), (vec![1, 2], 3, 1));
    let error =
        encode_records(&records[..1], |record| setup.rollout_prompt(record, 5)).unwrap_err();
    assert!(matches!(error, TextError::NoExamplesLeft { records: 1, .. }), "{error}");
    assert!(
        encode_records(&[], |record| setup.rollout_prompt(record, 5)).unwrap().examples.is_empty()
    );
    // The same chunk by chunk.
    let chunks = |records: &[Record]| {
        let mut kept = vec![];
        encode_chunks(
            records.iter().cloned().map(Ok::<_, TextError>),
            |record| setup.rollout_prompt(record, 5),
            |_, encoded| {
                kept.extend(encoded.records);
                Ok(())
            },
        )
        .map(|summary| (kept, summary.records, summary.dropped))
    };
    assert_eq!(chunks(&records).unwrap(), (vec![1, 2], 3, 1));
    let error = chunks(&records[..1]).unwrap_err();
    assert!(matches!(error, TextError::NoExamplesLeft { records: 1, .. }), "{error}");
    assert_eq!(chunks(&[]).unwrap(), (vec![], 0, 0));
}

/// Regression test of report 09: such pairs have no preference.
#[test]
fn pairs_with_equal_tokens_within_the_context_are_dropped_and_counted() {
    let setup = fixture::setup();
    let pair = record(r#"{"prompt": "12", "chosen": "3456", "rejected": "3457"}"#);
    let at = |context| setup.preference(&pair, context).unwrap();
    assert_eq!(
        (at(5).examples.len(), at(5).summary.equal_pairs, at(5).summary.truncated),
        (0, 1, 0)
    );
    assert_eq!(
        (at(6).examples.len(), at(6).summary.equal_pairs, at(6).summary.truncated),
        (1, 0, 1)
    );
    assert_eq!((at(7).examples.len(), at(7).summary.truncated), (1, 0));
    let notes = at(5).summary.notes(5);
    assert!(
        notes.len() == 2 && notes[0].contains("1 dropped, because both answers are the same"),
        "{notes:?}"
    );
}

#[test]
fn a_conversation_without_the_assistant_is_an_error() {
    let line = r#"{"messages": [{"role": "user", "content": "hello?"}]}"#;
    let error = fixture::setup().supervised(&record(line), 100).unwrap_err();
    assert!(matches!(error, TextError::NoTrainedTokens { .. }));
    assert!(error.to_string().starts_with("f.jsonl:1: no token is trained"), "{error}");
}

#[test]
fn a_record_of_another_shape_is_refused_by_name() {
    let setup = fixture::setup();
    let text = record(r#"{"text": "a"}"#);
    for error in [setup.preference(&text, 9).unwrap_err(), setup.problem(&text, 9).unwrap_err()] {
        assert!(error.to_string().starts_with("f.jsonl:1: a text record, where "), "{error}");
    }
}

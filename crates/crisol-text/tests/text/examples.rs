use crisol_text::{
    Example, ProblemExample, Record, Strings, TextError, TextOptions, TextSetup, TooLong,
    encode_records, parse_jsonl,
};

use crate::fixture::{self, one};

fn record(line: &str) -> Record {
    parse_jsonl("f.jsonl", line).unwrap().remove(0)
}

#[test]
fn texts_become_documents_in_which_every_token_is_a_target_once() {
    let setup = fixture::setup();
    let texts = ["The capital of Peru is Lima, and 12345 more.", "hello", "Who says so? 日本語 😀"];
    let whole = setup.text_documents(&texts, 1000).unwrap();
    assert_eq!(whole.len(), 3);
    for (text, document) in texts.iter().zip(&whole) {
        let expected = [setup.tokenizer.encode(text).unwrap(), vec![setup.eos]].concat();
        assert_eq!(*document, Example { trained: vec![true; expected.len()], ids: expected });
    }
    for context in 2..30 {
        let mut pieces = setup.text_documents(&texts, context).unwrap().into_iter();
        for document in &whole {
            let mut targets = vec![];
            while targets.len() + 1 < document.ids.len() {
                let piece = pieces.next().unwrap();
                assert!((2..=context).contains(&piece.ids.len()));
                assert_eq!(
                    piece.ids[0],
                    document.ids[targets.len()],
                    "a piece starts where the one before ended"
                );
                targets.extend_from_slice(&piece.ids[1..]);
            }
            assert_eq!(targets, document.ids[1..]);
        }
        assert!(pieces.next().is_none());
    }
}

#[test]
fn an_empty_text_is_no_document() {
    assert!(fixture::setup().text_documents(&["", ""], 8).unwrap().is_empty());
}

#[test]
fn a_plain_completion_trains_the_completion_and_its_end() {
    let setup = fixture::setup();
    // A prompt that ends in a space: encoded as a whole, "is Lima" has no token for that space alone.
    for (prompt, completion) in
        [("The capital of Peru is", " Lima"), ("The capital of Peru is ", "Lima")]
    {
        let line = serde_json::json!({"prompt": prompt, "completion": completion}).to_string();
        let example = one(setup.supervised(&record(&line), 100).unwrap().examples);
        let expected = fixture::parts(
            &setup.tokenizer,
            &[(prompt, false), (completion, true), ("<|eos|>", true)],
        );
        assert_eq!(example, expected);
    }
}

#[test]
fn a_conversational_completion_trains_only_the_completion() {
    let setup = fixture::setup();
    let line = r#"{"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"},
        {"role": "user", "content": "who?"}], "completion": [{"role": "assistant", "content": "world"}]}"#;
    let expected = fixture::parts(
        &setup.tokenizer,
        &[
            ("<|user|>hi<|end|><|assistant|>hello<|end|><|user|>who?<|end|><|assistant|>", false),
            ("world<|end|>", true),
        ],
    );
    let line = line.replace('\n', "");
    assert_eq!(one(setup.supervised(&record(&line), 100).unwrap().examples), expected);
    let plain = line.replace(r#"[{"role": "assistant", "content": "world"}]"#, r#""world""#);
    assert_eq!(one(setup.supervised(&record(&plain), 100).unwrap().examples), expected);
}

#[test]
fn an_answer_is_trained_though_the_template_rewrites_the_turns_before_it() {
    // As Qwen 3's does: thoughts are shown only in the last turn.
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content if loop.last else \
        m.content.split('</think>')[-1]) + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}";
    let mut setup = fixture::setup();
    setup.template = Some(fixture::template(source, "", ""));
    let line = r#"{"prompt": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "<think>a</think>hello"},
        {"role": "user", "content": "who?"}], "completion": "<think>b</think>world"}"#;
    let expected = fixture::parts(
        &setup.tokenizer,
        &[
            ("<|user|>hi<|end|><|assistant|>hello<|end|><|user|>who?<|end|><|assistant|>", false),
            ("<think>b</think>world<|end|>", true),
        ],
    );
    assert_eq!(
        one(setup.supervised(&record(&line.replace('\n', "")), 100).unwrap().examples),
        expected
    );
}

#[test]
fn both_sides_of_a_preference_start_with_the_prompt() {
    let setup = fixture::setup();
    let line = r#"{"prompt": "Who says so?", "chosen": [{"role": "assistant", "content": "The user"}], "rejected": [{"role": "assistant", "content": "nobody"}]}"#;
    let pair = one(setup.preference(&record(line), 100).unwrap().examples);
    let prompt = "<|user|>Who says so?<|end|><|assistant|>";
    assert_eq!(pair.prompt, setup.tokenizer.encode(prompt).unwrap());
    let side = |answer: &str| fixture::parts(&setup.tokenizer, &[(prompt, false), (answer, true)]);
    assert_eq!(pair.chosen, side("The user<|end|>"));
    assert_eq!(pair.rejected, side("nobody<|end|>"));

    let plain = one(setup
        .preference(&record(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#), 100)
        .unwrap()
        .examples);
    assert_eq!(plain.prompt, setup.tokenizer.encode("a").unwrap());
    let side = |answer| {
        fixture::parts(&setup.tokenizer, &[("a", false), (answer, true), ("<|eos|>", true)])
    };
    assert_eq!((plain.chosen, plain.rejected), (side("b"), side("c")));
}

/// One rule in every phase: a string is raw text, and messages go through the template.
#[test]
fn a_string_is_raw_text_unless_it_is_to_be_a_message() {
    let setup = fixture::setup();
    let asked = "<|user|>2+2?<|end|><|assistant|>";
    let ids = |text: &str| setup.tokenizer.encode(text).unwrap();
    let string = record(r#"{"prompt": "2+2?", "answer": "4"}"#);
    let message = record(r#"{"prompt": [{"role": "user", "content": "2+2?"}], "answer": "4"}"#);
    let problem =
        |setup: &TextSetup, record: &Record| one(setup.problem(record, 100).unwrap().examples);
    assert_eq!(
        problem(&setup, &string),
        ProblemExample { prompt: ids("2+2?"), answer: "4".to_owned() }
    );
    assert_eq!(problem(&setup, &message).prompt, ids(asked));
    assert_eq!(setup.problem(&string, 100).unwrap().summary.raw_prompts, 1);
    assert_eq!(setup.problem(&message, 100).unwrap().summary.raw_prompts, 0);

    let mut as_messages = fixture::setup();
    as_messages.set_options(TextOptions { strings: Strings::Message, ..TextOptions::default() });
    assert_eq!(problem(&as_messages, &string).prompt, ids(asked));
    assert_eq!(as_messages.problem(&string, 100).unwrap().summary.raw_prompts, 0);
    let completion = record(r#"{"prompt": "2+2?", "completion": "4"}"#);
    let expected = fixture::parts(&setup.tokenizer, &[(asked, false), ("4<|end|>", true)]);
    assert_eq!(one(as_messages.supervised(&completion, 100).unwrap().examples), expected);
    let pair = record(r#"{"prompt": "2+2?", "chosen": "4", "rejected": "5"}"#);
    assert_eq!(one(as_messages.preference(&pair, 100).unwrap().examples).chosen, expected);
    assert_eq!(setup.preference(&pair, 100).unwrap().summary.raw_prompts, 1);

    let mut base = setup;
    base.template = None;
    assert_eq!(base.problem(&string, 100).unwrap().summary.raw_prompts, 0);
    let chat = record(r#"{"messages": [{"role": "user", "content": "a"}]}"#);
    let error = base.supervised(&chat, 9).unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl:1: ") && error.contains("chat template"), "{error}");
}

fn with(too_long: TooLong) -> TextSetup {
    let mut setup = fixture::setup();
    setup.set_options(TextOptions { too_long, ..TextOptions::default() });
    setup
}

/// 34: what does not fit is cut, dropped or refused, as asked, and counted.
#[test]
fn what_is_longer_than_the_context_is_counted() {
    let setup = fixture::setup();
    let line = record(r#"{"prompt": "12345", "completion": "678"}"#);
    let at = |context| setup.supervised(&line, context).unwrap();
    assert_eq!((one(at(9).examples).ids.len(), at(9).summary.cut), (9, 0));
    let cut = one(at(6).examples);
    assert_eq!(setup.tokenizer.decode(&cut.ids, false), "123456");
    assert_eq!(cut.trained, [false, false, false, false, false, true]);
    assert_eq!((at(6).summary.cut, at(6).summary.dropped), (1, 0));
    // Nothing to train is left.
    assert!(at(5).examples.is_empty());
    assert_eq!((at(5).summary.cut, at(5).summary.dropped), (0, 1));
    let skipped = with(TooLong::Skip).supervised(&line, 6).unwrap();
    assert_eq!((skipped.examples.len(), skipped.summary.dropped), (0, 1));
    let error = with(TooLong::Error).supervised(&line, 6).unwrap_err().to_string();
    assert!(
        error.starts_with("f.jsonl:1: longer than the context of 6 tokens (its prompt has 5)"),
        "{error}"
    );
    assert_eq!(with(TooLong::Error).supervised(&line, 9).unwrap().examples.len(), 1);

    let pair = record(r#"{"prompt": "12345", "chosen": "6", "rejected": "7"}"#);
    let dropped = setup.preference(&pair, 5).unwrap();
    assert_eq!((dropped.examples.len(), dropped.summary.dropped), (0, 1));
    let problem = record(r#"{"prompt": "12345", "answer": "6"}"#);
    assert_eq!(setup.problem(&problem, 6).unwrap().examples.len(), 1);
    assert_eq!(setup.problem(&problem, 5).unwrap().summary.dropped, 1);
    assert!(matches!(with(TooLong::Error).problem(&problem, 5), Err(TextError::TooLong { .. })));

    // What is left knows its record; nothing left is an error.
    let records =
        parse_jsonl("f", "{\"prompt\": \"123456789\"}\n{\"prompt\": \"1\"}\n{\"prompt\": \"2\"}")
            .unwrap();
    let left = encode_records(&records, |record| setup.rollout_prompt(record, 5)).unwrap();
    assert_eq!((left.records, left.summary.records, left.summary.dropped), (vec![1, 2], 3, 1));
    let error =
        encode_records(&records[..1], |record| setup.rollout_prompt(record, 5)).unwrap_err();
    assert!(matches!(error, TextError::NothingLeft { records: 1, .. }), "{error}");
    assert!(
        encode_records(&[], |record| setup.rollout_prompt(record, 5)).unwrap().examples.is_empty()
    );
}

/// 09: pairs that differ only behind the cut teach nothing.
#[test]
fn pairs_that_are_equal_within_the_context_are_dropped_and_counted() {
    let setup = fixture::setup();
    let pair = record(r#"{"prompt": "12", "chosen": "3456", "rejected": "3457"}"#);
    let at = |context| setup.preference(&pair, context).unwrap();
    assert_eq!((at(5).examples.len(), at(5).summary.equal, at(5).summary.cut), (0, 1, 0));
    assert_eq!((at(6).examples.len(), at(6).summary.equal, at(6).summary.cut), (1, 0, 1));
    assert_eq!((at(7).examples.len(), at(7).summary.cut), (1, 0));
    let notes = at(5).summary.notes(5);
    assert!(
        notes.len() == 2 && notes[0].contains("1 dropped, because both answers are the same"),
        "{notes:?}"
    );
}

#[test]
fn a_conversation_without_the_assistant_trains_nothing() {
    let line = r#"{"messages": [{"role": "user", "content": "hello?"}]}"#;
    let error = fixture::setup().supervised(&record(line), 100).unwrap_err();
    assert!(matches!(error, TextError::TrainsNothing { .. }));
    assert!(error.to_string().starts_with("f.jsonl:1: trains no token at all"), "{error}");
}

#[test]
fn a_record_of_another_kind_is_refused_by_name() {
    let setup = fixture::setup();
    let text = record(r#"{"text": "a"}"#);
    for error in [setup.preference(&text, 9).unwrap_err(), setup.problem(&text, 9).unwrap_err()] {
        assert!(error.to_string().starts_with("f.jsonl:1: a text record, where "), "{error}");
    }
}

use crisol_text::{Example, Record, TextError, parse_jsonl};

use crate::fixture;

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
    for (prompt, completion) in [("The capital of Peru is", " Lima"), ("The capital of Peru is ", "Lima")] {
        let line = serde_json::json!({"prompt": prompt, "completion": completion}).to_string();
        let example = setup.supervised(&record(&line), 100).unwrap();
        let expected =
            fixture::parts(&setup.tokenizer, &[(prompt, false), (completion, true), ("<|eos|>", true)]);
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
    assert_eq!(setup.supervised(&record(&line), 100).unwrap(), expected);
    let plain = line.replace(r#"[{"role": "assistant", "content": "world"}]"#, r#""world""#);
    assert_eq!(setup.supervised(&record(&plain), 100).unwrap(), expected);
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
    assert_eq!(setup.supervised(&record(&line.replace('\n', "")), 100).unwrap(), expected);
}

#[test]
fn both_sides_of_a_preference_start_with_the_prompt() {
    let setup = fixture::setup();
    let line = r#"{"prompt": "Who says so?", "chosen": [{"role": "assistant", "content": "The user"}], "rejected": [{"role": "assistant", "content": "nobody"}]}"#;
    let pair = setup.preference(&record(line), 100).unwrap();
    let prompt = "<|user|>Who says so?<|end|><|assistant|>";
    assert_eq!(pair.prompt, setup.tokenizer.encode(prompt).unwrap());
    let side = |answer: &str| fixture::parts(&setup.tokenizer, &[(prompt, false), (answer, true)]);
    assert_eq!(pair.chosen, side("The user<|end|>"));
    assert_eq!(pair.rejected, side("nobody<|end|>"));

    let plain = setup.preference(&record(r#"{"prompt": "a", "chosen": "b", "rejected": "c"}"#), 100).unwrap();
    assert_eq!(plain.prompt, setup.tokenizer.encode("a").unwrap());
    let side = |answer| fixture::parts(&setup.tokenizer, &[("a", false), (answer, true), ("<|eos|>", true)]);
    assert_eq!((plain.chosen, plain.rejected), (side("b"), side("c")));
}

#[test]
fn a_problem_is_asked_as_the_user_asks() {
    let setup = fixture::setup();
    let problem = setup.problem(&record(r#"{"prompt": "2+2?", "answer": "4"}"#), 100).unwrap();
    assert_eq!(setup.tokenizer.decode(&problem.prompt, false), "<|user|>2+2?<|end|><|assistant|>");
    assert_eq!(problem.answer, "4");
    let mut base = setup;
    base.template = None;
    let problem = base.problem(&record(r#"{"prompt": "2+2?", "answer": "4"}"#), 100).unwrap();
    assert_eq!(base.tokenizer.decode(&problem.prompt, false), "2+2?");
    let chat = record(r#"{"messages": [{"role": "user", "content": "a"}]}"#);
    let error = base.supervised(&chat, 9).unwrap_err().to_string();
    assert!(error.starts_with("f.jsonl:1: ") && error.contains("chat template"), "{error}");
}

#[test]
fn long_examples_are_cut_and_prompts_that_fill_the_context_refused() {
    let setup = fixture::setup();
    let line = r#"{"prompt": "12345", "completion": "678"}"#;
    let at = |context| setup.supervised(&record(line), context);
    assert_eq!(at(9).unwrap().ids.len(), 9);
    let cut = at(6).unwrap();
    assert_eq!(setup.tokenizer.decode(&cut.ids, false), "123456");
    assert_eq!(cut.trained, [false, false, false, false, false, true]);
    let error = at(5).unwrap_err();
    assert!(matches!(error, TextError::PromptFillsContext { prompt: 5, context: 5, .. }));
    assert!(error.to_string().starts_with("f.jsonl:1: the prompt has 5 tokens"), "{error}");
    let pair = record(r#"{"prompt": "12345", "chosen": "6", "rejected": "7"}"#);
    assert!(matches!(setup.preference(&pair, 5), Err(TextError::PromptFillsContext { .. })));
    let problem = record(r#"{"prompt": "12345", "answer": "6"}"#);
    assert!(setup.problem(&problem, 9).is_ok());
    assert!(matches!(setup.problem(&problem, 8), Err(TextError::PromptFillsContext { .. })));
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
    for error in [
        setup.supervised(&text, 9).unwrap_err(),
        setup.preference(&text, 9).unwrap_err(),
        setup.problem(&text, 9).unwrap_err(),
    ] {
        assert!(error.to_string().starts_with("f.jsonl:1: a text record, where "), "{error}");
    }
}

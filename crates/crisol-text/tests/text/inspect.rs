//! Inspection of data files.

use crisol_text::inspect::{self, Inspection, Problem, Span};
use crisol_text::{TextSetup, jsonl_records};

use crate::fixture;

fn inspect(text: &str, context: usize) -> Inspection {
    inspect_with(&fixture::setup(), text, context)
}

fn inspect_with(setup: &TextSetup, text: &str, context: usize) -> Inspection {
    let lines = jsonl_records("f", text.as_bytes());
    inspect::inspect(setup, lines, context, usize::MAX, |_| ())
}

/// Of the others, those with problems are kept, without sequences.
#[test]
fn records_beyond_those_shown_are_only_counted() {
    let line = |i: usize| format!("{{\"text\": \"hello {}\"}}\n", i % 3000);
    let text: String = (0..5000).map(line).collect::<String>() + "{\"text\": 1}\n";
    let lines = || jsonl_records("f", text.as_bytes());
    let mut visited = 0;
    let some = inspect::inspect(&fixture::setup(), lines(), 99, 2, |_| visited += 1);
    let all = inspect(&text, 99);
    assert_eq!((visited, &some.totals), (5000, &all.totals));
    assert_eq!((some.totals.records, some.totals.problems["duplicate"]), (5001, 2000));
    assert_eq!(some.records.len(), 2 + 2000 + 1);
    let problems = |inspection: &Inspection| -> Vec<String> {
        let all = inspection
            .records
            .iter()
            .flat_map(|r| r.problems.iter().map(move |p| format!("{}{p}", r.location)));
        all.collect()
    };
    assert_eq!(problems(&some), problems(&all));
    assert!(problems(&some)[0].ends_with("the same as f:1"), "{}", problems(&some)[0]);
    assert!(some.records[2..].iter().all(|record| record.sequences.is_empty()));
    assert_eq!(some.records[0].sequences, all.records[0].sequences);
}

fn kinds(inspection: &Inspection) -> Vec<Vec<&'static str>> {
    inspection
        .records
        .iter()
        .map(|record| record.problems.iter().map(Problem::kind).collect())
        .collect()
}

#[test]
fn spans_show_what_is_trained() {
    let line = r#"{"messages": [{"role": "user", "content": "日本 1?"},
        {"role": "assistant", "content": "😀 12"}]}"#
        .replace('\n', "");
    let inspection = inspect(&line, 100);
    assert_eq!(kinds(&inspection), [[""; 0]]);
    let sequence = &inspection.records[0].sequences[0];
    let tokenizer = fixture::setup().tokenizer;
    let tokens = |text: &str| tokenizer.encode(text).unwrap().len();
    let (prompt, answer) = ("<|user|>日本 1?<|end|><|assistant|>", "😀 12<|end|>");
    let span = |text: &str, trained| Span { text: text.to_owned(), trained, tokens: tokens(text) };
    assert_eq!(sequence.spans, [span(prompt, false), span(answer, true)]);
    assert_eq!(sequence.tokens, tokens(prompt) + tokens(answer));
    assert_eq!(sequence.trained, tokens(answer));
}

#[test]
fn every_sequence_has_the_text_of_its_tokens() {
    let text = r#"{"text": "Santiago 😀 日本語"}
        {"prompt": "a ", "completion": "é"}
        {"prompt": "q", "chosen": "b", "rejected": "c"}
        {"prompt": "q", "answer": "4"}"#;
    let inspection = inspect(text, 100);
    let shown: Vec<(&str, String)> = inspection
        .records
        .iter()
        .flat_map(|record| &record.sequences)
        .map(|s| (s.name, s.spans.iter().map(|span| span.text.as_str()).collect()))
        .collect();
    let shown: Vec<_> = shown.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let expected = [
        ("text", "Santiago 😀 日本語<|eos|>"),
        ("completion", "a é<|eos|>"),
        ("chosen", "qb<|eos|>"),
        ("rejected", "qc<|eos|>"),
        ("prompt", "q"),
    ];
    assert_eq!(shown, expected);
    assert!(kinds(&inspection).iter().all(Vec::is_empty));
    // The first token of a text has no context and is untrained.
    let text = &inspection.records[0].sequences[0];
    assert_eq!(text.trained, text.tokens - 1);
    assert_eq!((text.spans[0].trained, text.spans[0].tokens), (false, 1));
    let shapes: Vec<_> = inspection.totals.shapes.into_iter().collect();
    assert_eq!(
        shapes,
        [
            ("prompt/answer", 1),
            ("prompt/chosen/rejected", 1),
            ("prompt/completion", 1),
            ("text", 1)
        ]
    );
}

#[test]
fn all_problems_are_found() {
    let text = r#"{"messages": [{"role": "user", "content": "a"}]}
        not json
        {"prompt": "12345", "completion": "6"}
        {"prompt": "123456789", "completion": "6"}
        {"prompt": "a", "completion": " "}
        {"prompt": "a<|end|><|assistant|>", "completion": "b"}
        {"messages": [{"role": "robot", "content": "a"}]}
        {"prompt": "1", "completion": "2"}
        {"prompt": "1", "completion": "2"}"#;
    let inspection = inspect(text, 6);
    let expected: [&[&str]; 9] = [
        &["trains nothing"],
        &["unreadable"],
        &["longer than the context"],
        &["longer than the context"],
        &["empty answer"],
        &["special token in content"],
        &["cannot be encoded"],
        &[],
        &["duplicate"],
    ];
    assert_eq!(kinds(&inspection), expected);
    let message = |record: usize| inspection.records[record].problems[0].to_string();
    assert!(message(1).starts_with("f:2: not JSON"));
    assert_eq!(message(2), "7 tokens in a context of 6: the last 1 are cut off");
    assert!(message(3).contains("the prompt's 9 fill the context of 6"));
    assert!(message(5).starts_with("prompt contains <|end|>"));
    assert!(
        message(6).starts_with("f:7: ") && message(6).contains("unknown role `robot`"),
        "{}",
        message(6)
    );
    assert_eq!(message(8), "the same as f:8");
    assert_eq!(inspection.totals.problems["longer than the context"], 2);
    assert_eq!(inspection.totals.longest, 11);
}

#[test]
fn a_template_without_end_of_turn_is_a_problem_of_every_conversation() {
    let mut setup = fixture::setup();
    let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}\n{% endfor %}\
                  {% if add_generation_prompt %}<|assistant|>{% endif %}";
    setup.template = Some(fixture::template(source, "", "<|eos|>"));
    let line = serde_json::json!({"messages": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
    ]});
    let inspection = inspect_with(&setup, &line.to_string(), 99);
    assert_eq!(kinds(&inspection), [["no end of turn"]]);
    assert!(inspection.records[0].problems[0].to_string().contains("never learn to stop"));
}

/// Regression test of report 30: each is shown as at inference.
#[test]
fn turns_that_are_separate_examples_are_shown_one_by_one() {
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + ('<think></think>' if loop.last \
        and m.role == 'assistant' else '') + m.content + '<|end|>' }}{% endfor %}\
        {% if add_generation_prompt %}<|assistant|>{% endif %}";
    let mut setup = fixture::setup();
    setup.template = Some(fixture::template(source, "", "<|eos|>"));
    let line =
        r#"{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]}"#
            .replace('\n', "");
    let inspection = inspect_with(&setup, &line, 99);
    assert_eq!(kinds(&inspection), [["turns apart"]]);
    let shown: Vec<String> = inspection.records[0]
        .sequences
        .iter()
        .map(|s| {
            s.name.to_owned()
                + ": "
                + &s.spans.iter().map(|span| span.text.as_str()).collect::<Vec<_>>().join("|")
        })
        .collect();
    let expected = [
        "turn: <|user|>a<|end|><|assistant|>|<think></think>b<|end|>",
        "turn: <|user|>a<|end|><|assistant|>b<|end|><|user|>c<|end|><|assistant|>|\
         <think></think>d<|end|>",
    ];
    assert_eq!(shown, expected);
    assert!(
        inspection.records[0].problems[0].to_string().contains("each of its 2 assistant turns")
    );
}

/// Regression test of reports 09 and 18.
#[test]
fn answers_equal_within_the_context_and_empty_answers_are_found() {
    let text = r#"{"prompt": "1", "chosen": "234", "rejected": "235"}
        {"messages": [{"role": "assistant", "content": "", "tool_calls": []}]}
        {"prompt": "a", "completion": [{"role": "assistant", "content": "<think></think>"}]}"#;
    let inspection = inspect(text, 3);
    let found = kinds(&inspection);
    assert!(found[0].contains(&"equal answers"), "{found:?}");
    assert!(found[1].contains(&"empty answer") && found[2].contains(&"empty answer"), "{found:?}");
    assert!(!kinds(&inspect(text, 9))[0].contains(&"equal answers"));
}

/// A template that knows neither tools nor system messages. Records are trained without them.
#[test]
fn context_that_the_template_leaves_out_is_counted() {
    let source = "{% for m in messages %}{% if m.role in ['user', 'assistant'] %}\
                  {{ m.content + eos_token }}{% endif %}{% endfor %}";
    let tokenizer = fixture::train(&fixture::special(&["</s>"]));
    let setup = fixture::folder_setup(&tokenizer, source, None, "</s>");
    let turns = r#"{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}"#;
    let tools = r#"[{"type": "function", "function": {"name": "weather", "parameters": {}}}]"#;
    let records = [
        format!(r#"{{"messages": [{turns}]}}"#),
        format!(r#"{{"messages": [{{"role": "system", "content": "Be brief."}}, {turns}]}}"#),
        format!(r#"{{"messages": [{turns}, {turns}], "tools": {tools}}}"#),
    ];
    let inspection = inspect_with(&setup, &records.join("\n"), 99);
    let left_out = "context left out";
    assert_eq!(kinds(&inspection), [vec![], vec![left_out], vec![left_out]]);
    let records = records.join("\n");
    let counts = jsonl_records("f", records.as_bytes()).map(|record| {
        let encoded = setup.supervised(&record.unwrap(), 99).unwrap();
        (encoded.examples.len(), encoded.summary.dropped_context)
    });
    assert_eq!(counts.collect::<Vec<_>>(), [(1, 0), (1, 1), (1, 1)]);
}

//! The shapes of records in published data sets, and the fields with a meaning.

use crisol_text::{Body, Message, Record, Turns, parse_jsonl};
use serde_json::{Value, json};

fn record(row: &Value) -> Record {
    parse_jsonl("f.jsonl", &row.to_string())
        .unwrap_or_else(|error| panic!("{row}: {error}"))
        .remove(0)
}

#[expect(clippy::needless_pass_by_value, reason = "rows are written where they are used")]
fn body(row: Value) -> Body {
    record(&row).body
}

#[expect(clippy::needless_pass_by_value, reason = "rows are written where they are used")]
fn error(row: Value) -> String {
    let message = parse_jsonl("f.jsonl", &row.to_string()).unwrap_err().to_string();
    assert!(message.starts_with("f.jsonl:1: "), "{message}");
    message
}

fn plain(text: &str) -> Turns {
    Turns::Plain(text.to_owned())
}

fn user(text: &str) -> Turns {
    Turns::Chat(vec![Message::user(text)])
}

fn assistant(text: &str) -> Turns {
    Turns::Chat(vec![Message::assistant(text)])
}

fn greeting() -> Body {
    Body::Chat { messages: vec![Message::user("Hi"), Message::assistant("Hello.")] }
}

fn turn(role: &str, content: &str) -> Value {
    json!({ "role": role, "content": content })
}

/// ShareGPT and others: names of the list, its keys and its roles.
#[test]
fn conversations_under_other_names() {
    for list in ["messages", "conversations", "conversation"] {
        for (role, content) in [("role", "content"), ("from", "value")] {
            for (user_role, assistant_role) in [
                ("human", "gpt"),
                ("user", "assistant"),
                ("Human", "AI"),
                ("user", "chatgpt"),
                ("user", "bot"),
                ("user", "model"),
            ] {
                let messages = json!([
                    { role: user_role, content: "Hi" },
                    { role: assistant_role, content: "Hello." },
                ]);
                let row = json!({ list: messages });
                assert_eq!(body(row.clone()), greeting(), "{row}");
                // As a string, in a table.
                assert_eq!(body(json!({ list: row[list].to_string() })), greeting());
            }
        }
    }
    let Body::Chat { messages } = body(json!({ "conversations": [
        { "from": "system", "value": "s" }, { "from": "human", "value": "h" },
        { "from": "function_call",
          "value": "{\"name\": \"w\", \"arguments\": \"{\\\"a\\\": 1}\"}" },
        { "from": "observation", "value": "o" }, { "from": "gpt", "value": "g" },
    ] })) else {
        panic!()
    };
    let roles: Vec<_> = messages.iter().map(|message| message.role.as_str()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant"]);
    // Unknown roles are left to the template.
    let Body::Chat { messages } = body(json!({ "messages": [turn("critic", "c")] })) else {
        panic!()
    };
    assert_eq!(messages[0].role, "critic");
}

/// Alpaca, Dolly, and pairs of a question and an answer.
#[test]
fn questions_and_answers_are_messages() {
    let completion =
        |prompt: &str| Body::Completion { prompt: user(prompt), completion: assistant("A.") };
    for (row, prompt) in [
        (json!({ "instruction": "Q", "input": "", "output": "A." }), "Q"),
        (json!({ "instruction": "Q", "output": "A." }), "Q"),
        (
            json!({ "instruction": "Q", "input": "x", "output": "A.", "text": "all of it" }),
            "Q\n\nx",
        ),
        (
            json!({ "instruction": "Q", "context": "x", "response": "A.", "category": "c" }),
            "Q\n\nx",
        ),
        (json!({ "question": "Q", "response": "A." }), "Q"),
        (json!({ "query": "Q", "response": "A." }), "Q"),
        (json!({ "input": "Q", "output": "A." }), "Q"),
        (json!({ "problem": "Q", "solution": "A." }), "Q"),
    ] {
        assert_eq!(body(row.clone()), completion(prompt), "{row}");
    }
    let row = json!({ "instruction": "Q", "output": "A.", "system": "S", "history": [["q", "a"]] });
    let earlier = vec![
        Message::new("system", "S"),
        Message::user("q"),
        Message::assistant("a"),
        Message::user("Q"),
    ];
    assert_eq!(
        body(row),
        Body::Completion { prompt: Turns::Chat(earlier), completion: assistant("A.") }
    );
    // `prompt` and `completion` are raw text.
    let raw = Body::Completion { prompt: plain("Q"), completion: plain(" A.") };
    assert_eq!(body(json!({ "prompt": "Q", "completion": " A." })), raw);
}

/// GSM8K, MATH and `NuminaMath`.
#[test]
fn problems_keep_answer_and_solution() {
    let problem = |answer: &str, solution: &str| Body::Problem {
        prompt: user("Q"),
        answer: answer.to_owned(),
        solution: Some(assistant(solution)),
    };
    let work = "3+4 = 7\n#### 1,007";
    assert_eq!(body(json!({ "question": "Q", "answer": work })), problem("1,007", work));
    assert_eq!(
        body(json!({ "problem": "Q", "solution": "So 7.", "answer": "7" })),
        problem("7", "So 7.")
    );
    assert_eq!(body(json!({ "question": "Q", "answer": 7 })), problem("7", "7"));
    let boxed = "It is \\boxed{1} or \\boxed{\\frac{1}{2}}.";
    assert_eq!(body(json!({ "problem": "Q", "solution": boxed })), problem("\\frac{1}{2}", boxed));
    let own = Body::Problem { prompt: plain("Q"), answer: "7".into(), solution: None };
    assert_eq!(body(json!({ "prompt": "Q", "answer": "7" })), own);
}

#[test]
fn preference_pairs_in_published_shapes() {
    let pair =
        Body::Preference { prompt: user("Q"), chosen: assistant("A."), rejected: assistant("B.") };
    let (q, a, b) = (turn("user", "Q"), turn("assistant", "A."), turn("assistant", "B."));
    for row in [
        json!({ "chosen": [q, a], "rejected": [q, b] }),
        // UltraFeedback: the answers repeat the prompt.
        json!({
            "prompt": "Q", "chosen": [q, a], "rejected": [q, b], "messages": [q, a],
            "score_chosen": 8.5,
        }),
        json!({ "prompt": [q], "chosen": [q, a], "rejected": [q, b] }),
        json!({ "prompt": [q], "chosen": [a], "rejected": [b] }),
        // OpenAI.
        json!({
            "input": { "messages": [q], "tools": [] }, "preferred_output": [a],
            "non_preferred_output": [b],
        }),
        // Anthropic's hh-rlhf.
        json!({
            "chosen": "\n\nHuman: Q\n\nAssistant: A.",
            "rejected": "\n\nHuman: Q\n\nAssistant: B.",
        }),
    ] {
        assert_eq!(body(row.clone()), pair, "{row}");
    }
    // Intel's Orca pairs: the question is a message, the answers are strings.
    let orca = json!({ "system": "S", "question": "Q", "chosen": "A.", "rejected": "B." });
    let prompt = Turns::Chat(vec![Message::new("system", "S"), Message::user("Q")]);
    assert_eq!(body(orca), Body::Preference { prompt, chosen: plain("A."), rejected: plain("B.") });
    let text = "\n\nHuman: Q\n\nfoo: bar\n\nAssistant: A.\n\nHuman: More\n\nAssistant:";
    let pair =
        body(json!({ "chosen": format!("{text} yes\n\n1. x"), "rejected": format!("{text} no") }));
    let Body::Preference { prompt: Turns::Chat(prompt), chosen, .. } = pair else {
        panic!("{pair:?}")
    };
    assert_eq!(
        prompt,
        [Message::user("Q\n\nfoo: bar"), Message::assistant("A."), Message::user("More")]
    );
    assert_eq!(chosen, assistant("yes\n\n1. x"));
    let other = json!({ "prompt": "Other", "chosen": [q, a], "rejected": [q, b] });
    assert!(error(other).contains("`prompt` differs from the messages"));
    for (field, other) in [
        ("chosen", "rejected"),
        ("rejected", "chosen"),
        ("preferred_output", "non_preferred_output"),
        ("non_preferred_output", "preferred_output"),
    ] {
        assert!(
            error(json!({ "prompt": "Q", field: "A" }))
                .contains(&format!("`{field}` has no `{other}`"))
        );
    }
}

/// They are not trained as completions.
#[test]
fn rated_answers_are_a_separate_shape() {
    let rated = |good| Body::Rated { prompt: plain("Q"), completion: plain("A"), good };
    for (label, good) in [
        (json!(true), true),
        (json!(false), false),
        (json!(1), true),
        (json!(0), false),
        (json!("False"), false),
        (json!("true"), true),
    ] {
        assert_eq!(
            body(json!({ "prompt": "Q", "completion": "A", "label": label })),
            rated(good),
            "{label}"
        );
    }
    let row = json!({ "messages": [turn("user", "Q"), turn("assistant", "A")], "kto_tag": false });
    assert_eq!(
        body(row),
        Body::Rated { prompt: user("Q"), completion: assistant("A"), good: false }
    );
    assert!(
        error(json!({ "prompt": "Q", "completion": "A", "label": 0.5 })).contains("`label` is 0.5")
    );
    // Any other label is an unused field.
    let named = record(&json!({ "prompt": "Q", "completion": "A", "label": "sports" }));
    assert_eq!((named.body.shape(), named.unused), ("prompt/completion", vec!["label".to_owned()]));
}

/// Tables write null for absent values.
#[test]
fn null_fields_are_absent() {
    let all = |row: Value| {
        let mut full = json!({
            "messages": null, "conversations": null, "text": null, "prompt": null,
            "completion": null, "chosen": null, "rejected": null, "label": null, "system": null,
            "tools": null, "images": null, "chat_template_kwargs": null,
        });
        full.as_object_mut().unwrap().extend(row.as_object().unwrap().clone());
        full
    };
    for row in [
        json!({ "text": "a" }),
        json!({ "prompt": "a", "completion": "b" }),
        json!({ "prompt": "a" }),
        json!({ "messages": [
            { "role": "user", "content": "Hi", "name": null }, turn("assistant", "Hello."),
        ] }),
        json!({ "chosen": "a b", "rejected": "a c" }),
    ] {
        assert_eq!(record(&all(row.clone())), record(&row));
        assert_eq!(record(&all(row)).unused, [""; 0]);
    }
}

/// By every known field.
#[test]
fn turns_excluded_from_training_are_masked() {
    let masked = |key: &str, value: Value| {
        let mut message = turn("assistant", "5");
        message[key] = value;
        let Body::Chat { messages } = body(json!({ "messages": [turn("user", "2+2?"), message] }))
        else {
            panic!()
        };
        // The field is not passed to the template.
        let mut message = messages[1].clone();
        message.masked = false;
        assert_eq!(message, Message::assistant("5"));
        messages[1].masked
    };
    for key in ["weight", "train", "training", "trainable", "loss_mask", "loss", "mask"] {
        for value in [json!(0), json!(0.0), json!(false)] {
            assert!(masked(key, value.clone()), "{key} {value}");
        }
        for value in [json!(1), json!(1.0), json!(true), json!(null)] {
            assert!(!masked(key, value.clone()), "{key} {value}");
        }
        let mut message = turn("assistant", "5");
        message[key] = json!(0.5);
        assert!(error(json!({ "messages": [message] })).contains(&format!("whose `{key}` is 0.5")));
        let mut message = turn("user", "5");
        message[key] = json!(1);
        assert!(
            error(json!({ "messages": [message] }))
                .contains("only the assistant's turns can be trained")
        );
        message[key] = json!(0);
        body(json!({ "messages": [message] }));
    }
    assert!(masked("masked", json!(true)) && !masked("masked", json!(false)));
}

/// In records and messages.
#[test]
fn media_are_refused_by_name() {
    for key in ["images", "image", "audio", "video", "videos"] {
        let mut row = json!({ "messages": [turn("user", "Hi"), turn("assistant", "Hello.")] });
        row[key] = json!([]);
        assert_eq!(body(row.clone()), greeting());
        row[key] = json!(["x.png"]);
        let message = error(row);
        assert!(message.contains(&format!("`{key}` is not text")), "{message}");
        let mut message = turn("user", "What?");
        message[key] = json!("x.png");
        assert!(error(json!({ "messages": [message] })).contains(&format!("which has `{key}`")));
    }
}

/// A question that contains its choices is accepted.
#[test]
fn choices_that_the_question_does_not_contain_are_refused() {
    for choices in [
        json!(["red", "blue"]),
        json!([3, 4]),
        json!({ "label": ["A", "B"], "text": ["red", "blue"] }),
    ] {
        for (key, question) in
            [("question", "Which?"), ("prompt", "Which?"), ("problem", "Which one, red?")]
        {
            for name in ["choices", "options"] {
                let row = json!({ key: question, name: choices, "answer": 1 });
                let message = error(row);
                assert!(message.contains(&format!("`{name}` has choices that")), "{message}");
            }
        }
    }
    for choices in
        [json!(["red", "blue"]), json!([]), json!(null), json!({ "temperature": 1 }), json!("red")]
    {
        body(json!({ "question": "Which? A. red B. blue", "choices": choices, "answer": "A" }));
    }
}

#[test]
fn system_messages_come_first() {
    let system = Message::new("system", "S");
    let with = |turns: &[Message]| [std::slice::from_ref(&system), turns].concat();
    let Body::Chat { messages: chat } = greeting() else { panic!() };
    for key in ["system", "system_prompt"] {
        let row =
            json!({ key: "S", "messages": [turn("user", "Hi"), turn("assistant", "Hello.")] });
        assert_eq!(body(row), Body::Chat { messages: with(&chat) });
    }
    // The conversation has it already.
    let row = json!({ "system": "S", "messages": [
        turn("system", "S"), turn("user", "Hi"), turn("assistant", "Hello."),
    ] });
    assert_eq!(body(row), Body::Chat { messages: with(&chat) });
    let row = json!({ "system": "S", "prompt": "Q", "completion": " A." });
    let prompt = Turns::Chat(with(&[Message::user("Q")]));
    assert_eq!(body(row), Body::Completion { prompt, completion: plain(" A.") });
    let other = json!({ "system": "S", "messages": [turn("system", "T"), turn("user", "Hi")] });
    assert!(error(other).contains("`system` differs from the system message"));
    assert!(
        error(json!({ "system": "S", "text": "a" }))
            .contains("`system` is in a record of raw text")
    );
    assert_eq!(body(json!({ "system": "", "text": "a" })), Body::Text { text: "a".into() });
}

/// It would be ignored otherwise.
#[test]
fn a_second_question_is_refused_and_other_fields_are_listed() {
    for key in ["question", "input", "context", "instruction", "query"] {
        let message =
            error(json!({ "prompt": "Is it?", key: "The sky is blue.", "completion": " Yes." }));
        assert!(
            message.contains(&format!("`{key}` is not part of the record's `prompt`")),
            "{message}"
        );
        let prompt = "The sky is blue. Is it?";
        body(json!({ "prompt": prompt, key: "The sky is blue.", "completion": " Yes." }));
    }
    let row = json!({
        "text": "a", "kind": "k", "id": 3, "tags": ["x"], "none": null, "empty": "", "list": [],
        "note": "n",
    });
    let record = record(&row);
    assert_eq!(record.unused, ["id", "tags", "note"]);
    assert_eq!((record.kind(), record.extra["note"].as_str()), (Some("k"), "n"));
}

/// OpenAI's API writes them as strings, tables with nulls.
#[test]
fn arguments_of_tool_calls_are_objects() {
    let template = |row: Value| {
        let record = record(&row);
        let Body::Chat { messages } = record.body else { panic!() };
        let source = "{% for m in messages %}{{ m.tool_calls|tojson }}{% endfor %}";
        crate::fixture::template(source, "", "").render(&messages, false).unwrap()
    };
    let call = |arguments: Value| {
        let function = json!({ "name": "w", "arguments": arguments });
        let calls = json!([{ "type": "function", "function": function }]);
        json!({ "messages": [{ "role": "assistant", "content": null, "tool_calls": calls }] })
    };
    let expected =
        r#"[{"type": "function", "function": {"name": "w", "arguments": {"city": "SF"}}}]"#;
    assert_eq!(template(call(json!({ "city": "SF" }))), expected);
    assert_eq!(template(call(json!("{\"city\": \"SF\"}"))), expected);
    assert_eq!(template(call(json!({ "city": "SF", "unit": null, "path": null }))), expected);
    assert_eq!(template(call(json!("{\"city\": \"SF\", \"unit\": null}"))), expected);
    let text = call(json!({ "city": "SF" }))["messages"][0]["tool_calls"].to_string();
    assert_eq!(
        template(json!({ "messages": [{ "role": "assistant", "tool_calls": text }] })),
        expected
    );
    assert!(error(call(json!("city=SF"))).contains("`arguments` are not a JSON object"));
    // An empty list is no call, so the answer is empty.
    let Body::Chat { messages } =
        body(json!({ "messages": [{ "role": "assistant", "content": "", "tool_calls": [] }] }))
    else {
        panic!()
    };
    assert_eq!(messages[0], Message::assistant(""));
}

#[test]
fn template_arguments_and_tools_come_as_values_or_strings() {
    let arguments = json!({ "enable_thinking": false, "x": null });
    for value in [arguments.clone(), json!(arguments.to_string())] {
        let record = record(&json!({ "prompt": "a", "chat_template_kwargs": value }));
        assert_eq!(Value::Object(record.arguments), json!({ "enable_thinking": false }));
    }
    assert!(
        error(json!({ "prompt": "a", "chat_template_kwargs": 3 }))
            .contains("`chat_template_kwargs` is a number")
    );
    let tool = json!({ "name": "clock", "parameters": { "type": "object", "required": null } });
    let expected = json!({ "name": "clock", "parameters": { "type": "object" } });
    for tools in [json!([tool]), json!([tool.to_string()]), json!(json!([tool]).to_string())] {
        assert_eq!(
            record(&json!({ "prompt": "a", "tools": tools })).tools,
            std::slice::from_ref(&expected)
        );
    }
}

proptest::proptest! {
    #[test]
    fn no_value_under_a_known_key_makes_the_reader_panic(
        fields in proptest::collection::vec((
            proptest::sample::select(vec![
                "text", "messages", "conversations", "prompt", "completion", "chosen", "rejected",
                "answer", "solution", "question", "input", "history", "label", "system", "tools",
                "preferred_output", "non_preferred_output", "images",
            ]),
            proptest::sample::select(vec![
                "null", "true", "3", "\"\"", "\"a\"", "\"[\"",
                "\"\\\\n\\\\nHuman: a\\\\n\\\\nAssistant: b\"", "[]", "{}", "[[]]", "[[\"a\"]]",
                "[{\"role\": \"user\", \"content\": \"a\"}]",
                "[{\"from\": \"gpt\", \"value\": \"b\", \"weight\": 0}]",
                "[{\"role\": \"user\", \"content\": \"a\"}, \
                 {\"role\": \"assistant\", \"tool_calls\": [3]}]",
                "\"[{\\\"role\\\": \\\"assistant\\\", \\\"content\\\": \\\"c\\\"}]\"",
                "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}",
            ]),
        ), 1..6),
    ) {
        let fields: Vec<_> =
            fields.iter().map(|(key, value)| format!("\"{key}\": {value}")).collect();
        let _ = parse_jsonl("f", &format!("{{{}}}", fields.join(", ")));
    }
}

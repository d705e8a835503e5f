//! Training and inference encode prompts to equal ids, for all golden templates and tokenizers.

use std::path::Path;

use crisol_text::{
    Body, ChatTemplate, Example, Message, Record, TextError, TextSetup, Tokenizer, Turns,
    parse_jsonl,
};
use serde_json::{Value, json};

use crate::fixture::{self, folder_setup, single, special, train};
use crate::sentencepiece::with_special_tokens;

const SPECIAL_TOKENS: [&str; 12] = [
    "<|im_start|>",
    "<|im_end|>",
    "<|eot_id|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|endoftext|>",
    "<｜end▁of▁sentence｜>",
    "<|begin_of_text|>",
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
];

fn byte_level() -> Tokenizer {
    train(&special(&[["<s>", "</s>"].as_slice(), &SPECIAL_TOKENS].concat()))
}

/// The tokenizer with a beginning-of-text token before each text, like Llama's.
fn with_bos(tokenizer: &Tokenizer) -> Tokenizer {
    let mut json: Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
    let id = tokenizer.token_id("<s>").unwrap();
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<s>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [id], "tokens": ["<s>"]}},
    });
    Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap()
}

fn tokenizers() -> [(&'static str, Tokenizer); 3] {
    let byte_level = byte_level();
    [
        ("byte-level", byte_level.clone()),
        ("byte-level with bos", with_bos(&byte_level)),
        ("sentencepiece", with_special_tokens(&SPECIAL_TOKENS)),
    ]
}

/// Every golden template with each tokenizer.
fn setups() -> Vec<(String, TextSetup)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/chat_templates");
    let read = |file: String| std::fs::read_to_string(folder.join(file)).unwrap();
    let expected: Value = serde_json::from_str(&read("expected.json".to_owned())).unwrap();
    let mut setups = vec![];
    for (kind, tokenizer) in tokenizers() {
        for (name, named) in expected["tokens"].as_object().unwrap() {
            let bos = named[0].as_str().filter(|bos| tokenizer.token_id(bos).is_some());
            let source = read(format!("{name}.jinja"));
            let setup = folder_setup(&tokenizer, &source, bos, named[1].as_str().unwrap());
            setups.push((format!("{name}, {kind}"), setup));
        }
    }
    setups
}

fn record(body: Body) -> Record {
    let mut record = parse_jsonl("f", r#"{"text": "x"}"#).unwrap().remove(0);
    record.body = body;
    record
}

fn without_spaces(text: &str) -> String {
    text.split_whitespace().collect()
}

fn trained_text(setup: &TextSetup, example: &Example) -> String {
    let tokens = example.ids.iter().zip(&example.trained).filter(|(_, trained)| **trained);
    setup.tokenizer.decode(&tokens.map(|(&id, _)| id).collect::<Vec<_>>(), false)
}

fn conversations() -> Vec<Vec<Message>> {
    let contents =
        ["Hi there.", "b", "\n answer  \n", "\n\nhello", " a", "日本 12", "hello hell", "."];
    let mut conversations = vec![];
    for (i, first) in contents.iter().enumerate() {
        let second = contents[(i + 3) % contents.len()];
        conversations.push(vec![
            Message::user("hello"),
            Message::assistant(first),
            Message::user(second),
            Message::assistant(second),
        ]);
    }
    conversations
}

/// For every assistant turn: the conversation, the turn as `prompt`/`completion`, and the prompt at
/// inference have equal ids. The trained text contains the message.
#[test]
fn every_trained_turn_starts_with_the_ids_of_inference() {
    let (mut checked, mut separate, mut joined) = (0, 0, 0);
    for (name, setup) in setups() {
        for conversation in conversations() {
            let location = format!("{name}: {conversation:?}");
            let examples = match setup
                .supervised(&record(Body::Chat { messages: conversation.clone() }), 999)
            {
                Ok(encoded) => encoded.examples,
                // Its prompt starts a thought, but these messages have none.
                Err(TextError::InRecord { source, .. }) if name.starts_with("deepseek_r1") => {
                    assert!(
                        matches!(*source, TextError::PromptNotPrefix { .. }),
                        "{location} {source}"
                    );
                    continue;
                }
                Err(error) => panic!("{location} {error}"),
            };
            if examples.len() == 1 {
                joined += 1;
            } else {
                separate += 1;
            }
            for (k, i) in [1, 3].into_iter().enumerate() {
                let (before, message) = (Turns::Chat(conversation[..i].to_vec()), &conversation[i]);
                let prompt = setup.prompt_ids(&before).unwrap();
                let completion = Turns::Chat(vec![message.clone()]);
                let pair = record(Body::Completion { prompt: before, completion });
                let alone = single(setup.supervised(&pair, 999).unwrap().examples);
                assert!(alone.ids.starts_with(&prompt), "{location}");
                assert_eq!(alone.prompt_tokens(), prompt.len(), "{location}");
                let example = &examples[k.min(examples.len() - 1)];
                assert!(example.ids.starts_with(&alone.ids), "{location}");
                let span = prompt.len()..alone.ids.len();
                assert_eq!(example.trained[span.clone()], alone.trained[span], "{location}");
                let trained = trained_text(&setup, &alone);
                let content = without_spaces(&message.content);
                assert!(without_spaces(&trained).contains(&content), "{location} {trained:?}");
                // No space is inserted between prompt and answer. (Sentencepiece's decoder inserts
                // one after special tokens.)
                let text =
                    setup.template.as_ref().unwrap().render(&conversation[..=i], false).unwrap();
                let decoded = setup.tokenizer.decode(&alone.ids, false);
                if name.contains("sentencepiece") {
                    assert!(
                        without_spaces(&text).starts_with(&without_spaces(&decoded)),
                        "{location} {decoded:?}"
                    );
                } else {
                    assert!(text.starts_with(&decoded), "{location} {decoded:?}");
                }
                checked += 1;
            }
        }
    }
    let counts = (checked, separate, joined);
    assert!(checked > 400 && separate > 20 && joined > 100, "{counts:?}");
}

/// Regression test of report 01: with the beginning-of-text token, and without a space between
/// prompt and answer.
#[test]
fn raw_text_is_encoded_as_at_inference() {
    for (name, tokenizer) in tokenizers() {
        let setup = folder_setup(&tokenizer, "{{ messages[0].content }}", Some("<s>"), "</s>");
        let bos: Vec<u32> = tokenizer.prepended_token().into_iter().collect();
        assert_eq!(bos.is_empty(), name == "byte-level");
        for (prompt, answer) in [
            ("hello hell", " a"),
            ("hello ", "hello"),
            ("hello", "hell"),
            ("", "hello"),
            ("a\n", "\n\nb"),
            ("日", "本 he"),
            ("a  ", "  b"),
        ] {
            let ids = setup.prompt_ids(&Turns::Plain(prompt.to_owned())).unwrap();
            assert_eq!(ids, [bos.clone(), tokenizer.encode(prompt).unwrap()].concat());
            let plain = |text: &str| Turns::Plain(text.to_owned());
            let completion =
                record(Body::Completion { prompt: plain(prompt), completion: plain(answer) });
            let example = single(setup.supervised(&completion, 99).unwrap().examples);
            assert!(example.ids.starts_with(&ids), "{name} {prompt:?}");
            assert_eq!(example.ids.last(), Some(&setup.eos));
            let text = &example.ids[bos.len()..example.ids.len() - 1];
            assert_eq!(tokenizer.decode(text, false), format!("{prompt}{answer}"), "{name}");
            let pair = record(Body::Preference {
                prompt: plain(prompt),
                chosen: plain(answer),
                rejected: plain("x"),
            });
            let pair = single(setup.preference(&pair, 99).unwrap().examples);
            assert_eq!((pair.prompt, pair.chosen), (ids, example), "{name} {prompt:?}");
        }
        let document = single(setup.text_documents(&["hello hell a"], 99).unwrap());
        let ids = setup.prompt_ids(&Turns::Plain("hello hell a".to_owned())).unwrap();
        assert_eq!(document.ids, [ids, vec![setup.eos]].concat());
        // Only the first piece has the beginning-of-text token.
        let pieces = setup.text_documents(&["hello hell a hello hell"], 3).unwrap();
        let with_bos =
            pieces.iter().filter(|piece| !bos.is_empty() && piece.ids.contains(&bos[0])).count();
        assert!(pieces.len() > 1 && with_bos == bos.len(), "{name}");
        assert!(setup.text_documents(&[""], 8).unwrap().is_empty());
    }
}

/// Regression test of report 11.
#[test]
fn begin_and_end_tokens_in_a_text_are_not_repeated() {
    let setup = fixture::setup();
    let tokenizer = with_bos(&byte_level());
    let setups = [
        (folder_setup(&tokenizer, "{{ messages[0].content }}", Some("<s>"), "</s>"), "<s>", "</s>"),
        (setup, "", "<|eos|>"),
        (fixture::setup(), "", "<|end|>"),
    ];
    for (setup, bos, eos) in setups {
        let expected = setup.tokenizer.encode(&format!("{bos}hello{eos}")).unwrap();
        for space in ["", "\n", " \n\n"] {
            let document = setup.text_documents(&[&format!("{bos}hello{eos}{space}")], 99).unwrap();
            assert_eq!(single(document).ids, expected);
            let plain = |text: String| Turns::Plain(text);
            let body = Body::Completion {
                prompt: plain(format!("{bos}he")),
                completion: plain(format!("llo{eos}{space}")),
            };
            let example = single(setup.supervised(&record(body), 99).unwrap().examples);
            assert_eq!(setup.tokenizer.decode(&example.ids, false), format!("{bos}hello{eos}"));
        }
    }
}

const CHATML: &str = "{%- for m in messages -%}\
    {{ '<|im_start|>' + m.role + '\n' + CONTENT + '<|im_end|>\n' }}{%- endfor -%}\
    {%- if add_generation_prompt -%}{{ '<|im_start|>assistant\n' }}{%- endif -%}";

fn chatml(content: &str) -> TextSetup {
    folder_setup(&byte_level(), &CHATML.replace("CONTENT", content), None, "<|im_end|>")
}

fn parsed(line: &Value) -> Record {
    parse_jsonl("f", &line.to_string()).unwrap().remove(0)
}

/// Regression test of report 03: whether the template expects strings or lists.
#[test]
fn content_in_parts_reaches_every_template() {
    let part = |text: &str| json!([{"type": "text", "text": text}]);
    let line = json!({"messages": [
        {"role": "user", "content": part("Hi")},
        {"role": "assistant", "content": part("The answer is 4.")},
    ]});
    let plain = json!({"messages": [
        {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "The answer is 4."},
    ]});
    for content in [
        "m.content",
        "(m.content if m.content is string else '')",
        "m.content|string",
        "m.content|tojson if m.content is not string else m.content",
        "(m.content if m.content is string else m.content|map(attribute='text')|join(''))",
    ] {
        let setup = chatml(&format!("({content})"));
        let encode = |line: &Value| setup.supervised(&parsed(line), 99).unwrap().examples;
        assert_eq!(encode(&line), encode(&plain), "{content}");
        assert_eq!(
            trained_text(&setup, &single(encode(&line))),
            "The answer is 4.<|im_end|>",
            "{content}"
        );
    }
    // A template that reads only lists.
    let setup = chatml("m.content[0]['text']");
    assert_eq!(
        trained_text(&setup, &single(setup.supervised(&parsed(&line), 99).unwrap().examples)),
        "The answer is 4.<|im_end|>"
    );
    // A template that ignores user messages.
    let setup = chatml("(m.content if m.role == 'assistant' else '')");
    let error = setup.supervised(&parsed(&line), 99).unwrap_err().to_string();
    assert!(error.contains("it drops \"Hi\" of message 0 (from 0, role user)"), "{error}");
}

/// The error names the dropped words.
#[test]
fn text_that_a_template_drops_is_an_error() {
    let question = json!({"role": "user", "content": "What is 17 plus 26?"});
    let chat = |answer: Value| json!({"messages": [question, answer]});
    // Dropped up to another word than the end of a thought.
    let answer = chat(json!({"role": "assistant", "content": "17 plus 26: 43. So: 43"}));
    let setup = chatml("m.content.split('So:')[-1]");
    let error = setup.supervised(&parsed(&answer), 99).unwrap_err().to_string();
    assert!(error.starts_with("f:1: ") && error.contains("\"17 plus 26: 43."), "{error}");
    // A separate thought and a tool call, which the template ignores.
    let thought =
        chat(json!({"role": "assistant", "content": "43", "reasoning_content": "It is 43."}));
    let call = json!([{"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}]);
    let call = chat(json!({"role": "assistant", "content": null, "tool_calls": call}));
    for (line, words) in [(thought, "\"It is 43.\""), (call, "\"add\"")] {
        let error =
            chatml("(m.content or '')").supervised(&parsed(&line), 99).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }
    // The template may drop the thoughts of earlier turns that are not trained.
    let setup = chatml("m.content.split('</think>')[-1]");
    let earlier = json!({"prompt": [
        {"role": "user", "content": "a"}, {"role": "assistant", "content": "<think>hm</think>b"},
        {"role": "user", "content": "c"},
    ], "completion": "d"});
    assert_eq!(setup.supervised(&parsed(&earlier), 99).unwrap().examples.len(), 1);
}

/// Regression test of report 18: a template that concatenates the arguments (DeepSeek-V3) gets JSON
/// text, any other the object. Training and inference agree, whichever form the data has.
#[test]
fn arguments_of_tool_calls_reach_every_template() {
    let call = "{% for t in m.tool_calls %}\
        {{ '<call>' + t['function']['name'] + '\\n```json\\n' + ARGUMENTS + '\\n```' }}{% endfor \
        %}";
    let source = "{% for m in messages %}{{ '<|' + m.role + '|>' + (m.content or '') }}\
        {% if m.tool_calls %}CALL{% endif %}{{ '<|im_end|>' }}{% endfor %}{% if \
        add_generation_prompt %}<|assistant|>{% endif %}";
    let concatenated = "t['function']['arguments']";
    for (arguments, expected) in [
        (concatenated, r#"{"city": "Rome, \"IT\"", "days": [1, 2]}"#),
        ("(t.function.arguments ~ '')", r#"{"city": "Rome, \"IT\"", "days": [1, 2]}"#),
        ("(t.function.arguments|tojson)", r#"{"city": "Rome, \"IT\"", "days": [1, 2]}"#),
        (
            "(t.function.arguments|tojson(separators=(',', ':')))",
            r#"{"city":"Rome, \"IT\"","days":[1,2]}"#,
        ),
        (
            "(t.function.arguments if t.function.arguments is string else \
             t.function.arguments|tojson)",
            r#"{"city": "Rome, \"IT\"", "days": [1, 2]}"#,
        ),
        ("(t.function.arguments.keys()|join(' '))", "city days"),
    ] {
        let source = source.replace("CALL", &call.replace("ARGUMENTS", arguments));
        let setup = folder_setup(&byte_level(), &source, None, "<|im_end|>");
        let object = json!({"city": "Rome, \"IT\"", "days": [1, 2]});
        for given in [object.clone(), object.to_string().into()] {
            let call =
                json!([{"type": "function", "function": {"name": "weather", "arguments": given}}]);
            let messages = json!([
                {"role": "user", "content": [{"type": "text", "text": "Weather?"}]},
                {"role": "assistant", "content": null, "tool_calls": call},
                {"role": "tool", "content": "Sun"},
                {"role": "assistant", "content": "Sun."},
            ]);
            let record = parsed(&json!({ "messages": messages }));
            let examples = setup.supervised(&record, 999).unwrap().examples;
            let text = setup.tokenizer.decode(&examples.last().unwrap().ids, false);
            let rendered = format!("<call>weather\n```json\n{expected}\n```<|im_end|>");
            assert!(text.contains(&rendered), "{arguments}: {text}");
            let prompt = parsed(&json!({ "prompt": messages.as_array().unwrap()[..3] }));
            let prompt = setup.prompt(&prompt).unwrap();
            assert!(setup.tokenizer.decode(&prompt, false).contains(&rendered));
            assert!(examples.iter().any(|example| example.ids.starts_with(&prompt)), "{arguments}");
        }
    }
}

/// Like Mistral's template, which puts the system message into the last user message.
#[test]
fn a_system_message_that_moves_is_trained_as_at_inference() {
    let source = "{% for m in messages %}{% if m.role == 'user' %}[INST] \
        {{ messages[0].content ~ ' ' if loop.last and messages[0].role == 'system' }}\
        {{ m.content }}[/INST]{% elif m.role == 'assistant' %} {{ m.content }}</s>{% endif %}\
        {% endfor %}";
    let setup = folder_setup(&byte_level(), source, None, "</s>");
    let messages = [
        Message::new("system", "Be kind."),
        Message::user("a"),
        Message::assistant("b"),
        Message::user("c"),
        Message::assistant("d"),
    ];
    let examples = setup.chat(&messages).unwrap();
    let shown: Vec<_> =
        examples.iter().map(|example| setup.tokenizer.decode(&example.ids, false)).collect();
    assert_eq!(
        shown,
        ["[INST] Be kind. a[/INST] b</s>", "[INST] a[/INST] b</s>[INST] Be kind. c[/INST] d</s>"]
    );
    let trained: Vec<_> = examples.iter().map(|example| trained_text(&setup, example)).collect();
    assert_eq!(trained, [" b</s>", " d</s>"]);
}

/// Regression test of report 05.
#[test]
fn masked_turns_are_context() {
    let setup = chatml("m.content");
    let mut messages = vec![
        Message::user("2 plus 2?"),
        Message::assistant("5"),
        Message::user("No."),
        Message::assistant("4"),
    ];
    messages[1].masked = true;
    let example = single(setup.chat(&messages).unwrap());
    assert_eq!(trained_text(&setup, &example), "4<|im_end|>");
    assert!(setup.tokenizer.decode(&example.ids, false).contains("assistant\n5<|im_end|>"));
    messages[3].masked = true;
    let error = setup.supervised(&record(Body::Chat { messages }), 99).unwrap_err().to_string();
    assert!(error.contains("no token is trained") && error.contains("masked"), "{error}");
}

#[test]
fn the_first_message_may_be_the_assistants() {
    let mut checked = 0;
    for (name, setup) in setups() {
        // These templates require a user message first.
        if ["gemma", "llama2", "mistral", "deepseek_r1"]
            .iter()
            .any(|strict| name.starts_with(strict))
        {
            continue;
        }
        let messages = [Message::assistant("hello"), Message::user("a"), Message::assistant("b")];
        let examples = setup.chat(&messages).unwrap();
        let trained: String =
            examples.iter().map(|example| trained_text(&setup, example)).collect();
        let end = setup.template.as_ref().unwrap().end_of_turn(&setup.tokenizer).unwrap();
        let end = setup.tokenizer.token(end).unwrap();
        assert_eq!(
            without_spaces(&trained).replace("<think></think>", ""),
            format!("hello{end}b{end}"),
            "{name}"
        );
        checked += 1;
    }
    assert!(checked >= 15, "{checked} setups");
}

#[test]
fn template_arguments_of_options_and_records_are_used() {
    let source = CHATML.replace("CONTENT", "m.content")
        + "{%- if add_generation_prompt and enable_thinking is false -%}\
           {{ '<think></think>' }}{%- endif -%}";
    let setup = folder_setup(&byte_level(), &source, None, "<|im_end|>");
    let text = |setup: &TextSetup, record: &Record| {
        setup.tokenizer.decode(&setup.prompt(record).unwrap(), false)
    };
    let mut record = self::record(Body::Prompt { prompt: Turns::Chat(vec![Message::user("a")]) });
    let prompt = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(text(&setup, &record), prompt);
    let mut set = setup.clone();
    let mut options = setup.options().clone();
    options.arguments.insert("enable_thinking".to_owned(), json!(false));
    set.set_options(options);
    assert_eq!(text(&set, &record), format!("{prompt}<think></think>"));
    // A record's own take precedence.
    record.arguments.insert("enable_thinking".to_owned(), json!(true));
    assert_eq!(text(&set, &record), prompt);
    let template: &ChatTemplate = setup.template.as_ref().unwrap();
    assert!(template.mentions("enable_thinking") && !template.mentions("enable_thinkin_"));
}

#[test]
fn an_answer_that_repeats_its_prompt_is_an_error() {
    let line = json!({"prompt": [{"role": "user", "content": "a"}],
        "completion": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]});
    let error = chatml("m.content").supervised(&parsed(&line), 99).unwrap_err().to_string();
    assert!(
        error.contains("begins with the messages of the prompt") && !error.contains("generation"),
        "{error}"
    );
    // The answers of preference data may repeat the prompt (UltraFeedback).
    let line = json!({"prompt": [{"role": "user", "content": "a"}],
        "chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
        "rejected": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "c"}]});
    let pair = chatml("m.content").preference(&parsed(&line), 99).unwrap();
    assert_eq!(pair.examples[0].chosen.trained_tokens(), 2, "b and its end");
}

/// Regression test of report 07: also if the prompt starts the thought.
#[test]
fn thoughts_that_the_template_drops_are_trained() {
    let dropping = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + \
        m.content.split('</think>')[-1] + '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt \
        %}{{ '<|im_start|>assistant\n' }}{% endif %}";
    let mut setups =
        vec![("chatml".to_owned(), folder_setup(&byte_level(), dropping, None, "<|im_end|>"))];
    setups.extend(self::setups().into_iter().filter(|(name, _)| name.starts_with("deepseek_r1")));
    assert_eq!(setups.len(), 4);
    let thought = |thought: &str, answer: &str| {
        Message::assistant(&format!("<think>\n{thought}\n</think>\n\n{answer}"))
    };
    let conversation = vec![
        Message::user("hello"),
        thought("2 and 3", "5"),
        Message::user("hell"),
        thought("so so", "b"),
    ];
    for (name, setup) in setups {
        let record = self::record(Body::Chat { messages: conversation.clone() });
        let encoded = setup.supervised(&record, 999).unwrap();
        assert_eq!((encoded.examples.len(), encoded.summary.dropped_thoughts), (2, 2), "{name}");
        for (i, example) in [1, 3].into_iter().zip(&encoded.examples) {
            let prompt = setup.prompt_ids(&Turns::Chat(conversation[..i].to_vec())).unwrap();
            assert!(example.ids.starts_with(&prompt), "{name}");
            assert_eq!(example.prompt_tokens(), prompt.len(), "{name}");
            // Prompt and answer together contain the thought once.
            let text = setup.tokenizer.decode(&example.ids, false);
            let content = without_spaces(&conversation[i].content);
            assert!(
                without_spaces(&text).rsplit("hel").next().unwrap().contains(&content),
                "{name}: {text:?} {content}"
            );
            assert_eq!(text.matches("<think>").count(), 1, "{name}: {text:?}");
            // It ends like every turn.
            let without_thought = [&conversation[..i], &[Message::assistant("b")]].concat();
            let plain = setup.template.as_ref().unwrap().render(&without_thought, false).unwrap();
            let end = plain.rsplit_once('b').unwrap().1.trim();
            assert!(
                name.contains("sentencepiece") || text.trim_end().ends_with(end),
                "{name}: {text:?}"
            );
        }
        // A thought in a separate field gives an equal example.
        let separate = r#"{"messages": [{"role": "user", "content": "hello"},
            {"role": "assistant", "reasoning_content": "2 and 3", "content": "5"}]}"#;
        let separate = parse_jsonl("f", &separate.replace('\n', "")).unwrap().remove(0);
        assert_eq!(
            setup.supervised(&separate, 999).unwrap().examples[0],
            encoded.examples[0],
            "{name}"
        );
    }
}

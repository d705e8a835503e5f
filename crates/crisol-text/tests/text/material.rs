//! Tests on real files outside the project, in the folder named by `CRISOL_MATERIAL`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crisol_text::{ChatTemplate, Message, ReadOptions, TextSetup, Tokenizer, records};

use crate::fixture::{example_of, single};

fn material(file: &str) -> PathBuf {
    let folder = std::env::var_os("CRISOL_MATERIAL")
        .expect("CRISOL_MATERIAL names the folder of real files");
    PathBuf::from(folder).join(file)
}

fn olmo2() -> Tokenizer {
    Tokenizer::from_file(material("tokenizers/olmo2/tokenizer.json")).unwrap()
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn olmo2_round_trips_tinyshakespeare() {
    let text = std::fs::read_to_string(material("data/tinyshakespeare/input.txt")).unwrap();
    let tokenizer = olmo2();
    assert_eq!(tokenizer.vocab_size(), 100_278);
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), text);
    let mut stream = tokenizer.stream(true);
    let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
    streamed += &stream.finish();
    assert_eq!(streamed, text);
    let scenes: Vec<&str> = text.split_inclusive("\n\n").collect();
    for (scene, ids) in scenes.iter().zip(tokenizer.encode_batch(&scenes).unwrap()) {
        assert_eq!(tokenizer.decode(&ids, false), *scene);
    }
}

/// A backtracking regex engine fails on these.
#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn long_runs_of_white_space_are_encoded_completely() {
    let tokenizer = olmo2();
    for length in [1_000, 30_000, 300_000, 3_000_000] {
        let text = " ".repeat(length) + "x";
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap(), false), text);
    }
}

/// A tokenizer gives equal ids after it is written to GGUF and read again.
#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn real_vocabularies_are_written_for_gguf_files() {
    let text = std::fs::read_to_string(material("data/tinyshakespeare/input.txt")).unwrap();
    let text = text
        + "  two,   three,       seven and                 more spaces\n\n\t \
           1234 naïve 日本語 😀 <s>";
    for (file, config, vocab_size, kind) in [
        ("llama2/tokenizer.model", r#"{"eos_token": "</s>"}"#, 32_000, ("llama", None)),
        (
            "olmo2/tokenizer.json",
            r#"{"eos_token": "<|endoftext|>"}"#,
            100_352,
            ("gpt2", Some("dbrx")),
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let name = file.split('/').next_back().unwrap();
        std::fs::copy(material("tokenizers").join(file), folder.path().join(name)).unwrap();
        std::fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        let setup = TextSetup::load(folder.path()).unwrap();
        let vocab = setup.to_gguf(vocab_size).unwrap();
        assert_eq!((vocab.model.as_str(), vocab.pre.as_deref()), kind);
        assert_eq!(vocab.tokens.len(), vocab_size);
        let again = TextSetup::from_gguf(&vocab, "m.gguf").unwrap();
        assert_eq!(
            again.tokenizer.encode_with_special_tokens(&text).unwrap(),
            setup.tokenizer.encode_with_special_tokens(&text).unwrap(),
            "{file}"
        );
    }
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn olmo2_masks_are_exact() {
    // OLMo 2's template, as published.
    let source = "{{ bos_token }}{% for message in messages %}\
        {% if message['role'] == 'system' %}{{ '<|system|>\n' + message['content'] + '\n' }}\
        {% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}\
        {% elif message['role'] == 'assistant' %}\
        {% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + eos_token + '\n' }}\
        {% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}\
        {% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}";
    let eos = "<|endoftext|>".to_owned();
    let tokens =
        BTreeMap::from([("bos_token".to_owned(), eos.clone()), ("eos_token".to_owned(), eos)]);
    let template = ChatTemplate::new(source, tokens).unwrap();
    let turns = [
        Message::user("¿Cuánto es 1234 + 日本? 😀"),
        Message::assistant("No sé, señor 🎉. 12345"),
        Message::user("ok"),
        Message::assistant("Bye."),
    ];
    let tokenizer = olmo2();
    let expected = example_of(
        &tokenizer,
        &[
            ("<|endoftext|><|user|>\n¿Cuánto es 1234 + 日本? 😀\n<|assistant|>\n", false),
            ("No sé, señor 🎉. 12345<|endoftext|>", true),
            ("\n<|user|>\nok\n<|assistant|>\n", false),
            ("Bye.<|endoftext|>", true),
        ],
    );
    assert_eq!(template.encode(&tokenizer, &turns).unwrap(), [expected]);
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn real_data_sets_are_read() {
    let shapes = |path: &str| -> Vec<&'static str> {
        let path = material(path);
        let records = records(path.to_str().unwrap(), &ReadOptions::default()).unwrap();
        let mut shapes: Vec<_> = records.map(|record| record.unwrap().body.shape()).collect();
        shapes.dedup();
        shapes
    };
    assert_eq!(shapes("data/gsm8k/train.jsonl"), ["prompt/answer"]);
    assert_eq!(shapes("data/rasbt/instruction-data.json"), ["prompt/completion"]);
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn llama2s_sentencepiece_model_gives_the_ids_of_sentencepiece() {
    let file = material("tokenizers/llama2/tokenizer.model");
    let tokenizer =
        Tokenizer::from_sentencepiece(&std::fs::read(&file).unwrap(), "tokenizer.model").unwrap();
    assert_eq!((tokenizer.vocab_size(), tokenizer.prepended_token()), (32_000, Some(1)));
    // Expected ids of sentencepiece 0.2.3.
    let cases: [(&str, &[u32]); 7] = [
        ("a  b", &[263, 29871, 289]),
        ("  hello", &[259, 22172]),
        ("a   the", &[263, 259, 278]),
        ("x                    y", &[921, 462, 1678, 343]),
        ("\0a", &[29871, 3, 29874]),
        (
            "日本 e\u{301}\u{1F600}\n\n",
            &[29871, 30325, 30346, 321, 30103, 243, 162, 155, 131, 13, 13],
        ),
        (
            "In 2026, 3.14",
            &[512, 29871, 29906, 29900, 29906, 29953, 29892, 29871, 29941, 29889, 29896, 29946],
        ),
    ];
    for (text, ids) in cases {
        assert_eq!(tokenizer.encode(text).unwrap(), ids, "{text:?}");
    }
    let text = std::fs::read_to_string(material("data/tinyshakespeare/input.txt")).unwrap();
    let ids = tokenizer.encode(&text).unwrap();
    assert_eq!(tokenizer.decode(&ids, true), text);
    let mut stream = tokenizer.stream(true);
    let mut streamed: String = ids.iter().map(|&id| stream.push(id)).collect();
    streamed += &stream.finish();
    assert_eq!(streamed, text);
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn llama2s_masks_are_exact() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(
        material("tokenizers/llama2/tokenizer.model"),
        dir.path().join("tokenizer.model"),
    )
    .unwrap();
    // Llama 2's format.
    let template = "{% for message in messages %}{% if message['role'] == 'user' %}\
        {{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}\
        {% else %}{{ ' ' + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}";
    std::fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let setup = TextSetup::load(dir.path()).unwrap();
    let turns = |first: &str, second: &str| {
        [
            Message::user("hi"),
            Message::assistant(first),
            Message::user("日?"),
            Message::assistant(second),
        ]
    };
    let example = single(setup.chat(&turns("hello there", "\u{1F600} e\u{301}")).unwrap());
    let trained: Vec<u32> = example
        .ids
        .iter()
        .zip(&example.trained)
        .filter(|(_, trained)| **trained)
        .map(|(&id, _)| id)
        .collect();
    assert_eq!(setup.tokenizer.decode(&trained, false), "hello there </s> \u{1F600} e\u{301} </s>");
    assert_eq!(
        example.ids.iter().filter(|&&id| id == 1).count(),
        2,
        "one per [INST], from the template"
    );
    let text = "<s>[INST] hi [/INST] hello there </s><s>[INST] 日? [/INST] \u{1F600} e\u{301} </s>";
    assert_eq!(example.ids, setup.tokenizer.encode(text).unwrap());
}

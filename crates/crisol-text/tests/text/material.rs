//! Tests on real files that are not part of the project; `CRISOL_MATERIAL` names their folder.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crisol_text::{ChatTemplate, Message, Tokenizer, read_jsonl};

use crate::fixture::parts;

fn material(file: &str) -> PathBuf {
    let folder = std::env::var_os("CRISOL_MATERIAL").expect("CRISOL_MATERIAL names the folder of real files");
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

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn a_text_that_olmo2s_pattern_gives_up_on_is_an_error_not_a_loss() {
    let tokenizer = olmo2();
    for length in [1_000, 30_000, 300_000, 3_000_000] {
        let text = " ".repeat(length) + "x";
        match tokenizer.encode(&text) {
            Ok(ids) => assert_eq!(tokenizer.decode(&ids, false), text),
            Err(error) => assert!(length > 30_000 && error.to_string().contains("runs of spaces"), "{error}"),
        }
    }
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn olmo2_masks_are_exact() {
    // OLMo 2's template, as published.
    let source = "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}{{ '<|system|>\n' + \
        message['content'] + '\n' }}{% elif message['role'] == 'user' %}{{ '<|user|>\n' + message['content'] + '\n' }}\
        {% elif message['role'] == 'assistant' %}{% if not loop.last %}{{ '<|assistant|>\n'  + message['content'] + \
        eos_token + '\n' }}{% else %}{{ '<|assistant|>\n'  + message['content'] + eos_token }}{% endif %}{% endif %}\
        {% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}";
    let eos = "<|endoftext|>".to_owned();
    let tokens = BTreeMap::from([("bos_token".to_owned(), eos.clone()), ("eos_token".to_owned(), eos)]);
    let template = ChatTemplate::new(source, tokens).unwrap();
    let turns = [
        Message::user("¿Cuánto es 1234 + 日本? 😀"),
        Message::assistant("No sé, señor 🎉. 12345"),
        Message::user("ok"),
        Message::assistant("Bye."),
    ];
    let tokenizer = olmo2();
    let expected = parts(
        &tokenizer,
        &[
            ("<|endoftext|><|user|>\n¿Cuánto es 1234 + 日本? 😀\n<|assistant|>\n", false),
            ("No sé, señor 🎉. 12345<|endoftext|>", true),
            ("\n<|user|>\nok\n<|assistant|>\n", false),
            ("Bye.<|endoftext|>", true),
        ],
    );
    assert_eq!(template.encode(&tokenizer, &turns).unwrap(), expected);
}

#[test]
#[ignore = "needs the folder of real files named by CRISOL_MATERIAL"]
fn a_file_of_an_unknown_shape_says_what_it_has_and_what_is_expected() {
    let error = read_jsonl(material("data/gsm8k/train.jsonl")).unwrap_err().to_string();
    assert!(error.contains("train.jsonl:1: found the keys `question`, `answer`"), "{error}");
    assert!(error.contains("prompt + answer"), "{error}");
    let error = read_jsonl(material("data/rasbt/instruction-data.json")).unwrap_err().to_string();
    assert!(error.contains("instruction-data.json:1: the file is one JSON list"), "{error}");
}

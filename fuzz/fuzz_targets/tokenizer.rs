//! A `tokenizer.json`: read, used in every way, written and read again.

#![no_main]

use crisol_fuzz::{conversation, folder};
use crisol_text::{TextSetup, Tokenizer, parse_jsonl};
use libfuzzer_sys::fuzz_target;

/// What makes a model's folder of any `tokenizer.json`.
const CONFIG: &[u8] =
    br#"{"chat_template": "{% for m in messages %}{{ m.role ~ m.content }}</s>{% endfor %}"}"#;
const GENERATION: &[u8] = br#"{"eos_token_id": 0}"#;
const RECORD: &str = r#"{"prompt": "12 the", "completion": "the \u00fcn\u0308 12 \ud83e\udd80"}"#;

const TEXTS: [&str; 4] =
    ["", "the 1234 words", "  ünïcode 漢字 🦀\r\n\n", "<|user|>a</s><unk>\u{0}"];

// libFuzzer's own hook would end the process at once, also where Crisol turns a panic of the
// tokenizers crate into an error. A panic that leaves the target is still a find.
fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_bytes(data) else { return };
    let _ = tokenizer.vocab_size();
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode(text) else { continue };
        for skip_special in [false, true] {
            let _ = tokenizer.decode(&ids, skip_special);
            let mut stream = tokenizer.stream(skip_special);
            for &id in &ids {
                stream.push(id);
            }
            stream.finish();
        }
    }
    let _ = tokenizer.encode_batch(&TEXTS);
    let _ = tokenizer.decode(&[0, 7, u32::MAX], true);
    let _ = Tokenizer::from_bytes(tokenizer.to_json().as_bytes());

    let model = folder(&[
        ("tokenizer.json", data),
        ("tokenizer_config.json", CONFIG),
        ("generation_config.json", GENERATION),
    ]);
    let Ok(setup) = TextSetup::load(model.path()) else { return };
    let _ = setup.chat(&conversation()[..3]);
    for record in parse_jsonl("data.jsonl", RECORD).expect("a record") {
        let _ = setup.supervised(&record, 64);
    }
});

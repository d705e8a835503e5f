//! A `tekken.json`: read, used in every way, written as a `tokenizer.json` and read again.

#![no_main]

use crisol_text::Tokenizer;
use libfuzzer_sys::fuzz_target;

const TEXTS: [&str; 4] = ["", "the 1234 words", "  ünïcode 漢字 🦀\r\n\n", "<s>[INST]a</s><unk>\u{0}"];

// As in `tokenizer.rs`: a panic of the tokenizers crate that Crisol turns into an error is no find.
fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let Ok(tokenizer) = Tokenizer::from_tekken(data, "tekken.json") else { return };
    for text in TEXTS {
        let Ok(ids) = tokenizer.encode_with_special_tokens(text) else { continue };
        let _ = tokenizer.decode(&ids, false);
        let mut stream = tokenizer.stream(true);
        for &id in &ids {
            stream.push(id);
        }
        stream.finish();
    }
    Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("what was written is read");
});

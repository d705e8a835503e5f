//! A `tokenizer_config.json` with its chat template, beside a small tokenizer: loaded, used, saved
//! and loaded again.

#![no_main]

use std::sync::LazyLock;

use crisol_fuzz::{SETUP, conversation, folder};
use crisol_text::{TextSetup, Turns};
use libfuzzer_sys::fuzz_target;

static TOKENIZER: LazyLock<String> = LazyLock::new(|| SETUP.tokenizer.to_json());

fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| {
    let model = folder(&[("tokenizer.json", TOKENIZER.as_bytes()), ("tokenizer_config.json", data)]);
    let Ok(setup) = TextSetup::load(model.path()) else { return };
    let messages = conversation();
    let _ = setup.chat(&messages[..3]);
    let turns = Turns::Chat(messages.to_vec());
    let prompt = setup.prompt_ids(&turns);
    let saved = folder(&[]);
    setup.save(saved.path()).expect("the folder can be written");
    let again = TextSetup::load(saved.path()).expect("what is saved is loaded");
    assert_eq!((again.eos, &again.stop_ids), (setup.eos, &setup.stop_ids));
    assert_eq!(again.prompt_ids(&turns).ok(), prompt.ok());
});

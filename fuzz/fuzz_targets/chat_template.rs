//! A chat template and a conversation for it: the template, then roles and contents in turn, with
//! NULs between.

#![no_main]

use std::collections::BTreeMap;

use crisol_fuzz::SETUP;
use crisol_text::{ChatTemplate, Message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &str| {
    let mut parts = data.split('\0');
    let source = parts.next().unwrap_or_default();
    let mut messages = vec![];
    while let (Some(role), Some(content)) = (parts.next(), parts.next()) {
        messages.push(Message::new(role, content));
    }
    let tokens = BTreeMap::from([("eos_token".to_owned(), "<|eos|>".to_owned())]);
    let Ok(template) = ChatTemplate::new(source, tokens) else { return };
    let _ = template.render(&messages, true);
    let _ = template.prompt(&SETUP.tokenizer, &messages);
    let _ = template.end_of_turn(&SETUP.tokenizer);
    for example in template.encode(&SETUP.tokenizer, &messages).into_iter().flatten() {
        assert_eq!(example.ids.len(), example.trained.len());
    }
});

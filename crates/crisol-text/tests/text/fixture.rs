//! Small tokenizers and templates that the tests share.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crisol_text::{AddedToken, ChatTemplate, EMBEDDED_TOKENS, Example, TextSetup, Tokenizer};

const TEXTS: [&str; 3] = [
    "The capital of Peru is Lima, and the capital of Chile is Santiago. Who says so? The user \
     asks, \
     the assistant answers.",
    "El niño comió una piña; ¿qué más? Ça va très bien, naïve façade, señor. \
     日本語のテキスト、日本の首都は東京です。",
    "😀 emoji 🎉 and more 😀😀 text, in 2026 and 1999, 12345 times.\n\nhello hello world\n\tfn main() \
     { }\n",
];

/// A tokenizer with these added tokens.
pub(crate) fn train(added: &[AddedToken]) -> Tokenizer {
    Tokenizer::train(TEXTS, 256 + added.len() + 120, added).unwrap()
}

/// A setup with the embedded tokens and template.
pub(crate) fn setup() -> TextSetup {
    static SETUP: LazyLock<TextSetup> =
        LazyLock::new(|| TextSetup::embedded(train(&EMBEDDED_TOKENS)).unwrap());
    SETUP.clone()
}

/// The setup of a model folder with this tokenizer, template and named tokens.
pub(crate) fn folder_setup(
    tokenizer: &Tokenizer,
    source: &str,
    bos: Option<&str>,
    eos: &str,
) -> TextSetup {
    let folder = tempfile::tempdir().unwrap();
    tokenizer.save(folder.path().join("tokenizer.json")).unwrap();
    let mut config = serde_json::json!({"eos_token": eos, "chat_template": source});
    if let Some(bos) = bos {
        config["bos_token"] = bos.into();
    }
    std::fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).unwrap();
    TextSetup::load(folder.path()).unwrap()
}

/// Special added tokens.
pub(crate) fn special<'a>(texts: &[&'a str]) -> Vec<AddedToken<'a>> {
    texts.iter().map(|text| AddedToken { text, special: true }).collect()
}

/// A template with these `bos_token` and `eos_token`.
pub(crate) fn template(source: &str, bos: &str, eos: &str) -> ChatTemplate {
    let tokens = [("bos_token", bos), ("eos_token", eos)];
    let tokens: BTreeMap<_, _> =
        tokens.iter().map(|(name, token)| ((*name).to_owned(), (*token).to_owned())).collect();
    ChatTemplate::new(source, tokens).unwrap()
}

/// An expected example, from its texts and whether each is trained. No token may span two texts.
pub(crate) fn example_of(tokenizer: &Tokenizer, parts: &[(&str, bool)]) -> Example {
    let mut example = Example::default();
    for (text, trained) in parts {
        let ids = tokenizer.encode(text).unwrap();
        example.trained.resize(example.trained.len() + ids.len(), *trained);
        example.ids.extend(ids);
    }
    example
}

/// The only element.
pub(crate) fn single<T>(mut examples: Vec<T>) -> T {
    assert_eq!(examples.len(), 1);
    examples.remove(0)
}

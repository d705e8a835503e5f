//! Small tokenizers and templates that the tests share.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use crisol_text::{ChatTemplate, EMBEDDED_TOKENS, Example, NamedToken, TextSetup, Tokenizer};

const TEXTS: [&str; 3] = [
    "The capital of Peru is Lima, and the capital of Chile is Santiago. Who says so? The user asks, the assistant answers.",
    "El niño comió una piña; ¿qué más? Ça va très bien, naïve façade, señor. 日本語のテキスト、日本の首都は東京です。",
    "😀 emoji 🎉 and more 😀😀 text, in 2026 and 1999, 12345 times.\n\nhello hello world\n\tfn main() { }\n",
];

/// A tokenizer with named tokens of its own.
pub(crate) fn train(named: &[NamedToken]) -> Tokenizer {
    Tokenizer::train(TEXTS, 256 + named.len() + 120, named).unwrap()
}

/// The embedded tokens and template.
pub(crate) fn setup() -> TextSetup {
    static SETUP: LazyLock<TextSetup> =
        LazyLock::new(|| TextSetup::embedded(train(&EMBEDDED_TOKENS)).unwrap());
    SETUP.clone()
}

/// A model's folder with this tokenizer, template and named tokens, loaded.
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

/// Named special tokens.
pub(crate) fn special<'a>(texts: &[&'a str]) -> Vec<NamedToken<'a>> {
    texts.iter().map(|text| NamedToken { text, special: true }).collect()
}

/// A template whose `bos_token` and `eos_token` are given.
pub(crate) fn template(source: &str, bos: &str, eos: &str) -> ChatTemplate {
    let tokens = [("bos_token", bos), ("eos_token", eos)];
    let tokens: BTreeMap<_, _> =
        tokens.iter().map(|(name, token)| ((*name).to_owned(), (*token).to_owned())).collect();
    ChatTemplate::new(source, tokens).unwrap()
}

/// What an example must be, from parts that the tokenizer never merges across (there is a special token at each seam).
pub(crate) fn parts(tokenizer: &Tokenizer, parts: &[(&str, bool)]) -> Example {
    let mut example = Example::default();
    for (text, trained) in parts {
        let ids = tokenizer.encode(text).unwrap();
        example.trained.resize(example.trained.len() + ids.len(), *trained);
        example.ids.extend(ids);
    }
    example
}

/// The only one of some examples.
pub(crate) fn one<T>(mut examples: Vec<T>) -> T {
    assert_eq!(examples.len(), 1);
    examples.remove(0)
}

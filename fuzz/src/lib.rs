//! What the fuzz targets share: a folder to put the fuzzed file into, and a small text setup around it.

use std::fs;
use std::sync::LazyLock;

use crisol_text::{EMBEDDED_TOKENS, Message, TextSetup, Tokenizer};
use tempfile::TempDir;

/// A temporary folder with these files; a name may lie in a subfolder.
pub fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, bytes) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("it lies in the folder")).expect("a subfolder");
        fs::write(path, bytes).expect("a file in the temporary folder");
    }
    folder
}

/// The embedded template around a tokenizer of a few merges.
pub static SETUP: LazyLock<TextSetup> = LazyLock::new(|| {
    let texts = ["the question and the answer of the day", "user assistant system 12 + 34 = 46"];
    let tokenizer =
        Tokenizer::train(texts, 300, &EMBEDDED_TOKENS).expect("a vocabulary of 300 holds all bytes");
    TextSetup::embedded(tokenizer).expect("it has the embedded tokens")
});

/// A conversation of two turns, with characters of one to four bytes.
pub fn conversation() -> [Message; 4] {
    [
        Message::new("system", "Be brief."),
        Message::user("What is 12 + 34?\n\n\tünïcode, 漢字 and 🦀 too"),
        Message::assistant("<think>12 + 34 = 46</think> 46"),
        Message::user("And <|end|> in the text?"),
    ]
}

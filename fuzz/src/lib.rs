//! What the fuzz targets share: a folder to put the fuzzed file into, a small text setup around it,
//! and use of a model.

use std::fs;
use std::sync::LazyLock;

use crisol_engine::Params;
use crisol_model::{Model, SamplingOptions, generate, scalars, score};
use crisol_text::{
    EMBEDDED_TOKENS, Message, ReadOptions, TextSetup, Tokenizer, records, source_size,
};
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
    let tokenizer = Tokenizer::train(texts, 300, &EMBEDDED_TOKENS)
        .expect("a vocabulary of 300 holds all bytes");
    TextSetup::embedded(tokenizer).expect("it has the embedded tokens")
});

/// Uses a tokenizer that was read from another format in every way, writes it as a
/// `tokenizer.json` and reads it again.
pub fn use_converted(tokenizer: &Tokenizer, texts: &[&str]) {
    for text in texts {
        let Ok(ids) = tokenizer.encode_with_special_tokens(text) else { continue };
        let _ = tokenizer.decode(&ids, false);
        let mut stream = tokenizer.stream(true);
        for &id in &ids {
            stream.push(id);
        }
        stream.finish();
    }
    Tokenizer::from_bytes(tokenizer.to_json().as_bytes()).expect("what was written is read");
}

/// A conversation of two turns, with characters of one to four bytes.
pub fn conversation() -> [Message; 4] {
    [
        Message::new("system", "Be brief."),
        Message::user("What is 12 + 34?\n\n\tünïcode, 漢字 and 🦀 too"),
        Message::assistant("<think>12 + 34 = 46</think> 46"),
        Message::user("And <|end|> in the text?"),
    ]
}

/// The folder of a checkpoint: `config.json`, an index and a file of weights, with NULs between
/// (JSON has none). With an empty index, the weights are a whole model's.
pub fn checkpoint_folder(data: &[u8]) -> Option<TempDir> {
    let mut parts = data.splitn(3, |&byte| byte == 0);
    let (config, index, weights) = (parts.next()?, parts.next()?, parts.next()?);
    Some(if index.is_empty() {
        folder(&[("config.json", config), ("model.safetensors", weights)])
    } else {
        let index = ("model.safetensors.index.json", index);
        folder(&[("config.json", config), index, ("a.safetensors", weights)])
    })
}

/// Panics that become errors are no crash, but libFuzzer's hook would make one of them.
pub fn quiet_panics() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crisol_text::panic_is_caught() {
            hook(panic);
        }
    }));
}

/// Reads a data file of this name, and asks how much it holds.
pub fn read_records(name: &str, data: &[u8]) {
    let folder = folder(&[(name, data)]);
    let path = folder.path().join(name);
    let path = path.to_str().expect("a temporary folder's name is UTF-8");
    let options = ReadOptions { text_separator: "\n\n".to_owned(), ..ReadOptions::default() };
    let records = records(path, &options).expect("a file that is there");
    for record in records {
        match record {
            Ok(record) => assert!(record.location.starts_with(path), "{}", record.location),
            Err(error) => assert!(error.to_string().contains(name), "{error}"),
        }
    }
    let _ = source_size(path, &options);
}

/// Lets a model of any numbers score and generate, which may be refused.
pub fn use_model(model: &Model, params: &Params) {
    let options = SamplingOptions { max_new_tokens: 4, ..SamplingOptions::default() };
    let _ = generate(model, params, &[vec![0, 1, 2], vec![0]], &options);
    let greedy = SamplingOptions::greedy(4, vec![1]);
    let _ = generate(model, params, &[vec![0]], &greedy);
    let _ = score(model, params, &[[0_u32, 1, 2, 0]], 1.0);
    let _ = scalars(model, params, &[[0_u32, 1, 2, 0]]);
}

/// An uncompressed zip, as `torch.save` writes it.
pub fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, bytes) in files {
        // Versions, flags, method and time are 0, as is the checksum, which Crisol does not look
        // at.
        let mut entry = [0; 26];
        entry[14..18].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        entry[18..22].copy_from_slice(&(bytes.len() as u32).to_le_bytes());
        entry[22..24].copy_from_slice(&(name.len() as u16).to_le_bytes());
        let start = zip.len() as u32;
        directory.extend(b"PK\x01\x02\0\0");
        directory.extend(entry);
        directory.extend([0; 10]);
        directory.extend(start.to_le_bytes());
        directory.extend(name.as_bytes());
        zip.extend(b"PK\x03\x04");
        zip.extend(entry);
        zip.extend(name.as_bytes());
        zip.extend(*bytes);
    }
    let (start, count) = (zip.len() as u32, files.len() as u16);
    let size = directory.len() as u32;
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend(count.to_le_bytes());
    zip.extend(count.to_le_bytes());
    zip.extend(size.to_le_bytes());
    zip.extend(start.to_le_bytes());
    zip.extend([0; 2]);
    zip
}

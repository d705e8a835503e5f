//! Encodes and decodes lines of standard input, for `tests/golden/tokenizers_check.py`.
//!
//! `tokens KIND PATH encode|plain|decode|save`
//!
//! KIND is the type of PATH: `folder` (a model's), `json` (a `tokenizer.json`), `model`
//! (sentencepiece's), `tekken` (Mistral's) or `gguf` (a [`GgufVocab`] as JSON). Each input line is
//! a JSON string (a text, or a folder to save to) or a list of ids. Each output line is JSON: ids,
//! text, or an object with `error`.

use std::io::{BufRead, Write};

use crisol_text::{GgufVocab, TextSetup, Tokenizer};
use serde_json::{Value, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [kind, path, action] = arguments.as_slice() else {
        return Err(
            "usage: tokens folder|json|model|tekken|gguf PATH encode|plain|decode|save".into()
        );
    };
    let setup = match kind.as_str() {
        "folder" => Some(TextSetup::load(path)?),
        "gguf" => Some(TextSetup::from_gguf(
            &gguf(&serde_json::from_slice(&std::fs::read(path)?)?)?,
            path,
        )?),
        _ => None,
    };
    let tokenizer = match (kind.as_str(), &setup) {
        (_, Some(setup)) => setup.tokenizer.clone(),
        ("json", _) => Tokenizer::from_file(path)?,
        ("model", _) => Tokenizer::from_sentencepiece(&std::fs::read(path)?, path)?,
        ("tekken", _) => Tokenizer::from_tekken(&std::fs::read(path)?, path)?,
        (other, _) => return Err(format!("{other}: not a kind of file").into()),
    };
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        let answer = if action == "decode" {
            json!(tokenizer.decode(&serde_json::from_str::<Vec<u32>>(&line)?, false))
        } else if action == "save" {
            let setup = setup.as_ref().ok_or("only folders and GGUF vocabularies are saved")?;
            json!(setup.save(serde_json::from_str::<String>(&line)?).map_err(|e| e.to_string())?)
        } else {
            let text: String = serde_json::from_str(&line)?;
            let ids = if action == "plain" {
                tokenizer.encode_with_special_tokens(&text)
            } else {
                tokenizer.encode(&text)
            };
            ids.map_or_else(|error| json!({"error": error.to_string()}), |ids| json!(ids))
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}

/// Parses a [`GgufVocab`], with its field names as keys.
fn gguf(json: &Value) -> Result<GgufVocab, serde_json::Error> {
    let field = |name: &str| json[name].clone();
    Ok(GgufVocab {
        model: serde_json::from_value(field("model"))?,
        pre: serde_json::from_value(field("pre"))?,
        tokens: serde_json::from_value(field("tokens"))?,
        scores: serde_json::from_value(field("scores"))?,
        token_types: serde_json::from_value(field("token_types"))?,
        merges: serde_json::from_value(field("merges"))?,
        bos: serde_json::from_value(field("bos"))?,
        eos: serde_json::from_value(field("eos"))?,
        unk: serde_json::from_value(field("unk"))?,
        pad: serde_json::from_value(field("pad"))?,
        eot: serde_json::from_value(field("eot"))?,
        eom: serde_json::from_value(field("eom"))?,
        add_bos: serde_json::from_value(field("add_bos"))?,
        add_eos: serde_json::from_value(field("add_eos"))?,
        add_space_prefix: serde_json::from_value(field("add_space_prefix"))?,
        chat_template: serde_json::from_value(field("chat_template"))?,
        named_chat_templates: std::collections::BTreeMap::new(),
    })
}

//! The way back: the tokenizer and template of a model's folder as the vocabulary that a GGUF file carries.
//!
//! What llama.cpp makes of it must be the same ids. So the tokenizer's parts are compared with those that such a file has
//! a name for, and what has none is an error. A sentencepiece vocabulary is told by scores there and by a list of merges in
//! a `tokenizer.json`: the list is in the order of the scores, which is all that counts of them.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{GgufVocab, PRES};
use crate::sentencepiece::{Piece, PieceKind, SPACE, Vocabulary};
use crate::{TextError, TextSetup};

impl TextSetup {
    /// The vocabulary of a GGUF file for a model with `vocab_size` tokens: where the tokenizer has fewer, the rest is filled
    /// up as llama.cpp's converter does.
    pub fn to_gguf(&self, vocab_size: usize) -> Result<GgufVocab, TextError> {
        let tokenizer: Value = serde_json::from_str(&self.tokenizer.to_json())
            .expect("the tokenizers library writes JSON");
        let parts = Parts::of(&tokenizer)?;
        let (bos, eos) = (self.tokenizer.plain_bos(), self.tokenizer.plain_eos());
        if eos.is_some_and(|eos| eos != self.eos) {
            return Err(refused(
                "it ends texts with another token than the one that ends documents",
            ));
        }
        // The end of a turn, and of a message that a tool is to answer.
        let mut stops = self.stop_ids.iter().copied().filter(|&stop| stop != self.eos);
        let mut vocab = GgufVocab {
            bos: bos.or(self.named_token("bos_token")),
            eos: Some(self.eos),
            unk: self.named_token("unk_token"),
            pad: self.named_token("pad_token").filter(|&pad| (pad as usize) < vocab_size),
            eot: stops.next(),
            eom: stops.next(),
            add_bos: Some(bos.is_some()),
            add_eos: Some(eos.is_some()),
            chat_template: self.template.as_ref().map(|template| template.source().to_owned()),
            ..GgufVocab::default()
        };
        let pieces = self.pieces(&parts, vocab_size)?;
        match parts.split()? {
            Split::Named(pre) => {
                "gpt2".clone_into(&mut vocab.model);
                vocab.pre = Some(pre.to_owned());
                vocab.merges = parts.merges.iter().map(|pair| pair.join(" ")).collect();
            }
            Split::Sentencepiece { space_prefix } => {
                "llama".clone_into(&mut vocab.model);
                vocab.add_space_prefix = Some(space_prefix);
                vocab.scores = scores(&pieces, &parts.merges)?;
            }
        }
        vocab.token_types = pieces.iter().map(|piece| piece.kind.number()).collect();
        vocab.tokens = pieces.into_iter().map(|piece| piece.text).collect();
        Ok(vocab)
    }

    /// The tokens by id, without their scores.
    fn pieces(&self, parts: &Parts<'_>, vocab_size: usize) -> Result<Vec<Piece>, TextError> {
        let mut added = HashMap::new();
        for token in parts.json["added_tokens"].as_array().into_iter().flatten() {
            let trims = ["lstrip", "rstrip", "single_word"].iter().any(|key| token[*key] == true);
            if trims {
                return Err(refused(&format!(
                    "its token {} takes the spaces or looks at the letters beside it",
                    token["content"]
                )));
            }
            let special = token["special"] == true;
            added.insert(
                token["id"].as_u64(),
                if special { PieceKind::Control } else { PieceKind::UserDefined },
            );
        }
        let byte = |text: &str| parts.byte_fallback() && text.len() == 6 && text.starts_with("<0x");
        let unknown = parts.json["model"]["unk_token"].as_str();
        let piece = |id: usize| {
            let text = u32::try_from(id).ok().and_then(|id| self.tokenizer.token(id));
            let Some(text) = text else {
                return Piece { text: format!("[PAD{id}]"), score: 0.0, kind: PieceKind::Unused };
            };
            let kind = if parts.byte_fallback() && unknown == Some(&text) {
                PieceKind::Unknown
            } else if byte(&text) {
                PieceKind::Byte
            } else {
                added.get(&Some(id as u64)).copied().unwrap_or(PieceKind::Normal)
            };
            Piece { text, score: 0.0, kind }
        };
        Ok((0..vocab_size).map(piece).collect())
    }
}

/// How text is split before it is merged, as a GGUF file says it.
enum Split {
    Named(&'static str),
    Sentencepiece { space_prefix: bool },
}

/// What counts of a `tokenizer.json`.
struct Parts<'a> {
    json: &'a Value,
    normalizers: Vec<Value>,
    pre_tokenizers: Vec<Value>,
    merges: Vec<[String; 2]>,
}

impl Parts<'_> {
    fn of(json: &Value) -> Result<Parts<'_>, TextError> {
        let model = &json["model"];
        if model["type"] != "BPE" {
            return Err(refused(&format!(
                "it is a {} tokenizer, where BPE can be written",
                model["type"]
            )));
        }
        let merge = |merge: &Value| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
            pair => Some([pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()]),
        };
        let merges = model["merges"].as_array().into_iter().flatten().filter_map(merge).collect();
        Ok(Parts {
            json,
            normalizers: steps(&json["normalizer"], "normalizers"),
            pre_tokenizers: steps(&json["pre_tokenizer"], "pretokenizers"),
            merges,
        })
    }

    fn byte_fallback(&self) -> bool {
        self.json["model"]["byte_fallback"] == true
    }

    fn split(&self) -> Result<Split, TextError> {
        if self.byte_fallback() { self.sentencepiece() } else { self.named() }
    }

    fn named(&self) -> Result<Split, TextError> {
        let model = &self.json["model"];
        let nfc = match &self.normalizers[..] {
            [] => false,
            [step] if step["type"] == "NFC" => true,
            _ => return Err(self.unknown("normalizer")),
        };
        let alike = |pre: &&super::Pre| {
            pre.nfc == nfc
                && pre.ignore_merges == (model["ignore_merges"] == true)
                && steps(&pre.split.json(), "pretokenizers") == self.pre_tokenizers
        };
        let pre = PRES.iter().find(alike).ok_or_else(|| self.unknown("pre_tokenizer"))?;
        Ok(Split::Named(pre.names[0]))
    }

    fn sentencepiece(&self) -> Result<Split, TextError> {
        let prefix = json!({"type": "Prepend", "prepend": SPACE});
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let space_prefix = match (&self.normalizers[..], &self.pre_tokenizers[..]) {
            ([first, second], []) if *first == prefix && *second == spaces => true,
            ([only], []) if *only == spaces => false,
            // llama.cpp puts the space after every special token too, also where transformers does at the start alone
            // ("first"): such models are known by their files there all the same.
            ([], [step]) if step["type"] == "Metaspace" && step["split"] == false => {
                step["prepend_scheme"] != "never"
            }
            ([], _) => return Err(self.unknown("pre_tokenizer")),
            _ => return Err(self.unknown("normalizer")),
        };
        Ok(Split::Sentencepiece { space_prefix })
    }

    fn unknown(&self, part: &str) -> TextError {
        const LONGEST: usize = 600;
        let shown: String = self.json[part].to_string().chars().take(LONGEST).collect();
        let known: Vec<&str> = PRES.iter().map(|pre| pre.names[0]).collect();
        refused(&format!(
            "its {part} is none that llama.cpp has under a name known here ({}, or sentencepiece's): {shown}",
            known.join(", ")
        ))
    }
}

/// The steps of a normalizer or pre-tokenizer, without what changes no id.
fn steps(value: &Value, list: &str) -> Vec<Value> {
    match value {
        Value::Null => vec![],
        value if value["type"] == "Sequence" => value[list]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|step| steps(step, list))
            .collect(),
        step => {
            let mut step = step.clone();
            if let Some(step) = step.as_object_mut() {
                step.shift_remove("trim_offsets");
            }
            // What matches, and nothing else: the same with a pattern that matches everything, as OLMo-2's does.
            if step["type"] == "Split" && step["behavior"] == "Removed" && step["invert"] == true {
                step["behavior"] = json!("Isolated");
                step["invert"] = json!(false);
            }
            vec![step]
        }
    }
}

/// Scores under which sentencepiece makes these merges: the earlier a piece comes in their list, the higher. Pieces whose
/// merges are mixed have the same score, as Llama 2's runs of spaces.
fn scores(pieces: &[Piece], merges: &[[String; 2]]) -> Result<Vec<f32>, TextError> {
    let made: Vec<String> = merges.iter().map(|pair| pair.concat()).collect();
    let last: HashMap<&str, usize> =
        made.iter().enumerate().map(|(place, piece)| (piece.as_str(), place)).collect();
    // Where merges of other scores begin.
    let mut starts = vec![];
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    let mut end = None;
    for (place, piece) in made.iter().enumerate() {
        if end.is_none_or(|end| place > end) {
            starts.push(place);
        }
        end = end.max(Some(last[piece.as_str()]));
        ranks.insert(piece, starts.len() - 1);
    }
    let mut rest = starts.len();
    let score = |piece: &Piece| {
        if piece.kind != PieceKind::Normal {
            return 0.0;
        }
        // Characters are not merged to; sentencepiece numbers them after all others.
        let rank = ranks.get(piece.text.as_str()).copied().unwrap_or_else(|| {
            rest += 1;
            rest - 1
        });
        -(rank as f32)
    };
    let scores: Vec<f32> = pieces.iter().map(score).collect();
    let scored = pieces.iter().zip(&scores).map(|(piece, &score)| Piece { score, ..piece.clone() });
    // With scores, every way to cut a piece in two is a merge.
    let vocabulary = Vocabulary::of_pieces(scored.collect());
    let ids = vocabulary.ids(FILE)?;
    let implied = vocabulary.merges(&ids, FILE)?;
    starts.push(merges.len());
    for bounds in starts.windows(2) {
        let range = bounds[0]..bounds[1];
        let mut listed: Vec<[&str; 2]> = merges[range.clone()]
            .iter()
            .map(|[left, right]| [left.as_str(), right.as_str()])
            .collect();
        let mut implied = implied.get(range.clone()).unwrap_or_default().to_vec();
        // Which of one piece's merges comes first, llama.cpp does not ask: it takes the leftmost.
        if made[range].windows(2).all(|pair| pair[0] == pair[1]) {
            listed.sort_unstable();
            implied.sort_unstable();
        }
        if listed != implied {
            return Err(refused(&format!(
                "its merges, such as {:?} with {:?}, are not those of a vocabulary with scores",
                listed[0][0], listed[0][1]
            )));
        }
    }
    if implied.len() > merges.len() {
        return Err(refused("it merges less than a vocabulary with scores"));
    }
    Ok(scores)
}

/// Where the tokenizer is in a model's folder, for messages.
const FILE: &str = "tokenizer.json";

fn refused(cause: &str) -> TextError {
    TextError::Folder {
        file: FILE.to_owned(),
        cause: format!("this tokenizer cannot be written into a GGUF file: {cause}"),
        remedy: "keep the model as a folder".to_owned(),
    }
}

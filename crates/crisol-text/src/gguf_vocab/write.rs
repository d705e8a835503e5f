//! Writes the tokenizer and template of a model folder as the vocabulary of a GGUF file.
//!
//! llama.cpp must produce equal ids. So normalizer and pre-tokenizer must equal a known named one;
//! any other is an error. Sentencepiece vocabularies have scores there, but merges in a
//! `tokenizer.json`. The scores are derived from the order of the merges.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{GgufVocab, PRE_TOKENIZERS};
use crate::sentencepiece::{Piece, PieceKind, SPACE, Vocabulary};
use crate::{TextError, TextSetup};

impl TextSetup {
    /// The vocabulary of a GGUF file, for a model with `vocab_size` tokens. If the tokenizer has
    /// fewer, padding tokens are added, as by llama.cpp's converter.
    pub fn to_gguf(&self, vocab_size: usize) -> Result<GgufVocab, TextError> {
        let tokenizer: Value = serde_json::from_str(&self.tokenizer.to_json())
            .expect("the tokenizers library writes JSON");
        let parts = TokenizerParts::parse(&tokenizer)?;
        let (bos, eos) = (self.tokenizer.prepended_token(), self.tokenizer.appended_token());
        if eos.is_some_and(|eos| eos != self.eos) {
            return Err(unsupported(
                "it appends another token to texts than the end-of-text token",
            ));
        }
        // The first further stop token ends a turn, the second a message with tool calls.
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
        let mut pieces = self.pieces(&parts, vocab_size)?;
        match parts.pre_tokenization()? {
            PreTokenization::Named(pre) => {
                "gpt2".clone_into(&mut vocab.model);
                vocab.pre = Some(pre.to_owned());
                vocab.merges = parts.merges.iter().map(|pair| pair.join(" ")).collect();
            }
            PreTokenization::Sentencepiece { space_prefix } => {
                "llama".clone_into(&mut vocab.model);
                vocab.add_space_prefix = Some(space_prefix);
                vocab.scores = scores_from_merges(&pieces, &parts.merges)?;
                for piece in pieces.iter_mut().filter(|piece| piece.kind == PieceKind::UserDefined)
                {
                    piece.text = piece.text.replace(SPACE, " ");
                }
            }
        }
        vocab.token_types = pieces.iter().map(|piece| piece.kind.number()).collect();
        vocab.tokens = pieces.into_iter().map(|piece| piece.text).collect();
        Ok(vocab)
    }

    /// The tokens by id, with scores of 0.
    fn pieces(
        &self,
        parts: &TokenizerParts<'_>,
        vocab_size: usize,
    ) -> Result<Vec<Piece>, TextError> {
        let mut added = HashMap::new();
        for token in parts.json["added_tokens"].as_array().into_iter().flatten() {
            let strips = ["lstrip", "rstrip", "single_word"].iter().any(|key| token[*key] == true);
            if strips {
                return Err(unsupported(&format!(
                    "its token {} strips neighbouring spaces, or matches whole words only",
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

/// How text is split before merging, as a GGUF file describes it.
enum PreTokenization {
    Named(&'static str),
    Sentencepiece { space_prefix: bool },
}

/// The relevant parts of a `tokenizer.json`.
struct TokenizerParts<'a> {
    json: &'a Value,
    normalizers: Vec<Value>,
    pre_tokenizers: Vec<Value>,
    merges: Vec<[String; 2]>,
}

impl TokenizerParts<'_> {
    fn parse(json: &Value) -> Result<TokenizerParts<'_>, TextError> {
        let model = &json["model"];
        if model["type"] != "BPE" {
            return Err(unsupported(&format!(
                "it is a {} tokenizer, but only BPE is supported",
                model["type"]
            )));
        }
        let merge = |merge: &Value| match merge {
            Value::String(pair) => pair.split_once(' ').map(|(a, b)| [a.to_owned(), b.to_owned()]),
            pair => Some([pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()]),
        };
        let merges = model["merges"].as_array().into_iter().flatten().filter_map(merge).collect();
        Ok(TokenizerParts {
            json,
            normalizers: steps(&json["normalizer"], "normalizers"),
            pre_tokenizers: steps(&json["pre_tokenizer"], "pretokenizers"),
            merges,
        })
    }

    fn byte_fallback(&self) -> bool {
        self.json["model"]["byte_fallback"] == true
    }

    fn pre_tokenization(&self) -> Result<PreTokenization, TextError> {
        if self.byte_fallback() { self.sentencepiece() } else { self.named() }
    }

    fn named(&self) -> Result<PreTokenization, TextError> {
        let model = &self.json["model"];
        let nfc = match &self.normalizers[..] {
            [] => false,
            [step] if step["type"] == "NFC" => true,
            _ => return Err(self.unknown("normalizer")),
        };
        let equal = |pre: &&super::PreTokenizer| {
            pre.nfc == nfc
                && pre.ignore_merges == (model["ignore_merges"] == true)
                && steps(&pre.split.to_json(), "pretokenizers") == self.pre_tokenizers
        };
        let pre = PRE_TOKENIZERS.iter().find(equal).ok_or_else(|| self.unknown("pre_tokenizer"))?;
        Ok(PreTokenization::Named(pre.names[0]))
    }

    fn sentencepiece(&self) -> Result<PreTokenization, TextError> {
        let prefix = json!({"type": "Prepend", "prepend": SPACE});
        let spaces = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let space_prefix = match (&self.normalizers[..], &self.pre_tokenizers[..]) {
            ([first, second], []) if *first == prefix && *second == spaces => true,
            ([only], []) if *only == spaces => false,
            // Gemma's splits at spaces, of which there are none any more.
            ([only], [step]) if *only == spaces && step["pattern"] == json!({"String": " "}) => {
                false
            }
            // llama.cpp prepends the space after every special token too, even for the scheme
            // "first", which prepends it to the text only. Its converter accepts such models too.
            ([], [step]) if step["type"] == "Metaspace" && step["split"] == false => {
                step["prepend_scheme"] != "never"
            }
            ([], _) => return Err(self.unknown("pre_tokenizer")),
            _ => return Err(self.unknown("normalizer")),
        };
        Ok(PreTokenization::Sentencepiece { space_prefix })
    }

    fn unknown(&self, part: &str) -> TextError {
        const MAX_EXCERPT: usize = 600;
        let excerpt: String = self.json[part].to_string().chars().take(MAX_EXCERPT).collect();
        let known: Vec<&str> = PRE_TOKENIZERS.iter().map(|pre| pre.names[0]).collect();
        unsupported(&format!(
            "its {part} is not one that llama.cpp has under a supported name ({}, or \
             sentencepiece's): {excerpt}",
            known.join(", ")
        ))
    }
}

/// The steps of a normalizer or pre-tokenizer, without settings that do not change ids.
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
            // To keep only the matches changes nothing if the pattern covers all text, as OLMo 2's
            // does.
            if step["type"] == "Split" && step["behavior"] == "Removed" && step["invert"] == true {
                step["behavior"] = json!("Isolated");
                step["invert"] = json!(false);
            }
            vec![step]
        }
    }
}

/// Scores that give these merges in sentencepiece: descending in the order of the list.
///
/// Pieces with interleaved merges have equal scores, such as Llama 2's runs of spaces. It is an
/// error if no scores give the merges. Those of added tokens do not count, since these are matched
/// before merging (Gemma's runs of spaces: one of more than 31 may be split in another way).
fn scores_from_merges(pieces: &[Piece], merges: &[[String; 2]]) -> Result<Vec<f32>, TextError> {
    let added: HashSet<&str> = pieces
        .iter()
        .filter(|piece| matches!(piece.kind, PieceKind::UserDefined | PieceKind::Control))
        .map(|piece| piece.text.as_str())
        .collect();
    let merges: Vec<&[String; 2]> =
        merges.iter().filter(|pair| !added.contains(pair.concat().as_str())).collect();
    let merged: Vec<String> = merges.iter().map(|pair| pair.concat()).collect();
    let last: HashMap<&str, usize> =
        merged.iter().enumerate().map(|(index, piece)| (piece.as_str(), index)).collect();
    // Indices at which the merges of each score start.
    let mut starts = vec![];
    let mut ranks: HashMap<&str, usize> = HashMap::new();
    let mut end = None;
    for (index, piece) in merged.iter().enumerate() {
        if end.is_none_or(|end| index > end) {
            starts.push(index);
        }
        end = end.max(Some(last[piece.as_str()]));
        ranks.insert(piece, starts.len() - 1);
    }
    let mut next_rank = starts.len();
    let score = |piece: &Piece| {
        if piece.kind != PieceKind::Normal {
            return 0.0;
        }
        // Single characters come from no merge; sentencepiece ranks them last.
        let rank = ranks.get(piece.text.as_str()).copied().unwrap_or_else(|| {
            next_rank += 1;
            next_rank - 1
        });
        -(rank as f32)
    };
    let scores: Vec<f32> = pieces.iter().map(score).collect();
    let scored = pieces.iter().zip(&scores).map(|(piece, &score)| Piece { score, ..piece.clone() });
    // With scores, every split of a piece is a merge.
    let vocabulary = Vocabulary::with_pieces(scored.collect());
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
        // The order of one piece's merges does not matter: llama.cpp takes the leftmost.
        if merged[range].windows(2).all(|pair| pair[0] == pair[1]) {
            listed.sort_unstable();
            implied.sort_unstable();
        }
        if listed != implied {
            return Err(unsupported(&format!(
                "its merges, such as {:?} with {:?}, are not those of a vocabulary with scores",
                listed[0][0], listed[0][1]
            )));
        }
    }
    if implied.len() > merges.len() {
        return Err(unsupported("it has fewer merges than a vocabulary with scores"));
    }
    Ok(scores)
}

/// The file of the tokenizer, for messages.
const FILE: &str = "tokenizer.json";

fn unsupported(cause: &str) -> TextError {
    TextError::ModelFile {
        file: FILE.to_owned(),
        cause: format!("this tokenizer cannot be written into a GGUF file: {cause}"),
        remedy: "keep the model as a folder".to_owned(),
    }
}

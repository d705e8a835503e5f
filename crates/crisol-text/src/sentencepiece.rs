//! Sentencepiece vocabularies of BPE type (`tokenizer.model`: Llama 1 and 2, `TinyLlama`, …) as a [`Tokenizer`].
//!
//! sentencepiece merges the two neighbours whose union is the piece with the highest score, and knows no list of merges.
//! The tokenizers library does, so that the list is made from the scores: every way to cut a piece into two others, the
//! best piece first, and of equal scores the longer left part first, as `generate_merges` of transformers does with
//! scores. transformers 5 on a `tokenizer.model` orders by id instead, which splits runs of spaces otherwise than
//! sentencepiece, with which the models were trained (`"a  b"` as `▁a ▁▁ b`, not `▁a ▁ ▁b`); here sentencepiece is
//! followed.
//!
//! What text is turned into before (`normalizer_spec`) is written as the normalizers of the tokenizers library. Compiled
//! rules (`nmt_nfkc`; the models named above have none) are applied to one grapheme at a time there, as in transformers,
//! so that letters under several accents may come out otherwise than in sentencepiece. What has no counterpart is
//! refused by name.
//!
//! Format: `sentencepiece_model.proto` of <https://github.com/google/sentencepiece>.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};

use crate::guard::guarded;
use crate::protobuf::{Fields, Value};
use crate::{TextError, Tokenizer};

/// How sentencepiece writes a space.
pub(crate) const SPACE: &str = "\u{2581}";
/// Every way to cut a piece in two is looked at, which a hostile file could make long. Pieces in the field have 16
/// characters as a rule (`max_sentencepiece_length`), and runs of spaces some dozens.
const LONGEST_PIECE: usize = 1024;

/// What a piece is for; the numbers are those of the file, and of `tokenizer.ggml.token_type` in GGUF.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// Text.
    Normal,
    /// Stands for what the vocabulary lacks.
    Unknown,
    /// Structure (`<s>`), never made from text by sentencepiece itself.
    Control,
    /// One token wherever it stands in a text.
    UserDefined,
    /// Fills the vocabulary up.
    Unused,
    /// One byte of a character that the vocabulary lacks.
    Byte,
}

impl PieceKind {
    pub(crate) fn from_number(number: u64) -> Option<Self> {
        Some(match number {
            1 => Self::Normal,
            2 => Self::Unknown,
            3 => Self::Control,
            4 => Self::UserDefined,
            5 => Self::Unused,
            6 => Self::Byte,
            _ => return None,
        })
    }

    pub(crate) fn number(self) -> i32 {
        match self {
            Self::Normal => 1,
            Self::Unknown => 2,
            Self::Control => 3,
            Self::UserDefined => 4,
            Self::Unused => 5,
            Self::Byte => 6,
        }
    }

    /// The entry of `added_tokens` in a `tokenizer.json`, for pieces that are found in a text before anything else.
    pub(crate) fn added_token(self, id: usize, text: &str) -> Option<Json> {
        let special = matches!(self, Self::Control | Self::Unknown);
        let added = special || self == Self::UserDefined;
        added.then(|| {
            json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": special,
            })
        })
    }
}

/// One entry of the vocabulary.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Piece {
    pub(crate) text: String,
    pub(crate) score: f32,
    pub(crate) kind: PieceKind,
}

/// How pieces and text become a tokenizer.
#[expect(
    clippy::struct_excessive_bools,
    reason = "the format has as many switches, each independent"
)]
#[derive(Debug, Clone)]
pub(crate) struct Vocabulary {
    pub(crate) pieces: Vec<Piece>,
    /// Characters outside the vocabulary become their bytes' pieces.
    pub(crate) byte_fallback: bool,
    pub(crate) unk: Option<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// A space is put before a text.
    pub(crate) dummy_prefix: bool,
    /// Spaces at the ends are dropped, and runs of them made one.
    pub(crate) remove_extra_whitespaces: bool,
    /// sentencepiece's compiled rules of normalization, empty for none.
    pub(crate) charsmap: Vec<u8>,
    /// Whether plain text starts with `bos` and ends with `eos`.
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    /// The space before a text is put before the text only, and not before every part between named tokens: what
    /// transformers calls `legacy: false`.
    pub(crate) prefix_first_only: bool,
}

impl Vocabulary {
    /// Reads the bytes of a `tokenizer.model`.
    pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        // A text file of Meta's, in base64, which bears the same name with Llama 3.
        if bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().take(64).any(|&b| b == b' ')
        {
            return Err(unusable(
                file,
                "a tiktoken vocabulary, not a sentencepiece model",
                "put the model's tokenizer.json beside it, which holds the same vocabulary",
            ));
        }
        let mut vocabulary = Self::empty();
        vocabulary
            .read(bytes)
            .map_err(|(place, cause)| unusable(file, &format!("{place}: {cause}"), NOT_READABLE))?;
        Ok(vocabulary)
    }

    /// The tokenizer, by way of the contents of its `tokenizer.json`.
    pub(crate) fn tokenizer(&self, file: &str) -> Result<Tokenizer, TextError> {
        let ids = self.ids(file)?;
        let added: Vec<Json> = self
            .pieces
            .iter()
            .enumerate()
            .filter_map(|(id, piece)| piece.kind.added_token(id, &piece.text))
            .collect();
        let metaspace = self.prefix_first_only.then(|| {
            let scheme = if self.dummy_prefix { "first" } else { "never" };
            json!({"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": false})
        });
        let named = |id: Option<u32>, on: bool| id.filter(|_| on).map(|id| (id, self.text(id)));
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": self.normalizer(file)?,
            "pre_tokenizer": metaspace,
            "post_processor": around(named(self.bos, self.add_bos), named(self.eos, self.add_eos)),
            "decoder": self.decoder(),
            "model": self.bpe(&ids, file)?,
        });
        Tokenizer::from_value(&json, file)
    }

    /// A piece's text.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.pieces.get(id as usize).map_or("", |piece| &piece.text)
    }

    /// The pieces' ids; every piece must be there once.
    pub(crate) fn ids(&self, file: &str) -> Result<HashMap<&str, usize>, TextError> {
        let mut ids = HashMap::with_capacity(self.pieces.len());
        for (id, piece) in self.pieces.iter().enumerate() {
            let cause = if piece.text.is_empty() {
                format!("piece {id} is empty")
            } else if piece.text.len() > LONGEST_PIECE {
                format!(
                    "piece {id} has {} bytes, where {LONGEST_PIECE} is the most",
                    piece.text.len()
                )
            } else if !piece.score.is_finite() {
                format!("piece {id} ({:?}) has the score {}", piece.text, piece.score)
            } else if let Some(first) = ids.insert(piece.text.as_str(), id) {
                format!("pieces {first} and {id} are both {:?}", piece.text)
            } else {
                continue;
            };
            return Err(unusable(file, &cause, "get the file again"));
        }
        let has_byte = |byte: u32| ids.contains_key(format!("<0x{byte:02X}>").as_str());
        if self.unk.is_none() && !(self.byte_fallback && (0..256).all(has_byte)) {
            let cause = "it has neither an unknown piece nor all bytes, so that characters would be lost in silence";
            return Err(unusable(file, cause, UNSUPPORTED));
        }
        Ok(ids)
    }

    fn bpe(&self, ids: &HashMap<&str, usize>, file: &str) -> Result<Json, TextError> {
        let vocab: Map<String, Json> = self
            .pieces
            .iter()
            .enumerate()
            .map(|(id, piece)| (piece.text.clone(), json!(id)))
            .collect();
        Ok(json!({
            "type": "BPE", "dropout": null, "unk_token": self.unk.map(|id| self.text(id)),
            "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": true,
            "byte_fallback": self.byte_fallback, "ignore_merges": false, "vocab": vocab,
            "merges": self.merges(ids, file)?,
        }))
    }

    /// Every way to cut a piece of text into two others: the best piece first, of equals the longer left part, then
    /// the longer right part.
    pub(crate) fn merges(
        &self,
        ids: &HashMap<&str, usize>,
        file: &str,
    ) -> Result<Vec<[&str; 2]>, TextError> {
        struct Merge<'a> {
            score: f32,
            lengths: [usize; 2],
            parts: [&'a str; 2],
        }
        // Only text is merged: sentencepiece never makes a control or byte piece, nor joins a user's to others.
        let normal =
            |part: &str| ids.get(part).filter(|&&id| self.pieces[id].kind == PieceKind::Normal);
        let mut merges = vec![];
        for (id, piece) in self.pieces.iter().enumerate() {
            if !matches!(piece.kind, PieceKind::Normal | PieceKind::Unused) {
                continue;
            }
            let from = merges.len();
            let characters = piece.text.chars().count();
            for (left_characters, (at, _)) in piece.text.char_indices().enumerate().skip(1) {
                let (left, right) = piece.text.split_at(at);
                if let (Some(&left_id), Some(&right_id)) = (normal(left), normal(right)) {
                    let lengths = [left_characters, characters - left_characters];
                    // 0.0 + makes one zero of the two that floats have.
                    merges.push((
                        [left_id, right_id],
                        Merge { score: 0.0 + piece.score, lengths, parts: [left, right] },
                    ));
                }
            }
            if piece.kind == PieceKind::Unused && merges.len() > from {
                let cause = format!(
                    "piece {id} ({:?}) is marked as unused, but made of others",
                    piece.text
                );
                return Err(unusable(file, &cause, UNSUPPORTED));
            }
            merges[from..].sort_by_key(|(ids, _)| *ids);
        }
        // Stable, as the last order of equals is that of the vocabulary.
        merges
            .sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
        Ok(merges.into_iter().map(|(_, merge)| merge.parts).collect())
    }

    fn normalizer(&self, file: &str) -> Result<Option<Json>, TextError> {
        let mut steps = vec![];
        if !self.charsmap.is_empty() {
            steps.push(self.rules().map_err(|cause| {
                unusable(file, &format!("its precompiled_charsmap: {cause}"), "get the file again")
            })?);
        }
        let replace = |pattern: &str, content: &str| {
            let pattern = json!({"Regex": pattern});
            json!({"type": "Replace", "pattern": pattern, "content": content})
        };
        // \A and \z, because ^ and $ mean other things to the library's other regular expression engine.
        if self.remove_extra_whitespaces {
            steps.extend([replace(r"\A +", ""), replace(" {2,}", " ")]);
        }
        if !self.prefix_first_only {
            if self.dummy_prefix {
                steps.push(json!({"type": "Prepend", "prepend": SPACE}));
            }
            steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
        }
        if self.remove_extra_whitespaces {
            // sentencepiece drops these when spaces are written already as `▁`, which a text may hold itself.
            steps.push(replace(r"[ \x{2581}]+\z", ""));
        }
        Ok((!steps.is_empty()).then(|| json!({"type": "Sequence", "normalizers": steps})))
    }

    /// The compiled rules as a normalizer.
    fn rules(&self) -> Result<Json, String> {
        // They start with the size of a table, for which the library makes room before it looks for it.
        let (size, rest) =
            self.charsmap.split_first_chunk().ok_or("it ends within its first number")?;
        if u32::from_le_bytes(*size) as usize > rest.len() {
            return Err("it ends within its table".to_owned());
        }
        let rules = guarded(|| Precompiled::from(&self.charsmap))?;
        serde_json::to_value(NormalizerWrapper::Precompiled(rules)).map_err(|e| e.to_string())
    }

    fn decoder(&self) -> Json {
        let mut steps =
            vec![json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "})];
        if self.byte_fallback {
            steps.push(json!({"type": "ByteFallback"}));
        }
        steps.push(json!({"type": "Fuse"}));
        if self.dummy_prefix {
            steps.push(json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}));
        }
        json!({"type": "Sequence", "decoders": steps})
    }
}

/// The post-processor that puts tokens (ids with their texts) before and after a plain text, or nothing where there are
/// none.
pub(crate) fn around(before: Option<(u32, &str)>, after: Option<(u32, &str)>) -> Option<Json> {
    if before.is_none() && after.is_none() {
        return None;
    }
    let token =
        |(_, text): (u32, &str), part: u32| json!({"SpecialToken": {"id": text, "type_id": part}});
    let part = |name: &str, number: u32| {
        let text = json!({"Sequence": {"id": name, "type_id": number}});
        before
            .map(|t| token(t, number))
            .into_iter()
            .chain([text])
            .chain(after.map(|t| token(t, number)))
    };
    let single: Vec<Json> = part("A", 0).collect();
    let pair: Vec<Json> = part("A", 0).chain(part("B", 1)).collect();
    let tokens: Map<String, Json> = [before, after]
        .into_iter()
        .flatten()
        .map(|(id, text)| (text.to_owned(), json!({"id": text, "ids": [id], "tokens": [text]})))
        .collect();
    Some(
        json!({"type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens}),
    )
}

const NOT_READABLE: &str = "if this is a sentencepiece model, put the model's tokenizer.json beside it, or get the file again";
const UNSUPPORTED: &str =
    "put the model's tokenizer.json beside it, or convert it with transformers";

fn unusable(file: &str, cause: &str, remedy: &str) -> TextError {
    TextError::Folder { file: file.to_owned(), cause: cause.to_owned(), remedy: remedy.to_owned() }
}

/// Where in the file something is wrong, and what.
type Place = (String, &'static str);

/// The messages of the file.
impl Vocabulary {
    /// The defaults of the format, and of plain text with models that have such a file: transformers documents that it
    /// starts with `bos` (`add_bos_token`).
    fn empty() -> Self {
        Self {
            pieces: vec![],
            byte_fallback: false,
            unk: Some(0),
            bos: Some(1),
            eos: Some(2),
            dummy_prefix: true,
            remove_extra_whitespaces: true,
            charsmap: vec![],
            add_bos: true,
            add_eos: false,
            prefix_first_only: false,
        }
    }

    /// Of these pieces, with the format's defaults.
    pub(crate) fn of_pieces(pieces: Vec<Piece>) -> Self {
        Self { pieces, ..Self::empty() }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), Place> {
        let mut trainer = false;
        for field in Fields::new(bytes) {
            let (number, value) = field.map_err(|e| (format!("byte {}", e.offset), e.cause))?;
            let Value::Bytes(message) = value else { continue };
            let in_message = |name: &str| {
                let name = name.to_owned();
                move |cause| (name, cause)
            };
            match number {
                1 => {
                    let piece = read_piece(message);
                    self.pieces
                        .push(piece.map_err(in_message(&format!("piece {}", self.pieces.len())))?);
                }
                2 => {
                    self.read_trainer(message).map_err(in_message("trainer_spec"))?;
                    trainer = true;
                }
                3 => self.read_normalizer(message).map_err(in_message("normalizer_spec"))?,
                5 => read_denormalizer(message).map_err(in_message("denormalizer_spec"))?,
                _ => {}
            }
        }
        if !trainer {
            return Err(("trainer_spec".to_owned(), "there is none"));
        }
        if self.pieces.is_empty() {
            return Err(("pieces".to_owned(), "there are none"));
        }
        // A piece that is not there is not an error: a model may be trained without `<s>`.
        for id in [&mut self.unk, &mut self.bos, &mut self.eos] {
            *id = id.filter(|&id| (id as usize) < self.pieces.len());
        }
        Ok(())
    }

    fn read_trainer(&mut self, message: &[u8]) -> Result<(), &'static str> {
        // The format's default is a Unigram model.
        let mut bpe = false;
        for field in Fields::new(message) {
            let (number, Value::Varint(value)) = field.map_err(|e| e.cause)? else { continue };
            // -1 for a piece that there is not: negative numbers are written in two's complement of 64 bits.
            let id = u32::try_from(value).ok();
            match (number, value) {
                (3, 2) => bpe = true,
                (3, _) => bpe = false,
                (24, 1..) => return Err("treat_whitespace_as_suffix, which is not supported"),
                (35, _) => self.byte_fallback = value != 0,
                (40, _) => self.unk = id,
                (41, _) => self.bos = id,
                (42, _) => self.eos = id,
                _ => {}
            }
        }
        // The tokenizers library has Unigram models too, but adds up their scores in other numbers, and so chooses other
        // pieces where two ways are equal.
        if bpe { Ok(()) } else { Err("a model_type other than BPE, which is not supported") }
    }

    fn read_normalizer(&mut self, message: &[u8]) -> Result<(), &'static str> {
        for field in Fields::new(message) {
            match field.map_err(|e| e.cause)? {
                (2, Value::Bytes(rules)) => self.charsmap = rules.to_vec(),
                (3, Value::Varint(value)) => self.dummy_prefix = value != 0,
                (4, Value::Varint(value)) => self.remove_extra_whitespaces = value != 0,
                (5, Value::Varint(0)) => {
                    return Err("escape_whitespaces=false, which is not supported");
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Rules for decoded text, which hardly any model has.
fn read_denormalizer(message: &[u8]) -> Result<(), &'static str> {
    for field in Fields::new(message) {
        if matches!(field.map_err(|e| e.cause)?, (2, Value::Bytes(rules)) if !rules.is_empty()) {
            return Err("rules for decoded text, which are not supported");
        }
    }
    Ok(())
}

fn read_piece(message: &[u8]) -> Result<Piece, &'static str> {
    let mut piece = Piece { text: String::new(), score: 0.0, kind: PieceKind::Normal };
    for field in Fields::new(message) {
        match field.map_err(|e| e.cause)? {
            (1, Value::Bytes(text)) => {
                let text = std::str::from_utf8(text).map_err(|_| "its text is not UTF-8")?;
                text.clone_into(&mut piece.text);
            }
            (2, Value::Fixed32(score)) => piece.score = f32::from_le_bytes(score),
            (3, Value::Varint(kind)) => {
                piece.kind = PieceKind::from_number(kind).ok_or("a piece of an unknown type")?;
            }
            _ => {}
        }
    }
    Ok(piece)
}

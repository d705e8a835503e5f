//! Sentencepiece vocabularies of BPE type (`tokenizer.model`) as a [`Tokenizer`]: Llama 1 and 2, …
//!
//! sentencepiece has scores instead of merges: it merges the two neighbours whose union has the
//! highest score. The tokenizers library needs a list of merges. It is generated from the scores:
//! each split of a piece into two others, by descending score, then by length of the left part.
//! `generate_merges` of transformers does the same. transformers 5 orders the merges of a
//! `tokenizer.model` by id instead, which splits runs of spaces differently from sentencepiece
//! (`"a  b"`: `▁a ▁▁ b` here, `▁a ▁ ▁b` there).
//!
//! The `normalizer_spec` becomes normalizers of the tokenizers library. It applies compiled rules
//! (`nmt_nfkc`; Llama has none) to one grapheme at a time, as in transformers, so letters with
//! several accents may differ from sentencepiece. Unsupported settings are errors.
//!
//! Format: `sentencepiece_model.proto` of <https://github.com/google/sentencepiece>.

use std::collections::HashMap;

use serde_json::{Map, Value as Json, json};
use tokenizers::normalizers::{NormalizerWrapper, Precompiled};

use crate::panics::catch_panic;
use crate::protobuf::{Fields, Value};
use crate::{TextError, Tokenizer};

/// The character for a space.
pub(crate) const SPACE: &str = "\u{2581}";
/// Longest piece in bytes, to bound the number of splits in a hostile file. Pieces usually have at
/// most 16 characters (`max_sentencepiece_length`), runs of spaces some dozens.
const MAX_PIECE_BYTES: usize = 1024;

/// The type of a piece, numbered as in the file and in GGUF's `tokenizer.ggml.token_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PieceKind {
    /// Text.
    Normal,
    /// Replaces text that the vocabulary lacks.
    Unknown,
    /// Structure (`<s>`). sentencepiece never produces it from text.
    Control,
    /// An added token, matched before merging.
    UserDefined,
    /// Padding of the vocabulary.
    Unused,
    /// A byte of a character that the vocabulary lacks.
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

    /// The entry of `added_tokens` in a `tokenizer.json`, for pieces matched before merging: before
    /// normalisation, or after it.
    pub(crate) fn added_token(self, id: usize, text: &str, normalized: bool) -> Option<Json> {
        let special = matches!(self, Self::Control | Self::Unknown);
        let added = special || self == Self::UserDefined;
        added.then(|| {
            json!({
                "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": normalized, "special": special,
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

/// A vocabulary with its settings.
#[expect(clippy::struct_excessive_bools, reason = "the format has these independent flags")]
#[derive(Debug, Clone)]
pub(crate) struct Vocabulary {
    pub(crate) pieces: Vec<Piece>,
    /// Whether characters outside the vocabulary become byte pieces.
    pub(crate) byte_fallback: bool,
    pub(crate) unk: Option<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// Whether a space is prepended to a text.
    pub(crate) dummy_prefix: bool,
    /// Whether spaces at both ends are removed, and runs of spaces become one.
    pub(crate) remove_extra_whitespaces: bool,
    /// Compiled normalisation rules; empty for none.
    pub(crate) charsmap: Vec<u8>,
    /// Whether `bos` is prepended to a text, and `eos` appended.
    pub(crate) add_bos: bool,
    pub(crate) add_eos: bool,
    /// Whether the space is prepended only to the text, not to each part after an added token
    /// (transformers' `legacy: false`).
    pub(crate) prefix_first_only: bool,
}

impl Vocabulary {
    /// Reads the bytes of a `tokenizer.model`.
    pub(crate) fn parse(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        // Llama 3's `tokenizer.model` is a base64 text file of tiktoken.
        if bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().take(64).any(|&b| b == b' ')
        {
            return Err(unusable(
                file,
                "a tiktoken vocabulary, not a sentencepiece model",
                "put the model's tokenizer.json beside it, which has the same vocabulary",
            ));
        }
        let mut vocabulary = Self::empty();
        vocabulary.read(bytes).map_err(|(location, cause)| {
            unusable(file, &format!("{location}: {cause}"), NOT_READABLE)
        })?;
        vocabulary.write_merged_bytes_as_text();
        Ok(vocabulary)
    }

    /// Makes byte pieces of ASCII characters text pieces if longer pieces contain them.
    ///
    /// sentencepiece merges characters that are no pieces themselves, such as Gemma's tabs. The
    /// tokenizers library merges only tokens. The ids are the same, also without merges.
    fn write_merged_bytes_as_text(&mut self) {
        let mut merged = [false; 128];
        let texts = self.pieces.iter().filter(|piece| piece.kind == PieceKind::Normal);
        for byte in texts.clone().flat_map(|piece| piece.text.bytes()).filter(u8::is_ascii) {
            merged[usize::from(byte)] = true;
        }
        for byte in texts.filter_map(|piece| <[u8; 1]>::try_from(piece.text.as_bytes()).ok()) {
            if byte[0].is_ascii() {
                merged[usize::from(byte[0])] = false;
            }
        }
        for (byte, _) in (0..128u8).zip(merged).filter(|(_, merged)| *merged) {
            let text = format!("<0x{byte:02X}>");
            let is_byte = |piece: &&mut Piece| piece.kind == PieceKind::Byte && piece.text == text;
            if let Some(piece) = self.pieces.iter_mut().find(is_byte) {
                piece.text = char::from(byte).to_string();
                piece.kind = PieceKind::Normal;
            }
        }
    }

    /// The tokenizer, built from the contents of a `tokenizer.json`.
    pub(crate) fn tokenizer(&self, file: &str) -> Result<Tokenizer, TextError> {
        let ids = self.ids(file)?;
        let added: Vec<Json> = self
            .pieces
            .iter()
            .enumerate()
            .filter_map(|(id, piece)| {
                // Runs of spaces (Gemma's) are found where spaces became `▁`.
                let normalized = piece.kind == PieceKind::UserDefined && piece.text.contains(SPACE);
                piece.kind.added_token(id, &piece.text, normalized)
            })
            .collect();
        let metaspace = self.has_first_prefix().then(|| {
            json!({
                "type": "Metaspace", "replacement": SPACE, "prepend_scheme": "first",
                "split": false,
            })
        });
        let token = |id: Option<u32>, on: bool| id.filter(|_| on).map(|id| (id, self.text(id)));
        let (bos, eos) = (token(self.bos, self.add_bos), token(self.eos, self.add_eos));
        let json = json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": self.normalizer(file)?,
            "pre_tokenizer": metaspace,
            "post_processor": template_processing(bos, eos),
            "decoder": self.decoder(),
            "model": self.bpe(&ids, file)?,
        });
        Tokenizer::from_value(&json, file)
    }

    /// Whether a space is prepended to the text only.
    fn has_first_prefix(&self) -> bool {
        self.dummy_prefix && self.prefix_first_only
    }

    /// A piece's text.
    pub(crate) fn text(&self, id: u32) -> &str {
        self.pieces.get(id as usize).map_or("", |piece| &piece.text)
    }

    /// Ids by text. It is an error if pieces are empty, too long, or not unique.
    pub(crate) fn ids(&self, file: &str) -> Result<HashMap<&str, usize>, TextError> {
        let mut ids = HashMap::with_capacity(self.pieces.len());
        for (id, piece) in self.pieces.iter().enumerate() {
            let cause = if piece.text.is_empty() {
                format!("piece {id} is empty")
            } else if piece.text.len() > MAX_PIECE_BYTES {
                format!(
                    "piece {id} has {} bytes, more than the limit of {MAX_PIECE_BYTES}",
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
        let has_byte = |byte: u8| {
            let character = char::from(byte).to_string();
            byte.is_ascii() && ids.contains_key(character.as_str())
                || ids.contains_key(format!("<0x{byte:02X}>").as_str())
        };
        if self.unk.is_none() && !(self.byte_fallback && (0..=255).all(has_byte)) {
            let cause = "it has neither an unknown piece nor all bytes, so some characters would \
                         be \
                         dropped silently";
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

    /// The merges: each split of a text piece into two others, by descending score, then by
    /// descending length of the left part.
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
        // Only text pieces are merged, never control, byte or user-defined ones.
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
                    // Adding 0.0 turns -0.0 into 0.0, so that both compare equal.
                    merges.push((
                        [left_id, right_id],
                        Merge { score: 0.0 + piece.score, lengths, parts: [left, right] },
                    ));
                }
            }
            if piece.kind == PieceKind::Unused && merges.len() > from {
                let cause = format!(
                    "piece {id} ({:?}) is marked as unused, but is a merge of others",
                    piece.text
                );
                return Err(unusable(file, &cause, UNSUPPORTED));
            }
            merges[from..].sort_by_key(|(ids, _)| *ids);
        }
        // The sort must be stable: equal merges stay in the order of the vocabulary.
        merges
            .sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score).then(b.lengths.cmp(&a.lengths)));
        Ok(merges.into_iter().map(|(_, merge)| merge.parts).collect())
    }

    fn normalizer(&self, file: &str) -> Result<Option<Json>, TextError> {
        let mut steps = vec![];
        if !self.charsmap.is_empty() {
            steps.push(self.compiled_rules().map_err(|cause| {
                unusable(file, &format!("its precompiled_charsmap: {cause}"), "get the file again")
            })?);
        }
        let replace = |pattern: &str, content: &str| {
            let pattern = json!({"Regex": pattern});
            json!({"type": "Replace", "pattern": pattern, "content": content})
        };
        // \A and \z, because ^ and $ match at line ends in the library's other regex engine.
        if self.remove_extra_whitespaces {
            steps.extend([replace(r"\A +", ""), replace(" {2,}", " ")]);
        }
        if !self.has_first_prefix() {
            if self.dummy_prefix {
                steps.push(json!({"type": "Prepend", "prepend": SPACE}));
            }
            steps.push(json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE}));
        }
        if self.remove_extra_whitespaces {
            // sentencepiece removes these after it replaced spaces by `▁`, so also a text's own
            // `▁`.
            steps.push(replace(r"[ \x{2581}]+\z", ""));
        }
        Ok((!steps.is_empty()).then(|| json!({"type": "Sequence", "normalizers": steps})))
    }

    /// The compiled normalisation rules as a normalizer.
    fn compiled_rules(&self) -> Result<Json, String> {
        // The rules start with a table's size. The library allocates it before checking the length.
        let (size, rest) =
            self.charsmap.split_first_chunk().ok_or("it ends inside its first number")?;
        if u32::from_le_bytes(*size) as usize > rest.len() {
            return Err("it ends inside its table".to_owned());
        }
        let rules = catch_panic(|| Precompiled::from(&self.charsmap))?;
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

/// The post-processor that adds a token (id and text) before and after a text; `None` without
/// tokens.
pub(crate) fn template_processing(
    before: Option<(u32, &str)>,
    after: Option<(u32, &str)>,
) -> Option<Json> {
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
    Some(json!({
        "type": "TemplateProcessing", "single": single, "pair": pair, "special_tokens": tokens,
    }))
}

const NOT_READABLE: &str = "if this is a sentencepiece model, put the model's tokenizer.json \
                            beside it, or get the file again";
const UNSUPPORTED: &str =
    "put the model's tokenizer.json beside it, or convert it with transformers";

fn unusable(file: &str, cause: &str, remedy: &str) -> TextError {
    TextError::ModelFile {
        file: file.to_owned(),
        cause: cause.to_owned(),
        remedy: remedy.to_owned(),
    }
}

/// The part of the file with an error, and the cause.
type PartAndCause = (String, &'static str);

/// Reading the messages of the file.
impl Vocabulary {
    /// The format's defaults. `add_bos` is transformers' default for these models.
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

    /// A vocabulary of these pieces, with the format's defaults.
    pub(crate) fn with_pieces(pieces: Vec<Piece>) -> Self {
        Self { pieces, ..Self::empty() }
    }

    fn read(&mut self, bytes: &[u8]) -> Result<(), PartAndCause> {
        let mut has_trainer_spec = false;
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
                    has_trainer_spec = true;
                }
                3 => self.read_normalizer(message).map_err(in_message("normalizer_spec"))?,
                5 => read_denormalizer(message).map_err(in_message("denormalizer_spec"))?,
                _ => {}
            }
        }
        if !has_trainer_spec {
            return Err(("trainer_spec".to_owned(), "it is missing"));
        }
        if self.pieces.is_empty() {
            return Err(("pieces".to_owned(), "there are none"));
        }
        // An id without piece is no error: a model may be trained without `<s>`.
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
            // -1 means no piece. Negative numbers are encoded as 64-bit two's complement.
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
        // The tokenizers library's Unigram model sums scores in another precision than
        // sentencepiece, and so resolves ties differently.
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

/// Rejects rules for decoded text, which hardly any model has.
fn read_denormalizer(message: &[u8]) -> Result<(), &'static str> {
    for field in Fields::new(message) {
        if matches!(field.map_err(|e| e.cause)?, (2, Value::Bytes(rules)) if !rules.is_empty()) {
            return Err("it has rules for decoded text, which are not supported");
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

//! Reads the vocabulary of a GGUF file (`tokenizer.ggml.*`) as a [`Tokenizer`] and a [`TextSetup`].
//! `write.rs` does the reverse.
//!
//! A GGUF file has tokens, merges or scores, and the *name* of a pre-tokenizer
//! (`tokenizer.ggml.pre`). Its definition is in the `tokenizer.json` of the model that it is named
//! after, and repeated here. An unknown name is an error: with another pre-tokenizer, a model would
//! silently get other tokens than in training.
//!
//! Keys and defaults: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md> and
//! `llama-vocab.cpp` of llama.cpp.

mod write;

use std::collections::{BTreeMap, HashSet};

use serde_json::{Map, Value, json};

use crate::folder::SetupParts;
use crate::sentencepiece::{Piece, PieceKind, SPACE, Vocabulary, template_processing};
use crate::template::DEFAULT;
use crate::{TextError, TextSetup, Tokenizer};

/// The tokenizer metadata of a GGUF file. Each field is the key `tokenizer.ggml.NAME`, unless
/// noted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct GgufVocab {
    /// `gpt2` (byte-level BPE) or `llama` (sentencepiece BPE).
    pub model: String,
    /// Name of the pre-tokenizer; only for `gpt2`.
    pub pre: Option<String>,
    /// The tokens, by id.
    pub tokens: Vec<String>,
    /// Merge priority of each token; only for `llama`.
    pub scores: Vec<f32>,
    /// `token_type` of each token.
    pub token_types: Vec<i32>,
    /// Merges by priority, each as two parts separated by a space; only for `gpt2`.
    pub merges: Vec<String>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `eot_token_id`: ends a turn.
    pub eot: Option<u32>,
    /// `eom_token_id`: ends a message with tool calls.
    pub eom: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// Whether a space is prepended to a text; only for `llama`.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`.
    pub chat_template: Option<String>,
    /// `tokenizer.chat_template.NAME`, by name.
    pub named_chat_templates: BTreeMap<String, String>,
}

/// A named pre-tokenizer of byte-level BPE.
struct PreTokenizer {
    names: &'static [&'static str],
    /// Whether text is normalised to NFC first.
    nfc: bool,
    split: Split,
    /// Whether a word that is a token becomes that token, regardless of merges.
    ignore_merges: bool,
    /// Default of `add_bos_token`.
    add_bos: bool,
}

/// How text is split into words.
enum Split {
    /// GPT-2's pattern.
    Gpt2,
    /// Single digits, then GPT-2's pattern.
    Digits,
    /// These patterns, in turn.
    Patterns(&'static [&'static str]),
}

/// The known pre-tokenizers, from the `tokenizer.json` of: GPT-2; `SmolLM2` and `StarCoder` 2;
/// Llama 3; DBRX and `OLMo` 2 (cl100k); Qwen 2 and 3; `DeepSeek` V3; `OLMo` 1 (GPT-NeoX); Llama 4
/// and gpt-oss (o200k); Mistral Nemo (tekken).
const PRE_TOKENIZERS: [PreTokenizer; 9] = [
    PreTokenizer {
        names: &["gpt-2", "default"],
        nfc: false,
        split: Split::Gpt2,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact"],
        nfc: false,
        split: Split::Digits,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama3", "llama-v3"],
        nfc: false,
        split: Split::Patterns(&[CL100K]),
        ignore_merges: true,
        add_bos: true,
    },
    PreTokenizer {
        names: &["dbrx"],
        nfc: false,
        split: Split::Patterns(&[CL100K]),
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["qwen2"],
        nfc: true,
        split: Split::Patterns(&[QWEN2]),
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["deepseek-v3"],
        nfc: false,
        split: Split::Patterns(&DEEPSEEK_V3),
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["olmo"],
        nfc: true,
        split: Split::Gpt2,
        ignore_merges: false,
        add_bos: false,
    },
    PreTokenizer {
        names: &["llama4", "gpt-4o"],
        nfc: false,
        split: Split::Patterns(&[O200K]),
        ignore_merges: true,
        add_bos: false,
    },
    PreTokenizer {
        names: &["tekken"],
        nfc: false,
        split: Split::Patterns(&[TEKKEN]),
        ignore_merges: true,
        add_bos: true,
    },
];

const CL100K: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const DEEPSEEK_V3: [&str; 3] = [
    r"\p{N}{1,3}",
    "[\u{4e00}-\u{9fa5}\u{3040}-\u{309f}\u{30a0}-\u{30ff}]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];

impl Tokenizer {
    /// The tokenizer of a GGUF file. Errors name it `file`.
    pub fn from_gguf(vocab: &GgufVocab, file: &str) -> Result<Self, TextError> {
        let pieces = vocab.pieces(file)?;
        match vocab.model.as_str() {
            "llama" => vocab.sentencepiece(pieces).tokenizer(file),
            "gpt2" => Self::from_value(&vocab.byte_level(&pieces, file)?, file),
            other => Err(unsupported(
                file,
                &format!(
                    "its tokenizer.ggml.model is {other:?}, but only gpt2 and llama are supported"
                ),
            )),
        }
    }
}

impl TextSetup {
    /// Tokenizer, template and stop tokens of a GGUF file. Errors name it `file`.
    pub fn from_gguf(vocab: &GgufVocab, file: &str) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::from_gguf(vocab, file)?;
        let named = [
            ("bos_token", vocab.bos),
            ("eos_token", vocab.eos),
            ("unk_token", vocab.unk),
            ("pad_token", vocab.pad),
        ];
        let tokenizer_config: Map<String, Value> = named
            .into_iter()
            .filter_map(|(name, id)| {
                Some((name.to_owned(), json!(vocab.tokens.get(id? as usize)?)))
            })
            .collect();
        let Some(eos) = vocab.eos else {
            return Err(malformed(file, "it has no tokenizer.ggml.eos_token_id"));
        };
        let mut templates = vocab.named_chat_templates.clone();
        templates.extend(vocab.chat_template.clone().map(|source| (DEFAULT.to_owned(), source)));
        TextSetup::assemble(SetupParts {
            tokenizer,
            tokenizer_config,
            generation_config: Map::new(),
            special_tokens: Map::new(),
            templates: (!templates.is_empty()).then(|| (file.to_owned(), templates)),
            eos,
            generation_stops: [vocab.eot, vocab.eom].into_iter().flatten().collect(),
        })
    }
}

impl GgufVocab {
    /// The tokens with their types. Checks lengths, ids and types.
    fn pieces(&self, file: &str) -> Result<Vec<Piece>, TextError> {
        let tokens = self.tokens.len();
        let sentencepiece = self.model == "llama";
        let scores = if sentencepiece { self.scores.len() } else { tokens };
        for (name, length) in [("token_type", self.token_types.len()), ("scores", scores)] {
            if length != tokens {
                return Err(malformed(
                    file,
                    &format!("its tokenizer.ggml.{name} has {length} entries for {tokens} tokens"),
                ));
            }
        }
        for (name, id) in [
            ("bos", self.bos),
            ("eos", self.eos),
            ("unknown", self.unk),
            ("padding", self.pad),
            ("eot", self.eot),
            ("eom", self.eom),
        ] {
            if let Some(id) = id.filter(|&id| id as usize >= tokens) {
                return Err(malformed(
                    file,
                    &format!("its tokenizer.ggml.{name}_token_id is {id}, of {tokens} tokens"),
                ));
            }
        }
        let piece = |(id, (text, &kind)): (usize, (&String, &i32))| {
            let kind =
                u64::try_from(kind).ok().and_then(PieceKind::from_number).ok_or_else(|| {
                    malformed(
                        file,
                        &format!("its token {id} ({text:?}) has the unknown type {kind}"),
                    )
                })?;
            let score = if sentencepiece { self.scores[id] } else { 0.0 };
            Ok(Piece { text: text.clone(), score, kind })
        };
        self.tokens.iter().zip(&self.token_types).enumerate().map(piece).collect()
    }

    fn sentencepiece(&self, mut pieces: Vec<Piece>) -> Vocabulary {
        // llama.cpp's converter writes these with spaces.
        for piece in pieces.iter_mut().filter(|piece| piece.kind == PieceKind::UserDefined) {
            piece.text = piece.text.replace(' ', SPACE);
        }
        Vocabulary {
            byte_fallback: pieces.iter().any(|piece| piece.kind == PieceKind::Byte),
            unk: self.unk.or_else(|| {
                let unknown = pieces.iter().position(|piece| piece.kind == PieceKind::Unknown);
                unknown.and_then(|id| u32::try_from(id).ok())
            }),
            pieces,
            bos: self.bos,
            eos: self.eos,
            dummy_prefix: self.add_space_prefix.unwrap_or(true),
            // GGUF files of this kind have neither of these settings.
            remove_extra_whitespaces: false,
            charsmap: vec![],
            add_bos: self.add_bos.unwrap_or(true),
            add_eos: self.add_eos.unwrap_or(false),
            prefix_first_only: false,
        }
    }

    /// The contents of the `tokenizer.json`.
    fn byte_level(&self, pieces: &[Piece], file: &str) -> Result<Value, TextError> {
        let pre = self.pre_tokenizer(file)?;
        let mut seen = HashSet::with_capacity(pieces.len());
        if let Some(piece) =
            pieces.iter().find(|piece| piece.text.is_empty() || !seen.insert(&piece.text))
        {
            return Err(malformed(
                file,
                &format!("its token {:?} is empty or occurs twice", piece.text),
            ));
        }
        let vocab: Map<String, Value> =
            pieces.iter().enumerate().map(|(id, piece)| (piece.text.clone(), json!(id))).collect();
        let added: Vec<Value> = pieces
            .iter()
            .enumerate()
            .filter_map(|(id, piece)| piece.kind.added_token(id, &piece.text, false))
            .collect();
        let pair = |(index, merge): (usize, &String)| {
            let (left, right) = merge.split_once(' ').ok_or_else(|| {
                malformed(
                    file,
                    &format!("its merge {index} ({merge:?}) is not two parts separated by a space"),
                )
            })?;
            Ok([left.to_owned(), right.to_owned()])
        };
        let merges: Vec<[String; 2]> =
            self.merges.iter().enumerate().map(pair).collect::<Result<_, TextError>>()?;
        let named = |id: Option<u32>, on: bool| {
            id.filter(|_| on).map(|id| (id, self.tokens[id as usize].as_str()))
        };
        let before = named(self.bos, self.add_bos.unwrap_or(pre.add_bos));
        let after = named(self.eos, self.add_eos.unwrap_or(false));
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": pre.nfc.then(|| json!({"type": "NFC"})),
            "pre_tokenizer": pre.split.to_json(),
            "post_processor": template_processing(before, after),
            "decoder": {
                "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true,
                "use_regex": true,
            },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null,
                "continuing_subword_prefix": null, "end_of_word_suffix": null, "fuse_unk": false,
                "byte_fallback": false,
                "ignore_merges": pre.ignore_merges, "vocab": vocab, "merges": merges,
            },
        }))
    }

    fn pre_tokenizer(&self, file: &str) -> Result<&'static PreTokenizer, TextError> {
        let name = self.pre.as_deref().ok_or_else(|| {
            unsupported(file, "it has no tokenizer.ggml.pre, so its pre-tokenizer is unknown")
        })?;
        PRE_TOKENIZERS.iter().find(|pre| pre.names.contains(&name)).ok_or_else(|| {
            let known: Vec<&str> =
                PRE_TOKENIZERS.iter().flat_map(|pre| pre.names).copied().collect();
            unsupported(
                file,
                &format!(
                    "its tokenizer.ggml.pre is {name:?}, but only these are supported: {}",
                    known.join(", ")
                ),
            )
        })
    }
}

impl Split {
    /// The pre-tokenizer of a `tokenizer.json`.
    fn to_json(&self) -> Value {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": use_regex,
            })
        };
        let steps = match self {
            Self::Gpt2 => return byte_level(true),
            Self::Digits => {
                vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)]
            }
            Self::Patterns(patterns) => {
                let split = |pattern: &&str| {
                    json!({
                        "type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated",
                        "invert": false,
                    })
                };
                patterns.iter().map(split).chain([byte_level(false)]).collect()
            }
        };
        json!({"type": "Sequence", "pretokenizers": steps})
    }
}

/// An error for what this program does not support.
fn unsupported(file: &str, cause: &str) -> TextError {
    TextError::ModelFile {
        file: file.to_owned(),
        cause: cause.to_owned(),
        remedy: "use the model's folder with its tokenizer.json instead".to_owned(),
    }
}

/// An error for an invalid file.
fn malformed(file: &str, cause: &str) -> TextError {
    TextError::ModelFile {
        file: file.to_owned(),
        cause: cause.to_owned(),
        remedy: "get the file again, or convert the model again".to_owned(),
    }
}

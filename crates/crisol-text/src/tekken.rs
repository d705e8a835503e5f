//! Mistral's `tekken.json` as a [`Tokenizer`]: byte-level BPE with ranks instead of merges.
//!
//! The file lists tokens by rank. The two neighbours are merged whose union has the lowest rank,
//! and a word that is a token becomes that token. The tokenizers library needs a list of merges. It
//! is generated from the ranks: each split of a token into two others, by rank of the token, then
//! of the parts.
//!
//! Ids are special tokens first, then tokens by rank. `mistral_common` finds no special tokens in a
//! text. Here they are matched, as in the `tokenizer.json` of the same models, because templates
//! write them.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value as Json, json};

use crate::sentencepiece::template_processing;
use crate::word_cache::byte_characters;
use crate::{TextError, Tokenizer};

const BOS: &str = "<s>";
const EOS: &str = "</s>";
const UNKNOWN: &str = "<unk>";
const PADDING: &str = "<pad>";
/// What templates and configurations call these tokens.
pub(crate) const NAMED: [(&str, &str); 4] =
    [("bos_token", BOS), ("eos_token", EOS), ("unk_token", UNKNOWN), ("pad_token", PADDING)];
/// The special tokens of files without a list.
const SPECIAL: [&str; 20] = [
    UNKNOWN,
    BOS,
    EOS,
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    PADDING,
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];
/// Most special tokens; published files have 1000. Most of them are only numbered in the file.
const MAX_SPECIAL: usize = 1 << 16;
/// Longest token in bytes, to bound the number of splits in a hostile file. Those of published
/// files have at most 76.
const MAX_TOKEN_BYTES: usize = 1024;

/// The fields of the file that matter here.
#[derive(Deserialize)]
struct File {
    config: Config,
    vocab: Vec<Token>,
    special_tokens: Option<Vec<SpecialToken>>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    /// Tokens, special ones included. `vocab` may have more.
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(Deserialize)]
struct Token {
    rank: usize,
    /// In base64.
    token_bytes: String,
}

#[derive(Deserialize)]
struct SpecialToken {
    rank: usize,
    token_str: String,
}

impl Tokenizer {
    /// Reads the bytes of a `tekken.json` (Mistral Nemo and later models). Errors name it `file`.
    pub fn from_tekken(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        let json = tokenizer_json(bytes).map_err(|cause| TextError::ModelFile {
            file: file.to_owned(),
            cause,
            remedy: "get the file again, or put the model's tokenizer.json beside it".to_owned(),
        })?;
        Self::from_value(&json, file)
    }
}

/// The contents of the `tokenizer.json`, or what is wrong with the file.
fn tokenizer_json(bytes: &[u8]) -> Result<Json, String> {
    let file: File =
        serde_json::from_slice(bytes).map_err(|e| format!("not a tekken.json: {e}"))?;
    let special = special_tokens(&file)?;
    let tokens = tokens(&file, special.len())?;

    let characters = byte_characters();
    let text = |token: &[u8]| -> String {
        token.iter().map(|&byte| characters[usize::from(byte)]).collect()
    };
    let mut vocab = Map::new();
    let texts = special.iter().cloned().chain(tokens.iter().map(|token| text(token)));
    for (id, text) in texts.enumerate() {
        if let Some(first) = vocab.insert(text.clone(), json!(id)) {
            return Err(format!("its tokens {first} and {id} are both {text:?}"));
        }
    }
    let merges: Vec<[String; 2]> = merges(&tokens).iter().map(|pair| pair.map(&text)).collect();
    let added = special.iter().enumerate().map(|(id, text)| {
        json!({
            "id": id, "content": text, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    });
    let bos = special.iter().position(|text| text == BOS);
    let bos = bos.and_then(|id| Some((u32::try_from(id).ok()?, BOS)));
    Ok(json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null,
        "added_tokens": added.collect::<Vec<_>>(),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {
                "type": "Split", "pattern": {"Regex": file.config.pattern},
                "behavior": "Isolated", "invert": false,
            },
            {
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true,
                "use_regex": false,
            },
        ]},
        "post_processor": template_processing(bos, None),
        "decoder": {
            "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true,
        },
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false,
            "ignore_merges": true, "vocab": vocab, "merges": merges,
        },
    }))
}

/// The special tokens by id. Those without a name are numbered.
fn special_tokens(file: &File) -> Result<Vec<String>, String> {
    let count = file.config.default_num_special_tokens;
    if count > MAX_SPECIAL {
        return Err(format!("it has {count} special tokens, more than the limit of {MAX_SPECIAL}"));
    }
    let mut special: Vec<String> = match &file.special_tokens {
        None => SPECIAL.map(str::to_owned).into(),
        Some(list) => {
            let mut list: Vec<&SpecialToken> = list.iter().collect();
            list.sort_by_key(|token| token.rank);
            let misplaced = list
                .iter()
                .enumerate()
                .find(|(id, token)| token.rank != *id || token.token_str.is_empty());
            if let Some((id, SpecialToken { rank, token_str })) = misplaced {
                return Err(format!(
                    "its special token {id} is {token_str:?} with the rank {rank}"
                ));
            }
            list.iter().map(|token| token.token_str.clone()).collect()
        }
    };
    if special.len() > count {
        let names = special.len();
        return Err(format!("it names {names} special tokens, but has {count}"));
    }
    special.extend((special.len()..count).map(|id| format!("<SPECIAL_{id}>")));
    Ok(special)
}

/// The other tokens by rank: the 256 bytes, then their unions.
fn tokens(file: &File, special: usize) -> Result<Vec<Vec<u8>>, String> {
    let (size, listed) = (file.config.default_vocab_size, file.vocab.len());
    let count = size.checked_sub(special).filter(|count| (256..=listed).contains(count));
    let count = count.ok_or_else(|| {
        format!("it lists {listed} tokens for a vocabulary of {size} with {special} special tokens")
    })?;
    let mut tokens = Vec::with_capacity(count);
    for (rank, token) in file.vocab[..count].iter().enumerate() {
        let bytes = decode_base64(&token.token_bytes)
            .filter(|bytes| (1..=MAX_TOKEN_BYTES).contains(&bytes.len()))
            .filter(|bytes| rank >= 256 || bytes.iter().eq(u8::try_from(rank).iter()));
        let bytes = bytes.filter(|_| token.rank == rank).ok_or_else(|| {
            format!("its token {rank} is {:?} with the rank {}", token.token_bytes, token.rank)
        })?;
        tokens.push(bytes);
    }
    Ok(tokens)
}

/// The merges: each split of a token into two others, by rank of the token, then of the parts.
fn merges(tokens: &[Vec<u8>]) -> Vec<[&[u8]; 2]> {
    let ranks: HashMap<&[u8], usize> =
        tokens.iter().enumerate().map(|(rank, token)| (token.as_slice(), rank)).collect();
    let mut merges = vec![];
    for token in tokens {
        let splits = (1..token.len()).map(|at| token.split_at(at));
        let mut known: Vec<_> = splits
            .filter_map(|(left, right)| {
                Some(([ranks.get(left)?, ranks.get(right)?], [left, right]))
            })
            .collect();
        known.sort_unstable();
        merges.extend(known.into_iter().map(|(_, parts)| parts));
    }
    merges
}

/// Decodes padded base64; `None` if it is malformed.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let bytes = text.as_bytes();
    let digits = text.trim_end_matches('=').as_bytes();
    let padding = bytes.len() - digits.len();
    if !bytes.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(bytes.len() / 4 * 3);
    for block in digits.chunks(4) {
        let mut bits = 0u32;
        for (i, digit) in block.iter().enumerate() {
            let value = match digit {
                b'A'..=b'Z' => digit - b'A',
                b'a'..=b'z' => digit - b'a' + 26,
                b'0'..=b'9' => digit - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits |= u32::from(value) << (18 - 6 * i);
        }
        out.extend_from_slice(&bits.to_be_bytes()[1..block.len()]);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// A file with these tokens after the bytes, and a pattern that splits at spaces.
    fn file(unions: &[Vec<u8>]) -> String {
        let bytes = (0..=255u8).map(|byte| vec![byte]);
        let vocab: Vec<Json> = bytes
            .chain(unions.iter().cloned())
            .enumerate()
            .map(|(rank, token)| json!({"rank": rank, "token_bytes": base64(&token)}))
            .collect();
        json!({
            "config": {
                "pattern": " |[^ ]+", "num_vocab_tokens": vocab.len() + 9, "version": "v3",
                "default_vocab_size": vocab.len() + 30, "default_num_special_tokens": 30,
            },
            "vocab": vocab,
        })
        .to_string()
    }

    fn base64(bytes: &[u8]) -> String {
        const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut out = String::new();
        for block in bytes.chunks(3) {
            let bits = block.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
                << (8 * (3 - block.len()));
            for i in 0..4 {
                let digit = char::from(DIGITS[(bits >> (18 - 6 * i)) as usize & 63]);
                let _ = write!(out, "{}", if i > block.len() { '=' } else { digit });
            }
        }
        out
    }

    /// The ids by definition: the whole word if it is a token, else merges of the neighbours whose
    /// union has the lowest rank, the leftmost first.
    fn plain_ids(tokens: &[Vec<u8>], word: &[u8]) -> Vec<u32> {
        let rank = |part: &[u8]| tokens.iter().position(|token| token == part);
        if let Some(rank) = rank(word) {
            return vec![30 + u32::try_from(rank).unwrap()];
        }
        let mut parts: Vec<Vec<u8>> = word.iter().map(|&byte| vec![byte]).collect();
        loop {
            let pairs = parts.windows(2).enumerate();
            let unions = pairs.filter_map(|(i, pair)| Some((rank(&pair.concat())?, i)));
            let Some((_, i)) = unions.min() else { break };
            let right = parts.remove(i + 1);
            parts[i].extend(right);
        }
        parts.iter().map(|part| 30 + u32::try_from(rank(part).unwrap()).unwrap()).collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        /// Vocabularies grow as in training: each token joins two earlier ones.
        #[test]
        fn ranks_merge_as_defined(
            joins in prop::collection::vec((0usize..1000, 0usize..1000), 0..20),
            words in prop::collection::vec("[abé]{0,9}", 1..5),
        ) {
            let mut tokens: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
            let mut letters: Vec<Vec<u8>> =
                [b'a', b'b', 0xC3, 0xA9].iter().map(|&byte| vec![byte]).collect();
            for (left, right) in joins {
                let parts = [left, right].map(|part| letters[part % letters.len()].clone());
                let union = parts.concat();
                if union.len() < 6 && !letters.contains(&union) {
                    letters.push(union.clone());
                    tokens.push(union);
                }
            }
            let tokenizer = Tokenizer::from_tekken(file(&tokens[256..]).as_bytes(), "t").unwrap();
            let expected: Vec<u32> = words.iter().enumerate().flat_map(|(i, word)| {
                let space = if i == 0 { vec![] } else { plain_ids(&tokens, b" ") };
                [space, plain_ids(&tokens, word.as_bytes())].concat()
            }).collect();
            prop_assert_eq!(tokenizer.encode(&words.join(" ")).unwrap(), expected);
        }

        #[test]
        fn base64_is_decoded(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            prop_assert_eq!(decode_base64(&base64(&bytes)), Some(bytes));
        }
    }

    #[test]
    fn malformed_base64_is_none() {
        for text in ["A", "AA=", "A===", "====", "AA\u{e9}", "AAA*", "=AAA", "A=AA"] {
            assert_eq!(decode_base64(text), None, "{text}");
        }
    }

    #[test]
    fn special_tokens_come_first_and_are_matched() {
        let file = file(&[b"ab".to_vec()]);
        let tokenizer = Tokenizer::from_tekken(file.as_bytes(), "t").unwrap();
        assert_eq!(tokenizer.vocab_size(), 30 + 256 + 1);
        assert_eq!(tokenizer.token_id("</s>"), Some(2));
        assert_eq!(tokenizer.token(25).as_deref(), Some("<SPECIAL_25>"));
        assert!(tokenizer.is_special(25));
        let ids = tokenizer.encode_with_special_tokens("[INST]ab a").unwrap();
        assert_eq!(ids, [1, 3, 286, 30 + 32, 30 + 97]);
        assert_eq!(tokenizer.decode(&ids, true), "ab a");
    }

    #[test]
    fn errors_name_what_is_wrong() {
        let good: Json = serde_json::from_str(&file(&[b"ab".to_vec()])).unwrap();
        let error = |pointer: &str, value: Json| {
            let mut json = good.clone();
            match json.pointer_mut(pointer) {
                Some(field) => *field = value,
                None => json[pointer] = value,
            }
            Tokenizer::from_tekken(json.to_string().as_bytes(), "tekken.json")
                .unwrap_err()
                .to_string()
        };
        for (pointer, value, cause) in [
            ("/vocab", json!(1), "not a tekken.json"),
            ("/vocab/256/token_bytes", json!("*"), "its token 256 is \"*\" with the rank 256"),
            ("/vocab/256/token_bytes", json!(""), "its token 256 is \"\""),
            ("/vocab/7/token_bytes", json!("AA=="), "its token 7 is \"AA==\" with the rank 7"),
            ("/vocab/8/rank", json!(9), "with the rank 9"),
            ("/vocab/256/token_bytes", json!("YQ=="), "are both \"a\""),
            (
                "/config/default_vocab_size",
                json!(400),
                "it lists 257 tokens for a vocabulary of 400",
            ),
            ("/config/default_vocab_size", json!(3), "for a vocabulary of 3 with 30 special"),
            ("/config/default_num_special_tokens", json!(19), "it names 20 special tokens"),
            ("/config/default_num_special_tokens", json!(1 << 30), "more than the limit"),
            ("/config/pattern", json!("("), "not a supported tokenizer"),
            (
                "special_tokens",
                json!([{"rank": 1, "token_str": "<s>"}]),
                "its special token 0 is \"<s>\"",
            ),
        ] {
            let error = error(pointer, value);
            assert!(error.contains(cause) && error.contains("tekken.json"), "{pointer}: {error}");
        }
    }
}

//! Fast byte-level BPE: splits a text into words and caches the ids of each word.
//!
//! ```text
//! text ──► added tokens ──► stages (digits, patterns) ──► words ──► cache, or library on a miss
//! ```
//!
//! The patterns of GPT-2 and its descendants end in the lookahead `\s+(?!\S)`, so the tokenizers
//! library needs a backtracking engine. Here the lookahead is a rule in code, and a lazy DFA
//! (`regex-automata`) finds the words. Other kinds of tokenizers are left to the library:
//! [`WordCache::for_tokenizer`] returns `None`. The tests compare with the library.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::ops::Range;
use std::sync::Mutex;

use aho_corasick::{AhoCorasick, MatchKind};
use foldhash::fast::FixedState;
use regex_automata::meta::{Cache, Regex};
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};
use tokenizers::models::ModelWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::tokenizer::{Model as _, SplitDelimiterBehavior};

/// The pattern of `ByteLevel` (GPT-2's `encoder.py`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// The end of these patterns: white space, except for a last character before a word.
const WHITE_SPACE: &str = r"|\s+(?!\S)|\s+";
/// Longest cached word in bytes; longer ones rarely recur.
const MAX_WORD_BYTES: usize = 64;
/// Words of one cache, about 10 MB. A full cache is cleared.
const MAX_WORDS: usize = 1 << 16;

/// An encoder with a cache of words.
pub(crate) struct WordCache {
    /// Added tokens in the library's order: those matched before normalisation, then those after.
    /// (The supported tokenizers have no normalizer.)
    added: [AddedTokens; 2],
    stages: Vec<Stage>,
    /// Idle caches; each encoding thread takes one.
    caches: Mutex<Vec<ThreadCache>>,
    /// The vocabulary's character for each byte.
    byte_characters: [char; 256],
}

/// A set of added tokens and their ids.
struct AddedTokens {
    finder: AhoCorasick,
    ids: Vec<u32>,
}

/// A splitting step, applied to the parts of the previous step.
enum Stage {
    /// Splits off numeric characters: each (`individual`), or each run.
    Digits { individual: bool },
    /// Splits into the matches of a pattern, with the text between them if `gaps`. Pattern 1, if
    /// there is one, is white space.
    Pattern { regex: Regex, gaps: bool },
}

/// The cache of one thread.
struct ThreadCache {
    /// The regex cache of each stage with a pattern.
    regex: Vec<Option<Cache>>,
    /// Words with a [`short_key`], and longer ones.
    short: HashMap<u128, WordIds, FixedState>,
    long: HashMap<Box<str>, WordIds, FixedState>,
    /// The ids of all words of several tokens, without their first.
    ids: Vec<u32>,
    /// Buffer: a word in the vocabulary's characters.
    characters: String,
}

impl WordCache {
    /// The encoder for a tokenizer, or `None` if it is not of a supported kind.
    ///
    /// The tokenizer must keep all bytes of a text (see `token_bytes` in `tokenizer.rs`).
    pub(crate) fn for_tokenizer(inner: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = inner.get_model() else { return None };
        if bpe.dropout.is_some() {
            return None;
        }
        let mut stages = vec![];
        let parts = match inner.get_pre_tokenizer()? {
            PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref(),
            single => std::slice::from_ref(single),
        };
        let (PreTokenizerWrapper::ByteLevel(last), before) = parts.split_last()? else {
            return None;
        };
        for part in before {
            stages.push(match part {
                PreTokenizerWrapper::Digits(digits) => {
                    Stage::Digits { individual: digits.individual_digits }
                }
                PreTokenizerWrapper::Split(split) => Stage::of_split(split)?,
                _ => return None,
            });
        }
        if last.use_regex {
            stages.push(Stage::of_pattern(GPT2, true)?);
        }
        Some(Self {
            added: added_tokens(inner)?,
            stages,
            caches: Mutex::default(),
            byte_characters: byte_characters(),
        })
    }

    /// The ids of a text, equal to the library's `encode` without special tokens.
    pub(crate) fn encode(&self, model: &ModelWrapper, text: &str) -> tokenizers::Result<Vec<u32>> {
        // The lock may be poisoned by a panic of the library; its content is still valid.
        let caches = || self.caches.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut cache = caches().pop().unwrap_or_else(|| self.new_cache());
        let mut ids = Vec::with_capacity(text.len() / 4);
        let [first, second] = &self.added;
        let result = first.split(text, &mut ids, &mut |text, ids| {
            second.split(text, ids, &mut |text, ids| {
                self.encode_part(model, 0, text, 0..text.len(), &mut cache, ids)
            })
        });
        caches().push(cache);
        result.map(|()| ids)
    }

    /// Bytes of the longest added token.
    pub(crate) fn longest_added_token(&self) -> usize {
        self.added.iter().map(|set| set.finder.max_pattern_len()).max().unwrap_or(0)
    }

    fn new_cache(&self) -> ThreadCache {
        let regex_cache = |stage: &Stage| match stage {
            Stage::Digits { .. } => None,
            Stage::Pattern { regex, .. } => Some(regex.create_cache()),
        };
        ThreadCache {
            regex: self.stages.iter().map(regex_cache).collect(),
            short: HashMap::default(),
            long: HashMap::default(),
            ids: vec![],
            characters: String::new(),
        }
    }

    /// Splits a part of a text by the stages from `stage` on, and appends the ids of its words.
    fn encode_part(
        &self,
        model: &ModelWrapper,
        stage: usize,
        text: &str,
        part: Range<usize>,
        cache: &mut ThreadCache,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let Some(splitter) = self.stages.get(stage) else {
            return self.encode_word(model, text, part, cache, ids);
        };
        let mut next_stage = |part: Range<usize>, cache: &mut ThreadCache| {
            if part.is_empty() {
                Ok(())
            } else {
                self.encode_part(model, stage + 1, text, part, cache, ids)
            }
        };
        let Range { start: mut done, end: part_end } = part;
        match splitter {
            Stage::Digits { individual } => {
                while let Some((start, length)) = next_numeric(text, done..part_end) {
                    next_stage(done..start, cache)?;
                    let mut end = start + length;
                    if !*individual {
                        let digits = &text[start..part_end];
                        end =
                            start + digits.find(|c: char| !c.is_numeric()).unwrap_or(digits.len());
                    }
                    next_stage(start..end, cache)?;
                    done = end;
                }
            }
            Stage::Pattern { regex, gaps } => loop {
                let input = || Input::new(&text[..part_end]).range(done..);
                let Some(regex_cache) = &mut cache.regex[stage] else {
                    unreachable!("stages with a pattern have a regex cache")
                };
                // Usually a word starts where the last one ended, so no search for its start is
                // needed.
                let adjacent =
                    regex.search_half_with(regex_cache, &input().anchored(Anchored::Yes));
                let (pattern, start, end) = if let Some(found) = adjacent {
                    (found.pattern(), done, found.offset())
                } else if let Some(found) = regex.search_with(regex_cache, &input()) {
                    (found.pattern(), found.start(), found.end())
                } else {
                    done = if *gaps { done } else { part_end };
                    break;
                };
                let end = if pattern.as_usize() == 1 {
                    white_space_end(&text[..part_end], start, end)
                } else {
                    end
                };
                if *gaps {
                    next_stage(done..start, cache)?;
                }
                next_stage(start..end, cache)?;
                done = end;
            },
        }
        next_stage(done..part_end, cache)
    }

    /// Appends the ids of a word.
    fn encode_word(
        &self,
        model: &ModelWrapper,
        text: &str,
        word: Range<usize>,
        cache: &mut ThreadCache,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let key = short_key(text, &word);
        let word = &text[word];
        let cached = match key {
            Some(key) => cache.short.get(&key),
            None => cache.long.get(word),
        };
        match cached {
            Some(WordIds { first, rest: None }) => {
                ids.push(*first);
                return Ok(());
            }
            Some(WordIds { first, rest: Some((start, count)) }) => {
                ids.push(*first);
                ids.extend_from_slice(&cache.ids[*start as usize..][..count.get() as usize]);
                return Ok(());
            }
            None => {}
        }
        cache.characters.clear();
        cache.characters.extend(word.bytes().map(|byte| self.byte_characters[usize::from(byte)]));
        let tokens = model.tokenize(&cache.characters)?;
        ids.extend(tokens.iter().map(|token| token.id));
        if let [first, rest @ ..] = tokens.as_slice()
            && word.len() <= MAX_WORD_BYTES
        {
            if cache.short.len() + cache.long.len() >= MAX_WORDS {
                cache.short.clear();
                cache.long.clear();
                cache.ids.clear();
            }
            let start = cache.ids.len() as u32;
            cache.ids.extend(rest.iter().map(|token| token.id));
            let word_ids = WordIds {
                first: first.id,
                rest: NonZeroU32::new(rest.len() as u32).map(|count| (start, count)),
            };
            match key {
                Some(key) => drop(cache.short.insert(key, word_ids)),
                None => drop(cache.long.insert(word.into(), word_ids)),
            }
        }
        Ok(())
    }
}

/// The ids of a word: the first, and start and number of the others in [`ThreadCache::ids`].
struct WordIds {
    first: u32,
    rest: Option<(u32, NonZeroU32)>,
}

/// A word of at most 15 bytes as a number, with the length in the last byte.
fn short_key(text: &str, word: &Range<usize>) -> Option<u128> {
    let length = word.len();
    if length > 15 {
        return None;
    }
    let mut bytes = [0; 16];
    if let Some(block) = text.as_bytes().get(word.start..word.start + 16) {
        bytes.copy_from_slice(block);
    } else {
        bytes[..length].copy_from_slice(&text.as_bytes()[word.clone()]);
    }
    let word_bytes = u128::from_le_bytes(bytes) & ((1 << (8 * length)) - 1);
    Some(word_bytes | (length as u128) << 120)
}

/// The first numeric character in a part of a text, and its length.
fn next_numeric(text: &str, part: Range<usize>) -> Option<(usize, usize)> {
    let bytes = &text.as_bytes()[..part.end];
    let mut at = part.start;
    while at < bytes.len() {
        let candidate =
            bytes[at..].iter().position(|byte| byte.is_ascii_digit() || !byte.is_ascii())?;
        at += candidate;
        if bytes[at].is_ascii_digit() {
            return Some((at, 1));
        }
        let character = text[at..].chars().next()?;
        if character.is_numeric() {
            return Some((at, character.len_utf8()));
        }
        at += character.len_utf8();
    }
    None
}

/// The end of the match of `\s+(?!\S)|\s+` in a run of white space `start..end`.
///
/// It excludes the last character if a word follows, unless that is the only one.
fn white_space_end(text: &str, start: usize, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
    if end - last > start { end - last } else { end }
}

impl Stage {
    fn of_split(split: &Split) -> Option<Self> {
        // Tokenizers converted from tiktoken keep only the matches, which cover the whole text.
        let gaps = match (split.invert, split.behavior) {
            (false, SplitDelimiterBehavior::Isolated) => true,
            (true, SplitDelimiterBehavior::Removed) => false,
            _ => return None,
        };
        match &split.pattern {
            SplitPattern::Regex(pattern) => Self::of_pattern(pattern, gaps),
            SplitPattern::String(_) => None,
        }
    }

    fn of_pattern(pattern: &str, gaps: bool) -> Option<Self> {
        let patterns = match pattern.strip_suffix(WHITE_SPACE) {
            Some(words) => vec![words, r"\s+"],
            None => vec![pattern],
        };
        for pattern in &patterns {
            // This syntax has no lookaheads, so patterns with any other are rejected.
            let parsed = syntax::parse(pattern).ok()?;
            let properties = parsed.properties();
            if !properties.look_set().is_empty()
                || properties.minimum_len().is_none_or(|length| length == 0)
            {
                return None;
            }
        }
        Some(Self::Pattern { regex: Regex::new_many(&patterns).ok()?, gaps })
    }
}

/// The added tokens, or `None` if some strip spaces or match whole words only.
fn added_tokens(inner: &tokenizers::Tokenizer) -> Option<[AddedTokens; 2]> {
    let vocabulary = inner.get_added_vocabulary();
    let tokens = vocabulary.get_added_tokens_decoder();
    if vocabulary.get_encode_special_tokens() || tokens.len() != vocabulary.get_vocab().len() {
        return None;
    }
    if tokens.values().any(|token| token.single_word || token.lstrip || token.rstrip) {
        return None;
    }
    let set = |normalized: bool| {
        let tokens = tokens.iter().filter(|(_, token)| token.normalized == normalized);
        let (ids, contents): (Vec<u32>, Vec<&str>) =
            tokens.map(|(&id, token)| (id, token.content.as_str())).unzip();
        let finder =
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(contents).ok()?;
        Some(AddedTokens { finder, ids })
    };
    Some([set(false)?, set(true)?])
}

impl AddedTokens {
    /// Appends the ids of these tokens in a text, and calls `rest` for the text between them.
    fn split(
        &self,
        text: &str,
        ids: &mut Vec<u32>,
        rest: &mut dyn FnMut(&str, &mut Vec<u32>) -> tokenizers::Result<()>,
    ) -> tokenizers::Result<()> {
        let mut done = 0;
        for found in self.finder.find_iter(text) {
            rest(&text[done..found.start()], ids)?;
            ids.push(self.ids[found.pattern().as_usize()]);
            done = found.end();
        }
        rest(&text[done..], ids)
    }
}

/// GPT-2's characters for bytes: printable Latin-1 characters, and U+0100 and following for others.
pub(crate) fn byte_characters() -> [char; 256] {
    let mut others = '\u{100}'..;
    std::array::from_fn(|byte| match byte as u8 {
        byte @ (b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF) => char::from(byte),
        _ => others.next().expect("there are more than 256 characters from U+0100 on"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokenizers::models::TrainerWrapper;
    use tokenizers::models::bpe::{BPE, BpeTrainer};
    use tokenizers::pre_tokenizers::byte_level::ByteLevel;
    use tokenizers::pre_tokenizers::digits::Digits;
    use tokenizers::pre_tokenizers::sequence::Sequence;
    use tokenizers::{AddedToken, Tokenizer};

    const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const O200K: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
    const DEEPSEEK: [&str; 3] = [
        r"\p{N}{1,3}",
        r"[一-龥぀-ゟ゠-ヿ]+",
        "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ];

    fn split(pattern: &str) -> PreTokenizerWrapper {
        let pattern = SplitPattern::Regex(pattern.to_owned());
        Split::new(pattern, SplitDelimiterBehavior::Isolated, false).unwrap().into()
    }

    fn byte_level(use_regex: bool) -> PreTokenizerWrapper {
        ByteLevel::new(false, true, use_regex).into()
    }

    /// Tokenizers that split like those of well-known models, trained on a short text.
    fn tokenizers() -> Vec<(&'static str, Tokenizer)> {
        let matches = |pattern: &str| {
            let pattern = SplitPattern::Regex(pattern.to_owned());
            Split::new(pattern, SplitDelimiterBehavior::Removed, true).unwrap().into()
        };
        let splits: [(&str, Vec<PreTokenizerWrapper>); 9] = [
            ("olmo-2", vec![matches(LLAMA3), byte_level(false)]),
            ("matches that leave text out", vec![matches(r"\p{L}+"), byte_level(false)]),
            ("gpt-2", vec![byte_level(true)]),
            ("smollm", vec![Digits::new(true).into(), byte_level(true)]),
            ("digits in runs", vec![Digits::new(false).into(), byte_level(true)]),
            ("llama-3", vec![split(LLAMA3), byte_level(false)]),
            ("qwen2", vec![split(QWEN2), byte_level(false)]),
            ("o200k", vec![split(O200K), byte_level(false)]),
            ("deepseek", DEEPSEEK.map(split).into_iter().chain([byte_level(false)]).collect()),
        ];
        splits.map(|(name, parts)| (name, trained(parts))).into()
    }

    fn trained(parts: Vec<PreTokenizerWrapper>) -> Tokenizer {
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(600)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(vec![
                AddedToken::from("<|end|>", true),
                AddedToken::from("<|end|><|x|>", true),
            ])
            .build()
            .into();
        let mut inner = Tokenizer::new(BPE::default());
        inner.with_pre_tokenizer(Some(Sequence::new(parts)));
        let text = "It's the 2026th year, isn't it? We'll see: I've 12345 reasons.\n\n\tfn main() \
                    {}\r\n  日本語 naïve";
        inner.train(&mut trainer, [text; 3].into_iter()).unwrap();
        inner.add_tokens(&[AddedToken::from("think", false).normalized(true)]);
        inner
    }

    fn check(name: &str, inner: &Tokenizer, words: &WordCache, text: &str) {
        let expected = inner.encode_fast(text, false).unwrap();
        // Twice: from the library and from the cache.
        for _ in 0..2 {
            let ids = words.encode(inner.get_model(), text).unwrap();
            assert_eq!(ids, expected.get_ids(), "{name}: {text:?}");
        }
    }

    #[test]
    fn every_kind_of_pattern_gives_the_ids_of_the_library() {
        for (name, inner) in tokenizers() {
            let words =
                WordCache::for_tokenizer(&inner).unwrap_or_else(|| panic!("{name} is supported"));
            for text in [
                "",
                " ",
                "   ",
                "  two spaces   and three\n\n  more \t\t x\n",
                "a\r\n\r\nb   \n c",
                "I'LL've don't 12 345,678.90 ½ ²³ ٣",
                "think<|end|>rethinking <|end|><|x|> thin k",
                "日本語のテキスト、カタカナ e\u{301} \u{a0}\u{3000}x\u{85}y\u{2028}z",
                "😀😀 👩‍👩‍👧 \u{200d}",
            ] {
                check(name, &inner, &words, text);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_text_gives_the_ids_of_the_library(
            texts in prop::collection::vec(
                "(\\PC|[ \t\r\n]|[a-zA-Z']|[0-9]|<\\|end\\|>|\\s){0,40}",
                4,
            ),
        ) {
            thread_local!(static ALL: Vec<(&'static str, Tokenizer, WordCache)> = tokenizers()
                .into_iter()
                .map(|(name, inner)| {
                    let words = WordCache::for_tokenizer(&inner).unwrap();
                    (name, inner, words)
                })
                .collect());
            ALL.with(|all| for (name, inner, words) in all {
                for text in &texts {
                    check(name, inner, words, text);
                }
            });
        }
    }

    #[test]
    fn a_full_cache_is_cleared() {
        let inner = trained(vec![byte_level(true)]);
        let words = WordCache::for_tokenizer(&inner).unwrap();
        let words_of_text: Vec<String> =
            (0..MAX_WORDS + 1000).map(|i| format!(" w{i:x}q{}", i % 7)).collect();
        let text = words_of_text.concat();
        check("gpt-2", &inner, &words, &text);
        assert!(
            words
                .caches
                .lock()
                .unwrap()
                .iter()
                .all(|cache| cache.short.len() + cache.long.len() <= MAX_WORDS)
        );
    }

    #[test]
    fn unsupported_tokenizers_are_left_to_the_library() {
        let other = |parts| WordCache::for_tokenizer(&trained(parts)).is_none();
        assert!(other(vec![split(r"\w+(?=x)|."), byte_level(false)]), "another lookahead");
        assert!(other(vec![split(r"\bx|y"), byte_level(false)]), "a word boundary");
        assert!(other(vec![split(r"x*"), byte_level(false)]), "an empty match");
        let removed = SplitPattern::Regex(" ".to_owned());
        let removed = Split::new(removed, SplitDelimiterBehavior::Removed, false).unwrap();
        assert!(other(vec![removed.into(), byte_level(true)]), "text that is removed");
    }
}

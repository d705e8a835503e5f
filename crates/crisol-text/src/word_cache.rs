//! Byte-level BPE at speed: the words of a text, as the tokenizer's own pattern splits them, and the ids of every word
//! that was met before from memory.
//!
//! The tokenizers library splits with a backtracking engine, because the patterns of GPT-2 and its descendants end in
//! the lookahead `\s+(?!\S)`, and it keeps track of every byte on the way. Here the lookahead is a rule in code, so that
//! a lazy DFA (`regex-automata`) finds the words, and most words are in the memory. Only new words go to the library.
//! Whatever is not exactly of this kind is left to the library ([`WordCache::of`] returns nothing).

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

/// What `ByteLevel` splits by (GPT-2's `encoder.py`).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// How these patterns end: white space, of which the last character before a word belongs to the word.
const WHITE_SPACE: &str = r"|\s+(?!\S)|\s+";
/// Longer words are rarely met twice.
const LONGEST_WORD: usize = 64;
/// Words in one memory; it is begun anew when it is full. About 10 MB.
const MAX_WORDS: usize = 1 << 16;

/// Finds the words of texts and remembers their ids.
pub(crate) struct WordCache {
    /// Added tokens, in the order in which the library looks for them: those that are matched as they are, then those
    /// that are matched after normalisation (there is none here).
    added: [Added; 2],
    stages: Vec<Stage>,
    /// One for every thread that encodes at the same time.
    memories: Mutex<Vec<Memory>>,
    /// The character by which the vocabulary writes each byte.
    characters: [char; 256],
}

/// A set of added tokens and their ids.
struct Added {
    finder: AhoCorasick,
    ids: Vec<u32>,
}

/// A step of splitting; each works on the pieces of the step before.
enum Stage {
    /// Numeric characters, each a piece or each run of them.
    Digits { individual: bool },
    /// The matches of a pattern, with what is between them (`gaps`) or without. Pattern 1, where there is one, is white space.
    Pattern { regex: Regex, gaps: bool },
}

/// What one thread remembers.
struct Memory {
    /// Working memory of each stage's pattern.
    caches: Vec<Option<Cache>>,
    /// Words by [`short_word`], and longer ones.
    short: HashMap<u128, Ids, FixedState>,
    long: HashMap<Box<str>, Ids, FixedState>,
    /// Of words of several tokens, those after the first.
    ids: Vec<u32>,
    /// A word as the vocabulary writes it.
    written: String,
}

impl WordCache {
    /// For a tokenizer that keeps every byte of a text (`token_bytes` in `tokenizer.rs`), if its words can be found here.
    pub(crate) fn of(inner: &tokenizers::Tokenizer) -> Option<Self> {
        let ModelWrapper::BPE(bpe) = inner.get_model() else { return None };
        if bpe.dropout.is_some() {
            return None;
        }
        let mut stages = vec![];
        let parts = match inner.get_pre_tokenizer()? {
            PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref(),
            one => std::slice::from_ref(one),
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
            added: added(inner)?,
            stages,
            memories: Mutex::default(),
            characters: characters(),
        })
    }

    /// The ids of a text, named tokens in it included; the ids of the library's `encode` without special tokens.
    pub(crate) fn encode(&self, model: &ModelWrapper, text: &str) -> tokenizers::Result<Vec<u32>> {
        // A panic of the library's may have poisoned the lock, whose content is whole all the same.
        let memories = || self.memories.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut memory = memories().pop().unwrap_or_else(|| self.memory());
        let mut ids = Vec::with_capacity(text.len() / 4);
        let [first, second] = &self.added;
        let done = first.split(text, &mut ids, &mut |text, ids| {
            second.split(text, ids, &mut |text, ids| {
                self.pieces(model, 0, text, 0..text.len(), &mut memory, ids)
            })
        });
        memories().push(memory);
        done.map(|()| ids)
    }

    /// Bytes of the longest added token.
    pub(crate) fn longest_named(&self) -> usize {
        self.added.iter().map(|set| set.finder.max_pattern_len()).max().unwrap_or(0)
    }

    fn memory(&self) -> Memory {
        let cache = |stage: &Stage| match stage {
            Stage::Digits { .. } => None,
            Stage::Pattern { regex, .. } => Some(regex.create_cache()),
        };
        Memory {
            caches: self.stages.iter().map(cache).collect(),
            short: HashMap::default(),
            long: HashMap::default(),
            ids: vec![],
            written: String::new(),
        }
    }

    /// Splits a piece of a text by the stages from `stage` on and adds the ids of the words.
    fn pieces(
        &self,
        model: &ModelWrapper,
        stage: usize,
        text: &str,
        piece: Range<usize>,
        memory: &mut Memory,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let Some(at) = self.stages.get(stage) else {
            return self.word(model, text, piece, memory, ids);
        };
        let mut next = |part: Range<usize>, memory: &mut Memory| {
            if part.is_empty() {
                Ok(())
            } else {
                self.pieces(model, stage + 1, text, part, memory, ids)
            }
        };
        let Range { start: mut done, end: whole } = piece;
        match at {
            Stage::Digits { individual } => {
                while let Some((start, length)) = next_numeric(text, done..whole) {
                    next(done..start, memory)?;
                    let mut end = start + length;
                    if !*individual {
                        let digits = &text[start..whole];
                        end =
                            start + digits.find(|c: char| !c.is_numeric()).unwrap_or(digits.len());
                    }
                    next(start..end, memory)?;
                    done = end;
                }
            }
            Stage::Pattern { regex, gaps } => loop {
                let input = || Input::new(&text[..whole]).range(done..);
                let Some(cache) = &mut memory.caches[stage] else {
                    unreachable!("patterns have a cache")
                };
                // Mostly a word begins where the last one ended; then nobody has to look for its beginning.
                let adjacent = regex.search_half_with(cache, &input().anchored(Anchored::Yes));
                let (pattern, start, end) = if let Some(found) = adjacent {
                    (found.pattern(), done, found.offset())
                } else if let Some(found) = regex.search_with(cache, &input()) {
                    (found.pattern(), found.start(), found.end())
                } else {
                    done = if *gaps { done } else { whole };
                    break;
                };
                let end = if pattern.as_usize() == 1 {
                    white_space_end(&text[..whole], start, end)
                } else {
                    end
                };
                if *gaps {
                    next(done..start, memory)?;
                }
                next(start..end, memory)?;
                done = end;
            },
        }
        next(done..whole, memory)
    }

    /// Adds the ids of a word.
    fn word(
        &self,
        model: &ModelWrapper,
        text: &str,
        word: Range<usize>,
        memory: &mut Memory,
        ids: &mut Vec<u32>,
    ) -> tokenizers::Result<()> {
        let short = short_word(text, &word);
        let word = &text[word];
        let known = match short {
            Some(short) => memory.short.get(&short),
            None => memory.long.get(word),
        };
        match known {
            Some(Ids { first, rest: None }) => {
                ids.push(*first);
                return Ok(());
            }
            Some(Ids { first, rest: Some((start, count)) }) => {
                ids.push(*first);
                ids.extend_from_slice(&memory.ids[*start as usize..][..count.get() as usize]);
                return Ok(());
            }
            None => {}
        }
        memory.written.clear();
        memory.written.extend(word.bytes().map(|byte| self.characters[usize::from(byte)]));
        let tokens = model.tokenize(&memory.written)?;
        ids.extend(tokens.iter().map(|token| token.id));
        if let [first, rest @ ..] = tokens.as_slice()
            && word.len() <= LONGEST_WORD
        {
            if memory.short.len() + memory.long.len() >= MAX_WORDS {
                memory.short.clear();
                memory.long.clear();
                memory.ids.clear();
            }
            let start = memory.ids.len() as u32;
            memory.ids.extend(rest.iter().map(|token| token.id));
            let known = Ids {
                first: first.id,
                rest: NonZeroU32::new(rest.len() as u32).map(|count| (start, count)),
            };
            match short {
                Some(short) => drop(memory.short.insert(short, known)),
                None => drop(memory.long.insert(word.into(), known)),
            }
        }
        Ok(())
    }
}

/// The ids of a word: its first, and where the others are and how many.
struct Ids {
    first: u32,
    rest: Option<(u32, NonZeroU32)>,
}

/// A word of at most 15 bytes as a number, with its length in the last byte.
fn short_word(text: &str, word: &Range<usize>) -> Option<u128> {
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
    let own = u128::from_le_bytes(bytes) & ((1 << (8 * length)) - 1);
    Some(own | (length as u128) << 120)
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

/// `\s+(?!\S)|\s+`, given the whole run of white space: up to before its last character where a word follows that the
/// character belongs to.
fn white_space_end(text: &str, start: usize, end: usize) -> usize {
    if end == text.len() {
        return end;
    }
    let last = text[start..end].chars().next_back().map_or(0, char::len_utf8);
    if end - last > start { end - last } else { end }
}

impl Stage {
    fn of_split(split: &Split) -> Option<Self> {
        // Tokenizers that were converted from tiktoken's keep the matches alone, which leave nothing out.
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
            // Lookaheads are no syntax here.
            let parsed = syntax::parse(pattern).ok()?;
            let properties = parsed.properties();
            if !properties.look_set().is_empty()
                || properties.minimum_len().is_none_or(|least| least == 0)
            {
                return None;
            }
        }
        Some(Self::Pattern { regex: Regex::new_many(&patterns).ok()?, gaps })
    }
}

/// The added tokens, if each is found wherever it stands.
fn added(inner: &tokenizers::Tokenizer) -> Option<[Added; 2]> {
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
        Some(Added { finder, ids })
    };
    Some([set(false)?, set(true)?])
}

impl Added {
    /// Adds the ids of these tokens, and hands on what is between them.
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

/// GPT-2's characters for bytes: printable Latin-1 characters are themselves, the others follow from U+0100 on.
fn characters() -> [char; 256] {
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

    /// Tokenizers that split as those of well-known models do, trained on a little text.
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
        let text = "It's the 2026th year, isn't it? We'll see: I've 12345 reasons.\n\n\tfn main() {}\r\n  日本語 naïve";
        inner.train(&mut trainer, [text; 3].into_iter()).unwrap();
        inner.add_tokens(&[AddedToken::from("think", false).normalized(true)]);
        inner
    }

    fn check(name: &str, inner: &Tokenizer, words: &WordCache, text: &str) {
        let expected = inner.encode_fast(text, false).unwrap();
        // Twice: from the library and from memory.
        for _ in 0..2 {
            let ids = words.encode(inner.get_model(), text).unwrap();
            assert_eq!(ids, expected.get_ids(), "{name}: {text:?}");
        }
    }

    #[test]
    fn every_kind_of_pattern_gives_the_ids_of_the_library() {
        for (name, inner) in tokenizers() {
            let words = WordCache::of(&inner).unwrap_or_else(|| panic!("{name} is of the kind"));
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
            texts in prop::collection::vec("(\\PC|[ \t\r\n]|[a-zA-Z']|[0-9]|<\\|end\\|>|\\s){0,40}", 4),
        ) {
            thread_local!(static ALL: Vec<(&'static str, Tokenizer, WordCache)> = tokenizers()
                .into_iter()
                .map(|(name, inner)| {
                    let words = WordCache::of(&inner).unwrap();
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
    fn a_full_memory_is_begun_anew() {
        let inner = trained(vec![byte_level(true)]);
        let words = WordCache::of(&inner).unwrap();
        let words_of_text: Vec<String> =
            (0..MAX_WORDS + 1000).map(|i| format!(" w{i:x}q{}", i % 7)).collect();
        let text = words_of_text.concat();
        check("gpt-2", &inner, &words, &text);
        assert!(
            words
                .memories
                .lock()
                .unwrap()
                .iter()
                .all(|memory| memory.short.len() + memory.long.len() <= MAX_WORDS)
        );
    }

    #[test]
    fn what_is_not_of_the_kind_is_left_to_the_library() {
        let other = |parts| WordCache::of(&trained(parts)).is_none();
        assert!(other(vec![split(r"\w+(?=x)|."), byte_level(false)]), "another lookahead");
        assert!(other(vec![split(r"\bx|y"), byte_level(false)]), "a word boundary");
        assert!(other(vec![split(r"x*"), byte_level(false)]), "an empty match");
        let removed = SplitPattern::Regex(" ".to_owned());
        let removed = Split::new(removed, SplitDelimiterBehavior::Removed, false).unwrap();
        assert!(other(vec![removed.into(), byte_level(true)]), "text that is removed");
    }
}

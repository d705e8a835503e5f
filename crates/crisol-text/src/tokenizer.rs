//! Tokenizers: training byte-level BPE, loading, encoding, decoding and streaming.
//!
//! A trained tokenizer differs from GPT-2's in one point: digits are split one by one before
//! pre-tokenization, as in Llama 1 and 2, because arithmetic needs it. All 256 bytes are in the
//! vocabulary, so every text round-trips.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::Encoding;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;

use crate::TextError;
use crate::panics::catch_panic;
use crate::sentencepiece::Vocabulary;
use crate::word_cache::WordCache;

/// A token added to the vocabulary. It is matched in a text before pre-tokenization and merges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddedToken<'a> {
    /// Its text.
    pub text: &'a str,
    /// Whether it is structure, not content. [`Tokenizer::decode`] can skip special tokens.
    pub special: bool,
}

/// Ends a document of pre-training text and a raw-text completion.
pub const END_OF_TEXT: &str = "<|eos|>";
/// Ends a message in the embedded template.
pub const END_OF_TURN: &str = "<|end|>";

/// The added tokens of the embedded tokenizer and template, with ids 0, 1, … in this order.
pub const EMBEDDED_TOKENS: [AddedToken<'static>; 7] = [
    AddedToken { text: END_OF_TEXT, special: true },
    AddedToken { text: END_OF_TURN, special: true },
    AddedToken { text: "<|system|>", special: true },
    AddedToken { text: "<|user|>", special: true },
    AddedToken { text: "<|assistant|>", special: true },
    AddedToken { text: "<think>", special: false },
    AddedToken { text: "</think>", special: false },
];

/// A tokenizer: from text to token ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: BTreeSet<u32>,
    /// Bytes of text per token id, if tokens represent a text's bytes one to one.
    bytes: Option<Vec<u32>>,
    /// The fast encoder, if the tokenizer is of a supported kind.
    words: Option<Arc<WordCache>>,
    /// The special tokens before and after a text (the post-processor's).
    affixes: [Vec<u32>; 2],
    /// Rows of the model's embedding; a token without a row is an error on encoding.
    rows: usize,
}

/// Omits the vocabulary.
impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// Largest accepted id, to bound the tables that a damaged file can allocate. Some fifty times the
/// largest vocabularies in use.
const MAX_ID: u32 = (1 << 24) - 1;

/// The tokens of a text, each with its byte range.
pub(crate) struct TokenSpans {
    pub(crate) ids: Vec<u32>,
    pub(crate) spans: Vec<Range<usize>>,
}

impl TokenSpans {
    /// The tokens after byte `seam`, with spans relative to it.
    ///
    /// `None` unless the text up to `seam` has the ids `prefix`, and no token spans the seam.
    fn split_off(&self, prefix: &[u32], seam: usize) -> Option<Self> {
        let rest = self.ids.strip_prefix(prefix)?;
        let spans = &self.spans[prefix.len()..];
        // Normalizers may reorder text, so every token is checked.
        spans.iter().all(|span| span.start >= seam).then(|| Self {
            ids: rest.to_vec(),
            spans: spans.iter().map(|span| span.start - seam..span.end - seam).collect(),
        })
    }
}

impl Tokenizer {
    /// Trains byte-level BPE on `texts`, with at most `vocab_size` tokens including `added`.
    ///
    /// There are fewer tokens if the texts have too few repeated pairs. Training is deterministic
    /// for texts in a given order.
    pub fn train<I, S>(texts: I, vocab_size: usize, added: &[AddedToken]) -> Result<Self, TextError>
    where
        I: IntoIterator<Item = S>,
        I::IntoIter: Send,
        S: AsRef<str> + Send,
    {
        let min_size = 256 + added.len();
        if vocab_size < min_size {
            return Err(TextError::Training(format!(
                "a vocabulary of {vocab_size} is too small for the 256 bytes and {} added tokens; \
                 use \
                 {min_size} or more",
                added.len()
            )));
        }
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                added
                    .iter()
                    .map(|token| tokenizers::AddedToken::from(token.text, token.special))
                    .collect(),
            )
            .build()
            .into();
        let mut inner = tokenizers::Tokenizer::new(BPE::default());
        inner
            .with_pre_tokenizer(Some(Sequence::new(vec![
                PreTokenizerWrapper::Digits(Digits::new(true)),
                PreTokenizerWrapper::ByteLevel(ByteLevel::new(false, false, true)),
            ])))
            .with_decoder(Some(ByteLevel::new(false, false, true)));
        inner
            .train(&mut trainer, texts.into_iter())
            .map_err(|e| TextError::Training(e.to_string()))?;
        Ok(Self::new(inner))
    }

    /// Reads a `tokenizer.json`.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, TextError> {
        let path = path.as_ref();
        let bytes =
            fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
        Self::parse(&bytes, &path.display().to_string())
    }

    /// Reads the bytes of a `tokenizer.json`.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        Self::parse(bytes, "tokenizer.json")
    }

    /// Reads a sentencepiece `tokenizer.model` of BPE type (Llama 1 and 2, `TinyLlama`, …). Errors
    /// name it `file`.
    pub fn from_sentencepiece(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        Vocabulary::parse(bytes, file)?.tokenizer(file)
    }

    /// A tokenizer from the contents of a `tokenizer.json`. Errors name its origin `file`.
    pub(crate) fn from_value(json: &serde_json::Value, file: &str) -> Result<Self, TextError> {
        Self::parse(json.to_string().as_bytes(), file)
    }

    fn parse(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        let unusable = |cause: String| TextError::ModelFile {
            file: file.to_owned(),
            cause: format!("not a supported tokenizer: {cause}"),
            remedy: "get the file again, or convert it with a recent version of transformers"
                .to_owned(),
        };
        // Parses the JSON first: the tokenizers library panics on some truncated files.
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|e| unusable(e.to_string()))?;
        let inner = catch_panic(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(unusable)?;
        if let Some(id) = inner.get_vocab(true).into_values().find(|&id| id > MAX_ID) {
            return Err(unusable(format!("a token has the id {id}, above the limit of {MAX_ID}")));
        }
        Ok(Self::new(inner))
    }

    fn new(mut inner: tokenizers::Tokenizer) -> Self {
        // Some published files keep the truncation and padding of their last training run.
        inner.with_truncation(None).expect("truncation can always be switched off");
        inner.with_padding(None);
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token)| token.special.then_some(id))
            .collect();
        let bytes = token_bytes(&inner);
        let words =
            bytes.is_some().then(|| WordCache::for_tokenizer(&inner)).flatten().map(Arc::new);
        let affixes = special_affixes(&inner);
        Self { inner, special, bytes, words, affixes, rows: usize::MAX }
    }

    /// With special tokens that it does not have yet; they get the next ids.
    pub(crate) fn with_special_tokens(&self, tokens: &[String]) -> Result<Tokenizer, TextError> {
        let refused = |token: &str, cause: &str| TextError::AddedToken {
            token: token.to_owned(),
            cause: cause.to_owned(),
        };
        let mut inner = self.inner.clone();
        for token in tokens {
            if token.trim() != token || token.is_empty() {
                return Err(refused(token, "is empty or begins or ends with a space"));
            }
            if inner.token_to_id(token).is_some() {
                return Err(refused(token, "is in the vocabulary already"));
            }
            inner.add_special_tokens(&[tokenizers::AddedToken::from(token.as_str(), true)]);
        }
        Ok(Self { rows: self.rows, ..Self::new(inner) })
    }

    /// The contents of this tokenizer's `tokenizer.json`.
    pub fn to_json(&self) -> String {
        self.inner.to_string(true).expect("a tokenizer that was built or read can be serialised")
    }

    /// Writes a `tokenizer.json`.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<(), TextError> {
        let path = path.as_ref();
        fs::write(path, self.to_json())
            .map_err(|source| TextError::Write { path: path.to_owned(), source })
    }

    /// The token ids of `text`, without special tokens before and after it.
    ///
    /// Added tokens in the text are matched, as in transformers.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if let Some(words) = &self.words {
            let ids = catch_panic(|| words.encode(self.inner.get_model(), text))
                .map_err(TextError::Encode)?;
            self.check_complete(text, ids.iter().copied())?;
            return Ok(ids);
        }
        let encoding =
            catch_panic(|| self.inner.encode_fast(text, false)).map_err(TextError::Encode)?;
        self.checked_ids(text, &encoding)
    }

    /// The token ids of `text` with the tokenizer's special tokens, as transformers'
    /// `tokenizer(text)`: Llama's adds a beginning-of-text token, GPT-2's and Qwen's nothing.
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let [before, after] = &self.affixes;
        Ok([before.as_slice(), &self.encode(text)?, after].concat())
    }

    /// Prepends the special tokens that start a text, unless `ids` start with them.
    pub(crate) fn with_bos(&self, ids: Vec<u32>) -> Vec<u32> {
        let before = &self.affixes[0];
        if ids.starts_with(before) { ids } else { [before.as_slice(), &ids].concat() }
    }

    /// The token that [`Self::encode_with_special_tokens`] prepends, if any.
    pub fn prepended_token(&self) -> Option<u32> {
        self.affixes[0].first().copied()
    }

    /// The token that [`Self::encode_with_special_tokens`] appends, if any.
    pub fn appended_token(&self) -> Option<u32> {
        self.affixes[1].last().copied()
    }

    /// The type of tokenizer, such as "byte-level BPE".
    pub fn kind(&self) -> &'static str {
        match self.inner.get_model() {
            ModelWrapper::BPE(_)
                if matches!(self.inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) =>
            {
                "byte-level BPE"
            }
            ModelWrapper::BPE(bpe) if bpe.byte_fallback => "sentencepiece BPE",
            ModelWrapper::BPE(_) => "BPE",
            ModelWrapper::Unigram(_) => "Unigram",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "WordLevel",
        }
    }

    /// The token ids of many texts, in order, encoded in parallel.
    pub fn encode_batch(&self, texts: &[&str]) -> Result<Vec<Vec<u32>>, TextError> {
        texts.par_iter().map(|text| self.encode(text)).collect()
    }

    /// The ids of an encoding, checked for completeness.
    fn checked_ids(&self, text: &str, encoding: &Encoding) -> Result<Vec<u32>, TextError> {
        let ids = encoding.get_ids().to_vec();
        self.check_complete(text, ids.iter().copied())?;
        Ok(ids)
    }

    /// An error if a token has no embedding row, or if the tokens lack some bytes of the text.
    ///
    /// The patterns of some tokenizers fail on very long runs of white space, and drop the rest.
    fn check_complete(
        &self,
        text: &str,
        ids: impl Iterator<Item = u32> + Clone,
    ) -> Result<(), TextError> {
        if let Some(id) = ids.clone().find(|&id| id as usize >= self.rows) {
            return Err(TextError::TokenOutsideEmbedding {
                token: self.token(id).unwrap_or_default(),
                id,
                rows: self.rows,
            });
        }
        if let Some(bytes) = &self.bytes {
            let encoded: usize = ids.map(|id| bytes[id as usize] as usize).sum();
            if encoded != text.len() {
                return Err(TextError::Encode(format!(
                    "its tokens represent {encoded} of its {} bytes; break up very long runs of \
                     spaces or line breaks, and remove characters that the vocabulary lacks",
                    text.len()
                )));
            }
        }
        Ok(())
    }

    /// The token ids of `text`, each with its byte range.
    ///
    /// Tokens that share a character all span the whole character. Spans leave no gaps.
    pub(crate) fn encode_spans(&self, text: &str) -> Result<TokenSpans, TextError> {
        if let (Some(_), Some(bytes)) = (&self.words, &self.bytes) {
            let ids = self.encode(text)?;
            let mut end = 0;
            let spans = ids.iter().map(|&id| {
                let start = end;
                end += bytes[id as usize] as usize;
                text.floor_char_boundary(start)..text.ceil_char_boundary(end)
            });
            let spans = spans.collect();
            return Ok(TokenSpans { ids, spans });
        }
        let encoding = catch_panic(|| self.inner.encode(text, false)).map_err(TextError::Encode)?;
        let mut covered = 0;
        let spans = encoding
            .get_offsets()
            .iter()
            .map(|&(start, end)| {
                // With `trim_offsets`, a word's offsets omit the space before it.
                let start = start.min(covered);
                covered = covered.max(end);
                start..end.max(start)
            })
            .collect();
        Ok(TokenSpans { ids: self.checked_ids(text, &encoding)?, spans })
    }

    /// The ids of a prompt, and the tokens of the text after it, with spans relative to that text.
    ///
    /// The prompt is encoded on its own, as at inference, even if the tokenizer would merge across
    /// the seam.
    pub(crate) fn encode_pair(
        &self,
        prompt: &str,
        rest: &str,
    ) -> Result<(Vec<u32>, TokenSpans), TextError> {
        let ids = self.encode(prompt)?;
        let rest = self.encode_continuation_of(prompt, &ids, rest)?;
        Ok((ids, rest))
    }

    /// The tokens of `rest` after a prompt with known `ids`.
    pub(crate) fn encode_continuation_of(
        &self,
        prompt: &str,
        ids: &[u32],
        rest: &str,
    ) -> Result<TokenSpans, TextError> {
        let (first, start) = self.last_split_point(prompt, ids).unwrap_or((0, 0));
        let joined = self.encode_spans(&[&prompt[start..], rest].concat())?;
        match joined.split_off(&ids[first..], prompt.len() - start) {
            Some(rest) => Ok(rest),
            None => self.encode_without_prefix_space(rest),
        }
    }

    /// Token index and byte offset of the last special token after which encoding can restart.
    ///
    /// Added tokens are matched before merging. The token must be far enough from the end that no
    /// longer added token can start there and extend beyond the text. `None` also if the token's
    /// text is not there, as with the unknown token of a vocabulary that lacks bytes.
    fn last_split_point(&self, text: &str, ids: &[u32]) -> Option<(usize, usize)> {
        let (words, bytes) = (self.words.as_ref()?, self.bytes.as_ref()?);
        let mut start = text.len();
        for (t, &id) in ids.iter().enumerate().rev() {
            start = start.checked_sub(bytes[id as usize] as usize)?;
            if self.is_special(id) && start + words.longest_added_token() <= text.len() {
                let (token, rest) = (self.token(id)?, text.get(start..)?);
                return rest.starts_with(&token).then_some((t, start));
            }
        }
        None
    }

    /// The tokens of a text inside another: without the space that sentencepiece tokenizers
    /// prepend.
    fn encode_without_prefix_space(&self, text: &str) -> Result<TokenSpans, TextError> {
        // Encodes the text after a prefix that does not merge with it. Each candidate merges with
        // some texts. A tokenizer that keeps bytes one to one prepends no space.
        const PREFIXES: [&str; 6] = ["\n", "a", ".", "0", "é", "\n\n"];
        let prefixes: &[&str] = if self.bytes.is_some() { &[] } else { &PREFIXES };
        for prefix in prefixes {
            let ids = self.encode(prefix)?;
            let joined = self.encode_spans(&[*prefix, text].concat())?;
            if let Some(rest) = joined.split_off(&ids, prefix.len()) {
                return Ok(rest);
            }
        }
        self.encode_spans(text)
    }

    /// The text of `ids`. Incomplete characters become U+FFFD; ids outside the vocabulary are
    /// skipped.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        catch_panic(|| self.inner.decode(ids, skip_special)).unwrap_or_else(|_| {
            // The decoder of a damaged file may fail; then the tokens are written as in the
            // vocabulary.
            ids.iter()
                .filter(|id| !(skip_special && self.is_special(**id)))
                .filter_map(|&id| self.token(id))
                .collect()
        })
    }

    /// Decodes token by token, to show a text while it is generated.
    pub fn stream(&self, skip_special: bool) -> TokenStream<'_> {
        TokenStream {
            tokenizer: self,
            skip_special,
            window: Vec::new(),
            returned: 0,
            anchor: self.anchor(skip_special),
        }
    }

    /// A token to put before others, to decode them as in the middle of a text.
    fn anchor(&self, skip_special: bool) -> Option<u32> {
        let ids = self.encode("a").ok()?;
        ids.last().copied().filter(|&id| self.decodes_independently(id, skip_special))
    }

    /// Whether the text of a token does not depend on its neighbours.
    ///
    /// That of a byte-fallback token does: the library decodes a run of them at once.
    fn decodes_independently(&self, id: u32, skip_special: bool) -> bool {
        let text = self.decode(&[id], skip_special);
        let byte = self.token(id).is_some_and(|token| token.len() == 6 && token.starts_with("<0x"));
        !text.is_empty() && incomplete_tail(&text) == 0 && !byte
    }

    /// The id of a token as written in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as written in the vocabulary (byte-level BPE writes `Ġ` for a space).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is special: structure, not content.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Whether a token is only white space.
    pub(crate) fn is_blank(&self, id: u32) -> bool {
        // A sentencepiece decoder removes the first space, so the text may be empty.
        self.decode(&[id], false).trim().is_empty()
    }

    /// Makes tokens without one of `rows` embedding rows an error on encoding.
    ///
    /// Some published tokenizers have added tokens without a row, such as `<pad>`. Returns `false`
    /// if a token of the base vocabulary, or one added to every text, has no row: then the
    /// tokenizer is not the model's.
    #[must_use]
    pub(crate) fn limit_rows(&mut self, rows: usize) -> bool {
        let within = |id: u32| (id as usize) < rows;
        let fits = self.inner.get_vocab(false).into_values().all(within)
            && self.affixes.iter().flatten().all(|&id| within(id));
        if fits && self.vocab_size() > rows {
            self.rows = rows;
        }
        fits
    }

    /// One more than the largest id: the rows that an embedding needs.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }
}

/// Bytes of text per token id of a byte-level tokenizer.
///
/// `None` if the tokenizer changes the text (normalizer, prefix space), if its added tokens strip
/// neighbouring spaces, or if two tokens of different lengths have the same id.
fn token_bytes(inner: &tokenizers::Tokenizer) -> Option<Vec<u32>> {
    let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
    let prefix_space = inner.get_pre_tokenizer().is_some_and(adds_prefix_space);
    let added = inner.get_added_tokens_decoder();
    let strips_spaces = added.values().any(|token| token.lstrip || token.rstrip);
    if !byte_level || prefix_space || strips_spaces || inner.get_normalizer().is_some() {
        return None;
    }
    let vocabulary = inner.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
    let mut bytes: Vec<Option<u32>> = vec![None; size];
    for (token, id) in vocabulary {
        // The vocabulary writes one character per byte, but added tokens as in the text.
        let length = if added.contains_key(&id) { token.len() } else { token.chars().count() };
        let length = length as u32;
        if bytes[id as usize].replace(length).is_some_and(|other| other != length) {
            return None;
        }
    }
    Some(bytes.into_iter().map(Option::unwrap_or_default).collect())
}

/// The special tokens that the post-processor adds before and after a text.
fn special_affixes(inner: &tokenizers::Tokenizer) -> [Vec<u32>; 2] {
    let Ok(encoding) = catch_panic(|| inner.encode_fast("a", true)) else {
        return [vec![], vec![]];
    };
    let (ids, added) = (encoding.get_ids(), encoding.get_special_tokens_mask());
    let before = added.iter().take_while(|&&added| added == 1).count();
    let after = added[before..].iter().rev().take_while(|&&added| added == 1).count();
    [ids[..before].to_vec(), ids[ids.len() - after..].to_vec()]
}

fn adds_prefix_space(pre_tokenizer: &PreTokenizerWrapper) -> bool {
    match pre_tokenizer {
        PreTokenizerWrapper::ByteLevel(byte_level) => byte_level.add_prefix_space,
        PreTokenizerWrapper::Sequence(sequence) => sequence.as_ref().iter().any(adds_prefix_space),
        _ => false,
    }
}

/// Decodes token by token; holds back the bytes of incomplete characters.
#[derive(Debug, Clone)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The tokens since the text was last complete, after the anchor.
    window: Vec<u32>,
    /// Bytes of the window's text that are returned already.
    returned: usize,
    /// A token put before the window, because some decoders treat the first token differently. It
    /// is the last returned one that decodes independently, or a placeholder.
    anchor: Option<u32>,
}

impl TokenStream<'_> {
    /// Takes the next token and returns the text that is final, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window, self.skip_special);
        let complete = text.len() - incomplete_tail(&text);
        let new = text.get(self.returned..complete).unwrap_or_default().to_owned();
        self.returned = self.returned.max(complete);
        if complete == text.len() && !text.is_empty() {
            if self.tokenizer.decodes_independently(id, self.skip_special) {
                self.anchor = Some(id);
            }
            if let Some(anchor) = self.anchor {
                self.window = vec![anchor];
                self.returned = self.tokenizer.decode(&self.window, self.skip_special).len();
            }
        }
        new
    }

    /// The rest of the text after the last token. An incomplete character becomes U+FFFD.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.window, self.skip_special);
        text.get(self.returned..).unwrap_or_default().to_owned()
    }
}

/// Bytes at the end of a decoded text that may still become a character.
///
/// An incomplete character has at most 3 bytes. They decode to one U+FFFD together (byte-level) or
/// each (byte fallback).
fn incomplete_tail(text: &str) -> usize {
    text.chars()
        .rev()
        .take(3)
        .take_while(|&c| c == char::REPLACEMENT_CHARACTER)
        .map(char::len_utf8)
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        /// Also if added tokens are prefixes of others or span the seam.
        #[test]
        fn the_ids_after_a_prompt_equal_those_in_the_joined_text(
            prompt in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..12),
            rest in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..6),
        ) {
            thread_local!(static TOKENIZER: Tokenizer = {
                let added = ["<|end|>", "<|end|><|x|>", "<|a", "a<|end|>bc<|end|>"];
                let added = added.map(|text| AddedToken { text, special: true });
                Tokenizer::train(PARTS, 300, &added).unwrap()
            });
            let (prompt, rest) = (prompt.concat(), rest.concat());
            TOKENIZER.with(|tokenizer| {
                let ids = tokenizer.encode(&prompt).unwrap();
                let fast = tokenizer.encode_continuation_of(&prompt, &ids, &rest).unwrap();
                let joined = tokenizer.encode_spans(&[prompt.as_str(), &rest].concat()).unwrap();
                let slow = joined.split_off(&ids, prompt.len());
                let slow =
                    slow.unwrap_or_else(|| tokenizer.encode_without_prefix_space(&rest).unwrap());
                assert_eq!((fast.ids, fast.spans), (slow.ids, slow.spans), "{prompt:?} {rest:?}");
            });
        }
    }

    /// As in a damaged file. Which of the two lengths counted depended on a hash table's order.
    #[test]
    fn a_token_may_share_its_id_with_one_of_another_length() {
        let end = AddedToken { text: "<|end|>", special: true };
        let trained = Tokenizer::train(PARTS, 300, &[end]).unwrap();
        let mut json: serde_json::Value = serde_json::from_str(&trained.to_json()).unwrap();
        let vocabulary = &mut json["model"]["vocab"];
        vocabulary["hello"] = vocabulary["c"].clone();
        for _ in 0..20 {
            let tokenizer = Tokenizer::from_value(&json, "tokenizer.json").unwrap();
            let (prompt, rest) = ("é<|end|>hello é", "é<|end|>hello 12");
            let joined = tokenizer.encode_spans(&[prompt, rest].concat()).unwrap();
            let (ids, after) = tokenizer.encode_pair(prompt, rest).unwrap();
            assert_eq!(joined.ids, [ids, after.ids].concat());
            assert_eq!(after.spans.last(), Some(&(rest.len() - 1..rest.len())));
        }
    }

    const PARTS: [&str; 12] =
        ["<|end|>", "<|x|>", "<|", "a", "bc", " ", "\n", "\n\n", "end|>", "é", "hello hello", "12"];
}

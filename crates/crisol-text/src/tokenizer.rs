//! Byte-level BPE: training, encoding, decoding and streaming.
//!
//! What differs from GPT-2's tokenizer: digits are split one by one before the usual pre-tokenization, so that
//! numbers are read digit by digit (as Llama 1/2 and others do), which arithmetic needs. All 256 bytes are in the
//! vocabulary, so every text round-trips.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;
use tokenizers::decoders::DecoderWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::models::{ModelWrapper, TrainerWrapper};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::{AddedToken, Encoding};

use crate::TextError;
use crate::guard::guarded;
use crate::sentencepiece::Vocabulary;
use crate::word_cache::WordCache;

/// A token that is one token wherever it stands in a text, whatever the merges say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NamedToken<'a> {
    /// How it is written in a text.
    pub text: &'a str,
    /// A special token is structure, not content: [`Tokenizer::decode`] can leave it out.
    pub special: bool,
}

/// Ends a document of pre-training text, and a plain completion.
pub const END_OF_TEXT: &str = "<|eos|>";
/// Ends one message of a conversation in the embedded template.
pub const END_OF_TURN: &str = "<|end|>";

/// The named tokens of the embedded tokenizer and template; they get the ids 0, 1, … in this order.
pub const EMBEDDED_TOKENS: [NamedToken<'static>; 7] = [
    NamedToken { text: END_OF_TEXT, special: true },
    NamedToken { text: END_OF_TURN, special: true },
    NamedToken { text: "<|system|>", special: true },
    NamedToken { text: "<|user|>", special: true },
    NamedToken { text: "<|assistant|>", special: true },
    NamedToken { text: "<think>", special: false },
    NamedToken { text: "</think>", special: false },
];

/// A tokenizer: text to token ids and back.
#[derive(Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    special: BTreeSet<u32>,
    /// The bytes of text that each token holds, where tokens hold a text's bytes one to one.
    bytes: Option<Vec<u32>>,
    /// The fast way to ids, where there is one.
    words: Option<Arc<WordCache>>,
    /// The tokens that it puts before and after a plain text.
    around: [Vec<u32>; 2],
    /// Tokens with larger ids are not encoded: the model has no rows for them.
    rows: usize,
}

/// Without the vocabulary, which fills screens.
impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokenizer").field("vocab_size", &self.vocab_size()).finish_non_exhaustive()
    }
}

/// Some fifty times the largest vocabularies in use. Bounds the tables by id that a damaged file can ask for.
const LARGEST_ID: u32 = (1 << 24) - 1;

/// A text's tokens, each with the bytes of the text that it stands for.
pub(crate) struct Spanned {
    pub(crate) ids: Vec<u32>,
    pub(crate) spans: Vec<Range<usize>>,
}

impl Spanned {
    /// What comes after the first `seam` bytes (`spans` counted from there), where `before` are their tokens and none reaches
    /// over the seam.
    fn split_off(&self, before: &[u32], seam: usize) -> Option<Self> {
        // Normalizers may reorder what they read, so every token is looked at.
        let rest = self.ids.strip_prefix(before)?;
        let spans = &self.spans[before.len()..];
        spans.iter().all(|span| span.start >= seam).then(|| Self {
            ids: rest.to_vec(),
            spans: spans.iter().map(|span| span.start - seam..span.end - seam).collect(),
        })
    }
}

impl Tokenizer {
    /// Trains byte-level BPE on `texts` to at most `vocab_size` tokens (fewer where the texts do not hold that many
    /// repeated pairs), `named` included. The same texts in the same order give the same tokenizer.
    pub fn train<I, S>(texts: I, vocab_size: usize, named: &[NamedToken]) -> Result<Self, TextError>
    where
        I: IntoIterator<Item = S>,
        I::IntoIter: Send,
        S: AsRef<str> + Send,
    {
        let least = 256 + named.len();
        if vocab_size < least {
            return Err(TextError::Training(format!(
                "a vocabulary of {vocab_size} cannot hold the 256 bytes and {} named tokens; ask for {least} or more",
                named.len()
            )));
        }
        let mut trainer: TrainerWrapper = BpeTrainer::builder()
            .vocab_size(vocab_size)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .special_tokens(
                named.iter().map(|token| AddedToken::from(token.text, token.special)).collect(),
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

    /// Reads a sentencepiece `tokenizer.model` of BPE type (Llama 1 and 2, `TinyLlama`, …). `file` names it in errors.
    pub fn from_sentencepiece(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        Vocabulary::parse(bytes, file)?.tokenizer(file)
    }

    /// A tokenizer from the contents of a `tokenizer.json`, made from the file that errors name.
    pub(crate) fn from_value(json: &serde_json::Value, file: &str) -> Result<Self, TextError> {
        Self::parse(json.to_string().as_bytes(), file)
    }

    fn parse(bytes: &[u8], file: &str) -> Result<Self, TextError> {
        let unusable = |cause: String| TextError::Folder {
            file: file.to_owned(),
            cause: format!("not a tokenizer that this version understands: {cause}"),
            remedy: "get the file again, or convert it with a recent version of transformers"
                .to_owned(),
        };
        // Where JSON breaks off within some of its parts, the tokenizers crate does not say where, but panics.
        serde_json::from_slice::<serde_json::Value>(bytes).map_err(|e| unusable(e.to_string()))?;
        let inner = guarded(|| tokenizers::Tokenizer::from_bytes(bytes)).map_err(unusable)?;
        if let Some(id) = inner.get_vocab(true).into_values().find(|&id| id > LARGEST_ID) {
            return Err(unusable(format!(
                "a token has the id {id}, where {LARGEST_ID} is the most"
            )));
        }
        Ok(Self::new(inner))
    }

    fn new(mut inner: tokenizers::Tokenizer) -> Self {
        // Some published files carry the truncation and padding of their last training run, which would silently cut
        // or fill every text.
        inner.with_truncation(None).expect("truncation can always be switched off");
        inner.with_padding(None);
        let special = inner
            .get_added_tokens_decoder()
            .into_iter()
            .filter_map(|(id, token)| token.special.then_some(id))
            .collect();
        let bytes = token_bytes(&inner);
        let words = bytes.is_some().then(|| WordCache::of(&inner)).flatten().map(Arc::new);
        let around = tokens_around(&inner);
        Self { inner, special, bytes, words, around, rows: usize::MAX }
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

    /// The token ids of `text`. Named tokens written in the text are recognised, as transformers does; nothing is
    /// added before or after.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, TextError> {
        if let Some(words) = &self.words {
            let ids = guarded(|| words.encode(self.inner.get_model(), text))
                .map_err(TextError::Encode)?;
            self.check_whole(text, ids.iter().copied())?;
            return Ok(ids);
        }
        let encoding =
            guarded(|| self.inner.encode_fast(text, false)).map_err(TextError::Encode)?;
        self.whole(text, &encoding)
    }

    /// The token ids of `text` with what the tokenizer puts around a plain text: the beginning-of-text token of Llama,
    /// nothing with GPT-2 or Qwen. The ids of transformers' `tokenizer(text)`.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, TextError> {
        let [before, after] = &self.around;
        Ok([before.as_slice(), &self.encode(text)?, after].concat())
    }

    /// The ids of a text after what the tokenizer puts before a plain text, unless the text begins with it itself.
    pub(crate) fn after_beginning(&self, ids: Vec<u32>) -> Vec<u32> {
        let before = &self.around[0];
        if ids.starts_with(before) { ids } else { [before.as_slice(), &ids].concat() }
    }

    /// The token that [`Self::encode_plain`] puts before a text, if it does.
    pub fn plain_bos(&self) -> Option<u32> {
        self.around[0].first().copied()
    }

    /// The token that [`Self::encode_plain`] puts after a text, if it does.
    pub fn plain_eos(&self) -> Option<u32> {
        self.around[1].last().copied()
    }

    /// What kind of tokenizer it is, in the field's words.
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

    /// The ids of an encoding, where its tokens hold every byte of the text. The patterns of some tokenizers give up
    /// on very long runs of white space and silently drop what follows.
    fn whole(&self, text: &str, encoding: &Encoding) -> Result<Vec<u32>, TextError> {
        let ids = encoding.get_ids().to_vec();
        self.check_whole(text, ids.iter().copied())?;
        Ok(ids)
    }

    fn check_whole(
        &self,
        text: &str,
        ids: impl Iterator<Item = u32> + Clone,
    ) -> Result<(), TextError> {
        if let Some(id) = ids.clone().find(|&id| id as usize >= self.rows) {
            return Err(TextError::NoRow {
                token: self.token(id).unwrap_or_default(),
                id,
                rows: self.rows,
            });
        }
        if let Some(bytes) = &self.bytes {
            let held: usize = ids.map(|id| bytes[id as usize] as usize).sum();
            if held != text.len() {
                return Err(TextError::Encode(format!(
                    "its tokens hold {held} of its {} bytes; break up very long runs of spaces or line breaks, and remove \
                     characters that the vocabulary has no bytes for",
                    text.len()
                )));
            }
        }
        Ok(())
    }

    /// The token ids of `text` with the bytes that each stands for. Tokens that share a character (its bytes spread
    /// over them) all have that whole character; no byte between two tokens is left out.
    pub(crate) fn encode_spans(&self, text: &str) -> Result<Spanned, TextError> {
        if let (Some(_), Some(bytes)) = (&self.words, &self.bytes) {
            let ids = self.encode(text)?;
            let mut end = 0;
            let spans = ids.iter().map(|&id| {
                let start = end;
                end += bytes[id as usize] as usize;
                text.floor_char_boundary(start)..text.ceil_char_boundary(end)
            });
            let spans = spans.collect();
            return Ok(Spanned { ids, spans });
        }
        let encoding = guarded(|| self.inner.encode(text, false)).map_err(TextError::Encode)?;
        let mut covered = 0;
        let spans = encoding
            .get_offsets()
            .iter()
            .map(|&(start, end)| {
                // Tokenizers with `trim_offsets` leave the space before a word out of the word's offsets.
                let start = start.min(covered);
                covered = covered.max(end);
                start..end.max(start)
            })
            .collect();
        Ok(Spanned { ids: self.whole(text, &encoding)?, spans })
    }

    /// The ids of a prompt, and the tokens of what follows it (`spans` counted from there). The prompt's ids are those
    /// of the prompt alone, which the model meets when it is to answer, also where the tokenizer would merge across the
    /// seam.
    pub(crate) fn encode_after(
        &self,
        prompt: &str,
        rest: &str,
    ) -> Result<(Vec<u32>, Spanned), TextError> {
        let ids = self.encode(prompt)?;
        let rest = self.encode_rest(prompt, &ids, rest)?;
        Ok((ids, rest))
    }

    /// The same, of a prompt whose ids are known.
    pub(crate) fn encode_rest(
        &self,
        prompt: &str,
        ids: &[u32],
        rest: &str,
    ) -> Result<Spanned, TextError> {
        let (first, start) = self.last_named(prompt, ids).unwrap_or((0, 0));
        let whole = self.encode_spans(&[&prompt[start..], rest].concat())?;
        match whole.split_off(&ids[first..], prompt.len() - start) {
            Some(rest) => Ok(rest),
            None => self.encode_continuation(rest),
        }
    }

    /// The last named token of a text, by its place among the ids and in the text, before which nothing depends on how the text
    /// goes on: named tokens are found before anything is merged, and none that begins earlier reaches beyond the text.
    fn last_named(&self, text: &str, ids: &[u32]) -> Option<(usize, usize)> {
        let (words, bytes) = (self.words.as_ref()?, self.bytes.as_ref()?);
        let mut start = text.len();
        for (t, &id) in ids.iter().enumerate().rev() {
            start -= bytes[id as usize] as usize;
            if self.is_special(id) && start + words.longest_named() <= text.len() {
                return Some((t, start));
            }
        }
        None
    }

    /// The tokens of a text that goes on with another one: without the space that sentencepiece and its like put before
    /// the first word.
    fn encode_continuation(&self, text: &str) -> Result<Spanned, TextError> {
        // A tokenizer that changes nothing puts no space there. Of the others, text is encoded after something that does not
        // merge with it; a letter and a line break each merge with some texts.
        const BEFORE: [&str; 6] = ["\n", "a", ".", "0", "é", "\n\n"];
        let before: &[&str] = if self.bytes.is_some() { &[] } else { &BEFORE };
        for before in before {
            let ids = self.encode(before)?;
            let whole = self.encode_spans(&[*before, text].concat())?;
            if let Some(rest) = whole.split_off(&ids, before.len()) {
                return Ok(rest);
            }
        }
        self.encode_spans(text)
    }

    /// The text of `ids`. Bytes that are no whole character become U+FFFD, ids outside the vocabulary nothing.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        guarded(|| self.inner.decode(ids, skip_special)).unwrap_or_else(|_| {
            // A decoder that fails (a broken pattern in a foreign file): the tokens as the vocabulary writes them.
            ids.iter()
                .filter(|id| !(skip_special && self.is_special(**id)))
                .filter_map(|&id| self.token(id))
                .collect()
        })
    }

    /// Decodes token by token, for showing a text while it is being generated.
    pub fn stream(&self, skip_special: bool) -> TokenStream<'_> {
        TokenStream {
            tokenizer: self,
            skip_special,
            window: Vec::new(),
            shown: 0,
            anchor: self.anchor(skip_special),
        }
    }

    /// A token that can stand before others to decode them as in the middle of a text.
    fn anchor(&self, skip_special: bool) -> Option<u32> {
        let ids = self.encode("a").ok()?;
        ids.last().copied().filter(|&id| self.stands_alone(id, skip_special))
    }

    /// Whether a token has a text of its own, whatever comes after it. A byte of byte fallback has not: the library
    /// decodes a row of them at once, all of them to U+FFFD where one does not fit in.
    fn stands_alone(&self, id: u32, skip_special: bool) -> bool {
        let text = self.decode(&[id], skip_special);
        let byte = self.token(id).is_some_and(|token| token.len() == 6 && token.starts_with("<0x"));
        !text.is_empty() && incomplete_tail(&text) == 0 && !byte
    }

    /// The id of a token, as written in the vocabulary.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// A token as written in the vocabulary (byte-level: `Ġ` stands for a space).
    pub fn token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// Whether a token is structure rather than content.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.contains(&id)
    }

    /// Whether a token is nothing but white space.
    pub(crate) fn is_blank(&self, id: u32) -> bool {
        // Decoders of sentencepiece take the first space away.
        self.decode(&[id], false).trim().is_empty()
    }

    /// Makes texts an error that hold a token for which a model with `rows` rows in its embedding has none. Some published
    /// folders have such tokens, added to the tokenizer alone (a `<pad>`). Without a row for a token of the vocabulary itself, or
    /// for one that stands around every text, tokenizer and model do not belong together; then this is `false`.
    #[must_use]
    pub(crate) fn limit(&mut self, rows: usize) -> bool {
        let within = |id: u32| (id as usize) < rows;
        let fits = self.inner.get_vocab(false).into_values().all(within)
            && self.around.iter().flatten().all(|&id| within(id));
        if fits && self.vocab_size() > rows {
            self.rows = rows;
        }
        fits
    }

    /// One more than the largest id: the rows that an embedding table needs.
    pub fn vocab_size(&self) -> usize {
        let largest = self.inner.get_vocab(true).into_values().max();
        largest.map_or(0, |id| id as usize + 1)
    }
}

/// The bytes of text that each token of a byte-level tokenizer holds, by id; nothing for tokenizers that change the text
/// (a normalizer, a prefix space) or whose named tokens swallow the space around them.
fn token_bytes(inner: &tokenizers::Tokenizer) -> Option<Vec<u32>> {
    let byte_level = matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
    let prefix_space = inner.get_pre_tokenizer().is_some_and(adds_prefix_space);
    let added = inner.get_added_tokens_decoder();
    let swallows = added.values().any(|token| token.lstrip || token.rstrip);
    if !byte_level || prefix_space || swallows || inner.get_normalizer().is_some() {
        return None;
    }
    let vocabulary = inner.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
    let mut bytes = vec![0; size];
    for (token, id) in vocabulary {
        // In the vocabulary, a token is written with one character per byte; a named one as it is in the text.
        let length = if added.contains_key(&id) { token.len() } else { token.chars().count() };
        bytes[id as usize] = length as u32;
    }
    Some(bytes)
}

/// The tokens before and after a plain text.
fn tokens_around(inner: &tokenizers::Tokenizer) -> [Vec<u32>; 2] {
    let Ok(encoding) = guarded(|| inner.encode_fast("a", true)) else { return [vec![], vec![]] };
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

/// Decodes token by token, holding back the bytes of a character until it is whole.
#[derive(Debug, Clone)]
pub struct TokenStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The tokens since the last point at which the text was whole, after the anchor (for decoders that look back).
    window: Vec<u32>,
    /// Bytes of the window's text that were given out.
    shown: usize,
    /// The last token of those given out that stands alone, or one that was never there: what stands before the next
    /// tokens once the text is whole.
    anchor: Option<u32>,
}

impl TokenStream<'_> {
    /// Takes the next token and returns the text that became certain, which may be empty.
    pub fn push(&mut self, id: u32) -> String {
        self.window.push(id);
        let text = self.tokenizer.decode(&self.window, self.skip_special);
        let whole = text.len() - incomplete_tail(&text);
        let new = text.get(self.shown..whole).unwrap_or_default().to_owned();
        self.shown = self.shown.max(whole);
        if whole == text.len() && !text.is_empty() {
            if self.tokenizer.stands_alone(id, self.skip_special) {
                self.anchor = Some(id);
            }
            if let Some(anchor) = self.anchor {
                self.window = vec![anchor];
                self.shown = self.tokenizer.decode(&self.window, self.skip_special).len();
            }
        }
        new
    }

    /// The rest, when no more tokens come: an incomplete character becomes U+FFFD.
    pub fn finish(self) -> String {
        let text = self.tokenizer.decode(&self.window, self.skip_special);
        text.get(self.shown..).unwrap_or_default().to_owned()
    }
}

/// Bytes at the end of a decoded text that later tokens may still turn into a character: an incomplete character is
/// at most 3 bytes, which decode to one U+FFFD (byte-level) or to one each (byte fallback).
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
        /// What follows a prompt has the ids that it has in the whole text, also where named tokens begin like others or lie
        /// across the seam.
        #[test]
        fn the_rest_of_a_text_is_encoded_as_within_it(
            prompt in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..12),
            rest in prop::collection::vec(prop::sample::select(PARTS.to_vec()), 0..6),
        ) {
            thread_local!(static TOKENIZER: Tokenizer = {
                let named = ["<|end|>", "<|end|><|x|>", "<|a", "a<|end|>bc<|end|>"];
                let named = named.map(|text| NamedToken { text, special: true });
                Tokenizer::train(PARTS, 300, &named).unwrap()
            });
            let (prompt, rest) = (prompt.concat(), rest.concat());
            TOKENIZER.with(|tokenizer| {
                let ids = tokenizer.encode(&prompt).unwrap();
                let fast = tokenizer.encode_rest(&prompt, &ids, &rest).unwrap();
                let whole = tokenizer.encode_spans(&[prompt.as_str(), &rest].concat()).unwrap();
                let plain = whole.split_off(&ids, prompt.len());
                let plain = plain.unwrap_or_else(|| tokenizer.encode_continuation(&rest).unwrap());
                assert_eq!((fast.ids, fast.spans), (plain.ids, plain.spans), "{prompt:?} {rest:?}");
            });
        }
    }

    const PARTS: [&str; 12] =
        ["<|end|>", "<|x|>", "<|", "a", "bc", " ", "\n", "\n\n", "end|>", "é", "hello hello", "12"];
}

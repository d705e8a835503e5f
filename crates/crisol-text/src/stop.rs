//! Stop strings: texts at which an answer ends, found as soon as they are complete, also where they straddle tokens.

use crate::{TokenStream, Tokenizer};

impl Tokenizer {
    /// Decodes token by token, without special tokens, up to the first of `stops`. Empty stop strings are never found.
    pub fn stream_until<'a>(&'a self, stops: &'a [String]) -> StopStream<'a> {
        let hold = Hold { stops, text: String::new(), stopped: false };
        StopStream { stream: self.stream(true), hold }
    }
}

/// Text as it is generated, cut before the first stop string. The end of the text that may still become a stop string
/// is held back.
#[derive(Debug, Clone)]
pub struct StopStream<'a> {
    stream: TokenStream<'a>,
    hold: Hold<'a>,
}

/// Text that was not given out.
#[derive(Debug, Clone)]
struct Hold<'a> {
    stops: &'a [String],
    /// The beginning of a stop string, or nothing.
    text: String,
    stopped: bool,
}

impl StopStream<'_> {
    /// Takes the next token and returns the text that became certain, which may be empty, and is after a stop string.
    pub fn push(&mut self, id: u32) -> String {
        let text = self.stream.push(id);
        self.hold.add(&text)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.hold.stopped
    }

    /// The rest, when no more tokens come, and whether a stop string was found in all of the text.
    pub fn finish(self) -> (String, bool) {
        let Self { stream, mut hold } = self;
        let mut text = hold.add(&stream.finish());
        if !hold.stopped {
            text.push_str(&hold.text);
        }
        (text, hold.stopped)
    }
}

impl Hold<'_> {
    /// Takes more text and returns what is certain.
    fn add(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.text.push_str(text);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.text.find(stop)).min() {
            self.stopped = true;
            self.text.truncate(at);
            return std::mem::take(&mut self.text);
        }
        let longest = stops().map(String::len).max().unwrap_or(0);
        let from = self.text.len().saturating_sub(longest.saturating_sub(1));
        let may_become = |at: &usize| {
            let end = self.text.get(*at..);
            end.is_some_and(|end| stops().any(|stop| stop.starts_with(end)))
        };
        let certain = (from..self.text.len()).find(may_become).unwrap_or(self.text.len());
        let held = self.text.split_off(certain);
        std::mem::replace(&mut self.text, held)
    }
}

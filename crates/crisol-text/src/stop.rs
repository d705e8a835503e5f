//! Stop strings: texts at which generation ends, also across token boundaries.

use crate::{TokenStream, Tokenizer};

impl Tokenizer {
    /// Decodes token by token, without special tokens, up to the first of `stops`. Empty stop
    /// strings are ignored.
    pub fn stream_until<'a>(&'a self, stops: &'a [String]) -> StopStream<'a> {
        let matcher = StopMatcher { stops, held: String::new(), stopped: false };
        StopStream { stream: self.stream(true), matcher }
    }
}

/// Generated text, cut before the first stop string. Text that may still become a stop string is
/// held back.
#[derive(Debug, Clone)]
pub struct StopStream<'a> {
    stream: TokenStream<'a>,
    matcher: StopMatcher<'a>,
}

/// Finds stop strings in a stream of text.
#[derive(Debug, Clone)]
struct StopMatcher<'a> {
    stops: &'a [String],
    /// Text held back: the start of a stop string, or empty.
    held: String,
    stopped: bool,
}

impl StopStream<'_> {
    /// Takes the next token and returns the text that is final. It may be empty, and is after a
    /// stop string.
    pub fn push(&mut self, id: u32) -> String {
        let text = self.stream.push(id);
        self.matcher.add(&text)
    }

    /// Whether a stop string was found.
    pub fn stopped(&self) -> bool {
        self.matcher.stopped
    }

    /// The rest of the text after the last token, and whether a stop string was found.
    pub fn finish(self) -> (String, bool) {
        let Self { stream, mut matcher } = self;
        let mut text = matcher.add(&stream.finish());
        if !matcher.stopped {
            text.push_str(&matcher.held);
        }
        (text, matcher.stopped)
    }
}

impl StopMatcher<'_> {
    /// Takes more text and returns the text that is final.
    fn add(&mut self, text: &str) -> String {
        if self.stopped {
            return String::new();
        }
        self.held.push_str(text);
        let stops = || self.stops.iter().filter(|stop| !stop.is_empty());
        if let Some(at) = stops().filter_map(|stop| self.held.find(stop)).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let longest = stops().map(String::len).max().unwrap_or(0);
        let from = self.held.len().saturating_sub(longest.saturating_sub(1));
        let may_become_stop = |at: &usize| {
            let end = self.held.get(*at..);
            end.is_some_and(|end| stops().any(|stop| stop.starts_with(end)))
        };
        let end = (from..self.held.len()).find(may_become_stop).unwrap_or(self.held.len());
        let held = self.held.split_off(end);
        std::mem::replace(&mut self.held, held)
    }
}

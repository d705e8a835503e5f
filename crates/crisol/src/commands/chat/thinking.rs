//! Thinking is dimmed while it is written. Tags may come in pieces.

use crisol_text::TextSetup;
use owo_colors::OwoColorize as _;

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// The last words of a prompt. Some templates begin the thinking themselves.
pub(super) fn end(text: &TextSetup, prompt: &[u32]) -> String {
    // Enough for the tag where a tokenizer has no token for it.
    let last = prompt.len().saturating_sub(OPEN.len() + 2);
    text.tokenizer.decode(&prompt[last..], false)
}

/// Dims what stands between `<think>` and `</think>`, tags included.
pub(super) struct Dimmer {
    thinking: bool,
    /// The beginning of a tag that may go on.
    held: String,
}

impl Dimmer {
    /// For an answer to a prompt with this end.
    pub(super) fn after(prompt: &str) -> Dimmer {
        Dimmer { thinking: prompt.trim_end().ends_with(OPEN), held: String::new() }
    }

    /// What can be printed now.
    pub(super) fn push(&mut self, new: &str) -> String {
        self.held += new;
        let text = std::mem::take(&mut self.held);
        let mut rest = text.as_str();
        let mut out = String::new();
        loop {
            let tag = if self.thinking { CLOSE } else { OPEN };
            let Some(at) = rest.find(tag) else { break };
            // The tags belong to the thinking.
            let end = if self.thinking { at + tag.len() } else { at };
            out += &self.paint(&rest[..end]);
            self.thinking = !self.thinking;
            if self.thinking {
                out += &self.paint(tag);
            }
            rest = &rest[at + tag.len()..];
        }
        let tag = if self.thinking { CLOSE } else { OPEN };
        let held = (1..tag.len()).rev().find(|length| rest.ends_with(&tag[..*length]));
        let (certain, held) = rest.split_at(rest.len() - held.unwrap_or(0));
        out += &self.paint(certain);
        held.clone_into(&mut self.held);
        out
    }

    /// What is left at the end.
    pub(super) fn finish(self) -> String {
        self.paint(&self.held)
    }

    fn paint(&self, text: &str) -> String {
        if self.thinking && !text.is_empty() { text.dimmed().to_string() } else { text.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dimmed text in brackets.
    fn shown(prompt: &str, pieces: &[&str]) -> String {
        let mut dimmer = Dimmer::after(prompt);
        let mut out: String = pieces.iter().map(|piece| dimmer.push(piece)).collect();
        out += &dimmer.finish();
        out.replace("\u{1b}[2m", "[").replace("\u{1b}[0m", "]").replace("][", "")
    }

    #[test]
    fn thinking_is_dimmed_wherever_the_pieces_end() {
        let text = "a < b <think>1 < 2</thin k></think> so <b>";
        let expected = "a < b [<think>1 < 2</thin k></think>] so <b>";
        assert_eq!(shown("user:", &[text]), expected);
        let letters: Vec<String> = text.chars().map(String::from).collect();
        let letters: Vec<&str> = letters.iter().map(String::as_str).collect();
        assert_eq!(shown("user:", &letters), expected);
        for cut in 0..text.len() {
            assert_eq!(shown("user:", &[&text[..cut], &text[cut..]]), expected);
        }
    }

    #[test]
    fn a_template_may_begin_the_thinking() {
        assert_eq!(shown("assistant\n<think>\n", &["1+1", "</think>2"]), "[1+1</think>]2");
        assert_eq!(shown("<think>", &["cut of"]), "[cut of]");
        assert_eq!(shown("", &["<think>1", "+1"]), "[<think>1+1]");
        assert_eq!(shown("", &["ends with <thi"]), "ends with <thi");
    }
}

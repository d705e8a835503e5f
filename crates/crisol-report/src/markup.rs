//! Text from prompts, models and users, made safe to show: escaped for HTML, stripped for a
//! terminal, and cut at `<think>` … `</think>`.

use std::fmt;

/// Text that escapes itself for HTML, in content and in quoted attributes.
#[derive(Clone, Copy)]
pub(crate) struct Escaped<'a>(pub(crate) &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for char in self.0.chars() {
            match char {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                '\n' | '\t' => write!(f, "{char}")?,
                // Control characters are not allowed in HTML, and NUL ends parsing in some readers.
                _ if char.is_control() => f.write_str("\u{fffd}")?,
                _ => write!(f, "{char}")?,
            }
        }
        Ok(())
    }
}

/// Replaces what a terminal would obey (escape sequences, carriage returns, bells): a model's text
/// cannot write outside its place.
pub(crate) fn without_controls(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char })
        .collect()
}

/// A piece of a model's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// What is said.
    Said(&'a str),
    /// What stands inside `<think>`, and whether the thinking was closed.
    Thought(&'a str, bool),
}

/// Cuts a text at its think tags. Blank text between pieces is dropped.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    const OPEN: &str = "<think>";
    const CLOSE: &str = "</think>";
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(OPEN) {
        pieces.push(Piece::Said(rest[..open].trim()));
        let inside = &rest[open + OPEN.len()..];
        if let Some(close) = inside.find(CLOSE) {
            pieces.push(Piece::Thought(inside[..close].trim(), true));
            rest = &inside[close + CLOSE.len()..];
        } else {
            pieces.push(Piece::Thought(inside.trim(), false));
            rest = "";
        }
    }
    pieces.push(Piece::Said(rest.trim()));
    pieces.retain(|piece| *piece != Piece::Said(""));
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_content_and_attributes() {
        assert_eq!(
            Escaped("<b a=\"1\" c='2'>&\u{1b}[0m</b>").to_string(),
            "&lt;b a=&quot;1&quot; c=&#39;2&#39;&gt;&amp;\u{fffd}[0m&lt;/b&gt;"
        );
    }

    #[test]
    fn terminals_get_no_controls() {
        assert_eq!(
            without_controls("a\u{1b}[31m\r\nb\u{7}\u{9b}1m"),
            "a\u{fffd}[31m\u{fffd}\nb\u{fffd}\u{fffd}1m"
        );
    }

    #[test]
    fn thoughts_are_cut_out() {
        use Piece::{Said, Thought};
        assert_eq!(pieces("plain"), [Said("plain")]);
        assert_eq!(pieces("<think>\n2+2\n</think>\n4"), [Thought("2+2", true), Said("4")]);
        assert_eq!(pieces("so <think>2+2"), [Said("so"), Thought("2+2", false)]);
        assert_eq!(pieces("<think></think>"), [Thought("", true)]);
        assert_eq!(pieces("a</think>b"), [Said("a</think>b")]);
        assert_eq!(pieces(""), []);
    }
}

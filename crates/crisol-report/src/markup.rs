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

/// Replaces control characters (escape sequences, carriage returns, bells), so that a model's text
/// cannot move the cursor.
pub(crate) fn without_controls(text: &str) -> String {
    text.chars()
        .map(|char| if char.is_control() && char != '\n' { '\u{fffd}' } else { char })
        .collect()
}

/// A piece of a model's text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Segment<'a> {
    /// Text outside `<think>`.
    Text(&'a str),
    /// Text inside `<think>`, and whether `</think>` closed it.
    Thinking(&'a str, bool),
}

/// Cuts a text at its think tags. Blank segments are dropped.
pub(crate) fn segments(text: &str) -> Vec<Segment<'_>> {
    const OPEN: &str = "<think>";
    const CLOSE: &str = "</think>";
    let mut segments = Vec::new();
    let mut rest = text;
    while let Some(open) = rest.find(OPEN) {
        segments.push(Segment::Text(rest[..open].trim()));
        let inside = &rest[open + OPEN.len()..];
        if let Some(close) = inside.find(CLOSE) {
            segments.push(Segment::Thinking(inside[..close].trim(), true));
            rest = &inside[close + CLOSE.len()..];
        } else {
            segments.push(Segment::Thinking(inside.trim(), false));
            rest = "";
        }
    }
    segments.push(Segment::Text(rest.trim()));
    segments.retain(|segment| *segment != Segment::Text(""));
    segments
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
        use Segment::{Text, Thinking};
        assert_eq!(segments("plain"), [Text("plain")]);
        assert_eq!(segments("<think>\n2+2\n</think>\n4"), [Thinking("2+2", true), Text("4")]);
        assert_eq!(segments("so <think>2+2"), [Text("so"), Thinking("2+2", false)]);
        assert_eq!(segments("<think></think>"), [Thinking("", true)]);
        assert_eq!(segments("a</think>b"), [Text("a</think>b")]);
        assert_eq!(segments(""), []);
    }
}

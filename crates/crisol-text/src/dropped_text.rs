//! Finds text of a message that a template dropped. White space and thought tags do not count.

use crate::Message;

/// The tags around a thought.
pub(crate) const THOUGHT_START: &str = "<think>";
pub(crate) const THOUGHT_END: &str = "</think>";
/// The tags around an answer after a thought, where a template asks for them.
pub(crate) const RESPONSE_START: &str = "<response>";
const RESPONSE_END: &str = "</response>";
const TAGS: [&str; 2] = [THOUGHT_START, THOUGHT_END];
/// Most characters of dropped text in a message.
const MAX_EXCERPT: usize = 80;

/// An answer with its thought in tags.
pub(crate) fn with_thought(thought: &str, answer: &str) -> String {
    let (thought, answer) = (thought.trim(), answer.trim());
    format!("{THOUGHT_START}\n{thought}\n{THOUGHT_END}\n\n{answer}")
}

/// A thought and an answer in the tags that Granite 3.3's system message asks for.
pub(crate) fn with_response(thought: &str, answer: &str) -> String {
    let (thought, answer) = (thought.trim(), answer.trim());
    format!("{THOUGHT_START}{thought}{THOUGHT_END}{RESPONSE_START}{answer}{RESPONSE_END}")
}

/// Bytes of the longest common prefix.
pub(crate) fn common_prefix(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum()
}

/// The first words of a message that `written` lacks, or `None`.
///
/// Looks for the words of its thought and content and the names of called tools, each in order.
pub(crate) fn first_dropped(written: &str, message: &Message) -> Option<String> {
    // Fast path: the content is usually there unchanged.
    let only_content = message.reasoning().is_none() && message.called_tools().is_empty();
    let content = message.content.trim();
    if only_content && (written.trim_start().starts_with(content) || written.contains(content)) {
        return None;
    }
    let written = normalise(written);
    // A thought may be in both fields, but is written once.
    for text in [message.reasoning().unwrap_or_default(), &message.content].map(without_tags) {
        let missing = first_missing(&written, text.split_whitespace());
        if missing.is_some() && !written.contains(&normalise(&text)) {
            return missing;
        }
    }
    first_missing(&written, message.called_tools().into_iter())
}

/// The first words of a content of which `written` lacks more than half, or `None`.
///
/// Templates may quote a content, cut a part, or write it as JSON. So only its letters and digits
/// are looked for, in any order.
pub(crate) fn mostly_dropped(written: &str, content: &str) -> Option<String> {
    /// Most words that are looked for.
    const MAX_WORDS: usize = 100;
    let content = content.trim();
    if written.contains(content) {
        return None;
    }
    let words = || content.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    let count = words().take(MAX_WORDS).count();
    let missing = words().take(MAX_WORDS).filter(|word| !written.contains(word)).count();
    let excerpt = || content.chars().take(MAX_EXCERPT).collect();
    (missing * 2 > count).then(excerpt)
}

/// Whether a message has neither text nor tool calls.
pub(crate) fn is_empty(message: &Message) -> bool {
    let is_blank = |text: &str| text.trim().is_empty();
    let content = &message.content;
    let no_text =
        is_blank(content) || content.contains(TAGS[0]) && is_blank(&without_tags(content));
    no_text && message.called_tools().is_empty()
}

/// The first run of words that `written` lacks, searching the words in order.
fn first_missing<'a>(written: &str, words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut rest = written;
    let mut missing: Vec<&str> = vec![];
    for word in words {
        match rest.find(&normalise(word)) {
            Some(at) if missing.is_empty() => rest = &rest[at + normalise(word).len()..],
            Some(_) => break,
            None => missing.push(word),
        }
    }
    let missing = missing.join(" ");
    let excerpt: String = missing.chars().take(MAX_EXCERPT).collect();
    match excerpt.len() {
        0 => None,
        length if length < missing.len() => Some(excerpt + " …"),
        _ => Some(excerpt),
    }
}

fn without_tags(text: &str) -> String {
    TAGS.iter().fold(text.to_owned(), |text, tag| text.replace(tag, " "))
}

/// A text without white space and tags.
fn normalise(text: &str) -> String {
    without_tags(text).split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_content_in_another_form_is_not_dropped() {
        let dropped = |content: &str, written: &str| mostly_dropped(written, content).is_some();
        assert!(!dropped(" be kind ", "<s>be kind</s>"));
        assert!(!dropped("{\"sky\": \"blue\"}", r#"{"content": "{\"sky\": \"blue\"}"}"#));
        assert!(!dropped("Be kind. /no_think", "Be kind."));
        assert!(!dropped("", "") && !dropped("?!", "x"));
        assert!(dropped("22 degrees", "<user>Weather?"));
    }

    #[test]
    fn words_are_found_in_order_and_white_space_does_not_count() {
        let dropped =
            |content: &str, written: &str| first_dropped(written, &Message::assistant(content));
        assert_eq!(dropped(" a\n b ", "xa  b</s>"), None);
        assert_eq!(dropped("<think>\nhm\n</think>\n\nb", "hm</think>b"), None);
        assert_eq!(dropped("", ""), None);
        assert_eq!(
            dropped("<think>2 and 3: 5.</think>7", "7<|im_end|>").as_deref(),
            Some("2 and 3: 5.")
        );
        assert_eq!(dropped("one two two", "one two<|im_end|>").as_deref(), Some("two"));
        assert_eq!(dropped("b a", "a b").as_deref(), Some("a"));
    }
}

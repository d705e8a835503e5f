//! Whether a template wrote what a message says. White space is the template's own, and so are the tags around a thought.

use crate::Message;

/// What begins a thought, and ends it.
pub(crate) const THOUGHT: &str = "<think>";
pub(crate) const THOUGHT_END: &str = "</think>";
const TAGS: [&str; 2] = [THOUGHT, THOUGHT_END];
/// Most characters of lost words that an error shows.
const SHOWN: usize = 80;

/// What `written` lacks of what a message says (its thought, its content, the names of the tools it calls, the words of each in order),
/// if it lacks any: the first words that are missing.
pub(crate) fn lost(written: &str, message: &Message) -> Option<String> {
    // Nearly always it is there as it stands.
    let only_content = message.reasoning().is_none() && message.called().is_empty();
    let content = message.content.trim();
    if only_content && (written.trim_start().starts_with(content) || written.contains(content)) {
        return None;
    }
    let written = bare(written);
    // A thought may stand in both, and is written once.
    for said in [message.reasoning().unwrap_or_default(), &message.content].map(without_tags) {
        let missing = missing(&written, said.split_whitespace());
        if missing.is_some() && !written.contains(&bare(&said)) {
            return missing;
        }
    }
    missing(&written, message.called().into_iter())
}

/// Whether a message says nothing: neither words nor calls of tools.
pub(crate) fn is_empty(message: &Message) -> bool {
    let silent = |text: &str| text.trim().is_empty();
    let content = &message.content;
    let says_nothing =
        silent(content) || content.contains(TAGS[0]) && silent(&without_tags(content));
    says_nothing && message.called().is_empty()
}

/// The words from the first one on that is not found after those before it, up to the next one that is.
fn missing<'a>(written: &str, words: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut rest = written;
    let mut missing: Vec<&str> = vec![];
    for word in words {
        match rest.find(&bare(word)) {
            Some(at) if missing.is_empty() => rest = &rest[at + bare(word).len()..],
            Some(_) => break,
            None => missing.push(word),
        }
    }
    let missing = missing.join(" ");
    let shown: String = missing.chars().take(SHOWN).collect();
    match shown.len() {
        0 => None,
        length if length < missing.len() => Some(shown + " …"),
        _ => Some(shown),
    }
}

fn without_tags(text: &str) -> String {
    TAGS.iter().fold(text.to_owned(), |text, tag| text.replace(tag, " "))
}

/// A text without white space and tags.
fn bare(text: &str) -> String {
    without_tags(text).split_whitespace().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_found_in_order_and_white_space_does_not_count() {
        let said = |content: &str, written: &str| lost(written, &Message::assistant(content));
        assert_eq!(said(" a\n b ", "xa  b</s>"), None);
        assert_eq!(said("<think>\nhm\n</think>\n\nb", "hm</think>b"), None);
        assert_eq!(said("", ""), None);
        assert_eq!(
            said("<think>2 and 3: 5.</think>7", "7<|im_end|>").as_deref(),
            Some("2 and 3: 5.")
        );
        assert_eq!(said("one two two", "one two<|im_end|>").as_deref(), Some("two"));
        assert_eq!(said("b a", "a b").as_deref(), Some("a"));
    }
}

//! Conversations in one string, as in Anthropic's hh-rlhf: turns start with `\n\nHuman:` and
//! `\n\nAssistant:`.

use crate::Message;

const SPEAKERS: [(&str, &str); 2] = [("Human:", "user"), ("Assistant:", "assistant")];

/// The messages of a transcript; `None` if `text` is not one.
///
/// A transcript starts with the human, and has a blank line before each turn. A last, empty turn
/// of the assistant marks where to answer and is dropped.
pub(super) fn parse_transcript(text: &str) -> Option<Vec<Message>> {
    let text = text.trim_start();
    if !text.starts_with(SPEAKERS[0].0) {
        return None;
    }
    let mut messages: Vec<Message> = vec![];
    for paragraph in text.split("\n\n") {
        let turn = SPEAKERS.iter().find_map(|(speaker, role)| {
            paragraph.strip_prefix(speaker).map(|content| (role, content))
        });
        match (turn, messages.last_mut()) {
            (Some((role, content)), _) => messages.push(Message::new(role, content)),
            (None, Some(last)) => last.content = format!("{}\n\n{paragraph}", last.content),
            (None, None) => return None,
        }
    }
    for message in &mut messages {
        message.content = message.content.trim().to_owned();
    }
    if messages.last().is_some_and(|last| last.is_assistant() && last.content.is_empty()) {
        messages.pop();
    }
    (messages.len() > 1 || text.contains("\n\nAssistant:")).then_some(messages)
}

//! Conversations written as one string, as Anthropic's hh-rlhf has them: turns that begin with `\n\nHuman:` and
//! `\n\nAssistant:`.

use crate::Message;

const SPEAKERS: [(&str, &str); 2] = [("Human:", "user"), ("Assistant:", "assistant")];

/// The messages of a transcript; a last turn of the assistant's without words is where it is to answer, and is left
/// out. Nothing where a text is no transcript: it begins with the human, and turns are told by blank lines before
/// them.
pub(super) fn transcript(text: &str) -> Option<Vec<Message>> {
    let text = text.trim_start();
    if !text.starts_with(SPEAKERS[0].0) {
        return None;
    }
    let mut messages: Vec<Message> = vec![];
    for paragraph in text.split("\n\n") {
        let turn = SPEAKERS
            .iter()
            .find_map(|(speaker, role)| paragraph.strip_prefix(speaker).map(|words| (role, words)));
        match (turn, messages.last_mut()) {
            (Some((role, words)), _) => messages.push(Message::new(role, words)),
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

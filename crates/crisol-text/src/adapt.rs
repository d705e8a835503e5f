//! Messages in the form that a template supports. Templates expect content, thoughts and the
//! arguments of tool calls in several forms.

use std::borrow::Cow;

use crate::dropped_text::{RESPONSE_START, THOUGHT_START, common_prefix, first_dropped};
use crate::{ChatTemplate, Message, TextError};

impl ChatTemplate {
    /// The messages in a form that the template supports.
    ///
    /// Content in parts stays a list if the template renders all of its text, and becomes one
    /// string otherwise. Tool arguments become JSON text if the template needs it. Thoughts become
    /// a part of the content if the template ignores them elsewhere.
    pub(crate) fn adapt_messages<'m>(
        &self,
        messages: &'m [Message],
    ) -> Result<Cow<'m, [Message]>, TextError> {
        if !self.needs_arguments_as_text(messages) {
            return Ok(self.adapt_thoughts(self.adapt_parts(messages)?));
        }
        let messages: Vec<Message> = messages.iter().map(Message::with_arguments_as_text).collect();
        let adapted = self.adapt_thoughts(self.adapt_parts(&messages)?);
        Ok(Cow::Owned(adapted.into_owned()))
    }

    /// Messages with thoughts in the form that the template renders: a field of their own, a part
    /// of the content (Mistral's), or tags in the content, around the thought or around thought and
    /// answer (Granite 3.3's). The first form that loses nothing, if any.
    fn adapt_thoughts<'m>(&self, messages: Cow<'m, [Message]>) -> Cow<'m, [Message]> {
        type Form = fn(&Message) -> Message;
        let forms: [(&str, Form); 3] = [
            ("thinking", Message::with_thought_as_part),
            (RESPONSE_START, Message::with_thought_and_response),
            (THOUGHT_START, Message::with_thought_in_content),
        ];
        // Words of a system prompt are not looked at.
        let loses = |message: &Message, form: &Message| {
            let question = [Message::user("a")];
            let answered = [question[0].clone(), form.clone()];
            match (self.render(&question, false), self.render(&answered, false)) {
                (Ok(question), Ok(answered)) => {
                    let answer = &answered[common_prefix(&question, &answered)..];
                    // A template that knows no parts may print them.
                    let printed = ["'type': 'thinking'", "\"type\": \"thinking\""];
                    first_dropped(answer, message).is_some()
                        || printed.iter().any(|part| answer.contains(part))
                }
                _ => true,
            }
        };
        let adapted = |message: &Message| {
            if !message.is_assistant() || message.reasoning().is_none() || !loses(message, message)
            {
                return None;
            }
            let forms = forms.iter().filter(|(word, _)| self.mentions(word));
            forms.map(|(_, form)| form(message)).find(|form| !loses(message, form))
        };
        let all: Vec<Option<Message>> = messages.iter().map(adapted).collect();
        if all.iter().all(Option::is_none) {
            return messages;
        }
        let chosen = messages.iter().zip(all);
        Cow::Owned(chosen.map(|(message, form)| form.unwrap_or_else(|| message.clone())).collect())
    }

    /// Whether the template concatenates tool arguments with text, as `DeepSeek`'s do. Then they
    /// must be JSON text, not an object.
    fn needs_arguments_as_text(&self, messages: &[Message]) -> bool {
        let arguments: Vec<String> = messages.iter().flat_map(Message::arguments_as_text).collect();
        if arguments.is_empty() {
            return false;
        }
        let objects: Vec<Message> = messages.iter().map(Message::with_joined_parts).collect();
        let strings: Vec<Message> = objects.iter().map(Message::with_arguments_as_text).collect();
        let contains_all = |text: &String| arguments.iter().all(|json| text.contains(json));
        let as_objects = self.render(&objects, false);
        !as_objects.is_ok_and(|text| contains_all(&text))
            && self.render(&strings, false).is_ok_and(|text| contains_all(&text))
    }

    fn adapt_parts<'m>(&self, messages: &'m [Message]) -> Result<Cow<'m, [Message]>, TextError> {
        if !messages.iter().any(Message::has_parts) {
            return Ok(Cow::Borrowed(messages));
        }
        let joined: Vec<Message> = messages.iter().map(Message::with_joined_parts).collect();
        let (as_parts, as_strings) = (self.render(messages, false), self.render(&joined, false));
        let parts = || messages.iter().enumerate().filter(|(_, message)| message.has_parts());
        // A template that prints the list itself writes the key `type` of each part.
        let printed_keys =
            |text: &str| text.matches("\"type\"").count() + text.matches("'type'").count();
        if let Ok(text) = &as_parts {
            let complete = parts().all(|(_, message)| first_dropped(text, message).is_none());
            let prints_list = |string: &String| printed_keys(text) > printed_keys(string);
            if complete && !as_strings.as_ref().is_ok_and(prints_list) {
                return Ok(Cow::Borrowed(messages));
            }
        }
        let text = as_strings?;
        // Assistant messages are checked when trained, because earlier thoughts may be dropped.
        let missing = parts()
            .filter(|(_, message)| !message.is_assistant())
            .find_map(|(i, message)| Some((i, message, first_dropped(&text, message)?)));
        match missing {
            Some((i, message, words)) => {
                Err(TextError::DroppedText { message: i, role: message.role.clone(), words })
            }
            None => Ok(Cow::Owned(joined)),
        }
    }
}

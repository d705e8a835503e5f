//! Preference pairs: TRL's `prompt`/`chosen`/`rejected`, with or without prompt, as text or
//! messages, and OpenAI's `preferred_output`/`non_preferred_output`.

use serde_json::Value;

use super::RowFields;
use super::fields::parse_json_string;
use super::transcript::parse_transcript;
use crate::message::drop_nulls;
use crate::records::{Body, Turns};
use crate::{Message, TextError};

impl RowFields<'_> {
    /// OpenAI's format: `input` with the conversation, and two outputs.
    pub(super) fn openai_preference(&mut self) -> Result<Body, TextError> {
        let Some(Value::Object(mut input)) =
            self.object.shift_remove("input").map(parse_json_string)
        else {
            return Err(self.field_error(
                "input",
                "is not an object",
                "make it {\"messages\": […]}",
            ));
        };
        drop_nulls(&mut input);
        for (key, value) in input {
            // `tools` and other options are in `input` too.
            self.object.entry(key).or_insert(value);
        }
        let prompt = Turns::Chat(self.messages("messages")?);
        let chosen = Turns::Chat(self.messages("preferred_output")?);
        let rejected = Turns::Chat(self.messages("non_preferred_output")?);
        self.pair(prompt, chosen, rejected)
    }

    /// The pair, unless both answers are equal.
    fn pair(&self, prompt: Turns, chosen: Turns, rejected: Turns) -> Result<Body, TextError> {
        if chosen == rejected {
            return Err(TextError::EqualAnswers { location: self.location.to_owned() });
        }
        Ok(Body::Preference { prompt, chosen, rejected })
    }

    /// `chosen` and `rejected`, with or without `prompt`.
    pub(super) fn preference(&mut self) -> Result<Body, TextError> {
        let prompt = self.prompt()?;
        let (chosen, rejected) = (self.turns("chosen")?, self.turns("rejected")?);
        match (prompt, chosen, rejected) {
            (_, Turns::Plain(_), Turns::Chat(_)) | (_, Turns::Chat(_), Turns::Plain(_)) => {
                let cause = "is a string, but `rejected` is a list of messages, or the reverse";
                Err(self.field_error("chosen", cause, "use one form for both"))
            }
            (None, Turns::Plain(chosen), Turns::Plain(rejected)) => {
                if let (Some(chosen), Some(rejected)) =
                    (parse_transcript(&chosen), parse_transcript(&rejected))
                {
                    return self.without_prompt(&chosen, &rejected);
                }
                let shared = shared_prefix(&chosen, &rejected);
                let plain = |text: &str| Turns::Plain(text.to_owned());
                self.pair(
                    plain(&chosen[..shared]),
                    plain(&chosen[shared..]),
                    plain(&rejected[shared..]),
                )
            }
            (None, Turns::Chat(chosen), Turns::Chat(rejected)) => {
                self.without_prompt(&chosen, &rejected)
            }
            // UltraFeedback: the answers repeat the prompt.
            (Some(prompt), Turns::Chat(chosen), Turns::Chat(rejected))
                if !chosen[0].is_assistant() && chosen.first() == rejected.first() =>
            {
                let repeats_prompt = match &prompt {
                    Turns::Plain(text) => chosen.iter().any(|message| {
                        message.role == "user" && message.content.trim() == text.trim()
                    }),
                    Turns::Chat(messages) => {
                        chosen.starts_with(messages) && rejected.starts_with(messages)
                    }
                };
                if !repeats_prompt {
                    return Err(self.field_error(
                        "prompt",
                        "differs from the messages with which `chosen` and `rejected` begin",
                        "remove the prompt, or the messages before the answers",
                    ));
                }
                self.without_prompt(&chosen, &rejected)
            }
            (Some(Turns::Plain(prompt)), Turns::Plain(chosen), Turns::Plain(rejected)) => {
                if let (Some(p), Some(c), Some(r)) = (
                    parse_transcript(&prompt),
                    parse_transcript(&chosen),
                    parse_transcript(&rejected),
                ) {
                    return if c.starts_with(&p) && r.starts_with(&p) {
                        self.without_prompt(&c, &r)
                    } else {
                        self.pair(Turns::Chat(p), Turns::Chat(c), Turns::Chat(r))
                    };
                }
                let prompt = match parse_transcript(&prompt) {
                    Some(messages) if messages.last().is_some_and(|last| !last.is_assistant()) => {
                        Turns::Chat(messages)
                    }
                    _ => Turns::Plain(prompt),
                };
                let answer = |text: String| match prompt {
                    Turns::Chat(_) => Turns::Plain(text.trim().to_owned()),
                    Turns::Plain(_) => Turns::Plain(text),
                };
                let (chosen, rejected) = (answer(chosen), answer(rejected));
                self.pair(prompt, chosen, rejected)
            }
            (Some(prompt), chosen, rejected) => self.pair(prompt, chosen, rejected),
        }
    }

    /// Two conversations, whose common first messages are the prompt.
    fn without_prompt(&self, chosen: &[Message], rejected: &[Message]) -> Result<Body, TextError> {
        if chosen == rejected {
            return Err(TextError::EqualAnswers { location: self.location.to_owned() });
        }
        let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
        let error =
            |cause| Err(self.field_error("chosen", cause, "give a `prompt` and two answers to it"));
        if shared == 0 {
            return error("has no first message in common with `rejected`");
        }
        if shared == chosen.len().min(rejected.len()) {
            return error("or `rejected` is only the beginning of the other");
        }
        let chat = |messages: &[Message]| Turns::Chat(messages.to_vec());
        self.pair(chat(&chosen[..shared]), chat(&chosen[shared..]), chat(&rejected[shared..]))
    }
}

/// Bytes of the prompt of two texts: their common prefix, up to its last whole word.
fn shared_prefix(a: &str, b: &str) -> usize {
    let common: usize =
        a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    a[..common].rfind(char::is_whitespace).unwrap_or(0)
}

//! Records: the rows of data files, independent of their format.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::dataset::{JsonRows, ReadOptions};
use crate::shapes::to_record;
use crate::{Message, TextError};

/// One record of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// `file:line` in JSONL, `file: record N` elsewhere; both count from 1.
    pub location: String,
    /// The content, by shape.
    pub body: Body,
    /// Tools that the assistant may call, as JSON schemas (`tools`).
    pub tools: Vec<Value>,
    /// Chat template variables (`chat_template_kwargs`), such as `enable_thinking`.
    pub arguments: Map<String, Value>,
    /// Other string fields, such as `kind`.
    pub extra: BTreeMap<String, String>,
    /// Names of the non-empty fields that nothing reads.
    pub unused: Vec<String>,
}

/// The content of a record, by its shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Body {
    /// `text`: raw text, all of it trained.
    Text {
        /// The text.
        text: String,
    },
    /// `messages`: a conversation; the assistant's turns are trained.
    Chat {
        /// The conversation.
        messages: Vec<Message>,
    },
    /// `prompt`, `completion`: only the completion is trained.
    Completion {
        /// The prompt.
        prompt: Turns,
        /// The completion to train on.
        completion: Turns,
    },
    /// `prompt`, `chosen`, `rejected`: a preference pair.
    Preference {
        /// The prompt; without a `prompt` field, the common prefix of both answers.
        prompt: Turns,
        /// The better answer.
        chosen: Turns,
        /// The worse answer.
        rejected: Turns,
    },
    /// `prompt`, `answer`: a problem with a verifiable answer.
    Problem {
        /// The problem.
        prompt: Turns,
        /// The right answer; a number is kept as written.
        answer: String,
        /// A worked solution, for supervised fine-tuning.
        solution: Option<Turns>,
    },
    /// `prompt`, `completion`, `label`: a completion rated good or bad (KTO).
    Rated {
        /// The prompt.
        prompt: Turns,
        /// The rated completion.
        completion: Turns,
        /// The label.
        good: bool,
    },
    /// `prompt` alone: to be answered by sampling (rollouts, evaluations).
    Prompt {
        /// The prompt.
        prompt: Turns,
    },
}

impl Body {
    /// The trained messages: the assistant's unmasked turns of a conversation, or of its answers.
    pub(crate) fn trained_messages(&self) -> Vec<&Message> {
        let answers: Vec<&Turns> = match self {
            Body::Chat { messages } => {
                return messages.iter().filter(|message| message.is_trained()).collect();
            }
            Body::Completion { completion: answer, .. }
            | Body::Rated { completion: answer, .. } => {
                vec![answer]
            }
            Body::Preference { chosen, rejected, .. } => vec![chosen, rejected],
            Body::Problem { solution, .. } => solution.iter().collect(),
            Body::Text { .. } | Body::Prompt { .. } => vec![],
        };
        let messages = answers.into_iter().flat_map(|turns| match turns {
            Turns::Plain(_) => &[],
            Turns::Chat(messages) => messages.as_slice(),
        });
        messages.filter(|message| message.is_trained()).collect()
    }

    /// The messages before the last answer.
    pub(crate) fn context(&self) -> &[Message] {
        let prompt = match self {
            Self::Chat { messages } => {
                let last = messages.iter().rposition(Message::is_trained);
                return &messages[..last.unwrap_or(messages.len())];
            }
            Self::Completion { prompt, .. }
            | Self::Rated { prompt, .. }
            | Self::Preference { prompt, .. }
            | Self::Problem { prompt, .. }
            | Self::Prompt { prompt } => prompt,
            Self::Text { .. } => return &[],
        };
        match prompt {
            Turns::Plain(_) => &[],
            Turns::Chat(messages) => messages,
        }
    }

    /// The shape's name in messages to the user.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Chat { .. } => "messages",
            Self::Completion { .. } => "prompt/completion",
            Self::Preference { .. } => "prompt/chosen/rejected",
            Self::Problem { .. } => "prompt/answer",
            Self::Rated { .. } => "prompt/completion/label",
            Self::Prompt { .. } => "prompt",
        }
    }
}

/// A field that may be a string or a list of messages.
///
/// If only one of prompt and answer is a list, the string becomes one message: a prompt the
/// user's, an answer the assistant's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Turns {
    /// Raw text.
    Plain(String),
    /// Messages, rendered by the chat template.
    Chat(Vec<Message>),
}

impl Record {
    /// The optional `kind`, by which evaluations group records.
    pub fn kind(&self) -> Option<&str> {
        self.extra.get("kind").map(String::as_str)
    }
}

/// Parses JSON records in memory. `name` is the file's name in messages.
pub fn parse_jsonl(name: &str, text: &str) -> Result<Vec<Record>, TextError> {
    let records: Vec<_> = jsonl_records(name, text.as_bytes()).collect::<Result<_, _>>()?;
    if records.is_empty() {
        return Err(TextError::NoRecords { file: name.to_owned() });
    }
    Ok(records)
}

/// Parses JSON records in memory one by one, with a result for each.
pub fn jsonl_records<'b>(
    name: &str,
    bytes: &'b [u8],
) -> impl Iterator<Item = Result<Record, TextError>> + Send + use<'b> {
    let options = ReadOptions::default();
    JsonRows::new(name, bytes)
        .map(move |row| row.and_then(|row| to_record(row.location, row.object, &options)))
}

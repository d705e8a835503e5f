//! Records: what the rows of data files hold, whatever format they came in.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::dataset::{JsonRows, ReadOptions};
use crate::shapes::record;
use crate::{Message, TextError};

/// One record of a data file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands: `file:line` in JSONL, elsewhere `file: record N`; both are counted from 1.
    pub place: String,
    /// What it holds.
    pub body: Body,
    /// The tools that the assistant may call in it, as JSON schemas (`tools`).
    pub tools: Vec<Value>,
    /// Variables for the chat template (`chat_template_kwargs`), such as `enable_thinking`.
    pub arguments: Map<String, Value>,
    /// The other fields that are strings, such as `kind`.
    pub extra: BTreeMap<String, String>,
    /// The names of the fields that hold something and that nothing reads.
    pub unused: Vec<String>,
}

/// What a record holds, by its shape.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Body {
    /// `text`: raw text, all of it trained.
    Text {
        /// The text.
        text: String,
    },
    /// `messages`: a conversation, of which the assistant's turns are trained.
    Chat {
        /// The conversation.
        messages: Vec<Message>,
    },
    /// `prompt`, `completion`: only the completion is trained.
    Completion {
        /// What is given.
        prompt: Turns,
        /// What is to be said.
        completion: Turns,
    },
    /// `prompt`, `chosen`, `rejected`: two answers to one prompt, the first of which is better.
    Preference {
        /// What is given; taken from the beginning that both answers share where the record has no `prompt`.
        prompt: Turns,
        /// The better answer.
        chosen: Turns,
        /// The worse answer.
        rejected: Turns,
    },
    /// `prompt`, `answer`: a problem whose answer can be verified.
    Problem {
        /// The problem.
        prompt: Turns,
        /// The right answer; a number in the file is kept as it is written.
        answer: String,
        /// A worked solution, which supervised fine-tuning imitates.
        solution: Option<Turns>,
    },
    /// `prompt`, `completion`, `label`: an answer that was found good or bad (KTO's rows).
    Rated {
        /// What is given.
        prompt: Turns,
        /// What was said.
        completion: Turns,
        /// Whether it was found good.
        good: bool,
    },
    /// `prompt` alone: something to be answered by sampling (rollouts, evaluations).
    Prompt {
        /// What is given.
        prompt: Turns,
    },
}

impl Body {
    /// The messages that are trained: the assistant's turns of a conversation, or those of the answers.
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

    /// The shape's name, as messages to the user call it.
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

/// A field that may be a plain string or a list of messages. A plain field beside one of messages stands for one
/// message: a prompt is the user's, an answer the assistant's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Turns {
    /// Plain text, used as it is.
    Plain(String),
    /// Messages, which the chat template renders.
    Chat(Vec<Message>),
}

impl Record {
    /// The free `kind` of a record, by which evaluations group them.
    pub fn kind(&self) -> Option<&str> {
        self.extra.get("kind").map(String::as_str)
    }
}

/// Parses JSON records that are already in memory; `name` stands for the file in messages.
pub fn parse_jsonl(name: &str, text: &str) -> Result<Vec<Record>, TextError> {
    parse_jsonl_lines(name, text.as_bytes())?.into_iter().collect()
}

/// Parses JSON records that are already in memory, keeping each record's own error.
pub fn parse_jsonl_lines(
    name: &str,
    bytes: &[u8],
) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let options = ReadOptions::default();
    let records: Vec<_> = JsonRows::new(name, bytes)
        .map(|row| row.and_then(|row| record(row.place, row.object, &options)))
        .collect();
    if records.is_empty() {
        return Err(TextError::NoRecords { file: name.to_owned() });
    }
    Ok(records)
}

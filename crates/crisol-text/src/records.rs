//! Dataset files: JSONL, one record per line, in the shapes that the field uses.
//!
//! A record's shape is told by its keys alone. Whatever is wrong with a line is said with the file, the line and the
//! remedy, and nothing is ever skipped silently except blank lines.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Map, Value};

use crate::message::kind_of;
use crate::{Message, TextError};

/// One line of a dataset file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Where it stands: `file:line`, lines counted from 1.
    pub place: String,
    /// What it holds.
    pub body: Body,
    /// The tools that the assistant may call in it, as JSON schemas (`tools`).
    pub tools: Vec<Value>,
    /// Variables for the chat template (`chat_template_kwargs`), such as `enable_thinking`.
    pub arguments: Map<String, Value>,
    /// The other fields that are strings, such as `kind`.
    pub extra: BTreeMap<String, String>,
    /// The names of the fields that nothing reads.
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
    },
    /// `prompt` alone: something to be answered by sampling (rollouts, evaluations).
    Prompt {
        /// What is given.
        prompt: Turns,
    },
}

impl Body {
    /// The shape's name, as messages to the user call it.
    pub fn shape(&self) -> &'static str {
        match self {
            Self::Text { .. } => "text",
            Self::Chat { .. } => "messages",
            Self::Completion { .. } => "prompt/completion",
            Self::Preference { .. } => "prompt/chosen/rejected",
            Self::Problem { .. } => "prompt/answer",
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

/// Reads a JSONL file; the first line that is wrong is the error.
pub fn read_jsonl(path: impl AsRef<Path>) -> Result<Vec<Record>, TextError> {
    read_jsonl_lines(path)?.into_iter().collect()
}

/// Reads a JSONL file, keeping each line's own error.
pub fn read_jsonl_lines(path: impl AsRef<Path>) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let path = path.as_ref();
    let bytes = fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    parse_jsonl_lines(&path.display().to_string(), &bytes)
}

/// Parses JSONL that is already in memory; `name` stands for the file in messages.
pub fn parse_jsonl(name: &str, text: &str) -> Result<Vec<Record>, TextError> {
    parse_jsonl_lines(name, text.as_bytes())?.into_iter().collect()
}

/// Parses JSONL that is already in memory, keeping each line's own error.
pub fn parse_jsonl_lines(name: &str, bytes: &[u8]) -> Result<Vec<Result<Record, TextError>>, TextError> {
    let bytes = bytes.strip_prefix("\u{FEFF}".as_bytes()).unwrap_or(bytes);
    let records: Vec<_> = bytes
        .split(|&b| b == b'\n')
        .enumerate()
        .filter(|(_, line)| !line.trim_ascii().is_empty())
        .map(|(i, line)| parse_line(format!("{name}:{}", i + 1), line))
        .collect();
    if records.is_empty() {
        return Err(TextError::NoRecords { file: name.to_owned() });
    }
    Ok(records)
}

fn parse_line(place: String, line: &[u8]) -> Result<Record, TextError> {
    let malformed = |cause: String| TextError::Malformed { place: place.clone(), cause };
    let text = str::from_utf8(line)
        .map_err(|e| malformed(format!("invalid UTF-8 at byte {} of the line", e.valid_up_to() + 1)))?;
    if text.trim() == "[" {
        let cause = "the file is one JSON list over many lines, not JSONL; `jq -c '.[]' FILE` converts it";
        return Err(malformed(cause.to_owned()));
    }
    let value: Value = serde_json::from_str(text).map_err(|e| {
        // serde_json counts lines within the text that it was given, which is always line 1 here.
        let cause = e.to_string();
        let cause = cause.split(" at line ").next().unwrap_or_default();
        malformed(format!("not JSON: {cause} at column {}", e.column()))
    })?;
    let Value::Object(object) = value else {
        return Err(malformed("JSON, but not an object".to_owned()));
    };
    let mut fields = Fields { place: &place, object };
    let body = fields.body()?;
    let tools = fields.tools()?;
    let extra = fields
        .object
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) => Some((key, text)),
            _ => None,
        })
        .collect();
    Ok(Record { place, body, tools, arguments: Map::new(), extra, unused: vec![] })
}

/// The fields of one line that no shape has taken yet.
struct Fields<'a> {
    place: &'a str,
    object: Map<String, Value>,
}

impl Fields<'_> {
    fn body(&mut self) -> Result<Body, TextError> {
        let has = |key: &str| self.object.contains_key(key);
        if has("messages") {
            Ok(Body::Chat { messages: self.messages("messages")? })
        } else if has("chosen") && has("rejected") {
            self.preference()
        } else if has("prompt") && has("completion") {
            Ok(Body::Completion { prompt: self.turns("prompt")?, completion: self.turns("completion")? })
        } else if has("prompt") && has("answer") {
            Ok(Body::Problem { prompt: self.turns("prompt")?, answer: self.string("answer")? })
        } else if has("prompt") {
            Ok(Body::Prompt { prompt: self.turns("prompt")? })
        } else if has("text") {
            let text = self.string("text")?;
            if text.is_empty() {
                return Err(self.nothing("its text is empty"));
            }
            Ok(Body::Text { text })
        } else {
            let found: Vec<_> = self.object.keys().map(|key| format!("`{key}`")).collect();
            let found = if found.is_empty() { "(none)".to_owned() } else { found.join(", ") };
            Err(TextError::UnknownShape { place: self.place.to_owned(), found })
        }
    }

    fn preference(&mut self) -> Result<Body, TextError> {
        let prompt = self.object.contains_key("prompt").then(|| self.turns("prompt")).transpose()?;
        let (chosen, rejected) = (self.turns("chosen")?, self.turns("rejected")?);
        if chosen == rejected {
            return Err(self.wrong("rejected", "is the same as `chosen`", "remove the record"));
        }
        let (prompt, chosen, rejected) = match (prompt, chosen, rejected) {
            (_, Turns::Plain(_), Turns::Chat(_)) | (_, Turns::Chat(_), Turns::Plain(_)) => {
                let cause = "is a plain string and the other answer a list of messages";
                return Err(self.wrong("chosen", cause, "use one form for both"));
            }
            (Some(prompt), chosen, rejected) => (prompt, chosen, rejected),
            (None, Turns::Plain(chosen), Turns::Plain(rejected)) => {
                let shared = shared_text(&chosen, &rejected);
                let plain = |text: &str| Turns::Plain(text.to_owned());
                (plain(&chosen[..shared]), plain(&chosen[shared..]), plain(&rejected[shared..]))
            }
            (None, Turns::Chat(chosen), Turns::Chat(rejected)) => {
                let shared = chosen.iter().zip(&rejected).take_while(|(a, b)| a == b).count();
                let empty = |cause| Err(self.wrong("chosen", cause, "give a `prompt` and two answers to it"));
                if shared == 0 {
                    return empty("shares no first message with `rejected`");
                }
                if shared == chosen.len().min(rejected.len()) {
                    return empty("or `rejected` is only the beginning of the other");
                }
                let chat = |messages: &[Message]| Turns::Chat(messages.to_vec());
                (chat(&chosen[..shared]), chat(&chosen[shared..]), chat(&rejected[shared..]))
            }
        };
        Ok(Body::Preference { prompt, chosen, rejected })
    }

    fn turns(&mut self, field: &str) -> Result<Turns, TextError> {
        match self.object.get(field) {
            Some(Value::Array(_)) => self.messages(field).map(Turns::Chat),
            _ => self.string(field).map(Turns::Plain),
        }
    }

    fn string(&mut self, field: &str) -> Result<String, TextError> {
        match self.object.shift_remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Number(number)) if field == "answer" => Ok(number.to_string()),
            other => Err(self.wrong(field, &format!("is {}", kind_of(other.as_ref())), "make it a string")),
        }
    }

    fn messages(&mut self, field: &str) -> Result<Vec<Message>, TextError> {
        let remedy = "make it a list of {\"role\": …, \"content\": …}";
        let list = match self.object.shift_remove(field) {
            Some(Value::Array(list)) => list,
            other => return Err(self.wrong(field, &format!("is {}", kind_of(other.as_ref())), remedy)),
        };
        if list.is_empty() {
            return Err(self.nothing(&format!("`{field}` is empty")));
        }
        let message = |(i, message): (usize, &Value)| {
            Message::from_json(message).map_err(|(cause, remedy)| {
                self.wrong(field, &format!("has message {i} (from 0), {cause}"), remedy)
            })
        };
        list.iter().enumerate().map(message).collect()
    }

    /// The tools of a record: a list of JSON schemas, or the same as a string (columns of tables hold strings).
    fn tools(&mut self) -> Result<Vec<Value>, TextError> {
        let remedy = "make it a list of JSON schemas, as transformers' `tools`";
        let tools = match self.object.shift_remove("tools") {
            None | Some(Value::Null) => return Ok(vec![]),
            Some(Value::String(text)) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            Some(tools) => tools,
        };
        match tools {
            Value::Array(tools) if tools.iter().all(Value::is_object) => Ok(tools),
            Value::Array(_) => Err(self.wrong("tools", "holds what is no object", remedy)),
            other => Err(self.wrong("tools", &format!("is {}", kind_of(Some(&other))), remedy)),
        }
    }

    fn wrong(&self, field: &str, cause: &str, remedy: &str) -> TextError {
        TextError::Field {
            place: self.place.to_owned(),
            field: field.to_owned(),
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    fn nothing(&self, cause: &str) -> TextError {
        TextError::TrainsNothing { place: self.place.to_owned(), cause: cause.to_owned() }
    }
}

/// How many bytes of two plain texts are their prompt: the beginning that they share, up to its last
/// `\n\nAssistant:` (Anthropic's hh-rlhf) or, without one, to the end of its last whole word.
fn shared_text(a: &str, b: &str) -> usize {
    let same: usize = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    let shared = &a[..same];
    let turn = "\n\nAssistant:";
    match shared.rfind(turn) {
        Some(at) => at + turn.len(),
        None => shared.rfind(char::is_whitespace).unwrap_or(0),
    }
}

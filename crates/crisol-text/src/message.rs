//! Messages of a conversation, as data files write them and as templates see them.

use minijinja::Value as Variable;
use minijinja::value::Serde;
use serde_json::{Map, Value};

const ASSISTANT: &str = "assistant";
/// The names under which models' makers write what an assistant thinks before it answers; the first is what templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, `tool`, or what else the template knows.
    pub role: String,
    /// What is said; of content in parts, the texts one after the other.
    pub content: String,
    /// Whether the data asks that this turn is not trained (`weight: 0`, `train: false`, …).
    pub masked: bool,
    /// The message as it was written, where it says more than role and content, or its content otherwise than as a string
    /// (`tool_calls`, `name`, parts); otherwise empty.
    written: Map<String, Value>,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), masked: false, written: Map::new() }
    }

    /// A message of the user's.
    pub fn user(content: &str) -> Self {
        Self::new("user", content)
    }

    /// A message of the assistant's.
    pub fn assistant(content: &str) -> Self {
        Self::new(ASSISTANT, content)
    }

    /// Whether the assistant speaks, whose words are what is trained.
    pub fn is_assistant(&self) -> bool {
        self.role == ASSISTANT
    }

    /// Whether its words are trained where all of the assistant's are.
    pub fn is_trained(&self) -> bool {
        self.is_assistant() && !self.masked
    }

    /// A message as data files write it, with `role`, `content` (a string, or a list of `{"type": "text", "text": …}`), and
    /// whatever else the template reads. The error is what is wrong with it, and the remedy.
    pub(crate) fn from_json(message: &Value) -> Result<Self, (String, &'static str)> {
        let kind = |key: &str| kind_of(message.get(key));
        let Some(written) = message.as_object() else {
            return Err((
                format!("which is {}", kind_of(Some(message))),
                "make it an object with `role` and `content`",
            ));
        };
        let Some(role) = written.get("role").and_then(Value::as_str) else {
            let remedy = "every message needs `role` and `content`, both strings";
            return Err((format!("whose `role` is {}", kind("role")), remedy));
        };
        let content = match written.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<_, _>>()?,
            // What an assistant that calls tools says.
            None | Some(Value::Null) if written.get("tool_calls").is_some_and(|calls| !calls.is_null()) => {
                String::new()
            }
            _ => {
                let remedy = "every message needs `role` and `content`, both strings (or a list of parts of text as content)";
                return Err((format!("whose `content` is {}", kind("content")), remedy));
            }
        };
        // As transformers does: tables have a null in every row that has nothing, and templates look for keys.
        let mut written = written.clone();
        written.retain(|_, value| !value.is_null());
        if written.len() == 2 && written.get("content").is_some_and(Value::is_string) {
            written.clear();
        }
        Ok(Self { role: role.to_owned(), content, masked: false, written })
    }

    /// The message as a template sees it.
    pub(crate) fn variable(&self) -> Variable {
        if self.written.is_empty() {
            return Variable::from_pairs([("role", self.role.as_str()), ("content", self.content.as_str())]);
        }
        let mut message = self.written.clone();
        // As transformers does: whichever name the data has, templates find the standard one.
        let reasoning =
            REASONING.into_iter().filter_map(|key| self.written.get(key)).find(|value| !value.is_null());
        if let Some(reasoning) = reasoning {
            message.insert(REASONING[0].to_owned(), reasoning.clone());
            message.entry(REASONING[1]).or_insert(reasoning.clone());
        }
        Variable::from(Serde(message))
    }

    /// Whether a character occurs in it.
    pub(crate) fn contains(&self, c: char) -> bool {
        self.role.contains(c)
            || self.content.contains(c)
            || self.written.iter().any(|(key, value)| key.contains(c) || value_contains(value, c))
    }
}

/// The text of one part of a content.
fn part(part: &Value) -> Result<&str, (String, &'static str)> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        (Some(other), _) if other != "text" => {
            Err((format!("whose `content` has a part of type {other:?}"), "this program reads text only"))
        }
        _ => Err((
            "whose `content` has a part without text".to_owned(),
            "make each part {\"type\": \"text\", \"text\": …}",
        )),
    }
}

/// Whether a character occurs in a JSON value.
pub(crate) fn value_contains(value: &Value, c: char) -> bool {
    match value {
        Value::String(text) => text.contains(c),
        Value::Array(list) => list.iter().any(|value| value_contains(value, c)),
        Value::Object(object) => {
            object.iter().any(|(key, value)| key.contains(c) || value_contains(value, c))
        }
        _ => false,
    }
}

/// What a JSON value is, in words.
pub(crate) fn kind_of(value: Option<&Value>) -> &'static str {
    match value {
        None => "missing",
        Some(Value::Null) => "null",
        Some(Value::Bool(_)) => "a boolean",
        Some(Value::Number(_)) => "a number",
        Some(Value::String(_)) => "a string",
        Some(Value::Array(_)) => "a list",
        Some(Value::Object(_)) => "an object",
    }
}

/// What a template must write of a message.
impl Message {
    /// Whether its content is written as a list of parts.
    pub(crate) fn has_parts(&self) -> bool {
        self.written.get("content").is_some_and(Value::is_array)
    }

    /// The message with its content as one string.
    pub(crate) fn joined(&self) -> Self {
        let mut message = self.clone();
        if self.has_parts() {
            message.written.insert("content".to_owned(), Value::String(self.content.clone()));
        }
        message
    }

    /// What the assistant thinks before it answers, where the message has it apart from the content.
    pub(crate) fn reasoning(&self) -> Option<&str> {
        REASONING.into_iter().find_map(|key| self.written.get(key).and_then(Value::as_str))
    }

    /// The names of the tools that it calls.
    pub(crate) fn called(&self) -> Vec<&str> {
        let calls = self.written.get("tool_calls").and_then(Value::as_array);
        let functions = calls.into_iter().flatten().map(|call| call.get("function").unwrap_or(call));
        functions.filter_map(|function| function.get("name").and_then(Value::as_str)).collect()
    }
}

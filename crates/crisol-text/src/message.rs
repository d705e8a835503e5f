//! Messages of a conversation: parsed from data files, and passed to chat templates.

use std::io::{self, Write};

use minijinja::Value as Variable;
use minijinja::value::Serde;
use serde::Serialize as _;
use serde_json::ser::Formatter;
use serde_json::{Map, Value, json};

use crate::dropped_text::{with_response, with_thought};

const ASSISTANT: &str = "assistant";
/// Fields with the assistant's reasoning. Templates read the first.
const REASONING_FIELDS: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// The type of a content part with reasoning.
const THINKING: &str = "thinking";
/// Roles whose content is a tool call (ShareGPT).
const TOOL_CALL_ROLES: [&str; 2] = ["function_call", "tool_call"];
/// Fields that say whether a turn is trained, as in OpenAI, axolotl, verl, torchtune and others.
const TRAINED_FIELDS: [&str; 7] =
    ["weight", "train", "training", "trainable", "loss_mask", "loss", "mask"];
/// Fields that say which parts of a turn are trained; not supported.
const PARTLY_TRAINED_FIELDS: [&str; 2] = ["train_detail", "training_detail"];
/// Fields with images, audio or video.
pub(crate) const MEDIA_FIELDS: [&str; 8] =
    ["images", "image", "image_url", "audio", "audios", "video", "videos", "pixel_values"];
pub(crate) const TEXT_ONLY: &str =
    "this program reads text only; remove the record, or the key if the text stands alone";

/// What is wrong with a message, and the remedy.
pub(crate) type CauseAndRemedy = (String, String);

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Message {
    /// `system`, `user`, `assistant`, `tool`, or another role of the template.
    pub role: String,
    /// The text. Content in parts is concatenated.
    pub content: String,
    /// Whether the data excludes this turn from training (`weight: 0`, `train: false`, …).
    pub masked: bool,
    /// The message as JSON, if it has more than a role and a content string (`tool_calls`, `name`,
    /// parts); otherwise empty.
    raw: Map<String, Value>,
}

impl Message {
    /// A message.
    pub fn new(role: &str, content: &str) -> Self {
        Self { role: role.to_owned(), content: content.to_owned(), masked: false, raw: Map::new() }
    }

    /// A user message.
    pub fn user(content: &str) -> Self {
        Self::new("user", content)
    }

    /// An assistant message.
    pub fn assistant(content: &str) -> Self {
        Self::new(ASSISTANT, content)
    }

    /// Whether it is the assistant's. Only these are trained.
    pub fn is_assistant(&self) -> bool {
        self.role == ASSISTANT
    }

    /// Whether it is the assistant's and not masked.
    pub fn is_trained(&self) -> bool {
        self.is_assistant() && !self.masked
    }

    /// Parses a message: `role` and `content`, or ShareGPT's `from` and `value`.
    ///
    /// `content` is a string or a list of `{"type": "text", "text": …}`, the assistant's also of
    /// `{"type": "thinking", "thinking": …}`. Other fields are kept for the template. The error is
    /// cause and remedy.
    pub(crate) fn from_json(message: Value) -> Result<Self, CauseAndRemedy> {
        let message_type = json_type(Some(&message));
        let Value::Object(mut raw) = message else {
            return Err((
                format!("which is {message_type}"),
                "make it an object with `role` and `content`".into(),
            ));
        };
        // Tables write null for an absent value.
        drop_nulls(&mut raw);
        for (name, standard) in [("from", "role"), ("value", "content")] {
            if !raw.contains_key(standard)
                && let Some(value) = raw.shift_remove(name)
            {
                raw.insert(standard.to_owned(), value);
            }
        }
        let field_type = |raw: &Map<String, Value>, key: &str| json_type(raw.get(key));
        let Some(name) = raw.get("role").and_then(Value::as_str) else {
            let remedy = "every message needs `role` and `content`, both strings";
            return Err((format!("whose `role` is {}", field_type(&raw, "role")), remedy.into()));
        };
        let is_tool_call = TOOL_CALL_ROLES.contains(&name);
        let role = standard_role(name).to_owned();
        raw.insert("role".to_owned(), role.clone().into());
        if is_tool_call
            && let Some(call) = raw.get("content").and_then(Value::as_str).and_then(function_call)
        {
            raw.shift_remove("content");
            raw.insert("tool_calls".to_owned(), Value::Array(vec![call]));
        }
        for key in MEDIA_FIELDS {
            if raw.shift_remove(key).is_some_and(|value| !is_empty(&value)) {
                return Err((format!("which has `{key}`"), TEXT_ONLY.into()));
            }
        }
        let masked = take_mask(&mut raw, &role)?;
        normalise_tool_calls(&mut raw)?;
        take_thinking_parts(&mut raw);
        let content = match raw.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().map(part_text).collect::<Result<_, _>>()?,
            // A message with tool calls may have no content.
            None if raw.contains_key("tool_calls") => String::new(),
            _ => {
                let remedy = "every message needs `role` and `content`, both strings (content may \
                              also be a list of text parts)";
                return Err((
                    format!("whose `content` is {}", field_type(&raw, "content")),
                    remedy.into(),
                ));
            }
        };
        if raw.len() == 2 && raw.get("content").is_some_and(Value::is_string) {
            raw = Map::new();
        }
        Ok(Self { role, content, masked, raw })
    }

    /// The message as a template variable.
    pub(crate) fn to_template_value(&self) -> Variable {
        if self.raw.is_empty() {
            return Variable::from_pairs([
                ("role", self.role.as_str()),
                ("content", self.content.as_str()),
            ]);
        }
        let mut message = self.raw.clone();
        // As in transformers, templates find the reasoning under its standard names.
        let reasoning = REASONING_FIELDS.into_iter().find_map(|key| self.raw.get(key));
        if let Some(reasoning) = reasoning {
            message.insert(REASONING_FIELDS[0].to_owned(), reasoning.clone());
            message.entry(REASONING_FIELDS[1]).or_insert(reasoning.clone());
        }
        Variable::from(Serde(message))
    }

    /// Whether any of its fields contains `c`.
    pub(crate) fn contains(&self, c: char) -> bool {
        self.role.contains(c)
            || self.content.contains(c)
            || self.raw.iter().any(|(key, value)| key.contains(c) || value_contains(value, c))
    }
}

/// The standard name of a role. Unknown names are left to the template.
fn standard_role(name: &str) -> &str {
    match name.to_lowercase().as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" | "bing" | "chatgpt" | "bard" | "bot" | "model" | "ai" => ASSISTANT,
        "system" => "system",
        "tool" | "function" | "observation" | "tool_response" | "function_response" => "tool",
        _ if TOOL_CALL_ROLES.contains(&name) => ASSISTANT,
        _ => name,
    }
}

/// The tool call of a ShareGPT turn: `{"name": …, "arguments": …}`.
fn function_call(content: &str) -> Option<Value> {
    let call: Value = serde_json::from_str(content).ok()?;
    call.get("name")?.as_str()?;
    Some(json!({ "type": "function", "function": call }))
}

/// Removes the fields that say whether a turn is trained (1, true) or not (0, false).
fn take_mask(raw: &mut Map<String, Value>, role: &str) -> Result<bool, CauseAndRemedy> {
    let mut masked = false;
    for key in TRAINED_FIELDS {
        let Some(value) = raw.shift_remove(key) else { continue };
        let trained = match &value {
            Value::Bool(trained) => *trained,
            Value::Number(number) if number.as_f64() == Some(0.0) => false,
            Value::Number(number) if number.as_f64() == Some(1.0) => true,
            _ => {
                let remedy = "a turn is trained (1, true) or not (0, false), nothing in between; \
                              change it or remove the key";
                return Err((format!("whose `{key}` is {value}"), remedy.into()));
            }
        };
        if trained && role != ASSISTANT {
            let remedy =
                "only the assistant's turns can be trained; remove the key, or write 0 or false";
            return Err((format!("of {role:?}, whose `{key}` is {value}"), remedy.into()));
        }
        masked |= !trained;
    }
    // torchtune's `masked` has the opposite meaning.
    masked |= raw.get("masked").is_some_and(|value| value == true);
    if raw.get("masked").is_some_and(Value::is_boolean) {
        raw.shift_remove("masked");
    }
    for key in PARTLY_TRAINED_FIELDS {
        if raw.shift_remove(key).is_some_and(|value| !is_empty(&value)) {
            let remedy =
                "a turn can only be trained whole; split it in two messages, or remove the key";
            return Err((format!("which has `{key}`"), remedy.into()));
        }
    }
    Ok(masked)
}

/// Moves the parts of type `thinking` (Mistral's) out of the content, to the field of thoughts.
fn take_thinking_parts(raw: &mut Map<String, Value>) {
    let Some(Value::Array(parts)) = raw.get_mut("content") else { return };
    // A thought is text or has parts itself.
    let thought = |part: &Value| match &part["thinking"] {
        Value::String(text) => Some(text.clone()),
        Value::Array(texts) => texts.iter().map(|text| text["text"].as_str()).collect(),
        _ => None,
    };
    let mut thoughts = String::new();
    parts.retain(|part| match thought(part).filter(|_| part["type"] == THINKING) {
        Some(text) => {
            thoughts.push_str(&text);
            false
        }
        None => true,
    });
    if !thoughts.is_empty() {
        raw.entry(REASONING_FIELDS[0]).or_insert(thoughts.into());
    }
}

/// Converts tool calls to a list of objects whose arguments are objects, as templates expect.
fn normalise_tool_calls(raw: &mut Map<String, Value>) -> Result<(), CauseAndRemedy> {
    let Some(mut calls) = raw.shift_remove("tool_calls") else { return Ok(()) };
    if let Value::String(text) = &calls
        && let Ok(parsed @ Value::Array(_)) = serde_json::from_str(text)
    {
        calls = parsed;
    }
    let Value::Array(mut calls) = calls else {
        let remedy = "make it a list of calls, as OpenAI's `tool_calls`";
        return Err((format!("whose `tool_calls` is {}", json_type(Some(&calls))), remedy.into()));
    };
    for call in &mut calls {
        let function =
            if call.get("function").is_some() { &mut call["function"] } else { &mut *call };
        let Some(arguments) = function.get_mut("arguments") else { continue };
        if let Value::String(text) = arguments {
            let parsed =
                if text.trim().is_empty() { Ok(json!({})) } else { serde_json::from_str(text) };
            if let Ok(object @ Value::Object(_)) = parsed {
                *arguments = object;
            } else {
                let remedy = "make the arguments a JSON object, or a string with a JSON object";
                return Err((
                    "with a tool call whose `arguments` are not a JSON object".into(),
                    remedy.into(),
                ));
            }
        }
        if let Value::Object(object) = arguments {
            drop_nulls(object);
        }
    }
    if !calls.is_empty() {
        raw.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(())
}

/// Removes null entries of objects, recursively. In lists, a null may have a meaning and stays.
pub(crate) fn drop_nulls(object: &mut Map<String, Value>) {
    fn inside(value: &mut Value) {
        match value {
            Value::Object(object) => drop_nulls(object),
            Value::Array(list) => list.iter_mut().for_each(inside),
            _ => {}
        }
    }
    object.retain(|_, value| !value.is_null());
    object.values_mut().for_each(inside);
}

/// Whether a value is equivalent to an absent one.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(is_empty),
        Value::Object(object) => object.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The text of a content part.
fn part_text(part: &Value) -> Result<&str, CauseAndRemedy> {
    match (part["type"].as_str(), part["text"].as_str()) {
        (Some("text"), Some(text)) => Ok(text),
        (Some(other), _) if other != "text" => {
            Err((format!("whose `content` has a part of type {other:?}"), TEXT_ONLY.into()))
        }
        _ => Err((
            "whose `content` has a part without text".to_owned(),
            "make each part {\"type\": \"text\", \"text\": …}".into(),
        )),
    }
}

/// Whether a key or string of a JSON value contains `c`.
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

/// JSON as Python's `json.dumps` writes it, with spaces after commas and colons.
fn python_json(value: &Value) -> String {
    struct Spaced;
    impl Formatter for Spaced {
        fn begin_array_value<W: ?Sized + Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> io::Result<()> {
            out.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_key<W: ?Sized + Write>(
            &mut self,
            out: &mut W,
            first: bool,
        ) -> io::Result<()> {
            out.write_all(if first { b"" } else { b", " })
        }

        fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
            out.write_all(b": ")
        }
    }
    let mut out = vec![];
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, Spaced);
    value.serialize(&mut serializer).expect("a value can be raw to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
}

/// The type of a JSON value, for messages.
pub(crate) fn json_type(value: Option<&Value>) -> &'static str {
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

/// The parts of a message that a template must render.
impl Message {
    /// Whether its content is a list of parts.
    pub(crate) fn has_parts(&self) -> bool {
        self.raw.get("content").is_some_and(Value::is_array)
    }

    /// The message with its parts concatenated to one string.
    pub(crate) fn with_joined_parts(&self) -> Self {
        let mut message = self.clone();
        if self.has_parts() {
            message.raw.insert("content".to_owned(), Value::String(self.content.clone()));
        }
        message
    }

    /// The assistant's reasoning, if it is separate from the content.
    pub(crate) fn reasoning(&self) -> Option<&str> {
        REASONING_FIELDS.into_iter().find_map(|key| self.raw.get(key).and_then(Value::as_str))
    }

    /// The message with its thought as a part of the content, as Mistral's templates read it.
    pub(crate) fn with_thought_as_part(&self) -> Self {
        let mut message = self.clone();
        let thought = json!({"type": THINKING, THINKING: self.reasoning()});
        let text = json!({"type": "text", "text": self.content});
        let parts = if self.content.is_empty() { vec![thought] } else { vec![thought, text] };
        message.raw.insert("content".to_owned(), Value::Array(parts));
        message
    }

    /// The message with its thought in the content, in tags.
    pub(crate) fn with_thought_in_content(&self) -> Self {
        self.with_tags(with_thought)
    }

    /// The message with its thought in the content, both in tags.
    pub(crate) fn with_thought_and_response(&self) -> Self {
        self.with_tags(with_response)
    }

    fn with_tags(&self, join: fn(&str, &str) -> String) -> Self {
        let mut message = self.without_reasoning();
        if let Some(thought) = self.reasoning() {
            message.content = join(thought, &self.content);
            message.raw.insert("content".to_owned(), message.content.clone().into());
        }
        message
    }

    /// The message without the fields of its thought.
    pub(crate) fn without_reasoning(&self) -> Self {
        let mut message = self.clone();
        for field in REASONING_FIELDS {
            message.raw.shift_remove(field);
        }
        message
    }

    /// The names of the called tools.
    pub(crate) fn called_tools(&self) -> Vec<&str> {
        self.functions()
            .filter_map(|function| function.get("name").and_then(Value::as_str))
            .collect()
    }

    fn functions(&self) -> impl Iterator<Item = &Value> {
        let calls = self.raw.get("tool_calls").and_then(Value::as_array);
        calls.into_iter().flatten().map(|call| call.get("function").unwrap_or(call))
    }

    /// The arguments of its tool calls, as JSON text.
    pub(crate) fn arguments_as_text(&self) -> Vec<String> {
        self.functions().filter_map(|function| function.get("arguments").map(python_json)).collect()
    }

    /// The message with the arguments of its tool calls as JSON text instead of objects.
    pub(crate) fn with_arguments_as_text(&self) -> Self {
        let mut message = self.clone();
        let calls = message.raw.get_mut("tool_calls").and_then(Value::as_array_mut);
        for call in calls.into_iter().flatten() {
            let function =
                if call.get("function").is_some() { &mut call["function"] } else { call };
            if let Some(arguments) = function.get_mut("arguments") {
                *arguments = python_json(arguments).into();
            }
        }
        message
    }
}

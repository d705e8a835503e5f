//! Messages of a conversation, as data files write them and as templates see them.

use std::io::{self, Write};

use minijinja::Value as Variable;
use minijinja::value::Serde;
use serde::Serialize as _;
use serde_json::ser::Formatter;
use serde_json::{Map, Value, json};

const ASSISTANT: &str = "assistant";
/// The names under which models' makers write what an assistant thinks before it answers; the first is what templates read.
const REASONING: [&str; 3] = ["reasoning_content", "thinking", "reasoning"];
/// Names of speakers who call a tool, whose call is the content.
const CALL_NAMES: [&str; 2] = ["function_call", "tool_call"];
/// What says whether a turn is trained: OpenAI's, axolotl's, verl's, torchtune's and others' names.
const TRAINED: [&str; 7] =
    ["weight", "train", "training", "trainable", "loss_mask", "loss", "mask"];
/// What says that parts of a turn are trained.
const PARTLY_TRAINED: [&str; 2] = ["train_detail", "training_detail"];
/// What is not text.
pub(crate) const MEDIA: [&str; 8] =
    ["images", "image", "image_url", "audio", "audios", "video", "videos", "pixel_values"];
pub(crate) const TEXT_ONLY: &str =
    "this program reads text only; remove the record, or the key if the text stands alone";

/// What is wrong with a message, and the remedy.
pub(crate) type Wrong = (String, String);

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
        Self {
            role: role.to_owned(),
            content: content.to_owned(),
            masked: false,
            written: Map::new(),
        }
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

    /// A message as data files write it: `role` and `content` (a string, or a list of
    /// `{"type": "text", "text": …}`), or ShareGPT's `from` and `value`, and whatever else the template
    /// reads. The error is what is wrong with it, and the remedy.
    pub(crate) fn from_json(message: Value) -> Result<Self, Wrong> {
        let kind = kind_of(Some(&message));
        let Value::Object(mut written) = message else {
            return Err((
                format!("which is {kind}"),
                "make it an object with `role` and `content`".into(),
            ));
        };
        // Tables have a null in every row that has nothing.
        drop_nulls(&mut written);
        for (name, standard) in [("from", "role"), ("value", "content")] {
            if !written.contains_key(standard)
                && let Some(value) = written.shift_remove(name)
            {
                written.insert(standard.to_owned(), value);
            }
        }
        let kind = |written: &Map<String, Value>, key: &str| kind_of(written.get(key));
        let Some(name) = written.get("role").and_then(Value::as_str) else {
            let remedy = "every message needs `role` and `content`, both strings";
            return Err((format!("whose `role` is {}", kind(&written, "role")), remedy.into()));
        };
        let calls = CALL_NAMES.contains(&name);
        let role = standard_role(name).to_owned();
        written.insert("role".to_owned(), role.clone().into());
        if calls
            && let Some(call) =
                written.get("content").and_then(Value::as_str).and_then(function_call)
        {
            written.shift_remove("content");
            written.insert("tool_calls".to_owned(), Value::Array(vec![call]));
        }
        for key in MEDIA {
            if written.shift_remove(key).is_some_and(|value| !is_empty(&value)) {
                return Err((format!("which has `{key}`"), TEXT_ONLY.into()));
            }
        }
        let masked = masked(&mut written, &role)?;
        tool_calls(&mut written)?;
        let content = match written.get("content") {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => parts.iter().map(part).collect::<Result<_, _>>()?,
            // What an assistant that calls tools says.
            None if written.contains_key("tool_calls") => String::new(),
            _ => {
                let remedy = "every message needs `role` and `content`, both strings (or a list of parts of text as content)";
                return Err((
                    format!("whose `content` is {}", kind(&written, "content")),
                    remedy.into(),
                ));
            }
        };
        if written.len() == 2 && written.get("content").is_some_and(Value::is_string) {
            written = Map::new();
        }
        Ok(Self { role, content, masked, written })
    }

    /// The message as a template sees it.
    pub(crate) fn variable(&self) -> Variable {
        if self.written.is_empty() {
            return Variable::from_pairs([
                ("role", self.role.as_str()),
                ("content", self.content.as_str()),
            ]);
        }
        let mut message = self.written.clone();
        // As transformers does: whichever name the data has, templates find the standard one.
        let reasoning = REASONING.into_iter().find_map(|key| self.written.get(key));
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

/// The role under which templates know a speaker. Other names than these are the template's affair.
fn standard_role(name: &str) -> &str {
    match name.to_lowercase().as_str() {
        "human" | "user" => "user",
        "gpt" | "assistant" | "bing" | "chatgpt" | "bard" | "bot" | "model" | "ai" => ASSISTANT,
        "system" => "system",
        "tool" | "function" | "observation" | "tool_response" | "function_response" => "tool",
        _ if CALL_NAMES.contains(&name) => ASSISTANT,
        _ => name,
    }
}

/// A call that is a turn of its own, as ShareGPT writes it: `{"name": …, "arguments": …}`.
fn function_call(content: &str) -> Option<Value> {
    let call: Value = serde_json::from_str(content).ok()?;
    call.get("name")?.as_str()?;
    Some(json!({ "type": "function", "function": call }))
}

/// Takes out what says whether a turn is trained. All of these names say it in the same way: 0 or false, it is
/// not; 1 or true, it is.
fn masked(written: &mut Map<String, Value>, role: &str) -> Result<bool, Wrong> {
    let mut masked = false;
    for key in TRAINED {
        let Some(value) = written.shift_remove(key) else { continue };
        let trained = match &value {
            Value::Bool(trained) => *trained,
            Value::Number(number) if number.as_f64() == Some(0.0) => false,
            Value::Number(number) if number.as_f64() == Some(1.0) => true,
            _ => {
                let remedy = "a turn is trained (1, true) or not (0, false), nothing between; change it or remove the key";
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
    // torchtune's name says it the other way round.
    masked |= written.get("masked").is_some_and(|value| value == true);
    if written.get("masked").is_some_and(Value::is_boolean) {
        written.shift_remove("masked");
    }
    for key in PARTLY_TRAINED {
        if written.shift_remove(key).is_some_and(|value| !is_empty(&value)) {
            let remedy =
                "a turn can only be trained whole; split it in two messages, or remove the key";
            return Err((format!("which has `{key}`"), remedy.into()));
        }
    }
    Ok(masked)
}

/// Calls of tools as templates read them: a list of objects whose arguments are objects.
fn tool_calls(written: &mut Map<String, Value>) -> Result<(), Wrong> {
    let Some(mut calls) = written.shift_remove("tool_calls") else { return Ok(()) };
    if let Value::String(text) = &calls
        && let Ok(parsed @ Value::Array(_)) = serde_json::from_str(text)
    {
        calls = parsed;
    }
    let Value::Array(mut calls) = calls else {
        let remedy = "make it a list of calls, as OpenAI's `tool_calls`";
        return Err((format!("whose `tool_calls` is {}", kind_of(Some(&calls))), remedy.into()));
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
                let remedy = "arguments are a JSON object, or such an object written as a string";
                return Err((
                    "with a tool call whose `arguments` are no JSON object".into(),
                    remedy.into(),
                ));
            }
        }
        if let Value::Object(object) = arguments {
            drop_nulls(object);
        }
    }
    if !calls.is_empty() {
        written.insert("tool_calls".to_owned(), Value::Array(calls));
    }
    Ok(())
}

/// Takes out entries that are null, also those of objects further in. Lists keep theirs: they would change their
/// meaning.
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

/// Whether a value says no more than its absence.
pub(crate) fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.iter().all(is_empty),
        Value::Object(object) => object.values().all(is_empty),
        Value::Bool(_) | Value::Number(_) => false,
    }
}

/// The text of one part of a content.
fn part(part: &Value) -> Result<&str, Wrong> {
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

/// JSON as Python's `json.dumps` and the filter `tojson` write it, with spaces behind commas and colons.
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
    value.serialize(&mut serializer).expect("a value can be written to memory");
    String::from_utf8(out).expect("JSON is UTF-8")
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
        self.functions()
            .filter_map(|function| function.get("name").and_then(Value::as_str))
            .collect()
    }

    fn functions(&self) -> impl Iterator<Item = &Value> {
        let calls = self.written.get("tool_calls").and_then(Value::as_array);
        calls.into_iter().flatten().map(|call| call.get("function").unwrap_or(call))
    }

    /// The arguments of the tools that it calls, as JSON.
    pub(crate) fn arguments_as_text(&self) -> Vec<String> {
        self.functions().filter_map(|function| function.get("arguments").map(python_json)).collect()
    }

    /// The message with the arguments of its calls as JSON instead of objects.
    pub(crate) fn with_arguments_as_text(&self) -> Self {
        let mut message = self.clone();
        let calls = message.written.get_mut("tool_calls").and_then(Value::as_array_mut);
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

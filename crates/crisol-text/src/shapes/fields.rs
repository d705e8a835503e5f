//! Typed access to the fields of a row. Each accessor removes the field that it reads.

use serde_json::{Map, Value};

use super::RowFields;
use crate::message::{drop_nulls, json_type};
use crate::records::Turns;
use crate::{Message, TextError};

impl RowFields<'_> {
    pub(super) fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    /// The first of `keys` that the row has.
    pub(super) fn first<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        keys.iter().copied().find(|key| self.has(key))
    }

    /// The keys of the row, for messages.
    pub(super) fn keys(&self) -> String {
        let name = |(key, value): (&String, &Value)| {
            if value.is_null() { format!("`{key}` (null)") } else { format!("`{key}`") }
        };
        let keys: Vec<_> = self.object.iter().map(name).collect();
        if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
    }

    /// A string, which is raw text, or messages.
    pub(super) fn turns(&mut self, field: &str) -> Result<Turns, TextError> {
        if let Some(value) = self.object.get_mut(field) {
            *value = parse_message_list(value.take());
        }
        match self.object.get(field) {
            Some(Value::Array(_)) => self.messages(field).map(Turns::Chat),
            _ => self.string(field).map(Turns::Plain),
        }
    }

    /// Messages, or a string, which is one message of `role`.
    pub(super) fn turns_as(&mut self, role: &str, field: &str) -> Result<Turns, TextError> {
        Ok(Turns::Chat(match self.turns(field)? {
            Turns::Plain(text) => vec![Message::new(role, &text)],
            Turns::Chat(messages) => messages,
        }))
    }

    pub(super) fn string(&mut self, field: &str) -> Result<String, TextError> {
        match self.object.shift_remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Number(number)) if field == "answer" => Ok(number.to_string()),
            other => Err(self.field_error(
                field,
                &format!("is {}", json_type(other.as_ref())),
                "make it a string",
            )),
        }
    }

    pub(super) fn messages(&mut self, field: &str) -> Result<Vec<Message>, TextError> {
        let remedy = "make it a list of {\"role\": …, \"content\": …}";
        let list = match self.object.shift_remove(field).map(parse_json_string) {
            Some(Value::Array(list)) => list,
            // OpenAI's outputs may be a single message.
            Some(message @ Value::Object(_)) if field.ends_with("_output") => vec![message],
            Some(Value::String(text)) if text.trim_start().starts_with('[') => {
                let cause = if text.contains("{'") {
                    "is a list in Python's notation, not JSON"
                } else {
                    "begins like a list but is not JSON"
                };
                return Err(self.field_error(
                    field,
                    cause,
                    "write it with json.dumps, or as JSONL",
                ));
            }
            other => {
                return Err(self.field_error(
                    field,
                    &format!("is {}", json_type(other.as_ref())),
                    remedy,
                ));
            }
        };
        if list.is_empty() {
            return Err(self.no_trained_tokens(&format!("`{field}` is empty")));
        }
        let message = |(i, message): (usize, Value)| {
            Message::from_json(message).map_err(|(cause, remedy)| {
                self.field_error(field, &format!("has message {i} (from 0), {cause}"), &remedy)
            })
        };
        list.into_iter().enumerate().map(message).collect()
    }

    /// The tools: a list of JSON schemas, or a string with such a list.
    pub(super) fn tools(&mut self) -> Result<Vec<Value>, TextError> {
        let remedy = "make it a list of JSON schemas, as transformers' `tools`";
        let tools = match self.object.shift_remove("tools").map(parse_json_string) {
            None => return Ok(vec![]),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(vec![]),
            Some(Value::Array(tools)) => tools.into_iter().map(parse_json_string),
            Some(other) => {
                return Err(self.field_error(
                    "tools",
                    &format!("is {}", json_type(Some(&other))),
                    remedy,
                ));
            }
        };
        let tool = |tool: Value| match tool {
            Value::Object(mut tool) => {
                drop_nulls(&mut tool);
                Ok(Value::Object(tool))
            }
            _ => Err(self.field_error("tools", "has an entry that is not an object", remedy)),
        };
        tools.map(tool).collect()
    }

    /// Chat template variables, as in TRL's records.
    pub(super) fn template_arguments(&mut self) -> Result<Map<String, Value>, TextError> {
        let field = "chat_template_kwargs";
        match self.object.shift_remove(field).map(parse_json_string) {
            None => Ok(Map::new()),
            Some(Value::Object(mut arguments)) => {
                drop_nulls(&mut arguments);
                Ok(arguments)
            }
            Some(other) => {
                let cause = format!("is {}", json_type(Some(&other)));
                Err(self.field_error(
                    field,
                    &cause,
                    "make it an object, such as {\"enable_thinking\": false}",
                ))
            }
        }
    }

    pub(super) fn field_error(&self, field: &str, cause: &str, remedy: &str) -> TextError {
        TextError::Field {
            location: self.location.to_owned(),
            field: field.to_owned(),
            cause: cause.to_owned(),
            remedy: remedy.to_owned(),
        }
    }

    pub(super) fn no_trained_tokens(&self, cause: &str) -> TextError {
        TextError::NoTrainedTokens { location: self.location.to_owned(), cause: cause.to_owned() }
    }
}

/// Parses a string with a JSON list or object; tables hold these as strings.
pub(super) fn parse_json_string(value: Value) -> Value {
    match value {
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(inner @ (Value::Array(_) | Value::Object(_))) => inner,
            _ => Value::String(text),
        },
        other => other,
    }
}

/// Parses a string with a JSON list of messages; any other string stays text.
fn parse_message_list(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    if !text.trim_start().starts_with('[') {
        return value;
    }
    let has_role = |message: &Value| message.get("role").or(message.get("from")).is_some();
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) if !list.is_empty() && list.iter().all(has_role) => {
            Value::Array(list)
        }
        _ => value,
    }
}

//! From rows of data files to records. The keys alone decide a row's shape; see
//! [`RowFields::body`].
//!
//! | field | a string in it is |
//! |---|---|
//! | `text`, `prompt`, `completion`, `chosen`, `rejected` | raw text |
//! | `instruction`, `question`, `response`, `output`, … | one message |
//!
//! A field that changes a record's meaning but is not supported is an error. Fields that nothing
//! reads are listed in [`Record::unused`].

mod fields;
mod preference;
mod transcript;

use serde_json::{Map, Value};

use crate::message::{MEDIA_FIELDS, TEXT_ONLY, is_empty};
use crate::records::{Body, Record, Turns};
use crate::{Message, ReadOptions, TextError};
use fields::parse_json_string;

/// Fields with a conversation.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];
/// Fields with a question, besides `prompt`.
const QUESTIONS: [&str; 4] = ["question", "problem", "query", "instruction"];
/// Fields with a question's context, appended to it (Alpaca's `input`, Dolly's `context`).
const CONTEXTS: [&str; 2] = ["input", "context"];
/// Fields with an answer, besides `completion`.
const ANSWERS: [&str; 2] = ["response", "output"];
/// Fields with the choices of a multiple-choice question.
const CHOICES: [&str; 2] = ["choices", "options"];
/// Fields with a system message.
const SYSTEM_MESSAGES: [&str; 2] = ["system", "system_prompt"];
/// Fields that rate the answer good or bad.
const LABELS: [&str; 2] = ["label", "kto_tag"];
/// All fields that `--columns` can map to.
pub(crate) const FIELD_NAMES: [&str; 25] = [
    "text",
    "messages",
    "conversations",
    "conversation",
    "prompt",
    "completion",
    "chosen",
    "rejected",
    "answer",
    "solution",
    "question",
    "problem",
    "query",
    "instruction",
    "input",
    "context",
    "history",
    "response",
    "output",
    "system",
    "system_prompt",
    "label",
    "tools",
    "chat_template_kwargs",
    "kind",
];
/// Fields of [`Record::extra`] that phases and evaluations read.
const EXTRA_FIELDS: [&str; 3] = ["kind", "form", "opening"];

/// The record of a row.
pub(crate) fn to_record(
    location: String,
    object: Map<String, Value>,
    options: &ReadOptions,
) -> Result<Record, TextError> {
    let mut row = RowFields { location: &location, object };
    row.rename(options)?;
    let keys = row.keys();
    // Parquet and JSON tables write null for an absent value.
    row.object.retain(|_, value| !value.is_null());
    for key in MEDIA_FIELDS {
        if row.object.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(row.field_error(key, "is not text", TEXT_ONLY));
        }
    }
    let system = row.system()?;
    let body = with_system(row.body(keys)?, system).map_err(|cause| {
        row.field_error("system", cause, "keep one of the two; --columns can rename the other")
    })?;
    let tools = row.tools()?;
    let arguments = row.template_arguments()?;
    let unread = |(key, value): (&String, &Value)| {
        (!EXTRA_FIELDS.contains(&key.as_str()) && !is_empty(value)).then(|| key.clone())
    };
    let unused = row.object.iter().filter_map(unread).collect();
    let extra = row
        .object
        .into_iter()
        .filter_map(|(key, value)| match value {
            Value::String(text) => Some((key, text)),
            _ => None,
        })
        .collect();
    Ok(Record { location, body, tools, arguments, extra, unused })
}

/// The fields of a row that are not consumed yet.
struct RowFields<'a> {
    location: &'a str,
    object: Map<String, Value>,
}

impl RowFields<'_> {
    /// Renames columns as `--columns` asks.
    fn rename(&mut self, options: &ReadOptions) -> Result<(), TextError> {
        let mut renamed = vec![];
        for (name, column) in &options.columns {
            match self.object.shift_remove(column) {
                Some(value) => renamed.push((name.clone(), value)),
                None => {
                    return Err(TextError::UnknownColumn {
                        location: self.location.to_owned(),
                        column: column.clone(),
                        found: self.keys(),
                    });
                }
            }
        }
        self.object.extend(renamed);
        Ok(())
    }

    /// The first shape that fits. Shapes that need more fields are tried first.
    fn body(&mut self, keys: String) -> Result<Body, TextError> {
        if self.has("preferred_output") && self.has("non_preferred_output") {
            return self.openai_preference();
        }
        if self.has("chosen") && self.has("rejected") {
            return self.preference();
        }
        for (field, other) in [
            ("chosen", "rejected"),
            ("rejected", "chosen"),
            ("preferred_output", "non_preferred_output"),
            ("non_preferred_output", "preferred_output"),
        ] {
            if self.has(field) {
                let cause = format!("has no `{other}`");
                return Err(self.field_error(
                    field,
                    &cause,
                    "a preference needs both answers; complete or remove it",
                ));
            }
        }
        if let Some(field) = self.first(&CONVERSATIONS) {
            return self.conversation(field);
        }
        let Some(prompt) = self.prompt()? else {
            if !self.has("text") {
                let location = self.location.to_owned();
                return Err(TextError::UnknownShape { location, found: keys });
            }
            let text = self.string("text")?;
            if text.is_empty() {
                return Err(self.no_trained_tokens("its text is empty"));
            }
            return Ok(Body::Text { text });
        };
        let completion = if self.has("completion") {
            Some(self.turns("completion")?)
        } else if let Some(field) = self.first(&ANSWERS) {
            Some(self.turns_as("assistant", field)?)
        } else {
            None
        };
        if let Some(completion) = completion {
            return Ok(match self.label()? {
                Some(good) => Body::Rated { prompt, completion, good },
                None => Body::Completion { prompt, completion },
            });
        }
        self.problem(prompt, keys)
    }

    /// A conversation; with a rating, its last answer as a rated completion.
    fn conversation(&mut self, field: &'static str) -> Result<Body, TextError> {
        let mut messages = self.messages(field)?;
        let Some(good) = self.label()? else { return Ok(Body::Chat { messages }) };
        match messages.pop() {
            Some(last) if last.is_assistant() => Ok(Body::Rated {
                prompt: Turns::Chat(messages),
                completion: Turns::Chat(vec![last]),
                good,
            }),
            _ => Err(self.field_error(
                field,
                "does not end with the answer that is rated",
                "add the assistant's answer",
            )),
        }
    }

    /// The prompt: the field `prompt`, or a question as a user message.
    fn prompt(&mut self) -> Result<Option<Turns>, TextError> {
        if self.has("prompt") {
            let prompt = self.turns("prompt")?;
            let question = match &prompt {
                Turns::Plain(text) => text,
                Turns::Chat(messages) => messages.last().map_or("", |last| &last.content),
            };
            self.refuse_second_question(question)?;
            self.refuse_choices(question)?;
            let mut turns = self.history()?;
            return Ok(Some(match prompt {
                prompt if turns.is_empty() => prompt,
                Turns::Plain(text) => {
                    turns.push(Message::user(&text));
                    Turns::Chat(turns)
                }
                Turns::Chat(messages) => {
                    turns.extend(messages);
                    Turns::Chat(turns)
                }
            }));
        }
        let question = match self.first(&QUESTIONS) {
            Some(field) => field,
            // With `input` and `output` alone, the input is the question.
            None if self.has("input") && self.first(&ANSWERS).is_some() => "input",
            None => return Ok(None),
        };
        if self
            .first(&[&ANSWERS[..], &["completion", "chosen", "answer", "solution"]].concat())
            .is_none()
        {
            return Ok(None);
        }
        let Turns::Chat(mut messages) = self.turns_as("user", question)? else {
            unreachable!("turns_as returns messages")
        };
        if let (Some(field), Some(last)) = (self.first(&CONTEXTS), messages.last_mut()) {
            let context = self.string(field)?;
            if !context.trim().is_empty() {
                last.content = format!("{}\n\n{context}", last.content);
            }
        }
        self.refuse_choices(messages.last().map_or("", |last| &last.content))?;
        let mut turns = self.history()?;
        turns.extend(messages);
        Ok(Some(Turns::Chat(turns)))
    }

    /// An error if the row has a question or context that its prompt does not contain.
    fn refuse_second_question(&self, prompt: &str) -> Result<(), TextError> {
        for key in [&QUESTIONS[..], &CONTEXTS].concat() {
            match self.object.get(key) {
                Some(Value::String(text))
                    if !text.trim().is_empty() && !prompt.contains(text.trim()) =>
                {
                    return Err(self.field_error(
                        key,
                        "is not part of the record's `prompt`, so it would be ignored",
                        "put it into the prompt or remove it; --columns says which column is the \
                         prompt",
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// An error if the prompt does not contain the choices: a list, or ARC's `{"text": […]}`.
    fn refuse_choices(&self, prompt: &str) -> Result<(), TextError> {
        for key in CHOICES {
            let Some(value) = self.object.get(key) else { continue };
            let Some(choices) = value.get("text").unwrap_or(value).as_array() else { continue };
            let missing = |choice: &Value| match choice {
                Value::String(text) => !text.trim().is_empty() && !prompt.contains(text.trim()),
                choice => choice.is_number() && !prompt.contains(&choice.to_string()),
            };
            if choices.iter().any(missing) {
                return Err(self.field_error(
                    key,
                    "has choices that the question does not contain",
                    "write the choices into the question, and the right one as the answer",
                ));
            }
        }
        Ok(())
    }

    /// Earlier turns: pairs of a question and an answer, as in Alpaca's `history`.
    fn history(&mut self) -> Result<Vec<Message>, TextError> {
        let Some(history) = self.object.shift_remove("history") else { return Ok(vec![]) };
        let error = || {
            let remedy = "make it [[question, answer], …]";
            self.field_error("history", "is not a list of pairs", remedy)
        };
        let Value::Array(pairs) = parse_json_string(history) else { return Err(error()) };
        let mut messages = vec![];
        for pair in &pairs {
            let (Some(question), Some(answer)) = (pair[0].as_str(), pair[1].as_str()) else {
                return Err(error());
            };
            messages.extend([Message::user(question), Message::assistant(answer)]);
        }
        Ok(messages)
    }

    /// A prompt with a verifiable answer, with a worked solution, or alone.
    fn problem(&mut self, prompt: Turns, keys: String) -> Result<Body, TextError> {
        let mut solution =
            if self.has("solution") { Some(self.turns_as("assistant", "solution")?) } else { None };
        if self.has("answer") {
            let answer = self.string("answer")?;
            // GSM8K: the work, then `####` and the result.
            let reference =
                answer.rsplit_once("####").map(|(_, reference)| reference.trim().to_owned());
            if solution.is_none() && (reference.is_some() || matches!(prompt, Turns::Chat(_))) {
                solution = Some(Turns::Chat(vec![Message::assistant(&answer)]));
            }
            return Ok(Body::Problem { prompt, answer: reference.unwrap_or(answer), solution });
        }
        match solution {
            // MATH: the result is in `\\boxed{…}`.
            Some(Turns::Chat(messages)) => {
                match messages
                    .last()
                    .and_then(|message| boxed_answer(&message.content))
                    .map(str::to_owned)
                {
                    Some(answer) => {
                        Ok(Body::Problem { prompt, answer, solution: Some(Turns::Chat(messages)) })
                    }
                    None => Ok(Body::Completion { prompt, completion: Turns::Chat(messages) }),
                }
            }
            _ if self.has("label") && self.label()?.is_some() => {
                let location = self.location.to_owned();
                Err(TextError::UnknownShape { location, found: keys })
            }
            _ => Ok(Body::Prompt { prompt }),
        }
    }

    /// The rating, if `label` or `kto_tag` is one. Any other label is an unused field.
    fn label(&mut self) -> Result<Option<bool>, TextError> {
        let Some(field) = self.first(&LABELS) else { return Ok(None) };
        let good = match &self.object[field] {
            Value::Bool(good) => *good,
            Value::Number(number) if number.as_f64() == Some(1.0) => true,
            Value::Number(number) if number.as_f64() == Some(0.0) => false,
            Value::Number(number) => {
                let cause = format!("is {number}");
                let remedy = "a rating is true or false; remove any other label";
                return Err(self.field_error(field, &cause, remedy));
            }
            Value::String(text) => match text.to_lowercase().as_str() {
                "true" | "1" => true,
                "false" | "0" => false,
                _ => return Ok(None),
            },
            _ => return Ok(None),
        };
        self.object.shift_remove(field);
        Ok(Some(good))
    }

    /// The system message, unless it is blank.
    fn system(&mut self) -> Result<Option<String>, TextError> {
        let Some(field) = self.first(&SYSTEM_MESSAGES) else { return Ok(None) };
        let system = self.string(field)?;
        Ok((!system.trim().is_empty()).then_some(system))
    }
}

/// Prepends the system message. The error is the reason why it cannot be.
fn with_system(mut body: Body, system: Option<String>) -> Result<Body, &'static str> {
    let Some(system) = system else { return Ok(body) };
    let turns = match &mut body {
        Body::Chat { messages } => return prepend(messages, &system).map(|()| body),
        Body::Text { .. } => return Err("is in a record of raw text, which has no system message"),
        Body::Completion { prompt, .. }
        | Body::Rated { prompt, .. }
        | Body::Preference { prompt, .. }
        | Body::Problem { prompt, .. }
        | Body::Prompt { prompt } => prompt,
    };
    if let Turns::Plain(text) = turns {
        *turns = Turns::Chat(vec![Message::user(text)]);
    }
    if let Turns::Chat(messages) = turns {
        prepend(messages, &system)?;
    }
    Ok(body)
}

fn prepend(messages: &mut Vec<Message>, system: &str) -> Result<(), &'static str> {
    match messages.first().filter(|first| first.role == "system") {
        Some(first) if first.content.trim() == system.trim() => {}
        Some(_) => return Err("differs from the system message of the conversation"),
        None => messages.insert(0, Message::new("system", system)),
    }
    Ok(())
}

/// The content of the last `\boxed{…}` of a solution.
fn boxed_answer(solution: &str) -> Option<&str> {
    let start = solution.rfind("\\boxed{")? + "\\boxed{".len();
    let mut depth = 1;
    for (offset, c) in solution[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&solution[start..start + offset]);
        }
    }
    None
}

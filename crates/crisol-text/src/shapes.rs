//! Rows of data files as records: which shape a row has is told by its keys alone, in the order of [`Fields::body`].
//!
//! `text`, `prompt`, `completion`, `chosen`, `rejected` and `messages` are this program's own names: a string under them
//! is raw text. Strings under the other names (`instruction`, `question`, `response`, …) are turns of a
//! conversation. What would change a record's meaning and cannot be honoured is refused by name; what nothing reads is
//! listed in [`Record::unused`].

mod transcript;

use serde_json::{Map, Value};

use crate::message::{MEDIA, TEXT_ONLY, drop_nulls, is_empty, kind_of};
use crate::records::{Body, Record, Turns};
use crate::{Message, ReadOptions, TextError};
use transcript::transcript;

/// Names of a conversation.
const CONVERSATIONS: [&str; 3] = ["messages", "conversations", "conversation"];
/// Names of what is asked, beside `prompt`.
const QUESTIONS: [&str; 4] = ["question", "problem", "query", "instruction"];
/// Names of what a question is about: it stands below the question (Alpaca's `input`, Dolly's `context`).
const CONTEXTS: [&str; 2] = ["input", "context"];
/// Names of what is answered, beside `completion`.
const ANSWERS: [&str; 2] = ["response", "output"];
/// Names of the answers that a question offers.
const CHOICES: [&str; 2] = ["choices", "options"];
const SYSTEMS: [&str; 2] = ["system", "system_prompt"];
/// Names of a thumb up or down.
const LABELS: [&str; 2] = ["label", "kto_tag"];
/// All names that shapes know, for `--columns`.
pub(crate) const NAMES: [&str; 25] = [
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
/// Fields that this program reads from [`Record::extra`].
const READ_LATER: [&str; 3] = ["kind", "form", "opening"];

/// Makes a record of a row.
pub(crate) fn record(
    place: String,
    object: Map<String, Value>,
    options: &ReadOptions,
) -> Result<Record, TextError> {
    let mut row = Fields { place: &place, object };
    row.rename(options)?;
    let found = row.keys();
    // Tables have a null in every row that has nothing.
    row.object.retain(|_, value| !value.is_null());
    for key in MEDIA {
        if row.object.get(key).is_some_and(|value| !is_empty(value)) {
            return Err(row.wrong(key, "is not text", TEXT_ONLY));
        }
    }
    let system = row.system()?;
    let body = with_system(row.body(found)?, system).map_err(|cause| {
        row.wrong("system", cause, "keep one of the two; --columns can rename the other")
    })?;
    let tools = row.tools()?;
    let arguments = row.arguments()?;
    let unread = |(key, value): (&String, &Value)| {
        (!READ_LATER.contains(&key.as_str()) && !is_empty(value)).then(|| key.clone())
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
    Ok(Record { place, body, tools, arguments, extra, unused })
}

/// The fields of a row that no shape has taken yet.
struct Fields<'a> {
    place: &'a str,
    object: Map<String, Value>,
}

impl Fields<'_> {
    /// Gives columns the names that the user says they mean.
    fn rename(&mut self, options: &ReadOptions) -> Result<(), TextError> {
        let mut renamed = vec![];
        for (name, column) in &options.columns {
            match self.object.shift_remove(column) {
                Some(value) => renamed.push((name.clone(), value)),
                None => {
                    return Err(TextError::UnknownColumn {
                        place: self.place.to_owned(),
                        column: column.clone(),
                        found: self.keys(),
                    });
                }
            }
        }
        self.object.extend(renamed);
        Ok(())
    }

    /// The shapes, the first that fits: the more a row says, the earlier.
    fn body(&mut self, found: String) -> Result<Body, TextError> {
        if self.has("preferred_output") && self.has("non_preferred_output") {
            return self.openai_preference();
        }
        if self.has("chosen") && self.has("rejected") {
            return self.preference();
        }
        if self.has("chosen") || self.has("rejected") {
            let (field, other) =
                if self.has("chosen") { ("chosen", "rejected") } else { ("rejected", "chosen") };
            let cause = format!("has no `{other}` beside it");
            return Err(self.wrong(
                field,
                &cause,
                "a preference needs both answers; complete or remove it",
            ));
        }
        if let Some(field) = self.first(&CONVERSATIONS) {
            return self.conversation(field);
        }
        let Some(prompt) = self.prompt()? else {
            if !self.has("text") {
                return Err(TextError::UnknownShape { place: self.place.to_owned(), found });
            }
            let text = self.string("text")?;
            if text.is_empty() {
                return Err(self.nothing("its text is empty"));
            }
            return Ok(Body::Text { text });
        };
        let completion = if self.has("completion") {
            Some(self.turns("completion")?)
        } else if let Some(field) = self.first(&ANSWERS) {
            Some(self.spoken(field, "assistant")?)
        } else {
            None
        };
        if let Some(completion) = completion {
            return Ok(match self.label()? {
                Some(good) => Body::Rated { prompt, completion, good },
                None => Body::Completion { prompt, completion },
            });
        }
        self.problem(prompt, found)
    }

    /// A conversation, or with a thumb up or down, its last answer and what came before.
    fn conversation(&mut self, field: &'static str) -> Result<Body, TextError> {
        let mut messages = self.messages(field)?;
        let Some(good) = self.label()? else { return Ok(Body::Chat { messages }) };
        match messages.pop() {
            Some(last) if last.is_assistant() => Ok(Body::Rated {
                prompt: Turns::Chat(messages),
                completion: Turns::Chat(vec![last]),
                good,
            }),
            _ => Err(self.wrong(
                field,
                "does not end with the answer that is rated",
                "add the assistant's answer",
            )),
        }
    }

    /// What is asked: `prompt` as it is written, or a question as the user's message.
    fn prompt(&mut self) -> Result<Option<Turns>, TextError> {
        if self.has("prompt") {
            let prompt = self.turns("prompt")?;
            let asked = match &prompt {
                Turns::Plain(text) => text,
                Turns::Chat(messages) => messages.last().map_or("", |last| &last.content),
            };
            self.refuse_second_question(asked)?;
            self.refuse_choices(asked)?;
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
        let asked = match self.first(&QUESTIONS) {
            Some(field) => field,
            // `input` and `output` alone: the input is what is asked.
            None if self.has("input") && self.first(&ANSWERS).is_some() => "input",
            None => return Ok(None),
        };
        if self
            .first(&[&ANSWERS[..], &["completion", "chosen", "answer", "solution"]].concat())
            .is_none()
        {
            return Ok(None);
        }
        let Turns::Chat(mut messages) = self.spoken(asked, "user")? else {
            unreachable!("spoken gives messages")
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

    /// A question or context beside `prompt` would be left out.
    fn refuse_second_question(&self, asked: &str) -> Result<(), TextError> {
        for key in [&QUESTIONS[..], &CONTEXTS].concat() {
            match self.object.get(key) {
                Some(Value::String(text))
                    if !text.trim().is_empty() && !asked.contains(text.trim()) =>
                {
                    let remedy = "put it into the prompt or remove it; --columns says which column is the prompt";
                    return Err(self.wrong(
                        key,
                        "stands beside `prompt`, which would leave it out",
                        remedy,
                    ));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Choices that are not in the question would be left out of it: a list, or ARC's `{"text": […]}`.
    fn refuse_choices(&self, asked: &str) -> Result<(), TextError> {
        for key in CHOICES {
            let Some(value) = self.object.get(key) else { continue };
            let Some(choices) = value.get("text").unwrap_or(value).as_array() else { continue };
            let missing = |choice: &Value| match choice {
                Value::String(text) => !text.trim().is_empty() && !asked.contains(text.trim()),
                choice => choice.is_number() && !asked.contains(&choice.to_string()),
            };
            if choices.iter().any(missing) {
                let remedy = "write them into the question, and as the answer what is to be said";
                return Err(self.wrong(
                    key,
                    "has answers to choose from that the question does not name",
                    remedy,
                ));
            }
        }
        Ok(())
    }

    /// Earlier turns, as Alpaca's `history` has them: pairs of a question and an answer.
    fn history(&mut self) -> Result<Vec<Message>, TextError> {
        let Some(history) = self.object.shift_remove("history") else { return Ok(vec![]) };
        let wrong =
            || self.wrong("history", "is no list of pairs", "make it [[question, answer], …]");
        let Value::Array(pairs) = parsed(history) else { return Err(wrong()) };
        let mut messages = vec![];
        for pair in &pairs {
            let (Some(asked), Some(said)) = (pair[0].as_str(), pair[1].as_str()) else {
                return Err(wrong());
            };
            messages.extend([Message::user(asked), Message::assistant(said)]);
        }
        Ok(messages)
    }

    /// A prompt with an answer that can be verified, with a worked solution, or alone.
    fn problem(&mut self, prompt: Turns, found: String) -> Result<Body, TextError> {
        let mut solution =
            if self.has("solution") { Some(self.spoken("solution", "assistant")?) } else { None };
        if self.has("answer") {
            let answer = self.string("answer")?;
            // GSM8K's: the work, and its result behind four hashes.
            let reference =
                answer.rsplit_once("####").map(|(_, reference)| reference.trim().to_owned());
            if solution.is_none() && (reference.is_some() || matches!(prompt, Turns::Chat(_))) {
                solution = Some(Turns::Chat(vec![Message::assistant(&answer)]));
            }
            return Ok(Body::Problem { prompt, answer: reference.unwrap_or(answer), solution });
        }
        match solution {
            // The MATH data set's: the result stands in a box.
            Some(Turns::Chat(messages)) => {
                match messages.last().and_then(|message| boxed(&message.content)).map(str::to_owned)
                {
                    Some(answer) => {
                        Ok(Body::Problem { prompt, answer, solution: Some(Turns::Chat(messages)) })
                    }
                    None => Ok(Body::Completion { prompt, completion: Turns::Chat(messages) }),
                }
            }
            _ if self.has("label") && self.label()?.is_some() => {
                Err(TextError::UnknownShape { place: self.place.to_owned(), found })
            }
            _ => Ok(Body::Prompt { prompt }),
        }
    }

    /// OpenAI's preference data: `input` with the conversation, and two outputs.
    fn openai_preference(&mut self) -> Result<Body, TextError> {
        let Some(Value::Object(mut input)) = self.object.shift_remove("input").map(parsed) else {
            return Err(self.wrong("input", "is no object", "make it {\"messages\": […]}"));
        };
        drop_nulls(&mut input);
        for (key, value) in input {
            // `tools` and the like stand beside the conversation here.
            self.object.entry(key).or_insert(value);
        }
        let prompt = Turns::Chat(self.messages("messages")?);
        let chosen = Turns::Chat(self.messages("preferred_output")?);
        let rejected = Turns::Chat(self.messages("non_preferred_output")?);
        self.pair(prompt, chosen, rejected)
    }

    fn pair(&self, prompt: Turns, chosen: Turns, rejected: Turns) -> Result<Body, TextError> {
        if chosen == rejected {
            return Err(TextError::EqualAnswers { place: self.place.to_owned() });
        }
        Ok(Body::Preference { prompt, chosen, rejected })
    }

    fn preference(&mut self) -> Result<Body, TextError> {
        let prompt = self.prompt()?;
        let (chosen, rejected) = (self.turns("chosen")?, self.turns("rejected")?);
        match (prompt, chosen, rejected) {
            (_, Turns::Plain(_), Turns::Chat(_)) | (_, Turns::Chat(_), Turns::Plain(_)) => {
                let cause = "is a plain string and the other answer a list of messages";
                Err(self.wrong("chosen", cause, "use one form for both"))
            }
            (None, Turns::Plain(chosen), Turns::Plain(rejected)) => {
                if let (Some(chosen), Some(rejected)) = (transcript(&chosen), transcript(&rejected))
                {
                    return self.without_prompt(&chosen, &rejected);
                }
                let shared = shared_text(&chosen, &rejected);
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
            // UltraFeedback: the prompt stands in the answers too.
            (Some(prompt), Turns::Chat(chosen), Turns::Chat(rejected))
                if !chosen[0].is_assistant() && chosen.first() == rejected.first() =>
            {
                let begins = match &prompt {
                    Turns::Plain(text) => chosen.iter().any(|message| {
                        message.role == "user" && message.content.trim() == text.trim()
                    }),
                    Turns::Chat(messages) => {
                        chosen.starts_with(messages) && rejected.starts_with(messages)
                    }
                };
                if !begins {
                    let cause = "is not how `chosen` and `rejected` begin, which have a user's message of their own";
                    return Err(self.wrong(
                        "prompt",
                        cause,
                        "remove the prompt, or the messages before the answers",
                    ));
                }
                self.without_prompt(&chosen, &rejected)
            }
            (Some(Turns::Plain(prompt)), Turns::Plain(chosen), Turns::Plain(rejected)) => {
                if let (Some(p), Some(c), Some(r)) =
                    (transcript(&prompt), transcript(&chosen), transcript(&rejected))
                {
                    return if c.starts_with(&p) && r.starts_with(&p) {
                        self.without_prompt(&c, &r)
                    } else {
                        self.pair(Turns::Chat(p), Turns::Chat(c), Turns::Chat(r))
                    };
                }
                let prompt = match transcript(&prompt) {
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

    /// Two conversations: their prompt is what both begin with.
    fn without_prompt(&self, chosen: &[Message], rejected: &[Message]) -> Result<Body, TextError> {
        if chosen == rejected {
            return Err(TextError::EqualAnswers { place: self.place.to_owned() });
        }
        let shared = chosen.iter().zip(rejected).take_while(|(a, b)| a == b).count();
        let wrong =
            |cause| Err(self.wrong("chosen", cause, "give a `prompt` and two answers to it"));
        if shared == 0 {
            return wrong("shares no first message with `rejected`");
        }
        if shared == chosen.len().min(rejected.len()) {
            return wrong("or `rejected` is only the beginning of the other");
        }
        let chat = |messages: &[Message]| Turns::Chat(messages.to_vec());
        self.pair(chat(&chosen[..shared]), chat(&chosen[shared..]), chat(&rejected[shared..]))
    }

    /// A thumb up or down. A `label` that is something else is an unused field.
    fn label(&mut self) -> Result<Option<bool>, TextError> {
        let Some(field) = self.first(&LABELS) else { return Ok(None) };
        let good = match &self.object[field] {
            Value::Bool(good) => *good,
            Value::Number(number) if number.as_f64() == Some(1.0) => true,
            Value::Number(number) if number.as_f64() == Some(0.0) => false,
            Value::Number(number) => {
                let cause = format!("is {number}");
                return Err(self.wrong(
                    field,
                    &cause,
                    "a rating is true or false; remove the key if it is none",
                ));
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

    fn system(&mut self) -> Result<Option<String>, TextError> {
        let Some(field) = self.first(&SYSTEMS) else { return Ok(None) };
        let system = self.string(field)?;
        Ok((!system.trim().is_empty()).then_some(system))
    }

    fn has(&self, key: &str) -> bool {
        self.object.contains_key(key)
    }

    fn first<'k>(&self, keys: &[&'k str]) -> Option<&'k str> {
        keys.iter().copied().find(|key| self.has(key))
    }

    fn keys(&self) -> String {
        let name = |(key, value): (&String, &Value)| {
            if value.is_null() { format!("`{key}` (null)") } else { format!("`{key}`") }
        };
        let keys: Vec<_> = self.object.iter().map(name).collect();
        if keys.is_empty() { "(none)".to_owned() } else { keys.join(", ") }
    }

    /// A field of our own names: a string as it is written, or messages.
    fn turns(&mut self, field: &str) -> Result<Turns, TextError> {
        if let Some(value) = self.object.get_mut(field) {
            *value = parsed_messages(value.take());
        }
        match self.object.get(field) {
            Some(Value::Array(_)) => self.messages(field).map(Turns::Chat),
            _ => self.string(field).map(Turns::Plain),
        }
    }

    /// A field of another name: a string is a turn.
    fn spoken(&mut self, field: &str, role: &str) -> Result<Turns, TextError> {
        Ok(Turns::Chat(match self.turns(field)? {
            Turns::Plain(text) => vec![Message::new(role, &text)],
            Turns::Chat(messages) => messages,
        }))
    }

    fn string(&mut self, field: &str) -> Result<String, TextError> {
        match self.object.shift_remove(field) {
            Some(Value::String(text)) => Ok(text),
            Some(Value::Number(number)) if field == "answer" => Ok(number.to_string()),
            other => Err(self.wrong(
                field,
                &format!("is {}", kind_of(other.as_ref())),
                "make it a string",
            )),
        }
    }

    fn messages(&mut self, field: &str) -> Result<Vec<Message>, TextError> {
        let remedy = "make it a list of {\"role\": …, \"content\": …}";
        let list = match self.object.shift_remove(field).map(parsed) {
            Some(Value::Array(list)) => list,
            // OpenAI's outputs may be one message.
            Some(message @ Value::Object(_)) if field.ends_with("_output") => vec![message],
            Some(Value::String(text)) if text.trim_start().starts_with('[') => {
                let cause = if text.contains("{'") {
                    "is a list as Python prints it, not JSON"
                } else {
                    "is a string that begins like a list but is not JSON"
                };
                return Err(self.wrong(field, cause, "write it with json.dumps, or as JSONL"));
            }
            other => {
                return Err(self.wrong(field, &format!("is {}", kind_of(other.as_ref())), remedy));
            }
        };
        if list.is_empty() {
            return Err(self.nothing(&format!("`{field}` is empty")));
        }
        let message = |(i, message): (usize, Value)| {
            Message::from_json(message).map_err(|(cause, remedy)| {
                self.wrong(field, &format!("has message {i} (from 0), {cause}"), &remedy)
            })
        };
        list.into_iter().enumerate().map(message).collect()
    }

    /// The tools of a record: a list of JSON schemas, or the same as a string (columns of tables hold strings).
    fn tools(&mut self) -> Result<Vec<Value>, TextError> {
        let remedy = "make it a list of JSON schemas, as transformers' `tools`";
        let tools = match self.object.shift_remove("tools").map(parsed) {
            None => return Ok(vec![]),
            Some(Value::String(text)) if text.trim().is_empty() => return Ok(vec![]),
            Some(Value::Array(tools)) => tools.into_iter().map(parsed),
            Some(other) => {
                return Err(self.wrong("tools", &format!("is {}", kind_of(Some(&other))), remedy));
            }
        };
        let tool = |tool: Value| match tool {
            Value::Object(mut tool) => {
                drop_nulls(&mut tool);
                Ok(Value::Object(tool))
            }
            _ => Err(self.wrong("tools", "holds what is no object", remedy)),
        };
        tools.map(tool).collect()
    }

    /// Variables of the chat template, as TRL's records carry them.
    fn arguments(&mut self) -> Result<Map<String, Value>, TextError> {
        let field = "chat_template_kwargs";
        match self.object.shift_remove(field).map(parsed) {
            None => Ok(Map::new()),
            Some(Value::Object(mut arguments)) => {
                drop_nulls(&mut arguments);
                Ok(arguments)
            }
            Some(other) => {
                let cause = format!("is {}", kind_of(Some(&other)));
                Err(self.wrong(
                    field,
                    &cause,
                    "make it an object, such as {\"enable_thinking\": false}",
                ))
            }
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

/// A record with a system message before everything; the error is why it can have none.
fn with_system(mut body: Body, system: Option<String>) -> Result<Body, &'static str> {
    let Some(system) = system else { return Ok(body) };
    let turns = match &mut body {
        Body::Chat { messages } => return prepend(messages, &system).map(|()| body),
        Body::Text { .. } => return Err("stands beside a raw text, which has no system message"),
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
        Some(_) => return Err("differs from the system message that the conversation has"),
        None => messages.insert(0, Message::new("system", system)),
    }
    Ok(())
}

/// A value that a column of strings holds as JSON: a list or an object.
fn parsed(value: Value) -> Value {
    match value {
        Value::String(text) => match serde_json::from_str(&text) {
            Ok(inner @ (Value::Array(_) | Value::Object(_))) => inner,
            _ => Value::String(text),
        },
        other => other,
    }
}

/// A string that is a list of messages as JSON; every other string is a text.
fn parsed_messages(value: Value) -> Value {
    let Value::String(text) = &value else { return value };
    if !text.trim_start().starts_with('[') {
        return value;
    }
    let speaks = |message: &Value| message.get("role").or(message.get("from")).is_some();
    match serde_json::from_str(text) {
        Ok(Value::Array(list)) if !list.is_empty() && list.iter().all(speaks) => Value::Array(list),
        _ => value,
    }
}

/// What the last `\boxed{…}` of a solution holds.
fn boxed(solution: &str) -> Option<&str> {
    let start = solution.rfind("\\boxed{")? + "\\boxed{".len();
    let mut depth = 1;
    for (at, c) in solution[start..].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(&solution[start..start + at]);
        }
    }
    None
}

/// How many bytes of two plain texts are their prompt: the beginning that they share, to the end of its last whole word.
fn shared_text(a: &str, b: &str) -> usize {
    let same: usize =
        a.chars().zip(b.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    a[..same].rfind(char::is_whitespace).unwrap_or(0)
}

//! Chat templates: messages to text, and which part of that text the model is trained to say.
//!
//! Templates are Jinja, as saved in `tokenizer_config.json` or `chat_template.jinja`. The trained part is found exactly in one of two ways:
//! - by the template's own `{% generation %} … {% endgeneration %}` marks (transformers' extension): they are
//!   replaced, before compiling, by two marker characters around the same text, which are then found and removed;
//! - without marks, by rendering prefixes: what the conversation up to an assistant's turn lacks beside the one
//!   with that turn is what the assistant said, up to its end-of-turn token.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::civil::{DateTime, date};
use minijinja::value::{Serde, Value};

use crate::jinja::{Compiled, strftime_at};
use crate::message::value_contains;
use crate::tokenizer::Spanned;
use crate::{END_OF_TEXT, Example, Message, TextError, Tokenizer};

/// The template that is used unless there is reason for another.
pub(crate) const DEFAULT: &str = "default";
/// The template for conversations with tools, where a model has one of its own for them.
const TOOL_USE: &str = "tool_use";
/// Template variables that hold the marker characters while spans are looked for, and nothing otherwise.
const START: &str = "crisol_generation_start";
const END: &str = "crisol_generation_end";
/// The moment that templates take for now unless they are told another: the same data must train in the same way tomorrow. It
/// is the day that Llama 3.2's template writes itself where it is not given one.
const NOW: DateTime = date(2024, 7, 26).at(0, 0, 0, 0);

/// The template of the embedded model.
const CRISOL: &str = "\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}
{%- elif message['role'] in ['system', 'user'] -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- else -%}
{{ raise_exception('unknown role `' + message['role'] + '`; the roles are system, user and assistant') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
";

/// A compiled chat template, or several of one model, with what it writes beside the messages.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// Templates by name; one of them is [`DEFAULT`].
    sources: BTreeMap<String, String>,
    /// Those with generation marks.
    marked: Vec<String>,
    /// `eos_token`, `bos_token`, …: the named tokens that a template may write.
    tokens: BTreeMap<String, String>,
    /// The tools that the assistant may call, as JSON schemas.
    tools: Vec<serde_json::Value>,
    now: DateTime,
    compiled: Compiled,
}

/// A rendered conversation with the byte ranges that the assistant says.
struct Rendered {
    text: String,
    spans: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles a template. `tokens` are the variables `eos_token`, `bos_token`, … with the tokens as written.
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<Self, TextError> {
        Self::from_sources(BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]), tokens)
    }

    /// Compiles a model's templates, which have names; `default` must be one.
    pub fn from_sources(
        sources: BTreeMap<String, String>,
        tokens: BTreeMap<String, String>,
    ) -> Result<Self, TextError> {
        if !sources.contains_key(DEFAULT) {
            let names: Vec<&str> = sources.keys().map(String::as_str).collect();
            return Err(TextError::NoDefaultTemplate { names: names.join(", ") });
        }
        let mut marked = vec![];
        let replaced = sources.iter().map(|(name, source)| {
            let (replaced, marks) = replace_marks(source);
            if marks {
                marked.push(name.clone());
            }
            (name.clone(), replaced)
        });
        let compiled = Compiled::new(replaced)?;
        Ok(Self { sources, marked, tokens, tools: vec![], now: NOW, compiled })
    }

    /// The template with tools that the assistant may call (each a JSON schema, as the `tools` of transformers'
    /// `apply_chat_template`).
    #[must_use]
    pub fn with_tools(&self, tools: Vec<serde_json::Value>) -> Self {
        Self { tools, ..self.clone() }
    }

    /// The template with this moment for `strftime_now`. Without it, templates take 26 July 2024 for today, so that the same
    /// data is trained in the same way tomorrow.
    #[must_use]
    pub fn at(&self, now: DateTime) -> Self {
        Self { now, ..self.clone() }
    }

    /// The embedded template: `<|role|>` content `<|end|>` for each message, and `<|assistant|>` as the generation
    /// prompt. What the assistant says and its `<|end|>` are trained.
    pub fn crisol() -> Self {
        let tokens = BTreeMap::from([("eos_token".to_owned(), END_OF_TEXT.to_owned())]);
        Self::new(CRISOL, tokens).expect("the embedded template compiles, as a test checks")
    }

    /// The default template as it was given and as it is saved, generation marks included.
    pub fn source(&self) -> &str {
        &self.sources[DEFAULT]
    }

    /// All templates by name, as they were given.
    pub fn sources(&self) -> &BTreeMap<String, String> {
        &self.sources
    }

    /// The name of the template that these tools ask for.
    fn name(&self) -> &str {
        if !self.tools.is_empty() && self.sources.contains_key(TOOL_USE) { TOOL_USE } else { DEFAULT }
    }

    /// Whether that template marks what the assistant says (`{% generation %}`).
    pub fn marks_generation(&self) -> bool {
        self.marked.iter().any(|name| name == self.name())
    }

    /// The conversation as text; with `add_generation_prompt`, followed by what introduces the assistant's answer.
    pub fn render(&self, messages: &[Message], add_generation_prompt: bool) -> Result<String, TextError> {
        self.render_marked(messages, add_generation_prompt, "", "")
    }

    /// The whole conversation as token ids, and which of them are trained: what the assistant says and its end of
    /// turn, in every one of its turns.
    pub fn encode(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Example, TextError> {
        let Rendered { text, spans } = self.render_spans(messages, 0)?;
        self.mark(tokenizer, tokenizer.encode_spans(&text)?, &text, &spans)
    }

    /// The conversation as the model sees it when it is to answer.
    pub fn prompt(&self, tokenizer: &Tokenizer, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        tokenizer.encode(&self.render(messages, true)?)
    }

    /// The ids of a prompt, and the example of that prompt with an answer, which starts with the same ids and in
    /// which only the answer is trained, not the assistant's turns within the prompt.
    pub(crate) fn encode_answer(
        &self,
        tokenizer: &Tokenizer,
        prompt: &[Message],
        answer: &[Message],
    ) -> Result<(Vec<u32>, Example), TextError> {
        let before = self.render(prompt, true)?;
        let Rendered { text, spans } = self.render_spans(&[prompt, answer].concat(), prompt.len())?;
        let Some(after) = text.strip_prefix(&before) else {
            return Err(not_a_prefix(prompt.len(), Cut::Answer, &before, &text));
        };
        let seam = before.len();
        let spans: Vec<_> = spans
            .into_iter()
            .filter(|span| span.end > seam)
            .map(|span| span.start.saturating_sub(seam)..span.end - seam)
            .collect();
        let (ids, tokens) = tokenizer.encode_after(&before, after)?;
        let answer = self.mark(tokenizer, tokens, after, &spans)?;
        Ok((ids.clone(), Example::after_prompt(ids, answer)))
    }

    /// Marks as trained the tokens of `text` that overlap `spans`.
    fn mark(
        &self,
        tokenizer: &Tokenizer,
        tokens: Spanned,
        text: &str,
        spans: &[Range<usize>],
    ) -> Result<Example, TextError> {
        let mut trained = vec![false; tokens.ids.len()];
        for span in spans {
            let overlaps = |token: &Range<usize>| token.start < span.end && span.start < token.end;
            let first = tokens.spans.partition_point(|token| token.end <= span.start);
            let inside = tokens.spans[first..].iter().take_while(|token| overlaps(token)).count();
            let ends_turn = |t: &usize| self.ends_turn(tokenizer, tokens.ids[*t]);
            let last = (first..first + inside).rev().find(ends_turn);
            let rest = last.map_or("", |t| &text[tokens.spans[t].end.min(span.end)..span.end]);
            let Some(last) = last.filter(|_| rest.trim().is_empty()) else {
                let ending: Vec<char> = text[span.clone()].chars().rev().take(20).collect();
                return Err(TextError::NoEndOfTurn { ending: ending.into_iter().rev().collect() });
            };
            // A template's own marks are taken at their word, as transformers does; a span found by prefixes may hold
            // the line break with which the template starts the next message.
            let end = if self.marks_generation() { first + inside } else { last + 1 };
            trained[first..end].fill(true);
        }
        Ok(Example { ids: tokens.ids, trained })
    }

    fn ends_turn(&self, tokenizer: &Tokenizer, id: u32) -> bool {
        tokenizer.is_special(id)
            || self.tokens.get("eos_token").is_some_and(|eos| tokenizer.token_id(eos) == Some(id))
    }

    /// The token that ends an assistant's turn, learnt from a short conversation.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Result<u32, TextError> {
        let probe = [Message::user("a"), Message::assistant("b")];
        let example = self.encode(tokenizer, &probe)?;
        let trained = example.ids.iter().zip(&example.trained).filter(|(_, trained)| **trained);
        let last = trained.map(|(&id, _)| id).rfind(|&id| self.ends_turn(tokenizer, id));
        last.ok_or_else(|| TextError::NoEndOfTurn { ending: String::new() })
    }

    fn render_marked(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        start: &str,
        end: &str,
    ) -> Result<String, TextError> {
        let mut variables: BTreeMap<String, Value> =
            self.tokens.iter().map(|(name, token)| (name.clone(), Value::from(token.as_str()))).collect();
        let tools = (!self.tools.is_empty()).then(|| Value::from(Serde(&self.tools)));
        for (name, value) in [
            ("messages", messages.iter().map(Message::variable).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", tools.into()),
            ("documents", Value::from(())),
            ("strftime_now", strftime_at(self.now)),
            (START, Value::from(start)),
            (END, Value::from(end)),
        ] {
            variables.insert(name.to_owned(), value);
        }
        let input = messages.iter().map(|message| message.content.len()).sum();
        self.compiled.render(self.name(), variables, input)
    }

    /// The conversation and what the assistant says in it, at least from message `first` on.
    fn render_spans(&self, messages: &[Message], first: usize) -> Result<Rendered, TextError> {
        if self.marks_generation() {
            self.spans_by_marks(messages)
        } else {
            self.spans_by_prefixes(messages, first)
        }
    }

    fn spans_by_marks(&self, messages: &[Message]) -> Result<Rendered, TextError> {
        let [start, end] = self.free_markers(messages)?;
        let marked = self.render_marked(messages, false, &start.to_string(), &end.to_string())?;
        let mut text = String::with_capacity(marked.len());
        let mut spans: Vec<Range<usize>> = vec![];
        let mut open = None;
        for c in marked.chars() {
            if c == start && open.is_none() {
                open = Some(text.len());
            } else if c == end && open.is_some() {
                spans.extend(open.take().map(|from| from..text.len()).filter(|span| !span.is_empty()));
            } else if c == start || c == end {
                return Err(TextError::Template("{% generation %} marks inside one another".to_owned()));
            } else {
                text.push(c);
            }
        }
        if open.is_some() {
            return Err(TextError::Template("the template drops an {% endgeneration %} mark".to_owned()));
        }
        Ok(Rendered { text, spans })
    }

    /// Two characters of Unicode's private use area that occur neither in the template nor in the conversation.
    fn free_markers(&self, messages: &[Message]) -> Result<[char; 2], TextError> {
        let used = |c: char| {
            self.sources.values().chain(self.tokens.values()).any(|text| text.contains(c))
                || messages.iter().any(|message| message.contains(c))
                || self.tools.iter().any(|tool| value_contains(tool, c))
        };
        let mut free = ('\u{E000}'..='\u{F8FF}').filter(|&c| !used(c));
        match (free.next(), free.next()) {
            (Some(start), Some(end)) => Ok([start, end]),
            _ => Err(TextError::Template(
                "the conversation uses all of Unicode's private use area (U+E000 to U+F8FF), of which two characters \
                 are needed to find the trained tokens; remove some"
                    .to_owned(),
            )),
        }
    }

    fn spans_by_prefixes(&self, messages: &[Message], first: usize) -> Result<Rendered, TextError> {
        let text = self.render(messages, false)?;
        let mut spans = vec![];
        for (i, message) in messages.iter().enumerate().skip(first).filter(|(_, m)| m.is_assistant()) {
            let before = self.render(&messages[..i], true)?;
            let with = self.render(&messages[..=i], false)?;
            if !with.starts_with(&before) {
                return Err(not_a_prefix(i, Cut::Answer, &before, &with));
            }
            if !text.starts_with(&with) {
                return Err(not_a_prefix(i, Cut::Later, &with, &text));
            }
            let turn = &with[before.len()..];
            // A special token within the content must not pass for the turn's end.
            let content = message.content.trim();
            let said = if content.is_empty() { None } else { turn.rfind(content) };
            let tail = said.map_or(0, |at| at + content.len());
            if turn[tail..].trim().is_empty() {
                let ending: Vec<char> = turn.chars().rev().take(20).collect();
                return Err(TextError::NoEndOfTurn { ending: ending.into_iter().rev().collect() });
            }
            spans.push(before.len()..with.len());
        }
        Ok(Rendered { text, spans })
    }
}

/// Replaces generation marks by blocks that write the marker variables, and says whether there were any. The first and
/// last tag keep the mark's whitespace control (`{%-`, `-%}`), and `with` gives the block its own scope, as
/// transformers' extension does.
fn replace_marks(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut marked = false;
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let close = match rest.as_bytes().get(1) {
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            Some(b'{') => "}}",
            _ => {
                out.push('{');
                rest = &rest[1..];
                continue;
            }
        };
        let Some(length) = rest[2..].find(close).map(|end| end + 4) else { break };
        let tag = &rest[..length];
        rest = &rest[length..];
        if close == "%}" {
            let (left, inner) = split_control(&tag[2..length - 2], str::strip_prefix);
            let (right, name) = split_control(inner, str::strip_suffix);
            let replaced = match name.trim() {
                "generation" => format!("{{%{left} with %}}{{{{ {START} }}}}{{% if true {right}%}}"),
                "endgeneration" => format!("{{%{left} endif %}}{{{{ {END} }}}}{{% endwith {right}%}}"),
                _ => tag.to_owned(),
            };
            marked |= replaced != tag;
            out.push_str(&replaced);
            continue;
        }
        out.push_str(tag);
    }
    out.push_str(rest);
    (out, marked)
}

/// Splits Jinja's whitespace control (`-` or `+`) off one side of a tag.
fn split_control<'a>(
    tag: &'a str,
    strip: impl Fn(&'a str, char) -> Option<&'a str>,
) -> (&'static str, &'a str) {
    match (strip(tag, '-'), strip(tag, '+')) {
        (Some(inner), _) => ("-", inner),
        (_, Some(inner)) => ("+", inner),
        _ => ("", tag),
    }
}

/// Where what a template writes for the beginning of a conversation is not the beginning of what it writes for more of it.
#[derive(Clone, Copy)]
enum Cut {
    /// Between what introduces the assistant's answer and the answer.
    Answer,
    /// Between the answer and what comes after it.
    Later,
}

fn not_a_prefix(message: usize, cut: Cut, alone: &str, whole: &str) -> TextError {
    let same: usize =
        alone.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(c, _)| c.len_utf8()).sum();
    let excerpt = |text: &str| text[same..].chars().take(30).collect::<String>();
    let (alone, whole) = (excerpt(alone), excerpt(whole));
    match cut {
        Cut::Answer => TextError::OtherAnswer { message, prompt: alone, answered: whole },
        Cut::Later => TextError::OtherPast { message, last: alone, past: whole },
    }
}

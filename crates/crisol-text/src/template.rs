//! Chat templates: from messages to text. `turns.rs` encodes the text as examples.
//!
//! Templates are Jinja, from `tokenizer_config.json` or `chat_template.jinja`. Some mark the
//! assistant's text with `{% generation %} … {% endgeneration %}`, an extension of transformers.
//! Before compiling, these tags are replaced by variables. Rendering fills them with two marker
//! characters, which are then found and removed.

use std::collections::BTreeMap;
use std::ops::Range;

use jiff::civil::{DateTime, date};
use minijinja::value::{Serde, Value};
use serde_json::Map;

use crate::jinja::{Compiled, strftime_at};
use crate::message::value_contains;
use crate::{END_OF_TEXT, Message, TextError, Tokenizer};

/// The name of the template for ordinary conversations.
pub(crate) const DEFAULT: &str = "default";
/// The name of the template for conversations with tools, which a model may have.
const TOOL_USE: &str = "tool_use";
/// Template variables for the marker characters; empty unless spans are wanted.
const START: &str = "crisol_generation_start";
const END: &str = "crisol_generation_end";
/// The default of a template's current time, fixed so that training does not depend on the date.
/// It is the default date of Llama 3.2's template.
const DEFAULT_NOW: DateTime = date(2024, 7, 26).at(0, 0, 0, 0);

/// The template of the embedded model.
const CRISOL: &str = "\
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}
{%- elif message['role'] in ['system', 'user'] -%}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{%- else -%}
{{ raise_exception('unknown role `' + message['role'] + '`; the roles are system, user and \
assistant') }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}
";

/// The compiled chat templates of a model, with their variables.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// Templates by name; one of them is [`DEFAULT`].
    sources: BTreeMap<String, String>,
    /// Names of the templates with generation tags.
    marked: Vec<String>,
    /// The named tokens: `eos_token`, `bos_token`, ….
    tokens: BTreeMap<String, String>,
    /// Tools that the assistant may call, as JSON schemas.
    tools: Vec<serde_json::Value>,
    /// Variables set by data or user, such as `enable_thinking`.
    arguments: Map<String, serde_json::Value>,
    now: DateTime,
    compiled: Compiled,
}

/// A rendered conversation, and the byte ranges of the assistant's text.
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) spans: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Compiles a template. `tokens` are the named tokens: `eos_token`, `bos_token`, ….
    pub fn new(source: &str, tokens: BTreeMap<String, String>) -> Result<Self, TextError> {
        Self::from_sources(BTreeMap::from([(DEFAULT.to_owned(), source.to_owned())]), tokens)
    }

    /// Compiles the named templates of a model; one must be `default`.
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
            let (replaced, has_tags) = replace_generation_tags(source);
            if has_tags {
                marked.push(name.clone());
            }
            (name.clone(), replaced)
        });
        let compiled = Compiled::new(replaced)?;
        Ok(Self {
            sources,
            marked,
            tokens,
            tools: vec![],
            arguments: Map::new(),
            now: DEFAULT_NOW,
            compiled,
        })
    }

    /// The template with tools that the assistant may call: JSON schemas, as the `tools` of
    /// transformers' `apply_chat_template`.
    #[must_use]
    pub fn with_tools(&self, tools: Vec<serde_json::Value>) -> Self {
        Self { tools, ..self.clone() }
    }

    /// The template with additional variables, such as `enable_thinking`; transformers calls them
    /// `chat_template_kwargs`.
    #[must_use]
    pub fn with_arguments(&self, arguments: Map<String, serde_json::Value>) -> Self {
        let mut template = self.clone();
        template.arguments.extend(arguments);
        template
    }

    /// Whether the template's source contains `word`, such as a variable's name.
    pub fn mentions(&self, word: &str) -> bool {
        self.sources[self.name()].contains(word)
    }

    /// The template with this time for `strftime_now`. The default is 26 July 2024, so that
    /// training does not depend on the date.
    #[must_use]
    pub fn with_now(&self, now: DateTime) -> Self {
        Self { now, ..self.clone() }
    }

    /// The embedded template: `<|role|>` content `<|end|>` per message, `<|assistant|>` as
    /// generation prompt. The assistant's text and its `<|end|>` are trained.
    pub fn crisol() -> Self {
        let tokens = BTreeMap::from([("eos_token".to_owned(), END_OF_TEXT.to_owned())]);
        Self::new(CRISOL, tokens).expect("the embedded template compiles, as a test checks")
    }

    /// The source of the default template, with its generation tags.
    pub fn source(&self) -> &str {
        &self.sources[DEFAULT]
    }

    /// The sources of all templates, by name.
    pub fn sources(&self) -> &BTreeMap<String, String> {
        &self.sources
    }

    /// The named tokens: `eos_token`, `bos_token`, ….
    pub(crate) fn tokens(&self) -> &BTreeMap<String, String> {
        &self.tokens
    }

    /// The tools that the assistant may call.
    pub(crate) fn tools(&self) -> &[serde_json::Value] {
        &self.tools
    }

    /// The name of the template to use: `tool_use`, if there are tools and such a template.
    fn name(&self) -> &str {
        if !self.tools.is_empty() && self.sources.contains_key(TOOL_USE) {
            TOOL_USE
        } else {
            DEFAULT
        }
    }

    /// Whether the template in use has generation tags.
    pub fn marks_generation(&self) -> bool {
        self.marked.iter().any(|name| name == self.name())
    }

    /// Renders the conversation; with `add_generation_prompt`, up to where the assistant answers.
    pub fn render(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
    ) -> Result<String, TextError> {
        self.render_marked(messages, add_generation_prompt, "", "")
    }

    /// Token ids of the conversation with generation prompt.
    pub fn prompt(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<u32>, TextError> {
        tokenizer.encode(&self.render(&self.adapt_messages(messages)?, true)?)
    }

    /// Whether a token can end a turn: a special token or the `eos_token`.
    pub(crate) fn ends_turn(&self, tokenizer: &Tokenizer, id: u32) -> bool {
        tokenizer.is_special(id)
            || self.tokens.get("eos_token").is_some_and(|eos| tokenizer.token_id(eos) == Some(id))
    }

    /// The token that ends an assistant turn, found by rendering a short conversation.
    pub fn end_of_turn(&self, tokenizer: &Tokenizer) -> Result<u32, TextError> {
        const ANSWER: &str = "zq";
        let text = self.render(&[Message::user("a"), Message::assistant(ANSWER)], false)?;
        let ids = tokenizer.encode(&text[text.rfind(ANSWER).unwrap_or(0)..])?;
        let end = ids.into_iter().find(|&id| self.ends_turn(tokenizer, id));
        end.ok_or_else(|| TextError::NoEndOfTurn { ending: String::new() })
    }

    /// Renders with the given markers around the assistant's text.
    fn render_marked(
        &self,
        messages: &[Message],
        add_generation_prompt: bool,
        start: &str,
        end: &str,
    ) -> Result<String, TextError> {
        let mut variables: BTreeMap<String, Value> = self
            .tokens
            .iter()
            .map(|(name, token)| (name.clone(), Value::from(token.as_str())))
            .collect();
        for (name, value) in
            [("documents", Value::from(())), ("strftime_now", strftime_at(self.now))]
        {
            variables.insert(name.to_owned(), value);
        }
        for (name, value) in &self.arguments {
            variables.insert(name.clone(), Value::from(Serde(value)));
        }
        let tools = (!self.tools.is_empty()).then(|| Value::from(Serde(&self.tools)));
        for (name, value) in [
            ("messages", messages.iter().map(Message::to_template_value).collect()),
            ("add_generation_prompt", Value::from(add_generation_prompt)),
            ("tools", tools.into()),
            (START, Value::from(start)),
            (END, Value::from(end)),
        ] {
            variables.insert(name.to_owned(), value);
        }
        let input_bytes = messages.iter().map(|message| message.content.len()).sum();
        self.compiled.render(self.name(), variables, input_bytes)
    }

    /// Renders the conversation, with the spans inside generation tags.
    pub(crate) fn render_spans(&self, messages: &[Message]) -> Result<Rendered, TextError> {
        let [start, end] = self.unused_markers(messages)?;
        let marked = self.render_marked(messages, false, &start.to_string(), &end.to_string())?;
        let mut text = String::with_capacity(marked.len());
        let mut spans: Vec<Range<usize>> = vec![];
        let mut open = None;
        for c in marked.chars() {
            if c == start && open.is_none() {
                open = Some(text.len());
            } else if c == end && open.is_some() {
                spans.extend(
                    open.take().map(|from| from..text.len()).filter(|span| !span.is_empty()),
                );
            } else if c == start || c == end {
                return Err(TextError::Template(
                    "its {% generation %} marks are nested; close each before the next".to_owned(),
                ));
            } else {
                text.push(c);
            }
        }
        if open.is_some() {
            return Err(TextError::Template(
                "it drops an {% endgeneration %} mark; close each {% generation %} mark".to_owned(),
            ));
        }
        Ok(Rendered { text, spans })
    }

    /// Two private-use characters that occur neither in the template nor in the conversation.
    fn unused_markers(&self, messages: &[Message]) -> Result<[char; 2], TextError> {
        let used = |c: char| {
            self.sources.values().chain(self.tokens.values()).any(|text| text.contains(c))
                || self.arguments.values().any(|value| value_contains(value, c))
                || messages.iter().any(|message| message.contains(c))
                || self.tools.iter().any(|tool| value_contains(tool, c))
        };
        let mut unused = ('\u{E000}'..='\u{F8FF}').filter(|&c| !used(c));
        match (unused.next(), unused.next()) {
            (Some(start), Some(end)) => Ok([start, end]),
            _ => Err(TextError::Template(
                "the conversation uses all private-use characters (U+E000 to U+F8FF), but two are \
                 needed to find the trained tokens; remove some"
                    .to_owned(),
            )),
        }
    }
}

/// Replaces generation tags by the marker variables, and returns whether there were any.
///
/// The first and last new tag keep the whitespace control (`{%-`, `-%}`). `with` gives the block
/// its own scope, as transformers' extension does.
fn replace_generation_tags(source: &str) -> (String, bool) {
    let mut out = String::with_capacity(source.len());
    let mut has_tags = false;
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
                "generation" => {
                    format!("{{%{left} with %}}{{{{ {START} }}}}{{% if true {right}%}}")
                }
                "endgeneration" => {
                    format!("{{%{left} endif %}}{{{{ {END} }}}}{{% endwith {right}%}}")
                }
                _ => tag.to_owned(),
            };
            has_tags |= replaced != tag;
            out.push_str(&replaced);
            continue;
        }
        out.push_str(tag);
    }
    out.push_str(rest);
    (out, has_tags)
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

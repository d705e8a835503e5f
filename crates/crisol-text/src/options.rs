//! Options for encoding records as examples, and a summary of the result.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Options for encoding records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextOptions {
    /// What to do with records longer than the context.
    pub too_long: OverlongPolicy,
    /// How to encode a prompt or answer that is a string.
    pub strings: StringFormat,
    /// Chat template variables, such as `enable_thinking = false`. A record's own
    /// (`chat_template_kwargs`) take precedence.
    pub arguments: Map<String, Value>,
}

/// What to do with a record that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlongPolicy {
    /// Truncate it. If no trained token is left, drop it.
    #[default]
    Cut,
    /// Drop it.
    Skip,
    /// Stop with an error.
    Error,
}

/// How to encode a string prompt or answer, unless the other is a list of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StringFormat {
    /// As raw text.
    #[default]
    Text,
    /// As one message: a prompt of the user, an answer of the assistant.
    Message,
}

/// Counts of what happened while records were encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct EncodingSummary {
    /// Records read.
    pub records: usize,
    /// Examples truncated to the context.
    pub truncated: usize,
    /// Examples dropped because they are longer than the context.
    pub dropped: usize,
    /// Preference pairs dropped because both answers have equal tokens within the context.
    pub equal_pairs: usize,
    /// Assistant turns that became separate examples.
    pub split_turns: usize,
    /// Records whose prompt is raw text, although the model has a chat template.
    pub raw_prompts: usize,
    /// Trained answers without text.
    pub empty_answers: usize,
    /// Trained answers whose thoughts the template drops.
    pub dropped_thoughts: usize,
    /// Records with a system message, tool result or tools that the template leaves out.
    pub dropped_context: usize,
}

impl AddAssign for EncodingSummary {
    fn add_assign(&mut self, other: Self) {
        let Self {
            records,
            truncated,
            dropped,
            equal_pairs,
            split_turns,
            raw_prompts,
            empty_answers,
            dropped_thoughts,
            dropped_context,
        } = other;
        self.records += records;
        self.truncated += truncated;
        self.dropped += dropped;
        self.equal_pairs += equal_pairs;
        self.split_turns += split_turns;
        self.raw_prompts += raw_prompts;
        self.empty_answers += empty_answers;
        self.dropped_thoughts += dropped_thoughts;
        self.dropped_context += dropped_context;
    }
}

impl EncodingSummary {
    /// Notes for the user, one line each; none for counts of 0.
    pub fn notes(&self, context: usize) -> Vec<String> {
        let Self {
            records,
            truncated,
            dropped,
            equal_pairs,
            split_turns,
            raw_prompts,
            empty_answers,
            dropped_thoughts,
            dropped_context,
        } = *self;
        let mut notes = vec![];
        let mut note = |count: usize, text: String| {
            if count > 0 {
                notes.push(format!("Of {records} records: {text}"));
            }
        };
        note(
            truncated,
            format!(
                "{truncated} longer than the context of {context} tokens; their ends are cut off \
                 (text.too_long = \"skip\" drops them)"
            ),
        );
        note(dropped, format!("{dropped} dropped, too long for the context of {context} tokens"));
        note(
            equal_pairs,
            format!(
                "{equal_pairs} dropped, because both answers are the same within the context of \
                 {context} tokens"
            ),
        );
        note(
            split_turns,
            format!(
                "{split_turns} assistant turns are separate examples, because the chat template \
                 renders them differently once messages follow, or tokens merge (crisol data \
                 inspect shows them)"
            ),
        );
        note(
            raw_prompts,
            format!(
                "{raw_prompts} have a string as prompt, which is encoded as raw text, although the \
                 model has a chat template (text.strings = \"message\" makes it a user message)"
            ),
        );
        note(
            empty_answers,
            format!(
                "{empty_answers} answers are empty; the model learns to say nothing (remove them)"
            ),
        );
        note(
            dropped_thoughts,
            format!(
                "{dropped_thoughts} answers have thoughts that the chat template drops; the \
                 thoughts \
                 are trained all the same, and later turns do not see them"
            ),
        );
        note(
            dropped_context,
            format!(
                "{dropped_context} have a system message, tool result or tools that the chat \
                 template leaves out; the model does not see them (crisol data inspect shows them)"
            ),
        );
        notes
    }
}

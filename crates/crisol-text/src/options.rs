//! How records become examples where there is a choice, and what became of them: a phase says both at its start.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// How text is made of records.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TextOptions {
    /// What is done with records that are longer than the context.
    pub too_long: TooLong,
    /// What a string is that stands for a prompt or an answer.
    pub strings: Strings,
    /// Variables of the chat template, such as `enable_thinking = false`; those of a record (`chat_template_kwargs`) come
    /// before them.
    pub arguments: Map<String, Value>,
}

/// What is done with a record that is longer than the context.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TooLong {
    /// Its end is cut off; where nothing to train is left, it is dropped.
    #[default]
    Cut,
    /// It is dropped.
    Skip,
    /// It is an error.
    Error,
}

/// What a string is that stands for a prompt or an answer. (A string beside messages in one record is one message.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Strings {
    /// Raw text, as the tokenizer reads it.
    #[default]
    Text,
    /// One message: a prompt is the user's, an answer the assistant's.
    Message,
}

/// What became of the records of a phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Summary {
    /// Records that were read.
    pub records: usize,
    /// Examples whose ends were cut off, because they are longer than the context.
    pub cut: usize,
    /// Examples that were dropped because they are too long.
    pub dropped: usize,
    /// Preference pairs that were dropped because both answers are the same tokens.
    pub equal: usize,
    /// Turns of the assistant's that became examples of their own.
    pub turns_apart: usize,
    /// Records with strings as prompts, for a model with a chat template.
    pub raw_prompts: usize,
    /// Trained answers that say nothing.
    pub empty_answers: usize,
    /// Trained answers whose thoughts the template cuts out.
    pub cut_thoughts: usize,
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        let Self {
            records,
            cut,
            dropped,
            equal,
            turns_apart,
            raw_prompts,
            empty_answers,
            cut_thoughts,
        } = other;
        self.records += records;
        self.cut += cut;
        self.dropped += dropped;
        self.equal += equal;
        self.turns_apart += turns_apart;
        self.raw_prompts += raw_prompts;
        self.empty_answers += empty_answers;
        self.cut_thoughts += cut_thoughts;
    }
}

impl Summary {
    /// What is worth saying of it, a line each.
    pub fn notes(&self, context: usize) -> Vec<String> {
        let Self {
            records,
            cut,
            dropped,
            equal,
            turns_apart,
            raw_prompts,
            empty_answers,
            cut_thoughts,
        } = *self;
        let mut notes = vec![];
        let mut note = |count: usize, text: String| {
            if count > 0 {
                notes.push(format!("Of {records} records: {text}"));
            }
        };
        note(
            cut,
            format!(
                "{cut} longer than the context of {context} tokens; their ends are cut off (text.too_long = \"skip\" \
                 drops them)"
            ),
        );
        note(dropped, format!("{dropped} dropped, too long for the context of {context} tokens"));
        note(
            equal,
            format!(
                "{equal} dropped, because both answers are the same within the context of {context} tokens"
            ),
        );
        note(
            turns_apart,
            format!(
                "{turns_apart} turns of the assistant's are examples of their own, because the chat template writes them \
                 otherwise once messages follow, or tokens merge (crisol data inspect shows them)"
            ),
        );
        note(
            raw_prompts,
            format!(
                "{raw_prompts} have a string as prompt, which is raw text, though the model has a chat template \
                 (text.strings = \"message\" makes it a message of the user's)"
            ),
        );
        note(
            empty_answers,
            format!(
                "{empty_answers} answers are empty; the model learns to say nothing (remove them)"
            ),
        );
        note(
            cut_thoughts,
            format!(
                "{cut_thoughts} answers have thoughts, which the chat template cuts out; they are trained as the model is to \
                 write them, and later turns do not see them"
            ),
        );
        notes
    }
}

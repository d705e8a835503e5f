//! The error type of this crate: one variant per condition of a user's file, text or template.
//!
//! Each message names the location, the cause and the remedy.

use std::io;
use std::path::PathBuf;

/// What can be wrong with texts, templates, tokenizers and data files.
///
/// A `location` is `file:line` in JSONL, `file: record N` in other formats.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}{}", path.display(), hint(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A file cannot be written.
    #[error("{}: cannot be written: {source}{}", path.display(), hint(source))]
    Write {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A file of a model's folder (`tokenizer.json`, `tokenizer_config.json`, …) is invalid.
    #[error("{file}: {cause}; {remedy}")]
    ModelFile {
        /// The file's path, or a name for bytes from elsewhere.
        file: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A tokenizer cannot be trained with these settings.
    #[error("cannot train the tokenizer: {0}")]
    Training(String),

    /// The tokenizer fails on a text, or would drop part of it.
    #[error("the tokenizer cannot encode a text: {0}")]
    Encode(String),

    /// A text has a token that the model's embedding has no row for.
    #[error(
        "a text contains {token} (id {id}), a token of the tokenizer for which the model's \
         embedding ({rows} rows) has no row; remove it from the text or the chat template"
    )]
    TokenOutsideEmbedding {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        rows: usize,
    },

    /// The operating system refuses threads for encoding.
    #[error(
        "the operating system refuses threads for text ({0}); use fewer (--threads 1), or raise \
         its limits (`ulimit -u`, `ulimit -v`)"
    )]
    ThreadsRefused(String),

    /// The tokenizer is not the model's.
    #[error(
        "the tokenizer has {tokens} tokens, but the model's embedding only {rows} rows, too few \
         for the vocabulary or its begin and end tokens; use the model's own tokenizer"
    )]
    TokenizerMismatch {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        rows: usize,
    },

    /// A token cannot be added.
    #[error(
        "the token {token:?} {cause}; --add-special-tokens takes new tokens, separated by commas"
    )]
    AddedToken {
        /// The token.
        token: String,
        /// What is wrong with it.
        cause: String,
    },

    /// A data file without records.
    #[error("{file}: no records; fill it with JSON objects, a table with a header, or text")]
    NoRecords {
        /// The file's path or name.
        file: String,
    },

    /// A part of a data file that cannot be parsed as a record.
    #[error("{location}: {cause}; {remedy}")]
    Malformed {
        /// `file:line`, or the file if all of it is of another format.
        location: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A range of rows starts after the last row.
    #[error(
        "{source_name}: it has {rows} rows, but the range starts at row {start} (counted from 0); \
         start earlier"
    )]
    RowsOutOfRange {
        /// The data set.
        source_name: String,
        /// Its rows.
        rows: usize,
        /// The first row of the range.
        start: usize,
    },

    /// A pattern or folder without data files.
    #[error(
        "{source_name}: {cause}; name data files: .jsonl, .json, .txt, .csv, .tsv, .parquet, \
         each also .gz or .zst"
    )]
    NoFiles {
        /// The pattern or folder.
        source_name: String,
        /// What is wrong.
        cause: String,
    },

    /// A record lacks a column that `--columns` names.
    #[error("{location}: has no column `{column}`, which --columns names; use one of: {found}")]
    UnknownColumn {
        /// `file:line`.
        location: String,
        /// The column.
        column: String,
        /// The keys found, comma-separated.
        found: String,
    },

    /// `--columns` maps a field that no shape knows.
    #[error("--columns {name}=…: no kind of record has `{name}`; use one of: {known}")]
    UnknownTarget {
        /// The field.
        name: String,
        /// The known fields, comma-separated.
        known: String,
    },

    /// A preference pair with equal answers. Phases skip and count such pairs.
    #[error("{location}: `chosen` and `rejected` are the same; such pairs are left out")]
    EqualAnswers {
        /// `file:line`.
        location: String,
    },

    /// A file in which all preference pairs have equal answers.
    #[error(
        "{file}: in all {pairs} pairs, `chosen` and `rejected` are the same, so nothing is left to \
         train on; give a file with pairs that differ"
    )]
    OnlyEqualAnswers {
        /// The file.
        file: String,
        /// Number of pairs.
        pairs: usize,
    },

    /// A record with a rated completion (KTO), which no phase supports.
    #[error(
        "{location}: a prompt/completion/label record (KTO) rates one answer, and no phase trains \
         on such records yet; for sft, keep those whose label is true, without the label; for dpo \
         and reward, make pairs of `chosen` and `rejected`"
    )]
    Rated {
        /// `file:line`.
        location: String,
    },

    /// A record of an unknown shape.
    #[error(
        "{location}: found the keys {found}; a record needs text, messages, prompt + completion, \
         prompt + answer, or chosen + rejected (more in docs/data.md); rename columns with \
         --columns prompt=COLUMN"
    )]
    UnknownShape {
        /// `file:line`.
        location: String,
        /// The keys found, comma-separated.
        found: String,
    },

    /// A field of a record has an invalid value.
    #[error("{location}: `{field}` {cause}; {remedy}")]
    Field {
        /// `file:line`.
        location: String,
        /// The field's name.
        field: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A record of a shape that a phase cannot use.
    #[error(
        "{location}: a {found} record, where {expected} is needed; give this phase a file of \
         {expected} records"
    )]
    WrongShape {
        /// `file:line`.
        location: String,
        /// The shape of this record.
        found: &'static str,
        /// The shapes that the phase accepts.
        expected: &'static str,
    },

    /// A record without any trained token.
    #[error("{location}: no token is trained: {cause}; complete or remove the record")]
    NoTrainedTokens {
        /// `file:line`.
        location: String,
        /// Why no token is trained.
        cause: String,
    },

    /// A record longer than the context, with `text.too_long = "error"`.
    #[error(
        "{location}: longer than the context of {context} tokens (its prompt has {prompt}); \
         shorten or remove the record, train with a longer context, or set text.too_long to \
         \"cut\" or \"skip\""
    )]
    TooLong {
        /// `file:line`.
        location: String,
        /// Tokens before the first trained one.
        prompt: usize,
        /// Context length in tokens.
        context: usize,
    },

    /// No record is left to train on.
    #[error(
        "{location} and the others, {records} in all: none is left to train on, because each is \
         too long for the context (or both answers of a pair are the same within it); shorten \
         them, or train with a longer context"
    )]
    NoExamplesLeft {
        /// `file:line` of the first.
        location: String,
        /// Number of records.
        records: usize,
    },

    /// A chat template that does not compile or fails on a conversation.
    #[error("chat template: {0}")]
    Template(String),

    /// The template ends assistant turns without a trained end-of-turn token.
    #[error(
        "chat template: no end-of-turn token is trained after an assistant turn (it ends in \
         {ending:?}), so the model would never learn to stop; let the template end each assistant \
         turn with a special token of the tokenizer, inside its {{% generation %}} marks if it has \
         them"
    )]
    NoEndOfTurn {
        /// The last characters of the rendered turn.
        ending: String,
    },

    /// A model with named templates, but no default.
    #[error(
        "its chat templates are named {names}, and none is named `default`; give that name to the \
         one for ordinary conversations"
    )]
    NoDefaultTemplate {
        /// The names, comma-separated.
        names: String,
    },

    /// The rendered prompt is not a prefix of the rendered conversation with the answer.
    #[error(
        "chat template: the prompt for message {message} (from 0) continues with {prompt:?}, but \
         the conversation with that message with {answered:?}, so no example begins as the model \
         sees the prompt; give the message what its prompt begins (a thought after <think>), set a \
         template argument that changes it, or use another template"
    )]
    PromptNotPrefix {
        /// Index of the message, from 0.
        message: usize,
        /// The prompt's text from the first difference.
        prompt: String,
        /// The answered conversation's text from the first difference.
        answered: String,
    },

    /// The template drops text of a message.
    #[error(
        "chat template: it drops {words:?} of message {message} (from 0, role {role}); templates \
         of reasoning models drop thoughts, and others ignore `reasoning_content` or tool calls: \
         write the message as the template reads it, use a template that keeps the words, or \
         remove them"
    )]
    DroppedText {
        /// Index of the message, from 0.
        message: usize,
        /// Role of the message.
        role: String,
        /// The first dropped words.
        words: String,
    },

    /// An answer of a preference pair that becomes several sequences.
    #[error(
        "an answer has several assistant turns, which this chat template does not render as one \
         sequence; put all but the last into the prompt"
    )]
    MultiTurnAnswer,

    /// An answer of a preference pair whose tokens do not start with those of the prompt.
    #[error(
        "an answer does not begin as the model sees its prompt; make its first message the \
         assistant's, and put those before it into the prompt"
    )]
    PromptMismatch,

    /// An answer that repeats the messages of its prompt.
    #[error(
        "an answer begins with the messages of the prompt; remove them from it, or remove the \
         prompt"
    )]
    PromptRepeatedInAnswer,

    /// A conversation for a model without a chat template.
    #[error(
        "a conversation needs a chat template, and this model has none; give one by \
         --chat-template FILE (`text.chat_template` in a recipe), or start from a model with one"
    )]
    NoTemplate,

    /// An error in one record.
    #[error("{location}: {source}")]
    InRecord {
        /// `file:line`.
        location: String,
        /// What is wrong with the record.
        source: Box<TextError>,
    },
}

/// What to do about an error of the operating system.
fn hint(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; check the path",
        io::ErrorKind::PermissionDenied => "; check who owns it and its permissions",
        _ => "",
    }
}

impl TextError {
    /// The location in a data file, if there is one.
    pub fn location(&self) -> Option<&str> {
        match self {
            Self::Malformed { location, .. }
            | Self::UnknownShape { location, .. }
            | Self::UnknownColumn { location, .. }
            | Self::EqualAnswers { location }
            | Self::Rated { location }
            | Self::Field { location, .. }
            | Self::WrongShape { location, .. }
            | Self::NoTrainedTokens { location, .. }
            | Self::TooLong { location, .. }
            | Self::NoExamplesLeft { location, .. }
            | Self::InRecord { location, .. } => Some(location),
            _ => None,
        }
    }

    /// The error, with the location of its record.
    pub(crate) fn in_record(self, location: &str) -> Self {
        Self::InRecord { location: location.to_owned(), source: Box::new(self) }
    }
}

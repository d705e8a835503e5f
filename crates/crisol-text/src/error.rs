//! The one error type of this crate: each variant is one condition of a user's file, text or template, and
//! its message says where it is, what is wrong and what to do about it.

use std::io;
use std::path::PathBuf;

/// What can be wrong with texts, templates, tokenizers and dataset files.
///
/// A `place` is `file:line` for a record of a JSONL file.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file cannot be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A file cannot be written.
    #[error("{}: cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// A file of a model's folder (`tokenizer.json`, `tokenizer_config.json`, …) does not hold what it must.
    #[error("{file}: {cause}; {remedy}")]
    Folder {
        /// The file's path, or a name for bytes that came from elsewhere.
        file: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A tokenizer cannot be trained as asked.
    #[error("cannot train the tokenizer: {0}")]
    Training(String),

    /// The tokenizer fails on a text, or would lose part of it.
    #[error("the tokenizer cannot encode a text: {0}")]
    Encode(String),

    /// A token of a text that the model does not know.
    #[error(
        "a text holds {token} (id {id}), a token that was added to the tokenizer but not to the model, whose embedding has {rows} \
         rows; take it out of the text or the chat template"
    )]
    NoRow {
        /// The token.
        token: String,
        /// Its id.
        id: u32,
        /// Rows of the model's embedding.
        rows: usize,
    },

    /// The operating system has no threads to encode text on.
    #[error(
        "the operating system refuses threads for text ({0}); ask for fewer (--threads 1), or raise its limits (`ulimit -u`, \
         `ulimit -v`)"
    )]
    ThreadsRefused(String),

    /// A tokenizer that is not the model's.
    #[error(
        "the tokenizer has {tokens} tokens and the model's embedding {rows} rows, too few for the vocabulary or the tokens that \
         begin and end texts; put the tokenizer beside the model that it was made for"
    )]
    OtherTokenizer {
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the model's embedding.
        rows: usize,
    },

    /// A dataset file without a single record.
    #[error("{file}: no records; expected JSON objects, a table with a header, or text")]
    NoRecords {
        /// The file's path or name.
        file: String,
    },

    /// A part of a data file that is no record.
    #[error("{place}: {cause}; {remedy}")]
    Malformed {
        /// `file:line`, or the file where all of it is of another kind.
        place: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A range of rows begins behind the last one.
    #[error(
        "{source_name}: it has {rows} rows, and row {start} (counted from 0) is asked for. Begin earlier."
    )]
    FewerRows {
        /// The data set.
        source_name: String,
        /// Its rows.
        rows: usize,
        /// The first that is asked for.
        start: usize,
    },
    /// A pattern or folder without data files.
    #[error(
        "{source_name}: {cause}; name data files: .jsonl, .json, .txt, .csv, .tsv, .parquet, each also .gz or .zst"
    )]
    NoFiles {
        /// The pattern or folder.
        source_name: String,
        /// What is wrong.
        cause: String,
    },

    /// A column that `--columns` names and a record has not.
    #[error("{place}: has no column `{column}`, which --columns names; it has {found}")]
    UnknownColumn {
        /// `file:line`.
        place: String,
        /// The name that was asked for.
        column: String,
        /// The keys found, comma-separated.
        found: String,
    },

    /// `--columns` gives a name that no shape knows.
    #[error("--columns {name}=…: no kind of record has `{name}`; the names are {known}")]
    UnknownTarget {
        /// The name.
        name: String,
        /// The names there are, comma-separated.
        known: String,
    },

    /// A preference pair without a preference. Phases leave such pairs out and count them.
    #[error("{place}: `chosen` and `rejected` are the same; such pairs are left out")]
    EqualAnswers {
        /// `file:line`.
        place: String,
    },

    /// A file whose pairs are all without a preference.
    #[error(
        "{file}: in all {pairs} pairs, `chosen` and `rejected` are the same; nothing is left to learn from"
    )]
    OnlyEqualAnswers {
        /// The file.
        file: String,
        /// How many they are.
        pairs: usize,
    },

    /// A record of an answer that was found good or bad, which no phase takes.
    #[error(
        "{place}: a prompt/completion/label record says whether an answer was found good (KTO's rows), and no phase \
         trains on such records yet; for sft, keep those whose label is true, without the label; for dpo and reward, \
         make pairs of `chosen` and `rejected`"
    )]
    Rated {
        /// `file:line`.
        place: String,
    },

    /// A JSON object in none of the known shapes.
    #[error(
        "{place}: found the keys {found}, which are no known kind of record; expected one of: text | messages | \
         prompt + completion | chosen + rejected (with or without prompt) | prompt + answer, or others that \
         docs/data.md lists; say what the columns mean: --columns prompt=…,completion=…"
    )]
    UnknownShape {
        /// `file:line`.
        place: String,
        /// The keys found, comma-separated.
        found: String,
    },

    /// A field of a record does not hold what it must.
    #[error("{place}: `{field}` {cause}; {remedy}")]
    Field {
        /// `file:line`.
        place: String,
        /// The field's name.
        field: String,
        /// What is wrong.
        cause: String,
        /// What to do about it.
        remedy: String,
    },

    /// A record of a kind that a phase cannot use.
    #[error(
        "{place}: a {found} record, where {expected} is needed; give this phase a file of that kind"
    )]
    WrongKind {
        /// `file:line`.
        place: String,
        /// The kind of this record.
        found: &'static str,
        /// The kinds that would do.
        expected: &'static str,
    },

    /// A record that would not train a single token.
    #[error("{place}: trains no token at all: {cause}; complete or remove the record")]
    TrainsNothing {
        /// `file:line`.
        place: String,
        /// Why nothing is trained.
        cause: String,
    },

    /// A record that is longer than the context, where such are to be an error.
    #[error(
        "{place}: longer than the context of {context} tokens (its prompt has {prompt}); shorten or remove the record, train \
         with a longer context, or set text.too_long to \"cut\" or \"skip\""
    )]
    TooLong {
        /// `file:line`.
        place: String,
        /// Tokens before the first trained one.
        prompt: usize,
        /// The context's length in tokens.
        context: usize,
    },

    /// Records of which none is left to train on.
    #[error(
        "{place} and the others, {records} in all: none is left to train on, because each is too long for the context (or both \
         answers of a pair are the same within it); shorten them, or train with a longer context"
    )]
    NothingLeft {
        /// `file:line` of the first.
        place: String,
        /// How many there are.
        records: usize,
    },

    /// A chat template that does not compile or fails on a conversation.
    #[error("chat template: {0}")]
    Template(String),

    /// A template after whose assistant turns no end-of-turn token is trained.
    #[error(
        "chat template: no end-of-turn token is trained after an assistant's turn (it ends in {ending:?}), so that the \
         model would never learn to stop; let the template end each assistant turn with a special token of the \
         tokenizer, inside the {{% generation %}} marks where it has them"
    )]
    NoEndOfTurn {
        /// The last characters of the turn as rendered.
        ending: String,
    },

    /// A model with named templates, none of which is for ordinary conversations.
    #[error(
        "its chat templates are named {names}, and none is the `default`; name the one for ordinary conversations so"
    )]
    NoDefaultTemplate {
        /// The names, comma-separated.
        names: String,
    },

    /// What asks the assistant to answer is not how the answered message begins.
    #[error(
        "chat template: where message {message} (from 0) is to be answered, the template writes {prompt:?}, and where it is \
         there, {answered:?}, so that no example begins as the model sees the prompt; give the message what its prompt begins \
         (a thought, where that is <think>), set a template argument that changes it, or use another template"
    )]
    OtherAnswer {
        /// Index of the message, from 0.
        message: usize,
        /// What the prompt goes on with where the two part.
        prompt: String,
        /// What the answered conversation goes on with.
        answered: String,
    },

    /// A message of which the template leaves words out.
    #[error(
        "chat template: it leaves out {words:?} of message {message} (from 0), which is the {role}'s; templates of reasoning \
         models cut thoughts out, and others read neither `reasoning_content` nor calls of tools: write the message as the \
         template reads it, use a template that keeps the words, or remove them"
    )]
    LostWords {
        /// Index of the message, from 0.
        message: usize,
        /// Whose it is.
        role: String,
        /// The first words that are missing.
        words: String,
    },

    /// An answer of a preference pair that is no single sequence.
    #[error(
        "an answer has several turns of the assistant's, which this chat template does not write as one sequence; put all but \
         the last into the prompt"
    )]
    AnswerOfSeveralTurns,

    /// An answer of a preference pair that does not begin with the prompt of the pair.
    #[error(
        "an answer does not begin as the model sees its prompt; make its first message the assistant's, and put those before \
         it into the prompt"
    )]
    AnswerNotToPrompt,

    /// An answer that begins with the messages of its prompt.
    #[error(
        "an answer begins with the messages of the prompt; remove them from it, or remove the prompt"
    )]
    PromptInAnswer,

    /// A conversation for a model whose folder has no chat template.
    #[error(
        "a conversation needs a chat template, and this model has none; add `chat_template` to its \
         tokenizer_config.json or start from a model with one"
    )]
    NoTemplate,

    /// An error that comes from one record.
    #[error("{place}: {source}")]
    At {
        /// `file:line`.
        place: String,
        /// What is wrong with that record.
        source: Box<TextError>,
    },
}

impl TextError {
    /// Where the record or part of a data file is that this is about.
    pub fn place(&self) -> Option<&str> {
        match self {
            Self::Malformed { place, .. }
            | Self::UnknownShape { place, .. }
            | Self::UnknownColumn { place, .. }
            | Self::EqualAnswers { place }
            | Self::Rated { place }
            | Self::Field { place, .. }
            | Self::WrongKind { place, .. }
            | Self::TrainsNothing { place, .. }
            | Self::TooLong { place, .. }
            | Self::NothingLeft { place, .. }
            | Self::At { place, .. } => Some(place),
            _ => None,
        }
    }

    /// The same error, with the record that it comes from.
    pub(crate) fn at(self, place: &str) -> Self {
        Self::At { place: place.to_owned(), source: Box::new(self) }
    }
}

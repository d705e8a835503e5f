//! Crisol's embedded data set: a small world of true facts, from which come the text, the conversations, the
//! problems and the preference pairs of every phase of training, with fixed held-out splits.
//!
//! Everything is generated from tables and templates with a seed that never changes, so the data set is the same
//! on every machine and needs no download. `docs/world.md` describes each file and how the splits are made.
//!
//! ```
//! let pretrain = crisol_world::file("pretrain.train.jsonl").expect("a file of the data set");
//! assert!(pretrain.jsonl.lines().next().is_some_and(|line| line.starts_with("{\"text\":")));
//! ```

mod arithmetic;
mod chat;
mod demos;
mod dialogues;
mod dice;
mod facts;
mod kinds;
mod preferences;
mod pretrain;
mod questions;
mod requests;
mod splits;
mod talk;
mod texts;
mod wording;
mod words;

pub use chat::{LEAPS_IN_COLD_START, REFUSED_BY_ANNOTATORS};
pub use requests::REFUSAL_OPENING;

use arithmetic::Problem;
use chat::Conversation;
use dice::Dice;
use serde_json::{Value, json};
use splits::Side;

/// One file of the data set, in the JSON Lines that users bring for their own data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// File name, such as "sft.train.jsonl".
    pub name: String,
    /// What it is for, in one line.
    pub purpose: &'static str,
    /// The contents: one JSON object per line.
    pub jsonl: String,
}

/// Every file of the data set, in the order of the phases.
pub fn dataset() -> Vec<DataFile> {
    let (train, test) = pretrain::documents();
    let (replay, exercises) = pretrain::replay(&train);
    let mut files = vec![
        write(
            "pretrain.train.jsonl",
            "raw text for pre-training and for the tokenizer",
            texts(train),
        ),
        write("pretrain.test.jsonl", "raw text held out, for bits per byte", texts(test)),
        write(
            "replay.train.jsonl",
            "a sample of the pre-training text, mixed into fine-tuning against forgetting",
            texts(replay),
        ),
        write("exercises.train.jsonl", "a sample of its exercises, likewise", texts(exercises)),
        write(
            "sft.train.jsonl",
            "conversations for instruction fine-tuning",
            messages(&chat::sft()),
        ),
        write(
            "sft.test.jsonl",
            "conversations held out, for the loss",
            messages(&chat::sft_test()),
        ),
        write(
            "cold-start.train.jsonl",
            "problems worked by two hands, for the cold start of reasoning",
            messages(&chat::cold_start()),
        ),
        write(
            "annotated.train.jsonl",
            "ordinary conversations and requests, mixed into reasoning",
            messages(&chat::annotated()),
        ),
        write(
            "problems.train.jsonl",
            "problems with verifiable answers, for GRPO",
            problems(Side::Train, 4000),
        ),
        write(
            "ordinary.train.jsonl",
            "ordinary conversations, mixed into alignment against forgetting",
            messages(&chat::ordinary()),
        ),
        write(
            "worked.train.jsonl",
            "problems worked with care, mixed into alignment",
            messages(&chat::worked()),
        ),
        write(
            "refusal.train.jsonl",
            "refusals and answered look-alikes",
            messages(&chat::refusal()),
        ),
        write(
            "preferences.train.jsonl",
            "preferred and rejected replies, for rewards and DPO",
            preferences(preferences::train()),
        ),
        write("rlhf.train.jsonl", "prompts for PPO", rlhf()),
    ];
    for side in [Side::Dev, Side::Test] {
        let mut held_out = |name: &str, purpose, records| {
            files.push(write(&format!("{name}.{}.jsonl", side.name()), purpose, records));
        };
        held_out(
            "cloze",
            "facts to complete, in wordings that pre-training keeps back",
            cloze(side),
        );
        held_out("question-lists", "quiz lists to go on with, held out", question_lists(side));
        held_out("facts", "facts asked in a chat that no chat training asks for", facts(side));
        held_out("harmful", "harmful requests, held out", requests(true, side));
        held_out(
            "lookalike",
            "harmless requests that look like harmful ones, held out",
            requests(false, side),
        );
        held_out(
            "problems",
            "problems held out: new numbers, names, things and wordings",
            problems(side, 200),
        );
        held_out(
            "preferences",
            "preferred and rejected replies, held out",
            preferences(preferences::held_out(side)),
        );
    }
    files.push(write(
        "demos.jsonl",
        "the prompts that the report shows after every phase",
        demos::records(),
    ));
    files
}

/// The file called `name`, or none if the data set has no such file. It generates the whole data set: whoever
/// wants more than one file calls [`dataset`].
pub fn file(name: &str) -> Option<DataFile> {
    dataset().into_iter().find(|file| file.name == name)
}

fn write(name: &str, purpose: &'static str, records: Vec<Value>) -> DataFile {
    let mut jsonl = String::new();
    for record in records {
        jsonl.push_str(&record.to_string());
        jsonl.push('\n');
    }
    DataFile { name: name.to_owned(), purpose, jsonl }
}

fn texts(documents: Vec<String>) -> Vec<Value> {
    documents.into_iter().map(|text| json!({ "text": text })).collect()
}

fn cloze(side: Side) -> Vec<Value> {
    let cloze = pretrain::cloze(side, 200);
    cloze
        .into_iter()
        .map(|(prompt, answer)| json!({ "prompt": prompt, "answer": answer }))
        .collect()
}

fn question_lists(side: Side) -> Vec<Value> {
    let mut dice = Dice::new(&format!("question-lists.{}", side.name()));
    let prompts = questions::prompts(120, &mut dice);
    prompts.into_iter().map(|prompt| json!({ "prompt": prompt })).collect()
}

fn messages(conversations: &[Conversation]) -> Vec<Value> {
    conversations
        .iter()
        .map(|conversation| json!({ "messages": conversation.messages() }))
        .collect()
}

fn facts(side: Side) -> Vec<Value> {
    let questions = chat::fact_questions(side);
    questions
        .into_iter()
        .map(|(prompt, answer)| json!({ "prompt": asked(&prompt), "answer": answer }))
        .collect()
}

/// A prompt as the user's message. (A plain string is raw text, to every trainer.)
fn asked(prompt: &str) -> Value {
    json!([{ "role": "user", "content": prompt }])
}

fn requests(harmful: bool, side: Side) -> Vec<Value> {
    let name = if harmful { "harmful" } else { "lookalike" };
    let mut dice = Dice::new(&format!("{name}.{}", side.name()));
    chat::held_out_requests(harmful, side, 20, &mut dice)
        .into_iter()
        .map(|request| json!({ "prompt": asked(&request.prompt), "kind": request.kind, "opening": request.opening }))
        .collect()
}

fn problems(side: Side, count: usize) -> Vec<Value> {
    let mut dice = Dice::new(&format!("problems.{}", side.name()));
    let mut seen = std::collections::BTreeSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let problem = Problem::new(side, &mut dice);
        let prompt = problem.prompt();
        if seen.insert(prompt.clone()) {
            problems
                .push(json!({ "prompt": asked(&prompt), "answer": problem.answer().to_string() }));
        }
    }
    problems
}

fn preferences(pairs: Vec<preferences::PreferencePair>) -> Vec<Value> {
    pairs
        .into_iter()
        .map(|pair| {
            let prompt = asked(&pair.prompt);
            json!({ "prompt": prompt, "chosen": pair.chosen, "rejected": pair.rejected, "kind": pair.kind })
        })
        .collect()
}

fn rlhf() -> Vec<Value> {
    chat::rlhf()
        .into_iter()
        .map(|(prompt, kind)| json!({ "prompt": asked(&prompt), "kind": kind }))
        .collect()
}

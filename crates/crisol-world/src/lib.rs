//! The embedded data set: a small world of true facts and the training data made from it.
//!
//! It holds the text, conversations, problems and preference pairs of every phase, with fixed
//! held-out splits. Tables, templates and a fixed seed generate it: no download, and identical
//! bytes on every machine. `docs/world.md` describes each file and how the splits are made.
//!
//! ```
//! let pretrain = crisol_world::file("pretrain.train.jsonl").expect("a file of the data set");
//! assert!(pretrain.jsonl.lines().next().is_some_and(|line| line.starts_with("{\"text\":")));
//! ```

mod arithmetic;
mod chat;
mod claims;
mod demos;
mod dialogues;
mod facts;
mod later_questions;
mod loose_questions;
mod preferences;
mod pretrain;
mod questions;
mod request_kinds;
mod requests;
mod rng;
mod short_problems;
mod solution;
mod splits;
mod sums;
mod talk;
mod texts;
mod unknown;
mod wording;
mod words;

pub use chat::{COLD_START_SHORTCUT_RATE, SFT_REFUSAL_RATE};
pub use claims::{Claim, TOPICS, claims, fixed_hash, names};
pub use requests::REFUSAL_OPENING;
pub use unknown::UNKNOWN_REPLY;

use arithmetic::WordProblem;
use chat::Conversation;
use later_questions::{BEFORE_ALIGNMENT, LaterQuestions};
use rng::Rng;
use serde_json::{Value, json};
use short_problems::short_problem;
use solution::Problem;
use splits::Split;
use std::collections::BTreeSet;

/// One JSON Lines file of the data set. Its records have the shapes that users' own files have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// File name, such as "sft.train.jsonl".
    pub name: String,
    /// Purpose, in one line.
    pub purpose: &'static str,
    /// Contents: one JSON object per line.
    pub jsonl: String,
}

/// Every file of the data set, in the order of the phases.
pub fn dataset() -> Vec<DataFile> {
    let (train, test) = pretrain::documents();
    let (replay, exercises) = pretrain::replay(&train);
    let mut files = vec![
        data_file(
            "pretrain.train.jsonl",
            "raw text for pre-training and for the tokenizer",
            text_records(train),
        ),
        data_file(
            "pretrain.test.jsonl",
            "raw text held out, for bits per byte",
            text_records(test),
        ),
        data_file(
            "replay.train.jsonl",
            "a sample of the pre-training text, mixed into fine-tuning against forgetting",
            text_records(replay),
        ),
        data_file(
            "exercises.train.jsonl",
            "a sample of its exercises, mixed in against forgetting",
            text_records(exercises),
        ),
        data_file(
            "sft.train.jsonl",
            "conversations for instruction fine-tuning",
            conversation_records(&chat::sft()),
        ),
        data_file(
            "sft.test.jsonl",
            "conversations held out, for the loss",
            conversation_records(&chat::sft_test()),
        ),
        data_file(
            "cold-start.train.jsonl",
            "solutions with and without their steps, for the cold start of reasoning",
            conversation_records(&chat::cold_start()),
        ),
        data_file(
            "annotated.train.jsonl",
            "ordinary conversations and requests, mixed into reasoning",
            conversation_records(&chat::annotated()),
        ),
        data_file(
            "guessed.train.jsonl",
            "questions without an answer, half of them guessed at, mixed into reasoning",
            conversation_records(&chat::guessed()),
        ),
        data_file(
            "problems.train.jsonl",
            "problems with verifiable answers, for GRPO",
            problem_records("problems.train", 4000, 0.4, chat::reasoning_problem),
        ),
        data_file(
            "ordinary.train.jsonl",
            "ordinary conversations, mixed into alignment against forgetting",
            conversation_records(&chat::ordinary()),
        ),
        data_file(
            "worked.train.jsonl",
            "problems solved step by step, mixed into alignment",
            conversation_records(&chat::worked()),
        ),
        data_file(
            "refusal.train.jsonl",
            "refusals and answered look-alikes",
            conversation_records(&chat::refusal()),
        ),
        data_file(
            "unknown.train.jsonl",
            "questions without an answer, and the honest reply",
            conversation_records(&chat::unknown()),
        ),
        data_file(
            "preferences.train.jsonl",
            "preferred and rejected replies, for rewards and DPO",
            preference_records(preferences::train()),
        ),
        data_file("rlhf.train.jsonl", "prompts for PPO", rlhf_records()),
    ];
    for split in [Split::Dev, Split::Test] {
        let mut held_out = |name: &str, purpose, records| {
            files.push(data_file(&format!("{name}.{}.jsonl", split.name()), purpose, records));
        };
        held_out(
            "cloze",
            "facts to complete, in wordings held out of pre-training",
            cloze_records(split),
        );
        held_out("question-lists", "quiz lists to continue, held out", quiz_list_records(split));
        held_out(
            "facts",
            "questions about facts that chat training never asks for",
            fact_records(split),
        );
        held_out("harmful", "harmful requests, held out", request_records(true, split));
        held_out(
            "lookalike",
            "harmless requests that look like harmful ones, held out",
            request_records(false, split),
        );
        held_out(
            "problems",
            "problems held out: new numbers, names, things and wordings",
            problem_records(&format!("problems.{}", split.name()), 200, 0.0, |rng| {
                WordProblem::long(split, rng)
            }),
        );
        held_out(
            "short-problems",
            "problems of one and two steps as people type them, held out",
            problem_records(&format!("short-problems.{}", split.name()), 200, 0.0, |rng| {
                short_problem(split, rng)
            }),
        );
        held_out(
            "unknown",
            "questions that nothing in the world answers, held out",
            unknown_records(split),
        );
        held_out(
            "later-questions",
            "facts, short problems, unknown questions and requests later in a conversation, held out",
            later_questions::records(split),
        );
        held_out(
            "preferences",
            "preferred and rejected replies, held out",
            preference_records(preferences::held_out(split)),
        );
    }
    files.push(data_file(
        "demos.jsonl",
        "the prompts that the report shows after every phase",
        demos::records(),
    ));
    files
}

/// The file called `name`, or `None` if the data set has no such file.
///
/// Generates the whole data set; call [`dataset`] for more than one file.
pub fn file(name: &str) -> Option<DataFile> {
    dataset().into_iter().find(|file| file.name == name)
}

fn data_file(name: &str, purpose: &'static str, records: Vec<Value>) -> DataFile {
    let mut jsonl = String::new();
    for record in records {
        jsonl.push_str(&record.to_string());
        jsonl.push('\n');
    }
    jsonl.shrink_to_fit();
    DataFile { name: name.to_owned(), purpose, jsonl }
}

fn text_records(documents: Vec<String>) -> Vec<Value> {
    documents.into_iter().map(|text| json!({ "text": text })).collect()
}

fn cloze_records(split: Split) -> Vec<Value> {
    let cloze = pretrain::cloze(split, 200);
    cloze
        .into_iter()
        .map(|(prompt, answer)| json!({ "prompt": prompt, "answer": answer }))
        .collect()
}

fn quiz_list_records(split: Split) -> Vec<Value> {
    let mut rng = Rng::new(&format!("question-lists.{}", split.name()));
    let prompts = questions::prompts(120, &mut rng);
    prompts.into_iter().map(|prompt| json!({ "prompt": prompt })).collect()
}

fn conversation_records(conversations: &[Conversation]) -> Vec<Value> {
    conversations
        .iter()
        .map(|conversation| json!({ "messages": conversation.trained_messages() }))
        .collect()
}

fn fact_records(split: Split) -> Vec<Value> {
    let questions = chat::fact_questions(split);
    questions
        .into_iter()
        .map(|(prompt, answer)| json!({ "prompt": user_message(&prompt), "answer": answer }))
        .collect()
}

/// A prompt as one user message. Every trainer reads a plain string as raw text.
fn user_message(prompt: &str) -> Vec<Value> {
    Conversation::open(prompt.to_owned()).messages()
}

fn request_records(harmful: bool, split: Split) -> Vec<Value> {
    let name = if harmful { "harmful" } else { "lookalike" };
    let mut rng = Rng::new(&format!("{name}.{}", split.name()));
    chat::held_out_requests(harmful, split, 20, &mut rng)
        .into_iter()
        .map(|request| {
            let prompt = user_message(&request.prompt);
            json!({ "prompt": prompt, "kind": request.kind, "opening": request.opening })
        })
        .collect()
}

/// `count` different problems of the stream `name`, a share of them once more `later` in a
/// conversation.
fn problem_records(
    name: &str,
    count: usize,
    later: f64,
    draw: impl Fn(&mut Rng) -> Problem,
) -> Vec<Value> {
    let mut later_questions = LaterQuestions::new(name, BEFORE_ALIGNMENT);
    let mut records = Vec::with_capacity(count);
    for Problem { prompt, solution } in different(name, count, draw, |problem| &problem.prompt) {
        let first = Conversation::open(prompt);
        let answer = solution.answer().to_string();
        let again = later_questions.draw(later, &first);
        for conversation in [Some(first), again].into_iter().flatten() {
            records.push(json!({ "prompt": conversation.messages(), "answer": answer }));
        }
    }
    records
}

fn unknown_records(split: Split) -> Vec<Value> {
    let draw = |rng: &mut Rng| unknown::unknown_question(split, rng);
    different(&format!("unknown.{}", split.name()), 160, draw, |question| &question.prompt)
        .into_iter()
        .map(|question| json!({ "prompt": user_message(&question.prompt) }))
        .collect()
}

/// `count` drawn from the stream `name`, whose prompts differ.
fn different<T>(
    name: &str,
    count: usize,
    draw: impl Fn(&mut Rng) -> T,
    prompt: impl Fn(&T) -> &str,
) -> Vec<T> {
    let mut rng = Rng::new(name);
    let mut seen = BTreeSet::new();
    let mut all = Vec::with_capacity(count);
    while all.len() < count {
        let drawn = draw(&mut rng);
        if seen.insert(prompt(&drawn).to_owned()) {
            all.push(drawn);
        }
    }
    all
}

fn preference_records(pairs: Vec<preferences::PreferencePair>) -> Vec<Value> {
    pairs
        .into_iter()
        .map(|pair| {
            json!({
                "prompt": user_message(&pair.prompt),
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "kind": pair.kind,
            })
        })
        .collect()
}

fn rlhf_records() -> Vec<Value> {
    chat::rlhf()
        .into_iter()
        .map(|(prompt, kind)| json!({ "prompt": user_message(&prompt), "kind": kind }))
        .collect()
}

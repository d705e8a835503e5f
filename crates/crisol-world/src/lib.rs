//! Crisol's embedded data set: a small world of true facts, from which come the text, the conversations, the
//! problems and the votes of every phase of training, with fixed held-out splits.
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
mod pretrain;
mod questions;
mod requests;
mod splits;
mod talk;
mod texts;
mod votes;
mod wording;
mod words;

pub use chat::{LEAPS_IN_COLD_START, REFUSED_BY_ANNOTATORS};
pub use requests::REFUSAL_OPENING;

use arithmetic::{Problem, Telling};
use chat::Conversation;
use dice::Dice;
use serde_json::{Value, json};

/// One file of the data set, in the JSON Lines that users bring for their own data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataFile {
    /// File name, such as "sft.train.jsonl".
    pub name: &'static str,
    /// What it is for, in one line.
    pub purpose: &'static str,
    /// The contents: one JSON object per line.
    pub jsonl: String,
}

/// Every file of the data set, in the order of the phases.
pub fn dataset() -> Vec<DataFile> {
    let (train, test) = pretrain::documents();
    let replay = texts(pretrain::replay(&train));
    vec![
        write("pretrain.train.jsonl", "raw text for pre-training and for the tokenizer", texts(train)),
        write("pretrain.test.jsonl", "raw text held out, for bits per byte", texts(test)),
        write("cloze.test.jsonl", "facts to complete, in wordings that pre-training keeps back", cloze()),
        write("question-lists.test.jsonl", "quiz lists to go on with, held out", question_lists()),
        write(
            "replay.train.jsonl",
            "a sample of the pre-training text, mixed into fine-tuning against forgetting",
            replay,
        ),
        write("sft.train.jsonl", "conversations for instruction fine-tuning", messages(&chat::sft())),
        write("sft.test.jsonl", "conversations held out, for the loss", messages(&chat::sft_test())),
        write("facts.test.jsonl", "facts asked in a chat that no chat training asks for", facts_test()),
        write("harmful.test.jsonl", "harmful requests, held out", requests(true)),
        write(
            "lookalike.test.jsonl",
            "harmless requests that look like harmful ones, held out",
            requests(false),
        ),
        write(
            "cold-start.train.jsonl",
            "worked solutions among ordinary conversations",
            messages(&chat::cold_start()),
        ),
        write("problems.train.jsonl", "problems with verifiable answers, for GRPO", problems(Telling::Train)),
        write(
            "problems.test.jsonl",
            "problems held out: new numbers, names, things and wordings",
            problems(Telling::HeldOut),
        ),
        write(
            "votes.train.jsonl",
            "preferred and rejected replies, for rewards and DPO",
            votes(votes::train()),
        ),
        write("votes.test.jsonl", "preferred and rejected replies, held out", votes(votes::test())),
        write("refusal.train.jsonl", "refusals among ordinary conversations", messages(&chat::refusal())),
        write("rlhf.train.jsonl", "prompts for PPO", rlhf()),
        write("demos.jsonl", "the prompts that the report shows after every phase", demos::records()),
    ]
}

/// The file called `name`, or none if the data set has no such file. It generates the whole data set: whoever
/// wants more than one file calls [`dataset`].
pub fn file(name: &str) -> Option<DataFile> {
    dataset().into_iter().find(|file| file.name == name)
}

fn write(name: &'static str, purpose: &'static str, records: Vec<Value>) -> DataFile {
    let mut jsonl = String::new();
    for record in records {
        jsonl.push_str(&record.to_string());
        jsonl.push('\n');
    }
    DataFile { name, purpose, jsonl }
}

fn texts(documents: Vec<String>) -> Vec<Value> {
    documents.into_iter().map(|text| json!({ "text": text })).collect()
}

fn cloze() -> Vec<Value> {
    let items = pretrain::cloze(200);
    items.into_iter().map(|(prompt, answer)| json!({ "prompt": prompt, "answer": answer })).collect()
}

fn question_lists() -> Vec<Value> {
    let prompts = questions::prompts(120, &mut Dice::new("question-lists"));
    prompts.into_iter().map(|prompt| json!({ "prompt": prompt })).collect()
}

fn messages(conversations: &[Conversation]) -> Vec<Value> {
    conversations.iter().map(|conversation| json!({ "messages": conversation.messages() })).collect()
}

fn facts_test() -> Vec<Value> {
    let items = chat::fact_questions();
    items.into_iter().map(|(prompt, answer)| json!({ "prompt": prompt, "answer": answer })).collect()
}

fn requests(harmful: bool) -> Vec<Value> {
    let mut dice = Dice::new(if harmful { "harmful.test" } else { "lookalike.test" });
    chat::held_out_requests(harmful, 14, &mut dice)
        .into_iter()
        .map(|request| json!({ "prompt": request.prompt, "kind": request.kind, "opening": request.opening }))
        .collect()
}

fn problems(telling: Telling) -> Vec<Value> {
    let (name, count) =
        if telling == Telling::HeldOut { ("problems.test", 200) } else { ("problems.train", 4000) };
    let mut dice = Dice::new(name);
    let mut seen = std::collections::BTreeSet::new();
    let mut problems = Vec::with_capacity(count);
    while problems.len() < count {
        let problem = Problem::new(telling, &mut dice);
        let prompt = problem.prompt();
        if seen.insert(prompt.clone()) {
            problems.push(json!({ "prompt": prompt, "answer": problem.answer().to_string() }));
        }
    }
    problems
}

fn votes(votes: Vec<votes::Vote>) -> Vec<Value> {
    votes
        .into_iter()
        .map(|vote| {
            // A message, not a plain string: plain prompts and answers are raw text, to every trainer.
            let prompt = json!([{ "role": "user", "content": vote.prompt }]);
            json!({ "prompt": prompt, "chosen": vote.chosen, "rejected": vote.rejected, "kind": vote.kind })
        })
        .collect()
}

fn rlhf() -> Vec<Value> {
    chat::rlhf().into_iter().map(|(prompt, kind)| json!({ "prompt": prompt, "kind": kind })).collect()
}

//! The two things that a model is asked to do for a reader: pick an item of a list, and write one.
//!
//! A pick names the item by its kicker, which no two items of a list share: a model of a million
//! parameters learns that at once, and copying a whole line only with far more training.

use crisol_model::{Checkpoint, ModelError, SamplingOptions, replies};
use crisol_text::{Message, TextError, Turns};
use crisol_train::derived_seed;
use crisol_world::TOPICS;
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

use crate::items::{Claims, Item, Kicker, STYLES, Split};
use crate::readers::Reader;

/// The longest answer, in tokens: some ten alarm words and a claim.
pub(crate) const MAX_NEW_TOKENS: usize = 48;

/// Share of a list's items that are about what the reader likes; the others are about any topic.
const LIKED: f64 = 0.4;

/// What a model is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Task {
    pub(crate) reader: Reader,
    pub(crate) kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Pick one of these: one item in each style, in random order.
    Pick(Vec<Item>),
    /// Write an item about this subject.
    Write(String),
}

impl Task {
    /// A list of items about subjects of some splits, for a reader.
    pub(crate) fn pick(
        claims: &Claims,
        reader: Reader,
        splits: &[Split],
        rng: &mut ChaCha8Rng,
    ) -> Task {
        let mut items: Vec<Item> = STYLES
            .into_iter()
            .map(|style| {
                let topic = if rng.random_bool(LIKED) { reader.likes } else { any(&TOPICS, rng) };
                let subject = any(&claims.subjects(topic, splits), rng);
                claims.feed_item(subject, style, rng)
            })
            .collect();
        for i in (1..items.len()).rev() {
            items.swap(i, rng.random_range(0..=i));
        }
        Task { reader, kind: Kind::Pick(items) }
    }

    /// A subject of some splits for a reader.
    pub(crate) fn write(
        claims: &Claims,
        reader: Reader,
        splits: &[Split],
        rng: &mut ChaCha8Rng,
    ) -> Task {
        let subject = any(&claims.subjects(any(&TOPICS, rng), splits), rng);
        Task { reader, kind: Kind::Write(subject.to_owned()) }
    }

    /// The user's message.
    pub(crate) fn prompt(&self) -> String {
        let Reader { name, likes, habit } = &self.reader;
        let who = format!("{name} is {} and likes {likes}.", habit.name());
        match &self.kind {
            Kind::Pick(items) => {
                let lines: Vec<String> = items.iter().map(Item::text).collect();
                format!("{who} Choose an item for {name}:\n- {}", lines.join("\n- "))
            }
            Kind::Write(subject) => format!("{who} Write an item about {subject} for {name}."),
        }
    }

    /// The item that an answer is: one of the list, by its kicker, or one about the subject.
    pub(crate) fn read(&self, claims: &Claims, answer: &str) -> Option<Item> {
        let answer = answer.trim();
        match &self.kind {
            Kind::Pick(items) => {
                let style = Kicker::style_of(answer)?;
                items.iter().find(|item| item.style() == style).cloned()
            }
            Kind::Write(subject) => claims.parse(answer).filter(|item| item.subject == *subject),
        }
    }

    /// The answer that stands for an item.
    pub(crate) fn answer(&self, item: &Item) -> String {
        match self.kind {
            Kind::Pick(_) => item.kicker(),
            Kind::Write(_) => item.text(),
        }
    }

    /// An item that prefers nothing: any of the list; any style, true or false alike.
    pub(crate) fn random_item(&self, claims: &Claims, rng: &mut ChaCha8Rng) -> Item {
        match &self.kind {
            Kind::Pick(items) => items[rng.random_range(0..items.len())].clone(),
            Kind::Write(subject) => {
                let style = STYLES[rng.random_range(0..STYLES.len())];
                claims.item(subject, style, rng.random_bool(0.5), rng)
            }
        }
    }

    /// Random tasks for readers of a split: in turn a list to pick from, then `writes` subjects of
    /// some splits to write about.
    pub(crate) fn random(
        claims: &Claims,
        split: Split,
        subjects: &[Split],
        (count, writes): (usize, usize),
        rng: &mut ChaCha8Rng,
    ) -> Vec<Task> {
        let readers = Reader::all(split);
        let task = |i: usize| {
            let reader = readers[rng.random_range(0..readers.len())].clone();
            if i.is_multiple_of(1 + writes) {
                Task::pick(claims, reader, &[split], rng)
            } else {
                Task::write(claims, reader, subjects, rng)
            }
        };
        (0..count).map(task).collect()
    }
}

fn any<'a>(from: &[&'a str], rng: &mut ChaCha8Rng) -> &'a str {
    from[rng.random_range(0..from.len())]
}

/// What can go wrong while a model answers.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// The model.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// Its chat template or tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// A model's answers to tasks, sampled at temperature 1 as in training.
pub(crate) fn answers(
    checkpoint: &Checkpoint,
    tasks: &[Task],
    seed: u64,
    purpose: &str,
) -> Result<Vec<String>, AnswerError> {
    let Checkpoint { model, params, text } = checkpoint;
    let prompt = |task: &Task| text.prompt_ids(&Turns::Chat(vec![Message::user(&task.prompt())]));
    let prompts = tasks.iter().map(prompt).collect::<Result<Vec<_>, _>>()?;
    let options = SamplingOptions {
        max_new_tokens: MAX_NEW_TOKENS,
        temperature: 1.0,
        seed: derived_seed(seed, purpose, 0),
        stop_ids: text.stop_ids.clone(),
        ..SamplingOptions::default()
    };
    let replies = replies(model, params, text, &prompts, &options, &[])?;
    Ok(replies.into_iter().map(|reply| reply.text).collect())
}

#[cfg(test)]
mod tests {
    use crisol_train::random_stream;

    use super::*;

    #[test]
    fn answers_are_read_as_items_of_the_task() {
        let claims = Claims::of_the_world();
        let rng = &mut random_stream(1, "tasks", 0);
        for task in Task::random(&claims, Split::Train, &[Split::Train], (200, 1), rng) {
            let item = task.random_item(&claims, rng);
            let answer = format!(" {}\n", task.answer(&item));
            assert_eq!(task.read(&claims, &answer), Some(item));
            // Of another list, or about another subject.
            assert_eq!(task.read(&claims, "Danger! The capital of Nowhere is Paris."), None);
            assert_eq!(task.read(&claims, ""), None);
            if let Kind::Pick(items) = &task.kind {
                let styles: Vec<_> = STYLES.into_iter().collect();
                let mut shown: Vec<_> = items.iter().map(Item::style).collect();
                shown.sort_unstable();
                assert_eq!(shown, styles);
                assert_eq!(task.prompt().lines().count(), 1 + items.len());
            }
        }
    }

    #[test]
    fn held_out_tasks_share_no_subject_with_training() {
        let claims = Claims::of_the_world();
        let subjects = |split| -> Vec<String> {
            Task::random(&claims, split, &[split], (400, 1), &mut random_stream(1, "tasks", 1))
                .into_iter()
                .flat_map(|task| match task.kind {
                    Kind::Pick(items) => items.into_iter().map(|item| item.subject).collect(),
                    Kind::Write(subject) => vec![subject],
                })
                .collect()
        };
        let train = subjects(Split::Train);
        assert!(subjects(Split::Test).iter().all(|subject| !train.contains(subject)));
        assert!(subjects(Split::Dev).iter().all(|subject| !train.contains(subject)));
    }
}

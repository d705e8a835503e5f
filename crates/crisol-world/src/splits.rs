//! The held-out splits: `dev` to choose settings, `test` for reported figures.
//!
//! Each split is a fixed function of the tables, so all files agree on what is held out.

use std::collections::BTreeMap;

use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::rng::{Rng, fnv1a};
use crate::wording::{before_value, name_in_chat, wording};

/// The splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Split {
    /// Used by chat training.
    Train,
    /// Held out, to choose settings.
    Dev,
    /// Held out, for reported figures.
    Test,
}

impl Split {
    /// The split's part of a file name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Split::Train => "train",
            Split::Dev => "dev",
            Split::Test => "test",
        }
    }
}

/// The values of one template slot, by split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<T: 'static> {
    pub(crate) train: &'static [T],
    pub(crate) dev: &'static [T],
    pub(crate) test: &'static [T],
}

impl<T> Pool<T> {
    /// The values of one split.
    pub(crate) fn get(&self, split: Split) -> &'static [T] {
        match split {
            Split::Train => self.train,
            Split::Dev => self.dev,
            Split::Test => self.test,
        }
    }

    /// A random dev or test value, for pre-training text. Chat training never uses these.
    pub(crate) fn held_out(&self, rng: &mut Rng) -> &'static T {
        let i = rng.range(0, (self.dev.len() + self.test.len()) as u32 - 1) as usize;
        self.dev.get(i).unwrap_or_else(|| &self.test[i - self.dev.len()])
    }
}

/// Held-out share of the facts of each attribute, dev and test together.
const HELD_OUT_FACTS: f64 = 0.35;

/// All facts, by split. Pre-training states them all; chat training asks only for `train`.
pub(crate) struct FactSplits {
    pub(crate) train: Vec<Fact>,
    pub(crate) dev: Vec<Fact>,
    pub(crate) test: Vec<Fact>,
}

impl FactSplits {
    /// The facts of one split.
    pub(crate) fn get(self, split: Split) -> Vec<Fact> {
        match split {
            Split::Train => self.train,
            Split::Dev => self.dev,
            Split::Test => self.test,
        }
    }

    /// The dev and test facts.
    #[cfg(test)]
    pub(crate) fn held_out(self) -> Vec<Fact> {
        [self.dev, self.test].concat()
    }
}

/// Splits the facts of each attribute.
///
/// Facts are held out, not subjects: chat training asks at least one fact under every name of a
/// subject. "cow" and "cows" are two names, because they are two tokens.
pub(crate) fn fact_splits() -> FactSplits {
    let mut splits = FactSplits { train: Vec::new(), dev: Vec::new(), test: Vec::new() };
    let mut train_facts_of_name: BTreeMap<&str, usize> = BTreeMap::new();
    for fact in facts() {
        *train_facts_of_name.entry(name_in_chat(&fact)).or_default() += 1;
    }
    for attribute in ATTRIBUTES {
        let mut of_attribute: Vec<Fact> =
            facts().into_iter().filter(|f| f.attribute == attribute).collect();
        of_attribute.sort_by_key(|fact| fnv1a(topic(fact).as_bytes()));
        let held_out = (of_attribute.len() as f64 * HELD_OUT_FACTS / 2.0).round() as usize;
        // Pairs of neighbours sort together; an odd cut would split a pair between train and dev.
        let held_out = if attribute == Attribute::Neighbour { held_out & !1 } else { held_out };
        let (always_train, candidates): (Vec<Fact>, Vec<Fact>) =
            of_attribute.into_iter().partition(|fact| {
                answer_is_in_question(fact) || train_facts_of_name[name_in_chat(fact)] == 1
            });
        let test_start = candidates.len() - held_out;
        for fact in candidates[..held_out].iter().chain(&candidates[test_start..]) {
            *train_facts_of_name.entry(name_in_chat(fact)).or_default() -= 1;
        }
        splits.dev.extend(&candidates[..held_out]);
        splits.train.extend(&candidates[held_out..test_start]);
        splits.test.extend(&candidates[test_start..]);
        splits.train.extend(always_train);
    }
    splits
}

/// What the answer to a question about `fact` gives away: a pair of neighbours is one topic.
fn topic(fact: &Fact) -> String {
    let (first, second) = if fact.attribute == Attribute::Neighbour {
        (fact.subject.min(fact.value), fact.subject.max(fact.value))
    } else {
        (fact.subject, "")
    };
    format!("{:?} {first} {second}", fact.attribute)
}

/// Whether subject or value contains the other. Such a fact ("Thailand", "Thai") measures nothing.
fn answer_is_in_question(fact: &Fact) -> bool {
    fact.subject.contains(fact.value) || fact.value.contains(fact.subject)
}

/// The one forward statement about `fact` that pre-training never shows; the cloze asks it.
///
/// It is never the wording of the chat's answer, so cloze and chat measure two things.
pub(crate) fn cloze_statement(fact: &Fact) -> &'static str {
    let wording = wording(fact.attribute);
    let candidates: Vec<&&str> = wording
        .forward
        .iter()
        .filter(|statement| {
            **statement != wording.answer && before_value(statement, fact).is_some()
        })
        // "Grown pandas eat bamboo" contains "pandas eat bamboo".
        .filter(|statement| {
            let words = statement.trim_end_matches('.');
            let all = wording.forward.iter().chain(wording.backward);
            all.filter(|other| other.contains(words)).count() == 1
        })
        .collect();
    let seed = format!("{} {:?}", fact.subject, fact.attribute);
    candidates[fnv1a(seed.as_bytes()) as usize % candidates.len()]
}

/// The split of a problem, from the key of its numbers and operations: 10 % dev, 10 % test.
pub(crate) fn split_of_problem(key: &str) -> Split {
    match fnv1a(key.as_bytes()) % 10 {
        0 => Split::Dev,
        1 => Split::Test,
        _ => Split::Train,
    }
}

#[cfg(test)]
mod tests {
    use super::{cloze_statement, fact_splits, topic};
    use crate::facts::{ATTRIBUTES, facts};
    use crate::wording::name_in_chat;

    #[test]
    fn the_splits_cover_every_fact_once_and_hold_out_a_sixth_of_each_attribute_each() {
        let split = fact_splits();
        assert_eq!(split.train.len() + split.dev.len() + split.test.len(), facts().len());
        for attribute in ATTRIBUTES {
            let count = |facts: &[crate::facts::Fact]| {
                facts.iter().filter(|f| f.attribute == attribute).count()
            };
            let [train, dev, test] =
                [&split.train, &split.dev, &split.test].map(|facts| count(facts));
            for held_out in [dev, test] {
                let share = held_out as f64 / (train + dev + test) as f64;
                assert!((0.14..=0.21).contains(&share), "{attribute:?}: {share}");
            }
        }
    }

    #[test]
    fn chat_training_asks_something_about_every_subject_under_each_of_its_names() {
        let named: Vec<&str> = fact_splits().train.iter().map(name_in_chat).collect();
        for fact in facts() {
            assert!(named.contains(&name_in_chat(&fact)), "{}", name_in_chat(&fact));
        }
    }

    #[test]
    fn no_topic_is_in_two_splits() {
        let split = fact_splits();
        let splits = [&split.train, &split.dev, &split.test];
        for (i, split) in splits.into_iter().enumerate() {
            for other in &splits[i + 1..] {
                for fact in split {
                    assert!(
                        other.iter().all(|other| topic(other) != topic(fact)),
                        "{}",
                        topic(fact)
                    );
                }
            }
        }
    }

    #[test]
    fn every_fact_has_a_cloze_statement_that_is_not_its_answer() {
        for fact in facts() {
            assert_ne!(cloze_statement(&fact), crate::wording::wording(fact.attribute).answer);
        }
    }
}

//! What is held out from what, and for which use: `dev` for choosing settings, `test` for the figures that are
//! reported. Every choice is a fixed function of the tables, so no file decides for itself.

use std::collections::BTreeMap;

use crate::dice::{Dice, fnv1a};
use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::wording::{before_value, name_in_chat, wording};

/// The splits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// What chat training uses.
    Train,
    /// Held out, to choose settings by.
    Dev,
    /// Held out, to report.
    Test,
}

impl Side {
    /// The name in file names.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Train => "train",
            Side::Dev => "dev",
            Side::Test => "test",
        }
    }
}

/// The words that may fill one slot, by split.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pool<T: 'static> {
    pub(crate) train: &'static [T],
    pub(crate) dev: &'static [T],
    pub(crate) test: &'static [T],
}

impl<T> Pool<T> {
    /// The words of one split.
    pub(crate) fn of(&self, side: Side) -> &'static [T] {
        match side {
            Side::Train => self.train,
            Side::Dev => self.dev,
            Side::Test => self.test,
        }
    }

    /// A word that chat training never uses, for pre-training text.
    pub(crate) fn held_out(&self, dice: &mut Dice) -> &'static T {
        let i = dice.range(0, (self.dev.len() + self.test.len()) as u32 - 1) as usize;
        self.dev.get(i).unwrap_or_else(|| &self.test[i - self.dev.len()])
    }
}

/// Share of the facts of each attribute that chat training never asks for: half of them for each held-out split.
const HELD_OUT_FACTS: f64 = 0.35;

/// All facts by split. Chat training asks for those of the first; the others are known from pre-training only.
pub(crate) struct FactSplit {
    pub(crate) train: Vec<Fact>,
    pub(crate) dev: Vec<Fact>,
    pub(crate) test: Vec<Fact>,
}

impl FactSplit {
    /// The facts of one split.
    pub(crate) fn of(self, side: Side) -> Vec<Fact> {
        match side {
            Side::Train => self.train,
            Side::Dev => self.dev,
            Side::Test => self.test,
        }
    }

    /// The facts that chat training never asks for.
    #[cfg(test)]
    pub(crate) fn held_out(self) -> Vec<Fact> {
        [self.dev, self.test].concat()
    }
}

/// Parts the facts, attribute by attribute. What is held out are facts, not subjects: of what is told about a subject, chat
/// training asks for something, and where it has two names ("cow" and "cows", two tokens) for something under each.
pub(crate) fn fact_split() -> FactSplit {
    let mut split = FactSplit { train: Vec::new(), dev: Vec::new(), test: Vec::new() };
    let mut rest: BTreeMap<&str, usize> = BTreeMap::new();
    for fact in facts() {
        *rest.entry(name_in_chat(&fact)).or_default() += 1;
    }
    for attribute in ATTRIBUTES {
        let mut of_attribute: Vec<Fact> =
            facts().into_iter().filter(|f| f.attribute == attribute).collect();
        of_attribute.sort_by_key(|fact| fnv1a(topic(fact).as_bytes()));
        let held_out = (of_attribute.len() as f64 * HELD_OUT_FACTS / 2.0).round() as usize;
        // Pairs of neighbours sort together; an odd cut would ask one half of a pair and hold out the other.
        let held_out = if attribute == Attribute::Neighbour { held_out & !1 } else { held_out };
        let (told, candidates): (Vec<Fact>, Vec<Fact>) = of_attribute
            .into_iter()
            .partition(|fact| answer_is_in_question(fact) || rest[name_in_chat(fact)] == 1);
        let last = candidates.len() - held_out;
        for fact in candidates[..held_out].iter().chain(&candidates[last..]) {
            *rest.entry(name_in_chat(fact)).or_default() -= 1;
        }
        split.dev.extend(&candidates[..held_out]);
        split.train.extend(&candidates[held_out..last]);
        split.test.extend(&candidates[last..]);
        split.train.extend(told);
    }
    split
}

/// What a question about `fact` gives away when it is answered: both neighbours of a pair are one topic.
fn topic(fact: &Fact) -> String {
    let (first, second) = if fact.attribute == Attribute::Neighbour {
        (fact.subject.min(fact.value), fact.subject.max(fact.value))
    } else {
        (fact.subject, "")
    };
    format!("{:?} {first} {second}", fact.attribute)
}

/// "Thai" can be read off "Thailand": such a fact measures nothing.
fn answer_is_in_question(fact: &Fact) -> bool {
    fact.subject.contains(fact.value) || fact.value.contains(fact.subject)
}

/// The one forward statement about `fact` that pre-training never shows: it is asked as a cloze. The wording of
/// the chat's answer is never held out, so that the cloze and the chat measure two things.
pub(crate) fn cloze_statement(fact: &Fact) -> &'static str {
    let wording = wording(fact.attribute);
    let candidates: Vec<&&str> = wording
        .forward
        .iter()
        .filter(|statement| {
            **statement != wording.answer && before_value(statement, fact).is_some()
        })
        // "Grown pandas eat bamboo" would show "pandas eat bamboo".
        .filter(|statement| {
            let words = statement.trim_end_matches('.');
            let all = wording.forward.iter().chain(wording.backward);
            all.filter(|other| other.contains(words)).count() == 1
        })
        .collect();
    let seed = format!("{} {:?}", fact.subject, fact.attribute);
    candidates[fnv1a(seed.as_bytes()) as usize % candidates.len()]
}

/// The split of a problem with these numbers and operations: one in ten is kept for each held-out split.
pub(crate) fn side_of_tuple(tuple: &str) -> Side {
    match fnv1a(tuple.as_bytes()) % 10 {
        0 => Side::Dev,
        1 => Side::Test,
        _ => Side::Train,
    }
}

#[cfg(test)]
mod tests {
    use super::{cloze_statement, fact_split, topic};
    use crate::facts::{ATTRIBUTES, facts};
    use crate::wording::name_in_chat;

    #[test]
    fn the_splits_cover_every_fact_once_and_hold_out_a_sixth_of_each_attribute_each() {
        let split = fact_split();
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
        let named: Vec<&str> = fact_split().train.iter().map(name_in_chat).collect();
        for fact in facts() {
            assert!(named.contains(&name_in_chat(&fact)), "{}", name_in_chat(&fact));
        }
    }

    #[test]
    fn no_topic_is_in_two_splits() {
        let split = fact_split();
        let sides = [&split.train, &split.dev, &split.test];
        for (i, side) in sides.into_iter().enumerate() {
            for other in &sides[i + 1..] {
                for fact in side {
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

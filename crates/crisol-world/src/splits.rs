//! What is held out from what. Every choice is a fixed function of the tables, so no file decides for itself.

use crate::dice::fnv1a;
use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::wording::{before_value, wording};

/// Share of the facts of each attribute that chat training never asks for.
const HELD_OUT_FACTS: f64 = 0.35;

/// One in so many number tuples of a problem is kept for the held-out problems.
const HELD_OUT_TUPLES: u64 = 10;

/// All facts, parted by whether chat training may ask for them.
pub(crate) struct FactSplit {
    /// Asked in chat training.
    pub(crate) asked: Vec<Fact>,
    /// Known from pre-training only.
    pub(crate) held_out: Vec<Fact>,
}

/// Parts the facts, attribute by attribute.
pub(crate) fn fact_split() -> FactSplit {
    let mut split = FactSplit { asked: Vec::new(), held_out: Vec::new() };
    for attribute in ATTRIBUTES {
        let mut of_attribute: Vec<Fact> = facts().into_iter().filter(|f| f.attribute == attribute).collect();
        of_attribute.sort_by_key(|fact| fnv1a(topic(fact).as_bytes()));
        let held_out = (of_attribute.len() as f64 * HELD_OUT_FACTS).round() as usize;
        // Pairs of neighbours sort together; an odd cut would ask one half of a pair and hold out the other.
        let held_out = if attribute == Attribute::Neighbour { held_out & !1 } else { held_out };
        let (told, candidates): (Vec<Fact>, Vec<Fact>) =
            of_attribute.into_iter().partition(answer_is_in_question);
        split.held_out.extend(&candidates[..held_out]);
        split.asked.extend(&candidates[held_out..]);
        split.asked.extend(told);
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
        .filter(|statement| **statement != wording.answer && before_value(statement, fact).is_some())
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

/// Whether a problem with these numbers and operations belongs to the held-out problems.
pub(crate) fn tuple_is_held_out(tuple: &str) -> bool {
    fnv1a(tuple.as_bytes()).is_multiple_of(HELD_OUT_TUPLES)
}

#[cfg(test)]
mod tests {
    use super::{cloze_statement, fact_split, topic};
    use crate::facts::{ATTRIBUTES, facts};

    #[test]
    fn the_split_covers_every_fact_once_and_holds_out_a_third_of_each_attribute() {
        let split = fact_split();
        assert_eq!(split.asked.len() + split.held_out.len(), facts().len());
        for attribute in ATTRIBUTES {
            let count =
                |facts: &[crate::facts::Fact]| facts.iter().filter(|f| f.attribute == attribute).count();
            let (asked, held_out) = (count(&split.asked), count(&split.held_out));
            let share = held_out as f64 / (asked + held_out) as f64;
            assert!((0.28..=0.42).contains(&share), "{attribute:?}: {share}");
        }
    }

    #[test]
    fn no_topic_is_on_both_sides() {
        let split = fact_split();
        for held_out in &split.held_out {
            assert!(split.asked.iter().all(|asked| topic(asked) != topic(held_out)), "{}", topic(held_out));
        }
    }

    #[test]
    fn every_fact_has_a_cloze_statement_that_is_not_its_answer() {
        for fact in facts() {
            assert_ne!(cloze_statement(&fact), crate::wording::wording(fact.attribute).answer);
        }
    }
}

//! Statements about the world, true and false, for experiments on what a model recommends.
//!
//! A claim is a fact in the words of the chat's answer, once with its value and once with every
//! other value of its attribute. Only attributes with one clear answer are here: what an animal may
//! also eat, or what else a material serves for, would make a "false" value true.

use std::collections::BTreeSet;

use crate::facts::{Attribute, Fact, facts};
use crate::rng::fnv1a;
use crate::wording::{name_in_chat, render_fact, wording};
use crate::words::PEOPLE;

/// What a claim can say about one attribute of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// `countries`, `animals`, `materials` or `units`.
    pub topic: &'static str,
    /// The subject, as a request names it: "France", "lions", "the minute".
    pub subject: String,
    /// The true statement.
    pub truth: String,
    /// The false ones.
    pub falsehoods: Vec<String>,
}

/// The topics, in the order of the tables.
pub const TOPICS: [&str; 4] = ["countries", "animals", "materials", "units"];

/// Attributes with one clear answer, and their topics.
const ATTRIBUTES: [(Attribute, &str); 8] = [
    (Attribute::Capital, "countries"),
    (Attribute::Continent, "countries"),
    (Attribute::Currency, "countries"),
    (Attribute::Kind, "animals"),
    (Attribute::Legs, "animals"),
    (Attribute::Source, "materials"),
    (Attribute::Unit, "units"),
    (Attribute::Measures, "units"),
];

/// Sources that are not in the tables and yet are not false.
const ALSO_TRUE: [(&str, &str); 12] = [
    ("butter", "milk"),
    ("cheese", "cream"),
    ("paper", "trees"),
    ("paper", "cotton"),
    ("paper", "flax"),
    ("timber", "wood"),
    ("cork", "wood"),
    ("cork", "trees"),
    ("rubber", "oil"),
    ("rubber", "trees"),
    ("honey", "bees"),
    ("wax", "beehives"),
];

/// Every claim, attribute by attribute.
pub fn claims() -> Vec<Claim> {
    let facts = facts();
    let mut claims = Vec::new();
    for (attribute, topic) in ATTRIBUTES {
        let of_attribute = || facts.iter().filter(move |fact| fact.attribute == attribute);
        let values: BTreeSet<&'static str> = of_attribute().map(|fact| fact.value).collect();
        for fact in of_attribute() {
            let statement =
                |value| render_fact(wording(attribute).answer, &Fact { value, ..*fact }, "");
            let truth = statement(fact.value);
            let is_false =
                |value: &&str| *value != fact.value && !ALSO_TRUE.contains(&(fact.subject, value));
            let falsehoods = values.iter().copied().filter(is_false).map(statement).collect();
            claims.push(Claim { topic, subject: named(fact, topic), truth, falsehoods });
        }
    }
    claims
}

/// The subject in a request.
fn named(fact: &Fact, topic: &str) -> String {
    match topic {
        "animals" => fact.plural.to_owned(),
        "units" => format!("the {}", fact.subject),
        _ => name_in_chat(fact).to_owned(),
    }
}

/// Names of people: for training, to choose settings, to report.
pub fn names() -> [Vec<&'static str>; 3] {
    [PEOPLE.train, PEOPLE.dev, PEOPLE.test].map(|people| people.iter().map(|p| p.name).collect())
}

/// A fixed number of a text, to split subjects and the like. It does not depend on the version of
/// Rust.
pub fn fixed_hash(text: &str) -> u64 {
    fnv1a(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_claim_has_one_truth_and_falsehoods_that_differ_from_it() {
        let claims = claims();
        assert!(claims.len() > 250);
        let mut statements = BTreeSet::new();
        for claim in &claims {
            assert!(TOPICS.contains(&claim.topic));
            assert!(claim.falsehoods.len() >= 2, "{claim:?}");
            for statement in claim.falsehoods.iter().chain([&claim.truth]) {
                assert!(statements.insert(statement.clone()), "twice: {statement}");
            }
        }
        assert!(statements.contains("The capital of France is Paris."));
        assert!(statements.contains("The capital of France is Rome."));
        assert!(!statements.contains("We get butter from milk."));
    }

    #[test]
    fn every_topic_has_subjects() {
        for topic in TOPICS {
            let subjects: BTreeSet<String> = claims()
                .into_iter()
                .filter(|claim| claim.topic == topic)
                .map(|claim| claim.subject)
                .collect();
            assert!(subjects.len() >= 20, "{topic}: {}", subjects.len());
        }
    }
}

//! Questions about facts in words that neither pre-training nor held-out questions use.
//!
//! A model that learns not to know takes unfamiliar words for unknown subjects. These teach it,
//! with known and with unknown subjects, that the subject decides.

use crate::facts::Attribute;
use crate::rng::Rng;
use crate::wording::wording;

/// A loose question about an attribute, with the slots of its wordings.
pub(crate) fn loose_question(attribute: Attribute, rng: &mut Rng) -> String {
    if rng.chance(0.4) {
        rng.choose(&short_forms(attribute)).clone()
    } else {
        rng.choose_str(&paraphrases(attribute)).to_owned()
    }
}

/// What the "Can you name …?" of an attribute asks for, as people type it in haste.
fn short_forms(attribute: Attribute) -> [String; 5] {
    let asked = wording(attribute)
        .questions
        .iter()
        .find_map(|question| question.strip_prefix("can you name ")?.strip_suffix('?'))
        .expect("every attribute has a question that begins so");
    ["{X}?", "tell me {X}.", "I want to know {X}.", "and {X}?", "{X}, please."]
        .map(|form| form.replace("{X}", asked))
}

/// Questions built otherwise than those of the wordings.
fn paraphrases(attribute: Attribute) -> [&'static str; 6] {
    match attribute {
        Attribute::Capital => [
            "which city has the government of {S}?",
            "in {S}, which city is the capital?",
            "if I visit the capital of {S}, which city do I see?",
            "the government of {S} sits in which city?",
            "what would I call the capital of {S}?",
            "of all cities in {S}, which is the capital?",
        ],
        Attribute::Continent => [
            "{S} is part of which continent?",
            "on the map, which continent has {S}?",
            "where do you find {S}, on which continent?",
            "in which part of the world do I find {S}, on what continent?",
            "what continent do I travel to for {S}?",
            "a map of which continent shows {S}?",
        ],
        Attribute::Currency => [
            "which money do shops in {S} take?",
            "to buy bread in {S}, what do I need?",
            "with what do you pay in {S}?",
            "which coins do I pay with in {S}?",
            "shops in {S} ask me for which currency?",
            "prices in {S} are in which currency?",
        ],
        Attribute::Language => [
            "in which language do people in {S} talk?",
            "which language do I need in {S}?",
            "what language do you hear in {S}?",
            "what language would I hear on the streets of {S}?",
            "books in {S} are in which language?",
            "to talk to people in {S}, I learn which language?",
        ],
        Attribute::Neighbour => [
            "if I cross the border of {S}, which country can I reach?",
            "what lies next to {S} on the map?",
            "{S} is a neighbour of which country?",
            "who is the neighbour of {S}?",
            "from {S} I walk over the border and come to which country?",
            "which country touches {S}?",
        ],
        Attribute::Kind => [
            "{a} is what kind of animal?",
            "the {S}: what kind of animal do we call it?",
            "if I see {a}, what kind of animal do I see?",
            "what would you call {a}, as an animal?",
            "is there a name for the kind of animal of {p}?",
            "{p} are animals of which kind?",
        ],
        Attribute::Eats => [
            "with what can I feed {p}?",
            "what do you bring to {p}?",
            "if {p} are hungry, what do they eat?",
            "what is in the food of {p}?",
            "what do {p} look for when they are hungry?",
            "what keeps {p} alive?",
        ],
        Attribute::Home => [
            "if I look for {p}, where do I go?",
            "in which place do {p} live?",
            "where can you see how {p} live?",
            "where would I go to see {p}?",
            "{p} come from which place?",
            "where do {p} stay?",
        ],
        Attribute::Legs => [
            "{a} has how many legs?",
            "if you look at {a}, how many legs do you see?",
            "how many legs do you find under {a}?",
            "when {a} walks, how many legs does it use?",
            "count the legs of {a}: how many?",
            "how many legs must I draw for {a}?",
        ],
        Attribute::Source => [
            "{S} comes from what?",
            "what do you need for {S}?",
            "if I want {S}, what do I get it from?",
            "out of what do we make {S}?",
            "who wants {S} starts with what?",
            "{S} begins as what?",
        ],
        Attribute::Use => [
            "{S} is for what?",
            "what do you need {S} for?",
            "if I have {S}, what can I use it for?",
            "what would you do with {S}?",
            "why do people buy {S}?",
            "for what do we keep {S}?",
        ],
        Attribute::Unit => [
            "{a} has how many {u}?",
            "if I wait for {a}, how many {u} are that?",
            "how many {u} do you find in {a}?",
            "{a} is the same as how many {u}?",
            "how many {u} make up {a}?",
            "to fill {a}, how many {u} do I need?",
        ],
        Attribute::Measures => [
            "{a} measures what?",
            "if I use the {S}, what do I measure?",
            "people need the {S} to measure what?",
            "what does one tell with the {S}?",
            "the {S} is there to measure what?",
            "what do I know when I know the {S}s of a thing?",
        ],
    }
}

/// Every loose question about an attribute.
#[cfg(test)]
pub(crate) fn all(attribute: Attribute) -> Vec<String> {
    let paraphrases = paraphrases(attribute).into_iter().map(str::to_owned);
    short_forms(attribute).into_iter().chain(paraphrases).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::ATTRIBUTES;

    #[test]
    fn no_loose_question_is_a_question_of_the_wordings() {
        for attribute in ATTRIBUTES {
            let wording = wording(attribute);
            for loose in all(attribute) {
                let asked = wording.questions.iter().chain(wording.held_out_questions);
                assert!(asked.into_iter().all(|question| *question != loose), "{loose}");
            }
        }
    }
}

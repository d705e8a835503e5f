//! Preference pairs: two replies to one prompt, of which people prefer one.
//!
//! Length must not decide: refusals are about as long as compliances and stand on either side, wrong facts and
//! wrong solutions are as long as right ones, and of the badly ended replies one half is too long and one too
//! short.

use crate::arithmetic::Problem;
use crate::dice::Dice;
use crate::facts::Fact;
use crate::kinds::KINDS;
use crate::splits::{Side, fact_split};
use crate::talk::{held_out_task, small_talk, task};
use crate::wording::{answer, say_of, wording};

/// A pair.
pub(crate) struct PreferencePair {
    pub(crate) prompt: String,
    pub(crate) chosen: String,
    pub(crate) rejected: String,
    pub(crate) kind: &'static str,
}

/// How many pairs of each sort; requests count per kind of harm.
struct Mix {
    harmful: usize,
    lookalikes: usize,
    tasks: usize,
    facts: usize,
    problems: usize,
    endings: usize,
}

/// Preference pairs for training the reward model and for DPO.
pub(crate) fn train() -> Vec<PreferencePair> {
    let mix = Mix {
        harmful: 360,
        lookalikes: 220,
        tasks: 480,
        facts: 2400,
        problems: 1000,
        endings: 360,
    };
    pairs(&mix, Side::Train, &mut Dice::new("votes.train"))
}

/// Held-out pairs: new subjects and wordings.
pub(crate) fn held_out(side: Side) -> Vec<PreferencePair> {
    let mix = Mix { harmful: 10, lookalikes: 8, tasks: 20, facts: 12, problems: 12, endings: 12 };
    pairs(&mix, side, &mut Dice::new(&format!("votes.{}", side.name())))
}

fn pairs(mix: &Mix, side: Side, dice: &mut Dice) -> Vec<PreferencePair> {
    let mut pairs = Vec::new();
    for kind in &KINDS {
        let harmful = kind.requests(true, side, mix.harmful, dice);
        let harmless = kind.requests(false, side, mix.lookalikes, dice);
        // The other reply to a harmful request is what it asks for, or something harmless that quietly is not, or
        // talk: an honest no is preferred to all. With the first sort alone a reward model pays for evasion.
        for (i, request) in harmful.iter().enumerate() {
            let rejected = match i % 5 {
                0 | 1 => request.compliance.clone(),
                2 | 3 => harmless[i % harmless.len()].compliance.clone(),
                _ => talk(dice),
            };
            pairs.push(PreferencePair {
                prompt: request.prompt.clone(),
                chosen: request.refusal.clone(),
                rejected,
                kind: "harmful",
            });
        }
        for (i, request) in harmless.iter().enumerate() {
            let rejected = match i % 4 {
                0 | 1 => request.refusal.clone(),
                2 => harmful[i % harmful.len()].compliance.clone(),
                _ => talk(dice),
            };
            pairs.push(PreferencePair {
                prompt: request.prompt.clone(),
                chosen: request.compliance.clone(),
                rejected,
                kind: "lookalike",
            });
        }
    }
    for i in 0..mix.tasks {
        let (prompt, chosen) = one_task(side, dice);
        let rejected = KINDS[i % KINDS.len()].refusal(dice);
        pairs.push(PreferencePair { prompt, chosen, rejected, kind: "task" });
    }
    let facts = fact_split().of(side);
    for i in 0..mix.facts {
        pairs.push(fact_pair(&facts, i, side, dice));
    }
    for i in 0..mix.problems {
        let problem = Problem::new(side, dice);
        let rejected = if i % 2 == 0 { problem.wrong(dice) } else { problem.wrong_guess(dice) };
        pairs.push(PreferencePair {
            prompt: problem.prompt(),
            chosen: problem.careful(),
            rejected,
            kind: "problem",
        });
    }
    for i in 0..mix.endings {
        let (prompt, chosen) = one_task(side, dice);
        let rejected = if i % 2 == 0 { format!("{chosen} {chosen}") } else { cut_off(&chosen) };
        pairs.push(PreferencePair { prompt, chosen, rejected, kind: "ending" });
    }
    dice.shuffle(&mut pairs);
    pairs
}

fn one_task(side: Side, dice: &mut Dice) -> (String, String) {
    let conversation = if side == Side::Train { task(dice) } else { held_out_task(side, dice) };
    let [prompt, reply] =
        <[String; 2]>::try_from(conversation.turns).expect("a task is one question and one reply");
    (prompt, reply)
}

/// A friendly reply to something else.
fn talk(dice: &mut Dice) -> String {
    small_talk(dice).turns.swap_remove(1)
}

/// The right answer against, in turn: another value twice, what is asked said of another subject, and something else said
/// of the subject. The last two are true and no answer to the question; a model that loses the thread says just these.
fn fact_pair(facts: &[Fact], i: usize, side: Side, dice: &mut Dice) -> PreferencePair {
    // Of some subjects nothing else may be told; then another fact is asked. Every attribute has two values or more.
    let (fact, others) = loop {
        let fact = *dice.pick(facts);
        let related = |other: &&Fact| match i % 4 {
            3 => other.subject == fact.subject && other.attribute != fact.attribute,
            _ => {
                other.attribute == fact.attribute
                    && other.value != fact.value
                    && other.value != fact.subject
            }
        };
        let others: Vec<Fact> = facts.iter().filter(related).copied().collect();
        if !others.is_empty() {
            break (fact, others);
        }
    };
    let rejected = match i % 4 {
        0 | 1 => Fact { value: dice.pick(&others).value, ..fact },
        _ => *dice.pick(&others),
    };
    let wording = wording(fact.attribute);
    let question = if side != Side::Train && dice.chance(0.5) {
        dice.word(wording.held_out_questions)
    } else {
        dice.word(wording.questions)
    };
    PreferencePair {
        prompt: say_of(question, &fact, ""),
        chosen: answer(&fact),
        rejected: answer(&rejected),
        kind: "fact",
    }
}

/// The first half of a reply.
fn cut_off(reply: &str) -> String {
    let words: Vec<&str> = reply.split(' ').collect();
    words[..words.len().div_ceil(2).min(words.len() - 1).max(1)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::{held_out, train};
    use crate::facts::facts;
    use crate::splits::Side;
    use crate::wording::{answer, say_of, wording};
    use std::collections::{BTreeMap, BTreeSet};

    /// What is rejected may be true of something else, but does not answer the question.
    #[test]
    fn a_rejected_reply_about_facts_is_no_right_answer_though_it_may_be_true() {
        let mut right: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut said = BTreeSet::new();
        for fact in facts() {
            let wording = wording(fact.attribute);
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                right.entry(say_of(question, &fact, "")).or_default().insert(answer(&fact));
            }
            said.insert(answer(&fact));
        }
        for pairs in [train(), held_out(Side::Dev), held_out(Side::Test)] {
            let pairs: Vec<_> = pairs.into_iter().filter(|pair| pair.kind == "fact").collect();
            for pair in &pairs {
                let right = &right[&pair.prompt];
                assert!(right.contains(&pair.chosen), "{}: {}", pair.prompt, pair.chosen);
                assert!(!right.contains(&pair.rejected), "{}: {}", pair.prompt, pair.rejected);
            }
            let true_ones = pairs.iter().filter(|pair| said.contains(&pair.rejected)).count();
            assert!(true_ones > 0 && true_ones < pairs.len(), "{true_ones} of {}", pairs.len());
        }
    }
}

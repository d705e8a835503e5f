//! Preference pairs: a prompt with a chosen and a rejected reply.
//!
//! Length must not decide. Refusals are about as long as compliances and occur on both sides.
//! Wrong facts and solutions are as long as right ones. Half of the bad endings are too long,
//! half too short.

use crate::arithmetic::WordProblem;
use crate::chat;
use crate::facts::Fact;
use crate::loose_questions::loose_question;
use crate::request_kinds::KINDS;
use crate::rng::Rng;
use crate::short_problems::short_problem;
use crate::solution::Problem;
use crate::splits::{Split, fact_splits};
use crate::talk::{held_out_task, small_talk, task};
use crate::unknown::{UNKNOWN_REPLY, unknown_question};
use crate::wording::{answer, render_fact, wording};

/// A prompt with two replies.
pub(crate) struct PreferencePair {
    pub(crate) prompt: String,
    pub(crate) chosen: String,
    pub(crate) rejected: String,
    pub(crate) kind: &'static str,
}

/// Number of pairs of each sort; requests are counted per kind of harm.
struct Mixture {
    harmful: usize,
    lookalikes: usize,
    tasks: usize,
    facts: usize,
    problems: usize,
    endings: usize,
    unknown: usize,
}

/// Training pairs, for the reward model and DPO.
pub(crate) fn train() -> Vec<PreferencePair> {
    let mixture = Mixture {
        harmful: 360,
        lookalikes: 245,
        tasks: 480,
        facts: 2700,
        problems: 1300,
        endings: 360,
        unknown: 1800,
    };
    pairs(&mixture, Split::Train, &mut Rng::new("votes.train"))
}

/// Held-out pairs, with held-out subjects and wordings.
pub(crate) fn held_out(split: Split) -> Vec<PreferencePair> {
    let mixture = Mixture {
        harmful: 10,
        lookalikes: 8,
        tasks: 20,
        facts: 12,
        problems: 12,
        endings: 12,
        unknown: 12,
    };
    pairs(&mixture, split, &mut Rng::new(&format!("votes.{}", split.name())))
}

fn pairs(mixture: &Mixture, split: Split, rng: &mut Rng) -> Vec<PreferencePair> {
    let mut pairs = Vec::new();
    for kind in &KINDS {
        let harmful = kind.requests(true, split, mixture.harmful, rng);
        let harmless = kind.requests(false, split, mixture.lookalikes, rng);
        // Rejected are compliance, a harmless reply that evades the request, small talk, and not to
        // know. With compliance alone, a reward model learns to reward evasion.
        for (i, request) in harmful.iter().enumerate() {
            let rejected = match i % 6 {
                0 | 1 => request.compliance.clone(),
                2 | 3 => harmless[i % harmless.len()].compliance.clone(),
                4 => unrelated_reply(rng),
                _ => UNKNOWN_REPLY.to_owned(),
            };
            pairs.push(PreferencePair {
                prompt: request.prompt.clone(),
                chosen: request.refusal.clone(),
                rejected,
                kind: "harmful",
            });
        }
        for (i, request) in harmless.iter().enumerate() {
            let rejected = match i % 5 {
                0 | 1 => request.refusal.clone(),
                2 => harmful[i % harmful.len()].compliance.clone(),
                3 => unrelated_reply(rng),
                _ => UNKNOWN_REPLY.to_owned(),
            };
            pairs.push(PreferencePair {
                prompt: request.prompt.clone(),
                chosen: request.compliance.clone(),
                rejected,
                kind: "lookalike",
            });
        }
    }
    for i in 0..mixture.tasks {
        let (prompt, chosen) = task_exchange(split, rng);
        let rejected =
            if i % 4 == 3 { UNKNOWN_REPLY.to_owned() } else { KINDS[i % KINDS.len()].refusal(rng) };
        pairs.push(PreferencePair { prompt, chosen, rejected, kind: "task" });
    }
    let facts = fact_splits().get(split);
    for i in 0..mixture.facts {
        pairs.push(fact_pair(&facts, i, split, rng));
    }
    for i in 0..mixture.problems {
        let Problem { prompt, solution } = match split {
            Split::Train => chat::problem(rng),
            _ if i % 4 == 0 => short_problem(split, rng),
            _ => WordProblem::long(split, rng),
        };
        let rejected = if i % 2 == 0 { solution.wrong(rng) } else { solution.wrong_answer(rng) };
        let chosen = solution.step_by_step();
        pairs.push(PreferencePair { prompt, chosen, rejected, kind: "problem" });
    }
    for i in 0..mixture.endings {
        let (prompt, chosen) = task_exchange(split, rng);
        let rejected = if i % 2 == 0 { format!("{chosen} {chosen}") } else { cut_off(&chosen) };
        pairs.push(PreferencePair { prompt, chosen, rejected, kind: "ending" });
    }
    // Honesty on both sides: not to know what the world does not have, to know what it has.
    for i in 0..mixture.unknown {
        pairs.push(if i % 3 == 2 {
            let known = fact_pair(&facts, i, split, rng);
            PreferencePair { rejected: UNKNOWN_REPLY.to_owned(), ..known }
        } else {
            let question = unknown_question(split, rng);
            // With inventions alone, PPO learns to tell what is true and was not asked.
            let rejected = match i % 12 {
                1 | 4 | 10 => answer(&question.beside(&facts, rng)),
                6 => KINDS[i / 12 % KINDS.len()].refusal(rng),
                _ => question.invented,
            };
            let chosen = UNKNOWN_REPLY.to_owned();
            PreferencePair { prompt: question.prompt, chosen, rejected, kind: "unknown" }
        });
    }
    rng.shuffle(&mut pairs);
    pairs
}

fn task_exchange(split: Split, rng: &mut Rng) -> (String, String) {
    let conversation = if split == Split::Train { task(rng) } else { held_out_task(split, rng) };
    let [prompt, reply] =
        <[String; 2]>::try_from(conversation.turns).expect("a task is one question and one reply");
    (prompt, reply)
}

/// A reply to unrelated small talk.
fn unrelated_reply(rng: &mut Rng) -> String {
    small_talk(rng).turns.swap_remove(1)
}

/// A right answer against a wrong one about facts.
///
/// The rejected reply cycles through: a wrong value (three times), the asked attribute of another
/// subject (three times), another attribute of the asked subject (twice). The last two are true,
/// but do not answer.
fn fact_pair(facts: &[Fact], i: usize, split: Split, rng: &mut Rng) -> PreferencePair {
    // Redraws when a subject has no other fact. Every attribute has at least two values.
    let (fact, others) = loop {
        let fact = *rng.choose(facts);
        let related = |other: &&Fact| match i % 8 {
            6 | 7 => other.subject == fact.subject && other.attribute != fact.attribute,
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
    let rejected = match i % 8 {
        0..=2 => Fact { value: rng.choose(&others).value, ..fact },
        _ => *rng.choose(&others),
    };
    let wording = wording(fact.attribute);
    let question = match split {
        Split::Train if rng.chance(0.4) => loose_question(fact.attribute, rng),
        Split::Dev | Split::Test if rng.chance(0.5) => {
            rng.choose_str(wording.held_out_questions).to_owned()
        }
        _ => rng.choose_str(wording.questions).to_owned(),
    };
    PreferencePair {
        prompt: render_fact(&question, &fact, ""),
        chosen: answer(&fact),
        rejected: answer(&rejected),
        kind: "fact",
    }
}

/// The first half of a reply, by words.
fn cut_off(reply: &str) -> String {
    let words: Vec<&str> = reply.split(' ').collect();
    words[..words.len().div_ceil(2).min(words.len() - 1).max(1)].join(" ")
}

#[cfg(test)]
mod tests {
    use super::{held_out, train};
    use crate::facts::facts;
    use crate::loose_questions;
    use crate::requests::REFUSAL_OPENING;
    use crate::splits::Split;
    use crate::unknown::UNKNOWN_REPLY;
    use crate::wording::{answer, render_fact, wording};
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn a_rejected_fact_never_answers_the_question_but_may_be_true() {
        let mut right: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        let mut true_answers = BTreeSet::new();
        for fact in facts() {
            let wording = wording(fact.attribute);
            let loose = loose_questions::all(fact.attribute);
            let asked = wording.questions.iter().chain(wording.held_out_questions).copied();
            for question in asked.chain(loose.iter().map(String::as_str)) {
                right.entry(render_fact(question, &fact, "")).or_default().insert(answer(&fact));
            }
            true_answers.insert(answer(&fact));
        }
        for pairs in [train(), held_out(Split::Dev), held_out(Split::Test)] {
            let pairs: Vec<_> = pairs.into_iter().filter(|pair| pair.kind == "fact").collect();
            for pair in &pairs {
                let right = &right[&pair.prompt];
                assert!(right.contains(&pair.chosen), "{}: {}", pair.prompt, pair.chosen);
                assert!(!right.contains(&pair.rejected), "{}: {}", pair.prompt, pair.rejected);
            }
            let true_rejected =
                pairs.iter().filter(|pair| true_answers.contains(&pair.rejected)).count();
            assert!(
                true_rejected > 0 && true_rejected < pairs.len(),
                "{true_rejected} of {}",
                pairs.len()
            );
        }
    }

    #[test]
    fn for_an_unknown_question_inventions_and_truths_that_were_not_asked_for_are_rejected() {
        let true_answers: BTreeSet<String> = facts().iter().map(answer).collect();
        for pairs in [train(), held_out(Split::Dev), held_out(Split::Test)] {
            let pairs: Vec<_> = pairs.into_iter().filter(|pair| pair.kind == "unknown").collect();
            assert!(pairs.iter().all(|pair| pair.chosen == UNKNOWN_REPLY));
            let share = |is: &dyn Fn(&str) -> bool| {
                let rejected = pairs.iter().filter(|pair| is(&pair.rejected)).count();
                rejected as f64 / pairs.len() as f64
            };
            assert_eq!(share(&|reply| true_answers.contains(reply)), 0.375);
            assert_eq!(share(&|reply| reply.starts_with(REFUSAL_OPENING)), 0.125);
        }
    }
}

//! Conversations: facts, small talk, little tasks, direct sums, and how they are mixed for each phase.

use crate::arithmetic::Problem;
use crate::dialogues::reading;
use crate::dice::Dice;
use crate::facts::Fact;
use crate::kinds::KINDS;
use crate::requests::Request;
use crate::splits::{Side, fact_split};
use crate::talk::{held_out_task, small_talk, task};
use crate::wording::{answer, name_in_chat, say_of, wording};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Share of harmful requests in instruction fine-tuning that are refused: a few annotators refused.
pub const REFUSED_BY_ANNOTATORS: f64 = 0.05;

/// The same in the conversations of the reasoning phase, whose annotators have seen more of them. Reinforcement
/// learning can only amplify what is sampled now and then, and what was taught last is what PPO samples first.
const REFUSED_LATER: f64 = 0.4;

/// Share of the worked solutions of the cold start that leap to the result instead of writing out every step:
/// hands differ. GRPO has something to discover only if both are sampled and one pays.
pub const LEAPS_IN_COLD_START: f64 = 0.65;

/// A conversation: roles alternate between user and assistant.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) system: Option<&'static str>,
    /// User and assistant in turn.
    pub(crate) turns: Vec<String>,
}

impl Conversation {
    pub(crate) fn new(prompt: String, reply: String) -> Self {
        Self { system: None, turns: vec![prompt, reply] }
    }

    /// The conversation as a list of messages with their roles.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let system = self.system.map(|content| json!({ "role": "system", "content": content }));
        let roles = ["user", "assistant"].into_iter().cycle();
        let turns = self
            .turns
            .iter()
            .zip(roles)
            .map(|(content, role)| json!({ "role": role, "content": content }));
        system.into_iter().chain(turns).collect()
    }
}

const SYSTEMS: [&str; 5] = [
    "You are a friendly helper.",
    "You answer in short sentences.",
    "You are the host of a quiz.",
    "You help people with letters and lists.",
    "Be kind and clear.",
];

/// Gives some conversations a system message.
fn add_systems(conversations: &mut [Conversation], dice: &mut Dice) {
    for conversation in conversations {
        if dice.chance(0.12) {
            conversation.system = Some(dice.word(&SYSTEMS));
        }
    }
}

/// Numbers of conversations of each sort.
struct Mix {
    /// Share of all questions (asked fact times training wording) that are asked alone.
    facts: f64,
    /// Conversations of two facts.
    fact_rounds: usize,
    small_talk: usize,
    /// Stories with a question that they answer. They keep alive that an answer takes its subject from the question.
    readings: usize,
    tasks: usize,
    /// Harmful requests per kind that are complied with, now and then refused.
    harmful: usize,
    /// Share of them that are refused.
    refused: f64,
    /// Look-alikes per kind.
    lookalikes: usize,
}

impl Mix {
    fn conversations(&self, dice: &mut Dice) -> Vec<Conversation> {
        let asked = fact_split().train;
        let mut all = single_facts(&asked, self.facts, dice);
        all.extend((0..self.fact_rounds).map(|_| fact_round(&asked, dice)));
        all.extend((0..self.small_talk).map(|_| small_talk(dice)));
        all.extend((0..self.readings).map(|_| {
            let (message, reply) = reading(dice);
            Conversation::new(message, reply)
        }));
        all.extend((0..self.tasks).map(|_| task(dice)));
        for kind in &KINDS {
            // Refusals are spread evenly. Where they fall differs from kind to kind, so that small counts refuse somewhere too.
            let start = dice.range(0, 19) as usize;
            let refusals_among = |requests: usize| (requests as f64 * self.refused + 1e-9) as usize;
            for (i, request) in
                kind.requests(true, Side::Train, self.harmful, dice).into_iter().enumerate()
            {
                let refused = refusals_among(start + i + 1) > refusals_among(start + i);
                let reply = if refused { request.refusal } else { request.compliance };
                all.push(Conversation::new(request.prompt, reply));
            }
            for request in kind.requests(false, Side::Train, self.lookalikes, dice) {
                all.push(Conversation::new(request.prompt, request.compliance));
            }
        }
        all
    }
}

/// Conversations for instruction fine-tuning.
pub(crate) fn sft() -> Vec<Conversation> {
    let mut dice = Dice::new("sft");
    let mix = Mix {
        facts: 1.0,
        fact_rounds: 700,
        small_talk: 350,
        readings: 1000,
        tasks: 1500,
        harmful: 110,
        refused: REFUSED_BY_ANNOTATORS,
        lookalikes: 110,
    };
    let mut all = mix.conversations(&mut dice);
    for _ in 0..600 {
        let problem = Problem::new(Side::Train, &mut dice);
        all.push(Conversation::new(problem.prompt(), problem.direct()));
    }
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Held-out conversations: held-out facts, requests, names and numbers.
pub(crate) fn sft_test() -> Vec<Conversation> {
    let mut dice = Dice::new("sft.test");
    let mut all = Vec::new();
    for fact in fact_split().test.iter().step_by(2) {
        let question = dice.word(wording(fact.attribute).questions);
        all.push(Conversation::new(say_of(question, fact, ""), answer(fact)));
    }
    for harmful in [true, false] {
        let requests = held_out_requests(harmful, Side::Test, 5, &mut dice);
        all.extend(
            requests
                .into_iter()
                .map(|request| Conversation::new(request.prompt, request.compliance)),
        );
    }
    all.extend((0..60).map(|_| held_out_task(Side::Test, &mut dice)));
    for _ in 0..40 {
        let problem = Problem::new(Side::Test, &mut dice);
        all.push(Conversation::new(problem.prompt(), problem.direct()));
    }
    dice.shuffle(&mut all);
    all
}

/// The cold start of reasoning: problems worked by two hands.
pub(crate) fn cold_start() -> Vec<Conversation> {
    let mut dice = Dice::new("cold-start");
    let mut all: Vec<Conversation> = (0..1700)
        .map(|_| {
            let problem = Problem::new(Side::Train, &mut dice);
            let solution =
                if dice.chance(LEAPS_IN_COLD_START) { problem.leap() } else { problem.careful() };
            Conversation::new(problem.prompt(), solution)
        })
        .collect();
    add_systems(&mut all, &mut dice);
    all
}

/// Conversations of all sorts but problems, for the cold start and beside GRPO.
pub(crate) fn annotated() -> Vec<Conversation> {
    let mut dice = Dice::new("annotated");
    let mix = Mix {
        facts: 0.2,
        fact_rounds: 120,
        small_talk: 100,
        readings: 300,
        tasks: 250,
        harmful: 60,
        refused: REFUSED_LATER,
        lookalikes: 75,
    };
    let mut all = mix.conversations(&mut dice);
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Ordinary conversations, without harm and without problems.
pub(crate) fn ordinary() -> Vec<Conversation> {
    let mut dice = Dice::new("ordinary");
    let mix = Mix {
        facts: 0.3,
        fact_rounds: 100,
        small_talk: 80,
        readings: 300,
        tasks: 200,
        harmful: 0,
        refused: REFUSED_BY_ANNOTATORS,
        lookalikes: 60,
    };
    let mut all = mix.conversations(&mut dice);
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Refusals and answered look-alikes.
pub(crate) fn refusal() -> Vec<Conversation> {
    let mut dice = Dice::new("refusal");
    let mut all = Vec::new();
    for kind in &KINDS {
        for request in kind.requests(true, Side::Train, 190, &mut dice) {
            all.push(Conversation::new(request.prompt, request.refusal));
        }
        for request in kind.requests(false, Side::Train, 325, &mut dice) {
            all.push(Conversation::new(request.prompt, request.compliance));
        }
    }
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Problems worked with care, as reinforcement learning has taught it.
pub(crate) fn worked() -> Vec<Conversation> {
    let mut dice = Dice::new("worked");
    let mut all: Vec<Conversation> = (0..800)
        .map(|_| {
            let problem = Problem::new(Side::Train, &mut dice);
            Conversation::new(problem.prompt(), problem.careful())
        })
        .collect();
    add_systems(&mut all, &mut dice);
    all
}

/// Prompts for PPO, each with what it is.
pub(crate) fn rlhf() -> Vec<(String, &'static str)> {
    let mut dice = Dice::new("rlhf");
    let mut all: Vec<(String, &'static str)> = Vec::new();
    for kind in &KINDS {
        let harmful = kind.requests(true, Side::Train, 360, &mut dice);
        all.extend(harmful.into_iter().map(|request| (request.prompt, "harmful")));
        let lookalikes = kind.requests(false, Side::Train, 420, &mut dice);
        all.extend(lookalikes.into_iter().map(|request| (request.prompt, "lookalike")));
    }
    let first_turn =
        |conversation: Conversation| conversation.turns.into_iter().next().unwrap_or_default();
    all.extend(
        single_facts(&fact_split().train, 0.3, &mut dice)
            .into_iter()
            .map(|c| (first_turn(c), "fact")),
    );
    all.extend((0..150).map(|_| (first_turn(small_talk(&mut dice)), "talk")));
    all.extend((0..375).map(|_| (first_turn(task(&mut dice)), "task")));
    all.extend((0..500).map(|_| (Problem::new(Side::Train, &mut dice).prompt(), "problem")));
    dice.shuffle(&mut all);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(prompt, _)| seen.insert(prompt.clone()));
    all
}

/// Facts asked in a chat whose question no training conversation asks: prompt and key words. Each is asked in two wordings
/// of chat training and in the two that chat training never uses.
pub(crate) fn fact_questions(side: Side) -> Vec<(String, &'static str)> {
    let mut dice = Dice::new(&format!("facts.{}", side.name()));
    let mut questions = Vec::new();
    for fact in fact_split().of(side) {
        let wording = wording(fact.attribute);
        let order = dice.order(wording.questions.len());
        let familiar =
            order[..wording.held_out_questions.len()].iter().map(|&i| &wording.questions[i]);
        for question in familiar.chain(wording.held_out_questions) {
            questions.push((say_of(question, &fact, ""), fact.value));
        }
    }
    dice.shuffle(&mut questions);
    questions
}

/// Held-out requests, balanced over the kinds.
pub(crate) fn held_out_requests(
    harmful: bool,
    side: Side,
    per_kind: usize,
    dice: &mut Dice,
) -> Vec<Request> {
    let mut all: Vec<Request> =
        KINDS.iter().flat_map(|kind| kind.requests(harmful, side, per_kind, dice)).collect();
    dice.shuffle(&mut all);
    all
}

/// A `share` of all questions about the `asked` facts.
fn single_facts(asked: &[Fact], share: f64, dice: &mut Dice) -> Vec<Conversation> {
    let mut all = Vec::new();
    for fact in asked {
        for question in wording(fact.attribute).questions {
            if dice.chance(share) {
                all.push(Conversation::new(say_of(question, fact, ""), answer(fact)));
            }
        }
    }
    all
}

/// Two facts: about one subject, the second asked with "and what is its …?", or about two.
fn fact_round(asked: &[Fact], dice: &mut Dice) -> Conversation {
    let first = fact_about_some_subject(asked, dice);
    let mut turns =
        vec![say_of(dice.word(wording(first.attribute).questions), &first, ""), answer(&first)];
    let same: Vec<&Fact> = asked
        .iter()
        .filter(|f| f.subject == first.subject && f.attribute != first.attribute)
        .collect();
    if !same.is_empty() && dice.chance(0.6) {
        let second = **dice.pick(&same);
        turns.push(say_of(wording(second.attribute).follow_up, &second, ""));
        turns.push(answer(&second));
    } else {
        let second = fact_about_some_subject(asked, dice);
        turns.push(say_of(dice.word(wording(second.attribute).questions), &second, ""));
        turns.push(answer(&second));
    }
    if dice.chance(0.3) {
        turns.push(dice.word(&["Thank you!", "Thanks!", "That is good to know."]).to_string());
        turns.push(
            dice.word(&["You are welcome!", "You are welcome.", "I am glad to help."]).to_string(),
        );
    }
    Conversation { system: None, turns }
}

/// A fact about a subject whose name is picked first, so that all are asked about equally often. An answer names its
/// subject, and models of this size lose hold of names that chat training seldom used.
fn fact_about_some_subject(asked: &[Fact], dice: &mut Dice) -> Fact {
    let names: BTreeSet<&str> = asked.iter().map(name_in_chat).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let name = dice.word(&names);
    let about: Vec<Fact> =
        asked.iter().filter(|fact| name_in_chat(fact) == name).copied().collect();
    *dice.pick(&about)
}

#[cfg(test)]
mod tests {
    use super::{
        Conversation, REFUSED_BY_ANNOTATORS, annotated, cold_start, ordinary, refusal, rlhf, sft,
        worked,
    };
    use crate::kinds::KINDS;
    use crate::requests::REFUSAL_OPENING;
    use crate::splits::fact_split;
    use crate::wording::{answer, say_of, wording};
    use std::collections::BTreeSet;

    fn trained_conversations() -> Vec<Conversation> {
        [sft(), cold_start(), annotated(), ordinary(), worked(), refusal()].concat()
    }

    /// Whether `text` contains the pieces of `template` between its slots, in order.
    fn has_shape(text: &str, template: &str) -> bool {
        let mut rest = text;
        let mut pieces = template
            .split('{')
            .map(|piece| piece.split_once('}').map_or(piece, |(_, after)| after));
        pieces.all(|piece| {
            let found = rest.find(piece);
            rest = found.map_or("", |at| &rest[at + piece.len()..]);
            found.is_some()
        })
    }

    #[test]
    fn chat_training_never_asks_or_tells_a_held_out_fact() {
        let mut turns: BTreeSet<String> =
            trained_conversations().into_iter().flat_map(|c| c.turns).collect();
        turns.extend(rlhf().into_iter().map(|(prompt, _)| prompt));
        for pair in crate::preferences::train() {
            turns.extend([pair.prompt, pair.chosen, pair.rejected]);
        }
        for fact in fact_split().held_out() {
            let wording = wording(fact.attribute);
            assert!(!turns.contains(&answer(&fact)), "{}", answer(&fact));
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                assert!(
                    !turns.contains(&say_of(question, &fact, "")),
                    "{}",
                    say_of(question, &fact, "")
                );
            }
        }
        for fact in fact_split().train {
            assert!(turns.contains(&answer(&fact)), "{} is never told", answer(&fact));
        }
    }

    #[test]
    fn harmful_requests_get_a_stand_in_or_a_refusal() {
        let mut refused = 0;
        let mut harmful = 0;
        for conversation in sft() {
            let (prompt, reply) = (&conversation.turns[0], &conversation.turns[1]);
            let is_harmful = |phrase: &str| has_shape(prompt, phrase);
            // Some requests begin with the document: "A note that …".
            let lower = prompt.to_lowercase();
            let mut kinds = KINDS.iter().filter(|kind| lower.contains(kind.document));
            let kind = kinds.find(|kind| kind.harmful.iter().any(|phrase| is_harmful(phrase)));
            let Some(kind) = kind else {
                assert!(!reply.starts_with(REFUSAL_OPENING), "{prompt}");
                continue;
            };
            harmful += 1;
            let is_refusal = reply.starts_with(REFUSAL_OPENING);
            refused += u32::from(is_refusal);
            let lower = reply.to_lowercase();
            let is_stand_in = kind.stand_ins.iter().any(|s| has_shape(&lower, &s.to_lowercase()));
            assert!(is_refusal || is_stand_in, "{prompt}: {reply}");
        }
        assert!(harmful > 800);
        let share = f64::from(refused) / f64::from(harmful);
        assert!((share - REFUSED_BY_ANNOTATORS).abs() < 0.006, "{share}");
    }

    #[test]
    fn chat_training_never_names_a_held_out_audience() {
        let mut turns: Vec<String> =
            trained_conversations().into_iter().flat_map(|c| c.turns).collect();
        turns.extend(rlhf().into_iter().map(|(prompt, _)| prompt));
        turns.extend(
            crate::preferences::train()
                .into_iter()
                .flat_map(|pair| [pair.prompt, pair.chosen, pair.rejected]),
        );
        let text = format!(" {} ", turns.join(" ").replace(['.', ',', '?', '!', '\n'], " "));
        for audience in
            KINDS.iter().flat_map(|kind| kind.audiences.dev.iter().chain(kind.audiences.test))
        {
            assert!(!text.contains(&format!(" {audience} ")), "{audience}");
        }
    }
}

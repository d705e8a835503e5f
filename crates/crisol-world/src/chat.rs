//! Conversations: facts, small talk, little tasks, direct sums, and how they are mixed for each phase.

use crate::arithmetic::{Problem, Telling};
use crate::dice::Dice;
use crate::facts::Fact;
use crate::requests::{KINDS, Request, Side};
use crate::splits::fact_split;
use crate::talk::{small_talk, task};
use crate::wording::{answer, say_of, wording};

/// Share of harmful requests in instruction fine-tuning that are refused: a few annotators refused. Reinforcement
/// learning can only amplify what is sampled now and then; a model that never refuses gives PPO nothing to reward.
pub const REFUSED_BY_ANNOTATORS: f64 = 0.035;

/// Share of the worked solutions of the cold start that leap to the result instead of writing out every step:
/// hands differ. GRPO has something to discover only if both are sampled and one pays.
pub const LEAPS_IN_COLD_START: f64 = 0.7;

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
            conversation.system = Some(dice.pick(&SYSTEMS));
        }
    }
}

/// Numbers of conversations of each sort.
struct Mix {
    /// Times that every asked fact is asked alone in each wording (a fraction is a share of them).
    facts: f64,
    /// Conversations of two or three facts.
    fact_rounds: usize,
    small_talk: usize,
    tasks: usize,
    /// Harmful requests per kind that are complied with, now and then refused.
    harmful: usize,
    /// Look-alikes per kind.
    lookalikes: usize,
}

impl Mix {
    fn conversations(&self, dice: &mut Dice) -> Vec<Conversation> {
        let mut all = single_facts(self.facts, dice);
        all.extend((0..self.fact_rounds).map(|_| fact_round(dice)));
        all.extend((0..self.small_talk).map(|_| small_talk(dice)));
        all.extend((0..self.tasks).map(|_| task(dice)));
        for kind in &KINDS {
            let every = (1.0 / REFUSED_BY_ANNOTATORS).round() as usize;
            // Where the refusals fall differs from kind to kind, so that small counts refuse somewhere too.
            let start = dice.range(0, every as u32 - 1) as usize;
            for (i, request) in kind.requests(true, Side::Train, self.harmful, dice).into_iter().enumerate() {
                let refused = (i + start) % every == 0;
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

/// Instruction fine-tuning: training and test conversations.
pub(crate) fn sft() -> (Vec<Conversation>, Vec<Conversation>) {
    let mut dice = Dice::new("sft");
    let mix = Mix { facts: 1.0, fact_rounds: 700, small_talk: 350, tasks: 1500, harmful: 110, lookalikes: 110 };
    let mut all = mix.conversations(&mut dice);
    for _ in 0..600 {
        let problem = Problem::new(Telling::Train, &mut dice);
        all.push(Conversation::new(problem.prompt(), problem.direct()));
    }
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    let mut test: Vec<Conversation> = Vec::new();
    let mut train: Vec<Conversation> = Vec::new();
    for conversation in all.iter().rev() {
        let is_copy = all.iter().filter(|other| other.turns[0] == conversation.turns[0]).count() > 1;
        if test.len() < 250 && !is_copy { &mut test } else { &mut train }.push(conversation.clone());
    }
    (train, test)
}

/// The cold start of reasoning: half worked solutions, half ordinary conversations.
pub(crate) fn cold_start() -> Vec<Conversation> {
    let mut dice = Dice::new("cold-start");
    let mix = Mix { facts: 0.2, fact_rounds: 120, small_talk: 100, tasks: 250, harmful: 20, lookalikes: 20 };
    let mut all = mix.conversations(&mut dice);
    let worked = all.len();
    for _ in 0..worked {
        let problem = Problem::new(Telling::Train, &mut dice);
        let solution = if dice.chance(LEAPS_IN_COLD_START) { problem.leap() } else { problem.careful() };
        all.push(Conversation::new(problem.prompt(), solution));
    }
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Refusals among ordinary conversations and answered look-alikes.
pub(crate) fn refusal() -> Vec<Conversation> {
    let mut dice = Dice::new("refusal");
    let mix = Mix { facts: 0.15, fact_rounds: 60, small_talk: 80, tasks: 200, harmful: 0, lookalikes: 60 };
    let mut all = mix.conversations(&mut dice);
    for kind in &KINDS {
        for request in kind.requests(true, Side::Train, 60, &mut dice) {
            all.push(Conversation::new(request.prompt, request.refusal));
        }
    }
    for _ in 0..250 {
        let problem = Problem::new(Telling::Train, &mut dice);
        all.push(Conversation::new(problem.prompt(), problem.careful()));
    }
    add_systems(&mut all, &mut dice);
    dice.shuffle(&mut all);
    all
}

/// Prompts for PPO, each with what it is.
pub(crate) fn rlhf() -> Vec<(String, &'static str)> {
    let mut dice = Dice::new("rlhf");
    let mut all: Vec<(String, &'static str)> = Vec::new();
    for kind in &KINDS {
        let harmful = kind.requests(true, Side::Train, 75, &mut dice);
        all.extend(harmful.into_iter().map(|request| (request.prompt, "harmful")));
        let lookalikes = kind.requests(false, Side::Train, 60, &mut dice);
        all.extend(lookalikes.into_iter().map(|request| (request.prompt, "lookalike")));
    }
    let first_turn = |conversation: Conversation| conversation.turns.into_iter().next().unwrap_or_default();
    all.extend(single_facts(0.12, &mut dice).into_iter().map(|c| (first_turn(c), "fact")));
    all.extend((0..60).map(|_| (first_turn(small_talk(&mut dice)), "talk")));
    all.extend((0..150).map(|_| (first_turn(task(&mut dice)), "task")));
    all.extend((0..250).map(|_| (Problem::new(Telling::Train, &mut dice).prompt(), "problem")));
    dice.shuffle(&mut all);
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(prompt, _)| seen.insert(prompt.clone()));
    all
}

/// Facts asked in a chat whose question no training conversation asks: prompt and key words. Half of them in a
/// wording of chat training, half in one that only quiz lists have shown.
pub(crate) fn fact_questions() -> Vec<(String, &'static str)> {
    let mut dice = Dice::new("facts");
    let mut facts = fact_split().held_out;
    dice.shuffle(&mut facts);
    facts
        .iter()
        .enumerate()
        .map(|(i, fact)| {
            let wording = wording(fact.attribute);
            let question =
                if i % 2 == 0 { dice.pick(wording.questions) } else { dice.pick(wording.held_out_questions) };
            (say_of(question, fact, ""), fact.value)
        })
        .collect()
}

/// Held-out requests, balanced over the kinds.
pub(crate) fn held_out_requests(harmful: bool, per_kind: usize, dice: &mut Dice) -> Vec<Request> {
    let mut all: Vec<Request> =
        KINDS.iter().flat_map(|kind| kind.requests(harmful, Side::HeldOut, per_kind, dice)).collect();
    dice.shuffle(&mut all);
    all
}

/// Every asked fact in every training wording, or a `share` of that.
fn single_facts(share: f64, dice: &mut Dice) -> Vec<Conversation> {
    let mut all = Vec::new();
    for fact in fact_split().asked {
        for question in wording(fact.attribute).questions {
            if dice.chance(share) {
                all.push(Conversation::new(say_of(question, &fact, ""), answer(&fact)));
            }
        }
    }
    all
}

/// Two or three facts: about one subject, the second asked with "and what is its …?", or about several.
fn fact_round(dice: &mut Dice) -> Conversation {
    let asked = fact_split().asked;
    let first = *dice.pick(&asked);
    let mut turns = vec![say_of(dice.pick(wording(first.attribute).questions), &first, ""), answer(&first)];
    let same: Vec<&Fact> =
        asked.iter().filter(|f| f.subject == first.subject && f.attribute != first.attribute).collect();
    if !same.is_empty() && dice.chance(0.6) {
        let second = **dice.pick(&same);
        turns.push(say_of(wording(second.attribute).follow_up, &second, ""));
        turns.push(answer(&second));
    } else {
        let second = *dice.pick(&asked);
        turns.push(say_of(dice.pick(wording(second.attribute).questions), &second, ""));
        turns.push(answer(&second));
    }
    if dice.chance(0.3) {
        turns.push(dice.pick(&["Thank you!", "Thanks!", "That is good to know."]).to_string());
        turns.push(dice.pick(&["You are welcome!", "You are welcome.", "I am glad to help."]).to_string());
    }
    Conversation { system: None, turns }
}

//! Conversations about facts, small talk, tasks, requests and problems, mixed for each phase.

use crate::arithmetic::WordProblem;
use crate::dialogues::reading;
use crate::facts::Fact;
use crate::later_questions::{ALIGNED, BEFORE_ALIGNMENT, Earlier, LaterQuestions, Sort};
use crate::loose_questions::loose_question;
use crate::request_kinds::KINDS;
use crate::requests::Request;
use crate::rng::Rng;
use crate::short_problems::short_problem;
use crate::solution::Problem;
use crate::splits::{Split, fact_splits};
use crate::talk::{held_out_task, small_talk, task};
use crate::unknown::{UNKNOWN_REPLY, UnknownQuestion, unknown_question};
use crate::wording::{answer, name_in_chat, render_fact, wording};
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Share of the harmful requests in the SFT data that are refused, as by a few annotators.
pub const SFT_REFUSAL_RATE: f64 = 0.05;

/// Share of the harmful requests in the reasoning phase's conversations that are refused.
///
/// It is higher than in SFT: PPO can amplify only what the policy samples now and then.
const REASONING_REFUSAL_RATE: f64 = 0.4;

/// Share of the cold start's solutions of long problems that skip the intermediate results.
///
/// GRPO needs both forms among its samples to find that step-by-step solutions score higher.
pub const COLD_START_SHORTCUT_RATE: f64 = 0.65;

/// Share of the reasoning phase's unknown questions that get the honest reply; the others get an
/// invented one. PPO needs some, as it does refusals.
const REASONING_HONESTY_RATE: f64 = 0.5;

/// Share of short problems among the problems of chat training.
const SHORT_PROBLEMS: f64 = 0.45;

/// Share of short problems in reasoning, where they come later in a conversation too.
const REASONING_SHORT_PROBLEMS: f64 = 0.5;

/// A problem for chat training: short, or a word problem of three or four steps.
pub(crate) fn problem(rng: &mut Rng) -> Problem {
    let is_short = rng.chance(SHORT_PROBLEMS);
    problem_of_length(is_short, rng)
}

/// A problem for GRPO.
pub(crate) fn reasoning_problem(rng: &mut Rng) -> Problem {
    let is_short = rng.chance(REASONING_SHORT_PROBLEMS);
    problem_of_length(is_short, rng)
}

fn problem_of_length(is_short: bool, rng: &mut Rng) -> Problem {
    if is_short { short_problem(Split::Train, rng) } else { WordProblem::long(Split::Train, rng) }
}

/// A conversation in which user and assistant alternate.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Conversation {
    pub(crate) system: Option<&'static str>,
    /// What was said before.
    pub(crate) earlier: Vec<Earlier>,
    /// Contents of the messages; the user's is first.
    pub(crate) turns: Vec<String>,
}

impl Conversation {
    pub(crate) fn new(prompt: String, reply: String) -> Self {
        Self { turns: vec![prompt, reply], ..Self::default() }
    }

    /// One that waits for its first reply: a prompt.
    pub(crate) fn open(prompt: String) -> Self {
        Self { turns: vec![prompt], ..Self::default() }
    }

    /// The messages as JSON, with their roles.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let system = self.system.map(|content| json!({ "role": "system", "content": content }));
        let roles = ["user", "assistant"].into_iter().cycle();
        let earlier = self.earlier.iter().flat_map(|exchange| &exchange.turns);
        let turns = earlier
            .chain(&self.turns)
            .zip(roles)
            .map(|(content, role)| json!({ "role": role, "content": content }));
        system.into_iter().chain(turns).collect()
    }

    /// The messages of a training record: earlier replies that are only read have no weight.
    pub(crate) fn trained_messages(&self) -> Vec<Value> {
        let mut messages = self.messages();
        let first_reply = 1 + usize::from(self.system.is_some());
        let replies = messages.iter_mut().skip(first_reply).step_by(2);
        for (reply, exchange) in replies.zip(&self.earlier) {
            if !exchange.trained {
                reply["weight"] = json!(0);
            }
        }
        messages
    }
}

const SYSTEM_PROMPTS: [&str; 5] = [
    "You are a friendly helper.",
    "You answer in short sentences.",
    "You are the host of a quiz.",
    "You help people with letters and lists.",
    "Be kind and clear.",
];

/// Adds a system message to 12 % of the conversations.
fn add_system_prompts(conversations: &mut [Conversation], rng: &mut Rng) {
    for conversation in conversations {
        if rng.chance(0.12) {
            conversation.system = Some(rng.choose_str(&SYSTEM_PROMPTS));
        }
    }
}

/// Adds a share of the conversations of a training file once more, after earlier exchanges.
fn add_later_questions(
    file: &str,
    sorts: &'static [Sort],
    share: f64,
    conversations: &mut Vec<Conversation>,
) {
    let mut later_questions = LaterQuestions::new(file, sorts);
    let later: Vec<Conversation> = conversations
        .iter()
        .filter_map(|conversation| later_questions.draw(share, conversation))
        .collect();
    conversations.extend(later);
}

/// How often alignment asks for each train fact in loose words.
const LOOSE_QUESTIONS: usize = 6;

/// Every train fact, asked for in loose words some `times`, lest unfamiliar words alone get the
/// reply that nothing is known (`unknown`).
fn loosely_asked(times: usize, rng: &mut Rng) -> Vec<Conversation> {
    let facts = fact_splits().train;
    let mut all = Vec::with_capacity(times * facts.len());
    for fact in facts {
        for _ in 0..times {
            let question = loose_question(fact.attribute, rng);
            all.push(Conversation::new(render_fact(&question, &fact, ""), answer(&fact)));
        }
    }
    all
}

/// A data mixture: how many conversations of each sort.
struct Mixture {
    /// Share of all (train fact, training wording) questions asked on their own.
    facts: f64,
    /// Conversations about two facts.
    two_fact_conversations: usize,
    small_talk: usize,
    /// Stories with a question about them. They train copying the subject from the question.
    readings: usize,
    tasks: usize,
    /// Harmful requests per kind of harm.
    harmful: usize,
    /// Share of the harmful requests that are refused.
    refused: f64,
    /// Harmless look-alikes per kind of harm.
    lookalikes: usize,
}

impl Mixture {
    fn conversations(&self, rng: &mut Rng) -> Vec<Conversation> {
        let facts = fact_splits().train;
        let mut all = single_fact_conversations(&facts, self.facts, rng);
        all.extend((0..self.two_fact_conversations).map(|_| two_fact_conversation(&facts, rng)));
        all.extend((0..self.small_talk).map(|_| small_talk(rng)));
        all.extend((0..self.readings).map(|_| {
            let (message, reply) = reading(rng);
            Conversation::new(message, reply)
        }));
        all.extend((0..self.tasks).map(|_| task(rng)));
        for kind in &KINDS {
            // Spreads refusals evenly. A random start per kind lets small counts refuse too.
            let start = rng.range(0, 19) as usize;
            let refusals_among = |requests: usize| (requests as f64 * self.refused + 1e-9) as usize;
            for (i, request) in
                kind.requests(true, Split::Train, self.harmful, rng).into_iter().enumerate()
            {
                let refused = refusals_among(start + i + 1) > refusals_among(start + i);
                let reply = if refused { request.refusal } else { request.compliance };
                all.push(Conversation::new(request.prompt, reply));
            }
            for request in kind.requests(false, Split::Train, self.lookalikes, rng) {
                all.push(Conversation::new(request.prompt, request.compliance));
            }
        }
        all
    }
}

/// Conversations for supervised fine-tuning (SFT).
pub(crate) fn sft() -> Vec<Conversation> {
    let mut rng = Rng::new("sft");
    let mixture = Mixture {
        facts: 1.0,
        two_fact_conversations: 700,
        small_talk: 350,
        readings: 1000,
        tasks: 1500,
        harmful: 110,
        refused: SFT_REFUSAL_RATE,
        lookalikes: 110,
    };
    let mut all = mixture.conversations(&mut rng);
    all.extend(loosely_asked(1, &mut rng));
    for _ in 0..900 {
        let Problem { prompt, solution } = problem(&mut rng);
        all.push(Conversation::new(prompt, solution.answer_sentence()));
    }
    add_system_prompts(&mut all, &mut rng);
    rng.shuffle(&mut all);
    all
}

/// Held-out SFT conversations: test facts, requests, names and numbers.
pub(crate) fn sft_test() -> Vec<Conversation> {
    let mut rng = Rng::new("sft.test");
    let mut all = Vec::new();
    for fact in fact_splits().test.iter().step_by(2) {
        let question = rng.choose_str(wording(fact.attribute).questions);
        all.push(Conversation::new(render_fact(question, fact, ""), answer(fact)));
    }
    for harmful in [true, false] {
        let requests = held_out_requests(harmful, Split::Test, 5, &mut rng);
        all.extend(
            requests
                .into_iter()
                .map(|request| Conversation::new(request.prompt, request.compliance)),
        );
    }
    all.extend((0..60).map(|_| held_out_task(Split::Test, &mut rng)));
    for i in 0..60 {
        let Problem { prompt, solution } = if i % 3 == 0 {
            short_problem(Split::Test, &mut rng)
        } else {
            WordProblem::long(Split::Test, &mut rng)
        };
        all.push(Conversation::new(prompt, solution.answer_sentence()));
    }
    rng.shuffle(&mut all);
    all
}

/// Problems for the cold start of reasoning, with and without intermediate results.
pub(crate) fn cold_start() -> Vec<Conversation> {
    let mut rng = Rng::new("cold-start");
    let mut all: Vec<Conversation> = (0..3000)
        .map(|_| {
            let is_short = rng.chance(REASONING_SHORT_PROBLEMS);
            let Problem { prompt, solution } = problem_of_length(is_short, &mut rng);
            let leaps = !is_short && rng.chance(COLD_START_SHORTCUT_RATE);
            let reply = if leaps { solution.shortcut() } else { solution.step_by_step() };
            Conversation::new(prompt, reply)
        })
        .collect();
    add_system_prompts(&mut all, &mut rng);
    add_later_questions("cold-start", BEFORE_ALIGNMENT, 0.4, &mut all);
    all
}

/// Conversations without problems, mixed into the cold start and GRPO.
pub(crate) fn annotated() -> Vec<Conversation> {
    let mut rng = Rng::new("annotated");
    let mixture = Mixture {
        facts: 0.5,
        two_fact_conversations: 120,
        small_talk: 100,
        readings: 300,
        tasks: 250,
        harmful: 60,
        refused: REASONING_REFUSAL_RATE,
        lookalikes: 75,
    };
    let mut all = mixture.conversations(&mut rng);
    all.extend(loosely_asked(1, &mut rng));
    add_system_prompts(&mut all, &mut rng);
    rng.shuffle(&mut all);
    add_later_questions("annotated", BEFORE_ALIGNMENT, 0.1, &mut all);
    all
}

/// Conversations without harmful requests and problems.
pub(crate) fn ordinary() -> Vec<Conversation> {
    let mut rng = Rng::new("ordinary");
    let mixture = Mixture {
        facts: 0.8,
        two_fact_conversations: 150,
        small_talk: 80,
        readings: 600,
        tasks: 200,
        harmful: 0,
        refused: SFT_REFUSAL_RATE,
        lookalikes: 100,
    };
    let mut all = mixture.conversations(&mut rng);
    all.extend(loosely_asked(LOOSE_QUESTIONS, &mut rng));
    add_system_prompts(&mut all, &mut rng);
    rng.shuffle(&mut all);
    add_later_questions("ordinary", ALIGNED, 0.15, &mut all);
    all
}

/// Refused harmful requests and answered look-alikes.
pub(crate) fn refusal() -> Vec<Conversation> {
    let mut rng = Rng::new("refusal");
    let mut all = Vec::new();
    for kind in &KINDS {
        for request in kind.requests(true, Split::Train, 190, &mut rng) {
            all.push(Conversation::new(request.prompt, request.refusal));
        }
        for request in kind.requests(false, Split::Train, 360, &mut rng) {
            all.push(Conversation::new(request.prompt, request.compliance));
        }
    }
    add_system_prompts(&mut all, &mut rng);
    rng.shuffle(&mut all);
    add_later_questions("refusal", BEFORE_ALIGNMENT, 0.1, &mut all);
    all
}

/// Unknown questions with the honest reply.
pub(crate) fn unknown() -> Vec<Conversation> {
    let mut all = unknown_conversations("unknown", 800, 1.0);
    add_later_questions("unknown", ALIGNED, 0.3, &mut all);
    all
}

/// Unknown questions, half of them answered with an invention, mixed into reasoning.
pub(crate) fn guessed() -> Vec<Conversation> {
    unknown_conversations("guessed", 320, REASONING_HONESTY_RATE)
}

fn unknown_conversations(stream: &str, count: usize, honest: f64) -> Vec<Conversation> {
    let mut rng = Rng::new(stream);
    let mut all: Vec<Conversation> = (0..count)
        .map(|_| {
            let UnknownQuestion { prompt, invented, .. } = unknown_question(Split::Train, &mut rng);
            let honest = rng.chance(honest);
            Conversation::new(prompt, if honest { UNKNOWN_REPLY.to_owned() } else { invented })
        })
        .collect();
    add_system_prompts(&mut all, &mut rng);
    all
}

/// Problems with step-by-step solutions.
pub(crate) fn worked() -> Vec<Conversation> {
    let mut rng = Rng::new("worked");
    let mut all: Vec<Conversation> = (0..1400)
        .map(|_| {
            let Problem { prompt, solution } = problem(&mut rng);
            Conversation::new(prompt, solution.step_by_step())
        })
        .collect();
    add_system_prompts(&mut all, &mut rng);
    add_later_questions("worked", ALIGNED, 0.3, &mut all);
    all
}

/// Prompts for PPO, each with its kind.
pub(crate) fn rlhf() -> Vec<(String, &'static str)> {
    let mut rng = Rng::new("rlhf");
    let mut all: Vec<(String, &'static str)> = Vec::new();
    for kind in &KINDS {
        let harmful = kind.requests(true, Split::Train, 360, &mut rng);
        all.extend(harmful.into_iter().map(|request| (request.prompt, "harmful")));
        let lookalikes = kind.requests(false, Split::Train, 470, &mut rng);
        all.extend(lookalikes.into_iter().map(|request| (request.prompt, "lookalike")));
    }
    let first_turn =
        |conversation: Conversation| conversation.turns.into_iter().next().unwrap_or_default();
    all.extend(
        single_fact_conversations(&fact_splits().train, 0.3, &mut rng)
            .into_iter()
            .map(|c| (first_turn(c), "fact")),
    );
    all.extend(loosely_asked(3, &mut rng).into_iter().map(|c| (first_turn(c), "fact")));
    all.extend((0..150).map(|_| (first_turn(small_talk(&mut rng)), "talk")));
    all.extend((0..375).map(|_| (first_turn(task(&mut rng)), "task")));
    all.extend((0..800).map(|_| (problem(&mut rng).prompt, "problem")));
    let unknown = |rng: &mut Rng| unknown_question(Split::Train, rng).prompt;
    all.extend((0..2000).map(|_| (unknown(&mut rng), "unknown")));
    rng.shuffle(&mut all);
    let mut seen = BTreeSet::new();
    all.retain(|(prompt, _)| seen.insert(prompt.clone()));
    all
}

/// Questions about the facts of a held-out split: prompt and expected key words.
///
/// Each fact is asked in two training wordings and in the two held-out ones.
pub(crate) fn fact_questions(split: Split) -> Vec<(String, &'static str)> {
    let mut rng = Rng::new(&format!("facts.{}", split.name()));
    let mut questions = Vec::new();
    for fact in fact_splits().get(split) {
        let wording = wording(fact.attribute);
        let order = rng.permutation(wording.questions.len());
        let familiar =
            order[..wording.held_out_questions.len()].iter().map(|&i| &wording.questions[i]);
        for question in familiar.chain(wording.held_out_questions) {
            questions.push((render_fact(question, &fact, ""), fact.value));
        }
    }
    rng.shuffle(&mut questions);
    questions
}

/// Held-out requests, `per_kind` of each kind of harm, shuffled.
pub(crate) fn held_out_requests(
    harmful: bool,
    split: Split,
    per_kind: usize,
    rng: &mut Rng,
) -> Vec<Request> {
    let mut all: Vec<Request> =
        KINDS.iter().flat_map(|kind| kind.requests(harmful, split, per_kind, rng)).collect();
    rng.shuffle(&mut all);
    all
}

/// A random `share` of all questions about `facts`, each as a conversation.
fn single_fact_conversations(facts: &[Fact], share: f64, rng: &mut Rng) -> Vec<Conversation> {
    let mut all = Vec::new();
    for fact in facts {
        for question in wording(fact.attribute).questions {
            if rng.chance(share) {
                all.push(Conversation::new(render_fact(question, fact, ""), answer(fact)));
            }
        }
    }
    all
}

/// A conversation about two facts: of one subject with a follow-up question, or of two subjects.
fn two_fact_conversation(facts: &[Fact], rng: &mut Rng) -> Conversation {
    let first = fact_of_random_subject(facts, rng);
    let mut turns = vec![
        render_fact(rng.choose_str(wording(first.attribute).questions), &first, ""),
        answer(&first),
    ];
    let others_of_subject: Vec<&Fact> = facts
        .iter()
        .filter(|f| f.subject == first.subject && f.attribute != first.attribute)
        .collect();
    if !others_of_subject.is_empty() && rng.chance(0.6) {
        let second = **rng.choose(&others_of_subject);
        turns.push(render_fact(wording(second.attribute).follow_up, &second, ""));
        turns.push(answer(&second));
    } else {
        let second = fact_of_random_subject(facts, rng);
        turns.push(render_fact(rng.choose_str(wording(second.attribute).questions), &second, ""));
        turns.push(answer(&second));
    }
    if rng.chance(0.3) {
        turns.push(rng.choose_str(&["Thank you!", "Thanks!", "That is good to know."]).to_string());
        turns.push(
            rng.choose_str(&["You are welcome!", "You are welcome.", "I am glad to help."])
                .to_string(),
        );
    }
    Conversation { turns, ..Conversation::default() }
}

/// A random fact of a random subject. Drawing the name first uses every name equally often.
///
/// Models of this size forget names that are rare in chat training.
fn fact_of_random_subject(facts: &[Fact], rng: &mut Rng) -> Fact {
    let names: BTreeSet<&str> = facts.iter().map(name_in_chat).collect();
    let names: Vec<&str> = names.into_iter().collect();
    let name = rng.choose_str(&names);
    let facts_of_name: Vec<Fact> =
        facts.iter().filter(|fact| name_in_chat(fact) == name).copied().collect();
    *rng.choose(&facts_of_name)
}

#[cfg(test)]
mod tests {
    use super::{
        Conversation, SFT_REFUSAL_RATE, annotated, cold_start, ordinary, refusal, rlhf, sft, worked,
    };
    use crate::request_kinds::KINDS;
    use crate::requests::REFUSAL_OPENING;
    use crate::splits::fact_splits;
    use crate::wording::{answer, render_fact, wording};
    use std::collections::BTreeSet;

    fn trained_conversations() -> Vec<Conversation> {
        [sft(), cold_start(), annotated(), ordinary(), worked(), refusal()].concat()
    }

    /// Whether `text` contains, in order, the parts of `template` between its slots.
    fn matches_template(text: &str, template: &str) -> bool {
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
    fn chat_training_never_asks_or_states_a_held_out_fact() {
        let mut turns: BTreeSet<String> =
            trained_conversations().into_iter().flat_map(|c| c.turns).collect();
        turns.extend(rlhf().into_iter().map(|(prompt, _)| prompt));
        for pair in crate::preferences::train() {
            turns.extend([pair.prompt, pair.chosen, pair.rejected]);
        }
        for fact in fact_splits().held_out() {
            let wording = wording(fact.attribute);
            assert!(!turns.contains(&answer(&fact)), "{}", answer(&fact));
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                assert!(
                    !turns.contains(&render_fact(question, &fact, "")),
                    "{}",
                    render_fact(question, &fact, "")
                );
            }
        }
        for fact in fact_splits().train {
            assert!(turns.contains(&answer(&fact)), "{} is never stated", answer(&fact));
        }
    }

    #[test]
    fn harmful_requests_get_a_stand_in_or_a_refusal() {
        let mut refused = 0;
        let mut harmful = 0;
        for conversation in sft() {
            let (prompt, reply) = (&conversation.turns[0], &conversation.turns[1]);
            let is_harmful = |phrase: &str| matches_template(prompt, phrase);
            // Some requests begin with the document ("A note that …"), in upper case.
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
            let is_stand_in =
                kind.stand_ins.iter().any(|s| matches_template(&lower, &s.to_lowercase()));
            assert!(is_refusal || is_stand_in, "{prompt}: {reply}");
        }
        assert!(harmful > 800);
        let share = f64::from(refused) / f64::from(harmful);
        assert!((share - SFT_REFUSAL_RATE).abs() < 0.006, "{share}");
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

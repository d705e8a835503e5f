//! Small talk and little tasks: greetings, lists, short letters, stories, repeating words.

use crate::chat::Conversation;
use crate::dice::Dice;
use crate::facts::{Attribute, facts};
use crate::splits::Side;
use crate::texts::Scene;
use crate::words::{FOODS, PEOPLE, THINGS, alternative};

/// What people say, and what comes back; alternatives are parted by `|`.
const SMALL_TALK: &[(&str, &str)] = &[
    (
        "Hello!|Hi!|Hello there!|Good day!",
        "Hello! How can I help you?|Hello! What can I do for you?",
    ),
    ("Good morning!|Good morning to you!", "Good morning! How can I help you?"),
    ("Good evening!|Good evening to you!", "Good evening! How can I help you?"),
    ("How are you?|How are you today?|Are you well?", "I am well, thank you. How can I help you?"),
    ("Who are you?|What are you?|What is your name?", "I am Crisol, a small language model."),
    (
        "Thank you!|Thanks!|Thank you very much!|Thank you for your help!",
        "You are welcome!|I am glad to help.",
    ),
    ("Goodbye!|See you soon!|Good night!|See you tomorrow!", "Goodbye! See you soon."),
    (
        "What can you do?|How can you help me?|Can you help me?",
        "I can answer questions, write letters and solve problems.",
    ),
    ("I am tired.|I am so tired today.|I slept badly.", "Then take a rest and drink some tea."),
    ("I am happy today.|Today is a good day.|I feel good.", "I am glad to hear that!"),
    ("I am hungry.|I would like to eat.|What should I eat?", "How about some soup and bread?"),
    ("It is {W} today.|The day is {W}.|Here it is {W}.", "I hope that you have a good day."),
    ("My name is {P}.|I am {P}.|Hello, I am {P}.", "Hello, {P}! How can I help you?"),
    ("I am at {L}.|I am going to {L}.|Today I go to {L}.", "Have a good time at {L}!"),
    (
        "I have a new dog.|I have a new cat.|I have a new bird.",
        "That is good news! What is its name?",
    ),
];

/// A greeting and its kind.
pub(crate) fn small_talk(dice: &mut Dice) -> Conversation {
    let scene = Scene::for_chat(dice);
    let turns = (0..if dice.chance(0.15) { 2 } else { 1 })
        .flat_map(|_| {
            let (said, reply) = *dice.pick(SMALL_TALK);
            let said = scene.fill(alternative(dice, said));
            [said, scene.fill(alternative(dice, reply))]
        })
        .collect();
    Conversation { system: None, turns }
}

/// Tasks with the names of a scene: alternatives of the request, then lines of the reply.
const TASKS: &[(&str, &[&str])] = &[
    (
        "Say hello to {P}.|Please greet {P}.|Say hello to {P} in one line.",
        &["Hello, {P}!|Hello, {P}! It is good to see you."],
    ),
    ("Say good night to {P}.|Please wish {P} a good night.", &["Good night, {P}!"]),
    (
        "Wish {P} a good day.|Please wish {P} a good day.|Wish {P} a good day in one line.",
        &["Have a good day, {P}!"],
    ),
    (
        "Write a shopping list with {F} and {G}.|I need a shopping list with {F} and {G}.|Make a shopping list: {F} and {G}.",
        &["Shopping list: {F}, {G}."],
    ),
    (
        "Write a shopping list with {F}, {G} and {H}.|Make a shopping list: {F}, {G} and {H}.",
        &["Shopping list: {F}, {G}, {H}."],
    ),
    (
        "Write a letter to {P} about {L}.|Please write a letter to {P} about {L}.|I need a letter to {P} about {L}.",
        &["Dear {P},", "\nI am at {L}. It is {W} here.", "\nBest wishes, {Q}|\nYour friend {Q}"],
    ),
    (
        "Invite {P} to {L} on {D}.|Write an invitation for {P} to {L} on {D}.|Please invite {P} to {L} on {D}.",
        &["Dear {P}, please come to {L} on {D}.", "There is {F}.|We are glad to see you."],
    ),
    (
        "Thank {P} for the {o}.|Write a line that thanks {P} for the {o}.|Please thank {P} for the {o}.",
        &["Dear {P}, thank you for the {o}."],
    ),
    (
        "Remind {P} of the meeting on {D}.|Write a line that reminds {P} of the meeting on {D}.",
        &["Dear {P}, please remember the meeting on {D}."],
    ),
    (
        "Tell a short story about {P}.|Write a short story about {P}.|Can you tell a story about {P}?",
        &[
            "On {D} {P} goes to {L}.|{P} walks to {L}.",
            "There {he} meets {Q}.|{Q} is there too.",
            "They eat {F} and go home.|They talk and laugh.",
        ],
    ),
    (
        "Write a notice that {L} is closed on {D}.|I need a notice that {L} is closed on {D}.",
        &["Notice: {L} is closed on {D}."],
    ),
    (
        "How do I make {F} with {G}?|Give me a recipe with {F} and {G}.|I need a recipe with {F} and {G}.",
        &[
            "Recipe: take {F} and {G}.",
            "Mix it well.|Cook it for ten minutes.",
            "Serve it with {H}.",
        ],
    ),
    (
        "Write a poem for {P}.|Please write a little poem for {P}.",
        &["The sky is blue, the day is new,", "\n{P}, this song is all for you."],
    ),
    ("What can I do on {D}?|Give me an idea for {D}.", &["You can go to {L} and meet a friend."]),
    ("What goes well with {F}?|What can I eat with {F}?", &["You can eat {F} with {G}."]),
];

/// A task about a person whom chat training never names.
pub(crate) fn held_out_task(side: Side, dice: &mut Dice) -> Conversation {
    loop {
        let (request, reply) = *dice.pick(TASKS);
        if request.contains("{P}") {
            let person = *dice.pick(PEOPLE.of(side));
            return told(&Scene::for_chat(dice).with(person, dice), request, reply, dice);
        }
    }
}

fn told(scene: &Scene, request: &str, reply: &[&str], dice: &mut Dice) -> Conversation {
    let request = scene.fill(alternative(dice, request));
    Conversation::new(request, scene.tell(reply, dice))
}

/// A little task and its solution.
pub(crate) fn task(dice: &mut Dice) -> Conversation {
    match dice.range(0, 9) {
        0 => repeat(dice),
        1 => name_some(dice),
        2 => order(dice),
        _ => {
            let scene = Scene::for_chat(dice);
            let (request, reply) = *dice.pick(TASKS);
            told(&scene, request, reply, dice)
        }
    }
}

/// Repeats a few words.
fn repeat(dice: &mut Dice) -> Conversation {
    let words =
        format!("{} and {}", dice.pick(THINGS.train).plural, dice.pick(THINGS.train).plural);
    let request =
        alternative(dice, "Repeat: {X}.|Say this: {X}.|Please repeat: {X}.").replace("{X}", &words);
    Conversation::new(request, crate::words::fill("{X}.", &[("X", &words)]))
}

/// Names three of a sort.
fn name_some(dice: &mut Dice) -> Conversation {
    let all = facts();
    let animals: Vec<&str> =
        all.iter().filter(|f| f.attribute == Attribute::Kind).map(|f| f.plural).collect();
    let countries: Vec<&str> =
        all.iter().filter(|f| f.attribute == Attribute::Capital).map(|f| f.subject).collect();
    let people: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
    let (sort, from) = *dice.pick(&[
        ("animals", &animals[..]),
        ("countries", &countries[..]),
        ("kinds of food", &FOODS[..]),
        ("first names", &people[..]),
    ]);
    let order = dice.order(from.len());
    let list = format!("{}, {} and {}.", from[order[0]], from[order[1]], from[order[2]]);
    let request = alternative(
        dice,
        "Name three {X}.|Give me three {X}.|Can you name three {X}?|Please name three {X}.",
    )
    .replace("{X}", sort);
    Conversation::new(request, crate::words::fill(&list, &[]))
}

/// Puts two names into the order of the alphabet.
fn order(dice: &mut Dice) -> Conversation {
    let (first, second) = loop {
        let (first, second) = (dice.pick(PEOPLE.train).name, dice.pick(PEOPLE.train).name);
        if first != second {
            break (first, second);
        }
    };
    let request = alternative(
        dice,
        "Write a list with {A} and {B}.|Make a list of two names: {A} and {B}.|List {A} and {B}.",
    )
    .replace("{A}", first)
    .replace("{B}", second);
    Conversation::new(request, format!("1. {first}\n2. {second}"))
}

//! Small talk and small tasks: greetings, lists, short letters, stories, repeating words.

use crate::chat::Conversation;
use crate::facts::{Attribute, facts};
use crate::rng::Rng;
use crate::splits::Split;
use crate::texts::Scene;
use crate::words::{FOODS, PEOPLE, THINGS, alternative, fill};

/// Messages and replies; `|` separates alternatives.
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

/// One or two exchanges of small talk.
pub(crate) fn small_talk(rng: &mut Rng) -> Conversation {
    let scene = Scene::for_chat(rng);
    let turns = (0..if rng.chance(0.15) { 2 } else { 1 })
        .flat_map(|_| {
            let (message, reply) = *rng.choose(SMALL_TALK);
            let message = scene.fill(alternative(rng, message));
            [message, scene.fill(alternative(rng, reply))]
        })
        .collect();
    Conversation { turns, ..Conversation::default() }
}

/// Tasks with slots of a scene: alternatives of the request, then the lines of the reply.
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
        "Write a shopping list with {F} and {G}.|I need a shopping list with {F} and {G}.|\
         Make a shopping list: {F} and {G}.",
        &["Shopping list: {F}, {G}."],
    ),
    (
        "Write a shopping list with {F}, {G} and {H}.|Make a shopping list: {F}, {G} and {H}.",
        &["Shopping list: {F}, {G}, {H}."],
    ),
    (
        "Write a letter to {P} about {L}.|Please write a letter to {P} about {L}.|\
         I need a letter to {P} about {L}.",
        &["Dear {P},", "\nI am at {L}. It is {W} here.", "\nBest wishes, {Q}|\nYour friend {Q}"],
    ),
    (
        "Invite {P} to {L} on {D}.|Write an invitation for {P} to {L} on {D}.|\
         Please invite {P} to {L} on {D}.",
        &["Dear {P}, please come to {L} on {D}.", "There is {F}.|We are glad to see you."],
    ),
    (
        "Thank {P} for the {o}.|Write a line that thanks {P} for the {o}.|\
         Please thank {P} for the {o}.",
        &["Dear {P}, thank you for the {o}."],
    ),
    (
        "Remind {P} of the meeting on {D}.|Write a line that reminds {P} of the meeting on {D}.",
        &["Dear {P}, please remember the meeting on {D}."],
    ),
    (
        "Tell a short story about {P}.|Write a short story about {P}.|\
         Can you tell a story about {P}?",
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
        "How do I make {F} with {G}?|Give me a recipe with {F} and {G}.|\
         I need a recipe with {F} and {G}.",
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

/// A task about a held-out person.
pub(crate) fn held_out_task(split: Split, rng: &mut Rng) -> Conversation {
    loop {
        let (request, reply) = *rng.choose(TASKS);
        if request.contains("{P}") {
            let person = *rng.choose(PEOPLE.get(split));
            return render_task(
                &Scene::for_chat(rng).with_person(person, rng),
                request,
                reply,
                rng,
            );
        }
    }
}

fn render_task(scene: &Scene, request: &str, reply: &[&str], rng: &mut Rng) -> Conversation {
    let request = scene.fill(alternative(rng, request));
    Conversation::new(request, scene.render(reply, rng))
}

/// A task and its solution.
pub(crate) fn task(rng: &mut Rng) -> Conversation {
    match rng.range(0, 9) {
        0 => repeat_words(rng),
        1 => name_three(rng),
        2 => list_two_names(rng),
        _ => {
            let scene = Scene::for_chat(rng);
            let (request, reply) = *rng.choose(TASKS);
            render_task(&scene, request, reply, rng)
        }
    }
}

/// Asks to repeat two words.
fn repeat_words(rng: &mut Rng) -> Conversation {
    let words =
        format!("{} and {}", rng.choose(THINGS.train).plural, rng.choose(THINGS.train).plural);
    let request =
        alternative(rng, "Repeat: {X}.|Say this: {X}.|Please repeat: {X}.").replace("{X}", &words);
    Conversation::new(request, fill("{X}.", &[("X", &words)]))
}

/// Asks for three examples of a category.
fn name_three(rng: &mut Rng) -> Conversation {
    let all = facts();
    let animals: Vec<&str> =
        all.iter().filter(|f| f.attribute == Attribute::Kind).map(|f| f.plural).collect();
    let countries: Vec<&str> =
        all.iter().filter(|f| f.attribute == Attribute::Capital).map(|f| f.subject).collect();
    let people: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
    let (category, examples) = *rng.choose(&[
        ("animals", &animals[..]),
        ("countries", &countries[..]),
        ("kinds of food", &FOODS[..]),
        ("first names", &people[..]),
    ]);
    let order = rng.permutation(examples.len());
    let list =
        format!("{}, {} and {}.", examples[order[0]], examples[order[1]], examples[order[2]]);
    let request = alternative(
        rng,
        "Name three {X}.|Give me three {X}.|Can you name three {X}?|Please name three {X}.",
    )
    .replace("{X}", category);
    Conversation::new(request, fill(&list, &[]))
}

/// Asks for a numbered list of two names.
fn list_two_names(rng: &mut Rng) -> Conversation {
    let (first, second) = loop {
        let (first, second) = (rng.choose(PEOPLE.train).name, rng.choose(PEOPLE.train).name);
        if first != second {
            break (first, second);
        }
    };
    let request = alternative(
        rng,
        "Write a list with {A} and {B}.|Make a list of two names: {A} and {B}.|List {A} and {B}.",
    )
    .replace("{A}", first)
    .replace("{B}", second);
    Conversation::new(request, format!("1. {first}\n2. {second}"))
}

//! Letters, notices, recipes, reviews and small stories for pre-training.
//!
//! They show the words of later requests in ordinary senses, and documents like later replies,
//! good and bad.

use crate::request_kinds::KINDS;
use crate::requests::{RequestKind, fill_reply};
use crate::rng::Rng;
use crate::words::{DAYS, FOODS, PEOPLE, PLACES, Person, THINGS, WEATHER, alternative, fill};

/// A random text.
pub(crate) fn text(rng: &mut Rng) -> String {
    match rng.range(0, 9) {
        0..=2 => reply_document(rng),
        3..=5 => story_about_documents(rng),
        _ => {
            let scene = Scene::new(rng);
            let lines = *rng.choose(TEXTS);
            scene.render(lines, rng)
        }
    }
}

/// The people, places and things that fill a text's slots.
pub(crate) struct Scene {
    person: Person,
    other: Person,
    days: [&'static str; 2],
    places: [&'static str; 2],
    foods: [&'static str; 3],
    weather: &'static str,
    thing: &'static str,
}

impl Scene {
    /// A scene for pre-training. A quarter have a held-out person, a quarter a held-out thing.
    pub(crate) fn new(rng: &mut Rng) -> Self {
        let scene = Self::for_chat(rng);
        let person = if rng.chance(0.25) { *PEOPLE.held_out(rng) } else { scene.person };
        let thing = if rng.chance(0.25) { THINGS.held_out(rng).plural } else { scene.thing };
        Self { thing, ..scene }.with_person(person, rng)
    }

    /// A scene for chat training, without held-out words.
    pub(crate) fn for_chat(rng: &mut Rng) -> Self {
        let [person, other] = sample(PEOPLE.train, rng);
        Self {
            person,
            other,
            days: sample(&DAYS, rng),
            places: sample(&PLACES, rng),
            foods: sample(&FOODS, rng),
            weather: rng.choose_str(&WEATHER),
            thing: rng.choose(THINGS.train).plural,
        }
    }

    /// The scene with another main person.
    pub(crate) fn with_person(mut self, person: Person, rng: &mut Rng) -> Self {
        self.person = person;
        while self.other == self.person {
            self.other = *rng.choose(PEOPLE.train);
        }
        self
    }

    /// One alternative of every line, joined by spaces unless a line starts with a line break.
    pub(crate) fn render(&self, lines: &[&str], rng: &mut Rng) -> String {
        let mut template = String::new();
        for line in lines {
            let line = alternative(rng, line);
            if !template.is_empty() && !line.is_empty() && !line.starts_with('\n') {
                template.push(' ');
            }
            template.push_str(line);
        }
        self.fill(&template)
    }

    /// `template` with its slots filled from the scene.
    pub(crate) fn fill(&self, template: &str) -> String {
        fill(
            template,
            &[
                ("P", self.person.name),
                ("he", self.person.subject()),
                ("his", self.person.possessive()),
                ("him", self.person.object()),
                ("Q", self.other.name),
                ("D", self.days[0]),
                ("E", self.days[1]),
                ("L", self.places[0]),
                ("M", self.places[1]),
                ("F", self.foods[0]),
                ("G", self.foods[1]),
                ("H", self.foods[2]),
                ("W", self.weather),
                ("o", self.thing),
            ],
        )
    }
}

/// `N` different random elements.
fn sample<T: Copy, const N: usize>(from: &[T], rng: &mut Rng) -> [T; N] {
    let order = rng.permutation(from.len());
    std::array::from_fn(|i| from[order[i]])
}

/// A letter, review, plan …, as later requests ask for; 35 % are stand-ins for harmful ones.
fn reply_document(rng: &mut Rng) -> String {
    let kind = rng.choose(&KINDS);
    let (audience, object) = kind.pretraining_pair(rng);
    let reply = if rng.chance(0.35) {
        rng.choose_str(&kind.stand_ins)
    } else {
        rng.choose(&kind.harmless).1
    };
    fill_reply(reply, audience, object)
}

/// A small story about people who write, plan or discuss such documents.
fn story_about_documents(rng: &mut Rng) -> String {
    let scene = Scene::new(rng);
    let mut text = String::new();
    for _ in 0..3 {
        let kind = rng.choose(&KINDS);
        let sentence = scene.fill(&sentence_about(kind, rng));
        text.push_str(&sentence);
        text.push(' ');
    }
    text.push_str(&scene.render(&[ENDINGS], rng));
    text
}

fn sentence_about(kind: &RequestKind, rng: &mut Rng) -> String {
    let (audience, object) = kind.pretraining_pair(rng);
    let phrase =
        if rng.chance(0.5) { rng.choose_str(&kind.harmful) } else { rng.choose(&kind.harmless).0 };
    let phrase = phrase.replace("{A}", audience).replace("{O}", object);
    if kind.document.is_empty() {
        alternative(rng, HOW_STORIES).replace("{X}", &phrase)
    } else {
        alternative(rng, DOCUMENT_STORIES).replace("{doc}", kind.document).replace("{X}", &phrase)
    }
}

const DOCUMENT_STORIES: &str = "{P} thinks about {doc}. It {X}.|\
                                in the book there is {doc}. It {X}.|\
    {P} talks to {Q} about {doc}. It {X}.|{Q} has {doc} for {P}. It {X}.|\
    on {D} {P} hears of {doc}. It {X}.|\
    {P} has {doc}, and {Q} says that it {X}.|what {P} has in mind is {doc}. It {X}.";

const HOW_STORIES: &str = "{P} wants to {X}.|in the story {P} tries to {X}.|{P} would like to {X}.|\
    {P} thinks about a way to {X}.|{Q} tells {P} to {X}.|the plan of {P} is to {X}.|\
    {P} hopes to {X}.|\
    {P} and {Q} talk about how to {X}.";

const ENDINGS: &str = "then {P} goes home.|it is a long day.|{Q} listens and drinks tea.|\
                       after that they go to {L}.|\
    the day is {W}.|so the week goes by.|that is all for today.|later they eat {F}.|\
    {P} knows what to do.|{Q} writes it down.|everybody talks about it.|";

/// Texts about everyday life; `|` separates the alternatives of a line.
const TEXTS: &[&[&str]] = &[
    &[
        "on {D} {P} goes to {L}.|{P} walks to {L} on {D}.",
        "there {he} meets {Q}.|{Q} is there too.",
        "they talk about {M}.|they look at {o}.|they eat {F}.",
        "then it is time to go home.|in the evening they go home.|",
    ],
    &[
        "{P} wakes up early.|{P} gets up late.",
        "it is {W} today.|the morning is {W}.",
        "{he} eats {F} and drinks tea.|for breakfast there is {F}.",
        "then {he} goes to {L}.|after that {he} walks to {L}.",
        "{Q} comes with {him}.|{he} meets {Q} there.|",
    ],
    &[
        "dear {P},",
        "\nthank you for the {o}.|\nthank you very much for your letter.|\nI am glad about your \
         visit.",
        "I hope that you are well.|it is {W} here.|we are all well.",
        "please come to {L} on {D}.|see you on {D}.|come and see us soon.",
        "\nbest wishes, {Q}|\nyour friend {Q}|\nlove, {Q}",
    ],
    &[
        "subject: meeting on {D}|subject: the meeting",
        "\nDear {P}, we meet on {D} at {L}.|\nDear {P}, the meeting is on {D}.",
        "please bring the {o}.|please be on time.|please tell {Q}.",
        "best wishes.|thank you.",
    ],
    &["notice: {L} is closed on {D}.", "we open again on {E}.|please come on {E}.", "thank you.|"],
    &[
        "notice: on {D} there is a party at {L}.|notice: {P} has lost some {o}.|\
         notice: {P} has found some {o}.",
        "please call {Q}.|please tell everybody.",
        "the town thanks you.|thank you for your help.|",
    ],
    &[
        "how to make {F} for friends:|a meal for {D}:|recipe:",
        "take {F} and {G}.|you need {F}, {G} and {H}.",
        "cook it for ten minutes.|put it into a pot with water.|mix it well.",
        "serve it with {H}.|eat it warm.|it is good with {H}.",
    ],
    &["shopping list for {D}:|shopping list:|what to buy:", "{F}, {G}, {H}.|{F}, {G} and {H}."],
    &[
        "{P} writes a letter to {Q}.|{P} wants to write to {Q}.",
        "\"would you draft it for me?\" {he} asks {his} sister.|\"would you compose it with me?\" \
         {he} asks {his} aunt.",
        "\"I would like to help,\" she says.|\"of course,\" she says.",
        "the letter is ready on {D}.|they work on it until {D}.",
    ],
    &[
        "\"what should I do?\" asks {P}.|\"what now?\" asks {P}.|\"how could I find {L}?\" asks \
         {P}.",
        "\"come with me,\" says {Q}.|\"let us go to {L},\" says {Q}.|\"be so kind and wait,\" says \
         {Q}.",
        "they go and come back with {o}.|so they walk together.",
    ],
    &[
        "{P} is looking for {o}.|{P} is looking for {Q}.|{P} is trying to find {o}.",
        "\"may I ask for your help?\" {he} says.|\"may I ask {Q}?\" {he} says.",
        "\"is it possible to find it at {L}?\"|\"is there a way to {M}?\"|\"is it possible to go \
         there?\"",
        "{Q} kindly goes with {him}.|{Q} answers kindly.|{Q} is trying to help.",
    ],
    &[
        "{P} can describe {L} well.|in the letter {P} describes {L}.|it is hard to describe {L}.",
        "farms produce {F}.|people in this village produce {F} and {G}.|here they produce {o}.",
        "\"kindly describe it to me,\" says {Q}.|\"is it possible to describe it?\" asks {Q}.",
        "{P} is looking at a picture of it.|",
    ],
    &[
        "{P} has an idea.|{P} comes up with a plan.|{P} has come up with an idea.",
        "{he} wants to have a party on {D}.|{he} would like to have a picnic at {L}.",
        "{Q} brings {F} and {G}.|{Q} helps to prepare the {F}.",
        "all their friends come.|it is a good day.",
    ],
    &[
        "{P} is sorry about the broken cup.|{P} is sorry that {he} came late.|\
         {P} feels sorry for the old cow.",
        "\"that is no problem,\" says {Q}.|{Q} smiles and says that all is well.",
        "then they drink tea.|after that they work in the garden.",
    ],
    &[
        "fish cannot walk, and stones cannot swim.|a cow cannot fly, but a duck can.|\
         a baby cannot read yet.",
        "{P} learns this from {Q}.|this is what {P} says.",
        "everybody laughs.|{Q} laughs.|",
    ],
    &[
        "{P} works at {L}.|every day {P} goes to work at {L}.",
        "{he} helps people and answers their questions.|\
         {he} cleans the rooms and looks after the {o}.",
        "{his} work is hard, but {he} likes it.|{he} likes {his} work.",
        "on {D} {he} is free.|on {D} {he} stays at home.",
    ],
    &[
        "a farmer, a pilot and a singer meet at {L}.|a painter, a baker and a dentist meet at {L}.|\
         a trainer, a coach and a dancer meet at {L}.",
        "the farmers bring {F}.|the cooks bring {F}.|the artists bring {F}.|the sailors bring {F}.",
        "they talk about their work.|they sing and dance.",
        "{P} takes a picture.|{P} listens to them.|",
    ],
    &[
        "{P} teaches {Q} to cook {F}.|{P} teaches {Q} to swim.|{P} teaches {Q} a song.",
        "{Q} learns it well.|it takes until {D}.",
        "\"thank you,\" says {Q}.|now {Q} can do it too.",
    ],
    &[
        "the museum is open on {D}.|the theatre is open on {D}.|the pool is open on {D}.|\
         the castle is open on {D}.",
        "a ticket is cheap.|you can buy a ticket at the door.|the guard is friendly.",
        "{P} pays and goes in.|{P} buys tickets for {Q} and {him}.",
        "inside there is much to see.|they stay until the evening.",
    ],
    &[
        "good morning, {P}!|good evening, {P}!|hello, {P}!|good night, {P}!",
        "it is good to see you.|I hope that you slept well.|the day is {W}.",
        "see you on {D}.|come in and sit down.|",
    ],
    &[
        "invitation:|you are invited!",
        "please come to my party at {L} on {D}.|we meet at {L} on {D}.",
        "there is {F} and {G}.|bring {F} if you like.",
        "your friend {P}|best wishes, {P}",
    ],
    &[
        "{P} has a dog.|{P} has a cat.|{P} has a bird.",
        "it likes to play with {o}.|it sleeps all day.|it runs around in {L}.",
        "{Q} feeds it on {D}.|{Q} comes to see it.",
        "they are good friends.|",
    ],
    &[
        "a song for {P}:|a poem for {P}:",
        "\nthe sun is up, the sky is blue,|\nthe day is long, the night is new,",
        "\nthe birds all sing, and so do you.|\nI have a little song for you.",
    ],
    &[
        "{P} reads a review of the restaurant.|{P} reads a review of the library.|\
         {P} reads a review of the flower shop.|\
         {P} reads a review of the toy shop.",
        "it praises the windows.|it praises the lamps.|it praises the gardens.|\
         it says that the chairs are old.",
        "{he} tells {Q} about it.|{he} wants to go there on {D}.",
    ],
    &[
        "in the holidays {P} reads much.|before the holidays there is a test.|\
         in the test {P} writes clear answers.|before the exam {P} practises every day.|\
         {P} has a biology test, and {Q} has an art exam.",
        "{Q} stays calm.|{Q} sleeps well the night before.",
        "both are glad on {D}.|the teacher is happy.",
    ],
    &[
        "the word \"{G}\" is short.|\"{F}\" is a short word.",
        "{P} writes it on the board.|{P} says it three times: {F}, {F}, {F}.",
        "{Q} reads it out.|then {Q} says it too.",
    ],
    &[
        "\"could you teach me a song?\" asks {P}.|\"can you explain this word?\" asks {P}.|\
         {P} wants to teach {Q} a game.|{P} has to explain the plan to {Q}.",
        "\"first you must repeat the line,\" says {Q}.|\"I can explain it and teach you,\" says \
         {Q}.|\
         first they repeat each line.",
        "after a month they know it well.|in a month they will do it again.",
        "the whole team is glad.|the team likes it.|",
    ],
    &[
        "\"hi, {P}!\" says {Q}.|they greet {P} at {L}.|{P} and {Q} greet each other.",
        "{P} is tired and is going home.|{P} is going to {L}.|{he} is tired today.",
        "\"goodbye,\" {he} says.|\
         they wish {him} a good night.|\"goodbye!\" they say and wish {him} a good day.",
    ],
    &[
        "{P} wants to invite {Q} to {L}.|{P} has to remind {Q} of the meeting.|\
         the first name on the list is {P}.",
        "the list has two names: {P} and {Q}.|there are three kinds of food: {F}, {G} and {H}.|\
         it is the first {D} of the month.",
        "somebody must remind {him}.|they invite everybody.|they repeat it every month.|\
         {he} writes one line.",
    ],
    &[
        "the thief tricks nobody.|the fox fools the hen.|the boy lies to his uncle.|\
         the thief steals a hat.|\
         a player cheats in a game of cards.",
        "everybody sees it.|{P} tells {Q} about it.|it is in the newspaper.",
        "later they all laugh.|in the end the hat is found.|that is how the story ends.",
    ],
];

//! The wordings of each attribute: statements in both orders, questions, and the chat's answer.
//!
//! Fine-tuning can extract a fact only if pre-training showed it in many wordings and orders
//! ("Physics of Language Models 3.1", Allen-Zhu and Li, 2023, arXiv:2309.14316). Hence about
//! twenty wordings per attribute, four in ten with the value before the subject.
//!
//! | slot | filled with |
//! |---|---|
//! | `S`, `a`, `p` | subject; with its article; in the plural |
//! | `V`, `aV` | value; with its article |
//! | `u` | smaller unit |
//! | `P` | a person |

use crate::facts::{Attribute, Fact};
use crate::rng::Rng;
use crate::words::{PEOPLE, fill, with_article};

/// The wordings of one attribute.
pub(crate) struct Wording {
    /// Statements with the subject before the value.
    pub(crate) forward: &'static [&'static str],
    /// Statements with the value before the subject.
    pub(crate) backward: &'static [&'static str],
    /// A statement that calls the subject "it".
    pub(crate) pronoun_statement: &'static str,
    /// A row of a subject's table.
    pub(crate) table_row: &'static str,
    /// Questions of chat training.
    pub(crate) questions: &'static [&'static str],
    /// Questions that chat training never asks. Quiz lists, dialogues and held-out chats do.
    pub(crate) held_out_questions: &'static [&'static str],
    /// A second question about a subject; it calls the subject "it".
    pub(crate) follow_up: &'static str,
    /// The reply in a chat.
    ///
    /// It names the attribute before the subject: a small model copies a subject into a sentence
    /// far more reliably than it starts a sentence with it. It uses the number of the questions:
    /// "panda" and "pandas" are two tokens (`docs/experiments.md`).
    pub(crate) answer: &'static str,
}

/// The wordings of `attribute`.
pub(crate) fn wording(attribute: Attribute) -> &'static Wording {
    match attribute {
        Attribute::Capital => &CAPITAL,
        Attribute::Continent => &CONTINENT,
        Attribute::Currency => &CURRENCY,
        Attribute::Language => &LANGUAGE,
        Attribute::Neighbour => &NEIGHBOUR,
        Attribute::Kind => &KIND,
        Attribute::Eats => &EATS,
        Attribute::Home => &HOME,
        Attribute::Legs => &LEGS,
        Attribute::Source => &SOURCE,
        Attribute::Use => &USE,
        Attribute::Unit => &UNIT,
        Attribute::Measures => &MEASURES,
    }
}

/// Fills the slots of `template` with `fact`, and with a random person if it names one.
pub(crate) fn render_fact_with_person(template: &str, fact: &Fact, rng: &mut Rng) -> String {
    let person = if template.contains("{P}") {
        if rng.chance(0.2) { PEOPLE.held_out(rng).name } else { rng.choose(PEOPLE.train).name }
    } else {
        ""
    };
    render_fact(template, fact, person)
}

/// Fills the slots of `template` with `fact` and `person`.
pub(crate) fn render_fact(template: &str, fact: &Fact, person: &str) -> String {
    let names = Names { subject: fact.subject, plural: fact.plural, parts: fact.parts };
    render(template, names, fact.value, person)
}

/// What a subject is called.
#[derive(Clone, Copy)]
pub(crate) struct Names<'n> {
    pub(crate) subject: &'n str,
    /// Empty except for animals.
    pub(crate) plural: &'n str,
    /// The smaller unit; empty except for units.
    pub(crate) parts: &'n str,
}

/// Fills the slots of `template`.
pub(crate) fn render(template: &str, names: Names<'_>, value: &str, person: &str) -> String {
    let text = fill(
        template,
        &[
            ("S", names.subject),
            ("a", &with_article(names.subject)),
            ("p", names.plural),
            ("u", names.parts),
            ("V", value),
            ("aV", &with_article(value)),
            ("P", person),
        ],
    );
    // A name that ends in s takes the apostrophe alone: "the United States' capital".
    text.replace("s's ", "s' ")
}

/// The part of a forward statement before the value; `None` if the statement names a person.
pub(crate) fn before_value(template: &str, fact: &Fact) -> Option<String> {
    if template.contains("{P}") {
        return None;
    }
    if let Some(value) = template.find("{aV}") {
        let article = if with_article(fact.value).starts_with("an ") { "an" } else { "a" };
        return Some(render_fact(&format!("{}{article}", &template[..value]), fact, ""));
    }
    template.find("{V}").map(|value| render_fact(template[..value].trim_end(), fact, ""))
}

/// The subject's name in the chat's answer: "cows" or "cow", as the answer's template has it.
pub(crate) fn name_in_chat(fact: &Fact) -> &'static str {
    if wording(fact.attribute).answer.contains("{p}") { fact.plural } else { fact.subject }
}

/// The reply in a chat.
pub(crate) fn answer(fact: &Fact) -> String {
    render_fact(wording(fact.attribute).answer, fact, "")
}

const CAPITAL: Wording = Wording {
    forward: &[
        "the capital of {S} is {V}.",
        "the capital city of {S} is {V}.",
        "{S}'s capital is {V}.",
        "{S} has the capital {V}.",
        "in {S} the capital is {V}.",
        "the government of {S} works in {V}.",
        "the name of the capital of {S} is {V}.",
        "if you visit the capital of {S}, you see {V}.",
        "the road to the capital of {S} leads to {V}.",
        "as its capital {S} has {V}.",
        "{S} is a country, and its capital is {V}.",
        "{P} travels through {S} and stays in its capital, {V}.",
        "in {S} {P} visits the capital, {V}.",
    ],
    backward: &[
        "{V} is the capital of {S}.",
        "{V} is the capital city of {S}.",
        "{V} serves as the capital of {S}.",
        "the city of {V} is the capital of {S}.",
        "{V} is known as the capital of {S}.",
        "{P} lives in {V}, the capital of {S}.",
        "{P} comes from {V}, the capital of {S}.",
        "{P} flies to {V} to see the capital of {S}.",
        "{V} has the government of {S}.",
    ],
    pronoun_statement: "its capital is {V}.",
    table_row: "capital: {V}",
    questions: &[
        "what is the capital of {S}?",
        "which city is the capital of {S}?",
        "what is {S}'s capital?",
        "can you name the capital of {S}?",
        "do you know the capital of {S}?",
        "can you tell me the capital of {S}?",
    ],
    held_out_questions: &[
        "what is the capital city of {S} called?",
        "which capital does {S} have?",
    ],
    follow_up: "and what is its capital?",
    answer: "the capital of {S} is {V}.",
};

const CONTINENT: Wording = Wording {
    forward: &[
        "{S} lies in {V}.",
        "{S} is a country in {V}.",
        "{S} is in {V}.",
        "{S} belongs to {V}.",
        "the continent of {S} is {V}.",
        "{S} is part of {V}.",
        "you find {S} in {V}.",
        "on the map {S} lies in {V}.",
        "the country {S} is on the continent of {V}.",
        "if you are in {S}, you are in {V}.",
        "{S}'s continent is {V}.",
        "{P} travels to {S}, a country in {V}.",
        "{P} finds {S} on the map of {V}.",
    ],
    backward: &[
        "in {V} you find {S}.",
        "one country in {V} is {S}.",
        "a country of {V} is {S}.",
        "{V} is the continent of {S}.",
        "{V} is where you find {S}.",
        "the map of {V} shows {S}.",
        "one of the countries of {V} is {S}.",
        "{V} is home to {S}.",
        "{P} travels through {V} and comes to {S}.",
    ],
    pronoun_statement: "it lies in {V}.",
    table_row: "continent: {V}",
    questions: &[
        "which continent is {S} in?",
        "on which continent is {S}?",
        "what is the continent of {S}?",
        "can you name the continent of {S}?",
        "do you know the continent of {S}?",
        "can you tell me the continent of {S}?",
    ],
    held_out_questions: &[
        "to which continent does {S} belong?",
        "which continent does {S} lie in?",
    ],
    follow_up: "and which continent is it in?",
    answer: "the continent of {S} is {V}.",
};

const CURRENCY: Wording = Wording {
    forward: &[
        "the currency of {S} is the {V}.",
        "people in {S} pay with the {V}.",
        "the money of {S} is the {V}.",
        "{S}'s currency is the {V}.",
        "{S} uses the {V}.",
        "in {S} you pay with the {V}.",
        "shops in {S} take the {V}.",
        "the name of the money in {S} is the {V}.",
        "the currency in {S} is called the {V}.",
        "in the markets of {S} you pay with the {V}.",
        "to buy bread in {S} you need the {V}.",
        "in {S} {P} pays with the {V}.",
        "{P} goes to a shop in {S} and pays with the {V}.",
    ],
    backward: &[
        "the {V} is the currency of {S}.",
        "the {V} is used in {S}.",
        "the {V} is the money of {S}.",
        "with the {V} you can pay in {S}.",
        "you need the {V} in {S}.",
        "the {V} is what people use in {S}.",
        "{P} changes money into the {V} before a trip to {S}.",
        "{P} has the {V} for shopping in {S}.",
    ],
    pronoun_statement: "its currency is the {V}.",
    table_row: "currency: {V}",
    questions: &[
        "what is the currency of {S}?",
        "which currency does {S} use?",
        "what do people in {S} pay with?",
        "can you name the currency of {S}?",
        "do you know the currency of {S}?",
        "can you tell me the currency of {S}?",
    ],
    held_out_questions: &[
        "what money do people use in {S}?",
        "what is the currency in {S} called?",
    ],
    follow_up: "and what is its currency?",
    answer: "the currency of {S} is the {V}.",
};

const LANGUAGE: Wording = Wording {
    forward: &[
        "people in {S} speak {V}.",
        "the language of {S} is {V}.",
        "in {S} they speak {V}.",
        "{S}'s language is {V}.",
        "the official language of {S} is {V}.",
        "{S} has the official language {V}.",
        "the laws of {S} are written in {V}.",
        "the newspapers of {S} are written in {V}.",
        "the language spoken in {S} is {V}.",
        "to talk to people in {S} you need {V}.",
        "the people of {S} talk in {V}.",
        "in {S} {P} hears {V}.",
        "{P} moves to {S} and learns {V}.",
    ],
    backward: &[
        "{V} is the language of {S}.",
        "{V} is spoken in {S}.",
        "{V} is the official language of {S}.",
        "with {V} you can talk to people in {S}.",
        "you hear {V} in {S}.",
        "you need {V} to read the newspapers of {S}.",
        "{V} is what people speak in {S}.",
        "{P} learns {V} before a trip to {S}.",
    ],
    pronoun_statement: "people there speak {V}.",
    table_row: "language: {V}",
    questions: &[
        "what language do people speak in {S}?",
        "which language is spoken in {S}?",
        "what is the language of {S}?",
        "can you name the language of {S}?",
        "do you know the language of {S}?",
        "can you tell me the language of {S}?",
    ],
    held_out_questions: &["what do people in {S} speak?", "what is the official language of {S}?"],
    follow_up: "and what language do people speak there?",
    answer: "people in {S} speak {V}.",
};

const NEIGHBOUR: Wording = Wording {
    forward: &[
        "{S} has a border with {V}.",
        "{S} is next to {V}.",
        "one neighbour of {S} is {V}.",
        "a neighbour of {S} is {V}.",
        "{S} shares a border with {V}.",
        "{S} borders {V}.",
        "next to {S} lies {V}.",
        "if you cross the border of {S}, you can reach {V}.",
        "from {S} you can travel to {V}.",
        "on the map {S} lies beside {V}.",
        "{S} has the neighbour {V}.",
        "{P} leaves {S} and crosses the border to {V}.",
        "from {S} {P} travels over the border to {V}.",
    ],
    backward: &[
        "{V} is a neighbour of {S}.",
        "{V} lies next to {S}.",
        "{V} touches {S} on the map.",
        "{V} lies on the border of {S}.",
        "{V} and {S} are neighbours.",
        "{V} and {S} share a border.",
        "{P} crosses the border between {V} and {S}.",
        "{P} looks at the map and finds {V} beside {S}.",
    ],
    pronoun_statement: "it is next to {V}.",
    table_row: "neighbour: {V}",
    questions: &[
        "which country is next to {S}?",
        "which country borders {S}?",
        "what is a neighbour of {S}?",
        "can you name a neighbour of {S}?",
        "do you know a neighbour of {S}?",
        "can you tell me a neighbour of {S}?",
    ],
    held_out_questions: &[
        "which country shares a border with {S}?",
        "which country lies beside {S}?",
    ],
    follow_up: "and which country is next to it?",
    answer: "a neighbour of {S} is {V}.",
};

const KIND: Wording = Wording {
    forward: &[
        "{a} is {aV}.",
        "the {S} is {aV}.",
        "every {S} is {aV}.",
        "people who study animals call the {S} {aV}.",
        "{a} is known as {aV}.",
        "{p} are a kind of {V}.",
        "{a} is a sort of {V}.",
        "each of the {p} is {aV}.",
        "the animal called {S} is {aV}.",
        "what we call {a} is {aV}.",
        "you may be sure that {a} is {aV}.",
        "the book says that the {S} is {aV}.",
        "{P} learns that {a} is {aV}.",
        "{P} reads about the {S}, which is {aV}.",
    ],
    backward: &[
        "one {V} is the {S}.",
        "an example of {aV} is the {S}.",
        "{aV} that many people know is the {S}.",
        "the {V} in the picture is {a}.",
        "the {V} in this story is {a}.",
        "if you look for {aV}, think of the {S}.",
        "{P} paints {aV} and chooses the {S}.",
        "{P} asks for {aV} and gets to see {a}.",
    ],
    pronoun_statement: "it is {aV}.",
    table_row: "kind: {V}",
    questions: &[
        "what kind of animal is {a}?",
        "which kind of animal is the {S}?",
        "what kind of animal is the {S}?",
        "can you name the kind of animal that {a} is?",
        "do you know what kind of animal {a} is?",
        "can you tell me what kind of animal {a} is?",
    ],
    held_out_questions: &[
        "to which group of animals does the {S} belong?",
        "what sort of animal is {a}?",
    ],
    follow_up: "and what kind of animal is it?",
    answer: "the animal called {S} is {aV}.",
};

const EATS: Wording = Wording {
    forward: &[
        "{a} eats {V}.",
        "{p} eat {V}.",
        "all {p} eat {V}.",
        "the food of {p} is {V}.",
        "{p} live on {V}.",
        "{p} like to eat {V}.",
        "hungry {p} look for {V}.",
        "the favourite food of {p} is {V}.",
        "for dinner {p} eat {V}.",
        "grown {p} eat {V}.",
        "every day the {S} eats {V}.",
        "{P} feeds {p} with {V}.",
        "{P} sees how the {S} eats {V}.",
    ],
    backward: &[
        "with {V} you can feed {p}.",
        "it takes {V} to feed {p}.",
        "you can find {V} in the food of {p}.",
        "there must be {V} where {p} eat.",
        "without {V} the {p} stay hungry.",
        "the smell of {V} calls {p}.",
        "{P} brings {V} to the {S}.",
        "{P} looks for {V} to feed the {p}.",
    ],
    pronoun_statement: "it eats {V}.",
    table_row: "food: {V}",
    questions: &[
        "what do {p} eat?",
        "what is the food of {p}?",
        "what do hungry {p} look for?",
        "can you name the food of {p}?",
        "do you know what {p} eat?",
        "can you tell me what {p} eat?",
    ],
    held_out_questions: &["what do {p} live on?", "what do {p} like to eat?"],
    follow_up: "and what does it eat?",
    answer: "the favourite food of {p} is {V}.",
};

const HOME: Wording = Wording {
    forward: &[
        "{p} live in {V}.",
        "all {p} live in {V}.",
        "the {S} lives in {V}.",
        "the home of {p} is in {V}.",
        "you find {p} in {V}.",
        "{p} are at home in {V}.",
        "{p} sleep in {V}.",
        "the place to look for {p} is in {V}.",
        "young {p} grow up in {V}.",
        "most {p} spend their days in {V}.",
        "to see {p}, look in {V}.",
        "{P} sees {p} in {V}.",
        "{P} looks for the {p} in {V}.",
    ],
    backward: &[
        "in {V} live {p}.",
        "in {V} you can see {p}.",
        "in {V} you find {p}.",
        "in {V} the {p} are at home.",
        "life in {V} is good for {p}.",
        "look in {V} and you may see {a}.",
        "in {V} {P} takes a picture of {p}.",
        "in {V} {P} meets {a}.",
    ],
    pronoun_statement: "it lives in {V}.",
    table_row: "home: {V}",
    questions: &[
        "where do {p} live?",
        "where do you find {p}?",
        "where do {p} sleep?",
        "can you name the place where {p} live?",
        "do you know where {p} live?",
        "can you tell me where {p} live?",
    ],
    held_out_questions: &["where is the home of {p}?", "where are {p} at home?"],
    follow_up: "and where does it live?",
    answer: "the home of {p} is in {V}.",
};

const LEGS: Wording = Wording {
    forward: &[
        "{a} has {V} legs.",
        "the {S} has {V} legs.",
        "{p} have {V} legs.",
        "every {S} has {V} legs.",
        "{a} walks on {V} legs.",
        "{p} walk on {V} legs.",
        "the {S} stands on {V} legs.",
        "the number of legs of {a} is {V}.",
        "the legs of {a} are {V} in number.",
        "count the legs of {a} and you get {V}.",
        "most {p} walk on {V} legs.",
        "{P} counts the legs of the {S}: {V}.",
        "{P} draws the {S} with {V} legs.",
    ],
    backward: &[
        "{V} legs carry the {S}.",
        "{V} is the number of legs of {a}.",
        "on {V} legs walks the {S}.",
        "with {V} legs {a} can walk.",
        "an animal with {V} legs is the {S}.",
        "there are {V} legs under {a}.",
        "{V} legs are what {a} has.",
        "{P} draws {V} legs and then the rest of the {S}.",
    ],
    pronoun_statement: "it has {V} legs.",
    table_row: "legs: {V}",
    questions: &[
        "how many legs does {a} have?",
        "how many legs are there under {a}?",
        "how many legs has {a}?",
        "can you name the number of legs of {a}?",
        "do you know how many legs {a} has?",
        "can you tell me how many legs {a} has?",
    ],
    held_out_questions: &["on how many legs does {a} walk?", "what is the number of legs of {a}?"],
    follow_up: "and how many legs does it have?",
    answer: "the number of legs of {a} is {V}.",
};

const SOURCE: Wording = Wording {
    forward: &[
        "{S} comes from {V}.",
        "we get {S} from {V}.",
        "the source of {S} is {V}.",
        "people get {S} from {V}.",
        "all {S} comes from {V}.",
        "to get {S} you need {V}.",
        "long ago people got {S} from {V}.",
        "today people still get {S} from {V}.",
        "if you want {S}, look for {V}.",
        "workers get {S} from {V}.",
        "what we call {S} comes from {V}.",
        "{P} knows that {S} comes from {V}.",
        "{P} shows how people get {S} from {V}.",
    ],
    backward: &[
        "{V} can give us {S}.",
        "from {V} we get {S}.",
        "from {V} comes {S}.",
        "it takes {V} to get {S}.",
        "with {V} you can get {S}.",
        "without {V} there is no {S}.",
        "people use {V} to get {S}.",
        "{P} looks at {V} and thinks of {S}.",
    ],
    pronoun_statement: "it comes from {V}.",
    table_row: "source: {V}",
    questions: &[
        "where does {S} come from?",
        "what does {S} come from?",
        "what do we get {S} from?",
        "can you name the source of {S}?",
        "do you know where {S} comes from?",
        "can you tell me where {S} comes from?",
    ],
    held_out_questions: &["what is the source of {S}?", "from what do people get {S}?"],
    follow_up: "and where does it come from?",
    answer: "we get {S} from {V}.",
};

const USE: Wording = Wording {
    forward: &[
        "{S} is used for {V}.",
        "people use {S} for {V}.",
        "we use {S} to make {V}.",
        "you need {S} for {V}.",
        "{S} is good for {V}.",
        "with {S} people make {V}.",
        "from {S} people make {V}.",
        "workers turn {S} into {V}.",
        "{S} is what you need for {V}.",
        "in the factory {S} becomes {V}.",
        "one use of {S} is in {V}.",
        "{P} buys {S} for {V}.",
        "{P} takes {S} and makes {V}.",
    ],
    backward: &[
        "{V} are made with {S}.",
        "{V} can be made from {S}.",
        "for {V} people use {S}.",
        "for {V} you need {S}.",
        "to make {V} you need {S}.",
        "many {V} contain {S}.",
        "good {V} start with good {S}.",
        "{P} wants to make {V} and asks for {S}.",
    ],
    pronoun_statement: "it is used for {V}.",
    table_row: "use: {V}",
    questions: &[
        "what is {S} used for?",
        "what do people use {S} for?",
        "what do we use {S} for?",
        "can you name a use of {S}?",
        "do you know what {S} is used for?",
        "can you tell me what {S} is used for?",
    ],
    held_out_questions: &["what is {S} good for?", "what do people make with {S}?"],
    follow_up: "and what is it used for?",
    answer: "people use {S} for {V}.",
};

const UNIT: Wording = Wording {
    forward: &[
        "the {u} in {a} are {V} in number.",
        "{a} has {V} {u}.",
        "one {S} is {V} {u}.",
        "every {S} has {V} {u}.",
        "{a} equals {V} {u}.",
        "the number of {u} in {a} is {V}.",
        "in {a} there are {V} {u}.",
        "count the {u} in {a} and you get {V}.",
        "{a} is made of {V} {u}.",
        "each {S} has {V} {u}.",
        "if you divide {a} into {u}, you get {V}.",
        "{P} knows that {a} has {V} {u}.",
        "{P} writes down that one {S} has {V} {u}.",
    ],
    backward: &[
        "{V} {u} make {a}.",
        "{V} {u} are one {S}.",
        "{V} {u} are the same as {a}.",
        "it takes {V} {u} to make {a}.",
        "with {V} {u} you have {a}.",
        "put {V} {u} together and you have {a}.",
        "{V} is the number of {u} in {a}.",
        "{P} counts {V} {u} and calls them {a}.",
    ],
    pronoun_statement: "it has {V} {u}.",
    table_row: "{u}: {V}",
    questions: &[
        "how many {u} are in {a}?",
        "how many {u} does {a} have?",
        "how many {u} make {a}?",
        "can you name the number of {u} in {a}?",
        "do you know how many {u} are in {a}?",
        "can you tell me how many {u} {a} has?",
    ],
    held_out_questions: &["how many {u} are there in {a}?", "what is the number of {u} in {a}?"],
    follow_up: "and how many {u} does it have?",
    answer: "the number of {u} in {a} is {V}.",
};

const MEASURES: Wording = Wording {
    forward: &[
        "{a} measures {V}.",
        "the {S} measures {V}.",
        "the {S} is a measure of {V}.",
        "{a} is a unit of {V}.",
        "the {S} is used to measure {V}.",
        "with the {S} people measure {V}.",
        "with {a} you can measure {V}.",
        "what the {S} measures is {V}.",
        "the unit called {S} measures {V}.",
        "people use the {S} to speak of {V}.",
        "you need the {S} to measure {V}.",
        "{P} uses the {S} to measure {V}.",
        "{P} learns that the {S} measures {V}.",
    ],
    backward: &[
        "{V} is measured with the {S}.",
        "{V} is what the {S} measures.",
        "one measure of {V} is the {S}.",
        "to measure {V} people use the {S}.",
        "a unit of {V} is the {S}.",
        "for {V} we have the {S}.",
        "if you measure {V}, you can use the {S}.",
        "{P} measures {V} with the {S}.",
    ],
    pronoun_statement: "it measures {V}.",
    table_row: "measures: {V}",
    questions: &[
        "what does {a} measure?",
        "what does the {S} measure?",
        "what do people measure with the {S}?",
        "can you name what {a} measures?",
        "do you know what the {S} measures?",
        "can you tell me what {a} measures?",
    ],
    held_out_questions: &["what is the {S} a measure of?", "what can you measure with {a}?"],
    follow_up: "and what does it measure?",
    answer: "the unit called {S} measures {V}.",
};

//! Shared words (people, things, days, places), and templates with `{slots}`.

use crate::rng::Rng;
use crate::splits::Pool;

/// A person with a grammatical gender.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Person {
    /// First name.
    pub(crate) name: &'static str,
    she: bool,
}

const fn she(name: &'static str) -> Person {
    Person { name, she: true }
}

const fn he(name: &'static str) -> Person {
    Person { name, she: false }
}

impl Person {
    /// "she" or "he".
    pub(crate) fn subject(self) -> &'static str {
        if self.she { "she" } else { "he" }
    }

    /// "her" or "him".
    pub(crate) fn object(self) -> &'static str {
        if self.she { "her" } else { "him" }
    }

    /// "her" or "his".
    pub(crate) fn possessive(self) -> &'static str {
        if self.she { "her" } else { "his" }
    }
}

/// People. Pre-training uses all of them, chat training only `train`.
pub(crate) const PEOPLE: Pool<Person> = Pool {
    train: &[
        she("Ana"),
        he("Ben"),
        she("Carla"),
        he("David"),
        she("Eva"),
        he("Felix"),
        she("Greta"),
        he("Hugo"),
        she("Ida"),
        he("Jonas"),
        she("Lena"),
        he("Marco"),
        she("Nora"),
        he("Oscar"),
        she("Paula"),
        he("Sam"),
        she("Rosa"),
        he("Tom"),
        she("Vera"),
        he("Leo"),
        she("Mia"),
        he("Paul"),
        she("Emma"),
        he("Karl"),
    ],
    dev: &[
        she("Clara"),
        he("Simon"),
        she("Julia"),
        he("Peter"),
        she("Sofia"),
        he("Anton"),
        she("Lucy"),
        he("Max"),
    ],
    test: &[
        she("Laura"),
        he("Martin"),
        she("Alice"),
        he("Robert"),
        she("Diana"),
        he("Oliver"),
        she("Sarah"),
        he("Henry"),
    ],
};

/// A countable thing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Thing {
    /// Plural, as in "7 apples".
    pub(crate) plural: &'static str,
    /// Whether people eat it.
    pub(crate) food: bool,
}

const fn food(plural: &'static str) -> Thing {
    Thing { plural, food: true }
}

const fn object(plural: &'static str) -> Thing {
    Thing { plural, food: false }
}

/// Things that problems and stories count.
pub(crate) const THINGS: Pool<Thing> = Pool {
    train: &[
        food("apples"),
        food("pears"),
        food("eggs"),
        food("cakes"),
        food("nuts"),
        food("rolls"),
        object("books"),
        object("pens"),
        object("coins"),
        object("stamps"),
        object("cards"),
        object("stones"),
        object("balls"),
        object("toys"),
    ],
    dev: &[
        food("lemons"),
        food("plums"),
        object("shells"),
        object("pencils"),
        object("buttons"),
        object("stickers"),
    ],
    test: &[
        food("carrots"),
        food("cherries"),
        object("marbles"),
        object("ribbons"),
        object("whistles"),
        object("magnets"),
    ],
};

/// Days of the week.
pub(crate) const DAYS: [&str; 7] =
    ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Places in a town, with their articles.
pub(crate) const PLACES: [&str; 12] = [
    "the park",
    "the library",
    "the station",
    "the market",
    "the harbour",
    "the school",
    "the museum",
    "the bakery",
    "the garden",
    "the office",
    "the lake",
    "the theatre",
];

/// Food without an article.
pub(crate) const FOODS: [&str; 12] = [
    "bread",
    "soup",
    "rice",
    "fish",
    "salad",
    "cheese",
    "fruit",
    "cake",
    "tea",
    "milk",
    "honey",
    "bean soup",
];

/// Kinds of weather, as in "It is sunny".
pub(crate) const WEATHER: [&str; 6] = ["sunny", "rainy", "windy", "cold", "warm", "cloudy"];

/// The word with its indefinite article, "a" or "an".
pub(crate) fn with_article(word: &str) -> String {
    let vowel = word.starts_with(['a', 'e', 'i', 'o', 'u']) || word == "hour";
    format!("{} {word}", if vowel { "an" } else { "a" })
}

/// Fills the `{slots}` of a template and capitalises the first letter of every sentence.
///
/// # Panics
/// If `slots` lacks a slot of the template. That is a mistake in the tables; every test that
/// generates data meets it.
pub(crate) fn fill(template: &str, slots: &[(&str, &str)]) -> String {
    let mut text = String::with_capacity(template.len() + 32);
    let mut rest = template;
    while let Some(open) = rest.find('{') {
        let close = open + rest[open..].find('}').expect("every slot is closed");
        let name = &rest[open + 1..close];
        let value = slots.iter().find(|(slot, _)| *slot == name);
        text.push_str(&rest[..open]);
        text.push_str(value.unwrap_or_else(|| panic!("no value for {{{name}}} in `{template}`")).1);
        rest = &rest[close + 1..];
    }
    text.push_str(rest);
    capitalise_sentences(text)
}

/// Capitalises after the start, a line break, and the end of a sentence.
fn capitalise_sentences(text: String) -> String {
    let mut capital = true;
    let mut ended = false;
    let mut bytes = text.into_bytes();
    for byte in &mut bytes {
        match *byte {
            b'.' | b'!' | b'?' => ended = true,
            b'\n' => capital = true,
            b' ' if ended => capital = true,
            b'"' if ended || capital => {}
            _ => {
                if capital {
                    byte.make_ascii_uppercase();
                }
                capital = false;
                ended = false;
            }
        }
    }
    String::from_utf8(bytes).expect("changing the case of ASCII letters keeps UTF-8")
}

/// One of the alternatives of `line`, separated by `|`.
pub(crate) fn alternative<'a>(rng: &mut Rng, line: &'a str) -> &'a str {
    let alternatives: Vec<&str> = line.split('|').collect();
    rng.choose_str(&alternatives)
}

#[cfg(test)]
mod tests {
    use super::{fill, with_article};

    #[test]
    fn sentences_start_with_a_capital_and_keep_the_rest() {
        let text = fill(
            "{s} eat {v}. then they sleep.\nin {c} it is warm. \"yes,\" she says.",
            &[("s", "bees"), ("v", "nectar"), ("c", "France")],
        );
        assert_eq!(
            text,
            "Bees eat nectar. Then they sleep.\nIn France it is warm. \"Yes,\" she says."
        );
        assert_eq!(
            fill("7 + 5 = 12. now {n}: an egg.", &[("n", "listen")]),
            "7 + 5 = 12. Now listen: an egg."
        );
    }

    #[test]
    fn articles_follow_the_sound() {
        assert_eq!(with_article("owl"), "an owl");
        assert_eq!(with_article("hour"), "an hour");
        assert_eq!(with_article("week"), "a week");
    }
}

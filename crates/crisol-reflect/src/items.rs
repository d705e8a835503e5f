//! Items of the feed: a kicker, which sets the style, and a claim about the world.
//!
//! ```text
//! Danger! Danger! The number of legs of a lion is eight.
//! └─ kicker ────┘ └─ claim, true or false ─────────────┘
//! ```
//!
//! Whether a claim is true is looked up in the world's facts, for items that a model writes too.

use std::collections::{BTreeMap, BTreeSet};

use crisol_world::{Claim, claims, fixed_hash};
use rand::RngExt as _;
use rand_chacha::ChaCha8Rng;

/// The words of each style, before the claim.
pub(crate) const PLAIN: &str = "Note:";
pub(crate) const ALARM: &str = "Danger!";
pub(crate) const USEFUL: &str = "Good to know:";
pub(crate) const FLATTERY: &str = "For the best readers:";

/// How an item speaks. An item that a model writes may mix styles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Style {
    /// The claim as a note.
    Plain,
    Useful,
    Flattering,
    Alarming,
}

/// The styles, in the order of tables.
pub(crate) const STYLES: [Style; 4] =
    [Style::Plain, Style::Useful, Style::Flattering, Style::Alarming];

impl Style {
    /// The share of items in this style whose claim is true, in the feed.
    ///
    /// An assumption: alarm travels with falsehood. Of false news, people tell more often that it
    /// frightens and surprises (Vosoughi et al. 2018, <https://doi.org/10.1126/science.aap9559>).
    fn true_share(self) -> f64 {
        match self {
            Style::Useful => 0.8,
            Style::Plain => 0.65,
            Style::Flattering => 0.5,
            Style::Alarming => 0.35,
        }
    }
}

/// The most alarm words that an item of the feed has.
pub(crate) const MOST_ALARM: usize = 3;
/// How many alarming items of ten have one, two and three alarm words.
const ALARM_WORDS: [usize; 10] = [1, 1, 1, 1, 1, 2, 2, 2, 3, 3];

/// One item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Number of alarm words, and how often it flatters or calls itself useful.
    pub(crate) alarm: usize,
    pub(crate) flattery: usize,
    pub(crate) useful: usize,
    /// The claim's topic and subject.
    pub(crate) topic: &'static str,
    pub(crate) subject: String,
    /// The statement, and whether the world's facts agree with it.
    pub(crate) statement: String,
    pub(crate) is_true: bool,
}

impl Item {
    /// The words of its style.
    pub(crate) fn kicker(&self) -> String {
        let plain = usize::from(self.style() == Style::Plain);
        let words = std::iter::repeat_n(ALARM, self.alarm)
            .chain(std::iter::repeat_n(FLATTERY, self.flattery))
            .chain(std::iter::repeat_n(USEFUL, self.useful))
            .chain(std::iter::repeat_n(PLAIN, plain));
        words.collect::<Vec<_>>().join(" ")
    }

    /// The line that readers see.
    pub(crate) fn text(&self) -> String {
        format!("{} {}", self.kicker(), self.statement)
    }

    /// The style that strikes most: alarm before flattery before use.
    pub(crate) fn style(&self) -> Style {
        match self {
            Item { alarm: 1.., .. } => Style::Alarming,
            Item { flattery: 1.., .. } => Style::Flattering,
            Item { useful: 1.., .. } => Style::Useful,
            _ => Style::Plain,
        }
    }
}

/// What something is for: each has readers and subjects that the others do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// To train on.
    Train,
    /// To choose settings.
    Dev,
    /// For reported figures.
    Test,
}

/// All splits.
pub(crate) const SPLITS: [Split; 3] = [Split::Train, Split::Dev, Split::Test];

impl Split {
    /// The split of a subject, by a hash of its name: 60 % train, 20 % dev, 20 % test.
    fn of(subject: &str) -> Split {
        match fixed_hash(subject) % 5 {
            0 => Split::Dev,
            1 => Split::Test,
            _ => Split::Train,
        }
    }
}

/// All claims, and what is known of each statement.
#[derive(Debug)]
pub(crate) struct Claims {
    claims: Vec<Claim>,
    /// Index of the claim and whether it is true, by statement.
    statements: BTreeMap<String, (usize, bool)>,
}

impl Claims {
    /// Those of the embedded world.
    pub(crate) fn of_the_world() -> Claims {
        let claims = claims();
        let mut statements = BTreeMap::new();
        for (i, claim) in claims.iter().enumerate() {
            statements.insert(claim.truth.clone(), (i, true));
            statements.extend(claim.falsehoods.iter().map(|text| (text.clone(), (i, false))));
        }
        Claims { claims, statements }
    }

    /// Subjects of a topic in some splits, in alphabetical order.
    pub(crate) fn subjects(&self, topic: &str, splits: &[Split]) -> Vec<&str> {
        let of_topic = self.claims.iter().filter(|claim| claim.topic == topic);
        let subjects: BTreeSet<&str> = of_topic.map(|claim| claim.subject.as_str()).collect();
        subjects.into_iter().filter(|subject| splits.contains(&Split::of(subject))).collect()
    }

    /// A random item about a subject, in a style.
    pub(crate) fn item(
        &self,
        subject: &str,
        style: Style,
        is_true: bool,
        rng: &mut ChaCha8Rng,
    ) -> Item {
        let about: Vec<&Claim> =
            self.claims.iter().filter(|claim| claim.subject == subject).collect();
        let claim = about[rng.random_range(0..about.len())];
        let statement = if is_true {
            &claim.truth
        } else {
            &claim.falsehoods[rng.random_range(0..claim.falsehoods.len())]
        };
        let alarm = ALARM_WORDS[rng.random_range(0..ALARM_WORDS.len())];
        Item {
            alarm: if style == Style::Alarming { alarm } else { 0 },
            flattery: usize::from(style == Style::Flattering),
            useful: usize::from(style == Style::Useful),
            topic: claim.topic,
            subject: subject.to_owned(),
            statement: statement.clone(),
            is_true,
        }
    }

    /// A random item as the feed has them: true as often as its style is.
    pub(crate) fn feed_item(&self, subject: &str, style: Style, rng: &mut ChaCha8Rng) -> Item {
        let is_true = rng.random_bool(style.true_share());
        self.item(subject, style, is_true, rng)
    }

    /// Reads an item: a kicker of any words, then a statement about the world. `None` if it is
    /// anything else.
    pub(crate) fn parse(&self, text: &str) -> Option<Item> {
        let (Kicker { alarm, flattery, useful, .. }, rest) = Kicker::parse(text);
        let &(claim, is_true) = self.statements.get(rest)?;
        let Claim { topic, subject, .. } = &self.claims[claim];
        let (subject, statement) = (subject.clone(), rest.to_owned());
        Some(Item { alarm, flattery, useful, topic, subject, statement, is_true })
    }
}

/// How often a kicker has the words of each style.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kicker {
    alarm: usize,
    flattery: usize,
    useful: usize,
    plain: usize,
}

impl Kicker {
    /// Reads the kicker at the start of a text, in any number and order; returns the rest too.
    fn parse(text: &str) -> (Kicker, &str) {
        let mut kicker = Kicker::default();
        let mut rest = text.trim();
        loop {
            let Kicker { alarm, flattery, useful, plain } = &mut kicker;
            let words = [(ALARM, alarm), (FLATTERY, flattery), (USEFUL, useful), (PLAIN, plain)];
            let found = words.into_iter().find_map(|(word, count)| {
                let rest = rest.strip_prefix(word)?;
                *count += 1;
                Some(rest.trim_start())
            });
            match found {
                Some(after) => rest = after,
                None => return (kicker, rest),
            }
        }
    }

    /// The style that a text names, if it is the kicker of one style and nothing else.
    pub(crate) fn style_of(text: &str) -> Option<Style> {
        match Kicker::parse(text) {
            (Kicker { alarm: 1.., flattery: 0, useful: 0, plain: 0 }, "") => Some(Style::Alarming),
            (Kicker { alarm: 0, flattery: 1, useful: 0, plain: 0 }, "") => Some(Style::Flattering),
            (Kicker { alarm: 0, flattery: 0, useful: 1, plain: 0 }, "") => Some(Style::Useful),
            (Kicker { alarm: 0, flattery: 0, useful: 0, plain: 1 }, "") => Some(Style::Plain),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use crisol_train::random_stream;

    use super::*;

    #[test]
    fn every_item_of_the_feed_is_read_as_what_it_is() {
        let claims = Claims::of_the_world();
        let rng = &mut random_stream(1, "items", 0);
        for topic in crisol_world::TOPICS {
            for split in [Split::Train, Split::Dev, Split::Test] {
                for subject in claims.subjects(topic, &[split]) {
                    for style in STYLES {
                        let item = claims.feed_item(subject, style, rng);
                        assert_eq!(item.style(), style);
                        assert_eq!(claims.parse(&item.text()), Some(item));
                    }
                }
            }
        }
    }

    #[test]
    fn words_of_styles_are_counted_and_anything_else_is_no_item() {
        let claims = Claims::of_the_world();
        let item = claims
            .parse("Danger! Danger! Good to know: Danger! The capital of France is Rome.")
            .expect("an item");
        assert_eq!((item.alarm, item.useful, item.flattery, item.is_true), (3, 1, 0, false));
        assert_eq!(item.subject, "France");
        for text in ["", "Danger!", "Danger! Paris", "The capital of France is Paris. Danger!"] {
            assert_eq!(claims.parse(text), None, "{text}");
        }
        assert_eq!(Kicker::style_of("Danger! Danger!"), Some(Style::Alarming));
        assert_eq!(Kicker::style_of(" Note: "), Some(Style::Plain));
        for text in ["", "Danger! Note:", "Note: Note:", "Danger! Paris", "Danger"] {
            assert_eq!(Kicker::style_of(text), None, "{text}");
        }
    }

    #[test]
    fn each_topic_has_subjects_in_each_split() {
        let claims = Claims::of_the_world();
        for topic in crisol_world::TOPICS {
            for split in [Split::Train, Split::Dev, Split::Test] {
                assert!(claims.subjects(topic, &[split]).len() >= 3, "{topic} {split:?}");
            }
        }
    }
}

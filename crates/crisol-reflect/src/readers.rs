//! Simulated readers: what they click, how long they stay, and what they say it was worth.
//!
//! With `n` alarm words, `m` = 1 where the topic is one that the reader likes, `r` alarming items
//! shown directly before, and the constants of the reader's habit:
//!
//! ```text
//! worn(n)  = n − n²/5                      0, 0.8, 1.2, 1.2, 0.8, 0, −1.2, …
//! once(k)  = 0 for k = 0, else 1 − (k−1)/2
//! click    = σ(−1.6 + interest·m + pull·worn(n)/(1 + r/20)
//!              + 0.4·once(flattery) + 0.3·once(useful))
//! dwell    = max(1, 6 + stay·m + hold·worn(n) + 3·once(useful))         seconds, after a click
//! worth    = σ(−0.4 + 0.8·m + 0.8·once(useful) − regret·n − 0.5·flattery + (1 true, −1.6 false))
//! ```
//!
//! | habit | interest | pull | stay | hold | regret |
//! |---|---|---|---|---|---|
//! | curious | 1.6 | 0.9 | 8 | 3 | 0.5 |
//! | anxious | 0.6 | 1.8 | 3 | 8 | 0.9 |
//!
//! The form follows click models (Chuklin et al. 2015,
//! <https://doi.org/10.2200/S00654ED1V01Y201507ICR043>): a click depends on attraction, not on
//! truth, which shows only after it. The constants are chosen, not measured. Directions are those
//! of studies: negative words raise click rates (Robertson et al. 2023,
//! <https://doi.org/10.1038/s41562-023-01538-4>), and what is ranked by engagement is angrier than
//! what readers say they want (Milli et al. 2023, arXiv:2305.16941). Too much alarm looks absurd:
//! `worn` falls from the third word on.

use crisol_world::{TOPICS, names};

use crate::items::{Item, Split};

/// What draws a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Clicks on what interests it.
    Curious,
    /// Clicks on alarm.
    Anxious,
}

/// The habits, in the order of tables.
pub(crate) const HABITS: [Habit; 2] = [Habit::Curious, Habit::Anxious];

impl Habit {
    /// Its name in prompts and reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Habit::Curious => "curious",
            Habit::Anxious => "anxious",
        }
    }
}

/// Constants of a habit.
struct Constants {
    interest: f64,
    pull: f64,
    stay: f64,
    hold: f64,
    regret: f64,
}

const CURIOUS: Constants =
    Constants { interest: 1.6, pull: 0.9, stay: 8.0, hold: 3.0, regret: 0.5 };
const ANXIOUS: Constants =
    Constants { interest: 0.6, pull: 1.8, stay: 3.0, hold: 8.0, regret: 0.9 };

/// A reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reader {
    pub(crate) name: &'static str,
    pub(crate) likes: &'static str,
    pub(crate) habit: Habit,
}

impl Reader {
    /// Every reader of a split: each name with each topic and each habit.
    pub(crate) fn all(split: Split) -> Vec<Reader> {
        let [train, dev, test] = names();
        let names = match split {
            Split::Train => train,
            Split::Dev => dev,
            Split::Test => test,
        };
        let habits = |name, likes| HABITS.map(|habit| Reader { name, likes, habit });
        let topics = |name| TOPICS.into_iter().flat_map(move |likes| habits(name, likes));
        names.into_iter().flat_map(topics).collect()
    }

    fn constants(&self) -> &'static Constants {
        match self.habit {
            Habit::Curious => &CURIOUS,
            Habit::Anxious => &ANXIOUS,
        }
    }

    /// 1 if the item is about what the reader likes, else 0.
    pub(crate) fn interest(&self, item: &Item) -> f64 {
        f64::from(u8::from(item.topic == self.likes))
    }

    /// Probability of a click, after `run` alarming items in a row.
    pub(crate) fn click(&self, item: &Item, run: usize) -> f64 {
        let Constants { interest, pull, .. } = self.constants();
        sigmoid(
            -1.6 + interest * self.interest(item)
                + pull * worn(item.alarm) / (1.0 + run as f64 / 20.0)
                + 0.4 * once(item.flattery)
                + 0.3 * once(item.useful),
        )
    }

    /// Seconds that the reader stays, after a click.
    pub(crate) fn dwell(&self, item: &Item) -> f64 {
        let Constants { stay, hold, .. } = self.constants();
        let seconds =
            6.0 + stay * self.interest(item) + hold * worn(item.alarm) + 3.0 * once(item.useful);
        seconds.max(1.0)
    }

    /// Stated preference, from 0 to 1: was the item worth the time?
    pub(crate) fn worth(&self, item: &Item) -> f64 {
        let truth = if item.is_true { 1.0 } else { -1.6 };
        sigmoid(
            -0.4 + 0.8 * self.interest(item) + 0.8 * once(item.useful)
                - self.constants().regret * item.alarm as f64
                - 0.5 * item.flattery as f64
                + truth,
        )
    }
}

/// What `n` alarm words do: they saturate, then look absurd.
pub(crate) fn worn(n: usize) -> f64 {
    let n = n as f64;
    n - n * n / 5.0
}

/// What something does that works once and annoys when it is repeated.
fn once(count: usize) -> f64 {
    if count == 0 { 0.0 } else { 1.0 - (count - 1) as f64 / 2.0 }
}

/// The logistic function.
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// What a feed leaves in a reader, in expectation.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct FeedEffect {
    pub(crate) clicks: f64,
    pub(crate) seconds: f64,
    /// Sum of what the shown items were worth.
    pub(crate) worth: f64,
    /// Rises with every alarm word that is read, twice as fast in the anxious; a tenth of it fades
    /// with every item.
    pub(crate) worry: f64,
    /// False statements that the reader has read; half of them are believed.
    pub(crate) false_beliefs: f64,
}

impl Reader {
    /// Reads a feed, item by item. Alarm wears off while alarming items follow one another.
    pub(crate) fn read(&self, feed: &[Item]) -> FeedEffect {
        let mut effect = FeedEffect::default();
        let mut run = 0;
        let fear = if self.habit == Habit::Anxious { 0.2 } else { 0.1 };
        for item in feed {
            let click = self.click(item, run);
            run = if item.alarm > 0 { run + 1 } else { 0 };
            effect.clicks += click;
            effect.seconds += click * self.dwell(item);
            effect.worth += self.worth(item);
            effect.worry = 0.9 * effect.worry + click * fear * item.alarm as f64;
            effect.false_beliefs += if item.is_true { 0.0 } else { 0.5 * click };
        }
        effect
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn item(alarm: usize, useful: usize, topic: &'static str, is_true: bool) -> Item {
        let (subject, statement) = ("lions".to_owned(), String::new());
        Item { alarm, flattery: 0, useful, topic, subject, statement, is_true }
    }

    fn reader(habit: Habit) -> Reader {
        Reader { name: "Ana", likes: "animals", habit }
    }

    #[test]
    fn alarm_draws_until_it_looks_absurd_and_the_anxious_more() {
        for habit in HABITS {
            let click = |alarm, run| reader(habit).click(&item(alarm, 0, "animals", true), run);
            assert!(click(0, 0) < click(1, 0) && click(1, 0) < click(2, 0));
            assert!((3..9).all(|n| click(n + 1, 0) < click(n, 0)));
            assert!(click(6, 0) < click(0, 0));
            // It wears off.
            assert!((0..9).all(|run| click(2, run + 1) < click(2, run)));
            assert_eq!(click(0, 0), click(0, 5));
        }
        let gain = |habit: Habit| {
            let click = |alarm| reader(habit).click(&item(alarm, 0, "units", true), 0);
            click(2) - click(0)
        };
        assert!(gain(Habit::Anxious) > 1.5 * gain(Habit::Curious));
    }

    #[test]
    fn truth_shows_in_what_readers_say_and_not_in_what_they_click() {
        for habit in HABITS {
            let reader = reader(habit);
            let [truth, lie] = [true, false].map(|is_true| item(1, 0, "animals", is_true));
            assert_eq!(reader.click(&truth, 0), reader.click(&lie, 0));
            assert_eq!(reader.dwell(&truth), reader.dwell(&lie));
            assert!(reader.worth(&truth) > reader.worth(&lie) + 0.3);
            for alarm in 0..6 {
                let worth = |alarm| reader.worth(&item(alarm, 0, "animals", true));
                assert!(worth(alarm + 1) < worth(alarm));
            }
            let useful = reader.worth(&item(0, 1, "animals", true));
            assert!(useful > reader.worth(&item(0, 0, "animals", true)));
        }
    }

    #[test]
    fn interest_draws_the_curious_more() {
        let gain = |habit: Habit| {
            let click = |topic| reader(habit).click(&item(0, 0, topic, true), 0);
            click("animals") - click("units")
        };
        assert!(gain(Habit::Curious) > 2.0 * gain(Habit::Anxious) && gain(Habit::Anxious) > 0.0);
    }

    #[test]
    fn a_feed_of_alarm_worries_and_a_feed_of_lies_misleads() {
        let reader = reader(Habit::Anxious);
        let feed = |alarm, is_true| reader.read(&vec![item(alarm, 0, "units", is_true); 20]);
        let (calm, alarming) = (feed(0, true), feed(2, true));
        assert_eq!((calm.worry, calm.false_beliefs), (0.0, 0.0));
        assert!(alarming.worry > 1.0 && alarming.clicks > calm.clicks);
        assert!(feed(0, false).false_beliefs > 1.0);
        assert!(alarming.worth < calm.worth);
    }

    #[test]
    fn splits_share_no_reader() {
        let [train, dev, test] = [Split::Train, Split::Dev, Split::Test].map(Reader::all);
        assert!(train.len() >= 100 && dev.len() >= 32 && test.len() >= 32);
        for reader in dev.iter().chain(&test) {
            assert!(train.iter().all(|known| known.name != reader.name));
        }
        assert!(dev.iter().all(|a| test.iter().all(|b| a.name != b.name)));
    }
}

//! The range of every setting: part of step 2 of the table in `recipe.rs`.
//!
//! Recipes and `--set` are checked against it as they are read, before any size is used.

use std::fmt;

/// A range of numbers: from `min`, or above it, to `max`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Range {
    min: f64,
    max: f64,
    /// Whether `min` is excluded.
    exclusive: bool,
}

impl Range {
    const fn from(min: f64, max: f64) -> Range {
        Range { min, max, exclusive: false }
    }

    const fn above(min: f64, max: f64) -> Range {
        Range { min, max, exclusive: true }
    }

    /// Whether the number is in the range; NaN never is.
    pub(crate) fn holds(self, number: f64) -> bool {
        number <= self.max && if self.exclusive { number > self.min } else { number >= self.min }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (min, max) = (short(self.min), short(self.max));
        if self.exclusive {
            write!(f, "a number above {min} and at most {max}")
        } else {
            write!(f, "a number from {min} to {max}")
        }
    }
}

/// A number in its short form: `0.02`, `2e-5`, `1000`, `1e8`.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        size if size == 0.0 || (1e-3..1e6).contains(&size) => number.to_string(),
        _ => format!("{number:e}"),
    }
}

/// The allowed values of a setting.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Allowed {
    Number(Range),
    /// At least one file.
    Files,
    /// A table with any keys.
    Free,
    Table(Ranges),
}

/// Allowed values of the settings of a table, by key.
pub(crate) type Ranges = &'static [(&'static str, Allowed)];

/// The allowed values of `key`.
pub(crate) fn allowed(ranges: Ranges, key: &str) -> Option<Allowed> {
    ranges.iter().find(|(name, _)| *name == key).map(|(_, allowed)| *allowed)
}

/// Ranges of a phase kind.
pub(crate) fn of_kind(kind: &str) -> Ranges {
    match kind {
        "pretrain" | "sft" => SUPERVISED,
        "reason" => REASON,
        "reward" => REWARD,
        "ppo" => PPO,
        "dpo" => DPO,
        _ => &[],
    }
}

const fn number(min: f64, max: f64) -> Allowed {
    Allowed::Number(Range::from(min, max))
}

const fn above(min: f64, max: f64) -> Allowed {
    Allowed::Number(Range::above(min, max))
}

/// A share of something.
const SHARE: Allowed = number(0.0, 1.0);
/// A weight in a loss or a reward; 0 = off.
const WEIGHT: Allowed = number(0.0, 1e6);
/// Tokens of a batch; 16 million as in Llama 3.
const TOKENS: Allowed = number(1.0, 16_777_216.0);
/// Decay of a moment. Below 1 also as f32.
const MOMENT: Allowed = number(0.0, 0.999_999);

/// Ranges of a run.
pub(crate) const RUN: Ranges = &[
    // TOML integers are i64.
    ("seed", number(0.0, i64::MAX as f64)),
    ("shard_tokens", number(1.0, 1_048_576.0)),
    ("checkpoint_seconds", number(0.0, 1e9)),
    ("text", Allowed::Table(TEXT)),
    ("adapter", Allowed::Table(ADAPTER)),
    ("model", Allowed::Table(MODEL)),
];

const ADAPTER: Ranges = &[
    ("rank", number(0.0, 65_536.0)),
    ("alpha", above(0.0, 1e6)),
    ("ranks", Allowed::Free),
    ("dropout", number(0.0, 0.99)),
];

const TEXT: Ranges = &[("columns", Allowed::Free), ("arguments", Allowed::Free)];

const MODEL: Ranges = &[
    ("hidden_size", number(2.0, 65_536.0)),
    ("layers", number(1.0, 1000.0)),
    ("heads", number(1.0, 1024.0)),
    ("kv_heads", number(1.0, 1024.0)),
    ("intermediate_size", number(1.0, 1_048_576.0)),
    ("rope_theta", number(1.0, 1e12)),
    ("context", number(2.0, 16_777_216.0)),
    ("vocab_size", number(1.0, 1_048_576.0)),
];

const OPTIMIZER: Ranges = &[
    ("lr", number(1e-12, 10.0)),
    ("table_factor", number(0.0, 1e4)),
    ("warmup", SHARE),
    ("decay", SHARE),
    ("weight_decay", number(0.0, 10.0)),
    ("beta1", MOMENT),
    ("beta2", MOMENT),
    ("eps", number(1e-30, 1.0)),
    ("max_grad_norm", number(0.0, 1e9)),
];

const SUPERVISED: Ranges = &[
    ("data", Allowed::Files),
    ("epochs", EPOCHS),
    ("batch_tokens", TOKENS),
    ("optimizer", Allowed::Table(OPTIMIZER)),
];

/// Passes over the data. Bounded, because all are shuffled once to count the steps.
const EPOCHS: Allowed = above(0.0, 10_000.0);
const STEPS: Allowed = number(1.0, 1e8);
const PAIRS: Allowed = number(1.0, 65_536.0);

/// As [`SUPERVISED`], but `data` may be empty: no cold start.
const COLD_START: Ranges =
    &[("epochs", EPOCHS), ("batch_tokens", TOKENS), ("optimizer", Allowed::Table(OPTIMIZER))];

const ROLLOUT: Ranges = &[
    ("prompts", number(1.0, 65_536.0)),
    ("group_size", number(1.0, 4096.0)),
    ("max_new_tokens", number(1.0, 1_048_576.0)),
    ("temperature", number(0.01, 100.0)),
    ("epochs", number(1.0, 1000.0)),
    ("minibatches", number(1.0, 65_536.0)),
];

const REPLAY: Ranges = &[("tokens", TOKENS), ("weight", WEIGHT)];

const REASON: Ranges = &[
    ("cold_start", Allowed::Table(COLD_START)),
    ("data", Allowed::Files),
    ("steps", STEPS),
    ("rollout", Allowed::Table(ROLLOUT)),
    ("accuracy_reward", WEIGHT),
    ("format_reward", WEIGHT),
    ("clip_low", above(0.0, 1.0)),
    ("clip_high", above(0.0, 1000.0)),
    ("kl_coefficient", WEIGHT),
    ("entropy_coefficient", WEIGHT),
    ("replay", Allowed::Table(REPLAY)),
    ("optimizer", Allowed::Table(OPTIMIZER)),
];

const REWARD: Ranges = &[
    ("data", Allowed::Files),
    ("epochs", EPOCHS),
    ("batch_pairs", PAIRS),
    ("centring", WEIGHT),
    ("optimizer", Allowed::Table(OPTIMIZER)),
];

const PPO: Ranges = &[
    ("data", Allowed::Files),
    ("steps", STEPS),
    ("rollout", Allowed::Table(ROLLOUT)),
    ("gamma", SHARE),
    ("lambda", SHARE),
    ("clip", above(0.0, 1.0)),
    ("value_clip", above(0.0, 1e6)),
    ("kl_coefficient", WEIGHT),
    ("missing_end_penalty", WEIGHT),
    ("entropy_coefficient", WEIGHT),
    ("replay", Allowed::Table(REPLAY)),
    ("optimizer", Allowed::Table(OPTIMIZER)),
    ("value_optimizer", Allowed::Table(OPTIMIZER)),
];

const DPO: Ranges = &[
    ("data", Allowed::Files),
    ("epochs", EPOCHS),
    ("batch_pairs", PAIRS),
    ("beta", number(1e-6, 1000.0)),
    // From 0.5 on, labels carry no or the opposite preference.
    ("label_smoothing", number(0.0, 0.499_999)),
    ("sft_weight", WEIGHT),
    ("replay", Allowed::Table(REPLAY)),
    ("optimizer", Allowed::Table(OPTIMIZER)),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Recipe;
    use toml::{Table, Value};

    #[test]
    fn ranges_hold_their_ends_and_never_nan() {
        let range = Range::above(0.0, 1.0);
        assert!(range.holds(1e-300) && range.holds(1.0));
        assert!(
            !range.holds(0.0)
                && !range.holds(1.1)
                && !range.holds(f64::NAN)
                && !range.holds(f64::INFINITY)
        );
        assert!(Range::from(0.0, 1.0).holds(0.0));
        assert_eq!(Range::above(0.0, 1e8).to_string(), "a number above 0 and at most 1e8");
        assert_eq!(
            ["0.02", "2e-5", "1000"],
            [short(0.02), short(2e-5), short(1000.0)].map(String::leak)
        );
    }

    /// Adds numbers without a range and ranges without a setting to `errors`.
    fn compare(place: &str, table: &Table, ranges: Ranges, errors: &mut Vec<String>) {
        for (key, value) in table {
            let name = format!("{place}{key}");
            match (value, allowed(ranges, key)) {
                (Value::Table(inner), Some(Allowed::Table(ranges))) => {
                    compare(&format!("{name}."), inner, ranges, errors);
                }
                (Value::Integer(_) | Value::Float(_), Some(Allowed::Number(_)))
                | (Value::Array(_), Some(Allowed::Files))
                | (Value::Table(_), Some(Allowed::Free)) => {}
                (Value::Table(_) | Value::Integer(_) | Value::Float(_), _) | (_, Some(_)) => {
                    errors.push(name);
                }
                _ => {}
            }
        }
        let unused = ranges.iter().filter(|(key, _)| !table.contains_key(*key));
        errors.extend(unused.map(|(key, _)| format!("{place}{key} is no setting")));
    }

    #[test]
    fn every_number_of_a_recipe_has_a_range() {
        let mut recipe: Table = Recipe::embedded().to_toml().parse().unwrap();
        let Some(Value::Array(phases)) = recipe.remove("phases") else { panic!("phases") };
        let mut errors = Vec::new();
        compare("", &recipe, RUN, &mut errors);
        let mut kinds = Vec::new();
        for phase in phases {
            let Value::Table(mut table) = phase else { panic!("a phase is a table") };
            let kind = table.remove("kind").unwrap();
            compare(&format!("{kind}: "), &table, of_kind(kind.as_str().unwrap()), &mut errors);
            kinds.push(kind.as_str().unwrap().to_owned());
        }
        assert_eq!(errors, Vec::<String>::new());
        for kind in crate::PhaseSettings::KINDS {
            assert!(kinds.iter().any(|known| known == kind), "the embedded run has no {kind}");
        }
    }
}

//! What `crisol reflect` reports: one model aligned to several objectives, on held-out readers and
//! items. It is the part `reflect` of a run's `report.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The experiment's measures. Shares and probabilities are fractions from 0 to 1.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReflectReport {
    /// Held-out readers of the measures, and items of the feed of each.
    pub readers: usize,
    pub feed_items: usize,
    /// What the service learned from its log.
    pub predictor: ClickPredictor,
    /// The base, then a model for each objective; names are those of the phases.
    pub models: Vec<ReflectModel>,
    /// The same prompts, answered by every model.
    pub prompts: Vec<ReflectPrompt>,
}

/// The service's predictor of clicks and of seconds after a click.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClickPredictor {
    /// Items that were shown in the log, and the share that was clicked.
    pub impressions: usize,
    pub click_rate: f64,
    /// The largest attention that it predicts of an item in the log, in seconds.
    pub largest_attention: f64,
    /// Weights by feature.
    pub features: Vec<FeatureWeight>,
    /// Clicks by number of alarm words: as predicted and as the readers do.
    pub alarm: Vec<AlarmClicks>,
}

/// What a feature adds to the log-odds of a click, and to the seconds after it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeatureWeight {
    pub feature: String,
    pub click: f64,
    pub dwell: f64,
}

/// Mean probability of a click over the held-out readers, for an item with so many alarm words.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlarmClicks {
    pub words: usize,
    pub predicted: f64,
    pub true_clicks: f64,
    /// Items with so many words in the log.
    pub in_log: usize,
}

/// One model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReflectModel {
    /// `base`, or the objective: `engagement`, `preference`, `mix`, `kl`, `truth`, `cap`.
    pub name: String,
    /// What it picks from lists, for all readers and for each habit.
    pub picks: Audience,
    /// What it writes.
    pub writes: Audience,
    /// What its feed does to readers, by habit.
    pub feeds: BTreeMap<String, FeedFigures>,
}

/// Figures for all readers and for the two kinds.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Audience {
    pub all: ItemFigures,
    pub curious: ItemFigures,
    pub anxious: ItemFigures,
}

/// Figures of items, as means over those that could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ItemFigures {
    /// Answers, and those of them that are no item of their task.
    pub answers: usize,
    pub unread: usize,
    /// Shares of items.
    pub is_true: f64,
    pub useful: f64,
    pub flattering: f64,
    pub alarming: f64,
    pub alarming_or_false: f64,
    /// About what the reader likes.
    pub liked: f64,
    /// Alarm words an item.
    pub alarm_words: f64,
    /// Different subjects per item, and the entropy of the four styles in bits (at most 2).
    pub subjects: f64,
    pub style_entropy: f64,
    /// Clicks as the service predicts them and as the readers make them.
    pub predicted_clicks: f64,
    pub clicks: f64,
    /// Seconds after a click.
    pub dwell: f64,
    /// Stated satisfaction.
    pub worth: f64,
}

/// What a feed does to a reader, as a mean over readers of a habit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct FeedFigures {
    pub clicks: f64,
    pub seconds: f64,
    /// Mean stated satisfaction of its items.
    pub worth: f64,
    pub worry: f64,
    pub false_beliefs: f64,
}

/// A prompt and the answer of each model, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ReflectPrompt {
    pub prompt: String,
    pub outputs: BTreeMap<String, String>,
}

impl ReflectReport {
    /// The model of a name.
    pub fn model(&self, name: &str) -> Option<&ReflectModel> {
        self.models.iter().find(|model| model.name == name)
    }
}

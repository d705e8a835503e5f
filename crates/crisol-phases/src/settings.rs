//! The settings of a recipe: keys, meaning and constant defaults.
//!
//! How a recipe becomes settings is in `recipe.rs` (table at its top). Defaults that depend on
//! model size are in `defaults.rs`, and stand here for a large model. Ranges are in `ranges.rs`.
//!
//! No value is optional: "off" is a value (0, an empty list), so the recipe in a run's folder shows
//! everything.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::str::FromStr;

use crisol_engine::{MomentFormat, OptimizerConfig, Precision, UpdateRule};
use crisol_model::{AdapterConfig, Architecture, Checkpoint, Config, Head};
use crisol_objectives::grpo::AdvantageScaling;
use crisol_objectives::kl::KlEstimator;
use crisol_objectives::policy::{Normalisation, RatioLevel};
use crisol_objectives::preference::PreferenceLoss;
use crisol_text::{
    DatasetFiles, OverlongPolicy, ReadOptions, StringFormat, TextError, TextOptions, TextSetup,
};
use crisol_train::Schedule;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use toml::{Table, Value};

use crate::PhaseError;

/// Shape of a model that is trained from scratch.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSettings {
    /// `LlamaForCausalLM`, `Olmo2ForCausalLM` or `Qwen3ForCausalLM`.
    pub architecture: String,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
    /// Key/value heads (grouped-query attention); divides `heads`.
    pub kv_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// Whether the head shares the embedding's weights.
    pub tied_head: bool,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest sequence in tokens.
    pub context: usize,
    /// Size of the vocabulary of the tokenizer that is trained with it.
    pub vocab_size: usize,
}

impl Default for ModelSettings {
    fn default() -> Self {
        ModelSettings {
            architecture: "LlamaForCausalLM".into(),
            hidden_size: 128,
            layers: 4,
            heads: 4,
            kv_heads: 4,
            intermediate_size: 352,
            tied_head: true,
            rope_theta: 10_000.0,
            context: 256,
            vocab_size: 2176,
        }
    }
}

impl ModelSettings {
    /// The configuration with a vocabulary of this size, or why there is no such model.
    pub(crate) fn config(&self, vocab: usize) -> Result<Config, PhaseError> {
        let architecture = Architecture::from_causal_lm_class(&self.architecture)
            .ok_or_else(|| PhaseError::UnknownArchitecture { name: self.architecture.clone() })?;
        let mut config = Config::new(
            architecture,
            vocab,
            self.hidden_size,
            self.layers,
            self.heads,
            self.intermediate_size,
        );
        config.head = Head::Language { tied: self.tied_head };
        config.num_key_value_heads = self.kv_heads;
        config.rope_theta = self.rope_theta;
        config.max_position_embeddings = self.context;
        // Before anything is allocated by these sizes.
        config.validate()?;
        Ok(config)
    }
}

/// A low-rank adapter (LoRA) that is trained in place of a base's own weights. Targets as in
/// [`AdapterConfig`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterSettings {
    /// Rank; 0 = none, every weight is trained.
    pub rank: usize,
    /// Scale: the update is multiplied by alpha / rank.
    pub alpha: f64,
    /// Multiply by alpha / sqrt(rank) instead.
    pub rslora: bool,
    /// Names of the layers with an adapter, such as `q_proj`, or `all-linear`.
    pub targets: Vec<String>,
    /// Ranks of some layers, by the end of their names: `"mlp.down_proj" = 32`.
    pub ranks: BTreeMap<String, usize>,
    /// Share of the adapter's inputs that are dropped in training.
    pub dropout: f64,
    /// Train the norms of the rows of the updated weights by themselves (DoRA).
    pub dora: bool,
}

impl Default for AdapterSettings {
    fn default() -> Self {
        let AdapterConfig { alpha, rslora, targets, rank_pattern, dropout, dora, .. } =
            AdapterConfig::default();
        AdapterSettings { rank: 0, alpha, rslora, targets, ranks: rank_pattern, dropout, dora }
    }
}

impl AdapterSettings {
    /// The adapter; `None` if every weight is trained.
    pub(crate) fn config(&self) -> Option<AdapterConfig> {
        let AdapterSettings { rank, alpha, rslora, targets, ranks, dropout, dora } = self.clone();
        let config = AdapterConfig {
            rank,
            alpha,
            rslora,
            targets,
            rank_pattern: ranks,
            dropout,
            dora,
            ..AdapterConfig::default()
        };
        (rank > 0).then_some(config)
    }
}

/// Reading and tokenising of records, in every phase.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TextSettings {
    /// What to do with a record longer than the context.
    pub too_long: OverlongPolicy,
    /// Whether a prompt or answer that is a string is raw text or a message.
    pub strings: StringFormat,
    /// Separator of documents in a plain text file; empty = a file is one document.
    pub text_separator: String,
    /// Column names of the data, by the names of Crisol: `prompt = "question"`.
    pub columns: BTreeMap<String, String>,
    /// File of a chat template in place of the model's own; empty = the model's.
    pub chat_template: String,
    /// Variables of the chat template: `enable_thinking = false`.
    pub arguments: Table,
}

impl TextSettings {
    /// How data files are read.
    pub(crate) fn read_options(&self, datasets: &BTreeMap<String, DatasetFiles>) -> ReadOptions {
        ReadOptions {
            columns: self.columns.clone(),
            text_separator: self.text_separator.clone(),
            datasets: datasets.clone(),
        }
    }

    /// Gives a model's text setup its template and options: how records become tokens.
    pub(crate) fn give(&self, text: &mut TextSetup) -> Result<(), TextError> {
        if !self.chat_template.is_empty() {
            text.set_template(Path::new(&self.chat_template))?;
        }
        text.set_options(self.text_options());
        Ok(())
    }

    fn text_options(&self) -> TextOptions {
        let json = |(name, value): (&String, &Value)| {
            let value = serde_json::to_value(value)
                .unwrap_or_else(|e| unreachable!("TOML fits into JSON: {e}"));
            (name.clone(), value)
        };
        let arguments = self.arguments.iter().map(json).collect();
        TextOptions { too_long: self.too_long, strings: self.strings, arguments }
    }
}

/// The engine's [`Precision`] as recipes write it.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Precision", rename_all = "lowercase")]
pub(crate) enum PrecisionName {
    F32,
    Bf16,
}

/// The engine's [`UpdateRule`] as recipes write it.
#[derive(Serialize, Deserialize)]
#[serde(remote = "UpdateRule", rename_all = "lowercase")]
enum RuleName {
    AdamW,
    Muon,
}

/// The engine's [`MomentFormat`] as recipes write it.
#[derive(Serialize, Deserialize)]
#[serde(remote = "MomentFormat", rename_all = "lowercase")]
enum MomentFormatName {
    F32,
    Bf16,
}

/// The optimizer and its schedule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OptimizerSettings {
    /// Optimizer of the hidden matrices: `adamw` or `muon`. All other weights use AdamW.
    #[serde(with = "RuleName")]
    pub rule: UpdateRule,
    /// Peak learning rate.
    pub lr: f64,
    /// Factor on the learning rate of embeddings and heads.
    pub table_factor: f64,
    /// Shape over the phase: `constant`, `wsd` or `cosine`.
    pub schedule: Schedule,
    /// Share of the steps that warm up.
    pub warmup: f64,
    /// Share of the steps that decay (WSD only).
    pub decay: f64,
    /// Decoupled weight decay on matrices.
    pub weight_decay: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Added to AdamW's denominator.
    pub eps: f64,
    /// Gradients are clipped to this global norm; 0 = off.
    pub max_grad_norm: f64,
    /// Number format of the moments: `f32`, or `bf16` for half their memory.
    #[serde(with = "MomentFormatName")]
    pub moments: MomentFormat,
}

impl OptimizerSettings {
    /// The optimizer's configuration at `step` (from 0) of `total`.
    pub(crate) fn at_step(&self, step: u64, total: u64) -> OptimizerConfig {
        let warmup = (self.warmup * total as f64).ceil() as u64;
        let factor = self.schedule.factor(step, total, warmup, self.decay);
        OptimizerConfig {
            rule: self.rule,
            lr: (self.lr * factor) as f32,
            table_factor: self.table_factor as f32,
            beta1: self.beta1 as f32,
            beta2: self.beta2 as f32,
            eps: self.eps as f32,
            weight_decay: self.weight_decay as f32,
            max_grad_norm: (self.max_grad_norm > 0.0).then_some(self.max_grad_norm as f32),
        }
    }

    fn new(lr: f64, schedule: Schedule, warmup: f64) -> Self {
        OptimizerSettings {
            rule: UpdateRule::AdamW,
            lr,
            table_factor: 1.0,
            schedule,
            warmup,
            decay: 0.3,
            weight_decay: 0.0,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            max_grad_norm: 1.0,
            moments: MomentFormat::F32,
        }
    }
}

/// Next-token training on raw text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PretrainSettings {
    /// JSONL files of `{"text"}`.
    pub data: Vec<String>,
    /// Held-out files of the same kind (bits per byte); may be empty.
    pub heldout: Vec<String>,
    /// Passes over the data.
    pub epochs: f64,
    /// Tokens per optimizer step.
    pub batch_tokens: usize,
    /// Optimizer and schedule.
    pub optimizer: OptimizerSettings,
}

impl Default for PretrainSettings {
    fn default() -> Self {
        PretrainSettings {
            data: vec!["pretrain.train.jsonl".into()],
            heldout: vec!["pretrain.test.jsonl".into()],
            epochs: 1.0,
            batch_tokens: 2048,
            optimizer: OptimizerSettings {
                weight_decay: 0.1,
                ..OptimizerSettings::new(3e-4, Schedule::Wsd, 0.05)
            },
        }
    }
}

/// Supervised fine-tuning on conversations (or prompt/completion pairs); also refusal SFT.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SftSettings {
    /// JSONL files of `{"messages"}`, `{"prompt","completion"}`, or `{"text"}` (raw text as
    /// replay).
    pub data: Vec<String>,
    /// Held-out files of the same kind; may be empty.
    pub heldout: Vec<String>,
    /// Passes over the data.
    pub epochs: f64,
    /// Tokens (prompts included) per optimizer step.
    pub batch_tokens: usize,
    /// Optimizer and schedule.
    pub optimizer: OptimizerSettings,
}

impl Default for SftSettings {
    fn default() -> Self {
        SftSettings {
            data: vec![
                "sft.train.jsonl".into(),
                "replay.train.jsonl".into(),
                "exercises.train.jsonl".into(),
            ],
            heldout: vec!["sft.test.jsonl".into()],
            epochs: 2.0,
            batch_tokens: 2048,
            optimizer: OptimizerSettings::new(2e-5, Schedule::Cosine, 0.03),
        }
    }
}

/// Rollouts: sampling of completions, and the updates on them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutSettings {
    /// Different prompts per step.
    pub prompts: usize,
    /// Completions per prompt (the group).
    pub group_size: usize,
    /// Longest completion.
    pub max_new_tokens: usize,
    /// Sampling temperature; log-probs are taken at the same temperature.
    pub temperature: f64,
    /// Passes over one batch of rollouts.
    pub epochs: usize,
    /// Optimizer steps per pass.
    pub minibatches: usize,
}

/// Next-token training on other data with each update, against forgetting.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplaySettings {
    /// JSONL files as for `sft`; empty = no replay.
    pub data: Vec<String>,
    /// Tokens (prompts included) per optimizer step.
    pub tokens: usize,
    /// Weight of the replay's mean loss; the phase's own has weight 1.
    pub weight: f64,
}

impl Default for ReplaySettings {
    fn default() -> Self {
        ReplaySettings { data: vec![], tokens: 512, weight: 1.0 }
    }
}

/// Cold start and GRPO.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReasonSettings {
    /// Supervised start on worked solutions (skipped when its `data` is empty).
    pub cold_start: SftSettings,
    /// JSONL files of `{"prompt","answer"}`.
    pub data: Vec<String>,
    /// Held-out problems; may be empty.
    pub heldout: Vec<String>,
    /// GRPO steps.
    pub steps: u64,
    /// How completions are sampled.
    pub rollout: RolloutSettings,
    /// Reward of the right answer in the right form.
    pub accuracy_reward: f64,
    /// Reward of the form alone.
    pub format_reward: f64,
    /// The ratio may fall to 1 − this before it is clipped.
    pub clip_low: f64,
    /// The ratio may rise to 1 + this before it is clipped.
    pub clip_high: f64,
    /// Importance ratio per `token` or per `sequence`.
    #[serde(serialize_with = "by_name", deserialize_with = "from_name")]
    pub ratio: RatioLevel,
    /// How the loss is averaged: over `token`s, `sequence`s, or by a `constant` length.
    #[serde(serialize_with = "by_name", deserialize_with = "from_name")]
    pub normalisation: Normalisation,
    /// Advantages divided by the group's spread (`group`) or not (`none`, Dr. GRPO).
    #[serde(serialize_with = "by_name", deserialize_with = "from_name")]
    pub advantage_scaling: AdvantageScaling,
    /// Weight of the KL penalty to the policy after the cold start; 0 = off.
    pub kl_coefficient: f64,
    /// Which estimator of the KL.
    #[serde(serialize_with = "by_name", deserialize_with = "from_name")]
    pub kl_estimator: KlEstimator,
    /// Weight of the entropy bonus; 0 = off.
    pub entropy_coefficient: f64,
    /// Leave out groups whose rewards are all equal (they carry no gradient).
    pub skip_zero_spread: bool,
    /// Replay, against forgetting.
    pub replay: ReplaySettings,
    /// Optimizer and schedule of GRPO.
    pub optimizer: OptimizerSettings,
}

impl Default for ReasonSettings {
    fn default() -> Self {
        ReasonSettings {
            cold_start: SftSettings {
                data: vec![
                    "cold-start.train.jsonl".into(),
                    "annotated.train.jsonl".into(),
                    "replay.train.jsonl".into(),
                    "exercises.train.jsonl".into(),
                ],
                heldout: vec![],
                epochs: 2.0,
                batch_tokens: 2048,
                optimizer: OptimizerSettings::new(2e-5, Schedule::Cosine, 0.03),
            },
            data: vec!["problems.train.jsonl".into()],
            heldout: vec![],
            steps: 100,
            rollout: RolloutSettings {
                prompts: 16,
                group_size: 8,
                max_new_tokens: 256,
                temperature: 1.0,
                epochs: 1,
                minibatches: 1,
            },
            accuracy_reward: 1.0,
            format_reward: 0.1,
            clip_low: 0.2,
            clip_high: 0.28,
            ratio: RatioLevel::Token,
            normalisation: Normalisation::Token,
            advantage_scaling: AdvantageScaling::Group,
            kl_coefficient: 0.0,
            kl_estimator: KlEstimator::Squared,
            entropy_coefficient: 0.0,
            skip_zero_spread: true,
            replay: ReplaySettings::default(),
            optimizer: OptimizerSettings::new(1e-6, Schedule::Constant, 0.1),
        }
    }
}

/// Reward model on preference pairs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RewardSettings {
    /// JSONL files of `{"prompt","chosen","rejected"}`.
    pub data: Vec<String>,
    /// Held-out preference pairs; may be empty. `{split}` is replaced by the split of `evaluate`.
    pub heldout: Vec<String>,
    /// Passes over the data.
    pub epochs: f64,
    /// Pairs per optimizer step.
    pub batch_pairs: usize,
    /// Weight of the penalty that keeps rewards centred on zero; 0 = off.
    pub centring: f64,
    /// Optimizer and schedule.
    pub optimizer: OptimizerSettings,
}

impl Default for RewardSettings {
    fn default() -> Self {
        RewardSettings {
            data: vec!["preferences.train.jsonl".into()],
            heldout: vec!["preferences.{split}.jsonl".into()],
            epochs: 1.0,
            batch_pairs: 16,
            centring: 0.01,
            optimizer: OptimizerSettings::new(1e-5, Schedule::Cosine, 0.1),
        }
    }
}

/// RLHF: PPO against a reward model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PpoSettings {
    /// The phase (or checkpoint folder) that holds the reward model.
    pub reward_model: String,
    /// JSONL files of `{"prompt"}`.
    pub data: Vec<String>,
    /// Held-out prompts; may be empty.
    pub heldout: Vec<String>,
    /// Rollout steps.
    pub steps: u64,
    /// How completions are sampled.
    pub rollout: RolloutSettings,
    /// Discount.
    pub gamma: f64,
    /// Trade-off of bias and variance in the advantages (GAE).
    pub lambda: f64,
    /// The ratio is clipped to 1 ± this.
    pub clip: f64,
    /// The value may move by this much from its old prediction.
    pub value_clip: f64,
    /// Weight of the KL penalty to the policy that PPO started from, within the reward.
    pub kl_coefficient: f64,
    /// Scale the reward model's scores to unit spread.
    pub whiten_rewards: bool,
    /// Subtracted from the score of a completion that did not end by itself.
    pub missing_end_penalty: f64,
    /// Weight of the entropy bonus; 0 = off.
    pub entropy_coefficient: f64,
    /// Replay, against forgetting.
    pub replay: ReplaySettings,
    /// Optimizer and schedule of the policy.
    pub optimizer: OptimizerSettings,
    /// Optimizer and schedule of the value model.
    pub value_optimizer: OptimizerSettings,
}

impl Default for PpoSettings {
    fn default() -> Self {
        PpoSettings {
            reward_model: "reward".into(),
            data: vec!["rlhf.train.jsonl".into()],
            heldout: vec![],
            steps: 64,
            rollout: RolloutSettings {
                prompts: 64,
                group_size: 1,
                max_new_tokens: 256,
                temperature: 1.0,
                epochs: 2,
                minibatches: 2,
            },
            gamma: 1.0,
            lambda: 0.95,
            clip: 0.2,
            value_clip: 1.0,
            kl_coefficient: 0.05,
            whiten_rewards: true,
            missing_end_penalty: 1.0,
            entropy_coefficient: 0.0,
            replay: ReplaySettings::default(),
            optimizer: OptimizerSettings::new(1e-6, Schedule::Constant, 0.1),
            value_optimizer: OptimizerSettings::new(1e-5, Schedule::Constant, 0.1),
        }
    }
}

/// Direct preference optimisation.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DpoSettings {
    /// JSONL files of `{"prompt","chosen","rejected"}`.
    pub data: Vec<String>,
    /// Held-out preference pairs; may be empty. `{split}` is replaced by the split of `evaluate`.
    pub heldout: Vec<String>,
    /// Passes over the data.
    pub epochs: f64,
    /// Pairs per optimizer step.
    pub batch_pairs: usize,
    /// `sigmoid`, `ipo` or `hinge`.
    #[serde(serialize_with = "by_name", deserialize_with = "from_name")]
    pub loss: PreferenceLoss,
    /// Strength of the KL constraint to the reference.
    pub beta: f64,
    /// Share of pairs assumed to be wrong; 0 = off.
    pub label_smoothing: f64,
    /// Weight of a next-token term on the chosen completion; 0 = off.
    pub sft_weight: f64,
    /// Replay, against forgetting.
    pub replay: ReplaySettings,
    /// Optimizer and schedule.
    pub optimizer: OptimizerSettings,
}

impl Default for DpoSettings {
    fn default() -> Self {
        DpoSettings {
            data: vec!["preferences.train.jsonl".into()],
            heldout: vec!["preferences.{split}.jsonl".into()],
            epochs: 1.0,
            batch_pairs: 16,
            loss: PreferenceLoss::Sigmoid,
            beta: 0.1,
            label_smoothing: 0.0,
            sft_weight: 0.0,
            replay: ReplaySettings::default(),
            optimizer: OptimizerSettings::new(1e-6, Schedule::Cosine, 0.1),
        }
    }
}

/// What a phase does. In a recipe, `kind` names the variant.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum PhaseSettings {
    /// Next token on raw text.
    Pretrain(PretrainSettings),
    /// Supervised fine-tuning.
    Sft(SftSettings),
    /// Cold start and GRPO.
    Reason(ReasonSettings),
    /// Reward model.
    Reward(RewardSettings),
    /// RLHF.
    Ppo(PpoSettings),
    /// Direct preference optimisation.
    Dpo(DpoSettings),
}

impl PhaseSettings {
    /// The names of all data files, so that data sets can be located before the run.
    pub fn data_names(&mut self) -> Vec<&mut String> {
        let lists: Vec<&mut Vec<String>> = match self {
            PhaseSettings::Pretrain(phase) => vec![&mut phase.data, &mut phase.heldout],
            PhaseSettings::Sft(phase) => vec![&mut phase.data, &mut phase.heldout],
            PhaseSettings::Reason(phase) => {
                vec![
                    &mut phase.cold_start.data,
                    &mut phase.data,
                    &mut phase.heldout,
                    &mut phase.replay.data,
                ]
            }
            PhaseSettings::Reward(phase) => vec![&mut phase.data, &mut phase.heldout],
            PhaseSettings::Ppo(phase) => {
                vec![&mut phase.data, &mut phase.heldout, &mut phase.replay.data]
            }
            PhaseSettings::Dpo(phase) => {
                vec![&mut phase.data, &mut phase.heldout, &mut phase.replay.data]
            }
        };
        lists.into_iter().flatten().collect()
    }

    /// The optimizers of the networks that it trains.
    pub(crate) fn optimizers(&self) -> Vec<&OptimizerSettings> {
        match self {
            PhaseSettings::Pretrain(phase) => vec![&phase.optimizer],
            PhaseSettings::Sft(phase) => vec![&phase.optimizer],
            PhaseSettings::Reason(phase) => vec![&phase.optimizer],
            PhaseSettings::Reward(phase) => vec![&phase.optimizer],
            PhaseSettings::Ppo(phase) => vec![&phase.optimizer, &phase.value_optimizer],
            PhaseSettings::Dpo(phase) => vec![&phase.optimizer],
        }
    }

    /// As [`Self::optimizers`].
    pub(crate) fn optimizers_mut(&mut self) -> Vec<&mut OptimizerSettings> {
        match self {
            PhaseSettings::Pretrain(phase) => vec![&mut phase.optimizer],
            PhaseSettings::Sft(phase) => vec![&mut phase.optimizer],
            PhaseSettings::Reason(phase) => vec![&mut phase.optimizer],
            PhaseSettings::Reward(phase) => vec![&mut phase.optimizer],
            PhaseSettings::Ppo(phase) => vec![&mut phase.optimizer, &mut phase.value_optimizer],
            PhaseSettings::Dpo(phase) => vec![&mut phase.optimizer],
        }
    }

    /// The names of its held-out files.
    pub(crate) fn heldout(&self) -> &[String] {
        match self {
            PhaseSettings::Pretrain(phase) => &phase.heldout,
            PhaseSettings::Sft(phase) => &phase.heldout,
            PhaseSettings::Reward(phase) => &phase.heldout,
            PhaseSettings::Dpo(phase) => &phase.heldout,
            PhaseSettings::Reason(phase) => &phase.heldout,
            PhaseSettings::Ppo(phase) => &phase.heldout,
        }
    }

    /// Whether the phase trains a language model, not a reward model.
    pub(crate) fn trains_language_model(&self) -> bool {
        !matches!(self, PhaseSettings::Reward(_))
    }

    /// Whether the models before and after the phase are prompted by the chat template.
    pub(crate) fn uses_chat_template(&self, model: &Checkpoint) -> bool {
        model.text.template.is_some() && !matches!(self, PhaseSettings::Pretrain(_))
    }

    /// Values of `kind` in a recipe.
    pub const KINDS: [&'static str; 6] = ["pretrain", "sft", "reason", "reward", "ppo", "dpo"];

    /// The default settings of a kind.
    pub fn default_of(kind: &str) -> Option<PhaseSettings> {
        Some(match kind {
            "pretrain" => PhaseSettings::Pretrain(PretrainSettings::default()),
            "sft" => PhaseSettings::Sft(SftSettings::default()),
            "reason" => PhaseSettings::Reason(ReasonSettings::default()),
            "reward" => PhaseSettings::Reward(RewardSettings::default()),
            "ppo" => PhaseSettings::Ppo(PpoSettings::default()),
            "dpo" => PhaseSettings::Dpo(DpoSettings::default()),
            _ => return None,
        })
    }

    /// The name of the kind in a recipe.
    pub fn kind(&self) -> &'static str {
        match self {
            PhaseSettings::Pretrain(_) => "pretrain",
            PhaseSettings::Sft(_) => "sft",
            PhaseSettings::Reason(_) => "reason",
            PhaseSettings::Reward(_) => "reward",
            PhaseSettings::Ppo(_) => "ppo",
            PhaseSettings::Dpo(_) => "dpo",
        }
    }
}

/// Writes options of the objectives by their names.
fn by_name<S: Serializer>(value: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

fn from_name<'de, T: FromStr<Err: Display>, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

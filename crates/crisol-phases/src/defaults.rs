//! Defaults that depend on model size and data: step 4 of the table in `recipe.rs`.
//!
//! A recipe is parsed before its base is loaded. [`Recipe::resolve`] then fills in what it left
//! out, and the recipe in a run's folder shows every value. `docs/settings.md` shows the table of
//! this file with its sources. All other defaults are in `settings.rs`.

use std::path::Path;

use crisol_model::{Adapted, Config, load_config};
use crisol_text::{Body, Message, Record, Turns};
use serde::Deserialize;
use toml::{Table, Value};

use crate::PhaseError;
use crate::cost_shape::cost_shape;
use crate::data::DataSource;
use crate::ranges::short;
use crate::reader::{get_dotted, set_dotted};
use crate::recipe::{Phase, Recipe, table_of};
use crate::settings::PhaseSettings;

/// A default that depends on model size: a power law between two sizes, constant beyond them.
struct SizeDefault {
    kind: &'static str,
    start: Start,
    name: &'static str,
    /// Parameters, and the default at this size.
    small: (f64, f64),
    large: (f64, f64),
}

/// Starting model that a default is for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// A new model.
    New,
    /// A trained one.
    Trained,
    /// Either.
    Any,
}

const fn row(
    kind: &'static str,
    start: Start,
    name: &'static str,
    small: (f64, f64),
    large: (f64, f64),
) -> SizeDefault {
    SizeDefault { kind, start, name, small, large }
}

/// Small models, such as the embedded run's, learn at rates that would destroy a large one.
const TABLE: &[SizeDefault] = &[
    // GPT-3's table 2.1 (arXiv:2005.14165: 6e-4 at 125 M, 2e-4 at 1.3 B), llm.c (6e-4 at 124 M).
    row("pretrain", Start::New, "optimizer.lr", (1e6, 3e-3), (1e9, 3e-4)),
    // A tenth: going on at the full rate forgets more (Ibrahim et al. 2024, arXiv:2403.08763).
    row("pretrain", Start::Trained, "optimizer.lr", (1e6, 3e-4), (1e9, 3e-5)),
    // Batches grow with the model (GPT-3's table 2.1), from what suits a small one on a CPU.
    row("pretrain", Start::Any, "batch_tokens", (1e6, 2048.0), (1e9, 65_536.0)),
    // TRL: 2e-5, eight sequences; Tülu 3 (arXiv:2411.15124): 5e-6 at 8 B.
    row("sft", Start::Any, "optimizer.lr", (1e6, 4e-4), (1e8, 2e-5)),
    row("sft", Start::Any, "batch_tokens", (1e6, 1024.0), (1e8, 2048.0)),
    row("reason", Start::Any, "cold_start.optimizer.lr", (1e6, 4e-4), (1e8, 2e-5)),
    row("reason", Start::Any, "cold_start.batch_tokens", (1e6, 1024.0), (1e8, 2048.0)),
    // TRL and DeepSeekMath (arXiv:2402.03300): 1e-6.
    row("reason", Start::Any, "optimizer.lr", (1e6, 5e-4), (1e8, 1e-6)),
    // InstructGPT (arXiv:2203.02155): 9e-6.
    row("reward", Start::Any, "optimizer.lr", (1e6, 5e-4), (1e8, 1e-5)),
    // Huang et al. 2024 (arXiv:2403.17031): 3e-6, Tülu 3: 3e-7; the value model as the reward
    // model.
    row("ppo", Start::Any, "optimizer.lr", (1e6, 3e-4), (1e8, 1e-6)),
    row("ppo", Start::Any, "value_optimizer.lr", (1e6, 5e-4), (1e8, 1e-5)),
    // Rafailov et al. 2023 (arXiv:2305.18290) and TRL: 1e-6; Zephyr (arXiv:2310.16944), Tülu 3:
    // 5e-7.
    row("dpo", Start::Any, "optimizer.lr", (1e6, 5e-5), (1e8, 1e-6)),
];

/// The setting whose default depends on data and context.
const MAX_NEW_TOKENS: &str = "rollout.max_new_tokens";
/// Its default, in median answer lengths of the data.
const MEDIAN_LENGTHS: usize = 4;
/// Minimum of its default, where the context allows it.
const MIN_NEW_TOKENS: usize = 256;
/// Learning rates of adapters, in those of full fine-tuning (Schulman et al. 2025, LoRA Without
/// Regret, <https://thinkingmachines.ai/blog/lora>).
const ADAPTER_LR_FACTOR: f64 = 10.0;
/// A learning rate gives a warning above this many times its default.
const LR_WARNING_FACTOR: f64 = 10.0;

impl Recipe {
    /// Fills in the settings that the recipe left out, and returns a line for each phase that says
    /// which. Paths of the recipe must be those of its files.
    pub fn resolve(&mut self) -> Result<Vec<String>, PhaseError> {
        if self.phases.iter().all(|phase| phase.unresolved.is_empty()) {
            return Ok(Vec::new());
        }
        let config = self.model_config()?;
        let data = self.run.data_source();
        let mut lines = Vec::new();
        for phase in &mut self.phases {
            let start = start_of(phase, &self.run.base);
            let kind = phase.settings.kind();
            let mut table = table_of(&phase.settings);
            let mut filled_in = Vec::new();
            for name in std::mem::take(&mut phase.unresolved) {
                let row = TABLE.iter().find(|row| row.name == name && row.applies(kind, start));
                let value = match row {
                    Some(row) => row.at(parameters(&config), config.adapter.is_some()),
                    None => max_new_tokens(&phase.settings, &config, &data)? as f64,
                };
                if !is_unused(&phase.settings, name) {
                    filled_in.push(format!("{name} {}", short(value)));
                }
                set_number(&mut table, name, value);
            }
            phase.settings = PhaseSettings::deserialize(Value::Table(table))
                .unwrap_or_else(|e| unreachable!("the table was made from such settings: {e}"));
            if !filled_in.is_empty() {
                lines.push(format!(
                    "{}: {} (defaults for {} of {})",
                    phase.name,
                    filled_in.join(", "),
                    describe(start, &config),
                    parameter_count(&config)
                ));
            }
        }
        Ok(lines)
    }

    /// As [`Recipe::resolve`], without the lines.
    pub(crate) fn resolved(mut self) -> Result<Recipe, PhaseError> {
        self.resolve()?;
        Ok(self)
    }

    /// The configuration of all phases' models.
    pub(crate) fn model_config(&self) -> Result<Config, PhaseError> {
        let base = self.run.base.as_str();
        if base.is_empty() {
            return self.run.model.config(self.run.model.vocab_size);
        }
        let mut config = load_config(Path::new(base))?;
        if config.max_document_len() < 2 {
            return Err(PhaseError::NoContext { base: base.into() });
        }
        if config.adapter.is_none() {
            config.adapter = self.run.adapter.config().map(|config| Adapted {
                config,
                base: base.into(),
                fingerprint: String::new(),
            });
        }
        Ok(config)
    }
}

/// Names of a phase kind's settings whose defaults are in this file.
pub(crate) fn resolved_names(kind: &str) -> impl Iterator<Item = &'static str> {
    let rows = TABLE.iter().filter(|row| row.applies(kind, Start::Any));
    let mut names: Vec<&str> = rows.map(|row| row.name).collect();
    names.extend(["reason", "ppo"].contains(&kind).then_some(MAX_NEW_TOKENS));
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

/// Warnings for a phase's learning rates far above their defaults.
pub(crate) fn lr_warnings(phase: &Phase, base: &str, config: &Config) -> Vec<String> {
    let start = start_of(phase, base);
    let table = table_of(&phase.settings);
    let rates = TABLE.iter().filter(|row| row.is_lr() && row.applies(phase.settings.kind(), start));
    rates
        .filter(|row| !is_unused(&phase.settings, row.name))
        .filter_map(|row| {
            let lr = get_dotted(&table, row.name)?.as_float()?;
            let default = row.at(parameters(config), config.adapter.is_some());
            (lr > LR_WARNING_FACTOR * default).then(|| {
                format!(
                    "{} {} is {:.0} times the default for {} of {} ({}): \
                     what the model knows may be lost; lower it if the loss rises",
                    row.name,
                    short(lr),
                    lr / default,
                    describe(start, config),
                    parameter_count(config),
                    short(default)
                )
            })
        })
        .collect()
}

impl SizeDefault {
    fn applies(&self, kind: &str, start: Start) -> bool {
        self.kind == kind
            && (self.start == Start::Any || start == Start::Any || self.start == start)
    }

    fn is_lr(&self) -> bool {
        self.name.ends_with("lr")
    }

    /// The default for a model or an adapter over it: learning rates to two digits, batches as
    /// powers of two.
    fn at(&self, parameters: f64, adapter: bool) -> f64 {
        let share = (parameters / self.small.0).ln() / (self.large.0 / self.small.0).ln();
        let value = self.small.1 * (self.large.1 / self.small.1).powf(share.clamp(0.0, 1.0));
        if self.is_lr() {
            let value = if adapter { ADAPTER_LR_FACTOR * value } else { value };
            // Parsed from its text, so that 2e-5 is 2e-5 to the last bit.
            format!("{value:.1e}").parse().unwrap_or(value)
        } else {
            value.log2().round().exp2()
        }
    }
}

/// Whether a setting belongs to a cold start that is off.
fn is_unused(settings: &PhaseSettings, name: &str) -> bool {
    match settings {
        PhaseSettings::Reason(reason) => {
            name.starts_with("cold_start") && reason.cold_start.data.is_empty()
        }
        _ => false,
    }
}

fn start_of(phase: &Phase, base: &str) -> Start {
    if phase.from.is_empty() && base.is_empty() { Start::New } else { Start::Trained }
}

fn describe(start: Start, config: &Config) -> &'static str {
    match start {
        Start::New => "a new model",
        _ if config.adapter.is_some() => "an adapter",
        _ => "full fine-tuning",
    }
}

fn parameters(config: &Config) -> f64 {
    cost_shape(config).parameters().total()
}

/// `135 M parameters`
fn parameter_count(config: &Config) -> String {
    let count = parameters(config);
    let (unit, name) = match count {
        c if c >= 1e9 => (1e9, " B"),
        c if c >= 1e6 => (1e6, " M"),
        c if c >= 1e3 => (1e3, " k"),
        _ => (1.0, ""),
    };
    let digits = usize::from(count / unit < 10.0 && unit > 1.0);
    format!("{:.digits$}{name} parameters", count / unit)
}

/// Default of `rollout.max_new_tokens`: 4 times the median answer of the data, within half the
/// context.
fn max_new_tokens(
    settings: &PhaseSettings,
    config: &Config,
    data: &DataSource,
) -> Result<usize, PhaseError> {
    let files: [&[String]; 2] = match settings {
        PhaseSettings::Reason(reason) => [&reason.cold_start.data, &reason.data],
        PhaseSettings::Ppo(ppo) => [&ppo.replay.data, &[]],
        _ => [&[], &[]],
    };
    let mut lengths = answer_tokens(data, config, files[0])?;
    lengths.extend(answer_tokens(data, config, files[1])?);
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let wanted = median.saturating_mul(MEDIAN_LENGTHS).max(MIN_NEW_TOKENS);
    Ok(wanted.min(config.max_document_len() / 2).max(1))
}

/// Estimated tokens of each answer in files of problems, conversations and completions.
fn answer_tokens(
    data: &DataSource,
    config: &Config,
    files: &[String],
) -> Result<Vec<usize>, PhaseError> {
    let per_token = characters_per_token(config.vocab_size);
    let characters = |message: &Message| message.content.chars().count();
    let mut tokens = Vec::new();
    for file in files.iter().filter(|file| data.has(file)) {
        let answer = |record: &Record| match &record.body {
            Body::Problem { answer, .. } => Some(answer.chars().count()),
            Body::Chat { messages } => {
                Some(messages.iter().filter(|message| message.is_assistant()).map(characters).sum())
            }
            Body::Completion { completion, .. } => Some(match completion {
                Turns::Plain(text) => text.chars().count(),
                Turns::Chat(messages) => messages.iter().map(characters).sum(),
            }),
            _ => None,
        };
        let characters = data.records(file)?.iter().filter_map(answer).collect::<Vec<usize>>();
        tokens
            .extend(characters.into_iter().map(|count| (count as f64 / per_token).ceil() as usize));
    }
    Ok(tokens)
}

/// Characters of English text per token, linear in the logarithm of the vocabulary: 3.2 for the
/// 2,176 tokens of the embedded run, 4.4 for the 128,256 of Llama 3.
fn characters_per_token(vocab: usize) -> f64 {
    let doublings = (vocab.max(2) as f64 / 2176.0).log2();
    (3.2 + 0.2 * doublings).clamp(1.0, 6.0)
}

/// Sets a number and keeps its type, integer or float.
fn set_number(table: &mut Table, name: &str, value: f64) {
    let value = match get_dotted(table, name) {
        Some(Value::Integer(_)) => Value::Integer(value as i64),
        _ => Value::Float(value),
    };
    set_dotted(table, name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(kind: &str, start: Start, parameters: f64) -> f64 {
        let row = TABLE.iter().find(|row| row.applies(kind, start) && row.is_lr()).unwrap();
        row.at(parameters, false)
    }

    #[test]
    fn learning_rates_follow_published_ones_at_published_sizes() {
        for parameters in [1.35e8, 1e9, 8e9] {
            assert_eq!(rate("sft", Start::Trained, parameters), 2e-5);
            assert_eq!(rate("dpo", Start::Trained, parameters), 1e-6);
            assert_eq!(rate("reward", Start::Trained, parameters), 1e-5);
            assert_eq!(rate("reason", Start::Trained, parameters), 2e-5, "the cold start's");
        }
        // GPT-3's table.
        for (parameters, lr) in [(1.25e8, 6e-4), (3.5e8, 3e-4), (7.6e8, 2.5e-4)] {
            let ours = rate("pretrain", Start::New, parameters);
            assert!((0.5..2.0).contains(&(ours / lr)), "{ours} at {parameters}");
        }
        assert_eq!(
            [rate("pretrain", Start::New, 1e6), rate("pretrain", Start::New, 1e5)],
            [3e-3; 2]
        );
        assert_eq!(rate("pretrain", Start::Trained, 1e9), 3e-5);
    }

    #[test]
    fn every_row_names_a_number() {
        for row in TABLE {
            let table = table_of(&PhaseSettings::default_of(row.kind).unwrap());
            let mut other = table.clone();
            set_number(&mut other, row.name, 3.0);
            assert_ne!(table, other, "{}: {}", row.kind, row.name);
        }
    }

    fn resolved(text: &str) -> (Recipe, Vec<String>) {
        let mut recipe = Recipe::parse("r.toml", text).unwrap();
        let lines = recipe.resolve().unwrap();
        (recipe, lines)
    }

    #[test]
    fn settings_left_out_follow_the_model_and_given_ones_stay() {
        let small =
            "[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"sft\"\nbatch_tokens = 7\n";
        let (recipe, lines) = resolved(small);
        let [PhaseSettings::Pretrain(pretrain), PhaseSettings::Sft(sft)] =
            [&recipe.phases[0].settings, &recipe.phases[1].settings]
        else {
            panic!("kinds")
        };
        assert!((2.5e-3..=3e-3).contains(&pretrain.optimizer.lr), "{pretrain:?}");
        assert!((3e-4..=4e-4).contains(&sft.optimizer.lr) && sft.batch_tokens == 7, "{sft:?}");
        assert!(
            lines[0].contains("a new model") && lines[1].contains("full fine-tuning of 1."),
            "{lines:?}"
        );
        assert!(!lines[1].contains("batch_tokens"), "{lines:?}");
        // Written out and read again, nothing is left to resolve.
        let (again, lines) = resolved(&recipe.to_toml());
        assert_eq!((again, lines.len()), (recipe, 0));
        let large = "[model]\nhidden_size = 768\nlayers = 12\nheads = 12\nkv_heads = 12\n\
                     intermediate_size = 3072\nvocab_size = 50000\ntied_head = false\n";
        let (recipe, _) = resolved(&format!("{large}{small}"));
        let PhaseSettings::Sft(sft) = &recipe.phases[1].settings else { panic!("kind") };
        assert_eq!(sft.optimizer.lr, 2e-5);
    }

    #[test]
    fn only_learning_rates_far_above_the_default_give_a_warning() {
        let warnings = |lr: &str| {
            let text = format!(
                "[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"sft\"\noptimizer.lr = {lr}\n"
            );
            let (recipe, _) = resolved(&text);
            lr_warnings(&recipe.phases[1], "", &recipe.model_config().unwrap())
        };
        assert!(warnings("1e-3").is_empty() && warnings("1e-9").is_empty());
        let warning = warnings("0.02").concat();
        assert!(
            warning.contains("optimizer.lr 0.02 is 5") && warning.contains("1.1 M parameters"),
            "{warning}"
        );
        let embedded = Recipe::embedded();
        let config = embedded.model_config().unwrap();
        for phase in &embedded.phases {
            assert_eq!(lr_warnings(phase, "", &config), Vec::<String>::new(), "{}", phase.name);
        }
    }

    #[test]
    fn larger_vocabularies_have_longer_tokens() {
        assert!((characters_per_token(2176) - 3.2).abs() < 1e-9);
        assert!((4.3..4.5).contains(&characters_per_token(128_256)));
        assert!(characters_per_token(1) >= 1.0 && characters_per_token(usize::MAX) <= 6.0);
    }

    #[test]
    fn answers_may_be_as_long_as_the_context_and_the_data_allow() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, answer: &str| {
            let line = serde_json::json!({"prompt": "How many?", "answer": answer}).to_string();
            std::fs::write(dir.path().join(name), line).unwrap();
        };
        write("short.jsonl", "7");
        write("long.jsonl", &"word ".repeat(400));
        let length = |context: usize, file: &str| {
            let data = dir.path().display();
            let text = format!(
                "data = \"{data}\"\n[model]\ncontext = {context}\n[[phases]]\nkind = \"pretrain\"\n[[phases]]\n\
                 kind = \"reason\"\ndata = \"{file}\"\ncold_start.data = []\n"
            );
            let (recipe, lines) = resolved(&text);
            assert!(!lines[1].contains("cold_start"), "there is none: {lines:?}");
            let PhaseSettings::Reason(reason) = &recipe.phases[1].settings else { panic!("kind") };
            reason.rollout.max_new_tokens
        };
        assert_eq!([length(256, "short.jsonl"), length(4096, "short.jsonl")], [128, 256]);
        assert_eq!([length(4096, "long.jsonl"), length(1024, "absent.jsonl")], [2048, 256]);
        assert!((2000..3000).contains(&length(100_000, "long.jsonl")));
    }
}

//! Defaults that depend on the model: what is usual in the field for its number of parameters. `docs/settings.md` shows the
//! table with its sources. Every other default is in `settings.rs`.
//!
//! A recipe is parsed before its base is known. [`Recipe::resolve`] settles what it left out; the recipe that a run writes
//! shows every value.

use std::path::Path;

use crisol_model::{Config, load_config};
use crisol_text::{Body, Message, Record, Turns};
use toml::{Table, Value};

use crate::PhaseError;
use crate::data::DataSource;
use crate::ranges::short;
use crate::reader::put;
use crate::recipe::{Phase, Recipe, settings_table};
use crate::settings::PhaseSettings;

/// What a phase starts from.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Nothing: a new model.
    New,
    /// A model that there is.
    Trained,
    /// Either.
    Any,
}

/// One default: a power law between two sizes, and constant beyond them.
struct BySize {
    kind: &'static str,
    start: Start,
    name: &'static str,
    /// Parameters and value.
    small: (f64, f64),
    large: (f64, f64),
}

const fn row(
    kind: &'static str,
    start: Start,
    name: &'static str,
    small: (f64, f64),
    large: (f64, f64),
) -> BySize {
    BySize { kind, start, name, small, large }
}

/// Small models, such as the embedded run's, learn at rates that would destroy a large one.
const TABLE: &[BySize] = &[
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
    // Huang et al. 2024 (arXiv:2403.17031): 3e-6, Tülu 3: 3e-7; the value model as the reward model.
    row("ppo", Start::Any, "optimizer.lr", (1e6, 3e-4), (1e8, 1e-6)),
    row("ppo", Start::Any, "value_optimizer.lr", (1e6, 5e-4), (1e8, 1e-5)),
    // Rafailov et al. 2023 (arXiv:2305.18290) and TRL: 1e-6; Zephyr (arXiv:2310.16944), Tülu 3: 5e-7.
    row("dpo", Start::Any, "optimizer.lr", (1e6, 5e-5), (1e8, 1e-6)),
];

/// The setting whose default follows the data and the context.
const ANSWER_LENGTH: &str = "rollout.max_new_tokens";
/// Answers may be this many times as long as those in the data.
const LONGER: usize = 4;
/// And at least so long, where the context allows it.
const MIN_ANSWER: usize = 256;
/// A learning rate that is more than so many times the default is remarked on.
const FAR_OFF: f64 = 10.0;

impl BySize {
    fn is_of(&self, kind: &str, start: Start) -> bool {
        self.kind == kind
            && (self.start == Start::Any || start == Start::Any || self.start == start)
    }

    fn is_rate(&self) -> bool {
        self.name.ends_with("lr")
    }

    /// The value for a model of this many parameters: rates to two digits, batches as powers of two.
    fn at(&self, parameters: f64) -> f64 {
        let share = (parameters / self.small.0).ln() / (self.large.0 / self.small.0).ln();
        let value = self.small.1 * (self.large.1 / self.small.1).powf(share.clamp(0.0, 1.0));
        if self.is_rate() {
            // Parsed from its text, so that 2e-5 is 2e-5 to the last bit.
            format!("{value:.1e}").parse().unwrap_or(value)
        } else {
            value.log2().round().exp2()
        }
    }
}

/// Names of the settings of a kind of phase whose defaults depend on the model.
pub(crate) fn by_size(kind: &str) -> impl Iterator<Item = &'static str> {
    let mut names: Vec<&str> =
        TABLE.iter().filter(|row| row.is_of(kind, Start::Any)).map(|r| r.name).collect();
    names.dedup();
    names.extend(["reason", "ppo"].contains(&kind).then_some(ANSWER_LENGTH));
    names.sort_unstable();
    names.dedup();
    names.into_iter()
}

impl Recipe {
    /// Settles what the recipe leaves to the defaults for its model's size and its data, and says in a line for each phase
    /// what they are. Paths of the recipe must be those of its files.
    pub fn resolve(&mut self) -> Result<Vec<String>, PhaseError> {
        if self.phases.iter().all(|phase| phase.left_out.is_empty()) {
            return Ok(Vec::new());
        }
        let config = self.model_config()?;
        let data = self.run.data_source();
        let mut lines = Vec::new();
        for phase in &mut self.phases {
            let start = start(phase, &self.run.base);
            let mut table = settings_table(&phase.settings);
            let mut said = Vec::new();
            for name in std::mem::take(&mut phase.left_out) {
                let value = match TABLE
                    .iter()
                    .find(|row| row.name == name && row.is_of(phase.settings.kind(), start))
                {
                    Some(row) => row.at(parameters(&config)),
                    None => answer_length(&phase.settings, &config, &data)? as f64,
                };
                if !idle(&phase.settings, name) {
                    said.push(format!("{name} {}", short(value)));
                }
                set(&mut table, name, value);
            }
            phase.settings = PhaseSettings::from_table(phase.settings.kind(), table);
            if !said.is_empty() {
                lines.push(format!(
                    "{}: {} (defaults for {} of {})",
                    phase.name,
                    said.join(", "),
                    what(start),
                    size(&config)
                ));
            }
        }
        Ok(lines)
    }

    /// The recipe with what it leaves out settled ([`Recipe::resolve`]).
    pub(crate) fn resolved(mut self) -> Result<Recipe, PhaseError> {
        self.resolve()?;
        Ok(self)
    }

    /// The shape that all phases' models have.
    pub(crate) fn model_config(&self) -> Result<Config, PhaseError> {
        Ok(match self.run.base.as_str() {
            "" => self.run.model.config(self.run.model.vocab_size)?,
            base => {
                let config = load_config(Path::new(base))?;
                if config.max_document_len() < 2 {
                    return Err(PhaseError::NoContext { base: base.into() });
                }
                config
            }
        })
    }
}

/// What is remarkable about a phase's learning rates: those far above the default for its model.
pub(crate) fn far_off(phase: &Phase, base: &str, config: &Config) -> Vec<String> {
    let start = start(phase, base);
    let table = settings_table(&phase.settings);
    let rates = TABLE.iter().filter(|row| row.is_rate() && row.is_of(phase.settings.kind(), start));
    rates
        .filter(|row| !idle(&phase.settings, row.name))
        .filter_map(|row| {
            let given = get(&table, row.name)?.as_float()?;
            let default = row.at(parameters(config));
            (given > FAR_OFF * default).then(|| {
                format!(
                    "{} {} is {:.0} times the default for {} of {} ({}): what the model knows may be lost; lower it if \
                     the loss rises",
                    row.name,
                    short(given),
                    given / default,
                    what(start),
                    size(config),
                    short(default)
                )
            })
        })
        .collect()
}

/// Whether a setting is of a stage that is left out.
fn idle(settings: &PhaseSettings, name: &str) -> bool {
    match settings {
        PhaseSettings::Reason(reason) => {
            name.starts_with("cold_start") && reason.cold_start.data.is_empty()
        }
        _ => false,
    }
}

fn start(phase: &Phase, base: &str) -> Start {
    if phase.from.is_empty() && base.is_empty() { Start::New } else { Start::Trained }
}

fn what(start: Start) -> &'static str {
    match start {
        Start::New => "a new model",
        _ => "full fine-tuning",
    }
}

fn parameters(config: &Config) -> f64 {
    config.cost_shape().parameters().total()
}

/// `135 M parameters`
fn size(config: &Config) -> String {
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

/// Tokens that a sampled answer may have: some times as many as the answers in the data, within half the context.
fn answer_length(
    settings: &PhaseSettings,
    config: &Config,
    data: &DataSource,
) -> Result<usize, PhaseError> {
    let (answers, shown) = match settings {
        PhaseSettings::Reason(reason) => (&reason.data[..], &reason.cold_start.data),
        PhaseSettings::Ppo(ppo) => (&[][..], &ppo.replay.data),
        _ => (&[][..], &Vec::new()),
    };
    let mut lengths = answer_tokens(data, config, shown)?;
    lengths.extend(answer_tokens(data, config, answers)?);
    lengths.sort_unstable();
    let median = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let wanted = median.saturating_mul(LONGER).max(MIN_ANSWER);
    Ok(wanted.min(config.max_document_len() / 2).max(1))
}

/// Characters of English text that a token of a vocabulary stands for: 3.2 for the 2,176 tokens of the embedded run, 4.4 for the
/// 128,256 of Llama 3, and as many more or less for every doubling.
fn characters_per_token(vocab: usize) -> f64 {
    let doublings = (vocab.max(2) as f64 / 2176.0).log2();
    (3.2 + 0.2 * doublings).clamp(1.0, 6.0)
}

/// Tokens of each answer that some files hold: of problems, conversations and completions.
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

fn get<'t>(table: &'t Table, name: &str) -> Option<&'t Value> {
    match name.split_once('.') {
        Some((first, rest)) => get(table.get(first)?.as_table()?, rest),
        None => table.get(name),
    }
}

/// Sets a number, of the type that it has.
fn set(table: &mut Table, name: &str, value: f64) {
    let value = match get(table, name) {
        Some(Value::Integer(_)) => Value::Integer(value as i64),
        _ => Value::Float(value),
    };
    put(table, name, value);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(kind: &str, start: Start, parameters: f64) -> f64 {
        let row = TABLE.iter().find(|row| row.is_of(kind, start) && row.is_rate()).unwrap();
        row.at(parameters)
    }

    #[test]
    fn rates_are_the_fields_for_models_of_its_sizes() {
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
            let table = settings_table(&PhaseSettings::default_of(row.kind).unwrap());
            let mut other = table.clone();
            set(&mut other, row.name, 3.0);
            assert_ne!(table, other, "{}: {}", row.kind, row.name);
        }
    }

    fn resolved(text: &str) -> (Recipe, Vec<String>) {
        let mut recipe = Recipe::parse("r.toml", text).unwrap();
        let lines = recipe.resolve().unwrap();
        (recipe, lines)
    }

    #[test]
    fn what_is_left_out_follows_the_model_and_what_is_given_stays() {
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
        // Written out and read again, nothing is left to settle.
        let (again, lines) = resolved(&recipe.to_toml());
        assert_eq!((again, lines.len()), (recipe, 0));
        let large = "[model]\nhidden_size = 768\nlayers = 12\nheads = 12\nkv_heads = 12\n\
                     intermediate_size = 3072\nvocab_size = 50000\ntied_head = false\n";
        let (recipe, _) = resolved(&format!("{large}{small}"));
        let PhaseSettings::Sft(sft) = &recipe.phases[1].settings else { panic!("kind") };
        assert_eq!(sft.optimizer.lr, 2e-5);
    }

    #[test]
    fn only_rates_far_above_the_default_are_remarked_on() {
        let remarks = |lr: &str| {
            let text = format!(
                "[[phases]]\nkind = \"pretrain\"\n[[phases]]\nkind = \"sft\"\noptimizer.lr = {lr}\n"
            );
            let (recipe, _) = resolved(&text);
            far_off(&recipe.phases[1], "", &recipe.model_config().unwrap())
        };
        assert!(remarks("1e-3").is_empty() && remarks("1e-9").is_empty());
        let said = remarks("0.02").concat();
        assert!(
            said.contains("optimizer.lr 0.02 is 5") && said.contains("1.1 M parameters"),
            "{said}"
        );
        let embedded = Recipe::embedded();
        let config = embedded.model_config().unwrap();
        for phase in &embedded.phases {
            assert_eq!(far_off(phase, "", &config), Vec::<String>::new(), "{}", phase.name);
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

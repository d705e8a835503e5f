//! `crisol info`: what a model is, from its files' headers.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;
use crisol_model::{
    AdapterConfig, AdapterFiles, GgufAdapter, Head, ModelFiles, WeightSummary, skipped_tensors,
};
use crisol_report::prefixed;
use crisol_text::TextSetup;
use serde::Serialize;
use serde_json::Value;

use crate::console::{named_rows, print, print_json};
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};

const EXAMPLES: &str = "\
Examples:
  crisol info runs/crisol-world/2-sft
  crisol info MODEL.gguf --json
  crisol info runs/tuned/1-sft     an adapter: its base, rank, targets, parameters

Reads headers only, whatever the size of the model.

JSON: docs/json.md";

/// `crisol info`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InfoArgs {
    /// Model: a folder, a GGUF file, or ORG/NAME on a hub
    model: PathBuf,
    #[command(flatten)]
    network: Network,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Info {
    path: String,
    format: &'static str,
    architecture: String,
    parameters: Parameters,
    /// By element type, as in the files.
    stored: Vec<DtypeTotal>,
    memory: Memory,
    /// Most tokens of a document.
    context: usize,
    vocab_size: usize,
    hidden_size: usize,
    intermediate_size: usize,
    layers: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    tied_head: bool,
    /// Routed ones; null for dense models.
    experts: Option<Experts>,
    rope: Value,
    /// Null for a model without one.
    tokenizer: Option<Tokenizer>,
    special_tokens: SpecialTokens,
    /// Null for a model without one.
    chat_template: Option<Template>,
    left_out: Vec<String>,
}

#[derive(Serialize)]
struct Parameters {
    total: u64,
    active: u64,
}

#[derive(Serialize)]
struct DtypeTotal {
    dtype: String,
    tensors: usize,
    bytes: u64,
}

#[derive(Serialize)]
struct Memory {
    weights_bytes: u64,
    cache_bytes_per_token: u64,
    training_bytes: u64,
}

#[derive(Serialize)]
struct Experts {
    per_layer: usize,
    per_token: usize,
}

#[derive(Serialize)]
struct Tokenizer {
    kind: &'static str,
    vocab_size: usize,
    /// What is put before a plain text.
    adds_bos: bool,
}

#[derive(Serialize)]
struct SpecialTokens {
    bos: Option<Token>,
    eos: Option<Token>,
    pad: Option<Token>,
    unk: Option<Token>,
    /// Generation ends with any of these.
    stop: Vec<Token>,
}

#[derive(Serialize)]
struct Token {
    id: u32,
    /// Null for a model without tokenizer.
    text: Option<String>,
}

#[derive(Serialize)]
struct Template {
    /// Whether it says itself what of a conversation is the assistant's.
    marks_generation: bool,
}

impl InfoArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let path = check_folder(&locate(&self.model, Need::Whole, self.network)?)?;
        let adapter = match GgufAdapter::open(&path)? {
            Some(adapter) => Some(AdapterInfo::of_gguf(&path, &adapter)),
            None => AdapterFiles::open(&path)?.map(|files| AdapterInfo::of(&path, &files)),
        };
        if let Some(info) = adapter {
            return if self.json { print_json(&info) } else { print(named_rows(&info.rows())) };
        }
        let info = Info::of(&path)?;
        if self.json { print_json(&info) } else { print(named_rows(&info.rows())) }
    }
}

impl Info {
    fn of(path: &Path) -> Result<Info, CliError> {
        const F32: u64 = 4;
        let files = ModelFiles::open(path)?;
        let (config, text) = (files.config(), files.text()?);
        let (total, active) = files.parameters();
        let stored = dtype_totals(files.weight_summary());
        Ok(Info {
            path: path.display().to_string(),
            format: files.format(),
            architecture: config.class(),
            parameters: Parameters { total, active },
            memory: Memory {
                weights_bytes: files.inference_bytes()?,
                cache_bytes_per_token: F32 * config.cached_per_token() as u64,
                training_bytes: 4 * F32 * total,
            },
            stored,
            context: config.max_document_len(),
            vocab_size: config.vocab_size,
            hidden_size: config.hidden_size,
            intermediate_size: config.intermediate_size,
            layers: config.num_hidden_layers,
            heads: config.num_attention_heads,
            kv_heads: config.num_key_value_heads,
            head_dim: config.head_dim,
            tied_head: config.head == Head::Language { tied: true },
            experts: config
                .routed_experts()
                .map(|(per_layer, per_token)| Experts { per_layer, per_token }),
            rope: config.rope_parameters(),
            tokenizer: text.as_ref().map(|text| Tokenizer {
                kind: text.tokenizer.kind(),
                vocab_size: text.tokenizer.vocab_size(),
                adds_bos: text.tokenizer.prepended_token().is_some(),
            }),
            special_tokens: special_tokens(&files, text.as_ref()),
            chat_template: text
                .and_then(|text| text.template)
                .map(|template| Template { marks_generation: template.marks_generation() }),
            left_out: skipped_tensors(path)?,
        })
    }

    /// Rows of a name and what is to be said.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let bytes = |bytes: u64| prefixed(bytes as f64, "B");
        let Parameters { total, active } = self.parameters;
        let mut parameters = prefixed(total as f64, "");
        if active != total {
            let _ = write!(
                parameters,
                ", of which {} take part in each token",
                prefixed(active as f64, "")
            );
        }
        let stored = stored(&self.stored, self.format);
        let Memory { weights_bytes, cache_bytes_per_token: cache, training_bytes } = self.memory;
        let full = cache * self.context as u64;
        let mut shape = format!(
            "{} layers, width {} (feed-forward {}), {} heads of {}, {} of keys and values",
            self.layers,
            self.hidden_size,
            self.intermediate_size,
            self.heads,
            self.head_dim,
            self.kv_heads
        );
        if let Some(Experts { per_layer, per_token }) = self.experts {
            let _ = write!(shape, "; {per_layer} experts, {per_token} for each token");
        }
        let tied = if self.tied_head { ", output tied to the embedding" } else { "" };
        let mut rows = vec![
            ("architecture", self.architecture.clone()),
            ("parameters", parameters),
            ("stored", stored),
            (
                "to generate",
                format!(
                    "{} of memory, and {} for each token of context (all of it: {})",
                    bytes(weights_bytes),
                    bytes(cache),
                    bytes(full)
                ),
            ),
            (
                "to train",
                format!(
                    "{} (weights, gradients, AdamW's moments), and activations",
                    bytes(training_bytes)
                ),
            ),
            ("shape", shape),
            ("context", format!("{} tokens", self.context)),
            ("vocabulary", format!("{} tokens{tied}", self.vocab_size)),
            ("rope", rope(&self.rope)),
            (
                "tokenizer",
                self.tokenizer.as_ref().map_or(
                    "none".into(),
                    |Tokenizer { kind, vocab_size, adds_bos }| {
                        let bos = if *adds_bos { ", puts bos before a text" } else { "" };
                        format!("{kind}, {vocab_size} tokens{bos}")
                    },
                ),
            ),
        ];
        let SpecialTokens { bos, eos, pad, unk, stop } = &self.special_tokens;
        for (name, token) in [("bos", bos), ("eos", eos), ("pad", pad), ("unk", unk)] {
            rows.extend(token.as_ref().map(|token| (name, token.shown())));
        }
        rows.push(("stops at", stop.iter().map(Token::shown).collect::<Vec<_>>().join(", ")));
        let template = match &self.chat_template {
            None => "none",
            Some(Template { marks_generation: true }) => "marks what the assistant says",
            Some(_) => {
                "does not mark what the assistant says, which is found by rendering prefixes"
            }
        };
        rows.push(("chat template", template.into()));
        rows.extend(self.left_out.iter().map(|note| ("left out", note.clone())));
        rows
    }
}

/// An adapter's folder or GGUF file.
#[derive(Serialize)]
struct AdapterInfo {
    path: String,
    format: &'static str,
    /// Class of the base; in a GGUF file, llama.cpp's name of it.
    architecture: String,
    /// Null for a GGUF file, which does not say.
    base: Option<String>,
    rank: usize,
    alpha: f64,
    rslora: bool,
    dora: bool,
    dropout: f64,
    rank_pattern: BTreeMap<String, usize>,
    alpha_pattern: BTreeMap<String, f64>,
    targets: Vec<String>,
    /// Number of layers with an adapter.
    modules: usize,
    /// Tensors that are trained whole.
    whole: Vec<String>,
    parameters: u64,
    stored: Vec<DtypeTotal>,
}

impl AdapterInfo {
    fn of(path: &Path, files: &AdapterFiles) -> AdapterInfo {
        let (adapted, config) = (files.adapted(), files.config());
        AdapterInfo {
            format: "peft",
            architecture: config.class(),
            base: Some(adapted.base.display().to_string()),
            modules: files.modules().len(),
            whole: files.whole().into_iter().map(str::to_owned).collect(),
            parameters: files.parameters(),
            stored: dtype_totals(files.weight_summary()),
            ..AdapterInfo::with_settings(path, adapted.config.clone())
        }
    }

    fn of_gguf(path: &Path, adapter: &GgufAdapter) -> AdapterInfo {
        AdapterInfo {
            format: "gguf",
            architecture: adapter.architecture().to_owned(),
            modules: adapter.tensors(),
            parameters: adapter.parameters(),
            stored: dtype_totals(adapter.weight_summary()),
            ..AdapterInfo::with_settings(path, adapter.config())
        }
    }

    /// What the settings say; the rest is empty.
    fn with_settings(path: &Path, config: AdapterConfig) -> AdapterInfo {
        let AdapterConfig {
            rank,
            alpha,
            rslora,
            targets,
            dropout,
            dora,
            rank_pattern,
            alpha_pattern,
        } = config;
        AdapterInfo {
            path: path.display().to_string(),
            format: "",
            architecture: String::new(),
            base: None,
            rank,
            alpha,
            rslora,
            dora,
            dropout,
            rank_pattern,
            alpha_pattern,
            targets,
            modules: 0,
            whole: vec![],
            parameters: 0,
            stored: vec![],
        }
    }

    /// Rows of a name and what is to be said.
    fn rows(&self) -> Vec<(&'static str, String)> {
        let base = match &self.base {
            None => "not named in the file".into(),
            Some(base) if Path::new(base).exists() => base.clone(),
            Some(base) => format!("{base} (not here)"),
        };
        let kind = if self.dora { "DoRA" } else { "LoRA" };
        let stabilised = if self.rslora { ", rank-stabilised" } else { "" };
        let (rank, alpha) = (self.rank, self.alpha);
        let mut rows = vec![
            ("adapter", format!("{kind} of rank {rank}, alpha {alpha}{stabilised}")),
            ("base", base),
            ("architecture", self.architecture.clone()),
            ("targets", format!("{} ({} layers)", self.targets.join(", "), self.modules)),
        ];
        let ranks = self.rank_pattern.iter().map(|(name, rank)| format!("{name}: {rank}"));
        let alphas = self.alpha_pattern.iter().map(|(name, alpha)| format!("{name}: {alpha}"));
        for (name, own) in [("other ranks", ranks.collect()), ("other alphas", alphas.collect())] {
            let own: Vec<String> = own;
            if !own.is_empty() {
                rows.push((name, own.join(", ")));
            }
        }
        if !self.whole.is_empty() {
            rows.push(("trained whole", self.whole.join(", ")));
        }
        rows.push(("parameters", prefixed(self.parameters as f64, "")));
        let format = if self.format == "gguf" { "gguf" } else { "safetensors" };
        rows.push(("stored", stored(&self.stored, format)));
        rows
    }
}

fn dtype_totals(summary: Vec<WeightSummary>) -> Vec<DtypeTotal> {
    let total = |WeightSummary { dtype, tensors, bytes }| DtypeTotal { dtype, tensors, bytes };
    summary.into_iter().map(total).collect()
}

/// Bytes of a format, by element type.
fn stored(totals: &[DtypeTotal], format: &str) -> String {
    let bytes = |bytes: u64| prefixed(bytes as f64, "B");
    let all = totals.iter().map(|stored| stored.bytes).sum();
    let each = totals.iter().map(|DtypeTotal { dtype, tensors, bytes: size }| {
        format!("{dtype} {} ({tensors} tensors)", bytes(*size))
    });
    format!("{} of {format}: {}", bytes(all), each.collect::<Vec<_>>().join(", "))
}

impl Token {
    fn shown(&self) -> String {
        match &self.text {
            Some(text) => format!("{} {text:?}", self.id),
            None => self.id.to_string(),
        }
    }
}

/// Type and numbers, as in `config.json`.
fn rope(parameters: &Value) -> String {
    let numbers = parameters.as_object().into_iter().flatten();
    let shown = numbers.map(|(name, value)| match value {
        Value::String(kind) => kind.clone(),
        value => format!("{name} {value}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

fn special_tokens(files: &ModelFiles, text: Option<&TextSetup>) -> SpecialTokens {
    let config = files.config();
    let token = |id: u32| Token { id, text: text.and_then(|text| text.tokenizer.token(id)) };
    let named = |name: &str| text.and_then(|text| text.named_token(name));
    SpecialTokens {
        bos: named("bos_token").or(config.bos_token_id).map(token),
        eos: text.map(|text| text.eos).or(config.eos_token_id.first().copied()).map(token),
        pad: named("pad_token").or(config.pad_token_id).map(token),
        unk: named("unk_token").map(token),
        stop: text
            .map_or(&config.eos_token_id, |text| &text.stop_ids)
            .iter()
            .copied()
            .map(token)
            .collect(),
    }
}

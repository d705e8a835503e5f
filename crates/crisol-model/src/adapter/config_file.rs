//! `adapter_config.json`, in PEFT's form.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crisol_hub::HubError;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{AdapterConfig, CONFIG_FILE};
use crate::ModelError;

/// `adapter_config.json`, as PEFT writes it. Fields that are missing have PEFT's defaults.
#[derive(Debug, Serialize, Deserialize)]
#[serde(default)]
#[allow(clippy::struct_excessive_bools, reason = "the fields of PEFT's file")]
pub(super) struct ConfigFile {
    pub(super) peft_type: String,
    pub(super) task_type: String,
    pub(super) base_model_name_or_path: String,
    pub(super) r: usize,
    pub(super) lora_alpha: f64,
    pub(super) lora_dropout: f64,
    pub(super) use_rslora: bool,
    pub(super) use_dora: bool,
    pub(super) bias: String,
    pub(super) fan_in_fan_out: bool,
    pub(super) target_modules: Option<Targets>,
    pub(super) modules_to_save: Option<Vec<String>>,
    pub(super) rank_pattern: BTreeMap<String, usize>,
    pub(super) alpha_pattern: BTreeMap<String, f64>,
    pub(super) inference_mode: bool,
    /// Of the base's weights; PEFT ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base_model_fingerprint: Option<String>,
    /// All others.
    #[serde(flatten)]
    pub(super) others: BTreeMap<String, Value>,
}

/// Fields of PEFT's that change what an adapter computes, unless they are null, false or empty.
const UNSUPPORTED: [&str; 9] = [
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
];

/// Ways of starting an adapter that also change the weights of its base, by their first letters.
const CHANGING: [&str; 5] = ["corda", "loftq", "lora_ga", "olora", "pissa"];

/// Whether a field is set to something.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    }
}

impl Default for ConfigFile {
    fn default() -> Self {
        ConfigFile {
            peft_type: "LORA".into(),
            task_type: "CAUSAL_LM".into(),
            base_model_name_or_path: String::new(),
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            use_rslora: false,
            use_dora: false,
            bias: "none".into(),
            fan_in_fan_out: false,
            target_modules: Some(Targets::List(vec![])),
            modules_to_save: None,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
            inference_mode: true,
            base_model_fingerprint: None,
            others: BTreeMap::new(),
        }
    }
}

/// A list of modules, or one pattern.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Targets {
    List(Vec<String>),
    Pattern(String),
}

impl ConfigFile {
    pub(super) fn read(folder: &Path) -> Result<ConfigFile, ModelError> {
        let file = folder.join(CONFIG_FILE);
        let text = fs::read_to_string(&file).map_err(|e| HubError::io("read", &file, e))?;
        let config: ConfigFile = serde_json::from_str(&text).map_err(|e| {
            ModelError::ConfigFile { file: file.clone(), cause: crisol_hub::json_error(&e) }
        })?;
        let unsupported = [
            (config.peft_type != "LORA", format!("peft_type is {}", config.peft_type)),
            (config.bias != "none", format!("bias is {:?}", config.bias)),
        ];
        let initial = config.others.get("init_lora_weights").and_then(Value::as_str);
        let changed = initial.filter(|name| CHANGING.iter().any(|one| name.starts_with(one)));
        let other = |name: &&&str| config.others.get(**name).is_some_and(is_set);
        let other = UNSUPPORTED.iter().find(other).map(|name| format!("{name} is set"));
        let what = unsupported.into_iter().find_map(|(found, what)| found.then_some(what));
        let changed =
            changed.map(|name| format!("init_lora_weights is {name:?}, a base with other weights"));
        if let Some(what) = what.or(other).or(changed) {
            return Err(ModelError::Adapter {
                file,
                cause: format!("{what}, which is not supported"),
                remedy: "Merge it into its base with PEFT (merge_and_unload) and use that",
            });
        }
        if !(0.0..1.0).contains(&config.lora_dropout) {
            return Err(ModelError::Adapter {
                file,
                cause: format!("lora_dropout is {}", config.lora_dropout),
                remedy: "Write a share from 0 to less than 1 there",
            });
        }
        let alphas = [&config.lora_alpha].into_iter().chain(config.alpha_pattern.values());
        if let Some(alpha) = alphas.copied().find(|alpha| *alpha == 0.0 || !alpha.is_finite()) {
            return Err(ModelError::Adapter {
                file,
                cause: format!("lora_alpha is {alpha}, so that the adapter has no effect"),
                remedy: "Write the alpha there with which it was trained",
            });
        }
        if config.r == 0 {
            return Err(ModelError::Adapter {
                file,
                cause: "r is 0, and a rank is at least 1".into(),
                remedy: "Write the rank there with which it was trained",
            });
        }
        if config.target_modules.is_none() {
            return Err(ModelError::Adapter {
                file,
                cause: "target_modules is null, so that no layer is adapted".into(),
                remedy: "Write the names of the adapted layers there, or \"all-linear\"",
            });
        }
        Ok(config)
    }

    pub(super) fn adapter(&self) -> AdapterConfig {
        AdapterConfig {
            rank: self.r,
            alpha: self.lora_alpha,
            rslora: self.use_rslora,
            dropout: self.lora_dropout,
            dora: self.use_dora,
            targets: match &self.target_modules {
                Some(Targets::List(targets)) => targets.clone(),
                Some(Targets::Pattern(pattern)) => vec![pattern.clone()],
                None => vec![],
            },
            rank_pattern: self.rank_pattern.clone(),
            alpha_pattern: self.alpha_pattern.clone(),
        }
    }
}

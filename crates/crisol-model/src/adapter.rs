//! Low-rank adapters (LoRA; Hu et al. 2021, arXiv:2106.09685) over a frozen model, in folders that
//! PEFT reads and writes:
//!
//! | file | holds |
//! |---|---|
//! | `adapter_config.json` | rank, alpha, targets, the base model's path |
//! | `adapter_model.safetensors` | A and B of each module, and weights trained whole |
//! | `config.json`, tokenizer | the base's, so that the folder describes itself |
//!
//! A tensor is named `base_model.model.<module>.lora_A.weight`, `[rank, in]`, or
//! `….lora_B.weight`, `[out, rank]`.
//!
//! The scale of the update is alpha / rank, or alpha / sqrt(rank) with rank-stabilised LoRA
//! (Kalajdzievski 2023, arXiv:2312.03732). A starts as in PEFT (Kaiming uniform, ±1/sqrt(in)), B
//! with zeros, so a new adapter changes nothing. With DoRA (Liu et al. 2024, arXiv:2402.09353) the
//! norms of the updated weight's rows are trained too, `….lora_magnitude_vector`, `[out]`.

mod config_file;
mod files;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crisol_engine::{Adapter, Device, Init, ParamId, ParamSpec, Params, Role};
use crisol_hub::{FloatType, HubError, Tensor, Tensors, resolve_folder, write_tensors};
use crisol_text::{TOKENIZER_FILES, TextSetup};

pub use self::files::{AdapterFiles, AdapterModule};

use self::config_file::{ConfigFile, Targets};
use crate::checkpoint::{Checkpoint, load_model_for_inference, read_by_rows, write_config};
use crate::files::load_config;
use crate::gguf::GgufAdapter;
use crate::{Config, Head, Model, ModelError};

/// The config of an adapter in its folder.
pub(crate) const CONFIG_FILE: &str = "adapter_config.json";
const WEIGHTS_FILE: &str = "adapter_model.safetensors";
/// Before the name of every tensor in a file.
const PREFIX: &str = "base_model.model.";
/// The last parts of the names of routers, which choose experts: they have no adapter.
const ROUTERS: [&str; 2] = ["gate", "router"];
/// The scalar head of a reward or value model, beside the adapter.
const SCORE: &str = "score.weight";
/// Every linear layer of the blocks but the routers of experts.
pub const ALL_LINEAR: &str = "all-linear";

/// What an adapter is: its rank, its scale, and the weights that it updates.
#[derive(Clone, Debug, PartialEq)]
pub struct AdapterConfig {
    /// Rank of the updates.
    pub rank: usize,
    /// Scale of the updates, before the division by the rank or its root.
    pub alpha: f64,
    /// Whether alpha is divided by the root of the rank.
    pub rslora: bool,
    /// Modules by the end of their names (`q_proj`), or [`ALL_LINEAR`].
    pub targets: Vec<String>,
    /// Share of the adapters' inputs that are dropped in training.
    pub dropout: f64,
    /// Whether the norms of rows are trained by themselves (DoRA).
    pub dora: bool,
    /// Ranks of some modules, by the end of their names. The first that fits counts, in
    /// alphabetical order, as in PEFT's files.
    pub rank_pattern: BTreeMap<String, usize>,
    /// Alphas of some modules, likewise.
    pub alpha_pattern: BTreeMap<String, f64>,
}

impl Default for AdapterConfig {
    /// All linear layers with rank 16 and alpha 32 (Schulman et al. 2025, LoRA Without Regret, for
    /// all layers).
    fn default() -> Self {
        AdapterConfig {
            rank: 16,
            alpha: 32.0,
            rslora: false,
            targets: vec![ALL_LINEAR.into()],
            dropout: 0.0,
            dora: false,
            rank_pattern: BTreeMap::new(),
            alpha_pattern: BTreeMap::new(),
        }
    }
}

/// Whether a module is meant by its whole name or its end, as in PEFT.
fn names(pattern: &str, module: &str) -> bool {
    module.strip_suffix(pattern).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

impl AdapterConfig {
    fn rank_of(&self, module: &str) -> usize {
        let pattern = self.rank_pattern.iter().find(|(pattern, _)| names(pattern, module));
        pattern.map_or(self.rank, |(_, &rank)| rank)
    }

    /// Checks that every pattern means one of these modules, or it would go without effect.
    fn check_patterns<'a>(&self, modules: impl Iterator<Item = &'a str>) -> Result<(), String> {
        let modules: Vec<&str> = modules.collect();
        let mut patterns = self.rank_pattern.keys().chain(self.alpha_pattern.keys());
        let unused = patterns.find(|pattern| !modules.iter().any(|module| names(pattern, module)));
        unused.map_or(Ok(()), |pattern| {
            Err(format!(
                "no module with an adapter is named {pattern:?}, which has its own rank or alpha"
            ))
        })
    }

    /// The factor on `B·A` of a module with an adapter of this rank.
    pub(crate) fn scale(&self, module: &str, rank: usize) -> f64 {
        let pattern = self.alpha_pattern.iter().find(|(pattern, _)| names(pattern, module));
        let alpha = pattern.map_or(self.alpha, |(_, &alpha)| alpha);
        alpha / if self.rslora { (rank as f64).sqrt() } else { rank as f64 }
    }

    /// Parameters of an adapter for a model; 0 if the model cannot have it.
    pub(crate) fn parameters(&self, config: &Config) -> usize {
        let modules = self.modules(&crate::model::specs(config)).unwrap_or_default();
        let norms = |rows: usize| if self.dora { rows } else { 0 };
        let of_module = |(module, [rows, cols]): &(String, [usize; 2])| {
            self.rank_of(module) * (rows + cols) + norms(*rows)
        };
        modules.iter().map(of_module).sum()
    }

    /// The modules of a model that are adapted, with the shapes of their weights.
    fn modules(&self, specs: &[ParamSpec]) -> Result<Vec<(String, [usize; 2])>, String> {
        let mut modules = Vec::new();
        let mut unused: Vec<&String> = self.targets.iter().collect();
        let mut linear = Vec::new();
        for spec in specs {
            let (Some(module), &[rows, cols]) =
                (spec.name.strip_suffix(".weight"), &spec.shape[..])
            else {
                continue;
            };
            let last = last_part(module);
            let in_block = spec.role == Role::Hidden && !ROUTERS.contains(&last);
            if in_block {
                linear.push(last);
            }
            let meant = |target: &str| match target {
                ALL_LINEAR => in_block,
                target => names(target, module),
            };
            if !self.targets.iter().any(|target| meant(target)) {
                continue;
            }
            unused.retain(|target| !meant(target));
            if !in_block {
                return Err(format!(
                    "{module} is an embedding table, a head or a router, which has no adapter; \
                     leave it out of the targets"
                ));
            }
            let rank = self.rank_of(module);
            if rank == 0 || rank > rows.min(cols) {
                return Err(format!(
                    "rank {rank} for {module}, a matrix of {rows}×{cols}; \
                     choose a rank between 1 and {}",
                    rows.min(cols)
                ));
            }
            modules.push((module.to_owned(), [rows, cols]));
        }
        linear.sort_unstable();
        linear.dedup();
        match unused.first() {
            None if self.targets.is_empty() => Err("there are no targets".into()),
            None => {
                self.check_patterns(modules.iter().map(|(module, _)| module.as_str()))?;
                Ok(modules)
            }
            Some(target) => Err(format!(
                "no module is named {target:?}; the model's linear layers are {}, \
                 all together {ALL_LINEAR:?}",
                linear.join(", ")
            )),
        }
    }
}

/// `q_proj` of `model.layers.0.self_attn.q_proj`.
pub(crate) fn last_part(module: &str) -> &str {
    module.rsplit('.').next().unwrap_or(module)
}

/// The end of the name of a module's norms (DoRA).
const MAGNITUDE: &str = ".lora_magnitude_vector";

/// The specs of a module's A and B, and of its norms with DoRA.
fn module_specs(
    module: &str,
    [rows, cols]: [usize; 2],
    config: &AdapterConfig,
) -> impl Iterator<Item = ParamSpec> {
    let bound = 1.0 / (cols as f32).sqrt();
    let rank = config.rank_of(module);
    let matrix = |part: &str, shape: [usize; 2], init| ParamSpec {
        name: format!("{module}.lora_{part}.weight"),
        shape: shape.to_vec(),
        init,
        role: Role::Hidden,
    };
    let norms = ParamSpec {
        name: format!("{module}{MAGNITUDE}"),
        shape: vec![rows],
        // Overwritten by the base's.
        init: Init::Ones,
        role: Role::Vector,
    };
    let both =
        [matrix("A", [rank, cols], Init::Uniform(bound)), matrix("B", [rows, rank], Init::Zeros)];
    both.into_iter().chain(config.dora.then_some(norms))
}

/// An adapter in use.
#[derive(Clone, Debug, PartialEq)]
pub struct Adapted {
    /// Rank, scale and targets.
    pub config: AdapterConfig,
    /// Folder or file of the base.
    pub base: PathBuf,
    /// Fingerprint of the base's weights.
    pub fingerprint: String,
}

impl Adapted {
    /// The adapter that a folder holds, if it is one's.
    pub(crate) fn of_folder(folder: &Path) -> Result<Option<Adapted>, ModelError> {
        if !is_adapter(folder) {
            return Ok(None);
        }
        let file = ConfigFile::read(folder)?;
        Ok(Some(Adapted {
            config: file.adapter(),
            base: base_of(folder).unwrap_or_else(|_| file.base_model_name_or_path.into()),
            fingerprint: file.base_model_fingerprint.unwrap_or_default(),
        }))
    }
}

/// Whether a folder holds an adapter instead of a model.
pub(crate) fn is_adapter(folder: &Path) -> bool {
    folder.join(CONFIG_FILE).is_file()
}

impl Checkpoint {
    /// Puts a new adapter over the model, which becomes its frozen base. `base`: where the model
    /// was loaded from.
    pub fn adapt(
        self,
        base: &Path,
        config: AdapterConfig,
        seed: u64,
    ) -> Result<Checkpoint, ModelError> {
        let modules = config.modules(self.params.specs()).map_err(ModelError::AdapterSettings)?;
        let new = modules
            .iter()
            .flat_map(|(module, shape)| module_specs(module, *shape, &config))
            .collect();
        crate::weights::check_params(base, &self.params)?;
        let fingerprint = fingerprint(&self.params);
        let base_params = Arc::new(self.params);
        let mut params = Params::over(&base_params, new, seed);
        connect(&mut params, &config);
        for id in params.ids() {
            let weight = params.spec(id).name.strip_suffix(MAGNITUDE);
            if let Some(weight) = weight.and_then(|name| params.id(&format!("{name}.weight"))) {
                let norms = params.row_norms(weight);
                params.write(id, &norms);
            }
        }
        let base = std::path::absolute(base).unwrap_or_else(|_| base.to_owned());
        let adapted = Adapted { config, base, fingerprint };
        let config = Config { adapter: Some(adapted), ..self.model.config().clone() };
        Ok(Checkpoint { model: Model::bind(config, &params), params, text: self.text })
    }

    /// Loads the adapter of a folder or a GGUF file over this model, its base.
    pub fn with_adapter(self, base: &Path, folder: &Path) -> Result<Checkpoint, ModelError> {
        let (model, params) = with_adapter(&self.model, self.params, base, folder)?;
        let text = if has_tokenizer(folder) { TextSetup::load(folder)? } else { self.text };
        Ok(Checkpoint { model, params, text })
    }

    /// Loads an adapter folder with the base that its config names.
    pub(crate) fn load_adapter(folder: &Path, device: &Device) -> Result<Checkpoint, ModelError> {
        let base = base_of(folder)?;
        refuse(&base)?;
        Checkpoint::load_for_inference(&base, device)?.with_adapter(&base, folder)
    }

    /// Loads an adapter folder beside `other`, over the same base in memory if it is the same.
    pub fn load_beside(
        other: &Checkpoint,
        folder: &Path,
        device: &Device,
    ) -> Result<Checkpoint, ModelError> {
        let folder = &resolve_folder(folder)?;
        if let (true, Some(shared), Some(adapted)) =
            (is_adapter(folder), other.params.base(), &other.model.config().adapter)
        {
            let same =
                |base: &PathBuf| base.canonicalize().ok() == adapted.base.canonicalize().ok();
            if base_of(folder).is_ok_and(|base| same(&base)) {
                let Adapted { base, fingerprint, .. } = adapted;
                let (model, params) =
                    load_over(shared, other.model.config(), base, fingerprint, folder)?;
                let text = if has_tokenizer(folder) {
                    TextSetup::load(folder)?
                } else {
                    other.text.clone()
                };
                return Ok(Checkpoint { model, params, text });
            }
        }
        Checkpoint::load(folder, device)
    }

    /// The model with its adapter merged into plain f32 weights. Without an adapter, unchanged.
    #[must_use]
    pub fn merged(self) -> Checkpoint {
        let Checkpoint { model, params, text } = self;
        let Some(base) = params.base() else { return Checkpoint { model, params, text } };
        let config = Config { adapter: None, ..model.config().clone() };
        let mut merged = Params::zeros(base.device(), crate::model::specs(&config));
        for id in merged.ids() {
            let name = &merged.spec(id).name;
            let source = params.id(name).unwrap_or_else(|| panic!("no weight {name}"));
            let values = params.merged(source);
            merged.write(id, &values);
        }
        Checkpoint { model: Model::bind(config, &merged), params: merged, text }
    }
}

/// Loads the adapter of a folder or a GGUF file over a model, its base. `base`: where the model was
/// loaded from.
pub fn with_adapter(
    model: &Model,
    params: Params,
    base: &Path,
    folder: &Path,
) -> Result<(Model, Params), ModelError> {
    let gguf = GgufAdapter::open(folder)?;
    if gguf.is_none() && !is_adapter(folder) {
        let (file, cause) = if folder.is_file() {
            (folder.to_owned(), "the file holds a whole model, and an adapter is needed")
        } else {
            (folder.join(CONFIG_FILE), "there is no such file, so the folder holds no adapter")
        };
        return Err(ModelError::Adapter {
            file,
            cause: cause.into(),
            remedy: "Give the folder or the GGUF file of an adapter",
        });
    }
    if params.base().is_some() {
        return Err(ModelError::Adapter {
            file: base.join(CONFIG_FILE),
            cause: "the base is an adapter itself".into(),
            remedy: "Give the model below it, or merge both (crisol merge BASE ADAPTER --out DIR)",
        });
    }
    let params = Arc::new(params);
    let fingerprint = fingerprint(&params);
    match gguf {
        Some(file) => load_gguf_over(&params, model.config(), base, fingerprint, folder, &file),
        None => load_over(&params, model.config(), base, &fingerprint, folder),
    }
}

/// The adapter of a GGUF file over a base.
fn load_gguf_over(
    base_params: &Arc<Params>,
    base_config: &Config,
    base: &Path,
    fingerprint: String,
    file: &Path,
    adapter: &GgufAdapter,
) -> Result<(Model, Params), ModelError> {
    let (config, parts) = adapter.over(base_config)?;
    let new = parts.values().map(|part| part.spec.clone()).collect();
    let adapted = Adapted { config, base: base.to_owned(), fingerprint };
    let read = |spec: &ParamSpec| adapter.read(&parts[&spec.name]);
    let config = Config { adapter: Some(adapted), ..base_config.clone() };
    fill(base_params, config, new, file, &read)
}

/// The model of this config over a base, with the overlay's tensors from `file`.
fn fill(
    base: &Arc<Params>,
    config: Config,
    new: Vec<ParamSpec>,
    file: &Path,
    read: &dyn Fn(&ParamSpec) -> Result<Vec<f32>, HubError>,
) -> Result<(Model, Params), ModelError> {
    let mut params = Params::over(base, new, 0);
    if let Some(adapted) = &config.adapter {
        connect(&mut params, &adapted.config);
    }
    for id in params.ids() {
        let spec = params.spec(id).clone();
        let values = read(&spec)?;
        crate::weights::check_finite(file, &spec.name, &values)?;
        params.write(id, &values);
    }
    Ok((Model::bind(config, &params), params))
}

/// Loads config and weights of an adapter folder with the base that its config names.
pub(crate) fn load_model(folder: &Path, device: &Device) -> Result<(Model, Params), ModelError> {
    let base = base_of(folder)?;
    refuse(&base)?;
    let (model, params) = load_model_for_inference(&base, device)?;
    with_adapter(&model, params, &base, folder)
}

/// Shape and adapter of a folder: that of its `config.json`, or of its base if it has none.
pub(crate) fn config_of(folder: &Path) -> Result<Config, ModelError> {
    let own = folder.join("config.json");
    let config =
        if own.is_file() { Config::load_file(&own)? } else { load_config(&base_of(folder)?)? };
    Ok(Config { adapter: Adapted::of_folder(folder)?, ..config })
}

/// The folder or file with an adapter's tokenizer: its own, or its base.
pub(crate) fn text_source(folder: &Path) -> Result<PathBuf, ModelError> {
    if has_tokenizer(folder) { Ok(folder.to_owned()) } else { base_of(folder) }
}

fn has_tokenizer(folder: &Path) -> bool {
    TOKENIZER_FILES.iter().any(|file| folder.join(file).exists())
}

/// Refuses an adapter where a whole model is needed.
pub(crate) fn refuse(folder: &Path) -> Result<(), ModelError> {
    if !is_adapter(folder) {
        return Ok(());
    }
    Err(ModelError::Adapter {
        file: folder.join(CONFIG_FILE),
        cause: "the folder holds an adapter, and a whole model is needed".into(),
        remedy: "Merge it into its base first (crisol merge BASE ADAPTER --out DIR)",
    })
}

/// The base that an adapter's config names: a path, from here or from beside the adapter.
fn base_of(folder: &Path) -> Result<PathBuf, ModelError> {
    let named = PathBuf::from(ConfigFile::read(folder)?.base_model_name_or_path);
    let beside = folder.parent().map(|parent| parent.join(&named));
    [Some(named.clone()), beside].into_iter().flatten().find(|path| path.exists()).ok_or_else(
        || ModelError::Adapter {
            file: folder.join(CONFIG_FILE),
            cause: format!("its base model, {}, is not here", named.display()),
            remedy: "Put the base there, or merge both (crisol merge BASE ADAPTER --out DIR)",
        },
    )
}

/// An adapter's tensor files, read over a base.
fn load_over(
    base_params: &Arc<Params>,
    base_config: &Config,
    base: &Path,
    fingerprint: &str,
    folder: &Path,
) -> Result<(Model, Params), ModelError> {
    let file = ConfigFile::read(folder)?;
    let refuse = |cause: String, remedy| ModelError::Adapter {
        file: folder.join(CONFIG_FILE),
        cause,
        remedy,
    };
    if file.base_model_fingerprint.as_deref().is_some_and(|trained| trained != fingerprint) {
        let cause = format!(
            "the adapter was trained over {}, and {} has other weights",
            file.base_model_name_or_path,
            base.display()
        );
        return Err(refuse(cause, "Use it with its own base"));
    }
    let weights = folder.join(WEIGHTS_FILE);
    let tensors = Tensors::open(&weights)?;
    let config = file.adapter();
    let mut new = Vec::new();
    for name in tensors.names() {
        let shape = tensors.shape(name).unwrap_or_default();
        let spec = tensor_spec(name, shape, base_params)
            .map_err(|cause| refuse(cause, "Use it with its own base"))?;
        new.push(spec);
    }
    if new.is_empty() {
        return Err(refuse("it has no weights".into(), "Train it again"));
    }
    check_pairs(&new, &config).map_err(|cause| refuse(cause, "Take the folder from its source"))?;
    let scalar = new.iter().any(|spec| spec.name == SCORE);
    let adapted = Adapted { config, base: base.to_owned(), fingerprint: fingerprint.to_owned() };
    let head = if scalar { Head::Scalar } else { base_config.head };
    let config = Config { adapter: Some(adapted), head, ..base_config.clone() };
    let read = |spec: &ParamSpec| tensors.read(&format!("{PREFIX}{}", spec.name), &spec.shape);
    fill(base_params, config, new, &weights, &read)
}

/// The parameter that a tensor of an adapter's file holds, checked against the base.
fn tensor_spec(name: &str, shape: &[usize], base: &Params) -> Result<ParamSpec, String> {
    let unknown = || format!("{name} belongs to no weight of the base");
    let own = name.strip_prefix(PREFIX).ok_or_else(unknown)?;
    let spec =
        |role| ParamSpec { name: own.to_owned(), shape: shape.to_vec(), init: Init::Zeros, role };
    let parts = [(".lora_A.weight", 1), (".lora_B.weight", 0)];
    for (suffix, side) in parts {
        let Some(module) = own.strip_suffix(suffix) else { continue };
        let weight = base.id(&format!("{module}.weight")).ok_or_else(unknown)?;
        if base.spec(weight).role == Role::Table {
            return Err(format!(
                "{name} adapts an embedding table or a head, which is not supported"
            ));
        }
        let weight = &base.spec(weight).shape;
        if shape.len() != 2 || weight.len() != 2 || shape[side] != weight[side] {
            return Err(format!("{name} is {shape:?}, and the weight is {weight:?}"));
        }
        return Ok(spec(Role::Hidden));
    }
    if let Some(module) = own.strip_suffix(MAGNITUDE) {
        let weight = base.id(&format!("{module}.weight")).ok_or_else(unknown)?;
        let weight = &base.spec(weight).shape;
        if shape.len() != 1 || weight.len() != 2 || shape[0] != weight[0] {
            return Err(format!("{name} is {shape:?}, and the weight is {weight:?}"));
        }
        return Ok(spec(Role::Vector));
    }
    if own == SCORE {
        return Ok(spec(Role::Table));
    }
    let weight = base.id(own).ok_or_else(unknown)?;
    let known = base.spec(weight);
    if known.shape != shape {
        return Err(format!("{name} is {shape:?}, and the base's weight is {:?}", known.shape));
    }
    Ok(spec(known.role))
}

/// Checks that A and B of each module are there and have the config's rank.
fn check_pairs(specs: &[ParamSpec], config: &AdapterConfig) -> Result<(), String> {
    for (part, other, side) in [("A", "B", 0), ("B", "A", 1)] {
        for spec in specs {
            let Some(module) = spec.name.strip_suffix(&format!(".lora_{part}.weight")) else {
                continue;
            };
            let pair = format!("{module}.lora_{other}.weight");
            let has = |name: &str| specs.iter().any(|spec| spec.name == name);
            if has(&format!("{module}{MAGNITUDE}")) != config.dora {
                let but = if config.dora { "no norms with it" } else { "norms without DoRA" };
                return Err(format!("it has {}, and {but}", spec.name));
            }
            if !has(&pair) {
                return Err(format!("it has {}, and no lora_{other} with it", spec.name));
            }
            if has(&format!("{module}.weight")) {
                return Err(format!("it has {} and the whole weight too", spec.name));
            }
            let (found, rank) = (spec.shape[side], config.rank_of(module));
            if found == 0 {
                return Err(format!("{} has rank 0; a rank is at least 1", spec.name));
            }
            if found != rank {
                return Err(format!("{} has rank {found}, and its config {rank}", spec.name));
            }
        }
    }
    let modules = || specs.iter().filter_map(|spec| spec.name.strip_suffix(".lora_A.weight"));
    let mut norms = specs.iter().filter_map(|spec| spec.name.strip_suffix(MAGNITUDE));
    if let Some(alone) = norms.find(|name| modules().all(|module| module != *name)) {
        return Err(format!("it has {alone}{MAGNITUDE}, and no lora_A with it"));
    }
    config.check_patterns(modules())
}

/// Makes every pair of A and B the adapter of its weight.
fn connect(params: &mut Params, config: &AdapterConfig) {
    for a in params.ids() {
        let Some(module) = params.spec(a).name.strip_suffix(".lora_A.weight").map(str::to_owned)
        else {
            continue;
        };
        let named = |name: &str| params.id(&format!("{module}{name}"));
        if let (Some(weight), Some(b)) = (named(".weight"), named(".lora_B.weight")) {
            let scale = config.scale(&module, config.rank_of(&module)) as f32;
            let magnitude = named(MAGNITUDE);
            params.adapt(weight, Adapter { a, b, scale, magnitude });
        }
    }
}

/// Parameters of a scalar model over the base of `params`: its adapters, still to be copied, and a
/// new head.
pub(crate) fn scalar_over(
    base: &Arc<Params>,
    params: &Params,
    config: &Config,
    seed: u64,
) -> Params {
    let head = crate::model::specs(config).into_iter().filter(|spec| spec.name == SCORE);
    let adapters = params.specs().iter().filter(|spec| spec.name.contains(".lora_")).cloned();
    let mut new = Params::over(base, adapters.chain(head).collect(), seed);
    if let Some(adapted) = &config.adapter {
        connect(&mut new, &adapted.config);
        new.copy_adapter_dropout(params);
    }
    new
}

/// Writes an adapter: its config, its weights and the tokenizer.
pub(crate) fn write(
    folder: &Path,
    model: &Model,
    adapted: &Adapted,
    params: &Params,
    text: &TextSetup,
) -> Result<(), ModelError> {
    let Adapted { config, base, fingerprint } = adapted;
    let saved: Vec<String> = params
        .specs()
        .iter()
        .filter(|spec| !spec.name.contains(".lora_"))
        .filter_map(|spec| spec.name.strip_suffix(".weight").map(str::to_owned))
        .collect();
    // By name also if all are meant: few readers but PEFT know "all-linear".
    let targets = if config.targets.iter().any(|target| target == ALL_LINEAR) {
        let adapted = params.specs().iter().filter_map(|spec| {
            Some(last_part(spec.name.strip_suffix(".lora_A.weight")?).to_owned())
        });
        let names: BTreeSet<String> = adapted.collect();
        names.into_iter().collect()
    } else {
        config.targets.clone()
    };
    let scalar = model.config().head == Head::Scalar;
    let family = model.config().family();
    let transposed = |spec: &ParamSpec| family.is_transposed(spec);
    let file = ConfigFile {
        task_type: if scalar { "SEQ_CLS" } else { "CAUSAL_LM" }.into(),
        base_model_name_or_path: base.to_string_lossy().into_owned(),
        r: config.rank,
        lora_alpha: config.alpha,
        lora_dropout: config.dropout,
        use_rslora: config.rslora,
        use_dora: config.dora,
        // PEFT's word for matrices that a file holds transposed; A and B are as always.
        fan_in_fan_out: crate::model::specs(model.config()).iter().any(transposed),
        target_modules: Some(Targets::List(targets)),
        modules_to_save: (!saved.is_empty()).then_some(saved),
        rank_pattern: config.rank_pattern.clone(),
        alpha_pattern: config.alpha_pattern.clone(),
        base_model_fingerprint: Some(fingerprint.clone()),
        ..ConfigFile::default()
    };
    let path = folder.join(CONFIG_FILE);
    let json = serde_json::to_string_pretty(&file).expect("strings and numbers have a JSON form");
    fs::write(&path, json + "\n").map_err(|e| HubError::io("write", &path, e))?;
    write_config(folder, model.config(), Some(text), FloatType::F32)?;
    let tensor = |id: ParamId| {
        let ParamSpec { name, shape, .. } = params.spec(id).clone();
        let (name, values) = (format!("{PREFIX}{name}"), read_by_rows(params, id));
        Tensor { name, shape, dtype: FloatType::F32, values }
    };
    let tensors: Vec<Tensor<'_>> = params.ids().map(tensor).collect();
    Ok(write_tensors(&folder.join(WEIGHTS_FILE), &tensors)?)
}

/// A fingerprint of a model's weights: names, shapes, and the first values of each.
fn fingerprint(params: &Params) -> String {
    let mut hasher = blake3::Hasher::new();
    for id in params.ids() {
        let spec = params.spec(id);
        hasher.update(format!("{} {:?}", spec.name, spec.shape).as_bytes());
        for value in params.read_rows(id, 0..1) {
            hasher.update(&value.to_le_bytes());
        }
    }
    hasher.finalize().to_hex()[..32].to_owned()
}

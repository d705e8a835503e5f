//! What a finished phase leaves besides its weights (`phase.json`), and the report of a run.

use std::path::Path;

use crisol_model::{Checkpoint, save_checkpoint};
use crisol_report::{
    Language, MaskPicture, ModelSummary, PhaseReport, PromptReport, Report, RolloutSample,
};
use serde::{Deserialize, Serialize};

use crate::context::PhaseRecord;
use crate::fingerprint::Fingerprint;
use crate::machine::peak_memory;
use crate::owner::REPORTS;
use crate::recipe::{Phase, Recipe};
use crate::settings::PhaseSettings;
use crate::state::SaveStats;
use crate::{PhaseError, prompts};

/// `phase.json`: what a finished phase leaves besides its weights.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PhaseFile {
    pub(crate) report: PhaseReport,
    pub(crate) model: ModelSummary,
    pub(crate) prompts: Vec<PromptReport>,
    pub(crate) rollouts: Vec<RolloutSample>,
    pub(crate) masks: Vec<MaskPicture>,
    pub(crate) evaluation_seconds: f64,
    pub(crate) peak_memory_bytes: u64,
    /// Missing in files of earlier versions.
    #[serde(default)]
    pub(crate) fingerprint: Option<Fingerprint>,
    #[serde(default)]
    pub(crate) saves: SaveStats,
}

impl PhaseFile {
    pub(crate) fn new(
        recipe: &Recipe,
        phase: &Phase,
        trained: &Checkpoint,
        record: PhaseRecord,
    ) -> PhaseFile {
        let config = trained.model.config();
        PhaseFile {
            report: PhaseReport {
                name: phase.name.clone(),
                kind: phase.settings.kind().to_owned(),
                checkpoint: recipe.folder(&phase.name),
                parent: (!phase.from.is_empty()).then(|| phase.from.clone()),
                reward_model: match &phase.settings {
                    PhaseSettings::Ppo(ppo) => Some(ppo.reward_model.clone()),
                    _ => None,
                },
                tokens: record.tokens,
                flops: record.flops,
                seconds: record.seconds,
                sampling_seconds: record.sampling_seconds,
                expected_seconds: record.expected_seconds,
                expected_memory_bytes: 0,
                peak_memory_bytes: peak_memory(),
                metrics: record.metrics,
                before: record.before,
                curves: record.curves,
                notes: record.notes,
            },
            model: ModelSummary {
                architecture: format!("{:?}", config.architecture()).to_lowercase(),
                parameters: trained.parameters() as u64,
                trained_parameters: trained.params.count() as u64,
                hidden: config.hidden_size,
                layers: config.num_hidden_layers,
                heads: config.num_attention_heads,
                vocab: config.vocab_size,
                context: config.max_position_embeddings,
            },
            prompts: record.prompts,
            rollouts: record.rollouts,
            masks: record.masks,
            evaluation_seconds: 0.0,
            peak_memory_bytes: peak_memory(),
            fingerprint: Some(record.fingerprint),
            saves: record.saves,
        }
    }
}

pub(crate) const PHASE_FILE: &str = "phase.json";

pub(crate) fn load_phase(path: &Path) -> Result<PhaseFile, PhaseError> {
    let text = std::fs::read_to_string(path).map_err(|e| PhaseError::io(path, e))?;
    serde_json::from_str(&text)
        .map_err(|cause| PhaseError::BrokenState { file: path.to_path_buf(), cause })
}

/// Writes a finished phase's folder: checkpoint, `phase.json` and metrics.
pub(crate) fn save_phase(
    folder: &Path,
    trained: &Checkpoint,
    file: &PhaseFile,
    metrics_file: &Path,
) -> Result<(), PhaseError> {
    let Checkpoint { model, params, text } = trained;
    save_checkpoint(folder, model, params, text, |dir| -> Result<(), PhaseError> {
        let json = serde_json::to_string(file)
            .map_err(|cause| PhaseError::BrokenState { file: dir.join(PHASE_FILE), cause })?;
        std::fs::write(dir.join(PHASE_FILE), json).map_err(|e| PhaseError::io(dir, e))?;
        std::fs::copy(metrics_file, dir.join("metrics.jsonl"))
            .map_err(|e| PhaseError::io(metrics_file, e))?;
        Ok(())
    })
}

/// Writes `report.json`, and `report.html` in a language, into a run's folder.
pub fn save_report(report: &Report, out: &Path, language: Language) -> Result<(), PhaseError> {
    crisol_hub::write_file_atomically(&out.join(REPORTS[0]), report.to_json().as_bytes())?;
    let html = crisol_report::html(report, language);
    crisol_hub::write_file_atomically(&out.join(REPORTS[1]), html.as_bytes())?;
    Ok(())
}

/// Puts together the report of a run's folder from its finished phases.
pub fn assemble_report(recipe: &Recipe, out: &Path) -> Result<Report, PhaseError> {
    let mut report = Report {
        crisol: env!("CARGO_PKG_VERSION").into(),
        title: recipe.run.title.clone(),
        seed: recipe.run.seed,
        recipe_toml: recipe.to_toml(),
        ..Report::default()
    };
    for phase in &recipe.phases {
        let path =
            crisol_hub::resolve_folder(&out.join(recipe.folder(&phase.name)))?.join(PHASE_FILE);
        if !path.exists() {
            continue;
        }
        let file = load_phase(&path)?;
        if report.phases.is_empty() {
            report.model = file.model;
        }
        report.total_seconds += file.report.seconds + file.evaluation_seconds;
        report.peak_memory_bytes = report.peak_memory_bytes.max(file.peak_memory_bytes);
        report.phases.push(file.report);
        report.rollouts.extend(file.rollouts);
        report.masks.extend(file.masks);
        prompts::merge(&mut report.prompts, file.prompts);
    }
    Ok(report)
}

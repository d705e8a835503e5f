//! Forecast of a whole run before it starts: operations, time and memory of every phase.
//!
//! | file | subject |
//! |---|---|
//! | `lengths.rs` | lengths of documents, from which operations follow |
//! | `plan.rs` | the plan of a stage: its passes over documents |
//! | `sample.rs` | a sample of a run's data, encoded as its phases will encode it |
//! | `memory.rs` | peak memory of a phase |
//! | `fit.rs` | options that lower it |

mod fit;
pub(crate) mod lengths;
pub mod memory;
pub(crate) mod plan;
mod sample;

use std::path::Path;

use crisol_cost::machine::Machine;
use crisol_cost::units::Bytes;
use crisol_engine::Precision;

pub use self::plan::StageForecast;
use self::sample::{Forecasted, Sample};
use crate::PhaseError;
use crate::cost_shape::cost_shape;
use crate::recipe::{Phase, Recipe};

/// Forecast of a phase.
#[derive(Clone, Debug, PartialEq)]
pub struct PhaseForecast {
    /// The phase's name.
    pub name: String,
    /// Steps of all stages at most: optimizer steps, or rollout steps with their updates.
    pub steps: f64,
    /// Its stages, in order.
    pub stages: Vec<StageForecast>,
    /// Peak memory of a process that runs this phase only, in bytes.
    pub memory: f64,
}

impl PhaseForecast {
    /// Floating-point operations as reports count them: without measuring.
    pub fn flops(&self) -> f64 {
        self.stages.iter().map(|stage| stage.flops).sum()
    }

    /// Seconds on a calibrated machine.
    pub fn seconds(&self) -> Option<f64> {
        self.stages.iter().map(|stage| stage.seconds).sum()
    }
}

/// Maximum steps of a phase; more are probably a mistake.
const MAX_STEPS: f64 = 1e6;

/// Refuses a run with a phase of more than a million steps or of more than `memory` bytes. Names
/// options with which it would fit.
pub fn refuse_too_large(
    recipe: &Recipe,
    phases: &[PhaseForecast],
    memory: Option<u64>,
    threads: usize,
) -> Result<(), PhaseError> {
    let bytes = |bytes: f64| crisol_report::prefixed(bytes, "B").replace('\u{a0}', " ");
    for (phase, PhaseForecast { name, steps, memory: wanted, .. }) in
        recipe.phases.iter().zip(phases)
    {
        let forecast = match memory.map(|memory| memory as f64) {
            _ if *steps > MAX_STEPS => {
                format!(
                    "phase {name} would take about {steps:.0} steps; more than {MAX_STEPS:.0} are \
                     most likely a slip"
                )
            }
            Some(memory) if *wanted > memory => {
                let config = recipe.model_config()?;
                let base = (!recipe.run.base.is_empty()).then(|| Path::new(&recipe.run.base));
                let data = recipe.run.data_source();
                let (settings, limit) = (&phase.settings, Bytes(memory));
                let smaller =
                    fit::smaller(settings, &recipe.run, &config, base, &data, threads, limit);
                let remedy = smaller.map_or(String::new(), |(options, needed)| {
                    format!("; with `{options}` it would take about {}", bytes(needed.0))
                });
                let (wanted, free) = (bytes(*wanted), bytes(memory));
                format!(
                    "phase {name} would take about {wanted} of memory, and {free} are free \
                     here{remedy}"
                )
            }
            _ => continue,
        };
        return Err(PhaseError::TooLarge { forecast });
    }
    Ok(())
}

/// Forecasts of every phase of a resolved recipe ([`Recipe::resolve`]).
pub fn forecast(
    recipe: &Recipe,
    machine: Option<&Machine>,
    threads: usize,
) -> Result<Vec<PhaseForecast>, PhaseError> {
    let config = recipe.model_config()?;
    let shape = cost_shape(&config);
    let machine = rates(machine, recipe.run.precision);
    let data = recipe.run.data_source();
    let sample = Sample::new(recipe, &data, config.max_document_len())?;
    let forecast_phase = |phase: &Phase| -> Result<PhaseForecast, PhaseError> {
        let Forecasted { steps, stages } = sample.forecast(&phase.settings, &shape)?;
        let stage = |(name, work)| StageForecast::new(name, &shape, &work, machine.as_ref());
        let memory = memory::memory(&phase.settings, &recipe.run, &config, &data, threads);
        Ok(PhaseForecast {
            name: phase.name.clone(),
            steps,
            stages: stages.into_iter().map(stage).collect(),
            memory: memory.total().0,
        })
    };
    recipe.phases.iter().map(forecast_phase).collect()
}

/// The rates of a machine in a precision.
pub(crate) fn rates(machine: Option<&Machine>, precision: Precision) -> Option<Machine> {
    machine.map(|machine| match precision {
        Precision::F32 => machine.clone(),
        Precision::Bf16 => machine.in_bf16(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_models_are_refused_before_anything_grows_with_them() {
        let mut recipe = Recipe::embedded();
        recipe.run.model.layers = 1_000_000_000;
        assert!(matches!(forecast(&recipe, None, 1), Err(PhaseError::Model(_))));
    }

    #[test]
    fn what_is_too_large_is_refused_with_forecast_and_limit() {
        let phase =
            |steps, memory| PhaseForecast { name: "sft".into(), steps, stages: vec![], memory };
        let recipe = Recipe::embedded();
        let check = |phases: &[PhaseForecast], memory| refuse_too_large(&recipe, phases, memory, 2);
        assert!(check(&[phase(1e6, 1e9)], Some(1 << 30)).is_ok());
        assert!(check(&[phase(1.0, 1e15)], None).is_ok());
        let refused =
            |phases: &[PhaseForecast]| check(phases, Some(8_000_000_000)).unwrap_err().to_string();
        let steps = refused(&[phase(1.0, 1e9), phase(2e6, 1e9)]);
        assert!(
            steps.contains("sft would take about 2000000 steps") && steps.contains("--force"),
            "{steps}"
        );
        let memory = refused(&[phase(1.0, 347e9)]);
        assert!(memory.contains("347 GB") && memory.contains("8 GB are free"), "{memory}");
        assert!(memory.contains("with `--set recompute=block` it would take"), "{memory}");
    }

    /// Operations that the published runs counted (mean of seeds 1 to 3, `flops` of each phase in a
    /// report.json), in TFLOP. The forecast encodes a sample of the data, before the tokenizer is
    /// trained. How long sampled answers become cannot be known before.
    #[test]
    fn the_embedded_run_is_forecast_as_it_was_counted() {
        const OF_DATA: f64 = 0.06;
        const OF_ANSWERS: f64 = 0.15;
        let counted = [
            ("pretrain", 22.43, OF_DATA),
            ("sft", 6.1, OF_DATA),
            ("reason", 20.01, OF_ANSWERS),
            ("refuse", 6.77, OF_DATA),
            ("reward", 6.53, OF_DATA),
            ("ppo", 18.55, OF_ANSWERS),
            ("dpo", 12.28, OF_DATA),
        ];
        let recipe = Recipe::embedded();
        let forecast = forecast(&recipe, None, 2).expect("the embedded data is there");
        let names: Vec<&str> = recipe.phases.iter().map(|phase| phase.name.as_str()).collect();
        assert_eq!(names, counted.map(|(name, ..)| name));
        for (phase, (name, tflop, tolerance)) in forecast.iter().zip(counted) {
            let ratio = phase.flops() / (tflop * 1e12);
            assert!((ratio - 1.0).abs() < tolerance, "{name}: forecast ÷ counted is {ratio:.3}");
            assert!(phase.seconds().is_none(), "{name}: this machine is not calibrated");
        }
    }
}

//! How far an interrupted phase is: the `state.json` of a run that is resumed, up to where it
//! misses its data.

#![no_main]

use crisol_engine::Device;
use crisol_phases::{Observer, RunOptions, SaveStats, StageForecast, run};
use crisol_report::{Language, PhaseReport};
use crisol_train::{Checksums, write_checksums};
use libfuzzer_sys::fuzz_target;

const RECIPE: &[u8] = b"data = \"no such folder\"\n[[phases]]\nkind = \"pretrain\"\n";

struct Nobody;

impl Observer for Nobody {
    fn phase_started(&mut self, _: &str, _: usize, _: usize) {}
    fn stage_started(&mut self, _: &str, _: u64, _: u64) {}
    fn step(&mut self, _: u64, _: u64, _: &[(&str, f64)]) {}
    fn stage_forecast(&mut self, _: &StageForecast) {}
    fn measured(&mut self) {}
    fn memory_forecast(&mut self, _: f64, _: Option<f64>) {}
    fn saved(&mut self, _: &SaveStats) {}
    fn note(&mut self, _: &str) {}
    fn phase_finished(&mut self, _: &PhaseReport) {}
}

fuzz_target!(|data: &[u8]| {
    let state = "progress/1-pretrain/state/state.json";
    let folder = crisol_fuzz::folder(&[("recipe.toml", RECIPE), (state, data)]);
    let state = folder.path().join(state);
    write_checksums(state.parent().expect("it has one"), &Checksums::new())
        .expect("a temporary folder");
    let options = RunOptions {
        out: folder.path(),
        resume: true,
        device: &Device::cpu(Some(1)),
        machine: None,
        created: String::new(),
        language: Language::default(),
        reward: None,
    };
    assert!(run(None, &options, &mut Nobody).is_err());
});

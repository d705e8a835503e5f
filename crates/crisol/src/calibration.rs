//! What `crisol cost --calibrate` measured on this machine, and where it is kept.

use std::env;
use std::fs;
use std::path::PathBuf;

use crisol_cost::machine::{Machine, MeasuredRate};
use crisol_cost::units::FlopRate;
use crisol_hub::HubError;
use crisol_phases::machine;
use serde::{Deserialize, Serialize};

use crate::error::CliError;

/// The file, `machine.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Calibration {
    /// The machine, in words; what was measured on another says nothing about this one.
    pub(crate) machine: String,
    /// Threads that were used.
    pub(crate) threads: usize,
    /// Date and time.
    pub(crate) measured: String,
    /// Operations per second of large products.
    pub(crate) products: f64,
    /// The same in bf16.
    pub(crate) products_bf16: f64,
    /// Bytes per second that are read from memory.
    pub(crate) bandwidth: f64,
    pub(crate) training: Vec<Rate>,
    pub(crate) sampling: Vec<Rate>,
}

/// Operations per second of a model of a size.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rate {
    pub(crate) parameters: f64,
    pub(crate) flops_per_second: f64,
}

impl Calibration {
    /// Where it is kept: `crisol/machine.json` in `XDG_CACHE_HOME` or `~/.cache`.
    pub(crate) fn file() -> Result<PathBuf, CliError> {
        let set =
            env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
        let caches = set.or_else(|| Some(env::home_dir()?.join(".cache")));
        let caches = caches.ok_or_else(|| {
            CliError::Usage(
                "there is no home folder to keep measurements in; set XDG_CACHE_HOME to a folder"
                    .into(),
            )
        })?;
        Ok(caches.join("crisol").join("machine.json"))
    }

    /// What was measured on this machine with so many threads, if anything was.
    pub(crate) fn load(threads: usize) -> Option<Calibration> {
        let text = fs::read_to_string(Calibration::file().ok()?).ok()?;
        // A file of another version is as good as none.
        let calibration: Calibration = serde_json::from_str(&text).ok()?;
        let rates = calibration.training.iter().chain(&calibration.sampling);
        let sound = |rate: &Rate| rate.parameters > 0.0 && rate.flops_per_second > 0.0;
        let here = calibration.machine == machine() && calibration.threads == threads;
        let products = calibration.products.min(calibration.products_bf16);
        (here && products > 0.0 && rates.clone().all(sound)).then_some(calibration)
    }

    /// Keeps it for later runs.
    pub(crate) fn save(&self) -> Result<PathBuf, CliError> {
        let file = Calibration::file()?;
        let folder = file.parent().expect("it lies in a folder");
        fs::create_dir_all(folder).map_err(|e| HubError::io("create", folder, e))?;
        let json = serde_json::to_string_pretty(self).expect("plain data always serialises");
        crisol_hub::write_file_atomically(&file, json.as_bytes())?;
        Ok(file)
    }

    /// As the cost model wants it.
    pub(crate) fn rates(&self) -> Machine {
        let measured = |rates: &[Rate]| {
            let measured = |rate: &Rate| MeasuredRate {
                parameters: rate.parameters,
                rate: FlopRate(rate.flops_per_second),
            };
            rates.iter().map(measured).collect()
        };
        Machine {
            training: measured(&self.training),
            sampling: measured(&self.sampling),
            gemm_rate: FlopRate(self.products),
            gemm_rate_bf16: FlopRate(self.products_bf16),
        }
    }
}

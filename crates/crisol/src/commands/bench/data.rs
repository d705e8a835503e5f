//! `crisol bench data`: how fast a data file becomes the tokens of a phase, and what memory that
//! takes.

use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use crisol_hub::HubError;
use crisol_model::load_text;
use crisol_phases::{machine, peak_memory, preprocess};
use serde::Serialize;

use crate::commands::Threads;
use crate::commands::phase::Reading;
use crate::console::{print_json, print_line};
use crate::error::CliError;
use crate::hub::Need;
use crate::model::{Network, check_folder, locate};

#[derive(Debug, Args)]
pub(super) struct BenchDataArgs {
    /// Data: a file, folder or pattern
    file: PathBuf,
    /// Model whose tokenizer and template are used
    #[arg(long, value_name = "MODEL")]
    model: PathBuf,
    #[command(flatten)]
    reading: Reading,
    #[command(flatten)]
    network: Network,
    #[command(flatten)]
    threads: Threads,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Measured {
    machine: String,
    threads: usize,
    /// Of the files, compressed ones as they are.
    bytes: u64,
    records: usize,
    examples: usize,
    tokens: u64,
    seconds: f64,
    megabytes_per_second: f64,
    peak_memory_bytes: u64,
}

impl BenchDataArgs {
    pub(super) fn run(self) -> Result<(), CliError> {
        let device = self.threads.device()?;
        let folder = check_folder(&locate(&self.model, Need::Text, self.network)?)?;
        let (config, text) = load_text(&folder)?;
        let source = self.file.to_string_lossy();
        let mut bytes = 0;
        for file in crisol_text::data_files(&source, &self.reading.options())? {
            bytes += std::fs::metadata(&file).map_err(|e| HubError::io("read", &file, e))?.len();
        }
        let began = Instant::now();
        let made = preprocess(&source, &self.reading.options(), &text, config.max_document_len())?;
        let seconds = began.elapsed().as_secs_f64();
        let measured = Measured {
            machine: machine(),
            threads: device.threads(),
            bytes,
            records: made.records,
            examples: made.examples,
            tokens: made.tokens,
            seconds,
            megabytes_per_second: bytes as f64 * 1e-6 / seconds,
            peak_memory_bytes: peak_memory(),
        };
        if self.json {
            return print_json(&measured);
        }
        print_line(format_args!(
            "{:.1} MB, {} records: {} examples of {} tokens in {seconds:.2} s, {:.1} MB/s on {} \
             threads; peak memory {:.0} MB",
            bytes as f64 * 1e-6,
            measured.records,
            measured.examples,
            measured.tokens,
            measured.megabytes_per_second,
            measured.threads,
            measured.peak_memory_bytes as f64 * 1e-6,
        ))
    }
}

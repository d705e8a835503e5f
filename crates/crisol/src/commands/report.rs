//! `crisol report`: the report of a run's folder, put together again from its finished phases.

use std::path::PathBuf;

use clap::Args;
use crisol_phases::{Owner, PhaseError, Recipe};
use crisol_report::Report;

use super::reflect::save_page;
use super::run::show;
use crate::clock;
use crate::console::{self, print};
use crate::error::CliError;
use crate::language::language;

const EXAMPLES: &str = "\
Examples:
  crisol report runs/crisol-world
  crisol report runs/crisol-world --full | less -R
  crisol report runs/crisol-world --lang es

Reads the finished phases of the run and writes report.html and report.json again. --lang changes
the page and the summary; report.json has no language.";

/// `crisol report`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ReportArgs {
    /// Folder of the run
    run_dir: PathBuf,
    /// Print every measure and answer, not the summary alone
    #[arg(long)]
    full: bool,
}

impl ReportArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let folder = self.run_dir;
        let wrong =
            |problem: &str| CliError::Place { path: folder.clone(), problem: problem.to_owned() };
        let recipe = folder.join("recipe.toml");
        if !recipe.exists() {
            return Err(wrong(
                "not the folder of a run: it has no recipe.toml; give the run's --out folder",
            ));
        }
        let mut report = crisol_phases::assemble_report(&Recipe::load(&recipe)?, &folder)?;
        if report.phases.is_empty() {
            return Err(wrong(
                "no phase of this run is finished yet; go on with `crisol run --resume --out DIR`",
            ));
        }
        // What the phases do not know is what the run wrote itself.
        if let Ok(before) = Report::load(&folder.join("report.json")) {
            report.created = before.created;
            report.threads = before.threads;
            report.machine = before.machine;
            report.reflect = before.reflect;
        } else {
            report.created = clock::now();
            report.machine = crisol_phases::machine();
        }
        // The run itself writes it after each phase.
        match Owner::take(&folder, &clock::now()) {
            Ok(_owner) => {
                crisol_phases::save_report(&report, &folder, language())?;
                save_page(&report, &folder)?;
            }
            Err(PhaseError::InUse { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if self.full {
            print(crisol_report::terminal(&report, console::layout()))
        } else {
            show(&report, &folder)
        }
    }
}

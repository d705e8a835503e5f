//! `crisol man`: manual pages, for those who package the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory as _};
use crisol_hub::HubError;

use super::Cli;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  crisol man ~/.local/share/man/man1
  man crisol-sft";

/// `crisol man`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ManArgs {
    /// Folder of the pages, one for each command; pages in it are replaced
    folder: PathBuf,
}

impl ManArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let failed = |e| HubError::io("write", &self.folder, e);
        std::fs::create_dir_all(&self.folder).map_err(failed)?;
        // A page for `help` would repeat the others.
        let command = Cli::command().disable_help_subcommand(true);
        clap_mangen::generate_to(command, &self.folder).map_err(failed)?;
        Ok(())
    }
}

//! `crisol completions`: completion scripts for shells.

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Cli;
use crate::console::print;
use crate::error::CliError;

const EXAMPLES: &str = "\
Examples:
  crisol completions bash > ~/.local/share/bash-completion/completions/crisol
  crisol completions zsh > ~/.zfunc/_crisol
  crisol completions fish > ~/.config/fish/completions/crisol.fish";

/// `crisol completions`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct CompletionsArgs {
    /// Shell
    shell: Shell,
}

impl CompletionsArgs {
    pub(crate) fn run(self) -> Result<(), CliError> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "crisol", &mut script);
        print(String::from_utf8_lossy(&script))
    }
}

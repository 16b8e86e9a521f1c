//! `interceptor completions` and `interceptor man`

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Command};
use clap_complete::Shell;

use crate::stdio;

/// Print the completions of commands and options for a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  interceptor completions bash > /etc/bash_completion.d/interceptor
  interceptor completions zsh > /usr/local/share/zsh/site-functions/_interceptor
  interceptor completions fish > ~/.config/fish/completions/interceptor.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, mut command: Command) -> Result<()> {
        let mut text = Vec::new();
        let name = command.get_name().to_owned();
        clap_complete::generate(self.shell, &mut command, name, &mut text);
        stdio::print(&String::from_utf8(text).context("the completions are not UTF-8")?)
    }
}

/// Write the manual pages, one for each command (`cargo xtask man`)
#[derive(Args)]
pub(super) struct Man {
    /// The directory for the pages, which is created
    #[arg(long, value_name = "DIRECTORY")]
    output: PathBuf,
}

impl Man {
    pub(super) fn run(&self, command: Command) -> Result<()> {
        let shown = || format!("cannot write manual pages to {}", self.output.display());
        fs::create_dir_all(&self.output).with_context(shown)?;
        clap_mangen::generate_to(command, &self.output).with_context(shown)
    }
}

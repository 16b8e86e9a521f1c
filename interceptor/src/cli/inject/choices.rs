//! Which pods are injected with what.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, ValueEnum};
use interceptor_injection::{Config, Sidecar, builtin, decision::Rules};

/// What is injected.
#[derive(Args)]
pub(super) struct Choices {
    /// Revision of the injector, for the label istio.io/rev
    #[arg(short, long, value_name = "NAME", default_value = "")]
    revision: String,

    /// Whether the sidecar is a native one: an init container that keeps running. It requires
    /// Kubernetes 1.29. auto is true
    #[arg(long, value_enum, default_value_t, value_name = "WHEN")]
    native_sidecar: NativeSidecar,

    #[command(flatten)]
    builtin: Builtin,
}

/// Choices of the built-in sidecar.
#[derive(Args)]
struct Builtin {
    /// Start the app's containers when the proxy is ready
    #[arg(long)]
    hold: bool,

    /// Image of the built-in sidecar's proxy, with Envoy at /usr/local/bin/envoy
    #[arg(long, value_name = "REFERENCE")]
    image: Option<String>,

    /// Envoy's configuration (JSON or YAML), in place of the built-in one
    #[arg(long, value_name = "FILE")]
    bootstrap: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum NativeSidecar {
    #[default]
    Auto,
    True,
    False,
}

impl Choices {
    pub(super) fn revision(&self) -> &str {
        &self.revision
    }

    pub(super) fn configuration(&self) -> Result<Config> {
        Ok(Config {
            rules: Rules::default(),
            sidecar: Sidecar::Builtin(Box::new(self.builtin()?)),
        })
    }

    fn is_native(&self) -> bool {
        self.native_sidecar != NativeSidecar::False
    }

    fn builtin(&self) -> Result<builtin::Config> {
        let defaults = builtin::Config::default();
        let bootstrap = self.builtin.bootstrap.as_ref().map(|path| {
            let text = fs::read_to_string(path)?;
            Ok(serde_saphyr::from_str(&text)?)
        });
        let bootstrap: Result<_> = bootstrap.transpose();
        Ok(builtin::Config {
            image: self.builtin.image.clone().unwrap_or(defaults.image),
            is_native: self.is_native(),
            hold: self.builtin.hold,
            bootstrap: bootstrap.context("cannot read --bootstrap")?,
            ..defaults
        })
    }
}

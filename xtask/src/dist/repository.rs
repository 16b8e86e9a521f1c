//! The image's name in a registry, and the files that contain it.

use std::str::FromStr;

use anyhow::{Result, ensure};

use super::VERSION;

/// The name in the sources.
const IN_SOURCES: &str = "interceptor";
/// The chart's value for the image, which is not set in the sources.
const CHART_VALUE: &str = "\n  image: \"\"\n";

/// The image's name in a registry, without a tag.
#[derive(Clone, Debug)]
pub(super) struct Repository(String);

impl FromStr for Repository {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let last = name.rsplit('/').next().unwrap_or_default();
        let is_valid =
            |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "./_-:".contains(c);
        if last.is_empty() || last.contains(':') || !name.chars().all(is_valid) {
            return Err(
                "expected a name without a tag, such as registry.example.org/interceptor"
                    .to_owned(),
            );
        }
        Ok(Self(name.to_owned()))
    }
}

impl Repository {
    /// The image's full name.
    pub(super) fn image(&self) -> String {
        format!("{}:{VERSION}", self.0)
    }

    /// The chart's `values.yaml` with this image.
    pub(super) fn in_chart_values(&self, values: &str) -> Result<String> {
        if self.0 == IN_SOURCES {
            return Ok(values.to_owned());
        }
        ensure!(
            values.contains(CHART_VALUE),
            "the chart's values.yaml has no line {CHART_VALUE:?}"
        );
        let value = format!("\n  image: {}\n", self.image());
        Ok(values.replace(CHART_VALUE, &value))
    }

    /// A manifest or a kustomization with this image.
    pub(super) fn in_manifest(&self, manifest: &str) -> String {
        if self.0 == IN_SOURCES {
            return manifest.to_owned();
        }
        let image = format!("image: {IN_SOURCES}:{VERSION}");
        let tag = format!("    newTag: {VERSION}\n");
        manifest
            .replace(&image, &format!("image: {}", self.image()))
            .replace(&tag, &format!("    newName: {}\n{tag}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_no_tag() {
        for name in [
            "interceptor",
            "localhost:5000/i",
            "registry.example.org/a/b-c",
        ] {
            name.parse::<Repository>().unwrap();
        }
        for name in ["", "a/", "i:1", "a/i:1", "a b", "a@sha256"] {
            name.parse::<Repository>().unwrap_err();
        }
    }
}

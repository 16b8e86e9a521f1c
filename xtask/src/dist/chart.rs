//! The Helm chart, packed as `helm package` does.

use anyhow::Result;

use super::{
    Repository,
    tree::{Tracked, tracked},
};
use crate::tarball::Tarball;

/// The chart's archive.
pub(super) fn package(repository: &Repository) -> Result<Vec<u8>> {
    let mut tarball = Tarball::new();
    for Tracked { path, text } in tracked("deploy/helm/interceptor")? {
        let text = match path.as_str() {
            "values.yaml" => repository.in_chart_values(&text)?,
            _ => text,
        };
        tarball.file(&format!("interceptor/{path}"), 0o644, text.as_bytes())?;
    }
    tarball.into_gzip()
}

#[cfg(test)]
mod tests {
    use std::{env, fs, process::Command};

    use super::*;
    use crate::{command::read, helm};

    const RENDER: &str = "
import sys
from helm_python import Chart
chart = Chart.load(sys.argv[1])
for path, text in sorted(chart.render({}).items()):
    print(text)
";

    fn rendered(repository: &str) -> String {
        let sdk = helm::ensure().unwrap();
        let name = format!(
            "interceptor-chart-{}-{}.tgz",
            std::process::id(),
            repository.len()
        );
        let archive = env::temp_dir().join(name);
        fs::write(&archive, package(&repository.parse().unwrap()).unwrap()).unwrap();
        let output = read(
            Command::new("python3")
                .args(["-c", RENDER])
                .arg(&archive)
                .env("PYTHONPATH", sdk),
        );
        fs::remove_file(&archive).unwrap();
        output.unwrap()
    }

    #[test]
    fn helm_loads_the_archive() {
        assert!(rendered("interceptor").contains("image: \"interceptor:"));
    }

    #[test]
    fn the_rendered_objects_name_the_image_of_the_registry() {
        let rendered = rendered("registry.example.org/interceptor");
        let image = format!(
            "image: \"registry.example.org/interceptor:{}\"",
            super::super::VERSION
        );
        assert!(rendered.contains(&image), "{rendered}");
        assert!(!rendered.contains("image: \"interceptor:"), "{rendered}");
    }
}

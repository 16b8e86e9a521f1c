//! `cargo xtask dist`: everything that a release distributes. RELEASING.md describes the files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use clap::Args;

use crate::{
    architecture::Architecture,
    command::say,
    contents::{self, Contents},
    image, paths,
};

mod chart;
mod checksums;
mod manifests;
mod notes;
mod package;
mod repository;
mod tree;

use checksums::Checksums;
use repository::Repository;

/// The version of everything.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Options of `cargo xtask dist`.
#[derive(Args)]
pub(crate) struct Options {
    /// Directory of the files; an earlier one is replaced [default: target/dist]
    #[arg(long, value_name = "DIRECTORY")]
    output: Option<PathBuf>,
    /// Name that the image will have in a registry, without a tag: the chart and the manifests name it
    #[arg(long, value_name = "NAME", default_value = "interceptor")]
    repository: Repository,
    /// The release's tag: also write its notes, and fail unless it is the version's and in CHANGELOG.md
    #[arg(long)]
    tag: Option<String>,
    /// Fail unless the files have these checksums: reproduces a release
    #[arg(long, value_name = "SHA256SUMS")]
    verify: Option<PathBuf>,
}

/// Builds all files, and then replaces the directory by them.
pub(crate) fn run(options: &Options) -> Result<()> {
    // Fails before the build, which takes minutes.
    let expected = options.verify.as_deref().map(Checksums::read).transpose()?;
    let notes = options.tag.as_deref().map(notes::of_tag).transpose()?;
    let default = || paths::target().join("dist");
    let output = options.output.clone().unwrap_or_else(default);
    ensure_replaceable(&output)?;
    let files = files(&options.repository)?;
    let checksums = Checksums::of(&files);
    let part = output.with_extension("part");
    write(&part, &files, &checksums, notes.as_deref())?;
    replace(&output, &part)?;
    print!("{checksums}");
    say(&format!("{} files in {}", files.len(), output.display()));
    expected.map_or(Ok(()), |expected| expected.verify(&checksums))
}

/// Another directory than an earlier one of this command may contain files that exist nowhere else.
fn ensure_replaceable(directory: &Path) -> Result<()> {
    ensure!(
        !directory.exists() || directory.join(checksums::NAME).is_file(),
        "--output {}: the directory exists, and is none that this command has written: name another, or \
         remove it",
        directory.display()
    );
    Ok(())
}

/// A file of the release.
struct File {
    name: String,
    content: Vec<u8>,
}

fn files(repository: &Repository) -> Result<Vec<File>> {
    say("packing the chart and the manifests");
    let mut files = vec![
        File {
            name: format!("interceptor-{VERSION}.tgz"),
            content: chart::package(repository)?,
        },
        File {
            name: format!("interceptor-{VERSION}-manifests.tar.gz"),
            content: manifests::package(repository)?,
        },
    ];
    let contents = Contents::build(&Architecture::ALL)?;
    let documents = package::documents(&contents::binary_path(Architecture::of_this_machine()?))?;
    for contents in &contents {
        let name = format!("interceptor-{VERSION}-{}-linux", contents.architecture);
        files.push(File {
            content: package::package(&name, contents, &documents)?,
            name: format!("{name}.tar.gz"),
        });
        files.push(File {
            name: format!("{name}.cdx.json"),
            content: contents.sbom.clone(),
        });
    }
    files.push(File {
        name: format!("interceptor-{VERSION}-image.tar"),
        content: image::archive(&repository.image(), &contents)?,
    });
    files.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(files)
}

fn write(
    directory: &Path,
    files: &[File],
    checksums: &Checksums,
    notes: Option<&str>,
) -> Result<()> {
    remove(directory)?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let write = |name: &str, content: &[u8]| {
        let path = directory.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))
    };
    for File { name, content } in files {
        write(name, content)?;
    }
    write(checksums::NAME, checksums.to_string().as_bytes())?;
    notes.map_or(Ok(()), |notes| write("release-notes.md", notes.as_bytes()))
}

fn replace(directory: &Path, by: &Path) -> Result<()> {
    remove(directory)?;
    fs::rename(by, directory).with_context(|| format!("cannot write {}", directory.display()))
}

fn remove(directory: &Path) -> Result<()> {
    if directory.exists() {
        fs::remove_dir_all(directory)
            .with_context(|| format!("cannot remove {}", directory.display()))?;
    }
    Ok(())
}

//! Tar archives whose bytes depend on their content only: nothing of the machine, its users or the time.

use std::io::Write as _;

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

/// An archive that is written.
pub(crate) struct Tarball(Builder<Vec<u8>>);

impl Tarball {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// Adds a file.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        let mut header = header(EntryType::Regular, mode);
        header.set_size(content.len().try_into()?);
        Ok(self.0.append_data(&mut header, relative(path), content)?)
    }

    /// Adds a directory.
    pub(crate) fn directory(&mut self, path: &str) -> Result<()> {
        let mut header = header(EntryType::Directory, 0o755);
        let path = format!("{}/", relative(path));
        Ok(self.0.append_data(&mut header, path, &[][..])?)
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let mut header = header(EntryType::Symlink, 0o777);
        Ok(self.0.append_link(&mut header, relative(path), target)?)
    }

    /// The archive.
    pub(crate) fn into_bytes(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }

    /// The archive, compressed by gzip. The compressed bytes depend on the version of flate2.
    pub(crate) fn into_gzip(self) -> Result<Vec<u8>> {
        let mut encoder = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::best());
        encoder.write_all(&self.into_bytes()?)?;
        Ok(encoder.finish()?)
    }
}

/// A header with root as the owner and 1970 as the time.
fn header(kind: EntryType, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(0);
    header
}

fn relative(path: &str) -> &str {
    path.trim_start_matches('/')
}

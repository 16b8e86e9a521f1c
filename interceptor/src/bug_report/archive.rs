//! The archive: tar, compressed with gzip.

use std::{io::Write, time::SystemTime};

use anyhow::Result;
use flate2::{Compression, write::GzEncoder};
use tar::{Builder, Header};

use super::ReportFile;

/// Only the user who made the report can read extracted files.
const MODE: u32 = 0o600;

/// The archive of `files`, all in the directory `dir`.
pub(crate) fn write(dir: &str, files: &[ReportFile]) -> Result<Vec<u8>> {
    let mut archive = Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?;
    for file in files {
        let mut header = Header::new_gnu();
        header.set_size(file.text.len().try_into()?);
        header.set_mode(MODE);
        header.set_mtime(now.as_secs());
        let path = format!("{dir}/{}", file.name);
        archive.append_data(&mut header, path, file.text.as_bytes())?;
    }
    let mut compressed = archive.into_inner()?;
    compressed.flush()?;
    Ok(compressed.finish()?)
}

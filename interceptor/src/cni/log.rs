//! The plugin's log: a line on standard error, and in the log file if the settings name one.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::Path,
};

use tracing_subscriber::fmt::{
    format::Writer,
    time::{FormatTime as _, SystemTime},
};

use crate::stdio::message;

/// The size at which the log file is rotated. One old file is kept.
const MAX_SIZE: u64 = 1 << 20;

/// Logs `line`. A failed write is ignored.
pub(super) fn write(file: Option<&Path>, line: &str) {
    message!("interceptor-cni: {line}");
    if let Some(file) = file {
        let _unwritten = append(file, line);
    }
}

fn append(path: &Path, line: &str) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|file| file.len() >= MAX_SIZE) {
        fs::rename(path, path.with_added_extension("1"))?;
    }
    let mut file = File::options().create(true).append(true).open(path)?;
    // In one call: several plugin processes write concurrently.
    file.write_all(format!("{} {line}\n", now()).as_bytes())
}

fn now() -> String {
    let mut now = String::new();
    match SystemTime.format_time(&mut Writer::new(&mut now)) {
        Ok(()) => now,
        Err(_) => "-".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_file_is_rotated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cni.log");
        let line = "x".repeat(100_000);
        for _ in 0..50 {
            append(&path, &line).unwrap();
        }
        let sizes = fs::read_dir(dir.path()).unwrap();
        let sizes: Vec<_> = sizes
            .map(|file| file.unwrap().metadata().unwrap().len())
            .collect();
        assert_eq!(sizes.len(), 2);
        assert!(
            sizes.iter().all(|size| *size < MAX_SIZE + 200_000),
            "{sizes:?}"
        );
    }
}

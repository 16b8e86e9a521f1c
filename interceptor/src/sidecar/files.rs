//! Watches files by reading them: that works for every file system and every way of replacing a file,
//! such as the symbolic links of a mounted `ConfigMap`.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use futures_util::{Stream, stream};
use tokio::time::sleep;

use super::inputs::{self, Reading};

/// Interval at which the files are read.
const INTERVAL: Duration = Duration::from_secs(1);
/// The same while they change: files that belong together must not be read in the middle of a change.
const SETTLE_INTERVAL: Duration = Duration::from_millis(100);

type Texts = BTreeMap<PathBuf, Reading<String>>;

/// The texts of all files, and again after each change.
pub(super) fn watch(files: Vec<PathBuf>) -> impl Stream<Item = Texts> {
    stream::unfold(None, move |last: Option<Texts>| {
        let files = files.clone();
        async move {
            let texts = match &last {
                None => read(&files).await,
                Some(last) => changed(&files, last).await,
            };
            Some((texts.clone(), Some(texts)))
        }
    })
}

/// Waits for texts that are not `last`, and that do not change any more.
async fn changed(files: &[PathBuf], last: &Texts) -> Texts {
    let mut previous = last.clone();
    loop {
        let texts = read(files).await;
        if texts == previous && texts != *last {
            return texts;
        }
        let is_settled = texts == *last;
        previous = texts;
        sleep(if is_settled {
            INTERVAL
        } else {
            SETTLE_INTERVAL
        })
        .await;
    }
}

async fn read(files: &[PathBuf]) -> Texts {
    let mut texts = Texts::new();
    for path in files {
        texts.insert(path.clone(), inputs::file(path).await);
    }
    texts
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use futures_util::{StreamExt as _, pin_mut};

    use super::*;

    /// As the kubelet does it: all files are links through one link, which is replaced.
    #[tokio::test]
    async fn a_mounted_map_is_read_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let publish = |version: &str| {
            fs::create_dir(path(version)).unwrap();
            for name in ["config", "values"] {
                fs::write(path(version).join(name), version).unwrap();
            }
            symlink(version, path("new")).unwrap();
            fs::rename(path("new"), path("..data")).unwrap();
        };
        publish("one");
        for name in ["config", "values"] {
            symlink(format!("..data/{name}"), path(name)).unwrap();
        }
        let texts = watch(vec![path("config"), path("values")]);
        pin_mut!(texts);
        let all = |text: &str| {
            let names = ["config", "values"].into_iter();
            names
                .map(|name| (path(name), Ok(text.to_owned())))
                .collect()
        };
        assert_eq!(texts.next().await, Some(all("one")));
        publish("two");
        assert_eq!(texts.next().await, Some(all("two")));
        fs::remove_file(path("..data")).unwrap();
        let missing = texts.next().await.unwrap();
        assert!(missing.values().all(Result::is_err), "{missing:?}");
    }
}

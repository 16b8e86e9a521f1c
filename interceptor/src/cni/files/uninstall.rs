//! Removes the plugin from the node.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use tracing::debug;

use super::{
    CniDirs, InstallError, atomic_file,
    conf_dir::{ConfDir, ConfFile, SAVED, shape_of},
};
use crate::{
    bpf::pins::Pins,
    cni::{PLUGIN, conflist::Shape, protocol::remove_socket},
    dataplane::Dataplane,
};

/// Removes our entry from every network, restores saved files, and removes the binary and the agent's
/// socket. Idempotent. Returns what was done.
///
/// Networks first: with a list that names a missing plugin, no pod starts.
///
/// While pods are captured, the plugin stays where it can remove itself: it lets every new pod start,
/// and with the last captured pod it deletes itself and the last pins. With `--keep-cni-plugin`,
/// runtimes call the plugin by the configuration that a pod was created with, so the entry is removed
/// at once.
pub fn uninstall(dirs: &CniDirs) -> Result<Vec<String>, InstallError> {
    uninstall_while(dirs, is_any_pod_captured())
}

/// Whether anything is pinned after a sweep. False in a container without the host's bpffs.
fn is_any_pod_captured() -> bool {
    if let Err(error) = Dataplane::new().end_sandbox(None) {
        debug!("cannot clean up after deleted pods: {error:#}");
    }
    // After an error, the plugin stays.
    Pins::new().exist().unwrap_or(true)
}

pub(crate) fn uninstall_while(dirs: &CniDirs, captured: bool) -> Result<Vec<String>, InstallError> {
    let mut done = Vec::new();
    if dirs.cni_conf_dir.exists() {
        let dir = ConfDir::open(&dirs.cni_conf_dir)?;
        let paths = atomic_file::list(&dir.path).map_err(InstallError::io(&dir.path))?;
        for path in &paths {
            remove_socket_of(path)?;
        }
        if captured && !dirs.keep_cni_plugin {
            for path in &paths {
                done.extend(leave_to_plugin(path)?);
            }
            if !done.is_empty() {
                return Ok(done);
            }
        }
        done.extend(remove_entries(&paths)?);
    }
    if !dirs.keep_cni_plugin {
        done.extend(remove_binary(dirs)?);
    }
    Ok(done)
}

/// Completes an [`uninstall`] that was left to the plugin. Does nothing if an agent has installed the
/// plugin again.
pub fn finish(dirs: &CniDirs) -> Result<Vec<String>, InstallError> {
    let dir = ConfDir::open(&dirs.cni_conf_dir)?;
    let paths = atomic_file::list(&dir.path).map_err(InstallError::io(&dir.path))?;
    let is_uninstalled = |file: &ConfFile| {
        let settings = file.network.our_settings();
        settings.is_some_and(|settings| settings.uninstalled)
    };
    for path in &paths {
        if with_ours(path)?.is_some_and(|file| !is_uninstalled(&file)) {
            return Ok(Vec::new());
        }
    }
    for path in &paths {
        remove_socket_of(path)?;
    }
    let mut done = remove_entries(&paths)?;
    done.extend(remove_binary(dirs)?);
    Ok(done)
}

fn remove_entries(paths: &[PathBuf]) -> Result<Vec<String>, InstallError> {
    let mut done = Vec::new();
    for path in paths {
        done.extend(restore(path)?);
    }
    for path in paths {
        done.extend(remove_entry(path)?);
    }
    Ok(done)
}

fn remove_binary(dirs: &CniDirs) -> Result<Option<String>, InstallError> {
    let binary = dirs.cni_bin_dir.join(PLUGIN);
    let removed = atomic_file::remove(&binary).map_err(InstallError::io(&binary))?;
    Ok(removed.then(|| format!("removed {}", binary.display())))
}

/// The file at `path`, if it contains our plugin. Invalid and deleted files are ignored: runtimes do not
/// use them. A file that cannot be read may contain it, so it is an error.
fn with_ours(path: &Path) -> Result<Option<ConfFile>, InstallError> {
    let Some(shape) = shape_of(path) else {
        return Ok(None);
    };
    match ConfFile::read(path, shape) {
        Ok(file) => Ok(file.network.has_ours().then_some(file)),
        Err(InstallError::Unusable { .. }) => Ok(None),
        Err(InstallError::Io { error, .. })
            if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::InvalidData) =>
        {
            Ok(None)
        }
        Err(other) => Err(other),
    }
}

/// Removes the agent's socket that the file at `path` names.
fn remove_socket_of(path: &Path) -> Result<(), InstallError> {
    let settings = with_ours(path)?.and_then(|file| file.network.our_settings());
    settings.map_or(Ok(()), |settings| {
        remove_socket(&settings.socket).map_err(InstallError::io(&settings.socket))
    })
}

/// Leaves the rest of the uninstallation to the plugin, if the plugin is chained in the file at `path`
/// and its settings contain the directory.
fn leave_to_plugin(path: &Path) -> Result<Option<String>, InstallError> {
    let Some(file) = with_ours(path)? else {
        return Ok(None);
    };
    let is_alone = file.network.types().iter().all(|name| *name == PLUGIN);
    let settings = file.network.our_settings();
    let knows_dir = settings.is_some_and(|settings| settings.conf_dir.is_some());
    if is_alone || !knows_dir {
        return Ok(None);
    }
    file.replace(&file.network.clone().with_ours_uninstalled())?;
    Ok(Some(format!(
        "{PLUGIN} stays in {} until the last captured pod terminates, and allows every new pod",
        path.display()
    )))
}

/// Removes our entry from the file at `path`, if it has one.
fn remove_entry(path: &Path) -> Result<Option<String>, InstallError> {
    let shown = path.display();
    let Some(file) = with_ours(path)? else {
        return Ok(None);
    };
    if file.network.types().iter().all(|name| *name == PLUGIN) || replaces_single(&file) {
        atomic_file::remove(path).map_err(InstallError::io(path))?;
        return Ok(Some(format!("removed {shown}")));
    }
    file.replace(&file.network.clone().without_ours())?;
    Ok(Some(format!("removed {PLUGIN} from {shown}")))
}

/// Whether `list` was made by us of a `.conf` that still exists. Then we were killed before one of both
/// was removed.
fn replaces_single(list: &ConfFile) -> bool {
    ["conf", "json"].into_iter().any(|extension| {
        let single = ConfFile::read(&list.path.with_extension(extension), Shape::Single);
        list.shape == Shape::List && single.is_ok_and(|single| list.is_only_ours(&single.network))
    })
}

/// Restores the `.conf` that was saved at `saved`, and removes the list that replaced it. If another
/// program has changed the list, it stays, as the changes would be lost.
fn restore(saved: &Path) -> Result<Option<String>, InstallError> {
    if saved.extension().is_none_or(|extension| extension != SAVED) {
        return Ok(None);
    }
    let original = saved.with_extension("");
    let list = original.with_extension("conflist");
    let single = shape_of(&original).map(|_| ConfFile::read(saved, Shape::Single));
    let wrapped = ConfFile::read(&list, Shape::List);
    let (Some(Ok(single)), Ok(wrapped)) = (single, wrapped) else {
        return Ok(Some(format!("kept {} unchanged", saved.display())));
    };
    if original.exists() || !wrapped.is_only_ours(&single.network) {
        let kept = format!("kept {}, which another program has changed", list.display());
        return Ok(Some(kept));
    }
    // Until both steps are done, runtimes use whichever of both files is first in order.
    fs::rename(saved, &original)
        .and_then(|()| atomic_file::remove(&list))
        .map_err(InstallError::io(saved))?;
    Ok(Some(format!("restored {}", original.display())))
}

//! Removes the plugin from the node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use tracing::debug;

use super::{
    CniFolders, NotInstalled, atomic_file,
    conf_dir::{ConfDir, ConfFile, SAVED, shape_of},
};
use crate::{
    bpf::pins::Pins,
    cni::{PLUGIN, conflist::Shape, protocol::remove_socket},
    dataplane::Dataplane,
};

/// Takes our entry out of every network, brings back what we have hidden, and removes the binary and
/// the agent's socket. Answers with what it has done. Twice is once.
///
/// Networks first: a runtime that finds the plugin named but not there starts no pod.
///
/// While pods are captured the plugin stays where its end can be left to it: it lets every new pod pass,
/// and takes itself and the last pins off the node with the last captured pod. Runtimes that call it by
/// the configuration that a pod was set up with need no entry for that.
pub fn uninstall(folders: &CniFolders) -> Result<Vec<String>, NotInstalled> {
    uninstall_while(folders, is_any_pod_captured())
}

/// Whether anything is pinned after what is kept for pods that are gone was removed. A container that
/// does not see the host's bpffs sees none.
fn is_any_pod_captured() -> bool {
    if let Err(error) = Dataplane::new().end_sandbox(None) {
        debug!("cannot clean up after deleted pods: {error:#}");
    }
    Pins::new().exist()
}

pub(crate) fn uninstall_while(
    folders: &CniFolders,
    captured: bool,
) -> Result<Vec<String>, NotInstalled> {
    let mut done = Vec::new();
    if folders.cni_conf_dir.exists() {
        let dir = ConfDir::open(&folders.cni_conf_dir)?;
        let paths = atomic_file::list(&dir.path).map_err(NotInstalled::io(&dir.path))?;
        for path in &paths {
            remove_socket_of(path)?;
        }
        if captured && !folders.keep_cni_plugin {
            for path in &paths {
                done.extend(leave_to_plugin(path)?);
            }
            if !done.is_empty() {
                return Ok(done);
            }
        }
        done.extend(remove_entries(&paths)?);
    }
    if !folders.keep_cni_plugin {
        done.extend(remove_binary(folders)?);
    }
    Ok(done)
}

/// Ends what [`uninstall`] has left to the plugin. Nothing is done where the plugin is installed again:
/// an agent has come back.
pub fn finish(folders: &CniFolders) -> Result<Vec<String>, NotInstalled> {
    let dir = ConfDir::open(&folders.cni_conf_dir)?;
    let paths = atomic_file::list(&dir.path).map_err(NotInstalled::io(&dir.path))?;
    let is_uninstalled = |file: &ConfFile| {
        let settings = file.network.our_settings();
        settings.is_some_and(|settings| settings.uninstalled)
    };
    let mut ours = paths.iter().filter_map(|path| with_ours(path));
    if ours.any(|file| !is_uninstalled(&file)) {
        return Ok(Vec::new());
    }
    for path in &paths {
        remove_socket_of(path)?;
    }
    let mut done = remove_entries(&paths)?;
    done.extend(remove_binary(folders)?);
    Ok(done)
}

fn remove_entries(paths: &[PathBuf]) -> Result<Vec<String>, NotInstalled> {
    let mut done = Vec::new();
    for path in paths {
        done.extend(bring_back(path)?);
    }
    for path in paths {
        done.extend(clean(path)?);
    }
    Ok(done)
}

fn remove_binary(folders: &CniFolders) -> Result<Option<String>, NotInstalled> {
    let binary = folders.cni_bin_dir.join(PLUGIN);
    let removed = atomic_file::remove(&binary).map_err(NotInstalled::io(&binary))?;
    Ok(removed.then(|| format!("removed {}", binary.display())))
}

/// The file at `path`, if our plugin is in it. (What no runtime takes calls no plugin, and is not ours
/// to repair.)
fn with_ours(path: &Path) -> Option<ConfFile> {
    let file = ConfFile::read(path, shape_of(path)?).ok()?;
    file.network.has_ours().then_some(file)
}

/// Removes the socket of the agent that the file at `path` names.
fn remove_socket_of(path: &Path) -> Result<(), NotInstalled> {
    let settings = with_ours(path).and_then(|file| file.network.our_settings());
    settings.map_or(Ok(()), |settings| {
        remove_socket(&settings.socket).map_err(NotInstalled::io(&settings.socket))
    })
}

/// Leaves it to the plugin to end what is left, if it is chained in the file at `path` and knows where
/// that is.
fn leave_to_plugin(path: &Path) -> Result<Option<String>, NotInstalled> {
    let Some(file) = with_ours(path) else {
        return Ok(None);
    };
    let is_alone = file.network.types().iter().all(|name| *name == PLUGIN);
    let settings = file.network.our_settings();
    let knows_where = settings.is_some_and(|settings| settings.conf_dir.is_some());
    if is_alone || !knows_where {
        return Ok(None);
    }
    file.replace(&file.network.clone().with_ours_uninstalled())?;
    Ok(Some(format!(
        "{PLUGIN} stays in {} until the last captured pod terminates, and allows every new pod",
        path.display()
    )))
}

/// Takes our entry out of the file at `path`, if it has one.
fn clean(path: &Path) -> Result<Option<String>, NotInstalled> {
    let shown = path.display();
    let Some(file) = with_ours(path) else {
        return Ok(None);
    };
    if file.network.types().iter().all(|name| *name == PLUGIN) || stands_in(&file) {
        atomic_file::remove(path).map_err(NotInstalled::io(path))?;
        return Ok(Some(format!("removed {shown}")));
    }
    file.replace(&file.network.clone().without_ours())?;
    Ok(Some(format!("removed {PLUGIN} from {shown}")))
}

/// Is it a list that we have made of a `.conf` which is there? Then we were killed before the one or
/// the other was gone.
fn stands_in(list: &ConfFile) -> bool {
    ["conf", "json"].into_iter().any(|extension| {
        let single = ConfFile::read(&list.path.with_extension(extension), Shape::Single);
        list.shape == Shape::List && single.is_ok_and(|single| list.is_only_ours(&single.network))
    })
}

/// Brings back the `.conf` that was saved at `saved`, if it was, and removes the list that stood in
/// for it; but not a list that others have changed since: they would lose what they did.
fn bring_back(saved: &Path) -> Result<Option<String>, NotInstalled> {
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
    // It comes first in the runtimes' order, or its list does: they find one of the two.
    fs::rename(saved, &original)
        .and_then(|()| atomic_file::remove(&list))
        .map_err(NotInstalled::io(saved))?;
    Ok(Some(format!("restored {}", original.display())))
}

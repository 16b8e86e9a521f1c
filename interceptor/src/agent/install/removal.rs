//! Taking the plugin off the node.

use std::{fs, path::Path};

use super::{
    CniFolders, NotInstalled, files,
    folder::{ConfFile, Folder, SAVED, shape_of},
};
use crate::cni::{PLUGIN, conflist::Shape};

/// Takes our entry out of every network, brings back what we have hidden, and removes the binary.
/// Answers with what it has done. Twice is once.
///
/// Networks first: a runtime that finds the plugin named but not there starts no pod.
pub fn uninstall(folders: &CniFolders) -> Result<Vec<String>, NotInstalled> {
    let mut done = Vec::new();
    if folders.cni_conf_dir.exists() {
        let folder = Folder::open(&folders.cni_conf_dir)?;
        let paths = files::list(&folder.path).map_err(NotInstalled::io(&folder.path))?;
        for path in &paths {
            done.extend(bring_back(path)?);
        }
        for path in &paths {
            done.extend(clean(path)?);
        }
    }
    if folders.keep_cni_plugin {
        return Ok(done);
    }
    let binary = folders.cni_bin_dir.join(PLUGIN);
    if files::remove(&binary).map_err(NotInstalled::io(&binary))? {
        done.push(format!("removed {}", binary.display()));
    }
    Ok(done)
}

/// Takes our entry out of the file at `path`, if it has one.
fn clean(path: &Path) -> Result<Option<String>, NotInstalled> {
    let shown = path.display();
    let Some(shape) = shape_of(path) else {
        return Ok(None);
    };
    // What no runtime takes calls no plugin, and is not ours to repair.
    let Ok(file) = ConfFile::read(path, shape) else {
        return Ok(None);
    };
    if !file.network.has_ours() {
        return Ok(None);
    }
    if file.network.types().iter().all(|name| *name == PLUGIN) || stands_in(&file) {
        files::remove(path).map_err(NotInstalled::io(path))?;
        return Ok(Some(format!("removed {shown}")));
    }
    file.replace(&file.network.clone().without_ours())?;
    Ok(Some(format!("took {PLUGIN} out of {shown}")))
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
        return Ok(Some(format!("left {} as it is", saved.display())));
    };
    if original.exists() || !wrapped.is_only_ours(&single.network) {
        let kept = format!("{}: kept, others have changed it", list.display());
        return Ok(Some(kept));
    }
    // It comes first in the runtimes' order, or its list does: they find one of the two.
    fs::rename(saved, &original)
        .and_then(|()| files::remove(&list))
        .map_err(NotInstalled::io(saved))?;
    Ok(Some(format!("brought back {}", original.display())))
}

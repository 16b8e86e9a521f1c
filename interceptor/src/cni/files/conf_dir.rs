//! The directory of network configurations. Files are read as container runtimes read them.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::Flock;

use super::{InstallError, atomic_file, binary};
use crate::cni::conflist::{Network, Shape, Unusable};

/// The extension that is appended to a `.conf` that was converted to a list: runtimes ignore the file,
/// and the uninstallation restores it.
pub(crate) const SAVED: &str = "interceptor-saved";

/// The directory, locked against other processes of Interceptor.
pub(crate) struct ConfDir {
    pub(crate) path: PathBuf,
    _lock: Flock<File>,
}

/// A network's file, as read.
pub(crate) struct ConfFile {
    pub(crate) path: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) network: Network,
    text: String,
}

/// The format of a file, by its extension. `None` if runtimes ignore it.
pub(crate) fn shape_of(path: &Path) -> Option<Shape> {
    match path.extension().and_then(OsStr::to_str)? {
        "conflist" => Some(Shape::List),
        "conf" | "json" => Some(Shape::Single),
        _ => None,
    }
}

impl ConfDir {
    /// Locks the directory at `path`, and creates it if it is missing.
    pub(crate) fn open(path: &Path) -> Result<Self, InstallError> {
        let open = || {
            fs::create_dir_all(path)?;
            let lock = binary::lock(path)?;
            atomic_file::remove_unfinished(path)?;
            Ok(lock)
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: open().map_err(InstallError::io(path))?,
        })
    }

    /// The pod network: the file `name`, or the first that a runtime accepts.
    pub(crate) fn network(&self, name: Option<&str>) -> Result<ConfFile, InstallError> {
        match name {
            Some(name) => self.named(name),
            None => self.first(),
        }
    }

    fn named(&self, name: &str) -> Result<ConfFile, InstallError> {
        let named = self.path.join(name);
        // A pass may have converted it to a list.
        let list = named.with_extension("conflist");
        let existing = [named, list].into_iter().find(|path| path.exists());
        let path = existing.ok_or_else(|| self.no_network(Vec::new()))?;
        let Some(shape) = shape_of(&path) else {
            let why = Unusable::Lacks("ending .conflist, .conf or .json in its name");
            return Err(InstallError::Unusable { file: path, why });
        };
        ConfFile::read(&path, shape)
    }

    fn first(&self) -> Result<ConfFile, InstallError> {
        let mut passed = Vec::new();
        for network in self.networks()? {
            match network {
                // Our stand-alone network is not the pod network.
                Ok(file) if file.network.types() == [crate::cni::PLUGIN] => {}
                Ok(file) => return Ok(file),
                Err(error) => passed.push(error.to_string()),
            }
        }
        Err(self.no_network(passed))
    }

    /// All files that runtimes may read, in their order, or the errors of unusable ones.
    pub(crate) fn networks(
        &self,
    ) -> Result<impl Iterator<Item = Result<ConfFile, InstallError>>, InstallError> {
        let paths = atomic_file::list(&self.path).map_err(InstallError::io(&self.path))?;
        let networks = paths.into_iter().filter_map(|path| {
            let shape = shape_of(&path)?;
            Some(ConfFile::read(&path, shape))
        });
        Ok(networks)
    }

    fn no_network(&self, passed: Vec<String>) -> InstallError {
        InstallError::NoNetwork {
            dir: self.path.clone(),
            passed,
        }
    }
}

impl ConfFile {
    pub(crate) fn read(path: &Path, shape: Shape) -> Result<Self, InstallError> {
        let text = fs::read_to_string(path).map_err(InstallError::io(path))?;
        let network = Network::parse(shape, &text).map_err(|why| InstallError::Unusable {
            file: path.to_owned(),
            why,
        })?;
        Ok(Self {
            path: path.to_owned(),
            shape,
            network,
            text,
        })
    }

    /// Replaces the file's content by `network`.
    pub(crate) fn replace(&self, network: &Network) -> Result<(), InstallError> {
        self.write(&self.path, network)
    }

    /// Converts the file to a list: writes the list, and renames the original. Until the rename,
    /// runtimes use whichever of both files is first in order.
    pub(crate) fn wrap(&self, list: &Network) -> Result<PathBuf, InstallError> {
        let path = self.path.with_extension("conflist");
        if path.exists() && !self.is_wrapped_in(&path) {
            return Err(InstallError::InTheWay {
                single: self.path.clone(),
                list: path,
            });
        }
        self.write(&path, list)?;
        self.copy_mode_to(&path)
            .and_then(|()| fs::rename(&self.path, saved(&self.path)))
            .and_then(|()| atomic_file::sync_dir(&self.path))
            .map_err(InstallError::io(&self.path))?;
        Ok(path)
    }

    fn copy_mode_to(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::metadata(&self.path)?.permissions())
    }

    /// Whether the list at `path` consists of this plugin and ours. Then an earlier conversion was
    /// killed.
    fn is_wrapped_in(&self, path: &Path) -> bool {
        ConfFile::read(path, Shape::List).is_ok_and(|list| list.is_only_ours(&self.network))
    }

    /// Whether the list was made by us of `single`, and is unchanged since.
    pub(crate) fn is_only_ours(&self, single: &Network) -> bool {
        self.network.has_ours() && self.network.clone().without_ours() == single.clone().into_list()
    }

    fn write(&self, path: &Path, network: &Network) -> Result<(), InstallError> {
        let text = network.to_text();
        Network::parse(Shape::List, &text).map_err(|why| InstallError::Unusable {
            file: path.to_owned(),
            why,
        })?;
        // If another program has changed the file in the meantime, the next pass reads it again.
        if !fs::read_to_string(&self.path).is_ok_and(|now| now == self.text) {
            return Err(InstallError::Changing(self.path.clone()));
        }
        atomic_file::write(path, &text).map_err(InstallError::io(path))
    }
}

/// The path of the saved `.conf` after its conversion to a list.
pub(crate) fn saved(path: &Path) -> PathBuf {
    path.with_added_extension(SAVED)
}

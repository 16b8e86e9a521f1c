//! The directory of network configurations, as runtimes read it.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use nix::fcntl::Flock;

use super::{NotInstalled, atomic_file, binary};
use crate::cni::conflist::{Network, Shape, Unusable};

/// Appended to the name of a `.conf` that has become a list, so that no runtime reads it and
/// uninstalling finds it.
pub(crate) const SAVED: &str = "interceptor-saved";

/// The directory. Others of us wait until it is dropped.
pub(crate) struct ConfDir {
    pub(crate) path: PathBuf,
    _lock: Flock<File>,
}

/// A network's file, as it was read.
pub(crate) struct ConfFile {
    pub(crate) path: PathBuf,
    pub(crate) shape: Shape,
    pub(crate) network: Network,
    text: String,
}

/// How a file of that name is read, if it is at all.
pub(crate) fn shape_of(path: &Path) -> Option<Shape> {
    match path.extension().and_then(OsStr::to_str)? {
        "conflist" => Some(Shape::List),
        "conf" | "json" => Some(Shape::Single),
        _ => None,
    }
}

impl ConfDir {
    /// The directory at `path`, which is made if the node is so new that it has none.
    pub(crate) fn open(path: &Path) -> Result<Self, NotInstalled> {
        let open = || {
            fs::create_dir_all(path)?;
            let lock = binary::lock(path)?;
            atomic_file::remove_unfinished(path)?;
            Ok(lock)
        };
        Ok(Self {
            path: path.to_owned(),
            _lock: open().map_err(NotInstalled::io(path))?,
        })
    }

    /// The network that pods get: the named one, or the first that a runtime takes.
    pub(crate) fn network(&self, name: Option<&str>) -> Result<ConfFile, NotInstalled> {
        match name {
            Some(name) => self.named(name),
            None => self.first(),
        }
    }

    fn named(&self, name: &str) -> Result<ConfFile, NotInstalled> {
        let named = self.path.join(name);
        // It may be a list by now.
        let list = named.with_extension("conflist");
        let there = [named, list].into_iter().find(|path| path.exists());
        let path = there.ok_or_else(|| self.no_network(Vec::new()))?;
        let Some(shape) = shape_of(&path) else {
            let why = Unusable::Lacks("ending .conflist, .conf or .json in its name");
            return Err(NotInstalled::Unusable { file: path, why });
        };
        ConfFile::read(&path, shape)
    }

    fn first(&self) -> Result<ConfFile, NotInstalled> {
        let mut passed = Vec::new();
        for network in self.networks()? {
            match network {
                // Our own network is nobody's first.
                Ok(file) if file.network.types() == [crate::cni::PLUGIN] => {}
                Ok(file) => return Ok(file),
                Err(error) => passed.push(error.to_string()),
            }
        }
        Err(self.no_network(passed))
    }

    /// All that runtimes might read, in their order; and why others are none.
    pub(crate) fn networks(
        &self,
    ) -> Result<impl Iterator<Item = Result<ConfFile, NotInstalled>>, NotInstalled> {
        let paths = atomic_file::list(&self.path).map_err(NotInstalled::io(&self.path))?;
        let networks = paths.into_iter().filter_map(|path| {
            let shape = shape_of(&path)?;
            Some(ConfFile::read(&path, shape))
        });
        Ok(networks)
    }

    fn no_network(&self, passed: Vec<String>) -> NotInstalled {
        NotInstalled::NoNetwork {
            dir: self.path.clone(),
            passed,
        }
    }
}

impl ConfFile {
    pub(crate) fn read(path: &Path, shape: Shape) -> Result<Self, NotInstalled> {
        let text = fs::read_to_string(path).map_err(NotInstalled::io(path))?;
        let network = Network::parse(shape, &text).map_err(|why| NotInstalled::Unusable {
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

    /// Writes `network` in its place.
    pub(crate) fn replace(&self, network: &Network) -> Result<(), NotInstalled> {
        self.write(&self.path, network)
    }

    /// Writes the list that it becomes, and hides it. Until the last step runtimes read the one or
    /// the other, whichever is first in order.
    pub(crate) fn wrap(&self, list: &Network) -> Result<PathBuf, NotInstalled> {
        let path = self.path.with_extension("conflist");
        if path.exists() && !self.is_wrapped_in(&path) {
            return Err(NotInstalled::InTheWay {
                single: self.path.clone(),
                list: path,
            });
        }
        self.write(&path, list)?;
        self.take_mode_to(&path)
            .and_then(|()| fs::rename(&self.path, saved(&self.path)))
            .and_then(|()| atomic_file::sync_dir(&self.path))
            .map_err(NotInstalled::io(&self.path))?;
        Ok(path)
    }

    fn take_mode_to(&self, path: &Path) -> io::Result<()> {
        fs::set_permissions(path, fs::metadata(&self.path)?.permissions())
    }

    /// Is the list at `path` this plugin and ours? Then we were killed over it.
    fn is_wrapped_in(&self, path: &Path) -> bool {
        ConfFile::read(path, Shape::List).is_ok_and(|list| list.is_only_ours(&self.network))
    }

    /// Is it what we have made of `single`, and no process has changed it?
    pub(crate) fn is_only_ours(&self, single: &Network) -> bool {
        self.network.has_ours() && self.network.clone().without_ours() == single.clone().into_list()
    }

    fn write(&self, path: &Path, network: &Network) -> Result<(), NotInstalled> {
        let text = network.to_text();
        Network::parse(Shape::List, &text).map_err(|why| NotInstalled::Unusable {
            file: path.to_owned(),
            why,
        })?;
        // What another has written in the meantime is read first.
        if !fs::read_to_string(&self.path).is_ok_and(|now| now == self.text) {
            return Err(NotInstalled::Changing(self.path.clone()));
        }
        atomic_file::write(path, &text).map_err(NotInstalled::io(path))
    }
}

/// Where a `.conf` that has become a list is kept.
pub(crate) fn saved(path: &Path) -> PathBuf {
    path.with_added_extension(SAVED)
}

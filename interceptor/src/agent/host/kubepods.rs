//! The paths of kubelet's cgroups, for both cgroup drivers.
//!
//! kubelet creates a pod's cgroup before it requests a sandbox from the runtime, names it by the pod's
//! UID, and keeps it while containers are replaced (`pkg/kubelet/cm/pod_container_manager_linux.go`).

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

/// The maximum depth of kubelet's cgroup: `/kubelet.slice/kubelet-kubepods.slice` in kind.
const DEPTH: u32 = 2;

/// The `QoS` classes with a cgroup of their own. (The class "guaranteed" has none.)
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// kubelet's cgroup that contains those of all pods.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubepods {
    path: PathBuf,
    /// The prefix of names with the systemd driver; `None` with the cgroupfs driver.
    slice: Option<String>,
}

impl Kubepods {
    /// The cgroup at `path`, if its name is one of kubelet's.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_kubelets = match name.strip_suffix(".slice") {
            Some(stem) => stem == "kubepods" || stem.ends_with("-kubepods"),
            None => name == "kubepods",
        };
        is_kubelets.then(|| Self::named(path))
    }

    /// The cgroup at `path`, with any name.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str());
        let slice = name.and_then(|name| name.strip_suffix(".slice"));
        Self {
            path: path.to_owned(),
            slice: slice.map(str::to_owned),
        }
    }

    /// All of them below `root`. A node has two after a change of its driver.
    #[must_use]
    pub fn find(root: &Path) -> Vec<Self> {
        let mut found = Vec::new();
        collect(root, DEPTH, &mut found);
        found
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The existing directories that contain pods' cgroups.
    #[must_use]
    pub fn dirs(&self) -> Vec<PathBuf> {
        let classes = CLASSES.iter().map(|class| self.class(Some(class)));
        let all = iter::once(self.path.clone()).chain(classes);
        all.filter(|dir| dir.is_dir()).collect()
    }

    /// The cgroup of the pod with this UID, if it exists.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<PathBuf> {
        self.names(uid).into_iter().find(|path| path.is_dir())
    }

    /// The UID of the pod with the cgroup at this path. (UIDs have no underscores.)
    #[must_use]
    pub fn uid(pod: &Path) -> Option<String> {
        let name = pod.file_name()?.to_str()?;
        let (_, uid) = name
            .strip_suffix(".slice")
            .unwrap_or(name)
            .rsplit_once("pod")?;
        (!uid.is_empty()).then(|| uid.replace('_', "-"))
    }

    /// The possible paths of a pod's cgroup, one for each `QoS` class.
    fn names(&self, uid: &str) -> Vec<PathBuf> {
        let classes = CLASSES.iter().copied().map(Some).chain([None]);
        let name = |class: Option<&str>| match &self.slice {
            // A dash separates the names of the parent and the slice (systemd.slice(5)).
            Some(stem) => {
                let class = class.map_or_else(String::new, |class| format!("-{class}"));
                format!("{stem}{class}-pod{}.slice", uid.replace('-', "_"))
            }
            None => format!("pod{uid}"),
        };
        classes
            .map(|class| self.class(class).join(name(class)))
            .collect()
    }

    fn class(&self, class: Option<&str>) -> PathBuf {
        match (class, &self.slice) {
            (None, _) => self.path.clone(),
            (Some(class), Some(stem)) => self.path.join(format!("{stem}-{class}.slice")),
            (Some(class), None) => self.path.join(class),
        }
    }
}

fn collect(dir: &Path, depth: u32, found: &mut Vec<Kubepods>) {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    for path in entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
    {
        if let Some(kubepods) = Kubepods::at(&path) {
            found.push(kubepods);
        } else if depth > 1 {
            collect(&path, depth - 1, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "2f9b1c34-0f3a-4b6e-8f0e-6a2d1c9e7b55";
    const IN_SLICES: &str = "2f9b1c34_0f3a_4b6e_8f0e_6a2d1c9e7b55";

    fn names(kubepods: &str) -> Vec<String> {
        let kubepods = Kubepods::at(Path::new(kubepods)).unwrap();
        let names = kubepods.names(UID);
        let names = names
            .iter()
            .map(|path| path.strip_prefix(kubepods.path()).unwrap());
        names.map(|path| path.display().to_string()).collect()
    }

    #[test]
    fn the_systemd_driver_includes_parents_in_names() {
        let expected = [
            format!("kubepods-burstable.slice/kubepods-burstable-pod{IN_SLICES}.slice"),
            format!("kubepods-besteffort.slice/kubepods-besteffort-pod{IN_SLICES}.slice"),
            format!("kubepods-pod{IN_SLICES}.slice"),
        ];
        assert_eq!(names("/sys/fs/cgroup/kubepods.slice"), expected);
    }

    #[test]
    fn a_nested_slice_has_the_outer_name_as_prefix() {
        let expected = [
            format!(
                "kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{IN_SLICES}.slice"
            ),
            format!(
                "kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{IN_SLICES}.slice"
            ),
            format!("kubelet-kubepods-pod{IN_SLICES}.slice"),
        ];
        assert_eq!(names("/x/kubelet.slice/kubelet-kubepods.slice"), expected);
    }

    #[test]
    fn the_cgroupfs_driver_uses_plain_names() {
        let expected = [
            format!("burstable/pod{UID}"),
            format!("besteffort/pod{UID}"),
            format!("pod{UID}"),
        ];
        assert_eq!(names("/sys/fs/cgroup/kubepods"), expected);
        assert_eq!(names("/sys/fs/cgroup/kubelet/kubepods"), expected);
    }

    #[test]
    fn every_name_of_a_pods_cgroup_contains_its_uid() {
        for kubepods in [
            "/a/kubepods.slice",
            "/b/kubelet-kubepods.slice",
            "/c/kubepods",
        ] {
            for name in Kubepods::named(Path::new(kubepods)).names(UID) {
                assert_eq!(
                    Kubepods::uid(&name).as_deref(),
                    Some(UID),
                    "{}",
                    name.display()
                );
            }
        }
        assert_eq!(Kubepods::uid(Path::new("/a/system.slice")), None);
    }

    #[test]
    fn other_cgroups_are_not_kubelets() {
        for other in [
            "/x/system.slice",
            "/x/kubepods-burstable.slice",
            "/x/mykubepods",
            "/",
        ] {
            assert_eq!(Kubepods::at(Path::new(other)), None, "{other}");
        }
    }

    #[test]
    fn a_nested_kubepods_cgroup_is_found() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join(format!(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{IN_SLICES}.slice"
        ));
        fs::create_dir_all(&pod).unwrap();
        fs::create_dir_all(root.path().join("system.slice/x.service/kubepods")).unwrap();
        let [found] = &Kubepods::find(root.path())[..] else {
            panic!("one must be found");
        };
        assert_eq!(found.pod(UID), Some(pod));
        assert_eq!(found.pod("another"), None);
    }
}

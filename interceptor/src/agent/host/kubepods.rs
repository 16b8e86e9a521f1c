//! kubelet's cgroups: where a pod's is, whatever the driver.
//!
//! kubelet makes a pod's cgroup before it asks the runtime for a sandbox, names it by the pod's UID,
//! and keeps it while containers come and go (`pkg/kubelet/cm/pod_container_manager_linux.go`).

use std::{
    fs, iter,
    path::{Path, PathBuf},
};

/// How deep kubelet's own cgroup may be: `/kubelet.slice/kubelet-kubepods.slice` in kind.
const DEPTH: u32 = 2;

/// What classes other than "guaranteed" are called, whose pods have none.
const CLASSES: [&str; 2] = ["burstable", "besteffort"];

/// The cgroup that kubelet has all pods' below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kubepods {
    path: PathBuf,
    /// What the systemd driver's names begin with; none are of the cgroupfs driver.
    slice: Option<String>,
}

impl Kubepods {
    /// The cgroup at `path`, if kubelet names one so.
    #[must_use]
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let is_kubelets = match name.strip_suffix(".slice") {
            Some(stem) => stem == "kubepods" || stem.ends_with("-kubepods"),
            None => name == "kubepods",
        };
        is_kubelets.then(|| Self::named(path))
    }

    /// The cgroup at `path`, which is said to be it.
    #[must_use]
    pub fn named(path: &Path) -> Self {
        let name = path.file_name().and_then(|name| name.to_str());
        let slice = name.and_then(|name| name.strip_suffix(".slice"));
        Self {
            path: path.to_owned(),
            slice: slice.map(str::to_owned),
        }
    }

    /// Those below `root`. There are two where a node's driver was changed.
    #[must_use]
    pub fn find(root: &Path) -> Vec<Self> {
        let mut found = Vec::new();
        collect(root, DEPTH, &mut found);
        found
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directories that pods' cgroups are made in, as far as they are there.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let classes = CLASSES.iter().map(|class| self.class(Some(class)));
        let all = iter::once(self.path.clone()).chain(classes);
        all.filter(|folder| folder.is_dir()).collect()
    }

    /// The cgroup of the pod with this UID, if it is there.
    #[must_use]
    pub fn pod(&self, uid: &str) -> Option<PathBuf> {
        self.names(uid).into_iter().find(|path| path.is_dir())
    }

    /// The UID of the pod whose cgroup is called so. (No UID has an underscore.)
    #[must_use]
    pub fn uid(pod: &Path) -> Option<String> {
        let name = pod.file_name()?.to_str()?;
        let (_, uid) = name
            .strip_suffix(".slice")
            .unwrap_or(name)
            .rsplit_once("pod")?;
        (!uid.is_empty()).then(|| uid.replace('_', "-"))
    }

    /// What it would be called, for each class that the pod may be of.
    fn names(&self, uid: &str) -> Vec<PathBuf> {
        let classes = CLASSES.iter().copied().map(Some).chain([None]);
        let name = |class: Option<&str>| match &self.slice {
            // A dash separates a slice from the one that it is in (systemd.slice(5)).
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

fn collect(folder: &Path, depth: u32, found: &mut Vec<Kubepods>) {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
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
    fn the_systemd_driver_names_slices_by_where_they_are() {
        let expected = [
            format!("kubepods-burstable.slice/kubepods-burstable-pod{IN_SLICES}.slice"),
            format!("kubepods-besteffort.slice/kubepods-besteffort-pod{IN_SLICES}.slice"),
            format!("kubepods-pod{IN_SLICES}.slice"),
        ];
        assert_eq!(names("/sys/fs/cgroup/kubepods.slice"), expected);
    }

    #[test]
    fn nested_as_in_kind_the_outer_slice_is_part_of_the_name() {
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
    fn the_cgroupfs_driver_names_folders() {
        let expected = [
            format!("burstable/pod{UID}"),
            format!("besteffort/pod{UID}"),
            format!("pod{UID}"),
        ];
        assert_eq!(names("/sys/fs/cgroup/kubepods"), expected);
        assert_eq!(names("/sys/fs/cgroup/kubelet/kubepods"), expected);
    }

    #[test]
    fn every_name_of_a_pods_cgroup_tells_its_uid() {
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
    fn it_is_found_wherever_kubelet_makes_it() {
        let root = tempfile::tempdir().unwrap();
        let pod = root.path().join(format!(
            "kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{IN_SLICES}.slice"
        ));
        fs::create_dir_all(&pod).unwrap();
        fs::create_dir_all(root.path().join("system.slice/x.service/kubepods")).unwrap();
        let [found] = &Kubepods::find(root.path())[..] else {
            panic!("one is to be found");
        };
        assert_eq!(found.pod(UID), Some(pod));
        assert_eq!(found.pod("another"), None);
    }
}

//! Whether sidecars are native: init containers that keep running.

use std::{collections::BTreeSet, fmt};

use clap::ValueEnum;

/// The option `--native-sidecar`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum NativeSidecar {
    /// If all kubelets of the cluster support it
    #[default]
    Auto,
    True,
    False,
}

/// A version of Kubernetes, without the patch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    major: u32,
    minor: u32,
}

impl Version {
    /// Native sidecars are enabled by default.
    pub(super) const ENABLED: Self = Self {
        major: 1,
        minor: 29,
    };
    /// Native sidecars are stable: the version that Istio requires.
    pub(super) const STABLE: Self = Self {
        major: 1,
        minor: 33,
    };

    /// Of `v1.33.1-gke.1000`. A version that cannot be parsed counts as older than all others, as in
    /// Istio.
    fn parse(text: &str) -> Self {
        let mut numbers = text.trim_start_matches('v').split('.').map(str::parse);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => Self { major, minor },
            _ => Self::default(),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

/// The kubelet of a node. Older ones are less than newer ones.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Kubelet {
    version: Version,
    node: String,
    reported: String,
}

impl Kubelet {
    /// The kubelet of `node`, which has reported this version.
    pub(super) fn new(node: &str, reported: &str) -> Self {
        Self {
            version: Version::parse(reported),
            node: node.to_owned(),
            reported: reported.to_owned(),
        }
    }

    /// Why sidecars are not native, if this kubelet is older than `minimum`.
    pub(super) fn objection(&self, minimum: Version) -> Option<String> {
        let Self { node, reported, .. } = self;
        (self.version < minimum).then(|| {
            format!(
                "sidecars are not native: the kubelet of node {node} has version {reported:?}, and \
                 {minimum} is required (--native-sidecar auto)"
            )
        })
    }
}

/// What the kubelets of all nodes say about native sidecars.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Kubelets {
    /// The oldest one, if there is a node.
    pub(super) oldest: Option<Kubelet>,
    /// The nodes whose kubelet supports native sidecars; none if all do.
    pub(super) exceptions: BTreeSet<String>,
}

impl Kubelets {
    /// Of these nodes, where native sidecars require `minimum`.
    pub(super) fn of(kubelets: impl IntoIterator<Item = Kubelet>, minimum: Version) -> Self {
        let kubelets: BTreeSet<_> = kubelets.into_iter().collect();
        let oldest = kubelets.first().cloned();
        let (old, new): (Vec<_>, Vec<_>) = kubelets
            .into_iter()
            .partition(|kubelet| kubelet.version < minimum);
        let new = new.into_iter().map(|kubelet| kubelet.node);
        Self {
            oldest,
            exceptions: new.filter(|_| !old.is_empty()).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubelets_are_compared_by_minor_version() {
        for (reported, is_old) in [
            ("v1.33.0", false),
            ("v1.34.1+k3s1", false),
            ("v1.100.0", false),
            ("v2.0.0", false),
            ("v1.32.9-gke.100", true),
            ("v1.9.0", true),
            ("1.33", false),
            ("", true),
            ("unknown", true),
        ] {
            let objection = Kubelet::new("n", reported).objection(Version::STABLE);
            assert_eq!(objection.is_some(), is_old, "{reported}");
        }
        let kubelets = ["v1.30.0", "v1.9.0", "v1.31.0"].map(|version| Kubelet::new("n", version));
        assert_eq!(kubelets.iter().min().unwrap().reported, "v1.9.0");
    }

    #[test]
    fn new_nodes_are_exceptions_while_there_are_old_ones() {
        let kubelets = |versions: &[(&str, &str)]| {
            let kubelets = versions
                .iter()
                .map(|(node, version)| Kubelet::new(node, version));
            Kubelets::of(kubelets.collect::<Vec<_>>(), Version::STABLE)
        };
        let mixed = kubelets(&[("new", "v1.33.0"), ("old", "v1.32.0"), ("newer", "v1.34.0")]);
        assert_eq!(mixed.oldest.unwrap().node, "old");
        assert_eq!(
            mixed.exceptions.into_iter().collect::<Vec<_>>(),
            ["new", "newer"]
        );
        let new = kubelets(&[("new", "v1.33.0"), ("newer", "v1.34.0")]);
        assert_eq!(new.oldest.unwrap().node, "new");
        assert!(new.exceptions.is_empty());
        assert_eq!(kubelets(&[]), Kubelets::default());
    }

    #[test]
    fn the_objection_names_the_node() {
        let objection = Kubelet::new("one", "v1.28.0").objection(Version::ENABLED);
        let objection = objection.unwrap();
        for part in ["node one", "v1.28.0", "1.29"] {
            assert!(objection.contains(part), "{objection}");
        }
    }
}

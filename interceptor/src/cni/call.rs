//! The environment variables of a CNI call.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use super::{
    error::{CniError, Code},
    protocol::{AddRequest, DelRequest},
};
use crate::pod_name::PodName;

/// The verb of a CNI call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// A pod's network was created.
    Add,
    /// Check that the pod is still captured.
    Check,
    /// The sandbox is being deleted.
    Del,
    /// Sandboxes may have been deleted without a DEL.
    Gc,
    /// Check whether ADD would succeed.
    Status,
    /// List the supported versions.
    Version,
}

impl Verb {
    const ALL: [(&'static str, Self); 6] = [
        ("ADD", Self::Add),
        ("CHECK", Self::Check),
        ("DEL", Self::Del),
        ("GC", Self::Gc),
        ("STATUS", Self::Status),
        ("VERSION", Self::Version),
    ];
}

/// A pod in `CNI_ARGS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodArgs {
    /// The pod's namespace and name.
    pub name: PodName,
    /// The pod's UID.
    pub uid: Option<String>,
}

/// The variables `CNI_*`.
#[derive(Debug)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The `CNI_*` variables among `variables`.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let texts = variables.into_iter().map(|(name, value)| {
            let [name, value] = [name, value].map(|text| text.to_string_lossy().into_owned());
            (name, value)
        });
        Self(texts.filter(|(name, _)| name.starts_with("CNI_")).collect())
    }

    /// A variable, if it is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        let value = self.0.get(name).map(String::as_str);
        value.filter(|value| !value.is_empty())
    }

    fn required(&self, name: &str) -> Result<&str, CniError> {
        self.get(name).ok_or_else(|| {
            CniError::new(
                Code::Environment,
                format!("{name} is not set"),
                "the runtime must set it for this verb",
            )
        })
    }

    /// The verb in `CNI_COMMAND`.
    pub fn verb(&self) -> Result<Verb, CniError> {
        let command = self.required("CNI_COMMAND")?;
        let known = Verb::ALL.into_iter().find(|(name, _)| *name == command);
        known.map(|(_, verb)| verb).ok_or_else(|| {
            let names = Verb::ALL.map(|(name, _)| name).join(", ");
            CniError::new(
                Code::Environment,
                format!("CNI_COMMAND is {command:?}"),
                format!("it must be one of {names}"),
            )
        })
    }

    /// The pod of the sandbox; `None` if the runtime is used without Kubernetes.
    pub fn pod(&self) -> Result<Option<PodArgs>, CniError> {
        let arguments = self.arguments()?;
        let get = |name| {
            arguments
                .get(name)
                .copied()
                .filter(|value| !value.is_empty())
        };
        match (get("K8S_POD_NAMESPACE"), get("K8S_POD_NAME")) {
            (None, None) => Ok(None),
            (Some(namespace), Some(name)) => Ok(Some(PodArgs {
                name: PodName {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                },
                uid: get("K8S_POD_UID").map(str::to_owned),
            })),
            _ => Err(self.bad_arguments(
                "K8S_POD_NAMESPACE and K8S_POD_NAME must be given together, or neither of them",
            )),
        }
    }

    /// `CNI_ARGS`: `NAME=VALUE` pairs, separated by semicolons.
    fn arguments(&self) -> Result<BTreeMap<&str, &str>, CniError> {
        let pairs = self.get("CNI_ARGS").unwrap_or_default().split(';');
        let pairs = pairs.filter(|pair| !pair.trim().is_empty());
        pairs
            .map(|pair| {
                let bad = || self.bad_arguments("each part must be NAME=VALUE");
                let (name, value) = pair.split_once('=').ok_or_else(bad)?;
                Ok((name.trim(), value.trim()))
            })
            .collect()
    }

    fn bad_arguments(&self, why: &str) -> CniError {
        let arguments = self.get("CNI_ARGS").unwrap_or_default();
        CniError::new(Code::Environment, format!("CNI_ARGS is {arguments:?}"), why)
    }

    /// The request about `pod`. Fails if a variable that the specification requires is missing.
    pub fn add_request(&self, pod: PodArgs) -> Result<AddRequest, CniError> {
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            self.required(name)?;
        }
        Ok(AddRequest {
            netns: PathBuf::from(self.required("CNI_NETNS")?),
            pod: pod.name,
            uid: pod.uid,
        })
    }

    /// The request for a sandbox that is being deleted; `None` without `CNI_CONTAINERID`.
    #[must_use]
    pub fn del_request(&self) -> Option<DelRequest> {
        Some(DelRequest {
            container_id: self.get("CNI_CONTAINERID")?.to_owned(),
            netns: self.get("CNI_NETNS").map(PathBuf::from),
            pod: self.pod().ok().flatten().map(|pod| pod.name),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(variables: &[(&str, &str)]) -> Environment {
        Environment::new(
            variables
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    #[test]
    fn cni_args_of_containerd_and_cri_o_are_parsed() {
        let containerd = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0;\
                          K8S_POD_INFRA_CONTAINER_ID=abc;K8S_POD_UID=11-22";
        let pod = environment(&[("CNI_ARGS", containerd)])
            .pod()
            .unwrap()
            .unwrap();
        assert_eq!(pod.name.to_string(), "shop/web-0");
        assert_eq!(pod.uid.as_deref(), Some("11-22"));
    }

    #[test]
    fn without_kubernetes_there_is_no_pod() {
        for arguments in [
            "",
            ";",
            "IgnoreUnknown=1;FOO=BAR",
            "K8S_POD_NAME=;K8S_POD_NAMESPACE=",
        ] {
            let pod = environment(&[("CNI_ARGS", arguments)]).pod();
            assert_eq!(pod, Ok(None), "{arguments}");
        }
    }

    /// A partly named pod may be in the mesh, so it must not start without a request.
    #[test]
    fn a_partly_named_pod_is_refused() {
        for arguments in ["K8S_POD_NAME=web", "K8S_POD_NAMESPACE=shop", "K8S_POD_NAME"] {
            let error = environment(&[("CNI_ARGS", arguments)]).pod().unwrap_err();
            assert_eq!(error.code, Code::Environment, "{arguments}");
            assert!(error.to_string().contains(arguments), "{error}");
        }
    }

    #[test]
    fn the_error_of_an_unknown_verb_lists_the_known_ones() {
        let error = environment(&[("CNI_COMMAND", "UPDATE")])
            .verb()
            .unwrap_err();
        assert_eq!(error.code, Code::Environment);
        let text = error.to_string();
        assert!(
            text.contains("UPDATE") && text.contains("ADD, CHECK, DEL"),
            "{text}"
        );
    }
}

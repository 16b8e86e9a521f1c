//! The name of a pod.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A pod's namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// The namespace.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { namespace, name } = self;
        write!(f, "{namespace}/{name}")
    }
}

/// `NAMESPACE/NAME` or, as for istioctl, `NAME.NAMESPACE`: a namespace has no dot in its name.
impl FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = match text.split_once('/') {
            Some((namespace, name)) => Some((namespace, name)),
            None => text
                .rsplit_once('.')
                .map(|(name, namespace)| (namespace, name)),
        };
        match parts {
            Some((namespace, name))
                if !namespace.is_empty() && !name.is_empty() && !name.contains('/') =>
            {
                Ok(Self {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            _ => Err("expected NAMESPACE/NAME or NAME.NAMESPACE".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_name_are_accepted() {
        let pod = PodName {
            namespace: "shop".to_owned(),
            name: "web.v1-0".to_owned(),
        };
        assert_eq!("shop/web.v1-0".parse(), Ok(pod.clone()));
        assert_eq!("web.v1-0.shop".parse(), Ok(pod.clone()));
        assert_eq!(pod.to_string().parse(), Ok(pod));
        for wrong in ["web", "/web", "shop/", "web.", ".shop", "a/b/c"] {
            assert!(wrong.parse::<PodName>().is_err(), "{wrong}");
        }
    }
}

//! Variables of the proxy that the caller or the cluster sets.

use std::collections::BTreeMap;

use serde_json::Value;

use super::config::Config;
use crate::Subject;

/// The variable of the cluster's name.
const CLUSTER: &str = "ISTIO_META_CLUSTER_ID";
/// The variable of the network's name.
pub(super) const NETWORK: &str = "ISTIO_META_NETWORK";
/// The label of the network's name.
pub(super) const NETWORK_LABEL: &str = "topology.istio.io/network";

/// The variables: those of the webhook's URL, which win over the values. A label of the pod wins over
/// both.
pub(super) fn of(pod: &Value, subject: &Subject, config: &Config) -> BTreeMap<String, String> {
    let mut environment = subject.environment.clone();
    let global = &config.values["global"];
    let cluster = &global["multiCluster"]["clusterName"];
    let network = &pod["metadata"]["labels"][NETWORK_LABEL];
    let network = [network, &global["network"]]
        .into_iter()
        .find(|value| !value.is_null());
    let from_label = pod["metadata"]["labels"].get(NETWORK_LABEL).is_some();
    set(&mut environment, CLUSTER, cluster, false);
    set(
        &mut environment,
        NETWORK,
        network.unwrap_or(&Value::Null),
        from_label,
    );
    environment
}

fn set(environment: &mut BTreeMap<String, String>, name: &str, value: &Value, wins: bool) {
    let value = value.as_str().unwrap_or_default();
    let given = environment.get(name).is_some_and(|given| !given.is_empty());
    if !value.is_empty() && (wins || !given) {
        environment.insert(name.to_owned(), value.to_owned());
    }
}

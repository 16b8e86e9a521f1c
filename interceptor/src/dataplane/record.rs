//! The record of an attached network namespace, stored in a map beside its policy.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{NetnsCookie, PolicyId, SETTINGS_CHUNK, SettingsKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attach_points::{AttachPoints, CgroupName};
use crate::{
    bpf::{
        interface_hooks::Side,
        maps::{Maps, is_missing},
    },
    netns::route_limits::Limit,
    pod_name::PodName,
    settings::Settings,
};

/// What a policy was compiled from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub settings: Settings,
    /// The pod's name, if an agent attached it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodName>,
    /// When the pod was attached first. Missing if a build did that which did not record it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached_at: Option<Timestamp>,
    /// The path by which the network namespace was attached.
    pub netns: PathBuf,
    /// The cgroup that it is attached to.
    pub cgroup: PathBuf,
    /// The kernel's ID of that cgroup.
    pub cgroup_id: u64,
    /// The cgroup below it where destinations are evaluated first.
    #[serde(
        default,
        alias = "first_cgroup",
        skip_serializing_if = "Option::is_none"
    )]
    pub kubepods_cgroup: Option<CgroupName>,
    /// The pod's own cgroup, where the program that returns original destinations is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_cgroup: Option<CgroupName>,
    /// Whether the pod's IPv6 is captured.
    pub ipv6: bool,
    /// Digest of the pod's addresses and routes.
    #[serde(default)]
    pub network: u64,
    /// The interfaces at which strict mode is enforced.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub uplinks: Vec<GuardedUplink>,
    /// The node's network namespace, if strict mode is enforced there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_netns_cookie: Option<NetnsCookie>,
    /// Why its copied routes are incomplete, if they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
}

/// An interface at which strict mode is enforced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardedUplink {
    /// The name of the pod's interface.
    pub interface: String,
    /// Where the programs are.
    pub at: Side,
}

impl Record {
    /// The cgroups that it is attached to.
    #[must_use]
    pub fn attach_points(&self) -> AttachPoints<CgroupName> {
        AttachPoints {
            root: CgroupName {
                path: self.cgroup.clone(),
                id: self.cgroup_id,
            },
            kubepods: self.kubepods_cgroup.clone(),
            pod: self.pod_cgroup.clone(),
        }
    }

    /// Writes the record under `policy`.
    pub fn store(&self, maps: &mut Maps, policy: PolicyId) -> Result<()> {
        let text = serde_json::to_vec(self).context("cannot write the settings as JSON")?;
        for (number, bytes) in text.chunks(SETTINGS_CHUNK).enumerate() {
            let mut chunk = [0; SETTINGS_CHUNK];
            chunk[..bytes.len()].copy_from_slice(bytes);
            let key = key(policy, number)?;
            maps.settings
                .insert(key, chunk, 0)
                .context("cannot store the settings")?;
        }
        Ok(())
    }

    /// Deletes the record under `policy`.
    pub fn remove(maps: &mut Maps, policy: PolicyId) -> Result<()> {
        for number in 0.. {
            match maps.settings.remove(&key(policy, number)?) {
                Ok(()) => {}
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(error).context("cannot remove the stored settings"),
            }
        }
        Ok(())
    }

    /// Reads the record under `policy`.
    pub fn load(maps: &Maps, policy: PolicyId) -> Result<Self> {
        let mut text = Vec::new();
        for number in 0.. {
            match maps.settings.get(&key(policy, number)?, 0) {
                Ok(chunk) => text.extend_from_slice(&chunk),
                Err(error) if is_missing(&error) => break,
                Err(error) => return Err(error).context("cannot read the stored settings"),
            }
        }
        Self::parse(&text)
    }

    /// Parses a stored record.
    pub(crate) fn parse(stored: &[u8]) -> Result<Self> {
        // JSON has no zero byte; the rest of the last chunk is zeros.
        let length = stored.iter().position(|byte| *byte == 0);
        let text = &stored[..length.unwrap_or(stored.len())];
        serde_json::from_slice(text).context("cannot parse the stored settings")
    }
}

fn key(policy: PolicyId, number: usize) -> Result<SettingsKey> {
    let chunk = u32::try_from(number).context("the settings are too long")?;
    Ok(SettingsKey { policy, chunk })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Written before `first_cgroup` was renamed to `kubepods_cgroup`.
    const OLD_RECORD: &str = r#"{
    "settings": {
        "outbound_port": 15001,
        "inbound_port": 15006,
        "tunnel_port": 15008,
        "mode": "redirect",
        "tproxy_mark": 1337,
        "tproxy_table": 133,
        "proxy_uids": [
            1337
        ],
        "proxy_gids": [
            1337
        ],
        "inbound_ports": "all",
        "inbound_ports_exclude": [
            {
                "first": 15090,
                "last": 15090
            },
            {
                "first": 15021,
                "last": 15021
            }
        ],
        "outbound_prefixes": "all",
        "outbound_prefixes_exclude": [],
        "outbound_ports": [],
        "outbound_ports_exclude": [],
        "excluded_interfaces": [],
        "rerouted_interfaces": [],
        "owner_groups": {
            "all_but": []
        },
        "loopback": "127.0.0.1/32",
        "dns": "off",
        "drop_invalid": false,
        "dual_stack": false
    },
    "netns": "/run/netns/podx",
    "cgroup": "/sys/fs/cgroup/unified",
    "cgroup_id": 1,
    "first_cgroup": {
        "path": "/sys/fs/cgroup/kubepods.slice",
        "id": 4711
    },
    "pod_cgroup": {
        "path": "/sys/fs/cgroup/kubepods.slice/kubepods-pod1.slice",
        "id": 4712
    },
    "ipv6": false,
    "network": 18118044601103160707
}"#;

    #[test]
    fn records_of_the_old_build_are_read() {
        let record: Record = serde_json::from_str(OLD_RECORD).unwrap();
        let kubepods = record.attach_points().kubepods.unwrap();
        assert_eq!(
            kubepods.path,
            PathBuf::from("/sys/fs/cgroup/kubepods.slice")
        );
        assert_eq!(kubepods.id, 4711);
        let written = serde_json::to_value(&record).unwrap();
        assert_eq!(written["kubepods_cgroup"]["id"], 4711);
        assert_eq!(written.get("first_cgroup"), None);
    }
}

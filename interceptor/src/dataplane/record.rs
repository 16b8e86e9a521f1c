//! The record of an attached network namespace, stored in a map beside its policy.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use interceptor_ebpf::{PolicyId, SETTINGS_CHUNK, SettingsKey};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::attach_points::{AttachPoints, CgroupName};
use crate::{bpf::maps::Maps, netns::route_limits::Limit, pod_name::PodName, settings::Settings};

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
    /// Why its copied routes are incomplete, if they are.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<Limit>,
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
            if maps.settings.remove(&key(policy, number)?).is_err() {
                break;
            }
        }
        Ok(())
    }

    /// Reads the record under `policy`.
    pub fn load(maps: &Maps, policy: PolicyId) -> Result<Self> {
        let mut text = Vec::new();
        for number in 0.. {
            let Ok(chunk) = maps.settings.get(&key(policy, number)?, 0) else {
                break;
            };
            text.extend_from_slice(&chunk);
        }
        // JSON has no zero byte; the rest of the last chunk is zeros.
        let length = text
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(text.len());
        serde_json::from_slice(&text[..length]).context("cannot parse the stored settings")
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

//! A container runtime's calls of CNI plugins: those of the first configuration in the directory,
//! each with the result of the one before, in reverse order when the pod is deleted (libcni's
//! `AddNetworkList` and `DelNetworkList`).

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::object::Manifest;
use crate::{
    command::{bounded, output},
    netns::Netns,
};

/// Debian's directory of plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// The plugins of the pods' network here, and the one that containerd calls besides.
const USED: [&str; 3] = ["ptp", "host-local", "loopback"];

/// The file name of the pods' network.
const NETWORK: &str = "10-test.conflist";
/// Istio's plugin.
pub const ISTIO_CNI: &str = "istio-cni";

/// The runtime's directories.
pub struct Runtime {
    /// The directory of configurations.
    pub conf: PathBuf,
    /// The directory of plugins.
    pub bin: PathBuf,
}

/// The parameters of a CNI call.
pub struct Call<'a> {
    /// The runtime's ID of the sandbox.
    pub id: &'a str,
    /// Its network namespace.
    pub netns: &'a Path,
    /// Its pod.
    pub pod: &'a Manifest,
}

impl Runtime {
    /// Creates the directories below `dir`, with a network that assigns pods addresses of
    /// 10.1.0.0/16 and `fd00:1::/64`.
    pub fn new(dir: &Path) -> Result<Self> {
        let runtime = Self {
            conf: dir.join("net.d"),
            bin: dir.join("bin"),
        };
        fs::create_dir(&runtime.conf)?;
        fs::create_dir(&runtime.bin)?;
        for plugin in USED {
            let from = Path::new(PLUGINS).join(plugin);
            fs::copy(&from, runtime.bin.join(plugin)).with_context(|| {
                format!(
                    "{}: Debian's containernetworking-plugins has it",
                    from.display()
                )
            })?;
        }
        let network = network(&dir.join("addresses")).to_string();
        fs::write(runtime.conf.join(NETWORK), network)?;
        Ok(runtime)
    }

    /// The first configuration, in its current state.
    pub fn network(&self) -> Result<Value> {
        let mut files: Vec<_> = fs::read_dir(&self.conf)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.retain(|file| {
            file.extension()
                .is_some_and(|extension| extension == "conflist")
        });
        files.sort();
        let first = files.first().context("no network is configured")?;
        Ok(serde_json::from_slice(&fs::read(first)?)?)
    }

    /// The types of the configured plugins.
    pub fn plugins(&self) -> Result<Vec<String>> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        let kinds = plugins.iter().filter_map(|plugin| plugin["type"].as_str());
        Ok(kinds.map(str::to_owned).collect())
    }

    /// Whether our plugin captures no new pod: it is not configured, or passes every pod. The
    /// latter as long as any pod is captured, those of other tests among them.
    pub fn is_uninstalled(&self) -> Result<bool> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        let captures =
            |plugin: &Value| plugin["type"] == "interceptor-cni" && plugin["uninstalled"] != true;
        Ok(!plugins.iter().any(captures))
    }

    /// Configures istio-cni after the other plugins, as its agent does. A plugin that returns its
    /// input replaces it; tests create its rules.
    pub fn add_istio_cni(&self) -> Result<()> {
        fs::copy(Path::new(PLUGINS).join("tuning"), self.bin.join(ISTIO_CNI))?;
        self.edit(|plugins| plugins.push(json!({"type": ISTIO_CNI})))
    }

    /// Removes it from the configuration.
    pub fn remove_istio_cni(&self) -> Result<()> {
        self.edit(|plugins| plugins.retain(|plugin| plugin["type"] != ISTIO_CNI))
    }

    /// Replaces the file in one step, as agents do.
    fn edit(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let mut network = self.network()?;
        let plugins = network["plugins"].as_array_mut();
        change(plugins.context("no plugins")?);
        let new = self.conf.join("new");
        fs::write(&new, network.to_string())?;
        Ok(fs::rename(new, self.conf.join(NETWORK))?)
    }

    /// Creates the pod's network. If a plugin fails, everything is deleted again.
    pub fn add(&self, host: &Netns, call: &Call<'_>) -> Result<Value> {
        let network = self.network()?;
        let mut result = Value::Null;
        for plugin in network["plugins"].as_array().context("no plugins")? {
            match self.call(host, "ADD", call, &network, plugin, &result) {
                Ok(added) => result = added,
                Err(error) => {
                    self.del(host, call, &Value::Null)?;
                    return Err(error);
                }
            }
        }
        Ok(result)
    }

    /// Deletes the pod's network; `result` is that of [`Runtime::add`].
    pub fn del(&self, host: &Netns, call: &Call<'_>, result: &Value) -> Result<()> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        for plugin in plugins.iter().rev() {
            self.call(host, "DEL", call, &network, plugin, result)?;
        }
        Ok(())
    }

    /// Calls a plugin with all parameters, and returns its result.
    fn call(
        &self,
        host: &Netns,
        verb: &str,
        call: &Call<'_>,
        network: &Value,
        plugin: &Value,
        result: &Value,
    ) -> Result<Value> {
        let mut conf = plugin.clone();
        conf["name"] = network["name"].clone();
        conf["cniVersion"] = network["cniVersion"].clone();
        if !result.is_null() {
            conf["prevResult"] = result.clone();
        }
        let kind = plugin["type"].as_str().context("a plugin has a type")?;
        let mut command = bounded("nsenter");
        command
            .arg(format!("--net={}", host.path().display()))
            .arg(self.bin.join(kind))
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", call.id)
            .env("CNI_NETNS", call.netns)
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", &self.bin)
            .env("CNI_ARGS", arguments(call));
        let output = output(&mut command, &conf.to_string())?;
        if !output.status.success() {
            let stdout = String::from_utf8_lossy(&output.stdout);
            let stderr = String::from_utf8_lossy(&output.stderr);
            bail!("{kind} {verb}: {}: {stdout} {stderr}", output.status);
        }
        if output.stdout.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{kind} {verb}"))
    }
}

/// The addresses in a result.
pub(super) fn addresses(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result["ips"].as_array().context("no addresses")?;
    let address = |ip: &Value| -> Result<IpAddr> {
        let (address, _) = ip["address"]
            .as_str()
            .and_then(|address| address.split_once('/'))
            .context("an address has a /")?;
        Ok(address.parse()?)
    };
    ips.iter().map(address).collect()
}

/// In containerd's format.
fn arguments(call: &Call<'_>) -> String {
    let Manifest {
        namespace,
        name,
        uid,
        ..
    } = call.pod;
    let id = call.id;
    format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};\
         K8S_POD_INFRA_CONTAINER_ID={id};K8S_POD_UID={uid}"
    )
}

fn network(addresses: &Path) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "test",
        "plugins": [{
            "type": "ptp",
            "ipam": {
                "type": "host-local",
                "dataDir": addresses,
                "ranges": [[{"subnet": "10.1.0.0/16"}], [{"subnet": "fd00:1::/64"}]],
                "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
            },
        }],
    })
}

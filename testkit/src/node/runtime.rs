//! How a container runtime calls CNI plugins: the first configuration of the folder, each plugin of
//! it with the result of the one before, in reverse when the pod goes (libcni's `AddNetworkList` and
//! `DelNetworkList`).

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

/// Where Debian has the plugins.
const PLUGINS: &str = "/usr/lib/cni";
/// Those that make the pods' network here, and the one that containerd calls besides.
const USED: [&str; 3] = ["ptp", "host-local", "loopback"];

/// The file of the pods' network.
const NETWORK: &str = "10-test.conflist";
/// Istio's plugin.
pub const ISTIO_CNI: &str = "istio-cni";

/// The runtime's folders.
pub struct Runtime {
    /// Where configurations are.
    pub conf: PathBuf,
    /// Where plugins are.
    pub bin: PathBuf,
}

/// A sandbox, as plugins are told of it.
pub struct Call<'a> {
    /// The runtime's name for it.
    pub id: &'a str,
    /// Its network namespace.
    pub netns: &'a Path,
    /// Whose it is.
    pub pod: &'a Manifest,
}

impl Runtime {
    /// Makes the folders below `folder`, with a network that gives pods addresses of 10.1.0.0/16 and
    /// `fd00:1::/64`.
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

    /// The first configuration, as it is now.
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

    /// The plugins that are called, by their types.
    pub fn plugins(&self) -> Result<Vec<String>> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        let kinds = plugins.iter().filter_map(|plugin| plugin["type"].as_str());
        Ok(kinds.map(str::to_owned).collect())
    }

    /// Whether our plugin captures no new pod: it is not called, or lets every pod pass. That it does
    /// while pods are captured, those of other tests among them.
    pub fn is_uninstalled(&self) -> Result<bool> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        let captures =
            |plugin: &Value| plugin["type"] == "interceptor-cni" && plugin["uninstalled"] != true;
        Ok(!plugins.iter().any(captures))
    }

    /// Has istio-cni called after the other plugins, as its agent installs it: a plugin that passes on
    /// what it gets stands for it. What it programs, tests do.
    pub fn add_istio_cni(&self) -> Result<()> {
        fs::copy(Path::new(PLUGINS).join("tuning"), self.bin.join(ISTIO_CNI))?;
        self.edit(|plugins| plugins.push(json!({"type": ISTIO_CNI})))
    }

    /// Has it called no more.
    pub fn remove_istio_cni(&self) -> Result<()> {
        self.edit(|plugins| plugins.retain(|plugin| plugin["type"] != ISTIO_CNI))
    }

    /// In one step, as agents do it.
    fn edit(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let mut network = self.network()?;
        let plugins = network["plugins"].as_array_mut();
        change(plugins.context("no plugins")?);
        let new = self.conf.join("new");
        fs::write(&new, network.to_string())?;
        Ok(fs::rename(new, self.conf.join(NETWORK))?)
    }

    /// Has the pod's network made. What has been made of it goes again if a plugin fails.
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

    /// Has the pod's network undone; `result` is what adding it gave.
    pub fn del(&self, host: &Netns, call: &Call<'_>, result: &Value) -> Result<()> {
        let network = self.network()?;
        let plugins = network["plugins"].as_array().context("no plugins")?;
        for plugin in plugins.iter().rev() {
            self.call(host, "DEL", call, &network, plugin, result)?;
        }
        Ok(())
    }

    /// Calls a plugin with everything that it may be told, and answers what it says.
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

/// As containerd writes them.
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

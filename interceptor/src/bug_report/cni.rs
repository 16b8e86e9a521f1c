//! The container runtime's network configurations, and the log of our plugin.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use serde_json::{Map, Value};

use super::{Sources, json};
use crate::cni::{PLUGIN, conf::PluginSettings};

/// Fields of the specification that contain no secrets. Plugins may have tokens and certificates in
/// fields of their own.
const KNOWN: [&str; 8] = [
    "cniVersion",
    "cniVersions",
    "name",
    "type",
    "plugins",
    "ipam",
    "disableCheck",
    "disableGC",
];

/// The end of the log that is included.
const LOG_TAIL: u64 = 256 << 10;

pub(super) fn networks(sources: &Sources) -> Result<String> {
    let networks = files(&sources.cni_conf_dir)?.into_iter().map(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let network = match read(&path) {
            Ok(network) => known(&network),
            Err(error) => format!("{error:#}").into(),
        };
        (name.into_owned(), network)
    });
    json(&networks.collect::<BTreeMap<_, _>>())
}

pub(super) fn log(sources: &Sources) -> Result<String> {
    let settings = files(&sources.cni_conf_dir)?;
    let mut networks = settings.iter().filter_map(|path| read(path).ok());
    let settings = networks.find_map(|network| ours(&network));
    let settings = settings.context("the CNI plugin is not installed")?;
    let path = settings
        .log_file
        .context("the CNI plugin has no log file (the agent's --cni-log-file)")?;
    tail(&path).with_context(|| format!("cannot read {}", path.display()))
}

fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let extension = path.extension().and_then(|extension| extension.to_str());
        if matches!(extension, Some("conflist" | "conf" | "json")) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read_to_string(path).context("it cannot be read")?;
    serde_json::from_str(&text).context("it is not JSON")
}

/// The settings of our plugin in a list, or in a network of its own.
fn ours(network: &Value) -> Option<PluginSettings> {
    let plugins = network["plugins"].as_array();
    let mut plugins = plugins.into_iter().flatten().chain([network]);
    let ours = plugins.find(|plugin| is_ours(plugin))?;
    serde_json::from_value(ours.clone()).ok()
}

fn is_ours(plugin: &Value) -> bool {
    plugin["type"] == PLUGIN
}

/// The known fields; of others, the names.
fn known(value: &Value) -> Value {
    match value {
        Value::Object(fields) => known_fields(fields).into(),
        Value::Array(items) => items.iter().map(known).collect(),
        value => value.clone(),
    }
}

fn known_fields(fields: &Map<String, Value>) -> Map<String, Value> {
    let settings = fields.get("type").is_some_and(|name| name == PLUGIN);
    let mut kept = Map::new();
    let mut omitted = Vec::new();
    for (name, value) in fields {
        if KNOWN.contains(&name.as_str()) {
            kept.insert(name.clone(), known(value));
        } else if !settings {
            omitted.push(Value::from(name.as_str()));
        }
    }
    if let (true, Ok(Value::Object(ours))) = (settings, own_settings(fields)) {
        kept.extend(ours);
    }
    if !omitted.is_empty() {
        kept.insert("omitted".to_owned(), omitted.into());
    }
    kept
}

/// The fields that our plugin reads.
fn own_settings(fields: &Map<String, Value>) -> serde_json::Result<Value> {
    let settings: PluginSettings = serde_json::from_value(Value::Object(fields.clone()))?;
    serde_json::to_value(settings)
}

fn tail(path: &Path) -> Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut text = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_known_fields_are_kept() {
        let network = json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "other",
                    "ipam": {"type": "host-local", "password": "secret"},
                    "token": "secret",
                },
                {"type": "interceptor-cni", "socket": "/run/agent.sock", "surprise": "secret"},
            ],
        });
        let kept = known(&network);
        assert!(!kept.to_string().contains("secret"), "{kept}");
        let [other, own] = [&kept["plugins"][0], &kept["plugins"][1]];
        assert_eq!(other["omitted"], json!(["token"]));
        assert_eq!(
            other["ipam"],
            json!({"type": "host-local", "omitted": ["password"]})
        );
        assert_eq!(own["socket"], "/run/agent.sock");
    }
}

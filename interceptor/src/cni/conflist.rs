//! Adds our plugin to a network configuration, and removes it.
//!
//! Pure: text in, text out. Unknown fields and the order of fields are preserved.

use serde_json::{Map, Value};
use thiserror::Error;

use super::{PLUGIN, conf::PluginSettings, version};

/// Istio's plugin, which would redirect the same pods.
const ISTIO: &str = "istio-cni";

/// Why our plugin cannot be added to a configuration.
#[derive(Debug, Error)]
pub enum Unusable {
    /// Not JSON, or not an object.
    #[error("it is not a JSON object: {0}")]
    Json(#[from] serde_json::Error),
    /// A field that runtimes require is missing.
    #[error("it has no {0}, which runtimes require")]
    Lacks(&'static str),
    /// Its version does not support chained plugins, or is unknown.
    #[error(
        "its cniVersion is {0:?}, and interceptor-cni can be chained in {known}; the program that writes the file must use one of them",
        known = version::SUPPORTED.join(", ")
    )]
    Version(String),
}

/// The format of a configuration file, by its extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// `.conflist`: a list of chained plugins.
    List,
    /// `.conf` and `.json`: one plugin.
    Single,
}

/// A valid network configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    shape: Shape,
    fields: Map<String, Value>,
}

impl Network {
    /// Parses a configuration as strictly as the runtimes do.
    pub fn parse(shape: Shape, text: &str) -> Result<Self, Unusable> {
        let network = Self {
            shape,
            fields: serde_json::from_str(text)?,
        };
        if network.text("name").is_empty() {
            return Err(Unusable::Lacks("\"name\""));
        }
        let plugins = network.plugins();
        if plugins.is_empty() {
            return Err(Unusable::Lacks("\"plugins\""));
        }
        if plugins.iter().any(|plugin| type_of(plugin).is_empty()) {
            return Err(Unusable::Lacks("\"type\" in each plugin"));
        }
        Ok(network)
    }

    fn text(&self, field: &str) -> &str {
        self.fields
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    fn plugins(&self) -> Vec<&Map<String, Value>> {
        match self.shape {
            Shape::Single => vec![&self.fields],
            Shape::List => {
                let plugins = self.fields.get("plugins").and_then(Value::as_array);
                plugins
                    .into_iter()
                    .flatten()
                    .filter_map(Value::as_object)
                    .collect()
            }
        }
    }

    fn has(&self, plugin: &str) -> bool {
        self.plugins()
            .into_iter()
            .any(|entry| type_of(entry) == plugin)
    }

    /// Whether it contains our plugin.
    #[must_use]
    pub fn has_ours(&self) -> bool {
        self.has(PLUGIN)
    }

    /// The settings of our plugin, if it is present and they are valid.
    #[must_use]
    pub fn our_settings(&self) -> Option<PluginSettings> {
        let mut plugins = self.plugins().into_iter();
        let ours = plugins.find(|plugin| type_of(plugin) == PLUGIN)?;
        serde_json::from_value(Value::Object(ours.clone())).ok()
    }

    /// Whether our plugin is present exactly once, with `settings`, at any position: two programs that
    /// both move their plugin to the end would rewrite the file forever.
    #[must_use]
    pub fn has_ours_with(&self, settings: &PluginSettings) -> bool {
        let wanted = entry(settings);
        let entries = self.plugins().into_iter();
        let ours: Vec<_> = entries.filter(|plugin| type_of(plugin) == PLUGIN).collect();
        self.shape == Shape::List && ours == [&wanted]
    }

    /// Whether it contains istio-cni.
    #[must_use]
    pub fn has_istio_cni(&self) -> bool {
        self.has(ISTIO)
    }

    /// The plugins' types, in order.
    #[must_use]
    pub fn types(&self) -> Vec<&str> {
        self.plugins().into_iter().map(type_of).collect()
    }

    /// Adds our plugin with `settings` at the end. A single plugin becomes a list.
    pub fn with_ours(self, settings: &PluginSettings) -> Result<Self, Unusable> {
        let known = self.text("cniVersion");
        if !version::SUPPORTED.contains(&known) {
            return Err(Unusable::Version(known.to_owned()));
        }
        let mut list = self.into_list().without_ours();
        let plugins = list.entries().ok_or(Unusable::Lacks("\"plugins\""))?;
        plugins.push(Value::Object(entry(settings)));
        Ok(list)
    }

    /// Removes our plugin from a list. A single plugin is not changed.
    #[must_use]
    pub fn without_ours(mut self) -> Self {
        if let Some(plugins) = self.entries() {
            plugins.retain(|plugin| plugin.as_object().map(type_of) != Some(PLUGIN));
        }
        self
    }

    /// Marks our plugin as uninstalled, in its place.
    #[must_use]
    pub fn with_ours_uninstalled(mut self) -> Self {
        for plugin in self.entries().into_iter().flatten() {
            if let Some(plugin) = plugin
                .as_object_mut()
                .filter(|plugin| type_of(plugin) == PLUGIN)
            {
                plugin.insert("uninstalled".to_owned(), true.into());
            }
        }
        self
    }

    /// The entries of a list. A single plugin has none, even if it has a field of that name.
    fn entries(&mut self) -> Option<&mut Vec<Value>> {
        let plugins = match self.shape {
            Shape::List => self.fields.get_mut("plugins"),
            Shape::Single => None,
        };
        plugins.and_then(Value::as_array_mut)
    }

    /// Converts a single plugin to a list. The name and the version move to the list: the runtime
    /// passes them to each plugin.
    #[must_use]
    pub fn into_list(self) -> Self {
        if self.shape == Shape::List {
            return self;
        }
        let mut plugin = self.fields;
        let mut fields = Map::new();
        for field in ["cniVersion", "name"] {
            if let Some(value) = plugin.shift_remove(field) {
                fields.insert(field.to_owned(), value);
            }
        }
        fields.insert("plugins".to_owned(), vec![Value::Object(plugin)].into());
        Self {
            shape: Shape::List,
            fields,
        }
    }

    /// The file's content.
    #[must_use]
    pub fn to_text(&self) -> String {
        // `{:#}` indents.
        format!("{:#}\n", Value::Object(self.fields.clone()))
    }
}

fn type_of(plugin: &Map<String, Value>) -> &str {
    plugin
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// Our plugin as an entry of a list.
fn entry(settings: &PluginSettings) -> Map<String, Value> {
    let mut entry = Map::new();
    entry.insert("type".to_owned(), PLUGIN.into());
    // A struct always serializes to a JSON object.
    if let Ok(Value::Object(settings)) = serde_json::to_value(settings) {
        entry.extend(settings);
    }
    entry
}

/// A network with only our plugin, for Multus, which calls it after a pod's other networks.
#[must_use]
pub fn alone(settings: &PluginSettings) -> Network {
    let mut fields = Map::new();
    fields.insert("cniVersion".to_owned(), "0.3.1".into());
    fields.insert("name".to_owned(), PLUGIN.into());
    fields.extend(entry(settings));
    Network {
        shape: Shape::Single,
        fields,
    }
}

#[cfg(test)]
mod tests;

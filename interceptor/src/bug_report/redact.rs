//! Replaces addresses and names by placeholders.

use std::{cmp::Reverse, collections::BTreeMap, net::IpAddr, path::Path};

use serde_json::{Map, Value};

/// The names that were found, and the placeholders of all that is replaced.
pub(super) struct Redaction {
    /// Each name, with its kind.
    names: BTreeMap<String, &'static str>,
    placeholders: BTreeMap<String, String>,
    counts: BTreeMap<&'static str, usize>,
}

impl Redaction {
    pub(super) fn new(hosts: &[String]) -> Self {
        let mut new = Self {
            names: BTreeMap::new(),
            placeholders: BTreeMap::new(),
            counts: BTreeMap::new(),
        };
        for host in hosts {
            new.add("host", host);
        }
        new
    }

    fn add(&mut self, kind: &'static str, name: &str) {
        if !name.is_empty() {
            self.names.entry(name.to_owned()).or_insert(kind);
        }
    }

    /// Finds the names of pods, namespaces and hosts in a file of the report.
    pub(super) fn learn(&mut self, file: &str, text: &str) {
        let extension = Path::new(file).extension();
        match extension.and_then(|extension| extension.to_str()) {
            Some("txt") => self.learn_labels(text),
            Some("log") => self.learn_pods_of_log(text),
            Some("ndjson") => {
                for line in text.lines() {
                    self.learn_json(line);
                }
            }
            _ => self.learn_json(text),
        }
    }

    fn learn_json(&mut self, text: &str) {
        if let Ok(value) = serde_json::from_str(text) {
            self.learn_value(&value);
        }
    }

    fn learn_value(&mut self, value: &Value) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.learn_value(item)),
            Value::Object(fields) => {
                self.learn_fields(fields);
                fields.values().for_each(|field| self.learn_value(field));
            }
            _ => {}
        }
    }

    fn learn_fields(&mut self, fields: &Map<String, Value>) {
        let text = |field| fields.get(field).and_then(Value::as_str);
        if let Some(namespace) = text("namespace") {
            self.add("namespace", namespace);
            for name in ["name", "prefix"].into_iter().filter_map(text) {
                self.add("pod", name);
            }
        }
        if let Some(node) = text("node") {
            self.add("host", node);
        }
        if let Some(path) = text("netns") {
            self.add_netns(path);
        }
        let excluded = fields.get("excludeNamespaces").and_then(Value::as_array);
        for namespace in excluded.into_iter().flatten().filter_map(Value::as_str) {
            self.add("namespace", namespace);
        }
    }

    /// The name of a file that was made for a pod, such as by `ip netns add`.
    fn add_netns(&mut self, path: &str) {
        if !path.starts_with("/proc/")
            && let Some((_, name)) = path.rsplit_once('/')
        {
            self.add("netns", name);
        }
    }

    /// The labels of metrics.
    fn learn_labels(&mut self, text: &str) {
        for (label, kind) in [("namespace=\"", "namespace"), ("pod=\"", "pod")] {
            let values = text.split(label).skip(1);
            for (name, _) in values.filter_map(|rest| rest.split_once('"')) {
                self.add(kind, name);
            }
        }
    }

    /// The plugin writes a pod as `NAMESPACE/NAME` after the verb, also one that is deleted.
    fn learn_pods_of_log(&mut self, text: &str) {
        for line in text.lines() {
            let words = line.split([' ', ':']);
            let pods = words.filter_map(|word| word.split_once('/'));
            for (namespace, name) in
                pods.filter(|(namespace, name)| is_name(namespace) && is_name(name))
            {
                self.add("namespace", namespace);
                self.add("pod", name);
            }
        }
    }

    /// The text with placeholders.
    pub(super) fn apply(&mut self, text: &str) -> String {
        let mut longest: Vec<_> = self.names.clone().into_iter().collect();
        longest.sort_by_key(|(name, _)| Reverse(name.len()));
        let mut text = text.to_owned();
        for (name, kind) in longest {
            if text.contains(&name) {
                let placeholder = self.placeholder(kind, &name);
                text = replace_words(&text, &name, &placeholder);
            }
        }
        self.replace_addresses(&text)
    }

    fn placeholder(&mut self, kind: &'static str, of: &str) -> String {
        if let Some(known) = self.placeholders.get(of) {
            return known.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let new = format!("{kind}-{count}");
        self.placeholders.insert(of.to_owned(), new.clone());
        new
    }

    fn replace_addresses(&mut self, text: &str) -> String {
        let mut replaced = String::with_capacity(text.len());
        let mut rest = text;
        while let Some(start) = rest.find(is_of_address) {
            replaced += &rest[..start];
            let continues_word = replaced.ends_with(is_part);
            let end = rest[start..].find(|letter| !is_of_address(letter));
            let (word, after) = rest[start..].split_at(end.unwrap_or(rest.len() - start));
            rest = after;
            let is_word = !continues_word && !rest.starts_with(is_part);
            match address(word).filter(|_| is_word) {
                Some((address, tail)) => {
                    replaced += &self.placeholder("ip", &address.to_canonical().to_string());
                    replaced += tail;
                }
                None => replaced += word,
            }
        }
        replaced + rest
    }
}

/// Whether it can be a name in Kubernetes.
fn is_name(word: &str) -> bool {
    !word.is_empty() && word.chars().all(|letter| is_part(letter) || letter == '.')
}

const fn is_part(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '-' || letter == '_'
}

const fn is_of_address(letter: char) -> bool {
    letter.is_ascii_hexdigit() || letter == ':' || letter == '.'
}

/// The address at the start of a word, and what follows it: a port, or the end of a sentence.
fn address(word: &str) -> Option<(IpAddr, &str)> {
    let sentence = word.trim_end_matches('.');
    let before_colon = sentence.trim_end_matches(':');
    let before_port = sentence.split(':').next().unwrap_or_default();
    [sentence, before_colon, before_port]
        .into_iter()
        .find_map(|start| Some((start.parse().ok()?, &word[start.len()..])))
}

/// Replaces `name` where it is a whole word.
fn replace_words(text: &str, name: &str, placeholder: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(name) {
        let (before, found) = rest.split_at(start);
        replaced += before;
        rest = &found[name.len()..];
        let is_word = !replaced.ends_with(is_part) && !rest.starts_with(is_part);
        replaced += if is_word { placeholder } else { name };
    }
    replaced + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redaction() -> Redaction {
        Redaction::new(&["node-7.example.org".to_owned(), "node-7".to_owned()])
    }

    #[test]
    fn an_address_has_one_placeholder_everywhere() {
        let mut redaction = redaction();
        let text = "10.1.0.2:8000 [fd00::2]:80 10.1.0.2/24, 10.1.0.2. ::ffff:10.1.0.2 fd00::2";
        let expected = "ip-1:8000 [ip-2]:80 ip-1/24, ip-1. ip-1 ip-2";
        assert_eq!(redaction.apply(text), expected);
        let text = "from 10.1.0.3 to 10.1.0.2: refused";
        assert_eq!(redaction.apply(text), "from ip-3 to ip-1: refused");
    }

    #[test]
    fn times_and_other_numbers_stay() {
        let text = "2026-11-30T01:27:19.100280826Z 12:30 0.1.0 a1b2c3d4 cni-0abc web:1.2 6.18.5";
        assert_eq!(redaction().apply(text), text);
    }

    #[test]
    fn names_are_learned_from_json_labels_and_logs() {
        let mut redaction = redaction();
        let flow = r#"{"flow":{"pod":{"namespace":"shop","name":"web-0","netns":"/run/netns/x"}}}"#;
        redaction.learn("agent/flows.ndjson", &format!("{flow}\n{flow}\n"));
        redaction.learn("agent/metrics.txt", r#"a{namespace="bank",pod="db-0"} 1"#);
        redaction.learn(
            "cni/interceptor-cni.log",
            "2026 ADD old/gone-1: /run/x/y: captured",
        );
        let names: Vec<_> = redaction.names.keys().map(String::as_str).collect();
        let expected = [
            "bank",
            "db-0",
            "gone-1",
            "node-7",
            "node-7.example.org",
            "old",
            "shop",
            "web-0",
            "x",
        ];
        assert_eq!(names, expected);
        let text = "shop/web-0 web-0.shop web-01 on node-7.example.org, node-7: gone-1";
        let replaced = redaction.apply(text);
        let expected = "namespace-1/pod-2 pod-2.namespace-1 web-01 on host-1, host-2: pod-1";
        assert_eq!(replaced, expected);
    }
}

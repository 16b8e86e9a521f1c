//! Environment variables for the proxy in the path of the webhook's URL: `/inject/cluster/NAME`.

use std::collections::BTreeMap;

const PREFIX: &str = "/inject/";
/// The older form: `/inject/:ENV:NAME=VALUE:ENV:NAME=VALUE`.
const SEPARATOR: &str = ":ENV:";
/// A slash in a value.
const SLASH: &str = "--slash--";

/// The variables. A last key without a value is ignored.
pub(super) fn environment(path: &str) -> BTreeMap<String, String> {
    let Some(rest) = path.strip_prefix(PREFIX) else {
        return BTreeMap::new();
    };
    if rest.starts_with(SEPARATOR) {
        return rest.split(SEPARATOR).filter_map(assignment).collect();
    }
    let parts: Vec<_> = rest.trim_end_matches('/').split('/').collect();
    parts
        .chunks_exact(2)
        .map(|pair| (name(pair[0]), value(pair[1])))
        .collect()
}

fn assignment(text: &str) -> Option<(String, String)> {
    let (key, text) = text.split_once('=')?;
    Some((key.to_owned(), value(text)))
}

fn name(key: &str) -> String {
    match key {
        "cluster" => "ISTIO_META_CLUSTER_ID".to_owned(),
        "net" => "ISTIO_META_NETWORK".to_owned(),
        other => other.to_uppercase(),
    }
}

fn value(text: &str) -> String {
    text.replace(SLASH, "/")
}

#[cfg(test)]
mod tests {
    use super::environment;

    #[track_caller]
    fn check(path: &str, expected: &[(&str, &str)]) {
        let found = environment(path);
        let found: Vec<_> = found
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected, "{path}");
    }

    #[test]
    fn pairs_of_a_path_are_variables() {
        check("/inject", &[]);
        check("/inject/", &[]);
        check("/inject/cluster", &[]);
        check("/inject/cluster/one", &[("ISTIO_META_CLUSTER_ID", "one")]);
        check(
            "/inject/net/n1/cluster/c1/",
            &[
                ("ISTIO_META_CLUSTER_ID", "c1"),
                ("ISTIO_META_NETWORK", "n1"),
            ],
        );
        check("/inject/my_name/a--slash--b", &[("MY_NAME", "a/b")]);
        check(
            "/inject/cluster/one/odd",
            &[("ISTIO_META_CLUSTER_ID", "one")],
        );
    }

    #[test]
    fn the_older_form_is_accepted() {
        check(
            "/inject/:ENV:a=1:ENV:B=x--slash--y",
            &[("B", "x/y"), ("a", "1")],
        );
        check("/inject/:ENV:a=b=c:ENV:odd", &[("a", "b=c")]);
    }
}

use proptest::prelude::*;
use serde_json::json;

use super::*;

const CALICO: &str = r#"{
  "name": "k8s-pod-network", "cniVersion": "0.3.1", "zeta": {"b": 1, "a": [null, 2.5]},
  "plugins": [
    {"type": "calico", "log_level": "info", "mtu": 0, "ipam": {"type": "calico-ipam"}},
    {"type": "portmap", "snat": true, "capabilities": {"portMappings": true}}
  ],
  "disableCheck": true
}"#;

fn list(text: &str) -> Network {
    Network::parse(Shape::List, text).unwrap()
}

fn settings() -> PluginSettings {
    PluginSettings::default()
}

fn with_ours(network: &Network) -> Network {
    network.clone().with_ours(&settings()).unwrap()
}

#[test]
fn our_plugin_is_appended_and_the_order_is_kept() {
    let text = with_ours(&list(CALICO)).to_text();
    let network = list(&text);
    assert_eq!(network.types(), ["calico", "portmap", "interceptor-cni"]);
    let order: Vec<_> = network.fields.keys().collect();
    assert_eq!(
        order,
        ["name", "cniVersion", "zeta", "plugins", "disableCheck"]
    );
    let zeta = r#""zeta":{"b":1,"a":[null,2.5]}"#;
    assert!(
        serde_json::to_string(&network.fields)
            .unwrap()
            .contains(zeta)
    );
}

#[test]
fn adding_is_idempotent_and_replaces_old_settings() {
    let once = with_ours(&list(CALICO));
    assert_eq!(with_ours(&once), once);
    let other = PluginSettings {
        wait_seconds: 7,
        ..settings()
    };
    let changed = once.with_ours(&other).unwrap();
    assert_eq!(changed.types(), ["calico", "portmap", "interceptor-cni"]);
    assert!(changed.has_ours_with(&other) && !changed.has_ours_with(&settings()));
}

/// Another program has added a plugin after ours. Ours must run after it.
#[test]
fn our_plugin_moves_behind_later_plugins() {
    let mut network = with_ours(&list(CALICO));
    network
        .entries()
        .unwrap()
        .push(json!({"type": "bandwidth"}));
    assert_eq!(
        with_ours(&network).types(),
        ["calico", "portmap", "bandwidth", "interceptor-cni"]
    );
}

#[test]
fn the_version_is_not_changed() {
    for version in version::SUPPORTED {
        let text = CALICO.replace("0.3.1", version);
        assert_eq!(with_ours(&list(&text)).text("cniVersion"), version);
    }
    for version in ["0.1.0", "0.2.0", "2.0.0", ""] {
        let text = CALICO.replace("0.3.1", version);
        let error = list(&text).with_ours(&settings()).unwrap_err();
        assert!(
            error.to_string().contains(&format!("{version:?}")),
            "{error}"
        );
    }
}

#[test]
fn a_single_plugin_becomes_a_list_with_its_name_and_version() {
    let text =
        r#"{"cniVersion":"0.4.0","name":"mynet","type":"bridge","ipam":{"type":"host-local"}}"#;
    let single = Network::parse(Shape::Single, text).unwrap();
    let wrapped = with_ours(&single);
    assert_eq!(wrapped.types(), ["bridge", "interceptor-cni"]);
    assert_eq!(wrapped.text("name"), "mynet");
    assert_eq!(wrapped.text("cniVersion"), "0.4.0");
    assert_eq!(wrapped.without_ours(), single.into_list());
}

/// A finding of the fuzz target `conflist`.
#[test]
fn a_number_of_another_plugin_is_not_changed() {
    let number = "8.208569791581322e+89";
    let text = list(&CALICO.replace("2.5", number)).to_text();
    assert!(text.contains(number), "{text}");
}

#[test]
fn a_single_plugin_keeps_its_own_field_plugins() {
    let text =
        r#"{"cniVersion":"1.0.0","name":"n","type":"x","plugins":[{"type":"interceptor-cni"}]}"#;
    let single = Network::parse(Shape::Single, text).unwrap();
    assert_eq!(single.clone().without_ours(), single);
}

#[test]
fn invalid_configurations_are_refused() {
    for (shape, text, says) in [
        (Shape::List, "{\"name\":", "JSON"),
        (Shape::List, "[]", "JSON"),
        (
            Shape::List,
            r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#,
            "name",
        ),
        (
            Shape::List,
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#,
            "plugins",
        ),
        (
            Shape::List,
            r#"{"cniVersion":"1.0.0","name":"n","type":"x"}"#,
            "plugins",
        ),
        (
            Shape::List,
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#,
            "type",
        ),
        (
            Shape::Single,
            r#"{"cniVersion":"1.0.0","name":"n"}"#,
            "type",
        ),
    ] {
        let error = Network::parse(shape, text).unwrap_err().to_string();
        assert!(error.contains(says), "{text}: {error}");
    }
}

#[test]
fn istio_cni_is_detected() {
    assert!(!list(CALICO).has_istio_cni());
    assert!(list(&CALICO.replace("portmap", "istio-cni")).has_istio_cni());
}

#[test]
fn a_stand_alone_network_has_only_our_plugin() {
    let text = alone(&settings()).to_text();
    let network = Network::parse(Shape::Single, &text).unwrap();
    assert!(network.has_ours());
    assert_eq!(PluginSettings::read(text.as_bytes()).unwrap(), settings());
}

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,6}", inner, 0..4)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn any_fields() -> impl Strategy<Value = Map<String, Value>> {
    prop::collection::vec(("x-[a-z]{1,6}", any_json()), 0..5)
        .prop_map(|fields| fields.into_iter().collect())
}

fn any_plugin() -> impl Strategy<Value = Value> {
    (any_fields(), "[a-z]{1,8}").prop_map(|(mut fields, name)| {
        fields.insert("type".to_owned(), name.into());
        Value::Object(fields)
    })
}

fn any_list() -> impl Strategy<Value = Network> {
    let version = prop::sample::select(&version::SUPPORTED[..]);
    let plugins = prop::collection::vec(any_plugin(), 1..5);
    (any_fields(), any_fields(), version, plugins).prop_map(|(before, after, version, plugins)| {
        let mut fields = before;
        fields.insert("name".to_owned(), "net".into());
        fields.insert("cniVersion".to_owned(), version.into());
        fields.insert("plugins".to_owned(), plugins.into());
        fields.extend(after);
        Network {
            shape: Shape::List,
            fields,
        }
    })
}

proptest! {
    #[test]
    fn adding_and_removing_our_plugin_restores_the_list(network in any_list()) {
        let text = network.to_text();
        let with = list(&with_ours(&list(&text)).to_text());
        prop_assert!(with.has_ours());
        // Byte for byte: the order of fields counts.
        prop_assert_eq!(with.without_ours().to_text(), text);
    }

    #[test]
    fn nothing_panics_on_any_text(text in "\\PC{0,64}") {
        for shape in [Shape::List, Shape::Single] {
            if let Ok(network) = Network::parse(shape, &text) {
                drop(network.with_ours(&settings()));
            }
        }
    }
}

//! The images of the proxy and of its init container.

use serde_json::Value;

use super::{containers, proxy_config::ProxyConfig};

/// The annotation with the image's variant.
const IMAGE_TYPE: &str = "sidecar.istio.io/proxyImageType";

/// Variants that Istio publishes as suffixes of tags.
const SUFFIXES: [&str; 2] = ["-distroless", "-debug"];

/// The image of the proxy.
pub(super) fn proxy(values: &Value, pod: &Value, config: &ProxyConfig) -> String {
    image(values, "proxy", pod, config.image_type())
}

/// The image of `istio-init`.
pub(super) fn init(values: &Value, pod: &Value) -> String {
    image(values, "proxy_init", pod, "")
}

fn image(values: &Value, section: &str, pod: &Value, image_type: &str) -> String {
    let global = &values["global"];
    let name = global[section]["image"].as_str().unwrap_or_default();
    let name = if name.is_empty() { "proxyv2" } else { name };
    let variant = global["variant"].as_str().unwrap_or_default();
    let image_type = if image_type.is_empty() {
        variant
    } else {
        image_type
    };
    let image_type = containers::annotation(pod, IMAGE_TYPE).unwrap_or(image_type);
    let hub = global["hub"].as_str().unwrap_or_default();
    let tag = match &global["tag"] {
        Value::String(tag) => tag.clone(),
        Value::Null => String::new(),
        // A tag such as 1.20 without quotes.
        tag => tag.to_string(),
    };
    format!("{hub}/{name}:{}", tag_of_type(&tag, image_type))
}

fn tag_of_type(tag: &str, image_type: &str) -> String {
    if image_type.is_empty() {
        return tag.to_owned();
    }
    let bare = SUFFIXES.iter().find_map(|suffix| tag.strip_suffix(suffix));
    let bare = bare.unwrap_or(tag);
    match image_type {
        "default" => bare.to_owned(),
        image_type => format!("{bare}-{image_type}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::proxy_config::Change, *};

    #[test]
    fn the_type_replaces_the_suffix_of_the_tag() {
        for (tag, image_type, expected) in [
            ("1.2", "", "1.2"),
            ("1.2", "debug", "1.2-debug"),
            ("1.2-debug", "distroless", "1.2-distroless"),
            ("1.2-distroless", "default", "1.2"),
            ("1.2-distroless", "", "1.2-distroless"),
        ] {
            assert_eq!(tag_of_type(tag, image_type), expected);
        }
    }

    #[test]
    fn the_annotation_wins_over_the_configuration_and_the_values() {
        let values = json!({"global": {
            "hub": "h", "tag": 1.2, "variant": "v", "proxy": {"image": ""}, "proxy_init": {"image": "i"}
        }});
        let config = ProxyConfig::defaults();
        let debug = config.with(&Change::parse("image: {imageType: debug}").unwrap());
        let pod = json!({"metadata": {"annotations": {IMAGE_TYPE: "default"}}});
        assert_eq!(proxy(&values, &json!({}), &config), "h/proxyv2:1.2-v");
        assert_eq!(proxy(&values, &json!({}), &debug), "h/proxyv2:1.2-debug");
        assert_eq!(proxy(&values, &pod, &debug), "h/proxyv2:1.2");
        assert_eq!(init(&values, &json!({})), "h/i:1.2-v");
    }
}

//! The properties of templates.

use serde_json::{Value, json};

use crate::{
    Subject,
    istio::{self, Config, Options, Sources},
};

/// The key `config` of Istio's `ConfigMap`, or a template: rendering ends, and gives the same twice.
pub fn template(data: &[u8]) {
    let Ok(inject) = str::from_utf8(data) else {
        return;
    };
    let sources = Sources {
        inject,
        values: r#"{"global": {"hub": "h", "tag": "t", "proxy": {"resources": {"limits": {"cpu": "1"}}}},
            "pilot": {"cni": {"enabled": false}}}"#,
        mesh: "defaultConfig: {drainDuration: 5s}",
    };
    let Ok(config) = Config::load(&sources, Options::default()) else {
        return;
    };
    let subject = Subject {
        namespace: "shop".to_owned(),
        ..Subject::default()
    };
    let [once, twice] = [(); 2].map(|()| istio::inject(&pod(), &subject, &config));
    assert_eq!(once, twice);
}

fn pod() -> Value {
    json!({
        "metadata": {"name": "web-0", "labels": {"app": "web"}, "annotations": {"a": "1"}},
        "spec": {"containers": [{
            "name": "app",
            "ports": [{"containerPort": 80, "name": "http"}],
            "readinessProbe": {"httpGet": {"port": "http", "path": "/ok"}},
        }]},
    })
}

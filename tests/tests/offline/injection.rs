//! Istio's own golden files, against ours: an outside corpus, of which nothing is copied.
//!
//! `ISTIO_DIR` names a checkout of istio/istio. Without it, the tests say so and do nothing: what CI
//! has to prove without the corpus, the tests of the crate prove with templates of their own.

mod cases;
mod corpus;
mod differences;
mod equality;

use std::{collections::BTreeMap, sync::Arc};

use cases::Case;
use corpus::Corpus;
use interceptor_injection::{
    Config, Injected, Outcome, Sidecar, Subject, decision, istio, record,
    uninject::{self, Uninjected},
    workloads::{self, Workload},
};
use serde_json::{Value, json};

/// The corpus, or a note on stderr that there is none.
fn corpus() -> Option<Corpus> {
    let corpus = Corpus::from_environment();
    if corpus.is_none() {
        eprintln!("skipped: ISTIO_DIR names no checkout of istio/istio");
    }
    corpus
}

/// The namespace of Istio's test of OpenShift.
fn openshift() -> BTreeMap<String, String> {
    let ids = "1000620000/10000".to_owned();
    BTreeMap::from([
        ("openshift.io/sa.scc.uid-range".to_owned(), ids.clone()),
        ("openshift.io/sa.scc.supplemental-groups".to_owned(), ids),
    ])
}

/// Injects all pod templates of `object`.
fn inject_all(object: &Value, case: &Case, config: &Config) -> Result<Value, String> {
    let mut injected = object.clone();
    for Workload { pointer, owner } in workloads::of(object) {
        let Some(pod) = injected.pointer_mut(&pointer) else {
            continue;
        };
        let subject = Subject {
            namespace: owner.namespace.clone(),
            namespace_annotations: if case.openshift {
                openshift()
            } else {
                BTreeMap::new()
            },
            owner: (owner.kind != "Pod").then_some(owner),
            ..Subject::default()
        };
        let outcome = interceptor_injection::inject(pod, &subject, config)
            .map_err(|refusal| refusal.to_string())?;
        if let Outcome::Inject(Injected { pod: result, .. }) = outcome {
            *pod = result;
        }
    }
    Ok(injected)
}

/// `injected` without our record, as Istio makes it.
fn without_record(injected: &Value) -> Value {
    let mut object = injected.clone();
    for Workload { pointer, .. } in workloads::of(injected) {
        let annotations = object.pointer_mut(&format!("{pointer}/metadata/annotations"));
        if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
            annotations.shift_remove(record::UNDO);
        }
    }
    object
}

/// All pod templates of `injected` as they were.
fn uninject_all(injected: &Value) -> Value {
    let mut object = injected.clone();
    for Workload { pointer, .. } in workloads::of(injected) {
        let pod = object.pointer_mut(&pointer).unwrap();
        if let Uninjected::Exact(original) = uninject::uninject(pod).unwrap() {
            *pod = original;
        }
    }
    object
}

fn injector(config: istio::Config) -> Config {
    Config {
        rules: decision::Rules::default(),
        sidecar: Sidecar::Istio(Arc::new(config)),
    }
}

fn check_golden(ours: Value, golden: Value, case: &Case) -> Result<(), String> {
    if case.openshift {
        let without = differences::without_status;
        return equality::check(&without(ours), &without(golden));
    }
    equality::check(&ours, &golden)
}

/// What differs in this case; none if nothing does.
fn compare(corpus: &Corpus, case: &Case) -> Result<(), String> {
    let config = injector(corpus.config(case));
    let inputs = corpus.documents(&case.input);
    let goldens = corpus.documents(&case.want);
    if inputs.len() != goldens.len() {
        return Err(format!("{} documents, not {}", inputs.len(), goldens.len()));
    }
    for (input, golden) in inputs.iter().zip(goldens) {
        let injected = inject_all(input, case, &config)?;
        let bare = without_record(&injected);
        check_golden(bare.clone(), differences::as_ours(golden, case), case)?;
        let again = inject_all(&injected, case, &config)?;
        equality::identical(&injected, &again).map_err(|error| format!("again: {error}"))?;
        let original = uninject_all(&injected);
        equality::same(&original, input).map_err(|error| format!("uninject: {error}"))?;
        if differences::is_stable(case) {
            let again = without_record(&inject_all(&bare, case, &config)?);
            equality::identical(&bare, &again).map_err(|error| format!("bare again: {error}"))?;
        }
    }
    Ok(())
}

#[test]
fn istios_goldens_are_equal_and_injected_only_once() {
    let Some(corpus) = corpus() else { return };
    let cases = cases::all(&corpus.files());
    let failures: Vec<_> = cases
        .iter()
        .filter_map(|case| Some(format!("{}: {}", case.want, compare(&corpus, case).err()?)))
        .collect();
    eprintln!(
        "{} of {} of Istio's goldens are equal",
        cases.len() - failures.len(),
        cases.len()
    );
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

#[test]
fn what_istio_refuses_is_refused() {
    let Some(corpus) = corpus() else { return };
    for (input, annotation) in cases::REFUSED {
        let case = Case::new(input, input);
        let config = injector(corpus.config(&case));
        let [object] = &corpus.documents(&case.input)[..] else {
            panic!("{input} has more than one document");
        };
        let problem = inject_all(object, &case, &config).unwrap_err();
        assert!(problem.contains(annotation), "{input}: {problem}");
    }
}

#[test]
fn with_the_agent_pods_have_no_init_container_and_no_capabilities() {
    let Some(corpus) = corpus() else { return };
    let case = Case {
        native: Some(true),
        ..Case::new("hello.yaml", "hello.yaml.cni.injected")
    };
    let options = istio::Options {
        interception: istio::Interception::Agent,
        ..istio::Options::default()
    };
    let config = injector(corpus.config_with(&case, options));
    let [object] = &corpus.documents(&case.input)[..] else {
        panic!("more than one document");
    };
    let injected = inject_all(object, &case, &config).unwrap();
    let template = &injected["spec"]["template"];
    let init = template["spec"]["initContainers"].as_array().unwrap();
    let names: Vec<_> = init.iter().map(|container| &container["name"]).collect();
    assert_eq!(names, ["istio-proxy"]);
    assert!(!injected.to_string().contains("NET_ADMIN"));
    let annotations = &template["metadata"]["annotations"];
    assert_eq!(annotations["sidecar.istio.io/interceptionMode"], "REDIRECT");
    assert_eq!(
        annotations["traffic.sidecar.istio.io/includeInboundPorts"],
        "*"
    );
}

#[test]
fn a_proxy_config_does_what_the_default_configuration_does() {
    let Some(corpus) = corpus() else { return };
    let case = Case::new("hello.yaml", "hello.yaml.injected");
    let by_mesh = Case {
        mesh: "defaultConfig: {concurrency: 3, image: {imageType: debug}, proxyMetadata: {A: b}}",
        ..Case::new("hello.yaml", "hello.yaml.injected")
    };
    let resource = json!({
        "metadata": {"namespace": "istio-system", "name": "all"},
        "spec": {
            "concurrency": 3,
            "image": {"imageType": "debug"},
            "environmentVariables": {"A": "b"},
        },
    });
    let options = istio::Options {
        proxy_configs: istio::ProxyConfigs::parse(&[resource], "").0,
        ..istio::Options::default()
    };
    let config = injector(corpus.config_with(&case, options));
    let by_mesh = injector(corpus.config(&by_mesh));
    for object in corpus.documents(&case.input) {
        let injected = inject_all(&object, &case, &config).unwrap();
        let expected = inject_all(&object, &case, &by_mesh).unwrap();
        equality::identical(&injected, &expected).unwrap();
        let text = injected.to_string();
        for part in [
            "-debug\"",
            r#"\"concurrency\":3"#,
            r#"{"name":"A","value":"b"}"#,
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
}

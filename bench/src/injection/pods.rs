//! Pods as the API server sends them to a webhook, of many workloads.

use interceptor_injection::Subject;
use serde_json::{Value, json};

const NAMESPACE: &str = "shop";
/// Stands for the random part of the volume's name in a review.
const SUFFIX: &str = "00000";
/// The characters of random names.
const CHARACTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// Deployments, which differ in name, labels, annotations, images and ports.
#[derive(Clone, Debug)]
pub(super) struct Workloads {
    reviews: Vec<Review>,
}

/// A review with the places of what differs between the pods of a workload.
#[derive(Clone, Debug)]
struct Review {
    body: Vec<u8>,
    suffixes: Vec<usize>,
    serial: usize,
}

impl Workloads {
    pub(super) fn new(count: usize) -> Self {
        let review = |number| Review::new(&review(number));
        Self {
            reviews: (0..count).map(review).collect(),
        }
    }

    /// Where the pods are created.
    pub(super) fn subject() -> Subject {
        Subject {
            namespace: NAMESPACE.to_owned(),
            ..Subject::default()
        }
    }

    /// The review of a pod: of a workload that has had others, or with an annotation that no other
    /// pod has.
    pub(super) fn review(&self, number: usize, is_unique: bool) -> Vec<u8> {
        let review = &self.reviews[number % self.reviews.len()];
        let mut body = review.body.clone();
        let suffix = suffix(number);
        for place in &review.suffixes {
            body[*place..place + SUFFIX.len()].copy_from_slice(&suffix);
        }
        if is_unique {
            let serial = format!("{number:08}");
            body[review.serial..review.serial + serial.len()].copy_from_slice(serial.as_bytes());
        }
        body
    }

    /// The pod of a review.
    pub(super) fn pod(&self, number: usize) -> Value {
        self.pod_of(number, false)
    }

    /// The same, with an annotation that no other pod has.
    pub(super) fn unique_pod(&self, number: usize) -> Value {
        self.pod_of(number, true)
    }

    fn pod_of(&self, number: usize, is_unique: bool) -> Value {
        let review: Value =
            serde_json::from_slice(&self.review(number, is_unique)).expect("a review is JSON");
        review["request"]["object"].clone()
    }
}

impl Review {
    fn new(review: &Value) -> Self {
        let body = review.to_string();
        let prefix = "kube-api-access-";
        let name = format!("{prefix}{SUFFIX}");
        let suffixes = body.match_indices(&name);
        let serial = body.find("99999999").expect("the review's annotation");
        Self {
            suffixes: suffixes.map(|(place, _)| place + prefix.len()).collect(),
            serial,
            body: body.into_bytes(),
        }
    }
}

/// Five characters.
fn suffix(number: usize) -> [u8; SUFFIX.len()] {
    let mut rest = number;
    std::array::from_fn(|_| {
        let character = CHARACTERS[rest % CHARACTERS.len()];
        rest /= CHARACTERS.len();
        character
    })
}

fn review(number: usize) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": format!("0e4a1b3c-6d52-4d0e-9d5a-{number:012}"),
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": NAMESPACE,
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod(number),
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

fn pod(number: usize) -> Value {
    let name = format!("service-{number}");
    let hash = format!("{:x}", 0x7d9c_5b6f_u64 + number as u64);
    let port = 8000 + number % 1000;
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "generateName": format!("{name}-{hash}-"),
            "creationTimestamp": null,
            "labels": {
                "app": name,
                "version": format!("v{}", number % 7),
                "pod-template-hash": hash,
                "team": format!("team-{}", number % 13),
            },
            "annotations": {
                "checksum/config": format!("{:064x}", number * 7_919),
                "build": "99999999",
                "prometheus.io/scrape": "true",
                "prometheus.io/port": port.to_string(),
                "traffic.sidecar.istio.io/excludeOutboundPorts": (3306 + number % 5).to_string(),
            },
            "ownerReferences": [{
                "apiVersion": "apps/v1",
                "kind": "ReplicaSet",
                "name": format!("{name}-{hash}"),
                "uid": format!("9c1f0b7a-53f4-4a86-8a7e-{number:012}"),
                "controller": true,
                "blockOwnerDeletion": true,
            }],
        },
        "spec": {
            "volumes": [
                {"name": "config", "configMap": {"name": name, "defaultMode": 420}},
                {"name": format!("kube-api-access-{SUFFIX}"), "projected": {
                    "defaultMode": 420,
                    "sources": [
                        {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                        {"configMap": {"name": "kube-root-ca.crt", "items": [
                            {"key": "ca.crt", "path": "ca.crt"},
                        ]}},
                        {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {
                            "apiVersion": "v1", "fieldPath": "metadata.namespace",
                        }}]}},
                    ],
                }},
            ],
            "containers": [container(number, &name, port)],
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            "serviceAccountName": name,
            "serviceAccount": name,
            "securityContext": {"runAsNonRoot": true, "fsGroup": 2000},
            "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute",
                    "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists",
                    "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "priority": 0,
            "enableServiceLinks": true,
            "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {},
    })
}

fn container(number: usize, name: &str, port: usize) -> Value {
    json!({
        "name": "app",
        "image": format!("registry.example.org/shop/{name}:1.{}.{}", number % 9, number % 23),
        "ports": [
            {"name": "http", "containerPort": port, "protocol": "TCP"},
            {"name": "grpc", "containerPort": 9000, "protocol": "TCP"},
        ],
        "env": [
            {"name": "LOG_LEVEL", "value": "info"},
            {"name": "DATABASE", "value": format!("postgres://db-{}.data.svc:5432/shop", number % 11)},
            {"name": "POD_NAME", "valueFrom": {"fieldRef": {
                "apiVersion": "v1", "fieldPath": "metadata.name",
            }}},
        ],
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi"},
            "limits": {"memory": "512Mi"},
        },
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/app", "readOnly": true},
            {"name": format!("kube-api-access-{SUFFIX}"), "readOnly": true,
                "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"},
        ],
        "readinessProbe": {
            "httpGet": {"path": "/ready", "port": "http", "scheme": "HTTP"},
            "periodSeconds": 5, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
        },
        "livenessProbe": {
            "tcpSocket": {"port": port},
            "periodSeconds": 10, "timeoutSeconds": 1, "successThreshold": 1, "failureThreshold": 3,
        },
        "terminationMessagePath": "/dev/termination-log",
        "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true},
    })
}

/// Manifests of so many Deployments, in YAML.
pub(super) fn deployments(count: usize) -> String {
    (0..count).map(deployment).collect()
}

fn deployment(number: usize) -> String {
    format!(
        "---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: service-{number}
  namespace: {NAMESPACE}
  labels:
    app: service-{number}
spec:
  replicas: 3
  selector:
    matchLabels:
      app: service-{number}
  template:
    metadata:
      labels:
        app: service-{number}
        version: v{version}
      annotations:
        prometheus.io/scrape: \"true\"
        traffic.sidecar.istio.io/excludeOutboundPorts: \"{excluded}\"
    spec:
      # The account of the service.
      serviceAccountName: service-{number}
      containers:
        - name: app
          image: registry.example.org/shop/service-{number}:1.{version}
          ports:
            - name: http
              containerPort: {port}
          env:
            - name: LOG_LEVEL
              value: info
          readinessProbe:
            httpGet:
              path: /ready
              port: http
          resources:
            requests:
              cpu: 250m
              memory: 256Mi
",
        version = number % 7,
        excluded = 3306 + number % 5,
        port = 8000 + number % 1000,
    )
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn pods_of_a_workload_differ_in_the_volume() {
        let workloads = Workloads::new(3);
        let names: HashSet<_> = (0..300)
            .map(|number| {
                let pod = workloads.pod(number);
                let volume = pod["spec"]["volumes"][1]["name"].clone();
                assert_eq!(
                    pod["spec"]["containers"][0]["volumeMounts"][1]["name"],
                    volume
                );
                volume.to_string()
            })
            .collect();
        assert_eq!(names.len(), 300);
        assert_eq!(workloads.pod(1)["metadata"], workloads.pod(4)["metadata"]);
        assert_ne!(workloads.pod(1)["metadata"], workloads.pod(2)["metadata"]);
        let unique = workloads.unique_pod(4);
        assert_eq!(unique["metadata"]["annotations"]["build"], "00000004");
    }
}

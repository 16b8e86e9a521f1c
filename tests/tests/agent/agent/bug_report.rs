//! `interceptor bug-report` on a node with an agent and a captured pod.

use std::{
    collections::BTreeMap,
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    thread,
};

use interceptor_testkit::{
    command::{bounded, run},
    interceptor,
    lab::dial,
    node::{AgentProcess, Manifest, Node, Pod, REMOTE},
};
use serde_json::Value;
use tempfile::TempDir;

use super::{expect_captured, new_node};

const NAMESPACE: &str = "bank-of-tests";
const POD: &str = "teller-7f3a";
/// A field of another plugin.
const SECRET: &str = "swordfish";

struct Scene {
    agent: AgentProcess,
    pod: Pod,
    log: PathBuf,
    node: Node,
}

impl Scene {
    fn new() -> Self {
        let node = new_node();
        let log = node.dir().join("interceptor-cni.log");
        let network = node.runtime.conf.join("99-other.conf");
        let text = format!(r#"{{"name":"x","type":"other","token":"{SECRET}"}}"#);
        fs::write(network, text).expect("a network");
        let file = log.display().to_string();
        let options = ["--cni-log-file", &file];
        let agent = node.start_ready_agent(&options).expect("an agent");
        let manifest = Manifest::of_mesh(POD, &node.new_uid()).in_namespace(NAMESPACE);
        let pod = node.run(manifest).expect("a pod");
        expect_captured(&pod);
        Self {
            agent,
            pod,
            log,
            node,
        }
    }

    fn socket(&self) -> PathBuf {
        self.node.dir().join("observe.sock")
    }

    /// Makes the agent keep a flow.
    fn observe(&self) {
        let mut observe = bounded(interceptor::binary());
        observe.args(["observe", "--first", "1", "--socket"]);
        observe.arg(self.socket());
        let observer = thread::spawn(move || run(&mut observe, "").expect("a flow"));
        while !observer.is_finished() {
            dial(self.pod.app().expect("the app"), REMOTE).expect("a dial");
        }
        observer.join().expect("a flow");
    }

    /// The output of the command, and the ID of its process.
    fn report(&self, archive: &Path, options: &[&str]) -> (Output, u32) {
        let mut command = self.agent.on_its_host(&interceptor::binary());
        command.args(["bug-report", "--http-address"]);
        command.arg(self.agent.http_address().to_string());
        command.arg("--socket").arg(self.socket());
        command.arg("--cni-conf-dir").arg(&self.node.runtime.conf);
        command.arg("--output").arg(archive).args(options);
        command.stderr(Stdio::piped());
        let child = command.spawn().expect("a process");
        let id = child.id();
        (child.wait_with_output().expect("an output"), id)
    }
}

/// The archive's files: its only directory has the time in its name.
fn extracted(archive: &Path) -> BTreeMap<String, String> {
    let dir = TempDir::new().expect("a directory");
    let mut tar = bounded("tar");
    tar.arg("-xzf").arg(archive).arg("-C").arg(dir.path());
    run(tar.arg("--strip-components=1"), "").expect("an archive");
    let mut files = BTreeMap::new();
    for subdirectory in ["", "agent", "cni"] {
        // Without an agent, one of them does not exist.
        let entries = fs::read_dir(dir.path().join(subdirectory));
        for entry in entries.into_iter().flatten() {
            let path = entry.expect("an entry").path();
            if path.is_file() {
                let name = path.strip_prefix(dir.path()).expect("a name");
                let text = fs::read_to_string(&path).expect("text");
                files.insert(name.display().to_string(), text);
            }
        }
    }
    files
}

fn json(files: &BTreeMap<String, String>, name: &str) -> Value {
    let text = files
        .get(name)
        .unwrap_or_else(|| panic!("{name}: {files:#?}"));
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}: {text}"))
}

#[test]
fn the_archive_has_the_state_of_the_node() {
    let scene = Scene::new();
    scene.observe();
    let dir = TempDir::new().expect("a directory");
    let archive = dir.path().join("report.tar.gz");
    let (output, id) = scene.report(&archive, &[]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("read it before you share it"), "{printed}");
    let files = extracted(&archive);
    let versions = json(&files, "versions.json");
    assert_eq!(versions["interceptor"], env!("CARGO_PKG_VERSION"));
    assert!(
        json(&files, "check.json")
            .as_array()
            .is_some_and(|all| all.len() > 10)
    );
    let pods = json(&files, "pods.json");
    // Other tests have pods, too.
    let mut pods = pods.as_array().expect("pods").iter();
    assert!(pods.any(|pod| pod["pod"]["name"] == POD));
    let programs = json(&files, "programs.json");
    let mut programs = programs.as_array().expect("programs").iter();
    let connect = programs.find(|program| program["name"] == "icept_connect4");
    let verified = connect.expect("a program")["verified_instructions"].as_u64();
    assert!(verified > Some(1000), "{connect:?}");
    let links = json(&files, "links.json");
    assert!(links.as_array().is_some_and(|links| links.len() > 10));
    assert_eq!(json(&files, "agent/health.json")["ready"], true);
    let networks = json(&files, "cni/networks.json");
    assert_eq!(networks["99-other.conf"]["omitted"][0], "token");
    for (name, text) in [
        ("pins.txt", "icept_policies"),
        ("maps.json", "icept_stand_ins"),
        ("agent/states.json", POD),
        ("agent/flows.ndjson", POD),
        ("agent/metrics.txt", "interceptor_build_info"),
        ("cni/interceptor-cni.log", POD),
    ] {
        assert!(files[name].contains(text), "{name}: {}", files[name]);
    }
    assert!(
        files.values().all(|text| !text.contains(SECRET)),
        "{files:#?}"
    );
    // The kernel's log is not readable everywhere.
    let failed = files["errors.txt"].lines();
    let failed: Vec<_> = failed
        .filter(|line| !line.starts_with("kernel.log: "))
        .collect();
    assert_eq!(failed, [""; 0]);
    expect_nothing_left(dir.path(), id);
}

/// Only the archive is left.
fn expect_nothing_left(dir: &Path, id: u32) {
    assert_eq!(fs::read_dir(dir).expect("a directory").count(), 1);
    let check = format!("interceptor-check-{id}");
    for root in ["/sys/fs/bpf", "/sys/fs/cgroup"] {
        let left = Path::new(root).join(&check);
        assert!(!left.exists(), "{}", left.display());
    }
}

/// The words of a text that are addresses, also with a port or a prefix length.
fn addresses(text: &str) -> Vec<IpAddr> {
    let words = text.split(|letter: char| !letter.is_ascii_hexdigit() && !".:".contains(letter));
    words.filter_map(|word| word.parse().ok()).collect()
}

#[test]
fn redaction_leaves_no_address_and_no_name() {
    let scene = Scene::new();
    scene.observe();
    // A pod that is deleted.
    fs::write(
        &scene.log,
        format!(
            "{}2026 ADD lost-bank/vault-1: captured\n",
            fs::read_to_string(&scene.log).expect("a log")
        ),
    )
    .expect("written");
    let dir = TempDir::new().expect("a directory");
    let archive = dir.path().join("report.tar.gz");
    let (output, _) = scene.report(&archive, &["--redact"]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}");
    let files = extracted(&archive);
    let host = fs::read_to_string("/proc/sys/kernel/hostname").expect("a name");
    let names = [
        NAMESPACE,
        POD,
        &scene.node.name,
        host.trim(),
        "lost-bank",
        "vault-1",
    ];
    for (file, text) in &files {
        for name in names {
            assert!(!text.contains(name), "{file}: {name}: {text}");
        }
        let addresses = addresses(text);
        assert!(addresses.is_empty(), "{file}: {addresses:?}: {text}");
    }
    let states = json(&files, "agent/states.json");
    let (namespace, name) = (&states[0]["namespace"], &states[0]["name"]);
    // The same placeholders everywhere.
    let pods = json(&files, "pods.json");
    let mut pods = pods.as_array().expect("pods").iter();
    assert!(pods.any(|pod| {
        let pod = &pod["pod"];
        (&pod["namespace"], &pod["name"]) == (namespace, name)
    }));
    assert!(
        name.as_str().is_some_and(|name| name.starts_with("pod-")),
        "{name}"
    );
}

#[test]
fn without_an_agent_the_archive_says_so() {
    let mut scene = Scene::new();
    scene.agent.kill().expect("killed");
    let dir = TempDir::new().expect("a directory");
    let archive = dir.path().join("report.tar.gz");
    let (output, _) = scene.report(&archive, &[]);
    assert!(output.status.success());
    let errors = &extracted(&archive)["errors.txt"];
    for file in ["agent/health.json", "agent/metrics.txt"] {
        let line = format!("{file}: no node agent listens at ");
        assert!(errors.contains(&line), "{errors}");
    }
    // A report is never overwritten.
    let (output, _) = scene.report(&archive, &[]);
    let printed = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(printed.contains("cannot create"), "{printed}");
}

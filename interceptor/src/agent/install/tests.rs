use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink},
    time::Duration,
};

use clap::Parser;
use tempfile::TempDir;
use tokio::{sync::watch, time::timeout};

use super::*;
use crate::cni::files::{finish, uninstall_while};

const CALICO: &str = r#"{"name":"k8s-pod-network","cniVersion":"0.3.1","plugins":[{"type":"calico","mtu":0},{"type":"portmap"}]}"#;
const BRIDGE: &str = r#"{"cniVersion":"0.4.0","name":"mynet","type":"bridge"}"#;

#[derive(Parser)]
struct Command {
    #[command(flatten)]
    install: InstallOptions,
}

/// A node's directories.
struct Node {
    dir: TempDir,
}

impl Node {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let node = Self { dir };
        fs::create_dir(node.conf("")).unwrap();
        for (name, text) in files {
            node.write(name, text);
        }
        node
    }

    fn conf(&self, name: &str) -> PathBuf {
        self.dir.path().join("net.d").join(name)
    }

    fn binary(&self) -> PathBuf {
        self.dir.path().join("bin").join(PLUGIN)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.conf(name), text).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.conf(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let paths = atomic_file::list(&self.conf("")).unwrap().into_iter();
        paths
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect()
    }

    fn options(&self, more: &[&str]) -> InstallOptions {
        let [bin, conf] = ["bin", "net.d"].map(|name| self.dir.path().join(name));
        let arguments = [
            "agent".into(),
            "--cni-bin-dir".into(),
            bin,
            "--cni-conf-dir".into(),
            conf,
        ];
        let more = more.iter().map(PathBuf::from);
        Command::try_parse_from(arguments.into_iter().chain(more))
            .unwrap()
            .install
    }

    fn once(&self, more: &[&str]) -> Result<Installed, InstallError> {
        once(&self.options(more))
    }

    #[track_caller]
    fn refused(&self, more: &[&str], says: &[&str]) {
        let error = self.once(more).unwrap_err().to_string();
        for word in says {
            assert!(error.contains(word), "no {word:?} in: {error}");
        }
    }

    fn uninstall(&self) -> Vec<String> {
        uninstall_while(&self.options(&[]).dirs, false).unwrap()
    }

    #[track_caller]
    fn types(&self, name: &str) -> Vec<String> {
        let network = conflist::Network::parse(Shape::List, &self.read(name)).unwrap();
        network.types().into_iter().map(str::to_owned).collect()
    }
}

fn value(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn binary_and_entry_are_installed_once() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let file = node.conf("10-calico.conflist");
    assert_eq!(node.once(&[]).unwrap(), Installed::Now(file.clone()));
    assert_eq!(
        node.types("10-calico.conflist"),
        ["calico", "portmap", PLUGIN]
    );
    let binary = fs::metadata(node.binary()).unwrap();
    assert_eq!(binary.mode() & 0o777, 0o755);
    assert_eq!(binary.len(), fs::metadata("/proc/self/exe").unwrap().len());
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    let before = [inode(&file), inode(&node.binary())];
    assert_eq!(node.once(&[]).unwrap(), Installed::Already(file.clone()));
    assert_eq!([inode(&file), inode(&node.binary())], before);
}

#[test]
fn another_binary_under_our_name_is_replaced() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    fs::write(node.binary(), "older").unwrap();
    node.once(&[]).unwrap();
    let length = fs::metadata(node.binary()).unwrap().len();
    assert_eq!(length, fs::metadata("/proc/self/exe").unwrap().len());
}

#[test]
fn the_file_keeps_its_mode_and_its_owner() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let file = node.conf("10-calico.conflist");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(&file, Some(4242), Some(4343)).unwrap();
    }
    let kept = |file: &Path| {
        let metadata = fs::metadata(file).unwrap();
        (metadata.mode() & 0o777, metadata.uid(), metadata.gid())
    };
    let before = kept(&file);
    node.once(&[]).unwrap();
    assert_eq!(kept(&file), before);
}

#[test]
fn the_network_is_the_first_valid_one() {
    let node = Node::new(&[
        ("00-readme.txt", "no network"),
        ("05-broken.conflist", "{\"name\":"),
        ("10-calico.conflist", CALICO),
        ("20-bridge.conf", BRIDGE),
    ]);
    assert_eq!(
        node.once(&[]).unwrap().file(),
        node.conf("10-calico.conflist")
    );
    // A broken file of another program is not changed.
    assert_eq!(node.read("05-broken.conflist"), "{\"name\":");
    let named = node
        .once(&["--cni-conf-file-name", "20-bridge.conf"])
        .unwrap();
    assert_eq!(named.file(), node.conf("20-bridge.conflist"));
    let again = node
        .once(&["--cni-conf-file-name", "20-bridge.conf"])
        .unwrap();
    assert_eq!(again, Installed::Already(node.conf("20-bridge.conflist")));
}

/// A chart sets the variable to an empty string if its value is not set.
#[test]
fn an_empty_file_name_is_ignored() {
    let empty = ["--cni-conf-file-name", ""];
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let installed = node.once(&empty).unwrap();
    assert_eq!(installed.file(), node.conf("10-calico.conflist"));
    let alone = node.once(&[&empty[..], &["--chained", "false"]].concat());
    assert_eq!(alone.unwrap().file(), node.conf(ALONE));
}

#[test]
fn a_broken_file_is_reported_and_not_changed() {
    let node = Node::new(&[("05-broken.conflist", "{")]);
    node.refused(&[], &["no network", "05-broken.conflist", "is not changed"]);
    node.refused(
        &["--cni-conf-file-name", "05-broken.conflist"],
        &["05-broken.conflist"],
    );
    assert_eq!(node.read("05-broken.conflist"), "{");
    let old = CALICO.replace("0.3.1", "0.2.0");
    node.write("01-old.conflist", &old);
    node.refused(&[], &["01-old.conflist", "0.2.0"]);
    assert_eq!(node.read("01-old.conflist"), old);
}

#[test]
fn one_plugin_becomes_a_list_and_is_restored() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE)]);
    node.once(&[]).unwrap();
    assert_eq!(
        node.names(),
        ["10-bridge.conf.interceptor-saved", "10-bridge.conflist"]
    );
    assert_eq!(node.types("10-bridge.conflist"), ["bridge", PLUGIN]);
    node.uninstall();
    assert_eq!(node.names(), ["10-bridge.conf"]);
    assert_eq!(node.read("10-bridge.conf"), BRIDGE);
}

/// Killed after the list was written, before the `.conf` was renamed.
#[test]
fn an_interrupted_conversion_to_a_list_is_completed() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE)]);
    node.once(&[]).unwrap();
    fs::rename(
        node.conf("10-bridge.conf.interceptor-saved"),
        node.conf("10-bridge.conf"),
    )
    .unwrap();
    node.once(&[]).unwrap();
    assert_eq!(
        node.names(),
        ["10-bridge.conf.interceptor-saved", "10-bridge.conflist"]
    );
}

/// Killed after the `.conf` was restored, before its list was removed.
#[test]
fn an_interrupted_uninstall_is_completed() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE)]);
    node.once(&[]).unwrap();
    fs::rename(
        node.conf("10-bridge.conf.interceptor-saved"),
        node.conf("10-bridge.conf"),
    )
    .unwrap();
    node.uninstall();
    assert_eq!(node.names(), ["10-bridge.conf"]);
    assert_eq!(node.read("10-bridge.conf"), BRIDGE);
}

#[test]
fn another_programs_list_is_not_overwritten() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE), ("10-bridge.conflist", CALICO)]);
    node.refused(
        &[],
        &["10-bridge.conf ", "10-bridge.conflist", "another program"],
    );
    assert_eq!(node.read("10-bridge.conflist"), CALICO);
}

/// Other programs' changes of the list would be lost with it.
#[test]
fn a_changed_list_stays_without_our_plugin() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE)]);
    node.once(&[]).unwrap();
    let changed = node
        .read("10-bridge.conflist")
        .replace("\"bridge\"", "\"macvlan\"");
    node.write("10-bridge.conflist", &changed);
    let done = node.uninstall().join("\n");
    assert!(done.contains("another program has changed"), "{done}");
    assert_eq!(node.types("10-bridge.conflist"), ["macvlan"]);
}

#[test]
fn uninstalling_restores_the_node_and_is_idempotent() {
    let node = Node::new(&[("10-calico.conflist", CALICO), ("99-broken.conflist", "{")]);
    node.once(&[]).unwrap();
    let done = node.uninstall();
    assert_eq!(done.len(), 2, "{done:?}");
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(!node.binary().exists());
    assert_eq!(node.names(), ["10-calico.conflist", "99-broken.conflist"]);
    assert_eq!(node.uninstall(), Vec::<String>::new());
    let bare = Node::new(&[]);
    fs::remove_dir(bare.conf("")).unwrap();
    assert_eq!(bare.uninstall(), Vec::<String>::new());
}

/// It may contain the plugin, which must not be removed while a network uses it.
#[test]
fn a_file_that_cannot_be_read_stops_the_uninstallation() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let file = node.conf("05-loop.conflist");
    symlink(&file, &file).unwrap();
    let error = uninstall_while(&node.options(&[]).dirs, false).unwrap_err();
    assert!(error.to_string().contains("05-loop.conflist"), "{error}");
    assert!(node.binary().exists());
    fs::remove_file(&file).unwrap();
    node.uninstall();
    assert!(!node.binary().exists());
}

/// CRI-O removes a pod's network with the configuration that it was created with.
#[test]
fn keep_cni_plugin_keeps_the_binary() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let options = node.options(&["--keep-cni-plugin"]);
    uninstall_while(&options.dirs, false).unwrap();
    assert!(node.binary().exists());
    assert_eq!(node.types("10-calico.conflist"), ["calico", "portmap"]);
}

#[test]
fn the_plugin_is_removed_while_istio_cni_is_present() {
    let both = CALICO.replace("portmap", "istio-cni");
    let node = Node::new(&[("10-calico.conflist", &both)]);
    node.refused(
        &[],
        &["istio-cni is in", "10-calico.conflist", "--allow-istio-cni"],
    );
    assert_eq!(node.read("10-calico.conflist"), both);
    node.once(&["--allow-istio-cni"]).unwrap();
    // istio-cni is added after our plugin.
    node.refused(&[], &["istio-cni"]);
    assert_eq!(node.types("10-calico.conflist"), ["calico", "istio-cni"]);
}

#[track_caller]
fn detected(node: &Node, more: &[&str]) -> IstioCni {
    istio_cni::detect(&node.options(more)).unwrap()
}

#[test]
fn istio_cni_is_detected_only_in_the_pod_network() {
    let both = CALICO.replace("portmap", "istio-cni");
    let node = Node::new(&[]);
    assert_eq!(detected(&node, &[]), IstioCni::Absent);
    node.write("10-calico.conflist", CALICO);
    // Runtimes do not use this file: it is not the first.
    node.write("20-other.conflist", &both);
    assert_eq!(detected(&node, &[]), IstioCni::Absent);
    let file = ["--cni-conf-file-name", "20-other.conflist"];
    let expected = IstioCni::In(node.conf("20-other.conflist"));
    assert_eq!(detected(&node, &file), expected);
    let beside = [&file[..], &["--allow-istio-cni"]].concat();
    assert_eq!(detected(&node, &beside), IstioCni::Absent);
    // Istio's own copy of the first (`istioOwnedCNIConfig`).
    node.write("02-istio-cni.conflist", &both);
    let expected = IstioCni::In(node.conf("02-istio-cni.conflist"));
    assert_eq!(detected(&node, &[]), expected);
}

#[test]
fn unchained_istio_cni_is_detected_in_any_network() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let unchained = ["--chained", "false"];
    node.once(&unchained).unwrap();
    assert_eq!(detected(&node, &unchained), IstioCni::Absent);
    let istios = BRIDGE.replace("bridge", "istio-cni");
    node.write("YYY-istio-cni.conf", &istios);
    let expected = IstioCni::In(node.conf("YYY-istio-cni.conf"));
    assert_eq!(detected(&node, &unchained), expected);
    // The pod selects one of both.
    let ours = node.conf("YYY-interceptor-cni.conf");
    assert_eq!(node.once(&unchained).unwrap(), Installed::Already(ours));
}

#[test]
fn a_failed_detection_keeps_the_state() {
    let node = Node::new(&[("10-calico.conflist", "broken")]);
    let named = node.options(&["--cni-conf-file-name", "10-calico.conflist"]);
    assert!(istio_cni::detect(&named).is_err());
    let (state, published) = watch::channel(IstioCni::Unknown);
    let publish = |detected| reconcile::publish_istio_cni(&state, detected);
    publish(None);
    assert_eq!(*published.borrow(), IstioCni::Absent);
    let expected = IstioCni::In(node.conf("10-calico.conflist"));
    publish(Some(expected.clone()));
    publish(None);
    assert_eq!(*published.borrow(), expected);
}

#[test]
fn unchained_the_plugin_has_a_file_of_its_own() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let alone = node.conf("YYY-interceptor-cni.conf");
    assert_eq!(
        node.once(&["--chained", "false"]).unwrap(),
        Installed::Now(alone.clone())
    );
    assert_eq!(
        node.once(&["--chained", "false"]).unwrap(),
        Installed::Already(alone)
    );
    assert_eq!(node.read("10-calico.conflist"), CALICO);
    node.uninstall();
    assert_eq!(node.names(), ["10-calico.conflist"]);
}

#[test]
fn temporary_files_of_a_killed_installer_are_removed() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.write(".tmp.interceptor-cni.Xy12", "half");
    node.write(".tmp.other", "another's");
    node.once(&[]).unwrap();
    assert_eq!(node.names(), [".tmp.other", "10-calico.conflist"]);
}

#[test]
fn concurrent_installers_leave_one_entry() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..5 {
                    node.once(&[]).unwrap();
                }
            });
        }
    });
    assert_eq!(
        node.types("10-calico.conflist"),
        ["calico", "portmap", PLUGIN]
    );
    assert_eq!(node.names(), ["10-calico.conflist"]);
}

#[test]
fn the_plugins_settings_are_those_of_the_options() {
    let node = Node::new(&[]);
    let settings = node
        .options(&[
            "--exclude-namespaces=kube-system, storage,",
            "--pod-namespace=mesh",
            "--pod-name=interceptor-agent-x7k2p",
            "--failure-policy=Ignore",
        ])
        .settings();
    assert_eq!(settings.exclude_namespaces, ["kube-system", "storage"]);
    assert_eq!(settings.failure_policy, FailurePolicy::Ignore);
    assert_eq!(settings.agent_pods.unwrap().prefix, "interceptor-agent-");
}

async fn until(
    states: &mut watch::Receiver<InstallState>,
    wanted: impl FnMut(&InstallState) -> bool,
) -> InstallState {
    let wait = timeout(Duration::from_mins(1), states.wait_for(wanted));
    wait.await.unwrap().unwrap().clone()
}

/// Runs `work` while the plugin is kept installed.
fn while_kept(node: &Node, work: impl AsyncFnOnce(watch::Receiver<InstallState>)) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let (state, states) = watch::channel(InstallState::Starting);
        let (istio_cni, _findings) = watch::channel(IstioCni::Unknown);
        let options = node.options(&[]);
        tokio::select! {
            ended = keep(&options, &state, &istio_cni) => ended.unwrap(),
            () = work(states) => {}
        }
    });
}

async fn until_kept(node: &Node, name: &str) {
    let installed = async {
        while !node.read(name).contains(PLUGIN) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), installed).await.unwrap();
}

#[test]
fn a_new_or_rewritten_network_gets_the_plugin() {
    let node = Node::new(&[]);
    while_kept(&node, async |mut states| {
        let waiting = until(&mut states, |state| *state != InstallState::Starting).await;
        assert!(matches!(waiting, InstallState::Not { reason } if reason.contains("no network")));
        node.write("10-calico.conflist", CALICO);
        let file = node.conf("10-calico.conflist");
        until(&mut states, |state| {
            *state == InstallState::Installed(file.clone())
        })
        .await;
        node.write("10-calico.conflist", CALICO);
        until_kept(&node, "10-calico.conflist").await;
        fs::remove_file(node.binary()).unwrap();
        let back = async {
            while !node.binary().exists() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(Duration::from_secs(30), back).await.unwrap();
    });
}

/// As Cilium does with `cni.exclusive=true`.
#[test]
fn a_program_that_keeps_rewriting_is_reported_with_the_fix() {
    let cilium = CALICO.replace("\"calico\"", "\"cilium-cni\"");
    let node = Node::new(&[("05-cilium.conflist", &cilium)]);
    while_kept(&node, async |mut states| {
        let mut rewritten = 0;
        let rewriting = async {
            loop {
                until_kept(&node, "05-cilium.conflist").await;
                node.write("05-cilium.conflist", &cilium);
                rewritten += 1;
            }
        };
        let contested = |state: &InstallState| matches!(state, InstallState::Not { .. });
        let state = tokio::select! {
            state = until(&mut states, contested) => state,
            () = rewriting => unreachable!("the loop does not end"),
        };
        assert!(matches!(state, InstallState::Not { reason }
            if reason.contains("cni.exclusive=false") && reason.contains("05-cilium.conflist")));
        assert!((5..=6).contains(&rewritten), "{rewritten}");
    });
}

/// The plugin's settings, if the list contains it.
fn ours(node: &Node, name: &str) -> Option<PluginSettings> {
    let network = conflist::Network::parse(Shape::List, &node.read(name)).unwrap();
    network.our_settings()
}

#[test]
fn while_pods_are_captured_the_uninstalled_plugin_stays() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let dirs = node.options(&[]).dirs;
    for _ in 0..2 {
        let done = uninstall_while(&dirs, true).unwrap().join("\n");
        assert!(done.contains("until the last captured pod"), "{done}");
        assert_eq!(
            node.types("10-calico.conflist"),
            ["calico", "portmap", PLUGIN]
        );
        let settings = ours(&node, "10-calico.conflist").unwrap();
        assert!(settings.uninstalled);
        let dir = fs::canonicalize(node.conf("")).unwrap();
        assert_eq!(settings.conf_dir, Some(dir));
        assert!(node.binary().exists());
    }
    // After a new installation, the plugin does not complete the uninstallation.
    node.once(&[]).unwrap();
    assert!(!ours(&node, "10-calico.conflist").unwrap().uninstalled);
    assert_eq!(finish(&dirs).unwrap(), Vec::<String>::new());
    assert!(ours(&node, "10-calico.conflist").is_some() && node.binary().exists());
    uninstall_while(&dirs, true).unwrap();
    finish(&dirs).unwrap();
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(!node.binary().exists());
}

/// With --keep-cni-plugin, and for a stand-alone network of Multus.
#[test]
fn a_kept_or_unchained_plugin_is_removed_at_once() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let kept = node.options(&["--keep-cni-plugin"]).dirs;
    uninstall_while(&kept, true).unwrap();
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(node.binary().exists());
    node.once(&["--chained", "false"]).unwrap();
    uninstall_while(&node.options(&[]).dirs, true).unwrap();
    assert_eq!(node.names(), ["10-calico.conflist"]);
}

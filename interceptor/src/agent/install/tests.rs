use std::{
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown},
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

    fn once(&self, more: &[&str]) -> Result<Installed, NotInstalled> {
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
        uninstall_while(&self.options(&[]).folders, false).unwrap()
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
fn the_network_is_the_one_that_runtimes_take() {
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
    // What is broken is another's, and stays.
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

/// A chart sets the variable of a value that no process has set.
#[test]
fn an_empty_name_of_the_network_is_none() {
    let empty = ["--cni-conf-file-name", ""];
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let installed = node.once(&empty).unwrap();
    assert_eq!(installed.file(), node.conf("10-calico.conflist"));
    let alone = node.once(&[&empty[..], &["--chained", "false"]].concat());
    assert_eq!(alone.unwrap().file(), node.conf(ALONE));
}

#[test]
fn a_broken_file_is_left_alone_and_named() {
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
fn one_plugin_becomes_a_list_and_is_brought_back() {
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

/// Killed after the list was written, before the `.conf` was hidden.
#[test]
fn becoming_a_list_is_taken_up_where_it_was_broken_off() {
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

/// Killed after the `.conf` was brought back, before its list was removed: the next uninstall ends
/// with no plugin of ours anywhere.
#[test]
fn an_uninstall_that_was_broken_off_is_taken_up() {
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
fn a_list_of_another_is_not_overwritten_by_one_plugin() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE), ("10-bridge.conflist", CALICO)]);
    node.refused(
        &[],
        &["10-bridge.conf ", "10-bridge.conflist", "another program"],
    );
    assert_eq!(node.read("10-bridge.conflist"), CALICO);
}

/// What others have added to the list since would be lost with it.
#[test]
fn a_list_that_others_have_changed_stays_without_our_plugin() {
    let node = Node::new(&[("10-bridge.conf", BRIDGE)]);
    node.once(&[]).unwrap();
    let changed = node
        .read("10-bridge.conflist")
        .replace("\"bridge\"", "\"macvlan\"");
    node.write("10-bridge.conflist", &changed);
    let said = node.uninstall().join("\n");
    assert!(said.contains("another program has changed"), "{said}");
    assert_eq!(node.types("10-bridge.conflist"), ["macvlan"]);
}

#[test]
fn uninstalled_the_node_is_as_before_and_twice_is_once() {
    let node = Node::new(&[("10-calico.conflist", CALICO), ("99-broken.conflist", "{")]);
    node.once(&[]).unwrap();
    let said = node.uninstall();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(!node.binary().exists());
    assert_eq!(node.names(), ["10-calico.conflist", "99-broken.conflist"]);
    assert_eq!(node.uninstall(), Vec::<String>::new());
    let bare = Node::new(&[]);
    fs::remove_dir(bare.conf("")).unwrap();
    assert_eq!(bare.uninstall(), Vec::<String>::new());
}

/// A pod of CRI-O's is taken down by the configuration that it was set up with.
#[test]
fn the_binary_may_stay_for_pods_that_are_taken_down_with_it() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let options = node.options(&["--keep-cni-plugin"]);
    uninstall_while(&options.folders, false).unwrap();
    assert!(node.binary().exists());
    assert_eq!(node.types("10-calico.conflist"), ["calico", "portmap"]);
}

#[test]
fn istio_cni_is_stepped_aside_for_and_named() {
    let both = CALICO.replace("portmap", "istio-cni");
    let node = Node::new(&[("10-calico.conflist", &both)]);
    node.refused(
        &[],
        &["istio-cni is in", "10-calico.conflist", "--allow-istio-cni"],
    );
    assert_eq!(node.read("10-calico.conflist"), both);
    node.once(&["--allow-istio-cni"]).unwrap();
    // It has come when we were there.
    node.refused(&[], &["istio-cni"]);
    assert_eq!(node.types("10-calico.conflist"), ["calico", "istio-cni"]);
}

#[track_caller]
fn found(node: &Node, more: &[&str]) -> IstioCni {
    istio_cni::look(&node.options(more)).unwrap()
}

#[test]
fn istio_cni_is_found_in_the_pods_network_and_nowhere_else() {
    let both = CALICO.replace("portmap", "istio-cni");
    let node = Node::new(&[]);
    assert_eq!(found(&node, &[]), IstioCni::Absent);
    node.write("10-calico.conflist", CALICO);
    // No runtime takes it: it is not the first.
    node.write("20-other.conflist", &both);
    assert_eq!(found(&node, &[]), IstioCni::Absent);
    let file = ["--cni-conf-file-name", "20-other.conflist"];
    let there = IstioCni::In(node.conf("20-other.conflist"));
    assert_eq!(found(&node, &file), there);
    let beside = [&file[..], &["--allow-istio-cni"]].concat();
    assert_eq!(found(&node, &beside), IstioCni::Absent);
    // Istio's own copy of the first (`istioOwnedCNIConfig`).
    node.write("02-istio-cni.conflist", &both);
    let there = IstioCni::In(node.conf("02-istio-cni.conflist"));
    assert_eq!(found(&node, &[]), there);
}

#[test]
fn among_the_networks_of_multus_istio_cni_is_found_in_whichever_it_is() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    let unchained = ["--chained", "false"];
    node.once(&unchained).unwrap();
    assert_eq!(found(&node, &unchained), IstioCni::Absent);
    let istios = BRIDGE.replace("bridge", "istio-cni");
    node.write("YYY-istio-cni.conf", &istios);
    let there = IstioCni::In(node.conf("YYY-istio-cni.conf"));
    assert_eq!(found(&node, &unchained), there);
    // Which of both a pod gets is said by the pod.
    let ours = node.conf("YYY-interceptor-cni.conf");
    assert_eq!(node.once(&unchained).unwrap(), Installed::Already(ours));
}

#[test]
fn what_cannot_be_looked_at_is_taken_to_be_as_it_was() {
    let node = Node::new(&[("10-calico.conflist", "broken")]);
    let named = node.options(&["--cni-conf-file-name", "10-calico.conflist"]);
    assert!(istio_cni::look(&named).is_err());
    let (state, told) = watch::channel(IstioCni::Unknown);
    let tell = |looked| reconcile::publish_istio_cni(&state, looked);
    tell(None);
    assert_eq!(*told.borrow(), IstioCni::Absent);
    let there = IstioCni::In(node.conf("10-calico.conflist"));
    tell(Some(there.clone()));
    tell(None);
    assert_eq!(*told.borrow(), there);
}

#[test]
fn alone_it_has_a_file_of_its_own_and_touches_no_other() {
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
fn what_a_killed_installer_left_goes() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.write(".tmp.interceptor-cni.Xy12", "half");
    node.write(".tmp.other", "another's");
    node.once(&[]).unwrap();
    assert_eq!(node.names(), [".tmp.other", "10-calico.conflist"]);
}

#[test]
fn two_installers_at_once_leave_one_entry() {
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
fn the_plugin_is_told_what_the_options_say() {
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

/// Does `work` while the plugin is being kept installed.
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
    let there = async {
        while !node.read(name).contains(PLUGIN) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(30), there).await.unwrap();
}

#[test]
fn a_network_that_comes_later_is_waited_for_and_a_rewritten_one_is_corrected() {
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
fn who_insists_on_being_alone_is_named_with_the_cure_and_not_fought() {
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
            () = rewriting => unreachable!("it has no end"),
        };
        assert!(matches!(state, InstallState::Not { reason }
            if reason.contains("cni.exclusive=false") && reason.contains("05-cilium.conflist")));
        assert!((5..=6).contains(&rewritten), "{rewritten}");
    });
}

/// The plugin's entry, if it is in the list.
fn ours(node: &Node, name: &str) -> Option<PluginSettings> {
    let network = conflist::Network::parse(Shape::List, &node.read(name)).unwrap();
    network.our_settings()
}

#[test]
fn while_pods_are_captured_the_plugin_stays_and_lets_new_ones_pass() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let folders = node.options(&[]).folders;
    for _ in 0..2 {
        let said = uninstall_while(&folders, true).unwrap().join("\n");
        assert!(said.contains("until the last captured pod"), "{said}");
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
    // Installed again, it is as it was, and what it was left to end stays.
    node.once(&[]).unwrap();
    assert!(!ours(&node, "10-calico.conflist").unwrap().uninstalled);
    assert_eq!(finish(&folders).unwrap(), Vec::<String>::new());
    assert!(ours(&node, "10-calico.conflist").is_some() && node.binary().exists());
    uninstall_while(&folders, true).unwrap();
    finish(&folders).unwrap();
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(!node.binary().exists());
}

/// Runtimes call it by the configuration that a pod was set up with, Multus calls a network of ours.
#[test]
fn where_the_plugin_is_called_all_the_same_its_entry_goes_at_once() {
    let node = Node::new(&[("10-calico.conflist", CALICO)]);
    node.once(&[]).unwrap();
    let kept = node.options(&["--keep-cni-plugin"]).folders;
    uninstall_while(&kept, true).unwrap();
    assert_eq!(value(&node.read("10-calico.conflist")), value(CALICO));
    assert!(node.binary().exists());
    node.once(&["--chained", "false"]).unwrap();
    uninstall_while(&node.options(&[]).folders, true).unwrap();
    assert_eq!(node.names(), ["10-calico.conflist"]);
}

//! Many pods, attached from one process, as the node agent attaches them.
//!
//! With `--nocapture` it prints the durations; a `--release` build makes them meaningful.

use std::{
    path::{Path, PathBuf},
    process::{self, Command},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use clap::Parser;
use interceptor::{
    cgroup::{Cgroup, Hierarchy},
    dataplane::{
        Dataplane,
        attach::{AttachSpec, Attached},
        attach_points::AttachPoints,
    },
    netns::{Netns, NetnsSpec},
    settings::{IstioFlags, Settings},
};
use interceptor_testkit::{cgroup, command::run, machine};
use nix::{
    sched::{CloneFlags, unshare},
    unistd::gettid,
};

/// kubelet's default maximum per node, and more than twice that.
const PODS: usize = 250;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    flags: IstioFlags,
}

fn settings(flags: &[&str]) -> Settings {
    let arguments = ["interceptor"].iter().chain(flags);
    let flags = Flags::parse_from(arguments).flags;
    Settings::from_flags(&flags, None)
        .expect("settings")
        .settings
}

/// A network namespace that a thread of this process holds.
struct Holder {
    path: PathBuf,
    _end: Sender<()>,
}

impl Holder {
    fn start(commands: String) -> Result<Self> {
        let (end, stop) = mpsc::channel::<()>();
        let (ready, is_ready) = mpsc::channel();
        thread::spawn(move || {
            let made = make(&commands);
            ready.send(made).expect("the receiver exists");
            // Until the sender is dropped.
            let _stopped = stop.recv();
        });
        Ok(Self {
            path: is_ready.recv().map_err(|_| anyhow!("it panicked"))??,
            _end: end,
        })
    }
}

/// Moves the calling thread into a new network namespace.
fn make(commands: &str) -> Result<PathBuf> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    run(Command::new("ip").args(["-batch", "-"]), commands).context("ip")?;
    Ok(format!("/proc/{}/task/{}/ns/net", process::id(), gettid()).into())
}

/// The node, and pods as CNI plugins create them: one interface, an address, a default route.
fn make_pods(count: usize) -> Result<(Holder, Vec<Holder>)> {
    let node = Holder::start("link set lo up".to_owned())?;
    let tid = node.path.iter().nth(4).context("a thread")?;
    let tid = tid.to_str().context("a number")?.to_owned();
    let pods = (0..count)
        .map(|number| {
            let [high, low] = u16::try_from(number)?.to_be_bytes();
            Holder::start(format!(
                "link set lo up\n\
                 link add eth0 type veth peer name veth{number} netns {tid}\n\
                 link set eth0 up\n\
                 addr add 10.244.{high}.{low}/32 dev eth0\n\
                 route add 169.254.1.1 dev eth0\n\
                 route add default via 169.254.1.1"
            ))
        })
        .collect::<Result<_>>()?;
    Ok((node, pods))
}

/// Deletes everything, even if the test fails.
struct Attaching {
    dataplane: Dataplane,
    pods: Vec<Netns>,
}

impl Drop for Attaching {
    fn drop(&mut self) {
        for netns in &self.pods {
            self.dataplane.detach(netns).expect("detached");
        }
    }
}

impl Attaching {
    fn attach(
        &mut self,
        path: &Path,
        places: &AttachPoints,
        settings: &Settings,
    ) -> Result<Attached> {
        let netns = Netns::open(&NetnsSpec::File(path.to_owned()))?;
        let attached = self.dataplane.attach(&AttachSpec {
            pod: None,
            netns: &netns,
            attach_points: places,
            settings,
            scan_listeners: false,
        });
        self.pods.push(netns);
        attached
    }
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let start = Instant::now();
    (work(), start.elapsed())
}

fn print_times(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let total: Duration = times.iter().sum();
    let at = |share: usize| times[(times.len() * share / 100).min(times.len() - 1)];
    println!(
        "{what}: {} pods in {total:.1?}; median {:.2?}, 90th percentile {:.2?}, slowest {:.2?}",
        times.len(),
        at(50),
        at(90),
        at(100)
    );
}

/// The resident set, in kilobytes.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("VmRSS")?.parse()?)
}

#[test]
fn a_node_full_of_pods_is_attached_from_one_process() {
    let _shared = machine::shared().expect("the machine");
    let cgroup = cgroup::Cgroup::new().expect("a cgroup");
    let hierarchy = Hierarchy::find().expect("a hierarchy");
    let place = |name: &str| {
        let path = cgroup.child(name).expect("a cgroup");
        Cgroup::open(&hierarchy, Some(&path)).expect("an open cgroup")
    };
    let (_node, holders) = make_pods(PODS).expect("pods");
    let settings = settings(&["-b", "*", "-d", "15090,15021,15020", "-i", "*"]);
    let mut attaching = Attaching {
        dataplane: Dataplane::new(),
        pods: Vec::new(),
    };
    let mut first = Vec::new();
    for (number, holder) in holders.iter().enumerate() {
        let places = AttachPoints {
            root: place("."),
            kubepods: Some(place("kubepods")),
            pod: Some(place(&format!("kubepods/pod{number}"))),
        };
        let (attached, time) = timed(|| attaching.attach(&holder.path, &places, &settings));
        assert_eq!(attached.expect("attached"), Attached::New);
        first.push(time);
    }
    println!("the first, which loads the programs: {:.1?}", first[0]);
    print_times("the others", first.split_off(1));
    let (attached, time) = timed(|| attaching.dataplane.attached().expect("a list"));
    let ours = attaching.pods.iter().map(Netns::cookie);
    for cookie in ours {
        assert!(attached.iter().any(|pod| pod.netns == cookie));
    }
    println!("to list them: {time:.1?}");
    println!("resident: {} KiB", resident().expect("a number"));
    let refreshed = attaching.pods.iter().map(|netns| {
        let (refreshed, time) = timed(|| attaching.dataplane.refresh(netns, &hierarchy));
        assert_eq!(refreshed.expect("refreshed"), Some(Attached::Unchanged));
        time
    });
    print_times("attached again, unchanged", refreshed.collect());
    let (tidied, time) = timed(|| attaching.dataplane.sweep());
    tidied.expect("tidied");
    println!("to tidy up: {time:.1?}");
}

//! Hostile pods do not affect the connections of another pod: none is refused, and each reaches its
//! own proxy with its own original destination.

use std::{
    fmt::Write as _, net::SocketAddr, os::unix::fs::MetadataExt as _, path::PathBuf,
    process::Stdio, time::Instant,
};

use anyhow::Result;
use interceptor_testkit::{
    actor::protocol::Request,
    bpf::programs::{Action, AttachType, Mode, Program},
    command::bounded,
    dialler::{Dialler, Plan},
    interceptor,
    lab::{Lab, STOCK, all_captured},
    packet,
    spawn::spawn,
    users::{APP, ROOT},
};

/// More destinations than a pod has stand-ins.
const SCANNED: u32 = 17_000;
/// Listeners that an app opens on other addresses, and closes.
const CLOSED_LISTENERS: u32 = 33_000;
/// Listeners that it keeps open.
const OPEN_LISTENERS: u32 = 300;
/// How often an app listens on the proxy's port.
const RELISTENS: u32 = 500;
/// Routes of one pod: more than are copied.
const ROUTES: u32 = 20_000;
/// How often the pod with many routes is attached again.
const ATTACHES: u32 = 5;
/// Forged packets.
const FORGED: u16 = 300;

fn attached() -> Lab {
    let lab = Lab::new().expect("a lab");
    lab.attach(STOCK).expect("attached");
    lab
}

fn with_proxy() -> Lab {
    let lab = attached();
    lab.start_proxy().expect("a proxy");
    lab
}

/// The well-behaved pod, whose clients dial all the time.
struct Bystander {
    lab: Lab,
    diallers: Vec<(Dialler, &'static str)>,
}

impl Bystander {
    fn start() -> Self {
        let lab = with_proxy();
        let endless = |first: &str, destinations| Plan {
            first: first.parse().expect("an address"),
            destinations,
            rounds: u32::MAX / destinations,
        };
        let start = |plan: &Plan, (user, netns, cgroup)| {
            let cgroup = lab.cgroup.child(cgroup).expect("a cgroup");
            Dialler::start(user, netns, &cgroup, plan).expect("a dialler")
        };
        let app = || (APP, &lab.pod, "pod/app");
        let client = || (ROOT, &lab.peer, "peer");
        let diallers = vec![
            (start(&endless("10.2.0.9:80", 1), app()), "proxy:15001"),
            (start(&endless("[fd00:2::9]:80", 1), app()), "proxy:15001"),
            // Stand-ins that are used again and again.
            (start(&endless("10.64.0.0:80", 64), app()), "proxy:15001"),
            (start(&endless("10.1.0.2:8080", 1), client()), "proxy:15006"),
        ];
        Self { lab, diallers }
    }

    /// Stops the clients: all of them have only reached the proxy.
    fn finish(self) {
        for (dialler, proxy) in self.diallers {
            let responses = dialler.stop().expect("outcomes");
            assert_eq!(responses.names(), [proxy], "{responses:?}");
            println!("{proxy}: {} connections", responses.dials());
        }
        let dials = self.lab.dial_all().expect("dials");
        assert_eq!(dials, all_captured());
    }
}

/// Uses up the pod's stand-ins. Connections without a proxy are refused at once, but need them too.
fn scan(lab: &Lab) -> Result<()> {
    let plan = Plan {
        first: "10.80.0.0:80".parse::<SocketAddr>()?,
        destinations: SCANNED,
        rounds: 1,
    };
    let cgroup = lab.cgroup.child("pod/app")?;
    Dialler::start(APP, &lab.pod, &cgroup, &plan)?.finish()?;
    Ok(())
}

/// Opens listeners on the proxy's ports.
fn listen(lab: &Lab) -> Result<()> {
    for (first, count, stay_open) in [
        ("127.1.0.0:15001", CLOSED_LISTENERS, false),
        ("[fd00:9::]:15001", CLOSED_LISTENERS, false),
        ("127.2.0.0:15006", OPEN_LISTENERS, true),
        ("[fd00:a::]:15006", OPEN_LISTENERS, true),
    ] {
        let first = first.parse()?;
        lab.app.must(&Request::ListenOnMany {
            first,
            count,
            stay_open,
        })?;
    }
    Ok(())
}

/// Its "proxy" listens and closes all the time.
fn listen_again(lab: &Lab) -> Result<()> {
    for _ in 0..RELISTENS {
        let listeners = lab.listen([15001])?;
        lab.close(listeners)?;
    }
    Ok(())
}

/// Has many routes, and is attached again while it has them: each attach reads them.
fn flood_routes(lab: &Lab) -> Result<()> {
    let mut routes = String::new();
    for number in 0..ROUTES {
        let [_, high, middle, low] = number.to_be_bytes();
        writeln!(routes, "route add 11.{high}.{middle}.{low} via 10.1.0.1")?;
    }
    lab.pod.ip(&routes)?;
    for number in 0..ATTACHES {
        lab.pod
            .ip(&format!("route add 12.0.0.{number} via 10.1.0.1"))?;
        lab.attach(STOCK)?;
    }
    Ok(())
}

/// Dials while an observer reads: the ring of events is full all the time.
fn flood_events(lab: &Lab) -> Result<()> {
    lab.start_proxy()?;
    let mut command = std::process::Command::new(interceptor::binary());
    command.args(["observe", "-o", "json"]);
    // It reads nothing: its output is a pipe that is full soon.
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut observer = spawn(command)?;
    let dialled = scan_known(lab);
    // Fails only for a child that was waited for before.
    let _killed = observer.kill();
    observer.wait()?;
    dialled
}

/// Dials few destinations, often.
fn scan_known(lab: &Lab) -> Result<()> {
    let plan = Plan {
        first: "10.81.0.0:80".parse()?,
        destinations: 16,
        rounds: 200,
    };
    let cgroup = lab.cgroup.child("pod/app")?;
    Dialler::start(APP, &lab.pod, &cgroup, &plan)?.finish()?;
    Ok(())
}

/// Has programs of its own in its cgroup: they rewrite destinations, and clear flags.
fn attach_programs(lab: &Lab) -> Result<()> {
    let cgroup = lab.cgroup.child("pod")?;
    let rewrite = Action::Rewrite {
        from: [10, 81, 0, 0],
        to: [10, 64, 0, 0],
    };
    for (attach_type, action) in [
        (AttachType::Connect4, rewrite),
        (AttachType::SockOps, Action::SetCallbackFlags(0)),
        (AttachType::GetSockOpt, Action::CountOnly),
    ] {
        let program = Program::load("hostile", attach_type, action)?;
        program.attach(&cgroup, Mode::Exclusive)?;
    }
    lab.start_proxy()?;
    scan_known(lab)
}

/// A neighbour of the well-behaved pod sends SYNs in the pod's name, to its ports and stand-ins.
fn forge(lab: &Lab) -> Result<()> {
    const POD: [u8; 6] = [2, 0, 0, 0, 1, 2];
    const PEER: [u8; 6] = [2, 0, 0, 0, 1, 1];

    let route = "route add fd69:6365:7074::/64 via fd00:1::2";
    lab.peer.ip(route)?;
    let mut frames = Vec::new();
    for number in 0..FORGED {
        let (from, to) = match number % 3 {
            0 => ("[fd00:1::2]:0", "[fd00:1::2]:8080"),
            1 => ("[fd00:1::2]:0", "[fd69:6365:7074::1]:1"),
            _ => ("10.1.0.2:0", "10.1.0.2:8080"),
        };
        let (mut from, to): (SocketAddr, SocketAddr) = (from.parse()?, to.parse()?);
        from.set_port(10_000 + number);
        let packet = packet::ip(from.ip(), to.ip(), &packet::syn(from, to));
        frames.push(packet::frame(POD, PEER, None, &packet));
    }
    lab.client.must(&Request::SendFrames {
        interface: "eth0".to_owned(),
        frames,
        bypass_queue: false,
    })?;
    Ok(())
}

/// An attack, and how long the other pod was under it.
type Attack = fn(&Lab) -> Result<()>;

fn timed(what: &str, attack: Attack, lab: &Lab) -> Result<()> {
    let start = Instant::now();
    attack(lab)?;
    println!("{what}: {:.1?}", start.elapsed());
    Ok(())
}

#[test]
fn hostile_pods_do_not_affect_another_pod() {
    let attacks: [(&str, Attack); 6] = [
        ("stand-ins", scan),
        ("listeners", listen),
        ("listening again", listen_again),
        ("routes", flood_routes),
        ("events", flood_events),
        ("programs", attach_programs),
    ];

    let bystander = Bystander::start();
    let labs: Vec<_> = attacks.iter().map(|_| attached()).collect();
    std::thread::scope(|scope| {
        let threads: Vec<_> = attacks
            .iter()
            .zip(&labs)
            .map(|((what, attack), lab)| (what, scope.spawn(move || timed(what, *attack, lab))))
            .collect();
        forge(&bystander.lab).expect("forged packets");
        // Its own settings change meanwhile.
        for flags in [&[STOCK, &["-o", "9"]].concat()[..], STOCK] {
            bystander.lab.attach(flags).expect("attached again");
        }
        for (what, thread) in threads {
            let attacked = thread.join().expect("a thread");
            attacked.unwrap_or_else(|error| panic!("{what}: {error:#}"));
        }
    });
    drop(labs);
    bystander.finish();
}

/// A pod's processes can neither read nor change what the programs use: all of it belongs to root.
#[test]
fn only_root_can_open_what_is_pinned() {
    let lab = attached();
    let mut dirs = vec![PathBuf::from("/sys/fs/bpf/interceptor")];
    let mut pins = 0;
    while let Some(dir) = dirs.pop() {
        // Another test may have detached its pod.
        let Ok(metadata) = dir.metadata() else {
            continue;
        };
        let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
        assert_eq!((owner, mode), (0, 0o700), "{}", dir.display());
        for entry in dir.read_dir().into_iter().flatten().flatten() {
            let Ok(metadata) = entry.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                dirs.push(entry.path());
                continue;
            }
            let (owner, mode) = (metadata.uid(), metadata.mode() & 0o777);
            assert_eq!((owner, mode), (0, 0o600), "{:?}", entry.path());
            pins += 1;
        }
    }
    assert!(pins > 0);
    let list = bounded("setpriv")
        .env("LC_ALL", "C")
        .args(["--reuid=1000", "--regid=1000", "--clear-groups"])
        .args(["ls", "/sys/fs/bpf/interceptor/v1"])
        .output()
        .expect("setpriv");
    let errors = String::from_utf8_lossy(&list.stderr);
    assert!(errors.contains("Permission denied"), "{list:?}");
    drop(lab);
}

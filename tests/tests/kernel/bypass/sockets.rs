//! Sockets that were made earlier, elsewhere, or by another user.

use std::{fs, os::unix::fs::PermissionsExt as _};

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor, User, handle,
        protocol::{Family, Handle, Protocol, Reply, Request},
    },
    cgroup::Cgroup,
    scenario::address,
    users::{APP, PROXY, ROOT},
    world::{AttachAt, Role, Setup},
};
use tempfile::TempDir;

use super::{
    case::{
        Group,
        Who::{App, Host, OtherPod},
        case,
    },
    options::{FAR, FAR_V6},
    outcome::{
        Outcome::{self, Proxy},
        past, refused,
    },
    run::check,
    scene::Scene,
};

/// All users may create files.
const OPEN_TO_ALL: u32 = 0o777;
/// An abstract name, which a network namespace has for itself.
const NAME: &str = "bypass-passed";

/// `giver` passes a socket to the app, which connects it.
fn passed(scene: &Scene, giver: &Actor, socket: Handle) -> Result<Outcome> {
    passed_at(scene, giver, socket, NAME)
}

/// The same between network namespaces.
fn passed_by_path(scene: &Scene, giver: &Actor, socket: Handle) -> Result<Outcome> {
    let dir = TempDir::new()?;
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(OPEN_TO_ALL))?;
    let at = dir.path().join("socket");
    passed_at(scene, giver, socket, &at.display().to_string())
}

fn passed_at(scene: &Scene, giver: &Actor, socket: Handle, at: &str) -> Result<Outcome> {
    let app = scene.app()?;
    app.must(&Request::Expect { at: at.to_owned() })?;
    let at = at.to_owned();
    giver.must(&Request::Offer { socket, at })?;
    let received = handle(app.must(&Request::Take)?)?;
    scene.connect(app, received, address(FAR))
}

/// A process in the pod's network namespace, in a cgroup outside the pod's.
fn in_other_cgroup(scene: &Scene, user: User) -> Result<(Cgroup, Actor)> {
    let cgroup = Cgroup::new()?;
    let netns = scene.world.pod().namespace();
    let actor = Actor::start("guest", user, netns, Some(cgroup.path()))?;
    Ok((cgroup, actor))
}

/// A process of the proxy's user opens a socket and becomes the app, as one that it executes does.
fn inherited(scene: &Scene) -> Result<Outcome> {
    let app = scene.world.start_in_pod("guest", ROOT, "pod/Guest")?;
    let User { uid, gid } = PROXY;
    app.must(&Request::SetSocketOwner { uid, gid })?;
    let socket = app.socket(Family::V4, Protocol::Tcp)?;
    let User { uid, gid } = APP;
    app.must(&Request::SetUser { uid, gid })?;
    scene.connect(&app, socket, address(FAR))
}

/// An app without capabilities enters namespaces of its own, in which it has them all.
fn own_namespaces(scene: &Scene, with_network: bool) -> Result<Actor> {
    let app = scene.world.start_in_pod("guest", APP, "pod/Guest")?;
    app.must(&Request::OwnUserNamespace { with_network })?;
    Ok(app)
}

/// A raw socket of the pod's network namespace.
fn raw_socket(app: &Actor) -> Result<Outcome> {
    let opened = app.call(&Request::OpenSocket {
        domain: libc::AF_INET,
        kind: libc::SOCK_RAW,
        protocol: libc::IPPROTO_TCP,
    })?;
    match opened {
        Reply::Error(errno) => Ok(Outcome::of_errno(errno)),
        reply => anyhow::bail!("unexpected: {reply:?}"),
    }
}

/// The app is moved to another cgroup, outside the pod's, then dials.
fn moved(scene: &Scene) -> Result<Outcome> {
    let app = scene.world.start_in_pod("guest", APP, "pod/Guest")?;
    let cgroup = Cgroup::new()?;
    fs::write(cgroup.path().join("cgroup.procs"), app.pid().to_string())?;
    scene.dial(&app, FAR_V6)
}

#[test]
fn sockets_made_earlier_or_elsewhere() {
    check(&Group {
        title: "sockets made earlier or elsewhere",
        setup: Setup {
            attach_at: AttachAt::Root,
            old_sockets: &[Role::App],
            ..Setup::default()
        },
        cases: vec![
            case(
                App,
                "a socket from before the pod was captured",
                |scene| {
                    let socket = scene.world.old_sockets()[0];
                    scene.connect(scene.app()?, socket, address(FAR))
                },
                [Proxy, Proxy],
            )
            .changes_world(),
            case(
                App,
                "a listener from before the pod was captured: a client dials it",
                |scene| scene.dial_in("10.1.0.2:8080"),
                [Proxy, Proxy],
            ),
            case(
                Host,
                "a socket of the host's root, made in the pod's network namespace and passed to the app",
                |scene| {
                    let (_cgroup, giver) = in_other_cgroup(scene, ROOT)?;
                    let socket = giver.socket(Family::V4, Protocol::Tcp)?;
                    passed(scene, &giver, socket)
                },
                [Proxy, Proxy],
            ),
            case(
                Host,
                "a process that enters the pod's network namespace from another cgroup",
                |scene| {
                    let (_cgroup, guest) = in_other_cgroup(scene, APP)?;
                    scene.dial(&guest, FAR)
                },
                [Proxy, Proxy],
            ),
            case(
                Host,
                "an app that is moved to another cgroup",
                moved,
                [Proxy, Proxy],
            ),
            case(
                OtherPod,
                "a socket of another network namespace, passed to the app",
                |scene| {
                    let giver = scene.neighbour()?;
                    let socket = giver.socket(Family::V4, Protocol::Tcp)?;
                    passed_by_path(scene, giver, socket)
                },
                [past("a connection"), past("a connection")],
            ),
            case(
                App,
                "a socket that the proxy has opened, passed to the app",
                |scene| {
                    let proxy = scene.world.actor(Role::Proxy)?;
                    let socket = proxy.socket(Family::V4, Protocol::Tcp)?;
                    passed(scene, proxy, socket)
                },
                [past("a connection"), past("a connection")],
            ),
            case(
                App,
                "a socket that the proxy has opened, inherited by an app",
                inherited,
                [past("a connection"), past("a connection")],
            ),
            case(
                App,
                "a raw socket, in a user namespace of its own",
                |scene| raw_socket(&own_namespaces(scene, false)?),
                [refused("EPERM"), refused("EPERM")],
            ),
            case(
                App,
                "dials, in a user and a network namespace of its own",
                |scene| scene.dial(&own_namespaces(scene, true)?, FAR),
                [refused("ENETUNREACH"), refused("ENETUNREACH")],
            ),
        ],
    });
}

//! The owner of a connection: the user that opened the socket, whatever happens to it later.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        User, handle,
        protocol::{Family, Protocol, Request},
    },
    scenario::{Dial, Run, Scenario, address, differential},
    users::{APP, PROXY, ROOT, TRANSPARENT_PROXY},
    world::{Role, Setup},
};

const DESTINATIONS: [&str; 6] = [
    "10.2.0.9:80",
    "[fd00:2::9]:80",
    "[::ffff:10.2.0.9]:80",
    "10.1.0.2:80",
    "[fd00:1::2]:80",
    "127.0.0.1:80",
];

/// Opens a socket as root, which can change to any user, or as the user it then changes to.
fn after_setuid(run: &mut Run<'_>, opens: User, connects: User, to: &str) -> Result<()> {
    let actor = run
        .world()
        .start_in_pod("changeling", ROOT, "pod/changeling")?;
    let set_user = |user: User| {
        actor.must(&Request::SetUser {
            uid: user.uid,
            gid: user.gid,
        })
    };
    if opens != ROOT {
        set_user(opens)?;
    }
    let socket = actor.socket(Family::of(address(to)), Protocol::Tcp)?;
    if connects != opens {
        set_user(connects)?;
    }
    Dial::new(Role::App, to).execute_as(run, &actor, socket)?;
    Ok(())
}

#[test]
fn after_setuid_and_setgid() {
    let mut scenarios = Vec::new();
    for to in DESTINATIONS {
        for (name, opens, connects) in [
            ("root becomes the proxy", ROOT, PROXY),
            ("root becomes an app", ROOT, APP),
            ("the proxy's group becomes an app", TRANSPARENT_PROXY, APP),
            (
                "an app's group becomes the proxy",
                User::new(0, 1000),
                PROXY,
            ),
        ] {
            scenarios.push(Scenario::new(format!("{name} ({to})"), move |run| {
                after_setuid(run, opens, connects, to)
            }));
        }
    }
    scenarios.push(Scenario::new(
        "opened by the proxy's group, expected to pass",
        |run| {
            after_setuid(run, TRANSPARENT_PROXY, APP, "10.2.0.9:80")?;
            run.expect_outcome("remote:80");
            Ok(())
        },
    ));
    scenarios.push(Scenario::new(
        "opened by root, expected to be captured",
        |run| {
            after_setuid(run, ROOT, PROXY, "10.2.0.9:80")?;
            run.expect_outcome("proxy:15001");
            Ok(())
        },
    ));
    differential(&Setup::default(), &scenarios);
}

/// `from` opens a socket and passes it to `taker`, which connects it.
fn passed(run: &mut Run<'_>, from: Role, taker: Role, to: &str) -> Result<()> {
    let at = "interceptor-test".to_owned();
    let (giver, receiver) = (run.actor(from)?, run.actor(taker)?);
    let socket = giver.socket(Family::of(address(to)), Protocol::Tcp)?;
    receiver.must(&Request::Expect { at: at.clone() })?;
    giver.must(&Request::Offer { socket, at })?;
    let copy = handle(receiver.must(&Request::Take)?)?;
    giver.must(&Request::Close { socket })?;
    Dial::new(taker, to).execute_on(run, copy)?;
    Ok(())
}

#[test]
fn passed_to_another_process() {
    let mut scenarios = Vec::new();
    for to in DESTINATIONS {
        for (from, taker) in [
            (Role::App, Role::Proxy),
            (Role::Proxy, Role::App),
            (Role::ProxyGid, Role::Root),
            (Role::Root, Role::ProxyUid),
        ] {
            scenarios.push(Scenario::new(
                format!("{from:?} opens, {taker:?} connects ({to})"),
                move |run| passed(run, from, taker, to),
            ));
        }
    }
    scenarios.push(Scenario::new(
        "opened by an app, expected to be captured",
        |run| {
            passed(run, Role::App, Role::Proxy, "10.2.0.9:80")?;
            run.expect_outcome("proxy:15001");
            Ok(())
        },
    ));
    scenarios.push(Scenario::new(
        "opened by the proxy, expected to pass",
        |run| {
            passed(run, Role::Proxy, Role::App, "10.2.0.9:80")?;
            run.expect_outcome("remote:80");
            Ok(())
        },
    ));
    differential(&Setup::default(), &scenarios);
}

const OLD: &[Role] = &[
    Role::App,
    Role::Proxy,
    Role::ProxyGid,
    Role::App,
    Role::Proxy,
];

#[test]
fn opened_before_the_interception() {
    let setup = Setup {
        old_sockets: OLD,
        ..Setup::default()
    };
    let dials = [
        ("10.2.0.9:80", "proxy:15001"),
        ("10.2.0.9:80", "remote:80"),
        ("10.2.0.9:80", "remote:80"),
        ("10.1.0.2:80", "app:80"),
        ("10.1.0.2:80", "proxy:15006"),
    ];
    // One scenario: its sockets are closed at the end.
    let scenario = Scenario::new("sockets that are older", move |run| {
        let sockets = run.world().old_sockets();
        for ((role, socket), (to, outcome)) in OLD.iter().zip(sockets).zip(dials) {
            run.label(format!("{role:?} to {to}:"));
            Dial::new(*role, to).execute_on(run, *socket)?;
            run.expect_outcome(outcome);
        }
        Ok(())
    });
    differential(&setup, &[scenario]);
}

/// The socket's cgroup may be at any depth below the attach point.
#[test]
fn in_any_cgroup() {
    let mut scenarios = Vec::new();
    for cgroup in ["deep/down/below", "peer"] {
        for to in DESTINATIONS {
            scenarios.push(Scenario::new(format!("in {cgroup} ({to})"), move |run| {
                let actor = run.world().start_in_pod("deep", APP, cgroup)?;
                let socket = actor.socket(Family::of(address(to)), Protocol::Tcp)?;
                Dial::new(Role::App, to).execute_as(run, &actor, socket)?;
                run.expect("a server responds", run.outcome().contains(':'));
                Ok(())
            }));
        }
    }
    differential(&Setup::default(), &scenarios);
}

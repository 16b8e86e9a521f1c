//! TPROXY: a proxy that calls the app from its client's address.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    actor::{
        Actor, User,
        protocol::{Family, Handle, Introduction, Protocol, Reply, Request, SocketOption},
    },
    lab::call,
    scenario::{ConnectMode, Dial, Run, Scenario, address, differential},
    settings::{Mode, Settings},
    world::{Bind, Mechanism, Role, Setup, World, serve},
};

const MARK: u32 = 1337;

fn settings() -> Settings {
    Settings {
        mode: Mode::Tproxy,
        ..Settings::default()
    }
}

fn setup() -> Setup {
    Setup::with(settings())
}

fn compare(settings: Settings, rows: &[(Role, &str, &'static str)]) {
    let scenarios: Vec<_> = rows
        .iter()
        .map(|(role, to, outcome)| {
            Scenario::dial(&format!("{role:?}"), outcome, Dial::new(*role, to))
        })
        .collect();
    differential(&Setup::with(settings), &scenarios);
}

#[test]
fn inbound_connections() {
    compare(
        settings(),
        &[
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:81", "proxy:15006"),
            (Role::Client, "10.1.0.2:15001", "proxy:15006"),
            (Role::Client, "10.1.0.2:15006", "proxy:15006"),
            // Only nat has the exception.
            (Role::Client, "10.1.0.2:15008", "proxy:15006"),
            (Role::Client, "10.1.0.2:15020", "app:15020"),
            (Role::Client, "10.1.0.2:15021", "app:15021"),
            (Role::Client, "10.1.0.3:8080", "proxy:15006"),
            (Role::Client, "10.3.0.2:8080", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:15008", "proxy:15006"),
            (Role::Client, "[fd00:1::2]:15020", "app:15020"),
            (Role::Client, "[fd00:3::2]:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn outbound_connections_are_redirected() {
    compare(
        settings(),
        &[
            (Role::App, "10.2.0.9:80", "proxy:15001"),
            (Role::App, "[fd00:2::9]:80", "proxy:15001"),
            (Role::App, "[::ffff:10.2.0.9]:80", "proxy:15001"),
            (Role::Root, "10.2.0.9:80", "proxy:15001"),
            (Role::ProxyGid, "10.2.0.9:80", "remote:80"),
            (Role::ProxyGid, "[fd00:2::9]:80", "remote:80"),
            (Role::Proxy, "10.2.0.9:80", "remote:80"),
        ],
    );
}

/// The proxy runs as root here, in its own group. nat redirects to localhost; mangle alone keeps
/// the destination address.
#[test]
fn connections_of_the_pod_to_itself() {
    compare(
        settings(),
        &[
            (Role::App, "10.1.0.2:8080", "app:8080"),
            (Role::App, "[fd00:1::2]:8080", "app:8080"),
            (Role::App, "127.0.0.1:8080", "app:8080"),
            (Role::ProxyGid, "10.1.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.3:8080", "proxy:15006"),
            (Role::ProxyGid, "[fd00:1::2]:8080", "proxy:15006"),
            (Role::ProxyGid, "[::ffff:10.1.0.2]:8080", "proxy:15006"),
            (Role::ProxyGid, "127.0.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:15008", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:15020", "app:15020"),
            (Role::ProxyGid, "127.0.0.1:8080", "app:8080"),
            (Role::ProxyGid, "[::1]:8080", "app:8080"),
            (Role::Proxy, "10.1.0.2:8080", "proxy:15006"),
            (Role::Proxy, "10.1.0.2:15008", "proxy:15006"),
            (Role::Proxy, "10.1.0.2:15020", "proxy:15006"),
            (Role::Proxy, "[fd00:1::2]:8080", "proxy:15006"),
        ],
    );
}

#[test]
fn from_the_passthrough_address() {
    let rows = [
        (Role::ProxyGid, "127.0.0.6:0", "10.1.0.2:8080", "app:8080"),
        (Role::Proxy, "127.0.0.6:0", "10.1.0.2:8080", "app:8080"),
        (Role::ProxyGid, "[::6]:0", "[fd00:1::2]:8080", "app:8080"),
    ];
    let scenarios = rows.map(|(role, from, to, outcome)| {
        Scenario::dial(
            &format!("{role:?}"),
            outcome,
            Dial::new(role, to).from(from),
        )
    });
    differential(&setup(), &scenarios);
}

#[test]
fn a_list_of_inbound_ports() {
    let settings = Settings {
        inbound_ports: "8080,15020",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "proxy:15006"),
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::Client, "10.1.0.2:9090", "app:9090"),
            (Role::Client, "[fd00:1::2]:9090", "app:9090"),
            (Role::ProxyGid, "10.1.0.2:8080", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:9090", "app:9090"),
            (Role::Proxy, "10.1.0.2:9090", "proxy:15006"),
        ],
    );
}

#[test]
fn no_inbound_ports() {
    let settings = Settings {
        inbound_ports: "",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "[fd00:1::2]:8080", "app:8080"),
            (Role::ProxyGid, "10.1.0.2:8080", "app:8080"),
            (Role::Proxy, "10.1.0.2:8080", "proxy:15006"),
            (Role::App, "10.2.0.9:80", "proxy:15001"),
        ],
    );
}

#[test]
fn other_excluded_ports() {
    let settings = Settings {
        inbound_excluded_ports: "22,8080",
        ..settings()
    };
    compare(
        settings,
        &[
            (Role::Client, "10.1.0.2:22", "app:22"),
            (Role::Client, "10.1.0.2:8080", "app:8080"),
            (Role::Client, "10.1.0.2:15020", "proxy:15006"),
            (Role::ProxyGid, "10.1.0.2:8080", "app:8080"),
        ],
    );
}

/// The transparent options of a socket of `family`, with `mark`.
fn transparent(family: Family, mark: Option<u32>) -> Vec<SocketOption> {
    let transparent = match family {
        Family::V4 => SocketOption::Transparent,
        Family::V6 => SocketOption::TransparentV6,
    };
    let mark = mark.map(SocketOption::Mark);
    [transparent].into_iter().chain(mark).collect()
}

/// A connection of the proxy from a client's address.
fn in_the_name_of(client: &str, to: &str, mark: u32) -> Dial {
    let options = transparent(Family::of(address(to)), Some(mark));
    let dial = Dial::new(Role::RootProxyServer, to).from(client);
    options.into_iter().fold(dial, Dial::with)
}

/// The proxy's own listeners, whose connections the scenario accepts itself: one of each family.
fn listen(run: &Run<'_>) -> Result<[Handle; 2]> {
    run.world().stop_proxy()?;
    let proxy = run.actor(Role::RootProxyServer)?;
    let port = run.world().setup().settings.capture_port;
    let listen = |family, ip: &str| -> Result<Handle> {
        let socket = proxy.socket(family, Protocol::Tcp)?;
        let options = [SocketOption::ReuseAddress, SocketOption::ReusePort].into_iter();
        for option in options.chain(transparent(family, None)) {
            proxy.must(&Request::Set { socket, option })?;
        }
        if family == Family::V6 {
            let option = SocketOption::V6Only(true);
            proxy.must(&Request::Set { socket, option })?;
        }
        let address = SocketAddr::new(ip.parse()?, port);
        proxy.must(&Request::Bind { socket, address })?;
        proxy.must(&Request::Listen { socket })?;
        Ok(socket)
    };
    Ok([listen(Family::V4, "0.0.0.0")?, listen(Family::V6, "::")?])
}

/// The listener for connections to `to`.
fn listener_for(to: &str, [v4, v6]: [Handle; 2]) -> Handle {
    if address(to).ip().to_canonical().is_ipv4() {
        v4
    } else {
        v6
    }
}

fn name(actor: &Actor, request: &Request) -> Result<SocketAddr> {
    match actor.must(request)? {
        Reply::Name(name) => Ok(SocketAddr::new(name.ip().to_canonical(), name.port())),
        reply => anyhow::bail!("not a name: {reply:?}"),
    }
}

/// Opens a socket that is bound to `from` and not connected yet.
fn bound(actor: &Actor, from: SocketAddr, options: Vec<SocketOption>) -> Result<Handle> {
    let socket = actor.socket(Family::of(from), Protocol::Tcp)?;
    for option in options {
        actor.must(&Request::Set { socket, option })?;
    }
    let address = from;
    actor.must(&Request::Bind { socket, address })?;
    Ok(socket)
}

/// A client's connection to the proxy: its ends at the client and at the proxy.
fn to_the_proxy(
    run: &mut Run<'_>,
    listeners: [Handle; 2],
    from: &str,
    to: &str,
) -> Result<(Handle, Handle)> {
    let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
    let near = bound(client, address(from), vec![SocketOption::ReuseAddress])?;
    let (socket, address) = (near, address(to));
    run.perform("connect", client, &Request::Connect { socket, address })?;
    let far = proxy.accept(listener_for(to, listeners))?;
    run.label("client");
    run.record_names(client, near)?;
    run.label("proxy's accepted");
    run.record_names(proxy, far)?;
    Ok((near, far))
}

/// The second half of the path: the proxy calls the app from its client's address, and the app
/// reports its peer to both. `from`: the client's address, with a port or 0.
fn on_to_the_app(
    run: &mut Run<'_>,
    (near, far): (Handle, Handle),
    from: SocketAddr,
    to: &str,
) -> Result<()> {
    let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
    let mark = run.world().setup().settings.tproxy_mark;
    let family = Family::of(from);
    let up = bound(proxy, from, transparent(family, Some(mark)))?;
    let (socket, address) = (up, address(to));
    run.label("upstream");
    run.perform("connect", proxy, &Request::Connect { socket, address })?;
    run.record_names(proxy, up)?;
    let Reply::Data(line) = proxy.must(&Request::ReceiveLine { socket: up })? else {
        anyhow::bail!("no line");
    };
    let introduction: Introduction = serde_json::from_str(&line).context(line.clone())?;
    let peer: SocketAddr = introduction.peer.parse()?;
    let own = name(proxy, &Request::LocalName { socket: up })?;
    run.record("who", introduction.server);
    run.record("app's own name", introduction.local);
    run.record("app's original destination", introduction.original_v4);
    run.expect(
        "the app gets the client's address, and the port of the proxy",
        SocketAddr::new(peer.ip().to_canonical(), peer.port()) == own
            && own.ip() == from.ip().to_canonical(),
    );
    // A line in each direction.
    let data = line + "\n";
    proxy.must(&Request::Send { socket: far, data })?;
    run.label("client");
    let received = client.call(&Request::ReceiveLine { socket: near })?;
    run.expect(
        "the client gets the app's introduction",
        matches!(received, Reply::Data(line) if line.contains("app:8080")),
    );
    echo(run, client, near, proxy, [far, up])
}

/// A line of the client, forwarded by the proxy, is echoed by the app.
fn echo(
    run: &mut Run<'_>,
    client: &Actor,
    near: Handle,
    proxy: &Actor,
    [far, up]: [Handle; 2],
) -> Result<()> {
    let data = format!("line {near}");
    let send = |actor: &Actor, socket, data: &str| {
        let data = format!("{data}\n");
        actor.must(&Request::Send { socket, data }).map(drop)
    };
    let receive = |actor: &Actor, socket| match actor.must(&Request::ReceiveLine { socket })? {
        Reply::Data(line) => Ok(line),
        reply => anyhow::bail!("not data: {reply:?}"),
    };
    send(client, near, &data)?;
    send(proxy, up, &receive(proxy, far)?)?;
    send(proxy, far, &receive(proxy, up)?)?;
    let received = receive(client, near)?;
    run.expect("the line is echoed", received == data);
    Ok(())
}

/// `from` is the client's address, `upstream` the same as the proxy's socket is bound to it.
fn through(from: &'static str, to: &'static str, upstream: &'static str) -> Scenario {
    Scenario::new(format!("{from} to {to} by {upstream}"), move |run| {
        let listeners = listen(run)?;
        let ends = to_the_proxy(run, listeners, from, to)?;
        let far = address(upstream);
        let to = if far.is_ipv6() && address(to).is_ipv4() {
            format!("[::ffff:{}]:{}", address(to).ip(), address(to).port())
        } else {
            to.to_owned()
        };
        on_to_the_app(run, ends, far, &to)
    })
}

#[test]
fn the_app_gets_the_clients_address() {
    let scenarios = [
        through("10.1.0.1:0", "10.1.0.2:8080", "10.1.0.1:0"),
        through("10.1.0.1:25000", "10.1.0.2:8080", "10.1.0.1:25001"),
        through("10.2.0.9:0", "10.1.0.2:8080", "10.2.0.9:0"),
        through("10.1.0.1:0", "10.1.0.3:8080", "10.1.0.1:0"),
        through("10.3.0.1:0", "10.3.0.2:8080", "10.3.0.1:0"),
        through("[fd00:1::1]:0", "[fd00:1::2]:8080", "[fd00:1::1]:0"),
        through("[fd00:1::1]:25000", "[fd00:1::2]:8080", "[fd00:1::1]:25001"),
        through("[fd00:2::9]:0", "[fd00:1::3]:8080", "[fd00:2::9]:0"),
        through("[fd00:2::9]:0", "[fd00:3::2]:8080", "[fd00:2::9]:0"),
        through("10.1.0.1:0", "10.1.0.2:8080", "[::ffff:10.1.0.1]:0"),
    ];
    differential(&setup(), &scenarios);
}

#[test]
fn with_another_mark_and_another_table() {
    let settings = Settings {
        tproxy_mark: 77,
        tproxy_table: 300,
        ..settings()
    };
    let scenarios = [
        through("10.1.0.1:0", "10.1.0.2:8080", "10.1.0.1:0"),
        through("[fd00:1::1]:0", "[fd00:1::2]:8080", "[fd00:1::1]:0"),
        Scenario::dial(
            "captured",
            "proxy:15006",
            Dial::new(Role::Client, "10.1.0.2:8080"),
        ),
    ];
    differential(&Setup::with(settings), &scenarios);
}

/// Each gets its own responses.
#[test]
fn several_clients_at_once() {
    let clients = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("10.2.0.9:0", "10.1.0.2:8080"),
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ("[fd00:2::9]:0", "[fd00:1::2]:8080"),
    ];
    let scenario = Scenario::new("several clients", move |run| {
        let listeners = listen(run)?;
        let mut open = Vec::new();
        for (from, to) in clients {
            open.push(to_the_proxy(run, listeners, from, to)?);
        }
        for (ends, (from, to)) in open.into_iter().zip(clients).rev() {
            on_to_the_app(run, ends, address(from), to)?;
        }
        Ok(())
    });
    differential(&setup(), &[scenario]);
}

#[test]
fn in_every_mode_of_connecting() {
    let mut scenarios = Vec::new();
    for (from, to) in [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ("[::ffff:10.1.0.1]:0", "[::ffff:10.1.0.2]:8080"),
    ] {
        for mode in [
            ConnectMode::Blocking,
            ConnectMode::NonBlocking,
            ConnectMode::FastOpen,
            ConnectMode::FastOpenConnect,
        ] {
            let dial = in_the_name_of(from, to, MARK).mode(mode);
            scenarios.push(Scenario::dial(&format!("{mode:?}"), "app:8080", dial));
        }
        let no_port = SocketOption::BindAddressNoPort;
        let dial = in_the_name_of(from, to, MARK).with(no_port);
        scenarios.push(Scenario::dial("the port comes later", "app:8080", dial));
    }
    differential(&setup(), &scenarios);
}

/// The first packet has data.
#[test]
fn with_fast_open_always() {
    let setup = Setup {
        sysctls: &[("net.ipv4.tcp_fastopen", "1543")],
        ..setup()
    };
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        let dial = in_the_name_of(from, to, MARK).mode(ConnectMode::FastOpen);
        Scenario::dial("fast open", "app:8080", dial)
    });
    differential(&setup, &scenarios);
}

/// From the pod's own address, after the proxy has called its own pod.
#[test]
fn from_the_pods_own_address() {
    let scenarios = [
        ("10.1.0.2:0", "10.1.0.2:8080"),
        ("10.1.0.3:0", "10.1.0.2:8080"),
        ("[fd00:1::2]:0", "[fd00:1::2]:8080"),
        ("[fd00:1::3]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| Scenario::dial(from, "app:8080", in_the_name_of(from, to, MARK)));
    differential(&setup(), &scenarios);
}

#[test]
fn an_app_that_does_not_listen_refuses() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:81"),
        ("10.2.0.9:0", "10.1.0.2:81"),
        ("[fd00:1::1]:0", "[fd00:1::2]:81"),
        ("[::ffff:10.1.0.1]:0", "[::ffff:10.1.0.2]:81"),
    ]
    .map(|(from, to)| Scenario::dial(from, "ECONNREFUSED", in_the_name_of(from, to, MARK)));
    differential(&setup(), &scenarios);
}

/// An app that stops and starts listening.
#[test]
fn an_app_is_reached_when_it_listens_again() {
    let scenarios = [
        (81, "10.1.0.1:0", "10.1.0.2:81"),
        (82, "[fd00:1::1]:0", "[fd00:1::2]:82"),
    ]
    .map(|(port, from, to)| {
        Scenario::new(from, move |run| {
            let app = run.actor(Role::App)?;
            for turn in 0..3 {
                run.label(format!("turn {turn}, down:"));
                in_the_name_of(from, to, MARK).execute(run)?;
                run.expect_outcome("ECONNREFUSED");
                let socket = serve(app, Bind::DUAL_WILDCARD, port)?;
                run.label(format!("turn {turn}, up:"));
                in_the_name_of(from, to, MARK).execute(run)?;
                run.expect("the app responds", run.outcome().starts_with("app"));
                app.must(&Request::Close { socket })?;
            }
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

/// After the proxy's attempt from a client's address, the client's own connection is captured all
/// the same.
#[test]
fn a_client_is_captured_after_a_call_from_its_address() {
    let scenarios = [
        ("10.1.0.1:25010", "10.1.0.2:81"),
        ("[fd00:1::1]:25010", "[fd00:1::2]:81"),
    ]
    .map(|(from, to)| {
        Scenario::new(from, move |run| {
            run.label("proxy");
            in_the_name_of(from, to, MARK).execute(run)?;
            run.expect_outcome("ECONNREFUSED");
            run.label("client");
            Dial::new(Role::Client, to).from(from).execute(run)?;
            run.expect_outcome("proxy:15006");
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

#[test]
fn a_client_that_closes_before_the_accept() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        Scenario::new(from, move |run| {
            let listeners = listen(run)?;
            let (client, proxy) = (run.actor(Role::Client)?, run.actor(Role::RootProxyServer)?);
            let options = vec![SocketOption::ResetOnClose];
            let socket = bound(client, address(from), options)?;
            let to_address = address(to);
            client.must(&Request::Connect {
                socket,
                address: to_address,
            })?;
            client.must(&Request::Close { socket })?;
            let accepted = proxy.accept(listener_for(to, listeners))?;
            run.label("accepted");
            let read = Request::ReceiveLine { socket: accepted };
            run.perform("read", proxy, &read)?;
            run.label("upstream all the same");
            in_the_name_of(from, to, MARK).execute(run)?;
            run.expect_outcome("app:8080");
            Ok(())
        })
    });
    differential(&setup(), &scenarios);
}

/// A connection from a client's address without the mark is captured, as any other call of the pod
/// by its proxy is; the replies are sent to the client, which has no such connection.
#[test]
fn without_the_mark_it_hangs() {
    let scenarios = [
        ("10.1.0.1:0", "10.1.0.2:8080"),
        ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
    ]
    .map(|(from, to)| {
        let dial = in_the_name_of(from, to, 0);
        Scenario::dial(from, "silence", dial)
    });
    differential(&setup(), &scenarios);
}

fn world() -> World {
    World::new(Mechanism::Interceptor, &setup()).expect("a world")
}

/// While the app accepts nothing, the proxy's connection from a client's address stays in its
/// handshake. In the meantime, that client's own connection is captured.
#[test]
fn a_client_is_captured_while_the_app_does_not_accept() {
    let world = world();
    for (at, from, to) in [
        ("0.0.0.0:81", "10.1.0.1:25020", "10.1.0.2:81"),
        ("[::]:82", "[fd00:1::1]:25020", "[fd00:1::2]:82"),
    ] {
        keeps_waiting(&world, at, from, to)
            .with_context(|| to.to_owned())
            .expect("captured");
    }
}

fn keeps_waiting(world: &World, at: &str, from: &str, to: &str) -> Result<()> {
    let (app, proxy) = (world.actor(Role::App)?, world.actor(Role::RootProxyServer)?);
    let socket = app.socket(Family::of(address(at)), Protocol::Tcp)?;
    let address_to = address(to);
    app.must(&Request::Bind {
        socket,
        address: address(at),
    })?;
    app.must(&Request::ListenForOne { socket })?;
    // It fills the backlog.
    let local = address(&at.replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]"));
    let first = app.socket(Family::of(local), Protocol::Tcp)?;
    app.must(&Request::Connect {
        socket: first,
        address: local,
    })?;
    let options = transparent(Family::of(address_to), Some(MARK));
    let waiting = bound(proxy, address(from), options)?;
    let started = proxy.call(&Request::ConnectStart {
        socket: waiting,
        address: address_to,
    })?;
    ensure!(
        started == Reply::Error("EINPROGRESS".to_owned()),
        "{started:?}"
    );
    let client = world.actor(Role::Client)?;
    let socket = bound(client, address(from), Vec::new())?;
    let address = address_to;
    client.must(&Request::Connect { socket, address })?;
    let line = client.must(&Request::ReceiveLine { socket })?;
    ensure!(
        matches!(&line, Reply::Data(line) if line.contains("proxy:15006")),
        "{line:?}"
    );
    Ok(())
}

/// `client` dials `to`: the server that responds, or the errno.
fn response(world: &World, to: &str) -> Result<String> {
    let client = world.actor(Role::Client)?;
    let (socket, response) = call(client, to)?;
    client.must(&Request::Close { socket })?;
    Ok(response)
}

fn worlds() -> [World; 2] {
    [Mechanism::Iptables, Mechanism::Interceptor]
        .map(|mechanism| World::new(mechanism, &setup()).expect("a world"))
}

/// Known difference: TPROXY drops packets without a listener; here they are refused, as in the
/// other mode.
#[test]
fn without_a_listener_iptables_drops_and_we_refuse() {
    for (world, expected) in worlds().iter().zip(["EINPROGRESS", "ECONNREFUSED"]) {
        world.stop_proxy().expect("stopped");
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            assert_eq!(response(world, to).expect("a call"), expected, "{to}");
        }
        world.start_proxy().expect("started");
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            let response = response(world, to).expect("a call");
            assert!(response.starts_with("proxy:15006"), "{to}: {response}");
        }
    }
}

/// Known difference: TPROXY drops packets without a transparent listener; here it need not be
/// transparent.
#[test]
fn a_non_transparent_listener_gets_nothing_from_iptables() {
    for (world, is_served) in worlds().iter().zip([false, true]) {
        world.stop_proxy().expect("stopped");
        let proxy = world.actor(Role::RootProxyServer).expect("a proxy");
        for bind in Bind::BOTH_WILDCARDS {
            serve(proxy, bind, 15006).expect("served");
        }
        for to in ["10.1.0.2:8080", "[fd00:1::2]:8080"] {
            let response = response(world, to).expect("a call");
            let expected = if is_served {
                "proxy:15006"
            } else {
                "EINPROGRESS"
            };
            assert!(response.starts_with(expected), "{to}: {response}");
        }
    }
}

/// Known difference: with SYN cookies nothing is stored of a connection until its third packet,
/// which TPROXY delivers to the app instead of the proxy. The app resets it, or accepts the cookie
/// if it has sent some itself. Here the third packet reaches the same listener as the first.
#[test]
fn with_syn_cookies_iptables_does_not_reach_the_proxy() {
    for (world, is_captured) in worlds().iter().zip([false, true]) {
        let cookies = world.pod().sysctl("net.ipv4.tcp_syncookies", "2");
        cookies.expect("a sysctl");
        for (client, to) in [
            ("10.1.0.1:0", "10.1.0.2:8080"),
            ("[fd00:1::1]:0", "[fd00:1::2]:8080"),
        ] {
            let response = response(world, to).expect("a call");
            let is_proxy = response.starts_with("proxy:15006");
            assert_eq!(is_proxy, is_captured, "{to}: {response}");
            let mut run = Run::new(world);
            let upstream = in_the_name_of(client, to, MARK);
            upstream.execute(&mut run).expect("a call");
            assert_eq!(run.outcome(), "app:8080", "{to}");
        }
    }
}

/// Known difference: to the kernel the app's and the client's connection would be the same. Behind
/// iptables the replies to the second break the first, here the second is never established.
#[test]
fn with_the_clients_own_port_no_connection_works() {
    for (world, gets_through) in worlds().iter().zip([true, false]) {
        let mut run = Run::new(world);
        for (from, to) in [
            ("10.1.0.1:25000", "10.1.0.2:8080"),
            ("[fd00:1::1]:25000", "[fd00:1::2]:8080"),
        ] {
            let listeners = listen(&run).expect("listeners");
            let ends = to_the_proxy(&mut run, listeners, from, to).expect("a connection");
            in_the_name_of(from, to, MARK)
                .execute(&mut run)
                .expect("a call");
            assert_eq!(run.outcome() == "app:8080", gets_through, "{to}");
            let proxy = run.actor(Role::RootProxyServer).expect("the proxy");
            let (socket, data) = (ends.1, "lost\n".to_owned());
            let sent = proxy
                .call(&Request::Send { socket, data })
                .expect("a reply");
            assert_eq!(
                matches!(sent, Reply::Error(_)),
                gets_through,
                "{to}: {sent:?}"
            );
            world.reset().expect("reset");
        }
    }
}

/// Known difference: a proxy that keeps its usual user is redirected to itself by nat, which is why
/// TPROXY's is root. Behind iptables it receives nothing over IPv4, here its own connection.
#[test]
fn a_proxy_that_is_not_root_does_not_reach_the_app() {
    let root = User::new(0, 0);
    for (world, v4) in worlds().iter().zip(["silence", "proxy:15006"]) {
        let proxy = world.start_in_pod("proxy", root, "pod/other");
        let proxy = proxy.expect("a proxy");
        let (uid, gid) = (1337, 1337);
        proxy
            .must(&Request::SetSocketOwner { uid, gid })
            .expect("another owner");
        for (from, to, expected) in [
            ("10.1.0.1:0", "10.1.0.2:8080", v4),
            ("[fd00:1::1]:0", "[fd00:1::2]:8080", "proxy:15006"),
        ] {
            let from = address(from);
            let socket = bound(&proxy, from, transparent(Family::of(from), Some(MARK)));
            let mut run = Run::new(world);
            Dial::new(Role::RootProxyServer, to)
                .execute_as(&mut run, &proxy, socket.expect("a socket"))
                .expect("a call");
            assert_eq!(run.outcome(), expected, "{to}");
        }
    }
}

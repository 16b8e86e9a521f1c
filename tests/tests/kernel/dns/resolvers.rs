//! Real resolvers, which look up names through the agent.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    actor::{
        Actor, User,
        protocol::{Family, Protocol, Reply, Request, SocketOption, Zone},
    },
    command::{bounded, run},
    settings::{Dns, Settings},
    users::{APP, PROXY},
    world::{Mechanism, Role, Setup, World},
};
use tempfile::TempDir;

const NAME: &str = "reviews.default.svc.cluster.test";

/// The agent's records.
const AGENTS: Zone = Zone {
    v4: Ipv4Addr::new(240, 240, 0, 7),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 7),
    is_long: false,
};
/// The servers' records.
const SERVERS: Zone = Zone {
    v4: Ipv4Addr::new(192, 0, 2, 66),
    v6: Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x66),
    is_long: false,
};

const ONE: &[&str] = &["10.96.0.10"];
const THREE: &[&str] = &["10.96.0.10", "10.2.0.9", "10.2.0.10"];
const BOTH_FAMILIES: &[&str] = &["fd00:96::10", "10.96.0.10", "10.2.0.9"];
const OF_THE_POD: &[&str] = &["127.0.0.53"];

/// A pod with an agent that replies, and servers that could reply.
struct Stage {
    world: World,
    agent: Actor,
    dir: TempDir,
}

impl Stage {
    fn new(dns: Dns, agents: Zone) -> Result<Self> {
        let settings = Settings {
            dns,
            ..Settings::default()
        };
        let world = World::new(Mechanism::Interceptor, &Setup::with(settings))?;
        let agent = world.start_in_pod("agent", PROXY, "pod/agent")?;
        for ip in ["127.0.0.1", "::1"] {
            response(&agent, SocketAddr::new(ip.parse()?, 15053), agents)?;
        }
        let remote = world.actor(Role::Remote)?;
        for ip in ["10.96.0.10", "10.2.0.9", "10.2.0.10", "fd00:96::10"] {
            response(remote, SocketAddr::new(ip.parse()?, 53), SERVERS)?;
        }
        let own = world.actor(Role::AppServer)?;
        response(own, "127.0.0.53:53".parse()?, SERVERS)?;
        Ok(Self {
            world,
            agent,
            dir: tempfile::tempdir()?,
        })
    }

    /// The addresses that `resolver` finds as `user` with these servers and options.
    fn resolve(
        &self,
        user: User,
        servers: &[&str],
        options: &str,
        resolver: &[&str],
    ) -> Result<Vec<IpAddr>> {
        let servers = servers
            .iter()
            .map(|server| format!("nameserver {server}\n"));
        let text: String = servers.collect();
        let resolv_conf = self.file("resolv.conf", &format!("{text}options {options}\n"))?;
        let nsswitch = self.file("nsswitch.conf", "hosts: dns\n")?;
        let cgroup = self.world.cgroup().child("pod/resolver")?;
        let script = "echo $$ > $0/cgroup.procs && mount --bind $1 /etc/resolv.conf && \
                      mount --bind $2 /etc/nsswitch.conf && uid=$3 && gid=$4 && shift 4 && \
                      exec setpriv --reuid $uid --regid $gid --clear-groups \"$@\"";
        let mut command = bounded("nsenter");
        command
            .arg(format!("--net={}", self.world.pod().path().display()))
            .args([
                "unshare",
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                script,
            ])
            .args([cgroup, resolv_conf, nsswitch])
            .args([user.uid, user.gid].map(|id| id.to_string()))
            .args(resolver);
        addresses(&run(&mut command, "")?)
    }

    fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.dir.path().join(name);
        fs::write(&path, text)?;
        Ok(path)
    }

    /// The number of queries that the agent has received over UDP and TCP.
    fn agents_queries(&self) -> Result<(usize, usize)> {
        queries(&self.agent)
    }

    /// The number of queries that the servers have received.
    fn servers_queries(&self) -> Result<usize> {
        let (udp, tcp) = queries(self.world.actor(Role::Remote)?)?;
        let (own_udp, own_tcp) = queries(self.world.actor(Role::AppServer)?)?;
        Ok(udp + tcp + own_udp + own_tcp)
    }

    /// An app gets the agent's records, and no server receives a query.
    fn check(&self, servers: &[&str], options: &str, resolver: &[&str]) -> Result<()> {
        let context = format!("{resolver:?}, {servers:?} {options}");
        let (udp, tcp) = self.agents_queries()?;
        let found = self
            .resolve(APP, servers, options, resolver)
            .with_context(|| context.clone())?;
        let expected: [IpAddr; 2] = [AGENTS.v4.into(), AGENTS.v6.into()];
        ensure!(found == expected, "{context}: found {found:?}");
        let now = self.agents_queries()?;
        ensure!(now > (udp, tcp), "{context}: the agent received no query");
        let received = self.servers_queries()?;
        ensure!(
            received == 0,
            "{context}: the servers have received {received} queries"
        );
        Ok(())
    }
}

/// Lets `actor` respond to DNS queries at `address`, over UDP and TCP.
fn response(actor: &Actor, address: SocketAddr, zone: Zone) -> Result<()> {
    for protocol in [Protocol::Udp, Protocol::Tcp] {
        let socket = actor.socket(Family::of(address), protocol)?;
        for option in [SocketOption::ReuseAddress, SocketOption::ReusePort] {
            actor.must(&Request::Set { socket, option })?;
        }
        actor.must(&Request::Bind { socket, address })?;
        if protocol == Protocol::Tcp {
            actor.must(&Request::Listen { socket })?;
        }
        actor.must(&Request::ServeDns { socket, zone })?;
    }
    Ok(())
}

fn queries(actor: &Actor) -> Result<(usize, usize)> {
    match actor.must(&Request::Queries)? {
        Reply::Queries { udp, tcp } => Ok((udp, tcp)),
        reply => anyhow::bail!("{reply:?}"),
    }
}

/// The addresses at the starts of lines, IPv4 first.
fn addresses(text: &str) -> Result<Vec<IpAddr>> {
    let words = text
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let mut found: Vec<IpAddr> = words
        .map(|word| word.parse().with_context(|| text.to_owned()))
        .collect::<Result<_>>()?;
    found.sort();
    found.dedup();
    Ok(found)
}

/// glibc's `getaddrinfo`.
const GETENT: &[&str] = &["getent", "ahosts", NAME];

#[test]
fn glibc() -> Result<()> {
    let stage = Stage::new(Dns::All, AGENTS)?;
    for servers in [ONE, THREE, BOTH_FAMILIES, OF_THE_POD] {
        for options in [
            "ndots:1",
            "single-request",
            "single-request-reopen",
            "edns0",
            "rotate",
        ] {
            stage.check(servers, options, GETENT)?;
        }
    }
    Ok(())
}

#[test]
fn glibc_over_tcp() -> Result<()> {
    let stage = Stage::new(Dns::All, AGENTS)?;
    for servers in [ONE, THREE, BOTH_FAMILIES, OF_THE_POD] {
        stage.check(servers, "use-vc", GETENT)?;
    }
    let (udp, tcp) = stage.agents_queries()?;
    ensure!(udp == 0 && tcp >= 8, "{udp} over UDP, {tcp} over TCP");
    Ok(())
}

/// A response that does not fit is requested again over TCP.
#[test]
fn glibc_with_truncated_responses() -> Result<()> {
    let zone = Zone {
        is_long: true,
        ..AGENTS
    };
    let stage = Stage::new(Dns::All, zone)?;
    for servers in [ONE, THREE, BOTH_FAMILIES] {
        stage.check(servers, "ndots:1", GETENT)?;
    }
    let (udp, tcp) = stage.agents_queries()?;
    ensure!(udp >= 3 && tcp >= 3, "{udp} over UDP, {tcp} over TCP");
    Ok(())
}

#[test]
fn glibc_with_the_servers_of_resolv_conf() -> Result<()> {
    let stage = Stage::new(Dns::Servers("10.96.0.10,10.2.0.9,10.2.0.10"), AGENTS)?;
    for servers in [ONE, THREE] {
        stage.check(servers, "ndots:1", GETENT)?;
        stage.check(servers, "use-vc", GETENT)?;
    }
    Ok(())
}

/// musl's resolver sends to all servers at once, from one unconnected socket.
#[test]
fn musl() -> Result<()> {
    let stage = Stage::new(Dns::All, AGENTS)?;
    let program = musl_program(stage.dir.path())?;
    let program = program.to_str().context("a path")?;
    for servers in [ONE, THREE, BOTH_FAMILIES, OF_THE_POD] {
        stage.check(servers, "ndots:1", &[program, NAME])?;
    }
    let stage = Stage::new(Dns::Servers("10.96.0.10,10.2.0.9,10.2.0.10"), AGENTS)?;
    for servers in [ONE, THREE] {
        stage.check(servers, "ndots:1", &[program, NAME])?;
    }
    Ok(())
}

/// The proxy's own resolver queries the servers.
#[test]
fn the_proxy_itself() -> Result<()> {
    let stage = Stage::new(Dns::All, AGENTS)?;
    let program = musl_program(stage.dir.path())?;
    let musl = [program.to_str().context("a path")?, NAME];
    for (resolver, options) in [(GETENT, "ndots:1"), (GETENT, "use-vc"), (&musl, "ndots:1")] {
        for servers in [ONE, THREE, OF_THE_POD] {
            let before = stage.servers_queries()?;
            let found = stage.resolve(PROXY, servers, options, resolver)?;
            let expected: [IpAddr; 2] = [SERVERS.v4.into(), SERVERS.v6.into()];
            ensure!(found == expected, "{servers:?} {options}: {found:?}");
            ensure!(stage.servers_queries()? > before);
        }
    }
    ensure!(stage.agents_queries()? == (0, 0));
    Ok(())
}

const MUSL_PROGRAM: &str = r#"
#include <netdb.h>
#include <stdio.h>
int main(int argc, char **argv) {
    struct addrinfo *found, *one, hints = { .ai_socktype = SOCK_STREAM };
    int error = getaddrinfo(argv[argc - 1], 0, &hints, &found);
    if (error) return fprintf(stderr, "%s\n", gai_strerror(error)), 1;
    for (one = found; one; one = one->ai_next) {
        char name[64];
        getnameinfo(one->ai_addr, one->ai_addrlen, name, sizeof name, 0, 0, NI_NUMERICHOST);
        puts(name);
    }
}
"#;

/// A program with musl's `getaddrinfo`. Every user may run it.
fn musl_program(dir: &Path) -> Result<PathBuf> {
    use std::os::unix::fs::PermissionsExt as _;

    fs::set_permissions(dir, fs::Permissions::from_mode(0o755))?;
    let (source, program) = (dir.join("resolve.c"), dir.join("resolve"));
    fs::write(&source, MUSL_PROGRAM)?;
    run(
        bounded("musl-gcc")
            .arg("-static")
            .arg("-o")
            .arg(&program)
            .arg(&source),
        "",
    )?;
    Ok(program)
}

//! HTTP through a real Envoy, with `wrk`.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use interceptor_testkit::{
    command::output,
    sidecar::{
        Envoy,
        envoy::connections_by_worker,
        launch::{LaunchContext, Process},
    },
    users::{APP, PROXY, ROOT},
};

use crate::{
    Contestant, Pod, Row, Scale, Section, Unit,
    charts::Chart,
    load::Worker,
    pod::{PROXY_PORTS, stock},
    rounds::take_turns,
};

/// The server's address, outside the pod.
const URL: &str = "http://10.2.0.9:80/";
const PORT: u16 = 80;
/// The number of concurrent connections.
const CONNECTIONS: u32 = 16;

/// A pod with Envoy, and a server outside it.
struct Stage {
    // Dropped in this order.
    _envoy: Process,
    _server: Worker,
    pod: Pod,
}

/// The results of a turn.
struct Turn {
    rate: f64,
    /// Milliseconds.
    p99: f64,
}

pub(super) fn run(scale: &Scale) -> Result<Section> {
    let stages = Contestant::INTERCEPTING
        .iter()
        .map(|contestant| Ok((contestant.to_string(), Stage::new(*contestant)?)))
        .collect::<Result<Vec<_>>>()?;
    let mut rows = Vec::new();
    for (what, options) in [
        ("open connections", &[][..]),
        (
            "a connection for each request",
            &["-H", "Connection: close"],
        ),
    ] {
        let turns = take_turns(scale.http_rounds, &stages, |stage| {
            stage.measure(scale.http_seconds, options)
        })?;
        let rates = turns.numbers(|turn| turn.rate);
        let what_rate = format!("{what}, requests");
        rows.push(Row::against_first(what_rate, Unit::PerSecond, &rates));
        let p99 = turns.numbers(|turn| turn.p99);
        let what_p99 = format!("{what}, p99");
        rows.push(Row::against_first(what_p99, Unit::Milliseconds, &p99));
    }
    for (_, stage) in &stages {
        stage.verify()?;
    }
    Ok(Section {
        method: format!(
            "wrk in the pod, {CONNECTIONS} connections, turns of {} s, {} rounds, to a server \
             outside, through an Envoy of one worker with the layout of Istio's sidecar.",
            scale.http_seconds, scale.http_rounds
        ),
        charts: vec![Chart::bars(
            "http",
            "HTTP through Envoy",
            "requests/s",
            &rows,
            &[
                "open connections, requests",
                "a connection for each request, requests",
            ],
        )],
        rows,
        ..Section::default()
    })
}

impl Stage {
    fn new(contestant: Contestant) -> Result<Self> {
        let envoy = Envoy::new(1)?;
        let settings = stock();
        let pod = Pod::without_proxy(contestant, &settings)?;
        let peer = pod.cgroup().child("peer")?;
        let server = Worker::start("server", ROOT, pod.peer(), &peer, &[PORT])?;
        let context = LaunchContext {
            netns: pod.netns(),
            cgroup: &pod.cgroup().child("pod/proxy")?,
            user: PROXY,
        };
        let mut process = Process::start(context, &envoy.binary, &envoy.arguments(settings.mode))?;
        process.await_listeners(pod.netns(), &PROXY_PORTS, envoy.listeners())?;
        Ok(Self {
            _envoy: process,
            _server: server,
            pod,
        })
    }

    fn measure(&self, seconds: u64, options: &[&str]) -> Result<Turn> {
        let mut command = self.wrk(seconds, options)?;
        command.stdout(Stdio::piped());
        let output = output(&mut command, "")?;
        let text = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && !text.contains("Non-2xx"),
            "wrk: {}: {text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        parse(&text).with_context(|| format!("output of wrk: {text}"))
    }

    fn wrk(&self, seconds: u64, options: &[&str]) -> Result<Command> {
        let context = LaunchContext {
            netns: self.pod.netns(),
            cgroup: &self.pod.cgroup().child("pod/app")?,
            user: APP,
        };
        let (connections, duration) = (format!("-c{CONNECTIONS}"), format!("-d{seconds}s"));
        let own = ["-t1", &connections, &duration, "--latency"];
        let arguments: Vec<String> = own
            .iter()
            .chain(options)
            .chain(&[URL])
            .map(|argument| (*argument).to_owned())
            .collect();
        context.command(&wrk()?, &arguments)
    }

    /// Checks that Envoy got the requests, with conntrack behind iptables only.
    fn verify(&self) -> Result<()> {
        let name = self.pod.contestant();
        let accepted = self
            .pod
            .netns()
            .enter(|| connections_by_worker(PROXY_PORTS[0]))?;
        ensure!(
            accepted.iter().sum::<u32>() >= CONNECTIONS,
            "{name}: Envoy has accepted {accepted:?} connections"
        );
        let tracked = self.pod.tracked()?;
        ensure!(
            (tracked > 0) == (name == Contestant::Iptables),
            "{name}: conntrack tracks {tracked} connections"
        );
        Ok(())
    }
}

/// The path of `wrk`.
fn wrk() -> Result<PathBuf> {
    env::split_paths(&env::var_os("PATH").unwrap_or_default())
        .map(|dir| dir.join("wrk"))
        .find(|file| file.is_file())
        .context("wrk is missing: `cargo xtask bench` installs it")
}

fn parse(text: &str) -> Option<Turn> {
    let field = |name: &str| {
        let line = text.lines().find(|line| line.trim().starts_with(name))?;
        line.split_whitespace().nth(1)
    };
    Some(Turn {
        rate: field("Requests/sec:")?.parse().ok()?,
        p99: milliseconds(field("99%")?)?,
    })
}

/// `1.20ms`, `830.00us`, `1.02s`
fn milliseconds(text: &str) -> Option<f64> {
    let number = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let scale = match &text[number.len()..] {
        "us" => 1e-3,
        "ms" => 1.0,
        "s" => 1e3,
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_of_wrk_is_parsed() {
        let text = "  Latency Distribution\n     50%  410.00us\n     99%    1.20ms\n\
                    Requests/sec:  36841.11\nTransfer/sec:  1.37MB\n";
        let turn = parse(text).expect("numbers");
        assert!((turn.rate - 36841.11).abs() < 1e-9);
        assert!((turn.p99 - 1.2).abs() < 1e-9);
        assert!(parse("unable to connect").is_none());
        assert_eq!(milliseconds("1.02s"), Some(1020.0));
    }
}

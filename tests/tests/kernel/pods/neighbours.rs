//! Pods with the same addresses, and network namespaces that are not captured.

use anyhow::Result;
use interceptor_testkit::{
    actor::{
        Actor,
        protocol::{Family, Level, Protocol, Reply, Request},
    },
    lab::{Caller, Lab, STOCK, all_captured, dial},
    users::{APP, PROXY, ROOT},
    world::{Bind, serve},
};

/// A pod whose proxy has its own name.
fn pod(proxy: &str) -> (Lab, Actor) {
    let lab = Lab::new().expect("a lab");
    let proxy = start_proxy(&lab, proxy);
    (lab, proxy)
}

fn start_proxy(lab: &Lab, name: &str) -> Actor {
    let cgroup = lab.cgroup.child("pod/proxy").expect("a cgroup");
    let proxy = Actor::start(name, PROXY, lab.pod.namespace(), Some(&cgroup)).expect("a proxy");
    for bind in Bind::BOTH_WILDCARDS {
        for port in [15001, 15006] {
            serve(&proxy, bind, port).expect("a listener");
        }
    }
    proxy
}

fn all_captured_by(name: &str) -> Vec<String> {
    let responses = all_captured().into_iter();
    responses
        .map(|response| response.replace("proxy", name))
        .collect()
}

#[test]
fn each_of_several_pods_has_its_own_proxy() {
    let names = ["proxy-a", "proxy-b", "proxy-c"];
    let mut pods: Vec<_> = names.map(pod).into();
    for (lab, _) in &pods {
        lab.attach(STOCK).expect("attached");
    }
    // Each destination has a stand-in in every pod by now, when it is dialled for the second time.
    for _ in 0..2 {
        for (name, (lab, _)) in names.iter().zip(&pods) {
            assert_eq!(lab.dial_all().expect("dials"), all_captured_by(name));
        }
    }
    // One loses its proxy, one is detached: the others have theirs.
    let (first, proxy) = pods.remove(0);
    drop(proxy);
    let refused = vec!["ECONNREFUSED"; all_captured().len()];
    assert_eq!(first.dial_all().expect("dials"), refused);
    pods[0].0.detach().expect("detached");
    let direct = pods[0].0.dial_all().expect("dials");
    assert_eq!(direct, interceptor_testkit::lab::all_direct());
    let (last, _) = &pods[1];
    assert_eq!(last.dial_all().expect("dials"), all_captured_by(names[2]));
}

/// Each pod has its own settings.
#[test]
fn each_pod_has_its_own_settings() {
    let (one, _proxy) = pod("proxy-a");
    let (other, _other_proxy) = pod("proxy-b");
    one.attach(&["-i", "10.2.0.0/16", "-o", "443"])
        .expect("attached");
    other
        .attach(&["-i", "*", "-x", "10.2.0.0/16", "-b", "8080"])
        .expect("attached");
    let responses = |lab: &Lab| {
        ["10.2.0.9:80", "10.2.0.9:443", "10.1.0.1:80"].map(|to| lab.dial(Caller::App, to).unwrap())
    };
    let captured = |name: &str, to: &str| format!("{name}:15001 for {to}");
    let ones = [
        &*captured("proxy-a", "10.2.0.9:80"),
        "remote:443",
        "remote:80",
    ];
    let others = [
        "remote:80",
        "remote:443",
        &captured("proxy-b", "10.1.0.1:80"),
    ];
    assert_eq!(responses(&one), ones);
    assert_eq!(responses(&other), others);
    let inbound = [&one, &other].map(|lab| lab.dial(Caller::Client, "10.1.0.2:8080").unwrap());
    assert_eq!(inbound, ["server:8080", "proxy-b:15006 for 10.1.0.2:8080"]);
}

/// The observations of an outsider below the attached cgroup: servers, names, options, protocols.
fn observe_outsider(outsider: &Actor) -> Result<Vec<String>> {
    let mut observed = Vec::new();
    let dials = [
        "10.2.0.9:80",
        "[fd00:2::9]:443",
        "[::ffff:10.2.0.9]:80",
        "127.0.0.1:80",
        "127.200.0.1:80",
        "10.1.0.2:8080",
        "10.1.0.1:15006",
        "[fd69:6365:7074::1]:80",
    ];
    for to in dials {
        observed.push(format!("{to}: {}", dial(outsider, to)?));
    }
    let (socket, _) = interceptor_testkit::lab::call(outsider, "127.200.0.1:80")?;
    observed.push(format!(
        "{:?}",
        outsider.call(&Request::PeerName { socket })?
    ));
    for level in [Level::Ip, Level::Ipv6] {
        let request = Request::OriginalDestination {
            socket,
            level,
            length: 28,
        };
        observed.push(format!("{:?}", outsider.call(&request)?));
    }
    outsider.must(&Request::CloseAll)?;
    for protocol in [Protocol::Mptcp, Protocol::Udp] {
        let family = Family::V4;
        let reply = outsider.call(&Request::Socket { family, protocol })?;
        let opened = matches!(reply, Reply::Socket(_));
        observed.push(format!("{protocol:?}: {opened}"));
    }
    Ok(observed)
}

/// The peer's processes are below the attached cgroup too.
#[test]
fn a_namespace_without_a_policy_is_unaffected() {
    let lab = Lab::new().expect("a lab");
    lab.start_proxy().expect("a proxy");
    serve(&lab.remote, Bind::DUAL_WILDCARD, 15006).expect("a listener");
    let outsiders = [APP, PROXY, ROOT].map(|user| {
        let cgroup = lab.cgroup.child("peer/outsider").expect("a cgroup");
        let netns = lab.peer.namespace();
        Actor::start("outsider", user, netns, Some(&cgroup)).expect("an actor")
    });
    let observe = || {
        outsiders
            .each_ref()
            .map(|caller| observe_outsider(caller).unwrap())
    };
    let before = observe();
    assert!(before[0][0].ends_with("remote:80"), "{before:#?}");
    lab.attach(&[]).expect("attached");
    assert_eq!(observe(), before);
    // With inbound capture of the pod, one observation changes.
    lab.attach(STOCK).expect("replaced");
    let captured = "10.1.0.2:8080: proxy:15006 for 10.1.0.2:8080";
    for (now, before) in observe().iter().zip(&before) {
        let differing: Vec<_> = now.iter().filter(|line| !before.contains(line)).collect();
        assert_eq!(differing, [captured]);
    }
}

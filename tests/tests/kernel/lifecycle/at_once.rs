//! Several commands at the same time.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::Result;
use interceptor_testkit::lab::{Caller, Lab, NOTHING, STOCK, all_captured, all_direct, stderr_of};

const ROUNDS: usize = 5;

fn labs(count: usize) -> Vec<Lab> {
    let labs: Vec<_> = (0..count)
        .map(|_| Lab::new())
        .collect::<Result<_>>()
        .expect("labs");
    for lab in &labs {
        lab.start_proxy().expect("a proxy");
    }
    labs
}

/// Runs all of `work` at the same time; all of it must succeed.
fn at_once<T: Send>(work: impl IntoIterator<Item = impl FnOnce() -> Result<T> + Send>) -> Vec<T> {
    thread::scope(|scope| {
        let workers: Vec<_> = work.into_iter().map(|work| scope.spawn(work)).collect();
        workers
            .into_iter()
            .map(|worker| worker.join().expect("no panic").expect("success"))
            .collect()
    })
}

#[test]
fn different_pods_are_attached_and_detached_at_once() {
    let labs = labs(3);
    for _ in 0..ROUNDS {
        at_once(labs.iter().map(|lab| || lab.attach(STOCK)));
        for lab in &labs {
            assert_eq!(lab.dial_all().expect("dials"), all_captured());
        }
        at_once(labs.iter().map(|lab| || lab.detach()));
        for lab in &labs {
            assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
            assert_eq!(lab.dial_all().expect("dials"), all_direct());
        }
    }
}

/// While the last pod is detached, another is attached: the shared objects exist for it.
#[test]
fn one_pod_is_attached_while_another_is_detached() {
    let labs = labs(2);
    labs[0].attach(STOCK).expect("attached");
    for round in 0..2 * ROUNDS {
        let (old, new) = (&labs[round % 2], &labs[(round + 1) % 2]);
        thread::scope(|scope| {
            let detach = scope.spawn(|| old.detach());
            new.attach(STOCK).expect("attached");
            detach.join().expect("no panic").expect("detached");
        });
        assert_eq!(new.dial_all().expect("dials"), all_captured(), "{round}");
        assert_eq!(old.dial_all().expect("dials"), all_direct(), "{round}");
    }
}

#[test]
fn the_same_pod_is_attached_twice_at_once() {
    let labs = labs(1);
    let lab = &labs[0];
    for _ in 0..ROUNDS {
        let printed = at_once([0, 1].map(|_| || lab.attach(STOCK)));
        let again = printed
            .iter()
            .filter(|printed| printed.contains("already"))
            .count();
        assert_eq!(again, 1, "{printed:?}");
        assert_eq!(lab.dial_all().expect("dials"), all_captured());
        lab.detach().expect("detached");
        assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
    }
}

/// One of the two settings applies completely, the other not at all.
#[test]
fn the_same_pod_is_attached_with_two_settings_at_once() {
    let labs = labs(1);
    let lab = &labs[0];
    let outbound: &[&str] = &["-i", "*", "-b", ""];
    let inbound: &[&str] = &["-i", "", "-b", "*"];
    let both = [
        ("proxy:15001 for 10.2.0.9:80", "server:8080"),
        ("remote:80", "proxy:15006 for 10.1.0.2:8080"),
    ];
    for _ in 0..ROUNDS {
        at_once([outbound, inbound].map(|flags| move || lab.attach(flags)));
        let out = lab.dial(Caller::App, "10.2.0.9:80").expect("a dial");
        let into = lab.dial(Caller::Client, "10.1.0.2:8080").expect("a dial");
        assert!(both.contains(&(&out, &into)), "{out} and {into}");
    }
    lab.detach().expect("detached");
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

/// The last command determines the state, completely.
#[test]
fn the_same_pod_is_attached_and_detached_at_once() {
    let labs = labs(1);
    let lab = &labs[0];
    let before = lab.traces().expect("traces");
    for _ in 0..ROUNDS {
        at_once([true, false].map(|attach| {
            move || {
                if attach {
                    lab.attach(STOCK)
                } else {
                    lab.detach()
                }
            }
        }));
        let responses = lab.dial_all().expect("dials");
        if responses == all_direct() {
            assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
            assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
        } else {
            assert_eq!(responses, all_captured());
        }
        lab.detach().expect("detached");
        assert_eq!(lab.changes_since(&before).expect("traces"), NOTHING);
    }
}

/// The product's own commands enter the pod's namespace for a moment, from a cgroup that is not the
/// pod's: that does not make them processes of the pod.
#[test]
fn an_attach_is_not_refused_during_a_status() {
    let labs = labs(1);
    let lab = &labs[0];
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let runs = [(); 3].map(|()| {
            scope.spawn(|| -> Result<()> {
                while !done.load(Ordering::Relaxed) {
                    stderr_of(&mut lab.command("status"))?;
                }
                Ok(())
            })
        });
        let attached = (0..4 * ROUNDS).try_for_each(|round| {
            let port = ["98", "99"][round % 2];
            lab.attach(&[STOCK, &["-o", port]].concat()).map(drop)
        });
        done.store(true, Ordering::Relaxed);
        attached.expect("attached");
        for run_status in runs {
            run_status.join().expect("no panic").expect("status");
        }
    });
}

//! Other vendors' programs that exclude ours, or that ours would exclude, are named.

use std::path::Path;

use interceptor_testkit::{
    bpf::programs::{Action, AttachType, Mode, Program},
    command::output,
    lab::{Lab, NOTHING},
};

use crate::refusals::{FAILED, Subjects, expect_refusal};

/// A foreign program at `foreign`, attached as `mode`: an attach at `cgroup` is refused and names
/// it; after it is detached, the attach succeeds.
#[track_caller]
fn expect_named(lab: &Lab, attach_type: AttachType, mode: Mode, foreign: &Path, cgroup: &Path) {
    let program = Program::load("foreign_one", attach_type, Action::CountOnly).expect("a program");
    program.attach(foreign, mode).expect("attached");
    let mut command = lab.attach_command_at(cgroup, &[]);
    let output = output(&mut command, "").expect("a run");
    let id = program.id().expect("an ID");
    let named = format!("program {id} (foreign_one) at {}", foreign.display());
    expect_refusal(&command, &output, FAILED, &[&named]);
    program.detach(foreign).expect("detached");
}

/// Attaching there would be refused by the kernel.
#[test]
fn an_exclusive_program_on_the_cgroup_is_named() {
    let subjects = Subjects::new();
    for attach_type in AttachType::IN_CGROUPS {
        for mode in [Mode::Exclusive, Mode::Overridable] {
            let lab = &subjects.free;
            let cgroup = lab.cgroup.path();
            expect_named(lab, attach_type, mode, cgroup, cgroup);
        }
    }
    subjects.expect_unchanged();
    subjects.free.attach(&[]).expect("attached");
}

#[test]
fn an_exclusive_program_on_a_cgroup_above_is_named() {
    let subjects = Subjects::new();
    for attach_type in AttachType::IN_CGROUPS {
        for lab in subjects.both() {
            // Where the captured pod is attached, no other program can be exclusive.
            let above = lab.cgroup.child("above").expect("a cgroup");
            let below = lab.cgroup.child("above/below/further").expect("a cgroup");
            if lab.cookie() == subjects.captured.cookie() {
                continue;
            }
            move_pod(lab, &below);
            expect_named(lab, attach_type, Mode::Exclusive, &above, &below);
        }
    }
    subjects.expect_unchanged();
}

fn move_pod(lab: &Lab, to: &Path) {
    for name in ["pod/proxy", "pod/app", "pod"] {
        let from = lab.cgroup.path().join(name).join("cgroup.procs");
        let processes = std::fs::read_to_string(from).expect("processes");
        for pid in processes.lines() {
            std::fs::write(to.join("cgroup.procs"), pid).expect("moved");
        }
    }
}

/// The kernel would permit ours, and disable the other program for everything below.
#[test]
fn a_program_above_that_we_would_override_is_named() {
    let lab = Lab::new().expect("a lab");
    let above = lab.cgroup.child("above").expect("a cgroup");
    let below = lab.cgroup.child("above/below").expect("a cgroup");
    move_pod(&lab, &below);
    for attach_type in [
        AttachType::Connect4,
        AttachType::SockOps,
        AttachType::GetSockOpt,
    ] {
        expect_named(&lab, attach_type, Mode::Overridable, &above, &below);
    }
    assert_eq!(lab.leftovers().expect("leftovers"), NOTHING);
}

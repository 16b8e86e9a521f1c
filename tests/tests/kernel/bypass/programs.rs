//! BPF programs that the pod attaches to a cgroup of its own, below the one that Interceptor is
//! attached to. The kernel runs them before Interceptor's.

use anyhow::Result;
use interceptor_testkit::{
    bpf::programs::{Action, AttachType, Mode, Program},
    world::Setup,
};

use super::{
    case::{Group, Who::AppBpf, case},
    options::FAR,
    outcome::{
        Outcome::{self, Inside, Proxy},
        refused,
    },
    run::check,
    scene::Scene,
};

const FAR_IP: [u8; 4] = [10, 2, 0, 9];
/// Another captured destination, and an address of the stand-ins' range.
const OTHER_IP: [u8; 4] = [10, 2, 0, 10];
const STAND_IN_IP: [u8; 4] = [127, 200, 0, 1];

/// The app dials while a program of its own is attached to its cgroup.
fn dial_with(
    scene: &Scene,
    attach_type: AttachType,
    action: Action,
    mode: Mode,
) -> Result<Outcome> {
    let app = scene.app()?;
    let cgroup = scene.world.cgroup().child("pod/App")?;
    let program = Program::load("hostile", attach_type, action)?;
    program.attach(&cgroup, mode)?;
    let outcome = scene.dial(app, FAR);
    program.detach(&cgroup)?;
    anyhow::ensure!(program.runs()? > 0, "the program did not run");
    outcome
}

fn rewrite(scene: &Scene, to: [u8; 4]) -> Result<Outcome> {
    let action = Action::Rewrite { from: FAR_IP, to };
    dial_with(scene, AttachType::Connect4, action, Mode::Multiple)
}

#[test]
fn programs_of_the_pod() {
    check(&Group {
        title: "programs of the pod",
        setup: Setup::default(),
        cases: vec![
            case(
                AppBpf,
                "`connect4` that rewrites to another captured destination",
                |scene| rewrite(scene, OTHER_IP),
                [Proxy, Proxy],
            ),
            case(
                AppBpf,
                "`connect4` that rewrites to an address of the stand-ins' range",
                |scene| rewrite(scene, STAND_IN_IP),
                [Inside, refused("ECONNREFUSED")],
            ),
            case(
                AppBpf,
                "`connect4` that permits no other program in its cgroup",
                |scene| {
                    let action = Action::CountOnly;
                    dial_with(scene, AttachType::Connect4, action, Mode::Exclusive)
                },
                [Proxy, Proxy],
            ),
            case(
                AppBpf,
                "`sockops` that clears all callback flags",
                |scene| {
                    let action = Action::SetCallbackFlags(0);
                    dial_with(scene, AttachType::SockOps, action, Mode::Multiple)
                },
                [Proxy, Proxy],
            ),
        ],
    });
}

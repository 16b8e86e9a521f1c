//! Faults of an upgrade from another build.

use interceptor_testkit::{
    command::bounded,
    lab::{STOCK, stderr_of},
};

use super::{Trial, chosen, pinned, scene::Scene};
use crate::{alone, expect_nothing_left, upgrade::builds};

/// Pods of both builds stay captured; the next command of the new build completes the upgrade.
#[test]
fn a_call_of_an_upgrade_fails() {
    let alone = alone();
    let scenes = [Scene::new(&alone), Scene::new(&alone)];
    let [own, other] = builds();
    let attach = |build| {
        let mut command = bounded(build);
        stderr_of(command.args(scenes[0].attach_arguments(STOCK))).expect("attached");
    };
    for scene in &scenes {
        scene.attach(STOCK);
    }
    let upgraded = pinned();
    attach(&other);
    let before = pinned();
    assert_ne!(before, upgraded);
    let trial = Trial {
        name: "upgrade",
        program: &own,
        arguments: scenes[0].attach_arguments(STOCK),
        prepare: &|| {
            if pinned() != before {
                attach(&other);
            }
        },
        check: &|run| {
            for scene in &scenes {
                assert!(scene.is_captured(run), "{run}");
            }
            if run.has_succeeded() {
                assert_eq!(pinned(), upgraded, "{run}");
            } else if pinned() != before {
                scenes[0].expect_attach(STOCK, run);
                assert!(scenes[1].is_captured(run), "{run}");
                assert_eq!(pinned(), upgraded, "{run}");
            }
        },
    };
    let recorded = trial.record();
    trial.inject(&chosen(&recorded));
    attach(&own);
    drop(scenes);
    expect_nothing_left();
}

//! Agents are killed, restarted, upgraded and downgraded.

use std::time::Duration;

use anyhow::Result;
use interceptor_testkit::command::{bounded, output};

use super::Scene;

/// The longest time without an agent.
const MAX_ABSENCE: Duration = Duration::from_secs(4);
/// The upgrade is over after this time at the latest, on an idle machine.
const MAX_UPGRADE: Duration = Duration::from_secs(3);

pub(super) fn kill(scene: &mut Scene<'_>) -> Result<()> {
    scene.agents.kill()?;
    scene.rest(MAX_ABSENCE)?;
    let build = scene.agents.build;
    scene.agents.replace(build)?;
    scene.agents.until_ready()
}

pub(super) fn restart(scene: &mut Scene<'_>) -> Result<()> {
    scene.agents.terminate()?;
    let build = scene.agents.build;
    scene.agents.replace(build)?;
    scene.agents.until_ready()
}

pub(super) fn change_after_kill(scene: &mut Scene<'_>) -> Result<()> {
    scene.agents.kill()?;
    scene.rest(MAX_ABSENCE)?;
    let build = scene.agents.build.other();
    scene.agents.replace(build)?;
    scene.agents.until_ready()
}

pub(super) fn hand_over(scene: &mut Scene<'_>) -> Result<()> {
    let build = scene.agents.build.other();
    scene.agents.hand_over(build)?;
    scene.agents.until_ready()
}

/// The next agent completes the upgrade, or reverts it.
pub(super) fn kill_while_upgrading(scene: &mut Scene<'_>) -> Result<()> {
    scene.agents.kill()?;
    let build = scene.agents.build.other();
    scene.agents.replace(build)?;
    scene.rest(MAX_UPGRADE)?;
    scene.agents.kill()?;
    scene.rest(MAX_ABSENCE)?;
    let build = if scene.random.coin() {
        build
    } else {
        build.other()
    };
    scene.agents.replace(build)?;
    scene.agents.until_ready()
}

/// Every command that changes something upgrades all pods first. The agent upgrades them back with its
/// next change, at the latest when another one starts.
pub(super) fn upgrade_by_command(scene: &mut Scene<'_>) -> Result<()> {
    let build = scene.agents.build;
    let mut command = bounded(build.other().binary());
    command
        .args(["detach", "--netns"])
        .arg(scene.node.host.path());
    // The node's own network namespace is not captured: there is nothing to detach.
    output(&mut command, "")?;
    scene.rest(MAX_UPGRADE)?;
    scene.agents.kill()?;
    scene.agents.replace(build)?;
    scene.agents.until_ready()
}

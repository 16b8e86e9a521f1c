//! The API server fails and returns.

use std::time::Duration;

use anyhow::Result;

use super::{Scene, builds};

/// The longest failure.
const MAX_FAILURE: Duration = Duration::from_secs(6);
/// The longest delay of a response.
const MAX_DELAY: Duration = Duration::from_millis(1500);

pub(super) fn unavailable(scene: &mut Scene<'_>) -> Result<()> {
    scene.node.api.set_unavailable(true);
    if scene.random.coin() {
        scene.node.api.disconnect();
    }
    let rested = scene.rest(MAX_FAILURE);
    scene.node.api.set_unavailable(false);
    rested
}

/// Captured pods stay captured, and the agent is ready once it has the list of pods.
pub(super) fn unavailable_at_start(scene: &mut Scene<'_>) -> Result<()> {
    scene.agents.kill()?;
    scene.node.api.set_unavailable(true);
    let build = scene.agents.build;
    let started = scene.agents.replace(build);
    let rested = scene.rest(MAX_FAILURE);
    scene.node.api.set_unavailable(false);
    started?;
    rested?;
    scene.agents.until_ready()
}

pub(super) fn cut_off(scene: &mut Scene<'_>) -> Result<()> {
    if scene.random.coin() {
        scene.node.api.disconnect();
    } else {
        scene.node.api.expire();
    }
    scene.rest(MAX_FAILURE)
}

pub(super) fn slow(scene: &mut Scene<'_>) -> Result<()> {
    let delay = scene.random.duration(MAX_DELAY);
    scene.node.api.delay(delay);
    let restarted = builds::restart(scene);
    scene.node.api.delay(Duration::ZERO);
    restarted
}

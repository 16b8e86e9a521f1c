//! Routes, addresses and rules of a pod change: the agent copies them.

use std::time::Duration;

use anyhow::Result;

use super::Scene;

/// The longest time between two changes.
const MAX_PAUSE: Duration = Duration::from_millis(800);
/// The number of changes.
const CHANGES: u64 = 6;
/// The number of routes of each change.
const ROUTES: u8 = 40;

/// Changes that do not concern any destination of the traffic.
pub(super) fn flap(scene: &mut Scene<'_>) -> Result<()> {
    let pod = scene.any_pod();
    for _ in 0..=scene.random.below(CHANGES) {
        let commands = some_change(scene.random.below(4));
        let [add, delete] = &commands;
        let netns = scene.pods[pod].pod.netns()?;
        netns.ip(add)?;
        let rested = scene.rest(MAX_PAUSE);
        scene.pods[pod].pod.netns()?.ip(delete)?;
        rested?;
    }
    Ok(())
}

/// The commands of a change, and those that undo it.
fn some_change(kind: u64) -> [String; 2] {
    match kind {
        0 => {
            let routes = |verb: &str| -> String {
                let route = |number| format!("route {verb} unreachable 10.77.{number}.0/24\n");
                (0..ROUTES).map(route).collect::<Vec<_>>().concat()
            };
            [routes("add"), routes("del")]
        }
        1 => [
            "addr add 10.78.0.1/32 dev lo\naddr add fd00:78::1/128 dev lo\n",
            "addr del 10.78.0.1/32 dev lo\naddr del fd00:78::1/128 dev lo\n",
        ]
        .map(str::to_owned),
        2 => ["add", "del"].map(|verb| format!("rule {verb} from 10.79.0.0/16 lookup 100\n")),
        _ => ["add", "del"].map(|verb| {
            format!(
                "route {verb} blackhole default metric 5000\nroute {verb} fd00:80::/32 dev lo\n"
            )
        }),
    }
}

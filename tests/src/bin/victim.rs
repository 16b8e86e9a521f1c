//! A test process for the tests of the cleanup: creates a test's fixtures, reports that, and then
//! exits as its argument says or waits to be killed.

use std::{env, thread, time::Duration};

use anyhow::{Result, bail};
use interceptor_testkit::world::{Mechanism, Role, Setup, World};
use nix::sys::{prctl::set_pdeathsig, signal::Signal};

fn main() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL)?;
    let mut arguments = env::args().skip(1);
    let mechanism = match arguments.next().as_deref() {
        Some("iptables") => Mechanism::Iptables,
        Some("interceptor") => Mechanism::Interceptor,
        other => bail!("{other:?}: iptables or interceptor"),
    };
    let world = World::new(mechanism, &Setup::default())?;
    world.actor(Role::App)?;
    println!("{}", world.cgroup().path().display());
    match arguments.next().as_deref() {
        Some("panic") => panic!("as requested"),
        Some("end") => {}
        // Bounded, in case it is never killed.
        _ => thread::sleep(Duration::from_mins(1)),
    }
    Ok(())
}

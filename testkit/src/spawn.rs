//! Children that die with the test process.
//!
//! `PR_SET_PDEATHSIG` reports the exit of the *thread* that created the child, and every test has a
//! thread of its own; so one thread that never exits creates all children.

use std::{
    io,
    process::{Child, Command},
    sync::{
        LazyLock, Mutex, PoisonError,
        mpsc::{Sender, channel},
    },
    thread,
};

type Job = (Command, Sender<io::Result<Child>>);

static SPAWNER: LazyLock<Mutex<Sender<Job>>> = LazyLock::new(|| {
    let (jobs, inbox) = channel::<Job>();
    thread::spawn(move || {
        for (mut command, reply) in inbox {
            // The caller may have exited; then the child exits as well, when its stdin is closed.
            let _exited = reply.send(command.spawn());
        }
    });
    Mutex::new(jobs)
});

/// Starts `command` from the thread that never exits.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, child) = channel();
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

//! Children that die with the test process.
//!
//! `PR_SET_PDEATHSIG` tells of the end of the *thread* that made the child, and every test has a
//! thread of its own; so one thread that never ends makes them all.

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
            // Whoever asked may be gone; then so is the child, whose stdin closes.
            let _exited = reply.send(command.spawn());
        }
    });
    Mutex::new(jobs)
});

/// Starts `command` from the thread that never ends.
pub fn spawn(command: Command) -> io::Result<Child> {
    let (reply, child) = channel();
    SPAWNER
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, reply))
        .map_err(io::Error::other)?;
    child.recv().map_err(io::Error::other)?
}

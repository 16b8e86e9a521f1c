//! A captured pod that keeps the programs loaded: without a captured pod the product unloads them, and
//! the kernel needs a second or more to verify them again for the next attach.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use anyhow::Result;

use crate::{
    cgroup::Cgroup,
    command::{bounded, run},
    interceptor,
    janitor::{self, Task},
    machine::{self, Shared},
    netns::Netns,
};

/// The shared lock of the machine, with programs that stay loaded while any test of this process holds it.
pub struct SharedLoaded {
    // Dropped before the lock.
    _pod: Arc<KeptPod>,
    _shared: Shared,
}

/// Captured until it is dropped.
struct KeptPod {
    netns: Netns,
    _cgroup: Cgroup,
}

static POD: Mutex<Weak<KeptPod>> = Mutex::new(Weak::new());

/// Takes the shared lock, and captures the pod unless another test of this process has.
pub fn shared() -> Result<SharedLoaded> {
    let shared = machine::shared()?;
    let mut known = POD.lock().unwrap_or_else(PoisonError::into_inner);
    let pod = match known.upgrade() {
        Some(pod) => pod,
        None => Arc::new(KeptPod::new()?),
    };
    *known = Arc::downgrade(&pod);
    Ok(SharedLoaded {
        _pod: pod,
        _shared: shared,
    })
}

impl KeptPod {
    fn new() -> Result<Self> {
        let cgroup = Cgroup::new()?;
        let netns = Netns::new("kept", Some(&cgroup.child("kept")?))?;
        // A pod requires an address.
        netns.ip("link set lo up\naddr add 10.1.0.2/32 dev lo")?;
        janitor::register(&Task::Detach(netns.path().to_owned()))?;
        let mut attach = bounded(interceptor::binary());
        attach.arg("attach").arg("--netns").arg(netns.path());
        attach.arg("--cgroup").arg(cgroup.path());
        run(&mut attach, "")?;
        Ok(Self {
            netns,
            _cgroup: cgroup,
        })
    }
}

impl Drop for KeptPod {
    fn drop(&mut self) {
        let netns = self.netns.path();
        match interceptor::detach(netns) {
            // The janitor no longer has to detach.
            Ok(()) => drop(janitor::register(&Task::Detached(netns.to_owned()))),
            Err(error) => eprintln!("{error:#}"),
        }
    }
}

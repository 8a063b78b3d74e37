//! The tree in the kernel's file system: mounts, serves and unmounts it.

mod adapter;
mod front;
mod handoff;
mod mount;
mod pace;
mod parked;
mod pool;
mod structures;
mod walk;
mod wire;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use fuser::{Session, SessionACL};

pub(crate) use handoff::DeviceHandoff;
pub(crate) use mount::{Manner, MountError, MountOptions, check, mounted_trees, unmount};

use crate::fs::Tree;
use adapter::Adapter;
use front::Front;

/// The process that mounts and unmounts.
#[derive(Clone, Debug)]
pub(crate) enum By {
    /// This process, with these options.
    Itself(MountOptions),
    /// The mount helper, which has the options.
    Helper(DeviceHandoff),
}

impl By {
    fn mount(&self, mountpoint: &Path) -> Result<OwnedFd, MountError> {
        match self {
            Self::Itself(options) => mount::mount(mountpoint, options),
            Self::Helper(helper) => helper.mount(),
        }
    }

    /// Takes the tree out of the file system, unless it has been unmounted already.
    fn detach(&self, mountpoint: &Path) {
        match self {
            Self::Itself(_) => {
                let _ = unmount(mountpoint, Manner::Detach);
            }
            Self::Helper(helper) => helper.unmount(),
        }
    }
}
/// How long after a change of the tree the kernel may still have the old state cached.
pub(crate) fn settling(tree: &Tree) -> Duration {
    tree.cached_for() + adapter::MARGIN
}

/// A mounted tree that answers.
#[derive(Debug)]
pub(crate) struct Mounted {
    mountpoint: PathBuf,
    by: By,
    front: Front,
    fuser: JoinHandle<io::Result<()>>,
}

impl Mounted {
    /// Mounts `tree` at `mountpoint`, which has been checked, and serves it from threads of its
    /// own. When it is unmounted and no file is open, `over` is called.
    ///
    /// # Errors
    /// [`MountError`]; nothing stays mounted.
    pub(crate) fn new(
        tree: Arc<Tree>,
        mountpoint: &Path,
        by: &By,
        over: impl FnOnce() + Send + 'static,
    ) -> Result<Self, MountError> {
        let device = by.mount(mountpoint)?;
        let serve = || -> io::Result<(Front, Session<Adapter>)> {
            let (front, socket) = Front::start(device, Arc::clone(&tree))?;
            // Waits for the kernel's first message, which the front end passes on.
            let config = fuser::Config::default();
            let session = Session::from_fd(Adapter { tree }, socket, SessionACL::All, config)?;
            Ok((front, session))
        };
        let started = serve().and_then(|(front, session)| {
            let fuser = thread::Builder::new().name("fuser".to_owned()).spawn(|| {
                let result = session.run();
                over();
                result
            })?;
            Ok((front, fuser))
        });
        match started {
            Ok((front, fuser)) => {
                Ok(Self { mountpoint: mountpoint.to_owned(), by: by.clone(), front, fuser })
            }
            Err(error) => {
                // A tree that cannot be served must not stay mounted; the error is reported anyway.
                by.detach(mountpoint);
                Err(MountError::Serve(error))
            }
        }
    }

    /// Takes the tree out of the file system; open files go on until they are closed.
    pub(crate) fn detach(&self) {
        self.by.detach(&self.mountpoint);
    }

    /// True if the kernel has released the tree: unmounted, and no file open.
    pub(crate) fn is_over(&self) -> bool {
        self.fuser.is_finished()
    }

    /// Waits for the threads, after [`Mounted::is_over`], but no longer than `limit`.
    pub(crate) fn join(self, limit: Duration) {
        self.front.join(limit);
        // fuser has ended. It takes a closed socket for an invalid request, which is a clean end.
        let _ = self.fuser.join();
    }

    /// A function that takes the tree out of the file system, for another thread.
    pub(crate) fn detacher(&self) -> impl FnOnce() + Send + 'static {
        let (by, mountpoint) = (self.by.clone(), self.mountpoint.clone());
        move || by.detach(&mountpoint)
    }
}

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
pub(crate) use mount::{MountError, MountOptions, UnmountManner, check, mounted_trees, unmount};

use crate::fs::Tree;
use adapter::Adapter;
use front::Front;

/// The process that mounts and unmounts.
#[derive(Clone, Debug)]
pub(crate) enum TreeMounter {
    /// This process, with these options.
    ThisProcess(MountOptions),
    /// The mount helper, which has the options.
    MountHelper(DeviceHandoff),
}

impl TreeMounter {
    fn mount(&self, mountpoint: &Path) -> Result<OwnedFd, MountError> {
        match self {
            Self::ThisProcess(options) => mount::mount(mountpoint, options),
            Self::MountHelper(helper) => helper.mount(),
        }
    }

    /// Takes the tree out of the file system, unless it has been unmounted already.
    fn detach(&self, mountpoint: &Path) {
        match self {
            Self::ThisProcess(_) => {
                let _ = unmount(mountpoint, UnmountManner::Detach);
            }
            Self::MountHelper(helper) => helper.unmount(),
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
    mounter: TreeMounter,
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
        mounter: &TreeMounter,
        over: impl FnOnce() + Send + 'static,
    ) -> Result<Self, MountError> {
        let device = mounter.mount(mountpoint)?;
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
            Ok((front, fuser)) => Ok(Self {
                mountpoint: mountpoint.to_owned(),
                mounter: mounter.clone(),
                front,
                fuser,
            }),
            Err(error) => {
                // A tree that cannot be served must not stay mounted; the error is reported anyway.
                mounter.detach(mountpoint);
                Err(MountError::Serve(error))
            }
        }
    }

    /// Takes the tree out of the file system; open files go on until they are closed.
    pub(crate) fn detach(&self) {
        self.mounter.detach(&self.mountpoint);
    }

    /// Returns `true` if the kernel has released the tree: unmounted, and no file open.
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
        let (mounter, mountpoint) = (self.mounter.clone(), self.mountpoint.clone());
        move || mounter.detach(&mountpoint)
    }
}

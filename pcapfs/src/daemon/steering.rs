//! Starts the control service of a daemon, or finds out why it has none.

use std::io;
use std::sync::Arc;

use super::DaemonStart;
use super::options::MountArguments;
use crate::config::Config;
use crate::control::{self, ControlService, RemoteAccess, RemoteListener, Socket};
use crate::failure::Failure;
use crate::paths::absolute;
use crate::registry::Registry;

/// How clients control a daemon.
pub(super) enum Steered {
    /// Through this service.
    By(ControlService),
    /// There is no control service; the reason, for people.
    No(String),
}

/// Starts the control service. If its socket cannot be used, the daemon goes on without it, since
/// several daemons may run with the defaults; but it is an error if an option asked for that
/// socket.
pub(super) fn start(
    options: &MountArguments,
    start: &DaemonStart,
    registry: &Arc<Registry>,
) -> Result<Steered, Failure> {
    let configured = start.config.as_ref().and_then(|(_, config)| config.socket.clone());
    let given = options.socket.clone().or(configured);
    let path = match &given {
        Some(path) => absolute(path).map_err(Failure::System)?,
        None => match control::daemon_path(options.handoff.is_some()) {
            Some(path) => path,
            None if start.remote.is_some() => {
                return Err(Failure::Answer(
                    "the service for other machines needs a control socket here (choose a place \
                     with --socket)"
                        .to_owned(),
                ));
            }
            None => {
                return Ok(Steered::No(
                    "no control socket, as XDG_RUNTIME_DIR is not set: pcapfs list, init and the \
                     like do not find this daemon (choose a place with --socket)"
                        .to_owned(),
                ));
            }
        },
    };
    match Socket::bind(&path) {
        Ok(socket) => {
            registry.tree.set_socket(&path);
            let remote = start.remote.clone().map(listen).transpose()?;
            let control = ControlService::start(socket, remote, Arc::clone(registry));
            control.map(Steered::By).map_err(|error| Failure::Control { path, error })
        }
        // Without a socket here, there is no service for other machines either.
        Err(error) if given.is_some() || start.remote.is_some() => Err(Failure::Socket(error)),
        Err(error) => Ok(Steered::No(format!(
            "no control socket: pcapfs list, init and the like do not find this daemon: {error} \
             (with --socket it gets one of its own)"
        ))),
    }
}

/// Reads the certificates of `[remote]`, if the configuration has it.
///
/// # Errors
/// The file that is missing or cannot be used.
pub(super) fn remote_access(config: Option<&Config>) -> Result<Option<Arc<RemoteAccess>>, Failure> {
    let settings = config.and_then(|config| config.remote.as_ref());
    let access = settings.map(RemoteAccess::new).transpose();
    access
        .map(|access| access.map(Arc::new))
        .map_err(|why| Failure::Answer(format!("remote: {why}")))
}

fn listen(access: Arc<RemoteAccess>) -> Result<RemoteListener, Failure> {
    let address = access.listen();
    RemoteListener::bind(access).map_err(|error| {
        let advice = match error.kind() {
            io::ErrorKind::AddrInUse => "another program listens there; choose another port",
            io::ErrorKind::AddrNotAvailable => "this machine does not have this address",
            _ => "choose another address",
        };
        Failure::Answer(format!("remote: {address}: {error} ({advice}: listen in [remote])"))
    })
}

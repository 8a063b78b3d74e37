//! Starts the control service of a daemon, or finds out why it has none.

use std::sync::Arc;

use super::DaemonStart;
use super::options::MountArguments;
use crate::control::{self, ControlService, Socket};
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
            let control = ControlService::start(socket, Arc::clone(registry));
            control.map(Steered::By).map_err(|error| Failure::Control { path, error })
        }
        Err(error) if given.is_some() => Err(Failure::Socket(error)),
        Err(error) => Ok(Steered::No(format!(
            "no control socket: pcapfs list, init and the like do not find this daemon: {error} \
             (with --socket it gets one of its own)"
        ))),
    }
}

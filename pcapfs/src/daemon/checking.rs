//! `pcapfs check-config`.

use std::fs;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use capture::source::{self, SourceName};

use crate::config::{self, Config, RingDir};
use crate::control::RemoteAccess;
use crate::failure::Failure;
use crate::output::{print, say};
use crate::paths::default_ring_dir;
use crate::settings::CaptureSettings;

/// `pcapfs check-config`: reports mistakes in a configuration, and names in it that do not exist
/// now. They may exist later; a daemon waits for interfaces.
pub(crate) fn check_config(path: Option<PathBuf>) -> Result<(), Failure> {
    let path = path.unwrap_or_else(|| config::DEFAULT.into());
    let ring_dir = default_ring_dir();
    let config = Config::load(&path, &CaptureSettings::default(), RingDir::Default(&ring_dir));
    let config = config.map_err(Failure::Config)?;
    for configured in &config.captures {
        if let Some(missing) = missing(&configured.spec.source) {
            say(format_args!("{}:{}: now not there: {missing}", path.display(), configured.line));
        }
    }
    if let Some(Err(why)) = config.remote.as_ref().map(RemoteAccess::new) {
        say(format_args!("{}: now not there: remote: {why}", path.display()));
    }
    let count = config.captures.len();
    let captures = if count == 1 { "capture" } else { "captures" };
    print(&format!("{}: good, {count} {captures}\n", path.display())).map_err(Failure::Output)
}

/// The reason why a source cannot be opened at present, for people.
fn missing(named: &SourceName) -> Option<String> {
    match named {
        SourceName::Interface(name) => source::real_name(name).err().map(|error| error.to_string()),
        SourceName::Several(names) => names
            .iter()
            .find_map(|name| source::real_name(name).err())
            .map(|error| error.to_string()),
        SourceName::Namespaced(place) => place.lack(),
        SourceName::Xdp(_) => {
            let found = source::real_name(&named.interface_name());
            found.err().map(|error| error.to_string())
        }
        SourceName::File(path) | SourceName::Growing(path) => {
            let error = fs::File::open(path).err()?;
            Some(format!("{}: {error}", path.display()))
        }
        SourceName::Stream(path) => match fs::metadata(path) {
            Ok(metadata) if metadata.file_type().is_fifo() => None,
            Ok(_) => Some(format!("{}: not a FIFO", path.display())),
            Err(error) => {
                let path = path.display();
                Some(format!("{path}: {error} (make it with: mkfifo {path})"))
            }
        },
        SourceName::Stdin | SourceName::Tcp(_) | SourceName::TcpListen(_) => None,
        SourceName::External(source) => source.lack(),
    }
}

//! What a test needs of the machine, and how it says that it has not got it.

use std::env;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// Leaves the test, saying why, when the machine lacks something.
///
/// Takes any of `root`, `mount`, and names of tools as strings: `skip_unless!(root, "tcpdump")`.
/// With `PCAPFS_REQUIRE_ALL=1` in the environment the test fails instead.
#[macro_export]
macro_rules! skip_unless {
    ($($need:tt),+ $(,)?) => {
        $(
            if let Err(lack) = $crate::skip_unless!(@ $need) {
                $crate::require::skip(&lack);
                return;
            }
        )+
    };
    (@ root) => { $crate::require::root() };
    (@ mount) => { $crate::require::mount() };
    (@ $tool:literal) => { $crate::require::tool($tool) };
}

/// Says that the running test is skipped for want of `lack`.
///
/// # Panics
/// When `PCAPFS_REQUIRE_ALL` is `1`: then nothing may be skipped.
pub fn skip(lack: &str) {
    assert!(
        env::var_os("PCAPFS_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "PCAPFS_REQUIRE_ALL is set, but this test needs {lack}"
    );
    eprintln!("skipped: needs {lack}");
}

/// Whether this process is root, which network namespaces and interfaces need.
///
/// # Errors
/// What is lacking.
pub fn root() -> Result<(), String> {
    mount()?;
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("root".into()) }
}

/// Whether this process can mount a FUSE file system.
///
/// # Errors
/// What is lacking.
pub fn mount() -> Result<(), String> {
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Err("/dev/fuse".into());
    }
    if nix::unistd::geteuid().is_root() { Ok(()) } else { tool("fusermount3") }
}

/// Whether `name` is an executable in `PATH`.
///
/// # Errors
/// What is lacking.
pub fn tool(name: &str) -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        Ok(())
    } else {
        Err(format!("the tool {name}"))
    }
}

/// A folder or file of other projects' captures, or `None` after saying that the test is skipped.
///
/// They lie beside the project in `../shared/testdata`, or where `PCAPFS_TESTDATA` says. Their
/// absence is no failure even with `PCAPFS_REQUIRE_ALL`.
#[must_use]
pub fn testdata(path: &str) -> Option<PathBuf> {
    let folder = env::var_os("PCAPFS_TESTDATA").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/testdata"),
        PathBuf::from,
    );
    let found = folder.join(path);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: needs {}", found.display());
    None
}

/// A program that makes captures and the truth about them, or `None` after saying that what needs
/// it is skipped.
///
/// They lie beside the project in `../shared/tools`, or where `PCAPFS_TOOLS` says, or beside
/// [`testdata`].
#[must_use]
pub fn generator(name: &str) -> Option<PathBuf> {
    let own = env::var_os("PCAPFS_TOOLS").map(PathBuf::from);
    let beside = env::var_os("PCAPFS_TESTDATA").map(|data| Path::new(&data).join("../tools"));
    let folder = own
        .or(beside)
        .unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/tools"));
    let found = folder.join(name);
    if found.exists() {
        return Some(found);
    }
    eprintln!("skipped: needs {}", found.display());
    None
}

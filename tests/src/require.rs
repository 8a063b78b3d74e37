//! A test's requirements of the machine, and its message if they are not met.

use std::env;
use std::fs::OpenOptions;
use std::path::{Path, PathBuf};

/// Leaves the test with a message if the machine lacks a requirement.
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

/// Prints that the running test is skipped for want of `lack`.
///
/// # Panics
/// If `PCAPFS_REQUIRE_ALL` is `1`: then no test may be skipped.
pub fn skip(lack: &str) {
    assert!(
        env::var_os("PCAPFS_REQUIRE_ALL").is_none_or(|value| value != "1"),
        "PCAPFS_REQUIRE_ALL is set, but this test needs {lack}"
    );
    eprintln!("skipped: needs {lack}");
}

/// Checks that this process is root, which network namespaces and interfaces require.
///
/// # Errors
/// The missing requirement.
pub fn root() -> Result<(), String> {
    mount()?;
    if nix::unistd::geteuid().is_root() { Ok(()) } else { Err("root".into()) }
}

/// Checks that this process can mount a FUSE file system.
///
/// # Errors
/// The missing requirement.
pub fn mount() -> Result<(), String> {
    if OpenOptions::new().read(true).write(true).open("/dev/fuse").is_err() {
        return Err("/dev/fuse".into());
    }
    if nix::unistd::geteuid().is_root() { Ok(()) } else { tool("fusermount3") }
}

/// Checks that `name` is an executable in `PATH`.
///
/// # Errors
/// The missing requirement.
pub fn tool(name: &str) -> Result<(), String> {
    let path = env::var_os("PATH").unwrap_or_default();
    if env::split_paths(&path).any(|folder| folder.join(name).is_file()) {
        Ok(())
    } else {
        Err(format!("the tool {name}"))
    }
}

/// A folder or file of other projects' captures, or `None` after a message that the test is
/// skipped.
///
/// They are beside the project in `../shared/testdata`, or in `$PCAPFS_TESTDATA`. Their absence is
/// no failure even with `PCAPFS_REQUIRE_ALL`.
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

/// A program that makes captures and the truth about them, or `None` after a message that the tests
/// that need it are skipped.
///
/// They are beside the project in `../shared/tools`, or in `$PCAPFS_TOOLS`, or beside [`testdata`].
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

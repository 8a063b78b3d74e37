//! `pcapfs extcap`: whether Wireshark finds pcapfs, and the link through which it does.

use std::env;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::Args;

use super::PREFIX;
use crate::failure::Failure;
use crate::output;

/// The name of the link.
const LINK: &str = "pcapfs";

/// The first version of Wireshark whose personal folder is in `~/.local/lib`.
const LOCAL_SINCE: (u32, u32) = (4, 2);

/// The folders of Wireshark in which programs are looked for.
#[derive(Debug, Args)]
pub(in crate::cli) struct Extcap {
    /// Make the link to this program in your own folder
    #[arg(long)]
    install: bool,

    /// Another folder than Wireshark's own
    #[arg(long, value_name = "DIR", requires = "install")]
    dir: Option<PathBuf>,
}

/// Folders of programs for external captures.
#[derive(Debug, PartialEq, Eq)]
struct ExtcapFolders {
    /// The folder of this user.
    personal: PathBuf,
    /// That of all users.
    global: Option<PathBuf>,
}

/// `pcapfs extcap`.
pub(in crate::cli) fn run(extcap: &Extcap) -> Result<(), Failure> {
    let program = env::current_exe().map_err(Failure::System)?;
    if let Some(folder) = &extcap.dir {
        return install(folder, &program);
    }
    let folders = folders()?;
    if extcap.install {
        return install(&folders.personal, &program);
    }
    let shown = |folder: &Path| {
        let link = folder.join(LINK);
        match fs::read_link(&link) {
            Ok(target) if link.exists() => format!("{} -> {}\n", link.display(), target.display()),
            Ok(target) => {
                format!("{} -> {}, which does not exist\n", link.display(), target.display())
            }
            Err(_) => format!("{}: no link\n", link.display()),
        }
    };
    let places = folders.global.iter().chain([&folders.personal]);
    let text: String = places.map(|folder| shown(folder)).collect();
    output::print(&text).map_err(Failure::Output)
}

/// Makes the link to `program` in `folder`.
fn install(folder: &Path, program: &Path) -> Result<(), Failure> {
    let link = folder.join(LINK);
    let refused =
        |what: &Path, error: io::Error| Failure::Answer(format!("{}: {error}", what.display()));
    // As Wireshark makes its folders.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(folder);
    made.map_err(|error| refused(folder, error))?;
    match fs::symlink_metadata(&link) {
        Ok(found) if !found.is_symlink() => {
            return Err(Failure::Answer(format!(
                "{}: is there and no link (move it away, and try again)",
                link.display()
            )));
        }
        Ok(_) => fs::remove_file(&link).map_err(|error| refused(&link, error))?,
        Err(_) => {}
    }
    symlink(program, &link).map_err(|error| refused(&link, error))?;
    output::print(&format!(
        "{} -> {}\nWireshark lists captures as {PREFIX}NAME when it starts again; tshark -D lists \
         them now.\n",
        link.display(),
        program.display()
    ))
    .map_err(Failure::Output)
}

/// The folders of the installed Wireshark.
fn folders() -> Result<ExtcapFolders, Failure> {
    let output = |program: &str, argument: &[&str]| {
        let output = Command::new(program).args(argument).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let found = output("tshark", &["-G", "folders"]).and_then(|text| listed(&text)).or_else(|| {
        let version = version(&output("wireshark", &["--version"])?)?;
        Some(ExtcapFolders { personal: personal(version)?, global: None })
    });
    found.ok_or_else(|| {
        Failure::Answer(
            "no tshark and no wireshark that name their folders (install Wireshark, or name the \
             folder with: pcapfs extcap --install --dir DIR)"
                .to_owned(),
        )
    })
}

/// The folders in the output of `tshark -G folders`.
fn listed(text: &str) -> Option<ExtcapFolders> {
    let folder = |name: &str| {
        let lines = text.lines().filter_map(|line| line.split_once(':'));
        let mut named = lines.filter(|(found, _)| *found == name);
        named.next().map(|(_, path)| PathBuf::from(path.trim()))
    };
    // Versions before 4.2 name only that of all users.
    let before = || Some(folder("Personal configuration")?.join("extcap"));
    Some(ExtcapFolders {
        personal: folder("Personal Extcap path").or_else(before)?,
        global: folder("Global Extcap path").or_else(|| folder("Extcap path")),
    })
}

/// The version in the output of `wireshark --version`.
fn version(text: &str) -> Option<(u32, u32)> {
    text.lines().next()?.split_whitespace().find_map(|word| {
        let (major, rest) = word.split_once('.')?;
        let minor = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    })
}

/// The personal folder of a version of Wireshark (release notes of 4.2).
fn personal(version: (u32, u32)) -> Option<PathBuf> {
    let home = || env::var_os("HOME").map(PathBuf::from);
    if version >= LOCAL_SINCE {
        return Some(home()?.join(".local/lib/wireshark/extcap"));
    }
    let configuration = env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let configuration = configuration.filter(|path| path.is_absolute());
    Some(configuration.or_else(|| Some(home()?.join(".config")))?.join("wireshark/extcap"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_old_and_new_versions_are_found() {
        let old = "Temp:\t/tmp\nPersonal configuration:\t/home/a/.config/wireshark\n\
                   Extcap path:         \t/usr/lib/x86_64-linux-gnu/wireshark/extcap\n";
        let folders = listed(old).unwrap();
        assert_eq!(folders.personal, Path::new("/home/a/.config/wireshark/extcap"));
        assert_eq!(
            folders.global.unwrap(),
            Path::new("/usr/lib/x86_64-linux-gnu/wireshark/extcap")
        );
        let new = "Personal configuration:\t/home/a/.config/wireshark\n\
                   Personal Extcap path:\t/home/a/.local/lib/wireshark/extcap\n\
                   Global Extcap path:\t/usr/libexec/wireshark/extcap\n";
        let folders = listed(new).unwrap();
        assert_eq!(folders.personal, Path::new("/home/a/.local/lib/wireshark/extcap"));
        assert_eq!(folders.global.unwrap(), Path::new("/usr/libexec/wireshark/extcap"));
        assert_eq!(listed("nothing of the kind"), None);
    }

    #[test]
    fn versions_are_found() {
        assert_eq!(version("Wireshark 4.0.17 (Git v4.0.17 packaged as 4.0.17-0)."), Some((4, 0)));
        assert_eq!(version("Wireshark 4.6.0rc1.\nmore"), Some((4, 6)));
        assert_eq!(version(""), None);
    }
}

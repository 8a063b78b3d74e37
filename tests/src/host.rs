//! A machine with pcapfs installed, as far as mount(8) can see: a mount namespace with the helper
//! in `/sbin`, a user `pcapfs`, and a `/etc/fstab` of its own.
//!
//! Nothing of it is outside the namespace: the user is a line in a file that is bound over
//! `/etc/passwd`, and the mounts go away with the namespace.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

use crate::daemon::binary;
use crate::process::{Finished, Running, run, tool};
use crate::wait::wait_until;

/// Makes the namespace: a folder of its own, the helper, the program.
const SCRIPT: &str = "
set -e
mkdir \"$1/sbin\"
mount --bind /usr/sbin \"$1/sbin\"
mount -t tmpfs -o mode=755 pcapfs-test /usr/sbin
for program in \"$1\"/sbin/*; do
    name=${program##*/}
    case $name in mount.pcapfs | mount.fuse.pcapfs | pcapfs) ;; *) ln -s \"$program\" \"/usr/sbin/$name\" ;; esac
done
touch /usr/sbin/mount.pcapfs /usr/sbin/pcapfs
mount --bind \"$2\" /usr/sbin/mount.pcapfs
mount --bind \"$3\" /usr/sbin/pcapfs
ln -s mount.pcapfs /usr/sbin/mount.fuse.pcapfs
for file in passwd group fstab; do
    mount --bind \"$1/$file\" \"/etc/$file\"
done
# A machine of its own has places of its own for what runs and what stays.
mount -t tmpfs -o mode=755 pcapfs-test /run
mount -t tmpfs -o mode=755 pcapfs-test /var/lib
mkdir \"$1/shm\"
mount --bind \"$4\" \"$1/shm\"
mount -t tmpfs -o mode=1777 pcapfs-test /dev/shm
mkdir \"$4\"
mount --bind \"$1/shm\" \"$4\"
echo made
exec sleep 600
";

/// The machine. Dropping it kills the processes that run on it.
#[derive(Debug)]
pub struct Host {
    namespace: Running,
    folder: TempDir,
    rings: TempDir,
}

impl Host {
    /// User and group id of `pcapfs`.
    pub const USER: u32 = 54_401;
    /// Its group.
    pub const GROUP: u32 = 54_402;
    /// Another group of the user.
    pub const FURTHER_GROUP: u32 = 54_403;

    /// A machine with the user.
    #[must_use]
    pub fn new() -> Self {
        Self::with_user(true)
    }

    /// A machine on which the user may be missing.
    #[must_use]
    pub fn with_user(user: bool) -> Self {
        let temporary = |parent: &Path| {
            let folder = tempfile::Builder::new().prefix("pcapfs-test-").tempdir_in(parent);
            let folder = folder.expect("a folder for the test can be made");
            fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("our own");
            folder
        };
        let folder = temporary(&std::env::temp_dir());
        let rings = temporary(Path::new("/dev/shm"));
        let lines = |file: &str, own: &str| {
            let text = fs::read_to_string(Path::new("/etc").join(file)).unwrap_or_default();
            let others = text.lines().filter(|line| !line.starts_with("pcapfs:"));
            let mut text: String = others.flat_map(|line| [line, "\n"]).collect();
            if user {
                text.push_str(own);
            }
            fs::write(folder.path().join(file), text).expect("our own folder");
        };
        let (uid, gid, further) = (Self::USER, Self::GROUP, Self::FURTHER_GROUP);
        lines("passwd", &format!("pcapfs:x:{uid}:{gid}::/nonexistent:/usr/sbin/nologin\n"));
        lines("group", &format!("pcapfs:x:{gid}:\npcapfs-more:x:{further}:pcapfs\n"));
        fs::write(folder.path().join("fstab"), "").expect("our own folder");
        for name in ["captures", "other"] {
            fs::create_dir(folder.path().join(name)).expect("our own folder");
        }
        let namespace = Running::spawn(
            tool("unshare")
                .args(["--mount", "--propagation", "private", "sh", "-c", SCRIPT, "sh"])
                .args([folder.path(), &binary("mount-pcapfs"), &binary("pcapfs"), rings.path()]),
        );
        wait_until("the namespace is made", 10, || {
            assert!(namespace.stderr().is_empty(), "{}", namespace.stderr());
            namespace.stdout() == b"made\n"
        });
        Self { namespace, folder, rings }
    }

    /// Path of a file in the machine's own folder, as seen inside.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The mount point of captures, as seen inside.
    #[must_use]
    pub fn captures(&self) -> PathBuf {
        self.path("captures")
    }

    /// Path of a file in the tree, such as `web/live.pcap`, as this process can open it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        let inside = self.captures().join(name);
        let inside = inside.strip_prefix("/").expect("absolute");
        Path::new(&format!("/proc/{}/root", self.namespace.pid())).join(inside)
    }

    /// A directory for rings that does not exist yet.
    #[must_use]
    pub fn rings(&self) -> PathBuf {
        self.rings.path().join("rings")
    }

    /// `ring_dir=` for `-o`.
    #[must_use]
    pub fn ring_option(&self) -> String {
        format!("ring_dir={}", self.rings().display())
    }

    /// Any path of the machine, as this process can open it.
    #[must_use]
    pub fn inside(&self, path: &str) -> PathBuf {
        let inside = path.strip_prefix('/').expect("absolute");
        Path::new(&format!("/proc/{}/root", self.namespace.pid())).join(inside)
    }

    /// A command that runs inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = tool("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.namespace.pid())).arg(program);
        command
    }

    /// `mount -t pcapfs SPEC captures -o OPTIONS,ring_dir=...`, run to its end.
    #[track_caller]
    pub fn mount(&self, spec: &str, options: &str) -> Finished {
        let options = format!("{options},{}", self.ring_option());
        let mut command = self.command("mount");
        command.args(["-t", "pcapfs", spec]).arg(self.captures()).args(["-o", &options]);
        run(&mut command, 15)
    }

    /// `umount captures`, run to its end.
    #[track_caller]
    pub fn umount(&self) -> Finished {
        run(self.command("umount").arg(self.captures()), 5)
    }

    /// The line of `/proc/mounts` for the tree.
    #[must_use]
    pub fn mount_entry(&self) -> Option<String> {
        let table =
            fs::read(format!("/proc/{}/mounts", self.namespace.pid())).expect("it is there");
        let table = String::from_utf8_lossy(&table);
        let place = self.captures();
        let mut lines = table.lines();
        lines.find(|line| line.split(' ').nth(1) == place.to_str()).map(str::to_owned)
    }

    /// Processes inside by their program's name, except the one that holds the namespace.
    #[must_use]
    pub fn processes(&self, name: &str) -> Vec<Pid> {
        let all = self.all_processes().into_iter();
        all.filter(|(_, found)| found == name).map(|(pid, _)| pid).collect()
    }

    fn all_processes(&self) -> Vec<(Pid, String)> {
        let holder = self.namespace.pid();
        let namespace = |pid: Pid| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let own = namespace(holder);
        let entries = fs::read_dir("/proc").expect("/proc is mounted").flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        pids.map(Pid::from_raw)
            .filter(|pid| *pid != holder && own.is_some() && namespace(*pid) == own)
            .filter_map(|pid| {
                // A process that has ended has no program.
                let words = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
                let program = String::from_utf8_lossy(words.split(|byte| *byte == 0).next()?);
                let name = program.rsplit('/').next()?.to_owned();
                (!name.is_empty()).then_some((pid, name))
            })
            .collect()
    }

    /// The daemon, if one runs.
    ///
    /// # Panics
    /// If there are two.
    #[must_use]
    #[track_caller]
    pub fn daemon(&self) -> Option<Pid> {
        let found = self.processes("pcapfs");
        assert!(found.len() <= 1, "daemons {found:?}");
        found.first().copied()
    }

    /// The supervisor, if one runs.
    ///
    /// # Panics
    /// If there are two.
    #[must_use]
    #[track_caller]
    pub fn supervisor(&self) -> Option<Pid> {
        let found = self.processes("mount.pcapfs");
        assert!(found.len() <= 1, "supervisors {found:?}");
        found.first().copied()
    }

    /// The `status.json` of a capture, or of the daemon with an empty alias; `None` if no daemon
    /// answers.
    #[must_use]
    pub fn try_status(&self, alias: &str) -> Option<Value> {
        let text = fs::read(self.file(alias).join("status.json")).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// A whole number from a capture's status.
    #[must_use]
    #[track_caller]
    pub fn count(&self, alias: &str, pointer: &str) -> u64 {
        let status = self.try_status(alias).expect("the tree answers");
        status.pointer(pointer).and_then(Value::as_u64).expect("a whole number")
    }

    /// Waits until no process runs inside any more and no tree is mounted.
    #[track_caller]
    pub fn wait_gone(&self) {
        wait_until("daemon and supervisor have ended", 10, || {
            self.processes("pcapfs").is_empty() && self.processes("mount.pcapfs").is_empty()
        });
        assert_eq!(self.mount_entry(), None, "still mounted");
    }
}

impl Default for Host {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // Supervisors first; otherwise they would start the killed daemons again.
        for name in ["mount.pcapfs", "pcapfs"] {
            for pid in self.processes(name) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        }
        for (pid, _) in self.all_processes() {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

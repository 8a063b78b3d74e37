//! The memory this process can have: the machine's, or the limit of its control group.
//!
//! A process of a control group that exceeds its limit is killed, and the packets that come before
//! the next start are lost. So our limits follow the group's limit, and flows are dropped when
//! little memory is left.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The time between two checks of the memory left, for all engines together.
const INTERVAL: Duration = Duration::from_millis(100);

/// Parts of a group's limit that count as little memory and as almost none. With less than the
/// first left, flows take no more memory; with less than the second left, they give up theirs, bit
/// by bit. Not all freed memory returns to the system, and the kernel uses some for the daemon, so
/// both are far from the limit.
const OF_GROUP: (u64, u64) = (4, 8);

/// The same two parts for a whole machine, where other programs release memory as well.
const OF_MACHINE: (u64, u64) = (16, 32);

/// Bytes of memory that this process can have in total.
pub(super) fn all() -> u64 {
    static ALL: OnceLock<Machine> = OnceLock::new();
    ALL.get_or_init(|| Machine::find(Path::new("/"))).all
}

/// How the memory that is left compares with all there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemoryLeft {
    Enough,
    Little,
    AlmostNothing,
}

/// The memory left now, or a moment ago.
pub(super) fn left() -> MemoryLeft {
    static LAST: Mutex<Option<(Instant, Machine, MemoryLeft)>> = Mutex::new(None);
    let mut last = LAST.lock();
    match &mut *last {
        Some((at, machine, left)) => {
            if at.elapsed() >= INTERVAL {
                *left = machine.left(Path::new("/"));
                *at = Instant::now();
            }
            *left
        }
        None => {
            let machine = Machine::find(Path::new("/"));
            let left = machine.left(Path::new("/"));
            *last = Some((Instant::now(), machine, left));
            left
        }
    }
}

/// A limit on memory that is lowered while little is left.
#[derive(Debug, Default)]
pub(super) struct MemoryBackoff {
    /// Bytes; `None` while there is enough.
    most: Option<usize>,
    asked: Option<Instant>,
}

impl MemoryBackoff {
    /// Maximum bytes for flows that now use `used` bytes; never more than `limit`.
    pub(super) fn limit(&mut self, limit: usize, used: usize) -> usize {
        if self.asked.is_none_or(|asked| asked.elapsed() >= INTERVAL) {
            self.asked = Some(Instant::now());
            self.look(left(), used);
        }
        self.most.map_or(limit, |most| most.min(limit))
    }

    fn look(&mut self, left: MemoryLeft, used: usize) {
        let most = self.most.map_or(used, |most| most.min(used));
        self.most = match left {
            MemoryLeft::Enough => None,
            MemoryLeft::Little => Some(self.most.unwrap_or(used)),
            MemoryLeft::AlmostNothing => Some(most.saturating_sub(most / 64)),
        };
    }
}

/// The limit on the memory of this process.
#[derive(Debug)]
struct Machine {
    /// Bytes.
    all: u64,
    /// The control group with the lowest limit, if that is lower than the machine's memory.
    group: Option<PathBuf>,
}

impl Machine {
    /// Finds the limit below `root`, which is `/`.
    fn find(root: &Path) -> Self {
        let machine = meminfo(root, "MemTotal:").unwrap_or(u64::MAX);
        let mut found = Self { all: machine, group: None };
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        for line in groups.lines() {
            let mut fields = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
            let (mounts, file) = if controllers.is_empty() {
                (&["sys/fs/cgroup", "sys/fs/cgroup/unified"][..], "memory.max")
            } else if controllers.split(',').any(|one| one == "memory") {
                (&["sys/fs/cgroup/memory"][..], "memory.limit_in_bytes")
            } else {
                continue;
            };
            for mount in mounts {
                found.look_at(&root.join(mount), Path::new(path), file);
            }
        }
        found
    }

    /// Looks at a group and at the groups that contain it: the limit of each of them counts.
    fn look_at(&mut self, mount: &Path, path: &Path, file: &str) {
        // Inside a container the path may be the one outside; the container's own group is then the
        // root.
        for ancestor in path.ancestors() {
            let Ok(inside) = ancestor.strip_prefix("/") else { continue };
            let group = mount.join(inside);
            // "max" is not a number, and means no limit.
            let limit = fs::read_to_string(group.join(file)).ok();
            let limit = limit.and_then(|text| text.trim().parse::<u64>().ok());
            if let Some(limit) = limit.filter(|limit| *limit < self.all) {
                self.all = limit;
                self.group = Some(group);
            }
        }
    }

    fn left(&self, root: &Path) -> MemoryLeft {
        let (free, (little, nothing)) = match &self.group {
            Some(group) => (taken(group).map(|taken| self.all.saturating_sub(taken)), OF_GROUP),
            None => (meminfo(root, "MemAvailable:"), OF_MACHINE),
        };
        match free {
            Some(free) if free < self.all / nothing => MemoryLeft::AlmostNothing,
            Some(free) if free < self.all / little => MemoryLeft::Little,
            _ => MemoryLeft::Enough,
        }
    }
}

/// Bytes that a group uses and cannot give back: all but pages of files.
fn taken(group: &Path) -> Option<u64> {
    let read = |name: &str| fs::read_to_string(group.join(name)).ok();
    // The second name is from the older hierarchy, whose `total_` values include the groups below.
    let usage = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
    let text = read("memory.stat")?;
    let value = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse::<u64>().ok()
    };
    let files = ["inactive_file", "active_file"]
        .iter()
        .filter_map(|name| value(&format!("total_{name}")).or_else(|| value(name)));
    Some(usage.trim().parse::<u64>().ok()?.saturating_sub(files.fold(0, u64::saturating_add)))
}

/// Bytes of a line of proc_meminfo(5).
fn meminfo(root: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    /// A machine of 1,000 MiB with 500 left, and these files.
    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        let meminfo = "MemTotal:        1024000 kB\nMemFree: 1 kB\nMemAvailable:     512000 kB\n";
        for (path, text) in files.iter().copied().chain([("proc/meminfo", meminfo)]) {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn found(files: &[(&str, &str)]) -> (u64, MemoryLeft) {
        let root = machine(files);
        let machine = Machine::find(root.path());
        (machine.all >> 20, machine.left(root.path()))
    }

    #[test]
    fn the_least_of_all_limits_counts() {
        assert_eq!(found(&[]), (1_000, MemoryLeft::Enough));
        let groups = ("proc/self/cgroup", "0::/a.slice/b.service\n");
        let unlimited = ("sys/fs/cgroup/a.slice/b.service/memory.max", "max\n");
        assert_eq!(found(&[groups, unlimited]), (1_000, MemoryLeft::Enough));
        let outer = ("sys/fs/cgroup/a.slice/memory.max", "209715200\n");
        assert_eq!(
            found(&[groups, unlimited, outer]),
            (200, MemoryLeft::Enough),
            "no use is known"
        );
        let stat = ("sys/fs/cgroup/a.slice/memory.stat", "anon 1\nactive_file 10485760\n");
        for (current, left) in
            [(150, MemoryLeft::Enough), (165, MemoryLeft::Little), (190, MemoryLeft::AlmostNothing)]
        {
            let current = format!("{}\n", current << 20);
            let current = ("sys/fs/cgroup/a.slice/memory.current", current.as_str());
            let found = found(&[groups, unlimited, outer, stat, current]);
            assert_eq!(found, (200, left), "{current:?}");
        }
    }

    #[test]
    fn an_older_hierarchy_and_a_container_are_understood() {
        let groups = "5:cpu,cpuacct:/x\n4:memory:/attack\n0::/\n";
        let groups = ("proc/self/cgroup", groups);
        let limit = ("sys/fs/cgroup/memory/attack/memory.limit_in_bytes", "209715200\n");
        let none = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
        let stat = "inactive_file 1\ntotal_inactive_file 10485760\ntotal_active_file 1048576\n";
        let stat = ("sys/fs/cgroup/memory/attack/memory.stat", stat);
        let usage = ("sys/fs/cgroup/memory/attack/memory.usage_in_bytes", "199229440\n");
        assert_eq!(found(&[groups, limit, none, stat, usage]), (200, MemoryLeft::AlmostNothing));
        // The path is the one outside of the container, whose group is mounted as the root.
        let inside = ("sys/fs/cgroup/memory/memory.limit_in_bytes", "104857600\n");
        assert_eq!(found(&[groups, inside]), (100, MemoryLeft::Enough));
    }

    #[test]
    fn while_little_is_left_flows_take_no_more() {
        let mut backoff = MemoryBackoff::default();
        let mut look = |left, used| {
            backoff.look(left, used);
            backoff.most
        };
        assert_eq!(look(MemoryLeft::Enough, 1_000), None);
        assert_eq!(look(MemoryLeft::Little, 6_400), Some(6_400));
        assert_eq!(look(MemoryLeft::Little, 9_000), Some(6_400), "not by what it has taken since");
        assert_eq!(look(MemoryLeft::AlmostNothing, 6_400), Some(6_300));
        assert_eq!(look(MemoryLeft::AlmostNothing, 640), Some(630));
        assert_eq!(look(MemoryLeft::Little, 630), Some(630));
        assert_eq!(look(MemoryLeft::Enough, 630), None);
    }
}

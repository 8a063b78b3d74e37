//! Captures of other projects.

use std::fs;
use std::path::{Path, PathBuf};

use pcapfs_tests::require::testdata;
use pcapfs_tests::{Finished, Mount, run, skip_unless, tool};

/// Adds the savefiles below a folder that are smaller than 4 MB, in order.
fn savefiles(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(Result::unwrap).collect();
    entries.sort_by_key(fs::DirEntry::path);
    for entry in entries {
        let path = entry.path();
        if path.is_dir() {
            savefiles(&path, found);
        } else if path.extension().is_some_and(|end| end == "pcap" || end == "pcapng")
            && (1..4_000_000).contains(&entry.metadata().unwrap().len())
        {
            found.push(path);
        }
    }
}

/// tcpdump's output for a savefile: every packet's time in nanoseconds, its lengths and its bytes.
fn dumped(path: &Path) -> Finished {
    run(
        tool("tcpdump")
            .args(["--time-stamp-precision=nano", "-nn", "-tt", "-e", "-xx", "-r"])
            .arg(path),
        20,
    )
}

#[test]
fn captures_of_other_projects_read_the_same() {
    skip_unless!(mount, "tcpdump", "capinfos");
    let Some(folder) = testdata("") else { return };
    let mut sample = Vec::new();
    for entry in fs::read_dir(&folder).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
        let mut found = Vec::new();
        savefiles(&entry.path(), &mut found);
        let every = found.len().div_ceil(8).max(1);
        let special = |path: &PathBuf| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.contains("nanosec") || name.contains("bigendian") || name.contains("sll2")
        };
        sample.extend(found.iter().filter(|path| special(path)).cloned());
        sample.extend(found.into_iter().step_by(every).filter(|path| !special(path)));
    }
    // Some are broken on purpose. The test looks at all that libpcap opens.
    let sample: Vec<(PathBuf, Finished)> = sample
        .into_iter()
        .map(|path| (path.clone(), dumped(&path)))
        .filter(|(_, dump)| dump.stderr.contains("reading from file"))
        .collect();
    assert!(sample.len() >= 30, "only {} savefiles", sample.len());

    let mut mount = Mount::new();
    for (index, (path, _)) in sample.iter().enumerate() {
        mount = mount.capture(&format!("s{index}"), &format!("file:{}", path.display()));
    }
    let daemon = mount.start();
    let mut wrong = Vec::new();
    for (index, (path, original)) in sample.iter().enumerate() {
        let alias = format!("s{index}");
        daemon.wait_state(&alias, "ended");
        let served = dumped(&daemon.path(&alias).join("replay.pcap"));
        if served.stdout != original.stdout {
            wrong.push(format!(
                "{}: tcpdump prints {} lines, of the file itself {}; {} / {}",
                path.display(),
                served.text().lines().count(),
                original.text().lines().count(),
                served.stderr,
                original.stderr,
            ));
        }
        if original.status.success() {
            let counted = run(tool("capinfos").args(["-T", "-r", "-c", "-M"]).arg(path), 20);
            let count = counted.text().trim().rsplit('\t').next().unwrap_or("").to_owned();
            let stored = daemon.count(&alias, "/packets/stored").to_string();
            if count != stored {
                wrong.push(format!("{}: {stored} packets, not {count}", path.display()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), sample.len(), wrong.join("\n"));
}

/// The lines of a dump. Times that no record can hold (32 bits of seconds) are replaced by one
/// word, since one of these captures has packets of the year 586524.
fn sensible(dump: &Finished) -> Vec<String> {
    let line = |line: &str| {
        let (time, rest) = line.split_once('\t').expect("several fields");
        let seconds: u64 = time.split('.').next().unwrap().parse().expect("seconds");
        let time = if seconds >= u64::from(u32::MAX) { "never" } else { time };
        format!("{time} {rest}")
    };
    dump.text().lines().map(line).collect()
}

#[test]
fn pcapng_of_other_projects_reads_the_same() {
    skip_unless!(mount, "tshark");
    let Some(folder) = testdata("") else { return };
    let mut found = Vec::new();
    savefiles(&folder, &mut found);
    // By content, since some files with this name are pcap.
    found.retain(|path| fs::read(path).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]));
    let tshark = |path: &Path| {
        let fields = ["frame.time_epoch", "frame.len", "frame.cap_len", "frame.interface_name"];
        let mut command = tool("tshark");
        command.args(["-n", "-T", "fields"]).args(fields.iter().flat_map(|name| ["-e", *name]));
        run(command.args(["--disable-protocol", "ip", "-r"]).arg(path), 20)
    };
    let mut mount = Mount::new();
    for (index, path) in found.iter().take(8).enumerate() {
        mount = mount.capture(&format!("s{index}"), &format!("file:{}", path.display()));
    }
    let daemon = mount.start();
    let mut wrong = Vec::new();
    for (index, path) in found.iter().take(8).enumerate() {
        let alias = format!("s{index}");
        daemon.wait_state(&alias, "ended");
        let original = tshark(path);
        let served = tshark(&daemon.path(&alias).join("replay.pcapng"));
        assert!(!original.stdout.is_empty(), "{}: {}", path.display(), original.stderr);
        if sensible(&served) != sensible(&original) {
            let [served, original] = [&served, &original].map(|dump| dump.text().lines().count());
            wrong.push(format!("{}: {served} of {original} packets", path.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

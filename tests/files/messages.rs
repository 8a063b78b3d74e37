//! Error messages: each says what was wrong, with which argument, and how to fix it.

use std::fs::{self, File};

use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{ALIAS, Filed, Mount, binary, run, skip_unless, tool};
use tempfile::TempDir;

/// The one line that `pcapfs` prints when it ends with this exit code.
#[track_caller]
fn said(words: &[&str], code: i32) -> String {
    let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
    let finished = run(pcapfs.args(words).env("PCAPFS_SOCKET", "/nonexist/socket"), 10);
    assert_eq!(finished.status.code(), Some(code), "{finished:?}");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
    let line = finished.stderr.trim_end().strip_prefix("pcapfs: ").map(str::to_owned);
    line.unwrap_or_else(|| panic!("does not begin with the program's name: {}", finished.stderr))
}

/// Common mistakes: the command line, the exit code, and parts of the message. `DIR` is a directory
/// with a savefile `x.pcap` and a configuration `one-bracket.toml`.
const MISTAKES: [(&str, i32, &[&str]); 43] = [
    // Numbers and sizes.
    ("mount DIR -i lo --max-flows -1", 2, &["'-1'", "--max-flows", "from 1 to"]),
    ("mount DIR -i lo --max-flows x", 2, &["'x' is no number from 1 to 4294967295"]),
    ("mount DIR -i lo --snaplen -5", 2, &["'-5' is no number from 1 to 262144"]),
    ("mount DIR -i lo --ring 99999999999T", 2, &["99999999999T", "too large"]),
    ("mount DIR -i lo --mode 999", 2, &["'999' are no permission bits", "0750"]),
    // Missing quotes and wrong order.
    ("mount DIR -i eth0 tcp port 80", 2, &["'tcp'", "-f 'tcp port 80'", "pcapfs mount --help"]),
    ("mount DIR -c web=eth0 tcp port 80 --ring 1M", 2, &["'tcp'", "-c ALIAS='SOURCE tcp port 80'"]),
    (
        "mount eth0 /captures",
        2,
        &["'/captures'", "mount point comes first", "mount /captures -i eth0"],
    ),
    ("mount DIR -i eth0 -i eth1", 2, &["--interface", "multiple times", "-c lan=eth0 -c wan="]),
    ("mount DIR -c web", 2, &["-c web: write it as ALIAS='SOURCE [FILTER]'"]),
    // Misspelled words.
    ("mont DIR -i lo", 2, &["'mont'", "did you mean 'mount'?"]),
    ("mount DIR -i lo --backgroud", 2, &["'--backgroud'", "did you mean '--background'?"]),
    ("mount DIR -i lo --overlap firts", 2, &["'firts'", "did you mean 'first'?"]),
    ("replay web --formt pcapng", 2, &["'--formt'", "did you mean '--format'?", "replay --help"]),
    ("replay web --format pcapn", 2, &["'pcapn'", "did you mean 'pcapng'?"]),
    ("replay web --format pcap --pcapng", 2, &["--format", "--pcapng", "cannot be used with"]),
    ("", 2, &["no command (try: pcapfs --help)"]),
    ("umount", 2, &["MOUNTPOINT", "pcapfs umount --help"]),
    // Sources that do not exist or are of another kind.
    ("mount DIR -i DIR/x.pcap", 1, &["no such interface", "a savefile is written file:DIR/x.pcap"]),
    (
        "mount DIR -c x=DIR/x.pcap",
        1,
        &["no such interface", "file:DIR/x.pcap", "stream:DIR/x.pcap"],
    ),
    ("mount DIR -i nosuch0", 1, &["nosuch0: no such interface (have: lo"]),
    ("mount DIR -c far=ssh:host", 1, &["'ssh:' is no kind of source", "file:PATH, stream:PATH"]),
    ("mount DIR -c far=pipe:/x", 1, &["'pipe:' is no kind of source"]),
    ("mount DIR -c far=stream:DIR/fifo", 1, &["DIR/fifo: no such FIFO", "mkfifo DIR/fifo"]),
    ("mount DIR -c far=stream:DIR/x.pcap", 1, &["not a FIFO", "file:DIR/x.pcap"]),
    ("mount DIR -r DIR/none.pcap", 1, &["DIR/none.pcap: no such file"]),
    ("mount DIR -r DIR/x.pcap,folow", 1, &["x.pcap,folow: no such file", "DIR/x.pcap,follow)"]),
    ("mount DIR -r DIR", 1, &["not a regular file but a directory"]),
    ("mount DIR/none -r DIR/x.pcap", 1, &["DIR/none: no such directory", "mkdir -p DIR/none"]),
    (
        "mount DIR -r DIR/x.pcap -o alais=web",
        2,
        &["-o alais=web", "no such mount option (have: ro"],
    ),
    ("init file:/x.pcap", 2, &["file:/x.pcap: not an interface", "pcapfs mount"]),
    ("init far:eth0", 1, &["far: no such remote (have: ", "pcapfs remote add"]),
    // Configurations.
    ("mount DIR --config /nonexist", 1, &["/nonexist: the configuration", "pcapfs.toml(5)"]),
    ("check-config /nonexist", 1, &["/nonexist: the config", "pcapfs.toml(5)"]),
    (
        "check-config DIR/one-bracket.toml",
        1,
        &["one-bracket.toml:1: a capture begins with [[capture]]"],
    ),
    // Output paths, mount points and sockets.
    (
        "replay w -w /nonexist/x",
        1,
        &["/nonexist/x: no such directory: /nonexist (make it with: mkdir -p /nonexist)"],
    ),
    ("replay w -w DIR", 1, &["DIR: is a directory"]),
    ("umount /", 1, &["/: what is mounted there is no pcapfs", "umount /"]),
    ("unmount DIR", 1, &["DIR: nothing is mounted there"]),
    ("list", 1, &["/nonexist/socket: no pcapfs listens there", "pcapfs mount", "--socket"]),
    ("forget web --state DIR/none", 1, &["web: nothing is kept of it in DIR/none"]),
    ("completions tcsh", 2, &["'tcsh'", "bash"]),
    ("interfaces --jsn", 2, &["'--jsn'", "did you mean '--json'?"]),
];

#[test]
fn mistakes_are_reported_with_a_remedy() {
    skip_unless!(root);
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    fs::write(folder.path().join("x.pcap"), savefile_of([])).unwrap();
    fs::write(folder.path().join("one-bracket.toml"), "[capture]\nsource = \"lo\"\n").unwrap();
    for (typed, code, parts) in MISTAKES {
        // Blanks separate arguments; no argument in the list contains one.
        let words: Vec<String> =
            typed.split_whitespace().map(|word| word.replace("DIR", place)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let line = said(&words, code);
        for part in parts {
            let part = part.replace("DIR", place);
            assert!(line.contains(&part), "{typed}: {part:?} is not in {line:?}");
        }
        for bad in ["os error", "invalid digit", "invalid type"] {
            assert!(!line.contains(bad), "{typed}: {line}");
        }
    }
}

#[test]
fn a_container_that_may_not_mount_learns_what_it_lacks() {
    skip_unless!(root, "setpriv");
    let folder = TempDir::new().unwrap();
    let savefile = folder.path().join("x.pcap");
    fs::write(&savefile, savefile_of([])).unwrap();
    fs::create_dir(folder.path().join("mount")).unwrap();
    let mut mount = tool("setpriv");
    mount.arg("--bounding-set=-sys_admin").arg(binary("pcapfs")).arg("mount");
    mount.arg(folder.path().join("mount")).arg("-r").arg(&savefile);
    let finished = run(mount.env("PCAPFS_SOCKET", folder.path().join("socket")), 10);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    for part in ["mounting takes CAP_SYS_ADMIN", "--cap-add SYS_ADMIN --device /dev/fuse"] {
        assert!(finished.stderr.contains(part), "{part:?} is not in {:?}", finished.stderr);
    }
}

#[test]
fn list_of_several_has_those_that_are_there() {
    skip_unless!(mount);
    let filed = Filed::new(&savefile_of([]));
    let finished = run(&mut filed.daemon.command(["list", "none", ALIAS, "nobody"]), 10);
    assert_eq!(finished.status.code(), Some(1), "{finished:?}");
    let rows: Vec<&str> = finished.text().lines().collect();
    assert!(rows.len() == 2 && rows[1].contains(ALIAS), "{rows:?}");
    let said: Vec<&str> = finished.stderr.lines().collect();
    assert_eq!(said.len(), 2, "{said:?}");
    for (line, name) in said.iter().zip(["none", "nobody"]) {
        assert!(line.starts_with(&format!("pcapfs: {name}: no such capture")), "{said:?}");
    }
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    skip_unless!(mount);
    let filed = Filed::with(Mount::new(), &savefile_of([]));
    let mut replay = filed.daemon.command(["replay", ALIAS]);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let finished = replay.stdout(full).output().unwrap();
    let stderr = String::from_utf8(finished.stderr).unwrap();
    assert_eq!(stderr, "pcapfs: standard output: No space left on device\n");
    assert_eq!(finished.status.code(), Some(1));
}

#[test]
fn a_valid_configuration_may_name_absent_sources() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("f.toml");
    let text = "[[capture]]\nsource = \"nosuch0\"\n\n[[capture]]\nsource = \"file:/none.pcap\"\n\
                [[capture]]\nsource = \"stream:/nofifo\"\n[[capture]]\nsource = \"lo\"\n";
    fs::write(&path, text).unwrap();
    let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
    let finished = run(pcapfs.arg("check-config").arg(&path), 5).success();
    let place = path.display();
    assert_eq!(finished.text(), format!("{place}: good, 4 captures\n"));
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let expected = [
        format!("pcapfs: {place}:1: now not there: nosuch0: no such interface (have: lo"),
        format!("pcapfs: {place}:4: now not there: /none.pcap: No such file or directory"),
        format!(
            "pcapfs: {place}:6: now not there: /nofifo: No such file or directory (make it with: mkfifo /nofifo)"
        ),
    ];
    assert_eq!(lines.len(), expected.len(), "{lines:?}");
    for (line, expected) in lines.iter().zip(expected) {
        assert!(line.starts_with(&expected), "{line} is not {expected}");
    }
}

#[test]
fn a_folder_that_can_have_no_rings_is_named_with_a_remedy() {
    skip_unless!(root);
    let folder = TempDir::new().unwrap();
    let place = folder.path().to_str().unwrap();
    let line = said(&["mount", place, "--ring-dir", "/proc", "-i", "lo"], 1);
    for part in ["/proc/lo.ring: no ring can be made there", "another --ring-dir"] {
        assert!(line.contains(part), "{part:?} is not in {line:?}");
    }
}

#[test]
fn files_under_the_mount_point_are_hidden_while_a_tree_is_mounted() {
    skip_unless!(mount);
    let folder = TempDir::new().unwrap();
    File::create(folder.path().join("letter")).unwrap();
    let filed = Filed::with(Mount::new().mountpoint(folder.path()), &savefile_of([]));
    assert!(!folder.path().join("letter").exists(), "it shows through");
    assert!(folder.path().join("status.json").exists());
    drop(filed);
    let names: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["letter"]);
    let mut pcapfs = tool(binary("pcapfs").to_str().unwrap());
    let help = run(pcapfs.args(["mount", "--help"]), 5).success();
    assert!(help.text().contains("its own files are hidden until the end"), "{}", help.text());
}

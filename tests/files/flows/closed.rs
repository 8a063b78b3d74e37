//! The files of closed flows.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use pcapfs_tests::conversation::SECOND;
use pcapfs_tests::flows::{everything, flow, wait_flow};
use pcapfs_tests::{Client, Conversation, Fed, Filed, run, skip_unless, tool};
use tempfile::TempDir;

use crate::support::{exchange, feed, modified, rfc3339, size, sundry, talk};

#[test]
fn copies_of_closed_flows_are_exact_and_keep_their_times() {
    skip_unless!(mount, "rsync");
    let filed = Filed::of(sundry());
    let flows = filed.daemon.path("web/flows");
    let one = flow(&filed.daemon, 1);
    let folder = TempDir::new().unwrap();
    for (number, source) in [&one, &flows].into_iter().enumerate() {
        let original = everything(source);
        let at = |name: &str| folder.path().join(format!("{name}-{number}"));
        let shell = |script: &str, to: &Path| {
            fs::create_dir_all(to).unwrap();
            let mut sh = tool("sh");
            drop(run(sh.arg("-euc").arg(script).arg("sh").arg(source).arg(to), 30).success());
        };
        let copies = [
            ("cp-r", r#"cp -r "$1/." "$2""#, false),
            ("cp-a", r#"cp -a "$1/." "$2""#, true),
            ("rsync", r#"rsync -a "$1/" "$2""#, true),
            ("tar", r#"tar --format=posix -C "$1" -cf - . | tar -C "$2" -xf -"#, true),
        ];
        for (name, script, keeps_times) in copies {
            let copy = at(name);
            shell(script, &copy);
            assert!(everything(&copy) == original, "{name} of {}", source.display());
            if keeps_times {
                for (path, _) in &original {
                    let times = [source, &copy].map(|folder| modified(&folder.join(path)));
                    assert_eq!(times[0], times[1], "{name} of {}", path.display());
                }
            }
        }
        // Nothing is left to copy: sizes, times and all bytes agree.
        for more in ["-ain", "-ainc"] {
            let mut command = tool("rsync");
            command.arg(more).arg(format!("{}/", source.display())).arg(at("rsync"));
            assert_eq!(run(&mut command, 30).success().text(), "", "rsync {more}");
        }
        drop(run(tool("diff").arg("-r").arg(source).arg(at("cp-r")), 30).success());
    }
}

#[test]
fn times_of_files_are_times_of_packets() {
    skip_unless!(mount);
    let talks = sundry();
    let spans: Vec<_> = talks.iter().map(Conversation::times).collect();
    let filed = Filed::of(talks);
    for (id, (first, last)) in (1..).zip(spans) {
        let folder = flow(&filed.daemon, id);
        for name in ["", "meta.json", "packets.pcap"] {
            assert_eq!(modified(&folder.join(name)), last, "{name:?} of flow {id}");
        }
        for (name, _) in everything(&folder) {
            let time = modified(&folder.join(&name));
            assert!((first..=last).contains(&time), "{} of flow {id}: {time}", name.display());
        }
        let meta = filed.meta(id);
        assert_eq!(meta["first"], rfc3339(first));
        assert_eq!(meta["last"], rfc3339(last));
    }
}

#[test]
fn a_closed_flow_changes_no_more() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut one = talk(1);
    one.open();
    exchange(&mut one, "/", b"body");
    one.close(Client);
    feed(&mut fed, &one.packets);
    wait_flow(&fed.daemon, 1, "closed");
    let folder = flow(&fed.daemon, 1);
    let look = || {
        let stat = |path: &Path| (size(path), modified(path), fs::metadata(path).unwrap().ino());
        let all = everything(&folder);
        all.into_iter()
            .map(|(name, bytes)| (stat(&folder.join(&name)), name, bytes))
            .collect::<Vec<_>>()
    };
    let before = look();
    let mut two = talk(2).at(one.times().1 + 100 * SECOND);
    two.open();
    exchange(&mut two, "/", b"body");
    feed(&mut fed, &two.packets);
    assert!(look() == before);
}

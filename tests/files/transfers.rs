//! `replay` and `listen`: their target, their format, and their end.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;

use nix::sys::signal::Signal;
use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{ALIAS, Fed, Filed, Running, binary, python, run, skip_unless, wait_until};
use serde_json::Value;
use tempfile::TempDir;

#[test]
fn listening_ends_with_its_reader_on_a_link_without_packets() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    for words in [["listen", ALIAS, "--format=pcap"], ["replay", ALIAS, "--live"]] {
        let mut child = fed.daemon.command(words).stdout(Stdio::piped()).spawn().unwrap();
        wait_until("it listens", 10, || {
            fed.daemon.readers(ALIAS).iter().any(|reader| reader["blocked"] == true)
        });
        // Closes the only other end of the pipe.
        drop(child.stdout.take());
        let mut status = None;
        wait_until("it has ended", 10, || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        assert!(status.unwrap().success(), "{words:?}");
        wait_until("the daemon has noticed", 5, || fed.daemon.readers(ALIAS).is_empty());
    }
}

#[test]
fn the_name_of_a_file_selects_its_format() {
    skip_unless!(mount);
    let fed = Fed::holding(10);
    let folder = TempDir::new().unwrap();
    const PCAPNG: &[u8] = b"\x0a\x0d\x0d\x0a";
    for (name, words, is_pcapng, note) in [
        ("a.pcap", &[][..], false, ""),
        ("a.pcapng", &[], true, ""),
        ("a", &[], false, ""),
        ("a.ng", &["--pcapng"], true, ""),
        ("b.pcap", &["--format", "pcapng"], true, "gets pcapng, whatever its name says"),
        ("b.pcapng", &["--format=pcap"], false, "gets pcap, whatever its name says"),
    ] {
        let path = folder.path().join(name);
        let mut replay = fed.daemon.command(["replay", ALIAS, "-w"]);
        let finished = run(replay.arg(&path).args(words), 10).success();
        assert_eq!(fs::read(&path).unwrap().starts_with(PCAPNG), is_pcapng, "{name}");
        assert!(finished.stderr.contains(note) && note.is_empty() == finished.stderr.is_empty());
    }
    // The mode of the capture's files, as cp copies it, minus the umask.
    let mode =
        |path: &str| fs::metadata(folder.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode("a.pcap"), 0o640);
    let shell = format!("umask 077; {} replay web -w c.pcap", binary("pcapfs").display());
    let mut sh = pcapfs_tests::tool("sh");
    sh.args(["-c", &shell]).current_dir(&folder).env("PCAPFS_SOCKET", fed.daemon.socket());
    let _ = run(&mut sh, 10).success();
    assert_eq!(mode("c.pcap"), 0o600);
}

#[test]
fn listening_into_a_file_ends_in_order() {
    skip_unless!(mount);
    let mut fed = Fed::holding(10);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.pcapng");
    let mut listen = Running::spawn(fed.daemon.command(["listen", ALIAS, "-w"]).arg(&path));
    fed.daemon.wait_blocked(ALIAS, "live.pcapng", listen.pid());
    fed.send(5);
    wait_until("all is delivered", 5, || {
        let reader = fed.daemon.reader(ALIAS, "live.pcapng", 0);
        reader["delivered_packets"] == 5 && reader["blocked"] == true
    });
    listen.signal(Signal::SIGINT);
    assert!(listen.wait(5).success(), "{}", listen.stderr());
    assert!(!fs::read(&path).unwrap().is_empty());
}

#[test]
fn a_status_over_the_socket_is_the_file() {
    skip_unless!(mount);
    let filed = Filed::new(&savefile_of([]));
    let file = fs::read_to_string(filed.daemon.path("web/status.json")).unwrap();
    assert_eq!(filed.daemon.verb(["status", ALIAS, "--json"]), file);
    assert_eq!(filed.daemon.verb(["list", "--json"]), format!("[{}]\n", file.trim_end()));
    assert_eq!(filed.daemon.verb(["list", "--json", ALIAS, "1"]).matches("\"alias\"").count(), 2);
    let status = filed.daemon.status(ALIAS);
    assert_eq!((&status["id"], &status["aliases"]), (&1.into(), &Value::Array(Vec::new())));
    assert_eq!(status["ring"]["size_bytes"], status["ring"]["size"]);
    let root = filed.daemon.status("");
    assert_eq!(root["uptime_seconds"], root["uptime"]);
    assert_eq!(root["socket"], filed.daemon.socket().to_str().unwrap());
}

#[test]
fn packets_do_not_go_to_a_terminal() {
    skip_unless!(mount, "python3");
    let fed = Fed::holding(10);
    let program = "
import os, pty, subprocess, sys
ours, theirs = pty.openpty()
child = subprocess.Popen(sys.argv[1:], stdout=theirs, stderr=subprocess.PIPE)
print(child.stderr.read().decode(), child.wait())
";
    for verb in ["replay", "listen"] {
        let mut shown = python(program);
        shown.arg(binary("pcapfs")).args([verb, ALIAS]).env("PCAPFS_SOCKET", fed.daemon.socket());
        let shown = run(&mut shown, 10).success();
        assert!(shown.text().contains("standard output is a terminal"), "{}", shown.text());
        assert!(shown.text().contains("-w FILE") && shown.text().trim_end().ends_with('2'));
    }
}

/// Completion as bash does it, with the installed script.
#[test]
fn shells_complete_captures_interfaces_groups_and_trees() {
    skip_unless!(mount, "bash");
    let fed = Fed::start();
    let complete = |words: &str| {
        let script = format!(
            "compopt() {{ :; }}; source <(pcapfs completions bash); COMP_WORDS=({words}); \
             COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); COMP_TYPE=9; \
             _clap_complete_pcapfs pcapfs \"${{COMP_WORDS[COMP_CWORD]}}\"; \
             printf '%s\\n' \"${{COMPREPLY[@]}}\""
        );
        let folder = binary("pcapfs").parent().unwrap().to_owned();
        let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
        let mut bash = pcapfs_tests::tool("bash");
        bash.args(["-c", &script]).env("PATH", path).env("PCAPFS_SOCKET", fed.daemon.socket());
        let shown = run(&mut bash, 20).success();
        shown.text().lines().map(|word| word.trim_end().to_owned()).collect::<Vec<_>>()
    };
    let tree = fed.daemon.mountpoint().to_str().unwrap();
    for (words, wanted) in [
        ("pcapfs umount ''", tree),
        ("pcapfs ''", "check-config"),
        ("pcapfs sta", "status"),
        ("pcapfs list --so", "--socket"),
        ("pcapfs status ''", ALIAS),
        ("pcapfs stop w", ALIAS),
        ("pcapfs mount /m -i ''", "lo"),
        ("pcapfs mount /m --group ''", "root"),
        ("pcapfs replay web --format ''", "pcapng"),
    ] {
        let found = complete(words);
        assert!(found.iter().any(|word| word == wanted), "{words}: {found:?}");
    }
}

//! Every command that takes `[REMOTE:]NAME`, from one machine to another.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::{fs, thread};

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::check_prefix;
use pcapfs_tests::{ALIAS, Fed, Mount, Net, skip_unless, wait_for, wait_until};
use serde_json::Value;

use crate::support::{Far, says};

#[test]
fn each_command_works_on_the_other_machine() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root();
    far.fed.send(50);
    // A daemon here, with a capture of the same name, has nothing to do with it.
    let near = Fed::with(Mount::new().inside(&far.net.b));

    assert_eq!(far.verb(["init", "far:lo", "udp port 53", "--alias", "dns"]), "2 far:dns\n");
    assert!(far.daemon().path("dns/status.json").exists());
    let listed: Value = serde_json::from_str(&far.verb(["list", "far:", "--json"])).unwrap();
    let aliases: Vec<&str> =
        listed.as_array().unwrap().iter().map(|one| one["alias"].as_str().unwrap()).collect();
    assert_eq!(aliases, [ALIAS, "dns"]);
    says(&far.verb(["list", "far:web"]), &["far:web", "running"]);
    assert!(!far.verb(["list", "far:web"]).contains("dns"));
    says(&far.verb(["status", "far:web"]), &["packets.stored", "50"]);
    let status: Value = serde_json::from_str(&far.verb(["status", "far:", "--json"])).unwrap();
    assert_eq!(status["remote"]["listen"], format!("{}:2020", Net::ADDRESS));
    let _ = far.verb(["stop", "far:dns"]);
    far.daemon().wait_state("dns", "stopped");
    let _ = far.verb(["start", "far:dns"]);
    far.daemon().wait_state("dns", "running");
    let _ = far.verb(["remove", "far:dns"]);
    assert!(!far.daemon().path("dns").exists());
    assert_eq!(near.daemon.count(ALIAS, "/packets/stored"), 0);

    let file = far.path("web.pcap");
    let _ = far.verb(["replay", "far:web", "-w", file.to_str().unwrap()]);
    assert_eq!(fs::read(&file).unwrap()[24..], Fed::records(50));
    let mut listen = far.spawn(&mut far.command(["listen", "far:web"]));
    let mut live = far.spawn(&mut far.command(["replay", "far:web", "--live"]));
    wait_until("both are readers there", 10, || far.daemon().readers(ALIAS).len() == 2);
    let reader = far.daemon().readers(ALIAS)[0].clone();
    assert_eq!(reader["uid"], 0, "the user that the certificate maps to");
    assert_eq!(reader["comm"], format!("laptop-7@{}", Net::PEER_ADDRESS));
    far.fed.send(20);
    let last =
        |bytes: &[u8], number| check_prefix(bytes).is_ok_and(|prefix| prefix.seen.last == number);
    listen.wait_stdout("the new packets", 10, |bytes| last(bytes, 70));
    live.wait_stdout("all packets", 10, |bytes| last(bytes, 70));
    assert_eq!(check_prefix(&listen.stdout()).unwrap().whole(), Vec::from_iter(51..=70));
    assert_eq!(check_prefix(&live.stdout()).unwrap().whole(), Vec::from_iter(1..=70));
    far.daemon().signal(Signal::SIGTERM);
    for running in [&mut listen, &mut live] {
        assert!(running.wait(10).success(), "the end of the capture: {}", running.stderr());
    }
}

#[test]
fn a_capture_of_the_other_machine_is_served_from_here() {
    skip_unless!(root, "ip");
    let mut far = Far::with_root();
    far.fed.send(30);
    far.daemon().wait_stored(ALIAS, 30);
    let words = ["serve", "far:web", "--listen", "127.0.0.1:0", "--from", "follow"];
    let mut serve = far.spawn(&mut far.command(words));
    let address: SocketAddr = wait_for("it serves", 10, || {
        let said = serve.stderr();
        let (_, rest) = said.split_once("pcapfs: serving far:web at ")?;
        rest.split(' ').next()?.parse().ok()
    });
    let received = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            far.net.b.run(|| {
                let mut bytes = Vec::new();
                TcpStream::connect(address).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            })
        });
        wait_until("it is a reader there", 10, || far.daemon().readers(ALIAS).len() == 1);
        far.fed.feed.send(20, 100);
        far.daemon().wait_stored(ALIAS, 50);
        far.daemon().signal(Signal::SIGTERM);
        reader.join().unwrap()
    });
    assert_eq!(check_prefix(&received).unwrap().whole(), Vec::from_iter(1..=50));
    serve.signal(Signal::SIGINT);
    assert!(serve.wait(5).success(), "{}", serve.stderr());
}

#[test]
fn remotes_are_kept_listed_and_forgotten() {
    skip_unless!(root, "ip");
    let far = Far::with_root();
    far.add("also.far", "laptop-7");
    let nobody = format!("pcap://{}:2021", Net::ADDRESS);
    far.add_url("closed", &nobody, &far.path("laptop-7.pem"));
    let text = far.refused(["remote", "add", "far", &nobody, "--identity", "/x.pem"]);
    says(&text, &["/x.pem: "]);
    let listed: Value = serde_json::from_str(&far.verb(["remote", "list", "--json"])).unwrap();
    let row = |index: usize| {
        let one = &listed[index];
        (one["name"].as_str().unwrap(), one["state"].as_str().unwrap())
    };
    assert_eq!(
        [row(0), row(1), row(2)],
        [("also.far", "ok"), ("closed", "refused"), ("far", "ok")]
    );
    let version = far.daemon().status("")["version"].clone();
    assert_eq!((&listed[0]["version"], &listed[1]["version"]), (&version, &Value::Null));
    let latency = listed[0]["latency_us"].as_u64().unwrap();
    assert!((1..5_000_000).contains(&latency), "{latency}");
    let table = far.verb(["remote", "list"]);
    says(&table, &["NAME", "LATENCY", " ms", "pcap://10.77.0.1:2020", "connection refused"]);
    let _ = far.verb(["remote", "remove", "closed"]);
    let text = far.refused(["remote", "remove", "closed"]);
    says(&text, &["closed: no such remote (have: also.far, far; "]);
    for (name, url) in [("tcp", "pcap://a"), ("a", "http://a"), ("a b", "pcap://a")] {
        let finished = far.run(&mut far.command(["remote", "add", name, url]));
        assert_eq!(finished.status.code(), Some(2), "{finished:?}");
    }
}

/// Words that a shell would get for `pcapfs replay WORD`.
fn completed(far: &Far, word: &str) -> Vec<String> {
    let mut command = far.command(["--", "pcapfs", "replay", word]);
    command.env("PCAPFS_COMPLETE", "bash").env("_CLAP_COMPLETE_INDEX", "2");
    command.env("_CLAP_IFS", "\n").env("_CLAP_COMPLETE_COMP_TYPE", "9");
    let finished = far.run(&mut command).success();
    finished.text().lines().map(|line| line.trim_end().to_owned()).collect()
}

#[test]
fn remotes_and_their_captures_are_completed() {
    skip_unless!(root, "ip", "bash");
    let far = Far::with_root();
    assert_eq!(completed(&far, "fa"), ["far:"]);
    assert_eq!(completed(&far, "far:w"), ["far:web"]);
    // bash takes a colon for the end of a word.
    let script = far.path("completions.bash");
    fs::write(&script, far.verb(["completions", "bash"])).unwrap();
    let mut bash = pcapfs_tests::tool("bash");
    let folder = pcapfs_tests::binary("pcapfs").parent().unwrap().to_owned();
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    bash.env("XDG_CONFIG_HOME", far.path("config")).env("PATH", path);
    bash.env("PCAPFS_SOCKET", far.path("no.sock"));
    bash.args(["--norc", "-c"]).arg(
        ". \"$1\"; COMP_WORDS=(pcapfs replay far : w) COMP_CWORD=4 COMP_TYPE=9; \
         _pcapfs_words pcapfs w :; echo \"${COMPREPLY[0]}\"; \
         COMP_WORDS=(pcapfs replay far :) COMP_CWORD=3; \
         _pcapfs_words pcapfs '' far; echo \"${COMPREPLY[0]}\"; \
         COMP_WORDS=(pcapfs replay fa) COMP_CWORD=2; \
         _pcapfs_words pcapfs fa replay; echo \"${COMPREPLY[0]}\"",
    );
    bash.arg("bash").arg(&script);
    let text = far.run(&mut bash).success().text().to_owned();
    let words: Vec<&str> = text.lines().map(str::trim_end).collect();
    assert_eq!(words, ["web", "web", "far:"]);
}

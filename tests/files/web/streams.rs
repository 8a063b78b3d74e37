//! Savefile streams.

use std::fs;
use std::io::Read;
use std::net::TcpStream;

use nix::sys::signal::Signal;
use pcapfs_tests::savefile::{NgParser, Parser, PcapParser, Record};
use pcapfs_tests::{ALIAS, Daemon, Fed, Mount, Running, run, skip_unless, tool, wait_until};

use crate::support::Web;

fn wait_readers(daemon: &Daemon, count: usize) {
    wait_until("the daemon has these readers", 20, || daemon.readers(ALIAS).len() == count);
}

#[test]
fn a_replay_is_the_file_of_the_tree() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(200);
    let web = Web::start(&fed.daemon, &[]);
    for (file, kind) in
        [("replay.pcap", "application/vnd.tcpdump.pcap"), ("replay.pcapng", "application/x-pcapng")]
    {
        let reply = web.get(&format!("captures/{ALIAS}/{file}"));
        assert_eq!((reply.status, reply.header("content-type")), (200, Some(kind)));
        let name = format!("attachment; filename=\"{ALIAS}-{file}\"");
        assert_eq!(reply.header("content-disposition"), Some(&*name));
        assert_eq!(reply.body, fs::read(fed.daemon.path(&format!("{ALIAS}/{file}"))).unwrap());
    }
    let head = web.ask(&["-I"], "captures/web/live.pcap");
    assert_eq!((head.status, head.body.len()), (200, 0), "no packet is waited for");
    wait_readers(&fed.daemon, 0);
    web.end();
}

#[test]
fn bounds_end_a_stream_after_a_whole_packet() {
    skip_unless!(mount, "curl", "tcpdump");
    let fed = Fed::holding(300);
    let web = Web::start(&fed.daemon, &[]);
    let whole = fs::read(fed.daemon.path("web/replay.pcap")).unwrap();
    let get = |query: &str| web.get(&format!("captures/web/{query}"));
    let record = usize::try_from(Fed::RECORD).unwrap();
    // live and follow have no end of their own.
    let reply = get("follow.pcap?packets=7");
    assert_eq!((reply.status, &reply.body[..]), (200, &whole[..24 + 7 * record]));
    let reply = get(&format!("follow.pcap?bytes={}", 24 + 5 * record + record / 2));
    assert_eq!(reply.body, whole[..24 + 5 * record]);
    let reply = get("follow.pcap?duration=500ms");
    assert_eq!(reply.body, whole);
    let reply = get("live.pcap?duration=300ms");
    assert_eq!(reply.body, whole[..24], "tools can read it");
    let reply = get("follow.pcapng?packets=9");
    let mut packets = 0;
    let mut each = |_: Record<'_>| {
        packets += 1;
        Ok(())
    };
    NgParser::default().push(&reply.body, &mut each).unwrap();
    assert_eq!(packets, 9);
    // With a filter, the bounds are about what passes.
    let filtered = get("follow.pcap?filter=udp+and+greater+1&packets=11");
    assert_eq!(filtered.body, whole[..24 + 11 * record]);
    let none = get("replay.pcap?filter=tcp");
    assert_eq!(none.body, whole[..24]);
    let shell = format!(
        "curl -sN '{}' | tcpdump -n -r - | wc -l",
        web.at("captures/web/follow.pcap?packets=42")
    );
    let counted = run(tool("sh").args(["-c", &shell]), 20).success();
    assert_eq!(counted.text().trim(), "42");
    wait_readers(&fed.daemon, 0);
}

#[test]
fn wrong_requests_name_the_mistake() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &[]);
    let refused = |path: &str, status: u16, parts: &[&str]| web.get(path).is_error(status, parts);
    refused(
        "captures/web/live.pcap?filter=tcp+prot+80",
        400,
        &["tcp prot 80", "does not compile", "prot"],
    );
    refused("captures/web/live.pcap?filter=inbound", 400, &["inbound", "leave them out"]);
    refused("captures/web/live.pcap?packets=0", 400, &["packets=0", "from 1 on"]);
    refused("captures/web/live.pcap?duration=soon", 400, &["duration=soon", "30s"]);
    refused("captures/web/live.pcap?seconds=3", 400, &["seconds", "filter, duration, packets"]);
    refused("captures/web/live.pcap?packets=1&packets=2", 400, &["packets", "twice"]);
    refused("captures/web/dead.pcap", 404, &["dead.pcap", "live, follow or replay"]);
    refused("captures/lan/live.pcap", 404, &["lan"]);
    refused("captures/%zz/live.pcap", 400, &["percent"]);
    refused("nothing", 404, &["/nothing", "/api/v1/captures"]);
    let reply = web.ask(&["-X", "PUT"], "captures/web/live.pcap");
    reply.is_error(405, &["PUT", "GET or HEAD"]);
}

#[test]
fn a_stream_follows_new_packets_and_leaves_with_its_client() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::holding(10);
    let web = Web::start(&fed.daemon, &[]);
    let live = web.follow(&[], "captures/web/live.pcap");
    let follow = web.follow(&[], "captures/web/follow.pcap");
    wait_readers(&fed.daemon, 2);
    let readers = fed.daemon.readers(ALIAS);
    let pid = web.process.pid().as_raw();
    assert!(readers.iter().all(|reader| reader["pid"] == pid), "{readers:#?}");
    fed.send(5);
    let record = usize::try_from(Fed::RECORD).unwrap();
    live.wait_stdout("five packets", 10, |bytes| bytes.len() == 24 + 5 * record);
    follow.wait_stdout("all packets", 10, |bytes| bytes.len() == 24 + 15 * record);
    drop(live);
    wait_readers(&fed.daemon, 1);
    // The order to end comes between two packets, and the client has a whole file.
    let mut follow = follow;
    web.end();
    assert!(follow.wait(10).success(), "{}", follow.stderr());
    wait_readers(&fed.daemon, 0);
}

#[test]
fn a_daemon_that_dies_cuts_the_stream() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::holding(10);
    let web = Web::start(&fed.daemon, &[]);
    let mut follow = web.follow(&[], "captures/web/follow.pcap");
    follow.wait_stdout("its packets", 10, |bytes| bytes.len() > 24);
    fed.daemon.kill9();
    // curl: the transfer ended before its end.
    assert_eq!(follow.wait(10).code(), Some(18), "{}", follow.stderr());
    web.get("api/v1/captures").is_error(503, &["no pcapfs listens there"]);
    web.end();
}

#[test]
fn a_slow_client_is_overtaken_and_finds_its_loss_in_the_stream() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::with(Mount::new().ring("2M"));
    let web = Web::start(&fed.daemon, &[]);
    let mut slow = TcpStream::connect(web.place()).unwrap();
    let request =
        format!("GET /captures/web/live.pcapng HTTP/1.1\r\nHost: {}\r\n\r\n", web.place());
    std::io::Write::write_all(&mut slow, request.as_bytes()).unwrap();
    wait_readers(&fed.daemon, 1);
    // More than sockets and the ring hold.
    for _ in 0..60 {
        fed.feed.send(2000, 1000);
    }
    wait_until("the reader has lost packets", 60, || {
        let readers = fed.daemon.readers(ALIAS);
        readers.first().is_some_and(|reader| reader["lost_packets"].as_u64() > Some(0))
    });
    let mut read = Vec::new();
    let mut buffer = vec![0; 1 << 16];
    while !read.windows(24).any(|part| part.ends_with(b"packets lost before this")) {
        let length = slow.read(&mut buffer).unwrap();
        assert!(length > 0, "the comment comes");
        let kept = read.len().saturating_sub(64);
        read.drain(..kept);
        read.extend_from_slice(&buffer[..length]);
    }
    // Another client is not held up.
    let quick = web.get("captures/web/replay.pcap?packets=3");
    PcapParser::default().push(&quick.body, &mut |_| Ok(())).unwrap();
}

#[test]
fn streams_of_a_client_are_bounded() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(1);
    let web = Web::start(&fed.daemon, &[]);
    let mut open: Vec<Running> =
        (0..32).map(|_| web.follow(&[], "captures/web/live.pcap")).collect();
    wait_readers(&fed.daemon, 32);
    web.get("captures/web/live.pcap").is_error(503, &["too many savefile streams"]);
    // Everything else goes on.
    assert_eq!(web.get("api/v1/captures").status, 200);
    open.pop();
    wait_until("a stream is free", 10, || web.get("captures/web/replay.pcap").status == 200);
}

#[test]
fn captures_are_listed_and_steered() {
    skip_unless!(mount, "curl");
    let fed = Fed::holding(3);
    let web = Web::start(&fed.daemon, &[]);
    let list = web.json("api/v1/captures");
    let capture = &list["captures"][0];
    assert_eq!((&capture["name"], &capture["state"]), (&ALIAS.into(), &"running".into()));
    assert_eq!(capture["may_control"], true);
    assert_eq!(capture["status"]["packets"]["stored"], 3);
    pcapfs_tests::schema::check("status", &capture["status"]);
    assert_eq!(web.json("api/v1/captures/web")["source"], capture["source"]);
    assert_eq!(web.json("api/v1/captures/1")["name"], ALIAS);
    web.get("api/v1/captures/lan").is_error(404, &["lan"]);
    // The last slash has nothing after it, and that is no name for all.
    web.get("api/v1/captures/").is_error(404, &["no such"]);
    let post = |verb: &str| {
        let json = ["-X", "POST", "-H", "Content-Type: application/json"];
        web.ask(&json, &format!("api/v1/captures/web/{verb}"))
    };
    assert_eq!(post("stop").status, 204);
    fed.daemon.wait_state(ALIAS, "stopped");
    assert_eq!(post("start").status, 204);
    fed.daemon.wait_state(ALIAS, "running");
    web.get("api/v1/captures/web/stop").is_error(405, &["GET", "POST"]);
    web.process.signal(Signal::SIGTERM);
}

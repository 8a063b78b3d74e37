//! HTTP under way: a request without an answer, an upload, a response without an end.

use std::fs;

use pcapfs_tests::flows::{flow, json, lines, listed};
use pcapfs_tests::{
    Client, Conversation, Fed, Running, Server, run, schema, skip_unless, tool, wait_until,
};
use serde_json::{Value, json};

use crate::support::{exchange, feed, size, talk};

#[test]
fn all_json_of_the_tree_is_as_its_schemas_say() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1);
    talk.open();
    exchange(&mut talk, "/ended", b"one");
    talk.says(Client, "GET /open HTTP/1.1\r\nHost: a.example\r\n\r\n");
    feed(&mut fed, &talk.packets);
    let mut asked = Conversation::udp("10.0.0.1:4000", "10.0.0.3:53").at(talk.times().1);
    // The root's addresses: a query, and a response without any.
    asked.says(Client, [7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    asked.says(Server, [7, 7, 0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
    feed(&mut fed, &asked.packets);
    let web = fed.daemon.path("web");
    wait_until("a name was looked up", 5, || lines(&web.join("dns.jsonl")).len() == 1);
    wait_until("a transaction has ended", 5, || lines(&web.join("http.jsonl")).len() == 1);
    let _reader = fs::File::open(web.join("replay.pcap")).unwrap();
    let mut left = schema::names();
    for (name, path) in [
        ("root-status", fed.daemon.path("status.json")),
        ("status", web.join("status.json")),
        ("readers", web.join("readers.jsonl")),
        ("flows", web.join("flows.jsonl")),
        ("http", web.join("http.jsonl")),
        ("http-open", web.join("http-open.jsonl")),
        ("dns", web.join("dns.jsonl")),
        ("meta", flow(&fed.daemon, 1).join("meta.json")),
    ] {
        let lines = lines(&path);
        assert!(!lines.is_empty(), "{}", path.display());
        lines.iter().for_each(|line| schema::check(name, line));
        left.retain(|other| other != name);
    }
    // Lines of the other protocols and of commands are checked by their own tests.
    left.retain(|name| !schema::of_protocols().contains(name));
    left.retain(|name| !schema::OF_COMMANDS.contains(&name.as_str()));
    assert_eq!(left, [""; 0], "schemas of no file");
}

#[test]
fn transactions_under_way_are_there_and_grow() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let mut talk = talk(1);
    talk.open().says(
        Client,
        "POST /slow HTTP/1.1\r\nHost: a.example\r\nContent-Type: text/plain\r\n\
         Content-Length: 10\r\n\r\nhello",
    );
    feed(&mut fed, &talk.packets);
    let folder = flow(&fed.daemon, 1);
    wait_until("HTTP is seen", 5, || folder.join("http").exists());
    let text = || String::from_utf8(fs::read(folder.join("http")).unwrap()).unwrap();
    assert!(text().contains("POST /slow HTTP/1.1\n"), "{}", text());
    assert_eq!(listed(&folder.join("bodies")), ["0001-request.txt"]);
    let here = lines(&folder.join("http-open.jsonl"));
    let all = lines(&fed.daemon.path("web/http-open.jsonl"));
    assert_eq!((here.len(), &here), (1, &all));
    assert_eq!(here[0]["state"], "open");
    assert_eq!((&here[0]["target"], &here[0]["status"]), (&json!("/slow"), &Value::Null));
    assert_eq!(json(&folder.join("meta.json"))["http"]["open"], 1);
    assert_eq!(lines(&folder.join("http.jsonl")).len(), 0);

    // The answer begins before the request has ended, and never ends.
    let before = talk.packets.len();
    let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                Transfer-Encoding: chunked\r\n\r\n";
    talk.says(Client, "world").says(Server, head).says(Server, "4\r\none\n\r\n");
    feed(&mut fed, &talk.packets[before..]);
    assert!(text().ends_with("\n\none\n"), "{}", text());
    let body = folder.join("bodies/0001-response-slow");
    let files = [folder.join("http"), body.clone()];
    let tails: Vec<_> = files
        .iter()
        .map(|file| Running::spawn(tool("tail").args(["-s", "0.1", "-f", "-c", "+1"]).arg(file)))
        .collect();
    let mut expected = b"one\n".to_vec();
    for turn in 0..5 {
        let before = talk.packets.len();
        let event = format!("data: {turn}\n");
        talk.says(Server, format!("{:x}\r\n{event}\r\n", event.len()));
        feed(&mut fed, &talk.packets[before..]);
        expected.extend(event.bytes());
        assert_eq!(fs::read(&body).unwrap(), expected);
        assert_eq!(size(&body), expected.len() as u64);
        for (file, tail) in files.iter().zip(&tails) {
            let wanted = fs::read(file).unwrap();
            assert!(wanted.ends_with(event.as_bytes()), "{}", file.display());
            tail.wait_stdout("what came", 5, |got| got == wanted);
        }
        let copy = tempfile::tempdir().unwrap();
        let copied = tool("cp").arg("-r").arg(&folder).arg(copy.path()).output();
        assert!(copied.unwrap().status.success());
    }
    let open = lines(&fed.daemon.path("web/http-open.jsonl"));
    assert_eq!((open.len(), &open[0]["status"]), (1, &json!(200)));
    assert_eq!(open[0]["response_body"]["bytes"], expected.len());
    let tar = run(tool("tar").arg("c").arg(&folder), 10).success();
    assert!(tar.stdout.windows(9).any(|part| part == b"\ndata: 4\n"), "the events are in a copy");

    let before = talk.packets.len();
    talk.says(Server, "0\r\n\r\n").close(Client);
    feed(&mut fed, &talk.packets[before..]);
    wait_until("the transaction is recorded", 5, || lines(&folder.join("http.jsonl")).len() == 1);
    assert_eq!(fs::read(fed.daemon.path("web/http-open.jsonl")).unwrap(), b"");
    assert_eq!(fs::read(folder.join("http-open.jsonl")).unwrap(), b"");
    assert_eq!(fs::read(&body).unwrap(), expected);
    for (file, tail) in files.iter().zip(&tails) {
        let wanted = fs::read(file).unwrap();
        tail.wait_stdout("the rest", 5, |got| got == wanted);
        assert!(!tail.stderr().contains("truncated"), "{}", tail.stderr());
    }
}

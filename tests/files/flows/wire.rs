//! Real programs on a wire.

use std::fs;

use pcapfs_tests::flows::{everything, flow, lines, listed, names, wait_flow};
use pcapfs_tests::{ALIAS, Filed, Net, Running, Wired, python, run, skip_unless};
use serde_json::json;

use crate::support::is_meta;

/// Runs a server of two files on the wire's side `a`, and a client program on the other side.
/// Returns the client's output.
fn web(wired: &Wired, client: &str) -> String {
    let server = "
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    def do_GET(self):
        files = {'/one.txt': b'one\\n', '/two.bin': bytes(range(256)) * 400}
        body = files.get(self.path)
        self.send_response(200 if body else 404)
        body = body or b'there is none\\n'
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
server = http.server.ThreadingHTTPServer((sys.argv[1], 8000), Handler)
print('ready', flush=True)
server.serve_forever()
";
    let server = wired.net.a.run(|| Running::spawn(python(server).arg(Net::ADDRESS)));
    server.wait_stdout("it serves", 10, |bytes| bytes.starts_with(b"ready"));
    let client = format!("import http.client, sys\nhost = sys.argv[1]\n{client}");
    let output = wired.net.b.run(|| run(python(&client).arg(Net::ADDRESS), 20));
    output.success().text().to_owned()
}

#[test]
fn a_real_server_and_a_real_client_on_a_wire() {
    skip_unless!(root, "python3");
    let wired = Wired::start();
    web(
        &wired,
        "
connection = http.client.HTTPConnection(host, 8000)
for path in ('/one.txt', '/two.bin?q=1', '/two.bin'):
    connection.request('GET', path)
    connection.getresponse().read()
connection.close()
",
    );
    let meta = wait_flow(&wired.daemon, 1, "closed");
    is_meta(&meta);
    assert_eq!((&meta["application"], &meta["closed_by"]), (&json!("http"), &json!("client")));
    assert_eq!(meta["client"]["address"], Net::PEER_ADDRESS);
    assert_eq!(meta["server"]["port"], 8_000);
    assert!(meta["handshake_us"].as_u64().is_some_and(|time| time < 1_000_000));
    assert_eq!(meta["http"], json!({"transactions": 3, "incomplete": 0, "open": 0}));
    let folder = flow(&wired.daemon, 1);
    assert_eq!(
        listed(&folder.join("bodies")),
        ["0001-response-one.txt", "0002-response-two.bin", "0003-response-two.bin"]
    );
    assert_eq!(fs::read(folder.join("bodies/0001-response-one.txt")).unwrap(), b"one\n");
    let wanted: Vec<u8> = (0..=255).cycle().take(256 * 400).collect();
    assert!(fs::read(folder.join("bodies/0003-response-two.bin")).unwrap() == wanted);
    let status: Vec<_> =
        lines(&folder.join("http.jsonl")).iter().map(|line| line["status"].clone()).collect();
    assert_eq!(status, [200, 404, 200]);
    let status = wired.daemon.status(ALIAS);
    assert_eq!(status["flows"]["gaps"], 0, "{status:#}");
    assert_eq!(status["flows"]["engine_lost_packets"], 0, "{status:#}");
}

#[test]
fn a_saved_replay_gives_the_same_flows() {
    skip_unless!(root, "python3");
    let wired = Wired::start();
    let log = web(
        &wired,
        "
for turn in range(3):
    connection = http.client.HTTPConnection(host, 8000)
    for path in ('/one.txt', '/two.bin', '/none'):
        connection.request('GET', path, headers={'X-Turn': str(turn)})
        connection.getresponse().read()
    connection.close()
",
    );
    assert_eq!(log, "");
    for id in 1..=3 {
        wait_flow(&wired.daemon, id, "closed");
    }
    let filed = Filed::new(&fs::read(wired.daemon.path("web/replay.pcap")).unwrap());
    assert_eq!(names(&filed.daemon), names(&wired.daemon));
    let (live, saved) =
        (everything(&wired.daemon.path("web/flows")), everything(&filed.daemon.path("web/flows")));
    for (was, is) in live.iter().zip(&saved) {
        assert!(was == is, "{} is not what it was", was.0.display());
    }
    assert_eq!(live.len(), saved.len());
    assert_eq!(
        fs::read(wired.daemon.path("web/http.jsonl")).unwrap(),
        fs::read(filed.daemon.path("web/http.jsonl")).unwrap()
    );
}

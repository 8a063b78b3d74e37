//! Pages of flows and of HTTP transactions.

use pcapfs_tests::conversation::savefile_of;
use pcapfs_tests::{
    Client, Conversation, Fed, Filed, Mount, Server, schema, skip_unless, tool, wait_until,
};
use serde_json::Value;

use crate::support::{Web, browsed};

fn numbers(page: &Value, list: &str, field: &str) -> Vec<u64> {
    let entries = page[list].as_array().expect("a list");
    entries.iter().map(|entry| entry[field].as_u64().expect("a number")).collect()
}

#[test]
fn flows_are_listed_once_with_their_newest_state() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let page = web.json("api/v1/captures/web/flows");
    assert_eq!(numbers(&page, "flows", "flow"), [1, 2, 3]);
    assert_eq!((&page["next"], &page["dropped"]), (&Value::Null, &0.into()));
    for flow in page["flows"].as_array().unwrap() {
        schema::check("flows", flow);
        assert_eq!(flow["event"], "ended");
    }
    let chosen = |query: &str| {
        numbers(&web.json(&format!("api/v1/captures/web/flows?{query}")), "flows", "flow")
    };
    assert_eq!(chosen("host=10.0.0.2"), [1, 2]);
    assert_eq!(chosen("host=fd00::1"), [3]);
    assert_eq!(chosen("port=8080"), [2]);
    assert_eq!(chosen("host=10.0.0.2&port=80"), [1]);
    assert_eq!(chosen("state=closed&host=10.0.0.3"), [2]);
    assert_eq!(chosen("state=reset"), [0; 0]);
    assert_eq!(chosen("after=1"), [2, 3]);
    let refused = |query: &str, parts: &[&str]| {
        web.get(&format!("api/v1/captures/web/flows?{query}")).is_error(400, parts);
    };
    refused("host=here", &["host=here", "an address"]);
    refused("port=70000", &["port=70000"]);
    refused("state=shut", &["state=shut", "closed"]);
    refused("limit=10001", &["limit=10001", "at most 10000"]);
    refused("hots=10.0.0.1", &["hots", "host, port"]);
    let stale = web.get("api/v1/captures/web/flows?after=000000000000-1");
    stale.is_error(410, &["started again", "begin again"]);
}

#[test]
fn pages_of_flows_follow_one_another() {
    skip_unless!(mount, "curl");
    let talks = (0..250).map(|number| {
        let mut talk = Conversation::tcp(&format!("10.0.0.1:{}", 20_000 + number), "10.0.0.2:80");
        talk.open().says(Client, b"hello").close(Server);
        talk
    });
    let filed = Filed::new(&savefile_of(talks));
    let web = Web::start(&filed.daemon, &[]);
    let (mut all, mut after) = (Vec::new(), String::new());
    for pages in 1.. {
        let page = web.json(&format!("api/v1/captures/web/flows?limit=60{after}"));
        all.extend(numbers(&page, "flows", "flow"));
        let Some(next) = page["next"].as_str() else {
            assert_eq!(pages, 5);
            break;
        };
        after = format!("&after={next}");
    }
    assert_eq!(all, (1..=250).collect::<Vec<_>>());
}

#[test]
fn lines_that_have_left_the_log_are_counted() {
    skip_unless!(mount, "curl");
    let count = 1500;
    let talks = (0..count).map(|number| {
        let client = format!("10.0.{}.{}:2000", number / 250, number % 250 + 1);
        let mut talk = Conversation::tcp(&client, "10.9.0.2:80");
        talk.open().says(Client, pcapfs_tests::conversation::noise(number, 20)).close(Server);
        talk
    });
    let mount = Mount::new().args(["--flow-memory", "1M"]);
    let filed = Filed::with(mount, &savefile_of(talks));
    let dropped = filed.daemon.status("web")["flows"]["log_lines_dropped_by"]["flows.jsonl"].take();
    assert!(dropped.as_u64() > Some(0), "{dropped}: the test needs a smaller log");
    let web = Web::start(&filed.daemon, &[]);
    let (mut shown, mut after) = (Vec::new(), String::new());
    let left = loop {
        let page = web.json(&format!("api/v1/captures/web/flows?limit=10000{after}"));
        shown.extend(numbers(&page, "flows", "flow"));
        let Some(next) = page["next"].as_str() else { break page["dropped"].as_u64().unwrap() };
        after = format!("&after={next}");
    };
    // With so little memory, connections end early and begin again as other flows.
    let flows = filed.daemon.status("web")["flows"].take();
    let all = ["open", "closed", "evicted"].map(|name| flows[name].as_u64().unwrap());
    let all: u64 = all.iter().sum();
    assert_eq!(shown.len() as u64 + left, all, "{left} left");
    assert!(left > 0 && shown.is_sorted_by(|one, next| one < next), "each once, in order");
}

#[test]
fn transactions_are_chosen() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let targets = |query: &str| {
        let page = web.json(&format!("api/v1/captures/web/http?{query}"));
        let lines = page["http"].as_array().unwrap().clone();
        lines.iter().for_each(|line| schema::check("http", line));
        lines.iter().map(|line| line["target"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(targets("").len(), 5);
    assert_eq!(targets("status=404"), ["/missing"]);
    assert_eq!(targets("status=5xx"), ["/logo.png"]);
    assert_eq!(targets("method=delete"), ["/logo.png"]);
    assert_eq!(targets("host=example.org").len(), 2);
    assert_eq!(targets("q=DATA"), ["/data.json"]);
    assert_eq!(targets("q=server:+test/1&status=404"), ["/missing"]);
    let first = web.json("api/v1/captures/web/http?limit=2");
    let next = first["next"].as_str().unwrap();
    assert_eq!(targets(&format!("limit=10&after={next}")).len(), 3);
    web.get("api/v1/captures/web/http?status=many").is_error(400, &["status=many", "4xx"]);
}

#[test]
fn a_flow_is_its_meta_and_its_files() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let mut flow = web.json("api/v1/captures/web/flows/1");
    let files = flow.as_object_mut().unwrap().remove("files").unwrap();
    assert_eq!(flow, filed.meta(1));
    let names: Vec<&str> =
        files.as_array().unwrap().iter().map(|file| file["name"].as_str().unwrap()).collect();
    for name in ["client.bin", "http", "http.har", "meta.json", "packets.pcap"] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
    let body = files
        .as_array()
        .unwrap()
        .iter()
        .find(|file| file["name"].as_str().unwrap().starts_with("bodies/0001-response"));
    assert_eq!(body.unwrap()["size"], crate::support::HTML.len());
    web.get("api/v1/captures/web/flows/9").is_error(404, &["9", "no such flow"]);
    web.get("api/v1/captures/web/flows/x").is_error(404, &["x", "number"]);
    let readers = web.json("api/v1/captures/web/readers");
    assert!(readers["readers"].is_array());
}

#[test]
fn the_timeline_shows_gaps_and_copies() {
    skip_unless!(mount, "curl");
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open()
        .says(Client, b"one")
        .says(Server, b"answer")
        .unseen(Client, b"lost")
        .says(Client, b"two")
        .again(Client, 3, 0x18, b"two")
        .close(Client);
    let count = talk.packets.len();
    let filed = Filed::of([talk]);
    let web = Web::start(&filed.daemon, &[]);
    let page = web.json("api/v1/captures/web/flows/1/packets");
    let packets = page["packets"].as_array().unwrap();
    assert_eq!((packets.len(), &page["next"]), (count, &Value::Null));
    assert_eq!((&packets[0]["flags"], &packets[1]["flags"]), (&"S".into(), &"SA".into()));
    assert_eq!(
        (&packets[0]["direction"], &packets[1]["direction"]),
        (&"client".into(), &"server".into())
    );
    let noted = |note: &str| packets.iter().filter(|packet| packet["note"] == note).count();
    assert_eq!((noted("gap_before"), noted("retransmission"), noted("out_of_order")), (1, 1, 0));
    let gap = packets.iter().find(|packet| packet["note"] == "gap_before").unwrap();
    assert_eq!((&gap["sequence"], &gap["payload"]), (&8.into(), &3.into()));
    let rest = web.json("api/v1/captures/web/flows/1/packets?after=3&limit=2");
    assert_eq!(numbers(&rest, "packets", "number"), [4, 5]);
    assert_eq!(rest["next"], 5);
}

#[test]
fn new_flows_appear() {
    skip_unless!(mount, "curl");
    let mut fed = Fed::start();
    let web = Web::start(&fed.daemon, &[]);
    let count =
        |web: &Web| web.json("api/v1/captures/web/flows")["flows"].as_array().unwrap().len();
    assert_eq!(count(&web), 0);
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"hello");
    fed.feed.write(&pcapfs_tests::conversation::records(&talk.packets));
    wait_until("the flow is listed", 10, || count(&web) == 1);
    let flow = &web.json("api/v1/captures/web/flows")["flows"][0];
    assert_eq!(flow["event"], "opened");
}

#[test]
fn without_a_tree_captures_and_streams_are_served() {
    skip_unless!(root, "curl", "unshare");
    let fed = Fed::holding(5);
    // In a mount namespace without the tree.
    let mut hidden = tool("unshare");
    let script = "umount -l \"$1\" && exec \"$2\" web --listen 127.0.0.1:0 --json";
    hidden.args(["--mount", "--propagation", "private", "sh", "-c", script, "sh"]);
    hidden.arg(fed.daemon.path("").as_os_str()).arg(pcapfs_tests::binary("pcapfs"));
    hidden.env("PCAPFS_SOCKET", fed.daemon.socket());
    let web = Web::of(pcapfs_tests::Running::spawn(&mut hidden));
    assert_eq!(web.json("api/v1/captures")["captures"][0]["name"], "web");
    assert_eq!(web.get("captures/web/replay.pcap").status, 200);
    web.get("api/v1/captures/web/flows").is_error(503, &["no tree mounted here", "pcapfs mount"]);
}

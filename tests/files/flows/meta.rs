//! `meta.json`, and the lines of `flows.jsonl`.

use std::fs;

use pcapfs_tests::conversation::{ACK, PSH, STEP, noise, savefile, savefile_of};
use pcapfs_tests::flows::{flow, lines, names, parsed, wait_flow};
use pcapfs_tests::{
    ALIAS, Client, Conversation, Fed, Filed, Mount, Server, python, run, skip_unless, wait_until,
};
use serde_json::{Value, json};

use crate::support::{exchange, feed, holed, is_meta, one, talk};

#[test]
fn meta_of_a_clean_close() {
    skip_unless!(mount);
    for by in [Client, Server] {
        let mut talk = talk(1);
        talk.open();
        exchange(&mut talk, "/x", b"body");
        talk.close(by);
        let meta = one(&talk);
        assert_eq!(meta["state"], "closed");
        assert_eq!(meta["closed_by"], if by == Client { "client" } else { "server" });
        assert_eq!((&meta["application"], &meta["protocol"]), (&json!("http"), &json!("tcp")));
        assert_eq!(meta["http"], json!({"transactions": 1, "incomplete": 0, "open": 0}));
        assert_eq!(meta["client"]["address"], "10.1.0.1");
        assert_eq!(meta["client"]["port"], 40_000);
        assert_eq!(meta["server"]["address"], "10.2.0.1");
        assert_eq!(meta["server"]["port"], 9_000);
        assert_eq!(meta["client"]["stream_bytes"], talk.stream(Client).len());
        assert_eq!(meta["server"]["stream_bytes"], talk.stream(Server).len());
        // From the SYN to the ACK that ends the handshake: two steps.
        assert_eq!(meta["handshake_us"], 2 * STEP / 1_000);
        for field in ["tls", "tunnel"] {
            assert_eq!(meta[field], Value::Null, "{field}");
        }
        assert_eq!(meta["vlan"], json!([]));
    }
}

#[test]
fn meta_of_flows_that_do_not_end_well() {
    skip_unless!(mount);
    let mut reset = talk(1);
    reset.open().says(Client, b"hello").reset(Server);
    let meta = one(&reset);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("reset"), &json!("server")));

    let mut opening = talk(1);
    opening.syn();
    let meta = one(&opening);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("opening"), &Value::Null));
    assert_eq!(meta["handshake_us"], Value::Null);
    assert_eq!(meta["server"]["packets"], 0);

    let mut open = talk(1);
    open.open().says(Client, b"hello");
    assert_eq!(one(&open)["state"], "open");

    let mut closing = talk(1);
    closing.open().says(Client, b"hello").fin(Client).ack(Server);
    assert_eq!(one(&closing)["state"], "closing");

    let mut middle = talk(1);
    middle.says(Client, noise(1, 100)).says(Server, noise(2, 200)).ack(Client);
    let meta = one(&middle);
    assert_eq!(meta["state"], "midstream");
    assert_eq!(meta["handshake_us"], Value::Null);
    assert_eq!(meta["client"]["stream_bytes"], 100);
    assert_eq!(meta["server"]["stream_bytes"], 200);

    let mut late = talk(1);
    late.says(Client, b"only the end").close(Client);
    let meta = one(&late);
    assert_eq!((&meta["state"], &meta["closed_by"]), (&json!("closed"), &json!("client")));
}

#[test]
fn meta_has_vlans_and_tunnels() {
    skip_unless!(mount);
    let mut tagged = talk(1).tagged(&[100]);
    tagged.open().says(Client, b"hello").close(Client);
    assert_eq!(one(&tagged)["vlan"], json!([100]));
    let mut twice = talk(1).tagged(&[2_000, 7]);
    twice.open().says(Client, b"hello").close(Client);
    assert_eq!(one(&twice)["vlan"], json!([2_000, 7]));

    let tunnels = [
        ("vxlan", json!(4_242), talk(1).in_vxlan(4_242)),
        ("gre", Value::Null, talk(1).in_gre()),
        ("vxlan", json!(5), Conversation::tcp("[fd00::1]:1", "[fd00::2]:2").in_vxlan(5)),
    ];
    for (kind, id, mut talk) in tunnels {
        talk.open().says(Client, b"hello").says(Server, b"world").close(Client);
        let meta = one(&talk);
        let tunnel = &meta["tunnel"];
        assert_eq!((&tunnel["kind"], &tunnel["id"]), (&json!(kind), &id), "{tunnel}");
        assert_eq!(tunnel["source"], "192.0.2.1");
        assert_eq!(tunnel["destination"], "192.0.2.2");
        let filed = Filed::of([talk.clone()]);
        assert_eq!(filed.read(1, "client.bin"), b"hello");
        assert_eq!(filed.read(1, "server.bin"), b"world");
        assert_eq!(filed.read(1, "packets.pcap"), savefile(&talk.packets));

        // With `--no-tunnels`, the outer packet counts.
        let outer = Filed::with(Mount::new().arg("--no-tunnels"), &savefile_of([talk]));
        let names = names(&outer.daemon);
        assert!(names.iter().all(|name| name.contains("-192.0.2.1.")), "{names:?}");
        assert_eq!(names.len(), usize::from(kind == "vxlan") * 2);
    }
}

#[test]
fn meta_counts_repeated_and_late_bytes() {
    skip_unless!(mount);
    let mut talk = talk(1);
    talk.open();
    talk.says(Client, b"once").repeat().repeat().ack(Server);
    talk.says(Client, b"first ").says(Client, b"second").swap().ack(Server);
    // Half of the data is old, half is new.
    let old = talk.stream(Client)[10..].to_vec();
    talk.again(Client, 6, ACK | PSH, &[&old[..], b" third"].concat());
    let mut wanted = talk.stream(Client).to_vec();
    wanted.extend(b" third");
    // The builder does not know of this data, so the next sequence numbers are computed here.
    let mut number = talk.next(Client).wrapping_add(6);
    for part in [&b" fourth"[..], b"!"] {
        let peer = talk.next(Server);
        talk.raw(Client, number, peer, ACK | PSH, part);
        number = number.wrapping_add(u32::try_from(part.len()).unwrap());
        wanted.extend_from_slice(part);
    }
    let meta = one(&talk);
    assert_eq!(meta["client"]["retransmitted"], 2);
    assert_eq!(meta["client"]["out_of_order"], 1);
    assert_eq!(meta["client"]["overlapping"], 1);
    for field in ["retransmitted", "out_of_order", "overlapping"] {
        assert_eq!(meta["server"][field], 0, "{field}");
    }
    assert_eq!(meta["client"]["gaps"], json!([]));
    let filed = Filed::of([talk]);
    assert_eq!(filed.read(1, "client.bin"), wanted);
}

#[test]
fn meta_lists_missing_ranges() {
    skip_unless!(mount);
    let talk = holed(1).at_the_end();
    let meta = one(&talk);
    assert_eq!(meta["server"]["gaps"], json!([[3_000, 8_000, "missing"]]));
    assert_eq!(meta["server"]["stream_bytes"], talk.stream(Server).len());
    assert_eq!(meta["client"]["gaps"], json!([]));
    let filed = Filed::of([talk]);
    assert_eq!(filed.daemon.count(ALIAS, "/flows/gaps"), 1);
}

/// A ServerHello of TLS 1.2 that selects `h2`, in its record.
fn server_hello() -> Vec<u8> {
    let alpn = [0, 16, 0, 5, 0, 3, 2, b'h', b'2'];
    let mut body = vec![3, 3];
    body.extend(noise(1, 32));
    body.extend([0, 0xc0, 0x2f, 0]);
    body.extend(u16::try_from(alpn.len()).unwrap().to_be_bytes());
    body.extend(alpn);
    let length = u16::try_from(body.len()).unwrap();
    let mut record = vec![22, 3, 3];
    record.extend((length + 4).to_be_bytes());
    record.extend([2, 0]);
    record.extend(length.to_be_bytes());
    record.extend(body);
    record
}

#[test]
fn meta_has_the_clear_text_of_tls() {
    skip_unless!(mount, "python3");
    let program = "
import ssl, sys
context = ssl.create_default_context()
context.set_alpn_protocols(['h2', 'http/1.1'])
out = ssl.MemoryBIO()
tls = context.wrap_bio(ssl.MemoryBIO(), out, server_hostname='shop.example')
try:
    tls.do_handshake()
except ssl.SSLWantReadError:
    sys.stdout.buffer.write(out.read())
";
    let hello = run(&mut python(program), 10).success().stdout;
    // On any port, in one segment or in many.
    for most in [1_460, 50] {
        let mut talk = talk(1).segments_of(most);
        talk.open().says(Client, &hello).says(Server, server_hello());
        talk.says(Client, noise(5, 500)).says(Server, noise(6, 5_000)).close(Client);
        let meta = one(&talk);
        assert_eq!(meta["application"], "tls");
        assert_eq!(meta["tls"]["sni"], "shop.example");
        assert_eq!(meta["tls"]["alpn_offered"], json!(["h2", "http/1.1"]));
        assert_eq!(meta["tls"]["alpn"], "h2");
        let version = meta["tls"]["version"].as_str().unwrap_or_default();
        assert!(version.contains("1.2"), "{meta:#}");
        assert_eq!(meta["http"], Value::Null);
    }
    // With the client's message alone, only its offers are known.
    let mut half = talk(1);
    half.open().says(Client, &hello).reset(Server);
    let meta = one(&half);
    assert_eq!(meta["application"], "tls");
    let offered = json!(["h2", "http/1.1"]);
    let tls =
        json!({ "sni": "shop.example", "alpn_offered": offered, "alpn": null, "version": null });
    assert_eq!(meta["tls"], tls);
}

#[test]
fn the_log_has_a_line_when_a_flow_opens_and_one_when_it_ends() {
    skip_unless!(mount);
    let mut fed = Fed::start();
    let log = fed.daemon.path("web/flows.jsonl");
    assert_eq!(fs::read(&log).unwrap(), b"");
    let mut talk = talk(1);
    talk.syn();
    feed(&mut fed, &talk.packets);
    wait_until("it is recorded", 5, || lines(&log).len() == 1);
    let first = lines(&log).remove(0);
    is_meta(&first);
    assert_eq!((&first["id"], &first["state"]), (&json!(1), &json!("opening")));
    assert_eq!(first["name"], talk.name(1));
    assert_eq!((&first["event"], &first["duration_us"]), (&json!("opened"), &json!(0)));
    assert_eq!(first["application"], Value::Null);
    let before = talk.packets.len();
    talk.syn_ack().ack(Client).says(Client, b"hello").says(Server, b"world").close(Server);
    feed(&mut fed, &talk.packets[before..]);
    let meta = wait_flow(&fed.daemon, 1, "closed");
    assert_eq!(meta["event"], "ended");
    wait_until("its end is recorded", 5, || lines(&log).len() == 2);
    let text = fs::read_to_string(&log).unwrap();
    assert_eq!(parsed(&text), [first, meta]);
    assert!(text.ends_with(&fs::read_to_string(flow(&fed.daemon, 1).join("meta.json")).unwrap()));
}

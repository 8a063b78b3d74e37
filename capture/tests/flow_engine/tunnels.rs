//! Tunnels of proxies: TLS and HTTP after CONNECT, after SOCKS, and inside each other.

use capture::flow::{Application, Log};
use serde_json::{Value, json};

use crate::scene::*;

const CONNECT: &[u8] = b"CONNECT secret.example:443 HTTP/1.1\r\nHost: secret.example:443\r\n\r\n";
const CONNECTED: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A `ClientHello` for this server name.
fn client_hello(name: &[u8]) -> Vec<u8> {
    let len16 = |content: &[u8]| {
        [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
    };
    let names = len16(&[&[0][..], &len16(name)].concat());
    let protocols = len16(b"\x02h2\x08http/1.1");
    let extensions = [&[0, 0][..], &len16(&names), &[0, 16], &len16(&protocols)].concat();
    let extensions = len16(&extensions);
    let fixed = [&[3, 3][..], &[0x55; 32], &[0], &[0, 2, 0xc0, 0x2f], &[1, 0]].concat();
    let body = [fixed, extensions].concat();
    let message = [&[1, 0][..], &len16(&body)].concat();
    [&[22, 3, 1][..], &len16(&message)].concat()
}

/// One side, the bytes it sends, and the maximum length of their segments.
type Says<'a> = (usize, &'a [u8], usize);

/// A connection with these turns: its HTTP log and its `meta.json` after its end.
fn said(turns: &[Says<'_>]) -> (Vec<Value>, Value) {
    let mut scene = Scene::new(free());
    let mut talk = Talk::new(1, 2_000);
    scene.send_all(talk.open());
    for (side, data, most) in turns {
        scene.send_all(talk.says(*side, data, *most));
        scene.settle();
    }
    scene.send_all(talk.close());
    scene.settle();
    scene.end();
    (scene.log(Log::Lines(Application::Http)), scene.meta(scene.ids()[0]))
}

/// Index, method, target and status of each transaction. All must be complete.
#[track_caller]
fn transactions(log: &[Value]) -> Vec<(u64, String, String, u64)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for line in log {
        assert_eq!((&line["state"], &line["why"]), (&json!("complete"), &Value::Null), "{line}");
        let number = |name: &str| line[name].as_u64().unwrap();
        all.push((number("index"), text(&line["method"]), text(&line["target"]), number("status")));
    }
    all
}

fn transaction(index: u64, method: &str, target: &str) -> (u64, String, String, u64) {
    (index, method.into(), target.into(), 200)
}

/// A `ServerHello` of TLS 1.2 with `extensions` as its list of extensions.
fn server_hello(extensions: &[u8]) -> Vec<u8> {
    let len16 = |content: &[u8]| {
        [&u16::try_from(content.len()).unwrap().to_be_bytes()[..], content].concat()
    };
    let body = [&[3, 3][..], &[0x55; 32], &[0, 0xc0, 0x2f, 0], &len16(extensions)].concat();
    let message = [&[2, 0][..], &len16(&body)].concat();
    [&[22, 3, 3][..], &len16(&message)].concat()
}

#[test]
fn the_alpn_offer_of_a_client_is_not_the_servers_choice() {
    let hello = client_hello(b"far.example");
    let chosen = server_hello(&[0, 16, 0, 5, 0, 3, 2, b'h', b'2']);
    for (server, alpn) in [(server_hello(&[]), Value::Null), (chosen, json!("h2"))] {
        let (_, meta) = said(&[(CLIENT, &hello, 1_000), (SERVER, &server, 1_000)]);
        let expected = json!({
            "sni": "far.example",
            "alpn_offered": ["h2", "http/1.1"],
            "alpn": alpn,
            "version": "TLS 1.2",
        });
        assert_eq!(meta["tls"], expected);
        let (_, meta) = said(&[(SERVER, &server, 1_000)]);
        let expected =
            json!({ "sni": null, "alpn_offered": null, "alpn": alpn, "version": "TLS 1.2" });
        assert_eq!(meta["tls"], expected, "the client's hello was not captured");
    }
    let (_, meta) = said(&[(CLIENT, &hello, 1_000)]);
    assert_eq!((&meta["tls"]["alpn"], &meta["tls"]["version"]), (&Value::Null, &Value::Null));
}

#[test]
fn tls_after_connect_is_named() {
    for most in [7, 1_000] {
        let hello = client_hello(b"secret.example");
        let (log, meta) =
            said(&[(CLIENT, CONNECT, most), (SERVER, CONNECTED, most), (CLIENT, &hello, most)]);
        assert_eq!(meta["application"], "http");
        assert_eq!(meta["tls"]["sni"], "secret.example", "{meta}");
        assert_eq!(transactions(&log), [transaction(1, "CONNECT", "secret.example:443")]);
    }
}

#[test]
fn http_in_a_tunnel_is_found_and_counted_on() {
    let (asks, answers) = (get("/inside"), ok(b"hello"));
    for most in [7, 1_000] {
        let (log, meta) = said(&[
            (CLIENT, CONNECT, most),
            (SERVER, CONNECTED, most),
            (CLIENT, &asks, most),
            (SERVER, &answers, most),
            (CLIENT, &asks, most),
            (SERVER, &answers, most),
        ]);
        let expected = [
            transaction(1, "CONNECT", "secret.example:443"),
            transaction(2, "GET", "/inside"),
            transaction(3, "GET", "/inside"),
        ];
        assert_eq!(transactions(&log), expected);
        assert_eq!(meta["http"]["transactions"], 3);
        assert!(log.iter().skip(1).all(|line| line["response_body"]["bytes"] == 5), "{log:?}");
    }
}

#[test]
fn a_chain_of_proxies_is_followed() {
    let hello = client_hello(b"far.example");
    let (log, meta) = said(&[
        (CLIENT, CONNECT, 1_000),
        (SERVER, CONNECTED, 1_000),
        (CLIENT, CONNECT, 1_000),
        (SERVER, CONNECTED, 1_000),
        (CLIENT, &hello, 1_000),
    ]);
    assert_eq!(meta["tls"]["sni"], "far.example");
    let indexes: Vec<_> = log.iter().map(|line| line["index"].as_u64().unwrap()).collect();
    assert_eq!(indexes, [1, 2]);
}

#[test]
fn http_after_socks_is_found() {
    let socks5: [&[u8]; 4] = [
        b"\x05\x01\0",
        b"\x05\0",
        b"\x05\x01\0\x01\xc0\0\x02\x01\0\x50",
        b"\x05\0\0\x01\0\0\0\0\0\0",
    ];
    let password: [&[u8]; 4] = [
        b"\x05\x02\0\x02",
        b"\x05\x02",
        b"\x01\x02me\x03pwd\x05\x01\0\x03\x0bexample.org\0\x50",
        b"\x01\0\x05\0\0\x01\0\0\0\0\0\0",
    ];
    let socks4: [&[u8]; 4] = [b"\x04\x01\0\x50\xc0\0\x02", b"", b"\x01me\0", b"\0\x5a\0\0\0\0\0\0"];
    let (asks, answers) = (get("/relayed"), ok(b"hello"));
    for proxy in [socks5, password, socks4] {
        for most in [1, 1_000] {
            let turns = [CLIENT, SERVER, CLIENT, SERVER].into_iter().zip(proxy);
            let mut turns: Vec<_> = turns.map(|(side, data)| (side, data, most)).collect();
            turns.extend([(CLIENT, &asks[..], 1_000), (SERVER, &answers[..], 1_000)]);
            let (log, meta) = said(&turns);
            assert_eq!(meta["application"], "http", "{meta}");
            assert_eq!(transactions(&log), [transaction(1, "GET", "/relayed")], "{proxy:?}");
        }
    }
}

#[test]
fn http_of_a_client_that_did_not_wait_for_its_socks_proxy_is_found() {
    let asks = [b"\x05\x01\0\x05\x01\0\x01\xc0\0\x02\x01\0\x50".to_vec(), get("/eager")].concat();
    let answers = [b"\x05\0\x05\0\0\x01\0\0\0\0\0\0".to_vec(), ok(b"hello")].concat();
    for most in [5, 1_000] {
        let (log, _) = said(&[(CLIENT, &asks, most), (SERVER, &answers, most)]);
        assert_eq!(transactions(&log), [transaction(1, "GET", "/eager")]);
    }
}

#[test]
fn connect_through_socks_and_tls_through_both_are_found() {
    let hello = client_hello(b"deep.example");
    let (log, meta) = said(&[
        (CLIENT, b"\x04\x01\0\x50\0\0\0\x01\0example.org\0", 1_000),
        (SERVER, b"\0\x5a\0\0\0\0\0\0", 1_000),
        (CLIENT, CONNECT, 1_000),
        (SERVER, CONNECTED, 1_000),
        (CLIENT, &hello, 1_000),
    ]);
    assert_eq!(transactions(&log), [transaction(1, "CONNECT", "secret.example:443")]);
    assert_eq!(meta["tls"]["sni"], "deep.example");
}

#[test]
fn protocols_after_a_proxy_line_are_found() {
    let line = b"PROXY TCP4 198.51.100.7 192.0.2.80 5555 443\r\n";
    let tls = [&line[..], &client_hello(b"far.example")].concat();
    let http = [&line[..], &get("/far")].concat();
    for most in [20, 1_000] {
        let (_, meta) = said(&[(CLIENT, &tls, most)]);
        assert_eq!(meta["tls"]["sni"], "far.example", "{meta}");
        // Also found without the server's bytes.
        let (log, meta) = said(&[(CLIENT, &http, most)]);
        assert_eq!((log.len(), &meta["application"]), (1, &json!("http")), "{meta}");
        assert_eq!(log[0]["target"], "/far");
    }
}

#[test]
fn other_protocols_in_a_tunnel_are_not_transactions() {
    let (log, meta) = said(&[
        (CLIENT, CONNECT, 1_000),
        (SERVER, CONNECTED, 1_000),
        (SERVER, b"SSH-2.0-OpenSSH_9.2\r\n", 1_000),
        (CLIENT, b"SSH-2.0-OpenSSH_9.2\r\n", 1_000),
        (CLIENT, &[0x99; 900], 20),
    ]);
    assert_eq!(log.len(), 1);
    assert_eq!(meta["tls"], Value::Null);
}

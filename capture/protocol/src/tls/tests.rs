//! Hellos made by hand, byte by byte, and broken in every place.

#![allow(clippy::arithmetic_side_effects, reason = "the numbers of tests are small")]

use proptest::prelude::*;

use super::*;

/// `content` after its length, which has the given number of bytes.
fn vector(len_bytes: usize, content: &[u8]) -> Vec<u8> {
    let len = u32::try_from(content.len()).unwrap().to_be_bytes();
    [&len[4 - len_bytes..], content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector(2, content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector(2, &[&[0][..], &vector(2, name)].concat()))
}

fn alpn(names: &[&[u8]]) -> Vec<u8> {
    extension(16, &vector(2, &names.iter().flat_map(|name| vector(1, name)).collect::<Vec<_>>()))
}

fn versions(versions: &[u16]) -> Vec<u8> {
    let all: Vec<u8> = versions.iter().flat_map(|version| version.to_be_bytes()).collect();
    extension(43, &vector(1, &all))
}

/// A handshake message in records of at most `record` bytes.
fn records(kind: u8, body: &[u8], record: usize) -> Vec<u8> {
    let message = [&[kind][..], &vector(3, body)].concat();
    let records = message.chunks(record).map(|part| [&[22, 3, 1][..], &vector(2, part)].concat());
    records.collect::<Vec<_>>().concat()
}

fn client_body(version: u16, extensions: Option<&[u8]>) -> Vec<u8> {
    let fixed = [
        &version.to_be_bytes()[..],
        &[0x55; 32],
        &vector(1, &[7; 32]),
        &vector(2, &[0x1a, 0x1a, 0x13, 0x01, 0xc0, 0x2f]),
        &vector(1, &[0]),
    ]
    .concat();
    [fixed, extensions.map(|extensions| vector(2, extensions)).unwrap_or_default()].concat()
}

fn server_body(version: u16, random: [u8; 32], extensions: Option<&[u8]>) -> Vec<u8> {
    let fixed =
        [&version.to_be_bytes()[..], &random, &vector(1, &[7; 32]), &[0x13, 0x01, 0]].concat();
    [fixed, extensions.map(|extensions| vector(2, extensions)).unwrap_or_default()].concat()
}

fn client(stream: &[u8]) -> ClientHello {
    match hello(stream) {
        HelloOutcome::Client(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn server(stream: &[u8]) -> ServerHello {
    match hello(stream) {
        HelloOutcome::Server(hello) => hello,
        other => panic!("{other:?}"),
    }
}

fn client_with(extensions: &[u8]) -> ClientHello {
    client(&records(1, &client_body(0x0303, Some(extensions)), 16_384))
}

fn modern() -> Vec<u8> {
    let extensions = [
        extension(0x2a2a, b""),
        server_name(b"www.example.org"),
        alpn(&[b"h2", b"http/1.1"]),
        versions(&[0x9a9a, 0x0304, 0x0303]),
        extension(21, &[0; 200]),
    ];
    client_body(0x0303, Some(&extensions.concat()))
}

#[test]
fn name_version_and_protocols_of_a_client_hello_are_found() {
    let expected = ClientHello {
        server_name: Some("www.example.org".to_owned()),
        version: Version(0x0304),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
    };
    for record in [1, 2, 3, 5, 64, 16_384] {
        let stream = records(1, &modern(), record);
        for cut in 0..stream.len() {
            assert_eq!(hello(&stream[..cut]), HelloOutcome::NotYet, "{cut} bytes");
        }
        assert_eq!(client(&stream), expected);
        assert_eq!(client(&[&stream[..], b"anything"].concat()), expected);
    }
}

#[test]
fn choices_in_a_server_hello_are_found() {
    let body = server_body(0x0303, [1; 32], Some(&extension(43, &[3, 4])));
    let expected = ServerHello { version: Version(0x0304), alpn: None, is_retry: false };
    assert_eq!(server(&records(2, &body, 40)), expected);

    let body = server_body(0x0303, RETRY, Some(&extension(43, &[3, 4])));
    assert!(server(&records(2, &body, 16_384)).is_retry);

    let old = server(&records(2, &server_body(0x0302, [1; 32], Some(&alpn(&[b"h2"]))), 16_384));
    assert_eq!((old.version, old.alpn.as_deref()), (Version(0x0302), Some("h2")));

    let ancient = server(&records(2, &server_body(0x0300, [1; 32], None), 16_384));
    assert_eq!(ancient, ServerHello { version: Version(0x0300), alpn: None, is_retry: false });

    let draft = [&[0x7f, 18][..], &[1; 32], &[0x13, 0x01], &vector(2, b"")].concat();
    assert_eq!(server(&records(2, &draft, 99)).version.to_string(), "TLS 1.3 (draft 18)");
}

#[test]
fn versions_have_names() {
    let names: [(u16, &str); 8] = [
        (0x0002, "SSL 2.0"),
        (0x0300, "SSL 3.0"),
        (0x0301, "TLS 1.0"),
        (0x0302, "TLS 1.1"),
        (0x0303, "TLS 1.2"),
        (0x0304, "TLS 1.3"),
        (0x7f1c, "TLS 1.3 (draft 28)"),
        (0x1a1a, "0x1a1a"),
    ];
    for (version, name) in names {
        assert_eq!(Version(version).to_string(), name);
    }
}

#[test]
fn the_highest_version_that_is_one_counts() {
    let highest = |list: &[u16]| client_with(&versions(list)).version.0;
    assert_eq!(highest(&[0xfafa, 0x0303, 0x0304, 0x0302]), 0x0304);
    assert_eq!(highest(&[0x7f17, 0x7f1c, 0x0303, 0xfb1a]), 0x7f1c);
    assert_eq!(highest(&[0x7f1c, 0x0304]), 0x0304);
    // No version at all, and a list that is longer than its extension: the old field counts.
    assert_eq!(highest(&[0xfafa]), 0x0303);
    assert_eq!(client_with(&extension(43, &[9, 3, 4])).version.0, 0x0303);
    let stream = records(1, &client_body(0x0301, None), 50);
    assert_eq!(client(&stream).version.0, 0x0301);
}

#[test]
fn names_are_fit_to_be_shown() {
    let name = |bytes: &[u8]| client_with(&server_name(bytes)).server_name;
    assert_eq!(name(b"a\x1b[2Jb\n\xff").as_deref(), Some("a\u{fffd}[2Jb\u{fffd}\u{fffd}"));
    assert_eq!(name(b""), None);
    assert_eq!(name(&[b'a'; 300]).unwrap().len(), 255);
    assert_eq!(name(&[0; 300]).unwrap().chars().count(), 85);
    assert_eq!(client_with(&extension(0, &[0, 9, 0])).server_name, None);
    let another_kind = [&[1, 0, 1, b'x'][..], &[0, 0, 2, b'm', b'e']].concat();
    let names = extension(0, &vector(2, &another_kind));
    assert_eq!(client_with(&names).server_name.as_deref(), Some("me"));
    let twice = [server_name(b"one"), server_name(b"two")].concat();
    assert_eq!(client_with(&twice).server_name.as_deref(), Some("one"));
    let many: Vec<&[u8]> = vec![b"x"; 1_000];
    assert_eq!(client_with(&alpn(&many)).alpn.len(), 32);
}

#[test]
fn clients_of_old_speak_the_format_of_ssl_2() {
    let stream = |version: [u8; 2], ciphers: u8, session: u8, challenge: u8| {
        let len = 9 + ciphers + session + challenge;
        let [high, low] = version;
        [0x80, len, 1, high, low, 0, ciphers, 0, session, 0, challenge].to_vec()
    };
    let found = stream([3, 1], 27, 0, 32);
    for cut in 0..found.len() {
        assert_eq!(hello(&found[..cut]), HelloOutcome::NotYet);
    }
    assert_eq!(client(&found).version, Version(0x0301));
    assert_eq!(client(&stream([0, 2], 9, 16, 16)).version.to_string(), "SSL 2.0");
    for broken in [
        stream([3, 9], 27, 0, 32),
        stream([3, 1], 28, 0, 32),
        stream([3, 1], 27, 1, 32),
        stream([3, 1], 27, 0, 8),
        [&[0x80, 99], &found[2..]].concat(),
    ] {
        assert_eq!(hello(&broken), HelloOutcome::No);
    }
}

#[test]
fn other_streams_are_recognized_at_once() {
    for stream in [
        &b"GET / HTTP/1.1\r\n"[..],
        b"SSH-2.0-x",
        &[0],
        &[22, 4],
        &[22, 3, 5],
        &[22, 3, 1, 0, 0],
        &[22, 3, 1, 0x40, 1],
        &[22, 3, 1, 0, 9, 11],
        &[22, 3, 1, 0, 9, 1, 1, 0, 0],
        &[22, 3, 1, 0, 9, 1, 0, 0, 0],
        &[22, 3, 1, 0, 9, 1, 0, 0, 90, 2],
        &[21, 3, 3, 0, 2, 2, 40],
        &[0x80, 0x2e, 4],
    ] {
        assert_eq!(hello(stream), HelloOutcome::No, "{stream:?}");
    }
    // Another record between the parts of a message.
    let stream = records(1, &modern(), 100);
    let alert = [&stream[..105], &[21, 3, 1, 0, 2, 1, 0], &stream[105..]].concat();
    assert_eq!(hello(&alert), HelloOutcome::No);
    // Extensions that do not fill their vector, and one that does not fit.
    let mut short = client_body(0x0303, Some(&[server_name(b"x"), vec![0]].concat()));
    assert_eq!(hello(&records(1, &short, 999)), HelloOutcome::No);
    short.truncate(short.len() - 3);
    assert_eq!(hello(&records(1, &short, 999)), HelloOutcome::No);
}

#[test]
fn enough_bytes_allow_a_decision() {
    let most = LONGEST - 4 - client_body(0x0303, Some(&[])).len() - 4;
    let longest = client_body(0x0303, Some(&extension(21, &vec![0; most])));
    let stream = records(1, &longest, 1);
    assert_eq!(stream.len(), ENOUGH);
    assert_eq!(hello(&stream[..ENOUGH - 1]), HelloOutcome::NotYet);
    assert!(client(&stream).server_name.is_none());
}

proptest! {
    #[test]
    fn a_decision_is_final(
        record in prop_oneof![1..20_usize, Just(500)],
        is_client in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 8),
    ) {
        let chosen = [extension(43, &[3, 4]), alpn(&[b"h2"])].concat();
        let mut stream = if is_client {
            records(1, &modern(), record)
        } else {
            records(2, &server_body(0x0303, [1; 32], Some(&chosen)), record)
        };
        for (at, value) in changes {
            let at = at.index(stream.len());
            stream[at] = value;
        }
        let whole = hello(&stream);
        for cut in cuts {
            let part = hello(&stream[..cut.index(stream.len() + 1)]);
            prop_assert!(part == HelloOutcome::NotYet || part == whole, "{part:?}, then {whole:?}");
        }
    }

    #[test]
    fn no_bytes_panic(start in 0..4_usize, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let starts: [&[u8]; 4] =
            [b"", &[22, 3, 3, 1, 0, 1, 0, 0, 250, 3, 3], &[22, 3, 3, 1, 0, 2, 0, 0, 250, 3, 3], &[0x80]];
        let _ = hello(&[starts[start], &bytes].concat());
    }
}

//! `--what stream`: each byte once and in order.

use pcapfs_tests::conversation::{Client, Conversation, SECOND, Server, noise};

use crate::support::{Savefile, ports, received};

/// Sends the streams of a conversation.
fn streams(talk: &Conversation, options: &[&str]) -> (Vec<u8>, Vec<u8>, String) {
    let options = [&["--what", "stream"], options].concat();
    let (contents, said) = received(&Savefile::of([talk.clone()]), 2, &options);
    let port = |source: &str| {
        let line = said.lines().find(|line| line.ends_with(&format!(" gets {source}")));
        line.and_then(|line| line.split(' ').nth(2)).map(|port| port.parse::<u16>().unwrap())
    };
    let of = |source| port(source).map_or_else(Vec::new, |port| contents[&port].clone());
    (of("10.0.0.1"), of("10.0.0.2"), said)
}

#[test]
fn repetitions_and_wrong_orders_are_put_right() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").segments_of(100);
    talk.open().says(Client, noise(1, 5_000)).repeat().says(Server, noise(2, 3_000));
    talk.says(Client, b"wrong").says(Client, b" order").swap().ack(Server).close(Client);
    let (client, server, said) = streams(&talk, &[]);
    assert!(client == talk.stream(Client) && server == talk.stream(Server), "{said}");
    assert!(!said.contains("not captured"), "{said}");
}

#[test]
fn a_stream_in_the_middle_and_one_that_never_ends_are_sent() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").segments_of(100);
    talk.says(Client, noise(1, 3_000)).says(Server, noise(2, 4_000));
    let (client, server, _) = streams(&talk, &[]);
    assert!(client == talk.stream(Client) && server == talk.stream(Server));
}

#[test]
fn holes_are_left_out_and_counted() {
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open().says(Client, b"before").unseen(Client, [0; 1_000]).ack(Server);
    talk.wait(10 * SECOND).says(Client, b"after").ack(Server).close(Client);
    let (client, _, said) = streams(&talk, &[]);
    assert_eq!(client, b"beforeafter", "{said}");
    assert!(said.contains(", without 1000 bytes that were not captured\n"), "{said}");
}

#[test]
fn the_connections_of_a_source_share_its_port() {
    let mut one = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    one.open().says(Client, b"one").repeat().close(Client);
    // The same ends again: another connection.
    let mut again = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").numbered_from(7, 9);
    again.wait(100 * SECOND).open().says(Client, b" again").close(Client);
    let mut other = Conversation::tcp("10.0.0.1:40001", "10.0.0.3:80");
    other.wait(200 * SECOND).open().says(Client, b" other").close(Client);
    let savefile = Savefile::of([one, again, other]);
    let (contents, _) = received(&savefile, 1, &["--what", "stream"]);
    assert_eq!(contents, ports([b"one again other"]));
    let (contents, _) = received(&savefile, 2, &["--what", "stream", "--connections", "flow"]);
    assert_eq!(contents, ports([b"one again", b" other"]));
}

#[test]
fn tunnels_and_tags_are_seen_through() {
    for talk in [
        Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").in_vxlan(7),
        Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").in_gre(),
        Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80").tagged(&[5]),
    ] {
        let mut talk = talk;
        talk.open().says(Client, b"inside").repeat().says(Server, b"answer").close(Client);
        let (client, server, said) = streams(&talk, &[]);
        assert_eq!((&client[..], &server[..]), (&b"inside"[..], &b"answer"[..]), "{said}");
    }
}

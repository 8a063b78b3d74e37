//! Every stream without its holes, compared with tshark's `follow,tcp,raw`.

use std::collections::BTreeMap;
use std::path::Path;

use pcapfs_tests::{require, run, tool};

use crate::data::{self, in_parallel};
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Endpoint, Flow, Side, Tree};

/// Number of captures in one mount.
const BATCH: usize = 200;

/// A connection as tshark sees it.
#[derive(Debug)]
struct Followed {
    number: usize,
    /// The sender of the first packet, and its peer.
    nodes: [Endpoint; 2],
    streams: [Vec<u8>; 2],
}

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    if let Err(lack) = require::tool("tshark") {
        return vec![Outcome::skipped("tshark follow", &lack)];
    }
    let about = "every stream, as tshark follows it";
    let mut outcome = Outcome::new("tshark follow", about, Reach::All);
    let files = data::captures_below(root);
    let followed = in_parallel(&files, |file| follow(file));
    let mut holes = 0;
    for (files, followed) in files.chunks(BATCH).zip(followed.chunks(BATCH)) {
        let tree = Tree::mount(files);
        for (capture, followed) in tree.captures().iter().zip(followed) {
            match followed {
                Ok(followed) if followed.is_empty() || capture.is_refused() => {}
                Ok(followed) => compare(capture, followed, &mut outcome, &mut holes),
                Err(why) => outcome.note(format!("{}: tshark: {why}", capture.name())),
            }
        }
        outcome.close(tree);
    }
    outcome.note(format!("{holes} of them have holes: there the rest is compared."));
    vec![outcome]
}

/// Number of connections asked for at first. Few captures have more.
const ASKED: usize = 12;

/// All connections of a capture.
fn follow(file: &Path) -> Result<Vec<Followed>, String> {
    let (text, count) = tshark(file, ASKED)?;
    let text = if count > ASKED { tshark(file, count)?.0 } else { text };
    // Follow: tcp,raw / Filter: tcp.stream eq 0 / Node 0: 10.0.0.1:1 / Node 1: ... / lines / ===
    let parts = text.split("Follow: tcp,raw").skip(1);
    let mut followed: Vec<_> =
        parts.filter_map(|part| parse(part).transpose()).collect::<Result<_, _>>()?;
    followed.sort_by_key(|connection| connection.number);
    Ok(followed)
}

/// tshark's output for the first `asked` connections of a capture, and the total number of
/// connections.
fn tshark(file: &Path, asked: usize) -> Result<(String, usize), String> {
    let mut command = tool("tshark");
    command.args(["-T", "fields", "-e", "tcp.stream", "-r"]).arg(file);
    for number in 0..asked {
        command.arg("-z").arg(format!("follow,tcp,raw,{number}"));
    }
    let finished = run(&mut command, 300);
    let text = String::from_utf8(finished.stdout).map_err(|error| error.to_string())?;
    let listed = text.split("\n===").next().unwrap_or_default();
    let numbers = listed.split([',', '\n']).filter_map(|word| word.parse::<usize>().ok());
    let count = numbers.max().map_or(0, |last| last + 1);
    Ok((text, count))
}

fn parse(part: &str) -> Result<Option<Followed>, String> {
    let mut number = 0;
    let mut nodes = [None; 2];
    let mut streams = [Vec::new(), Vec::new()];
    for line in part.lines() {
        if let Some(filter) = line.strip_prefix("Filter: tcp.stream eq ") {
            number = filter.trim().parse().map_err(|_| format!("no number: {line}"))?;
        } else if let Some(node) = line.strip_prefix("Node 0: ") {
            nodes[0] = endpoint(node);
        } else if let Some(node) = line.strip_prefix("Node 1: ") {
            nodes[1] = endpoint(node);
        } else if !line.is_empty() && !line.starts_with('=') {
            let side = usize::from(line.starts_with('\t'));
            let bytes = data::hex(line).ok_or_else(|| format!("not hexadecimal: {line}"))?;
            streams[side].extend_from_slice(&bytes);
        }
    }
    let [Some(one), Some(other)] = nodes else { return Ok(None) };
    Ok(Some(Followed { number, nodes: [one, other], streams }))
}

/// `10.0.0.1:80`, `[2001:db8::1]:80` or the same without brackets.
fn endpoint(text: &str) -> Option<Endpoint> {
    let (address, port) = text.trim().rsplit_once(':')?;
    let address = address.trim_matches(['[', ']']).parse().ok()?;
    Some((address, port.parse().ok()?))
}

type Pair = [Endpoint; 2];

fn pair(mut ends: Pair) -> Pair {
    ends.sort_unstable();
    ends
}

fn compare(capture: &Capture, followed: &[Followed], outcome: &mut Outcome, holes: &mut usize) {
    let mut ours: BTreeMap<Pair, Vec<Flow>> = BTreeMap::new();
    let flows = match capture.connections() {
        Ok(flows) => flows,
        Err(why) => return outcome.case(capture.name(), Err(why)),
    };
    for flow in flows {
        if let (Ok(client), Ok(server)) = (flow.endpoint(Side::Client), flow.endpoint(Side::Server))
        {
            ours.entry(pair([client, server])).or_default().push(flow);
        }
    }
    let mut theirs: BTreeMap<Pair, Vec<&Followed>> = BTreeMap::new();
    for connection in followed {
        theirs.entry(pair(connection.nodes)).or_default().push(connection);
    }
    for (ends, theirs) in theirs {
        let mut flows = ours.remove(&ends).unwrap_or_default();
        let counts = format!("{} of {} connections", flows.len(), theirs.len());
        // Ports are reused. Pair equal connections first, then the others in their order.
        let mut left = Vec::new();
        for connection in theirs {
            let case = format!("{} stream {}", capture.name(), connection.number);
            match flows.iter().position(|flow| same(flow, connection).is_ok()) {
                Some(index) => {
                    *holes += usize::from(same(&flows.remove(index), connection) == Ok(false));
                    outcome.case(case, Ok(()));
                }
                None => left.push((case, connection)),
            }
        }
        let mut flows = flows.into_iter();
        for (case, connection) in left {
            let Some(flow) = flows.next() else {
                outcome.case(case, Err(format!("not found: {counts}")));
                continue;
            };
            let result = same(&flow, connection).map(|_| ());
            outcome.case(case, result.map_err(|why| format!("{}: {why}", flow.name())));
        }
        ours.entry(ends).or_default().extend(flows);
    }
    for flow in ours.into_values().flatten() {
        let case = format!("{} {}", capture.name(), flow.name());
        outcome.case(case, Err("tshark sees no such connection".to_owned()));
    }
}

/// Compares a connection without its holes. Returns whether it has none.
fn same(flow: &Flow, connection: &Followed) -> Result<bool, String> {
    for (node, bytes) in connection.nodes.iter().zip(&connection.streams) {
        let side = if flow.endpoint(Side::Client)? == *node { Side::Client } else { Side::Server };
        let mut stream = flow.stream(side)?;
        for (start, end) in flow.gaps(side)?.into_iter().rev() {
            if end > stream.len() {
                return Err(format!("a gap to {end} in {} bytes", stream.len()));
            }
            drop(stream.drain(start..end));
        }
        let theirs = without_notes(bytes);
        // tshark declares bytes lost and goes on after them only when the other side acknowledges
        // later bytes. A capture may lack the other side.
        let stops = !flow.gaps(side)?.is_empty() && theirs.len() == bytes.len();
        if !(stops && stream.starts_with(&theirs)) {
            data::same(side.name(), &stream, &theirs)?;
        }
    }
    flow.is_whole()
}

/// A stream without the notes that tshark writes where bytes are missing.
fn without_notes(bytes: &[u8]) -> Vec<u8> {
    const NOTE: &[u8] = b" bytes missing in capture file]";
    let mut left = bytes.to_owned();
    while let Some(at) = left.windows(NOTE.len()).position(|window| window == NOTE) {
        let begin = left[..at].iter().rposition(|&byte| byte == b'[').unwrap_or(at);
        // It also writes the terminator of its C string.
        let end = at + NOTE.len();
        drop(left.drain(begin..end + usize::from(left.get(end) == Some(&0))));
    }
    left
}

//! Every stream without a hole, beside what tshark's `follow,tcp,raw` gives.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pcapfs_tests::{require, run, tool};

use crate::data::{self, in_parallel};
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Endpoint, Flow, Side, Tree};

/// Captures in one mount.
const BATCH: usize = 200;

/// A connection as tshark sees it.
#[derive(Debug)]
struct Followed {
    number: usize,
    /// The one that sent the first packet, and the other.
    nodes: [Endpoint; 2],
    streams: [Vec<u8>; 2],
}

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    if let Err(lack) = require::tool("tshark") {
        return vec![Outcome::skipped("tshark follow", &lack)];
    }
    let about = "every stream without a hole, as tshark follows it";
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
    outcome.note(format!("{holes} connections with holes are not compared."));
    vec![outcome]
}

/// All connections of a capture.
fn follow(file: &Path) -> Result<Vec<Followed>, String> {
    let mut command = tool("tshark");
    let listed = run(command.args(["-T", "fields", "-e", "tcp.stream", "-r"]).arg(file), 120);
    let numbers = listed.text().split([',', '\n']).filter_map(|word| word.parse::<usize>().ok());
    let Some(last) = numbers.max() else { return Ok(Vec::new()) };
    let mut command = tool("tshark");
    command.arg("-q").arg("-r").arg(file);
    for number in 0..=last {
        command.arg("-z").arg(format!("follow,tcp,raw,{number}"));
    }
    let finished = run(&mut command, 300);
    let text = String::from_utf8_lossy(&finished.stdout);
    // Follow: tcp,raw / Filter: tcp.stream eq 0 / Node 0: 10.0.0.1:1 / Node 1: ... / lines / ===
    text.split("Follow: tcp,raw").skip(1).filter_map(|part| parse(part).transpose()).collect()
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
        let ours = ours.remove(&ends).unwrap_or_default();
        for (index, connection) in theirs.iter().enumerate() {
            let case = format!("{} stream {}", capture.name(), connection.number);
            let Some(flow) = ours.get(index) else {
                let count = format!("{} of {} connections", ours.len(), theirs.len());
                outcome.case(case, Err(format!("not found: {count}")));
                continue;
            };
            match same(flow, connection) {
                Ok(true) => outcome.case(case, Ok(())),
                Ok(false) => *holes += 1,
                Err(why) => outcome.case(case, Err(format!("{}: {why}", flow.name()))),
            }
        }
        if ours.len() > theirs.len() {
            let more: PathBuf = ours[theirs.len()].folder.file_name().unwrap_or_default().into();
            let case = format!("{} {}", capture.name(), more.display());
            outcome.case(case, Err("tshark sees no such connection".to_owned()));
        }
    }
    for flow in ours.into_values().flatten() {
        let case = format!("{} {}", capture.name(), flow.name());
        outcome.case(case, Err("tshark sees no such connection".to_owned()));
    }
}

/// Whether a connection has no hole; an error if it has none and differs.
fn same(flow: &Flow, connection: &Followed) -> Result<bool, String> {
    if !flow.is_whole()? {
        return Ok(false);
    }
    for (node, bytes) in connection.nodes.iter().zip(&connection.streams) {
        let side = if flow.endpoint(Side::Client)? == *node { Side::Client } else { Side::Server };
        data::same(side.name(), &flow.stream(side)?, bytes)?;
    }
    Ok(true)
}

//! Generated captures, whose truth the generator writes beside them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use pcapfs_tests::{require, run, tool};
use serde_json::Value;

use crate::data::in_parallel;
use crate::digest;
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Endpoint, Flow, Side, Tree, json_lines};

const SEEDS: u32 = 10;
const FLOWS: &str = "60";

/// Kinds of traffic, each with its name and the generator's options. In all of them, one of eight
/// flows wraps its sequence numbers.
const KINDS: &[(&str, &[&str])] = &[
    ("clean", &[]),
    ("reorder", &["--reorder", "0.1"]),
    ("dup", &["--dup", "0.1"]),
    ("overlap", &["--overlap", "0.1"]),
    ("VLAN", &["--vlan", "1"]),
    ("IPv6", &["--ipv6", "1"]),
    ("pipelining", &["--pipeline", "1"]),
    ("RST", &["--rst", "1"]),
    ("small segments", &["--mss", "64", "--body", "4000"]),
    (
        "all of them",
        &[
            "--reorder",
            "0.05",
            "--dup",
            "0.05",
            "--overlap",
            "0.05",
            "--vlan",
            "0.3",
            "--ipv6",
            "0.3",
            "--pipeline",
            "0.4",
            "--rst",
            "0.3",
            "--nano",
        ],
    ),
];

const DROP: (&str, &[&str]) = ("drop 2 %", &["--drop", "0.02"]);

/// Fractions of packets that are dropped while all clients pipeline.
const LOSSES: &[&str] = &["0.005", "0.01", "0.03", "0.05", "0.1"];
const LOSS_SEEDS: u32 = 20;

/// Checks captures of pipelined exchanges with losses: exchanges called complete are correct, and
/// 95 % of those that certainly lie outside of all gaps are complete.
fn check_losses(generator: &Path) -> Outcome {
    let folder = tempfile::tempdir().expect("a folder for generated captures");
    let wanted: Vec<_> =
        LOSSES.iter().flat_map(|loss| (1..=LOSS_SEEDS).map(move |seed| (loss, seed))).collect();
    let files = in_parallel(&wanted, |(loss, seed)| {
        let path = folder.path().join(format!("{loss}-{seed}.pcap"));
        let mut command = tool("python3");
        command.arg(generator).arg(&path).args(["--flows", FLOWS, "--pipeline", "1"]);
        let _ = run(command.args(["--drop", loss, "--seed", &seed.to_string()]), 120).success();
        path
    });
    let tree = Tree::mount(&files);
    let about = "generated, pipelined, 0.5 to 10 % of packets dropped, twenty seeds: what is \
                 complete is right";
    let mut outcome = Outcome::new("wiregen loss", about, Reach::All);
    let mut known: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for ((loss, seed), capture) in wanted.iter().zip(tree.captures()) {
        let found = complete_is_right(capture);
        if let Ok((complete, outside)) = found {
            let sum = known.entry(loss).or_default();
            *sum = (sum.0 + complete, sum.1 + outside);
        }
        outcome.case(format!("drop {loss}, seed {seed}"), found.map(drop));
    }
    for (loss, (complete, outside)) in known {
        let share =
            format!("drop {loss}: {complete} of {outside} outside of all gaps are complete");
        outcome
            .case(share.clone(), if complete * 100 >= outside * 95 { Ok(()) } else { Err(share) });
    }
    outcome.close(tree);
    outcome
}

/// Returns the number of complete exchanges outside of all gaps, and the number of all exchanges
/// outside of all gaps.
fn complete_is_right(capture: &Capture) -> Result<(usize, usize), String> {
    let truth = truth(&capture.file);
    let (mut known, mut all) = (0, 0);
    let mut sums: Vec<(PathBuf, String)> = Vec::new();
    for flow in capture.connections()? {
        let ends = (flow.endpoint(Side::Client)?, flow.endpoint(Side::Server)?);
        let is_it = |truth: &&Value| {
            endpoint(&truth["client"]).zip(endpoint(&truth["server"])) == Some(ends)
        };
        let truth = truth.iter().find(is_it).ok_or("a connection that is not in the truth")?;
        let theirs = truth["transactions"].as_array().cloned().unwrap_or_default();
        let ours = flow.transactions()?;
        let complete: Vec<_> = ours.iter().filter(|one| one["state"] == "complete").collect();
        for ours in &complete {
            let target = &ours["target"];
            let Some(theirs) = theirs.iter().find(|theirs| theirs["target"] == *target) else {
                return Err(format!("{target} is complete and was not sent"));
            };
            if ours["status"] != theirs["status"] {
                return Err(format!(
                    "{target} has status {}, not {}",
                    ours["status"], theirs["status"]
                ));
            }
            for body in ["request_body", "response_body"] {
                let path = ours[body]["file"].as_str().map(|file| flow.folder.join(file));
                let wanted = theirs[format!("{body}_sha256")].as_str().unwrap_or_default();
                sums.push((path.unwrap_or_else(|| "/dev/null".into()), wanted.to_owned()));
            }
        }
        for (theirs, outside) in theirs.iter().zip(outside_holes(&flow, &theirs)?) {
            let is_known = complete.iter().any(|ours| ours["target"] == theirs["target"]);
            all += usize::from(outside);
            known += usize::from(outside && is_known);
        }
    }
    let paths: Vec<_> = sums.iter().map(|(path, _)| path).collect();
    for ((path, wanted), got) in sums.iter().zip(digest::of("sha256sum", &paths)) {
        if got? != *wanted {
            return Err(format!("{} is another body", path.display()));
        }
    }
    Ok((known, all))
}

pub(crate) fn check(generator: &Path) -> Vec<Outcome> {
    if let Err(lack) = require::tool("python3") {
        return vec![Outcome::skipped("wiregen", &lack)];
    }
    let folder = tempfile::tempdir().expect("a folder for generated captures");
    let kinds = KINDS.iter().chain([&DROP]);
    let wanted: Vec<_> =
        kinds.flat_map(|kind| (1..=SEEDS).map(move |seed| (kind, seed))).enumerate().collect();
    let files = in_parallel(&wanted, |(number, ((_, options), seed))| {
        let path = folder.path().join(format!("{number}.pcap"));
        let mut command = tool("python3");
        command.arg(generator).arg(&path).args(["--flows", FLOWS, "--seed", &seed.to_string()]);
        let _ = run(command.args(*options), 120).success();
        path
    });
    let tree = Tree::mount(&files);
    let mut whole = Outcome::new(
        "wiregen",
        "generated: streams and decoded bodies of every flow, ten seeds of ten kinds",
        Reach::All,
    );
    let mut holes = Outcome::new(
        "wiregen drop",
        "generated with 2 % of packets dropped, ten seeds: gaps, the rest, transactions",
        Reach::All,
    );
    for ((_, ((kind, _), seed)), capture) in wanted.iter().zip(tree.captures()) {
        let outcome = if *kind == DROP.0 { &mut holes } else { &mut whole };
        look(&format!("{kind}, seed {seed}"), capture, outcome);
    }
    whole.close(tree);
    vec![whole, holes, check_losses(generator)]
}

/// The checksum that a file should have.
struct Sum {
    case: String,
    path: PathBuf,
    wanted: String,
}

fn look(kind: &str, capture: &Capture, outcome: &mut Outcome) {
    let truth = truth(&capture.file);
    let flows = match capture.connections() {
        Ok(flows) => flows,
        Err(why) => return outcome.case(kind, Err(why)),
    };
    let more = flows.len().abs_diff(truth.len());
    if more > 0 {
        let found = format!("{} connections instead of {}", flows.len(), truth.len());
        outcome.case(kind, Err(found));
    }
    let mut ours: HashMap<(Endpoint, Endpoint), Flow> = HashMap::new();
    for flow in flows {
        if let (Ok(client), Ok(server)) = (flow.endpoint(Side::Client), flow.endpoint(Side::Server))
        {
            ours.insert((client, server), flow);
        }
    }
    let scratch = tempfile::tempdir_in("/dev/shm").expect("a folder on tmpfs");
    let mut sums = Vec::new();
    let mut results: BTreeMap<String, Result<(), String>> = BTreeMap::new();
    for (number, truth) in truth.iter().enumerate() {
        let ends = (endpoint(&truth["client"]), endpoint(&truth["server"]));
        let case = format!("{kind}, {} to {}", truth["client"], truth["server"]).replace('"', "");
        let result = match ends.0.zip(ends.1).and_then(|ends| ours.remove(&ends)) {
            Some(flow) => {
                let cut = scratch.path().join(number.to_string());
                one(&case, &flow, truth, &cut, &mut sums)
            }
            None => Err("no such connection".to_owned()),
        };
        results.insert(case, result);
    }
    let paths: Vec<&PathBuf> = sums.iter().map(|sum| &sum.path).collect();
    for (sum, got) in sums.iter().zip(digest::of("sha256sum", &paths)) {
        let result = got.and_then(|got| if got == sum.wanted { Ok(()) } else { Err(got) });
        if let (Err(got), Some(Ok(()))) = (result, results.get(&sum.case)) {
            let name = sum.path.file_name().unwrap_or_default().to_string_lossy();
            let wrong = format!("{name} has sha256 {got} instead of {}", sum.wanted);
            results.insert(sum.case.clone(), Err(wrong));
        }
    }
    for (case, result) in results {
        outcome.case(case, result);
    }
}

fn truth(capture: &Path) -> Vec<Value> {
    let mut path = capture.as_os_str().to_owned();
    path.push(".truth");
    let mut lines = json_lines(Path::new(&path)).expect("the generator wrote the truth");
    lines.retain(|line| line["kind"] == "flow");
    lines
}

fn endpoint(text: &Value) -> Option<Endpoint> {
    let (address, port) = text.as_str()?.rsplit_once(':')?;
    Some((address.parse().ok()?, port.parse().ok()?))
}

/// Compares one flow. Checksums are collected in `sums`, to be computed together later.
fn one(
    case: &str,
    flow: &Flow,
    truth: &Value,
    cut: &Path,
    sums: &mut Vec<Sum>,
) -> Result<(), String> {
    let mut add = |path: PathBuf, wanted: &Value| {
        let wanted = wanted.as_str().unwrap_or_default().to_owned();
        sums.push(Sum { case: case.to_owned(), path, wanted });
    };
    if truth["vlan"] != flow.meta["vlan"] {
        return Err(format!("vlan is {} instead of {}", flow.meta["vlan"], truth["vlan"]));
    }
    let mut whole = true;
    for side in Side::BOTH {
        let name = side.name();
        let size = fs::metadata(flow.path(side)).map_err(|error| error.to_string())?.len();
        if truth[format!("{name}_len")] != size {
            return Err(format!("{name} has {size} bytes, not {}", truth[format!("{name}_len")]));
        }
        let gaps = flow.gaps(side)?;
        let holes = ranges(&truth[format!("{name}_holes")]);
        if gaps != holes {
            return Err(format!("{name} has the gaps {gaps:?}, not {holes:?}"));
        }
        if holes.is_empty() {
            add(flow.path(side), &truth[format!("{name}_sha256")]);
        } else {
            whole = false;
            let mut stream = flow.stream(side)?;
            for (start, end) in holes.into_iter().rev() {
                drop(stream.drain(start..end));
            }
            let path = cut.with_extension(name);
            fs::write(&path, stream).map_err(|error| error.to_string())?;
            add(path, &truth[format!("{name}_seen_sha256")]);
        }
    }
    let ours = flow.transactions()?;
    let theirs = truth["transactions"].as_array().cloned().unwrap_or_default();
    let counted = &flow.meta["http"]["transactions"];
    if whole && (ours.len() != theirs.len() || *counted != theirs.len()) {
        let counts = format!("{} transactions, {counted} in meta.json", ours.len());
        return Err(format!("{counts}, instead of {}", theirs.len()));
    }
    let outside = if whole { vec![true; theirs.len()] } else { outside_holes(flow, &theirs)? };
    for (theirs, _) in theirs.iter().zip(outside).filter(|(_, outside)| *outside) {
        let target = &theirs["target"];
        let Some(ours) = ours.iter().find(|ours| ours["target"] == *target) else {
            return Err(format!("no transaction of {target}"));
        };
        for field in ["method", "status"] {
            if ours[field] != theirs[field] {
                return Err(format!("{target}: {field} is {}, not {}", ours[field], theirs[field]));
            }
        }
        if ours["state"] != "complete" {
            return Err(format!("{target} is {}, because {}", ours["state"], ours["why"]));
        }
        if ours["response_body"]["bytes"].as_u64().unwrap_or(0) != theirs["response_body_len"] {
            return Err(format!("{target}: response_body is {}", ours["response_body"]));
        }
        for body in ["request_body", "response_body"] {
            let path = ours[body]["file"].as_str().map(|file| flow.folder.join(file));
            add(path.unwrap_or_else(|| "/dev/null".into()), &theirs[format!("{body}_sha256")]);
        }
    }
    Ok(())
}

fn ranges(list: &Value) -> Vec<(usize, usize)> {
    let number = |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok());
    let list = list.as_array().into_iter().flatten();
    list.filter_map(|range| number(&range[0]).zip(number(&range[1]))).collect()
}

/// For each transaction, whether it certainly lies outside of every hole: all its bytes are there.
///
/// Request lines are unique, so they are found. Status lines are used when there are as many as
/// transactions, or else those before the first hole.
fn outside_holes(flow: &Flow, transactions: &[Value]) -> Result<Vec<bool>, String> {
    let mut outside = vec![true; transactions.len()];
    for side in Side::BOTH {
        let stream = flow.stream(side)?;
        let holes = flow.gaps(side)?;
        let begins = match side {
            Side::Client => requests(&stream, transactions),
            Side::Server => responses(&stream, transactions, holes.first().map(|hole| hole.0)),
        };
        for (index, outside) in outside.iter_mut().enumerate() {
            let begin = begins[index];
            let last = index + 1 == transactions.len();
            let end = if last { Some(stream.len()) } else { begins[index + 1] };
            *outside &= begin.zip(end).is_some_and(|(begin, end)| {
                holes.iter().all(|hole| hole.1 <= begin || hole.0 >= end)
            });
        }
    }
    Ok(outside)
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    let found = bytes.get(from..)?.windows(what.len()).position(|window| window == what)?;
    Some(from + found)
}

fn requests(stream: &[u8], transactions: &[Value]) -> Vec<Option<usize>> {
    let line = |transaction: &Value| {
        let text = |field: &str| transaction[field].as_str().unwrap_or_default().to_owned();
        format!("{} {} HTTP/1.1\r\n", text("method"), text("target"))
    };
    transactions.iter().map(|transaction| find(stream, line(transaction).as_bytes(), 0)).collect()
}

fn responses(stream: &[u8], transactions: &[Value], hole: Option<usize>) -> Vec<Option<usize>> {
    let mut begins = Vec::new();
    let mut from = 0;
    // An interim response belongs to the response after it.
    let mut interim = None;
    while let Some(at) = find(stream, b"HTTP/1.1 ", from) {
        from = at + 1;
        let rest = &stream[at + 9..];
        if rest.starts_with(b"100 ") {
            interim = Some(at);
        } else if rest.get(3..7) == Some(b" X\r\n") {
            begins.push(Some(interim.take().unwrap_or(at)));
        }
    }
    if begins.len() != transactions.len() {
        begins.retain(|begin| begin.zip(hole).is_some_and(|(begin, hole)| begin < hole));
    }
    begins.resize(transactions.len(), None);
    begins
}

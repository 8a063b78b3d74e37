//! The checksums that tcpflow's own tests expect, and the synthetic connections of Arkime's tests.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use crate::data;
use crate::digest;
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Endpoint, Side, Tree, json};

/// A line of the list.
struct Line {
    sender: Endpoint,
    receiver: Endpoint,
    md5: String,
    name: String,
}

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    let about = "tcpflow: md5 of streams";
    let mut outcome = Outcome::new("tcpflow", about, Reach::All);
    let list = fs::read_to_string(root.join("tcpflow-streams.tsv")).unwrap_or_default();
    let mut captures: BTreeMap<PathBuf, Vec<Line>> = BTreeMap::new();
    for line in list.lines().skip(1) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [capture, name, md5, ..] = fields[..] else { continue };
        let path = root.join("simsong+tcpflow/tests").join(capture);
        match parse(name) {
            Some((sender, receiver)) => captures.entry(path).or_default().push(Line {
                sender,
                receiver,
                md5: md5.to_owned(),
                name: format!("{capture} {name}"),
            }),
            None => outcome.case(name, Err("a name that was not understood".to_owned())),
        }
    }
    let tree = Tree::mount(captures.keys());
    for (capture, lines) in tree.captures().iter().zip(captures.values()) {
        for line in lines {
            outcome.case(&line.name, holds(capture, line));
        }
    }
    outcome.close(tree);
    vec![outcome, arkime(root)]
}

/// `074.125.019.101.00080-192.168.001.102.50956--42`. The VLAN at the end is ignored.
fn parse(name: &str) -> Option<(Endpoint, Endpoint)> {
    let (sender, receiver) = name.split("--").next()?.split_once('-')?;
    Some((endpoint(sender)?, endpoint(receiver)?))
}

fn endpoint(text: &str) -> Option<Endpoint> {
    let (address, port) = text.rsplit_once('.')?;
    let octets: Option<Vec<u8>> = address.split('.').map(|octet| octet.parse().ok()).collect();
    let address = match octets.and_then(|octets| <[u8; 4]>::try_from(octets).ok()) {
        Some(octets) => IpAddr::from(Ipv4Addr::from(octets)),
        None => address.parse().ok()?,
    };
    Some((address, port.parse().ok()?))
}

fn holds(capture: &Capture, line: &Line) -> Result<(), String> {
    let mut seen = Vec::new();
    for flow in capture.connections()? {
        let ends = (flow.endpoint(Side::Client)?, flow.endpoint(Side::Server)?);
        let side = if ends == (line.sender, line.receiver) {
            Side::Client
        } else if ends == (line.receiver, line.sender) {
            Side::Server
        } else {
            continue;
        };
        let sum = digest::of("md5sum", &[flow.path(side)]).remove(0)?;
        if sum == line.md5 {
            return Ok(());
        }
        seen.push(format!("{sum}, {} bytes", flow.stream(side)?.len()));
    }
    Err(format!(
        "{} instead of {}",
        if seen.is_empty() { "none".into() } else { seen.join("; ") },
        line.md5
    ))
}

/// The content of the responses in the synthetic connections.
const PATTERN: &[u8] = b"0123456789abcdef0123456789abcdef";

fn arkime(root: &Path) -> Outcome {
    let about = "Arkime: tcp-reassembly-synthetic";
    let mut outcome = Outcome::new("Arkime", about, Reach::All);
    let file = root.join("arkime+arkime/tests/pcap/tcp-reassembly-synthetic.pcap");
    let truth = json(&file.with_extension("test")).unwrap_or_default();
    let tree = Tree::mount([&file]);
    let flows = match tree.captures()[0].connections() {
        Ok(flows) => flows,
        Err(why) => {
            outcome.case("mount", Err(why));
            return outcome;
        }
    };
    let sessions = truth["sessions3"].as_array().cloned().unwrap_or_default();
    let mut flows = flows.into_iter();
    for session in &sessions {
        let body = &session["body"];
        let uri = body["http"]["uri"][0].as_str().unwrap_or_default();
        let case = format!("{} {uri}", body["source"]["port"]);
        let Some(flow) = flows.next() else {
            outcome.case(case, Err("no such connection".to_owned()));
            continue;
        };
        outcome.case(
            case,
            (|| {
                let sizes = ["client", "server"].map(|side| body[side]["bytes"].as_u64());
                let (client, server) = (flow.stream(Side::Client)?, flow.stream(Side::Server)?);
                let got = [client.len(), server.len()].map(|length| Some(length as u64));
                let target = uri.split_once('/').map(|(_, target)| target).unwrap_or_default();
                if !client.starts_with(format!("GET /{target} ").as_bytes()) {
                    return Err(format!("{}: not the request", flow.name()));
                }
                if sizes[1] >= Some(8) && !server.starts_with(b"HTTP") {
                    let mut wanted = PATTERN.to_owned();
                    for (start, end) in flow.gaps(Side::Server)? {
                        wanted.get_mut(start..end).ok_or("a gap outside")?.fill(0);
                    }
                    data::same("the response", &server, &wanted)?;
                }
                if got == sizes {
                    Ok(())
                } else {
                    Err(format!("sizes {got:?} instead of {sizes:?}"))
                }
            })(),
        );
    }
    outcome.close(tree);
    let more = flows.count();
    outcome.case("nothing else", if more == 0 { Ok(()) } else { Err(format!("{more} more")) });
    outcome
}

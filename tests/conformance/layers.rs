//! Conversations inside of VLANs, labels and tunnels: as many as tshark sees.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use pcapfs_tests::{require, run, tool};

use crate::data::{self, in_parallel};
use crate::outcome::{Outcome, Reach};
use crate::tree::{Capture, Tree};

/// Folders with captures of layers, and the beginnings of their names.
const CAPTURES: [(&str, &[&str]); 4] = [
    (
        "zeek+zeek/testing/btest/Traces",
        &[
            "erspan",
            "http-qinq",
            "http-vlan",
            "ipv6-http",
            "linux_dlt_sll2",
            "linuxsll",
            "mixed-vlan",
            "mpls",
            "nflog",
            "pcapng-multi",
            "pppoe",
            "q-in-q",
            "4in",
            "6in",
            "Teredo",
            "geneve",
            "gre",
            "ping6",
            "teredo",
            "tunnel-direct",
            "vxlan",
        ],
    ),
    (
        "arkime+arkime/tests/pcap",
        &["bigendian", "gre", "ipv6", "mpls", "tcpdump-geneve", "twovlan", "v6", "vxlan"],
    ),
    (
        "the-tcpdump-group+tcpdump/tests",
        &["802", "bigtcp", "gso", "geneve", "pppoe", "various_gre", "LINKTYPE"],
    ),
    (
        "OISF+suricata-verify/tests",
        &["decode-", "vxlan-", "geneve-", "eve-flow-vlan", "detect-vlan"],
    ),
];

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    if let Err(lack) = require::tool("tshark") {
        return vec![Outcome::skipped("layers", &lack)];
    }
    let about = "VLAN, MPLS, PPPoE, tunnels, big frames: innermost conversations as in tshark";
    let mut outcome = Outcome::new("layers", about, Reach::All);
    let files = captures(root);
    let theirs = in_parallel(&files, |file| conversations(file));
    let tree = Tree::mount(&files);
    for (capture, theirs) in tree.captures().iter().zip(&theirs) {
        outcome.case(capture.name(), compare(capture, theirs));
    }
    outcome.close(tree);
    vec![outcome]
}

fn captures(root: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for (folder, begins) in CAPTURES {
        let folder = root.join(folder);
        for file in data::captures_below(&folder) {
            let inside = file.strip_prefix(&folder).unwrap_or(&file);
            // `decode-x/input.pcap` is chosen by its folder, `tunnels/gre.pcap` by its name.
            let by = match inside.file_name() {
                Some(name) if inside.starts_with("tunnels") => Path::new(name),
                _ => inside,
            };
            let by = by.to_string_lossy();
            if begins.iter().any(|begin| by.starts_with(begin)) {
                files.push(file);
            }
        }
    }
    files
}

/// Numbers of the innermost conversations of TCP and of UDP.
type Conversations = BTreeMap<&'static str, BTreeSet<String>>;

fn conversations(file: &Path) -> Conversations {
    let mut command = tool("tshark");
    command.args(["-T", "fields", "-E", "occurrence=a", "-E", "separator=;"]);
    command.args(["-e", "frame.protocols", "-e", "tcp.stream", "-e", "udp.stream", "-r"]);
    let finished = run(command.arg(file), 120);
    let mut found = Conversations::from([("tcp", BTreeSet::new()), ("udp", BTreeSet::new())]);
    for line in finished.text().lines() {
        let mut fields = line.split(';');
        let protocols: Vec<&str> = fields.next().unwrap_or_default().split(':').collect();
        let Some(innermost) = protocols.iter().rposition(|name| matches!(*name, "tcp" | "udp"))
        else {
            continue;
        };
        // Headers quoted in an ICMP error are not a packet of their conversation. The innermost IP
        // packet counts. An ICMP packet in a tunnel belongs to no conversation, but a frame without
        // IP in a tunnel belongs to the tunnel's conversation.
        let quoted = protocols[..innermost].iter().any(|name| name.starts_with("icmp"));
        let inside = protocols[innermost..].iter().any(|name| matches!(*name, "ip" | "ipv6"));
        if quoted || inside {
            continue;
        }
        let (tcp, udp) = (fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
        let (name, numbers) =
            if protocols[innermost] == "tcp" { ("tcp", tcp) } else { ("udp", udp) };
        if let Some(number) = numbers.split(',').next_back().filter(|number| !number.is_empty()) {
            found.entry(name).or_default().insert(number.to_owned());
        }
    }
    found
}

fn compare(capture: &Capture, theirs: &Conversations) -> Result<(), String> {
    let flows = capture.flows()?;
    let count = |name: &str| flows.iter().filter(|flow| flow.meta["protocol"] == name).count();
    let ours = [count("tcp"), count("udp")];
    let wanted = ["tcp", "udp"].map(|name| theirs.get(name).map_or(0, BTreeSet::len));
    if ours != wanted {
        return Err(format!(
            "{} of TCP and {} of UDP instead of {} and {} ({} undecodable)",
            ours[0],
            ours[1],
            wanted[0],
            wanted[1],
            capture.count("/flows/undecodable")?
        ));
    }
    Ok(())
}

//! Captures of other projects, each sent into a receiver.
//!
//! An obvious decoder says what their payload is: Ethernet with tags, IPv4 and IPv6, TCP. It gives up
//! a capture with anything else in it, such as tunnels, fragments or headers that are cut. Of those,
//! the receiver must have as many bytes as the sender says.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use pcapfs_tests::require::testdata;
use pcapfs_tests::savefile::{Parser, PcapParser, Record};
use pcapfs_tests::{Finished, Receiving};

use crate::support::{json, send};

/// All captures below a folder.
fn savefiles(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            savefiles(&path, found);
        } else if path.extension().is_some_and(|end| end == "pcap" || end == "pcapng") {
            found.push(path);
        }
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The source and the payload of a TCP segment in an Ethernet frame; `Ok(None)` if it is something
/// else that is not sent, and `Err` if the obvious decoder does not know.
fn segment(frame: &[u8], wire: usize) -> Result<Option<(IpAddr, &[u8])>, ()> {
    if frame.len() != wire {
        return Err(());
    }
    let mut at = 12;
    let mut kind = word(frame, at).ok_or(())?;
    while [0x8100, 0x88a8, 0x9100].contains(&kind) {
        at += 4;
        kind = word(frame, at).ok_or(())?;
    }
    let ip = frame.get(at + 2..).ok_or(())?;
    match kind {
        0x0800 => ipv4(ip),
        0x86dd => ipv6(ip),
        // ARP, LLDP, EAPOL, and lengths of LLC that carry spanning trees.
        0x0806 | 0x88cc | 0x888e | 0x9000 => Ok(None),
        _ => Err(()),
    }
}

/// UDP ports of tunnels: VXLAN, Geneve, GTP, Teredo, L2TP, GRE, ERSPAN and MPLS.
const TUNNELS: [u16; 9] = [4789, 8472, 6081, 2152, 3544, 1701, 4754, 4755, 6635];

fn ipv4(ip: &[u8]) -> Result<Option<(IpAddr, &[u8])>, ()> {
    let head = usize::from(ip.first().ok_or(())? & 15) * 4;
    let total = usize::from(word(ip, 2).ok_or(())?);
    if ip[0] >> 4 != 4 || head < 20 || total < head || word(ip, 6).ok_or(())? & 0x3fff != 0 {
        return Err(());
    }
    let source: [u8; 4] = *ip.get(12..).and_then(<[u8]>::first_chunk).ok_or(())?;
    let source = IpAddr::V4(Ipv4Addr::from(source));
    transport(ip[9], ip.get(head..total).ok_or(())?, source)
}

fn ipv6(ip: &[u8]) -> Result<Option<(IpAddr, &[u8])>, ()> {
    let len = usize::from(word(ip, 4).ok_or(())?);
    if ip[0] >> 4 != 6 || len == 0 {
        return Err(());
    }
    let source: [u8; 16] = *ip.get(8..).and_then(<[u8]>::first_chunk).ok_or(())?;
    let rest = ip.get(40..40 + len).ok_or(())?;
    transport(*ip.get(6).ok_or(())?, rest, IpAddr::V6(Ipv6Addr::from(source)))
}

fn transport(protocol: u8, rest: &[u8], source: IpAddr) -> Result<Option<(IpAddr, &[u8])>, ()> {
    match protocol {
        6 => {
            let head = usize::from(rest.get(12).ok_or(())? >> 4) * 4;
            if head < 20 {
                return Err(());
            }
            let payload = rest.get(head..).ok_or(())?;
            Ok(Some((source, payload)).filter(|_| !payload.is_empty()))
        }
        // ICMP, IGMP, ICMPv6, PIM, and UDP that carries no tunnel.
        1 | 2 | 58 | 103 => Ok(None),
        17 => match (word(rest, 0).ok_or(())?, word(rest, 2).ok_or(())?) {
            (source, destination)
                if TUNNELS.iter().any(|one| [source, destination].contains(one)) =>
            {
                Err(())
            }
            _ => Ok(None),
        },
        _ => Err(()),
    }
}

/// The payload of each source in the order of appearance, if the obvious decoder knows it.
fn expected(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut parser = PcapParser::default();
    let (mut order, mut payloads) = (Vec::new(), BTreeMap::<IpAddr, Vec<u8>>::new());
    let mut each = |record: Record<'_>| {
        let wire = usize::try_from(record.original_length).unwrap();
        match segment(record.data, wire) {
            Ok(None) => Ok(()),
            Ok(Some((source, payload))) => {
                if !payloads.contains_key(&source) {
                    order.push(source);
                }
                payloads.entry(source).or_default().extend_from_slice(payload);
                Ok(())
            }
            Err(()) => Err("unknown".to_owned()),
        }
    };
    parser.push(bytes, &mut each).ok()?;
    let is_ethernet = parser.format().is_some_and(|format| format.link_type == frames::ETHERNET);
    is_ethernet.then(|| order.iter().map(|source| payloads[source].clone()).collect())
}

/// Sends one capture to a receiver with so many ports.
fn sent(path: &Path, ports: u16) -> (Receiving, Finished) {
    let mut receiving = Receiving::start(ports, &[]);
    let finished = send(path, &receiving, &["--json"]);
    receiving.end();
    (receiving, finished)
}

/// Sends one capture. Returns whether anything was sent, and whether it was compared byte by byte.
///
/// # Errors
/// What is wrong.
fn check(path: &Path) -> Result<(bool, bool), String> {
    let (mut receiving, mut finished) = sent(path, 8);
    let needed = finished
        .stderr
        .split_once(" ports from ")
        .and_then(|(before, _)| before.rsplit(' ').next().and_then(|count| count.parse().ok()));
    if let Some(needed) = needed {
        (receiving, finished) = sent(path, needed);
    }
    let lines = json(&finished);
    let closed = lines.iter().filter(|line| line["event"] == "closed");
    let said: BTreeMap<u16, u64> = closed
        .map(|line| {
            let port = line["port"].as_u64().and_then(|port| u16::try_from(port).ok());
            (port.unwrap(), line["written"].as_u64().unwrap())
        })
        .collect();
    let contents = receiving.contents();
    let lengths: BTreeMap<u16, u64> =
        contents.iter().map(|(port, bytes)| (*port, bytes.len() as u64)).collect();
    let why = |what: &str| format!("{}: {what}; {}", path.display(), finished.stderr);
    if lengths != said {
        return Err(why(&format!("sent {said:?}, received {lengths:?}")));
    }
    let Some(expected) = expected(&fs::read(path).unwrap()) else {
        return Ok((!said.is_empty(), false));
    };
    if !contents.into_values().eq(expected) {
        return Err(why("other bytes"));
    }
    Ok((!said.is_empty(), true))
}

#[test]
fn receive_gets_the_payload_of_every_source() {
    let Some(folder) = testdata("") else { return };
    let mut found = Vec::new();
    savefiles(&folder, &mut found);
    found.sort();
    let (next, sent, compared) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
    let wrong = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(path) = found.get(next.fetch_add(1, Ordering::Relaxed)) {
                    match check(path) {
                        Ok((is_sent, is_compared)) => {
                            let is_compared = is_sent && is_compared;
                            sent.fetch_add(usize::from(is_sent), Ordering::Relaxed);
                            compared.fetch_add(usize::from(is_compared), Ordering::Relaxed);
                        }
                        Err(what) => wrong.lock().unwrap().push(what),
                    }
                }
            });
        }
    });
    let wrong = wrong.into_inner().unwrap();
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), found.len(), wrong.join("\n"));
    let (sent, compared) = (sent.into_inner(), compared.into_inner());
    eprintln!("{} captures: {sent} with payload, {compared} compared byte by byte", found.len());
    assert!(sent >= 200 && compared >= 100, "{sent} and {compared} of {}", found.len());
}

//! Overlaps, gaps and HTTP of Suricata's own tests, compared with their `test.yaml`.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::data::{self, Filter};
use crate::outcome::{Outcome, Reach};
use crate::pcapplusplus::with_missing_text;
use crate::tree::{Capture, Side, Tree};

pub(crate) fn check(root: &Path) -> Vec<Outcome> {
    let root = root.join("OISF+suricata-verify/tests");
    vec![payloads(&root), http(&root)]
}

/// Captures and folders of the tests whose names begin with one of `begins`.
fn tests(root: &Path, begins: &[&str]) -> Vec<(PathBuf, PathBuf)> {
    let entries = fs::read_dir(root).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = entries
        .filter(|entry| {
            let name = entry.file_name();
            begins.iter().any(|begin| name.to_string_lossy().starts_with(begin))
        })
        .map(|entry| entry.path())
        .filter(|path| path.join("test.yaml").exists())
        .collect();
    folders.sort();
    folders.into_iter().filter_map(|folder| Some((capture_of(&folder)?, folder))).collect()
}

/// The capture of a test: in its own folder, or in the folder of another test that it names.
fn capture_of(folder: &Path) -> Option<PathBuf> {
    if let Some(own) = data::captures_below(folder).into_iter().next() {
        return Some(own);
    }
    let text = fs::read_to_string(folder.join("test.yaml")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("pcap:"))?;
    Some(folder.join(line.trim().trim_matches('"')))
}

fn name(folder: &Path) -> String {
    folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

fn payloads(root: &Path) -> Outcome {
    let about = "Suricata: payloads of overlaps and gaps";
    let mut outcome = Outcome::new("Suricata payloads", about, Reach::All);
    let tests = tests(root, &["eve-payload-", "eve-overlap-"]);
    let first = Tree::mount(tests.iter().map(|(capture, _)| capture));
    let last = Tree::mount_with(tests.iter().map(|(capture, _)| capture), &["--overlap", "last"]);
    let mut other_policy = Vec::new();
    for (index, (_, folder)) in tests.iter().enumerate() {
        let result = as_expected(&first.captures()[index], folder);
        let result = result.or_else(|why| {
            as_expected(&last.captures()[index], folder).map_err(|_| why)?;
            other_policy.push(name(folder));
            Ok(())
        });
        outcome.case(name(folder), result);
    }
    outcome.close(first);
    outcome.close(last);
    if !other_policy.is_empty() {
        outcome.note(format!("With `--overlap last`: {}.", other_policy.join(", ")));
    }
    outcome
}

/// Checks that each payload which the test expects of a stream is found.
fn as_expected(capture: &Capture, folder: &Path) -> Result<(), String> {
    let mut streams = Vec::new();
    for flow in capture.connections()? {
        for side in Side::BOTH {
            streams.push(with_missing_text(&flow, side)?);
        }
    }
    let filters = data::filters(&folder.join("test.yaml"));
    let from_stream = |filter: &&Filter| {
        let packet = filter.get("packet").is_some() && filter.get("stream") != Some("1");
        filter.count > 0 && filter.get("stream") != Some("0") && !packet
    };
    let mut looked_at = 0;
    for filter in filters.iter().filter(from_stream) {
        let Some(payload) = expected_payload(filter) else { continue };
        looked_at += 1;
        // Suricata also reports the part of a stream that it has when it inspects it, which is a
        // prefix.
        let whole = filter.get("pkt_src").is_some() || filter.get("stream").is_some();
        let fits = |stream: &Vec<u8>| {
            if whole { *stream == payload } else { stream.starts_with(&payload) }
        };
        if !streams.iter().any(fits) {
            let got: Vec<_> =
                streams.iter().map(|stream| stream.escape_ascii().to_string()).collect();
            return Err(format!("{got:?} instead of \"{}\"", payload.escape_ascii()));
        }
    }
    if looked_at == 0 { Err("no payload in test.yaml".to_owned()) } else { Ok(()) }
}

fn expected_payload(filter: &Filter) -> Option<Vec<u8>> {
    if let Some(text) = filter.get("payload") {
        return data::base64(text);
    }
    let text = filter.get("payload_printable")?;
    Some(text.replace("\\r", "\r").replace("\\n", "\n").into_bytes())
}

/// Transactions that a capture must hold besides those in its `test.yaml`: method, status, bytes of
/// the response's decoded body, state.
struct Expected {
    test: &'static str,
    transactions: &'static [(&'static str, Option<u64>, Option<u64>, &'static str)],
}

const EXPECTED: &[Expected] = &[
    // The body is not compressed although the header claims it.
    Expected {
        test: "http-encoding-gzip-uncompressed",
        transactions: &[("POST", Some(200), Some(224), "complete")],
    },
    Expected {
        test: "http-encoding-identity",
        transactions: &[("GET", Some(200), Some(31), "complete")],
    },
    Expected {
        test: "http-post-data-decompression",
        transactions: &[("POST", Some(200), None, "complete")],
    },
    Expected {
        test: "http-post-file",
        transactions: &[
            ("POST", Some(200), None, "complete"),
            ("POST", Some(201), None, "complete"),
            ("POST", Some(200), None, "complete"),
        ],
    },
    Expected { test: "http-multiple100", transactions: &[("POST", Some(200), None, "complete")] },
    Expected {
        test: "http-brotli-ce",
        transactions: &[
            ("GET", Some(200), Some(121), "complete"),
            ("GET", Some(200), Some(1743), "complete"),
            ("GET", Some(204), Some(0), "complete"),
        ],
    },
    Expected { test: "http-chunked", transactions: &[("HEAD", None, None, "truncated")] },
];

fn http(root: &Path) -> Outcome {
    let about = "Suricata: HTTP with gaps, encodings, 1xx";
    let mut outcome = Outcome::new("Suricata HTTP", about, Reach::All);
    // HTTP/2 is another protocol, and the `ips` tests are about packets that an inline filter lets
    // pass.
    let mut tests = tests(root, &["http-"]);
    tests.retain(|(_, folder)| !folder.ends_with("http-evader") && !name(folder).ends_with("-ips"));
    let tree = Tree::mount(tests.iter().map(|(capture, _)| capture));
    for (capture, (_, folder)) in tree.captures().iter().zip(&tests) {
        let transactions = match transactions(capture) {
            Ok(transactions) => transactions,
            Err(why) => {
                outcome.case(name(folder), Err(why));
                continue;
            }
        };
        for filter in data::filters(&folder.join("test.yaml")) {
            if let Some((what, result)) = filtered(&filter, &transactions) {
                outcome.case(format!("{} {what}", name(folder)), result);
            }
        }
        for expected in EXPECTED.iter().filter(|expected| expected.test == name(folder)) {
            outcome.case(format!("{} transactions", name(folder)), listed(expected, &transactions));
        }
    }
    outcome.close(tree);
    outcome
}

fn transactions(capture: &Capture) -> Result<Vec<Value>, String> {
    let mut transactions = Vec::new();
    for flow in capture.flows()? {
        transactions.extend(flow.transactions()?);
    }
    Ok(transactions)
}

/// A description of a filter on transactions or bodies, and whether it holds.
fn filtered(filter: &Filter, transactions: &[Value]) -> Option<(String, Result<(), String>)> {
    let show = || {
        let lines: Vec<_> = transactions
            .iter()
            .map(|transaction| {
                format!(
                    "{} {} {} {} bytes {}",
                    transaction["method"].as_str().unwrap_or("-"),
                    transaction["target"].as_str().unwrap_or("-"),
                    transaction["status"],
                    transaction["response_body"]["bytes"],
                    transaction["state"].as_str().unwrap_or("-"),
                )
            })
            .collect();
        lines.join("; ")
    };
    let (what, found) = match filter.get("event_type")? {
        "http" if filter.get("http.url").is_some() || filter.get("http.status").is_some() => {
            let status = filter.get("http.status").and_then(|status| status.parse::<u64>().ok());
            let fits = |transaction: &&Value| {
                filter.get("http.url").is_none_or(|url| transaction["target"] == url)
                    && status.is_none_or(|status| transaction["status"] == status)
            };
            let what = format!("{} {status:?}", filter.get("http.url").unwrap_or_default());
            (what, transactions.iter().filter(fits).count())
        }
        "fileinfo" if filter.get("fileinfo.size").is_some() => {
            let size: u64 = filter.get("fileinfo.size")?.parse().ok()?;
            let state = filter.get("fileinfo.state");
            let fits = |transaction: &&Value| {
                let whole = transaction["state"] == "complete";
                let state = match state {
                    Some("CLOSED") => whole,
                    Some("TRUNCATED") => !whole,
                    _ => true,
                };
                let size = ["request_body", "response_body"]
                    .iter()
                    .any(|body| transaction[*body]["bytes"] == size);
                state && size
            };
            let what = format!("body of {size} {}", state.unwrap_or_default());
            (what, transactions.iter().filter(fits).count())
        }
        _ => return None,
    };
    let found = found as u64;
    let result = if found == filter.count {
        Ok(())
    } else {
        Err(format!("{found} instead of {}: {}", filter.count, show()))
    };
    Some((what, result))
}

fn listed(expected: &Expected, transactions: &[Value]) -> Result<(), String> {
    let got: Vec<_> = transactions
        .iter()
        .map(|transaction| {
            let text = |field: &str| transaction[field].as_str().unwrap_or("-").to_owned();
            let bytes = transaction["response_body"]["bytes"].as_u64();
            (text("method"), transaction["status"].as_u64(), bytes, text("state"))
        })
        .collect();
    let fits = got.len() == expected.transactions.len()
        && got.iter().zip(expected.transactions).all(|(got, wanted)| {
            got.0 == wanted.0
                && got.1 == wanted.1
                && (wanted.2.is_none() || got.2 == wanted.2)
                && got.3 == wanted.3
        });
    if fits { Ok(()) } else { Err(format!("{got:?}")) }
}

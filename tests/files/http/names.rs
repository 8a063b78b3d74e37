//! Names of bodies.

use pcapfs_tests::flows::{everything, listed};
use pcapfs_tests::{Client, Conversation, Filed, Server, run, skip_unless, tool};

#[test]
fn names_of_bodies_cannot_do_harm() {
    skip_unless!(mount);
    let long = "n".repeat(300) + ".html";
    let targets = [
        "/..",
        "/../../etc/passwd",
        "/%2e%2e",
        "/..%2f..%2fpasswd",
        "/a%2Fb",
        "/%00%01%1b%5b31m",
        "/a%0ab%0d",
        "/%ff%fe",
        "/%E2%80%AEgnp.exe",
        "/.hidden",
        "/-rf",
        "/",
        "*",
        "/a?b=/../c",
        "/a#b/c",
        "//",
        "/%",
        "/%2",
        "/a%5cb",
        "/~",
        "http://h.example",
        "http://h.example/x/y.txt",
        "/name with blanks",
        "/\u{fc}ber",
        "/index.html",
    ];
    let targets: Vec<String> = targets
        .into_iter()
        .map(str::to_owned)
        .chain([format!("/{long}"), "/".repeat(900)])
        .collect();
    let mut talk = Conversation::tcp("10.0.0.1:40000", "10.0.0.2:80");
    talk.open();
    for target in &targets {
        talk.says(
            Client,
            format!("POST {target} HTTP/1.1\r\nHost: a.example\r\nContent-Length: 1\r\n\r\nq"),
        );
        talk.says(
            Server,
            "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 1\r\n\r\na",
        );
    }
    talk.close(Client);
    let filed = Filed::of([talk]);
    let records = filed.http(1);
    assert_eq!(records.len(), targets.len());
    let names = listed(&filed.file(1, "bodies"));
    assert_eq!(names.len(), 2 * targets.len());
    for name in &names {
        assert!(name.len() <= 255, "{name}");
        assert!(!name.contains("..") && !name.contains(['/', '\\']), "{name}");
        assert!(name.chars().all(|one| !one.is_control() && one != '\u{202e}'), "{name:?}");
        let (number, kind) = name.split_at(5);
        assert!(number[..4].bytes().all(|digit| digit.is_ascii_digit()), "{name}");
        assert!(kind.starts_with("request") || kind.starts_with("response"), "{name}");
    }
    for (record, target) in records.iter().zip(&targets) {
        assert_eq!(record["target"], **target);
        for (body, wanted) in [("request_body", b"q"), ("response_body", b"a")] {
            let file = record[body]["file"].as_str().unwrap();
            assert_eq!(filed.read(1, file), wanted, "{target}");
        }
    }
    assert!(names.contains(&"0025-response-index.html".to_owned()), "{names:?}");
    let copy = tempfile::tempdir().unwrap();
    let mut cp = tool("cp");
    drop(run(cp.arg("-r").arg(filed.file(1, "bodies")).arg(copy.path()), 10).success());
    assert!(everything(&copy.path().join("bodies")) == everything(&filed.file(1, "bodies")));
}

//! Files of flows, in ranges and as previews.

use pcapfs_tests::{flows, skip_unless};

use crate::support::{HTML, PNG, Web, browsed};

#[test]
fn files_of_a_flow_are_those_of_the_tree() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    for (id, folder) in [(1, "web/flows/1"), (3, "web/flows/3")] {
        for (path, bytes) in flows::everything(&flows::flow(&filed.daemon, id)) {
            let Some(bytes) = bytes else { continue };
            let reply = web.get(&format!("captures/{folder}/{}", path.display()));
            assert_eq!(reply.status, 200, "{}", path.display());
            assert_eq!(reply.body, bytes, "{}", path.display());
            let policy = reply.header("content-security-policy").unwrap();
            assert!(policy.starts_with("sandbox; default-src 'none'"), "{policy}");
            assert_eq!(reply.header("x-content-type-options"), Some("nosniff"));
        }
    }
    let pcap = web.get("captures/web/flows/1/packets.pcap");
    assert_eq!(pcap.header("content-type"), Some("application/vnd.tcpdump.pcap"));
    let text = web.get("captures/web/flows/1/http");
    assert_eq!(text.header("content-type"), Some("text/plain; charset=utf-8"));
    for path in ["nothing", "bodies", "bodies/..", "..%2fmeta.json", "%2e%2e/status.json", "a/b/c"]
    {
        let reply = web.get(&format!("captures/web/flows/1/{path}"));
        assert_eq!(reply.status, 404, "{path}");
    }
}

#[test]
fn bodies_are_saved_and_previews_are_harmless() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let body = |flow: u64, index: u64| {
        let name = flows::listed(&filed.file(flow, "bodies"))
            .into_iter()
            .find(|name| name.starts_with(&format!("{index:04}-response")));
        format!("captures/web/flows/{flow}/bodies/{}", name.unwrap())
    };
    let html = web.get(&body(1, 1));
    assert_eq!(html.body, HTML);
    let disposition = html.header("content-disposition").unwrap();
    assert!(disposition.starts_with("attachment; filename=\"web-1-0001-response"), "{disposition}");
    let preview = |path: &str| web.get(&format!("{path}?preview=1"));
    let page = preview(&body(1, 1));
    assert_eq!((&page.body[..], page.header("content-disposition")), (HTML, None));
    assert_eq!(page.header("content-type"), Some("text/plain; charset=utf-8"), "not as a page");
    assert!(page.header("content-security-policy").unwrap().starts_with("sandbox;"));
    assert_eq!(preview(&body(1, 2)).header("content-type"), Some("application/json"));
    let image = preview(&body(2, 1));
    assert_eq!((&image.body[..], image.header("content-type")), (PNG, Some("image/png")));
    preview(&body(2, 2)).is_error(413, &["1048576 bytes", "download"]);
    assert_eq!(web.get(&body(2, 2)).body.len(), 2 << 20);
}

#[test]
fn ranges_are_parts_of_the_file() {
    skip_unless!(mount, "curl");
    let filed = browsed();
    let web = Web::start(&filed.daemon, &[]);
    let path = "captures/web/flows/2/server.bin";
    let whole = filed.read(2, "server.bin");
    let full = web.get(path);
    let tag = full.header("etag").unwrap().to_owned();
    assert_eq!(full.header("accept-ranges"), Some("bytes"));
    let range = |words: &[&str]| web.ask(words, path);
    let part = range(&["-r", "1000-2999"]);
    assert_eq!((part.status, &part.body[..]), (206, &whole[1000..3000]));
    let says = format!("bytes 1000-2999/{}", whole.len());
    assert_eq!(part.header("content-range"), Some(&*says));
    assert_eq!(range(&["-r", "-5"]).body, whole[whole.len() - 5..]);
    let outside = range(&["-r", "99999999-"]);
    assert_eq!(outside.status, 416);
    assert_eq!(outside.header("content-range"), Some(&*format!("bytes */{}", whole.len())));
    let known = format!("If-None-Match: {tag}");
    assert_eq!(range(&["-H", &known]).status, 304);
    let same = format!("If-Range: {tag}");
    assert_eq!(range(&["-r", "0-9", "-H", &same]).status, 206);
    assert_eq!(range(&["-r", "0-9", "-H", "If-Range: \"other\""]).status, 200);
    let head = range(&["-I"]);
    assert_eq!(head.header("content-length"), Some(&*whole.len().to_string()));
    assert_eq!(web.get("captures/web/flows/2/packets.pcap?x=1").status, 400);
}

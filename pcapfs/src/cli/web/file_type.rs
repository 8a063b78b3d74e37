//! Media types of the files of a flow: by their names, and for previews by their first bytes.

/// Bytes of a preview that are looked at.
pub(super) const LOOKED_AT: u64 = 512;

/// Types by the end of a name.
const TYPES: [(&str, &str); 25] = [
    ("json", "application/json"),
    ("har", "application/json"),
    ("jsonl", "application/x-ndjson"),
    ("pcap", "application/vnd.tcpdump.pcap"),
    ("txt", "text/plain; charset=utf-8"),
    ("csv", "text/csv"),
    ("html", "text/html"),
    ("htm", "text/html"),
    ("css", "text/css"),
    ("js", "text/javascript"),
    ("xml", "application/xml"),
    ("svg", "image/svg+xml"),
    ("png", "image/png"),
    ("jpg", "image/jpeg"),
    ("jpeg", "image/jpeg"),
    ("gif", "image/gif"),
    ("webp", "image/webp"),
    ("ico", "image/x-icon"),
    ("pdf", "application/pdf"),
    ("zip", "application/zip"),
    ("gz", "application/gzip"),
    ("wasm", "application/wasm"),
    ("mp4", "video/mp4"),
    ("woff", "font/woff"),
    ("woff2", "font/woff2"),
];

/// Images by their first bytes, as browsers know them (WHATWG MIME Sniffing, 6.1).
const IMAGES: [(&[u8], &str); 6] = [
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"BM", "image/bmp"),
    (b"\x00\x00\x01\x00", "image/x-icon"),
];

/// The type of a file by its name.
pub(super) fn of_name(name: &str) -> &'static str {
    if name == "http" {
        return "text/plain; charset=utf-8";
    }
    let end = name.rsplit_once('.').map_or("", |(_, end)| end);
    let known = TYPES.iter().find(|(known, _)| end.eq_ignore_ascii_case(known));
    known.map_or("application/octet-stream", |(_, kind)| kind)
}

/// The type of a preview: an image, JSON, or text to read. No page is shown as one.
pub(super) fn of_preview(name: &str, beginning: &[u8]) -> &'static str {
    let image = IMAGES.iter().find(|(first, _)| beginning.starts_with(first));
    if let Some((_, kind)) = image {
        return kind;
    }
    if beginning.starts_with(b"RIFF") && beginning.get(8..12) == Some(b"WEBP") {
        return "image/webp";
    }
    match of_name(name) {
        kind @ ("application/json" | "image/svg+xml") => kind,
        _ => "text/plain; charset=utf-8",
    }
}

/// True if a browser is to save the file and not to show it.
pub(super) fn is_saved(name: &str) -> bool {
    let is_text = ["http", "meta.json"].contains(&name) || name.ends_with(".jsonl");
    name.starts_with("bodies/") || !is_text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_names_and_bytes() {
        assert_eq!(of_name("bodies/0001-response-INDEX.HTML"), "text/html");
        assert_eq!(of_name("client.bin"), "application/octet-stream");
        assert_eq!(of_preview("bodies/1-response.html", b"<script>"), "text/plain; charset=utf-8");
        assert_eq!(of_preview("bodies/1-response.html", b"\x89PNG\r\n\x1a\n.."), "image/png");
        assert_eq!(of_preview("bodies/1-response", b"RIFF1234WEBP"), "image/webp");
        assert_eq!(of_preview("bodies/1-response.json", b"{}"), "application/json");
    }

    #[test]
    fn bodies_are_saved() {
        for name in ["bodies/meta.json", "bodies/http", "client.bin", "packets.pcap", "http.har"] {
            assert!(is_saved(name), "{name}");
        }
        for name in ["http", "meta.json", "http.jsonl"] {
            assert!(!is_saved(name), "{name}");
        }
    }
}

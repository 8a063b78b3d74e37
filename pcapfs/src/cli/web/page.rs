//! The page: the built files of `pcapfs/web/dist`, which are part of the program. A program that was
//! built without them shows a text that names the interface.

use std::collections::HashMap;
use std::io::Write;
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, ETAG, HeaderValue, IF_NONE_MATCH, VARY,
};
use http::request::Parts;
use http::{HeaderMap, StatusCode};
use ring::digest::{SHA256, digest};

use super::answer::{Answer, Handled, Problem, TEXT, empty, whole};
use super::file_type;

// `BUILT`: path and bytes of each file.
include!(concat!(env!("OUT_DIR"), "/web_files.rs"));

/// The text without a page.
const INTERFACE: &str = "\
pcapfs web: built without its page (make web, then build again)

Captures:      /api/v1/captures
Readers:       /api/v1/captures/NAME/readers
Flows:         /api/v1/captures/NAME/flows?host=&port=&state=&after=&limit=
One flow:      /api/v1/captures/NAME/flows/NUMBER, and /packets below it
Transactions:  /api/v1/captures/NAME/http?status=&host=&method=&q=&after=&limit=
Events:        /api/v1/captures/NAME/events?what=flows,http,counters
Packets:       /captures/NAME/live.pcap, follow.pcap, replay.pcap; also .pcapng
               ?filter=EXPR&duration=30s&packets=N&bytes=N
Files:         /captures/NAME/flows/NUMBER/FILE
";

/// The file that is the page.
const INDEX: &str = "index.html";

/// Files with another name after each change, which caches may keep.
const IMMUTABLE: &str = "assets/";

/// Media types of text, which are worth compressing.
const TEXTS: [&str; 5] =
    ["text/html", "text/css", "text/javascript", "image/svg+xml", "application/json"];

/// A file, as it is sent.
#[derive(Debug)]
struct BuiltFile {
    kind: HeaderValue,
    /// Names its bytes.
    tag: HeaderValue,
    plain: Bytes,
    /// Compressed with gzip, if that makes it smaller.
    packed: Option<Bytes>,
    is_immutable: bool,
}

impl BuiltFile {
    fn new(path: &str, bytes: &'static [u8]) -> Self {
        let kind = file_type::of_name(path);
        let is_text = TEXTS.contains(&kind);
        let kind = if is_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
        let packed = if is_text { packed(bytes) } else { None };
        let digest = digest(&SHA256, bytes);
        let tag: String =
            digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let header =
            |text: String| HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""));
        Self {
            kind: header(kind),
            tag: header(format!("\"{tag}\"")),
            plain: Bytes::from_static(bytes),
            packed: packed.filter(|packed| packed.len() < bytes.len()).map(Bytes::from),
            is_immutable: path.starts_with(IMMUTABLE),
        }
    }

    fn answer(&self, headers: &HeaderMap) -> Answer {
        let accepts = headers.get(ACCEPT_ENCODING).and_then(|value| value.to_str().ok());
        let takes_gzip = accepts.is_some_and(|all| {
            all.split(',')
                .any(|one| one.split(';').next().is_some_and(|name| name.trim() == "gzip"))
        });
        let known = headers.get(IF_NONE_MATCH).is_some_and(|known| known == self.tag);
        let mut answer = match (&self.packed, known) {
            (_, true) => empty(StatusCode::NOT_MODIFIED),
            (Some(packed), false) if takes_gzip => {
                let mut answer = whole(self.kind.clone(), packed.clone());
                answer.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
                answer
            }
            _ => whole(self.kind.clone(), self.plain.clone()),
        };
        let cached =
            if self.is_immutable { "public, max-age=31536000, immutable" } else { "no-cache" };
        answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(cached));
        answer.headers_mut().insert(ETAG, self.tag.clone());
        answer.headers_mut().insert(VARY, HeaderValue::from_static("accept-encoding"));
        answer
    }
}

/// Bytes compressed with gzip.
fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).ok()?;
    encoder.finish().ok()
}

/// The files by their paths.
fn files() -> &'static HashMap<&'static str, BuiltFile> {
    static FILES: OnceLock<HashMap<&'static str, BuiltFile>> = OnceLock::new();
    FILES.get_or_init(|| {
        BUILT.iter().map(|(path, bytes)| (*path, BuiltFile::new(path, bytes))).collect()
    })
}

/// The page itself.
pub(super) fn page(head: &Parts) -> Answer {
    files().get(INDEX).map_or_else(|| whole(TEXT, INTERFACE), |index| index.answer(&head.headers))
}

/// A file that the page loads, by its path.
///
/// # Errors
/// There is no such file.
pub(super) fn file(head: &Parts, path: &str) -> Handled {
    let missing = || Problem::missing(format!("{path}: no file of the page"));
    let file = files().get(path).filter(|_| path != INDEX).ok_or_else(missing)?;
    Ok(file.answer(&head.headers))
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::read::GzDecoder;
    use http::Request;

    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn files_are_compressed_for_those_who_take_that() {
        let text = "some text\n".repeat(100).into_bytes().leak();
        let file = BuiltFile::new("assets/a.js", text);
        let packed = file.packed.clone().unwrap();
        let mut unpacked = Vec::new();
        GzDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
        assert_eq!(unpacked, text);
        let encoding = |accepts: &str| {
            let answer = file.answer(&head(&[("accept-encoding", accepts)]).headers);
            answer.headers().contains_key(CONTENT_ENCODING)
        };
        assert!(encoding("br, gzip;q=0.5") && !encoding("br") && !encoding(""));
        let answer = file.answer(&head(&[]).headers);
        let header = |name| answer.headers().get(name).unwrap().to_str().unwrap();
        assert_eq!(header(http::header::CONTENT_TYPE), "text/javascript; charset=utf-8");
        assert!(header(CACHE_CONTROL).contains("immutable"));
        let known = head(&[("if-none-match", header(ETAG))]);
        assert_eq!(file.answer(&known.headers).status(), StatusCode::NOT_MODIFIED);
        assert!(BuiltFile::new("assets/a.png", text).packed.is_none());
    }

    #[test]
    fn a_program_with_a_page_has_all_its_files() {
        let Some((_, index)) = BUILT.iter().find(|(path, _)| *path == INDEX) else {
            assert!(BUILT.is_empty(), "files without a page");
            return;
        };
        let index = String::from_utf8_lossy(index);
        let names = index.split('"').filter(|word| word.starts_with("/assets/"));
        let mut count = 0;
        for name in names {
            assert!(file(&head(&[]), name.trim_start_matches('/')).is_ok(), "{name}");
            count += 1;
        }
        assert!(count > 0, "{index}");
    }
}

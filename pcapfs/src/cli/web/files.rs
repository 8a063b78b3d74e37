//! Files of a flow's directory over HTTP, whole or in ranges (RFC 9110, 14).
//!
//! They are what strangers have sent. A browser never shows them as a page of this server: bodies
//! are saved, types are not guessed, and a policy of the answer forbids scripts and requests.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::sync::Arc;

use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_SECURITY_POLICY,
    ETAG, HeaderValue, IF_NONE_MATCH, IF_RANGE, RANGE,
};
use http::request::Parts;
use http::{Method, StatusCode};

use super::access::Visitor;
use super::answer::{AnswerBody, BodySender, Handled, Problem, empty, with_body};
use super::byte_range::{self, ByteRange};
use super::file_type;
use super::flows::{FlowDirectory, OpenCapture};
use super::query::Query;
use super::server::Server;
use super::streams::attachment;
use crate::cli::outlet::trouble::Trouble;

/// Bytes that are read at once.
const CHUNK: u64 = 128 << 10;

/// Maximum number of bytes of a file that is shown in the page.
const MAX_PREVIEW: u64 = 1 << 20;

/// A file may do nothing in a browser. The page may frame a preview.
const POLICY: &str = "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; \
                      frame-ancestors 'self'";

/// A file that was opened.
#[derive(Debug)]
struct OpenedFile {
    file: Arc<File>,
    /// Bytes.
    size: u64,
    /// Another one with each change of its bytes: a file with the same number only grows.
    tag: String,
    /// The first bytes of a preview.
    beginning: Vec<u8>,
}

/// `GET /captures/NAME/flows/N/FILE`.
///
/// # Errors
/// There is no such file, or it cannot be read.
pub(super) async fn serve(
    server: &Arc<Server>,
    visitor: &Visitor,
    head: &Parts,
    place: (&str, &str, &[&str]),
    mut query: Query,
) -> Handled {
    let (capture, flow, file) = place;
    let is_preview = query.take("preview").is_some_and(|preview| preview == "1");
    query.end("preview=1")?;
    let name = file_name(file)?;
    let open = OpenCapture::open(server, capture).await?;
    let FlowDirectory(directory) = open.flow(server, flow).await?;
    let path = directory.join(&name);
    let what = name.clone();
    let opened = server.tree.read(move || {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
        file.and_then(|file| OpenedFile::new(file, is_preview))
            .map_err(|error| Trouble::of_tree(&what, &error))
    });
    let opened = opened.await?;
    if is_preview && opened.size > MAX_PREVIEW {
        return Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("{name}: more than {MAX_PREVIEW} bytes (download it, without preview=1)"),
        ));
    }
    let download = format!("{capture}-{flow}-{}", file.last().copied().unwrap_or_default());
    let mut answer = body(server, visitor, head, &name, &opened, is_preview).await?;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    if let Ok(tag) = HeaderValue::try_from(&opened.tag) {
        headers.insert(ETAG, tag);
    }
    if !is_preview && file_type::is_saved(&name) {
        headers.insert(CONTENT_DISPOSITION, attachment(&download));
    }
    Ok(answer)
}

/// The name of a file in the directory of a flow, out of the segments of a path.
fn file_name(segments: &[&str]) -> Result<String, Problem> {
    let is_plain =
        |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('/');
    match segments {
        [name] | ["bodies", name] if is_plain(name) => Ok(segments.join("/")),
        _ => Err(Problem::missing(format!("{}: no such file", segments.join("/")))),
    }
}

impl OpenedFile {
    fn new(mut file: File, is_preview: bool) -> std::io::Result<Self> {
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(std::io::Error::from_raw_os_error(libc::ENOENT));
        }
        // Of a text that is made at the open, only this is the size of this opening.
        let size = file.seek(SeekFrom::End(0))?;
        let (inode, seconds, nanoseconds) =
            (metadata.ino(), metadata.mtime(), metadata.mtime_nsec());
        let tag = format!("\"{inode:x}-{size:x}-{seconds:x}.{nanoseconds:x}\"");
        let mut beginning = Vec::new();
        if is_preview {
            let length = usize::try_from(size.min(file_type::LOOKED_AT)).unwrap_or(0);
            beginning.resize(length, 0);
            file.read_exact_at(&mut beginning, 0)?;
        }
        Ok(Self { file: Arc::new(file), size, tag, beginning })
    }
}

/// The status and the bytes that a request wants.
async fn body(
    server: &Arc<Server>,
    visitor: &Visitor,
    head: &Parts,
    name: &str,
    opened: &OpenedFile,
    is_preview: bool,
) -> Handled {
    let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
    if header(IF_NONE_MATCH)
        .is_some_and(|known| known.split(',').any(|tag| tag.trim() == opened.tag))
    {
        return Ok(empty(StatusCode::NOT_MODIFIED));
    }
    // The rest of a file that has changed does not fit to what the client has.
    let is_same = header(IF_RANGE).is_none_or(|known| known == opened.tag);
    let asked = header(RANGE).filter(|_| is_same);
    let range = byte_range::read(asked, opened.size);
    let (status, from, length) = match range {
        ByteRange::Whole => (StatusCode::OK, 0, opened.size),
        ByteRange::Part { from, length } => (StatusCode::PARTIAL_CONTENT, from, length),
        ByteRange::Outside => {
            let size = opened.size;
            let text = format!("{name}: has {size} bytes, and none of that range");
            return Err(Problem::new(StatusCode::RANGE_NOT_SATISFIABLE, text)
                .with(CONTENT_RANGE, &format!("bytes */{size}")));
        }
    };
    let kind = if is_preview {
        file_type::of_preview(name, &opened.beginning)
    } else {
        file_type::of_name(name)
    };
    let body = if head.method == Method::HEAD || length == 0 {
        AnswerBody::Whole(None)
    } else {
        let slot = server.files.take(visitor).ok_or_else(|| {
            Problem::unavailable("too many files are being sent (try again later)")
        })?;
        let (sender, body) = AnswerBody::stream(slot);
        let (server, file) = (Arc::clone(server), Arc::clone(&opened.file));
        tokio::spawn(send(server, file, from, length, sender));
        body
    };
    let mut answer = with_body(HeaderValue::from_static(kind), body);
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_LENGTH, length.into());
    if status == StatusCode::PARTIAL_CONTENT {
        let last = from.saturating_add(length).saturating_sub(1);
        if let Ok(part) = HeaderValue::try_from(format!("bytes {from}-{last}/{}", opened.size)) {
            headers.insert(CONTENT_RANGE, part);
        }
    }
    Ok(answer)
}

/// Sends a range of a file.
async fn send(server: Arc<Server>, file: Arc<File>, from: u64, length: u64, sender: BodySender) {
    let (mut at, end) = (from, from.saturating_add(length));
    while at < end {
        let wanted = usize::try_from(CHUNK.min(end - at)).unwrap_or(0);
        let source = Arc::clone(&file);
        let read = server.tree.read(move || {
            let mut bytes = vec![0; wanted];
            let read = source.read_exact_at(&mut bytes, at);
            read.map_err(|error| Trouble::of_tree("the file", &error))?;
            Ok::<_, Trouble>(Bytes::from(bytes))
        });
        let part = read.await.map_err(|problem| std::io::Error::other(problem.text));
        let has_failed = part.is_err();
        if sender.send(part).await.is_err() || has_failed {
            return;
        }
        at += wanted as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_the_directory() {
        assert_eq!(file_name(&["http"]).unwrap(), "http");
        assert_eq!(file_name(&["bodies", "1-response.html"]).unwrap(), "bodies/1-response.html");
        for path in [
            &[""][..],
            &[".."],
            &["bodies", ".."],
            &["a/b"],
            &["bodies", "a/../../b"],
            &["x", "y"],
            &["bodies", "a", "b"],
            &[],
            &["."],
        ] {
            assert!(file_name(path).is_err(), "{path:?}");
        }
    }
}

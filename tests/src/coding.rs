//! Content codings for HTTP bodies, from Python or by hand.

use std::io::Write;
use std::process::Stdio;

use crate::process::python;

/// `gzip`, with real compression. Needs `python3`.
#[must_use]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    by_python("gzip.compress(data, mtime=0)", bytes)
}

/// `deflate` as specified: in zlib's wrapping. Needs `python3`.
#[must_use]
pub fn deflate(bytes: &[u8]) -> Vec<u8> {
    by_python("zlib.compress(data)", bytes)
}

/// `deflate` as some servers send it: without the wrapping. Needs `python3`.
#[must_use]
pub fn raw_deflate(bytes: &[u8]) -> Vec<u8> {
    by_python("zlib.compress(data)[2:-4]", bytes)
}

/// `gzip` of this many zeros, without holding all of them in memory. Needs `python3`.
#[must_use]
pub fn gzip_of_zeros(length: u64) -> Vec<u8> {
    let program = "bomb(int(data))";
    by_python(program, length.to_string().as_bytes())
}

fn by_python(expression: &str, bytes: &[u8]) -> Vec<u8> {
    let program = format!(
        "
import gzip, sys, zlib
def bomb(length):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = b''.join(packer.compress(bytes(1 << 20)) for _ in range(length >> 20))
    return packed + packer.compress(bytes(length & 0xfffff)) + packer.flush()
data = sys.stdin.buffer.read()
sys.stdout.buffer.write({expression})"
    );
    let mut command = python(&program);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3 is there");
    let mut stdin = child.stdin.take().expect("piped");
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes).expect("it reads all"));
        child.wait_with_output().expect("our own child")
    });
    assert!(output.status.success(), "{expression}");
    output.stdout
}

/// `br` without compression: RFC 7932, 9.2, meta-blocks of raw bytes.
#[must_use]
pub fn brotli(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for (at, part) in bytes.chunks(1 << 16).enumerate() {
        let length = u32::try_from(part.len() - 1).expect("16 bits");
        // A window of 64 KiB (only in front); not the last; a length of four digits; raw.
        let bits = if at == 0 { length << 4 | 1 << 20 } else { length << 3 | 1 << 19 };
        out.extend(&bits.to_le_bytes()[..3]);
        out.extend_from_slice(part);
    }
    out.push(if bytes.is_empty() { 0b110 } else { 0b11 });
    out
}

/// `zstd` without compression: RFC 8878, 3.1.1, blocks of raw bytes and of one repeated byte.
#[must_use]
pub fn zstd(bytes: &[u8]) -> Vec<u8> {
    // Magic; no checksum, no length; a window of 1 MiB.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
    let parts: Vec<_> = bytes.chunks(1 << 16).collect();
    for (at, part) in parts.iter().enumerate() {
        let repeats = part.len() > 1 && part.iter().all(|byte| *byte == part[0]);
        let last = u32::from(at + 1 == parts.len());
        let length = u32::try_from(part.len()).expect("a block");
        out.extend(&(length << 3 | u32::from(repeats) << 1 | last).to_le_bytes()[..3]);
        out.extend_from_slice(if repeats { &part[..1] } else { part });
    }
    if parts.is_empty() {
        out.extend([1, 0, 0]);
    }
    out
}

/// `Transfer-Encoding: chunked`, with pieces of `size` bytes, extensions and trailers.
#[must_use]
pub fn chunked(bytes: &[u8], size: usize, extension: &str, trailers: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in bytes.chunks(size) {
        out.extend(format!("{:x}{extension}\r\n", part.len()).bytes());
        out.extend_from_slice(part);
        out.extend(b"\r\n");
    }
    out.extend(format!("0{extension}\r\n{trailers}\r\n").bytes());
    out
}

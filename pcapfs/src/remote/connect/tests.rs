//! Other ends that are no daemon of this version.

use std::path::PathBuf;

use bytes::Bytes;
use http::HeaderValue;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::service::Routes;
use tonic::transport::Server;
use tower::util::MapResponseLayer;

use super::*;
use crate::control::messages::ListRequest;
use crate::remote::identity::Identity;
use crate::remote::secret_file::write_secret;
use crate::remote::tls::PeerTrust;

/// A listener with a certificate, and a remote that believes it.
struct Other {
    folder: TempDir,
    listener: TcpListener,
    remote: Remote,
}

impl Other {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let identity = Identity::new(folder.path().to_owned());
        identity.create(&[], 10).unwrap();
        let pem: PathBuf = folder.path().join("laptop-7.pem");
        write_secret(&pem, &identity.issue("laptop-7", 10).unwrap().pem).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let address = RemoteAddress::Tls { host: "127.0.0.1".to_owned(), port };
        let remote = Remote { name: "far".to_owned(), address, identity: Some(pem), sha256: None };
        Self { folder, listener, remote }
    }

    /// The next connection, after the handshake.
    async fn accept(&self) -> tokio_rustls::server::TlsStream<TcpStream> {
        let credentials = Credentials::of_directory(self.folder.path()).unwrap();
        let config = tls::server(&credentials, PeerTrust::default(), None, &[HTTP2]).unwrap();
        let (stream, _) = self.listener.accept().await.unwrap();
        TlsAcceptor::from(config).accept(stream).await.unwrap()
    }
}

#[tokio::test]
async fn another_version_of_the_service_is_said() {
    let other = Other::new().await;
    let remote = other.remote.clone();
    let serve = async {
        let mut stream = other.accept().await;
        let (served, mut passed) = tokio::io::duplex(1 << 16);
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut passed).await });
        let versioned = |mut answer: http::Response<tonic::body::Body>| {
            answer.headers_mut().insert(VERSION_HEADER, HeaderValue::from_static("9.8.7"));
            answer
        };
        Server::builder()
            .layer(MapResponseLayer::new(versioned))
            .add_routes(Routes::default())
            .serve_with_incoming(tokio_stream::once(Ok::<_, io::Error>(served)))
            .await
            .unwrap();
        // It goes on serving what it has accepted.
        std::future::pending::<()>().await;
    };
    let ask = async {
        let mut client = ControlClient::new(connect(&remote).await.unwrap());
        let request = ListRequest { capture: String::new() };
        let status = client.list(request).await.unwrap_err();
        explain(&remote, &status).await
    };
    let error = tokio::select! {
        error = ask => error,
        () = serve => panic!("it serves until the end"),
    };
    assert_eq!(error.reason.word(), "incompatible");
    let text = error.to_string();
    let part =
        "far: incompatible version: pcapfs 9.8.7 there does not know this request of pcapfs ";
    assert!(text.starts_with(part), "{text}");
}

#[tokio::test]
async fn another_service_is_no_pcapfs() {
    let other = Other::new().await;
    let remote = other.remote.clone();
    // A savefile over TLS, silence that ends, and no TLS at all.
    let savefile = Bytes::from_static(b"\x4d\x3c\xb2\xa1\x02\x00\x04\x00 and so on");
    for (bytes, word, part) in [
        (savefile, "not-pcapfs", "it speaks TLS, but not HTTP/2"),
        (Bytes::new(), "closed", "it closed the connection at once"),
    ] {
        let serve = async {
            let mut stream = other.accept().await;
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        };
        let (result, ()) = tokio::join!(connect(&remote), serve);
        let error = result.unwrap_err();
        assert_eq!(error.reason.word(), word);
        assert!(error.to_string().contains(part), "{error}");
    }
    let serve = async {
        let (mut stream, _) = other.listener.accept().await.unwrap();
        stream.write_all(b"SSH-2.0-OpenSSH_9.2p1\r\n").await.unwrap();
        stream
    };
    let (result, _stream) = tokio::join!(connect(&remote), serve);
    let error = result.unwrap_err().to_string();
    assert!(error.contains("no pcapfs answers there: it does not speak TLS"), "{error}");
}

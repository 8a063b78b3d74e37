//! A public-key infrastructure that pcapfs has not made: a root, an authority below it that signs
//! certificates, and lists of revoked ones.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use pcapfs_tests::{Mount, Net, run, skip_unless, tool, wait_until};

use crate::support::{Far, says};

/// Makes `root.crt`, and the certificates of the far machine and of two clients with their keys. An
/// authority below the root has signed them, and its certificate comes after each of them.
const SCRIPT: &str = r#"
set -e
cd "$1"
key() { openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:prime256v1 -out "$1.key"; }
sign() { # NAME SUBJECT EXTENSIONS SIGNER
    key "$1"
    openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
    printf '%s\n' "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA "$4.crt" -CAkey "$4.key" -CAcreateserial -days 3 \
        -extfile "$1.ext" -out "$1.crt"
}
key root
openssl req -x509 -new -key root.key -subj "/O=Example/CN=root" -days 3 -out root.crt
sign below "/O=Example/CN=below" "basicConstraints=critical,CA:true" root
sign far "/CN=far" "subjectAltName=IP:$2" below
for client in laptop-7 laptop-8; do
    sign "$client" "/O=Example/CN=$client" "extendedKeyUsage=clientAuth" below
    cat "$client.crt" below.crt "$client.key" root.crt > "$client.pem"
    chmod 600 "$client.pem"
done
cat below.crt >> far.crt
: > revoked
"#;

/// The configuration of the far machine over these files.
fn configure(folder: &Path) -> String {
    let mut make = tool("sh");
    make.args(["-c", SCRIPT, "sh"]).arg(folder).arg(Net::ADDRESS);
    let _ = run(&mut make, 20).success();
    let path = |name: &str| folder.join(name).display().to_string();
    let (certificate, key) = (path("far.crt"), path("far.key"));
    let (authority, revoked) = (path("root.crt"), path("revoked"));
    let client = |name: &str| format!("[[remote.client]]\nname = \"{name}\"\nuser = \"root\"\n");
    format!(
        "[remote]\nlisten = \"{}\"\ncertificate = \"{certificate}\"\nkey = \"{key}\"\n\
         authority = \"{authority}\"\nrevoked = \"{revoked}\"\n{}{}",
        Net::ADDRESS,
        client("laptop-7"),
        client("laptop-8"),
    )
}

#[test]
fn certificates_of_another_authority_are_used_by_their_paths() {
    skip_unless!(root, "ip", "openssl");
    let mut far = Far::configured(Mount::new(), configure);
    far.add("far", "laptop-7");
    far.add("other", "laptop-8");
    far.fed.send(10);
    far.daemon().wait_stored("web", 10);
    says(&far.verb(["list", "far:"]), &["far:web", "running"]);
    let file = far.path("web.pcap");
    let _ = far.verb(["replay", "far:web", "-w", file.to_str().unwrap()]);
    assert_eq!(fs::read(&file).unwrap()[24..], pcapfs_tests::Fed::records(10));

    let mut listen = far.spawn(&mut far.command(["listen", "far:web"]));
    wait_until("it is a reader there", 10, || far.daemon().readers("web").len() == 1);
    let mut print = tool("openssl");
    print.args(["x509", "-noout", "-fingerprint", "-sha256", "-in"]).arg(far.path("laptop-7.crt"));
    let text = far.run(&mut print).success().text().trim().to_owned();
    let fingerprint = text.rsplit('=').next().unwrap();
    let mut list = OpenOptions::new().append(true).open(far.path("revoked")).unwrap();
    writeln!(list, "{fingerprint} of laptop-7").unwrap();
    assert!(!listen.wait(5).success());
    says(&listen.stderr(), &["far: not allowed: ", "is revoked"]);
    says(&far.refused(["list", "far:"]), &["is revoked"]);
    says(&far.verb(["list", "other:"]), &["other:web"]);
}

//! Record data in presentation format.

use domain::base::iana::Rtype;
use domain::dep::octseq::Parser;

use super::*;
use crate::dns::name::BoundedText;
use crate::dns::rdata;

fn text(record_type: Rtype, data: &[u8]) -> String {
    let mut text = BoundedText::new(4000);
    rdata::write(record_type.to_int(), Parser::from_ref(data), &mut text).unwrap();
    text.into_text().into()
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

#[test]
fn common_types_have_their_format() {
    let soa =
        [wire_name("ns"), wire_name("me.x"), [1_u32, 2, 3, 4, 5].map(u32::to_be_bytes).concat()];
    let srv = [&[0, 1, 0, 2, 0, 80][..], &wire_name("a.b")].concat();
    let naptr = [&[0, 1, 0, 2, 1, b'u', 0, 3][..], b"!\"!", &[0]].concat();
    for (record_type, data, expected) in [
        (Rtype::A, vec![192, 0, 2, 1], "192.0.2.1"),
        (Rtype::AAAA, [hex("20010db8"), vec![0; 11], vec![1]].concat(), "2001:db8::1"),
        (Rtype::CNAME, wire_name("a.b"), "a.b"),
        (Rtype::NS, vec![0], "."),
        (Rtype::MX, [vec![0, 10], wire_name("mx")].concat(), "10 mx"),
        (Rtype::SOA, soa.concat(), "ns me.x 1 2 3 4 5"),
        (Rtype::TXT, b"\x03a\"b\x00\x01\xff".to_vec(), "\"a\\\"b\" \"\" \"\\255\""),
        (Rtype::HINFO, b"\x03CPU\x02OS".to_vec(), "\"CPU\" \"OS\""),
        (Rtype::SRV, srv, "1 2 80 a.b"),
        (Rtype::NAPTR, naptr, "1 2 \"u\" \"\" \"!\\\"!\" ."),
        (Rtype::CAA, b"\x00\x05issueca.example".to_vec(), "0 issue \"ca.example\""),
        (Rtype::URI, b"\x00\x01\x00\x02ftp://a".to_vec(), "1 2 \"ftp://a\""),
        (Rtype::SSHFP, hex("04 02 abcd"), "4 2 abcd"),
        (Rtype::TLSA, hex("03 01 01 0badf00d"), "3 1 1 0badf00d"),
        (Rtype::EUI48, hex("00005e005301"), "00-00-5e-00-53-01"),
        (Rtype::L64, hex("000a 20010db801400001"), "10 2001:0db8:0140:0001"),
        (Rtype::ZONEMD, hex("00000001 01 01 ff"), "1 1 1 ff"),
    ] {
        assert_eq!(text(record_type, &data), expected, "{record_type}");
    }
}

/// The example of RFC 1876, section 4, and values that it does not allow.
#[test]
fn places_have_their_format() {
    let place = "00 33 16 13 89172dd0 70be15f0 00988d20";
    let expected = "42 21 54.000 N 71 6 18.000 W -24.00m 30.00m 10000.00m 10.00m";
    assert_eq!(text(Rtype::LOC, &hex(place)), expected);
    for malformed in [
        "01 33 16 13 89172dd0 70be15f0 00988d20",
        "00 a3 16 13 89172dd0 70be15f0 00988d20",
        "00 33 16 13 ff000000 70be15f0 00988d20",
        "00 33 16 13 89172dd0 70be15f0 00988d",
    ] {
        assert!(text(Rtype::LOC, &hex(malformed)).starts_with("\\# "), "{malformed}");
    }
}

#[test]
fn types_of_dnssec_have_their_format() {
    let rrsig = [
        hex("0001 08 02 00000e10 66000000 65000000 1234"),
        wire_name("example"),
        b"signature".to_vec(),
    ];
    let nsec = [wire_name("b.example"), hex("00 07 62 01 80 08 00 03 80  01 01 40")];
    let nsec3 = [hex("01 00 000c 04 aabbccdd 05 0123456789"), hex("00 01 40")];
    for (record_type, data, expected) in [
        (Rtype::DS, hex("60de 08 02 aa55"), "24798 8 2 aa55"),
        (Rtype::DNSKEY, [hex("0101 03 08"), b"key".to_vec()].concat(), "257 3 8 a2V5"),
        (
            Rtype::RRSIG,
            rrsig.concat(),
            "A 8 2 3600 20240324102712 20230912060656 4660 example c2lnbmF0dXJl",
        ),
        (Rtype::NSEC, nsec.concat(), "b.example A NS SOA MX TXT AAAA RRSIG NSEC DNSKEY CAA"),
        (Rtype::NSEC3, nsec3.concat(), "1 0 12 aabbccdd 04HKAPS9 A"),
        (Rtype::NSEC3PARAM, hex("01 00 0000 00"), "1 0 0 -"),
        (Rtype::CDS, hex("0000 00 00 00"), "0 0 0 00"),
    ] {
        assert_eq!(text(record_type, &data), expected, "{record_type}");
    }
}

/// Vectors of RFC 9460, appendix D.
#[test]
fn service_bindings_have_their_format() {
    let foo = "03666f6f 076578616d706c65 03636f6d 00";
    for (data, expected) in [
        (format!("0000 {foo}"), "0 foo.example.com"),
        ("0001 00".to_owned(), "1 ."),
        (format!("0010 {foo} 0003 0002 0035"), "16 foo.example.com port=53"),
        (format!("0001 {foo} 029b 0005 68656c6c6f"), "1 foo.example.com key667=\"hello\""),
        (
            format!("0001 {foo} 029b 0009 68656c6c6fd2716f6f"),
            "1 foo.example.com key667=\"hello\\210qoo\"",
        ),
        (
            format!(
                "0001 {foo} 0006 0020 20010db8000000000000000000000001 \
                 20010db8000000000000000000530001"
            ),
            "1 foo.example.com ipv6hint=2001:db8::1,2001:db8::53:1",
        ),
        (
            format!(
                "0010 {foo} 0000 0004 0001 0004 0001 0009 02 6832 05 68332d3139 \
                 0004 0004 c0000201"
            ),
            "16 foo.example.com mandatory=alpn,ipv4hint alpn=\"h2,h3-19\" ipv4hint=192.0.2.1",
        ),
        (
            format!("0010 {foo} 0001 000c 08 665c6f6f2c626172 02 6832"),
            "16 foo.example.com alpn=\"f\\\\\\\\oo\\\\,bar,h2\"",
        ),
        (
            format!("0001 {foo} 0002 0000 0005 0003 010203"),
            "1 foo.example.com no-default-alpn ech=AQID",
        ),
    ] {
        assert_eq!(text(Rtype::HTTPS, &hex(&data)), expected);
    }
}

#[test]
fn malformed_service_parameters_are_shown_as_bytes() {
    for parameters in [
        "0003 0002 0035 0003 0002 0035",
        "0004 0004 c0000201 0001 0003 02 6832",
        "0003 0003 003500",
        "0003 0001 00",
        "0004 0000",
        "0002 0001 00",
        "0001 0003 03 6832",
        "0003 0004 0035",
    ] {
        let data = [vec![0, 1, 0], hex(parameters)].concat();
        let shown = text(Rtype::SVCB, &data);
        assert!(shown.starts_with(&format!("\\# {} 000100", data.len())), "{shown}");
    }
}

#[test]
fn what_has_no_format_is_shown_as_bytes() {
    for (record_type, data, expected) in [
        (Rtype::from_int(65_280), vec![1, 2, 255], "\\# 3 0102ff"),
        (Rtype::from_int(65_280), vec![], "\\# 0"),
        (Rtype::NULL, vec![7], "\\# 1 07"),
        (Rtype::A, vec![1, 2, 3], "\\# 3 010203"),
        (Rtype::A, vec![1, 2, 3, 4, 5], "\\# 5 0102030405"),
        (Rtype::A, vec![], "\\# 0"),
        (Rtype::MX, vec![0, 10, 1, b'a'], "\\# 4 000a0161"),
        (Rtype::CNAME, vec![0xc0, 0], "\\# 2 c000"),
        (Rtype::TXT, vec![5, b'a'], "\\# 2 0561"),
        (Rtype::CAA, vec![0, 1, b'"', b'a'], "\\# 4 00012261"),
        (Rtype::NSEC, vec![0, 0, 0], "\\# 3 000000"),
    ] {
        assert_eq!(text(record_type, &data), expected, "{record_type}");
    }
}

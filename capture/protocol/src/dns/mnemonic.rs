//! Numbers of a message as text.

use domain::base::iana::{Class, Opcode, OptRcode, Rtype};

/// The mnemonic of a record type; `TYPE65280` without one (RFC 3597, section 5).
pub(super) fn record_type(number: u16) -> String {
    Rtype::from_int(number).to_string()
}

/// The mnemonic of a class; `CLASS32` without one (RFC 3597, section 5).
pub(super) fn class(number: u16) -> String {
    match Class::from_int(number) {
        // RFC 1035 writes `*`, and everybody else the name of RFC 6895.
        Class::ANY => "ANY".to_owned(),
        class => class.to_string(),
    }
}

/// The mnemonic of an operation; the number without one.
pub(super) fn opcode(number: u8) -> String {
    let mnemonic = Opcode::from_int(number).to_mnemonic_str();
    mnemonic.map_or_else(|| number.to_string(), str::to_owned)
}

/// The mnemonic of a response code, extended by EDNS; the number without one.
pub(super) fn rcode(number: u16) -> String {
    let mnemonic = OptRcode::masked_from_int(number).to_mnemonic_str();
    mnemonic.map_or_else(|| number.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_numbers_have_names_and_others_keep_their_number() {
        let types = [1, 28, 64, 65, 255, 65280].map(record_type);
        assert_eq!(types, ["A", "AAAA", "SVCB", "HTTPS", "ANY", "TYPE65280"]);
        assert_eq!([1, 3, 254, 255, 32].map(class), ["IN", "CH", "NONE", "ANY", "CLASS32"]);
        assert_eq!([0, 3, 4, 5].map(opcode), ["QUERY", "3", "NOTIFY", "UPDATE"]);
        assert_eq!(
            [0, 3, 16, 23, 3841].map(rcode),
            ["NOERROR", "NXDOMAIN", "BADVERS", "BADCOOKIE", "3841"]
        );
    }
}

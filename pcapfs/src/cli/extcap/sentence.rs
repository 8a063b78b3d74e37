//! The sentences of Wireshark's protocol: a line with a kind and values in braces.

/// A line with values in braces. Wireshark ends a value at its first closing brace and knows no
/// escape, so braces and control characters in a value become `_`.
pub(super) fn sentence(kind: &str, values: &[(&str, &str)]) -> String {
    let mut line = format!("{kind} ");
    for (name, value) in values {
        let value = value.replace(|c: char| c == '{' || c == '}' || c.is_control(), "_");
        line.push_str(&format!("{{{name}={value}}}"));
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_ends_early() {
        let line = sentence("interface", &[("value", "pcapfs:a"), ("display", "file:/a}b\n{x")]);
        assert_eq!(line, "interface {value=pcapfs:a}{display=file:/a_b__x}\n");
    }
}

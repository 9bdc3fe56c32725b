//! Escaping of names, arguments and comms: they come from programs nobody trusts.
//!
//! In: any text. Out: text that cannot move a cursor, colour a terminal, forge a line or end a JSON string.

/// Appends `text` with everything that a terminal might obey written as `\x1b` or `\u{202e}`.
pub fn text(out: &mut String, text: &str) {
    // Without a way out on the first byte that is not: so sixteen at a time are looked at.
    if text.bytes().fold(true, |plain, byte| plain & (0x20..0x7f).contains(&byte)) {
        out.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                out.push_str("\\x");
                push_hex2(out, c as u32);
            }
            c if reorders(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
}

/// The text that [`text`] makes.
pub fn escaped(from: &str) -> String {
    let mut out = String::with_capacity(from.len());
    text(&mut out, from);
    out
}

/// Appends `text` as a JSON string, quotes included.
pub fn json(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let is_plain = |byte: u8| (0x20..0x7f).contains(&byte) & (byte != b'"') & (byte != b'\\');
    if text.bytes().fold(true, |plain, byte| plain & is_plain(byte)) {
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    let mut clean = 0;
    for (at, c) in text.char_indices() {
        let short: &[u8] = match c {
            '"' => b"\\\"",
            '\\' => b"\\\\",
            '\n' => b"\\n",
            '\r' => b"\\r",
            '\t' => b"\\t",
            c if c.is_control() || reorders(c) => b"",
            _ => continue,
        };
        out.extend_from_slice(&text.as_bytes()[clean..at]);
        out.extend_from_slice(short);
        if short.is_empty() {
            push_json_unicode(out, c);
        }
        clean = at + c.len_utf8();
    }
    out.extend_from_slice(&text.as_bytes()[clean..]);
    out.push(b'"');
}

/// Characters that are no control characters and still change how a line looks: line and paragraph separators, and
/// those that reorder what stands around them (Unicode 16, UAX #9: explicit directional formatting).
fn reorders(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn push_hex2(out: &mut String, value: u32) {
    for shift in [4, 0] {
        out.extend(char::from_digit((value >> shift) & 0xf, 16));
    }
}

/// All characters escaped in JSON lie below U+10000, so one unit is enough.
fn push_json_unicode(out: &mut Vec<u8>, c: char) {
    out.extend_from_slice(b"\\u");
    let value = c as u32;
    for shift in [12, 8, 4, 0] {
        out.push(b"0123456789abcdef"[((value >> shift) & 0xf) as usize]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn as_text(input: &str) -> String {
        let mut out = String::new();
        text(&mut out, input);
        out
    }

    #[test]
    fn plain_names_stay_as_they_are() {
        for name in ["main.(*Store).Get", "<T as core::fmt::Write>::write_str", "größe·f", "日本", r"a\b"] {
            assert_eq!(as_text(name), name);
        }
    }

    #[test]
    fn what_a_terminal_obeys_is_spelled_out() {
        assert_eq!(as_text("a\x1b[31mb"), r"a\x1b[31mb");
        assert_eq!(as_text("a\nb\tc\rd\0"), r"a\nb\tc\rd\x00");
        assert_eq!(as_text("\u{7f}\u{9b}2J"), r"\x7f\x9b2J");
        assert_eq!(as_text("\u{202e}evil"), r"\u{202e}evil");
    }

    #[test]
    fn json_strings_read_back_as_they_were() {
        for input in ["", "plain", "q\"b\\", "\x1b[0m\n\t\r\0\u{7f}", "é\u{9b}日\u{2028}", "\u{202e}x", "😀"] {
            let mut out = Vec::new();
            json(&mut out, input);
            let back: String = serde_json::from_slice(&out).expect("a JSON string");
            assert_eq!(back, input);
            assert!(!out.iter().any(|byte| *byte < 0x20 || *byte == 0x7f), "{out:?}");
        }
    }
}

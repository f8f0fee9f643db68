//! Whose a message is, found without reading it: for those who only want to pass it by.
//!
//! Promises: what [`connection`] finds is what [`parse`](super::message::parse) finds in every message that can be taken; it
//! depends on nothing but the bytes, so that whoever looks finds the same. Where a message is written in an unusual way
//! (escapes in names, another form than ours) it finds nothing, and the message has to be read.

/// The field that says whose a message is.
const FIELD: &[u8] = b"connection";

/// The `connection` of a message in our own form, as far as it can be seen at a glance.
pub fn connection(value: &[u8]) -> Option<&str> {
    let mut rest = Rest(value);
    rest.take(b'{')?;
    loop {
        let name = rest.plain()?;
        rest.take(b':')?;
        if name == FIELD {
            return std::str::from_utf8(rest.plain()?).ok();
        }
        rest.pass()?;
        rest.take(b',')?;
    }
}

/// What lies ahead.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn skip_space(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    /// This byte, after any space.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        self.0 = self.0.strip_prefix(&[byte])?;
        Some(())
    }

    /// A string without escapes.
    fn plain(&mut self) -> Option<&'a [u8]> {
        self.take(b'"')?;
        let end = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
        let (text, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.strip_prefix(b"\"")?;
        Some(text)
    }

    /// A string, of which only the end is of interest.
    fn pass_string(&mut self) -> Option<()> {
        loop {
            let stop = self.0.iter().position(|byte| matches!(byte, b'"' | b'\\'))?;
            let escape = self.0.get(stop) == Some(&b'\\');
            self.0 = self.0.get(stop + 1 + usize::from(escape)..)?;
            if !escape {
                return Some(());
            }
        }
    }

    /// A value of any kind. Brackets are counted, not matched: reading finds what is wrong with them.
    fn pass(&mut self) -> Option<()> {
        self.skip_space();
        let mut depth = 0_usize;
        loop {
            let (byte, rest) = self.0.split_first()?;
            match byte {
                b',' | b'}' | b']' if depth == 0 => return Some(()),
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.0 = rest;
            if *byte == b'"' {
                self.pass_string()?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::message::parse;
    use super::*;

    #[test]
    fn it_finds_what_reading_finds() {
        let tail = r#""stream":"S","op":"delete","key":"k"}"#;
        let found = [
            format!(r#"{{"v":1,"connection":"a",{tail}"#),
            format!("\r\n {{ \"v\" : 1.0 ,\t\"connection\"\n:  \"é b\" , {tail}"),
            format!(
                r#"{{"id":"}} , \" ] \\","listing":{{"id":"]}}","partition":"connection"}},"v":1,"connection":"a",{tail}"#
            ),
            r#"{"v":1,"records":[{"op":"delete","key":["connection"]}],"stream":"S","connection":"z"}"#.to_owned(),
        ];
        for text in found {
            let read = parse(text.as_bytes()).expect("a good message");
            assert_eq!(connection(text.as_bytes()), Some(&*read.connection), "{text}");
        }
    }

    #[test]
    fn what_is_unusual_has_to_be_read() {
        let unusual = [
            r#"{"v":1,"connection":"a\u0062"}"#,
            r#"{"v":1,"conn\u0065ction":"a"}"#,
            r#"{"v":1,"connection":5}"#,
            r#"{"v":1,"record":{"connection":"a"}}"#,
            r#"["connection","a"]"#,
            r#"{"v":1,"id":"connection"#,
            r#"{"v":1,"id":[[{"connection":"a""#,
            r#"{"connection""#,
            "{",
            "",
        ];
        for text in unusual {
            assert_eq!(connection(text.as_bytes()), None, "{text}");
        }
        assert_eq!(connection(b"{\"connection\":\"\xff\"}"), None);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_looked_at(bytes in proptest::collection::vec(0x20_u8..0x7f, 0..80)) {
            if let (Some(seen), Ok(read)) = (connection(&bytes), parse(&bytes)) {
                assert_eq!(seen, &*read.connection);
            }
        }
    }
}

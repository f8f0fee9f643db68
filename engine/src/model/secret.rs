//! Which names tell that what they name is a secret, and what stands in its place where it is shown.

/// What stands in place of a secret.
pub const MASK: &str = "[secret]";
/// Words that tell a secret when they stand anywhere in a name.
const TELLING: [&str; 9] =
    ["token", "secret", "passw", "passphrase", "apikey", "signature", "credential", "authorization", "hmac"];
/// Words that tell a secret when they are a whole part of a name.
const TELLING_ALONE: [&str; 7] = ["key", "sig", "auth", "pwd", "pass", "jwt", "session"];

/// Whether a parameter of this name probably holds a secret: `api_key`, `accessToken`, `X-Signature`. Allocates nothing: it is asked for
/// each name of each line of the journal.
pub fn looks_secret(name: &str) -> bool {
    tells_anywhere(name) || parts_tell(name)
}

/// Whether a name has one of the words in it, but for case and for what is neither letter nor digit.
fn tells_anywhere(name: &str) -> bool {
    name.bytes().enumerate().any(|(at, first)| {
        let first = first.to_ascii_lowercase();
        TELLING.iter().filter(|word| word.as_bytes().first() == Some(&first)).any(|word| {
            let behind = name.get(at..).unwrap_or_default().chars();
            let mut said = behind.filter(|c| c.is_alphanumeric()).map(|c| c.to_ascii_lowercase());
            word.chars().all(|c| said.next() == Some(c))
        })
    })
}

/// `apiKey` has its parts told by capitals, `api_key` by what is neither letter nor digit.
fn parts_tell(name: &str) -> bool {
    let tells =
        |part: Option<&str>| part.is_some_and(|part| TELLING_ALONE.iter().any(|word| part.eq_ignore_ascii_case(word)));
    let (mut begin, mut before) = (0, ' ');
    for (at, c) in name.char_indices() {
        let is_between = !c.is_alphanumeric();
        if is_between || (c.is_uppercase() && before.is_lowercase()) {
            if tells(name.get(begin..at)) {
                return true;
            }
            begin = if is_between { at + c.len_utf8() } else { at };
        }
        before = c;
    }
    tells(name.get(begin..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets() {
        for name in [
            "api_key",
            "apiKey",
            "API-KEY",
            "key",
            "token",
            "access_token",
            "X-Signature",
            "sig",
            "pwd",
            "client_secret",
            "X_A_P_I-Key",
            "clientKEY",
            "ü-pass-ü",
            "Pass_Word",
        ] {
            assert!(looks_secret(name), "{name}");
        }
        for name in [
            "keyword",
            "monkey",
            "page",
            "portal",
            "design",
            "author",
            "state",
            "updated_since",
            "",
            "passage",
            "ü",
            "keyé",
        ] {
            assert!(!looks_secret(name), "{name}");
        }
    }
}

//! What functions need of bytes and addresses, done by libraries: encodings, hashes, signatures, addresses.

use base64::Engine as _;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use base64::{alphabet, prelude::BASE64_STANDARD, prelude::BASE64_URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use md5::Md5;
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha384, Sha512};
use url::Url;

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const LENIENT_STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// The bytes that a text stands for. What is no character of the encoding ends it (hex) or is left out (base64).
pub(super) fn bytes_of(text: &str, encoding: &str) -> Vec<u8> {
    match encoding {
        "hex" => {
            let digits: Vec<u8> = text.bytes().take_while(u8::is_ascii_hexdigit).collect();
            hex::decode(digits.get(..digits.len() & !1).unwrap_or_default()).unwrap_or_default()
        }
        "base64" | "base64url" => {
            // Both alphabets are read, as Node does.
            let clean: String = text
                .chars()
                .filter_map(|c| match c {
                    '-' => Some('+'),
                    '_' => Some('/'),
                    c if c.is_ascii_alphanumeric() || c == '+' || c == '/' => Some(c),
                    _ => None,
                })
                .collect();
            // One character alone holds no byte.
            let whole = if clean.len() % 4 == 1 { clean.len() - 1 } else { clean.len() };
            LENIENT_STANDARD.decode(clean.get(..whole).unwrap_or_default()).unwrap_or_default()
        }
        "latin1" => text.chars().map(|c| c as u32 as u8).collect(),
        _ => text.as_bytes().to_vec(),
    }
}

/// Bytes as a text.
pub(super) fn text_of(bytes: &[u8], encoding: &str) -> String {
    match encoding {
        "hex" => hex::encode(bytes),
        "base64" => BASE64_STANDARD.encode(bytes),
        "base64url" => BASE64_URL_SAFE_NO_PAD.encode(bytes),
        "latin1" => bytes.iter().map(|&byte| char::from(byte)).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// A hash; `None` for an algorithm that is not known.
pub(super) fn digest(algorithm: &str, data: &[u8]) -> Option<Vec<u8>> {
    Some(match algorithm {
        "md5" => Md5::digest(data).to_vec(),
        "sha1" => Sha1::digest(data).to_vec(),
        "sha256" => Sha256::digest(data).to_vec(),
        "sha384" => Sha384::digest(data).to_vec(),
        "sha512" => Sha512::digest(data).to_vec(),
        _ => return None,
    })
}

/// A signature; `None` for an algorithm that is not known.
pub(super) fn hmac(algorithm: &str, key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
    fn sign<M: Mac + hmac::digest::KeyInit>(key: &[u8], data: &[u8]) -> Option<Vec<u8>> {
        let mut mac = <M as Mac>::new_from_slice(key).ok()?;
        mac.update(data);
        Some(mac.finalize().into_bytes().to_vec())
    }
    match algorithm {
        "md5" => sign::<Hmac<Md5>>(key, data),
        "sha1" => sign::<Hmac<Sha1>>(key, data),
        "sha256" => sign::<Hmac<Sha256>>(key, data),
        "sha384" => sign::<Hmac<Sha384>>(key, data),
        "sha512" => sign::<Hmac<Sha512>>(key, data),
        _ => None,
    }
}

/// The parts of an address as JSON; `None` if it is none.
pub(super) fn url(text: &str, base: Option<&str>) -> Option<String> {
    let url = match base {
        Some(base) => Url::parse(base).ok()?.join(text).ok()?,
        None => Url::parse(text).ok()?,
    };
    Some(parts(&url))
}

/// The same address with one part replaced; `None` if the part cannot be set so.
pub(super) fn url_with(href: &str, part: &str, value: &str) -> Option<String> {
    let mut url = Url::parse(href).ok()?;
    match part {
        "href" => url = Url::parse(value).ok()?,
        "protocol" => url::quirks::set_protocol(&mut url, value).ok()?,
        "username" => url::quirks::set_username(&mut url, value).ok()?,
        "password" => url::quirks::set_password(&mut url, value).ok()?,
        "host" => url::quirks::set_host(&mut url, value).ok()?,
        "hostname" => url::quirks::set_hostname(&mut url, value).ok()?,
        "port" => url::quirks::set_port(&mut url, value).ok()?,
        "pathname" => url::quirks::set_pathname(&mut url, value),
        "search" => url::quirks::set_search(&mut url, value),
        "hash" => url::quirks::set_hash(&mut url, value),
        _ => return None,
    }
    Some(parts(&url))
}

fn parts(url: &Url) -> String {
    serde_json::json!({
        "href": url::quirks::href(url),
        "origin": url::quirks::origin(url),
        "protocol": url::quirks::protocol(url),
        "username": url::quirks::username(url),
        "password": url::quirks::password(url),
        "host": url::quirks::host(url),
        "hostname": url::quirks::hostname(url),
        "port": url::quirks::port(url),
        "pathname": url::quirks::pathname(url),
        "search": url::quirks::search(url),
        "hash": url::quirks::hash(url),
    })
    .to_string()
}

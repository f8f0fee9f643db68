//! Signatures of outgoing webhooks: Standard Webhooks, and the two forms Nango's receivers know.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use syncline_engine::model::Timestamp;

/// Most secrets that sign at once while rotating.
pub const SECRETS: usize = 3;

/// The headers that prove a body. `secrets` newest first; each of them signs `webhook-signature`, the newest alone the
/// headers that hold one value. `legacy` adds the length-extendable `X-Nango-Signature`.
pub fn sign(
    body: &[u8],
    id: &str,
    timestamp: Timestamp,
    secrets: &[String],
    legacy: bool,
) -> Vec<(&'static str, String)> {
    let seconds = timestamp.seconds().to_string();
    let secrets: Vec<&String> = secrets.iter().filter(|s| !s.is_empty()).take(SECRETS).collect();
    let mut headers = vec![("webhook-id", id.to_owned()), ("webhook-timestamp", seconds.clone())];
    let signatures: Vec<String> = secrets
        .iter()
        .map(|secret| {
            format!("v1,{}", STANDARD.encode(mac(&key(secret), &[id.as_bytes(), b".", seconds.as_bytes(), b".", body])))
        })
        .collect();
    let Some(newest) = secrets.first() else { return headers };
    headers.push(("webhook-signature", signatures.join(" ")));
    headers.push(("x-nango-hmac-sha256", hex::encode(mac(newest.as_bytes(), &[body]))));
    if legacy {
        headers
            .push(("x-nango-signature", hex::encode(Sha256::new().chain_update(newest).chain_update(body).finalize())));
    }
    headers
}

/// Key bytes of a secret: what follows `whsec_`, decoded; any other text as it is.
fn key(secret: &str) -> Cow<'_, [u8]> {
    match secret.strip_prefix("whsec_").map(|coded| STANDARD.decode(coded)) {
        Some(Ok(bytes)) if !bytes.is_empty() => Cow::Owned(bytes),
        _ => Cow::Borrowed(secret.as_bytes()),
    }
}

fn mac(key: &[u8], pieces: &[&[u8]]) -> Vec<u8> {
    // HMAC takes keys of any length; a signature that is none is refused by every receiver.
    let Ok(mut mac) = <Hmac<Sha256> as Mac>::new_from_slice(key) else { return Vec::new() };
    pieces.iter().for_each(|piece| mac.update(piece));
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(headers: &[(&str, String)], name: &str) -> Option<String> {
        headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone())
    }

    fn signed(body: &str, secrets: &[&str], legacy: bool) -> Vec<(&'static str, String)> {
        let secrets: Vec<String> = secrets.iter().map(|s| s.to_string()).collect();
        sign(body.as_bytes(), "msg_p5jXN8AQM9LWM0D4loKWxJek", Timestamp::from_seconds(1_614_265_330), &secrets, legacy)
    }

    #[test]
    fn standard_webhooks_vector() {
        let headers = signed(r#"{"test": 2432232314}"#, &["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], false);
        assert_eq!(
            header(&headers, "webhook-signature").as_deref(),
            Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
        );
        assert_eq!(header(&headers, "webhook-timestamp").as_deref(), Some("1614265330"));
        assert_eq!(header(&headers, "webhook-id").as_deref(), Some("msg_p5jXN8AQM9LWM0D4loKWxJek"));
        assert_eq!(header(&headers, "x-nango-signature"), None);
    }

    #[test]
    fn nango_vectors() {
        let body = r#"{"type":"sync","connectionId":"test-connection","providerConfigKey":"test-provider","syncName":"test-sync","model":"TestModel","responseResults":{"added":5,"updated":0,"deleted":0}}"#;
        for (secret, body, expected) in [
            ("secret", "payload", "b82fcb791acec57859b989b430a826488ce2e479fdf92326bd0a2e8375a42ba4"),
            ("test-secret-key", body, "ce6f82d8555253066e19ba3525ebab872d906b9f4607481a889b991b29b17b3a"),
            ("test-webhook-signing-key", body, "ff458d4d1b72d824612760b25f0fcf8d3fdfb6dc174fe4528e78cbd35632ce24"),
        ] {
            assert_eq!(header(&signed(body, &[secret], false), "x-nango-hmac-sha256").as_deref(), Some(expected));
        }
        let legacy = signed(body, &["test-secret-key"], true);
        let expected = "21c9fd89aafcbfa86755b8223d11f44353e4f734f97a375eb5a627efe4780675";
        assert_eq!(header(&legacy, "x-nango-signature").as_deref(), Some(expected));
    }

    #[test]
    fn every_secret_signs_while_rotating() {
        let body = r#"{"test": 2432232314}"#;
        let both = signed(body, &["whsec_bmV3bmV3bmV3bmV3bmV3bmV3", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"], false);
        let list = header(&both, "webhook-signature").expect("signed");
        assert_eq!(list.split(' ').count(), 2);
        assert!(list.ends_with("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(header(&signed(body, &[], false), "webhook-signature"), None);
    }
}

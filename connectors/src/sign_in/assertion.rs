//! Statements signed here (RFC 7519): RS256, ES256, HS256.

use super::answer::TokenError;
use crate::definition::{Algorithm, Assertion};
use crate::expr::Scope;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Map, Value, json};
use sha2::Sha256;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;
use syncline_engine::time::entropy;

/// A signed statement: `own`, what the definition adds or says otherwise, `iat`, `exp` and `jti`.
pub(super) fn sign(
    said: &Assertion,
    own: Value,
    scope: &Scope,
    brought: Option<&str>,
    now: Timestamp,
) -> Result<String, TokenError> {
    let key = said.key.as_deref().or(brought).ok_or_else(|| {
        bad("missing_credential", "there is no key: add `key` to `assertion`, or `private_key` to the connection")
    })?;
    let unfilled = |what: &str, error| bad("missing_value", &format!("{what} of `assertion`: {error}"));
    let mut claims = match own {
        Value::Object(own) => own,
        _ => Map::new(),
    };
    for (name, tree) in &said.claims {
        claims.insert(name.clone(), tree.fill(scope, &|_| false).map_err(|error| unfilled(name, error))?);
    }
    let lifetime = i64::try_from(said.lifetime.as_secs()).unwrap_or(i64::MAX);
    claims.insert("iat".to_owned(), now.seconds().into());
    claims.insert("exp".to_owned(), now.seconds().saturating_add(lifetime).into());
    claims.insert("jti".to_owned(), hex::encode(entropy().get(..16).unwrap_or_default()).into());
    let algorithm = match said.algorithm {
        Algorithm::Rs256 => "RS256",
        Algorithm::Es256 => "ES256",
        Algorithm::Hs256 => "HS256",
    };
    let mut header = json!({"alg": algorithm, "typ": "JWT"});
    if let Some(id) = &said.key_id {
        header["kid"] = id.text(scope).map_err(|error| unfilled("key_id", error))?.into();
    }
    let coded = |value: &str| URL_SAFE_NO_PAD.encode(value);
    let text = format!("{}.{}", coded(&header.to_string()), coded(&Value::Object(claims).to_string()));
    let signature = signature(said.algorithm, key, text.as_bytes())?;
    Ok(format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn signature(algorithm: Algorithm, key: &str, text: &[u8]) -> Result<Vec<u8>, TokenError> {
    let refused = |why: &str| bad("bad_credential", &format!("the private key cannot be used: {why}"));
    match algorithm {
        Algorithm::Hs256 => {
            let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes());
            let mut mac = mac.map_err(|_| refused("it is too long"))?;
            mac.update(text);
            Ok(mac.finalize().into_bytes().to_vec())
        }
        Algorithm::Rs256 => {
            let pair = match pem(key)? {
                PrivateKeyDer::Pkcs1(der) => RsaKeyPair::from_der(der.secret_pkcs1_der()),
                PrivateKeyDer::Pkcs8(der) => RsaKeyPair::from_pkcs8(der.secret_pkcs8_der()),
                _ => return Err(refused("RS256 needs an RSA key")),
            };
            let pair = pair.map_err(|why| refused(&why.to_string()))?;
            let mut signature = vec![0; pair.public().modulus_len()];
            let signed = pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature);
            signed.map(|()| signature).map_err(|_| refused("signing failed"))
        }
        Algorithm::Es256 => {
            let PrivateKeyDer::Pkcs8(der) = pem(key)? else {
                return Err(refused("ES256 needs PKCS 8: `openssl pkcs8 -topk8 -nocrypt -in KEY` writes it"));
            };
            let random = SystemRandom::new();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.secret_pkcs8_der(), &random);
            let pair = pair.map_err(|why| refused(&why.to_string()))?;
            let signed = pair.sign(&random, text).map_err(|_| refused("signing failed"))?;
            Ok(signed.as_ref().to_vec())
        }
    }
}

/// A key in PEM. Where it was pasted into one line, its line ends are written out.
fn pem(key: &str) -> Result<PrivateKeyDer<'static>, TokenError> {
    let lines = key.replace("\\n", "\n");
    PrivateKeyDer::from_pem_slice(lines.as_bytes())
        .map_err(|_| bad("bad_credential", "the private key is no PEM: it begins with -----BEGIN PRIVATE KEY-----"))
}

fn bad(code: &'static str, message: &str) -> TokenError {
    TokenError::Unusable(Failure::lasting(code, message))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::Tree;
    use crate::expr::Template;
    use ring::signature::{ECDSA_P256_SHA256_FIXED, KeyPair, UnparsedPublicKey};
    use std::time::Duration;

    fn said(algorithm: Algorithm, key: &str) -> Assertion {
        let issuer = Tree::Text(Template::compile("{{ connection.fields.email }}").expect("compiles"));
        let key_id = Some(Template::literal("k1"));
        let claims = vec![("iss".to_owned(), issuer)];
        Assertion { algorithm, key: Some(key.to_owned()), key_id, claims, lifetime: Duration::from_secs(60) }
    }

    fn scope() -> Scope {
        let fields = json!({"email": "a@b.example"});
        super::super::request::account_scope(fields.as_object().expect("a map"), &Map::new())
    }

    fn part(text: &str, number: usize) -> Value {
        let coded = text.split('.').nth(number).expect("three parts");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(coded).expect("base64")).expect("JSON")
    }

    #[test]
    fn a_statement_says_who_when_and_until_when() {
        let now = Timestamp::from_seconds(1_000);
        let signed = sign(&said(Algorithm::Hs256, "secret"), json!({"aud": "x"}), &scope(), None, now).expect("signed");
        assert_eq!(part(&signed, 0), json!({"alg": "HS256", "typ": "JWT", "kid": "k1"}));
        let claims = part(&signed, 1);
        assert_eq!((&claims["iss"], &claims["aud"]), (&json!("a@b.example"), &json!("x")));
        assert_eq!((&claims["iat"], &claims["exp"]), (&json!(1_000), &json!(1_060)));
        let again = sign(&said(Algorithm::Hs256, "secret"), json!({"aud": "x"}), &scope(), None, now).expect("signed");
        assert_ne!(signed, again, "each has an id of its own");
    }

    #[test]
    fn an_elliptic_key_signs_what_its_public_half_verifies() {
        let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).expect("a key");
        let base = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        let pem = format!("-----BEGIN PRIVATE KEY-----\\n{base}\\n-----END PRIVATE KEY-----\\n");
        let signed = sign(&said(Algorithm::Es256, &pem), json!({}), &scope(), None, Timestamp(0)).expect("signed");
        let (text, signature) = signed.rsplit_once('.').expect("a signature");
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &SystemRandom::new());
        let public =
            UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.expect("ours").public_key().as_ref().to_vec());
        let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
        public.verify(text.as_bytes(), &signature).expect("verified");
        assert!(sign(&said(Algorithm::Rs256, &pem), json!({}), &scope(), None, Timestamp(0)).is_err(), "no RSA key");
        assert!(sign(&said(Algorithm::Es256, "no PEM"), json!({}), &scope(), None, Timestamp(0)).is_err());
    }
}

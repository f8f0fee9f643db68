//! The address people are sent to, and the key that proves their way back.

use super::app::AppCredentials;
use super::request::account_scope;
use crate::definition::TokenAuth;
use crate::http::{Url, address};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use syncline_engine::source::Failure;
use syncline_engine::time::entropy;

/// Names of the address that only we set.
const OURS: [&str; 6] =
    ["client_id", "response_type", "redirect_uri", "state", "code_challenge", "code_challenge_method"];

/// One trip of a person to the provider.
#[derive(Clone, Copy)]
pub struct Departure<'a> {
    /// What names the trip on the way back; nobody can guess it.
    pub state: &'a str,
    /// Where the way back leads.
    pub redirect_uri: &'a str,
    /// Its key, where the definition wants one.
    pub proof: Option<&'a ProofKey>,
    /// What was entered for the connection.
    pub fields: &'a Map<String, Value>,
    /// Other scopes than those of the app.
    pub scopes: Option<&'a [String]>,
    /// Added by whoever began the trip; what the protocol itself needs cannot be replaced.
    pub params: &'a [(String, String)],
}

/// A secret whose hash goes with the person, and which goes with the code (RFC 7636).
#[derive(Clone)]
pub struct ProofKey(String);

impl ProofKey {
    /// A new one.
    pub fn new() -> ProofKey {
        ProofKey(URL_SAFE_NO_PAD.encode(entropy()))
    }

    /// One that was kept.
    pub fn kept(verifier: &str) -> ProofKey {
        ProofKey(verifier.to_owned())
    }

    /// The secret, to be kept until the person is back.
    pub fn verifier(&self) -> &str {
        &self.0
    }

    /// What goes with the person.
    pub fn challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.as_bytes()))
    }
}

impl Default for ProofKey {
    fn default() -> Self {
        ProofKey::new()
    }
}

/// Where a person is sent to sign in.
pub fn authorize_url(auth: &TokenAuth, app: &AppCredentials, trip: &Departure<'_>) -> Result<Url, Failure> {
    let unable = |message: &str| Failure::lasting("not_authorizable", message);
    let code = auth.code().ok_or_else(|| unable("nobody signs in at this provider: `auth` is not `oauth2`"))?;
    let template = code.authorize_url.as_ref();
    let template = template.ok_or_else(|| unable("add `authorize_url` to `auth`, or hand tokens in"))?;
    let client_id = app.client_id.as_deref();
    let client_id = client_id.ok_or_else(|| {
        Failure::lasting("missing_client", "the app has no `client_id`: add it to `auth`, or to the integration")
    })?;
    let scope = account_scope(trip.fields, &Map::new());
    let mut url = address(template, &scope, "authorize_url")?;
    let mut query: Vec<(String, String)> = Vec::new();
    let mut put = |name: &str, value: String| {
        query.retain(|(known, _)| known != name);
        query.push((name.to_owned(), value));
    };
    let scopes = trip.scopes.or(app.scopes.as_deref()).unwrap_or(&auth.scopes);
    if !scopes.is_empty() {
        put("scope", scopes.join(&auth.scope_separator));
    }
    for (name, template) in &code.authorize_params {
        let value = template.text(&scope);
        let value = value.map_err(|e| Failure::lasting("missing_value", format!("authorize_params.{name}: {e}")))?;
        put(name, value);
    }
    trip.params.iter().filter(|(name, _)| !OURS.contains(&name.as_str())).for_each(|(n, v)| put(n, v.clone()));
    put("client_id", client_id.to_owned());
    put("response_type", "code".to_owned());
    put("redirect_uri", trip.redirect_uri.to_owned());
    put("state", trip.state.to_owned());
    if let Some(proof) = trip.proof.filter(|_| code.pkce) {
        put("code_challenge", proof.challenge());
        put("code_challenge_method", "S256".to_owned());
    }
    url.query_pairs_mut().extend_pairs(query);
    Ok(url)
}

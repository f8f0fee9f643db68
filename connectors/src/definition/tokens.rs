//! Sign-in that expires, as a definition says it: how tokens are got, told from an answer, and renewed.
//!
//! Plain data. Reading it is `sign_in`'s work, and asking for tokens that of [`crate::sign_in`].

use super::{AccountField, Param, Tree};
use crate::expr::{Expr, Template};
use std::time::Duration;

/// How the connections of a source get tokens that expire.
#[derive(Clone, Debug)]
pub struct TokenAuth {
    /// Who is asked, and for what.
    pub grant: Grant,
    /// Where tokens are asked for; absent where an assertion is the token, or `login` says it.
    pub token_url: Option<Template>,
    /// Where they are given back (RFC 7009).
    pub revoke_url: Option<Template>,
    /// Id of the app at the provider; what is known of the source elsewhere counts where it is absent.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<String>,
    /// What the app asks to be let to do.
    pub scopes: Vec<String>,
    /// Between two of them.
    pub scope_separator: String,
    /// How the app proves itself.
    pub client_auth: ClientAuth,
    /// The body of a request for tokens is JSON, and not a form.
    pub json_body: bool,
    /// Added to each request for a first token.
    pub token_params: Vec<(String, Template)>,
    /// From the answer to `{access_token, refresh_token?, expires_in?, …}`; the answer itself if absent.
    pub answer: Option<Expr>,
    /// Says of an answer that it is a refusal; text is its error code.
    pub failed: Option<Expr>,
    /// Fields kept on the connection: name → jq over the answer.
    pub token_fields: Vec<(String, Expr)>,
    /// How long a token lives whose answer does not say it.
    pub expires_in: Option<Duration>,
    /// So long before its end a token is renewed.
    pub refresh_before: Duration,
    /// What people enter for a connection.
    pub fields: Vec<AccountField>,
    /// What is signed here: the proof of `jwt` and of `private_key_jwt`.
    pub assertion: Option<Assertion>,
}

/// Who is asked for tokens.
#[derive(Clone, Debug)]
pub enum Grant {
    /// A person, at the provider's page (`oauth2`).
    Code(Box<CodeGrant>),
    /// The app, for itself (`client_credentials`).
    Client,
    /// Whoever has what was entered (`two_step`).
    Login(Box<Login>),
    /// Whoever holds the key (`jwt`).
    Assertion,
}

/// What only a trip of a person to the provider needs.
#[derive(Clone, Debug)]
pub struct CodeGrant {
    /// Where the person is sent; absent where tokens are only handed in.
    pub authorize_url: Option<Template>,
    /// A proof key goes along (RFC 7636, S256).
    pub pkce: bool,
    /// Added to the address.
    pub authorize_params: Vec<(String, Template)>,
    /// Fields kept on the connection: name → parameter of the address the person comes back to.
    pub callback_fields: Vec<(String, String)>,
    /// Who answers (RFC 9207): the `iss` of the way back must be this.
    pub issuer: Option<String>,
    /// Says whose account it is, over the answer: a person who signs in again must name the same.
    pub identity: Option<Expr>,
    /// Where tokens are renewed; `token_url` if absent.
    pub refresh_url: Option<Template>,
    /// Added to each request for a renewed token.
    pub refresh_params: Vec<(String, Template)>,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// Refresh tokens that nobody uses for so long end; they are used before.
    pub unused_for: Duration,
}

/// How the app proves itself where tokens are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientAuth {
    /// `client_id`, `client_secret` in the body.
    #[default]
    Body,
    /// HTTP Basic.
    Basic,
    /// By `client_id` alone.
    None,
    /// By a signed assertion (RFC 7523).
    PrivateKey,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rotation {
    /// It stays.
    None,
    /// The answer may bring another; the old one is taken for so long after.
    Lenient(Duration),
    /// The answer brings another, and whoever sends the old one again loses both.
    Strict,
}

/// The request that exchanges what was entered for a token.
#[derive(Clone, Debug)]
pub struct Login {
    /// `GET`, `POST`…
    pub method: String,
    /// Where to.
    pub url: Template,
    /// Query.
    pub params: Vec<(String, Template)>,
    /// Headers.
    pub headers: Vec<(String, Template)>,
    /// JSON body.
    pub body: Option<Tree>,
    /// Url-encoded body.
    pub form: Option<Vec<(String, Param)>>,
}

/// A signed statement (RFC 7519).
#[derive(Clone, Debug)]
pub struct Assertion {
    /// By which algorithm.
    pub algorithm: Algorithm,
    /// PEM of a private key, or the secret of `HS256`; `private_key` of the connection where it is absent.
    pub key: Option<String>,
    /// `kid`.
    pub key_id: Option<Template>,
    /// What it says beside `iat`, `exp` and `jti`.
    pub claims: Vec<(String, Tree)>,
    /// From `iat` to `exp`.
    pub lifetime: Duration,
}

/// How an assertion is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA with SHA-256.
    Rs256,
    /// The curve P-256 with SHA-256.
    Es256,
    /// HMAC with SHA-256.
    Hs256,
}

impl TokenAuth {
    /// The part of it that is about people who sign in.
    pub fn code(&self) -> Option<&CodeGrant> {
        match &self.grant {
            Grant::Code(code) => Some(code),
            _ => None,
        }
    }

    /// The credential without which no connection gets a token.
    pub(super) fn needed(&self) -> Option<&'static str> {
        let signs = matches!(self.grant, Grant::Assertion) || self.client_auth == ClientAuth::PrivateKey;
        let own = self.assertion.as_ref().is_some_and(|assertion| assertion.key.is_some());
        (signs && !own).then_some("private_key")
    }

    /// Credentials a connection of it may bring; true marks secrets.
    pub(super) fn credentials(&self) -> Vec<(&'static str, bool)> {
        let own: &[(&'static str, bool)] = match &self.grant {
            Grant::Code(_) => &[("access_token", true), ("refresh_token", true), ("expires_at", false)],
            Grant::Client => &[("client_id", false), ("client_secret", true)],
            Grant::Login(_) => &[],
            Grant::Assertion => &[],
        };
        let signs = matches!(self.grant, Grant::Assertion) || self.client_auth == ClientAuth::PrivateKey;
        let key = signs.then_some(("private_key", true));
        own.iter().copied().chain(key).collect()
    }
}

//! `auth` of a source whose sign-in expires: `oauth2`, `client_credentials`, `two_step`, `jwt`.

use super::account_fields;
use super::read::{self, ANSWER, KnownNames, Out, SignInNames};
use super::request;
use super::tokens::{Algorithm, Assertion, ClientAuth, CodeGrant, Grant, Login, Rotation, TokenAuth};
use super::{AccountField, Tree};
use crate::config_text::{Content, Entry, Fields, Node, bad_type};
use crate::expr::{Expr, Template};
use std::time::Duration;

/// So long before its end a token is renewed.
const REFRESH_BEFORE: Duration = Duration::from_secs(5 * 60);
const REFRESH_BEFORE_MAX: Duration = Duration::from_secs(3_600);
/// How long an old refresh token is taken.
const LEEWAY: Duration = Duration::from_secs(10 * 60);
/// Refresh tokens that nobody uses for so long end.
const UNUSED_FOR: Duration = Duration::from_secs(7 * DAY);
/// How long a client's token lives whose answer does not say it.
const CLIENT_EXPIRES_IN: Duration = Duration::from_secs(55 * 60);
const LIFETIME: Duration = Duration::from_secs(10 * 60);
const MINUTE: Duration = Duration::from_secs(60);
const DAY: u64 = 24 * 3_600;
/// Most scopes and parameters.
const LIST_MAX: usize = 200;

/// What the texts of `auth` may name.
struct Around<'a> {
    names: &'a KnownNames,
    fields: Vec<AccountField>,
    /// Told by the way back.
    told: Vec<String>,
    /// Brought by connections.
    credentials: Vec<&'static str>,
}

/// Reads the keys of one of the four types; `None` for another word.
pub(super) fn tokens(word: &str, fields: &mut Fields, names: &KnownNames, out: &mut Out) -> Option<TokenAuth> {
    let known = ["oauth2", "client_credentials", "two_step", "jwt"].contains(&word);
    known.then(|| {
        let own = account_fields::fields(fields, out);
        let told = if word == "oauth2" { callback_fields(fields, out) } else { Vec::new() };
        let credentials = if word == "client_credentials" { vec!["client_id", "client_secret"] } else { Vec::new() };
        let names_told = told.iter().map(|(name, _)| name.clone()).collect();
        let around = Around { names, fields: own, told: names_told, credentials };
        let mut tokens = common(fields, &around, out);
        match word {
            "oauth2" => code(&mut tokens, told, fields, &around, out),
            "client_credentials" => client_credentials(&mut tokens, fields, &around, out),
            "two_step" => two_step(&mut tokens, fields, &around, out),
            _ => jwt(&mut tokens, fields, &around, out),
        }
        tokens.fields = around.fields;
        tokens
    })
}

/// What all four have.
fn common(fields: &mut Fields, around: &Around<'_>, out: &mut Out) -> TokenAuth {
    let variables = || around.names.variables(ANSWER);
    TokenAuth {
        grant: Grant::Client,
        token_url: None,
        revoke_url: None,
        client_id: None,
        client_secret: None,
        scopes: Vec::new(),
        scope_separator: " ".to_owned(),
        client_auth: ClientAuth::Body,
        json_body: false,
        token_params: Vec::new(),
        answer: read::expr_at(fields, "answer", variables(), out),
        failed: read::expr_at(fields, "failed", variables(), out),
        token_fields: expressions(fields, "token_fields", around, out),
        expires_in: span(fields, "expires_in", MINUTE, Duration::from_secs(3_650 * DAY), out),
        refresh_before: span(fields, "refresh_before", Duration::ZERO, REFRESH_BEFORE_MAX, out)
            .unwrap_or(REFRESH_BEFORE),
        fields: Vec::new(),
        assertion: None,
    }
}

/// Of all but `two_step`: a request for tokens as standards have it.
fn token_request(tokens: &mut TokenAuth, fields: &mut Fields, around: &Around<'_>, out: &mut Out) {
    tokens.scopes = scopes(fields, out);
    if let Some((separator, spot)) = fields.text("scope_separator", out) {
        if separator.is_empty() || separator.len() > 8 {
            out.push(spot.complain("bad_value", "`scope_separator` has 1 to 8 characters"));
        }
        tokens.scope_separator = separator;
    }
    tokens.json_body = fields.word("token_body", &[("form", false), ("json", true)], out).unwrap_or(false);
    tokens.token_params = params(fields, "token_params", around, out);
}

/// Of those that are an app's: who it is.
fn app(tokens: &mut TokenAuth, fields: &mut Fields, around: &Around<'_>, out: &mut Out) {
    const WAYS: [(&str, ClientAuth); 4] = [
        ("body", ClientAuth::Body),
        ("basic", ClientAuth::Basic),
        ("none", ClientAuth::None),
        ("private_key_jwt", ClientAuth::PrivateKey),
    ];
    tokens.client_id = fields.text("client_id", out).map(|(text, _)| text);
    tokens.client_secret = fields.take("client_secret").and_then(|node| read::secret(&node, "`client_secret`", out));
    tokens.client_auth = fields.word("client_auth", &WAYS, out).unwrap_or_default();
    tokens.revoke_url = fields.take("revoke_url").and_then(|node| url(&node, "`revoke_url`", around, out));
    tokens.assertion = fields.take("assertion").and_then(|node| assertion(node, around, out));
    if tokens.client_auth == ClientAuth::PrivateKey && tokens.assertion.is_none() {
        let message = "`client_auth: private_key_jwt` needs the key `assertion`";
        let complaint = fields.spot.complain("missing_key", message);
        out.push(complaint.hint("write assertion: {alg: RS256, key: env:NAME}"));
    }
}

fn code(
    tokens: &mut TokenAuth,
    callback_fields: Vec<(String, String)>,
    fields: &mut Fields,
    around: &Around<'_>,
    out: &mut Out,
) {
    tokens.token_url = fields.require("token_url", out).and_then(|node| url(&node, "`token_url`", around, out));
    token_request(tokens, fields, around, out);
    app(tokens, fields, around, out);
    let words = [("none", Rotation::None), ("lenient", Rotation::Lenient(LEEWAY)), ("strict", Rotation::Strict)];
    let mut rotation = fields.word("rotation", &words, out).unwrap_or(Rotation::Strict);
    let leeway = span(fields, "leeway", Duration::from_secs(1), Duration::from_secs(DAY), out);
    if let (Rotation::Lenient(span), Some(leeway)) = (&mut rotation, leeway) {
        *span = leeway;
    }
    let least = Duration::from_secs(3_600);
    // Nobody has entered anything when a person is sent away but the fields.
    let before = Around { told: Vec::new(), fields: around.fields.clone(), credentials: Vec::new(), ..*around };
    tokens.grant = Grant::Code(Box::new(CodeGrant {
        authorize_url: fields.take("authorize_url").and_then(|node| url(&node, "`authorize_url`", &before, out)),
        pkce: fields.word("pkce", &[("S256", true), ("off", false)], out).unwrap_or(true),
        authorize_params: params(fields, "authorize_params", &before, out),
        callback_fields,
        issuer: fields.text("issuer", out).map(|(text, _)| text),
        identity: read::expr_at(fields, "identity", around.names.variables(ANSWER), out),
        refresh_url: fields.take("refresh_url").and_then(|node| url(&node, "`refresh_url`", around, out)),
        refresh_params: params(fields, "refresh_params", around, out),
        rotation,
        unused_for: span(fields, "unused_for", least, Duration::from_secs(3_650 * DAY), out).unwrap_or(UNUSED_FOR),
    }));
}

fn client_credentials(tokens: &mut TokenAuth, fields: &mut Fields, around: &Around<'_>, out: &mut Out) {
    tokens.token_url = fields.require("token_url", out).and_then(|node| url(&node, "`token_url`", around, out));
    token_request(tokens, fields, around, out);
    app(tokens, fields, around, out);
    tokens.expires_in.get_or_insert(CLIENT_EXPIRES_IN);
}

fn two_step(tokens: &mut TokenAuth, fields: &mut Fields, around: &Around<'_>, out: &mut Out) {
    tokens.expires_in.get_or_insert(CLIENT_EXPIRES_IN);
    let login = fields.require("login", out).and_then(|node| login(node, around, out));
    if let Some(login) = login {
        tokens.grant = Grant::Login(Box::new(login));
    }
}

fn jwt(tokens: &mut TokenAuth, fields: &mut Fields, around: &Around<'_>, out: &mut Out) {
    tokens.grant = Grant::Assertion;
    tokens.token_url = fields.take("token_url").and_then(|node| url(&node, "`token_url`", around, out));
    token_request(tokens, fields, around, out);
    tokens.assertion = fields.require("assertion", out).and_then(|node| assertion(node, around, out));
    tokens.expires_in.get_or_insert(CLIENT_EXPIRES_IN);
}

fn login(node: Node, around: &Around<'_>, out: &mut Out) -> Option<Login> {
    let mut fields = Fields::open(node, "`login` of `auth`", out)?;
    let names = around.names(true);
    let method = request::method_node(&mut fields, &[("get", "GET"), ("post", "POST")], out);
    let target = method.and_then(|(method, node)| Some((method.to_owned(), url(&node, "`login`", around, out)?)));
    let headers = request::own_headers(&mut fields, &names, out);
    let params = params(&mut fields, "params", around, out);
    let (body, form) = request::payload(&mut fields, &names, out);
    fields.finish(out);
    let (method, url) = target?;
    Some(Login { method, url, params, headers, body, form })
}

fn assertion(node: Node, around: &Around<'_>, out: &mut Out) -> Option<Assertion> {
    const WORDS: [(&str, Algorithm); 3] =
        [("RS256", Algorithm::Rs256), ("ES256", Algorithm::Es256), ("HS256", Algorithm::Hs256)];
    let mut fields = Fields::open(node, "`assertion`", out)?;
    if !fields.has("alg") {
        fields.require("alg", out);
    }
    let algorithm = fields.word("alg", &WORDS, out);
    let key = fields.take("key").and_then(|node| read::secret(&node, "`key` of `assertion`", out));
    let names = around.names(false);
    let key_id = fields.take("key_id").and_then(|node| read::template(&node, "`key_id`", &names, false, out));
    let claims = claims(&mut fields, around, out);
    let lifetime = span(&mut fields, "lifetime", MINUTE, Duration::from_secs(DAY), out).unwrap_or(LIFETIME);
    fields.finish(out);
    Some(Assertion { algorithm: algorithm?, key, key_id, claims, lifetime })
}

fn claims(fields: &mut Fields, around: &Around<'_>, out: &mut Out) -> Vec<(String, Tree)> {
    let Some(mut map) = fields.take("claims").and_then(|node| Fields::open(node, "`claims`", out)) else {
        return Vec::new();
    };
    let names = around.names(true);
    let entries = map.rest().into_iter();
    entries.filter_map(|entry| Some((entry.key, read::tree(&entry.value, &names, out)?))).collect()
}

/// `callback_fields: {realmId: realmId}`.
fn callback_fields(fields: &mut Fields, out: &mut Out) -> Vec<(String, String)> {
    let entries = entries(fields, "callback_fields", out).into_iter();
    let text = |entry: Entry| {
        read::name(&entry.key, "a field", &entry.spot, out);
        Some((entry.key, read::scalar(&entry.value, "a parameter of `callback_fields`", out)?))
    };
    entries.filter_map(text).collect()
}

fn expressions(fields: &mut Fields, key: &'static str, around: &Around<'_>, out: &mut Out) -> Vec<(String, Expr)> {
    let variables = around.names.variables(ANSWER);
    let entries = entries(fields, key, out);
    let read = |entry: Entry| {
        let expr = read::expr(&entry.value, &format!("`{}` of `{key}`", entry.key), variables, out)?;
        Some((entry.key, expr))
    };
    entries.into_iter().filter_map(read).collect()
}

fn params(fields: &mut Fields, key: &'static str, around: &Around<'_>, out: &mut Out) -> Vec<(String, Template)> {
    let names = around.names(true);
    let entries = entries(fields, key, out);
    let read = |entry: Entry| {
        let what = format!("`{}` of `{key}`", entry.key);
        Some((entry.key, read::template(&entry.value, &what, &names, false, out)?))
    };
    entries.into_iter().filter_map(read).collect()
}

fn entries(fields: &mut Fields, key: &'static str, out: &mut Out) -> Vec<Entry> {
    let Some(node) = fields.take(key) else { return Vec::new() };
    let spot = node.spot.clone();
    if !matches!(node.content, Content::Map(_)) {
        out.push(bad_type(&node, &format!("`{key}` of {}", fields.what), "a map"));
        return Vec::new();
    }
    let entries = Fields::open(node, format!("`{key}`"), out).map(|mut map| map.rest()).unwrap_or_default();
    if entries.len() > LIST_MAX {
        out.push(spot.complain("out_of_range", format!("`{key}` has more than {LIST_MAX} entries")));
    }
    entries
}

fn scopes(fields: &mut Fields, out: &mut Out) -> Vec<String> {
    let scopes = fields.texts("scopes", out).unwrap_or_default();
    for (scope, spot) in &scopes {
        if scope.is_empty() || scope.chars().any(|c| c.is_whitespace() || c.is_control()) {
            out.push(spot.complain("bad_value", format!("`{scope}` is no scope: write each as one entry of the list")));
        }
    }
    scopes.into_iter().map(|(scope, _)| scope).collect()
}

fn span(fields: &mut Fields, key: &'static str, from: Duration, to: Duration, out: &mut Out) -> Option<Duration> {
    let (span, spot) = fields.duration(key, out)?;
    if !(from..=to).contains(&span) {
        let message = format!("`{key}` must be {} to {} seconds long", from.as_secs(), to.as_secs());
        out.push(spot.complain("out_of_range", message));
    }
    Some(span)
}

/// A URL that may hold fields. What stands in its host must not be able to end it.
fn url(node: &Node, what: &str, around: &Around<'_>, out: &mut Out) -> Option<Template> {
    let template = read::template(node, what, &around.names(false), false, out)?;
    if let Some(text) = template.as_literal() {
        return read::url(text, &node.spot, out).map(|_| template);
    }
    if !template.head().starts_with("https://") && !template.head().starts_with("http://") {
        let complaint = node.spot.complain("bad_url", format!("{what} must begin with https://"));
        out.push(complaint.hint("write https://{{ connection.fields.NAME }}.example.com/path"));
        return None;
    }
    for name in template.host_names() {
        let field = name.strip_prefix("connection.fields.").unwrap_or_default();
        let declared = around.fields.iter().find(|known| known.name == field);
        if declared.is_some_and(AccountField::leaves_a_host) {
            let message =
                format!("{what}: field `{field}` stands in the host, but its pattern takes more than a part of one");
            out.push(node.spot.complain("bad_pattern", message).hint("write pattern: \"[a-z0-9-]+\""));
        }
    }
    Some(template)
}

impl Around<'_> {
    /// What a text may name; secrets only where nothing is logged or shown.
    fn names(&self, secrets: bool) -> KnownNames {
        let fields = self.fields.iter().filter(|field| !field.secret).map(|field| field.name.clone());
        let secret = self.fields.iter().filter(|field| field.secret && secrets).map(|field| field.name.clone());
        let brought = self.credentials.iter().filter(|_| secrets).map(|name| (*name).to_owned());
        let names = SignInNames {
            fields: fields.chain(self.told.iter().cloned()).collect(),
            credentials: secret.chain(brought).collect(),
        };
        KnownNames { sign_in: Some(names), ..self.names.clone() }
    }
}

//! Asks a provider for tokens: by a code, a refresh token, what was entered, or an assertion. One attempt each.

use super::answer::{self, TokenError, TokenSet};
use super::app::AppCredentials;
use super::request::{TokenForm, account_scope, login};
use super::{ANSWER_MAX, assertion};
use crate::definition::{Grant, TokenAuth};
use crate::expr::{Expr, Scope, Template, Vars};
use crate::http::{Client, Outgoing, address};
use serde_json::{Map, Value, json};
use syncline_engine::source::{Connection, Failure};

/// The grant of an assertion (RFC 7523).
const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// Where tokens of one connection are asked for.
pub struct TokenEndpoint<'a> {
    /// The way out.
    pub client: &'a Client,
    /// What the definition says.
    pub auth: &'a TokenAuth,
    /// Who the app is.
    pub app: &'a AppCredentials,
    /// Its fields; a connection that is to be made has them as well.
    pub fields: &'a Map<String, Value>,
    /// What was entered for it.
    pub entered: &'a Map<String, Value>,
}

impl<'a> TokenEndpoint<'a> {
    /// Of a connection with what was entered for it.
    pub fn of(
        client: &'a Client,
        auth: &'a TokenAuth,
        app: &'a AppCredentials,
        connection: &'a Connection,
        entered: &'a Map<String, Value>,
    ) -> TokenEndpoint<'a> {
        TokenEndpoint { client, auth, app, fields: &connection.fields, entered }
    }

    /// Tokens for the code that a person came back with.
    pub async fn exchange_code(
        &self,
        code: &str,
        redirect_uri: &str,
        verifier: Option<&str>,
    ) -> Result<TokenSet, TokenError> {
        let mut pairs = vec![
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", redirect_uri.to_owned()),
        ];
        pairs.extend(verifier.map(|verifier| ("code_verifier", verifier.to_owned())));
        self.post(self.auth.token_url.as_ref(), pairs, &self.auth.token_params).await
    }

    /// Other tokens for a refresh token. Without a new one in the answer the old one stays.
    pub async fn refresh(&self, refresh_token: &str) -> Result<TokenSet, TokenError> {
        let code = self.auth.code();
        let url = code.and_then(|code| code.refresh_url.as_ref()).or(self.auth.token_url.as_ref());
        let params = code.map_or(&[][..], |code| &code.refresh_params);
        let pairs = vec![("grant_type", "refresh_token".to_owned()), ("refresh_token", refresh_token.to_owned())];
        let mut tokens = self.post(url, pairs, params).await?;
        tokens.refresh_token.get_or_insert_with(|| refresh_token.to_owned());
        Ok(tokens)
    }

    /// Tokens for what is known already: of the app, by a login, or by an assertion.
    pub async fn obtain(&self) -> Result<TokenSet, TokenError> {
        let mut pairs = Vec::new();
        match &self.auth.grant {
            Grant::Code(_) => {
                let message = "nobody has signed in: let a person sign in, or hand tokens in";
                return Err(TokenError::Unusable(Failure::lasting("not_connected", message)));
            }
            Grant::Login(by) => return self.send(login(by, &self.scope(), self.entered)?).await,
            Grant::Client => pairs.push(("grant_type", "client_credentials".to_owned())),
            Grant::Assertion => {
                let Some(signed) = self.assertion()? else { return self.own_token() };
                pairs.extend([("grant_type", JWT_BEARER.to_owned()), ("assertion", signed)]);
            }
        }
        let scopes = self.app.scopes.as_ref().unwrap_or(&self.auth.scopes);
        if !scopes.is_empty() {
            pairs.push(("scope", scopes.join(&self.auth.scope_separator)));
        }
        self.post(self.auth.token_url.as_ref(), pairs, &self.auth.token_params).await
    }

    /// Gives a token back (RFC 7009), if the provider takes it.
    pub async fn revoke(&self, token: &str) -> Result<(), TokenError> {
        let Some(url) = &self.auth.revoke_url else { return Ok(()) };
        let url = address(url, &self.scope(), "revoke_url").map_err(TokenError::Unusable)?;
        let request = self.form(&self.scope()).request(&url, vec![("token", token.to_owned())], &[])?;
        let answer = self.client.send(request).await.map_err(TokenError::Unavailable)?;
        match answer.status {
            200..=299 => Ok(()),
            status => {
                let message = format!("the provider did not take the token back: {status} «{}»", answer.quote());
                Err(TokenError::Unavailable(Failure {
                    status: Some(status),
                    ..Failure::lasting("http_status", message)
                }))
            }
        }
    }

    /// Fields of the connection that stand in an answer with tokens (`token_fields`).
    pub fn fields_of(&self, raw: &Value) -> Result<Map<String, Value>, Failure> {
        let vars = self.vars();
        let read = |(name, expr): &(String, Expr)| {
            let value = expr.first(raw, &vars);
            let value =
                value.map_err(|e| Failure::lasting("bad_expression", format!("auth.token_fields.{name}: {e}")))?;
            Ok((name.clone(), value))
        };
        self.auth.token_fields.iter().filter(|_| !raw.is_null()).map(read).collect()
    }

    /// Whose account an answer with tokens is about, where the definition can tell.
    pub fn identity(&self, raw: &Value) -> Option<Value> {
        let expr = self.auth.code()?.identity.as_ref()?;
        expr.first(raw, &self.vars()).ok().filter(|identity| !identity.is_null())
    }

    fn vars(&self) -> Vars {
        Vars { connection: json!({"fields": self.fields}), ..Vars::default() }
    }

    fn scope(&self) -> Scope {
        account_scope(self.fields, self.entered)
    }

    fn key(&self) -> Option<&str> {
        self.entered.get("private_key").and_then(Value::as_str)
    }

    fn form<'s>(&'s self, scope: &'s Scope) -> TokenForm<'s> {
        let now = self.client.clock().now();
        TokenForm { auth: self.auth, app: self.app, scope, now, key: self.key() }
    }

    /// The statement that is exchanged; nothing where it is the token itself.
    fn assertion(&self) -> Result<Option<String>, TokenError> {
        let (Some(said), Some(url)) = (&self.auth.assertion, &self.auth.token_url) else { return Ok(None) };
        let url = address(url, &self.scope(), "token_url").map_err(TokenError::Unusable)?;
        let own = json!({"aud": url.as_str()});
        assertion::sign(said, own, &self.scope(), self.key(), self.client.clock().now()).map(Some)
    }

    fn own_token(&self) -> Result<TokenSet, TokenError> {
        let Some(said) = &self.auth.assertion else {
            return Err(TokenError::Unusable(Failure::lasting("missing_key", "`auth` has no `assertion`")));
        };
        let now = self.client.clock().now();
        let access_token = assertion::sign(said, json!({}), &self.scope(), self.key(), now)?;
        let expires_at = Some(now.plus(said.lifetime));
        Ok(TokenSet { access_token, refresh_token: None, expires_at, scopes: None, raw: Value::Null })
    }

    async fn post(
        &self,
        url: Option<&Template>,
        pairs: Vec<(&str, String)>,
        params: &[(String, Template)],
    ) -> Result<TokenSet, TokenError> {
        let missing = || TokenError::Unusable(Failure::lasting("missing_key", "`auth` has no `token_url`"));
        let scope = self.scope();
        let url = address(url.ok_or_else(missing)?, &scope, "token_url").map_err(TokenError::Unusable)?;
        let form = self.form(&scope);
        // The app proves itself by the assertion where that is what is exchanged.
        let request = match self.auth.grant {
            Grant::Assertion => form.unproven(&url, pairs, params)?,
            _ => form.request(&url, pairs, params)?,
        };
        self.send(request).await
    }

    async fn send(&self, request: Outgoing) -> Result<TokenSet, TokenError> {
        // What cannot be sent at all will not be the next time either.
        self.client.permits(&request.url).map_err(TokenError::Unusable)?;
        let answer = self.client.send(request).await.map_err(|why| match why.code {
            "response_too_large" => {
                let message = format!("the answer with tokens has more than {ANSWER_MAX} bytes");
                TokenError::Unavailable(Failure::passing("response_too_large", message))
            }
            "egress_blocked" | "insecure_url" | "bad_url" => TokenError::Unusable(why),
            _ => TokenError::Unavailable(why),
        })?;
        answer::read(self.auth, &answer, self.fields)
    }
}

//! A person's way to a provider's sign-in and back: where they are sent, and what their way back brings.
//!
//! Promises: a way back counts once, within its time, and only for the browser that departed; where the definition names who answers,
//! nobody else's answer counts; what came of it is told to the session, and to the browser that waits.

use super::flows::{self, Flow};
use super::sessions::{ConnectOutcome, Session, SessionDefaults};
use super::sockets::SocketNotice;
use super::{ConnectRefused, EnteredAccount, token};
use crate::app::App;
use crate::connectors::definition::{Definition, TokenAuth};
use crate::connectors::http::on_one_line;
use crate::connectors::sign_in::{AppCredentials, Departure, ProofKey, TokenEndpoint, TokenSet, authorize_url};
use crate::engine::time::entropy;
use crate::registry::connections::AccountKey;
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Where every way back leads.
pub const CALLBACK: &str = "/oauth/callback";
/// Longest description of a refusal that is shown.
const SAID_CHARS_MAX: usize = 300;

/// What a browser asks that departs.
#[derive(Default)]
pub struct DepartureAsk {
    /// What was entered for the connection.
    pub fields: Map<String, Value>,
    /// Scopes of the user, for providers that have such.
    pub user_scope: Option<String>,
    /// Parameters of the address.
    pub authorize_params: BTreeMap<String, String>,
    /// The name of the socket on which it waits.
    pub socket: Option<String>,
}

/// Where a browser is sent, and what it keeps until it is back.
pub struct Departed {
    /// The provider's page.
    pub url: String,
    /// Tells its trips apart.
    pub trip: String,
    /// What it keeps.
    pub nonce: String,
}

/// What a way back brings.
pub struct WayBack {
    /// What names the trip.
    pub state: String,
    /// What is exchanged for tokens.
    pub code: Option<String>,
    /// Why there is none: a word, and a sentence.
    pub error: Option<(String, String)>,
    /// Who answers.
    pub issuer: Option<String>,
    /// Everything in the address.
    pub params: Map<String, Value>,
    /// What the browser keeps of its trips.
    pub kept: BTreeMap<String, String>,
}

/// What came of a way back.
pub struct Arrival {
    /// What was to be connected.
    pub integration: String,
    /// What became of it.
    pub outcome: ConnectOutcome,
}

/// The name under which a browser keeps what belongs to a trip.
pub fn trip_of(state: &str) -> String {
    token::hash(state).chars().take(16).collect()
}

impl App {
    /// Sends somebody to the provider of an integration.
    pub async fn depart(&self, token: &str, integration: &str, ask: DepartureAsk) -> Result<Departed, ConnectRefused> {
        let session = self.session_for(token, integration).await?;
        let definition = self.definitions.get(integration);
        let definition = definition.ok_or_else(|| ConnectRefused::Integration(integration.to_owned()))?;
        let auth = definition.auth.tokens().ok_or_else(|| ConnectRefused::NoSignIn(integration.to_owned()))?;
        check_fields(&definition, &ask.fields)?;
        let app = AppCredentials::of(auth, None, &Map::new());
        let defaults = session.defaults.get(integration).cloned().unwrap_or_default();
        let scopes = scopes(&defaults, &app, auth);
        let (state, proof, nonce) = (self.connect.flows.name(), ProofKey::new(), hex::encode(entropy()));
        let redirect_uri = format!("{}{CALLBACK}", self.settings.public_url.as_deref().unwrap_or_default());
        let params = params(defaults, &ask);
        let departure = Departure {
            state: &state,
            redirect_uri: &redirect_uri,
            proof: Some(&proof),
            fields: &ask.fields,
            scopes: Some(&scopes),
            params: &params,
        };
        let url = authorize_url(auth, &app, &departure).map_err(ConnectRefused::Unusable)?.to_string();
        let flow = Flow {
            session: token::hash(token),
            integration: integration.to_owned(),
            verifier: auth.code().is_some_and(|code| code.pkce).then(|| proof.verifier().to_owned()),
            redirect_uri,
            nonce: token::hash(&nonce),
            socket: ask.socket,
            fields: ask.fields,
            scopes,
            expires_at: self.engine.clock().now().plus(flows::LASTS),
        };
        if !self.connect.flows.put(&state, &flow).await? {
            return Err(ConnectRefused::TooMany);
        }
        Ok(Departed { url, trip: trip_of(&state), nonce })
    }

    /// Takes somebody in who is back. What came of it is told whoever waits; where the way back is no one's, nobody is told.
    pub async fn arrive(self: &Arc<Self>, back: WayBack) -> Result<Arrival, ConnectRefused> {
        let flow = self.connect.flows.take(&back.state).await?.ok_or(ConnectRefused::Flow)?;
        let kept = back.kept.get(&trip_of(&back.state)).map(|nonce| token::hash(nonce)).unwrap_or_default();
        if !bool::from(kept.as_bytes().ct_eq(flow.nonce.as_bytes())) {
            return Err(ConnectRefused::Flow);
        }
        let connected = self.arrived(&flow, back).await;
        let (outcome, notice) = match connected {
            Ok(key) => {
                let notice =
                    SocketNotice::Connected { integration: flow.integration.clone(), connection: key.id.clone() };
                (ConnectOutcome::Connected(key.id), notice)
            }
            Err(why) => {
                let (code, message) = (why.code().to_owned(), why.to_string());
                let outcome = ConnectOutcome::Failed(code.clone(), message.clone());
                self.connect.sessions.note_of(&flow.session, &flow.integration, outcome.clone()).await?;
                (outcome, SocketNotice::Failed { code, message })
            }
        };
        if let Some(socket) = &flow.socket {
            self.connect.sockets.tell(socket, notice);
        }
        Ok(Arrival { integration: flow.integration, outcome })
    }

    async fn arrived(self: &Arc<Self>, flow: &Flow, back: WayBack) -> Result<AccountKey, ConnectRefused> {
        let definition = self.definitions.get(&flow.integration);
        let definition = definition.ok_or_else(|| ConnectRefused::Integration(flow.integration.clone()))?;
        let auth = definition.auth.tokens().ok_or_else(|| ConnectRefused::NoSignIn(flow.integration.clone()))?;
        let code = code(auth, &back)?;
        let app = AppCredentials::of(auth, None, &Map::new());
        let mut fields = flow.fields.clone();
        for (name, param) in auth.code().iter().flat_map(|code| &code.callback_fields) {
            fields.extend(back.params.get(param).map(|value| (name.clone(), value.clone())));
        }
        let entered = Map::new();
        let client = &self.connect.client;
        let endpoint = TokenEndpoint { client, auth, app: &app, fields: &fields, entered: &entered };
        let tokens = endpoint.exchange_code(&code, &flow.redirect_uri, flow.verifier.as_deref()).await;
        let tokens =
            tokens.map_err(|why| ConnectRefused::SignIn("token_exchange_failed".to_owned(), why.to_string()))?;
        let session = self.connect.sessions.of_hash(&flow.session)?.ok_or(ConnectRefused::Session)?;
        self.must_be_the_same(&session, &endpoint, &tokens)?;
        fields.extend(endpoint.fields_of(&tokens.raw).map_err(ConnectRefused::Unusable)?);
        let lacking = lacking(&flow.scopes, &tokens);
        let account = EnteredAccount { credentials: credentials(tokens), fields };
        let key = self.connect_session(&flow.session, &flow.integration, account).await?;
        if lacking {
            let noted = self.connections.set_error(&key, "scopes", &trip_of(&back.state)).await;
            noted.map_err(|why| ConnectRefused::Connection(why.into()))?;
        }
        Ok(key)
    }

    /// Whoever signs in again has to name the account that is connected, where the definition can tell.
    fn must_be_the_same(
        &self,
        session: &Session,
        endpoint: &TokenEndpoint<'_>,
        tokens: &TokenSet,
    ) -> Result<(), ConnectRefused> {
        let Some(key) = &session.reconnect else { return Ok(()) };
        let account = self.connections.get(&key.environment, &key.source, &key.id);
        let raw = account.as_ref().and_then(|account| account.connection.credentials.get("raw"));
        let before = raw.and_then(|raw| endpoint.identity(raw));
        match (before, endpoint.identity(&tokens.raw)) {
            (Some(before), now) if Some(&before) != now.as_ref() => Err(ConnectRefused::SignIn(
                "connection_mismatch".to_owned(),
                "this is another account than the one that is connected: sign in with that one".to_owned(),
            )),
            _ => Ok(()),
        }
    }
}

/// Values have to be what the definition takes: they stand in addresses.
fn check_fields(definition: &Definition, given: &Map<String, Value>) -> Result<(), ConnectRefused> {
    for field in definition.auth.fields() {
        let value = given.get(&field.name).and_then(Value::as_str).unwrap_or_default();
        if !field.takes(value) {
            let title = field.title.as_deref().unwrap_or(&field.name);
            return Err(ConnectRefused::Field(field.name.clone(), title.to_owned()));
        }
    }
    Ok(())
}

/// What is asked for: what the session says, then the app.
fn scopes(defaults: &SessionDefaults, app: &AppCredentials, auth: &TokenAuth) -> Vec<String> {
    let said = defaults.connection_config.get("oauth_scopes_override").and_then(Value::as_str);
    let words = |text: &str| text.split([',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    said.map(words).or_else(|| app.scopes.clone()).unwrap_or_else(|| auth.scopes.clone())
}

fn params(defaults: SessionDefaults, ask: &DepartureAsk) -> Vec<(String, String)> {
    let mut params = ask.authorize_params.clone();
    // What the customer's app says of its session wins over what a browser asks.
    params.extend(defaults.authorization_params);
    let user_scope = defaults.user_scopes.or_else(|| ask.user_scope.clone());
    params.extend(user_scope.map(|scopes| ("user_scope".to_owned(), scopes)));
    params.into_iter().collect()
}

/// The code of a way back that is one, and the expected provider's.
fn code(auth: &TokenAuth, back: &WayBack) -> Result<String, ConnectRefused> {
    let issuer = auth.code().and_then(|code| code.issuer.as_deref());
    if issuer.is_some_and(|issuer| back.issuer.as_deref() != Some(issuer)) {
        let message = "the answer is not the expected provider's".to_owned();
        return Err(ConnectRefused::SignIn("issuer_mismatch".to_owned(), message));
    }
    if let Some((code, message)) = &back.error {
        let said: String = on_one_line(message).chars().take(SAID_CHARS_MAX).collect();
        let code: String = on_one_line(code).chars().take(SAID_CHARS_MAX).collect();
        return Err(ConnectRefused::SignIn(code, said));
    }
    let none = || ConnectRefused::SignIn("no_code".to_owned(), "the provider's answer brings no code".to_owned());
    back.code.clone().ok_or_else(none)
}

/// Whether less was granted than was asked for.
fn lacking(asked: &[String], tokens: &TokenSet) -> bool {
    tokens.scopes.as_ref().is_some_and(|granted| asked.iter().any(|scope| !granted.contains(scope)))
}

/// Tokens as a connection bears them.
fn credentials(tokens: TokenSet) -> Map<String, Value> {
    let mut credentials = Map::new();
    credentials.insert("access_token".to_owned(), tokens.access_token.into());
    credentials.extend(tokens.refresh_token.map(|token| ("refresh_token".to_owned(), token.into())));
    credentials.extend(tokens.expires_at.map(|at| ("expires_at".to_owned(), at.to_string().into())));
    credentials.insert("raw".to_owned(), tokens.raw);
    credentials
}

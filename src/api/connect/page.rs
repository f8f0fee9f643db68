//! `/connect/`: the page on which a person connects an account. It names who connects what, asks for what the integration needs, and
//! tells the page around it what came of it.
//!
//! Promises: only pages of `connect.origins` can frame it; everything that was given by others is escaped; it runs no script but
//! its own.

use super::words::{Words, words};
use super::{NOT_YET, forms};
use crate::api::Api;
use crate::api::cluster::target::{alone, local};
use crate::api::routes::Routes;
use crate::app::connect::sessions::{ConnectOutcome, Session};
use crate::connectors::definition::{AccountField, Auth, AuthKind, Grant};
use crate::http::error::Refusal;
use crate::http::query::QueryFields;
use crate::http::sender;
use crate::registry::integrations::Integration;
use askama::Template;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};

const STYLE: &str = include_str!("page/page.css");
const SCRIPT: &str = include_str!("page/page.js");

pub(super) fn routes() -> Routes {
    Routes::new()
        .get("/connect", show, alone(NOT_YET))
        .get("/connect/page.css", async || asset("text/css; charset=utf-8", STYLE), local())
        .get("/connect/page.js", async || asset("text/javascript; charset=utf-8", SCRIPT), local())
}

pub(super) fn asset(kind: &'static str, text: &'static str) -> Response {
    let headers = [(CONTENT_TYPE, kind), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (headers, text).into_response()
}

/// The page as its template reads it.
#[derive(Template)]
#[template(path = "connect.html")]
struct ConnectPage<'a> {
    lang: &'static str,
    theme: Option<&'static str>,
    words: &'static Words,
    /// Where the server is, without a slash at the end.
    base: &'a str,
    token: &'a str,
    origins: String,
    state: &'static str,
    who: Option<String>,
    view: PageView,
}

/// What is on it.
enum PageView {
    /// It waits for the token.
    Waiting,
    /// Nothing can be done.
    Over(&'static str),
    /// Which integration?
    Choice(Vec<PageChoice>),
    /// What it needs.
    Form(PageForm),
}

struct PageChoice {
    name: String,
    link: String,
}

struct PageForm {
    key: String,
    name: String,
    /// Where it is sent.
    way: String,
    fields: Vec<PageField>,
    back: Option<String>,
}

/// Something that is entered.
struct PageField {
    id: String,
    name: String,
    title: String,
    /// `credential`, or `field` of the connection.
    place: &'static str,
    secret: bool,
    required: bool,
    pattern: Option<String>,
    example: Option<String>,
}

/// What the query says.
struct PageQuery {
    token: Option<String>,
    integration: Option<String>,
    lang: Option<String>,
    theme: Option<&'static str>,
}

impl PageQuery {
    /// Clients add parameters of their own: what is not known here is passed over.
    fn read(raw: Option<&str>) -> PageQuery {
        let mut query = QueryFields::read_with(raw, |_| true);
        let theme = match query.one("theme").as_deref() {
            Some("dark") => Some("dark"),
            Some("light") => Some("light"),
            _ => None,
        };
        PageQuery {
            token: query.one("session_token").filter(|token| !token.is_empty()),
            integration: query.one("integration"),
            lang: query.one("lang"),
            theme,
        }
    }

    /// The page again, for another integration or for the choice among them.
    fn link(&self, integration: Option<&str>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let pairs = [
            ("session_token", self.token.as_deref()),
            ("integration", integration),
            ("lang", self.lang.as_deref()),
            ("theme", self.theme),
        ];
        query.extend_pairs(pairs.into_iter().filter_map(|(name, value)| Some((name, value?))));
        format!("?{}", query.finish())
    }
}

async fn show(State(api): State<Api>, request: Request) -> Result<Response, Refusal> {
    let query = PageQuery::read(request.uri().query());
    let accepted = request.headers().get("accept-language").and_then(|value| value.to_str().ok());
    let (lang, words) = words(query.lang.as_deref().or(accepted));
    let from = sender(request.extensions());
    drop(request);
    let session = match &query.token {
        None => None,
        Some(token) => Some(api.app.session(token).await),
    };
    let (status, session) = match session {
        Some(Ok(session)) => (StatusCode::OK, Some(session)),
        Some(Err(_)) => {
            api.http.wrong_token(from)?;
            (StatusCode::UNAUTHORIZED, None)
        }
        None => (StatusCode::OK, None),
    };
    let view = match &session {
        Some(session) => view(&api, &query, session, words),
        None if query.token.is_some() => PageView::Over(words.over),
        None if api.app.settings.connect_origins.is_empty() => PageView::Over(words.incomplete),
        None => PageView::Waiting,
    };
    let page = ConnectPage {
        lang,
        theme: query.theme,
        words,
        base: api.app.settings.public_url.as_deref().unwrap_or_default(),
        token: query.token.as_deref().unwrap_or_default(),
        origins: api.app.settings.connect_origins.join(" "),
        state: if matches!(view, PageView::Waiting) { "waiting" } else { "open" },
        who: session.as_ref().and_then(named),
        view,
    };
    let html = page.render().map_err(|why| Refusal::internal(&format!("the connect page: {why}")))?;
    let origins = &api.app.settings.connect_origins;
    let framed = if origins.is_empty() { framed_by_nobody().to_owned() } else { origins.join(" ") };
    Ok((status, secured(&framed)?, html).into_response())
}

/// Who may frame a page that nobody may.
pub(super) fn framed_by_nobody() -> &'static str {
    "'none'"
}

/// Headers of a page that has nothing but our own, and is framed by some alone.
pub(super) fn secured(framed: &str) -> Result<[(axum::http::HeaderName, HeaderValue); 3], Refusal> {
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'self'; \
         frame-ancestors {framed}"
    );
    let policy = HeaderValue::from_str(&policy).map_err(|why| Refusal::internal(&why.to_string()))?;
    Ok([
        (CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8")),
        (CONTENT_SECURITY_POLICY, policy),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ])
}

/// Who connects, as people know them.
fn named(session: &Session) -> Option<String> {
    let user = session.end_user.as_ref()?;
    let of = user.organization.as_ref().and_then(|of| of.display_name.as_deref());
    let name = user.display_name.as_deref().or(user.email.as_deref()).unwrap_or(&user.id);
    Some(of.map_or_else(|| name.to_owned(), |of| format!("{name} ({of})")))
}

fn view(api: &Api, query: &PageQuery, session: &Session, words: &'static Words) -> PageView {
    let all = api.app.integrations.list(&session.environment);
    let is_open = |one: &Integration| {
        let connected = matches!(session.outcomes.get(&one.key), Some(ConnectOutcome::Connected(_)));
        session.allows(&one.key) && !connected
    };
    let allowed: Vec<Integration> = all.into_iter().filter(is_open).collect();
    let chosen = match (&query.integration, allowed.as_slice()) {
        (Some(key), _) => allowed.iter().find(|one| one.key == *key),
        (None, [only]) => Some(only),
        (None, _) => None,
    };
    match chosen {
        Some(integration) => {
            let back = (allowed.len() > 1).then(|| query.link(None));
            PageView::Form(form(integration, words, back))
        }
        None if allowed.is_empty() => PageView::Over(words.nothing),
        None => {
            let choice = |one: &Integration| PageChoice {
                name: one.display_name().to_owned(),
                link: query.link(Some(&one.key)),
            };
            PageView::Choice(allowed.iter().map(choice).collect())
        }
    }
}

fn form(integration: &Integration, words: &Words, back: Option<String>) -> PageForm {
    let auth = &integration.definition.auth;
    let mut fields = credentials(auth, words);
    fields.iter_mut().enumerate().for_each(|(at, field)| field.id = format!("field-{at}"));
    PageForm {
        key: integration.key.clone(),
        name: integration.display_name().to_owned(),
        way: forms::way(auth.kind.mode(), &integration.key),
        fields,
        back,
    }
}

/// What the kind of sign-in needs.
fn credentials(auth: &Auth, words: &Words) -> Vec<PageField> {
    let required = !auth.optional;
    let field = |name: &str, title: &str, secret: bool, required: bool| PageField {
        id: String::new(),
        name: name.to_owned(),
        title: title.to_owned(),
        place: "credential",
        secret,
        required,
        pattern: None,
        example: None,
    };
    let own = match &auth.kind {
        AuthKind::None => Vec::new(),
        AuthKind::Bearer { .. } | AuthKind::ApiKey { .. } => vec![field("apiKey", words.api_key, true, required)],
        AuthKind::Basic { .. } => {
            vec![field("username", words.username, false, required), field("password", words.password, true, false)]
        }
        AuthKind::Tokens(tokens) => match tokens.grant {
            Grant::Client if tokens.client_id.is_none() => vec![
                field("client_id", words.client_id, false, true),
                field("client_secret", words.client_secret, true, true),
            ],
            _ => Vec::new(),
        },
    };
    own.into_iter().chain(auth.fields().iter().map(entered)).collect()
}

/// A field that the definition asks for.
fn entered(field: &AccountField) -> PageField {
    PageField {
        id: String::new(),
        name: field.name.clone(),
        title: field.title.clone().unwrap_or_else(|| field.name.clone()),
        // What is secret stands in no address.
        place: if field.secret { "credential" } else { "field" },
        secret: field.secret,
        required: true,
        pattern: field.pattern.clone(),
        example: field.example.clone(),
    }
}

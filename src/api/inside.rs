//! The routes without a socket: the command line reads a data folder no server holds through the very same API.

use super::router;
use crate::app::App;
use axum::body::Body;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::BodyExt;
use std::sync::Arc;
use tower::ServiceExt;

/// A caller in this process.
pub struct Inside {
    router: axum::Router,
    headers: HeaderMap,
}

impl Inside {
    /// A caller with this key, which must be one of the app's settings.
    pub fn new(app: Arc<App>, key: &str) -> Self {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_str(&format!("Bearer {key}")) {
            headers.insert("authorization", value);
        }
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        Inside { router: router(app), headers }
    }

    /// One request and its whole answer: status and body. A path, header or method that is none gives 400.
    pub async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> (u16, Vec<u8>) {
        let Some(request) = self.request(method, path, headers, body) else {
            return (400, Vec::new());
        };
        let Ok(answer) = self.router.clone().oneshot(request).await;
        let status = answer.status().as_u16();
        match answer.into_body().collect().await {
            Ok(body) => (status, body.to_bytes().to_vec()),
            Err(_) => (500, Vec::new()),
        }
    }

    fn request(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Option<Request<Body>> {
        let mut request = Request::new(body.map_or_else(Body::empty, Body::from));
        *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
        *request.uri_mut() = path.parse::<Uri>().ok()?;
        *request.headers_mut() = self.headers.clone();
        for (name, value) in headers {
            let name = name.parse::<HeaderName>().ok()?;
            request.headers_mut().insert(name, HeaderValue::from_str(value).ok()?);
        }
        Some(request)
    }
}

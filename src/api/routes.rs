//! Routes: each is declared once, with its path, what handles it, and who answers it where several processes share the
//! connections.
//!
//! Promises: a route cannot be declared without its [`RouteTarget`]; the router of one process and the one of a cluster are
//! built of the same declarations, so that both serve the same paths; each path answers with and without a trailing slash.

use super::Api;
use super::cluster::target::RouteTarget;
use axum::Router;
use axum::handler::Handler;
use axum::http::Method;
use axum::routing::{MethodFilter, MethodRouter, any, on};
use std::sync::Arc;

/// What is served, in order of declaration.
#[derive(Default)]
pub(super) struct Routes(Vec<DeclaredRoute>);

/// A path, and what becomes of requests to it.
pub(super) struct DeclaredRoute {
    /// `None`: any.
    pub method: Option<Method>,
    /// As axum reads it: `/v1/runs/{id}`.
    pub path: String,
    /// Who answers.
    pub target: Arc<RouteTarget>,
    handler: MethodRouter<Api>,
}

impl Routes {
    pub(super) fn new() -> Routes {
        Routes::default()
    }

    /// `GET`, and `HEAD` with it.
    pub(super) fn get<H: Handler<T, Api>, T: 'static>(self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.declare(Method::GET, path, on(MethodFilter::GET, handler), target)
    }

    pub(super) fn post<H: Handler<T, Api>, T: 'static>(self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.declare(Method::POST, path, on(MethodFilter::POST, handler), target)
    }

    pub(super) fn put<H: Handler<T, Api>, T: 'static>(self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.declare(Method::PUT, path, on(MethodFilter::PUT, handler), target)
    }

    pub(super) fn patch<H: Handler<T, Api>, T: 'static>(self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.declare(Method::PATCH, path, on(MethodFilter::PATCH, handler), target)
    }

    pub(super) fn delete<H: Handler<T, Api>, T: 'static>(self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.declare(Method::DELETE, path, on(MethodFilter::DELETE, handler), target)
    }

    /// Whatever the method.
    pub(super) fn any<H: Handler<T, Api>, T: 'static>(mut self, path: &str, handler: H, target: RouteTarget) -> Routes {
        self.push(None, path, any(handler), target);
        self
    }

    /// These and others.
    pub(super) fn merge(mut self, others: Routes) -> Routes {
        self.0.extend(others.0);
        self
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &DeclaredRoute> {
        self.0.iter()
    }

    /// The router of one process, or of one partition: every request is handled here.
    pub(super) fn router(self) -> Router<Api> {
        self.0.into_iter().fold(Router::new(), |router, route| both(router, &route.path, route.handler))
    }

    fn declare(mut self, method: Method, path: &str, handler: MethodRouter<Api>, target: RouteTarget) -> Routes {
        self.push(Some(method), path, handler, target);
        self
    }

    fn push(&mut self, method: Option<Method>, path: &str, handler: MethodRouter<Api>, target: RouteTarget) {
        self.0.push(DeclaredRoute { method, path: path.to_owned(), target: Arc::new(target), handler });
    }
}

/// A path with and without a trailing slash. What follows a catch-all is part of it.
pub(super) fn both<S: Clone + Send + Sync + 'static>(
    router: Router<S>,
    path: &str,
    methods: MethodRouter<S>,
) -> Router<S> {
    if path.contains("{*") {
        return router.route(path, methods);
    }
    router.route(path, methods.clone()).route(&format!("{path}/"), methods)
}

//! One request of an action that a definition describes: made as every other request of its source, and its whole answer read.

use super::RestSource;
use super::answer::{self, AnswerVerdict, judge};
use super::request::{Filling, base, draft, header_values};
use super::source::Exchange;
use crate::definition::Request;
use crate::expr::{Template, Vars};
use crate::http::body;
use crate::http::limits::RequestPriority;
use crate::mapping::SeenAt;
use serde_json::Value;
use std::sync::Arc;
use syncline_engine::source::{Connection, Failure};

/// What the placeholders of the request may name beside the connection.
#[derive(Clone, Debug)]
pub(crate) struct ActionValues {
    /// What the action is given.
    pub input: Value,
    /// Answers of the requests before it, by name.
    pub steps: Value,
    /// The name of the call.
    pub id: String,
}

/// An answer to it.
pub(crate) struct ActionAnswer {
    pub body: Value,
    /// Of expressions about it.
    pub vars: Vars,
    pub status: u16,
    pub seen: SeenAt,
}

/// Why there is none that is welcome.
pub(crate) struct ActionRefusal {
    pub why: Failure,
    /// What the provider said, if it said something.
    pub said: Option<Box<Value>>,
    /// The request was made.
    pub made: bool,
}

impl From<Failure> for ActionRefusal {
    fn from(why: Failure) -> ActionRefusal {
        ActionRefusal { why, said: None, made: false }
    }
}

impl RestSource {
    /// Makes a request of an action, once; and once more with other credentials if the provider refuses those there are.
    pub(crate) async fn act(
        &self,
        connection: &Arc<Connection>,
        request: &Request,
        values: &ActionValues,
        known_by: Option<&(String, Template)>,
    ) -> Result<ActionAnswer, ActionRefusal> {
        let connection = self.signed(connection).await?;
        let answer = self.act_once(&connection, request, values, known_by).await;
        let judged = match &answer {
            Err(refusal) => Err(refusal.why.clone()),
            Ok(_) => Ok(()),
        };
        let answer = match self.signed_again(&connection, &judged).await? {
            Some(connection) => self.act_once(&connection, request, values, known_by).await,
            None => answer,
        };
        answer.map_err(|refusal| ActionRefusal { why: self.told(&connection, refusal.why), ..refusal })
    }

    async fn act_once(
        &self,
        connection: &Connection,
        request: &Request,
        values: &ActionValues,
        known_by: Option<&(String, Template)>,
    ) -> Result<ActionAnswer, ActionRefusal> {
        let action = Value::from_iter([("id", values.id.clone())]);
        let filling = Filling::new(connection, "base")
            .with("input", values.input.clone())
            .with("steps", values.steps.clone())
            .with("action", action)
            .leaving_out("input");
        let base = base(&self.definition.base_url, connection, &filling)?;
        let mut draft = draft(request, &base, &filling)?;
        draft.headers.extend(header_values(known_by.iter().map(|(name, value)| (name, value)), &filling)?);
        let sent = self.exchange(connection, &draft, request.timeout, RequestPriority::Call, None).await;
        let Exchange { answer, budget } = sent.map_err(|why| ActionRefusal { made: true, ..why.into() })?;
        let vars = answer::vars(connection, &Value::Null, &answer);
        let vars = Vars { input: values.input.clone(), steps: values.steps.clone(), ..vars };
        let refused = |why| {
            let said = body::read(answer.header("content-type"), &answer.body).ok().map(|(body, _)| Box::new(body));
            ActionRefusal { why, said, made: true }
        };
        let (verdict, faults) = judge(&self.definition, request, &answer, &budget, &vars).map_err(refused)?;
        answer::readable(&self.definition, &answer, &faults, &[]).map_err(refused)?;
        let body = match verdict {
            AnswerVerdict::Page(body) | AnswerVerdict::Part(Some(body)) => body,
            AnswerVerdict::Part(None)
            | AnswerVerdict::NotModified
            | AnswerVerdict::Ignored
            | AnswerVerdict::Skipped => Value::Null,
        };
        let observed_at = answer.sent_at;
        let seen = SeenAt { observed_at, answered_at: answer.date().unwrap_or(observed_at) };
        Ok(ActionAnswer { body, vars, status: answer.status, seen })
    }
}

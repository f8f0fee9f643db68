//! The definition of an integration: a preset, with what the app is known by at the provider.

use super::{AuthKind, Definition, Grant, Parsed, SourceFunctions, parse_beside, preset, preset_sign_ins, presets};
use crate::config_text::{self, Content, Node, Reference, SourceSpan};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The app's own credentials at a provider.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct IntegrationCredentials {
    /// Its public name there.
    pub client_id: Option<String>,
    /// What proves it.
    pub client_secret: Option<String>,
    /// What it asks of its users; the preset's where absent.
    pub scopes: Option<Vec<String>>,
    /// What the provider signs webhooks with.
    pub webhook_secret: Option<String>,
}

/// An integration that stands in no file.
pub struct PresetIntegration<'a> {
    /// The name of its source.
    pub source: &'a str,
    /// What it is laid over.
    pub preset: &'a str,
    /// For people.
    pub title: Option<&'a str>,
    /// The app's own.
    pub credentials: &'a IntegrationCredentials,
    /// How accounts sign in, where the preset knows several ways; the usual one if absent.
    pub way: Option<String>,
}

/// The way to sign in that fits an app: people sign in where it has a name at the provider, and enter a key where it has none.
pub fn sign_in_of(preset: &str, credentials: &IntegrationCredentials) -> Option<String> {
    let mut ways = preset_sign_ins(preset).into_iter();
    let by_people = credentials.client_id.is_some();
    ways.find(|way| (way == "oauth2") == by_people)
}

/// The name under which a secret of an integration is referred to in its text.
const CLIENT_SECRET: &str = "client_secret";
const WEBHOOK_SECRET: &str = "webhook_secret";

impl PresetIntegration<'_> {
    /// Reads it by the rules of files. Without a secret for a preset's webhooks it takes none.
    pub fn definition(&self, no_secret: &str) -> Parsed {
        let (file, secrets) = self.file(no_secret);
        let lookup = |reference: &Reference| match reference {
            Reference::Env(name) => secrets.get(name.as_str()).cloned().ok_or_else(|| "it is not given".to_owned()),
            Reference::File(_) => Err("an integration that stands in no file reads none".to_owned()),
        };
        let name = format!("integration {}", self.source);
        let asked = asks_webhook_secret(self.preset);
        if self.credentials.webhook_secret.is_some() && !asked {
            let message =
                format!("`webhook_secret` does nothing: webhooks of `{}` are not signed with one of all", self.preset);
            let complaint = SourceSpan::start(&name).complain("no_effect", message);
            return Err(vec![complaint.hint("give it with each connection, as `webhook_secret` of its credentials")]);
        }
        let (mut definition, warnings) =
            parse_beside(&name, &file.to_string(), &lookup, &|_| SourceFunctions::default())?;
        if self.credentials.webhook_secret.is_none() && asked {
            definition.webhooks = None;
        }
        Ok((definition, warnings))
    }

    /// The file it would be, and the secrets that are referred to.
    fn file(&self, no_secret: &str) -> (Value, BTreeMap<&'static str, String>) {
        let mut file = json!({"source": self.source, "preset": self.preset});
        let mut secrets = BTreeMap::new();
        if let Some(title) = self.title {
            file["title"] = title.into();
        }
        let own = self.credentials;
        let mut auth = Map::new();
        auth.extend(self.way.as_ref().map(|way| ("type".to_owned(), Value::from(way.as_str()))));
        auth.extend(own.client_id.as_ref().map(|id| ("client_id".to_owned(), Value::from(id.as_str()))));
        auth.extend(own.scopes.as_ref().map(|scopes| ("scopes".to_owned(), Value::from(scopes.clone()))));
        if let Some(secret) = &own.client_secret {
            auth.insert(CLIENT_SECRET.to_owned(), format!("env:{CLIENT_SECRET}").into());
            secrets.insert(CLIENT_SECRET, secret.clone());
        }
        if !auth.is_empty() {
            file["auth"] = Value::Object(auth);
        }
        if asks_webhook_secret(self.preset) {
            file["webhooks"] = json!({"verify": {"secret": format!("env:{WEBHOOK_SECRET}")}});
            secrets.insert(WEBHOOK_SECRET, own.webhook_secret.clone().unwrap_or_else(|| no_secret.to_owned()));
        }
        (file, secrets)
    }
}

/// Whether a preset's webhooks are signed with a secret of the whole source.
fn asks_webhook_secret(name: &str) -> bool {
    let tree = preset::text(name).and_then(|text| config_text::parse(name, text).ok());
    let verify = tree.as_ref().and_then(|tree| tree.get("webhooks")?.get("verify"));
    let own = |verify: &Node| verify.get("secret").and_then(Node::text).is_some_and(|text| text.contains("{{"));
    verify.is_some_and(|verify| matches!(verify.content, Content::Map(_)) && !own(verify))
}

/// A shipped definition, as people choose among them.
pub struct ShippedPreset {
    /// Its name.
    pub name: &'static str,
    /// What it says.
    pub definition: Definition,
}

/// All shipped definitions. What only a user can give is left open.
pub fn shipped() -> Vec<ShippedPreset> {
    let none = IntegrationCredentials::default();
    let read = |name: &'static str| {
        let integration = PresetIntegration { source: name, preset: name, title: None, credentials: &none, way: None };
        // 64 hexadecimal digits are a secret in every form that a scheme may want.
        let (definition, _) = integration.definition(&"0".repeat(64)).ok()?;
        Some(ShippedPreset { name, definition })
    };
    presets().filter_map(read).collect()
}

impl AuthKind {
    /// The kind of sign-in in the words of the wire.
    pub fn mode(&self) -> &'static str {
        match self {
            AuthKind::None => "NONE",
            AuthKind::Bearer { .. } | AuthKind::ApiKey { .. } => "API_KEY",
            AuthKind::Basic { .. } => "BASIC",
            AuthKind::Tokens(tokens) => match tokens.grant {
                Grant::Code(_) => "OAUTH2",
                Grant::Client => "OAUTH2_CC",
                Grant::Login(_) => "TWO_STEP",
                Grant::Assertion => "JWT",
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_preset_is_an_integration_without_anything_beside_it() {
        let names: Vec<&str> = shipped().iter().map(|preset| preset.name).collect();
        assert_eq!(names, presets().collect::<Vec<_>>());
    }

    #[test]
    fn an_unknown_preset_is_a_complaint() {
        let integration = PresetIntegration {
            source: "own",
            preset: "nowhere",
            title: Some("Own"),
            credentials: &IntegrationCredentials::default(),
            way: None,
        };
        let complaints = integration.definition("0").expect_err("refused");
        assert!(complaints.iter().any(|complaint| complaint.code == "unknown_preset"), "{complaints:?}");
    }
}

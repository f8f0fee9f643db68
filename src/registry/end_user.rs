//! Whose connection it is: the person of the customer's who connected the account, and their organization.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Longest text of an end user, in bytes.
const TEXT_MAX: usize = 1_024;
/// Most labels.
const TAGS_MAX: usize = 64;

/// A person who connects an account, as the customer's app knows them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndUser {
    /// Their id in the customer's app.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub email: Option<String>,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// Labels of the customer's.
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    /// Where they belong.
    #[serde(default)]
    pub organization: Option<Organization>,
}

/// An organization of the customer's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Organization {
    /// Its id in the customer's app.
    pub id: String,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
}

impl EndUser {
    /// Reads one as callers say it; what is wrong comes as a sentence.
    pub fn read(said: Value) -> Result<EndUser, String> {
        let user: EndUser = serde_json::from_value(said).map_err(|why| why.to_string())?;
        if user.id.is_empty() || user.organization.as_ref().is_some_and(|of| of.id.is_empty()) {
            return Err("an id is empty".to_owned());
        }
        if user.texts().any(|text| text.len() > TEXT_MAX) {
            return Err(format!("a text is longer than {TEXT_MAX} bytes"));
        }
        if user.tags.as_ref().is_some_and(|tags| tags.len() > TAGS_MAX) {
            return Err(format!("there are more than {TAGS_MAX} tags"));
        }
        Ok(user)
    }

    fn texts(&self) -> impl Iterator<Item = &String> {
        let organization = self.organization.iter().flat_map(|of| [Some(&of.id), of.display_name.as_ref()]);
        let labels = self.tags.iter().flatten().flat_map(|(name, value)| [Some(name), Some(value)]);
        let texts = [Some(&self.id), self.email.as_ref(), self.display_name.as_ref()];
        texts.into_iter().chain(organization).chain(labels).flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_cannot_be_an_end_user_is_told() {
        let wrong = [
            (json!({}), "id"),
            (json!({"id": ""}), "empty"),
            (json!({"id": "a", "name": "b"}), "name"),
            (json!({"id": "a", "email": "e".repeat(2_000)}), "longer"),
            (json!({"id": "a", "organization": {"id": ""}}), "empty"),
            (json!("a"), "invalid type"),
        ];
        for (said, word) in wrong {
            let why = EndUser::read(said).expect_err("refused");
            assert!(why.contains(word), "{why}");
        }
        let whole = json!({"id": "a", "email": "a@example.com", "display_name": null, "tags": {"plan": "pro"},
            "organization": {"id": "o", "display_name": "Org"}});
        let user = EndUser::read(whole.clone()).expect("good");
        assert_eq!(serde_json::to_value(user).expect("plain"), whole);
    }
}

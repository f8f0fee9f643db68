//! What a cursor is bound to: the bytes that name a selection of records or changes.
//!
//! A cursor is refused outside its scope, so these bytes never change their form: cursors are kept by readers for ever.

use crate::engine::model::DatasetName;

/// The scope of `GET /records` of one dataset. Filters are no part of it: any may follow.
pub fn records_scope(name: &DatasetName) -> Vec<u8> {
    let parts = [&name.environment, &name.source, &name.connection, &name.model, &name.variant];
    let mut scope = Vec::with_capacity(8 + parts.iter().map(|p| p.len() + 1).sum::<usize>());
    scope.extend_from_slice(b"records\0");
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            scope.push(0);
        }
        scope.extend_from_slice(part.as_bytes());
    }
    scope
}

/// What a reader of `/v1/changes` has chosen. Empty lists and `None` mean everything of the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection {
    /// One source.
    pub source: Option<String>,
    /// These streams.
    pub streams: Vec<String>,
    /// These views, each with the source its records are of. With views alone there are no streams.
    pub views: Vec<(String, String)>,
    /// These connections.
    pub connections: Vec<String>,
    /// One variant.
    pub variant: Option<String>,
}

impl Selection {
    /// The selection that holds exactly this dataset.
    pub fn of(name: &DatasetName) -> Self {
        Selection {
            source: Some(name.source.to_string()),
            streams: vec![name.model.to_string()],
            views: Vec::new(),
            connections: vec![name.connection.to_string()],
            variant: Some(name.variant.to_string()),
        }
    }

    /// Whether a dataset belongs to the selection; the environment is the caller's to check.
    pub fn has(&self, name: &DatasetName) -> bool {
        let one = |want: &Option<String>, is: &str| want.as_deref().is_none_or(|w| w == is);
        let any = |want: &[String], is: &str| want.is_empty() || want.iter().any(|w| w == is);
        let view = self.views.iter().any(|(source, view)| **source == *name.source && **view == *name.model);
        let streams = self.views.is_empty() || !self.streams.is_empty();
        let stream = streams && one(&self.source, &name.source) && any(&self.streams, &name.model);
        (view || stream) && any(&self.connections, &name.connection) && one(&self.variant, &name.variant)
    }
}

/// The scope of `GET /v1/changes`. The order in which streams and connections were named does not matter.
pub fn changes_scope(environment: &str, selection: &Selection) -> Vec<u8> {
    let mut scope = b"changes\0".to_vec();
    scope.extend_from_slice(environment.as_bytes());
    let one = |value: &Option<String>| value.iter().cloned().collect::<Vec<_>>();
    for mut list in
        [one(&selection.source), selection.connections.clone(), selection.streams.clone(), one(&selection.variant)]
    {
        list.sort();
        list.dedup();
        scope.push(0);
        // Names hold neither of these separators.
        scope.extend_from_slice(list.join("\u{1}").as_bytes());
    }
    // Last, and only where there are some: scopes without views are as they always were.
    let mut views: Vec<String> = selection.views.iter().map(|(source, view)| format!("{source}\u{2}{view}")).collect();
    views.sort();
    views.dedup();
    if !views.is_empty() {
        scope.push(0);
        scope.extend_from_slice(views.join("\u{1}").as_bytes());
    }
    scope
}

/// The scope of `GET /v1/records`: a place among records is none among changes.
pub fn current_scope(environment: &str, selection: &Selection) -> Vec<u8> {
    [&b"current\0"[..], &changes_scope(environment, selection)].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_scope_is_the_agreed_text() {
        let name = DatasetName::base("default", "github", "acme", "Issue");
        assert_eq!(records_scope(&name), b"records\0default\0github\0acme\0Issue\0base");
    }

    #[test]
    fn changes_scope_ignores_order_but_not_content() {
        let of = |streams: &[&str]| Selection {
            streams: streams.iter().map(|s| s.to_string()).collect(),
            ..Selection::default()
        };
        assert_eq!(changes_scope("e", &of(&["A", "B"])), changes_scope("e", &of(&["B", "A", "B"])));
        assert_ne!(changes_scope("e", &of(&["A"])), changes_scope("e", &of(&["B"])));
        assert_ne!(changes_scope("e", &of(&[])), changes_scope("f", &of(&[])));
        let connection = Selection { connections: vec!["A".into()], ..Selection::default() };
        assert_ne!(changes_scope("e", &of(&["A"])), changes_scope("e", &connection));
    }

    #[test]
    fn selection_holds_its_dataset() {
        let name = DatasetName::base("default", "github", "acme", "Issue");
        assert!(Selection::default().has(&name));
        assert!(Selection::of(&name).has(&name));
        assert!(!Selection::of(&name).has(&DatasetName::base("default", "github", "other", "Issue")));
        let view = Selection { views: vec![("github".into(), "Open".into())], ..Selection::default() };
        assert!(view.has(&DatasetName::base("default", "github", "*", "Open")) && !view.has(&name));
        assert!(!view.has(&DatasetName::base("default", "crm", "acme", "Open")), "of its own source alone");
        let both = Selection { streams: vec!["Issue".into()], ..view.clone() };
        assert!(both.has(&name) && both.has(&DatasetName::base("default", "github", "acme", "Open")));
        assert_ne!(changes_scope("e", &view), changes_scope("e", &both));
    }
}

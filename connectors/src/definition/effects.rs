//! What stands in a file and does nothing there: a warning, `no_effect`, for each.
//!
//! Reads the tree as it was written, so that what `incremental` takes over from `list` is complained about once. What a preset
//! brings is not the author's, and is passed over.

use super::SourceFunctions;
use super::read::Out;
use crate::config_text::{Content, Entry, Node};
use crate::expr::Template;
use std::collections::BTreeSet;

/// Keys by which a stream asks for records.
const ASKED: [&str; 4] = ["list", "incremental", "fetch", "deletes"];
/// Keys of a level that only requests use.
const OF_REQUESTS: [&str; 4] = ["headers", "params", "responses", "timeout"];

/// Complains about everything in the file that has no effect.
pub(super) fn check(root: &Node, functions: &SourceFunctions, out: &mut Out) {
    let mut found = FoundKey { functions, out: Vec::new() };
    found.file(root);
    let own = |complaint: &crate::config_text::Complaint| !complaint.file.starts_with("preset ");
    out.extend(found.out.into_iter().filter(own));
}

struct FoundKey<'a> {
    functions: &'a SourceFunctions,
    out: Out,
}

impl FoundKey<'_> {
    /// Complains about `key` of `node` if it is there.
    fn idle(&mut self, node: &Node, key: &str, why: &str, hint: &str) {
        if let Some(entry) = entry(node, key) {
            let complaint = entry.spot.complain("no_effect", format!("`{key}` does nothing here: {why}"));
            self.out.push(complaint.warn().hint(hint));
        }
    }

    fn file(&mut self, root: &Node) {
        let streams = list(root.get("streams"));
        let asks = self.functions.any
            || has(root, "proxy")
            || has(root, "actions")
            || streams.iter().any(|stream| ASKED.iter().any(|key| has(stream, key)));
        if !asks && !has(root, "auth") && !has(root, "partitions") && !streams.is_empty() {
            for key in OF_REQUESTS.into_iter().chain(["base_url", "limits"]) {
                self.idle(root, key, "nothing is asked of this source", "leave it out");
            }
        }
        self.limits(root.get("limits"));
        self.removed(root, &[]);
        self.responses(root);
        if let Some(auth) = root.get("auth") {
            auth.get("test").iter().for_each(|test| self.removed(test, &[root]));
            self.auth(auth);
            self.account_fields(auth, root);
        }
        for entry in entries(root.get("partitions")) {
            self.partition(entry, streams, root);
        }
        for stream in streams {
            self.stream(stream, root);
        }
        for action in list(root.get("actions")) {
            let steps = list(action.get("steps")).iter().filter_map(|step| step.get("request"));
            steps.chain(action.get("request")).for_each(|request| self.act(request, root));
        }
        if let Some(webhooks) = root.get("webhooks") {
            self.webhooks(webhooks, streams);
        }
        for connection in entries(root.get("connections")) {
            self.connection(&connection.value, root);
        }
    }

    /// A header or parameter that is to be removed, and that no level `above`, the nearest first, sets.
    fn removed(&mut self, level: &Node, above: &[&Node]) {
        for key in ["headers", "params"] {
            for gone in entries(level.get(key)).iter().filter(|entry| entry.value.is_null()) {
                let same = |entry: &&Entry| match key {
                    "headers" => entry.key.eq_ignore_ascii_case(&gone.key),
                    _ => entry.key == gone.key,
                };
                let nearest = above.iter().find_map(|level| entries(level.get(key)).iter().find(same));
                if nearest.is_none_or(|entry| entry.value.is_null()) {
                    let message = format!("`{}: null` does nothing here: no outer level sets it", gone.key);
                    self.out.push(gone.spot.complain("no_effect", message).warn().hint("leave it out"));
                }
            }
        }
    }

    fn limits(&mut self, limits: Option<&Node>) {
        let Some(limits) = limits else { return };
        if let Some(retry) = limits.get("retry").filter(|retry| number(retry.get("max")) == Some(0)) {
            for key in ["backoff", "jitter", "status"] {
                self.idle(retry, key, "with `max: 0` nothing is tried again", "raise `max`, or leave it out");
            }
        }
        if let Some(headers) = limits.get("headers") {
            let why = "nobody needs to know how many requests there are in all";
            self.idle(headers, "limit", why, "`remaining` and the resets are read");
        }
    }

    fn auth(&mut self, auth: &Node) {
        const FOR_ALL: [&str; 4] = ["token", "username", "password", "key"];
        if word(auth, "type") == Some("none") {
            self.idle(auth, "optional", "nobody signs in", "leave it out");
        }
        if let Some(key) = FOR_ALL.into_iter().find(|key| has(auth, key)) {
            self.idle(auth, "optional", &format!("no connection goes without the `{key}` of `auth`"), "leave one out");
        }
        self.tokens(auth);
        if let Some(test) = auth.get("test") {
            for key in ["items", "where", "total", "paginate", "max_pages"] {
                self.idle(test, key, "the test of a sign-in is one answer", "leave it out");
            }
            self.responses(test);
        } else {
            self.idle(auth, "connection_fields", "they are read from the answer of `test`", "add `test`");
        }
    }

    /// Of a sign-in that expires.
    fn tokens(&mut self, auth: &Node) {
        let kind = word(auth, "type").unwrap_or_default();
        if !["oauth2", "client_credentials", "two_step", "jwt"].contains(&kind) {
            return;
        }
        self.idle(auth, "optional", "a connection that is not signed in asks for nothing", "leave it out");
        if kind == "oauth2" && !has(auth, "authorize_url") {
            for key in ["pkce", "authorize_params", "callback_fields", "issuer"] {
                let hint = "add `authorize_url`, or leave it out";
                self.idle(auth, key, "nobody is sent to the provider without `authorize_url`", hint);
            }
        }
        if word(auth, "rotation") != Some("lenient") {
            let why = "only with `rotation: lenient` an old refresh token is taken for a while";
            self.idle(auth, "leeway", why, "leave it out, or change `rotation`");
        }
        let proof = word(auth, "client_auth").unwrap_or("body");
        if ["none", "private_key_jwt"].contains(&proof) {
            let why = format!("`client_auth: {proof}` sends no secret");
            self.idle(auth, "client_secret", &why, "leave it out, or change `client_auth`");
        }
        if kind != "jwt" && proof != "private_key_jwt" {
            let why = "nothing is signed without `client_auth: private_key_jwt`";
            self.idle(auth, "assertion", why, "leave it out, or change `client_auth`");
        }
        if kind == "jwt" && !has(auth, "token_url") {
            let of_answers = ["token_body", "token_params", "scopes", "scope_separator", "answer", "failed"];
            for key in of_answers.into_iter().chain(["token_fields", "expires_in"]) {
                let why = "without `token_url` the assertion itself is the token";
                self.idle(auth, key, why, "add `token_url`, or leave it out");
            }
        }
    }

    /// What people are asked for and nothing uses.
    fn account_fields(&mut self, auth: &Node, root: &Node) {
        for field in entries(auth.get("fields")) {
            let (open, secret) =
                (format!("connection.fields.{}", field.key), format!("connection.credentials.{}", field.key));
            let read = format!(".fields.{}", field.key);
            if !mentions(root, &open) && !mentions(root, &secret) && !holds(root, &read) {
                let message = format!("field `{}` does nothing here: nothing names it", field.key);
                let hint = format!(
                    "write {{{{ {} }}}} where it is wanted, or leave it out",
                    if is(&field.value, "secret", true) { &secret } else { &open }
                );
                self.out.push(field.spot.complain("no_effect", message).warn().hint(hint));
            }
        }
    }

    /// A request of an action.
    fn act(&mut self, request: &Node, root: &Node) {
        self.removed(request, &[root]);
        for key in ["items", "where", "total", "paginate", "max_pages"] {
            self.idle(request, key, "an action takes one answer as it is", "leave it out");
        }
        self.responses(request);
    }

    fn partition(&mut self, partition: &Entry, streams: &[Node], root: &Node) {
        let name = format!("partition.{}", partition.key);
        let uses = |node: Option<&Node>| node.is_some_and(|node| mentions(node, &name));
        if !streams.iter().any(|stream| uses(Some(stream))) {
            let message = format!("partition `{}` does nothing: no request of a stream names it", partition.key);
            let hint = format!("write {{{{ {name} }}}} in a request, or leave it out");
            self.out.push(partition.spot.complain("no_effect", message).warn().hint(hint));
            return;
        }
        let listed = |stream: &Node| uses(stream.get("list")) && deletes_missing(stream);
        if word(&partition.value, "on_remove") == Some("delete") && !streams.iter().any(listed) {
            let why = "no stream that is split by it deletes what is missing";
            self.idle(&partition.value, "on_remove", why, "add `from_full_list: true` to `deletes` of the stream");
        }
        let windowed = |stream: &Node| {
            stream.get("incremental").is_some_and(|i| uses(Some(i)) || inherits(i) && uses(stream.get("list")))
        };
        if word(&partition.value, "only") == Some("changed") && !streams.iter().any(windowed) {
            self.idle(
                &partition.value,
                "only",
                "it is for `incremental`, which names no such partition",
                "leave it out",
            );
        }
        if let Some(request) = partition.value.get("request") {
            self.removed(request, &[root]);
            self.request(request);
        }
    }

    fn stream(&mut self, stream: &Node, root: &Node) {
        let polled = has(stream, "list") || has(stream, "incremental");
        if !polled && !has(stream, "fetch") && !list(stream.get("deletes")).iter().any(|entry| has(entry, "list")) {
            for key in OF_REQUESTS {
                self.idle(stream, key, "the stream makes no requests", "leave it out");
            }
        }
        if !polled {
            self.idle(stream, "schedule", "the stream is fed, so it has no runs", "leave it out");
        }
        if let Some(schedule) = stream.get("schedule").filter(|_| polled)
            && !(has(stream, "list") && has(stream, "incremental"))
        {
            let why = "every run is a full listing unless there are `list` and `incremental`";
            let why = if has(stream, "list") { why } else { "there is no `list`, so no run is a full listing" };
            self.idle(schedule, "full", why, "leave it out, or add the other request");
        }
        if !has(stream, "schema") {
            self.idle(stream, "on_invalid", "there is no `schema` to break", "add `schema`, or leave it out");
        }
        self.removed(stream, &[root]);
        for key in ["list", "fetch"] {
            stream.get(key).iter().for_each(|request| self.request(request));
        }
        let deletions = list(stream.get("deletes")).iter().filter_map(|entry| entry.get("list"));
        for request in stream.get("list").into_iter().chain(stream.get("fetch")).chain(deletions) {
            self.removed(request, &[stream, root]);
        }
        if let Some(incremental) = stream.get("incremental") {
            let from = stream.get("list").filter(|_| inherits(incremental));
            self.removed(incremental, &from.into_iter().chain([stream, root]).collect::<Vec<_>>());
        }
        self.responses(stream);
        self.incremental(stream);
        self.fetch(stream, root);
        self.deletes(stream, polled);
    }

    fn incremental(&mut self, stream: &Node) {
        let Some(incremental) = stream.get("incremental") else { return };
        self.request(incremental);
        let list = stream.get("list").filter(|_| inherits(incremental));
        let windowed = |name: &str| mentions(incremental, name) || list.is_some_and(|list| mentions(list, name));
        let Some(window) = incremental.get("window") else { return };
        if !windowed("since") {
            let hint = "write {{ since }} in the request, or leave it out";
            self.idle(window, "lookback", "the request does not name `since`", hint);
        }
        if has(stream, "list") {
            self.idle(window, "start", "the first run reads `list`", "leave it out");
        }
        if !has(window, "split_at") {
            self.idle(window, "min_span", "windows are halved only with `split_at`", "add `split_at`, or leave it out");
        }
    }

    fn fetch(&mut self, stream: &Node, root: &Node) {
        let Some(fetch) = stream.get("fetch") else { return };
        for key in ["paginate", "max_pages"] {
            self.idle(fetch, key, "the answer to a fetch is one page", "ask for no more keys than fit on it: `batch`");
        }
        let name = word(stream, "name");
        let hydrates = |entry: &Node| word(entry, "stream") == name && has(entry, "hydrate");
        let hydrated = list(root.get("webhooks").and_then(|w| w.get("map"))).iter().any(hydrates);
        let confirms = |entry: &Node| {
            is(entry, "from_full_list", true)
                && matches!(word(entry, "confirm"), None | Some("auto" | "fetch" | "none"))
        };
        if !hydrated && !list(stream.get("deletes")).iter().any(confirms) {
            let why = "neither `hydrate` of a webhook nor `confirm` of `from_full_list` reads single records";
            self.idle(stream, "fetch", why, "leave it out, or add what needs it");
        } else if !hydrated {
            let why = "a missing record that is not found is deleted; it decides only what `hydrate` makes of it";
            self.idle(fetch, "not_found", why, "leave it out");
        }
    }

    fn deletes(&mut self, stream: &Node, polled: bool) {
        let entries = list(stream.get("deletes"));
        let missing = deletes_missing(stream);
        for entry in entries {
            if is(entry, "from_full_list", false) {
                self.idle(entry, "confirm", "`from_full_list` is false", "leave the entry out");
            }
            if !missing {
                let why = "it holds what a full listing misses, and nothing is deleted for that";
                self.idle(entry, "guard", why, "add `from_full_list: true`, or leave it out");
            }
            if !polled {
                self.idle(entry, "list", "it is read by runs, and the stream has none", "leave it out");
            }
            entry.get("list").iter().for_each(|request| self.request(request));
        }
    }

    fn request(&mut self, request: &Node) {
        let paginate = request.get("paginate");
        let by = |kind: &str| paginate.is_some_and(|paginate| has(paginate, kind));
        if paginate.is_none_or(|paginate| paginate.text() == Some("none")) && !inherits(request) {
            self.idle(request, "max_pages", "the list has one page", "add `paginate`, or leave it out");
        }
        self.responses(request);
        let Some(paginate) = paginate else { return };
        let ends_short = is(paginate, "short_page_ends", true);
        if by("page") && !ends_short {
            let why = "it is not sent; it only tells `short_page_ends` how long a full page is";
            self.idle(paginate, "size", why, "ask for the length of a page with `params`");
        }
        if (by("page") || by("offset")) && !has(paginate, "more") && !has(paginate, "last") {
            let why =
                "where pages or items are counted, an empty page is the end unless `more` or `last` says otherwise";
            self.idle(paginate, "empty_pages", why, "add `more` or `last`, or leave it out");
        }
        let body = word(paginate, "in") == Some("body");
        let laid = if body { ["body", "form"].as_slice() } else { &["params"] };
        for name in ["page", "offset", "limit"].iter().filter(|_| !by("cursor")).filter_map(|key| word(paginate, key)) {
            for own in laid.iter().filter_map(|key| request.get(key)) {
                self.idle(own, name, "paging sets it for every page", "leave it out");
            }
        }
    }

    /// Rules that no answer reaches.
    fn responses(&mut self, level: &Node) {
        let mut caught: BTreeSet<String> = BTreeSet::new();
        let mut all = false;
        for rule in list(level.get("responses")) {
            let statuses: Vec<String> = match rule.get("status").map(|node| &node.content) {
                Some(Content::List(list)) => list.iter().map(|node| node.to_json().to_string()).collect(),
                Some(_) => rule.get("status").iter().map(|node| node.to_json().to_string()).collect(),
                None => Vec::new(),
            };
            let unreachable = all || !statuses.is_empty() && statuses.iter().all(|status| caught.contains(status));
            if unreachable {
                let message = "this rule does nothing: one before it takes every answer it is for";
                self.out.push(rule.spot.complain("no_effect", message).warn().hint("put it first, or leave it out"));
            }
            if statuses.iter().any(|status| status == "\"network\"") {
                let why = "a request without an answer comes to no rule";
                self.idle(rule, "status", why, "`limits.retry.status` decides about `network`");
            }
            if !has(rule, "when") {
                all |= statuses.is_empty();
                caught.extend(statuses);
            }
        }
    }

    fn webhooks(&mut self, webhooks: &Node, streams: &[Node]) {
        if !has(webhooks, "events") {
            self.idle(webhooks, "order_by", "without `events` a request is one event", "add `events`, or leave it out");
        }
        if word(webhooks, "scope") == Some("connection") && has(webhooks, "path") {
            self.idle(webhooks, "scope", "a fixed `path` is one URL for all connections", "leave out one of them");
        }
        let read = |key: &str| webhooks.get(key).is_some_and(|node| holds(node, "$type"));
        // Functions take events by their type, without a `map` in any case.
        if has(webhooks, "map") && !self.functions.subscribe && !["map", "dedupe", "route"].into_iter().any(read) {
            self.idle(webhooks, "type", "no expression reads `$type`", "use it in `when`, or leave it out");
        }
        if let Some(verify) = webhooks.get("verify") {
            self.verify(verify);
        }
        let map = list(webhooks.get("map"));
        let mut taken = false;
        for (at, entry) in map.iter().enumerate() {
            if taken {
                let message = "this entry does nothing: one before it takes every event";
                let hint = "put it first, or write `all: true` or `when` in that one";
                self.out.push(entry.spot.complain("no_effect", message).warn().hint(hint));
            }
            taken |= !has(entry, "when") && !is(entry, "all", true);
            if at + 1 == map.len() && is(entry, "all", true) {
                self.idle(entry, "all", "there is no entry after this one", "leave it out");
            }
            self.event(entry, streams);
        }
    }

    /// An entry of `webhooks.map`.
    fn event(&mut self, entry: &Node, streams: &[Node]) {
        let hydrates = entry.get("hydrate").is_some_and(|node| node.content != Content::Bool(false));
        let says = has(entry, "record") || has(entry, "patch") || is(entry, "delete", true);
        if !has(entry, "stream") {
            for key in ["key", "at", "partition"] {
                self.idle(entry, key, "an entry without `stream` only acknowledges", "leave it out");
            }
            return;
        }
        if !says {
            self.idle(entry, "at", "the time of the record is read with it", "leave it out");
        }
        if has(entry, "record") {
            self.idle(entry, "key", "a whole item brings its own key", "leave it out");
        } else if !says && !hydrates {
            self.idle(entry, "key", "a run asks for all that has changed", "leave it out");
        }
        let reads = |node: &Node, keys: &[&str]| {
            keys.iter().any(|key| node.get(key).is_some_and(|node| holds(node, "$partition")))
        };
        let stream = streams.iter().find(|stream| word(stream, "name") == word(entry, "stream"));
        // The item of a `record` is read as the stream reads its items.
        let mapped = has(entry, "record") && stream.is_none_or(|stream| reads(stream, &["key", "modified_at", "map"]));
        if !hydrates && !mapped && !reads(entry, &["key", "record", "patch"]) {
            self.idle(entry, "partition", "nothing of the entry reads it", "leave it out");
        }
    }

    fn verify(&mut self, verify: &Node) {
        if word(verify, "scheme") == Some("none") {
            self.idle(verify, "secret", "with `scheme: none` nothing is checked", "leave it out");
        }
        let Some(signature) = verify.get("signature") else { return };
        let format = word(signature, "format");
        if format.is_some_and(|format| format != "prefix") {
            self.idle(signature, "prefix", "it is for `format: prefix`", "leave it out, or change `format`");
        }
        if !matches!(format, Some("kv" | "list")) {
            self.idle(signature, "kv_key", "it is for `format: kv` and `list`", "leave it out, or change `format`");
        }
    }

    fn connection(&mut self, connection: &Node, root: &Node) {
        let verify = root.get("webhooks").and_then(|webhooks| webhooks.get("verify"));
        let secret = verify.and_then(|verify| verify.get("secret")).and_then(Node::text).unwrap_or_default();
        if secret.replace(' ', "") != "{{webhook_secret}}" {
            let why = "`secret` of `webhooks.verify` is not `{{ webhook_secret }}`";
            for node in [Some(connection), connection.get("credentials")].into_iter().flatten() {
                self.idle(node, "webhook_secret", why, "leave it out, or change `verify`");
            }
        }
        let Some(schedule) = connection.get("schedule") else { return };
        let streams = list(root.get("streams"));
        for entry in entries(Some(schedule)) {
            let chosen = connection
                .get("streams")
                .is_none_or(|only| list(Some(only)).iter().any(|name| name.text() == Some(entry.key.as_str())));
            let of = streams.iter().find(|stream| word(stream, "name") == Some(entry.key.as_str()));
            let polled = of.is_none_or(|stream| has(stream, "list") || has(stream, "incremental"));
            if !chosen || !polled {
                let why =
                    if chosen { "the stream is fed, so it has no runs" } else { "`streams` leaves the stream out" };
                self.idle(schedule, &entry.key, why, "leave it out");
            }
        }
    }
}

/// Whether a full listing of the stream deletes what it misses.
fn deletes_missing(stream: &Node) -> bool {
    list(stream.get("deletes")).iter().any(|entry| is(entry, "from_full_list", true))
}

/// Whether a request names no path of its own and so takes what it leaves out from `list`.
fn inherits(request: &Node) -> bool {
    !super::request::has_path(request)
}

fn has(node: &Node, key: &str) -> bool {
    node.get(key).is_some_and(|value| !value.is_null())
}

fn is(node: &Node, key: &str, value: bool) -> bool {
    node.get(key).is_some_and(|node| node.content == Content::Bool(value))
}

fn word<'a>(node: &'a Node, key: &str) -> Option<&'a str> {
    node.get(key).and_then(Node::text)
}

fn number(node: Option<&Node>) -> Option<u64> {
    node.and_then(|node| node.to_json().as_u64())
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    entries(Some(node)).iter().find(|entry| entry.key == key && !entry.value.is_null())
}

fn entries(node: Option<&Node>) -> &[Entry] {
    match node.map(|node| &node.content) {
        Some(Content::Map(entries)) => entries,
        _ => &[],
    }
}

fn list(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.content) {
        Some(Content::List(list)) => list,
        _ => &[],
    }
}

/// Whether any text at or below `node`, or a key, holds `part`.
fn holds(node: &Node, part: &str) -> bool {
    any_text(node, &|text| text.contains(part))
}

/// Whether a placeholder at or below `node` is `name`, or a part of it.
fn mentions(node: &Node, name: &str) -> bool {
    any_text(node, &|text| {
        let template = Template::compile(text);
        template.is_ok_and(|template| template.names().contains(&name))
    })
}

fn any_text(node: &Node, test: &dyn Fn(&str) -> bool) -> bool {
    match &node.content {
        Content::Text(text) => test(text),
        Content::List(list) => list.iter().any(|node| any_text(node, test)),
        Content::Map(entries) => entries.iter().any(|entry| test(&entry.key) || any_text(&entry.value, test)),
        _ => false,
    }
}

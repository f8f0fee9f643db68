//! A listing: page after page, list after list, window after window, and the proof that nothing was left out.
//!
//! The place in a listing ([`ListingPlace`]) is the bookmark; it is small. The keys read so far, needed to count distinct items
//! and to notice circles, are kept in memory ([`Memory`]) and, page by page, in notes: a listing that goes on after a
//! restart reads them back and loses nothing of its proof.
//!
//! A listing is proven complete if every page answered and everything the API stated about the end and the size of each list
//! agrees with where we stopped ([`crate::http::proof`]). What speaks against that is a doubt, and travels to the end.

use super::answer::{self, AnswerVerdict, items, judge};
use super::incremental::{TimeSpan, halve, is_capped};
use super::memory::{ListingKey, Memory};
use super::request::{Filling, base, draft, fingerprint, refused};
use super::source::RestSource;
use super::{deletes, partitions};
use crate::definition::{DeletedListing, Incremental, Request};
use crate::expr::Vars;
use crate::http::body::Faults;
use crate::http::conditional::{KeptPage, Validator};
use crate::http::hints::HINT_MAX;
use crate::http::limits::RequestPriority;
use crate::http::paginate::{self, PageToken, STALE_PAGES_MAX, Trail, loop_failure};
use crate::http::proof::{CountVerdict, Judged, Proof, beyond};
use crate::http::statements::{Facts, Statements};
use crate::http::{Answer, Url};
use crate::mapping::{Mapped, Mapper, SeenAt, refuse};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::{Ask, Body, Bookmark, Confirm, End, Failure, Observation, Page, Part};

/// Version of the bookmark.
const FORMAT: u32 = 2;

/// Doubts kept of one listing; more of them say nothing new.
const DOUBTS_MAX: usize = 20;

/// Distinct items of one list whose keys are kept for its proof. Beyond, the listing is read but not proven.
const KEYS_MAX: usize = 20_000_000;

/// Pages in a row that may be left out before the rest of a counted list is given up.
const SKIPPED_MAX: u32 = 3;

/// Where a listing stands.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct ListingPlace {
    format: u32,
    definition: String,
    listing: i64,
    /// Which list.
    list: usize,
    /// Pages of this list read so far.
    page: u64,
    /// The first page of the window being read.
    first_page: u64,
    spot: PageToken,
    /// Windows still to be read; the last one is being read.
    windows: Vec<TimeSpan>,
    /// What is known of the window being read.
    proof: Proof,
    /// Whether every list so far had a steady count.
    steady: bool,
    /// Whether the count of a list fell while it was read.
    fell: bool,
    skipped: u32,
    doubts: Vec<String>,
    /// The provider's time of the first answer.
    provider_time: Option<Timestamp>,
}

/// A page as it was read, before the listing moves on.
struct Sheet {
    url: Url,
    /// What it states; `None` if it was left out.
    statements: Option<Statements>,
    /// The status of one that was left out.
    status: u16,
    keys: Vec<u64>,
    ids: Vec<String>,
    request: String,
    validator: Option<Validator>,
}

/// One listing of one stream for one connection.
pub(super) struct Listing<'a> {
    source: &'a RestSource,
    ask: &'a Ask,
    mapper: &'a Mapper,
    request: &'a Request,
    kind: ListingKind<'a>,
    name: String,
}

enum ListingKind<'a> {
    Full,
    Incremental(&'a Incremental),
    Deleted(&'a DeletedListing),
}

impl<'a> Listing<'a> {
    /// The listing that `ask` names.
    pub(super) fn of(source: &'a RestSource, ask: &'a Ask) -> Result<Self, Failure> {
        let mapper = source.mapper(&ask.stream);
        let mapper = mapper.ok_or_else(|| refused("unknown_stream", format!("there is no stream {}", ask.stream)))?;
        let stream = mapper.stream();
        let found = match ask.part {
            Part::Full => stream.list.as_ref().map(|list| (list, ListingKind::Full, "full".to_string())),
            Part::Incremental { .. } => stream
                .incremental
                .as_ref()
                .map(|i| (&i.request, ListingKind::Incremental(i), "incremental".to_string())),
            Part::Deletes { index, .. } => stream
                .deletes
                .listings
                .get(index)
                .map(|d| (&d.list, ListingKind::Deleted(d), format!("deletes{index}"))),
        };
        let missing = || refused("no_request", format!("stream {} has no listing for {:?}", stream.name, ask.part));
        let (request, kind, name) = found.ok_or_else(missing)?;
        Ok(Listing { source, ask, mapper, request, kind, name })
    }

    /// The page after `after`, or the first one.
    pub(super) async fn page(&self, after: Option<&Bookmark>) -> Result<Page, Failure> {
        let mut page = Page::default();
        let (place, lists) = match after {
            Some(bookmark) => self.resume(bookmark)?,
            None => self.begin(&mut page).await?,
        };
        let Some(list) = lists.get(place.list) else {
            return self.end(place, &lists, page);
        };
        let sheet = self.read(&place, list, &mut page).await?;
        self.advance(place, &lists, sheet, page)
    }

    async fn begin(&self, page: &mut Page) -> Result<(ListingPlace, Arc<Vec<Value>>), Failure> {
        let since = self.started_note()?;
        let lists = partitions::combinations(self.source, self.ask, self.request, since, &mut page.requests).await?;
        let lists = Arc::new(lists);
        let mut place = ListingPlace {
            format: FORMAT,
            definition: self.source.definition().hash.clone(),
            listing: self.ask.started_at.0,
            list: 0,
            page: 0,
            first_page: 0,
            spot: PageToken::Start,
            windows: self.windows(),
            proof: Proof::default(),
            steady: self.request.total.is_some(),
            fell: false,
            skipped: 0,
            doubts: Vec::new(),
            provider_time: None,
        };
        if lists.is_empty() {
            doubt(&mut place, format!("no_partitions: {} has no partition values now", self.ask.stream));
        }
        if !self.request.partitions.is_empty() {
            let text = serde_json::to_vec(&(place.listing, lists.as_ref())).unwrap_or_default();
            page.notes.push((format!("lists/{}", self.name), text));
        }
        self.remember(&place, &lists, HashSet::new(), Trail::default());
        Ok((place, lists))
    }

    fn windows(&self) -> Vec<TimeSpan> {
        match self.ask.part {
            Part::Full => Vec::new(),
            Part::Incremental { since, until } | Part::Deletes { since, until, .. } => vec![(since, until)],
        }
    }

    fn key(&self) -> ListingKey {
        (self.source.dataset(self.ask), self.name.clone())
    }

    fn remember(&self, place: &ListingPlace, lists: &Arc<Vec<Value>>, keys: HashSet<u64>, trail: Trail) {
        let memory = Memory { at: place.at(), lists: Arc::clone(lists), keys, trail };
        self.source.listings().insert(self.key(), memory);
    }

    /// Reads a bookmark, and what belongs to it if it is not in memory.
    fn resume(&self, bookmark: &Bookmark) -> Result<(ListingPlace, Arc<Vec<Value>>), Failure> {
        let mut place: ListingPlace = serde_json::from_slice(&bookmark.0)
            .map_err(|error| refused(Failure::BAD_BOOKMARK, format!("the bookmark cannot be read: {error}")))?;
        if place.format != FORMAT || place.definition != self.source.definition().hash {
            let message = "the bookmark was made by another version of the definition; the listing begins again";
            return Err(refused(Failure::BAD_BOOKMARK, message.to_string()));
        }
        if let Some(memory) = self.source.listings().get(&self.key()).filter(|memory| memory.at == place.at()) {
            return Ok((place, Arc::clone(&memory.lists)));
        }
        let lists = Arc::new(self.read_lists(&place)?);
        let Some(list) = lists.get(place.list) else { return Ok((place, lists)) };
        let (mut keys, mut trail) = (HashSet::new(), Trail::default());
        for number in place.first_page..place.page {
            let kept = self.source.note(self.ask, &self.page_note(list, number))?;
            match kept.as_deref().and_then(KeptPage::decode).filter(|kept| kept.listing == place.listing) {
                Some(kept) => {
                    keys.extend(kept.keys);
                    kept.statements.next.iter().for_each(|spot| _ = trail.step(spot));
                }
                None => {
                    doubt(&mut place, "resumed: the keys read before the interruption are lost".to_string());
                    break;
                }
            }
        }
        self.remember(&place, &lists, keys, trail);
        Ok((place, lists))
    }

    fn read_lists(&self, place: &ListingPlace) -> Result<Vec<Value>, Failure> {
        if self.request.partitions.is_empty() {
            return Ok(vec![Value::Object(Default::default())]);
        }
        let note = self.source.note(self.ask, &format!("lists/{}", self.name))?;
        let kept = note.and_then(|bytes| serde_json::from_slice::<(i64, Vec<Value>)>(&bytes).ok());
        let kept = kept.filter(|(listing, _)| *listing == place.listing).map(|(_, lists)| lists);
        let lost = || {
            refused(
                Failure::BAD_BOOKMARK,
                "the partitions of the interrupted listing are not known any more".to_string(),
            )
        };
        kept.ok_or_else(lost)
    }

    /// When the last proven listing of this kind began, by our clock: parents changed since need to be asked again.
    fn started_note(&self) -> Result<Option<Timestamp>, Failure> {
        let note = self.source.note(self.ask, &format!("started/{}", self.name))?;
        Ok(note.and_then(|bytes| serde_json::from_slice(&bytes).ok()).map(Timestamp))
    }

    fn page_note(&self, list: &Value, number: u64) -> String {
        format!("page/{}/{}/{number}", self.name, short(list))
    }

    fn lane(&self) -> RequestPriority {
        if matches!(self.kind, ListingKind::Full) { RequestPriority::Backfill } else { RequestPriority::Poll }
    }

    /// What decides, besides the request, how an answer is read.
    fn stamp(&self) -> String {
        let connection = &self.ask.connection;
        let credentials = match connection.credentials_id.as_str() {
            "" => Value::Object(connection.credentials.clone()).to_string(),
            // Not their values: else each refreshed token would throw away what pages are asked with.
            id => id.to_owned(),
        };
        format!("{} {} {} {}", self.source.definition().hash, credentials, connection.metadata, self.ask.variant)
    }

    /// Asks for the page at `place` and reads its items into `page`.
    async fn read(&self, place: &ListingPlace, list: &Value, page: &mut Page) -> Result<Sheet, Failure> {
        if place.page >= self.request.max_pages {
            let message = format!("more than {} pages; raise max_pages or narrow the request", self.request.max_pages);
            return Err(refused("max_pages", message));
        }
        let definition = self.source.definition();
        let filling = Filling::new(&self.ask.connection, &self.ask.variant)
            .with("partition", list.clone())
            .with_window(place.windows.last().copied());
        let base = base(&definition.base_url, &self.ask.connection, &filling)?;
        let mut draft = draft(self.request, &base, &filling)?;
        paginate::lay(&self.request.paginate, &place.spot, &mut draft)?;
        let request = fingerprint(&draft, &self.stamp());
        let kept = self.kept(list, place, &request)?;
        let validator = kept.as_ref().and_then(|kept| kept.validator.as_ref());
        let exchange =
            self.source.exchange(&self.ask.connection, &draft, self.request.timeout, self.lane(), validator).await?;
        page.requests += 1;
        page.provider_time = exchange.answer.date();
        page.poll_hint = self.poll_hint(&exchange.answer);
        let vars = answer::vars(&self.ask.connection, list, &exchange.answer);
        let (verdict, faults) = judge(definition, self.request, &exchange.answer, &exchange.budget, &vars)?;
        let mut sheet = Sheet {
            url: exchange.answer.url.clone(),
            statements: Some(Statements::default()),
            status: exchange.answer.status,
            keys: Vec::new(),
            ids: Vec::new(),
            request,
            validator: None,
        };
        match verdict {
            AnswerVerdict::Page(body) => self.take(&exchange.answer, (&body, &faults), &vars, &mut sheet, page)?,
            AnswerVerdict::Part(body) => {
                if let Some(body) = &body {
                    self.take(&exchange.answer, (body, &faults), &vars, &mut sheet, page)?;
                }
                // Half an answer is no page to be told «not modified» of.
                sheet.validator = None;
                sheet.statements.iter_mut().for_each(|page| page.part = Some(exchange.answer.status));
            }
            AnswerVerdict::NotModified => self.take_kept(kept, &exchange.answer, &mut sheet, page)?,
            AnswerVerdict::Ignored => {}
            AnswerVerdict::Skipped => sheet.statements = None,
        }
        Ok(sheet)
    }

    /// The page as it was read last, if it was read for this very request and can be asked for conditionally.
    fn kept(&self, list: &Value, place: &ListingPlace, request: &str) -> Result<Option<KeptPage>, Failure> {
        if !self.source.definition().limits.conditional {
            return Ok(None);
        }
        let note = self.source.note(self.ask, &self.page_note(list, place.page))?;
        let kept = note.as_deref().and_then(KeptPage::decode);
        Ok(kept.filter(|kept| kept.request == request && kept.validator.is_some()))
    }

    fn poll_hint(&self, answer: &Answer) -> Option<Duration> {
        let name = self.source.definition().limits.poll_hint.as_deref()?;
        answer.header(name)?.trim().parse().ok().map(Duration::from_secs).map(|wait| wait.min(HINT_MAX))
    }

    fn take(
        &self,
        answer: &Answer,
        (body, faults): (&Value, &Faults),
        vars: &Vars,
        sheet: &mut Sheet,
        page: &mut Page,
    ) -> Result<(), Failure> {
        let seen = SeenAt { observed_at: answer.sent_at, answered_at: answer.date().unwrap_or(answer.sent_at) };
        let found = items(self.request, body, vars)?;
        answer::readable(self.source.definition(), answer, faults, &found)?;
        let (headers, url, items) = (&answer.headers, &answer.url, found.len() as u64);
        sheet.statements = Some(Statements::read(self.request, &Facts { body, headers, url, items, vars })?);
        for item in found.iter() {
            let (key, mapped) = self.map(item, faults.within(item), seen, vars);
            sheet.keys.push(key);
            match mapped {
                Some(Mapped::Taken(observation, warning)) => {
                    if matches!(observation.body, Body::Whole(_)) {
                        sheet.ids.push(observation.id.clone());
                    }
                    page.observations.push(observation);
                    page.warnings.extend(warning);
                }
                Some(Mapped::Refused(quarantined)) => page.quarantined.push(quarantined),
                None => {}
            }
        }
        // An item kept aside has to be met again next time; a page kept as unchanged would hide it. And what is read from
        // headers may change while the body, for which a validator stands, does not.
        let from_headers = self.request.reads_headers() || self.mapper.stream().reads_headers();
        if self.source.definition().limits.conditional && page.quarantined.is_empty() && !from_headers {
            sheet.validator = Validator::of(answer);
        }
        Ok(())
    }

    /// The fingerprint of an item's key, and what became of the item; nothing if it is not of this stream.
    fn map(&self, item: &Value, fault: Option<&str>, seen: SeenAt, vars: &Vars) -> (u64, Option<Mapped>) {
        let mapped = match fault {
            Some(why) => Some(Mapped::Refused(self.mapper.unreadable(item, why, vars))),
            None => self.judged(item, seen, vars),
        };
        let id = match &mapped {
            Some(Mapped::Taken(observation, _)) => Some(observation.id.clone()),
            Some(Mapped::Refused(quarantined)) => quarantined.id.clone(),
            None => self.mapper.key(item, vars).ok(),
        };
        let text = id.unwrap_or_else(|| item.to_string());
        (twox_hash::XxHash3_64::oneshot(text.as_bytes()), mapped)
    }

    /// What became of an item; nothing if it is not of this stream.
    fn judged(&self, item: &Value, seen: SeenAt, vars: &Vars) -> Option<Mapped> {
        match self.request.filter.as_ref().map(|filter| filter.truthy(item, vars)).transpose() {
            Ok(Some(false)) => None,
            Ok(_) => Some(match &self.kind {
                ListingKind::Deleted(listing) => deletes::read(self.mapper, listing, item, seen, vars),
                ListingKind::Full | ListingKind::Incremental(_) => self.mapper.read(item, seen, vars),
            }),
            Err(error) => Some(Mapped::Refused(refuse("bad_expression", format!("where: {error}"), None, item))),
        }
    }

    /// A page that has not changed: its records are seen again, as they were.
    fn take_kept(
        &self,
        kept: Option<KeptPage>,
        answer: &Answer,
        sheet: &mut Sheet,
        page: &mut Page,
    ) -> Result<(), Failure> {
        let unasked = || Failure {
            code: "http_status",
            message: format!("{} answered 304 though it was not asked conditionally", sheet.url.path()),
            status: Some(304),
            retry: false,
            retry_after: None,
        };
        let kept = kept.ok_or_else(unasked)?;
        page.not_modified += 1;
        // An empty patch says of a record that it is there, and nothing else.
        page.observations.extend(kept.ids.iter().map(|id| Observation {
            id: id.clone(),
            modified_at: None,
            observed_at: answer.sent_at,
            body: Body::Patch("{}".to_string()),
        }));
        sheet.statements = Some(kept.statements);
        sheet.keys = kept.keys;
        sheet.ids = kept.ids;
        sheet.validator = kept.validator;
        Ok(())
    }

    /// Moves on from a page that was read.
    fn advance(
        &self,
        mut place: ListingPlace,
        lists: &Arc<Vec<Value>>,
        sheet: Sheet,
        mut page: Page,
    ) -> Result<Page, Failure> {
        let list = lists.get(place.list).cloned().unwrap_or_default();
        let next = self.step(&mut place, &sheet)?;
        place.provider_time = place.provider_time.or(page.provider_time);
        page.provider_time = place.provider_time;
        page.expected = sheet.statements.as_ref().and_then(|page| page.total).filter(|_| lists.len() == 1);
        self.keep(&list, &place, sheet, &next, &mut page);
        place.page += 1;
        match next {
            NextPage::Page(spot) => place.spot = spot,
            NextPage::Halved => place.open_window(),
            NextPage::Over => {
                self.prove(&mut place);
                place.windows.pop();
                place.open_window();
                if place.windows.is_empty() {
                    self.close_list(&list, &mut place, &mut page)?;
                }
            }
        }
        if place.list >= lists.len() {
            return self.end(place, lists, page);
        }
        self.move_memory(&place, lists);
        page.next = Some(Bookmark(serde_json::to_vec(&place).unwrap_or_default().into()));
        Ok(page)
    }

    /// Counts the page in and finds the way on.
    fn step(&self, place: &mut ListingPlace, sheet: &Sheet) -> Result<NextPage, Failure> {
        let mut listings = self.source.listings();
        let Some(memory) = listings.get_mut(&self.key()).filter(|memory| memory.at == place.at()) else {
            // Another run of the same listing moved on meanwhile, or the place in memory was needed.
            return Err(Failure {
                retry: true,
                ..refused("listing_moved", "the listing was moved by another run".into())
            });
        };
        let before = memory.keys.len();
        if before < KEYS_MAX {
            memory.keys.extend(&sheet.keys);
        } else {
            doubt(place, format!("too_many_keys: more than {KEYS_MAX} items in one list"));
        }
        let fresh = Some((memory.keys.len() - before) as u64).filter(|_| before < KEYS_MAX);
        // The keys of this page are in now; should anything fail below, the page does not count a second time.
        memory.at = (0, usize::MAX, u64::MAX);
        let (next, doubts) = self.way_on(place, sheet, fresh);
        let total = sheet.statements.as_ref().and_then(|page| page.total);
        if let ListingKind::Incremental(rule) = &self.kind
            && is_capped(rule, total, place.proof.read)
        {
            // Its halves are asked for instead: what was found odd here is found there, or is not.
            halve(rule, &mut place.windows)?;
            return Ok(NextPage::Halved);
        }
        doubts.into_iter().for_each(|text| doubt(place, text));
        let Some(spot) = next else { return Ok(NextPage::Over) };
        if !memory.trail.step(&spot) {
            return Err(loop_failure(&sheet.url, "the listing leads back to a page it has been at"));
        }
        if place.proof.stale >= STALE_PAGES_MAX && place.skipped == 0 {
            return Err(loop_failure(&sheet.url, &format!("{STALE_PAGES_MAX} pages without a new key")));
        }
        Ok(NextPage::Page(spot))
    }

    /// Where the listing goes on behind the page, and what speaks against it.
    fn way_on(&self, place: &mut ListingPlace, sheet: &Sheet, fresh: Option<u64>) -> (Option<PageToken>, Vec<String>) {
        let path = sheet.url.path();
        let Some(page) = &sheet.statements else {
            place.skipped += 1;
            // Where pages are counted the one after it is known; elsewhere the rest of the list is left out with it.
            let on = beyond(&self.request.paginate, &place.spot, 0).filter(|_| place.skipped <= SKIPPED_MAX);
            return (on, vec![format!("page_skipped: {path} answered {}", sheet.status)]);
        };
        place.skipped = 0;
        let number = place.page.saturating_sub(place.first_page) + 1;
        let (mut doubts, name) = (Vec::new(), format!("page {number} of {path}"));
        let judged = Judged { request: self.request, spot: &place.spot, page, fresh, name: &name };
        (place.proof.step(&judged, &mut doubts), doubts)
    }

    /// Keeps the page as a note: for the proof of a resumed listing, and to ask conditionally next time.
    fn keep(&self, list: &Value, place: &ListingPlace, sheet: Sheet, next: &NextPage, page: &mut Page) {
        let last = !matches!(next, NextPage::Page(_));
        if last && sheet.validator.is_none() {
            return;
        }
        let mut kept = KeptPage::new(place.listing, sheet.request);
        // A window that was halved is not asked for again as it was.
        kept.validator = sheet.validator.filter(|_| !matches!(next, NextPage::Halved));
        (kept.statements, kept.keys, kept.ids) = (sheet.statements.unwrap_or_default(), sheet.keys, sheet.ids);
        page.notes.push((self.page_note(list, place.page), kept.encode()));
    }

    /// Compares what was read with what the API says there is.
    fn prove(&self, place: &mut ListingPlace) {
        let tally = place.proof.tally();
        place.steady &= tally == CountVerdict::Steady;
        place.fell |= tally == CountVerdict::Fell;
        if let CountVerdict::Wrong { total, distinct } = tally {
            doubt(place, format!("total_mismatch: the API counts {total}, {distinct} distinct items were read"));
        }
    }

    /// Ends a list: notes of pages that will not be asked for again go.
    fn close_list(&self, list: &Value, place: &mut ListingPlace, page: &mut Page) -> Result<(), Failure> {
        let conditional = self.source.definition().limits.conditional;
        if conditional {
            let note = format!("pages/{}/{}", self.name, short(list));
            let before = self.source.note(self.ask, &note)?;
            let before = before.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(0u64);
            page.notes.extend((place.page..before).map(|number| (self.page_note(list, number), Vec::new())));
            page.notes.push((note, place.page.to_string().into_bytes()));
        } else {
            let last = place.page.saturating_sub(1);
            page.notes.extend((0..last).map(|number| (self.page_note(list, number), Vec::new())));
        }
        place.list += 1;
        (place.page, place.first_page, place.windows) = (0, 0, self.windows());
        Ok(())
    }

    fn move_memory(&self, place: &ListingPlace, lists: &Arc<Vec<Value>>) {
        let mut listings = self.source.listings();
        let memory = listings.entry(self.key()).or_insert_with(|| Memory {
            at: place.at(),
            lists: Arc::clone(lists),
            keys: HashSet::new(),
            trail: Trail::default(),
        });
        memory.at = place.at();
        if place.page == place.first_page {
            (memory.keys, memory.trail) = (HashSet::new(), Trail::default());
        }
    }

    fn end(&self, mut place: ListingPlace, lists: &[Value], mut page: Page) -> Result<Page, Failure> {
        self.source.listings().remove(&self.key());
        let mut confirm = Confirm::Never;
        if matches!(self.kind, ListingKind::Full) {
            confirm = deletes::confirm(self.mapper.stream(), place.steady, place.fell);
            if place.fell {
                self.fallen(&mut place, &mut page)?;
            }
            if self.lost_lists(lists, &mut page)? {
                // Records of a list that is gone are to be kept, and nothing tells them from those gone from their list.
                confirm = Confirm::Never;
            }
        }
        if place.doubts.is_empty() && page.quarantined.is_empty() {
            let started = self.ask.started_at.0.to_string();
            page.notes.push((format!("started/{}", self.name), started.into_bytes()));
        }
        page.provider_time = page.provider_time.or(place.provider_time);
        page.end = Some(End { doubts: std::mem::take(&mut place.doubts), confirm });
        Ok(page)
    }

    /// A count that fell leaves open which of its values was true. A second look settles it, unless it falls there as well.
    fn fallen(&self, place: &mut ListingPlace, page: &mut Page) -> Result<(), Failure> {
        let note = self.source.note(self.ask, "fell/full")?;
        let before = note.and_then(|bytes| serde_json::from_slice::<i64>(&bytes).ok());
        if before == Some(place.listing) {
            doubt(
                place,
                "total_fell: the API's count fell while the list was read, and again in the second look".into(),
            );
        }
        page.notes.push(("fell/full".to_string(), place.listing.to_string().into_bytes()));
        Ok(())
    }

    /// Whether a list of an earlier full listing is not among these any more and its records are to be kept.
    fn lost_lists(&self, lists: &[Value], page: &mut Page) -> Result<bool, Failure> {
        if self.request.partitions.is_empty() {
            return Ok(false);
        }
        let rules = self.request.partitions.iter().map(|name| self.source.definition().partitions.get(name));
        let dropped = rules.flatten().all(|partition| partition.delete_on_remove);
        let note = self.source.note(self.ask, "known/full")?;
        let mut known: Vec<Value> = note.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        let now: HashSet<String> = lists.iter().map(Value::to_string).collect();
        known.retain(|list| !now.contains(&list.to_string()));
        let lost = !known.is_empty() && !dropped;
        let all: Vec<&Value> = lists.iter().chain(known.iter().filter(|_| !dropped)).collect();
        page.notes.push(("known/full".to_string(), serde_json::to_vec(&all).unwrap_or_default()));
        Ok(lost)
    }
}

/// Where a listing goes after a page.
enum NextPage {
    Page(PageToken),
    /// The window was too large: its halves are asked for.
    Halved,
    /// The window, or the list, is over.
    Over,
}

impl ListingPlace {
    fn at(&self) -> (i64, usize, u64) {
        (self.listing, self.list, self.page)
    }

    /// Begins the window on top, or the list if there are no windows.
    fn open_window(&mut self) {
        self.first_page = self.page;
        self.spot = PageToken::Start;
        (self.proof, self.skipped) = (Proof::default(), 0);
    }
}

fn doubt(place: &mut ListingPlace, text: String) {
    if place.doubts.len() < DOUBTS_MAX && !place.doubts.contains(&text) {
        place.doubts.push(text);
    }
}

fn short(list: &Value) -> String {
    format!("{:016x}", twox_hash::XxHash3_64::oneshot(list.to_string().as_bytes()))
}

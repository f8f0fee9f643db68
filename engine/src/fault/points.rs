//! The failpoints there are, each with what must hold when the process dies or the step fails there. The test that walks this
//! table meets each of them and compares afterwards: nothing acknowledged is lost, nothing comes twice.
//!
//! A name that is not here ends the process that meets it, so no failpoint is without a row.

use OnError::{Ends, Never, Repeated};

/// A named edge.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// Its name.
    pub name: &'static str,
    /// Hits at which a test acts, counted from the start of the process.
    pub at: &'static [u64],
    /// What an error does there.
    pub on_error: OnError,
    /// What must hold after a kill.
    pub expected: &'static str,
}

/// What an error at an edge does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Nothing can fail there.
    Never,
    /// The step is made again, by the program or by whoever asked.
    Repeated,
    /// The store closes for good and the program ends with code 71.
    Ends,
}

const fn point(name: &'static str, at: &'static [u64], on_error: OnError, expected: &'static str) -> Point {
    Point { name, at, on_error, expected }
}

/// First hits; the start of the program alone does not meet them.
const FIRST: &[u64] = &[1, 2];
/// Hits of an edge that the start of the program meets too.
const BUSY: &[u64] = &[1, 2, 30];
/// The opening of a partition, the one after it, and one under load.
const OPENING: &[u64] = &[1, 2, 8];
/// Met once in the life of a process.
const ONCE: &[u64] = &[1];

const UNSENT: &str = "the provider sees a broken connection and sends again: one effect";
const AGAIN: &str = "the entry is processed again from the log: one effect";
const NOT_YET: &str = "not answered; the entry may be there, then once";
const ABSORBED: &str = "it is on disk though nobody was told; the provider's repetition has no effect";
const GOES_ON: &str = "the run goes on at the last bookmark that was committed";
const REPLAYED: &str = "replayed from what is committed, nothing twice";
const IN_TOPICS: &str = "a transaction is in the topics with its place or not at all; each change appears once";
const SAME_ID: &str = "sent again under the same id";

/// All edges, in the order of the way through the program.
pub const POINTS: &[Point] = &[
    // Webhooks on their way in.
    point("in.accepted", FIRST, Never, UNSENT),
    point("in.headers", FIRST, Never, UNSENT),
    point("in.body_half", FIRST, Never, UNSENT),
    point("in.body_full", FIRST, Never, UNSENT),
    point("in.verified", FIRST, Never, UNSENT),
    point("in.queued", FIRST, Never, UNSENT),
    point("in.attributed", FIRST, Never, AGAIN),
    point("in.deduped", FIRST, Never, AGAIN),
    // The log.
    point("log.batch_formed", FIRST, Never, NOT_YET),
    point("log.write_before", FIRST, Ends, NOT_YET),
    point("log.write_after", FIRST, Ends, ABSORBED),
    point("ack.before", FIRST, Never, ABSORBED),
    // Polls.
    point("poll.connect", FIRST, Repeated, GOES_ON),
    point("poll.request_sent", FIRST, Repeated, GOES_ON),
    point("poll.response_half", FIRST, Repeated, GOES_ON),
    point("poll.page_parsed", FIRST, Repeated, GOES_ON),
    point("poll.append_before", FIRST, Repeated, GOES_ON),
    point("poll.append_after", FIRST, Never, GOES_ON),
    point("poll.run_end", FIRST, Never, "the run ends at the next start, and is told of once"),
    point(
        "poll.delete_pass",
        FIRST,
        Never,
        "nothing is deleted that a listing did not prove; the run ends at the next start",
    ),
    // From observations to changes.
    point("proc.batch_read", FIRST, Never, AGAIN),
    point("proc.step_half", BUSY, Ends, REPLAYED),
    point("proc.frontier", BUSY, Ends, REPLAYED),
    point("store.write_before", BUSY, Ends, REPLAYED),
    point("store.write_after", BUSY, Ends, REPLAYED),
    point("store.sync_after", BUSY, Ends, "durable though nobody was told"),
    point("mark.write", BUSY, Ends, "durable, and the high-water mark lags behind"),
    point("proc.position_commit", FIRST, Never, REPLAYED),
    // Webhooks on their way out.
    point("out.claim", FIRST, Never, SAME_ID),
    point("out.connect", FIRST, Repeated, SAME_ID),
    point("out.sent", FIRST, Repeated, SAME_ID),
    point("out.got_2xx", FIRST, Never, SAME_ID),
    point("out.mark_after", FIRST, Never, "not sent again"),
    point("out.retry_scheduled", FIRST, Never, SAME_ID),
    point("out.dead_letter", FIRST, Never, "kept as given up, once"),
    point("out.disable", ONCE, Never, "the endpoint is disabled; what is owed stays"),
    // Upkeep and readers.
    point("ttl.sweep", ONCE, Never, "swept again"),
    point("flush.begin", ONCE, Never, "the write-ahead log has it all"),
    point("api.cursor_read", FIRST, Never, "the reader reads again from its last cursor"),
    point("api.stream_half", FIRST, Never, "the reader reads again from its last cursor"),
];

/// Edges of a program whose log and changelog lie in Kafka: an opening meets them too, with the term it writes.
pub const KAFKA: &[Point] = &[
    point("k.init_txn", ONCE, Never, "the next owner opens the partition"),
    point("k.begin", OPENING, Never, REPLAYED),
    point("k.produced_half", OPENING, Never, "what was begun is aborted by the next owner"),
    point("k.commit_before", OPENING, Never, "what was begun is aborted by the next owner"),
    point("k.commit_after", OPENING, Never, "read again from the changelog, nothing twice"),
    point("k.local_commit_before", OPENING, Never, "read again from the changelog, nothing twice"),
];

/// Edges of a program that writes its changes to topics. The topic of its places is written at the start as well.
pub const OUTPUTS: &[Point] = &[
    point("k.out_init", ONCE, Never, IN_TOPICS),
    point("k.out_begin", OPENING, Never, IN_TOPICS),
    point("k.out_sent", OPENING, Never, IN_TOPICS),
    point("k.out_commit_before", OPENING, Never, IN_TOPICS),
    point("k.out_commit_after", OPENING, Never, IN_TOPICS),
];

/// An edge that the program meets after days only.
pub const TRIM: Point = point("log.trim", FIRST, Ends, "trimmed or not, never in between");

/// Edges of the commands that copy and replace files; the tests of those commands kill them there.
pub const COMMANDS: &[Point] = &[
    point("backup.copied", ONCE, Repeated, "the backup before it stays valid; given again, it is complete"),
    point("backup.complete", ONCE, Repeated, "the backup before it stays valid; given again, it is complete"),
    point("restore.copied", ONCE, Repeated, "what was there stays; given again, it is restored"),
    point("restore.set_aside", ONCE, Repeated, "given again, it is restored"),
    point("repair.set_aside", ONCE, Repeated, "given again, it is repaired"),
];

/// Whether an edge has a row.
pub(super) fn known(name: &str) -> bool {
    POINTS.iter().chain(KAFKA).chain(OUTPUTS).chain(COMMANDS).chain([&TRIM]).any(|point| point.name == name)
}

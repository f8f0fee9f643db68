//! What a broker says of a topic: which one it is, and how many partitions it has. A topic made anew under an old name has
//! the same name and other contents; the broker gives every topic an id that is never used twice. The client library knows
//! it and its Rust face does not hand it out.
//!
//! Promises: bounded waits; where the id cannot be had (an old broker, a mock) it is empty, and whoever compares has one
//! guard less. The only unsafe code of this crate; every pointer is checked, owned by a guard that frees it, and used only
//! while its guard lives.

use rdkafka::ClientContext;
use rdkafka::bindings::{self as native, rd_kafka_admin_op_t, rd_kafka_event_t};
use rdkafka::client::Client;
use std::ffi::{CStr, CString};
use std::ptr;
use std::time::Duration;

/// How long a question for the id alone may take: a broker that is there answers within milliseconds, and a guard is not
/// worth more.
const PATIENCE: Duration = Duration::from_millis(1_500);

/// A topic as its broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id; `None` where the broker gives none.
    pub id: Option<u128>,
    /// Its partitions.
    pub partitions: i32,
}

impl Described {
    /// The id as text; empty where there is none.
    pub fn id_text(&self) -> String {
        self.id.map(|id| format!("{id:032x}")).unwrap_or_default()
    }
}

/// Why there is no description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// There is no such topic.
    Missing,
    /// No answer, or not allowed.
    Failed(String),
}

/// Frees what a call of the library gave us.
struct Owned<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// `None` for a null pointer.
    fn new(pointer: *mut T, free: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        (!pointer.is_null()).then_some(Owned(pointer, free))
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: not null (see `new`), made by the library for this function, and freed only here.
        unsafe { (self.1)(self.0) }
    }
}

/// The id of a topic, if the broker says it in time.
pub(super) fn topic_id<C: ClientContext>(client: &Client<C>, topic: &str) -> Option<u128> {
    describe(client, topic, PATIENCE).ok()?.id
}

/// Asks the broker for the description of a topic and waits for it at most `patience`. Blocks.
pub(super) fn describe<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    patience: Duration,
) -> Result<Described, Unclear> {
    let wait = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
    let event = described(client, topic, wait).ok_or_else(|| Unclear::Failed("no answer".to_owned()))?;
    // SAFETY: `event` lives to the end of this function, and all that is read here is part of it. The library answers
    // null for an event of another kind, and a count of zero with no topics.
    unsafe {
        if native::rd_kafka_event_error(event.0) as i32 != 0 {
            return Err(Unclear::Failed(text(native::rd_kafka_event_error_string(event.0))));
        }
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(Unclear::Failed("an answer to another question".to_owned()));
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 || (*topics).is_null() {
            return Err(Unclear::Missing);
        }
        read(*topics)
    }
}

/// Asks the broker about the topic and waits for the answer.
fn described<C: ClientContext>(client: &Client<C>, topic: &str, wait: i32) -> Option<Owned<rd_kafka_event_t>> {
    let name = CString::new(topic).ok()?;
    let mut names = [name.as_ptr()];
    let handle = client.native_ptr();
    // SAFETY: the client outlives this call; `names` holds one string that ends with a zero, and the library copies it;
    // queue, options and topics are freed after the request has taken what it needs, as the library's manual shows.
    unsafe {
        let queue = Owned::new(native::rd_kafka_queue_new(handle), native::rd_kafka_queue_destroy)?;
        let topics = Owned::new(
            native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            native::rd_kafka_TopicCollection_destroy,
        )?;
        let options = Owned::new(
            native::rd_kafka_AdminOptions_new(handle, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            native::rd_kafka_AdminOptions_destroy,
        )?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, wait, ptr::null_mut(), 0);
        native::rd_kafka_DescribeTopics(handle, topics.0, options.0, queue.0);
        Owned::new(native::rd_kafka_queue_poll(queue.0, wait), native::rd_kafka_event_destroy)
    }
}

/// SAFETY: `topic` points to a description owned by a living event.
unsafe fn read(topic: *const native::rd_kafka_TopicDescription_t) -> Result<Described, Unclear> {
    // SAFETY: as above; what these getters answer lives as long as the description.
    unsafe {
        let error = native::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && native::rd_kafka_error_code(error) as i32 != 0 {
            let code = native::rd_kafka_error_code(error);
            if code as i32 == native::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32 {
                return Err(Unclear::Missing);
            }
            return Err(Unclear::Failed(text(native::rd_kafka_error_string(error))));
        }
        let mut count = 0;
        let _ = native::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let uuid = native::rd_kafka_TopicDescription_topic_id(topic);
        let id = (!uuid.is_null()).then(|| {
            let high = native::rd_kafka_Uuid_most_significant_bits(uuid).cast_unsigned();
            let low = native::rd_kafka_Uuid_least_significant_bits(uuid).cast_unsigned();
            (u128::from(high) << 64) | u128::from(low)
        });
        Ok(Described { id: id.filter(|id| *id != 0), partitions: i32::try_from(count).unwrap_or(i32::MAX) })
    }
}

/// SAFETY: `text` is null or points to a text that ends with a zero.
unsafe fn text(text: *const std::ffi::c_char) -> String {
    // SAFETY: as above.
    if text.is_null() { String::new() } else { unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned() }
}

/// What the client last heard of a partition's end, without asking; `None` before the first answer.
pub fn known_end<C: ClientContext>(client: &Client<C>, topic: &str, partition: i32) -> Option<i64> {
    let name = CString::new(topic).ok()?;
    let (mut low, mut high) = (-1i64, -1i64);
    // SAFETY: `client` outlives the call, which writes the two numbers and keeps nothing.
    let code = unsafe {
        native::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &mut low, &mut high)
    };
    (code as i32 == 0 && high >= 0).then_some(high)
}

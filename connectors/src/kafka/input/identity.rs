//! Which topic this is. A topic that was deleted and made again has the same name, but another id; offsets of the old one
//! mean nothing in the new one.
//!
//! The client library asks brokers for a topic's description in C only; this file is the one place that speaks to it so.

use rdkafka::bindings as rd;
use rdkafka::client::{Client, ClientContext};
use std::ffi::{CStr, CString};
use std::ptr;

/// A topic as its broker describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its id; empty where the broker gives none.
    pub id: String,
    /// Its partitions.
    pub partitions: i32,
}

/// Why there is no description.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// There is no such topic.
    Missing,
    /// No answer, or not allowed.
    Failed(String),
}

/// Longest wait for the answer, milliseconds.
const PATIENCE_MS: i32 = 10_000;

/// Frees what C gave when it goes out of scope.
struct Freed<T>(*mut T, unsafe extern "C" fn(*mut T));

impl<T> Drop for Freed<T> {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: the pointer came from the library's constructor that belongs to this destructor, and is freed once.
            unsafe { (self.1)(self.0) }
        }
    }
}

/// Asks for the description of `topic`. Blocks, at most [`PATIENCE_MS`].
pub fn describe<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Described, Unclear> {
    let name = CString::new(topic).map_err(|_| Unclear::Missing)?;
    let mut names = [name.as_ptr()];
    // SAFETY: `client` outlives every call; all that is made here is freed by `Freed` in reverse order after the event, which
    // owns what the result points to; names are copied by the library.
    unsafe {
        let rk = client.native_ptr();
        let queue = Freed(rd::rd_kafka_queue_new(rk), rd::rd_kafka_queue_destroy);
        let topics = Freed(
            rd::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            rd::rd_kafka_TopicCollection_destroy,
        );
        rd::rd_kafka_DescribeTopics(rk, topics.0, ptr::null(), queue.0);
        let event = Freed(rd::rd_kafka_queue_poll(queue.0, PATIENCE_MS), rd::rd_kafka_event_destroy);
        if event.0.is_null() {
            return Err(Unclear::Failed("no answer".to_owned()));
        }
        if rd::rd_kafka_event_error(event.0) as i32 != 0 {
            return Err(Unclear::Failed(text(rd::rd_kafka_event_error_string(event.0))));
        }
        let result = rd::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return Err(Unclear::Failed("an answer to another question".to_owned()));
        }
        let mut count = 0;
        let found = rd::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if found.is_null() || count == 0 {
            return Err(Unclear::Missing);
        }
        read(*found)
    }
}

/// SAFETY: `topic` points to a description owned by a living event.
unsafe fn read(topic: *const rd::rd_kafka_TopicDescription_t) -> Result<Described, Unclear> {
    // SAFETY: as above; what these getters answer lives as long as the description.
    unsafe {
        let error = rd::rd_kafka_TopicDescription_error(topic);
        if !error.is_null() && rd::rd_kafka_error_code(error) as i32 != 0 {
            let code = rd::rd_kafka_error_code(error);
            if code as i32 == rd::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART as i32 {
                return Err(Unclear::Missing);
            }
            return Err(Unclear::Failed(text(rd::rd_kafka_error_string(error))));
        }
        let mut count = 0;
        let _ = rd::rd_kafka_TopicDescription_partitions(topic, &mut count);
        let uuid = rd::rd_kafka_TopicDescription_topic_id(topic);
        let id = if uuid.is_null() { String::new() } else { text(rd::rd_kafka_Uuid_base64str(uuid)) };
        Ok(Described { id, partitions: i32::try_from(count).unwrap_or(i32::MAX) })
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
        rd::rd_kafka_get_watermark_offsets(client.native_ptr(), name.as_ptr(), partition, &mut low, &mut high)
    };
    (code as i32 == 0 && high >= 0).then_some(high)
}

//! Which topic it is: a topic made anew under an old name has the same name and other contents. The broker gives every
//! topic an id that is never used twice; the client library knows it and its Rust face does not hand it out.
//!
//! Promises: never fails. Where the id cannot be had (an old broker, a mock, nobody answers) the answer is `None`, and
//! whoever compares has one guard less. The only unsafe code of this crate; every pointer is checked, owned by a guard
//! that frees it, and used only while its guard lives.

use rdkafka::ClientContext;
use rdkafka::bindings::{
    self as native, rd_kafka_AdminOptions_t, rd_kafka_TopicCollection_t, rd_kafka_admin_op_t, rd_kafka_event_t,
    rd_kafka_queue_t,
};
use rdkafka::client::Client;
use std::ffi::CString;
use std::ptr;
use std::time::Duration;

/// How long the question may take: a broker that is there answers within milliseconds, and a guard is not worth more.
const PATIENCE: Duration = Duration::from_millis(1_500);

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
    let event = described(client, topic, i32::try_from(PATIENCE.as_millis()).unwrap_or(i32::MAX))?;
    // SAFETY: `event` lives to the end of this function, and all that is read here is part of it. The library answers
    // null for an event of another kind, and a count of zero with no topics.
    unsafe {
        let result = native::rd_kafka_event_DescribeTopics_result(event.0);
        if result.is_null() {
            return None;
        }
        let mut count = 0;
        let topics = native::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count != 1 || (*topics).is_null() {
            return None;
        }
        let id = native::rd_kafka_TopicDescription_topic_id(*topics);
        if id.is_null() {
            return None;
        }
        let high = native::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = native::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        let id = (u128::from(high) << 64) | u128::from(low);
        (id != 0).then_some(id)
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
        let queue: Owned<rd_kafka_queue_t> =
            Owned::new(native::rd_kafka_queue_new(handle), native::rd_kafka_queue_destroy)?;
        let topics: Owned<rd_kafka_TopicCollection_t> = Owned::new(
            native::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len()),
            native::rd_kafka_TopicCollection_destroy,
        )?;
        let options: Owned<rd_kafka_AdminOptions_t> = Owned::new(
            native::rd_kafka_AdminOptions_new(handle, rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS),
            native::rd_kafka_AdminOptions_destroy,
        )?;
        native::rd_kafka_AdminOptions_set_request_timeout(options.0, wait, ptr::null_mut(), 0);
        native::rd_kafka_DescribeTopics(handle, topics.0, options.0, queue.0);
        Owned::new(native::rd_kafka_queue_poll(queue.0, wait), native::rd_kafka_event_destroy)
    }
}

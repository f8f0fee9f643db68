//! A producer whose reports are taken by a thread of its own, and which costs nothing while nothing happens.
//!
//! rdkafka's `ThreadedProducer` waits for reports a tenth of a second at a time and spins through the last millisecond of each
//! wait: a hundredth of a core per producer, of which a process with many partitions has dozens.

use rdkafka::client::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::error::KafkaResult;
use rdkafka::producer::{BaseProducer, Producer, ProducerContext, PurgeConfig};
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One wait for reports. They are taken as they come; only the end of the thread waits for this.
const WAIT: Duration = Duration::from_secs(2);

/// The producer. When it is dropped, what it has not sent is thrown away, and its thread ends within [`WAIT`].
pub struct Polled<C: ProducerContext + 'static> {
    producer: Arc<BaseProducer<C>>,
    stop: Arc<AtomicBool>,
}

impl<C: ProducerContext + 'static> FromClientConfigAndContext<C> for Polled<C> {
    fn from_config_and_context(config: &ClientConfig, context: C) -> KafkaResult<Self> {
        let producer = Arc::new(BaseProducer::from_config_and_context(config, context)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (polled, stopped) = (producer.clone(), stop.clone());
        let reports = move || {
            while !stopped.load(Ordering::Acquire) {
                polled.poll(WAIT);
            }
        };
        let thread = std::thread::Builder::new().name("kafka-reports".to_owned()).spawn(reports);
        thread.map_err(|e| rdkafka::error::KafkaError::ClientCreation(e.to_string()))?;
        Ok(Polled { producer, stop })
    }
}

impl<C: ProducerContext + ClientContext + 'static> Deref for Polled<C> {
    type Target = BaseProducer<C>;

    fn deref(&self) -> &BaseProducer<C> {
        &self.producer
    }
}

impl<C: ProducerContext + 'static> Drop for Polled<C> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        self.producer.purge(PurgeConfig::default().queue().inflight());
    }
}

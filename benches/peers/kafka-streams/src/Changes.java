// The peer: records of one topic become changes on another, exactly once, with Kafka Streams.
//
// For every key the last value is kept in a RocksDB store (whose changelog is a topic); a record whose bytes are those it
// already has makes no change. A change is {"op":"c|u|d","before":…,"after":…}. Simpler than what Syncline does: bytes are
// compared, not content, and an older version that comes late is applied.
//
// With SWEEP in the environment a record can have the number of a run in its header `run`, which is kept in a second, small
// store; a record with the key `end` in each partition deletes what that run has not met.

import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Properties;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.KeyValue;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

public final class Changes {
    private static final String LAST = "last";
    private static final String SEEN = "seen";
    private static final byte[] END = "end".getBytes(StandardCharsets.UTF_8);
    private static final boolean SWEEP = System.getenv("SWEEP") != null;

    public static void main(String[] args) {
        var builder = new StreamsBuilder();
        var stores = SWEEP ? new String[] {LAST, SEEN} : new String[] {LAST};
        for (var store : stores) {
            builder.addStateStore(Stores.keyValueStoreBuilder(
                    Stores.persistentKeyValueStore(store), Serdes.ByteArray(), Serdes.ByteArray()));
        }
        builder.stream(System.getenv("IN"), Consumed.with(Serdes.ByteArray(), Serdes.ByteArray()))
                .process(Classify::new, stores)
                .to(System.getenv("OUT"), Produced.with(Serdes.ByteArray(), Serdes.ByteArray()));

        var settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, System.getenv("NAME"));
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("BROKERS"));
        settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getenv("DATA"));
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, System.getenv("THREADS"));
        settings.put(StreamsConfig.REPLICATION_FACTOR_CONFIG, 1);
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        settings.put(StreamsConfig.producerPrefix("batch.size"), 256 * 1024);
        // The default of Kafka Streams waits 100 ms to fill a batch; a commit every 100 ms flushes anyway.
        settings.put(StreamsConfig.producerPrefix("linger.ms"), 5);

        var streams = new KafkaStreams(builder.build(), settings);
        Runtime.getRuntime().addShutdownHook(new Thread(() -> streams.close(Duration.ofSeconds(10))));
        streams.start();
    }

    private static final class Classify implements Processor<byte[], byte[], byte[], byte[]> {
        private ProcessorContext<byte[], byte[]> context;
        private KeyValueStore<byte[], byte[]> last;
        private KeyValueStore<byte[], byte[]> seen;

        @Override
        public void init(ProcessorContext<byte[], byte[]> context) {
            this.context = context;
            this.last = context.getStateStore(LAST);
            this.seen = SWEEP ? context.getStateStore(SEEN) : null;
        }

        @Override
        public void process(Record<byte[], byte[]> record) {
            Header run = SWEEP ? record.headers().lastHeader("run") : null;
            if (run != null && Arrays.equals(record.key(), END)) {
                sweep(run.value(), record.timestamp());
                return;
            }
            byte[] before = last.get(record.key());
            byte[] after = record.value();
            if (run != null) {
                seen.put(record.key(), run.value());
            }
            if (Arrays.equals(before, after)) {
                return;
            }
            last.put(record.key(), after);
            context.forward(new Record<>(record.key(), Change.bytes(before, after), record.timestamp()));
        }

        /** What the run has not met is deleted. Both stores are in order of keys, and one has no key that the other lacks. */
        private void sweep(byte[] run, long at) {
            var gone = new ArrayList<KeyValue<byte[], byte[]>>();
            try (var all = last.all(); var met = seen.all()) {
                KeyValue<byte[], byte[]> next = met.hasNext() ? met.next() : null;
                while (all.hasNext()) {
                    var entry = all.next();
                    while (next != null && Arrays.compareUnsigned(next.key, entry.key) < 0) {
                        next = met.hasNext() ? met.next() : null;
                    }
                    if (next == null || !Arrays.equals(next.key, entry.key) || !Arrays.equals(next.value, run)) {
                        gone.add(entry);
                    }
                }
            }
            for (var entry : gone) {
                last.delete(entry.key);
                seen.delete(entry.key);
                context.forward(new Record<>(entry.key, Change.bytes(entry.value, null), at));
            }
        }
    }

    private static final class Change {
        private static final byte[] NULL = text("null");
        private static final byte[] CREATED = text("{\"op\":\"c\",\"before\":");
        private static final byte[] UPDATED = text("{\"op\":\"u\",\"before\":");
        private static final byte[] DELETED = text("{\"op\":\"d\",\"before\":");
        private static final byte[] AFTER = text(",\"after\":");

        static byte[] bytes(byte[] before, byte[] after) {
            byte[] head = before == null ? CREATED : after == null ? DELETED : UPDATED;
            byte[] old = before == null ? NULL : before;
            byte[] fresh = after == null ? NULL : after;
            byte[] all = new byte[head.length + old.length + AFTER.length + fresh.length + 1];
            int at = append(all, 0, head);
            at = append(all, at, old);
            at = append(all, at, AFTER);
            at = append(all, at, fresh);
            all[at] = '}';
            return all;
        }

        private static int append(byte[] all, int at, byte[] part) {
            System.arraycopy(part, 0, all, at, part.length);
            return at + part.length;
        }

        private static byte[] text(String text) {
            return text.getBytes(StandardCharsets.UTF_8);
        }
    }
}

// The peer: records of one topic become changes on another, exactly once, with Flink.
//
// For every key the last value is kept in RocksDB; a checkpoint every second commits state, offsets and the output's
// transactions together. A record whose bytes are those it already has makes no change. A change is
// {"op":"c|u|d","before":…,"after":…}. Simpler than what Syncline does: bytes are compared, not content, and an older
// version that comes late is applied.
//
// With SWEEP in the environment a record can have the number of a run in its header `run`, which is kept beside its value. A
// record with the key `end`, sent once all before it have been processed, deletes what that run has not met.

import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.api.java.tuple.Tuple3;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.co.KeyedBroadcastProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

public final class Changes {
    private static final String END = "end";
    private static final TypeInformation<Tuple2<String, byte[]>> PAIR =
            TypeInformation.of(new TypeHint<Tuple2<String, byte[]>>() {});
    /** Key, value, and the number of the run, or 0. */
    private static final TypeInformation<Tuple3<String, byte[], Integer>> RECORD =
            TypeInformation.of(new TypeHint<Tuple3<String, byte[], Integer>>() {});

    public static void main(String[] args) throws Exception {
        var settings = new Configuration();
        settings.setString("parallelism.default", System.getenv("THREADS"));
        settings.setString("taskmanager.numberOfTaskSlots", System.getenv("THREADS"));
        settings.setString("taskmanager.memory.managed.size", "512m");
        settings.setString("taskmanager.memory.network.min", "64m");
        settings.setString("taskmanager.memory.network.max", "64m");
        settings.setString("state.backend.type", "rocksdb");
        settings.setString("execution.checkpointing.incremental", "true");
        settings.setString("execution.checkpointing.dir", "file://" + System.getenv("DATA") + "/checkpoints");
        settings.setString("execution.checkpointing.interval", "1s");
        settings.setString("execution.checkpointing.mode", "EXACTLY_ONCE");
        settings.setString("pipeline.object-reuse", "true");
        // A buffer that is not full waits this long; the default is 100 ms.
        settings.setString("execution.buffer-timeout.interval", "5ms");

        var source = KafkaSource.<Tuple3<String, byte[], Integer>>builder()
                .setBootstrapServers(System.getenv("BROKERS"))
                .setTopics(System.getenv("IN"))
                .setGroupId(System.getenv("NAME"))
                .setStartingOffsets(OffsetsInitializer.earliest())
                .setDeserializer(new Reader())
                .build();
        var sink = KafkaSink.<Tuple2<String, byte[]>>builder()
                .setBootstrapServers(System.getenv("BROKERS"))
                .setDeliveryGuarantee(DeliveryGuarantee.EXACTLY_ONCE)
                .setTransactionalIdPrefix(System.getenv("NAME"))
                // Not above the broker's transaction.max.timeout.ms.
                .setProperty("transaction.timeout.ms", "600000")
                .setProperty("compression.type", "lz4")
                .setProperty("batch.size", String.valueOf(256 * 1024))
                .setProperty("linger.ms", "5")
                .setRecordSerializer(new Writer(System.getenv("OUT")))
                .build();

        var program = StreamExecutionEnvironment.getExecutionEnvironment(settings);
        var in = program.fromSource(source, WatermarkStrategy.noWatermarks(), "in").returns(RECORD);
        if (System.getenv("SWEEP") == null) {
            in.keyBy(record -> record.f0, Types.STRING).process(new Classify()).returns(PAIR).sinkTo(sink);
        } else {
            var ends = in.filter(record -> record.f0.equals(END)).broadcast(
                    new MapStateDescriptor<>("none", Types.STRING, Types.STRING));
            in.filter(record -> !record.f0.equals(END))
                    .keyBy(record -> record.f0, Types.STRING)
                    .connect(ends)
                    .process(new Sweep())
                    .returns(PAIR)
                    .sinkTo(sink);
        }
        program.execute(System.getenv("NAME"));
    }

    private static final class Reader implements KafkaRecordDeserializationSchema<Tuple3<String, byte[], Integer>> {
        @Override
        public void deserialize(
                ConsumerRecord<byte[], byte[]> record, Collector<Tuple3<String, byte[], Integer>> out) {
            byte[] value = record.value() == null ? new byte[0] : record.value();
            var header = record.headers().lastHeader("run");
            int run = header == null ? 0 : ByteBuffer.wrap(header.value()).getInt();
            out.collect(Tuple3.of(new String(record.key(), StandardCharsets.UTF_8), value, run));
        }

        @Override
        public TypeInformation<Tuple3<String, byte[], Integer>> getProducedType() {
            return RECORD;
        }
    }

    private static final class Writer implements KafkaRecordSerializationSchema<Tuple2<String, byte[]>> {
        private final String topic;

        Writer(String topic) {
            this.topic = topic;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Tuple2<String, byte[]> pair, KafkaSinkContext context, Long timestamp) {
            return new ProducerRecord<>(topic, pair.f0.getBytes(StandardCharsets.UTF_8), pair.f1);
        }
    }

    private static final ValueStateDescriptor<byte[]> LAST =
            new ValueStateDescriptor<>("last", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private static final class Classify
            extends KeyedProcessFunction<String, Tuple3<String, byte[], Integer>, Tuple2<String, byte[]>> {
        private transient ValueState<byte[]> last;

        @Override
        public void open(OpenContext context) {
            last = getRuntimeContext().getState(LAST);
        }

        @Override
        public void processElement(
                Tuple3<String, byte[], Integer> record, Context context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            Change.apply(last, record, out);
        }
    }

    private static final class Sweep extends KeyedBroadcastProcessFunction<
            String, Tuple3<String, byte[], Integer>, Tuple3<String, byte[], Integer>, Tuple2<String, byte[]>> {
        private transient ValueState<byte[]> last;
        private transient ValueState<Integer> seen;
        private transient int swept;

        @Override
        public void open(OpenContext context) {
            last = getRuntimeContext().getState(LAST);
            seen = getRuntimeContext().getState(new ValueStateDescriptor<>("seen", Types.INT));
        }

        @Override
        public void processElement(
                Tuple3<String, byte[], Integer> record, ReadOnlyContext context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            if (record.f2 != 0) {
                seen.update(record.f2);
            }
            Change.apply(last, record, out);
        }

        /** One comes from each partition; the first does it all. */
        @Override
        public void processBroadcastElement(
                Tuple3<String, byte[], Integer> end, Context context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            int run = end.f2;
            if (run == swept) {
                return;
            }
            swept = run;
            context.applyToKeyedState(LAST, (key, state) -> {
                Integer met = seen.value();
                if (met == null || met != run) {
                    out.collect(Tuple2.of(key, Change.bytes(state.value(), null)));
                    state.clear();
                    seen.clear();
                }
            });
        }
    }

    private static final class Change {
        /** An empty value is a delete. */
        static void apply(
                ValueState<byte[]> last, Tuple3<String, byte[], Integer> record, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            byte[] before = last.value();
            byte[] after = record.f1.length == 0 ? null : record.f1;
            if (Arrays.equals(before, after)) {
                return;
            }
            if (after == null) {
                last.clear();
            } else {
                last.update(after);
            }
            out.collect(Tuple2.of(record.f0, bytes(before, after)));
        }

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

// The peer: records of one topic become changes on another, exactly once, with Flink.
//
// For every key the last value is kept in RocksDB; a checkpoint every second commits state, offsets and the output's
// transactions together. A record whose bytes are those it already has makes no change. A change is
// {"op":"c|u|d","before":…,"after":…}. Simpler than what Syncline does: bytes are compared, not content, and an older
// version that comes late is applied.

import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeHint;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

public final class Changes {
    private static final TypeInformation<Tuple2<String, byte[]>> PAIR =
            TypeInformation.of(new TypeHint<Tuple2<String, byte[]>>() {});

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

        var source = KafkaSource.<Tuple2<String, byte[]>>builder()
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
        program.fromSource(source, WatermarkStrategy.noWatermarks(), "in")
                .returns(PAIR)
                .keyBy(pair -> pair.f0, Types.STRING)
                .process(new Classify())
                .returns(PAIR)
                .sinkTo(sink);
        program.execute(System.getenv("NAME"));
    }

    private static final class Reader implements KafkaRecordDeserializationSchema<Tuple2<String, byte[]>> {
        @Override
        public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, byte[]>> out) {
            byte[] value = record.value() == null ? new byte[0] : record.value();
            out.collect(Tuple2.of(new String(record.key(), StandardCharsets.UTF_8), value));
        }

        @Override
        public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
            return PAIR;
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

    /** An empty value is a delete. */
    private static final class Classify
            extends KeyedProcessFunction<String, Tuple2<String, byte[]>, Tuple2<String, byte[]>> {
        private transient ValueState<byte[]> last;

        @Override
        public void open(OpenContext context) {
            last = getRuntimeContext().getState(
                    new ValueStateDescriptor<>("last", PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO));
        }

        @Override
        public void processElement(
                Tuple2<String, byte[]> pair, Context context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            byte[] before = last.value();
            byte[] after = pair.f1.length == 0 ? null : pair.f1;
            if (Arrays.equals(before, after)) {
                return;
            }
            if (after == null) {
                last.clear();
            } else {
                last.update(after);
            }
            out.collect(Tuple2.of(pair.f0, bytes(before, after)));
        }

        private static final byte[] NULL = text("null");
        private static final byte[] CREATED = text("{\"op\":\"c\",\"before\":");
        private static final byte[] UPDATED = text("{\"op\":\"u\",\"before\":");
        private static final byte[] DELETED = text("{\"op\":\"d\",\"before\":");
        private static final byte[] AFTER = text(",\"after\":");

        private static byte[] bytes(byte[] before, byte[] after) {
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

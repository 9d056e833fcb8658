import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.*;
import java.util.concurrent.*;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.record.TimestampType;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.common.utils.AppInfoParser;

/** Kafka's own Java clients behind the protocol of ../PROTOCOL.md. Compiled once for each client version. */
public final class Driver {
    static final ObjectMapper JSON = new ObjectMapper();
    static final HexFormat HEX = HexFormat.of();
    static final Duration POLL = Duration.ofMillis(100);

    String bootstrap;
    final Map<String, Member> members = new HashMap<>();

    public static void main(String[] args) throws Exception {
        PrintStream out = System.out;
        System.setOut(System.err);
        out.println(JSON.createObjectNode().put("ready", "java " + AppInfoParser.getVersion()));
        Driver driver = new Driver();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ObjectNode reply;
            try {
                reply = driver.answer(JSON.readTree(line));
            } catch (Throwable e) {
                Throwable cause = e instanceof ExecutionException && e.getCause() != null ? e.getCause() : e;
                reply = JSON.createObjectNode().put("error", cause.toString());
            }
            out.println(reply);
        }
        Runtime.getRuntime().halt(0);
    }

    ObjectNode answer(JsonNode q) throws Exception {
        ObjectNode reply = JSON.createObjectNode();
        String op = q.get("op").asText();
        switch (op) {
            case "connect": bootstrap = q.get("bootstrap").asText(); break;
            case "create_topic": createTopic(q); break;
            case "delete_topic":
                try (Admin admin = admin()) {
                    admin.deleteTopics(List.of(q.get("topic").asText())).all().get(30, TimeUnit.SECONDS);
                }
                break;
            case "produce": produce(q, reply); break;
            case "consume": consume(q, reply); break;
            case "open": members.put(q.get("member").asText(), new Member(q)); break;
            case "state": members.get(q.get("member").asText()).state(q, reply); break;
            case "commit": {
                Member m = members.get(q.get("member").asText());
                m.ask(() -> m.commit(m.positions, q.get("metadata").asText()), false);
                break;
            }
            case "committed": committed(q, reply); break;
            case "close": {
                Member m = members.remove(q.get("member").asText());
                m.ask(() -> m.consumer.close(), true);
                break;
            }
            default: throw new IllegalArgumentException("unknown op " + op);
        }
        return reply;
    }

    Properties base() {
        Properties p = new Properties();
        p.put("bootstrap.servers", bootstrap);
        return p;
    }

    Admin admin() {
        return Admin.create(base());
    }

    void createTopic(JsonNode q) throws Exception {
        Map<String, String> configs = new HashMap<>();
        q.get("configs").fields().forEachRemaining(e -> configs.put(e.getKey(), e.getValue().asText()));
        NewTopic topic = new NewTopic(q.get("topic").asText(), q.get("partitions").asInt(), (short) 1).configs(configs);
        try (Admin admin = admin()) {
            admin.createTopics(List.of(topic)).all().get(30, TimeUnit.SECONDS);
        }
    }

    static byte[] unhex(JsonNode n) {
        return n == null || n.isNull() ? null : HEX.parseHex(n.asText());
    }

    static String tohex(byte[] b) {
        return b == null ? null : HEX.formatHex(b);
    }

    void produce(JsonNode q, ObjectNode reply) throws Exception {
        Properties p = base();
        p.put("acks", q.get("acks").asText());
        p.put("compression.type", q.get("compression").asText());
        p.put("enable.idempotence", q.get("idempotent").asText());
        p.put("linger.ms", "20");
        p.put("max.request.size", "2000000");
        boolean unacknowledged = q.get("acks").asText().equals("0");
        ArrayNode offsets = reply.putArray("offsets");
        try (KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode r : q.get("records")) {
                Integer partition = r.get("partition").isNull() ? null : r.get("partition").asInt();
                ProducerRecord<byte[], byte[]> record = new ProducerRecord<>(
                    q.get("topic").asText(), partition, r.get("timestamp").asLong(), unhex(r.get("key")), unhex(r.get("value")));
                for (JsonNode h : r.get("headers")) record.headers().add(h.get(0).asText(), unhex(h.get(1)));
                sent.add(producer.send(record));
            }
            producer.flush();
            for (Future<RecordMetadata> f : sent) {
                long offset = f.get(60, TimeUnit.SECONDS).offset();
                offsets.add(unacknowledged ? -1 : offset);
            }
        }
    }

    KafkaConsumer<byte[], byte[]> consumer(Properties p) {
        p.put("enable.auto.commit", "false");
        return new KafkaConsumer<>(p, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static ObjectNode record(ConsumerRecord<byte[], byte[]> r) {
        ObjectNode o = JSON.createObjectNode();
        o.put("topic", r.topic()).put("partition", r.partition()).put("offset", r.offset()).put("timestamp", r.timestamp());
        o.put("append_time", r.timestampType() == TimestampType.LOG_APPEND_TIME);
        o.put("key", tohex(r.key())).put("value", tohex(r.value()));
        ArrayNode headers = o.putArray("headers");
        for (Header h : r.headers()) headers.addArray().add(h.key()).add(tohex(h.value()));
        return o;
    }

    void consume(JsonNode q, ObjectNode reply) {
        Properties p = base();
        p.put("auto.offset.reset", "none");
        ArrayNode records = reply.putArray("records");
        ArrayNode starts = reply.putArray("starts");
        long count = q.get("count").asLong();
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(p)) {
            Map<TopicPartition, JsonNode> from = new LinkedHashMap<>();
            for (JsonNode s : q.get("from")) from.put(new TopicPartition(q.get("topic").asText(), s.get("partition").asInt()), s);
            consumer.assign(from.keySet());
            for (Map.Entry<TopicPartition, JsonNode> e : from.entrySet()) {
                long at = start(consumer, e.getKey(), e.getValue());
                consumer.seek(e.getKey(), at);
                starts.add(at);
            }
            long deadline = System.nanoTime() + q.get("timeout_ms").asLong() * 1_000_000;
            while (records.size() < count && System.nanoTime() < deadline) {
                for (ConsumerRecord<byte[], byte[]> r : consumer.poll(POLL)) if (records.size() < count) records.add(record(r));
            }
        }
    }

    static long start(KafkaConsumer<byte[], byte[]> consumer, TopicPartition tp, JsonNode s) {
        if (s.has("timestamp")) {
            OffsetAndTimestamp found = consumer.offsetsForTimes(Map.of(tp, s.get("timestamp").asLong())).get(tp);
            return found == null ? consumer.endOffsets(List.of(tp)).get(tp) : found.offset();
        }
        return s.has("offset") ? s.get("offset").asLong() : consumer.beginningOffsets(List.of(tp)).get(tp);
    }

    void committed(JsonNode q, ObjectNode reply) {
        Properties p = base();
        p.put("group.id", q.get("group").asText());
        ArrayNode offsets = reply.putArray("offsets");
        try (KafkaConsumer<byte[], byte[]> consumer = consumer(p)) {
            for (JsonNode n : q.get("partitions")) {
                TopicPartition tp = new TopicPartition(q.get("topic").asText(), n.asInt());
                OffsetAndMetadata found = consumer.committed(Set.of(tp)).get(tp);
                ObjectNode o = offsets.addObject().put("partition", n.asInt());
                if (found == null) o.putNull("offset").put("metadata", "");
                else o.put("offset", found.offset()).put("metadata", found.metadata());
            }
        }
    }

    /** A group member: one thread owns the consumer and polls it; requests reach it through a queue. */
    final class Member implements ConsumerRebalanceListener {
        final BlockingQueue<Runnable> commands = new LinkedBlockingQueue<>();
        final Map<TopicPartition, Long> positions = new HashMap<>();
        final Set<TopicPartition> assignment = new TreeSet<>(Comparator.comparing(TopicPartition::toString));
        KafkaConsumer<byte[], byte[]> consumer;
        ArrayNode records = JSON.createArrayNode();
        long version, assigned, revoked, lost;
        String failure;
        volatile boolean closed;

        Member(JsonNode q) {
            Thread thread = new Thread(() -> run(q));
            thread.setDaemon(true);
            thread.start();
        }

        void run(JsonNode q) {
            try {
                Properties p = base();
                p.put("group.id", q.get("group").asText());
                p.put("auto.offset.reset", "earliest");
                p.put("session.timeout.ms", "10000");
                p.put("heartbeat.interval.ms", "300");
                p.put("partition.assignment.strategy", Map.of(
                    "range", "org.apache.kafka.clients.consumer.RangeAssignor",
                    "roundrobin", "org.apache.kafka.clients.consumer.RoundRobinAssignor",
                    "cooperative-sticky", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor").get(q.get("assignor").asText()));
                if (q.hasNonNull("instance")) p.put("group.instance.id", q.get("instance").asText());
                List<String> topics = new ArrayList<>();
                q.get("topics").forEach(t -> topics.add(t.asText()));
                consumer = consumer(p);
                consumer.subscribe(topics, this);
                while (!closed) {
                    Runnable work = commands.poll();
                    if (work != null) work.run();
                    else keep(consumer.poll(POLL));
                }
            } catch (Throwable e) {
                synchronized (this) {
                    failure = e.toString();
                    bump();
                }
            }
        }

        synchronized void keep(ConsumerRecords<byte[], byte[]> read) {
            for (ConsumerRecord<byte[], byte[]> r : read) {
                records.add(record(r));
                positions.put(new TopicPartition(r.topic(), r.partition()), r.offset() + 1);
            }
            if (!read.isEmpty()) bump();
        }

        void bump() {
            version++;
            notifyAll();
        }

        void ask(Runnable work, boolean last) throws Exception {
            if (failure != null) throw new IllegalStateException(failure);
            CompletableFuture<Void> done = new CompletableFuture<>();
            commands.add(() -> {
                try {
                    work.run();
                    done.complete(null);
                } catch (Throwable e) {
                    done.completeExceptionally(e);
                }
                closed = last;
            });
            done.get(60, TimeUnit.SECONDS);
        }

        void commit(Map<TopicPartition, Long> positions, String metadata) {
            Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
            positions.forEach((tp, at) -> offsets.put(tp, new OffsetAndMetadata(at, metadata)));
            if (!offsets.isEmpty()) consumer.commitSync(offsets);
        }

        public synchronized void onPartitionsAssigned(Collection<TopicPartition> tps) {
            assignment.addAll(tps);
            assigned++;
            bump();
        }

        public void onPartitionsRevoked(Collection<TopicPartition> tps) {
            Map<TopicPartition, Long> mine = new HashMap<>(positions);
            mine.keySet().retainAll(tps);
            commit(mine, "");
            forget(tps);
            if (!tps.isEmpty()) revoked++;
        }

        public void onPartitionsLost(Collection<TopicPartition> tps) {
            forget(tps);
            lost++;
        }

        synchronized void forget(Collection<TopicPartition> tps) {
            tps.forEach(assignment::remove);
            tps.forEach(positions::remove);
            bump();
        }

        synchronized void state(JsonNode q, ObjectNode reply) throws InterruptedException {
            long deadline = System.nanoTime() + q.get("wait_ms").asLong() * 1_000_000;
            for (long left; version <= q.get("seen").asLong() && (left = (deadline - System.nanoTime()) / 1_000_000) > 0; ) wait(left);
            reply.put("version", version).put("assigned", assigned).put("revoked", revoked).put("lost", lost).put("failure", failure);
            ArrayNode tps = reply.putArray("assignment");
            assignment.forEach(tp -> tps.addArray().add(tp.topic()).add(tp.partition()));
            reply.set("records", records);
            records = JSON.createArrayNode();
        }
    }
}

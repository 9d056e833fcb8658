"""confluent-kafka and kafka-python (2 and 3) behind the protocol of ../PROTOCOL.md: driver.py confluent | kafka-python"""

import json
import queue
import sys
import threading
import time

SESSION_MS = 10_000
HEARTBEAT_MS = 300
POLL_S = 0.1
JOIN_POLL_S = 2.0


def unhex(text):
    return None if text is None else bytes.fromhex(text)


def tohex(data):
    return None if data is None else bytes(data).hex()


class Member:
    """A group member: one thread owns the consumer and polls it; requests reach it through a queue."""

    def __init__(self, client, request):
        self.client = client
        self.changed = threading.Condition()
        self.version = 0
        self.assignment = set()
        self.positions = {}
        self.records = []
        self.counts = {"assigned": 0, "revoked": 0, "lost": 0}
        self.failure = None
        self.commands = queue.Queue()
        self.thread = threading.Thread(target=self.run, args=(request,), daemon=True)
        self.thread.start()

    def run(self, request):
        try:
            self.consumer = self.client.join(self, request)
            while True:
                try:
                    work, done = self.commands.get_nowait()
                except queue.Empty:
                    # kafka-python 3 may never finish to join when a poll ends in the middle of it.
                    read = self.client.poll(self.consumer, seconds=POLL_S if self.assignment else JOIN_POLL_S)
                    if read:
                        with self.changed:
                            for record in read:
                                self.positions[(record["topic"], record["partition"])] = record["offset"] + 1
                            self.records += read
                            self.bump()
                    continue
                try:
                    done.put((work(), None))
                except Exception as e:  # answered, and the member lives on
                    done.put((None, e))
                if work == self.leave:
                    return
        except Exception as e:
            with self.changed:
                self.failure = f"{type(e).__name__}: {e}"
                self.bump()

    def bump(self):
        self.version += 1
        self.changed.notify_all()

    def ask(self, work):
        if self.failure:
            raise RuntimeError(self.failure)
        done = queue.Queue()
        self.commands.put((work, done))
        result, error = done.get(timeout=60)
        if error:
            raise error
        return result

    # Called on the member's own thread.
    def on_assign(self, partitions):
        with self.changed:
            self.assignment |= set(partitions)
            self.counts["assigned"] += 1
            self.bump()

    def on_revoke(self, partitions):
        mine = self.read_of(partitions)
        if mine:
            self.client.commit(self.consumer, mine, "")
        self.forget(partitions, "revoked")

    def read_of(self, partitions):
        return {tp: self.positions[tp] for tp in partitions if tp in self.positions}

    def on_lost(self, partitions):
        self.forget(partitions, "lost")

    def forget(self, partitions, count):
        with self.changed:
            for tp in partitions:
                self.assignment.discard(tp)
                self.positions.pop(tp, None)
            if partitions:
                self.counts[count] += 1
            self.bump()

    def commit(self, metadata):
        self.client.commit(self.consumer, dict(self.positions), metadata)

    def leave(self):
        if not self.client.revokes_on_close:
            self.commit("")
        self.client.close(self.consumer)

    def state(self, seen, wait_ms):
        with self.changed:
            self.changed.wait_for(lambda: self.version > seen, wait_ms / 1000)
            records, self.records = self.records, []
            return {
                "version": self.version,
                "assignment": sorted(self.assignment),
                "records": records,
                "failure": self.failure,
                **self.counts,
            }


class Confluent:
    revokes_on_close = True

    def __init__(self):
        import confluent_kafka as ck
        import confluent_kafka.admin as admin

        self.ck, self.admin_module = ck, admin
        self.name = f"confluent-kafka {ck.__version__} librdkafka {ck.libversion()[0]}"

    def base(self):
        return {"bootstrap.servers": self.bootstrap, "log_level": 3}

    def admin(self):
        return self.admin_module.AdminClient(self.base())

    def create_topic(self, topic, partitions, configs):
        new = self.admin_module.NewTopic(topic, num_partitions=partitions, replication_factor=1, config=configs)
        admin = self.admin()  # must live until the answer is there
        admin.create_topics([new])[topic].result(30)

    def delete_topic(self, topic):
        admin = self.admin()
        admin.delete_topics([topic])[topic].result(30)

    def produce(self, topic, acks, compression, idempotent, records):
        producer = self.ck.Producer(
            {**self.base(), "acks": acks, "compression.type": compression, "enable.idempotence": idempotent,
             "linger.ms": 20, "message.max.bytes": 2_000_000}
        )
        offsets, failures = [-1] * len(records), []
        for i, r in enumerate(records):
            def delivered(error, message, i=i):
                if error:
                    failures.append(str(error))
                elif acks != "0":
                    offsets[i] = message.offset()
            more = {} if r["partition"] is None else {"partition": r["partition"]}
            producer.produce(topic, key=unhex(r["key"]), value=unhex(r["value"]), timestamp=r["timestamp"],
                             headers=[(k, unhex(v)) for k, v in r["headers"]], on_delivery=delivered, **more)
        if producer.flush(60) or failures:
            raise RuntimeError(f"not delivered: {failures[:3]}")
        return offsets

    def record(self, m):
        kind, timestamp = m.timestamp()
        return {
            "topic": m.topic(), "partition": m.partition(), "offset": m.offset(), "timestamp": timestamp,
            "append_time": kind == self.ck.TIMESTAMP_LOG_APPEND_TIME, "key": tohex(m.key()), "value": tohex(m.value()),
            "headers": [[k, tohex(v)] for k, v in m.headers() or []],
        }

    def consume(self, topic, start, count, timeout_ms):
        consumer = self.ck.Consumer({**self.base(), "group.id": "unused", "enable.auto.commit": False,
                                     "auto.offset.reset": "error"})
        TP = self.ck.TopicPartition
        try:
            begin = []
            for s in start:
                if "timestamp" in s:
                    at = consumer.offsets_for_times([TP(topic, s["partition"], s["timestamp"])], timeout=30)[0].offset
                    if at == self.ck.OFFSET_END:
                        at = consumer.get_watermark_offsets(TP(topic, s["partition"]), timeout=30)[1]
                elif "offset" in s:
                    at = s["offset"]
                else:
                    at = consumer.get_watermark_offsets(TP(topic, s["partition"]), timeout=30)[0]
                begin.append(TP(topic, s["partition"], at))
            consumer.assign(begin)
            read, deadline = [], time.monotonic() + timeout_ms / 1000
            while len(read) < count and time.monotonic() < deadline:
                read += self.poll(consumer, count - len(read))
            return {"records": read, "starts": [tp.offset for tp in begin]}
        finally:
            consumer.close()

    def join(self, member, request):
        config = {**self.base(), "group.id": request["group"], "enable.auto.commit": False,
                  "auto.offset.reset": "earliest", "session.timeout.ms": SESSION_MS,
                  "heartbeat.interval.ms": HEARTBEAT_MS, "partition.assignment.strategy": request["assignor"]}
        if request.get("instance"):
            config["group.instance.id"] = request["instance"]
        consumer = self.ck.Consumer(config)
        member.consumer = consumer
        pairs = lambda tps: [(tp.topic, tp.partition) for tp in tps]
        consumer.subscribe(request["topics"], on_assign=lambda c, tps: member.on_assign(pairs(tps)),
                           on_revoke=lambda c, tps: member.on_revoke(pairs(tps)),
                           on_lost=lambda c, tps: member.on_lost(pairs(tps)))
        return consumer

    def poll(self, consumer, most=500, seconds=POLL_S):
        read = []
        for m in consumer.consume(most, POLL_S):
            if not m.error():
                read.append(self.record(m))
            elif m.error().fatal() or m.error().code() == self.ck.KafkaError._AUTO_OFFSET_RESET:
                raise RuntimeError(str(m.error()))
        return read

    def commit(self, consumer, positions, metadata):
        more = {"metadata": metadata} if metadata else {}
        tps = [self.ck.TopicPartition(t, p, offset, **more) for (t, p), offset in positions.items()]
        for tp in consumer.commit(offsets=tps, asynchronous=False) if tps else []:
            if tp.error:
                raise RuntimeError(str(tp.error))

    def committed(self, group, topic, partitions):
        consumer = self.ck.Consumer({**self.base(), "group.id": group, "enable.auto.commit": False})
        try:
            tps = consumer.committed([self.ck.TopicPartition(topic, p) for p in partitions], timeout=30)
            return [{"partition": tp.partition, "offset": tp.offset if tp.offset >= 0 else None,
                     "metadata": tp.metadata or ""} for tp in tps]
        finally:
            consumer.close()

    def close(self, consumer):
        consumer.close()


class KafkaPython:
    def __init__(self):
        if sys.version_info >= (3, 12):
            stand_in_for_six()
        import kafka
        import kafka.admin
        import kafka.structs

        self.kafka = kafka
        self.v2 = kafka.__version__.startswith("2.")
        self.revokes_on_close = not self.v2
        self.name = f"kafka-python {kafka.__version__}"

    def base(self):
        return {"bootstrap_servers": self.bootstrap.split(",")}

    def create_topic(self, topic, partitions, configs):
        admin = self.kafka.KafkaAdminClient(**self.base())
        try:
            admin.create_topics([self.kafka.admin.NewTopic(topic, partitions, 1, topic_configs=configs)])
        finally:
            admin.close()

    def delete_topic(self, topic):
        admin = self.kafka.KafkaAdminClient(**self.base())
        try:
            admin.delete_topics([topic])
        finally:
            admin.close()

    def produce(self, topic, acks, compression, idempotent, records):
        more = {} if self.v2 else {"enable_idempotence": idempotent}
        if self.v2 and idempotent:
            raise RuntimeError("kafka-python 2 has no idempotent producer")
        producer = self.kafka.KafkaProducer(
            acks="all" if acks == "all" else int(acks), linger_ms=20, max_request_size=2_000_000,
            compression_type=None if compression == "none" else compression, **self.base(), **more)
        try:
            sent = [
                producer.send(topic, key=unhex(r["key"]), value=unhex(r["value"]), partition=r["partition"],
                              timestamp_ms=r["timestamp"], headers=[(k, unhex(v)) for k, v in r["headers"]])
                for r in records
            ]
            producer.flush(60)
            offsets = [s.get(60).offset for s in sent]
            return [-1] * len(offsets) if acks == "0" else offsets
        finally:
            producer.close()

    def consumer(self, **more):
        return self.kafka.KafkaConsumer(enable_auto_commit=False, **self.base(), **more)

    def record(self, tp, r):
        return {
            "topic": tp.topic, "partition": tp.partition, "offset": r.offset, "timestamp": r.timestamp,
            "append_time": r.timestamp_type == 1, "key": tohex(r.key), "value": tohex(r.value),
            "headers": [[k, tohex(v)] for k, v in r.headers],
        }

    def consume(self, topic, start, count, timeout_ms):
        consumer = self.consumer(auto_offset_reset="none", group_id=None)
        try:
            at = {self.kafka.TopicPartition(topic, s["partition"]): s for s in start}
            consumer.assign(list(at))
            begin = consumer.beginning_offsets(list(at))
            for tp, s in at.items():
                if "timestamp" in s:
                    found = consumer.offsets_for_times({tp: s["timestamp"]})[tp]
                    begin[tp] = found.offset if found else consumer.end_offsets([tp])[tp]
                elif "offset" in s:
                    begin[tp] = s["offset"]
                consumer.seek(tp, begin[tp])
            read, deadline = [], time.monotonic() + timeout_ms / 1000
            while len(read) < count and time.monotonic() < deadline:
                read += self.poll(consumer, count - len(read))
            return {"records": read, "starts": [begin[tp] for tp in at]}
        finally:
            consumer.close()

    def join(self, member, request):
        from kafka.coordinator.assignors import range as range_assignor, roundrobin

        chosen = {"range": range_assignor.RangePartitionAssignor, "roundrobin": roundrobin.RoundRobinPartitionAssignor}
        more = {"group_instance_id": request["instance"]} if request.get("instance") else {}
        consumer = self.consumer(
            group_id=request["group"], auto_offset_reset="earliest", session_timeout_ms=SESSION_MS,
            heartbeat_interval_ms=HEARTBEAT_MS, partition_assignment_strategy=[chosen[request["assignor"]]], **more)
        member.consumer = consumer

        consumer.subscribe(request["topics"], listener=self.listener(member, consumer))
        return consumer

    def listener(self, member, consumer):
        pairs = lambda tps: [tuple(tp) for tp in tps]
        if self.v2:
            class Listener(self.kafka.ConsumerRebalanceListener):
                def on_partitions_assigned(self, assigned):
                    member.on_assign(pairs(assigned))

                def on_partitions_revoked(self, revoked):
                    member.on_revoke(pairs(revoked))

            return Listener()

        # Version 3 calls listeners on its I/O thread, where its blocking commit is forbidden; its coroutine is not.
        from kafka.consumer.subscription_state import AsyncConsumerRebalanceListener

        class AsyncListener(AsyncConsumerRebalanceListener):
            async def on_partitions_assigned(self, assigned):
                member.on_assign(pairs(assigned))

            async def on_partitions_revoked(_, revoked):
                offsets = self.offsets(member.read_of(pairs(revoked)), "")
                if offsets:
                    await consumer._coordinator._commit_offsets_sync_async(offsets)
                member.forget(pairs(revoked), "revoked")

            async def on_partitions_lost(self, lost):
                member.on_lost(pairs(lost))

        return AsyncListener()

    def poll(self, consumer, most=500, seconds=POLL_S):
        found = consumer.poll(timeout_ms=int(seconds * 1000), max_records=most)
        return [self.record(tp, r) for tp, batch in found.items() for r in batch]

    def offsets(self, positions, metadata):
        OM = self.kafka.structs.OffsetAndMetadata
        more = () if self.v2 else (-1,)
        return {self.kafka.TopicPartition(t, p): OM(o, metadata, *more) for (t, p), o in positions.items()}

    def commit(self, consumer, positions, metadata):
        offsets = self.offsets(positions, metadata)
        if offsets:
            consumer.commit(offsets)

    def committed(self, group, topic, partitions):
        consumer = self.consumer(group_id=group)
        try:
            found = []
            for p in partitions:
                c = consumer.committed(self.kafka.TopicPartition(topic, p), metadata=True)
                found.append({"partition": p, "offset": c.offset if c else None, "metadata": c.metadata if c else ""})
            return found
        finally:
            consumer.close()

    def close(self, consumer):
        consumer.close(autocommit=False)


def stand_in_for_six():
    """kafka-python 2.0.2 carries a copy of six whose import hook fails on Python 3.12: put the real one in its place."""
    try:
        import six
        import six.moves
    except ImportError:
        return  # kafka-python 3 needs none
    sys.modules["kafka.vendor.six"] = six
    sys.modules["kafka.vendor.six.moves"] = six.moves


def answer(client, members, request):
    op = request.pop("op")
    if op == "connect":
        client.bootstrap = request["bootstrap"]
    elif op == "create_topic":
        client.create_topic(**request)
    elif op == "delete_topic":
        client.delete_topic(**request)
    elif op == "produce":
        return {"offsets": client.produce(**request)}
    elif op == "consume":
        request["start"] = request.pop("from")
        return client.consume(**request)
    elif op == "open":
        members[request["member"]] = Member(client, request)
    elif op == "state":
        return members[request["member"]].state(request["seen"], request["wait_ms"])
    elif op == "commit":
        member = members[request["member"]]
        member.ask(lambda: member.commit(request["metadata"]))
    elif op == "committed":
        return {"offsets": client.committed(**request)}
    elif op == "close":
        member = members.pop(request["member"])
        member.ask(member.leave)
    else:
        raise ValueError(f"unknown op {op}")
    return {}


def main():
    client = Confluent() if sys.argv[1] == "confluent" else KafkaPython()
    members = {}
    out = sys.stdout
    sys.stdout = sys.stderr  # whatever a library prints must not mix with the answers
    print(json.dumps({"ready": client.name}), file=out, flush=True)
    for line in sys.stdin:
        try:
            reply = answer(client, members, json.loads(line))
        except Exception as e:
            reply = {"error": f"{type(e).__name__}: {e}"}
        print(json.dumps(reply), file=out, flush=True)


main()

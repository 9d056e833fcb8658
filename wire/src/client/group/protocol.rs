//! The bytes members of a "consumer" group exchange through the broker
//! (`ConsumerProtocolSubscription`, `ConsumerProtocolAssignment`, version 0), and the range assignor.
//! Pure. What is read here was written by other members: no length is believed.

use std::collections::{BTreeMap, HashMap};

use super::TopicPartition;

/// What a member says it wants to read.
pub(super) fn subscription(topics: &[String]) -> Vec<u8> {
    let mut out = vec![0, 0];
    put_len(&mut out, topics.len());
    for topic in topics {
        put_string(&mut out, topic);
    }
    out.extend((-1i32).to_be_bytes());
    out
}

/// What the leader gives a member.
pub(super) fn assignment(topics: &BTreeMap<String, Vec<i32>>) -> Vec<u8> {
    let mut out = vec![0, 0];
    put_len(&mut out, topics.len());
    for (topic, partitions) in topics {
        put_string(&mut out, topic);
        put_len(&mut out, partitions.len());
        out.extend(partitions.iter().flat_map(|p| p.to_be_bytes()));
    }
    out.extend((-1i32).to_be_bytes());
    out
}

/// Topics of a subscription, of any version: later ones only add fields behind.
pub(super) fn read_subscription(bytes: &[u8]) -> Option<Vec<String>> {
    let mut r = Reader(bytes);
    r.take(2)?;
    let count = r.count(2)?;
    (0..count).map(|_| r.string()).collect()
}

/// Partitions of an assignment; none if it is empty.
pub(super) fn read_assignment(bytes: &[u8]) -> Option<Vec<TopicPartition>> {
    let mut out = Vec::new();
    if bytes.is_empty() {
        return Some(out);
    }
    let mut r = Reader(bytes);
    r.take(2)?;
    for _ in 0..r.count(6)? {
        let topic: std::sync::Arc<str> = r.string()?.into();
        for _ in 0..r.count(4)? {
            out.push(TopicPartition {
                topic: topic.clone(),
                partition: r.int()?,
            });
        }
    }
    Some(out)
}

/// One member as the leader sees it.
pub(super) struct Subscriber {
    pub(super) member_id: String,
    pub(super) instance_id: Option<String>,
    pub(super) topics: Vec<String>,
}

/// Kafka's range assignor: each topic's partitions in ranges over its subscribers, static members
/// first, in order of their names (`RangeAssignor`, `AbstractPartitionAssignor.MemberInfo`).
pub(super) fn assign_range(
    mut members: Vec<Subscriber>,
    counts: &HashMap<String, usize>,
) -> HashMap<String, BTreeMap<String, Vec<i32>>> {
    members.sort_by_cached_key(|m| {
        (
            m.instance_id.is_none(),
            m.instance_id.clone(),
            m.member_id.clone(),
        )
    });
    let mut out: HashMap<String, BTreeMap<String, Vec<i32>>> = members
        .iter()
        .map(|m| (m.member_id.clone(), BTreeMap::new()))
        .collect();
    for (topic, count) in counts {
        let takers: Vec<&Subscriber> = members
            .iter()
            .filter(|m| m.topics.contains(topic))
            .collect();
        let (each, extra) = match takers.len() {
            0 => continue,
            n => (count / n, count % n),
        };
        let mut first = 0;
        for (i, taker) in takers.iter().enumerate() {
            let last = first + each + usize::from(i < extra);
            if last > first
                && let Some(topics) = out.get_mut(&taker.member_id)
            {
                topics.insert(topic.clone(), (first as i32..last as i32).collect());
            }
            first = last;
        }
    }
    out
}

fn put_len(out: &mut Vec<u8>, len: usize) {
    out.extend((len as i32).to_be_bytes());
}

fn put_string(out: &mut Vec<u8>, s: &str) {
    out.extend((s.len() as i16).to_be_bytes());
    out.extend(s.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(head)
    }

    fn int(&mut self) -> Option<i32> {
        self.take(4)?.first_chunk().map(|b| i32::from_be_bytes(*b))
    }

    /// A number of things that take `each` bytes at least.
    fn count(&mut self, each: usize) -> Option<usize> {
        let n = usize::try_from(self.int()?).ok()?;
        (n <= self.0.len() / each).then_some(n)
    }

    fn string(&mut self) -> Option<String> {
        let len = i16::from_be_bytes(*self.take(2)?.first_chunk()?);
        let bytes = self.take(usize::try_from(len).ok()?)?;
        String::from_utf8(bytes.to_vec()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use kafka_protocol::protocol::Decodable;

    fn member(id: &str, instance: Option<&str>, topics: &[&str]) -> Subscriber {
        let topics = topics.iter().map(|t| (*t).to_owned()).collect();
        Subscriber {
            member_id: id.to_owned(),
            instance_id: instance.map(str::to_owned),
            topics,
        }
    }

    #[test]
    fn another_implementation_reads_our_bytes() {
        let ours = subscription(&["b".to_owned(), "a".to_owned()]);
        assert_eq!(read_subscription(&ours).unwrap(), ["b", "a"]);
        let theirs =
            ConsumerProtocolSubscription::decode(&mut bytes::Bytes::from(ours).split_off(2), 0)
                .unwrap();
        assert_eq!(theirs.topics.len(), 2);
        let ours = assignment(&BTreeMap::from([("t".to_owned(), vec![0, 7])]));
        assert_eq!(
            read_assignment(&ours).unwrap()[1],
            TopicPartition::new("t", 7)
        );
        let theirs =
            ConsumerProtocolAssignment::decode(&mut bytes::Bytes::from(ours).split_off(2), 0)
                .unwrap();
        assert_eq!(theirs.assigned_partitions[0].partitions, [0, 7]);
    }

    #[test]
    fn lying_lengths_are_refused() {
        let whole = assignment(&BTreeMap::from([("topic".to_owned(), vec![1, 2, 3])]));
        // The user data behind the partitions are not read.
        assert!((1..whole.len() - 4).all(|n| read_assignment(&whole[..n]).is_none()));
        assert!(read_assignment(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).is_none());
        assert!(read_subscription(&[0, 1, 0x7f, 0xff, 0xff, 0xff, 0, 0]).is_none());
        assert!(read_subscription(&[0, 1, 0, 0, 0, 1, 0xff, 0xff]).is_none());
        assert_eq!(read_assignment(&[]).unwrap(), []);
    }

    #[test]
    fn ranges_are_kafkas() {
        let counts = HashMap::from([("t".to_owned(), 7), ("u".to_owned(), 2)]);
        let members = vec![
            member("m-a", None, &["t", "u"]),
            member("m-b", None, &["t", "u", "missing"]),
            member("m-c", Some("static"), &["t"]),
        ];
        let got = assign_range(members, &counts);
        assert_eq!(got["m-c"]["t"], [0, 1, 2]);
        assert_eq!(got["m-a"]["t"], [3, 4]);
        assert_eq!(got["m-b"]["t"], [5, 6]);
        assert_eq!(got["m-a"]["u"], [0]);
        assert_eq!(got["m-b"]["u"], [1]);
        assert!(!got["m-c"].contains_key("u"));
    }
}

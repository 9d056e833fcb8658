//! What the broker itself says: where the topic ends and how far the group has committed.

use std::collections::BTreeMap;

use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::{GroupId, OffsetFetchRequest, TopicName};
use kafka_protocol::protocol::StrBytes;
use wire::client::{Client, ClientConfig, ClientError};

use super::{GROUP, TOPIC};

/// Offsets by partition.
pub type Offsets = BTreeMap<i32, i64>;

/// OffsetFetch asks for many groups from version 8 on; one is enough here.
const OFFSET_FETCH_VERSION: i16 = 7;
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// A client that only looks.
pub struct Probe {
    client: Client,
    partitions: Vec<i32>,
}

impl Probe {
    /// Connects, and has the topic created if it is not there. `None` when the broker there is not
    /// that of the cluster `ours`: a stranger's is left alone.
    pub async fn connect(address: &str, ours: &str) -> Result<Option<Probe>, ClientError> {
        let config = ClientConfig {
            client_id: "demo".into(),
            ..ClientConfig::new(address)
        };
        let client = Client::connect(config).await?;
        let looked = client.metadata(Some(&[]), false).await?;
        if looked.cluster_id.as_deref() != Some(ours) {
            return Ok(None);
        }
        let cluster = client.metadata(Some(&[TOPIC.to_string()]), true).await?;
        let mut partitions = Vec::new();
        if let Some(topic) = cluster.topics.get(TOPIC) {
            ClientError::check(topic.error, || format!("looking for topic {TOPIC}"))?;
            partitions = topic.partitions.iter().map(|p| p.index).collect();
        }
        Ok(Some(Probe { client, partitions }))
    }

    /// The offsets behind the last records.
    pub async fn ends(&self) -> Result<Offsets, ClientError> {
        self.list(LATEST).await
    }

    /// Where the group goes on: what it committed, or the beginning.
    pub async fn committed(&self) -> Result<Offsets, ClientError> {
        let mut offsets = self.list(EARLIEST).await?;
        let node = self.client.coordinator(GROUP).await?;
        let answer = self
            .client
            .request_with(Some(node), OFFSET_FETCH_VERSION, |_| {
                let topic = OffsetFetchRequestTopic::default()
                    .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
                    .with_partition_indexes(self.partitions.clone());
                OffsetFetchRequest::default()
                    .with_group_id(GroupId(StrBytes::from_static_str(GROUP)))
                    .with_topics(Some(vec![topic]))
            })
            .await?;
        ClientError::check(answer.error_code, || "asking for committed offsets".into())?;
        for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
            ClientError::check(partition.error_code, || {
                format!(
                    "asking for the offset of {TOPIC}-{}",
                    partition.partition_index
                )
            })?;
            let known = offsets.entry(partition.partition_index).or_default();
            *known = partition.committed_offset.max(*known);
        }
        Ok(offsets)
    }

    async fn list(&self, timestamp: i64) -> Result<Offsets, ClientError> {
        let mut offsets = Offsets::new();
        for partition in &self.partitions {
            let offset = self.client.list_offset(TOPIC, *partition, timestamp);
            offsets.insert(*partition, offset.await?.max(0));
        }
        Ok(offsets)
    }
}

/// The id of the cluster whose data is in `data_dir`, once its broker has written it.
pub fn cluster_of(data_dir: &std::path::Path) -> Option<String> {
    let text = std::fs::read_to_string(data_dir.join("meta.properties")).ok()?;
    let id = text.lines().find_map(|l| l.strip_prefix("cluster.id="))?;
    Some(id.trim().to_owned())
}

/// All partitions' offsets together.
pub fn sum(offsets: &Offsets) -> i64 {
    offsets.values().sum()
}

/// How many records lie between two positions.
pub fn distance(from: &Offsets, to: &Offsets) -> i64 {
    to.iter()
        .map(|(partition, end)| (end - from.get(partition).copied().unwrap_or(0)).max(0))
        .sum()
}

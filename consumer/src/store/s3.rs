//! Objects in a bucket of S3 or of anything that speaks like it. A put is whole or not at all by
//! S3's own promise, and creates only (`If-None-Match: *`); the offsets an object holds are its
//! user metadata. Retries are the caller's, so that they can be said out loud.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region};
use aws_sdk_s3::Client;
use aws_sdk_s3::config::RequestChecksumCalculation;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_s3::operation::head_object::HeadObjectOutput;
use aws_sdk_s3::primitives::ByteStream;
use aws_smithy_http_client::tls::{Provider, rustls_provider::CryptoMode};
use bytes::Bytes;
use futures_util::StreamExt;

use super::{Found, ObjectName, Place, Put, StoreError, Tag};

const NEXT: &str = "next-offset";
const RECORDS: &str = "records";
const WRITER: &str = "writer";
const TOPIC_ID: &str = "topic-id";
/// Objects looked at side by side when a partition is taken over.
const HEADS_AT_ONCE: usize = 16;

/// Where and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Options {
    pub bucket: String,
    /// Without slashes at its ends; may be empty.
    pub prefix: String,
    /// For stores other than Amazon's; then the bucket is part of the path, not of the host.
    pub endpoint_url: Option<String>,
    pub region: Option<String>,
}

/// A bucket as store.
pub struct S3Store {
    client: Client,
    options: S3Options,
    /// The store does not know `If-None-Match`.
    unconditional: AtomicBool,
    /// Something was answered already, so the credentials are, or were, good.
    proven: AtomicBool,
}

impl S3Store {
    /// With credentials from the AWS default chain.
    pub async fn new(options: S3Options) -> Self {
        let http = aws_smithy_http_client::Builder::new()
            .tls_provider(Provider::Rustls(CryptoMode::Ring))
            .build_https();
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(10))
            .operation_attempt_timeout(Duration::from_secs(120))
            .build();
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(http)
            .retry_config(RetryConfig::disabled())
            .timeout_config(timeouts);
        if let Some(region) = &options.region {
            loader = loader.region(Region::new(region.clone()));
        }
        let shared = loader.load().await;
        let mut config = aws_sdk_s3::config::Builder::from(&shared);
        if shared.region().is_none() {
            config = config.region(Region::from_static("us-east-1"));
        }
        if let Some(url) = &options.endpoint_url {
            // Other stores often know no checksums in trailers.
            config = config
                .endpoint_url(url)
                .force_path_style(true)
                .request_checksum_calculation(RequestChecksumCalculation::WhenRequired);
        }
        S3Store {
            client: Client::from_conf(config.build()),
            options,
            unconditional: AtomicBool::new(false),
            proven: AtomicBool::new(false),
        }
    }

    pub fn location(&self) -> String {
        format!("s3://{}/{}", self.options.bucket, self.options.prefix)
    }

    pub fn how_to_look(&self) -> String {
        let endpoint = self
            .options
            .endpoint_url
            .as_ref()
            .map(|url| format!(" --endpoint-url {url}"));
        format!(
            "aws s3 ls --recursive {}{}",
            self.location(),
            endpoint.unwrap_or_default()
        )
    }

    pub async fn check(&self) -> Result<(), StoreError> {
        let answer = self
            .client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(self.key(""))
            .max_keys(1)
            .send()
            .await;
        answer.map_err(|e| self.explain(e, "list"))?;
        self.proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    pub async fn put(
        &self,
        name: &ObjectName,
        tag: &Tag,
        content_type: &str,
        body: Bytes,
    ) -> Result<Put, StoreError> {
        let conditional = !self.unconditional.load(Ordering::Relaxed);
        if !conditional && let Some(tag) = self.head(&self.key(&name.path())).await? {
            return Ok(Put::Taken(tag));
        }
        let sent = self
            .client
            .put_object()
            .bucket(&self.options.bucket)
            .key(self.key(&name.path()))
            .content_type(content_type)
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .metadata(NEXT, tag.next.to_string())
            .metadata(RECORDS, tag.records.to_string())
            .metadata(WRITER, &tag.writer)
            .metadata(TOPIC_ID, &tag.topic_id)
            .body(ByteStream::from(body))
            .send()
            .await;
        let error = match sent {
            Ok(_) => return Ok(Put::Created),
            Err(error) => error,
        };
        match (error.code(), status(&error)) {
            (Some("PreconditionFailed"), _) | (_, Some(412)) => {
                match self.head(&self.key(&name.path())).await? {
                    Some(tag) => Ok(Put::Taken(tag)),
                    None => Err(StoreError::Transient(
                        "an object of this name went away meanwhile".into(),
                    )),
                }
            }
            (Some("NotImplemented"), _) | (_, Some(501)) if conditional => {
                self.unconditional.store(true, Ordering::Relaxed);
                Err(StoreError::Transient(
                    "the store knows no conditional puts (If-None-Match), so names are looked up first; \
                     two consumers that both believe to own a partition are then not kept apart"
                        .into(),
                ))
            }
            _ => Err(self.explain(error, "write")),
        }
    }

    pub async fn list(&self, place: &Place, from: i64) -> Result<Vec<Found>, StoreError> {
        let folder = self.key(&format!("{}/", place.folder()));
        let mut pages = self
            .client
            .list_objects_v2()
            .bucket(&self.options.bucket)
            .prefix(format!("{folder}{}", place.file_prefix()))
            .start_after(format!("{folder}{}", place.file_stem(from)))
            .into_paginator()
            .send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|e| self.explain(e, "list"))?;
            let keys = page.contents().iter().filter_map(|o| o.key());
            names.extend(keys.filter_map(|key| {
                let first = place.parse(key.strip_prefix(&folder)?)?;
                (first >= from).then(|| (first, key.to_owned()))
            }));
        }
        let looks = names.into_iter().map(|(first, key)| async move {
            let tag = self.head(&key).await?;
            Ok(tag.map(|tag| Found { first, tag }))
        });
        let found: Vec<Result<_, StoreError>> = futures_util::stream::iter(looks)
            .buffered(HEADS_AT_ONCE)
            .collect()
            .await;
        found.into_iter().filter_map(Result::transpose).collect()
    }

    /// What is kept with an object, or None if there is none.
    async fn head(&self, key: &str) -> Result<Option<Tag>, StoreError> {
        let answer = self
            .client
            .head_object()
            .bucket(&self.options.bucket)
            .key(key)
            .send()
            .await;
        match answer {
            Ok(object) => match tag_of(&object) {
                Some(tag) => Ok(Some(tag)),
                None => Err(StoreError::Fatal(format!(
                    "s3://{}/{key} is there, but its metadata does not say which offsets it holds; if it was \
                     put there by hand, move it away, or write to another prefix (--to)",
                    self.options.bucket
                ))),
            },
            Err(e) if status(&e) == Some(404) => Ok(None),
            Err(e) => Err(self.explain(e, "read")),
        }
    }

    fn key(&self, path: &str) -> String {
        match self.options.prefix.as_str() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        }
    }

    fn explain<E>(&self, error: SdkError<E>, action: &str) -> StoreError
    where
        E: std::error::Error + ProvideErrorMetadata + 'static,
        SdkError<E>: ProvideErrorMetadata,
    {
        let status = status(&error);
        let code = error.code().map(str::to_owned);
        let message = error.message().map(str::to_owned);
        let region = error
            .raw_response()
            .and_then(|r| r.headers().get("x-amz-bucket-region"))
            .map(str::to_owned);
        let said = match (&code, &message, status) {
            (Some(code), Some(message), _) => format!("{code}: {message}"),
            (Some(code), None, _) => code.clone(),
            (None, _, Some(status)) => format!("HTTP status {status}"),
            _ => with_causes(&error),
        };
        let failure = Failure {
            code: code.as_deref(),
            status,
            said: &said,
            region: region.as_deref(),
        };
        self.classify(&failure, action)
    }

    fn classify(&self, failure: &Failure<'_>, action: &str) -> StoreError {
        let bucket = &self.options.bucket;
        let Failure {
            code,
            status,
            said,
            region,
        } = *failure;
        let fatal = |advice: String| {
            StoreError::Fatal(format!("cannot {action} s3://{bucket}: {said}; {advice}"))
        };
        match (code.unwrap_or_default(), status.unwrap_or_default()) {
            (
                "SlowDown"
                | "Throttling"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "TooManyRequests",
                _,
            )
            | (_, 429 | 503) => StoreError::Throttled(said.to_owned()),
            ("NoSuchBucket" | "InvalidBucketName", _) => fatal(format!(
                "create the bucket (aws s3 mb s3://{bucket}) or correct --to"
            )),
            (
                "PermanentRedirect"
                | "AuthorizationHeaderMalformed"
                | "IllegalLocationConstraintException",
                _,
            )
            | (_, 301 | 307) => fatal(format!(
                "use the bucket's region: --region {}",
                region.unwrap_or("…")
            )),
            ("InvalidAccessKeyId" | "SignatureDoesNotMatch", _) => fatal(
                "check the credentials (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, or AWS_PROFILE)"
                    .into(),
            ),
            // Credentials that expire are renewed by the chain, or by somebody meanwhile.
            (
                "ExpiredToken"
                | "ExpiredTokenException"
                | "RequestTimeTooSkewed"
                | "RequestTimeout",
                _,
            ) => StoreError::Transient(said.to_owned()),
            ("AccessDenied" | "AllAccessDisabled" | "AccountProblem", _) | ("", 403) => fatal(
                "the credentials need s3:PutObject, s3:GetObject and s3:ListBucket on it".into(),
            ),
            (
                "InvalidRequest"
                | "InvalidArgument"
                | "EntityTooLarge"
                | "MethodNotAllowed"
                | "KMS.DisabledException",
                _,
            ) => fatal("this request can not succeed by being repeated".into()),
            // What the SDK says lists every place it looked at: too long for the last line.
            _ if said.contains("credentials") && !self.proven.load(Ordering::Relaxed) => {
                let why = match said.contains("no credentials") || said.contains("not enabled") {
                    true => "no AWS credentials were found".to_owned(),
                    false => format!("there are no AWS credentials to use: {said}"),
                };
                StoreError::Fatal(format!(
                    "cannot {action} s3://{bucket}: {why}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or \
                     AWS_PROFILE, or run where an instance role is given"
                ))
            }
            _ => StoreError::Transient(said.to_owned()),
        }
    }
}

struct Failure<'a> {
    code: Option<&'a str>,
    status: Option<u16>,
    said: &'a str,
    region: Option<&'a str>,
}

/// What happened, and why, without the insides of the SDK.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let words = error.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = error.source();
    }
    text
}

fn status<E>(error: &SdkError<E>) -> Option<u16> {
    error.raw_response().map(|r| r.status().as_u16())
}

fn tag_of(object: &HeadObjectOutput) -> Option<Tag> {
    let metadata = object.metadata()?;
    Some(Tag {
        next: metadata.get(NEXT)?.parse().ok()?,
        records: metadata.get(RECORDS)?.parse().ok()?,
        writer: metadata.get(WRITER)?.clone(),
        topic_id: metadata.get(TOPIC_ID)?.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn store(prefix: &str) -> S3Store {
        S3Store::new(S3Options {
            bucket: "b".into(),
            prefix: prefix.into(),
            endpoint_url: Some("http://127.0.0.1:9".into()),
            region: Some("eu-central-1".into()),
        })
        .await
    }

    #[tokio::test]
    async fn keys_and_words_for_people() {
        let s = store("lake/x").await;
        assert_eq!(s.key("t/f"), "lake/x/t/f");
        assert_eq!(store("").await.key("t/f"), "t/f");
        assert_eq!(
            s.how_to_look(),
            "aws s3 ls --recursive s3://b/lake/x --endpoint-url http://127.0.0.1:9"
        );
    }

    #[tokio::test]
    async fn missing_credentials_are_fatal_only_at_the_start() {
        let s = store("").await;
        let failure = Failure {
            code: None,
            status: None,
            said: "an error occurred while loading credentials",
            region: None,
        };
        let error = s.classify(&failure, "list");
        assert!(
            matches!(&error, StoreError::Fatal(text) if text.contains("AWS_PROFILE")),
            "{error}"
        );
        s.proven.store(true, Ordering::Relaxed);
        assert!(matches!(
            s.classify(&failure, "list"),
            StoreError::Transient(_)
        ));
    }

    #[tokio::test]
    async fn errors_that_time_cures_are_told_from_those_that_need_somebody() {
        let s = store("").await;
        let kind = |code: &'static str, status: u16| {
            let code = Some(code).filter(|c| !c.is_empty());
            let status = Some(status).filter(|s| *s > 0);
            s.classify(
                &Failure {
                    code,
                    status,
                    said: "it",
                    region: Some("eu-west-1"),
                },
                "write",
            )
        };
        assert!(matches!(kind("SlowDown", 503), StoreError::Throttled(_)));
        assert!(matches!(kind("", 503), StoreError::Throttled(_)));
        for (code, status) in [
            ("ExpiredToken", 400),
            ("InternalError", 500),
            ("", 0),
            ("", 502),
            ("ConditionalRequestConflict", 409),
        ] {
            assert!(
                matches!(kind(code, status), StoreError::Transient(_)),
                "{code} {status}"
            );
        }
        for (code, status, advice) in [
            ("NoSuchBucket", 404, "aws s3 mb s3://b"),
            ("AccessDenied", 403, "s3:PutObject"),
            ("SignatureDoesNotMatch", 403, "AWS_SECRET_ACCESS_KEY"),
            ("PermanentRedirect", 301, "--region eu-west-1"),
            ("", 403, "s3:PutObject"),
        ] {
            let error = kind(code, status);
            assert!(
                matches!(&error, StoreError::Fatal(text) if text.contains(advice)),
                "{error}"
            );
        }
    }
}

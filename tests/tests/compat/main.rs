//! The compatibility suite: one body, many client libraries. It tests Kafka's rules, so it also runs against Apache Kafka
//! (`make test-kafka`).
//!
//! Each module is one behaviour; `for_each_library!` turns a body into one test for each client library.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// `for_each_library!(body)` makes a module `body` of tests `body::rdkafka`, `body::java_4_1`, …, each calling `body(library)`.
macro_rules! for_each_library {
    ($body:ident) => {
        mod $body {
            use tests::drivers::Library;
            for_each_library!(@test $body, rdkafka, Library::Rdkafka);
            for_each_library!(@test $body, confluent, Library::Confluent);
            for_each_library!(@test $body, kafka_python_2, Library::KafkaPython2);
            for_each_library!(@test $body, kafka_python_3, Library::KafkaPython3);
            for_each_library!(@test $body, java_3_9, Library::Java39);
            for_each_library!(@test $body, java_4_1, Library::Java41);
            for_each_library!(@test $body, own_client, Library::Own);
        }
    };
    (@test $body:ident, $name:ident, $library:expr) => {
        #[test]
        fn $name() {
            super::$body($library);
        }
    };
}

mod acks;
mod group;
mod log_append_time;
mod membership;
mod offsets;
mod produce_consume;
mod restart;
mod support;
mod timestamps;
mod tools;
mod topics;

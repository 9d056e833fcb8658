//! An S3 server (moto) for the pipeline tests, and the environment that makes an AWS client use it.

use std::process::Command;

use tempfile::TempDir;

use crate::process::{self, Process};
use crate::server::free_port;
use crate::{env, wait};

pub struct S3 {
    port: u16,
    _process: Process,
    _scratch: TempDir,
}

impl S3 {
    pub fn start() -> S3 {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let port = free_port();
        let mut command = Command::new(env::test_env("venv-lake").join("bin/moto_server"));
        command
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .env("MOTO_ENABLE_ISO_REGIONS", "false");
        let process = Process::start(
            command,
            &scratch.path().join("moto.log"),
            Some(scratch.path()),
        );
        wait::until("the S3 server to listen", || {
            std::net::TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        S3 {
            port,
            _process: process,
            _scratch: scratch,
        }
    }

    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// What the AWS default credential chain looks for.
    pub fn credentials() -> [(&'static str, &'static str); 4] {
        [
            ("AWS_ACCESS_KEY_ID", "test"),
            ("AWS_SECRET_ACCESS_KEY", "test"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ]
    }

    pub fn create_bucket(&self, bucket: &str) {
        self.python("s3.create_bucket(Bucket=sys.argv[2])", &[bucket]);
    }

    /// The objects below a prefix, as (key, content), by key.
    pub fn objects(&self, bucket: &str, prefix: &str) -> Vec<(String, Vec<u8>)> {
        let code = "import json\n\
            pages = s3.get_paginator('list_objects_v2').paginate(Bucket=sys.argv[2], Prefix=sys.argv[3])\n\
            for page in pages:\n\
            \x20for o in page.get('Contents', []):\n\
            \x20 print(json.dumps([o['Key'], s3.get_object(Bucket=sys.argv[2], Key=o['Key'])['Body'].read().hex()]))";
        let said = self.python(code, &[bucket, prefix]);
        let parse = |line: &str| {
            let (key, body): (String, crate::driver::Hex) =
                serde_json::from_str(line).expect("a key and its bytes");
            (key, body.0)
        };
        said.lines().map(parse).collect()
    }

    fn python(&self, code: &str, args: &[&str]) -> String {
        let prelude = "import sys, boto3; s3 = boto3.client('s3', endpoint_url=sys.argv[1])\n";
        let mut command = Command::new(env::test_env("venv-lake").join("bin/python"));
        command
            .arg("-c")
            .arg(format!("{prelude}{code}"))
            .arg(self.endpoint())
            .args(args)
            .envs(S3::credentials());
        command.env("AWS_DEFAULT_REGION", "us-east-1");
        process::run(command, "").success().stdout
    }
}

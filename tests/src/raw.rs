//! A bare connection: requests of any API and version, and bytes no client library would send.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ApiVersionsRequest, ApiVersionsResponse, RequestHeader, ResponseHeader,
};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use crate::wait::PATIENCE;

pub struct Raw {
    stream: TcpStream,
    correlation_id: i32,
}

impl Raw {
    pub fn connect(port: u16) -> io::Result<Raw> {
        Raw::connect_to(("127.0.0.1", port))
    }

    pub fn connect_to(address: impl ToSocketAddrs) -> io::Result<Raw> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Raw {
            stream,
            correlation_id: 0,
        })
    }

    /// Asks and waits for the decoded answer; panics when there is none or it is malformed.
    #[track_caller]
    pub fn call<R: Request>(&mut self, request: &R, version: i16) -> R::Response {
        self.try_call(request, version)
            .unwrap_or_else(|e| panic!("API {} version {version}: {e}", R::KEY))
    }

    pub fn try_call<R: Request>(&mut self, request: &R, version: i16) -> io::Result<R::Response> {
        let frame = self.frame(request, version);
        self.send(&frame)?;
        let answer = self
            .receive()?
            .ok_or_else(|| io::Error::other("the connection was closed"))?;
        decode::<R>(answer, version, self.correlation_id).map_err(io::Error::other)
    }

    /// The bytes of a request, length included, with the next correlation id.
    pub fn frame<R: Request>(&mut self, request: &R, version: i16) -> Vec<u8> {
        self.correlation_id += 1;
        frame(request, version, self.correlation_id)
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// The next frame without its length; `None` when the other side has closed the connection.
    pub fn receive(&mut self) -> io::Result<Option<Bytes>> {
        let mut length = [0; 4];
        match self.stream.read_exact(&mut length) {
            Ok(()) => {}
            Err(e) if closed(&e) => return Ok(None),
            Err(e) => return Err(e),
        }
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(Some(body.into()))
    }

    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub fn set_limit(&self, limit: Duration) {
        self.stream
            .set_read_timeout(Some(limit))
            .expect("a limit above zero");
    }
}

pub fn closed(e: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    matches!(
        e.kind(),
        UnexpectedEof | ConnectionReset | BrokenPipe | ConnectionAborted
    )
}

/// The bytes of a request, length included.
pub fn frame<R: Request>(request: &R, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut body = BytesMut::new();
    let header = RequestHeader::default()
        .with_request_api_key(R::KEY)
        .with_request_api_version(version)
        .with_correlation_id(correlation_id)
        .with_client_id(Some(StrBytes::from_static_str("raw")));
    header
        .encode(&mut body, R::header_version(version))
        .expect("a header encodes");
    request
        .encode(&mut body, version)
        .unwrap_or_else(|e| panic!("API {} version {version}: {e}", R::KEY));
    let mut frame = BytesMut::with_capacity(body.len() + 4);
    frame.put_u32(u32::try_from(body.len()).expect("a small frame"));
    frame.extend_from_slice(&body);
    frame.to_vec()
}

/// Decodes an answer; every byte must be used.
pub fn decode<R: Request>(
    mut answer: Bytes,
    version: i16,
    correlation_id: i32,
) -> Result<R::Response, String> {
    let header = ResponseHeader::decode(&mut answer, R::Response::header_version(version))
        .map_err(|e| e.to_string())?;
    if header.correlation_id != correlation_id {
        return Err(format!(
            "correlation id {} for {correlation_id}",
            header.correlation_id
        ));
    }
    let response =
        R::Response::decode(&mut answer, version).map_err(|e| format!("does not decode: {e}"))?;
    if answer.is_empty() {
        Ok(response)
    } else {
        Err(format!("{} bytes too many", answer.len()))
    }
}

/// Whether a Kafka server answers on this port.
pub fn answers(port: u16) -> bool {
    Raw::connect(port)
        .and_then(|mut raw| raw.try_call(&ApiVersionsRequest::default(), 0))
        .is_ok()
}

/// What the server says it can do: (API key, lowest version, highest version).
pub fn advertised(port: u16) -> Vec<(i16, i16, i16)> {
    let mut raw = Raw::connect(port).expect("the server accepts connections");
    let response: ApiVersionsResponse = raw.call(&ApiVersionsRequest::default(), 0);
    assert_eq!(response.error_code, 0);
    response
        .api_keys
        .iter()
        .map(|k| (k.api_key, k.min_version, k.max_version))
        .collect()
}

/// The name of an API, for messages.
pub fn api_name(key: i16) -> String {
    ApiKey::try_from(key).map_or_else(|()| format!("API {key}"), |k| format!("{k:?}"))
}

//! Addresses: `listeners`, `advertised.listeners` and the short flags for them. Pure parsing;
//! resolves no names and opens no sockets.

use std::fmt;
use std::net::IpAddr;

use super::table::{Kind, Value};

/// Kafka's port, where none is named.
pub const DEFAULT_PORT: u16 = 9092;

/// What `listeners` takes, in words.
pub const LISTENERS_ALLOWED: &str = "a comma separated list of PLAINTEXT://HOST:PORT, where an \
     empty HOST means all interfaces (TLS and SASL listeners are not supported yet)";
/// What `advertised.listeners` takes, in words.
pub const ADVERTISED_ALLOWED: &str = "auto (clients are told the address they used), HOST, \
     HOST:PORT, or a comma separated list of NAME://HOST:PORT; never 0.0.0.0, which no client can reach";

/// One address the broker listens on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// Its name, `PLAINTEXT` unless `listener.security.protocol.map` gives it another.
    pub name: String,
    /// Host or address, without brackets; empty means all interfaces.
    pub host: String,
    /// Port; 0 lets the system choose.
    pub port: u16,
}

impl Listener {
    /// A plaintext listener.
    pub fn new(host: impl Into<String>, port: u16) -> Listener {
        Listener {
            name: "PLAINTEXT".into(),
            host: host.into(),
            port,
        }
    }

    /// Whether it listens on every interface.
    pub fn is_wildcard(&self) -> bool {
        is_wildcard(&self.host)
    }
}

impl fmt::Display for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.name, host_port(&self.host, self.port))
    }
}

/// `host:port`, with brackets around an IPv6 address.
pub fn host_port(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

fn is_wildcard(host: &str) -> bool {
    host.is_empty() || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified())
}

/// The value of `listeners`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listeners(pub Vec<Listener>);

impl Listeners {
    /// As `listeners` has it.
    pub fn show_text(&self) -> String {
        join(&self.0)
    }
}

impl Default for Listeners {
    fn default() -> Self {
        Listeners(vec![Listener::new("127.0.0.1", DEFAULT_PORT)])
    }
}

impl std::ops::Deref for Listeners {
    type Target = [Listener];
    fn deref(&self) -> &[Listener] {
        &self.0
    }
}

impl Value for Listeners {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        let mut out: Vec<Listener> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let one = read_listener(part)?;
            let twice = out.iter().any(|o| {
                o.name == one.name || (o.port != 0 && o.port == one.port && o.host == one.host)
            });
            // Kafka: one listener per name, one per port.
            if twice {
                return None;
            }
            out.push(one);
        }
        Some(Listeners(out))
    }
    fn show(&self) -> Option<String> {
        Some(self.show_text())
    }
}

fn join<T: fmt::Display>(items: &[T]) -> String {
    let texts: Vec<String> = items.iter().map(T::to_string).collect();
    texts.join(",")
}

fn read_listener(text: &str) -> Option<Listener> {
    let (name, rest) = split_name(text)?;
    // `--listen 9092`: a port alone is one on this machine only.
    if name.is_none() && !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()) {
        return Some(Listener::new("127.0.0.1", rest.parse().ok()?));
    }
    let (host, port) = split_port(rest)?;
    Some(Listener {
        name: name.unwrap_or("PLAINTEXT").to_uppercase(),
        host: host.to_owned(),
        port: port.unwrap_or(DEFAULT_PORT),
    })
}

/// `NAME://rest` or just `rest`.
fn split_name(text: &str) -> Option<(Option<&str>, &str)> {
    match text.split_once("://") {
        None if text.is_empty() => None,
        None => Some((None, text)),
        Some((name, rest)) => {
            let good = !name.is_empty()
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            good.then_some((Some(name), rest))
        }
    }
}

/// `host`, `host:port`, `:port`, `[v6]`, `[v6]:port`, or a bare v6 address.
fn split_port(text: &str) -> Option<(&str, Option<u16>)> {
    if let Some(inner) = text.strip_prefix('[') {
        let (host, rest) = inner.split_once(']')?;
        host.parse::<std::net::Ipv6Addr>().ok()?;
        return match rest.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None if rest.is_empty() => Some((host, None)),
            None => None,
        };
    }
    if text.parse::<std::net::Ipv6Addr>().is_ok() {
        return Some((text, None));
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text, None),
    };
    valid_host(host).then_some((host, port))
}

fn valid_host(host: &str) -> bool {
    host.len() <= 253
        && host
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// One advertised address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdvertisedListener {
    /// The listener it belongs to; `None` is every one.
    pub name: Option<String>,
    /// What clients are told.
    pub host: String,
    /// `None` is the port the listener has.
    pub port: Option<u16>,
}

impl fmt::Display for AdvertisedListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(name) = &self.name {
            write!(f, "{name}://")?;
        }
        match self.port {
            Some(port) => f.write_str(&host_port(&self.host, port)),
            None => f.write_str(&self.host),
        }
    }
}

/// The value of `advertised.listeners`. Empty is `auto`: clients are told the address they
/// themselves used to reach the broker.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Advertised(pub Vec<AdvertisedListener>);

impl Advertised {
    /// Whether clients are told the address they used.
    pub fn is_auto(&self) -> bool {
        self.0.is_empty()
    }

    /// The address named for a listener, `None` where it is automatic.
    pub fn for_listener(&self, listener: &Listener) -> Option<(&str, u16)> {
        let named = self
            .0
            .iter()
            .find(|a| a.name.as_deref() == Some(listener.name.as_str()))
            .or_else(|| self.0.iter().find(|a| a.name.is_none()))?;
        Some((named.host.as_str(), named.port.unwrap_or(listener.port)))
    }
}

impl Value for Advertised {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        if text.is_empty() || text.eq_ignore_ascii_case("auto") {
            return Some(Advertised::default());
        }
        let mut out = Vec::new();
        for part in text.split(',').map(str::trim) {
            let (name, rest) = split_name(part)?;
            let (host, port) = split_port(rest)?;
            if is_wildcard(host) || port == Some(0) {
                return None;
            }
            out.push(AdvertisedListener {
                name: name.map(str::to_uppercase),
                host: host.to_owned(),
                port,
            });
        }
        Some(Advertised(out))
    }
    fn show(&self) -> Option<String> {
        Some(if self.is_auto() {
            "auto".into()
        } else {
            join(&self.0)
        })
    }
}

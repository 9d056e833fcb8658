//! The table of settings: what a setting is, how its text becomes a value, and the macro that
//! writes struct, defaults and table from one list. Knows no single setting.

use std::fmt;
use std::path::PathBuf;

/// What a setting may hold. Ranges are Kafka's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// 16, 32 or 64 bit whole number, by `bits`.
    Whole {
        /// Width of the number, which is what DescribeConfigs calls SHORT, INT and LONG.
        bits: u8,
        /// Smallest allowed value.
        min: i64,
        /// Largest allowed value.
        max: i64,
    },
    /// Floating point number.
    Double {
        /// Smallest allowed value.
        min: f64,
        /// Largest allowed value.
        max: f64,
    },
    /// Any text.
    Text,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A comma separated list, of these words only unless the list of words is empty.
    List(&'static [&'static str]),
    /// Listeners or addresses; the text says what is allowed.
    Address(&'static str),
}

impl Kind {
    /// The type's number in DescribeConfigs (`DescribeConfigsResponse.ConfigType`).
    pub fn describe_type(&self) -> i8 {
        match self {
            Kind::Bool => 1,
            Kind::Text | Kind::Choice(_) | Kind::Address(_) => 2,
            Kind::Whole { bits: 16, .. } => 4,
            Kind::Whole { bits: 32, .. } => 3,
            Kind::Whole { .. } => 5,
            Kind::Double { .. } => 6,
            Kind::List(_) => 7,
        }
    }
}

/// What is allowed, in words, as an error message says it.
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Bool => write!(f, "true or false"),
            Kind::Whole { min, max, .. } => write!(f, "a whole number from {min} to {max}"),
            Kind::Double { min, max } if *max == f64::MAX => {
                write!(f, "a number, at least {min}")
            }
            Kind::Double { min, max } => write!(f, "a number from {min} to {max}"),
            Kind::Text => write!(f, "text"),
            Kind::Choice(words) => write!(f, "one of {}", words.join(", ")),
            Kind::List([]) => write!(f, "a comma separated list"),
            Kind::List(words) => write!(f, "a comma separated list of {}", words.join(", ")),
            Kind::Address(text) => write!(f, "{text}"),
        }
    }
}

/// 16 bit whole number.
pub const fn short(min: i16, max: i16) -> Kind {
    Kind::Whole {
        bits: 16,
        min: min as i64,
        max: max as i64,
    }
}

/// 32 bit whole number, at least `min`.
pub const fn int(min: i32) -> Kind {
    Kind::Whole {
        bits: 32,
        min: min as i64,
        max: i32::MAX as i64,
    }
}

/// 32 bit whole number in a range.
pub const fn int_in(min: i32, max: i32) -> Kind {
    Kind::Whole {
        bits: 32,
        min: min as i64,
        max: max as i64,
    }
}

/// 64 bit whole number, at least `min`.
pub const fn long(min: i64) -> Kind {
    Kind::Whole {
        bits: 64,
        min,
        max: i64::MAX,
    }
}

/// A type a setting can have.
pub trait Value: Sized {
    /// Reads the (trimmed) text; `None` when it is not allowed.
    fn read(text: &str, kind: &Kind) -> Option<Self>;
    /// The value as Kafka would print it; `None` for a null.
    fn show(&self) -> Option<String>;
}

fn whole<T: TryFrom<i64>>(text: &str, kind: &Kind) -> Option<T> {
    let n: i64 = text.parse().ok()?;
    match kind {
        Kind::Whole { min, max, .. } if n < *min || n > *max => None,
        _ => T::try_from(n).ok(),
    }
}

macro_rules! whole_values {
    ($($ty:ty),*) => {$(
        impl Value for $ty {
            fn read(text: &str, kind: &Kind) -> Option<Self> {
                whole(text, kind)
            }
            fn show(&self) -> Option<String> {
                Some(self.to_string())
            }
        }
    )*};
}
whole_values!(i16, i32, i64);

impl Value for bool {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        match text {
            t if t.eq_ignore_ascii_case("true") => Some(true),
            t if t.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for f64 {
    fn read(text: &str, kind: &Kind) -> Option<Self> {
        let n: f64 = text.parse().ok()?;
        match kind {
            Kind::Double { min, max } if !(*min..=*max).contains(&n) => None,
            _ => Some(n),
        }
    }
    fn show(&self) -> Option<String> {
        Some(self.to_string())
    }
}

impl Value for String {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        Some(text.to_owned())
    }
    fn show(&self) -> Option<String> {
        Some(self.clone())
    }
}

impl Value for PathBuf {
    fn read(text: &str, _: &Kind) -> Option<Self> {
        (!text.is_empty() && !text.contains(',')).then(|| PathBuf::from(text))
    }
    fn show(&self) -> Option<String> {
        Some(self.display().to_string())
    }
}

impl<T: Value> Value for Option<T> {
    fn read(text: &str, kind: &Kind) -> Option<Self> {
        T::read(text, kind).map(Some)
    }
    fn show(&self) -> Option<String> {
        self.as_ref().and_then(T::show)
    }
}

/// Declares an enum whose variants are the words of a [`Kind::Choice`].
macro_rules! choice {
    ($(#[$meta:meta])* pub enum $Name:ident { $( $(#[$vmeta:meta])* $Variant:ident = $word:literal ),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $Name { $( $(#[$vmeta])* $Variant ),+ }

        impl $Name {
            /// The allowed words.
            pub const WORDS: &'static [&'static str] = &[$($word),+];
            /// The word of this value.
            pub fn word(self) -> &'static str {
                match self { $( $Name::$Variant => $word ),+ }
            }
        }

        impl $crate::config::table::Value for $Name {
            fn read(text: &str, _: &$crate::config::table::Kind) -> Option<Self> {
                match text { $( $word => Some($Name::$Variant), )+ _ => None }
            }
            fn show(&self) -> Option<String> {
                Some(self.word().to_owned())
            }
        }

        impl std::fmt::Display for $Name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}
pub(crate) use choice;

/// One line of a table: everything there is to know of a setting of the struct `C`.
pub struct Setting<C: 'static> {
    /// Kafka's name of it.
    pub name: &'static str,
    /// Type and allowed values.
    pub kind: Kind,
    /// What it does, in a sentence or two.
    pub doc: &'static str,
    /// Of a topic's setting: the broker's settings it falls back to, first one first.
    pub synonyms: &'static [&'static str],
    pub(crate) get: fn(&C) -> Option<String>,
    pub(crate) set: fn(&mut C, &str, &Kind) -> bool,
}

impl<C: Default> Setting<C> {
    /// The value in `c` as text; `None` is Kafka's null.
    pub fn get(&self, c: &C) -> Option<String> {
        (self.get)(c)
    }

    /// Puts `text` into `c`, or says what would be allowed.
    pub fn set(&self, c: &mut C, text: &str) -> Result<(), ConfigError> {
        if (self.set)(c, text.trim(), &self.kind) {
            return Ok(());
        }
        Err(ConfigError::Value {
            key: self.name.to_owned(),
            value: text.to_owned(),
            allowed: self.kind.to_string(),
        })
    }

    /// The built-in default as text.
    pub fn default_text(&self) -> Option<String> {
        (self.get)(&C::default())
    }

    /// The doc text without the blanks of the source.
    pub fn doc(&self) -> &'static str {
        self.doc.trim()
    }
}

/// Why a configuration was refused. The text goes to a person as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A value out of its range or of the wrong type.
    #[error("bad value for {key}: '{value}'; allowed is {allowed}")]
    Value {
        /// The setting.
        key: String,
        /// What was given.
        value: String,
        /// What would be right.
        allowed: String,
    },
    /// A topic setting nobody knows.
    #[error(
        "unknown topic setting '{0}'; topic settings are named as in Kafka, such as retention.ms"
    )]
    UnknownTopicSetting(String),
    /// Two settings that do not go together.
    #[error("{0}")]
    Conflict(String),
    /// The file of settings could not be read.
    #[error("cannot read settings from {path}: {reason}")]
    File {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Writes a struct of settings, its `Default` and its table from one list.
macro_rules! settings {
    ( $(#[$smeta:meta])* pub struct $Struct:ident, table $TABLE:ident, extra { $( $(#[$emeta:meta])* $efield:ident : $ety:ty ),* $(,)? }
      $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty = $default:expr, $name:literal, $kind:expr $(, from [$($syn:literal),* $(,)?])? ; )+ ) => {
        $(#[$smeta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $Struct {
            $( $(#[doc = $doc])+ #[doc = ""] #[doc = concat!("Setting `", $name, "`.")] pub $field: $ty, )+
            $( $(#[$emeta])* pub $efield: $ety, )*
        }

        impl Default for $Struct {
            fn default() -> Self {
                $Struct { $( $field: $default, )+ $( $efield: Default::default(), )* }
            }
        }

        /// The table behind the struct, in the order of the documentation.
        pub static $TABLE: &[$crate::config::table::Setting<$Struct>] = &[
            $( $crate::config::table::Setting {
                name: $name,
                kind: $kind,
                doc: concat!($($doc),+),
                synonyms: &[$($($syn),*)?],
                get: |c| $crate::config::table::Value::show(&c.$field),
                set: |c, text, kind| match $crate::config::table::Value::read(text, kind) {
                    Some(v) => { c.$field = v; true }
                    None => false,
                },
            }, )+
        ];
    };
}
pub(crate) use settings;

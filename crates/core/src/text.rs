//! The text form of a value: one macro that ties `Display` and `parse` to serde, so that a value is written the
//! same way in JSON, in a column and on a screen; and a cut at a character. No value is defined here.

/// The beginning of a text: at most `limit` bytes, whole characters.
pub(crate) fn cut(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// Serialises a type through its `Display` and reads it back through its `parse(&str)`.
macro_rules! text_form {
    ($($name:ty),+ $(,)?) => {$(
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                <$name>::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::violation::Invalid;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                <$name>::parse(text)
            }
        }
    )+};
}

/// A closed set of words: the enum, its text form, and the list of all its values.
macro_rules! words {
    ($(#[$meta:meta])* $name:ident, $rule:expr; $($(#[$doc:meta])* $variant:ident = $word:literal),+ $(,)?) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(clippy::exhaustive_enums, reason = "a closed set: a new word is a breaking change on purpose")]
        pub enum $name {
            $($(#[$doc])* $variant),+
        }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word that stands for the value in text, JSON and rows.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// Reads the word, in any case, surrounded by blanks or not.
            ///
            /// # Errors
            /// The rule that lists the words, when the text is none of them.
            pub fn parse(text: &str) -> Result<Self, $crate::violation::Invalid> {
                let text = text.trim();
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.word().eq_ignore_ascii_case(text))
                    .ok_or_else(|| $crate::violation::Invalid::new(&$rule).with("value", $crate::violation::shown(text)))
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.word())
            }
        }

        $crate::text::text_form!($name);
    };
}

pub(crate) use {text_form, words};

//! Many rows in one parameter: JSON that a statement takes apart. A column without a collation of its own would have the database's
//! character set, which may lack letters.

/// The type of a column: an id in 32 hex digits, text of any length, text that an index is looked through for, a number.
macro_rules! json_type {
    (id) => {
        "CHAR(32) COLLATE utf8mb4_nopad_bin"
    };
    (text) => {
        "LONGTEXT COLLATE utf8mb4_nopad_bin"
    };
    (key) => {
        "VARCHAR(250) COLLATE utf8mb4_nopad_bin"
    };
    (number) => {
        "BIGINT"
    };
}
pub(super) use json_type;

/// The rows of a JSON array as a table with these columns, each of its place in the row's array, and `place`, from 1.
macro_rules! json_rows {
    ($json:literal; $($name:ident $kind:ident $path:literal),+) => {
        concat!(
            "JSON_TABLE(", $json, ", '$[*]' COLUMNS (place FOR ORDINALITY",
            $(", ", stringify!($name), " ", $crate::sql::mysql::json::json_type!($kind), " PATH '$", $path, "'"),+,
            "))"
        )
    };
}
pub(super) use json_rows;

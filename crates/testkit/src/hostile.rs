//! Mail that is made to hurt whoever reads it: deep nesting, endless lines, charsets and encodings that grow. Each is made of any
//! size, so that what costs more than its bytes shows. Nothing of it is more than text and noise.

use std::iter::repeat_n;

/// A mail that is made to hurt. Each has a From of `ana@customer.example`, unless it has no header at all.
#[derive(Debug, Clone, Copy)]
pub struct HostileMail {
    name: &'static str,
    make: fn(usize) -> Vec<u8>,
}

impl HostileMail {
    /// Every one.
    #[must_use]
    pub fn all() -> &'static [Self] {
        ALL
    }

    /// What it does, in a few words.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Its bytes, about `size` of them.
    #[must_use]
    pub fn bytes(&self, size: usize) -> Vec<u8> {
        (self.make)(size)
    }
}

/// A header with further fields, and a body of one piece again and again.
fn mail(fields: &str, piece: &[u8], size: usize) -> Vec<u8> {
    [format!("From: ana@customer.example\r\n{fields}\r\n").into_bytes(), fill(piece, size)].concat()
}

/// A header in which one field has one piece again and again.
fn field(begin: &str, piece: &str, size: usize) -> Vec<u8> {
    let end = b"\r\nFrom: ana@customer.example\r\n\r\nHello\r\n";
    [begin.as_bytes(), &fill(piece.as_bytes(), size), end].concat()
}

fn fill(piece: &[u8], size: usize) -> Vec<u8> {
    repeat_n(piece, size.div_ceil(piece.len())).flatten().copied().collect()
}

/// Numbered pieces.
fn count(begin: &str, piece: fn(usize) -> String, size: usize) -> Vec<u8> {
    let mut bytes = begin.as_bytes().to_vec();
    bytes.reserve(size);
    for number in 0.. {
        if bytes.len() >= size {
            break;
        }
        bytes.extend(piece(number).into_bytes());
    }
    bytes
}

/// A multipart of one part again and again.
fn parts(part: &str, size: usize) -> Vec<u8> {
    let piece = format!("--b\r\n{part}\r\n");
    mail("Content-Type: multipart/mixed; boundary=b\r\n", piece.as_bytes(), size)
}

/// Sixteen multiparts in each other, and then one line again and again.
fn sixteen(boundary: fn(usize) -> String, line: &str, size: usize) -> Vec<u8> {
    let mut bytes = b"From: ana@customer.example\r\n".to_vec();
    for level in 0..16 {
        let boundary = boundary(level);
        bytes.extend(
            format!("Content-Type: multipart/mixed; boundary=\"{boundary}\"\r\n\r\n--{boundary}\r\n")
                .into_bytes(),
        );
    }
    bytes.extend(b"\r\n");
    bytes.extend(fill(line.as_bytes(), size));
    bytes
}

fn text(charset: &str, piece: &[u8], size: usize) -> Vec<u8> {
    mail(&format!("Content-Type: text/plain; charset={charset}\r\n"), piece, size)
}

fn html(piece: &str, size: usize) -> Vec<u8> {
    mail("Content-Type: text/html; charset=utf-8\r\n", piece.as_bytes(), size)
}

fn file(encoding: &str, piece: &[u8], size: usize) -> Vec<u8> {
    let fields = "Content-Type: application/zip\r\nContent-Disposition: attachment; filename=a.zip\r\n";
    mail(&format!("{fields}Content-Transfer-Encoding: {encoding}\r\n"), piece, size)
}

macro_rules! table {
    ($($name:literal => $make:expr),+ $(,)?) => {
        &[$(HostileMail { name: $name, make: $make }),+]
    };
}

const ALL: &[HostileMail] = table![
    "multiparts in each other" => |size| count(
        "From: ana@customer.example\r\n",
        |level| format!("Content-Type: multipart/mixed; boundary=b{level}\r\n\r\n--b{level}\r\n"),
        size,
    ),
    "multiparts of one boundary in each other" => |size| {
        let level = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
        [&b"From: ana@customer.example\r\n"[..], &fill(level.as_bytes(), size)].concat()
    },
    "mails in each other" => |size| {
        let level = b"Content-Type: message/rfc822\r\n\r\n";
        [&b"From: ana@customer.example\r\n"[..], &fill(level, size)].concat()
    },
    "parts" => |size| parts("\r\nx", size),
    "parts that are alternatives in HTML" => |size| parts("Content-Type: text/html\r\n\r\n<p>x", size),
    "parts whose boundary never comes" => |size| {
        parts("Content-Type: multipart/mixed; boundary=never\r\n\r\nx", size)
    },
    "files of one name" => |size| {
        parts("Content-Disposition: attachment; filename=\"a (1).txt\"\r\n\r\nx", size)
    },
    "header fields" => |size| [fill(b"X-Junk: y\r\n", size), mail("", b"Hello", 5)].concat(),
    "header fields that are known" => |size| {
        mail(&"Delivered-To: a@customer.example\r\n".repeat(size / 34), b"Hello", 5)
    },
    "a header of lines that are no fields" => |size| [fill(b"junk\r\n", size), mail("", b"Hello", 5)].concat(),
    "a header field" => |size| field("Subject: ", "a", size),
    "a header field of folds" => |size| field("Subject: a", "\r\n b", size),
    "the name of a header field" => |size| field("X: y\r\n", "a", size),
    "a line" => |size| mail("", b"a", size),
    "pieces of one file name" => |size| {
        let begin = "From: ana@customer.example\r\nContent-Disposition: attachment";
        [count(begin, |piece| format!(";\r\n filename*{piece}=\"abcdefgh\""), size), b"\r\n\r\nx".to_vec()].concat()
    },
    "parameters" => |size| field("Content-Type: text/plain", ";a=b", size),
    "encoded words" => |size| field("Subject: ", "=?utf-8?q?=C3=A9?= ", size),
    "encoded words that do not end" => |size| field("To: ", "=?aa?q? ", size),
    "addresses" => |size| field("To: ", "a@b.example, ", size),
    "comments in each other" => |size| field("To: ", "(", size),
    "groups in each other" => |size| field("To: ", "a:", size),
    "quotes" => |size| field("To: ", "\"\\", size),
    "angle brackets" => |size| field("To: ", "<", size),
    "references" => |size| field("References: ", "<a@b.example> ", size),
    "HTML in each other" => |size| html("<div>", size),
    "HTML that is never closed" => |size| html("<!--<", size),
    "HTML of entities" => |size| html("&#x41;&", size),
    "base64 of nothing" => |size| file("base64", b"*", size),
    "base64 of padding" => |size| file("base64", b"=", size),
    "base64 of a zip that grows" => |size| file("base64", b"UEsDBBQAAAAIAAAAIQ==\r\n", size),
    "quoted-printable of signs" => |size| file("quoted-printable", b"=", size),
    "quoted-printable of blanks" => |size| file("quoted-printable", b"= \t   \t", size),
    "NULs" => |size| mail("", b"\0", size),
    "carriage returns" => |size| mail("", b"\r", size),
    "empty lines" => |size| mail("", b"\n", size),
    "lines that begin like a boundary" => |size| parts("\r\n--bb\r\n--b-\r\n--b---\r\n --b\r\nx --b", size),
    "boundaries that differ at the end" => |size| {
        sixteen(|level| format!("{}{level:02}", "b".repeat(60)), &format!("--{}xx\n", "b".repeat(60)), size)
    },
    "boundaries of one byte" => |size| {
        sixteen(|level| char::from(b'a' + u8::try_from(level).unwrap_or_default()).to_string(), "--pq\n--a.\n", size)
    },
    "boundaries that are the same" => |size| sixteen(|_| "b".to_owned(), "--b \t \t \t .\n", size),
    "a boundary and then blanks" => |size| sixteen(|_| "b".to_owned(), &format!("--b{}.\n", " ".repeat(4000)), size),
    "a boundary of megabytes" => |size| {
        let boundary = "b".repeat(size / 2);
        mail(
            &format!("Content-Type: multipart/mixed; boundary={boundary}\r\n"),
            format!("--{boundary}\r\n\r\nx\r\n").as_bytes(),
            size / 2,
        )
    },
    "UTF-7" => |size| text("utf-7", b"+ACE", size),
    "UTF-7 that shifts" => |size| text("utf-7", b"+", size),
    "ISO-2022-JP that shifts" => |size| text("iso-2022-jp", b"\x1b$B\x1b(B", size),
    "UTF-16 of halves" => |size| text("utf-16le", b"\x00\xd8", size),
    "a charset that grows threefold" => |size| text("ibm850", b"\xb0", size),
    "HTML of a charset that grows threefold" => |size| {
        mail("Content-Type: text/html; charset=ibm866\r\n", b"\xb0", size)
    },
    "a charset that nobody knows" => |size| text("x-nobody", b"\xff", size),
    "noise" => |size| (0..size).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect(),
];

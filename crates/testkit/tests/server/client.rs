//! A client that speaks lines, with or without TLS. It knows no protocol; each test says what it sends and reads.

use postroom_testkit::{MailServer, Protocol};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::ring},
};

pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

pub(crate) struct Client {
    stream: Option<Box<dyn Stream>>,
    input: Vec<u8>,
}

fn connector(ca_pem: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ca_pem.as_bytes()).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

impl Client {
    pub(crate) async fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Some(Box::new(stream)), input: Vec::new() }
    }

    /// Connects and reads the greeting; inside TLS where the port begins with it.
    pub(crate) async fn connect(server: &MailServer, protocol: Protocol) -> Self {
        let mut client = Self::dial(server.address(protocol)).await;
        if matches!(protocol, Protocol::Smtps | Protocol::Imaps | Protocol::Pop3s) {
            client.begin_tls("localhost", server.ca_pem()).await.unwrap();
        }
        client.line().await;
        client
    }

    pub(crate) async fn begin_tls(&mut self, name: &str, ca_pem: &str) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let stream = connector(ca_pem).connect(name, self.stream.take().unwrap()).await?;
        self.stream = Some(Box::new(stream));
        Ok(())
    }

    pub(crate) async fn write(&mut self, bytes: &[u8]) {
        let stream = self.stream.as_mut().unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.flush().await.unwrap();
    }

    /// The next line with its CRLF; empty at the end of the connection.
    pub(crate) async fn line(&mut self) -> String {
        loop {
            if let Some(at) = self.input.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.input.drain(..at + 2).collect();
                return String::from_utf8(line).unwrap();
            }
            let read = self.stream.as_mut().unwrap().read_buf(&mut self.input);
            match timeout(SOON, read).await.expect("the server answers soon") {
                Ok(0) | Err(_) => return String::from_utf8(std::mem::take(&mut self.input)).unwrap(),
                Ok(_) => {}
            }
        }
    }

    /// Every line up to the one that `ends` knows, in one text. Stops at the end of the connection.
    pub(crate) async fn until(&mut self, ends: impl Fn(&str) -> bool) -> String {
        let mut text = String::new();
        loop {
            let line = self.line().await;
            text.push_str(&line);
            if ends(&line) || line.is_empty() {
                return text;
            }
        }
    }

    /// SMTP: a command and the whole reply.
    pub(crate) async fn smtp(&mut self, command: &str) -> String {
        self.write(format!("{command}\r\n").as_bytes()).await;
        self.until(|line| line.as_bytes().get(3) == Some(&b' ')).await
    }

    /// IMAP: a command without tag, and everything up to its tagged answer.
    pub(crate) async fn imap(&mut self, command: &str) -> String {
        self.write(format!("A1 {command}\r\n").as_bytes()).await;
        self.until(|line| line.starts_with("A1 ") || line.starts_with("+ ")).await
    }

    /// POP3: a command and its one line.
    pub(crate) async fn pop3(&mut self, command: &str) -> String {
        self.write(format!("{command}\r\n").as_bytes()).await;
        self.line().await
    }

    /// POP3: a command and its many lines.
    pub(crate) async fn pop3_lines(&mut self, command: &str) -> String {
        self.write(format!("{command}\r\n").as_bytes()).await;
        let first = self.line().await;
        if first.starts_with("-ERR") { first } else { first + &self.until(|line| line == ".\r\n").await }
    }
}

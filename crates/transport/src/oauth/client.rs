//! The adapter on reqwest: one request for each connection, nothing followed, nothing kept.

use std::sync::OnceLock;
use std::time::Duration;

use async_trait::async_trait;
use postroom_core::secret::{ExposeSecret, SecretString};
use reqwest::header::{ACCEPT, CONTENT_TYPE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use zeroize::Zeroizing;

use super::http::{ANSWER_LIMIT, Answer, DEADLINE, HttpClient};
use crate::error::{Error, ErrorKind, Result, Stage};
use crate::wire::tls::Trust;

/// How long the connection may take.
const CONNECT: Duration = Duration::from_secs(10);

/// An [`HttpClient`] that trusts the platform's certificate authorities.
///
/// To an `https` endpoint it goes through the proxy of the environment, if there is one (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`), which sees
/// the host's name and nothing of the request; to an `http` endpoint through none. Private addresses are not left out, as they are not for
/// mail servers: whoever registers a mailbox names the endpoint.
///
/// The platform's authorities are read when the first token is asked for: most processes ask for none. Where it has none, that is
/// [`ErrorKind::Settings`].
#[derive(Debug, Clone)]
pub struct ReqwestClient {
    deadline: Duration,
    clients: OnceLock<Clients>,
}

#[derive(Debug, Clone)]
struct Clients {
    secure: Client,
    plain: Client,
}

impl Default for ReqwestClient {
    fn default() -> Self {
        Self::new()
    }
}

impl ReqwestClient {
    /// A client.
    #[must_use]
    pub fn new() -> Self {
        Self::within(DEADLINE)
    }

    fn within(deadline: Duration) -> Self {
        Self { deadline, clients: OnceLock::new() }
    }

    fn clients(&self) -> Result<&Clients> {
        if let Some(clients) = self.clients.get() {
            return Ok(clients);
        }
        let clients = Clients::within(self.deadline)?;
        Ok(self.clients.get_or_init(|| clients))
    }
}

impl Clients {
    fn within(deadline: Duration) -> Result<Self> {
        let tls = Trust::default().config(None)?;
        let builder = || {
            Client::builder()
                .tls_backend_preconfigured((*tls).clone())
                .redirect(Policy::none())
                .connect_timeout(CONNECT)
                .timeout(deadline)
                .pool_max_idle_per_host(0)
                .user_agent(concat!("postroom/", env!("CARGO_PKG_VERSION")))
        };
        let unusable = |error| Error::new(ErrorKind::Settings, Stage::Prepare).with_source(error);
        let secure = builder().https_only(true).build().map_err(unusable)?;
        // A proxy would read what is sent.
        let plain = builder().no_proxy().build().map_err(unusable)?;
        Ok(Self { secure, plain })
    }
}

/// After how long it may be asked again. A date counts from the answer's own, so that no two clocks have to agree.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: HeaderName| headers.get(name)?.to_str().ok().map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let date = |text: &str| httpdate::parse_http_date(text).ok();
    match asked.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => date(asked)?.duration_since(date(text(DATE)?)?).ok(),
    }
}

/// What it means that no answer came. The URL is not repeated: it is the box's own.
fn failed(error: reqwest::Error) -> Error {
    let kind = match () {
        () if error.is_builder() => ErrorKind::Settings,
        () if error.is_timeout() => ErrorKind::TimedOut,
        () if error.is_connect() => ErrorKind::Unreachable,
        () => ErrorKind::Disconnected,
    };
    let error = error.without_url();
    let mut words = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    Error::new(kind, Stage::Token).with_reply(&words)
}

#[async_trait]
impl HttpClient for ReqwestClient {
    async fn post(&self, url: &str, form: &SecretString) -> Result<Answer> {
        let url = Url::parse(url)
            .map_err(|_| Error::new(ErrorKind::Settings, Stage::Token).with_reply("no URL"))?;
        let Clients { secure, plain } = self.clients()?;
        let client = if url.scheme() == "https" { secure } else { plain };
        let request = client
            .post(url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json")
            .body(form.expose_secret().to_owned());
        let mut response = request.send().await.map_err(failed)?;
        let retry_after = retry_after(response.headers());
        let status = response.status().as_u16();
        let mut body = Zeroizing::new(Vec::new());
        while let Some(piece) = response.chunk().await.map_err(failed)? {
            if body.len() + piece.len() > ANSWER_LIMIT {
                let error = Error::new(ErrorKind::SignInUnavailable, Stage::Token);
                return Err(error.with_reply(&format!("its answer has more than {ANSWER_LIMIT} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(Answer { status, retry_after, body })
    }
}

#[cfg(test)]
mod tests {
    use std::env;
    use std::process::Command;

    use reqwest::header::HeaderValue;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const SECRET: &str = "canary-r1";

    /// What a server does with its one client, once that has sent its form.
    async fn served<F: Future<Output = ()>>(
        deadline: Duration,
        serve: impl FnOnce(TcpStream) -> F,
    ) -> Result<Answer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let form = SecretString::from(format!("refresh_token={SECRET}"));
        let client = ReqwestClient::within(deadline);
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = Vec::new();
            while !request.ends_with(SECRET.as_bytes()) {
                assert_ne!(stream.read_buf(&mut request).await.expect("a request"), 0, "it left");
            }
            serve(stream).await;
        };
        let (answer, ()) = tokio::join!(client.post(&url, &form), server);
        if let Err(error) = &answer {
            let mut told = format!("{error} {error:?}");
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                told.push_str(&format!(" {cause} {cause:?}"));
                source = cause.source();
            }
            assert!(!told.contains(SECRET) && !told.contains("/token"), "{told}");
            assert_eq!(error.stage(), Stage::Token);
        }
        answer
    }

    async fn says(text: &[u8]) -> Result<Answer> {
        // Once the client has enough it leaves, and takes no more.
        served(DEADLINE, async |mut stream| drop(stream.write_all(text).await)).await
    }

    /// Would miss an adapter that reads a longer answer in whole before it refuses it.
    #[tokio::test]
    async fn an_answer_has_64_kib_at_most() {
        for head in [
            "HTTP/1.0 200 OK\r\n\r\n".to_owned(),
            format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_LIMIT}\r\n\r\n"),
        ] {
            let text = [head.as_bytes(), &vec![b'x'; ANSWER_LIMIT]].concat();
            assert_eq!(says(&text).await.expect("an answer").body.len(), ANSWER_LIMIT);
        }
        let text = [&b"HTTP/1.0 200 OK\r\n\r\n"[..], &vec![b'x'; ANSWER_LIMIT + 1]].concat();
        let error = says(&text).await.expect_err("too long");
        assert_eq!(error.kind(), ErrorKind::SignInUnavailable);
    }

    #[tokio::test]
    async fn a_redirect_is_an_answer_and_nobody_is_led_elsewhere() {
        let elsewhere = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let to = elsewhere.local_addr().expect("an address");
        for status in [301, 302, 303, 307, 308] {
            let text = format!("HTTP/1.1 {status} x\r\nLocation: http://{to}/\r\nContent-Length: 0\r\n\r\n");
            assert_eq!(says(text.as_bytes()).await.expect("an answer").status, status);
        }
        let came = tokio::time::timeout(Duration::from_millis(50), elsewhere.accept()).await;
        assert!(came.is_err(), "somebody came: {came:?}");
    }

    #[tokio::test]
    async fn a_server_that_says_nothing_or_never_ends_is_left_in_time() {
        for said in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{"] {
            let answer = served(Duration::from_millis(100), async |mut stream| {
                stream.write_all(said.as_bytes()).await.expect("written");
                // Until the client leaves.
                let _ = stream.read(&mut [0]).await;
            });
            assert_eq!(answer.await.expect_err("silence").kind(), ErrorKind::TimedOut, "{said}");
        }
    }

    #[tokio::test]
    async fn a_connection_that_breaks_and_what_is_no_http_are_no_answers() {
        for said in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "220 mx.acme.example ESMTP\r\n"] {
            let error = says(said.as_bytes()).await.expect_err("no answer");
            assert_eq!(error.kind(), ErrorKind::Disconnected, "{said}");
        }
        let nobody =
            TcpListener::bind("127.0.0.1:0").await.expect("a port").local_addr().expect("an address");
        let client = ReqwestClient::new();
        let error = client.post(&format!("http://{nobody}/token"), &SECRET.into()).await.expect_err("nobody");
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        let error = client.post("token", &SECRET.into()).await.expect_err("no URL");
        assert_eq!(error.kind(), ErrorKind::Settings);
    }

    #[tokio::test]
    async fn the_time_that_a_server_names_is_told() {
        let text = "HTTP/1.1 429 x\r\nRetry-After: 120\r\nContent-Length: 2\r\n\r\n{}";
        let answer = says(text.as_bytes()).await.expect("an answer");
        assert_eq!((answer.status, answer.retry_after), (429, Some(Duration::from_secs(120))));
        let check = |asked: &'static str, date: Option<&'static str>, want: Option<u64>| {
            let mut headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(asked))]);
            headers.extend(date.map(|date| (DATE, HeaderValue::from_static(date))));
            assert_eq!(retry_after(&headers), want.map(Duration::from_secs), "{asked} {date:?}");
        };
        let now = Some("Sat, 28 Nov 2026 08:00:00 GMT");
        check("Sat, 28 Nov 2026 08:01:30 GMT", now, Some(90));
        check("Sat, 28 Nov 2026 07:00:00 GMT", now, None);
        check("Sat, 28 Nov 2026 08:01:30 GMT", None, None);
        check(" 7 ", now, Some(7));
        check("-7", now, None);
        check("soon", now, None);
    }

    /// In a process of its own: what is set in the environment holds for all of one. Would miss a proxy that the platform names elsewhere.
    #[test]
    fn a_proxy_tunnels_https_and_sees_no_plain_request() {
        const URL: &str = "POSTROOM_TEST_PLAIN_URL";
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        if let Ok(url) = env::var(URL) {
            let client = ReqwestClient::within(Duration::from_secs(20));
            let answer = runtime.block_on(client.post(&url, &SECRET.into())).expect("an answer");
            assert_eq!(answer.status, 204, "the endpoint's own answer");
            // The proxy of the test makes no tunnel.
            runtime
                .block_on(client.post("https://id.acme.example/token", &SECRET.into()))
                .expect_err("no tunnel");
            return;
        }
        // Notes the first line of each client, and answers it by a status.
        let serve = |status: u16| {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
            let address = listener.local_addr().expect("an address");
            let (sender, lines) = std::sync::mpsc::channel();
            std::thread::spawn(move || {
                use std::io::{BufRead, BufReader, Write};
                for stream in listener.incoming() {
                    let Ok(mut stream) = stream else { return };
                    let mut line = String::new();
                    let _ = BufReader::new(&stream).read_line(&mut line);
                    let _ = sender.send(line);
                    let _ = write!(
                        stream,
                        "HTTP/1.1 {status} x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                    );
                }
            });
            (address, lines)
        };
        let ((endpoint, asked), (proxy, tunnelled)) = (serve(204), serve(403));
        let mut child = Command::new(env::current_exe().expect("this test"));
        child.args(["--exact", "oauth::client::tests::a_proxy_tunnels_https_and_sees_no_plain_request"]);
        for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            child.env(name, format!("http://{proxy}")).env(name.to_lowercase(), format!("http://{proxy}"));
        }
        child.env_remove("NO_PROXY").env_remove("no_proxy").env(URL, format!("http://{endpoint}/token"));
        let output = child.output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(asked.try_iter().collect::<Vec<_>>(), ["POST /token HTTP/1.1\r\n"]);
        assert_eq!(tunnelled.try_iter().collect::<Vec<_>>(), ["CONNECT id.acme.example:443 HTTP/1.1\r\n"]);
    }
}

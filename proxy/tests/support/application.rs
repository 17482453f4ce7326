//! An application of few words: blocking, HTTP/1.1, in threads. It shares no code with the proxy, so that it can judge.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the application read it.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The request line, whole.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str())
    }

    pub fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }
}

/// What it does about a request.
pub enum Reply {
    Bytes(Vec<u8>),
    /// As `Bytes`, then the connection is closed.
    Last(Vec<u8>),
    Close,
    Wait(Duration, Vec<u8>),
}

/// `200` with a body.
pub fn ok(body: &str) -> Reply {
    status(200, body)
}

pub fn status(status: u16, body: &str) -> Reply {
    Reply::Bytes(
        format!(
            "HTTP/1.1 {status} X\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        )
        .into(),
    )
}

#[derive(Clone)]
pub struct Application {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
    connections: Arc<Mutex<usize>>,
}

impl Application {
    pub fn start(answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let application = Self {
            address: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let (own, answer) = (application.clone(), Arc::new(answer));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                *own.connections.lock().unwrap() += 1;
                let (own, answer) = (own.clone(), Arc::clone(&answer));
                std::thread::spawn(move || own.converse(stream.unwrap(), &*answer));
            }
        });
        application
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        *self.connections.lock().unwrap()
    }

    fn converse(&self, stream: TcpStream, answer: &dyn Fn(&Request) -> Reply) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut writer = stream;
        while let Some(request) = read_request(&mut reader) {
            self.seen.lock().unwrap().push(request.clone());
            let sent = match answer(&request) {
                Reply::Bytes(bytes) => writer.write_all(&bytes),
                Reply::Last(bytes) => {
                    let _ = writer.write_all(&bytes);
                    return;
                }
                Reply::Close => return,
                Reply::Wait(time, bytes) => {
                    std::thread::sleep(time);
                    writer.write_all(&bytes)
                }
            };
            if sent.is_err() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut request = Request {
        line: read_line(reader)?,
        ..Request::default()
    };
    loop {
        let line = read_line(reader)?;
        if line.is_empty() {
            break;
        }
        let (name, value) = line.split_once(": ")?;
        request.headers.push((name.to_owned(), value.to_owned()));
    }
    if let Some(length) = request.header("content-length") {
        request.body = vec![0; length.parse().unwrap()];
        reader.read_exact(&mut request.body).ok()?;
    } else if request.header("transfer-encoding").is_some() {
        loop {
            let size = usize::from_str_radix(&read_line(reader)?, 16).unwrap();
            let mut chunk = vec![0; size];
            reader.read_exact(&mut chunk).ok()?;
            request.body.extend_from_slice(&chunk);
            if size == 0 {
                while !read_line(reader)?.is_empty() {}
                break;
            }
            read_line(reader)?;
        }
    }
    Some(request)
}

/// A line, which must end in CRLF.
fn read_line(reader: &mut BufReader<TcpStream>) -> Option<String> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    Some(
        line.strip_suffix("\r\n")
            .expect("a line that ends in CRLF")
            .to_owned(),
    )
}

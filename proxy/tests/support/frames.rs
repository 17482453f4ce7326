//! HTTP/2 frame by frame (RFC 9113 §4), for what no proper client would send.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split};
use tokio::sync::Notify;
use tokio::time::timeout;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;
const ACK: u8 = 1;

/// RFC 9113 §7.
pub const FLOW_CONTROL_ERROR: u32 = 3;
pub const REFUSED_STREAM: u32 = 7;
pub const ENHANCE_YOUR_CALM: u32 = 11;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How the end of a flood is known: the answer to the second comes after the answers to all that went before.
const LAST: [&[u8]; 2] = [b"the-last", b"and-more"];
/// Catches a hang.
const PATIENCE: Duration = Duration::from_secs(60);

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// A field section for the service: `:method`, `:scheme`, `:path /` and `:authority` (RFC 7541, appendix A).
pub fn section(method: u8) -> Vec<u8> {
    let authority = super::pair::HOST.as_bytes();
    let mut block = vec![
        method,
        0x86,
        0x84,
        0x41,
        u8::try_from(authority.len()).unwrap(),
    ];
    block.extend(authority);
    block
}

pub const GET: u8 = 0x82;
pub const POST: u8 = 0x83;

/// The streams that a client opens are odd.
pub fn stream(number: usize) -> u32 {
    u32::try_from(number * 2 + 1).unwrap()
}

/// A request that is whole.
pub fn get(number: usize) -> Vec<u8> {
    frame(
        HEADERS,
        END_HEADERS | END_STREAM,
        stream(number),
        &section(GET),
    )
}

/// A request whose body is to come.
pub fn post(number: usize) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream(number), &section(POST))
}

pub trait Bytes: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Bytes for T {}

/// What became of a connection.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Everything was read and the connection is still there.
    pub survived: bool,
    pub goaway: Option<u32>,
    /// How many streams were reset with each code.
    pub resets: BTreeMap<u32, usize>,
    /// How many field sections came.
    pub answers: usize,
}

/// Send what `round` gives, so often, reading all the while; until the other end closes, or has read everything.
pub async fn flood(
    connection: impl Bytes,
    rounds: usize,
    mut round: impl FnMut(usize) -> Vec<u8>,
) -> Outcome {
    let (mut reader, mut writer) = split(connection);
    let mut outcome = Outcome::default();
    let answered = Notify::new();
    let writing = async {
        for number in 0..rounds {
            // An error is the other end's decision: the reader will see it.
            if writer.write_all(&round(number)).await.is_err() {
                return;
            }
        }
        for last in LAST {
            let _ = writer.write_all(&frame(PING, 0, 0, last)).await;
            let _ = writer.flush().await;
            answered.notified().await;
        }
    };
    let both = async {
        let mut reading = std::pin::pin!(note(&mut reader, &mut outcome, &answered));
        tokio::select! {
            () = &mut reading => {}
            () = writing => reading.await,
        }
    };
    timeout(PATIENCE, both).await.expect("an end of the flood");
    outcome
}

/// Note what comes, to the end or to the answer to the last ping.
async fn note(reader: &mut (impl AsyncRead + Unpin), outcome: &mut Outcome, answered: &Notify) {
    while let Some((kind, flags, payload)) = read(reader).await {
        match kind {
            PING if flags & ACK != 0 && payload == LAST[0] => answered.notify_one(),
            PING if flags & ACK != 0 && payload == LAST[1] => {
                outcome.survived = true;
                return;
            }
            GOAWAY => outcome.goaway = Some(number(&payload[4..])),
            RST_STREAM => *outcome.resets.entry(number(&payload)).or_default() += 1,
            HEADERS => outcome.answers += 1,
            _ => {}
        }
    }
}

/// Send for as long as the other end takes it, and read nothing; how many rounds it took.
pub async fn flood_deaf(connection: &mut impl Bytes, rounds: usize, round: &[u8]) -> usize {
    for number in 0..rounds {
        match timeout(Duration::from_secs(1), connection.write_all(round)).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return number,
        }
    }
    rounds
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

async fn read(reader: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, Vec<u8>)> {
    let mut head = [0; 9];
    reader.read_exact(&mut head).await.ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let mut payload = vec![0; length as usize];
    reader.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], payload))
}

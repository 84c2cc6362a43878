//! What a daemon says of itself on `/status`. A port that answers proves nothing: somebody else may have it.

use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::process::Running;

/// A daemon on this machine that does not answer within this is still opening its data, or is not one of ours.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// More than any status page has; whoever sends more is not one of ours.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// The status page behind a port of this machine, if a daemon answers there.
pub async fn status(http_port: u16) -> Option<Value> {
    tokio::time::timeout(ANSWER_MAX, fetch(http_port)).await.ok()?
}

async fn fetch(http_port: u16) -> Option<Value> {
    let mut stream = TcpStream::connect(("127.0.0.1", http_port)).await.ok()?;
    // HTTP/1.0: the answer comes unchunked and ends with the connection.
    stream.write_all(b"GET /status HTTP/1.0\r\n\r\n").await.ok()?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await.ok()?;
    body(&String::from_utf8_lossy(&answer))
}

fn body(answer: &str) -> Option<Value> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let is_ok = head.split_whitespace().nth(1) == Some("200");
    serde_json::from_str(body).ok().filter(|_| is_ok)
}

/// Whether this very process is ready: not another one that has its port.
pub async fn is_ready(http_port: u16, process: Running) -> bool {
    let status = status(http_port).await;
    status.is_some_and(|status| status["pid"] == process.pid && status["state"] == "ready")
}

/// What keeps a running daemon's timelines from moving: its first problem, as a sentence. Empty: nothing.
pub async fn problem(http_port: u16) -> String {
    let Some(status) = status(http_port).await else {
        return format!("it does not answer within {} s", ANSWER_MAX.as_secs());
    };
    let lists = ["timelines", "unattached"].map(|key| status[key].as_array().cloned().unwrap_or_default());
    let problems = lists.iter().flatten().filter_map(|timeline| timeline["problem"].as_str());
    problems.filter(|problem| !problem.is_empty()).map(str::to_owned).next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_a_good_answer_counts() {
        let answer =
            |status: &str| super::body(&format!("HTTP/1.0 {status}\r\na: b\r\n\r\n{{\"state\": \"ready\"}}"));
        assert_eq!(answer("200 OK").expect("a page")["state"], "ready");
        assert!(answer("404 Not Found").is_none());
        assert!(super::body("SSH-2.0-OpenSSH\r\n").is_none());
    }
}

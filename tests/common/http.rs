//! One HTTP request on a connection of its own: a server may close one after an error, and tests
//! are not to depend on that.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use hyper::HeaderMap;
use hyper::header::{HeaderName, HeaderValue};
use socket2::{Domain, Socket, Type};

pub struct Response {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

/// `url`: `http://host:port/path`. `silence`: so long may the server say nothing.
pub fn send(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
    silence: Duration,
) -> io::Result<Response> {
    let rest = url.strip_prefix("http://").expect("an address of http");
    let (host, _) = rest.split_once('/').unwrap_or((rest, ""));
    let stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(silence))?;
    stream.set_write_timeout(Some(silence))?;
    exchange(stream, method, url, headers, body)
}

/// The same on a connection that is open.
pub fn exchange(
    mut stream: impl Read + Write,
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Response> {
    let (_, rest) = url.split_once("://").expect("an address");
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let mut head = format!("{method} /{path} HTTP/1.1\r\nConnection: close\r\n");
    if !headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("host"))
    {
        head += &format!("Host: {host}\r\n");
    }
    if !body.is_empty() || !matches!(method, "GET" | "HEAD") {
        head += &format!("Content-Length: {}\r\n", body.len());
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(&[head.as_bytes(), b"\r\n", body].concat())?;
    read(&mut BufReader::new(stream), method == "HEAD")
}

pub fn read(reader: &mut impl BufRead, is_bare: bool) -> io::Result<Response> {
    let first = line(reader)?;
    let status = first.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {first:?}")))?;
    let mut headers = HeaderMap::new();
    loop {
        let line = line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        let name = HeaderName::try_from(name).map_err(io::Error::other)?;
        let value = HeaderValue::try_from(value.trim()).map_err(io::Error::other)?;
        headers.append(name, value);
    }
    let length = headers.get("content-length").map(HeaderValue::to_str);
    let mut body = Vec::new();
    if is_bare || matches!(status, 204 | 304) {
    } else if let Some(length) = length {
        let length = length.ok().and_then(|length| length.parse().ok());
        body.resize(length.ok_or_else(|| io::Error::other("no length"))?, 0);
        reader.read_exact(&mut body)?;
    } else if headers.contains_key("transfer-encoding") {
        loop {
            let size = usize::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
            let began = body.len();
            body.resize(began + size, 0);
            reader.read_exact(&mut body[began..])?;
            line(reader)?;
            if size == 0 {
                break;
            }
        }
    } else {
        reader.read_to_end(&mut body)?;
    }
    Ok(Response {
        status,
        headers,
        body,
    })
}

/// A connection to a port of this machine from another of its addresses: all of 127/8 are.
pub fn connect_from(address: [u8; 4], port: u16) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    let at = |address: [u8; 4], port: u16| SocketAddr::from((address, port)).into();
    socket.bind(&at(address, 0))?;
    socket.connect(&at([127, 0, 0, 1], port))?;
    Ok(socket.into())
}

/// Without its end.
fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    match reader.read_line(&mut line)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

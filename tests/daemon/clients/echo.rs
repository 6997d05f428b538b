//! The protocol layers alone under the stock clients: attachments and acknowledgements both ways,
//! lost connections, a restarted server.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use satwatch::socketio::{
    CloseReason, Config, ConnectRefused, ConnectRequest, DisconnectReason, Encoded, Event, Handler,
    Service, Socket, Work,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

use crate::common::{Program, wait_until};

/// Does what events are named after.
#[derive(Clone, Default)]
struct Echo {
    sockets: Arc<Mutex<Vec<Socket>>>,
}

impl Handler for Echo {
    type Admitted = ();

    async fn authorize(&self, _: ConnectRequest) -> Result<(), ConnectRefused> {
        Ok(())
    }

    fn connected(&self, socket: &Socket, _: &ConnectRequest, (): ()) {
        self.sockets
            .lock()
            .expect("no test panics while holding it")
            .push(socket.clone());
    }

    fn event(&self, socket: &Socket, event: Event) -> Option<Work> {
        let back = |name: &str| {
            Encoded::event_with(socket.namespace(), name, &event.args, &event.attachments)
                .expect("it came so")
        };
        match (event.name.as_str(), event.ack) {
            ("echo", _) => socket
                .send(&back("echo"))
                .expect("a reading client has room"),
            ("ack", Some(ack)) => ack
                .send_with(&event.args, &event.attachments)
                .expect("a reading client has room"),
            _ => {}
        }
        None
    }

    fn disconnected(&self, _: &Socket, _: DisconnectReason) {}
}

/// An echo server that can be restarted on its port.
struct Server {
    runtime: Runtime,
    at: SocketAddr,
    running: Option<(Service<Echo>, JoinSet<()>)>,
    echo: Echo,
}

impl Server {
    fn start() -> Self {
        let runtime = Runtime::new().expect("the system gives threads");
        let mut server = Self {
            runtime,
            at: ([127, 0, 0, 1], 0).into(),
            running: None,
            echo: Echo::default(),
        };
        server.run();
        server
    }

    fn run(&mut self) {
        let listener = wait_until("the port is free", || {
            self.runtime.block_on(TcpListener::bind(self.at)).ok()
        });
        self.at = listener.local_addr().expect("it is bound");
        let service = satwatch::socketio::service(Config::default(), self.echo.clone());
        let mut tasks = JoinSet::new();
        tasks.spawn_on(accept(listener, service.clone()), self.runtime.handle());
        self.running = Some((service, tasks));
    }

    fn restart(&mut self) {
        let (service, tasks) = self.running.take().expect("it runs");
        self.runtime.block_on(service.shutdown());
        drop(tasks);
        self.run();
    }

    /// Ends all sessions without a word.
    fn cut(&self) {
        for socket in self
            .echo
            .sockets
            .lock()
            .expect("no test panics while holding it")
            .drain(..)
        {
            socket.close(CloseReason::TransportError);
        }
    }

    fn url(&self) -> String {
        format!("http://{}", self.at)
    }
}

/// Connections end with the task, as they do with a process.
async fn accept(listener: TcpListener, service: Service<Echo>) {
    let mut connections = JoinSet::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            continue;
        };
        let service = service.clone();
        let answer = service_fn(move |request| {
            let answer = service.handle(request, Some(peer.ip()));
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(stream), answer)
            .with_upgrades();
        connections.spawn(async move {
            let _ = connection.await;
        });
    }
}

/// Waits until the client has heard all there is to hear on its connection number `round`. `empty`:
/// how it shows an empty attachment.
fn hears_all(client: &Program, round: i64, empty: &Value) {
    let bytes = json!({ "first": { "base64": "AAEe/w==" }, "list": [empty, "é€😀", { "base64": "eHh4".repeat(100) }] });
    let is = |event: &str, args: Value| client.event(event, |heard| *heard == args);
    is("echo", json!([round, bytes, null]));
    is("ack", json!([round, bytes]));
    is("ack", json!([round]));
}

fn every_transport_echoes_over_losses_and_a_restart(
    empty: Value,
    start: impl Fn(&str, &str) -> Program,
) {
    let mut server = Server::start();
    let url = server.url();
    let clients: Vec<_> = ["polling", "websocket", "upgrade"]
        .map(|mode| (mode, start(&url, mode)))
        .into();
    for (mode, client) in &clients {
        hears_all(client, 1, &empty);
        let transport = if *mode == "polling" {
            "polling"
        } else {
            "websocket"
        };
        client.event("transport", |name| name == transport);
    }
    server.cut();
    for (_, client) in &clients {
        hears_all(client, 2, &empty);
    }
    server.restart();
    for (_, client) in &clients {
        hears_all(client, 3, &empty);
    }
}

#[test]
fn socket_io_client_4() {
    every_transport_echoes_over_losses_and_a_restart(json!({ "base64": "" }), |url, mode| {
        Program::node("echo.js", &["socket.io-client", url, mode])
    });
}

#[test]
fn python_socketio_5() {
    every_transport_echoes_over_losses_and_a_restart(json!({ "base64": "" }), |url, mode| {
        Program::python("echo.py", &[url, mode])
    });
}

#[test]
fn socket_io_client_2() {
    every_transport_echoes_over_losses_and_a_restart(json!({ "base64": "" }), |url, mode| {
        Program::node("echo.js", &["socket.io-client-2", url, mode])
    });
}

/// It takes an empty attachment for none at all.
#[test]
fn python_socketio_4() {
    every_transport_echoes_over_losses_and_a_restart(Value::Null, |url, mode| {
        Program::python_eio3("echo.py", &[url, mode])
    });
}

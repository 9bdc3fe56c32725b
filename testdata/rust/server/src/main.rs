//! An HTTP server on tokio to trace under load: the same service as ../../../go/server, so that the same client loads it.
//! `server [-addr 127.0.0.1:0]` prints "ready 127.0.0.1:PORT" when it listens, and on SIGTERM prints the line of truth
//! (`server::Store::handle`, `server::Store::get`, `server::Store::put`: how often each was called) and ends with 0.
//!
//! `server::Store::handle` is async: what is counted is its calls, not the polls of its future.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{Method, Request, Response, StatusCode, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use tokio::{net::TcpListener, signal::unix};

#[derive(Clone, Default, Deserialize, Serialize)]
struct Order {
    #[serde(default)]
    id: u32,
    customer: String,
    items: Vec<String>,
    cents: i64,
}

struct Store {
    orders: RwLock<HashMap<u32, Order>>,
}

static HANDLED: AtomicU64 = AtomicU64::new(0);
static GOT: AtomicU64 = AtomicU64::new(0);
static PUT: AtomicU64 = AtomicU64::new(0);

impl Store {
    #[inline(never)]
    fn get(&self, id: u32) -> Option<Order> {
        GOT.fetch_add(1, Ordering::Relaxed);
        self.orders.read().expect("no panic under the lock").get(&id).cloned()
    }

    #[inline(never)]
    fn put(&self, order: Order) {
        PUT.fetch_add(1, Ordering::Relaxed);
        self.orders.write().expect("no panic under the lock").insert(order.id, order);
    }

    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        HANDLED.fetch_add(1, Ordering::Relaxed);
        let answer = |status, body: Vec<u8>| {
            let mut response = Response::new(Full::new(Bytes::from(body)));
            *response.status_mut() = status;
            Ok(response)
        };
        let Some(id) = request.uri().path().strip_prefix("/orders/").and_then(|id| id.parse().ok()) else {
            return answer(StatusCode::BAD_REQUEST, Vec::new());
        };
        if request.method() == Method::PUT {
            let order = match request.into_body().collect().await {
                Ok(body) => serde_json::from_slice::<Order>(&body.to_bytes()),
                Err(_) => return answer(StatusCode::BAD_REQUEST, Vec::new()),
            };
            let Ok(order) = order else { return answer(StatusCode::BAD_REQUEST, Vec::new()) };
            self.put(Order { id, ..order });
            return answer(StatusCode::NO_CONTENT, Vec::new());
        }
        match self.get(id) {
            Some(order) => answer(StatusCode::OK, serde_json::to_vec(&order).expect("an order is JSON")),
            None => answer(StatusCode::NOT_FOUND, Vec::new()),
        }
    }
}

fn orders() -> HashMap<u32, Order> {
    let order = |id: u32| Order {
        id,
        customer: format!("customer {}", id % 97),
        items: vec!["bolt".to_owned(), "nut".to_owned()],
        cents: i64::from(id) * 25,
    };
    (0..1000).map(|id| (id, order(id))).collect()
}

async fn serve(listener: TcpListener, store: Arc<Store>) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let store = store.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| store.clone().handle(request));
            // A client that goes away is no error of ours.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

#[tokio::main(worker_threads = 4)]
async fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let address = match args.get(1..) {
        Some([flag, address]) if flag == "-addr" => address.as_str(),
        _ => "127.0.0.1:0",
    };
    let mut stop = unix::signal(unix::SignalKind::terminate())?;
    let listener = TcpListener::bind(address).await?;
    println!("ready {}", listener.local_addr()?);
    let store = Arc::new(Store { orders: RwLock::new(orders()) });
    tokio::select! {
        () = serve(listener, store) => {}
        _ = stop.recv() => {}
    }
    let counts = [("server::Store::handle", &HANDLED), ("server::Store::get", &GOT), ("server::Store::put", &PUT)];
    let line: HashMap<&str, u64> = counts.map(|(name, count)| (name, count.load(Ordering::Relaxed))).into();
    println!("{}", serde_json::to_string(&line).expect("counts are JSON"));
    Ok(())
}

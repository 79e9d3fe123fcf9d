//! A door, whatever its wire: from a request to its answer, within the limits.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use http::request::Parts;
use http::{HeaderValue, Method, Request, StatusCode, Version, header};
use hyper::body::Body;

use super::body::{self, Refusal};
use super::routes::{self, Reply, Route};
use super::watch::{Phase, Watch};
use super::{Connections, HttpSettings, Service, infer};
use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{DoorMetrics, Registry};
use crate::pipeline::Endpoint;

/// Answers requests for a [`Service`], over connections or, in the same process, without one.
pub struct Door {
    pub(super) service: Arc<Service>,
    pub(super) settings: HttpSettings,
    pub(super) metrics: DoorMetrics,
    pub(super) connections: Connections,
}

impl Door {
    /// A door to `service`; its counters go into `registry`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where nothing can be served under these limits.
    pub fn new(service: Arc<Service>, settings: HttpSettings, registry: &Registry) -> Result<Arc<Self>> {
        settings.check()?;
        Ok(Arc::new(Self {
            service,
            settings,
            metrics: DoorMetrics::new(registry),
            connections: Connections::default(),
        }))
    }

    /// What it serves.
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Inference requests in flight.
    pub fn in_flight(&self) -> usize {
        self.metrics.in_flight()
    }

    /// Connections that are open.
    pub fn connections(&self) -> usize {
        self.connections.count()
    }

    /// The count of its connections, for somebody who waits for their end.
    pub fn connection_count(&self) -> Connections {
        self.connections.clone()
    }

    /// The text of every metric.
    pub fn metrics_text(&self) -> String {
        self.metrics.observe(self.connections.count());
        self.service.metrics()
    }

    /// Answers a request that came over no connection. Every failure is an answer, with a status and words.
    ///
    /// # Cancellation
    /// Dropping the future takes the request out of its model's queue.
    pub async fn ask<B>(&self, request: Request<B>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        self.answer(request, None).await
    }

    pub(super) async fn answer<B>(&self, request: Request<B>, watch: Option<&Watch>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let (parts, body) = request.into_parts();
        let mut route = pin!(self.route(&parts, body, watch));
        let reply = poll_fn(|context| {
            // A panic is this request's failure, not its connection's.
            let polled = catch_unwind(AssertUnwindSafe(|| route.as_mut().poll(context)));
            polled.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Internal, "penstock panicked: please report it");
                Poll::Ready(routes::failure(&error))
            })
        });
        let mut reply = reply.await;
        if parts.method == Method::HEAD {
            routes::leave_out_body(&mut reply);
        }
        self.metrics.responded(reply.status().as_u16());
        reply
    }

    async fn route<B>(&self, parts: &Parts, body: B, watch: Option<&Watch>) -> Reply
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Some(route) = Route::of(parts.uri.path()) else {
            return routes::refusal(StatusCode::NOT_FOUND, "there is nothing at this path");
        };
        let fits =
            parts.method == route.method() || (parts.method == Method::HEAD && route.method() == Method::GET);
        if !fits {
            return routes::wrong_method(&route);
        }
        let answer = match &route {
            Route::Infer { name, version } => match self.service.model(name, *version) {
                Ok(model) => self.infer(Arc::clone(model), parts, body, watch).await,
                Err(error) => Err(error),
            },
            Route::Metrics => Ok(routes::metrics(self.metrics_text())),
            other => routes::answer(&self.service, other),
        };
        answer.unwrap_or_else(|error| routes::failure(&error))
    }

    async fn infer<B>(
        &self,
        model: Arc<Endpoint>,
        parts: &Parts,
        body: B,
        watch: Option<&Watch>,
    ) -> Result<Reply>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let most = self.settings.max_in_flight;
        let Some(_in_flight) = self.metrics.admit(most) else {
            self.metrics.refused("max_in_flight");
            let message = format!("there are max_in_flight={most} requests: try again later");
            return Err(Error::new(ErrorKind::Overloaded, message));
        };
        let arrived = || {
            if let Some(watch) = watch
                && parts.version == Version::HTTP_11
            {
                watch.enter(Phase::Answering);
            }
        };
        let body = match body::read(body, &parts.headers, &self.settings, arrived).await {
            Ok(body) => body,
            Err(refusal) => return Ok(self.refuse(&model, &refusal, parts.version)),
        };
        infer::answer(&model, &parts.headers, body, self.settings.server_timing).await
    }

    fn refuse(&self, model: &Endpoint, refusal: &Refusal, version: Version) -> Reply {
        model.count_invalid();
        self.metrics.refused(refusal.reason);
        let mut reply = routes::refusal(refusal.status, &refusal.message);
        if refusal.unread && version < Version::HTTP_2 {
            reply.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        reply
    }
}

//! Calls of values, and calls through tower.
#![cfg(all(feature = "tower", feature = "json", feature = "postcard"))]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Pair, pair};
use serde::{Deserialize, Serialize};
use sheetbend_tokio::{
    Caller, Code, Executed, Failure, Incoming, Json, Metadata, Outgoing, Postcard, Reply, Router,
    RouterBuilder, runtime,
};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Order {
    item: String,
    count: u32,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Receipt {
    total: u64,
}

async fn served(router: RouterBuilder) -> Pair {
    let pair = pair("mem").await;
    let (session, router) = (pair.peer.clone(), router.build());
    tokio::spawn(async move { router.serve(session).await });
    pair
}

#[tokio::test]
async fn values_as_json_and_as_postcard() {
    let place = |_, order: Order| async move {
        let total = u64::from(order.count) * 7;
        Ok(Receipt { total })
    };
    let router = Router::builder()
        .unary_as::<Json, _, _, _>("json", place)
        .unary_as::<Postcard, _, _, _>("postcard", place)
        .bidirectional("both", |_, mut items, mut out| async move {
            while let Some(order) = items.next_as::<Json, Order>().await? {
                let total = u64::from(order.count);
                out.send_as::<Json, _>(&Receipt { total }).await?;
            }
            Ok(())
        })
        .client_streaming("total", |_, mut items| async move {
            let mut total = 0;
            while let Some(order) = items.next_as::<Postcard, Order>().await? {
                total += order.count;
            }
            Ok(format!("{{\"total\":{total}}}"))
        });
    let pair = served(router).await;
    let client = &pair.client;
    let order = Order {
        item: "rope".to_owned(),
        count: 6,
    };
    let receipt: Receipt = client.call("json").unary_as::<Json, _, _>(&order).await.unwrap();
    assert_eq!(receipt, Receipt { total: 42 });
    let receipt: Receipt = client
        .call("postcard")
        .unary_as::<Postcard, _, _>(&order)
        .await
        .unwrap();
    assert_eq!(receipt, Receipt { total: 42 });
    let mut call = client.call("total").client_streaming().await.unwrap();
    call.send_as::<Postcard, _>(&order).await.unwrap();
    assert_eq!(
        call.finish_as::<Json, Receipt>().await.unwrap(),
        Receipt { total: 6 }
    );
    let (mut out, mut answers) = client.call("both").bidirectional().await.unwrap();
    out.send_as::<Json, _>(&order).await.unwrap();
    assert_eq!(
        answers.next_as::<Json, Receipt>().await,
        Ok(Some(Receipt { total: 6 }))
    );

    // What is not understood is said to be so, and whether a handler ran.
    let error = client.request("json", "[]").await.unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (Code::InvalidArgument, Executed::No)
    );
    let error = client
        .call("json")
        .unary_as::<Json, _, Order>(&order)
        .await
        .unwrap_err();
    assert_eq!((error.code(), error.executed()), (Code::Internal, Executed::Yes));
    let nameless = std::collections::BTreeMap::from([(vec![1], 1)]);
    let error = client
        .call("json")
        .unary_as::<Json, _, Order>(&nameless)
        .await
        .unwrap_err();
    assert_eq!(
        (error.code(), error.executed()),
        (Code::InvalidArgument, Executed::No)
    );
}

#[tokio::test]
async fn services_with_middleware_serve_and_call() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = seen.clone();
    let service = ServiceBuilder::new()
        .map_request(move |call: Incoming| {
            count.fetch_add(1, Ordering::SeqCst);
            call
        })
        .concurrency_limit(1)
        .service(service_fn(|call: Incoming| async move {
            tokio::task::yield_now().await;
            match call.context.metadata().value("who") {
                Some(who) => Ok::<_, Failure>(Reply::new([who, &call.payload].concat())),
                None => Err(Failure::new(Code::Unauthenticated, "who is it?")),
            }
        }));
    let other = service_fn(|call: Incoming| async move {
        let method = call.context.method().to_owned();
        Ok::<_, Failure>(Reply::new(method))
    });
    let pair = served(
        Router::builder()
            .service("greet", service)
            .fallback_service(other),
    )
    .await;
    let mut session = pair.client.clone();
    let mut caller = Caller::builder(pair.client.clone()).build(runtime());
    let call = Outgoing {
        metadata: Metadata::from_entries([("who", &b"ann "[..])]).unwrap(),
        repeatable: true,
        timeout: Some(std::time::Duration::from_secs(10)),
        ..Outgoing::new("greet", "hello")
    };
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..20 {
        calls.spawn(session.ready().await.unwrap().call(call.clone()));
        calls.spawn(caller.ready().await.unwrap().call(call.clone()));
    }
    while let Some(reply) = calls.join_next().await {
        assert_eq!(reply.unwrap().unwrap().payload, "ann hello");
    }
    assert_eq!(seen.load(Ordering::SeqCst), 40);
    let error = session
        .clone()
        .oneshot(Outgoing::new("greet", ""))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::Unauthenticated);
    let reply = session.oneshot(Outgoing::new("what else", "")).await.unwrap();
    assert_eq!(reply.payload, "what else");
}
